"""Weights over rounds: the rule in numbers, rewards it does not know, blends, fixed settings."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.dynamic_weights import (
    RULES,
    WeightsConfig,
    by_rule,
    chance_of_new_noise,
    lambda_div,
    weigh,
)
from attune.nodes.refinement.gradient_weights import gram_of
from attune.nodes.refinement.learned_weights import Choice, learn
from attune.nodes.refinement.records import Weights

THREE = {"Diversity": "diversity", "Consistency": "consistency", "Relevance": "relevance"}
FOUR = THREE | {"Colourfulness": ""}


@pytest.mark.parametrize("number", [1, 4, 20])
def test_the_rule_in_its_own_numbers(number):
    """e^(−0.15t), 1 − e^(−0.10t), ½(1 − e^(−0.075t))."""
    raw = by_rule(WeightsConfig(normalised=False), THREE, number)
    assert list(raw.values()) == pytest.approx(
        [math.exp(-0.15 * number), 1 - math.exp(-0.1 * number), 0.5 * (1 - math.exp(-0.075 * number))]
    )
    even = by_rule(WeightsConfig(), THREE, number)
    assert list(even.values()) == pytest.approx([weight / sum(raw.values()) for weight in raw.values()])


def test_figures_of_the_first_and_a_late_round():
    """Round 1: .861, .095, .036, sum .992. Round 60: 0, 1, ½ within a hundredth."""
    first = by_rule(WeightsConfig(normalised=False), THREE, 1)
    assert list(first.values()) == pytest.approx([0.8607, 0.0952, 0.0361], abs=1e-4)
    assert list(by_rule(WeightsConfig(normalised=False), THREE, 60).values()) == pytest.approx([0, 1, 0.5], abs=0.01)


def test_time_scale_and_rates():
    fast, slow = WeightsConfig(time_scale=3.0), WeightsConfig()
    assert by_rule(fast, THREE, 2) == pytest.approx(by_rule(slow, THREE, 6))
    assert lambda_div(fast, 2) == pytest.approx(math.exp(-0.9))
    assert lambda_div(WeightsConfig(diversity_rate=0.0), 9) == 1.0


def test_a_reward_without_a_role_keeps_its_share():
    """Of four rewards ¼ in every round; with other_share 0.1 a tenth; the rule divides the rest as ever."""
    for number in (1, 3, 12):
        three = by_rule(WeightsConfig(), THREE, number)
        for share, config in ((0.25, WeightsConfig()), (0.1, WeightsConfig(other_share=0.1))):
            found = by_rule(config, FOUR, number)
            assert found["Colourfulness"] == pytest.approx(share)
            assert {name: found[name] for name in THREE} == pytest.approx(
                {name: (1 - share) * weight for name, weight in three.items()}
            )


def test_a_constant_share_also_of_sums_that_drift():
    for number in (1, 7):
        raw = by_rule(WeightsConfig(normalised=False), FOUR, number)
        assert raw["Colourfulness"] / sum(raw.values()) == pytest.approx(0.25)
        assert raw["Diversity"] == pytest.approx(math.exp(-0.15 * number))


def test_some_roles_or_none():
    two = by_rule(WeightsConfig(), {"Diversity": "diversity", "Fit": "relevance"}, 2)
    assert sum(two.values()) == pytest.approx(1)
    assert two["Diversity"] / two["Fit"] == pytest.approx(math.exp(-0.3) / (0.5 * (1 - math.exp(-0.15))))
    assert by_rule(WeightsConfig(), {"a": "", "b": ""}, 2) == {"a": 0.5, "b": 0.5}
    twice = by_rule(WeightsConfig(normalised=False), {"a": "diversity", "b": "diversity"}, 1)
    assert twice == pytest.approx({"a": math.exp(-0.15) / 2, "b": math.exp(-0.15) / 2})


def test_learned_is_the_blend():
    """20 choices, n₀ = 10: ρ = 2/3 of the learned weights, a third of the rule."""
    choices = [Choice([[0.2, 1.0, -0.3]]), Choice([[-1.0, 0.5, 0.1], [0.3, 0.2, 0.0]])] * 10
    found = weigh(WeightsConfig("learned"), THREE, 3, choices=choices)
    rule, learned = by_rule(WeightsConfig(), THREE, 3), learn(choices, list(THREE)).weights
    assert found.details["share of learned"] == pytest.approx(2 / 3)
    assert found.after == pytest.approx({name: rule[name] / 3 + 2 * learned[name] / 3 for name in THREE})
    assert found.details["choices"] == 20


def test_learned_without_choices_is_the_rule():
    found = weigh(WeightsConfig("learned"), FOUR, 5)
    assert found.after == pytest.approx(by_rule(WeightsConfig(), FOUR, 5))
    assert "agreement" not in found.details


def test_gradients():
    gram = gram_of([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    found = weigh(WeightsConfig("mgda"), THREE, 2, gram=gram)
    assert list(found.after.values()) == pytest.approx([36 / 49, 9 / 49, 4 / 49])
    assert found.details["length"] == pytest.approx(6 / 7)
    before = {"Diversity": 0.5, "Consistency": 0.25, "Relevance": 0.25}
    moved = weigh(WeightsConfig("gradient influence", own_unit=True), THREE, 2, before=before, gram=gram)
    raw = np.array([0.5, 0.25, 0.25]) * np.exp(0.1 * np.array([1, 4, 9]))
    assert list(moved.after.values()) == pytest.approx(list(raw / raw.sum()))
    assert moved.before == before
    unit = weigh(WeightsConfig("gradient influence"), THREE, 2, before=before, gram=gram)
    assert unit.after == pytest.approx(
        weigh(WeightsConfig("gradient influence"), THREE, 2, before=before, gram=9 * gram).after
    )


@pytest.mark.parametrize("rule", ["gradient influence", "mgda"])
def test_without_gradients_the_weights_stay(rule):
    before = {"Diversity": 0.6, "Consistency": 0.1, "Relevance": 0.3}
    assert weigh(WeightsConfig(rule), THREE, 2, before=before).after == before


def test_a_weight_of_zero_can_rise_again():
    before = {"a": 1.0, "b": 0.0}
    config = WeightsConfig("gradient influence", learning_rate=20.0)
    assert weigh(config, {"a": "", "b": ""}, 2, before=before, gram=np.diag([0.0, 1.0])).after["b"] > 0.9


def test_fixed_settings():
    assert weigh(WeightsConfig("fixed equal"), FOUR, 9).after == pytest.approx(dict.fromkeys(FOUR, 0.25))
    assert weigh(WeightsConfig("fixed limit"), THREE, 1).after == pytest.approx(
        {"Diversity": 0, "Consistency": 2 / 3, "Relevance": 1 / 3}
    )
    given = WeightsConfig("fixed", given={"Diversity": 3, "Relevance": 1})
    assert weigh(given, THREE, 1).after == {"Diversity": 0.75, "Consistency": 0, "Relevance": 0.25}


def test_fixed_limit_is_where_the_rule_goes():
    late = by_rule(WeightsConfig(), FOUR, 500)
    assert weigh(WeightsConfig("fixed limit"), FOUR, 1).after == pytest.approx(late, abs=1e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("roles", [THREE, FOUR, {"only": ""}, {"only": "relevance"}])
def test_every_rule_gives_shares_that_can_be_kept(rule, roles):
    names = list(roles)
    choices = [Choice(np.random.default_rng(n).normal(size=(3, len(names)))) for n in range(6)]
    config = WeightsConfig(rule, given={names[0]: 1.0} if rule == "fixed" else {})
    found = weigh(config, roles, 4, choices=choices, gram=np.eye(len(names)))
    assert found.rule == rule
    assert list(found.after) == list(found.before) == names
    assert sum(found.after.values()) == pytest.approx(1)
    assert min(found.after.values()) >= 0
    json.dumps(found.details, allow_nan=False)
    assert found == weigh(config, roles, 4, choices=choices, gram=np.eye(len(names)))


def test_weights_of_other_rewards_are_forgotten():
    assert weigh(WeightsConfig(), THREE, 2, before={"Sharpness": 1.0}).before == pytest.approx(
        dict.fromkeys(THREE, 1 / 3)
    )


def test_bad_input_is_refused():
    for words, run in (
        ("no rule 'best'", lambda: WeightsConfig("best")),
        ("diversity_rate must be at least 0", lambda: WeightsConfig(diversity_rate=-1)),
        ("time_scale must be above 0", lambda: WeightsConfig(time_scale=0)),
        ("other_share must be", lambda: WeightsConfig(other_share=2)),
        ("weight of a must be", lambda: WeightsConfig(given={"a": math.nan})),
        ("at least one", lambda: weigh(WeightsConfig(), {}, 1)),
        ("role 'beauty'", lambda: weigh(WeightsConfig(), {"a": "beauty"}, 1)),
        ("no round 0", lambda: weigh(WeightsConfig(), THREE, 0)),
        ("All weights are 0", lambda: weigh(WeightsConfig("fixed"), THREE, 1)),
        ("no reward 'x'", lambda: weigh(WeightsConfig("fixed", given={"x": 1}), THREE, 1)),
        ("leaves nothing for the rule", lambda: weigh(WeightsConfig(other_share=1.0), FOUR, 1)),
    ):
        with pytest.raises(RefinementError, match=words):
            run()


@pytest.mark.parametrize("rule", ["rule", "learned", "fixed equal"])
def test_new_noise_goes_by_the_knobs_of_the_rounds_weights(rule):
    """e^(−0.15·2·3) = 0.41 where weights are weighed twice as fast; e^(−0.15·3) = 0.64 where none are, or were kept
    before they said so."""
    weights = weigh(WeightsConfig(rule, time_scale=2.0), THREE, 3)
    assert chance_of_new_noise(weights, 3) == pytest.approx(math.exp(-0.9))
    assert chance_of_new_noise(None, 3) == pytest.approx(math.exp(-0.45))
    assert chance_of_new_noise(Weights("rule", {}, {"a": 1.0}), 3) == pytest.approx(math.exp(-0.45))
