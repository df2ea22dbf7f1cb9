"""The training nodes in the real host: train, resume, cancel, compare; files that the stock nodes read; errors."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from attune.scripts.server import WorkflowError
from attune.tests.host.graphs import (
    OTHER_CHECKPOINT,
    base_graph,
    compare_node,
    ddpo_graph,
    finished,
    live,
    lora_file,
    node,
    report_of,
    shown_error,
    state_files,
    supervised_graph,
    wait_for,
    with_changes,
    write_checkpoint,
    write_pictures,
)


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host) -> Path:
    return write_checkpoint(host)


@pytest.fixture(scope="module")
def trained(host, checkpoint) -> dict[str, Any]:
    """One finished DDPO run, made once: its report."""
    return report_of(host.run(ddpo_graph("finished run")))


# ---- a finished run --------------------------------------------------------------------------------------------------


def test_report_tells_what_was_done(trained):
    assert trained["status"] == "finished"
    assert trained["method"] == "ddpo"
    assert trained["steps"] == 2
    assert trained["memory"]["total"] > trained["memory"]["activations"] > 0
    assert {"loss", "reward", "held_out_reward", "gradient_norm"} <= trained["metrics"].keys()
    assert [row["step"] for row in trained["live"]["history"]] == [1, 2]


def test_lora_file_has_kohya_keys_and_says_what_it_is(host, trained):
    with safe_open(lora_file(host, trained["lora_name"]), "pt") as file:
        metadata, keys = file.metadata(), list(file.keys())
        moved = max(file.get_tensor(key).abs().max().item() for key in keys if key.endswith("lora_up.weight"))
    assert moved > 0
    assert all(key.startswith("lora_unet_") for key in keys)
    assert metadata["attune.method"] == "ddpo"
    assert metadata["attune.base_hash"] == trained["base_hash"]
    assert metadata["attune.data_hash"] == trained["data_hash"]
    assert metadata["ss_steps"] == "2"
    assert json.loads(metadata["attune.metrics"])["reward"] == pytest.approx(trained["metrics"]["reward"])


def test_stock_lora_loader_lists_the_file_and_changes_the_picture(host, trained):
    listed = host.object_info()["LoraLoaderModelOnly"]["input"]["required"]["lora_name"][0]
    assert trained["lora_name"] in listed
    graph = base_graph()
    graph["lora"] = node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=trained["lora_name"], strength_model=1.0)
    graph["text"] = node("CLIPTextEncode", clip=["ckpt", 1], text="a cat, flat style")
    for name, model in (("plain", "ckpt"), ("changed", "lora")):
        graph |= sampled(name, model)
    before = host.log()
    result = host.run(graph)
    said = host.log().removeprefix(before)
    assert "NOT LOADED" not in said
    assert "lora key not loaded" not in said
    plain, changed = (host.pixels(host.output_path(result.outputs[f"save_{name}"]["images"][0])) for name in
                      ("plain", "changed"))  # fmt: skip
    assert np.abs(plain - changed).max() > 1 / 255


def sampled(name: str, model: str, seed: int = 5) -> dict[str, Any]:
    return {
        f"sample_{name}": node(
            "KSampler", model=[model, 0], positive=["text", 0], negative=["text", 0], latent_image=["latent", 0],
            seed=seed, steps=3, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        f"decode_{name}": node("VAEDecode", samples=[f"sample_{name}", 0], vae=["ckpt", 2]),
        f"save_{name}": node("SaveImage", images=[f"decode_{name}", 0], filename_prefix=f"attune_test_{name}"),
    }  # fmt: skip


def test_model_output_equals_the_stock_loaders(host, trained):
    """The MODEL that Train LoRA puts out draws what the file draws through the stock loader."""
    graph = ddpo_graph("finished run") | {
        "text": node("CLIPTextEncode", clip=["ckpt", 1], text="a cat, flat style"),
        "lora": node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=trained["lora_name"], strength_model=1.0),
    }
    graph |= sampled("ours", "train") | sampled("stock", "lora")
    result = host.run(graph)
    ours, stock = (host.pixels(host.output_path(result.outputs[f"save_{name}"]["images"][0])) for name in
                   ("ours", "stock"))  # fmt: skip
    assert np.array_equal(ours, stock)


def test_finished_run_is_loaded_not_trained_again(host, trained):
    files = sorted((host.models_dir / "loras" / "attune").iterdir())
    host.free()
    again = report_of(host.run(ddpo_graph("finished run")))
    assert again["lora_name"] == trained["lora_name"]
    assert again["metrics"] == trained["metrics"]
    assert sorted((host.models_dir / "loras" / "attune").iterdir()) == files


def test_more_steps_continue_the_run_as_if_it_had_never_ended(host, trained):
    continued = report_of(host.run(ddpo_graph("finished run", steps=4)))
    whole = report_of(host.run(ddpo_graph("whole run", steps=4)))
    assert continued["steps"] == whole["steps"] == 4
    assert continued["lora_name"] != trained["lora_name"]
    assert same_tensors(lora_file(host, continued["lora_name"]), lora_file(host, whole["lora_name"]))


def test_fewer_steps_than_are_done_is_refused(host, trained):
    with pytest.raises(WorkflowError) as caught:
        host.run(ddpo_graph("finished run", steps=1))
    assert "updates already, and 1 are asked for" in f"{caught.value} {caught.value.details}"


def same_tensors(one: Path, two: Path) -> bool:
    first, second = load_file(one), load_file(two)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_start_fresh_trains_anew_and_keeps_the_old_file(host, trained):
    kept = lora_file(host, trained["lora_name"]).read_bytes()
    fresh = report_of(host.run(ddpo_graph("finished run", if_run_exists="start fresh", training_seed=1)))
    assert fresh["steps"] == 2
    assert fresh["lora_name"] != trained["lora_name"]
    assert lora_file(host, trained["lora_name"]).read_bytes() == kept


# ---- Cancel ----------------------------------------------------------------------------------------------------------


def test_cancel_keeps_the_work_and_the_same_run_goes_on_exactly(host):
    failures: list[BaseException] = []

    def start() -> None:
        try:
            host.run(ddpo_graph("cancelled run", steps=1000))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    wait_for(host, "cancelled run", lambda state: state["step"] >= 2)
    host.interrupt()
    state = wait_for(host, "cancelled run", lambda state: state["status"] != "running")
    thread.join(60)
    assert not thread.is_alive()
    assert failures, "an interrupted prompt must not count as a success"
    assert state["status"] == "stopped"
    assert state["samples"], "the sample pictures survive for the page"

    stopped = lora_file(host, state["file"])
    assert stopped.stem == "cancelled run_stopped_001"
    steps = state["step"]
    with safe_open(stopped, "pt") as file:
        assert int(file.metadata()["ss_steps"]) == steps

    resumed = report_of(host.run(ddpo_graph("cancelled run", steps=steps + 1)))
    whole = report_of(host.run(ddpo_graph("never cancelled", steps=steps + 1)))
    assert resumed["steps"] == steps + 1
    assert same_tensors(lora_file(host, resumed["lora_name"]), lora_file(host, whole["lora_name"]))


# ---- supervised ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture_folder(host) -> Path:
    return write_pictures(host)


def test_supervised_run_feeds_the_hosts_own_training_nodes(host, picture_folder):
    graph = supervised_graph("supervised run") | {
        "graph": node("LossGraphNode", loss=["train", 2], filename_prefix="attune_loss"),
        "save": node("SaveLoRA", lora=["train", 1], prefix="loras/attune_test"),
        "loader": node("LoraModelLoader", model=["ckpt", 0], lora=["train", 1], strength_model=1.0),
        "chart": node("PreviewImage", images=["train", 3]),
        "text": node("CLIPTextEncode", clip=["ckpt", 1], text="sketch, thing number 1"),
    }
    graph |= sampled("supervised", "loader")
    result = host.run(graph)
    report = report_of(result)
    assert report["method"] == "supervised"
    assert report["lora"]["rank"] == 2
    assert report["lora"]["alpha"] == 2.0
    ours = load_file(lora_file(host, report["lora_name"]))
    saved = load_file(next((host.output_dir / "loras").glob("attune_test*.safetensors")))
    assert ours.keys() == saved.keys()
    assert all(torch.equal(ours[key], saved[key]) for key in ours)
    chart = host.pixels(host.output_path(result.outputs["chart"]["images"][0]))
    assert chart.shape == (582, 960, 3)  # the loss, and the drift from the base model
    assert result.outputs["graph"]["images"]


# ---- errors, before anything is computed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("objective", {"prompts": "  \n \n"}), "There are no prompts"),
        (("objective", {"held_out_reward": ["reward", 0]}), "held-out reward is the reward itself"),
        (("train", {"run_name": " / "}), "cannot be a file name"),
    ],
)
def test_bad_ddpo_input_is_an_error_that_says_what_to_do(host, change, message: str):
    name, inputs = change
    graph = with_changes(ddpo_graph("never starts"), name, **inputs)
    with pytest.raises(WorkflowError) as caught:
        host.run(graph)
    assert message in f"{caught.value} {caught.value.details}"
    assert not (host.user_dir / "attune" / "runs" / "never starts").exists()


def test_more_trained_steps_than_sampler_steps_are_all_of_them(host):
    host.run(with_changes(ddpo_graph("all steps", steps=1), "objective", trained_steps=100))
    record = json.loads((host.user_dir / "attune" / "runs" / "all steps" / "run.json").read_text("utf-8"))
    assert record["status"] == "finished" and '"transitions": 2' in json.dumps(record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"captions": "one\ntwo"}, "3 pictures but 2 captions"),
        ({"captions": "", "trigger": ""}, "has no caption"),
        ({"resolution": 0, "captions": "thing", "batch_size": 0}, "batch_size"),
    ],
)
def test_bad_supervised_input_is_an_error(host, picture_folder, changes: dict[str, Any], message: str):
    with pytest.raises(WorkflowError) as caught:
        host.run(supervised_graph("never starts", **changes))
    assert message in f"{caught.value} {caught.value.details}"


def test_lora_settings_without_layers_are_refused(host, picture_folder):
    off = dict.fromkeys(("cross_attention", "feed_forward", "convolution"), False)
    with pytest.raises(WorkflowError) as caught:
        host.run(with_changes(supervised_graph("never starts"), "settings", **off))
    assert "No layers are chosen" in f"{caught.value} {caught.value.details}"


def test_another_run_under_the_same_name_is_refused_and_nothing_is_lost(host, trained):
    before = state_files(host, "finished run")
    with pytest.raises(WorkflowError) as caught:
        host.run(ddpo_graph("finished run", prompts="another prompt", steps=9))
    assert "cannot be resumed" in f"{caught.value} {caught.value.details}"
    assert state_files(host, "finished run") == before


def test_another_text_encoder_or_vae_is_refused_and_nothing_is_lost(host):
    """The same prompts, but other conditionings; the same rewards, but of other pictures."""
    write_checkpoint(host, OTHER_CHECKPOINT, seed=4)
    finished(host, ddpo_graph("same parts", steps=1))
    before = state_files(host, "same parts")
    assert before
    for part, socket, slot in (("text encoder", "clip", 1), ("VAE", "vae", 2)):
        graph = with_changes(ddpo_graph("same parts"), "objective", **{socket: ["other", slot]})
        graph["other"] = node("CheckpointLoaderSimple", ckpt_name=OTHER_CHECKPOINT)
        where, message = shown_error(host, graph)
        assert where == "train"
        assert "cannot be resumed: it was started with " + part in message
        assert state_files(host, "same parts") == before


# ---- Compare A/B -----------------------------------------------------------------------------------------------------


def test_comparison_of_a_model_with_itself_is_refused(host):
    where, message = shown_error(host, base_graph() | {"compare": compare_node("ckpt", images_per_prompt=1)})
    assert where == "compare"
    assert message.startswith("Model A and model B draw the same pictures")


def test_comparison_finds_the_figures_of_both_models(host):
    write_checkpoint(host, OTHER_CHECKPOINT, seed=4)
    graph = base_graph() | {"compare": compare_node("other", held_out_reward=["judge", 0])}
    graph["other"] = node("CheckpointLoaderSimple", ckpt_name=OTHER_CHECKPOINT)
    graph["preview"] = node("PreviewImage", images=["compare", 0])
    result = host.run(graph)
    figures = json.loads(result.ui("AttuneCompareAB", "attune_metrics")[0])
    assert figures["images"] == 4
    for name in ("reward", "held_out", "diversity"):
        assert np.isfinite([figures[f"{name}_before"], figures[f"{name}_after"]]).all()
    assert figures["reward_before"] != figures["reward_after"]
    grid = host.pixels(host.output_path(result.outputs["preview"]["images"][0]))
    assert min(grid.shape[:2]) >= 400


def test_comparison_shows_what_ksampler_draws(host, trained):
    graph = base_graph() | {
        "lora": node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=trained["lora_name"], strength_model=1.0),
        "text": node("CLIPTextEncode", clip=["ckpt", 1], text="a cat, flat style"),
        "compare": compare_node("lora"),
        "before": node("SaveImage", images=["compare", 2], filename_prefix="attune_before"),
        "after": node("SaveImage", images=["compare", 3], filename_prefix="attune_after"),
    }
    graph |= sampled("plain5", "ckpt", 5) | sampled("changed6", "lora", 6)
    result = host.run(graph)

    def picture(node_id: str, index: int = 0) -> np.ndarray:
        return host.pixels(host.output_path(result.outputs[node_id]["images"][index]))

    # Column 0 is the first seed, 5; column 1 is 6. A level of rounding apart: the batch is larger.
    assert np.abs(picture("before", 0) - picture("save_plain5")).max() <= 1.01 / 255
    assert np.abs(picture("after", 1) - picture("save_changed6")).max() <= 1.01 / 255


def test_comparison_without_prompts_is_refused(host):
    with pytest.raises(WorkflowError) as caught:
        host.run(base_graph() | {"compare": compare_node("ckpt", prompts="\n")})
    assert "There are no prompts" in f"{caught.value} {caught.value.details}"


# ---- what the page restores itself from ------------------------------------------------------------------------------


def test_state_route_holds_finished_runs(host, trained):
    entry = live(host, "finished run")
    assert entry["kind"] == "snapshot"
    assert entry["history"]
    assert entry["elapsed"] >= 0


def test_example_pictures_are_in_the_input_folder(host):
    pictures = sorted((host.input_dir / "attune_style").glob("*.png"))
    assert len(pictures) >= 10
    assert all(picture.with_suffix(".txt").read_text(encoding="utf-8").strip() for picture in pictures)
