"""The Live Monitor's server side in the real host: Stop and save, what it hands on, and how the run goes on."""

from __future__ import annotations

import json
import threading
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attune.tests.host.graphs import ddpo_graph, live, lora_file, node, report_of, wait_for, write_checkpoint

ENDLESS = 100_000


@pytest.fixture(scope="module", autouse=True)
def _checkpoint(host) -> None:
    write_checkpoint(host)


def in_background(host: Any, graph: dict[str, Any]) -> tuple[threading.Thread, list[Any]]:
    """Run a graph; the list gets its result or its error."""
    results: list[Any] = []

    def start() -> None:
        try:
            results.append(host.run(graph))
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    return thread, results


def identity(host: Any, run: str) -> dict[str, str]:
    state = live(host, run)
    return {name: state[name] for name in ("node", "workflow", "run")}


def stop(host: Any, run: str) -> Any:
    return host.post("/attune/training/stop", identity(host, run))


def refused(host: Any, body: Any) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        host.post("/attune/training/stop", body)
    return caught.value.code, json.loads(caught.value.read())["error"]


def same_tensors(one: Path, two: Path) -> bool:
    first, second = load_file(one), load_file(two)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_stop_and_save_hands_on_what_the_run_has_and_the_same_graph_goes_on_from_there(host):
    """The nodes behind run. The next Run trains on instead of taking the paused result from the host's cache."""
    graph = ddpo_graph("paused run", steps=ENDLESS) | {"show": node("PreviewImage", images=["train", 3])}
    reports = []
    for _ in range(2):
        after = reports[-1]["steps"] if reports else 1
        thread, results = in_background(host, graph)
        wait_for(host, "paused run", lambda state, after=after: state["status"] == "running" and state["step"] > after)
        assert stop(host, "paused run") == {"stopping": True}
        state = wait_for(host, "paused run", lambda state: state["status"] not in ("running", "stopping"))
        thread.join(120)
        (result,) = results
        assert not isinstance(result, BaseException), result
        assert result.ui("PreviewImage", "images"), "the node behind ran"
        reports.append(report_of(result))
        assert state["status"] == "stopped"
        assert state["file"] == reports[-1]["lora_name"]
        assert "Press Run to go on" in state["message"]
    first, second = reports
    assert [first["status"], second["status"]] == ["stopped early"] * 2
    assert second["steps"] > first["steps"] >= 2
    assert [Path(report["lora_name"]).stem for report in reports] == [
        "paused run_stopped_001",
        "paused run_stopped_002",
    ]
    assert second["live"]["first_curves"][0] == "reward"

    done = report_of(host.run(ddpo_graph("paused run", steps=second["steps"] + 1)))
    whole = report_of(host.run(ddpo_graph("never paused", steps=second["steps"] + 1)))
    assert done["status"] == "finished"
    assert same_tensors(lora_file(host, done["lora_name"]), lora_file(host, whole["lora_name"]))


def test_only_a_run_at_work_can_be_stopped(host):
    host.run(ddpo_graph("already over"))
    code, words = refused(host, identity(host, "already over"))
    assert code == 404 and "'already over'" in words
    for body in ({"node": "train"}, ["train"], "train", 8):
        assert refused(host, body)[0] == 400


def test_another_node_or_run_is_not_stopped(host):
    thread, results = in_background(host, ddpo_graph("goes on", steps=ENDLESS))
    state = wait_for(host, "goes on", lambda state: state["step"] >= 1)
    for changes in ({"node": "other"}, {"run": "other"}, {"workflow": "other"}):
        assert refused(host, identity(host, "goes on") | changes)[0] == 404
    wait_for(host, "goes on", lambda later: later["step"] > state["step"] and later["status"] == "running")
    host.interrupt()
    thread.join(60)
    assert isinstance(results[0], BaseException), "Cancel ends the prompt, as ever"
