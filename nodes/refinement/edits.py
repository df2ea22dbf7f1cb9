"""The edit grammar: what a person says about a picture, carried out on its prompt, without any model. Ours.

    edit_prompt("a cat on a red background", "", "make the background blue, and no hat please")
    → "a cat on a blue background", negative "hat"

What it understands, in English; another language or more words are a table (`edit_words`):
    add         "add a hat" · "with a hat" · "it needs more windows" · "the dog should wear a scarf" · "make it foggy"
    remove      "no hat please" · "get rid of the hat" · "I don't want a hat" · "do not make it blue"
    replace     "replace the cat with a dog" · "sunset instead of sunrise" · "make the pear a banana"
    more, less  "more fruit" · "darker" · "a bit less blue" · "not so dark" · "not dark enough" · "too many candles"
    keep        "keep the colours" · "without changing the dog" · "leave it as it is"; "don't change the rest"; ended
                by "the dog may change", "everything may change"
    style       "in a flat style" · "as a pencil sketch" · "make it look like a comic" · "in the style of Van Gogh"
    background  "the background should be blue" · "put it on a green background" · "mountains in the background"
    count       "two of them" · "only one bird" · "three apples" · "another cat"
    size        "bigger" · "make the moon smaller" · "the dog is too small"
    position    "move it to the left" · "the cat should be at the top"
Politeness, case and punctuation do not matter; several edits may stand in one sentence, and "it" means what was spoken
of last.

Rules of carrying out:
    - More and less change the host's emphasis, (words:1.2), by `STEP` (0.2; "a bit" 0.1, "much" 0.4) between `WEAKEST`
      and `STRONGEST` (0.4 … 1.6). More of what the prompt does not hold adds it.
    - Less or none of what the prompt does not hold goes to the negative prompt; what is added leaves it.
    - A thing has one colour, one material …: a new one takes the old one's place. A picture has one style and one
      background.
    - What is kept cannot be changed by an edit, in this round and in those that follow, until it is released.
    - What is not understood is `unread`, what is understood and not possible is `refused` with the reason. Neither is
      dropped without a word. Unread are, among others, numbers of pictures ("picture 2"), negations of unclear reach
      ("not only …", "anything but …"), and whatever would write the verbs of a sentence into the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .edit_applying import STEP, STRONGEST, WEAKEST, Applying
from .edit_reading import read_feedback
from .edit_records import OPERATIONS, Edit, Operation, Reading, Refused
from .edit_words import languages

__all__ = [
    "OPERATIONS", "STEP", "STRONGEST", "WEAKEST", "Edit", "Operation", "Outcome", "Reading", "Refused", "apply_edits",
    "edit_prompt", "read_feedback",
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A prompt after its edits.

    Attributes:
        prompt, negative: letter for letter as before where nothing was carried out.
        edits: carried out, in this order.
        unread: parts of the feedback that were not understood.
        refused: edits that were understood and not carried out.
        kept: things that later edits may not change, in the words of the prompt.
    """

    prompt: str
    negative: str
    edits: tuple[Edit, ...]
    unread: tuple[str, ...]
    refused: tuple[Refused, ...]
    kept: tuple[str, ...]


def edit_prompt(prompt: str, negative: str, feedback: str, *, kept: Sequence[str] = ()) -> Outcome:
    """Read feedback and carry it out.

    Args:
        prompt, negative: as they are.
        feedback: what a person wrote.
        kept: of the rounds before, as their outcome had it.
    """
    return apply_edits(prompt, negative, read_feedback(feedback, prompt), kept=kept)


def apply_edits(prompt: str, negative: str, reading: Reading, *, kept: Sequence[str] = ()) -> Outcome:
    """Carry edits out, one after the other."""
    language = next((table for table in languages() if table.name == reading.language), languages()[0])
    applying = Applying(prompt, negative, language, kept)
    done: list[Edit] = []
    refused: list[Refused] = []
    for edit in reading.edits:
        refusal = applying.apply(edit)
        if refusal is None:
            done.append(edit)
        else:
            refused.append(refusal)
    changed = [edit for edit in done if edit.operation != "keep"]
    return Outcome(
        applying.prompt.text if changed else prompt,
        applying.negative.text if changed else negative,
        tuple(done),
        reading.unread,
        tuple(refused),
        tuple(dict.fromkeys(applying.kept)),
    )
