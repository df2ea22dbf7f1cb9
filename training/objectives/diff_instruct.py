"""Diff-Instruct*: turn a model into a one-step generator that people prefer, without any pictures to learn from.

Three players share one set of weights: the frozen *reference* (no adapter: the model as it is), the *generator* (an
adapter: one call makes a picture, see `one_step`), and the *assistant* (another adapter: knows how the generator's
pictures look under noise). In every update the assistant learns to denoise fresh pictures of the generator; in every
`assistant_updates`-th the generator learns, too:

    L(θ) = w·matching(x0, D_ψ(x_t), D_ref(x_t)) − α_rew·r(decode(x0), prompt)

`diff_instruct_losses` has the matching loss and its variants; this module plays, schedules and measures.

A run may begin with the generator of an earlier one: distil first, look at it, then train on with a reward. The
policy's generator then holds those weights before `prepare`; the reference stays the model without them. The assistant
begins fresh, which is as the reference, not as a copy of the generator: a generator's weights know one noise level, and
what a well distilled one draws is what the reference knows at all of them. On the demo's generator its first loss was
0.39, a copy's 0.52, and both were alike after five updates. `assistant_warmup` lets it catch up first.

| here                  | papers                                                              |
| --------------------- | ------------------------------------------------------------------- |
| generator, assistant  | g_θ and s_ψ ("TA", fake score)                                      |
| assistant_updates     | K_TA; DMD2's ratio of updates                                       |
| guidance − 1          | α_cfg, of the reference alone                                       |
| reward_weight         | α_rew, per latent value: it does not change with the picture's size |
| init_timestep         | t_init; σ_init = `one_step.level_of(process, init_timestep)`        |

References:
    Luo et al. 2024, "Diff-Instruct*: Towards Human-Preferred One-step Text-to-image Generative Models".
    Yin et al. 2024, "Improved Distribution Matching Distillation" (several assistant updates for one of the generator).

Differences from the papers (ours, unless said otherwise):
    - adapters on one set of weights in place of three networks;
    - where both learn they do so in one optimizer step, each from what was before it;
    - losses are means over a latent's values, so that rates and weights do not depend on its size;
    - the reward enters late and slowly (`reward_from`, `reward_rise`): first a generator, then a preferred one;
    - rewards without gradients, by `score_function_loss`; the figures of an update are of the noised copies then;
    - pictures that a safety gate blocks earn no reward, neither good nor bad;
    - a guard ends runs that collapse, see `collapse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from ..diffusion import expand
from ..interfaces import Auxiliary, LatentDecoder, Prompt, Reward, TrainingError
from ..one_step import generate, level_of
from ..picture_memory import PictureMemory
from ..presentable import compares_pictures
from ..rollout import play
from ..share import ALONE, Share
from ..trainer_config import Pace
from .collapse import collapse_reason, saturation
from .diff_instruct_config import ASSISTANT, GENERATOR, DiffInstructConfig
from .diff_instruct_losses import (
    guidance_reward_loss,
    huber_constant,
    matching_loss,
    sample_weight,
    score_function_loss,
)
from .practice import Judgement, OnPhase, Practice
from .refl import check_groups, lean_decode


class DiffInstructObjective:
    """Teaches a one-step generator. The policy needs the roles `roles`.

    Args:
        prompts: what the generator is to draw; the wider, the more it will be able to.
        reward: raised once `reward_weight` acts, and reported.
        held_out: reported, never optimised.
        decoder: latents to images, differentiable where the reward is.
        on_phase: called with (phase, done, total); may raise to cancel.

    Raises:
        TrainingError: as `check_comparing`, or as `Practice`.
    """

    name = "diff-instruct"
    roles = (GENERATOR, ASSISTANT)
    waits_by = "assistant_warmup or assistant_updates"

    def __init__(
        self,
        prompts: Sequence[Prompt],
        reward: Reward,
        decoder: LatentDecoder,
        config: DiffInstructConfig,
        *,
        latent_shape: Sequence[int],
        held_out: Reward | None = None,
        on_phase: OnPhase | None = None,
    ) -> None:
        self.practice = Practice(
            prompts, reward, decoder, latent_shape=latent_shape, held_out=held_out, on_phase=on_phase
        )
        self.config = config
        check_comparing(reward, self.practice.prompts, config)
        self.best_metric, self.best_is_high = self.practice.best_metric, self.practice.best_is_high
        self.policy_waits, self.policy_every = config.assistant_warmup, config.assistant_updates
        self.pace = Pace(self.policy_waits, self.policy_every)
        self.accumulation = 1
        self._policy: Any = None
        self._share: Share = ALONE
        self._sigma = 0.0
        self._iterations = 0
        self._figures: dict[str, float] = {}
        self._teacher: dict[str, float] = {}
        self._shown: torch.Tensor | None = None

    def prepare(self, policy: Any, share: Share = ALONE) -> None:
        check_comparing(self.practice.reward, self.practice.prompts, self.config, processes=share.count)
        self._policy, self._share = policy, share
        self._sigma = level_of(policy.process, self.config.init_timestep)
        self.practice.prepare(policy, share)

    def auxiliary(self) -> Auxiliary:
        named = self._policy.named_parameters(ASSISTANT)
        return Auxiliary(
            {f"{ASSISTANT}.{name}": value for name, value in named.items()}, self.config.assistant_learning_rate
        )

    def picture_memory(self, device: torch.device) -> PictureMemory:
        config = self.config
        if self.follows_gradient:
            return self.practice.gradient_memory(device, batch=min(config.batch, config.chunk))
        if self.feels:
            step, copies = min(config.batch, config.chunk), config.batch * config.probes
            return self.practice.waiting_memory(device, times=-(-min(config.chunk, copies) // step))
        return self.practice.decoding_memory()

    @property
    def follows_gradient(self) -> bool:
        """Whether the reward's gradient is followed; else its scores are compared."""
        return self.config.reward_weight > 0 and self.practice.reward.differentiable

    @property
    def feels(self) -> bool:
        """Whether a reward acts that has no gradient to follow."""
        return self.config.reward_weight > 0 and not self.practice.reward.differentiable

    @property
    def about(self) -> dict[str, str]:
        """What people are told of the run."""
        told = "has no gradient: reward, held-out reward and diversity of an update are of slightly noised copies."
        return {"words": f"{self.practice.reward.name} {told}"} if self.feels else {}

    # ---- one update ----

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        update = self._iterations // self.accumulation
        self._figures = {}
        yield from self._assistant_losses(generator)
        if self.pace.moves(update):
            yield from self._generator_losses(generator, self.config.reward_weight_at(update))
        self._iterations += 1

    def _drawn(self, generator: torch.Generator) -> tuple[list[int], torch.Tensor]:
        """Prompts of the next pictures, and the noise that they are made of."""
        config = self.config
        indices = self.practice.draw(config.prompts_per_update, config.images_per_prompt, generator)
        noise = self.practice.noise(len(indices), generator)
        self.practice.rollouts += len(indices) * self._share.count
        return indices, noise

    def _levels(self, count: int, generator: torch.Generator, first: float, last: float) -> torch.Tensor:
        """Noise levels [count] of this process: the model's own between two shares of them, evenly."""
        sigmas, every = self._policy.process.sigmas, count * self._share.count
        low, high = int(first * (len(sigmas) - 1)), int(last * (len(sigmas) - 1))
        drawn = sigmas[torch.randint(low, high + 1, (every,), generator=generator)].float()
        return self._share.take(drawn).to(self._policy.device)

    def _chunks(self, indices: Sequence[int]) -> Iterator[tuple[slice, list[Any]]]:
        """Rows of a call of the network, with their conditionings."""
        for start in range(0, len(indices), self.config.chunk):
            rows = slice(start, start + self.config.chunk)
            yield rows, [self.practice.prompts[index].positive for index in indices[rows]]

    def _assistant_losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Denoising fresh pictures of the generator: the error of the network's own output, squared."""
        policy, process = self._policy, self._policy.process
        indices, start = self._drawn(generator)
        noise = self.practice.noise(len(indices), generator)
        sigma = self._levels(len(indices), generator, 0.0, 1.0)
        losses = []
        for rows, cond in self._chunks(indices):
            with torch.no_grad(), self._playing(GENERATOR):
                clean = generate(policy, start[rows], cond, sigma=self._sigma)
            torch.clear_autocast_cache()
            noised = process.add_noise(clean, noise[rows], sigma[rows])
            with policy.role(ASSISTANT):
                guess = policy(noised, sigma[rows], cond)
                error = (guess - clean) / expand(process.output_scale(sigma[rows]), clean)
                loss = error.square().flatten(1).mean(1).sum() / len(indices)
                losses.append(loss.detach())
                self.practice.on_phase("assistant", min(rows.stop, len(indices)), len(indices))
                yield loss
        self._figures["assistant_loss"] = float(torch.stack(losses).sum())

    def _generator_losses(self, generator: torch.Generator, reward_weight: float) -> Iterator[torch.Tensor]:
        config, practice, policy = self.config, self.practice, self._policy
        indices, start = self._drawn(generator)
        noise = practice.noise(len(indices), generator)
        sigma = self._levels(len(indices), generator, config.noise_from, config.noise_to)
        probes = self._probes(len(indices), generator) if reward_weight and not self.follows_gradient else None
        batch = practice.everyone(indices)
        images, judged, gaps = [], [], []
        for rows, cond in self._chunks(indices):
            with policy.role(GENERATOR):
                clean = generate(policy, start[rows], cond, sigma=self._sigma)
                with self._frozen(ASSISTANT):
                    noised = policy.process.add_noise(clean, noise[rows], sigma[rows])
                    matched, gap = self._matching(clean, noised, sigma[rows], cond)
                    gaps.append(gap)
                    loss = matched.sum()
                    if reward_weight:
                        owners = indices[rows]
                        earned, pictures, found = self._rewarded(
                            clean, owners, batch, None if probes is None else probes[rows]
                        )
                        images.append(pictures)
                        judged.append(found)
                        loss = loss - reward_weight * earned.to(loss.device).sum()
                    practice.on_phase("generator", min(rows.stop, len(indices)), len(indices))
                    # Its backward pass, too, must find the assistant frozen, if it computes anything again.
                    yield loss / len(indices)
        self._figures["distance"] = float(torch.cat(gaps).mean())
        self._figures["reward_weight"] = reward_weight
        if images:
            self._figures |= practice.figures(torch.cat(images), indices, _together(judged))

    def _matching(
        self, clean: torch.Tensor, noised: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The weighted matching loss and, without gradients, the distance; [B] each."""
        config, policy = self.config, self._policy
        # The KL variant needs no gradient through either network.
        with torch.no_grad() if config.distance == "kl" else nullcontext():
            with policy.role(ASSISTANT):
                assistant = policy(noised, sigma, cond)
            with policy.role(None):
                inside = config.guidance_as == "in"
                reference = policy(noised, sigma, cond, guidance=config.guidance if inside else 1.0)
        size = clean[0].numel()
        constant = config.huber_constant or huber_constant(size)
        # A pseudo-Huber gradient has length 1 whatever the size, the others grow with its root.
        scale = size**0.5 if config.distance == "pseudo-huber" else size
        matched = matching_loss(
            clean, assistant, reference, kind=config.distance, constant=constant, coefficient=config.coefficient
        )
        if not inside and config.guidance != 1:
            with torch.no_grad(), policy.role(None):
                empty = policy(noised, sigma, [policy.unconditional] * len(cond))
            pulled = (config.guidance - 1) * guidance_reward_loss(clean, reference, empty)
            matched = matched + pulled * scale / size
        gap = (assistant - reference).detach().flatten(1).square().mean(1).sqrt()
        return sample_weight(clean, reference) * matched / scale, gap

    def _rewarded(
        self, clean: torch.Tensor, owners: Sequence[int], batch: Sequence[int], probes: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, Judgement]:
        """What the reward says of latents [B, C, H, W]: [B] whose gradient raises it, pictures, judgement.

        Args:
            probes: noise [B, probes, C, H, W] for rewards without gradients; None follows the gradient.
        """
        practice = self.practice
        if probes is not None:
            return self._felt(clean, owners, batch, probes)
        with practice.full_precision():
            pictures = lean_decode(practice.decoder, clean.float())
        found = practice.score(pictures, owners, batch)
        earned = torch.where(found.blocked, torch.zeros_like(found.rewards), practice.sign * found.rewards)
        return earned, pictures.detach(), Judgement(found.rewards.detach(), found.blocked)

    def _felt(
        self, clean: torch.Tensor, owners: Sequence[int], batch: Sequence[int], probes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, Judgement]:
        """`_rewarded` without a gradient: by slightly noised copies, of which at most `chunk` are pictures at a time.

        To decode and score the pictures themselves as well would cost as much as another copy, so that it is these that
        are judged: each by the mean of its copies, and shown as the first of them.
        """
        practice, config, count = self.practice, self.config, probes.shape[1]
        copies = (clean.detach()[:, None] + config.probe_deviation * probes).flatten(0, 1)
        spread = [owner for owner in owners for _ in range(count)]
        everyone = [index for index in batch for _ in range(count)]
        shown, judged = [], []
        for start in range(0, len(copies), config.chunk):
            part = copies[start : start + config.chunk]
            pictures = practice.decode(part)
            judged.append(practice.score(pictures, spread[start : start + config.chunk], everyone))
            shown.append(pictures[[row for row in range(len(part)) if (start + row) % count == 0]])
            del pictures  # before the next ones are made
            practice.on_phase("score", start + len(part), len(copies))
        found = _together(judged)
        blocked = found.blocked.unflatten(0, (-1, count)).any(1)
        groups = torch.arange(len(owners)).repeat_interleave(count)
        losses = score_function_loss(
            clean.repeat_interleave(count, 0), probes.flatten(0, 1), practice.sign * found.rewards.to(clean.device),
            groups.to(clean.device), deviation=config.probe_deviation,
        )  # fmt: skip
        earned = -losses.unflatten(0, (-1, count)).mean(1)
        mean = Judgement(found.rewards.unflatten(0, (-1, count)).mean(1), blocked)
        return torch.where(blocked.to(earned.device), torch.zeros_like(earned), earned), torch.cat(shown), mean

    def _probes(self, count: int, generator: torch.Generator) -> torch.Tensor:
        drawn = self.practice.noise(count * self.config.probes, generator)
        return drawn.unflatten(0, (count, self.config.probes))

    @contextmanager
    def _playing(self, role: str | None) -> Iterator[None]:
        """As the finished LoRA will be used: adapter dropout belongs to learning only."""
        policy = self._policy
        policy.training_mode(False)
        try:
            with policy.role(role):
                yield
        finally:
            policy.training_mode(True)

    @contextmanager
    def _frozen(self, role: str) -> Iterator[None]:
        """Gradients pass through a role's layers, and none stay in its weights."""
        parameters = list(self._policy.named_parameters(role).values())
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)

    # ---- looking at it ----

    def evaluate(self) -> dict[str, float]:
        """Of fixed prompts and noise: what `Practice.judge_fixed` says of the generator's pictures, their saturation,
        and the same of the teacher's as "teacher_…"."""
        practice, policy = self.practice, self._policy
        indices, noise = practice.fixed_noise()
        cond = [practice.prompts[index].positive for index in indices]
        if not self._teacher:
            with policy.role(None):
                self._teacher = self._judged(self.teacher(noise, cond), indices)
        with policy.role(GENERATOR):
            found = self._judged(self._one_step(noise, cond), indices)
        names = {name: name.replace("evaluation_", "teacher_") for name in found}
        return found | {names[name]: value for name, value in self._teacher.items() if name in names}

    def _judged(self, latents: torch.Tensor, indices: Sequence[int]) -> dict[str, float]:
        images = self.practice.decode(latents)
        found = self.practice.judge_fixed(images, indices)
        return found | ({"evaluation_saturation": saturation(images)} if found else {})

    def _one_step(self, noise: torch.Tensor, cond: Sequence[Any]) -> torch.Tensor:
        parts = noise.split(self.config.chunk)
        places = range(0, len(noise), self.config.chunk)
        return torch.cat([
            generate(self._policy, part, cond[place : place + len(part)], sigma=self._sigma)
            for place, part in zip(places, parts, strict=True)
        ])  # fmt: skip

    def teacher(self, noise: torch.Tensor, cond: Sequence[Any]) -> torch.Tensor:
        """Latents of the many-step guided sampler from this noise, with the policy as it is."""
        config = self.config
        return play(
            self._policy, self._policy.process, noise, cond, steps=config.steps, guidance=config.guidance,
            generator=torch.Generator(), eta=0.0, chunk=config.chunk,
            on_step=lambda done, total: self.practice.on_phase("teacher", done, total),
        ).pictures  # fmt: skip

    def collapse(self, figures: Mapping[str, float]) -> str:
        """Why the weights that were just evaluated are not worth going on with; "" if they are."""
        return collapse_reason(figures, diversity=self.config.guard_diversity, saturation=self.config.guard_saturation)

    def preview(self, noise: torch.Tensor, requests: Sequence[Prompt]) -> torch.Tensor:
        """Latents for people: of every request the teacher's picture, then the generator's from the same noise."""
        cond = [request.positive for request in requests]
        if self._shown is None or len(self._shown) != len(noise):
            with self._policy.role(None):
                self._shown = self.teacher(noise, cond)
        with self._policy.role(GENERATOR):
            own = self._one_step(noise, cond)
        return torch.stack([self._shown, own], 1).flatten(0, 1)

    # ---- records ----

    def metrics(self) -> dict[str, float]:
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        return {
            "practice": self.practice.state_dict(),
            "iterations": self._iterations,
            "figures": dict(self._figures),
            "teacher": dict(self._teacher),
            "teacher_as": self._teacher_as(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        now = self._teacher_as()
        self.practice.load_state_dict(state["practice"])
        self._iterations = int(state["iterations"])
        self._figures = dict(state["figures"])
        # A teacher of other steps or guidance must be measured anew.
        self._teacher = dict(state["teacher"]) if state.get("teacher_as", now) == now else {}

    def _teacher_as(self) -> list[float]:
        """How the teacher's pictures are made."""
        return [float(self.config.steps), float(self.config.guidance)]

    def sample_requests(self) -> Sequence[Prompt]:
        return self.practice.prompts[:4]


def _together(parts: Sequence[Judgement]) -> Judgement:
    return Judgement(torch.cat([part.rewards for part in parts]), torch.cat([part.blocked for part in parts]))


def check_comparing(
    reward: Reward, prompts: Sequence[Prompt], config: DiffInstructConfig, *, processes: int = 1
) -> None:
    """A reward that compares the pictures of one prompt must be shown all that an update has of it.

    Raises:
        TrainingError: it would be shown a part, or copies of one picture in the others' place.
    """
    if not config.reward_weight or not compares_pictures(reward):
        return
    if not reward.differentiable:
        raise TrainingError(
            f"{reward.name} compares the pictures of one prompt with each other and has no gradient: it would be felt "
            "for by copies of one picture, which it would compare instead. Take that part out of the reward, or set "
            "reward_weight to 0."
        )
    check_groups(reward, prompts, config, processes=processes)
