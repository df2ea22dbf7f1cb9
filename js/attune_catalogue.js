/**
 * The LoRA Catalogue tab in the host's sidebar. The only file of it that knows the host's page.
 */

import { app } from "/scripts/app.js";
import { api } from "/scripts/api.js";
import { initialState, loraOf, reduce } from "./catalogue_state.js";
import { createCatalogue } from "./catalogue_view.js";

const ID = "attune-lora-catalogue";
const TITLE = "LoRA Catalogue";
const ROUTE = "/attune/catalogue";
const UNDO_MILLISECONDS = 12_000;
/** A run's last files are written within this time after its last message. */
const SOON_MILLISECONDS = 400;

async function answer(path, options) {
    const response = await api.fetchApi(path, options);
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(body.error ?? `The server answered ${response.status}. Press the round arrow to try again.`);
    return body;
}

/** The tab's content in an element of the host; ends with `dispose`. */
function mount(place) {
    let state = initialState();
    let settling = 0;
    let soon = 0;
    let gone = false;
    /** Answers that were asked for later are newer. */
    let asked = 0;
    let shown = 0;

    const act = (action) => {
        if (gone) return;
        state = reduce(state, action);
        view.render(state, Date.now());
    };
    const failed = (error) => act({ kind: "failed", message: error.message });
    const list = async (path, options) => {
        const turn = ++asked;
        const data = await answer(path, options);
        if (turn < shown) return;
        shown = turn;
        act({ kind: "listed", data });
    };
    const refresh = () => list(ROUTE).catch(failed);
    const ask = async (action, body) => {
        const title = action === "trash" ? loraOf(state, body.ids[0])?.title : "";
        try {
            await list(`${ROUTE}/${action}`, {
                method: "POST",
                headers: { "Content-Type": "application/json" },
                body: JSON.stringify(body),
            });
        } catch (error) {
            failed(error);
            return;
        }
        if (action === "trash" || action === "restore") {
            clearTimeout(settling);
            act({ kind: "settled" });
        }
        if (action === "trash") {
            act({ kind: "trashed", ids: body.ids, text: `${title} is in the trash.` });
            settling = setTimeout(() => act({ kind: "settled" }), UNDO_MILLISECONDS);
        }
    };
    const compare = async () => {
        const [a, b] = state.picked;
        act({ kind: "comparing" });
        try {
            act({ kind: "compared", comparison: await answer(`${ROUTE}/compare?a=${a}&b=${b}`) });
        } catch (error) {
            act({ kind: "view", view: "list" });
            failed(error);
        }
    };
    const later = () => {
        clearTimeout(soon);
        soon = setTimeout(refresh, SOON_MILLISECONDS);
    };
    const trained = (event) => event.detail?.kind === "end" && later();

    const view = createCatalogue(document, { act, ask, refresh, compare });
    place.replaceChildren(view.root);
    api.addEventListener("attune.training", trained);
    api.addEventListener("execution_success", later);
    view.render(state, Date.now());
    refresh();
    return {
        dispose() {
            gone = true;
            clearTimeout(settling);
            clearTimeout(soon);
            api.removeEventListener("attune.training", trained);
            api.removeEventListener("execution_success", later);
            view.dispose();
            view.root.remove();
        },
    };
}

app.registerExtension({
    name: "Attune.Catalogue",
    setup() {
        // Older hosts have no sidebar; the LoRA Catalogue node works without.
        if (!app.extensionManager?.registerSidebarTab) return;
        let tab = null;
        const close = () => {
            tab?.dispose();
            tab = null;
        };
        app.extensionManager.registerSidebarTab({
            id: ID,
            icon: "pi pi-sitemap",
            title: TITLE,
            label: "LoRAs",
            tooltip: TITLE,
            type: "custom",
            render(place) {
                close();
                place.style.height = "100%";
                tab = mount(place);
            },
            destroy: close,
        });
    },
});
