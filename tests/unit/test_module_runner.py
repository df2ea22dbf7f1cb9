"""`scripts/module.py`: the repository is the package `attune`, and is never on `sys.path`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attune


def test_the_package_is_this_repository(repository: Path):
    assert Path(attune.__file__).resolve() == repository / "__init__.py"
    assert attune.__path__ == [str(repository)]


def test_the_repository_is_not_on_the_path(repository: Path):
    assert repository not in [Path(entry or ".").resolve() for entry in sys.path]
    assert "nodes" not in sys.modules or "ComfyUI" in str(sys.modules["nodes"].__file__)


def run(repository: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "scripts" / "module.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_it_runs_a_module_with_its_arguments(repository: Path, tmp_path: Path):
    done = run(repository, "attune.training", "no-such-job", cwd=tmp_path)
    assert done.returncode == 2
    assert "there is no job 'no-such-job'; there are: demo-model" in done.stderr


def test_it_works_from_inside_the_repository(repository: Path):
    done = run(repository, "attune.training", "another-job", cwd=repository)
    assert done.returncode == 2
    assert "another-job" in done.stderr


def test_without_a_module_it_says_how(repository: Path, tmp_path: Path):
    done = run(repository, cwd=tmp_path)
    assert done.returncode == 1
    assert "usage: python scripts/module.py attune.MODULE" in done.stderr
