/**
 * How an element inside a node shares wheel and pointer with the canvas around it, with classic nodes and in Nodes 2.0.
 */

/** Height of a line, for wheels that count in lines. */
const LINE = 16;

/** Turning the wheel scrolls what can be scrolled, and else moves the canvas as everywhere. */
function turnWheel(app, event, root) {
    const place = event.target.closest("[data-capture-wheel]");
    const across = place?.dataset.captureWheel === "across" && place.scrollWidth > place.clientWidth;
    const scrolls = place && root.contains(place) && (across || place.scrollHeight > place.clientHeight);
    event.stopPropagation();
    if (scrolls && !event.ctrlKey && !event.metaKey) {
        // A row of things goes on to the side, whichever way the wheel turns; with Shift the browser says so itself.
        if (across && !event.shiftKey && !event.deltaX) {
            event.preventDefault();
            place.scrollLeft += event.deltaY * (event.deltaMode ? LINE : 1);
        }
        return;
    }
    event.preventDefault();
    app.canvas.processMouseWheel?.(event);
}

/** Whether the element stands in a node of Nodes 2.0, which hands on to the canvas what is meant for it. */
const inNewNode = (root) => Boolean(root.closest(".lg-node"));

/** Listen until `signal` says to stop. */
export function shareWithCanvas(app, root, signal) {
    root.addEventListener("wheel", (event) => turnWheel(app, event, root), { signal, passive: false });
    const forward = { pointerdown: "processMouseDown", pointermove: "processMouseMove", pointerup: "processMouseUp" };
    for (const [kind, method] of Object.entries(forward)) {
        root.addEventListener(kind, (event) => {
            const middle = event.button === 1 || (event.buttons & 4) === 4;
            if (middle && !inNewNode(root)) app.canvas[method]?.(event);
            // Nodes 2.0 would drag the node along with the scroll bar, or a shaky click.
            if (kind === "pointermove" && (event.buttons & 1) === 1) event.stopPropagation();
        }, { signal });
    }
}
