"""One real ComfyUI for the whole session, started and driven by comfy-cli, in folders of its own.

The fixtures are for tests/host and tests/browser alike (one server), so `tests/conftest.py` takes them from here.
"""

from __future__ import annotations

import compileall
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attune.scripts.environment import Environment
from attune.scripts.server import Server, WorkflowResult

ROOT = Path(__file__).resolve().parents[1]


def comfyui_folder() -> Path:
    """The ComfyUI that `run.py` set up, or was given with `--comfyui`."""
    return Path(os.environ.get("ATTUNE_COMFYUI") or ROOT / ".host" / "ComfyUI")


class HostServer(Server):
    """The server under test, and where its things are.

    `run`, `convert`, `get`, `post`, `interrupt` and `log` come from `scripts/server.py`.
    """

    @property
    def models_dir(self) -> Path:
        return self.folder / "models"

    @property
    def output_dir(self) -> Path:
        return self.folder / "output"

    @property
    def input_dir(self) -> Path:
        return self.folder / "input"

    @property
    def user_dir(self) -> Path:
        return self.folder / "user"

    def images(self, result: WorkflowResult) -> list[Path]:
        """Every image file that a run saved or showed, in the order of its nodes."""
        entries = [image for output in result.outputs.values() for image in output.get("images", [])]
        return [self.output_path(entry) for entry in entries]

    def pixels(self, file: Path) -> np.ndarray:
        """A picture as float32 [h, w, 3] in [0, 1]."""
        return np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255

    def free(self) -> None:
        """Unload models and forget cached node results, as the menu entry does."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def object_info(self) -> dict[str, Any]:
        return self.get("/object_info")


def compile_pack() -> None:
    """What a host does at its first start with a version of the pack, so that every start here is like a later one."""
    for folder in ("nodes", "training"):
        compileall.compile_dir(ROOT / folder, quiet=1)


@pytest.fixture(scope="session")
def launch_host(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., HostServer]]:
    """Starts a further host, `launch_host(*arguments, base=None)`: for tests with other arguments, or that kill it.

    Whatever is still running at the end of the session is stopped.
    """
    compile_pack()
    servers: list[HostServer] = []
    environment = Environment(Path(sys.executable), comfyui, own=comfyui.parent.name == ".host")

    def launch(*arguments: str, base: Path | None = None) -> HostServer:
        folder = base or tmp_path_factory.mktemp("host")
        server = HostServer(environment, folder, arguments=arguments, force_cpu=True)
        servers.append(server)
        server.start()
        return server

    yield launch
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def host(launch_host: Callable[..., HostServer], request: pytest.FixtureRequest) -> Iterator[HostServer]:
    """The running host. Its folders are temporary; the pack is linked, the demo models come with it."""
    server = launch_host("--preview-method", "latent2rgb")
    yield server
    server.stop()
    if request.session.testsfailed:
        kept = ROOT / ".host" / "logs" / "test-host.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(server.log(), encoding="utf-8")
        print(f"\nThe host's log is kept: {kept}")
