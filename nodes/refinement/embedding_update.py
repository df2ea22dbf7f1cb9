"""The prompt's embedding from round to round: towards the new words and what is liked, away from what is not.

    e_t = e_{t−1} + η·(E(p_t) − e_{t−1}) + β₁·mean(E⁺) − β₂·mean(E⁻),    and the model is given e_t + γ·δ_t

| symbol | code name          | meaning                                                                           |
| ------ | ------------------ | --------------------------------------------------------------------------------- |
| E      | encode             | the model's text encoder: tokens [1, T, D], and a pooled vector [1, P] or none    |
| p_t    | prompt             | the words of round t                                                              |
| e_t    |                    | what the model is conditioned on; in the first round e_0 = E(p_1)                 |
| η      | follow             | how far it follows the new words at once; 1 = wholly                              |
| β₁, β₂ | towards, away      | how far it goes along the directions                                              |
| E⁺, E⁻ |                    | directions E(c) − E(p_t) of liked and disliked captions c                         |
| δ_t    | direction          | what chosen pictures have that words do not say, less what refused ones have      |
| γ      | pictures           | how far it goes along that                                                        |

**What a direction is.** Not a caption's embedding: that is mostly what every embedding has in common and what the
prompt says anyway, and adding it would move even for a caption that is the prompt. It is what the caption says beyond
the prompt, E(c) − E(p_t), token by token as the host blends conditionings. So a caption equal to the prompt changes
nothing, whatever β; and with one liked caption β₁ goes in a straight line from the prompt (0) to the caption (1).
With η = 1 and β = 0 the result is E(p_t) itself, bit for bit.

With η below 1 a part 1 − η of earlier directions stays, so that the same direction, repeated, adds up to β/η of it.

**Which captions.** Those that a person writes; beside the disliked ones the last round's prompt, where this round has
another: what was changed becomes plainer. What a comment asks for is in p_t already and has no caption of its own.

**Pictures.** δ_t is found by the network itself, see `training.objectives.picture_direction`. It is kept with its
round, as it was; what its tokens' places mean is not known, so it is added place by place, and only to the tokens. It
is found anew for every round from all that was chosen, so nothing of it goes on with e_t. Where other pictures were
asked for, δ_t is h·δ(chosen) − (1 − h)·δ(refused), h = ½ and then 0, where δ(refused) takes all pictures of the rounds
in question for liked ones: whoever asks for other pictures is to get looks that those had not.

**Lengths.** Long prompts have more tokens. Where what is mixed differs in length, the shorter ones go on as an empty
prompt does at those places (`empty`), without it as zeros. What has a coefficient of 0 does not count.

**Norm.** Text encoders give every token about the same norm, and the network is used to it; sums leave it: half of
two unlike vectors is shorter, added directions are longer. `keep_norm` keeps every token's norm between the shortest
and the longest that its place has in what it was made from.

References:
    ours; the formula is recalled from the VCA authors' description of a prompt-embedding update.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .checks import DIGEST, RefinementError, check_text
from .records import ANEW, DIRECTION

LARGEST_STEP = 4.0
MOST_CAPTIONS = 64


@dataclass(frozen=True)
class Embedding:
    """What a text encoder says.

    Attributes:
        tokens: [1, T, D].
        pooled: [1, P], of models that have one.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.tokens.shape[0] != 1:
            raise RefinementError(
                f"A prompt's embedding has the shape [1, tokens, width], not {list(self.tokens.shape)}. Connect the "
                "conditioning of a single prompt."
            )
        if self.pooled is not None and (self.pooled.ndim != 2 or self.pooled.shape[0] != 1):
            raise RefinementError(f"A pooled embedding has the shape [1, width], not {list(self.pooled.shape)}.")


Encode = Callable[[str], Embedding]


@dataclass(frozen=True)
class EmbeddingConfig:
    """Knobs of the update.

    Attributes:
        follow: η in (0, 1].
        towards: β₁, 0 … 4; 0 = liked captions change nothing.
        away: β₂, 0 … 4; 0 = disliked captions change nothing.
        keep_norm: see the module; δ is added after it.
        pictures: γ, 0 … 4; 0 = chosen and refused pictures change nothing.
    """

    follow: float = 1.0
    towards: float = 0.3
    away: float = 0.15
    keep_norm: bool = True
    pictures: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.follow <= 1:
            raise RefinementError(f"follow must be above 0 and at most 1, not {self.follow!r}; 1 takes the new prompt.")
        for name in ("towards", "away", "pictures"):
            if not 0 <= getattr(self, name) <= LARGEST_STEP:
                raise RefinementError(
                    f"{name} must be between 0 (off) and {LARGEST_STEP:g}, not {getattr(self, name)!r}."
                )


@dataclass(frozen=True)
class EmbeddingStep:
    """One round's update: all that it takes to make it again.

    Attributes:
        prompt: p_t.
        liked, disliked: captions.
        config: the knobs.
        direction: digest of δ_t; "" = there is none.
        anew: whether another thing or look was asked for: what was chosen before says nothing of it from here on.
    """

    prompt: str
    liked: tuple[str, ...] = ()
    disliked: tuple[str, ...] = ()
    config: EmbeddingConfig = EmbeddingConfig()
    direction: str = ""
    anew: bool = False

    def __post_init__(self) -> None:
        check_text(self.prompt, "The prompt")
        for name in ("liked", "disliked"):
            captions = tuple(getattr(self, name))
            if len(captions) > MOST_CAPTIONS:
                raise RefinementError(f"There are {len(captions)} {name} captions; up to {MOST_CAPTIONS} are used.")
            for caption in captions:
                check_text(caption, "A caption")
            object.__setattr__(self, name, captions)
        if self.direction and not DIGEST.fullmatch(self.direction):
            raise RefinementError(f"{self.direction[:80]!r} is no direction of pictures: it must be 64 hex digits.")

    def parameters(self) -> dict[str, Any]:
        """For `records.Round.embedding`: all but the prompt, which the round has itself."""
        return (
            {
                **dataclasses.asdict(self.config),
                "liked": list(self.liked),
                "disliked": list(self.disliked),
            }
            | ({DIRECTION: self.direction} if self.direction else {})
            | ({ANEW: True} if self.anew else {})
        )

    @classmethod
    def of(cls, prompt: str, parameters: Mapping[str, Any]) -> EmbeddingStep:
        """The inverse of `parameters`. Without any: a round that encoded its prompt plainly.

        Raises:
            RefinementError: unknown parameters, or values out of range.
        """
        if not parameters:
            return cls(prompt, config=EmbeddingConfig(1.0, 0.0, 0.0))
        rest = dict(parameters)
        direction, anew = rest.pop(DIRECTION, ""), rest.pop(ANEW, False) is True
        captions = {name: tuple(rest.pop(name, ())) for name in ("liked", "disliked")}
        try:
            return cls(prompt, **captions, config=EmbeddingConfig(**rest), direction=direction, anew=anew)
        except TypeError as error:
            raise RefinementError(f"These are no parameters of an embedding's update: {dict(parameters)}.") from error


def unrolled(steps: Sequence[EmbeddingStep], encode: Encode) -> Embedding:
    """e_t of the last of some rounds, from their words alone; δ_t comes to it by `along`.

    Args:
        steps: of every round from the first on, the last one the round to be made.
        encode: the text encoder; asked once for each text.

    Raises:
        RefinementError: no round, or embeddings that do not fit together.
    """
    if not steps:
        raise RefinementError("An embedding is of at least one round.")
    known: dict[str, Embedding] = {}

    def once(text: str) -> Embedding:
        if text not in known:
            known[text] = encode(text)
        return known[text]

    # A round that follows its prompt wholly keeps nothing of those before.
    first = max(index for index, step in enumerate(steps) if index == 0 or step.config.follow == 1)
    current: Embedding | None = None
    for step in steps[first:]:
        liked, disliked = ([once(caption) for caption in captions] for captions in (step.liked, step.disliked))
        current = update(current, once(step.prompt), liked, disliked, config=step.config, empty=lambda: once(""))
    return current


def along(embedding: Embedding, direction: torch.Tensor, how_far: float) -> Embedding:
    """e + γ·δ.

    Args:
        direction: δ [T, D], of this or another number of tokens.

    Raises:
        RefinementError: it is of another text encoder.
    """
    tokens = embedding.tokens
    if direction.ndim != 2 or direction.shape[1] != tokens.shape[2]:
        raise RefinementError(
            f"The pictures' direction has the shape {list(direction.shape)}, the prompt {list(tokens.shape)}: "
            "this session was begun with another model. Set pictures to 0, or begin a new session."
        )
    from ...training.objectives.picture_direction import fitted

    moved = tokens.float() + how_far * fitted(direction.to(tokens.device, torch.float32), tokens.shape[1])
    return Embedding(moved.to(tokens.dtype), embedding.pooled)


def update(
    last: Embedding | None,
    prompt: Embedding,
    liked: Sequence[Embedding] = (),
    disliked: Sequence[Embedding] = (),
    *,
    config: EmbeddingConfig,
    empty: Callable[[], Embedding] | None = None,
) -> Embedding:
    """e_t by the module's formula.

    Args:
        last: e_{t−1}; None in the first round.
        prompt: E(p_t).
        liked, disliked: E(c) of the captions.
        config: the knobs.
        empty: gives E(""), asked only where lengths differ.

    Returns:
        of E(p_t)'s type and device; T of the longest that has a part in it.

    Raises:
        RefinementError: widths differ, or only some have a pooled vector.
    """
    parts = _parts(last, prompt, liked, disliked, config)
    if len(parts) == 1:
        return prompt
    sources = [prompt, *(embedding for _, embedding in parts[1:])]
    _check(sources)
    shares = [share for share, _ in parts]
    length = max(source.tokens.shape[1] for source in sources)
    filler = empty().tokens if empty and any(source.tokens.shape[1] < length for source in sources) else None
    tokens = _mixed([_lengthened(source.tokens, length, filler) for source in sources], shares, config.keep_norm)
    pooled = None
    if prompt.pooled is not None:
        pooled = _mixed([source.pooled for source in sources], shares, config.keep_norm)
    return Embedding(tokens, pooled)


def _parts(
    last: Embedding | None,
    prompt: Embedding,
    liked: Sequence[Embedding],
    disliked: Sequence[Embedding],
    config: EmbeddingConfig,
) -> list[tuple[float, Embedding]]:
    """The formula as a sum: E(p_t), and what is mixed into it with which share of its difference to E(p_t)."""
    parts = [(1.0, prompt)]
    if last is not None and config.follow < 1:
        parts.append((1 - config.follow, last))
    if config.towards:
        parts += [(config.towards / len(liked), caption) for caption in liked]
    if config.away:
        parts += [(-config.away / len(disliked), caption) for caption in disliked]
    return parts


def _mixed(sources: Sequence[torch.Tensor], shares: Sequence[float], keep_norm: bool) -> torch.Tensor:
    """E(p) + Σ share·(source − E(p)), the first source being E(p); all of one shape [1, …, D]."""
    base = sources[0]
    exact = [source.to(base.device, torch.float32) for source in sources]
    mixed = exact[0].clone()
    for share, source in zip(shares[1:], exact[1:], strict=True):
        mixed += share * (source - exact[0])
    if keep_norm:
        norms = torch.stack([source.norm(dim=-1, keepdim=True) for source in exact])
        norm = mixed.norm(dim=-1, keepdim=True)
        kept = norm.clamp(norms.amin(0), norms.amax(0))
        # Where nothing leaves its bounds nothing is touched, not even by rounding.
        mixed = torch.where(kept == norm, mixed, mixed * (kept / norm.clamp_min(torch.finfo(torch.float32).tiny)))
    if not torch.isfinite(mixed).all():
        raise RefinementError("The updated embedding is not finite. Set towards and away to 0 and follow to 1.")
    return mixed.to(base.dtype)


def _lengthened(tokens: torch.Tensor, length: int, filler: torch.Tensor | None) -> torch.Tensor:
    """Tokens [1, T, D] → [1, length, D]; the places beyond T are those of the filler, which repeats itself."""
    have = tokens.shape[1]
    if have == length:
        return tokens
    if filler is None:
        return torch.cat([tokens, tokens.new_zeros(1, length - have, tokens.shape[2])], 1)
    places = torch.arange(have, length, device=filler.device) % filler.shape[1]
    return torch.cat([tokens, filler[:, places].to(tokens)], 1)


def _check(sources: Sequence[Embedding]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if other.tokens.shape[2] != first.tokens.shape[2]:
            raise RefinementError(
                f"Embeddings of widths {first.tokens.shape[2]} and {other.tokens.shape[2]} cannot be mixed. Use one "
                "text encoder for prompts and captions."
            )
        shapes = [None if one.pooled is None else tuple(one.pooled.shape) for one in (first, other)]
        if shapes[0] != shapes[1]:
            raise RefinementError(f"Pooled embeddings of shapes {shapes[0]} and {shapes[1]} cannot be mixed.")
    if not all(math.isfinite(float(source.tokens.abs().amax())) for source in sources):
        raise RefinementError("The text encoder gave an embedding that is not finite.")
