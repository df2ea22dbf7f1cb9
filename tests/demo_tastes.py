"""Writes the taste that comes with the pack, for Import Profile: `scripts/module.py attune.tests.demo_tastes`.

A made-up person, who of two example pictures always likes the warmer one, says so eight times; the demo's set encoder
reads it as it reads any person's choices.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch

from attune.nodes.preferences.embedding import PreferenceEmbedding
from attune.nodes.preferences.profile_file import SharedProfile
from attune.nodes.preferences.user_encoder import GROUP, check_features, embed
from attune.nodes.rewards.load import load_reward
from attune.training.checkpoint import write_atomically
from attune.training.preference.attributes import warmth
from attune.training.preference.set_encoder import SetEncoder, load_set_encoder
from attune.training.preference.simulate import listed, pixels

DEMO = Path(__file__).resolve().parents[1] / "workflows" / "demo"
REWARD, ENCODER = "attune_demo_reward.safetensors", "attune_demo_user_encoder.safetensors"
FILE, TITLE = "attune_tastes/warm_light.safetensors", "warm light"


def warm_light(demo: Path = DEMO) -> SharedProfile:
    """The taste for warm pictures: of each of `GROUP` prompts the warmest picture is chosen, the coldest is not."""
    encoder = load_set_encoder(demo / ENCODER)
    embedding = PreferenceEmbedding(taste_of(encoder, -1, 0, demo=demo), encoder.encoder_id, choices=GROUP)
    return SharedProfile((embedding,), TITLE)


def taste_of(encoder: SetEncoder, chosen: int, other: int, *, demo: Path = DEMO) -> torch.Tensor:
    """Tokens [k, d] of a person who likes one place in the order of warmth (0 = coldest, -1 = warmest) over another."""
    reward = load_reward(demo / REWARD, "cpu")
    check_features(reward, encoder)
    prompts, files = listed(demo / "attune_people" / "pictures.jsonl")
    shown: dict[str, list[torch.Tensor]] = defaultdict(list)
    for prompt, file in zip(prompts, files, strict=True):
        shown[prompt].append(pixels(file))
    choices = []
    for prompt, pictures in list(shown.items())[:GROUP]:
        ranked = sorted(pictures, key=lambda picture: float(warmth(picture)))
        seen = torch.cat([reward.image_features(ranked[place]).cpu() for place in (chosen, other)])
        choices.append(torch.cat([reward.text_features([prompt]).cpu(), seen]))
    return embed(encoder, torch.stack(choices))


if __name__ == "__main__":
    write_atomically(DEMO / FILE, *warm_light().contents())
