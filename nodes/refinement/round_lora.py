"""Which LoRA of its own a session's rounds were made with, as their records say it. Ours.

A round's `lora` is a hash of all that the model carried, and behind a blank the `weights_id` of the session's own
version where one was among it: by that the catalogue knows its file, whatever it is called by now.
"""

from __future__ import annotations

from .records import Round, SessionState


def lora_record(digest: str, version: str) -> str:
    """A round's `lora`; "" where the model carried none."""
    return f"{digest} {version}".strip()


def version_of(made: Round) -> str:
    """`weights_id` of the session's own LoRA that a round was made with; "" = none."""
    return made.lora.partition(" ")[2]


def newest_version(state: SessionState) -> tuple[str, int]:
    """What the next round of a session begins with: the newest version on its path, and the number of its round.

    A round in which nothing was trained has none of its own; what was learned before it is not lost. ("", 0) = none.
    """
    if state.replay is not None:
        version = version_of(state.replay)
        return (version, state.replay.number) if version else ("", 0)
    for past in reversed(state.path):
        if version_of(past):
            return version_of(past), past.number
    return "", 0
