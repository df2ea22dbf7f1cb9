"""One-step generators through the host's own sampling: its guider, its patches, its memory management, one call.

What is our own is the scale of the first noise. The host gives the network an input of unit variance only if sampling
starts at the model's highest noise level; a generator wants it at whatever level it was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.samplers
import comfy.utils
import torch
from comfy.k_diffusion import sampling as k_diffusion

from ...training.interfaces import AttuneError
from .sampling import empty_latent

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


def sample_in_one_call(
    model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Mapping[str, Any], callback: Any, disable: bool
) -> torch.Tensor:
    """What every kind of sampler comes to with a single step; arguments are those that the host gives its samplers."""
    denoised = model(x, sigmas[0] * x.new_ones([len(x)]), **extra_args)
    if callback is not None:
        callback({"x": x, "i": 0, "sigma": sigmas[0], "sigma_hat": sigmas[0], "denoised": denoised})
    return denoised


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
        on_guidance: told after every sampling the cfg where guidance was computed (1 where it was computed all the
            same, as some guiders do), None where it was not.
    """

    def __init__(
        self,
        kind: str,
        rows: Sequence[int] | None = None,
        *,
        on_guidance: Callable[[float | None], None] | None = None,
    ) -> None:
        self.kind, self.rows, self.on_guidance = kind, rows, on_guidance

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
        guided = _noticing_guidance(extra_args["model_options"]) if self.on_guidance is not None else []
        options = {}
        if self.rows is not None and self.kind in DRAWS_NOISE:
            options["noise_sampler"] = _noise_of_rows(noise, extra_args["seed"], self.rows)
        # Where there is a picture to start from, its noise is as strong as the level says.
        from_noise = latent_image is None or not torch.count_nonzero(latent_image)
        whole = _FromNoise if from_noise else comfy.samplers.KSAMPLER
        single = len(sigmas) == 2 and sigmas[1] == 0
        sampler = whole(sample_in_one_call) if single else whole(SAMPLERS[self.kind], options)
        drawn = sampler.sample(
            model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar
        )  # fmt: skip
        if self.on_guidance is not None:
            cfg = float(getattr(model_wrap, "cfg", 1.0))
            self.on_guidance(cfg if cfg != 1 or any(guided) else None)
        return drawn


def _noticing_guidance(model_options: dict[str, Any]) -> list[bool]:
    """A list that gets an entry per step: whether more than the one prompt is evaluated.

    Args:
        model_options: of one sampling, the host's copy for it.
    """
    seen: list[bool] = []

    def evaluate(executor: Any, model: Any, conditions: Sequence[Any], *rest: Any) -> Any:
        seen.append(sum(condition is not None for condition in conditions) > 1)
        return executor(model, conditions, *rest)

    kind = getattr(comfy.patcher_extension.WrappersMP, "CALC_COND_BATCH", None)
    if kind is not None:
        comfy.patcher_extension.add_wrapper(kind, evaluate, model_options, is_model_options=True)
    return seen


def _noise_of_rows(like: torch.Tensor, seed: int, rows: Sequence[int]) -> Callable[..., torch.Tensor]:
    """Noise between steps as `rows` of a whole batch would get it, in the order of the calls."""
    generator = torch.Generator(device=like.device).manual_seed(seed)
    return lambda *_: _rows(like, generator, rows)


def _rows(like: torch.Tensor, generator: torch.Generator, rows: Sequence[int]) -> torch.Tensor:
    """Noise of the pictures numbered `rows` of a batch: all before the last are drawn, too."""
    options = {"dtype": like.dtype, "device": like.device, "generator": generator}
    drawn = [torch.randn(like[:1].shape, **options) for _ in range(max(rows) + 1)]
    return torch.cat([drawn[row] for row in rows])


def first_noise(blank: torch.Tensor, seed: int, rows: Sequence[int] | None, *, on_cpu: bool) -> torch.Tensor:
    """The noise that the host's KSampler starts with, [B, C, H, W], by its seed; drawn without the host.

    The host seeds every kind of device for it, which on a CPU takes as long as everything else around the network, as
    torch notes down for each device that is not there who has asked.

    Args:
        blank: what the noise is for; its first dimension counts where there are no `rows`.
        rows: numbers of the pictures in the batch that they once were part of.
        on_cpu: the model runs there, so that no other device needs a seed.
    """
    # A patch may draw from the common generators, as it may under the host's own samplers.
    generator = torch.default_generator.manual_seed(seed) if on_cpu else torch.manual_seed(seed)
    if rows is not None:
        return _rows(blank, generator, rows)
    return torch.randn(blank.shape, dtype=blank.dtype, generator=generator)


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
    noise, steps = first_noise(blank, seed, rows, on_cpu=model.load_device.type == "cpu"), len(sigmas) - 1
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
    """The host's progress bar, with previews where there is something to wait for."""
    if steps > 1:
        import latent_preview

        return latent_preview.prepare_callback(model, steps)
    bar = comfy.utils.ProgressBar(steps)
    return lambda step, *_: bar.update_absolute(step + 1, steps)
