"""Multi-round: what one round of a refinement teaches, in a few updates of a small LoRA.

    ppo     DDPO's clipped policy gradient on R_total(t), see `ddpo`
    refl    the gradient of R_total(t), from a step drawn in the window [T1, T2], see `refl`
    kept    Diffusion-DPO on the pictures of which something is to be kept, see `kept_pictures`

R_total(t) = Σ_i λ_i(t)·z(r_i) is a reward like any other here: whoever weighs the rewards of a round gives it. The only
prompt is that of the round. Round after round goes on with the same LoRA: the weights of round t − 1 are where round t
begins, with a fresh optimizer. By what is kept, every round begins anew, and needs no reward.

References:
    Multi-round visual refinement (VCA), as far as its authors' pages and figures tell: a frozen U-Net, LoRA on the four
    blocks of its up path, PPO on R_total(t). ReFL with T, T1, T2 (OMR), as in Xu et al. 2023. How many updates,
    pictures and steps a round has is not known; those here are ours.

Differences from the paper (all ours):
    - which blocks carry the LoRA is `LoraConfig.part`, for U-Nets of any depth;
    - the policy of PPO is the sampler itself, as in DDPO, without a value network: with one prompt and few pictures the
      mean of the round's own pictures is the baseline;
    - ReFL has no margin unless one is asked for. It would be in z-scores of R_total over the session so far, and where
      a session's few pictures look alike, their deviation is so small that practice pictures lie thousands of it away:
      a round would learn nothing. That a round has few updates is what holds it back. The same small deviation lets a
      reward that hardly tells the pictures apart count most: weigh those that do not matter to you with 0;
    - a round has no loss on real pictures;
    - learning what is kept is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..adapters import LoraConfig, Policy
from ..config_checks import check_numbers
from ..interfaces import Denoiser, LatentDecoder, Prompt, Reward, RunCallbacks, TrainingError
from ..trainer import TrainerConfig, TrainResult, train
from .ddpo import DDPOConfig, DDPOObjective
from .kept_pictures import KeptConfig, KeptObjective
from .practice import OnPhase
from .refl import ReFLConfig, ReFLObjective
from .transitions import StepWeights

Learner = Literal["refl", "ppo", "kept"]
# A round's LoRA and updates where nobody says otherwise: as many as a person will wait for.
ROUND_LORA = LoraConfig(rank=8, alpha=8.0, part="up path")
ROUND_TRAINER = TrainerConfig(steps=12, learning_rate=5e-4, warmup_steps=0, sample_every=0)


@dataclass(frozen=True)
class RoundConfig:
    """Knobs of a round's learning; those of one learner mean nothing to the other.

    Attributes:
        learner: "refl" follows the reward's gradient, "ppo" takes any reward.
        images_per_prompt: pictures of the round's prompt per update; "ppo" compares them, and so does a reward of
            diversity: at least 2 then. "kept": pairs per update.
        steps, guidance, chunk: of the practice pictures, as everywhere.
        stop_from, stop_to: "refl": the window [T1, T2] in steps, counted from 0.
        margin, weight: "refl", see `refl`; a margin of 0 is none.
        transitions: "ppo": steps of each picture that are learned from; 0 = all.
        updates_per_rollout: "ppo": updates from one set of pictures.
        clip_range, step_weights: "ppo", see `ddpo`.
        beta, lowest_noise: "kept", see `diffusion_dpo` and `kept_pictures`.

    Raises:
        TrainingError: a value out of range; the message quotes it.
    """

    learner: Learner = "refl"
    images_per_prompt: int = 4
    steps: int = 20
    guidance: float = 5.0
    stop_from: int = 15
    stop_to: int = 19
    margin: float = 0.0
    weight: float = 1e-3
    transitions: int = 5
    updates_per_rollout: int = 2
    clip_range: float = 1e-4
    step_weights: StepWeights = "balanced"
    chunk: int = 4
    beta: float = 5000.0
    lowest_noise: float = 0.75

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.learner not in get_args(Learner):
            raise TrainingError(f"learner must be one of {', '.join(get_args(Learner))}; not {self.learner!r}.")
        self.method()

    def method(self) -> DDPOConfig | ReFLConfig | KeptConfig:
        """The learner's own knobs."""
        if self.learner == "kept":
            return KeptConfig(
                batch=self.images_per_prompt, beta=self.beta, lowest_noise=self.lowest_noise, chunk=self.chunk
            )
        common = {
            "prompts_per_update": 1,
            "images_per_prompt": self.images_per_prompt,
            "steps": self.steps,
            "guidance": self.guidance,
            "chunk": self.chunk,
        }
        if self.learner == "refl":
            margin = self.margin if self.margin != 0 else None
            return ReFLConfig(
                **common, stop_from=self.stop_from, stop_to=self.stop_to, margin=margin, weight=self.weight
            )
        return DDPOConfig(
            **common,
            transitions=min(self.transitions, self.steps),
            updates_per_rollout=self.updates_per_rollout,
            clip_range=self.clip_range,
            step_weights=self.step_weights,
        )


def round_objective(
    prompt: Prompt,
    reward: Reward,
    decoder: LatentDecoder,
    config: RoundConfig,
    *,
    latent_shape: Sequence[int],
    held_out: Reward | None = None,
    on_phase: OnPhase | None = None,
) -> DDPOObjective | ReFLObjective:
    """What a round learns; arguments as of the two objectives.

    Raises:
        TrainingError: the learner is refl and the reward has no gradient, or as those; or it is kept, which has an
            objective of its own, `kept_pictures.KeptObjective`.
    """
    check_learner(reward, config.learner)
    own = config.method()
    if isinstance(own, KeptConfig):
        raise TrainingError("The learner kept learns from rounds, and not from a reward.")
    kind = ReFLObjective if isinstance(own, ReFLConfig) else DDPOObjective
    return kind([prompt], reward, decoder, own, latent_shape=latent_shape, held_out=held_out, on_phase=on_phase)


def check_learner(reward: Reward, learner: Learner) -> None:
    """
    Raises:
        TrainingError: the learner needs a gradient that the reward does not have.
    """
    if learner == "refl" and not reward.differentiable:
        raise TrainingError(
            f"{reward.name} gives scores without gradients, and refl learns from nothing else. Set learner to ppo, "
            "which takes any reward, or weigh differentiable rewards only (most image statistics and CLIP-like "
            "networks are)."
        )


def learn_round(
    denoiser: Denoiser,
    objective: DDPOObjective | ReFLObjective | KeptObjective,
    *,
    lora: LoraConfig = ROUND_LORA,
    trainer: TrainerConfig = ROUND_TRAINER,
    start: Mapping[str, torch.Tensor] | None = None,
    callbacks: RunCallbacks | None = None,
) -> TrainResult:
    """A round's few updates, for scripts: nothing is written, and the network is left as it was.

    Args:
        start: `TrainResult.tensors` of the round before; None = a fresh LoRA.

    Returns:
        the round's LoRA in `tensors`, for `Policy.load_tensors`.

    Raises:
        TrainingError: `start` is of another shape, or training broke off.
    """
    with Policy(denoiser, lora) as policy:
        if start is not None:
            policy.load_tensors(start)
        return train(policy, objective, trainer, callbacks=callbacks, begun=start is not None)
