"""One-Step Preset and One-Step Sampler in the real server: the same pictures as the host's nodes, and their words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attune.tests.host.graphs import base_graph, finished, node, shown_error, with_changes, write_checkpoint
from attune.tests.hosting import HostServer


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host: HostServer) -> Path:
    return write_checkpoint(host)


def graph(seed: int, preset: str = "SDXL-Turbo, SD-Turbo", steps: int = 1) -> dict[str, Any]:
    """The same prompt, size and seed drawn by One-Step Sampler and by three of the host's own samplers.

    Args:
        seed: another one for every test: the host tells nothing of what it has drawn before.
    """
    made = {"ckpt": base_graph()["ckpt"], "latent": base_graph()["latent"]}
    made["latent"]["inputs"]["batch_size"] = 3
    text = {"positive": "a cat, flat style", "negative": "a rose"}
    made |= {name: node("CLIPTextEncode", clip=["ckpt", 1], text=words) for name, words in text.items()}
    prompts = {"positive": ["positive", 0], "negative": ["negative", 0]}
    size = {"latent_image": ["latent", 0]}
    made |= {
        "preset": node("AttuneOneStepPreset", model=["ckpt", 0], preset=preset, steps=steps),
        "ours": node(
            "AttuneOneStepSampler", model=["ckpt", 0], positive=["positive", 0], latent=["latent", 0], seed=seed,
            steps=1, batch_size=0, preset=["preset", 0],
        ),
        "custom": node(
            "SamplerCustom", model=["ckpt", 0], add_noise=True, noise_seed=seed, cfg=1.0, sampler=["preset", 2],
            sigmas=["preset", 1], **prompts, **size,
        ),
        "guider": node("BasicGuider", model=["ckpt", 0], conditioning=["positive", 0]),
        "noise": node("RandomNoise", noise_seed=seed),
        "advanced": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], sampler=["preset", 2],
            sigmas=["preset", 1], **size,
        ),
        "stock": node(
            "KSampler", model=["ckpt", 0], seed=seed, steps=1, cfg=1.0, sampler_name="euler", scheduler="simple",
            denoise=1.0, **prompts, **size,
        ),
    }  # fmt: skip
    for name in ("ours", "custom", "advanced", "stock"):
        made[f"{name}_decoded"] = node("VAEDecode", samples=[name, 0], vae=["ckpt", 2])
        made[f"{name}_shown"] = node("PreviewImage", images=[f"{name}_decoded", 0])
    return made


def drawn(host: HostServer, record: dict[str, Any], name: str) -> np.ndarray:
    """The pictures of a sampler, [B, h, w, 3]."""
    entries = record["outputs"][f"{name}_shown"]["images"]
    return np.stack([host.pixels(host.output_path(entry)) for entry in entries])


def alone(seed: int, preset: bool = False, **changes: Any) -> dict[str, Any]:
    """One-Step Sampler with nothing beside it."""
    kept = ("ckpt", "latent", "positive", "preset", "ours", "ours_decoded", "ours_shown")
    made = {name: entry for name, entry in graph(seed).items() if name in kept}
    made["ours"]["inputs"] |= changes
    if not preset:
        del made["preset"], made["ours"]["inputs"]["preset"]
    return made


def words(record: dict[str, Any], name: str) -> str:
    return record["outputs"][name]["text"][0]


def test_one_step_sampler_draws_what_the_hosts_samplers_draw(host: HostServer):
    record = finished(host, graph(1))
    assert record["status"]["status_str"] == "success", record["status"]
    ours = drawn(host, record, "ours")
    assert len(ours) == 3 and ours.std() > 0.01
    for name in ("custom", "advanced"):
        np.testing.assert_array_equal(drawn(host, record, name), ours, err_msg=name)
    # Euler computes the last step in another order.
    np.testing.assert_allclose(drawn(host, record, "stock"), ours, atol=1.01 / 255)


def test_a_lower_timestep_is_drawn_alike_by_the_hosts_custom_samplers(host: HostServer):
    record = finished(host, graph(2, "DI*-SDXL 1 step"))
    ours = drawn(host, record, "ours")
    for name in ("custom", "advanced"):
        np.testing.assert_array_equal(drawn(host, record, name), ours, err_msg=name)
    assert np.abs(drawn(host, record, "stock") - ours).max() > 0.02, "another timestep"


def test_both_nodes_say_how_they_draw_and_what_does_not_fit(host: HostServer):
    record = finished(host, graph(3, "SDXL-Lightning", 3))
    for name in ("preset", "ours"):
        said = words(record, name)
        assert said.endswith("\nSDXL-Lightning: 3 steps at timesteps 999, 666, 332 (euler), no guidance (cfg 1).")
        assert "⚠ SDXL-Lightning is made for SDXL; this is Attune's demo model. Load that model, or choose" in said
        assert "⚠ SDXL-Lightning was trained for 1, 2, 4 or 8 steps, not 3. Set steps to that." in said


def test_sampler_alone_takes_the_timestep_from_the_model_and_says_so(host: HostServer):
    record = finished(host, alone(4, batch_size=5))
    assert len(drawn(host, record, "ours")) == 5
    assert "The demo model carries no one-step LoRA, so one step is a blur." in words(record, "ours")


def test_what_cannot_be_drawn_is_said(host: HostServer):
    name, shown = shown_error(host, alone(5, steps=9))
    assert name == "ours" and "steps" in shown
    name, shown = shown_error(host, with_changes(alone(6, preset=True), "preset", preset="Turbo"))
    assert name == "preset" and "Turbo" in shown


def test_the_demos_one_step_lora_is_listed_and_says_how_it_was_trained(host: HostServer):
    made = alone(7)
    made["ckpt"]["inputs"]["ckpt_name"] = "attune_demo.safetensors"
    made["lora"] = node(
        "LoraLoaderModelOnly", model=["ckpt", 0], lora_name="attune_demo_one_step.safetensors", strength_model=1.0
    )
    made["ours"]["inputs"]["model"] = ["lora", 0]
    said = words(finished(host, made), "ours")
    assert said.startswith("as attune_demo_one_step.safetensors was trained: 1 step at timestep "), said
    assert "⚠" not in said
