"""What a run asks for, what it gives, and what it writes down: live messages, LoRA files, report."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ...training.adapters import LoraConfig
from ...training.interfaces import AttuneError, Trainable
from ...training.memory import MemoryEstimate, MemorySettings
from ...training.run_log import RunLog
from ...training.run_state import StateFolder, unpack_history
from ...training.trained import given_by, parted
from ...training.trainer import TrainerConfig, TrainResult
from ..charts import curve_chart
from .figures import curves_of, first_curves
from .fitting import Fit
from .job_file import FILE_NAME as JOB_NAME
from .job_file import job_of, write_job
from .live import LIVE, rows_of
from .plans import ObjectivePlan
from .products import Facts, kept_file, product_of, trained_weights
from .records import (
    check_writable,
    duration_text,
    newest_history,
    pack_version,
    read_record,
    size_text,
    write_record,
)

log = logging.getLogger("attune")


@dataclass(frozen=True)
class TrainingRequest:
    """What the Train LoRA node asks for.

    `model` is the host's MODEL, `graph` the prompt in API format, if known, `start` the host's LORA_MODEL with the
    weights to begin with; None = fresh ones. `anew`: a round is learned although its LoRA is there, see `rounds`.
    """

    model: Any
    plan: ObjectivePlan
    lora: LoraConfig
    trainer: TrainerConfig
    run_name: str
    resume: bool
    node_id: str | None = None
    workflow_id: str = ""
    graph: Mapping[str, Any] | None = None
    memory: MemorySettings = field(default_factory=MemorySettings)
    start: Mapping[str, torch.Tensor] | None = field(default=None, repr=False)
    anew: bool = False


@dataclass(frozen=True)
class TrainingOutcome:
    """What a run gives to the graph when it is over: finished, ended early, or stopped and saved.

    Attributes:
        model: the host's MODEL with the LoRA on it; as it was where a user adapter was trained, or nothing.
        tensors: the LoRA by its keys in the file, as the host's LORA_MODEL; None where there is none.
        losses: one per update, as the host's LOSS_MAP.
        chart: the report picture.
        lora_name: as the node lists the file that loads it; "" = there is none.
        report: JSON-able.
        live: the live view's snapshot.
    """

    model: Any
    tensors: dict[str, torch.Tensor] | None
    losses: list[float]
    chart: Image.Image
    lora_name: str
    report: dict[str, Any]
    live: dict[str, Any]


def words_of(error: BaseException) -> str:
    """An error as the live view shows it. Ours explain themselves; of others the kind is half of what they say."""
    words = str(error).strip()
    if isinstance(error, AttuneError):
        return words
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def export_job(graph: Mapping[str, Any] | None, node: str | None, run_name: str) -> str:
    """Write the job file of a training node into its run's folder; says where it is and how to carry it out.

    Raises:
        AttuneError: there is no graph, or the folder cannot be written.
    """
    from ..host.folders import run_folder

    if graph is None or node is None:
        raise AttuneError("A job file is made of a workflow in the graph, and there is none here.")
    path = run_folder(run_name) / JOB_NAME
    write_job(path, job_of(graph, node, run=run_name, version=pack_version()))
    return f'Job file: {path}\nTo train without a page, in the pack\'s folder:  python run.py train "{path}"'


def figures_at(history: Any, step: int) -> Mapping[str, float]:
    """The report of one update out of a history, packed as in a saved state or not; empty if it is not there."""
    rows = unpack_history(history) if isinstance(history, Mapping) else history
    return next((row for row in reversed(rows) if row["step"] == step), {})


class RunRecords:
    """The records of a run: live messages, files, report.

    Attributes:
        product: what the run makes, see `products`.
        about: what the objective tells of its data, for the report.
    """

    def __init__(self, request: TrainingRequest, folder: Path, identity: Mapping[str, str]) -> None:
        from .callbacks import LiveCallbacks

        self.request, self.folder, self.identity = request, folder, identity
        self.callbacks = LiveCallbacks(
            request.trainer.steps, run=request.run_name, node_id=request.node_id, workflow=request.workflow_id
        )
        self.product = product_of(request)
        self.about: dict[str, Any] = {}
        self.prediction = ""
        self.resolution: tuple[int, int] | None = None
        self.memory: MemoryEstimate | None = None
        self.fit = Fit()
        # What earlier calls of this run put down; see `keep_record`.
        self.earlier: dict[str, Any] = {}
        # What was set anew on the way; see `TrainResult.changes`.
        self.changes: list[dict[str, Any]] = []
        self.began = time.monotonic()

    # ---- begin and end ----

    def begin(self, memory: MemoryEstimate | None) -> None:
        """Say that the run begins.

        Raises:
            TrainingError: what is trained could not be saved at the end.
        """
        self.memory = memory
        check_writable(self.product.folder())
        self.earlier = read_record(self.folder)
        state = newest_history(self.folder) if self.request.resume else None
        if state is None and self.earlier:
            # Anew: of what another run put down here, only its file still counts, which may turn out to be the same.
            # But that run is given up, and its record with it, only when an update has taken its place.
            self.earlier = self._kept()
        self.callbacks.at_first_update = lambda: self._take_over(anew=state is None)
        self.callbacks.log = RunLog(self.folder)
        step, history = state or (0, [])
        self.began = time.monotonic()
        plan = self.request.plan
        first = first_curves(plan.method)
        self.callbacks.start(method=plan.title, first_curves=first, step=step, history=history, note=self.note)

    def _take_over(self, *, anew: bool) -> None:
        """The folder is this run's from now on: its record, and its job file for running it without a page."""
        request = self.request
        if anew and self.earlier:
            write_record(self.folder, self.earlier)
        if request.graph is None or request.node_id not in request.graph:
            return
        try:
            job = job_of(request.graph, request.node_id, run=request.run_name, version=pack_version())
            write_job(self.folder / JOB_NAME, job)
        except AttuneError as error:  # a convenience: the run goes on without
            log.warning("Attune: %s", error)

    def _kept(self) -> dict[str, Any]:
        """What every later call has to know, also one that starts anew."""
        return {"lora_name": self.earlier.get("lora_name", ""), "pause": self.earlier.get("pause", "")}

    @property
    def seconds(self) -> float:
        """What the run took so far, over all calls. One without an update adds nothing: its work is done again.

        A call whose process was killed is not counted: it could not put down what it took.
        """
        spent = time.monotonic() - self.began if self.callbacks.updates else 0.0
        return round(self.earlier.get("seconds", 0.0) + spent, 3)

    def keep_record(self, status: str) -> None:
        """Put down what the call that goes on with this run has to know, unless this one did nothing."""
        if self.callbacks.updates:
            kept = self._kept() | {"memory": self._memory_figures()}
            write_record(self.folder, {"run": self.request.run_name, "status": status, "seconds": self.seconds, **kept})

    def _memory_figures(self) -> dict[str, Any] | None:
        if self.memory is None:
            return self.earlier.get("memory")
        return asdict(self.memory) | {"total": self.memory.total} | self.fit.figures()

    @property
    def note(self) -> str:
        parts = [self.about["words"]] if "words" in self.about else []
        back = [change for change in self.changes if change["setting"] == "weights"]
        parts += [f"It collapsed {change['before']} and went on from the weights {change['now']}." for change in back]
        if self.memory is not None:
            total = f"Memory: about {size_text(self.memory.total)} (step {size_text(self.memory.step)})"
            parts.append(f"{total}. {self.fit.note}" if self.fit.note else total)
        return " ".join(parts)

    def broke_off(self, policy: Trainable, error: BaseException) -> None:
        """Keep what an interrupt or an error leaves: the newest state as a file. Never hides the error."""
        interrupted = type(error).__name__ == "InterruptProcessingException" or isinstance(error, KeyboardInterrupt)
        name, problem = "", ""
        try:
            state = StateFolder(self.folder).newest() if self.callbacks.updates else None
            if state and state["step"] > 0:
                step, tensors = given_by(state, best=self.request.trainer.keep == "best")
                self.changes = state.get("changes", [])
                role = policy.roles[0]
                policy.load_tensors(parted(tensors)[0], role)
                tensors = {**tensors, **policy.tensors(role)}
                name = self._save(tensors, step, figures_at(state["history"], step), ending="_stopped")
        except Exception as second:  # of any kind: what ended the run is what the user must hear of
            problem = self._not_saved(second)
        self.keep_record("stopped" if interrupted else "failed")
        if interrupted:
            self._end_stopped(name, problem)
        else:
            self.callbacks.end("failed", file=name, message=words_of(error))

    def save_stopped(self, result: TrainResult) -> str:
        """Save what a run has that was asked to stop; what went wrong in words, "" if nothing did."""
        name, problem = "", ""
        self.changes = result.changes
        try:
            if result.steps_done:
                figures = figures_at(result.history, result.kept_step)
                name = self._save(result.tensors, result.kept_step, figures, ending="_stopped")
        except Exception as error:  # of any kind: the live view must hear that the run has ended
            problem = self._not_saved(error)
        self.keep_record("stopped")
        self._end_stopped(name, problem)
        return problem

    def _not_saved(self, error: Exception) -> str:
        problem = f"The {self.product.noun} so far could not be saved: {words_of(error).rstrip('.')}."
        log.error("Attune: %s", problem)
        return problem

    def _end_stopped(self, name: str, problem: str) -> None:
        saved = f"{self._noun} so far: {name}. " if name else f"{problem} " if problem else ""
        self.callbacks.end("stopped", file=name, message=f"{saved}{self._how_to_go_on()}")
        log.info("Attune: run %r stopped. %s", self.request.run_name, saved)

    @property
    def _noun(self) -> str:
        """At the beginning of a sentence."""
        return self.product.noun[:1].upper() + self.product.noun[1:]

    def _how_to_go_on(self) -> str:
        if self.request.resume:
            return "Press Run to go on from here."
        return "To go on from here, set if_run_exists to resume and press Run; as it is, Run begins anew."

    def finish(self, result: TrainResult) -> TrainingOutcome:
        """Save what was trained unless this run has saved it before, and report.

        Args:
            result: of a run that came to its end, or that "Stop and save" paused ("stopped").
        """
        request, plan, self.changes = self.request, self.request.plan, result.changes
        seconds = self.seconds
        paused = result.status == "stopped"
        kept = figures_at(result.history, result.kept_step)
        name = kept_file(self.product, str(self.earlier.get("lora_name", "")), result.tensors) or self._save(
            result.tensors, result.kept_step, kept, ending="_stopped" if paused else ""
        )
        # Should the report fail, the next call finds the file instead of saving it again.
        self.earlier["lora_name"] = name
        if paused:
            # The host would hand out this result again; see `pause_of`.
            self.earlier["pause"] = uuid.uuid4().hex
        report = {
            "run": request.run_name,
            "method": plan.method,
            "status": "stopped early" if paused else result.status,
            "steps": result.steps_done,
            "kept_step": result.kept_step,
            "seconds": seconds,
            "seconds_per_step": result.seconds_per_step or self.earlier.get("seconds_per_step", 0.0),
            "product": self.product.noun,
            "trained_weights": trained_weights(result.tensors),
            "lora_name": name,
            **({"about": self.about} if self.about else {}),
            **self.identity,
            **self._settings(),
            "memory": self._memory_figures(),
            "first": dict(result.history[0]) if result.history else {},
            "metrics": dict(result.history[-1]) if result.history else {},
            "kept_metrics": dict(kept),
        }
        write_record(self.folder, report | self._kept())
        message = self._ending(result, name)
        self.callbacks.end(result.status, file=name, message=message)
        model, tensors = self.product.outputs(result.tensors)
        return TrainingOutcome(
            model=model,
            tensors=tensors,
            losses=[row["loss"] for row in result.history],
            chart=self._chart(result, report),
            lora_name=name,
            report=report,
            live={
                "status": result.status,
                "workflow": request.workflow_id,
                "run": request.run_name,
                "method": plan.title,
                "step": result.steps_done,
                "first": 0,
                "total": max(result.steps_done, request.trainer.steps),
                "first_curves": first_curves(plan.method),
                "history": rows_of(result.history),
                # All of them would be too much for the host's history of outputs.
                "samples": LIVE.last_sample({"node": str(request.node_id), **self.callbacks.identity}),
                "note": self.note,
                "file": name,
                "message": message,
            },
        )

    def _ending(self, result: TrainResult, name: str) -> str:
        """Why a run is over that did not simply come to its end; "" if it did."""
        if result.status == "stopped":
            return f"{self._noun} so far: {name}. {self._how_to_go_on()}"
        return f"{result.reason} {self._noun}: {name}." if result.reason else ""

    def _chart(self, result: TrainResult, report: Mapping[str, Any]) -> Image.Image:
        request, plan = self.request, self.request.plan
        updates = f"{result.steps_done} update{'' if result.steps_done == 1 else 's'}"
        details = [
            plan.title,
            self.product.words(result.tensors),
            f"learning rate {request.trainer.learning_rate:g}",
        ]
        if report["memory"]:
            details.append(f"about {size_text(report['memory']['total'])} of memory")
        return curve_chart(
            curves_of(result.history, method=plan.method, titles=plan.curve_titles),
            title=f"{request.run_name}: {updates} in {duration_text(report['seconds'])}",
            details="  ·  ".join(details),
            best_step=result.kept_step if result.kept_step < result.steps_done else None,
        )

    # ---- files ----

    def _save(
        self, tensors: Mapping[str, torch.Tensor], step: int, metrics: Mapping[str, float], *, ending: str = ""
    ) -> str:
        """Write new files and return the name that the node lists which loads them."""
        facts = Facts(
            run=self.request.run_name,
            ending=ending,
            step=step,
            metrics={name: value for name, value in metrics.items() if name != "step"},
            method=self.request.plan.method,
            identity=self.identity,
            settings=self._settings(),
            resolution=self.resolution,
            prediction=self.prediction,
            base_precision=self.fit.precision,
        )
        return self.product.save(tensors, facts)

    def _settings(self) -> dict[str, Any]:
        """Everything that was set, of method, product and training: at the end, and what it was before."""
        request = self.request
        return {
            "objective": request.plan.settings(),
            **self.product.settings(),
            "training": asdict(request.trainer),
            "saving_memory": asdict(request.memory),
            **({"set_anew": self.changes} if self.changes else {}),
        }


class FollowerRecords(RunRecords):
    """Of a process beside the first one of a distributed run: it trains along, and writes and shows nothing."""

    def __init__(self, request: TrainingRequest, folder: Path, identity: Mapping[str, str]) -> None:
        super().__init__(replace(request, node_id=None), folder, identity)

    def begin(self, memory: MemoryEstimate | None) -> None:
        self.memory = memory

    def keep_record(self, status: str) -> None:
        pass

    def broke_off(self, policy: Trainable, error: BaseException) -> None:
        pass

    def save_stopped(self, result: TrainResult) -> str:
        return ""

    def finish(self, result: TrainResult) -> TrainingOutcome:
        model, tensors = self.product.outputs(result.tensors)
        losses = [row["loss"] for row in result.history]
        blank = Image.new("RGB", (8, 8))
        return TrainingOutcome(model, tensors, losses, blank, "", {}, {})
