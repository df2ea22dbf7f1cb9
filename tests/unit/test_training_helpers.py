"""The pure parts behind the training nodes: captions, picture sizes, live state, figures of a comparison, charts."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from PIL import Image

from attune.nodes import charts, drawing
from attune.nodes.training import figures, grid, live, plan_rewards, plans, widgets
from attune.nodes.training.compare import mean_and_deviation, paired_change, win_rate
from attune.nodes.training.records import check_writable, duration_text, pack_version, saved_step
from attune.training.diversity import diversity, pixel_features
from attune.training.interfaces import AttuneError
from attune.training.objectives.ddpo import DDPOConfig
from attune.training.objectives.supervised import SupervisedConfig

# ---- what the widgets hold -------------------------------------------------------------------------------------------


def test_prompts_are_lines_without_blanks():
    assert plans.prompt_lines("  a cat \n\n a dog\n") == ["a cat", "a dog"]
    with pytest.raises(AttuneError, match="no prompts"):
        plans.prompt_lines(" \n\t\n")


@pytest.mark.parametrize(
    ("captions", "count", "trigger", "expected"),
    [
        (["a cat"], 1, "", ["a cat"]),
        (["a cat\non a mat"], 1, "", ["a cat on a mat"]),  # one picture: the whole text is its caption
        (["a cat"], 3, "", ["a cat"] * 3),
        (["a cat\n\na dog"], 2, "ink", ["ink, a cat", "ink, a dog"]),
        (["two\nlines", "b"], 2, "", ["two lines", "b"]),  # a list has one entry per picture
        (["", "b"], 2, "ink", ["ink", "ink, b"]),
        ([""], 2, "ink", ["ink", "ink"]),
    ],
)
def test_captions(captions, count, trigger, expected):
    assert plans.caption_lines(captions, count, trigger=trigger) == expected


@pytest.mark.parametrize(
    ("captions", "count", "message"),
    [(["a\nb"], 3, "3 pictures but 2 captions"), (["a", "b"], 1, "1 pictures but 2"), (["a", ""], 2, "Picture 2 of 2")],
)
def test_captions_that_do_not_fit_are_refused(captions, count, message):
    with pytest.raises(AttuneError, match=message):
        plans.caption_lines(captions, count, trigger="")


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [
        ((64, 64), 64, (64, 64)),
        ((128, 64), 64, (88, 48)),  # 64·√2 = 90.5 and 45.3, to the nearest 8
        ((1000, 500), 512, (704, 384)),  # 724 and 362, to the nearest 64
        ((300, 300), 0, (256, 256)),
        ((70, 90), 0, (64, 88)),
    ],
)
def test_pictures_keep_their_proportions_at_the_asked_area(size, resolution, expected):
    (picture,) = plans.training_images([torch.rand(1, *size, 4)], resolution=resolution)
    assert tuple(picture.shape) == (*expected, 3)
    assert 0 <= picture.min() <= picture.max() <= 1


def test_picture_of_the_right_size_is_not_touched():
    picture = torch.rand(1, 64, 64, 3)
    assert torch.equal(plans.training_images([picture], resolution=64)[0], picture[0])


def test_no_pictures_and_no_pictures_at_all_are_refused():
    with pytest.raises(AttuneError, match="no pictures"):
        plans.training_images([], resolution=64)
    with pytest.raises(AttuneError, match="shape"):
        plans.training_images([torch.rand(64, 64, 3)], resolution=64)
    with pytest.raises(AttuneError, match="too small"):
        plans.training_images([torch.rand(1, 4, 64, 3)], resolution=0)


def supervised(pictures: list[torch.Tensor], texts: list[str]) -> plans.SupervisedPlan:
    captions = [plans.EncodedText(text, None) for text in texts]
    return plans.SupervisedPlan(pictures, captions, captions, captions[0], None, "", SupervisedConfig())


def test_the_largest_picture_counts_for_memory_whatever_the_order():
    plan = supervised([], ["a"])
    latents = [torch.zeros(4, 8, 8), torch.zeros(4, 8, 24), torch.zeros(4, 12, 12)]
    assert plan.latent_shape(None, latents) == plan.latent_shape(None, latents[::-1]) == (4, 8, 24)


def test_pictures_are_encoded_one_by_one_with_a_chance_to_cancel():
    class Decoder:
        encoded = 0

        def encode(self, images):
            self.encoded += len(images)
            return images.permute(0, 3, 1, 2)

    plan = supervised([torch.zeros(8, 8, 3)] * 3, ["a"] * 3)
    told, decoder = [], Decoder()
    assert [tuple(latent.shape) for latent in plan.load(decoder, lambda *phase: told.append(phase))] == [(3, 8, 8)] * 3
    assert told == [("encode", 0, 3), ("encode", 1, 3), ("encode", 2, 3), ("encode", 3, 3)]
    assert len(plan.load(Decoder())) == 3

    def cancel(text, done, total):
        if done == 1:
            raise KeyboardInterrupt

    decoder = Decoder()
    with pytest.raises(KeyboardInterrupt):
        plan.load(decoder, cancel)
    assert decoder.encoded == 1


def test_data_hash_changes_with_pictures_and_captions():
    one, two = torch.zeros(8, 8, 3), torch.ones(8, 8, 3)
    hashes = {
        supervised([one, two], ["a", "b"]).data_hash(),
        supervised([one, two], ["a", "c"]).data_hash(),
        supervised([two, one], ["a", "b"]).data_hash(),
        supervised([one], ["a"]).data_hash(),
    }
    assert len(hashes) == 4
    assert supervised([one, two], ["a", "b"]).data_hash() in hashes


def test_the_knob_against_too_little_memory_is_a_widget_of_the_node():
    from attune.nodes.training import run_schemas, schemas

    empty = plans.EncodedText("", None)
    plan = plan_rewards.DDPOPlan([empty], empty, None, None, {}, None, "", DDPOConfig(chunk=6))
    assert plan.batch_knob.startswith("chunk (now 6;") and plan.batch == 6
    assert "a run that has begun goes on" in plan.batch_knob and "chunk" not in plan.config.identity()
    few = DDPOConfig(chunk=64, prompts_per_update=2, images_per_prompt=4, steps=5, transitions=3)
    assert plan_rewards.DDPOPlan([empty], empty, None, None, {}, None, "", few).batch == 24, (
        "an update never trains on more"
    )
    assert "chunk" in [name for _, name, _ in schemas.DDPO_OBJECTIVE]
    plan = supervised([], [""])
    assert plan.batch_knob.startswith(f"batch_size (now {SupervisedConfig().batch};")
    assert "batch_size" in [name for _, name, _ in schemas.SUPERVISED_OBJECTIVE]
    assert "accumulation" in plan.batch_knob
    assert "same" not in plan.batch_knob, "other draws: the result is not"
    assert "accumulation" in [name for _, name, _ in run_schemas.TRAIN_LORA]


def test_lora_settings():
    config = widgets.lora_config(4, 0.0, 0.0, {"cross_attention": True, "convolution": True, "timestep": False})
    assert config.alpha == 4.0
    assert config.targets == ("cross-attention", "convolution")
    with pytest.raises(AttuneError, match="No layers are chosen"):
        widgets.lora_config(4, 4.0, 0.0, dict.fromkeys(widgets.TARGET_WIDGETS, False))


def test_every_target_widget_names_a_target_of_the_adapters():
    from attune.training.adapters import TARGETS

    assert set(widgets.TARGET_WIDGETS.values()) == set(TARGETS)


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_diversity_is_the_mean_of_one_minus_cosine_over_pairs():
    """Features (1,0), (0,1), (1,0): cosines 0, 1, 0 → mean of 1, 0, 1 = 2/3. A second prompt of equal ones adds 0."""
    vectors = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [1.0, 1.0], [2.0, 2.0], [5.0, 5.0]])
    images = torch.zeros(6, 1, 1, 3)
    assert diversity(images[:3], lambda _: vectors[:3], group=3) == pytest.approx(2 / 3)
    assert diversity(images, lambda _: vectors, group=3) == pytest.approx(1 / 3)
    assert math.isnan(diversity(images[:1], lambda _: vectors[:1], group=1))


def test_pixel_features_tell_pictures_apart_but_not_their_brightness():
    image = torch.rand(1, 64, 64, 3) * 0.5
    features = torch.nn.functional.normalize(pixel_features(torch.cat([image, image + 0.3, 0.5 - image])), dim=1)
    assert float(features[0] @ features[1]) == pytest.approx(1, abs=1e-4)
    assert float(features[0] @ features[2]) == pytest.approx(-1, abs=1e-4)


def test_win_rate_counts_ties_half_and_minds_the_direction():
    assert win_rate([1, 1, 1, 1], [2, 2, 1, 0], higher_is_better=True) == 0.625
    assert win_rate([1, 1, 1, 1], [2, 2, 1, 0], higher_is_better=False) == 0.375


def test_mean_and_deviation():
    assert mean_and_deviation([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_and_deviation([1.0]) == (1.0, 0.0)


def test_paired_change_minds_the_pairs():
    """Differences 1, 2, 3, 2 have mean 2 and deviation √(2/3): the error is 1.96·√(2/3)/√4 = 0.80017."""
    before = [10.0, 0.0, -5.0, 100.0]
    assert paired_change(before, [11.0, 2.0, -2.0, 102.0]) == (2.0, pytest.approx(0.80017, abs=1e-5))
    assert paired_change([1.0], [3.0]) == (2.0, 0.0)


def test_small_texts(tmp_path):
    assert [duration_text(s) for s in (4.04, 42.4, 185, 7440)] == ["4.0 s", "42 s", "3 min 05 s", "2 h 04 min"]
    assert pack_version().count(".") == 2
    assert saved_step(tmp_path) == 0
    (tmp_path / "state-12.safetensors").touch()
    (tmp_path / "state-7.safetensors").touch()
    assert saved_step(tmp_path) == 12


# ---- live state ------------------------------------------------------------------------------------------------------


def of(kind: str, **values) -> dict:
    return {"node": "8", "workflow": "one", "run": "warm", "kind": kind, **values}


def start(step: int = 0, **changes) -> dict:
    message = of("start", method="DDPO", first_curves=["reward"], step=step, total=10, history=[], note="")
    return message | changes


def test_snapshot_holds_what_a_page_needs():
    runs = live.LiveRuns()
    runs.record(start())
    runs.record(of("report", step=1, total=10, metrics={"loss": 0.5, "reward": None}))
    runs.record(of("samples", step=0, image="data:,"))
    runs.record(of("phase", text="rollout", done=1, total=2))
    entry = json.loads(json.dumps(runs.snapshot()))["one/8"]
    assert entry["status"] == "running"
    assert entry["history"] == [{"step": 1, "loss": 0.5}]
    assert entry["samples"] == [{"step": 0, "image": "data:,"}]
    runs.record(of("end", status="stopped", file="f", message="m"))
    entry = runs.snapshot()["one/8"]
    assert (entry["status"], entry["file"], entry["message"]) == ("stopped", "f", "m")


def test_pictures_survive_a_resume_but_not_another_run():
    runs = live.LiveRuns()
    runs.record(start())
    runs.record(of("samples", step=0, image="a"))
    runs.record(start(step=3))
    assert len(runs.snapshot()["one/8"]["samples"]) == 1
    runs.record(start(step=3, run="cold"))
    assert runs.snapshot()["one/8"]["samples"] == []


def test_equal_nodes_of_two_workflows_are_kept_apart():
    runs = live.LiveRuns()
    runs.record(start())
    runs.record(start(workflow="two"))
    runs.record(of("report", step=1, total=10, metrics={"loss": 0.5}) | {"workflow": "two"})
    found = runs.snapshot()
    assert [found[key]["step"] for key in ("one/8", "two/8")] == [0, 1]
    assert (found["two/8"]["workflow"], found["two/8"]["node"], found["two/8"]["run"]) == ("two", "8", "warm")


def test_runs_without_a_workflow_are_told_apart_by_their_names():
    runs = live.LiveRuns()
    runs.record(start(workflow=""))
    runs.record(start(workflow="", run="cold"))
    assert list(runs.snapshot()) == ["8/warm", "8/cold"]


def test_message_for_a_node_that_never_started_is_ignored():
    runs = live.LiveRuns()
    runs.record(of("report", step=1, total=2, metrics={}))
    assert runs.snapshot() == {}


def test_a_result_takes_the_last_picture_of_its_own_run():
    runs = live.LiveRuns()
    own = {"node": "8", "workflow": "one", "run": "warm"}
    assert runs.last_sample(own) == []
    runs.record({"kind": "start", **own, "method": "", "step": 0, "total": 2, "first_curves": [], "history": [],
                 "note": ""})  # fmt: skip
    for step in (0, 2):
        runs.record({"kind": "samples", **own, "step": step, "image": f"picture {step}"})
    assert runs.last_sample(own) == [{"step": 2, "image": "picture 2"}]
    assert runs.last_sample(own | {"run": "cold"}) == []


def test_live_state_is_bounded():
    runs = live.LiveRuns()
    for node in range(live.MOST_RUNS + 5):
        runs.record(start(node=str(node)))
    assert len(runs.snapshot()) == live.MOST_RUNS
    last = str(live.MOST_RUNS + 4)
    for step in range(1, 3 * live.MOST_SAMPLES):
        runs.record(of("samples", step=step, image=str(step)) | {"node": last})
    samples = runs.snapshot()[f"one/{last}"]["samples"]
    steps = [sample["step"] for sample in samples]
    assert [steps[0], steps[-1], len(steps)] == [1, 3 * live.MOST_SAMPLES - 1, live.MOST_SAMPLES]
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 4, "pictures of the whole run, evenly spread"
    rows = live.thinned([{"step": index} for index in range(5 * live.MOST_ROWS)])
    assert len(rows) <= live.MOST_ROWS
    assert rows[-1]["step"] == 5 * live.MOST_ROWS - 1


# ---- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.2, 0.35), (-3, 5000), (1e-6, 2e-6), (0.5, 0.5), (0, 0)])
def test_ticks_are_round_and_within_the_range(low, high):
    ticks = drawing.nice_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    margin = 0 if high > low else max(1.0, abs(low))
    assert low - margin <= ticks[0] <= ticks[-1] <= high + margin
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.123456, "0.1235"), (0.3, "0.3"), (-12.0, "-12"), (12345.6, "12346"), (4e-8, "4e-08"), (100, "100")],
)
def test_short_number(value, text):
    assert drawing.short_number(value) == text


def test_wrapped_text_fits_and_says_when_it_was_cut():
    lines = drawing.wrapped("a very long prompt about a mushroom in the rain", 90, size=15, lines=2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")
    assert all(drawing.text_width(line, 15) <= 90 for line in lines)
    assert drawing.wrapped("short", 90, size=15, lines=2) == ["short"]
    assert drawing.wrapped("unbreakable" * 20, 90, size=15, lines=3)[0].startswith("unb")


def test_curves_leave_out_what_is_missing_or_not_finite():
    history = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 3.0, "reward": 0.5}]
    curves = figures.curves_of(history, titles={"reward": "Reward: X"})
    assert [(curve.key, curve.title, list(curve.steps)) for curve in curves] == [
        ("reward", "Reward: X", [3]),
        ("loss", "Loss", [1, 3]),
    ]


def test_smoothing_is_unbiased_and_agrees_with_the_page():
    """The same numbers as `smoothed` in js/live_state.js, whose test asks for them too."""
    assert charts.smoothed([0.7] * 200) == pytest.approx([0.7] * 200)
    assert charts.smoothed([1, 5]) == [1, 5]


@pytest.mark.parametrize("history", [[], [{"step": 1, "loss": 0.3}], [{"step": s, "loss": 1.0} for s in range(1, 9)]])
def test_chart_is_drawn_whatever_the_history(history):
    picture = charts.curve_chart(figures.curves_of(history), title="run " * 90, details="x")
    assert picture.size == (charts.WIDTH, 340)
    assert len(picture.getcolors(1 << 20)) > 20


def test_grid_shows_every_picture_large_enough_and_in_its_place():
    """Pictures of one colour each: the colour is found where the layout says it must be."""
    colours = torch.linspace(0.1, 0.9, 4).reshape(4, 1, 1, 1).expand(4, 32, 32, 3)
    before, after = grid.Side(colours, [0.1] * 4), grid.Side(1 - colours, [0.2] * 4)
    picture = grid.comparison_grid(
        before, after, prompts=["one", "two"], seeds=[3, 4], title="t", summary=[("Reward", "1 to 2", "good")]
    )
    assert grid.shown_size(32, 32) == (128, 128)
    shown = [drawing.to_picture(image) for image in (*before.images, *after.images)]
    wanted = {image.getpixel((0, 0))[0] for image in shown}
    assert len(wanted) >= 4
    found = {colour[0] for count, colour in picture.getcolors(1 << 20) if count > 8000 and len(set(colour)) == 1}
    assert wanted <= found


@pytest.mark.parametrize(
    ("size", "shown"),
    [((64, 64), (128, 128)), ((100, 50), (200, 100)), ((128, 96), (128, 96)), ((1024, 512), (256, 128))],
)
def test_shown_size(size, shown):
    assert grid.shown_size(*size) == shown


def test_images_survive_the_way_to_a_picture_and_back():
    values = torch.randint(0, 256, (8, 8, 3)) / 255
    back = drawing.to_tensor(drawing.to_picture(values))
    assert back.shape == (1, 8, 8, 3)
    assert torch.allclose(back[0], values, atol=1e-6)
    assert isinstance(drawing.to_picture(values), Image.Image)


def test_folder_that_cannot_be_written_is_known_before_training(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AttuneError, match="could not be saved"):
        check_writable(tmp_path / "file" / "folder")
