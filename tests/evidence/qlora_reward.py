"""qlora-reward: a reward model with 4-bit weights orders preference pairs as well as one with 16-bit weights.

Bed: see `_qlora_bed`. A small LLaVA is trained here on captions of the demo data's drawings; then, for each of several
simulated people, its reward is trained twice on the same choices, with the same seed, order and number of updates: once
over NF4 weights (QLoRA), once over the exact weights. Exact means fp32 here: on a CPU 16-bit arithmetic is ten times
slower, and fp32 weights are at least as good as 16-bit ones, so the comparison is not made easier by it.

- The figure is the difference of pair accuracies (NF4 less exact), over pairs whose prompts neither training nor the
  choice of the best weights has seen. Its goal, at least -0.02, was fixed before anything was run; the numbers of
  updates and pairs were chosen on runs over exact weights alone. The first record had five people: -0.0148, 95 %
  interval -0.040 … +0.005, too wide to say much; five more were added to them and nothing else was changed.
- qlora-reward.memory is the ratio of what the two hold in memory: the bytes of all parameters, buffers and quantisation
  constants as they are stored, with adapters and head, over those of the same model loaded in bf16, with the same
  adapters and head. Activations and the adapters' optimizer states are the same in both and left out.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from attune.training.demo import data
from attune.training.preference_reward import PreferenceConfig, measure, train_reward
from attune.training.vlm_base import load_base
from attune.training.vlm_reward import RewardAdapters, VlmScorer

from ._qlora_bed import LANGUAGE, PATCH, SIZE, VISION, Drawings, Person, make_pairs, write_base
from .record import ROOT, Claim, Stopwatch, bootstrap, record

CLAIM = Claim("qlora-reward", -0.02, ">=", "accuracy", "pair accuracy, 4-bit reward model less exact one")
MEMORY = Claim("qlora-reward.memory", 0.5, "<=", "×", "weights of a 4-bit reward model against 16 bit, in bytes")
CACHE = ROOT / ".cache" / "demo"
PRECISIONS = ("nf4", "fp32")
# No data seed of one part is one of another.
PAIRS_SEED, UNSEEN_SEED, BASE_SEED, PERSON_SEED = 1000, 2000, 3000, 4000


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    tower_steps: int
    base_steps: int
    base_batch: int
    pairs: int
    unseen_pairs: int
    steps: int
    seeds: int


FULL = Plan(tower_steps=400, base_steps=500, base_batch=16, pairs=1000, unseen_pairs=500, steps=200, seeds=10)
QUICK = Plan(tower_steps=20, base_steps=20, base_batch=8, pairs=40, unseen_pairs=20, steps=6, seeds=2)


def settings(plan: Plan, seed: int) -> PreferenceConfig:
    """The same for both precisions."""
    return PreferenceConfig(
        steps=plan.steps,
        learning_rate=1e-3,
        pairs_per_step=8,
        rank=8,
        held_out=0.1,
        evaluate_every=max(1, plan.steps // 4),
        patience=0,
        seed=seed,
    )


def stored_bytes(module: nn.Module) -> int:
    """Of everything a module keeps, the scales of quantised weights included, which are no parameters or buffers."""
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def fresh(folder: Path, precision: str, config: PreferenceConfig) -> tuple[VlmScorer, RewardAdapters]:
    scorer = VlmScorer(load_base(folder, precision=precision), seed=config.seed)
    return scorer, RewardAdapters(scorer, config.lora(), layers=config.layers)


def run(folder: Path, drawings: Drawings, plan: Plan, seed: int) -> dict[str, Any]:
    """Both trainings of one person's reward: their accuracies on unseen pairs, before and after."""
    config = settings(plan, seed)
    person = Person.of(PERSON_SEED + seed)
    pairs = make_pairs(drawings, person, plan.pairs, seed=PAIRS_SEED + seed, unseen=False)
    unseen = make_pairs(drawings, person, plan.unseen_pairs, seed=UNSEEN_SEED + seed, unseen=True)
    row: dict[str, Any] = {"seed": seed}
    for precision in PRECISIONS:
        scorer, adapters = fresh(folder, precision, config)
        before = measure(scorer, unseen, batch=32)
        result = train_reward(scorer, adapters, pairs, config)
        after = measure(scorer, unseen, batch=32)
        row[precision] = {
            "before": before.accuracy,
            "accuracy": after.accuracy,
            "loss": after.loss,
            "kept_step": result.best.step,
            "held_out": [found.accuracy for found in result.measured],
            "seconds": round(result.seconds, 1),
        }
        print(f"seed {seed}, {precision}: {before.accuracy:.3f} before, {after.accuracy:.3f} after", flush=True)
    row["difference"] = row["nf4"]["accuracy"] - row["fp32"]["accuracy"]
    return row


def memory(folder: Path, plan: Plan) -> dict[str, int]:
    """Stored bytes by precision, each really loaded, with adapters and head."""
    found = {}
    for precision in ("nf4", "bf16", "fp32"):
        scorer, adapters = fresh(folder, precision, settings(plan, 0))
        found[precision] = stored_bytes(scorer)
        found["adapters and head"] = sum(value.numel() * 4 for value in adapters.tensors().values())
    return found


def main(quick: bool) -> None:
    plan = QUICK if quick else FULL
    watch = Stopwatch()
    drawings = Drawings(data.build_library(CACHE))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "base"
        losses = write_base(
            folder, drawings,
            tower_steps=plan.tower_steps, steps=plan.base_steps, batch=plan.base_batch, seed=BASE_SEED,
        )  # fmt: skip
        rows = [run(folder, drawings, plan, seed) for seed in range(plan.seeds)]
        held = memory(folder, plan)
    differences = [row["difference"] for row in rows]
    details = {
        "runs": rows,
        "base": {
            "vision": VISION,
            "language": LANGUAGE,
            "picture": SIZE,
            "patch": PATCH,
            "loss": np.mean(losses[-20:]),
        },
        "plan": asdict(plan),
        "training": asdict(settings(plan, 0)),
        "accuracy": {name: float(np.mean([row[name]["accuracy"] for row in rows])) for name in PRECISIONS},
    }
    attempts = [
        {"what": f"{name}, seed {row['seed']}: pair accuracy", "value": row[name]["accuracy"]}
        for row in rows
        for name in PRECISIONS
    ]
    record(
        CLAIM, float(np.mean(differences)), ci=bootstrap(differences), seeds=plan.seeds, seconds=watch.seconds,
        quick=quick, samples=differences, attempts=attempts, details=details,
    )  # fmt: skip
    record(
        MEMORY, held["nf4"] / held["bf16"], ci=None, seeds=plan.seeds, seconds=watch.seconds, quick=quick,
        details={"bytes": held},
    )  # fmt: skip
