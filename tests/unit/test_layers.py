"""The house's layers, read from the imports of every file (see AGENTS.md)."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST_MODULES = {
    "comfy", "comfy_api", "comfy_api_nodes", "comfy_config", "comfy_execution", "comfy_extras", "comfyui_version",
    "execution", "folder_paths", "latent_preview", "node_helpers", "nodes", "protocol", "server",
}  # fmt: skip
HEAVY = {"diffusers", "transformers", "peft", "open_clip", "accelerate"}
PACKAGE = [ROOT / "__init__.py", *sorted((ROOT / "nodes").rglob("*.py")), *sorted((ROOT / "training").rglob("*.py"))]
STANDARD_LIBRARY_ONLY = [ROOT / "run.py", *sorted((ROOT / "scripts").glob("*.py"))]
MAXIMUM_LINES = 450
FAMILIES = {file.parent.name for file in (ROOT / "nodes").glob("*/nodes.py")}


@dataclass(frozen=True)
class Import:
    """One imported module: as an absolute name; imports inside the pack start with "attune."."""

    module: str
    line: int
    relative: bool
    at_top: bool

    @property
    def root(self) -> str:
        return self.module.split(".")[0]


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def read_imports(source: str, file: Path) -> list[Import]:
    """Every import of a source text. `at_top`: runs when the module is imported (not in a function, not for types)."""
    package = ["attune", *file.relative_to(ROOT).parent.parts]
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, False, at_top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                target = [*base, *(node.module.split(".") if node.module else [])]
                names = [".".join([*target, alias.name]) for alias in node.names]
                found.extend(Import(name, node.lineno, True, at_top) for name in names)
            else:
                found.append(Import(node.module or "", node.lineno, False, at_top))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_top = False
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, False)
            for child in node.orelse:
                visit(child, at_top)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, at_top)

    visit(ast.parse(source, filename=str(file)), True)
    return found


def imports(file: Path) -> list[Import]:
    return read_imports(file.read_text(encoding="utf-8"), file)


def may_import_host(file: Path) -> bool:
    parts = file.relative_to(ROOT).parts
    return parts[0] == "nodes" and (parts[1] == "host" or is_node_file(file))


def is_node_file(file: Path) -> bool:
    """A family's nodes.py, or one topic of it in nodes_TOPIC.py."""
    return len(file.relative_to(ROOT).parts) == 3 and re.fullmatch(r"nodes(_\w+)?\.py", file.name) is not None


def violations(file: Path, source: str) -> Iterator[str]:
    """What a file of the package imports but may not."""
    layer = file.relative_to(ROOT).parts[0]
    # A file straight in nodes/ belongs to no family: all may use it, so it may use none.
    family = file.relative_to(ROOT).parts[1] if layer == "nodes" else ""
    for entry in read_imports(source, file):
        where = f"{name_of(file)}:{entry.line} imports {entry.module}"
        if not entry.relative and entry.root == "attune":
            yield f"{where}: inside the pack, imports are relative (the host gives the pack another name)"
        # The host calls the entrypoint in the pack's face, so there is a host by then.
        allowed = may_import_host(file) or (layer == "__init__.py" and not entry.at_top)
        if not entry.relative and entry.root in HOST_MODULES and not allowed:
            yield f"{where}: only nodes/host and the node files of a family know the host"
        if (
            layer == "training"
            and entry.module.startswith("attune.")
            and not entry.module.startswith("attune.training")
        ):
            yield f"{where}: training/ stands on itself"
        if entry.module.startswith(("attune.tests", "attune.scripts", "attune.run")):
            yield f"{where}: the pack does not need its tests and scripts"
        if entry.root in HEAVY and entry.at_top:
            yield f"{where} at the top: import it in the function that uses it"
        stands_on_nodes = re.match(r"attune\.nodes\.(?!host)\w+\.nodes(_\w+)?\b", entry.module)
        if layer == "nodes" and stands_on_nodes and (stands_on_nodes[1] is None or not is_node_file(file)):
            yield f"{where}: nothing stands on a nodes.py, and only node files on a nodes_TOPIC.py"
        step = re.match(r"attune\.nodes\.(\w+)", entry.module)
        if layer == "nodes" and step and step[1] in FAMILIES - {family}:
            yield f"{where}: a family stands on itself, nodes/host and files straight in nodes/; those on no family"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle" and node.attr != "UnpicklingError":
            yield f"{name_of(file)}:{node.lineno} uses pickle.{node.attr}: only safetensors are read and written"


@pytest.mark.parametrize("file", PACKAGE, ids=name_of)
def test_layers(file: Path):
    assert list(violations(file, file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("place", "source", "count"),
    [
        ("training/x.py", "from ..nodes.host import session", 1),
        ("training/x.py", "def f():\n    import comfy.sd", 1),
        ("training/x.py", "import folder_paths", 1),
        ("training/x.py", "from attune.training import diffusion", 1),
        ("training/x.py", "from . import diffusion\nfrom .objectives.ddpo import DDPOConfig", 0),
        ("training/objectives/x.py", "from ..interfaces import Prompt", 0),
        ("training/x.py", "import peft", 1),
        ("training/x.py", "def f():\n    import peft", 0),
        ("training/x.py", "try:\n    import diffusers\nexcept ImportError:\n    pass", 1),
        ("training/x.py", "class A:\n    from transformers import CLIPModel", 1),
        ("training/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from peft import LoraConfig", 0),
        ("training/x.py", "import pickle\npickle.load(file)", 1),
        ("training/x.py", "import pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    pass", 0),
        ("nodes/rewards/x.py", "from server import PromptServer", 1),
        ("nodes/rewards/x.py", "from ..host import folders", 0),
        ("nodes/rewards/x.py", "from .nodes import AttuneLoadReward", 1),
        ("nodes/rewards/nodes.py", "from comfy_api.latest import io", 0),
        ("nodes/rewards/nodes_scoring.py", "from comfy_api.latest import io\nfrom .nodes_common import Reward", 0),
        ("nodes/rewards/nodes_scoring.py", "from .nodes import NODES", 1),
        ("nodes/rewards/x.py", "from .nodes_common import Reward", 1),
        ("nodes/rewards/x.py", "from ..training import drawing", 1),
        ("nodes/training/nodes.py", "def f():\n    from ..rewards.cache import CachedReward", 1),
        ("nodes/training/x.py", "from ..fonts import load_font\nfrom ...training import rollout", 0),
        ("nodes/x.py", "from .rewards import chart", 1),
        ("nodes/x.py", "from .host import folders", 0),
        ("nodes/host/x.py", "from ..rewards import cache", 1),
        ("nodes/host/x.py", "from ...training.interfaces import Reward", 0),
        ("nodes/host/x.py", "import comfy.utils", 0),
        ("__init__.py", "import comfy", 1),
        ("__init__.py", "def f():\n    from comfy_api.latest import ComfyExtension", 0),
    ],
)
def test_the_reader_of_imports_sees(place: str, source: str, count: int):
    assert len(list(violations(ROOT / place, source))) == count


@pytest.mark.parametrize("file", STANDARD_LIBRARY_ONLY, ids=name_of)
def test_run_py_needs_only_the_standard_library(file: Path):
    foreign = [
        entry
        for entry in imports(file)
        if not entry.relative and entry.root not in sys.stdlib_module_names | {"scripts", "__future__"}
    ]
    assert foreign == []


@pytest.mark.parametrize("file", [*PACKAGE, *STANDARD_LIBRARY_ONLY], ids=name_of)
def test_files_stay_readable(file: Path):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= MAXIMUM_LINES, f"{name_of(file)} has {lines} lines: split it by concern"


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(["attune", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def host_free_modules() -> list[str]:
    """Modules that the host's absence must not break: neither they nor what they import at the top import the host."""
    top = {module_name(file): [entry for entry in imports(file) if entry.at_top] for file in PACKAGE}
    bound = {name for name, found in top.items() if any(not e.relative and e.root in HOST_MODULES for e in found)}
    while True:
        # "attune.a.b" may be the module b or the name b in the module a.
        more = {
            name
            for name, found in top.items()
            if name not in bound and any({e.module, e.module.rpartition(".")[0]} & bound for e in found)
        }
        if not more:
            return sorted(name for name in top if name not in bound and not name.endswith(".__main__"))
        bound |= more


def test_training_is_free_of_the_host():
    everything = {module_name(file) for file in PACKAGE}
    bound = everything - set(host_free_modules())
    assert {name for name in bound if not name.startswith("attune.nodes.")} <= {"attune.training.__main__"}


@pytest.mark.parametrize("module", host_free_modules())
def test_module_is_importable_without_the_host(module: str):
    importlib.import_module(module)


def test_importing_everything_loads_no_heavy_library_and_no_host(repository: Path):
    """In a fresh process, as these libraries are loaded by other tests here."""
    code = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("runner", {str(repository / "scripts" / "module.py")!r})
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
runner.map_package()
assert "torch" not in sys.modules, "the pack's face imports torch"
for name in {host_free_modules()!r}:
    importlib.import_module(name)
heavy = {sorted(HEAVY | HOST_MODULES)!r}
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=repository.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_the_pack_costs_little(repository: Path):
    """The host imports the face and every nodes.py at its start; the face alone must be next to nothing."""
    code = f"""
import importlib.util, sys, time
began = time.perf_counter()
spec = importlib.util.spec_from_file_location("face", {str(repository / "__init__.py")!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(time.perf_counter() - began)
"""
    seconds = [float(subprocess.check_output([sys.executable, "-c", code], text=True)) for _ in range(3)]
    assert min(seconds) < 0.3
