"""The example pictures of the style template: drawings turned into blueprints, an unmistakable look.

`python scripts/module.py attune.training.demo.style_pictures` writes `workflows/demo/attune_style/*.png` with a caption
file beside each. The drawings are Microsoft's Fluent emoji (MIT), as in the demo model's data set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from .data import CONCEPT_NAMES, PLURALS, Library, build_library, with_article

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "workflows" / "demo" / "attune_style"
SIZE = 64
PAPER, INK, RULING = (28, 74, 150), (236, 244, 255), (58, 104, 178)
CONCEPTS = (
    "fox", "elephant", "rabbit", "penguin", "owl", "turtle", "whale", "butterfly", "sunflower", "palm tree", "cactus",
    "pineapple", "pear", "carrot", "croissant", "ice cream", "coffee cup", "house", "car", "sailboat", "umbrella",
    "trophy", "bell", "camera",
)  # fmt: skip


def blueprint(rgba: np.ndarray) -> Image.Image:
    """A drawing [h, h, 4] as white lines on ruled blue paper, [64, 64] RGB.

    A line is drawn wherever colour or outline changes quickly.
    """
    side = 4 * SIZE
    drawing = Image.fromarray(rgba).resize((int(0.84 * side),) * 2, Image.Resampling.LANCZOS)
    sheet = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    sheet.paste(drawing, ((side - drawing.width) // 2, (side - drawing.height) // 2))
    values = np.asarray(sheet.filter(ImageFilter.GaussianBlur(1.6)), dtype=np.float32) / 255
    values[..., :3] *= values[..., 3:]
    vertical, horizontal = np.gradient(values, axis=(0, 1))
    strength = np.sqrt(vertical**2 + horizontal**2).max(-1)
    lines = Image.fromarray((np.clip(strength / 0.05 - 0.35, 0, 1) * 255).astype(np.uint8))
    lines = lines.filter(ImageFilter.MaxFilter(3)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    paper = Image.new("RGB", (SIZE, SIZE), PAPER)
    for position in range(7, SIZE, 16):
        paper.paste(RULING, (position, 0, position + 1, SIZE))
        paper.paste(RULING, (0, position, SIZE, position + 1))
    paper.paste(Image.new("RGB", (SIZE, SIZE), INK), (0, 0), lines)
    return paper


def write_pictures(library: Library, folder: Path) -> int:
    """Write every picture with its caption; returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for concept in CONCEPTS:
        index = library.find(concept, "flat")
        if index is None:
            continue
        name = concept.replace(" ", "_")
        blueprint(library.rgba[index]).save(folder / f"{name}.png", optimize=True)
        words = concept if concept in PLURALS else with_article(concept)
        (folder / f"{name}.txt").write_text(words + "\n", encoding="utf-8")
        count += 1
    return count


if __name__ == "__main__":
    assert set(CONCEPTS) <= set(CONCEPT_NAMES)
    print(f"{write_pictures(build_library(ROOT / '.cache' / 'demo'), FOLDER)} pictures in {FOLDER}")
