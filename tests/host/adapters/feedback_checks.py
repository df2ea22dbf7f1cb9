"""Image Feedback (FABRIC) on the host's U-Nets: what liked and disliked pictures change, and what they must not."""

from __future__ import annotations

from typing import Any

import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import torch
import world
from cases import cases, draw, host_prediction
from compare import close, raises

from attune.nodes.host.image_feedback import KEY, ImageFeedback, Side, self_attentions, with_feedback
from attune.nodes.host.user_adapter import Window
from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.nodes_feedback import one_batch
from attune.training.interfaces import AttuneError

UNETS = ("demo (v)", "demo as eps", "demo as shifted flow", "sd15 (eps)", "sd21 (v)", "sdxl (eps, pooled)")
WHOLE = {"start_percent": 0.0, "end_percent": 1.0}
WEIGHTS = {"liked_weight": 0.8, "disliked_weight": 0.5}


def predicted(model: Any, name: str, *, cfg: float, x: Any = None) -> Any:
    _, conditionings, negative, shape = cases()[name]
    sigma = torch.tensor([float(model.get_model_object("model_sampling").percent_to_sigma(0.3))])
    noisy = draw(shape, count=1, seed=5) if x is None else x
    return host_prediction(model, noisy, sigma, conditionings[0], negative, cfg)


def check_feedback_of_the_picture_itself_changes_nothing() -> None:
    """Keys and values that stand there twice leave every attention as it was, whatever their weight."""
    for name in UNETS:
        model, _, _, shape = cases()[name]
        sampling = model.get_model_object("model_sampling")
        sigma = torch.tensor([float(sampling.percent_to_sigma(0.3))])
        latents, noise = draw(shape, count=1, seed=2), draw(shape, count=1, seed=3)
        x = sampling.noise_scaling(sigma.view(-1, 1, 1, 1), noise.clone(), latents, False)
        patched = model.clone()
        feedback = ImageFeedback(Side(latents, noise, 0.4), None, Window(float("inf"), 0.0))
        install(patched, feedback)
        close(predicted(patched, name, cfg=1.0, x=x), predicted(model, name, cfg=1.0, x=x), 1e-3)
        other = model.clone()
        install(other, ImageFeedback(Side(3 * latents + 1, noise, 0.4), None, Window(float("inf"), 0.0)))
        assert differs(predicted(other, name, cfg=1.0, x=x), predicted(model, name, cfg=1.0, x=x), name), name


def differs(one: Any, other: Any, name: str) -> bool:
    """By more than rounding, where attention of random weights does more than that."""
    found = float((one - other).abs().max()) / float(other.std())
    return found > (2e-3 if name.startswith("demo") else 0.0)


def install(patched: Any, feedback: ImageFeedback) -> None:
    for part, number, index in self_attentions(patched.model.diffusion_model):
        patched.set_model_attn1_replace(feedback.attend, part, number, index)
    kinds = comfy.patcher_extension.WrappersMP
    patched.add_wrapper_with_key(kinds.APPLY_MODEL, "test", feedback)
    patched.add_wrapper_with_key(kinds.PREDICT_NOISE, "test", feedback.guided)


def check_every_self_attention_is_found() -> None:
    for name in UNETS:
        network = cases()[name][0].model.diffusion_model
        blocks = sum(type(part).__name__ == "BasicTransformerBlock" for part in network.modules())
        assert len(self_attentions(network)) == blocks > 0, (name, blocks)


def check_liked_and_disliked_act_on_their_own_prompt() -> None:
    for name in ("demo (v)", "sdxl (eps, pooled)"):
        model, _, _, shape = cases()[name]
        latents = draw(shape, count=2, seed=8)

        def sides(found: Any, name: str = name) -> tuple[Any, Any]:
            """The positive and the negative prompt's prediction: with guidance g the host gives n + g (p − n)."""
            positive, guided = predicted(found, name, cfg=1.0), predicted(found, name, cfg=2.0)
            return positive, 2 * positive - guided

        plain = sides(model)
        liked = sides(with_feedback(model, latents, None, **WEIGHTS, **WHOLE))
        disliked = sides(with_feedback(model, None, latents, **WEIGHTS, **WHOLE))
        assert differs(liked[0], plain[0], name) and differs(disliked[1], plain[1], name), name
        close(liked[1], plain[1], 1e-3)
        close(disliked[0], plain[0], 1e-3)


def check_feedback_that_does_not_count_changes_no_bit() -> None:
    for name in UNETS:
        model, _, _, shape = cases()[name]
        latents = draw(shape, count=1, seed=8)
        for liked, words in (
            (None, {**WEIGHTS, **WHOLE}),
            (latents[:0], {**WEIGHTS, **WHOLE}),
            (latents, {"liked_weight": 0.0, "disliked_weight": 0.5, **WHOLE}),
            (latents, {**WEIGHTS, "start_percent": 0.5, "end_percent": 0.5}),
        ):
            assert with_feedback(model, liked, None, **words) is model, (name, words)
        late = with_feedback(model, latents, None, **WEIGHTS, start_percent=0.5, end_percent=1.0)
        now = with_feedback(model, latents, None, **WEIGHTS, start_percent=0.0, end_percent=0.5)
        close(predicted(late, name, cfg=2.0), predicted(model, name, cfg=2.0), 1e-4)
        first = predicted(now, name, cfg=2.0)
        assert not torch.equal(first, predicted(model, name, cfg=2.0)) and torch.equal(
            first, predicted(with_feedback(model, latents, None, **WEIGHTS, start_percent=0, end_percent=0.5), name,
                             cfg=2.0)
        )  # fmt: skip


def check_no_sampling_takes_what_another_one_has_read() -> None:
    """A second prompt that begins at the level at which the first one ended draws as it would alone."""
    for name in ("demo (v)", "sd15 (eps)"):
        model, conditionings, negative, shape = cases()[name]
        latents, noise = draw(shape, count=2, seed=8), draw(shape, count=1, seed=6)
        level = float(model.get_model_object("model_sampling").percent_to_sigma(0.3))

        def sampled(found: Any, positive: Any, negative: Any, noise: Any = noise, level: float = level) -> Any:
            with torch.inference_mode():
                return comfy.sample.sample_custom(
                    found, noise, 2.0, comfy.samplers.sampler_object("euler"), torch.tensor([level, 0.0]), positive,
                    negative, torch.zeros_like(noise), disable_pbar=True, seed=1,
                )  # fmt: skip

        words, others = (conditionings[0], negative), (negative, conditionings[1])
        fresh, patched = (with_feedback(model, latents, latents + 1, **WEIGHTS, **WHOLE) for _ in range(2))
        alone, first = sampled(fresh, *others), sampled(patched, *words)
        assert torch.equal(sampled(patched, *others), alone), name
        assert torch.equal(sampled(patched, *words), first), name
        feedback = patched.get_wrappers(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY)[0]
        assert feedback.liked.kept is None and feedback.disliked.kept is None, "keys and values stay in memory"


def check_feedback_that_would_patch_nothing_is_an_error() -> None:
    latents = draw((16, 8, 8), count=1)
    for model in (world.small_sd3(), world.small_flux()):
        raises(AttuneError, "is none: it would change nothing", with_feedback, model, latents, None, **WEIGHTS, **WHOLE)
    raises(AttuneError, "this model's have 16 channels", with_feedback, cases()["demo (v)"][0], latents[:, :4], None,
           **WEIGHTS, **WHOLE)  # fmt: skip


def check_latents_of_another_size_are_not_dropped_in_silence() -> None:
    wired, kept = draw((16, 8, 8), count=2, seed=1), draw((16, 8, 8), count=1, seed=2)
    assert torch.equal(one_batch(wired, kept, "liked"), torch.cat([wired, kept]))
    assert one_batch(None, None, "liked") is None and one_batch(wired, None, "liked") is not None
    raises(RefinementError, "wired to disliked have the size [16, 4, 8]", one_batch, wired[:, :, :4], kept, "disliked")
