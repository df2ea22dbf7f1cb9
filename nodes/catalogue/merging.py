"""Several LoRAs become one file: what the Merge LoRAs node does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...training.adapters import LoraMetadata, LoraParent, save_lora, weights_id
from ...training.adapters.merge import Merged, layers_of, merge, tensors_of
from ...training.checkpoint import read_tensors
from .catalogue import Catalogue
from .records import CatalogueError, Entry

METHOD = "merge"
MOST = 4


@dataclass(frozen=True)
class Ingredient:
    """One LoRA to merge.

    Attributes:
        name: of the file, or what to call one that came through a wire.
        weight: with which it goes in.
        tensors: by their keys in a LoRA file.
        metadata: of the file; empty for one that came through a wire.
    """

    name: str
    weight: float
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class MergeResult:
    """A merged LoRA.

    Attributes:
        path: its file.
        tensors: by their keys in the file.
        report: JSON-able.
        words: the same for people, a few lines.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    report: dict[str, Any]
    words: str


def merge_loras(
    ingredients: Sequence[Ingredient],
    *,
    name: str,
    rank: int,
    catalogue: Catalogue,
    new_path: Callable[[str], Path],
    version: str,
    on_layer: Callable[[int, int], None],
) -> MergeResult:
    """Merge, write a new file unless there is one with these very weights, and report.

    Args:
        ingredients: two to four.
        name: of the merged LoRA; its versions are numbered.
        rank: 0 keeps the sum exact.
        new_path: gives a free path in the LoRA folder for a name.
        version: of this pack.

    Raises:
        CatalogueError: too few LoRAs.
        TrainingError: they do not fit together; see `training.adapters.merge.merge`.
        CheckpointError: the file cannot be written.
    """
    if len(ingredients) < 2:
        raise CatalogueError(f"There is {len(ingredients) or 'no'} LoRA to merge. Connect or choose at least two.")
    names = [part.name for part in ingredients]
    loras = [layers_of(part.tensors, part.name) for part in ingredients]
    weights = [part.weight for part in ingredients]
    merged = merge(loras, weights, rank=rank, names=names, on_layer=on_layer)
    tensors = tensors_of(merged.layers)
    catalogue.scan()
    known = {entry.weights_id: entry for entry in catalogue.entries(erased=True)}
    identities = [weights_id(part.tensors) for part in ingredients]
    same = known.get(weights_id(tensors))
    if same is not None and same.usable and same.run == name and same.method == METHOD:
        path = catalogue.path(same)
    else:
        path = new_path(name)
        parents = [
            LoraParent(identity, _known_name(known.get(identity), part), part.weight)
            for identity, part in zip(identities, ingredients, strict=True)
        ]
        metadata = _metadata(ingredients, [known.get(identity) for identity in identities], name, parents, rank, merged)
        save_lora(path, tensors, metadata=metadata(version), rename={key: key for key in merged.layers})
        catalogue.scan()
    report = {
        "lora": path.name,
        "parents": [{"name": part.name, "weight": part.weight} for part in ingredients],
        "layers": len(merged.layers),
        "rank": max(layer.rank for layer in merged.layers.values()),
        "exact_rank": merged.exact_rank,
        "relative_error": merged.error,
        "bytes": path.stat().st_size,
        "warning": _warning(ingredients, [known.get(identity) for identity in identities]),
    }
    return MergeResult(path, tensors, report, _words(report))


def read_ingredient(path: Path, name: str, weight: float) -> Ingredient:
    """A LoRA file as an ingredient.

    Raises:
        CheckpointError: it cannot be read.
    """
    tensors, metadata = read_tensors(path)
    return Ingredient(name, weight, tensors, metadata)


def _known_name(entry: Entry | None, part: Ingredient) -> str:
    return entry.title if entry is not None else part.name if part.metadata else ""


def _metadata(
    ingredients: Sequence[Ingredient],
    entries: Sequence[Entry | None],
    name: str,
    parents: Sequence[LoraParent],
    rank: int,
    merged: Merged,
) -> Callable[[str], LoraMetadata]:
    """What the file says of itself: what all ingredients have in common, and how it was made."""

    def common(key: str, column: str = "") -> str:
        values = {
            part.metadata.get(key, "") or (getattr(entry, column) if entry is not None and column else "")
            for part, entry in zip(ingredients, entries, strict=True)
        }
        return values.pop() if len(values) == 1 else ""

    prediction = common("modelspec.prediction_type")
    return lambda version: LoraMetadata(
        title=name,
        architecture=common("modelspec.architecture"),
        method=METHOD,
        base_model=common("ss_sd_model_name", "base_model"),
        base_hash=common("attune.base_hash", "base_hash"),
        parents=parents,
        prediction={"epsilon": "eps"}.get(prediction, prediction),
        metrics={"relative_error": merged.error} if rank else {},
        version=version,
        run=name,
        settings={"merge": {"weights": [part.weight for part in ingredients], "rank": rank or "exact"}},
    )


def _warning(ingredients: Sequence[Ingredient], entries: Sequence[Entry | None]) -> str:
    """What speaks against adding these: other architectures, other base models, or a base that nobody knows.

    Weights are told apart by their digest where every file has one. Files of other tools have the base model's name
    alone, which people choose freely, so that it only suggests.
    """
    hashes, names, architectures = (
        [
            part.metadata.get(key, "") or (getattr(entry, column) if entry is not None and column else "")
            for part, entry in zip(ingredients, entries, strict=True)
        ]
        for key, column in (
            ("attune.base_hash", "base_hash"), ("ss_sd_model_name", "base_model"), ("modelspec.architecture", ""),
        )
    )  # fmt: skip
    unlike = "their sum may not do what each of them did."
    families = _different(text.partition("/")[0] for text in architectures)
    if families:
        return f"They are for different architectures ({', '.join(families)}): {unlike}"
    if _different(hashes):
        return f"They were trained on different base models: {unlike}"
    if all(hashes):
        return ""
    if found := _different(names):
        return f"They seem to be trained on different base models ({', '.join(found)}): {unlike}"
    if not all(names):
        told = hashes if any(hashes) else names
        unknown = [part.name for part, known in zip(ingredients, told, strict=True) if not known]
        return f"Base model unknown: {', '.join(unknown)}. If it is not the others' base model, {unlike}"
    return ""


def _different(values: Iterable[str]) -> list[str]:
    """The known values, if there are several."""
    known = sorted({value for value in values if value})
    return known if len(known) > 1 else []


def _words(report: Mapping[str, Any]) -> str:
    parts = " + ".join(f"{part['weight']:g} × {part['name']}" for part in report["parents"])
    size = f"{report['bytes'] / 2**20:.1f} MB"
    if report["rank"] < report["exact_rank"]:
        kept = f"rank {report['rank']} of {report['exact_rank']}, relative error {report['relative_error']:.1%}"
    else:
        kept = f"rank {report['rank']}, exact"
    lines = [f"{report['lora']} = {parts}", f"{report['layers']} layers, {kept}, {size}"]
    return "\n".join([*lines, report["warning"]] if report["warning"] else lines)
