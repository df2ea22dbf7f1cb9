"""Sessions of simulated people in the real host, in a process of their own: prints one JSON object as its last line.

Every way to a picture gets the same people, wishes and seeds, and shows as many pictures, of as many steps, a round.
In all of them the person keeps the best picture so far, and is done with the round in which it takes one:
    refine       the loop: rules on the comment, embedding moved by words, schedule in turn, start from the chosen one
    re-roll      the first wish again with new noise in every round
    fabric       the first wish with liked and disliked pictures in the self-attention, new noise in every round
and, for the ablation,
    full            the loop, and the embedding leans to what chosen pictures have, and away from refused ones: 20 steps
                    of two pairs before a round, for each of the two
    full without …  one of its parts: words (the refiner), embedding (its update, by words and by pictures), diversity
                    (of the schedule: every round has the last one's noise and spacing of levels), start (every round
                    begins from pure noise)
    with LoRA       refine, and before every round but the first a LoRA of the up path learns R_total(t) of the loop's
                    rewards in a few updates of ReFL, and goes on from that of the round before; takes further
                    evaluations of the network
    full with LoRA  the same in the whole loop, with the embedding leaning to what chosen pictures have for the model
                    without the LoRA, as the nodes stand in a graph
    full with more pictures
                    the whole loop, and from the second round on the best of `MORE` more pictures by the same rewards
                    (z-scores among these pictures), which take as many evaluations of the network as that LoRA, but for
                    those that measure its drift
    with kept LoRA  refine, and before every round a fresh LoRA of the up path learns the pictures of which something
                    is to be kept, in ten updates; takes further evaluations of the network
People are of one of these kinds:
    all             with words for all that they mean
    wordless        without words for its style, or its background, by turns; where nothing else is missing they ask for
                    other pictures
    keeping         the same, and where they see what they have no words for, they ask to keep it
    unseen          with words for all, and mean drawings that the model was never shown
    look            without words for a look that a reward of theirs measures, see `_refine_looks`
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "workflows" / "demo"
CHECKPOINT = "attune_demo.safetensors"
PARTS = ("words", "embedding", "diversity", "start")
# Twelve updates of four pictures, nine calls of the network each on average and one way back, which takes two: 528; of
# a round's picture ten steps with guidance: 20.
MORE = 26


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
        shutil.copy(DEMO / CHECKPOINT, base / "models" / "checkpoints")
        world.enter(Path(settings["comfyui"]), base)
        import torch

        from attune.nodes.host import demo_model
        from attune.nodes.host.round_sampling import levels_of
        from attune.nodes.refinement.store import SessionStore
        from attune.nodes.rewards.load import load_reward
        from attune.nodes.store import Store
        from attune.tests.evidence._refine_lessons import Lessons
        from attune.training.demo import data
        from attune.training.demo.drawing_eyes import DrawingEyes

        demo_model.register()
        torch.set_flush_denormal(True)
        torch.set_num_threads(1)
        self.settings, self.torch = settings, torch
        self.model, self.clip, self.vae = world.load_checkpoint(CHECKPOINT)
        self.levels = levels_of(self.model)
        reward = load_reward(DEMO / "attune_demo_reward.safetensors", "cpu")
        self.library = data.build_library(ROOT / ".cache" / "demo")
        self.eyes, self.lessons = DrawingEyes(self.library), Lessons(settings, reward, DEMO / CHECKPOINT)
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

    def with_lora(self, tensors: Any) -> Any:
        """The model with a LoRA, as the host loads one."""
        import comfy.sd

        from attune.training.adapters.files import lora_file_tensors

        return comfy.sd.load_lora_for_models(self.model, None, lora_file_tensors(tensors), 1.0, 0.0)[0]

    def inward(self, latents: Any) -> Any:
        """Latents as samplers give them → those of the network."""
        return self.model.model.process_latent_in(latents.float().clone())

    # ---- the loop ----

    def refined(
        self, person: Any, seed: int, *, without: str = "", pictures: bool = False, lora: str = "", more: int = 0
    ) -> list[dict[str, Any]]:
        """A session by the loop, without one of `PARTS`, or with a LoRA that learns along, or with more pictures.

        Args:
            lora: "rewards" or "kept": what it learns; "" = there is none.
            more: how many more pictures are drawn of a round than the person sees, which are the best by the rewards.
        """
        from attune.nodes.refinement.draft import Draft
        from attune.nodes.refinement.records import Feedback

        state = self.store.create(f"{seed} {without} {pictures} {lora} {more}", person.first_wish(), seed=seed)
        points, best, chosen, weights, model = [], None, [], None, self.model
        for _ in range(self.settings["rounds"]):
            draft = self.worded(Draft.of(state, self.store), without)
            if lora and state.last is not None and not state.attempt:
                if lora == "kept":
                    weights = self.lessons.kept(draft, self.inward)
                else:
                    weights = self.lessons.learned(draft, chosen, weights)
                model = self.model if weights is None else self.with_lora(weights)
            extra = more if state.last is not None else 0
            draft, schedule, latents, images = self.drawn(draft, model, without, pictures=pictures, more=extra)
            if extra:
                best_ones = self.lessons.best(images, draft.prompt, state.number, self.settings["pictures"])
                schedule = replace(schedule, seeds=tuple(schedule.seeds[place] for place in best_ones))
                latents, images = latents[best_ones], images[best_ones]
            scored = lora == "rewards"
            scores = self.lessons.scores(images, draft.prompt, chosen) if scored else [{} for _ in images]
            open_ = self.proposed(state, draft, schedule, latents, images, scores)
            answer, best, place, comment = self.answered(person, images, best)
            points.append(self.point(best, images, person, answer) | {"prompt": draft.prompt, "comment": comment})
            if answer.accepted:
                break
            if answer.speechless:
                state = self.store.again(state.key, state.revision, open_.key)
                continue
            chosen.append(images[place : place + 1])
            feedback = Feedback(comment, liked=(place,))
            state = self.store.commit(state.key, state.revision, open_.key, feedback)
        return points

    def proposed(
        self, state: Any, draft: Any, schedule: Any, latents: Any, images: Any, scores: Sequence[dict[str, float]]
    ) -> Any:  # fmt: skip
        """The round that was made, kept as the session's open one."""
        from attune.nodes.picture_folder import picture_hash, to_pixels
        from attune.nodes.refinement.records import Picture

        pixels = [to_pixels(image) for image in images]
        names = [picture_hash(part) for part in pixels]
        return self.store.propose(
            state.key, state.revision, prompt=draft.prompt, negative=draft.negative, embedding=draft.embedding,
            schedule=schedule, latents=latents, direction=draft.direction,
            pixels=dict(zip(names, pixels, strict=True)),
            pictures=[Picture(*made) for made in zip(names, schedule.seeds, scores, strict=True)],
        )  # fmt: skip

    def worded(self, draft: Any, without: str) -> Any:
        """The round's words."""
        from attune.nodes.refinement.refiner import refine

        last = draft.state.last
        if last is None or without == "words":
            return draft
        found = refine(last.prompt, last.negative, last.feedback.comment)
        return draft.with_(
            prompt=found.prompt, negative=found.negative, change=found.change(last.prompt),
            unwanted=(last.prompt,) if last.prompt != found.prompt else (), keeps_look=found.keeps_look(last.prompt),
        )  # fmt: skip

    def drawn(
        self, draft: Any, model: Any, without: str, *, pictures: bool = False, more: int = 0
    ) -> tuple[Any, Any, Any, Any]:  # fmt: skip
        """The round's update of the embedding, schedule, latents and images, by the nodes' own defaults."""
        from attune.nodes.host.sampling import encode_prompts
        from attune.nodes.refinement.chosen import chosen_latents
        from attune.nodes.refinement.dynamic_weights import WeightsConfig, lambda_div
        from attune.nodes.refinement.embedding_update import EmbeddingConfig, EmbeddingStep
        from attune.nodes.refinement.latent_files import latents_digest
        from attune.nodes.refinement.nodes_conditioning import (
            direction_of_choices,
            moved_by_pictures,
            moved_by_words,
            with_embedding,
        )
        from attune.nodes.refinement.schedules import RoundScheduleConfig, round_schedule

        state, last = draft.state, draft.state.last
        config = RoundScheduleConfig(steps=self.settings["steps"], guidance=3.0)
        schedule = round_schedule(
            config, state, batch=self.settings["pictures"] + more, change=draft.change,
            lambda_div=lambda_div(WeightsConfig(), state.number),
        )  # fmt: skip
        if without == "diversity" and last is not None:
            # Other pictures take new noise whatever the schedule's seeds are.
            seeds = schedule.seeds if state.attempt else last.schedule.seeds
            schedule = replace(schedule, type=last.schedule.type, seeds=seeds)
        start = chosen_latents(self.store, state, last) if last is not None and without != "start" else None
        if start is None or schedule.strength == 1:
            # The host would add the start to pure noise as well, and its mean shines through.
            schedule, start = replace(schedule, strength=1.0), None
        step = EmbeddingStep(draft.prompt, (), draft.unwanted, EmbeddingConfig(), anew=not draft.keeps_look)
        if without == "embedding":
            step = EmbeddingStep(draft.prompt)
        found = direction_of_choices(self.store, draft, self.clip, self.model) if pictures else None
        if found is not None:
            step = replace(step, direction=latents_digest(found))
        with self.torch.inference_mode():
            plain, negative = encode_prompts(self.clip, [draft.prompt, draft.negative])
            words = moved_by_words(draft, step, self.clip)
            draft = draft.with_(embedding=step.parameters(), direction=found)
            vectors = moved_by_pictures(self.store, draft, words)
        latents, images = self.sampled(model, with_embedding(plain, vectors), negative, schedule, start)
        return draft, schedule, latents, images

    def answered(self, person: Any, images: Any, best: Any) -> tuple[Any, Any, int, str]:
        """What the person says of the new pictures and the best so far: answer, best, chosen new picture, comment."""
        answer = person.answer(images if best is None else self.torch.cat([best[None], images]))
        if best is None:
            return answer, images[answer.chosen], answer.chosen, answer.comment
        if answer.chosen > 0:
            return answer, images[answer.chosen - 1], answer.chosen - 1, answer.comment
        if answer.accepted:
            return answer, best, 0, ""
        # Nothing new is better: the round goes on from its own best one all the same, with what is said of that.
        said = person.answer(images)
        return answer, best, said.chosen, said.comment

    # ---- without the loop ----

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
            points.append(self.point(best, images, person, answer))
            if answer.accepted:
                break
            liked.append(best_latent)
            disliked.append(torch.cat([known[: answer.chosen], known[answer.chosen + 1 :]])[:1])
        return points

    def point(self, image: Any, images: Any, person: Any, answer: Any) -> dict[str, Any]:
        """What is true of the picture that stands after a round, and of all that the round made, and who took one."""
        from attune.training.demo.simulated_person import share

        seen = person.eyes.see(self.torch.cat([image[None], images]))
        shares = [share(shown, person.meant, person.wishes) for shown in seen]
        shows = {name: getattr(seen[0], name) == getattr(person.meant, name) for name in person.wishes}
        return {
            "share": shares[0], "of all": sum(shares[1:]) / len(images), "accepted": answer.accepted, "shows": shows,
        }  # fmt: skip

    def wish(self, rng: Any, *, unseen: bool = False) -> Any:
        """Any drawing that there is, or one that the model was never shown, on any background."""
        from attune.training.demo import data

        pairs = [pair for pair in self.library.pairs() if not unseen or data.is_held_out(*pair)]
        return data.Attributes(*pairs[int(rng.integers(len(pairs)))], str(rng.choice(list(data.BACKGROUNDS))))

    def person(self, kind: str, number: int, trial_seed: int) -> tuple[Callable[[], Any], int]:
        """A trial's person of this number, anew with every call, since its mistakes follow from its seed; the seed."""
        import numpy as np

        from attune.tests.evidence._refine_looks import judges, look_of, looking_person
        from attune.training.demo.simulated_person import Habits, SimulatedPerson

        wish = self.wish(np.random.default_rng([trial_seed, number, 41]), unseen=kind == "unseen")
        seed = 1000 * trial_seed + number
        if kind == "look":
            usual, look = self.usual(wish, seed), look_of(number)
            self.lessons.judges = judges(self.lessons.fit, look)
            return lambda: looking_person(wish, self.eyes, look, usual, seed=seed), seed
        silent = () if kind in ("all", "unseen") else (("style", "background")[number % 2],)
        habits = Habits(wordless=silent, keeps=kind == "keeping")
        return lambda: SimulatedPerson(wish, self.eyes, habits, seed=seed), seed

    def usual(self, wish: Any, seed: int) -> Any:
        """What the loop draws in its second round of a wish, but for its look, in a session of its own: images."""
        from attune.nodes.refinement.draft import Draft
        from attune.nodes.refinement.records import Feedback
        from attune.tests.evidence._refine_looks import PICTURES
        from attune.training.demo import data
        from attune.training.demo.simulated_person import PHRASES

        # Another session's seed, so that nobody sees these pictures.
        state = self.store.create(f"usual {seed}", data.with_article(wish.concept), seed=10**9 + seed)
        draft, schedule, latents, images = self.drawn(Draft.of(state), self.model, "")
        open_ = self.proposed(state, draft, schedule, latents, images, [{} for _ in images])
        said = Feedback(PHRASES["background"][1].format(what=wish.background), liked=(0,))
        state = self.store.commit(state.key, state.revision, open_.key, said)
        more = PICTURES - self.settings["pictures"]
        return self.drawn(self.worded(Draft.of(state), ""), self.model, "", pictures=True, more=more)[-1]

    # ---- what stays ----

    def kept(self, wish: Any, seed: int, said: str) -> dict[str, dict[str, float]]:
        """Of the pictures after a comment: what of the chosen one stayed, and whether they followed.

        Args:
            said: "background" or "style", of which the comment asks for another; no word was said of the other one.

        Returns:
            with and without the chosen pictures' direction → shares of the pictures that show what was "kept", what was
            "asked" for, the "concept", and the mean of these, "all".
        """
        from attune.nodes.refinement.draft import Draft
        from attune.nodes.refinement.records import Feedback
        from attune.training.demo import data
        from attune.training.demo.simulated_person import PHRASES

        state = self.store.create(f"kept {seed}", data.with_article(wish.concept), seed=seed)
        draft, schedule, latents, images = self.drawn(Draft.of(state), self.model, "")
        seen = self.eyes.see(images)
        place = next((at for at, shown in enumerate(seen) if shown.concept == wish.concept), 0)
        asked = next(name for name in self.others(wish, said) if name != getattr(seen[place], said))
        open_ = self.proposed(state, draft, schedule, latents, images, [{} for _ in images])
        feedback = Feedback(PHRASES[said][1].format(what=asked), liked=(place,))
        state = self.store.commit(state.key, state.revision, open_.key, feedback)
        silent = "style" if said == "background" else "background"
        meant = replace(seen[place], concept=wish.concept, **{said: asked})
        found = {}
        for way in ("with", "without"):
            draft = self.worded(Draft.of(state), "")
            shown = self.eyes.see(self.drawn(draft, self.model, "", pictures=way == "with")[-1])
            shares = {
                name: sum(getattr(one, attribute) == getattr(meant, attribute) for one in shown) / len(shown)
                for name, attribute in (("kept", silent), ("asked", said), ("concept", "concept"))
            }
            found[way] = {**shares, "all": sum(shares.values()) / len(shares)}
        return found

    def others(self, wish: Any, said: str) -> list[str]:
        """What a comment may ask for, the wish's own first: backgrounds, or styles in which there is such a drawing."""
        from attune.training.demo import data

        if said == "background":
            return [wish.background, *data.BACKGROUNDS]
        return [wish.style, *(style for style in data.STYLES if self.library.find(wish.concept, style) is not None)]

    def seen_right(self, count: int) -> dict[str, float]:
        """How often the eyes are right about real drawings, shifted and blurred: shares by attribute."""
        import numpy as np

        from attune.training.demo import quality
        from attune.training.demo.drawing_eyes import PLACES

        rng = np.random.default_rng(47)
        meant = [replace(self.wish(rng), **dict(zip(("size", "position"), PLACES[place % len(PLACES)], strict=True)))
                 for place in range(count)]  # fmt: skip
        seen = self.eyes.see(quality.softened(self.library, meant, 47))
        return {
            name: sum(getattr(one, name) == getattr(other, name) for one, other in zip(seen, meant, strict=True))
            / count
            for name in ("concept", "style", "background", "size", "position")
        }

    def ways(self) -> dict[str, Any]:
        """Name → a session of a person by that way."""
        return {
            "refine": self.refined,
            "re-roll": self.rolled,
            "fabric": lambda person, seed: self.rolled(person, seed, fabric=True),
            "full": lambda person, seed: self.refined(person, seed, pictures=True),
            **{f"full without {part}": lambda person, seed, part=part: self.refined(
                person, seed, without=part, pictures=part != "embedding") for part in PARTS},
            "with LoRA": lambda person, seed: self.refined(person, seed, lora="rewards"),
            "full with more pictures": lambda person, seed: self.refined(person, seed, pictures=True, more=MORE),
            "full with LoRA": lambda person, seed: self.refined(person, seed, lora="rewards", pictures=True),
            "with kept LoRA": lambda person, seed: self.refined(person, seed, lora="kept"),
        }  # fmt: skip


def main(settings: dict[str, Any]) -> Any:
    """Every way for every person: way → person → points. With "keeps": of as many wishes what `Bench.kept` finds."""
    bench = Bench(settings)
    import numpy as np

    if "keeps" in settings:
        rng = np.random.default_rng([settings["seed"], 43])
        found = []
        for number in range(settings["keeps"]):
            said = ("background", "style")[number % 2]
            kept = bench.kept(bench.wish(rng), 1000 * settings["seed"] + number, said)
            found.append({"said": said, **kept})
        return {"wishes": found, "eyes": bench.seen_right(300)}
    ways = {name: walk for name, walk in bench.ways().items() if name in settings["ways"]}
    found: dict[str, Any] = {way: [] for way in ways}
    for number in range(settings["people"]):
        meet, seed = bench.person(settings["kind"], number, settings["seed"])
        for way, walk in ways.items():
            found[way].append(walk(meet(), seed))
        print(number, {way: round(found[way][-1][-1]["share"], 2) for way in ways}, file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
