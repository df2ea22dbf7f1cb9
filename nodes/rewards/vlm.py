"""A vision-language model as a reward: r(image, prompt) of `training/vlm_reward.py`, in the rewards' common form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from ...training.four_bit import can_be_moved
from ...training.interfaces import RewardContext, RewardError
from ...training.vlm_base import Precision, load_base
from ...training.vlm_reward import TrainedReward, VlmScorer, apply_trained, load_trained
from .cache import CachedReward
from .pictures import to_rgb

IMAGES_AT_ONCE = 4
# Stands in the id, by which scores are kept on the disk. Raise it whenever a change in this program gives other scores.
VERSION = 1


class VlmReward:
    """The scalar of a trained vision-language model. Higher is better; zero is the middle of its held-out pictures.

    Not differentiable in the pictures (see `VlmScorer`).

    Args:
        scorer: with its trained adapters and head on it.
        trained: what is on it.
        device: where it is.

    Attributes:
        network: the scorer, for the host's memory management.
        place: called before every forward pass, returns the device that the network is on.
        between: called before every few pictures; what it raises ends the scoring (the host's Cancel).
        patchers: what the host manages this network by; empty outside the host, and for 4-bit weights that cannot be
            moved, which stay where they were loaded.
    """

    differentiable = False
    higher_is_better = True
    uses_prompt = True

    def __init__(self, scorer: VlmScorer, trained: TrainedReward, *, device: torch.device) -> None:
        base = scorer.base
        self.name = trained.name
        # The library prepares the pictures, and has changed how before.
        self.reward_id = ":".join(
            [
                "vlm",
                f"v{VERSION}",
                f"transformers-{version('transformers')}",
                base.digest[:16],
                trained.digest[:16],
                base.precision,
                str(base.dtype),
            ]
        )
        self.network = scorer
        self.trained = trained
        self.place: Callable[[], torch.device] = lambda: device
        self.between: Callable[[], None] = lambda: None
        self.patchers: tuple[object, ...] = ()

    @property
    def movable(self) -> bool:
        """Whether the weights may be moved between devices; for 4-bit ones that depends on bitsandbytes' version."""
        return can_be_moved(self.network)

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B], on the images' device.

        Raises:
            RewardError: the images are no pictures, counts differ, or the model refuses them.
        """
        if len(images) != len(prompts):
            raise RewardError(f"{self.name}: {len(images)} images but {len(prompts)} prompts; give one per image.")
        pictures = to_rgb(images)
        if len(pictures) == 0:
            return images.new_zeros(0, dtype=torch.float32)
        self.place()
        scores = []
        with torch.no_grad():
            for start in range(0, len(pictures), IMAGES_AT_ONCE):
                self.between()
                part = slice(start, start + IMAGES_AT_ONCE)
                scores.append(self.network(self.network.encode(list(pictures[part]), prompts[part])))
        return torch.cat(scores).to(images.device)


def load_vlm_reward(
    folder: Path, trained: Path, *, precision: Precision = "fp32", device: torch.device | str = "cpu"
) -> CachedReward:
    """A model folder with a trained reward on it, cached.

    Raises:
        RewardError: the folder or the file cannot be loaded, or they do not belong together.
    """
    found = load_trained(trained)
    device = torch.device(device)
    scorer = VlmScorer(load_base(folder, precision=precision, device=device), device=device)
    apply_trained(scorer, found)
    return CachedReward(VlmReward(scorer, found, device=device))
