"""Job files: what the training node writes down is carried out without a page, alone and by two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attune.scripts.environment import Environment
from attune.scripts.server import free_port
from attune.tests.host.graphs import ddpo_graph, lora_file, report_of, write_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host) -> Path:
    return write_checkpoint(host)


def without_page(
    host, job: Path, *settings: str, processes: int = 1, threads: int | None = None, fails: bool = False
) -> str:
    """What `run.py train JOB` starts, in the folders of the host under test; its output.

    Args:
        threads: of each process; None = as many as the host, so that sums are rounded alike.
    """
    environment = Environment(Path(sys.executable), host.environment.comfyui, own=True)
    launcher = []
    if processes > 1:
        launcher = ["-m", "accelerate.commands.launch", "--num_processes", str(processes), "--num_machines", "1"]
        launcher += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
        launcher += ["--multi_gpu"]
    words = [ROOT / "scripts" / "module.py", "attune.nodes.training.headless", job]
    words += ["--comfyui", host.environment.comfyui, "--base", host.folder, "--cpu"]
    words += [word for setting in settings for word in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, words)],
        env=environment.variables() | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def newest(host, run: str) -> dict[str, torch.Tensor]:
    files = sorted((host.models_dir / "loras" / "attune").glob(f"{run}_*.safetensors"), key=lambda f: f.stat().st_mtime)
    return load_file(files[-1])


def check_alike(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], most: float) -> None:
    """The difference of two LoRAs is at most this share of what was learned: AdamW makes much of little rounding."""
    assert one.keys() == two.keys()
    learned = sum(value.square().sum() for name, value in one.items() if "lora_up" in name).sqrt()
    apart = sum((value - two[name]).float().square().sum() for name, value in one.items()).sqrt()
    assert learned > 0 and apart <= most * learned


def job_file(host, run: str) -> Path:
    return host.user_dir / "attune" / "runs" / run / "job.json"


@pytest.fixture(scope="module")
def trained(host) -> dict[str, Any]:
    """A run in the graph, whose job file the tests carry out under other names."""
    return report_of(host.run(ddpo_graph("from the graph")))


def test_a_job_file_without_a_page_gives_the_very_same_lora(host, trained):
    job = json.loads(job_file(host, "from the graph").read_text())
    assert job["format"] == "attune-job-1" and job["run"] == "from the graph"
    classes = {entry["class_type"] for entry in job["graph"].values()}
    assert "AttuneTrainLora" in classes and "AttuneCompareAB" not in classes, "only what the training depends on"
    said = without_page(host, job_file(host, "from the graph"), "AttuneTrainLora.run_name=without a page")
    assert "update 2/2" in said and "finished" in said
    check_alike(load_file(lora_file(host, trained["lora_name"])), newest(host, "without a page"), 1e-4)
    log = [
        json.loads(line) for line in (job_file(host, "without a page").parent / "log.jsonl").read_text().splitlines()
    ]
    assert [row["step"] for row in log] == [1, 2] and {"loss", "reward", "learning_rate"} <= log[0].keys()


def test_it_goes_on_where_the_page_was_left(host, trained):
    host.run(ddpo_graph("in two parts", steps=1))
    said = without_page(host, job_file(host, "in two parts"), "AttuneTrainLora.steps=2")
    assert "update 1 of 2" in said
    check_alike(load_file(lora_file(host, trained["lora_name"])), newest(host, "in two parts"), 1e-4)


def test_two_processes_learn_what_one_does_with_twice_the_batch(host, trained):
    job = job_file(host, "from the graph")
    objective = next(
        entry["inputs"] for entry in json.loads(job.read_text())["graph"].values()
        if entry["class_type"] == "AttuneDDPOObjective"
    )  # fmt: skip
    half, whole = objective["prompts_per_update"], 2 * objective["prompts_per_update"]
    common = ("AttuneDDPOObjective.updates_per_round=1",)
    prompts = f"AttuneDDPOObjective.prompts_per_update={whole}"
    without_page(host, job, "AttuneTrainLora.run_name=one process", prompts, *common, threads=1)
    said = without_page(
        host, job, "AttuneTrainLora.run_name=two processes", f"AttuneDDPOObjective.prompts_per_update={half}", *common,
        processes=2, threads=1,
    )  # fmt: skip
    assert said.count("update 2/2") == 1, "one process speaks"
    check_alike(newest(host, "one process"), newest(host, "two processes"), 1e-2)


def test_a_file_that_is_no_job_is_refused_in_words(host, tmp_path):
    for text, words in (("{", "no JSON"), ('{"nodes": []}', "A workflow is not a job file"), ("[]", "not a job file")):
        file = tmp_path / "job.json"
        file.write_text(text)
        assert words in without_page(host, file, fails=True)


def test_a_setting_that_matches_nothing_is_refused(host, trained):
    job = job_file(host, "from the graph")
    assert "has no widget 'stepz'" in without_page(host, job, "AttuneTrainLora.stepz=3", fails=True)
    assert "no node of this job is called 'Train'" in without_page(host, job, "Train.steps=3", fails=True)


def test_the_node_can_write_the_job_alone(host):
    graph = ddpo_graph("only a job")
    train = next(entry for entry in graph.values() if entry["class_type"] == "AttuneTrainLora")
    train["inputs"]["job_file_only"] = True
    result = host.run(graph)
    assert "run.py train" in result.ui("AttuneTrainLora", "text")[0]
    shown = json.loads(result.ui("AttuneTrainLora", "attune_job")[0])
    assert shown["run"] == "only a job" and str(job_file(host, "only a job")) in shown["text"]
    job = json.loads(job_file(host, "only a job").read_text())
    assert job["graph"][job["node"]]["inputs"]["job_file_only"] is False, "carried out, it trains"
    assert not list(job_file(host, "only a job").parent.glob("state-*"))
