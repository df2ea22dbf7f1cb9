"""One run of distributed-equal, in a process of its own; under a launcher it takes its share of every batch."""

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

    from attune.training.adapters import LoraConfig, Policy
    from attune.training.adapters.user_attention import UserAdapterConfig
    from attune.training.adapters.user_policy import UserPolicy
    from attune.training.checkpoint import write_atomically
    from attune.training.demo.pipeline import DemoPipeline
    from attune.training.share import launched_share
    from attune.training.trainer import TrainerConfig, train

    torch.set_num_threads(1)
    share = launched_share(cpu=True)
    folder = Path(settings["folder"])
    pipeline = DemoPipeline.load(ROOT / "workflows" / "demo" / "attune_demo.safetensors")
    objective = objective_of(settings["method"], settings["batch"], pipeline)
    trainer = TrainerConfig(
        steps=settings["updates"], learning_rate=1e-3, warmup_steps=2, checkpoint_seconds=0, sample_every=0,
        seed=settings["seed"],
    )  # fmt: skip
    lora, own = LoraConfig(rank=4, seed=settings["seed"]), getattr(objective, "encoder", None)
    adapter = own and UserAdapterConfig(own.config.tokens, own.config.width, seed=settings["seed"])
    roles = getattr(objective, "roles", ("policy",))
    with UserPolicy(pipeline.denoiser, adapter) if own else Policy(pipeline.denoiser, lora, roles=roles) as policy:
        start = {name: value.clone() for name, value in policy.tensors(policy.roles[0]).items()}
        result = train(policy, objective, trainer, run_folder=folder / "run", share=share)
    if share.main:
        for name, tensors in (("start", start), ("final", result.tensors)):
            write_atomically(folder / f"{name}.safetensors", dict(sorted(tensors.items())), {})
        (folder / "history.json").write_text(json.dumps(result.history), encoding="utf-8")
    share.wait()


def objective_of(method: str, batch: int, pipeline: Any) -> Any:
    """A small objective of every method; `batch` counts prompts, pairs or pictures."""
    import torch

    from attune.nodes.rewards.statistics import StatisticReward
    from attune.training.objectives.dag import DAGObjective
    from attune.training.objectives.dag_config import DAGConfig
    from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
    from attune.training.objectives.diff_instruct import DiffInstructObjective
    from attune.training.objectives.diff_instruct_config import DiffInstructConfig
    from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Pair
    from attune.training.objectives.personal_dpo import PersonalDPOConfig, PersonalDPOObjective, PersonalPair
    from attune.training.objectives.refl import ReFLConfig, ReFLObjective
    from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
    from attune.training.preference.set_encoder import load_set_encoder

    prompts = pipeline.prompts(["a cat", "a red apple, flat style", "a car on a green background", "a tree", "a fish"])
    # Two sizes, so that batches have buckets which the processes share unevenly.
    shape = pipeline.latent_shape
    sizes = [shape, (*shape[:2], shape[2] // 2)]
    generator = torch.Generator().manual_seed(1)
    latents = [torch.randn(sizes[index % 2], generator=generator) for index in range(10)]
    practice = {"prompts_per_update": batch, "images_per_prompt": 3, "steps": 4, "guidance": 2.0, "chunk": 4}
    world = (pipeline.decoder,)
    if method == "supervised":
        return SupervisedObjective(latents, [*prompts, *prompts], SupervisedConfig(batch=batch))
    if method == "diffusion-dpo":
        others = [latent + 0.3 * torch.randn(latent.shape, generator=generator) for latent in latents]
        pairs = [Pair(*pair) for pair in zip(latents, others, [*prompts, *prompts], strict=True)]
        return DiffusionDPOObjective(pairs, DiffusionDPOConfig(batch=batch, chunk=2))
    if method == "personal-dpo":
        encoder = load_set_encoder(ROOT / "workflows" / "demo" / "attune_demo_user_encoder.safetensors")
        told = torch.randn(10, 3, encoder.config.features, generator=generator)
        others = [latent + 0.3 * torch.randn(latent.shape, generator=generator) for latent in latents]
        people = [
            PersonalPair(*pair, person=f"person {place // 5}", features=told[place])
            for place, pair in enumerate(zip(latents, others, [*prompts, *prompts], strict=True))
        ]
        return PersonalDPOObjective(people, PersonalDPOConfig(batch=batch, chunk=2, support=2), encoder=encoder)
    # Smooth: of a file's size a difference of rounding can be several bytes.
    reward = StatisticReward("warmth", "as high as possible")
    if method == "refl":
        return ReFLObjective(
            prompts, reward, *world, ReFLConfig(**practice, stop_from=2, stop_to=3), latent_shape=shape
        )
    if method == "diff-instruct":
        config = DiffInstructConfig(
            **practice, reward_weight=1.0, reward_from=2, assistant_updates=2, assistant_learning_rate=1e-3
        )
        return DiffInstructObjective(prompts, reward, *world, config, latent_shape=shape)
    if method == "ddpo":
        config = DDPOConfig(**practice, updates_per_rollout=2, transitions=3, buffer=4, minimum=2)
        return DDPOObjective(prompts, reward, *world, config, latent_shape=shape)
    config = DAGConfig(
        **practice, variant=method[4:6].upper(), updates_per_rollout=2, transitions=3, beta=1.0, anneal_updates=2,
        flow_channels=(16, 32), credit="to the end" if method.endswith("to the end") else "step",
    )  # fmt: skip
    return DAGObjective(prompts, reward, *world, config, latent_shape=shape)


if __name__ == "__main__":
    main()
