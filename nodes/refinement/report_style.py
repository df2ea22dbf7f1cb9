"""The look of the report's page: light, dark as the reader's system has it, and on paper."""

from __future__ import annotations

_LIGHT = """
  --paper: #f7f6f3; --card: #ffffff; --ink: #1e2227; --soft: #5f6773; --rule: #dedbd4; --track: #e8e5df;
  --good: #17703f; --good-soft: #dcf1e4; --bad: #a8332b; --bad-soft: #fae3e0; --warn: #8a5a00; --warn-soft: #fbeecf;
  --c0: #1f6fb2; --c1: #c2622a; --c2: #2b8a55; --c3: #7a55b8; --c4: #a3457a; --c5: #6b7280;
"""
_DARK = """
  --paper: #14171c; --card: #1c2027; --ink: #eceef2; --soft: #9aa4b2; --rule: #2d333d; --track: #2d333d;
  --good: #6ecb8b; --good-soft: #1d3a29; --bad: #ef7d7d; --bad-soft: #432627; --warn: #f2c14e; --warn-soft: #3d331b;
  --c0: #4fb6f5; --c1: #f2a65a; --c2: #6ecb8b; --c3: #b79cf7; --c4: #ef8fc4; --c5: #9aa4b2;
"""
_COLOURS = "\n".join(
    f".line{n} {{ stroke: var(--c{n}) }} .dot{n} {{ fill: var(--c{n}) }} .key{n}::before {{ background: var(--c{n}) }}"
    for n in range(6)
)

STYLE = f"""
:root {{ color-scheme: light dark; {_LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }}
main {{ max-width: 1080px; margin: 0 auto; padding: 32px 20px 48px; }}
h1 {{ font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 18px; margin: 36px 0 12px; }}
h3 {{ font-size: 16px; margin: 0; }}
p {{ margin: 0; }}
.soft {{ color: var(--soft); }}
.small {{ font-size: 13px; }}
.words {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
.wish {{ margin-top: 6px; font-size: 17px; }}
.chips {{ display: flex; flex-wrap: wrap; gap: 8px; margin-top: 14px; }}
.chip {{ padding: 3px 11px; border-radius: 999px; background: var(--track); font-size: 13px; font-weight: 600; }}
.chip.good {{ background: var(--good-soft); color: var(--good); }}
.chip.bad {{ background: var(--bad-soft); color: var(--bad); }}
.chip.warn {{ background: var(--warn-soft); color: var(--warn); }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 10px; margin-top: 22px; }}
.tile, .card {{ background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }}
.tile b {{ display: block; font-size: 24px; line-height: 1.25; font-variant-numeric: tabular-nums; }}
.tile span {{ color: var(--soft); font-size: 13px; }}
.advice {{ margin-top: 12px; }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 12px; }}
.chart {{ margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px; }}
.chart figcaption {{ font-weight: 600; margin-bottom: 4px; }}
.chart svg {{ width: 100%; height: auto; display: block; }}
svg text {{ fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }}
.grid {{ stroke: var(--rule); }}
.line {{ fill: none; stroke-width: 2.2; stroke-linejoin: round; }}
{_COLOURS}
.legend {{ display: flex; flex-wrap: wrap; gap: 4px 16px; font-size: 13px; color: var(--soft); }}
.key::before {{ content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }}
.rounds {{ list-style: none; margin: 0; padding: 0; display: grid; gap: 14px; }}
.head {{ display: flex; flex-wrap: wrap; gap: 2px 12px; align-items: baseline; }}
.head .gain {{ margin-left: auto; font-weight: 600; font-variant-numeric: tabular-nums; }}
.up {{ color: var(--good); }} .down {{ color: var(--bad); }}
.diff {{ margin-top: 8px; }}
ins {{ color: var(--good); background: var(--good-soft); text-decoration: none; border-radius: 4px; padding: 0 3px;
  border-bottom: 2px solid var(--good); }}
del {{ color: var(--bad); background: var(--bad-soft); border-radius: 4px; padding: 0 3px; }}
.pictures {{ display: flex; flex-wrap: wrap; gap: 12px; margin: 14px 0 4px; }}
.pictures figure {{ margin: 0; flex: 1 1 140px; max-width: 241px; }}
.pictures figcaption {{ margin-top: 6px; font-size: 13px; color: var(--soft); }}
.frame {{ display: block; position: relative; border-radius: 8px; overflow: hidden; background: var(--track); }}
.frame img {{ display: block; width: 100%; height: auto; }}
.frame.missing {{ aspect-ratio: 1; padding: 12px; color: var(--soft); font-size: 13px; }}
.chosen .frame {{ outline: 3px solid var(--good); outline-offset: 2px; }}
.disliked img {{ opacity: .55; }}
.mark {{ display: block; font-weight: 600; color: var(--ink); }}
.chosen .mark {{ color: var(--good); }} .disliked .mark {{ color: var(--bad); }}
.score {{ display: flex; justify-content: space-between; gap: 8px; font-variant-numeric: tabular-nums; }}
.score bdi {{ overflow-wrap: anywhere; }}
.seed {{ display: block; font-size: 11px; overflow-wrap: anywhere; }}
blockquote {{ margin: 10px 0 0; padding: 6px 14px; border-left: 3px solid var(--c0); overflow-wrap: anywhere; }}
.weights {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); gap: 4px 24px;
  margin-top: 4px; }}
.below {{ margin-top: 12px; }}
.weight {{ display: grid; grid-template-columns: 1fr auto; font-size: 13px; gap: 0 8px; }}
.weight .number {{ color: var(--soft); font-variant-numeric: tabular-nums; }}
.track {{ grid-column: 1 / 3; height: 6px; background: var(--track); border-radius: 3px; position: relative; }}
.track i {{ position: absolute; inset: 0 auto 0 0; background: var(--c0); border-radius: 3px; }}
.track i.minus {{ background: var(--c1); }}
.track u {{ position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink); opacity: .7; }}
.strip {{ display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-top: 8px; }}
.strip img {{ width: 84px; height: auto; border-radius: 6px; display: block; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ text-align: left; padding: 3px 18px 3px 0; font-weight: 400; vertical-align: top; }}
th {{ color: var(--soft); }}
code {{ font: 12px/1.4 ui-monospace, Consolas, monospace; overflow-wrap: anywhere; }}
details summary {{ cursor: pointer; color: var(--soft); }}
@media print {{
  :root {{ color-scheme: light; {_LIGHT} --paper: #fff; }}
  @page {{ margin: 14mm; }}
  body {{ font-size: 11px; line-height: 1.35; }}
  main {{ max-width: none; padding: 0; }}
  .tile, .card, .chart {{ padding: 8px 10px; }}
  .tile b {{ font-size: 18px; }}
  .tile, .chart, .card, figure, blockquote {{ break-inside: avoid; }}
  .pictures {{ gap: 8px; margin: 8px 0 2px; }}
  .pictures figure {{ flex: 0 1 104px; }}
  .pictures figcaption, .weight, .small {{ font-size: 9px; line-height: 1.3; }}
  .seed {{ font-size: 8px; }}
  .tiles {{ grid-template-columns: repeat(6, 1fr); }}
  .charts {{ grid-template-columns: repeat(3, 1fr); }}
  h2 {{ break-after: avoid; margin-top: 18px; }}
  .rounds {{ display: block; }}
  .rounds li {{ margin-bottom: 10px; }}
  * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
}}
"""
