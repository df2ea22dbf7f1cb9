"""`run.py train simulate-choices`: simulated people choose between pictures of yours.

For trying personal preference, or for testing a method of your own, before people have chosen anything: who they are is
known, so it can be measured how well they are served. The pictures are listed in JSON Lines,

    {"prompt": "a cat", "image": "cat_1.png"}

with at least two of each prompt, in the list's folder. Written beside them are pairs in the form that preference
training reads, with the person who chose,

    {"prompt": "a cat", "chosen": "cat_2.png", "rejected": "cat_1.png", "person": "simulated 0"}

and, in NAME.people.json, everybody's true weights of the attributes, which no method may look at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ..checkpoint import whole_file
from ..interfaces import TrainingError
from ..preference_pairs import opened
from .attributes import ATTRIBUTES
from .pool import Pool
from .population import Population, PopulationConfig

DEFAULTS = PopulationConfig(people=40)
# Attributes are means over the picture: a thumbnail has them too.
SIDE = 128


def listed(file: Path) -> tuple[list[str], list[Path]]:
    """Prompts and pictures of a list.

    Raises:
        TrainingError: unreadable, a line of another form, or a picture that is missing or outside of the list's folder;
            names the line.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"The list {file} cannot be read ({error}). Check the path and that it is UTF-8."
        ) from error
    folder, prompts, pictures = file.resolve().parent, [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            prompt, path = str(entry["prompt"]), (folder / str(entry["image"])).resolve()
            found = path.is_file()
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise TrainingError(
                f'{file.name}, line {number} is not {{"prompt": …, "image": …}} ({error!r}). Write one such object per '
                "line."
            ) from error
        if not path.is_relative_to(folder) or not found:
            raise TrainingError(f"{file.name}, line {number}: there is no such picture in {folder}. Put it there.")
        prompts.append(prompt)
        pictures.append(path)
    if not prompts:
        raise TrainingError(f'{file.name} lists no pictures. Write one {{"prompt": …, "image": …}} per line.')
    return prompts, pictures


def pixels(picture: Path) -> torch.Tensor:
    """A thumbnail [1, h, w, 3] in [0, 1]."""
    image = opened(picture).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, *image.size[::-1], 3) / 255


def simulate(
    prompts: Sequence[str], pictures: Sequence[Path], config: PopulationConfig, choices: int
) -> tuple[list[tuple[int, int, int]], Population]:
    """(person, place of the chosen, place of the rejected) of every choice, and who chose."""
    population = Population(config)
    attributes = torch.cat([population.attributes(pixels(picture)) for picture in pictures])
    nothing = torch.zeros(len(pictures), 1)
    pool = Pool(prompts, nothing, nothing, attributes)
    population.get_used_to(attributes)
    generator = torch.Generator().manual_seed(config.seed + 1)
    people = torch.arange(config.people)
    judged = pool.judged(population, people, pool.draw_pairs(len(people), choices, generator), generator)
    return [(person, *pair) for person, own in enumerate(judged.tolist()) for pair in own], population


def main(arguments: list[str] | None = None) -> None:
    """Read the list, let them choose, write both files."""
    parser = argparse.ArgumentParser(prog="run.py train simulate-choices", description=__doc__.partition("\n")[0])
    parser.add_argument("list", type=Path, help='JSON Lines: {"prompt": …, "image": …}')
    parser.add_argument("--name", default="choices", help="of the files that are written beside the list")
    parser.add_argument("--people", type=int, default=DEFAULTS.people)
    parser.add_argument("--choices", type=int, default=16, help="of each person")
    parser.add_argument("--attributes", default=",".join(ATTRIBUTES), help=f"among {', '.join(ATTRIBUTES)}")
    parser.add_argument("--sharpness", type=float, default=DEFAULTS.sharpness, help="higher errs less")
    parser.add_argument("--lapses", type=float, default=DEFAULTS.lapses, help="share of tosses, 0…1")
    parser.add_argument("--antagonists", action="store_true", help="everybody has a counterpart of opposite taste")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    config = PopulationConfig(
        people=options.people,
        attributes=tuple(options.attributes.split(",")),
        sharpness=options.sharpness,
        lapses=options.lapses,
        antagonists=options.antagonists,
        seed=options.seed,
    )
    prompts, pictures = listed(options.list)
    found, population = simulate(prompts, pictures, config, options.choices)
    folder = options.list.resolve().parent
    names = [picture.relative_to(folder).as_posix() for picture in pictures]
    rows = [
        {
            "prompt": prompts[chosen],
            "chosen": names[chosen],
            "rejected": names[rejected],
            "person": f"simulated {person}",
        }
        for person, chosen, rejected in found
    ]
    document = asdict(config) | {"weights": population.tastes.tolist()}
    for suffix, text in (
        (".jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)),
        (".people.json", json.dumps(document, indent=2) + "\n"),
    ):
        with whole_file(folder / f"{options.name}{suffix}") as partial:
            partial.write_text(text, encoding="utf-8")
        print(f"wrote {folder / f'{options.name}{suffix}'}")
