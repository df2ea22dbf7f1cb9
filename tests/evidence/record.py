"""How a claim is recorded: one JSON file per figure, written whole, with everything needed to repeat it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "diffusers", "peft", "transformers", "open_clip_torch", "numpy")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Claim:
    """What is claimed, fixed before the run.

    Attributes:
        name: id in the table of claims; a further figure of the same claim is "NAME.FIGURE".
        goal: the threshold.
        direction: on which side of the goal the value must be.
        unit: for the table: "×", "s", "of 20", …
        what: one line for the table.
    """

    name: str
    goal: float
    direction: Literal[">=", "<="]
    unit: str
    what: str

    def holds(self, value: float) -> bool:
        return value >= self.goal if self.direction == ">=" else value <= self.goal


@dataclass
class Stopwatch:
    """Seconds since it was made."""

    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def bootstrap(
    samples: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = statistics.fmean,
    *,
    draws: int = 10_000,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic.

    Args:
        samples: independent repetitions (seeds, prompts), at least two.
        statistic: of a sample.
        draws: resamples.
        confidence: 0…1.
        seed: of the resampling.

    Returns:
        (low, high).

    Raises:
        ValueError: fewer than two samples: an interval of one repetition would be made up.
    """
    if len(samples) < 2:
        raise ValueError(f"A confidence interval needs at least 2 repetitions, not {len(samples)}.")
    generator = random.Random(seed)
    values = sorted(statistic(generator.choices(samples, k=len(samples))) for _ in range(draws))
    tail = (1 - confidence) / 2
    return values[int(tail * draws)], values[min(draws - 1, int((1 - tail) * draws))]


def record(
    claim: Claim,
    value: float,
    *,
    ci: tuple[float, float] | None,
    seeds: int,
    seconds: float,
    quick: bool,
    samples: Sequence[float] = (),
    attempts: Sequence[dict[str, Any]] = (),
    details: dict[str, Any] | None = None,
) -> Path:
    """Write `results/NAME.json` and `NAME.png` (quick runs: `NAME.quick.…`, git-ignored) and print the verdict.

    Args:
        claim: what was claimed.
        value: what was measured.
        ci: 95 % interval, or None where the figure is a count without one.
        seeds: repetitions with different seeds.
        seconds: of the whole script.
        quick: a smaller run, which proves only that the script works.
        samples: what the value was computed from, one per repetition; the dots of the plot.
        attempts: [{"what": …, "value": …}], everything that was tried, in order.
        details: anything else worth keeping, JSON values.

    Returns:
        The file. A claim that fails is recorded as failed, never left out.
    """
    entry = {
        "claim": claim.name,
        "what": claim.what,
        "value": value,
        "goal": claim.goal,
        "direction": claim.direction,
        "unit": claim.unit,
        "holds": claim.holds(value),
        "ci": None if ci is None else list(ci),
        "seeds": seeds,
        "samples": list(samples),
        "seconds": round(seconds, 1),
        "attempts": list(attempts),
        "earlier": [] if quick else earlier(claim),
        "details": details or {},
        "quick": quick,
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
    }
    file = RESULTS / f"{claim.name}{'.quick' if quick else ''}.json"
    write_json(file, entry)
    from .plots import strip_plot

    strip_plot(claim, value, ci=ci, samples=samples).save(plot_path(claim, quick=quick))
    verdict = "holds" if entry["holds"] else "FAILED"
    interval = "" if ci is None else f", 95 % interval [{ci[0]:.4g}, {ci[1]:.4g}]"
    print(f"{claim.name}: {value:.4g} {claim.unit} (goal {claim.direction} {claim.goal:g}{interval}): {verdict}")
    print(f"recorded in {file.relative_to(ROOT)}")
    return file


def earlier(claim: Claim) -> list[dict[str, Any]]:
    """What was recorded for the claim before, oldest first, failures included: a new record forgets none."""
    file = RESULTS / f"{claim.name}.json"
    if not file.is_file():
        return []
    old = json.loads(file.read_text(encoding="utf-8"))
    kept = {name: old[name] for name in ("value", "ci", "goal", "holds", "samples", "commit")}
    return [*old.get("earlier", []), kept]


def write_json(file: Path, content: object) -> None:
    """Write JSON so that the file is the old one or the new one, never half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as output:
            # NaN is not JSON; a figure that is NaN is a broken run, not a result.
            json.dump(content, output, indent=2, ensure_ascii=False, allow_nan=False)
            output.write("\n")
            output.flush()
            os.fsync(output.fileno())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def plot_path(claim: Claim, *, quick: bool, part: str = "") -> Path:
    """Where the claim's plot belongs; `part` names a further one."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS / f"{claim.name}{f'.{part}' if part else ''}{'.quick' if quick else ''}.png"


def commit() -> str:
    """The commit that was measured; "+changes" when the tree differs from it."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "unknown"
    # Results themselves change while they are recorded; they are not what was measured.
    changed = _git("status", "--porcelain", "--", ".", ":!tests/evidence/results", ":!README.md")
    return f"{head}+changes" if changed else head


def last_change(folder: str) -> str:
    """The last commit that changed a folder of the pack; "unknown" outside of a repository."""
    return _git("log", "-1", "--format=%H", "--", folder) or "unknown"


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Python, the packages that decide a figure, and ComfyUI."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    folder = Path(os.environ.get("ATTUNE_COMFYUI") or ROOT / ".host" / "ComfyUI")
    version_file = folder / "comfyui_version.py"
    if version_file.is_file():
        found["comfyui"] = version_file.read_text(encoding="utf-8").split('"')[1]
    return found


def machine() -> dict[str, Any]:
    return {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()}


def results() -> list[dict[str, Any]]:
    """Every recorded figure, quick ones left out, by name."""
    files = sorted(file for file in RESULTS.glob("*.json") if not file.stem.endswith(".quick"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]
