"""Graphs with the training nodes, the small files they load, and what the page shows. Shared by the tests here."""

from __future__ import annotations

import json
import time
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from attune.training.demo import networks

CHECKPOINT = "random_demo.safetensors"
OTHER_CHECKPOINT = "other_random_demo.safetensors"
PROMPTS = "a cat, flat style\na rose on a blue background"
# The last layer of a random decoder is dark; this much light makes pictures that differ.
LIGHT, CONTRAST = 0.5, 20.0


# ---- files ----


def write_checkpoint(host: Any, name: str = CHECKPOINT, *, seed: int = 3) -> Path:
    """A checkpoint of the demo model's shape with random weights, so that these tests need no trained model."""
    torch.manual_seed(seed)
    unet, text, autoencoder = networks.build_unet(), networks.build_text_encoder(), networks.build_autoencoder()
    with torch.no_grad():
        last = [layer for layer in autoencoder.decoder.modules() if isinstance(layer, torch.nn.Conv2d)][-1]
        last.weight *= CONTRAST
        last.bias.fill_(LIGHT)
    path = host.models_dir / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = networks.host_checkpoint(unet, text, autoencoder, dtype=torch.float32)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def write_pictures(host: Any) -> Path:
    """Three pictures of two sizes with caption files, in the host's input folder "attune_test_pictures"."""
    folder = host.input_dir / "attune_test_pictures"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for index, size in enumerate([(64, 64), (64, 64), (96, 64)]):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"thing number {index}", encoding="utf-8")
    return folder


def lora_file(host: Any, name: str) -> Path:
    return host.models_dir / "loras" / Path(name.replace("\\", "/"))


# ---- graphs ----


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def base_graph() -> dict[str, Any]:
    return {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "reward": node("AttuneImageStatisticsReward", statistic="brightness", goal="as high as possible", target=0.5),
        "judge": node("AttuneImageStatisticsReward", statistic="contrast", goal="as high as possible", target=0.5),
    }


def train_node(run_name: str, *, steps: int = 2, **changes: Any) -> dict[str, Any]:
    widgets = {
        "if_run_exists": "resume",
        "learning_rate": 0.01,
        "training_seed": 0,
        "preview_every": 1,
        "warmup_steps": 0,
        "schedule": "constant",
        "accumulation": 1,
        "ema": 0.0,
        "clip_norm": 1.0,
        "weight_decay": 0.0,
        "precision": "auto",
        "save_state_seconds": 60.0,
    }
    inputs = {"model": ["ckpt", 0], "objective": ["objective", 0], "run_name": run_name, "steps": steps}
    return node("AttuneTrainLora", **inputs, **(widgets | changes))


def ddpo_graph(run_name: str, *, prompts: str = PROMPTS, steps: int = 2, **train: Any) -> dict[str, Any]:
    graph = base_graph()
    graph["objective"] = node(
        "AttuneDDPOObjective",
        clip=["ckpt", 1],
        vae=["ckpt", 2],
        latent=["latent", 0],
        reward=["reward", 0],
        held_out_reward=["judge", 0],
        prompts=prompts,
        negative="",
        prompts_per_update=2,
        images_per_prompt=2,
        sampler_steps=2,
        cfg=2.0,
        trained_steps=1,
        updates_per_round=1,
        chunk=4,
        clip_range=0.0001,
        step_weights="balanced",
    )
    graph["train"] = train_node(run_name, steps=steps, **train)
    return graph


def report_of(result: Any) -> dict[str, Any]:
    return json.loads(result.ui("AttuneTrainLora", "attune_report")[0])


def state_files(host: Any, run_name: str) -> dict[str, bytes]:
    folder = host.user_dir / "attune" / "runs" / run_name
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix == ".safetensors"}


def supervised_graph(run_name: str, *, captions: Any = ("folder", 1), **changes: Any) -> dict[str, Any]:
    graph = base_graph()
    graph["folder"] = node("LoadImageTextDataSetFromFolder", folder="attune_test_pictures")
    widgets = {
        "trigger": "sketch", "resolution": 64, "batch_size": 2, "caption_dropout": 0.5, "min_snr_gamma": 5.0,
        "preview_prompts": "", "preview_steps": 2, "preview_cfg": 1.5,
    }  # fmt: skip
    graph["objective"] = node(
        "AttuneSupervisedObjective",
        images=["folder", 0],
        clip=["ckpt", 1],
        vae=["ckpt", 2],
        captions=list(captions) if isinstance(captions, tuple) else captions,
        **(widgets | changes),
    )
    graph["settings"] = node(
        "AttuneLoraSettings", rank=2, alpha=0.0, dropout=0.1, cross_attention=True, self_attention=False,
        feed_forward=True, projection=False, convolution=True, timestep=False, everything=False,
    )  # fmt: skip
    graph["train"] = train_node(run_name, steps=3) | {}
    graph["train"]["inputs"]["lora_settings"] = ["settings", 0]
    return graph


def compare_node(model_b: str, **changes: Any) -> dict[str, Any]:
    widgets = {
        "prompts": PROMPTS, "negative": "a cat, flat style", "first_seed": 5, "images_per_prompt": 2, "steps": 3,
        "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
    }  # fmt: skip
    return node(
        "AttuneCompareAB",
        model_a=["ckpt", 0],
        model_b=[model_b, 0],
        clip=["ckpt", 1],
        vae=["ckpt", 2],
        latent=["latent", 0],
        reward=["reward", 0],
        **(widgets | changes),
    )


def with_changes(graph: Mapping[str, Any], name: str, **changes: Any) -> dict[str, Any]:
    changed = json.loads(json.dumps(graph))
    changed[name]["inputs"] |= changes
    return changed


# ---- what the page shows ----


def live(host: Any, run: str) -> dict[str, Any]:
    runs = host.get("/attune/training/state")["runs"].values()
    return next((entry for entry in runs if entry["run"] == run), {"status": "absent", "step": 0})


def wait_for(host: Any, run: str, condition: Any, seconds: float = 240) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        state = live(host, run)
        if condition(state):
            return state
        time.sleep(0.1)
    raise AssertionError(f"the run {run!r} is {live(host, run)['status']} after {seconds} s")


def finished(host: Any, graph: Mapping[str, Any], seconds: float = 240) -> dict[str, Any]:
    """Queue a graph as the page does, and wait: the host's record of it.

    Raises:
        urllib.error.HTTPError: the host refused the graph before anything ran.
    """
    queued = host.post("/prompt", {"prompt": graph})["prompt_id"]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        record = host.get(f"/history/{queued}").get(queued)
        if record is not None:
            return record
        time.sleep(0.1)
    raise AssertionError(f"the graph has not ended after {seconds} s")


def shown_error(host: Any, graph: Mapping[str, Any]) -> tuple[str, str]:
    """The node that the page marks red when this graph is queued, and the words it shows."""
    try:
        record = finished(host, graph)
    except urllib.error.HTTPError as refused:
        ((name, failed), *_) = json.loads(refused.read())["node_errors"].items()
        return name, "; ".join(f"{error['message']}: {error['details']}" for error in failed["errors"])
    for kind, data in record["status"]["messages"]:
        if kind == "execution_error":
            return data["node_id"], data["exception_message"].strip()
    raise AssertionError(f"the graph did not fail: {record['status']}")


def left_in(folder: Path) -> list[str]:
    """Every file under a folder, [] if there is none."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
