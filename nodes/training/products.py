"""What a run leaves behind, as files and for the graph: a LoRA, or a user adapter with its set encoder.

The plan says which: `ObjectivePlan.product`, "LoRA" where it says nothing. A product knows what is attached to the
network, where its files lie and what they say; the run and its records know neither.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ...training.adapters import (
    LoraConfig,
    LoraMetadata,
    Policy,
    load_lora,
    lora_file_tensors,
    module_tensors,
    save_lora,
    weights_id,
)
from ...training.adapters.files import DIFFERENCES
from ...training.adapters.user_attention import (
    UserAdapterConfig,
    UserAdapterMetadata,
    load_user_adapter,
    save_user_adapter,
)
from ...training.adapters.user_policy import UserPolicy
from ...training.interfaces import AttuneError, TrainingError
from ...training.preference.set_encoder import SetEncoder, load_set_encoder, save_set_encoder
from ...training.trained import parted
from .records import ARCHITECTURES, pack_version

LORA, USER_ADAPTER = "LoRA", "user adapter"
WHOLE_WEIGHTS = "LoRA of whole weights"
ENCODER_ENDING = "_encoder"
DOWN = ".lora_down.weight"


@dataclass(frozen=True)
class Facts:
    """What a file says about the run that made it.

    Attributes:
        run: its name; ending: of the file, "" or "_stopped".
        step: updates behind it; metrics: the figures of that update.
        identity: hashes of base model and data, and the reward if there is one.
        settings: everything that was set.
        resolution: of the pictures, (width, height); prediction: "eps", "v" or "flow".
        base_precision: of the base weights while training.
    """

    run: str
    ending: str
    step: int
    metrics: Mapping[str, float]
    method: str
    identity: Mapping[str, str]
    settings: Mapping[str, Any]
    resolution: tuple[int, int] | None = None
    prediction: str = ""
    base_precision: str = ""


class Product(Protocol):
    """
    Attributes:
        noun: what people call it. precisions: whether base weights may be stored in few bits.
    """

    noun: str
    precisions: bool

    def policy(self, denoiser: Any, objective: Any) -> Any:
        """The denoiser with what is trained; a context manager and a `Trainable`. Also looks at the names of layers."""
        ...

    def begin(self, policy: Any) -> None:
        """Give what is trained the weights that the run begins with, if it was given any.

        Raises:
            TrainingError: they do not fit.
        """
        ...

    def folder(self) -> Path: ...

    def save(self, tensors: Mapping[str, torch.Tensor], facts: Facts) -> str:
        """Write new files, whole or not at all; the main one's name as the node that loads it lists it."""
        ...

    def holds(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether this file has these very weights."""
        ...

    def settings(self) -> dict[str, Any]:
        """Its shape, for report and file."""
        ...

    def words(self, tensors: Mapping[str, torch.Tensor]) -> str:
        """Its size, for the chart."""
        ...

    def outputs(self, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor] | None]:
        """For the graph: the MODEL, and the weights as the host's LORA_MODEL; None if they are none."""
        ...


def product_of(request: Any) -> Product:
    """What a run of this request makes."""
    kind = getattr(request.plan, "product", LORA)
    if kind == LORA:
        config = replace(request.lora, seed=request.trainer.seed)
        if config.kind == "full":
            return LoraProduct(request.model, config, request.start, noun=WHOLE_WEIGHTS, precisions=False)
        return LoraProduct(request.model, config, request.start)
    if kind == USER_ADAPTER:
        if request.start is not None:
            raise TrainingError(
                "This objective trains a user adapter, which cannot begin with a LoRA. Disconnect start_lora; to train "
                "the adapter on a model with that LoRA, apply it to the model."
            )
        return UserAdapterProduct(request.model, request.plan.adapter(request.trainer.seed), request.plan.encoder)
    raise TrainingError(f"A run makes one of {LORA}, {USER_ADAPTER}; not {kind!r}.")


def trained_weights(tensors: Mapping[str, torch.Tensor]) -> int:
    """How many numbers were trained."""
    return sum(value.numel() for key, value in tensors.items() if not key.endswith(".alpha"))


def _with_alphas(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A layer that says no alpha means its rank, as everywhere where LoRA files are read."""
    meant = {
        f"{name.removesuffix(DOWN)}.alpha": torch.tensor(float(value.shape[0]))
        for name, value in tensors.items()
        if name.endswith(DOWN)
    }
    return {**meant, **tensors}


@dataclass
class LoraProduct:
    """A LoRA in the host's LoRA folder, or whole weights in the form of one.

    Attributes:
        start: weights to begin with, by their keys in a file; None = fresh ones.
        rename: module path → key in the file, see `lora_file_tensors`; known once there is a network.
    """

    model: Any
    config: LoraConfig
    start: Mapping[str, torch.Tensor] | None = None
    noun: str = LORA
    precisions: bool = True
    rename: dict[str, str] = field(default_factory=dict)

    def policy(self, denoiser: Any, objective: Any) -> Policy:
        self.rename = denoiser.lora_keys()
        return Policy(denoiser, self.config, roles=getattr(objective, "roles", ("policy",)))

    def begin(self, policy: Policy) -> None:
        if self.start is None:
            return
        try:
            own = module_tensors(self.start, policy.paths, rename=self.rename)
            policy.load_tensors(_with_alphas(own), policy.roles[0])
        except TrainingError as error:
            raise TrainingError(
                f"This run cannot go on with the LoRA at start_lora. {error}{self._settings_of_start()}"
            ) from error

    def _settings_of_start(self) -> str:
        """What to set where the LoRA to begin with is of another kind or rank, after a blank."""
        ranks = {value.shape[0] for name, value in self.start.items() if name.endswith(DOWN)}
        whole = not ranks and any(name.endswith(DIFFERENCES) for name in self.start)
        if not ranks and not whole:
            return " Connect one that Train LoRA has trained."
        if whole != (self.config.kind == "full"):
            kind = "full" if whole else "low rank"
            return f" It is {kind}: set trains in Train LoRA to that."
        if len(ranks) != 1 or ranks == {self.config.rank}:
            return ""
        return f" Its rank is {ranks.pop()}: set rank in LoRA Settings to that."

    def folder(self) -> Path:
        from ..host.folders import lora_folder

        return lora_folder()

    def save(self, tensors: Mapping[str, torch.Tensor], facts: Facts) -> str:
        from ..host.applied_loras import parent_of, parents_of
        from ..host.folders import lora_folder, lora_name, lora_output_path

        path = lora_output_path(facts.run, facts.ending)
        family = type(getattr(self.model.model, "model_config", None)).__name__
        metadata = LoraMetadata(
            title=f"{facts.run}{facts.ending}",
            architecture=f"{ARCHITECTURES.get(family, family)}/lora",
            method=facts.method,
            prediction=facts.prediction,
            resolution=facts.resolution,
            steps=facts.step,
            metrics=facts.metrics,
            version=pack_version(),
            run=facts.run,
            parents=[
                *parents_of(self.model, lora_folder()),
                *([] if self.start is None else [parent_of(self.start, lora_folder())]),
            ],
            settings=facts.settings,
            base_precision=facts.base_precision,
            **facts.identity,
        )
        save_lora(path, parted(tensors)[0], metadata=metadata, rename=self.rename)
        return lora_name(path)

    def holds(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> bool:
        saved, _ = load_lora(path)
        return _same(saved, lora_file_tensors(parted(tensors)[0], rename=self.rename))

    def settings(self) -> dict[str, Any]:
        meaningless = ("rank", "alpha", "seed") if self.config.kind == "full" else ()
        own = {name: value for name, value in asdict(self.config).items() if name not in meaningless}
        return {"lora": own, **({} if self.start is None else {"start_lora": weights_id(self.start)})}

    def words(self, tensors: Mapping[str, torch.Tensor]) -> str:
        shape = "whole layers" if self.config.kind == "full" else f"LoRA rank {self.config.rank}"
        return f"{shape}, {trained_weights(tensors) / 1e6:.2g} million weights"

    def outputs(self, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor] | None]:
        from ..host.sampling import apply_lora

        stored = lora_file_tensors(parted(tensors)[0], rename=self.rename)
        return apply_lora(self.model, stored), stored


@dataclass
class UserAdapterProduct:
    """A user adapter in the first folder of user adapters, and beside it the set encoder if it was trained along.

    Attributes:
        encoder: whose tokens the adapter reads: as it was before the run.
    """

    model: Any
    config: UserAdapterConfig
    encoder: SetEncoder
    noun: str = USER_ADAPTER
    precisions: bool = False

    def policy(self, denoiser: Any, objective: Any) -> UserPolicy:
        return UserPolicy(denoiser, self.config)

    def begin(self, policy: UserPolicy) -> None:
        """Always fresh: see `product_of`."""

    def folder(self) -> Path:
        from ..host.folders import user_adapter_folder

        return user_adapter_folder()

    def encoder_after(self, tensors: Mapping[str, torch.Tensor]) -> SetEncoder:
        """The encoder that belongs to these weights."""
        from copy import deepcopy

        _, trained = parted(tensors)
        with torch.inference_mode(False), torch.no_grad():
            encoder = deepcopy(self.encoder).cpu().eval().requires_grad_(False)
            for name, value in trained.items():
                encoder.get_parameter(name).copy_(value)
        return encoder

    def save(self, tensors: Mapping[str, torch.Tensor], facts: Facts) -> str:
        from ..host.folders import free_path

        own, trained = parted(tensors)
        encoder = self.encoder_after(tensors)
        path = free_path(self.folder(), facts.run, facts.ending, beside=_encoder_beside)
        details = {
            "run": facts.run,
            "updates": facts.step,
            "metrics": dict(facts.metrics),
            "settings": dict(facts.settings),
            "version": pack_version(),
            **{name: value for name, value in facts.identity.items() if name != "base_hash"},
        }
        metadata = UserAdapterMetadata(
            encoder.encoder_id,
            base_hash=facts.identity.get("base_hash", ""),
            title=f"{facts.run}{facts.ending}",
            method=facts.method,
            details=details,
        )
        beside = _encoder_beside(path)
        if trained:
            save_set_encoder(beside, encoder, {"run": facts.run, "updates": facts.step})
        try:
            save_user_adapter(path, own, self.config, metadata)
        except BaseException:
            if trained:
                beside.unlink(missing_ok=True)  # of no use without the adapter
            raise
        return os.path.relpath(path, self.folder().parent)

    def holds(self, path: Path, tensors: Mapping[str, torch.Tensor]) -> bool:
        saved, metadata = load_user_adapter(path)
        own, trained = parted(tensors)
        if metadata.encoder_id != self.encoder_after(tensors).encoder_id or saved.config != self.config:
            return False
        if trained and load_set_encoder(_encoder_beside(path)).encoder_id != metadata.encoder_id:
            return False
        # As they are stored, in half the bits.
        return _same(saved.tensors(), {name: value.half().float() for name, value in own.items()})

    def settings(self) -> dict[str, Any]:
        return {"user_adapter": asdict(self.config), "set_encoder": asdict(self.encoder.config)}

    def words(self, tensors: Mapping[str, torch.Tensor]) -> str:
        tokens = f"{self.config.tokens} token{'' if self.config.tokens == 1 else 's'} of {self.config.width}"
        return f"user adapter for {tokens}, {trained_weights(parted(tensors)[0]) / 1e6:.2g} million weights"

    def outputs(self, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor] | None]:
        # Without a person there is nothing for the adapter to add.
        return self.model, None


def what_instead(name: str) -> str:
    """Why there is no LORA_MODEL of a user adapter's run, and what to do."""
    return (
        f"This run trained a user adapter, which is no LoRA: it acts only together with a taste. Choose {name} in "
        "Apply Preference, wire a Preference Embedding to it, and leave the output lora of Train LoRA unconnected."
    )


def _encoder_beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}{ENCODER_ENDING}{path.suffix}")


def _same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def kept_file(product: Product, name: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """The file of that name if it is there and has these weights, else nothing."""
    path = product.folder() / Path(name.replace("\\", "/")).name
    if not name or not path.is_file():
        return ""
    try:
        return name if product.holds(path, tensors) else ""
    except (AttuneError, RuntimeError):
        return ""
