"""`HostDenoiser` against the host's own predictions, over every prediction type."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import comfy.model_sampling
import torch
from cases import cases, demo, draw, host_prediction, levels, session
from compare import close, raises, slope_agrees

import nodes
from attune.nodes.host.decoder import HostDecoder
from attune.nodes.host.denoiser import process_of
from attune.nodes.host.frames import has_frames
from attune.nodes.host.session import training_session
from attune.nodes.training.plan_rewards import DDPOPlan
from attune.nodes.training.plans import EncodedText
from attune.training.adapters.lora import LoraConfig, Policy
from attune.training.interfaces import AttuneError, Denoiser, LatentDecoder, TrainingError
from attune.training.objectives.ddpo import DDPOConfig

# The last words of the text's stream, which nothing in the network reads any more.
UNREAD = {
    "qwen image (flow), one frame": {
        f"transformer_blocks.1.{layer}" for layer in ("attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")
    }
}


def check_process_is_the_hosts() -> None:
    seen = set()
    samplings = {name: case[0].get_model_object("model_sampling") for name, case in cases().items()}
    kind = type("Edm", (comfy.model_sampling.ModelSamplingContinuousEDM, comfy.model_sampling.V_PREDICTION), {})
    samplings["continuous v"] = kind()
    for name, sampling in samplings.items():
        process = process_of(sampling)
        seen.add(process.prediction)
        assert torch.equal(process.sigmas, sampling.sigmas), name
        x0, noise = draw((4, 8, 8)), draw((4, 8, 8), seed=2)
        sigma = process.sigmas[[10, 400, -1]]
        close(process.add_noise(x0, noise, sigma), sampling.noise_scaling(sigma, noise.clone(), x0), 1e-5)
        top = process.sigmas[-1:].expand(3)
        start = sampling.noise_scaling(top, noise.clone(), torch.zeros_like(x0), max_denoise=True)
        close(process.initial(noise, top), start, 1e-5)
        # x0 from what the network regresses on, read by the host, is x0.
        target = process.velocity(x0, noise, sigma) if process.prediction != "eps" else noise
        noisy = process.add_noise(x0, noise, sigma)
        close(sampling.calculate_denoised(sigma, target, noisy), x0, 2e-2)
    assert seen == {"eps", "v", "flow"}


def check_denoiser_equals_sampling_function() -> None:
    for name, (model, conditionings, negative, shape) in cases().items():
        x = draw(shape)
        with session(name) as (denoiser, prompts, _):
            sigma = levels(denoiser)
            for guidance in (1.0, 4.5):
                together = denoiser(x, sigma, prompts, guidance=guidance)
                assert together.dtype == torch.float32
                for i, prompt in enumerate(prompts):
                    alone = denoiser(x[i : i + 1], sigma[i : i + 1], [prompt], guidance=guidance)
                    close(together[i : i + 1], alone)
                results = together.detach()
                for i, conditioning in enumerate(conditionings):
                    expected = host_prediction(model, x[i : i + 1], sigma[i : i + 1], conditioning, negative, guidance)
                    model.pre_run()  # the comparison ended the host's run
                    close(results[i : i + 1], expected)
                differing = denoiser(x, sigma, [prompts[1], prompts[2], prompts[0]], guidance=guidance)
                assert float((differing - together).abs().max()) > 1e-5, f"{name} ignores the prompt"


def check_prompts_share_one_network_call() -> None:
    for name, calls in (("demo (v)", 1), ("sd15 (eps)", 1), ("flux (flow), uneven prompts", 2)):
        with session(name) as (denoiser, prompts, shape):
            sizes: list[int] = []
            hook = denoiser.module.register_forward_pre_hook(lambda m, inputs, s=sizes: s.append(len(inputs[0])))
            denoiser(draw(shape), levels(denoiser), prompts)
            hook.remove()
            assert len(sizes) == calls, (name, sizes)
            assert sum(sizes) == 3, (name, sizes)


def check_gradients_by_finite_differences() -> None:
    transformers = ("sd3 (flow)", "qwen image (flow), one frame", "flux (flow), uneven prompts")
    for name in ("demo (v)", "sd15 (eps)", "sdxl (eps, pooled)", *transformers):
        with session(name) as (denoiser, prompts, shape):
            sigma, weight = levels(denoiser), draw(shape, seed=3)
            config = LoraConfig(rank=2, targets=("everything",))
            with Policy(denoiser, config) as policy:
                for index, parameter in enumerate(policy.parameters()):
                    parameter.data = 0.05 * draw(tuple(parameter.shape), count=1, seed=index)[0]

                def loss(x: Any) -> Any:
                    return (policy(x, sigma, prompts, guidance=2.0) * weight).sum()  # noqa: B023

                x = draw(shape).requires_grad_(True)
                loss(x).backward()
                with torch.no_grad():
                    slope_agrees(loss, x.detach(), x.grad)
                for parameter in policy.parameters():
                    parameter.grad = None
                loss(x.detach()).backward()
                without = {n for n, p in policy.named_parameters().items() if p.grad is None}
                layers = {n.rpartition(".lora_")[0] for n in without}
                assert layers == UNREAD.get(name, set()), f"{name}: {layers} have no gradient"
                # Where the gradient is largest.
                moved = [p for p in policy.parameters() if p.grad is not None]
                for parameter in sorted(moved, key=lambda p: -float(p.grad.norm()))[:2]:
                    start = parameter.detach().clone()

                    def at(value: Any, parameter: Any = parameter) -> Any:
                        parameter.data = value
                        return loss(x.detach())  # noqa: B023

                    with torch.no_grad():
                        slope_agrees(at, start, parameter.grad)
                    parameter.data = start


def check_composed_conditionings() -> None:
    """Areas, masks, strengths, time ranges and combined prompts: evaluated one by one, as the host weighs them."""
    model, (first, second, third), negative, shape = cases()["demo (v)"]
    with torch.inference_mode():
        mask = torch.zeros(1, 64, 64)
        mask[:, :, :32] = 1
        composed = [
            nodes.ConditioningCombine().combine(first, second)[0],
            nodes.ConditioningCombine().combine(
                nodes.ConditioningSetMask().append(first, mask, "default", 0.8)[0], third
            )[0],
            nodes.ConditioningSetArea().append(second, 32, 32, 16, 0, 1.0)[0]
            + nodes.ConditioningSetTimestepRange().set_range(third, 0.0, 0.5)[0],
            first,
            nodes.ConditioningSetArea().append(second, 32, 32, 16, 0, 0.7)[0],
        ]
    x = draw(shape, count=len(composed))
    with torch.inference_mode(), training_session(model) as denoiser:
        denoiser.set_unconditional(negative)
        items = [denoiser.prompt("", item).positive for item in composed]
        for sigma in (torch.tensor([8.0, 3.0, 9.0, 1.0, 2.0]), torch.tensor([0.5, 3.0, 0.3, 1.0, 2.0])):
            result = denoiser(x, sigma, items, guidance=3.0).detach()
            for i, conditioning in enumerate(composed):
                expected = host_prediction(model, x[i : i + 1], sigma[i : i + 1], conditioning, negative, 3.0)
                model.pre_run()
                close(result[i : i + 1], expected)


def check_bad_input_is_refused() -> None:
    model, (conditioning, *_), negative, shape = cases()["demo (v)"]
    x, sigma = draw(shape, count=1), torch.tensor([2.0])
    with torch.inference_mode(), training_session(model) as denoiser:
        prompt = denoiser.prompt("a cat", conditioning)
        assert prompt.text == "a cat"
        raises(AttuneError, "negative conditioning", denoiser, x, sigma, [prompt.positive], guidance=2.0)
        raises(AttuneError, "is empty", denoiser.prompt, "a cat", [])
        raises(AttuneError, "a ControlNet", denoiser.prompt, "a cat", [[conditioning[0][0], {"control": object()}]])
        raises(AttuneError, "2 prompts", denoiser.prompt, "a cat", [[torch.zeros(2, 77, 128), {}]])
        raises(TrainingError, "do not fit this model", denoiser, x[:, :4], sigma, [prompt.positive])
        raises(TrainingError, "do not fit together", denoiser, x, sigma, [prompt.positive] * 2)
        raises(TrainingError, "is not a conditioning", denoiser, x, sigma, [conditioning])
        decoder = HostDecoder(demo()["vae"], model)
        assert isinstance(decoder, LatentDecoder)
        raises(AttuneError, "do not fit this VAE", decoder.decode, x[:, :4])
        denoiser.set_unconditional(negative)
        assert isinstance(denoiser, Denoiser)
        assert denoiser(x, sigma, [denoiser.unconditional], guidance=2.0).shape == x.shape


def check_latents_with_a_frame_axis() -> None:
    """Training sees pictures, [B, C, H, W], whatever the host's latents look like."""
    model = cases()["qwen image (flow), one frame"][0]
    text = EncodedText("", None)
    for latent in (torch.zeros(1, 4, 8, 6), torch.zeros(2, 16, 1, 8, 6)):
        plan = DDPOPlan([text], text, None, None, {"samples": latent}, None, "", DDPOConfig())
        assert plan.latent_shape(model, []) == (16, 8, 6)
    plan = DDPOPlan([text], text, None, None, {"samples": torch.zeros(1, 16, 5, 8, 6)}, None, "", DDPOConfig())
    raises(AttuneError, "a video of 5 frames", plan.latent_shape, model, [])

    sound = cases()["demo (v)"][0].clone()
    sound.add_object_patch("latent_format", comfy.latent_formats.StableAudio1())
    raises(AttuneError, "makes no pictures but sound or shapes", has_frames, sound)


def check_text_features_are_the_encoders_tokens() -> None:
    """What networks beside the denoiser read: a prompt's own tokens, those of combined prompts one after another."""
    for name, (_, conditionings, _, _) in cases().items():
        with session(name) as (denoiser, prompts, _), Policy(denoiser, LoraConfig(targets=("everything",))) as policy:
            for tokens, conditioning in zip(policy.text_features(prompts), conditionings, strict=True):
                assert tokens.dtype == torch.float32 and not tokens.is_inference(), name
                assert torch.equal(tokens.cpu(), conditioning[0][0][0].float()), name
    model, (first, second, _), _, _ = cases()["demo (v)"]
    with torch.inference_mode(), training_session(model) as denoiser:
        combined = denoiser.prompt("", nodes.ConditioningCombine().combine(first, second)[0]).positive
        (tokens,) = denoiser.text_features([combined])
        assert torch.equal(tokens.cpu(), torch.cat([first[0][0][0], second[0][0][0]]).float())
        mute = denoiser.prompt("", [[None, {}]]).positive
        assert denoiser.text_features([combined, mute]) is None
