"""How much each reward counts in round t: by a rule, by what was chosen, by gradients, or fixed.

    R_total(t) = Σ_i λ_i(t)·z_i

| rule id            | weights of round t                                                                        |
| ------------------ | ----------------------------------------------------------------------------------------- |
| rule               | λ_div = e^(−0.15τ), λ_cons = 1 − e^(−0.10τ), λ_MI = ½(1 − e^(−0.075τ)), τ = `time_scale`·t   |
| learned            | (1 − ρ_n)·λ̂(t) + ρ_n·w, ρ_n = n/(n + n₀); w from n choices (`learned_weights`)              |
| gradient influence | log w_i += (lr/μ) Σ_j ⟨g_i, g_j⟩, softmax (`gradient_weights`)                             |
| mgda               | the shortest convex combination of the gradients (`gradient_weights`)                     |
| fixed equal        | 1/n                                                                                       |
| fixed limit        | what the rule tends to: 0, 1, ½, made to sum to 1                                          |
| fixed              | as given                                                                                  |

λ̂ are the rule's weights made to sum to 1. As they are, their sum drifts from 1 to 1.5, which would make rewards of
different rounds incomparable with fixed weights; `normalised` turns that off and shows the rule in its own numbers.

A reward that pulls nowhere, as diversity of a single picture, says nothing about the direction. By "mgda" it has the
share λ̂(t) that the rule gives it, and the others divide the rest; by "gradient influence" it moves no logit.

A reward has a *role* (diversity, consistency, relevance) by which the rule knows it, or none. One without keeps the
constant share `other_share` of the sum in every round; the rule divides the rest. Two rewards of one role share its λ.

t is the round's number, 1 = the first.

References:
    the rule: digitised from a figure on the VCA authors' project page (RMSE ≤ 0.0016). Normalising, time scale, rewards
    without a role, learning from choices and its blend are ours; for the others see `gradient_weights`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from .checks import RefinementError
from .gradient_weights import by_influence, checked, pulling, scaled, shortest
from .learned_weights import Choice, learn, share_of_learned
from .records import Weights

Role = Literal["diversity", "consistency", "relevance", ""]
Rule = Literal["rule", "learned", "gradient influence", "mgda", "fixed equal", "fixed limit", "fixed"]
ROLES: tuple[str, ...] = get_args(Role)
RULES: tuple[str, ...] = get_args(Rule)
# In a round's details: names of rewards without a gradient at what was chosen; λ_div by the rule, whatever weighs.
NO_PULL = "without a pull"
LAMBDA_DIV = "lambda_div"
# What the rule tends to.
LIMITS = {"diversity": 0.0, "consistency": 1.0, "relevance": 0.5}


@dataclass(frozen=True)
class WeightsConfig:
    """Knobs of the weights.

    Attributes:
        rule: of `RULES`.
        diversity_rate, consistency_rate, relevance_rate: per round, ≥ 0; higher moves that reward's weight sooner.
        time_scale: how many rounds of the rule pass in one round, > 0; 2 or 3 suits sessions of few rounds.
        normalised: the weights sum to 1.
        other_share: of each reward without a role, 0 (not counted) … 1; None = 1/(number of rewards).
        half_after: n₀ > 0, choices after which the learned weights count as much as the rule.
        prior, usual_noise: of the learned weights, see `learned_weights.learn`.
        learning_rate, mu: of gradient influence.
        own_unit: gradients in their own unit; off divides by their mean squared length.
        given: reward's name → weight of "fixed", ≥ 0; rewards not named have 0.
    """

    rule: Rule = "rule"
    diversity_rate: float = 0.15
    consistency_rate: float = 0.10
    relevance_rate: float = 0.075
    time_scale: float = 1.0
    normalised: bool = True
    other_share: float | None = None
    half_after: float = 10.0
    prior: float = 1.0
    usual_noise: float = 0.5
    learning_rate: float = 0.1
    mu: float = 1.0
    own_unit: bool = False
    given: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise RefinementError(f"There is no rule {self.rule!r} for the weights; choose one of: {', '.join(RULES)}.")
        for name in ("diversity_rate", "consistency_rate", "relevance_rate", "learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise RefinementError(f"{name} must be at least 0, not {getattr(self, name)!r}.")
        for name in ("time_scale", "half_after", "prior", "usual_noise", "mu"):
            if not 0 < getattr(self, name) < math.inf:
                raise RefinementError(f"{name} must be above 0, not {getattr(self, name)!r}.")
        if self.other_share is not None and not 0 <= self.other_share <= 1:
            raise RefinementError(f"other_share must be between 0 and 1, not {self.other_share!r}.")
        for name, weight in self.given.items():
            if not 0 <= weight < math.inf:
                raise RefinementError(f"The weight of {name} must be a number of at least 0, not {weight!r}.")


def role_weight(config: WeightsConfig, role: str, number: int) -> float:
    """λ of a role in round `number`, as the formula has it."""
    time = config.time_scale * number
    if role == "diversity":
        return math.exp(-config.diversity_rate * time)
    rate = {"consistency": config.consistency_rate, "relevance": config.relevance_rate}[role]
    return LIMITS[role] * -math.expm1(-rate * time)


def lambda_div(config: WeightsConfig, number: int) -> float:
    """λ_div(t): the probability of new noise in round t, see `schedules`."""
    return role_weight(config, "diversity", number)


def chance_of_new_noise(weights: Weights | None, number: int) -> float:
    """λ_div(t) by the knobs of the round's weights; by those of the published rule where none are weighed yet."""
    found = None if weights is None else weights.details.get(LAMBDA_DIV)
    return lambda_div(WeightsConfig(), number) if found is None else float(found)


def by_rule(config: WeightsConfig, roles: Mapping[str, str], number: int) -> dict[str, float]:
    """The rule's weights of round `number`."""
    return _spread(config, roles, {role: role_weight(config, role, number) for role in LIMITS})


def _spread(config: WeightsConfig, roles: Mapping[str, str], by_role: Mapping[str, float]) -> dict[str, float]:
    """A weight per role → per reward, see the module for rewards without one and for two of one role."""
    holders = [role for role in roles.values() if role]
    raw = {name: by_role[role] / holders.count(role) for name, role in roles.items() if role}
    total, others = math.fsum(raw.values()), [name for name, role in roles.items() if not role]
    share = config.other_share if config.other_share is not None else 1 / len(roles)
    if not total:
        # Nothing that the rule knows, or nothing that counts yet: all others alike.
        return _equal(others or list(roles)) | dict.fromkeys(raw if others else (), 0.0)
    left = 1 - share * len(others)
    if others and left <= 0:
        raise RefinementError(
            f"{len(others)} rewards without a role take {share:g} each, which leaves nothing for the rule. "
            f"Lower other_share below {1 / len(others):g}."
        )
    size = 1.0 if config.normalised else total / left
    spread = {name: size * left * weight / total for name, weight in raw.items()}
    return {name: spread.get(name, size * share) for name in roles}


def _equal(names: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(names, 1 / len(names))


def weigh(
    config: WeightsConfig,
    roles: Mapping[str, str],
    number: int,
    *,
    before: Mapping[str, float] | None = None,
    choices: Sequence[Choice] = (),
    gram: np.ndarray | None = None,
) -> Weights:
    """The weights of round `number`.

    Args:
        config: the knobs.
        roles: reward's name → role, "" = none; in the order of `choices` and `gram`.
        number: 1 = the first round.
        before: the last round's weights; None = there were none, or other rewards: equal ones.
        choices: all so far, of the z-scores of these rewards; looked at by "learned".
        gram: products of the rewards' gradients; looked at by "gradient influence" and "mgda". None = not known yet:
            the weights stay.

    Returns:
        rule, weights before and after, and in `details` what they follow from.

    Raises:
        RefinementError: no reward, an unknown role, a round below 1, or weights that are all 0.
    """
    _check(roles, number)
    names = list(roles)
    known = before is not None and set(before) == set(names)
    earlier = {name: float(before[name]) for name in names} if known else _equal(names)
    after, details = _RULES[config.rule](config, roles, number, earlier, choices, gram)
    if not math.fsum(after.values()) > 0:
        raise RefinementError("All weights are 0, so nothing tells good pictures from bad. Give a reward a weight.")
    return Weights(config.rule, earlier, after, {"round": number, LAMBDA_DIV: lambda_div(config, number), **details})


def _by_rule(config, roles, number, earlier, choices, gram) -> tuple[dict[str, float], dict[str, Any]]:
    return by_rule(config, roles, number), {"time": config.time_scale * number}


def _learned(config, roles, number, earlier, choices, gram) -> tuple[dict[str, float], dict[str, Any]]:
    rule = by_rule(_normalised(config), roles, number)
    found = learn(choices, list(roles), prior=config.prior, usual_noise=config.usual_noise)
    share = share_of_learned(found.choices, config.half_after)
    blended = {name: (1 - share) * rule[name] + share * found.weights[name] for name in roles}
    details = {
        "choices": found.choices,
        "share of learned": share,
        "rule": rule,
        "learned": found.weights,
        "deviations": found.deviations,
        "noise": found.noise,
    }
    if found.choices:
        details["agreement"] = found.agreement
    return blended, details


def _influence(config, roles, number, earlier, choices, gram) -> tuple[dict[str, float], dict[str, Any]]:
    if gram is None:
        return earlier, {}
    products = checked(gram) if config.own_unit else scaled(gram)
    # A weight of 0 could never rise again.
    start = np.maximum(list(earlier.values()), 1e-6)
    weights = by_influence(start, products, learning_rate=config.learning_rate, mu=config.mu)
    return dict(zip(roles, weights.tolist(), strict=True)), {"influence": products.sum(1).tolist()}


def _mgda(config, roles, number, earlier, choices, gram) -> tuple[dict[str, float], dict[str, Any]]:
    if gram is None:
        return earlier, {}
    pulls = pulling(gram)
    products = checked(gram)[np.ix_(pulls, pulls)]
    weights = shortest(products) if len(products) else np.zeros(0)
    length = math.sqrt(max(0.0, float(weights @ products @ weights)))
    after, still = _beside(by_rule(_normalised(config), roles, number), pulls, weights)
    return after, {"length": length, **still}


def _beside(
    kept: Mapping[str, float], pulls: np.ndarray, weights: np.ndarray
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Rewards that pull share what those that do not leave: all weights, and the names of those that do not.

    Args:
        kept: what each would have without a pull, sum 1.
        weights: of those that pull, sum 1.
    """
    still = [name for name, pull in zip(kept, pulls, strict=True) if not pull]
    left = 1 - math.fsum(kept[name] for name in still)
    moved = dict(zip(itertools.compress(kept, pulls), weights.tolist(), strict=True))
    after = {name: left * moved[name] if name in moved else weight for name, weight in kept.items()}
    return after, {NO_PULL: still} if still else {}


def _fixed_equal(config, roles, number, earlier, choices, gram) -> tuple[dict[str, float], dict[str, Any]]:
    return _equal(list(roles)), {}


def _fixed_limit(config, roles, number, earlier, choices, gram) -> tuple[dict[str, float], dict[str, Any]]:
    return _spread(_normalised(config), roles, LIMITS), {}


def _fixed(config, roles, number, earlier, choices, gram) -> tuple[dict[str, float], dict[str, Any]]:
    strange = [name for name in config.given if name not in roles]
    if strange:
        raise RefinementError(f"There is no reward {strange[0]!r} to weigh; there are: {', '.join(roles)}.")
    given = {name: float(config.given.get(name, 0.0)) for name in roles}
    total = math.fsum(given.values())
    return {name: weight / total if config.normalised and total else weight for name, weight in given.items()}, {}


_RULES = {
    "rule": _by_rule,
    "learned": _learned,
    "gradient influence": _influence,
    "mgda": _mgda,
    "fixed equal": _fixed_equal,
    "fixed limit": _fixed_limit,
    "fixed": _fixed,
}


def _normalised(config: WeightsConfig) -> WeightsConfig:
    return WeightsConfig(**(vars(config) | {"normalised": True}))


def _check(roles: Mapping[str, str], number: int) -> None:
    if not roles:
        raise RefinementError("Weights need a reward. Connect at least one.")
    for name, role in roles.items():
        if role not in ROLES:
            raise RefinementError(f"{name} has the role {role!r}; roles are {', '.join(filter(None, ROLES))}, or none.")
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise RefinementError(f"Rounds are counted from 1; there is no round {number!r}.")
