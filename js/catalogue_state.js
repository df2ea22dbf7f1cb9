/**
 * What the LoRA Catalogue tab knows, and how each action changes it. No host, no page: runs under Node.
 *
 * Answer of GET /attune/catalogue and of every POST below it:
 * @typedef {{id: number, file: string, title: string, run: string, version: number, stopped: boolean, method: string,
 *            method_name: string, base_model: string, base_hash: string, data_hash: string, reward: string, steps: number,
 *            rank: number, size: number, created: number, metrics: Object<string, number>, status: string, missing: boolean,
 *            note: string, tags: string[], parents: {id: number|null, name: string, strength: number}[]}} Lora
 * @typedef {{run: string, depth: number, figure: string, versions: number[], roll_back: number|null}} Family   versions =
 *           newest first; roll_back = what rolling back would promote
 * @typedef {{revision: number, folder: string, problems: string[], loras: Lora[], families: Family[], trash: Lora[]}} Listing
 *
 * Answer of GET /attune/catalogue/compare:
 * @typedef {{a: number, b: number, metrics: {name: string, a: number|null, b: number|null, change: number|null}[],
 *            settings: {name: string, a: string, b: string}[], distances: {group: string, layers: number, norm_a: number,
 *            norm_b: number, relative: number, cosine: number|null}[], problem: string}} Comparison
 */

import { figureOf } from "./live_curves.js";

const NOTHING = Object.freeze({ revision: 0, folder: "attune", problems: [], loras: [], families: [], trash: [] });

export function initialState() {
    return Object.freeze({
        status: "loading",
        message: "",
        data: NOTHING,
        search: "",
        tag: "",
        open: null,
        picked: [],
        comparison: null,
        view: "list",
        undo: null,
        emptying: false,
    });
}

/**
 * The state after an action.
 * @param {object} state
 * @param {{kind: string}} action
 *   listed {data} · failed {message} · dismissed · search {text} · tag {tag}: filter by it, or no more · open {id}: or close ·
 *   pick {id}: for comparing, or no more · comparing · compared {comparison} · view {view: "list"|"trash"} ·
 *   trashed {ids, text}: offer to undo · settled: the offer is over · emptying {on}: ask once more before deleting
 */
export function reduce(state, action) {
    switch (action.kind) {
        case "listed":
            return listed(state, action.data);
        case "failed":
            return { ...state, status: state.status === "loading" ? "error" : state.status, message: action.message };
        case "dismissed":
            return { ...state, message: "" };
        case "search":
            return { ...state, search: action.text };
        case "tag":
            return { ...state, tag: state.tag === action.tag ? "" : action.tag };
        case "open":
            return { ...state, open: state.open === action.id ? null : action.id, view: "list" };
        case "pick":
            return picked(state, action.id);
        case "comparing":
            return { ...state, view: "compare", comparison: null };
        case "compared":
            return { ...state, comparison: action.comparison };
        case "view":
            return { ...state, view: action.view, emptying: false };
        case "trashed":
            return { ...state, undo: { ids: action.ids, text: action.text } };
        case "settled":
            return { ...state, undo: null };
        case "emptying":
            return { ...state, emptying: action.on };
        default:
            return state;
    }
}

function listed(state, data) {
    const there = new Set(data.loras.map((lora) => lora.id));
    const kept = state.picked.filter((id) => there.has(id));
    const tags = new Set(data.loras.flatMap((lora) => lora.tags));
    const compared = state.view === "compare" && kept.length < 2;
    return {
        ...state,
        status: "ready",
        message: "",
        data,
        open: there.has(state.open) ? state.open : null,
        picked: kept,
        tag: tags.has(state.tag) ? state.tag : "",
        view: compared ? "list" : state.view,
        emptying: state.emptying && data.trash.length > 0,
    };
}

function picked(state, id) {
    if (state.picked.includes(id)) return { ...state, picked: state.picked.filter((other) => other !== id) };
    // A third one takes the place of the one that was picked last.
    return { ...state, picked: [...state.picked.slice(0, 1), id] };
}

export const loraOf = (state, id) => state.data.loras.find((lora) => lora.id === id);

/** Every tag in use, the most used first. */
export function tagsInUse(state) {
    const counts = new Map();
    for (const lora of state.data.loras) for (const tag of lora.tags) counts.set(tag, (counts.get(tag) ?? 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([tag]) => tag);
}

/** Whether every word of the search occurs in a LoRA, and it has the chosen tag. */
export function matches(lora, search, tag) {
    if (tag && !lora.tags.includes(tag)) return false;
    const text = [lora.title, lora.file, lora.method, lora.method_name, lora.base_model, lora.reward, lora.note, ...lora.tags];
    const all = text.join(" ").toLowerCase();
    return search.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

/** The tree as it is shown: families with the versions that match, in the server's order. */
export function shownFamilies(state) {
    const byId = new Map(state.data.loras.map((lora) => [lora.id, lora]));
    return state.data.families
        .map((family) => {
            const all = family.versions.map((id) => byId.get(id)).filter(Boolean);
            return { ...family, all, versions: all.filter((lora) => matches(lora, state.search, state.tag)) };
        })
        .filter((family) => family.versions.length);
}

/** What to say of a run whose promoted version was deleted, or "". */
export function goneText(state, family) {
    const gone = family.all.find((lora) => lora.missing && lora.status === "promoted");
    if (!gone) return "";
    const target = loraOf(state, family.roll_back);
    const back = target ? `Roll back to ${target.title}` : "Promote another version";
    return `The file of ${gone.title}, the promoted version, is gone. ${back}, or put the file back.`;
}

/** Ids in the order in which the keyboard goes through them. */
export function order(state) {
    return shownFamilies(state).flatMap((family) => family.versions.map((lora) => lora.id));
}

/**
 * A family's figure over its versions, oldest first, as SVG path data in a box of width × height; "" for fewer than two.
 */
export function sparkline(family, width, height) {
    const values = [...family.all].reverse().map((lora) => lora.metrics[family.figure]).filter(Number.isFinite);
    if (values.length < 2) return "";
    const low = Math.min(...values);
    const high = Math.max(...values);
    const x = (index) => (index / (values.length - 1)) * width;
    const y = (value) => (high > low ? height - ((value - low) / (high - low)) * height : height / 2);
    return values.map((value, index) => `${index ? "L" : "M"}${round(x(index))} ${round(y(value))}`).join("");
}

/** Length of a version's bar, 0 … 1: from 0 to the family's largest figure. */
export function barLength(family, lora) {
    const value = lora.metrics[family.figure];
    const values = family.all.map((other) => other.metrics[family.figure]).filter(Number.isFinite);
    if (!Number.isFinite(value)) return 0;
    const low = Math.min(0, ...values);
    const high = Math.max(0, ...values);
    return high > low ? (value - low) / (high - low) : 0;
}

function round(value) {
    return Math.round(value * 10) / 10;
}

/** A figure's title, as in the live view. */
export function figureName(name) {
    return figureOf(name).title;
}

/** 12 kB · 3.4 MB · 1.2 GB */
export function sizeText(bytes) {
    if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} kB`;
    return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** "today", "yesterday", "5 days ago", then the date. */
export function ageText(created, now, locale = undefined) {
    const day = (moment) => Math.floor((moment - new Date(moment).getTimezoneOffset() * 60_000) / 86_400_000);
    const days = day(now) - day(1000 * created);
    if (days <= 0) return "today";
    if (days === 1) return "yesterday";
    if (days < 7) return `${days} days ago`;
    return new Date(1000 * created).toLocaleDateString(locale, { day: "numeric", month: "short", year: "numeric" });
}

/** What a LoRA is made of, as (label, value) lines for its details; what it does not say is left out. */
export function facts(lora, folder) {
    const lines = [
        ["Updates", lora.steps ? String(lora.steps) : ""],
        ["Trained to raise", lora.reward],
        ["Base model", lora.base_model],
        ["Size", `${sizeText(lora.size)}${lora.rank ? `, rank ${lora.rank}` : ""}`],
        ["File", `${folder}/${lora.file}`],
        ["Base weights", lora.base_hash],
        ["Data", lora.data_hash],
    ];
    return lines.filter(([, value]) => value);
}

/** How far two LoRAs lie apart, in words. */
export function distanceText({ relative, cosine }) {
    if (cosine === null) return "only one of them changes this";
    if (relative < 0.001) return "the same";
    const direction = cosine > 0.9 ? "same direction" : cosine > 0.3 ? "similar direction" : cosine > -0.3 ? "unrelated" : "opposite";
    return `${Math.round(100 * relative)} % apart, ${direction}`;
}

/** Tags as they were typed, taken apart: "a, b" → ["a", "b"]. */
export function typedTags(text) {
    return text.split(",").map((tag) => tag.trim().replace(/\s+/g, " ")).filter(Boolean);
}
