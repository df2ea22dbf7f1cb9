"""Diffusion-DPO, Pairs from Scores and ReFL in the real host: from pictures to a LoRA, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from attune.tests.host.graphs import (
    base_graph,
    lora_file,
    node,
    report_of,
    shown_error,
    train_node,
    with_changes,
    write_checkpoint,
)


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host) -> Path:
    return write_checkpoint(host)


def pairs_graph(run_name: str, **train: Any) -> dict[str, Any]:
    """Three prompts, six pictures each, pairs by brightness, Diffusion-DPO on them."""
    graph = base_graph()
    graph["latent"]["inputs"]["batch_size"] = 6
    graph |= {
        "prompts": node(
            "AttunePromptLines", text="a cat\na rose\na dog, flat style", remove_duplicates=True, shuffle_seed=0,
            limit=0, repeat=1,
        ),
        "positive": node("CLIPTextEncode", clip=["ckpt", 1], text=["prompts", 1]),
        "negative": node("CLIPTextEncode", clip=["ckpt", 1], text=""),
        "sample": node(
            "KSampler", model=["ckpt", 0], positive=["positive", 0], negative=["negative", 0],
            latent_image=["latent", 0], seed=5, steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2]),
        "pairs": node(
            "AttunePairsFromScores", images=["decode", 0], reward=["reward", 0], prompts=["prompts", 1],
            pairing="each picture once", least_margin=0.0,
        ),
        "sheet": node("PreviewImage", images=["pairs", 3]),
        "objective": node(
            "AttuneDiffusionDPOObjective", chosen=["pairs", 0], rejected=["pairs", 1], captions=["pairs", 2],
            clip=["ckpt", 1], vae=["ckpt", 2], resolution=64, pairs_per_update=3, beta=500.0, held_out=0.3,
            caption_dropout=0.1, chunk=2, held_out_levels=2, preview_prompts="", preview_steps=2, preview_cfg=1.0,
        ),
        "train": train_node(run_name, **train),
    }  # fmt: skip
    return graph


def refl_graph(run_name: str, **knobs: Any) -> dict[str, Any]:
    graph = base_graph()
    widgets = {
        "prompts": "a cat\na rose", "negative": "", "mode": "refl", "prompts_per_update": 2, "images_per_prompt": 2,
        "sampler_steps": 3, "cfg": 2.0, "stop_from": 1, "stop_to": 2, "last_steps": 2, "margin": 2.0, "weight": 0.001,
        "chunk": 3,
    }  # fmt: skip
    graph["objective"] = node(
        "AttuneReFLObjective", clip=["ckpt", 1], vae=["ckpt", 2], latent=["latent", 0], reward=["reward", 0],
        held_out_reward=["judge", 0], **widgets | knobs,
    )  # fmt: skip
    graph["train"] = train_node(run_name)
    return graph


def test_pairs_from_scores_to_a_lora(host):
    result = host.run(pairs_graph("pairs run", evaluate_every=1, keep="best"))
    told = result.ui("AttunePairsFromScores", "text")[0]
    assert told.startswith("9 pairs of 3 prompts from 18 pictures, by ")
    report = report_of(result)
    assert (report["status"], report["method"], report["steps"]) == ("finished", "diffusion-dpo", 2)
    rows = report["live"]["history"]
    assert rows[0]["loss"] == pytest.approx(0.693, abs=0.001), "log 2, before anything is learned"
    assert rows[0]["accuracy"] == 0.5 and rows[1]["margin"] != 0
    assert all(0 <= row["held_out_accuracy"] <= 1 for row in rows)
    with safe_open(lora_file(host, report["lora_name"]), "pt") as file:
        metadata = file.metadata()
        assert max(file.get_tensor(key).abs().max().item() for key in file.keys() if "lora_up" in key) > 0  # noqa: SIM118
    assert metadata["attune.method"] == "diffusion-dpo"
    sheet = host.images(result)
    assert any(min(host.pixels(file).shape[:2]) > 400 for file in sheet)


@pytest.mark.parametrize(("mode", "method"), [("refl", "refl"), ("draft", "draft")])
def test_a_reward_is_followed_through_the_hosts_decoder(host, mode, method):
    report = report_of(host.run(refl_graph(f"{mode} run", mode=mode)))
    assert (report["status"], report["method"]) == ("finished", method)
    rows = report["live"]["history"]
    assert {"reward", "held_out_reward", "diversity", "kl_to_reference", "loss"} <= rows[1].keys()
    assert rows[0]["kl_to_reference"] < 1e-9 < rows[1]["kl_to_reference"]
    assert rows[0]["gradient_norm"] > 0
    with safe_open(lora_file(host, report["lora_name"]), "pt") as file:
        assert json.loads(file.metadata()["attune.settings"])["objective"]["mode"] == mode


@pytest.mark.parametrize(
    ("graph", "name", "changes", "failing", "said"),
    [
        (pairs_graph, "pairs", {"least_margin": 900.0}, "pairs", "all 9 that 18 pictures could make differ by 900"),
        (pairs_graph, "pairs", {"prompts": "a\nb"}, "pairs", "18 pictures in 3 batches, but 2 prompts"),
        (pairs_graph, "pairs", {"pairing": "best against worst"}, "objective", "There are 3 preference pairs"),
        (pairs_graph, "objective", {"rejected": ["decode", 0]}, "objective", "9 chosen pictures but 18 rejected"),
        (refl_graph, "objective", {"stop_to": 3}, "objective", "stop_from 1 and stop_to 3 must lie in 0 … 2"),
        (refl_graph, "reward", {"statistic": "JPEG size"}, "objective", "gives scores without gradients"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_words(host, graph, name, changes, failing, said):
    found = shown_error(host, with_changes(graph("refused run"), name, **changes))
    assert found[0] == failing
    assert said in found[1]
