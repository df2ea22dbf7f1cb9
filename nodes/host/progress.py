"""How work shows itself in the host: progress bar and Cancel; of a training run also previews and live events."""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from PIL import Image

from ...training.interfaces import AttuneError, RunCallbacks
from .server import tell

EVENT = "attune.training"
PREVIEW_SIZE = 512
SECONDS_WITHOUT_PROGRESS = 2.0
_ZERO_ID = "00000000-0000-0000-0000-000000000000"


class Progress:
    """Stops on Cancel, and shows a progress bar once the work has lasted two seconds."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.bar: comfy.utils.ProgressBar | None = None

    def __call__(self, done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if self.bar is None and time.monotonic() - self.started > SECONDS_WITHOUT_PROGRESS:
            self.bar = comfy.utils.ProgressBar(total)
        if self.bar is not None:
            self.bar.update_absolute(done, total)

    def part(self, before: int, total: int) -> Callable[[int, int], None]:
        """Progress of a part of the work, whose first step is number `before` of `total`."""
        return lambda done, _: self(before + done, total)


def stop_reading(done: int, total: int) -> None:
    """For `digests.telling` where the host asks whether something has changed, and takes errors for a yes.

    Raises:
        AttuneError: Cancel was pressed. The host is not told that it has been heard, so that it stops what comes next.
    """
    if comfy.model_management.processing_interrupted():
        raise AttuneError("Stopped while a model file was read to find out whether it has changed.")


def contact_sheet(images: torch.Tensor, *, columns: int | None = None) -> Image.Image:
    """Images [B, h, w, 3] in [0, 1] → one picture, as square a grid as they allow."""
    pixels = (images.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    count, height, width, _ = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    sheet = Image.new("RGB", (columns * width, math.ceil(count / columns) * height))
    for index, picture in enumerate(pixels):
        sheet.paste(Image.fromarray(picture), (index % columns * width, index // columns * height))
    return sheet


def workflow_id(extra_pnginfo: Any) -> str:
    """The id that the frontend saves in every workflow, out of the hidden input `extra_pnginfo`.

    Node ids repeat in every open tab, this id does not. "" if there is none: a prompt without a workflow (API,
    headless), an old frontend, or a graph that was cleared and has the zero id.
    """
    workflow = extra_pnginfo.get("workflow") if isinstance(extra_pnginfo, Mapping) else None
    found = workflow.get("id") if isinstance(workflow, Mapping) else None
    return found if isinstance(found, str) and found != _ZERO_ID else ""


def data_url(image: Image.Image) -> str:
    """A picture as a JPEG that a web page can show directly."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


class HostCallbacks(RunCallbacks):
    """Shows a run in the host that executes it.

    The host's progress bar counts updates. If there is a server, the web page receives events "attune.training":
        {"node", "kind": "report", "step", "total", "metrics": {name: number or null}}
        {"node", "kind": "samples", "step", "total", "image": JPEG data URL}
        {"node", "kind": "phase", "text", "done", "total"}
    The host raises its interrupt out of `on_report` and `on_samples` when Cancel was pressed; the trainer saves then.

    Args:
        total: updates of the whole run.
        node_id: the node's id (`cls.hidden.unique_id`); None outside a graph.
    """

    def __init__(self, total: int, *, node_id: str | None = None) -> None:
        self.total, self.node_id = total, node_id
        self.samples: Image.Image | None = None
        self._bar = comfy.utils.ProgressBar(total)
        self._step = 0

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        self._step = step
        numbers = {
            name: float(value) if math.isfinite(value) else None  # NaN is not JSON, and would break the page's parser
            for name, value in metrics.items()
        }
        self._send({"kind": "report", "step": step, "total": self.total, "metrics": numbers})
        self._bar.update_absolute(step, self.total)

    def on_samples(self, step: int, images: torch.Tensor) -> None:
        self.samples = contact_sheet(images)
        shown = self.samples.copy()
        shown.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
        self._send({"kind": "samples", "step": step, "total": self.total, "image": data_url(shown)})
        self._bar.update_absolute(self._step, self.total, ("JPEG", shown, PREVIEW_SIZE))

    def on_phase(self, text: str, done: int, total: int) -> None:
        self._send({"kind": "phase", "text": text, "done": done, "total": total})

    def should_stop(self) -> bool:
        return bool(comfy.model_management.processing_interrupted())

    def raise_if_cancelled(self) -> None:
        """After a run that was stopped: let the host end the prompt, as Cancel asks."""
        comfy.model_management.throw_exception_if_processing_interrupted()

    def _send(self, message: dict[str, Any]) -> None:
        # To every page, not only the one that pressed Run: that one may have been closed since, or be another's.
        tell(EVENT, {"node": self.node_id, **message})
