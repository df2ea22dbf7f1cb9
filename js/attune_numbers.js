/**
 * Small numbers in Nodes 2.0: its number field shows three decimals unless told otherwise, so that a weight decay of 0.0001
 * reads 0. The classic field shows as many as `precision` says; the new one gets the same number of decimals.
 */

import { app } from "/scripts/app.js";

app.registerExtension({
    name: "Attune.Numbers",
    nodeCreated(node) {
        if (!node.comfyClass?.startsWith("Attune")) return;
        for (const { type, options } of node.widgets ?? []) {
            if (type === "number" && options?.precision > 3) options.maxFractionDigits ??= options.precision;
        }
    },
});
