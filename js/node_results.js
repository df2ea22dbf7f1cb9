/**
 * What runs told, handed to the node of the workflow that was run, in whichever tab that is: the host hands a result to
 * whatever node of that number is shown. No host, no page: runs under Node.
 */

import { inOrder, isFor, recordOfRun, resultOf } from "./run_results.js";
import { remembered } from "./score_gallery_state.js";

/**
 * @template T
 * @param {(path: string) => Promise<object>} read   asks the host
 * @param {(output: object|undefined) => T|null} valueOf   a node's output as its page takes it; null = it is for no such page
 * @returns {{views: Set<{identity: () => object, take: (value: T) => void}>, received: (event: {detail: object}) =>
 *          Promise<void>|null, restore: () => void}} views = the pages that are there, which the caller keeps; received takes the
 *          host's event "executed"; restore brings the pages of a workflow whose tab is shown again up to date
 */
export function createResults(read, valueOf) {
    const views = new Set();
    /** The newest result per node and workflow, of all tabs. */
    let results = [];

    const take = inOrder(async (detail) => {
        let record;
        try {
            record = await recordOfRun(read, detail.prompt_id);
        } catch (error) {
            console.warn("Attune: the host did not say whose run this is.", error);
        }
        const result = resultOf(detail, record);
        results = remembered(results, result);
        for (const view of views) if (isFor(result, view.identity())) view.take(valueOf(result.output));
    });

    return {
        views,
        received: ({ detail }) => (valueOf(detail?.output) === null ? null : take(detail)),
        restore() {
            for (const view of views) {
                const own = view.identity();
                const mine = (earlier) => earlier.workflow && earlier.workflow === own.workflow && isFor(earlier, own);
                const result = results.findLast(mine);
                if (result) view.take(valueOf(result.output));
            }
        },
    };
}
