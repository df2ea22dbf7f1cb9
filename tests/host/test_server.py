"""The pack as the host sees it: loads cleanly and quickly, and its templates and help pages are served."""

from __future__ import annotations

import json
import re
import urllib.error
from pathlib import Path

import pytest

from attune.scripts.server import WorkflowError

IMPORT_SECONDS_LIMIT = 1.0  # loose: a busy machine; the claim itself is the evidence `import-time`


def import_line(log: str) -> str:
    """The pack's line under "Import times for custom nodes:"."""
    lines = [line for line in log.splitlines() if re.search(r"seconds.*: .*ComfyUI-Attune$", line)]
    assert len(lines) == 1, f"expected one line of import times for the pack, found {lines}"
    return lines[0]


def test_pack_is_imported_without_an_error(host):
    line = import_line(host.log())
    assert "IMPORT FAILED" not in line
    # Only the start: later lines are of other tests, some of which make errors on purpose.
    start = host.log().split(line, 1)[0].splitlines()
    complaints = [entry for entry in start if re.search(r"attune.*(unavailable|left out|error)", entry, re.I)]
    assert complaints == []


def test_pack_is_imported_quickly(host):
    seconds = float(re.search(r"([\d.]+) seconds", import_line(host.log())).group(1))
    assert seconds <= IMPORT_SECONDS_LIMIT


def test_every_family_contributes_nodes(host, repository: Path):
    categories = {info["category"] for name, info in host.object_info().items() if name.startswith("Attune")}
    families = {file.parent.name for file in (repository / "nodes").glob("*/nodes.py")}
    assert families >= {"rewards", "training"}
    assert categories == {f"Attune/{family}" for family in families}


def test_the_hosts_own_nodes_are_untouched(host):
    info = host.object_info()
    assert {"CheckpointLoaderSimple", "KSampler", "VAEDecode", "LoraLoader"} <= info.keys()
    ours = {name for name, entry in info.items() if "ComfyUI-Attune" in entry["python_module"]}
    assert ours == {name for name in info if name.startswith("Attune")}


def test_demo_checkpoint_is_offered_by_the_stock_loader(host):
    inputs = host.object_info()["CheckpointLoaderSimple"]["input"]["required"]
    assert "attune_demo.safetensors" in inputs["ckpt_name"][0]


def test_templates_are_listed_and_served(host, repository: Path):
    workflows = sorted(file.stem for file in (repository / "workflows").glob("*.json"))
    assert workflows, "there are no templates"
    assert sorted(host.get("/workflow_templates")["ComfyUI-Attune"]) == workflows
    for name in workflows:
        served = host.get(f"/api/workflow_templates/ComfyUI-Attune/{name}.json")
        assert served == json.loads((repository / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
        assert host.request(f"/api/workflow_templates/ComfyUI-Attune/{name}.jpg")[:2] == b"\xff\xd8"


def test_help_pages_are_served(host):
    nodes = [name for name in host.object_info() if name.startswith("Attune")]
    assert nodes
    for node in nodes:
        page = host.request(f"/extensions/ComfyUI-Attune/docs/{node}.md").decode("utf-8")
        assert page.startswith("#"), f"the help page of {node} has no heading"


def test_every_javascript_file_is_offered(host, repository: Path):
    ours = {
        f"/extensions/ComfyUI-Attune/{file.relative_to(repository / 'js').as_posix()}"
        for file in (repository / "js").rglob("*.js")
    }
    assert ours <= set(host.get("/extensions"))


def test_python_source_is_not_served(host):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        host.request("/extensions/ComfyUI-Attune/../__init__.py")


def test_a_checkpoint_that_is_not_there_is_an_error_that_names_it(host):
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "no such checkpoint"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    with pytest.raises(WorkflowError, match="no such checkpoint"):
        host.run(graph)


def test_whoever_gives_up_on_a_run_leaves_an_idle_host(host):
    """Ctrl-C in `run.py demo`: what runs is interrupted, so that a training node can save."""
    graph = {"0": {"class_type": "EmptyImage", "inputs": {"width": 512, "height": 512, "batch_size": 8, "color": 255}}}
    for number in range(1, 41):
        inputs = {"image": [str(number - 1), 0], "blur_radius": 31, "sigma": 9.0}
        graph[str(number)] = {"class_type": "ImageBlur", "inputs": inputs}
    graph["end"] = {"class_type": "PreviewImage", "inputs": {"images": ["40", 0]}}
    executed = []

    def give_up(event: dict) -> None:
        if event.get("type") == "executing":
            executed.append(event["node"])
        if len(executed) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.run(graph, on_event=give_up)
    assert host.get("/queue") == {"queue_running": [], "queue_pending": []}
    last = next(iter(host.get("/history?max_items=1").values()))
    assert last["status"]["status_str"] == "error"
    assert "execution_interrupted" in [message[0] for message in last["status"]["messages"]]
