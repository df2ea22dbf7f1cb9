"""What makes Choose Images ask again. Ours.

The host runs a node again only where its inputs have changed. That a question or a picture was lost, or that nobody
answered in time, changes none of them: every such case begins another round here, which the node's fingerprint holds.
"""

from __future__ import annotations

import threading


class Rounds:
    """Any thread may use it."""

    def __init__(self) -> None:
        self._number = 0
        self._changing = threading.Lock()

    @property
    def number(self) -> int:
        """Another one after every `begin`."""
        return self._number

    def begin(self) -> None:
        """Let the next run ask again."""
        with self._changing:
            self._number += 1


# Of this process, as what the host keeps of earlier runs is.
ROUNDS = Rounds()
