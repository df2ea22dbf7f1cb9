"""Several rewards on one sheet: columns, percentiles, files, and what the gallery is told."""

from __future__ import annotations

import codecs
import csv
import io
import json
from typing import ClassVar

import numpy as np
import pytest
import torch

from attune.nodes import picture_hashes
from attune.nodes.picture_hashes import content_hash
from attune.nodes.rewards import StatisticReward
from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.calibration import CalibratedReward, Calibration
from attune.nodes.rewards.chart import bar_chart
from attune.nodes.rewards.combine import CombineConfig, CombinedReward
from attune.nodes.rewards.pictures import split_prompts, to_image, to_rgb
from attune.nodes.rewards.sheet import save_sheet, score_sheet
from attune.nodes.rewards.thumbnails import picture_files
from attune.nodes.rewards.wrapping import WrappedReward
from attune.training.interfaces import RewardContext, RewardError

GREY = [torch.full((8, 8, 3), value) for value in (0.25, 0.75, 0.5)]
BRIGHT, DARK = StatisticReward("brightness"), StatisticReward("brightness", "as low as possible")


class Cost(StatisticReward):
    """Brightness as a cost."""

    higher_is_better = False


class Named(WrappedReward):
    """Brightness by another name."""

    def __init__(self, name: str) -> None:
        super().__init__(BRIGHT)
        self.name = name


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


def test_only_line_breaks_part_prompts():
    assert split_prompts(["one\r\ntwo\n"], 2) == ["one", "two"]
    assert split_prompts(["a\u2028b\x0cc\x85d"], 2) == ["a\u2028b\x0cc\x85d"] * 2, "no editor shows these as new lines"
    with pytest.raises(RewardError, match=r"2 prompts for 1 image\."):
        split_prompts(["one\ntwo"], 1)


def test_headings_name_one_column_each_whatever_the_rewards_are_called():
    rewards = [Named(name) for name in ("A", "A 2", "A")]
    assert [column.name for column in score_sheet(GREY, [""] * 3, rewards).columns] == ["A", "A 2", "A 3"]


def test_csv_reads_back_exactly_and_holds_no_formula_for_spreadsheets():
    prompts = ['=HYPERLINK("x")', 'a "quoted", one', "two\nlines"]
    rows = list(csv.DictReader(io.StringIO(score_sheet(GREY, prompts, [BRIGHT]).csv())))
    assert [float(row["Brightness (high)"]) for row in rows] == [float(BRIGHT(p[None], [""])) for p in GREY]
    assert [row["rank"] for row in rows] == ["3", "1", "2"]
    assert [row["prompt"] for row in rows] == ["'" + prompts[0], *prompts[1:]]
    prompts = ["\t=1+1", "\r=1+1", "@a\r=1+1\n=2+2"]
    formula = Named('=HYPERLINK("x")')
    formula = CalibratedReward(formula, Calibration.of(formula.reward_id, "set", [n / 10 for n in range(9)]))
    rows = list(csv.reader(io.StringIO(score_sheet(GREY, prompts, [formula]).csv(), newline="")))
    assert rows[0] == ["image", "rank", "hash", "'" + formula.name, f"'{formula.name} percentile", "prompt"]
    assert [row[-1] for row in rows[1:]] == ["'" + prompt for prompt in prompts]
    for prompts in ([" =1+1", "\u00a0\u3000-2", "  ＝1+1"], ["＋1", "\t＠a", " \n @a"]):
        rows = list(csv.reader(io.StringIO(score_sheet(GREY, prompts, [BRIGHT]).csv(), newline="")))
        assert [row[-1] for row in rows[1:]] == ["'" + prompt for prompt in prompts]
    rows = list(csv.reader(io.StringIO(score_sheet(GREY, [" a = b", "", "  "], [BRIGHT]).csv(), newline="")))
    assert [row[-1] for row in rows[1:]] == [" a = b", "", "  "]


def test_saved_sheets_read_back_also_with_half_a_character(tmp_path):
    sheet = score_sheet(GREY, ["ein Fähnchen", "half \ud800 one", "c"], [BRIGHT])
    csv_file, json_file = tmp_path / "a" / "s.csv", tmp_path / "a" / "s.json"
    assert save_sheet(sheet, [csv_file, json_file]) == [f"saved: {csv_file}", f"saved: {json_file}"]
    assert csv_file.read_bytes().startswith(codecs.BOM_UTF8), "or a spreadsheet takes it for an older alphabet"
    rows = list(csv.DictReader(io.StringIO(csv_file.read_text(encoding="utf-8-sig"))))
    assert [row["prompt"] for row in rows] == ["ein Fähnchen", r"half \ud800 one", "c"]
    images = json.loads(json_file.read_text(encoding="utf-8"))["images"]
    assert [image["prompt"] for image in images] == ["ein Fähnchen", "half \ud800 one", "c"]


def test_what_cannot_be_written_says_so(tmp_path):
    (tmp_path / "attune").write_text("a file where a folder is needed")
    sheet = score_sheet(GREY, ["a"] * 3, [BRIGHT])
    with pytest.raises(RewardError, match=r"The scores were made, but .*s\.csv cannot be written: .*are remembered"):
        save_sheet(sheet, [tmp_path / "attune" / "s.csv"])
    with pytest.raises(RewardError, match=r"gallery's pictures cannot be written to .*attune"):
        picture_files(GREY, sheet.hashes, tmp_path)


class Cancelled(Exception):
    pass


def test_files_and_chart_can_be_cancelled_between_pictures(tmp_path):
    seen: list[tuple[int, int]] = []

    def stop(done, total):
        seen.append((done, total))
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        picture_files(GREY, ["a", "b", "c"], tmp_path, progress=stop)
    with pytest.raises(Cancelled):
        bar_chart(GREY, [1.0, 2.0, 3.0], progress=stop)
    assert seen == [(0, 3), (1, 3), (2, 3)] * 2
    assert sorted(file.name for file in (tmp_path / "attune").iterdir()) == ["a.png", "b.png"]


def test_pictures_are_hashed_once_for_all_rewards_and_the_gallery(monkeypatch):
    hashed = []
    monkeypatch.setattr(picture_hashes, "content_hash", lambda picture: hashed.append(1) or content_hash(picture))
    pictures = [torch.full((4, 4, 3), number / 20) for number in range(20)]
    rewards = [CachedReward(StatisticReward(kind), ScoreStore()) for kind in ("brightness", "contrast", "saturation")]
    rewards.append(CombinedReward(rewards[:2], CombineConfig(scale="raw scores")))
    sheet = score_sheet(pictures, [""] * 20, rewards)
    assert len(hashed) == 20
    assert list(sheet.hashes) == [content_hash(picture)[:16] for picture in pictures]
    assert [reward.forward_calls for reward in rewards[:3]] == [3, 3, 3]
    again = score_sheet(pictures[::-1], [""] * 20, rewards)
    assert again.first.scores == sheet.first.scores[::-1], "hashes stay with their pictures"
    assert [reward.forward_calls for reward in rewards[:3]] == [3, 3, 3]


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
    with Image.open(tmp_path / "attune" / large_one["file"]["filename"]) as image:
        assert (image.format, image.size) == ("JPEG", (600, 300)), "PNG takes many times as long"
    with Image.open(tmp_path / "attune" / small_one["file"]["filename"]) as image:
        assert image.getpixel((0, 0)) == (64, 64, 64)
    assert picture_files(pictures, sheet.hashes, tmp_path) == [small_one, large_one]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "attune").iterdir()} == files


def test_a_picture_in_8_bits_is_the_whole_picture():
    """It is made in strips; these have more than one, and the last one is short."""
    for shape in ((700, 300, 3), (1, 200_000, 1), (333, 555, 4)):
        picture = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1
        found = torch.from_numpy(np.array(to_image(picture)))
        assert torch.equal(found, (to_rgb(picture[None])[0].clamp(0, 1) * 255).round().to(torch.uint8))


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
