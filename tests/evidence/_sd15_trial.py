"""One method of sd15-full-size, in a process of its own: prints what it took as its last line."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
FULL = {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
}
VAE = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128}
VAE |= {"ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}


def full_vae() -> Any:
    """A VAE with the sizes of Stable Diffusion's, random weights."""
    import comfy.sd
    import torch
    from comfy.ldm.models.autoencoder import AutoencoderKL

    with torch.inference_mode():
        weights = AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict()
        generator = torch.Generator().manual_seed(1)
        for value in weights.values():
            bound = 1 / max(1, value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
            value.uniform_(-bound, bound, generator=generator)
        return comfy.sd.VAE(sd=weights)


def peak_bytes() -> int:
    """Peak resident memory of this process; Linux counts it in kB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def one_update(settings: dict[str, Any]) -> dict[str, Any]:
    import architectures
    import method_checks
    import psutil
    import torch
    import world

    from attune.nodes.host.decoder import HostDecoder
    from attune.nodes.host.session import training_session
    from attune.nodes.training.fitting import blocks_of, fitting
    from attune.training.adapters import LoraConfig, Policy
    from attune.training.memory import MemorySettings, module_bytes
    from attune.training.objectives.dag_config import DAGConfig
    from attune.training.trainer import TrainerConfig, train

    shape = (4, settings["size"], settings["size"])
    kind = architectures.Architecture(
        "SD15", "eps", architectures.ARCHITECTURES["sd15"].network, architectures.UNET | FULL, 768, None, shape
    )
    model, vae = kind.load(), full_vae()
    made = [world.random_conditioning(seed, 768) for seed in (1, 2)]
    decoder = HostDecoder(vae, model)
    process = psutil.Process()

    def free() -> int:
        return min(denoiser.free_memory(), int(settings["budget"] * GIB) - process.memory_info().rss)

    with training_session(model, companions=[vae.patcher], precision=settings["precision"]) as denoiser:
        denoiser.set_unconditional(made[1])
        bed = method_checks.Bed([denoiser.prompt("a cat", made[0])], decoder, shape)
        objective = method_checks.METHODS[settings["method"]](bed)
        changes = {"chunk": 1} if hasattr(objective.config, "chunk") else {}
        if hasattr(objective.config, "guidance"):
            changes["guidance"] = 5.0
        if isinstance(objective.config, DAGConfig):
            changes["flow_channels"] = DAGConfig.flow_channels
        objective.config = replace(objective.config, **changes)
        with Policy(denoiser, LoraConfig()) as policy:
            cond = bed.prompts[0].positive
            guidance = getattr(objective.config, "guidance", 1.0)
            # A preference is about two pictures at a time.
            batch = 2 if settings["method"] == "diffusion-dpo" else 1
            measured = getattr(objective, "picture_memory", None)

            def pictures() -> Any:
                return measured(policy.device) if measured else None

            fit = fitting(
                policy, MemorySettings(), shape, cond, free,
                batch=batch, guidance=guidance, autocast=None, average=False, knob="", pictures=pictures,
                own=objective.own_memory() if hasattr(objective, "own_memory") else 0,
            )  # fmt: skip
            if fit.problem:
                raise MemoryError(fit.problem)
            began = time.perf_counter()
            with blocks_of(policy) if fit.checkpointing else nullcontext():
                result = train(policy, objective, TrainerConfig(steps=1, learning_rate=1e-3, sample_every=0))
            seconds = time.perf_counter() - began
            moved = [float(value.abs().max()) for name, value in result.tensors.items() if ".lora_up." in name]
            weights = sum(p.numel() for p in denoiser.module.parameters())
            return {
                "method": settings["method"],
                "precision": settings["precision"] or "as loaded",
                "checkpointing": fit.checkpointing,
                "estimate_gb": fit.needed.total / GIB,
                "base_gb": module_bytes(denoiser.module) / GIB,
                "parameters": weights,
                "peak_gb": peak_bytes() / GIB,
                "seconds": seconds,
                "loss": result.history[0]["loss"],
                "finite": math.isfinite(result.history[0]["loss"]) and all(map(math.isfinite, moved)),
                "moved": max(moved),
                "threads": torch.get_num_threads(),
            }


def main() -> None:
    settings = json.loads(sys.argv[1])
    sys.path.insert(0, str(ROOT / "tests" / "host" / "adapters"))
    import world

    world.enter(Path(settings["comfyui"]), Path(settings["base"]))
    print(json.dumps(one_update(settings)))


if __name__ == "__main__":
    main()
