"""The demo's one-step LoRA: the reward as the node has it, the prompts, and a whole small recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from attune.nodes.rewards.load import load_reward
from attune.training.adapters import Policy, load_lora
from attune.training.demo import train_one_step
from attune.training.demo.features import DemoReward
from attune.training.demo.pipeline import DemoPipeline
from attune.training.demo.quality import background_of
from attune.training.one_step import generate, level_of
from attune.training.rollout import play

REWARD = train_one_step.DEMO / "attune_demo_reward.safetensors"
SHIPPED = train_one_step.DEMO / "loras" / train_one_step.ONE_STEP


def test_scores_and_their_gradients_are_those_of_the_reward_node():
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    texts = ["a cat", "a red mushroom, 3d style", "a cat"]
    found = []
    for reward in (DemoReward(REWARD), load_reward(REWARD, "cpu")):
        pictures = images.clone().requires_grad_(True)
        scores = reward(pictures, texts)
        scores.sum().backward()
        found.append((scores.detach(), pictures.grad))
    for one, other in zip(*found, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_prompts_to_practise_on_leave_something_open_often_enough():
    texts = train_one_step.practice_texts(400, seed=0)
    assert len(texts) == 400 and texts == train_one_step.practice_texts(400, seed=0)
    assert texts != train_one_step.practice_texts(400, seed=1)
    said = [("style" in text, "background" in text) for text in texts]
    for kind, share in (((True, True), 0.55), ((True, False), 0.15), ((False, True), 0.15), ((False, False), 0.15)):
        assert abs(said.count(kind) / 400 - share) < 0.08


def test_the_recipe_makes_a_lora_that_says_where_its_step_is_and_keeps_its_work(tmp_path: Path, monkeypatch):
    recipe = train_one_step.OneStepRecipe(
        practice=6,
        lora=replace(train_one_step.LORA, rank=1, alpha=1.0, targets=("cross-attention",)),
        method=replace(
            train_one_step.METHOD, prompts_per_update=2, steps=2, reward_from=1, reward_rise=0, guard_diversity=0.0
        ),
    )
    trainer = replace(train_one_step.TRAINER, steps=2, evaluate_every=2, checkpoint_seconds=0)
    monkeypatch.setattr(train_one_step, "TRAINER", trainer)
    monkeypatch.setattr(train_one_step, "OneStepRecipe", lambda trainer: replace(recipe, trainer=trainer))
    words = ["--work", str(tmp_path / "work"), "--output", str(tmp_path), "--threads", "1"]
    threads = torch.get_num_threads()
    try:
        train_one_step.main([*words, "--updates", "2"])
        first, metadata = load_lora(tmp_path / train_one_step.ONE_STEP)
        train_one_step.main([*words, "--updates", "2"])
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
    again, _ = load_lora(tmp_path / train_one_step.ONE_STEP)
    assert metadata["ss_steps"] == "2" and any(value.any() for name, value in first.items() if "up" in name)
    assert all(torch.equal(value, first[name]) for name, value in again.items())
    assert json.loads(metadata["attune.settings"])["objective"]["init_timestep"] == recipe.method.init_timestep
    assert "evaluation_reward" in json.loads(metadata["attune.metrics"])


def test_the_shipped_lora_is_one_of_the_recipe():
    _, metadata = load_lora(SHIPPED)
    settings = json.loads(metadata["attune.settings"])
    assert metadata["attune.method"] == "diff-instruct" and metadata["modelspec.prediction_type"] == "v"
    assert settings["lora"]["rank"] == train_one_step.LORA.rank
    assert settings["objective"]["init_timestep"] == train_one_step.METHOD.init_timestep


PROMPTS = ("a red mushroom, 3d style, on a blue background", "a dog, cartoon style, on a yellow background", "a rose")


def test_the_shipped_lora_draws_in_one_call_what_the_model_draws_in_many():
    """The judge, which nothing was learned from, sees the prompt in it nearly as well as in the teacher's pictures."""
    pipeline = DemoPipeline.load(train_one_step.DEMO / train_one_step.MODEL)
    judge = load_reward(train_one_step.DEMO / train_one_step.JUDGE_FILE, "cpu")
    texts = [text for text in PROMPTS for _ in range(8)]
    noise = torch.randn(len(texts), *pipeline.latent_shape, generator=torch.Generator().manual_seed(3))
    cond = [prompt.positive for prompt in pipeline.prompts(texts)]
    stored, _ = load_lora(SHIPPED)
    with torch.no_grad(), Policy(pipeline.denoiser, train_one_step.LORA) as policy:
        paths = {f"lora_unet_{path.replace('.', '_')}": path for path in policy.paths}
        policy.load_tensors({f"{paths[key.partition('.')[0]]}.{key.partition('.')[2]}": value.float()
                             for key, value in stored.items()})  # fmt: skip
        sigma = level_of(policy.process, train_one_step.METHOD.init_timestep)
        one = generate(policy, noise, cond, sigma=sigma)
        with policy.role(None):
            plain = generate(policy, noise, cond, sigma=sigma)
            many = play(policy, policy.process, noise, cond, steps=20, guidance=3.0, generator=torch.Generator(),
                        eta=0.0).pictures  # fmt: skip
        images = [pipeline.decoder.decode(latents) for latents in (one, many, plain)]
    scores = [judge(pictures, texts).mean().item() for pictures in images]
    assert scores[0] > 0.93 * scores[1] and scores[0] > scores[2] + 0.03, scores
    assert len(set(background_of(images[0][16:]))) > 1, "what a prompt leaves open differs"
