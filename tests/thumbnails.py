"""Make the templates' thumbnails afresh, from their own results on a real host.

    .venv/bin/python scripts/module.py attune.tests.thumbnails [NAME …]

Each template runs to its end, unshortened; where it asks a person, it is answered and runs again.
Its largest picture, cut below where it is much taller than wide, becomes `workflows/NAME.jpg`; if there are several of
that size, all of them side by side. Look at the pictures before you commit them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..scripts.environment import Environment
from .hosting import HostServer, comfyui_folder
from .tiny_vlm import CHAT_TEMPLATE, write_tiny_vlm

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
TALLEST = 1.1
"""Height over width; a template browser shows the upper part of a card."""
WIDEST, SEVERAL = 1024, 4
CHOOSE, COMMIT = "AttuneChooseImages", "AttuneCommitRound"
# What a person says to the rounds of a refinement.
SAID = {
    "refine_in_rounds": ("make the background blue", "in a flat style", "on a yellow background"),
    "refine_and_learn": ("make the background blue", "in a flat style", "on a yellow background"),
    "refine_with_local_llm": ("on a green background please", "no, rather orange"),
    "refine_by_pictures": ("", ""),
    "ab_test_schedules": ("on a pink background", ""),
}
# Templates in which the rewards decide, and of how many runs.
RUNS = {"weights_and_pareto": 5}
# The one thing that a template needs and the pack does not bring along.
OVERRIDES = {
    "describe_my_taste": {
        "AttuneDescribePreference.model_folder": "tiny_vlm", "AttuneDescribePreference.max_new_tokens": 32
    },
    "train_reward_model": {"AttuneTrainRewardModel.model_folder": "tiny_vlm"},
}  # fmt: skip


def thumbnail(pictures: Sequence[Path]) -> Image.Image:
    """The largest of the pictures, fit for a card."""
    opened = [Image.open(file).convert("RGB") for file in pictures]
    largest = max(opened, key=lambda image: image.width * image.height)
    alike = [image for image in opened if image.size == largest.size]
    if len(alike) >= SEVERAL:
        largest = side_by_side(alike)
    card = largest.crop((0, 0, largest.width, min(largest.height, round(TALLEST * largest.width))))
    card.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    return card


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size as a sheet, twice as wide as tall or nearly so."""
    columns = round((2 * len(images)) ** 0.5)
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height))
    for place, image in enumerate(images):
        sheet.paste(image, (place % columns * width, place // columns * height))
    return sheet


def choose_warmest(server: HostServer, page: dict[str, Any]) -> None:
    """Answer what Choose Images has asked: the picture with the most red and the least blue."""

    def warmth(name: str) -> float:
        content = server.request(f"/attune/preferences/picture/{name}")
        pixels = np.asarray(Image.open(BytesIO(content)), dtype=np.float32)
        return float((pixels[..., 0] - pixels[..., 2]).mean())

    address, profile = "/attune/preferences", {"profile": page["profile"]}
    for question in server.post(f"{address}/questions", profile | {"questions": page["questions"]})["questions"]:
        best = max((picture["hash"] for picture in question["pictures"]), key=warmth)
        server.post(f"{address}/decide", profile | {"question": question["key"], "choice": best})


def answer_round(server: HostServer, page: dict[str, Any], comment: str) -> None:
    """Like the picture of a round that its rewards like best, or the first, and say something."""
    session = server.get(f"/attune/refinement/session/{page['key']}")
    scores = [sum(picture["scores"].values()) for picture in session["open"]["pictures"]]
    body = {"key": session["key"], "revision": session["revision"], "round": session["open"]["key"]}
    liked = [scores.index(max(scores))]
    server.post("/attune/refinement/commit", body | {"liked": liked, "comment": comment, "rating": 4})


def main(names: Sequence[str]) -> None:
    """Run the named templates, or all."""
    templates = [WORKFLOWS / f"{name}.json" for name in names] or sorted(WORKFLOWS.glob("*.json"))
    environment = Environment(Path(sys.executable), comfyui_folder(), own=True)
    with tempfile.TemporaryDirectory() as folder, HostServer(environment, Path(folder), force_cpu=True) as server:
        write_tiny_vlm(server.models_dir / "rewards" / "tiny_vlm", chat_template=CHAT_TEMPLATE)
        for template in templates:
            result = server.run(template, OVERRIDES.get(template.stem))
            if result.nodes(CHOOSE):
                choose_warmest(server, result.ui(CHOOSE, "attune_choose")[0])
                result = server.run(template, OVERRIDES.get(template.stem))
            for comment in SAID.get(template.stem, ()):
                answer_round(server, result.ui(COMMIT, "attune_round")[0], comment)
                result = server.run(template)
            for _ in range(1, RUNS.get(template.stem, 1)):
                result = server.run(template)
            target = template.with_suffix(".jpg")
            thumbnail(server.images(result)).save(target, quality=88)
            print(f"{target.name}: {result.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
