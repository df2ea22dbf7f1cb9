/**
 * The look of the A/B Test node and of its full screen.
 */

// In Nodes 2.0 the box around a widget is as high as its content unless the node is higher: the least height keeps it from
// collapsing. It is what the host leaves of the widget's height (attune_ab.js) after its margins.
const CSS = `
.attune-ab, .attune-ab-large { --ground: #1e1f22; --card: #282a2e; --track: #36393e; --text: #e8e9ec; --quiet: #9a9fa8;
  --accent: #f0b254; --good: #6ecb8b; --bad: #ef7d7d; --focus: #9cc7ff; color: var(--text);
  font: 12px/1.35 system-ui, sans-serif; }
.attune-ab { display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 340px; container-type: size; padding: 8px; border-radius: 8px; background: var(--ground); overflow: hidden; }
.attune-ab:focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
.attune-ab p, .attune-ab-large p { margin: 0; }
.attune-ab [hidden], .attune-ab-large [hidden] { display: none !important; }
.attune-ab button, .attune-ab-large button { box-sizing: border-box; border: 0; padding: 0; background: none; color: inherit;
  font: inherit; cursor: pointer; }
.attune-ab button:focus-visible, .attune-ab-large button:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
.attune-ab svg, .attune-ab-large svg { display: block; width: 16px; height: 16px; fill: none; stroke: currentColor;
  stroke-width: 1.6; stroke-linecap: round; stroke-linejoin: round; }
.attune-ab-hint { margin: auto !important; padding: 0 24px; text-align: center; color: var(--quiet); text-wrap: balance; }
.attune-ab-top { display: flex; align-items: center; gap: 8px; flex: none; }
.attune-ab-progress { flex: 1; min-width: 0; color: var(--quiet); font-variant-numeric: tabular-nums; }
.attune-ab-bar { height: 4px; margin-top: 3px; border-radius: 2px; background: var(--track); overflow: hidden; }
.attune-ab-bar > div { height: 100%; border-radius: 2px; background: var(--accent); transition: width .2s; }
.attune-ab .attune-ab-plain, .attune-ab-large .attune-ab-plain { flex: none; height: 24px; padding: 0 9px; border-radius: 5px;
  background: var(--track); white-space: nowrap; }
.attune-ab-plain:hover:not(:disabled) { background: #45494f !important; }
.attune-ab-plain:disabled { opacity: .4; cursor: default !important; }
.attune-ab-stage { flex: 1; min-height: 0; display: grid; grid-template: minmax(0, 1fr) / minmax(0, 1fr) minmax(0, 1fr);
  gap: 8px; }
.attune-ab .attune-ab-picture, .attune-ab-large .attune-ab-picture { position: relative; min-width: 0; min-height: 0;
  border-radius: 6px; background: #141517; overflow: hidden; cursor: zoom-in; }
.attune-ab-picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.attune-ab-picture.new img { animation: attune-ab-in .18s ease-out; }
@keyframes attune-ab-in { from { opacity: 0; } }
@media (prefers-reduced-motion: reduce) { .attune-ab-picture.new img { animation: none; } }
.attune-ab-words { flex: none; max-height: 2.7em; overflow: hidden auto; overflow-wrap: anywhere; text-align: center;
  color: var(--text); }
.attune-ab-choices { flex: none; display: grid; grid-template-columns: 1fr auto 1fr; gap: 8px; }
.attune-ab .attune-ab-choice, .attune-ab-large .attune-ab-choice { display: flex; align-items: center; justify-content: center;
  gap: 7px; height: 34px; padding: 0 12px; border-radius: 7px; background: var(--track); font-weight: 600; }
.attune-ab-choice:hover { background: #45608a !important; }
.attune-ab-key { padding: 0 5px; border-radius: 4px; background: #0006; color: var(--quiet); font-weight: 400; font-size: 11px;
  line-height: 17px; }
.attune-ab-foot { display: flex; align-items: center; gap: 6px; flex: none; min-height: 24px; }
.attune-ab-note { flex: 1; min-width: 0; color: var(--quiet); overflow-wrap: anywhere; }
.attune-ab-note.wrong { color: var(--bad); }
.attune-ab-result { flex: 1; min-height: 0; display: flex; flex-direction: column; gap: 10px; overflow: hidden auto;
  overscroll-behavior: contain; scrollbar-width: thin; scrollbar-color: #4a4e55 transparent; }
.attune-ab-headline { font-size: 18px; font-weight: 600; line-height: 1.2; overflow-wrap: anywhere; }
.attune-ab-result[data-decision="A"] .attune-ab-headline, .attune-ab-result[data-decision="B"] .attune-ab-headline {
  color: var(--good); }
.attune-ab-scale { position: relative; flex: none; height: 34px; }
.attune-ab-scale > div { position: absolute; top: 8px; height: 8px; border-radius: 4px; }
.attune-ab-scale-track { left: 0; right: 0; background: var(--track); }
.attune-ab-scale-range { background: #5d86bd; }
.attune-ab-scale > .attune-ab-scale-half { left: 50%; top: 2px; width: 1px; height: 20px; background: var(--quiet); }
.attune-ab-scale > .attune-ab-scale-dot { top: 5px; width: 14px; height: 14px; margin-left: -7px; border-radius: 50%;
  background: var(--text); }
.attune-ab-scale > span { position: absolute; top: 20px; max-width: 45%; color: var(--quiet); font-size: 11px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.attune-ab-lines { display: flex; flex-direction: column; gap: 3px; flex: none; color: #c3c7ce; overflow-wrap: anywhere; }
.attune-ab-pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 10px; flex: none;
  padding: 2px; margin: 0; list-style: none; }
.attune-ab-decided { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; padding: 5px; border-radius: 8px;
  background: var(--card); }
.attune-ab .attune-ab-decided button { position: relative; aspect-ratio: 1; border-radius: 5px; background: #141517;
  overflow: hidden; cursor: zoom-in; }
.attune-ab .attune-ab-decided button.won { box-shadow: 0 0 0 2px var(--good); }
.attune-ab-decided img { display: block; width: 100%; height: 100%; object-fit: contain; }
.attune-ab-decided button:not(.won):not(.tie) img { opacity: .55; }
.attune-ab-decided span { grid-column: auto; font-size: 11px; color: var(--quiet); text-align: center; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
.attune-ab-decided p { grid-column: 1 / -1; font-size: 11px; color: var(--quiet); display: -webkit-box; -webkit-line-clamp: 2;
  -webkit-box-orient: vertical; overflow: hidden; overflow-wrap: anywhere; }
.attune-ab-large { position: fixed; inset: 0; box-sizing: border-box; width: 100%; height: 100%; max-width: none;
  max-height: none; margin: 0; padding: 14px; border: 0; background: #101113; overflow: hidden; font-size: 14px; }
.attune-ab-large[open] { display: flex; flex-direction: column; gap: 12px; }
.attune-ab-large:focus-visible { outline: none; }
.attune-ab-large .attune-ab-picture { cursor: zoom-out; }
.attune-ab-large .attune-ab-stage { gap: 14px; }
.attune-ab-large .attune-ab-choice { height: 44px; }
.attune-ab-large .attune-ab-close { display: grid; place-items: center; width: 34px; height: 34px; border-radius: 50%; }
.attune-ab-large .attune-ab-close:hover { background: var(--track); }
.attune-ab-large .attune-ab-close svg { width: 20px; height: 20px; }
.attune-ab-large .attune-ab-titles { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; flex: none; text-align: center;
  font-weight: 600; }
.attune-ab-titles .won { color: var(--good); }
`;

/** The style in the page, once. */
export function injectStyle(document) {
    if (document.getElementById("attune-ab-style")) return;
    const style = document.createElement("style");
    style.id = "attune-ab-style";
    style.textContent = CSS;
    document.head.append(style);
}
