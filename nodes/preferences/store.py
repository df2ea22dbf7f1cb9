"""The store of preferences: profiles, questions that wait, decisions, embeddings. Any thread and process may use it.

    store = PreferenceStore(shared_store(user_folder() / FILE_NAME), PictureFolder(user_folder() / "pictures"))
    profile = store.create("my taste")
    (question,) = store.ask(profile.key, [Question("pair", "a cat", …)], pixels)
    store.decide(profile.key, question.key, Answer("chosen", question.hashes[0]))

Every change is one transaction that is on the disk when the call returns. A decision is known by the pictures: the same
one given twice counts once, another one takes its place, and a decision that is taken back gives way to the one before.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ..store import Store
from ..store_part import StorePart
from . import erasing
from .adopting import adopt, insert_profile
from .embedding import PreferenceEmbedding
from .pictures import PictureFolder
from .records import (
    HASH,
    IMPORTED,
    KEY,
    Answer,
    Asked,
    Embedding,
    Picture,
    PreferenceError,
    Profile,
    Question,
    Summary,
    UnknownError,
    clean_name,
    whole_text,
)
from .rows import (
    insert_decision,
    insert_pictures,
    insert_question,
    missing_pictures,
    raise_revision,
    read_questions,
    remove_decision,
)

# Questions per profile that wait for an answer; beyond, those asked first are forgotten with their pictures.
MOST_WAITING = 500
LARGEST_EMBEDDING = 64 * 2**20
LONGEST_ENCODER = 200
# What the store holds as a whole number.
_LARGEST = 2**63 - 1
_COLUMNS = (
    "id, key, name, revision, created, chosen, ties, skipped, rated, waiting, "
    "(SELECT COUNT(*) FROM embeddings WHERE profile = profiles.id), "
    f"(SELECT COUNT(*) FROM embeddings WHERE profile = profiles.id AND encoder LIKE '%{IMPORTED}')"
)
_ATTEMPTS = 5
_KEYS_PER_QUERY = 500


class PreferenceStore(StorePart):
    """See the module.

    Args:
        store: the pack's store. pictures: of what was judged. Nothing is opened or made before it is needed.
        most_waiting: see `MOST_WAITING`.
    """

    def __init__(self, store: Store, pictures: PictureFolder, *, most_waiting: int = MOST_WAITING) -> None:
        super().__init__(store, "profile")
        self.pictures, self.most_waiting = pictures, most_waiting

    # ---- profiles ----

    def summaries(self) -> list[Summary]:
        """All profiles, by name."""
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM profiles WHERE name <> '' ORDER BY folded").fetchall()
        return [_summary(row) for row in rows]

    def summary(self, key: str) -> Summary:
        """
        Raises:
            UnknownError: there is no such profile.
        """
        with self._reading() as connection:
            return _summary(_row(connection, key))

    def names(self) -> list[str]:
        """The names of all profiles, the one that was made last first."""
        if not self.store.path.is_file():
            return []
        with self._reading() as connection:
            rows = connection.execute("SELECT name FROM profiles WHERE name <> '' ORDER BY id DESC").fetchall()
        return [name for (name,) in rows]

    def find(self, name: str) -> Profile | None:
        """The profile of that name (letter case does not matter) or key; None if there is none."""
        if not self.store.path.is_file():
            return None
        column, value = ("key", name) if KEY.fullmatch(name) else ("folded", clean_name(name).casefold())
        with self._reading() as connection:
            row = connection.execute(
                f"SELECT key, name, revision FROM profiles WHERE name <> '' AND {column} = ?", (value,)
            ).fetchone()
        return Profile(*row) if row else None

    def revision(self) -> str:
        """Changes with every profile that is made or deleted, and with every profile's revision."""
        if not self.store.path.is_file():
            return ""
        with self._reading() as connection:
            rows = connection.execute("SELECT COUNT(*), MAX(id), SUM(revision) FROM profiles WHERE name <> ''")
            return " ".join(map(str, rows.fetchone()))

    def profile(self, key: str) -> Profile:
        """
        Raises:
            UnknownError: there is no profile of that key.
        """
        with self._reading() as connection:
            return _profile(connection, key)

    def create(self, name: str) -> Profile:
        """A new profile, or the one that has this name already.

        Raises:
            PreferenceError: not a usable name, or there are too many profiles.
        """
        plain = clean_name(name)
        with self._writing() as connection:
            return insert_profile(connection, plain)

    def adopt(self, name: str, embeddings: Sequence[PreferenceEmbedding]) -> Profile:
        """A profile without choices that holds these embeddings, all or none; see `adopting`.

        Raises:
            PreferenceError: not a usable name, or a profile of that name holds something else.
        """
        plain = clean_name(name)
        with self._writing() as connection:
            return adopt(connection, plain, embeddings)

    def rename(self, key: str, name: str) -> Profile:
        """
        Raises:
            UnknownError: there is no such profile. PreferenceError: not a usable name, or another profile has it.
        """
        plain = clean_name(name)
        with self._writing() as connection:
            profile = _profile(connection, key)
            if _taken(connection, plain, but=key):
                raise PreferenceError(f"Another profile is called {plain!r}. Choose another name.")
            connection.execute(
                "UPDATE profiles SET name = ?, folded = ? WHERE key = ?", (plain, plain.casefold(), key)
            )  # fmt: skip
        return Profile(key, plain, profile.revision)

    def delete(self, key: str) -> str:
        """Delete a profile so that no byte of it is left; see `erasing`.

        Returns:
            "" = that is done. Else the profile is gone, but bytes of it stay until the next start or deletion: why, in
            words.

        Raises:
            UnknownError: there is no such profile.
        """
        with self._reading() as connection:
            id = _row(connection, key)[0]
        erasing.mark(self.store, id)
        return self._finish()

    # ---- questions ----

    def ask(self, key: str, questions: Sequence[Question], pixels: Mapping[str, np.ndarray]) -> list[Asked]:
        """Keep questions until they are answered; those that were asked before come back with what stands.

        Args:
            key: of the profile.
            pixels: hash → uint8 [h, w, 3] of the questions' pictures.

        Returns:
            One per question, in their order. Asking does not change the profile's revision.

        Raises:
            UnknownError: there is no such profile. PreferenceError: a picture cannot be kept.
        """
        needed = {picture.hash: picture for question in questions for picture in question.pictures}
        try:
            for _ in range(_ATTEMPTS):
                self._put(key, needed.values(), pixels)
                with self._writing() as connection:
                    id = _row(connection, key)[0]
                    # Another profile with the same picture may be deleted since; nobody does it during a transaction.
                    gone = missing_pictures(connection, needed.values())
                    if not gone and all(self.pictures.holds(name) for name in needed):
                        return self._ask(connection, id, questions)
        except UnknownError:
            # The profile was deleted while its pictures were written: they must not outlive it.
            erasing.drop_unused(self.store, self.pictures, needed.values())
            raise
        raise PreferenceError("The pictures of the questions are deleted as fast as they are kept. Try again.")

    def _put(self, key: str, needed: Collection[Picture], pixels: Mapping[str, np.ndarray]) -> None:
        """Files, and before them rows: what a kill leaves behind is known, and goes at the next start."""
        with self._reading() as connection:
            _row(connection, key)
            new = missing_pictures(connection, needed)
        if new:
            with self._writing() as connection:
                insert_pictures(connection, new)
        for picture in needed:
            self.pictures.put(pixels[picture.hash])

    def _ask(self, connection: sqlite3.Connection, id: int, questions: Sequence[Question]) -> list[Asked]:
        names = [question.key for question in questions]
        new = sum([insert_question(connection, id, question) for question in questions])
        if new:
            erasing.forget_oldest(connection, self.pictures, id, self.most_waiting, names)
        return _read_by_key(connection, id, names)

    def questions(self, key: str, names: Sequence[str]) -> list[Asked]:
        """The questions of those keys, in their order; those that are not known (any more) are left out.

        Raises:
            UnknownError: there is no such profile.
        """
        with self._reading() as connection:
            return _read_by_key(connection, _row(connection, key)[0], names)

    def waiting(self, key: str, *, most: int, before: int | None = None) -> list[Asked]:
        """Questions that wait for an answer, the one asked last first.

        Args:
            before: only those asked before the question of this id.

        Raises:
            UnknownError: there is no such profile.
        """
        with self._reading() as connection:
            values = (_row(connection, key)[0], _LARGEST if before is None else before, most)
            where = "q.profile = ? AND q.open = 1 AND q.id < ? ORDER BY q.id DESC LIMIT ?"
            return read_questions(connection, where, values)

    def answered(self, key: str, *, most: int, before: int | None = None) -> list[Asked]:
        """Questions with a decision, the newest decision first; those that were skipped are among them.

        Args:
            before: only those whose decision is older than the one of this id.

        Raises:
            UnknownError: there is no such profile.
        """
        with self._reading() as connection:
            values = (_row(connection, key)[0], _LARGEST if before is None else before, most)
            where = "q.profile = ? AND q.decision < ? ORDER BY q.decision DESC LIMIT ?"
            return read_questions(connection, where, values)

    # ---- decisions ----

    def decide(self, key: str, question: str, answer: Answer) -> Asked:
        """Keep a person's answer; see `decide_all`."""
        return self.decide_all(key, [(question, answer)])[0]

    def decide_all(self, key: str, answers: Iterable[tuple[str, Answer]]) -> list[Asked]:
        """Keep answers, all or none: each in place of the one that stood, and not twice. Stars add to those that stand.

        Args:
            key: of the profile.
            answers: (key of the question, answer).

        Returns:
            The questions as they stand now.

        Raises:
            UnknownError: there is no such profile or question. PreferenceError: not an answer to that question.
        """
        found = []
        with self._writing() as connection:
            id = _row(connection, key)[0]
            changed = False
            for name, answer in answers:
                asked = _one(connection, id, name)
                standing = asked.decision.answer if asked.decision else None
                answer = answer.checked(asked.question)
                if standing and standing.verdict == answer.verdict == "stars":
                    answer = Answer("stars", stars={**standing.stars, **answer.stars})
                if answer != standing:
                    insert_decision(connection, id, asked, answer)
                    asked, changed = _one(connection, id, name), True
                found.append(asked)
            if changed:
                raise_revision(connection, id)
        return found

    def undo(self, key: str, decision: int | None = None) -> Asked | None:
        """Take a decision back; what the person had said to that question before stands again.

        Args:
            key: of the profile.
            decision: which one; None = the profile's newest.

        Returns:
            The question as it stands now; None if there is nothing to take back (any more).

        Raises:
            UnknownError: there is no such profile.
        """
        with self._writing() as connection:
            id = _row(connection, key)[0]
            question = remove_decision(connection, id, decision)
            if question is None:
                return None
            raise_revision(connection, id)
            return read_questions(connection, "q.id = ?", (question,))[0]

    # ---- embeddings ----

    def put_embedding(self, key: str, embedding: Embedding) -> None:
        """Keep what was made of a profile's choices, in place of an earlier one of that encoder.

        The revision stays as it is, and so does what was imported.

        Raises:
            UnknownError: there is no such profile. PreferenceError: too large, or the encoder has no usable name.
        """
        encoder = whole_text(embedding.encoder, "The encoder's name")
        if not 0 < len(encoder) <= LONGEST_ENCODER or not 0 < len(embedding.content) <= LARGEST_EMBEDDING:
            raise PreferenceError(
                f"An embedding needs an encoder's name of 1 to {LONGEST_ENCODER} letters and 1 to {LARGEST_EMBEDDING} "
                f"bytes; these are {len(encoder)} letters and {len(embedding.content)} bytes."
            )
        if encoder.endswith(IMPORTED):
            raise PreferenceError(f"{encoder!r} is kept for a taste from a file. Give the encoder another name.")
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO embeddings (profile, encoder, revision, content, made) VALUES (?, ?, ?, ?, ?) ON CONFLICT "
                "(profile, encoder) DO UPDATE SET revision = excluded.revision, content = excluded.content, "
                "made = excluded.made",
                (_row(connection, key)[0], encoder, embedding.revision, embedding.content, int(time.time())),
            )

    def embedding(self, key: str, encoder: str) -> Embedding | None:
        """What was made of the profile's choices by that encoder; None = nothing. It may be of an earlier revision.

        Raises:
            UnknownError: there is no such profile.
        """
        with self._reading() as connection:
            row = connection.execute(
                "SELECT encoder, revision, content FROM embeddings WHERE profile = ? AND encoder = ?",
                (_row(connection, key)[0], encoder),
            ).fetchone()
        return Embedding(*row) if row else None

    def imported(self, key: str, encoder: str) -> Embedding | None:
        """The taste of that encoder that came from a file, whatever was chosen since; None if there is none.

        Raises:
            UnknownError: there is no such profile.
        """
        return self.embedding(key, encoder + IMPORTED)

    # ---- inside ----

    def _finish(self) -> str:
        return erasing.finish(self.store, self.pictures)


def _row(connection: sqlite3.Connection, key: str) -> tuple:
    """`_COLUMNS` of a profile.

    Raises:
        UnknownError: there is no such profile.
    """
    query = f"SELECT {_COLUMNS} FROM profiles WHERE name <> '' AND key = ?"
    row = connection.execute(query, (key,)).fetchone()
    if row is None:
        raise UnknownError(
            "This profile is not there any more: it was deleted, or it is kept on another computer. Choose a profile "
            "in the Preference Profile node and press Run."
        )
    return row


def _profile(connection: sqlite3.Connection, key: str) -> Profile:
    return Profile(*_row(connection, key)[1:4])


def _taken(connection: sqlite3.Connection, name: str, *, but: str = "") -> bool:
    query = "SELECT 1 FROM profiles WHERE folded = ? AND key <> ?"
    return connection.execute(query, (name.casefold(), but)).fetchone() is not None


def _summary(row: tuple) -> Summary:
    _, key, name, revision, created, *counts = row
    return Summary(Profile(key, name, revision), created, *counts)


def _one(connection: sqlite3.Connection, profile: int, name: str) -> Asked:
    found = _read_by_key(connection, profile, [name])
    if not found:
        raise UnknownError("This question is not kept any more. Press Run: it is asked again.")
    return found[0]


def _read_by_key(connection: sqlite3.Connection, profile: int, names: Sequence[str]) -> list[Asked]:
    found = {}
    keys = [bytes.fromhex(name) for name in names if HASH.fullmatch(name)]
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        part = keys[start : start + _KEYS_PER_QUERY]
        where = f"q.profile = ? AND q.key IN ({', '.join('?' * len(part))})"
        found |= {asked.question.key: asked for asked in read_questions(connection, where, (profile, *part))}
    return [found[name] for name in names if name in found]
