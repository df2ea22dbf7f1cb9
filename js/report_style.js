/**
 * The look of the timeline inside Session Report and of a round that is looked at. Its colours are those of `round_style.js`.
 */

import { injectStyle as injectShared } from "./round_style.js";

const CSS = `
.attune-report { min-height: 440px; }
.attune-report-name { flex: none; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: 600; }
.attune-report-name span { color: var(--quiet); font-weight: 400; }
.attune-report-line { flex: none; display: flex; align-items: center; gap: 8px; }
.attune-report-line .attune-report-name { flex: 1; min-width: 0; }
:is(.attune-report, .attune-report-large) .attune-report-toggle { flex: none; padding: 3px 9px; border-radius: 6px;
  background: var(--track); font-size: 12px; }
:is(.attune-report, .attune-report-large) .attune-report-toggle:hover { background: #45494f; }
.attune-report .attune-report-toggle { padding: 0 9px; font-size: 11px; line-height: 16px; }
.attune-report-toggle[aria-pressed=true] { box-shadow: inset 0 0 0 1px var(--accent); }
.attune-report-rail.comparing .attune-report-card:not(.end) { opacity: .35; }
.attune-report-rail.comparing .attune-report-card.end { cursor: pointer; }
.attune-report-card.compared { box-shadow: inset 0 0 0 3px var(--accent) !important; }
.attune-report-figures { flex: none; display: grid; grid-template-columns: repeat(auto-fit, minmax(62px, 1fr)); gap: 5px; }
.attune-report-figures > div { display: flex; flex-direction: column; padding: 4px 6px; border-radius: 6px;
  background: var(--card); min-width: 0; }
.attune-report-figures b { font-size: 16px; line-height: 1.3; font-variant-numeric: tabular-nums; white-space: nowrap; }
.attune-report-figures span { color: var(--quiet); font-size: 11px; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.attune-report-frame { flex: 1; min-height: 0; container-type: size; }
.attune-report-rail { --lead: clamp(88px, calc(100cqh - 186px - min(var(--lanes), 2) * 70px), 260px); --line: 46px;
  height: 100%; box-sizing: border-box; display: grid; grid-auto-columns: max(var(--lead) + 14px, 142px);
  grid-template-rows: auto; grid-auto-rows: 60px; gap: 10px 18px; align-content: start; align-items: start; padding: 3px;
  overflow: auto; overscroll-behavior: contain; scrollbar-width: thin; scrollbar-color: #4a4e55 transparent; }
.attune-report .attune-report-card { position: relative; display: flex; flex-direction: column; gap: 5px; min-width: 0;
  padding: 7px; border-radius: 8px; background: var(--card); text-align: left; cursor: zoom-in; scroll-margin: 20px; }
.attune-report-card:hover { background: #303338 !important; }
.attune-report-card.accepted { box-shadow: inset 0 0 0 2px var(--good); }
.attune-report-card.open { outline: 2px dashed var(--accent); outline-offset: -2px; }
.attune-report-card.open:focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
.attune-report-card.linked::before { content: ""; position: absolute; right: 100%; top: var(--line); width: 18px; height: 2px;
  background: #5b6068; }
.attune-report-card.other { --line: 29px; }
.attune-report-elbow { justify-self: start; align-self: stretch; position: relative; width: 9px; margin: 46px 0 29px -9px;
  box-sizing: border-box; border: solid #5b6068; border-width: 0 0 2px 2px; border-bottom-left-radius: 8px;
  pointer-events: none; }
.attune-report-elbow.low { margin-top: 29px; }
.attune-report-elbow::before { content: ""; position: absolute; right: 100%; top: 0; width: 9px; height: 2px;
  background: #5b6068; }
.attune-report-head { display: flex; align-items: center; gap: 6px; min-width: 0; height: 16px; white-space: nowrap;
  overflow: hidden; }
.attune-report-head b { font-size: 13px; }
.attune-report-mark { color: var(--accent); font-size: 11px; overflow: hidden; text-overflow: ellipsis; }
.attune-report-mark.good, .attune-report-good { color: var(--good); font-weight: 600; }
.attune-report-stars { color: var(--accent); letter-spacing: 1px; font-size: 11px; overflow: hidden; }
.attune-report-gain { margin-left: auto; color: var(--quiet); font-variant-numeric: tabular-nums; }
.attune-report-gain.up { color: var(--good); } .attune-report-gain.down { color: var(--bad); }
.attune-report-lead { display: block; width: 100%; height: var(--lead); border-radius: 5px; background: #141517;
  overflow: hidden; }
.attune-report-lead.several { display: grid; grid: auto-flow minmax(0, 1fr) / minmax(0, 1fr) minmax(0, 1fr); gap: 2px; }
.attune-report-lead img { display: block; width: 100%; height: 100%; min-height: 0; object-fit: contain; }
.attune-report-others { display: flex; gap: 3px; height: 30px; color: var(--quiet); font-size: 11px; line-height: 30px; }
.attune-report-others img { flex: 0 1 30px; min-width: 0; height: 30px; border-radius: 4px; object-fit: cover;
  background: #141517; }
.attune-report-others img.liked { box-shadow: 0 0 0 2px var(--good); }
:is(.attune-report-lead, .attune-report-others) img.disliked { opacity: .4; }
.attune-report-card :is(.attune-report-diff, .attune-report-said) { display: -webkit-box; -webkit-box-orient: vertical;
  -webkit-line-clamp: 2; overflow: hidden; overflow-wrap: anywhere; }
.attune-report-said { color: #c3c7ce; font-style: italic; }
.attune-report-bar { display: flex; gap: 1px; height: 6px; border-radius: 3px; overflow: hidden; background: var(--track); }
.attune-report-bar i { flex: 0 0 0; }
.attune-report-bar i.minus { opacity: .5; }
.attune-report-level { color: var(--quiet); font-size: 11px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.attune-report .attune-report-card.other { flex-direction: row; gap: 8px; height: 60px; padding: 5px; background: #232528; }
.attune-report-card.other .attune-report-lead { flex: none; width: 50px; height: 50px; opacity: .75; }
.attune-report-card.other:is(:hover, :focus-visible) .attune-report-lead { opacity: 1; }
.attune-report-beside { display: flex; flex: 1; flex-direction: column; min-width: 0; gap: 2px; font-size: 11px; }
.attune-report-beside .attune-report-stars { letter-spacing: 0; font-size: 10px; }
.attune-report-legend { flex: none; display: flex; flex-wrap: wrap; gap: 2px 12px; color: var(--quiet); font-size: 11px; }
.attune-report-legend i { display: inline-block; width: 8px; height: 8px; margin-right: 5px; border-radius: 50%; }
.attune-report .attune-report-notes { flex: none; max-height: 6.8em; display: grid; gap: 3px; overflow: hidden auto;
  scrollbar-width: thin; color: var(--quiet); overflow-wrap: anywhere; }
.attune-report-notes .warn { color: var(--accent); } .attune-report-notes .bad { color: var(--bad); }
.attune-report-notes :is(.warn, .bad)::before { content: "▲ "; font-size: 10px; }
.attune-report .attune-round-hint.wrong { color: var(--bad); }

.attune-report-large { position: fixed; inset: 0; box-sizing: border-box; width: 100%; height: 100%; max-width: none;
  max-height: none; margin: 0; padding: 0; border: 0; background: #101113; overflow: hidden; font-size: 13px; }
.attune-report-large[open] { display: grid; grid-template: minmax(0, 1fr) / minmax(0, 1fr) 340px; }
.attune-report-large:focus-visible { outline: none; }
.attune-report-large :is(p, ul, h2, h3, figure, blockquote) { margin: 0; padding: 0; list-style: none; }
.attune-report-stage { display: grid; grid-auto-rows: minmax(0, 1fr); gap: 14px; padding: 18px; min-height: 0; min-width: 0; }
.attune-report-stage figure { display: flex; flex-direction: column; gap: 4px; min-width: 0; min-height: 0; }
.attune-report-stage figure > div { position: relative; flex: 1; min-height: 0; }
.attune-report-stage img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.attune-report-stage .disliked img { opacity: .4; }
.attune-report-stage figure > div { border-radius: 6px; background: #17181b; overflow: hidden; }
.attune-report-stage figure > div::after { content: ""; position: absolute; inset: 0; border-radius: 6px; pointer-events: none; }
.attune-report-stage :is(.chosen, .liked) > div::after { box-shadow: inset 0 0 0 2px var(--good); }
.attune-report-stage .chosen > div::after { box-shadow: inset 0 0 0 4px var(--good); }
.attune-report-stage .disliked > div::after { box-shadow: inset 0 0 0 2px var(--bad); }
.attune-report-stage figcaption { flex: none; display: flex; flex-direction: column; height: 56px; text-align: center;
  color: var(--quiet); }
.attune-report-stage .chosen figcaption span:first-child { color: var(--good); font-weight: 600; }
.attune-report-stage .liked figcaption span:first-child { color: var(--good); }
.attune-report-stage .disliked figcaption span:first-child { color: var(--bad); }
.attune-report-scores { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden;
  font-variant-numeric: tabular-nums; text-wrap: balance; }
.attune-report-side { display: flex; flex-direction: column; gap: 14px; min-height: 0; padding: 16px; background: var(--ground); }
.attune-report-top { display: flex; align-items: center; gap: 6px; flex: none; }
.attune-report-large h2 { flex: 1; min-width: 0; order: -1; font-size: 16px; line-height: 1.25; }
.attune-report-large h3 { margin-top: 6px; font-size: 12px; color: var(--quiet); font-weight: 600; }
.attune-report-large :is(.attune-report-close, .attune-report-step) { display: grid; place-items: center; flex: none; width: 30px;
  height: 30px; border-radius: 7px; background: var(--track); }
.attune-report-large :is(.attune-report-close, .attune-report-step):hover:not(:disabled) { background: #45494f; }
.attune-report-large svg { display: block; width: 16px; height: 16px; fill: none; stroke: currentColor; stroke-width: 1.6;
  stroke-linecap: round; stroke-linejoin: round; }
.attune-report-told { flex: 1; min-height: 0; display: flex; flex-direction: column; gap: 10px; overflow: hidden auto;
  overflow-wrap: anywhere; scrollbar-width: thin; }
.attune-report-told .attune-report-diff { font-size: 14px; }
.attune-report-told .attune-report-stars { font-size: 16px; }
.attune-report-told blockquote { padding-left: 10px; border-left: 3px solid var(--track); white-space: pre-wrap; }
.attune-report-told ul { display: grid; gap: 2px; color: #c3c7ce; }
.attune-report-weights { display: grid; grid-template-columns: minmax(0, auto) minmax(50px, 1fr) auto; gap: 4px 9px;
  align-items: center; font-variant-numeric: tabular-nums; }
.attune-report-weights > span:first-child, .attune-report-weights > span:nth-child(3n + 1) { overflow: hidden;
  text-overflow: ellipsis; }
.attune-report-track { display: block; height: 7px; border-radius: 4px; background: var(--track); overflow: hidden; }
.attune-report-track i { display: block; height: 100%; border-radius: 4px; }
.attune-report-stage.rating .attune-report-scores { display: none; }
.attune-report-stage.rating figcaption { height: auto; }
.attune-report-give { flex: none; display: flex; justify-content: center; height: 34px; }
.attune-report-large .attune-report-give button { width: 32px; font-size: 22px; line-height: 30px; color: var(--accent);
  background: none; border-radius: 6px; }
.attune-report-large .attune-report-give button:hover { background: var(--track); }
.attune-report-rating { flex: none; display: grid; gap: 8px; justify-items: start; }
.attune-report-raters { display: grid; gap: 6px; width: 100%; }
.attune-report-raters[hidden] { display: none; }
.attune-report-large .attune-report-rater { box-sizing: border-box; width: 100%; padding: 6px 8px; border: 1px solid #5b6068;
  border-radius: 6px; background: #17181b; color: inherit; font: inherit; }
.attune-report-agreement.bad { color: var(--bad); }
.attune-report-keys { flex: none; color: var(--quiet); font-size: 12px; }
@media (max-width: 800px) { .attune-report-large[open] { grid-template: minmax(0, 1fr) minmax(0, auto) / minmax(0, 1fr); }
  .attune-report-side { max-height: 45vh; } }
`;

/** The style in the page, once. */
export function injectStyle(document) {
    injectShared(document);
    if (document.getElementById("attune-report-style")) return;
    const style = document.createElement("style");
    style.id = "attune-report-style";
    style.textContent = CSS;
    document.head.append(style);
}
