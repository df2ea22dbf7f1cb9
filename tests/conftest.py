"""What every test stands on: `import attune` is this repository, and nothing is skipped where it counts."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _map_package() -> None:
    spec = importlib.util.spec_from_file_location("attune_module_runner", ROOT / "scripts" / "module.py")
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    runner.map_package()


_map_package()

from attune.tests.hosting import comfyui_folder, host, launch_host  # noqa: E402, F401 — fixtures; the package has a name only now
from attune.tests.platforms import NOT_APPLICABLE, not_applicable  # noqa: E402


class _RootIsNotATestPackage:
    """The repository has an `__init__.py` (the host's entry); pytest would import it as a package of tests."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Collector | None:
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_RootIsNotATestPackage())
    config.addinivalue_line("markers", "needs_system(system, why): left out elsewhere; see tests/platforms.py")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture, so that no host is started for a test that is left out."""
    for mark in item.iter_markers("needs_system"):
        if words := not_applicable(*mark.args):
            pytest.skip(words)


_skipped: list[str] = []
_not_applicable: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        elsewhere = reason.removeprefix("Skipped: ").startswith(NOT_APPLICABLE)
        (_not_applicable if elsewhere else _skipped).append(f"{report.nodeid}: {reason}")


def _continuous_integration() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and _continuous_integration() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _not_applicable:
        terminalreporter.section(f"{len(_not_applicable)} not applicable on {sys.platform}")
        for line in _not_applicable:
            terminalreporter.write_line(line)
    if not _skipped:
        return
    verdict = "a failure under CI" if _continuous_integration() else "would fail under CI"
    terminalreporter.section(f"{len(_skipped)} skipped: {verdict}")
    for line in _skipped:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository folder, which is the package `attune`."""
    return ROOT


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The ComfyUI that `run.py` set up (or was given with `--comfyui`). Fails if there is none."""
    folder = comfyui_folder()
    if not (folder / "main.py").is_file():
        pytest.fail(f"There is no ComfyUI in {folder}. Run `python run.py test`, which sets it up.")
    return folder


@pytest.fixture(scope="session")
def python() -> str:
    """The interpreter that has the host's packages."""
    return sys.executable


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small networks, which gain nothing by more threads and wait for them where the cores are busy."""
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)
