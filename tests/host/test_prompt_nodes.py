"""Prompt sources in the real host: their lists, files that change, links into the boxes of other nodes, and errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attune.tests.host.graphs import (
    base_graph,
    compare_node,
    finished,
    node,
    shown_error,
    with_changes,
    write_checkpoint,
)
from attune.tests.hosting import HostServer

ARRANGED = {"remove_duplicates": True, "shuffle_seed": 0, "limit": 0, "repeat": 1}


@pytest.fixture(scope="module", autouse=True)
def files(host: HostServer) -> None:
    write_checkpoint(host)
    folder = host.input_dir / "prompt_test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list.csv").write_text("n,prompt\n1,a cat\n2,a dog\n", encoding="utf-8")
    (host.input_dir / "wildcards").mkdir(exist_ok=True)
    (host.input_dir / "wildcards" / "test_animal.txt").write_text("cat\ndog\n", encoding="utf-8")


def sources() -> dict[str, Any]:
    return {
        "lines": node("AttunePromptLines", text="# two\na cat\n\na dog\na cat", **ARRANGED),
        "file": node("AttunePromptsFromFile", file="prompt_test/list.csv", field="", **ARRANGED),
        "template": node(
            "AttunePromptTemplate",
            template="a __test_animal__{|, red}",
            mode="all combinations",
            how_many=8,
            draw_seed=0,
        ),
        "captions": node("AttunePromptsFromCaptions", folder="attune_style", trigger="", field="", **ARRANGED),
    }


def shown(record: dict[str, Any], name: str) -> list[str]:
    return record["outputs"][name]["attune_prompts"][0].splitlines()


def test_all_sources_show_their_prompts(host: HostServer):
    record = finished(host, sources())
    assert shown(record, "lines") == ["2 prompts, 1 double removed", "a cat", "a dog"]
    assert shown(record, "file") == ["2 prompts", "a cat", "a dog"]
    assert shown(record, "template") == ["All 4 combinations", "a cat", "a cat, red", "a dog", "a dog, red"]
    captions = shown(record, "captions")
    assert captions[0] == "24 prompts" and "a fox" in captions


def test_the_examples_are_in_the_input_folder_and_in_the_lists(host: HostServer):
    inputs = host.object_info()
    choices = lambda name, id: inputs[name]["input"]["required"][id]  # noqa: E731
    assert "attune_prompts/prompts.csv" in json.dumps(choices("AttunePromptsFromFile", "file"))
    assert "attune_style" in json.dumps(choices("AttunePromptsFromCaptions", "folder"))
    assert (host.input_dir / "wildcards" / "attune" / "animal.txt").is_file()
    (host.input_dir / "new_prompts.txt").write_text("a fox", encoding="utf-8")
    assert "new_prompts.txt" in json.dumps(host.get("/object_info/AttunePromptsFromFile"))


def test_prompts_reach_the_boxes_of_other_nodes(host: HostServer):
    """As one text into a multiline box, and one by one into a node that then runs for each."""
    graph = base_graph() | sources()
    graph["compare"] = compare_node("b", prompts=["lines", 0])
    graph["b"] = node("ModelSamplingDiscrete", model=["ckpt", 0], sampling="eps", zsnr=False)
    graph["encode"] = node("CLIPTextEncode", clip=["ckpt", 1], text=["file", 1])
    graph["sample"] = node(
        "KSampler", model=["ckpt", 0], positive=["encode", 0], negative=["encode", 0], latent_image=["latent", 0],
        seed=1, steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    graph["decode"] = node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2])
    graph["score"] = node(
        "AttuneScoreImages", images=["decode", 0], reward=["reward", 0], prompt=["file", 0], save_scores="nothing",
        filename_prefix="x", discarded="",
    )  # fmt: skip
    graph["count"] = node("PreviewAny", source=["file", 2])
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    assert json.loads(record["outputs"]["compare"]["attune_metrics"][0])["images"] == 4
    images = record["outputs"]["score"]["attune_gallery"][0]["images"]
    assert [image["prompt"] for image in images] == ["a cat", "a dog"]
    assert record["outputs"]["count"]["text"] == ["2"]


def test_a_file_that_changes_is_read_again_and_no_other(host: HostServer):
    executed = lambda record: next(  # noqa: E731
        set(sources()) - set(data["nodes"]) for kind, data in record["status"]["messages"] if kind == "execution_cached"
    )
    finished(host, sources())
    assert executed(finished(host, sources())) == set()
    (host.input_dir / "prompt_test" / "list.csv").write_text("n,prompt\n1,a bird\n", encoding="utf-8")
    record = finished(host, sources())
    assert executed(record) == {"file"} and shown(record, "file") == ["1 prompt", "a bird"]
    (host.input_dir / "wildcards" / "test_animal.txt").write_text("fox\n", encoding="utf-8")
    record = finished(host, sources())
    assert executed(record) == {"template"} and shown(record, "template")[1:] == ["a fox", "a fox, red"]
    (host.input_dir / "attune_style" / "fox.txt").write_text("a sly fox", encoding="utf-8")
    record = finished(host, sources())
    assert executed(record) == {"captions"} and "a sly fox" in shown(record, "captions")
    (host.input_dir / "attune_style" / "fox.txt").write_text("a fox", encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("lines", {"text": "# nothing"}, "There are no prompts in the text"),
        ("file", {"file": "absent.txt"}, "There is no file 'absent.txt'"),
        ("file", {"file": "../user/attune.txt"}, "is no file inside the folder 'input'"),
        ("file", {"field": "words"}, "prompt_test/list.csv, line 1: there is no column 'words'"),
        ("template", {"template": "a {cat"}, "line 1: the { at letter 3 is never closed"),
        ("template", {"template": "a __nothing__"}, "there is no wildcard __nothing__"),
        ("captions", {"folder": "absent"}, "There is no folder 'absent'"),
        ("captions", {"folder": "prompt_test"}, "No picture in 'prompt_test' has a caption"),
    ],
)
def test_mistakes_are_explained_at_the_node(host: HostServer, name: str, changes: dict[str, Any], words: str):
    at, message = shown_error(host, with_changes({name: sources()[name]}, name, **changes))
    assert at == name and words in message
