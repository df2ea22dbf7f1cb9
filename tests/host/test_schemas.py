"""What every node tells its user, read from the running host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attune.tests.hosting import HostServer
from attune.tests.widget_values import fault


@pytest.fixture(scope="module")
def nodes(host: HostServer) -> dict[str, dict[str, Any]]:
    found = {name: info for name, info in host.object_info().items() if name.startswith("Attune")}
    assert len(found) >= 8
    return found


def inputs(info: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(name, type or choices, options) of every visible input."""
    for kind in ("required", "optional"):
        for name, entry in info["input"].get(kind, {}).items():
            yield name, entry[0], entry[1] if len(entry) > 1 else {}


def test_every_input_has_a_tooltip(nodes):
    silent = [
        f"{node}.{name}"
        for node, info in nodes.items()
        for name, _, options in inputs(info)
        if not options.get("tooltip")
    ]
    assert silent == []


def test_every_output_has_a_name_and_a_tooltip(nodes):
    for node, info in nodes.items():
        assert len(info["output_name"]) == len(info["output"])
        tooltips = info.get("output_tooltips") or []
        assert len(tooltips) == len(info["output"]), f"{node}: an output has no tooltip"
        assert all(tooltips), f"{node}: an output has no tooltip"


def test_every_node_says_what_it_does(nodes):
    assert [node for node, info in nodes.items() if len(info["description"].split()) < 5] == []
    assert [node for node, info in nodes.items() if not info["display_name"] or info["display_name"] == node] == []


def test_display_names_are_unique(nodes):
    names = [info["display_name"] for info in nodes.values()]
    assert len(set(names)) == len(names)


def test_inputs_and_outputs_of_a_node_do_not_collide(nodes):
    """One id for an input and an output of the same node confuses the frontend's links."""
    for node, info in nodes.items():
        names = [name for name, _, _ in inputs(info)]
        assert len(set(names)) == len(names), node


def test_numbers_have_limits_and_defaults_inside_them(nodes):
    for node, info in nodes.items():
        for name, kind, options in inputs(info):
            if kind in ("INT", "FLOAT") and not options.get("forceInput"):
                assert options["min"] <= options["default"] <= options["max"], f"{node}.{name}"


def test_no_number_is_shown_as_off_or_as_another(nodes):
    floats = {
        f"{node}.{name}": options
        for node, info in nodes.items()
        for name, kind, options in inputs(info)
        if kind == "FLOAT" and not options.get("forceInput")
    }
    assert {"AttuneABTest.least_margin", "AttuneMergeLoras.weight_1", "AttuneReFLObjective.margin"} <= floats.keys()
    assert {name: fault(options) for name, options in floats.items() if fault(options)} == {}


def test_choices_hold_their_default(nodes):
    for node, info in nodes.items():
        for name, kind, options in inputs(info):
            choices = kind if isinstance(kind, list) else options.get("options")
            if choices and "default" in options:
                assert options["default"] in choices, f"{node}.{name}"


def test_the_source_and_the_host_agree_on_the_ids(nodes, repository: Path):
    sources = "".join(file.read_text(encoding="utf-8") for file in (repository / "nodes").glob("*/nodes*.py"))
    assert [node for node in nodes if f'"{node}"' not in sources] == []
