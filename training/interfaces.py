"""The protocols through which the learning code meets the world.

`training/` knows no host: a network, a decoder and a reward reach it as one of these. Shapes: B batch, C latent
channels, H×W latent size, h×w image size, T sampler steps. Images are float32 [B, h, w, 3] in [0, 1], the host's
convention. Latents are the network's own (after the host's `process_latent_in`). Sigmas are the host's: for eps and v
models x = x0 + sigma·noise, for flow models x = (1 − sigma)·x0 + sigma·noise (see `diffusion.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn

if TYPE_CHECKING:
    from .diffusion import DiffusionProcess
    from .share import Share


class AttuneError(RuntimeError):
    """An error for the artist: says what is wrong, with which value, and what to do next.

    Every layer's own error type derives from it, so that a node can show the message without a traceback.
    """


class RewardError(AttuneError):
    """A reward returned something unusable, or cannot score this input."""


class TrainingError(AttuneError):
    """A training run cannot start or go on."""


@dataclass(frozen=True)
class Prompt:
    """One prompt, ready to condition the network.

    Attributes:
        text: the words, for rewards and records.
        positive: opaque conditioning of these words, as the `Denoiser` made it.
    """

    text: str
    positive: Any


@runtime_checkable
class Denoiser(Protocol):
    """A network that predicts the clean latent.

    Attributes:
        process: the noise process the network was trained on.
        module: what adapters attach to; its parameters are frozen unless an adapter is attached.
    """

    process: DiffusionProcess
    module: nn.Module

    @property
    def device(self) -> torch.device: ...

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any], *, guidance: float = 1.0
    ) -> torch.Tensor:
        """Predict x0.

        Args:
            x: noisy latents [B, C, H, W].
            sigma: noise levels [B].
            cond: B conditionings, one per sample (`Prompt.positive`, or `unconditional`).
            guidance: classifier-free guidance scale; 1 = no second evaluation.

        Returns:
            x0 [B, C, H, W], float32, differentiable with respect to x and to adapter parameters when gradients are on.
        """
        ...

    @property
    def unconditional(self) -> Any:
        """The empty conditioning, as used by guidance and by caption dropout."""
        ...


@runtime_checkable
class LatentDecoder(Protocol):
    """Latents to images and back."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, H, W] → images [B, h, w, 3] in [0, 1]; differentiable when gradients are on."""
        ...

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, 3] in [0, 1] → latents [B, C, H, W]; without gradients."""
        ...


@dataclass(frozen=True)
class RewardContext:
    """What a reward may look at besides picture and prompt.

    Attributes:
        previous: images of earlier rounds, oldest first, each [B, h, w, 3] or empty.
        extra: anything a particular reward documents.
    """

    previous: Sequence[torch.Tensor] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Reward(Protocol):
    """Scores pictures.

    Attributes:
        name: what people call it, e.g. "Demo CLIP".
        reward_id: stable identity: changes whenever the same picture could score differently (weights, settings).
        differentiable: whether scores carry gradients back to the images when gradients are on.
        higher_is_better: False for costs.
    """

    name: str
    reward_id: str
    differentiable: bool
    higher_is_better: bool

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, 3] in [0, 1] and B prompts → scores float32 [B]."""
        ...


def checked_scores(
    reward: Reward, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
) -> torch.Tensor:
    """Call a reward and refuse what would poison training.

    Returns:
        scores float32 [B], on the images' device.

    Raises:
        RewardError: prompts and images differ in number, or the scores have the wrong shape or are not finite; the
            message names the reward.
    """
    if len(images) != len(prompts):
        raise RewardError(f"{reward.name}: {len(images)} images but {len(prompts)} prompts; give one prompt per image.")
    scores = reward(images, prompts, context)
    if tuple(scores.shape) != (len(images),):
        raise RewardError(
            f"{reward.name} returned scores of shape {tuple(scores.shape)} for {len(images)} images; "
            f"a reward must return one number per image."
        )
    scores = scores.float()
    if not torch.isfinite(scores).all():
        bad = (~torch.isfinite(scores)).nonzero().flatten().tolist()
        raise RewardError(
            f"{reward.name} returned {scores[bad[0]].item()} for image {bad[0] + 1} of {len(images)}. "
            f"Score that image alone to find out why, or choose another reward."
        )
    return scores.to(images.device)


class Trainable(Protocol):
    """What the trainer optimises: named tensors on frozen weights. `adapters.Policy`, or a reward model's adapters.

    Attributes:
        roles: names of the sets of tensors; the trainer trains the first.
        config: their shape, a dataclass of JSON values.
    """

    roles: Sequence[str]
    config: Any

    @property
    def device(self) -> torch.device: ...

    def named_parameters(self, role: str) -> dict[str, nn.Parameter]:
        """What an optimizer trains, in float32."""
        ...

    def tensors(self, role: str) -> dict[str, torch.Tensor]:
        """A copy on the CPU, as it is saved."""
        ...

    def load_tensors(self, tensors: Mapping[str, torch.Tensor], role: str) -> None:
        """The inverse of `tensors`, which `named_parameters` alone must satisfy too."""
        ...

    def training_mode(self, on: bool) -> None:
        """Adapter dropout on or off."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON values that a resumed run must find the same, besides `config` and the base weights."""
        ...

    def base_fingerprint(self) -> str:
        """A short hash of the frozen weights."""
        ...


@dataclass(frozen=True)
class Auxiliary:
    """What an objective trains besides the policy, for itself: a value or flow network. It is not part of the LoRA.

    Attributes:
        parameters: float32 tensors by permanent names; saved and resumed under these.
        learning_rate: of theirs; it follows the run's schedule in proportion.
        kept: whether the policy is of no use without them: they are averaged with it, kept with the best weights, and
            given out beside it, see `trained.Trained`.
    """

    parameters: Mapping[str, nn.Parameter]
    learning_rate: float
    kept: bool = False


class Objective(Protocol):
    """One training method. The trainer owns optimisation; the objective owns what is minimised.

    One *update* of the trainer is: `losses` is iterated `accumulation` times; each scalar loss it yields is multiplied
    by 1/accumulation and back-propagated at once (so only one graph is alive; the losses of one iteration add up),
    then gradients are clipped and the optimizer steps. An objective that plays rollouts does so inside `losses` when
    it needs new ones.

    What an objective may have besides, and the trainer looks for:
        auxiliary() -> Auxiliary: further tensors to train; asked for after `prepare`.
        evaluate() -> dict[str, float]: figures of the weights as they would be saved, on fixed prompts and noise;
            called every `TrainerConfig.evaluate_every` updates without gradients. It must not touch the run's
            randomness.
        best_metric: the name of the figure among them by which the best weights are kept; higher is better unless
            best_is_high is False.
        policy_waits: updates at the start of a run whose losses reach the auxiliary tensors alone; 0 without.
        policy_every: after these the policy learns in each such update, counted from the first of them, and the
            auxiliary tensors alone in the others; 1 without. waits_by: what sets either, for errors.
        picture_memory(device) -> picture_memory.PictureMemory: what its decoder and reward need in a step.
        accumulation: set by the trainer to its own, before `prepare`: how often `losses` is iterated for an update.
        roles: of the policy that it needs, the trained one first; ("policy",) without.
        collapse(figures) -> str: why weights with these figures of `evaluate` are not worth going on with, as a
            sentence; "" if they are. The run then ends with the last weights that were.
        preview(noise, requests) -> latents: what is shown of the weights in place of the usual sampler's pictures.
        tie_metric: the name of another figure, higher is better: it decides between weights whose best_metric is equal.
    """

    name: str

    def prepare(self, policy: Any, share: Share) -> None:
        """Called once, with the attached `adapters.Policy`, before the first update (also after a resume).

        Args:
            share: this process's part of every batch; `share.ALONE` for a single process.
        """
        ...

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Yield the scalar losses of one update. All randomness comes from `generator` (on the CPU)."""
        ...

    def metrics(self) -> dict[str, float]:
        """Figures of the last update, by the names of the glossary in the documentation."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides adapters and optimizer; nested dicts of tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

    def sample_requests(self) -> Sequence[Prompt]:
        """The fixed prompts whose pictures are shown while training runs."""
        ...


class RunCallbacks:
    """How a run talks to whoever started it. The base class ignores everything; override what you show."""

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        """After every update: `metrics` holds "loss", "learning_rate", "gradient_norm" and the objective's figures."""

    def on_samples(self, step: int, images: torch.Tensor) -> None:
        """Fixed-seed previews, float32 [B, h, w, 3] in [0, 1]."""

    def on_phase(self, text: str, done: int, total: int) -> None:
        """Progress inside an update: e.g. ("rollout", 3, 8)."""

    def should_stop(self) -> bool:
        """Polled between losses; True ends the run after saving what stands."""
        return False
