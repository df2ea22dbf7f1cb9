"""Writes the tastes that come with the pack, for Import Profile: `scripts/module.py attune.tests.demo_tastes`.

Made-up people, who of two example pictures always like the one better that has more of something, say so eight times;
the demo's set encoder reads it as it reads anybody's choices.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from attune.nodes.preferences.embedding import PreferenceEmbedding
from attune.nodes.preferences.profile_file import SharedProfile
from attune.nodes.preferences.user_encoder import GROUP, check_features, embed
from attune.nodes.rewards.load import load_reward
from attune.training.checkpoint import write_atomically
from attune.training.preference.attributes import brightness, warmth
from attune.training.preference.set_encoder import SetEncoder, load_set_encoder
from attune.training.preference.simulate import listed, pixels

DEMO = Path(__file__).resolve().parents[1] / "workflows" / "demo"
REWARD, ENCODER = "attune_demo_reward.safetensors", "attune_demo_user_encoder.safetensors"


class Liking(NamedTuple):
    """What somebody likes: file name and title of the taste, and of which measure more is better."""

    file: str
    title: str
    measure: Callable[[torch.Tensor], torch.Tensor]


WARM = Liking("attune_tastes/warm_light.safetensors", "warm light", warmth)
DARK = Liking("attune_tastes/dark_colours.safetensors", "dark colours", lambda image: -brightness(image))
LIKINGS = (WARM, DARK)


def taste(liking: Liking, demo: Path = DEMO) -> SharedProfile:
    """Of each of `GROUP` prompts the picture with the most of it is chosen, the one with the least is not."""
    encoder = load_set_encoder(demo / ENCODER)
    tokens = taste_of(encoder, liking, -1, 0, demo=demo)
    return SharedProfile((PreferenceEmbedding(tokens, encoder.encoder_id, choices=GROUP),), liking.title)


def taste_of(encoder: SetEncoder, liking: Liking, chosen: int, other: int, *, demo: Path = DEMO) -> torch.Tensor:
    """Tokens [k, d] of a person who likes one place in the order of the measure (0 = least, -1 = most) over another."""
    reward = load_reward(demo / REWARD, "cpu")
    check_features(reward, encoder)
    prompts, files = listed(demo / "attune_people" / "pictures.jsonl")
    shown: dict[str, list[torch.Tensor]] = defaultdict(list)
    for prompt, file in zip(prompts, files, strict=True):
        shown[prompt].append(pixels(file))
    choices = []
    for prompt, pictures in list(shown.items())[:GROUP]:
        ranked = sorted(pictures, key=lambda picture: float(liking.measure(picture)))
        seen = torch.cat([reward.image_features(ranked[place]).cpu() for place in (chosen, other)])
        choices.append(torch.cat([reward.text_features([prompt]).cpu(), seen]))
    return embed(encoder, torch.stack(choices))


if __name__ == "__main__":
    for each in LIKINGS:
        write_atomically(DEMO / each.file, *taste(each).contents())
