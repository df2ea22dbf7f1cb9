"""One-Step Preset and One-Step Sampler: pictures in one call of the network."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host import one_step as host
from ..host.one_step_loras import trained_loras
from ..host.schema import AttuneNode
from .presets import AUTO, MOST_STEPS, ModelFacts, OneStep, TrainedLora, choose, preset_names
from .shown import GuidanceWords, told

CATEGORY = "Attune/sampling"
OneStepWire = io.Custom("ATTUNE_ONE_STEP")
SEED_LIMIT = 0xFFFFFFFFFFFFFFFF  # as in KSampler, so that its seeds can be used here
MOST_PICTURES = 4096


def facts_of(model: Any) -> ModelFacts:
    """What matters of a host MODEL."""
    loras = tuple(TrainedLora(*found) for found in trained_loras(model))
    return ModelFacts(host.family_of(model), host.prediction_of(model), loras, host.guidance_patches(model))


class OneStepPreset(AttuneNode):
    """How a generator is sampled."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneOneStepPreset",
            display_name="One-Step Preset",
            category=CATEGORY,
            description="The right timesteps and the right kind of steps for a one-step or few-step model, for "
            "One-Step Sampler or for ComfyUI's own custom samplers. Says what does not fit together.",
            search_aliases=["dmd2", "turbo", "lightning", "lcm", "distilled", "timestep 399", "few step", "di*"],
            inputs=[
                cls.input(io.Model, "model", tooltip="The one-step model, or a model with its LoRA applied."),
                cls.input(
                    io.Combo,
                    "preset",
                    options=preset_names(),
                    default=AUTO,
                    tooltip="Which kind of model it is. auto: as the one-step LoRA on the model was trained, if it was "
                    "trained with this pack; otherwise the highest noise level. All of them run without guidance.",
                ),
                cls.input(
                    io.Int,
                    "steps",
                    default=1,
                    min=1,
                    max=MOST_STEPS,
                    tooltip="Calls of the network per picture. Raising it takes longer, and is better only where the "
                    "model was trained for it: then the node says nothing. 1 = one step.",
                ),
            ],
            outputs=[
                cls.output(OneStepWire, id="one_step", display_name="preset", tooltip="For One-Step Sampler."),
                cls.output(io.Sigmas, id="sigmas", display_name="sigmas",
                           tooltip="The noise levels, for SamplerCustom and SamplerCustomAdvanced. Set cfg to 1."),
                cls.output(io.Sampler, id="sampler", display_name="sampler",
                           tooltip="The sampler that belongs to the sigmas. With another one the first noise has the "
                           "wrong strength wherever the timestep is not the highest. If cfg there is not 1, this node "
                           "says so after the run."),
            ],
            hidden=[io.Hidden.unique_id],
        )  # fmt: skip

    @classmethod
    def execute(cls, model: Any, preset: str, steps: int) -> io.NodeOutput:
        facts = facts_of(model)
        step = OneStep(choose(preset, facts), steps)
        sigmas = step.preset.sigmas(host.noise_levels(model), steps)
        text = told(step, facts)
        words = GuidanceWords(getattr(cls.hidden, "unique_id", None), text)
        sampler = host.OneStepSampler(step.preset.kind, on_guidance=words)
        return io.NodeOutput(step, sigmas, sampler, ui={"text": [text]})


class OneStepSampler(AttuneNode):
    """Pictures in one call."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneOneStepSampler",
            display_name="One-Step Sampler",
            category=CATEGORY,
            description="Draws with a one-step model: one call of the network per picture, no negative prompt, no "
            "guidance.",
            search_aliases=["fast", "instant", "live", "turbo", "distilled", "ksampler", "lcm", "dmd2"],
            inputs=[
                cls.input(io.Model, "model", tooltip="The one-step model, or a model with its LoRA applied. Other "
                          "LoRAs, ControlNet and Apply Preference work as with any sampler."),
                cls.input(io.Conditioning, "positive", tooltip="What the pictures show. There is no negative prompt: "
                          "a one-step model has learned its guidance."),
                cls.input(io.Latent, "latent", tooltip="Size and number of the pictures, as from Empty Latent Image. A "
                          "picture or a mask in it is not used."),
                cls.input(io.Int, "seed", default=0, min=0, max=SEED_LIMIT, control_after_generate=True,
                          tooltip="Decides the noise, as in KSampler: equal seeds start from equal noise, and a "
                          "picture of a batch keeps its noise when it is drawn again alone."),
                cls.input(
                    io.Int,
                    "steps",
                    default=1,
                    min=1,
                    max=MOST_STEPS,
                    tooltip="Calls of the network per picture. Above 1 every further step adds fresh noise and draws "
                    "again. 1 = one step. With a preset connected its steps count, and this one does not.",
                ),
                cls.input(
                    io.Int,
                    "batch_size",
                    default=0,
                    min=0,
                    max=MOST_PICTURES,
                    tooltip="How many pictures, all in the same call. Raising it takes more memory. 0 = as many as the "
                    "latent has.",
                ),
                cls.input(OneStepWire, "preset", optional=True,
                          tooltip="From One-Step Preset, for public models. Without it the timestep is read from the "
                          "one-step LoRA on the model."),
            ],
            outputs=[
                cls.output(io.Latent, id="drawn", display_name="latent", tooltip="The pictures, for VAE Decode."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, positive: Any, latent: dict, seed: int, steps: int, batch_size: int,
        preset: OneStep | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        drawn, text = draw(model, positive, latent, preset, seed=seed, steps=steps, count=batch_size)
        return io.NodeOutput(drawn, ui={"text": [text]})


def draw(
    model: Any, positive: Any, latent: dict, step: OneStep | None, *, seed: int, steps: int, count: int
) -> tuple[dict, str]:
    """The pictures as the host's LATENT, and what the node says.

    Args:
        step: None: as the model asks for, with `steps`.
        count: 0: as many as the latent has.
    """
    facts = facts_of(model)
    step = step or OneStep(choose(AUTO, facts), steps)
    sigmas = step.preset.sigmas(host.noise_levels(model), step.steps)
    drawn = host.draw(model, positive, latent, sigmas, kind=step.preset.kind, seed=seed, count=count)
    more = []
    if "noise_mask" in latent or bool(latent["samples"].any()):
        more.append(
            "The latent holds a picture or a mask, of which only the size is used. To change a picture connect sigmas "
            "and sampler of One-Step Preset to SamplerCustom."
        )
    return drawn, told(step, facts, more)


NODES: list[type[io.ComfyNode]] = [OneStepPreset, OneStepSampler]
