"""Combined rewards: formulas against closed forms, gradients, costs, identity, words, and what they pass on."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from attune.nodes.rewards import cache
from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.calibration import CalibratedReward, Calibration
from attune.nodes.rewards.combine import MODES, CombineConfig, CombinedReward, combine
from attune.nodes.rewards.pictures import content_hashes
from attune.nodes.rewards.statistics import StatisticReward
from attune.training.interfaces import Reward, RewardContext, RewardError
from attune.training.presentable import compares_batch

# Mean 4, sample deviation √(60/8) of 0 … 8.
REFERENCE = [float(number) for number in range(9)]
DEVIATION = math.sqrt(7.5)


class Given:
    """A reward that reads its score from a channel of the first pixel: picture = score."""

    differentiable = True

    def __init__(self, channel: int, name: str, *, higher_is_better: bool = True, **attributes: object) -> None:
        self.channel, self.name, self.higher_is_better = channel, name, higher_is_better
        self.reward_id = f"given:{name}"
        self.contexts: list[RewardContext | None] = []
        self.calls = 0
        vars(self).update(attributes)

    def __call__(self, images, prompts, context=None):
        self.contexts.append(context)
        self.calls += 1
        return images[:, 0, 0, self.channel]


def calibrated(channel: int, name: str, scores=REFERENCE, **attributes) -> CalibratedReward:
    reward = Given(channel, name, **attributes)
    return CalibratedReward(reward, Calibration.of(reward.reward_id, "default", scores))


def pictures(*rows: tuple[float, ...]) -> torch.Tensor:
    """One-pixel pictures whose channels are the scores."""
    return torch.tensor(rows)[:, None, None, :]


A, B, C = (0, "A"), (1, "B"), (2, "C")
IMAGES = pictures((4.0, 8.0, 0.0), (0.0, 4.0, 8.0))
Z = [[0.0, 4 / DEVIATION, -4 / DEVIATION], [-4 / DEVIATION, 0.0, 4 / DEVIATION]]


def phi(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def score(rewards, images=IMAGES, **config) -> list[float]:
    return CombinedReward(rewards, CombineConfig(**config))(images, [""] * len(images)).tolist()


def test_weighted_sum_of_z_scores():
    rewards = [calibrated(*A), calibrated(*B), calibrated(*C)]
    expected = [(2 * a + b - c) / 4 for a, b, c in Z]
    assert score(rewards, weights=(2.0, 1.0, -1.0)) == pytest.approx(expected)
    assert score(rewards, weights=(1.0, 0.5, -0.5)) == pytest.approx(expected), "only proportions matter"
    assert score(rewards, weights=(0.0, 3.0, 0.0)) == pytest.approx([b for _, b, _ in Z])


def test_minimum_and_product():
    rewards = [calibrated(*A), calibrated(*B), calibrated(*C)]
    assert score(rewards, mode="minimum") == pytest.approx([min(z) for z in Z])
    expected = [phi(a) ** 0.5 * phi(b) ** 0.25 * phi(c) ** 0.25 for a, b, c in Z]
    assert score(rewards, mode="product", weights=(2.0, 1.0, 1.0)) == pytest.approx(expected)


def test_constrained():
    """b and c must reach 0.5 deviations: what is missing costs 10 deviations of a each."""
    rewards = [calibrated(*A), calibrated(*B), calibrated(*C)]
    expected = [a - 10 * (max(0, 0.5 - b) + max(0, 0.5 - c)) for a, b, c in Z]
    assert score(rewards, mode="constrained", level=0.5) == pytest.approx(expected)
    met = pictures((3.0, 8.0, 8.0), (7.0, 6.0, 6.0))
    assert score(rewards, met, mode="constrained", level=0.5) == pytest.approx([-1 / DEVIATION, 3 / DEVIATION])


def test_a_level_in_every_unit_is_the_same_level():
    """75 % of 0 … 8 is 6, which is 2/√7.5 deviations above 4."""
    rewards = [calibrated(*A), calibrated(*B)]
    in_percent = score(rewards, mode="constrained", level=75.0, level_unit="percentile")
    assert score(rewards, mode="constrained", level=6.0, level_unit="raw score") == pytest.approx(in_percent)
    assert score(rewards, mode="constrained", level=2 / DEVIATION) == pytest.approx(in_percent)
    assert in_percent == pytest.approx([0.0, -4 / DEVIATION - 10 * 2 / DEVIATION])


def test_raw_scores_need_no_calibration():
    rewards = [Given(*A), Given(*B)]
    assert score(rewards, scale="raw scores", weights=(3.0, 1.0)) == pytest.approx([5.0, 1.0])
    assert score(rewards, scale="raw scores", mode="minimum") == pytest.approx([4.0, 0.0])
    found = score(rewards, scale="raw scores", mode="constrained", level=5.0, level_unit="raw score", penalty=2.0)
    assert found == pytest.approx([4.0, -2.0])


def test_costs_enter_with_their_sign_turned():
    cost = calibrated(*B, higher_is_better=False)
    assert score([calibrated(*A), cost]) == pytest.approx([(a - b) / 2 for a, b, _ in Z])
    assert score([calibrated(*A), cost], mode="minimum") == pytest.approx([min(a, -b) for a, b, _ in Z])
    # At most 6 of the cost is allowed: 8 is 2 too much.
    found = score([Given(*A), Given(*B, higher_is_better=False)], mode="constrained", level=6.0,
                  level_unit="raw score", scale="raw scores")  # fmt: skip
    assert found == pytest.approx([4 - 20.0, 0.0])
    # The best quarter of costs is at most 2: 25 % of 0 … 8.
    found = score([calibrated(*A), cost], mode="constrained", level=75.0, level_unit="percentile")
    assert found == pytest.approx([-10 * 6 / DEVIATION, -4 / DEVIATION - 10 * 2 / DEVIATION])


def test_the_penalty_is_exact():
    """a = t and b = −t on a line: with level −2 the best t is 2 exactly, not near it."""
    line = torch.linspace(-5, 5, 101, dtype=torch.float64)
    found = combine("constrained", [line, -line + 2], (1.0, 1.0), 10.0)
    assert line[found.argmax()].item() == pytest.approx(2)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_by_finite_differences(mode):
    values = [torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    for value in values:
        value.requires_grad_(True)
    weights = (0.5, 0.3, -0.2) if mode == "weighted sum" else (0.5, 0.3, 0.2)
    assert torch.autograd.gradcheck(lambda *parts: combine(mode, parts, weights, 10.0), values)


def test_the_product_has_a_slope_far_out():
    value = torch.tensor([-6.0], dtype=torch.float64, requires_grad=True)
    combine("product", [value, torch.zeros(1, dtype=torch.float64)], (0.5, 0.5), 0.0).backward()
    assert value.grad.item() > 1e-6


@pytest.mark.parametrize("mode", MODES)
def test_gradients_reach_the_pictures(mode):
    """Through real rewards and a cache, against central differences."""
    rewards = []
    for statistic, scores in (("brightness", (0.4, 0.6)), ("warmth", (-0.1, 0.1)), ("contrast", (0.2, 0.3))):
        reward = CachedReward(StatisticReward(statistic), ScoreStore())
        rewards.append(CalibratedReward(reward, Calibration.of(reward.reward_id, "default", scores * 4)))
    combined = CombinedReward(rewards, CombineConfig(mode=mode, level=0.3))
    assert combined.differentiable
    images = torch.rand(2, 3, 3, 3, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    pixels = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(combined(pixels, [""] * 2).sum(), pixels)
    for index in ((0, 1, 2, 0), (1, 0, 0, 2)):
        step = torch.zeros_like(images)
        step[index] = 1e-3
        up, down = (combined(images + sign * step, [""] * 2).double().sum() for sign in (1, -1))
        assert slope[index].item() == pytest.approx(((up - down) / 2e-3).item(), rel=0.02, abs=2e-3)


# ---- what cannot be combined ----


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"mode": "average"}, "no mode 'average'.*weighted sum, minimum, product, constrained"),
        ({"scale": "ranks"}, "no scale 'ranks'"),
        ({"mode": "product", "scale": "raw scores"}, "Set scale to 'z-scores'"),
        ({"mode": "minimum", "weights": (1.0, -1.0)}, "weight of -1.*only a weighted sum"),
        ({"weights": (0.0, 0.0)}, "All weights are 0"),
        ({"mode": "constrained", "weights": (0.0, 1.0)}, "weight_a and at least one other"),
        ({"mode": "constrained", "weights": (1.0, 0.0)}, "weight_a and at least one other"),
        ({"mode": "constrained", "penalty": 0.0}, "penalty must be above 0, not 0"),
        ({"weights": (1.0, math.nan)}, "weight nan is no finite number"),
        ({"weights": (math.inf, 1.0)}, "weight inf is no finite number"),
        ({"mode": "constrained", "penalty": math.nan}, "penalty nan is no finite number"),
        ({"mode": "constrained", "level": math.inf}, "level inf is no finite number"),
        ({"mode": "constrained", "level": 120.0, "level_unit": "percentile"}, "not at 120"),
    ],
)
def test_bad_settings_are_refused(config, says):
    with pytest.raises(RewardError, match=says):
        CombinedReward([calibrated(*A), calibrated(*B)], CombineConfig(**config))


def test_a_reward_without_calibration_is_named():
    with pytest.raises(RewardError, match=r"^B has no calibration.*Put Calibrate Reward between it and this node"):
        CombinedReward([calibrated(*A), Given(*B)], CombineConfig())
    with pytest.raises(RewardError, match=r"^B has no calibration"):
        CombinedReward(
            [Given(*A), Given(*B)], CombineConfig(mode="constrained", scale="raw scores", level_unit="percentile")
        )


# ---- words and identity ----


@pytest.mark.parametrize(
    ("config", "formula"),
    [
        ({"weights": (7.0, 3.0)}, "0.7·z(A) + 0.3·z(Big owl)"),
        ({"weights": (-1.0, -3.0)}, "−0.25·z(A) − 0.75·z(Big owl)"),
        ({"weights": (2.0, 1.0), "scale": "raw scores"}, "0.667·A + 0.333·Big owl"),
        ({"mode": "minimum"}, "min(z(A), z(Big owl))"),
        ({"mode": "product"}, "Φ(z(A))^0.5 · Φ(z(Big owl))^0.5"),
        ({"mode": "constrained", "level": 0.5}, "z(A) − 10·max(0, 0.5 − z(Big owl))"),
        ({"weights": (0.0, 1.0)}, "1·z(Big owl)"),
    ],
)
def test_formulas(config, formula):
    assert CombinedReward([calibrated(*A), calibrated(1, "Big owl")], CombineConfig(**config)).formula == formula


def test_formulas_of_costs_and_of_combinations():
    cost = calibrated(1, "Big cost", higher_is_better=False)
    assert CombinedReward([calibrated(*A), cost], CombineConfig()).formula == "0.5·z(A) + 0.5·z(−(Big cost))"
    inner = CombinedReward([calibrated(*A), calibrated(*B)], CombineConfig(mode="minimum"))
    outer = CalibratedReward(inner, Calibration.of(inner.reward_id, "default", REFERENCE))
    assert CombinedReward([outer, calibrated(*C)], CombineConfig()).formula == "0.5·z(min(z(A), z(B))) + 0.5·z(C)"


def test_identity_changes_with_everything_that_changes_the_score():
    one, two = calibrated(*A), calibrated(*B)
    other = calibrated(*B, scores=[*REFERENCE, 20.0])
    variants = [
        ([one, two], {}),
        ([two, one], {}),
        ([one, two], {"weights": (2.0, 1.0)}),
        ([one, two], {"weights": (1.0, -1.0)}),
        ([one, other], {}),
        ([one, calibrated(*B, scores=[2 * value - 4 for value in REFERENCE])], {}),
        ([one, calibrated(*B, higher_is_better=False)], {}),
        ([one, two], {"scale": "raw scores"}),
        ([one, two], {"mode": "minimum"}),
        ([one, two], {"mode": "product"}),
        ([one, two], {"mode": "constrained"}),
        ([one, two], {"mode": "constrained", "level": 1.0}),
        ([one, two], {"mode": "constrained", "penalty": 5.0}),
    ]
    ids = [CombinedReward(rewards, CombineConfig(**config)).reward_id for rewards, config in variants]
    assert len(set(ids)) == len(ids)
    for again, (rewards, config) in zip(ids, variants, strict=True):
        assert CombinedReward(rewards, CombineConfig(**config)).reward_id == again


def test_identity_ignores_what_does_not_count():
    rewards = [calibrated(*A), calibrated(*B)]
    plain = CombinedReward(rewards, CombineConfig()).reward_id
    for config in ({"weights": (3.0, 3.0)}, {"level": 2.0}, {"penalty": 3.0}):
        assert CombinedReward(rewards, CombineConfig(**config)).reward_id == plain
    lowest = {CombinedReward(rewards, CombineConfig("minimum", w)).reward_id for w in ((1.0, 1.0), (5.0, 1.0))}
    assert len(lowest) == 1


def test_names_are_short_and_tell_the_mode():
    rewards = [calibrated(*A), calibrated(*B), calibrated(*C)]
    names = {mode: CombinedReward(rewards, CombineConfig(mode)).name for mode in MODES}
    assert names == {
        "weighted sum": "A + B + C", "minimum": "Lowest of A, B, C", "product": "A × B × C",
        "constrained": "A, with enough B and C",
    }  # fmt: skip
    assert CombinedReward(rewards, CombineConfig(weights=(1.0, -1.0, 0.0))).name == "A − B"


# ---- what it passes on ----


def test_attributes_are_those_of_the_parts():
    patchers = [object(), object()]
    plain, rich = calibrated(*A), calibrated(*B, patchers=(patchers[0], None), uses_prompt=True, contextual=True)
    blunt = calibrated(*C, differentiable=False, patchers=(patchers[0], patchers[1]), image_features=len)
    quiet = CombinedReward([plain, calibrated(*B)], CombineConfig())
    assert isinstance(quiet, Reward)
    assert (quiet.differentiable, quiet.uses_prompt, quiet.contextual, quiet.patchers) == (True, False, False, ())
    assert quiet.higher_is_better and not hasattr(quiet, "image_features")
    loud = CombinedReward([plain, rich, blunt], CombineConfig())
    assert (loud.differentiable, loud.uses_prompt, loud.contextual) == (False, True, True)
    assert loud.patchers == tuple(patchers) and loud.image_features is len
    without = CombinedReward([plain, rich, blunt], CombineConfig(weights=(1.0, 1.0, 0.0)))
    assert without.differentiable


def test_context_reaches_every_part_and_a_part_left_out_is_not_asked():
    parts = [calibrated(*channel) for channel in (A, B, C)]
    context = RewardContext(previous=[IMAGES])
    CombinedReward(parts, CombineConfig(weights=(1.0, 0.0, 2.0)))(IMAGES, ["", ""], context)
    assert [part.reward.contexts for part in parts] == [[context], [], [context]]


def test_earlier_rounds_do_not_make_a_remembered_part_compute_anew():
    """As CLIP beside consistency: what does not look at earlier rounds is asked once, and never shown them."""
    plain = Given(*A)
    rounds = Given(*B, contextual=True, needs_previous=True)
    other = Given(*C)
    store = ScoreStore()
    combined = CombinedReward([CachedReward(one, store) for one in (plain, rounds, other)],
                              CombineConfig(scale="raw scores"))  # fmt: skip
    contexts = [RewardContext(previous=[IMAGES]), None, RewardContext(previous=[IMAGES, IMAGES])]
    for context in contexts:
        combined(IMAGES, ["", ""], context)
    assert (plain.calls, plain.contexts) == (1, [None])
    assert rounds.contexts == contexts
    extra = {"mood": "calm"}
    CachedReward(plain, store)(IMAGES, ["", ""], RewardContext([IMAGES], extra))
    assert plain.contexts[1:] == [RewardContext(extra=extra)], (
        "what a reward documents itself is handed on, and not kept"
    )
    assert len(store) == 2 * len(IMAGES)


@pytest.mark.parametrize("attribute", ["compares_batch", "needs_previous"])
def test_a_combination_is_what_any_part_is(attribute):
    rewards = [calibrated(*A), calibrated(*B, **{attribute: True})]
    assert getattr(CombinedReward(rewards, CombineConfig()), attribute) is True
    assert getattr(CombinedReward(rewards, CombineConfig(weights=(1.0, 0.0))), attribute) is False


def test_a_gate_belongs_behind_the_combination():
    """In front of one part, it would leave the other parts to score unsafe pictures."""
    for rewards in ([calibrated(*A), calibrated(*B, gated=True)], [calibrated(*A, gated=True), calibrated(*B)]):
        with pytest.raises(RewardError, match="Safety Gate behind this node"):
            CombinedReward(rewards, CombineConfig())


def test_a_combination_with_consistency_takes_pictures_of_any_size():
    rounds = calibrated(*B, contextual=True, compares_batch=False)
    combined = CombinedReward([calibrated(*A), rounds], CombineConfig())
    assert combined.contextual and not compares_batch(combined)


def test_a_part_that_fails_is_named():
    bad = calibrated(*B)
    with pytest.raises(RewardError, match="B returned nan for image 2"):
        score([calibrated(*A), bad], pictures((1.0, 1.0, 0.0), (1.0, math.nan, 0.0)))


def test_scoring_again_costs_no_forward_pass_and_one_hash(monkeypatch):
    hashed = []
    monkeypatch.setattr(cache, "content_hashes", lambda batch: hashed.append(1) or content_hashes(batch))
    bare = [Given(*channel) for channel in (A, B)]
    rewards = [
        CalibratedReward(CachedReward(one, ScoreStore()), Calibration.of(one.reward_id, "default", REFERENCE))
        for one in bare
    ]
    first, again = (score(rewards, weights=weights) for weights in ((1.0, 1.0), (2.0, 2.0)))
    assert first == again
    assert [one.calls for one in bare] == [1, 1]
    assert [reward.hits for reward in rewards] == [2, 2]
    assert len(hashed) == 2


def test_order_of_pictures_does_not_depend_on_the_unit_of_a_reward():
    """The point of z-scores: a reward measured in thousandths counts as much as before."""
    images = torch.rand(20, 1, 1, 3, generator=torch.Generator().manual_seed(4)) * 8
    orders = []
    for unit in (1.0, 0.001):

        class Scaled(Given):
            def __call__(self, images, prompts, context=None, unit=unit):
                return unit * super().__call__(images, prompts, context)

        second = Scaled(1, "B")
        found = Calibration.of(second.reward_id, "default", [unit * value for value in REFERENCE])
        combined = CombinedReward([calibrated(*A), CalibratedReward(second, found)], CombineConfig())
        orders.append(combined(images, [""] * 20).argsort().tolist())
    assert orders[0] == orders[1]


def test_every_pair_of_modes_and_scales_is_defined_or_refused():
    rewards = [calibrated(*A), calibrated(*B)]
    for mode, scale in itertools.product(MODES, ("z-scores", "raw scores")):
        if (mode, scale) == ("product", "raw scores"):
            continue
        found = CombinedReward(rewards, CombineConfig(mode, scale=scale))(IMAGES, ["", ""])
        assert found.shape == (2,) and torch.isfinite(found).all()


def test_a_lora_says_by_which_formula_it_was_trained():
    from attune.nodes.training.records import reward_record

    combined = CombinedReward([calibrated(*A), calibrated(*B)], CombineConfig())
    plan = SimpleNamespace(reward=combined)
    assert reward_record(plan) == {"reward": "0.5·z(A) + 0.5·z(B)", "reward_id": combined.reward_id}
    assert reward_record(SimpleNamespace(reward=Given(*A))) == {"reward": "A", "reward_id": "given:A"}
    assert reward_record(SimpleNamespace()) == {}
