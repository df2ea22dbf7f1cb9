"""A tiny vision-language model of a real architecture, with random weights: LLaVA of transformers' own classes.

A CLIP vision tower, a projector and a Llama language model, with a tokenizer of its own. Written in about half a
second, always the same. Its scores mean nothing; everything around them is real.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

WORDS = (
    "Prompt : How well does the image show what prompt asks for , and how good is it ? a an cat dog rose house car "
    "star fox in on style background flat cartoon 3d white black red green blue yellow picture of not"
)
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% else %}{{ ' ' + part['text'] }}{% endif %}{% endfor %} </s>{% endfor %}"
    "{% if add_generation_prompt %} <s>{% endif %}"
)


def make_tokenizer(texts: Sequence[str]) -> Any:
    """A tokenizer of whole words, which knows those of the texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(sorted(texts), trainers.WordLevelTrainer(special_tokens=list(SPECIAL)))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip


def make_processor(tokenizer: Any, *, image_size: int, patch: int, chat_template: str | None = None) -> Any:
    from transformers import CLIPImageProcessor, LlavaProcessor

    pictures = CLIPImageProcessor(
        size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}
    )
    return LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=patch, vision_feature_select_strategy="full",
        num_additional_image_tokens=1, chat_template=chat_template,
    )  # fmt: skip


def make_model(
    tokenizer: Any, *, image_size: int, patch: int, vision: tuple[int, int, int], language: tuple[int, int, int]
) -> Any:
    """A LLaVA with random weights.

    Args:
        tokenizer: from `make_tokenizer`.
        vision, language: width, layers, heads.
    """
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sight = CLIPVisionConfig(
        hidden_size=vision[0], intermediate_size=2 * vision[0], num_hidden_layers=vision[1],
        num_attention_heads=vision[2], image_size=image_size, patch_size=patch,
    )  # fmt: skip
    speech = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=language[0], intermediate_size=2 * language[0],
        num_hidden_layers=language[1], num_attention_heads=language[2], num_key_value_heads=language[2],
        max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, initializer_range=language[0] ** -0.5,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=sight, text_config=speech, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full", vision_feature_layer=-1, image_seq_length=(image_size // patch) ** 2 + 1,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config).eval()


def write_tiny_vlm(folder: Path, *, seed: int = 0, chat_template: str | None = None) -> Path:
    """Write the model folder; a seed of its own gives another model. torch's random state is left as it was."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer([WORDS])
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(tokenizer, image_size=32, patch=8, vision=(32, 2, 2), language=(64, 2, 2))
    model.save_pretrained(folder)
    make_processor(tokenizer, image_size=32, patch=8, chat_template=chat_template).save_pretrained(folder)
    return folder
