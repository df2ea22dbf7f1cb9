"""One run of resume-exact, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    settings = json.loads(sys.argv[1])
    spec = importlib.util.spec_from_file_location("attune_module_runner", ROOT / "scripts" / "module.py")
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    runner.map_package()

    import torch

    from attune.nodes.rewards.statistics import StatisticReward
    from attune.training.adapters import LoraConfig, Policy
    from attune.training.checkpoint import write_atomically
    from attune.training.demo.pipeline import DemoPipeline
    from attune.training.interfaces import RunCallbacks
    from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
    from attune.training.trainer import TrainerConfig, train

    class Lines(RunCallbacks):
        def on_report(self, step: int, metrics: Any) -> None:
            print(f"update {step}", flush=True)

    folder = Path(settings["folder"])
    pipeline = DemoPipeline.load(ROOT / "workflows" / "demo" / "attune_demo.safetensors")
    torch.set_num_threads(1)
    objective = DDPOObjective(
        pipeline.prompts(["a cat", "a red apple, flat style", "a car on a green background"]),
        StatisticReward("JPEG size", "as low as possible"),
        pipeline.decoder,
        DDPOConfig(prompts_per_update=2, images_per_prompt=2, steps=3, guidance=2.0, updates_per_rollout=3, chunk=4,
                   buffer=4, minimum=2),
        latent_shape=pipeline.latent_shape,
    )  # fmt: skip
    trainer = TrainerConfig(
        steps=settings["updates"],
        learning_rate=1e-3,
        warmup_steps=3,
        accumulation=2,
        ema=0.9,
        checkpoint_seconds=settings["checkpoint_seconds"],
        sample_every=0,
        seed=5,
    )
    print("update 0", flush=True)
    with Policy(pipeline.denoiser, LoraConfig(rank=4, dropout=0.1)) as policy:
        result = train(policy, objective, trainer, callbacks=Lines(), run_folder=folder / "run")
    write_atomically(folder / "final.safetensors", dict(sorted(result.tensors.items())), {})


if __name__ == "__main__":
    main()
