"""Scoring a set of pictures and putting them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...training.interfaces import Reward, RewardError, checked_scores

IMAGES_AT_ONCE = 8


@dataclass(frozen=True)
class ScoreTable:
    """Scores and their order.

    Attributes:
        reward: name of the reward.
        scores: one number per picture, in the pictures' order.
        prompts: one per picture.
        ranking: indices of the pictures, counted from 0, best first; equal scores keep their order.
    """

    reward: str
    scores: tuple[float, ...]
    prompts: tuple[str, ...]
    ranking: tuple[int, ...]

    @property
    def best(self) -> int:
        return self.ranking[0]

    def rows(self) -> list[dict[str, Any]]:
        """Best first: rank from 1, image from 0, score in 3 significant digits, prompt on one line."""
        return [
            {"rank": rank, "image": index, "score": significant(self.scores[index]),
             "prompt": " ".join(self.prompts[index].split())}
            for rank, index in enumerate(self.ranking, start=1)
        ]  # fmt: skip

    def text(self) -> str:
        """The table for reading and pasting, as Markdown, best first."""
        lines = ["| rank | image | score | prompt |", "| ---: | ---: | ---: | :--- |"]
        for row in self.rows():
            prompt = row["prompt"].replace("|", "\\|")
            lines.append(f"| {row['rank']} | {row['image']} | {row['score']} | {prompt} |")
        mean = sum(self.scores) / len(self.scores)
        return "\n".join([f"**{self.reward}**, mean {significant(mean)}", "", *lines])


def significant(value: float, digits: int = 3) -> str:
    """A number with that many significant digits and without an exponent: 0.3, 0.0214, -12.3, 1234."""
    if value == 0:
        return "0"
    text = f"{value:.{digits - 1}e}"
    exponent = int(text.partition("e")[2])
    return f"{float(text):.{max(0, digits - 1 - exponent)}f}"


def score_table(
    pictures: Sequence[torch.Tensor],
    prompts: Sequence[str],
    reward: Reward,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreTable:
    """Score pictures, which may have different sizes.

    Args:
        pictures: N pictures [h, w, c] in [0, 1], c = 1, 3 or 4.
        prompts: N prompts.
        reward: any reward; its scores are checked.
        progress: called with (pictures done, N) before the first and after every few; what it raises ends the scoring.

    Raises:
        RewardError: nothing to score, counts differ, a prompt is empty though the reward needs words, or the reward
            returned something unusable.
    """
    if not pictures:
        raise RewardError("There are no images to score: the batch is empty. Connect at least one image.")
    if len(pictures) != len(prompts):
        raise RewardError(f"{len(pictures)} images but {len(prompts)} prompts; give one prompt per image.")
    wordless = [index for index, prompt in enumerate(prompts) if not prompt.strip()]
    if wordless and getattr(reward, "uses_prompt", False):
        raise RewardError(
            f"{reward.name} compares each image with its prompt, but the prompt of image {wordless[0]} is empty. "
            "Write into the prompt field what the images should show."
        )
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_size.setdefault(tuple(picture.shape), []).append(index)
    scores = [0.0] * len(pictures)
    done = 0
    if progress:
        progress(0, len(pictures))
    for indices in by_size.values():
        for start in range(0, len(indices), IMAGES_AT_ONCE):
            part = indices[start : start + IMAGES_AT_ONCE]
            batch = torch.stack([pictures[index] for index in part])
            found = checked_scores(reward, batch, [prompts[index] for index in part])
            for index, score in zip(part, found.tolist(), strict=True):
                scores[index] = score
            done += len(part)
            if progress:
                progress(done, len(pictures))
    sign = -1 if reward.higher_is_better else 1
    ranking = sorted(range(len(scores)), key=lambda index: sign * scores[index])
    return ScoreTable(reward.name, tuple(scores), tuple(prompts), tuple(ranking))
