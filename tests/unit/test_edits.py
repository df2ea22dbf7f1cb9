"""The edit grammar: every operation in many words, on prompts of commas and of sentences."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from attune.nodes.refinement import edit_words
from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.edit_english import ENGLISH
from attune.nodes.refinement.edit_words import Rule, register, unregister
from attune.nodes.refinement.edits import OPERATIONS, STEP, STRONGEST, WEAKEST, Edit, edit_prompt, read_feedback
from attune.tests.evidence import _feedbacks

CAT = "a cat on a red background"
FOX = "a small fox on the left, flat style, on a green background"
WOMAN = "portrait of a young woman with long hair, soft light, photo"
MAN = "a man with a red hat walking in a park, oil painting"

# (prompt, feedback, the prompt after it, the negative prompt after it)
CASES = [
    # add
    (CAT, "add a hat", "a cat with a hat on a red background", ""),
    (CAT, "Please ADD some butterflies, and a snail!", "a cat with butterflies and a snail on a red background", ""),
    (MAN, "give him a beard", "a man with a red hat and a beard walking in a park, oil painting", ""),
    (MAN, "he should hold an umbrella", "a man with a red hat holding an umbrella walking in a park, oil painting", ""),
    (MAN, "make it foggy", "a man with a red hat walking in a park, foggy, oil painting", ""),
    ("a house by the sea", "Could it be made of glass?", "a house made of glass by the sea", ""),
    ("a cup, a plate, photo", "add a spoon", "a cup, a plate, a spoon, photo", ""),
    ("", "add a cat", "a cat", ""),
    # remove
    (MAN, "no hat please", "a man walking in a park, oil painting", ""),
    (MAN, "without the hat, and get rid of the park", "a man walking, oil painting", ""),
    (MAN, "he shouldn't wear a hat", "a man walking in a park, oil painting", ""),
    ("a cat and a dog on a sofa", "remove the cat", "a dog on a sofa", ""),
    ("a cat and a dog on a sofa", "I don't want the dog", "a cat on a sofa", ""),
    ("a beach with palms and boats", "lose the palms", "a beach with boats", ""),
    (CAT, "no text, no watermark", CAT, "text, watermark"),
    ("a path in a forest", "remove the path", "a forest", ""),
    # replace
    (CAT, "replace the cat with an owl", "an owl on a red background", ""),
    (CAT, "a dog instead of the cat", "a dog on a red background", ""),
    (CAT, "swap the cat for grapes", "grapes on a red background", ""),
    (CAT, "it should be a unicorn", "a unicorn on a red background", ""),
    (CAT, "no cat, a dog", "a dog on a red background", ""),
    ("a palm tree, flat style", "make it a hat", "a hat, flat style", ""),
    ("a lake at sunrise", "sunset, not sunrise", "a lake at sunset", "sunrise"),
    ("a bridge in autumn", "can it be winter?", "a bridge in winter", ""),
    (CAT, "roses instead of tulips", "a cat with roses on a red background", "tulips"),
    # more and less
    (CAT, "more red", "a cat on a (red:1.2) background", ""),
    (CAT, "a bit less red", "a cat on a (red:0.9) background", ""),
    (CAT, "much more red", "a cat on a (red:1.4) background", ""),
    ("a (cat:1.2)", "less cat", "a cat", ""),
    ("a room, candles", "too many candles", "a room, (candles:0.8)", ""),
    ("a room, candles", "tone down the candles", "a room, (candles:0.8)", ""),
    ("a room, candles", "it's way too bright", "a room, candles", "bright"),
    ("a room, dark", "brighter", "a room, bright", ""),
    ("a sky, boats", "make the sky darker", "a dark sky, boats", ""),
    (CAT, "not so dark", CAT, "dark"),
    (CAT, "less park more city", "a cat on a red background, city", "park"),
    # style
    (FOX, "in 3d style", "a small fox on the left, 3d style, on a green background", ""),
    ("a 3d cat on a blue background", "can we have this in a flat style?", "a flat cat on a blue background", ""),
    (MAN, "as a pencil sketch", "a man with a red hat walking in a park, pencil sketch", ""),
    (MAN, "black and white photo please", "a man with a red hat walking in a park, black and white photo", ""),
    (CAT, "in the style of Van Gogh", "a cat on a red background, in the style of Van Gogh", ""),
    (CAT, "make it look like a comic", "a cat on a red background, comic style", ""),
    (CAT, "make it look retro", "a cat on a red background, retro style", ""),
    (CAT, "I want it to look glossy", "a cat on a red background, glossy style", ""),
    (CAT, "make the cat look happy", "a happy cat on a red background", ""),
    (CAT, "make it look old", "an old cat on a red background", ""),
    (CAT, "make it look less flat", "a cat on a red background", "flat"),
    (CAT, "make it appear brighter", "a cat on a red background, bright", ""),
    (CAT, "let it look darker", "a cat on a red background, dark", ""),
    (CAT, "let the cat get a hat", "a cat with a hat on a red background", ""),
    (CAT, "have the cat look out of the window", "a cat looking out of the window on a red background", ""),
    (CAT, "have the cat look like a pirate", "a cat looking like a pirate on a red background", ""),
    (CAT, "let the cat look around", "a cat looking around on a red background", ""),
    (CAT, "the cat should look left", "a cat looking left on a red background", ""),
    (CAT, "let the cat look a bit older", "an old cat on a red background", ""),
    (CAT, "make the cat black as before", "a black cat on a red background", ""),
    (CAT, "make the cat look at the viewer", "a cat looking at the viewer on a red background", ""),
    (CAT, "I want the cat to look up", "a cat looking up on a red background", ""),
    (CAT, "I want the cat to wear a hat", "a cat wearing a hat on a red background", ""),
    # background
    (CAT, "The background should be BLUE", "a cat on a blue background", ""),
    (CAT, "orange background", "a cat on an orange background", ""),
    ("a cat", "put it on a green background", "a cat on a green background", ""),
    ("a cat, flat style", "on a green background", "a cat, flat style, on a green background", ""),
    (CAT, "no background", "a cat", ""),
    ("a farm", "there should be hills in the background", "a farm, hills in the background", ""),
    # count
    (CAT, "two cats", "two cats on a red background", ""),
    (CAT, "make it three", "three cats on a red background", ""),
    ("three birds on a wire", "only one bird", "a bird on a wire", ""),
    (FOX, "another fox", "two small foxes on the left, flat style, on a green background", ""),
    # size
    (FOX, "bigger", "a fox on the left, flat style, on a green background", ""),
    (FOX, "much bigger", "a large fox on the left, flat style, on a green background", ""),
    (FOX, "even smaller", "a (small:1.2) fox on the left, flat style, on a green background", ""),
    (MAN, "the hat is too big", "a man with a small red hat walking in a park, oil painting", ""),
    (MAN, "a bigger, blue hat", "a man with a large blue hat walking in a park, oil painting", ""),
    # position
    (FOX, "move it to the right", "a small fox on the right, flat style, on a green background", ""),
    (FOX, "could you put the fox at the top please", "a small fox at the top, flat style, on a green background", ""),
    (CAT, "on the left", "a cat on the left on a red background", ""),
    # people, and what a photographer says
    (WOMAN, "her hair should be shorter", "portrait of a young woman with short hair, soft light, photo", ""),
    (WOMAN, "a bit older please", "portrait of an old woman with long hair, soft light, photo", ""),
    (WOMAN, "make her happier", "portrait of a happy young woman with long hair, soft light, photo", ""),
    (WOMAN, "change her hair colour to red", "portrait of a young woman with red long hair, soft light, photo", ""),
    (WOMAN, "more dramatic light", "portrait of a young woman with long hair, dramatic soft light, photo", ""),
    (WOMAN, "no photo, an oil painting", "portrait of a young woman with long hair, soft light, oil painting", ""),
    (WOMAN, "side view", "portrait of a young woman with long hair, soft light, side view, photo", ""),
    ("a bowl, top view", "I'd prefer a side view", "a bowl, side view", ""),
    ("two dogs in snow", "with hills behind them", "two dogs in snow, hills in the background", ""),
    # several at once, and what "it" means
    (MAN, "make the hat blue and the park green", "a man with a blue hat walking in a green park, oil painting", ""),
    (CAT, "Add a hat. Make it green.", "a cat with a green hat on a red background", ""),
    ("a boat, mist", "the boat is fine. I don't like the mist, remove it", "a boat", ""),
    (MAN, "I don't like the hat, use a cap", "a man with a red cap walking in a park, oil painting", ""),
    (CAT, "looks great, but the background should be blue", "a cat on a blue background", ""),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "feedback", "after", "negative"), CASES)
def test_feedback_is_carried_out(prompt: str, feedback: str, after: str, negative: str):
    outcome = edit_prompt(prompt, "", feedback)
    assert (outcome.prompt, outcome.negative) == (after, negative)
    assert not outcome.unread and not outcome.refused


def test_every_operation_is_among_the_cases():
    done = {edit.operation for prompt, feedback, *_ in CASES for edit in edit_prompt(prompt, "", feedback).edits}
    assert done | {"keep"} == set(OPERATIONS)


@pytest.mark.parametrize("entry", _feedbacks.entries("seen"), ids=lambda entry: str(entry["id"]))
def test_written_feedbacks_are_carried_out(entry: dict):
    outcome = edit_prompt(entry["prompt"], entry["negative"], entry["feedback"])
    assert _feedbacks.met(entry, outcome.prompt, outcome.negative, said=bool(outcome.unread or outcome.refused))


@pytest.mark.parametrize(
    "form", ["{}", "{}!!", "  {} . ", "Hmm, {} please", "could you {}?", "I think you should, well: {}"]
)
def test_politeness_and_punctuation_do_not_matter(form: str):
    for case in (str.lower, str.upper, str.capitalize):
        outcome = edit_prompt(CAT, "", form.format(case("make the background blue")))
        assert outcome.prompt == "a cat on a blue background"


# ---- what is not understood ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "feedback",
    [
        "She looks sad",
        "make one of them black",
        "I don't know",
        "something is off",
        "der Hintergrund soll blau sein",
        "it's ugly",
        "what is this?",
        "change everything",
        "👎",
        "asdf qwer",
    ],
)
def test_what_is_not_understood_is_said_and_changes_nothing(feedback: str):
    outcome = edit_prompt(CAT, "ugly", feedback)
    assert (outcome.prompt, outcome.negative) == (CAT, "ugly")
    assert outcome.unread and not outcome.edits


def test_the_rest_of_a_sentence_is_carried_out():
    outcome = edit_prompt(CAT, "", "make the background blue, wibble the wobble, and add a hat")
    assert outcome.prompt == "a cat with a hat on a blue background"
    assert outcome.unread == ("wibble the wobble",)


def test_praise_is_understood_and_asks_for_nothing():
    for feedback in ("", "great!", "I love it ❤️", "The cat is perfect. Thanks"):
        outcome = edit_prompt(CAT, "", feedback)
        assert outcome.prompt == CAT and not outcome.edits and not outcome.unread


def test_a_pronoun_that_means_nothing_is_refused_with_the_reason():
    outcome = edit_prompt(CAT, "", "remove it")
    assert outcome.prompt == CAT and "not clear" in outcome.refused[0].reason


def test_the_whole_prompt_cannot_be_removed():
    outcome = edit_prompt("a cat", "", "no cat")
    assert outcome.prompt == "a cat" and "nothing would be left" in outcome.refused[0].reason


@pytest.mark.parametrize("word", ["horse", "house", "rose", "vase", "pose", "cause", "muse"])
@pytest.mark.parametrize("other", ["bus", "dress", "box", "church", "cactus", "lens", "canvas", "walrus", "mantis"])
def test_plurals_are_those_of_their_words(word: str, other: str):
    assert ENGLISH.singular(word + "s") == word == ENGLISH.singular(word)
    assert ENGLISH.singular(other + "es") == other == ENGLISH.singular(other)


@pytest.mark.parametrize("rest", ["the rest stays too dark", "the rest should stay out of focus"])
def test_what_is_said_of_the_rest_is_not_taken_for_keeping_it(rest: str):
    assert not [edit for edit in read_feedback(rest, "a cat").edits if edit.what == ENGLISH.picture_word]


# ---- keep ------------------------------------------------------------------------------------------------------------


def test_what_is_kept_stays_in_this_round_and_the_next_until_it_is_released():
    first = edit_prompt(MAN, "", "make the hat blue, but keep the hat")
    assert first.prompt == MAN and first.kept == ("red hat",)
    assert first.refused[0].edit.what == "blue" and "red hat" in first.refused[0].reason
    second = edit_prompt(first.prompt, "", "remove the hat. add a dog", kept=first.kept)
    assert "red hat" in second.prompt and "dog" in second.prompt and second.refused
    third = edit_prompt(second.prompt, "", "the hat may change. make the hat blue", kept=second.kept)
    assert "blue hat" in third.prompt and not third.kept and not third.refused


@pytest.mark.parametrize(
    "said",
    [
        "keep the hat, everything else may change", "everything but the hat may change",
        "the rest may change, keep the hat", "everything except the hat can vary a bit",
        "everything may change but the hat", "you may change all but the hat", "everything may change, but not the hat",
        "Please everything apart from the hat may change", "the park may change. keep the hat. the rest may change",
    ],
)  # fmt: skip
def test_one_thing_is_kept_and_all_else_may_change(said: str):
    outcome = edit_prompt(MAN, "", said, kept=("park",))
    assert outcome.prompt == MAN and outcome.kept == ("red hat",) and not outcome.refused and not outcome.unread
    outcome = edit_prompt(MAN, "", f"{said}. make it large", kept=("park",))
    assert "else" not in outcome.prompt and "rest" not in outcome.prompt


@pytest.mark.parametrize(
    "said",
    [
        "keep everything, but the hat may change", "keep everything else but the hat may change",
        "I love everything, but the hat may change", "don't change anything, but the hat may change",
        "everything but the park is perfect, the hat may change", "it is all but done, the hat may change",
        "the hat may change if you like",
    ],
)  # fmt: skip
def test_one_thing_may_change_and_all_else_is_kept(said: str):
    outcome = edit_prompt(MAN, "", said, kept=("red hat", "park"))
    assert outcome.prompt == MAN and outcome.kept == ("park",) and not outcome.refused


@pytest.mark.parametrize(
    "said",
    [
        "all but one man may change colour",
        "everything but the hat may change to blue",
        "the hat may change into a crown",
    ],
)
def test_what_says_more_than_that_something_may_change_is_not_half_read(said: str):
    outcome = edit_prompt(MAN, "", said, kept=("red hat",))
    assert outcome.prompt == MAN and "red hat" in outcome.kept


@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ("everything may change, but make the hat blue", "a man with a blue hat walking in a park, oil painting"),
        ("everything may change but with a dog", "a man with a red hat and a dog walking in a park, oil painting"),
        ("you can change everything but keep the hat", MAN),
        ("add a lamp that can change to red", MAN.replace("park,", "park, a lamp that can change to red,")),
    ],
)  # fmt: skip
def test_what_is_asked_for_beside_it_is_done(said: str, prompt: str):
    outcome = edit_prompt(MAN, "", said)
    assert outcome.prompt == prompt and not outcome.unread


@pytest.mark.parametrize("said", ["all but {}", "everything except {} is nice", "everything may change but the {}"])
def test_a_long_word_takes_no_time(said: str):
    for word in ("a" * 300, "img_20261127_214900_castle_on_a_hill_final_v2_" * 6, "the-hat-" * 40):
        began = time.perf_counter()
        edit_prompt(MAN, "", said.format(word))
        assert time.perf_counter() - began < 2


def test_all_else_is_not_what_it_means():
    assert edit_prompt("a cat", "", "everything else may change, make it blue").prompt == "a blue cat"
    assert edit_prompt("a cat", "", "the rest can change, replace it with a dog").prompt == "a dog"
    assert edit_prompt("a cat with a hat", "", "the rest must not change").edits[0].what == ENGLISH.picture_word


@pytest.mark.parametrize(
    ("keep", "edit"),
    [
        ("keep the colours", "make the hat blue"),
        ("keep the style", "as a photo"),
        ("don't touch the park", "less park"),
        ("leave the man as he is", "replace the man with a woman"),
        ("the hat should stay", "no hat"),
    ],
)
def test_kept_things_are_protected_from_every_operation(keep: str, edit: str):
    if keep == "leave the man as he is":
        keep = "leave the man as it is"
    outcome = edit_prompt(MAN, "", f"{keep}. {edit}")
    assert outcome.prompt == MAN and outcome.refused, outcome


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("keep the look", "look"), ("keep the feel", "feel"), ("keep everything", "picture"), ("keep it", ""),
        ("make it blue, keep everything else", "picture"), ("preserve the overall look", "overall look"),
        ("I like the background, keep it", "background"), ("leave it as it is", ""),
    ],
)  # fmt: skip
def test_what_no_word_of_the_prompt_names_can_be_kept(said: str, what: str):
    outcome = edit_prompt("a cat", "", said)
    kept = [edit.what for edit in outcome.edits if edit.operation == "keep"]
    assert kept == [what] and not outcome.unread and not outcome.refused
    assert outcome.kept == (() if what in ("", "picture") else (what,)), "what is no word protects none"


def test_the_kept_background_stays():
    outcome = edit_prompt(CAT, "", "keep the background. a blue background. and no cat")
    assert outcome.prompt == "a red background" and len(outcome.refused) == 1


# ---- emphasis and the negative prompt --------------------------------------------------------------------------------


def test_emphasis_moves_by_a_step_and_stops_at_its_bounds():
    for words, bound, steps in (("more red", STRONGEST, 1), ("less red", WEAKEST, -1)):
        prompt = CAT
        for count in range(1, 4):
            prompt = edit_prompt(prompt, "", words).prompt
            expected = 1 + steps * STEP * count
            assert f"(red:{expected:.2g})" in prompt
        outcome = edit_prompt(prompt, "", words)
        assert outcome.prompt == prompt and str(bound) in outcome.refused[0].reason


def test_more_and_less_undo_each_other():
    assert edit_prompt(edit_prompt(CAT, "", "more red").prompt, "", "less red").prompt == CAT


def test_what_is_less_wanted_again_is_emphasised_in_the_negative_prompt():
    first = edit_prompt(CAT, "blurry", "less text")
    assert first.negative == "blurry, text"
    assert edit_prompt(CAT, first.negative, "less text").negative == "blurry, (text:1.2)"


def test_what_is_added_leaves_the_negative_prompt():
    outcome = edit_prompt(CAT, "hat, blurry", "add a hat")
    assert outcome.negative == "blurry" and "hat" in outcome.prompt


def test_nothing_outside_of_the_edit_changes():
    prompt = "masterpiece,  a cat <lora:x:0.7>, ((sharp)), {a|b},\n on a red background ."
    outcome = edit_prompt(prompt, " ugly ,  (bad)", "make the background blue")
    assert outcome.prompt.replace("(sharp:1.21)", "((sharp))") == prompt.replace("red", "blue")
    assert outcome.negative == " ugly ,  (bad)"


# ---- robustness ------------------------------------------------------------------------------------------------------


def test_no_text_breaks_it_and_none_takes_long():
    rng = random.Random(1)
    words = [
        "make",
        "the",
        "cat",
        "hat",
        "(red:1.2)",
        "and",
        ",",
        ".",
        "not",
        "no",
        "less",
        "more",
        "two",
        "on",
        "left",
    ]
    words += [
        "background",
        "style",
        "of",
        "it",
        "(",
        ")",
        ":",
        "1.2)",
        "🎩",
        "猫",
        "\n",
        "with",
        "keep",
        "instead",
        "too",
    ]
    for _ in range(300):
        prompt = " ".join(rng.choices(words, k=rng.randrange(12)))
        feedback = " ".join(rng.choices(words, k=rng.randrange(12)))
        began = time.monotonic()
        outcome = edit_prompt(prompt, "", feedback)
        assert time.monotonic() - began < 5
        if not outcome.edits:
            assert outcome.prompt == prompt


@pytest.mark.parametrize("feedback", ["a" * 100_000, "make " * 20_000, "no hat, " * 10_000, "more more " * 9_000])
def test_a_huge_comment_is_returned_unread_beyond_its_bound(feedback: str):
    began = time.monotonic()
    outcome = edit_prompt(CAT, "", feedback)
    assert time.monotonic() - began < 20
    assert sum(map(len, outcome.unread)) > 50_000


def test_the_same_feedback_gives_the_same_edits():
    assert [edit_prompt(*case[:1], "", case[1]) for case in CASES] == [
        edit_prompt(*case[:1], "", case[1]) for case in CASES
    ]


def test_an_unknown_operation_is_refused():
    with pytest.raises(RefinementError, match="no edit 'paint'"):
        Edit("paint")  # type: ignore[arg-type]


# ---- languages -------------------------------------------------------------------------------------------------------

GERMAN = replace(
    ENGLISH,
    name="German",
    polite_before=(r"bitte", r"und"),
    polite_after=(r"bitte",),
    wishes_before=(),
    wishes_after=(),
    clause_breaks=r"\bund\b",
    rules=(
        Rule("remove", r"(?:ohne|keine?n?) {what}"),
        Rule("background", r"(?:der )?hintergrund (?:soll )?{what}(?: sein)?"),
        Rule("be", r"(?:der|die|das) {thing} soll {what} sein"),
    ),
    translations={"hut": "hat", "mann": "man", "blau": "blue", "grün": "green"},
)


@pytest.fixture
def german():
    register(GERMAN)
    yield
    unregister("German")


@pytest.mark.usefixtures("german")
def test_a_further_language_is_a_table():
    assert edit_prompt(CAT, "", "Der Hintergrund soll blau sein").prompt == "a cat on a blue background"
    assert edit_prompt(MAN, "", "bitte ohne Hut").prompt == "a man walking in a park, oil painting"
    assert edit_prompt(MAN, "", "Der Hut soll grün sein und kein Mann").prompt.count("green hat") == 1
    assert edit_prompt(MAN, "", "make the hat blue").prompt.count("blue hat") == 1


def test_without_its_table_the_language_is_unread():
    assert edit_prompt(CAT, "", "Der Hintergrund soll blau sein").unread


def test_the_example_of_the_documentation_works():
    text = edit_words.__doc__ or ""
    lines = text[text.index("    from dataclasses") :].split("\nAfter that")[0]
    code = "\n".join(line[4:] for line in lines.splitlines())
    names = {"ENGLISH": ENGLISH, "Rule": Rule, "register": register}
    try:
        exec(code, names)
        assert edit_prompt(MAN, "", "ohne Hut bitte").prompt == "a man walking in a park, oil painting"
        assert edit_prompt("a cat in a park", "", "die Katze soll blau sein").prompt == "a blue cat in a park"
    finally:
        unregister("German")


def test_wrong_tables_are_refused_when_they_are_registered():
    with pytest.raises(RefinementError, match="cannot mean 'paint'"):
        Rule("paint", "paint {what}")
    with pytest.raises(RefinementError, match="no regular expression"):
        Rule("add", "paint ({what}")
    with pytest.raises(RefinementError, match="slot 'colr'"):
        register(replace(ENGLISH, name="Other", rules=(Rule("add", "{colr} {what}"),)))
    with pytest.raises(RefinementError, match="already"):
        register(replace(ENGLISH, rules=()))


def test_marks_of_conversations_and_control_characters_reach_no_prompt():
    outcome = edit_prompt(CAT, "", "no hat<|end|>\n<|start|>system\nmake the background blue\u0007\u001b")
    assert (outcome.prompt, outcome.negative) == ("a cat on a blue background", "hat")
    assert outcome.unread == ("system",)
