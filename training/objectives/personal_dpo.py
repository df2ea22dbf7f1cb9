"""Personal DPO: one network that leans towards whoever's embedding it is shown, learned from many people's pairs.

    L = −E_{(c, x⁺, x⁻, p), σ, noise} log σ(−½β[(ℓ(x⁺) − ℓ(x⁻))_θ(c,u_p) − (ℓ(x⁺) − ℓ(x⁻))_ref(c)])

It is Diffusion-DPO (`diffusion_dpo`, whose symbols and defaults hold here) with one change: the policy sees the tokens
u_p of the person p who chose, through a user adapter (`adapters.user_policy`), and the reference sees nobody. Bradley-
Terry within one person and prompt cancels what the reward's normalisation would need, so nothing else changes.

u_p comes from *support* pairs of the same person, the loss from *query* pairs; no picture is in both. Each time a pair
is learned from, its support is drawn anew among the person's other pairs and their number from 1 to `support`, so that
few choices are as well prepared for as many. Where embeddings are given (of a vision-language model, say), they are
taken as they are; whoever made them has kept their support out of the pairs.

References:
    Dang et al. 2025, "Personalized Preference Fine-tuning of Diffusion Models", eq. 4-6; 4 support pairs.
    Wallace et al. 2023, "Diffusion Model Alignment Using Direct Preference Optimization".

Differences from the paper:
    - embeddings come from a small set encoder over picture-text features by default, which may be trained along;
    - the reference is the same network with the adapter off, to the last bit. A row whose person is dropped therefore
      has the margin 0 whatever the weights and teaches nothing, and the unconditional half of guidance is the base
      network itself: `user_dropout` is 0 by default;
    - noise levels may be drawn from the upper part of the schedule only (`noise_from`), where what people differ in is
      decided: on the demo model the margin's mean is 0.15 of its deviation at σ = 12 and 0.06 at σ = 0.6;
    - with the caption dropped, the person stays: guidance then has a person without words to lean on;
    - support pairs are drawn anew for every look at a pair, and their number varies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..adapters.user_policy import personal
from ..interfaces import Auxiliary, Prompt, TrainingError
from ..share import ALONE, Share
from .diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Look, Pair, PreferenceLoss
from .personal_support import SupportTable, tally, told_by_first


@dataclass(frozen=True)
class PersonalDPOConfig(DiffusionDPOConfig):
    """Knobs of Diffusion-DPO, and:

    Attributes:
        support: the most pairs that an embedding is made of, ≥ 1; as many are used for held-out people.
        user_dropout: share of pairs shown without their person, 0…1; see "Differences from the paper".
        encoder_learning_rate: of the set encoder, which is trained along; 0: it stays as it is.
        noise_from: share of the noise levels, from the clean end, that is not learned on, 0…below 1; 0 = none, as in
            the paper. Raising it learns what is decided early in sampling, colours and composition, from fewer pairs.
    """

    support: int = 4
    user_dropout: float = 0.0
    encoder_learning_rate: float = 0.0
    noise_from: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.support < 1:
            raise TrainingError(f"Personal DPO: support must be at least 1 pair, not {self.support}.")
        if not 0 <= self.user_dropout < 1:
            raise TrainingError(f"User dropout is a share of at least 0 and below 1, not {self.user_dropout}.")
        if not 0 <= self.noise_from < 1:
            raise TrainingError(f"noise_from is a share of at least 0 and below 1, not {self.noise_from}.")
        if not self.encoder_learning_rate >= 0:
            raise TrainingError(f"The encoder's learning rate must be at least 0, not {self.encoder_learning_rate}.")


@dataclass(frozen=True)
class PersonalPair(Pair):
    """One judgement of one person.

    Attributes:
        person: who judged; a random key.
        features: what the set encoder reads of it, [3, F]: prompt, chosen, rejected. None where embeddings are given.
    """

    person: str = ""
    features: torch.Tensor | None = None


@dataclass(frozen=True)
class PersonalLook(Look):
    """A look at a pair, and the pairs that tell who looks; none: nobody is shown."""

    support: tuple[PersonalPair, ...] = ()
    shown: bool = True


class PersonalDPOObjective(DiffusionDPOObjective):
    """Learns many people's preferences with one user adapter; its policy is a `UserPolicy`.

    Args:
        pairs: of all people together. Who has too few to keep support and query apart is left out, and counted.
        encoder: [B, n, 3, F] and which are known [B, n] → tokens [B, k, d]; a `SetEncoder`.
        embeddings: person → tokens [k, d]; for whom there are, the encoder is not asked.
        held_out: of other people; whether of other prompts and pictures too is up to whoever gives them. The first
            `support` pairs of each make the embedding, the rest are measured.
        previews: prompts of the sample pictures, each shown for as many people. on_phase: as in Diffusion-DPO.

    Attributes:
        tally: how many people and pairs are learned from, measured and left out, see `personal_support.PeopleTally`.

    Raises:
        TrainingError: nobody has enough pairs, or features are missing.
    """

    name = "personal-dpo"

    def __init__(
        self,
        pairs: Sequence[PersonalPair],
        config: PersonalDPOConfig,
        *,
        encoder: torch.nn.Module | None = None,
        embeddings: Mapping[str, torch.Tensor] | None = None,
        held_out: Sequence[PersonalPair] = (),
        previews: Sequence[Prompt] = (),
        on_phase: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.encoder, self.embeddings = encoder, dict(embeddings or {})
        counted = [pair for pair in pairs if pair.counts]
        kept_out = [pair for pair in held_out if pair.counts]
        self._key = _PictureKeys()
        self._choices = self._check(counted)
        self._place = {id(pair): place for place, pair in enumerate(self._choices)}
        self._table = SupportTable(*self._who_and_what(self._choices))
        learned = [pair for pair in counted if pair.person in self.embeddings or self._others(pair)]
        if counted and not learned:
            raise TrainingError(
                f"Nobody among {len({pair.person for pair in counted})} people has two pairs without a common picture: "
                "one to tell who they are, another to learn from. Collect more choices per person."
            )
        told_by = self._measured(kept_out, config.support)
        self._told_by = {
            id(kept_out[place]): tuple(kept_out[other] for other in told) for place, told in told_by.items()
        }
        super().__init__(
            [*learned, *(pair for pair in pairs if not pair.counts)],
            config,
            held_out=[kept_out[place] for place in told_by],
            previews=previews,
            on_phase=on_phase,
        )
        self._shown_first = self._first_people(kept_out, learned)
        taught = {id(pair) for pair in learned}
        self.tally = tally(
            [pair.person for pair in counted],
            [place for place, pair in enumerate(counted) if id(pair) in taught],
            [pair.person for pair in kept_out],
            told_by,
        )

    def _check(self, pairs: Sequence[PersonalPair]) -> list[PersonalPair]:
        """Those whose person the encoder must tell.

        Raises:
            TrainingError: features or encoder are missing.
        """
        asked = [pair for pair in pairs if pair.person not in self.embeddings]
        for pair in asked:
            if pair.features is None or self.encoder is None:
                raise TrainingError(
                    f"The choices of {pair.person!r} have neither an embedding nor features that a set encoder reads. "
                    "Give the person an embedding, or an encoder and features to all of their pairs."
                )
        return asked

    def _who_and_what(self, pairs: Sequence[PersonalPair]) -> tuple[list[str], list[tuple[str, str]]]:
        pictures = [(self._key(pair.chosen), self._key(pair.rejected)) for pair in pairs]
        return [pair.person for pair in pairs], pictures

    def _others(self, pair: Pair) -> int:
        """How many choices may tell about this pair's person."""
        place = self._place.get(id(pair))
        return 0 if place is None else self._table.count(place)

    def _support(self, pair: Pair, places: Sequence[int]) -> tuple[PersonalPair, ...]:
        """Those at these places among them."""
        if not places:
            return ()
        return tuple(self._choices[other] for other in self._table.at(self._place[id(pair)], places))

    def _measured(self, pairs: Sequence[PersonalPair], support: int) -> dict[int, tuple[int, ...]]:
        """Places of the held-out pairs that are measured, each with those that tell who it is."""
        asked = [place for place, pair in enumerate(pairs) if pair.person not in self.embeddings]
        own = self._check(pairs)
        found = told_by_first(*self._who_and_what(own), support)
        told_by = {asked[place]: tuple(asked[other] for other in told) for place, told in found.items()}
        told_by |= {place: () for place, pair in enumerate(pairs) if pair.person in self.embeddings}
        return dict(sorted(told_by.items()))

    def _first_people(self, held_out: Sequence[PersonalPair], learned: Sequence[PersonalPair]) -> list[PersonalLook]:
        """Whom the sample pictures are for: as many people as there are prompts, those who are held out first."""
        found: dict[str, PersonalLook] = {}
        measured = [pair for pair in held_out if id(pair) in self._told_by]
        for pair in (*measured, *learned):
            if len(found) == len(self.previews):
                break
            if pair.person not in found:
                told = self._told_by.get(id(pair)) or self._first(pair)
                found[pair.person] = PersonalLook(pair, torch.zeros(()), pair.chosen, support=told)
        return list(found.values())

    def _first(self, pair: Pair) -> tuple[PersonalPair, ...]:
        """The first of those that may tell about this pair's person."""
        return self._support(pair, range(min(self.config.support, self._others(pair))))

    def prepare(self, policy: Any, share: Share = ALONE) -> None:
        if self.encoder is not None:
            self.encoder.to(policy.device)
        super().prepare(policy, share)

    @property
    def about(self) -> dict[str, Any]:
        """What a report tells of the data."""
        return asdict(self.tally) | {"words": self.tally.words}

    @torch.no_grad()
    def sample_requests(self) -> Sequence[Prompt]:
        """Every preview prompt for each of a few people, as their embeddings are now."""
        people = self._embed(self._shown_first)
        return [personal(prompt, tokens) for prompt in self.previews for tokens in people]

    def auxiliary(self) -> Auxiliary:
        """The set encoder, where it is trained along."""
        if not self.config.encoder_learning_rate or self.encoder is None:
            return Auxiliary({}, 1.0)
        for parameter in self.encoder.parameters():
            parameter.requires_grad_(True)
        # The adapter reads this very encoder's tokens: what is saved must be of one moment.
        return Auxiliary(dict(self.encoder.named_parameters()), self.config.encoder_learning_rate, kept=True)

    # ---- draws ----

    @property
    def _lowest_noise(self) -> float:
        return self.config.noise_from

    def _look(self, generator: torch.Generator) -> PersonalLook:
        look = super()._look(generator)
        dropped = torch.rand(1, generator=generator).item() < self.config.user_dropout
        others = self._others(look.pair)
        count = 1 + int(torch.randint(min(self.config.support, others), (1,), generator=generator)) if others else 0
        places = torch.randperm(others, generator=generator)[:count].tolist()
        return PersonalLook(**vars(look), support=self._support(look.pair, places), shown=not dropped)

    def _held_out_looks(self) -> list[Look]:
        return [PersonalLook(**vars(look), support=self._told_by[id(look.pair)]) for look in super()._held_out_looks()]

    def _picture(self, number: int) -> tuple[torch.Tensor, Any]:
        """For the drift: as in Diffusion-DPO, with the pair's person, told by the first of their other pairs."""
        pair = self.pairs[number // 2]
        look = PersonalLook(pair, torch.zeros(()), pair.chosen, support=self._first(pair))
        shown = self._with_person(look, self._embed([look])[0])
        return (pair.rejected if number % 2 else pair.chosen), shown.pair.prompt.positive

    # ---- the loss ----

    def _compare(self, looks: Sequence[PersonalLook]) -> PreferenceLoss:
        result = super()._compare(
            [self._with_person(look, u) for look, u in zip(looks, self._embed(looks), strict=True)]
        )
        if result.loss.requires_grad or not torch.is_grad_enabled():
            return result
        # Nobody was shown in any row: nothing to learn, which must be a gradient of zero and not an error.
        nothing = sum(value.sum() * 0 for value in self._policy.parameters())
        return result._replace(loss=result.loss + nothing)

    def _with_person(self, look: PersonalLook, tokens: torch.Tensor | None) -> Look:
        prompt = look.pair.prompt if look.captioned else Prompt("", self._policy.unconditional)
        pair = replace(look.pair, prompt=personal(prompt, tokens))
        return Look(pair, look.sigma, look.noise, captioned=True, rejected_first=look.rejected_first)

    def _embed(self, looks: Sequence[PersonalLook]) -> list[torch.Tensor | None]:
        """Tokens of each look's person, None where nobody is shown; one pass of the encoder for all."""
        asked = [place for place, look in enumerate(looks) if look.shown and look.support]
        found: list[Any] = [self.embeddings.get(look.pair.person) if look.shown else None for look in looks]
        if asked:
            most = max(len(looks[place].support) for place in asked)
            rows, known = [], torch.zeros(len(asked), most, dtype=torch.bool)
            for row, place in enumerate(asked):
                features = torch.stack([pair.features for pair in looks[place].support])  # (n, 3, F)
                known[row, : len(features)] = True
                rows.append(torch.nn.functional.pad(features, (0, 0, 0, 0, 0, most - len(features))))
            device = next(self.encoder.parameters()).device
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.encoder_learning_rate > 0):
                tokens = self.encoder(torch.stack(rows).to(device), known.to(device))
            for place, own in zip(asked, tokens, strict=True):
                found[place] = own
        return found


class _PictureKeys:
    """Identities of latents, by their content; each tensor is read once."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[torch.Tensor, str]] = {}

    def __call__(self, latents: torch.Tensor) -> str:
        # The tensor is held, since the id of one that is gone may come back.
        if id(latents) not in self._known:
            content = latents.detach().to("cpu", torch.float32).contiguous().numpy()
            self._known[id(latents)] = latents, hashlib.sha256(content.data).hexdigest()
        return self._known[id(latents)][1]
