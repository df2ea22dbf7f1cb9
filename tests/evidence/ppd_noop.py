"""ppd-noop: with strength 0, without a user, and after it has been taken off, the adapter changes no bit of a picture.

Bed: the demo model with guidance, a whole sampler run, and an adapter whose matrices are random, so that it would
change every picture if it acted at all (checked). Figure: share of the pictures, over all ways of being off, that are
bit-identical to those of the bare model.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from attune.training.adapters.user_attention import UserAdapterConfig
from attune.training.adapters.user_policy import UserPolicy, personal
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.demo.train_user import draw
from attune.training.interfaces import Prompt

from ._ppd_bed import DEMO, SEEDS
from .record import Claim, Stopwatch, record

CLAIM = Claim("ppd-noop", 1.0, ">=", "", "pictures bit-identical with strength 0, without user, and afterwards")


def trial(pipeline: DemoPipeline, seed: int, count: int) -> dict[str, float]:
    """Share of bit-identical latents for every way of being off, and for being on."""
    names = data.CONCEPT_NAMES[seed * count :][:count]
    prompts = pipeline.prompts([prompt_text(name) for name in names])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(prompts), *pipeline.latent_shape, generator=generator)
    tokens = torch.randn(len(prompts), 4, 128, generator=generator)
    shown = [personal(prompt, own) for prompt, own in zip(prompts, tokens, strict=True)]
    nobody = [personal(prompt, None) for prompt in prompts]
    empty = [personal(prompt, 0 * own) for prompt, own in zip(prompts, tokens, strict=True)]
    denoiser = pipeline.denoiser

    def latents(policy: object, asked: list[Prompt]) -> torch.Tensor:
        return draw(policy, pipeline, asked, noise)[0]

    expected, found = latents(denoiser, prompts), {}
    with UserPolicy(denoiser, replace(UserAdapterConfig(), start="text", seed=seed)) as policy:
        found["on"] = latents(policy, shown)
        found["nobody is shown"] = latents(policy, nobody)
        found["the embedding is zero"] = latents(policy, empty)
        found["no conditioning is personal"] = latents(policy, prompts)
        with policy.role(None):
            found["reference"] = latents(policy, shown)
        policy.strength = 0.0
        found["strength 0"] = latents(policy, shown)
    found["taken off"] = latents(denoiser, prompts)
    return {
        name: sum(torch.equal(a, b) for a, b in zip(own, expected, strict=True)) / len(expected)
        for name, own in found.items()
    }


def main(quick: bool) -> None:
    torch.set_flush_denormal(True)
    watch, pipeline = Stopwatch(), DemoPipeline.load(DEMO / "attune_demo.safetensors")
    rows = [trial(pipeline, seed, 2 if quick else 8) for seed in SEEDS]
    if any(row.pop("on") for row in rows):
        raise RuntimeError("The adapter left a picture alone that it should have changed; nothing is shown by this.")
    values = [sum(row.values()) / len(row) for row in rows]
    record(
        CLAIM,
        sum(values) / len(values),
        ci=None,
        seeds=len(SEEDS),
        seconds=watch.seconds,
        quick=quick,
        samples=values,
        attempts=[{"what": name, "value": row[name]} for row in rows for name in row],
        details={"ways of being off": list(rows[0])},
    )
