"""Personal DPO: closed forms, finite differences, and who is shown to whom."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import pytest
import torch

from attune.training.adapters.user_attention import UserAdapterConfig
from attune.training.adapters.user_policy import Personal, UserPolicy
from attune.training.denoisers import DiffusersDenoiser, process_of
from attune.training.interfaces import Prompt, TrainingError
from attune.training.objectives.diffusion_dpo import DiffusionDPOObjective
from attune.training.objectives.personal_dpo import PersonalDPOConfig, PersonalDPOObjective, PersonalPair
from attune.training.objectives.personal_support import PeopleTally, SupportTable, choose_held_out, told_by_first
from attune.training.objectives.supervised import draw_sigmas
from attune.training.preference.set_encoder import SetEncoder, SetEncoderConfig

CONTEXT, SHAPE, F = 6, (4, 4, 4), 5
ENCODER = SetEncoderConfig(features=F, tokens=2, width=3, hidden=8, layers=1, heads=2)
ADAPTER = UserAdapterConfig(tokens=2, width=3, start="text")


def among(pair: PersonalPair, others) -> bool:
    """Whether it is the very pair; their tensors cannot be compared by `in`."""
    return any(pair is other for other in others)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pairs(people: int, each: int, *, seed: int = 0, features: bool = True) -> list[PersonalPair]:
    latents = drawn(people, each, 2, *SHAPE, seed=seed)
    read = drawn(people, each, 3, F, seed=seed + 1)
    prompts = [Prompt(f"prompt {index}", drawn(3, CONTEXT, seed=50 + index)) for index in range(each)]
    return [
        PersonalPair(*latents[p, i], prompts[i], person=f"person {p}", features=read[p, i] if features else None)
        for p in range(people)
        for i in range(each)
    ]


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 8), layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=CONTEXT, attention_head_dim=4, norm_num_groups=4,
        ).eval().requires_grad_(False)  # fmt: skip


@pytest.fixture
def policy(unet):
    with UserPolicy(DiffusersDenoiser(unet, process_of("v"), torch.zeros(3, CONTEXT)), ADAPTER) as policy:
        yield policy


@pytest.fixture
def encoder() -> SetEncoder:
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        return SetEncoder(ENCODER, "features").eval().requires_grad_(False)


def objective(policy, learned, **words):
    knobs = {"batch": 4, "beta": 50.0, "chunk": 4} | {name: words.pop(name) for name in list(words) if name in
             PersonalDPOConfig.__dataclass_fields__}  # fmt: skip
    found = PersonalDPOObjective(learned, PersonalDPOConfig(**knobs), **words)
    found.prepare(policy)
    return found


def loss_of(found, seed: int = 0) -> torch.Tensor:
    return sum(found.losses(torch.Generator().manual_seed(seed)))


def test_the_loss_by_hand(policy, encoder):
    """One look: ℓ is the v error, mean over the latent; the policy sees the person, the reference the words alone."""
    found = objective(policy, pairs(2, 3), encoder=encoder, caption_dropout=0.0)
    look = found._look(torch.Generator().manual_seed(5))
    tokens = encoder(torch.stack([pair.features for pair in look.support])[None])[0]
    sigma, pair = look.sigma[None], look.pair
    alpha = 1 / (1 + sigma**2).sqrt()
    errors = []
    for clean in (pair.chosen, pair.rejected):
        x = clean[None] + sigma * look.noise
        for cond in (Personal(pair.prompt.positive, tokens), pair.prompt.positive):
            x0 = policy(x, sigma, [cond])
            # v = α·noise − β·x0, hence ‖v − v̂‖² = ((α/β)² + 1)·‖x0 − x̂0‖² with β = σα.
            errors.append(((1 / sigma**2 + 1) * (x0 - clean).square()).mean())
    margin = -25.0 * ((errors[0] - errors[1]) - (errors[2] - errors[3]))
    result = found._compare([look])
    assert result.margin.item() == pytest.approx(margin.item(), rel=1e-4)
    assert result.loss.item() == pytest.approx(math.log1p(math.exp(-margin.item())), rel=1e-4)
    assert alpha.item() > 0 and abs(margin.item()) > 1e-3, "a person makes a difference"


def test_gradients_are_finite_differences(policy, encoder):
    """Of adapter and encoder, along a random direction: the denoiser works in float32, so within a percent."""
    found = objective(policy, pairs(2, 3), encoder=encoder, encoder_learning_rate=1e-3, beta=5.0)
    trained = [*policy.parameters(), *found.auxiliary().parameters.values()]
    directions = [drawn(*value.shape, seed=9) for value in trained]
    looks = [found._look(torch.Generator().manual_seed(seed)) for seed in range(3)]
    slopes = torch.autograd.grad(found._compare(looks).loss.sum(), trained)
    expected = sum((slope * way).sum() for slope, way in zip(slopes, directions, strict=True)).item()

    def moved(step: float) -> float:
        with torch.no_grad():
            for value, way in zip(trained, directions, strict=True):
                value.add_(step * way)
            return found._compare(looks).loss.double().sum().item()

    high, low = moved(3e-3), moved(-6e-3)
    assert (high - low) / 6e-3 == pytest.approx(expected, rel=0.02) and abs(expected) > 1e-2


def test_support_and_query_share_no_picture(policy, encoder):
    """Best of three: two pairs with one winner. Neither may tell about the other."""
    first, second, third = pairs(1, 3)
    second = PersonalPair(first.chosen.clone(), second.rejected, second.prompt, person="person 0",
                          features=second.features)  # fmt: skip
    found = objective(policy, [first, second, third], encoder=encoder, support=2)
    generator = torch.Generator().manual_seed(0)
    seen = {id(first): set(), id(second): set(), id(third): set()}
    for _ in range(30):
        look = found._look(generator)
        seen[id(look.pair)] |= {id(pair) for pair in look.support}
        assert 1 <= len(look.support) <= 2
    assert seen == {id(first): {id(third)}, id(second): {id(third)}, id(third): {id(first), id(second)}}


def test_nobody_is_told_by_other_peoples_pairs(policy, encoder):
    found = objective(policy, pairs(5, 4), encoder=encoder, support=3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        look = found._look(generator)
        assert not among(look.pair, look.support) and {pair.person for pair in look.support} == {look.pair.person}


def test_held_out_people_are_told_by_their_first_pairs_which_are_not_measured(policy, encoder):
    held = pairs(2, 5, seed=7)
    found = objective(policy, pairs(2, 3), encoder=encoder, held_out=held, support=2, held_out_levels=2)
    assert [id(pair) for pair in found.held_out] == [id(pair) for pair in (*held[2:5], *held[7:10])]
    told = [[id(pair) for pair in look.support] for look in found._held_out_looks()]
    assert told[:6] == [[id(pair) for pair in held[:2]]] * 6 and told[6:] == [[id(pair) for pair in held[5:7]]] * 6
    figures = found.evaluate()
    assert 0 <= figures["held_out_accuracy"] <= 1 and figures == found.evaluate()


def test_held_out_people_who_cannot_be_measured_are_counted(policy, encoder):
    """Of three people the first has five choices, the second two, and of the third's four one shares a picture with
    the two that tell who it is."""
    many, few, alike = pairs(1, 5, seed=7), pairs(1, 2, seed=8), pairs(1, 4, seed=9)
    few, alike = ([replace(pair, person=name) for pair in own] for name, own in (("few", few), ("alike", alike)))
    alike[3] = replace(alike[3], rejected=alike[0].rejected.clone())
    found = objective(policy, pairs(2, 3), encoder=encoder, held_out=[*many, *few, *alike], support=2)
    assert [id(pair) for pair in found.held_out] == [id(pair) for pair in (*many[2:], alike[2])]
    assert found.tally == PeopleTally(
        people=2, pairs=6, held_out_people=2, held_out_pairs=4, support_pairs=4, held_out_without=1,
        held_out_pairs_without=3,
    )  # fmt: skip
    assert "2 people with 6 pairs" in found.tally.words and "not measured: 3 pairs (1 person" in found.tally.words


def test_the_table_of_support_is_what_it_says():
    """Against the plain definition, on choices that share pictures in every way."""
    generator = torch.Generator().manual_seed(0)
    pictures = [tuple(row) for row in torch.randint(6, (60, 2), generator=generator).tolist()]
    people = [f"person {number}" for number in torch.randint(3, (60,), generator=generator).tolist()]
    table = SupportTable(people, pictures)
    for choice, (person, both) in enumerate(zip(people, pictures, strict=True)):
        expected = [o for o in range(60) if people[o] == person and not set(pictures[o]) & set(both)]
        assert table.count(choice) == len(expected)
        assert table.at(choice, range(len(expected))) == expected


@pytest.mark.parametrize("shared", [False, True])
def test_the_table_of_support_is_linear_in_a_persons_choices(shared):
    """Also where all of them have one picture in common. 20,000 choices as a table of tuples would be 4·10⁸ entries."""
    number = 20_000
    pictures = [("best" if shared else f"a {place}", f"b {place}") for place in range(number)]
    tracemalloc.start()
    table = SupportTable(["anybody"] * number, pictures)
    counts = [table.count(choice) for choice in range(number)]
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts == [0 if shared else number - 1] * number
    assert used < 2000 * number, "bytes"


def test_who_is_held_out_depends_on_who_there_is_and_has_enough_choices():
    people = [f"person {number}" for number in range(10) for _ in range(3 + 2 * (number % 2))]
    found = choose_held_out(people, 0.3, support=4, seed=0)
    assert len(found) == 3 and all(int(person[-1]) % 2 for person in found)
    assert choose_held_out(people[::-1], 0.3, support=4, seed=0) == found
    assert choose_held_out(people, 0.0, support=4, seed=0) == set()
    assert choose_held_out(["alone"] * 9, 0.5, support=4, seed=0) == set(), "somebody must be left to learn from"
    assert len(choose_held_out(people, 0.01, support=4, seed=0)) == 1
    assert told_by_first(["alone"] * 3, [("a", "b"), ("c", "d"), ("e", "f")], 2) == {2: (0, 1)}


def test_given_embeddings_are_taken_as_they_are(policy):
    learned = pairs(2, 2, features=False)
    embeddings = {f"person {p}": drawn(2, 3, seed=p) for p in range(2)}
    found = objective(policy, learned, embeddings=embeddings)
    look = found._look(torch.Generator())
    assert look.support == () and torch.equal(found._embed([look])[0], embeddings[look.pair.person])
    assert loss_of(found).requires_grad


def test_who_is_dropped_teaches_nothing_and_breaks_nothing(policy, encoder):
    found = objective(policy, pairs(2, 3), encoder=encoder, user_dropout=0.999999)
    loss = loss_of(found)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6), "policy = reference: margin 0"
    assert all(not value.grad.any() for value in policy.parameters())


def test_a_dropped_caption_leaves_the_person(policy, encoder):
    found = objective(policy, pairs(2, 3), encoder=encoder, caption_dropout=1.0)
    look = found._look(torch.Generator())
    shown = found._with_person(look, drawn(2, 3)).pair.prompt.positive
    assert torch.equal(shown.positive, policy.unconditional) and shown.tokens is not None
    assert abs(found._compare([look]).margin.item()) > 1e-4


def test_the_encoder_is_trained_along_only_where_asked(policy, encoder):
    fixed = objective(policy, pairs(2, 3), encoder=encoder)
    assert not fixed.auxiliary().parameters
    loss_of(fixed).backward()
    assert all(value.grad is None for value in encoder.parameters())
    along = objective(policy, pairs(2, 3), encoder=encoder, encoder_learning_rate=1e-3)
    assert along.auxiliary().parameters.keys() == dict(encoder.named_parameters()).keys()
    assert along.auxiliary().kept, "the adapter is of no use without the encoder of the same moment"
    loss_of(along).backward()
    assert any(value.grad is not None and value.grad.abs().max() > 0 for value in encoder.parameters())


def test_who_has_too_few_pairs_is_left_out(policy, encoder):
    lonely = pairs(1, 1, seed=3)[0]
    lonely = PersonalPair(lonely.chosen, lonely.rejected, lonely.prompt, person="lonely", features=lonely.features)
    found = objective(policy, [*pairs(2, 2), lonely], encoder=encoder)
    assert not among(lonely, found.pairs)
    assert found.tally == PeopleTally(people=2, pairs=4, people_without=1, pairs_without=1)
    with pytest.raises(TrainingError, match="two pairs without a common picture"):
        objective(policy, [lonely], encoder=encoder)
    with pytest.raises(TrainingError, match="neither an embedding nor features"):
        objective(policy, pairs(2, 2, features=False), encoder=encoder)


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_noise_levels_can_be_those_where_colours_are_decided(prediction):
    process, generator = process_of(prediction), torch.Generator().manual_seed(0)
    found = draw_sigmas(process, 5000, generator, lowest=0.75)
    lowest = process.sigmas[int(0.75 * len(process.sigmas))] if prediction == "v" else torch.tensor(0.75)
    assert lowest <= found.min() < 1.05 * lowest and found.max() > 0.98 * process.sigma_max
    first, second = (draw_sigmas(process, 64, torch.Generator().manual_seed(1), **w) for w in ({}, {"lowest": 0.0}))
    assert torch.equal(first, second) and first.min() < lowest


def test_a_run_learns_on_the_noise_levels_it_is_told(policy, encoder):
    made = objective(policy, pairs(4, 3), encoder=encoder, noise_from=0.9)
    generator = torch.Generator().manual_seed(2)
    looks = [made._look(generator) for _ in range(60)]
    assert min(look.sigma for look in looks) >= policy.process.sigmas[int(0.9 * len(policy.process.sigmas))]


def test_ties_tell_nothing(policy, encoder):
    learned = pairs(1, 3)
    tie = PersonalPair(*drawn(2, *SHAPE, seed=8), learned[0].prompt, verdict="tie", person="person 0")
    found = objective(policy, [*learned, tie], encoder=encoder)
    assert found.left_out == 1 and not among(tie, found.pairs)
    assert not any(among(tie, found._look(torch.Generator().manual_seed(seed)).support) for seed in range(10))


def test_one_taste_for_all_is_diffusion_dpo(policy):
    """Where all have one embedding it is Diffusion-DPO of the network with that embedding: the same draws but one."""
    learned = pairs(3, 2, features=False)
    tokens = drawn(2, 3)
    embeddings = dict.fromkeys(["person 0", "person 1", "person 2"], tokens)
    found = objective(policy, learned, embeddings=embeddings, caption_dropout=0.0)
    plain = [PersonalPair(p.chosen, p.rejected, Prompt(p.prompt.text, Personal(p.prompt.positive, tokens)))
             for p in learned]  # fmt: skip
    other = DiffusionDPOObjective(plain, found.config)
    other.prepare(policy)
    look, twin = (one._look(torch.Generator().manual_seed(2)) for one in (found, other))
    assert look.captioned and torch.equal(look.noise, twin.noise)
    assert found._compare([look]).loss.item() == pytest.approx(other._compare([twin]).loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    "field", [{"support": 0}, {"user_dropout": 1.0}, {"encoder_learning_rate": -1.0}, {"beta": 0}, {"noise_from": 1.0}]
)
def test_bad_knobs_are_refused(field):
    with pytest.raises(TrainingError):
        PersonalDPOConfig(**field)
