"""Tiny vision-language models with random weights that follow a conversation with several pictures.

Qwen2-VL, Idefics3 (which SmolVLM is too), LLaVA-OneVision. Written in about half a second each, always the same. What
they write means nothing; everything around it is real: the places of pictures in three dimensions and the merged
patches of the first, the cut pictures of the others, the classes and processors, and the ways of their chat templates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .tiny_vlm import WORDS

_QWEN = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>")
_QWEN_TEMPLATE = (
    "{% for message in messages %}<s> {% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s> {% endif %}"
)
_IDEFICS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
_IDEFICS_TEMPLATE = (
    "<s>{% for message in messages %}User:{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

_ONEVISION = ("<image>", "<video>")
# As the real one: all pictures first, whatever the order in the conversation.
_ONEVISION_TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + ' ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + part['text'] }}{% endfor %}"
    "</s>{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def _tokenizer(special: tuple[str, ...]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    own = ["<pad>", "<unk>", "<s>", "</s>", *special]
    tokenizer.train_from_iterator([WORDS], trainers.WordLevelTrainer(special_tokens=own))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=list(special),
    )  # fmt: skip


def _language(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.125,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip


def write_tiny_qwen(folder: Path, *, seed: int = 0, layers: int = 2) -> Path:
    """A Qwen2-VL. With more layers of its language model it takes longer."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    tokenizer = _tokenizer(_QWEN)
    start, picture, end, video = tokenizer.convert_tokens_to_ids(list(_QWEN))
    rope = {"type": "mrope", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0}
    config = Qwen2VLConfig(
        text_config=_language(tokenizer) | {"num_hidden_layers": layers, "rope_scaling": rope},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=picture, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=56 * 84), tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(), chat_template=_QWEN_TEMPLATE,
    )  # fmt: skip
    return _write(folder, Qwen2VLForConditionalGeneration, config, processor, seed)


def write_tiny_idefics(folder: Path, *, seed: int = 0) -> Path:
    """An Idefics3."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor, Idefics3Processor

    tokenizer = _tokenizer(_IDEFICS)
    config = Idefics3Config(
        text_config=_language(tokenizer) | {"model_type": "llama"},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=2, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    processor = Idefics3Processor(
        Idefics3ImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}), tokenizer,
        image_seq_len=4, chat_template=_IDEFICS_TEMPLATE,
    )  # fmt: skip
    return _write(folder, Idefics3ForConditionalGeneration, config, processor, seed)


def write_tiny_onevision(folder: Path, *, seed: int = 0) -> Path:
    """A LLaVA-OneVision."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tokenizer = _tokenizer(_ONEVISION)
    picture, video = tokenizer.convert_tokens_to_ids(list(_ONEVISION))
    pieces, side = [[32, 32], [32, 64], [64, 32], [64, 64]], {"height": 32, "width": 32}
    config = LlavaOnevisionConfig(
        text_config=_language(tokenizer) | {"model_type": "qwen2"},
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        image_token_index=picture, video_token_index=video, image_grid_pinpoints=pieces,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    processor = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(size=side, image_grid_pinpoints=pieces), tokenizer,
        LlavaOnevisionVideoProcessor(size=side), num_image_tokens=16, vision_feature_select_strategy="full",
        chat_template=_ONEVISION_TEMPLATE,
    )  # fmt: skip
    return _write(folder, LlavaOnevisionForConditionalGeneration, config, processor, seed)


def _write(folder: Path, kind: Any, config: Any, processor: Any, seed: int) -> Path:
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind(config).eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
