"""The plans of multi-round learning: what a refinement session's round asks for, by PPO, by ReFL, or by what is kept.

A plan knows the round, and holds the LoRA that Train LoRA begins with: by rewards, that of the session's last round;
what is kept is learned anew every time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...training.interfaces import AttuneError, LatentDecoder, Objective, Reward
from ...training.objectives.multi_round import RoundConfig, check_learner
from ..round_lesson import GivesLessons, RoundLesson
from .plan_kept import KeptPlan, kept_texts
from .plan_refl import ReFLPlan
from .plan_rewards import DDPOPlan, reward_plan
from .plans import OnPhase, PreviewSettings, TrainingDenoiser

# Before the names of the methods, as files and reports say them.
METHOD = "multi-round-"


@dataclass(frozen=True)
class RoundPlan:
    """What every learner's plan has besides its own.

    Attributes:
        lesson: the round. start: the session's LoRA to go on from, by its keys in its file; None = a fresh one.
        start_name: of its file.
        made_of: identity of the VAE and the text encoder, whose run no other may pass for.
    """

    lesson: RoundLesson = field(default_factory=lambda: RoundLesson("", "", 1, "", "", ""))
    start: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)
    start_name: str = ""
    made_of: str = ""

    @property
    def rest(self) -> str:
        """Why nothing is to be learned now, in words; "" where there is something."""
        lesson, own = self.lesson, self.start_name
        if lesson.again:
            kept = f"with the LoRA it had ({own})" if own else "as it was, without a LoRA of its session"
            return f"Round {lesson.number} is made again {kept}. Nothing is trained."
        if not lesson.after:
            return (
                "Round 1: nobody has said anything yet, so nothing is trained, and the model goes through as it is. "
                "From round 2 on it learns."
            )
        return ""

    @property
    def words(self) -> str:
        """What is learned, in a sentence."""
        lesson = self.lesson
        begins = f"goes on from the LoRA of round {lesson.version_round} ({self.start_name})" if self.start else (
            "begins with a fresh LoRA"
        )  # fmt: skip
        return f"Round {lesson.number} of {lesson.name!r} {begins}."

    def data_hash(self) -> str:
        lesson, held_out = self.lesson, getattr(self, "held_out", None)
        parts = [
            super().data_hash(), lesson.session, lesson.after, lesson.version, self.made_of,
            held_out.reward_id if held_out is not None else "",
        ]  # fmt: skip
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        """With the round's place in its session, by which the session finds its LoRA again."""
        lesson = self.lesson
        return super().settings() | {"session": lesson.session, "round": lesson.number, "after": lesson.after}

    def build(
        self,
        denoiser: TrainingDenoiser,
        decoder: LatentDecoder,
        loaded: Sequence[torch.Tensor],
        shape: Sequence[int],
        on_phase: OnPhase,
    ) -> Objective:
        objective = super().build(denoiser, decoder, loaded, shape, on_phase)
        objective.about = {"words": self.words, "session": self.lesson.session, "round": self.lesson.number}
        return objective


@dataclass(frozen=True)
class PPORoundPlan(RoundPlan, DDPOPlan):
    """By policy gradients."""

    method = f"{METHOD}ppo"
    title = "Multi-Round (PPO)"


@dataclass(frozen=True)
class ReFLRoundPlan(RoundPlan, ReFLPlan):
    """By the reward's gradient."""

    method = f"{METHOD}refl"
    title = "Multi-Round (ReFL)"


@dataclass(frozen=True)
class KeptRoundPlan(RoundPlan, KeptPlan):
    """By what is kept."""

    method = f"{METHOD}kept"
    title = "Multi-Round (kept)"

    @property
    def rest(self) -> str:
        if super().rest or self.rounds:
            return super().rest
        return (
            f"Round {self.lesson.number}: nothing is to be kept, so nothing is trained, and the model goes through as "
            'it is. Like a picture, leave others, and say what to keep of it: "keep the background", "keep everything '
            'else". "The background may change" lets go of it.'
        )

    @property
    def words(self) -> str:
        lesson, count = self.lesson, len(self.rounds)
        rounds = "one round" if count == 1 else f"{count} rounds"
        return f"Round {lesson.number} of {lesson.name!r} learns what you want to keep of {rounds}."


KINDS = {"ppo": PPORoundPlan, "refl": ReFLRoundPlan, "kept": KeptRoundPlan}


def lesson_of(session: GivesLessons | Any) -> RoundLesson:
    """
    Raises:
        AttuneError: something else than a session is connected.
    """
    if not callable(getattr(session, "lesson", None)):
        raise AttuneError(
            "This is no refinement session. Connect the session of Dynamic Weights, or of the last node before it."
        )
    return session.lesson()


def multi_round_plan(
    session: GivesLessons,
    clip: Any,
    vae: Any,
    latent: Mapping[str, Any],
    reward: Reward | None,
    held_out: Reward | None,
    *,
    config: RoundConfig,
) -> RoundPlan:
    """A session's round as a plan.

    Args:
        reward: None where the learner is kept, which needs none.

    Raises:
        TrainingError: the learner is refl and the reward has no gradient.
        AttuneError: there is no reward and the learner needs one; the LoRA of the last round is gone; or as
            `reward_plan`.
    """
    from ..host.folders import lora_folder
    from ..host.hashing import vae_hash

    lesson = lesson_of(session)
    if config.learner == "kept":
        plan = kept_plan(session, lesson, clip, vae, config)
    elif reward is None:
        raise AttuneError(
            f"The learner {config.learner} needs a reward. Connect the reward output of Dynamic Weights, or set "
            "learner to kept, which learns the pictures of which you keep something and needs none."
        )
    else:
        check_learner(reward, config.learner)
        plan = reward_plan(
            KINDS[config.learner], clip, vae, latent, reward, held_out, prompts=" ".join(lesson.prompt.splitlines()),
            negative=lesson.negative, config=config.method(),
        )  # fmt: skip
    goes_on = lesson.again or config.learner != "kept"
    start, name = session_lora(lesson, lora_folder()) if goes_on else (None, "")
    made_of = f"{plan.text_encoder} {vae_hash(vae)}"
    return replace(plan, lesson=lesson, start=start, start_name=name, made_of=made_of)


def kept_plan(session: GivesLessons, lesson: RoundLesson, clip: Any, vae: Any, config: RoundConfig) -> RoundPlan:
    """All that is kept so far as a plan; nothing is read where the round is made again as it was."""
    from ..host.hashing import text_encoder_hash

    rounds = [] if lesson.again else session.kept()
    shown, negative, *prompts = kept_texts(clip, lesson.prompt, lesson.negative, rounds)
    return KeptRoundPlan(
        rounds=list(zip(prompts, rounds, strict=True)), shown=shown, negative=negative, vae=vae,
        text_encoder=text_encoder_hash(clip), config=config.method(),
        preview=PreviewSettings(steps=config.steps, guidance=config.guidance),
    )  # fmt: skip


def session_lora(lesson: RoundLesson, folder: Any) -> tuple[Mapping[str, torch.Tensor] | None, str]:
    """The LoRA that the round begins with, and its file's name; None where there is none.

    Args:
        folder: of this pack's LoRAs.

    Raises:
        AttuneError: its file is gone.
    """
    from ..host.applied_loras import stored_lora, with_identity

    if not lesson.version:
        return None, ""
    found = stored_lora(with_identity(lesson.version), folder)
    if found is None:
        again = "Round {0} cannot be made again as it was" if lesson.again else "The LoRA cannot go on from round {0}"
        raise AttuneError(
            f"{again.format(lesson.version_round)}: its LoRA is no longer in {folder}. Take it out of the trash in the "
            "tab LoRA Catalogue, put the file back, or undo to a round before it in Commit Round."
        )
    return found.tensors, found.name
