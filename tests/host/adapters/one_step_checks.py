"""One-step generators on the host's models: drawn as they were trained, as the host's own samplers do, in one call."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_management
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import torch
from cases import cases, demo, draw, random_lora, session, stock
from comfy.cli_args import LatentPreviewMethod
from comfy_execution.utils import CurrentNodeContext
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    CFGGuider,
    DualCFGGuider,
    RandomNoise,
    SamplerCustom,
    SamplerCustomAdvanced,
)
from compare import close, raised, raises

import nodes
from attune.nodes.host import one_step
from attune.nodes.host.lora_keys import lora_keys
from attune.nodes.host.one_step_loras import trained_loras
from attune.nodes.host.sampling import apply_lora
from attune.nodes.host.user_adapter import with_user
from attune.nodes.sampling.nodes_one_step import OneStepPreset, OneStepSampler, facts_of
from attune.nodes.sampling.presets import AUTO, DEMO, PRESETS, UNKNOWN, OneStep, choose
from attune.nodes.sampling.presets import OneStepPreset as Preset
from attune.training.adapters import LoraMetadata, save_lora
from attune.training.adapters.user_attention import UserAdapter, UserAdapterConfig
from attune.training.interfaces import AttuneError
from attune.training.objectives.diff_instruct_config import DiffInstructConfig

HOSTS_OWN = {"consistency": "lcm", "euler": "euler", "euler ancestral": "euler_ancestral"}
LOW = Preset("low", start=399)
PLAIN = ("demo (v)", "demo as eps", "demo as shifted flow", "sd15 (eps)", "sdxl (eps, pooled)", "sd3 (flow)")


def latent_of(shape: tuple[int, ...], count: int = 2, **more: Any) -> dict[str, Any]:
    return {"samples": torch.zeros(count, *shape), **more}


def ours(
    model: Any, positive: Any, latent: dict[str, Any], preset: Preset, *, steps: int = 1, seed: int = 5, count: int = 0
) -> Any:
    """What One-Step Sampler draws, inside a prompt."""
    with torch.inference_mode():
        found = OneStepSampler.execute(model, positive, latent, seed, 7, count, OneStep(preset, steps))
    return found.result[0]["samples"]


def by_host(model: Any, positive: Any, latent: dict[str, Any], sampler: str, sigmas: Any, *, seed: int = 5) -> Any:
    """What the host's own sampler of that name draws over these noise levels at cfg 1."""
    with torch.inference_mode():
        blank = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
        noise = comfy.sample.prepare_noise(blank, seed, latent.get("batch_index"))
        return comfy.sample.sample_custom(
            model, noise, 1.0, comfy.samplers.sampler_object(sampler), sigmas, positive, [], blank,
            disable_pbar=True, seed=seed,
        )  # fmt: skip


@contextlib.contextmanager
def network_inputs(model: Any) -> Iterator[list[Any]]:
    """What the diffusion network itself is given, call by call."""
    seen: list[Any] = []
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
    try:
        yield seen
    finally:
        hook.remove()


def check_one_step_draws_what_its_generator_was_trained_to_draw() -> None:
    """x0 = D(initial(z, σ), σ, c): the training's own denoiser, at levels other than the highest too."""
    for name in cases():
        model, conditionings, _, _ = cases()[name]
        for preset in (LOW, Preset("lower", start=120), UNKNOWN):
            with session(name) as (denoiser, prompts, shape), torch.no_grad():
                noise = comfy.sample.prepare_noise(torch.zeros(2, *shape), 5)
                sigma = preset.sigmas(denoiser.process.sigmas, 1)[:1].repeat(2)
                trained = denoiser(denoiser.process.initial(noise, sigma), sigma, prompts[:1] * 2)
            expected = model.model.process_latent_out(trained.unsqueeze(2) if "one frame" in name else trained)
            close(ours(model, conditionings[0], latent_of(shape), preset), expected, 1e-4)


def check_network_of_a_generator_sees_unit_variance_at_its_own_level() -> None:
    for name in PLAIN:
        model, conditionings, _, shape = cases()[name]
        noise = comfy.sample.prepare_noise(torch.zeros(2, *shape), 5)
        sigma = float(LOW.sigmas(one_step.noise_levels(model), 1)[0])
        with network_inputs(model) as seen:
            ours(model, conditionings[0], latent_of(shape), LOW)
        close(seen[0], noise * (sigma if "flow" in name else 1.0), 1e-5)
        top = float(one_step.noise_levels(model)[-1])
        assert sigma < 0.7 * top, "at the highest level the host would do the same"


def check_one_step_is_exactly_one_call_of_the_network() -> None:
    for name in cases():
        model, conditionings, _, shape = cases()[name]
        for count, steps in ((1, 1), (3, 1), (2, 4)):
            with network_inputs(model) as seen:
                drawn = ours(model, conditionings[0], latent_of(shape, count), LOW, steps=steps)
            assert [len(entry) for entry in seen] == [count] * steps, (name, count, steps, [e.shape for e in seen])
            assert len(drawn) == count
        with network_inputs(model) as seen:
            assert len(ours(model, conditionings[0], latent_of(shape, 1), LOW, count=5)) == 5
        assert [len(entry) for entry in seen] == [5], name


def check_one_step_at_the_highest_level_is_the_hosts_euler() -> None:
    for name in cases():
        model, conditionings, negative, shape = cases()[name]
        latent = latent_of(shape)
        with torch.inference_mode():
            (expected,) = nodes.common_ksampler(
                model, 5, 1, 1.0, "euler", "simple", conditionings[0], negative, latent
            )  # fmt: skip
        close(ours(model, conditionings[0], latent, UNKNOWN), expected["samples"], 1e-4)


def check_several_steps_are_the_hosts_own_samplers() -> None:
    for name in PLAIN:
        model, conditionings, _, shape = cases()[name]
        for preset in PRESETS:
            if preset.start != 999 or (preset.kind == "consistency" and preset.name != "LCM, LCM-LoRA"):
                continue
            for steps in (1, 3):
                sigmas = preset.sigmas(one_step.noise_levels(model), steps)
                expected = by_host(model, conditionings[0], latent_of(shape), HOSTS_OWN[preset.kind], sigmas)
                found = ours(model, conditionings[0], latent_of(shape), preset, steps=steps)
                if steps > 1:
                    assert torch.equal(found, expected), (name, preset.name, steps)
                close(found, expected, 1e-4)  # Euler computes a single step in another order


def check_lower_levels_differ_from_the_hosts_sampler() -> None:
    """There the host scales the first noise for a picture in it: the reason for a sampler of our own."""
    model, conditionings, _, shape = cases()["demo (v)"]
    sigmas = LOW.sigmas(one_step.noise_levels(model), 1)
    host = by_host(model, conditionings[0], latent_of(shape), "lcm", sigmas)
    found = ours(model, conditionings[0], latent_of(shape), LOW)
    assert float((found - host).abs().max()) > 0.1 * float(found.std())


def check_preset_works_in_the_hosts_custom_samplers() -> None:
    for name in PLAIN:
        model, conditionings, negative, shape = cases()[name]
        for preset, steps in (("DI*-SDXL 1 step", 1), ("SDXL-Lightning", 4), ("SDXL-Turbo, SD-Turbo", 2)):
            with torch.inference_mode():
                step, sigmas, sampler = OneStepPreset.execute(model, preset, steps).result
                latent = latent_of(shape)
                with network_inputs(model) as seen:
                    simple = SamplerCustom.execute(
                        model, True, 5, 1.0, conditionings[0], negative, sampler, sigmas, latent
                    ).result[0]["samples"]  # fmt: skip
                assert len(seen) == steps
                found = OneStepSampler.execute(model, conditionings[0], latent, 5, 1, 0, step).result[0]["samples"]
                assert torch.equal(simple, found), (name, preset)
                (noise,) = RandomNoise.execute(5).result
                for guider in (
                    BasicGuider.execute(model, conditionings[0]),
                    CFGGuider.execute(model, conditionings[0], negative, 1.0),
                ):  # fmt: skip
                    advanced = SamplerCustomAdvanced.execute(noise, guider.result[0], sampler, sigmas, latent)
                    assert torch.equal(advanced.result[0]["samples"], found), (name, preset)


def check_guidance_behind_a_preset_is_noticed() -> None:
    """Whichever guider computes it; no more is said once none does."""
    model, (positive, *_), negative, shape = cases()["demo (v)"]
    latent, (noise,) = latent_of(shape), RandomNoise.execute(5).result
    with torch.inference_mode():
        for steps in (1, 3):
            result = OneStepPreset.execute(model, "DI*-SDXL 1 step", steps)
            _, sigmas, sampler = result.result
            words = sampler.on_guidance
            (alone,) = result.ui["text"]

            def guided(guider: Any, node: str, sampler: Any = sampler, sigmas: Any = sigmas) -> None:
                with CurrentNodeContext("run", node):
                    SamplerCustomAdvanced.execute(noise, guider.result[0], sampler, sigmas, latent)

            def dual(*cfg: float) -> Any:
                return DualCFGGuider.execute(model, positive, negative, negative, *cfg, "regular")

            for guider in (
                BasicGuider.execute(model, positive), CFGGuider.execute(model, positive, negative, 1.0), dual(1.0, 1.0)
            ):  # fmt: skip
                guided(guider, "3")
                assert words.words() == alone, "nothing to say"
            guided(CFGGuider.execute(model, positive, negative, 4.5), "3")
            (said,) = words.words().removesuffix(alone).strip().splitlines()
            assert said.startswith("⚠ Set cfg to 1 in the sampler, not 4.5: "), said
            guided(dual(1.0, 3.0), "4")
            both = words.words().removesuffix(alone).strip().splitlines()
            assert both == [said, both[1]] and both[1].startswith("⚠ Take BasicGuider: "), both
            guided(BasicGuider.execute(model, positive), "3")
            assert words.words() == f"{both[1]}\n{alone}", "the other sampler still does"
            guided(dual(1.0, 1.0), "4")
            assert words.words() == alone
    assert not model.model_options.get("transformer_options", {}).get("wrappers"), "the model is as it was"


def check_sampler_of_a_preset_starts_from_a_picture_as_the_hosts_does() -> None:
    """With a picture in the latent the noise is as strong as the level says, whichever node samples."""
    model, conditionings, negative, shape = cases()["demo (v)"]
    latent = {"samples": draw(shape, count=2)}
    with torch.inference_mode():
        _, sigmas, sampler = OneStepPreset.execute(model, "DI*-SDXL 1 step", 1).result
        found = SamplerCustom.execute(model, True, 5, 1.0, conditionings[0], negative, sampler, sigmas, latent)
    expected = by_host(model, conditionings[0], latent, "lcm", sigmas)
    assert torch.equal(found.result[0]["samples"], expected)


def check_first_noise_is_the_hosts() -> None:
    blank = torch.zeros(4, 16, 8, 8)
    for rows in (None, [3, 1, 1]):
        for on_cpu in (True, False):
            for seed in (0, 7, 2**64 - 1):
                torch.manual_seed(1)
                found = one_step.first_noise(blank, seed, rows, on_cpu=on_cpu)
                drawn_next = torch.rand(3)
                torch.manual_seed(1)
                assert torch.equal(found, comfy.sample.prepare_noise(blank, seed, rows)), (rows, on_cpu, seed)
                assert torch.equal(drawn_next, torch.rand(3)), "what a patch draws from the common generator"


def check_a_picture_of_a_batch_is_the_same_alone() -> None:
    model, conditionings, _, shape = cases()["demo (v)"]
    for preset in (
        LOW,
        Preset("straight", start=999, kind="euler"),
        Preset("fresh", start=999, kind="euler ancestral"),
    ):
        for steps in (1, 3):
            whole = ours(model, conditionings[0], latent_of(shape, 4), preset, steps=steps)
            some = ours(model, conditionings[0], latent_of(shape, 2, batch_index=[3, 1]), preset, steps=steps)
            close(some, whole[[3, 1]], 1e-4)
            more = ours(model, conditionings[0], latent_of(shape, 1), preset, steps=steps, count=4)
            assert torch.equal(more, whole)
    latent = latent_of(shape, 2, batch_index=[3, 1])
    with torch.inference_mode():
        kept = OneStepSampler.execute(model, conditionings[0], latent, 5, 1, 0).result[0]
        made = OneStepSampler.execute(model, conditionings[0], latent, 5, 1, 3).result[0]
    assert kept["batch_index"] == [3, 1] and "batch_index" not in made


def check_one_step_keeps_patches_of_the_model() -> None:
    """A LoRA and a user adapter act as under the host's own sampler."""
    name = "demo (v)"
    model, conditionings, _, shape = cases()[name]
    sigmas = UNKNOWN.sigmas(one_step.noise_levels(model), 2)
    plain = ours(model, conditionings[0], latent_of(shape), UNKNOWN, steps=2)
    with torch.inference_mode(False):
        adapter = UserAdapter.fresh(model.model.diffusion_model, UserAdapterConfig(tokens=2, width=8, start="text"))
    taste = torch.randn(2, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        tuned = apply_lora(model, random_lora(model, lora_keys(model)))
    personal = with_user(tuned, adapter, [(taste, 1.0)], strength=1.0, start_percent=0.0, end_percent=1.0)
    pictures = [plain]
    for patched in (tuned, personal):
        found = ours(patched, conditionings[0], latent_of(shape), UNKNOWN, steps=2)
        assert torch.equal(found, by_host(patched, conditionings[0], latent_of(shape), "lcm", sigmas))
        pictures.append(found)
    for one, other in itertools.pairwise(pictures):
        assert float((one - other).abs().max()) > 1e-2 * float(one.std()), "a patch changes nothing"
    assert torch.equal(ours(model, conditionings[0], latent_of(shape), UNKNOWN, steps=2), plain)


def controlled(model: Any, conditioning: Any) -> Any:
    """The conditioning under a small ControlNet of random weights, by the host's own node."""
    others = ("disable_unet_model_creation", "out_channels", "dtype", "device")
    layout = {name: value for name, value in model.model.model_config.unet_config.items() if name not in others}
    torch.manual_seed(3)
    with torch.inference_mode():
        network = comfy.cldm.cldm.ControlNet(
            hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init, **layout
        )  # fmt: skip
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape) * (0.3 / weight.shape[1] ** 0.5 if weight.ndim > 1 else 0.1))
        control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
        picture = torch.rand(1, 64, 64, 3)
        return nodes.ControlNetApplyAdvanced().apply_controlnet(conditioning, [], control, picture, 1.0, 0.0, 1.0)[0]


def check_one_step_follows_a_controlnet() -> None:
    model, conditionings, _, shape = cases()["demo (v)"]
    sigmas = UNKNOWN.sigmas(one_step.noise_levels(model), 2)
    plain = ours(model, conditionings[0], latent_of(shape), UNKNOWN, steps=2)
    with_control = controlled(model, conditionings[0])
    with network_inputs(model) as seen:
        found = ours(model, with_control, latent_of(shape), UNKNOWN, steps=2)
    assert len(seen) == 2
    assert torch.equal(found, by_host(model, with_control, latent_of(shape), "lcm", sigmas))
    assert float((found - plain).abs().max()) > 1e-2 * float(plain.std()), "the ControlNet changes nothing"


def saved_lora(name: str, objective: dict[str, Any], seed: int) -> None:
    model = demo()["model"]
    torch.manual_seed(seed)
    tensors = {
        f"input_blocks.1.1.proj_in.{part}": torch.randn(*shape)
        for part, shape in (("lora_down.weight", (2, 64, 1, 1)), ("lora_up.weight", (64, 2, 1, 1)))
    } | {"input_blocks.1.1.proj_in.alpha": torch.tensor(2.0)}
    metadata = LoraMetadata(title=name, prediction="v", settings={"objective": objective})
    path = Path(folder_paths.get_folder_paths("loras")[0]) / f"{name}.safetensors"
    save_lora(path, tensors, metadata=metadata, rename=lora_keys(model))


def check_auto_reads_how_the_lora_on_the_model_was_trained() -> None:
    model = demo()["model"]
    saved_lora("one_step_623", asdict(DiffInstructConfig(init_timestep=623)), 1)
    saved_lora("one_step_99", {"init_timestep": 99}, 2)
    saved_lora("style", {"batch": 4}, 3)
    saved_lora("broken", {"init_timestep": "soon"}, 4)

    def with_loras(*loras: tuple[str, float]) -> Any:
        patched = model
        with torch.inference_mode():
            for name, strength in loras:
                patched = nodes.LoraLoaderModelOnly().load_lora_model_only(patched, f"{name}.safetensors", strength)[0]
        return patched

    assert trained_loras(model) == ()
    assert trained_loras(with_loras(("one_step_623", 1.0))) == (("one_step_623.safetensors", 623, "v"),)
    assert [found[1] for found in trained_loras(with_loras(("one_step_99", 0.5), ("one_step_623", -0.6)))] == [623, 99]
    assert trained_loras(with_loras(("one_step_623", 0.0), ("style", 1.0), ("broken", 1.0))) == ()
    assert trained_loras(with_loras(("one_step_623", 1.0), ("one_step_623", -1.0))) == (), "they cancel each other"
    tuned = with_loras(("style", 0.8), ("one_step_623", 1.0))
    assert choose(AUTO, facts_of(tuned)).start == 623 and choose(AUTO, facts_of(model)) is DEMO
    latent, (conditioning, *_) = latent_of((16, 8, 8)), cases()["demo (v)"][1]
    with torch.inference_mode():
        step, sigmas, _ = OneStepPreset.execute(tuned, AUTO, 1).result
        alone = OneStepSampler.execute(tuned, conditioning, latent, 5, 1, 0)
        wired = OneStepSampler.execute(tuned, conditioning, latent, 5, 8, 0, step)
    assert float(sigmas[0]) == float(one_step.noise_levels(model)[623])
    assert torch.equal(alone.result[0]["samples"], wired.result[0]["samples"]), "the wire's steps count"
    assert alone.ui["text"] == ["as one_step_623.safetensors was trained: 1 step at timestep 623, no guidance (cfg 1)."]
    with torch.inference_mode():
        (said,) = OneStepSampler.execute(tuned, conditioning, latent, 5, 2, 0).ui["text"]
    first, second = said.splitlines()
    assert "2 steps at timesteps 623, 311" in second and "⚠" not in said
    assert first.startswith("one_step_623.safetensors was trained for one step.")


def check_facts_of_the_models() -> None:
    found = {name: facts_of(case[0]) for name, case in cases().items()}
    assert {name: (facts.family, facts.prediction) for name, facts in found.items()} == {
        "demo (v)": ("demo", "v"),
        "demo as eps": ("demo", "eps"),
        "demo as shifted flow": ("demo", "flow"),
        "sd15 (eps)": ("sd15", "eps"),
        "sd21 (v)": ("sd2", "v"),
        "sdxl (eps, pooled)": ("sdxl", "eps"),
        "sd3 (flow)": ("other", "flow"),
        "qwen image (flow), one frame": ("other", "flow"),
        "flux (flow), uneven prompts": ("other", "flow"),
    }
    for sampling in ("x0", "lcm"):
        patched = stock("nodes_model_advanced", "ModelSamplingDiscrete", demo()["model"], sampling, False)
        assert facts_of(patched).prediction == sampling
    guided = demo()["model"].clone()
    guided.set_model_sampler_post_cfg_function(lambda arguments: arguments["denoised"])
    assert facts_of(guided).guidance_patches == ("sampler_post_cfg_function",)


def check_nodes_say_what_does_not_fit() -> None:
    model, (conditioning, *_), _, shape = cases()["demo (v)"]
    with torch.inference_mode():
        (said,) = OneStepPreset.execute(model, "SDXL-Lightning", 3).ui["text"]
        assert "⚠ SDXL-Lightning is made for SDXL; this is Attune's demo model." in said
        assert "was trained for 1, 2, 4 or 8 steps, not 3. Set steps to that." in said
        picture = {"samples": draw(shape, count=1)}
        found = OneStepSampler.execute(model, conditioning, picture, 5, 1, 0)
        (said,) = found.ui["text"]
        assert "⚠ The latent holds a picture or a mask, of which only the size is used." in said
        blank = OneStepSampler.execute(model, conditioning, latent_of(shape, 1), 5, 1, 0)
        assert torch.equal(found.result[0]["samples"], blank.result[0]["samples"])
        assert "The latent holds" not in blank.ui["text"][0] and "carries no one-step LoRA" in blank.ui["text"][0]
        raises(
            AttuneError, "holds no picture", OneStepSampler.execute, model, conditioning, latent_of(shape, 0), 5, 1, 0
        )
        video = {"samples": torch.zeros(1, 16, 3, 8, 8)}
        frames, (prompt, *_), _, _ = cases()["qwen image (flow), one frame"]
        raises(AttuneError, "a video of 3 frames", OneStepSampler.execute, frames, prompt, video, 5, 1, 0)


def check_one_step_shows_progress_and_stops_on_cancel() -> None:
    model, (conditioning, *_), _, shape = cases()["demo (v)"]
    seen: list[tuple[int, int, bool]] = []
    previous = comfy.utils.PROGRESS_BAR_HOOK, latent_preview.args.preview_method
    latent_preview.args.preview_method = LatentPreviewMethod.Latent2RGB
    comfy.utils.set_progress_bar_global_hook(
        lambda value, total, preview, node_id=None: seen.append((value, total, preview is not None))
    )
    try:
        ours(model, conditioning, latent_of(shape), LOW, steps=3)
        ours(model, conditioning, latent_of(shape), LOW)
    finally:
        comfy.utils.set_progress_bar_global_hook(previous[0])
        latent_preview.args.preview_method = previous[1]
    assert seen == [(1, 3, True), (2, 3, True), (3, 3, True), (1, 1, False)], seen
    comfy.model_management.interrupt_current_processing(True)
    with network_inputs(model) as calls:
        raised(
            comfy.model_management.InterruptProcessingException,
            ours,
            model,
            conditioning,
            latent_of(shape),
            LOW,
            steps=4,
        )
    assert len(calls) == 1 and not comfy.model_management.processing_interrupted()
