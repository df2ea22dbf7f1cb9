/**
 * A page of our own inside a node: as the host's DOM widget, which the workflow does not save.
 */

/**
 * @param {object} node
 * @param {{root: HTMLElement, dispose?: () => void}} page   disposed of with the node
 * @param {object} how
 * @param {string} how.name  of the widget; how.kind its type
 * @param {() => number} how.height  least height
 * @param {() => void} [how.onRemoved]  the node is gone, or its tab is
 * @returns {object} the widget
 */
export function addPage(node, page, { name, kind, height, onRemoved }) {
    const widget = node.addDOMWidget(name, kind, page.root, {
        serialize: false,
        hideOnZoom: false,
        getMinHeight: height,
        getValue: () => "",
        setValue: () => {},
    });
    widget.serialize = false;
    const removed = node.onRemoved;
    node.onRemoved = function () {
        onRemoved?.();
        page.dispose?.();
        removed?.apply(this, arguments);
    };
    return widget;
}

/** The node has taken its size before the widget came; classic nodes would leave it hanging below. */
export function makeRoom(node, least) {
    const [width, height] = node.computeSize();
    node.setSize([Math.max(width, least, node.size[0]), Math.max(height, node.size[1])]);
}

/** Classic nodes share what is left of the height among all such widgets; a few lines are enough for text boxes. */
export function keepLow(node, names, height) {
    for (const box of node.widgets?.filter(({ name }) => names.includes(name)) ?? []) {
        if (box.options) box.options.getMaxHeight ??= () => height;
    }
}

/** Do something when the node has got its saved values. */
export function onConfigured(node, work) {
    const configured = node.onConfigure;
    node.onConfigure = function () {
        configured?.apply(this, arguments);
        work();
    };
}
