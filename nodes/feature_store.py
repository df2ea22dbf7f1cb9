"""Features of pictures that are never computed twice, as long as the session lasts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch

from .picture_hashes import hashes_of


class FeatureStore:
    """Unit vectors by (encoder's reward id, picture hash); the least recently used are forgotten first.

    Safe between threads.

    Args:
        limit: how many vectors are kept in memory; one of 1024 numbers takes 4 kB.
    """

    def __init__(self, limit: int = 8192) -> None:
        self.limit = limit
        self._features: OrderedDict[tuple[str, str], torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._features)

    def of(self, encoder: Any, images: torch.Tensor) -> torch.Tensor:
        """`encoder.image_features` of images [B, h, w, c], without gradients, on the images' device: [B, D].

        Equal pictures are encoded once.
        """
        # Hashes are of numbers in 32 bits, which finer ones may share.
        if len(images) == 0 or images.dtype == torch.float64:
            return encoder.image_features(images)
        keys = [(str(encoder.reward_id), name) for name in hashes_of(images)]
        with self._lock:
            found = {key: self._features[key] for key in keys if key in self._features}
        missing = {key: index for index, key in enumerate(keys) if key not in found}
        if missing:
            fresh = encoder.image_features(images[list(missing.values())]).detach()
            # They may take part in a graph later, which tensors made in inference mode cannot.
            with torch.inference_mode(False):
                found |= zip(missing, fresh.to("cpu", copy=True).unbind(0), strict=True)
        with self._lock:
            for key in keys:
                self._features[key] = found[key]
                self._features.move_to_end(key)
            while len(self._features) > self.limit:
                self._features.popitem(last=False)
        return torch.stack([found[key] for key in keys]).to(images.device)


FEATURES = FeatureStore()
