"""How each known one-step generator wants to be sampled: a table, and what to say where a model does not fit it.

A generator is called once on noise of the level it was trained at: x0 = D(x, sigma), where the network's own input has
unit variance (eps and v: x = √(1 + σ²)·noise; flow: x = σ·noise). With several steps x0 gets noise again, or follows
the sampler that its authors used. None of them wants guidance: it was learned.

| here        | diffusers                                  | the host                                           |
| ----------- | ------------------------------------------ | -------------------------------------------------- |
| timestep    | entry of `scheduler.timesteps`             | index among `model_sampling.sigmas`, per thousand  |
| consistency | `LCMScheduler`                             | sampler `lcm`                                      |
| no guidance | `guidance_scale` 0 (DMD2, Turbo) or 1      | `cfg` 1                                            |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ...training.diffusion import DiffusionProcess
from ...training.interfaces import AttuneError
from ...training.one_step import TIMESTEPS, level_of

Family = Literal["sdxl", "sd15", "sd2", "demo", "other"]
Prediction = Literal["eps", "v", "flow", "x0", "lcm"]
Spacing = Literal["trailing", "turbo", "lcm"]
Kind = Literal["consistency", "euler", "euler ancestral"]

MOST_STEPS = 8
TOP = TIMESTEPS - 1
AUTO = "auto"
LCM_LEVELS = 50
"""Latent consistency models were trained on every 20th timestep only (`original_inference_steps`)."""

FAMILY_NAMES: dict[Family, str] = {
    "sdxl": "SDXL", "sd15": "Stable Diffusion 1.5", "sd2": "Stable Diffusion 2", "demo": "Attune's demo model",
    "other": "another kind of model",
}  # fmt: skip
# As the host's node Model Sampling Discrete calls them.
SAMPLING_NAMES: dict[Prediction, str] = {
    "eps": "eps", "v": "v_prediction", "flow": "flow", "x0": "x0", "lcm": "lcm",
}  # fmt: skip


@dataclass(frozen=True)
class OneStepPreset:
    """How a generator is sampled.

    Attributes:
        name: in the list.
        start: timestep of the first call, 0 … 999.
        trained_steps: numbers of steps that its makers trained or published; empty: nothing is known.
        spacing: where further steps lie, see `timesteps`.
        kind: what happens between two steps. consistency: x0 gets fresh noise. euler: a straight step. euler ancestral:
            a straight step too far, and some fresh noise.
        families: models that it was made from; empty: any.
        predictions: what the network may be set to predict; empty: any.
        one_step_prediction: the same for a single step, where that differs; "" where not.
        source: where these facts are from.
    """

    name: str
    start: int
    trained_steps: tuple[int, ...] = ()
    spacing: Spacing = "trailing"
    kind: Kind = "consistency"
    families: tuple[Family, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    one_step_prediction: Prediction | Literal[""] = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= TOP:
            raise AttuneError(f"{self.name}: the timestep must be between 0 and {TOP}, not {self.start}.")

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Descending timesteps of `steps` calls, 1 … 8.

        trailing: even parts of what lies below the start, counted from its end (diffusers' `trailing`); of 999 in four
            steps 999, 749, 499, 249.
        turbo: 999, 899, 799, … as many as there are steps.
        lcm: of the 50 trained ones, evenly chosen from the noisy end and rounded to the noisier side (diffusers'
            `LCMScheduler`); in four steps 999, 759, 499, 259.

        Raises:
            AttuneError: steps is out of range.
        """
        if not 1 <= steps <= MOST_STEPS:
            raise AttuneError(f"steps must be between 1 and {MOST_STEPS}, not {steps}.")
        if self.spacing == "turbo":
            return tuple(self.start - 100 * index for index in range(steps))
        if self.spacing == "lcm":
            width = TIMESTEPS // LCM_LEVELS
            return tuple(self.start - width * (LCM_LEVELS * index // steps) for index in range(steps))
        return tuple(max(0, round((self.start + 1) * (steps - index) / steps) - 1) for index in range(steps))

    def sigmas(self, levels: torch.Tensor, steps: int) -> torch.Tensor:
        """Noise levels [steps + 1] of a model, descending, the last one 0.

        Args:
            levels: all noise levels of the model, ascending, [N]; N may differ from 1000.
        """
        # A level is found by its place alone, so it is the same for every kind of process.
        process = DiffusionProcess("eps", levels)
        return torch.tensor([*(level_of(process, timestep) for timestep in self.timesteps(steps)), 0.0])


DEMO = OneStepPreset(
    "Attune demo",
    start=TOP,
    families=("demo",),
    predictions=("v",),
    source="the LoRA attune_demo_one_step.safetensors that comes with this pack; its file says its timestep",
)
UNKNOWN = OneStepPreset("highest noise level", start=TOP)
"""Where nothing is known: what Turbo, Lightning and LCM have in common."""

PRESETS: tuple[OneStepPreset, ...] = (
    OneStepPreset(
        "DI*-SDXL 1 step",
        start=399,
        trained_steps=(1,),
        families=("sdxl",),
        predictions=("eps", "lcm"),
        source="the authors' notebook demo_distar_colab.ipynb (github.com/pkulwj1994/diff_instruct_star): "
        "LCMScheduler, 1 step, timesteps [399], guidance_scale 0; so for their SIM, Diff-Instruct and DI++ models too",
    ),
    OneStepPreset(
        "DMD2-SDXL 1 step",
        start=399,
        trained_steps=(1,),
        families=("sdxl",),
        predictions=("eps", "lcm"),
        source="README of github.com/tianweiy/DMD2, 1-step generation: LCMScheduler, timesteps [399], guidance_scale 0",
    ),
    OneStepPreset(
        "DMD2-SDXL 4 steps",
        start=TOP,
        trained_steps=(4,),
        families=("sdxl",),
        predictions=("eps",),
        source="demo/text_to_image_sdxl.py of github.com/tianweiy/DMD2: timesteps 999, 749, 499, 249 (which are not "
        "LCM's own), fresh noise between them, no guidance",
    ),
    OneStepPreset(
        "SDXL-Turbo, SD-Turbo",
        start=TOP,
        trained_steps=(1, 2, 3, 4),
        spacing="turbo",
        kind="euler ancestral",
        families=("sdxl", "sd2"),
        predictions=("eps",),
        source="scripts/demo/turbo.py of github.com/Stability-AI/generative-models: EulerAncestralSampler, eta 1, "
        "the levels 0, 100, 200, 300 from the noisy end, start scaled by √(1 + σ²), no guidance; as the host's "
        "SDTurboScheduler",
    ),
    OneStepPreset(
        "SDXL-Lightning",
        start=TOP,
        trained_steps=(1, 2, 4, 8),
        kind="euler",
        families=("sdxl",),
        predictions=("eps",),
        one_step_prediction="x0",
        source="model card huggingface.co/ByteDance/SDXL-Lightning: Euler, trailing timesteps, guidance_scale 0 (cfg "
        "1), a file per number of steps; the 1-step file predicts the sample itself",
    ),
    OneStepPreset(
        "LCM, LCM-LoRA",
        start=TOP,
        trained_steps=tuple(range(1, MOST_STEPS + 1)),
        spacing="lcm",
        families=("sd15", "sdxl"),
        predictions=("eps", "lcm"),
        source="Luo et al. 2023 (arXiv 2310.04378), algorithm 3, and diffusers' LCMScheduler: 50 trained timesteps, "
        "fresh noise between steps; model cards of latent-consistency: 1 to 8 steps, guidance off or up to 2",
    ),
    DEMO,
)


@dataclass(frozen=True)
class TrainedLora:
    """What the file of an Attune LoRA on the model says about its training.

    Attributes:
        name: of the file.
        timestep: that its generator was trained at.
        prediction: "eps", "v", "flow"; "" where it does not say.
    """

    name: str
    timestep: int
    prediction: str = ""

    @property
    def preset(self) -> OneStepPreset:
        return OneStepPreset(f"as {self.name} was trained", start=self.timestep)


@dataclass(frozen=True)
class ModelFacts:
    """What matters of a host model here.

    Attributes:
        family: the model it is, or was fine-tuned from.
        prediction: what its sampling is set to.
        loras: one-step LoRAs of this pack that it carries, the strongest first.
        guidance_patches: patches that change guidance and may call the network again, by the host's names.
    """

    family: Family
    prediction: Prediction
    loras: tuple[TrainedLora, ...] = ()
    guidance_patches: tuple[str, ...] = ()


@dataclass(frozen=True)
class OneStep:
    """What goes over the wire: a preset and how many steps to take."""

    preset: OneStepPreset
    steps: int

    def words(self) -> str:
        """One line, for the node."""
        count = "1 step at timestep" if self.steps == 1 else f"{self.steps} steps at timesteps"
        where = ", ".join(map(str, self.preset.timesteps(self.steps)))
        between = "" if self.steps == 1 else f" ({self.preset.kind})"
        return f"{self.preset.name}: {count} {where}{between}, no guidance (cfg 1)."


def preset_names() -> list[str]:
    """What the list offers."""
    return [AUTO, *(preset.name for preset in PRESETS)]


def choose(name: str, facts: ModelFacts) -> OneStepPreset:
    """The preset of that name; for "auto" the one that the model asks for.

    Raises:
        AttuneError: there is no such preset.
    """
    if name == AUTO:
        if facts.loras:
            return facts.loras[0].preset
        return DEMO if facts.family == "demo" else UNKNOWN
    known = {preset.name: preset for preset in PRESETS}
    if name not in known:
        raise AttuneError(f"There is no preset {name!r}. Choose one of {', '.join(preset_names())}.")
    # The demo's file says more than the table: it may have been trained anew.
    if known[name] is DEMO and facts.loras:
        return facts.loras[0].preset
    return known[name]


def advice(step: OneStep, facts: ModelFacts) -> list[str]:
    """What does not fit together, one sentence each that says what to set; empty where all is well."""
    preset = step.preset
    return [
        *_about_loras(preset, facts),
        *_about_model(preset, facts),
        *_about_prediction(step, facts),
        *_about_steps(step),
        *(
            [
                f"The model carries a patch of guidance ({', '.join(facts.guidance_patches)}), which a one-step "
                "generator does not want and which may call the network again. Take the node that patches it out."
            ]
            if facts.guidance_patches
            else []
        ),
    ]


def expectations(step: OneStep, facts: ModelFacts) -> list[str]:
    """What fits, but is not all that one may hope for; a sentence or two each, empty where there is nothing to say."""
    if step.steps == 1 or not facts.loras:
        return []
    return [
        f"{facts.loras[0].name} was trained for one step. Further steps work at noise levels that it was never shown: "
        "expect harder colours and fewer details, not finer pictures. Set steps to 1, or take a model for several "
        "steps, such as LCM."
    ]


def about_guidance(cfg: float) -> str:
    """What is wrong with guidance behind One-Step Preset.

    Args:
        cfg: as it is set; 1: the guider computes guidance all the same.
    """
    if cfg == 0:
        return "Set cfg to 1 in the sampler, not 0: in ComfyUI 1 is without guidance, and 0 draws the negative prompt."
    remedy = "Take BasicGuider" if cfg == 1 else f"Set cfg to 1 in the sampler, not {cfg:g}"
    return f"{remedy}: a one-step generator has learned its guidance. More takes twice the time and burns colours."


def _about_loras(preset: OneStepPreset, facts: ModelFacts) -> list[str]:
    if len({lora.timestep for lora in facts.loras}) > 1:
        trained = ", ".join(f"{lora.name} at {lora.timestep}" for lora in facts.loras)
        return [f"The model carries one-step LoRAs that were trained at different timesteps ({trained}). Keep one."]
    if facts.loras and facts.loras[0].timestep != preset.start:
        lora = facts.loras[0]
        return [
            f"{lora.name} was trained at timestep {lora.timestep}, but the preset starts at {preset.start}. Set preset "
            f"to {AUTO}."
        ]
    if preset is DEMO and facts.family == "demo":
        return [
            "The demo model carries no one-step LoRA, so one step is a blur. Put LoraLoaderModelOnly with "
            "attune_demo_one_step.safetensors before this node."
        ]
    if preset is UNKNOWN:
        return [
            "Nothing on this model says how its generator was trained, so it starts at the highest noise level. Choose "
            "its preset in One-Step Preset, or apply a one-step LoRA that was trained here."
        ]
    return []


def _about_model(preset: OneStepPreset, facts: ModelFacts) -> list[str]:
    if not preset.families or facts.family in preset.families:
        return []
    wanted = " or ".join(FAMILY_NAMES[family] for family in preset.families)
    return [
        f"{preset.name} is made for {wanted}; this is {FAMILY_NAMES[facts.family]}. Load that model, or choose another "
        "preset."
    ]


def _about_prediction(step: OneStep, facts: ModelFacts) -> list[str]:
    preset = step.preset
    wanted: Sequence[str] = preset.predictions
    if step.steps == 1 and preset.one_step_prediction:
        wanted = (preset.one_step_prediction,)
    if facts.loras and facts.loras[0].prediction and facts.loras[0].preset == preset:
        wanted = (facts.loras[0].prediction,)
    if not wanted or facts.prediction in wanted:
        return []
    if facts.prediction == "flow" or wanted[0] == "flow":
        return [
            f"{preset.name} wants a model that predicts {wanted[0]}; this one predicts {facts.prediction}. Load such a "
            "model, or choose another preset."
        ]
    return [
        f"{preset.name} with {step.steps} step{'s' if step.steps > 1 else ''} wants sampling "
        f"'{SAMPLING_NAMES[wanted[0]]}', but this model is set to '{SAMPLING_NAMES[facts.prediction]}'. Set it by "
        "ModelSamplingDiscrete, before this node."
    ]


def _about_steps(step: OneStep) -> list[str]:
    trained = step.preset.trained_steps
    if not trained or step.steps in trained:
        return []
    *first, last = map(str, trained)
    return [
        f"{step.preset.name} was trained for {', '.join(first) + ' or ' if first else ''}{last} "
        f"step{'s' if trained != (1,) else ''}, not {step.steps}. Set steps to that."
    ]
