"""Runs in 16 bit: decoder, gate and rewards do what they do outside of them, so that a score may be kept for others."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.kept_scores import KeptScores
from attune.nodes.store import Store
from attune.training.denoisers import MixtureDenoiser, process_of
from attune.training.interfaces import Prompt
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.refl import ReFLConfig, ReFLObjective

METHODS = pytest.mark.parametrize("method", ["ddpo", "dag", "refl"])


def layer(inputs: int, outputs: int, seed: int) -> nn.Linear:
    made = nn.Linear(inputs, outputs).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for value in made.parameters():
        value.copy_(torch.randn(value.shape, generator=generator))
    return made


class Points(nn.Module):
    """A policy on 2-D points whose layer autocast rounds."""

    device, unconditional = torch.device("cpu"), None

    def __init__(self):
        super().__init__()
        means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        self.base = MixtureDenoiser(process_of("v"), means, 0.3, torch.tensor([0.5, 0.5]))
        self.process, self.layer, self.rounded = self.base.process, nn.Linear(2, 2), set()

    @contextmanager
    def role(self, name):
        yield self

    def training_mode(self, on):
        pass

    def forward(self, x, sigma, cond=(), *, guidance=1.0):
        moved = self.layer(x.flatten(1))
        self.rounded.add(moved.dtype)
        return self.base(x, sigma) + 0.1 * moved.reshape(x.shape)


class Decoder:
    def __init__(self):
        self.layer, self.shown = layer(2, 48, 1), []

    def decode(self, latents):
        images = torch.sigmoid(self.layer(latents.flatten(1)))
        assert latents.dtype == images.dtype == torch.float32
        self.shown.append((latents.detach(), images.detach().reshape(-1, 4, 4, 3)))
        return images.reshape(-1, 4, 4, 3)


class Judge:
    """A network of its own, as rewards are, with a gate and features of one."""

    reward_id, differentiable, higher_is_better = "judge", True, True

    def __init__(self, name="Judge", seed=2):
        self.name, self.layer, self.kinds, self.scored = name, layer(48, 1, seed), set(), []

    def value(self, images):
        found = self.layer(images.flatten(1))[:, 0]
        self.kinds.add(found.dtype)
        return found

    def __call__(self, images, prompts, context=None):
        found = self.value(images)
        self.scored += zip(images.detach().unbind(0), found.detach().tolist(), strict=True)
        return found

    def unsafe(self, images):
        return self.value(images) > 1e9

    def image_features(self, images):
        return self.value(images)[:, None]


def practising(method, reward, decoder, **more):
    common = {"prompts_per_update": 2, "images_per_prompt": 3, "steps": 4, "guidance": 1.0, "chunk": 4}
    kind, config = {
        "ddpo": (DDPOObjective, DDPOConfig(**common)),
        "dag": (DAGObjective, DAGConfig(**common, transitions=2, flow_channels=(16, 16))),
        "refl": (ReFLObjective, ReFLConfig(**common, stop_from=2, stop_to=3)),
    }[method]
    prompts = [Prompt(f"point {index}", None) for index in range(3)]
    return kind(prompts, reward, decoder, config, latent_shape=(2, 1, 1), **more)


def an_update(method, reward, **more):
    """Of a run in bf16; its policy and its decoder."""
    policy, decoder = Points(), Decoder()
    objective = practising(method, reward, decoder, **more)
    objective.prepare(policy)
    rows = objective.losses(torch.Generator().manual_seed(0))
    while True:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            loss = next(rows, None)
        if loss is None:
            break
        loss.backward()
    assert torch.bfloat16 in policy.rounded, "the run itself is in 16 bit"
    return policy, decoder


@METHODS
def test_decoder_gate_reward_and_held_out_reward_are_not_rounded(method):
    reward, held_out = Judge(), Judge("Held out", 3)
    _, decoder = an_update(method, reward, held_out=held_out)
    for judge in (reward, held_out):
        assert judge.kinds == {torch.float32} and judge.scored
        for image, score in judge.scored:
            assert score == pytest.approx(judge.value(image[None]).item(), rel=1e-5, abs=1e-5)
    for latents, images in decoder.shown:
        torch.testing.assert_close(torch.sigmoid(decoder.layer(latents.flatten(1))).reshape(images.shape), images)


@pytest.mark.parametrize("method", ["ddpo", "dag"])
def test_the_store_holds_the_scores_of_the_pictures_themselves(method, tmp_path: Path):
    def opened() -> ScoreStore:
        memory = ScoreStore()
        memory.attach(KeptScores(Store(tmp_path / "attune.sqlite")))
        return memory

    judge = Judge()
    _, decoder = an_update(method, CachedReward(judge, opened()))
    images = torch.cat([shown for _, shown in decoder.shown])
    later, texts = CachedReward(Judge(), opened()), [f"point {index}" for index in range(3)]
    for text in texts:
        later(images, [text] * len(images))
    assert later.hits >= 6
    exact = judge.value(images)
    for text in texts:
        torch.testing.assert_close(later(images, [text] * len(images)), exact, rtol=1e-5, atol=1e-5)


def test_scores_of_an_earlier_version_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """They may be rounded."""
    from attune.nodes.rewards import kept_scores

    kept, key = KeptScores(Store(tmp_path / "attune.sqlite")), ("judge", "picture", "a point")
    monkeypatch.setattr(kept_scores, "SCORES_VERSION", kept_scores.SCORES_VERSION - 1)
    kept.remember({key: 1.5})
    assert kept.find([key]) == {key: 1.5}
    monkeypatch.undo()
    assert kept.find([key]) == {}
