"""Bad input and failing disks, through the nodes in the real host: what the page shows, and nothing half is left."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attune.tests.host.graphs import (
    OTHER_CHECKPOINT,
    base_graph,
    compare_node,
    ddpo_graph,
    finished,
    left_in,
    live,
    lora_file,
    node,
    shown_error,
    supervised_graph,
    wait_for,
    with_changes,
    write_checkpoint,
    write_pictures,
)
from attune.training.checkpoint import read_state

ZERO = {"nothing": node("PrimitiveInt", value=0)}  # a wired number passes the host's own check of the lowest value


@pytest.fixture(scope="module", autouse=True)
def _files(host) -> None:
    write_checkpoint(host)
    write_checkpoint(host, OTHER_CHECKPOINT, seed=4)
    write_pictures(host)


@pytest.fixture(autouse=True)
def _whole_files_only(host) -> Iterator[None]:
    """After every test: nothing half-written, in the run folders as among the LoRAs."""
    yield
    runs, loras = host.user_dir / "attune" / "runs", host.models_dir / "loras"
    assert not [name for name in (*left_in(runs), *left_in(loras)) if ".partial" in name]
    for file in runs.glob("*/*.safetensors"):
        read_state(file)
    for file in loras.rglob("*.safetensors"):
        load_file(file)


def run_folder(host: Any, name: str) -> Path:
    return host.user_dir / "attune" / "runs" / name


def loras_of(host: Any, name: str) -> list[str]:
    return [file for file in left_in(host.models_dir / "loras") if file.startswith(f"attune/{name}_")]


# ---- nothing to work with --------------------------------------------------------------------------------------------


def test_no_pictures_to_learn_from(host):
    graph = supervised_graph("no pictures", captions="a thing") | ZERO
    graph["none"] = node("EmptyImage", width=64, height=64, batch_size=["nothing", 0], color=0)
    graph["objective"]["inputs"]["images"] = ["none", 0]
    where, message = shown_error(host, graph)
    assert where == "objective"
    assert message.startswith("There are no pictures to learn from. Put at least one")
    assert not run_folder(host, "no pictures").exists()
    assert not loras_of(host, "no pictures")


def test_no_pictures_to_score(host):
    graph = {key: value for key, value in base_graph().items() if key == "reward"} | ZERO
    graph["none"] = node("EmptyImage", width=64, height=64, batch_size=["nothing", 0], color=0)
    graph["score"] = node("AttuneScoreImages", images=["none", 0], reward=["reward", 0], prompt="a cat")
    assert shown_error(host, graph) == (
        "score",
        "There are no images to score: the batch is empty. Connect at least one image.",
    )


def test_an_empty_latent_batch_still_has_a_size(host):
    """The latent's content is ignored by our nodes, so it does not matter that there is none."""
    graph = base_graph() | ZERO | {"compare": compare_node("other", images_per_prompt=1, steps=1)}
    graph["other"] = node("CheckpointLoaderSimple", ckpt_name=OTHER_CHECKPOINT)
    graph["latent"]["inputs"]["batch_size"] = ["nothing", 0]
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    assert json.loads(record["outputs"]["compare"]["attune_metrics"][0])["images"] == 2


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_refused_before_anything_runs(host):
    graph = ddpo_graph("missing file")
    for where, loader, words in (
        ("ckpt", node("CheckpointLoaderSimple", ckpt_name="gone.safetensors"), "gone.safetensors"),
        ("lora", node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name="gone.sft", strength_model=1.0), "gone.sft"),
        ("reward", node("AttuneLoadReward", reward_name="gone.pt", device="cpu", precision="fp32"), "gone.pt"),
    ):
        broken = graph | {where: loader}
        if where == "lora":
            broken = with_changes(broken, "train", model=["lora", 0])
        failed, message = shown_error(host, broken)
        assert failed == where
        assert words in message
    assert not run_folder(host, "missing file").exists()
    assert not loras_of(host, "missing file")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("text.safetensors", b"these are words", "text.safetensors is not a readable safetensors file"),
        ("text.pt", b"these are words", "text.pt is damaged or no torch file"),
        ("empty.safetensors", b"", "empty.safetensors is not a readable safetensors file"),
    ],
)
def test_a_reward_file_of_another_kind(host, name: str, content: bytes, says: str):
    file = host.models_dir / "rewards" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    graph = ddpo_graph("wrong reward")
    graph["reward"] = node("AttuneLoadReward", reward_name=name, device="cpu", precision="fp32")
    where, message = shown_error(host, graph)
    assert where == "reward"
    assert says in message
    assert message.endswith(
        ("Choose another file.", "Get the file again.", "Get the file again, or choose another.")
    ), message
    assert not run_folder(host, "wrong reward").exists()
    assert not loras_of(host, "wrong reward")


# ---- a reward that returns NaN ---------------------------------------------------------------------------------------

REWARD = {
    "embed_dim": 32,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "image_size": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def nan_reward(host) -> dict[str, Any]:
    """The node of a reward whose weights a broken training has turned into NaN."""
    import open_clip

    header = {"kind": "clip-open_clip", "name": "Broken", "image_size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
    weights = {key: torch.full_like(value, torch.nan) if value.is_floating_point() else value
               for key, value in open_clip.CLIP(**REWARD).state_dict().items()}  # fmt: skip
    file = host.models_dir / "rewards" / "broken.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file, {"attune.reward": json.dumps(header | {"config": REWARD})})
    return node("AttuneLoadReward", reward_name=file.name, device="cpu", precision="fp32")


def test_a_reward_that_returns_nan_stops_the_run_before_it_learns(host, nan_reward):
    where, message = shown_error(host, ddpo_graph("nan reward") | {"reward": nan_reward})
    assert where == "train"
    assert "Broken returned nan for image 1 of" in message
    assert "choose another reward" in message
    # The state before the first update, and nothing that came of the reward.
    assert left_in(run_folder(host, "nan reward")) == ["run.lock", "state-0.safetensors"]
    assert not loras_of(host, "nan reward")


def test_a_reward_that_returns_nan_scores_nothing(host, nan_reward):
    graph = {"reward": nan_reward, "one": node("EmptyImage", width=64, height=64, batch_size=1, color=0)}
    graph["score"] = node("AttuneScoreImages", images=["one", 0], reward=["reward", 0], prompt="a cat")
    where, message = shown_error(host, graph)
    assert where == "score"
    assert "Broken returned nan for image 1 of 1" in message


# ---- numbers that do not divide --------------------------------------------------------------------------------------


def trained(host: Any, graph: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The LoRA of a graph that succeeds."""
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    report = json.loads(record["outputs"]["train"]["attune_report"][0])
    return load_file(lora_file(host, report["lora_name"]))


def test_a_chunk_that_does_not_divide_the_pictures_changes_nothing(host):
    """Four pictures in one call, or three and one: the same gradient, up to rounding."""
    graph = ddpo_graph("one chunk", steps=1, preview_every=0)
    together = trained(host, graph)
    parts = with_changes(with_changes(graph, "objective", chunk=3), "train", run_name="chunk and a rest")
    for key, value in trained(host, parts).items():
        # One step of Adam moves by the sign of the gradient, whatever its size: 1e-2 is the learning rate.
        assert torch.isclose(value, together[key], atol=1e-4).float().mean() > 0.99, key


@pytest.mark.parametrize("batch_size", [2, 8])
def test_a_batch_that_does_not_divide_the_pictures(host, batch_size: int):
    """Three pictures: two at a time, and more than there are."""
    graph = supervised_graph(f"batch of {batch_size}", batch_size=batch_size)
    tensors = trained(host, with_changes(graph, "train", steps=2, preview_every=0))
    assert all(torch.isfinite(value).all() for value in tensors.values())


# ---- a LoRA for another architecture ---------------------------------------------------------------------------------


def test_a_lora_for_another_architecture_is_an_error_and_no_comparison(host):
    """The stock loader applies nothing of it and goes on; what compares the pictures must say so."""
    name = "foreign.safetensors"
    layer = "lora_unet_double_blocks_0_img_attn_qkv"
    file = host.models_dir / "loras" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{layer}.lora_down.weight": torch.ones(2, 64), f"{layer}.lora_up.weight": torch.ones(192, 2)}, file)
    graph = base_graph() | {"compare": compare_node("lora", images_per_prompt=1, steps=1)}
    graph["lora"] = node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=name, strength_model=1.0)
    before = host.log()
    where, message = shown_error(host, graph)
    assert where == "compare"
    assert message.startswith("Model A and model B draw the same pictures")
    assert "it was trained for another architecture" in message
    # The message sends the reader to these words.
    assert "lora key not loaded" in host.log().removeprefix(before)


# ---- disks -----------------------------------------------------------------------------------------------------------


@contextmanager
def file_in_place_of(folder: Path) -> Iterator[None]:
    """A folder that cannot be written, not even by root, whom permissions do not bind: a file has its name."""
    kept = folder.with_name(f"{folder.name} kept")
    if folder.exists():
        folder.rename(kept)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder")
    try:
        yield
        assert folder.read_text() == "not a folder"
    finally:
        folder.unlink()
        if kept.exists():
            kept.rename(folder)


def test_a_lora_folder_that_cannot_be_written_is_known_before_training(host):
    with file_in_place_of(host.models_dir / "loras" / "attune"):
        where, message = shown_error(host, ddpo_graph("no lora folder"))
    assert where == "train"
    assert message.startswith("The LoRA could not be saved in")
    assert message.endswith("Make the folder writable or free some space, then press Run again.")
    assert not run_folder(host, "no lora folder").exists()
    assert not loras_of(host, "no lora folder")


def test_a_run_folder_that_cannot_be_written_is_known_before_training(host):
    with file_in_place_of(run_folder(host, "no run folder")):
        where, message = shown_error(host, ddpo_graph("no run folder"))
        assert live(host, "no run folder")["status"] == "failed"
        assert not loras_of(host, "no run folder")
    assert where == "train"
    assert message.startswith("The state of this run could not be saved. Could not write")
    assert "Check that the folder is writable and the disk has room, then retry." in message


@contextmanager
def full_disk(host: Any, room: int) -> Iterator[None]:
    """No file of the host may grow beyond `room` bytes: its writes fail as on a full disk.

    Nothing is mounted, which not every machine allows: it is the operating system's limit on the running host.
    """
    import resource

    hosts = host_processes(host)
    assert hosts, "the host's processes were not found"
    before = [resource.prlimit(process, resource.RLIMIT_FSIZE) for process in hosts]
    for process, (_, hard) in zip(hosts, before, strict=True):
        resource.prlimit(process, resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        for process, limits in zip(hosts, before, strict=True):
            resource.prlimit(process, resource.RLIMIT_FSIZE, limits)


def host_processes(host: Any) -> list[int]:
    """Everything that was started with the host: comfy-cli and the host itself are one process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == host.process.pid:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


@pytest.mark.needs_system("linux", "only there can the limits of a running process be changed")
def test_a_disk_that_fills_up_keeps_the_last_state_and_the_run_goes_on_from_it(host):
    name = "full disk"
    errors: list[tuple[str, str]] = []
    graph = ddpo_graph(name, steps=1000, preview_every=0, save_state_seconds=0.0)
    thread = threading.Thread(target=lambda: errors.append(shown_error(host, graph)))
    thread.start()
    wait_for(host, name, lambda state: state["step"] >= 2)
    state = max(run_folder(host, name).glob("state-*.safetensors"), key=lambda file: file.stat().st_mtime)
    room = state.stat().st_size // 2
    # The host's log must still fit.
    assert host.log_file.stat().st_size < room // 2
    with full_disk(host, room):
        ended = wait_for(host, name, lambda state: state["status"] != "running")
        thread.join(60)
    assert not thread.is_alive()
    assert ended["status"] == "failed"
    ((where, message),) = errors
    assert where == "train"
    assert message.startswith("The state of this run could not be saved. Could not write")
    assert "Check that the folder is writable and the disk has room, then retry." in message
    kept = sorted(int(file.stem.removeprefix("state-")) for file in run_folder(host, name).glob("state-*.safetensors"))
    assert len(kept) == 2
    states = sorted(f"state-{step}.safetensors" for step in kept)
    assert left_in(run_folder(host, name)) == ["job.json", "log.jsonl", "run.json", "run.lock", *states]
    # A LoRA is smaller than a state and still found room.
    assert loras_of(host, name) == [f"attune/{name}_stopped_001.safetensors"]

    graph = with_changes(graph, "train", steps=kept[-1] + 1)
    whole = with_changes(graph, "train", run_name="roomy disk")
    resumed, uninterrupted = trained(host, graph), trained(host, whole)
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[key], uninterrupted[key]) for key in resumed)
