"""The host's MODEL + CONDITIONING as a `Denoiser`: whatever the host can sample, we can train.

Every prediction goes through the host's own guider, so patches, wrappers, guidance functions, memory management and
the prediction type (eps, v, flow) are the host's. What is added: several prompts in one call. The host evaluates one
conditioning per batch; here the conditionings of B samples are concatenated into one of batch B, which is what the host
itself does with the positive and the negative one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import nn

from ...training.diffusion import DiffusionProcess, Prediction
from ...training.interfaces import AttuneError, Prompt, TrainingError
from ...training.objectives.picture_direction import fitted
from .attention import use_differentiable_attention
from .frames import from_host, has_frames, to_host
from .in_place import in_place_allowed
from .lora_keys import lora_keys
from .schema import call_known
from .weights import thaw_tree

# The host's classes, the special ones first. None: it has no noise process.
PROCESSES: tuple[tuple[str, Prediction | None], ...] = (
    ("CONST", "flow"),
    ("COSMOS_RFLOW", "v"),  # its noising is x0 + σ·noise, as for eps and v
    ("IMG_TO_IMG", None),
    ("V_PREDICTION", "v"),
    ("EPS", "eps"),
)

# Parts of a conditioning that need models of their own, or change the weights.
UNSUPPORTED = {"control": "a ControlNet", "gligen": "GLIGEN boxes", "hooks": "hooks (scheduled LoRAs or weights)"}
# Parts that the host weighs anew at every evaluation, so that such a sample must be evaluated alone.
INDIVIDUAL = {"area", "mask", "strength", "default", "start_percent", "end_percent", "clip_start_percent"}


def process_of(model_sampling: Any) -> DiffusionProcess:
    """The noise process of a host model, from its `model_sampling`.

    Raises:
        AttuneError: the model has no noise process that we know; names the host's classes.
    """
    for name, prediction in PROCESSES:
        if isinstance(model_sampling, getattr(comfy.model_sampling, name, ())):
            if prediction is None:
                break
            sigmas = model_sampling.sigmas.detach().to("cpu", torch.float32, copy=True)
            return DiffusionProcess(prediction, sigmas, float(getattr(model_sampling, "sigma_data", 1.0)))
    kinds = ", ".join(kind.__name__ for kind in type(model_sampling).__mro__[1:3])
    raise AttuneError(
        f"This model's noise process ({kinds}) is neither eps, v nor flow. Train on a text-to-image model instead."
    )


@dataclass(eq=False)
class HostConditioning:
    """The conditioning of one sample: the host's entries, and their encodings for the shapes met so far.

    `shift` [T, D] is added to the tokens that the network attends to, with gradients.
    """

    entries: list[dict[str, Any]]
    encoded: dict[tuple, dict[str, Any]] = field(default_factory=dict)
    shift: torch.Tensor | None = None

    @property
    def individual(self) -> bool:
        """Whether it must be evaluated alone: combined prompts, areas, masks, time ranges."""
        return len(self.entries) != 1 or not INDIVIDUAL.isdisjoint(self.entries[0])

    def moved(self, shift: torch.Tensor) -> HostConditioning:
        """The same at a distance, in place of any it has.

        Raises:
            TrainingError: it consists of several parts, or of parts of the picture.
        """
        if self.individual:
            raise TrainingError(
                "A prompt of several parts, of areas or of a part of the steps cannot be moved as one. Connect the "
                "text encoder's output directly."
            )
        return HostConditioning(self.entries, self.encoded, shift)


class HostDenoiser:
    """A `training.interfaces.Denoiser` over a loaded host model. Made by `training_session`.

    Attributes:
        process: the noise process of the model as it is patched (a shifted flow is that flow).
        module: the diffusion model; what adapters attach to.
    """

    process: DiffusionProcess
    module: nn.Module

    def __init__(self, model: Any) -> None:
        self._model = model
        self.module = model.model.diffusion_model
        self.process = process_of(model.get_model_object("model_sampling"))
        self._frames = has_frames(model)
        self._keys = lora_keys(model)
        self._unconditional: HostConditioning | None = None
        self._open = True
        self._options = comfy.model_patcher.create_model_options_clone(model.model_options)
        comfy.sampler_helpers.prepare_model_patcher(model, {}, self._options)
        comfy.samplers.cast_to_load_options(self._options, device=self.device, dtype=model.model_dtype())
        transformer_options = self._options.setdefault("transformer_options", {})
        transformer_options["sample_sigmas"] = self.process.sigmas.flip(0).to(self.device)
        use_differentiable_attention(transformer_options)
        self._guider = comfy.samplers.CFGGuider(model)
        self._guider.inner_model = model.model
        self._guider.model_options = self._options

    # ---- what the host gives ----

    @property
    def device(self) -> torch.device:
        return self._model.load_device

    @property
    def latent_channels(self) -> int:
        """Channels C of the network's latents."""
        return self._model.model.latent_format.latent_channels

    def free_memory(self) -> int:
        """Free memory on the device, in bytes, as the host counts it."""
        return int(comfy.model_management.get_free_memory(self.device))

    def lora_keys(self) -> dict[str, str]:
        """Module path in `module` (before adapters) → key in a LoRA file; see `lora_keys.lora_keys`."""
        return dict(self._keys)

    # ---- conditionings ----

    def prompt(self, text: str, conditioning: Any) -> Prompt:
        """Make a prompt of its words and of the host's CONDITIONING (as CLIPTextEncode outputs it).

        Raises:
            AttuneError: the conditioning is empty, holds several prompts, or needs a ControlNet, GLIGEN or hooks.
        """
        return Prompt(text, self._conditioning(conditioning, repr(text)))

    def set_unconditional(self, conditioning: Any) -> None:
        """Set the negative (or empty) conditioning of guidance and of caption dropout. Raises as `prompt`."""
        self._unconditional = self._conditioning(conditioning, "the negative prompt")

    @property
    def unconditional(self) -> HostConditioning:
        if self._unconditional is None:
            raise AttuneError(
                "Guidance and caption dropout need a negative conditioning, and none is set. Connect one (an empty "
                "prompt will do), or set guidance to 1 and caption dropout to 0."
            )
        return self._unconditional

    def _conditioning(self, conditioning: Any, what: str) -> HostConditioning:
        if not conditioning:
            raise AttuneError(f"The conditioning of {what} is empty. Connect the output of a text encoder.")
        for tensor, extras in conditioning:
            for name, words in UNSUPPORTED.items():
                if extras.get(name) is not None:
                    raise AttuneError(
                        f"The conditioning of {what} uses {words}, which cannot be trained through. Connect the text "
                        f"encoder's output directly."
                    )
            if tensor is not None and len(tensor) != 1:
                raise AttuneError(
                    f"The conditioning of {what} holds {len(tensor)} prompts in one batch. Give each its own."
                )
        with torch.inference_mode(False):
            return HostConditioning(comfy.sampler_helpers.convert_cond(thaw_tree(list(conditioning))))

    def text_features(self, cond: Sequence[HostConditioning]) -> list[torch.Tensor] | None:
        """What the text encoder says of every conditioning, for networks beside this one: float32 [L, D] each.

        The tokens of combined prompts follow each other. None where a conditioning has no tokens.
        """
        found = []
        for item in cond:
            tokens = [entry.get("cross_attn") for entry in item.entries]
            if any(part is None or part.ndim != 3 for part in tokens):
                return None
            found.append(torch.cat([part[0] for part in tokens]).to(self.device, torch.float32))
        return found

    # ---- predictions ----

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any], *, guidance: float = 1.0
    ) -> torch.Tensor:
        """Predict x0; see `Denoiser.__call__`.

        Prompts whose encodings fit together (nearly always) are evaluated in one call of the network, with the
        negative prompt in the same call where the host finds the memory.

        Raises:
            TrainingError: the session has ended, or the arguments do not fit together.
            AttuneError: guidance is not 1 and no negative conditioning is set.
        """
        self._check(x, sigma, cond)
        x, sigma = to_host(x.to(self.device, torch.float32), self._frames), sigma.to(self.device, torch.float32)
        negative = self.unconditional if guidance != 1 else self._unconditional
        groups = self._groups(x, cond, negative)
        if len(groups) == 1 and groups[0] == list(range(len(x))):
            return self._predict(x, sigma, cond, negative, guidance)
        parts = [self._predict(x[g], sigma[g], [cond[i] for i in g], negative, guidance) for g in groups]
        order = torch.tensor([index for group in groups for index in group], device=x.device)
        return torch.cat(parts)[order.argsort()]

    def _check(self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any]) -> None:
        if not self._open:
            raise TrainingError("The training session of this model has ended. Start another to use it.")
        if x.ndim != 4 or x.shape[1] != self.latent_channels:
            raise TrainingError(
                f"Latents of shape {tuple(x.shape)} do not fit this model, which expects [batch, "
                f"{self.latent_channels}, height, width]. Use the VAE that belongs to the model."
            )
        if tuple(sigma.shape) != (len(x),) or len(cond) != len(x):
            raise TrainingError(
                f"{len(x)} latents, noise levels of shape {tuple(sigma.shape)} and {len(cond)} conditionings do not "
                f"fit together."
            )
        for item in cond:
            if not isinstance(item, HostConditioning):
                raise TrainingError(f"A {type(item).__name__} is not a conditioning of this model; use `prompt`.")

    def _groups(
        self, x: torch.Tensor, cond: Sequence[HostConditioning], negative: HostConditioning | None
    ) -> list[list[int]]:
        """Indices of the samples that can share a call, in order of appearance."""
        if negative is not None and negative.individual:
            return [[index] for index in range(len(cond))]
        groups: list[list[int]] = []
        open_groups: list[tuple[dict[str, Any], list[int]]] = []
        for index, item in enumerate(cond):
            if item.individual:
                groups.append([index])
                continue
            parts = self._encode(item, x, "positive")["model_conds"]
            for first, group in open_groups:
                if first.keys() == parts.keys() and all(first[name].can_concat(parts[name]) for name in first):
                    group.append(index)
                    break
            else:
                groups.append([index])
                open_groups.append((parts, groups[-1]))
        return groups

    def _encode(self, item: HostConditioning, x: torch.Tensor, role: str) -> dict[str, Any]:
        """A single entry as the network takes it: the host's `model_conds` at batch 1 for latents of x's shape."""
        key = (role, tuple(x.shape[1:]), x.device)
        if key not in item.encoded:
            entry = dict(self._host_encode({role: item}, x[:1])[role][0])
            entry["model_conds"] = {
                name: part.process_cond(batch_size=1, area=None) for name, part in entry["model_conds"].items()
            }
            item.encoded[key] = entry
        entry = item.encoded[key]
        return entry if item.shift is None else _shifted(entry, item.shift)

    def _host_encode(self, items: dict[str, HostConditioning], x: torch.Tensor) -> dict[str, list[dict[str, Any]]]:
        blank = torch.zeros_like(x, requires_grad=False)
        with torch.no_grad():
            return call_known(
                comfy.samplers.process_conds,
                self._model.model,
                blank,
                {role: [dict(entry) for entry in item.entries] for role, item in items.items()},
                self.device,
                latent_image=blank,
                denoise_mask=None,
                seed=0,
                latent_shapes=[blank.shape],
            )

    def _predict(
        self,
        x: torch.Tensor,
        sigma: torch.Tensor,
        cond: Sequence[HostConditioning],
        negative: HostConditioning | None,
        guidance: float,
    ) -> torch.Tensor:
        if len(cond) == 1 and (cond[0].individual or (negative is not None and negative.individual)):
            items = {"positive": cond[0]} | ({"negative": negative} if negative is not None else {})
            conds = self._host_encode(items, x)
        else:
            conds = {"positive": [_merge([self._encode(item, x, "positive") for item in cond])]}
            if negative is not None:
                conds["negative"] = [self._encode(negative, x, "negative")]
        self._guider.conds = conds
        self._guider.set_cfg(guidance)
        with self.overwriting():
            return from_host(self._guider(x, sigma, model_options=self._options, seed=0).float(), self._frames)

    def overwriting(self) -> AbstractContextManager[None]:
        """What the network, or parts of it that compute again, must run in where gradients are wanted."""
        return in_place_allowed(self.module)

    def close(self) -> None:
        """End the denoiser's use, and undo what the host had to be told."""
        self._open = False
        comfy.samplers.cast_to_load_options(self._options, device=self._model.offload_device)
        self._model.restore_hook_patches()


def _shifted(entry: dict[str, Any], shift: torch.Tensor) -> dict[str, Any]:
    """An encoded entry whose tokens [1, T, D] are moved by [T', D]; places beyond either stay.

    Raises:
        TrainingError: the network has no such tokens.
    """
    part = entry["model_conds"].get("c_crossattn")
    if part is None or part.cond.ndim != 3 or part.cond.shape[2] != shift.shape[1]:
        raise TrainingError(
            "This model does not take its prompt as the tokens of its text encoder, so no direction of them can be "
            "found. Set pictures to 0, or take the model off."
        )
    tokens = part.cond + fitted(shift.to(part.cond), part.cond.shape[1])
    return {**entry, "model_conds": {**entry["model_conds"], "c_crossattn": part._copy_with(tokens)}}


def _merge(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Entries of batch 1 → one entry of batch B, by the host's own concatenation."""
    first = entries[0]
    if all(entry is first for entry in entries):
        return first  # the host repeats it over the batch
    conds = {
        name: part._copy_with(part.concat([entry["model_conds"][name] for entry in entries[1:]]))
        for name, part in first["model_conds"].items()
    }
    return {**first, "model_conds": conds, "uuid": uuid.uuid4()}
