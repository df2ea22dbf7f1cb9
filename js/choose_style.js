/**
 * The look of the Choose Images node and of its large view.
 */

// In Nodes 2.0 the box around a widget is as high as its content unless the node is higher: the least height keeps it from
// collapsing. It is what the host leaves of the widget's height (attune_choose.js) after its margins.
const CSS = `
.attune-choose, .attune-choose-large { --ground: #1e1f22; --card: #282a2e; --track: #36393e; --text: #e8e9ec; --quiet: #9a9fa8;
  --accent: #f0b254; --on-accent: #241c0e; --good: #6ecb8b; --bad: #ef7d7d; --focus: #9cc7ff; color: var(--text);
  font: 12px/1.35 system-ui, sans-serif; }
.attune-choose { display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 360px; container-type: size; padding: 8px; border-radius: 8px; background: var(--ground); overflow: hidden; }
.attune-choose:focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
:is(.attune-choose, .attune-choose-large) :is(p, ul) { margin: 0; padding: 0; }
:is(.attune-choose, .attune-choose-large) [hidden], .attune-choose:not(.empty) > .attune-choose-hint {
  display: none !important; }
:is(.attune-choose, .attune-choose-large) button { box-sizing: border-box; border: 0; padding: 0; background: none;
  color: inherit; font: inherit; cursor: pointer; }
:is(.attune-choose, .attune-choose-large) button:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
:is(.attune-choose, .attune-choose-large) svg { display: block; width: 16px; height: 16px; fill: none; stroke: currentColor;
  stroke-width: 1.6; stroke-linecap: round; }
:is(.attune-choose, .attune-choose-large) kbd { display: inline-block; min-width: 9px; padding: 0 4px; border-radius: 4px;
  background: #0006; color: var(--quiet); font: inherit; font-size: 11px; font-weight: 400; line-height: 17px;
  text-align: center; }
.attune-choose .attune-choose-hint { margin: auto; padding: 0 24px; text-align: center; color: var(--quiet);
  text-wrap: balance; }
.attune-choose-quiet { color: var(--quiet); }
.attune-choose-top { display: flex; align-items: center; gap: 8px; flex: none; }
.attune-choose-progress { flex: 1; min-width: 0; font-variant-numeric: tabular-nums; }
.attune-choose-progress > div:first-child { display: flex; justify-content: space-between; gap: 8px; }
.attune-choose-name { min-width: 0; color: var(--quiet); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.attune-choose-bar { height: 4px; margin-top: 3px; border-radius: 2px; background: var(--track); overflow: hidden; }
.attune-choose-bar > div { height: 100%; border-radius: 2px; background: var(--accent); transition: width .2s; }
:is(.attune-choose, .attune-choose-large) .attune-choose-plain { flex: none; height: 24px; padding: 0 9px; border-radius: 5px;
  background: var(--track); white-space: nowrap; }
:is(.attune-choose, .attune-choose-large) .attune-choose-plain:hover:not(:disabled) { background: #45494f; }
:is(.attune-choose, .attune-choose-large) button:disabled { opacity: .4; cursor: default; }
.attune-choose-words { flex: none; display: flex; flex-wrap: wrap; justify-content: center; gap: 0 8px; max-height: 2.7em;
  overflow: hidden auto; overflow-wrap: anywhere; text-align: center; }
.attune-choose-stage { flex: 1; min-height: 0; display: grid; grid-auto-rows: minmax(0, 1fr); gap: 8px; }
.attune-choose-cell { display: flex; flex-direction: column; gap: 2px; min-width: 0; min-height: 0; }
:is(.attune-choose, .attune-choose-large) .attune-choose-picture { position: relative; flex: 1; min-width: 0; min-height: 0;
  border-radius: 6px; background: #141517; overflow: hidden; }
.attune-choose-picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.attune-choose-picture::after { content: ""; position: absolute; inset: 0; border-radius: 6px; pointer-events: none; }
.attune-choose-picture:hover::after { box-shadow: inset 0 0 0 2px #ffffff59; }
.attune-choose-cell.marked .attune-choose-picture::after { box-shadow: inset 0 0 0 3px var(--focus); }
.attune-choose-cell.chosen .attune-choose-picture::after { box-shadow: inset 0 0 0 3px var(--good); }
.attune-choose-cell.marked.chosen .attune-choose-picture::after { box-shadow: inset 0 0 0 3px var(--focus),
  inset 0 0 0 6px var(--good); }
.attune-choose-cell.new img { animation: attune-choose-in .18s ease-out; }
@keyframes attune-choose-in { from { opacity: 0; } }
@media (prefers-reduced-motion: reduce) { .attune-choose-cell.new img { animation: none; } }
.attune-choose-number { position: absolute; left: 6px; top: 6px; min-width: 20px; height: 20px; box-sizing: border-box;
  padding: 0 5px; border-radius: 10px; background: #141517c7; color: #fff; font-size: 11px; line-height: 20px;
  text-align: center; font-weight: 600; }
.attune-choose-stars { flex: none; display: flex; justify-content: center; height: 32px; }
:is(.attune-choose, .attune-choose-large) .attune-choose-stars button { flex: 0 1 30px; min-width: 0; color: #62666d;
  font-size: 20px; line-height: 32px; border-radius: 5px; }
:is(.attune-choose, .attune-choose-large) .attune-choose-stars .given { color: var(--accent); }
:is(.attune-choose, .attune-choose-large) .attune-choose-stars:hover button { color: var(--text); }
:is(.attune-choose, .attune-choose-large) .attune-choose-stars button:hover ~ button { color: #62666d; }
.attune-choose-choices { flex: none; display: flex; gap: 8px; }
:is(.attune-choose, .attune-choose-large) .attune-choose-choice { display: flex; align-items: center; justify-content: center;
  gap: 6px; flex: 1 1 auto; height: 34px; padding: 0 10px; border-radius: 7px; background: var(--track); font-weight: 600;
  white-space: nowrap; }
:is(.attune-choose, .attune-choose-large) .attune-choose-choice[data-meaning="skip"] { flex-grow: 0; font-weight: 400;
  color: #c3c7ce; }
:is(.attune-choose, .attune-choose-large) .attune-choose-choice:hover { background: #45608a; }
.attune-choose-choice[aria-pressed="true"] { box-shadow: inset 0 0 0 2px var(--good); }
.attune-choose-choices:not([data-kind="pair"]) { justify-content: center; }
:is(.attune-choose, .attune-choose-large) [data-kind]:not([data-kind="pair"]) .attune-choose-choice { flex: 0 1 auto; }
.attune-choose-legend { flex: none; display: flex; flex-wrap: wrap; justify-content: center; gap: 2px 14px; color: var(--quiet);
  font-size: 11px; }
.attune-choose-legend span { white-space: nowrap; }
.attune-choose-legend kbd { background: var(--card) !important; margin-right: 2px; }
.attune-choose-foot { display: flex; align-items: center; gap: 6px; flex: none; min-height: 24px; }
.attune-choose-note { flex: 1; min-width: 0; color: var(--quiet); overflow-wrap: anywhere; }
.attune-choose-note.wrong { color: var(--bad); }
.attune-choose-answers { flex: 1; min-height: 0; display: flex; flex-direction: column; gap: 10px; }
.attune-choose-summary { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 8px; flex: none; }
.attune-choose-summary > div { flex: 1; min-width: 150px; }
.attune-choose-headline { font-size: 18px; font-weight: 600; line-height: 1.25; }
:is(.attune-choose, .attune-choose-large) .attune-choose-run { height: 34px; padding: 0 18px; border-radius: 7px;
  background: var(--accent); color: var(--on-accent); font-weight: 600; }
:is(.attune-choose, .attune-choose-large) .attune-choose-run:hover:not(:disabled) { background: #f7c478; }
.attune-choose-list { flex: 1; min-height: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
  align-content: start; gap: 8px; list-style: none; overflow: hidden auto; overscroll-behavior: contain;
  scrollbar-width: thin; scrollbar-color: #4a4e55 transparent; }
.attune-choose-list li { min-width: 0; }
:is(.attune-choose, .attune-choose-large) .attune-choose-card { display: flex; flex-direction: column; gap: 4px; width: 100%;
  padding: 5px; border-radius: 8px; background: var(--card); text-align: center; }
:is(.attune-choose, .attune-choose-large) .attune-choose-card:hover { background: var(--track); }
:is(.attune-choose, .attune-choose-large) .attune-choose-card:focus-visible { outline-offset: -2px; }
.attune-choose-row { display: grid; grid-template-columns: repeat(auto-fit, minmax(40px, 1fr)); gap: 3px; width: 100%; }
.attune-choose-row > span { position: relative; aspect-ratio: 1; border-radius: 5px; background: #141517; overflow: hidden; }
.attune-choose-row img { display: block; width: 100%; height: 100%; object-fit: contain; }
.attune-choose-card:not(.undecided) .attune-choose-row > span:not(.won) img { opacity: .4; }
.attune-choose-row > .won::after { content: ""; position: absolute; inset: 0; border-radius: 5px;
  box-shadow: inset 0 0 0 2px var(--good); }
.attune-choose-given { position: absolute; left: 0; right: 0; bottom: 0; color: var(--accent); font-size: 8px;
  background: #141517c7; }
.attune-choose-card > .attune-choose-quiet { font-size: 11px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.attune-choose-large { position: fixed; inset: 0; box-sizing: border-box; width: 100%; height: 100%; max-width: none;
  max-height: none; margin: 0; padding: 14px; border: 0; background: #101113; overflow: hidden; font-size: 14px; }
.attune-choose-large[open] { display: flex; flex-direction: column; gap: 10px; }
.attune-choose-large:focus-visible { outline: none; }
.attune-choose-large .attune-choose-choice { height: 44px; padding: 0 18px; }
.attune-choose-large .attune-choose-legend { font-size: 12px; }
.attune-choose-large .attune-choose-list { grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); }
.attune-choose-large .attune-choose-given { font-size: 11px; }
.attune-choose-large .attune-choose-close { display: grid; place-items: center; width: 34px; height: 34px;
  border-radius: 50%; }
.attune-choose-large .attune-choose-close:hover { background: var(--track); }
.attune-choose-large .attune-choose-close svg { width: 20px; height: 20px; }
`;

/** The style in the page, once. */
export function injectStyle(document) {
    if (document.getElementById("attune-choose-style")) return;
    const style = document.createElement("style");
    style.id = "attune-choose-style";
    style.textContent = CSS;
    document.head.append(style);
}
