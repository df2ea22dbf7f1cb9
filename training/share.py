"""One process's part of a batch, where a run is spread over several processes by `accelerate launch`.

Batch sizes of the configurations count per process. Every process draws the whole batch of all of them from the same
generator and works on its own rows, so that two processes with a batch of B learn what one with 2·B learns. What
compares samples with each other (advantages, baselines) gathers them first.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from .interfaces import TrainingError

Rows = TypeVar("Rows", torch.Tensor, Sequence[Any])


class Share:
    """All of the batch: a single process. Its methods change nothing.

    Attributes:
        index: of this process, counted from 0; count: of all processes.
    """

    index, count = 0, 1

    @property
    def main(self) -> bool:
        """Whether this process writes the files that there is one of."""
        return self.index == 0

    def rows(self, total: int) -> slice:
        """This process's part of `total` rows, contiguous.

        Raises:
            TrainingError: they cannot be shared out evenly.
        """
        if total % self.count:
            raise TrainingError(
                f"{total} samples cannot be shared evenly by {self.count} processes. Choose a batch size whose "
                "product with the number of processes fits."
            )
        part = total // self.count
        return slice(self.index * part, (self.index + 1) * part)

    def take(self, rows: Rows) -> Rows:
        """This process's part of the rows of the whole batch."""
        return rows[self.rows(len(rows))]

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        """The rows of all processes [count·B, …], in their order, from this process's [B, …]; without gradients."""
        return own

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Every figure averaged over the processes, which must give the same names."""
        return dict(figures)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        return flag

    def lowest(self, number: int) -> int:
        """The lowest of the processes' numbers."""
        return number

    def wait(self) -> None:
        """Until every process is here."""


ALONE = Share()


class LaunchedShare(Share):
    """The part of one of the processes that `accelerate launch` started."""

    def __init__(self, state: Any) -> None:
        """
        Args:
            state: an `accelerate.PartialState`.
        """
        self.state = state
        self.index, self.count = state.process_index, state.num_processes

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        from accelerate.utils import gather

        return gather(own.detach().to(self.state.device).contiguous()).to(own.device)

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        names = sorted(figures)
        own = torch.tensor([[float(figures[name]) for name in names]], dtype=torch.float32)
        return dict(zip(names, self.gather(own).double().mean(0).tolist(), strict=True))

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        from accelerate.utils import reduce

        for parameter in parameters:
            # A layer that one process's samples did not touch still takes part in the mean, as zeros.
            own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = reduce(own, reduction="mean")

    def any(self, flag: bool) -> bool:
        return bool(self.gather(torch.tensor([float(bool(flag))])).max() > 0)

    def lowest(self, number: int) -> int:
        return int(self.gather(torch.tensor([number])).min())

    def wait(self) -> None:
        self.state.wait_for_everyone()


def launched_share(*, cpu: bool = False) -> Share:
    """The share that the launcher gave to this process; `ALONE` without a launcher.

    `accelerate launch --multi_gpu --num_processes N` starts N processes on CPUs too; its option --cpu starts one.

    Args:
        cpu: compute on the CPU, also where there are GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return ALONE
    from accelerate import PartialState

    return LaunchedShare(PartialState(cpu=cpu))
