"""Pairs from scores, and the plans of Diffusion-DPO and ReFL, without a host."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from attune.nodes import picture_lists
from attune.nodes.training import align_schemas, pairs, plan_dpo, plan_refl, plans
from attune.nodes.training.figures import first_curves
from attune.nodes.training.pair_sheet import pair_sheet, summary
from attune.training.interfaces import AttuneError, Prompt, RewardError, TrainingError
from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig
from attune.training.objectives.refl import ReFLConfig, ReFLObjective


class Brightness:
    name, reward_id, differentiable, higher_is_better = "Brightness", "brightness", True, True

    def __init__(self):
        self.seen = []

    def __call__(self, images, prompts, context=None):
        self.seen.append((tuple(images.shape), tuple(prompts)))
        return images.mean((1, 2, 3))


class Guarded(Brightness):
    def unsafe(self, images):
        return images.mean((1, 2, 3)) > 0.85


def grey(*levels, size=8):
    return torch.stack([torch.full((size, size, 3), level) for level in levels])


def paired(scores, prompts=None, **words):
    words = {"pairing": "each picture once", "least_margin": 0.0, "higher_is_better": True} | words
    return pairs.pair_up(prompts or ["p"] * len(scores), scores, **words)


def places(found):
    return [(pair.chosen, pair.rejected) for pair in found.pairs]


# ---- pairs ----


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("each picture once", [(1, 0), (3, 4)]),
        ("best against worst", [(1, 0)]),
        ("all", [(1, 3), (1, 2), (1, 4), (1, 0), (3, 2), (3, 4), (3, 0), (2, 4), (2, 0), (4, 0)]),
    ],
)
def test_pairing(pairing, expected):
    """Ranking of .1 .9 .5 .7 .3: pictures 1, 3, 2, 4, 0."""
    assert places(paired([0.1, 0.9, 0.5, 0.7, 0.3], pairing=pairing)) == expected
    with pytest.raises(ValueError, match="'best of 3'"):
        paired([0.1, 0.9], pairing="best of 3")


def test_pairs_stay_within_a_prompt_and_a_cost_turns_them_round():
    found = paired([1.0, 5.0, 2.0, 4.0], ["a", "b", "a", "b"])
    assert [(pair.prompt, pair.chosen, pair.rejected, pair.margin) for pair in found.pairs] == [
        ("a", 2, 0, 1.0),
        ("b", 1, 3, 1.0),
    ]
    assert places(paired([1.0, 5.0], higher_is_better=False)) == [(0, 1)]


def test_ties_lonely_and_blocked_pictures_are_left_out_and_counted():
    """Prompt a: .5 .5 tie; b: .9 .4 of three, one blocked; c: alone; d: closer than the least margin."""
    found = paired([0.5, 0.5, 0.4, math.nan, 0.9, 0.1, 0.2, 0.25], list("aabbbcdd"), least_margin=0.1)
    assert places(found) == [(4, 2)]
    assert (found.ties, found.lonely, found.blocked) == (2, 1, 1)
    text = summary(found, list("aabbbcdd"), "Brightness")
    assert text.startswith("1 pair of 1 prompt from 8 pictures, by Brightness; margins 0.5 to 0.5")
    assert text.endswith("Left out: 2 ties, 1 picture held back by the safety gate, 1 prompt with a single picture.")
    assert "Left out" not in summary(paired([0.1, 0.2]), ["p", "p"], "x")


@pytest.mark.parametrize(
    ("scores", "prompts", "said"),
    [
        ([0.5, 0.5], "aa", "all 1 that 2 pictures could make differ by 0.2 or less"),
        ([0.5, 0.9], "ab", "2 pictures of 2 prompts leave no prompt with two"),
        ([math.nan, math.nan], "aa", "safety gate held back all 2"),
    ],
)
def test_no_pair_at_all_says_why(scores, prompts, said):
    with pytest.raises(AttuneError, match=said):
        paired(scores, list(prompts), least_margin=0.2)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        (["a"], ["a"] * 3),
        (["a\nb\nc"], ["a", "b", "c"]),
        (["a\nb"], ["a", "a", "b"]),  # one per batch
        (["long\nlined", "b"], ["long lined", "long lined", "b"]),
        (["a", "b", "c"], ["a", "b", "c"]),
    ],
)
def test_prompts_of_pictures(prompts, expected):
    assert picture_lists.prompts_of([grey(0.1, 0.2), grey(0.3)], prompts) == expected


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (["a"] * 4, "3 pictures in 2 batches, but 4 prompts"),
        (["a", " "], "prompt of picture 3 of 3"),
        ([""], "picture 1"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(prompts, said):
    with pytest.raises(AttuneError, match=said):
        picture_lists.prompts_of([grey(0.1, 0.2), grey(0.3)], prompts)


def test_scores_of_mixed_sizes_come_in_order_and_blocked_ones_are_not_scored():
    pictures = picture_lists.single_pictures([grey(0.1, 0.9, 0.3), grey(0.2, size=16)])
    reward, told = Guarded(), []
    found = picture_lists.score_pictures(pictures, ["p", "q", "r", "s"], reward, lambda: told.append(1))
    assert found[0::2] + found[3:] == pytest.approx([0.1, 0.3, 0.2]) and math.isnan(found[1])
    assert reward.seen == [((2, 8, 8, 3), ("p", "r")), ((1, 16, 16, 3), ("s",))]
    assert len(told) == 4


def test_a_reward_that_compares_sees_the_pictures_of_one_prompt_at_once():
    class Comparing(Brightness):
        compares_batch = True

    reward = Comparing()
    picture_lists.score_pictures(
        list(grey(*[0.05 * step for step in range(20)])), ["a", "b"] * 10, reward, lambda: None
    )
    assert [shape[0] for shape, _ in reward.seen] == [10, 10]
    assert all(len(set(prompts)) == 1 for _, prompts in reward.seen)


def test_what_cannot_be_scored_is_refused():
    class Dialogue(Brightness):
        needs_previous = True

    class Broken(Brightness):
        def __call__(self, images, prompts, context=None):
            return torch.full((len(images),), math.nan)

    with pytest.raises(AttuneError, match="earlier rounds"):
        picture_lists.score_pictures(list(grey(0.1)), ["p"], Dialogue(), lambda: None)
    with pytest.raises(RewardError, match="nan"):
        picture_lists.score_pictures(list(grey(0.1)), ["p"], Broken(), lambda: None)
    with pytest.raises(AttuneError, match="no pictures"):
        picture_lists.single_pictures([torch.zeros(0, 8, 8, 3)])
    with pytest.raises(AttuneError, match="shape"):
        picture_lists.single_pictures([torch.zeros(8, 8, 3)])


@pytest.mark.parametrize("count", [1, 3, 40])
def test_sheet_frames_the_chosen_picture(count):
    """Every pair is a light and a dark picture; the light one stands left, within the frame's green."""
    pictures = list(grey(*[level for _ in range(count) for level in (0.25, 0.75)], size=64))
    prompts = [f"prompt {index // 2}" for index in range(2 * count)]
    found = paired([picture.mean().item() for picture in pictures], prompts)
    sheet = pair_sheet(found, pictures, prompts, "Brightness")
    left, right = sheet.getpixel((16 + 72, 84 + 72)), sheet.getpixel((16 + 150 + 72, 84 + 72))
    assert left == (191, 191, 191) and right == (64, 64, 64)
    frame = sheet.getpixel((16 + 1, 84 + 72))
    assert frame[1] > frame[0] + 40
    assert sheet.height < 1100


# ---- the plan of Diffusion-DPO ----


def made_pairs(count=10, *, shared=()):
    shades = torch.rand(2, count, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    chosen, rejected = shades
    for index in shared:
        rejected[index] = chosen[0]
    return [plan_dpo.PicturePair(*both, plans.EncodedText(f"thing {index}", None))
            for index, both in enumerate(zip(chosen, rejected, strict=True))]  # fmt: skip


def preference_plan(made, **words):
    texts = [pair.caption for pair in made[:2]]
    config = words.pop("config", DiffusionDPOConfig(batch=4, chunk=3))
    return plan_dpo.PreferencePlan(made, texts, plans.EncodedText("", None), None, "", config, **words)


class Decoder:
    encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return images.movedim(-1, 1)


class Denoiser:
    @staticmethod
    def prompt(text, conditioning):
        return Prompt(text, conditioning)


def test_pictures_are_encoded_once_and_reach_their_pairs():
    made = made_pairs(shared=(3, 4))
    plan, decoder, told = preference_plan(made, held_out_share=0.2), Decoder(), []
    latents = plan.load(decoder, lambda *phase: told.append(phase))
    assert decoder.encoded == 18 and len(latents) == 20
    assert told[0] == ("encode", 0, 18) and told[-1] == ("encode", 18, 18)
    objective = plan.build(Denoiser(), decoder, latents, plan.latent_shape(None, latents), lambda *phase: None)
    by_prompt = {pair.prompt.text: pair for pair in (*objective.pairs, *objective.held_out)}
    assert len(by_prompt) == 10 and len(objective.held_out) >= 2
    for pair in made:
        assert torch.equal(by_prompt[pair.caption.text].chosen, pair.chosen.movedim(-1, 0))
        assert torch.equal(by_prompt[pair.caption.text].rejected, pair.rejected.movedim(-1, 0))
    together = {f"thing {index}" for index in (0, 3, 4)}
    held = {pair.prompt.text for pair in objective.held_out}
    assert together <= held or not together & held
    assert [prompt.text for prompt in objective.sample_requests()] == ["thing 0", "thing 1"]


def test_data_hash_changes_with_what_is_learned():
    made = made_pairs()
    others = [
        preference_plan(made, held_out_share=0.3),
        preference_plan(made[1:]),
        preference_plan([replace(made[0], weight=2.0), *made[1:]]),
        preference_plan([replace(made[0], verdict="tie"), *made[1:]]),
        preference_plan([replace(made[0], chosen=made[0].rejected, rejected=made[0].chosen), *made[1:]]),
        preference_plan([replace(made[0], caption=plans.EncodedText("other", None)), *made[1:]]),
    ]
    hashes = {preference_plan(made).data_hash(), *(plan.data_hash() for plan in others)}
    assert len(hashes) == 7
    assert preference_plan(made_pairs()).data_hash() in hashes


def test_memory_counts_both_pictures_of_a_pair_and_the_knob_is_a_widget():
    plan = preference_plan(made_pairs())
    assert plan.batch == 6
    assert plan.batch_knob.startswith("chunk (now 3;") and "chunk" not in plan.config.identity()
    assert "chunk" in [name for _, name, _ in align_schemas.DPO_OBJECTIVE]
    assert preference_plan(made_pairs(), config=DiffusionDPOConfig(batch=1, chunk=8)).batch == 2
    assert plan.settings()["held_out"] == plan_dpo.HELD_OUT
    assert first_curves(plan.method)[0] == "held_out_accuracy"


def test_images_become_pairs_of_one_size():
    chosen, rejected = [torch.rand(8, 32, 64, 4)], [torch.rand(5, 32, 64, 3), torch.rand(3, 64, 128, 3)]
    found = plan_dpo.image_pairs(chosen, rejected, ["a cat"], resolution=32)
    assert len(found) == 8
    assert {tuple(picture.shape) for one, other, _ in found for picture in (one, other)} == {(24, 48, 3)}
    assert {caption for *_, caption in found} == {"a cat"}


def test_images_that_are_no_pairs_are_refused():
    eight = [torch.rand(8, 32, 32, 3)]
    for chosen, rejected, captions, said in (
        (eight, [torch.rand(7, 32, 32, 3)], ["a"], "8 chosen pictures but 7 rejected"),
        (eight, [torch.rand(8, 32, 64, 3)], ["a"], r"pair 1 have different sizes \(32×32 chosen, 64×32 rejected\)"),
        (eight, eight, ["a"], "same picture as chosen and as rejected"),
        (eight, [torch.rand(8, 32, 32, 3)], ["a", "b"], "8 pictures but 2 captions"),
        ([torch.rand(3, 32, 32, 3)], [torch.rand(3, 32, 32, 3)], ["a"], "at least 8"),
    ):
        with pytest.raises(AttuneError, match=said):
            plan_dpo.image_pairs(chosen, rejected, captions, resolution=0)


# ---- the plan of ReFL ----


def test_refl_plan_goes_by_its_mode():
    empty = plans.EncodedText("", None)
    kinds = [plan_refl.ReFLPlan([empty], empty, Brightness(), None, {}, None, "", config)
             for config in (ReFLConfig(), ReFLConfig(mode="draft", last_steps=3, prompts_per_update=1))]  # fmt: skip
    assert [plan.method for plan in kinds] == ["refl", "draft"]
    assert [plan.title for plan in kinds] == ["ReFL", "DRaFT-3"]
    assert [plan.batch for plan in kinds] == [4, 2]
    for plan in kinds:
        objective = plan.build(Denoiser(), Decoder(), [], (3, 4, 4), lambda *phase: None)
        assert isinstance(objective, ReFLObjective) and objective.name == plan.method
        assert plan.curve_titles["reward"] == "Reward: Brightness"
        assert first_curves(plan.method)[0] == "reward"


def test_a_reward_without_gradients_is_refused_before_anything_is_encoded():
    class Words(Brightness):
        name, differentiable = "Words in the picture", False

    with pytest.raises(TrainingError, match="Words in the picture gives scores without gradients"):
        plan_refl.refl_plan(None, None, {}, Words(), None, prompts="a", negative="", config=ReFLConfig())


def test_every_setting_has_a_widget_with_its_default():
    """By the names that the nodes hand on; see their `execute`."""
    renamed = {"batch": "pairs_per_update", "steps": "sampler_steps", "guidance": "cfg"}
    for config, slots in (
        (DiffusionDPOConfig(), align_schemas.DPO_OBJECTIVE),
        (ReFLConfig(), align_schemas.REFL_OBJECTIVE),
    ):
        widgets = {slot.id: slot.keywords.get("default") for slot in slots}
        for name, value in vars(config).items():
            assert widgets[renamed.get(name, name)] == value
