"""Training a reward model on preferences, with the loop of `trainer`.

    loss = −mean log σ(r(prompt, chosen) − r(prompt, rejected))

| symbol | here                                                                                       |
| ------ | ------------------------------------------------------------------------------------------ |
| r      | `vlm_reward.VlmScorer`: frozen network, LoRA adapters and scalar head trained                 |
| σ      | logistic function: under Bradley & Terry (1952) σ(difference) = P(chosen preferred to rejected) |

With a 4-bit base this is QLoRA. The loop is `trainer.train` as it is: the adapters are an `interfaces.Trainable` and
this method is an `Objective`, so accumulation, clipping, schedule, NaN stop, atomic states, Cancel and exact resume are
the same as of every other training.

Differences from Christiano et al. 2017 and Ouyang et al. 2022:
- adapters and head only, instead of all weights; no ensemble, no label noise, one epoch is not the limit;
- the head's bias is not trained, since the difference cancels it; it is set so that the held-out pictures score 0 on
  average, and without a held-out part it stays 0 (ours);
- the best weights by held-out pair accuracy are kept, ties by held-out loss, and training stops when it no longer rises
  (ours, usual practice); the untrained ones never are, since their head is random. Accuracy is measured before the
  update it is reported with, so of the weights after one fewer.

References:
    Christiano et al. 2017, "Deep reinforcement learning from human preferences", section 2.2.3. Ouyang et al. 2022,
    "Training language models to follow instructions with human feedback", eq. 1. Dettmers et al. 2023, "QLoRA".
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F

from .adapters.lora import LoraConfig
from .interfaces import RunCallbacks, TrainingError
from .memory import peak_memory
from .preference_pairs import Pair, check_pairs, data_digest, split_by_prompt
from .share import ALONE, Share
from .trainer import train
from .trainer_config import Schedule, TrainerConfig
from .vlm_reward import LAYERS, Layers, RewardAdapters, VlmScorer

KNOB = "the number of pairs at a time (pairs_per_step), and raise accumulation instead"
Phase = Callable[[str, int, int], None]
Status = Literal["finished", "stopped early", "stopped"]


@dataclass(frozen=True)
class PreferenceConfig:
    """Knobs of the training.

    Attributes:
        steps: updates, ≥ 1.
        learning_rate: peak of the schedule, > 0.
        pairs_per_step: pairs in one forward and backward pass, ≥ 1.
        accumulation: such passes per update, ≥ 1.
        rank, alpha, dropout: of the adapters, as in `LoraConfig`; alpha 0 = the rank.
        layers: which carry an adapter, of `LAYERS`.
        held_out: share of the pairs that are only measured on, 0 (none) … 0.9.
        evaluate_every: updates between measurements, ≥ 1.
        patience: measurements without a better one after which training stops; 0 = never.
        warmup_steps, schedule, clip_norm, weight_decay, seed, checkpoint_seconds: as in `TrainerConfig`.
        save_memory: compute layers twice instead of keeping their results.

    Raises:
        TrainingError: a value out of range; the message quotes it.
    """

    steps: int = 200
    learning_rate: float = 2e-4
    pairs_per_step: int = 4
    accumulation: int = 1
    rank: int = 16
    alpha: float = 0.0
    dropout: float = 0.0
    layers: Layers = "language"
    held_out: float = 0.2
    evaluate_every: int = 20
    patience: int = 5
    warmup_steps: int = 5
    schedule: Schedule = "cosine"
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    checkpoint_seconds: float = 60
    save_memory: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (("pairs_per_step", 1), ("evaluate_every", 1), ("patience", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise TrainingError(f"{name} must be a whole number of at least {lowest}, not {value!r}.")
        share = self.held_out
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share <= 0.9:
            raise TrainingError(f"held_out must be between 0 (nothing held out) and 0.9, not {share!r}.")
        if self.layers not in LAYERS:
            raise TrainingError(f"layers must be one of {', '.join(LAYERS)}; not {self.layers!r}.")
        self.trainer(torch.float32)
        self.lora()

    def trainer(self, dtype: torch.dtype) -> TrainerConfig:
        """Knobs of the loop for a network that computes in `dtype`: fp16 gradients need the loop's scaling."""
        names = ("steps", "learning_rate", "accumulation", "warmup_steps", "schedule", "clip_norm", "weight_decay")
        names += ("seed", "checkpoint_seconds")
        precision = "fp16" if dtype == torch.float16 else "fp32"
        return TrainerConfig(**{name: getattr(self, name) for name in names}, precision=precision, sample_every=0)

    def lora(self) -> LoraConfig:
        return LoraConfig(self.rank, self.alpha or float(self.rank), self.dropout, ("everything",), self.seed)

    def identity(self) -> dict[str, Any]:
        """What a resume must find the same besides the loop's and the adapters' own knobs."""
        return {name: getattr(self, name) for name in ("pairs_per_step", "held_out", "evaluate_every", "patience")}


def preference_loss(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """−log σ(chosen − rejected) of scores [B], one value per pair [B]."""
    return -F.logsigmoid(chosen - rejected)


@dataclass(frozen=True)
class HeldOut:
    """A measurement on pairs whose prompts are not trained on.

    Attributes:
        step: updates before it.
        accuracy: share of pairs in which the chosen picture scores higher; a tie counts half.
        loss: mean loss; margin: mean difference; centre: mean score of all pictures.
    """

    step: int
    accuracy: float
    loss: float
    margin: float
    centre: float

    def beats(self, other: HeldOut | None) -> bool:
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


def pair_scores(scorer: VlmScorer, pairs: Sequence[Pair]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores float32 ([B], [B]) of the chosen and the rejected pictures, in one pass."""
    pictures = [pair.pictures() for pair in pairs]
    prompts = [pair.prompt for pair in pairs]
    inputs = scorer.encode([first for first, _ in pictures] + [second for _, second in pictures], prompts * 2)
    chosen, rejected = scorer(inputs).chunk(2)
    return chosen, rejected


@torch.no_grad()
def measure(
    scorer: VlmScorer, pairs: Sequence[Pair], *, step: int = 0, batch: int = 8, on_phase: Phase | None = None
) -> HeldOut:
    """Pair accuracy, loss and margin on pairs; `on_phase` is told about progress and may raise."""
    parts = []
    for start in range(0, len(pairs), batch):
        if on_phase:
            on_phase("measuring held-out pairs", start, len(pairs))
        parts.append(torch.stack(pair_scores(scorer, pairs[start : start + batch])).cpu())
    scores = torch.cat(parts, dim=1).double()  # (2, N)
    difference = scores[0] - scores[1]
    right = (difference > 0).double() + 0.5 * (difference == 0).double()
    loss = preference_loss(scores[0], scores[1]).mean().item()
    if not math.isfinite(loss):
        loss = math.inf
    return HeldOut(step, right.mean().item(), loss, difference.mean().item(), scores.mean().item())


class PreferenceObjective:
    """The objective of the module's formula.

    Args:
        pairs: to learn from.
        held_out: to measure on; may be empty.
        config: see `PreferenceConfig`.
        on_phase: told about long measurements; may raise.

    Attributes:
        measured: every measurement so far.
        best: the best of them after an update; `best_tensors`: the weights it was made with.
    """

    name = "preference-reward"

    def __init__(
        self,
        pairs: Sequence[Pair],
        held_out: Sequence[Pair],
        config: PreferenceConfig,
        *,
        on_phase: Phase | None = None,
    ) -> None:
        self.pairs, self.held_out, self.config, self.on_phase = pairs, held_out, config, on_phase
        self.order = torch.empty(0, dtype=torch.long)
        self.position = 0
        self.runs = 0
        self.measured: list[HeldOut] = []
        self.best: HeldOut | None = None
        self.best_tensors: dict[str, torch.Tensor] = {}
        self._figures: list[torch.Tensor] = []
        self._fresh: HeldOut | None = None

    def prepare(self, policy: RewardAdapters, share: Share = ALONE) -> None:
        self.policy = policy

    @property
    def exhausted(self) -> bool:
        """Whether `patience` measurements in a row brought nothing better."""
        since = [found for found in self.measured if self.best and found.step > self.best.step]
        return 0 < self.config.patience <= len(since)

    def losses(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        first = self.runs % self.config.accumulation == 0
        if first:
            self._figures, self._fresh = [], None
            step = self.runs // self.config.accumulation
            if self.held_out and step % self.config.evaluate_every == 0:
                self.evaluate(step)
        chosen, rejected = pair_scores(self.policy.scorer, [self.pairs[index] for index in self._draw(generator)])
        difference = (chosen - rejected).detach()
        self._figures.append(torch.stack([(difference > 0).float().mean(), difference.mean()]))
        self.runs += 1
        yield preference_loss(chosen, rejected).mean()

    def _draw(self, generator: torch.Generator) -> list[int]:
        """The next pairs of an order that is shuffled anew whenever it is used up."""
        count = min(self.config.pairs_per_step, len(self.pairs))
        if self.position + count > len(self.order):
            self.order, self.position = torch.randperm(len(self.pairs), generator=generator), 0
        self.position += count
        return self.order[self.position - count : self.position].tolist()

    def evaluate(self, step: int) -> HeldOut:
        """Measure on the held-out pairs, and keep the weights if they are the best so far."""
        known = next((found for found in self.measured if found.step == step), None)
        if known is not None:
            return known
        self.policy.training_mode(False)
        batch = max(self.config.pairs_per_step, 4)
        found = measure(self.policy.scorer, self.held_out, step=step, batch=batch, on_phase=self.on_phase)
        self.policy.training_mode(True)
        self.measured.append(found)
        self._fresh = found
        if step > 0 and found.beats(self.best):
            self.best, self.best_tensors = found, self.policy.tensors()
        return found

    def metrics(self) -> dict[str, float]:
        """ "accuracy" and "margin" of the update's own pairs; "held_out_…" in updates that began with a measurement."""
        accuracy, margin = torch.stack(self._figures).mean(0).tolist()
        found = {"accuracy": accuracy, "margin": margin}
        if self._fresh is not None:
            found |= {f"held_out_{name}": getattr(self._fresh, name) for name in ("accuracy", "loss", "margin")}
        return found

    def state_dict(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "position": self.position,
            "runs": self.runs,
            "measured": [dataclasses.asdict(found) for found in self.measured],
            "best": self.best.step if self.best else -1,
            "best_tensors": dict(self.best_tensors),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.order, self.position, self.runs = state["order"], state["position"], state["runs"]
        self.measured = [HeldOut(**found) for found in state["measured"]]
        self.best = next((found for found in self.measured if 0 < found.step == state["best"]), None)
        self.best_tensors = dict(state["best_tensors"])


class _Callbacks(RunCallbacks):
    """The caller's callbacks, which are also asked to stop when nothing better comes."""

    def __init__(self, inner: RunCallbacks, objective: PreferenceObjective) -> None:
        self.inner, self.objective = inner, objective
        self.step = 0

    def on_report(self, step: int, metrics: Mapping[str, float]) -> None:
        self.step = step
        self.inner.on_report(step, metrics)

    def should_stop(self) -> bool:
        return self.inner.should_stop() or self.objective.exhausted


@dataclass(frozen=True)
class PreferenceResult:
    """What a run leaves. The scorer holds the weights of the best measurement, or the last without a held-out part.

    Attributes:
        status: "finished"; "stopped early" when nothing better came; "stopped" when the callbacks said so.
        history: one report per update.
        measured: every measurement, the first one of the untrained weights, the last one of the final ones.
        best: the one whose weights are kept; None without a held-out part, and for a run that ended before it was
            measured again.
        steps_done: updates since the run began.
        pairs, held_out_pairs: how many.
        seconds: of this call.
        peak_memory: bytes; of the GPU by this process, else of the whole process in main memory; 0 = unknown.
    """

    status: Status
    history: list[dict[str, float]]
    measured: list[HeldOut]
    best: HeldOut | None
    steps_done: int
    pairs: int
    held_out_pairs: int
    seconds: float
    peak_memory: int

    @property
    def before(self) -> HeldOut | None:
        """The measurement of the untrained weights."""
        return next((found for found in self.measured if found.step == 0), None)

    @property
    def candidates(self) -> int:
        """How many measurements the kept one is the best of, which flatters it."""
        return sum(found.step > 0 for found in self.measured)

    def metrics(self) -> dict[str, Any]:
        """The figures that a file and a report hold."""
        best = self.best
        return {
            "status": self.status, "steps": self.steps_done, "pairs": self.pairs, "held_out_pairs": self.held_out_pairs,
            "loss": self.history[-1]["loss"] if self.history else None,
            "held_out_accuracy": best.accuracy if best else None, "held_out_loss": best.loss if best else None,
            "held_out_margin": best.margin if best else None, "best_step": best.step if best else self.steps_done,
            "held_out_accuracy_untrained": self.before.accuracy if self.before else None,
            "best_of_measurements": self.candidates,
        }  # fmt: skip


def train_reward(
    scorer: VlmScorer,
    adapters: RewardAdapters,
    pairs: Sequence[Pair],
    config: PreferenceConfig,
    *,
    callbacks: RunCallbacks | None = None,
    run_folder: Path | None = None,
    resume: bool = True,
    on_break: Callable[[PreferenceResult], None] | None = None,
) -> PreferenceResult:
    """Train adapters and head on preference pairs.

    Args:
        scorer: with fresh `adapters`, whose shape is `config.lora()`.
        pairs: see `preference_pairs`; the held-out part is taken from them by prompt.
        callbacks: told about progress, may end the run; `on_phase` is told about measurements and may raise.
        run_folder: where states are saved; None = nowhere.
        resume: continue the newest state in the folder.
        on_break: called with what stands when something raised after the first update; the scorer holds it then.

    Raises:
        TrainingError: bad pairs (nothing has been changed then), or as `trainer.train`.
        BaseException: what callbacks raise, the host's Cancel included, after saving.
    """
    # The host's nodes run in inference mode, whose tensors can be neither trained nor measured with later.
    with torch.inference_mode(False):
        return _train(scorer, adapters, pairs, config, callbacks or RunCallbacks(), run_folder, resume, on_break)


def _train(
    scorer: VlmScorer,
    adapters: RewardAdapters,
    pairs: Sequence[Pair],
    config: PreferenceConfig,
    callbacks: RunCallbacks,
    run_folder: Path | None,
    resume: bool,
    on_break: Callable[[PreferenceResult], None] | None,
) -> PreferenceResult:
    check_pairs(pairs)
    learned, held_out = split_by_prompt(pairs, config.held_out, seed=config.seed)
    objective = PreferenceObjective(learned, held_out, config, on_phase=callbacks.on_phase)
    told = _Callbacks(callbacks, objective)
    began = time.perf_counter()
    if adapters.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(adapters.device)
    scorer.checkpointing(config.save_memory)
    try:
        result = train(
            adapters,
            objective,
            config.trainer(scorer.base.dtype),
            callbacks=told,
            run_folder=run_folder,
            resume=resume,
            identity={"base model": scorer.base.digest, "data": data_digest(pairs)},
            knob=KNOB,
        )
        early = result.status == "stopped" and objective.exhausted and not callbacks.should_stop()
        status = "stopped early" if early else result.status
        if held_out and status == "finished":
            objective.evaluate(result.steps_done)
    except BaseException:
        settle(adapters, objective)
        if told.step and on_break:
            on_break(_result("stopped", objective, told.step, [], began))
        raise
    finally:
        scorer.checkpointing(False)
        adapters.training_mode(False)
    settle(adapters, objective)
    return _result(status, objective, result.steps_done, result.history, began)


def _result(
    status: Status, objective: PreferenceObjective, steps: int, history: list[dict[str, float]], began: float
) -> PreferenceResult:
    return PreferenceResult(
        status,
        history,
        list(objective.measured),
        objective.best,
        steps,
        len(objective.pairs),
        len(objective.held_out),
        time.perf_counter() - began,
        peak_memory(objective.policy.device),
    )


def settle(adapters: RewardAdapters, objective: PreferenceObjective) -> None:
    """Put the best weights in, and the zero of the score to the middle of the held-out pictures."""
    if objective.best is None:
        return
    with torch.no_grad():
        adapters.load_tensors(objective.best_tensors)
        adapters.scorer.head.bias.sub_(objective.best.centre)
