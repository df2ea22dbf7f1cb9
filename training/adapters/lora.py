"""LoRA adapters with named roles: one set of base weights, several policies.

    y = W·x + (alpha / rank) · up · down · x

`down` starts random, `up` starts at zero, so a fresh adapter changes nothing. peft wraps the layers in place; `Policy`
keeps the originals and puts the very same objects back.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..interfaces import Denoiser, TrainingError
from ..libraries import no_kernels
from .layers import adaptable_layers, is_linear
from .quantised import QuantisedLayer, precision_of

if TYPE_CHECKING:
    from ..diffusion import DiffusionProcess

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


@dataclass(frozen=True)
class LoraConfig:
    """What an adapter looks like.

    Attributes:
        rank: width of the bottleneck, ≥ 1; higher learns more and makes a larger file.
        alpha: strength; the adapter's output is scaled by alpha / rank. > 0.
        dropout: share of a layer's inputs the adapter does not see while training, 0 (off) … <1.
        targets: which layers, by the names in `TARGETS`.
        seed: of the random start.

    Raises:
        TrainingError: a value out of range; the message quotes it.
    """

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("cross-attention", "self-attention")
    seed: int = 0

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
        object.__setattr__(self, "targets", tuple(self.targets))
        object.__setattr__(self, "alpha", float(self.alpha))


def matching_layers(module: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The layers that `targets` name, by path.

    Raises:
        TrainingError: a name matches nothing at all together with the others; lists what this network has.
    """
    available = adaptable_layers(module)
    pattern = re.compile("|".join(f"(?:{TARGETS[name]})" for name in targets))
    found = {path: layer for path, layer in available.items() if pattern.fullmatch(path)}
    if found:
        return found
    usable = [name for name, expression in TARGETS.items() if any(re.fullmatch(expression, p) for p in available)]
    if usable:
        raise TrainingError(
            f"No layer of this network is called {' or '.join(targets)}, so the LoRA would do nothing. "
            f"Choose among: {', '.join(usable)}."
        )
    raise TrainingError(
        f"This network ({type(module).__name__}) has no linear or convolution layer that a LoRA could adapt."
    )


def _pair(layer: nn.Module, rank: int) -> tuple[nn.Module, nn.Module]:
    """Weightless `down` and `up` for one base layer."""
    if is_linear(layer):
        down = nn.Linear(layer.in_features, rank, bias=False, device="meta")
        return down, nn.Linear(rank, layer.out_features, bias=False, device="meta")
    down = nn.Conv2d(
        layer.in_channels,
        rank,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        padding_mode=layer.padding_mode,
        bias=False,
        device="meta",
    )
    return down, nn.Conv2d(rank, layer.out_channels, 1, bias=False, device="meta")


def _start(shape: torch.Size, seed: int, role: str, path: str) -> torch.Tensor:
    """Uniform in ±1/√fan_in, a function of the arguments alone: other layers and torch's own state do not matter."""
    digest = hashlib.sha256(f"{seed}/{role}/{path}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


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
        self._layers: dict[str, nn.Module] = {}
        self._originals: list[tuple[nn.Module, str, nn.Module]] = []
        self._flags: list[tuple[nn.Parameter, bool]] = []
        self._active: str | None = self.roles[0]
        self._training = False

    # ---- attach, detach ----

    def __enter__(self) -> Policy:
        with no_kernels():
            from peft.tuners.tuners_utils import BaseTunerLayer

        module = self.denoiser.module
        if any(isinstance(layer, BaseTunerLayer) for layer in module.modules()) or hasattr(module, "peft_config"):
            raise TrainingError("This network already carries adapters. Let the other training end first.")
        found = matching_layers(module, self.config.targets)
        # The host runs prompts in inference mode, and parameters made there can never be trained.
        with torch.inference_mode(False):
            self._flags = [(p, p.requires_grad) for p in module.parameters()]
            for path, layer in found.items():
                parent, _, name = path.rpartition(".")
                self._originals.append((module.get_submodule(parent), name, layer))
            try:
                for role in self.roles:
                    self._inject(role, found)
                self._layers = {path: module.get_submodule(path) for path in found}
                for path, layer in found.items():
                    self._fill(path, layer)
            except BaseException:
                self._restore()
                raise
        self._set_active(self.roles[0])
        self.training_mode(False)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _inject(self, role: str, found: Mapping[str, nn.Module]) -> None:
        import peft

        config = peft.LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules="|".join(re.escape(path) for path in found),
            init_lora_weights=False,
        )
        unusual = {type(layer) for layer in found.values() if not isinstance(layer, (nn.Linear, nn.Conv2d))}
        if unusual:
            config._register_custom_module(dict.fromkeys(unusual, peft.tuners.lora.Linear))
        peft.inject_adapter_in_model(config, self.denoiser.module, role, low_cpu_mem_usage=True)
        # What peft leaves there is for its own savers, and a second role would be warned about the first.
        self.denoiser.module.__dict__.pop("peft_config", None)

    def _fill(self, path: str, layer: nn.Module) -> None:
        """Give a wrapped layer its trainable halves: plain float32 layers, whatever the base is made of."""
        wrapper, device = self._layers[path], self.denoiser.device
        for role in self.roles:
            down, up = _pair(layer, self.config.rank)
            start = _start(down.weight.shape, self.config.seed, role, path)
            down.weight = nn.Parameter(start.to(device))
            up.weight = nn.Parameter(torch.zeros(up.weight.shape, device=device))
            wrapper.lora_A[role], wrapper.lora_B[role] = down, up

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
        # Not peft's own switch: it also turns off requires_grad of the other roles, and a graph that is still waiting
        # for its backward pass would then lose their gradients without a word.
        for layer in self._layers.values():
            layer._disable_adapters = name is None
            if name is not None:
                layer._active_adapter = [name]
        self._active = name

    def _check(self, role: str) -> None:
        if role not in self.roles:
            raise TrainingError(f"There is no role {role!r}. This policy has {', '.join(self.roles)}.")

    def training_mode(self, on: bool) -> None:
        """Adapter dropout on or off; the base network stays in the mode it is in."""
        for layer in self._layers.values():
            layer.lora_dropout.train(on)
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
        named: dict[str, nn.Parameter] = {}
        for path, layer in self._attached().items():
            named[f"{path}.lora_down.weight"] = layer.lora_A[role].weight
            named[f"{path}.lora_up.weight"] = layer.lora_B[role].weight
        return named

    def parameters(self, role: str = "policy") -> list[nn.Parameter]:
        """What an optimizer trains: float32, requiring gradients."""
        return list(self.named_parameters(role).values())

    def tensors(self, role: str = "policy") -> dict[str, torch.Tensor]:
        """A copy of a role on the CPU: `<path>.lora_down.weight` [rank, in, ...], `.lora_up.weight`, `.alpha` []."""
        copies = {name: value.detach().to("cpu", copy=True) for name, value in self.named_parameters(role).items()}
        copies.update({f"{path}.alpha": torch.tensor(self.config.alpha) for path in self._attached()})
        return copies

    def load_tensors(self, tensors: Mapping[str, torch.Tensor], role: str = "policy") -> None:
        """Replace a role's weights; the inverse of `tensors`. An alpha other than the config's is folded into `up`.

        Raises:
            TrainingError: keys are missing, unexpected or of another shape; nothing has been changed then.
        """
        named = self.named_parameters(role)
        optional = {f"{path}.alpha" for path in self._attached()}
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
                f"Choose a LoRA of this model with the same rank ({self.config.rank}) and target layers "
                f"({', '.join(self.config.targets)})."
            )
        with torch.no_grad():
            for name, value in named.items():
                value.copy_(tensors[name])
            for path, layer in self._attached().items():
                alpha = float(tensors.get(f"{path}.alpha", self.config.alpha))
                if alpha != self.config.alpha:
                    layer.lora_B[role].weight.mul_(alpha / self.config.alpha)

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
