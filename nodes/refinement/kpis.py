"""What a session came to, in figures: how soon, how well liked, what each round gained, and when to stop. Ours.

| symbol | meaning                                                                                                |
| ------ | ------------------------------------------------------------------------------------------------------ |
| l_t    | level of round t: the judge's score of its chosen picture; the mean of its pictures if none was chosen   |
| g_t    | gain of round t: l_t − l_{t−1}                                                                          |
| b_t    | best level up to round t                                                                               |
| ε      | the least gain that counts: `LEAST_GAIN` deviations of all the judge's scores on the way, unless given   |

Further rounds *stopped paying* at the first round t with b_T − b_t < ε, where T is the last: after it the best level
rose by less than ε. It is told once `PATIENCE` rounds have passed since. A session that is not accepted after `CAP`
rounds is handed over to a person (or, where a person has done it, to another one): 3 to 10 rounds are what people take.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from .ab_arms import ARMS, Comparison, Outcome, compare, wilson
from .agreement import Agreement, agreement
from .audit import AuditRow
from .records import REWARDS, Round
from .session_reading import SessionRecord

CAP = 6
PATIENCE = 2
LEAST_GAIN = 0.1
# A session that was moved within so many days may still be accepted.
YOUNG_DAYS = 7
ANSWERED = ("committed", "accepted")
NO_JUDGES = ("diversity", "consistency")

# accepted: done. go on: the next round may still bring something. stop: it hardly will. hand over: to a person.
Advice = Literal["accepted", "go on", "stop", "hand over"]


@dataclass(frozen=True)
class SessionKpis:
    """One session.

    Attributes:
        accepted: whether a picture on the way to the head is what was meant.
        rounds: on the way to the head.
        rounds_to_accept: rounds that were answered until then, on all branches; one whose pictures were answered anew
            after an undo counts once. None = not accepted, or nobody knows when.
        regenerations: how often other pictures were asked for.
        choices: how often a person was asked: answers and regenerations. What the rewards decided is none.
        pictures: that were made, also of rounds that were passed over.
        satisfaction: mean of the ratings on the way, 1 … 5; None = nobody rated.
        ratings: number of the round on the way → its rating.
        seconds_per_round: mean time that making a round took; None = there is none.
        elapsed: seconds from the first pictures to the acceptance, or to the last change.
        judge: the reward by which gains are told; "" = none.
        levels, gains: l_t of every round on the way, g_t from the second on; None = the judge did not score it.
        least_gain: ε.
        stopped_paying: number of the round after which rounds stopped paying; None = they have not, or nobody knows.
        advice: what to do now. reason: why, in words.
    """

    accepted: bool
    rounds: int
    rounds_to_accept: int | None
    regenerations: int
    choices: int
    pictures: int
    satisfaction: float | None
    ratings: Mapping[int, int]
    seconds_per_round: float | None
    elapsed: int
    judge: str
    levels: tuple[float | None, ...]
    gains: tuple[float | None, ...]
    least_gain: float | None
    stopped_paying: int | None
    advice: Advice
    reason: str


@dataclass(frozen=True)
class SeveralKpis:
    """Several sessions together: all that have a round which was answered.

    Attributes:
        sessions, accepted: how many. One that is not accepted, whether given up or still open, counts as not accepted:
            who left out those that were given up early would praise what made people give up.
        young: those of the sessions that are not accepted and were moved in the last `YOUNG_DAYS` days.
        acceptance: Wilson's interval of the share that is accepted, at 95 %.
        accepted_by: number of rounds → share of sessions that were accepted by then.
        rounds_to_accept: mean over the accepted ones; None = none is.
        regenerations, choices: means per session.
        satisfaction: mean of all ratings; None = nobody rated.
        satisfaction_by_round: number of the round → mean rating.
        seconds_per_round: mean over all rounds.
        agreement: of those who rated the same pictures.
        tests: name of an A/B test → its comparison of the acceptance of A against B.
    """

    sessions: int
    accepted: int
    young: int
    acceptance: tuple[float, float]
    accepted_by: Mapping[int, float]
    rounds_to_accept: float | None
    regenerations: float
    choices: float
    satisfaction: float | None
    satisfaction_by_round: Mapping[int, float]
    seconds_per_round: float | None
    agreement: Agreement
    tests: Mapping[str, Comparison]


def session_kpis(
    record: SessionRecord, *, judge: str = "", least_gain: float | None = None, cap: int = CAP
) -> SessionKpis:  # fmt: skip
    """The figures of one session.

    Args:
        judge: a reward's name; "" = see `judge_of`.
        least_gain: ε, in the judge's own unit; None = see the module.
        cap: rounds after which a session that is not accepted is handed over.
    """
    path = record.state.path
    judge = judge or judge_of(path)
    levels = tuple(level_of(round_, judge) for round_ in path)
    if least_gain is None:
        least_gain = _least_gain(path, judge)
    better = better_levels(levels, cost=is_cost(path, judge))
    stopped = stopped_paying(better, least_gain)
    accepted, taken = record.state.accepted, _acceptance(record)
    advice, reason = _advice(accepted, len(path), stopped, judge, least_gain, cap)
    ratings = {round_.number: said.rating for round_ in path if (said := round_.feedback) and said.rating is not None}
    answers = [row for row in record.rows if row.kind in ANSWERED and _by_person(row)]
    again = sum(row.kind == "again" for row in record.rows)
    return SessionKpis(
        accepted,
        len(path),
        None if taken is None else _answered_by(record, taken),
        again,
        len(answers) + again,
        sum(len(round_.pictures) for round_ in (*made_once(record.rounds), *record.passed)),
        statistics.fmean(ratings.values()) if ratings else None,
        ratings,
        statistics.fmean(round_.seconds for round_ in path) if path else None,
        _elapsed(record, taken),
        judge,
        levels,
        gains(better),
        least_gain,
        stopped,
        advice,
        reason,
    )


def several_kpis(records: Sequence[SessionRecord], *, now: float | None = None) -> SeveralKpis:
    """The figures of several sessions together; those without an answer have no part.

    Args:
        now: seconds since 1970, by which the young ones are told; None = the clock's.
    """
    records = [record for record in records if record.rounds]
    each = [session_kpis(record) for record in records]
    accepted = sum(kpis.accepted for kpis in each)
    since = (time.time() if now is None else now) - YOUNG_DAYS * 86_400
    to_accept = [kpis.rounds_to_accept for kpis in each if kpis.rounds_to_accept is not None]
    by_round: dict[int, list[int]] = {}
    for kpis in each:
        for number, rating in kpis.ratings.items():
            by_round.setdefault(number, []).append(rating)
    ratings = [rating for given in by_round.values() for rating in given]
    seconds = [round_.seconds for record in records for round_ in record.state.path]
    count = len(each)
    return SeveralKpis(
        count,
        accepted,
        sum(not kpis.accepted and record.changed >= since for record, kpis in zip(records, each, strict=True)),
        wilson(Outcome(accepted, count)),
        {by: sum(taken <= by for taken in to_accept) / count for by in range(1, max(to_accept, default=0) + 1)},
        statistics.fmean(to_accept) if to_accept else None,
        statistics.fmean(kpis.regenerations for kpis in each) if each else 0.0,
        statistics.fmean(kpis.choices for kpis in each) if each else 0.0,
        statistics.fmean(ratings) if ratings else None,
        {number: statistics.fmean(by_round[number]) for number in sorted(by_round)},
        statistics.fmean(seconds) if seconds else None,
        agreement([stars for record in records for stars in record.ratings.values()]),
        _tests(records),
    )


# ---- gains ----


def judge_of(path: Sequence[Round]) -> str:
    """The reward with the largest last weight among those that scored every picture on the way; "" = there is none.

    How different pictures are says nothing of how good one is: rewards of a role in `NO_JUDGES` are left out, where the
    weights' details tell the roles ("roles": reward's name → role).
    """
    scored = [set(picture.scores) for round_ in path for picture in round_.pictures]
    common = set.intersection(*scored) if scored else set()
    weights = next((round_.weights for round_ in reversed(path) if round_.weights), None)
    roles = weights.details.get("roles") if weights else None
    if isinstance(roles, dict):
        common -= {name for name, role in roles.items() if role in NO_JUDGES}
    after = weights.after if weights else {}
    return min(common, key=lambda name: (-after.get(name, 0.0), name), default="")


def is_cost(path: Sequence[Round], judge: str) -> bool:
    """Whether lower scores of the judge are better, as the weights' details tell ("costs": names of such rewards)."""
    weights = next((round_.weights for round_ in reversed(path) if round_.weights), None)
    costs = weights.details.get("costs") if weights else None
    return isinstance(costs, list | tuple) and judge in costs


def better_levels(levels: Sequence[float | None], *, cost: bool) -> tuple[float | None, ...]:
    """The levels, of a cost negated: higher is better."""
    return tuple(-level if cost and level is not None else level for level in levels)


def gains(levels: Sequence[float | None]) -> tuple[float | None, ...]:
    """What each round gained over the one before, from the second on; None where one of both has no level."""
    return tuple(None if before is None or after is None else after - before for before, after in pairwise(levels))


def stopped_paying(levels: Sequence[float | None], least_gain: float | None, patience: int = PATIENCE) -> int | None:
    """The number of the round after which rounds stopped paying; see the module."""
    known = [(number, level) for number, level in enumerate(levels, start=1) if level is not None]
    if not known or least_gain is None:
        return None
    best = max(level for _, level in known)
    first = next(number for number, level in known if level == best or best - level < least_gain)
    return first if len(levels) - first >= patience else None


def level_of(round_: Round, judge: str) -> float | None:
    """l_t, see the module; None = the judge did not score it."""
    shown = [round_.chosen] if round_.chosen else round_.pictures
    scores = [picture.scores[judge] for picture in shown if judge in picture.scores]
    return statistics.fmean(scores) if scores else None


def _least_gain(path: Sequence[Round], judge: str) -> float | None:
    scores = [picture.scores[judge] for round_ in path for picture in round_.pictures if judge in picture.scores]
    return LEAST_GAIN * statistics.pstdev(scores) if len(scores) > 1 else None


def _advice(
    accepted: bool, rounds: int, stopped: int | None, judge: str, least_gain: float | None, cap: int
) -> tuple[Advice, str]:  # fmt: skip
    if accepted:
        return "accepted", "This is it."
    if rounds >= cap:
        return "hand over", (
            f"{rounds} rounds without a picture that was accepted (the cap is {cap}): somebody should look at what is "
            "meant and at what the model can draw."
        )
    if stopped is not None:
        return "stop", (
            f"Since round {stopped} no round has gained {least_gain:.3g} by {judge!r}: further rounds like these "
            "hardly pay. Take the best picture, go on from an earlier round, or ask for something else."
        )
    return "go on", "The next round may still bring it nearer." if rounds else "No round yet."


# ---- counting ----


def _acceptance(record: SessionRecord) -> AuditRow | None:
    """The row in which that round was accepted which first has what was meant; not one that was undone since."""
    first = next((round_.key for round_ in record.state.path if round_.feedback and round_.feedback.accepted), None)
    found = undone = None
    for row in record.rows:
        if row.round != first:
            continue
        if row.kind == "accepted":
            found = found or row
        elif row.kind == "undone":
            found, undone = None, found
        elif row.kind in ("redone", "branched"):
            found = found or undone
    return found


def _answered_by(record: SessionRecord, taken: AuditRow) -> int:
    """Rounds that were answered up to that row."""
    answered = {row.round for row in record.rows if row.kind in ANSWERED and row.number <= taken.number}
    return len(made_once([round_ for round_ in record.rounds if round_.key in answered]))


def _by_person(row: AuditRow) -> bool:
    choice = row.body.get("choice")
    return not isinstance(choice, Mapping) or choice.get("rater") != REWARDS


def made_once(rounds: Sequence[Round]) -> list[Round]:
    """Without those whose pictures were only answered anew after an undo."""
    made = {
        (round_.parent, round_.attempt, *(picture.hash for picture in round_.pictures)): round_ for round_ in rounds
    }
    return list(made.values())


def _elapsed(record: SessionRecord, taken: AuditRow | None) -> int:
    begun = next((row.made for row in record.rows if row.kind == "proposed"), record.created)
    return max(0, (record.changed if taken is None else taken.made) - begun)


def arms_of(record: SessionRecord) -> dict[str, str]:
    """Test's name → the arm in which the session's first answered round of that test was made.

    Rounds of before names were kept count as a test without a name, unless the session has been in one with a name.
    """
    found: dict[str, str] = {}
    for round_ in record.rounds:
        if round_.schedule.arm in ARMS:
            found.setdefault(round_.schedule.test, round_.schedule.arm)
    return {test: arm for test, arm in found.items() if test or len(found) == 1}


def _tests(records: Sequence[SessionRecord]) -> dict[str, Comparison]:
    """By the arm that a session was put into, whatever came of it (intention to treat)."""
    counts: dict[str, dict[str, list[bool]]] = {}
    for record in records:
        for test, arm in arms_of(record).items():
            counts.setdefault(test, {known: [] for known in ARMS})[arm].append(record.state.accepted)
    return {
        test: compare(*(Outcome(sum(arms[arm]), len(arms[arm])) for arm in ARMS))
        for test, arms in sorted(counts.items())
    }
