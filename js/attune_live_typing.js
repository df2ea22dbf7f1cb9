/**
 * Live drawing: while Run is on "On Change", words typed in a graph with One-Step Sampler draw anew when the typing pauses.
 * The host itself looks for changes in a text only when the mouse is used.
 */

import { app } from "/scripts/app.js";

const SAMPLER = "AttuneOneStepSampler";
/** Milliseconds without a key that count as a pause. */
const PAUSE = 250;

const isLive = () =>
    app.extensionManager?.queueSettings?.mode === "change" && (app.graph?.nodes ?? []).some((node) => node.comfyClass === SAMPLER);

/** Let the host compare the graph with what it was; it queues a run where something has changed. */
const look = () => app.extensionManager?.workflow?.activeWorkflow?.changeTracker?.checkState?.();

app.registerExtension({
    name: "Attune.LiveTyping",
    setup() {
        let pause;
        document.addEventListener("input", ({ target }) => {
            if (!(target instanceof HTMLTextAreaElement)) return;
            clearTimeout(pause);
            pause = setTimeout(() => isLive() && look(), PAUSE);
        });
    },
});
