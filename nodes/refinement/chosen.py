"""What was chosen in a session's rounds: pictures and latents, read from its files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..picture_folder import to_image
from .checks import RefinementError, UnknownError
from .records import ANEW, Round, SessionState

if TYPE_CHECKING:
    from .draft import Draft
    from .store import SessionStore

log = logging.getLogger(__name__)


def chosen_latents(store: SessionStore, state: SessionState, past: Round) -> torch.Tensor | None:
    """The latent [1, C, H, W] of a round's chosen picture; None where none was chosen or no latents were kept."""
    place = None if past.feedback is None else past.feedback.chosen
    if place is None or not past.latents:
        return None
    return store.files(state.key).latents.get(past.latents)[place : place + 1]


def chosen_latents_of_rounds(
    store: SessionStore, state: SessionState, rounds: Sequence[Round] | None = None
) -> list[tuple[Round, torch.Tensor, torch.Tensor]]:
    """The rounds in which a person chose, oldest first: the latents that were liked, and the others.

    The others are those that were disliked, or all that were not liked where none were. Left out are rounds of another
    size than the newest, and those whose latents are lost.

    Args:
        rounds: of the path; None = those since another thing or look was asked for.
    """
    found = []
    first = max((at for at, past in enumerate(state.path) if past.embedding.get(ANEW)), default=0)
    for past in state.path[first:] if rounds is None else rounds:
        said = past.feedback
        if said is None or not said.liked or not said.by_person or not past.latents:
            continue
        try:
            latents = store.files(state.key).latents.get(past.latents)
        except UnknownError as error:
            log.warning("Attune: round %d teaches nothing of its look: %s", past.number, error)
            continue
        others = said.disliked or [place for place in range(len(latents)) if place not in said.liked]
        found.append((past, latents[list(said.liked)], latents[list(others)]))
    return [one for one in found if one[1].shape[1:] == found[-1][1].shape[1:]]


def refused_latents_of_rounds(
    store: SessionStore, state: SessionState, prompt: str
) -> list[tuple[Round, torch.Tensor]]:
    """The rounds in whose place other pictures were asked for, oldest first, and their latents [N, C, H, W].

    Left out are rounds of other words, of another size than the newest, and those whose latents are lost.

    Args:
        prompt: the words of which other pictures are wanted.
    """
    found = []
    waiting = "" if state.open is None else state.open.latents
    for past in {past.latents: past for past in state.passed}.values():
        if past.prompt != prompt or past.latents in ("", waiting):
            continue
        try:
            found.append((past, store.files(state.key).latents.get(past.latents)))
        except UnknownError as error:
            log.warning("Attune: refused pictures are not there to lead away from: %s", error)
    return [one for one in found if one[1].shape[1:] == found[-1][1].shape[1:]]


def kept_rounds(state: SessionState) -> list[Round]:
    """The rounds of the path of whose pictures somebody asked to keep something, oldest first.

    By the rules of the edit grammar, whoever changes the prompt. "The background may change" takes back that alone, and
    the whole of a picture, of which the background is a part.
    """
    from .edits import read_feedback

    found: list[tuple[Round, list[str]]] = []
    for past in state.path:
        if past.feedback is None:
            continue
        edits = read_feedback(past.feedback.comment, past.prompt).edits
        released = [edit.what for edit in edits if edit.operation == "keep" and not edit.amount]
        found = [(before, [what for what in kept if not _released(what, released)]) for before, kept in found]
        found.append((past, [edit.what for edit in edits if edit.operation == "keep" and edit.amount]))
    return [past for past, kept in found if kept]


def _released(kept: str, released: Sequence[str]) -> bool:
    """Whether what was kept may change again: by its name or a part of it, or as a part of the whole picture."""
    from .edit_words import languages

    tables = languages()
    pictures = {language.picture_word for language in tables}
    if released and (kept in pictures or pictures & set(released)):
        return True
    english = tables[0]

    def compared(what: str) -> set[str]:
        return set(map(english.compared, what.lower().split()))

    words, *freed = map(compared, (kept, *released))
    return any(wanted <= words or words <= wanted for wanted in freed)


def marked_latents(store: SessionStore, state: SessionState, *, liked: bool) -> torch.Tensor | None:
    """The latents [N, C, H, W] of all pictures of the path that were liked, or disliked; None = there are none."""
    found = []
    for past in state.path:
        places = () if past.feedback is None else past.feedback.liked if liked else past.feedback.disliked
        if places and past.latents:
            found.append(store.files(state.key).latents.get(past.latents)[list(places)])
    if len({tuple(part.shape[1:]) for part in found}) > 1:
        raise RefinementError(
            "The pictures of this session's rounds have several sizes. Go back to the rounds of one size, or begin a "
            "new session."
        )
    return torch.cat(found) if found else None


def chosen_pictures(store: SessionStore, draft: Draft) -> tuple[torch.Tensor, ...]:
    """The liked pictures of every round of the path that has some, oldest first, each [N, h, w, 3] in [0, 1]."""
    if draft.liked is not None:
        return draft.liked
    said = [(past, past.feedback.liked) for past in draft.state.path if past.feedback is not None]
    return tuple(pictures_of(store, draft.state, past, places) for past, places in said if places)


def last_chosen(store: SessionStore, state: SessionState) -> torch.Tensor | None:
    """The picture [1, h, w, 3] in [0, 1] that was chosen last; None where none ever was."""
    for past in reversed(state.path):
        if past.feedback is not None and past.feedback.chosen is not None:
            return pictures_of(store, state, past, (past.feedback.chosen,))
    return None


def pictures_of(store: SessionStore, state: SessionState, past: Round, places: Sequence[int]) -> torch.Tensor:
    """Pictures of a round by their positions, [N, h, w, 3] in [0, 1]."""
    folder = store.files(state.key).pictures
    return torch.stack([to_image(folder.get(past.pictures[place].hash)) for place in places])
