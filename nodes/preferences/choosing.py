"""Which profile a node means, and what it says of it."""

from __future__ import annotations

from ..pair_drawing import counted
from .records import KEY, PreferenceError, Profile, Summary
from .store import PreferenceStore

# Always among the choices, and made where it is first used, so that a first workflow runs at once.
FIRST_NAME = "my taste"


def choices(store: PreferenceStore) -> list[str]:
    """The names to choose from, the profile that was made last first."""
    names = store.names()
    known = {name.casefold() for name in names}
    return names if FIRST_NAME.casefold() in known else [*names, FIRST_NAME]


def choose(store: PreferenceStore, name: str, new_name: str = "") -> Profile:
    """The profile that is meant; a new one where `new_name`, or the first name, is not taken.

    Args:
        name: of a profile, or its key. new_name: counts if it is not empty.

    Raises:
        PreferenceError: there is none of that name, or it is not usable as a name.
    """
    if new_name.strip():
        return store.create(new_name)
    found = store.find(name)
    if found is not None:
        return found
    if name.casefold() == FIRST_NAME.casefold():
        return store.create(FIRST_NAME)
    there = store.names()
    known = f"There are: {', '.join(there[:8])}{' …' if len(there) > 8 else ''}." if there else "There are none yet."
    if KEY.fullmatch(name):
        raise PreferenceError(
            f"The profile with the key {name} is not on this computer. {known} Copy the folder user/attune from where "
            "the choices were made, or set the profile to one of these names."
        )
    raise PreferenceError(
        f"There is no profile {name!r} any more: it was renamed or deleted. {known} Choose one of them, or type a name "
        "into new_name to make a new one."
    )


def words_of(summary: Summary) -> str:
    """How much is in a profile, in a line."""
    answered = summary.chosen + summary.ties + summary.rated
    text = f"{summary.profile.name}: {counted(answered, 'choice')}"
    parts = [(summary.ties, counted(summary.ties, "tie")), (summary.rated, f"{summary.rated} by stars")]
    told = ", ".join(words for number, words in parts if number)
    text += f" ({told} among them)" if told else ""
    if summary.imported and not summary.chosen + summary.rated:
        text += ", a taste that was imported"
    more = [(summary.skipped, f"{summary.skipped} skipped"), (summary.waiting, f"{summary.waiting} waiting")]
    return ", ".join([text, *(words for number, words in more if number)]) + "."
