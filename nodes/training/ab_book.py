"""Blind tests as they are kept: which pairs a test has, what a person voted, and what of it a page may see.

A test is a file that never changes, named by its content. Votes are rows of the pack's store, found by a digest of the
models' identities, the prompt, the seed and the pixels: any test that shows the same pair knows its vote, whichever
side
the models are wired to.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ...training.checkpoint import whole_file
from ...training.interfaces import AttuneError
from ..store import Store
from .ab_pictures import NAME, digest_of
from .ab_statistics import Tally, verdict

Choice = Literal["a", "b", "tie"]
Voter = Literal["person", "reward"]
# Tests whose file is kept, newest first. An older one is made again by running its node.
MOST_TESTS = 200
_KEYS_PER_QUERY = 500


class UnknownTest(AttuneError):
    """There is no such test, or no such pair in it."""


@dataclass(frozen=True)
class Pair:
    """One prompt and seed, drawn by both models.

    Attributes:
        key: names the pair for its vote; see `pair_key`.
        prompt, seed: what both were given.
        a, b: names of the pictures.
        content_a, content_b: names of their pixels.
        width, height: of the pictures.
        a_is_left: where model A's picture is shown to a person.
        blurred: a safety gate holds one of them back: not voted on.
        choice: the reward's vote; None if a person votes.
    """

    key: str
    prompt: str
    seed: int
    a: str
    b: str
    content_a: str
    content_b: str
    width: int
    height: int
    a_is_left: bool
    blurred: bool = False
    choice: Choice | None = None

    @property
    def alike(self) -> bool:
        """Both pictures are the same, which is a tie without a vote."""
        return self.content_a == self.content_b


@dataclass(frozen=True)
class BlindTest:
    """All pairs, in the order in which a person sees them.

    Attributes:
        names: what the models are called.
        voter: who votes.
        reward: name of the reward that votes; "" if none does.
        by_prompt: indices of the pairs, prompts outermost, seeds within.
    """

    names: tuple[str, str]
    voter: Voter
    reward: str
    pairs: tuple[Pair, ...]
    by_prompt: tuple[int, ...]

    @property
    def id(self) -> str:
        return digest_of(asdict(self))

    @property
    def open_pairs(self) -> list[Pair]:
        """Those that need a vote."""
        return [pair for pair in self.pairs if not pair.blurred and not pair.alike]


def pair_key(models: tuple[str, str], contents: tuple[str, str], prompt: str, seed: int) -> str:
    """Names a pair, the same for both ways of wiring the models.

    Args:
        models, contents: identities of the models and of their pictures' pixels, A first.
    """
    return digest_of([sorted(zip(models, contents, strict=True)), prompt, seed])


class Ballots:
    """Tests in a folder, votes in the store.

    Args:
        folder: of the tests' files; made when first needed.
        store: the pack's store.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store

    # ---- tests ----

    def add(self, test: BlindTest) -> str:
        """Keep a test; its id.

        Raises:
            AttuneError: the folder cannot be written.
        """
        path = self.folder / f"{test.id}.json"
        try:
            with whole_file(path) as file:
                file.write_text(json.dumps(asdict(test)), encoding="utf-8")
        except OSError as error:
            raise AttuneError(f"The test cannot be kept in {self.folder} ({error.strerror or error}).") from error
        with contextlib.suppress(OSError):
            files = sorted(self.folder.glob("*.json"), key=lambda other: other.stat().st_mtime)
            for old in files[: max(0, len(files) - MOST_TESTS)]:
                old.unlink(missing_ok=True)
        return test.id

    def test(self, name: str) -> BlindTest:
        """
        Raises:
            UnknownTest: there is none.
        """
        path = self.folder / f"{name}.json"
        if not NAME.fullmatch(name) or not path.is_file():
            raise UnknownTest("This test is not known any more. Press Run: it comes back, with its votes.")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            pairs = tuple(Pair(**pair) for pair in raw.pop("pairs"))
            return BlindTest(names=tuple(raw.pop("names")), pairs=pairs, by_prompt=tuple(raw.pop("by_prompt")), **raw)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UnknownTest("This test's file is damaged. Press Run: it comes back, with its votes.") from error

    # ---- votes ----

    def votes(self, pairs: Sequence[Pair]) -> dict[str, tuple[Choice, int]]:
        """Key → what a person chose, and when (nanoseconds since 1970); those that are not voted on are missing."""
        found: dict[str, tuple[str, int]] = {}
        keys = [bytes.fromhex(pair.key) for pair in pairs]
        with self.store.reading() as connection:
            for start in range(0, len(keys), _KEYS_PER_QUERY):
                part = keys[start : start + _KEYS_PER_QUERY]
                marks = ", ".join("?" * len(part))
                query = f"SELECT pair, winner, made FROM ab_votes WHERE pair IN ({marks})"
                found |= {key.hex(): (winner, made) for key, winner, made in connection.execute(query, part)}
        choices: dict[str, tuple[Choice, int]] = {}
        for pair in pairs:
            if pair.key in found:
                winner, made = found[pair.key]
                names: dict[str, Choice] = {pair.content_a: "a", pair.content_b: "b", "": "tie"}
                if winner in names:
                    choices[pair.key] = (names[winner], made)
        return choices

    def vote(self, name: str, key: str, side: str | None) -> None:
        """Keep a person's vote in place of an earlier one.

        Args:
            name: of the test.
            key: of the pair.
            side: "left", "right", "tie"; None takes the vote back.

        Raises:
            UnknownTest: no such test or pair.
            AttuneError: no such side, or a reward votes in this test.
        """
        test = self.test(name)
        pair = next((pair for pair in test.open_pairs if pair.key == key), None)
        if pair is None:
            raise UnknownTest("There is no such pair in this test.")
        if test.voter != "person":
            raise AttuneError("In this test a reward votes. Set voter to 'person' and press Run to vote yourself.")
        winners = {"left": pair.content_a if pair.a_is_left else pair.content_b,
                   "right": pair.content_b if pair.a_is_left else pair.content_a, "tie": ""}  # fmt: skip
        if side is not None and side not in winners:
            raise AttuneError(f"{side!r} is no side; choose left, right or tie.")
        with self.store.writing() as connection:
            if side is None:
                connection.execute("DELETE FROM ab_votes WHERE pair = ?", (bytes.fromhex(key),))
                return
            connection.execute(
                "INSERT INTO ab_votes (pair, winner, made) VALUES (?, ?, ?) "
                "ON CONFLICT (pair) DO UPDATE SET winner = excluded.winner, made = excluded.made",
                (bytes.fromhex(key), winners[side], time.time_ns()),
            )

    def forget(self, name: str) -> None:
        """Take back all votes on the pairs of a test."""
        keys = [(bytes.fromhex(pair.key),) for pair in self.test(name).pairs]
        with self.store.writing() as connection:
            connection.executemany("DELETE FROM ab_votes WHERE pair = ?", keys)

    def revision(self) -> str:
        """Changes with every vote that is given, changed or taken back."""
        with self.store.reading() as connection:
            count, newest = connection.execute("SELECT COUNT(*), MAX(made) FROM ab_votes").fetchone()
        return f"{count} {newest}"

    # ---- what stands ----

    def choices(self, test: BlindTest) -> dict[str, Choice]:
        """Key → choice, of every pair that is decided: by its votes, by the reward, or by being alike."""
        alike: dict[str, Choice] = {pair.key: "tie" for pair in test.pairs if pair.alike and not pair.blurred}
        if test.voter == "reward":
            return alike | {pair.key: pair.choice for pair in test.open_pairs if pair.choice is not None}
        return alike | {key: choice for key, (choice, _) in self.votes(test.open_pairs).items()}

    def standing(self, test: BlindTest) -> dict[str, Any]:
        """The figures of what stands: `ab_statistics.verdict`, and of how many pairs it is; JSON-able."""
        chosen = list(self.choices(test).values())
        tally = Tally(a=chosen.count("a"), b=chosen.count("b"), ties=chosen.count("tie"))
        blurred = sum(pair.blurred for pair in test.pairs)
        return {
            "names": list(test.names),
            "voter": test.voter,
            "reward": test.reward,
            "pairs": len(test.pairs),
            "blurred": blurred,
            "missing": len(test.pairs) - blurred - tally.votes,
            **verdict(tally),
        }

    # ---- for the page ----

    def shown(self, name: str) -> dict[str, Any]:
        """A test as the page shows it. Of a person's pairs nothing says which side is which model's; see "
        "`js/ab_state.js`."""
        test = self.test(name)
        votes = self.votes(test.open_pairs) if test.voter == "person" else {}
        pairs = []
        for pair in test.open_pairs:
            left, right = (pair.a, pair.b) if pair.a_is_left else (pair.b, pair.a)
            choice, made = votes.get(pair.key, (None, 0))
            sides = {"a": "left", "b": "right"} if pair.a_is_left else {"a": "right", "b": "left"}
            pairs.append({
                "key": pair.key, "prompt": pair.prompt, "left": left, "right": right, "width": pair.width,
                "height": pair.height, "choice": sides.get(choice, choice), "made": made,
            })  # fmt: skip
        aside = {"alike": sum(pair.alike and not pair.blurred for pair in test.pairs),
                 "blurred": sum(pair.blurred for pair in test.pairs)}  # fmt: skip
        return {"test": name, "voter": test.voter, "pairs": pairs, **aside}

    def result(self, name: str) -> dict[str, Any]:
        """What stands, and every decided pair with its sides named; what is not decided stays blind."""
        test = self.test(name)
        choices = self.choices(test)
        pairs = []
        for index in test.by_prompt:
            pair = test.pairs[index]
            if pair.key in choices:
                pairs.append({
                    "prompt": pair.prompt, "seed": pair.seed, "a": pair.a, "b": pair.b, "width": pair.width,
                    "height": pair.height, "choice": choices[pair.key],
                })  # fmt: skip
        return {"test": name, "standing": self.standing(test), "pairs": pairs}
