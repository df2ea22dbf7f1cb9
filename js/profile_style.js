/**
 * The look of the Preference Profile node's line and of the list of profiles.
 */

const CSS = `
.attune-profile, .attune-profiles { --ground: #1e1f22; --card: #282a2e; --track: #36393e; --text: #e8e9ec; --quiet: #9a9fa8;
  --accent: #f0b254; --on-accent: #241c0e; --bad: #ef7d7d; --focus: #9cc7ff; color: var(--text);
  font: 12px/1.35 system-ui, sans-serif; }
.attune-profile { display: flex; align-items: center; gap: 8px; box-sizing: border-box; width: 100%; height: 100%;
  min-height: 32px; padding: 4px 4px 4px 10px; border-radius: 8px; background: var(--ground); overflow: hidden; }
.attune-profile-words { flex: 1; display: flex; gap: 8px; min-width: 0; white-space: nowrap; }
.attune-profile-words > * { overflow: hidden; text-overflow: ellipsis; }
.attune-profile-name { flex: 0 1 auto; min-width: 0; font-weight: 600; }
.attune-profile-text { flex: 0 2 auto; min-width: 0; color: var(--quiet); font-variant-numeric: tabular-nums; }
.attune-profile.wrong .attune-profile-text { color: var(--bad); }
:is(.attune-profile, .attune-profiles) :is(p, ul, h2) { margin: 0; padding: 0; }
:is(.attune-profile, .attune-profiles) button { box-sizing: border-box; border: 0; padding: 0; background: none; color: inherit;
  font: inherit; cursor: pointer; }
:is(.attune-profile, .attune-profiles) button:disabled { opacity: .4; cursor: default; }
:is(.attune-profile, .attune-profiles) :is(button, input):focus-visible { outline: 2px solid var(--focus); outline-offset: 1px; }
:is(.attune-profile, .attune-profiles) .attune-profile-plain { flex: none; height: 24px; padding: 0 10px; border-radius: 5px;
  background: var(--track); white-space: nowrap; }
:is(.attune-profile, .attune-profiles) .attune-profile-plain:hover:not(:disabled) { background: #45494f; }
.attune-profiles { box-sizing: border-box; width: min(560px, calc(100vw - 32px)); max-height: min(640px, calc(100vh - 64px));
  margin: auto; padding: 0; border: 1px solid #3a3d43; border-radius: 12px; background: var(--ground); font-size: 14px;
  box-shadow: 0 16px 48px #000a; overflow: hidden; }
.attune-profiles[open] { display: flex; flex-direction: column; }
.attune-profiles::backdrop { background: #0009; }
.attune-profiles:focus-visible { outline: none; }
.attune-profile-head { flex: none; display: flex; align-items: center; padding: 14px 12px 10px 20px; }
.attune-profile-head > h2 { flex: 1; font-size: 17px; font-weight: 600; line-height: 1.3; }
.attune-profiles .attune-profile-close { display: grid; place-items: center; width: 32px; height: 32px; border-radius: 50%; }
.attune-profiles .attune-profile-close:hover { background: var(--track); }
.attune-profiles .attune-profile-close svg { display: block; width: 18px; height: 18px; fill: none; stroke: currentColor;
  stroke-width: 1.6; stroke-linecap: round; }
.attune-profiles .attune-profile-list { flex: 1; min-height: 0; display: flex; flex-direction: column; gap: 4px; padding: 0 12px;
  list-style: none; overflow: hidden auto; overscroll-behavior: contain; scrollbar-width: thin;
  scrollbar-color: #4a4e55 transparent; }
.attune-profile-row { flex: none; padding: 0 8px 0 0; border-radius: 8px; }
.attune-profile-row:is(:hover, .asked, :has(input)) { background: var(--card); }
.attune-profile-row.used { box-shadow: inset 3px 0 var(--accent); }
.attune-profile-line { display: flex; align-items: center; gap: 6px; min-height: 48px; }
.attune-profiles .attune-profile-use { flex: 1; display: flex; flex-direction: column; min-width: 0; padding: 6px 8px 6px 12px;
  border-radius: 8px; text-align: left; }
.attune-profiles .attune-profile-use > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.attune-profiles .attune-profile-text { font-size: 12px; }
.attune-profiles .attune-profile-plain { height: 30px; padding: 0 12px; border-radius: 6px; font-size: 13px; }
.attune-profiles .attune-profile-plain.main { background: var(--accent); color: var(--on-accent); font-weight: 600; }
.attune-profiles .attune-profile-plain.main:hover:not(:disabled) { background: #f7c478; }
.attune-profiles .attune-profile-plain.danger { background: #b33a3a; color: #fff; font-weight: 600; }
.attune-profiles .attune-profile-plain.danger:hover:not(:disabled) { background: #cc4848; }
.attune-profile-typed { flex: 1; min-width: 0; height: 32px; box-sizing: border-box; margin: 0 2px 0 8px; padding: 0 10px;
  border: 0; border-radius: 6px; background: #141517; color: inherit; font: inherit; box-shadow: inset 0 0 0 1px #4a4e55; }
.attune-profiles .attune-profile-warning { padding: 0 8px 4px 12px; line-height: 1.45; overflow-wrap: anywhere; }
.attune-profile-row.asked > .attune-profile-line:last-child { padding-left: 12px; }
.attune-profile-note { flex: none; padding: 8px 20px 0 !important; color: var(--quiet); overflow-wrap: anywhere; }
.attune-profile-note:empty { display: none; }
.attune-profile-note.wrong { color: var(--bad); }
.attune-profile-quiet { color: var(--quiet); }
.attune-profiles > .attune-profile-quiet { flex: none; padding: 12px 20px 16px; font-size: 12px; }
.attune-profile-list > .attune-profile-quiet { padding: 12px 8px; }
`;

/** The style in the page, once. */
export function injectStyle(document) {
    if (document.getElementById("attune-profile-style")) return;
    const style = document.createElement("style");
    style.id = "attune-profile-style";
    style.textContent = CSS;
    document.head.append(style);
}
