"""Commit Round: shows a round's pictures, and keeps what you say of them. Never holds the queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.presentable import presentable
from ..host.sampling import progress_bar
from ..host.schema import AttuneNode
from ..picture_folder import picture_hash, to_pixels
from .checks import RefinementError
from .chosen import chosen_pictures, last_chosen
from .draft import Draft
from .latent_files import latents_digest
from .nodes_common import CATEGORY, AnswerWire, draft_of, session_input, session_output
from .nodes_routes import sessions, tell
from .records import REWARDS, Feedback, Picture, Round, SessionState
from .running_scores import ranked, running_scores, scores_of, weighed, z_scores
from .scoring import score_round

YOU, ANSWER = "you", "the connected answer"
DECIDERS = (YOU, REWARDS, ANSWER)


class AttuneCommitRound(AttuneNode):
    """Choose, say what should change, and press Refine."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneCommitRound",
            display_name="Commit Round",
            category=CATEGORY,
            description="Shows the round's pictures. Choose what you like, say what should change, press Refine: the "
            "next round follows from that. Nothing waits for you meanwhile, and every step can be undone.",
            search_aliases=["choose", "feedback", "comment", "refine", "accept", "rating", "human in the loop", "undo"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                session_input(cls),
                cls.input(io.Image, "images", tooltip="The round's pictures: from VAE Decode."),
                cls.input(io.Latent, "latents", tooltip="Their latents, from Round Sampler: a later round may begin "
                          "from the one you choose, and a replay is compared with them."),
                cls.input(
                    io.Combo,
                    "decides",
                    options=list(DECIDERS),
                    default=YOU,
                    tooltip="you: in this node, whenever you like. the rewards: the picture that Dynamic Weights' "
                    "rewards prefer is chosen at once, with the comment below: for runs without a person. the "
                    "connected answer: what comes in by answer, as from Simulated Person.",
                ),
                cls.input(
                    io.String,
                    "comment",
                    default="",
                    placeholder="only if the rewards decide: what is said of every round",
                    tooltip="What is said when the rewards decide, for example by a node that simulates a person. Your "
                    "own comments belong into the page below. Empty = nothing.",
                ),
                cls.input(
                    AnswerWire,
                    "answer",
                    optional=True,
                    tooltip="What is chosen and said if decides is the connected answer: from Simulated Person.",
                ),
            ],
            outputs=[
                session_output(cls),
                cls.output(io.Image, id="chosen", display_name="chosen", tooltip="The picture you chose last. What "
                           "hangs on it does not run as long as nothing is chosen."),
                cls.output(io.String, id="report", display_name="report", tooltip="What was kept."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, session: Any, images: torch.Tensor, latents: dict, decides: str = YOU, comment: str = "",
        answer: Feedback | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        draft, samples = draft_of(session), latents["samples"]
        if decides == ANSWER and answer is None:
            raise RefinementError("No answer is connected. Connect Simulated Person to answer, or set decides to you.")
        _check(draft, images, samples)
        if draft.state.replay is not None:
            return cls._replayed(draft, draft.state.replay, samples)
        kept = keep(draft, images, samples)
        state = sessions().state(draft.state.key)
        if decides != YOU:
            said = answer if decides == ANSWER else by_rewards(draft, kept, comment)
            state = sessions().commit(state.key, state.revision, kept.key, said)
        tell("propose" if decides == YOU else "commit", state.key, state.revision, node=cls.hidden.unique_id)
        return cls._given(draft, state, _told(draft, kept, decides))

    @classmethod
    def _given(cls, draft: Draft, state: SessionState, told: str) -> io.NodeOutput:
        chosen = last_chosen(sessions(), state)
        following = Draft.of(state, sessions()) if state.revision != draft.state.revision else ExecutionBlocker(None)
        return io.NodeOutput(
            following, ExecutionBlocker(None) if chosen is None else chosen, told,
            ui={"text": [told], "attune_round": [{"key": state.key, "revision": state.revision}]},
        )  # fmt: skip

    @classmethod
    def _replayed(cls, draft: Draft, recorded: Round, samples: torch.Tensor) -> io.NodeOutput:
        exact = latents_digest(samples) == recorded.latents
        sessions().replayed(draft.state.key, recorded.key, exact=exact)
        told = f"Round {recorded.number}, made again: " + (
            "bit by bit the same."
            if exact
            else "NOT the same bits. Another model, LoRA, size, text encoder or machine made it; its recorded pictures "
            "stay as they are."
        )
        return cls._given(draft, draft.state, told)


def _check(draft: Draft, images: torch.Tensor, samples: torch.Tensor) -> None:
    count = len(draft.decided().seeds)
    if images.ndim != 4 or images.shape[-1] < 3:
        raise RefinementError(f"images has shape {tuple(images.shape)}; expected pictures: (count, height, width, 3).")
    if len(images) != count or len(samples) != count:
        raise RefinementError(
            f"Round Schedule asks for {count} pictures, and {len(images)} pictures and {len(samples)} latents came. "
            "Connect Round Sampler's latents here and to VAE Decode, and its images here."
        )


def keep(draft: Draft, images: torch.Tensor, samples: torch.Tensor) -> Round:
    """Score a round's pictures and keep them as the session's open round."""
    store, state, schedule = sessions(), draft.state, draft.decided()
    images = images[..., :3].detach().float().cpu()
    bar = progress_bar(max(1, len(images) * len(draft.judges)))
    scores = score_round(draft.judges, images, draft.prompt, chosen_pictures(store, draft), bar)
    shown = presentable(images, [judge.reward for judge in draft.judges])
    pixels = [to_pixels(picture) for picture in shown]
    names = [picture_hash(part) for part in pixels]
    pictures = [Picture(name, seed, found) for name, seed, found in zip(names, schedule.seeds, scores, strict=True)]
    return store.propose(
        state.key, state.revision, prompt=draft.prompt, negative=draft.negative, embedding=draft.embedding,
        schedule=schedule, weights=draft.weights, pictures=pictures, pixels=dict(zip(names, pixels, strict=True)),
        latents=samples, direction=draft.direction, lora=draft.lora, seconds=draft.seconds,
    )  # fmt: skip


def totals_of(draft: Draft, kept: Round) -> list[float]:
    """R_total of every picture, z-scored over this round and those before; NaN where it cannot be said."""
    rounds: list[Sequence[dict[str, float]]] = [scores_of(past) for past in draft.state.path]
    own = scores_of(kept)
    costs = [judge.name for judge in draft.judges if judge.is_cost]
    z = z_scores(own, running_scores([*rounds, own]), costs=costs)
    return weighed(z, draft.weights.after if draft.weights is not None else {})


def by_rewards(draft: Draft, kept: Round, comment: str) -> Feedback:
    """
    Raises:
        RefinementError: there is no reward to decide.
    """
    if draft.weights is None:
        raise RefinementError(
            "The rewards are to decide, but none is weighed. Put Dynamic Weights into the loop, or set decides to you."
        )
    best = ranked(totals_of(draft, kept))
    return Feedback(comment, liked=tuple(best[:1]), rater=REWARDS)


def _told(draft: Draft, kept: Round, decides: str) -> str:
    count = len(kept.pictures)
    if decides != YOU:
        return f"Round {kept.number} of {count} pictures: decided by {decides}."
    return f"Round {kept.number} of {count} pictures waits for you: choose, say what should change, press Refine."


NODES: list[type[io.ComfyNode]] = [AttuneCommitRound]
