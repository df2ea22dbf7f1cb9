"""Learning along with a refinement: a round's few updates, its plan, and which LoRA belongs to which round."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from attune.nodes.host.applied_loras import settings_of, stored_lora, with_identity
from attune.nodes.refinement.chosen import kept_rounds
from attune.nodes.refinement.draft import Draft
from attune.nodes.refinement.records import Feedback
from attune.nodes.refinement.round_lora import lora_record, newest_version
from attune.nodes.round_lesson import KeptPictures, RoundLesson
from attune.nodes.training import multi_round_schemas
from attune.nodes.training.figures import CURVES
from attune.nodes.training.plan_multi_round import KINDS, KeptRoundPlan, RoundPlan, lesson_of, session_lora
from attune.nodes.training.plan_rewards import DDPOPlan
from attune.nodes.training.plans import EncodedText
from attune.nodes.training.rounds import goes_on, start_of, without_training
from attune.tests.refinement_sessions import opened, play, propose
from attune.tests.unit.test_objective_contract import CONTEXT, SHAPE, Colour, Decoder, small_unet
from attune.training.adapters import LoraMetadata, Policy, save_lora, weights_id
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import AttuneError, Prompt, TrainingError
from attune.training.objectives.ddpo import DDPOConfig
from attune.training.objectives.kept_pictures import KeptConfig, KeptObjective, KeptRound
from attune.training.objectives.multi_round import (
    ROUND_LORA,
    ROUND_TRAINER,
    RoundConfig,
    learn_round,
    round_objective,
)
from attune.training.objectives.refl import ReFLConfig
from attune.training.run_state import StateFolder

LEARNERS = ("refl", "ppo")
LESSON = RoundLesson("5" * 32, "my cat", 3, "7" * 32, "a cat", "a hat", "0123456789abcdef", 2)
FIRST = replace(LESSON, number=1, after="", version="", version_round=0)
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def denoiser() -> DiffusersDenoiser:
    return DiffusersDenoiser(small_unet(), process_of("eps"), torch.zeros(3, CONTEXT))


# ---- a round's few updates ----


def objective(learner: str, **changes: Any) -> Any:
    prompt = Prompt("a cat", torch.randn(3, CONTEXT, generator=torch.Generator().manual_seed(9)))
    knobs = {"images_per_prompt": 8, "steps": 4, "guidance": 1.0, "stop_from": 2, "stop_to": 3, "chunk": 32}
    config = RoundConfig(learner=learner, **(knobs | changes))
    return round_objective(prompt, Colour(), Decoder(), config, latent_shape=SHAPE)


@pytest.mark.parametrize("learner", LEARNERS)
def test_rounds_go_on_from_each_other_and_raise_the_reward(denoiser: DiffusersDenoiser, learner: str) -> None:
    before = {name: value.clone() for name, value in denoiser.module.state_dict().items()}
    trainer = replace(ROUND_TRAINER, steps=4, learning_rate=0.02)
    first, found, start = [], [], None
    for _ in range(3):
        # With the same seed every round's first pictures have the same noise.
        found.append(learn_round(denoiser, objective(learner), trainer=trainer, start=start))
        start = found[-1].tensors
        first.append(found[-1].history[0]["reward"])
    assert first[0] < first[1] < first[2] and first[2] > 1.02 * first[0], first
    assert all(name.startswith("up_blocks.") for name in start), "the blocks of the up path alone"
    # A second round begins where the first ended: one so short that it hardly learns is nearly the same.
    short = learn_round(
        denoiser, objective(learner), trainer=replace(trainer, steps=1, learning_rate=1e-9), start=found[0].tensors
    )
    for name, value in found[0].tensors.items():
        torch.testing.assert_close(short.tensors[name], value, atol=1e-6, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.module.state_dict().items())


def test_a_round_is_a_function_of_its_seed_and_its_start(denoiser: DiffusersDenoiser) -> None:
    one, two = (learn_round(denoiser, objective("refl")).tensors for _ in range(2))
    other = learn_round(denoiser, objective("refl"), start=one).tensors
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_pictures_that_look_alike_teach_too(denoiser: DiffusersDenoiser) -> None:
    """The deviation of a session's few pictures may be so small that any margin is reached at once."""

    class Alike(Colour):
        def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            return 1e6 * super().__call__(*args, **kwargs) + 1e7

    def learned(**changes: Any) -> float:
        prompt = Prompt("a cat", torch.randn(3, CONTEXT, generator=torch.Generator().manual_seed(9)))
        config = RoundConfig(images_per_prompt=2, steps=4, guidance=1.0, stop_from=2, stop_to=3, **changes)
        made = round_objective(prompt, Alike(), Decoder(), config, latent_shape=SHAPE)
        found = learn_round(denoiser, made, trainer=replace(ROUND_TRAINER, steps=2)).tensors
        return max(value.abs().max().item() for name, value in found.items() if "lora_up" in name)

    assert learned() > 0
    assert learned(margin=10.0) == 0


def test_a_learner_has_the_knobs_of_its_method() -> None:
    config = RoundConfig(learner="ppo", images_per_prompt=6, steps=3, transitions=9, updates_per_rollout=4)
    own = config.method()
    assert isinstance(own, DDPOConfig) and (own.prompts_per_update, own.images_per_prompt) == (1, 6)
    assert own.transitions == 3, "no more than there are steps"
    assert own.updates_per_rollout == 4
    own = RoundConfig(stop_from=4, stop_to=9, margin=0.5).method()
    assert isinstance(own, ReFLConfig) and (own.stop_from, own.stop_to, own.margin) == (4, 9, 0.5)
    assert RoundConfig().method().margin is None, "all pictures of a round teach, unless a margin is asked for"
    for wrong, words in (
        ({"margin": False}, "margin must be a finite number, not False"),
        ({"margin": math.nan}, "margin must be a finite number, not nan"),
        ({"learner": "dpo"}, "'dpo'"),
        ({"learner": "ppo", "images_per_prompt": 1}, "at least 2, not 1"),
        ({"stop_to": 20}, r"stop_from 15 and stop_to 20 must lie in 0 … 19"),
    ):
        with pytest.raises(TrainingError, match=words):
            RoundConfig(**wrong)


def test_a_reward_without_gradient_is_for_ppo() -> None:
    blind = Colour()
    blind.differentiable = False
    common = {"latent_shape": SHAPE}
    prompt = Prompt("a cat", torch.zeros(3, CONTEXT))
    with pytest.raises(TrainingError, match=r"Colour gives scores without gradients.* Set learner to ppo"):
        round_objective(prompt, blind, Decoder(), RoundConfig(), **common)
    assert round_objective(prompt, blind, Decoder(), RoundConfig(learner="ppo"), **common).name == "ddpo"


def kept_objective(**changes: Any) -> KeptObjective:
    prompt = Prompt("a cat", torch.randn(3, CONTEXT, generator=torch.Generator().manual_seed(9)))
    liked, others = torch.ones(1, *SHAPE), -torch.ones(3, *SHAPE)
    return KeptObjective([KeptRound(prompt, liked, others)], KeptConfig(**changes), preview=prompt)


def test_what_is_kept_is_told_from_what_was_passed_over(denoiser: DiffusersDenoiser) -> None:
    before = {name: value.clone() for name, value in denoiser.module.state_dict().items()}
    trainer = replace(ROUND_TRAINER, steps=9, learning_rate=0.01)
    found = learn_round(denoiser, kept_objective(beta=500.0), trainer=trainer)
    losses = [row["loss"] for row in found.history]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and sum(losses[1:]) / 8 < 0.8 * losses[0], losses
    assert all(name.startswith("up_blocks.") for name in found.tensors)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.module.state_dict().items())


@pytest.mark.parametrize("lowest", [0.75, 0.0])
def test_what_is_kept_is_learned_at_the_highest_noise_levels(denoiser: DiffusersDenoiser, lowest: float) -> None:
    made, levels = kept_objective(lowest_noise=lowest), denoiser.process.sigmas
    with Policy(denoiser, ROUND_LORA) as policy:
        made.prepare(policy)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.stack([made._look(generator).sigma for _ in range(200)])
    assert drawn.min() >= levels[int(lowest * len(levels))], drawn.min()
    assert drawn.min() < levels[int((lowest + 0.1) * len(levels))] and drawn.max() > levels[int(0.95 * len(levels))]


def test_rounds_in_which_all_was_liked_teach_nothing() -> None:
    prompt, four = Prompt("a cat", torch.zeros(3, CONTEXT)), torch.zeros(4, *SHAPE)
    with pytest.raises(TrainingError, match="no pairs to learn from"):
        KeptObjective([KeptRound(prompt, four, four[:0])], KeptConfig(), preview=prompt)
    with pytest.raises(TrainingError, match="lowest_noise is a share"):
        KeptConfig(lowest_noise=1.0)
    with pytest.raises(TrainingError, match="learns from rounds, and not from a reward"):
        round_objective(prompt, Colour(), Decoder(), RoundConfig(learner="kept"), latent_shape=SHAPE)


def test_every_knob_is_a_widget_with_its_default() -> None:
    slots = {slot.id: slot for slot in multi_round_schemas.MULTI_ROUND_OBJECTIVE}
    names = {multi_round_schemas.FIELDS.get(id, id) for id in slots}
    assert names >= set(multi_round_schemas.ROUND)
    for id, slot in slots.items():
        field = multi_round_schemas.FIELDS.get(id, id)
        if field in multi_round_schemas.ROUND:
            assert slot.keywords["default"] == multi_round_schemas.ROUND[field], id
    assert [slot.id for slot in slots.values() if slot.keywords.get("optional")] == [
        "reward", "held_out_reward", "beta", "lowest_noise",
    ]  # fmt: skip
    assert {f"multi-round-{learner}" for learner in (*LEARNERS, "kept")} <= set(CURVES)


# ---- plans ----


def plan(learner: str = "ppo", lesson: RoundLesson = LESSON, **parts: Any) -> RoundPlan:
    empty, config = EncodedText("a cat", None), RoundConfig(learner=learner, steps=4, stop_from=2, stop_to=3)
    latent = {"samples": torch.zeros(1, *SHAPE)}
    made = KINDS[learner]([empty], empty, Colour(), None, latent, None, "text", config.method())
    return replace(made, lesson=lesson, **parts)


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_plan_says_whose_round_it_learns(learner: str) -> None:
    made = plan(learner, start={"a": torch.zeros(1)}, start_name="attune/cat_001.safetensors")
    assert made.method == f"multi-round-{learner}" and "Multi-Round" in made.title and made.rest == ""
    assert made.words == "Round 3 of 'my cat' goes on from the LoRA of round 2 (attune/cat_001.safetensors)."
    assert plan(learner).words == "Round 3 of 'my cat' begins with a fresh LoRA."
    settings = json.loads(json.dumps(made.settings()))
    assert (settings["session"], settings["round"], settings["after"]) == (LESSON.session, 3, LESSON.after)
    assert settings["images_per_prompt"] == 4 and "my cat" not in str(settings), "a file tells no names"
    denoiser = SimpleNamespace(prompt=lambda text, conditioning: Prompt(text, torch.zeros(3, CONTEXT)))
    built = made.build(denoiser, Decoder(), [], SHAPE, lambda *phase: None)
    assert built.about == {"words": made.words, "session": LESSON.session, "round": 3}


def kept_plan(count: int = 1, lesson: RoundLesson = LESSON, **parts: Any) -> KeptRoundPlan:
    text, config = EncodedText("a cat", None), RoundConfig(learner="kept", images_per_prompt=3).method()
    rounds = [(text, KeptPictures("a cat", torch.ones(1, *SHAPE), torch.zeros(3, *SHAPE))) for _ in range(count)]
    return KeptRoundPlan(rounds, text, text, None, "text", config, lesson=lesson, **parts)


def test_a_plan_of_what_is_kept_says_so_and_knows_it() -> None:
    made = kept_plan(2)
    assert (made.method, made.title, made.rest, made.batch) == ("multi-round-kept", "Multi-Round (kept)", "", 6)
    assert made.words == "Round 3 of 'my cat' learns what you want to keep of 2 rounds."
    settings = json.loads(json.dumps(made.settings()))
    assert (settings["batch"], settings["rounds"], settings["lowest_noise"]) == (3, 2, 0.75)
    denoiser = SimpleNamespace(prompt=lambda text, conditioning: Prompt(text, torch.zeros(3, CONTEXT)))
    loaded = made.load(SimpleNamespace(inward=lambda latents: 2 * latents))
    model = SimpleNamespace(model=SimpleNamespace(latent_format=SimpleNamespace(latent_channels=SHAPE[0])))
    assert made.latent_shape(model, loaded) == SHAPE and loaded[0].eq(2).all()
    built = made.build(denoiser, Decoder(), loaded, SHAPE, lambda *phase: None)
    assert len(built.pairs) == 6 and built.about["words"] == made.words
    model.model.latent_format.latent_channels += 1
    with pytest.raises(AttuneError, match="drawn by another kind of model"):
        made.latent_shape(model, loaded)
    other = (EncodedText("a cat", None), KeptPictures("a cat", torch.ones(1, *SHAPE), torch.ones(3, *SHAPE)))
    hashes = {plan.data_hash() for plan in (made, kept_plan(1), replace(made, rounds=[other]))}
    assert len(hashes) == 3 and kept_plan(2).data_hash() == made.data_hash()


def test_where_nothing_is_kept_nothing_is_learned() -> None:
    assert "nothing is to be kept" in kept_plan(0).rest and "keep the background" in kept_plan(0).rest
    assert "nobody has said anything yet" in kept_plan(0, FIRST).rest
    assert "made again" in kept_plan(0, replace(LESSON, again=True)).rest


def test_what_is_learned_is_known_by_all_that_it_depends_on() -> None:
    held_out = Colour()
    held_out.reward_id = "another"
    known = plan().data_hash()
    assert known == plan().data_hash() != replace(plan(), prompts=[EncodedText("a dog", None)]).data_hash()
    others = [
        plan(lesson=replace(LESSON, session="6" * 32)), plan(lesson=replace(LESSON, after="8" * 32)),
        plan(lesson=replace(LESSON, version="f" * 16)), plan(made_of="another VAE"), plan(held_out=held_out),
    ]  # fmt: skip
    assert len({known, *(other.data_hash() for other in others)}) == 6
    assert plan(lesson=replace(LESSON, name="your cat")).data_hash() == known, "a new name is no other session"


def test_nothing_is_learned_before_somebody_said_something_nor_where_a_round_is_made_again() -> None:
    assert "nobody has said anything yet" in plan(lesson=FIRST).rest
    again = replace(LESSON, again=True)
    assert (
        "made again with the LoRA it had (attune/x.safetensors)"
        in plan(lesson=again, start_name="attune/x.safetensors").rest
    )
    assert "as it was, without a LoRA" in plan(lesson=replace(again, version="")).rest
    assert "as it was" in plan(lesson=replace(FIRST, again=True)).rest, "also the first one"


def test_other_objectives_are_trained_as_ever(tmp_path: Path) -> None:
    """Nothing of the rounds is in the way of a plan that knows none."""
    empty = EncodedText("", None)
    other = DDPOPlan([empty], empty, Colour(), None, {}, None, "", DDPOConfig())
    assert without_training(SimpleNamespace(plan=other)) is None
    assert goes_on(other, tmp_path, 4, asked=True) and not goes_on(other, tmp_path, 4, asked=False)
    assert start_of(other, None) is None and start_of(other, {"a": 1}) == {"a": 1}


def test_a_round_begins_with_the_sessions_lora_and_else_with_what_is_connected() -> None:
    own, connected = {"own": torch.zeros(1)}, {"connected": torch.zeros(1)}
    assert start_of(plan(start=own), connected) is own
    assert start_of(plan(), connected) is connected
    assert start_of(plan(), None) is None


def test_a_round_goes_on_with_its_own_unfinished_state_alone(tmp_path: Path) -> None:
    made = plan()
    assert not goes_on(made, tmp_path, 4, asked=True), "there is none"
    StateFolder(tmp_path).write(2, {"identity": {"data": made.data_hash()}})
    assert goes_on(made, tmp_path, 4, asked=True)
    assert not goes_on(made, tmp_path, 4, asked=False), "start fresh"
    assert not goes_on(made, tmp_path, 2, asked=True), "it is complete: other settings make another LoRA"
    assert not goes_on(plan(lesson=replace(LESSON, after="8" * 32)), tmp_path, 4, asked=True), "another round's"


# ---- which LoRA belongs to which round ----


def test_the_wire_of_a_session_gives_the_lesson_and_nothing_else_does(tmp_path: Path) -> None:
    sessions = opened(tmp_path)
    state = sessions.create("cat", "a cat", "a hat")
    lesson = lesson_of(Draft.of(state))
    assert lesson == RoundLesson(state.key, "cat", 1, "", "a cat", "a hat")
    state = play(sessions, state, lora=lora_record("d" * 64, "0123456789abcdef"))
    lesson = lesson_of(Draft.of(state).with_(prompt="a blue cat"))
    assert (lesson.number, lesson.after, lesson.prompt) == (2, state.path[0].key, "a blue cat")
    assert (lesson.version, lesson.version_round) == ("0123456789abcdef", 1)
    with pytest.raises(AttuneError, match="This is no refinement session"):
        lesson_of({"samples": torch.zeros(1)})


def test_the_wire_gives_what_is_kept_until_it_is_let_go(tmp_path: Path) -> None:
    sessions = opened(tmp_path)
    state = sessions.create("cat", "a cat")
    latents = torch.arange(24.0).reshape(2, 3, 2, 2)

    def said(comment: str, **changes: Any) -> list[KeptPictures]:
        nonlocal state
        feedback = Feedback(comment, **({"liked": (1,)} | changes))
        state = play(sessions, state, feedback=feedback, latents=latents)
        return Draft.of(state, sessions).kept()

    assert said("make it blue") == []
    (one,) = said("replace the cat with a dog, keep the background")
    assert one.prompt == "a cat" and torch.equal(one.liked, latents[1:]) and torch.equal(one.others, latents[:1])
    assert len(said("in a flat style")) == 1, "it goes on"
    assert len(said("keep everything else", liked=(0,))) == 2
    assert Draft.of(state).kept() == [], "nobody is to read it"
    assert len(said("keep the colours", liked=(0, 1))) == 2, "all were liked: nothing was passed over"
    assert said("the background may change") == [], "the colours' round taught nothing, all else held the background"
    assert len(said("keep the look")) == 1
    state = sessions.undo(state.key, state.revision)
    assert Draft.of(state, sessions).kept() == []


def test_what_may_change_again_is_let_go_alone(tmp_path: Path) -> None:
    sessions = opened(tmp_path)

    def kept_after(*comments: str) -> list[int]:
        state = sessions.create(", ".join(comments)[:60], "a brown cat with a brown hat in a forest")
        for comment in comments:
            state = play(sessions, state, prompt=state.current_prompt, feedback=Feedback(comment, liked=(1,)))
        return [past.number for past in kept_rounds(state)]

    assert kept_after("keep the hat", "keep the forest", "the hat may change") == [2]
    assert kept_after("keep the hat and the forest", "in a flat style", "the hat may change now") == [1]
    assert kept_after("make it blue, don't change anything else", "more snow") == [1]
    assert kept_after("keep the rest", "keep the forest", "the hat may change") == [2]
    assert kept_after("keep the hat", "the rest may change") == [1]
    assert kept_after("keep everything else", "keep the hat", "everything else may change") == [2]
    assert kept_after("keep everything", "keep the forest", "keep the hat, everything else may change") == [3]
    assert kept_after("keep everything", "everything but the hat may change") == [2]
    assert kept_after("keep the colours", "keep the hats", "the colours may change") == [2]
    assert kept_after("keep the hats", "keep the colors", "the hat may change") == [2]
    assert kept_after("keep the brown hat", "keep the brown cat", "the brown cat may change") == [1]
    assert kept_after("keep the hat", "keep the forest", "everything may change") == []
    assert kept_after("keep the mood", "keep the poses", "the mood may change") == [2]
    assert kept_after("keep the mood", "keep the poses", "the pose can change") == [1]
    assert kept_after("keep the cat", "keep the poses", "the cat's face may change") == [1, 2]
    assert kept_after("the rest should stay", "keep the forest", "the hat may change") == [2]


def test_undo_redo_branches_and_replay_find_the_version_of_their_round(tmp_path: Path) -> None:
    sessions = opened(tmp_path)
    state = play(sessions, sessions.create("cat", "a cat"))
    assert newest_version(state) == ("", 0), "the first round has none"
    one, two, three = ("1" * 16, "2" * 16, "3" * 16)
    state = play(sessions, state, lora=lora_record("d" * 64, one))
    state = play(sessions, state, lora=lora_record("e" * 64, two))
    state = play(sessions, state, lora="f" * 64)  # made without learning, with a LoRA of the artist's
    assert newest_version(state) == (two, 3), "what was learned is not lost by a round without learning"
    state = sessions.undo(state.key, state.revision)
    assert newest_version(state) == (two, 3)
    state = sessions.undo(state.key, state.revision)
    assert newest_version(state) == (one, 2)
    for made, version in ((state.path[0], ("", 0)), (state.path[1], (one, 2))):
        assert newest_version(sessions.state(state.key, replay=made.key)) == version
    propose(sessions, state, lora=lora_record("a" * 64, three))
    state = sessions.state(state.key)
    assert newest_version(state) == (one, 2), "a round that waits for an answer is not begun from"
    state = sessions.commit(state.key, state.revision, state.open.key, Feedback("bluer", liked=(1,)))
    assert newest_version(state) == (three, 3)
    state = sessions.branch(state.key, state.revision, None)
    assert newest_version(state) == ("", 0)


def test_a_versions_file_is_found_by_its_weights_wherever_it_lies(tmp_path: Path) -> None:
    tensors = {"a.lora_down.weight": torch.ones(2, 3), "a.lora_up.weight": torch.ones(3, 2)}
    about = LoraMetadata(title="cat", settings={"objective": {"session": "5" * 32, "round": 2}})
    save_lora(tmp_path / "attune" / "cat_001.safetensors", tensors, metadata=about)
    (tmp_path / "attune" / "torn.safetensors").write_bytes(b"torn")
    folder = tmp_path / "attune"
    stored = stored_lora(lambda header: True, folder)
    identity = weights_id(stored.tensors)
    assert stored.name == "attune/cat_001.safetensors" and settings_of(stored.header)["objective"]["round"] == 2
    (folder / "old").mkdir()
    (folder / "cat_001.safetensors").rename(folder / "old" / "renamed.safetensors")
    found, name = session_lora(replace(LESSON, version=identity), folder)
    assert name == "attune/old/renamed.safetensors" and found.keys() == stored.tensors.keys()
    assert session_lora(FIRST, folder) == (None, "")
    assert stored_lora(with_identity("f" * 16), folder) is None
    with pytest.raises(AttuneError, match=r"cannot go on from round 2: its LoRA is no longer in .*trash"):
        session_lora(LESSON, folder)
    with pytest.raises(AttuneError, match="Round 2 cannot be made again as it was"):
        session_lora(replace(LESSON, again=True), folder)


def test_a_header_that_says_nothing_usable_is_nobodys() -> None:
    for text in ("", "no JSON", "[1]", "null"):
        assert settings_of({"attune.settings": text}) == {}
