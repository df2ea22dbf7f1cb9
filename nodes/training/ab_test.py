"""A blind test of two models: the pictures of both for the same prompts and seeds, and who is preferred."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image

from ...training.interfaces import AttuneError, Reward, checked_scores
from ...training.presentable import compares_pictures, is_guarded, presentable, rest_of_batch, unsafe_pictures
from .ab_book import Ballots, BlindTest, Choice, Pair, Voter, pair_key
from .ab_grid import result_grid
from .ab_pictures import PictureStore, StoredPicture, digest_of, picture_name
from .compare import SamplingSettings, check_different, sample_all

AT_ONCE = 8
# The host's samplers whose picture depends on its own starting noise alone. Others draw noise for the whole batch, or
# fit their steps to it: a picture of theirs would depend on which others were missing when it was drawn.
_NOISELESS = {
    "euler", "euler_cfg_pp", "heun", "heunpp2", "dpm_2", "lms", "dpm_fast", "dpmpp_2m", "dpmpp_2m_cfg_pp", "ipndm",
    "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp",
    "ddim", "uni_pc", "uni_pc_bh2",
}  # fmt: skip
_SIDES = ("a", "b")
# Told the number of pictures; what it gives back is called for each, and may raise to cancel.
Progress = Callable[[int], Callable[[], None]]


def _silent(count: int) -> Callable[[], None]:
    return lambda: None


@dataclass(frozen=True)
class Setup:
    """What is drawn and how.

    Attributes:
        models: A and B, as the host has them.
        names: what they are called.
        clip, vae, latent: of both models.
        prompts, seeds: every prompt is drawn with every seed.
        reward: votes, or only guards; None if there is none.
    """

    models: tuple[Any, Any]
    names: tuple[str, str]
    clip: Any
    vae: Any
    latent: Mapping[str, Any]
    prompts: Sequence[str]
    negative: str
    seeds: Sequence[int]
    settings: SamplingSettings
    reward: Reward | None


@dataclass(frozen=True)
class Judging:
    """Who votes.

    Attributes:
        voter: a person, or the reward.
        least_margin: scores that differ by no more than this are a tie.
        side_seed: decides which picture a person sees on which side, and the order of the pairs.
    """

    voter: Voter
    least_margin: float
    side_seed: int


@dataclass(frozen=True)
class Outcome:
    """What stands.

    Attributes:
        test: id of the test.
        report: JSON-able; see `Ballots.standing`.
        votes: one entry per pair, prompts outermost: prompt, seed, choice ("a" | "b" | "tie" | None).
        grid: the decided pairs, model A over model B.
    """

    test: str
    report: dict[str, Any]
    votes: list[dict[str, Any]]
    grid: Image.Image


def model_identity(model: Any, weights: str) -> str:
    """A model's identity for its pictures: that of its weights, if nothing but weights makes them.

    Patches that are code (FreeU, another model sampling …) have no identity that outlives them; such a model is known
    as long as the host keeps it, which is until a node before it runs again.

    Args:
        weights: `host.hashing.base_hash` of the model.
    """
    options = getattr(model, "model_options", {}).values()
    plain = all(value is None or (isinstance(value, dict) and not value) for value in options)
    if plain and not getattr(model, "object_patches", None):
        return weights
    own = getattr(model, "attune_identity", None)
    if own is None:
        own = model.attune_identity = uuid.uuid4().hex
    return f"{weights} {own}"


def run_test(setup: Setup, judging: Judging, store: PictureStore, ballots: Ballots) -> Outcome:
    """Draw what is not there yet, let the reward vote if it is to, and say what stands. Never waits for a person.

    Raises:
        AttuneError: no prompts, a reward that is missing or cannot score, or models that draw the same pictures.
    """
    from ..host.hashing import base_hash
    from ..host.sampling import progress_bar

    if judging.voter == "reward" and setup.reward is None:
        raise AttuneError(
            "The reward is to vote, but none is connected. Connect one to 'reward', or set voter to 'person' and vote "
            "in the node."
        )
    setup = _without_doubles(setup)
    weights = tuple(base_hash(model) for model in setup.models)
    sides = pictures(setup, weights, store)
    if all(a.content == b.content for a, b in zip(*sides, strict=True)):
        check_different(sides[0][0].image, sides[1][0].image)
    test = make_test(setup, judging, weights, sides, progress_bar)
    name = ballots.add(test)
    report = {**ballots.standing(test), "test": name}
    choices = ballots.choices(test)
    if judging.voter == "person" and setup.reward is not None:
        by_reward = reward_choices(setup, sides, judging.least_margin, preferences(test, choices), progress_bar)
        report["agreement"] = agreement(test, choices, by_reward)
        report["reward"] = setup.reward.name
    ordered = [test.pairs[index] for index in test.by_prompt]
    votes = [{"prompt": pair.prompt, "seed": pair.seed, "choice": choices.get(pair.key)} for pair in ordered]
    grid = result_grid(report, setup.prompts, setup.seeds, [entry["choice"] for entry in votes], sides)
    return Outcome(name, report, votes, grid)


def _without_doubles(setup: Setup) -> Setup:
    prompts = list(dict.fromkeys(setup.prompts))
    if not prompts or not setup.seeds:
        raise AttuneError("Nothing to compare: give at least one prompt and one picture per prompt.")
    return Setup(**{**vars(setup), "prompts": prompts})


# ---- pictures ----


def pictures(setup: Setup, weights: Sequence[str], store: PictureStore) -> list[list[StoredPicture]]:
    """Both models' pictures, prompts outermost; those that the store has are not drawn again.

    What was drawn before a Cancel is kept.
    """
    from ..host.hashing import text_encoder_hash, vae_hash
    from ..host.sampling import empty_latent, encode_prompts, progress_bar

    if setup.clip is None or setup.vae is None:
        raise AttuneError("clip or vae holds nothing: this checkpoint has none. Connect loaders for them.")
    common = {
        "text": text_encoder_hash(setup.clip),
        "vae": vae_hash(setup.vae),
        "negative": setup.negative,
        "settings": asdict(setup.settings),
        "gate": setup.reward.reward_id if is_guarded([setup.reward]) else "",
    }
    if _at_once(setup) == 1:
        common["drawn"] = "alone"
    names, found = [], {}
    for model, weight in zip(setup.models, weights, strict=True):
        size = list(empty_latent(model, setup.latent).shape[1:])
        identity = model_identity(model, weight)
        names.append({
            (prompt, seed): picture_name(identity, prompt, seed, {**common, "size": size})
            for prompt in setup.prompts for seed in setup.seeds
        })  # fmt: skip
        for name in names[-1].values():
            found[name] = found.get(name) or store.find(name)
    jobs = list(_missing(setup, names, found))
    if jobs:
        encoded = encode_prompts(setup.clip, [*setup.prompts, setup.negative])
        positives = dict(zip(setup.prompts, encoded, strict=False))
        on_step = progress_bar(len(jobs) * setup.settings.steps)
        for side, prompt, seeds in jobs:
            images = sample_all(
                setup.models[side],
                setup.vae,
                setup.latent,
                [positives[prompt]],
                encoded[-1],
                seeds,
                setup.settings,
                on_step,
            )
            unsafe = unsafe_pictures(images, [setup.reward]).tolist()
            for seed, image, blurred in zip(seeds, presentable(images, [setup.reward]), unsafe, strict=True):
                name = names[side][prompt, seed]
                found[name] = store.put(name, image, blurred=blurred)
        store.tidy()
    return [[found[name] for name in side.values()] for side in names]


def _missing(
    setup: Setup, names: Sequence[Mapping[tuple[str, int], str]], found: Mapping[str, StoredPicture | None]
) -> Iterator[tuple[int, str, list[int]]]:
    """What is to be drawn: (side, prompt, seeds), at most `AT_ONCE` seeds each, and one if the sampler adds noise.
    Both sides of a prompt in turn."""
    at_once = _at_once(setup)
    planned: set[str] = set()
    for prompt in setup.prompts:
        for side, own in enumerate(names):
            seeds = [s for s in setup.seeds if found[own[prompt, s]] is None and own[prompt, s] not in planned]
            planned.update(own[prompt, seed] for seed in seeds)
            for start in range(0, len(seeds), at_once):
                yield side, prompt, seeds[start : start + at_once]


def _at_once(setup: Setup) -> int:
    return AT_ONCE if setup.settings.sampler in _NOISELESS else 1


# ---- votes ----


def make_test(
    setup: Setup,
    judging: Judging,
    weights: Sequence[str],
    sides: Sequence[Sequence[StoredPicture]],
    progress: Progress = _silent,
) -> BlindTest:
    """The pairs with their sides and their order drawn: by a digest of seed and pair, so that added pairs change
    nothing."""
    texts = [(prompt, seed) for prompt in setup.prompts for seed in setup.seeds]
    votes: Sequence[Choice | None] = [None] * len(texts)
    if judging.voter == "reward":
        votes = reward_choices(setup, sides, judging.least_margin, progress=progress)
    pairs, order = [], []
    for (prompt, seed), a, b, choice in zip(texts, *sides, votes, strict=True):
        key = pair_key((weights[0], weights[1]), (a.content, b.content), prompt, seed)
        # The order is that of the pair itself: wired the other way round, the same person sees the same.
        drawn = digest_of([judging.side_seed, key])
        first_is_a = a.content <= b.content
        width, height = a.size
        pairs.append(Pair(
            key=key, prompt=prompt, seed=seed, a=a.name, b=b.name, content_a=a.content, content_b=b.content,
            width=width,
            height=height, a_is_left=(int(drawn[-1], 16) % 2 == 0) == first_is_a, blurred=a.blurred or b.blurred,
            choice=choice,
        ))  # fmt: skip
        order.append(drawn)
    shuffled = sorted(range(len(pairs)), key=order.__getitem__)
    place = {index: position for position, index in enumerate(shuffled)}
    reward = setup.reward.name if setup.reward is not None and judging.voter == "reward" else ""
    return BlindTest(
        names=setup.names, voter=judging.voter, reward=reward, pairs=tuple(pairs[index] for index in shuffled),
        by_prompt=tuple(place[index] for index in range(len(pairs))),
    )  # fmt: skip


def reward_choices(
    setup: Setup,
    sides: Sequence[Sequence[StoredPicture]],
    least_margin: float,
    only: Collection[int] | None = None,
    progress: Progress = _silent,
) -> list[Choice | None]:
    """What the reward prefers, pair by pair; None where a picture is blurred.

    Args:
        only: the pairs whose choice is of use; others may be None. None = all.

    Raises:
        AttuneError: the margin is negative, or the reward cannot score the pictures.
    """
    if not (least_margin >= 0 and math.isfinite(least_margin)):
        raise AttuneError(f"least_margin must be 0 or more, not {least_margin}.")
    safe = [index for index, (a, b) in enumerate(zip(*sides, strict=True)) if not (a.blurred or b.blurred)]
    wanted = [index for index in safe if only is None or index in only]
    # What such a reward says of a pair must not depend on which others were asked for.
    scored = safe if wanted and compares_pictures(setup.reward) else wanted
    choices: list[Choice | None] = [None] * len(sides[0])
    scores = _scores(setup, sides, scored, progress)
    for index, a, b in zip(scored, *scores, strict=True):
        choices[index] = preferred(a, b, least_margin)
    return choices


def _scores(
    setup: Setup, sides: Sequence[Sequence[StoredPicture]], indices: Sequence[int], progress: Progress
) -> tuple[list[float], list[float]]:
    """Scores of both sides' pictures of these pairs, higher is better. Few pictures are in memory at a time, unless the
    reward compares them."""
    texts = [prompt for prompt in setup.prompts for _ in setup.seeds]
    pictures = [(side[index], texts[index]) for side in sides for index in indices]
    at_once = max(1, len(pictures)) if compares_pictures(setup.reward) else AT_ONCE
    rest = rest_of_batch(setup.reward, [text for _, text in pictures])
    scores: list[float] = []
    on_picture = progress(len(pictures)) if pictures else None
    for start in range(0, len(pictures), at_once):
        part = pictures[start : start + at_once]
        images = torch.stack([picture.image for picture, _ in part])
        scores += checked_scores(setup.reward, images, [text for _, text in part], rest).tolist()
        for _ in part:
            on_picture()
    sign = 1 if setup.reward.higher_is_better else -1
    scores = [sign * score for score in scores]
    return scores[: len(indices)], scores[len(indices) :]


def preferred(a: float, b: float, least_margin: float) -> Choice:
    """The better of two scores, or a tie if they differ by no more than the margin."""
    if abs(b - a) <= least_margin:
        return "tie"
    return "b" if b > a else "a"


def preferences(test: BlindTest, choices: Mapping[str, Choice]) -> set[int]:
    """Places, prompts outermost, of the pairs of which one side was preferred."""
    return {place for place, index in enumerate(test.by_prompt) if choices.get(test.pairs[index].key) in _SIDES}


def agreement(test: BlindTest, choices: Mapping[str, Choice], by_reward: Sequence[Choice | None]) -> float | None:
    """Share of the pairs on which person and reward agree, of those where both prefer one; None if there is none."""
    same = []
    for index, other in zip(test.by_prompt, by_reward, strict=True):
        own = choices.get(test.pairs[index].key)
        if own in _SIDES and other in _SIDES:
            same.append(own == other)
    return sum(same) / len(same) if same else None


def summary(report: Mapping[str, Any]) -> str:
    """What stands in one sentence or two, for the node and for logs."""
    a, b = report["names"]
    left = (
        f"{report['missing']} of {report['pairs'] - report['blurred']} votes are missing." if report["missing"] else ""
    )
    if report["win_rate"] is None:
        return left or "There is nothing to vote on."
    low, high = (round(100 * end) for end in report["interval"])
    parts = [f"{b} is preferred in {100 * report['win_rate']:.0f} % of {report['votes']} votes ({low} to {high} %)."]
    needed = report["still_needed"]
    more = (
        "too early to say how many more votes it takes" if needed is None else f"about {needed} more votes at this rate"
    )
    parts.append({
        "A": f"{a} is better.", "B": f"{b} is better.", "even": "There is hardly a difference.",
        "open": f"Still open: {more}.",
    }[report["decision"]])  # fmt: skip
    return " ".join([*parts, *([left] if left else [])])


def as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
