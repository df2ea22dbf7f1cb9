"""Two models on the same prompts and seeds: pictures, scores, diversity, and the picture that shows them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from ...training.diversity import Features, feature_source, grouped_diversity, pixel_features
from ...training.interfaces import AttuneError, Reward, checked_scores
from ...training.presentable import is_guarded, presentable, rest_of_batch, unsafe_pictures
from ..drawing import short_number
from .grid import Side, comparison_grid

# One sampler call; bounds memory without a setting.
_AT_ONCE = 8


@dataclass(frozen=True)
class SamplingSettings:
    """The host's KSampler settings, the same for both models."""

    steps: int
    guidance: float
    sampler: str
    scheduler: str


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        figures: JSON-able; means per side, deviations, diversity, win rate, seconds, pictures per side, pairs that
            count, and how many a safety gate has blurred.
        grid: the picture.
        before, after: pictures, unsafe ones blurred, and scores; prompts outermost.
    """

    figures: dict[str, Any]
    grid: Image.Image
    before: Side
    after: Side


def win_rate(before: Sequence[float], after: Sequence[float], *, higher_is_better: bool) -> float:
    """Share of prompt-seed pairs in which `after` scores better; ties count half."""
    gains = [(b - a) * (1 if higher_is_better else -1) for a, b in zip(before, after, strict=True)]
    return sum(1.0 if gain > 0 else 0.5 if gain == 0 else 0.0 for gain in gains) / len(gains)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (of the sample; 0 for a single value)."""
    tensor = torch.tensor(list(values), dtype=torch.float64)
    return tensor.mean().item(), tensor.std().item() if len(tensor) > 1 else 0.0


def paired_change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Mean change of the same prompts and seeds, and its 95 % error: 1.96·s/√N of the differences (0 for N = 1)."""
    mean, deviation = mean_and_deviation([b - a for a, b in zip(before, after, strict=True)])
    return mean, 1.96 * deviation / len(before) ** 0.5


def sample_all(
    model: Any,
    vae: Any,
    latent: Mapping[str, Any],
    positives: Sequence[Any],
    negative: Any,
    seeds: Sequence[int],
    settings: SamplingSettings,
    on_step: Callable[[], None],
) -> torch.Tensor:
    """Every prompt with every seed through the host's sampler: images [prompts·seeds, h, w, 3], prompts outermost."""
    from ..host.sampling import decode_latents, empty_latent, sample_latents, seeded_noise

    noise = seeded_noise(empty_latent(model, latent), seeds)
    images = []
    for positive in positives:
        for start in range(0, len(seeds), _AT_ONCE):
            latents = sample_latents(
                model,
                noise[start : start + _AT_ONCE],
                positive,
                negative,
                steps=settings.steps,
                guidance=settings.guidance,
                sampler=settings.sampler,
                scheduler=settings.scheduler,
                seed=seeds[start],
                on_step=on_step,
            )
            images.append(decode_latents(vae, latents))
    return torch.cat(images)


def check_different(before: torch.Tensor, after: torch.Tensor) -> None:
    """The stock loader takes any LoRA, and of one for another architecture it applies nothing: only here it shows.

    Raises:
        AttuneError: the pictures are the same, bit for bit.
    """
    if torch.equal(before, after):
        raise AttuneError(
            "Model A and model B draw the same pictures, bit for bit: they are the same model. If one of them carries "
            "a LoRA, it was not applied: it was trained for another architecture (ComfyUI's console then lists its "
            'keys as "lora key not loaded"), its strength is 0, or it has not learned anything yet. Choose a LoRA for '
            "this checkpoint, raise its strength, or connect another model."
        )


def compare(
    model_a: Any,
    model_b: Any,
    clip: Any,
    vae: Any,
    latent: Mapping[str, Any],
    *,
    prompts: Sequence[str],
    negative: str,
    reward: Reward,
    held_out: Reward | None,
    first_seed: int,
    seeds_per_prompt: int,
    settings: SamplingSettings,
) -> Comparison:
    """Sample both models alike and judge them.

    With a safety gate around one of the rewards unsafe pictures are blurred and not scored, and a pair with such a
    picture is left out of all figures.

    Raises:
        AttuneError: no prompts, no seeds, models that draw the same pictures, a reward that cannot score them, or no
            pair of which both are safe.
    """
    from ..host.sampling import encode_prompts, progress_bar

    if not prompts or seeds_per_prompt < 1:
        raise AttuneError("Nothing to compare: give at least one prompt and one picture per prompt.")
    began = time.monotonic()
    *positives, empty = encode_prompts(clip, [*prompts, negative])
    seeds = [first_seed + index for index in range(seeds_per_prompt)]
    texts = [prompt for prompt in prompts for _ in seeds]
    on_step = progress_bar(2 * len(prompts) * -(-len(seeds) // _AT_ONCE) * settings.steps)
    pictures = [
        sample_all(model, vae, latent, positives, empty, seeds, settings, on_step) for model in (model_a, model_b)
    ]
    check_different(*pictures)
    before, after = (judged(images, texts, reward, held_out) for images in pictures)
    figures = comparison_figures(before, after, group=len(seeds), reward=reward, held_out=held_out)
    figures["seconds"] = round(time.monotonic() - began, 2)
    title = f"Before and after: {_count(len(prompts), 'prompt')}, {_count(len(seeds), 'seed')} each"
    grid = comparison_grid(
        before,
        after,
        prompts=prompts,
        seeds=seeds,
        title=title,
        summary=_summary(figures, reward, held_out),
        higher_is_better=reward.higher_is_better,
    )
    return Comparison(figures, grid, before, after)


def judged(images: torch.Tensor, texts: Sequence[str], reward: Reward, held_out: Reward | None) -> Side:
    """One model's pictures [N, h, w, 3] and what both rewards give them.

    What the gate of either holds back is blurred, and neither sees it: its scores are NaN.
    """
    rewards = (reward, held_out)
    unsafe = unsafe_pictures(images, rewards)
    safe = (~unsafe).nonzero().flatten()

    def scores(judge: Reward) -> list[float]:
        found = torch.full((len(images),), math.nan)
        if len(safe):
            shown = [texts[index] for index in safe.tolist()]
            found[safe.cpu()] = checked_scores(judge, images[safe], shown, rest_of_batch(judge, texts)).cpu()
        return found.tolist()

    return Side(
        presentable(images, rewards),
        scores(reward),
        scores(held_out) if held_out is not None else None,
        unsafe.tolist() if is_guarded(rewards) else None,
    )


def comparison_figures(
    before: Side, after: Side, *, group: int, reward: Reward, held_out: Reward | None
) -> dict[str, Any]:
    """All figures but the seconds, over the pairs of which neither picture is blurred.

    Args:
        group: pictures per prompt.

    Raises:
        AttuneError: there is no such pair.
    """
    count = len(before.images)
    hidden = [side.blurred or [False] * count for side in (before, after)]
    pairs = [index for index in range(count) if not (hidden[0][index] or hidden[1][index])]
    if not pairs:
        raise AttuneError(
            f"The safety gate calls a picture of every pair unsafe ({sum(hidden[0])} of {count} of model A, "
            f"{sum(hidden[1])} of {count} of model B), so there is nothing to compare. Change the prompts or the "
            "models, or raise the gate's threshold."
        )
    source = held_out if feature_source(held_out) else reward
    features = feature_source(source)
    figures = _figures(
        _only(before, pairs), _only(after, pairs), [index // group for index in pairs],
        reward=reward, held_out=held_out, features=features,
    )  # fmt: skip
    figures["images"], figures["pairs"] = count, len(pairs)
    for name, side in (("before", before), ("after", after)):
        figures[f"blurred_{name}"] = None if side.blurred is None else sum(side.blurred)
    figures["diversity_features"] = source.name if features else "16 by 16 pixels"
    return figures


def _only(side: Side, chosen: Sequence[int]) -> Side:
    held_out = None if side.held_out is None else [side.held_out[index] for index in chosen]
    return Side(side.images[list(chosen)], [side.scores[index] for index in chosen], held_out)


@torch.no_grad()
def _figures(
    before: Side,
    after: Side,
    owners: Sequence[int],
    *,
    reward: Reward,
    held_out: Reward | None,
    features: Features | None,
) -> dict[str, Any]:
    figures: dict[str, Any] = {"reward_name": reward.name, "held_out_name": held_out.name if held_out else ""}
    for name, side in (("before", before), ("after", after)):
        figures[f"reward_{name}"], figures[f"reward_{name}_deviation"] = mean_and_deviation(side.scores)
        if side.held_out is not None:
            figures[f"held_out_{name}"], figures[f"held_out_{name}_deviation"] = mean_and_deviation(side.held_out)
        else:
            figures[f"held_out_{name}"] = None
        spread = grouped_diversity((features or pixel_features)(side.images), owners)
        figures[f"diversity_{name}"] = None if math.isnan(spread) else spread
    pairs = {"reward": (before.scores, after.scores), "held_out": (before.held_out, after.held_out)}
    for key, (one, two) in pairs.items():
        if one is not None and two is not None:
            figures[f"{key}_change"], figures[f"{key}_change_error"] = paired_change(one, two)
    figures["win_rate"] = win_rate(before.scores, after.scores, higher_is_better=reward.higher_is_better)
    return figures


def _summary(figures: Mapping[str, Any], reward: Reward, held_out: Reward | None) -> list[tuple[str, str, str]]:
    """The header's cells: (name, figure, verdict)."""
    cells = []
    for key, label, judge in (("reward", f"Reward: {reward.name}", reward), ("held_out", "Held-out: ", held_out)):
        if judge is None:
            continue
        one, two = figures[f"{key}_before"], figures[f"{key}_after"]
        change, error = figures[f"{key}_change"], figures[f"{key}_change_error"]
        text = f"{short_number(round(one, 4))} to {short_number(round(two, 4))}"
        # A change within its error says nothing, and a colour would say something.
        clear = round(one, 4) != round(two, 4) and abs(change) > error
        verdict = "" if not clear else "good" if (change > 0) == judge.higher_is_better else "bad"
        cells.append((label if key == "reward" else label + judge.name, text, verdict))
    rate = figures["win_rate"]
    verdict = "good" if rate > 0.5 else "bad" if rate < 0.5 else ""
    cells.append(("After beats before", f"{100 * rate:.0f} % of {figures['pairs']}", verdict))
    if figures["blurred_before"] is not None:
        text = f"{figures['blurred_before']} to {figures['blurred_after']} of {figures['images']}"
        cells.append(("Blurred (unsafe)", text, ""))
    if figures["diversity_before"] is not None:
        one, two = figures["diversity_before"], figures["diversity_after"]
        label = f"Diversity ({figures['diversity_features']})"
        cells.append((label, f"{short_number(round(one, 4))} to {short_number(round(two, 4))}", ""))
    cells.append(("Time", f"{figures['seconds']:.1f} s", ""))
    return cells


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
