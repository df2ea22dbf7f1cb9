"""From a profile's choices to an embedding, by a vision-language model that writes about them: which are shown, what is
kept. Ours; the recipe is in `training/vlm_profile.py`.

Few pairs are shown, so they should differ: the newest choice of every prompt comes first, then the second newest of
every prompt, and so on; of one question that compares many pictures, one pair before another question's second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ...training.vlm_profile import SeenPair, profile_of
from ..pair_drawing import counted
from .decisions import Comparison, ComparisonSet
from .embedding import Preference, PreferenceEmbedding, pack, unpack
from .ordering import different_first
from .pairs import TooFew, newest
from .pictures import PictureFolder, to_image
from .records import LONGEST_PROMPT, Embedding, Profile, UnknownError
from .store import PreferenceStore

# So many comparisons are looked through for different prompts.
_LOOKED_THROUGH = 200


class Written(Protocol):
    """What the model made of the pairs; `training.vlm_profile.Description`."""

    tokens: torch.Tensor
    text: str
    written: int
    complete: bool


@dataclass(frozen=True)
class Asked:
    """What is to be known.

    Attributes:
        pairs: how many are shown.
        least_stars: see `decisions.comparisons_of`.
        most_tokens: where the text is cut off.
        encoder_id: of the model.
        shape: of its embeddings.
    """

    pairs: int
    least_stars: int
    most_tokens: int
    encoder_id: str
    shape: tuple[int, int]

    @property
    def kept_as(self) -> str:
        """Under what the store keeps the answer: other settings are another answer of the same encoder."""
        return f"{self.encoder_id}#pairs={self.pairs},stars={self.least_stars},tokens={self.most_tokens}"


@dataclass(frozen=True)
class Described:
    """A taste in numbers and words.

    Attributes:
        pairs: that it was made of.
        fresh: what was written just now; None = nothing has changed since it was kept, or it was imported.
        imported: it came from a file, not from choices.
    """

    preference: Preference
    profile: Profile
    pairs: int
    fresh: Written | None = None
    imported: bool = False

    @property
    def text(self) -> str:
        """The written profile."""
        return self.preference.parts[0][0].text


def describe_profile(
    store: PreferenceStore, profile: Profile, asked: Asked, write: Callable[[Sequence[SeenPair]], Written]
) -> Described:
    """The taste of a profile, written anew if a choice or a setting is another; it is kept in the store.

    A profile without a choice that counts gets the taste that was imported under its name.

    Args:
        write: has the model write; called only if it must. May raise to cancel.

    Raises:
        UnknownError: there is no such profile. TooFew: it holds fewer pairs. AttuneError: as `write`.
    """
    while True:
        profile = store.profile(profile.key)
        found = kept(store, profile, asked)
        if found is not None:
            return found
        comparisons = newest(
            store, profile, least_stars=asked.least_stars, enough=lambda found: _enough(found, asked.pairs)
        )[1]  # fmt: skip
        # Somebody may answer meanwhile; the embedding is kept under the revision that it is of.
        if store.profile(profile.key).revision == profile.revision:
            break
    pairs = seen_pairs(different_first(comparisons.preferences), store.pictures, most=asked.pairs)
    if not pairs and (given := store.imported(profile.key, asked.encoder_id)):
        embedding = unpack(given.content, title=profile.name)
        return Described(Preference.of(embedding), profile, embedding.choices, imported=True)
    if len(pairs) < asked.pairs:
        raise TooFew(_why_few(profile, comparisons, len(pairs), asked.pairs))
    written = write(pairs)
    text = profile_of(written.text)[:LONGEST_PROMPT]
    embedding = PreferenceEmbedding(written.tokens, asked.encoder_id, len(pairs), text, profile.name)
    store.put_embedding(profile.key, Embedding(asked.kept_as, profile.revision, pack(embedding)))
    return Described(Preference.of(embedding), profile, len(pairs), written)


def kept(store: PreferenceStore, profile: Profile, asked: Asked) -> Described | None:
    """What was written of this profile as it is now."""
    found = store.embedding(profile.key, asked.kept_as)
    if found is not None and found.revision == profile.revision:
        embedding = unpack(found.content, title=profile.name)
        return Described(Preference.of(embedding), profile, embedding.choices)
    return None


def nobodys(profile: Profile, asked: Asked) -> Preference:
    """A taste of the model's shape that changes nothing."""
    return Preference.of(PreferenceEmbedding(torch.zeros(asked.shape), asked.encoder_id, title=profile.name))


def seen_pairs(comparisons: Sequence[Comparison], folder: PictureFolder, *, most: int) -> list[SeenPair]:
    """The first of them whose pictures are there."""
    pairs: list[SeenPair] = []
    for two in comparisons:
        if len(pairs) == most:
            break
        try:
            preferred, other = (to_image(folder.get(picture.hash)) for picture in (two.preferred, two.other))
        except UnknownError:
            continue
        pairs.append(SeenPair(two.prompt, preferred, other))
    return pairs


def _enough(found: ComparisonSet, pairs: int) -> bool:
    preferences = found.preferences
    return len(preferences) >= _LOOKED_THROUGH or len({two.prompt for two in preferences}) >= pairs


def _why_few(profile: Profile, found: ComparisonSet, pairs: int, wanted: int) -> str:
    left_out = [(found.ties, counted(found.ties, "tie")), (found.skipped, f"{found.skipped} skipped")]
    gone = len(found.preferences) - pairs
    left_out += [(gone, f"{gone} whose pictures are gone")]
    told = ", ".join(words for number, words in left_out if number)
    return (
        f"The profile {profile.name!r} holds {counted(pairs, 'pair')} of a better and a worse picture; {wanted} are "
        f"needed{f' (not counted: {told})' if told else ''}. Choose between more pictures in Choose Images and press "
        "Run again, or lower pairs."
    )


def report(found: Described, model: str) -> str:
    """For the person whose taste it is.

    Args:
        model: name of the model folder.
    """
    name, pairs = found.profile.name, counted(found.pairs, "pair")
    if found.imported:
        return f"The taste of {name}, as it was imported (made of {pairs})."
    if found.fresh is None:
        return f"The taste of {name}, from {pairs}, as {model} wrote it before: no choice and no setting has changed."
    text = f"The taste of {name}, from {pairs}: {model} wrote {counted(found.fresh.written, 'token')}."
    if not found.fresh.complete:
        text += (
            " It was cut off before its end. The taste can be used; raise max_new_tokens for the whole text, unless it "
            "only repeats itself."
        )
    return text
