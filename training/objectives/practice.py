"""Practice: what the methods share that learn from pictures they make themselves (DDPO, DAG, ReFL).

Prompts are drawn, rollouts played, pictures scored. What a safety gate blocks is neither scored nor learned from. The
figures that tell how such a run fares are the same for all of them: reward, held-out reward, diversity, divergence from
the reference, and what they cost in rollouts and reward calls.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusion import Convention
from ..diversity import feature_source, grouped_diversity, pixel_features
from ..interfaces import LatentDecoder, Prompt, Reward, TrainingError, checked_scores
from ..picture_memory import PictureMemory, decoding_memory, gradient_memory
from ..presentable import is_guarded, rest_of_batch, unsafe_pictures
from ..rollout import Trajectories, play, step_divergence
from ..share import ALONE, Share

OnPhase = Callable[[str, int, int], None]
# Most sampler steps at which it is measured; each costs two predictions without gradients.
DIVERGENCE_STEPS = 16
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

    # ---- memory ----

    def decoding_memory(self) -> PictureMemory:
        """What decoding rollouts needs, which takes turns with learning."""
        return decoding_memory(self.decoder, self.latent_shape)

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

    # ---- scores ----

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
                rest = rest_of_batch(self.reward, self.texts(batch))
                rewards[kept] = checked_scores(self.reward, images[kept], texts, rest).float().cpu()
        self.reward_calls += int(self._total(len(kept)))
        return Judgement(rewards, blocked)

    def _blocked(self, images: torch.Tensor) -> torch.Tensor:
        return unsafe_pictures(images, (self.reward, self.held_out)).cpu()

    def _total(self, count: int) -> float:
        return self.share.mean({"count": float(count)})["count"] * self.share.count

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
                rest = rest_of_batch(self.held_out, self.texts(batch))
                scores = checked_scores(self.held_out, shown, self.texts(owners), rest)
            found["held_out_reward"] = scores.mean().item()
        found["diversity"] = grouped_diversity(self.features(shown), owners) if kept else math.nan
        return {name: value for name, value in self.share.mean(found).items() if math.isfinite(value)}

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features [B, D] for diversity: of the held-out reward's encoder, else the reward's, else pixels."""
        source = feature_source(self.held_out) or feature_source(self.reward) or pixel_features
        return source(images).float()

    # ---- divergence ----

    @torch.no_grad()
    def kl_to_reference(self, paths: Trajectories, visits: torch.Tensor, *, guidance: float, chunk: int) -> float:
        """KL of the policy's trajectories from the reference's, in nats per picture, estimated.

        Steps differ in it by orders of magnitude, and the last has most, so that it is measured at all of them, or at
        the last one and the middles of `DIVERGENCE_STEPS` − 1 stretches of the others, each on one trajectory.

        Args:
            visits: (row, step) [N, 2], drawn evenly: a step is measured on the first trajectory that visits it.
            chunk: predictions per call of the network.
        """
        row_at = {step: row for row, step in reversed(visits.tolist())}
        wanted, weights = measured_steps(sorted(row_at))
        found = []
        for start in range(0, len(wanted), chunk):
            steps = wanted[start : start + chunk]
            rows = [row_at[step] for step in steps]
            x, cond = paths.states[rows, steps], [paths.cond[row] for row in rows]
            sigma, sigma_next = paths.sigmas[steps], paths.sigmas[[step + 1 for step in steps]]
            x0 = self.policy(x, sigma, cond, guidance=guidance)
            with self.policy.role(None):
                reference = self.policy(x, sigma, cond, guidance=guidance)
            found.append(step_divergence(self.policy.process, x, x0, reference, sigma, sigma_next))
            self.on_phase("compare", start + len(steps), len(wanted))
        sums = torch.cat(found).cpu() @ torch.tensor(weights)
        return sums.item() / len(row_at) * paths.steps

    # ---- evaluation ----

    @torch.no_grad()
    def evaluate(self, *, steps: int, guidance: float, chunk: int) -> dict[str, float]:
        """Figures of pictures with fixed prompts and fixed noise, so that they compare from update to update.

        The prompts are all of them, or `EVALUATION_PROMPTS` spread evenly over the list; see `evaluated_prompts`.

        Returns:
            "evaluation_reward", "evaluation_diversity", and "evaluation_held_out_reward" if there is such a judge. The
            pictures cost reward calls that are not counted: nothing is learned from them.
        """
        indices = evaluated_prompts(len(self.prompts))
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        noise = torch.randn(len(indices), *self.latent_shape, generator=generator).to(self.policy.device)
        paths = play(
            self.policy,
            self.policy.process,
            noise,
            [self.prompts[i].positive for i in indices],
            steps=steps,
            guidance=guidance,
            generator=generator,
            eta=0.0,
            chunk=chunk,
            on_step=lambda done, total: self.on_phase("evaluate", done, total),
        )
        images = self.decoder.decode(paths.pictures)
        kept = (~self._blocked(images)).nonzero().flatten().tolist()
        if not kept:
            return {}
        images, owners = images[kept], [indices[row] for row in kept]
        found = {}
        for name, judge in (("evaluation_reward", self.reward), ("evaluation_held_out_reward", self.held_out)):
            if judge is not None:
                rest = rest_of_batch(judge, self.texts(indices))
                found[name] = checked_scores(judge, images, self.texts(owners), rest).mean().item()
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


def evaluated_prompts(count: int) -> list[int]:
    """Indices of the prompts of the pictures to evaluate, of `count` prompts; pictures of one prompt side by side.

    A list is often ordered by subject, so that its beginning would stand for one of them: from a longer one the middles
    of `EVALUATION_PROMPTS` equal stretches are taken.
    """
    shown = min(count, EVALUATION_PROMPTS)
    return [
        (2 * index + 1) * count // (2 * shown) for index in range(shown) for _ in range(EVALUATION_PICTURES // shown)
    ]


def measured_steps(steps: Sequence[int]) -> tuple[list[int], list[float]]:
    """Which of the steps, ascending, to measure, and how many steps each of them stands for."""
    parts = stretches(steps, DIVERGENCE_STEPS)
    return [part[len(part) // 2] for part in parts], [float(len(part)) for part in parts]


def stretches(steps: Sequence[int], most: int) -> list[Sequence[int]]:
    """The steps, ascending, in at most `most` parts of about the same number, the last step alone."""
    if len(steps) <= most:
        return [[step] for step in steps]
    edges = torch.linspace(0, len(steps) - 1, most).round().long().tolist()
    return [*(steps[low:high] for low, high in itertools.pairwise(edges)), steps[-1:]]
