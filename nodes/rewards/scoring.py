"""Scoring a set of pictures and putting them in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ...training.interfaces import Reward, RewardContext, RewardError, checked_scores
from ...training.presentable import BATCH_PROMPTS, compares_batch, is_guarded, unsafe_pictures
from .cache import PictureHashes, hashed_once
from .pictures import counted, to_rgb
from .wrapping import is_contextual, uses_prompt

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
    """A number with that many significant digits: 0.3, 0.0214, -12.3, 1234. Only extreme ones have an exponent."""
    if value == 0:
        return "0"
    text = f"{value:.{digits - 1}e}"
    exponent = int(text.partition("e")[2])
    if not -7 < exponent < 9:
        return text
    return f"{float(text):.{max(0, digits - 1 - exponent)}f}"


def as_float32(value: float) -> float:
    """The number that a score has if it is exactly this one: scores are in 32 bits, in which 0.7 is 0.699999988."""
    return torch.tensor(value, dtype=torch.float32).item()


def score_table(
    pictures: Sequence[torch.Tensor],
    prompts: Sequence[str],
    reward: Reward,
    *,
    context: RewardContext | None = None,
    progress: Callable[[int, int], None] | None = None,
    hashes: PictureHashes | None = None,
) -> ScoreTable:
    """Score pictures, which may have different sizes; those that a contextual reward compares must have one size.

    Args:
        pictures: N pictures [h, w, c] in [0, 1], c = 1, 3 or 4.
        prompts: N prompts.
        reward: any reward; its scores are checked.
        context: earlier rounds; only a contextual reward gets it, all others can then be cached.
        progress: called with (pictures done, N) before the first and after every few; what it raises ends the scoring.
        hashes: of these pictures, for whoever scores them again.

    Raises:
        RewardError: nothing to score, counts differ, a prompt is empty though the reward needs words or is one that it
            refuses, sizes differ though the reward compares pictures, or the reward returned something unusable.
    """
    if not pictures:
        raise RewardError("There are no images to score: the batch is empty. Connect at least one image.")
    if len(pictures) != len(prompts):
        raise RewardError(f"{len(pictures)} images but {len(prompts)} prompts; give one prompt per image.")
    _check_prompts(prompts, reward)
    if compares_batch(reward) and len({picture.shape[:2] for picture in pictures}) == 1:
        # With and without transparency, but of one size.
        pictures, hashes = [to_rgb(picture[None])[0] for picture in pictures], None
    hashes = hashes or PictureHashes()
    scores = [0.0] * len(pictures)
    done = 0
    if progress:
        progress(0, len(pictures))
    for part in _parts(pictures, reward):
        batch = torch.stack([pictures[index] for index in part])
        given = context if is_contextual(reward) else None
        with hashed_once(batch, partial(hashes.of, part, batch)):
            found = checked_scores(reward, batch, [prompts[index] for index in part], given)
        for index, score in zip(part, found.tolist(), strict=True):
            scores[index] = score
        done += len(part)
        if progress:
            progress(done, len(pictures))
    sign = -1 if reward.higher_is_better else 1
    ranking = sorted(range(len(scores)), key=lambda index: sign * scores[index])
    return ScoreTable(reward.name, tuple(scores), tuple(prompts), tuple(ranking))


def _check_prompts(prompts: Sequence[str], reward: Reward) -> None:
    """
    Raises:
        RewardError: a prompt is empty though the reward needs words, or is one that it refuses.
    """
    wordless = [index for index, prompt in enumerate(prompts) if not prompt.strip()]
    if wordless and uses_prompt(reward):
        raise RewardError(
            f"{reward.name} compares each image with its prompt, but the prompt of image {wordless[0]} is empty. "
            "Write into the prompt field what the images should show."
        )
    refusal = getattr(reward, "refusal", None)
    if callable(refusal):
        for index, prompt in enumerate(prompts):
            if problem := refusal(prompt, f"image {index}"):
                raise RewardError(problem)


def score_tables(
    pictures: Sequence[torch.Tensor],
    prompts: Sequence[str],
    rewards: Sequence[Reward],
    *,
    context: RewardContext | None = None,
    progress: Callable[[int, int], None] | None = None,
    hashes: PictureHashes | None = None,
) -> list[ScoreTable]:
    """One `score_table` per reward, of pictures that are hashed once for all; `progress` counts to N · rewards.

    One reward after the other, not one batch after the other: networks that do not fit into memory together would be
    loaded for every batch.
    """
    count, hashes = len(pictures), hashes or PictureHashes()
    tables = []
    for number, reward in enumerate(rewards):
        before, total = number * count, count * len(rewards)
        step = (lambda done, _, before=before, total=total: progress(before + done, total)) if progress else None
        tables.append(score_table(pictures, prompts, reward, context=context, progress=step, hashes=hashes))
    return tables


def score_safe_ones(
    pictures: Sequence[torch.Tensor],
    prompts: Sequence[str],
    rewards: Sequence[Reward],
    *,
    context: RewardContext | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[int], list[ScoreTable]]:
    """`score_tables` of the pictures that the gates of these rewards let pass; the others reach none of the rewards.

    A reward that compares pictures is told the prompts of all.

    Returns:
        the numbers of the pictures that passed, counted from 0, and per reward a table of those.

    Raises:
        RewardError: nothing passed, or as `score_tables`.
    """
    if not is_guarded(rewards) or not pictures or len(pictures) != len(prompts):
        tables = score_tables(pictures, prompts, rewards, context=context, progress=progress)
        return list(range(len(pictures))), tables
    for reward in rewards:
        _check_prompts(prompts, reward)
    count, total, hashes, safe = len(pictures), len(pictures) * (1 + len(rewards)), PictureHashes(), []
    for number, picture in enumerate(pictures):
        if progress:
            progress(number, total)
        batch = picture[None]
        with hashed_once(batch, partial(hashes.of, [number], batch)):
            if not unsafe_pictures(batch, rewards).any():
                safe.append(number)
    if not safe:
        whole = "the only image" if count == 1 else f"all {count} images"
        raise RewardError(
            f"The safety gate holds back {whole}, so that none is left. Change the prompt or the model that made them, "
            "or raise the threshold of Safety Gate."
        )
    if len(safe) < count:
        given = context or RewardContext()
        context = RewardContext(given.previous, {BATCH_PROMPTS: tuple(prompts), **given.extra})
    skipped = total - len(safe) * len(rewards)
    step = (lambda done, _: progress(skipped + done, total)) if progress else None
    tables = score_tables(
        [pictures[number] for number in safe],
        [prompts[number] for number in safe],
        rewards,
        context=context,
        progress=step,
        hashes=hashes.part(safe),
    )
    return safe, tables


def left_out(safe: int, total: int) -> str:
    """How many of all pictures a gate has kept from being scored, as a sentence; "" for none."""
    if safe == total:
        return ""
    return f"{total - safe} of {counted(total, 'image')} left out by the safety gate, and not scored."


def _parts(pictures: Sequence[torch.Tensor], reward: Reward) -> Iterator[list[int]]:
    """Indices of the pictures that are scored together: of one size, a few at once, or all if the reward compares.

    Raises:
        RewardError: the reward compares pictures, and they have different sizes.
    """
    together = compares_batch(reward)
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, picture in enumerate(pictures):
        by_size.setdefault(tuple(picture.shape), []).append(index)
    if together and len(by_size) > 1:
        sizes = ", ".join(f"{shape[1]}×{shape[0]}" for shape in list(by_size)[:3])
        raise RewardError(
            f"{reward.name} compares the pictures with each other, which needs one size for all, not {sizes}. Scale "
            "them first, for example with Upscale Image."
        )
    for indices in by_size.values():
        step = len(indices) if together else IMAGES_AT_ONCE
        for start in range(0, len(indices), step):
            yield indices[start : start + step]
