"""Round Sampler: each picture of a round comes out as it would alone, with every sampler of the host."""

from __future__ import annotations

import dataclasses
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from cases import cases
from compare import close

from attune.nodes.host.round_sampling import levels_of, sample_round
from attune.nodes.host.sampling import sampler_names, seeded_noise
from attune.nodes.refinement.draft import Draft
from attune.nodes.refinement.nodes_round import AttuneRoundSampler
from attune.nodes.refinement.noise_levels import sigmas
from attune.nodes.refinement.records import Picture, Round, Schedule, SessionState

SEEDS = (5, 2**53 - 1, 5, 77)
STEPS = 3
# Chooses its steps for the whole batch, and draws no noise.
FOR_THE_BATCH = {"dpm_adaptive"}
# Draw noise between steps.
DRAWING = {"euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde",
           "dpmpp_2m_sde_gpu", "lcm", "ddpm", "er_sde", "seeds_2", "res_multistep_ancestral"}  # fmt: skip
DRAWING_NOTHING = {"euler", "heun", "dpm_2", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2m", "ipndm", "deis",
                   "res_multistep", "gradient_estimation", "ddim", "uni_pc"}  # fmt: skip


def sampled(name: str, sampler: str, seeds: tuple[int, ...], *, own: bool, part: slice = slice(None)) -> Any:
    """`part` of a round; sampling alone, its pictures are the batch."""
    model, conditionings, negative, shape = cases()[name]
    seeds, levels = seeds[part], levels_of(model)
    with torch.inference_mode():
        return sample_round(
            model, seeded_noise(torch.zeros(1, *shape), seeds), conditionings[0], negative,
            sigmas=sigmas("karras", STEPS, levels.least, levels.most, strength=1.0, flow=levels.flow),
            start=None, guidance=2.0, sampler=sampler, seed=seeds[0], own_seeds=seeds if own else (),
        )  # fmt: skip


def by_the_host(name: str, sampler: str, seed: int) -> Any:
    """The picture of a seed by the host's own functions alone."""
    model, conditionings, negative, shape = cases()[name]
    blank, levels = torch.zeros(1, *shape), levels_of(model)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, comfy.sample.prepare_noise(blank, seed), 2.0, comfy.samplers.sampler_object(sampler),
            sigmas("karras", STEPS, levels.least, levels.most, strength=1.0, flow=levels.flow),
            conditionings[0], negative, blank, disable_pbar=True, seed=seed,
        )  # fmt: skip


def check_every_sampler_draws_each_picture_as_alone() -> None:
    """As the host draws that seed alone, in fact."""
    names = set(sampler_names()[0])
    assert names >= DRAWING
    for sampler in sorted(names - FOR_THE_BATCH):
        whole = sampled("demo (v)", sampler, SEEDS, own=True)
        assert whole.isfinite().all(), sampler
        close(whole[1:2], by_the_host("demo (v)", sampler, SEEDS[1]), 1e-3)
        close(whole[2], whole[0], 1e-3)
        rest = sampled("demo (v)", sampler, SEEDS, own=True, part=slice(2, None))
        close(rest, whole[2:], 1e-3)


def check_samplers_of_flow_models_draw_each_picture_as_alone() -> None:
    for sampler in ("euler", "euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_2m_sde", "lcm"):
        whole = sampled("demo as shifted flow", sampler, SEEDS, own=True)
        close(whole[1:2], by_the_host("demo as shifted flow", sampler, SEEDS[1]), 1e-3)


def check_without_own_noise_a_round_is_what_it_was() -> None:
    """Bit by bit, for rounds that were kept before; and only those that draw noise are others with it."""
    model, conditionings, negative, shape = cases()["demo (v)"]
    levels = levels_of(model)
    for sampler in sorted(DRAWING | DRAWING_NOTHING):
        before, after = (sampled("demo (v)", sampler, SEEDS, own=own) for own in (False, True))
        with torch.inference_mode():
            as_ever = comfy.sample.sample_custom(
                model, seeded_noise(torch.zeros(1, *shape), SEEDS), 2.0, comfy.samplers.sampler_object(sampler),
                sigmas("karras", STEPS, levels.least, levels.most, strength=1.0), conditionings[0], negative,
                torch.zeros(len(SEEDS), *shape), disable_pbar=True, seed=SEEDS[0],
            )  # fmt: skip
        assert torch.equal(before, as_ever), sampler
        if sampler in DRAWING:
            assert not torch.allclose(before[1], after[1], atol=1e-2), sampler
        else:
            assert torch.equal(before, after), sampler


def check_a_round_says_whose_noise_it_was_made_with() -> None:
    """A replay takes what is recorded; every round that is made now takes each picture's own."""
    model, conditionings, negative, shape = cases()["demo (v)"]
    schedule = Schedule("karras", STEPS, 1.0, SEEDS, sampler="euler_ancestral", guidance=2.0)

    def made(state: SessionState, decided: Schedule) -> tuple[Schedule, Any]:
        with torch.inference_mode():
            draft, latents, _ = AttuneRoundSampler.execute(
                Draft.of(state).with_(schedule=decided), model, conditionings[0], negative,
                {"samples": torch.zeros(1, *shape)},
            ).args  # fmt: skip
        return draft.decided(), latents["samples"]

    state = SessionState("2" * 32, "cats", 1, 0, "a cat", "")
    found, latents = made(state, schedule)
    assert found == dataclasses.replace(schedule, own_noise=True)
    pictures = tuple(Picture("0" * 64, seed) for seed in SEEDS)

    def recorded(decided: Schedule) -> SessionState:
        round_ = Round("1" * 32, None, 1, 0, "a cat", "", {}, decided, None, pictures, None, 1.0, "", "", 0)
        return dataclasses.replace(state, replay=round_)

    kept, again = made(recorded(found), found)
    assert kept == found and torch.equal(again, latents)
    kept, old = made(recorded(schedule), schedule)
    assert kept == schedule and not torch.allclose(old[1], latents[1], atol=1e-2)
    assert torch.equal(old, sampled("demo (v)", "euler_ancestral", SEEDS, own=False))
