"""Several rewards on one sheet: columns, percentiles, files, and what the gallery is told."""

from __future__ import annotations

import csv
import io
import json
from typing import ClassVar

import pytest
import torch

from attune.nodes.rewards import StatisticReward
from attune.nodes.rewards.chart import bar_chart
from attune.nodes.rewards.sheet import score_sheet
from attune.nodes.rewards.thumbnails import picture_files
from attune.training.interfaces import RewardContext, RewardError

GREY = [torch.full((8, 8, 3), value) for value in (0.25, 0.75, 0.5)]
BRIGHT, DARK = StatisticReward("brightness"), StatisticReward("brightness", "as low as possible")


class Cost(StatisticReward):
    """Brightness as a cost."""

    higher_is_better = False


class Contextual(StatisticReward):
    """Remembers what it was given at once."""

    contextual = True
    calls: ClassVar[list] = []

    def __call__(self, images, prompts, context=None):
        self.calls.append((len(images), context))
        return super().__call__(images, prompts)


def test_the_first_reward_ranks_and_every_reward_has_a_column():
    sheet = score_sheet(GREY, ["a", "b", "c"], [BRIGHT, DARK])
    assert sheet.ranking == (1, 2, 0)
    assert sheet.first.scores == pytest.approx((0.25, 0.75, 0.5))
    assert sheet.columns[1].scores == pytest.approx((-0.25, -0.75, -0.5))
    lines = sheet.text().splitlines()
    assert lines[0] == "**Brightness (high)** mean 0.500, **Brightness (low)** mean -0.500"
    assert lines[4] == "| 1 | 1 | 0.750 | -0.750 | b |"


def test_a_cost_ranks_lowest_first():
    assert score_sheet(GREY, [""] * 3, [Cost("brightness")]).ranking == (0, 2, 1)


def test_the_same_reward_twice_has_two_names():
    names = [column.name for column in score_sheet(GREY, [""] * 3, [BRIGHT, BRIGHT, BRIGHT]).columns]
    assert names == ["Brightness (high)", "Brightness (high) 2", "Brightness (high) 3"]


def test_csv_reads_back_exactly_and_holds_no_formula_for_spreadsheets():
    prompts = ['=HYPERLINK("x")', 'a "quoted", one', "two\nlines"]
    rows = list(csv.DictReader(io.StringIO(score_sheet(GREY, prompts, [BRIGHT]).csv())))
    assert [float(row["Brightness (high)"]) for row in rows] == [float(BRIGHT(p[None], [""])) for p in GREY]
    assert [row["rank"] for row in rows] == ["3", "1", "2"]
    assert [row["prompt"] for row in rows] == ["'" + prompts[0], *prompts[1:]]


def test_json_names_the_rewards_so_that_runs_can_be_compared():
    document = json.loads(score_sheet(GREY, ["a"] * 3, [BRIGHT]).json())
    assert document["rewards"][0]["reward_id"] == BRIGHT.reward_id
    assert [image["rank"] for image in document["images"]] == [3, 1, 2]
    assert len({image["hash"] for image in document["images"]}) == 3


def test_discarded_pictures_are_found_by_their_pixels():
    sheet = score_sheet(GREY, [""] * 3, [BRIGHT])
    assert sheet.kept("") == [0, 1, 2]
    assert sheet.kept(f"  {sheet.hashes[1]}\n{'0' * 16} ") == [0, 2]
    shuffled = score_sheet([GREY[1], GREY[0]], [""] * 2, [BRIGHT])
    assert shuffled.kept(sheet.hashes[1]) == [1]


def test_one_to_eight_rewards():
    with pytest.raises(RewardError, match="1 to 8 rewards at once, not 0"):
        score_sheet(GREY, [""] * 3, [])
    with pytest.raises(RewardError, match="not 9"):
        score_sheet(GREY, [""] * 3, [BRIGHT] * 9)


def test_a_reward_that_compares_gets_all_pictures_at_once_and_the_context():
    Contextual.calls.clear()
    pictures = [torch.full((4, 4, 3), number / 20) for number in range(20)]
    context = RewardContext(previous=[GREY[0][None]])
    score_sheet(pictures, [""] * 20, [Contextual("brightness")], context=context)
    assert Contextual.calls == [(20, context)]
    glass = torch.cat([pictures[0], torch.ones(4, 4, 1)], -1)
    score_sheet([pictures[0], glass], ["", ""], [Contextual("brightness")])
    assert Contextual.calls[-1] == (2, None), "transparency is no other size"
    with pytest.raises(RewardError, match="one size for all, not 4×4, 8×8"):
        score_sheet([pictures[0], GREY[0]], ["", ""], [Contextual("brightness")])


def test_progress_counts_all_rewards():
    steps = []
    score_sheet(GREY, [""] * 3, [BRIGHT, DARK], progress=lambda done, total: steps.append((done, total)))
    assert steps[0] == (0, 6)
    assert steps[-1] == (6, 6)
    assert steps == sorted(steps)


def test_pictures_become_files_once_and_large_ones_have_a_thumbnail(tmp_path):
    from PIL import Image

    large = torch.rand(300, 600, 4)
    pictures = [GREY[0], large]
    sheet = score_sheet(pictures, ["", ""], [BRIGHT])
    small_one, large_one = picture_files(pictures, sheet.hashes, tmp_path)
    assert small_one["file"] == small_one["thumbnail"]
    assert (large_one["width"], large_one["height"]) == (600, 300)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "attune").iterdir()}
    assert len(files) == 3
    with Image.open(tmp_path / "attune" / large_one["thumbnail"]["filename"]) as image:
        assert image.size == (256, 128)
    with Image.open(tmp_path / "attune" / small_one["file"]["filename"]) as image:
        assert image.getpixel((0, 0)) == (64, 64, 64)
    assert picture_files(pictures, sheet.hashes, tmp_path) == [small_one, large_one]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "attune").iterdir()} == files


def test_gallery_holds_what_the_page_needs(tmp_path):
    sheet = score_sheet(GREY, ["a  b", "", "c"], [BRIGHT, DARK])
    shown = sheet.gallery(picture_files(GREY, sheet.hashes, tmp_path))
    json.dumps(shown, allow_nan=False)
    first = shown["images"][0]
    assert first.keys() == {
        "index", "hash", "prompt", "rank", "scores", "labels", "percentiles", "width", "height", "file", "thumbnail",
    }  # fmt: skip
    assert (first["prompt"], first["rank"], first["labels"]) == ("a b", 3, ["0.250", "-0.250"])
    assert first["percentiles"] == [None, None]
    assert [reward["calibrated"] for reward in shown["rewards"]] == [False, False]


def test_the_chart_has_a_bar_for_every_reward():
    """Cards grow with the number of rewards, and the further bars are drawn where the first chart has none."""
    scores = [0.25, 0.75, 0.5]
    plain = bar_chart(GREY, scores)
    more = bar_chart(GREY, scores, others={"One": [1, 2, 3], "Two": [-1, 0, 1], "Three": [5, 5, 5]})
    assert more.shape[2] == plain.shape[2]
    assert more.shape[1] > plain.shape[1]
    blue = (more[0] * 255 - torch.tensor([104.0, 146.0, 196.0])).abs().amax(-1) < 6
    assert (blue.sum(1) > 100).sum() >= 3 * 6
