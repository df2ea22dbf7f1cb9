"""Tiny language models with random weights and real tokenizers: what they write means nothing, everything else is real.

A Llama whose byte-level tokenizer has marks of turns as special tokens and a chat template, and a GPT-2 with neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXT = (
    'a cat on a red background, {"prompt": "a dog in a park", "negative": "hat"} make the background blue please. '
    "The user sends JSON; answer with JSON. Größe 猫 🎩"
)
MARKS = ("<|start|>", "<|end|>", "[INST]")
TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# Refuses a system's turn, as some real ones do.
STRICT = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE


def _tokenizer(template: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = list(MARKS) if template else []
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|pad|>", *marks], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    end = "<|end|>" if template else "<|pad|>"
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token=end, extra_special_tokens=marks
    )
    made.chat_template = template
    return made


def llama(folder: Path, *, template: str | None = TEMPLATE, seed: int = 0) -> Path:
    """Write a model folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    tokenizer = _tokenizer(template)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=4096, initializer_range=0.5, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gpt2(folder: Path) -> Path:
    """Write a model folder without chat template."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = _tokenizer(None)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=4096, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
