"""Several rewards on the same pictures: one sheet to read, to sort, and to take along as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...training.checkpoint import whole_file
from ...training.interfaces import Reward, RewardContext, RewardError
from .cache import PictureHashes
from .scoring import score_tables, significant
from .wrapping import calibration_of, formula_of

HASH_DIGITS = 16
MOST_REWARDS = 8


@dataclass(frozen=True)
class Column:
    """One reward's scores.

    Attributes:
        name, formula, reward_id, higher_is_better: of the reward.
        scores: one per picture, in the pictures' order.
        percentiles: 0 … 100 within the reward's reference set, as "how good" (a cost's lowest value is 100); None where
            the reward is not calibrated.
        reference: name and size of the reference set; "" where there is none.
    """

    name: str
    formula: str
    reward_id: str
    higher_is_better: bool
    scores: tuple[float, ...]
    percentiles: tuple[float, ...] | None = None
    reference: str = ""

    @property
    def labels(self) -> list[str]:
        """The scores as they are shown."""
        return [significant(score) for score in self.scores]

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class ScoreSheet:
    """What several rewards say of the same pictures.

    Attributes:
        columns: one per reward; the first one ranks.
        prompts, hashes: one per picture; a hash names the pixels.
        ranking: indices of the pictures, counted from 0, best first; equal scores keep their order.
    """

    columns: tuple[Column, ...]
    prompts: tuple[str, ...]
    hashes: tuple[str, ...]
    ranking: tuple[int, ...]

    @property
    def first(self) -> Column:
        return self.columns[0]

    @property
    def best(self) -> int:
        return self.ranking[0]

    def kept(self, discarded: str) -> list[int]:
        """Indices of the pictures, in their order, whose hashes are not among the given ones (apart by white space)."""
        unwanted = set(discarded.split())
        return [index for index, name in enumerate(self.hashes) if name not in unwanted]

    def text(self) -> str:
        """The sheet for reading and pasting, as Markdown, best first."""
        heads = [column.name.replace("|", "\\|") for column in self.columns]
        lines = [
            f"| rank | image | {' | '.join(heads)} | prompt |",
            f"| ---: | ---: | {' | '.join('---:' for _ in heads)} | :--- |",
        ]
        for rank, index in enumerate(self.ranking, start=1):
            figures = " | ".join(_with_percentile(column, index) for column in self.columns)
            prompt = " ".join(self.prompts[index].split()).replace("|", "\\|")
            lines.append(f"| {rank} | {index} | {figures} | {prompt} |")
        means = ", ".join(f"**{column.name}** mean {significant(column.mean)}" for column in self.columns)
        return "\n".join([means, "", *lines])

    def csv(self) -> str:
        """One row per picture, in the pictures' order, full precision; a spreadsheet opens it."""
        heads = ["image", "rank", "hash"]
        for column in self.columns:
            heads += [column.name] + ([f"{column.name} percentile"] if column.percentiles else [])
        table = io.StringIO(newline="")
        # Only what occurs in this mark is quoted within a cell: a bare \r would begin a row of its own.
        writer = csv.writer(table, lineterminator="\r\n")
        writer.writerow([_harmless(head) for head in [*heads, "prompt"]])
        ranks = self._ranks()
        for index, (prompt, name) in enumerate(zip(self.prompts, self.hashes, strict=True)):
            row: list[Any] = [index, ranks[index], name]
            for column in self.columns:
                row += [repr(column.scores[index])]
                row += [f"{column.percentiles[index]:.2f}"] if column.percentiles else []
            writer.writerow([*row, _harmless(prompt)])
        return table.getvalue()

    def json(self) -> str:
        """Everything, with the rewards' identities and formulas, for programs."""
        ranks = self._ranks()
        document = {
            "rewards": [
                {"name": c.name, "reward_id": c.reward_id, "formula": c.formula,
                 "higher_is_better": c.higher_is_better, "reference": c.reference or None}
                for c in self.columns
            ],
            "images": [
                {"image": index, "rank": ranks[index], "hash": self.hashes[index], "prompt": self.prompts[index],
                 "scores": [c.scores[index] for c in self.columns],
                 "percentiles": [c.percentiles[index] if c.percentiles else None for c in self.columns]}
                for index in range(len(self.prompts))
            ],
        }  # fmt: skip
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def gallery(self, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What the gallery in the node shows; `files` holds one entry per picture, which is merged into its own."""
        ranks = self._ranks()
        return {
            "rewards": [
                {"name": c.name, "formula": c.formula, "higher_is_better": c.higher_is_better,
                 "calibrated": c.percentiles is not None}
                for c in self.columns
            ],
            "images": [
                {"index": index, "hash": self.hashes[index], "prompt": " ".join(self.prompts[index].split()),
                 "rank": ranks[index], "scores": [c.scores[index] for c in self.columns],
                 "labels": [c.labels[index] for c in self.columns],
                 "percentiles": [c.percentiles[index] if c.percentiles else None for c in self.columns], **files[index]}
                for index in range(len(self.prompts))
            ],
        }  # fmt: skip

    def _ranks(self) -> list[int]:
        """Rank of each picture, 1 = best, in the pictures' order."""
        ranks = [0] * len(self.ranking)
        for rank, index in enumerate(self.ranking, start=1):
            ranks[index] = rank
        return ranks


def _with_percentile(column: Column, index: int) -> str:
    if column.percentiles is None:
        return column.labels[index]
    return f"{column.labels[index]} ({column.percentiles[index]:.0f} %)"


# A spreadsheet reads what begins so as a formula; the wide signs are those of East Asian keyboards.
_BEGINNINGS = frozenset("=+-@＝＋－＠")
_WHITE_SPACE = frozenset("\t\r\n")


def _harmless(text: str) -> str:
    """A text that a spreadsheet does not take for a formula, also where it skips white space before one."""
    risky = text[:1] in _WHITE_SPACE or text.lstrip()[:1] in _BEGINNINGS
    return f"'{text}" if risky else text


def score_sheet(
    pictures: Sequence[torch.Tensor],
    prompts: Sequence[str],
    rewards: Sequence[Reward],
    *,
    context: RewardContext | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreSheet:
    """Score pictures with several rewards.

    Args:
        pictures: N pictures [h, w, c] in [0, 1], c = 1, 3 or 4, of any sizes.
        prompts: N prompts.
        rewards: the first one ranks.
        context: see `score_table`.
        progress: called with (scores done, N · rewards), also between pictures that are hashed; may raise to cancel.

    Raises:
        RewardError: no reward or more than `MOST_REWARDS`, or as `score_table`.
    """
    if not 1 <= len(rewards) <= MOST_REWARDS:
        raise RewardError(f"Score Images takes 1 to {MOST_REWARDS} rewards at once, not {len(rewards)}.")
    hashes = PictureHashes()
    tables = score_tables(pictures, prompts, rewards, context=context, progress=progress, hashes=hashes)
    columns = tuple(_column(reward, table.scores) for reward, table in zip(rewards, tables, strict=True))
    total, names = len(pictures) * len(rewards), []
    for index, picture in enumerate(pictures):
        if progress:
            progress(total, total)
        names += [name[:HASH_DIGITS] for name in hashes.of([index], picture[None])]
    return ScoreSheet(_distinct(columns), tuple(prompts), tuple(names), tables[0].ranking)


def save_sheet(sheet: ScoreSheet, files: Sequence[Path]) -> list[str]:
    """Write the sheet as .csv and .json files, and say where.

    Raises:
        RewardError: a file cannot be written.
    """
    # Excel takes a CSV file without the mark at its beginning for one of an older alphabet.
    kinds = {".csv": (sheet.csv, "utf-8-sig"), ".json": (sheet.json, "utf-8")}
    for file in files:
        text, encoding = kinds[file.suffix]
        try:
            with whole_file(file) as partial:
                # Half a character, as programs may hand one on, has no encoding; so written, JSON reads it back.
                partial.write_text(text(), encoding=encoding, errors="backslashreplace", newline="")
        except OSError as error:
            raise RewardError(
                f"The scores were made, but {file} cannot be written: {error.strerror or error}. Free space on that "
                "disk or choose another filename_prefix, and press Run again: scores are remembered."
            ) from error
    return [f"saved: {file}" for file in files]


def _column(reward: Reward, scores: tuple[float, ...]) -> Column:
    calibration = calibration_of(reward)
    percentiles, reference = None, ""
    if calibration is not None:
        good = [float(calibration.percentile(score)) for score in scores]
        percentiles = tuple(good if reward.higher_is_better else [100 - value for value in good])
        reference = f"{calibration.name} ({calibration.count} pictures)"
    return Column(
        reward.name, formula_of(reward), reward.reward_id, reward.higher_is_better, scores, percentiles, reference
    )


def _distinct(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """The same name twice is numbered, so that a heading names one column."""
    named: dict[str, Column] = {}
    for column in columns:
        name, number = column.name, 1
        while name in named:
            number += 1
            name = f"{column.name} {number}"
        named[name] = replace(column, name=name)
    return tuple(named.values())
