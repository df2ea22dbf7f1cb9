"""What nodes are made of: schema, entry point, progress."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import logging
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import server
import torch
import world
from comfy_api.latest import ComfyExtension, io
from compare import raised, raises

from attune.nodes.host.progress import HostCallbacks, contact_sheet, workflow_id
from attune.nodes.host.schema import AttuneNode
from attune.training.interfaces import TrainingError


def check_schema_fits_the_host() -> None:
    class Plain(AttuneNode):
        @classmethod
        def define_schema(cls) -> Any:
            return cls.schema(
                node_id="AttuneTestPlain",
                display_name="Plain",
                category="Attune",
                inputs=[
                    cls.input(io.Int, "steps", default=3, min=1, a_keyword_of_the_future=True),
                    cls.input(io.Custom("ATTUNE_REWARD"), "reward", optional=True, tooltip="a", nonsense=1),
                    cls.input(io.Combo, "kind", options=["a", "b"], default="b"),
                ],
                outputs=[cls.output(io.Float, display_name="score", is_output_list=True, shape="round")],
                hidden=[io.Hidden.unique_id],
                another_keyword_of_the_future=["x"],
            )

        @classmethod
        def execute(cls, steps: int, kind: str, reward: Any = None) -> Any:
            if steps < 0:
                raise TrainingError(f"steps is {steps}; give at least 1.")
            return io.NodeOutput([float(steps)])

    schema = Plain.GET_SCHEMA()
    assert schema.node_id == "AttuneTestPlain"
    info = Plain.GET_NODE_INFO_V1()
    assert info["input"]["required"]["steps"] == ("INT", {"default": 3, "min": 1})
    assert info["input"]["optional"]["reward"][0] == "ATTUNE_REWARD"
    assert info["output_is_list"] == [True]
    clone = Plain.PREPARE_CLASS_CLONE({io.Hidden.unique_id: "1:2"})
    with torch.inference_mode():
        assert clone.EXECUTE_NORMALIZED(steps=3, kind="a").result == ([3.0],)
    error = raised(TrainingError, clone.EXECUTE_NORMALIZED, steps=-2, kind="a")
    assert str(error) == "steps is -2; give at least 1."
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "execute" not in frames, frames

    class Waiting(Plain):
        @classmethod
        async def execute(cls, steps: int, kind: str) -> Any:
            raise TrainingError("too late")

    raises(TrainingError, "too late", lambda: asyncio.run(Waiting.EXECUTE_NORMALIZED_ASYNC(steps=1, kind="a")))
    assert Waiting.FUNCTION == "EXECUTE_NORMALIZED_ASYNC"


def check_entry_point_survives_a_broken_family() -> None:
    pack = Path(folder_paths.base_path) / "pack" / "ComfyUI-Attune"
    for folder in ("nodes/host", "nodes/good", "nodes/broken", "nodes/refused", "training/demo"):
        (pack / folder).mkdir(parents=True)
        (pack / folder / "__init__.py").write_text("")
    for file in ("__init__.py", "nodes/__init__.py", "training/__init__.py", "training/interfaces.py"):
        shutil.copy(world.ROOT / file, pack / file)
    for file in (*(world.ROOT / "nodes/host").glob("*.py"), world.ROOT / "training/demo/networks.py"):
        shutil.copy(file, pack / file.relative_to(world.ROOT))
    node = (
        "from comfy_api.latest import io\nfrom ..host.schema import AttuneNode\nclass {0}(AttuneNode):\n"
        "    @classmethod\n    def define_schema(cls):\n        return cls.schema(node_id={1}, inputs=[], outputs=[])\n"
        "    @classmethod\n    def execute(cls):\n        return io.NodeOutput()\nNODES = [{0}]\n"
    )
    (pack / "nodes/good/nodes.py").write_text(node.format("Good", "'AttuneGood'"))
    (pack / "nodes/broken/nodes.py").write_text("import a_package_that_is_missing\nNODES = []\n")
    (pack / "nodes/refused/nodes.py").write_text(node.format("Refused", "undefined_name"))
    # As the host imports a custom node: under its path, by the spec of its __init__.py alone.
    name = str(pack).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, pack / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    assert not hasattr(module, "NODE_CLASS_MAPPINGS")
    assert module.WEB_DIRECTORY == "./js"
    records: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("attune").addHandler(handler)
    extension = asyncio.run(module.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    logging.getLogger("attune").removeHandler(handler)

    assert isinstance(extension, ComfyExtension)
    assert [n.GET_SCHEMA().node_id for n in nodes] == ["AttuneGood"]
    assert len(records) == 2, records
    assert "'broken'" in records[0]
    assert "a_package_that_is_missing" in records[0]
    assert "'refused'" in records[1]


def check_progress_reaches_the_host() -> None:
    seen: list[tuple[Any, ...]] = []
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: seen.append((value, total, preview))
    )
    images = torch.zeros(3, 8, 12, 3)
    images[1] = 1

    async def with_server() -> list[Any]:
        loop = asyncio.get_running_loop()
        live = server.PromptServer(loop)
        live.client_id = "page"
        callbacks = HostCallbacks(10, node_id="1:2")
        callbacks.on_phase("rollout", 1, 8)
        callbacks.on_report(4, {"loss": 0.5, "reward": float("nan")})
        callbacks.on_samples(4, images)
        await asyncio.sleep(0)
        return [live.messages.get_nowait() for _ in range(live.messages.qsize())]

    try:
        callbacks = HostCallbacks(10)
        callbacks.on_report(3, {"loss": 1.0})  # without a server
        messages = [m for m in asyncio.run(with_server()) if m[0] == "attune.training"]
    finally:
        server.PromptServer.instance = None
        comfy.utils.set_progress_bar_global_hook(None)
    assert [(value, total) for value, total, _ in seen] == [(3, 10), (4, 10), (4, 10)]
    kind, picture, size = seen[-1][2]
    assert (kind, picture.size, size) == ("JPEG", (24, 16), 512)
    phase, report, samples = (message[1] for message in messages)
    assert {message[2] for message in messages} == {None}, "every page hears of a run, not only the one that began it"
    assert phase == {"node": "1:2", "kind": "phase", "text": "rollout", "done": 1, "total": 8}
    assert report == {"node": "1:2", "kind": "report", "step": 4, "total": 10, "metrics": {"loss": 0.5, "reward": None}}
    json.dumps(messages, allow_nan=False)
    assert samples["image"].startswith("data:image/jpeg;base64,")
    sheet = contact_sheet(images)
    assert (sheet.getpixel((0, 0)), sheet.getpixel((12, 0)), sheet.getpixel((0, 8))) == ((0,) * 3, (255,) * 3, (0,) * 3)

    assert not callbacks.should_stop()
    comfy.model_management.interrupt_current_processing(True)
    assert callbacks.should_stop()
    raises(comfy.model_management.InterruptProcessingException, "", callbacks.raise_if_cancelled)
    assert not callbacks.should_stop()


def check_workflow_id_is_found_or_empty() -> None:
    assert workflow_id({"workflow": {"id": "one", "nodes": []}}) == "one"
    zero = {"workflow": {"id": "00000000-0000-0000-0000-000000000000"}}
    for without in (None, {}, {"workflow": None}, {"workflow": {}}, {"workflow": {"id": 3}}, zero):
        assert workflow_id(without) == ""
