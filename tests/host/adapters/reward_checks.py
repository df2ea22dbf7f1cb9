"""Rewards under the host's memory management."""

from __future__ import annotations

import comfy.model_management
import torch
import world

from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.nodes_common import manage


def check_a_reward_moved_away_in_part_is_whole_again_for_the_next_score() -> None:
    """The host frees as little as it needs: the model stays on its list, with some layers elsewhere."""
    reward = load_reward(world.ROOT / "workflows" / "demo" / "attune_demo_reward.safetensors", "cpu").reward
    manage(reward, on_cpu=True)
    (patcher,) = reward.patchers
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    first = reward(images, ["a cat", "a dog"])
    assert patcher.loaded_size() >= patcher.model_size() > 0
    with torch.inference_mode():
        moved = patcher.partially_unload(torch.device("cpu"), patcher.model_size() // 2)
    assert moved > 0
    assert patcher in comfy.model_management.loaded_models()
    assert patcher.loaded_size() < patcher.model_size()
    again = reward(images, ["a cat", "a dog"])
    assert patcher.loaded_size() >= patcher.model_size()
    assert torch.equal(first, again)
