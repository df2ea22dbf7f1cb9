"""The LoRA catalogue through a real server: the tab's routes, the stock loader's list, and both nodes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attune.scripts.server import WorkflowError
from attune.tests.host.graphs import (
    CHECKPOINT,
    ddpo_graph,
    lora_file,
    node,
    shown_error,
    write_checkpoint,
    write_pictures,
)
from attune.training.adapters import LoraMetadata, load_lora, save_lora

FOLDER = "attune"
LAYER = "input_blocks.1.1.transformer_blocks.0.attn2.to_q"
KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q"


@pytest.fixture(scope="module", autouse=True)
def files(host) -> None:
    write_checkpoint(host)
    write_pictures(host)


def make(host: Any, name: str, seed: int, **facts: Any) -> Path:
    """A LoRA for the demo model's first cross-attention."""
    generator = torch.Generator().manual_seed(seed)
    width = 64
    tensors = {
        f"{LAYER}.lora_up.weight": torch.randn(width, 2, generator=generator),
        f"{LAYER}.lora_down.weight": torch.randn(2, width, generator=generator),
        f"{LAYER}.alpha": torch.tensor(2.0),
    }
    path = host.models_dir / "loras" / FOLDER / f"{name}.safetensors"
    run = name.rpartition("_")[0]
    metadata = LoraMetadata(title=run, run=run, method="ddpo", metrics={"reward": seed / 10}, **facts)
    save_lora(path, tensors, metadata=metadata, rename={LAYER: KEY})
    return path


def listed(host: Any) -> dict[str, dict[str, Any]]:
    return {lora["file"].removesuffix(".safetensors"): lora for lora in host.get("/attune/catalogue")["loras"]}


def refused(host: Any, path: str, body: Any = None) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        host.post(path, body) if body is not None else host.get(path)
    assert error.value.code == 400
    return json.loads(error.value.read())["error"]


def stock_list(host: Any) -> list[str]:
    return host.object_info()["LoraLoader"]["input"]["required"]["lora_name"][0]


def test_the_routes_list_change_and_remember(host):
    for number in (1, 2):
        make(host, f"routes_00{number}", number)
    found = listed(host)
    first, second = found["routes_001"], found["routes_002"]
    assert (first["run"], first["version"], first["method_name"], first["status"]) == ("routes", 1, "DDPO", "new")
    after = host.post("/attune/catalogue/tag", {"id": first["id"], "tags": ["good", "blue"]})
    assert next(lora for lora in after["loras"] if lora["id"] == first["id"])["tags"] == ["blue", "good"]
    host.post("/attune/catalogue/note", {"id": first["id"], "note": "<b>mine</b>"})
    host.post("/attune/catalogue/promote", {"id": first["id"]})
    host.post("/attune/catalogue/promote", {"id": second["id"]})
    family = next(entry for entry in host.get("/attune/catalogue")["families"] if entry["run"] == "routes")
    assert (family["versions"], family["roll_back"], family["figure"]) == (
        [second["id"], first["id"]],
        first["id"],
        "reward",
    )
    host.post("/attune/catalogue/rollback", {"run": "routes"})
    found = listed(host)
    assert (found["routes_001"]["status"], found["routes_002"]["status"]) == ("promoted", "retired")
    assert found["routes_001"]["note"] == "<b>mine</b>"
    compared = host.get(f"/attune/catalogue/compare?a={first['id']}&b={second['id']}")
    assert compared["metrics"] == [{"name": "reward", "a": 0.1, "b": 0.2, "change": pytest.approx(0.1)}]
    assert [entry["group"] for entry in compared["distances"]] == ["all", "cross-attention"]


def test_what_lies_in_the_trash_is_not_offered_by_the_stock_loader_and_comes_back(host):
    path = make(host, "thrown_001", 5)
    content = path.read_bytes()
    name = str(Path(FOLDER) / "thrown_001.safetensors")
    assert name in stock_list(host)
    id = listed(host)["thrown_001"]["id"]
    after = host.post("/attune/catalogue/trash", {"ids": [id]})
    assert [lora["id"] for lora in after["trash"]] == [id]
    assert not path.exists() and not [entry for entry in stock_list(host) if "thrown" in entry]
    assert host.post("/attune/catalogue/restore", {"ids": [id]})["trash"] == []
    assert path.read_bytes() == content and name in stock_list(host)
    host.post("/attune/catalogue/trash", {"ids": [id]})
    host.post("/attune/catalogue/empty", {"ids": [id]})
    assert not path.exists() and "thrown_001" not in listed(host)
    assert not list((host.models_dir / "loras" / FOLDER / ".trash").iterdir())


def test_every_refusal_says_what_to_do_and_changes_nothing(host):
    make(host, "kept_001", 6)
    id = listed(host)["kept_001"]["id"]
    before = host.get("/attune/catalogue")
    expected = {
        ("tag", '{"id": "x", "tags": []}'): "'id' must be the number of a LoRA, not 'x'",
        ("tag", f'{{"id": {id}, "tags": "x"}}'): "'tags' must be a list of texts",
        ("note", f'{{"id": {id}}}'): "'note' must be a text",
        ("promote", '{"id": 99999}'): "has no LoRA number 99999. Refresh",
        ("promote", '{"id": true}'): "'id' must be the number",
        ("promote", '{"id": 9223372036854775808}'): "'id' must be the number",
        ("note", f'{{"id": {id}, "note": "\\ud800"}}'): "half of a character",
        ("forget", f'{{"ids": [{id}]}}'): "Move it into the trash instead",
        ("rollback", '{"run": "kept"}'): "Nothing was changed",
        ("trash", '{"ids": []}'): "'ids' must be a list of 1 to 500",
        ("trash", '{"ids": ["../../../checkpoints/x"]}'): "'id' must be the number",
        ("empty", f'{{"ids": [{id}]}}'): "is not in the trash",
        ("destroy", "{}"): "cannot 'destroy'. It can: tag, note",
        ("promote", "[]"): "Send a JSON object",
    }
    for (action, body), words in expected.items():
        assert words in refused(host, f"/attune/catalogue/{action}", json.loads(body)), action
    assert "by their numbers" in refused(host, "/attune/catalogue/compare?a=1")
    for data in (b"{not json", b"\xff", b"[" * 100_000):
        request = urllib.request.Request(f"{host.url}/attune/catalogue/tag", data=data, method="POST")
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code == 400 and "not JSON" in json.loads(error.value.read())["error"]
    assert host.get("/attune/catalogue") == before


def test_a_file_that_is_no_lora_is_named(host):
    path = host.models_dir / "loras" / FOLDER / "no_lora.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    assert [text for text in host.get("/attune/catalogue")["problems"] if "no_lora.safetensors holds no LoRA" in text]
    path.unlink()
    assert host.get("/attune/catalogue")["problems"] == []


def test_a_trained_lora_enters_with_its_settings_and_what_it_was_trained_on(host):
    host.run(ddpo_graph("ancestor", steps=1, training_seed=77))  # weights that no other test makes
    graph = ddpo_graph("descendant", steps=1)
    graph["on"] = node("LoraLoaderModelOnly", model=["ckpt", 0], strength_model=0.5,
                       lora_name=str(Path(FOLDER) / "ancestor_001.safetensors"))  # fmt: skip
    graph["train"]["inputs"]["model"] = ["on", 0]
    host.run(graph)
    found = listed(host)
    old, new = found["ancestor_001"], found["descendant_001"]
    assert (old["run"], old["method"], old["steps"], old["parents"]) == ("ancestor", "ddpo", 1, [])
    assert old["settings"]["training"]["learning_rate"] == 0.01 and old["settings"]["objective"]["steps"] == 2
    assert old["base_hash"] and old["base_hash"] != new["base_hash"] and old["data_hash"] == new["data_hash"]
    assert [(p["id"], p["name"], p["strength"]) for p in new["parents"]] == [(old["id"], "ancestor 001", 0.5)]
    families = {entry["run"]: entry["depth"] for entry in host.get("/attune/catalogue")["families"]}
    assert (families["ancestor"], families["descendant"]) == (0, 1)


# ---- nodes ----


def catalogue_graph(lora: str, **inputs: Any) -> dict[str, Any]:
    graph = {
        "ckpt": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT),
        "catalogue": node("AttuneLoraCatalogue", lora=lora, strength=1.0, model=["ckpt", 0], **inputs),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "text": node("CLIPTextEncode", clip=["ckpt", 1], text="a cat"),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="catalogue"),
        "tree": node("PreviewImage", images=["catalogue", 4]),
        "report": node("PreviewAny", source=["catalogue", 3]),
        "name": node("PreviewAny", source=["catalogue", 2]),
    }
    graph["sample"] = node(
        "KSampler", model=["catalogue", 0], positive=["text", 0], negative=["text", 0], latent_image=["empty", 0],
        seed=1, steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    return graph


def stock_graph(file: str, strength: float = 1.0) -> dict[str, Any]:
    graph = catalogue_graph("")
    for name in ("catalogue", "tree", "report", "name"):
        del graph[name]
    graph["lora"] = node("LoraLoaderModelOnly", model=["ckpt", 0], lora_name=file, strength_model=strength)
    graph["sample"]["inputs"]["model"] = ["lora", 0]
    return graph


def saved(host: Any, result: Any) -> Any:
    return host.pixels(host.output_path(result.outputs["save"]["images"][0]))


def test_the_promoted_version_is_what_is_promoted_when_run_is_pressed(host):
    """The picture equals the stock loader's with that file; promoting another one runs again, else nothing."""
    for number in (1, 2):
        make(host, f"picked_00{number}", 10 + number)
    ids = {name: entry["id"] for name, entry in listed(host).items()}
    wanted = {}
    for number in (1, 2):
        name = str(Path(FOLDER) / f"picked_00{number}.safetensors")
        wanted[number] = saved(host, host.run(stock_graph(name)))
    assert abs(wanted[1] - wanted[2]).max() > 0.01
    for number in (1, 2):
        host.post("/attune/catalogue/promote", {"id": ids[f"picked_00{number}"]})
        result = host.run(catalogue_graph("picked (promoted)"))
        assert (saved(host, result) == wanted[number]).all()
        assert "picked_00" + str(number) in result.outputs["name"]["text"][0]
        assert json.loads(result.outputs["report"]["text"][0])["status"] == "promoted"
        assert result.ui("AttuneLoraCatalogue", "text")[0].startswith(f"picked 00{number} (DDPO), promoted")
    events = []
    host.run(catalogue_graph("picked (promoted)"), on_event=events.append)
    assert "catalogue" not in [event.get("node") for event in events if event.get("type") == "executing"]
    choices = host.object_info()["AttuneLoraCatalogue"]["input"]["required"]["lora"]
    options = choices[0] if isinstance(choices[0], list) else choices[1]["options"]
    assert options[0] == "the newest LoRA" and "picked (promoted)" in options


def test_a_name_that_is_not_there_says_what_is(host):
    make(host, "there_001", 20)
    failed, words = shown_error(host, catalogue_graph("gone (promoted)"))
    assert failed == "catalogue"
    assert "There is no LoRA of a run 'gone'" in words and "there" in words
    failed, words = shown_error(host, catalogue_graph("there (promoted)"))
    assert "choose 'there (newest)'" in words


def test_without_a_model_only_the_model_output_stops(host):
    make(host, "alone_001", 21)
    graph = catalogue_graph("alone (newest)")
    del graph["catalogue"]["inputs"]["model"]
    with pytest.raises(WorkflowError, match="Connect a model to LoRA Catalogue"):
        host.run(graph)
    for name in ("sample", "decode", "save"):
        del graph[name]
    assert "alone_001" in host.run(graph).outputs["name"]["text"][0]


def merge_graph(**inputs: Any) -> dict[str, Any]:
    slots = {f"{kind}_{number}": value for number in range(1, 5) for kind, value in (("file", "none"), ("weight", 0.5))}
    return {
        "merge": node("AttuneMergeLoras", **({"name": "soup", "rank": 0} | slots | inputs)),
        "report": node("PreviewAny", source=["merge", 2]),
    }


def test_files_and_wires_are_merged_into_one_file_that_the_stock_loader_reads(host):
    make(host, "one_001", 31)
    make(host, "two_001", 32)
    one, two = (str(Path(FOLDER) / f"{name}_001.safetensors") for name in ("one", "two"))
    graph = merge_graph(file_1=one, weight_1=0.75, weight_2=-0.5, lora_2=["other", 1])
    graph["other"] = node("AttuneLoraCatalogue", lora="two (newest)", strength=1.0)
    result = host.run(graph)
    report = json.loads(result.outputs["report"]["text"][0])
    path = lora_file(host, report["lora_name"])
    assert path.name == "soup_001.safetensors" and report["rank"] == 4 and report["relative_error"] == 0.0
    tensors, metadata = load_lora(path)
    change = tensors[f"{KEY}.lora_up.weight"] @ tensors[f"{KEY}.lora_down.weight"]
    scale = float(tensors[f"{KEY}.alpha"]) / 4
    parts = [load_file(lora_file(host, name)) for name in (one, two)]
    expected = sum(
        w * p[f"{KEY}.lora_up.weight"] @ p[f"{KEY}.lora_down.weight"] for w, p in zip((0.75, -0.5), parts, strict=True)
    )
    torch.testing.assert_close(scale * change, expected)
    assert [parent["strength"] for parent in json.loads(metadata["attune.parents"])] == [0.75, -0.5]
    entry = listed(host)["soup_001"]
    assert [parent["name"] for parent in entry["parents"]] == ["one 001", "two 001"]
    merged = saved(host, host.run(stock_graph(report["lora_name"])))
    both = stock_graph(one, 0.75)
    both["second"] = node("LoraLoaderModelOnly", model=["lora", 0], lora_name=two, strength_model=-0.5)
    both["sample"]["inputs"]["model"] = ["second", 0]
    assert abs(merged - saved(host, host.run(both))).max() < 2 / 255


def test_what_cannot_be_merged_says_what_to_change(host):
    make(host, "left_001", 41)
    file = str(Path(FOLDER) / "left_001.safetensors")
    assert "There is 1 LoRA to merge" in shown_error(host, merge_graph(file_1=file))[1]
    assert "There is no LoRA to merge" in shown_error(host, merge_graph())[1]
    assert "There is 1 LoRA to merge" in shown_error(host, merge_graph(file_1=file, file_2=file, weight_2=0.0))[1]
    both = merge_graph(file_1=file, file_2=file, lora_2=["other", 1])
    both["other"] = node("AttuneLoraCatalogue", lora="left (newest)", strength=1.0)
    assert "Slot 2 has both the file" in shown_error(host, both)[1]
    assert "cannot be a file name" in shown_error(host, merge_graph(file_1=file, file_2=file, name=" / "))[1]
