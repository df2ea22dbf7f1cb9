"""The plan of Personal DPO: many people's pairs, the set encoder that tells who they are, and whom to hold out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ...training.adapters.user_attention import UserAdapterConfig
from ...training.interfaces import AttuneError, LatentDecoder, Objective, RewardError, TrainingError
from ...training.objectives.personal_dpo import PersonalDPOConfig, PersonalDPOObjective, PersonalPair
from ...training.objectives.personal_support import (
    PeopleTally,
    SupportTable,
    choose_held_out,
    tally,
    told_by_first,
)
from ...training.preference.set_encoder import SetEncoder, SetEncoderConfig
from ..feature_store import FEATURES
from ..personal_pairs import PeoplesPairs
from .plan_dpo import SPLIT_SEED, PicturePair, PreferencePlan
from .plans import EncodedText, OnPhase, PreviewSettings, TrainingDenoiser, picture_key, training_images
from .products import USER_ADAPTER

# Few narrow tokens hold a taste and little else, so an adapter learns more from as many pairs (`demo.train_user`).
NEW_ENCODER = SetEncoderConfig(tokens=2, width=8)
ENCODER_RATE = 1e-3
HELD_OUT_PEOPLE = 0.15
# As many people as prompts are shown, each prompt for each of them.
_PREVIEWS = 3
# Pictures that are encoded at once, and choices that a new encoder is first shown of each person.
_AT_ONCE, _FIRST_CHOICES = 16, 8


@dataclass(frozen=True)
class PersonalPicturePair(PicturePair):
    """One judgement of one person.

    Attributes:
        person: who judged, by a name that says nothing about them.
        names: identities of the two pictures.
        features: of prompt, chosen and rejected picture, [3, F].
    """

    person: str = ""
    names: tuple[str, str] = ("", "")
    features: torch.Tensor | None = field(default=None, repr=False)

    @property
    def keys(self) -> tuple[str, str]:
        return self.names


@dataclass(frozen=True)
class PersonalPlan(PreferencePlan):
    """Learn a user adapter from many people's pairs.

    Attributes:
        held_out: people who are measured and never learned from.
        encoder: as the run begins; each run works on a copy. encoder_is_new: it is trained along.
        people: whom the run is about.
    """

    config: PersonalDPOConfig = field(default_factory=PersonalDPOConfig)
    held_out: frozenset[str] = frozenset()
    encoder: SetEncoder | None = field(default=None, repr=False)
    encoder_is_new: bool = False
    people: PeopleTally = field(default_factory=PeopleTally)
    method: str = "personal-dpo"
    title: str = "Personal DPO"

    product = USER_ADAPTER

    @property
    def curve_titles(self) -> Mapping[str, str]:
        return {
            "loss": "Preference loss (0.693 at the start)",
            "accuracy": "Accuracy, people learned from",
            "held_out_accuracy": "Accuracy, people held out",
            "margin": "Margin, people learned from",
            "held_out_margin": "Margin, people held out",
        }

    def adapter(self, seed: int) -> UserAdapterConfig:
        """The shape of the adapter: that of the encoder's tokens."""
        return UserAdapterConfig(tokens=self.encoder.config.tokens, width=self.encoder.config.width, seed=seed)

    @property
    def fixed(self) -> dict[str, str]:
        """A resumed run must go on with the encoder it began with."""
        return {"set encoder": "a new one" if self.encoder_is_new else self.encoder.encoder_id,
                "features": self.encoder.features_id}  # fmt: skip

    def data_hash(self) -> str:
        digest = hashlib.sha256(f"held out {sorted(self.held_out)!r}\n".encode())
        for pair in self.pairs:
            digest.update("\0".join([pair.person, *pair.keys, pair.caption.text, ""]).encode())
        return digest.hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        return asdict(self.config) | {
            "held_out_people": self.held_out_share,
            "new_encoder": self.encoder_is_new,
            "features": self.encoder.features_id,
        }

    def build(
        self,
        denoiser: TrainingDenoiser,
        decoder: LatentDecoder,
        loaded: Sequence[torch.Tensor],
        shape: Sequence[int],
        on_phase: OnPhase,
    ) -> Objective:
        texts = {text.text: text for text in (*(pair.caption for pair in self.pairs), *self.previews)}
        prompts = {name: denoiser.prompt(text.text, text.conditioning) for name, text in texts.items()}
        pairs = [
            PersonalPair(chosen, rejected, prompts[pair.caption.text], person=pair.person, features=pair.features)
            for pair, chosen, rejected in zip(self.pairs, loaded[::2], loaded[1::2], strict=True)
        ]
        with torch.inference_mode(False):
            encoder = deepcopy(self.encoder)
        return PersonalDPOObjective(
            [pair for pair in pairs if pair.person not in self.held_out],
            self.config,
            encoder=encoder,
            held_out=[pair for pair in pairs if pair.person in self.held_out],
            previews=[prompts[preview.text] for preview in self.previews],
            on_phase=on_phase,
        )


def personal_plan(
    people: PeoplesPairs,
    clip: Any,
    vae: Any,
    features: Any,
    encoder: SetEncoder | SetEncoderConfig,
    *,
    held_out: float,
    resolution: int,
    preview_prompts: str,
    preview: PreviewSettings,
    config: PersonalDPOConfig,
    progress: Callable[[int, int], None],
) -> PersonalPlan:
    """Many people's pairs as a plan. Their order does not matter.

    Args:
        features: a reward of the CLIP kind.
        encoder: one that reads such features, or the shape of a new one.
        held_out: share of the people who are only measured.
        progress: called with (done, all) while pictures are encoded; may raise to cancel.

    Raises:
        AttuneError: there is no text encoder, features and encoder do not fit, or nothing can be learned.
    """
    from ..host.hashing import text_encoder_hash
    from ..host.sampling import encode_prompts

    new = isinstance(encoder, SetEncoderConfig)
    check_features(features, None if new else encoder)
    distinct = list(dict.fromkeys(pair.caption for pair in people.pairs))
    shown = [line.strip() for line in preview_prompts.splitlines() if line.strip()] or distinct[:2]
    shown = shown[:_PREVIEWS]
    texts = ["", *distinct, *shown]
    known = {text: EncodedText(text, item) for text, item in zip(texts, encode_prompts(clip, texts), strict=True)}
    made = _read(people, known, features, resolution, progress)
    chosen_people = choose_held_out([pair.person for pair in made], held_out, support=config.support, seed=SPLIT_SEED)
    found = tally_of(made, chosen_people, config.support)
    if not found.pairs:
        raise AttuneError(
            f"None of {len({pair.person for pair in made})} people has two pairs without a common picture: one to tell "
            "who they are, another to learn from. Collect more choices per person."
        )
    return PersonalPlan(
        pairs=made,
        previews=[known[text] for text in shown],
        negative=known[""],
        vae=vae,
        text_encoder=text_encoder_hash(clip),
        config=config,
        held_out_share=held_out,
        preview=preview,
        held_out=frozenset(chosen_people),
        encoder=_new_encoder(encoder, features.features_id, made) if new else encoder,
        encoder_is_new=new,
        people=found,
    )


def check_features(features: Any, encoder: SetEncoder | None) -> None:
    """
    Raises:
        RewardError: not of the CLIP kind. TrainingError: not those that the encoder reads.
    """
    if not (callable(getattr(features, "image_features", None)) and callable(getattr(features, "text_features", None))):
        raise RewardError(
            f"{features.name} has no features of pictures and texts. Connect a single reward of the CLIP kind to "
            "features, such as attune_demo_reward, CLIPScore or PickScore."
        )
    if encoder is not None and features.features_id != encoder.features_id:
        raise TrainingError(
            f"This encoder was trained with features of another file ({encoder.features_id}) than those of "
            f"{features.name} ({features.features_id or 'unknown'}). Connect the reward that it was trained with "
            "(attune_demo_reward for the demo's encoder), or train a new encoder along."
        )


def tally_of(pairs: Sequence[PersonalPicturePair], held_out: Iterable[str], support: int) -> PeopleTally:
    """Whom a run on these pairs would be about."""
    held_out = set(held_out)
    sides = [[pair for pair in pairs if (pair.person in held_out) == side] for side in (False, True)]
    (people, pictures), (others, measured) = (
        ([pair.person for pair in side], [pair.keys for pair in side]) for side in sides
    )
    table = SupportTable(people, pictures)
    learned = [choice for choice in range(len(people)) if table.count(choice)]
    return tally(people, learned, others, told_by_first(others, measured, support))


def _read(
    people: PeoplesPairs, known: dict[str, EncodedText], features: Any, resolution: int,
    progress: Callable[[int, int], None],
) -> list[PersonalPicturePair]:  # fmt: skip
    """The pairs, with features of the pictures as they are, and pictures as they are learned from."""
    pictures = {id(picture): picture for pair in people.pairs for picture in (pair.chosen, pair.rejected)}
    seen = _features_of(pictures, features, progress)
    fitted = {key: training_images([picture[None]], resolution=resolution)[0] for key, picture in pictures.items()}
    names = {key: picture_key(picture) for key, picture in fitted.items()}
    captions = list(dict.fromkeys(pair.caption for pair in people.pairs))
    read = dict(zip(captions, features.text_features(captions).float().cpu(), strict=True))
    made = []
    for pair in people.pairs:
        keys = id(pair.chosen), id(pair.rejected)
        if names[keys[0]] == names[keys[1]]:
            continue
        with torch.inference_mode(False):
            # They may take part in a graph, which tensors made in inference mode cannot.
            row = torch.stack([read[pair.caption], seen[keys[0]], seen[keys[1]]]).clone()
        made.append(PersonalPicturePair(fitted[keys[0]], fitted[keys[1]], known[pair.caption], person=pair.person,
                                        names=(names[keys[0]], names[keys[1]]), features=row))  # fmt: skip
    # The first of a person tell who it is: in the order of their captions they would all be of one.
    made.sort(key=lambda pair: (pair.person, _mixed(pair)))
    return made


def _mixed(pair: PersonalPicturePair) -> bytes:
    return hashlib.sha256("\0".join([pair.caption.text, *pair.keys]).encode()).digest()


def _features_of(
    pictures: dict[int, torch.Tensor], features: Any, progress: Callable[[int, int], None]
) -> dict[int, torch.Tensor]:
    """Features [F] of pictures [h, w, 3], which may differ in size."""
    alike: dict[torch.Size, list[int]] = {}
    for key, picture in pictures.items():
        alike.setdefault(picture.shape, []).append(key)
    found: dict[int, torch.Tensor] = {}
    for keys in alike.values():
        for start in range(0, len(keys), _AT_ONCE):
            progress(len(found), len(pictures))
            part = keys[start : start + _AT_ONCE]
            rows = FEATURES.of(features, torch.stack([pictures[key] for key in part])).detach().float().cpu()
            found |= dict(zip(part, rows, strict=True))
    return found


def _new_encoder(shape: SetEncoderConfig, features_id: str, pairs: Sequence[PersonalPicturePair]) -> SetEncoder:
    """An encoder of random weights, the same for the same pairs, whose tokens already differ between people."""
    by_person: dict[str, list[torch.Tensor]] = {}
    for pair in pairs:
        by_person.setdefault(pair.person, []).append(pair.features)
    with torch.inference_mode(False), torch.no_grad(), torch.random.fork_rng([]):
        torch.manual_seed(SPLIT_SEED)
        encoder = SetEncoder(shape, features_id).eval()
        encoder.get_used_to(torch.cat([pair.features[1:] for pair in pairs]))
        if len(by_person) > 1:
            first = [encoder(torch.stack(own[:_FIRST_CHOICES])[None]) for own in by_person.values()]
            encoder.settle(torch.cat(first))
    return encoder.requires_grad_(False)


def encoder_shape(features: Any, *, tokens: int, width: int) -> SetEncoderConfig:
    """The shape of a new encoder of these features.

    Raises:
        RewardError: they are none of the CLIP kind.
    """
    check_features(features, None)
    with torch.no_grad():
        wide = features.text_features([" "]).shape[1]
    return SetEncoderConfig(**(asdict(NEW_ENCODER) | {"features": int(wide), "tokens": tokens, "width": width}))
