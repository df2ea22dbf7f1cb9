"""`run.py train reward-model`: trains a reward model on preference pairs and writes one safetensors file.

Pairs are a JSON Lines file, one object per line: {"prompt": "…", "chosen": "path", "rejected": "path"}; the paths are
relative to that file and must stay inside its folder. Stopping it (Ctrl-C, or the machine going down) loses at most a
minute; the same command goes on exactly where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import torch

from .interfaces import RunCallbacks, TrainingError
from .preference_pairs import read_pairs
from .preference_reward import PreferenceConfig, train_reward
from .trainer_config import Schedule
from .vlm_base import PRECISIONS, load_base
from .vlm_reward import LAYERS, RewardAdapters, TrainedReward, VlmScorer, save_trained

CHOICES = {"layers": LAYERS, "schedule": get_args(Schedule)}
HELP = {
    "steps": "updates",
    "learning_rate": "peak of the schedule",
    "pairs_per_step": "pairs computed at a time",
    "accumulation": "such groups per update",
    "rank": "of the LoRA",
    "alpha": "of the LoRA; 0 = the rank",
    "dropout": "of the LoRA's inputs",
    "layers": "which carry a LoRA",
    "held_out": "share of the pairs that is only measured on",
    "evaluate_every": "updates between measurements",
    "patience": "measurements without a better one before the end; 0 = never",
    "warmup_steps": "updates until the peak",
    "schedule": "of the learning rate after that",
    "clip_norm": "longest gradient; 0 = off",
    "weight_decay": "of AdamW",
    "seed": "of all randomness",
    "checkpoint_seconds": "between saved states",
    "save_memory": "compute layers twice instead of keeping their results",
}


def parser() -> argparse.ArgumentParser:
    """The command line; every option of the training is a field of `PreferenceConfig`."""
    found = argparse.ArgumentParser(
        prog="run.py train reward-model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("--model", type=Path, required=True, help="folder of a vision-language model")
    found.add_argument("--pairs", type=Path, required=True, help="pairs.jsonl, beside its pictures")
    found.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    found.add_argument("--name", default="", help="what to call the reward (default: the file's name)")
    found.add_argument("--precision", choices=PRECISIONS, default="nf4", help="of the model's weights (default: nf4)")
    found.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cpu, …")
    found.add_argument("--state", type=Path, help="folder of the saved states (default: beside the output, NAME.run)")
    found.add_argument("--fresh", action="store_true", help="start over instead of going on with the saved state")
    # By the annotations: a default may be a whole number where fractions are allowed.
    kinds = get_type_hints(PreferenceConfig)
    for field in dataclasses.fields(PreferenceConfig):
        flag = f"--{field.name.replace('_', '-')}"
        text = f"{HELP[field.name]} (default: {field.default})"
        if isinstance(field.default, bool):
            found.add_argument(flag, action="store_true", help=HELP[field.name])
        else:
            kind = kinds[field.name] if kinds[field.name] in (int, float) else str
            found.add_argument(flag, type=kind, default=field.default, choices=CHOICES.get(field.name), help=text)
    return found


class _Lines(RunCallbacks):
    """A line per measurement, and one every ten seconds."""

    def __init__(self, total: int) -> None:
        self.total, self.began, self.said = total, time.monotonic(), 0.0

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic() - self.began
        measured = metrics.get("held_out_accuracy")
        if measured is None and step != self.total and now - self.said < 10:
            return
        self.said = now
        line = f"update {step}/{self.total}: loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.0%}"
        if measured is not None:
            line += f"; held-out pairs before it: {measured:.1%} right, margin {metrics['held_out_margin']:.3g}"
        print(f"{line} ({now:.0f} s)", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what the command line asks for.

    Raises:
        AttuneError: bad pairs, a model that cannot be loaded, another run's state, or a file that cannot be written.
    """
    options = parser().parse_args(arguments)
    if options.output.suffix != ".safetensors":
        raise TrainingError(f"--output must end in .safetensors, not {options.output.name!r}.")
    config = PreferenceConfig(**{f.name: getattr(options, f.name) for f in dataclasses.fields(PreferenceConfig)})
    name = options.name or options.output.stem
    state = options.state or options.output.with_suffix(".run")
    pairs = read_pairs(options.pairs)
    scorer = VlmScorer(
        load_base(options.model, precision=options.precision, device=options.device),
        device=options.device,
        seed=config.seed,
    )
    adapters = RewardAdapters(scorer, config.lora(), layers=config.layers)
    print(f"{len(pairs)} pairs, {scorer.base.name} in {options.precision} on {options.device}, states in {state}")
    try:
        result = train_reward(
            scorer, adapters, pairs, config, callbacks=_Lines(config.steps), run_folder=state, resume=not options.fresh
        )
    except KeyboardInterrupt:
        print(f"\nStopped. The state is saved in {state}; the same command goes on from there.")
        return 130
    save_trained(options.output, TrainedReward.of(adapters, name, result.metrics()))
    print(json.dumps(result.metrics(), indent=1))
    print(f"most memory at a time: {result.peak_memory / 2**30:.2f} GB; {result.seconds:.0f} s")
    print(f"wrote {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
    return 0
