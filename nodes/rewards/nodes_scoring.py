"""Nodes that score images: the sheet with its gallery, and the rewards of a dialogue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.interfaces import RewardError
from ...training.presentable import presentable, unsafe_pictures
from ..host.folders import safe_name
from ..host.progress import Progress
from ..host.schema import AttuneNode
from .carrying import earlier_rounds
from .chart import bar_chart
from .dialogue import KINDS, TEMPERATURE, dialogue_reward
from .nodes_common import CATEGORY, Reward
from .pictures import rebatch, split_prompts, unbatch

log = logging.getLogger("attune")

SAVE = ("nothing", "CSV", "JSON", "CSV and JSON")


class ScoreImages(AttuneNode):
    """Scores, ranking, gallery and chart of a set of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        further = [
            cls.input(Reward, f"reward_{number}", optional=True,
                      tooltip="A further reward, shown beside the first. The first one ranks.")
            for number in (2, 3, 4)
        ]  # fmt: skip
        return cls.schema(
            node_id="AttuneScoreImages",
            display_name="Score Images",
            category=CATEGORY,
            description="Scores every image with one or several rewards, ranks them, and lets you keep or discard.",
            search_aliases=["rank images", "clip score", "best of", "pick best", "gallery"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                cls.input(io.Image, "images", tooltip="A batch, or a list of images of different sizes."),
                cls.input(Reward, "reward", tooltip="The reward that ranks: from Load Reward Model, Image Statistics "
                          "Reward, Combine Rewards …"),
                cls.input(
                    io.String,
                    "prompt",
                    multiline=True,
                    default="",
                    placeholder="what the images should show",
                    tooltip="One line for all images, or one line per image in the same order. Image statistics do "
                    "not look at it.",
                ),
                *further,
                cls.input(io.Image, "previous", optional=True,
                          tooltip="What was chosen in earlier rounds, oldest first. Only the Dialogue Reward "
                          "'consistency' looks at it; leave it empty otherwise."),
                cls.input(
                    io.Combo,
                    "save_scores",
                    optional=True,
                    options=list(SAVE),
                    default=SAVE[0],
                    tooltip="Write the scores into the output folder: CSV opens in a spreadsheet, JSON holds "
                    "everything for programs. 'nothing' writes no file.",
                ),
                cls.input(
                    io.String,
                    "filename_prefix",
                    optional=True,
                    default="attune/scores",
                    tooltip="Folder and beginning of the file name inside the output folder. Only used when scores "
                    "are saved.",
                ),
                cls.input(
                    io.String,
                    "discarded",
                    optional=True,
                    default="",
                    tooltip="The images you discarded in the gallery, by the hashes of their pixels. The gallery "
                    "writes it; empty keeps all.",
                ),
            ],
            outputs=[
                cls.output(io.Float, id="scores", display_name="scores", is_output_list=True,
                           tooltip="One number per image by the first reward, in the images' order."),
                cls.output(io.Int, id="ranking", display_name="ranking", is_output_list=True,
                           tooltip="Image numbers, counted from 0, best first."),
                cls.output(io.Image, id="best", display_name="best", tooltip="The image with the best score."),
                cls.output(io.Image, id="chart", display_name="chart", tooltip="The ranking as a picture."),
                cls.output(io.String, id="table", display_name="table", tooltip="The ranking as a Markdown table."),
                cls.output(io.Image, id="kept", display_name="kept", is_output_list=True,
                           tooltip="The images you did not discard in the gallery, in their order: one batch, or "
                           "single images where sizes differ. Nothing behind it runs if you discarded all."),
                cls.output(io.String, id="csv", display_name="csv", tooltip="All scores as CSV text."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        images: list[torch.Tensor],
        reward: list[Any],
        prompt: list[str],
        reward_2: list[Any] | None = None,
        reward_3: list[Any] | None = None,
        reward_4: list[Any] | None = None,
        previous: list[torch.Tensor] | None = None,
        save_scores: list[str] = SAVE[:1],
        filename_prefix: list[str] = ("attune/scores",),
        discarded: list[str] = ("",),
    ) -> io.NodeOutput:
        from .sheet import save_sheet, score_sheet
        from .thumbnails import picture_files

        files = sheet_files(save_scores[0], filename_prefix[0])
        pictures = unbatch(images)
        prompts = split_prompts(prompt, len(pictures))
        rewards = [*reward, *(reward_2 or ()), *(reward_3 or ()), *(reward_4 or ())]
        context = earlier_rounds(previous)
        # Every picture is scored by each reward, looked at for what must be blurred, drawn and written.
        count, scored, progress = len(pictures), len(pictures) * len(rewards), Progress()
        total = scored + 3 * count
        sheet = score_sheet(pictures, prompts, rewards, context=context, progress=progress.part(0, total))
        notes = save_sheet(sheet, files)
        visible, names = blurred_where_unsafe(pictures, sheet.hashes, rewards, progress.part(scored, total))
        chart = bar_chart(
            visible, sheet.first.scores, prompts=prompts, title=sheet.first.name,
            higher_is_better=sheet.first.higher_is_better,
            others={column.name: column.scores for column in sheet.columns[1:]},
            progress=progress.part(scored + count, total),
        )  # fmt: skip
        kept = rebatch([pictures[index] for index in sheet.kept(discarded[0])]) or [ExecutionBlocker(None)]
        shown: dict[str, Any] = {}
        try:
            folder, written = Path(folder_paths.get_temp_directory()), progress.part(scored + 2 * count, total)
            shown["attune_gallery"] = [sheet.gallery(picture_files(visible, names, folder, progress=written))]
        except RewardError as error:
            # It is there to look at: without it the scores are as good.
            log.warning("Attune: %s", error)
            notes.append(str(error))
        shown["text"] = [sheet.text(), *notes]
        return io.NodeOutput(
            list(sheet.first.scores), list(sheet.ranking), pictures[sheet.best][None], chart, sheet.text(), kept,
            sheet.csv(), ui=shown,
        )  # fmt: skip


def blurred_where_unsafe(
    pictures: Sequence[torch.Tensor],
    hashes: Sequence[str],
    rewards: Sequence[Any],
    progress: Callable[[int, int], None],
) -> tuple[list[torch.Tensor], list[str]]:
    """Pictures [h, w, c] as they may be shown, and names of their pixels: what a safety gate holds back is blurred."""
    unsafe = []
    for done, picture in enumerate(pictures):
        progress(done, len(pictures))
        unsafe.append(bool(unsafe_pictures(picture[None], rewards)))
    visible = [
        presentable(picture[None], rewards)[0] if hidden else picture
        for picture, hidden in zip(pictures, unsafe, strict=True)
    ]
    # A file of this picture as it is may lie there already.
    return visible, [f"{name}.blurred" if hidden else name for name, hidden in zip(hashes, unsafe, strict=True)]


def sheet_files(kinds: str, prefix: str) -> list[Path]:
    """Where the sheet will be written, in the host's output folder.

    Args:
        kinds: one of `SAVE`.
        prefix: folder and beginning of the name; the host fills in its placeholders.

    Raises:
        RewardError: the prefix leaves the output folder.
    """
    endings = {"CSV": ["csv"], "JSON": ["json"], "CSV and JSON": ["csv", "json"]}.get(kinds, [])
    if not endings:
        return []
    try:
        found = folder_paths.get_save_image_path(prefix or "scores", folder_paths.get_output_directory())
    except Exception as error:  # the host raises no type of its own
        raise RewardError(
            f"The scores cannot be saved as {prefix!r}: that is outside of the output folder. Choose another "
            "filename_prefix."
        ) from error
    folder, number = Path(found[0]), found[2]
    name = safe_name(found[1] or "scores", room=len("_00000_.json"))
    while any((folder / f"{name}_{number:05}_.{ending}").exists() for ending in ("csv", "json")):
        number += 1
    return [folder / f"{name}_{number:05}_.{ending}" for ending in endings]


class DialogueReward(AttuneNode):
    """R_div, R_cons or R_MI over any encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneDialogueReward",
            display_name="Dialogue Reward",
            category=CATEGORY,
            description="Scores a whole round: varied images, true to earlier choices, or true to their own prompt.",
            search_aliases=["diversity", "consistency", "relevance", "R_div", "R_cons", "R_MI", "InfoNCE"],
            inputs=[
                cls.input(
                    Reward,
                    "encoder",
                    tooltip="Whose eyes to use. Diversity and consistency need a reward of the CLIP kind; relevance "
                    "takes any reward that looks at the prompt, also a vision-language model.",
                ),
                cls.input(
                    io.Combo,
                    "kind",
                    options=list(KINDS),
                    default=KINDS[0],
                    tooltip="diversity: how different the images of one prompt are. consistency: how close to what was "
                    "chosen in earlier rounds. relevance: how clearly an image belongs to its own prompt and no other.",
                ),
                cls.input(
                    io.Float,
                    "temperature",
                    default=TEMPERATURE,
                    min=0.001,
                    max=10.0,
                    step=0.001,
                    advanced=True,
                    tooltip="For relevance only: how sharply prompts are told apart. Lower is stricter.",
                ),
                cls.input(
                    io.String,
                    "contrast_prompts",
                    multiline=True,
                    default="",
                    placeholder="what the images should not show, one per line",
                    tooltip="For relevance only: prompts to tell the images apart from, one per line. Needed where all "
                    "images have the same prompt.",
                ),
            ],
            outputs=[
                cls.output(Reward, id="reward", display_name="reward",
                           tooltip="For Score Images, Calibrate Reward, Combine Rewards and training.")
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, encoder: Any, kind: str, temperature: float, contrast_prompts: str) -> io.NodeOutput:
        contrast = [line.strip() for line in contrast_prompts.split("\n") if line.strip()]
        return io.NodeOutput(dialogue_reward(kind, encoder, temperature=temperature, contrast=contrast))


NODES: list[type[io.ComfyNode]] = [ScoreImages, DialogueReward]
