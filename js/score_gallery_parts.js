/**
 * What the gallery and its enlarged picture are made of: style, colours, small elements.
 */

const SVG = "http://www.w3.org/2000/svg";

/** One colour per reward, in their order; told apart also by those who see few colours, by lightness. */
export const COLOURS = Object.freeze(["#6aa5e3", "#b79cf7", "#6ecb8b", "#ef8fa6", "#56c5c6", "#d9c66c", "#e59a68", "#aab3c0"]);

const PATHS = Object.freeze({
    cross: "M5 5l6 6M11 5l-6 6",
    back: "M6.5 4L4 6.5 6.5 9M4 6.5h5.25a2.75 2.75 0 0 1 0 5.5H7",
    arrow: "M8 3.5v9M4.5 9L8 12.5 11.5 9",
    left: "M10 3L5 8l5 5",
    right: "M6 3l5 5-5 5",
});

// In Nodes 2.0 the box around a widget is as high as its content unless the node is higher: the least height keeps it from
// collapsing. It is what the host leaves of the widget's height (attune_scores.js) after its margins.
const CSS = `
.attune-gallery, .attune-enlarged { --ground: #1e1f22; --card: #282a2e; --track: #36393e; --text: #e8e9ec;
  --quiet: #9a9fa8; --accent: #f0b254; --on-accent: #241c0e; --focus: #9cc7ff; color: var(--text);
  font: 12px/1.35 system-ui, sans-serif; }
.attune-gallery { display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 300px; container-type: size; padding: 8px 0 0; border-radius: 8px; background: var(--ground);
  overflow: hidden; }
.attune-gallery :is(p, ul), .attune-enlarged p { margin: 0; padding: 0; }
.attune-gallery [hidden], .attune-enlarged [hidden] { display: none; }
.attune-gallery button, .attune-enlarged button { box-sizing: border-box; border: 0; padding: 0; background: none;
  color: inherit; font: inherit; cursor: pointer; }
.attune-gallery :focus-visible, .attune-enlarged :focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
.attune-gallery svg, .attune-enlarged svg { display: block; width: 16px; height: 16px; fill: none; stroke: currentColor;
  stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
.attune-gallery.empty > :is(.attune-gallery-head, .attune-gallery-grid, .attune-gallery-foot),
  .attune-gallery:not(.empty) > .attune-gallery-hint { display: none; }
.attune-gallery .attune-gallery-hint { margin: auto; padding: 0 24px 8px; text-align: center; color: var(--quiet);
  text-wrap: balance; }
.attune-gallery-head { display: flex; flex-direction: column; gap: 6px; flex: none; padding: 0 8px; }
.attune-gallery-chips { display: flex; flex-wrap: wrap; gap: 4px; max-height: 108px; overflow: hidden auto;
  scrollbar-width: thin; }
.attune-gallery .attune-gallery-chip { display: flex; align-items: center; gap: 5px; max-width: 100%; height: 24px;
  padding: 0 8px; border-radius: 12px; background: var(--card); color: var(--quiet); }
.attune-gallery .attune-gallery-chip:hover { color: var(--text); }
.attune-gallery .attune-gallery-chip[aria-pressed="true"] { background: var(--track); color: var(--text); }
.attune-gallery-name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.attune-gallery-dot { flex: none; width: 8px; height: 8px; border-radius: 50%; }
.attune-gallery .attune-gallery-chip svg { flex: none; width: 12px; height: 12px; margin-right: -3px; display: none;
  transition: transform .15s; }
.attune-gallery .attune-gallery-chip[aria-pressed="true"] svg { display: block; }
.attune-gallery .attune-gallery-chip.reversed svg { transform: rotate(180deg); }
.attune-gallery-foot { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 6px; flex: none;
  padding: 4px 8px 6px; background: #232528; }
.attune-gallery-total { flex: 1; line-height: 22px; color: var(--quiet); font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.attune-gallery .attune-gallery-plain { height: 22px; padding: 0 8px; border-radius: 5px; background: var(--track); }
.attune-gallery .attune-gallery-plain:hover { background: #45494f; }
.attune-gallery-advice { order: 1; flex-basis: 100%; color: var(--accent); }
.attune-gallery-advice:not(:empty)::before { content: "▸ "; }
@container (min-width: 480px) { .attune-gallery-advice { order: 0; flex: 0 1 auto; } }
.attune-gallery-advice:empty { display: none; }
.attune-gallery .attune-gallery-prompt { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical;
  overflow: hidden; overflow-wrap: anywhere; }
.attune-gallery-prompt:empty { display: none !important; }
.attune-gallery .attune-gallery-grid { position: relative; flex: 1; min-height: 0; display: grid; gap: 8px;
  align-content: start; padding: 2px 8px 8px; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(min(var(--attune-cell), 100%), 1fr)); overflow: hidden auto;
  overscroll-behavior: contain; scrollbar-width: thin; scrollbar-color: #4a4e55 transparent; }
.attune-gallery-card { position: relative; display: flex; flex-direction: column; gap: 5px; box-sizing: border-box;
  justify-self: center; width: 100%; padding: 5px;
  max-width: max(var(--attune-least), min(320px, (100cqh - 150px) * var(--attune-ratio))); border-radius: 8px;
  background: var(--card); }
.attune-gallery-card.best { box-shadow: inset 0 0 0 1px #f0b25480; }
.attune-gallery .attune-gallery-picture { position: relative; display: block; width: 100%;
  aspect-ratio: var(--attune-ratio); border-radius: 5px; background: #17181a; overflow: hidden; cursor: zoom-in; }
.attune-gallery-picture img { display: block; width: 100%; height: 100%; object-fit: contain;
  transition: opacity .15s, filter .15s; }
.attune-gallery-rank { position: absolute; left: 5px; top: 5px; min-width: 20px; height: 20px; box-sizing: border-box;
  padding: 0 5px; border-radius: 10px; background: #141517c7; color: #fff; font-size: 11px; line-height: 20px;
  text-align: center; font-weight: 600; font-variant-numeric: tabular-nums; }
.best .attune-gallery-rank { background: var(--accent); color: var(--on-accent); }
.attune-gallery .attune-gallery-toggle { position: absolute; right: 10px; top: 10px; display: grid; place-items: center;
  width: 20px; height: 20px; border-radius: 50%; background: #141517c7; color: #fff; opacity: .75; }
.attune-gallery-toggle::before { content: ""; position: absolute; inset: -5px; border-radius: 50%; }
.attune-gallery .attune-gallery-toggle:is(:hover, :focus-visible) { opacity: 1; background: #8f3d3d; }
.attune-gallery-toggle svg:last-child, .discarded > .attune-gallery-toggle svg:first-child { display: none; }
.attune-gallery .discarded > .attune-gallery-toggle svg:last-child { display: block; }
.attune-gallery .discarded > .attune-gallery-toggle { opacity: 1; }
.attune-gallery .discarded > .attune-gallery-toggle:is(:hover, :focus-visible) { background: #3f6b4c; }
.attune-gallery-out { display: none; position: absolute; left: 0; right: 0; bottom: 6px; text-align: center;
  color: var(--text); font-size: 11px; text-shadow: 0 1px 3px #000; }
.discarded .attune-gallery-out { display: block; }
.discarded .attune-gallery-picture img { opacity: .22; filter: grayscale(1); }
.discarded > :is(.attune-bars, .attune-gallery-words), .discarded .attune-gallery-rank { opacity: .4; }
.attune-gallery .attune-gallery-words { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical;
  overflow: hidden; padding: 0 2px; color: var(--quiet); font-size: 11px; overflow-wrap: anywhere; }
.alike .attune-gallery-words { display: none !important; }
.attune-bars { display: flex; flex-direction: column; gap: 3px; font-variant-numeric: tabular-nums; font-size: 11px; }
.attune-bar { position: relative; display: flex; justify-content: space-between; gap: 6px; height: 17px; padding: 0 6px;
  border-radius: 4px; background: #202225; line-height: 17px; overflow: hidden; white-space: nowrap; }
.attune-bar > span { position: relative; overflow: hidden; text-overflow: ellipsis; }
.attune-bar > span:last-child { flex: none; color: #c3c7ce; }
.attune-bar > div { position: absolute; inset: 0 auto 0 0; border-radius: 4px; opacity: .34; transition: width .2s; }
.attune-bar.chosen > div { opacity: .62; }
`;

/** The gallery's style in the page, once. */
export function injectStyle(document) {
    if (document.getElementById("attune-gallery-style")) return;
    const style = document.createElement("style");
    style.id = "attune-gallery-style";
    style.textContent = CSS;
    document.head.append(style);
}

export function element(document, tag, className, ...children) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...children);
    return made;
}

export function button(document, className, text, title) {
    const made = element(document, "button", className, text);
    made.type = "button";
    made.title = title;
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

/**
 * One bar per reward: value and percentile on it.
 * @returns {{root: HTMLElement, render: (bars: object[], chosen: number, named?: boolean) => void}} bars as `cards` gives
 *          them; named = with the reward's name, where there is room
 */
export function bars(document) {
    const root = element(document, "div", "attune-bars");
    function row(column) {
        const fill = element(document, "div", "");
        fill.style.background = COLOURS[column % COLOURS.length];
        const made = element(document, "div", "attune-bar", fill, element(document, "span", ""), element(document, "span", ""));
        made.dataset.reward = String(column);
        return made;
    }
    function render(figures, chosen, named = false) {
        while (root.children.length > figures.length) root.lastChild.remove();
        while (root.children.length < figures.length) root.append(row(root.children.length));
        figures.forEach((figure, column) => {
            const [fill, left, right] = root.children[column].children;
            root.children[column].title = figure.text;
            root.children[column].classList.toggle("chosen", column === chosen);
            fill.style.width = `${(100 * figure.length).toFixed(1)}%`;
            left.textContent = named ? figure.name : figure.label;
            right.textContent = named ? [figure.label, figure.percentile].filter(Boolean).join("  ·  ") : figure.percentile;
        });
    }
    return { root, render };
}
