"""The promises that can be read from files: help pages, templates, packaging."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "workflows").glob("*.json"))
OWN_FOLDERS = ("nodes", "training", "scripts", "js", "tests", "workflows", ".ci")
TEXT_ENDINGS = {".py", ".js", ".md", ".toml", ".txt", ".json", ""}


def node_ids() -> list[str]:
    """Every node id, read from the schemas' source: `node_id="Attune…"` (the host is not needed to know them)."""
    found = []
    for file in sorted((ROOT / "nodes").glob("*/nodes*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "node_id" and isinstance(node.value, ast.Constant):
                found.append(node.value.value)
    return found


def nodes_in_templates() -> dict[str, set[str]]:
    """Template → the types of its nodes, subgraphs included."""

    def types(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["type"]} if isinstance(value.get("type"), str) else set()
            return own.union(*map(types, value.values()))
        return set().union(*map(types, value)) if isinstance(value, list) else set()

    return {file.stem: types(json.loads(file.read_text(encoding="utf-8"))) for file in TEMPLATES}


def own_files() -> list[Path]:
    files = [file for file in ROOT.iterdir() if file.is_file()]
    for folder in OWN_FOLDERS:
        for place, folders, names in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            files += [Path(place) / name for name in names]
    return sorted(file for file in files if file.suffix in TEXT_ENDINGS)


def test_node_ids_are_unique_and_prefixed():
    ids = node_ids()
    assert len(ids) >= 8
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not name.startswith("Attune")] == []


@pytest.mark.parametrize("node", node_ids())
def test_node_has_a_help_page(node: str):
    page = ROOT / "js" / "docs" / f"{node}.md"
    assert page.is_file(), f"{page.relative_to(ROOT)} is missing"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(text.split()) >= 40, "a help page says what the node does, what to wire, and what goes wrong"


def test_no_help_page_without_a_node():
    pages = {file.stem for file in (ROOT / "js" / "docs").glob("*.md")}
    assert pages <= set(node_ids())


def objective_ids() -> list[str]:
    return [node for node in node_ids() if node.endswith("Objective")]


def help_section(node: str, title: str) -> str:
    """The part of a help page under a heading of the second level; "" without it."""
    text = (ROOT / "js" / "docs" / f"{node}.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def pictured() -> dict[str, tuple[int, tuple[int, int]]]:
    """Node → the bytes and the pixels that the picture of its help page may have."""
    return dict.fromkeys(objective_ids(), (80_000, (720, 360))) | {
        "AttuneCommitRound": (60_000, (500, 720)),
        "AttuneDynamicWeights": (60_000, (640, 669)),
        "AttuneSessionReport": (60_000, (680, 790)),
        "AttuneOneStepPreset": (40_000, (642, 324)),
        "AttuneOneStepSampler": (40_000, (560, 369)),
    }


@pytest.mark.parametrize("node", pictured())
def test_help_page_shows_its_picture(node: str):
    from PIL import Image

    docs, (largest, size) = ROOT / "js" / "docs", pictured()[node]
    shown = re.findall(r"!\[(.*?)\]\((.*?)\)", (docs / f"{node}.md").read_text(encoding="utf-8"))
    assert [path for _, path in shown] == [f"pictures/{node}.jpg"], "one, by a path that the host's help panel resolves"
    assert len(shown[0][0].split()) >= 8, "who cannot see the picture is told what it shows"
    with Image.open(docs / shown[0][1]) as picture:
        picture.load()
        assert (picture.format, picture.size) == ("JPEG", size)
    assert (docs / shown[0][1]).stat().st_size <= largest


def test_no_picture_without_a_help_page():
    folder = ROOT / "js" / "docs" / "pictures"
    assert {file.name for file in folder.iterdir()} == {f"{node}.jpg" for node in pictured()}


def test_every_objective_is_in_the_choice_that_all_their_pages_show():
    sections = {node: help_section(node, "Which objective?") for node in objective_ids()}
    assert len(sections) >= 6
    assert set(sections.values()) == {sections["AttuneDDPOObjective"]}, "the section is the same on all pages"
    rows = re.findall(r"^\|[^|]+\| \*\*(.+?)\*\*: ", sections["AttuneDDPOObjective"], re.MULTILINE)
    assert sorted(f"Attune{row.replace('-', '')}Objective" for row in rows) == sorted(sections)


@pytest.mark.parametrize("node", objective_ids())
def test_help_of_an_objective_has_the_values_to_start_with(node: str):
    """Those of its node and of its template, as they are by now."""
    from attune.nodes.training import start_values

    page = (ROOT / "js" / "docs" / f"{node}.md").read_text(encoding="utf-8")
    assert start_values.with_section(page, node) == page, (
        "run `python scripts/module.py attune.nodes.training.start_values`"
    )
    assert "| learning_rate, in Train LoRA |" in page and f"`{start_values.STARTS[node].template}`" in page


@pytest.mark.parametrize("node", node_ids())
def test_node_appears_in_a_template(node: str):
    assert [name for name, types in nodes_in_templates().items() if node in types], f"no template shows {node}"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.stem)
def test_template_has_a_thumbnail(template: Path):
    from PIL import Image

    thumbnail = template.with_suffix(".jpg")
    assert thumbnail.is_file(), f"{thumbnail.relative_to(ROOT)} is missing"
    with Image.open(thumbnail) as picture:
        picture.load()
        assert picture.format == "JPEG"
        assert min(picture.size) >= 256
    assert thumbnail.stat().st_size <= 400_000


def test_no_thumbnail_without_a_template():
    assert {file.stem for file in (ROOT / "workflows").glob("*.jpg")} == {file.stem for file in TEMPLATES}


def test_package_metadata_is_what_the_registry_wants():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    name = project["project"]["name"]
    assert re.fullmatch(r"[a-z][a-z0-9-]*", name)
    assert "comfyui" not in name
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert {"PublisherId", "DisplayName", "Icon"} <= project["tool"]["comfy"].keys()
    license_text = (ROOT / project["project"]["license"]["file"]).read_text(encoding="utf-8")
    assert license_text.split()[:7] == ["GNU", "GENERAL", "PUBLIC", "LICENSE", "Version", "3,", "29"]
    assert len(license_text.split()) > 5000


def test_version_is_in_the_changelog():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"## {project['project']['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_requirements_pin_nothing_of_the_host():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    requirements = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    assert requirements
    assert [line for line in requirements if "==" in line or "<" in line or "://" in line] == []
    assert [line for line in requirements if re.match(r"(torch|torchvision|numpy|transformers)\b", line)] == []


def test_no_file_holds_a_path_of_a_machine_or_an_unfinished_mark():
    marks = re.compile("|".join([r"(?<![\w.])/(?:home|root|Users)/\w", "TO" + "DO", "FIX" + "ME", "X" * 3]))
    found = []
    for file in own_files():
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if marks.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_ci_runs_exactly_the_test_command():
    script = ROOT / ".ci" / "run"
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert lines[-1] == "exec python3 run.py test"
    assert os.name == "nt" or os.access(script, os.X_OK)
