"""Job files: a training node with everything in front of it, as a file that `run.py train` carries out without a page.

    {"format": "attune-job-1", "run": "my_lora", "node": "7", "graph": {…}, "pack": "0.1.0"}

`graph` is the host's API format, cut down to the training node and what it depends on. The files it names (checkpoints,
pictures, rewards) are looked up in the folders of the host that carries it out. Ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...training.checkpoint import whole_file
from ...training.interfaces import AttuneError
from ..job_inputs import job_inputs

FORMAT = "attune-job-1"
FILE_NAME = "job.json"
TRAINING_NODE = "AttuneTrainLora"
# Where a run was asked to begin anew, a job that is carried out again must still go on with its own work.
_AS_A_JOB = {"if_run_exists": "resume", "job_file_only": False}


def job_of(graph: Mapping[str, Any], node: str, *, run: str, version: str) -> dict[str, Any]:
    """The job of a training node.

    Args:
        graph: the prompt in API format, as the host gives it to the node.
        node: the training node's id there.

    Raises:
        AttuneError: the node is not in the graph.
    """
    if node not in graph:
        raise AttuneError(f"There is no node {node!r} in this prompt, so no job file can be made of it.")
    kept: dict[str, Any] = {}
    waiting = [node]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        entry = graph[name]
        inputs = job_inputs(entry["class_type"], entry["inputs"])
        kept[name] = {"class_type": entry["class_type"], "inputs": inputs}
        waiting += [value[0] for value in inputs.values() if _is_link(value) and value[0] in graph]
    for entry in kept.values():
        # Those before it, too: what they give would be another LoRA each time, and this run one that cannot be resumed.
        if entry["class_type"] == TRAINING_NODE:
            entry["inputs"] |= {name: value for name, value in _AS_A_JOB.items() if name in entry["inputs"]}
    ordered = {name: kept[name] for name in graph if name in kept}
    return {"format": FORMAT, "run": run, "node": node, "graph": ordered, "pack": version}


def write_job(path: Path, job: Mapping[str, Any]) -> None:
    """Write a job file, whole or not at all.

    Raises:
        AttuneError: the folder cannot be written.
    """
    try:
        with whole_file(path) as partial:
            partial.write_text(json.dumps(job, indent=1), encoding="utf-8")
    except OSError as error:
        raise AttuneError(f"The job file could not be written to {path}: {error}. Make the folder writable.") from error


def read_job(path: Path, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read a job file and set some of its widgets anew.

    Args:
        settings: "NODE.WIDGET" → value; NODE is an id or a class, the value is JSON, or text where it is not.

    Raises:
        AttuneError: the file is missing, is no job file, or a setting matches nothing in it.
    """
    try:
        job = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AttuneError(f"The job file cannot be read: {error}.") from error
    except ValueError as error:
        raise AttuneError(f"{path} is no JSON file: {error}. Export it anew with Train LoRA.") from error
    if not isinstance(job, dict) or job.get("format") != FORMAT:
        found = job.get("format") if isinstance(job, dict) else type(job).__name__
        hint = "A workflow is not a job file. " if isinstance(job, dict) and "nodes" in job else ""
        raise AttuneError(
            f"{path} is not a job file of this version: its format is {found!r} instead of {FORMAT!r}. {hint}Run the "
            "workflow once, or switch on job_file_only in Train LoRA, and take the job.json of that run's folder."
        )
    graph, node = job.get("graph"), job.get("node")
    if not _is_graph(graph) or not isinstance(node, str) or graph.get(node, {}).get("class_type") != TRAINING_NODE:
        raise AttuneError(f"{path} has no training node {node!r} in its graph. Export it anew with Train LoRA.")
    for name, value in (settings or {}).items():
        _set(graph, name, value)
    return job


def _set(graph: dict[str, Any], name: str, text: str) -> None:
    owner, _, widget = name.rpartition(".")
    entries = [entry for id, entry in graph.items() if owner in (id, entry["class_type"])]
    if not widget or not entries:
        known = ", ".join(sorted({entry["class_type"] for entry in graph.values()}))
        raise AttuneError(f"--set {name}: no node of this job is called {owner!r}. There are: {known}.")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    for entry in entries:
        if _is_link(entry["inputs"].get(widget)):
            raise AttuneError(f"--set {name}: this input is connected to another node. Set that node's widget instead.")
        if widget not in entry["inputs"]:
            raise AttuneError(
                f"--set {name}: {entry['class_type']} has no widget {widget!r} here. It has: "
                f"{', '.join(key for key, held in entry['inputs'].items() if not _is_link(held))}. Export the job anew "
                "with Train LoRA if the widget is newer than this file."
            )
        entry["inputs"][widget] = value


def _is_graph(value: Any) -> bool:
    """Whether every node says what it is and what goes into it."""
    return isinstance(value, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("class_type"), str) and isinstance(entry.get("inputs"), dict)
        for entry in value.values()
    )


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
