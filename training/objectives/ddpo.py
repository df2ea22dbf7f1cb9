"""DDPO: policy gradients on the denoising trajectory, for any black-box reward.

The sampler is the policy: state (x_t, t, c), action x_s, log-probability log P_F(x_s | x_t). A trajectory earns
r(picture, prompt) at its end, and every step of it shares the advantage A.

    importance form   L = mean max(−A·ρ, −A·clip(ρ, 1 ± clip_range)),   ρ = exp(log p_new − log p_old)
    score form        L = mean −A·log p_new                              (strictly on-policy, one update)

log p_old is the log p_new of the first pass over the rollouts, where ρ is 1 exactly. What the sampler recorded would
not do: dropout, 16-bit rounding and other batch sizes move log p by more than the clip range without any learning.

A is the per-prompt z-score of the reward over a buffer, clamped; statistics of the whole batch are used until the
prompt's buffer is full enough.

References:
    Black et al. 2023, "Training Diffusion Models with Reinforcement Learning", eq. 4-6 and appendix; values of the
    released code: log-probabilities averaged over latent dimensions, clip range 1e-4, guidance 5, 50 steps, LoRA 3e-4.

Differences from the paper (all ours):
    - any eps, v or flow model through `diffusion.py`. Flow models sample from the η = 1 posterior as the others do, not
      from Flow-GRPO's SDE with noise level a·√(t/(1−t)), a = 0.7 (Liu et al. 2025): its values do not carry over;
    - transitions of a trajectory can be subsampled (unbiased), each set of rollouts drawing its own;
    - log p_old as above, where the released code takes it from sampling;
    - adapter dropout is off where rollouts are used more than once: its draws would pass for a change of the policy;
    - by default the steps are balanced: each step's loss is divided by the size of its ∂ log P_F / ∂ output
      (`step_sensitivity`), so that no step drowns the others. Every step's policy still climbs its own expected reward;
      `step_weights="plain"` is the paper's sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch

from ..config_checks import check_numbers
from ..diffusion import Convention
from ..interfaces import LatentDecoder, Prompt, Reward, TrainingError
from ..picture_memory import PictureMemory
from ..presentable import compares_pictures
from ..rollout import Trajectories, step_log_probability
from ..share import ALONE, Share
from ..widget_names import named
from .practice import OnPhase, Practice, check_copies
from .transitions import STEP_WEIGHTS, StepWeights, draw_visits, step_weights


@dataclass(frozen=True)
class DDPOConfig:
    """Knobs of DDPO. The defaults suit Stable-Diffusion-size models; the demo template sets its own.

    Attributes:
        prompts_per_update: prompts drawn for one set of rollouts.
        images_per_prompt: rollouts per prompt; the advantage compares pictures of one prompt, so at least 2.
        steps: sampler steps of a rollout.
        guidance: classifier-free guidance of the policy, in rollouts and in training alike; 1 = off.
        transitions: steps of each trajectory trained per update; 0 = all.
        updates_per_rollout: passes over each set of rollouts. A pass is an update, or one part of an update where the
            trainer accumulates gradients.
        clip_range: half width of the trust region of ρ, in the unit of `convention`.
        advantage_clamp: advantages are cut to ± this.
        buffer: rewards remembered per prompt; minimum: how many a prompt needs before its own statistics are used.
        form: "importance" or "score", see the module.
        step_weights: "balanced" or "plain", see the module.
        convention: "mean" or "sum" over latent dimensions of the log-probability.
        chunk: samples per network call; smaller needs less memory. No draw of the method depends on it.
    """

    prompts_per_update: int = 4
    images_per_prompt: int = 8
    steps: int = 50
    guidance: float = 5.0
    transitions: int = 0
    updates_per_rollout: int = 1
    clip_range: float = 1e-4
    advantage_clamp: float = 5.0
    buffer: int = 32
    minimum: int = 16
    form: Literal["importance", "score"] = "importance"
    step_weights: StepWeights = "balanced"
    convention: Convention = "mean"
    chunk: int = 16

    def __post_init__(self) -> None:
        check_numbers(self)
        for field in ("prompts_per_update", "steps", "updates_per_rollout", "minimum", "chunk"):
            if getattr(self, field) < 1:
                raise TrainingError(f"DDPO: {named(field)} must be at least 1, not {getattr(self, field)}.")
        if self.images_per_prompt < 2:
            raise TrainingError(
                f"DDPO compares pictures of one prompt: images_per_prompt must be at least 2, not "
                f"{self.images_per_prompt}."
            )
        if not 0 <= self.transitions <= self.steps:
            raise TrainingError(
                f"DDPO: {named('transitions')} must be 0 (all) … {self.steps}, the number of {named('steps')}, not "
                f"{self.transitions}."
            )
        if self.form not in ("importance", "score"):
            raise TrainingError(f"DDPO: form must be 'importance' or 'score', not {self.form!r}.")
        if self.step_weights not in STEP_WEIGHTS:
            raise TrainingError(f"DDPO: step_weights must be 'balanced' or 'plain', not {self.step_weights!r}.")
        if self.convention not in ("mean", "sum"):
            raise TrainingError(f"DDPO: convention must be 'mean' or 'sum', not {self.convention!r}.")
        if self.form == "score" and self.updates_per_rollout != 1:
            raise TrainingError(f"DDPO: the score form is on-policy; set {named('updates_per_rollout')} to 1.")
        if self.clip_range <= 0 or self.advantage_clamp <= 0:
            raise TrainingError("DDPO: clip_range and advantage_clamp must be positive.")
        if self.buffer < self.minimum:
            raise TrainingError(
                f"DDPO: a buffer of {self.buffer} can never hold the minimum of {self.minimum} rewards."
            )

    def identity(self) -> dict[str, Any]:
        """The fields that must not change on a resume: all but `chunk`, which memory decides."""
        return {name: value for name, value in asdict(self).items() if name != "chunk"}


class PolicyLoss(NamedTuple):
    """`loss` [B]; the rest detached, [B]."""

    loss: torch.Tensor
    ratio: torch.Tensor
    clipped: torch.Tensor


def policy_loss(
    log_new: torch.Tensor, log_old: torch.Tensor, advantage: torch.Tensor, *, clip_range: float
) -> PolicyLoss:
    """max(−A·ρ, −A·clip(ρ, 1 ± clip_range)) per sample (PPO's clipped surrogate, as DDPO uses it).

    Args:
        log_new: with gradients, [B]; log_old, advantage: without, [B].
    """
    ratio = (log_new - log_old.detach()).exp()
    advantage = advantage.detach()
    plain = -advantage * ratio
    limited = -advantage * ratio.clamp(1 - clip_range, 1 + clip_range)
    return PolicyLoss(torch.maximum(plain, limited), ratio.detach(), (limited > plain).detach().float())


class PromptStatistics:
    """Running reward statistics per prompt text, for advantages that compare like with like."""

    def __init__(self, *, buffer: int, minimum: int) -> None:
        self.buffer, self.minimum = buffer, minimum
        self.rewards: dict[str, deque[float]] = {}

    def advantages(self, texts: Sequence[str], rewards: torch.Tensor, *, clamp: float) -> torch.Tensor:
        """Remember the rewards, and z-score each against its prompt (or against the batch while that is young).

        Args:
            texts: prompts, B; rewards: [B], higher is better, of all processes.
        """
        for text, reward in zip(texts, rewards.tolist(), strict=True):
            self.rewards.setdefault(text, deque(maxlen=self.buffer)).append(reward)
        # In double precision: the spread of equal float32 rewards must come out as 0, not as rounding.
        exact = rewards.double()
        batch = exact.mean(), exact.std(unbiased=False)
        result = torch.zeros_like(exact)
        for index, text in enumerate(texts):
            own = torch.tensor(list(self.rewards[text]), dtype=torch.float64)
            center, spread = (own.mean(), own.std(unbiased=False)) if len(own) >= self.minimum else batch
            # Rewards that are all alike say nothing; dividing by their rounding would make a lesson of it.
            if spread > 1e-6 * max(1.0, abs(center)):
                result[index] = (exact[index] - center) / (spread + 1e-6)
        result = result.to(rewards.dtype)
        return result.clamp(-clamp, clamp)


@dataclass
class _Played:
    """Rollouts waiting to be trained on."""

    trajectories: Trajectories
    prompts: list[int]
    advantages: torch.Tensor
    updates_left: int
    visits: torch.Tensor | None = None  # (row, step) of the transitions trained on, in their order, [N, 2]
    log_old: torch.Tensor | None = None  # of the visits in the first pass, [N]; None before it


class DDPOObjective:
    """Raises a reward by policy gradients.

    Pictures that the reward's safety gate blocks are not learned from, in either direction.

    Args:
        prompts: what to practise on; all randomness of their choice comes from the run's generator.
        reward: optimised; any callable of the `Reward` protocol, gradients are not needed.
        held_out: reported, never optimised: the guard against gaming the reward.
        decoder: latents to images.
        on_phase: called with (phase, done, total) while rollouts are played; may raise to cancel.
    """

    name = "ddpo"

    def __init__(
        self,
        prompts: Sequence[Prompt],
        reward: Reward,
        decoder: LatentDecoder,
        config: DDPOConfig,
        *,
        latent_shape: Sequence[int],
        held_out: Reward | None = None,
        on_phase: OnPhase | None = None,
    ) -> None:
        self.practice = Practice(
            prompts, reward, decoder, latent_shape=latent_shape, held_out=held_out, on_phase=on_phase
        )
        self.config = config
        self.statistics = PromptStatistics(buffer=config.buffer, minimum=config.minimum)
        self.best_metric, self.best_is_high = self.practice.best_metric, self.practice.best_is_high
        self._policy: Any = None
        self._share: Share = ALONE
        self._played: _Played | None = None
        self._figures: dict[str, float] = {}

    def prepare(self, policy: Any, share: Share = ALONE) -> None:
        """
        Raises:
            TrainingError: the reward compares pictures, and those of a prompt could be made by different processes.
        """
        practice = self.practice
        if share.count > 1 and compares_pictures(practice.reward):
            check_copies(practice.reward, practice.prompts, self.config.prompts_per_update * share.count)
        self._policy, self._share = policy, share
        practice.prepare(policy, share)

    def picture_memory(self, device: torch.device) -> PictureMemory:
        return self.practice.decoding_memory()

    def own_memory(self) -> int:
        """Bytes of the rollouts."""
        return self.practice.rollout_bytes(self.config)

    # ---- one update ----

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        config = self.config
        # Rollouts are played as the finished LoRA will be used: adapter dropout belongs to learning only.
        self._policy.training_mode(False)
        if self._played is None:
            self._played = self._play(generator)
        played = self._played
        if played.log_old is None:
            batch, steps = played.trajectories.log_forward.shape
            drawn = draw_visits(batch, steps, generator, count=config.transitions, share=self._share)
            played.visits = drawn.to(self._policy.device)
        visits = played.visits
        self._figures["kl_to_reference"] = self.practice.kl_to_reference(
            played.trajectories, guidance=config.guidance, chunk=config.chunk
        )
        self._policy.training_mode(config.updates_per_rollout == 1)
        weights = step_weights(self._policy.process, played.trajectories.sigmas, config.step_weights)
        logs, ratios, clipped, drift = [], [], [], []
        for start in range(0, len(visits), config.chunk):
            part = visits[start : start + config.chunk]
            log_new = self._log_probabilities(played, part)
            advantage = played.advantages[part[:, 0]]
            logs.append(log_new.detach())
            log_old = logs[-1] if played.log_old is None else played.log_old[start : start + config.chunk]
            if config.form == "score":
                loss, ratio, clip = -advantage * log_new, torch.ones_like(log_old), torch.zeros_like(log_old)
            else:
                loss, ratio, clip = policy_loss(log_new, log_old, advantage, clip_range=config.clip_range)
            ratios.append(ratio)
            clipped.append(clip)
            drift.append((logs[-1] - log_old).square())
            self.practice.on_phase("learn", start + len(part), len(visits))
            yield (loss * weights[part[:, 1]]).sum() / len(visits)
        if played.log_old is None:
            played.log_old = torch.cat(logs)
        played.updates_left -= 1
        if played.updates_left == 0:
            self._played = None
        self._figures |= {
            "ratio": torch.cat(ratios).mean().item(),
            "clipped": torch.cat(clipped).mean().item(),
            "log_probability_change": torch.cat(drift).mean().sqrt().item(),
        }

    def _log_probabilities(self, played: _Played, part: torch.Tensor) -> torch.Tensor:
        """log p_new [n], with gradients, of some visits [n, 2]."""
        paths, (rows, steps) = played.trajectories, part.unbind(1)
        x, x_next = paths.states[rows, steps], paths.states[rows, steps + 1]
        sigma, sigma_next = paths.sigmas[steps], paths.sigmas[steps + 1]
        cond = [paths.cond[row] for row in rows.tolist()]
        x0 = self._policy(x, sigma, cond, guidance=self.config.guidance)
        return step_log_probability(
            self._policy.process, x, x0, x_next, sigma, sigma_next, convention=self.config.convention
        )

    # ---- rollouts ----

    def _play(self, generator: torch.Generator) -> _Played:
        config, practice = self.config, self.practice
        indices = practice.draw(config.prompts_per_update, config.images_per_prompt, generator)
        paths = practice.play(
            indices,
            generator,
            steps=config.steps,
            guidance=config.guidance,
            convention=config.convention,
            chunk=config.chunk,
        )
        images = practice.decode(paths.pictures)
        judged = practice.score(images, indices, practice.everyone(indices))
        self._figures = practice.figures(images, indices, judged)
        advantages = self._advantages(indices, practice.sign * judged.rewards, judged.blocked)
        return _Played(paths, indices, advantages.to(paths.states.device), config.updates_per_rollout)

    def _advantages(self, indices: Sequence[int], rewards: torch.Tensor, blocked: torch.Tensor) -> torch.Tensor:
        """Advantages of this process's rollouts [B], compared with those of all; 0 for blocked ones."""
        share = self._share
        everyone = share.gather(torch.tensor(indices)).tolist()
        kept = ~share.gather(blocked.float()).bool()
        texts = [text for text, keep in zip(self.practice.texts(everyone), kept.tolist(), strict=True) if keep]
        rewards = share.gather(rewards)
        found = torch.zeros_like(rewards)
        if texts:
            found[kept] = self.statistics.advantages(texts, rewards[kept], clamp=self.config.advantage_clamp)
        return share.take(found)

    def evaluate(self) -> dict[str, float]:
        config = self.config
        return self.practice.evaluate(steps=config.steps, guidance=config.guidance, chunk=config.chunk)

    # ---- records ----

    def metrics(self) -> dict[str, float]:
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "rewards": {text: list(values) for text, values in self.statistics.rewards.items()},
            "practice": self.practice.state_dict(),
            "figures": dict(self._figures),
            "played": None,
        }
        if self._played is not None:
            paths = self._played.trajectories
            state["played"] = {
                "states": paths.states,
                "sigmas": paths.sigmas,
                "log_forward": paths.log_forward,
                "log_backward": paths.log_backward,
                "prompts": list(self._played.prompts),
                "advantages": self._played.advantages,
                "updates_left": self._played.updates_left,
                "visits": self._played.visits,
                "log_old": self._played.log_old,
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.statistics.rewards = {
            text: deque(values, maxlen=self.config.buffer) for text, values in state["rewards"].items()
        }
        self.practice.load_state_dict(state["practice"])
        self._figures = dict(state["figures"])
        played = state["played"]
        if played is None:
            self._played = None
            return
        prompts = [int(i) for i in played["prompts"]]
        cond = [self.practice.prompts[i].positive for i in prompts]
        names = ("states", "sigmas", "log_forward", "log_backward", "advantages", "visits", "log_old")
        *parts, advantages, visits, log_old = (played[name].to(self._policy.device) for name in names)
        left = int(played["updates_left"])
        self._played = _Played(Trajectories(*parts, cond), prompts, advantages, left, visits, log_old)

    def sample_requests(self) -> Sequence[Prompt]:
        return self.practice.prompts[:4]
