"""The catalogue's nodes: take a LoRA out of it, and merge several into one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.adapters.files import DIFFERENCES
from ...training.adapters.merge import group_of, layers_of, tensors_of
from ...training.checkpoint import read_tensors
from ...training.interfaces import AttuneError
from ..drawing import to_tensor
from ..host.folders import lora_name, lora_output_path
from ..host.sampling import apply_lora
from ..host.schema import AttuneNode
from ..version import pack_version
from .catalogue import NEWEST_OF_ALL, Catalogue
from .choosing import report_of, summary_of
from .merging import MOST, Ingredient, merge_loras, read_ingredient
from .nodes_routes import add_routes, shared_catalogue
from .picture import version_picture
from .records import CatalogueError, Entry

CATEGORY = "Attune/catalogue"
NO_FILE = "none"
LoraModel = io.Custom("LORA_MODEL")


def progress() -> Callable[[int, int], None]:
    """The host's progress bar as (done, total); raises where Cancel was pressed."""
    bars: list[Any] = []

    def show(done: int, total: int) -> None:
        if not bars:
            bars.append(comfy.utils.ProgressBar(max(1, total)))
        bars[0].update_absolute(done, max(1, total))

    return show


def choices() -> list[str]:
    """The names the catalogue knows now; only the default where it cannot be read, which a run then explains."""
    try:
        return shared_catalogue().choices()
    except AttuneError:
        return [NEWEST_OF_ALL]


class AttuneLoraCatalogue(AttuneNode):
    """A LoRA out of the catalogue."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneLoraCatalogue",
            display_name="LoRA Catalogue",
            category=CATEGORY,
            description="Takes a trained LoRA out of the catalogue, by its file, as the newest of its run, or as the "
            "version that you promoted, and shows where it came from.",
            search_aliases=["lora versions", "load trained lora", "promote", "rollback", "lora history"],
            is_output_node=True,
            inputs=[
                cls.input(
                    io.Combo,
                    "lora",
                    options=choices(),
                    default=NEWEST_OF_ALL,
                    tooltip="Which LoRA. 'RUN (promoted)' is the version that you promoted in the LoRA Catalogue tab, "
                    "whichever that is when you press Run; 'RUN (newest)' the one trained last; a file is always that "
                    "file. Not used where lora_name is connected.",
                ),
                cls.input(
                    io.Float,
                    "strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly the LoRA changes the model. Raising it exaggerates what it learned. 0 = off.",
                ),
                cls.input(io.Model, "model", optional=True, tooltip="What to put the LoRA on: the model it was trained "
                          "on. Needed for the output model only."),
                cls.input(
                    io.String,
                    "lora_name",
                    optional=True,
                    force_input=True,
                    tooltip="The lora_name of Train LoRA or Merge LoRAs: takes what was just made. Not connected = the "
                    "choice above.",
                ),
            ],
            outputs=[
                cls.output(io.Model, id="model_out", display_name="model", tooltip="The model with the LoRA on it."),
                cls.output(LoraModel, id="lora_out", display_name="lora", tooltip="For Merge LoRAs, start_lora of "
                           "Train LoRA and the host's Load LoRA Model. Always at full strength."),
                cls.output(io.String, id="name", display_name="lora_name", tooltip="Its file, as the host's loaders "
                           "list it."),
                cls.output(io.String, id="report", display_name="report", tooltip="All that is known of it, and what "
                           "was done to it, as JSON."),
                cls.output(io.Image, id="tree", display_name="tree", tooltip="The tree of its versions as a picture."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool:
        # What is in the catalogue changes while a page is open; `execute` says what is there instead.
        return True

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **inputs: Any) -> str:
        if "lora_name" in inputs:
            return "as connected"
        try:
            catalogue = shared_catalogue()
            catalogue.scan()
            entry = catalogue.find(lora or NEWEST_OF_ALL)
            return f"{entry.content} {report_of(catalogue, entry)}"
        except AttuneError as error:
            return str(error)

    @classmethod
    def execute(cls, lora: str, strength: float, model: Any = None, lora_name: str | None = None) -> io.NodeOutput:
        catalogue = shared_catalogue()
        catalogue.scan(progress())
        entry = catalogue.find(lora_name or lora)
        tensors, left_out = network_tensors(catalogue, entry)
        if model is None:
            applied = ExecutionBlocker("Connect a model to LoRA Catalogue to get it with the LoRA on it.")
        else:
            applied = apply_lora(model, tensors, strength=strength) if strength else model
        picture = to_tensor(version_picture(catalogue.entries(), entry))
        words = summary_of(catalogue, entry) + left_out
        return io.NodeOutput(
            applied, tensors, lora_name_of(catalogue, entry), json.dumps(report_of(catalogue, entry)), picture,
            ui={"text": [words]},
        )  # fmt: skip


def lora_name_of(catalogue: Catalogue, entry: Entry) -> str:
    """As the host's loaders list the file."""
    return lora_name(catalogue.path(entry))


_LEFT_OUT = "\nIts text encoder part is left out; the host's Load LoRA applies both."


def network_tensors(catalogue: Catalogue, entry: Entry) -> tuple[dict[str, Any], str]:
    """The LoRA without what it does to a text encoder, kohya's names, and words about what was left out.

    Whole weights are given as they are, without those of a text encoder.
    """
    tensors, _ = read_tensors(catalogue.path(entry))
    if all(key.endswith(DIFFERENCES) for key in tensors):
        ours = {key: value for key, value in tensors.items() if group_of(key) != "text encoder"}
        return ours, "" if len(ours) == len(tensors) else _LEFT_OUT
    layers = layers_of(tensors, entry.title)
    kept = {key: layer for key, layer in layers.items() if group_of(key) != "text encoder"}
    if len(kept) == len(layers):
        return (tensors if all(f"{key}.lora_up.weight" in tensors for key in kept) else tensors_of(kept)), ""
    return tensors_of(kept), _LEFT_OUT


class AttuneMergeLoras(AttuneNode):
    """Several LoRAs as one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [NO_FILE, *folder_paths.get_filename_list("loras")]
        slots = []
        for number in range(1, MOST + 1):
            slots += [
                cls.input(
                    io.Combo,
                    f"file_{number}",
                    options=files,
                    default=NO_FILE,
                    tooltip=f"A LoRA file to merge. none = what is connected to lora_{number}, or nothing.",
                ),
                cls.input(
                    io.Float,
                    f"weight_{number}",
                    default=0.5,
                    min=-10.0,
                    max=10.0,
                    step=0.001,
                    round=0.001,
                    tooltip="How much of this LoRA goes in. Raising it makes the result more like it; weights that add "
                    "up to 1 keep the strength of one LoRA; below 0 takes its effect away. 0 = leave it out.",
                ),
            ]
        wires = [
            cls.input(LoraModel, f"lora_{number}", optional=True, tooltip="A LoRA to merge, from Train LoRA or LoRA "
                      f"Catalogue. Leave file_{number} at none then.")
            for number in range(1, MOST + 1)
        ]  # fmt: skip
        return cls.schema(
            node_id="AttuneMergeLoras",
            display_name="Merge LoRAs",
            category=CATEGORY,
            description="Merges two to four LoRAs by weights into one file, for example one trained for composition "
            "and one for colour, and saves it to models/loras/attune.",
            search_aliases=["lora soup", "rewarded soup", "combine loras", "blend loras", "resize lora"],
            is_output_node=True,
            inputs=[
                cls.input(
                    io.String,
                    "name",
                    default="merged",
                    tooltip="Names the merged LoRA; its files are numbered and never overwritten. The same LoRAs and "
                    "weights under the same name give the file that is there already.",
                ),
                cls.input(
                    io.Int,
                    "rank",
                    default=0,
                    min=0,
                    max=1024,
                    tooltip="Rank of the merged LoRA. Raising it loses less and makes a larger file; the report says "
                    "how much is lost. 0 = exact: the ranks of all add up.",
                ),
                *slots,
                *wires,
            ],
            outputs=[
                cls.output(LoraModel, id="lora", display_name="lora", tooltip="The merged LoRA, for the host's Load "
                           "LoRA Model."),
                cls.output(io.String, id="lora_name", display_name="lora_name", tooltip="The saved file, as the host's "
                           "loaders list it, and for LoRA Catalogue."),
                cls.output(io.String, id="report", display_name="report", tooltip="Parts, weights, rank, and what a "
                           "lower rank lost, as JSON."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> list[str]:
        return [
            f"{name} {stat.st_size} {stat.st_mtime_ns}"
            for key, name in sorted(inputs.items())
            if key.startswith("file_") and name and (path := folder_paths.get_full_path("loras", name))
            for stat in [Path(path).stat()]
        ]

    @classmethod
    def execute(cls, name: str, rank: int, **slots: Any) -> io.NodeOutput:
        result = merge_loras(
            ingredients(slots), name=name.strip(), rank=rank, catalogue=shared_catalogue(),
            new_path=lora_output_path, version=pack_version(), on_layer=progress(),
        )  # fmt: skip
        file = lora_name(result.path)
        report = json.dumps({**result.report, "lora_name": file})
        return io.NodeOutput(result.tensors, file, report, ui={"text": [result.words]})


def ingredients(slots: dict[str, Any]) -> list[Ingredient]:
    """The LoRAs that are chosen or connected and have a weight.

    Raises:
        CatalogueError: a slot has both a file and a wire, or the file is not there any more.
    """
    found = []
    for number in range(1, MOST + 1):
        file, weight, wire = (slots.get(f"{kind}_{number}") for kind in ("file", "weight", "lora"))
        chosen = file not in (None, NO_FILE)
        if chosen and wire is not None:
            raise CatalogueError(
                f"Slot {number} has both the file {file!r} and a wire. Set file_{number} to none, or remove the wire."
            )
        if not weight:
            continue
        if chosen:
            path = folder_paths.get_full_path("loras", file)
            if path is None:
                raise CatalogueError(f"The LoRA file {file!r} is not there any more. Choose another in file_{number}.")
            found.append(read_ingredient(Path(path), file, weight))
        elif wire is not None:
            found.append(Ingredient(f"lora_{number}", weight, wire, {}))
    return found


add_routes()

NODES: list[type[io.ComfyNode]] = [AttuneLoraCatalogue, AttuneMergeLoras]
