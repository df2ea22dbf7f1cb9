"""A person's choices for the tests here: put into a running host's own store, as another program would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attune.nodes.preferences.pictures import PictureFolder, picture_of
from attune.nodes.preferences.records import Answer, Asked, Profile, Question
from attune.nodes.preferences.store import MOST_WAITING, PreferenceStore
from attune.nodes.store import FILE_NAME, Store


def store_of(host: Any) -> PreferenceStore:
    """The preferences of a running host; close `.store` where the host's folder is to be moved or removed."""
    folder = host.user_dir / "attune"
    return PreferenceStore(Store(folder / FILE_NAME, patience=30), PictureFolder(folder / "pictures"))


def put_questions(
    host: Any, name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray, str]], *, most_waiting: int = MOST_WAITING
) -> list[Asked]:
    """Ask a profile, which is made if there is none, about pairs of pictures uint8 [h, w, 3] with their prompts.

    Args:
        most_waiting: beyond so many open questions those asked first are forgotten.
    """
    store = store_of(host)
    store.most_waiting = most_waiting
    key = store.create(name).key
    pixels: dict[str, np.ndarray] = {}
    questions = []
    for number, (first, second, prompt) in enumerate(pairs):
        two = tuple(picture_of(image, seed=number) for image in (first, second))
        pixels |= dict(zip([picture.hash for picture in two], (first, second), strict=True))
        questions.append(Question("pair", prompt, two))
    asked = store.ask(key, questions, pixels)
    store.store.close()
    return asked


def put_choices(host: Any, name: str, pairs: Sequence[tuple[np.ndarray, np.ndarray, str]]) -> Profile:
    """The same, and the first picture of each pair is chosen."""
    asked = put_questions(host, name, pairs)
    store = store_of(host)
    key = store.create(name).key
    store.decide_all(
        key, [(found.question.key, Answer("chosen", found.question.hashes[0])) for found in asked]
    )  # fmt: skip
    profile = store.profile(key)
    store.store.close()
    return profile


def light_and_dark(count: int, *, size: int = 64, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Pairs of a lighter and a darker noise picture."""
    rng = np.random.default_rng(seed)
    pairs = []
    for number in range(count):
        light = rng.integers(120, 256, (size, size, 3), dtype=np.uint8)
        dark = rng.integers(0, 136, (size, size, 3), dtype=np.uint8)
        pairs.append((light, dark, f"thing number {number}"))
    return pairs
