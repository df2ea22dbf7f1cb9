"""Train LoRA in a loop of rounds: each is learned once, by whatever run of the graph comes to it first.

A round's plan may have nothing to teach (nobody has said anything yet, or a round is made again as it was), or its LoRA
is there already, from before an undo, a restart of the host, or "Other pictures". Then nothing is trained, and the
model goes on with that LoRA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...training.run_state import StateFolder
from ..charts import curve_chart
from .figures import first_curves
from .plan_multi_round import RoundPlan
from .products import product_of
from .records import reward_record
from .run_records import TrainingOutcome, TrainingRequest

STOPPED = "_stopped"
# What may differ between two runs that learn the same.
_NO_MATTER = ("checkpoint_seconds", "sample_every")


def start_of(plan: Any, connected: Mapping[str, torch.Tensor] | None) -> Mapping[str, torch.Tensor] | None:
    """What a run begins with: a session's own LoRA where it has one, else what is connected."""
    return plan.start if isinstance(plan, RoundPlan) and plan.start is not None else connected


def goes_on(plan: Any, folder: Path, steps: int, *, asked: bool) -> bool:
    """Whether a run goes on with the state in its folder, where that is asked for.

    The rounds of a session share a folder. A round goes on with a state of its own that is not complete, and takes the
    place of any other.
    """
    if not asked or not isinstance(plan, RoundPlan):
        return asked
    state = StateFolder(folder).newest()
    return state is not None and state["step"] < steps and state["identity"].get("data") == plan.data_hash()


def without_training(request: TrainingRequest) -> TrainingOutcome | None:
    """What a run gives that has nothing to learn; None where it has something.

    Raises:
        AttuneError: the LoRA does not fit the model.
    """
    plan = request.plan
    if not isinstance(plan, RoundPlan):
        return None
    if plan.rest:
        return _outcome(request, request.start, plan.start_name, plan.rest, "not trained", {})
    known = None if request.anew else _known(request, plan)
    if known is None:
        return None
    told = f"{plan.words} It has been learned before: {known.name}."
    metrics = json.loads(known.header.get("attune.metrics", "") or "{}")
    return _outcome(request, known.tensors, known.name, told, "learned before", metrics)


def _known(request: TrainingRequest, plan: RoundPlan) -> Any:
    """The LoRA that training would make once more; None = there is none."""
    from ..host.applied_loras import settings_of, stored_lora
    from ..host.folders import lora_folder
    from ..host.hashing import base_hash

    made = {"objective": plan.settings(), **product_of(request).settings(), "training": asdict(request.trainer)}
    wanted = {part: _plain(value) for part, value in made.items()}
    base, data = base_hash(request.model), plan.data_hash()

    def same(header: Mapping[str, str]) -> bool:
        if header.get("attune.base_hash") != base or header.get("attune.data_hash") != data:
            return False
        if header.get("attune.base_precision") or header.get("modelspec.title", "").endswith(STOPPED):
            return False
        found = settings_of(header)
        return all(_plain(found.get(part)) == wanted.get(part) for part in (*wanted, "start_lora"))

    return stored_lora(same, lora_folder())


def _plain(settings: Any) -> Any:
    """As JSON would hold them, without what does not matter."""
    if isinstance(settings, dict):
        settings = {name: value for name, value in settings.items() if name not in _NO_MATTER}
    return json.loads(json.dumps(settings))


def _outcome(
    request: TrainingRequest, tensors: Any, name: str, told: str, status: str, metrics: Mapping[str, float]
) -> TrainingOutcome:
    """The model with that LoRA, and the words, in the live view and as a picture."""
    from ..host.sampling import apply_lora
    from .callbacks import LiveCallbacks

    plan = request.plan
    model = request.model if tensors is None else apply_lora(request.model, tensors)
    live = LiveCallbacks(0, run=request.run_name, node_id=request.node_id, workflow=request.workflow_id)
    first = first_curves(plan.method)
    live.start(method=plan.title, first_curves=first, step=0, history=[], note="")
    live.end("finished", file=name, message=told)
    about = {"words": told, "session": plan.lesson.session, "round": plan.lesson.number}
    report = {
        "run": request.run_name, "method": plan.method, "status": status, "steps": 0, "seconds": 0.0,
        "lora_name": name, "about": about, **reward_record(plan), "metrics": dict(metrics),
    }  # fmt: skip
    shown = {
        "status": "finished", "workflow": request.workflow_id, "run": request.run_name, "method": plan.title, "step": 0,
        "first": 0, "total": 0, "first_curves": first, "history": [], "samples": [], "note": "",
        "file": name, "message": told,
    }  # fmt: skip
    chart = curve_chart([], title=f"{request.run_name}: round {plan.lesson.number}", details=told)
    return TrainingOutcome(model, None if tensors is None else dict(tensors), [], chart, name, report, shown)
