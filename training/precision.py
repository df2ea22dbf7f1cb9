"""Where a run in 16 bit computes in full precision all the same."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """Outside the trainer's autocast: what is computed within has the precision of its own weights and inputs.

    A context manager, not to be held while a generator yields: the trainer would lose its autocast.

    Args:
        device: the policy's, for which the trainer casts.
    """
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()
