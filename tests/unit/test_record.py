"""How claims are recorded (tests/evidence/record.py) and shown (runner.py)."""

from __future__ import annotations

import json
import random
import statistics

import numpy as np
import pytest

from attune.nodes.drawing import BAD, GOOD
from attune.tests.evidence import record as module
from attune.tests.evidence.plots import strip_plot
from attune.tests.evidence.record import Claim, bootstrap, commit, record, results, versions, write_json
from attune.tests.evidence.runner import readme_table

SPEED = Claim("speed", 1.5, ">=", "×", "faster than the host")
TIME = Claim("time", 0.3, "<=", "s", "seconds of import")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RESULTS", tmp_path / "tests" / "evidence" / "results")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module.RESULTS


@pytest.mark.parametrize(
    ("claim", "value", "holds"), [(SPEED, 1.5, True), (SPEED, 1.49, False), (TIME, 0.3, True), (TIME, 0.31, False)]
)
def test_a_claim_holds_on_its_side_of_the_goal(claim: Claim, value: float, holds: bool):
    assert claim.holds(value) is holds


def test_bootstrap_interval_is_that_of_the_normal_for_a_mean():
    """40 draws of N(5, 2): the standard error is s/√40, so the 95 % interval is mean ± 1.96·s/√40, here within 8 %."""
    samples = [random.Random(3).gauss(5, 2) for _ in range(1)] + [random.Random(i).gauss(5, 2) for i in range(39)]
    low, high = bootstrap(samples)
    half = 1.96 * statistics.stdev(samples) / 40**0.5
    assert low < statistics.fmean(samples) < high
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_bootstrap_of_equal_samples_has_no_width():
    assert bootstrap([2.0, 2.0, 2.0]) == (2.0, 2.0)


def test_bootstrap_is_repeatable_and_takes_any_statistic():
    samples = [1.0, 4.0, 9.0, 16.0]
    assert bootstrap(samples, max) == bootstrap(samples, max)
    assert bootstrap(samples, max)[1] == 16.0


def test_bootstrap_refuses_one_repetition():
    with pytest.raises(ValueError, match="at least 2 repetitions, not 1"):
        bootstrap([1.0])


def test_record_holds_everything_and_a_failed_claim_is_recorded(folder, capsys):
    file = record(SPEED, 1.2, ci=(1.1, 1.3), seeds=3, seconds=12.34, quick=False, details={"ours": 2.0})
    entry = json.loads(file.read_text(encoding="utf-8"))
    assert file == folder / "speed.json"
    wanted = "claim value goal direction ci seeds seconds attempts details commit versions"
    assert set(wanted.split()) <= entry.keys()
    assert (entry["holds"], entry["ci"], entry["seconds"]) == (False, [1.1, 1.3], 12.3)
    assert "FAILED" in capsys.readouterr().out


def test_a_new_record_forgets_no_earlier_one(folder):
    """Nor the failure among them; quick runs neither count nor remember."""
    claim = Claim("again", 1.0, ">=", "×", "measured again")
    for value in (0.5, 1.5, 1.7):
        record(claim, value, ci=None, seeds=1, seconds=0, quick=False)
        record(claim, 9.0, ci=None, seeds=1, seconds=0, quick=True)
    entry = json.loads((folder / "again.json").read_text(encoding="utf-8"))
    assert [(old["value"], old["holds"]) for old in entry["earlier"]] == [(0.5, False), (1.5, True)]
    assert json.loads((folder / "again.quick.json").read_text(encoding="utf-8"))["earlier"] == []


def test_quick_results_are_kept_apart(folder):
    record(SPEED, 2.0, ci=None, seeds=1, seconds=1, quick=True)
    assert (folder / "speed.quick.json").is_file()
    assert results() == []


def test_a_figure_that_is_not_a_number_is_refused_and_nothing_is_left(folder):
    record(SPEED, 2.0, ci=None, seeds=1, seconds=1, quick=False)
    with pytest.raises(ValueError, match="not JSON compliant"):
        record(SPEED, float("nan"), ci=None, seeds=1, seconds=1, quick=False)
    assert [entry["value"] for entry in results()] == [2.0]
    assert {file.name for file in folder.iterdir()} == {"speed.json", "speed.png"}


@pytest.mark.parametrize("samples", [(), (1.2,), (1.2, 1.9, 1.6)])
@pytest.mark.parametrize("claim", [SPEED, TIME])
def test_the_plot_shows_goal_and_verdict(claim: Claim, samples: tuple[float, ...]):
    picture = np.asarray(strip_plot(claim, 1.6, ci=(1.2, 1.9) if samples else None, samples=samples)).astype(int)
    dot = tuple(int((GOOD if claim.holds(1.6) else BAD)[i : i + 2], 16) for i in (1, 3, 5))
    other = tuple(int((BAD if claim.holds(1.6) else GOOD)[i : i + 2], 16) for i in (1, 3, 5))
    assert (abs(picture - dot).sum(2) == 0).sum() > 100
    assert (abs(picture - other).sum(2) == 0).sum() == 0


def test_write_json_replaces_whole_files(tmp_path):
    file = tmp_path / "deep" / "a.json"
    write_json(file, {"a": 1})
    write_json(file, {"a": 2})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": 2}
    assert list(file.parent.iterdir()) == [file]


def test_versions_name_what_decides_a_figure():
    assert {"python", "torch", "peft"} <= versions().keys()
    assert commit()


def test_readme_table_shows_failures_too(folder):
    record(SPEED, 1.2, ci=(1.1, 1.3), seeds=3, seconds=1, quick=False)
    record(TIME, 0.1, ci=None, seeds=3, seconds=1, quick=False)
    table = readme_table(results())
    assert "| `speed`: faster than the host | 1.2 × | 1.1 … 1.3 | ≥ 1.5 × | **no** |" in table
    assert "| `time`: seconds of import | 0.1 s | – | ≤ 0.3 s | yes |" in table


def test_readme_table_without_results():
    assert "No result" in readme_table([])
