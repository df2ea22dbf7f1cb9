"""The table of figures, what the report draws of it, and what the live view keeps of a run."""

from __future__ import annotations

import math

import pytest

from attune.nodes import charts
from attune.nodes.training import figures, figures_pages, live
from attune.tests import live_golden

METHODS = ("supervised", "ddpo", "dag-db", "dag-kl", "diffusion-dpo", "personal-dpo", "refl", "draft")


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_copies_of_the_table_are_the_table():
    advice = "run `python scripts/module.py attune.nodes.training.figures_pages`"
    assert figures_pages.PAGE_TABLE.read_text(encoding="utf-8") == figures_pages.page_table(), advice
    assert figures_pages.glossary() in figures_pages.GLOSSARY_PAGE.read_text(encoding="utf-8"), advice


def test_the_cases_that_the_page_is_tested_with_are_what_the_report_does():
    advice = "run `python scripts/module.py attune.tests.live_golden`"
    assert live_golden.FILE.read_text(encoding="utf-8") == live_golden.text(), advice


@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_figure_says_in_words_what_it_means(name: str):
    figure = figures.FIGURES[name]
    assert figure.title[0].isupper() and len(figure.title) <= 24, "it is a chip's label"
    assert figure.meaning.endswith(".") and 20 < len(figure.meaning) < 220
    assert all(math.isfinite(value) for value in figure.includes)


def test_methods_begin_with_figures_of_the_table():
    assert set(METHODS) <= figures.CURVES.keys()
    for method, names in figures.CURVES.items():
        known = [name for name in names if name in figures.FIGURES]
        assert len(known) >= len(names) - 1, f"{method}: {names}"
        assert not figures.FIGURES[known[0]].minor


def test_an_unknown_figure_goes_by_its_plain_name():
    assert figures.figure("my_own_figure").title == "My own figure"
    assert figures.figure("evaluation_reward").title == "Test reward"
    assert figures.figure("evaluation_held_out_reward").title == "Test held-out reward"
    assert figures.figure("held_out_zebra").title == "Held-out zebra"


# ---- what is drawn ---------------------------------------------------------------------------------------------------


def history(count: int = 40) -> list[dict[str, float]]:
    """A reward run with an evaluation every tenth update."""
    rows = []
    for step in range(1, count + 1):
        row = {"step": step, "loss": 0.1, "reward": 0.01 * step, "held_out_reward": 0.5, "learning_rate": 1e-4}
        if step % 10 == 0:
            row |= {"evaluation_reward": 0.02 * step, "best_step": float(step), "rare": 1.0}
        rows.append(row)
    return rows


def test_the_report_shows_what_comes_first_for_the_method():
    assert [curve.key for curve in figures.curves_of(history(), method="ddpo")] == ["reward", "held_out_reward", "loss"]
    assert [curve.key for curve in figures.curves_of(history(), method="supervised")] == ["loss"]
    unknown = figures.curves_of([{"step": 1, "zebra": 1.0}], method="of the future")
    assert [(curve.key, curve.title) for curve in unknown] == [("zebra", "Zebra")]


def test_the_drift_is_among_the_first_of_every_method():
    """Also where a run has every figure of its method."""
    for method in METHODS:
        if method not in ("dag-db", "dag-kl"):  # their drift is a click away
            first = figures.first_curves(method)
            own = [name for name in first if name != "held_out_loss"]
            assert "kl_to_reference" in figures.panels(own, first)[0]


def test_evaluations_are_drawn_with_the_figure_that_they_repeat():
    (reward, *_) = figures.curves_of(history(), method="ddpo")
    assert list(reward.tests) == [(10, 0.2), (20, 0.4), (30, 0.6), (40, 0.8)]
    (lonely, *_) = figures.curves_of([{"step": 1, "loss": 1.0, "evaluation_reward": 2.0}], method="of the future")
    assert lonely.key != "evaluation_reward", "known figures go first"
    assert figures.panels({"evaluation_reward", "loss"}, ())[1] == ["loss", "evaluation_reward"]


def test_a_figure_that_comes_now_and_then_is_not_averaged():
    shown = figures.curves_of([{"step": row["step"], "rare": row.get("rare")} for row in history()], method="x")
    assert [(curve.key, curve.smooth, list(curve.steps)) for curve in shown] == [("rare", False, [10, 20, 30, 40])]


def test_the_chart_marks_the_update_whose_weights_were_kept():
    drawn = figures.curves_of(history(), method="ddpo")
    plain = charts.curve_chart(drawn, title="t", details="d")
    marked = charts.curve_chart(drawn, title="t", details="d", best_step=20)
    assert plain.size == marked.size

    def green(picture) -> int:
        pixels = (
            picture.convert("RGB").get_flattened_data() if hasattr(picture, "get_flattened_data") else picture.getdata()
        )
        return sum(1 for red, grey, blue in pixels if grey > red + 60 and grey > blue + 30)

    assert green(plain) == 0
    assert green(marked) > 300


def test_the_average_leaves_a_straight_line_as_it_is():
    line = [3 - 0.1 * place for place in range(50)]
    assert charts.smoothed(line) == pytest.approx(line)
    noise = [(-1.0) ** place for place in range(100)]
    assert max(abs(value) for value in charts.smoothed(noise)[20:80]) < 0.1
    assert charts.smoothed([]) == []


# ---- what the live view keeps ----------------------------------------------------------------------------------------

IDENTITY = {"node": "3:8", "workflow": "one", "run": "warm"}


def begun(runs: live.LiveRuns, **changes) -> None:
    message = {"method": "DDPO", "first_curves": ("reward",), "step": 0, "total": 10, "history": [], "note": ""}
    runs.record(IDENTITY | {"kind": "start"} | message | changes)


def test_all_figures_are_kept_and_what_is_no_number_is_not():
    runs = live.LiveRuns()
    begun(runs)
    metrics = {"loss": 0.5, "my_own_figure": 2, "reward": None, "bad": math.nan, "step": 7.0}
    runs.record(IDENTITY | {"kind": "report", "step": 1, "total": 10, "metrics": metrics})
    (entry,) = runs.snapshot().values()
    assert entry["history"] == [{"loss": 0.5, "my_own_figure": 2.0, "step": 1}]
    assert entry["first_curves"] == ["reward"]


def test_a_figure_that_comes_now_and_then_survives_the_thinning_of_the_others():
    rows = [{"step": n + 1, "loss": 0.0} | ({"rare": float(n)} if n % 100 == 0 else {}) for n in range(4000)]
    left = [row for row in live.thinned(rows) if "rare" in row]
    assert len(left) == 40
    assert all(0 <= row["step"] - 1 - row["rare"] < 8 for row in left)


def test_a_run_is_asked_to_stop_while_it_is_at_work():
    runs = live.LiveRuns()
    assert not runs.ask_to_stop(IDENTITY)
    begun(runs)
    assert not runs.asked_to_stop(IDENTITY)
    assert not runs.ask_to_stop(IDENTITY | {"run": "cold"}), "another run of this node"
    assert not runs.ask_to_stop(IDENTITY | {"workflow": "two"})
    assert not runs.ask_to_stop(IDENTITY | {"node": "8"}), "the node inside the subgraph has a longer id"
    assert runs.ask_to_stop(IDENTITY)
    assert runs.ask_to_stop(IDENTITY), "twice is once"
    assert runs.asked_to_stop(IDENTITY)
    assert runs.snapshot()["one/3:8"]["status"] == "stopping"
    runs.record(IDENTITY | {"kind": "report", "step": 1, "total": 10, "metrics": {}})
    assert runs.asked_to_stop(IDENTITY), "the update in between ends first"
    runs.record(IDENTITY | {"kind": "end", "status": "stopped", "file": "f", "message": "m"})
    assert not runs.asked_to_stop(IDENTITY) and not runs.ask_to_stop(IDENTITY)


def test_a_run_that_goes_on_is_not_stopped_by_an_earlier_wish():
    runs = live.LiveRuns()
    begun(runs)
    runs.ask_to_stop(IDENTITY)
    begun(runs, step=3)
    assert not runs.asked_to_stop(IDENTITY)
