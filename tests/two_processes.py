"""Two training processes, played by two threads: what they gather and average meets in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from attune.training.share import Share

Found = TypeVar("Found")
PATIENCE = 60.0


class _Half(Share):
    """The part of one of the two.

    Attributes:
        building: held while networks are made: threads, unlike processes, share torch's generator, and with it peft's
            way to put layers in without content.
    """

    count = 2
    building = threading.Lock()

    def __init__(self, index: int, rooms: list[torch.Tensor | None], barrier: threading.Barrier) -> None:
        self.index, self.rooms, self.barrier = index, rooms, barrier

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        self.rooms[self.index] = own.detach()
        self.barrier.wait()
        both = torch.cat(self.rooms)
        self.barrier.wait()
        return both

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        names = sorted(figures)
        values = self.gather(torch.tensor([[float(figures[name]) for name in names]], dtype=torch.float64)).mean(0)
        return dict(zip(names, values.tolist(), strict=True))

    def lowest(self, number: int) -> int:
        return int(self.gather(torch.tensor([number])).min())


def in_two(work: Callable[[Share], Found]) -> list[Found]:
    """What `work` finds with each of two shares, at the same time.

    Raises:
        Exception: what the first of them raised; the other one does not wait for it.
    """
    rooms: list[torch.Tensor | None] = [None, None]
    barrier = threading.Barrier(2, timeout=PATIENCE)
    found: dict[int, Found] = {}
    failures: list[Exception] = []

    def half(index: int) -> None:
        try:
            found[index] = work(_Half(index, rooms, barrier))
        except Exception as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=half, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [found[0], found[1]]
