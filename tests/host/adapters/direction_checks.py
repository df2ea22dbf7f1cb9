"""Prompts moved by a direction of their tokens, over every architecture, and the direction of chosen pictures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from cases import cases, demo, draw, levels, session
from compare import close, raises, slope_agrees

from attune.nodes.host import picture_direction
from attune.nodes.host.picture_direction import Chosen, direction_of_pictures
from attune.nodes.host.session import training_session
from attune.nodes.refinement import nodes_conditioning
from attune.training.interfaces import TrainingError
from attune.training.objectives.picture_direction import DirectionConfig


def moved_by_hand(conditioning: Any, shift: Any) -> Any:
    """The host's CONDITIONING with other tokens."""
    ((tokens, extras),) = conditioning
    longer = torch.zeros_like(tokens[0])
    length = min(len(longer), len(shift))
    longer[:length] = shift[:length]
    return [[tokens + longer, extras]]


def check_a_moved_prompt_is_the_hosts_own_with_moved_tokens() -> None:
    for name, (_, conditionings, _, shape) in cases().items():
        x = draw(shape)
        with session(name) as (denoiser, prompts, _):
            sigma, tokens = levels(denoiser), conditionings[0][0][0]
            shift = 0.3 * torch.randn(*tokens.shape[1:], generator=torch.Generator().manual_seed(3))
            by_hand = [denoiser.prompt("", moved_by_hand(one, shift)).positive for one in conditionings]
            with torch.no_grad():
                found = denoiser(x, sigma, [prompt.moved(shift) for prompt in prompts])
                close(found, denoiser(x, sigma, by_hand), 1e-4)
                # The prompts themselves are as they were, though both share what was encoded.
                plain = denoiser(x, sigma, prompts)
                assert not torch.equal(found, plain), name
                assert torch.equal(plain, denoiser(x, sigma, prompts)), name


def check_a_shift_has_the_gradient_that_differences_show() -> None:
    for name in ("demo (v)", "sdxl (eps, pooled)", "demo as shifted flow"):
        _, conditionings, _, shape = cases()[name]
        x, tokens = draw(shape), conditionings[0][0][0]
        probe = draw(shape, seed=4)
        with session(name) as (denoiser, prompts, _):
            sigma = levels(denoiser)

            def total(shift: Any, given: Any = (denoiser, x, sigma, prompts, probe)) -> Any:
                network, noisy, at, words, weights = given
                return (network(noisy, at, [prompt.moved(shift) for prompt in words]) * weights).sum()

            shift = (0.1 * torch.randn(*tokens.shape[1:], generator=torch.Generator().manual_seed(6))).requires_grad_()
            total(shift).backward()
            with torch.no_grad():
                slope_agrees(total, shift.detach(), shift.grad)


def check_a_prompt_of_other_tokens_cannot_be_moved() -> None:
    with session("demo (v)") as (denoiser, prompts, shape):
        wrong = torch.zeros(77, 3)
        prompts = [prompt.moved(wrong) for prompt in prompts]
        raises(TrainingError, "Set pictures to 0", lambda: denoiser(draw(shape), levels(denoiser), prompts))


def check_chosen_pictures_give_a_direction_and_leave_the_model_as_it_was() -> None:
    model, conditionings, _, shape = cases()["demo (v)"]
    chosen = [Chosen("a cat", conditionings[1], draw(shape)[:1], draw(shape, seed=2)[1:])]
    before = {key: value.clone() for key, value in demo()["unet"].state_dict().items()}
    config = DirectionConfig(steps=3, seed=5)
    with torch.inference_mode():
        once, twice = (direction_of_pictures(model, chosen, conditionings[1][0][0], config) for _ in range(2))
    assert torch.equal(once, twice) and once.shape == conditionings[1][0][0].shape[1:] and once.any()
    assert not once.is_inference() and not once.requires_grad
    with training_session(model) as denoiser:
        assert not any(parameter.requires_grad for parameter in denoiser.module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in demo()["unet"].state_dict().items())
    other = [Chosen("a cat", conditionings[1], torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))]
    assert direction_of_pictures(model, other, conditionings[1][0][0], config) is None, "of another kind of model"


def check_large_pictures_go_pair_by_pair_and_find_the_same() -> None:
    """Where they go through the network pair by pair, its blocks computing again on the way back."""
    model, conditionings, _, shape = cases()["sd15 (eps)"]
    chosen = [Chosen("a cat", conditionings[0], draw(shape)[:1], draw(shape, seed=2)[1:])]
    config, limit = DirectionConfig(steps=2, seed=5), picture_direction._LARGEST_TOGETHER
    found = []
    try:
        for picture_direction._LARGEST_TOGETHER in (limit, 1):
            found.append(direction_of_pictures(model, chosen, conditionings[0][0][0], config))
    finally:
        picture_direction._LARGEST_TOGETHER = limit
    close(found[1], found[0], 0.05)


def check_other_pictures_count_chosen_ones_half_and_refused_ones_against_them() -> None:
    latents, conditioning = torch.zeros(2, 4, 8, 8), [[torch.zeros(1, 2, 3), {}]]
    past = SimpleNamespace(prompt="a cat")
    chosen, refused = [(past, latents[:1], latents[1:])], [(past, latents)]
    stands_for = {
        "encode_prompts": lambda _clip, texts: [conditioning] * len(texts),
        "chosen_latents_of_rounds": lambda *_: given["chosen"],
        "refused_latents_of_rounds": lambda *_: given["refused"],
        # 1 for chosen pictures, which others were passed over for, and 10 for refused ones.
        "_direction": lambda _model, shown, *_: torch.full((2, 3), 1.0 if len(shown[0].others) else 10.0),
    }
    own = {name: getattr(nodes_conditioning, name) for name in stands_for}
    try:
        for name, stand_in in stands_for.items():
            setattr(nodes_conditioning, name, stand_in)
        for attempt, some_chosen, expected in ((0, True, 1.0), (1, True, -4.5), (2, True, -10.0), (1, False, -5.0)):
            given = {"chosen": chosen if some_chosen else [], "refused": refused if attempt else []}
            state = SimpleNamespace(attempt=attempt, seed=3, number=2)
            draft = SimpleNamespace(state=state, keeps_look=True, prompt="a cat")
            found = nodes_conditioning.direction_of_choices(None, draft, None, None)
            assert torch.equal(found, torch.full((2, 3), expected)), (attempt, found)
        given = {"chosen": [], "refused": []}
        assert nodes_conditioning.direction_of_choices(None, draft, None, None) is None
    finally:
        for name, value in own.items():
            setattr(nodes_conditioning, name, value)
