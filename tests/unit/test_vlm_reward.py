"""A vision-language model as a scorer: against the library's direct call, in every precision, from and to files."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from attune.tests.tiny_vlm import CHAT_TEMPLATE, write_tiny_vlm
from attune.training.adapters.lora import LoraConfig
from attune.training.interfaces import RewardError, TrainingError
from attune.training.libraries import no_kernels
from attune.training.vlm_base import PRECISIONS, check_folder, folder_digest, load_base
from attune.training.vlm_reward import (
    WORDING,
    RewardAdapters,
    TrainedReward,
    VlmScorer,
    apply_trained,
    load_trained,
    save_trained,
    to_picture,
)

PROMPTS = ["a cat", "a dog in flat style on a blue background", "a rose"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_vlm(tmp_path_factory.mktemp("vlm") / "tiny")


@pytest.fixture
def pictures() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(*size, 3, generator=generator) for size in ((32, 32), (40, 25), (9, 60))]


def scorer_of(folder: Path, precision: str = "fp32", seed: int = 0) -> VlmScorer:
    return VlmScorer(load_base(folder, precision=precision), seed=seed)


@torch.no_grad()
def scores_of(scorer: VlmScorer, pictures: list, prompts: list[str] = PROMPTS) -> torch.Tensor:
    return scorer(scorer.encode(pictures, prompts))


# ---- the score -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_score_is_the_head_on_the_librarys_last_hidden_state(folder, pictures):
    """Picture by picture through the library's own classes, so that nothing is padded there."""
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    scorer = scorer_of(folder)
    found = scores_of(scorer, pictures)
    model = LlavaForConditionalGeneration.from_pretrained(folder, local_files_only=True).eval()
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    for score, picture, prompt in zip(found, pictures, PROMPTS, strict=True):
        image = Image.fromarray((picture * 255).round().to(torch.uint8).numpy())
        inputs = processor(text=f"<image> {WORDING.format(prompt=prompt)}", images=image, return_tensors="pt")
        hidden = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        expected = hidden @ scorer.head.weight[0] + scorer.head.bias[0]
        assert score.item() == pytest.approx(expected.item(), abs=1e-4)
    assert found.std() > 1e-3


def test_the_chat_template_is_used_where_there_is_one(tmp_path, pictures):
    scorer = scorer_of(write_tiny_vlm(tmp_path / "chat", chat_template=CHAT_TEMPLATE))
    words = WORDING.format(prompt="a cat")
    assert scorer.text("a cat") == f"<image> {words} </s> <s>"
    inputs = scorer.encode(pictures, PROMPTS)
    ends = inputs["attention_mask"].sum(1) - 1
    start = scorer.base.processor.tokenizer.bos_token_id
    assert inputs["input_ids"][torch.arange(3), ends].tolist() == [start] * 3
    assert torch.isfinite(scores_of(scorer, pictures)).all()


def test_the_mark_of_a_picture_in_a_prompt_is_no_picture(folder, pictures):
    scorer = scorer_of(folder)
    assert scorer.text("a <image> cat") == scorer.text("a  cat")
    assert torch.isfinite(scores_of(scorer, pictures[:1], ["<image> <image>"])).all()


def test_half_a_character_is_read_as_an_unknown_one(folder, pictures):
    scorer = scorer_of(folder)
    found = scores_of(scorer, pictures[:2], ["a cat \ud83d", "\udc00 a dog"])
    assert torch.equal(found, scores_of(scorer, pictures[:2], ["a cat \ufffd", "\ufffd a dog"]))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_scores_nearly_the_same(folder, pictures, precision):
    exact, found = (scores_of(scorer_of(folder, name), pictures) for name in ("fp32", precision))
    assert found.dtype == torch.float32
    # Random weights have no structure that 4 bits could keep; there it only must be of the same size.
    assert (found - exact).abs().max() < (1.0 if precision == "nf4" else 0.03)


def test_nf4_takes_a_small_part_of_the_memory_and_still_lets_gradients_through(folder, pictures):
    """Also after it has scored without gradients: there bitsandbytes would take a path without a backward pass."""
    scorer = scorer_of(folder, "nf4")
    linear = scorer.base.language_model.layers[0].self_attn.q_proj.weight
    assert linear.numel() * linear.element_size() == 64 * 64 // 2
    adapters = RewardAdapters(scorer, LoraConfig(2, 2.0))
    before = scores_of(scorer, pictures)
    again = scorer(scorer.encode(pictures, PROMPTS))
    assert torch.allclose(before, again.detach(), atol=1e-5)
    again.sum().backward()
    # `up` is zero at the start, so `down` has no gradient yet and `up` has one in every layer.
    ups = {name: p.grad for name, p in adapters.named_parameters().items() if "lora_up" in name}
    assert len(ups) == 14
    assert all(grad is not None and grad.abs().max() > 0 for grad in ups.values())


def test_loading_works_in_the_hosts_inference_mode(folder, pictures):
    with torch.inference_mode():
        scorer = scorer_of(folder)
        RewardAdapters(scorer, LoraConfig(2, 2.0))
    assert not any(p.is_inference() for p in scorer.parameters())


def test_grey_and_transparent_pictures():
    assert to_picture(torch.full((4, 6, 1), 0.5)).getpixel((0, 0)) == (128, 128, 128)
    clear = torch.zeros(4, 6, 4)
    assert to_picture(clear).getpixel((5, 3)) == (255, 255, 255)
    assert to_picture(Image.new("RGBA", (6, 4), (0, 0, 0, 0))).getpixel((5, 3)) == (255, 255, 255)
    with pytest.raises(RewardError, match=r"not \[4, 6, 2\]"):
        to_picture(torch.zeros(4, 6, 2))


def test_counts_must_agree(folder, pictures):
    with pytest.raises(RewardError, match="3 pictures but 1 prompts"):
        scorer_of(folder).encode(pictures, ["a cat"])


def test_the_layers_that_are_adapted(folder):
    scorer = scorer_of(folder)
    language = RewardAdapters(scorer, LoraConfig(2, 2.0))
    assert len(language.named_parameters()) == 2 * 2 * 7 + 1
    whole = RewardAdapters(scorer_of(folder), LoraConfig(2, 2.0), layers="language and vision")
    # Beside the language model: 2 layers of 6, the patches and the projector's 2.
    assert len(whole.named_parameters()) == 2 * (2 * 7 + 2 * 6 + 1 + 2) + 1
    trainable = [name for name, p in scorer.named_parameters() if p.requires_grad]
    assert len(trainable) == len(language.named_parameters())
    with pytest.raises(TrainingError, match="layers must be one of"):
        RewardAdapters(scorer_of(folder), LoraConfig(), layers="vision")


def test_saving_memory_changes_no_gradient(folder, pictures):
    gradients = []
    for on in (False, True):
        scorer = scorer_of(folder)
        adapters = RewardAdapters(scorer, LoraConfig(2, 2.0))
        scorer.checkpointing(on)
        held: list[int] = []

        def keep(tensor: torch.Tensor, held: list[int] = held) -> torch.Tensor:
            held.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            score = scorer(scorer.encode(pictures, PROMPTS)).sum()
        score.backward()
        gradients.append(({n: p.grad for n, p in adapters.named_parameters().items() if p.grad is not None}, sum(held)))
    (plain, kept), (saved, kept_less) = gradients
    assert plain.keys() == saved.keys()
    assert all(torch.allclose(plain[name], saved[name], atol=1e-6) for name in plain)
    assert kept_less < kept / 2


# ---- files -----------------------------------------------------------------------------------------------------------


def trained_on(folder: Path, seed: int = 1) -> tuple[VlmScorer, RewardAdapters]:
    """Adapters that change something: both halves are random."""
    scorer = scorer_of(folder, seed=seed)
    adapters = RewardAdapters(scorer, LoraConfig(2, 4.0, seed=seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*adapters.named_parameters().values(), scorer.head.bias):
            parameter.normal_(0, 0.3, generator=generator)
    return scorer, adapters


def test_a_trained_reward_comes_back_from_its_file(folder, pictures, tmp_path):
    scorer, adapters = trained_on(folder)
    expected = scores_of(scorer, pictures)
    file = tmp_path / "taste.safetensors"
    save_trained(file, TrainedReward.of(adapters, "My taste", {"held_out_accuracy": 0.9}))
    with safe_open(file, "pt") as opened:
        header = json.loads(opened.metadata()["attune.reward"])
        assert all("lora_" in key or key.startswith("head.") for key in opened.keys())  # noqa: SIM118
    assert (header["kind"], header["base"], header["rank"]) == ("vlm", "tiny", 2)
    assert file.stat().st_size < (folder / "model.safetensors").stat().st_size / 2
    other = scorer_of(folder)
    found = load_trained(file)
    apply_trained(other, found)
    assert torch.equal(scores_of(other, pictures), expected)
    assert (found.name, found.metrics["held_out_accuracy"]) == ("My taste", 0.9)
    assert found.digest == TrainedReward.of(adapters, "another name").digest
    assert found.digest != TrainedReward.of(trained_on(folder, seed=2)[1], "My taste").digest


def test_a_reward_of_another_model_is_refused(folder, tmp_path):
    _, adapters = trained_on(folder)
    save_trained(tmp_path / "a.safetensors", TrainedReward.of(adapters, "A"))
    other = write_tiny_vlm(tmp_path / "other", seed=5)
    with pytest.raises(RewardError, match="was trained on the model folder 'tiny'"):
        apply_trained(scorer_of(other), load_trained(tmp_path / "a.safetensors"))


def test_files_that_are_no_trained_reward(folder, tmp_path):
    with pytest.raises(RewardError, match="no trained reward"):
        load_trained(folder / "model.safetensors")
    with pytest.raises(RewardError, match="does not exist"):
        load_trained(tmp_path / "gone.safetensors")
    header = {"attune.reward": json.dumps({"kind": "clip-hf"})}
    save_file({"a": torch.zeros(1)}, tmp_path / "clip.safetensors", metadata=header)
    with pytest.raises(RewardError, match="of the kind 'clip-hf': use Load Reward Model"):
        load_trained(tmp_path / "clip.safetensors")
    header = {"attune.reward": json.dumps({"kind": "vlm", "name": "x"})}
    save_file({"a": torch.zeros(1)}, tmp_path / "damaged.safetensors", metadata=header)
    with pytest.raises(RewardError, match="header is damaged"):
        load_trained(tmp_path / "damaged.safetensors")


@pytest.mark.parametrize("rank", [10**9, 3, 0, 1e400])
def test_a_header_with_another_rank_than_the_tensors_costs_no_memory(folder, tmp_path, rank):
    good, bad = tmp_path / "good.safetensors", tmp_path / "bad.safetensors"
    save_trained(good, TrainedReward.of(trained_on(folder)[1], "A"))
    with safe_open(good, "pt") as opened:
        header = json.loads(opened.metadata()["attune.reward"])
    save_file(load_file(good), bad, metadata={"attune.reward": json.dumps(header | {"rank": rank})})
    with pytest.raises(RewardError, match=r"bad.safetensors: its header is damaged"):
        load_trained(bad)


def test_the_digest_is_of_the_content(folder, tmp_path):
    copy = tmp_path / "renamed"
    shutil.copytree(folder, copy)
    assert folder_digest(copy) == folder_digest(folder)
    (copy / "README.md").write_text("nothing that computes", encoding="utf-8")
    assert folder_digest(copy) == folder_digest(folder)
    (copy / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    assert folder_digest(copy) != folder_digest(folder)


# ---- what cannot be loaded -------------------------------------------------------------------------------------------


def test_folders_that_are_no_model(folder, tmp_path):
    with pytest.raises(RewardError, match="is not a folder"):
        check_folder(tmp_path / "gone")
    with pytest.raises(RewardError, match=r"has no config\.json"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(RewardError, match="not readable as JSON"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RewardError, match=r"no \*\.safetensors weights"):
        check_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(RewardError, match=r"pytorch_model\.bin, a pickle.*save_pretrained"):
        check_folder(tmp_path)
    shutil.copy(folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "x.Y"}}', encoding="utf-8")
    with pytest.raises(RewardError, match="program code"):
        check_folder(tmp_path)


def copy_without(folder: Path, target: Path, *names: str) -> Path:
    shutil.copytree(folder, target)
    for name in names:
        (target / name).unlink()
    return target


def test_a_missing_processor_is_said(folder, tmp_path):
    with pytest.raises(RewardError, match="processor"):
        load_base(copy_without(folder, tmp_path / "a", "processor_config.json"))
    with pytest.raises(RewardError, match="processor"):
        load_base(copy_without(folder, tmp_path / "b", "tokenizer.json", "tokenizer_config.json"))


def test_another_kind_of_model_and_missing_weights_are_said(folder, tmp_path):
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig

    other = copy_without(folder, tmp_path / "clip")
    CLIPConfig().save_pretrained(other)
    with pytest.raises(RewardError, match="cannot be loaded as a vision-language model"):
        load_base(other)
    part = copy_without(folder, tmp_path / "part")
    tensors = load_file(part / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if "layers.1.mlp" not in key}
    save_file(kept, part / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RewardError, match="lacks 7 of its weights"):
        load_base(part)
    with pytest.raises(RewardError, match="There is no precision 'int3'"):
        load_base(folder, precision="int3")


def test_bitsandbytes_cannot_fetch_a_kernel_while_it_is_imported():
    with no_kernels(), pytest.raises(ImportError):
        import kernels  # noqa: F401
    assert "kernels" not in sys.modules


def test_nf4_without_its_library_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(RewardError, match="needs the Python packages bitsandbytes and accelerate"):
        load_base(folder, precision="nf4")


# ---- as a reward -----------------------------------------------------------------------------------------------------


def test_the_reward_is_cached_and_names_what_it_is(folder, pictures, tmp_path):
    from attune.nodes.rewards.cache import CachedReward, ScoreStore
    from attune.nodes.rewards.vlm import load_vlm_reward
    from attune.training.interfaces import checked_scores

    scorer, adapters = trained_on(folder)
    file = tmp_path / "taste.safetensors"
    save_trained(file, TrainedReward.of(adapters, "My taste"))
    loaded = load_vlm_reward(folder, file)
    reward = CachedReward(loaded.reward, ScoreStore())
    assert (reward.name, reward.uses_prompt, reward.differentiable) == ("My taste", True, False)
    images = torch.stack([torch.rand(24, 24, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(6)])
    prompts = ["a cat", "a dog"] * 3
    found = checked_scores(reward, images, prompts)
    assert torch.allclose(found, scores_of(scorer, list(images), prompts), atol=1e-4)
    calls = []
    loaded.reward.place = lambda: calls.append(1) or torch.device("cpu")
    assert torch.equal(reward(images, prompts), found)
    assert calls == []
    reward(images[:1], ["a rose"])
    assert calls == [1]
    assert loaded.reward(images[:0], []).shape == (0,)
    with pytest.raises(RewardError, match="6 images but 1 prompts"):
        loaded.reward(images, ["a cat"])


def test_cancel_is_asked_for_before_every_few_pictures(folder, tmp_path):
    from attune.nodes.rewards.vlm import IMAGES_AT_ONCE, load_vlm_reward

    save_trained(tmp_path / "a.safetensors", TrainedReward.of(trained_on(folder)[1], "A"))
    reward = load_vlm_reward(folder, tmp_path / "a.safetensors").reward
    images, asked = torch.rand(2 * IMAGES_AT_ONCE + 1, 16, 16, 3), []
    reward.between = lambda: asked.append(1)
    reward(images, ["a cat"] * len(images))
    assert len(asked) == 3
    forward, passes = reward.network.forward, []
    reward.network.forward = lambda inputs: passes.append(1) or forward(inputs)

    def cancel() -> None:
        if passes:
            raise KeyboardInterrupt

    reward.between = cancel
    with pytest.raises(KeyboardInterrupt):
        reward(images, ["a cat"] * len(images))
    assert len(passes) == 1


def test_the_identity_changes_with_what_changes_scores(folder, tmp_path, monkeypatch):
    from attune.nodes.rewards import vlm
    from attune.nodes.rewards.vlm import load_vlm_reward

    files = []
    for seed in (1, 2):
        files.append(tmp_path / f"{seed}.safetensors")
        save_trained(files[-1], TrainedReward.of(trained_on(folder, seed=seed)[1], "same name"))
    ids = [load_vlm_reward(folder, file).reward_id for file in files]
    ids += [load_vlm_reward(folder, files[0], precision="nf4").reward_id]
    assert len(set(ids)) == 3
    assert load_vlm_reward(folder, files[0]).reward_id == ids[0]
    monkeypatch.setattr(vlm, "VERSION", vlm.VERSION + 1)
    assert load_vlm_reward(folder, files[0]).reward_id not in ids
    monkeypatch.undo()
    # The library prepares the pictures: another version of it may score otherwise.
    monkeypatch.setattr(vlm, "version", lambda package: f"{package} of tomorrow")
    assert load_vlm_reward(folder, files[0]).reward_id not in ids
