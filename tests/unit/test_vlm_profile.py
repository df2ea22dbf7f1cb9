"""A taste in a writing model's states: against an independent pass over the finished text, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from attune.tests.tiny_chat_vlms import write_tiny_idefics, write_tiny_onevision, write_tiny_qwen
from attune.tests.tiny_vlm import CHAT_TEMPLATE, write_tiny_vlm
from attune.training.interfaces import AttuneError, RewardError
from attune.training.vlm_base import load_base, read_config
from attune.training.vlm_profile import (
    LONGEST_SIDE,
    SeenPair,
    VlmProfiler,
    embedding_shape,
    encoder_id,
    load_profiler,
    profile_of,
)

TOKENS = 9
ONLY_WORDS = "{% for message in messages %}{{ 'user: ' + message['content'] }}{% endfor %}"


def write_tiny_llava(folder: Path) -> Path:
    return write_tiny_vlm(folder, chat_template=CHAT_TEMPLATE)


WRITERS = {
    "llava": write_tiny_llava, "llava-onevision": write_tiny_onevision, "qwen2-vl": write_tiny_qwen,
    "idefics3": write_tiny_idefics,
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: write(root / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="module")
def profilers(folders) -> dict[str, VlmProfiler]:
    return {name: load_profiler(folder) for name, folder in folders.items()}


@pytest.fixture
def pairs() -> list[SeenPair]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((32, 48), (40, 25))
    return [
        SeenPair(caption, *(torch.rand(*size, 3, generator=generator) for size in sizes))
        for caption in ("a cat", "a red house")
    ]


def copy_with(folder: Path, target: Path, file: str, **changes: object) -> Path:
    """The model folder with other entries in one of its JSON files."""
    shutil.copytree(folder, target)
    found = json.loads((target / file).read_text(encoding="utf-8"))
    (target / file).write_text(json.dumps(found | changes), encoding="utf-8")
    return target


# ---- the embedding ---------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", WRITERS)
def test_equals_an_independent_pass_over_the_whole_text(profilers, pairs, name):
    """Without cache and without `generate`: the text is greedy, and the states are those at its last token."""
    profiler = profilers[name]
    found = profiler.describe(pairs, max_new_tokens=TOKENS)
    inputs = profiler.encode(pairs)
    for _ in range(TOKENS):
        output = profiler.model(**inputs, use_cache=False)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], output.logits[:, -1:].argmax(-1)], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:  # Qwen2-VL: which tokens are pictures
            kinds = inputs["mm_token_type_ids"]
            inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(kinds[:, :1])], 1)
    states = profiler.model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
    expected = torch.stack([state[0, -1] / state[0, -1].norm() for state in states])
    assert torch.allclose(found.tokens, expected, atol=1e-5)
    words = profiler.base.processor.tokenizer.decode(inputs["input_ids"][0, -TOKENS:], skip_special_tokens=True)
    assert found.text == words.strip() and len(found.text) > 10
    assert (found.written, found.complete) == (TOKENS, False)


@pytest.mark.parametrize("name", WRITERS)
def test_shape_and_length_are_the_same_for_every_text(folders, profilers, pairs, name):
    for chosen, most in ((pairs, 1), (pairs, 5), (pairs * 2 + pairs[:1], TOKENS)):
        tokens = profilers[name].describe(chosen, max_new_tokens=most).tokens
        assert tuple(tokens.shape) == profilers[name].shape == embedding_shape(folders[name]) == (3, 64)
        assert torch.allclose(tokens.norm(dim=1), torch.ones(3), atol=1e-6)
        assert tokens.dtype == torch.float32 and not tokens.is_inference()


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_pairs_give_the_same_also_after_loading_again(folders, profilers, pairs, name):
    first, second = (profilers[name].describe(pairs, max_new_tokens=TOKENS) for _ in range(2))
    with torch.inference_mode():  # as in the host
        torch.manual_seed(99)
        third = load_profiler(folders[name]).describe(pairs, max_new_tokens=TOKENS)
    assert torch.equal(first.tokens, second.tokens) and torch.equal(first.tokens, third.tokens)
    assert first.text == second.text == third.text


@pytest.mark.parametrize("name", WRITERS)
def test_which_picture_is_preferred_matters(profilers, pairs, name):
    before = profilers[name].describe(pairs, max_new_tokens=TOKENS).tokens
    swapped = [SeenPair(pair.caption, pair.other, pair.preferred) for pair in pairs]
    other_words = [SeenPair("a dog", pair.preferred, pair.other) for pair in pairs]
    for changed in (swapped, other_words):
        assert (profilers[name].describe(changed, max_new_tokens=TOKENS).tokens - before).abs().max() > 1e-4


def test_the_model_ends_its_text_itself(folders, profilers, pairs, tmp_path):
    """The token that ends a text is the last that counts, wherever the limit is."""
    words = profilers["idefics3"].describe(pairs, max_new_tokens=TOKENS).text.split()
    tokenizer = profilers["idefics3"].base.processor.tokenizer
    assert words[2] not in words[:2]
    end = tokenizer.convert_tokens_to_ids(words[2])
    folder = copy_with(folders["idefics3"], tmp_path / "ends", "generation_config.json", eos_token_id=[3, end])
    profiler = load_profiler(folder)
    found = profiler.describe(pairs, max_new_tokens=TOKENS)
    assert (found.text, found.written, found.complete) == (" ".join(words[:3]), 3, True)
    cut = profilers["idefics3"].describe(pairs, max_new_tokens=3)
    assert torch.allclose(found.tokens, cut.tokens, atol=1e-6) and not cut.complete


def test_a_folder_that_asks_for_chance_still_gets_none(folders, profilers, pairs, tmp_path):
    wild = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0}
    folder = copy_with(folders["qwen2-vl"], tmp_path / "wild", "generation_config.json", **wild)
    found = load_profiler(folder).describe(pairs, max_new_tokens=TOKENS)
    assert found.text == profilers["qwen2-vl"].describe(pairs, max_new_tokens=TOKENS).text


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
def test_other_precisions_are_near_and_have_another_name(folders, profilers, pairs, precision):
    found = load_profiler(folders["qwen2-vl"], precision=precision)
    tokens = found.describe(pairs, max_new_tokens=1).tokens
    exact = profilers["qwen2-vl"].describe(pairs, max_new_tokens=1).tokens
    # Random weights have no structure that 4 bits could keep: another word, and other states.
    assert (tokens * exact).sum(1).min() > (-1 if precision == "nf4" else 0.999)
    assert torch.equal(tokens, found.describe(pairs, max_new_tokens=1).tokens)
    assert found.encoder_id.endswith(f":{precision}") and found.encoder_id != profilers["qwen2-vl"].encoder_id


def test_identity_is_of_the_content(folders, profilers, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "renamed")
    assert load_profiler(tmp_path / "renamed").encoder_id == profilers["llava"].encoder_id
    assert len({profiler.encoder_id for profiler in profilers.values()}) == len(WRITERS)
    assert encoder_id("ab" * 32, "fp32") != encoder_id("ab" * 32, "fp16")


# ---- progress and Cancel ---------------------------------------------------------------------------------------------


def test_every_token_is_told(profilers, pairs):
    told: list[tuple[int, int]] = []
    profilers["llava"].describe(pairs, max_new_tokens=TOKENS, on_token=lambda *step: told.append(step))
    assert sorted(set(told)) == [(done, TOKENS) for done in range(TOKENS + 1)] and told == sorted(told)
    assert told.count((0, TOKENS)) >= 4, "while the pictures are read, too"


@pytest.mark.parametrize("when", [0, 4])
def test_cancel_ends_it_and_leaves_the_model_as_it_was(profilers, pairs, when):
    class Cancelled(Exception):
        pass

    told: list[int] = []

    def tell(done: int, total: int) -> None:
        told.append(done)
        if done == when:
            raise Cancelled

    def hooks() -> int:
        return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in profiler.model.modules())

    profiler = profilers["llava"]
    before = profiler.describe(pairs, max_new_tokens=TOKENS)
    librarys_own = hooks()
    with pytest.raises(Cancelled):
        profiler.describe(pairs, max_new_tokens=TOKENS, on_token=tell)
    assert max(told) == when and told.count(when) == 1
    assert hooks() == librarys_own
    assert torch.equal(profiler.describe(pairs, max_new_tokens=TOKENS).tokens, before.tokens)


# ---- what the model is shown -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
def test_every_picture_stands_behind_its_own_label(profilers, name):
    text = profilers[name].text(["a cat", "Picture 1A, preferred: a <image> dog"])
    mark = "<|image_pad|>" if name == "qwen2-vl" else "<image>"
    pieces = text.split(mark)
    assert len(pieces) == 5
    for piece, label in zip(pieces, ("1A, preferred", "1B, dispreferred", "2A, preferred", "2B, dis"), strict=False):
        assert label in piece.splitlines()[-1]
    assert "Caption: a cat\n" in pieces[0] and "User Profile" in pieces[-1]


def test_a_template_that_puts_pictures_first_is_given_them_within_the_text(profilers):
    template = profilers["llava-onevision"].base.processor
    parts = [{"type": "text", "text": "before"}, {"type": "image"}]
    first = template.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    assert first.index("<image>") < first.index("before"), "as it would be without care"
    assert "1A, preferred:<image>\n" in profilers["llava-onevision"].text(["a", "b"])


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "has no chat template"),
        (ONLY_WORDS, "does not keep 4 pictures at their places in a text .TypeError"),
        ("{{ raise_exception('one picture at most') }}", "one picture at most"),
        ("never a picture", "does not keep 4 pictures"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(pairs, tmp_path, template, says):
    folder = write_tiny_vlm(tmp_path / "model", chat_template=template)
    with pytest.raises(AttuneError, match=says):
        load_profiler(folder).describe(pairs, max_new_tokens=3)


def test_large_pictures_are_seen_smaller_and_unknown_captions_are_said(profilers):
    large = torch.rand(600, LONGEST_SIDE * 3, 3)
    for name, places in (("idefics3", 1), ("llava-onevision", 0)):
        seen = profilers[name].encode([SeenPair("", large, large)] * 2)
        assert seen["pixel_values"].shape[places] == 4 and seen["pixel_values"].shape[1 - places] == 1, "one piece each"
    patches = profilers["qwen2-vl"].encode([SeenPair("", large, large)] * 2)["image_grid_thw"]
    assert patches.prod(1).max() * 14**2 <= 56 * 84, "the processor's own limit"
    assert "Caption: not known" in profilers["idefics3"].text([" ", "\ud83d"])


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_wrong_numbers_and_pictures_are_refused(profilers, pairs):
    profiler = profilers["llava"]
    for wrong in (pairs[:1], pairs * 3):
        with pytest.raises(AttuneError, match=f"from 2 to 5 pairs, not {len(wrong)}"):
            profiler.describe(wrong)
    with pytest.raises(AttuneError, match="max_new_tokens must be at least 1, not 0"):
        profiler.describe(pairs, max_new_tokens=0)
    with pytest.raises(AttuneError, match=r"not \[4, 6, 2\]"):
        profiler.describe([*pairs, SeenPair("a", torch.zeros(4, 6, 2), pairs[0].other)])
    with pytest.raises(AttuneError, match=r"can read 512 tokens; 5 pairs are .* and 400 more may be written"):
        profiler.describe(pairs * 2 + pairs[:1], max_new_tokens=400)


def test_a_model_that_cannot_write_is_refused(folders, tmp_path):
    with pytest.raises(AttuneError, match="without its language head"):
        VlmProfiler(load_base(folders["llava"]))
    from safetensors.torch import load_file, save_file

    shutil.copytree(folders["llava"], tmp_path / "headless")
    tensors = load_file(tmp_path / "headless" / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if "lm_head" not in key}
    assert len(kept) == len(tensors) - 1
    save_file(kept, tmp_path / "headless" / "model.safetensors", metadata={"format": "pt"})
    load_base(tmp_path / "headless")
    with pytest.raises(RewardError, match="lacks 1 of its weights"):
        load_profiler(tmp_path / "headless")


def test_states_that_are_no_numbers_are_refused(folders, pairs):
    profiler = load_profiler(folders["qwen2-vl"])
    profiler.base.language_model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(AttuneError, match="zero or not finite at fp32"):
        profiler.describe(pairs, max_new_tokens=2)


def test_a_processor_that_lacks_a_package_names_it(folders, tmp_path, monkeypatch):
    from transformers import SmolVLMVideoProcessor

    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", None)
    changes = {"processor_class": "SmolVLMProcessor"}
    folder = copy_with(folders["idefics3"], tmp_path / "smol", "processor_config.json", **changes)
    SmolVLMVideoProcessor().save_pretrained(folder)
    with pytest.raises(RewardError, match=r"needs a Python package that is not there .*num2words.*Install it"):
        load_profiler(folder)


def test_states_of_another_number_of_layers_are_refused(folders, pairs):
    profiler = load_profiler(folders["qwen2-vl"])
    profiler.shape = (4, 64)
    with pytest.raises(AttuneError, match=r"states of 3 layers in the shapes \[\(64,\)\], not of 4 of 64 numbers"):
        profiler.describe(pairs, max_new_tokens=2)


def test_a_model_of_two_networks_is_refused(folders):
    base = load_base(folders["llava"], head=True)
    base.model.config.is_encoder_decoder = True
    with pytest.raises(AttuneError, match="with two networks"):
        VlmProfiler(base)


def test_memory_that_runs_out_is_said(profilers, pairs):
    def no_memory(done: int, total: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(AttuneError, match=r"Memory ran out while llava read \d+ tokens"):
        profilers["llava"].describe(pairs, on_token=no_memory, max_new_tokens=3)


def test_a_configuration_that_is_not_known(folders, tmp_path):
    folder = copy_with(folders["llava"], tmp_path / "odd", "config.json", model_type="never_heard_of")
    with pytest.raises(RewardError, match=r"of no model that this version of transformers knows"):
        embedding_shape(folder)
    assert read_config(folders["llava"]).model_type == "llava"


# ---- the written profile ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "profile"),
    [
        ("Pair 1: …\n\n## User Profile\nLikes calm colours.", "Likes calm colours."),
        ("…\n**User Profile:** Likes calm colours.", "Likes calm colours."),
        ("The user profile follows.\nUSER PROFILE\n\nLikes it.\n", "Likes it."),
        ("Likes calm colours.", "Likes calm colours."),
        ("All of it, then cut at the User Profile", "All of it, then cut at the User Profile"),
        ("", ""),
    ],
)
def test_the_profile_is_what_stands_under_its_heading(text, profile):
    assert profile_of(text) == profile
