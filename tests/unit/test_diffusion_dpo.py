"""Diffusion-DPO against closed forms, finite differences and limiting cases; the split of its pairs."""

from __future__ import annotations

import dataclasses
import math
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.interfaces import Prompt, TrainingError
from attune.training.objectives.diffusion_dpo import (
    DiffusionDPOConfig,
    DiffusionDPOObjective,
    Look,
    Pair,
    accuracy,
    level_quantiles,
    parts_of_one_size,
    preference_loss,
)
from attune.training.objectives.supervised import draw_sigmas
from attune.training.pair_split import split_pairs
from attune.training.share import Share

PREDICTIONS = ["eps", "v", "flow"]


class Shifted(nn.Module):
    """The exact denoiser of a mixture plus a trainable shift of x0: a policy with two parameters and a reference."""

    device, unconditional = torch.device("cpu"), "empty"

    def __init__(self, prediction="eps", shift=(0.0, 0.0)):
        super().__init__()
        means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        self.base = MixtureDenoiser(process_of(prediction), means, 0.3, torch.tensor([0.5, 0.5]))
        self.process = self.base.process
        self.shift = nn.Parameter(torch.tensor(shift))
        self.on, self.seen = True, []

    @contextmanager
    def role(self, name):
        assert name is None
        self.on = False
        yield self
        self.on = True

    def training_mode(self, on):
        pass

    @property
    def compared(self):
        """The calls for pairs: the drift is measured on single pictures."""
        return [call for call in self.seen if call[0] > 1]

    def forward(self, x, sigma, cond, *, guidance=1.0):
        self.seen.append((len(x), torch.is_grad_enabled(), self.on, tuple(cond)))
        x0 = torch.cat([self.base(column, sigma) for column in x.split(1, 3)], 3)
        return x0 + self.shift.reshape(1, 2, 1, 1) if self.on else x0


def pairs(count, *, width=1, seed=0, **words):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, 2, 2, 1, width, generator=generator)
    return [Pair(chosen, rejected, Prompt(f"prompt {index}", f"cond {index}"), **words)
            for index, (chosen, rejected) in enumerate(drawn)]  # fmt: skip


def dpo(policy, learned, *, share=None, held_out=(), **knobs):
    settings = {"batch": 4, "beta": 10.0, "caption_dropout": 0.0} | knobs
    objective = DiffusionDPOObjective(learned, DiffusionDPOConfig(**settings), held_out=held_out)
    objective.prepare(policy, *(() if share is None else (share,)))
    return objective


def gradient(policy, objective, seed=0):
    policy.shift.grad = None
    total = sum(objective.losses(torch.Generator().manual_seed(seed)))
    total.backward()
    return total.item(), policy.shift.grad.clone()


# ---- the loss ----


def test_loss_closed_form():
    """β = 2, errors .5 and .3 against references .9 and .2: rewards −(.5 − .9) = .4 and −(.3 − .2) = −.1, so the margin
    is .5 and the loss log(1 + e^−.5) = .474077. The slope −σ(−.5) = −.377541 reaches the errors times ∓1."""
    chosen, rejected = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.5, 0.3))
    references = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (0.9, 0.2)]
    found = preference_loss(chosen, rejected, *references, beta=2.0)
    found.loss.sum().backward()
    assert found.loss.item() == pytest.approx(0.474077, abs=1e-6)
    assert [part.item() for part in found[1:]] == pytest.approx([0.5, 0.4, -0.1])
    assert chosen.grad.item() == pytest.approx(0.377541, abs=1e-6)
    assert rejected.grad.item() == pytest.approx(-0.377541, abs=1e-6)
    assert references[0].grad is None and references[1].grad is None
    assert not any(part.requires_grad for part in found[1:])


def test_loss_passes_gradcheck():
    chosen, rejected = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    references = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inputs = (chosen.requires_grad_(), rejected.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: preference_loss(a, b, *references, beta=7.0).loss, inputs)


def test_swapping_the_pair_flips_the_margin():
    errors = torch.rand(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one = preference_loss(*errors, beta=3.0)
    other = preference_loss(*errors[[1, 0, 3, 2]], beta=3.0)
    torch.testing.assert_close(one.margin, -other.margin)
    torch.testing.assert_close(one.chosen_reward, other.rejected_reward)
    # −log σ(m) + log σ(−m) = −m
    torch.testing.assert_close(one.loss - other.loss, -one.margin)


def test_small_beta_is_the_difference_of_errors():
    """L = log 2 − margin/2 + O(β²), so that gradient/β → ¼·(∇ℓ_w − ∇ℓ_l)."""
    chosen, rejected = (torch.rand(3, dtype=torch.float64).requires_grad_() for _ in range(2))
    beta = 1e-6
    loss = preference_loss(chosen, rejected, torch.rand(3), torch.rand(3), beta=beta).loss
    torch.testing.assert_close(loss.detach(), torch.full((3,), math.log(2), dtype=torch.float64), rtol=0, atol=1e-5)
    loss.sum().backward()
    quarter = torch.full((3,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(chosen.grad / beta, quarter, rtol=1e-5, atol=0)
    torch.testing.assert_close(rejected.grad / beta, -quarter, rtol=1e-5, atol=0)


def test_huge_margins_stay_finite():
    chosen = torch.tensor([1e6, 0.0], requires_grad=True)
    loss = preference_loss(chosen, torch.tensor([0.0, 1e6]), torch.zeros(2), torch.zeros(2), beta=5000.0).loss
    loss.sum().backward()
    assert loss.tolist() == [2.5e9, 0.0]
    assert chosen.grad.tolist() == [2500.0, 0.0]


def test_accuracy_counts_a_margin_of_zero_half():
    assert accuracy(torch.tensor([1.0, 0.0, -1.0, 2.0])) == 0.625


# ---- through the network ----


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_untrained_policy_has_loss_log_2_exactly(prediction):
    objective = dpo(Shifted(prediction), pairs(4), beta=5000.0)
    total = sum(objective.losses(torch.Generator().manual_seed(0)))
    assert total.item() == pytest.approx(math.log(2), rel=1e-6)
    still = dict.fromkeys(("margin", "chosen_reward", "rejected_reward", "kl_to_reference"), 0.0)
    assert objective.metrics() == still | {"accuracy": 0.5}


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gradient_of_the_untrained_policy_is_the_one_derived(prediction):
    """With x̂0 = D(x) + s: ℓ = mean w·(D + s − x0)², so at s = 0 ∇ℓ = 2·w·(D − x0)/CHW summed over H and W. At a margin
    of 0 ∇L = −½·∇margin = ¼β·(∇ℓ_w − ∇ℓ_l). w is the weight of the network's own target: σ⁻² for the noise of eps and
    the velocity of flow models, 1 + σ⁻² for v, whatever the level."""
    policy = Shifted(prediction)
    objective = dpo(policy, pairs(3), batch=3, beta=10.0, chunk=3)
    looks = [objective._look(torch.Generator().manual_seed(seed)) for seed in range(3)]
    given = iter(looks)
    objective._look = lambda generator: next(given)
    _, found = gradient(policy, objective)
    expected = torch.zeros(2)
    for look in looks:
        weight = look.sigma**-2 + (1 if prediction == "v" else 0)
        for picture, sign in ((look.pair.chosen, 1), (look.pair.rejected, -1)):
            sigma = look.sigma.reshape(1)
            x = policy.process.add_noise(picture[None], look.noise[None], sigma)
            error = policy.base(x, sigma)[0] - picture
            expected += 0.25 * 10.0 * sign * 2 * weight * error.flatten() / 2 / 3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.abs().max() > 1e-3


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gradient_is_that_of_finite_differences(prediction):
    """In float64 from the draws on: the objective casts latents to float32, so its parts are used by themselves."""
    policy = Shifted(prediction, (0.1, -0.2)).double()
    generator = torch.Generator().manual_seed(4)
    looks = [Look(pair, draw_sigmas(policy.process, 1, generator)[0], torch.randn(2, 1, 1, generator=generator))
             for pair in pairs(4)]  # fmt: skip
    objective = dpo(policy, pairs(4))

    def loss(shift):
        policy.shift.data = shift
        return objective._compare(looks).loss.sum()

    policy.shift.grad = None
    start = torch.tensor([0.1, -0.2], dtype=torch.float64)
    loss(start).backward()
    for axis in torch.eye(2, dtype=torch.float64):
        step = 1e-5 * axis
        slope = (loss(start + step) - loss(start - step)) / 2e-5
        assert (policy.shift.grad @ axis).item() == pytest.approx(slope.item(), rel=2e-5)


def test_reference_is_the_adapter_off_and_without_gradients():
    policy = Shifted(shift=(0.5, 0.0))
    list(dpo(policy, pairs(4), chunk=2).losses(torch.Generator().manual_seed(0)))
    assert [(size, grad, on) for size, grad, on, _ in policy.compared] == [(4, False, False), (4, True, True)] * 2


def test_order_within_a_call_does_not_matter():
    """The same look with the rejected picture first has the same loss, margin and rewards; both orders are drawn."""
    policy = Shifted(shift=(0.3, 0.1))
    objective = dpo(policy, pairs(12))
    looks = [objective._look(torch.Generator().manual_seed(seed)) for seed in range(12)]
    assert {look.rejected_first for look in looks} == {True, False}
    turned = [dataclasses.replace(look, rejected_first=not look.rejected_first) for look in looks]
    for one, other in zip(objective._compare(looks), objective._compare(turned), strict=True):
        torch.testing.assert_close(one, other)


def test_swapped_pairs_have_the_opposite_margins():
    policy = Shifted(shift=(0.3, 0.1))
    learned = pairs(4)
    swapped = [dataclasses.replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in learned]
    margins = []
    for data in (learned, swapped):
        objective = dpo(policy, data)
        list(objective.losses(torch.Generator().manual_seed(2)))
        margins.append(objective.metrics())
    assert margins[0]["margin"] == pytest.approx(-margins[1]["margin"])
    assert margins[0]["chosen_reward"] == pytest.approx(margins[1]["rejected_reward"])
    assert margins[0]["accuracy"] == pytest.approx(1 - margins[1]["accuracy"])
    assert abs(margins[0]["margin"]) > 1e-3


def test_caption_is_dropped_for_both_pictures_at_once_and_for_the_reference_too():
    policy = Shifted()
    list(dpo(policy, pairs(16), batch=16, caption_dropout=0.5, chunk=16).losses(torch.Generator().manual_seed(0)))
    (*_, reference), (*_, learned) = policy.compared
    assert reference == learned
    both = [learned[row : row + 2] for row in range(0, 32, 2)]
    assert all(first == second for first, second in both)
    dropped = [first == "empty" for first, _ in both]
    assert any(dropped) and not all(dropped)


def test_ties_and_skipped_pairs_teach_nothing_and_are_counted():
    policy = Shifted()
    learned = pairs(4)
    others = [*pairs(2, seed=7, verdict="tie"), *pairs(2, seed=8, verdict="skip"), *pairs(1, seed=9, weight=0.0)]
    plain, mixed = dpo(policy, learned), dpo(policy, [*others[:3], *learned, *others[3:]], held_out=others)
    assert (plain.left_out, mixed.left_out) == (0, 10)
    assert gradient(policy, plain)[0] == gradient(policy, mixed)[0]
    assert torch.equal(gradient(policy, plain, seed=1)[1], gradient(policy, mixed, seed=1)[1])
    assert mixed.evaluate() == {} and mixed.best_metric == ""


def test_weights_count_by_their_share():
    """Weights 3 and 1 of two pairs act like 1.5 and .5, whatever their unit."""
    policy = Shifted(shift=(0.2, 0.0))
    one, other = pairs(2)

    def loss(*weights):
        data = [dataclasses.replace(pair, weight=weight) for pair, weight in zip((one, other), weights, strict=True)]
        return gradient(policy, dpo(policy, data, batch=2))[1]

    heavy, light, even = loss(1.0, 1e-9), loss(1e-9, 1.0), loss(1.0, 1.0)
    torch.testing.assert_close((heavy + light) / 2, even)
    torch.testing.assert_close(loss(3.0, 1.0), 0.75 * heavy + 0.25 * light)
    torch.testing.assert_close(loss(30.0, 10.0), loss(3.0, 1.0))


def test_chunks_change_nothing():
    policy = Shifted(shift=(0.2, 0.0))
    data = pairs(5) + pairs(4, width=2, seed=1)
    found = [gradient(policy, dpo(policy, data, batch=9, chunk=chunk), seed=3) for chunk in (1, 2, 9)]
    for loss, slope in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(slope, found[0][1], rtol=1e-4, atol=1e-6)
    assert max(size for size, *_ in policy.seen) == 10, "two rows per pair, and buckets by size"


def test_buckets_hold_one_size_and_no_more_than_asked():
    looks = [Look(pair, torch.tensor(1.0), pair.chosen) for pair in (*pairs(3), *pairs(2, width=2), *pairs(1))]
    assert list(parts_of_one_size(looks, 2)) == [[0, 1], [2, 5], [3, 4]]


def test_accumulated_small_batches_draw_and_learn_what_a_large_one_does():
    policy = Shifted(shift=(0.2, 0.0))
    _, whole = gradient(policy, dpo(policy, pairs(5), batch=4), seed=6)
    policy.shift.grad = None
    small, generator = dpo(policy, pairs(5), batch=1), torch.Generator().manual_seed(6)
    for _ in range(4):
        for loss in small.losses(generator):
            (loss / 4).backward()
    torch.testing.assert_close(policy.shift.grad, whole)


def test_two_processes_of_half_the_batch_learn_what_one_does():
    class Part(Share):
        def __init__(self, index):
            self.index, self.count = index, 2

    policy = Shifted(shift=(0.2, 0.0))
    _, whole = gradient(policy, dpo(policy, pairs(5), batch=4), seed=6)
    halves = [gradient(policy, dpo(policy, pairs(5), batch=2, share=Part(index)), seed=6)[1] for index in (0, 1)]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_every_pair_is_seen_before_any_is_seen_twice_and_the_order_survives_a_resume():
    data = pairs(6)
    whole, generator = dpo(Shifted(), data), torch.Generator().manual_seed(0)
    seen = [whole._look(generator) for _ in range(12)]
    for epoch in (seen[:6], seen[6:]):
        assert len({look.pair.prompt.text for look in epoch}) == 6
    again, generator = dpo(Shifted(), data), torch.Generator().manual_seed(0)
    first = [again._look(generator) for _ in range(5)]
    resumed = dpo(Shifted(), data)
    resumed.load_state_dict(again.state_dict())
    rest = [resumed._look(generator) for _ in range(7)]
    for one, other in zip(seen, first + rest, strict=True):
        assert one.pair.prompt == other.pair.prompt
        assert torch.equal(one.noise, other.noise) and one.sigma == other.sigma


# ---- held-out pairs ----


def test_held_out_figures_are_fixed_by_the_weights_and_touch_no_randomness():
    policy = Shifted(shift=(0.1, 0.0))
    objective = dpo(policy, pairs(2), held_out=pairs(5, seed=5) + pairs(2, seed=6, width=2))
    state = torch.random.get_rng_state()
    first = objective.evaluate()
    assert torch.equal(torch.random.get_rng_state(), state)
    list(objective.losses(torch.Generator().manual_seed(0)))
    assert objective.evaluate() == first
    assert {objective.best_metric, objective.tie_metric} == {"held_out_accuracy", "held_out_margin"} == {*first}
    chunked = dpo(policy, pairs(2), held_out=objective.held_out, chunk=1).evaluate()
    assert chunked["held_out_margin"] == pytest.approx(first["held_out_margin"], rel=1e-5)
    with torch.no_grad():
        policy.shift.zero_()
    assert objective.evaluate() == {"held_out_accuracy": 0.5, "held_out_margin": 0.0}


def test_held_out_margin_is_the_mean_over_levels():
    policy = Shifted(shift=(0.1, 0.0))
    objective = dpo(policy, pairs(2), held_out=pairs(3, seed=5), held_out_levels=2)
    margins = torch.stack([objective._compare([look]).margin for look in objective._held_out_looks()]).reshape(3, 2)
    found = objective.evaluate()
    assert found["held_out_margin"] == pytest.approx(margins.mean().item(), rel=1e-5)
    assert found["held_out_accuracy"] == pytest.approx((margins.mean(1) > 0).float().mean().item())


@pytest.mark.parametrize("lowest", [0.0, 0.75])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_levels_stand_for_those_of_training(prediction, lowest):
    """As many draws fall below each level as its quantile says: (k + ½)/4."""
    process = process_of(prediction)
    levels = level_quantiles(process, 4, lowest=lowest)
    drawn = draw_sigmas(process, 20_000, torch.Generator().manual_seed(0), lowest=lowest)
    shares = [(drawn < level).float().mean().item() for level in levels]
    assert shares == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.015)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_learning_carries_over_to_held_out_pairs_and_beta_holds_it_back(prediction):
    """Chosen pictures lie 2 right of the rejected ones: the policy shifts right, less so with a larger β."""

    def data(count, seed):
        right = torch.tensor([2.0, 0.0]).reshape(2, 1, 1)
        return [dataclasses.replace(pair, chosen=pair.rejected + right) for pair in pairs(count, seed=seed)]

    shifts = []
    for beta in (1.0, 50.0):
        policy = Shifted(prediction)
        objective = dpo(policy, data(16, 0), held_out=data(32, 1), batch=8, beta=beta)
        optimizer, generator = torch.optim.Adam(policy.parameters(), lr=0.02), torch.Generator().manual_seed(0)
        for _ in range(60):
            optimizer.zero_grad()
            for loss in objective.losses(generator):
                loss.backward()
            optimizer.step()
        found = objective.evaluate()
        assert found["held_out_accuracy"] >= 0.95
        assert found["held_out_margin"] > 0.3
        shifts.append(policy.shift.tolist())
    assert shifts[0][0] > 3 * abs(shifts[0][1])
    assert shifts[0][0] > 1.5 * shifts[1][0] > 0


# ---- refusals ----


@pytest.mark.parametrize(
    ("knobs", "said"),
    [({"batch": 0}, "batch .*must"), ({"beta": 0.0}, "beta must be above 0"), ({"chunk": 0}, "chunk must"),
     ({"caption_dropout": 1.5}, "1.5"), ({"held_out_levels": 0}, "held_out_levels")],
)  # fmt: skip
def test_bad_settings_are_refused(knobs, said):
    with pytest.raises(TrainingError, match=said):
        DiffusionDPOConfig(**knobs)


def test_bad_pairs_are_refused():
    picture, prompt = torch.zeros(2, 1, 1), Prompt("a cat", None)
    with pytest.raises(TrainingError, match=r"'a cat'.*\(2, 1, 1\) and \(2, 2, 1\)"):
        Pair(picture, torch.zeros(2, 2, 1), prompt)
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(TrainingError, match="weight"):
            Pair(picture, picture, prompt, weight)
    with pytest.raises(TrainingError, match="'draw'"):
        Pair(picture, picture, prompt, verdict="draw")
    with pytest.raises(TrainingError, match="of 3 none has a preferred"):
        DiffusionDPOObjective(pairs(3, verdict="tie"), DiffusionDPOConfig())


def test_only_the_chunk_is_free_on_a_resume():
    settings = DiffusionDPOConfig()
    assert DiffusionDPOConfig(chunk=1).identity() == settings.identity()
    assert {field.name for field in dataclasses.fields(settings)} - set(settings.identity()) == {"chunk"}


# ---- the split ----


def test_no_prompt_and_no_picture_is_on_both_sides():
    """Prompts 0 and 1 share picture "x", 1 and 2 share "y": the three stay together."""
    prompts = ["p0", "P0 ", "p1", "p2", "p3", "p4", "p5"]
    pictures = [("a", "b"), ("c", "x"), ("x", "y"), ("y", "d"), ("e", "f"), ("g", "h"), ("i", "j")]
    sides = set()
    for seed in range(20):
        learned, measured = split_pairs(prompts, pictures, 0.3, seed=seed)
        assert sorted(learned + measured) == list(range(7)) and learned and measured
        for of in (lambda i: {prompts[i].strip().lower()}, lambda i: set(pictures[i])):
            assert not set().union(*map(of, learned)) & set().union(*map(of, measured))
        sides.add(tuple(measured))
    assert len(sides) > 2, "the seed decides"


def test_the_order_of_the_pairs_does_not_change_the_split():
    prompts = [f"p{i // 2}" for i in range(12)]
    pictures = [(f"a{i}", f"b{i}") for i in range(12)]
    measured = split_pairs(prompts, pictures, 0.25, seed=3)[1]
    turned = split_pairs(prompts[::-1], pictures[::-1], 0.25, seed=3)[1]
    assert sorted(11 - i for i in turned) == measured
    assert len(measured) == 4, "whole prompts of two pairs, until a quarter of the 12 is reached"


def test_one_prompt_for_all_is_split_by_pictures():
    learned, measured = split_pairs(["p"] * 6, [("a", "b"), ("b", "c"), *((f"d{i}", f"e{i}") for i in range(4))], 0.2,
                                    seed=0)  # fmt: skip
    assert measured and ({0, 1} <= set(learned) or {0, 1} <= set(measured))


def test_pairs_that_all_hang_together_cannot_be_split():
    with pytest.raises(TrainingError, match="set held_out to 0"):
        split_pairs(["p", "q"], [("a", "b"), ("b", "c")], 0.5, seed=0)
    assert split_pairs(["p", "q"], [("a", "b"), ("b", "c")], 0, seed=0) == ([0, 1], [])
