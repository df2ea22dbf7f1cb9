"""One trial of train-speed, in a process of its own: prints {"seconds", "peak_bytes"} as its last line."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 3


def host_world() -> Any:
    """The module that starts the host as a library."""
    spec = importlib.util.spec_from_file_location("host_world", ROOT / "tests" / "host" / "adapters" / "world.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(settings: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Load the demo checkpoint through the stock loader; eight latents and their captions."""
    world = host_world()
    base = Path(settings["base"])
    (base / "models" / "checkpoints").mkdir(parents=True)
    shutil.copy(ROOT / "workflows" / "demo" / "attune_demo.safetensors", base / "models" / "checkpoints")
    world.enter(Path(settings["comfyui"]), base)
    import torch

    from attune.nodes.host import demo_model

    demo_model.register()
    torch.set_flush_denormal(True)
    model, clip, _ = world.load_checkpoint("attune_demo.safetensors")
    latents = torch.randn(8, 16, 8, 8, generator=torch.Generator().manual_seed(settings["seed"]))
    captions = [f"a {name} on a blue background" for name in ("cat", "dog", "cactus", "rose", "car", "house")]
    captions += ["an owl, flat style", "a lemon, 3d style"]
    return model, latents, [world.encode(clip, caption) for caption in captions]


def host_seconds(settings: dict[str, Any], model: Any, latents: Any, captions: list[Any]) -> list[float]:
    """Seconds per update of the host's own node, from the times its loss callback is called."""
    import comfy_extras.nodes_train as nodes_train
    import torch

    moments: list[float] = []
    original = nodes_train.TrainSampler.__init__

    def timed(self: Any, *arguments: Any, **keywords: Any) -> None:
        callback = keywords["loss_callback"]
        keywords["loss_callback"] = lambda loss: (moments.append(time.perf_counter()), callback(loss))
        original(self, *arguments, **keywords)

    nodes_train.TrainSampler.__init__ = timed
    with torch.inference_mode():
        nodes_train.TrainLoraNode.execute(
            model=[model], latents=[{"samples": latent[None]} for latent in latents], positive=captions,
            batch_size=[settings["batch"]],
            steps=[settings["updates"] + WARM_UP], grad_accumulation_steps=[1], learning_rate=[1e-4], rank=[8],
            optimizer=["AdamW"], loss_function=["MSE"], seed=[settings["seed"]], training_dtype=["fp32"],
            lora_dtype=["fp32"], algorithm=["LoRA"], gradient_checkpointing=[settings["checkpointing"]],
            existing_lora=["[None]"],
        )  # fmt: skip
    return [b - a for a, b in itertools.pairwise(moments)]


def our_seconds(settings: dict[str, Any], model: Any, latents: Any, captions: list[Any]) -> list[float]:
    """Seconds per update of our trainer, from its reports."""
    from attune.nodes.host.session import training_session
    from attune.training.adapters import LoraConfig, Policy
    from attune.training.interfaces import RunCallbacks
    from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
    from attune.training.trainer import TrainerConfig, train

    moments: list[float] = []

    class Clock(RunCallbacks):
        def on_report(self, step: int, metrics: Any) -> None:
            moments.append(time.perf_counter())

    with training_session(model) as denoiser:
        denoiser.set_unconditional(captions[0])
        prompts = [denoiser.prompt(str(index), caption) for index, caption in enumerate(captions)]
        config = SupervisedConfig(batch=settings["batch"], caption_dropout=0.0, min_snr_gamma=0.0)
        objective = SupervisedObjective([latent.clone() for latent in latents], prompts, config)
        with Policy(denoiser, LoraConfig(rank=8, targets=("everything",), seed=settings["seed"])) as policy:
            steps = settings["updates"] + WARM_UP
            train(
                policy,
                objective,
                TrainerConfig(steps=steps, learning_rate=1e-4, warmup_steps=0, seed=settings["seed"], sample_every=0),
                callbacks=Clock(),
            )
    return [b - a for a, b in itertools.pairwise(moments)]


def peak_bytes() -> int:
    """The most memory that this process has held."""
    if sys.platform == "win32":
        import psutil  # comes with ComfyUI

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    settings = json.loads(sys.argv[1])
    prepared = prepare(settings)
    measure = host_seconds if settings["who"] == "host" else our_seconds
    seconds = measure(settings, *prepared)[WARM_UP - 1 :]
    print(json.dumps({"seconds": statistics.median(seconds), "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
