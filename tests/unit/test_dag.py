"""DAG's objective on a ring of modes in two dimensions, with a real LoRA policy."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import pytest
import torch

from attune.tests import mixture_bed as bed
from attune.tests.two_processes import in_two
from attune.training.adapters import LoraConfig, Policy
from attune.training.interfaces import Prompt, RewardError, RunCallbacks, TrainingError
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.dag_losses import pseudo_advantages, residual, unit_scale
from attune.training.objectives.transitions import step_weights
from attune.training.rollout import step_log_probability
from attune.training.trainer import TrainerConfig, train

CREDITS = pytest.mark.parametrize("credit", ["step", "to the end"])
VARIANTS = pytest.mark.parametrize("variant", ["DB", "KL"])
LORA = LoraConfig(rank=4, alpha=4.0, targets=("everything",), seed=1)
PROMPTS = [Prompt(f"point {index}", None) for index in range(3)]


@contextlib.contextmanager
def policy_of(*, moved=True, dropout=0.0):
    """A LoRA that does something, so that nothing is right only where it does not."""
    with Policy(bed.RingDenoiser(width=16), dataclasses.replace(LORA, dropout=dropout)) as policy:
        if moved:
            generator = torch.Generator().manual_seed(3)
            with torch.no_grad():
                for value in policy.parameters():
                    value.copy_(0.3 * torch.randn(value.shape, generator=generator))
        yield policy


def dag(policy, reward=None, *, prompts=PROMPTS, moved=True, share=None, held_out=None, **knobs):
    """An objective whose flow network is moved away from zero."""
    settings = {
        "prompts_per_update": 2, "images_per_prompt": 3, "steps": 6, "guidance": 1.0, "transitions": 3, "beta": 0.7,
        "anneal_updates": 0, "chunk": 5, "flow_channels": (16, 32), "clip_range": 0.1,
    } | knobs  # fmt: skip
    objective = DAGObjective(
        prompts, reward or bed.TargetReward(), bed.PointDecoder(), DAGConfig(**settings),
        latent_shape=bed.LATENT_SHAPE, held_out=held_out,
    )  # fmt: skip
    objective.prepare(policy, *([share] if share else []))
    if moved:
        with torch.no_grad():
            torch.nn.init.normal_(objective.flow_network.leave.weight, generator=torch.Generator().manual_seed(4))
    return objective


def trained_tensors(objective, policy):
    return [*policy.parameters(), *objective.auxiliary().parameters.values()]


def gradients(objective, policy, seed=0):
    """Of one pass: (sum of the losses, gradient of the policy, gradient of the flow network)."""
    for value in trained_tensors(objective, policy):
        value.grad = None
    total = 0.0
    for loss in objective.losses(torch.Generator().manual_seed(seed)):
        loss.backward()
        total += loss.item()
    flow = [p.grad if p.grad is not None else torch.zeros_like(p) for p in objective.flow_network.parameters()]
    own = torch.cat([p.grad.flatten() for p in policy.parameters()])
    return total, own.clone(), torch.cat([g.flatten() for g in flow]).clone()


# ---- what it costs ----


@pytest.mark.parametrize(("transitions", "most"), [(1, 3), (3, 5), (0, 7)])
def test_reward_calls_are_counted_and_shared(transitions, most):
    """6 steps: all of them cost 7 calls; K neighbouring ones K + 2 at most, however often the rollouts are used."""
    reward = bed.TargetReward()
    with policy_of() as policy:
        objective = dag(policy, reward, transitions=transitions, updates_per_rollout=2)
        for seed in range(2):
            gradients(objective, policy, seed)
        assert objective.metrics()["reward_calls"] == reward.calls
        assert objective.metrics()["rollouts"] == 6
        assert 6 * (most - 1) <= reward.calls <= 6 * most


def test_a_rollout_of_the_default_setting_costs_at_most_twelve_calls():
    reward = bed.TargetReward()
    with policy_of() as policy:
        defaults = DAGConfig()
        objective = dag(policy, reward, steps=defaults.steps, transitions=defaults.transitions, prompts_per_update=5)
        gradients(objective, policy)
        assert 10 <= reward.calls / objective.metrics()["rollouts"] <= 12


# ---- what is minimised ----


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("convention", ["mean", "sum"])
def test_residuals_telescope_to_the_target(reference, convention):
    """Σδ of a trajectory = log F̃(x_T) − β·r(x_0) + Σ log P_F − Σ log P, where log P is that of the kernel between
    states of unit size, or of the reference's own step; everything computed anew here."""
    with policy_of() as policy, torch.no_grad():
        objective = dag(policy, transitions=0, reference_prior=reference, convention=convention)
        played = objective._play(torch.Generator().manual_seed(0))
        paths, process, unit = played.trajectories, policy.process, 1 if convention == "mean" else 2
        everything = slice(0, len(played.visits))
        flow, flow_next = objective._flows(played, everything, 0.7)
        log_forward, _ = objective._steps(played, everything)
        sums = (flow + log_forward - played.log_target - flow_next).reshape(6, 6).sum(1)

        start, sigma = paths.states[:, 0], paths.sigmas[:1].expand(6)
        scale = unit_scale(process, paths.sigmas)
        tokens = objective.flow_network.prompt_tokens(played.prompts)
        value = objective.flow_network(start / scale[0], torch.ones(6), tokens, torch.arange(6))
        begin = value + 0.7 * bed.log_target(policy(start, sigma, [None] * 6).flatten(1))
        end = 0.7 * bed.log_target(paths.pictures.flatten(1))
        if reference:
            log_other = torch.zeros(6)
            for i in range(6):
                x, x_next, (now, then) = (
                    paths.states[:, i],
                    paths.states[:, i + 1],
                    paths.sigmas[i : i + 2].expand(6, 2).T,
                )
                with policy.role(None):
                    x0 = policy(x, now, [None] * 6)
                log_other += step_log_probability(process, x, x0, x_next, now, then, convention=convention)
        else:
            log_other = paths.log_backward.sum(1) + unit * (scale[0].log() - scale[-1].log())
        torch.testing.assert_close(sums, begin - end + paths.log_forward.sum(1) - log_other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reference", [False, True])
def test_credit_to_the_end_is_the_sum_of_the_residuals_to_come(reference):
    """Δ of a step = δ of it and of all steps after it, which flows of any size cancel out of; β as it is by now."""
    with policy_of() as policy, torch.no_grad():
        objective = dag(policy, transitions=0, reference_prior=reference, credit="to the end")
        played = objective._play(torch.Generator().manual_seed(0))
        everything = slice(0, len(played.visits))
        flow, flow_next = objective._flows(played, everything, 0.3)
        log_forward, _ = objective._steps(played, everything)
        delta = residual(flow, log_forward, played.log_target, flow_next).reshape(6, 6)
        found = residual(flow, log_forward, played.log_target, played.rest.flow_next(0.3)).reshape(6, 6)
    torch.testing.assert_close(found, delta.flip(1).cumsum(1).flip(1), rtol=1e-4, atol=1e-4)


@CREDITS
@VARIANTS
def test_what_a_step_answers_for(variant, credit):
    """The policy's gradient by hand, with β on its way up and weighed steps: of DAG-DB 2·Δ·∇log P_F, of DAG-KL
    −A·∇log P_F with A of −Δ, where Δ is δ itself or the sum of those to come; all of it on unclipped first passes."""
    with policy_of() as policy:
        objective = dag(policy, variant=variant, credit=credit, transitions=0, anneal_updates=4, chunk=100)
        objective._passes = 1  # of four: β is 0.7/4
        found = gradients(objective, policy)[1]
        fresh = dag(policy, variant=variant, credit=credit, transitions=0, anneal_updates=4, chunk=100)
        played, everything = fresh._play(torch.Generator().manual_seed(0)), slice(None)
        flow, flow_next = fresh._flows(played, everything, 0.7 / 4)
        log_forward, _ = fresh._steps(played, everything)
        delta = residual(flow, log_forward, played.log_target, flow_next).detach().reshape(6, 6)
        answers = (delta.flip(1).cumsum(1).flip(1) if credit == "to the end" else delta).flatten()
        rows, steps = played.visits.unbind(1)
        if variant == "KL":
            groups = torch.tensor(played.prompts)[rows] * 6 + steps
            moved_by = -pseudo_advantages(-answers, groups, played.kept, clamp=5.0)
        else:
            moved_by = 2 * answers
        weights = step_weights(policy.process, played.trajectories.sigmas, "balanced")[steps]
        expected = torch.autograd.grad((weights * moved_by * log_forward).mean(), policy.parameters())
    torch.testing.assert_close(found, torch.cat([part.flatten() for part in expected]), rtol=1e-3, atol=1e-5)


def test_credit_to_the_end_does_not_trust_the_flows():
    """The policy's mean gradient over many rollouts is the same whatever the flow network says; of single steps not."""
    changes = {}
    for credit in ("step", "to the end"):
        found = []
        for moved in (False, True):
            with policy_of() as policy:
                objective = dag(
                    policy, variant="DB", credit=credit, moved=moved, prompts=bed.PROMPTS, prompts_per_update=64,
                    images_per_prompt=64, steps=4, transitions=0, chunk=20_000, step_weights="plain",
                )  # fmt: skip
                found.append(gradients(objective, policy)[1])
        changes[credit] = ((found[1] - found[0]).norm() / found[0].norm()).item()
    assert changes["to the end"] < 0.2 * changes["step"], changes


def test_the_reference_is_asked_step_by_step_and_once():
    """Every step costs a call of the reference, which tells how far it is: Cancel is heard meanwhile."""
    told = []
    with policy_of() as policy:
        objective = dag(policy, reference_prior=True, credit="to the end", chunk=5)
        objective.practice.on_phase = lambda phase, done, total: told.append((phase, done, total))
        objective._play(torch.Generator().manual_seed(0))
    compared = [entry[1:] for entry in told if entry[0] == "compare"]
    assert compared[-8:] == [(done, 36) for done in (5, 10, 15, 20, 25, 30, 35, 36)]


@VARIANTS
def test_credit_to_the_end_costs_no_reward_calls(variant):
    calls = []
    for credit in ("step", "to the end"):
        reward = bed.TargetReward()
        with policy_of() as policy:
            gradients(dag(policy, reward, variant=variant, credit=credit), policy)
        calls.append(reward.calls)
    assert calls[0] == calls[1]


def test_the_reference_is_balanced_for_a_reward_that_says_nothing():
    """p_ref·exp(const) is the reference's own distribution: every δ is 0 at the start. Without p_ref it is not."""

    class Constant(bed.TargetReward):
        def __call__(self, images, prompts, context=None):
            return torch.ones(len(images))

    residuals = []
    for reference in (True, False):
        with policy_of(moved=False) as policy:
            objective = dag(policy, Constant(), moved=False, reference_prior=reference, convention="sum")
            gradients(objective, policy)
            residuals.append(objective.metrics()["residual"])
    assert residuals[0] == pytest.approx(0, abs=1e-6) and residuals[1] > 0.05


@CREDITS
@VARIANTS
def test_conventions_are_the_same_method_in_two_units(variant, credit):
    """β_sum = D·β_mean = 2·β_mean: every δ is twice as large, DAG-DB's loss and gradients fourfold. DAG-KL's flow loss
    too, while its advantages, which are relative, and so the policy's gradient, differ by the 2 of ∇log P_F alone."""
    found = []
    for convention, beta in (("mean", 0.35), ("sum", 0.7)):
        with policy_of() as policy:
            objective = dag(policy, variant=variant, credit=credit, convention=convention, beta=beta)
            _, own, flow = gradients(objective, policy)
            found.append((objective.metrics(), own, flow))
    (mean, own_mean, flow_mean), (total, own_sum, flow_sum) = found
    assert total["residual"] == pytest.approx(2 * mean["residual"], rel=1e-4)
    assert total["flow_loss"] == pytest.approx(4 * mean["flow_loss"], rel=1e-4)
    torch.testing.assert_close(flow_sum, 4 * flow_mean, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(own_sum, {"DB": 4, "KL": 2}[variant] * own_mean, rtol=1e-3, atol=1e-5)


def test_drawn_transitions_are_unbiased():
    """Averaged over windows of 2 of 6 steps, DAG-DB's gradient is that of all (rewards and rollouts held fixed)."""
    with policy_of() as policy:
        objective = dag(policy, variant="DB", transitions=0)
        full = objective._play(torch.Generator().manual_seed(1))

        def gradient(start, count):
            step = (start + torch.arange(count)).remainder(6)
            rows = torch.arange(6)[:, None].expand(6, count)
            visits = torch.stack([rows, step.expand(6, count)], 2).flatten(0, 1)
            places = visits[:, 0] * 6 + visits[:, 1]
            part = dataclasses.replace(full, visits=visits, kept=full.kept[places], log_target=full.log_target[places])
            numbers = [int(((full.states == state).all(1)).nonzero()) for state in part.states]
            part.rewards = full.rewards[numbers]
            objective._played = part
            return gradients(objective, policy)[1:]

        whole = gradient(0, 6)
        windows = [gradient(start, 2) for start in range(6)]
        for place in range(2):
            mean = torch.stack([window[place] for window in windows]).mean(0)
            torch.testing.assert_close(mean, whole[place], rtol=1e-3, atol=1e-5)


@CREDITS
@VARIANTS
def test_a_cost_counts_negatively(variant, credit):
    class Cost(bed.TargetReward):
        higher_is_better = False

        def __call__(self, images, prompts, context=None):
            return -super().__call__(images, prompts, context)

    found = []
    for reward in (bed.TargetReward(), Cost()):
        with policy_of() as policy:
            found.append(gradients(dag(policy, reward, variant=variant, credit=credit), policy))
    torch.testing.assert_close(found[0][1], found[1][1])


@CREDITS
def test_balanced_steps_change_the_policys_gradient_and_not_the_flows(credit):
    found = []
    for kind in ("plain", "balanced"):
        with policy_of() as policy:
            found.append(gradients(dag(policy, variant="DB", credit=credit, step_weights=kind), policy))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][2], found[1][2])
    assert not torch.allclose(found[0][1], found[1][1], rtol=0.1)


def test_the_anchor_acts_from_the_second_pass_on():
    """First pass: nothing. Then the loss grows by weight·mean‖ε̃_θ − ε̃_behaviour‖², here computed by hand."""
    losses = {}
    for anchor in (0.0, 2.0):
        with policy_of() as policy:
            objective = dag(policy, variant="DB", updates_per_rollout=2, anchor=anchor)
            losses[anchor] = [gradients(objective, policy)[0]]
            played = objective._played
            with torch.no_grad():
                _, x0 = objective._steps(played, slice(None))
                policy.parameters()[-1].add_(0.1)
                _, changed = objective._steps(played, slice(None))
            sigma = played.trajectories.sigmas[played.visits[:, 1]]
            distance = ((changed - x0).flatten(1).square().mean(1) / sigma.square()).mean().item()
            losses[anchor].append(gradients(objective, policy)[0])
            assert (played.behaviour is None) == (anchor == 0) and objective._played is None
    assert losses[0.0][0] == pytest.approx(losses[2.0][0])
    assert losses[2.0][1] - losses[0.0][1] == pytest.approx(2 * distance, rel=1e-3)
    assert distance > 0


def test_beta_rises_over_the_passes():
    with policy_of() as policy:
        objective = dag(policy, beta=0.8, anneal_updates=4, updates_per_rollout=3)
        seen = []
        for seed in range(6):
            gradients(objective, policy, seed)
            seen.append(objective.metrics()["beta"])
    assert seen == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 0.8])


def test_beta_rises_with_the_updates_where_gradients_are_accumulated():
    with policy_of() as policy:
        objective = dag(policy, beta=0.8, anneal_updates=4)
        result = train(policy, objective, TrainerConfig(steps=6, accumulation=3, sample_every=0))
    assert [row["beta"] for row in result.history] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 0.8])


@VARIANTS
@pytest.mark.parametrize("warmup_steps", [0, 3])
def test_flows_learn_first(variant, warmup_steps):
    """In the warm-up the LoRA stands still to the last bit; then its rate rises as at the start of any run."""
    moved, seen = {"lora": [], "flow": []}, {}

    class Watch(RunCallbacks):
        def on_report(self, step, metrics):
            for name, values in (("lora", policy.parameters()), ("flow", objective.flow_network.parameters())):
                now = torch.cat([value.detach().flatten() for value in values])
                if name in seen:
                    moved[name].append((now - seen[name]).abs().max().item())
                seen[name] = now

    config = TrainerConfig(
        steps=4, learning_rate=1e-3, warmup_steps=warmup_steps, weight_decay=0, evaluate_every=1, patience=1,
        sample_every=0,
    )  # fmt: skip
    with policy_of() as policy:
        objective = dag(policy, variant=variant, flow_warmup=3)
        Watch().on_report(0, {})
        history = train(policy, objective, config, callbacks=Watch()).history
    assert moved["lora"][:3] == [0, 0, 0]
    # AdamW's first step is the rate; after steps with gradients of zero it would be three times as long and more.
    assert moved["lora"][3] == pytest.approx(1e-3 / (warmup_steps + 1), rel=0.05)
    # What stands still is not measured, and does not use up the patience.
    assert ["best_step" in report for report in history] == [False, False, False, True]
    assert [report["learning_rate"] > 0 for report in history] == [False, False, False, True]
    assert all(moved["flow"])


def test_a_run_that_only_waits_is_refused():
    with policy_of() as policy, pytest.raises(TrainingError, match=r"wait for 4 updates.*has 4.*Lower flow_warmup"):
        train(policy, dag(policy, flow_warmup=4), TrainerConfig(steps=4, sample_every=0))


class Until(RunCallbacks):
    def __init__(self, last):
        self.last, self.done = last, 0

    def on_report(self, step, metrics):
        self.done = step

    def should_stop(self):
        return self.done >= self.last


@VARIANTS
def test_a_run_is_resumed_within_the_warm_up_and_after_it(variant, tmp_path):
    def trained(folder, *ends):
        for end in ends:
            with policy_of() as policy:
                objective = dag(policy, moved=False, variant=variant, flow_warmup=2, updates_per_rollout=2)
                config = TrainerConfig(steps=max(end, 3), sample_every=0)
                result = train(policy, objective, config, run_folder=folder, callbacks=Until(end))
        return result.tensors

    expected = trained(None, 5)
    for cut in (1, 2, 3):
        found = trained(tmp_path / str(cut), cut, 5)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@VARIANTS
def test_the_flows_warm_up_in_updates_where_gradients_are_accumulated(variant):
    with policy_of() as policy:
        objective = dag(policy, variant=variant, flow_warmup=2)
        result = train(policy, objective, TrainerConfig(steps=3, accumulation=3, sample_every=0))
    assert [row["gradient_norm"] > 0 for row in result.history] == [False, False, True]


def test_predictions_are_guided_and_promises_are_not():
    with policy_of() as policy:
        seen = []
        policy.denoiser.register_forward_pre_hook(
            lambda module, arguments, named: seen.append((len(arguments[0]), named["guidance"])), with_kwargs=True
        )
        gradients(dag(policy, guidance=3.5), policy)
        assert {guidance for _, guidance in seen} == {3.5, 1.0}
        assert max(size for size, _ in seen) == 5  # no call of the network is larger than a chunk


def test_figures():
    """The names of the documentation; on-policy ρ is 1 and nothing is clipped."""
    with policy_of() as policy:
        objective = dag(policy, held_out=bed.TargetReward())
        gradients(objective, policy)
        figures = objective.metrics()
    assert {"residual", "flow_loss", "policy_loss", "beta", "effective_sample_size", "reward", "held_out_reward",
            "diversity", "kl_to_reference", "reward_calls", "rollouts", "ratio", "clipped"} <= set(figures)  # fmt: skip
    assert objective.name == "dag-kl"
    assert figures["ratio"] == 1.0 and figures["clipped"] == 0.0 and figures["log_probability_change"] == 0.0
    assert 0 < figures["effective_sample_size"] <= 1 and figures["kl_to_reference"] > 0


def test_later_passes_compare_with_the_first():
    with policy_of() as policy:
        objective = dag(policy, updates_per_rollout=2, clip_range=1e-3)
        gradients(objective, policy)
        played = objective._played
        with torch.no_grad():
            policy.parameters()[-1].add_(0.1)
            now, _ = objective._steps(played, slice(None))
        expected = (now - played.log_old).exp().mean().item()
        gradients(objective, policy)
    assert objective.metrics()["ratio"] == pytest.approx(expected, rel=1e-5)
    assert objective.metrics()["clipped"] > 0.1


# ---- pictures that are held back ----


class Guarded(bed.TargetReward):
    """Holds back what lies right of an edge."""

    def __init__(self, edge=0.0):
        super().__init__()
        self.edge = edge

    def unsafe(self, images):
        return images[:, 0, 0, 0] > self.edge

    def __call__(self, images, prompts, context=None):
        assert not self.unsafe(images).any()
        return super().__call__(images, prompts, context)


@CREDITS
@VARIANTS
def test_transitions_of_blocked_pictures_teach_nothing(variant, credit):
    """What is left out counts as if it had not been drawn: the loss is the mean over the others."""
    with policy_of() as policy:
        objective = dag(policy, Guarded(), variant=variant, credit=credit, images_per_prompt=8)
        total, own, _ = gradients(objective, policy)
        figures = dict(objective.metrics())
        played = objective._play(torch.Generator().manual_seed(0))
        finished = played.trajectories.pictures[:, 0, 0, 0] > 0
    assert 0 < figures["blocked"] < 16 and torch.isfinite(own).all() and own.abs().max() > 0
    assert not played.kept[finished[played.visits[:, 0]]].any()
    assert played.kept.any() and math.isfinite(total)
    if variant == "DB":
        assert total == pytest.approx(figures["flow_loss"], rel=1e-4)


@VARIANTS
def test_where_everything_is_blocked_nothing_moves(variant):
    with policy_of() as policy:
        objective = dag(policy, Guarded(-100.0), variant=variant)
        total, own, flow = gradients(objective, policy)
        assert total == 0 and own.abs().max() == 0 and flow.abs().max() == 0
        assert "effective_sample_size" not in objective.metrics() or math.isfinite(
            objective.metrics()["effective_sample_size"]
        )


# ---- repeatability ----


@CREDITS
@VARIANTS
def test_chunks_change_nothing_but_rounding(variant, credit):
    found = []
    for chunk in (5, 1, 100):
        with policy_of() as policy:
            objective = dag(policy, variant=variant, credit=credit, chunk=chunk, updates_per_rollout=2)
            found.append([gradients(objective, policy, 2), gradients(objective, policy, 3)])
    for other in found[1:]:
        for (loss, own, flow), (loss_0, own_0, flow_0) in zip(other, found[0], strict=True):
            assert loss == pytest.approx(loss_0, rel=1e-4, abs=1e-5)
            torch.testing.assert_close(own, own_0, rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(flow, flow_0, rtol=1e-3, atol=1e-5)


@CREDITS
@VARIANTS
@pytest.mark.parametrize("reference", [False, True])
def test_saved_after_any_pass_and_gone_on_with_it_ends_bit_equal(variant, reference, credit):
    """Three passes per set of rollouts, β rising, with an anchor; saved into a fresh objective after any of five."""

    def trained(cut):
        knobs = {"variant": variant, "reference_prior": reference, "updates_per_rollout": 3, "anneal_updates": 4,
                 "credit": credit}  # fmt: skip
        with policy_of() as policy:
            objective, generator = dag(policy, **knobs), torch.Generator().manual_seed(6)
            optimizer = torch.optim.Adam(trained_tensors(objective, policy), lr=0.02)
            for count in range(5):
                if count == cut:
                    fresh = dag(policy, **knobs, moved=False)
                    fresh.load_state_dict(objective.state_dict())
                    fresh.flow_network = objective.flow_network  # which the trainer saves
                    objective = fresh
                optimizer.zero_grad()
                for loss in objective.losses(generator):
                    loss.backward()
                optimizer.step()
            return [value.tolist() for value in trained_tensors(objective, policy)], objective.metrics()

    expected = trained(None)
    assert all(trained(cut) == expected for cut in range(5))


@CREDITS
@VARIANTS
def test_two_processes_learn_what_one_with_twice_the_prompts_does(variant, credit):
    """Gradients averaged over two shares of one prompt each equal those of one process with both, blocked pictures
    included, which the two do not share evenly."""
    knobs = {"variant": variant, "images_per_prompt": 6, "transitions": 4, "credit": credit}
    with policy_of() as policy:
        expected = gradients(dag(policy, Guarded(0.5), **knobs, prompts_per_update=2), policy)

    def work(share):
        with contextlib.ExitStack() as stack:
            with share.building:
                policy = stack.enter_context(policy_of())
                objective = dag(policy, Guarded(0.5), **knobs, prompts_per_update=1, share=share)
            return gradients(objective, policy)

    found = in_two(work)
    for place in (1, 2):
        mean = (found[0][place] + found[1][place]) / 2
        torch.testing.assert_close(mean, expected[place], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("updates", [1, 2])
def test_dropout_acts_on_learning_alone_and_where_rollouts_are_used_once(updates):
    with policy_of(dropout=0.3) as policy:
        objective = dag(policy, updates_per_rollout=updates)
        switched = []
        plain = policy.training_mode
        policy.training_mode = lambda on: (switched.append(on), plain(on))
        gradients(objective, policy)
        del policy.training_mode
    assert switched == [False, updates == 1]


def test_the_chunk_is_free_on_a_resume_and_nothing_else_is():
    settings = DAGConfig()
    assert DAGConfig(chunk=1).identity() == settings.identity()
    assert {field.name for field in dataclasses.fields(settings)} - set(settings.identity()) == {"chunk"}


# ---- prompts' text ----


class Speaking(bed.RingDenoiser):
    """Shows tokens of its prompts: their conditionings."""

    def text_features(self, cond):
        return None if any(item is None for item in cond) else list(cond)


def test_the_flow_network_reads_the_prompts_text():
    texts = [Prompt(str(length), torch.randn(length, 7, generator=torch.Generator().manual_seed(length)))
             for length in (2, 5)]  # fmt: skip
    with Policy(Speaking(width=16), LORA) as policy:
        objective = dag(policy, prompts=texts)
        assert objective.flow_network.token_table is None
        gradients(objective, policy)
        assert "flow.levels.0.attention.attend.k_proj_weight" in objective.auxiliary().parameters
        assert objective.flow_network.levels[0].attention.attend.k_proj_weight.shape == (16, 7)
        assert dag(policy, prompts=[texts[0], Prompt("mute", None)]).flow_network.token_table is not None
        wider = Prompt("wider", torch.zeros(2, 9))
        with pytest.raises(TrainingError, match=r"\[7, 9\] numbers"):
            dag(policy, prompts=[*texts, wider])


# ---- errors ----


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"variant": "TB"}, "DB, KL; not 'TB'"),
        ({"images_per_prompt": 1}, "at least 2, not 1"),
        ({"images_per_prompt": 0, "variant": "DB"}, "at least 1, not 0"),
        ({"transitions": 51}, "50, the number of .*not 51"),
        ({"beta": 0.0}, "beta must be above 0"),
        ({"beta": math.nan}, "beta must be a finite number, not nan"),
        ({"anneal_updates": -1}, "at least 0"),
        ({"clip_range": 0.0}, "clip_range"),
        ({"baseline": "none"}, "step and prompt, batch"),
        ({"credit": "half"}, "step, to the end; not 'half'"),
        ({"step_weights": "heavy"}, "heavy"),
        ({"convention": "median"}, "mean, sum"),
        ({"flow_channels": (10,)}, "multiples of 16"),
    ],
)
def test_bad_settings_are_refused(knobs, said):
    with pytest.raises(TrainingError, match=said):
        DAGConfig(**knobs)


def test_a_single_picture_per_prompt_will_do_for_detailed_balance():
    with policy_of() as policy:
        total, own, _ = gradients(dag(policy, variant="DB", images_per_prompt=1), policy)
    assert math.isfinite(total) and own.abs().max() > 0


def test_a_reward_that_returns_nan_is_named():
    class Broken(bed.TargetReward):
        name = "Broken"

        def __call__(self, images, prompts, context=None):
            return torch.full((len(images),), float("nan"))

    with policy_of() as policy, pytest.raises(RewardError, match="Broken returned nan"):
        gradients(dag(policy, Broken()), policy)


# ---- what it reaches ----


@pytest.mark.parametrize(("credit", "left"), [("step", 0.5), ("to the end", 0.2)])
@VARIANTS
def test_it_draws_in_proportion_to_the_reward(variant, credit, left):
    """From eight even modes towards exp(r)/Z, whose modes weigh from 0.34 to 0.02: the divergence halves, or falls to a
    fifth, every mode is kept, and the imbalance falls once β stands still. Black box, drawn steps, 12 calls a
    rollout."""
    reward, steps = bed.TargetReward(), 16
    config = TrainerConfig(steps=110, learning_rate=5e-3, schedule="cosine", sample_every=0)
    with Policy(bed.RingDenoiser(width=32), dataclasses.replace(LORA, rank=8, alpha=8.0)) as policy:
        start = bed.divergence(bed.sample(policy, 10_000, steps=steps))
        objective = dag(
            policy, reward, moved=False, prompts=bed.PROMPTS, variant=variant, prompts_per_update=8,
            images_per_prompt=32, steps=steps, transitions=10, beta=1.0, anneal_updates=40, convention="sum",
            clip_range=0.2, chunk=4096, flow_channels=(32,), flow_learning_rate=1e-2, credit=credit,
        )  # fmt: skip
        history = train(policy, objective, config).history
        points = bed.sample(policy, 10_000, steps=steps, seed=1)
    assert bed.divergence(points) < left * start
    assert (bed.mode_shares(points) > 0.25 * bed.WEIGHTS).all()
    assert torch.corrcoef(torch.stack([bed.mode_shares(points), bed.WEIGHTS]))[0, 1] > 0.9
    residuals = [report["residual"] for report in history]
    assert sum(residuals[-10:]) < 0.9 * sum(residuals[40:50])
    assert reward.calls <= 12 * history[-1]["rollouts"]
