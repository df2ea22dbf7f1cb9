/**
 * A pair as large as the page: to vote on, blind, or to look at, decided. A dialog of the page itself, over everything else.
 * Knows no host.
 */

import { current, progressText } from "./ab_state.js";
import { createChoices, createStage, listenToKeys } from "./ab_parts.js";
import { button, element, icon } from "./score_gallery_parts.js";

/**
 * @param {Document} document
 * @param {{onMeaning: (meaning: string, ready: boolean) => void, onMissing: () => void, addressOf: (name: string) => string,
 *          onClose: () => void}} outside
 * @returns {{open: (place?: number) => void, render: (state: object) => void, isOpen: () => boolean, dispose: () => void}}
 *          open with the place of a decided pair looks at it, without one shows the pair that is voted on
 */
export function createLarge(document, { onMeaning, onMissing, addressOf, onClose }) {
    const make = (tag, className, ...children) => element(document, tag, className, ...children);
    const listening = new AbortController();
    const { signal } = listening;
    const progress = make("span", "attune-ab-progress");
    const undo = button(document, "attune-ab-plain", "Undo (Z)", "Takes your last vote back");
    const close = button(document, "attune-ab-close", "", "Close (Esc)");
    close.setAttribute("aria-label", "Close");
    close.append(icon(document, "cross"));
    const top = make("div", "attune-ab-top", progress, undo, close);
    const titles = ["a", "b"].map(() => make("span", ""));
    const heads = make("div", "attune-ab-titles", ...titles);
    const back = () => dialog.close();
    const stage = createStage(document, addressOf, { label: "Back to the node", onPress: back, onMissing, signal });
    const words = make("p", "attune-ab-words");
    const choices = createChoices(document, (side) => meant(side), signal);
    const dialog = make("dialog", "attune-ab-large", top, heads, stage.root, words, choices);
    dialog.setAttribute("aria-label", "Pair of pictures");
    dialog.tabIndex = -1;

    let state = null;
    /** The decided pair that is looked at; −1 while voting. */
    let place = -1;

    undo.addEventListener("click", () => meant("undo"), { signal });
    close.addEventListener("click", () => dialog.close(), { signal });
    dialog.addEventListener("close", () => {
        dialog.remove();
        stage.show(null);
        onClose();
    }, { signal });
    listenToKeys(dialog, meant, signal);

    function meant(meaning) {
        if (meaning === "enlarge") {
            dialog.close();
        } else if (place < 0) {
            onMeaning(meaning, stage.ready());
            dialog.focus();
        } else if (meaning === "left" || meaning === "right") {
            const target = place + (meaning === "left" ? -1 : 1);
            if (state.result?.pairs[target]) place = target;
            draw();
        }
    }

    function draw() {
        const looking = place >= 0;
        const pair = looking ? state.result?.pairs[place] : current(state);
        if (!pair) {
            dialog.close();
            return;
        }
        heads.hidden = !looking;
        undo.hidden = choices.hidden = looking;
        undo.disabled = !state.history.length;
        words.textContent = pair.prompt;
        if (!looking) {
            progress.textContent = progressText(state);
            stage.show(pair);
            return;
        }
        const { names } = state.result.standing;
        const verdicts = { a: ["preferred", ""], b: ["", "preferred"], tie: ["no difference", "no difference"] };
        titles.forEach((title, side) => {
            const verdict = verdicts[pair.choice][side];
            title.textContent = verdict ? `${names[side]}: ${verdict}` : names[side];
            title.className = verdict === "preferred" ? "won" : "";
        });
        const count = state.result.pairs.length;
        progress.textContent = `${place + 1} of ${count}, seed ${pair.seed}${count > 1 ? "  ·  ← → other pairs" : ""}`;
        stage.show({ ...pair, key: `${pair.a} ${pair.b}`, left: pair.a, right: pair.b });
    }

    return {
        open(target = -1) {
            place = target;
            document.body.append(dialog);
            dialog.showModal();
            dialog.focus();
            draw();
        },
        render(next) {
            state = next;
            if (dialog.open) draw();
        },
        isOpen: () => dialog.open,
        dispose() {
            listening.abort();
            if (dialog.open) dialog.close();
            dialog.remove();
        },
    };
}
