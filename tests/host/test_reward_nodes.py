"""The reward nodes in the real host: scores, ranking and chart through stock nodes, errors, cancelling, caching."""

from __future__ import annotations

import csv
import json
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from attune.nodes.rewards import load_reward

CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "image_size": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
HEADER = {"kind": "clip-open_clip", "name": "Tiny", "image_size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}


def write_reward(path: Path, seed: int = 0) -> Path:
    """A small open_clip reward with random weights."""
    import open_clip

    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(HEADER | {"config": CONFIG})
    save_file(open_clip.CLIP(**CONFIG).state_dict(), path, {"attune.reward": header})
    return path


@pytest.fixture(scope="module")
def reward_file(host) -> Path:
    return write_reward(host.models_dir / "rewards" / "tiny.safetensors")


@pytest.fixture(scope="module")
def pictures(host) -> list[np.ndarray]:
    """Four pictures of three sizes, in the host's input folder "attune_scores", as 0.png … 3.png."""
    folder = host.input_dir / "attune_scores"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    found = []
    for index, size in enumerate([(64, 64), (96, 64), (64, 64), (80, 128)]):
        found.append(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        Image.fromarray(found[-1]).save(folder / f"{index}.png")
    return found


def load_images(*indices: int) -> dict[str, dict]:
    return {
        f"image{index}": {"class_type": "LoadImage", "inputs": {"image": f"attune_scores/{index}.png"}}
        for index in indices
    }


def scoring(images: list, reward: list, prompt: object = "a cat") -> dict[str, dict]:
    return {
        "score": {"class_type": "AttuneScoreImages", "inputs": {"images": images, "reward": reward, "prompt": prompt}}
    }


def reward_loader(name: str, **widgets: str) -> dict[str, dict]:
    inputs = {"reward_name": name, "device": "default", "precision": "fp32"} | widgets
    return {"reward": {"class_type": "AttuneLoadReward", "inputs": inputs}}


def statistic(name: str = "brightness") -> dict[str, dict]:
    inputs = {"statistic": name, "goal": "as high as possible", "target": 0.5}
    return {"reward": {"class_type": "AttuneImageStatisticsReward", "inputs": inputs}}


BATCH = {"batch": {"class_type": "ImageBatch", "inputs": {"image1": ["image0", 0], "image2": ["image2", 0]}}}


def shown(source: str, slot: int) -> dict[str, dict]:
    return {f"show{slot}": {"class_type": "PreviewAny", "inputs": {"source": [source, slot]}}}


def gallery(result) -> list[dict]:
    """What the node's gallery shows, best first."""
    (shown,) = result.outputs["score"]["attune_gallery"]
    return sorted(shown["images"], key=lambda entry: entry["rank"])


def saved(slot: int) -> dict[str, dict]:
    return {f"save{slot}": {"class_type": "PreviewImage", "inputs": {"images": ["score", slot]}}}


def test_the_nodes_and_their_files_are_offered(host, reward_file):
    info = host.object_info()
    offered = {name for name, node in info.items() if node["category"] == "Attune/rewards"}
    assert offered >= {"AttuneLoadReward", "AttuneImageStatisticsReward", "AttuneScoreImages", "AttuneDialogueReward"}
    files = info["AttuneLoadReward"]["input"]["required"]["reward_name"][1]["options"]
    assert "tiny.safetensors" in files
    assert "attune_demo.safetensors" not in files
    assert info["AttuneScoreImages"]["output_is_list"] == [True, True, False, False, False, True, False]


def test_scores_ranking_best_and_table(host, reward_file, pictures):
    graph = load_images(0, 2) | BATCH | reward_loader("tiny.safetensors") | scoring(["batch", 0], ["reward", 0])
    graph |= shown("score", 0) | shown("score", 1) | shown("score", 4) | saved(2) | saved(3)
    result = host.run(graph)
    images = torch.from_numpy(np.stack([pictures[0], pictures[2]])).float() / 255
    expected = load_reward(reward_file)(images, ["a cat"] * 2).tolist()
    assert [float(text) for text in result.outputs["show0"]["text"]] == pytest.approx(expected, abs=1e-4)
    best = int(np.argmax(expected))
    assert [int(text) for text in result.outputs["show1"]["text"]] == [best, 1 - best]
    table = result.outputs["score"]["text"][0]
    assert result.outputs["show4"]["text"][0] == table
    assert table.startswith("**Tiny**")
    rows = gallery(result)
    assert [row["index"] for row in rows] == [best, 1 - best]
    assert rows[0]["prompt"] == "a cat"
    assert np.array_equal(np.asarray(Image.open(host.output_path(rows[0]["file"]))), pictures[2 * best])
    picture, chart = (host.pixels(host.output_path(result.outputs[name]["images"][0])) for name in ("save2", "save3"))
    assert np.array_equal((picture * 255).round().astype(np.uint8), pictures[2 * best])
    assert chart.shape[1] > 600


def test_a_list_of_mixed_sizes_is_ranked_as_one_set(host, reward_file, pictures):
    graph = {"list": {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": "attune_scores"}}}
    graph |= statistic() | scoring(["list", 0], ["reward", 0], "") | saved(3)
    graph["list"]["_meta"] = {"title": "pictures"}
    result = host.run(graph)
    rows = gallery(result)
    weights = np.array([0.2126, 0.7152, 0.0722])
    expected = sorted(((picture / 255 @ weights).mean() for picture in pictures), reverse=True)
    assert [row["scores"][0] for row in rows] == pytest.approx(expected, abs=1e-3)
    assert len(result.outputs["save3"]["images"]) == 1


def test_several_rewards_files_and_what_was_discarded(host, reward_file, pictures):
    """Three rewards on two pictures; both files are written; the discarded picture is missing from `kept`."""
    graph = load_images(0, 2) | BATCH | reward_loader("tiny.safetensors") | scoring(["batch", 0], ["reward", 0])
    graph["bright"] = {"class_type": "AttuneImageStatisticsReward", "inputs": statistic()["reward"]["inputs"]}
    inputs = {"encoder": ["reward", 0], "kind": "diversity", "temperature": 0.07, "contrast_prompts": ""}
    graph["varied"] = {"class_type": "AttuneDialogueReward", "inputs": inputs}
    graph["score"]["inputs"] |= {
        "reward_2": ["bright", 0], "reward_3": ["varied", 0], "save_scores": "CSV and JSON", "filename_prefix": "t/s",
    }  # fmt: skip
    graph |= saved(5)
    first = host.run(graph)
    (shown,) = first.outputs["score"]["attune_gallery"]
    assert [entry["name"] for entry in shown["rewards"]] == ["Tiny", "Brightness (high)", "Diversity (Tiny)"]
    assert len(first.outputs["save5"]["images"]) == 2
    csv_file, json_file = (Path(line.removeprefix("saved: ")) for line in first.outputs["score"]["text"][1:])
    assert csv_file.parent == json_file.parent == host.output_dir / "t"
    rows = list(csv.DictReader(csv_file.read_text(encoding="utf-8-sig").splitlines()))
    document = json.loads(json_file.read_text(encoding="utf-8"))
    for row, entry, image in zip(rows, document["images"], shown["images"], strict=True):
        assert [float(row[reward["name"]]) for reward in shown["rewards"]] == entry["scores"] == image["scores"]
        assert row["hash"] == image["hash"]
    assert shown["images"][0]["scores"][2] == pytest.approx(shown["images"][1]["scores"][2], abs=1e-6)
    graph["score"]["inputs"] |= {"discarded": f"{'0' * 16} {shown['images'][0]['hash']}"}
    second = host.run(graph)
    (left,) = second.outputs["save5"]["images"]
    pixels = (host.pixels(host.output_path(left)) * 255).round().astype(np.uint8)
    assert np.array_equal(pixels, pictures[2])
    assert len(second.outputs["score"]["attune_gallery"][0]["images"]) == 2
    graph["score"]["inputs"]["discarded"] = " ".join(entry["hash"] for entry in shown["images"])
    assert "save5" not in host.run(graph).outputs, "nothing behind `kept` runs once all is discarded"


def test_consistency_looks_at_earlier_rounds(host, reward_file, pictures):
    """The earlier choice itself is perfectly consistent with it; without earlier rounds all score 0."""
    graph = load_images(0, 2) | BATCH | reward_loader("tiny.safetensors") | scoring(["batch", 0], ["same", 0])
    inputs = {"encoder": ["reward", 0], "kind": "consistency", "temperature": 0.07, "contrast_prompts": ""}
    graph["same"] = {"class_type": "AttuneDialogueReward", "inputs": inputs}
    assert [row["scores"][0] for row in gallery(host.run(graph))] == [0, 0]
    graph["score"]["inputs"]["previous"] = ["image2", 0]
    best, other = gallery(host.run(graph))
    assert best["index"] == 1
    assert best["scores"][0] == pytest.approx(1, abs=1e-5)
    assert other["scores"][0] < best["scores"][0]


def test_scores_never_leave_the_output_folder(host, pictures):
    graph = load_images(0) | statistic() | scoring(["image0", 0], ["reward", 0], "")
    graph["score"]["inputs"] |= {"save_scores": "CSV", "filename_prefix": "../../attune_outside"}
    with pytest.raises(RuntimeError) as caught:
        host.run(graph)
    assert "cannot be saved as '../../attune_outside'" in json.dumps(caught.value.details) + str(caught.value)
    assert not list(host.output_dir.parent.parent.glob("attune_outside*"))


def test_a_second_run_is_not_scored_again_until_the_file_changes(host, pictures):
    """The host logs when it places a network; a score that is remembered places none."""
    file = write_reward(host.models_dir / "rewards" / "changing.safetensors", seed=1)

    def run(prompt: str) -> tuple[list[float], int]:
        host.free()  # forgets the results of nodes, so that the reward is loaded and asked again
        before = host.log().count("Requested to load ModuleDict")
        graph = load_images(0) | reward_loader("changing.safetensors")
        result = host.run(graph | scoring(["image0", 0], ["reward", 0], prompt))
        return gallery(result)[0]["scores"], host.log().count("Requested to load ModuleDict") - before

    first, placed = run("a dog")
    assert placed == 1
    other, placed = run("another dog")
    assert placed == 1
    assert other != first
    assert run("a dog") == (first, 0)
    write_reward(file, seed=2)
    changed, placed = run("a dog")
    assert placed == 1
    assert changed != first


@pytest.mark.parametrize(
    ("prompt", "says"),
    [("one\ntwo\nthree", "3 prompts for 2 images"), ("", "prompt of image 0 is empty")],
)
def test_wrong_prompts_are_clear_errors(host, reward_file, pictures, prompt, says):
    graph = load_images(0, 2) | BATCH | reward_loader("tiny.safetensors")
    with pytest.raises(RuntimeError) as caught:
        host.run(graph | scoring(["batch", 0], ["reward", 0], prompt))
    assert says in json.dumps(caught.value.details) + str(caught.value)


def test_a_missing_file_is_refused_before_anything_runs(host, pictures):
    graph = load_images(0) | reward_loader("gone.safetensors") | scoring(["image0", 0], ["reward", 0])
    # comfy-cli would refuse it by itself; the page does not.
    with pytest.raises(urllib.error.HTTPError) as caught:
        host.post("/prompt", {"prompt": graph})
    (error,) = json.loads(caught.value.read())["node_errors"]["reward"]["errors"]
    for words in ("gone.safetensors", str(host.models_dir / "rewards"), "press R"):
        assert words in error["details"]


def test_a_foreign_file_is_a_clear_error(host, pictures):
    foreign = host.models_dir / "rewards" / "foreign.safetensors"
    foreign.parent.mkdir(parents=True, exist_ok=True)
    save_file({"model.diffusion_model.out.2.weight": torch.zeros(1)}, foreign)
    graph = load_images(0) | reward_loader(foreign.name) | scoring(["image0", 0], ["reward", 0])
    with pytest.raises(RuntimeError) as caught:
        host.run(graph)
    message = json.dumps(caught.value.details) + str(caught.value)
    assert "It looks like a checkpoint of an image model" in message
    assert "PickScore v1" in message


def test_cancel_stops_the_scoring(host):
    """JPEG files of 800 large pictures take a good while; Cancel ends them at once, and the host goes on.

    Every picture has a prompt of its own, because equal pictures with equal prompts are scored once.
    """
    graph = {
        "many": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 800, "color": 255}}
    }
    prompts = "\n".join(f"picture {number}" for number in range(800))
    graph |= statistic("JPEG size") | scoring(["many", 0], ["reward", 0], prompts)
    interrupted = []

    def cancel(event: dict) -> None:
        # As soon as the scoring begins: a fast machine has ended it before the progress bar appears.
        if not interrupted and event.get("type") == "executing" and event["node"] == "score":
            interrupted.append(event)
            host.interrupt()

    with pytest.raises(RuntimeError):
        host.run(graph, on_event=cancel)
    history = max(host.get("/history").values(), key=lambda entry: entry["prompt"][0])
    stopped = [data for kind, data in history["status"]["messages"] if kind == "execution_interrupted"]
    assert stopped
    assert stopped[0]["node_id"] == "score"
    result = host.run(
        {"one": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 255}}}
        | statistic()
        | scoring(["one", 0], ["reward", 0], "")
    )
    assert gallery(result)[0]["labels"] == ["0.0722"]
