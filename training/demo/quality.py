"""How good the demo model is: contact sheets to look at, and what can be measured without a person.

`python run.py train demo-quality` writes into `workflows/demo/card/`:
    seen.jpg        48 samples of concepts and styles the model has seen; whether they can be named is for a person
    held_out.jpg    concept × style pairs it has never seen together
    curves.png      training losses
    quality.json    agreement of background, style and concept with the prompt, and retrieval of both rewards
Backgrounds are read from the pixels along the edge; style and concept are those of the nearest real drawing, and, as a
second opinion, what the demo judge finds. How often either is right about real drawings stands beside its verdict.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

from ..rollout import play
from . import data, train_reward
from .pipeline import DemoPipeline, prompt_text

PACK = Path(__file__).resolve().parents[2]
COLUMNS, CELL = 8, 144
STEPS, GUIDANCE = 20, 3.0


def choose(pairs: Sequence[tuple[str, str]], count: int, seed: int) -> list[data.Attributes]:
    """`count` pairs with random backgrounds, as many different concepts as there are."""
    rng = np.random.default_rng(seed)
    shuffled = [pairs[i] for i in rng.permutation(len(pairs))]
    first, rest, seen = [], [], set()
    for pair in shuffled:
        (rest if pair[0] in seen else first).append(pair)
        seen.add(pair[0])
    backgrounds = list(data.BACKGROUNDS)
    return [data.Attributes(*pair, str(rng.choice(backgrounds))) for pair in (first + rest)[:count]]


@torch.no_grad()
def sample(pipeline: DemoPipeline, wishes: Sequence[data.Attributes], seed: int) -> torch.Tensor:
    """One picture per wish, float32 [B, 64, 64, 3]; 20 DDIM steps, guidance 3."""
    prompts = pipeline.prompts([prompt_text(w.concept, w.style, w.background) for w in wishes])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(prompts), *pipeline.latent_shape, generator=generator)
    played = play(
        pipeline.denoiser,
        pipeline.denoiser.process,
        noise,
        [prompt.positive for prompt in prompts],
        steps=STEPS,
        guidance=GUIDANCE,
        generator=generator,
        eta=0.0,
    )
    return pipeline.decoder.decode(played.pictures)


def background_of(images: torch.Tensor) -> list[str]:
    """The named colour nearest to the median of each picture's outermost two pixels."""
    edge = torch.cat([images[:, :2].flatten(1, 2), images[:, -2:].flatten(1, 2), images[:, :, :2].flatten(1, 2),
                      images[:, :, -2:].flatten(1, 2)], 1)  # fmt: skip
    colours = torch.tensor(list(data.BACKGROUNDS.values())) / 255
    nearest = torch.cdist(edge.median(1).values, colours).argmin(1)
    return [list(data.BACKGROUNDS)[i] for i in nearest]


def sheet(images: torch.Tensor, wishes: Sequence[data.Attributes], *, words: bool) -> Image.Image:
    """A contact sheet; `words=False` leaves the prompts out, for naming the objects at a glance."""
    line = 22 if words else 0
    rows = -(-len(images) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * CELL, rows * (CELL + line)), (24, 24, 27))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for index, (image, wish) in enumerate(zip(images, wishes, strict=True)):
        picture = Image.fromarray((image * 255).round().byte().numpy())
        x, y = index % COLUMNS * CELL, index // COLUMNS * (CELL + line)
        canvas.paste(picture.resize((CELL - 4, CELL - 4), Image.Resampling.LANCZOS), (x + 2, y + 2))
        if words:
            text = f"{wish.concept}, {wish.style}, {wish.background}"
            draw.text((x + CELL / 2, y + CELL + 4), text, fill=(200, 200, 205), font=font, anchor="mt")
    return canvas


def nearest_drawing(
    library: data.Library, images: torch.Tensor, wishes: Sequence[data.Attributes]
) -> list[tuple[str, str]]:
    """What pixels alone say, for large drawings in the middle: (concept, style) of each picture.

    The concept is that of the nearest of all drawings on the wished background, the style that of the nearest of the
    wished concept's drawings. Distance: squared difference of the pictures at half size, mirrored or not.

    Args:
        images: [B, 64, 64, 3] in [0, 1].
    """
    found: list[tuple[str, str]] = [("", "")] * len(wishes)
    concepts, styles = (np.array(names) for names in zip(*library.pairs(), strict=True))
    for background in dict.fromkeys(wish.background for wish in wishes):
        rows = [row for row, wish in enumerate(wishes) if wish.background == background]
        drawn = np.stack(
            [
                data.compose(library, data.Attributes(*pair, background), np.random.default_rng(0), colour_jitter=0)
                for pair in library.pairs()
            ]
        )
        known = half_size(torch.from_numpy(drawn).float() / 255)
        shown = half_size(images[rows])
        distance = torch.minimum(
            torch.cdist(shown.flatten(1), known.flatten(1)), torch.cdist(shown.flatten(1), known.flip(3).flatten(1))
        ).numpy()
        for row, distances in zip(rows, distance, strict=True):
            own = np.flatnonzero(concepts == wishes[row].concept)
            found[row] = (str(concepts[distances.argmin()]), str(styles[own[distances[own].argmin()]]))
    return found


def half_size(images: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(images.movedim(-1, 1), 2)


def matches(library: data.Library, images: torch.Tensor, wishes: Sequence[data.Attributes]) -> dict[str, float]:
    """Shares of pictures whose nearest drawing has the wished concept, and the wished style."""
    found = nearest_drawing(library, images, wishes)
    return {
        "concept": float(np.mean([concept == w.concept for (concept, _), w in zip(found, wishes, strict=True)])),
        "style": float(np.mean([style == w.style for (_, style), w in zip(found, wishes, strict=True)])),
    }


def softened(library: data.Library, wishes: Sequence[data.Attributes], seed: int) -> torch.Tensor:
    """Real drawings as a generator might paint them, to try the measure on: shifted, resized and blurred."""
    rng = np.random.default_rng(seed)
    pixels = np.stack([data.compose(library, wish, rng, placement_jitter=1.0) for wish in wishes])
    images = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    small = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    return F.interpolate(small, scale_factor=2, mode="bilinear").movedim(1, -1)


@torch.no_grad()
def agreement(model: train_reward.DualEncoder, images: torch.Tensor, wishes: Sequence[data.Attributes]) -> dict:
    """Shares of pictures whose concept (of all) and style (of six, the rest given) the encoder finds as wished."""
    features = model.images(images.movedim(-1, 1))
    concepts = model.texts([prompt_text(name) for name in data.CONCEPT_NAMES])
    named = [data.CONCEPT_NAMES[i] for i in (features @ concepts.T).argmax(1)]
    styled = []
    for feature, wish in zip(features, wishes, strict=True):
        texts = model.texts([prompt_text(wish.concept, style, wish.background) for style in data.STYLES])
        styled.append(data.STYLES[int((texts @ feature).argmax())])
    return {
        "concept": float(np.mean([n == w.concept for n, w in zip(named, wishes, strict=True)])),
        "style": float(np.mean([s == w.style for s, w in zip(styled, wishes, strict=True)])),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure the shipped checkpoint."""
    parser = argparse.ArgumentParser(prog="run.py train demo-quality", description=__doc__)
    parser.add_argument("--work", type=Path, default=PACK / ".cache" / "demo", help="folder of data and run states")
    parser.add_argument("--output", type=Path, default=PACK / "workflows" / "demo", help="folder of the finished files")
    parser.add_argument("--count", type=int, default=192, help="pictures measured per set")
    options = parser.parse_args(arguments)
    library = data.build_library(options.work)
    pipeline = DemoPipeline.load(options.output / "attune_demo.safetensors")
    run, card = options.work / "run", options.output / "card"
    card.mkdir(parents=True, exist_ok=True)
    judge = train_reward.train_reward(library, run, train_reward.JUDGE, seconds=0)
    seen = [pair for pair in library.pairs() if not data.is_held_out(*pair)]
    held_out = [pair for pair in library.pairs() if data.is_held_out(*pair)]
    figures: dict[str, object] = {"sampler": f"{STEPS} DDIM steps, guidance {GUIDANCE:g}"}
    for name, pairs, seed in (("seen", seen, 1), ("held_out", held_out, 2)):
        wishes = choose(pairs, options.count, seed)
        images = sample(pipeline, wishes, seed)
        right = [found == wish.background for found, wish in zip(background_of(images), wishes, strict=True)]
        figures[name] = {"pictures": len(wishes), "background": float(np.mean(right))}
        figures[name] |= {"nearest": matches(library, images, wishes), "judge": agreement(judge, images, wishes)}
        sheet(images[:48], wishes[:48], words=True).save(card / f"{name}.jpg", quality=88)
        sheet(images[:48], wishes[:48], words=False).save(options.work / f"{name}_without_words.png")
    wishes = choose(library.pairs(), options.count, 3)
    figures["nearest_on_real_drawings"] = matches(library, softened(library, wishes, 3), wishes)
    figures["nearest_on_real_drawings"]["images"] = len(wishes)
    figures["judge_on_real_drawings"] = train_reward.retrieval(judge, library, train_reward.JUDGE)
    reward = train_reward.train_reward(library, run, train_reward.REWARD, seconds=0)
    figures["reward_on_real_drawings"] = train_reward.retrieval(reward, library, train_reward.REWARD)
    _curves(run).save(card / "curves.png")
    (card / "quality.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    _write_card(options.output / "MODEL_CARD.md", figures)
    print(json.dumps(figures, indent=1))


BEGIN, END = "<!-- figures: written by `python run.py train demo-quality` -->", "<!-- /figures -->"


def _write_card(card: Path, figures: dict) -> None:
    """Put the figures between the card's two marks; a card without them is left alone."""
    if not card.exists():
        return
    before, begin, rest = card.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return
    lines = [
        "| set | pictures | background as asked | style (nearest drawing) | concept (nearest drawing) | style (judge) "
        "| concept (judge) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = {
        "generated, pairs seen in training": figures["seen"],
        "generated, pairs never seen together": figures["held_out"],
        "the measure itself: real drawings, shifted and blurred": {"nearest": figures["nearest_on_real_drawings"]},
        "the judge itself: real drawings it never saw": {"judge": figures["judge_on_real_drawings"]},
        "the reward itself: real drawings it never saw": {"judge": figures["reward_on_real_drawings"]},
    }
    for title, row in rows.items():
        nearest, judge = row.get("nearest", {}), row.get("judge", {})
        count = row.get("pictures") or judge.get("images") or nearest.get("images")
        background = row.get("background", judge.get("background"))
        shares = [background, nearest.get("style"), nearest.get("concept"), judge.get("style"), judge.get("concept")]
        cells = ["" if share is None else f"{share:.0%}" for share in shares]
        lines.append(f"| {title} | {count:.0f} | {' | '.join(cells)} |")
    card.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}", "utf-8")


def _curves(run: Path) -> Image.Image:
    """The stages' losses over their minutes, one panel each, logarithmic."""
    stages = [path for path in sorted(run.glob("*.log.jsonl")) if path.stat().st_size]
    width, height, pad = 360, 220, 34
    canvas = Image.new("RGB", (width * len(stages), height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for column, path in enumerate(stages):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        minutes = np.array([row["seconds"] / 60 for row in rows])
        losses = np.log10([row["loss"] for row in rows])
        low, high = losses.min(), losses.max() + 1e-9
        left = column * width + pad
        xs = left + minutes / minutes.max() * (width - 2 * pad)
        ys = height - pad - (losses - low) / (high - low) * (height - 2 * pad)
        draw.line([(left, pad), (left, height - pad), (left + width - 2 * pad, height - pad)], fill="gray")
        draw.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), fill=(40, 90, 200), width=2)
        draw.text((left, 8), f"{path.name.split('.')[0]}: loss (log)", fill="black", font=font)
        draw.text((left + 3, pad), f"{10**high:.3g}", fill="black", font=font)
        draw.text((left + 3, height - pad - 16), f"{10**low:.3g}", fill="black", font=font)
        draw.text(
            (left + width - 2 * pad, height - 24), f"{minutes.max():.0f} min", fill="black", font=font, anchor="rt"
        )
    return canvas


if __name__ == "__main__":
    main()
