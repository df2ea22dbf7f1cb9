"""Refinement Session: one intention, followed over several rounds. The workflow holds its name, the store the rest."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...training.interfaces import AttuneError
from ..host.schema import AttuneNode
from .checks import LARGEST_SEED, RefinementError
from .draft import Draft
from .nodes_common import CATEGORY, session_output
from .nodes_routes import sessions
from .records import SessionState
from .repeating import check_wanted
from .words import session_text

FIRST_NAME = "my session"


class AttuneRefinementSession(AttuneNode):
    """Where a refinement begins and goes on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneRefinementSession",
            display_name="Refinement Session",
            category=CATEGORY,
            description="Follows one wish over several rounds: every run makes the next round's pictures from what you "
            "said to the last. Rounds are kept on this computer: nothing is lost by a reload or a restart.",
            search_aliases=["multi-round", "refine", "iterate", "feedback loop", "dialogue", "undo", "branch"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                cls.input(
                    io.String,
                    "prompt",
                    multiline=True,
                    default="a cat",
                    placeholder="your wish: what the first round is to show",
                    tooltip="What the first round is to show. From the second round on the session's own prompt "
                    "counts, which your comments change; to begin with other words choose or name another session.",
                ),
                cls.input(
                    io.Combo,
                    "session",
                    options=_choices(),
                    default=FIRST_NAME,
                    tooltip="Which session goes on. 'my session' is made when it is first used. Not used while "
                    "new_name says something.",
                ),
                cls.input(
                    io.String,
                    "new_name",
                    default="",
                    placeholder="a name for another session (empty = the choice above)",
                    tooltip="Begins a session of this name, or goes on with the one that has it. Empty = the choice "
                    "above.",
                ),
                cls.input(
                    io.String,
                    "negative",
                    multiline=True,
                    default="",
                    placeholder="what the first round is not to show",
                    tooltip="What the first round is not to show. Comments such as 'no hat' add to it in later rounds. "
                    "Empty = nothing.",
                ),
                cls.input(
                    io.Int,
                    "session_seed",
                    default=0,
                    min=0,
                    max=LARGEST_SEED,
                    tooltip="From which the noise of all rounds follows. The same wish, seed and choices give the same "
                    "pictures. Another number = other pictures, until the first round is decided.",
                ),
                cls.input(
                    io.Int,
                    "replay_round",
                    default=0,
                    min=0,
                    max=10_000,
                    tooltip="Makes that round of the session again as it was, with its own words, seeds and schedule; "
                    "Commit Round says whether it came out bit by bit. Nothing is changed. 0 = off: go on.",
                ),
            ],
            outputs=[
                session_output(cls),
                cls.output(io.String, id="current_prompt", display_name="prompt",
                           tooltip="The words that the session stands at, before Refine Prompt."),
                cls.output(io.Int, id="round", display_name="round", tooltip="The number of the round to be made."),
                cls.output(io.String, id="report", display_name="report", tooltip="Where the session stands."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, session: str | None = None) -> bool:
        # Sessions come and go while a page is open; `execute` says what is there instead.
        return True

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> str:
        try:
            # A wire's value is not known yet, nor which session it means: any that moves counts.
            if any(inputs.get(name) is None for name in ("prompt", "session", "new_name", "negative", "session_seed")):
                return " ".join(f"{found.key} {found.revision}" for found in sessions().summaries())
            # Made now, as `execute` would: a session that comes later would count as a change.
            state = current(**inputs)
            return f"{state.key} {state.revision}"
        except AttuneError as error:
            return str(error)

    @classmethod
    def execute(
        cls, prompt: str, session: str, new_name: str, negative: str, session_seed: int, replay_round: int
    ) -> io.NodeOutput:
        state = current(prompt, session, new_name, negative, session_seed, replay_round)
        graph = cls.hidden.dynprompt
        check_wanted(graph.get_node, graph.all_node_ids(), cls.hidden.unique_id, state)
        draft = Draft.of(state, sessions())
        told = session_text(state, prompt)
        shown = {"key": state.key, "revision": state.revision}
        return io.NodeOutput(draft, draft.prompt, state.number, told, ui={"text": [told], "attune_session": [shown]})


def current(
    prompt: str, session: str, new_name: str = "", negative: str = "", session_seed: int = 0, replay_round: int = 0
) -> SessionState:
    """The session that the widgets mean, as it stands. A wish that no round follows from yet is the widgets' wish.

    Raises:
        RefinementError: there is no session of that name, or no round of that number.
    """
    store, name = sessions(), new_name.strip() or session
    known = store.find(name)
    if known is None and not new_name.strip() and name.casefold() != FIRST_NAME:
        there = store.names()
        listed = f"There are: {', '.join(there[:8])}{' …' if len(there) > 8 else ''}." if there else "There are none."
        raise RefinementError(
            f"There is no session {name!r} any more: it was renamed or deleted. {listed} Choose one of them, or type a "
            "name into new_name to begin another."
        )
    if not prompt.strip() and known is None:
        raise RefinementError("The wish is empty. Write into prompt what the first round is to show.")
    state = store.state(known.key) if known else store.find_or_create(name, prompt, negative, session_seed)
    if not state.path and prompt.strip() and not store.tree(state.key).rounds:
        state = store.reword(state.key, state.revision, prompt, negative, session_seed)
    if not replay_round:
        return state
    if replay_round > len(state.path):
        raise RefinementError(
            f"The session has {len(state.path)} rounds behind it, so round {replay_round} cannot be made again. Set "
            "replay_round to 0 to go on."
        )
    return store.state(state.key, replay=state.path[replay_round - 1].key)


def _choices() -> list[str]:
    """Only the first name where the store cannot be read, which a run then explains."""
    try:
        names = sessions().names()
    except AttuneError:
        return [FIRST_NAME]
    return names if FIRST_NAME in [name.casefold() for name in names] else [*names, FIRST_NAME]


NODES: list[type[io.ComfyNode]] = [AttuneRefinementSession]
