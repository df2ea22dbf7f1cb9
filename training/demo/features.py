"""Features of pictures and texts by one of the demo rewards, for what is trained without a host."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..checkpoint import read_tensors
from ..digests import file_digest
from ..interfaces import RewardContext
from ..preference.set_encoder import features_id
from .train_reward import EMBEDDING, REWARD, DualEncoder, RewardRecipe

_AT_ONCE = 64


class DemoFeatures:
    """A `PairFeatures` over the file of a demo reward.

    Args:
        path: the file. recipe: what it was trained by.
    """

    width = EMBEDDING

    def __init__(self, path: Path, recipe: RewardRecipe = REWARD) -> None:
        tensors, _ = read_tensors(path)
        tensors = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        rows, part = tensors.pop("token_rows"), tensors.pop("token_embedding.weight")
        with torch.random.fork_rng([]):
            self.encoder = DualEncoder(recipe.vision).eval().requires_grad_(False)
        table = torch.zeros_like(self.encoder.network.token_embedding.weight)
        table[rows] = part
        self.encoder.network.load_state_dict(tensors | {"token_embedding.weight": table})
        self.features_id = features_id(path)

    @torch.no_grad()
    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 64, 64, 3] in [0, 1] → unit vectors [B, 128]."""
        return torch.cat([self.encoder.images(part.movedim(-1, 1)) for part in images.split(_AT_ONCE)])

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """B texts → unit vectors [B, 128]; equal ones are encoded once."""
        distinct = list(dict.fromkeys(texts))
        found = dict(zip(distinct, self.encoder.texts(distinct), strict=True))
        return torch.stack([found[text] for text in texts])


class DemoReward(DemoFeatures):
    """A `Reward` over the file of a demo reward, without a host: the cosine of picture and prompt, −1 … 1.

    Args:
        path: the file. recipe: what it was trained by.
    """

    differentiable, higher_is_better = True, True

    def __init__(self, path: Path, recipe: RewardRecipe = REWARD) -> None:
        super().__init__(path, recipe)
        self.name, self.reward_id = path.stem.replace("_", " "), file_digest(path)[:16]

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        found = torch.cat([self.encoder.images(part.movedim(-1, 1)) for part in images.split(_AT_ONCE)])
        return (found * self.texts(prompts)).sum(1)

    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        """For diversity; see `diversity.feature_source`."""
        return self.images(images)
