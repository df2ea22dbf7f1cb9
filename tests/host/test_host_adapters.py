"""`nodes/host` against the real host, used as a library in one subprocess (see adapters/driver.py)."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "adapters" / "driver.py"
CHECKS = [
    node.name
    for file in sorted(DRIVER.parent.glob("*_checks.py"))
    for node in ast.parse(file.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]


@pytest.fixture(scope="module")
def results(comfyui: Path, python: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """name of a check → "" or its traceback."""
    base = tmp_path_factory.mktemp("host")
    report = base / "report.json"
    run = subprocess.run(
        [python, str(DRIVER), str(comfyui), str(base), str(report)],
        capture_output=True,
        text=True,
        timeout=1800,
        cwd=base,
    )
    assert report.is_file(), f"the driver ended with {run.returncode}:\n{run.stdout[-2000:]}\n{run.stderr[-6000:]}"
    return json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", CHECKS)
def test_host_adapter(name: str, results: dict[str, str]) -> None:
    assert not results[name], results[name]
