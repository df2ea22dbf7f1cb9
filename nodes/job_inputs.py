"""What a node's inputs become in a job file, where "the same as now" needs another word than in a workflow.

A job may be carried out after a profile was renamed: it names the profile by its key. A family says so for its nodes,

    in_jobs("AttunePreferenceProfile", by_key)

and `training/job_file.py` asks for every node of a job, knowing none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..training.interfaces import AttuneError

log = logging.getLogger("attune")

Pinning = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_pinnings: dict[str, Pinning] = {}


def in_jobs(class_type: str, pinning: Pinning) -> None:
    """From now on the inputs of such nodes (links among them, as [node, output]) go through `pinning`."""
    _pinnings[class_type] = pinning


def job_inputs(class_type: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """A node's inputs as a job file holds them; as they are where they cannot be put in other words."""
    pinning = _pinnings.get(class_type)
    try:
        return dict(inputs if pinning is None else pinning(inputs))
    except AttuneError as error:
        log.warning("Attune: the job file takes %s as it is: %s", class_type, error)
        return dict(inputs)
