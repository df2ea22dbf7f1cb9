/**
 * What the LoRA Catalogue tab is made of: style, icons, small elements. The colours are the host's, dark or light.
 */

const SVG = "http://www.w3.org/2000/svg";

const PATHS = Object.freeze({
    refresh: "M13 5.5A5.5 5.5 0 1 0 13.5 8M13.5 2.5v3.2h-3.2",
    back: "M6.5 4L4 6.5 6.5 9M4 6.5h5.25a2.75 2.75 0 0 1 0 5.5H7",
    trash: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.6 9h5.8l.6-9M7 7v4M9 7v4",
    star: "M8 2.2l1.8 3.7 4 .6-2.9 2.8.7 4L8 11.4l-3.6 1.9.7-4L2.2 6.5l4-.6z",
    left: "M10 3L5 8l5 5",
    cross: "M5 5l6 6M11 5l-6 6",
    compare: "M5.5 3v10M10.5 3v10M2.5 6l3-3 3 3M7.5 10l3 3 3-3",
});

/** One colour per method, for its mark beside the name; the name itself is always there too. */
const METHOD_COLOURS = Object.freeze({
    ddpo: "#4f9fe0", dag_db: "#8f78e6", dag_kl: "#b06fd8", refl: "#e0913f", dpo: "#2fae9b", diffusion_dpo: "#2fae9b",
    supervised: "#4fae68", merge: "#c0659a",
});

export function methodColour(method) {
    return METHOD_COLOURS[method.toLowerCase().replaceAll("-", "_")] ?? "#8a919c";
}

const CSS = `
.attune-cat { --ink: var(--fg-color, #ddd); --quiet: var(--descrip-text, #999); --ground: var(--comfy-menu-bg, #202020);
  --field: var(--comfy-input-bg, #2a2a2a); --edge: var(--border-color, #4e4e4e); --accent: var(--p-primary-color, #4f9fe0);
  --good: #3f9d5f; --soft: color-mix(in srgb, var(--ink) 8%, transparent);
  --softer: color-mix(in srgb, var(--ink) 4%, transparent);
  display: flex; flex-direction: column; box-sizing: border-box; width: 100%; height: 100%; min-height: 0;
  background: var(--ground); color: var(--ink); font: 13px/1.4 system-ui, sans-serif; container-type: inline-size; }
.attune-cat :is(h2, h3, p, ul, dl, dd) { margin: 0; padding: 0; font: inherit; }
.attune-cat ul { list-style: none; }
.attune-cat [hidden] { display: none !important; }
.attune-cat button { box-sizing: border-box; border: 0; padding: 0; background: none; color: inherit; font: inherit;
  cursor: pointer; text-align: left; }
.attune-cat :focus-visible { outline: 2px solid var(--accent); outline-offset: -2px; }
.attune-cat svg { display: block; width: 16px; height: 16px; fill: none; stroke: currentColor; stroke-width: 1.4;
  stroke-linecap: round; stroke-linejoin: round; flex: none; }
.attune-cat-head { display: flex; flex-direction: column; gap: 8px; padding: 10px 12px 8px; flex: none;
  border-bottom: 1px solid var(--edge); }
.attune-cat-title { display: flex; align-items: center; gap: 8px; }
.attune-cat-title h2 { flex: 1; font-size: 15px; font-weight: 600; }
.attune-cat .attune-cat-icon { display: grid; place-items: center; width: 28px; height: 28px; border-radius: 6px; }
.attune-cat .attune-cat-icon:hover { background: var(--soft); }
.attune-cat :is(input, textarea) { box-sizing: border-box; width: 100%; padding: 6px 9px; border: 1px solid transparent;
  border-radius: 6px; background: var(--field); color: var(--input-text, var(--ink)); font: inherit; }
.attune-cat textarea { resize: vertical; min-height: 48px; }
.attune-cat ::placeholder { color: var(--quiet); opacity: 1; }
.attune-cat-tags { display: flex; flex-wrap: wrap; gap: 4px; }
.attune-cat .attune-cat-tag { display: inline-flex; align-items: center; gap: 4px; max-width: 100%; height: 22px;
  padding: 0 9px; border-radius: 11px; background: var(--soft); font-size: 12px; white-space: nowrap; }
.attune-cat .attune-cat-tag > span { overflow: hidden; text-overflow: ellipsis; }
.attune-cat .attune-cat-tag svg { width: 12px; height: 12px; margin-right: -4px; }
.attune-cat .attune-cat-tag[aria-pressed="true"] { background: var(--accent); color: #fff; }
.attune-cat-body { flex: 1; min-height: 0; overflow: hidden auto; scrollbar-width: thin; padding: 8px 8px 24px; }
.attune-cat-hint { padding: 28px 20px; text-align: center; color: var(--quiet); text-wrap: balance; }
.attune-cat-family { margin-left: calc(var(--depth) * 16px); }
.attune-cat-family + .attune-cat-family { margin-top: 12px; }
.attune-cat-run { display: flex; align-items: center; gap: 8px; min-height: 30px; padding: 0 4px; }
.attune-cat-run h3 { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: 600;
  font-size: 14px; }
.attune-cat-branch { flex: none; width: 10px; height: 10px; margin: -6px 0 0 -2px; border: solid var(--edge);
  border-width: 0 0 1.5px 1.5px; border-radius: 0 0 0 4px; }
.attune-cat-figure { display: flex; align-items: center; gap: 6px; color: var(--quiet); font-size: 11px; white-space: nowrap; }
.attune-cat .attune-cat-curve { width: 44px; height: 16px; overflow: visible; color: var(--accent); stroke-width: 1.6; }
.attune-cat-gone { padding: 0 4px 6px; color: #d05a5a; font-size: 12px; overflow-wrap: anywhere; }
.attune-cat-rows { border-radius: 8px; background: var(--softer); overflow: hidden; }
.attune-cat-row + .attune-cat-row { border-top: 1px solid color-mix(in srgb, var(--edge) 45%, transparent); }
.attune-cat .attune-cat-line { display: grid; grid-template-columns: 14px minmax(0, auto) minmax(0, 1fr) auto;
  align-items: center; gap: 4px 8px; width: 100%; min-height: 36px; padding: 5px 8px; }
.attune-cat .attune-cat-line:hover { background: var(--soft); }
.attune-cat-row.open > .attune-cat-line { background: var(--soft); }
.attune-cat-row.picked > .attune-cat-line { box-shadow: inset 3px 0 var(--accent); }
.attune-cat-dot { width: 9px; height: 9px; border-radius: 50%; border: 1.5px solid var(--quiet); box-sizing: border-box;
  justify-self: center; }
.attune-cat-row.promoted .attune-cat-dot { width: 12px; height: 12px; border-color: var(--good); background: var(--good); }
.attune-cat-row.missing :is(.attune-cat-number, .attune-cat-value) { color: var(--quiet); text-decoration: line-through; }
.attune-cat-number { font-variant-numeric: tabular-nums; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.attune-cat-badges { display: flex; flex-wrap: wrap; align-items: center; gap: 5px; min-width: 0; height: 19px;
  overflow: hidden; }
.attune-cat-badge { flex: none; padding: 1px 7px; border-radius: 4px; font-size: 11px; line-height: 17px; white-space: nowrap;
  background: color-mix(in srgb, var(--badge) 22%, transparent); box-shadow: inset 2px 0 var(--badge); }
.attune-cat-badges > .attune-cat-few { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--quiet);
  font-size: 11px; line-height: 19px; flex: 1 1 44px; min-width: 44px; }
.attune-cat-value { display: flex; align-items: center; gap: 6px; font-variant-numeric: tabular-nums; font-size: 12px; }
.attune-cat-bar { width: 44px; height: 5px; border-radius: 3px; background: var(--soft); overflow: hidden; }
.attune-cat-bar > div { height: 100%; border-radius: 3px; background: var(--accent); }
.attune-cat-details { display: flex; flex-direction: column; gap: 10px; padding: 8px 10px 12px; }
.attune-cat-actions { display: flex; flex-wrap: wrap; gap: 6px; }
.attune-cat .attune-cat-button { display: inline-flex; align-items: center; gap: 6px; height: 28px; padding: 0 10px;
  border-radius: 6px; background: var(--soft); white-space: nowrap; }
.attune-cat .attune-cat-button:hover { background: color-mix(in srgb, var(--ink) 16%, transparent); }
.attune-cat-actions > .attune-cat-button { height: 27px; padding: 0 9px; gap: 5px; font-size: 12px; }
.attune-cat-actions > .attune-cat-button svg { width: 14px; height: 14px; }
.attune-cat .attune-cat-button.main { background: var(--accent); color: #fff; }
.attune-cat .attune-cat-button.main:hover { filter: brightness(1.1); }
.attune-cat .attune-cat-button.danger { background: #b33a3a; color: #fff; }
.attune-cat .attune-cat-button[aria-pressed="true"] { background: color-mix(in srgb, var(--accent) 30%, transparent); }
.attune-cat .attune-cat-button:disabled { opacity: .45; cursor: default; }
.attune-cat .attune-cat-small { height: 24px; padding: 0 8px; font-size: 12px; }
.attune-cat dl { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 3px 12px; font-size: 12px; }
.attune-cat dt { color: var(--quiet); }
.attune-cat dd { overflow-wrap: anywhere; user-select: text; font-variant-numeric: tabular-nums; }
.attune-cat dd > .attune-cat-link { color: inherit; text-decoration: underline; text-underline-offset: 2px; }
.attune-cat-label { display: block; margin-bottom: 4px; color: var(--quiet); font-size: 12px; }
.attune-cat table { width: 100%; table-layout: fixed; border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
.attune-cat :is(th, td) { padding: 5px 6px; text-align: right; vertical-align: top; font-weight: 400; overflow-wrap: anywhere; }
.attune-cat :is(th, td):first-child { text-align: left; color: var(--quiet); padding-left: 0; }
.attune-cat tr + tr > * { border-top: 1px solid color-mix(in srgb, var(--edge) 45%, transparent); }
.attune-cat thead th { color: var(--ink); font-weight: 600; }
.attune-cat-section { padding: 4px 6px 14px; }
.attune-cat-section > h3 { font-weight: 600; margin-bottom: 4px; }
.attune-cat-section > p { color: var(--quiet); font-size: 12px; }
.attune-cat-good { color: var(--good); }
.attune-cat-bad { color: #d05a5a; }
.attune-cat-foot { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; padding: 8px 12px; flex: none;
  border-top: 1px solid var(--edge); }
.attune-cat-foot > span { flex: 1; min-width: 120px; overflow-wrap: anywhere; }
.attune-cat-problem { padding: 8px 12px; flex: none; background: color-mix(in srgb, #d05a5a 18%, transparent); display: flex;
  gap: 8px; align-items: start; overflow-wrap: anywhere; }
.attune-cat-problem > span { flex: 1; white-space: pre-wrap; }
`;

/** The tab's style in the page, once. */
export function injectStyle(document) {
    if (document.getElementById("attune-catalogue-style")) return;
    const style = document.createElement("style");
    style.id = "attune-catalogue-style";
    style.textContent = CSS;
    document.head.append(style);
}

export function element(document, tag, className, ...children) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...children);
    return made;
}

export function icon(document, name) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("aria-hidden", "true");
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", PATHS[name]);
    svg.append(path);
    return svg;
}

/** A button with words, and a picture before them if one is named. */
export function button(document, text, { title = "", kind = "", picture = "" } = {}) {
    const made = element(document, "button", `attune-cat-button ${kind}`.trim(), ...(picture ? [icon(document, picture)] : []), text);
    made.type = "button";
    if (title) made.title = title;
    return made;
}

/** A button that is a picture only. */
export function iconButton(document, name, label) {
    const made = element(document, "button", "attune-cat-icon", icon(document, name));
    made.type = "button";
    made.title = label;
    made.setAttribute("aria-label", label);
    return made;
}

/** A small line: SVG path data in a box of width × height. */
export function curve(document, data, width, height, label) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "attune-cat-curve");
    svg.setAttribute("viewBox", `-1 -1 ${width + 2} ${height + 2}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", data);
    svg.append(path);
    return svg;
}

export function badge(document, text, colour) {
    const made = element(document, "span", "attune-cat-badge", text);
    made.style.setProperty("--badge", colour);
    return made;
}

/** A table: column titles, then rows of texts or elements. */
export function table(document, titles, rows) {
    const line = (cells, tag) =>
        element(document, "tr", "", ...cells.map((cell) => element(document, tag, "", cell)));
    const head = element(document, "thead", "", line(titles, "th"));
    return element(document, "table", "", head, element(document, "tbody", "", ...rows.map((cells) => line(cells, "td"))));
}
