"""A taste out of choices: the mathematics against closed forms and numbers, and the reward made of a profile."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.nodes import feature_store
from attune.nodes.preferences import personal_reward
from attune.nodes.preferences.asking import INFORMATIVE, ordered, questions_about, show
from attune.nodes.preferences.decisions import comparisons_of
from attune.nodes.preferences.pairs import TooFew
from attune.nodes.preferences.personal_reward import PreferenceReward, evidence_of, learn, report, without_opinion
from attune.nodes.preferences.pictures import PictureFolder, picture_of
from attune.nodes.preferences.records import Answer, PreferenceError, Profile, Question
from attune.nodes.preferences.store import PreferenceStore
from attune.nodes.preferences.taste import (
    Evidence,
    best_scale,
    clusters_of,
    fit,
    information,
    loss,
    moderated,
    most_informative_first,
    posterior,
)
from attune.nodes.preferences.taste_check import TasteCheck, check, wilson, words_of
from attune.nodes.store import Store
from attune.training.interfaces import RewardError

DOUBLE = torch.float64


def person(
    count: int, width: int, *, strength: float, seed: int = 0, ties: float = 0.0
) -> tuple[Evidence, torch.Tensor]:
    """Choices of somebody with a hidden direction, between pictures with random unit features."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(width, generator=generator, dtype=DOUBLE), dim=0)
    features = torch.randn(2 * count, width, generator=generator, dtype=DOUBLE)
    features = torch.nn.functional.normalize(features, dim=1)
    rows = features[:count] - features[count:]
    chance = torch.sigmoid(strength * math.sqrt(width) * rows @ direction)
    rows = torch.where((torch.rand(count, generator=generator, dtype=DOUBLE) < chance)[:, None], rows, -rows)
    tied = torch.rand(count, generator=generator) < ties
    return Evidence(rows, torch.where(tied, 0.5, 1.0).double(), torch.ones(count, dtype=DOUBLE)), direction


# ---- the posterior ----


def test_a_known_direction_is_found_and_the_more_choices_the_better():
    angles = []
    for count in (20, 200, 1000):
        evidence, direction = person(count, 12, strength=2.0)
        found = fit(evidence).direction
        angles.append(float(found @ direction / found.norm()))
    assert angles == sorted(angles) and angles[0] > 0.3 and angles[-1] > 0.97


def test_mode_and_precision_are_those_of_the_loss():
    """Gradient 0 at the mode; the precision is the numeric Hessian; the covariance its inverse, also with ties."""
    evidence, _ = person(30, 5, strength=1.0, ties=0.3)
    evidence = Evidence(evidence.differences, evidence.outcomes, torch.rand(30, dtype=DOUBLE) + 0.2)
    mode, precision = posterior(evidence, 2.0)
    slope = torch.func.grad(lambda w: loss(evidence, 2.0, w))(mode)
    assert slope.abs().max() < 1e-6
    numeric = torch.func.hessian(lambda w: loss(evidence, 2.0, w))(mode)
    assert torch.allclose(precision, numeric, atol=1e-8)
    taste = fit(evidence, scale=2.0)
    other = torch.randn(4, 5, dtype=DOUBLE)
    assert torch.allclose(taste.joint(other), other @ numeric.inverse() @ other.T, atol=1e-8)
    assert torch.allclose(taste.variances(other), taste.joint(other).diagonal())


def test_outside_of_what_was_compared_the_prior_stands():
    """Three choices in forty dimensions: the same posterior as in all forty, without ever making a 40 × 40 matrix."""
    evidence, _ = person(3, 40, strength=1.0)
    taste = fit(evidence, scale=1.5)
    mode, precision = posterior(evidence, 1.5)
    other = torch.randn(6, 40, dtype=DOUBLE)
    assert taste.covariance.shape == (3, 3)
    assert torch.allclose(taste.direction, mode, atol=1e-7)
    assert torch.allclose(taste.joint(other), other @ precision.inverse() @ other.T, atol=1e-7)


def test_the_variance_is_that_of_the_true_posterior():
    """One dimension, integrated by numbers: Laplace's mean and variance are close where choices are many."""
    rows = torch.linspace(0.5, 1.5, 60, dtype=DOUBLE)[:, None] * torch.tensor([[1.0], [-1.0], [1.0]]).repeat(20, 1)
    evidence = Evidence(rows, torch.ones(60, dtype=DOUBLE), torch.ones(60, dtype=DOUBLE))
    taste = fit(evidence, scale=1.0)
    grid = torch.linspace(-3, 5, 4001, dtype=DOUBLE)
    weights = torch.softmax(torch.stack([-loss(evidence, 1.0, w[None]) for w in grid]), 0)
    mean = (weights * grid).sum()
    variance = (weights * (grid - mean).square()).sum()
    assert float(taste.direction[0]) == pytest.approx(float(mean), abs=0.03)
    assert float(taste.variances(torch.ones(1, 1, dtype=DOUBLE))) == pytest.approx(float(variance), rel=0.05)


def test_ties_pull_to_no_preference_and_two_halves_make_a_whole():
    evidence, _ = person(40, 6, strength=2.0)
    tied = Evidence(evidence.differences, torch.full((40,), 0.5, dtype=DOUBLE), evidence.weights)
    assert fit(tied).direction.abs().max() < 1e-9
    twice = Evidence(evidence.differences.repeat(2, 1), evidence.outcomes.repeat(2), evidence.weights.repeat(2) / 2)
    assert torch.allclose(fit(twice, scale=1.0).direction, fit(evidence, scale=1.0).direction, atol=1e-6)


def test_the_prior_is_stronger_for_somebody_who_chooses_at_random():
    clear, random = (best_scale(person(300, 8, strength=strength)[0]) for strength in (6.0, 0.0))
    assert clear > 4 * random


def test_chances_are_calibrated():
    """Of choices foretold with a chance p a part of about p comes true: over many persons, bin by bin, within noise."""
    foretold, real = [], []
    for seed in range(40):
        evidence, _ = person(160, 10, strength=1.0, seed=seed)
        seen = torch.arange(160) < 30
        taste = fit(evidence.part(seen))
        # The preferred one comes first: turn every second pair round.
        sign = torch.where(torch.arange(130) % 2 == 0, 1.0, -1.0).double()
        foretold.append(taste.probabilities(evidence.differences[~seen] * sign[:, None]))
        real.append(sign > 0)
    chance, came = torch.cat(foretold), torch.cat(real).double()
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (chance >= low) & (chance < low + 0.2)
        assert inside.sum() > 100
        assert float(came[inside].mean()) == pytest.approx(float(chance[inside].mean()), abs=0.06)


def test_moderated_chances_are_the_means_they_stand_for():
    points = torch.randn(200_000, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    for margin, variance in ((0.5, 0.3), (2.0, 4.0), (-1.0, 9.0)):
        mean = torch.sigmoid(margin + math.sqrt(variance) * points).mean()
        found = moderated(torch.tensor(margin), torch.tensor(variance))
        assert float(found) == pytest.approx(float(mean), abs=0.02)


def test_pictures_with_equal_features_are_refused():
    nothing = Evidence(torch.zeros(5, 3, dtype=DOUBLE), torch.ones(5, dtype=DOUBLE), torch.ones(5, dtype=DOUBLE))
    with pytest.raises(PreferenceError, match="sees no difference"):
        fit(nothing)


# ---- held-out figures ----


def test_held_out_accuracy_is_that_on_new_choices():
    """Ten-fold figures against 4000 fresh choices of the same person."""
    everything, _ = person(4400, 8, strength=1.5)
    own = everything.part(torch.arange(4400) < 400)
    taste = fit(own)
    found = check(own, list(range(400)), taste.scale)
    fresh = float((taste.margins(everything.differences[400:]) > 0).double().mean())
    assert found.clusters == 400
    assert found.low < fresh < found.high and found.high - found.low < 0.1
    assert found.expected == pytest.approx(found.accuracy, abs=0.05)


def test_choosing_at_random_is_told_as_such_and_a_clear_taste_is_too():
    random, _ = person(60, 8, strength=0.0, seed=4)
    found = check(random, list(range(60)), fit(random).scale)
    assert found.low < 0.5 < found.high
    assert "not proven to be better than guessing" in words_of(found, 60)
    clear, _ = person(60, 8, strength=4.0)
    assert "not proven" not in words_of(check(clear, list(range(60)), fit(clear).scale), 60)


def test_pairs_that_tell_of_each_other_are_held_out_together():
    """The same choice sixty times is one case, which nothing foretells: by pairs it would be foretold each time."""
    evidence, _ = person(2, 6, strength=1.0)
    same = Evidence(evidence.differences[:1].repeat(60, 1), torch.ones(60, dtype=DOUBLE), torch.ones(60, dtype=DOUBLE))
    assert check(same, [0] * 60, 1.0) is None
    assert check(same, list(range(60)), 1.0).accuracy == 1
    assert clusters_of([("a", "b"), ("c", "d"), ("d", "a"), ("e", "f")]) == [0, 0, 0, 1]


def test_whether_more_choices_help_comes_true():
    """Over several persons: twice the choices add about what was said; with very many they add next to nothing."""
    said, came = [], []
    for seed in range(8):
        everything, _ = person(800, 8, strength=1.2, seed=seed)
        few, doubled = (fit(everything.part(range(count))) for count in (60, 120))
        said.append(check(everything.part(range(60)), list(range(60)), few.scale).rise / math.sqrt(2))
        fresh = everything.differences[120:]
        came.append(float((doubled.probabilities(fresh) - few.probabilities(fresh)).mean()))
    assert sum(said) / 8 == pytest.approx(sum(came) / 8, abs=0.015) and sum(said) / 8 > 0.005
    many, _ = person(1000, 8, strength=1.5)
    assert "hardly change it" in words_of(check(many, list(range(1000)), fit(many).scale), 1000)


def test_the_words_follow_the_figures():
    sure = TasteCheck(40, 0.8, 0.65, 0.9, 0.8, rise=0.06, error=0.01)
    text = words_of(sure, 40)
    assert "80% of 40 cases (between 65% and 90%" in text
    assert "surer" in text and "another 40 should add about 4.2 percentage points" in text
    assert "hardly change it" in words_of(replace(sure, rise=0.002, error=0.004), 40)
    assert "cannot be said yet" in words_of(replace(sure, rise=0.015, error=0.02), 40)
    assert "guessing: more choices may show it" in words_of(replace(sure, accuracy=0.55, low=0.4), 40)
    assert "too few cases" in words_of(replace(sure, clusters=5), 5)
    assert "same few pictures" in words_of(None, 6)


def test_wilson_interval():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 5)[1] == 1.0 and wilson(1.0, 5)[0] == pytest.approx(0.5655, abs=1e-4)


# ---- which question first ----


def test_the_information_of_a_pair_is_what_its_answer_takes_from_the_entropy():
    evidence, _ = person(12, 4, strength=1.0)
    taste = fit(evidence, scale=1.5)
    pair = torch.tensor([[0.8, -0.2, 0.1, 0.5]], dtype=DOUBLE)
    chance = torch.sigmoid(taste.margins(pair))
    before = taste.basis @ taste.covariance.inverse() @ taste.basis.T
    after = before + chance * (1 - chance) * pair.T @ pair
    gained = (after.logdet() - before.logdet()) / 2
    assert float(information(taste.margins(pair), taste.variances(pair))) == pytest.approx(float(gained))


def test_the_second_question_is_not_the_first_one_again():
    """The second pair is nearly the first one: a smaller doubt about something else comes before it."""
    joint = torch.tensor([[4.0, 3.99, 0.0], [3.99, 4.0, 0.0], [0.0, 0.0, 3.0]], dtype=DOUBLE)
    order, told = most_informative_first(torch.zeros(3, dtype=DOUBLE), joint)
    assert order == [0, 2, 1]
    assert told == pytest.approx([math.log(2) / 2, math.log(1.75) / 2, math.log1p((4 - 3.99**2 / 8) / 4) / 2])


# ---- the reward ----


class Colours:
    """An encoder whose features are the mean colour, as a unit vector."""

    name, reward_id, differentiable, higher_is_better = "Colours", "colours:1", True, True

    def __init__(self) -> None:
        self.seen = 0

    def image_features(self, images, *, with_gradients=False):
        self.seen += len(images)
        features = torch.nn.functional.normalize(images.flatten(1, 2).mean(1), dim=-1)
        return features if with_gradients else features.detach()

    def __call__(self, images, prompts, context=None):
        return images.mean((1, 2, 3))


@pytest.fixture(autouse=True)
def features(monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(personal_reward, "FEATURES", feature_store.FeatureStore())


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(Store(tmp_path / "attune.sqlite3"), PictureFolder(tmp_path / "pictures"))


def coloured(red: int, blue: int, seed: int, *, width: int = 8) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-20, 21, (8, width, 3))
    return (np.array([red, 100, blue]) + noise).clip(0, 255).astype(np.uint8)


def ask(store: PreferenceStore, key: str, pixels: list[np.ndarray], kind: str = "best") -> Question:
    question = Question(kind, "a cat", tuple(picture_of(image) for image in pixels))
    store.ask(key, [question], {picture_of(image).hash: image for image in pixels})
    return question


def prefer_red(store: PreferenceStore, count: int, *, name: str = "my taste") -> Profile:
    profile = store.create(name)
    for number in range(count):
        pair = [coloured(200, 60, 2 * number), coloured(60, 200, 2 * number + 1, width=8 + number % 2)]
        question = ask(store, profile.key, pair)
        store.decide(profile.key, question.key, Answer("chosen", question.hashes[0]))
    return store.profile(profile.key)


def learned(store: PreferenceStore, profile: Profile, encoder: Colours | None = None, **knobs: int):
    knobs = {"most": 500, "least_stars": 1} | knobs
    return learn(store, profile, encoder or Colours(), progress=lambda done, total: None, **knobs)


RED, BLUE = (torch.tensor(colour).expand(1, 8, 8, 3) for colour in ([0.8, 0.4, 0.2], [0.2, 0.4, 0.8]))


def test_four_choices_make_a_reward_that_prefers_what_was_chosen(store):
    found = learned(store, prefer_red(store, 4))
    red, blue = found.reward(torch.cat([RED, BLUE]), ["", "a cat"]).tolist()
    assert red > 0.5 and blue < -0.5, "in deviations of the profile's own pictures"
    assert found.decisions == 4 and found.figures.accuracy == 1
    text = report(found)
    assert "Learned from 4 choices of my taste" in text and "100% of 4 cases" in text and "too few" in text
    sides = found.reward.uncertainty(torch.cat([RED, BLUE]))
    assert sides.shape == (2,) and (sides > 0).all()


def test_a_taste_that_changed_since_the_profile_was_read_has_another_id(store):
    """The profile on the wire is of the run's beginning; somebody answers while it goes on."""
    profile = prefer_red(store, 6)
    before = learned(store, profile).reward
    for number in range(20):
        question = ask(store, profile.key, [coloured(200, 60, 300 + 2 * number), coloured(60, 200, 301 + 2 * number)])
        store.decide(profile.key, question.key, Answer("chosen", question.hashes[1]))
    after = learned(store, profile).reward
    assert before(RED, [""]).item() > 0 > after(RED, [""]).item()
    assert before.reward_id != after.reward_id


def test_of_several_pictures_the_pair_counts_whose_answer_is_least_known(store, monkeypatch):
    reward = learned(store, prefer_red(store, 6)).reward
    looked_up, of = [], personal_reward.FEATURES.of
    monkeypatch.setattr(personal_reward.FEATURES, "of", lambda *given: (looked_up.append(1), of(*given))[1])
    red, blue, grey = RED[0], BLUE[0], torch.full((8, 8, 3), 0.5)
    pairs = [(red, blue), (red, grey), (blue, grey)]
    doubtful = max(reward.questions_first([pair])[1][0] for pair in pairs)
    # The first two are one picture: no answer about them tells anything.
    assert reward.questions_first([(red, red, blue, grey)])[1][0] == pytest.approx(doubtful)
    looked_up.clear()
    reward.questions_first(pairs)
    assert len(looked_up) == 3, "a picture is looked up once, however many questions are about it"


def test_scores_lie_in_deviations_of_the_pictures_that_were_judged(store):
    profile = prefer_red(store, 6)
    found = learned(store, profile)
    asked = store.answered(profile.key, most=100)
    hashes = [name for question in asked for name in question.question.hashes]
    pictures = [torch.from_numpy(store.pictures.get(name) / 255).float()[None] for name in hashes]
    scores = torch.cat([found.reward(picture, [""]) for picture in pictures])
    assert float(scores.mean()) == pytest.approx(0, abs=1e-5)
    assert float(scores.std(correction=0)) == pytest.approx(1, abs=1e-5)


def test_fewer_than_four_choices_or_only_ties_are_refused_in_words(store):
    with pytest.raises(TooFew, match=r"holds 3 choices to learn a taste from; 4 are needed.*Choose Images"):
        learned(store, prefer_red(store, 3))
    profile = store.create("ties")
    for number in range(5):
        question = ask(store, profile.key, [coloured(200, 60, 50 + number), coloured(60, 200, 90 + number)])
        store.decide(profile.key, question.key, Answer("tie"))
    with pytest.raises(TooFew, match="all of them are ties"):
        learned(store, profile)
    rated = store.create("one question")
    question = ask(store, rated.key, [coloured(40 * n, 60, 200 + n) for n in range(1, 6)], kind="stars")
    store.decide(rated.key, question.key, Answer("stars", stars={h: n + 1 for n, h in enumerate(question.hashes)}))
    with pytest.raises(TooFew, match="holds 1 choice "):
        learned(store, rated)


def test_a_question_counts_as_its_pictures_less_one(store):
    profile = store.create("stars")
    question = ask(store, profile.key, [coloured(40 * n, 60, n) for n in range(1, 6)], kind="stars")
    store.decide(profile.key, question.key, Answer("stars", stars={h: n + 1 for n, h in enumerate(question.hashes)}))
    comparisons = comparisons_of(store.answered(profile.key, most=10)).comparisons
    numbers = {name: torch.randn(3, dtype=DOUBLE) for name in question.hashes}
    assert len(comparisons) == 10
    assert evidence_of(comparisons, numbers).weights.sum() == pytest.approx(4)


def test_the_identity_follows_encoder_profile_and_choices_and_never_the_name(store):
    profile = prefer_red(store, 5, name="Secret Person")
    encoder = Colours()
    before = learned(store, profile, encoder).reward
    for text in (before.reward_id, before.name, before.formula):
        assert "secret" not in text.lower() and profile.key not in text
    assert encoder.reward_id in before.reward_id
    store.rename(profile.key, "Other Name")
    assert learned(store, store.profile(profile.key), encoder).reward.reward_id == before.reward_id
    others = [
        learned(store, store.profile(profile.key), encoder, most=4),
        learned(store, prefer_red(store, 5), encoder),
    ]
    store.undo(profile.key)
    others.append(learned(store, store.profile(profile.key), encoder))
    assert len({before.reward_id, *(found.reward.reward_id for found in others)}) == 4


def test_a_picture_is_encoded_once_and_gradients_reach_it(store):
    encoder = Colours()
    reward = learned(store, prefer_red(store, 5), encoder).reward
    assert encoder.seen == 10, "each picture of the profile"
    images = torch.cat([RED, BLUE])
    reward(images, ["", ""])
    reward(images, ["", ""])
    assert encoder.seen == 12
    wanted = BLUE.clone().requires_grad_()
    reward(wanted, [""]).sum().backward()
    slope = wanted.grad.mean((0, 1, 2))
    assert reward.differentiable and slope[0] > 0 > slope[2], "more red, less blue"
    with pytest.raises(RewardError, match="2 images but 1 prompts"):
        reward(images, [""])


def test_what_has_no_features_or_a_gate_inside_is_refused(store):
    profile = prefer_red(store, 4)

    class Plain:
        name, reward_id = "Plain", "plain"

    with pytest.raises(RewardError, match="Plain has no features of pictures"):
        learned(store, profile, Plain())
    guarded = Colours()
    guarded.gated = True
    with pytest.raises(RewardError, match="safety gate inside"):
        learned(store, profile, guarded)


def test_lost_pictures_are_left_out_and_told(store):
    profile = prefer_red(store, 6)
    newest = store.answered(profile.key, most=1)[0]
    store.pictures.path(newest.question.hashes[0]).unlink()
    found = learned(store, profile)
    assert (found.decisions, found.gone) == (5, 1) and "1 without their pictures left out" in report(found)


def test_the_newest_choices_count_and_cancel_is_heard(store):
    profile = prefer_red(store, 6)
    assert learned(store, profile, most=4).decisions == 4
    told: list[tuple[int, int]] = []
    learn(store, profile, Colours(), most=9, least_stars=1, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and all(done < total for done, total in told)

    def stop(done: int, total: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        learn(store, profile, Colours(), most=9, least_stars=1, progress=stop)


def test_before_any_choice_every_picture_scores_zero(store):
    reward = without_opinion(store.create("new"), Colours())
    assert reward(torch.cat([RED, BLUE]), ["", ""]).tolist() == [0, 0]
    assert (reward.uncertainty(torch.cat([RED, BLUE])) > 0).all()


# ---- asking by information ----


def questions_in(store: PreferenceStore, profile: Profile, pixels: list[np.ndarray]):
    images = [torch.from_numpy(image / 255).float() for image in pixels]
    shown = show(images, ["a cat"] * len(images), [None] * len(images), [False] * len(images))
    questions = questions_about(shown, "pairs")
    asked = store.ask(profile.key, questions, {found.picture.hash: found.pixels for found in shown})
    return shown, asked, [question.key for question in questions]


def test_what_the_taste_does_not_know_is_asked_first(store):
    """It knows red from blue; green from blue it has not seen."""
    profile = prefer_red(store, 12)
    reward = learned(store, profile).reward
    alike = coloured(200, 60, 300)
    pixels = [alike, coloured(198, 62, 301), coloured(200, 60, 302), coloured(60, 200, 303)]
    green = np.full((8, 8, 3), (20, 250, 20), dtype=np.uint8)
    shown, asked, keys = questions_in(store, profile, [*pixels, green, coloured(150, 160, 304)])
    names, advice = ordered(shown, asked, reward)
    assert names[0] == keys[2] and sorted(names) == sorted(keys)
    assert "teach something new" in advice or "known well enough" in advice
    store.decide(profile.key, keys[2], Answer("tie"))
    shown, asked, _ = questions_in(store, profile, [*pixels, green, coloured(150, 160, 304)])
    assert ordered(shown, asked, reward)[0][-1] == keys[2], "what is answered comes last"


def test_pictures_that_are_alike_teach_nothing(store):
    profile = prefer_red(store, 12)
    shown, asked, _ = questions_in(store, profile, [coloured(200, 60, 400 + n) for n in range(4)])
    assert "known well enough" in ordered(shown, asked, learned(store, profile).reward)[1]
    with pytest.raises(PreferenceError, match="Only a Preference Reward"):
        ordered(shown, asked, Colours())
    assert INFORMATIVE == "most informative first"
    assert isinstance(without_opinion(profile, Colours()), PreferenceReward)
