"""One-step generators through the host's own sampling: its guider, its patches, its memory management, one call.

What is our own is the scale of the first noise. The host gives the network an input of unit variance only if sampling
starts at the model's highest noise level; a generator wants it at whatever level it was trained.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from comfy.k_diffusion import sampling as k_diffusion

from ...training.interfaces import AttuneError
from .sampling import empty_latent

log = logging.getLogger("attune")

# Parts of the host's model options with which a node changes guidance.
GUIDANCE_PATCHES = (
    "sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function", "sampler_calc_cond_batch_function",
)  # fmt: skip
FAMILIES = (("AttuneDemo", "demo"), ("SDXL", "sdxl"), ("SD15", "sd15"), ("SD20", "sd2"))
# The special ones first: they are subclasses of the others.
PREDICTIONS = (
    ("CONST", "flow"), ("COSMOS_RFLOW", "flow"), ("X0", "x0"), ("LCM", "lcm"), ("V_PREDICTION", "v"), ("EPS", "eps"),
)  # fmt: skip
SAMPLERS: dict[str, Callable[..., torch.Tensor]] = {
    "consistency": k_diffusion.sample_lcm,
    "euler": k_diffusion.sample_euler,
    "euler ancestral": k_diffusion.sample_euler_ancestral,
}
DRAWS_NOISE = {"consistency", "euler ancestral"}


def family_of(model: Any) -> str:
    """The model that a host MODEL is, or was fine-tuned from: "demo", "sdxl", "sd15", "sd2" or "other"."""
    names = {kind.__name__ for kind in type(model.model.model_config).__mro__}
    return next((family for name, family in FAMILIES if name in names), "other")


def prediction_of(model: Any) -> str:
    """What sampling of a host MODEL is set to: "eps", "v", "flow", "x0" or "lcm"."""
    names = {kind.__name__ for kind in type(model.get_model_object("model_sampling")).__mro__}
    return next((prediction for name, prediction in PREDICTIONS if name in names), "eps")


def guidance_patches(model: Any) -> tuple[str, ...]:
    """What changes guidance on a host MODEL, by the host's names."""
    return tuple(name for name in GUIDANCE_PATCHES if model.model_options.get(name))


def noise_levels(model: Any) -> torch.Tensor:
    """All noise levels of a host MODEL, ascending, [N], as it is patched."""
    return model.get_model_object("model_sampling").sigmas


class _FromNoise(comfy.samplers.KSAMPLER):
    """The host's sampler, whose first input has the variance of pure noise at every level, not only at the highest."""

    def max_denoise(self, model_wrap: Any, sigmas: torch.Tensor) -> bool:
        return True


class OneStepSampler(comfy.samplers.Sampler):
    """A host SAMPLER for one-step generators.

    Args:
        kind: "consistency", "euler" or "euler ancestral".
        rows: numbers of the pictures in the batch that they once were part of, for the noise between steps; None: as
            the host draws it.
    """

    def __init__(self, kind: str, rows: Sequence[int] | None = None) -> None:
        self.kind, self.rows = kind, rows

    def sample(
        self,
        model_wrap: Any,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: torch.Tensor,
        latent_image: torch.Tensor | None = None,
        denoise_mask: torch.Tensor | None = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        """Called by the host's guider; arguments and result are the host's."""
        cfg = getattr(model_wrap, "cfg", 1.0)
        if cfg != 1:
            log.warning("Attune: a one-step generator wants no guidance: set cfg to 1, not %g.", cfg)
        options = {}
        if self.rows is not None and self.kind in DRAWS_NOISE:
            options["noise_sampler"] = _noise_of_rows(noise, extra_args.get("seed"), self.rows)
        # Where there is a picture to start from, its noise is as strong as the level says.
        from_noise = latent_image is None or not torch.count_nonzero(latent_image)
        sampler = (_FromNoise if from_noise else comfy.samplers.KSAMPLER)(SAMPLERS[self.kind], options)
        return sampler.sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        )  # fmt: skip


def _noise_of_rows(like: torch.Tensor, seed: int | None, rows: Sequence[int]) -> Callable[..., torch.Tensor]:
    """Noise between steps as `rows` of a whole batch would get it, in the order of the calls."""
    generator = torch.Generator(device=like.device)
    if seed is not None:
        generator.manual_seed(seed)

    def draw(*_: Any) -> torch.Tensor:
        drawn = [
            torch.randn(like[:1].shape, dtype=like.dtype, device=like.device, generator=generator)
            for _ in range(max(rows) + 1)
        ]
        return torch.cat([drawn[row] for row in rows])

    return draw


def draw(
    model: Any, positive: Any, latent: dict[str, Any], sigmas: torch.Tensor, *, kind: str, seed: int, count: int = 0
) -> dict[str, Any]:
    """Pictures from noise: one call of the network per step for the whole batch, and none for guidance.

    Args:
        positive: the host's CONDITIONING.
        latent: the host's LATENT; its size counts, and its `batch_index` for the noise.
        sigmas: descending, the last one 0, [steps + 1].
        kind: see `OneStepSampler`.
        count: how many pictures; 0: as many as the latent has.

    Returns:
        The host's LATENT. Its first noise is that of the host's KSampler with this seed.

    Raises:
        AttuneError: the latent is not that of a still picture, or of none.
    """
    blank = empty_latent(model, latent)
    held = len(latent["samples"])
    if not (count or held):
        raise AttuneError(
            "The latent holds no picture. Set its batch size, or the batch_size of this node, to 1 or more."
        )
    rows = latent.get("batch_index") if count in (0, held) else None
    blank = blank.repeat(count or held, *[1] * (blank.ndim - 1))
    noise, steps = comfy.sample.prepare_noise(blank, seed, rows), len(sigmas) - 1
    guider = comfy.samplers.CFGGuider(model)
    # No negative prompt at all: nothing could ever ask for it.
    guider.inner_set_conds({"positive": positive})
    guider.set_cfg(1.0)
    samples = guider.sample(
        noise, blank, OneStepSampler(kind, rows), sigmas, callback=_progress(model, steps),
        disable_pbar=steps == 1 or not comfy.utils.PROGRESS_BAR_ENABLED, seed=seed,
    )  # fmt: skip
    result = {"samples": samples.to(comfy.model_management.intermediate_device())}
    return result | ({"batch_index": rows} if rows is not None else {})


def _progress(model: Any, steps: int) -> Callable[..., None]:
    """The host's progress bar, which stops on Cancel, with previews where there is something to wait for."""
    if steps > 1:
        import latent_preview

        shown = latent_preview.prepare_callback(model, steps)
    else:
        bar = comfy.utils.ProgressBar(steps)

        def shown(step: int, *_: Any) -> None:
            bar.update_absolute(step + 1, steps)

    def progress(*step: Any) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        shown(*step)

    return progress
