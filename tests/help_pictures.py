"""Make the pictures of the objectives' help pages afresh, each from a real training run.

    .venv/bin/python scripts/module.py attune.tests.help_pictures [METHOD …]

The ring of `mixture_bed.py` is a map of all pictures: a dot is a picture, and the brighter a place, the better it is
liked. Every method trains the same base model there for less than a minute. A picture whose run does not show what its
caption says is not written. Look at the pictures before you commit them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from attune.nodes.drawing import BAD, COLOURS, GOOD, MUTED, PANEL, TEXT, Canvas
from attune.training.adapters import LoraConfig, Policy
from attune.training.adapters.user_attention import UserAdapterConfig
from attune.training.adapters.user_policy import Personal, UserPolicy
from attune.training.interfaces import Objective
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import GENERATOR, DiffInstructConfig
from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Pair
from attune.training.objectives.multi_round import RoundConfig, learn_round, round_objective
from attune.training.objectives.personal_dpo import PersonalDPOConfig, PersonalDPOObjective, PersonalPair
from attune.training.objectives.refl import ReFLConfig, ReFLObjective
from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
from attune.training.one_step import generate, level_of
from attune.training.trainer import TrainerConfig, train

from . import mixture_bed as bed

FOLDER = Path(__file__).resolve().parents[1] / "js" / "docs" / "pictures"
WIDTH, HEIGHT = 720, 360
STEPS = 16
LORA = LoraConfig(rank=32, alpha=32.0, targets=("everything",))
TRAINER = TrainerConfig(learning_rate=4e-3, schedule="cosine", sample_every=0)
PRACTICE = {"prompts_per_update": 8, "images_per_prompt": 32, "steps": STEPS, "guidance": 1.0, "chunk": 4096}
DAG = DAGConfig(
    **PRACTICE, transitions=6, updates_per_rollout=4, beta=1.0, convention="sum", clip_range=0.2,
    flow_channels=(32,), flow_learning_rate=1e-2,
)  # fmt: skip
# Pictures by which a run is judged, and how many of them are drawn.
SAMPLES, DRAWN = 4000, 300
# What is shown to Supervised: how many pictures of which modes.
SHOWN = {1: 16, 3: 8}
PAIRS, PAIRS_DRAWN = 400, 8
# Where a one-step generator is called: on pure noise.
ONE_CALL = 999
# Of Multi-Round: which mode is wished for, in how many rounds.
WISHED, ROUNDS = 2, 3
# Of Personal DPO: people who like evenly spread directions.
TEACHERS, TEACHER_PAIRS = 16, 40

Density = Callable[[torch.Tensor], torch.Tensor]
Claim = Callable[[torch.Tensor, torch.Tensor], bool]


class GentleReward(bed.TargetReward):
    """The log-density of the target, with its gradient."""

    differentiable = True

    def __call__(self, images: torch.Tensor, prompts: Sequence[str], context: object = None) -> torch.Tensor:
        self.calls += len(images)
        return bed.log_target(images[:, 0, 0, :2])


def target_density(points: torch.Tensor) -> torch.Tensor:
    """exp(r)/Z at points [B, 2]."""
    return bed.log_target(points).exp()


def shown_density(points: torch.Tensor) -> torch.Tensor:
    """Where the shown pictures lie, as a density at points [B, 2]."""
    return torch.exp(-torch.cdist(points, shown_pictures()).square() / (2 * bed.DEVIATION**2)).mean(1)


def shown_pictures() -> torch.Tensor:
    """Points [24, 2]."""
    generator = torch.Generator().manual_seed(5)
    modes = torch.tensor([mode for mode, count in SHOWN.items() for _ in range(count)])
    return bed.MEANS[modes] + bed.DEVIATION * torch.randn(len(modes), 2, generator=generator)


def judged_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """(better, worse) points [PAIRS, 2] of the base model; the target's density decides."""
    with Policy(bed.RingDenoiser(), LORA) as base:
        one, other = bed.sample(base, 2 * PAIRS, steps=STEPS, seed=9).chunk(2)
    first = (bed.log_target(one) > bed.log_target(other))[:, None]
    return torch.where(first, one, other), torch.where(first, other, one)


# ---- the runs ----


def supervised(updates: int) -> Objective:
    latents = [point.reshape(bed.LATENT_SHAPE) for point in shown_pictures()]
    return SupervisedObjective(latents, bed.PROMPTS, SupervisedConfig(batch=256, caption_dropout=0))


def diffusion_dpo(updates: int) -> Objective:
    better, worse = (points.reshape(-1, *bed.LATENT_SHAPE) for points in judged_pairs())
    pairs = [Pair(*pair, bed.PROMPTS[0]) for pair in zip(better, worse, strict=True)]
    return DiffusionDPOObjective(pairs, DiffusionDPOConfig(batch=256, beta=2.0, caption_dropout=0, chunk=4096))


def taste_tokens(angle: float) -> torch.Tensor:
    """The embedding [2, 3] of somebody who likes what lies in this direction, and the direction [2]."""
    cos, sin = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, sin, 1.0], [-sin, cos, 1.0]])


def personal_dpo(updates: int) -> Objective:
    generator = torch.Generator().manual_seed(3)
    points = exact_points(2 * TEACHERS * TEACHER_PAIRS, generator).reshape(TEACHERS, TEACHER_PAIRS, 2, 2)
    pairs, embeddings = [], {}
    for teacher, own in enumerate(points):
        tokens = taste_tokens(2 * math.pi * teacher / TEACHERS)
        embeddings[str(teacher)] = tokens
        for one, other in own:
            better, worse = (one, other) if (one - other) @ tokens[0, :2] > 0 else (other, one)
            latents = (point.reshape(bed.LATENT_SHAPE) for point in (better, worse))
            pairs.append(PersonalPair(*latents, bed.PROMPTS[0], person=str(teacher)))
    config = PersonalDPOConfig(batch=256, beta=10.0, caption_dropout=0, chunk=4096)
    return PersonalDPOObjective(pairs, config, embeddings=embeddings)


def exact_points(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draws [count, 2] of the ring."""
    modes = torch.randint(bed.MODES, (count,), generator=generator)
    return bed.MEANS[modes] + bed.DEVIATION * torch.randn(count, 2, generator=generator)


def two_strangers(objective: Objective, updates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The base model's pictures, and those for two people between the teachers who like opposite directions."""
    strangers = [taste_tokens(angle + math.pi / TEACHERS) for angle in (0, math.pi)]
    rows = SAMPLES // len(strangers)
    with UserPolicy(bed.AttentiveRing(), UserAdapterConfig(tokens=2, width=3)) as policy:
        before = bed.sample(policy, SAMPLES, steps=STEPS, seed=1)
        train(policy, objective, replace(TRAINER, steps=updates, learning_rate=1e-2))
        after = [bed.sample(policy, rows, steps=STEPS, seed=1, cond=Personal(None, tokens)) for tokens in strangers]
        return before, torch.cat(after)


def bed_density(points: torch.Tensor) -> torch.Tensor:
    """Where the base model's pictures lie, as a density at points [B, 2]."""
    return torch.exp(-torch.cdist(points, bed.MEANS).square() / (2 * bed.DEVIATION**2)).mean(1)


def refl(updates: int) -> Objective:
    # The customary window: the last quarter of the steps. No point scores above the margin.
    config = ReFLConfig(**PRACTICE, stop_from=3 * STEPS // 4, stop_to=STEPS - 1, weight=1.0, margin=5.0)
    return ReFLObjective(bed.PROMPTS, GentleReward(), bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE)


class WishReward:
    """How near a point is to the wished mode: −|x − wish|²."""

    name, reward_id, differentiable, higher_is_better = "Wish", "wish", True, True

    def __call__(self, images: torch.Tensor, prompts: Sequence[str], context: object = None) -> torch.Tensor:
        return -(images[:, 0, 0, :2] - bed.MEANS[WISHED]).square().sum(1)


def wished_density(points: torch.Tensor) -> torch.Tensor:
    """Where the wish lies, as a density at points [B, 2]."""
    return torch.exp(-(points - bed.MEANS[WISHED]).square().sum(1) / (2 * bed.DEVIATION**2))


def a_round(updates: int) -> Objective:
    config = RoundConfig(
        images_per_prompt=64, steps=STEPS, guidance=1.0, stop_from=STEPS // 2, stop_to=STEPS - 1, margin=1.0,
        weight=1.0, chunk=4096,
    )  # fmt: skip
    return round_objective(
        bed.PROMPTS[0], WishReward(), bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE
    )  # fmt: skip


def rounds(objective: Objective, updates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Before the first round, and after the last: each goes on from the LoRA of the one before."""
    denoiser, learned = bed.RingDenoiser(), None
    trainer = replace(TRAINER, steps=max(1, updates // ROUNDS), schedule="constant", warmup_steps=0)
    for number in range(ROUNDS):
        learned = learn_round(
            denoiser, objective, lora=LORA, trainer=replace(trainer, seed=number), start=learned
        ).tensors  # fmt: skip
    with Policy(denoiser, LORA) as policy:
        before = bed.sample(policy, SAMPLES, steps=STEPS, seed=1)
        policy.load_tensors(learned)
        return before, bed.sample(policy, SAMPLES, steps=STEPS, seed=1)


def ddpo(updates: int) -> Objective:
    config = DDPOConfig(**PRACTICE, transitions=8, updates_per_rollout=4, convention="sum", clip_range=0.2)
    return DDPOObjective(bed.PROMPTS, bed.TargetReward(), bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE)


def dag_kl(updates: int) -> Objective:
    return _dag(replace(DAG, variant="KL", anneal_updates=updates // 2))


def dag_db(updates: int) -> Objective:
    return _dag(replace(DAG, variant="DB", anneal_updates=updates // 2))


def _dag(config: DAGConfig) -> Objective:
    return DAGObjective(bed.PROMPTS, bed.TargetReward(), bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE)


def diff_instruct(updates: int) -> Objective:
    # The reward is only watched: where the model's own pictures lie is what is shown.
    config = DiffInstructConfig(
        prompts_per_update=1, images_per_prompt=512, init_timestep=ONE_CALL, guidance=1.0,
        assistant_learning_rate=6e-3, noise_from=0.0, noise_to=1.0, chunk=512,
    )  # fmt: skip
    return DiffInstructObjective(bed.PROMPTS, GentleReward(), bed.PointDecoder(), config, latent_shape=bed.LATENT_SHAPE)


def one_call(objective: Objective, updates: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What one call of the network draws before and after, from the same noise."""
    trainer = TrainerConfig(
        steps=updates, learning_rate=2e-3, warmup_steps=0, betas=(0.0, 0.99), ema=0.99, weight_decay=0.0,
        sample_every=0,
    )  # fmt: skip
    noise = torch.randn(SAMPLES, *bed.LATENT_SHAPE, generator=torch.Generator().manual_seed(1))
    with Policy(bed.RingDenoiser(), replace(LORA, rank=16, alpha=16.0), roles=objective.roles) as policy:

        @torch.no_grad()
        def drawn() -> torch.Tensor:
            with policy.role(GENERATOR):
                return generate(policy, noise, [None] * SAMPLES, sigma=level_of(policy.process, ONE_CALL)).flatten(1)

        before = drawn()
        policy.load_tensors(train(policy, objective, trainer).tensors, GENERATOR)
        return before, drawn()


# ---- what a caption promises ----


def far_from(due: torch.Tensor, points: torch.Tensor) -> float:
    """How much of the shares [8] would have to move to be what is due: 0 … 1 (total variation)."""
    return float((bed.mode_shares(points) - due).abs().sum() / 2)


def as_often_as_shown(before: torch.Tensor, after: torch.Tensor) -> bool:
    due = torch.zeros(bed.MODES)
    due[list(SHOWN)] = torch.tensor(list(SHOWN.values())) / sum(SHOWN.values())
    return far_from(due, after) <= 0.15


def mostly_better(before: torch.Tensor, after: torch.Tensor) -> bool:
    """A new picture beats an old one two times out of three, and no half of the pictures is in one mode."""
    wins = (bed.log_target(after)[:, None] > bed.log_target(before)).float().mean()
    return bool(wins >= 2 / 3 and bed.mode_shares(after).max() < 0.5)


def each_to_their_own(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Of either stranger four pictures out of five lie on the side that they like, and not all in one mode."""
    for part, angle in zip(after.chunk(2), (0, math.pi), strict=True):
        liked = part @ taste_tokens(angle + math.pi / TEACHERS)[0, :2] > 0
        if liked.float().mean() < 0.8 or bed.mode_shares(part).max() > 0.6:
            return False
    return True


def at_the_brightest_places(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Nearly all in the two best modes, which lie opposite; both are used, and both are narrower than they were."""
    shares, best = bed.mode_shares(after), bed.WEIGHTS.topk(2).indices
    return bool(shares[best].sum() >= 0.95 and shares[best].min() >= 0.1 and _spread(after) < 0.75 * _spread(before))


def mostly_as_wished(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Two pictures out of three are in the wished mode, where one in eight was, and they are not all one picture."""
    shares = [bed.mode_shares(points)[WISHED] for points in (before, after)]
    return bool(shares[0] < 0.2 and shares[1] >= 2 / 3 and after.std(0).min() > 0.3 * bed.DEVIATION)


def at_the_best_place(before: torch.Tensor, after: torch.Tensor) -> bool:
    return bool(bed.mode_shares(after)[bed.WEIGHTS.argmax()] >= 0.95 and _spread(after) < 0.75 * _spread(before))


def as_often_as_liked(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Shares as the target's; every mode has at least a quarter of what is its due, and is as wide as it was."""
    kept = bed.mode_shares(after) >= bed.WEIGHTS / 4
    return bool(far_from(bed.WEIGHTS, after) <= 0.08 and kept.all() and _spread(after) > 0.85 * _spread(before))


def where_many_steps_draw(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Beside the ring before; afterwards all modes alike, and as wide as they are."""
    even = torch.full((bed.MODES,), 1 / bed.MODES)
    width = bed.DEVIATION * math.sqrt(2)
    return bool(_spread(before) > 2 * width and far_from(even, after) <= 0.08 and 0.8 < _spread(after) / width < 1.2)


def _spread(points: torch.Tensor) -> float:
    """The typical distance from the nearest mode's centre."""
    return float(torch.cdist(points, bed.MEANS).min(1).values.square().mean().sqrt())


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        node: whose help page shows it; the file's name.
        caption: one line in an artist's words.
        updates: of the run.
        objective: a fresh one, given the number of updates.
        holds: whether the caption is true of the pictures before and after, [SAMPLES, 2] each.
        liked: the shading.
        marks: (better, worse) pictures that the method is given; drawn into the left half.
        people: for how many people the pictures afterwards are, in equal parts and as many colours.
        played: its run, where it is another than that of a LoRA.
    """

    node: str
    caption: str
    updates: int
    objective: Callable[[int], Objective]
    holds: Claim
    liked: Density = target_density
    marks: Callable[[], tuple[torch.Tensor, torch.Tensor]] = field(default=lambda: (torch.empty(0, 2),) * 2)
    people: int = 1
    played: Callable[[Objective, int], tuple[torch.Tensor, torch.Tensor]] | None = None


SCENES = {
    "Supervised": Scene(
        "AttuneSupervisedObjective", "Makes what you show it (green), as often as shown.", 200,
        supervised, as_often_as_shown, shown_density, lambda: (shown_pictures(), torch.empty(0, 2)),
    ),
    "Diffusion-DPO": Scene(
        "AttuneDiffusionDPOObjective", "Away from the worse (red), to the better (green).", 300,
        diffusion_dpo, mostly_better, marks=lambda: tuple(part[:PAIRS_DRAWN] for part in judged_pairs()),
    ),
    "Personal-DPO": Scene(
        "AttunePersonalDPOObjective", "One adapter, two strangers: to each their own.", 120,
        personal_dpo, each_to_their_own, bed_density, people=2, played=two_strangers,
    ),
    "ReFL": Scene(
        "AttuneReFLObjective", "Climbs to the best places in reach, and stays.", 200, refl,
        at_the_brightest_places,
    ),
    "DDPO": Scene(
        "AttuneDDPOObjective", "All pictures crowd at the one best place.", 100, ddpo, at_the_best_place
    ),
    "DAG-KL": Scene(
        "AttuneDAGKLObjective", "More pictures where more is liked. No place is lost.", 300, dag_kl,
        as_often_as_liked,
    ),
    "DAG-DB": Scene(
        "AttuneDAGDBObjective", "Also as often as liked, by a simpler rule.", 300, dag_db,
        as_often_as_liked,
    ),
    "Multi-Round": Scene(
        "AttuneMultiRoundObjective", "A few updates a round, and most are as wished.", 18, a_round,
        mostly_as_wished, wished_density, played=rounds,
    ),
    "Diff-Instruct*": Scene(
        "AttuneDiffInstructObjective", "One call draws what took many steps.", 600, diff_instruct,
        where_many_steps_draw, bed_density, played=one_call,
    ),
}  # fmt: skip


def run(scene: Scene, updates: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [SAMPLES, 2] of the base model, and of the trained one from the same noise."""
    updates = scene.updates if updates is None else updates
    if scene.played is not None:
        return scene.played(scene.objective(updates), updates)
    with Policy(bed.RingDenoiser(), LORA) as policy:
        before = bed.sample(policy, SAMPLES, steps=STEPS, seed=1)
        train(policy, scene.objective(updates), replace(TRAINER, steps=updates))
        return before, bed.sample(policy, SAMPLES, steps=STEPS, seed=1)


# ---- the picture ----

# Help is read in a narrow side panel, where the picture is shown at less than half its size.
_EDGE, _TOP, _CAPTION, _LETTERS = 10, 54, 52, 29
_HALF_WIDTH, _HALF_HEIGHT = (WIDTH - 3 * _EDGE) // 2, HEIGHT - _TOP - _CAPTION
# How far the map reaches upwards and downwards from its middle.
_REACH = 2.15
_BEFORE, _AFTER, _LIKED = "#c4cad4", COLOURS["loss"], "#2f86c4"
_PEOPLE = (COLOURS["loss"], GOOD)


def draw(
    method: str,
    caption: str,
    before: torch.Tensor,
    after: torch.Tensor,
    liked: Density,
    marks: tuple[torch.Tensor, torch.Tensor],
    people: int = 1,
) -> Image.Image:
    """The map before and after; see `Scene`."""
    canvas = Canvas(WIDTH, HEIGHT)
    parts = list(zip(after.chunk(people), _PEOPLE, strict=False)) if people > 1 else [(after, _AFTER)]
    for left, title, groups in (
        (_EDGE, "Before training", [(before, _BEFORE)]),
        (2 * _EDGE + _HALF_WIDTH, f"After: {method}", parts),
    ):
        canvas.dot(left + 14, _TOP / 2, groups[0][1], radius=7)
        canvas.text(left + 32, _TOP / 2, title, size=_LETTERS, anchor="lm")
        canvas.panel(left, _TOP, left + _HALF_WIDTH, _TOP + _HALF_HEIGHT)
        canvas.picture(shading(liked), left + 6, _TOP + 6, _HALF_WIDTH - 12, _HALF_HEIGHT - 12)
        for points, colour in groups:
            for x, y in (_place(left, point) for point in points[: DRAWN // len(groups)]):
                canvas.dot(x, y, colour, radius=2.5)
    _draw_marks(canvas, *marks)
    canvas.text(WIDTH / 2, HEIGHT - _CAPTION / 2, caption, size=_LETTERS, colour=TEXT, anchor="mm")
    return canvas.finish()


def shading(liked: Density) -> Image.Image:
    """The map's ground: the panel's colour where nothing is liked, blue where the most is."""
    width, height = (_HALF_WIDTH - 12) // 2, (_HALF_HEIGHT - 12) // 2
    across = _REACH * width / height
    y, x = torch.meshgrid(
        torch.linspace(_REACH, -_REACH, height), torch.linspace(-across, across, width), indexing="ij"
    )
    density = liked(torch.stack([x.flatten(), y.flatten()], 1)).reshape(height, width, 1)
    strength = (density / density.max()).sqrt().numpy()
    low, high = (np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)], dtype=float) for code in (PANEL, _LIKED))
    return Image.fromarray((low + strength * (high - low)).round().astype(np.uint8))


def _place(left: float, point: torch.Tensor) -> tuple[float, float]:
    scale = (_HALF_HEIGHT - 12) / (2 * _REACH)
    return (
        left + _HALF_WIDTH / 2 + scale * float(point[0]),
        _TOP + _HALF_HEIGHT / 2 - scale * float(point[1]),
    )


def _draw_marks(canvas: Canvas, better: torch.Tensor, worse: torch.Tensor) -> None:
    """Given pictures in the left half: better ones as green discs, worse ones as red crosses, pairs joined."""
    ends = [[_place(_EDGE, point) for point in points] for points in (better, worse)]
    for pair in zip(*ends, strict=False):
        canvas.line(pair, MUTED, width=1.5)
    for x, y in ends[0]:
        canvas.dot(x, y, PANEL, radius=8)
        canvas.dot(x, y, GOOD, radius=6)
    for x, y in ends[1]:
        canvas.dot(x, y, PANEL, radius=8)
        for slope in (-1, 1):
            canvas.line([(x - 5, y - 5 * slope), (x + 5, y + 5 * slope)], BAD, width=3)


def main(methods: Sequence[str]) -> None:
    """Run the named methods, or all."""
    torch.set_flush_denormal(True)
    FOLDER.mkdir(exist_ok=True)
    for method in methods or SCENES:
        scene = SCENES[method]
        before, after = run(scene)
        shares = ", ".join(f"{share:.2f}" for share in bed.mode_shares(after).tolist())
        print(f"{method}: shares {shares}; distance from a mode {_spread(before):.2f} to {_spread(after):.2f}")
        if not scene.holds(before, after):
            sys.exit(f"{method}: the run does not show what the caption says: {scene.caption}")
        picture = draw(method, scene.caption, before, after, scene.liked, scene.marks(), scene.people)
        picture.save(FOLDER / f"{scene.node}.jpg", quality=90, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
