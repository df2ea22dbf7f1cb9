"""Drift of the methods that learn from pictures that exist (Supervised, Diffusion-DPO): their "kl_to_reference".

DDPO, DAG and ReFL play trajectories and measure on them how far the policy's sampler is from the reference's
(`practice.Practice.kl_to_reference`). This is the same figure, in nats per picture, without trajectories. By the chain
rule the divergence of trajectories of T steps with levels σ_0 > … > σ_T is a sum over their steps,

    KL = Σ_i E_x KL(P_F(·|x, σ_i) ‖ P_F,ref(·|x, σ_i)) = Σ_i ½·(SNR(σ_{i+1}) − SNR(σ_i))·E_x ‖x̂0 − x̂0_ref‖²

(`rollout.step_divergence`: Gaussians of one deviation, η = 1). A step needs nothing of a trajectory but the state x
that it begins from. With rollouts x is what the policy played; here it is a noised picture of those to learn from,

    x = α(σ_i)·x0 + β(σ_i)·noise,   so that E_x is over q(x_σ | x0) and the pictures x0.

Measured is one step on one picture at a time, in turns: twice the last, which has most of the divergence, and then the
middle of one of the stretches that the others form. The steps of a stretch count in proportion to
`step_sensitivity`², which is the step's weight if the network's own output differs as much at neighbouring levels
(x̂0 moves by `output_scale`(σ) when that output moves by one). The figure is the sum of the newest measurements.

What it is, beside that of the methods with rollouts:
    - where the policy makes pictures like those of training, the states are alike and so are the figures. Where it does
      not, this tells how differently policy and reference continue from the *training pictures*; what else the policy
      has come to do is not seen;
    - the sampler has `STEPS` steps and no guidance, whatever the previews have: figures of methods that play with other
      steps or with guidance do not compare;
    - a measurement is made for every `PICTURES_PER_MEASUREMENT` pictures that are learned from, and what is not yet
      measured counts as 0, as a new LoRA is the reference: the figure lags behind, most updates with small batches.

Adapter dropout is off and no caption is dropped. The draws are functions of the number of the measurement: they take
nothing from the run's generators. Predictions are in full precision: rounding to 16 bit would pass for a drift.

References:
    our design; Kingma et al. 2021, "Variational Diffusion Models", for the weight of a step: it is that of their
    diffusion loss in discrete time, with the reference's x̂0 in place of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..diffusion import step_sensitivity
from ..precision import full_precision
from ..rollout import step_divergence
from ..share import ALONE, Share
from .divergence import stretches

# Of the sampler whose trajectories are compared: what the host's samplers and our previews begin with.
STEPS = 20
# The last step and three of the others: more would seldom have their turn.
STRETCHES = 4
# A measurement is two predictions of a single picture, and learning from a picture in a batch costs two to three: about
# a tenth of the time of supervised training, less of Diffusion-DPO's.
PICTURES_PER_MEASUREMENT = 16
SEED = 1_000_003

# The latents [C, H, W] and the conditioning of the picture of this number.
Picture = Callable[[int], tuple[torch.Tensor, Any]]


class PictureDrift:
    """The figure, and what it remembers from update to update; equal in all processes.

    Args:
        policy: its process may know fewer noise levels than `STEPS`: then the sampler has as many steps as it can.
        share: measurements of one update are shared out.

    Attributes:
        newest: the divergence of every stretch, from noise to picture, as measured last.
    """

    def __init__(self, policy: Any, share: Share = ALONE) -> None:
        self.policy, self.share = policy, share
        self.steps = min(STEPS, len(policy.process.sigmas) - 1)
        self.sigmas = policy.process.schedule(self.steps).to(policy.device)
        weights = step_sensitivity(policy.process, self.sigmas[:-1], self.sigmas[1:]).double().square()
        parts = stretches(range(self.steps), STRETCHES)
        # A step of each stretch, and how many times its divergence the whole stretch has.
        self._middles = [part[len(part) // 2] for part in parts]
        self._factors = [
            (weights[list(part)].sum() / weights[middle]).item()
            for part, middle in zip(parts, self._middles, strict=True)
        ]
        last = len(parts) - 1
        self._turns = [stretch for other in reversed(range(last)) for stretch in (last, last, other)] or [last]
        self.newest = [0.0] * len(parts)
        self._seen = self._measured = 0

    def measure(self, learned: int, count: int, picture: Picture) -> None:
        """Measure what is due; the policy's dropout is on afterwards.

        Args:
            learned: pictures that all processes together are about to learn from.
            count: pictures there are to measure on, each with a number below; picture: gives one.
        """
        due = -(-(self._seen + learned) // PICTURES_PER_MEASUREMENT) - -(-self._seen // PICTURES_PER_MEASUREMENT)
        due = min(due, len(self._turns))
        self._seen += learned
        if not due:
            return
        numbers = range(self._measured, self._measured + due)
        self._measured += due
        found = torch.zeros(due)
        self.policy.training_mode(False)
        for place, number in enumerate(numbers):
            if place % self.share.count == self.share.index:
                found[place] = self._look(number, count, picture)
        self.policy.training_mode(True)
        # Each is made in one process and 0 in the others.
        values = self.share.gather(found[None]).sum(0).tolist()
        by_stretch: dict[int, list[float]] = {}
        for number, value in zip(numbers, values, strict=True):
            by_stretch.setdefault(self._turn(number), []).append(value)
        for stretch, own in by_stretch.items():
            self.newest[stretch] = sum(own) / len(own)

    def _turn(self, number: int) -> int:
        return self._turns[number % len(self._turns)]

    @torch.no_grad()
    def _look(self, number: int, count: int, picture: Picture) -> torch.Tensor:
        """The divergence of a stretch, measured at its middle on one picture, []."""
        policy, process = self.policy, self.policy.process
        stretch = self._turn(number)
        step = self._middles[stretch]
        generator = torch.Generator().manual_seed(SEED + number)
        latents, cond = picture(int(torch.randint(count, (), generator=generator)))
        noise = torch.randn(1, *latents.shape, generator=generator).to(self.sigmas)
        sigma, after = self.sigmas[step : step + 1], self.sigmas[step + 1 : step + 2]
        x = process.add_noise(latents[None].to(self.sigmas), noise, sigma)
        with full_precision(policy.device):
            own = policy(x, sigma, [cond])
            with policy.role(None):
                reference = policy(x, sigma, [cond])
            return self._factors[stretch] * step_divergence(process, x, own, reference, sigma, after)[0]

    @property
    def kl_to_reference(self) -> float:
        """Of the policy's trajectories from the reference's, in nats per picture, as far as it is measured."""
        return sum(self.newest)

    def state_dict(self) -> dict[str, Any]:
        return {"newest": list(self.newest), "seen": self._seen, "measured": self._measured}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on; from the beginning if there is no state, which a run that knew no drift has not."""
        if state is None:
            return
        self.newest = [float(value) for value in state["newest"]]
        self._seen, self._measured = int(state["seen"]), int(state["measured"])
