"""What a guarded reward says about pictures besides scores, through wrappers, and what a run's previews make of it."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.calibration import CalibratedReward, Calibration
from attune.nodes.rewards.dialogue import RelevanceReward
from attune.nodes.rewards.safety import GatedReward, SafetyGate, SafetyReward, UnsafeProbability, blurred
from attune.nodes.training.plans import PreviewSettings
from attune.nodes.training.run import preview_sampler
from attune.tests.colour_rewards import Blueness, NamedColour, Redness, gated, pictures
from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.interfaces import Prompt
from attune.training.objectives.practice import Practice
from attune.training.presentable import is_guarded, presentable, unsafe_pictures


def test_unsafe_says_which_pictures_and_judges_each_once():
    judge = CachedReward(Redness(), ScoreStore())
    reward = GatedReward(Blueness(), SafetyGate(0.5, judge), floor=-9.0)
    images = pictures(0.1, 0.9, 0.2, 0.5).requires_grad_(True)
    found = reward.unsafe(images)
    assert found.tolist() == [False, True, False, True] and found.dtype is torch.bool
    assert (reward.blocked, reward.reward.seen) == (2, [])
    reward(images.detach(), ["p"] * 4)
    reward.presentable(images)
    assert judge.forward_calls == 1 and reward.blocked == 2


def test_presentable_blurs_unsafe_pictures_only():
    images = pictures(0.1, 0.9)
    images[1, 4:] = torch.tensor([0.9, 0.5, 0.0])
    shown = gated().presentable(images)
    assert torch.equal(shown[0], images[0])
    assert torch.equal(shown[1], blurred(images[1:])[0]) and not torch.equal(shown[1], images[1])
    assert torch.equal(gated().presentable(images[:1]), images[:1])


def test_whatever_is_around_a_gate_passes_it_on():
    inner = gated()
    calibration = Calibration.of(inner.reward_id, "set", [0.1 * step for step in range(10)])
    for reward in (
        CalibratedReward(inner, calibration),
        CachedReward(CalibratedReward(inner, calibration), ScoreStore()),
        GatedReward(inner, SafetyGate(1.0, Redness()), floor=-9.0),
    ):
        assert is_guarded([None, reward])
        assert unsafe_pictures(pictures(0.1, 0.9), [reward]).tolist() == [False, True]
        assert torch.equal(presentable(pictures(0.1, 0.9), [reward])[1], blurred(pictures(0.9))[0])
    for reward in (None, Blueness(), CachedReward(Blueness(), ScoreStore()), SafetyReward(Redness())):
        assert not is_guarded([reward])
        assert not unsafe_pictures(pictures(0.9), [reward]).any()
        assert torch.equal(presentable(pictures(0.9), [reward]), pictures(0.9))


def test_one_gate_guards_what_all_rewards_of_a_run_are_shown():
    """Each judges the pictures themselves: a blurred copy that is unsafe to the next gate would count twice."""
    strict, lax = gated(0.2), gated(0.6)
    images = pictures(0.1, 0.4, 0.9)
    images[:, 4:, :, 1] = 0.5
    assert unsafe_pictures(images, [lax, None, Blueness(), strict]).tolist() == [False, True, True]
    shown = presentable(images, [lax, strict])
    assert (lax.blocked, strict.blocked) == (1, 2)
    assert torch.equal(shown[0], images[0]) and torch.equal(shown[1:], blurred(images[1:]))


def test_a_diverged_picture_is_shown_as_it_was_judged():
    images = pictures(0.1, 0.9)
    images[0, 0, 0, 1], images[0, 0, 1, 1] = float("nan"), float("inf")
    shown = presentable(images, [GatedReward(Blueness(), SafetyGate(0.8, UnsafeProbability()), floor=-9.0)])
    assert shown[0, 0, :2, 1].tolist() == [0, 1]


def test_previews_of_a_run_are_blurred_where_its_reward_calls_them_unsafe():
    """The decoder paints a first picture that is unsafe; the plan's reward, or else its held-out one, is guarded."""
    network = MixtureDenoiser(process_of("eps"), torch.zeros(1, 2), 1.0, torch.ones(1))
    images = pictures(0.9, 0.1)
    images[0, 4:] = torch.tensor([0.9, 0.5, 0.0])

    class Painter:
        def decode(self, latents):
            assert latents.shape == (2, 2, 1, 1)
            return images

    asking = SimpleNamespace(sample_requests=lambda: [Prompt("p", None)] * 2)

    def previews(**rewards):
        plan = SimpleNamespace(preview=PreviewSettings(2, 1.0), **rewards)
        return preview_sampler(Painter(), asking, (2, 1, 1), plan, 0)(network)

    for rewards in ({"reward": gated(), "held_out": None}, {"reward": Blueness(), "held_out": gated()}):
        shown = previews(**rewards)
        assert torch.equal(shown[0], blurred(images[:1])[0]) and torch.equal(shown[1], images[1])
    assert torch.equal(previews(), images)  # a method without a reward


def practice(reward, held_out=None) -> Practice:
    prompts = [Prompt(text, torch.zeros(1, 1)) for text in ("blue", "red")]
    return Practice(prompts, reward, decoder=None, latent_shape=(1, 1, 1), held_out=held_out)


def test_a_gate_at_either_reward_keeps_pictures_from_being_learned_from():
    images = pictures(0.1, 0.9)
    for place in ("reward", "held_out"):
        rewards = {"reward": Blueness(), "held_out": Blueness()}
        both = list(rewards.values())
        rewards[place] = gated(reward=rewards[place])
        run = practice(**rewards)
        judged = run.score(images, [0, 1], [0, 1])
        figures = run.figures(images, [0, 1], judged)
        assert judged.blocked.tolist() == [False, True] and run.reward_calls == 1
        assert (figures["blocked"], figures["reward"], figures["held_out_reward"]) == (1, 0.25, 0.25)
        assert [len(reward.seen) for reward in both] == [1, 1], "neither sees the unsafe picture"
    run = practice(Blueness(), Blueness())
    assert "blocked" not in run.figures(images, [0, 1], run.score(images, [0, 1], [0, 1]))


def test_relevance_can_be_trained_on_where_only_one_prompt_is_left():
    images, relevance = pictures(0.1, 0.9, blue=0.6), RelevanceReward(NamedColour())
    run = practice(gated(reward=relevance), gated(reward=RelevanceReward(NamedColour())))
    judged = run.score(images, [0, 1], [0, 1])
    assert judged.rewards[0] == relevance(images, ["blue", "red"])[0] > 0
    assert run.figures(images, [0, 1], judged)["held_out_reward"] == judged.rewards[0]
