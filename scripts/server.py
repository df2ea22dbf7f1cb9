"""A running ComfyUI: started, driven and stopped through comfy-cli, watched through its own HTTP interface."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .environment import WINDOWS, Environment, link_pack
from .terminal import SetupError

ADDRESS = "127.0.0.1"
START_SECONDS = 300
# comfy-cli gives up when the host is silent for this long; loading a big checkpoint from a slow disk is silent.
SILENCE_SECONDS = 1800
_GPU_PROBE = "import torch; print(torch.cuda.is_available() or torch.backends.mps.is_available())"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class WorkflowError(RuntimeError):
    """The host refused or failed a workflow. `details` is comfy-cli's account of it."""

    def __init__(self, message: str, details: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.details = dict(details)


@dataclass
class WorkflowResult:
    """What one run left behind.

    Attributes:
        prompt_id: the host's name of the run.
        prompt: the graph as it was queued, API format.
        outputs: the host's history: node id → {"images": […], "text": […], …}.
        seconds: wall clock.
    """

    prompt_id: str
    prompt: dict[str, Any]
    outputs: dict[str, dict[str, Any]]
    seconds: float

    def nodes(self, class_type: str) -> list[str]:
        """Ids of all nodes of a class in this graph."""
        return [node for node, entry in self.prompt.items() if entry["class_type"] == class_type]

    def ui(self, class_type: str, key: str) -> list[Any]:
        """The UI output `key` of the only node of a class, e.g. ui("AttuneCompareAB", "attune_metrics")."""
        found = [self.outputs[n][key] for n in self.nodes(class_type) if key in self.outputs.get(n, {})]
        if len(found) != 1:
            raise KeyError(f"{len(found)} nodes of class {class_type} put out {key!r}; outputs: {self.outputs}")
        return found[0]


def has_gpu(environment: Environment) -> bool:
    """Whether torch would use one. Where no driver is in sight, torch is not even loaded to ask."""
    nvidia_or_amd = Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()
    if sys.platform == "linux" and not nvidia_or_amd and not Path("/dev/dxg").exists():
        return False
    asked = subprocess.run([environment.python, "-c", _GPU_PROBE], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "True"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


@dataclass
class Server:
    """One host process tree. Use as a context manager: it is stopped whatever happens.

    Attributes:
        environment: from `environment.prepare`.
        base: a folder of its own for models, custom nodes, input, output, temp and user; None = the host's own folders.
        port: 0 = any free one.
        arguments: further arguments of the host's main.py.
        force_cpu: do not look for a GPU.
    """

    environment: Environment
    base: Path | None = None
    port: int = 0
    arguments: Sequence[str] = ()
    force_cpu: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def folder(self) -> Path:
        """Where models, output, input, user and custom_nodes are."""
        return self.base or self.environment.comfyui

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    @property
    def log_file(self) -> Path:
        return self.folder / "user" / "attune-host.log"

    def log(self) -> str:
        """Everything the host has said so far, without colours."""
        if not self.log_file.is_file():
            return ""
        return _COLOURS.sub("", self.log_file.read_text(encoding="utf-8", errors="replace"))

    def _variables(self) -> dict[str, str]:
        # A user's own host keeps the user's home: other custom nodes find their caches there.
        home = self.base / "home" if self.base is not None else None
        return self.environment.variables(home=home)

    def _comfy(self, *arguments: str | os.PathLike[str]) -> list[str]:
        return [str(self.environment.python), "-m", "comfy_cli", "--skip-prompt", *map(os.fspath, arguments)]

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, waiting: Callable[[float], None] | None = None) -> None:
        """Start the host and return when it answers.

        Args:
            waiting: called about twice a second with the seconds so far.

        Raises:
            SetupError: it ended or did not answer in time; the message holds the end of its log.
        """
        for name in ("models", "input", "output", "temp", "user"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        link_pack(self.folder / "custom_nodes")
        self.port = self.port or free_port()
        arguments = ["--port", str(self.port), "--disable-auto-launch", *self.arguments]
        if self.base is not None:
            database = (self.base / "user" / "comfyui.db").as_posix()
            arguments += ["--base-directory", str(self.base), "--database-url", f"sqlite:///{database}"]
        if self.force_cpu or not has_gpu(self.environment):
            # Newer hosts choose 16-bit types on a CPU, ten times slower on most.
            arguments += ["--cpu", "--force-fp32"]
        command = self._comfy("--workspace", self.environment.comfyui, "launch", "--", *arguments)
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if WINDOWS else {"start_new_session": True}
        with self.log_file.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._variables(),
                cwd=self.folder / "user",
                **group,
            )
        try:
            self._wait_until_ready(waiting)
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self, waiting: Callable[[float], None] | None) -> None:
        began = time.monotonic()
        while time.monotonic() - began < START_SECONDS:
            if self.process is None or self.process.poll() is not None:
                raise SetupError(f"The host ended while starting.\n{self._log_tail()}")
            try:
                self.get("/system_stats", timeout=5)
                return
            except (OSError, ValueError):
                time.sleep(0.4)
            if waiting is not None:
                waiting(time.monotonic() - began)
        raise SetupError(f"The host did not answer within {START_SECONDS} s.\n{self._log_tail()}")

    def _log_tail(self) -> str:
        tail = "\n".join(f"    {line}" for line in self.log().splitlines()[-25:])
        return f"The end of its log ({self.log_file}):\n{tail}"

    def stop(self) -> None:
        """End the host and everything it started; harmless when it is not running."""
        process, self.process = self.process, None
        if process is None:
            return
        if WINDOWS:
            subprocess.run(["taskkill", "/PID", str(process.pid), "/T", "/F"], capture_output=True, check=False)
            process.wait()
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                # The group outlives comfy-cli, which may end before the host does.
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and self._group_lives(process):
                time.sleep(0.05)
        process.wait()

    @staticmethod
    def _group_lives(process: subprocess.Popen[bytes]) -> bool:
        process.poll()
        try:
            os.killpg(process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def request(self, path: str, body: object = None, *, timeout: float = 30) -> bytes:
        """GET (or POST where there is a body) one path of the host.

        Raises:
            urllib.error.HTTPError: with the host's status.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as reply:
            return reply.read()

    def get(self, path: str, *, timeout: float = 30) -> Any:
        """GET a path that answers with JSON."""
        return json.loads(self.request(path, timeout=timeout))

    def post(self, path: str, body: object, *, timeout: float = 30) -> Any:
        """POST JSON; returns the JSON answer, or None where the answer is empty."""
        answer = self.request(path, body, timeout=timeout)
        return json.loads(answer) if answer else None

    def interrupt(self) -> None:
        """What the Cancel button does."""
        self.post("/interrupt", {})

    def cancel(self, patience: float = 20) -> None:
        """Interrupt what runs and wait until the host is idle, so that a training run can save what it has.

        Args:
            patience: seconds; after them the host is left as it is.
        """
        deadline = time.monotonic() + patience
        try:
            self.interrupt()
            while self.get("/queue")["queue_running"] and time.monotonic() < deadline:
                time.sleep(0.2)
        except OSError:
            # The host itself is gone: there is nothing left to interrupt.
            return

    def _events(self, command: Sequence[str], on_event: Callable[[dict[str, Any]], None] | None) -> list[dict]:
        events: list[dict[str, Any]] = []
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
            with subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=complaints,
                stdin=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=self._variables(),
                cwd=self.folder / "user",
            ) as process:
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        if line.lstrip().startswith("{"):
                            events.append(json.loads(line))
                            if on_event is not None:
                                on_event(events[-1])
                except BaseException:
                    process.terminate()
                    self.cancel()
                    raise
            complaints.seek(0)
            if not events or events[-1].get("type") != "envelope":
                raise WorkflowError(f"comfy-cli ended without a result: {complaints.read()[-2000:]}", {})
        envelope = events[-1]
        if not envelope.get("ok"):
            error = envelope.get("error") or {}
            words = [str(error[key]) for key in ("message", "hint") if error.get(key)]
            raise WorkflowError(". ".join(words) or str(envelope), error)
        return events

    def convert(self, workflow: Path) -> dict[str, Any]:
        """A workflow file, UI or API format, in API format (comfy-cli converts it against this host)."""
        command = self._comfy("run", "--workflow", workflow, "--json", "--print-prompt", "--host", ADDRESS)
        events = self._events([*command, "--port", str(self.port)], None)
        return next(event["prompt"] for event in events if event.get("type") == "prompt_preview")

    def run(
        self,
        workflow: Path | Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> WorkflowResult:
        """Run a workflow to its end by `comfy run --wait`.

        Args:
            workflow: a file (UI or API format) or an API-format graph.
            overrides: "<node class or id>.<input>" → value, e.g. {"KSampler.steps": 4}; every one must match.
            on_event: called with each of comfy-cli's events while it runs.

        Raises:
            WorkflowError: the host refused the graph or a node failed.
            KeyError: an override matches nothing.
        """
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            if isinstance(workflow, Path) and not overrides:
                file = workflow
            else:
                graph = self.convert(workflow) if isinstance(workflow, Path) else json.loads(json.dumps(workflow))
                apply_overrides(graph, overrides or {})
                file = Path(scratch) / "workflow.json"
                file.write_text(json.dumps(graph), encoding="utf-8")
            command = self._comfy("run", "--workflow", file, "--wait", "--json", "--host", ADDRESS)
            command += ["--port", str(self.port), "--timeout", str(SILENCE_SECONDS)]
            events = self._events(command, on_event)
        prompt_id = events[-1]["data"]["prompt_id"]
        entry = self.get(f"/history/{prompt_id}")[prompt_id]
        return WorkflowResult(prompt_id, entry["prompt"][2], entry["outputs"], time.monotonic() - began)

    def output_path(self, image: Mapping[str, str]) -> Path:
        """The file behind an entry like {"filename": …, "subfolder": …, "type": "output"} of the history."""
        return self.folder / image["type"] / image.get("subfolder", "") / image["filename"]


def apply_overrides(graph: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Set inputs of an API-format graph in place; see `Server.run`."""
    for target, value in overrides.items():
        who, _, name = target.rpartition(".")
        nodes = [node for key, node in graph.items() if who in (key, node["class_type"])]
        if not nodes or not all(name in node["inputs"] for node in nodes):
            inputs = {node["class_type"]: sorted(node["inputs"]) for node in graph.values()}
            raise KeyError(f"The override {target!r} matches no input of this graph; there are {inputs}.")
        for node in nodes:
            node["inputs"][name] = value
