"""qlora-memory: base weights in NF4 take at most 0.35 of 16 bit's memory, and a LoRA learns at least 95 % on them.

Bed: that of ddpo-learns: the demo model, DDPO, the size of the picture as a JPEG file, unseen prompts, the learning
rate that ddpo-learns chose. Each seed trains twice, on the whole base and on the same base in NF4, with the same draws.
Both LoRAs are then measured on the *whole* base, since that is where a LoRA file is used. The gain's figure is the
ratio of the mean gains, its interval a bootstrap over seeds, pairs kept together.

Memory: the most that the base network's weights take while training, everything counted: scales, tables, biases, norms,
the layers that are left whole, and the largest layer whole beside its stored weights, as it is while it computes. Over
2 bytes per weight of the same network. The network is in 16 bit for this, as it is on a graphics card. In the details:
public networks of full size, one layer of every distinct shape of which is really stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from attune.training.adapters import LayerWeights, LoraConfig, Policy, quantised
from attune.training.adapters.quantised import QuantisedLayer, quantisable
from attune.training.demo import networks
from attune.training.memory import module_bytes
from attune.training.objectives.ddpo import DDPOObjective
from attune.training.trainer import train

from .ddpo_learns import DDPO, FULL, QUICK, TRAINER, Bed
from .record import Claim, Stopwatch, bootstrap, record

MEMORY = Claim("qlora-memory", 0.35, "<=", "×", "peak memory of base weights in NF4 against 16 bit")
GAIN = Claim("qlora-memory.gain", 0.95, ">=", "×", "DDPO's gain on a base in NF4 against the whole base")
SEEDS = (0, 1, 2, 3, 4)
RATE = 3e-3


# ---- what it learns --------------------------------------------------------------------------------------------------


def learned(bed: Bed, seed: int, precision: str) -> dict[str, Any]:
    """One training run; its gain in standard deviations of the base's scores, on the whole base."""
    lora = LoraConfig(rank=8, seed=seed)
    denoiser = bed.pipeline.denoiser
    stored = quantised(denoiser.module, precision) if precision else nullcontext()
    with stored, Policy(denoiser, lora) as policy:
        objective = DDPOObjective(
            bed.pipeline.prompts(bed.practice), bed.reward, bed.pipeline.decoder,
            replace(DDPO, step_weights="balanced"), latent_shape=bed.pipeline.latent_shape, held_out=bed.judge,
        )  # fmt: skip
        trainer = replace(TRAINER, steps=bed.plan.updates, learning_rate=RATE, seed=seed)
        result = train(policy, objective, trainer)
    with Policy(denoiser, lora) as policy:
        policy.load_tensors(result.tensors)
        after = bed.measure(policy, bed.texts)
    gain = (after["reward"].mean() - bed.base["reward"].mean()) / bed.base["reward"].std()
    row = {
        "precision": precision or "as loaded", "seed": seed, "gain_sd": gain.item(), "seconds": result.seconds,
        "held_out": after["held_out"], "diversity": after["diversity"],
        "curve": [entry["reward"] for entry in result.history],
    }  # fmt: skip
    print({name: value for name, value in row.items() if name != "curve"}, flush=True)
    return row


def ratio_of_gains(pairs: Sequence[tuple[float, float]]) -> float:
    """Mean gain in NF4 over mean gain on whole weights."""
    stored, whole = np.mean(pairs, 0)
    return float(stored / whole)


def paired_interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Bootstrap over seeds."""
    rows = range(len(pairs))
    return bootstrap(rows, lambda drawn: ratio_of_gains([pairs[int(row)] for row in drawn]))


# ---- what it takes ---------------------------------------------------------------------------------------------------


def demo_memory(precision: str) -> dict[str, float]:
    """The demo network really stored."""
    unet = networks.build_unet().half().requires_grad_(False)
    whole = 2 * sum(value.numel() for value in unet.parameters())
    kinds = {"linear": nn.Linear, "convolution": nn.Conv2d}
    weights = {kind: sum(2 * m.weight.numel() for m in unet.modules() if isinstance(m, c)) for kind, c in kinds.items()}
    with quantised(unet, precision):
        held = module_bytes(unet)
        layers = [part for part in unet.modules() if isinstance(part, QuantisedLayer)]
        parts = {
            kind: sum(
                module_bytes(m.stored) if isinstance(m, QuantisedLayer) else 2 * m.weight.numel()
                for m in unet.modules()
                if isinstance(m, c)
            )
            for kind, c in kinds.items()
        }
        largest = max(2 * part.stored.shape.numel() for part in layers)
    return {
        "whole network": held / whole,
        "weights of linear layers": parts["linear"] / weights["linear"],
        "weights of convolutions": parts["convolution"] / weights["convolution"],
        "largest layer while it computes": largest / whole,
        "at most": (held + largest) / whole,
    }


def full_size_networks() -> dict[str, Callable[[], nn.Module]]:
    """Public networks by their makers' sizes, without weights."""
    from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

    levels = {"block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048}
    sdxl = levels | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    sd3 = {"sample_size": 128, "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
    sd3 |= {"joint_attention_dim": 4096, "pooled_projection_dim": 2048, "pos_embed_max_size": 192}
    return {
        "Stable Diffusion 1.5": lambda: UNet2DConditionModel(cross_attention_dim=768),
        "SDXL": lambda: UNet2DConditionModel(**sdxl),
        "Stable Diffusion 3 medium": lambda: SD3Transformer2DModel(**sd3),
        "FLUX.1-dev": lambda: FluxTransformer2DModel(guidance_embeds=True),
    }


def full_size_memory(build: Callable[[], nn.Module], precision: str) -> dict[str, float]:
    """A network of full size, of whose layers one of each shape is stored, with random weights."""
    with torch.device("meta"):
        network = build()
    whole = 2 * sum(value.numel() for value in network.parameters())
    held, largest, sizes = whole, 0, {}
    for layer in quantisable(network).values():
        shape = tuple(layer.weight.shape)
        if shape not in sizes:
            sizes[shape] = stored_size(layer, precision)
        held += sizes[shape] - 2 * layer.weight.numel()
        largest = max(largest, 2 * layer.weight.numel())
    return {"parameters": whole // 2, "whole network": held / whole, "at most": (held + largest) / whole}


def stored_size(layer: nn.Module, precision: str) -> int:
    """Bytes of one layer's stored weight."""

    def random(layer: nn.Module, device: torch.device) -> LayerWeights:
        return LayerWeights(torch.empty(layer.weight.shape, dtype=torch.float16).uniform_(-1, 1), None)

    one = nn.Sequential(layer)
    with quantised(one, precision, device=torch.device("cpu"), read=random):
        return module_bytes(one[0].stored)


def memory() -> dict[str, Any]:
    """All figures of memory, over 16 bit's."""
    found = {}
    for precision in ("nf4", "int8"):
        rows = {"demo model": demo_memory(precision)}
        rows |= {name: full_size_memory(build, precision) for name, build in full_size_networks().items()}
        found[precision] = rows
        for name, row in rows.items():
            print(precision, name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    return found


def main(quick: bool) -> None:
    plan, seeds = (QUICK, SEEDS[:2]) if quick else (FULL, SEEDS)
    watch = Stopwatch()
    torch.set_flush_denormal(True)
    held = memory()
    bed = Bed(plan)
    rows = [learned(bed, seed, precision) for seed in seeds for precision in ("", "nf4")]
    pairs = [(rows[2 * i + 1]["gain_sd"], rows[2 * i]["gain_sd"]) for i in range(len(seeds))]
    attempts = [{"what": f"{row['precision']}, seed {row['seed']}: gain", "value": row["gain_sd"]} for row in rows]
    record(
        MEMORY, held["nf4"]["demo model"]["at most"], ci=None, seeds=1, seconds=watch.seconds, quick=quick,
        samples=[row["at most"] for row in held["nf4"].values()], details={"over_16_bit": held},
    )  # fmt: skip
    record(
        GAIN, ratio_of_gains(pairs), ci=paired_interval(pairs), seeds=len(seeds), seconds=watch.seconds, quick=quick,
        samples=[stored / whole for stored, whole in pairs], attempts=attempts,
        details={"runs": rows, "learning_rate": RATE} | bed.details(),
    )  # fmt: skip
