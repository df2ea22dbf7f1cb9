"""Refine Conditioning: the words of a round as the model reads them, moved from where the last round was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from comfy_api.latest import io

from ..host.sampling import encode_prompts
from ..host.schema import AttuneNode
from .checks import RefinementError
from .chosen import chosen_latents_of_rounds, refused_latents_of_rounds
from .draft import Draft
from .embedding_update import LARGEST_STEP, Embedding, EmbeddingConfig, EmbeddingStep, along, unrolled
from .latent_files import latents_digest
from .nodes_common import CATEGORY, draft_of, session_input, session_output
from .nodes_routes import sessions
from .schedules import held
from .store import SessionStore

if TYPE_CHECKING:
    from ..host.picture_direction import Chosen

DEFAULTS = EmbeddingConfig()
_SEEDS_APART = 1_000_003  # of two rounds' noise


class AttuneRefineConditioning(AttuneNode):
    """From words to conditioning, round after round."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneRefineConditioning",
            display_name="Refine Conditioning",
            category=CATEGORY,
            description="Encodes the session's prompt for the sampler. With the model connected it leans towards what "
            "the pictures you chose have and words do not say, and after Other pictures away from what you refused. It "
            "can follow a new prompt in part, and lean towards or away from captions.",
            search_aliases=["embedding update", "clip text encode", "prompt embedding", "directions", "conditioning"],
            inputs=[
                session_input(cls),
                cls.input(io.Clip, "clip", tooltip="The text encoder of the checkpoint."),
                cls.input(
                    io.Float,
                    "follow",
                    default=DEFAULTS.follow,
                    min=0.05,
                    max=1.0,
                    step=0.05,
                    tooltip="How far a round goes from the last round's conditioning to that of its new prompt. "
                    "Lowering it changes pictures more gently, over more rounds. 1 = the new prompt at once.",
                ),
                cls.input(
                    io.Float,
                    "towards",
                    default=DEFAULTS.towards,
                    min=0.0,
                    max=LARGEST_STEP,
                    step=0.05,
                    tooltip="How strongly to lean towards the captions in liked; without any it does nothing. Raising "
                    "it makes them plainer, and too much of it breaks pictures. 0 = off.",
                ),
                cls.input(
                    io.Float,
                    "away",
                    default=DEFAULTS.away,
                    min=0.0,
                    max=LARGEST_STEP,
                    step=0.05,
                    tooltip="How strongly to lean away from the captions in disliked and, where your comment changed "
                    "the prompt, from the last round's prompt: what changed becomes plainer. 0 = off.",
                ),
                cls.input(
                    io.Boolean,
                    "keep_norm",
                    default=DEFAULTS.keep_norm,
                    tooltip="Keeps the length of every token's vector where the encoder puts it, so that leaning on "
                    "words turns and does not shout; what pictures add comes after it. Off = vectors may grow.",
                ),
                cls.input(
                    io.String,
                    "liked",
                    multiline=True,
                    default="",
                    placeholder="lean towards: one caption per line",
                    tooltip="Captions of what you like, one per line, for example 'a cat in warm evening light'. Empty "
                    "= towards does nothing; your comments are in the prompt already.",
                ),
                cls.input(
                    io.String,
                    "disliked",
                    multiline=True,
                    default="",
                    placeholder="lean away from: one caption per line",
                    tooltip="Captions of what you do not like, one per line. Empty = away leans from the last round's "
                    "prompt alone, where your comment changed it.",
                ),
                cls.input(
                    io.Float,
                    "pictures",
                    default=DEFAULTS.pictures,
                    min=0.0,
                    max=LARGEST_STEP,
                    step=0.05,
                    optional=True,
                    tooltip="How strongly to lean towards what the pictures you chose have and the others do not, in "
                    "ways that words do not say, such as a background. Needs the model. Raising it follows your "
                    "choices more than your words, and too much of it breaks pictures. Other pictures halves it and "
                    "leads away from the pictures it replaces by half, pressed again wholly. 0 = off.",
                ),
                cls.input(
                    io.Model,
                    "model",
                    optional=True,
                    tooltip="The model that draws: it finds out what your chosen pictures have in common, and what "
                    "those have that you refused. Each takes somewhat longer than drawing four pictures in 20 steps. "
                    "Nothing connected = only words count, and pictures does nothing.",
                ),
            ],
            outputs=[
                session_output(cls),
                cls.output(io.Conditioning, id="positive", display_name="positive", tooltip="For the sampler."),
                cls.output(io.Conditioning, id="negative", display_name="negative", tooltip="For the sampler."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, session: Any, clip: Any, follow: float, towards: float, away: float, keep_norm: bool, liked: str,
        disliked: str, pictures: float = DEFAULTS.pictures, model: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        draft = draft_of(session)
        config = EmbeddingConfig(follow, towards, away, keep_norm, pictures)
        step = EmbeddingStep(
            draft.prompt, _lines(liked), (*draft.unwanted, *_lines(disliked)), config, anew=not draft.keeps_look
        )
        # All that the text encoder has to say comes first: on small cards it and the model push each other out.
        plain, negative = encode_prompts(clip, [draft.prompt, draft.negative])
        moved = moved_by_words(draft, step, clip)
        if draft.state.replay is None:
            asked = model is not None and config.pictures
            found = direction_of_choices(sessions(), draft, clip, model) if asked else None
            if found is not None:
                step = replace(step, direction=latents_digest(found))
            draft = draft.with_(embedding=step.parameters(), direction=found)
        return io.NodeOutput(draft, with_embedding(plain, moved_by_pictures(sessions(), draft, moved)), negative)


def moved_by_words(draft: Draft, step: EmbeddingStep, clip: Any) -> Embedding:
    """e_t of a draft whose update is `step`, or what its replay has."""
    last = step if draft.state.replay is None else EmbeddingStep.of(draft.prompt, draft.embedding)
    steps = [*(EmbeddingStep.of(past.prompt, past.embedding) for past in draft.state.path), last]
    return unrolled(steps, lambda text: embedding_of(encode_prompts(clip, [text])[0]))


def moved_by_pictures(store: SessionStore, draft: Draft, embedding: Embedding) -> Embedding:
    """e_t + γ·δ_t, with the direction that the draft names."""
    step = EmbeddingStep.of(draft.prompt, draft.embedding)
    if not step.direction or not step.config.pictures:
        return embedding
    found = draft.direction
    if found is None:
        found = store.files(draft.state.key).directions.get(step.direction)
    return along(embedding, found, step.config.pictures)


def direction_of_choices(store: SessionStore, draft: Draft, clip: Any, model: Any) -> torch.Tensor | None:
    """Towards what chosen pictures have that words do not say, away from what refused ones have, δ [T, D].

    Where other pictures were asked for, what was chosen counts half, and all pictures of the round that they are to
    take the place of count half against it; asked for again, only those count. What was chosen does not count where
    the last comment wants another look or thing: the words come first then, since what the chosen picture shows beside
    them may be what was wrong with it.

    Returns:
        None as long as nobody has chosen or refused anything.
    """
    from ..host.picture_direction import Chosen

    state, kept = draft.state, held(draft.state.attempt)
    chosen = chosen_latents_of_rounds(store, state) if draft.keeps_look and kept else []
    refused = refused_latents_of_rounds(store, state, draft.prompt) if kept < 1 else []
    rounds = [*chosen, *((past, latents, latents[:0]) for past, latents in refused)]
    if not rounds:
        return None
    # All that the text encoder has to say comes first, see `execute`.
    own, *encoded = encode_prompts(clip, [draft.prompt, *(past.prompt for past, _, _ in rounds)])
    shown = [
        Chosen(past.prompt, conditioning, liked, others)
        for (past, liked, others), conditioning in zip(rounds, encoded, strict=True)
    ]
    tokens, seed = embedding_of(own).tokens, (state.seed + _SEEDS_APART * state.number) % 2**63
    parts = ((kept, shown[: len(chosen)]), (kept - 1, shown[len(chosen) :]))
    found = [(weight, _direction(model, part, tokens, seed)) for weight, part in parts if part]
    known = [weight * direction for weight, direction in found if direction is not None]
    return torch.stack(known).sum(0) if known else None


def _direction(model: Any, shown: Sequence[Chosen], tokens: torch.Tensor, seed: int) -> torch.Tensor | None:
    from ...training.objectives.picture_direction import DirectionConfig
    from ..host.picture_direction import direction_of_pictures

    return direction_of_pictures(model, shown, tokens, DirectionConfig(seed=seed))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def embedding_of(conditioning: Any) -> Embedding:
    """What the host's CONDITIONING of one prompt says.

    Raises:
        RefinementError: it has several parts, as hooks and areas make them.
    """
    if len(conditioning) != 1:
        raise RefinementError(
            f"This text encoder gives a prompt in {len(conditioning)} parts (a schedule of hooks), which cannot be "
            "moved as one. Set towards and away to 0 and follow to 1, or take the hooks off."
        )
    tokens, extras = conditioning[0]
    return Embedding(tokens, extras.get("pooled_output"))


def with_embedding(conditioning: Any, found: Embedding) -> Any:
    """CONDITIONING with other vectors, all else as it was."""
    if len(conditioning) != 1:
        return conditioning
    _, extras = conditioning[0]
    extras = dict(extras)
    if found.pooled is not None:
        extras["pooled_output"] = found.pooled
    return [[found.tokens, extras]]


NODES: list[type[io.ComfyNode]] = [AttuneRefineConditioning]
