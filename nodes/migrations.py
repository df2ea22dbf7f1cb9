"""The store's tables, as the steps that led to them.

Released steps never change: a store out there has gone through them. A new table or column is a new step at the end.
Every step is a tuple of SQL statements that run in one transaction; the store's schema version is the number of steps.
"""

from __future__ import annotations

Step = tuple[str, ...]

# `key`: digest of reward, picture and prompt, so that no prompt can be read in the store. REAL holds a Python float
# exactly. `last_used`: seconds since 1970.
_SCORES: Step = (
    """
    CREATE TABLE scores (
        key BLOB NOT NULL PRIMARY KEY,
        reward_id TEXT NOT NULL,
        score REAL NOT NULL,
        last_used INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX scores_by_use ON scores (last_used)",
)

# `quantiles`: JSON list of 101 numbers, 0 % … 100 %.
_CALIBRATIONS: Step = (
    """
    CREATE TABLE calibrations (
        reward_id TEXT NOT NULL,
        name TEXT NOT NULL,
        reward_name TEXT NOT NULL,
        count INTEGER NOT NULL CHECK (count > 1),
        mean REAL NOT NULL,
        deviation REAL NOT NULL CHECK (deviation > 0),
        quantiles TEXT NOT NULL,
        made INTEGER NOT NULL,
        PRIMARY KEY (reward_id, name)
    ) WITHOUT ROWID
    """,
)

MIGRATIONS: tuple[Step, ...] = ((*_SCORES, *_CALIBRATIONS),)
