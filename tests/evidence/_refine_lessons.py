"""What the rounds of a simulated session teach a LoRA, as Multi-Round Objective does in the host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attune.nodes.refinement.draft import Draft, Judge
from attune.nodes.refinement.dynamic_weights import WeightsConfig, weigh
from attune.nodes.refinement.running_scores import ranked, running_scores, scores_of, weighed, z_scores
from attune.nodes.refinement.scoring import score_round
from attune.nodes.refinement.total_reward import TotalReward
from attune.nodes.rewards.dialogue import ConsistencyReward, DiversityReward
from attune.training.demo.pipeline import DemoPipeline
from attune.training.objectives.kept_pictures import KeptConfig, KeptObjective, KeptRound
from attune.training.objectives.multi_round import (
    ROUND_LORA,
    ROUND_TRAINER,
    RoundConfig,
    learn_round,
    round_objective,
)

Weights = Mapping[str, torch.Tensor]


class Lessons:
    """What rounds teach a LoRA: the weighed sum of the session's rewards, by ReFL, or what is kept.

    The rewards, weighed by Dynamic Weights' rule, are variety, staying and fit; people who like a look bring their own.

    Args:
        settings: of the trial.
        fit: reward of prompt and picture, differentiable.
        checkpoint: of the demo model.
    """

    def __init__(self, settings: Mapping[str, Any], fit: Any, checkpoint: Path) -> None:
        self.settings, self.pipeline = settings, DemoPipeline.load(checkpoint)
        self.fit = Judge("fit", "relevance", fit)
        self.judges: Sequence[Judge] = (
            Judge("variety", "diversity", DiversityReward(fit)),
            Judge("staying", "consistency", ConsistencyReward(fit)),
            self.fit,
        )

    def scores(self, images: torch.Tensor, prompt: str, chosen: Sequence[torch.Tensor]) -> list[dict[str, float]]:
        """Of every picture, by reward."""
        return score_round(self.judges, images, prompt, chosen, lambda: None)

    def weights(self, number: int) -> Mapping[str, float]:
        """Of the rewards in the round of that number."""
        return weigh(WeightsConfig(), {judge.name: judge.role for judge in self.judges}, number).after

    def best(self, images: torch.Tensor, prompt: str, number: int, count: int) -> list[int]:
        """The positions of the pictures of that round with the highest R_total, by z-scores among them."""
        scores = self.scores(images, prompt, ())
        z = z_scores(scores, running_scores([scores]))
        return ranked(weighed(z, self.weights(number)))[:count]

    def kept(self, draft: Draft, inward: Callable[[torch.Tensor], torch.Tensor]) -> Weights | None:
        """The LoRA of what a session keeps; None where it keeps nothing.

        Args:
            inward: latents as samplers give them → those of the network.
        """
        rounds, state = draft.kept(), draft.state
        if not rounds:
            return None
        preview, *prompts = self.pipeline.prompts([draft.prompt, *(past.prompt for past in rounds)])
        shown = [
            KeptRound(prompt, inward(past.liked), inward(past.others))
            for prompt, past in zip(prompts, rounds, strict=True)
        ]
        objective = KeptObjective(shown, KeptConfig(batch=self.settings["pictures"]), preview=preview)
        trainer = replace(ROUND_TRAINER, steps=10, learning_rate=4e-3, seed=state.seed + state.number)
        return learn_round(
            self.pipeline.denoiser, objective, lora=replace(ROUND_LORA, seed=state.seed), trainer=trainer
        ).tensors

    def learned(self, draft: Draft, chosen: Sequence[torch.Tensor], start: Weights | None) -> Weights:
        """The LoRA of a round by its rewards, from that of the one before (None = a fresh one)."""
        state = draft.state
        running = running_scores([scores_of(past) for past in state.path])
        weights = self.weights(state.number)
        total = TotalReward(self.judges, weights, running, chosen)
        steps = self.settings["steps"]
        config = RoundConfig(
            learner="refl", images_per_prompt=self.settings["pictures"], steps=steps, guidance=1.0,
            stop_from=steps - 3, stop_to=steps - 1,
        )  # fmt: skip
        objective = round_objective(
            self.pipeline.prompts([draft.prompt])[0], total, self.pipeline.decoder, config,
            latent_shape=self.pipeline.latent_shape,
        )  # fmt: skip
        trainer = replace(ROUND_TRAINER, steps=self.settings["updates"], seed=state.seed + state.number)
        return learn_round(
            self.pipeline.denoiser, objective, lora=replace(ROUND_LORA, seed=state.seed), trainer=trainer, start=start
        ).tensors
