"""A node that keeps the best images, and all that belongs to them."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.interfaces import RewardError
from ..host.progress import Progress
from ..host.schema import AttuneNode
from ..latent_lists import split_latents
from .calibration import LEVELS
from .carrying import aligned, earlier_rounds, fits_one_batch, join_latents, latents_fit, split_masks
from .keep_best import KEEP_MODES, KeepConfig, choose, report
from .nodes_common import CATEGORY, Reward
from .pictures import split_prompts, unbatch
from .scoring import score_safe_ones

DEFAULTS = KeepConfig()
BATCH, SINGLE = "one batch", "one by one"


class RankAndKeepBest(AttuneNode):
    """The best images with their latents, masks, prompts and seeds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneRankAndKeepBest",
            display_name="Rank and Keep Best",
            category=CATEGORY,
            description="Keeps the best images, together with their latents, masks, prompts and seeds.",
            search_aliases=["best of n", "top k", "filter images", "pareto", "select best", "curate"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(io.Image, "images", tooltip="A batch, or a list of images of different sizes."),
                cls.input(Reward, "reward", tooltip="Who judges. It decides the order. With Safety Gate around "
                          "this or another reward, unsafe images are left out first."),
                cls.input(Reward, "reward_2", optional=True,
                          tooltip="A second judge. It decides in the mode 'non-dominated' only; "
                          "the report shows it always."),
                cls.input(Reward, "reward_3", optional=True, tooltip="A third judge, as reward_2."),
                cls.input(io.Latent, "latent", optional=True,
                          tooltip="The latents of these images, in the same order. They keep their numbers in the "
                          "batch, so that the sampler gives them the same noise again."),
                cls.input(io.Mask, "mask", optional=True, tooltip="One mask for all images, or one per image."),
                cls.input(io.String, "made_with", optional=True, force_input=True,
                          tooltip="The prompts the images were made with, if they differ from what is judged: one for "
                          "all images or a list with one per image. They come out as prompts."),
                cls.input(io.Int, "seed_list", optional=True, force_input=True,
                          tooltip="The seeds the images were made with: one for all images or a list, one per image."),
                cls.input(io.String, "prompt", multiline=True, default="", placeholder="what the images should show",
                          tooltip="What is judged. One line for all images, or one line per image in the same order. "
                          "Image statistics do not look at it."),
                cls.input(
                    io.Combo,
                    "mode",
                    options=list(KEEP_MODES),
                    default=DEFAULTS.mode,
                    tooltip="best k: a fixed number. threshold: all that are good enough. non-dominated: all that no "
                    "other image beats in every connected reward at once.",
                ),
                cls.input(io.Int, "k", default=DEFAULTS.k, min=1, max=100000,
                          tooltip="Mode 'best k' only: how many images stay."),
                cls.input(io.Float, "threshold", default=DEFAULTS.threshold, min=-100000.0, max=100000.0, step=0.01,
                          tooltip="Mode 'threshold' only: the score an image must reach. Raising it keeps fewer."),
                cls.input(
                    io.Combo,
                    "threshold_unit",
                    options=list(LEVELS),
                    default=DEFAULTS.threshold_unit,
                    tooltip="What threshold is measured in: deviations from the mean of the reference, per cent of the "
                    "reference images that are surpassed (0 to 100), or the reward's own score. The first two need "
                    "Calibrate Reward.",
                ),
                cls.input(
                    io.Combo,
                    "hand_over",
                    options=[BATCH, SINGLE],
                    default=BATCH,
                    tooltip="one batch: the next node works on all images at once, if they have one size. one by one: "
                    "it works on each image with its own latent, mask, prompt and seed.",
                ),
                cls.input(io.Image, "previous", optional=True,
                          tooltip="What was chosen in earlier rounds, oldest first. Only 'consistency' looks at it."),
            ],
            outputs=[
                cls.output(io.Image, id="best_images", display_name="images", is_output_list=True,
                           tooltip="The images that stay, best first."),
                cls.output(io.Latent, id="best_latents", display_name="latent", is_output_list=True,
                           tooltip="Their latents, if connected."),
                cls.output(io.Mask, id="best_masks", display_name="mask", is_output_list=True,
                           tooltip="Their masks, if connected."),
                cls.output(io.String, id="best_prompts", display_name="prompts", is_output_list=True,
                           tooltip="Their prompts, one per image."),
                cls.output(io.Int, id="best_seeds", display_name="seeds", is_output_list=True,
                           tooltip="Their seeds, if connected, one per image."),
                cls.output(io.Float, id="best_scores", display_name="scores", is_output_list=True,
                           tooltip="Their scores by the first reward, one per image."),
                cls.output(io.Int, id="indices", display_name="indices", is_output_list=True,
                           tooltip="Their numbers among the images that came in, counted from 0."),
                cls.output(io.String, id="report", display_name="report", tooltip="What was kept and why, as a table."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, images: list[torch.Tensor], reward: list[Any], prompt: list[str], mode: list[str], k: list[int],
                threshold: list[float], threshold_unit: list[str], hand_over: list[str],
                reward_2: list[Any] | None = None, reward_3: list[Any] | None = None, latent: list[Any] | None = None,
                mask: list[torch.Tensor] | None = None, made_with: list[str] | None = None,
                seed_list: list[int] | None = None,
                previous: list[torch.Tensor] | None = None) -> io.NodeOutput:  # fmt: skip
        rewards = [_single(entry) for entry in (reward, reward_2, reward_3) if entry]
        config = KeepConfig(mode[0], k[0], threshold[0], threshold_unit[0])
        pictures = unbatch(images)
        count = len(pictures)
        # Before anything is scored: a wrong count is found at once.
        prompts = split_prompts(prompt, count)
        texts = aligned(made_with, count, "prompts (made_with)") if made_with else prompts
        seeds = aligned(seed_list, count, "seeds") if seed_list else None
        latents = aligned(split_latents(latent), count, "latents", shared=False) if latent else None
        masks = aligned(split_masks(mask), count, "masks") if mask else None
        context = earlier_rounds(previous)
        safe, tables = score_safe_ones(pictures, prompts, rewards, context=context, progress=Progress())
        scores = [table.scores for table in tables]
        chosen = choose(scores, rewards, config)
        text = report(chosen, scores, rewards, [texts[index] for index in safe], config, numbers=safe, total=count)
        kept = [safe[index] for index in chosen]
        whole = hand_over[0] == BATCH
        best, best_latents, best_masks = _handed_over(kept, pictures, latents, masks, whole=whole)
        return io.NodeOutput(
            best,
            best_latents or _missing("latents", "latent"),
            best_masks or _missing("masks", "mask"),
            [texts[index] for index in kept],
            _chosen(seeds, kept) or _missing("seeds", "seed_list"),
            [scores[0][index] for index in chosen],
            kept,
            text,
            ui={"text": [text]},
        )


def _single(rewards: list[Any]) -> Any:
    """
    Raises:
        RewardError: several rewards came through one input.
    """
    if len(rewards) != 1:
        raise RewardError(
            f"Rank and Keep Best got {len(rewards)} rewards through one input, which takes one. Use Combine Rewards, "
            "or the inputs reward_2 and reward_3."
        )
    return rewards[0]


def _chosen(values: list[Any] | None, kept: list[int]) -> list[Any]:
    return [] if values is None else [values[index] for index in kept]


def _missing(what: str, input_id: str) -> list[ExecutionBlocker]:
    """What an output gives that has nothing to carry: the node behind it says why it cannot run."""
    return [ExecutionBlocker(f"Rank and Keep Best has no {what} to hand on: nothing is connected to its {input_id}.")]


def _handed_over(
    kept: list[int],
    pictures: list[torch.Tensor],
    latents: list[dict[str, Any]] | None,
    masks: list[torch.Tensor] | None,
    *,
    whole: bool,
) -> tuple[list[torch.Tensor], list[dict[str, Any]], list[torch.Tensor]]:
    """Images, latents and masks as lists of equal length: one batch each if all sizes allow it, else one by one."""
    images = [pictures[index][None] for index in kept]
    chosen_latents, chosen_masks = _chosen(latents, kept), _chosen(masks, kept)
    if not whole or not (fits_one_batch(images) and latents_fit(chosen_latents) and fits_one_batch(chosen_masks)):
        return images, chosen_latents, chosen_masks
    return (
        [torch.cat(images)],
        [join_latents(chosen_latents)] if chosen_latents else [],
        [torch.cat(chosen_masks)] if chosen_masks else [],
    )


NODES: list[type[io.ComfyNode]] = [RankAndKeepBest]
