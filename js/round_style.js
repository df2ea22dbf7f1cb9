/**
 * The look of the Commit Round page, and what Session Report's timeline shares of it (the rest: report_style.js).
 */

// In Nodes 2.0 the box around a widget is as high as its content unless the node is higher: the least height keeps it from
// collapsing.
const CSS = `
:is(.attune-round, .attune-report, .attune-report-large) { --ground: #1e1f22; --card: #282a2e; --track: #36393e;
  --text: #e8e9ec; --quiet: #9a9fa8; --accent: #f0b254; --on-accent: #241c0e; --good: #6ecb8b; --bad: #ef7d7d;
  --focus: #9cc7ff; color: var(--text); font: 12px/1.35 system-ui, sans-serif; }
:is(.attune-round, .attune-report) { display: flex; flex-direction: column; gap: 7px; box-sizing: border-box; width: 100%;
  height: 100%; padding: 8px; border-radius: 8px; background: var(--ground); overflow: hidden; }
.attune-round { min-height: 400px; }
:is(.attune-round, .attune-report) :is(p, ul, ol) { margin: 0; padding: 0; list-style: none; }
:is(.attune-round, .attune-report) [hidden] { display: none !important; }
:is(.attune-round, .attune-report, .attune-report-large) button { box-sizing: border-box; border: 0; padding: 0; background: none;
  color: inherit; font: inherit; cursor: pointer; }
:is(.attune-round, .attune-report, .attune-report-large) button:disabled { opacity: .4; cursor: default; }
:is(.attune-round, .attune-report, .attune-report-large) :focus-visible { outline: 2px solid var(--focus);
  outline-offset: 1px; }
:is(.attune-round-words, .attune-report-diff) ins { color: var(--good); text-decoration: none; font-weight: 600; }
:is(.attune-round-words, .attune-report-diff) del { color: var(--bad); opacity: .85; }
.attune-round-hint { margin: auto !important; padding: 0 24px !important; text-align: center; color: var(--quiet);
  text-wrap: balance; }
.attune-round-top { display: flex; align-items: center; gap: 6px; flex: none; }
.attune-round .attune-round-name { flex: 1; min-width: 0; height: 24px; display: flex; align-items: center; padding: 0 5px;
  margin-left: -5px; border-radius: 5px; text-align: left; font-weight: 600; cursor: text; }
.attune-round .attune-round-name:hover { background: var(--card); }
.attune-round-title { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.attune-round-told { flex: none; color: var(--quiet); font-weight: 400; white-space: pre; }
.attune-round-pen { flex: none; margin-left: 7px; color: var(--quiet); font-weight: 400; opacity: .6; }
.attune-round-name:is(:hover, :focus-visible) .attune-round-pen { opacity: 1; color: var(--text); }
.attune-round .attune-round-typed { flex: 1; min-width: 0; box-sizing: border-box; height: 24px; padding: 0 7px;
  border: 1px solid #45494f; border-radius: 5px; background: #16171a; color: var(--text); font: inherit; font-weight: 600; }
.attune-round .attune-round-plain.attune-round-risk { margin-left: 8px; background: none; color: var(--bad); }
.attune-round-erase { display: flex; flex-direction: column; gap: 8px; flex: none; padding: 9px 10px; border-radius: 7px;
  background: #4326276b; box-shadow: inset 0 0 0 1px #8f3a3a; overflow-wrap: anywhere; }
.attune-round .attune-round-plain.attune-round-danger { background: #8f3a3a; }
.attune-round .attune-round-plain.attune-round-danger:hover:not(:disabled) { background: #a94545; }
.attune-round .attune-round-plain { flex: none; height: 24px; padding: 0 9px; border-radius: 5px; background: var(--track); }
.attune-round .attune-round-plain:hover:not(:disabled) { background: #45494f; }
.attune-round-line { display: flex; gap: 5px; flex: none; overflow: auto hidden; scrollbar-width: thin;
  scrollbar-color: #4a4e55 transparent; padding: 2px; }
.attune-round .attune-round-stop { position: relative; flex: none; width: 44px; height: 44px; border-radius: 7px;
  overflow: hidden; background: var(--card); }
.attune-round-stop img { width: 100%; height: 100%; object-fit: cover; display: block; }
.attune-round-stop.other { opacity: .45; }
.attune-round-stop.open { outline: 2px dashed var(--accent); outline-offset: -2px; }
.attune-round-stop[aria-current="true"] { box-shadow: 0 0 0 2px var(--focus); }
.attune-round-stop.accepted::after { content: "✓"; position: absolute; right: 2px; top: 1px; color: var(--good);
  font-weight: 700; text-shadow: 0 0 3px #000; }
.attune-round-stop span { position: absolute; left: 3px; bottom: 2px; padding: 0 4px; border-radius: 6px;
  background: #141517c7; color: #fff; font-size: 10px; line-height: 14px; }
.attune-round-words { flex: none; max-height: 4.2em; overflow: hidden auto; overflow-wrap: anywhere; scrollbar-width: thin; }
.attune-round-stage { flex: 1; min-height: 0; display: grid; grid-auto-rows: minmax(0, 1fr); gap: 7px; }
.attune-round-cell { position: relative; min-width: 0; min-height: 0; }
.attune-round .attune-round-picture { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: 6px;
  background: #141517; overflow: hidden; }
.attune-round-picture img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: contain; }
.attune-round-cell::after { content: ""; position: absolute; inset: 0; border-radius: 6px; pointer-events: none; }
.attune-round-cell:hover::after { box-shadow: inset 0 0 0 2px #ffffff59; }
.attune-round-cell.liked::after { box-shadow: inset 0 0 0 3px var(--good); }
.attune-round-cell.disliked::after { box-shadow: inset 0 0 0 3px var(--bad); }
.attune-round-cell.disliked img { opacity: .4; }
.attune-round-number { position: absolute; left: 6px; top: 6px; min-width: 20px; box-sizing: border-box; padding: 0 5px;
  border-radius: 10px; background: #141517c7; color: #fff; font-size: 11px; font-weight: 600; line-height: 20px;
  text-align: center; pointer-events: none; }
.attune-round .attune-round-no { position: absolute; right: 6px; top: 6px; width: 24px; height: 24px; border-radius: 12px;
  background: #141517c7; color: #fff; font-size: 13px; line-height: 24px; text-align: center; }
.attune-round .attune-round-no:hover, .attune-round-cell.disliked .attune-round-no { background: #8f3a3a; }
.attune-round-ask { display: flex; flex-wrap: wrap; align-items: center; gap: 5px; flex: none; color: var(--accent); }
.attune-round-ask button { height: 24px; padding: 0 9px; border-radius: 12px; background: var(--card); color: var(--text); }
.attune-round-ask button:hover { background: var(--track); }
.attune-round textarea { flex: none; box-sizing: border-box; width: 100%; height: 46px; resize: none; border: 1px solid #45494f;
  border-radius: 6px; padding: 5px 7px; background: #16171a; color: var(--text); font: inherit; }
.attune-round textarea:disabled { opacity: .6; }
.attune-round-acts { display: flex; flex-wrap: wrap; align-items: center; gap: 6px; flex: none; }
.attune-round-stars { display: flex; margin-right: auto; }
.attune-round-stars button { width: 22px; color: #62666d; font-size: 18px; line-height: 30px; }
.attune-round-stars .given { color: var(--accent); }
.attune-round .attune-round-act { height: 32px; padding: 0 12px; border-radius: 7px; background: var(--track);
  white-space: nowrap; }
.attune-round .attune-round-act:hover:not(:disabled) { background: #45494f; }
.attune-round .attune-round-main { background: var(--accent); color: var(--on-accent); font-weight: 600; }
.attune-round .attune-round-main:hover:not(:disabled) { background: #f7c478; }
.attune-round-note { flex: none; min-height: 16px; color: var(--quiet); overflow-wrap: anywhere; }
.attune-round-note.wrong { color: var(--bad); }
`;

/** The style in the page, once. */
export function injectStyle(document) {
    if (document.getElementById("attune-round-style")) return;
    const style = document.createElement("style");
    style.id = "attune-round-style";
    style.textContent = CSS;
    document.head.append(style);
}
