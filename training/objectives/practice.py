"""Practice: what the methods share that learn from pictures they make themselves (DDPO, DAG, ReFL).

Prompts are drawn, rollouts played, pictures scored. What a safety gate blocks is neither scored nor learned from. The
figures that tell how such a run fares are the same for all of them: reward, held-out reward, diversity, divergence from
the reference, and what they cost in rollouts and reward calls.

Decoder, gates and rewards work outside the trainer's 16-bit casts, in the precision that they were loaded for: a score
is that of the picture, whatever the precision of the run, and may be kept for others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..diffusion import Convention
from ..diversity import feature_source, grouped_diversity, pixel_features
from ..interfaces import LatentDecoder, Prompt, Reward, TrainingError, checked_scores
from ..picture_memory import PictureMemory, decoding_memory, gradient_memory, waiting_memory
from ..precision import full_precision
from ..presentable import compares_pictures, is_guarded, rest_of_batch, unsafe_pictures
from ..rollout import Trajectories, play
from ..share import ALONE, Share
from .divergence import Look, divergence, looks

OnPhase = Callable[[str, int, int], None]
# Pictures that are measured by `Practice.evaluate`: two or more of a prompt, of no more prompts than that leaves.
EVALUATION_PICTURES = 16
EVALUATION_PROMPTS = EVALUATION_PICTURES // 2
EVALUATION_SEED = 1_000_003


@dataclass(frozen=True)
class Judgement:
    """What pictures are worth; of this process's rows, on the CPU.

    Attributes:
        rewards: as the reward gives them, float32 [B]; 0 where a picture is blocked.
        blocked: pictures that the safety gate of the reward or of the held-out reward holds back, bool [B].
    """

    rewards: torch.Tensor
    blocked: torch.Tensor


class Practice:
    """Prompts, rewards and a decoder, with the bookkeeping of a run.

    Args:
        prompts: what to practise on.
        reward: optimised.
        decoder: latents to images.
        latent_shape: [C, H, W] of the pictures.
        held_out: reported, never optimised.
        on_phase: called with (phase, done, total) while rollouts are played or scored; may raise to cancel.

    Attributes:
        sign: 1 for rewards, −1 for costs: what is multiplied with a score so that higher is better.
        rollouts, reward_calls: of all processes since the run began; a call is one picture scored by the optimised
            reward.

    Raises:
        TrainingError: there is no prompt, or a reward needs pictures of earlier rounds.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        reward: Reward,
        decoder: LatentDecoder,
        *,
        latent_shape: Sequence[int],
        held_out: Reward | None = None,
        on_phase: OnPhase | None = None,
    ) -> None:
        if not prompts:
            raise TrainingError("There are no prompts to practise on. Write at least one prompt, one per line.")
        for judge in (reward, held_out):
            if getattr(judge, "needs_previous", False):
                raise TrainingError(
                    f"{judge.name} compares with earlier rounds, which a training run does not have: every picture "
                    "would score the same. Choose another reward, or take it out of Combine Rewards."
                )
        self.prompts, self.reward, self.held_out, self.decoder = list(prompts), reward, held_out, decoder
        self.latent_shape = tuple(latent_shape)
        self.on_phase: OnPhase = on_phase or (lambda text, done, total: None)
        self.sign = 1.0 if reward.higher_is_better else -1.0
        self.rollouts = self.reward_calls = 0
        self.policy: Any = None
        self.share: Share = ALONE

    def prepare(self, policy: Any, share: Share) -> None:
        """The policy that plays, and this process's part."""
        self.policy, self.share = policy, share

    def full_precision(self) -> AbstractContextManager:
        """For decoders, gates and rewards; see the module and `precision.full_precision`."""
        return nullcontext() if self.policy is None else full_precision(self.policy.device)

    # ---- memory ----

    def decoding_memory(self) -> PictureMemory:
        """What decoding rollouts needs, which takes turns with learning."""
        return decoding_memory(self.decoder, self.latent_shape)

    def waiting_memory(self, device: torch.device, *, times: int) -> PictureMemory:
        """What decoding and scoring need while a network waits for its backward pass; see `waiting_memory`."""
        return waiting_memory(self.decoder, self.latent_shape, device=device, times=times)

    def rollout_bytes(self, config: Any) -> int:
        """Bytes of a method's rollouts in float32, twice: gathered step by step, then stacked."""
        count = config.prompts_per_update * config.images_per_prompt
        return 2 * 4 * count * (config.steps + 1) * torch.Size(self.latent_shape).numel()

    def gradient_memory(self, device: torch.device, *, batch: int) -> PictureMemory:
        """What decoder and reward need in a backward pass with `batch` pictures scored at a time."""
        return gradient_memory(
            self.decoder, self.reward, self.latent_shape, self.prompts[0].text, device=device, batch=batch
        )

    # ---- rollouts ----

    def draw(self, prompts: int, images_per_prompt: int, generator: torch.Generator) -> list[int]:
        """Indices of the prompts of this process's next rollouts: `prompts` different ones where there are as many.

        Returns:
            prompts·images_per_prompt of them, pictures of one prompt side by side.
        """
        count = prompts * self.share.count
        drawn = torch.randint(len(self.prompts), (count,), generator=generator)
        if len(self.prompts) >= count:
            drawn = torch.randperm(len(self.prompts), generator=generator)[:count]
        return self.share.take([int(i) for i in drawn for _ in range(images_per_prompt)])

    def noise(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Unit Gaussian latents [count, C, H, W] of this process, on the policy's device."""
        drawn = torch.randn(count * self.share.count, *self.latent_shape, generator=generator)
        return self.share.take(drawn).to(self.policy.device)

    def play(
        self,
        indices: Sequence[int],
        generator: torch.Generator,
        *,
        steps: int,
        guidance: float,
        convention: Convention,
        chunk: int,
    ) -> Trajectories:
        """One trajectory per prompt index, with the policy as it is; see `rollout.play`."""
        paths = play(
            self.policy,
            self.policy.process,
            self.noise(len(indices), generator),
            [self.prompts[i].positive for i in indices],
            steps=steps,
            guidance=guidance,
            generator=generator,
            convention=convention,
            chunk=chunk,
            on_step=lambda done, total: self.on_phase("rollout", done, total),
            share=self.share,
        )
        self.rollouts += len(indices) * self.share.count
        return paths

    # ---- pictures and scores ----

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, H, W] → images [B, h, w, 3], without gradients."""
        with self.full_precision():
            return self.decoder.decode(latents.float())

    def texts(self, indices: Sequence[int]) -> list[str]:
        """The words of the prompts."""
        return [self.prompts[i].text for i in indices]

    def everyone(self, indices: Sequence[int]) -> list[int]:
        """Of the rollouts of all processes, each of which has as many."""
        return self.share.gather(torch.tensor(indices)).tolist()

    def score(self, images: torch.Tensor, indices: Sequence[int], batch: Sequence[int]) -> Judgement:
        """Score pictures by the reward that is optimised; blocked ones are left out and not counted as calls.

        Args:
            images: [B, h, w, 3]; the rewards carry gradients if these do. indices: of their prompts, B.
            batch: indices of the prompts of all rollouts that these are a part of, as `everyone` gives them: a reward
                that tells their prompts apart scores a part as it would the whole.
        """
        blocked = self._blocked(images)
        kept = (~blocked).nonzero().flatten().tolist()
        rewards = torch.zeros(len(images), dtype=torch.float32)
        if kept:
            texts = self.texts([indices[row] for row in kept])
            with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
                rewards[kept] = self._scores(self.reward, images[kept], texts, batch).cpu()
        self.reward_calls += int(self._total(len(kept)))
        return Judgement(rewards, blocked)

    def _scores(self, judge: Reward, images: torch.Tensor, texts: Sequence[str], batch: Sequence[int]) -> torch.Tensor:
        """Float32 [B]; `batch` as in `score`."""
        with self.full_precision():
            return checked_scores(judge, images.float(), texts, rest_of_batch(judge, self.texts(batch)))

    def _blocked(self, images: torch.Tensor) -> torch.Tensor:
        with self.full_precision():
            return unsafe_pictures(images.float(), (self.reward, self.held_out)).cpu()

    def _total(self, own: float) -> float:
        return self.share.mean({"own": float(own)})["own"] * self.share.count

    @torch.no_grad()
    def figures(self, images: torch.Tensor, indices: Sequence[int], judged: Judgement) -> dict[str, float]:
        """What a set of rollouts tells: reward, its deviation, held-out reward, diversity and the counts.

        Blocked pictures count in "blocked" alone.
        """
        kept = (~judged.blocked).nonzero().flatten().tolist()
        # Copies that are gathered compare across processes as one set of rollouts would.
        batch = self.everyone(indices)
        rewards = self.share.gather(judged.rewards)[~self.share.gather(judged.blocked.float()).bool()]
        found = {
            "reward": rewards.mean().item() if len(rewards) else math.nan,
            "reward_deviation": rewards.std(unbiased=False).item() if len(rewards) else math.nan,
            "rollouts": float(self.rollouts),
            "reward_calls": float(self.reward_calls),
        }
        if is_guarded((self.reward, self.held_out)):
            found["blocked"] = self._total(int(judged.blocked.sum()))
        shown, owners = images[kept], [indices[row] for row in kept]
        if self.held_out is not None:
            scores = torch.full((1,), math.nan)
            if kept:
                scores = self._scores(self.held_out, shown, self.texts(owners), batch)
            found["held_out_reward"] = scores.mean().item()
        found["diversity"] = grouped_diversity(self.features(shown), owners) if kept else math.nan
        return {name: value for name, value in self.share.mean(found).items() if math.isfinite(value)}

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features [B, D] for diversity: of the held-out reward's encoder, else the reward's, else pixels."""
        source = feature_source(self.held_out) or feature_source(self.reward) or pixel_features
        with self.full_precision():
            return source(images.float()).float()

    # ---- divergence ----

    def looks(self, sigmas: torch.Tensor, count: int) -> list[Look]:
        """This process's part of what is measured of the newest set of rollouts, `count` of each process."""
        together = count * self.share.count
        found = looks(self.policy.process, sigmas, together, self.rollouts // together)
        first = self.share.index * count
        return [replace(look, row=look.row - first) for look in found if first <= look.row < first + count]

    def kl_to_reference(self, paths: Trajectories, *, guidance: float, chunk: int) -> float:
        """KL of the policy's trajectories from the reference's, in nats per picture, estimated; see `divergence`.

        Args:
            paths: of this process, the newest that were played; chunk: predictions per call of the network.
        """
        own = self.looks(paths.sigmas, len(paths.states))
        states = [paths.states[look.row, look.step] for look in own]
        cond = [paths.cond[look.row] for look in own]
        return self.measured(own, states, cond, paths.sigmas, guidance=guidance, chunk=chunk)

    def measured(
        self,
        own: Sequence[Look],
        states: Sequence[torch.Tensor],
        cond: Sequence[Any],
        sigmas: torch.Tensor,
        *,
        guidance: float,
        chunk: int,
    ) -> float:
        """The divergence that the looks of all processes give together; arguments as of `divergence.divergence`."""
        found = divergence(
            self.policy, own, states, cond, sigmas, guidance=guidance, chunk=chunk,
            on_step=lambda done, total: self.on_phase("compare", done, total),
        )  # fmt: skip
        return self._total(found)

    # ---- evaluation ----

    @torch.no_grad()
    def evaluate(self, *, steps: int, guidance: float, chunk: int) -> dict[str, float]:
        """Figures of pictures with fixed prompts and fixed noise, so that they compare from update to update.

        The prompts are all of them, or `EVALUATION_PROMPTS` spread evenly over the list; see `evaluated_prompts`.

        Returns:
            "evaluation_reward", "evaluation_diversity", and "evaluation_held_out_reward" if there is such a judge. The
            pictures cost reward calls that are not counted: nothing is learned from them.
        """
        indices, noise = self.fixed_noise()
        paths = play(
            self.policy,
            self.policy.process,
            noise,
            [self.prompts[i].positive for i in indices],
            steps=steps,
            guidance=guidance,
            generator=torch.Generator().manual_seed(EVALUATION_SEED),
            eta=0.0,
            chunk=chunk,
            on_step=lambda done, total: self.on_phase("evaluate", done, total),
        )
        return self.judge_fixed(self.decode(paths.pictures), indices)

    def fixed_noise(self) -> tuple[list[int], torch.Tensor]:
        """Of the pictures to evaluate: indices of their prompts, B, and their noise [B, C, H, W]."""
        indices = evaluated_prompts(len(self.prompts))
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        return indices, torch.randn(len(indices), *self.latent_shape, generator=generator).to(self.policy.device)

    @torch.no_grad()
    def judge_fixed(self, images: torch.Tensor, indices: Sequence[int]) -> dict[str, float]:
        """The figures of `evaluate` for pictures [B, h, w, 3] of these prompts; none if all are blocked."""
        kept = (~self._blocked(images)).nonzero().flatten().tolist()
        if not kept:
            return {}
        images, owners = images[kept], [indices[row] for row in kept]
        found = {}
        for name, judge in (("evaluation_reward", self.reward), ("evaluation_held_out_reward", self.held_out)):
            if judge is not None:
                found[name] = self._scores(judge, images, self.texts(owners), indices).mean().item()
        spread = grouped_diversity(self.features(images), owners)
        return found | ({"evaluation_diversity": spread} if math.isfinite(spread) else {})

    @property
    def best_metric(self) -> str:
        """The figure of `evaluate` by which the best weights are chosen."""
        return "evaluation_reward" if self.held_out is None else "evaluation_held_out_reward"

    @property
    def best_is_high(self) -> bool:
        """Whether higher is better in that figure."""
        return (self.held_out or self.reward).higher_is_better

    # ---- state ----

    def state_dict(self) -> dict[str, Any]:
        """The counts, the same in every process."""
        return {"rollouts": self.rollouts, "reward_calls": self.reward_calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rollouts, self.reward_calls = int(state["rollouts"]), int(state["reward_calls"])


def check_copies(reward: Reward, prompts: Sequence[Prompt], drawn: int, otherwise: str = "") -> None:
    """For a reward that compares the pictures of one prompt, where an update's pictures are scored in parts.

    Args:
        drawn: prompts of an update, those of all processes; otherwise: what can be done instead, as ", or …".

    Raises:
        TrainingError: a prompt can come up in two of the parts, and its pictures would not be compared as one set.
    """
    different = len({prompt.text for prompt in prompts})
    if different < max(drawn, len(prompts)):
        raise TrainingError(
            f"{reward.name} compares the pictures of one prompt with each other, and with {different} different "
            "prompts the same one can come up twice in an update, in parts that are scored apart. Write at least "
            f"{drawn} prompts, no two of them the same{otherwise}."
        )


def evaluated_prompts(count: int) -> list[int]:
    """Indices of the prompts of the pictures to evaluate, of `count` prompts; pictures of one prompt side by side.

    A list is often ordered by subject, so that its beginning would stand for one of them: from a longer one the middles
    of `EVALUATION_PROMPTS` equal stretches are taken.
    """
    shown = min(count, EVALUATION_PROMPTS)
    return [
        (2 * index + 1) * count // (2 * shown) for index in range(shown) for _ in range(EVALUATION_PICTURES // shown)
    ]


def check_scored_alone(reward: Reward) -> None:
    """
    Raises:
        TrainingError: a picture's score depends on the pictures beside it. What states of different steps promise are
            no pictures of one round, so that neither their scores nor the target would mean anything.
    """
    if compares_pictures(reward):
        raise TrainingError(
            f"{reward.name} compares pictures with each other, and DAG must score what every step promises by itself. "
            "Take it out of Combine Rewards, choose another reward, or use the DDPO objective. DAG keeps pictures "
            "varied without it."
        )
