"""What the figures of a training run are called and mean: the one table that report, live view and help pages share.

A figure is whatever an objective's `metrics()` or `evaluate()` returns under a name. Those that are not in the table
are drawn too, under their plain name. `figures_pages` writes the copies for the page and the glossary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..charts import Curve

# `evaluate()` puts this before the name of what it measured.
EVALUATION = "evaluation_"
HELD_OUT = "held_out_"
# Of what a one-step generator is measured beside.
TEACHER = "teacher_"
# In a report, but no curve.
NOT_DRAWN = frozenset({"step", "best_step"})
# As many panels as a node shows without scrolling; the others are a click away.
MOST_FIRST = 4


@dataclass(frozen=True)
class Figure:
    """How one figure is shown.

    Attributes:
        title: what people read.
        meaning: what it tells, for someone who knows pictures and not the maths.
        better: which direction is good, "" where neither is.
        format: "number", "percent" (of a share from 0 to 1) or "count" (a whole number).
        smooth: whether its updates scatter, so that it is read through a moving average.
        includes: values that its axis always shows, so that a small change does not look like a large one.
        line: a value that is marked across the panel, such as chance; None = none.
        minor: whether it is of use only now and then, so that its switch is folded away.
        colour: of its curve.
    """

    title: str
    meaning: str
    better: Literal["up", "down", ""] = ""
    format: Literal["number", "percent", "count"] = "number"
    smooth: bool = True
    includes: tuple[float, ...] = ()
    line: float | None = None
    minor: bool = False
    colour: str = "#aab3c0"


FIGURES: Mapping[str, Figure] = {
    "reward": Figure(
        "Reward",
        "Mean reward of the pictures made for one update: what the run learns to raise.",
        "up",
        colour="#4fb6f5",
    ),
    "held_out_reward": Figure(
        "Held-out reward",
        "Mean score of the same pictures by the judge that is never learned from. If it falls while the reward rises, "
        "the run is fooling its reward: stop.",
        "up",
        colour="#b79cf7",
    ),
    "held_out_accuracy": Figure(
        "Held-out accuracy",
        "Share of the pairs that are never learned from in which the chosen picture is preferred. Half is chance.",
        "up",
        "percent",
        includes=(0.5, 1.0),
        line=0.5,
        colour="#6ecb8b",
    ),
    "accuracy": Figure(
        "Accuracy",
        "Share of the pairs of one update in which the chosen picture is preferred. Half is chance.",
        "up",
        "percent",
        includes=(0.5, 1.0),
        line=0.5,
        colour="#4fb6f5",
    ),
    "margin": Figure(
        "Margin",
        "By how much the chosen pictures are preferred over the others. 0 = not at all, as before training.",
        "up",
        includes=(0.0,),
        line=0.0,
        colour="#56c5c6",
    ),
    "held_out_margin": Figure(
        "Held-out margin",
        "The margin of the pairs that are never learned from. If it falls while the margin rises, the pairs are being "
        "learned by heart: stop.",
        "up",
        includes=(0.0,),
        line=0.0,
        colour="#b79cf7",
    ),
    "diversity": Figure(
        "Diversity",
        "How much pictures of the same prompt differ. If it falls towards 0, they all become one picture.",
        "up",
        includes=(0.0,),
        colour="#6ecb8b",
    ),
    "kl_to_reference": Figure(
        "Drift from base",
        "How far the LoRA has moved the sampling away from the base model (KL divergence, in nats). 0 = not at all; a "
        "steep rise warns of broken pictures. Methods that make no pictures measure it on those of training.",
        includes=(0.0,),
        colour="#ef8fa6",
    ),
    "residual": Figure(
        "Residual",
        "How far the model is from making pictures in proportion to their reward: what DAG brings to 0.",
        "down",
        includes=(0.0,),
        colour="#d9c66c",
    ),
    "effective_sample_size": Figure(
        "Effective sample size",
        "How evenly the latest pictures count for DAG; near 0 a few outweigh all others. With convention mean it is "
        "taken per latent value and lies near 100 %: if it falls, lower beta or let it rise more slowly.",
        "up",
        "percent",
        includes=(0.0, 1.0),
        colour="#56c5c6",
    ),
    "loss": Figure(
        "Loss",
        "What one update makes smaller. It should fall when learning from pictures or pairs; when learning from a "
        "reward it says little.",
        colour="#f2a65a",
    ),
    "flow_loss": Figure(
        "Flow loss",
        "How badly DAG's own small network still estimates what a half-finished picture is worth.",
        "down",
        includes=(0.0,),
        colour="#e59a68",
    ),
    "distance": Figure(
        "Distance from teacher",
        "How far the one-step pictures are from what the teacher would draw, under noise, as the assistant knows them. "
        "It falls fast at first; with a reward it may rise again.",
        "down",
        includes=(0.0,),
        colour="#56c5c6",
    ),
    "assistant_loss": Figure(
        "Assistant's loss",
        "How badly the assistant knows the generator's newest pictures. If it climbs, the assistant has lost track: "
        "raise assistant_updates or assistant_learning_rate.",
        "down",
        includes=(0.0,),
        colour="#e59a68",
    ),
    "saturation": Figure(
        "Saturation",
        "How strong the colours are: 0 = grey, 1 = pure colours. Far above the teacher's, they have run away.",
        includes=(0.0,),
        colour="#d9c66c",
    ),
    "reward_weight": Figure(
        "Reward strength",
        "How much the reward counts at present beside the teacher. It rises to its final value during the run.",
        smooth=False,
        includes=(0.0,),
        minor=True,
        colour="#c58be0",
    ),
    "beta": Figure(
        "Reward strength",
        "How strongly DAG prefers pictures with a high reward at present (β). It rises to its final value during the "
        "run.",
        smooth=False,
        includes=(0.0,),
        colour="#c58be0",
    ),
    "clipped": Figure(
        "Clipped",
        "Share of the steps whose change was too large for one update and was cut. If most are, lower the learning "
        "rate.",
        format="percent",
        includes=(0.0,),
        colour="#d9c66c",
        minor=True,
    ),
    "blocked": Figure(
        "Blocked pictures",
        "How many pictures of one update the safety gate held back. Nothing is learned from them.",
        "down",
        "count",
        includes=(0.0,),
        colour="#ef7d7d",
    ),
    "chosen_reward": Figure(
        "Reward of the chosen",
        "By how much better than the base model the LoRA draws the chosen pictures. Below 0, it draws them worse.",
        "up",
        includes=(0.0,),
        line=0.0,
        colour="#6ecb8b",
        minor=True,
    ),
    "rejected_reward": Figure(
        "Reward of the others",
        "The same for the pictures that were not chosen. It should lie below the reward of the chosen.",
        includes=(0.0,),
        line=0.0,
        colour="#ef8fa6",
        minor=True,
    ),
    "below_margin": Figure(
        "Below the margin",
        "Share of one update's pictures that have not reached margin yet: ReFL learns from these alone. At 0 nothing "
        "is learned; if it is 0 from the start, the margin is too low.",
        format="percent",
        includes=(0.0, 1.0),
        colour="#e59a68",
    ),
    "policy_loss": Figure(
        "Policy loss",
        "DAG-KL's loss for the LoRA alone, without that of its small network. It compares pictures of one update with "
        "each other, so it stays about 0 and need not fall.",
        includes=(0.0,),
        line=0.0,
        minor=True,
    ),
    "ratio": Figure(
        "Probability ratio",
        "How much more likely the present model is to make its latest pictures than the one that made them. 1 = "
        "equally.",
        line=1.0,
        includes=(1.0,),
        minor=True,
    ),
    "log_probability_change": Figure(
        "Change of probability",
        "How much one round of updates changed how likely its pictures are (logarithm). 0 = not at all.",
        includes=(0.0,),
        minor=True,
    ),
    "reward_deviation": Figure(
        "Spread of rewards",
        "How much the rewards of one update's pictures differ (standard deviation). At 0 there is nothing to learn "
        "from.",
        includes=(0.0,),
        minor=True,
    ),
    "gradient_norm": Figure(
        "Gradient length",
        "How strongly one update pulls at the LoRA, before clip_norm. Sudden peaks warn of an unstable run.",
        includes=(0.0,),
        minor=True,
    ),
    "learning_rate": Figure(
        "Learning rate",
        "Size of the updates, after warm-up and schedule.",
        smooth=False,
        includes=(0.0,),
        minor=True,
    ),
    "rollouts": Figure(
        "Pictures made",
        "Pictures made to learn from since the run began.",
        format="count",
        smooth=False,
        includes=(0.0,),
        minor=True,
    ),
    "reward_calls": Figure(
        "Reward calls",
        "Pictures that the reward has scored since the run began.",
        format="count",
        smooth=False,
        includes=(0.0,),
        minor=True,
    ),
}

# Prefixes of names, and what they make of title and meaning.
PREFIXES = (
    (EVALUATION, "Test {}", "{} Measured on fixed prompts and seeds, with the weights as they would be saved."),
    (TEACHER, "Teacher's {}", "{} Of the teacher's pictures, to compare with."),
    (HELD_OUT, "Held-out {}", "{} Measured on what is never learned from."),
)
_BY_REWARD = ("reward", "held_out_reward", "diversity", "kl_to_reference", "loss")
_BY_FLOW = ("reward", "held_out_reward", "diversity", "residual", "effective_sample_size", "loss")
_BY_TEACHER = ("reward", "held_out_reward", "distance", "diversity", "assistant_loss", "saturation")
_BY_PICTURES = ("loss", "held_out_loss", "kl_to_reference")
_BY_PAIRS = ("held_out_accuracy", "accuracy", "held_out_margin", "kl_to_reference", "margin", "loss")

# By `ObjectivePlan.method`: which figures come first, best first. Those that a run does not have are left out.
CURVES: Mapping[str, tuple[str, ...]] = {
    "supervised": _BY_PICTURES,
    "ddpo": _BY_REWARD,
    "dag-db": _BY_FLOW,
    "dag-kl": _BY_FLOW,
    "refl": _BY_REWARD,
    "draft": _BY_REWARD,
    "multi-round-ppo": _BY_REWARD,
    "multi-round-refl": _BY_REWARD,
    "multi-round-kept": _BY_PAIRS,
    "diff-instruct": _BY_TEACHER,
    "diffusion-dpo": _BY_PAIRS,
    "personal-dpo": _BY_PAIRS,
}
_OF_ANY = ("reward", "held_out_reward", "held_out_accuracy", "accuracy", "loss", "diversity")


def figure(name: str) -> Figure:
    """How the figure of this name is shown; one that the table lacks goes by its plain name."""
    if name in FIGURES:
        return FIGURES[name]
    for prefix, title, meaning in PREFIXES:
        base = name.removeprefix(prefix)
        if base and base != name:
            known = figure(base)
            words = title.format(known.title[:1].lower() + known.title[1:])
            return replace(known, title=words, meaning=meaning.format(known.meaning).strip())
    words = name.replace("_", " ").strip()
    return Figure(words[:1].upper() + words[1:], "")


def first_curves(method: str) -> tuple[str, ...]:
    """The figures that come first for a method; see `CURVES`."""
    return CURVES.get(method, _OF_ANY)


def panels(names: Collection[str], first: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which panels a run with these figures has: those shown first, and all, in order.

    A figure of `evaluate()` is drawn in the panel of the figure that it repeats, if the run has that one.
    """
    own = [name for name in names if name not in NOT_DRAWN]
    own = [name for name in own if not (name.startswith(EVALUATION) and name.removeprefix(EVALUATION) in own)]
    known = [name for name in (*first, *FIGURES) if name in own]
    ordered = list(dict.fromkeys([*known, *sorted(own)]))
    shown = [name for name in ordered if name in first][:MOST_FIRST]
    return shown or ordered[:MOST_FIRST], ordered


def finite_figures(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """What can be drawn: without what is missing, not finite, or no number."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def curves_of(
    history: Sequence[Mapping[str, float]], *, method: str = "", titles: Mapping[str, str] | None = None
) -> list[Curve]:
    """The curves of a report: those that come first for the method, as far as the run has them.

    Args:
        history: one mapping per update, with "step" and the figures.
        titles: what to call a figure, for example {"reward": "Reward: Demo CLIP"}.
    """
    rows = [finite_figures(row) for row in history]
    shown, _ = panels({name for row in rows for name in row}, first_curves(method))
    return [_curve(name, rows, (titles or {}).get(name)) for name in shown]


def _curve(name: str, rows: Sequence[Mapping[str, float]], title: str | None) -> Curve:
    known = figure(name)
    own = [(int(row["step"]), row[name]) for row in rows if name in row]
    tests = [(int(row["step"]), row[EVALUATION + name]) for row in rows if EVALUATION + name in row]
    steps, values = zip(*own, strict=True)
    return Curve(
        name,
        title or known.title,
        steps,
        values,
        colour=known.colour,
        smooth=known.smooth and not is_sparse(len(own), len(rows)),
        percent=known.format == "percent",
        includes=known.includes,
        tests=tests,
    )


def is_sparse(points: int, rows: int) -> bool:
    """Whether a figure comes only now and then, so that its points are drawn and no average of them."""
    return 2 * points <= rows
