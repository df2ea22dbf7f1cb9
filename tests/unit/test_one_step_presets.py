"""The table of one-step presets: timesteps against the schedulers of their makers, and what is said of a misfit."""

from __future__ import annotations

import pytest
import torch

from attune.nodes.sampling.presets import (
    AUTO,
    DEMO,
    MOST_STEPS,
    PRESETS,
    UNKNOWN,
    ModelFacts,
    OneStep,
    OneStepPreset,
    TrainedLora,
    about_guidance,
    advice,
    choose,
    expectations,
    preset_names,
)
from attune.nodes.sampling.shown import GuidanceWords, told
from attune.training.interfaces import AttuneError

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BY_NAME = {preset.name: preset for preset in PRESETS}
SDXL = ModelFacts("sdxl", "eps")
LORA = TrainedLora("mine.safetensors", 623, "v")


def test_trailing_timesteps_are_those_of_diffusers():
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    for steps in range(1, MOST_STEPS + 1):
        scheduler.set_timesteps(steps)
        assert BY_NAME["SDXL-Lightning"].timesteps(steps) == tuple(scheduler.timesteps.int().tolist())
        sigmas = BY_NAME["SDXL-Lightning"].sigmas(levels(), steps)
        torch.testing.assert_close(sigmas, scheduler.sigmas, rtol=1e-4, atol=0)


def test_timesteps_of_lcm_are_those_of_diffusers():
    from diffusers import LCMScheduler

    scheduler = LCMScheduler(**BETAS)
    for steps in range(1, MOST_STEPS + 1):
        scheduler.set_timesteps(steps)
        assert BY_NAME["LCM, LCM-LoRA"].timesteps(steps) == tuple(scheduler.timesteps.tolist())


def levels(count: int = 1000) -> torch.Tensor:
    """σ = √((1−ā)/ā) of Stable Diffusion's betas; with fewer levels every so manieth, as the host's LCM sampling."""
    betas = torch.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000, dtype=torch.float64).square()
    product = torch.cumprod(1 - betas, 0)
    sigmas = ((1 - product) / product).sqrt().float()
    return sigmas[1000 // count - 1 :: 1000 // count]


@pytest.mark.parametrize(
    ("name", "steps", "timesteps"),
    [
        ("DI*-SDXL 1 step", 1, (399,)),
        ("DMD2-SDXL 1 step", 1, (399,)),
        ("DMD2-SDXL 4 steps", 4, (999, 749, 499, 249)),
        ("SDXL-Turbo, SD-Turbo", 1, (999,)),
        ("SDXL-Turbo, SD-Turbo", 4, (999, 899, 799, 699)),
        ("LCM, LCM-LoRA", 4, (999, 759, 499, 259)),
    ],
)
def test_published_timesteps(name: str, steps: int, timesteps: tuple[int, ...]):
    preset = BY_NAME[name]
    assert preset.timesteps(steps) == timesteps and steps in preset.trained_steps
    # √((1−ā)/ā) at 399 is 1.1606 (diffusers' Euler scheduler says so too).
    sigmas = preset.sigmas(levels(), steps)
    assert sigmas[-1] == 0 and len(sigmas) == steps + 1
    if timesteps[0] == 399:
        assert float(sigmas[0]) == pytest.approx(1.1606, abs=1e-4)


@pytest.mark.parametrize("preset", [*PRESETS, UNKNOWN], ids=lambda preset: preset.name)
def test_every_preset_descends_for_every_number_of_steps(preset: OneStepPreset):
    for steps in range(1, MOST_STEPS + 1):
        timesteps = preset.timesteps(steps)
        assert len(timesteps) == steps and timesteps[0] == preset.start
        assert list(timesteps) == sorted(set(timesteps), reverse=True) and timesteps[-1] >= 0
    assert preset is UNKNOWN or preset.source, "a fact without a source"


@pytest.mark.parametrize("steps", [0, MOST_STEPS + 1])
def test_numbers_of_steps_out_of_range_are_refused(steps: int):
    with pytest.raises(AttuneError, match=f"between 1 and 8, not {steps}"):
        DEMO.timesteps(steps)


def test_a_start_out_of_range_is_refused():
    with pytest.raises(AttuneError, match="between 0 and 999, not 1000"):
        OneStepPreset("mine", start=1000)


def test_noise_levels_of_a_model_with_another_number_of_them():
    """A timestep counts per thousand: 399 is the 20th of LCM's fifty, and the 3991st of ten thousand."""
    preset = BY_NAME["DI*-SDXL 1 step"]
    assert preset.sigmas(levels(50), 1)[0] == levels()[399]
    assert preset.sigmas(torch.arange(1.0, 10001.0), 1)[0] == 3991
    assert UNKNOWN.sigmas(torch.arange(1.0, 10001.0), 1)[0] == 10000, "the highest is the highest"


def test_auto_reads_the_lora_then_the_model():
    assert choose(AUTO, ModelFacts("sdxl", "eps", (LORA,))).start == 623
    assert choose(AUTO, ModelFacts("demo", "v")) is DEMO
    assert choose(AUTO, SDXL) is UNKNOWN
    assert choose(DEMO.name, ModelFacts("demo", "v", (LORA,))).start == 623, "its file says more than the table"
    assert choose("SDXL-Lightning", SDXL) is BY_NAME["SDXL-Lightning"]
    with pytest.raises(AttuneError, match="no preset 'Turbo'"):
        choose("Turbo", SDXL)
    assert len(set(preset_names())) == len(PRESETS) + 1


@pytest.mark.parametrize(
    ("name", "steps", "facts"),
    [
        ("DI*-SDXL 1 step", 1, SDXL),
        ("DMD2-SDXL 1 step", 1, ModelFacts("sdxl", "lcm")),
        ("DMD2-SDXL 4 steps", 4, SDXL),
        ("SDXL-Turbo, SD-Turbo", 2, ModelFacts("sd2", "eps")),
        ("SDXL-Lightning", 4, SDXL),
        ("SDXL-Lightning", 1, ModelFacts("sdxl", "x0")),
        ("LCM, LCM-LoRA", 6, ModelFacts("sd15", "lcm")),
        (AUTO, 1, ModelFacts("demo", "v", (LORA,))),
        (AUTO, 3, ModelFacts("other", "flow", (TrainedLora("flux.safetensors", 999, "flow"),))),
    ],
)
def test_what_fits_is_not_commented(name: str, steps: int, facts: ModelFacts):
    assert advice(OneStep(choose(name, facts), steps), facts) == []


@pytest.mark.parametrize(
    ("name", "steps", "facts", "words"),
    [
        ("DI*-SDXL 1 step", 4, SDXL, "was trained for 1 step, not 4. Set steps to that."),
        ("DMD2-SDXL 4 steps", 1, SDXL, "was trained for 4 steps, not 1. Set steps to that."),
        ("SDXL-Lightning", 3, SDXL, "was trained for 1, 2, 4 or 8 steps, not 3. Set steps to that."),
        ("SDXL-Lightning", 1, SDXL, "with 1 step wants sampling 'x0', but this model is set to 'eps'. Set it by "),
        ("SDXL-Lightning", 2, ModelFacts("sdxl", "x0"), "with 2 steps wants sampling 'eps', but this model is set to"),
        ("DMD2-SDXL 4 steps", 4, ModelFacts("sdxl", "lcm"), "wants sampling 'eps', but this model is set to 'lcm'"),
        ("DI*-SDXL 1 step", 1, ModelFacts("sd15", "eps"), "is made for SDXL; this is Stable Diffusion 1.5. Load that"),
        ("SDXL-Turbo, SD-Turbo", 1, ModelFacts("sd2", "v"), "wants sampling 'eps', but this model is set to 'v_pred"),
        ("LCM, LCM-LoRA", 4, ModelFacts("sd15", "flow"), "predicts flow. Load such a model, or choose another"),
        (DEMO.name, 1, ModelFacts("demo", "v"), "carries no one-step LoRA, so one step is a blur. Put LoraLoaderModel"),
        (AUTO, 1, SDXL, "Nothing on this model says how its generator was trained"),
        ("DI*-SDXL 1 step", 1, ModelFacts("sdxl", "eps", (TrainedLora("mine", 623, "eps"),)),
         "mine was trained at timestep 623, but the preset starts at 399. Set preset to auto."),
        (AUTO, 1, ModelFacts("demo", "v", (LORA, TrainedLora("b", 99))), "mine.safetensors at 623, b at 99). Keep one"),
        (AUTO, 1, ModelFacts("demo", "eps", (LORA,)), "wants sampling 'v_prediction', but this model is set to 'eps'"),
        ("DI*-SDXL 1 step", 1, ModelFacts("sdxl", "eps", (), ("sampler_post_cfg_function",)),
         "a patch of guidance (sampler_post_cfg_function), which a one-step generator does not want"),
    ],
)  # fmt: skip
def test_a_misfit_says_what_to_set(name: str, steps: int, facts: ModelFacts, words: str):
    (said,) = advice(OneStep(choose(name, facts), steps), facts)
    assert words in said


def test_the_line_in_the_node():
    one, few = OneStep(BY_NAME["DI*-SDXL 1 step"], 1), OneStep(BY_NAME["SDXL-Lightning"], 4)
    assert one.words() == "DI*-SDXL 1 step: 1 step at timestep 399, no guidance (cfg 1)."
    assert few.words() == "SDXL-Lightning: 4 steps at timesteps 999, 749, 499, 249 (euler), no guidance (cfg 1)."


def test_several_steps_with_a_one_step_lora_are_no_fault_but_said():
    facts = ModelFacts("demo", "v", (LORA,))
    one, few = (OneStep(choose(AUTO, facts), steps) for steps in (1, 4))
    assert expectations(one, facts) == [] and told(one, facts) == one.words()
    (said,) = expectations(few, facts)
    assert said.startswith("mine.safetensors was trained for one step.") and "Set steps to 1, or take" in said
    assert told(few, facts) == f"{said}\n{few.words()}", "no warning"
    # Whichever preset is chosen for it.
    assert expectations(OneStep(BY_NAME["LCM, LCM-LoRA"], 4), facts) == [said]
    assert expectations(OneStep(BY_NAME["LCM, LCM-LoRA"], 4), SDXL) == [], "nothing is known of this one"


def test_warnings_come_first_as_a_small_node_shows_no_more():
    facts = ModelFacts("demo", "v", (LORA,))
    step = OneStep(BY_NAME["SDXL-Lightning"], 2)
    *warnings, expected, last = told(step, facts, ["The latent holds a picture."]).splitlines()
    assert last == step.words() and [expected] == expectations(step, facts)
    assert warnings == [f"⚠ {words}" for words in (*advice(step, facts), "The latent holds a picture.")]
    assert len(warnings) > 1


def test_guidance_is_said_with_what_to_set():
    assert about_guidance(7.5).startswith("Set cfg to 1 in the sampler, not 7.5: ")
    assert about_guidance(0.0).startswith("Set cfg to 1 in the sampler, not 0: in ComfyUI 1 is without guidance")
    assert about_guidance(1.0).startswith("Take BasicGuider: ")


def test_words_on_guidance_come_and_go(caplog: pytest.LogCaptureFixture):
    words = GuidanceWords(None, "how it is drawn")
    words(None)
    assert words.words() == "how it is drawn" and not caplog.records
    words(7.0)
    assert words.words() == f"⚠ {about_guidance(7.0)}\nhow it is drawn"
    assert about_guidance(7.0) in caplog.text, "for runs without a page"
    words(3.0)
    assert words.words() == f"⚠ {about_guidance(3.0)}\nhow it is drawn"
    words(None)
    assert words.words() == "how it is drawn"
