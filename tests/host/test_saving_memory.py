"""Train LoRA with base weights in few bits and checkpointed gradients, in the real host."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from attune.tests.host.graphs import (
    ddpo_graph,
    lora_file,
    report_of,
    shown_error,
    with_changes,
    write_checkpoint,
)


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host) -> Path:
    return write_checkpoint(host)


def test_checkpointed_run_gives_the_same_lora(host):
    plain = report_of(host.run(ddpo_graph("kept whole")))
    assert plain["memory"]["base_precision"] == "as loaded"
    assert plain["memory"]["gradient_checkpointing"] is False
    sparing = with_changes(ddpo_graph("computed again"), "train", gradient_checkpointing="on")
    saved = report_of(host.run(sparing))
    assert saved["memory"]["gradient_checkpointing"] is True
    assert saved["memory"]["activations"] < plain["memory"]["activations"]
    assert "gradient checkpointing" in saved["live"]["note"]
    first, second = (load_file(lora_file(host, report["lora_name"])) for report in (plain, saved))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_run_on_stored_weights_says_so_and_is_not_resumed_on_whole_ones(host):
    graph = with_changes(ddpo_graph("on four bits"), "train", base_precision="nf4")
    report = report_of(host.run(graph))
    assert report["memory"]["base_precision"] == "nf4"
    assert "base weights in NF4" in report["live"]["note"]
    with safe_open(lora_file(host, report["lora_name"]), "pt") as file:
        assert file.metadata()["attune.base_precision"] == "nf4"
    tensors = load_file(lora_file(host, report["lora_name"]))
    assert max(value.abs().max().item() for key, value in tensors.items() if key.endswith("lora_up.weight")) > 0
    # "auto" goes on with what the run was begun with; there is nothing left to do, so the same file is given.
    again = report_of(host.run(with_changes(ddpo_graph("on four bits"), "train", base_precision="auto")))
    assert again["lora_name"] == report["lora_name"]
    name, words = shown_error(host, ddpo_graph("on four bits"))
    assert name == "train"
    assert "base precision (base_precision in the node) = 'nf4'" in words
