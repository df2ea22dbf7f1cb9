"""Adapters with named roles: one set of base weights, several policies.

A role adds to every adapted layer a product of two thin matrices (a LoRA, see `low_rank`), or a difference of its whole
weight (full fine-tuning, see `full`); a fresh one changes nothing. The layers are wrapped in place; `Policy` keeps the
originals and puts the very same objects back.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from ..interfaces import Denoiser, TrainingError
from .full import Full
from .layers import adaptable_layers
from .low_rank import LowRank
from .quantised import QuantisedLayer, precision_of

if TYPE_CHECKING:
    from ..diffusion import DiffusionProcess

Kind = Literal["low rank", "full"]
_UNDER = r"(?:.*\.)?(?:{})\..+"

TARGETS: dict[str, str] = {
    "cross-attention": _UNDER.format(r"attn2(?<!x_block\.attn2)|cross_attn|crossattn|cross_attention"),
    "self-attention": _UNDER.format(
        r"attn|attn1|self_attn|attention|img_attn|txt_attn|[xy]_attn|joint_attn|x_block\.attn2"
    )
    + r"|(?:.*\.)?attentions\.\d+\.to_(?:q|k|v|out\.0)"
    + r"|(?:.*\.)?single_blocks\.\d+\.linear[12]",
    "feed-forward": _UNDER.format(r"ff|ffn|mlp|mlp[CX]|mlp_[xy]|img_mlp|txt_mlp|ff_context|feed_forward|ff_[it]"),
    "projection": r"(?:.*\.)?(?:input_blocks|output_blocks)\.\d+\.\d+\.proj_(?:in|out)"
    + r"|(?:.*\.)?middle_block\.\d+\.proj_(?:in|out)"
    + r"|(?:.*\.)?attentions\.\d+\.proj_(?:in|out)",
    "convolution": r"(?:.*\.)?(?:in_layers|out_layers)\.\d+"
    + r"|(?:.*\.)?(?:input_blocks|output_blocks)\.\d+\.\d+\.(?:op|conv|skip_connection)"
    + r"|(?:.*\.)?skip_connection"
    + r"|(?:.*\.)?resnets\.\d+\.(?:conv1|conv2|conv_shortcut)"
    + r"|(?:.*\.)?(?:downsamplers|upsamplers)\.\d+\.conv",
    "timestep": r"(?:.*\.)?(?:emb_layers\.\d+|time_emb_proj|time_embed\.\d+|label_emb\.\d+(?:\.\d+)?)"
    + r"|(?:.*\.)?(?:time_embedding|time_projection|mod[CFX])\.\d+"
    + r"|(?:.*\.)?(?:time_embedding|add_embedding|timestep_embedder)\.linear_[12]"
    + r"|(?:.*\.)?(?:ada(?:LN|ln)_modulation|default_modulation|img_mod|txt_mod|modulation)\.(?:lin|linear|\d+)",
    "everything": r".+",
}
"""Plain names of layer groups, each a regular expression that a layer's whole path must match.

They hold for the host's U-Nets (`...attn1.to_q`, `in_layers.2`), diffusers U-Nets (`resnets.0.conv1`) and the host's
transformers (`double_blocks.0.img_attn.qkv`); joint attention over picture and text counts as self-attention.
"""

WHOLE = "whole network"
_BLOCKS = {
    "down path": ("input_blocks", "down_blocks"),
    "middle": ("middle_block", "mid_block"),
    "up path": ("output_blocks", "up_blocks"),
}
PARTS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "up path": _BLOCKS["up path"],
    "middle and up path": _BLOCKS["middle"] + _BLOCKS["up path"],
    "down path": _BLOCKS["down path"],
}
"""Plain names of the parts of a U-Net, each with what its blocks are called: in the host, and in diffusers.

The way down reads the picture, the way up draws it; layers before, after and beside the blocks belong to no part.
"""


@dataclass(frozen=True)
class LoraConfig:
    """What an adapter looks like.

    Attributes:
        rank: width of the bottleneck, ≥ 1; higher learns more and makes a larger file.
        alpha: strength; the adapter's output is scaled by alpha / rank. > 0.
        dropout: share of a layer's inputs the adapter does not see while training, 0 (off) … <1.
        targets: which layers, by the names in `TARGETS`.
        seed: of the random start.
        kind: "low rank": as above; "full": a difference of a layer's whole weight, and of its bias, see `full`. It has
            no rank, alpha nor random start: these are put to their defaults, so that no run depends on them.
        part: in which part of a U-Net the layers must lie, one of `PARTS`.

    Raises:
        TrainingError: a value out of range; the message quotes it.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("cross-attention", "self-attention")
    seed: int = 0
    kind: Kind = "low rank"
    part: str = WHOLE

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 1:
            raise TrainingError(f"LoRA rank must be a whole number of at least 1, not {self.rank!r}.")
        if not isinstance(self.alpha, (int, float)) or not math.isfinite(self.alpha) or self.alpha <= 0:
            raise TrainingError(f"LoRA alpha must be a number above 0, not {self.alpha!r}.")
        if not isinstance(self.dropout, (int, float)) or not 0 <= self.dropout < 1:
            raise TrainingError(f"LoRA dropout must be at least 0 (off) and below 1, not {self.dropout!r}.")
        if isinstance(self.targets, str) or not self.targets:
            raise TrainingError(
                f"LoRA targets must be a list of at least one of {', '.join(TARGETS)}; not {self.targets!r}."
            )
        for name in self.targets:
            if name not in TARGETS:
                raise TrainingError(f"LoRA target {name!r} does not exist. Choose from {', '.join(TARGETS)}.")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**64:
            raise TrainingError(f"LoRA seed must be a whole number from 0 to 2^64 - 1, not {self.seed!r}.")
        if self.kind not in get_args(Kind):
            raise TrainingError(f"LoRA kind must be one of {', '.join(get_args(Kind))}; not {self.kind!r}.")
        if self.part not in PARTS:
            raise TrainingError(f"LoRA part must be one of {', '.join(PARTS)}; not {self.part!r}.")
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "alpha", float(self.alpha))
        if self.kind == "full":
            for name in ("rank", "alpha", "seed"):
                object.__setattr__(self, name, getattr(type(self), name))


def matching_layers(module: nn.Module, targets: Sequence[str], part: str = WHOLE) -> dict[str, nn.Module]:
    """The layers that `targets` name, by path, as far as they lie in that part.

    Raises:
        TrainingError: a name matches nothing at all together with the others; lists what this network, or its part,
            has. Or the network has no such part.
    """
    available = _layers_of(module, part)
    pattern = re.compile("|".join(f"(?:{TARGETS[name]})" for name in targets))
    found = {path: layer for path, layer in available.items() if pattern.fullmatch(path)}
    if found:
        return found
    usable = [name for name, expression in TARGETS.items() if any(re.fullmatch(expression, p) for p in available)]
    if usable:
        where = "this network" if part == WHOLE else f"this network's {part}"
        raise TrainingError(
            f"No layer of {where} is called {' or '.join(targets)}, so the LoRA would do nothing. "
            f"Choose among: {', '.join(usable)}."
        )
    raise TrainingError(
        f"This network ({type(module).__name__}) has no linear or convolution layer that a LoRA could adapt."
    )


def _layers_of(module: nn.Module, part: str) -> dict[str, nn.Module]:
    """The layers of a part that an adapter could go on, by path."""
    available = adaptable_layers(module)
    if part == WHOLE:
        return available
    pattern = re.compile(rf"(?:.*\.)?(?:{'|'.join(PARTS[part])})\..+")
    found = {path: layer for path, layer in available.items() if pattern.fullmatch(path)}
    if available and not found:
        raise TrainingError(
            f"This network ({type(module).__name__}) has no {part}: it is no U-Net. Set part to {WHOLE}."
        )
    return found


_KINDS = {"low rank": LowRank, "full": Full}


class Policy:
    """A denoiser with adapters; a context manager.

    Inside the `with` block the layers of `denoiser.module` are wrapped; after it the module holds the same objects as
    before, with the same weights and `requires_grad` flags.

    Args:
        denoiser: what to adapt.
        config: shape of every role's adapter.
        roles: names of the adapters, the first is active at the start. A name is a Python identifier.

    Raises:
        TrainingError: on entering, if no layer matches or the module already carries adapters.
    """

    def __init__(self, denoiser: Denoiser, config: LoraConfig, *, roles: Sequence[str] = ("policy",)) -> None:
        self.denoiser, self.config, self.roles = denoiser, config, tuple(roles)
        if not self.roles or len(set(self.roles)) != len(self.roles):
            raise TrainingError(f"A policy needs one or more different roles, not {self.roles!r}.")
        for name in self.roles:
            if not name.isidentifier() or "lora_" in name:
                raise TrainingError(f"{name!r} cannot name a role: use letters, digits and underscores.")
        self._kind = _KINDS[config.kind](config)
        self._layers: dict[str, nn.Module] = {}
        self._originals: list[tuple[nn.Module, str, nn.Module]] = []
        self._flags: list[tuple[nn.Parameter, bool]] = []
        self._active: str | None = self.roles[0]
        self._training = False

    # ---- attach, detach ----

    def __enter__(self) -> Policy:
        module = self.denoiser.module
        # By what peft's wrappers and ours have in common.
        carrying = any("base_layer" in layer._modules for layer in module.modules())
        if carrying or hasattr(module, "peft_config"):
            raise TrainingError("This network already carries adapters. Let the other training end first.")
        found = matching_layers(module, self.config.targets, self.config.part)
        # The host runs prompts in inference mode, and parameters made there can never be trained.
        with torch.inference_mode(False):
            self._flags = [(p, p.requires_grad) for p in module.parameters()]
            for path, layer in found.items():
                parent, _, name = path.rpartition(".")
                self._originals.append((module.get_submodule(parent), name, layer))
            try:
                self._kind.attach(module, found, self.roles, self.denoiser.device)
                self._layers = {path: module.get_submodule(path) for path in found}
            except BaseException:
                self._restore()
                raise
        self._set_active(self.roles[0])
        self.training_mode(False)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _restore(self) -> None:
        for parent, name, layer in self._originals:
            setattr(parent, name, layer)
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        self.denoiser.module.__dict__.pop("peft_config", None)
        self._layers, self._originals, self._flags = {}, [], []

    def _attached(self) -> dict[str, nn.Module]:
        if not self._layers:
            raise TrainingError("The adapters are not attached: use the policy inside its `with` block.")
        return self._layers

    # ---- roles ----

    @property
    def active(self) -> str | None:
        """The active role, None for the reference."""
        return self._active

    @contextmanager
    def role(self, name: str | None) -> Iterator[Policy]:
        """Let one adapter act, or none (the reference), inside a `with` block. Trainability is not touched."""
        if name is not None:
            self._check(name)
        previous = self._active
        self._set_active(name)
        try:
            yield self
        finally:
            self._set_active(previous)

    def _set_active(self, name: str | None) -> None:
        for layer in self._layers.values():
            self._kind.select(layer, name)
        self._active = name

    def _check(self, role: str) -> None:
        if role not in self.roles:
            raise TrainingError(f"There is no role {role!r}. This policy has {', '.join(self.roles)}.")

    def training_mode(self, on: bool) -> None:
        """Adapter dropout on or off; the base network stays in the mode it is in."""
        for layer in self._layers.values():
            self._kind.drop(layer, on)
        self._training = on

    def as_now(self) -> Callable[[], AbstractContextManager[None]]:
        """What puts the active role and the dropout of this moment back for a while: for whoever computes again."""
        return partial(self._as, self._active, self._training)

    @contextmanager
    def _as(self, active: str | None, training: bool) -> Iterator[None]:
        current = self._active, self._training
        self._put(*current, active, training)
        try:
            yield
        finally:
            self._put(active, training, *current)

    def _put(self, old_active: str | None, old_training: bool, active: str | None, training: bool) -> None:
        if active != old_active:
            self._set_active(active)
        if training != old_training:
            self.training_mode(training)

    # ---- as a denoiser ----

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any], *, guidance: float = 1.0
    ) -> torch.Tensor:
        """Predict x0 under the active role; see `interfaces.Denoiser`."""
        return self.denoiser(x, sigma, cond, guidance=guidance)

    @property
    def process(self) -> DiffusionProcess:
        return self.denoiser.process

    @property
    def module(self) -> nn.Module:
        return self.denoiser.module

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    @property
    def unconditional(self) -> Any:
        return self.denoiser.unconditional

    def text_features(self, cond: Sequence[Any]) -> Sequence[torch.Tensor] | None:
        """Tokens [L, D] of every conditioning, for networks beside the policy; None if the denoiser shows none."""
        source = getattr(self.denoiser, "text_features", None)
        return source(cond) if callable(source) else None

    # ---- weights ----

    @property
    def paths(self) -> list[str]:
        """Paths of the adapted layers."""
        return list(self._attached())

    def named_parameters(self, role: str = "policy") -> dict[str, nn.Parameter]:
        """The trainable tensors of a role themselves, by the names `tensors` uses."""
        self._check(role)
        return {
            f"{path}.{ending}": value
            for path, layer in self._attached().items()
            for ending, value in self._kind.named(layer, role).items()
        }

    def parameters(self, role: str = "policy") -> list[nn.Parameter]:
        """What an optimizer trains: float32, requiring gradients."""
        return list(self.named_parameters(role).values())

    def tensors(self, role: str = "policy") -> dict[str, torch.Tensor]:
        """A copy of a role on the CPU: `<path>.lora_down.weight` [rank, in, ...], `.lora_up.weight`, `.alpha` [].

        Of whole weights `<path>.diff`, of the weight's shape, and `.diff_b` where the layer has a bias.
        """
        copies = {name: value.detach().to("cpu", copy=True) for name, value in self.named_parameters(role).items()}
        constants = self._kind.constants.items()
        copies.update({f"{path}.{name}": torch.tensor(value) for path in self._attached() for name, value in constants})
        return copies

    def load_tensors(self, tensors: Mapping[str, torch.Tensor], role: str = "policy") -> None:
        """Replace a role's weights; the inverse of `tensors`. An alpha other than the config's is folded into `up`.

        Raises:
            TrainingError: keys are missing, unexpected or of another shape; nothing has been changed then.
        """
        named = self.named_parameters(role)
        optional = {f"{path}.{name}" for path in self._attached() for name in self._kind.constants}
        missing = [name for name in named if name not in tensors]
        unexpected = [name for name in tensors if name not in named and name not in optional]
        shapes = [
            f"{name} is {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
            for name, value in named.items()
            if name in tensors and tensors[name].shape != value.shape
        ]
        problems = (("missing", missing), ("not in this network", unexpected), ("of another shape", shapes))
        told = [f"{len(names)} {what} ({_some(names)})" for what, names in problems if names]
        if told:
            raise TrainingError(
                f"This LoRA was trained for another architecture or with other LoRA settings: {'; '.join(told)}. "
                f"Choose {self._kind.fitting} ({', '.join(self.config.targets)}"
                f"{'' if self.config.part == WHOLE else f', {self.config.part}'})."
            )
        with torch.no_grad():
            for name, value in named.items():
                value.copy_(tensors[name])
            for path, layer in self._attached().items():
                constants = self._kind.constants.items()
                saved = {name: float(tensors.get(f"{path}.{name}", value)) for name, value in constants}
                self._kind.adopt(layer, role, saved)

    def identity(self) -> dict[str, Any]:
        """What a resumed run must find the same besides the configuration and the base weights."""
        stored = precision_of(self.module)
        # Left out where there is nothing to say, so that runs that were begun without the word can go on.
        told = {"base precision": stored} if stored else {}
        return {"layers": len(self._attached()), "noise process": self.process.identity(), **told}

    def base_fingerprint(self) -> str:
        """A short hash of the base network: names, shapes and a sample of every weight; adapters do not count."""
        own = {id(p) for role in self.roles for p in self.parameters(role)} if self._layers else set()
        stored = [
            (f"{path}.{name}", value)
            for path, layer in self.module.named_modules()
            if isinstance(layer, QuantisedLayer)
            for name, value in layer.stored.named_buffers()
        ]
        digest, sample = hashlib.sha256(), []
        for name, value in (*self.module.named_parameters(), *stored):
            if id(value) in own:
                continue
            digest.update(f"{name.replace('.base_layer.', '.')}{tuple(value.shape)}".encode())
            if not value.is_meta and value.numel():
                places = torch.linspace(0, value.numel() - 1, 16, dtype=torch.float64).long().to(value.device)
                sample.append(value.detach().flatten()[places].to("cpu", torch.float32))
        digest.update(torch.cat(sample).numpy().tobytes() if sample else b"")
        return digest.hexdigest()[:16]


def _some(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
