"""Public reward models: files in each one's own layout, scored against the libraries (tests/public_models.py)."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from attune.nodes.rewards import StatisticReward, combine, dialogue, load_reward, ocr, safety, statistics
from attune.nodes.rewards.clip_tokens import tokenize
from attune.nodes.rewards.layouts import heads_of, open_clip_config, picture_tower, text_tower
from attune.nodes.rewards.load import Companions, fingerprint
from attune.nodes.rewards.public import MODEL_TYPES, MODELS, SCORING_VERSION, decide, published_as, where_to_get
from attune.tests import public_models as models
from attune.training.interfaces import Reward, RewardError

OPENAI, LAION, PICKSCORE, HPS_2_0, HPS_2_1, IMAGE_REWARD, AESTHETIC = (model.name for model in MODELS)
PROMPTS = ["a red owl", "owls on a cafe, !", "red"]
TAKEN_FOR_PICKSCORE = "ViT-H/14 scored as PickScore (a plain CLIP? Set model_type to CLIPScore (LAION, GELU))"
DEMO = Path(__file__).parents[2] / "workflows" / "demo" / "attune_demo_judge.safetensors"
LOGIT_SCALE = float(np.exp(np.float32(4.6)))


def pictures(*shapes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


# Scaled to 32 × 51, which leaves 19 pixels to cut off: 10 on the left by one library, 9 by the other.
PICTURES = [*pictures((45, 72), (33, 32)), np.full((40, 32, 3), (250, 40, 10), dtype=np.uint8)]


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture)[None].float() / 255


def scores_of(reward: Reward) -> list[float]:
    """Of the bare reward: a cached one knows the scores of the same file from an earlier test."""
    bare = reward.reward
    return [bare(tensor(picture), [prompt]).item() for picture, prompt in zip(PICTURES, PROMPTS, strict=True)]


def check(reward: Reward, expected: list[float]) -> None:
    found = scores_of(reward)
    assert found == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 1e-3, "these pictures could be mixed up without anybody noticing"


@dataclasses.dataclass(frozen=True)
class Case:
    """A file, the type that is chosen for it, and what the library says of `PICTURES`."""

    path: Path
    model_type: str
    expected: list[float]
    companions: Companions | None = None

    def load(self, **changes: object) -> Reward:
        return load_reward(
            self.path, "cpu", **({"model_type": self.model_type, "companions": self.companions} | changes)
        )


def clip_scores(network: torch.nn.Module, prepare, scale: float = 1.0, by: str = "open_clip") -> list[float]:
    pairs = zip(PICTURES, PROMPTS, strict=True)
    return [scale * models.cosine(network, prepare(picture, 32), prompt, by=by) for picture, prompt in pairs]


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> dict[str, Case]:
    folder = tmp_path_factory.mktemp("public")
    found = {}

    quick, plain = models.transformers_clip("quick_gelu"), models.transformers_clip("gelu", seed=1)
    positions = {
        f"{part}.embeddings.position_ids": torch.arange(count)[None]
        for part, count in (("text_model", 77), ("vision_model", 17))
    }
    # Real files of the time hold position numbers, which the libraries of today compute.
    openai = models.save(folder / "openai" / "model.safetensors", quick.state_dict() | positions)
    found["openai"] = Case(openai, OPENAI, clip_scores(quick, models.crop))
    as_open_clip = models.save(folder / "timm" / "open_clip_model.safetensors", models.to_open_clip(quick))
    found["openai in open_clip's layout"] = Case(as_open_clip, OPENAI, clip_scores(quick, models.crop))
    path = models.save(folder / "laion" / "open_clip_pytorch_model.bin", models.open_clip_clip(False).state_dict())
    found["laion"] = Case(path, LAION, clip_scores(models.open_clip_clip(False), models.crop))
    path = models.save(folder / "pick" / "model.safetensors", plain.state_dict())
    low = lambda picture, edge: models.crop(picture, edge, low=True)  # noqa: E731
    found["pickscore"] = Case(path, PICKSCORE, clip_scores(plain, low, LOGIT_SCALE, "transformers"))
    path = models.save(folder / "pick" / "converted.safetensors", models.to_open_clip(plain))
    found["pickscore in open_clip's layout"] = Case(
        path, PICKSCORE, clip_scores(plain, low, LOGIT_SCALE, "transformers")
    )
    hps = models.open_clip_clip(False, seed=2)
    parallel = {f"module.{key}": value for key, value in hps.state_dict().items()}
    path = models.save(folder / "HPS_v2.1_compressed.pt", parallel, epoch=3, name="hps")
    found["hps"] = Case(path, HPS_2_1, clip_scores(hps, models.pad))
    found["hps 2.0"] = Case(path, HPS_2_0, clip_scores(hps, models.pad))

    weights = models.head(32)
    path = models.save(folder / "aesthetic" / "sac+logos+ava1-l14-linearMSE.pth", weights)
    features = [models.image_features(quick, models.crop(picture, 32)) for picture in PICTURES]
    expected = [models.through_head(feature, weights).item() for feature in features]
    half = {key: value for key, value in quick.state_dict().items() if key.startswith(("vision_model.", "visual_pro"))}
    half_path = models.save(folder / "half.safetensors", half)
    for name, clip in {"whole": openai, "half": half_path, "open_clip": as_open_clip}.items():
        companions = Companions(candidates=(found["hps"].path, found["pickscore"].path.parent / "gone", clip))
        found[f"aesthetic on {name}"] = Case(path, AESTHETIC, expected, companions)

    weights = models.blip()
    path = models.save(folder / "image_reward" / "ImageReward.pt", weights)
    vocabulary = models.write_vocabulary(path.parent / "bert-base-uncased")
    expected = []
    for picture, prompt in zip(PICTURES, PROMPTS, strict=True):
        words = models.bert_tokens(vocabulary, [prompt])
        expected.append(models.blip_score(weights, models.crop(picture, 32), *words).item())
    found["image reward"] = Case(path, IMAGE_REWARD, expected)
    return found


NAMES = (
    "openai", "openai in open_clip's layout", "laion", "pickscore", "pickscore in open_clip's layout", "hps", "hps 2.0",
    "aesthetic on whole", "aesthetic on half", "aesthetic on open_clip", "image reward",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_the_library(cases, name):
    case = cases[name]
    reward = case.load()
    assert isinstance(reward, Reward)
    assert reward.differentiable and reward.higher_is_better
    assert reward.uses_prompt == (case.model_type != AESTHETIC)
    assert case.model_type in reward.name
    check(reward, case.expected)


# What the tokenizers of the two libraries read differently, and what both must survive.
ODD_PROMPTS = (
    "it’s a sign that says “OPEN”", "Tom &amp; Jerry", "ﬁne ﬂowers", "１２３ owls", "an owl<|endoftext|>red",
    "<|startoftext|>", "X<|ENDOFTEXT|>Y", "<|EndOfText|>!!", "an owl <|STARTOFTEXT|>_",
    "schoÌ\x88n", "cafe\u0301  naïve\n", "don't STOP!!!, (art:1.2)",
    "İ ẞ 猫 🦊", "", "owl " * 90,
)  # fmt: skip


@pytest.mark.parametrize("prompt", ODD_PROMPTS)
def test_prompts_are_read_as_the_program_of_each_model_reads_them(cases, prompt):
    picture = PICTURES[0]
    plain = models.transformers_clip("gelu", seed=1)
    for name, network, prepare, by, scale in (
        ("pickscore", plain, lambda p, edge: models.crop(p, edge, low=True), "transformers", LOGIT_SCALE),
        ("openai", models.transformers_clip("quick_gelu"), models.crop, "open_clip", 1),
        ("laion", models.open_clip_clip(False), models.crop, "open_clip", 1),
        ("hps", models.open_clip_clip(False, seed=2), models.pad, "open_clip", 1),
    ):
        reward, padding = cases[name].load().reward, 49407 if network.__class__.__name__ == "CLIPModel" else 0
        expected = models.clip_tokens(prompt, by=by, padding=padding)
        assert torch.equal(tokenize([prompt], tokens=reward.tokens, padding=padding), expected)
        score = scale * models.cosine(network, prepare(picture, 32), prompt, by=by)
        assert reward(tensor(picture), [prompt]).item() == pytest.approx(score, abs=1e-4)


def test_the_libraries_read_the_first_odd_prompts_differently():
    for prompt in ODD_PROMPTS[:6]:
        first, second = (models.clip_tokens(prompt, by=by, padding=49407) for by in ("open_clip", "transformers"))
        assert not torch.equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_scores_as_its_pictures_do_alone(cases, name):
    reward = cases[name].load().reward
    batch = torch.rand(35, 32, 32, 3, generator=torch.Generator().manual_seed(1))
    prompts = [f"owl {index % 3}" for index in range(len(batch))]
    together = reward(batch, prompts)
    assert together.shape == (35,) and together.dtype is torch.float32
    alone = torch.cat([reward(batch[index : index + 1], [prompts[index]]) for index in (0, 17, 34)])
    torch.testing.assert_close(together[[0, 17, 34]], alone, atol=1e-4, rtol=0)
    assert reward(batch[:0], []).shape == (0,)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(32, 32), (45, 70)], ids=str)
def test_gradient_is_the_slope_of_finite_differences(cases, name, shape):
    """Along the gradient g: (f(x + εg/|g|) − f(x − εg/|g|)) / 2ε = |g|. Scaled pictures: of the smooth scaling."""
    with torch.inference_mode():
        reward = cases[name].load().reward
        reward(torch.rand(1, *shape, 3), ["an owl"])
    reward.prepare = dataclasses.replace(reward.prepare, eight_bit=False)
    image = torch.rand(1, *shape, 3, generator=torch.Generator().manual_seed(4)) * 0.3 + 0.35
    leaf = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(reward(leaf, ["an owl"]).sum(), leaf)
    slope = gradient.norm()
    step = 0.002 * gradient / slope
    with torch.no_grad():
        measured = (reward(image + step, ["an owl"]) - reward(image - step, ["an owl"])) / 0.004
    assert slope > 0.02
    assert measured.item() == pytest.approx(slope.item(), rel=0.02)
    assert not any(parameter.requires_grad for parameter in reward.network.parameters())


@pytest.mark.parametrize("name", ["openai", "hps", "aesthetic on half", "image reward"])
def test_cancel_is_asked_for_before_every_few_pictures(cases, name):
    reward, asked = cases[name].load().reward, []
    reward.between = lambda: asked.append(1)
    reward(torch.rand(40, 16, 16, 3), ["an owl"] * 40)
    assert len(asked) == (3 if name == "image reward" else 2)


@pytest.mark.parametrize("name", ["openai", "hps", "aesthetic on half", "aesthetic on open_clip"])
def test_image_features_with_and_without_gradients(cases, name):
    reward = cases[name].load().reward
    images = torch.rand(2, 45, 70, 3, requires_grad=True)
    features = reward.image_features(images)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    assert not features.requires_grad
    (slope,) = torch.autograd.grad(reward.image_features(images, with_gradients=True)[0, 0], images)
    assert slope[0].abs().max() > 0 and slope[1].abs().max() == 0
    with torch.no_grad():
        assert not reward.image_features(images, with_gradients=True).requires_grad


@pytest.mark.parametrize("name", ["openai", "laion", "hps", "aesthetic on half", "aesthetic on open_clip"])
def test_image_features_of_no_image_are_no_rows_of_the_same_width(cases, name):
    reward = cases[name].load().reward
    images = torch.rand(1, 32, 32, 3)
    empty = reward.image_features(images[:0])
    assert empty.shape == (0, reward.image_features(images).shape[1]) and empty.dtype is torch.float32
    assert reward.image_features(images[:0], with_gradients=True).shape == empty.shape


@pytest.mark.parametrize("name", ["pickscore", "hps", "aesthetic on half", "image reward"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_scores_nearly_the_same(cases, name, dtype):
    case = cases[name]
    reward = case.load(dtype=dtype)
    scale = LOGIT_SCALE if name == "pickscore" else 1
    assert scores_of(reward) == pytest.approx(case.expected, abs=0.05 * scale)
    assert reward.reward_id != case.load().reward_id
    halves = [parameter.dtype for parameter in reward.reward.network.parameters() if parameter.ndim]
    assert {torch.float16: "fp16", torch.bfloat16: "bf16"}[halves[0]] == dtype


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_leaves_the_logit_scale_as_it_is(cases, tmp_path, dtype):
    """log 100 in bf16 is that of 98.9."""
    from safetensors.torch import load_file

    weights = load_file(cases["pickscore"].path) | {"logit_scale": torch.tensor(100.0).log()}
    for tensors in (
        weights,
        models.to_open_clip(models.transformers_clip("gelu")) | {"logit_scale": torch.tensor(100.0).log()},
    ):
        file = models.save(tmp_path / "model.safetensors", tensors)
        network = load_reward(file, "cpu", dtype=dtype, model_type=PICKSCORE).reward.network
        assert network.logit_scale.double().exp().item() == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize("name", ["pickscore", "laion", "aesthetic on half", "image reward"])
def test_weights_are_copies_that_outlive_the_file(cases, name, tmp_path):
    case = cases[name]
    copy = tmp_path / case.path.name
    copy.write_bytes(case.path.read_bytes())
    models.write_vocabulary(tmp_path / "bert-base-uncased")
    reward = load_reward(copy, "cpu", model_type=case.model_type, companions=case.companions)
    with open(copy, "r+b") as file:
        file.write(bytes(copy.stat().st_size))
    check(reward, case.expected)


# ---- identity ----


def test_identity_covers_how_the_weights_are_used(cases):
    """The same weights in another role, or with another file beside them, are another reward."""
    pick, aesthetic = cases["pickscore"], cases["aesthetic on half"]
    ids = [cases[name].load().reward_id for name in NAMES if name != "hps 2.0"]
    ids.append(pick.load(model_type=LAION).reward_id)
    ids.append(pick.load(model_type=HPS_2_1).reward_id)
    assert len(set(ids)) == len(ids)
    # Versions 2.0 and 2.1 differ in their weights, not in what is done with them.
    assert cases["hps 2.0"].load().reward_id == cases["hps"].load().reward_id
    assert cases["aesthetic on whole"].load().reward_id != aesthetic.load().reward_id


@pytest.mark.parametrize("name", ["pickscore", "aesthetic on half", "image reward", "demo"])
def test_identity_covers_the_version_of_the_scoring(cases, name, monkeypatch):
    """Scores are kept on the disk under it; a program that scores otherwise must not find the old ones."""
    load = (lambda: load_reward(DEMO, "cpu")) if name == "demo" else cases[name].load
    before = load().reward_id
    monkeypatch.setattr("attune.nodes.rewards.load.SCORING_VERSION", SCORING_VERSION + 1)
    assert load().reward_id != before


@pytest.mark.parametrize(
    ("module", "make"),
    [
        (statistics, lambda reward: StatisticReward()),
        (ocr, lambda reward: ocr.TextInImageReward()),
        (dialogue, lambda reward: dialogue.DiversityReward(reward)),
        (dialogue, lambda reward: dialogue.RelevanceReward(reward)),
        (safety, lambda reward: safety.UnsafeProbability()),
        (safety, lambda reward: safety.SafetyReward(reward)),
        (combine, lambda reward: combine.CombinedReward([reward] * 2, combine.CombineConfig(scale="raw scores"))),
    ],
)
def test_every_identity_covers_the_version_of_its_program(module, make, monkeypatch):
    reward = load_reward(DEMO, "cpu")
    before = make(reward).reward_id
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    assert make(reward).reward_id != before


def test_fingerprint_follows_the_files_that_belong_to_a_reward(cases, tmp_path):
    names = ("aesthetic on half", "aesthetic on whole")
    first, second = (fingerprint(cases[name].path, cases[name].companions) for name in names)
    assert first != second
    path = tmp_path / "reward.pt"
    path.write_bytes(cases["image reward"].path.read_bytes())
    before = fingerprint(path, Companions())
    assert before == fingerprint(path, Companions(candidates=(cases["openai"].path,)))
    models.write_vocabulary(tmp_path / "bert-base-uncased")
    with_words = fingerprint(path, Companions())
    assert with_words != before
    (tmp_path / "config.json").write_text("{}")
    assert fingerprint(path, Companions()) != with_words


# ---- what a file is taken for ----


def shapes_of(library: str, name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a whole public network, without its weights."""
    with torch.device("meta"):
        if library == "open_clip":
            import open_clip

            network = open_clip.CLIP(**open_clip.get_model_config(name))
        else:
            from transformers import CLIPConfig, CLIPModel

            large = {"ViT-L-14": (1024, 24, 768, 12, 768), "ViT-H-14": (1280, 32, 1024, 24, 1024)}[name]
            text = {"hidden_size": large[2], "intermediate_size": 4 * large[2], "num_hidden_layers": large[3],
                    "num_attention_heads": large[2] // 64}  # fmt: skip
            vision = {"hidden_size": large[0], "intermediate_size": 4 * large[0], "num_hidden_layers": large[1],
                      "num_attention_heads": 16, "patch_size": 14}  # fmt: skip
            network = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=large[4]))
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def beside(folder: Path, activation: str, **vision: object) -> None:
    """A config.json in the form that transformers writes."""
    content = {"model_type": "clip", "text_config": {"hidden_act": activation}}
    content["vision_config"] = {"hidden_act": activation} | vision
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("library", "size", "file", "nested", "model", "name"),
    [
        ("transformers", "ViT-L-14", "a.safetensors", False, OPENAI, "CLIPScore ViT-L/14 (QuickGELU)"),
        ("open_clip", "ViT-L-14", "a.safetensors", False, OPENAI, "CLIPScore ViT-L/14 (QuickGELU)"),
        ("transformers", "ViT-H-14", "a.safetensors", False, PICKSCORE, TAKEN_FOR_PICKSCORE),
        ("transformers", "ViT-H-14", "CLIP-ViT-H-14-laion2B-s32B-b79K/model.safetensors", False, PICKSCORE,
         TAKEN_FOR_PICKSCORE),
        ("transformers", "ViT-H-14", "PickScore_v1/model.safetensors", False, PICKSCORE, PICKSCORE),
        ("transformers", "ViT-H-14", "pickscore_v1.safetensors", False, PICKSCORE, PICKSCORE),
        ("open_clip", "ViT-H-14", "a.bin", False, LAION, "CLIPScore ViT-H/14 (GELU)"),
        ("open_clip", "ViT-H-14", "HPS_v2.1_compressed.bin", False, LAION,
         "CLIPScore ViT-H/14 (GELU) (HPS v2.1? Set model_type to HPS v2.1)"),
        ("transformers", "ViT-H-14", "HPS_v2.1_compressed.safetensors", False, PICKSCORE,
         "ViT-H/14 scored as PickScore (HPS v2.1? Set model_type to HPS v2.1)"),
        ("open_clip", "ViT-H-14", "ImageReward.pt", False, LAION, "CLIPScore ViT-H/14 (GELU)"),
        ("open_clip", "ViT-H-14", "ViT-L-14.pt", True, HPS_2_1, "HPS v2 (version not known)"),
        ("open_clip", "ViT-H-14", "a.pt", True, HPS_2_1, "HPS v2 (version not known)"),
        ("open_clip", "ViT-H-14", "PickScore_v1.pt", True, HPS_2_1,
         "HPS v2 (version not known) (PickScore v1? Set model_type to PickScore v1)"),
        ("open_clip", "ViT-H-14", "HPS_v2.1_compressed.pt", True, HPS_2_1, HPS_2_1),
        ("open_clip", "ViT-H-14", "HPS_v2_compressed.pt", True, HPS_2_1, HPS_2_0),
        ("open_clip", "ViT-H-14", "HPS_v2_1.pt", True, HPS_2_1, HPS_2_0),
    ],
)  # fmt: skip
def test_auto_decides_by_the_content_and_the_name_claims_no_more(
    tmp_path, caplog, library, size, file, nested, model, name
):
    path = tmp_path / file
    with caplog.at_level(logging.WARNING, logger="attune"):
        decision = decide(shapes_of(library, size), path, nested=nested)
    assert (decision.model.name, decision.name) == (model, name)
    published = published_as(path)
    disagrees = published is not None and published.key != decision.model.key
    assert [record.getMessage().startswith(f"Attune: {path.name} has the name of ") for record in caplog.records] == (
        [True] if disagrees else []
    )


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"])
def test_shapes_give_back_the_configuration_of_every_public_size(name):
    import open_clip

    shapes, config = shapes_of("open_clip", name), open_clip.get_model_config(name)
    found = open_clip_config(*(tower(shapes, "open_clip", name) for tower in (picture_tower, text_tower)), "gelu")
    assert found["embed_dim"] == config["embed_dim"] and not found["quick_gelu"]
    for part in ("vision_cfg", "text_cfg"):
        mlp_ratio = config[part].pop("mlp_ratio", 4.0)
        assert int(found[part].pop("mlp_ratio") * config[part]["width"]) == int(mlp_ratio * config[part]["width"])
        assert found[part] == ({"head_width": 64} if part == "vision_cfg" else {}) | config[part]


@pytest.mark.parametrize(("width", "heads"), [(64, 1), (768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)])
def test_heads_of_a_picture_network(width, heads):
    assert heads_of(width, "x", picture=True) == heads


@pytest.mark.parametrize(("width", "picture"), [(96, True), (1344, True), (1792, True), (100, False)])
def test_heads_that_cannot_be_told_are_refused(width, picture):
    with pytest.raises(RewardError, match=f"x: the number of attention heads.*width {width}.*config.json"):
        heads_of(width, "x", picture=picture)


def test_a_configuration_beside_the_file_takes_precedence(cases, tmp_path):
    """Four heads of 32 numbers, which no shape tells, and the activation."""
    from transformers import CLIPConfig, CLIPModel

    config = models.transformers_clip("quick_gelu").config.to_dict()
    config["vision_config"]["num_attention_heads"] = 4
    network = models.shake(CLIPModel(CLIPConfig.from_dict(config)))
    network.logit_scale.data.fill_(4.6)
    file = models.save(tmp_path / "model.safetensors", network.state_dict())
    plain = load_reward(file, "cpu", model_type=OPENAI)
    (tmp_path / "config.json").write_text(json.dumps(config))
    reward = load_reward(file, "cpu")
    assert reward.name == "CLIPScore ViT of width 128/8 (QuickGELU)"
    check(reward, clip_scores(network, models.crop))
    assert scores_of(plain) != pytest.approx(scores_of(reward), abs=1e-4)
    assert plain.reward_id != reward.reward_id
    beside(tmp_path, "gelu")
    assert decide(shapes_of("transformers", "ViT-L-14"), file).model.name == LAION
    assert decide(shapes_of("transformers", "ViT-H-14"), file).model.name == PICKSCORE
    beside(tmp_path, "quick_gelu")
    assert decide(shapes_of("transformers", "ViT-H-14"), file).model.name == OPENAI


def test_a_configuration_of_something_else_is_left_alone(cases, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(cases["openai"].path.read_bytes())
    for content in (
        "{not json",
        "[]",
        '{"model_type": "bert"}',
        '{"model_type": "siglip", "text_config": {}, "vision_config": {}}',
    ):
        (tmp_path / "config.json").write_text(content)
        check(load_reward(file, "cpu", model_type=OPENAI), cases["openai"].expected)


def test_a_configuration_that_contradicts_is_refused(cases, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(cases["openai"].path.read_bytes())
    beside(tmp_path, "gelu")
    with pytest.raises(RewardError, match=r"(?s)config.json.*'gelu'.*CLIPScore \(OpenAI.*'quick_gelu'"):
        load_reward(file, "cpu", model_type=OPENAI)
    beside(tmp_path, "swish")
    with pytest.raises(RewardError, match="hidden_act swish"):
        load_reward(file, "cpu")


def written(folder: Path, text: dict[str, object], vision: dict[str, object], **top: object) -> None:
    """A whole config.json of the tiny CLIP of the tests, with changes; null takes a part away."""
    content = models.transformers_clip("quick_gelu").config.to_dict() | top
    content["text_config"] = text if text is None or isinstance(text, list) else content["text_config"] | text
    content["vision_config"] = content["vision_config"] | vision
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("text", "vision", "top", "says"),
    [
        ({}, {"hidden_size": 64}, {}, "vision_config.hidden_size 64, and the tensors have 128"),
        ({}, {"hidden_size": "big"}, {}, "vision_config.hidden_size 'big', and the tensors have 128"),
        ({}, {"num_attention_heads": 3}, {}, "vision_config.num_attention_heads 3, which does not divide the width"),
        ({}, {"num_attention_heads": [2]}, {}, r"num_attention_heads \[2\]"),
        ({}, {"num_attention_heads": True}, {}, "num_attention_heads True"),
        ({}, {"patch_size": 16}, {}, "vision_config.patch_size 16, and the tensors have 8"),
        ({}, {"image_size": 224}, {}, "vision_config.image_size 224, and the tensors have 32"),
        ({"num_hidden_layers": 12}, {}, {}, "text_config.num_hidden_layers 12, and the tensors have 2"),
        ({"vocab_size": 30522}, {}, {}, "text_config.vocab_size 30522"),
        ({"layer_norm_eps": -1}, {}, {}, "text_config.layer_norm_eps -1"),
        ({}, {}, {"projection_dim": 768}, "projection_dim 768, and the tensors have 32"),
        ([1], {}, {}, ""),
    ],
)  # fmt: skip
def test_a_configuration_that_the_tensors_contradict_is_not_used(cases, tmp_path, caplog, text, vision, top, says):
    """Not even its activation: the scores and the identity are those of the file alone."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(cases["openai"].path.read_bytes())
    written(tmp_path, text, vision | {"hidden_act": "gelu"}, **top)
    with caplog.at_level(logging.WARNING, logger="attune"):
        reward = load_reward(file, "cpu", model_type=OPENAI)
    check(reward, cases["openai"].expected)
    assert reward.reward_id == cases["openai"].load().reward_id
    logged = " ".join(record.getMessage() for record in caplog.records)
    assert re.search(rf"config.json beside model.safetensors is not used, since .*{says}" if says else "^$", logged)


def test_a_configuration_of_another_size_does_not_decide(tmp_path):
    """CLIP ViT-L's beside a PickScore."""
    beside(tmp_path, "quick_gelu", hidden_size=1024, num_attention_heads=16, num_hidden_layers=24)
    decision = decide(shapes_of("transformers", "ViT-H-14"), tmp_path / "PickScore_v1.safetensors")
    assert (decision.name, decision.picture.heads) == (PICKSCORE, 16)


def test_a_configuration_states_the_smallest_variance(cases, tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(cases["openai"].path.read_bytes())
    written(tmp_path, {"layer_norm_eps": 0.1}, {"layer_norm_eps": 0.2})
    network = load_reward(file, "cpu", model_type=OPENAI).reward.network
    assert {layer.eps for layer in network.text_model.modules() if isinstance(layer, torch.nn.LayerNorm)} == {0.1}
    assert {layer.eps for layer in network.vision_model.modules() if isinstance(layer, torch.nn.LayerNorm)} == {0.2}


def test_a_size_that_tells_nothing_must_be_chosen(cases):
    for name in ("openai", "laion", "hps"):
        with pytest.raises(RewardError, match=r"(?s)width 128.*do not tell which reward.*Choose its model_type"):
            cases[name].load(model_type="auto")


@pytest.mark.parametrize(
    ("library", "size", "chosen", "says"),
    [
        ("transformers", "ViT-L-14", PICKSCORE, "ViT-L/14.*PickScore v1 is a ViT-H"),
        ("open_clip", "ViT-L-14", HPS_2_1, "ViT-L/14.*HPS v2.1 is a ViT-H"),
        ("open_clip", "ViT-H-14", OPENAI, r"ViT-H/14.*CLIPScore \(OpenAI, QuickGELU\) is a ViT-B or ViT-L"),
        ("open_clip", "ViT-H-14", IMAGE_REWARD, "layout of open_clip.*model_type is 'ImageReward'"),
        ("transformers", "ViT-L-14", AESTHETIC, "layout of transformers.*model_type is 'LAION aesthetic v2'"),
    ],
)
def test_a_type_that_contradicts_the_content_is_an_error_that_says_both(tmp_path, library, size, chosen, says):
    with pytest.raises(RewardError, match=f"(?s)a.pt.*{says}.*Set model_type to auto"):
        decide(shapes_of(library, size), tmp_path / "a.pt", model_type=chosen)


def test_types_that_contradict_the_other_forms(cases):
    with pytest.raises(RewardError, match=r"an ImageReward model.*'HPS v2.0'"):
        cases["image reward"].load(model_type=HPS_2_0)
    with pytest.raises(RewardError, match=r"aesthetic predictor.*'PickScore v1'"):
        cases["aesthetic on half"].load(model_type=PICKSCORE)
    with pytest.raises(RewardError, match="no model_type 'Clip'; choose one of: auto, CLIPScore"):
        cases["openai"].load(model_type="Clip")


def test_files_that_describe_themselves_take_no_type():
    with pytest.raises(RewardError, match=r"describes itself.*'PickScore v1'"):
        load_reward(DEMO, "cpu", model_type=PICKSCORE)


# ---- files that cannot be loaded ----


def without(case: Case, folder: Path, *keys: str, **extra: torch.Tensor) -> Path:
    """A copy of a case's file with fewer or more tensors."""
    from safetensors.torch import load_file

    if case.path.suffix == ".safetensors":
        tensors = load_file(case.path)
    else:
        tensors = torch.load(case.path, weights_only=True)
        tensors = tensors.get("state_dict", tensors)
    tensors = {key: value for key, value in tensors.items() if not any(part in key for part in keys)}
    return models.save(folder / case.path.name, tensors | extra)


@pytest.mark.parametrize(
    ("name", "key", "says"),
    [
        ("openai", "visual_projection.weight", "visual_projection.weight, of 2 dimensions, is missing"),
        ("openai", "text_model", "picture half of a CLIP only.*text_model"),
        ("openai", "vision_model.encoder.layers.1.mlp.fc2.bias", "missing .*layers.1.mlp.fc2.bias"),
        ("laion", "logit_scale", "1 missing .logit_scale"),
        ("laion", "token_embedding.weight", "token_embedding.weight"),
        ("aesthetic on half", "layers.4.weight", "lacks the matrix layers.4.weight"),
        ("aesthetic on half", "layers.7.bias", "missing .layers.7.bias"),
        ("image reward", "mlp.layers.7.weight", "lacks the matrix layers.7.weight"),
        ("image reward", "blocks.1.attn.qkv.bias", "missing .encoder.layers.1.self_attn.qkv.bias"),
        ("image reward", "crossattention", "crossattention.self.key.weight.*is missing"),
        ("image reward", "visual_encoder.pos_embed", "embeddings.position_embedding.*is missing.*ImageReward.pt"),
    ],
)
def test_missing_tensors_are_named(cases, tmp_path, name, key, says):
    case = cases[name]
    models.write_vocabulary(tmp_path / "bert-base-uncased")
    with pytest.raises(RewardError, match=f"(?s){case.path.stem.replace('+', '.')}.*{says}"):
        load_reward(without(case, tmp_path, key), "cpu", model_type=case.model_type, companions=case.companions)


UNUSABLE = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "without values": lambda tensor: tensor.to("meta"),
    "qint8": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    "complex64": lambda tensor: tensor.to(torch.complex64),
    "int8": lambda tensor: (100 * tensor).to(torch.int8),
    "bool": lambda tensor: tensor > 0,
}


@pytest.mark.parametrize("kind", UNUSABLE)
@pytest.mark.parametrize("nested", [False, True])
def test_tensors_that_are_no_plain_numbers_are_named(tmp_path, kind, nested):
    weights = models.open_clip_clip(False).state_dict()
    key = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of what it will no longer quantise
        weights[key] = UNUSABLE[kind](weights[key])
        torch.save({"state_dict": weights} if nested else weights, tmp_path / "a.pt")
        with pytest.raises(RewardError, match=rf"a\.pt: the tensor {key} is .*{kind}.*fractions are needed"):
            load_reward(tmp_path / "a.pt", "cpu", model_type=LAION)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("openai", "vision_model.encoder.layers.0.layer_scale"),
        ("laion", "visual.ln_extra.weight"),
        ("aesthetic on half", "layers.5.weight"),
        ("image reward", "blip.visual_encoder.blocks.0.gamma"),
        ("image reward", "blip.text_encoder.pooler.dense.bias"),
    ],
)
def test_tensors_too_many_are_named_where_they_would_change_the_score(cases, tmp_path, name, key):
    case = cases[name]
    models.write_vocabulary(tmp_path / "bert-base-uncased")
    file = without(case, tmp_path, **{key: torch.zeros(3)})
    with pytest.raises(RewardError, match="1 unexpected"):
        load_reward(file, "cpu", model_type=case.model_type, companions=case.companions)


def test_what_is_not_used_and_what_to_expect_is_in_the_log(cases, caplog):
    with caplog.at_level(logging.INFO, "attune"):
        cases["image reward"].load()
    assert "is loaded as ImageReward; most scores lie between -2.3 and 2." in caplog.text
    assert "2 tensors that are not used: blip.vision_proj.weight, blip.text_proj.bias" in caplog.text


@pytest.mark.parametrize("name", ["openai", "laion", "hps", "image reward", "aesthetic on half"])
def test_truncated_files_are_refused(cases, tmp_path, name):
    case = cases[name]
    content = case.path.read_bytes()
    copy = tmp_path / case.path.name
    for part in (len(content) // 2, 100, 0):
        copy.write_bytes(content[:part])
        with pytest.raises(
            RewardError, match=f"(?s){case.path.stem.replace('+', '.')}.*[Gg]et the file again|safetensors file"
        ):
            load_reward(copy, "cpu", model_type=case.model_type, companions=case.companions)


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"visual.layer1.0.conv1.weight": (4, 4, 1, 1), "visual.conv1.weight": (4, 3, 3, 3)}, "ResNet"),
        ({"vision_model.embeddings.patch_embedding.weight": (64, 3, 16, 16), "vision_model.head.probe": (1, 1, 64),
          "vision_model.embeddings.position_embedding.weight": (16, 64)}, "class_embedding.*is missing"),
        ({"visual.blocks.0.attn.qkv.weight": (4, 4)}, "visual.conv1.weight.*is missing"),
        ({"text.transformer.x": (1,), "logit_scale": ()}, "text network of its own kind"),
        ({"layers.0.weight": (1,)}, "layers.0.weight is no matrix"),
        ({"layers.0.weight": (8, 32), "layers.3.weight": (4, 8)}, "lacks the matrix layers.2.weight"),
    ],
)  # fmt: skip
def test_relatives_are_refused_by_name(cases, tmp_path, tensors, says):
    file = models.save(tmp_path / "relative.safetensors", {key: torch.zeros(shape) for key, shape in tensors.items()})
    with pytest.raises(RewardError, match=f"(?s)relative.*{says}"):
        load_reward(file, "cpu", companions=Companions(candidates=(cases["openai"].path,)))


def test_a_head_whose_layers_do_not_fit_is_refused(cases, tmp_path):
    weights = models.head(32) | {"layers.2.weight": torch.zeros(128, 1000)}
    file = models.save(tmp_path / "head.pth", weights)
    with pytest.raises(RewardError, match="layers of the head do not fit each other"):
        load_reward(file, "cpu", companions=cases["aesthetic on half"].companions)


def test_a_long_clip_is_refused(cases, tmp_path):
    file = without(cases["openai"], tmp_path, "text_model.embeddings.position_embedding",
                   **{"text_model.embeddings.position_embedding.weight": torch.zeros(248, 64)})  # fmt: skip
    with pytest.raises(RewardError, match="49408 tokens and reads 248 at once"):
        load_reward(file, "cpu", model_type=OPENAI)


# How OpenAI's file was made is out of use, and still what is in people's folders.
@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_openais_own_archive_is_a_program_and_not_opened(tmp_path):
    class Half(torch.nn.Module):
        def forward(self, x):
            return x / 2

    torch.jit.trace(Half(), torch.ones(1)).save(tmp_path / "ViT-L-14.pt")
    with pytest.raises(RewardError, match=r"ViT-L-14.pt is a TorchScript.*openai/clip-vit-large-patch14"):
        load_reward(tmp_path / "ViT-L-14.pt", "cpu")


# ---- files that are needed besides ----


def test_the_aesthetic_predictor_says_which_clip_it_took_or_which_it_needs(cases, tmp_path):
    case = cases["aesthetic on half"]
    assert case.load().name == "LAION aesthetic v2 (on half.safetensors)"
    renamed = tmp_path / "mine.pth"
    renamed.write_bytes(case.path.read_bytes())
    assert load_reward(renamed, "cpu", companions=case.companions).name == "aesthetic predictor (on half.safetensors)"
    with pytest.raises(RewardError) as caught:
        load_reward(renamed, "cpu")
    for words in ("mine.pth", "openai/clip-vit-large-patch14", "clip-vit-large-patch14.safetensors",
                  "models/clip_vision", str(tmp_path), "clip_name"):  # fmt: skip
        assert words in str(caught.value)
    (tmp_path / "clip.safetensors").write_bytes(cases["aesthetic on whole"].companions.candidates[-1].read_bytes())
    assert load_reward(renamed, "cpu").name == "aesthetic predictor (on clip.safetensors)"


def test_a_chosen_clip_is_taken_or_refused(cases):
    case = cases["aesthetic on half"]
    chosen = Companions(clip=cases["openai in open_clip's layout"].path)
    assert case.load(companions=chosen).name.endswith("(on open_clip_model.safetensors)")
    with pytest.raises(RewardError, match=r"ImageReward.pt does not hold a CLIP picture network with 32"):
        case.load(companions=Companions(clip=cases["image reward"].path))


def test_the_clip_of_768_features_is_a_vit_l_of_patch_14():
    from attune.nodes.rewards.aesthetic import fits

    for library in ("transformers", "open_clip"):
        assert fits(shapes_of(library, "ViT-L-14"), 768)
        assert not fits(shapes_of(library, "ViT-H-14"), 768)
    assert not fits(shapes_of("open_clip", "ViT-L-14-336"), 768)
    assert not fits({}, 768)


def test_image_reward_says_which_word_list_it_needs(cases, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    file = tmp_path / "ImageReward.pt"
    file.write_bytes(cases["image reward"].path.read_bytes())
    with pytest.raises(RewardError) as caught:
        load_reward(file, "cpu")
    for words in ("vocab.txt", "google-bert/bert-base-uncased", str(tmp_path / "bert-base-uncased")):
        assert words in str(caught.value)
    elsewhere = tmp_path / "elsewhere"
    models.write_vocabulary(elsewhere / "bert-base-uncased")
    check(load_reward(file, "cpu", companions=Companions(folders=(elsewhere,))), cases["image reward"].expected)
    models.write_vocabulary(tmp_path, 30)
    with pytest.raises(RewardError, match=r"vocab.txt has 30 words.*trained with 14"):
        load_reward(file, "cpu")
    models.write_vocabulary(tmp_path)
    check(load_reward(file, "cpu"), cases["image reward"].expected)
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "bert-base-uncased" / "tokenizer.json").write_text("{")
    with pytest.raises(RewardError, match=r"tokenizer.json is no word list"):
        load_reward(file, "cpu")


def test_a_tokenizer_file_serves_as_well_as_a_word_list(cases, tmp_path):
    from transformers import BertTokenizerFast

    file = tmp_path / "ImageReward.pt"
    file.write_bytes(cases["image reward"].path.read_bytes())
    vocabulary = cases["image reward"].path.parent / "bert-base-uncased" / "vocab.txt"
    BertTokenizerFast(str(vocabulary)).save_pretrained(tmp_path / "bert-base-uncased")
    (tmp_path / "bert-base-uncased" / "vocab.txt").unlink(missing_ok=True)
    check(load_reward(file, "cpu"), cases["image reward"].expected)


def test_words_are_cut_and_padded_as_image_rewards_own_program_does(cases):
    from attune.nodes.rewards.image_reward import tokenize

    vocabulary = cases["image reward"].path.parent / "bert-base-uncased" / "vocab.txt"
    prompts = ["An  OWL, café!", "", "owl " * 50, "[SEP] owls 東京 [ENC]"]
    found = tokenize(cases["image reward"].load().reward.tokenizer, prompts)
    for values, expected in zip(found, models.bert_tokens(vocabulary, prompts), strict=True):
        assert torch.equal(values, expected)
    assert found[0].shape == (4, 35) and int(found[1][1].sum()) == 2


def test_half_a_character_is_read_as_an_unknown_one(cases):
    prompts = ["an \ud83d owl", "owl\udc00", "an \ud83e\udd8a"]
    for name in ("pickscore", "openai", "hps", "image reward"):
        found, expected = (
            cases[name].load().reward(tensor(PICTURES[0]).expand(3, -1, -1, -1), words)
            for words in (prompts, ["an \ufffd owl", "owl\ufffd", "an 🦊"])
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("HPS_v2.1_compressed.pt", "HPS v2.1 is HPS_v2.1_compressed.pt from xswu/HPSv2"),
        ("PickScore_v1/model.safetensors", "PickScore v1 is model.safetensors from yuvalkirstain/PickScore_v1"),
        ("ImageReward.pt", "THUDM/ImageReward"),
        ("sac+logos+ava1-l14-linearMSE.pth", "christophschuhmann/improved-aesthetic-predictor"),
        ("clip-vit-large-patch14.safetensors", "openai/clip-vit-large-patch14"),
        ("CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors", "Then set model_type to 'CLIPScore (LAION, GELU)', since auto"),
        ("mine.pt", "The help page of Load Reward Model has a table"),
    ],
)
def test_a_missing_file_of_a_known_name_says_where_to_get_it(tmp_path, name, source):
    assert where_to_get(name) == "" if name == "mine.pt" else source in where_to_get(name)
    with pytest.raises(RewardError) as caught:
        load_reward(tmp_path / name)
    assert source in str(caught.value) and "Put the file there" in str(caught.value)


def test_every_type_is_documented():
    text = (Path(__file__).parents[2] / "js" / "docs" / "AttuneLoadReward.md").read_text(encoding="utf-8")
    for model in MODELS:
        file, project = model.source.split(" from ")
        low, high = model.typical
        assert model.name in text and file in text and project.split(" ")[0] in text
        assert f"{low} … {high}".replace("-", "−") in text
    assert len(MODEL_TYPES) == len(set(MODEL_TYPES)) == 8


# ---- full size ----


def test_full_size_clip_aesthetic_and_image_reward(tmp_path):
    """ViT-L/14 with its predictor, and ImageReward: 0.9 billion numbers, whose every shape is the real one.

    In half precision, which keeps the disk half as busy; the arithmetic is in 32 bits.
    """
    picture = pictures((300, 500))[0]
    network = models.transformers_clip("quick_gelu", size=models.VIT_L).half()
    clip = models.save(tmp_path / "clip-vit-large-patch14.safetensors", network.state_dict())
    network.float()
    weights = models.head(768)
    predictor = models.save(tmp_path / "sac+logos+ava1-l14-linearMSE.pth", weights)
    pixels = models.crop(picture, 224)
    expected = models.cosine(network, pixels, PROMPTS[0])
    liked = models.through_head(models.image_features(network, pixels), weights).item()
    del network
    reward = load_reward(clip, "cpu")
    assert reward.name == "CLIPScore (OpenAI, QuickGELU)"
    assert reward(tensor(picture), PROMPTS[:1]).item() == pytest.approx(expected, abs=1e-4)
    del reward
    reward = load_reward(predictor, "cpu")
    assert reward.name == "LAION aesthetic v2 (on clip-vit-large-patch14.safetensors)"
    assert reward(tensor(picture), [""]).item() == pytest.approx(liked, abs=1e-4)
    del reward
    clip.unlink()

    weights = models.blip(vision=1024, text=768, layers=(24, 12), edge=224, words=30522)
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    file = models.save(tmp_path / "ImageReward.pt", halves)
    weights = {key: value.to(weights[key].dtype) for key, value in halves.items()}
    del halves
    vocabulary = models.write_vocabulary(tmp_path / "bert-base-uncased", 30522)
    expected = models.blip_score(weights, pixels, *models.bert_tokens(vocabulary, PROMPTS[:1])).item()
    del weights
    reward = load_reward(file, "cpu")
    file.unlink()
    assert reward(tensor(picture), PROMPTS[:1]).item() == pytest.approx(expected, abs=1e-4)
