/**
 * Which workflow the page shows, and that no two open tabs pass for the same one.
 *
 * The host saves an id in every workflow and sends it along with every prompt. But a file opened twice, and on some
 * versions a duplicated tab, has the id of its original.
 */

const ZERO_ID = "00000000-0000-0000-0000-000000000000";

/** The id of the workflow that is shown; "" where the host has none. */
export function workflowId(app) {
    const id = (app.rootGraph ?? app.graph)?.id;
    return id && id !== ZERO_ID ? String(id) : "";
}

/** Whether another open tab has the same id. Tabs that were not loaded yet have no state. */
export function isCopy(id, active, open) {
    return Boolean(id) && open.some((tab) => tab && tab.path !== active.path && tab.activeState?.id === id);
}

/**
 * Have the host keep what has just been changed in the shown graph, unless it is changing tabs: it would keep the new tab's graph
 * as the old one's. What is not kept now is so at the next change.
 */
export function keepShown(app) {
    const active = app.extensionManager?.workflow?.activeWorkflow;
    if (active?.activeState?.id === workflowId(app)) active.changeTracker?.checkState?.();
}

/** Tabs that were loaded anew: once is enough, also where the host should keep the id. */
const separated = new WeakSet();

/**
 * Separate the shown tab, if need be, at a moment when the host is not changing tabs: the graph is one tab's already then and
 * the name still the other's, and a look would put one into the other.
 */
export function separateShown(app) {
    const shown = app.extensionManager?.workflow?.activeWorkflow?.activeState?.id;
    if (shown === workflowId(app)) separateCopy(app);
}

/**
 * If the shown tab is a copy, load it again without its id: the host then makes a new one.
 * @returns {boolean} whether it is being loaded again
 */
export function separateCopy(app) {
    const { activeWorkflow: active, openWorkflows: open } = app.extensionManager?.workflow ?? {};
    if (!active || !open || separated.has(active) || !isCopy(workflowId(app), active, open)) return false;
    // While the host changes tabs, the graph is the new tab's already and the active workflow still the old one.
    if (active.activeState && active.activeState.id !== workflowId(app)) return false;
    separated.add(active);
    const { id, ...rest } = (app.rootGraph ?? app.graph).serialize();
    const quiet = { showMissingNodesDialog: false, showMissingModelsDialog: false };
    app.loadGraphData(rest, true, true, active, quiet);
    return true;
}
