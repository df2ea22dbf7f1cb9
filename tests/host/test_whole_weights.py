"""Train LoRA with trains: full, in the real host: the file, what loads it, and what refuses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attune.tests.host.graphs import (
    PROMPTS,
    base_graph,
    ddpo_graph,
    lora_file,
    node,
    report_of,
    shown_error,
    with_changes,
    write_checkpoint,
)

RUN = "whole weights"


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host) -> Path:
    return write_checkpoint(host)


def graph(run: str = RUN, **changes: Any) -> dict[str, Any]:
    return with_changes(ddpo_graph(run), "train", **({"trains": "full", "learning_rate": 1e-4} | changes))


@pytest.fixture(scope="module")
def trained(host, checkpoint) -> dict[str, Any]:
    return report_of(host.run(graph()))


def sampled(name: str, model: str) -> dict[str, Any]:
    return {
        f"sample_{name}": node(
            "KSampler", model=[model, 0], positive=["text", 0], negative=["text", 0], latent_image=["latent", 0],
            seed=5, steps=3, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        f"decode_{name}": node("VAEDecode", samples=[f"sample_{name}", 0], vae=["ckpt", 2]),
        f"save_{name}": node("SaveImage", images=[f"decode_{name}", 0], filename_prefix=f"attune_whole_{name}"),
    }  # fmt: skip


def test_every_layer_is_trained_and_the_report_says_what_it_took(host, trained):
    stored = load_file(lora_file(host, trained["lora_name"]))
    weights = {key for key in stored if key.endswith(".diff")}
    assert {key for key in stored if not key.endswith((".diff", ".diff_b"))} == set()
    assert "lora_unet_down_blocks_0_attentions_0_proj_in.diff" in weights
    assert sum(bool(stored[key].any()) for key in weights) > 0.9 * len(weights)
    assert trained["product"] == "LoRA of whole weights"
    assert trained["trained_weights"] == sum(value.numel() for value in stored.values())
    assert trained["lora"] == {"dropout": 0.0, "targets": ["everything"], "kind": "full", "part": "whole network"}
    # Gradient and two moments of every number, in 32 bit.
    assert trained["memory"]["optimizer"] == 12 * trained["trained_weights"]
    assert trained["memory"]["full"] is True


def test_the_stock_loader_draws_what_the_node_gives(host, trained):
    """And the catalogue's node, too; the file is not trained again for it."""
    both = graph() | {
        "text": node("CLIPTextEncode", clip=["ckpt", 1], text="a cat, flat style"),
        "lora": node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=trained["lora_name"], strength_model=1.0),
        "catalogue": node("AttuneLoraCatalogue", model=["ckpt", 0], lora=f"{RUN} (newest)", strength=1.0),
    }
    models = {"plain": "ckpt", "ours": "train", "stock": "lora", "catalogue": "catalogue"}
    for name, model in models.items():
        both |= sampled(name, model)
    before = host.log()
    result = host.run(both)
    said = host.log().removeprefix(before)
    assert "NOT LOADED" not in said and "lora key not loaded" not in said and "NOT MERGED" not in said
    drawn = {name: host.pixels(host.output_path(result.outputs[f"save_{name}"]["images"][0])) for name in models}
    assert np.abs(drawn["plain"] - drawn["ours"]).max() > 1 / 255
    assert np.array_equal(drawn["ours"], drawn["stock"])
    assert np.array_equal(drawn["ours"], drawn["catalogue"])
    assert report_of(result)["lora_name"] == trained["lora_name"]


def test_generator_and_assistant_have_whole_weights_each(host, checkpoint):
    """Diff-Instruct*: the memory of two roles, and the generator's weights alone in the file."""
    widgets = host.object_info()["AttuneDiffInstructObjective"]["input"]["required"]
    values = {name: entry[1]["default"] for name, entry in widgets.items() if len(entry) > 1 and "default" in entry[1]}
    small = {"prompts": PROMPTS, "prompts_per_update": 1, "images_per_prompt": 2, "assistant_warmup": 1}
    sockets = {"clip": ["ckpt", 1], "vae": ["ckpt", 2], "latent": ["latent", 0], "reward": ["reward", 0]}
    one_step = graph("whole generator", preview_every=0)
    one_step["objective"] = node("AttuneDiffInstructObjective", **(values | small | sockets))
    report = report_of(host.run(one_step))
    stored = load_file(lora_file(host, report["lora_name"]))
    assert any(value.any() for value in stored.values())
    assert report["memory"]["optimizer"] == 2 * 12 * report["trained_weights"]
    state = load_file(max((host.user_dir / "attune" / "runs" / "whole generator").glob("state-*")))
    assistant = {key: value for key, value in state.items() if "assistant." in key and key.endswith(".diff")}
    assert len(assistant) == sum(key.endswith(".diff") for key in stored)
    assert any(value.any() for value in assistant.values())


def test_a_run_keeps_what_it_trains(host, trained):
    name, words = shown_error(host, graph(trains="low rank"))
    assert name == "train"
    assert "LoRA kind (trains in the node) = 'full', now it is 'low rank'" in words


def test_weights_of_few_bits_are_refused(host):
    name, words = shown_error(host, graph("few bits", base_precision="int8"))
    assert name == "train"
    assert "A LoRA of whole weights begins with the model's own weights, which int8 would round" in words


def test_merging_is_refused_in_words(host, trained):
    merging = base_graph() | {
        "merge": node(
            "AttuneMergeLoras", name="soup", rank=0,
            file_1=trained["lora_name"], weight_1=0.5, file_2=trained["lora_name"], weight_2=0.5,
            file_3="none", weight_3=0.0, file_4="none", weight_4=0.0,
        ),
        "shown": node("PreviewAny", source=["merge", 2]),
    }  # fmt: skip
    name, words = shown_error(host, merging)
    assert name == "merge"
    assert "holds whole weights instead of a LoRA's two thin matrices" in words


def test_the_catalogue_lists_it(host, trained):
    listed = host.get("/attune/catalogue")["loras"]
    entry = next(lora for lora in listed if lora["run"] == RUN)
    assert (entry["rank"], entry["method_name"]) == (0, "DDPO")
    assert entry["settings"]["lora"]["kind"] == "full"
    stored = load_file(lora_file(host, trained["lora_name"]))
    assert max(float(value.abs().max()) for value in stored.values()) > 0
    assert all(torch.isfinite(value).all() for value in stored.values())


def test_the_job_file_carries_it(host, trained):
    job = json.loads((host.user_dir / "attune" / "runs" / RUN / "job.json").read_text(encoding="utf-8"))
    assert job["graph"][job["node"]]["inputs"]["trains"] == "full"
