"""Rewards under the host's memory management."""

from __future__ import annotations

import tempfile
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
import world

from attune.nodes.host.progress import Progress
from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.nodes_common import manage
from attune.nodes.rewards.statistics import StatisticReward
from attune.nodes.rewards.thumbnails import FOLDER
from attune.nodes.rewards.vlm import VlmReward
from attune.tests.tiny_vlm import write_tiny_vlm
from attune.training.adapters.lora import LoraConfig
from attune.training.four_bit import parts, quantised_parameters, states
from attune.training.vlm_base import load_base
from attune.training.vlm_reward import RewardAdapters, TrainedReward, VlmScorer


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


def four_bit_reward() -> VlmReward:
    folder = write_tiny_vlm(Path(tempfile.mkdtemp()) / "tiny")
    with torch.inference_mode():
        scorer = VlmScorer(load_base(folder, precision="nf4"))
        trained = TrainedReward.of(RewardAdapters(scorer, LoraConfig(2, 2.0)), "taste", {})
    return VlmReward(scorer, trained, device=torch.device("cpu"))


def check_a_four_bit_network_is_managed_like_any_other() -> None:
    """Counted with its scales, moved away as a whole and in part, and back; the scores stay the same, bit for bit."""
    from attune.nodes.rewards.nodes_vlm import give_to_host

    reward = four_bit_reward()
    scorer = reward.network
    assert give_to_host(reward, on_cpu=True) == ""
    (patcher,) = reward.patchers
    parameters = list(scorer.parameters())
    held = sum(part.nbytes for parameter in parameters for part in parts(parameter))
    held += sum(buffer.nbytes for buffer in scorer.buffers())
    whole = sum(parameter.quant_state.shape.numel() for parameter in quantised_parameters(scorer)) * 4
    # Besides: a hundred bytes of names per 4-bit weight, no offset, and no buffer that is not saved.
    assert abs(patcher.model_size() - held) < 200 * len(quantised_parameters(scorer)) + 4096
    assert patcher.model_size() < whole
    images = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    first = reward(images, ["a cat", "a dog"])
    assert patcher in comfy.model_management.loaded_models()
    assert patcher.loaded_size() == patcher.model_size()
    with torch.inference_mode():
        assert patcher.partially_unload(torch.device("cpu"), patcher.model_size() // 2) > 0
    assert torch.equal(reward(images, ["a cat", "a dog"]), first)
    with torch.inference_mode():
        comfy.model_management.unload_all_models()
    assert patcher not in comfy.model_management.loaded_models() and patcher.loaded_size() == 0
    assert all(states(parameter) for parameter in quantised_parameters(scorer))
    assert torch.equal(reward(images, ["a cat", "a dog"]), first)
    assert len(quantised_parameters(scorer)) > 14


def check_a_four_bit_network_that_cannot_be_moved_stays_and_says_so() -> None:
    from bitsandbytes.functional import QuantState

    from attune.nodes.rewards.nodes_vlm import give_to_host

    reward = four_bit_reward()
    images = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    first = reward(images, ["a cat"])
    move = QuantState.to
    # A version of bitsandbytes that leaves everything but the packed numbers behind.
    QuantState.to = lambda self, device: None
    try:
        note = give_to_host(reward, on_cpu=True)
    finally:
        QuantState.to = move
    assert "tiny stay on cpu" in note and "bitsandbytes" in note
    assert reward.patchers == ()
    assert torch.equal(reward(images, ["a cat"]), first)


def check_cancel_acts_between_pictures_in_every_part_of_score_images() -> None:
    """Three pictures and two rewards: six scores, then three are looked at, drawn and written, each a step."""
    from attune.nodes.rewards import nodes_scoring

    seen: list[int] = []

    class Watched(Progress):
        """Cancel is pressed when step `at` begins."""

        at = -1

        def __call__(self, done: int, total: int) -> None:
            seen.append(done)
            assert total == 15
            if done == self.at:
                comfy.model_management.interrupt_current_processing(True)
            super().__call__(done, total)

    files = Path(folder_paths.get_temp_directory()) / FOLDER
    images = torch.rand(3, 300, 20, 3, generator=torch.Generator().manual_seed(5))

    def run() -> None:
        judge = StatisticReward()
        nodes_scoring.ScoreImages.execute([images], [judge], [""], reward_2=[judge])

    nodes_scoring.Progress = Watched
    try:
        for step in (0, 7, 10, 13):
            Watched.at = step
            seen.clear()
            try:
                run()
            except comfy.model_management.InterruptProcessingException:
                assert seen[-1] == step, (step, seen)
            else:
                raise AssertionError(f"nothing heard Cancel in step {step}: {seen}")
        assert len(list(files.glob("*.small.jpg"))) == 1, "Cancel came before the second picture was written"
        Watched.at = -1
        seen.clear()
        run()
    finally:
        nodes_scoring.Progress = Progress
    assert seen == sorted(seen) and set(range(6, 15)) <= set(seen)
    assert len(list(files.glob("*.small.jpg"))) == 3
