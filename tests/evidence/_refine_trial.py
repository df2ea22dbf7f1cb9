"""Sessions of simulated people in the real host, in a process of their own: prints one JSON object as its last line.

Every way to come to a picture gets the same people, wishes and seeds, and as many evaluations of the network per round:
    refine       the loop: rules on the comment, embedding, schedule in turn, image-to-image from the chosen picture
    re-roll      the first wish again with new noise in every round; the person keeps the best picture so far
    fabric       the first wish with liked and disliked pictures in the self-attention, new noise in every round
and, for the ablation, refine without one part: no words, no embedding update, no start from the chosen picture, the
same spacing of noise levels in every round.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = "attune_demo.safetensors"


def host_world() -> Any:
    """The module that starts the host as a library."""
    spec = importlib.util.spec_from_file_location("host_world", ROOT / "tests" / "host" / "adapters" / "world.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bench:
    """The demo model in the host, and people."""

    def __init__(self, settings: dict[str, Any]) -> None:
        world = host_world()
        base = Path(settings["base"])
        (base / "models" / "checkpoints").mkdir(parents=True)
        shutil.copy(ROOT / "workflows" / "demo" / CHECKPOINT, base / "models" / "checkpoints")
        world.enter(Path(settings["comfyui"]), base)
        import torch

        from attune.nodes.host import demo_model
        from attune.nodes.host.round_sampling import levels_of
        from attune.nodes.refinement.store import SessionStore
        from attune.nodes.rewards.load import load_reward
        from attune.nodes.store import Store
        from attune.training.demo.simulated_person import Eyes

        demo_model.register()
        torch.set_flush_denormal(True)
        torch.set_num_threads(1)
        self.settings, self.torch = settings, torch
        self.model, self.clip, self.vae = world.load_checkpoint(CHECKPOINT)
        self.levels = levels_of(self.model)
        self.eyes = Eyes(load_reward(ROOT / "workflows" / "demo" / "attune_demo_judge.safetensors", "cpu"))
        self.store = SessionStore(Store(base / "attune.sqlite3"), base / "sessions")
        self.empty = torch.zeros(1, 16, 8, 8)

    def sampled(self, model: Any, positive: Any, negative: Any, schedule: Any, start: Any) -> tuple[Any, Any]:
        """Latents and images of a round."""
        from attune.nodes.host.round_sampling import sample_round
        from attune.nodes.host.sampling import decode_latents, seeded_noise
        from attune.nodes.refinement.noise_levels import sigmas

        noise = seeded_noise(self.empty, schedule.seeds)
        levels = sigmas(schedule.type, schedule.steps, self.levels.least, self.levels.most, strength=schedule.strength)
        with self.torch.inference_mode():
            latents = sample_round(
                model, noise, positive, negative, sigmas=levels,
                start=None if start is None else start.expand_as(noise).clone(), guidance=schedule.guidance,
                sampler=schedule.sampler, seed=schedule.seeds[0],
            )  # fmt: skip
            return latents, decode_latents(self.vae, latents)

    # ---- the loop ----

    def refined(self, person: Any, seed: int, **parts: bool) -> list[dict[str, Any]]:
        """A session by the loop. `parts`: words, embedding, start, turn; False takes it out."""
        from attune.nodes.host.sampling import encode_prompts
        from attune.nodes.picture_folder import picture_hash, to_pixels
        from attune.nodes.refinement.draft import Draft
        from attune.nodes.refinement.dynamic_weights import WeightsConfig, lambda_div
        from attune.nodes.refinement.embedding_update import EmbeddingConfig, EmbeddingStep, unrolled
        from attune.nodes.refinement.nodes_common import chosen_latents
        from attune.nodes.refinement.nodes_conditioning import embedding_of, with_embedding
        from attune.nodes.refinement.records import Feedback, Picture
        from attune.nodes.refinement.refiner import refine
        from attune.nodes.refinement.schedules import RoundScheduleConfig, round_schedule

        settings, has = self.settings, {"words": True, "embedding": True, "start": True, "turn": True} | parts
        config = RoundScheduleConfig(
            steps=settings["steps"], guidance=3.0, type="in turn" if has["turn"] else "karras",
            **settings.get("schedule", {}),
        )  # fmt: skip
        name = f"{seed} without {', '.join(sorted(parts)) or 'nothing'}"
        state, points = self.store.create(name, person.first_wish(), seed=seed), []
        best = None
        for _ in range(settings["rounds"]):
            draft, last, asked = Draft.of(state), state.last, False
            if last is not None and has["words"]:
                found = refine(last.prompt, last.negative, last.feedback.comment)
                draft = draft.with_(prompt=found.prompt, negative=found.negative)
                asked = found.asks_for_another(last.prompt)
            moved = last is not None and last.prompt != draft.prompt and has["embedding"]
            step = EmbeddingStep(draft.prompt, (), (last.prompt,) if moved else (), EmbeddingConfig())
            steps = [EmbeddingStep.of(past.prompt, past.embedding) for past in state.path] + [step]
            schedule = round_schedule(
                config, state, batch=settings["pictures"], reworded=asked,
                lambda_div=lambda_div(WeightsConfig(), state.number),
            )  # fmt: skip
            start = chosen_latents(self.store, state, last) if last is not None and has["start"] else None
            if start is None:
                schedule = replace(schedule, strength=1.0)
            with self.torch.inference_mode():
                plain, negative = encode_prompts(self.clip, [draft.prompt, draft.negative])
                vectors = unrolled(steps, lambda text: embedding_of(encode_prompts(self.clip, [text])[0]))
            latents, images = self.sampled(self.model, with_embedding(plain, vectors), negative, schedule, start)
            pixels = [to_pixels(image) for image in images]
            names = [picture_hash(part) for part in pixels]
            open_ = self.store.propose(
                state.key, state.revision, prompt=draft.prompt, negative=draft.negative, embedding=step.parameters(),
                schedule=schedule, latents=latents, pixels=dict(zip(names, pixels, strict=True)),
                pictures=[Picture(part, number) for part, number in zip(names, schedule.seeds, strict=True)],
            )  # fmt: skip
            # The best picture so far stands, as in the other ways; the round itself goes on from its own best one.
            answer = person.answer(images if best is None else self.torch.cat([best[None], images]))
            if best is None or answer.chosen > 0:
                place = answer.chosen - (best is not None)
                best = images[place]
                said = answer
            else:
                said = person.answer(images)
                place = said.chosen
            told = {"prompt": draft.prompt, "strength": schedule.strength, "said": said.comment}
            points.append(self.point(best, person, answer) | told)
            liked = Feedback(said.comment, liked=(place,), accepted=answer.accepted)
            state = self.store.commit(state.key, state.revision, open_.key, liked)
        return points

    def rolled(self, person: Any, seed: int, *, fabric: bool = False) -> list[dict[str, Any]]:
        """The first wish in every round, the best picture so far kept; with `fabric`, led by what was liked."""
        from attune.nodes.host.image_feedback import with_feedback
        from attune.nodes.host.sampling import encode_prompts
        from attune.nodes.refinement.records import Schedule

        torch, settings = self.torch, self.settings
        with torch.inference_mode():
            positive, negative = encode_prompts(self.clip, [person.first_wish(), ""])
        best, best_latent, liked, disliked, points = None, None, [], [], []
        for number in range(settings["rounds"]):
            seeds = tuple(seed * 10_000 + number * 100 + place for place in range(settings["pictures"]))
            schedule = Schedule("karras", settings["steps"], 1.0, seeds, guidance=3.0)
            model = self.model
            if fabric and liked:
                model = with_feedback(
                    model, torch.cat(liked), torch.cat(disliked), liked_weight=0.8, disliked_weight=0.5,
                    start_percent=0.0, end_percent=0.5,
                )  # fmt: skip
            latents, images = self.sampled(model, positive, negative, schedule, None)
            shown = images if best is None else torch.cat([best[None], images])
            known = latents if best is None else torch.cat([best_latent, latents])
            answer = person.answer(shown)
            best, best_latent = shown[answer.chosen], known[answer.chosen : answer.chosen + 1]
            liked.append(best_latent)
            disliked.append(torch.cat([known[: answer.chosen], known[answer.chosen + 1 :]])[:1])
            points.append(self.point(best, person, answer))
        return points

    def point(self, image: Any, person: Any, answer: Any) -> dict[str, Any]:
        """What is true of the picture that stands after a round, and whether the person took it."""
        from attune.training.demo.simulated_person import share

        return {"share": share(self.eyes.see(image[None])[0], person.meant), "accepted": answer.accepted}


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Every way for every person: way → person → points."""
    bench = Bench(settings)
    import numpy as np

    from attune.training.demo.simulated_person import SimulatedPerson
    from attune.training.demo.train_one_step import random_wish

    ways = {
        "refine": lambda person, seed: bench.refined(person, seed),
        "re-roll": lambda person, seed: bench.rolled(person, seed),
        "fabric": lambda person, seed: bench.rolled(person, seed, fabric=True),
        **{f"without {part}": lambda person, seed, part=part: bench.refined(person, seed, **{part: False})
           for part in ("words", "embedding", "start", "turn")},
    }  # fmt: skip
    found: dict[str, Any] = {way: [] for way in ways}
    for number in range(settings["people"]):
        wish = random_wish(np.random.default_rng([settings["seed"], number, 41]))
        for way, walk in ways.items():
            person = SimulatedPerson(wish, bench.eyes, seed=1000 * settings["seed"] + number)
            found[way].append(walk(person, 1000 * settings["seed"] + number))
        print(number, {way: found[way][-1][-1]["share"] for way in ways}, flush=True)
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
