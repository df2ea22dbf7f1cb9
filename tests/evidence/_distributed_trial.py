"""One run of distributed-equal, in a process of its own; under a launcher it takes its share of every batch."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

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
    from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
    from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
    from attune.training.share import launched_share
    from attune.training.trainer import TrainerConfig, train

    torch.set_num_threads(1)
    share = launched_share(cpu=True)
    folder, batch = Path(settings["folder"]), settings["batch"]
    pipeline = DemoPipeline.load(ROOT / "workflows" / "demo" / "attune_demo.safetensors")
    prompts = pipeline.prompts(["a cat", "a red apple, flat style", "a car on a green background", "a tree", "a fish"])
    if settings["method"] == "ddpo":
        objective = DDPOObjective(
            prompts,
            StatisticReward("JPEG size", "as low as possible"),
            pipeline.decoder,
            DDPOConfig(prompts_per_update=batch, images_per_prompt=2, steps=4, guidance=2.0, updates_per_rollout=2,
                       transitions=3, chunk=4, buffer=4, minimum=2),
            latent_shape=pipeline.latent_shape,
        )  # fmt: skip
    else:
        generator = torch.Generator().manual_seed(1)
        # Two sizes, so that batches have buckets which the processes share unevenly.
        sizes = [pipeline.latent_shape, (*pipeline.latent_shape[:2], pipeline.latent_shape[2] // 2)]
        latents = [torch.randn(sizes[index % 2], generator=generator) for index in range(10)]
        objective = SupervisedObjective(latents, [*prompts, *prompts], SupervisedConfig(batch=batch))
    trainer = TrainerConfig(
        steps=settings["updates"], learning_rate=1e-3, warmup_steps=2, checkpoint_seconds=0, sample_every=0, seed=5
    )
    with Policy(pipeline.denoiser, LoraConfig(rank=4)) as policy:
        result = train(policy, objective, trainer, run_folder=folder / "run", share=share)
    if share.main:
        write_atomically(folder / "final.safetensors", dict(sorted(result.tensors.items())), {})
        (folder / "history.json").write_text(json.dumps(result.history), encoding="utf-8")
    share.wait()


if __name__ == "__main__":
    main()
