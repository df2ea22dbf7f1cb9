"""From a profile's choices to an embedding, by a set encoder. Ours.

The encoder was trained on a few comparisons of a person at a time, of different questions. More of them are read in
groups of that size, and the embedding is the groups' mean, weighed by how many comparisons each holds. A choice is a
question that was answered; one of many pictures holds several comparisons, of which `ordering` says which are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...training.interfaces import RewardError, TrainingError
from ...training.preference.set_encoder import SetEncoder
from ..pair_drawing import counted
from .decisions import Comparison
from .embedding import Preference, PreferenceEmbedding, pack, unpack
from .ordering import different_first, of_newest_questions, questions_of, thinned
from .pairs import newest
from .personal_reward import check_encoder, encode
from .records import Embedding, Profile
from .store import PreferenceStore

GROUP = 8
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Embedded:
    """An embedding, and what it was made of.

    Attributes:
        used: choices (questions) in it; 0 with an embedding that is not empty: it was imported.
        gone: choices that cannot be read, since their pictures are not there any more.
    """

    preference: Preference
    profile: Profile
    used: int
    gone: int

    @property
    def embedding(self) -> PreferenceEmbedding:
        return self.preference.parts[0][0]


def embed_profile(
    store: PreferenceStore,
    profile: Profile,
    encoder: SetEncoder,
    features: Any,
    *,
    most: int,
    least_stars: int,
    progress: Progress,
) -> Embedded:
    """The newest choices of a profile as an embedding, which is kept in the store.

    A profile without a choice that counts gets the taste that was imported under its name, or nobody's.

    Args:
        features: a reward of the CLIP kind, the one that the encoder was trained with.
        most: choices at most, the newest first; ties and skipped questions do not count. A question of several
            pictures is one choice.
        progress: called with (done, all); may raise to cancel.

    Raises:
        UnknownError: there is no such profile. RewardError: the features cannot be used.
        TrainingError: they are not the encoder's.
    """
    check_features(features, encoder)
    while True:
        profile = store.profile(profile.key)
        found = newest(
            store, profile, least_stars=least_stars, enough=lambda found: len(questions_of(found.preferences)) >= most
        )[1].preferences
        # Somebody may answer while this runs; the embedding is kept under the revision that it is of.
        if store.profile(profile.key).revision == profile.revision:
            break
    found = of_newest_questions(found, most)
    read, triples = _readable(different_first(thinned(found)), store, features, progress)
    used = len(questions_of(read))
    gone = len(questions_of(found)) - used
    if not used:
        return _given(store, profile, encoder, gone=gone)
    embedding = PreferenceEmbedding(embed(encoder, triples), encoder.encoder_id, choices=used, title=profile.name)
    store.put_embedding(profile.key, Embedding(encoder.encoder_id, profile.revision, pack(embedding)))
    return Embedded(Preference.of(embedding), profile, used, gone)


@torch.no_grad()
def embed(encoder: SetEncoder, triples: torch.Tensor) -> torch.Tensor:
    """Features of n comparisons [n, 3, F] → tokens [k, d]; those that stand together are read together."""
    groups = triples.split(GROUP)
    weights = torch.tensor([len(group) / len(triples) for group in groups])
    return (torch.cat([encoder(group[None]) for group in groups]) * weights[:, None, None]).sum(0)


def triples_of(
    comparisons: Sequence[Comparison], store: PreferenceStore, features: Any, progress: Progress
) -> torch.Tensor:
    """What an encoder reads of comparisons: float32 [n, 3, F]; those whose pictures are gone are left out."""
    return _readable(comparisons, store, features, progress)[1]


def _readable(
    comparisons: Sequence[Comparison], store: PreferenceStore, features: Any, progress: Progress
) -> tuple[list[Comparison], torch.Tensor]:
    """The comparisons whose pictures are there, and what an encoder reads of them."""
    names = list(dict.fromkeys(picture.hash for two in comparisons for picture in (two.preferred, two.other)))
    pictures = encode(names, store.pictures, features, lambda done: progress(done, len(names)))
    kept = [two for two in comparisons if two.preferred.hash in pictures and two.other.hash in pictures]
    texts = features.text_features([two.prompt for two in kept]).cpu()
    rows = [
        torch.stack([text, pictures[two.preferred.hash].float(), pictures[two.other.hash].float()])
        for two, text in zip(kept, texts, strict=True)
    ]
    return kept, torch.stack(rows) if rows else torch.zeros(0, 3, 1)


def _given(store: PreferenceStore, profile: Profile, encoder: SetEncoder, *, gone: int) -> Embedded:
    """What is known of a profile that holds no choice that counts.

    Never what choices said before: they were taken back, or do not count any more.
    """
    given = store.imported(profile.key, encoder.encoder_id)
    if given is not None:
        embedding = unpack(given.content, title=profile.name)
    else:
        shape = encoder.config.tokens, encoder.config.width
        embedding = PreferenceEmbedding(torch.zeros(shape), encoder.encoder_id, title=profile.name)
    return Embedded(Preference.of(embedding), profile, 0, gone)


def check_features(features: Any, encoder: SetEncoder) -> None:
    """
    Raises:
        RewardError: not of the CLIP kind, or with a safety gate. TrainingError: not those of the encoder.
    """
    check_encoder(features)
    if not callable(getattr(features, "text_features", None)):
        raise RewardError(
            f"{features.name} has no features of texts. Connect a single reward of the CLIP kind to features, the one "
            "that the encoder was trained with: attune_demo_reward for the demo's encoder."
        )
    if features.features_id != encoder.features_id:
        raise TrainingError(
            f"This encoder was trained with features of another file ({encoder.features_id}) than those of "
            f"{features.name} ({features.features_id or 'unknown'}). Connect the reward that it was trained with: "
            "attune_demo_reward for the demo's encoder."
        )


def report(found: Embedded) -> str:
    """For the person whose taste it is."""
    name = found.profile.name
    gone = f" {counted(found.gone, 'choice')} left out, whose pictures are gone." if found.gone else ""
    if found.used:
        more = " A few more choices say more." if found.used < 4 else ""
        return f"The taste of {name}, from {counted(found.used, 'choice')}.{more}{gone}"
    if not found.embedding.empty:
        made = counted(found.embedding.choices, "choice")
        return f"The taste of {name}, as it was imported (made of {made}).{gone}"
    return (
        f"{name} has no choice between two pictures yet, so nothing is changed. Choose a few in Choose Images, then "
        f"press Run again.{gone}"
    )
