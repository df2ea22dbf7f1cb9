"""Round Schedule and Round Sampler: what a round samples with, and its pictures."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch
from comfy_api.latest import io

from ..host.applied_loras import carried, version_on
from ..host.folders import lora_folder
from ..host.round_sampling import Levels, levels_of, sample_round
from ..host.sampling import empty_latent, sampler_names, seeded_noise
from ..host.schema import AttuneNode
from .checks import MOST_PICTURES, MOST_STEPS, RefinementError
from .chosen import chosen_latents
from .draft import Draft, two_tests
from .dynamic_weights import chance_of_new_noise
from .nodes_common import CATEGORY, draft_of, session_input, session_output
from .nodes_routes import sessions
from .noise_levels import sigmas
from .plain_records import canonical
from .records import Schedule
from .round_lora import lora_record
from .schedules import SEEDS, TYPES, RoundScheduleConfig, round_schedule, schedule_text, settings_of_arm, why_raised

DEFAULTS = RoundScheduleConfig()
NO_TEST = "off"
TESTED = (NO_TEST, *TYPES)


class AttuneRoundSchedule(AttuneNode):
    """How bold each round is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneRoundSchedule",
            display_name="Round Schedule",
            category=CATEGORY,
            description="Decides what the round samples with: early rounds start from pure noise and vary, later ones "
            "stay close to the picture you chose.",
            search_aliases=["denoise", "strength", "sigmas", "karras", "seed policy", "a/b test", "rounds"],
            inputs=[
                session_input(cls),
                cls.input(
                    io.Int, "pictures", default=4, min=1, max=MOST_PICTURES,
                    tooltip="How many pictures a round makes for you to choose from. Raising it takes as much longer.",
                ),
                cls.input(
                    io.Int, "steps", default=DEFAULTS.steps, min=1, max=MOST_STEPS,
                    tooltip="Sampler steps of a round. Raising it draws finer and takes longer.",
                ),
                cls.input(
                    io.Float, "guidance", default=DEFAULTS.guidance, min=0.0, max=100.0, step=0.1,
                    tooltip="How closely pictures follow the prompt (cfg). Raising it follows more closely and varies "
                    "less. 1 = off, half the time.",
                ),
                cls.input(
                    io.Combo, "sampler", options=sampler_names()[0], default=DEFAULTS.sampler,
                    tooltip="The host's sampler.",
                ),
                cls.input(
                    io.Combo, "type", options=list(TYPES), default=DEFAULTS.type,
                    tooltip="Spacing of the noise levels. in turn: another one every round (linear, cosine, karras), "
                    "so that rounds differ in more than their seed.",
                ),
                cls.input(
                    io.Float, "strength", default=DEFAULTS.strength, min=0.05, max=1.0, step=0.05,
                    tooltip="How much noise the second round would put on the picture you chose, before decay. 1 = "
                    "all: a new picture. Rounds in which nothing was chosen always begin from pure noise.",
                ),
                cls.input(
                    io.Float, "decay", default=DEFAULTS.decay, min=0.05, max=1.0, step=0.05,
                    tooltip="What is left of the strength from round to round. Lowering it settles sooner. 1 = the "
                    "same in every round.",
                ),
                cls.input(
                    io.Float, "least_strength", default=DEFAULTS.least_strength, min=0.05, max=1.0, step=0.05,
                    tooltip="Below this the strength does not fall. Raising it lets late rounds change more.",
                ),
                cls.input(
                    io.Combo, "seeds", options=list(SEEDS), default=DEFAULTS.seeds,
                    tooltip="New noise or the last round's. by the weight of diversity: new ones early, old later, as "
                    "the published rule lets that weight fall (86 % in round 1, 64 % in round 3), or as Dynamic "
                    "Weights' knobs do where that node stands before this one. Other pictures always take new noise.",
                ),
                cls.input(
                    io.Combo, "test_type", options=list(TESTED), default=NO_TEST,
                    tooltip="An A/B test over your sessions: half of them take this type of schedule in place of the "
                    "one above. Session Report says which arm is accepted more often. off = no test.",
                ),
                cls.input(
                    io.Float, "words_strength", default=DEFAULTS.words_strength, min=0.0, max=1.0, step=0.05,
                    optional=True,
                    tooltip="At least this strength where your comment asked for something else (another thing, style, "
                    "background), so that the picture can follow. Lowering it stays closer to the picture you chose "
                    "and follows less. 0 = off. \"more\" and \"less\" keep to the strength above.",
                ),
                cls.input(
                    io.Int, "more_steps", default=DEFAULTS.more_steps, min=-100, max=100, optional=True,
                    tooltip="Every round takes as many steps more than the one before. Raising it makes quick first "
                    "rounds and fine late ones: 8 steps and 4 more are 8, 12, 16. 0 = the same in every round.",
                ),
                cls.input(
                    io.String, "test_settings", default="", optional=True,
                    tooltip="An A/B test of any settings of this node: what half of your sessions take instead, such "
                    "as: steps 12, strength 0.6. Empty = no test, or that of test_type alone.",
                ),
            ],
            outputs=[
                session_output(cls),
                cls.output(io.Float, id="round_strength", display_name="strength",
                           tooltip="The strength of this round, the host's denoise."),
                cls.output(io.String, id="report", display_name="report", tooltip="The schedule in words."),
            ],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(
        cls, session: Any, pictures: int, steps: int, guidance: float, sampler: str, type: str, strength: float,
        decay: float, least_strength: float, seeds: str, test_type: str,
        words_strength: float = DEFAULTS.words_strength, more_steps: int = DEFAULTS.more_steps, test_settings: str = "",
    ) -> io.NodeOutput:  # fmt: skip
        draft = draft_of(session)
        config = RoundScheduleConfig(
            type=type, steps=steps, strength=strength, decay=decay, least_strength=least_strength, seeds=seeds,
            sampler=sampler, guidance=guidance, words_strength=words_strength, more_steps=more_steps,
        )  # fmt: skip
        if draft.state.replay is None:
            config = tested(config, test_type, test_settings)
            if draft.test and config.test:
                raise two_tests(draft.test, config.test)
        found = round_schedule(
            config, draft.state, batch=pictures, change=draft.change,
            lambda_div=chance_of_new_noise(draft.weights, draft.state.number),
        )  # fmt: skip
        told = schedule_text(found, draft.state.number, why=why_raised(config, draft.state, draft.change))
        return io.NodeOutput(draft.with_(schedule=draft.marked(found)), found.strength, told, ui={"text": [told]})


def tested(config: RoundScheduleConfig, test_type: str, settings: str) -> RoundScheduleConfig:
    """The knobs with what their arm B has instead, and the test's name, which says that.

    Raises:
        RefinementError: the settings cannot be read, are those of arm A, or name another type than `test_type`.
    """
    typed = () if test_type == NO_TEST else (("type", test_type),)
    written = settings_of_arm(settings)
    if typed and "type" in dict(written):
        raise RefinementError(
            "The type of the test is set twice: set test_type to off, or leave it out of the settings."
        )
    arm = (*typed, *sorted(written))
    if written and all(getattr(config, knob) == value for knob, value in arm):
        raise RefinementError("The settings of the test are those that the node has. Write what arm B takes instead.")
    sampler = dict(written).get("sampler")
    if sampler is not None and sampler not in sampler_names()[0]:
        raise RefinementError(f"There is no sampler {sampler!r}; the names are those of the widget sampler.")
    # What arm A has belongs to the test: with another value it is another one.
    names = [f"{knob} {value}" for knob, value in typed]
    names += [f"{knob} {getattr(config, knob)} → {value}" for knob, value in sorted(written)]
    return replace(config, arm_b=arm, test=", ".join(names))


class AttuneRoundSampler(AttuneNode):
    """The pictures of a round."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneRoundSampler",
            display_name="Round Sampler",
            category=CATEGORY,
            description="Samples a round's pictures with the host's samplers: from pure noise, or from the picture you "
            "chose in the last round.",
            search_aliases=["ksampler", "img2img", "image to image", "sampler", "denoise"],
            inputs=[
                session_input(cls),
                cls.input(io.Model, "model", tooltip="The diffusion model, with or without LoRAs."),
                cls.input(io.Conditioning, "positive", tooltip="From Refine Conditioning."),
                cls.input(io.Conditioning, "negative", tooltip="From Refine Conditioning."),
                cls.input(io.Latent, "latent", tooltip="An Empty Latent Image: the size of the pictures. Round "
                                          "Schedule says how many there are."),
            ],
            outputs=[
                session_output(cls),
                cls.output(io.Latent, id="latents", display_name="latents", tooltip="The pictures' latents: for VAE "
                           "Decode and Commit Round."),
                cls.output(io.Int, id="seeds", display_name="seeds", is_output_list=True,
                           tooltip="The seed of each picture."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, session: Any, model: Any, positive: Any, negative: Any, latent: dict) -> io.NodeOutput:
        draft = draft_of(session)
        schedule = draft.decided()
        if draft.state.replay is None:
            schedule = replace(schedule, own_noise=True)
        empty = empty_latent(model, latent)
        noise = seeded_noise(empty, schedule.seeds)
        start = starting_latents(draft, noise)
        levels = levels_of(model)
        samples = sample_round(
            model, noise, positive, negative,
            sigmas=_sigmas(schedule, levels), start=start, guidance=schedule.guidance, sampler=schedule.sampler,
            seed=schedule.seeds[0], own_seeds=schedule.seeds if schedule.own_noise else (),
        )  # fmt: skip
        loras = carried(model)
        digest = hashlib.sha256(canonical(loras).encode()).hexdigest() if loras else ""
        lora = lora_record(digest, version_on(model, lora_folder(), draft.state.key))
        return io.NodeOutput(draft.with_(schedule=schedule, lora=lora), {"samples": samples}, list(schedule.seeds))


def _sigmas(schedule: Schedule, levels: Levels) -> torch.Tensor:
    return sigmas(
        schedule.type, schedule.steps, levels.least, levels.most, strength=schedule.strength, flow=levels.flow,
        shift=levels.shift,
    )  # fmt: skip


def starting_latents(draft: Draft, noise: torch.Tensor) -> torch.Tensor | None:
    """The chosen picture's latent once per picture, of the noise's shape; None = the round begins from pure noise.

    Raises:
        RefinementError: the chosen picture has another size.
    """
    last = draft.state.last
    if last is None or draft.decided().strength == 1:
        return None
    found = chosen_latents(sessions(), draft.state, last)
    if found is None:
        return None
    if found.shape[1:] != noise.shape[1:]:
        raise RefinementError(
            f"The picture chosen in round {last.number} has latents of {list(found.shape[1:])}, this round of "
            f"{list(noise.shape[1:])}. Set the size back, connect the model of that round, or go back to the beginning."
        )
    return found.expand_as(noise).clone()


NODES: list[type[io.ComfyNode]] = [AttuneRoundSchedule, AttuneRoundSampler]
