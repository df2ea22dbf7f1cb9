"""ReFL and DRaFT: raise a reward by following its gradient back through picture, decoder and the last sampler steps.

    refl    play m ~ U{stop_from … stop_to} of T steps without gradients, call the network once more with gradients, and
            take the x̂0 that it predicts for the picture:        L = weight · mean ReLU(margin − r(decode(x̂0), prompt))
    draft   play T − K steps without gradients and the last K with:         L = − mean r(decode(x̂0), prompt)

| here                 | papers                                                          |
| -------------------- | --------------------------------------------------------------- |
| steps                | T, calls of the network; noise levels σ_0 > … > σ_T, the last unused |
| stop_from, stop_to   | T1, T2 (ReFL)                                                   |
| last_steps           | K (DRaFT-K)                                                     |
| weight, margin       | λ = 1e-3 and 2 (ReFL)                                           |

`margin` is in the reward's own unit, in deviations (z-scores) where it is calibrated: pictures that reach it teach
nothing more. A reward of which lower is better (a cost) enters with its sign turned, and so does its margin: with a
margin of −0.1 pictures that cost less than 0.1 teach nothing more. Without a margin (None) every picture teaches:
L = −weight · mean r, which has the gradient of a margin that no picture reaches.

Every picture tells in which direction it would be better, so this learns from far fewer pictures than policy gradients,
and it games a reward as much faster: watch the held-out reward and the diversity.

References:
    Xu et al. 2023, "ImageReward", section 4 and algorithm 1; values of the released code: T 40, window 30 … 39,
    ancestral (η = 1) steps, λ 1e-3, margin 2, AdamW 1e-5, weight decay 1e-2.
    Clark et al. 2023, "Directly Fine-Tuning Diffusion Models on Differentiable Rewards", DRaFT-K; DDIM (η = 0) steps.

Differences from the papers:
    - ReFL's second term, the pre-training loss on real pictures, is left out: the adapter is small and starts at zero;
    - any eps, v or flow model through `diffusion.py`; guidance acts in all steps, played and trained alike (the
      released ReFL code trains without);
    - the draw of m is made once per update, for all its pictures. In both modes the final picture is the x̂0 of the last
      call, so that DRaFT-1 is ReFL with the window at the last step, but for η and the form of the loss;
    - pictures that a safety gate blocks are not learned from;
    - "kl_to_reference" is that of all T steps, as if each had η = 1: without noise it would be infinite. The steps that
      are not played, or with gradients, are taken from the picture that was made, noised to their levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch.utils.checkpoint import checkpoint

from ..config_checks import check_numbers
from ..diffusion import DiffusionProcess
from ..interfaces import LatentDecoder, Prompt, Reward, TrainingError
from ..picture_memory import PictureMemory
from ..presentable import compares_pictures
from ..share import ALONE, Share
from ..widget_names import named
from .divergence import MOST, Look
from .practice import Judgement, OnPhase, Practice, check_copies

Mode = Literal["refl", "draft"]
# Called with every state that a step is played from: (the step's number, x [B, …]).
OnState = Callable[[int, torch.Tensor], None]
DIVERGENCE_SEED = 1_000_003


@dataclass(frozen=True)
class ReFLConfig:
    """Knobs of ReFL and DRaFT.

    Attributes:
        mode: "refl" or "draft", see the module.
        prompts_per_update: prompts drawn per update, of each process; images_per_prompt: pictures of each.
        steps: sampler steps T.
        stop_from, stop_to: "refl" only: the window of m, 0 … steps − 1. An early stop makes a blurred guess.
        last_steps: "draft" only: K, 1 … steps. Each costs the time of a backward pass, and none more memory.
        guidance: classifier-free guidance, as the model will be sampled with; 1 = off.
        weight, margin: "refl" only, see the module; weight > 0, and None = no margin.
        chunk: pictures per network call; smaller needs less memory. No draw of the method depends on it.
    """

    mode: Mode = "refl"
    prompts_per_update: int = 4
    images_per_prompt: int = 2
    steps: int = 40
    stop_from: int = 30
    stop_to: int = 39
    last_steps: int = 1
    guidance: float = 5.0
    weight: float = 1e-3
    margin: float | None = 2.0
    chunk: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.mode not in get_args(Mode):
            raise TrainingError(f"ReFL: mode must be 'refl' or 'draft', not {self.mode!r}.")
        for field in ("prompts_per_update", "images_per_prompt", "steps", "chunk"):
            if getattr(self, field) < 1:
                raise TrainingError(f"ReFL: {named(field)} must be at least 1, not {getattr(self, field)}.")
        if self.mode == "refl" and not 0 <= self.stop_from <= self.stop_to < self.steps:
            raise TrainingError(
                f"ReFL: stop_from {self.stop_from} and stop_to {self.stop_to} must lie in 0 … {self.steps - 1}, the "
                f"{self.steps} {named('steps')} counted from 0, and stop_from must not be the later one."
            )
        if self.mode == "draft" and not 1 <= self.last_steps <= self.steps:
            raise TrainingError(
                f"DRaFT: last_steps must be 1 … {self.steps}, the number of {named('steps')}, not {self.last_steps}."
            )
        if not self.weight > 0:
            raise TrainingError(f"ReFL: weight must be above 0, not {self.weight}.")

    @property
    def eta(self) -> float:
        """How much noise a sampler step adds."""
        return 1.0 if self.mode == "refl" else 0.0

    def identity(self) -> dict[str, Any]:
        """The fields that must not change on a resume: all but `chunk`, which memory decides."""
        return {name: value for name, value in asdict(self).items() if name != "chunk"}


def reward_loss(scores: torch.Tensor, *, mode: Mode, weight: float, margin: float | None) -> torch.Tensor:
    """What is minimised, per picture [B]: weight·ReLU(margin − score) for "refl", −score for "draft".

    Without a margin: −weight·score for "refl".

    Args:
        scores: higher is better, with gradients, [B].

    Raises:
        ValueError: unknown mode.
    """
    if mode == "refl":
        return -weight * scores if margin is None else weight * torch.relu(margin - scores)
    if mode == "draft":
        return -scores
    raise ValueError(f"mode must be 'refl' or 'draft', not {mode!r}")


@torch.no_grad()
def approach(
    denoiser: Any,
    process: DiffusionProcess,
    x: torch.Tensor,
    cond: Sequence[Any],
    sigmas: torch.Tensor,
    *,
    guidance: float,
    eta: float,
    draw: Callable[[], torch.Tensor],
    chunk: int,
    on_step: Callable[[int, int], None],
    on_state: OnState,
) -> torch.Tensor:
    """Sampler steps without gradients.

    Args:
        x: latents [B, C, H, W] at sigmas[0].
        sigmas: levels [m + 1], descending, of m steps.
        draw: fresh unit Gaussian noise like x; asked for only where eta > 0.
        chunk: samples per call of the network; on_step: called after each with (calls done, calls in all).

    Returns:
        latents [B, C, H, W] at sigmas[m].
    """
    starts = range(0, len(x), chunk)
    steps = len(sigmas) - 1
    done = 0
    for index in range(steps):
        sigma, sigma_next = sigmas[index].expand(len(x)), sigmas[index + 1].expand(len(x))
        on_state(index, x)
        parts = []
        for start in starts:
            rows = slice(start, start + chunk)
            parts.append(denoiser(x[rows], sigma[rows], cond[rows], guidance=guidance))
            done += 1
            on_step(done, steps * len(starts))
        x0 = torch.cat(parts)
        step = process.posterior(x, x0, sigma, sigma_next, eta=eta)
        x = step.mean + step.deviation * draw() if eta > 0 else step.mean
    return x


def finish(
    denoiser: Any, process: DiffusionProcess, x: torch.Tensor, cond: Sequence[Any], sigmas: torch.Tensor, *,
    guidance: float,
) -> torch.Tensor:  # fmt: skip
    """The last calls of the network, with gradients: deterministic steps, then the predicted picture.

    All but the last keep no activations: they are computed again in the backward pass, so that the memory is that of
    one call, however many there are.

    Args:
        x: latents [B, C, H, W] at sigmas[0].
        sigmas: levels [K] of the calls, descending.

    Returns:
        x̂0 [B, C, H, W] of the last call.
    """

    def step(x: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        return process.posterior(x, denoiser(x, sigma, cond, guidance=guidance), sigma, sigma_next, eta=0.0).mean

    levels = [sigma.expand(len(x)) for sigma in sigmas]
    for sigma, sigma_next in itertools.pairwise(levels):
        x = checkpoint(step, x, sigma, sigma_next, use_reentrant=False)
    return denoiser(x, levels[-1], cond, guidance=guidance)


def lean_decode(decoder: LatentDecoder, latents: torch.Tensor) -> torch.Tensor:
    """Images [B, h, w, 3] with gradients; the decoder is computed again in the backward pass, one picture at a time."""
    return torch.cat([checkpoint(decoder.decode, latent[None], use_reentrant=False) for latent in latents])


class ReFLObjective:
    """Raises a differentiable reward by its gradient.

    Args:
        prompts: what to practise on; all randomness of their choice comes from the run's generator.
        reward: optimised; must be differentiable.
        held_out: reported, never optimised: the guard against gaming the reward.
        decoder: latents to images, differentiable.
        on_phase: called with (phase, done, total) while pictures are played; may raise to cancel.

    Raises:
        TrainingError: the reward has no gradient, it compares pictures that are not scored together (see
            `check_groups`), or as `Practice`.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        reward: Reward,
        decoder: LatentDecoder,
        config: ReFLConfig,
        *,
        latent_shape: Sequence[int],
        held_out: Reward | None = None,
        on_phase: OnPhase | None = None,
    ) -> None:
        check_differentiable(reward)
        self.practice = Practice(
            prompts, reward, decoder, latent_shape=latent_shape, held_out=held_out, on_phase=on_phase
        )
        self.config, self.name = config, config.mode
        self.best_metric, self.best_is_high = self.practice.best_metric, self.practice.best_is_high
        self._policy: Any = None
        self._share: Share = ALONE
        self._figures: dict[str, float] = {}
        check_groups(reward, self.practice.prompts, config)

    def prepare(self, policy: Any, share: Share = ALONE) -> None:
        check_groups(self.practice.reward, self.practice.prompts, self.config, processes=share.count)
        self._policy, self._share = policy, share
        self.practice.prepare(policy, share)

    def picture_memory(self, device: torch.device) -> PictureMemory:
        config = self.config
        batch = config.prompts_per_update * config.images_per_prompt
        return self.practice.gradient_memory(device, batch=min(batch, config.chunk))

    # ---- one update ----

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        config, practice, policy = self.config, self.practice, self._policy
        indices = practice.draw(config.prompts_per_update, config.images_per_prompt, generator)
        batch = practice.everyone(indices)
        played = self._played_steps(generator)
        sigmas = policy.process.schedule(config.steps).to(policy.device)
        # Pictures are played as the finished LoRA will be used: adapter dropout belongs to learning only.
        policy.training_mode(False)
        looks = practice.looks(sigmas, len(indices))
        x, states = self._approach(indices, sigmas[: played + 1], looks, generator)
        policy.training_mode(True)
        # Older versions of torch would take weights in 16 bit from these passes, without a way back to the LoRA.
        torch.clear_autocast_cache()
        calls = 1 if config.mode == "refl" else config.last_steps
        images, judged, cleans = [], [], []
        for start in range(0, len(indices), config.chunk):
            owners = indices[start : start + config.chunk]
            cond = [practice.prompts[index].positive for index in owners]
            clean = finish(
                policy, policy.process, x[start : start + config.chunk], cond, sigmas[played : played + calls],
                guidance=config.guidance,
            )  # fmt: skip
            with practice.full_precision():
                pictures = lean_decode(practice.decoder, clean.float())
            found = practice.score(pictures, owners, batch)
            images.append(pictures.detach())
            cleans.append(clean.detach())
            judged.append(Judgement(found.rewards.detach(), found.blocked))
            practice.on_phase("learn", start + len(owners), len(indices))
            yield self._loss(found) / len(indices) + 0 * clean.sum()  # with a graph also where all are blocked
        together = Judgement(torch.cat([part.rewards for part in judged]), torch.cat([part.blocked for part in judged]))
        self._figures = practice.figures(torch.cat(images), indices, together) | self._below_margin(together)
        policy.training_mode(False)
        self._figures["kl_to_reference"] = self._divergence(looks, states, torch.cat(cleans), indices, sigmas)
        policy.training_mode(True)

    def _played_steps(self, generator: torch.Generator) -> int:
        config = self.config
        if config.mode == "draft":
            return config.steps - config.last_steps
        return int(torch.randint(config.stop_from, config.stop_to + 1, (), generator=generator))

    def _approach(
        self, indices: Sequence[int], sigmas: torch.Tensor, looks: Sequence[Look], generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[Look, torch.Tensor]]:
        """Latents [B, C, H, W] at the last of the levels, played without gradients.

        Returns:
            and, for every look at one of the levels, the latents [C, H, W] there.
        """
        config, practice, policy = self.config, self.practice, self._policy
        noise = practice.noise(len(indices), generator)
        states: dict[Look, torch.Tensor] = {}

        def remember(index: int, x: torch.Tensor) -> None:
            states.update({look: x[look.row] for look in looks if look.step == index})

        x = approach(
            policy,
            policy.process,
            policy.process.initial(noise, sigmas[:1].expand(len(noise))),
            [practice.prompts[index].positive for index in indices],
            sigmas,
            guidance=config.guidance,
            eta=config.eta,
            draw=lambda: practice.noise(len(indices), generator),
            chunk=config.chunk,
            on_step=lambda done, total: practice.on_phase("rollout", done, total),
            on_state=remember,
        )
        remember(len(sigmas) - 1, x)
        practice.rollouts += len(indices) * self._share.count
        return x, states

    def _divergence(
        self,
        looks: Sequence[Look],
        states: Mapping[Look, torch.Tensor],
        clean: torch.Tensor,
        indices: Sequence[int],
        sigmas: torch.Tensor,
    ) -> float:
        """The trajectories' divergence; states that were not kept are noised pictures.

        Args:
            clean: the pictures' latents [B, C, H, W]; indices: of their prompts, B.
        """
        config, practice, process = self.config, self.practice, self._policy.process
        begun = []
        for look in looks:
            # The same noise however the looks are shared out; nothing is taken from the run's generator.
            seed = DIVERGENCE_SEED + MOST * practice.rollouts + look.number
            noise = torch.randn(clean[:1].shape, generator=torch.Generator().manual_seed(seed)).to(clean)
            noised = process.add_noise(clean[look.row : look.row + 1], noise, sigmas[look.step : look.step + 1])[0]
            begun.append(states.get(look, noised))
        cond = [practice.prompts[indices[look.row]].positive for look in looks]
        return practice.measured(looks, begun, cond, sigmas, guidance=config.guidance, chunk=config.chunk)

    def _loss(self, judged: Judgement) -> torch.Tensor:
        """The summed loss of the pictures that are not blocked."""
        config = self.config
        scores = self.practice.sign * judged.rewards
        losses = reward_loss(scores, mode=config.mode, weight=config.weight, margin=config.margin)
        return losses[~judged.blocked].sum()

    def _below_margin(self, judged: Judgement) -> dict[str, float]:
        """The share of the pictures that teach: nothing else tells a run that is done from one that never began.

        Of those that are not blocked, in all processes; none where there is no margin or no such picture.
        """
        config, share = self.config, self._share
        kept = ~share.gather(judged.blocked.float()).bool()
        if config.mode != "refl" or config.margin is None or not kept.any():
            return {}
        below = self.practice.sign * share.gather(judged.rewards)[kept] < config.margin
        return {"below_margin": below.float().mean().item()}

    # ---- records ----

    def evaluate(self) -> dict[str, float]:
        config = self.config
        return self.practice.evaluate(steps=config.steps, guidance=config.guidance, chunk=config.chunk)

    def metrics(self) -> dict[str, float]:
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        return {"practice": self.practice.state_dict(), "figures": dict(self._figures)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.practice.load_state_dict(state["practice"])
        self._figures = dict(state["figures"])

    def sample_requests(self) -> Sequence[Prompt]:
        return self.practice.prompts[:4]


def check_differentiable(reward: Reward) -> None:
    """
    Raises:
        TrainingError: scores carry no gradients back to the pictures.
    """
    if not reward.differentiable:
        raise TrainingError(
            f"{reward.name} gives scores without gradients, and ReFL and DRaFT learn from nothing else. Choose a "
            "differentiable reward (most image statistics and CLIP-like networks are), or use the DDPO or the DAG "
            "objective, which take any reward."
        )


def check_groups(reward: Reward, prompts: Sequence[Prompt], config: ReFLConfig, *, processes: int = 1) -> None:
    """A reward that compares the pictures of one prompt must be shown all that an update has of it, in one chunk.

    Raises:
        TrainingError: it would be shown a part, so that scores would depend on `chunk` or on the number of processes.
    """
    if not compares_pictures(reward):
        return
    each, drawn = config.images_per_prompt, config.prompts_per_update * processes
    whole, different = config.prompts_per_update * each, len({prompt.text for prompt in prompts})
    says = f"{reward.name} compares the pictures of one prompt with each other"
    if each == 1 and different >= drawn:
        raise TrainingError(f"{says}, and there is only one of each. Set images_per_prompt to at least 2.")
    if config.chunk >= whole and processes == 1:
        return
    check_copies(reward, prompts, drawn, "" if processes > 1 else f", or set chunk to {whole}")
    if config.chunk % each and config.chunk < whole:
        raise TrainingError(
            f"{says}, and a chunk of {config.chunk} pictures cuts the {each} of a prompt apart. Set chunk to a "
            f"multiple of {each}, for example {max(1, config.chunk // each) * each}."
        )
