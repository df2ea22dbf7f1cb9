"""Diffusion-DPO: learn from pairs of pictures of which one was preferred, without a reward.

    L = −log σ(margin),   margin = r_chosen − r_rejected,   r = −½β·(ℓ_θ − ℓ_ref)

r is the *implicit reward* of a picture: how much better the policy denoises it than the reference does, which is the
same network with its adapter off. ℓ is the mean squared error over C, H and W of the network's own target:

| model | ℓ                              | from the error of the predicted x0      |
| ----- | ------------------------------ | --------------------------------------- |
| eps   | ‖noise − predicted noise‖²     | (α/β)²·‖x0 − x̂0‖²                       |
| v     | ‖v − predicted v‖²             | ((α/β)² + 1)·‖x0 − x̂0‖²                 |
| flow  | ‖velocity − its prediction‖²   | ‖x0 − x̂0‖²/σ²,  velocity = noise − x0   |

Noise level and noise are shared by the two pictures of a pair and by policy and reference.

Since the implicit reward is known for any pair, pairs that are held out tell whether the preference carries over:
their margins are taken at fixed noise levels with fixed noise, so that the figures compare from update to update.

References:
    Wallace et al. 2023, "Diffusion Model Alignment Using Direct Preference Optimization", eq. 13-14; values of the
    released code: errors averaged over latent dimensions, β 5000, t uniform, no weight of the noise level.
    Liu et al. 2025, "Improving Video Generation with Human Feedback", for the velocity error of flow models.

Differences from the paper:
    - v and flow models. Flow models draw their noise levels from a logit-normal, as in the supervised objective, and
      have the same β at all of them;
    - captions are dropped now and then, for both pictures of a pair at once, so that guidance keeps working (the
      released code trains with every caption);
    - a pair may have a weight. Ties and skipped pairs can be handed in; they are counted and not learned from;
    - which picture of a pair comes first in a call is drawn, so that no place in a batch favours one side;
    - the reference is the adapter switched off, not a second network: it costs a pass without gradients and no memory.
      Adapter dropout acts on the policy alone;
    - "kl_to_reference" is measured beside it on pictures of the pairs, chosen and rejected ones, see `drift`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch

from ..config_checks import check_numbers
from ..diffusion import DiffusionProcess, expand
from ..interfaces import Prompt, TrainingError
from ..share import ALONE, Share
from .drift import PictureDrift
from .supervised import draw_sigmas, loss_weight

EVALUATION_SEED = 1_000_003
Verdict = Literal["preferred", "tie", "skip"]


@dataclass(frozen=True)
class DiffusionDPOConfig:
    """Knobs of Diffusion-DPO.

    Attributes:
        batch: pairs per update, of each process.
        beta: how strongly the policy is held to the reference, > 0: the margin's factor is β/2. Raising it makes small
            changes count as much; the policy then stays closer.
        caption_dropout: share of pairs trained without their caption, 0…1.
        held_out_levels: noise levels on which each held-out pair is measured; more is steadier and slower.
        chunk: pairs per network call; smaller needs less memory. No draw of the method depends on it.
    """

    batch: int = 4
    beta: float = 5000.0
    caption_dropout: float = 0.1
    held_out_levels: int = 4
    chunk: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        for field in ("batch", "held_out_levels", "chunk"):
            if getattr(self, field) < 1:
                told = "batch (pairs_per_update in the node)" if field == "batch" else field
                raise TrainingError(f"Diffusion-DPO: {told} must be at least 1, not {getattr(self, field)}.")
        if not self.beta > 0:
            raise TrainingError(f"Diffusion-DPO: beta must be above 0, not {self.beta}: with 0 nothing is learned.")
        if not 0 <= self.caption_dropout <= 1:
            raise TrainingError(f"Caption dropout is a share between 0 and 1, not {self.caption_dropout}.")

    def identity(self) -> dict[str, Any]:
        """The fields that must not change on a resume: all but `chunk`, which memory decides."""
        return {name: value for name, value in asdict(self).items() if name != "chunk"}


@dataclass(frozen=True)
class Pair:
    """One judgement, ready to learn from.

    Attributes:
        chosen, rejected: latents [C, H, W] of one shape, network space.
        prompt: what both pictures were made for.
        weight: how much it counts among the pairs, ≥ 0; relative, since the weights of a run are scaled to mean 1.
        verdict: "preferred": chosen is the better one. "tie" and "skip" are kept out of the loss and of all figures.

    Raises:
        TrainingError: the shapes differ, the weight is negative or no number, or the verdict is unknown.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    prompt: Prompt
    weight: float = 1.0
    verdict: Verdict = "preferred"

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape:
            raise TrainingError(
                f"The two pictures of a pair ({self.prompt.text!r}) differ in size: their latents are "
                f"{tuple(self.chosen.shape)} and {tuple(self.rejected.shape)}. Scale them alike, or leave the pair out."
            )
        if not 0 <= self.weight < float("inf"):
            raise TrainingError(f"The weight of a pair must be a number of at least 0, not {self.weight}.")
        if self.verdict not in get_args(Verdict):
            choices = ", ".join(get_args(Verdict))
            raise TrainingError(f"The verdict on a pair must be one of {choices}; not {self.verdict!r}.")

    @property
    def counts(self) -> bool:
        """Whether something can be learned from it."""
        return self.verdict == "preferred" and self.weight > 0


class PreferenceLoss(NamedTuple):
    """`loss` [B]; the rest detached, [B]: the two implicit rewards and their difference."""

    loss: torch.Tensor
    margin: torch.Tensor
    chosen_reward: torch.Tensor
    rejected_reward: torch.Tensor


def preference_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float,
) -> PreferenceLoss:
    """−log σ(−½β[(ℓ_w − ℓ_l)_θ − (ℓ_w − ℓ_l)_ref]) per pair (Wallace et al. 2023, eq. 14).

    Args:
        chosen, rejected: denoising errors ℓ ≥ 0 of the policy, with gradients, [B].
        reference_chosen, reference_rejected: those of the reference; no gradient reaches them, [B].
        beta: β > 0.
    """
    # Each picture against its own reference first: the two errors are nearly equal, and β is large.
    chosen_reward = -0.5 * beta * (chosen - reference_chosen.detach())
    rejected_reward = -0.5 * beta * (rejected - reference_rejected.detach())
    margin = chosen_reward - rejected_reward
    loss = -torch.nn.functional.logsigmoid(margin)
    return PreferenceLoss(loss, margin.detach(), chosen_reward.detach(), rejected_reward.detach())


def accuracy(margins: torch.Tensor) -> float:
    """Share of the margins above 0, those of exactly 0 (a policy that has not moved) counting half; NaN of none."""
    return ((margins > 0).double() + 0.5 * (margins == 0).double()).mean().item()


def level_quantiles(process: DiffusionProcess, count: int, *, lowest: float = 0.0) -> torch.Tensor:
    """`count` noise levels that stand for those of training: the midpoints of equal parts of their distribution.

    Args:
        lowest: as for `draw_sigmas`.
    """
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    if process.prediction == "flow":
        normal = 2**0.5 * torch.erfinv(2 * middles - 1)
        levels = lowest + (1 - lowest) * torch.sigmoid(normal)
        return levels.clamp(process.sigma_min, process.sigma_max).float()
    first = int(lowest * len(process.sigmas))
    return process.sigmas[first + (middles * (len(process.sigmas) - first)).long()].float()


@dataclass(frozen=True)
class Look:
    """One pair at one noise level: everything that is drawn for a comparison."""

    pair: Pair
    sigma: torch.Tensor  # []
    noise: torch.Tensor  # [C, H, W]
    captioned: bool = True
    rejected_first: bool = False


class DiffusionDPOObjective:
    """Learns a preference from pairs.

    Args:
        pairs: what to learn from; sizes may differ between pairs (buckets are formed by size).
        held_out: measured by `evaluate` and never learned from; their prompts and pictures should be in no pair of
            `pairs` (see `pair_split.split_pairs`).
        previews: prompts of the sample pictures shown while training; the first of the pairs' if empty.
        on_phase: called with (phase, done, total) while held-out pairs are measured; may raise to cancel.

    Raises:
        TrainingError: no pair is left when ties and skipped ones are taken out.
    """

    name = "diffusion-dpo"

    def __init__(
        self,
        pairs: Sequence[Pair],
        config: DiffusionDPOConfig,
        *,
        held_out: Sequence[Pair] = (),
        previews: Sequence[Prompt] = (),
        on_phase: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.pairs = [pair for pair in pairs if pair.counts]
        self.held_out = [pair for pair in held_out if pair.counts]
        self.left_out = len(pairs) + len(held_out) - len(self.pairs) - len(self.held_out)
        if not self.pairs:
            raise TrainingError(
                f"There are no pairs to learn from: of {len(pairs)} none has a preferred picture. Ties and skipped "
                "pairs teach nothing; collect more."
            )
        self.config = config
        self.previews = list(previews) or list({pair.prompt.text: pair.prompt for pair in self.pairs}.values())[:4]
        self.on_phase = on_phase or (lambda text, done, total: None)
        # Without held-out pairs there is nothing to choose the best weights by.
        self.best_metric = "held_out_accuracy" if self.held_out else ""
        # Few pairs have few different accuracies, and many weights would share the best of them.
        self.tie_metric = "held_out_margin" if self.held_out else ""
        self._mean_weight = sum(pair.weight for pair in self.pairs) / len(self.pairs)
        self._policy: Any = None
        self._share: Share = ALONE
        self._drift: Any = None
        self._order: list[int] = []
        self._figures: dict[str, float] = {}

    def prepare(self, policy: Any, share: Share = ALONE) -> None:
        self._policy, self._share = policy, share
        self._drift = PictureDrift(policy, share)

    # ---- one update ----

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        looks = [self._look(generator) for _ in range(self.config.batch * self._share.count)]
        own = self._share.take(looks)
        self._drift.measure(2 * len(looks), 2 * len(self.pairs), self._picture)
        found = []
        for rows in parts_of_one_size(own, self.config.chunk):
            part = [own[row] for row in rows]
            result = self._compare(part)
            found.append(torch.stack([result.margin, result.chosen_reward, result.rejected_reward], 1))
            weights = torch.tensor([look.pair.weight / self._mean_weight for look in part]).to(result.loss)
            yield (weights * result.loss).sum() / len(own)
        margin, chosen, rejected = self._share.gather(torch.cat(found).float()).unbind(1)
        self._figures = {
            "margin": margin.mean().item(),
            "accuracy": accuracy(margin),
            "chosen_reward": chosen.mean().item(),
            "rejected_reward": rejected.mean().item(),
            "kl_to_reference": self._drift.kl_to_reference,
        }

    def _picture(self, number: int) -> tuple[torch.Tensor, Any]:
        """The chosen and the rejected picture of every pair in turn, with what they are conditioned on."""
        pair = self.pairs[number // 2]
        return (pair.rejected if number % 2 else pair.chosen), pair.prompt.positive

    @property
    def _lowest_noise(self) -> float:
        """Share of the noise levels that nothing is learned on."""
        return 0.0

    def _look(self, generator: torch.Generator) -> Look:
        """The next pair, without replacement, and its draws: pair by pair, so that batches can be cut anywhere."""
        if not self._order:
            self._order = torch.randperm(len(self.pairs), generator=generator).tolist()
        pair = self.pairs[self._order.pop(0)]
        sigma = draw_sigmas(self._policy.process, 1, generator, lowest=self._lowest_noise)[0]
        noise = torch.randn(pair.chosen.shape, generator=generator)
        dropped, turned = torch.rand(2, generator=generator).tolist()
        return Look(pair, sigma, noise, dropped >= self.config.caption_dropout, turned < 0.5)

    def _compare(self, looks: Sequence[Look]) -> PreferenceLoss:
        """Policy against reference on pairs of one size."""
        policy, process = self._policy, self._policy.process
        turned = torch.tensor([look.rejected_first for look in looks])
        clean = torch.stack([pictures for look in looks for pictures in _in_order(look)])  # (2B, C, H, W)
        clean = clean.to(policy.device, torch.float32)
        noise = torch.stack([look.noise for look in looks]).repeat_interleave(2, 0).to(clean)
        sigma = torch.stack([look.sigma for look in looks]).repeat_interleave(2).to(clean)
        cond = [look.pair.prompt.positive if look.captioned else policy.unconditional for look in looks for _ in "wl"]
        x = process.add_noise(clean, noise, sigma)
        scale = expand(loss_weight(process, sigma, gamma=0.0), clean)

        def errors() -> tuple[torch.Tensor, torch.Tensor]:
            found = (scale * (policy(x, sigma, cond) - clean).square()).flatten(1).mean(1).reshape(-1, 2)  # (B, 2)
            return torch.where(turned.to(found.device)[:, None], found.flip(1), found).unbind(1)

        with torch.no_grad(), policy.role(None):
            reference = errors()
        return preference_loss(*errors(), *reference, beta=self.config.beta)

    # ---- records ----

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out figures of the weights as they are: each pair's margin, averaged over fixed levels and noises."""
        if not self.held_out:
            return {}
        looks = self._held_out_looks()
        margins = torch.zeros(len(looks))
        done = 0
        self.on_phase("evaluate", done, len(looks))
        for rows in parts_of_one_size(looks, self.config.chunk):
            margins[rows] = self._compare([looks[row] for row in rows]).margin.float().cpu()
            done += len(rows)
            self.on_phase("evaluate", done, len(looks))
        means = margins.reshape(len(self.held_out), -1).mean(1)
        return {"held_out_accuracy": accuracy(means), "held_out_margin": means.mean().item()}

    def _held_out_looks(self) -> list[Look]:
        """Every held-out pair at every level, pair by pair; the same ones at each call."""
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        count = self.config.held_out_levels
        levels = level_quantiles(self._policy.process, count, lowest=self._lowest_noise)
        return [
            Look(pair, level, torch.randn(pair.chosen.shape, generator=generator))
            for pair in self.held_out
            for level in levels
        ]

    def metrics(self) -> dict[str, float]:
        return self._figures

    def state_dict(self) -> dict[str, Any]:
        return {"order": list(self._order), "figures": dict(self._figures), "drift": self._drift.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._order = [int(i) for i in state["order"]]
        self._figures = dict(state["figures"])
        self._drift.load_state_dict(state.get("drift"))

    def sample_requests(self) -> Sequence[Prompt]:
        return self.previews


def parts_of_one_size(looks: Sequence[Look], most: int) -> Iterator[list[int]]:
    """Places of the looks in parts of at most `most`, each of latents of one shape, in a fixed order."""
    buckets: dict[tuple[int, ...], list[int]] = {}
    for place, look in enumerate(looks):
        buckets.setdefault(tuple(look.noise.shape), []).append(place)
    for bucket in buckets.values():
        for start in range(0, len(bucket), most):
            yield bucket[start : start + most]


def _in_order(look: Look) -> tuple[torch.Tensor, torch.Tensor]:
    pair = look.pair
    return (pair.rejected, pair.chosen) if look.rejected_first else (pair.chosen, pair.rejected)
