"""The demo's one-step LoRA: `run.py train demo-one-step` makes it from the demo checkpoint by Diff-Instruct*.

The model with guidance is distilled into one call of the network, without a reward. It practises on prompts of a
concept, a style and a background, many of which leave some of it open. The run goes on where it was stopped.

What a prompt leaves open, a generator may come to draw always in the same way: "a cat" on one background, where the
teacher has five in 16 pictures. Tried, one seed each, 160 to 450 updates: timestep 999 begins with more variety than
799 and 625; an assistant that learns four times as fast as the generator keeps more of it (as fast: one to four
backgrounds, four times: one to six, ten times: the run breaks), and so does a rate that falls to 0; with only 15 % of
the prompts without a background most pictures had the same one. The demo reward takes variety away: with weight 4 for
200 updates of 400 it rises to 1.05 times the teacher's, the judge to 1.01 times, and all backgrounds become one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapters import LoraConfig, LoraMetadata, Policy, save_lora
from ..digests import file_digest
from ..interfaces import Prompt, RunCallbacks
from ..objectives.diff_instruct import DiffInstructObjective
from ..objectives.diff_instruct_config import DiffInstructConfig
from ..trainer import TrainerConfig, train
from . import data
from .features import DemoReward
from .pipeline import DemoPipeline, prompt_text
from .train_reward import JUDGE
from .train_user import DEMO, MODEL, PACK, REWARD

ONE_STEP, JUDGE_FILE = "attune_demo_one_step.safetensors", "attune_demo_judge.safetensors"
EVERY_LAYER = ("cross-attention", "self-attention", "feed-forward", "projection", "convolution", "timestep")
LORA = LoraConfig(rank=8, alpha=8.0, targets=EVERY_LAYER)
METHOD = DiffInstructConfig(init_timestep=999, guidance=3.0, assistant_learning_rate=4e-3, noise_to=1.0)
TRAINER = TrainerConfig(
    steps=360,
    learning_rate=1e-3,
    schedule="linear",
    betas=(0.0, 0.99),
    weight_decay=0.0,
    ema=0.97,
    evaluate_every=30,
    sample_every=0,
)


@dataclass(frozen=True)
class OneStepRecipe:
    """How much of everything. `practice`: prompts; `seed`: of these, of weights and noise."""

    practice: int = 1500
    seed: int = 0
    lora: LoraConfig = LORA
    method: DiffInstructConfig = METHOD
    trainer: TrainerConfig = TRAINER

    def identity(self) -> str:
        """Of the recipe and of what it begins from: work that another one has left is not gone on with."""
        parts = [asdict(self), *(file_digest(DEMO / name) for name in (MODEL, REWARD))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def random_wish(rng: np.random.Generator) -> data.Attributes:
    """Any concept in any style on any background."""
    return data.Attributes(
        str(rng.choice(data.CONCEPT_NAMES)), str(rng.choice(data.STYLES)), str(rng.choice(list(data.BACKGROUNDS)))
    )


def practice_texts(count: int, seed: int) -> list[str]:
    """`count` prompts: 55 % with style and background, 15 % without each of them, 15 % without both.

    What few prompts leave open, the assistant does not learn well, and then every picture has the same of it.
    """
    rng, texts = np.random.default_rng([seed, 10]), []
    for _ in range(count):
        wish, kind = random_wish(rng), int(rng.choice(4, p=(0.55, 0.15, 0.15, 0.15)))
        style, background = wish.style if kind in (0, 1) else "", wish.background if kind in (0, 2) else ""
        texts.append(prompt_text(wish.concept, style, background))
    return texts


def encoded(pipeline: DemoPipeline, texts: Sequence[str]) -> list[Prompt]:
    """Prompts of many texts."""
    parts = [pipeline.prompts(texts[start : start + 64]) for start in range(0, len(texts), 64)]
    return [prompt for part in parts for prompt in part]


class _Told(RunCallbacks):
    """A line at every evaluation."""

    def on_report(self, step: int, metrics: Any) -> None:
        shown = {name: round(value, 4) for name, value in metrics.items() if name.startswith(("evaluation", "teacher"))}
        if shown:
            print(f"one step: {step}, {shown}", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Make the file."""
    parser = argparse.ArgumentParser(prog="run.py train demo-one-step", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=PACK / ".cache" / "demo-one-step", help="folder of unfinished work"
    )
    parser.add_argument("--output", type=Path, default=DEMO / "loras", help="folder of the finished file")
    parser.add_argument("--updates", type=int, default=TRAINER.steps, help="of the assistant and the generator")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = all")
    options = parser.parse_args(arguments)
    torch.set_flush_denormal(True)
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = OneStepRecipe(trainer=replace(TRAINER, steps=options.updates))
    pipeline = DemoPipeline.load(DEMO / MODEL)
    objective = DiffInstructObjective(
        encoded(pipeline, practice_texts(recipe.practice, recipe.seed)),
        DemoReward(DEMO / REWARD),
        pipeline.decoder,
        recipe.method,
        latent_shape=pipeline.latent_shape,
        held_out=DemoReward(DEMO / JUDGE_FILE, JUDGE),
    )
    with Policy(pipeline.denoiser, replace(recipe.lora, seed=recipe.seed), roles=objective.roles) as policy:
        result = train(
            policy, objective, replace(recipe.trainer, seed=recipe.seed), callbacks=_Told(),
            run_folder=options.work / recipe.identity(),
        )  # fmt: skip
    if result.reason:
        print(result.reason)
    export(options.output / ONE_STEP, recipe, result.tensors, result.kept_step, result.history[result.kept_step - 1])


def export(path: Path, recipe: OneStepRecipe, tensors: dict[str, torch.Tensor], step: int, figures: Any) -> None:
    """Write the LoRA, in half precision: it is a change of weights that are stored so."""
    side = 8 * DemoPipeline.latent_shape[-1]
    metadata = LoraMetadata(
        title="Attune demo one step",
        architecture="stable-diffusion-v2/lora",
        method=DiffInstructObjective.name,
        base_model=MODEL,
        prediction="v",
        resolution=(side, side),
        steps=step,
        metrics={name: round(float(value), 4) for name, value in figures.items() if name.startswith("evaluation_")},
        settings={"objective": asdict(recipe.method), "lora": asdict(recipe.lora), "trainer": asdict(recipe.trainer)},
    )
    halves = {name: value.half() if value.ndim else value for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_lora(path, halves, metadata=metadata)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
