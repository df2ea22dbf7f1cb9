"""Make the pictures of the help pages of One-Step Sampler and One-Step Preset afresh, by the demo model on a real host.

    .venv/bin/python scripts/module.py attune.tests.one_step_pictures

A picture that does not show what its caption says is not written. Look at both before you commit them; the times are
those of one core of this machine, so leave it alone meanwhile.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from attune.nodes.drawing import BAD, GOOD, TEXT, Canvas
from attune.nodes.rewards.load import load_reward
from attune.scripts.environment import Environment

from .help_pictures import FOLDER
from .host.graphs import finished, node
from .hosting import ROOT, HostServer, comfyui_folder

JUDGE = ROOT / "workflows" / "demo" / "attune_demo_judge.safetensors"
# Help is read in a narrow side panel, where the picture is shown at less than half its size.
LETTERS, EDGE, TITLE, CAPTION, GAP = 29, 10, 52, 52, 3
# Of a picture: as it is drawn, where there are many; larger than that, where something is to be seen in each.
SIDE, LARGE = 64, 100
QUALITY, LARGEST = 64, 40_000
SEED, COLUMNS, REPEATS = 7, 4, 3
PROMPTS = ("a cat, cartoon style", "a mushroom, 3d style", "a castle, flat style", "a red apple on a blue background")
SHOWN = ("a cat, cartoon style", "a castle, flat style", "a rose")
# That of the host's SamplerCustom, unless somebody sets it.
HOSTS_CFG = 8.0


@dataclass(frozen=True)
class Drawn:
    """Pictures of a run.

    Attributes:
        pictures: [B, h, w, 3] in [0, 1], those of a prompt one after the other.
        seconds: from Run to the last picture, with everything loaded.
    """

    pictures: np.ndarray
    seconds: float = 0.0

    def score(self, prompts: Sequence[str]) -> float:
        """How well a judge that nothing was learned from finds the prompts, on average."""
        each = len(self.pictures) // len(prompts)
        texts = [prompt for prompt in prompts for _ in range(each)]
        with torch.no_grad():
            return float(load_reward(JUDGE, "cpu")(torch.from_numpy(self.pictures), texts).mean())


# ---- what is drawn ----


def base(prompts: Sequence[str], count: int, *, lora: bool = True) -> dict[str, Any]:
    """The demo model with its one-step LoRA, and `count` pictures of each prompt to be drawn."""
    graph = {
        "model": node("CheckpointLoaderSimple", ckpt_name="attune_demo.safetensors"),
        "prompts": node(
            "AttunePromptLines", text="\n".join(prompts), remove_duplicates=False, shuffle_seed=0, limit=0, repeat=1
        ),
        "positive": node("CLIPTextEncode", clip=["model", 1], text=["prompts", 1]),
        "negative": node("CLIPTextEncode", clip=["model", 1], text=""),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=count),
        "decoded": node("VAEDecode", samples=["drawn", 0], vae=["model", 2]),
        "shown": node("PreviewImage", images=["decoded", 0]),
    }
    if lora:
        graph["tuned"] = node(
            "LoraLoaderModelOnly", model=["model", 0], lora_name="attune_demo_one_step.safetensors", strength_model=1.0
        )
    return graph


def one_step(seed: int, prompts: Sequence[str], count: int, *, preset: str = "auto", lora: bool = True) -> dict:
    model = ["tuned" if lora else "model", 0]
    return base(prompts, count, lora=lora) | {
        "preset": node("AttuneOneStepPreset", model=model, preset=preset, steps=1),
        "drawn": node(
            "AttuneOneStepSampler", model=model, positive=["positive", 0], latent=["latent", 0], seed=seed, steps=1,
            batch_size=0, preset=["preset", 0],
        ),
    }  # fmt: skip


def guided(seed: int, prompts: Sequence[str], count: int, cfg: float) -> dict[str, Any]:
    """The same by the host's sampler, with guidance."""
    return base(prompts, count) | {
        "preset": node("AttuneOneStepPreset", model=["tuned", 0], preset="auto", steps=1),
        "drawn": node(
            "SamplerCustom", model=["tuned", 0], add_noise=True, noise_seed=seed, cfg=cfg, positive=["positive", 0],
            negative=["negative", 0], sampler=["preset", 2], sigmas=["preset", 1], latent_image=["latent", 0],
        ),
    }  # fmt: skip


def twenty_steps(seed: int, prompts: Sequence[str], count: int) -> dict[str, Any]:
    """By the model that the LoRA was made from."""
    return base(prompts, count, lora=False) | {
        "drawn": node(
            "KSampler", model=["model", 0], seed=seed, steps=20, cfg=3.0, sampler_name="euler", scheduler="normal",
            positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0], denoise=1.0,
        ),
    }  # fmt: skip


def drawn_by(host: HostServer, graph: Mapping[str, Any]) -> Drawn:
    """The pictures of a graph, and how long its run took.

    Raises:
        SystemExit: it failed.
    """
    record = finished(host, graph)
    if record["status"]["status_str"] != "success":
        sys.exit(f"the run failed: {record['status']}")
    times = {kind: data.get("timestamp") for kind, data in record["status"]["messages"]}
    pictures = [host.pixels(host.output_path(entry)) for entry in record["outputs"]["shown"]["images"]]
    return Drawn(np.stack(pictures), (times["execution_success"] - times["execution_start"]) / 1000)


def quickest(host: HostServer, graph: Any, prompts: Sequence[str]) -> Drawn:
    """Pictures by SEED in the best time of several runs; those with other seeds load everything and are not shown."""
    others = [drawn_by(host, graph(SEED + 1 + repeat, prompts, COLUMNS)).seconds for repeat in range(REPEATS)]
    shown = drawn_by(host, graph(SEED, prompts, COLUMNS))
    return Drawn(shown.pictures, min(shown.seconds, *others[1:]))


# ---- the pictures ----


def seconds_text(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def beside(one: Drawn, many: Drawn) -> Image.Image:
    """Sixteen pictures in one step, and the same sixteen in twenty."""
    half, bottom = extent(COLUMNS), TITLE + extent(len(one.pictures) // COLUMNS)
    canvas = Canvas(2 * half + 3 * EDGE, bottom + CAPTION)
    titles = (("One step", one, GOOD), ("Twenty steps", many, TEXT))
    for left, (title, drawn, colour) in zip((EDGE, 2 * EDGE + half), titles, strict=True):
        said = f"{title}: {seconds_text(drawn.seconds)}"
        canvas.text(left, TITLE / 2, said, size=LETTERS, colour=colour, anchor="lm")
        place(canvas, drawn.pictures, left, TITLE, columns=COLUMNS)
    caption = f"{len(one.pictures)} pictures each, from the same noise."
    canvas.text(canvas.width / 2, bottom + CAPTION / 2, caption, size=LETTERS, anchor="mm")
    return canvas.finish()


def right_and_wrong(parts: Mapping[str, Drawn]) -> Image.Image:
    """Pictures of three prompts under each title; the first part is as it should be."""
    half, height = extent(len(SHOWN), LARGE), TITLE + LARGE + EDGE
    canvas = Canvas(2 * half + 3 * EDGE, 2 * height)
    for index, (title, drawn) in enumerate(parts.items()):
        left, top = EDGE + index % 2 * (EDGE + half), index // 2 * height
        colour = BAD if index else GOOD
        canvas.text(left, top + TITLE / 2, title, size=LETTERS, colour=colour, anchor="lm")
        place(canvas, drawn.pictures, left, top + TITLE, columns=len(SHOWN), side=LARGE)
    return canvas.finish()


def extent(count: int, side: int = SIDE) -> int:
    """Of so many pictures in a row."""
    return count * (side + GAP) - GAP


def place(canvas: Canvas, pictures: np.ndarray, left: float, top: float, *, columns: int, side: int = SIDE) -> None:
    for index, picture in enumerate(pictures):
        tile = Image.fromarray((picture * 255).round().astype(np.uint8))
        row, column = divmod(index, columns)
        canvas.picture(tile, left + column * (side + GAP), top + row * (side + GAP), side, side)


# ---- what they claim ----


def as_good_and_far_quicker(one: Drawn, many: Drawn) -> bool:
    return one.score(PROMPTS) >= 0.9 * many.score(PROMPTS) and one.seconds <= many.seconds / 5


def the_first_is_best(parts: Mapping[str, Drawn]) -> bool:
    first, *others = (drawn.score(SHOWN) for drawn in parts.values())
    return all(first > other for other in others)


def save(picture: Image.Image, page: str) -> None:
    path = FOLDER / f"{page}.jpg"
    picture.save(path, quality=QUALITY, optimize=True)
    if path.stat().st_size > LARGEST:
        sys.exit(f"{path.name} is larger than {LARGEST} bytes: {path.stat().st_size}.")


def main() -> None:
    environment = Environment(Path(sys.executable), comfyui_folder(), own=True)
    with tempfile.TemporaryDirectory() as folder, HostServer(environment, Path(folder), force_cpu=True) as host:
        one, many = (quickest(host, graph, PROMPTS) for graph in (one_step, twenty_steps))
        parts = {
            "Right: preset auto": drawn_by(host, one_step(SEED, SHOWN, 1)),
            "Wrong preset": drawn_by(host, one_step(SEED, SHOWN, 1, preset="DI*-SDXL 1 step")),
            f"With guidance, cfg {HOSTS_CFG:g}": drawn_by(host, guided(SEED, SHOWN, 1, HOSTS_CFG)),
            "Without its LoRA": drawn_by(host, one_step(SEED, SHOWN, 1, lora=False)),
        }
    print(f"one step: {one.seconds:.2f} s, judged {one.score(PROMPTS):.3f}")
    print(f"twenty: {many.seconds:.2f} s, judged {many.score(PROMPTS):.3f}")
    print({title: round(drawn.score(SHOWN), 3) for title, drawn in parts.items()})
    if not as_good_and_far_quicker(one, many):
        sys.exit("One step is not as good as twenty and far quicker here.")
    if not the_first_is_best(parts):
        sys.exit("What is called right is not the best.")
    save(beside(one, many), "AttuneOneStepSampler")
    save(right_and_wrong(parts), "AttuneOneStepPreset")


if __name__ == "__main__":
    main()
