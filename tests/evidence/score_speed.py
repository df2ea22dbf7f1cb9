"""score-speed: our scoring against the plain library loop on the same weights, and nothing computed twice.

Bed: open_clip's ViT-B-32 with random weights, saved in open_clip's own layout and loaded by our loader; `IMAGES`
pictures of 320 × 256 pixels, each with a prompt of its own that neither side has seen before. The plain loop is what
open_clip's documentation shows: its own transform on each picture, its tokenizer, encode_image, encode_text, normalised
product, in batches of the size that ours takes. It gets the pictures as Pillow images, ready made; ours is what Score
Images calls, gets the host's tensors, and also hashes them for its memory. Both sides run in turn, and the first one
alternates. Per repetition: other weights, pictures and prompts.

The figure is the plain loop's time over ours. score-speed.cached: forward passes of the network when the same pictures
are scored again, counted by a hook on the network itself.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attune.nodes.rewards.cache import CachedReward, ScoreStore
from attune.nodes.rewards.load import load_reward
from attune.nodes.rewards.scoring import IMAGES_AT_ONCE, score_table
from attune.training.checkpoint import write_atomically

from .record import Claim, Stopwatch, bootstrap, record

SPEED = Claim("score-speed", 0.97, ">=", "×", "our scoring against open_clip's plain loop")
CACHED = Claim("score-speed.cached", 0, "<=", "forward passes", "scoring the same pictures again")
SEEDS, QUICK_SEEDS = tuple(range(7)), (0, 1)
IMAGES, QUICK_IMAGES = 64, 8
HEIGHT, WIDTH = 256, 320
TOLERANCE = 1e-4


def plain_loop(
    network: Any, preprocess: Callable[..., torch.Tensor], tokenizer: Any, pictures: list[Any], prompts: Sequence[str]
) -> torch.Tensor:
    """Cosines [N], as open_clip's documentation computes them."""
    scores = []
    with torch.no_grad():
        for start in range(0, len(pictures), IMAGES_AT_ONCE):
            pixels = torch.stack([preprocess(picture) for picture in pictures[start : start + IMAGES_AT_ONCE]])
            image = network.encode_image(pixels)
            text = network.encode_text(tokenizer(list(prompts[start : start + IMAGES_AT_ONCE])))
            image, text = (features / features.norm(dim=-1, keepdim=True) for features in (image, text))
            scores.append((image * text).sum(1))
    return torch.cat(scores)


def timed(function: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


class ForwardPasses:
    """Counts calls of a network's two encoders."""

    def __init__(self, network: Any) -> None:
        self.count = 0
        for part in (network.visual, network.transformer):
            part.register_forward_pre_hook(self._seen)

    def _seen(self, *_: Any) -> None:
        self.count += 1


def trial(seed: int, count: int, file: Path) -> dict[str, float]:
    """One repetition: seconds of both sides, their largest difference, and forward passes of a second scoring.

    Raises:
        RuntimeError: both sides disagree, so their times say nothing.
    """
    import open_clip

    torch.manual_seed(seed)
    network, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    network.eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    write_atomically(file, network.state_dict(), {})
    ours = CachedReward(load_reward(file, "cpu", model_type="CLIPScore (LAION, GELU)").reward, ScoreStore())
    rng = np.random.default_rng(seed)
    # Smooth pictures: noise would be averaged away, and every picture would score alike.
    small = rng.integers(0, 256, (count, 8, 10, 3), dtype=np.uint8)
    pictures = [Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC) for pixels in small]
    images = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).float() / 255
    prompts = [f"picture number {number} of set {seed}, a thing on a table" for number in range(count)]
    # Neither side pays for what is done once in a process.
    plain_loop(network, preprocess, tokenizer, pictures[:2], ["warm", "up"])
    ours(images[:2] / 2, ["warm", "up"])
    sides = {
        "plain": lambda: plain_loop(network, preprocess, tokenizer, pictures, prompts),
        "ours": lambda: torch.tensor(score_table(list(images), prompts, ours).scores),
    }
    order = list(sides) if seed % 2 else list(sides)[::-1]
    found = {name: timed(sides[name]) for name in order}
    difference = float((found["plain"][1] - found["ours"][1]).abs().max())
    if difference > TOLERANCE:
        raise RuntimeError(f"The two sides differ by {difference:.2g}: {found}.")
    passes = ForwardPasses(ours.reward.network)
    again = torch.tensor(score_table(list(images), prompts, ours).scores)
    if not torch.equal(again, found["ours"][1]):
        raise RuntimeError("What was remembered is not what was computed.")
    return {
        "plain": found["plain"][0],
        "ours": found["ours"][0],
        "difference": difference,
        "second_forward_passes": passes.count,
    }


def main(quick: bool) -> None:
    watch = Stopwatch()
    seeds, count = (QUICK_SEEDS, QUICK_IMAGES) if quick else (SEEDS, IMAGES)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            rows.append(trial(seed, count, Path(folder) / "vit_b_32.safetensors"))
            print(f"seed {seed}: {', '.join(f'{name} {value:.3g}' for name, value in rows[-1].items())}", flush=True)
    ratios = [row["plain"] / row["ours"] for row in rows]
    details = {"rows": rows, "images": count, "size": [HEIGHT, WIDTH], "network": "open_clip ViT-B-32"}
    record(
        SPEED,
        float(np.median(ratios)),
        ci=bootstrap(ratios, lambda sample: float(np.median(sample))),
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=ratios,
        details=details,
    )
    passes = [row["second_forward_passes"] for row in rows]
    record(
        CACHED,
        float(max(passes)),
        ci=None,
        seeds=len(seeds),
        seconds=watch.seconds,
        quick=quick,
        samples=passes,
        details=details,
    )
