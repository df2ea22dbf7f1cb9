"""`run.py train demo-model`: builds the data, trains every stage within a wall-clock budget, and writes the files.

Stopping it (Ctrl-C, or the machine going down) loses at most two minutes; the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from ..checkpoint import write_atomically
from . import data, networks, train_model, train_reward

PACK = Path(__file__).resolve().parents[2]
SHARES = {"denoiser": 0.6, "decoder": 0.2, "encoder": 0.04, "reward": 0.08, "judge": 0.08}
STAGES = tuple(SHARES)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line of the recipe."""
    parser = argparse.ArgumentParser(prog="run.py train demo-model", description=__doc__)
    parser.add_argument("--minutes", type=float, default=180.0, help=f"training time in all; shares: {SHARES}")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only these stages (default: all, in order)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = all")
    parser.add_argument("--work", type=Path, default=PACK / ".cache" / "demo", help="folder of data and run states")
    parser.add_argument("--output", type=Path, default=PACK / "workflows" / "demo", help="folder of the finished files")
    return parser.parse_args(arguments)


def train_stage(stage: str, library: data.Library, run: Path, seconds: float) -> None:
    """Run (or resume) one stage."""
    if stage == "denoiser":
        train_model.train_denoiser(library, run, seconds=seconds)
    elif stage == "decoder":
        train_model.train_decoder(library, run, seconds=seconds)
    elif stage == "encoder":
        train_model.train_encoder(library, run, seconds=seconds)
    else:
        recipe = train_reward.REWARD if stage == "reward" else train_reward.JUDGE
        train_reward.train_reward(library, run, recipe, seconds=seconds)


def export_model(library: data.Library, run: Path, output: Path) -> Path:
    """Write the checkpoint that the host's stock loader reads, from the stages' averages."""
    denoiser = train_model.train_denoiser(library, run, seconds=0)
    autoencoder = networks.build_autoencoder()
    autoencoder.encoder = train_model.train_encoder(library, run, seconds=0)
    autoencoder.decoder = train_model.train_decoder(library, run, seconds=0)
    latents = train_model.fit_latents(library, run)
    tensors = networks.host_checkpoint(denoiser["unet"], denoiser["text"], autoencoder)
    header = {
        "modelspec.title": "Attune demo model",
        "modelspec.prediction_type": "v",
        "modelspec.resolution": f"{data.IMAGE_SIZE}x{data.IMAGE_SIZE}",
        "modelspec.license": "see MODEL_CARD.md",
        "attune.demo": json.dumps({"latent_scale": train_model.LATENT_SCALE, "concepts": data.CONCEPT_NAMES}),
        "attune.latent_rgb": json.dumps(latents.preview_factors()),
    }
    path = output / "attune_demo.safetensors"
    write_atomically(path, tensors, header)
    return path


def export_rewards(library: data.Library, run: Path, output: Path) -> list[Path]:
    """Write both rewards with their measured retrieval accuracy."""
    paths = []
    for recipe, name in ((train_reward.REWARD, "reward"), (train_reward.JUDGE, "judge")):
        model = train_reward.train_reward(library, run, recipe, seconds=0)
        path = output / f"attune_demo_{name}.safetensors"
        train_reward.save_reward(model, path, recipe, train_reward.retrieval(model, library, recipe))
        paths.append(path)
    return paths


def main(arguments: list[str] | None = None) -> None:
    """Train what the command line asks for, then write the files."""
    options = parse(arguments)
    torch.set_flush_denormal(True)
    if options.threads:
        torch.set_num_threads(options.threads)
    library = data.build_library(options.work)
    run = options.work / "run"
    for stage in options.stage or STAGES:
        seconds = 60 * options.minutes * SHARES[stage]
        print(f"{stage}: {seconds / 60:.0f} minutes in all, log in {run / stage}.log.jsonl", flush=True)
        train_stage(stage, library, run, seconds)
    if not options.stage:
        for path in (export_model(library, run, options.output), *export_rewards(library, run, options.output)):
            print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
