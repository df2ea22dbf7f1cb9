"""The tool that lets simulated people choose between somebody's pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from attune.training.__main__ import JOBS
from attune.training.__main__ import main as job
from attune.training.interfaces import TrainingError
from attune.training.preference.simulate import listed
from attune.training.preference_pairs import read_pairs

COLOURS = {"warm": (220, 120, 40), "cool": (40, 120, 220), "grey": (120, 120, 120)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rows = []
    for prompt in ("a cat", "a dog"):
        for name, colour in COLOURS.items():
            file = tmp_path / f"{prompt[2:]}_{name}.png"
            Image.new("RGB", (40, 30), colour).save(file)
            rows.append({"prompt": prompt, "image": file.name})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return tmp_path / "list.jsonl"


def choose(pictures: Path, *words: str) -> list[dict[str, str]]:
    assert "simulate-choices" in JOBS
    assert job(["simulate-choices", str(pictures), "--people", "6", "--choices", "4", *words]) == 0
    return [json.loads(line) for line in (pictures.parent / "choices.jsonl").read_text("utf-8").splitlines()]


def test_people_choose_what_their_weights_say(pictures):
    rows = choose(pictures, "--attributes", "warmth", "--sharpness", "1000")
    people = json.loads((pictures.parent / "choices.people.json").read_text("utf-8"))
    assert len(rows) == 24 and len(people["weights"]) == 6
    order = ["cool", "grey", "warm"]
    for row in rows:
        (weight,) = people["weights"][int(row["person"].split()[1])]
        places = [order.index(row[side].split("_")[1].removesuffix(".png")) for side in ("chosen", "rejected")]
        assert (places[0] > places[1]) == (weight > 0)
        assert row["chosen"].split("_")[0] == row["rejected"].split("_")[0] == row["prompt"][2:]


def test_the_pairs_are_those_that_training_reads(pictures):
    rows = choose(pictures)
    read = read_pairs(pictures.parent / "choices.jsonl")
    assert [pair.prompt for pair in read] == [row["prompt"] for row in rows]
    assert choose(pictures) == rows, "the same seed, the same choices"
    assert choose(pictures, "--seed", "1") != rows


def test_what_cannot_be_used_is_said(pictures, capsys):
    assert job(["simulate-choices", str(pictures), "--attributes", "size"]) == 1
    assert "no attribute 'size'" in capsys.readouterr().err
    outside = pictures.parent / "outside.jsonl"
    for text, message in (
        ('{"prompt": "a", "image": "../x.png"}', "no such picture"),
        ('{"prompt": "a"}', "line 1"),
        ("[]", "line 1"),
        ("", "lists no pictures"),
        ('{"prompt": "a", "image": "missing.png"}', "no such picture"),
    ):
        outside.write_text(text, encoding="utf-8")
        with pytest.raises(TrainingError, match=message):
            listed(outside)
    with pytest.raises(TrainingError, match="cannot be read"):
        listed(pictures.parent / "nothing.jsonl")
    assert not (pictures.parent / "choices.jsonl").exists()
