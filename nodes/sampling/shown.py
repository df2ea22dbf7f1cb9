"""What One-Step Preset and One-Step Sampler show: how is drawn, and what does not fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..host import server
from .presets import ModelFacts, OneStep, about_guidance, advice, expectations

log = logging.getLogger("attune")


def told(step: OneStep, facts: ModelFacts, more: Sequence[str] = ()) -> str:
    """The lines of a node: with ⚠ what does not fit, then what to expect, then how is drawn.

    A small node shows the first lines only, and the last one is about what is well.

    Args:
        more: what does not fit, besides.
    """
    warnings = [*advice(step, facts), *more]
    return "\n".join([*map(_warning, warnings), *expectations(step, facts), step.words()])


def _warning(words: str) -> str:
    return f"⚠ {words}"


class GuidanceWords:
    """Adds to what One-Step Preset shows when a sampler behind it computes guidance, and takes it back when none does.

    Only the sampler sees its cfg, and it runs when the preset has long shown its words.

    Args:
        node: id of the preset's node; None outside a graph.
        text: what it shows by itself.
    """

    def __init__(self, node: str | None, text: str) -> None:
        self.node, self.text = node, text
        self.found: dict[str, str] = {}

    def __call__(self, cfg: float | None) -> None:
        """What the node that is running has done; see `OneStepSampler` in `nodes/host/one_step.py`."""
        _, sampler = server.running()
        before = self.found.pop(sampler, None)
        if cfg is not None:
            self.found[sampler] = about_guidance(cfg)
            log.warning("Attune: %s", self.found[sampler])
        if self.node is not None and (before is not None or cfg is not None):
            server.tell_result(self.node, {"text": [self.words()]})

    def words(self) -> str:
        """All lines, each kind of guidance once."""
        return "\n".join([*map(_warning, dict.fromkeys(self.found.values())), self.text])
