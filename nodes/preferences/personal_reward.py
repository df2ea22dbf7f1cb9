"""A profile as a reward: scores pictures by what its person has chosen so far. The maths is in `taste.py`. Ours.

Features come from any reward that has `image_features` (the CLIP kind); its own score is not looked at. The prompt is
not either: the taste is that of pictures, whatever they were to show.

    score(x) = ŵᵀ(F(x) − F̄) / d     F̄: mean feature of the profile's pictures, d: deviation of ŵᵀF over them

so 0 is the average of what the person has judged and 1 is one deviation better. A question of several comparisons
counts as its number of pictures less one, spread over them: eight pictures with stars are no 28 independent choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch

from ...training.interfaces import RewardContext, RewardError
from ..feature_store import FEATURES
from ..pair_drawing import counted
from .decisions import Comparison, ComparisonSet
from .pairs import TooFew, newest
from .pictures import PictureFolder, to_image
from .records import PreferenceError, Profile, UnknownError, anonymous
from .store import PreferenceStore
from .taste import Evidence, Taste, clusters_of, fit, most_informative_first
from .taste_check import FOLDS, TasteCheck, check, words_of

# Stands in the ids, by which scores are kept. Raise it whenever a change here gives other scores.
VERSION = 1
LEAST_DECISIONS = 4
# Pictures that are read and encoded at once.
_AT_ONCE = 16
Progress = Callable[[int, int], None]


class PreferenceReward:
    """Scores pictures by a person's taste; see the module.

    Args:
        encoder: a reward with `image_features`.
        taste: in its features.
        centre: F̄ [D]. deviation: d > 0.
        identity: of what the taste was learned from.

    Raises:
        RewardError: the encoder has no features, or a safety gate is inside.
    """

    higher_is_better = True
    uses_prompt = False
    contextual = False

    def __init__(
        self, encoder: Any, taste: Taste, *, centre: torch.Tensor, deviation: float, identity: str
    ) -> None:  # fmt: skip
        check_encoder(encoder)
        self.encoder, self.taste = encoder, taste
        self.centre, self.deviation, self.identity = centre, deviation, identity

    @property
    def name(self) -> str:
        return f"Preference ({self.encoder.name})"

    @property
    def reward_id(self) -> str:
        return f"preference:v{VERSION}:{self.identity}:{self.encoder.reward_id}"

    @property
    def formula(self) -> str:
        return f"a person's taste, features of {self.encoder.name}"

    @property
    def differentiable(self) -> bool:
        return bool(self.encoder.differentiable)

    @property
    def patchers(self) -> Sequence[Any]:
        """The host's patchers of the encoder's network, for its memory management."""
        return getattr(self.encoder, "patchers", ())

    def image_features(self, images: torch.Tensor, *, with_gradients: bool = False) -> torch.Tensor:
        """The encoder's."""
        return self.encoder.image_features(images, with_gradients=with_gradients)

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts, which are not looked at → scores float32 [B].

        Raises:
            RewardError: the numbers differ, or the images are no pictures.
        """
        if len(images) != len(prompts):
            raise RewardError(f"{self.name}: {len(images)} images but {len(prompts)} prompts; give one per image.")
        features = self._features(images)
        direction = (self.taste.direction / self.deviation).to(features)
        return features @ direction - self.centre.to(features) @ direction

    def uncertainty(self, images: torch.Tensor) -> torch.Tensor:
        """One standard deviation of the scores of images [B, h, w, c]: float32 [B]."""
        features = self._features(images).detach().cpu().double()
        return (self.taste.variances(features - self.centre).sqrt() / self.deviation).float().to(images.device)

    def questions_first(self, questions: Sequence[Sequence[torch.Tensor]]) -> tuple[list[int], list[float]]:
        """The order in which questions about these pictures tell most about the taste.

        Of several pictures the pair counts whose answer is least known.

        Args:
            questions: of each the pictures [h, w, 3], which may differ in size; at least two.

        Returns:
            Places of the questions, and what each adds to those before it, in nats.
        """
        # Many questions are about one picture, and to look it up is to hash it.
        shown = {id(picture): picture for pictures in questions for picture in pictures}
        known = {key: self._features(picture[None]).detach().cpu().double() for key, picture in shown.items()}
        rows = []
        for pictures in questions:
            features = torch.cat([known[id(picture)] for picture in pictures])
            pairs = torch.stack([features[a] - features[b] for a, b in combinations(range(len(features)), 2)])
            chance = self.taste.probabilities(pairs)
            doubt = self.taste.variances(pairs) * chance * (1 - chance)
            rows.append(pairs[doubt.argmax()])
        differences = torch.stack(rows)
        return most_informative_first(self.taste.margins(differences), self.taste.joint(differences))

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        """Unit vectors float32 [B, D]; with gradients where the pictures ask for them."""
        if torch.is_grad_enabled() and images.requires_grad:
            return self.encoder.image_features(images, with_gradients=True)
        return FEATURES.of(self.encoder, images)


def check_encoder(encoder: Any) -> None:
    """
    Raises:
        RewardError: the reward has no features of pictures, or a safety gate is inside.
    """
    if not callable(getattr(encoder, "image_features", None)):
        raise RewardError(
            f"{encoder.name} has no features of pictures, which a taste is learned in. Connect a reward of the CLIP "
            "kind to encoder, such as attune_demo_reward, CLIPScore or PickScore."
        )
    if getattr(encoder, "gated", False):
        raise RewardError(
            f"{encoder.name} has a safety gate inside, which must come last: connect the reward without the gate to "
            "encoder, and Safety Gate behind this node."
        )


# ---- learning it ----


@dataclass(frozen=True)
class Learned:
    """A reward, and what it was learned from.

    Attributes:
        decisions: questions whose answers were used. ties: comparisons among them without a winner.
        gone: comparisons whose pictures are not there any more.
        figures: of held-out choices.
    """

    reward: PreferenceReward
    profile: Profile
    decisions: int
    ties: int
    gone: int
    figures: TasteCheck | None


def learn(
    store: PreferenceStore, profile: Profile, encoder: Any, *, most: int, least_stars: int, progress: Progress
) -> Learned:
    """The taste of a profile in an encoder's features.

    Args:
        most: decisions at most, the newest first. least_stars: see `decisions.comparisons_of`.
        progress: called with (done, all); may raise to cancel.

    Raises:
        UnknownError: there is no such profile. TooFew: it holds fewer than 4 decisions to learn from, or only ties.
        RewardError: the encoder cannot be used. PreferenceError: it sees no difference between the pictures.
    """
    check_encoder(encoder)
    profile, found = _as_it_stands(store, profile.key, most=most, least_stars=least_stars)
    kept = set(_groups(found.comparisons)[:most])
    wanted = [comparison for comparison in found.comparisons if comparison.group in kept]
    if len(kept) < LEAST_DECISIONS:
        raise TooFew(_why_few(profile, len(kept), found))
    names = list(dict.fromkeys(picture.hash for two in wanted for picture in (two.preferred, two.other)))
    total = len(names) + FOLDS
    features = encode(names, store.pictures, encoder, lambda done: progress(done, total))
    comparisons = [two for two in wanted if two.preferred.hash in features and two.other.hash in features]
    decisions = len(_groups(comparisons))
    if decisions < LEAST_DECISIONS or all(two.tie for two in comparisons):
        raise TooFew(_why_few(profile, decisions, found, gone=len(wanted) - len(comparisons)))
    evidence = evidence_of(comparisons, features)
    taste = fit(evidence, on_step=lambda: progress(len(names), total))
    pictures = torch.stack([features[name] for name in features])
    deviation = float((pictures @ taste.direction).std(correction=0))
    if not deviation > 0:
        raise PreferenceError(
            f"The choices of {profile.name!r} contradict each other so evenly that nothing is preferred. Choose "
            "between more pictures."
        )
    figures = check(
        Evidence(evidence.differences @ taste.basis, evidence.outcomes, evidence.weights),
        clusters_of([(two.preferred.hash, two.other.hash) for two in comparisons]),
        taste.scale,
        on_fold=lambda done, folds: progress(len(names) + FOLDS * done // folds, total),
    )
    gone, ties = len(wanted) - len(comparisons), sum(two.tie for two in comparisons)
    identity = f"{identity_of(profile)}:{most}:{least_stars}:{gone}"
    reward = PreferenceReward(encoder, taste, centre=pictures.mean(0), deviation=deviation, identity=identity)
    return Learned(reward, profile, decisions, ties, gone, figures)


def _as_it_stands(store: PreferenceStore, key: str, *, most: int, least_stars: int) -> tuple[Profile, ComparisonSet]:
    """The comparisons, and the profile in the very state that holds them: scores are kept under its revision.

    Somebody may answer while this runs, and the profile on the wire was read before.
    """
    while True:
        profile = store.profile(key)
        found = newest(
            store, profile, least_stars=least_stars, enough=lambda found: len(_groups(found.comparisons)) > most
        )[1]  # fmt: skip
        if store.profile(key).revision == profile.revision:
            return profile, found


def without_opinion(profile: Profile, encoder: Any) -> PreferenceReward:
    """The same before any choice: every picture scores 0, and pictures that differ most are the best question."""
    check_encoder(encoder)
    width = encoder.image_features(torch.zeros(1, 32, 32, 3)).shape[1]
    nothing = torch.zeros(0, dtype=torch.float64)
    taste = fit(Evidence(torch.zeros(0, width, dtype=torch.float64), nothing, nothing))
    centre = torch.zeros(width, dtype=torch.float64)
    return PreferenceReward(encoder, taste, centre=centre, deviation=1.0, identity="without opinion")


def identity_of(profile: Profile) -> str:
    """Which profile in which state, in a text that says nothing about the person."""
    return f"{anonymous(profile.key)}:{profile.revision}"


def _groups(comparisons: Sequence[Comparison]) -> list[str]:
    """Keys of the questions, the newest decision first."""
    return list(dict.fromkeys(comparison.group for comparison in comparisons))


def encode(
    names: Sequence[str], folder: PictureFolder, encoder: Any, on_picture: Callable[[int], None]
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Features float64 [D] of the pictures of these hashes; of those that are gone there is none.

    Args:
        on_picture: called with how many are done; may raise to cancel.
    """
    found: dict[str, torch.Tensor] = {}
    for start in range(0, len(names), _AT_ONCE):
        on_picture(start)
        alike: dict[torch.Size, list[tuple[str, torch.Tensor]]] = {}
        for name in names[start : start + _AT_ONCE]:
            try:
                picture = to_image(folder.get(name))
            except UnknownError:
                continue
            alike.setdefault(picture.shape, []).append((name, picture))
        for group in alike.values():
            rows = FEATURES.of(encoder, torch.stack([picture for _, picture in group])).detach().cpu().double()
            found |= dict(zip([name for name, _ in group], rows, strict=True))
    return found


def evidence_of(comparisons: Sequence[Comparison], features: dict[str, torch.Tensor]) -> Evidence:
    """Comparisons in numbers."""
    sizes = Counter(two.group for two in comparisons)
    shown: dict[str, set[str]] = {}
    for two in comparisons:
        shown.setdefault(two.group, set()).update((two.preferred.hash, two.other.hash))
    return Evidence(
        torch.stack([features[two.preferred.hash] - features[two.other.hash] for two in comparisons]),
        torch.tensor([0.5 if two.tie else 1.0 for two in comparisons], dtype=torch.float64),
        torch.tensor([(len(shown[two.group]) - 1) / sizes[two.group] for two in comparisons], dtype=torch.float64),
    )


# ---- in words ----


def _why_few(profile: Profile, decisions: int, found: ComparisonSet, gone: int = 0) -> str:
    text = f"The profile {profile.name!r} holds {counted(decisions, 'choice')} to learn a taste from"
    if decisions >= LEAST_DECISIONS:
        text += ", but all of them are ties"
    else:
        text += f"; {LEAST_DECISIONS} are needed, and a few dozen are better"
    parts = [(found.skipped, f"{found.skipped} skipped"), (gone, f"{counted(gone, 'pair')} whose pictures are gone")]
    told = ", ".join(words for number, words in parts if number)
    text += f" (left out: {told})" if told else ""
    return f"{text}. Choose between more pictures in Choose Images, then press Run again."


def report(found: Learned) -> str:
    """What was learned and how good it is, for the person whose taste it is."""
    text = f"Learned from {counted(found.decisions, 'choice')} of {found.profile.name}"
    parts = [(found.ties, counted(found.ties, "tie")), (found.gone, f"{found.gone} without their pictures left out")]
    told = ", ".join(words for number, words in parts if number)
    text += f" ({told})" if told else ""
    return f"{text}, seen through {found.reward.encoder.name}. {words_of(found.figures, found.decisions)}"
