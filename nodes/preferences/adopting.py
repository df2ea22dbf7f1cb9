"""Putting a taste of somebody else into the store, as a profile without choices. Inside the caller's transaction.

Importing is done again at every start of the host, so it must change nothing the second time:

| a profile of that name | what happens |
| --- | --- |
| is not there | it is made |
| holds the same imported embeddings | it is that one, whatever was chosen since; nothing is written |
| holds other imported embeddings | refused; nothing is written |
| holds none, and choices | refused; nothing is written |
| is empty | it takes them, and its revision rises |

They are kept under names of their own (`IMPORTED`), so that choices made since stand beside them and replace nothing.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace

from .embedding import PreferenceEmbedding, pack, unpack
from .records import IMPORTED, PreferenceError, Profile
from .rows import raise_revision

MOST_PROFILES = 1000


def insert_profile(connection: sqlite3.Connection, name: str) -> Profile:
    """A new profile of a clean name, or the one that has it.

    Raises:
        PreferenceError: there are too many profiles.
    """
    query, folded = "SELECT key, name, revision FROM profiles WHERE folded = ?", name.casefold()
    row = connection.execute(query, (folded,)).fetchone()
    if row is None:
        (count,) = connection.execute("SELECT COUNT(*) FROM profiles").fetchone()
        if count >= MOST_PROFILES:
            raise PreferenceError(f"There are {count} profiles already. Delete one that is not needed any more.")
        connection.execute(
            "INSERT INTO profiles (key, name, folded, created) VALUES (?, ?, ?, ?)",
            (secrets.token_hex(16), name, folded, int(time.time())),
        )
        row = connection.execute(query, (folded,)).fetchone()
    return Profile(*row)


def adopt(connection: sqlite3.Connection, name: str, embeddings: Sequence[PreferenceEmbedding]) -> Profile:
    """See the module.

    Args:
        name: clean. embeddings: each of another encoder.

    Raises:
        PreferenceError: a profile of that name holds something else.
    """
    profile = insert_profile(connection, name)
    id, decided = connection.execute(
        "SELECT id, chosen + ties + skipped + rated FROM profiles WHERE key = ?", (profile.key,)
    ).fetchone()
    kept = connection.execute(
        f"SELECT content FROM embeddings WHERE profile = ? AND encoder LIKE '%{IMPORTED}'", (id,)
    ).fetchall()
    if kept:
        if sorted(map(_read, kept)) == sorted(map(_told, embeddings)):
            return profile
        raise PreferenceError(
            f"The profile {profile.name!r} holds another taste already. Type another name, or delete that profile "
            "first (button Profiles in the Preference Profile node)."
        )
    if decided:
        raise PreferenceError(
            f"The profile {profile.name!r} holds choices ({decided}); a taste from a file would stand beside them "
            "unseen. Type another name, or use that profile by the Preference Profile node."
        )
    # What hangs on the empty profile has to run again.
    raise_revision(connection, id)
    connection.executemany(
        "INSERT INTO embeddings (profile, encoder, revision, content, made) VALUES (?, ?, ?, ?, ?)",
        [(id, each.encoder_id + IMPORTED, profile.revision + 1, pack(each), int(time.time())) for each in embeddings],
    )
    return replace(profile, revision=profile.revision + 1)


def _told(embedding: PreferenceEmbedding) -> tuple[str, str, int, str]:
    return embedding.encoder_id, embedding.identity, embedding.choices, embedding.text


def _read(row: tuple[bytes]) -> tuple[str, str, int, str]:
    """As `_told`, which does not hang on how bytes are packed; like nothing else where they cannot be read."""
    try:
        return _told(unpack(row[0]))
    except PreferenceError:
        return "", "", 0, ""
