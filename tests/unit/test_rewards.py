"""Rewards without a host: networks against the library itself, statistics against closed forms, cache, order, chart."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from attune.nodes.fonts import font_name, load_font, shorten
from attune.nodes.picture_hashes import content_hash
from attune.nodes.rewards import CachedReward, StatisticReward, bar_chart, load_reward, score_table
from attune.nodes.rewards import chart as chart_module
from attune.nodes.rewards.cache import ScoreStore
from attune.nodes.rewards.clip_tokens import tokenize
from attune.nodes.rewards.files import listed_name, offered
from attune.nodes.rewards.load import describes_reward
from attune.nodes.rewards.pictures import fit_square, split_prompts, to_rgb, unbatch
from attune.nodes.rewards.scoring import significant
from attune.nodes.rewards.statistics import MEASURES
from attune.training.digests import file_digest
from attune.training.interfaces import Reward, RewardContext, RewardError
from attune.training.vlm_base import is_vision_language

MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]
PROMPTS = ["a red mushroom", "an owl, 3d style, on a blue background", ""]

HF = {
    "text_config": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
    },
    "vision_config": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 8,
    },
    "projection_dim": 32,
}  # fmt: skip
OPEN_CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "image_size": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
CONFIGS = {"clip-hf": HF, "clip-open_clip": OPEN_CLIP}


def build(kind: str) -> torch.nn.Module:
    """A small network of that library with random weights, in eval mode."""
    torch.manual_seed(0)
    if kind == "clip-hf":
        from transformers import CLIPConfig, CLIPModel

        return CLIPModel(CLIPConfig.from_dict(HF)).eval()
    import open_clip

    network = open_clip.CLIP(**OPEN_CLIP)
    for name, buffer in network.named_buffers():
        # Fresh statistics hardly differ between training and evaluation mode; these do.
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.2)
    return network.eval()


def header(kind: str, /, **changes: object) -> str:
    content = {"kind": kind, "name": f"Tiny {kind}", "image_size": 64, "mean": MEAN, "std": STD}
    return json.dumps(content | {"config": CONFIGS[kind], "recipe": {"seed": 1}} | changes)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One reward file per kind."""
    folder = tmp_path_factory.mktemp("rewards")
    for kind in CONFIGS:
        save_file(build(kind).state_dict(), folder / f"{kind}.safetensors", {"attune.reward": header(kind)})
    return {kind: folder / f"{kind}.safetensors" for kind in CONFIGS}


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(5))


class Counting:
    """The mean brightness as a reward that counts the pictures it was given."""

    name = "Counting"
    reward_id = "counting"
    differentiable = True
    higher_is_better = True

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images, prompts, context=None):
        self.seen += len(images)
        return images.flatten(1).mean(1)


def direct(kind: str, images: torch.Tensor) -> torch.Tensor:
    """Cosines by the library's own forward pass, written without any code of the pack."""
    import open_clip

    network = build(kind)
    pixels = (images.movedim(-1, 1) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    tokens = open_clip.tokenize(PROMPTS)
    with torch.no_grad():
        if kind == "clip-hf":
            tokens = tokens.masked_fill(tokens == 0, 49407)
            tokens[:, 0] = 49406
            output = network(input_ids=tokens, pixel_values=pixels)
            return output.logits_per_image.diagonal() / network.logit_scale.exp()
        vision, text = network.encode_image(pixels), network.encode_text(tokens)
        return F.cosine_similarity(vision, text)


@pytest.mark.parametrize("kind", CONFIGS)
def test_score_equals_the_library(files, images, kind):
    reward = load_reward(files[kind])
    assert isinstance(reward, Reward)
    scores = reward(images, PROMPTS)
    assert scores.dtype is torch.float32
    assert scores.std() > 1e-3
    torch.testing.assert_close(scores, direct(kind, images), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_image_features_are_the_ones_that_are_scored(files, images, kind):
    """A score is the dot product of the picture's features with those of its prompt."""
    reward = load_reward(files[kind], "cpu").reward
    features = reward.image_features(images)
    assert features.shape[0] == len(images) and not features.requires_grad
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(images)))
    texts = reward._text_features(["a cat"] * len(images), torch.device("cpu"))
    torch.testing.assert_close((features * texts).sum(1), reward(images, ["a cat"] * len(images)))


@pytest.mark.parametrize("kind", CONFIGS)
def test_half_precision_file_scores_nearly_the_same(files, images, kind, tmp_path):
    half = {k: v.half() if v.is_floating_point() else v for k, v in build(kind).state_dict().items()}
    save_file(half, tmp_path / "half.safetensors", {"attune.reward": header(kind)})
    scores = load_reward(tmp_path / "half.safetensors")(images, PROMPTS)
    torch.testing.assert_close(scores, direct(kind, images), atol=5e-3, rtol=0)


def test_many_images_in_parts_equal_one_by_one(files):
    images = torch.rand(70, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    prompts = [f"number {index % 40}" for index in range(70)]
    reward = load_reward(files["clip-hf"]).reward
    alone = torch.cat([reward(images[i : i + 1], prompts[i : i + 1]) for i in (0, 33, 69)])
    torch.testing.assert_close(reward(images, prompts)[[0, 33, 69]], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["clip-hf", "clip-open_clip"])
def test_all_pairs_at_once_are_the_scores_of_the_pairs(files, images, kind):
    reward = load_reward(files[kind]).reward
    table = reward.similarities(images, PROMPTS)
    for column, prompt in enumerate(PROMPTS):
        assert torch.allclose(table[:, column], reward(images, [prompt] * len(images)), atol=1e-6)
    images = images.clone().requires_grad_()
    reward.similarities(images, PROMPTS).sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_long_prompt_is_cut_not_refused(files, images):
    reward = load_reward(files["clip-hf"])
    long = "owl " * 200
    torch.testing.assert_close(reward(images[:1], [long]), reward(images[:1], ["owl " * 75]))


@pytest.mark.parametrize("kind", CONFIGS)
def test_gradient_climbs_the_score_even_if_loaded_and_used_in_inference_mode(files, images, kind):
    """The host runs nodes in inference mode; a later training run differentiates through the same reward."""
    with torch.inference_mode():
        reward = load_reward(files[kind])
        reward(images.clone(), PROMPTS)
    assert reward.differentiable
    pixels = images.clone().requires_grad_(True)
    before = reward(pixels, PROMPTS)
    (slope,) = torch.autograd.grad(before.sum(), pixels)
    after = reward(images + 1e-3 * slope / slope.std(), PROMPTS)
    assert (after > before).all()
    assert not any(p.requires_grad for p in reward.reward.network.parameters())


def test_loading_leaves_the_global_random_state_alone(files):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    load_reward(files["clip-hf"])
    assert torch.rand(1) == expected


def test_identity_follows_the_content(files, tmp_path):
    first = load_reward(files["clip-hf"]).reward_id
    copy = tmp_path / "another name.safetensors"
    copy.write_bytes(files["clip-hf"].read_bytes())
    assert load_reward(copy).reward_id == first
    assert load_reward(copy, dtype="bf16").reward_id != first
    state = build("clip-hf").state_dict()
    state["logit_scale"] = torch.tensor(1.0)
    save_file(state, copy, {"attune.reward": header("clip-hf")})
    assert load_reward(copy).reward_id != first


def test_digest_is_read_again_when_the_file_changes(tmp_path):
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"one")
    first = file_digest(file)
    file.write_bytes(b"three")
    assert first != file_digest(file)
    assert len(first) == 64


# ---- files that cannot be loaded ----


def test_missing_file_names_file_folder_and_remedy(tmp_path):
    with pytest.raises(RewardError) as caught:
        load_reward(tmp_path / "gone.safetensors")
    assert "gone.safetensors" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "Put the file there" in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "looks"),
    [(["model.diffusion_model.out.2.weight"], "checkpoint"), (["something.else"], "something.else")],
)
def test_unknown_layout_lists_what_is_supported(tmp_path, keys, looks):
    file = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(1) for key in keys}, file)
    assert not describes_reward(file)
    with pytest.raises(RewardError) as caught:
        load_reward(file)
    for word in ("other.safetensors", looks, "PickScore v1", "HPS v2.1", "ImageReward", "clip-hf", "clip-open_clip"):
        assert word in str(caught.value)


def test_a_file_may_hold_only_the_used_rows_of_its_token_table(files, images, tmp_path):
    tensors = load_file(files["clip-open_clip"])
    rows = torch.unique(tokenize(PROMPTS))
    short = tensors | {"token_rows": rows, "token_embedding.weight": tensors["token_embedding.weight"][rows]}
    save_file(short, tmp_path / "short.safetensors", {"attune.reward": header("clip-open_clip")})
    whole, part = (load_reward(path, "cpu") for path in (files["clip-open_clip"], tmp_path / "short.safetensors"))
    assert torch.equal(part(images, PROMPTS), whole(images, PROMPTS))
    table = part.reward.network.token_embedding.weight
    assert len(table) == 49408 and torch.equal(table.abs().sum(1).nonzero().flatten(), rows)


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 49408], [-1, 0, 1]])
def test_token_rows_that_do_not_fit_are_refused(files, tmp_path, rows):
    tensors = load_file(files["clip-open_clip"])
    short = {"token_rows": torch.tensor(rows), "token_embedding.weight": tensors["token_embedding.weight"][:3].clone()}
    save_file(tensors | short, tmp_path / "bad.safetensors", {"attune.reward": header("clip-open_clip")})
    with pytest.raises(RewardError, match="do not fit its token table"):
        load_reward(tmp_path / "bad.safetensors", "cpu")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{not json", "not JSON"),
        ("[1]", "not a JSON object"),
        (header("clip-hf", kind="blip"), "'blip'.*clip-hf, clip-open_clip"),
        (json.dumps({"kind": "clip-hf", "name": "x", "mean": MEAN, "std": STD}), "lacks 'image_size'"),
        (header("clip-hf", mean=[0.5]), "3 means"),
        (header("clip-hf", std=[1, 1, 0]), "above 0"),
        (header("clip-hf", image_size="wide"), "malformed"),
        (header("clip-open_clip", config={"embed_dim": 32}), "open_clip refuses"),
        (header("clip-hf", config=HF | {"projection_dim": 48}), "of another shape.*visual_projection"),
        (header("clip-open_clip"), "missing.*unexpected"),
    ],
)
def test_bad_header_is_refused_with_its_reason(files, tmp_path, text, says):
    file = tmp_path / "bad.safetensors"
    save_file(build("clip-hf").state_dict(), file, {"attune.reward": text})
    with pytest.raises(RewardError, match=f"(?s)bad.safetensors.*{says}"):
        load_reward(file)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    for name in ("cut.safetensors", "cut.pt"):
        (tmp_path / name).write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
        with pytest.raises(RewardError, match=name):
            load_reward(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RewardError, match=r"\.safetensors, \.pt"):
        load_reward(tmp_path / "notes.txt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(RewardError, match="list"):
        load_reward(tmp_path / "list.pt")


def test_torch_file_whose_keys_are_no_names_is_refused(tmp_path):
    torch.save({0: torch.zeros(2), 1: torch.ones(2)}, tmp_path / "list.pth")
    with pytest.raises(RewardError, match=r"list\.pth holds tensors under 0 instead of a name"):
        load_reward(tmp_path / "list.pth")


def test_damaged_archive_is_refused(tmp_path):
    """Its end says that it is a zip file; the table of contents that the end speaks of is not there."""
    torch.save({"a": torch.zeros(2)}, tmp_path / "whole.pt")
    content = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[-40:])
    with pytest.raises(RewardError, match=r"cut\.pt is damaged.*Get the file again"):
        load_reward(tmp_path / "cut.pt")


# ---- which files are offered ----


def test_a_reward_with_the_name_of_a_checkpoint_is_offered_and_demo_files_that_are_none_are_not(files, tmp_path):
    demo, rewards = tmp_path / "demo", tmp_path / "rewards"
    for folder in (demo, rewards):
        folder.mkdir()
        save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    (demo / "judge.safetensors").write_bytes(files["clip-hf"].read_bytes())
    found = {"model.safetensors": rewards / "model.safetensors", "judge.safetensors": demo / "judge.safetensors"}
    assert offered(found, demo) == ["model.safetensors", "judge.safetensors"]
    assert offered({"model.safetensors": demo / "model.safetensors"}, demo) == []


@pytest.mark.needs_system("posix", "Windows lets only administrators make links")
def test_demo_files_are_known_through_a_link_too(tmp_path):
    demo = tmp_path / "demo"
    demo.mkdir()
    save_file({"x": torch.zeros(1)}, demo / "model.safetensors")
    (tmp_path / "link").symlink_to(demo)
    assert offered({"model.safetensors": tmp_path / "link" / "model.safetensors"}, demo) == []


def test_trained_vlm_rewards_are_not_offered_and_refused_with_the_node_that_loads_them(tmp_path):
    file = tmp_path / "taste.safetensors"
    save_file({"x": torch.zeros(1)}, file, {"attune.reward": json.dumps({"kind": "vlm", "name": "taste"})})
    assert offered({"attune/taste.safetensors": file}, tmp_path / "demo") == []
    with pytest.raises(RewardError, match=r"taste\.safetensors is a trained reward.*Load VLM Reward loads this"):
        load_reward(file)


CONFIG_FILES = {
    "clip": ({"model_type": "clip", "text_config": {}, "vision_config": {}, "image_size": 224}, False),
    "siglip": ({"model_type": "siglip", "text_config": {}, "vision_config": {}}, False),
    "bert": ({"model_type": "bert", "vocab_size": 30522}, False),
    "vit": ({"model_type": "vit", "image_size": 224}, False),
    "llava": ({"model_type": "llava", "text_config": {}, "vision_config": {}}, True),
    "qwen2_vl": ({"model_type": "qwen2_vl", "vocab_size": 152064, "vision_config": {}}, True),
    "fuyu": ({"model_type": "fuyu", "vocab_size": 262144, "image_size": 300}, True),
    "no dictionary": ([], None),
}


@pytest.mark.parametrize("name", CONFIG_FILES)
def test_what_lies_in_a_model_folder_is_told_by_its_config(tmp_path, name):
    content, expected = CONFIG_FILES[name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert is_vision_language(tmp_path) is expected
    parts = {f"m/{part}": tmp_path / part for part in ("model.safetensors", "deep/model.bin")}
    assert offered(parts, tmp_path / "demo") == ([] if expected else list(parts))


def test_a_config_that_cannot_be_read_tells_nothing(tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert is_vision_language(tmp_path) is None
    assert is_vision_language(tmp_path / "gone") is None


def test_parts_of_weights_are_not_offered_but_a_whole_file_beside_them_is(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG_FILES["clip"][0]))
    names = ("model-00001-of-00002.safetensors", "pytorch_model-00002-of-00002.bin", "whole.bin")
    files = {f"clip/{name}": tmp_path / name for name in names}
    assert offered(files, tmp_path / "demo") == list(files)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert offered(files, tmp_path / "demo") == ["clip/whole.bin"]


def test_names_are_the_ones_that_the_host_lists_on_every_system():
    folder = PureWindowsPath("C:/models/rewards")
    assert listed_name(folder / "attune" / "taste.safetensors", folder) == "attune\\taste.safetensors"
    folder = PurePosixPath("/models/rewards")
    assert listed_name(folder / "attune" / "taste.safetensors", folder) == "attune/taste.safetensors"


def test_torch_file_of_plain_values_loads(files, images, tmp_path):
    content = {"attune.reward": header("clip-hf"), "state_dict": build("clip-hf").state_dict()}
    torch.save(content, tmp_path / "plain.pt")
    torch.testing.assert_close(
        load_reward(tmp_path / "plain.pt")(images, PROMPTS), load_reward(files["clip-hf"])(images, PROMPTS)
    )


def test_torch_file_with_a_program_is_not_run(tmp_path):
    mark = tmp_path / "ran"

    class Program:
        def __reduce__(self):
            return (Path.touch, (mark,))

    torch.save({"state_dict": Program()}, tmp_path / "evil.pt")
    (tmp_path / "evil.bin").write_bytes(pickle.dumps(Program(), protocol=2))
    for name in ("evil.pt", "evil.bin"):
        with pytest.raises(RewardError, match=r"stranger's program.*safetensors"):
            load_reward(tmp_path / name)
    assert not mark.exists()


# ---- pictures and prompts ----


def test_grey_and_transparent_pictures():
    grey = torch.full((1, 2, 2, 1), 0.3)
    assert torch.equal(to_rgb(grey), torch.full((1, 2, 2, 3), 0.3))
    red = torch.tensor([1.0, 0.0, 0.0])
    half = torch.cat([red, torch.tensor([0.5])]).expand(1, 2, 2, 4)
    torch.testing.assert_close(to_rgb(half), torch.tensor([1.0, 0.5, 0.5]).expand(1, 2, 2, 3))


@pytest.mark.parametrize("shape", [(2, 2, 3), (1, 2, 2, 2), (1, 0, 2, 3)])
def test_what_is_no_picture_is_refused_with_its_shape(shape):
    with pytest.raises(RewardError, match=r"\[" + ", ".join(map(str, shape)) + r"\]"):
        to_rgb(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_diverged_picture_is_refused_by_its_number_and_never_scored(value, channels):
    images = torch.full((4, 6, 6, channels), 0.5)
    images[2, 1, 1, -1] = value
    says = r"Image {} \(the first is 0\) holds values that are not finite.*Lower the learning rate or check the node"
    with pytest.raises(RewardError, match=says.format(2)):
        to_rgb(images)
    with pytest.raises(RewardError, match=says.format(5)):
        unbatch([torch.zeros(3, 5, 5, 3), images])
    reward = CachedReward(StatisticReward("JPEG size"), ScoreStore())
    with pytest.raises(RewardError, match=says.format(2)):
        reward(images, [""] * 4)
    assert reward.forward_calls == 0


def test_preprocessing_equals_torchvision():
    from torchvision.transforms import v2

    reference = v2.Compose([v2.Resize(64, v2.InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(64)])
    for height, width in ((128, 192), (64, 96), (40, 30), (64, 64)):
        images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(2))
        expected = reference(images).clamp(0, 1)
        torch.testing.assert_close(fit_square(images, 64), expected, atol=1e-5, rtol=0)


def test_prompts_one_for_all_or_one_each():
    assert split_prompts(["  a cat \n\n"], 3) == ["a cat"] * 3
    assert split_prompts(["one\n\n two\nthree"], 3) == ["one", "two", "three"]
    assert split_prompts(["one\nin two lines", "two"], 2) == ["one in two lines", "two"]
    assert split_prompts([""], 2) == ["", ""]
    with pytest.raises(RewardError, match="2 prompts for 3 images"):
        split_prompts(["one\ntwo"], 3)


def test_hash_is_of_the_content():
    picture = torch.rand(4, 6, 3)
    assert content_hash(picture) == content_hash(picture.clone())
    assert content_hash(picture.flip(1)) == content_hash(picture.flip(1).contiguous())
    assert content_hash(picture) != content_hash(picture + 1e-6)
    assert content_hash(picture) != content_hash(picture.reshape(6, 4, 3))


# ---- statistics ----


def test_statistics_closed_forms():
    """A picture, left half red (1, 0, 0), right half blue (0, 0, 1), 4×4 pixels.

    Y is 0.2126 and 0.0722: mean 0.1424, deviation 0.0702. rg = 1 and 0, yb = 0.5 and −1: variances 0.25 and 0.5625,
    means 0.5 and −0.25: colourfulness √0.8125 + 0.3 √0.3125. Saturation 1. Warmth (1 − 1)/2 = 0. The Laplacian is
    ±0.1404 in both inner columns. The mirror image has the other colour everywhere: |difference| is 1, 0, 1.
    """
    picture = torch.zeros(1, 4, 4, 3)
    picture[:, :, :2, 0] = 1
    picture[:, :, 2:, 2] = 1
    expected = {
        "brightness": 0.1424,
        "contrast": 0.0702,
        "colourfulness": math.sqrt(0.8125) + 0.3 * math.sqrt(0.3125),
        "saturation": 1.0,
        "warmth": 0.0,
        "sharpness": 0.1404,
        "symmetry": 1 - 2 / 3,
    }
    for name, value in expected.items():
        assert StatisticReward(name)(picture, [""]).item() == pytest.approx(value, abs=1e-6), name
    assert expected.keys() == MEASURES.keys() - {"JPEG size", "compressibility", "incompressibility"}


def test_jpeg_size_grows_with_detail():
    images = torch.stack([torch.full((64, 64, 3), 0.5), torch.rand(64, 64, 3)])
    flat, noise = StatisticReward("JPEG size")(images, ["", ""]).tolist()
    assert 0 < flat < 2 < noise < 20


def test_goals_are_in_the_sign():
    image = torch.full((1, 3, 3, 3), 0.3)
    score = {
        goal: StatisticReward("brightness", goal, 0.5)(image, [""]).item()
        for goal in ("as high as possible", "as low as possible", "close to target")
    }
    assert list(score.values()) == pytest.approx([0.3, -0.3, -0.2])
    with pytest.raises(RewardError, match="colourfulness, contrast"):
        StatisticReward("beauty")
    with pytest.raises(RewardError, match="close to target"):
        StatisticReward("contrast", "medium")
    assert len({StatisticReward("contrast", "close to target", t).reward_id for t in (0.1, 0.2)}) == 2


@pytest.mark.parametrize("name", MEASURES)
def test_statistics_gradients(name):
    reward = StatisticReward(name)
    assert isinstance(reward, Reward)
    pixels = torch.rand(2, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.1
    if not reward.differentiable:
        assert not reward(pixels.requires_grad_(True), ["", ""]).requires_grad
        return
    assert torch.autograd.gradcheck(MEASURES[name], pixels.requires_grad_(True))
    flat = torch.zeros(1, 4, 4, 3, requires_grad=True)
    reward(flat, [""]).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_sharpness_of_a_picture_without_neighbours_is_an_error():
    with pytest.raises(RewardError, match="3×3 pixels, not 2×9"):
        StatisticReward("sharpness")(torch.zeros(1, 9, 2, 3), [""])


# ---- cache ----


def test_the_same_picture_and_prompt_cost_one_forward(images):
    counting = Counting()
    reward = CachedReward(counting, ScoreStore())
    assert isinstance(reward, Reward)
    batch = torch.cat([images, images[:1]])
    first = reward(batch, ["a", "a", "a", "a"])
    assert counting.seen == 3
    assert torch.equal(first, reward(batch.clone(), ["a", "a", "a", "a"]))
    assert counting.seen == 3
    reward(images[:1], ["b"])
    assert counting.seen == 4
    assert torch.equal(first[:3], images.flatten(1).mean(1))


def test_a_reloaded_file_finds_its_scores(files, images):
    load_reward(files["clip-hf"])(images, PROMPTS)
    again = load_reward(files["clip-hf"])
    calls = []
    again.reward.network.vision_model.register_forward_hook(lambda *_: calls.append(1))
    again(images, PROMPTS)
    assert calls == []
    again(1 - images, PROMPTS)
    assert calls == [1]


def test_graph_and_context_pass_the_cache(images):
    counting = Counting()
    reward = CachedReward(counting, ScoreStore())
    pixels = images.clone().requires_grad_(True)
    for _ in range(2):
        assert reward(pixels, PROMPTS).requires_grad
        reward(images, PROMPTS, RewardContext(extra={"round": 1}))
    assert counting.seen == 12
    assert len(reward.store) == 0


def test_a_bad_score_names_the_reward_and_is_not_stored(images):
    class Broken(Counting):
        name = "Broken"

        def __call__(self, images, prompts, context=None):
            return torch.full((len(images),), float("nan"))

    reward = CachedReward(Broken(), ScoreStore())
    with pytest.raises(RewardError, match="Broken returned nan"):
        reward(images, PROMPTS)
    assert len(reward.store) == 0
    with pytest.raises(RewardError, match="Broken: 3 images but 1 prompts"):
        reward(images, ["one"])


def test_the_store_forgets_the_oldest():
    store = ScoreStore(limit=2)
    a, b, c = ("r", "a", ""), ("r", "b", ""), ("r", "c", "")
    store.remember({a: 1.0, b: 2.0})
    store.find([a])
    store.remember({c: 3.0})
    assert store.find([a, b, c]) == {a: 1.0, c: 3.0}


# ---- scoring ----


def test_table_of_mixed_sizes_keeps_the_order():
    values = [0.25, 0.875, 0.5, 0.875]
    sizes = [(4, 4), (6, 4), (4, 4), (4, 4)]
    pictures = [torch.full((*size, 3), value) for size, value in zip(sizes, values, strict=True)]
    steps = []
    table = score_table(pictures, ["p"] * 4, Counting(), progress=lambda done, total: steps.append((done, total)))
    assert table.scores == pytest.approx(values)
    assert table.ranking == (1, 3, 2, 0)
    assert table.best == 1
    assert steps[0] == (0, 4)
    assert steps[-1] == (4, 4)
    lines = table.text().splitlines()
    assert lines[0] == "**Counting**, mean 0.625"
    assert lines[4] == "| 1 | 1 | 0.875 | p |"


def test_costs_are_ranked_lowest_first():
    class Cost(Counting):
        higher_is_better = False

    pictures = [torch.full((2, 2, 3), value) for value in (0.5, 0.1, 0.9)]
    assert score_table(pictures, [""] * 3, Cost()).ranking == (1, 0, 2)


def test_scoring_can_be_stopped_between_parts():
    counting = Counting()

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_table([torch.rand(2, 2, 3) for _ in range(40)], [""] * 40, counting, progress=stop)
    assert counting.seen == 8


def test_nothing_to_score_is_an_error(files):
    with pytest.raises(RewardError, match="empty"):
        unbatch([torch.zeros(0, 8, 8, 3)])
    with pytest.raises(RewardError, match="empty"):
        score_table([], [], Counting())
    with pytest.raises(RewardError, match="2 images but 1 prompts"):
        score_table([torch.zeros(2, 2, 3)] * 2, ["a"], Counting())
    with pytest.raises(RewardError, match="the prompt of image 1 is empty"):
        score_table([torch.zeros(64, 64, 3)] * 2, ["a", " "], load_reward(files["clip-hf"]))


def test_three_significant_digits():
    values = (0, 0.30004, -12.345, 0.021449, 1234.5, 0.9999, 1e-5, 99.96, -1e300, 2e-9)
    texts = ["0", "0.300", "-12.3", "0.0214", "1230", "1.00", "0.0000100", "100", "-1.00e+300", "2.00e-09"]
    assert [significant(value) for value in values] == texts


# ---- chart ----


def flat(colour: tuple[float, float, float], size: tuple[int, int] = (16, 16)) -> torch.Tensor:
    return torch.tensor(colour).expand(*size, 3)


def runs(row: np.ndarray, colour: tuple[int, ...]) -> int:
    """How many pixels of a row have about this colour."""
    return int((np.abs(row.astype(int) - colour).max(-1) <= 6).sum())


def test_chart_is_sorted_and_bars_are_proportional():
    """Three pictures scored 0.25, 1, 0.5: bars begin at zero, so the second is half as long as the best."""
    colours = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    drawn = bar_chart([flat(c) for c in colours], [0.25, 1.0, 0.5], prompts=["p"] * 3)
    assert drawn.shape[0] == 1
    assert drawn.dtype is torch.float32
    assert 0 <= drawn.min() < drawn.max() <= 1
    pixels = (drawn[0].numpy() * 255).round().astype(np.uint8)
    rows = {name: np.flatnonzero([runs(row, rgb) >= 90 for row in pixels]) for name, rgb in
            (("green", (0, 255, 0)), ("blue", (0, 0, 255)), ("red", (255, 0, 0)))}  # fmt: skip
    assert rows["green"].max() < rows["blue"].min() < rows["blue"].max() < rows["red"].min()
    best = max(runs(row, chart_module.ACCENT) for row in pixels[rows["green"]])
    middle = chart_module._mix(chart_module.BAR_LOW, chart_module.BAR, 0.5)
    half = max(runs(row, middle) for row in pixels[rows["blue"]])
    assert best > 400
    assert half / best == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("scores", "low", "high", "origin"),
    [
        ([0.1, 0.4], 0, 0.4, 0),
        ([0.38, 0.40], 0.375, 0.40, 0.375),
        ([-0.2, 0.6], -0.2, 0.6, 0),
        ([-0.6, -0.2], -0.7, -0.2, -0.7),
        ([0.0, 0.0], 0, 0, 0),
        ([0.5], 0.375, 0.5, 0.375),
    ],
)
def test_axis(scores, low, high, origin):
    axis = chart_module.Axis.of(scores)
    assert (axis.low, axis.high, axis.origin) == pytest.approx((low, high, origin))
    assert axis.part(max(scores)) == 1
    assert bool(axis.note) == (origin != 0)


@pytest.mark.parametrize("count", [1, 2, 7, 17, 31, 64, 65])
def test_chart_of_any_number_of_mixed_pictures(count):
    shapes = [(16, 16, 3), (8, 40, 3), (40, 8, 4), (5, 5, 1)]
    generator = torch.Generator().manual_seed(count)
    pictures = [torch.rand(shapes[i % 4], generator=generator) for i in range(count)]
    scores = torch.randn(count, generator=generator).tolist()
    drawn = bar_chart(pictures, scores, prompts=[f"{i} a very long prompt indeed " * 4 for i in range(count)])
    assert max(drawn.shape[1:3]) <= 1700
    assert drawn.std() > 0.05


def test_chart_refuses_unequal_counts():
    with pytest.raises(RewardError, match="1 pictures, 2 scores and 1 prompts"):
        bar_chart([flat((0, 0, 0))], [1.0, 2.0])
    with pytest.raises(RewardError, match="0 pictures"):
        bar_chart([], [])


def test_long_lines_are_shortened_to_fit():
    font = load_font(font_name(["abc"]), 15)
    text = "an owl drawn in the glossy style, on a purple background"
    assert shorten(text, font, 1000) == text
    short = shorten(text, font, 120)
    assert short.endswith("…")
    assert text.startswith(short[:-1])
    assert font.getlength(short) <= 120
