"""Everything about a session as one JSON document, from which the page, the picture and the timeline are drawn. Ours.

    session: key, name, prompt and negative (the first wish), seed, revision, created, changed
    rounds: every committed round on all branches, in that order; see `_round`
    path: keys of the rounds from the first to the head
    open: the round that waits for a person, or null
    branches: one per round on which none builds: rounds (keys), current, accepted, level, prompt
    comparisons: the way that is gone now against each of the `MOST_COMPARED` newest others; see `comparison_report`
    kpis: see `kpis.SessionKpis`
    agreement: see `agreement.Agreement`, and words
    fairness: whether choices and weights lean to some look; see `fairness_report.fairness_report`
    audit: sound, rows (how many), last (hash of the last row), problems, and entries: the rows themselves, see `audit`,
        by which the chain can be checked without this pack; what cannot be read of an edited row is left out
    several: figures of several sessions together, see `kpis.SeveralKpis`, and words, or null; its tests are a list,
        each with its name (test) and words

Seeds are text. Times are seconds since 1970. Pictures are named by their hash. Texts are what people wrote: whoever
shows them must escape them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .agreement import Agreement, agreement
from .fairness_report import Looked, fairness_report, looked_at
from .kpis import CAP, YOUNG_DAYS, SeveralKpis, level_of, made_once, session_kpis, several_kpis
from .plain_records import plain_picture, plain_round
from .prompt_diff import diff_line, prompt_diff
from .records import Round
from .round_lora import version_of
from .session_reading import SessionRecord
from .store import SessionStore
from .tree import Tree

FORMAT, VERSION = "attune session report", 2
MOST_COMPARED = 5
# Of a round, what only the file needs.
_NOT_SHOWN = ("embedding", "lora", "latents")


def report_of(
    store: SessionStore,
    key: str,
    *,
    judge: str = "",
    cap: int = CAP,
    everything: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The document of a session in the store.

    Args:
        judge, cap: see `kpis.session_kpis`.
        everything: with the figures of all sessions together.
        progress: told (done, of how much) while pictures are read.

    Raises:
        UnknownError: there is no such session.
    """
    record = store.record(key)
    several = [store.record(known.key) for known in store.summaries()] if everything else []
    told = [record, *(known for known in several if known.state.key != key)]
    looked = looked_at([(known, store.files(known.state.key).pictures.get) for known in told], progress)
    return session_report(record, judge=judge, cap=cap, several=several, looked=looked)


def shown_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a document the page shows: without what only the file needs."""

    waiting = report["open"]
    rounds = [_shown(round_) for round_ in report["rounds"]]
    shown = {name: value for name, value in report.items() if name != "comparisons"}
    shown["audit"] = {name: value for name, value in report["audit"].items() if name != "entries"}
    return {**shown, "rounds": rounds, "open": waiting and _shown(waiting)}


def _shown(round_: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in round_.items() if name not in _NOT_SHOWN}
    if kept["weights"]:
        kept["weights"] = {name: kept["weights"][name] for name in ("rule", "before", "after")}
    return kept


def shown_comparison(compared: Mapping[str, Any]) -> dict[str, Any]:
    """What of a comparison the page shows: both ends, and how many rounds each has of its own and both share."""
    sides = ("first", "second")
    return {
        **{name: compared[name] for name in ("diff", "change", "judge", "first_level", "second_level")},
        **{f"{side}_end": _shown(compared[f"{side}_end"]) for side in sides},
        "rounds": {name: len(compared[name]) for name in ("common", *sides)},
    }


def session_report(
    record: SessionRecord,
    *,
    judge: str = "",
    least_gain: float | None = None,
    cap: int = CAP,
    several: Sequence[SessionRecord] = (),
    looked: Sequence[Looked] = (),
) -> dict[str, Any]:
    """The document of one session.

    Args:
        judge, least_gain, cap: see `kpis.session_kpis`.
        several: sessions whose figures are told together, for example both arms of a test.
        looked: rounds by which fairness is told.
    """
    state = record.state
    kpis = session_kpis(record, judge=judge, least_gain=least_gain, cap=cap)
    tree = Tree(record.rounds)
    return {
        "format": FORMAT,
        "version": VERSION,
        "session": {
            "key": state.key,
            "name": state.name,
            "prompt": state.prompt,
            "negative": state.negative,
            "seed": str(state.seed),
            "revision": state.revision,
            "created": record.created,
            "changed": record.changed,
        },
        "rounds": [_round(record, tree, round_, kpis.judge) for round_ in record.rounds],
        "path": [round_.key for round_ in state.path],
        "open": None if state.open is None else _round(record, tree, state.open, kpis.judge),
        "branches": _branches(record, tree, kpis.judge),
        "comparisons": _comparisons(record, tree, judge),
        "kpis": _plain(kpis),
        "agreement": _agreement(agreement(record.ratings.values())),
        "fairness": _plain(fairness_report(looked)),
        "audit": {
            "sound": record.verdict.sound,
            "rows": record.verdict.rows,
            "last": record.verdict.last,
            "problems": list(record.verdict.problems),
            "entries": [dataclasses.asdict(row) for row in record.rows],
        },
        "several": several_report(several) if several else None,
    }


def several_report(records: Sequence[SessionRecord]) -> dict[str, Any]:
    """Figures of several sessions together."""
    kpis = several_kpis(records)
    plain = _plain(kpis)
    plain["agreement"] = _agreement(kpis.agreement)
    plain["words"] = _counted(kpis)
    plain["tests"] = [
        {"test": test, **_plain(found), "words": f"{test}: {found.words}" if test else found.words}
        for test, found in kpis.tests.items()
    ]
    return plain


def _counted(kpis: SeveralKpis) -> str:
    """Who counts, in words."""
    left = kpis.sessions - kpis.accepted
    return (
        f"Every session with an answered round counts ({kpis.sessions}). {left} of them are given up or still open, "
        f"which counts as not accepted; {kpis.young} of those were moved in the last {YOUNG_DAYS} days and may yet be "
        "accepted."
    )


def comparison_report(record: SessionRecord, first: str, second: str, *, judge: str = "") -> dict[str, Any]:
    """Two ways through a session side by side.

    Args:
        first, second: keys of the rounds at their ends.

    Returns:
        common, first, second: rounds as in the report; first_end, second_end: those that the keys name; diff: from the
        first's last prompt to the second's; change: the same as one line; judge, first_level, second_level.

    Raises:
        UnknownError: there is no such round.
    """
    tree = Tree(record.rounds)
    compared = tree.compare(first, second)
    judge = session_kpis(record, judge=judge).judge
    before, after = tree.round(first), tree.round(second)
    diff = prompt_diff(before.prompt, after.prompt)
    return {
        **{
            name: [_round(record, tree, round_, judge) for round_ in getattr(compared, name)]
            for name in ("common", "first", "second")
        },
        "first_end": _round(record, tree, before, judge),
        "second_end": _round(record, tree, after, judge),
        "diff": [list(part) for part in diff],
        "change": diff_line(diff),
        "judge": judge,
        "first_level": level_of(before, judge),
        "second_level": level_of(after, judge),
    }


def _round(record: SessionRecord, tree: Tree, round_: Round, judge: str) -> dict[str, Any]:
    """What `plain_round` says, and of the round: on_path, regenerations, version (`weights_id` of the session's own
    LoRA that it was made with, "" = none), diff (list of [kind, text] from the parent's prompt), change (the same as
    one line), level and gain by the judge; of a picture: liked, disliked, chosen, stars (rater → 1 … 5).
    """
    parent = tree.round(round_.parent) if round_.parent else None
    diff = prompt_diff(parent.prompt if parent else record.state.prompt, round_.prompt)
    level, before = level_of(round_, judge), level_of(parent, judge) if parent else None
    said = round_.feedback
    return {
        **plain_round(round_),
        "pictures": [
            {
                **plain_picture(picture),
                "liked": bool(said and place in said.liked),
                "disliked": bool(said and place in said.disliked),
                "chosen": bool(said and place == said.chosen),
                "stars": dict(record.ratings.get((round_.key, place), {})),
            }
            for place, picture in enumerate(round_.pictures)
        ],
        "on_path": round_.key in {on_path.key for on_path in record.state.path},
        "regenerations": _regenerations(record, tree, round_),
        "version": version_of(round_),
        "diff": [list(part) for part in diff],
        "change": diff_line(diff),
        "level": level,
        "gain": None if level is None or before is None else level - before,
    }


def _regenerations(record: SessionRecord, tree: Tree, round_: Round) -> int:
    """How often other pictures were asked for until this round's came: since the round beside it that came before."""
    beside = [other for other in tree.children(round_.parent) if other.key != round_.key]
    if round_.feedback is not None:
        keys = [other.key for other in tree.rounds]
        beside = [other for other in beside if keys.index(other.key) < keys.index(round_.key)]
    # Pictures that were answered anew after an undo are the same ones, which came as they came.
    since = max((other.attempt for other in beside if len(made_once([other, round_])) == 2), default=0)
    return sum(passed.parent == round_.parent and since <= passed.attempt < round_.attempt for passed in record.passed)


def _branches(record: SessionRecord, tree: Tree, judge: str) -> list[dict[str, Any]]:
    head = record.state.last.key if record.state.last else None
    found = []
    for branch in tree.branches():
        keys = [round_.key for round_ in branch]
        last = branch[-1]
        found.append(
            {
                "rounds": keys,
                "current": head in keys,
                "accepted": any(round_.feedback.accepted for round_ in branch if round_.feedback),
                "level": level_of(last, judge),
                "prompt": last.prompt,
            }
        )
    return found


def _comparisons(record: SessionRecord, tree: Tree, judge: str) -> list[dict[str, Any]]:
    now = record.state.last
    if now is None:
        return []
    others = [way[-1].key for way in tree.branches() if now not in way][-MOST_COMPARED:]
    return [comparison_report(record, other, now.key, judge=judge) for other in others]


def _agreement(found: Agreement) -> dict[str, Any]:
    return {**_plain(found), "words": found.words}


def _plain(value: Any) -> Any:
    """Dataclasses as JSON holds them: keys are text, what is no number is null."""
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(content) for content in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
