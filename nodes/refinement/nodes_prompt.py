"""Refine Prompt: what you said to the last round becomes the prompt of the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ...training.digests import telling
from ..host.language_models import language_roots, language_type
from ..host.managed import KeptModel
from ..host.progress import Progress, stop_reading
from ..host.schema import AttuneNode
from .checks import RefinementError
from .draft import Draft
from .language_models import LanguageModel, language_models, load_language_model, model_digest
from .nodes_common import CATEGORY, Reward, draft_of, session_input, session_output
from .records import Change, SessionState

if TYPE_CHECKING:
    from .ambiguity import Question
    from .nodes_showing import Shown
    from .refiner import BackEnd, Refined

RULES, LOCAL, EXTERNAL = "rules", "local LLM", "external text"
BACK_ENDS = (RULES, LOCAL, EXTERNAL)
NO_MODEL = "none: put a model into models/LLM"
_MODEL: KeptModel[LanguageModel] = KeptModel()


class AttuneRefinePrompt(AttuneNode):
    """Words about a picture become words for a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        models = list(language_models(language_roots())) or [NO_MODEL]
        return cls.schema(
            node_id="AttuneRefinePrompt",
            display_name="Refine Prompt",
            category=CATEGORY,
            description="Carries out on the prompt what you said of the last round, such as 'make the background blue, "
            "no hat', and shows what it changed. What it does not understand it says.",
            search_aliases=["llm", "prompt editing", "rewrite", "instruction", "gguf", "refiner", "comment"],
            is_output_node=True,
            inputs=[
                session_input(cls),
                cls.input(
                    io.Combo,
                    "back_end",
                    options=list(BACK_ENDS),
                    default=RULES,
                    tooltip="rules: reads English sentences by a grammar, at once and always in the same way. local "
                    "LLM: a language model on this computer, for anything else. external text: what is wired into "
                    "external, from any node. Where an answer cannot be used, the rules take over and say so.",
                ),
                cls.input(
                    io.Combo,
                    "model",
                    options=models,
                    default=models[0],
                    tooltip="For local LLM: a GGUF file or a model folder in models/LLM. Nothing is downloaded.",
                ),
                cls.input(
                    io.Combo,
                    "device",
                    options=["default", "cpu"],
                    default="default",
                    advanced=True,
                    tooltip="Where the language model computes. 'default' is your graphics card if there is one.",
                ),
                cls.input(
                    io.Boolean,
                    "ask_open",
                    default=False,
                    tooltip="Asks for what the prompt leaves open (a style, a background) where your comment is clear. "
                    "Off = asks only where the comment can be read in several ways.",
                ),
                cls.input(
                    io.String,
                    "external",
                    optional=True,
                    force_input=True,
                    tooltip="For external text: the new prompt, or JSON with prompt and negative.",
                ),
                cls.input(
                    Reward,
                    "reward",
                    optional=True,
                    tooltip="Asks back, too, if the last pictures show their prompt clearly less than is usual by this "
                    "reward, such as a CLIP kind. Usual is its calibration, or without one the session's earlier "
                    "rounds, from 8 pictures on. Nothing = only your comment and the prompt are looked at.",
                ),
            ],
            outputs=[
                session_output(cls),
                cls.output(io.String, id="refined", display_name="prompt", tooltip="The prompt of this round."),
                cls.output(io.String, id="refined_negative", display_name="negative",
                           tooltip="What this round is not to show."),
                cls.output(io.String, id="changes", display_name="changes", tooltip="What was changed, what was not "
                           "understood, and what should be made clear."),
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool:
        # Models come and go while a page is open; `execute` says what is there instead.
        return True

    @classmethod
    def fingerprint_inputs(cls, back_end: str | None = None, model: str | None = None, **others: Any) -> str:
        path = language_models(language_roots()).get(model or "") if back_end == LOCAL else None
        with telling(stop_reading):
            return model_digest(path) if path is not None else ""

    @classmethod
    def execute(
        cls, session: Any, back_end: str, model: str, device: str = "default", ask_open: bool = False,
        external: str = "", reward: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        draft = draft_of(session)
        if draft.state.replay is not None:
            told = f"Round {draft.state.replay.number} is made again with the words it had."
            return cls._given(draft, told)
        shown = _shown_less(draft.state, reward) if reward is not None else None
        found = _refined(draft.state, back_end, model, device, external, ask_open, shown.unlike if shown else None)
        last = draft.state.last
        left = (last.prompt,) if last is not None and last.prompt != found.prompt else ()
        change: Change = "none" if last is None else found.change(last.prompt)
        draft = draft.with_(
            prompt=found.prompt, negative=found.negative, unwanted=left, change=change,
            keeps_look=last is None or found.keeps_look(last.prompt),
        )  # fmt: skip
        told = "\n".join([found.summary(), *([shown.text] if shown else [])])
        return cls._given(draft, told, found)

    @classmethod
    def _given(cls, draft: Draft, told: str, found: Refined | None = None) -> io.NodeOutput:
        shown: dict[str, Any] = {"text": [told]}
        if found is not None:
            shown["attune_question"] = [_question(draft.state, found.question)]
        return io.NodeOutput(draft, draft.prompt, draft.negative, told, ui=shown)


def _shown_less(state: SessionState, reward: Any) -> Shown | None:
    from .nodes_showing import shown_less

    return shown_less(state, reward)


def _question(state: SessionState, asked: Question | None) -> dict[str, Any]:
    """What is asked about the round that is being made, for the page of Commit Round; without a text: nothing is."""
    choices = [{"label": choice.label, "feedback": choice.feedback} for choice in asked.choices] if asked else []
    named = {"key": state.key, "revision": state.revision, "round": state.number}
    return {**named, "text": asked.text if asked else "", "choices": choices}


def _refined(
    state: SessionState, back_end: str, model: str, device: str, external: str, ask_open: bool,
    unlike: float | None,
) -> Refined:  # fmt: skip
    from .refiner import ExternalText, LocalBackEnd, refine

    last = state.last
    said = last.feedback.comment if last is not None and last.feedback is not None else ""
    negative = state.negative if last is None else last.negative
    history = [past.feedback.comment for past in state.path[:-1] if past.feedback is not None]
    kept = kept_of(state)

    def asked(engine: BackEnd | None) -> Refined:
        return refine(
            state.current_prompt, negative, said, history, kept=kept, back_end=engine, ask_open=ask_open,
            unlike=unlike,
        )  # fmt: skip

    if back_end != LOCAL:
        _MODEL.release()
    if back_end == EXTERNAL:
        if not external.strip():
            raise RefinementError("back_end is external text, but nothing is wired into external, or it is empty.")
        return asked(ExternalText(external))
    if back_end != LOCAL or not said.strip():
        return asked(None)
    return asked(LocalBackEnd(_loaded(model, device), Progress()))


def _loaded(name: str, device: str) -> LanguageModel:
    """A language model on its device, kept for the next round.

    Raises:
        RefinementError: there is none of that name, or it cannot be loaded.
    """
    path = language_models(language_roots()).get(name)
    if path is None:
        roots = " or ".join(str(root) for root in language_roots())
        raise RefinementError(
            f"There is no language model {name!r}. Put a GGUF file or a model folder into {roots}, press R, and "
            "choose it; or set back_end to rules."
        )
    with telling(Progress()):
        digest = model_digest(path)
    dtype = language_type(device)
    return _MODEL.ready(
        f"{name} {digest} {dtype} {device}", lambda: load_language_model(path, dtype=dtype), on_cpu=device == "cpu"
    )


def kept_of(state: SessionState) -> tuple[str, ...]:
    """What the comments of all rounds but the last protect, read anew from them in order."""
    from .edits import edit_prompt

    kept: tuple[str, ...] = ()
    for past in state.path[:-1]:
        if past.feedback is not None:
            kept = edit_prompt(past.prompt, past.negative, past.feedback.comment, kept=kept).kept
    return kept


NODES: list[type[io.ComfyNode]] = [AttuneRefinePrompt]
