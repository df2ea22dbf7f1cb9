"""The embedding's update: identity, closed forms, lengths, norms, and that it follows from the words alone."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch

from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.embedding_update import Embedding, EmbeddingConfig, EmbeddingStep, along, unrolled, update

PLAIN = EmbeddingConfig(1.0, 0.0, 0.0)
FREE = {"keep_norm": False}


class Encoder:
    """Random tokens that depend on the text alone; three for every started ten letters. Keeps what it is asked."""

    def __init__(self, *, pooled: bool = True, dtype: torch.dtype = torch.float32) -> None:
        self.asked: list[str] = []
        self.pooled, self.dtype = pooled, dtype

    def __call__(self, text: str) -> Embedding:
        self.asked.append(text)
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
        generator = torch.Generator().manual_seed(seed)
        length = 3 * (1 + max(0, len(text) - 1) // 10)
        tokens = torch.randn(1, length, 5, generator=generator).to(self.dtype)
        return Embedding(tokens, torch.randn(1, 4, generator=generator).to(self.dtype) if self.pooled else None)


E = Encoder()
FOX, CAT, DOG, LONG = E("a fox"), E("a cat"), E("a dog"), E("a fox in the snow")


def row(*values: float) -> Embedding:
    return Embedding(torch.tensor([[values]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_following_wholly_without_directions_is_plain_encoding(dtype):
    """Bit for bit, whatever was before, also where captions are given but have no part."""
    encode = Encoder(dtype=dtype)
    found = update(encode("a cat"), encode("a fox"), [encode("a dog")], [encode("a bear in the snow")], config=PLAIN)
    assert torch.equal(found.tokens, encode("a fox").tokens) and found.tokens.dtype == dtype
    assert torch.equal(found.pooled, encode("a fox").pooled)
    steps = [EmbeddingStep(text, config=PLAIN) for text in ("a cat", "a dog", "a fox")]
    assert torch.equal(unrolled(steps, encode).tokens, encode("a fox").tokens)


@pytest.mark.parametrize("config", [EmbeddingConfig(1.0, 3.0, 2.0), EmbeddingConfig(1.0, 0.7, 0.0, keep_norm=False)])
def test_a_caption_equal_to_the_prompt_changes_nothing(config):
    found = update(CAT, FOX, [FOX, FOX], [FOX], config=config)
    assert torch.equal(found.tokens, FOX.tokens)
    assert torch.equal(found.pooled, FOX.pooled)


def test_the_formula():
    """η = 0.4, β₁ = 0.5 with two liked captions, β₂ = 0.25 with one disliked."""
    config = EmbeddingConfig(0.4, 0.5, 0.25, **FREE)
    bird = E("a bird")
    found = update(CAT, FOX, [DOG, bird], [E("a bear")], config=config)
    for part in ("tokens", "pooled"):
        e, p, a, b, c = (getattr(one, part) for one in (CAT, FOX, DOG, bird, E("a bear")))
        expected = e + 0.4 * (p - e) + 0.5 * ((a - p) + (b - p)) / 2 - 0.25 * (c - p)
        assert torch.allclose(getattr(found, part), expected, atol=1e-6)


def test_from_the_prompt_to_the_caption():
    """With one liked caption β₁ = 0 is the prompt, 1 the caption."""
    assert torch.allclose(update(None, FOX, [CAT], config=EmbeddingConfig(1.0, 1.0)).tokens, CAT.tokens, atol=1e-6)
    half = update(None, FOX, [CAT], config=EmbeddingConfig(1.0, 0.5, **FREE)).tokens
    assert torch.allclose(half, (FOX.tokens + CAT.tokens) / 2, atol=1e-6)


def test_away_is_the_opposite_of_towards():
    there = update(None, FOX, [CAT], config=EmbeddingConfig(1.0, 0.3, 0.0, **FREE)).tokens - FOX.tokens
    back = update(None, FOX, [], [CAT], config=EmbeddingConfig(1.0, 0.0, 0.3, **FREE)).tokens - FOX.tokens
    assert torch.allclose(there, -back, atol=1e-6)


def test_norm_is_kept_within_what_was_mixed():
    """Half of (3, 0) and (0, 3) has the norm 2.12: lengthened to 3. (1, 0) + 2·((3, 0) − (1, 0)) = (5, 0): shortened
    to 3. Half of (1, 0) and (3, 0) is (2, 0): left as it is."""
    half, far = EmbeddingConfig(0.5, 0.0, 0.0), EmbeddingConfig(1.0, 2.0, 0.0)
    assert update(row(0.0, 3.0), row(3.0, 0.0), config=half).tokens.flatten().tolist() == pytest.approx([4.5**0.5] * 2)
    assert update(None, row(1.0, 0.0), [row(3.0, 0.0)], config=far).tokens.flatten().tolist() == pytest.approx([3, 0])
    assert update(row(3.0, 0.0), row(1.0, 0.0), config=half).tokens.flatten().tolist() == [2, 0]
    free = EmbeddingConfig(1.0, 2.0, 0.0, **FREE)
    assert update(None, row(1.0, 0.0), [row(3.0, 0.0)], config=free).tokens.flatten().tolist() == pytest.approx([5, 0])


def test_norms_stay_in_bounds_over_many_rounds():
    encode = Encoder()
    steps = [EmbeddingStep(f"a fox {n}", ("a cat",), ("a dog",), EmbeddingConfig(0.3, 1.5, 1.5)) for n in range(30)]
    norms = unrolled(steps, encode).tokens.norm(dim=-1)
    known = torch.cat([encode(text).tokens for text in {"a cat", "a dog", *(step.prompt for step in steps)}]).norm(
        dim=-1
    )
    assert bool((norms <= known.amax(0) + 1e-5).all() and (norms >= known.amin(0) - 1e-5).all())


def test_what_vanishes_stays_finite():
    """(1, 0) and (−1, 0) mixed by halves have no direction left: zero, not NaN."""
    found = update(row(-1.0, 0.0), row(1.0, 0.0), config=EmbeddingConfig(0.5, 0.0, 0.0))
    assert found.tokens.flatten().tolist() == [0, 0]


def test_shorter_prompts_go_on_as_an_empty_one():
    """3 tokens against 6: places 3 … 5 of the shorter are those of the empty prompt, which has 3."""
    config = EmbeddingConfig(0.5, 0.0, 0.0, **FREE)
    found = update(FOX, LONG, config=config, empty=lambda: E(""))
    padded = torch.cat([FOX.tokens, E("").tokens], 1)
    assert torch.allclose(found.tokens, (padded + LONG.tokens) / 2, atol=1e-6)
    other = update(LONG, FOX, config=config, empty=lambda: E(""))
    assert torch.allclose(other.tokens, found.tokens, atol=1e-6)
    bare = update(FOX, LONG, config=config)
    assert torch.allclose(bare.tokens[:, 3:], LONG.tokens[:, 3:] / 2, atol=1e-6)


def test_an_odd_filler_repeats_itself():
    config, short = EmbeddingConfig(1.0, 1.0, 0.0, **FREE), Embedding(torch.arange(2.0).reshape(1, 2, 1))
    found = update(
        None,
        Embedding(torch.zeros(1, 6, 1)),
        [short],
        config=config,
        empty=lambda: Embedding(torch.tensor([[[10.0], [11.0], [12.0], [13.0]]])),
    )
    assert found.tokens.flatten().tolist() == [0, 1, 12, 13, 10, 11]


def test_what_has_no_part_does_not_lengthen():
    assert update(LONG, FOX, [LONG], [LONG], config=EmbeddingConfig(1.0, 0.0, 0.0)).tokens.shape[1] == 3
    assert update(None, FOX, config=EmbeddingConfig(0.5)).tokens is FOX.tokens


def test_rounds_follow_from_their_words():
    """Unrolled from the words, and step by step, are the same; every text is encoded once."""
    encode = Encoder()
    steps = [
        EmbeddingStep("a fox", config=EmbeddingConfig(0.5)),
        EmbeddingStep("a red fox", ("a fox",), ("a cat",), EmbeddingConfig(0.5, 0.4, 0.2)),
        EmbeddingStep("a red fox in the snow", ("a fox",), (), EmbeddingConfig(0.7, 0.4, 0.2)),
    ]
    current = None
    for step in steps:
        liked, disliked = ([E(text) for text in texts] for texts in (step.liked, step.disliked))
        current = update(current, E(step.prompt), liked, disliked, config=step.config, empty=lambda: E(""))
    found = unrolled(steps, encode)
    assert torch.equal(found.tokens, current.tokens) and torch.equal(found.pooled, current.pooled)
    assert len(encode.asked) == len(set(encode.asked))
    assert torch.equal(unrolled(steps, Encoder()).tokens, found.tokens)


def test_repeated_directions_add_up_to_their_share():
    """η = 0.5, β₁ = 0.25: after many rounds of one prompt and one caption, half of the way."""
    steps = [EmbeddingStep("a fox", ("a cat",), (), EmbeddingConfig(0.5, 0.25, 0.0, **FREE))] * 40
    assert torch.allclose(unrolled(steps, E).tokens, (FOX.tokens + CAT.tokens) / 2, atol=1e-5)


def test_parameters_go_through_json():
    step = EmbeddingStep("a fox", ("рыжая 🦊",), ("a cat",), EmbeddingConfig(0.4, 0.5, 0.1, keep_norm=False))
    assert EmbeddingStep.of("a fox", json.loads(json.dumps(step.parameters()))) == step
    assert EmbeddingStep.of("a fox", {}).config == PLAIN


def test_models_without_a_pooled_vector():
    encode = Encoder(pooled=False)
    assert update(encode("a"), encode("b"), config=EmbeddingConfig(0.5)).pooled is None


def test_inputs_are_left_alone():
    before = FOX.tokens.clone(), CAT.tokens.clone()
    update(CAT, FOX, [DOG], config=EmbeddingConfig(0.5))
    assert torch.equal(FOX.tokens, before[0]) and torch.equal(CAT.tokens, before[1])


def test_bad_input_is_refused():
    half = EmbeddingConfig(0.5)
    for words, run in (
        ("follow must be above 0", lambda: EmbeddingConfig(0.0)),
        ("towards must be", lambda: EmbeddingConfig(1.0, -0.1)),
        ("away must be", lambda: EmbeddingConfig(1.0, 0.0, math.nan)),
        (r"not \[2, 1, 1\]", lambda: Embedding(torch.zeros(2, 1, 1))),
        (r"not \[3\]", lambda: Embedding(torch.zeros(1, 1, 1), torch.zeros(3))),
        ("widths 5 and 2", lambda: update(row(1.0, 2.0), Embedding(FOX.tokens), config=half)),
        ("cannot be mixed", lambda: update(Embedding(CAT.tokens), FOX, config=half)),
        ("not finite", lambda: update(row(math.inf), row(1.0), config=half)),
        ("at least one round", lambda: unrolled([], E)),
        ("no parameters", lambda: EmbeddingStep.of("a", {"speed": 1})),
        ("up to 64", lambda: EmbeddingStep("a", ("b",) * 65)),
    ):
        with pytest.raises(RefinementError, match=words):
            run()


DELTA = torch.arange(15.0).reshape(3, 5) / 10
NAME = "a" * 64


def test_the_direction_of_pictures_is_added_to_the_tokens():
    found = along(FOX, DELTA, 0.5)
    torch.testing.assert_close(found.tokens, FOX.tokens + 0.5 * DELTA)
    assert torch.equal(found.pooled, FOX.pooled)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_direction_is_added_exactly_and_leaves_the_encoders_type(dtype):
    fox = Encoder(dtype=dtype)("a fox")
    found = along(fox, DELTA, 1.0)
    assert torch.equal(found.tokens, (fox.tokens.float() + DELTA).to(dtype))


def test_prompts_of_other_lengths_keep_the_places_that_the_direction_does_not_know():
    longer = along(LONG, DELTA, 1.0)
    torch.testing.assert_close(longer.tokens[:, :3], LONG.tokens[:, :3] + DELTA)
    assert torch.equal(longer.tokens[:, 3:], LONG.tokens[:, 3:])
    shorter = along(FOX, torch.cat([DELTA, DELTA]), 1.0)
    torch.testing.assert_close(shorter.tokens, FOX.tokens + DELTA)


def test_nothing_of_a_direction_goes_on_with_the_words():
    """However small the part of the new words is, so that an old direction neither adds up nor outlives its round."""
    config = EmbeddingConfig(0.2, 0.0, 0.0, keep_norm=False)
    texts = ("a cat", "a dog", "a fox")
    plain, led = ([EmbeddingStep(text, config=config, direction=name) for text in texts] for name in ("", NAME))
    assert torch.equal(unrolled(plain, Encoder()).tokens, unrolled(led, Encoder()).tokens)


def test_a_direction_comes_back_from_its_record_and_old_records_have_none():
    step = EmbeddingStep("a fox", ("a dog",), config=EmbeddingConfig(pictures=2.0), direction=NAME)
    assert EmbeddingStep.of("a fox", json.loads(json.dumps(step.parameters()))) == step
    old = {"follow": 1.0, "towards": 0.3, "away": 0.15, "keep_norm": True, "liked": [], "disliked": []}
    assert EmbeddingStep.of("a fox", old).direction == ""
    assert not {"direction", "anew"} & set(EmbeddingStep("a fox").parameters())
    anew = EmbeddingStep("a fox", anew=True)
    assert EmbeddingStep.of("a fox", json.loads(json.dumps(anew.parameters()))) == anew


def test_a_direction_of_another_text_encoder_is_refused():
    with pytest.raises(RefinementError, match="another model"):
        along(FOX, torch.zeros(3, 7), 1.0)
    with pytest.raises(RefinementError, match="64 hex digits"):
        EmbeddingStep("a fox", direction="../x")
