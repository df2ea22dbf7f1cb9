/** Telling open tabs apart, without page or host: `node --test tests/js`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isCopy, keepShown, separateCopy, workflowId } from "../../js/workflow_tabs.js";

const tab = (path, id) => ({ path, activeState: id === undefined ? null : { id } });

function host(id, active, open) {
    const loaded = [];
    return {
        loaded,
        graph: { id, serialize: () => ({ id, nodes: [] }) },
        loadGraphData: (...values) => loaded.push(values),
        extensionManager: { workflow: { activeWorkflow: active, openWorkflows: open } },
    };
}

test("a cleared graph and an old host have no workflow id", () => {
    assert.equal(workflowId({ graph: { id: "one" } }), "one");
    assert.equal(workflowId({ rootGraph: { id: "root" }, graph: { id: "inner" } }), "root");
    assert.equal(workflowId({ graph: { id: "00000000-0000-0000-0000-000000000000" } }), "");
    assert.equal(workflowId({ graph: {} }), "");
    assert.equal(workflowId({}), "");
});

test("a copy is a tab whose id another open tab has too", () => {
    const [first, copy, other, unloaded] = [tab("a", "one"), tab("a (2)", "one"), tab("b", "two"), tab("c")];
    assert.ok(isCopy("one", copy, [first, copy, other, unloaded]));
    assert.ok(!isCopy("one", first, [first, other, unloaded]));
    assert.ok(!isCopy("", copy, [first, copy]));
});

test("a copy is loaded again without its id, once", () => {
    const [first, copy] = [tab("a", "one"), tab("a (2)", "one")];
    const app = host("one", copy, [first, copy]);
    assert.ok(separateCopy(app));
    const [[data, , , workflow]] = app.loaded;
    assert.deepEqual(data, { nodes: [] });
    assert.equal(workflow, copy);
    assert.ok(!separateCopy(app));
    assert.equal(app.loaded.length, 1);
});

test("a single tab, and a host that does not tell its tabs, are left alone", () => {
    const only = tab("a", "one");
    const app = host("one", only, [only]);
    assert.ok(!separateCopy(app));
    assert.ok(!separateCopy({ graph: { id: "one" } }));
    assert.equal(app.loaded.length, 0);
});

test("in the middle of a change of tabs nothing is loaded into the old tab", () => {
    // The graph is the new tab's already (id "one"), the active workflow still the old tab ("two").
    const [first, copy, old] = [tab("a", "one"), tab("a (2)", "one"), tab("b", "two")];
    const app = host("one", old, [first, copy, old]);
    assert.ok(!separateCopy(app));
    assert.equal(app.loaded.length, 0);
});

test("a change is kept as the shown tab's, and never as that of the tab which is being left", () => {
    let kept = 0;
    const tracked = (id) => ({ ...tab("a", id), changeTracker: { checkState: () => (kept += 1) } });
    keepShown(host("one", tracked("one"), []));
    assert.equal(kept, 1);
    keepShown(host("one", tracked("two"), []));
    keepShown({ graph: { id: "one" } });
    assert.equal(kept, 1);
});
