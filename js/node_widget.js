/**
 * A page of our own inside a node: as the host's DOM widget, which the workflow does not save.
 */

/**
 * Pages of nodes that are gone and that Nodes 2.0 may still show: it keeps what stands in a node when a workflow is read
 * anew (undo) and its node comes back under the same number. Per number of the node and name of the widget.
 */
const left = new Map();

/** In place of the page that the node had before it was read anew. */
function comeBack(node, name, root) {
    const key = `${node.id} ${name}`;
    const before = left.get(key);
    left.delete(key);
    if (before?.isConnected && !root.isConnected) before.replaceWith(root);
}

function leave(node, name, root) {
    for (const [key, page] of left) if (!page.isConnected) left.delete(key);
    if (root.closest?.(".lg-node")) left.set(`${node.id} ${name}`, root);
}

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
        leave(node, name, page.root);
        onRemoved?.();
        page.dispose?.();
        removed?.apply(this, arguments);
    };
    onConfigured(node, () => comeBack(node, name, page.root));
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
