"""The training loop: one way to optimise adapters, whatever the objective.

One update: `objective.losses` is run `accumulation` times, every loss is divided by it and back-propagated at once;
gradients are clipped; a guard looks at loss and gradient norm; AdamW steps; the average follows.

A run is a sequence of states, one after each update. Whatever stops it (Cancel, an error, a kill), what is saved is the
last complete state, and a run resumed from it continues bit for bit as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from .evaluation import Evaluations, after, check_budget, over_budget
from .interfaces import Auxiliary, Objective, RunCallbacks, Trainable, TrainingError
from .memory import ANY_KNOB, ran_out, ways_out
from .run_lock import only_one
from .run_state import Captured, StateFolder, check_same_run, common_state, pack_history, unpack_history
from .share import ALONE, Share
from .trained import Trained
from .trainer_config import Pace, TrainerConfig, half_type

log = logging.getLogger(__name__)


@dataclass
class TrainResult:
    """What a run leaves.

    Attributes:
        tensors: what was trained, as `Trainable.tensors` gives it; the running average if it is on, and the best
            ones if they are kept. Auxiliary tensors that are `kept` stand beside them, see `trained.parted`.
        steps_done: updates since the run began, resumed ones included.
        status: "finished", "stopped" when `RunCallbacks.should_stop` said so, or "ended" before its last update by a
            rule of the configuration.
        history: one report per update, as `RunCallbacks.on_report` got it, with its "step" (from 1).
        seconds: wall time of this call.
        seconds_per_step: mean time of an update in this call, without previews and saving; 0 if there was none.
        kept_step: the update after which the tensors were taken.
        reason: why it "ended", as a sentence; else "".
        changes: what was set anew on the way, see `run_state.RATES`: {"after_update", "setting", "before", "now"} each.
            "weights" is the setting where a collapsed run has gone on from its last sound ones.
    """

    tensors: dict[str, torch.Tensor]
    steps_done: int
    status: Literal["finished", "stopped", "ended"]
    history: list[dict[str, float]]
    seconds: float
    seconds_per_step: float
    kept_step: int = 0
    reason: str = ""
    changes: list[dict[str, Any]] = field(default_factory=list)


def train(
    policy: Trainable,
    objective: Objective,
    config: TrainerConfig,
    *,
    callbacks: RunCallbacks | None = None,
    run_folder: Path | None = None,
    resume: bool = True,
    sampler: Callable[[Any], torch.Tensor] | None = None,
    identity: Mapping[str, str] | None = None,
    knob: str = ANY_KNOB,
    share: Share = ALONE,
    begun: bool = False,
) -> TrainResult:
    """Train the policy's first role.

    Args:
        policy: attached; afterwards its first role holds the last (not averaged) weights.
        objective: what is minimised. If it has a `config` dataclass, a resume must find the same; an `identity()` of
            the dataclass names the fields that count, else all do.
        callbacks: told about progress; may end the run.
        run_folder: where states are saved; None = nowhere, and nothing can be resumed.
        resume: continue the newest state in the folder; False starts over, and the first update replaces what is there.
        sampler: makes preview pictures [B, h, w, 3] with the weights that would be saved.
        identity: of what else a resume must find the same, by the names its refusal uses: "data", … The "base model" is
            the policy's own fingerprint unless given: here, without a host, there is no other.
        knob: what to lower where memory runs out, as in `memory.ways_out`.
        share: this process's part of every batch. Every process saves its own state; all must go on with the same one.
        begun: whether the policy holds weights of an earlier run, to go on from.

    Raises:
        TrainingError: loss or gradients stopped being finite (before the weights are touched, after saving the last
            good state), memory ran out, the folder cannot be written, another run is at work in it, or the saved run is
            another one.
        BaseException: whatever objective, sampler or callbacks raise, the host's Cancel included, after saving.
    """
    devices = [policy.device] if policy.device.type == "cuda" else []
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices), only_one(run_folder, share):
        run = _Run(policy, objective, config, callbacks or RunCallbacks(), run_folder, sampler, identity or {}, share)
        try:
            return run.go(resume, begun=begun)
        except Exception as error:
            if not ran_out(error):
                raise
            done = f"{run.step} update{'' if run.step == 1 else 's'}"
            raise TrainingError(f"Memory ran out after {done}.{run.kept()} {ways_out(knob)}") from error


class _Run:
    def __init__(
        self,
        policy: Trainable,
        objective: Objective,
        config: TrainerConfig,
        callbacks: RunCallbacks,
        run_folder: Path | None,
        sampler: Callable[[Any], torch.Tensor] | None,
        identity: Mapping[str, str],
        share: Share,
    ) -> None:
        self.policy, self.objective, self.config, self.callbacks = policy, objective, config, callbacks
        self.sampler, self.given_identity, self.share = sampler, identity, share
        folder = run_folder if run_folder is None or share.main else run_folder / f"process-{share.index}"
        self.folder = StateFolder(folder) if folder is not None else None
        self.role = policy.roles[0]
        if hasattr(objective, "accumulation"):
            objective.accumulation = config.accumulation
        objective.prepare(policy, share)
        self.pace = Pace.of(objective, config)
        auxiliary = objective.auxiliary() if hasattr(objective, "auxiliary") else Auxiliary({}, 1.0)
        self.trained = Trained(policy, self.role, auxiliary, config)
        self.parameters, self.optimizer = self.trained.parameters, self.trained.optimizer
        self.evaluations = Evaluations(objective, config, self.pace.waits)
        self.half = half_type(config.precision, policy.device)
        self.scaler = torch.amp.GradScaler(policy.device.type, enabled=self.half == torch.float16)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history: list[dict[str, float]] = []
        self.changes: list[dict[str, Any]] = []
        self.step, self.saved_step = 0, -1
        self.writing_weights = False
        self.identity: dict[str, Any] = {}

    # ---- the run ----

    def go(self, resume: bool, *, begun: bool) -> TrainResult:
        began = time.perf_counter()
        if self.folder:
            self.folder.settle()
        if not (resume and self._resume()):
            self._begin(over=not resume)
        updating, updates, status, saved = 0.0, 0, "finished", time.monotonic()
        try:
            if self.step == 0:
                self._preview()
                if begun:
                    self._as_saved(lambda: self.evaluations.begin(self.trained.tensors, self.share))
            elif self.evaluations.missed(self.history[-1]):
                # This is where the run was interrupted, before anybody was told of the update.
                self._evaluate(self.history[-1])
                self._save(again=True)  # a collapse that is found now must be known when it is gone on with
                self.callbacks.on_report(self.step, self.history[-1])
            reason = self._reason_to_end()
            while self.step < self.config.steps and not reason:
                start = time.perf_counter()
                report = self._update()
                if report is None:
                    status = "stopped"
                    break
                updating, updates = updating + time.perf_counter() - start, updates + 1
                check_budget(report, self.config, self.objective.name)
                self._evaluate(report)
                reason = self._reason_to_end()
                if self.folder and self.folder.starting_over:
                    self._save()  # the earlier run is given up now that this one works, and before anybody is told
                self.callbacks.on_report(self.step, report)
                last = self.step == self.config.steps or reason
                if last or (self.config.sample_every and self.step % self.config.sample_every == 0):
                    self._preview()
                due = self.folder and time.monotonic() - saved >= self.config.checkpoint_seconds
                if self.share.any(due and self.share.main):
                    self._save()
                    saved = time.monotonic()
            self._save()
        except BaseException as error:
            self._save_after(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.policy.training_mode(False)
        kept_step, tensors = self.step, self.evaluations.best_tensors
        if self.config.keep == "best" and tensors:
            kept_step = self.evaluations.best_step
        elif self.evaluations.collapsed:
            kept_step, tensors = self.evaluations.sound_step, self.evaluations.sound_tensors
        else:
            with self.trained.averaged():
                tensors = self.trained.tensors()
        return TrainResult(
            tensors,
            self.step,
            "ended" if reason and self.step < self.config.steps else status,
            self.history,
            time.perf_counter() - began,
            updating / updates if updates else 0.0,
            kept_step,
            reason,
            [change for change in self.changes if change["after_update"] < self.step],
        )

    def _reason_to_end(self) -> str:
        """Why the run should end before its last update; nothing if it should not."""
        return self.evaluations.exhausted(self.step) or over_budget(self.history, self.config)

    def _evaluate(self, report: dict[str, float]) -> None:
        """Let the objective look at the weights as they would be saved; its figures join the report."""
        if self.evaluations.due(self.step):
            report |= self._as_saved(lambda: self.evaluations.measure(self.step, self.trained.tensors, self.share))

    def _as_saved(self, look: Callable[[], Any]) -> Any:
        """What is found with the weights as they would be saved."""
        self.policy.training_mode(False)
        with self.trained.averaged(), torch.no_grad():
            return look()

    def _update(self) -> dict[str, float] | None:
        """One update, or None (and nothing changed) when the run should stop."""
        config = self.config
        self.policy.training_mode(True)
        # Adapter dropout draws from torch's own generator: a function of the step makes a resumed run draw the same,
        # one of the process gives samples of different processes masks of their own.
        torch.manual_seed((config.seed + 1_000_003 * (self.step + 1) + 2_147_483_659 * self.share.index) % 2**63)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients()
        if loss is None:
            return None
        moves = self.pace.moves(self.step)
        # Before the scaler looks for overflows, so that every process finds the same ones.
        # While the LoRA waits it has no gradients, not zeros, after which AdamW's first steps would be far too long.
        self.share.average_gradients(self.trained.all[0 if moves else len(self.parameters) :])
        self.scaler.unscale_(self.optimizer)
        norms = [self._clip(self.parameters), self._clip(list(self.trained.auxiliary.parameters.values()))]
        values = torch.stack([loss.float(), *(norm.to(loss.device).float() for norm in norms)])
        loss_value, norm_value, auxiliary_norm = values.tolist()
        loss_value = self.share.mean({"loss": loss_value})["loss"]
        # The norm of the auxiliary network is no figure of the LoRA, but not finite it would spoil as much.
        stepping = self._guard(loss_value, norm_value if math.isfinite(auxiliary_norm) else auxiliary_norm)
        rate, waits = config.rate(self.step), self.pace.waits
        applied = config.warmed(rate, self.step - waits) if moves else 0.0
        report = {"step": self.step + 1, "loss": loss_value, "learning_rate": applied}
        report |= {"gradient_norm": norm_value} if stepping and (moves or self.step < waits) else {}
        report |= self.share.mean({name: float(value) for name, value in self.objective.metrics().items()})
        self.writing_weights = True
        if stepping:
            for group, begun in zip(self.optimizer.param_groups, (waits, 0), strict=False):
                group["lr"] = config.warmed(rate, self.step - begun) * group["factor"]
            self.scaler.step(self.optimizer)
        self.scaler.update()
        if moves or self.step < waits:
            self.trained.follow(config.average_decay(self.pace.moved(self.step)))
        self.step += 1
        self.history.append(report)
        self._rest()
        self.writing_weights = False
        return report

    def _clip(self, parameters: list[torch.nn.Parameter]) -> torch.Tensor:
        """Shorten gradients to the longest allowed; their length before."""
        return torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or math.inf, foreach=True)

    def _gradients(self) -> torch.Tensor | None:
        """Back-propagate every loss of one update; their detached sum, or None when the run should stop."""
        total: torch.Tensor | None = None
        # Several processes ask each other once per update: they may differ in how many losses one has.
        if self.share.count > 1 and self.share.any(self.callbacks.should_stop()):
            return None
        for _ in range(self.config.accumulation):
            losses = iter(self.objective.losses(self.generator))
            while True:
                if self.share.count == 1 and self.callbacks.should_stop():
                    return None
                with self._autocast():
                    loss = next(losses, None)
                if loss is None:
                    break
                if loss.ndim or not loss.requires_grad:
                    raise TrainingError(
                        f"The objective {self.objective.name!r} gave a loss of shape {tuple(loss.shape)}"
                        f"{'' if loss.requires_grad else ' that does not depend on the LoRA'}; it must be one number "
                        f"computed with the policy."
                    )
                loss = loss / self.config.accumulation
                self.scaler.scale(loss).backward()
                total = loss.detach() if total is None else total + loss.detach()
        if total is None:
            raise TrainingError(f"The objective {self.objective.name!r} gave no loss, so there is nothing to learn.")
        if self.pace.moves(self.step) and all(p.grad is None for p in self.parameters):
            raise TrainingError("No adapted layer took part in the prediction: choose other target layers.")
        return total

    def _guard(self, loss: float, norm: float) -> bool:
        """Whether the optimizer may step; raises where going on would ruin the weights."""
        if math.isfinite(loss) and math.isfinite(norm):
            return True
        if math.isfinite(loss) and self.scaler.is_enabled() and self.scaler.get_scale() >= 1:
            return False  # fp16 overflowed: the scaler lowers its factor and the next update tries again
        what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient norm became {norm}"
        self._save_after(what)
        raise TrainingError(
            f"Training stopped in update {self.step + 1}: {what}. The LoRA was not touched by it.{self.kept()} "
            f"Lower learning_rate (now {self.config.learning_rate:g}) or raise warmup_steps: the same run can go on "
            f"with that. Or check the data."
        )

    def _autocast(self) -> AbstractContextManager:
        if not self.half:
            return nullcontext()
        # Its cache would hand weights that a pass without gradients has cast to a pass with gradients (in torch before
        # 2.10), which would then teach nothing. Frozen weights are not cached in any case.
        return torch.autocast(self.policy.device.type, self.half, cache_enabled=False)

    def _preview(self) -> None:
        if self.sampler is None or not self.config.sample_every:
            return
        self.callbacks.on_samples(self.step, self._as_saved(lambda: self.sampler(self.policy)))

    # ---- states ----

    def _rest(self) -> None:
        """Remember what the objective and the generator hold between two updates."""
        self.resting = Captured({"generator": self.generator.get_state(), "objective": self.objective.state_dict()})

    def _identity(self) -> dict[str, Any]:
        return {
            "method": self.objective.name,
            "method setting": _settings_identity(getattr(self.objective, "config", None)),
            "LoRA": dataclasses.asdict(self.policy.config),
            "training": self.config.identity() | {"precision": str(self.half or torch.float32)},
            **({"processes": self.share.count} if self.share.count > 1 else {}),
            **self.policy.identity(),
            **({} if "base model" in self.given_identity else {"base model": self.policy.base_fingerprint()}),
            **self.given_identity,
        }

    def _begin(self, *, over: bool) -> None:
        self._rest()
        if self.folder is None:
            return
        self.identity = self._identity()
        if over:
            self.folder.start_over()
        # Before the first update, so that a folder that cannot be written is known now and not after an hour.
        self._save()

    def _resume(self) -> bool:
        state = common_state(self.folder, self.share) if self.folder else None
        if state is None:
            return False
        self.identity = self._identity()
        self.history = unpack_history(state["history"])
        self.evaluations.load_state_dict(state.get("evaluations"))
        self.evaluations.recall(self.history[-1] if self.history else {})
        collapsed = bool(self.evaluations.collapsed)
        anew = check_same_run(state["identity"], self.identity, folder=self.folder.path, collapsed=collapsed)
        self.changes = [*state.get("changes", []), *({"after_update": state["step"], **change} for change in anew)]
        self.trained.load_state_dict(state)
        self.scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["resting"]["generator"])
        self.objective.load_state_dict(state["resting"]["objective"])
        self.step = self.saved_step = state["step"]
        if collapsed and anew and self.step < self.config.steps:
            self._return_to_sound()
        self._rest()
        return True

    def _return_to_sound(self) -> None:
        """Go on from the last sound weights of a run that has collapsed, now that something is set anew.

        Only what the run gives goes back: what the objective trains for itself, the moments of the optimizer, the
        randomness and the count of updates go on from where they are. With nothing set anew it would collapse again.
        """
        sound, tensors = self.evaluations.return_to_sound()
        self.trained.put(tensors)
        said = {"before": after(self.step), "now": after(sound)}
        self.changes.append({"after_update": self.step, "setting": "weights", **said})
        log.info("Attune: the run had collapsed; it goes on from the weights %s", after(sound))

    def _save(self, *, again: bool = False) -> None:
        """
        Args:
            again: also where the state after this update is saved already.
        """
        if self.folder is None or (self.step == self.saved_step and not again):
            return
        if self.writing_weights or not self.resting.intact:
            # Half of an update is in the weights or in the objective: the state on disk is the last complete one.
            log.warning("Attune: interrupted in the middle of a write; resume goes on from update %s", self.saved_step)
            return
        tree = {
            "identity": self.identity,
            **self.trained.state_dict(),
            "evaluations": self.evaluations.state_dict(),
            "scaler": self.scaler.state_dict(),
            "resting": self.resting.tree(),
            "history": pack_history(self.history),
            "changes": self.changes,
        }
        self.folder.write(self.step, tree)
        self.saved_step = self.step

    def _save_after(self, why: str) -> None:
        """Save what stands when the run ends because of `why`; a second failure must not hide the first."""
        try:
            self._save()
        except TrainingError as second:
            log.error("Attune: %s (while ending after %s)", second, why)

    def kept(self) -> str:
        """Which update the newest saved state holds, as a sentence after a blank; nothing if it holds none."""
        if self.folder is None or self.saved_step < 1:
            return ""
        return f" The state after update {self.saved_step} is saved in {self.folder.path}."


def _settings_identity(settings: Any) -> dict[str, Any]:
    """What a resume must find the same in an objective's settings: what they say themselves, or every field."""
    if hasattr(settings, "identity"):
        return settings.identity()
    return dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else {}
