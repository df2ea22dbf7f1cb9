"""Dynamic Weights: how much each reward counts in this round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..host.schema import AttuneNode
from .checks import RefinementError
from .chosen import chosen_pictures, pictures_of
from .draft import Draft, Judge, chosen_rounds, unique_names
from .dynamic_weights import NO_PULL, RULES, WeightsConfig, weigh
from .learned_weights import choices_so_far
from .monitored import Monitored, PicturesSoFar, monitored, pictures_so_far
from .nodes_common import CATEGORY, Reward, draft_of, session_input, session_output
from .nodes_routes import sessions
from .reward_gradients import choice_gram, comparable
from .running_scores import Running, running_scores, scores_of
from .schedules import arm_in
from .total_reward import TotalReward
from .weights_chart import front_chart, weights_chart

DEFAULTS = WeightsConfig()
SOCKETS = {"diversity": "diversity", "consistency": "consistency", "relevance": "relevance", "other": "", "other_2": ""}
BY_GRADIENTS = ("gradient influence", "mgda")
FIXED = "fixed"
OFFERED = tuple(rule for rule in RULES if rule != FIXED)
NO_TEST = "off"


class AttuneDynamicWeights(AttuneNode):
    """Variety first, then what was meant."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneDynamicWeights",
            display_name="Dynamic Weights",
            category=CATEGORY,
            description="Weighs up to five rewards anew in every round: variety counts at first, staying with what you "
            "chose and fitting the prompt later; or as your choices show that you weigh them yourself.",
            search_aliases=["r_total", "multi-objective", "pareto", "mgda", "reward weights", "lambda", "balance"],
            is_output_node=True,
            inputs=[
                session_input(cls),
                cls.input(Reward, "diversity", optional=True, tooltip="Asks for pictures that differ: from Dialogue "
                          "Reward (diversity)."),
                cls.input(Reward, "consistency", optional=True, tooltip="Asks to stay with what was chosen: from "
                          "Dialogue Reward (consistency)."),
                cls.input(Reward, "relevance", optional=True, tooltip="Asks to fit the prompt: any reward that looks "
                                          "at it, such as a CLIP kind or a vision-language model."),
                cls.input(Reward, "other", optional=True, tooltip="Any other reward, such as your own taste. The rule "
                          "gives it the same share in every round."),
                cls.input(Reward, "other_2", optional=True, tooltip="One more."),
                cls.input(
                    io.Combo,
                    "rule",
                    options=list(OFFERED),
                    default="learned",
                    tooltip="rule: by the number of the round. learned: the rule, and more and more what your choices "
                    "in this session show. gradient influence, mgda: what helps all rewards at once (they must be "
                    "differentiable). fixed equal, fixed limit: the same in every round, to compare with.",
                ),
                cls.input(
                    io.Float, "time_scale", default=2.0, min=0.1, max=20.0, step=0.1,
                    tooltip="How many rounds of the rule pass in one of yours. Raising it turns from variety to what "
                    "was meant sooner. 1 = the published rule, which is for longer sessions.",
                ),
                cls.input(
                    io.Float, "half_after", default=DEFAULTS.half_after, min=0.5, max=1000.0, step=0.5,
                    tooltip="After how many choices what was learned counts as much as the rule. Raising it trusts "
                    "your choices later.",
                ),
                cls.input(
                    io.Float, "diversity_rate", default=DEFAULTS.diversity_rate, min=0.0, max=5.0, step=0.005,
                    tooltip="How fast the weight of diversity falls per round. 0 = never.",
                ),
                cls.input(
                    io.Float, "consistency_rate", default=DEFAULTS.consistency_rate, min=0.0, max=5.0, step=0.005,
                    tooltip="How fast the weight of consistency rises per round. 0 = it has none.",
                ),
                cls.input(
                    io.Float, "relevance_rate", default=DEFAULTS.relevance_rate, min=0.0, max=5.0, step=0.005,
                    tooltip="How fast the weight of relevance rises per round. 0 = it has none.",
                ),
                cls.input(
                    io.Combo, "test_rule", options=[NO_TEST, *OFFERED], default=NO_TEST, optional=True,
                    tooltip="An A/B test over your sessions: half of them take this rule in place of the one above. "
                    "Session Report says which arm is accepted more often. It can only differ where the rewards decide "
                    "in Commit Round, or reward leads to Multi-Round Objective. off = no test.",
                ),
            ],
            outputs=[
                session_output(cls),
                cls.output(Reward, id="reward", display_name="reward", tooltip="All of them as one, by this round's "
                           "weights: for Score Images, Rank and Keep Best, and the objectives of training."),
                cls.output(io.Image, id="chart", display_name="chart", tooltip="The weights of all rounds so far."),
                cls.output(io.Image, id="front", display_name="front", tooltip="Every picture so far by two of the "
                           "rewards, the ones that no other beats, and those you chose."),
                cls.output(io.String, id="report", display_name="report", tooltip="The weights in words, and how the "
                          "pictures so far stand to each other."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, session: Any, rule: str, time_scale: float, half_after: float, diversity_rate: float,
        consistency_rate: float, relevance_rate: float, test_rule: str = NO_TEST, **rewards: Any,
    ) -> io.NodeOutput:  # fmt: skip
        draft = draft_of(session)
        judges = judges_of(rewards)
        if test_rule != NO_TEST and draft.state.replay is None:
            if test_rule == rule:
                raise RefinementError(f"test_rule is the rule that the node has, {rule}. Choose another, or off.")
            test = f"rule {rule} → {test_rule}"
            draft = draft.in_test(test, arm_in(test, draft.state))
            rule = test_rule if draft.arm == "B" else rule
        config = WeightsConfig(
            rule=rule, time_scale=time_scale, half_after=half_after, diversity_rate=diversity_rate,
            consistency_rate=consistency_rate, relevance_rate=relevance_rate,
        )  # fmt: skip
        state, roles = draft.state, {judge.name: judge.role for judge in judges}
        running = running_scores([scores_of(past) for past in state.path])
        previous = chosen_pictures(sessions(), draft)
        gram = gram_of_choice(draft, judges, previous, running) if rule in BY_GRADIENTS else None
        before = state.last.weights.after if state.last is not None and state.last.weights is not None else None
        choices = choices_so_far(state.path, running, list(roles), costs=costs_of(judges))
        weights = weigh(config, roles, state.number, before=before, choices=choices, gram=gram)
        # Reports tell gains by a reward that looks at the prompt, and what the weights prefer.
        weights = replace(weights, details={**weights.details, "roles": roles, "costs": costs_of(judges)})
        draft = draft.with_(weights=weights, judges=judges, liked=previous)
        # A replay keeps the weights it had, which other rewards than today's may have had.
        recorded = draft.weights is not None and any(draft.weights.after.get(judge.name) for judge in judges)
        total = TotalReward(judges, draft.weights.after if recorded else weights.after, running, previous)
        names = shown_rewards(draft)
        pictures = pictures_so_far(state.path, running, costs=costs_of(judges))
        figures = monitored(pictures, names) if len(names) == 2 else None
        told = weights_text(draft)
        if figures is not None:
            told += f"\nBy {names[0]} and {names[1]}: {figures.text()}"
        return io.NodeOutput(
            draft, total, weights_chart(weights_of_rounds(draft)), front_of(names, pictures, figures), told,
            ui={"text": [told]},
        )  # fmt: skip


def judges_of(rewards: dict[str, Any]) -> tuple[Judge, ...]:
    """The connected rewards in the sockets' order.

    Raises:
        RefinementError: there is none.
    """
    found = [(SOCKETS[name], rewards[name]) for name in SOCKETS if rewards.get(name) is not None]
    if not found:
        raise RefinementError("No reward is connected. Connect one or more, such as Load Reward Model to relevance.")
    names = unique_names([reward.name for _, reward in found])
    return tuple(Judge(name, role, reward) for name, (role, reward) in zip(names, found, strict=True))


def costs_of(judges: tuple[Judge, ...]) -> list[str]:
    return [judge.name for judge in judges if judge.is_cost]


def gram_of_choice(
    draft: Draft, judges: tuple[Judge, ...], previous: tuple[torch.Tensor, ...], running: dict[str, Running]
) -> np.ndarray | None:
    """How the rewards pull at what was chosen last; None = nothing was yet, or nothing that may be shown."""
    rounds = chosen_rounds(draft.state)
    if not rounds:
        return None
    last = rounds[-1]
    places = comparable(last)
    chosen = [places.index(place) for place in last.feedback.liked if place in places]
    if not chosen:
        return None
    images = pictures_of(sessions(), draft.state, last, places)
    return choice_gram(judges, images, chosen, last.prompt, previous=previous[:-1], running=running)


def weights_of_rounds(draft: Draft) -> list[dict[str, float]]:
    """The weights of every round of the path and of this one; a round without any has none."""
    found = [past.weights.after if past.weights is not None else {} for past in draft.state.path]
    return [*found, draft.weights.after if draft.weights is not None else {}]


def shown_rewards(draft: Draft) -> list[str]:
    """The two rewards that weigh most; fewer where fewer are connected."""
    weights = draft.weights.after if draft.weights is not None else {}
    return sorted((judge.name for judge in draft.judges), key=lambda name: -weights.get(name, 0.0))[:2]


def front_of(names: list[str], pictures: PicturesSoFar, figures: Monitored | None) -> torch.Tensor | ExecutionBlocker:
    """All pictures of the path by two rewards; nothing where there is only one."""
    if len(names) < 2:
        return ExecutionBlocker("A front needs two rewards: connect another one to Dynamic Weights.")
    details = "Further right and further up is better. " + (figures.text() if figures is not None else "")
    return front_chart(
        pictures.z, names, chosen=pictures.chosen, title="Trade-offs of all rounds", details=details.strip()
    )


def weights_text(draft: Draft) -> str:
    """The round's weights in lines."""
    weights = draft.weights
    if weights is None:
        return "No rewards are weighed."
    arm = f", arm {draft.arm} of the test" if draft.arm else ""
    lines = [f"Round {draft.state.number}, {weights.rule}{arm}:"]
    for name, value in sorted(weights.after.items(), key=lambda item: -item[1]):
        before = weights.before.get(name)
        moved = "" if before is None or not draft.state.path else f" ({value - before:+.2f})"
        lines.append(f"{value:.2f}  {name}{moved}")
    still = weights.details.get(NO_PULL)
    if still:
        lines.append(f"Pulls nowhere on what you chose, and has the rule's share: {', '.join(still)}.")
    return "\n".join(lines)


NODES: list[type[io.ComfyNode]] = [AttuneDynamicWeights]
