"""Training a reward on preference pairs: the loss, what is trained, resume, Cancel, early stop, and bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.rewards.vlm_training import accuracy_interval, held_out_lines
from attune.tests.tiny_vlm import write_tiny_vlm
from attune.training import preference_job
from attune.training.__main__ import main as training_job
from attune.training.interfaces import RewardError, RunCallbacks, TrainingError
from attune.training.preference_pairs import (
    MINIMUM_PAIRS,
    Pair,
    check_pairs,
    data_digest,
    make_pairs,
    opened,
    plain,
    read_pairs,
    split_by_prompt,
)
from attune.training.preference_reward import (
    HeldOut,
    PreferenceConfig,
    PreferenceObjective,
    PreferenceResult,
    measure,
    preference_loss,
    train_reward,
)
from attune.training.vlm_base import load_base
from attune.training.vlm_reward import RewardAdapters, VlmScorer, load_trained, to_picture

PROMPTS = ("a cat", "a dog", "a rose", "a fox", "a house")
CONFIG = PreferenceConfig(steps=6, learning_rate=3e-3, rank=2, pairs_per_step=2, evaluate_every=2, warmup_steps=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm") / "tiny")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Bright pictures are preferred to dark ones."""
    generator = torch.Generator().manual_seed(0)

    def picture(low: float) -> torch.Tensor:
        return torch.rand(32, 32, 3, generator=generator) / 2 + low

    return [Pair(prompt, picture(0.5), picture(0.0)) for prompt in PROMPTS for _ in range(4)]


def fresh(folder: Path, config: PreferenceConfig, precision: str = "fp32") -> tuple[VlmScorer, RewardAdapters]:
    scorer = VlmScorer(load_base(folder, precision=precision), seed=config.seed)
    return scorer, RewardAdapters(scorer, config.lora(), layers=config.layers)


def changed(config: PreferenceConfig, **values: object) -> PreferenceConfig:
    return replace(config, **values)


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_loss_in_closed_form():
    """−log σ(d): d = 0 gives log 2; d = log 3 gives −log ¾; d = −log 3 gives −log ¼; a large d neither overflows."""
    three = math.log(3)
    chosen = torch.tensor([1.0, three, 0.0, 100.0, -100.0], dtype=torch.float64)
    rejected = torch.tensor([1.0, 0.0, three, 0.0, 0.0], dtype=torch.float64)
    expected = torch.tensor([math.log(2), -math.log(0.75), -math.log(0.25), 0.0, 100.0], dtype=torch.float64)
    assert torch.allclose(preference_loss(chosen, rejected), expected)


def test_gradient_of_the_loss():
    """d loss / d chosen = −(1 − σ(d)) = −d loss / d rejected, in float64 by finite differences too."""
    chosen = torch.tensor([0.3, -1.2], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.1, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(preference_loss, (chosen, rejected))
    preference_loss(chosen, rejected).sum().backward()
    expected = torch.sigmoid(chosen - rejected).detach() - 1
    assert torch.allclose(chosen.grad, expected)
    assert torch.allclose(rejected.grad, -expected)


# ---- what is trained -------------------------------------------------------------------------------------------------


def test_only_adapters_and_head_move(folder, pairs):
    scorer, adapters = fresh(folder, CONFIG)
    own = {id(p) for p in adapters.named_parameters().values()}
    base = {name: p.detach().clone() for name, p in scorer.body.named_parameters() if id(p) not in own}
    start = adapters.tensors()
    result = train_reward(scorer, adapters, pairs, CONFIG)
    assert result.status == "finished"
    assert [row["step"] for row in result.history] == list(range(1, 7))
    after = dict(scorer.body.named_parameters())
    assert len(base) > 50
    assert all(torch.equal(after[name], value) for name, value in base.items())
    assert all(after[name].grad is None for name in base)
    moved = [name for name, value in adapters.tensors().items() if not torch.equal(value, start[name])]
    # Every `up` and `down` of the language model's 14 layers, w, and b, which was centred afterwards.
    assert sorted(moved) == sorted(start)


@pytest.mark.parametrize("precision", ["fp32", "nf4", "bf16", "fp16"])
def test_it_learns_what_is_preferred_on_unseen_prompts(folder, pairs, precision):
    config = changed(CONFIG, steps=20, pairs_per_step=4, evaluate_every=10)
    scorer, adapters = fresh(folder, config, precision)
    result = train_reward(scorer, adapters, pairs, config)
    assert (result.pairs, result.held_out_pairs) == (16, 4)
    assert [found.step for found in result.measured] == [0, 10, 20]
    assert result.measured[0].accuracy < 1.0
    assert result.best.accuracy == 1.0
    assert result.history[-1]["loss"] < result.history[0]["loss"] / 10
    assert result.history[-1]["margin"] > 2
    assert result.peak_memory > 100e6
    # What is kept scores as it did when it was measured, but for the zero, which lies amidst the held-out pictures.
    _, held_out = split_by_prompt(pairs, config.held_out, seed=config.seed)
    kept = measure(scorer, held_out)
    assert kept.margin == pytest.approx(result.best.margin, abs=1e-3)
    assert kept.centre == pytest.approx(0, abs=1e-3)


def test_held_out_figures_come_every_n_updates(folder, pairs):
    scorer, adapters = fresh(folder, CONFIG)
    seen: dict[int, set[str]] = {}

    class Callbacks(RunCallbacks):
        def on_report(self, step: int, metrics: dict) -> None:
            seen[step] = set(metrics)

    train_reward(scorer, adapters, pairs, CONFIG, callbacks=Callbacks())
    figures = {"held_out_accuracy", "held_out_loss", "held_out_margin"}
    assert [step for step, names in seen.items() if figures <= names] == [1, 3, 5]
    assert all({"loss", "accuracy", "margin", "learning_rate", "gradient_norm"} <= names for names in seen.values())


def turned(pairs: Sequence[Pair], config: PreferenceConfig) -> list[Pair]:
    """The held-out prompt's preferences are turned round: the more is learned, the worse they are predicted."""
    measured = {pair.prompt for pair in split_by_prompt(pairs, config.held_out, seed=config.seed)[1]}
    return [Pair(p.prompt, p.rejected, p.chosen) if p.prompt in measured else p for p in pairs]


def test_the_best_weights_are_kept_and_training_stops_when_nothing_better_comes(folder, pairs):
    """The untrained weights are better than all that follow, but random: they are measured, and never kept."""
    config = changed(CONFIG, steps=40, patience=2)
    scorer, adapters = fresh(folder, config)
    after: dict[int, dict[str, torch.Tensor]] = {}

    class Callbacks(RunCallbacks):
        def on_report(self, step: int, metrics: dict) -> None:
            after[step] = adapters.tensors()

    result = train_reward(scorer, adapters, turned(pairs, config), config, callbacks=Callbacks())
    assert result.status == "stopped early"
    assert [found.step for found in result.measured] == [0, 2, 4, 6]
    assert result.before.accuracy > result.best.accuracy or result.before.loss < result.best.loss
    assert (result.best.step, result.steps_done, result.candidates) == (2, 6, 3)
    assert [row["step"] for row in result.history] == [1, 2, 3, 4, 5, 6]
    expected = after[2] | {"head.bias": after[2]["head.bias"] - result.best.centre}
    assert all(torch.equal(value, expected[name]) for name, value in adapters.tensors().items())
    figures = result.metrics()
    assert (figures["held_out_accuracy_untrained"], figures["best_of_measurements"]) == (result.before.accuracy, 3)


def test_a_run_that_ends_before_it_is_measured_again_keeps_its_last_weights(folder, pairs):
    scorer, adapters = fresh(folder, CONFIG)
    start = adapters.tensors()
    result = train_reward(scorer, adapters, pairs, CONFIG, callbacks=Stopping(1))
    assert (result.status, result.best, result.candidates) == ("stopped", None, 0)
    assert not torch.equal(adapters.tensors()["head.weight"], start["head.weight"])


def test_the_report_says_how_sure_the_accuracy_is():
    def measured(*figures: tuple[int, float]) -> list[HeldOut]:
        return [HeldOut(step, accuracy, 0.5, 1.0, 0.0) for step, accuracy in figures]

    def lines(count: int, found: list[HeldOut]) -> str:
        result = PreferenceResult("finished", [], found, found[-1], 40, 100, count, 1.0, 0)
        return "\n".join(held_out_lines(result, found[-1]))

    # Wilson's interval of 8 of 10: 49.0 … 94.3 %; of 80 of 100: 71.1 … 86.7 %.
    assert accuracy_interval(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert accuracy_interval(0.8, 100) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert accuracy_interval(1.0, 4)[1] == 1 and accuracy_interval(0.0, 4)[0] == 0
    few = lines(10, measured((0, 0.55), (20, 0.7), (40, 0.8)))
    assert "**80.0%** of 10 (chance: 50 %)" in few and "between 49% and 94%" in few
    assert "Before training: 55.0%" in few and "best of 2 measurements" in few
    assert "Only 10 held-out pairs" in few and "may be guessing" in few
    many = lines(100, measured((0, 0.5), (40, 0.8)))
    assert not any(words in many for words in ("Only", "guessing", "best of"))


def test_accumulation_equals_a_larger_batch(folder, pairs):
    learned = changed(CONFIG, held_out=0.0, steps=1, schedule="constant", warmup_steps=0)
    results = []
    for config in (changed(learned, pairs_per_step=4), changed(learned, pairs_per_step=2, accumulation=2)):
        scorer, adapters = fresh(folder, config)
        result = train_reward(scorer, adapters, pairs, config)
        results.append((result.history[0]["loss"], result.history[0]["gradient_norm"]))
    assert results[0] == pytest.approx(results[1], rel=1e-4)


def test_without_a_held_out_part_the_last_weights_are_kept(folder, pairs):
    config = changed(CONFIG, held_out=0.0)
    scorer, adapters = fresh(folder, config)
    result = train_reward(scorer, adapters, pairs, config)
    assert (result.pairs, result.held_out_pairs, result.best) == (20, 0, None)
    assert adapters.tensors()["head.bias"].item() == 0


# ---- resume and Cancel -----------------------------------------------------------------------------------------------


class Stopping(RunCallbacks):
    """Stops, or raises as the host's Cancel does, after some updates."""

    def __init__(self, after: int, *, raising: bool = False) -> None:
        self.after, self.raising, self.done = after, raising, 0

    def on_report(self, step: int, metrics: dict) -> None:
        self.done = step
        if self.raising and step == self.after:
            raise KeyboardInterrupt

    def should_stop(self) -> bool:
        return not self.raising and self.done >= self.after


@pytest.mark.parametrize("after", [1, 2, 3, 5])
@pytest.mark.parametrize("raising", [False, True])
def test_resume_equals_an_uninterrupted_run_bit_for_bit(folder, pairs, tmp_path, after, raising):
    config = changed(CONFIG, dropout=0.2)
    scorer, adapters = fresh(folder, config)
    whole = train_reward(scorer, adapters, pairs, config)
    expected = adapters.tensors()

    scorer, adapters = fresh(folder, config)
    kept: list[PreferenceResult] = []
    stopping = Stopping(after, raising=raising)

    def first() -> PreferenceResult:
        return train_reward(scorer, adapters, pairs, config, callbacks=stopping, run_folder=tmp_path / "run",
                            on_break=kept.append)  # fmt: skip

    if raising:
        with pytest.raises(KeyboardInterrupt):
            first()
        assert [found.steps_done for found in kept] == [after]
    else:
        assert first().status == "stopped"
    scorer, adapters = fresh(folder, config)
    resumed = train_reward(scorer, adapters, pairs, config, run_folder=tmp_path / "run")
    assert resumed.history == whole.history
    assert resumed.measured == whole.measured
    found = adapters.tensors()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_best_weights_so_far_survive_a_stop(folder, pairs, tmp_path):
    data = turned(pairs, CONFIG)
    scorer, adapters = fresh(folder, CONFIG)
    stopped = train_reward(scorer, adapters, data, CONFIG, callbacks=Stopping(3), run_folder=tmp_path)
    assert (stopped.status, stopped.best.step) == ("stopped", 2)
    kept = adapters.tensors()
    scorer, adapters = fresh(folder, CONFIG)
    resumed = train_reward(scorer, adapters, data, CONFIG, run_folder=tmp_path)
    assert (resumed.status, resumed.best.step, resumed.candidates) == ("finished", 2, 3)
    found = adapters.tensors()
    assert all(torch.equal(found[name], value) for name, value in kept.items())


def test_a_finished_run_is_only_loaded(folder, pairs, tmp_path):
    scorer, adapters = fresh(folder, CONFIG)
    first = train_reward(scorer, adapters, pairs, CONFIG, run_folder=tmp_path)
    expected = adapters.tensors()
    scorer, adapters = fresh(folder, CONFIG)
    counted = Stopping(0, raising=True)
    second = train_reward(scorer, adapters, pairs, CONFIG, run_folder=tmp_path, callbacks=counted)
    assert counted.done == 0
    assert second.measured == first.measured
    assert all(torch.equal(value, expected[name]) for name, value in adapters.tensors().items())


def test_another_run_is_not_resumed(folder, pairs, tmp_path):
    scorer, adapters = fresh(folder, CONFIG)
    train_reward(scorer, adapters, pairs, CONFIG, run_folder=tmp_path)
    for config, data, precision, says in (
        (changed(CONFIG, rank=4), pairs, "fp32", "rank"),
        (changed(CONFIG, held_out=0.4), pairs, "fp32", "held_out"),
        (CONFIG, pairs[:16], "fp32", "data other than now"),
        (CONFIG, pairs, "nf4", "weights = 'fp32'"),
    ):
        scorer, adapters = fresh(folder, config, precision)
        with pytest.raises(TrainingError, match=says):
            train_reward(scorer, adapters, data, config, run_folder=tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(folder, pairs):
    scorer, adapters = fresh(folder, CONFIG)
    with torch.no_grad():
        scorer.head.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match="loss became nan"):
        train_reward(scorer, adapters, pairs, changed(CONFIG, held_out=0.0))


def test_state_of_the_objective_survives(folder, pairs):
    config = changed(CONFIG, pairs_per_step=3)
    _, adapters = fresh(folder, config)
    generator = torch.Generator().manual_seed(3)
    first = PreferenceObjective(pairs[:8], pairs[8:], config)
    first.prepare(adapters)
    drawn = [first._draw(generator) for _ in range(2)]
    # Each shuffled order is used without repeats, and a remainder that is too small is left out.
    assert len({index for part in drawn for index in part}) == 6
    second = PreferenceObjective(pairs[:8], pairs[8:], config)
    second.load_state_dict(first.state_dict())
    state = generator.get_state()
    rest = [first._draw(generator) for _ in range(4)]
    generator.set_state(state)
    assert [second._draw(generator) for _ in range(4)] == rest


# ---- pairs -----------------------------------------------------------------------------------------------------------


def test_no_prompt_is_on_both_sides(pairs):
    doubled = [Pair(p.prompt.upper() + "  ", p.chosen, p.rejected) for p in pairs] + list(pairs)
    for seed in range(10):
        learned, held_out = split_by_prompt(doubled, 0.3, seed=seed)
        assert len(learned) + len(held_out) == len(doubled)
        assert not {plain(p.prompt) for p in learned} & {plain(p.prompt) for p in held_out}
        assert len(held_out) == 16
    sides = {tuple(p.prompt for p in split_by_prompt(pairs, 0.2, seed=seed)[1]) for seed in range(20)}
    assert len(sides) > 1
    learned, held_out = split_by_prompt(pairs[:8], 0.9, seed=0)
    assert (len(learned), len(held_out)) == (4, 4)


def test_pairs_of_one_prompt_cannot_be_held_out(pairs):
    same = [Pair("a cat", p.chosen, p.rejected) for p in pairs]
    with pytest.raises(TrainingError, match="All pairs have the same prompt"):
        split_by_prompt(same, 0.2, seed=0)
    assert split_by_prompt(same, 0.0, seed=0) == (same, [])


def test_bad_pairs_are_refused_and_nothing_changes(folder, pairs, tmp_path):
    scorer, adapters = fresh(folder, CONFIG)
    start = adapters.tensors()
    with pytest.raises(TrainingError, match=f"There are 3 preference pairs; training needs at least {MINIMUM_PAIRS}"):
        train_reward(scorer, adapters, pairs[:3], CONFIG, run_folder=tmp_path / "run")
    empty = [*pairs[:8], Pair(" ", pairs[0].chosen, pairs[0].rejected)]
    with pytest.raises(TrainingError, match="prompt of pair 9 is empty"):
        train_reward(scorer, adapters, empty, CONFIG, run_folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert all(torch.equal(value, start[name]) for name, value in adapters.tensors().items())
    chosen, rejected = [p.chosen for p in pairs], [p.rejected for p in pairs]
    prompts = [p.prompt for p in pairs]
    with pytest.raises(TrainingError, match="20 chosen, 19 rejected and 20 prompts"):
        make_pairs(prompts, chosen, rejected[1:])
    with pytest.raises(TrainingError, match="Pair 1 has the same picture"):
        make_pairs(prompts, chosen, chosen)
    assert len(make_pairs(prompts, chosen, rejected)) == 20


def write_pairs(folder: Path, pairs: Sequence[Pair], **changes: object) -> Path:
    lines = []
    for index, pair in enumerate(pairs):
        entry = {"prompt": pair.prompt}
        for side in ("chosen", "rejected"):
            entry[side] = f"{index}_{side}.png"
            pixels = (getattr(pair, side) * 255).round().to(torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / entry[side])
        lines.append(json.dumps(entry | (changes if index == 2 else {})))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return folder / "pairs.jsonl"


def test_pairs_from_a_file_train_as_those_in_memory(folder, pairs, tmp_path):
    found = read_pairs(write_pairs(tmp_path, pairs))
    assert [pair.prompt for pair in found] == [pair.prompt for pair in pairs]
    losses = []
    for data in (pairs, found):
        scorer, adapters = fresh(folder, CONFIG)
        losses.append([row["loss"] for row in train_reward(scorer, adapters, data, CONFIG).history])
    assert losses[0] == losses[1]


def test_only_line_ends_end_a_line(pairs, tmp_path):
    file = write_pairs(tmp_path, pairs)
    content = file.read_text(encoding="utf-8").replace("a cat", "a\u2028cat\x85").replace("\n", "\r\n")
    file.write_text(content, encoding="utf-8", newline="")
    assert read_pairs(file)[0].prompt == "a\u2028cat\x85"


def test_half_a_character_in_a_prompt_is_refused(pairs):
    with pytest.raises(TrainingError, match="prompt of pair 9 holds half of a character"):
        check_pairs([*pairs[:8], Pair("a \ud800", pairs[0].chosen, pairs[0].rejected)])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"chosen": "../outside.png"}, r"line 3: '\.\./outside\.png' leads out of"),
        ({"chosen": "gone.png"}, r"line 3: there is no picture 'gone\.png'"),
        ({"rejected": 5}, "line 3: prompt, chosen, rejected .*must be texts"),
        ({"chosen": "a\0b.png"}, "line 3: .*cannot be the name of a picture"),
        ({"chosen": "a" * 5000}, "line 3: 'a{100}…' (cannot be the name of|in)|line 3: there is no picture 'a{100}…'"),
        ({"chosen": "\ud800.png"}, r"line 3 holds half of a character"),
        ({"prompt": "a \udc00"}, r"line 3 holds half of a character"),
    ],
)
def test_a_bad_line_is_named(pairs, tmp_path, changes, says):
    Image.new("RGB", (4, 4)).save(tmp_path.parent / "outside.png")
    with pytest.raises(TrainingError, match=says):
        read_pairs(write_pairs(tmp_path, pairs, **changes))


def test_lines_that_are_no_pairs(pairs, tmp_path):
    file = write_pairs(tmp_path, pairs)
    file.write_text('{"prompt": "x"}\n', encoding="utf-8")
    with pytest.raises(TrainingError, match="line 1 is not"):
        read_pairs(file)
    for nothing in ("not json\n", "[" * 200_000):
        file.write_text(nothing, encoding="utf-8")
        with pytest.raises(TrainingError, match="line 1 is not"):
            read_pairs(file)
    with pytest.raises(TrainingError, match="cannot be read"):
        read_pairs(tmp_path / "gone.jsonl")


def test_a_picture_that_cannot_be_read_stops_with_its_name(folder, pairs, tmp_path):
    found = read_pairs(write_pairs(tmp_path, pairs))
    (tmp_path / "7_chosen.png").write_bytes(b"not a picture")
    scorer, adapters = fresh(folder, CONFIG)
    with pytest.raises(TrainingError, match=r"7_chosen\.png is not a readable picture"):
        train_reward(scorer, adapters, found, changed(CONFIG, held_out=0.0, pairs_per_step=20))


@pytest.mark.parametrize(("orientation", "lit"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_a_picture_is_turned_as_its_camera_says(tmp_path, orientation, lit):
    """One white pixel at the top left of the stored picture; 6: shown turned right; 8: turned left."""
    pixels = torch.zeros(3, 5, 3, dtype=torch.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels.numpy()).save(tmp_path / "turned.png", exif=exif)
    found = torch.from_numpy(np.array(to_picture(opened(tmp_path / "turned.png"))))
    assert tuple(found.shape[:2]) == ((3, 5) if orientation < 5 else (5, 3))
    assert found[lit].tolist() == [255] * 3 and int(found.sum()) == 765


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_picture_is_refused(folder, pairs, value):
    bad = pairs[0].chosen.clone()
    bad[3, 4, 1] = value
    scorer, _ = fresh(folder, CONFIG)
    with pytest.raises(RewardError, match=r"not finite.*Lower the learning rate or check the node"):
        scorer.encode([bad], ["a cat"])


def test_the_digest_sees_prompts_pictures_and_order(pairs, tmp_path):
    swapped = [Pair(pairs[0].prompt, pairs[0].rejected, pairs[0].chosen), *pairs[1:]]
    renamed = [Pair("other", pairs[0].chosen, pairs[0].rejected), *pairs[1:]]
    digests = {
        data_digest(data) for data in (pairs, swapped, renamed, pairs[::-1], read_pairs(write_pairs(tmp_path, pairs)))
    }
    assert len(digests) == 5
    assert data_digest(pairs) == data_digest([Pair(p.prompt, p.chosen.clone(), p.rejected.clone()) for p in pairs])


# ---- the job ---------------------------------------------------------------------------------------------------------


def job(folder: Path, tmp_path: Path, *words: str) -> list[str]:
    files = [
        "--model",
        str(folder),
        "--pairs",
        str(tmp_path / "pairs.jsonl"),
        "--output",
        str(tmp_path / "t.safetensors"),
    ]
    knobs = (
        "--precision fp32 --device cpu --learning-rate 0.003 --rank 2 --pairs-per-step 2 --steps 6 --evaluate-every 2"
    )
    return [*files, *knobs.split(), "--warmup-steps", "1", *words]


def test_every_option_takes_what_its_setting_takes(tmp_path):
    words = job(tmp_path, tmp_path, "--checkpoint-seconds", "0.5", "--layers", "language and vision", "--steps", "7")
    options = preference_job.parser().parse_args(words)
    assert (options.checkpoint_seconds, options.layers, options.steps) == (0.5, "language and vision", 7)
    with pytest.raises(SystemExit):
        preference_job.parser().parse_args(job(tmp_path, tmp_path, "--steps", "7.5"))


def test_the_job_trains_as_the_function_does(folder, pairs, tmp_path, capsys):
    write_pairs(tmp_path, pairs)
    assert training_job(["reward-model", *job(folder, tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "update 1/6" in said
    assert "held-out pairs before it" in said
    scorer, adapters = fresh(folder, CONFIG)
    train_reward(scorer, adapters, pairs, CONFIG)
    found = load_trained(tmp_path / "t.safetensors")
    assert found.name == "t"
    assert found.metrics["steps"] == 6
    assert all(torch.equal(found.tensors[name], value) for name, value in adapters.tensors().items())


def test_an_interrupted_job_goes_on_with_the_same_command(folder, pairs, tmp_path, monkeypatch, capsys):
    write_pairs(tmp_path, pairs)
    assert training_job(["reward-model", *job(folder, tmp_path, "--state", str(tmp_path / "whole"))]) == 0
    whole = load_trained(tmp_path / "t.safetensors")
    (tmp_path / "t.safetensors").unlink()
    calls = []

    def interrupting(self: object, step: int, metrics: dict) -> None:
        calls.append(step)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(preference_job._Lines, "on_report", interrupting)
    assert training_job(["reward-model", *job(folder, tmp_path)]) == 130
    assert "the same command goes on" in capsys.readouterr().out
    assert not (tmp_path / "t.safetensors").exists()
    assert training_job(["reward-model", *job(folder, tmp_path)]) == 0
    assert calls == [1, 2, 3, 4, 5, 6]
    found = load_trained(tmp_path / "t.safetensors")
    assert all(torch.equal(found.tensors[name], value) for name, value in whole.tensors.items())


def test_the_job_says_what_is_wrong_without_a_traceback(folder, pairs, tmp_path, capsys):
    write_pairs(tmp_path, pairs, chosen="gone.png")
    assert training_job(["reward-model", *job(folder, tmp_path)]) == 1
    assert "there is no picture 'gone.png'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        training_job(["reward-model", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    assert all(f"--{field.name.replace('_', '-')}" in said for field in fields(PreferenceConfig))


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"pairs_per_step": 0}, "pairs_per_step must be a whole number of at least 1, not 0"),
        ({"held_out": 1.0}, "held_out must be between 0"),
        ({"held_out": True}, "held_out must be between 0"),
        ({"evaluate_every": 0}, "evaluate_every"),
        ({"patience": -1}, "patience"),
        ({"layers": "vision"}, "layers must be one of"),
        ({"rank": 0}, "LoRA rank"),
        ({"steps": 0}, "steps must be"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"schedule": "step"}, "schedule"),
    ],
)
def test_settings_are_checked_at_the_door(values, says):
    with pytest.raises(TrainingError, match=says):
        PreferenceConfig(**values)
