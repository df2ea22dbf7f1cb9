"""Sessions of simulated people: the runs that refine-intent, refine-rounds and refine-ablation look at.

People, ways and what they see are described in `_refine_trial` and `training.demo.simulated_person`: a person means one
concept in one style on one background, says at first the concept alone, and comments on one missing thing a round. For
the ablation a person has no words for one of style and background, by turns, and only knows it when it sees it; or it
has words for all, and means what the model was never shown; or it likes a look that a reward measures, and has no word
for it (`_refine_looks`). What a picture shows is seen by the nearest real drawing
(`training.demo.drawing_eyes`); the judge that saw it before named 36 % of styles and 40 to 62 % of concepts right, so
that people asked for what they had. Every way gets the same people and shows as many pictures of as many steps per
round; FABRIC, the search for a direction and a LoRA evaluate the network beyond that. After the round in which a
picture was taken, that picture stands.

A seed's sessions of a group of ways run in a process of their own and are kept in a file beside the results' cache, to
be used by the group's other claims as long as the commit and the plan are the same.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .record import CONFIDENCE, ROOT, Claim, Stopwatch, commit, record

SEEDS = (0, 1, 2)
CACHE = ROOT / ".cache" / "evidence"
Session = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """How much is done; the quick plan only proves that the script works.

    Attributes:
        people: per seed; every group has its own number. rounds: at most, of a session. pictures: of a round.
        steps: of the sampler.
        updates: of the LoRA that learns along, per round.
    """

    people: int
    rounds: int
    pictures: int = 4
    steps: int = 10
    updates: int = 12


@dataclass(frozen=True)
class Group:
    """Ways that are compared with each other, of the same people; they are made together.

    Attributes:
        ways, kind: of people, as `_refine_trial` names them. people: per seed.
        pictures: of a round. seeds: of the people and of all that is drawn.
    """

    ways: tuple[str, ...]
    kind: str
    people: int
    pictures: int = 4
    seeds: tuple[int, ...] = SEEDS


FULL, QUICK = Plan(10, 6), Plan(2, 2, pictures=2, steps=4, updates=1)
GROUPS = {
    "intent": Group(("refine", "re-roll", "fabric"), "all", 10),
    "parts": Group(
        ("full", *(f"full without {part}" for part in ("words", "embedding", "start"))),
        "wordless",
        80,
        pictures=2,
        seeds=(10, 11, 12),
    ),
    "schedule": Group(("full", "full without diversity"), "unseen", 120, pictures=2, seeds=(16, 17, 18)),
    "lora": Group(("refine", "with LoRA"), "wordless", 15),
    "look": Group(("full", "full with LoRA", "full with more pictures"), "look", 24, seeds=(23, 24, 25)),
}


def runs(group: str, *, quick: bool) -> list[dict[str, list[Session]]]:
    """Of every seed: way → sessions, one per person."""
    plan, seeds = plan_of(group), GROUPS[group].seeds
    if quick:
        plan, seeds = QUICK, seeds[:2]
    return [sessions(plan, seed, group) for seed in seeds]


def plan_of(group: str) -> Plan:
    """The full plan, with the group's people and pictures."""
    return replace(FULL, people=GROUPS[group].people, pictures=GROUPS[group].pictures)


def sessions(plan: Plan, seed: int, group: str) -> dict[str, list[Session]]:
    """A seed's sessions, from the cache where this commit has made them before."""
    ways, kind = GROUPS[group].ways, GROUPS[group].kind
    key = {"commit": commit(), "plan": asdict(plan), "seed": seed, "ways": list(ways), "kind": kind}
    file = CACHE / f"refine-{group}-{plan.people}-{seed}.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if known.get("key") != key or key["commit"].endswith("+changes"):
        known = {"key": key, "run": driven({**asdict(plan), "seed": seed, "ways": ways, "kind": kind})}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known), encoding="utf-8")
    return known["run"]


def driven(asked: Mapping[str, Any]) -> Any:
    """What `_refine_trial` makes of these settings, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **asked, "base": str(Path(folder) / "base"),
            "comfyui": os.environ.get("ATTUNE_COMFYUI") or str(ROOT / ".host" / "ComfyUI"),
        }  # fmt: skip
        driver = Path(__file__).with_name("_refine_trial.py")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(driver), json.dumps(settings)], stdout=subprocess.PIPE, text=True,
            timeout=4 * 3600,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"The trial of seed {asked['seed']} failed; what it said stands above.")
        return json.loads(done.stdout.strip().splitlines()[-1])


def shares(found: Sequence[dict[str, list[Session]]], way: str, rounds: int, *, of: str = "share") -> list[list[float]]:
    """Of every person, after every round: the share of its wishes that the picture which stands shows.

    Args:
        of: "of all" = the mean of what all pictures of the round show.
    """
    return [
        [session[min(number, len(session) - 1)][of] for number in range(rounds)]
        for run in found
        for session in run[way]
    ]


def paired(values: Sequence[tuple[float, ...]], statistic: Callable[[Sequence[tuple[float, ...]]], float]) -> Any:
    """A statistic of people and its percentile bootstrap interval, people drawn with all that belongs to them."""
    generator = random.Random(0)
    drawn = sorted(statistic(generator.choices(values, k=len(values))) for _ in range(10_000))
    tail = (1 - CONFIDENCE) / 2
    return statistic(values), (drawn[int(tail * len(drawn))], drawn[int((1 - tail) * len(drawn))])


def gain(values: Sequence[tuple[float, ...]]) -> float:
    """Mean of the first figure less the second."""
    return sum(one - other for one, other in values) / len(values)


def record_gains(
    claims: Mapping[Claim, tuple[str, str]], figure: Callable[[Sequence[float]], float], *, group: str, quick: bool
) -> None:
    """Record, for each claim, the lower end of the interval of what its first way has more than its second.

    Args:
        figure: of a person's shares after every round.
        group: whose ways these are.
    """
    watch, plan, found = Stopwatch(), QUICK if quick else plan_of(group), runs(group, quick=quick)
    for claim, ways in claims.items():
        by_seed = [
            list(zip(*([figure(person) for person in shares([run], way, plan.rounds)] for way in ways), strict=True))
            for run in found
        ]
        value, interval = paired([person for run in by_seed for person in run], gain)
        each = [gain(run) for run in by_seed]
        record(
            claim,
            interval[0],
            ci=interval,
            seeds=len(found),
            seconds=watch.seconds,
            quick=quick,
            samples=each,
            attempts=[
                {"what": f"seed {seed}, mean gain", "value": one}
                for seed, one in zip(GROUPS[group].seeds, each, strict=False)
            ],
            details={
                "mean gain": value,
                "people who differ, of all": [differing(by_seed), sum(map(len, by_seed))],
                "gain as a mean over all rounds": over_rounds(found, ways, plan.rounds),
                "gain in the share that all pictures of a round show": over_rounds(
                    found, ways, plan.rounds, of="of all"
                ),
                "ways": by_round(found, plan.rounds),
                "plan": asdict(plan),
            },
        )


def differing(by_seed: Sequence[Sequence[tuple[float, ...]]]) -> int:
    """For how many people two ways differ at all: few of them make an interval narrow, and say little."""
    return sum(one != other for run in by_seed for one, other in run)


def over_rounds(
    found: Sequence[dict[str, list[Session]]], ways: Sequence[str], rounds: int, *, of: str = "share"
) -> Any:
    """Of two ways: the gain in a figure of `shares` as a mean over all rounds, and its interval."""
    means = [[sum(person) / rounds for person in shares(found, way, rounds, of=of)] for way in ways]
    value, interval = paired(list(zip(*means, strict=True)), gain)
    return {"value": value, "ci": interval}


def by_round(found: Sequence[dict[str, list[Session]]], rounds: int) -> dict[str, dict[str, Any]]:
    """Of every way: mean share after every round, and how many took a picture; for the details of a record."""
    table = {}
    for way in found[0]:
        people = shares(found, way, rounds)
        accepted = sum(session[-1]["accepted"] for run in found for session in run[way])
        table[way] = {
            "share after each round": [sum(column) / len(people) for column in zip(*people, strict=True)],
            "accepted": accepted,
            "people": len(people),
            "rounds": sum(len(session) for run in found for session in run[way]),
            "shown in the end": _shown([session[-1]["shows"] for run in found for session in run[way]]),
        }
    return table


def _shown(pictures: Sequence[Mapping[str, bool]]) -> dict[str, float]:
    """Attribute → share of the pictures that show it as it was meant."""
    return {name: sum(shows[name] for shows in pictures) / len(pictures) for name in pictures[0]}
