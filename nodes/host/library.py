"""The host as a library: its modules without its web server, and one graph played by its own executor."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...training.interfaces import AttuneError

EVENT = "attune.training"
SECONDS_BETWEEN_LINES = 10.0
Say = Callable[[str], None]


class Host:
    """The host's modules, started without its web server.

    Args:
        comfyui: its folder.
        base: where models, input, output, user and custom nodes are; None = in `comfyui`.
        cpu: compute on the CPU, in float32.
        say: told what happens, a line at a time.
    """

    def __init__(self, comfyui: Path, base: Path | None, *, cpu: bool, say: Say) -> None:
        self.say, self.said = say, 0.0
        words = ["main.py", "--disable-auto-launch", "--disable-api-nodes"]
        words += ["--base-directory", str(base)] if base is not None else []
        words += ["--cpu", "--force-fp32"] if cpu else []
        sys.argv = words
        sys.path.insert(0, str(comfyui))
        import comfy.options

        comfy.options.enable_args_parsing()
        # First, as in the host's main: a library's module of that name would hide it.
        importlib.import_module("utils.extra_config")
        import execution
        import server

        import nodes

        self.execution = execution
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.server = server.PromptServer(self.loop)
        self.server.send_sync = self._heard
        self._load_nodes(nodes)
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)

    def _load_nodes(self, nodes: Any) -> None:
        known = inspect.signature(nodes.init_extra_nodes).parameters
        choice = {name: value for name, value in {"init_custom_nodes": True, "init_api_nodes": False}.items()
                  if name in known}  # fmt: skip
        result = nodes.init_extra_nodes(**choice)
        if inspect.isawaitable(result):
            self.loop.run_until_complete(result)

    def run(self, graph: dict[str, Any], node: str) -> int:
        """Play the graph up to one node.

        Raises:
            AttuneError: the host refuses the graph, or a node of it failed; the message is the host's.
        """
        prompt_id = str(uuid.uuid4())
        self._validate(prompt_id, graph)
        executor = self._executor()
        began = time.monotonic()
        executor.execute(graph, prompt_id, {}, [node])
        for kind, details in executor.status_messages:
            if kind == "execution_interrupted":
                self._say("Stopped; the same command goes on from here.")
                return 130
            if kind == "execution_error":
                raise AttuneError(f"{details['node_type']}: {details['exception_message'].strip()}")
        self._say(f"Done in {time.monotonic() - began:.0f} s.")
        return 0

    def _validate(self, prompt_id: str, graph: dict[str, Any]) -> None:
        call = self.execution.validate_prompt
        given = {"prompt_id": prompt_id, "prompt": graph, "partial_execution_list": None}
        known = inspect.signature(call).parameters
        result = call(**{name: value for name, value in given.items() if name in known})
        valid, error, _, node_errors = self.loop.run_until_complete(result) if inspect.isawaitable(result) else result
        if valid:
            return
        told = [
            f"{entry['class_type']}: {problem['message']} ({problem['details']})"
            for entry in node_errors.values()
            for problem in entry["errors"]
        ]
        raise AttuneError(f"The host refuses this job: {'; '.join(told) or error['message']}")

    def _executor(self) -> Any:
        """The host's executor with the cache it uses by default; its arguments differ between versions."""
        known = inspect.signature(self.execution.PromptExecutor).parameters
        given: dict[str, Any] = {}
        if "cache_type" in known and hasattr(self.execution, "CacheType"):
            given["cache_type"] = self.execution.CacheType.CLASSIC
        if "cache_args" in known:
            given["cache_args"] = {"lru": 0, "ram": 0}
        return self.execution.PromptExecutor(self.server, **given)

    # ---- what is printed ----

    def _heard(self, event: str, data: Any, client: Any = None) -> None:
        """What the host would send to its page."""
        if event != EVENT:
            return
        kind = data["kind"]
        if kind == "start":
            self._say(f"{data['run']}: {data['method']}, update {data['step']} of {data['total']}. {data['note']}")
        elif kind == "report":
            figures = ", ".join(
                f"{name} {value:.4g}" for name, value in data["metrics"].items() if name != "step" and value is not None
            )
            if data["step"] == data["total"] or time.monotonic() - self.said > SECONDS_BETWEEN_LINES:
                self._say(f"update {data['step']}/{data['total']}: {figures}")
        elif kind == "end":
            self._say(f"{data['status']}: {data['file']} {data['message']}".strip())

    def _say(self, line: str) -> None:
        self.said = time.monotonic()
        self.say(line)

    def _interrupt(self, number: int, frame: Any) -> None:
        """Ask the host to stop, as its Cancel does, so that the work is saved; a second time, end at once."""
        import comfy.model_management

        if comfy.model_management.processing_interrupted():
            os._exit(130)
        self._say("Stopping and saving …")
        comfy.model_management.interrupt_current_processing()
