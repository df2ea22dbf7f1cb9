"""People's pairs on a wire and in a file, and what becomes of them in a plan, without a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from attune.nodes.personal_pairs import PeoplesPairs, PersonPair, from_file, nameless, written
from attune.nodes.training.plan_personal import (
    NEW_ENCODER,
    PersonalPicturePair,
    _new_encoder,
    check_features,
    encoder_shape,
    tally_of,
)
from attune.nodes.training.plans import EncodedText, picture_key
from attune.training.interfaces import AttuneError, RewardError, TrainingError
from attune.training.preference.set_encoder import SetEncoder, SetEncoderConfig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "workflows" / "demo" / "attune_people" / "choices.jsonl"


def ignore(done: int, total: int) -> None:
    pass


def write(folder: Path, rows: list[dict[str, str]]) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, str]]:
    """Three pairs each of three people, about six pictures."""
    for number in range(6):
        Image.new("RGB", (16, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    return [
        {"prompt": "a  cat ", "chosen": f"{number}.png", "rejected": f"{number + 3}.png", "person": person}
        for person in ("Ada", "Grace", "Edsger")
        for number in range(3)
    ]


def test_a_file_gives_pairs_of_people_without_their_names(tmp_path, rows):
    found = from_file(write(tmp_path, rows), "pairs.jsonl", most=0, most_people=0, on_pair=ignore)
    assert found.people == 3 and len(found.pairs) == 9
    assert found.words == "9 pairs of 3 people (3 each), 1 prompt."
    assert not any(name in repr(found) for name in ("Ada", "Grace", "Edsger"))
    assert {pair.caption for pair in found.pairs} == {"a cat"}
    first = found.pairs[0]
    assert first.chosen.shape == (8, 16, 3) and first.rejected[..., 0].unique().item() == pytest.approx(120 / 255)
    assert found.pairs[0].chosen is found.pairs[3].chosen, "a picture is read once"


def test_the_first_of_the_file_are_taken(tmp_path, rows):
    file = write(tmp_path, rows)
    assert len(from_file(file, "f", most=2, most_people=0, on_pair=ignore).pairs) == 6
    two = from_file(file, "f", most=0, most_people=2, on_pair=ignore)
    assert two.people == 2 and two.pairs[0].person == from_file(file, "f", most=1, most_people=1,
                                                                on_pair=ignore).pairs[0].person  # fmt: skip


def test_people_of_two_files_are_different_people(tmp_path, rows):
    one = from_file(write(tmp_path, rows), "f", most=0, most_people=0, on_pair=ignore)
    other = from_file(write(tmp_path, rows[::-1]), "f", most=0, most_people=0, on_pair=ignore)
    assert (one + other).people == 6 and (one + one).people == 3
    assert nameless("source", "Ada") != nameless("source", "Grace")


def test_lines_without_a_person_are_of_one(tmp_path, rows):
    for row in rows:
        del row["person"]
    assert from_file(write(tmp_path, rows), "f", most=0, most_people=0, on_pair=ignore).people == 1
    rows[0]["person"] = 7
    with pytest.raises(TrainingError, match="line 1: prompt, chosen, rejected and person must be texts"):
        from_file(write(tmp_path, rows), "f", most=0, most_people=0, on_pair=ignore)


def test_pairs_of_different_sizes_are_counted_and_left_out(tmp_path, rows):
    Image.new("RGB", (8, 8)).save(tmp_path / "3.png")
    found = from_file(write(tmp_path, rows), "mine", most=0, most_people=0, on_pair=ignore)
    assert len(found.pairs) == 6 and found.words.endswith("Left out: 3 pairs of different sizes (mine).")
    for number in (4, 5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    with pytest.raises(AttuneError, match="never the same size"):
        from_file(write(tmp_path, rows), "mine", most=0, most_people=0, on_pair=ignore)


def test_cancel_acts_while_pictures_are_read(tmp_path, rows):
    def cancel(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        from_file(write(tmp_path, rows), "f", most=0, most_people=0, on_pair=cancel)


def test_a_replaced_picture_is_noticed(tmp_path, rows):
    file = write(tmp_path, rows)
    before = written(file)
    assert written(file) == before
    Image.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / "5.png")
    assert written(file) != before


def test_the_example_is_small_and_readable():
    found = from_file(EXAMPLE, EXAMPLE.name, most=0, most_people=0, on_pair=ignore)
    assert found.sheet().width >= 640
    assert found.people == 40 and len(found.pairs) == 480
    assert {tuple(pair.chosen.shape) for pair in found.pairs} == {(64, 64, 3)}
    assert sum(file.stat().st_size for file in EXAMPLE.parent.iterdir()) < 300_000


# ---- in a plan ----


class Eyes:
    """Features of random weights."""

    name, reward_id, features_id = "Eyes", "eyes", "clip:1"

    def image_features(self, images: torch.Tensor, *, with_gradients: bool = False) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean((1, 2)), dim=-1)

    def text_features(self, texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), 3)


def made(person: str, *pictures: tuple[int, int]) -> list[PersonalPicturePair]:
    """Pairs of a person about pictures by number."""
    shown = {number: torch.full((8, 8, 3), number / 255) for both in pictures for number in both}
    return [
        PersonalPicturePair(
            shown[a], shown[b], EncodedText("a cat", None), person=person,
            names=(picture_key(shown[a]), picture_key(shown[b])),
            features=torch.randn(3, 3, generator=torch.Generator().manual_seed(a)),
        )
        for a, b in pictures
    ]  # fmt: skip


def test_the_plan_counts_everybody():
    """One person teaches three pairs; of another's three two share a picture and one stands beside them; a third has
    one pair only; the fourth is held out with two choices to tell and one to measure."""
    pairs = [*made("a", (1, 2), (3, 4), (5, 6)), *made("b", (1, 2), (1, 3), (4, 5)), *made("c", (1, 2)),
             *made("d", (1, 2), (3, 4), (5, 6))]  # fmt: skip
    found = tally_of(pairs, {"d"}, 2)
    assert (found.people, found.pairs, found.people_without, found.pairs_without) == (2, 6, 1, 1)
    assert (found.held_out_people, found.support_pairs, found.held_out_pairs) == (1, 2, 1)


def test_a_new_encoder_tells_people_apart_and_is_the_same_for_the_same_pairs():
    pairs = [pair for n in range(6) for pair in made(f"person {n}", (10 * n + 1, 10 * n + 2), (10 * n + 3, 10 * n + 4))]
    shape = encoder_shape(Eyes(), tokens=2, width=8)
    assert (shape.features, shape.tokens, shape.width) == (3, 2, 8) and shape.hidden == NEW_ENCODER.hidden
    one, two = (_new_encoder(shape, "clip:1", pairs) for _ in "12")
    assert one.encoder_id == two.encoder_id and not any(p.requires_grad for p in one.parameters())
    tokens = torch.cat([one(torch.stack([p.features for p in pairs if p.person == f"person {n}"])[None])
                        for n in range(6)])  # fmt: skip
    told = tokens[..., :-1]
    assert told.mean(0).abs().max() < 1e-4, "measured from the average person"
    assert (told - told.mean(0)).square().sum(-1).mean().sqrt() == pytest.approx(1.0, abs=1e-3)


def test_features_must_be_those_of_the_encoder():
    encoder = SetEncoder(SetEncoderConfig(features=3, tokens=1, width=2, hidden=4, heads=1), "clip:2")
    with pytest.raises(TrainingError, match=r"another file \(clip:2\) than those of Eyes \(clip:1\)"):
        check_features(Eyes(), encoder)
    with pytest.raises(RewardError, match="no features of pictures and texts"):
        check_features(object.__new__(type("Blind", (), {"name": "Blind"})), None)


def test_both_are_one_set():
    pair = PersonPair("x", torch.zeros(8, 8, 3), torch.ones(8, 8, 3), "a cat")
    both = PeoplesPairs((pair,), ("one",)) + PeoplesPairs((pair,), ("two",))
    assert len(both.pairs) == 2 and both.people == 1 and both.words.endswith("one two")
