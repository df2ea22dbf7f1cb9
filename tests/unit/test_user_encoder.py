"""From a profile to an embedding: which choices, in which state, through which features; and the wire's own rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from attune.nodes.preferences.decisions import comparisons_of
from attune.nodes.preferences.embedding import (
    MOST_CHOICES,
    Preference,
    PreferenceEmbedding,
    blended,
    check_reads,
    pack,
    unpack,
)
from attune.nodes.preferences.ordering import different_first, of_newest_questions, questions_of, thinned
from attune.nodes.preferences.pictures import PictureFolder, picture_of, to_image
from attune.nodes.preferences.profile_file import SharedProfile, read_shared
from attune.nodes.preferences.records import LONGEST_PROMPT, Answer, PreferenceError, Profile, Question
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.preferences.user_encoder import GROUP, embed, embed_profile, report
from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.statistics import StatisticReward
from attune.nodes.store import Store
from attune.training.adapters.user_attention import UserAdapterConfig, UserAdapterMetadata
from attune.training.interfaces import RewardError, TrainingError
from attune.training.preference.set_encoder import SetEncoder, SetEncoderConfig

DEMO = Path(__file__).resolve().parents[2] / "workflows" / "demo"


@pytest.fixture(scope="module")
def eyes():
    return load_reward(DEMO / "attune_demo_reward.safetensors", "cpu")


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(Store(tmp_path / "attune.sqlite3"), PictureFolder(tmp_path / "pictures"))


@pytest.fixture(scope="module")
def encoder(eyes) -> SetEncoder:
    torch.manual_seed(3)
    made = SetEncoder(SetEncoderConfig(tokens=2, width=8, hidden=32), eyes.features_id)
    return made.eval().requires_grad_(False)


def choose(store: PreferenceStore, profile: Profile, count: int, *, red: bool = True, verdict: str = "") -> Profile:
    """Of red and blue pictures, new ones every time."""
    for number in range(count):
        seed = 1000 * store.profile(profile.key).revision + number
        noise = np.random.default_rng(seed).integers(0, 60, (2, 32, 32, 3), dtype=np.uint8)
        two = noise + np.array([[[[180, 10, 10]]], [[[10, 10, 180]]]], dtype=np.uint8)
        pictures = [picture_of(part) for part in two]
        question = Question("pair", "a ball", tuple(pictures))
        store.ask(profile.key, [question], {one.hash: part for one, part in zip(pictures, two, strict=True)})
        answer = Answer(verdict) if verdict else Answer("chosen", pictures[0 if red else 1].hash)
        store.decide(profile.key, question.key, answer)
    return store.profile(profile.key)


def made(store, profile, encoder, eyes, *, most: int = 32):
    return embed_profile(
        store, profile, encoder, eyes, most=most, least_stars=1, progress=lambda done, total: None
    )  # fmt: skip


def test_opposite_choices_make_opposite_people(store, encoder, eyes):
    red, blue = (choose(store, store.create(name), 4, red=name == "red") for name in ("red", "blue"))
    tokens = [made(store, profile, encoder, eyes).embedding for profile in (red, blue)]
    assert tokens[0].choices == 4 and tokens[0].encoder_id == encoder.encoder_id
    assert float((tokens[0].tokens - tokens[1].tokens).abs().max()) > 1e-3
    again = made(store, red, encoder, eyes).embedding
    assert again.identity == tokens[0].identity and again.title == "red"


def test_the_embedding_is_the_encoder_on_these_choices(store, encoder, eyes):
    profile = choose(store, store.create("a"), 3)
    found = made(store, profile, encoder, eyes)
    rows = []
    for asked in store.answered(profile.key, most=9):
        chosen = asked.decision.answer.chosen
        (rejected,) = set(asked.question.hashes) - {chosen}
        images = [to_image(store.pictures.get(name))[None] for name in (chosen, rejected)]
        text = eyes.text_features([asked.question.prompt])[0]
        rows.append(torch.stack([text, *(eyes.image_features(image)[0] for image in images)]))
    with torch.no_grad():
        expected = encoder(torch.stack(rows)[None])[0]
    torch.testing.assert_close(found.embedding.tokens, expected, rtol=1e-4, atol=1e-5)


def test_many_choices_are_read_in_groups_and_the_newest_count(store, encoder, eyes):
    triples = torch.randn(GROUP + 4, 3, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        parts = [encoder(part[None])[0] for part in (triples[:GROUP], triples[GROUP:])]
    torch.testing.assert_close(embed(encoder, triples), (2 * parts[0] + parts[1]) / 3, rtol=1e-5, atol=1e-6)
    profile = choose(store, store.create("a"), 4, red=True)
    old = made(store, profile, encoder, eyes).embedding
    profile = choose(store, profile, 4, red=False)
    newest, both = (made(store, profile, encoder, eyes, most=most) for most in (4, 8))
    assert newest.used == 4 and both.used == 8
    other = choose(store, store.create("b"), 4, red=False)
    blue = made(store, other, encoder, eyes).embedding.tokens
    assert (newest.embedding.tokens - blue).norm() < (newest.embedding.tokens - old.tokens).norm()


def give_stars(store: PreferenceStore, profile: Profile, count: int, *, most_stars: int = 5) -> Profile:
    """One question of so many pictures, from blue (one star) to red (the most)."""
    noise = np.random.default_rng(count).integers(0, 60, (count, 32, 32, 3), dtype=np.uint8)
    lean = np.linspace(0, 190, count)[:, None, None, None].astype(np.uint8)
    images = noise + np.concatenate([lean, np.zeros_like(lean), 190 - lean], axis=-1)
    pictures = [picture_of(image) for image in images]
    question = Question("stars", "a ball", tuple(pictures))
    store.ask(profile.key, [question], {one.hash: image for one, image in zip(pictures, images, strict=True)})
    stars = {one.hash: 1 + number * most_stars // count for number, one in enumerate(pictures)}
    store.decide(profile.key, question.key, Answer("stars", stars=stars))
    return store.profile(profile.key)


def test_a_question_of_many_pictures_is_one_choice_and_shuts_out_no_other(store, encoder, eyes):
    """Nine pictures with stars hold 32 comparisons that differ: eight are read, beside those of the older pairs."""
    profile = choose(store, store.create("a"), 4, red=False)
    pairs = made(store, profile, encoder, eyes).embedding
    profile = give_stars(store, profile, 9)
    starred = comparisons_of(store.answered(profile.key, most=1)).preferences
    assert len(starred) == 32
    few = thinned(starred)
    assert len(few) == 8 and len({one.hash for two in few for one in (two.preferred, two.other)}) == 9
    found = made(store, profile, encoder, eyes)
    assert (found.used, found.embedding.choices) == (5, 5) and "from 5 choices" in report(found)
    alone = made(store, give_stars(store, store.create("b"), 9), encoder, eyes)
    assert (alone.used, report(alone)) == (1, "The taste of b, from 1 choice. A few more choices say more.")
    away, of_pairs = ((found.embedding.tokens - other.tokens).norm() for other in (alone.embedding, pairs))
    assert away > 0.1 * of_pairs > 0, "the older choices are heard"
    assert made(store, profile, encoder, eyes, most=1).embedding.identity == alone.embedding.identity


def test_different_questions_are_read_first(store):
    profile = give_stars(store, choose(store, store.create("a"), 3), 5)
    found = comparisons_of(store.answered(profile.key, most=9)).preferences
    order = different_first(thinned(found))
    assert len(order) == 3 + 4 and len(questions_of(order[:4])) == 4 and len(questions_of(order[4:])) == 1
    assert len(questions_of(of_newest_questions(found, 2))) == 2
    assert of_newest_questions(found, 1) == found[: len(found) - 3], "the newest question, whole"


def test_nobody_without_choices(store, encoder, eyes):
    profile = choose(store, store.create("a"), 2, verdict="tie")
    profile = choose(store, profile, 1, verdict="skip")
    found = made(store, profile, encoder, eyes)
    assert found.embedding.empty and found.used == 0 and "nothing is changed" in report(found)
    profile = choose(store, profile, 1)
    assert made(store, profile, encoder, eyes).used == 1
    assert store.embedding(profile.key, encoder.encoder_id).revision == profile.revision, "kept, of this state"
    store.undo(profile.key)
    assert made(store, profile, encoder, eyes).embedding.empty, "what was taken back says nothing any more"


def test_an_imported_taste_acts_whenever_no_choice_counts(store, encoder, eyes):
    given = PreferenceEmbedding(torch.ones(2, 8), encoder.encoder_id, choices=5)
    profile = store.adopt("a", [given])

    def is_the_import() -> bool:
        found = made(store, profile, encoder, eyes)
        return found.embedding.identity == given.identity and "imported (made of 5 choices)" in report(found)

    assert is_the_import()
    choose(store, profile, 1, verdict="skip")
    choose(store, profile, 1, verdict="tie")
    assert is_the_import()
    choose(store, profile, 1)
    found = made(store, profile, encoder, eyes)
    assert found.used == 1 and found.embedding.identity != given.identity
    question = store.answered(profile.key, most=1)[0].question
    store.pictures.remove([question.hashes[0]])
    assert is_the_import(), "a choice whose picture is gone does not count"
    store.undo(profile.key)
    assert is_the_import()


def test_what_choices_said_is_never_called_imported(store, encoder, eyes):
    """Of stars close together and of pictures that are gone nothing counts, though the profile's state is the same."""
    profile = give_stars(store, store.create("a"), 3, most_stars=3)
    assert not made(store, profile, encoder, eyes).embedding.empty

    def is_nobody(least_stars: int) -> bool:
        found = embed_profile(
            store, profile, encoder, eyes, most=9, least_stars=least_stars, progress=lambda done, total: None
        )  # fmt: skip
        return found.embedding.empty and "imported" not in report(found)

    assert is_nobody(4)
    store.pictures.remove(store.answered(profile.key, most=1)[0].question.hashes)
    assert is_nobody(1)


def test_pictures_that_are_gone_are_told(store, encoder, eyes):
    profile = choose(store, store.create("a"), 3)
    newest = store.answered(profile.key, most=1)[0]
    store.pictures.remove([newest.question.hashes[0]])
    found = made(store, profile, encoder, eyes)
    assert (found.used, found.gone) == (2, 1) and "1 choice left out" in report(found)


def test_features_must_be_the_encoders(store, encoder, eyes):
    profile = choose(store, store.create("a"), 1)
    other = SetEncoder(SetEncoderConfig(tokens=2, width=8, hidden=32), "clip:another").eval()
    with pytest.raises(TrainingError, match="features of another file"):
        made(store, profile, other, eyes)
    with pytest.raises(RewardError, match="no features of pictures"):
        made(store, profile, encoder, StatisticReward("brightness", "as high as possible"))


# ---- the wire ----


def test_an_embedding_survives_its_bytes_without_its_title():
    made = PreferenceEmbedding(torch.randn(2, 8), "set-encoder:1", choices=4, text="likes red\nand round", title="me")
    again = unpack(pack(made), title="you")
    assert again.identity == made.identity and (again.choices, again.text, again.title) == (4, made.text, "you")
    assert b"me" not in pack(PreferenceEmbedding(torch.zeros(1, 2), "x", title="me"))[-40:]
    for content in (b"", b"\x00" * 7, pack(made)[:-1], pack(made)[:40], b"\xff" * 64, pack(made) + b"x"):
        with pytest.raises(PreferenceError):
            unpack(content)


@pytest.mark.parametrize("tokens", [torch.zeros(2), torch.zeros(0, 4), torch.tensor([[float("nan")]])])
def test_what_is_no_embedding_is_refused(tokens):
    with pytest.raises(PreferenceError):
        PreferenceEmbedding(tokens, "x")


def test_only_tastes_of_one_encoder_blend():
    one, other = PreferenceEmbedding(torch.ones(1, 2), "a"), PreferenceEmbedding(torch.ones(1, 2), "b")
    with pytest.raises(PreferenceError, match="one encoder"):
        Preference(((one, 0.5), (other, 0.5)))
    with pytest.raises(PreferenceError):
        Preference(())
    nobody = PreferenceEmbedding(torch.zeros(1, 2), "a")
    assert Preference(((one, 0.0), (nobody, 1.0))).acting == ()


def taste(text: str = "", choices: int = 1, encoder: str = "a") -> Preference:
    return Preference.of(PreferenceEmbedding(torch.full((1, 2), float(min(choices, 8))), encoder, choices, text))


def test_a_blend_speaks_only_for_those_that_it_leans_to():
    tastes = [(taste("warm", 1), 0.5), (taste("loud", 2), 0.0), (taste("dark", 4), -1.0), (taste("soft", 8), 2.0)]
    ((mixed, weight),) = blended(tastes, in_between=True).parts
    assert (mixed.text, mixed.choices, weight) == ("warm\n\nsoft", 9, 1.0)
    assert torch.equal(mixed.tokens, torch.full((1, 2), 0.5 - 4 + 16))
    twice_away = blended([(blended([(taste("dark"), -1.0)], in_between=False), -1.0)], in_between=True)
    assert twice_away.parts[0][0].text == "dark"
    assert len(blended(tastes, in_between=False).parts) == 4


def test_a_blend_of_long_texts_can_be_read_again():
    tastes = [(taste(letter * 15_000, MOST_CHOICES), 0.5) for letter in "ab"]
    ((mixed, _),) = blended(tastes, in_between=True).parts
    assert len(mixed.text) == LONGEST_PROMPT and mixed.text.startswith("a") and mixed.text.endswith("b…")
    again = unpack(pack(mixed))
    assert (again.text, again.choices) == (mixed.text, MOST_CHOICES)
    assert read_shared(save(*SharedProfile((mixed,)).contents())).embeddings[0].text == mixed.text
    with pytest.raises(PreferenceError, match="up to 20000 letters, not 20001"):
        taste("x" * 20_001)


# ---- an adapter's taste ----


@pytest.mark.parametrize(
    ("encoder", "shape", "said"),
    [
        ("set:other", (2, 8), r"another encoder \(set:mine\).*\(set:other\)"),
        ("set:other", (3, 8), r"another encoder \(set:mine\).*\(set:other\)"),
        ("set:mine", (3, 8), r"2 tokens of 8 numbers; this one has 3 of 8"),
        ("set:mine", (2, 9), r"2 tokens of 8 numbers; this one has 2 of 9"),
    ],
)
def test_an_adapter_says_what_it_cannot_read(encoder: str, shape: tuple[int, int], said: str):
    config, metadata = UserAdapterConfig(tokens=2, width=8), UserAdapterMetadata("set:mine")
    check_reads(config, metadata, Preference.of(PreferenceEmbedding(torch.zeros(2, 8), "set:mine")), "light")
    with pytest.raises(TrainingError, match=f"The adapter light .*{said}") as caught:
        check_reads(config, metadata, Preference.of(PreferenceEmbedding(torch.zeros(shape), encoder)), "light")
    assert ("another encoder" in str(caught.value)) == (encoder != "set:mine")
