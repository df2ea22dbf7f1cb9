"""The store of refinement sessions. Any thread and process may use it.

    sessions = SessionStore(shared_store(user_folder() / FILE_NAME), user_folder() / "sessions")
    state = sessions.create("the cat at dusk", "a cat", seed=7)
    open_ = sessions.propose(state.key, state.revision, prompt="a cat", schedule=…, pictures=…, pixels=…)
    state = sessions.commit(state.key, state.revision, open_.key, Feedback("darker", liked=(1,)))

Every change is one transaction with one audit row, on the disk when the call returns. A session's *revision* rises
with every move that changes what the next run makes (commit, other pictures, undo, redo, branch, another first wish): a
run's fingerprint. What a run itself puts down, ratings and names leave it as it is, so that nothing is made twice.
Whoever moves gives the revision it has seen: where the session has moved on since, a `StaleError` says so and nothing
changes.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...training.interfaces import AttuneError
from ..store import Store
from ..store_part import StorePart
from . import audit, erasing, moves
from .checks import KEY, RefinementError, UnknownError, check_name, check_stars, session_name
from .latent_files import latents_digest
from .records import Feedback, Picture, Round, Schedule, SessionState, Weights
from .session_files import SessionFiles
from .session_reading import (
    SessionRecord,
    Summary,
    check_audit,
    check_free,
    check_revision,
    check_wish,
    key_of,
    next_place,
    read_record,
    read_state,
    read_summary,
    read_tree,
    readable_rounds,
)
from .session_rows import SessionRow, read_ratings, read_session, read_sessions
from .tree import Comparison, Tree

log = logging.getLogger("attune")

_ATTEMPTS = 5


class SessionStore(StorePart):
    """See the module.

    Args:
        store: the pack's store. folder: of the sessions' files. Nothing is opened or made before it is needed.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        super().__init__(store, "session")
        self.folder = Path(folder)

    # ---- sessions ----

    def create(self, name: str, prompt: str, negative: str = "", seed: int = 0) -> SessionState:
        """A new session.

        Raises:
            RefinementError: another session has this name, or something cannot be kept.
        """
        plain, key = session_name(name), moves.new_key()
        check_wish(prompt, negative, seed)
        with self._writing() as connection:
            check_free(connection, plain)
            moves.create(connection, plain, prompt, negative, seed, key=key)
            return read_state(connection, read_session(connection, key))

    def find_or_create(self, name: str, prompt: str, negative: str = "", seed: int = 0) -> SessionState:
        """The session of that name as it stands, or a new one.

        Raises:
            RefinementError: not a usable name, or something cannot be kept.
        """
        plain, key = session_name(name), moves.new_key()
        check_wish(prompt, negative, seed)
        with self._writing() as connection:
            found = key_of(connection, plain)
            if found is None:
                moves.create(connection, plain, prompt, negative, seed, key=key)
            return read_state(connection, read_session(connection, found or key))

    def reword(self, key: str, revision: int, prompt: str, negative: str = "", seed: int = 0) -> SessionState:
        """Another first wish, as long as no round was committed. The same one again changes nothing.

        Raises:
            UnknownError, StaleError. RefinementError: rounds follow from the first wish already.
        """
        check_wish(prompt, negative, seed)
        with self._moving(key, revision) as (connection, session):
            if (session.prompt, session.negative, session.seed) != (prompt, negative, seed):
                moves.reword(connection, session, prompt, negative, seed)
            return read_state(connection, read_session(connection, key))

    def find(self, name: str) -> Summary | None:
        """The session of that name (letter case does not matter) or key; None if there is none."""
        wanted = name if KEY.fullmatch(name) else session_name(name).casefold()
        return next((found for found in self.summaries() if wanted in (found.key, found.name.casefold())), None)

    def names(self) -> list[str]:
        """The names of all sessions, the one that was changed last first."""
        return [found.name for found in self.summaries()]

    def summaries(self) -> list[Summary]:
        """All sessions, the one that was changed last first."""
        if not self.store.path.is_file():
            return []
        with self._snapshot() as connection:
            return [read_summary(connection, row) for row in read_sessions(connection)]

    def rename(self, key: str, name: str) -> str:
        """Another name; as it is kept.

        Raises:
            UnknownError. RefinementError: not a usable name, or another session has it.
        """
        plain = session_name(name)
        with self._moving(key) as (connection, session):
            check_free(connection, plain, but=key)
            if plain != session.name:
                moves.rename(connection, session, plain)
        return plain

    def delete(self, key: str) -> str:
        """Delete a session so that no byte of it is left; see `erasing`.

        Returns:
            "" = that is done. Else the session is gone, but bytes of it stay until the next start or deletion: why, in
            words.

        Raises:
            UnknownError: there is no such session.
        """
        with self._snapshot() as connection:
            read_session(connection, key)
        erasing.mark(self.store, key)
        return self._finish()

    # ---- rounds ----

    def state(self, key: str, replay: str | None = None) -> SessionState:
        """A session as the next run sees it.

        Args:
            replay: key of a round that is to be made again as it was: the state is then that of its parent.

        Raises:
            UnknownError: there is no such session or round.
        """
        with self._snapshot() as connection:
            return read_state(connection, read_session(connection, key), replay)

    def propose(
        self,
        key: str,
        revision: int,
        *,
        prompt: str,
        schedule: Schedule,
        pictures: Sequence[Picture],
        pixels: Mapping[str, np.ndarray],
        negative: str = "",
        embedding: Mapping[str, Any] | None = None,
        weights: Weights | None = None,
        latents: torch.Tensor | None = None,
        direction: torch.Tensor | None = None,
        lora: str = "",
        seconds: float = 0.0,
    ) -> Round:
        """Keep what a run has made of the session's state as the open round, which waits for a person.

        The same inputs again change nothing; others take the place of the open round. The revision stays as it is.

        Args:
            revision: of the state that the run began with.
            pixels: picture's hash → uint8 [h, w, 3].
            latents: of the batch, any shape and type; kept bit by bit. None = none are kept.
            direction: whose digest `embedding` names; None = it is there already, or names none.

        Raises:
            UnknownError. StaleError: a person has moved the session while the run was under way.
            RefinementError: something cannot be kept.
        """
        files = self.files(key)
        with self._snapshot() as connection:
            check_revision(read_session(connection, key), revision)
        digest = "" if latents is None else latents_digest(latents)
        try:
            for _ in range(_ATTEMPTS):
                files.put(pictures, pixels, latents, direction)
                with self._moving(key, revision) as (connection, session):
                    place = next_place(connection, session)
                    made = Round(
                        moves.new_key(), *place, prompt, negative, dict(embedding or {}), schedule, weights,
                        tuple(pictures), None, seconds, lora, digest, int(time.time()),
                    )  # fmt: skip
                    # Another run's cleaning may have taken a file that no round named yet; nobody cleans in here.
                    if not files.hold(made):
                        continue
                    kept = moves.propose(connection, session, made)
                if kept is made:
                    self._clean(key, files)
                return kept
        except UnknownError:
            # The session was deleted while its files were written: they must not outlive it.
            erasing.drop_late(self.store, self.folder, key)
            raise
        raise RefinementError("The pictures of the round are deleted as fast as they are kept. Try again.")

    def commit(self, key: str, revision: int, round_: str, feedback: Feedback) -> SessionState:
        """Keep what a person says to the open round; the next round builds on it.

        Raises:
            UnknownError. StaleError: the session has moved on, or that round is not open.
            RefinementError: the feedback names pictures that the round does not have.
        """
        with self._moving(key, revision) as (connection, session):
            moves.commit(connection, session, round_, feedback)
            return read_state(connection, read_session(connection, key))

    def again(self, key: str, revision: int, round_: str) -> SessionState:
        """Have the next run make other pictures of the same state; see `moves.again`."""
        with self._moving(key, revision) as (connection, session):
            moves.again(connection, session, round_)
            return read_state(connection, read_session(connection, key))

    def undo(self, key: str, revision: int) -> SessionState:
        """Go back one round; its pictures wait for another answer. See `moves.undo`."""
        with self._moving(key, revision) as (connection, session):
            moves.undo(connection, session)
            return read_state(connection, read_session(connection, key))

    def redo(self, key: str, revision: int) -> SessionState:
        """Take the last undo back; see `moves.redo`."""
        with self._moving(key, revision) as (connection, session):
            moves.redo(connection, session)
            return read_state(connection, read_session(connection, key))

    def branch(self, key: str, revision: int, round_: str | None) -> SessionState:
        """Go on from any committed round, or (None) from the beginning; see `moves.branch`."""
        with self._moving(key, revision) as (connection, session):
            moves.branch(connection, session, round_)
            return read_state(connection, read_session(connection, key))

    def accept(self, key: str, revision: int, round_: str, position: int) -> SessionState:
        """This picture is what was meant; see `moves.accept`."""
        with self._moving(key, revision) as (connection, session):
            moves.accept(connection, session, round_, position)
            return read_state(connection, read_session(connection, key))

    def rate(self, key: str, round_: str, rater: str, stars: Mapping[int, int]) -> None:
        """Keep one rater's stars for pictures of a round, in place of that rater's earlier ones.

        Args:
            stars: position → 1 … 5.

        Raises:
            UnknownError. RefinementError: no stars, or for pictures that the round does not have.
        """
        check_name(rater, "The rater's name")
        for count in stars.values():
            check_stars(count)
        if not stars:
            raise RefinementError("Give stars to at least one picture.")
        with self._moving(key) as (connection, session):
            moves.rate(connection, session, round_, rater, stars)

    def replayed(self, key: str, round_: str, *, exact: bool) -> None:
        """Note that a round was made again, and whether its latents came out bit by bit."""
        with self._moving(key) as (connection, session):
            moves.replayed(connection, session, round_, exact)

    # ---- looking ----

    def tree(self, key: str) -> Tree:
        """All committed rounds of a session.

        Raises:
            UnknownError: there is no such session.
        """
        with self._snapshot() as connection:
            return read_tree(connection, read_session(connection, key))

    def path(self, key: str, round_: str) -> tuple[Round, ...]:
        """The rounds from the first to that one."""
        return self.tree(key).path(round_)

    def branches(self, key: str) -> tuple[tuple[Round, ...], ...]:
        """The ways to every round on which none builds."""
        return self.tree(key).branches()

    def compare(self, key: str, first: str, second: str) -> Comparison:
        """The ways to two rounds side by side."""
        return self.tree(key).compare(first, second)

    def ratings(self, key: str) -> dict[tuple[str, int], dict[str, int]]:
        """(round's key, position) → rater → stars, of all pictures that were rated."""
        with self._snapshot() as connection:
            return read_ratings(connection, read_session(connection, key).id)

    def files(self, key: str) -> SessionFiles:
        """Pictures, latents and directions of a session."""
        return SessionFiles(self.folder, key)

    def audit_rows(self, key: str) -> list[audit.AuditRow]:
        """Every change of a session, in order."""
        with self._snapshot() as connection:
            return audit.read_rows(connection, read_session(connection, key).id)

    def verify(self, key: str, *, pictures: bool = False) -> audit.AuditVerdict:
        """Whether a session's rows are what was written, see `audit`; with `pictures`, its picture files too.

        Raises:
            UnknownError: there is no such session.
        """
        with self._looking() as connection:
            session = read_session(connection, key)
            verdict = check_audit(connection, session)
            rounds = readable_rounds(connection, session) if pictures else []
        found = self.files(key).problems(rounds)
        return audit.AuditVerdict(verdict.rows, verdict.last, (*verdict.problems, *found))

    def record(self, key: str) -> SessionRecord:
        """Everything about a session at one moment.

        Raises:
            UnknownError: there is no such session.
        """
        with self._looking() as connection:
            session = read_session(connection, key)
            return read_record(connection, session)

    # ---- inside ----

    @contextmanager
    def _looking(self) -> Iterator[sqlite3.Connection]:
        """A snapshot in which bytes that are no text, which somebody else has written, show as signs for it."""
        with self._snapshot() as connection:
            usual = connection.text_factory
            connection.text_factory = lambda content: content.decode(errors="replace")
            try:
                yield connection
            finally:
                connection.text_factory = usual

    @contextmanager
    def _moving(self, key: str, revision: int | None = None) -> Iterator[tuple[sqlite3.Connection, SessionRow]]:
        with self._writing() as connection:
            session = read_session(connection, key)
            if revision is not None:
                check_revision(session, revision)
            yield connection, session

    def _clean(self, key: str, files: SessionFiles) -> None:
        """Delete files of rounds that were replaced. What cannot be deleted now goes with the next round."""
        try:
            with self._moving(key) as (connection, session):
                files.drop_unused(connection, session.id)
        except AttuneError as error:
            log.warning("Attune: a picture that is not needed any more stays for now: %s", error)

    def _finish(self) -> str:
        return erasing.finish(self.store, self.folder)
