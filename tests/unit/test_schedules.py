"""Noise levels in closed form, and schedules that follow from the session alone."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from attune.nodes.refinement.ab_arms import arm_of
from attune.nodes.refinement.checks import RefinementError
from attune.nodes.refinement.draft import Draft
from attune.nodes.refinement.noise_levels import sigmas
from attune.nodes.refinement.records import SCHEDULE_TYPES, Feedback, Picture, Round, Schedule, SessionState
from attune.nodes.refinement.schedules import (
    SEEDS,
    TYPES,
    RoundScheduleConfig,
    round_schedule,
    schedule_text,
    settings_of_arm,
    why_raised,
)

SD = (0.0291672, 14.6146)
# Seeds of the first round of a session whose seed is 7.
GOLDEN = (6041889583337446, 8696363723307818, 6181360256688813, 7889688627388848)


# ---- noise levels ----


@pytest.mark.parametrize("kind", SCHEDULE_TYPES)
@pytest.mark.parametrize(("low", "high", "flow"), [(*SD, False), (0.002, 80.0, False), (0.001, 1.0, True)])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("strength", [1.0, 0.75, 0.3, 0.01])
def test_shape_range_and_order(kind, low, high, flow, steps, strength):
    levels = sigmas(kind, steps, low, high, strength=strength, flow=flow)
    assert levels.dtype == torch.float32 and levels.shape == (steps + 1,)
    assert levels[-1] == 0
    assert bool((levels[:-1] > levels[1:]).all())
    if strength == 1:
        assert levels[0] == torch.tensor(high)
    if int(steps / strength) > 1:
        assert levels[-2] == torch.tensor(low)


def test_karras_closed_form():
    """σ from 1 to 128 = 2^7 in three levels: σ^(1/7) = 2, 1.5, 1, so the middle one is 1.5^7 = 17.0859375."""
    assert sigmas("karras", 3, 1.0, 128.0).tolist() == pytest.approx([128.0, 17.0859375, 1.0, 0.0], rel=1e-6)


def test_cosine_closed_form():
    """tan: from √3 (60°) to 1/√3 (30°) the middle angle is 45°, σ = 1. Of a flow model σ = tan/(1 + tan): from 1 (90°)
    to 0.2 the middle angle is 45° + arctan(0.25)/2."""
    found = sigmas("cosine", 3, 1 / math.sqrt(3), math.sqrt(3))
    assert found.tolist() == pytest.approx([math.sqrt(3), 1.0, 1 / math.sqrt(3), 0.0])
    middle = math.tan(math.pi / 4 + math.atan(0.25) / 2)
    assert sigmas("cosine", 3, 0.2, 1.0, flow=True)[1].item() == pytest.approx(middle / (1 + middle))


def test_linear_is_a_process_of_linear_beta():
    """log(1 + σ²) = ∫β is a parabola a·u² + b·u of the time u, with β(0)/β(1) = b/(2a + b) = 1/200."""
    levels = sigmas("linear", 400, 1e-5, SD[1])[:-1].double().numpy()
    a, b, c = np.polyfit(np.linspace(1, 0, 400), np.log1p(levels**2), 2)
    assert np.polyval([a, b, c], np.linspace(1, 0, 400)) == pytest.approx(np.log1p(levels**2), abs=1e-5)
    assert b / (2 * a + b) == pytest.approx(1 / 200, rel=1e-3)
    assert c == pytest.approx(0, abs=1e-5)


def test_flow_linear_is_even_in_the_models_time():
    """From 1 to 0.2 in five levels 1, .8, .6, .4, .2; with shift 3, t = σ/(3 − 2σ) is even."""
    assert sigmas("linear", 5, 0.2, 1.0, flow=True).tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    shifted = sigmas("linear", 5, 0.2, 1.0, flow=True, shift=3.0)[:-1].double()
    time = shifted / (3 - 2 * shifted)
    assert time.diff().tolist() == pytest.approx([(0.2 / 2.6 - 1) / 4] * 4, rel=1e-5)


@pytest.mark.parametrize("kind", SCHEDULE_TYPES)
def test_strength_keeps_the_end_of_a_longer_schedule(kind):
    """The host's denoise: 20 steps at 0.3 are the last 20 of ⌊20/0.3⌋ = 66; from 0.9999 on nothing is left out."""
    assert torch.equal(sigmas(kind, 20, *SD, strength=0.3), sigmas(kind, 66, *SD)[-21:])
    assert torch.equal(sigmas(kind, 20, *SD, strength=0.99995), sigmas(kind, 20, *SD))


def test_starts_of_a_weak_round():
    """The figures in the module's docstring."""
    starts = [sigmas(kind, 300, *SD, strength=0.3)[0].item() for kind in SCHEDULE_TYPES]
    assert starts == pytest.approx([0.82, 0.50, 0.36], abs=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "exponential"}, "no schedule 'exponential'"),
        ({"steps": 0}, "not 0"),
        ({"steps": 20.0}, "not 20.0"),
        ({"sigma_min": 0.0}, "from 0.0 to"),
        ({"sigma_max": 0.01}, "to 0.01"),
        ({"strength": 0.0}, "not 0.0"),
        ({"strength": 1.2}, "not 1.2"),
        ({"strength": 1e-6}, "Raise the strength"),
        ({"flow": True}, "end at 1"),
        ({"shift": 0.0}, "shift"),
    ],
)
def test_impossible_levels_are_refused(changes, words):
    values = {"kind": "linear", "steps": 20, "sigma_min": SD[0], "sigma_max": SD[1]} | changes
    with pytest.raises(RefinementError, match=words):
        sigmas(**values)


# ---- rounds ----


def past(number: int, schedule: Schedule, *, liked: tuple[int, ...] = (0,), attempt: int = 0, key: str = "") -> Round:
    pictures = tuple(Picture(f"{place:064x}", seed) for place, seed in enumerate(schedule.seeds))
    return Round(
        key=key or f"{number:032x}", parent=None if number == 1 else f"{number - 1:032x}", number=number,
        attempt=attempt, prompt="a fox", negative="", embedding={}, schedule=schedule, weights=None, pictures=pictures,
        feedback=Feedback(liked=liked), seconds=1.0, lora="", latents="", made=1,
    )  # fmt: skip


def session(**changes) -> SessionState:
    return SessionState(
        **({"key": "a" * 32, "name": "fox", "revision": 1, "seed": 7, "prompt": "a fox", "negative": ""} | changes)
    )


def played(
    config: RoundScheduleConfig, rounds: int, *, batch: int = 4, lambda_div: float = 0.5, **changes
) -> list[Schedule]:
    state, found = session(**changes), []
    for number in range(1, rounds + 1):
        found.append(round_schedule(config, state, batch=batch, lambda_div=lambda_div))
        state = dataclasses.replace(state, path=(*state.path, past(number, found[-1])))
    return found


def test_types_strengths_and_steps_by_the_formulas():
    """d: 1, .75, .5625, .4219, .3164, .3; steps 8, 10, 12, …; types in turn."""
    found = played(RoundScheduleConfig(steps=8, more_steps=2), 6)
    assert [one.type for one in found] == ["linear", "cosine", "karras"] * 2
    assert [one.steps for one in found] == [8, 10, 12, 14, 16, 18]
    assert [one.strength for one in found] == pytest.approx([1, 0.75, 0.5625, 0.421875, 0.31640625, 0.3])
    fixed = played(RoundScheduleConfig(type="karras", steps=3, more_steps=-1, decay=1.0), 5)
    assert {one.type for one in fixed} == {"karras"}
    assert [one.steps for one in fixed] == [3, 2, 1, 1, 1]
    assert {one.strength for one in fixed} == {1.0}


def test_without_a_chosen_picture_there_is_no_start():
    first = round_schedule(RoundScheduleConfig(), session(), batch=2)
    none = session(path=(past(1, first, liked=()),))
    assert round_schedule(RoundScheduleConfig(), none, batch=2).strength == 1.0
    some = session(path=(past(1, first, liked=(1,)),))
    assert round_schedule(RoundScheduleConfig(), some, batch=2).strength == 0.75


def test_the_same_session_takes_the_same_seeds():
    """Golden values: a session of seed 7 begins with these on every machine; keys do not enter, choices of noise do."""
    config = RoundScheduleConfig()
    one, again = played(config, 5), played(config, 5, key="b" * 32, name="other", revision=9)
    assert one == again
    assert one[0].seeds == GOLDEN
    first = one[0]
    other_key = session(path=(past(1, first, key="f" * 32),))
    assert round_schedule(config, other_key, batch=4, lambda_div=1.0) == round_schedule(
        config, session(path=(past(1, first),)), batch=4, lambda_div=1.0
    )
    assert played(config, 1, seed=8)[0].seeds != first.seeds


def test_new_noise_or_the_last_rounds():
    config = RoundScheduleConfig()
    kept, new = played(config, 4, lambda_div=0.0), played(config, 4, lambda_div=1.0)
    assert kept[0].fresh and all(one.fresh for one in new)
    assert [one.fresh for one in kept[1:]] == [False] * 3
    assert len({one.seeds for one in kept}) == 1
    assert len({seed for one in new for seed in one.seeds}) == 16
    assert len({one.seeds for one in played(RoundScheduleConfig(seeds="always the last round's"), 3)}) == 1
    assert len({one.seeds for one in played(RoundScheduleConfig(seeds="always new"), 3, lambda_div=0.0)}) == 3


def test_share_of_new_noise_is_lambda():
    """Of 2000 second rounds, with λ = 0.3, 30 % take new noise, within 4 deviations (0.041)."""
    config, share = RoundScheduleConfig(), 0
    for seed in range(2000):
        first = round_schedule(config, session(seed=seed), batch=1)
        share += round_schedule(config, session(seed=seed, path=(past(1, first),)), batch=1, lambda_div=0.3).fresh
    assert share / 2000 == pytest.approx(0.3, abs=0.041)


def test_other_pictures_are_others():
    config = RoundScheduleConfig(seeds="always the last round's")
    first = round_schedule(config, session(), batch=4)
    attempts = [round_schedule(config, session(path=(past(1, first),), attempt=n), batch=4) for n in range(4)]
    assert attempts[0].seeds == first.seeds
    assert len({seed for one in attempts for seed in one.seeds}) == 16
    assert round_schedule(config, session(attempt=1), batch=4).seeds != first.seeds


def test_a_larger_batch_keeps_the_noise_that_there_was():
    config = RoundScheduleConfig(seeds="always the last round's")
    first = round_schedule(config, session(), batch=2)
    second = round_schedule(config, session(path=(past(1, first),)), batch=5)
    assert second.seeds[:2] == first.seeds
    assert len(set(second.seeds)) == 5
    assert round_schedule(config, session(path=(past(1, first),)), batch=1).seeds == first.seeds[:1]


def test_a_larger_batch_begins_with_the_smaller_ones_seeds():
    small, large = (round_schedule(RoundScheduleConfig(), session(), batch=batch) for batch in (2, 6))
    assert large.seeds[:2] == small.seeds


def test_branches_share_their_noise():
    """Two branches part after round 1 by what was liked: their rounds 2 and 3 take the same seeds."""
    config = RoundScheduleConfig()
    first = round_schedule(config, session(), batch=4)
    seeds = []
    for liked in ((0,), (2,)):
        state = session(path=(past(1, first, liked=liked),))
        second = round_schedule(config, state, batch=4, lambda_div=0.5)
        state = dataclasses.replace(
            state, path=(*state.path, past(2, second, liked=liked, key="d" * 31 + str(liked[0])))
        )
        seeds.append((second.seeds, round_schedule(config, state, batch=4, lambda_div=0.5).seeds))
    assert seeds[0] == seeds[1]


def test_replay_takes_what_is_recorded():
    recorded = Schedule("karras", 3, 0.4, (5, 6, 7), fresh=False, sampler="dpmpp_2m", guidance=2.0, arm="B")
    state = session(replay=past(1, recorded))
    assert round_schedule(RoundScheduleConfig(steps=50), state, batch=1) == recorded


def test_arm_b_has_other_knobs():
    config = RoundScheduleConfig(arm_b=(("type", "karras"), ("decay", 1.0)), test="fixed")
    keys = {arm_of(f"{n:032x}", "fixed"): f"{n:032x}" for n in range(20)}
    a, b = (round_schedule(config, session(key=keys[arm]), batch=1) for arm in "AB")
    assert (a.arm, a.type) == ("A", "linear")
    assert (b.arm, b.type) == ("B", "karras")
    assert a.seeds == b.seeds
    assert (a.test, b.test) == ("fixed", "fixed")
    stays = session(key=keys["A"], arm="B", test="fixed", path=(past(1, b),))
    second = round_schedule(config, stays, batch=1)
    assert (second.arm, second.strength) == ("B", 1.0)
    other = dataclasses.replace(config, test="another")
    names = [round_schedule(other, session(key=f"{n:032x}", arm="B", test="fixed"), batch=1).arm for n in range(20)]
    assert names == [arm_of(f"{n:032x}", "another") for n in range(20)], "another name divides the sessions anew"
    assert round_schedule(RoundScheduleConfig(), session(key=keys["B"]), batch=1).arm == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "sine"}, "no type 'sine'"),
        ({"seeds": "sometimes"}, "'sometimes'"),
        ({"steps": 0}, "not 0"),
        ({"more_steps": 0.5}, "not 0.5"),
        ({"decay": 0.0}, "decay .* not 0.0"),
        ({"least_strength": 1.5}, "least_strength .* not 1.5"),
        ({"guidance": math.nan}, "not nan"),
        ({"arm_b": (("colour", 1),)}, "cannot change 'colour'"),
        ({"arm_b": (("steps", 0),)}, "not 0"),
    ],
)
def test_bad_knobs_are_refused(changes, words):
    with pytest.raises(RefinementError, match=words):
        RoundScheduleConfig(**changes)


def test_bad_rounds_are_refused():
    with pytest.raises(RefinementError, match="not 0"):
        round_schedule(RoundScheduleConfig(), session(), batch=0)
    with pytest.raises(RefinementError, match=r"not 1\.5"):
        round_schedule(RoundScheduleConfig(), session(), batch=1, lambda_div=1.5)
    assert set(TYPES) > set(SCHEDULE_TYPES) and len(SEEDS) == 3


def test_a_changed_wish_lets_the_picture_change():
    config = RoundScheduleConfig(decay=0.5, words_strength=0.9)
    assert [config.strength_of(number) for number in (1, 2, 3)] == [1.0, 0.5, 0.3]
    assert [config.strength_of(number, "words") for number in (1, 2, 3)] == [1.0, 0.9, 0.9]
    off = dataclasses.replace(config, words_strength=0.0)
    assert off.strength_of(3, "insisted") == off.strength_of(3)
    with pytest.raises(RefinementError, match="words_strength"):
        dataclasses.replace(config, words_strength=1.5)


def test_what_was_asked_for_twice_is_tried_with_other_noise():
    """The same words with the same noise from nothing would be the same picture again."""
    state = session(path=(past(1, round_schedule(RoundScheduleConfig(), session(), batch=4)),))
    config = RoundScheduleConfig(seeds="always the last round's")
    assert round_schedule(config, state, batch=4, change="words").seeds == state.last.schedule.seeds
    insisted = round_schedule(config, state, batch=4, change="insisted")
    assert insisted.fresh and not set(insisted.seeds) & set(state.last.schedule.seeds)


def test_other_pictures_let_go_of_the_chosen_one_by_half_and_then_wholly():
    config = RoundScheduleConfig(strength=0.8, decay=1.0)
    state = session(path=(past(1, round_schedule(config, session(), batch=2)),))
    attempts = [dataclasses.replace(state, attempt=attempt) for attempt in range(4)]
    strengths = [round_schedule(config, one, batch=2).strength for one in attempts]
    assert strengths == pytest.approx([0.8, 0.9, 1.0, 1.0])
    assert [why_raised(config, one, "none") for one in attempts[:2]] == ["", "you asked for other pictures"]
    found = round_schedule(config, attempts[1], batch=2)
    assert "90% noise on the chosen picture, as you asked for other pictures, 20" in schedule_text(
        found, 2, why=why_raised(config, attempts[1], "none")
    )
    asked = dataclasses.replace(config, words_strength=0.9)
    assert why_raised(asked, attempts[2], "words") == (
        "your comment asked for something else and you asked for other pictures"
    )
    assert round_schedule(config, session(attempt=2), batch=2).strength == 1.0
    assert not why_raised(config, session(attempt=2), "none")
    kept = past(2, round_schedule(config, attempts[1], batch=2), attempt=1)
    assert round_schedule(config, dataclasses.replace(attempts[3], replay=kept), batch=2) == kept.schedule


def test_why_there_is_more_noise_is_said_only_where_there_is():
    first = round_schedule(RoundScheduleConfig(), session(), batch=2)
    chosen, none = session(path=(past(1, first),)), session(path=(past(1, first, liked=()),))
    config = RoundScheduleConfig(words_strength=0.9)
    off, weak = RoundScheduleConfig(words_strength=0.0), RoundScheduleConfig(words_strength=0.5)
    assert why_raised(config, chosen, "words") == why_raised(config, chosen, "insisted") != ""
    assert not why_raised(config, chosen, "none") and not why_raised(config, none, "words")
    assert not why_raised(off, chosen, "words") and not why_raised(weak, chosen, "words")
    again = dataclasses.replace(chosen, replay=past(2, first))
    assert not why_raised(config, again, "words")
    found = round_schedule(config, chosen, batch=2, change="words")
    assert schedule_text(found, 2, why=why_raised(config, chosen, "words")).startswith(
        "Round 2: 90% noise on the chosen picture, as your comment asked for something else, 20 steps, cosine, "
    )
    assert "comment" not in schedule_text(found, 2)


def test_arm_b_is_written_as_settings():
    written = "steps 12, strength = 0.6; type: karras\nseeds always the last round's, more_steps -1,"
    found = settings_of_arm(written)
    assert found == (
        ("steps", 12), ("strength", 0.6), ("type", "karras"), ("seeds", "always the last round's"), ("more_steps", -1),
    )  # fmt: skip
    other = RoundScheduleConfig(arm_b=found, test="as written").of_arm("B")
    assert (other.steps_of(3), other.strength, other.type) == (10, 0.6, "karras")
    assert settings_of_arm(" \n") == ()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("colour red", r"'colour red' is no setting .* type, steps, more_steps"),
        ("steps", "steps needs a whole number .* not ''"),
        ("steps 1.5", r"whole number .* not '1\.5'"),
        ("strength much", "strength needs a number"),
        ("steps 3, steps 4", "steps stands twice"),
        ("arm_b x", "no setting"),
    ],
)
def test_settings_of_arm_b_that_cannot_be_read_are_refused(written, words):
    with pytest.raises(RefinementError, match=words):
        settings_of_arm(written)


def test_a_test_of_weights_counts_by_the_schedule_and_one_test_is_enough():
    schedule = round_schedule(RoundScheduleConfig(), session(), batch=2)
    before = Draft.of(session()).in_test("rule mgda", "B")
    assert (before.marked(schedule).test, before.marked(schedule).arm) == ("rule mgda", "B")
    behind = Draft.of(session()).with_(schedule=schedule).in_test("rule mgda", "A")
    assert (behind.decided().test, behind.decided().arm) == ("rule mgda", "A")
    assert Draft.of(session()).marked(schedule) == schedule
    tested = dataclasses.replace(schedule, test="steps 3", arm="A")
    with pytest.raises(
        RefinementError, match='Two A/B tests at once: Dynamic Weights tests "rule mgda", Round Schedule'
    ):
        Draft.of(session()).with_(schedule=tested).in_test("rule mgda", "A")
    with pytest.raises(RefinementError, match='one Dynamic Weights tests "rule mgda", another "rule fixed"'):
        before.in_test("rule fixed", "A")
