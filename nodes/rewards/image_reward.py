"""ImageReward: how much people like a picture for its prompt, by a network that reads the prompt while it looks.

score = (MLP(t) − 0.16717363) / 1.03333950, t = the text network's last state at [CLS]; mostly −2.3 … 2.

A ViT-L/16 turns the picture into 197 tokens of width 1024; a BERT of 12 layers reads the prompt in both directions and,
in every layer, attends to those tokens. The networks are transformers' BlipVisionModel and BlipTextModel; the file has
the names of the original BLIP:

| file                                            | here                                              |
| ----------------------------------------------- | ------------------------------------------------- |
| blip.visual_encoder.cls_token, pos_embed        | vision.embeddings.class_embedding, position_…     |
| blip.visual_encoder.patch_embed.proj            | vision.embeddings.patch_embedding                 |
| blip.visual_encoder.blocks.#.norm1, attn.qkv,   | vision.encoder.layers.#.layer_norm1,              |
| attn.proj, norm2, mlp.fc1, mlp.fc2              | self_attn.qkv, .projection, layer_norm2, mlp.…    |
| blip.visual_encoder.norm                        | vision.post_layernorm                             |
| blip.text_encoder.…                             | text.… , the same names                           |
| mlp.layers.{0,2,4,6,7}                          | head.{0,2,4,6,7}                                  |
| …position_ids; everything else under blip.      | not used (projections, a text decoder)            |

Reference:
    Xu et al. 2023, "ImageReward: learning and evaluating human preferences for text-to-image generation"; Li et al.
    2022, "BLIP".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...training.characters import whole_characters
from ...training.interfaces import RewardContext, RewardError
from .layouts import HEAD_WIDTH, Shapes
from .networks import NetworkReward, assemble, linear_head
from .pictures import to_rgb
from .preprocessing import Preprocessing

MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
TOKENS = 35
IMAGES_AT_ONCE = 16
VISION, TEXT, HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp."
ADDED = ("[DEC]", "[ENC]")
VOCABULARY_FOLDER = "bert-base-uncased"
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")

_RENAMED = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm1\.", ".layer_norm1."),
    (r"\.norm2\.", ".layer_norm2."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)

log = logging.getLogger("attune")


class ImageReward(NetworkReward):
    """ImageReward. Differentiable in the picture.

    Args:
        name: what people call it.
        network: ModuleDict of "vision", "text" and "head", as `build` makes it.
        tokenizer: as `load_tokenizer` makes it.
        reward_id: identity of the weights and of the vocabulary.
        device: where to compute.
        dtype: arithmetic of the networks; the head and scores are float32.
    """

    uses_prompt = True

    def __init__(
        self,
        name: str,
        network: nn.ModuleDict,
        tokenizer: Any,
        *,
        reward_id: str,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(name, network, reward_id=reward_id, device=device)
        self.tokenizer = tokenizer
        self.dtype = dtype
        self.prepare = Preprocessing(network["vision"].config.image_size)

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → scores float32 [B], on the images' device.

        Raises:
            RewardError: the images are no pictures (see `to_rgb`), or prompts and images differ in number.
        """
        if len(images) != len(prompts):
            raise RewardError(f"{self.name}: {len(images)} images but {len(prompts)} prompts; give one per image.")
        images = to_rgb(images)
        if len(images) == 0:
            return images.new_zeros(0)
        device = self.place()
        tokens, mask = (values.to(device) for values in tokenize(self.tokenizer, prompts))
        parts = zip(*(values.split(IMAGES_AT_ONCE) for values in (images, tokens, mask)), strict=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            return torch.cat([self._score(image.to(device), *words) for image, *words in parts]).to(images.device)

    def _score(self, images: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, h, w, 3], [B, 35], [B, 35] → [B]."""
        self.between()
        seen = self.network["vision"](pixel_values=self.prepare(images).to(self.dtype)).last_hidden_state
        # The network is built as a decoder, because only those have cross-attention, and used as an encoder.
        states = self.network["text"](
            input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False
        ).last_hidden_state
        return (self.network["head"](states[:, 0].float()).flatten() - MEAN) / DEVIATION


def build(tensors: dict[str, torch.Tensor], source: str, dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    """The networks of an ImageReward file; see `networks.assemble`.

    Args:
        tensors: the file's weights; emptied.
        source: file name for messages.
        dtype: arithmetic of vision and text.

    Raises:
        RewardError: tensors are missing, of another shape, or too many inside the parts that are used.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {VISION: {}, TEXT: {}, HEAD: {}}
    unused = []
    for key in list(tensors):
        mark = next((mark for mark in parts if key.startswith(mark)), None)
        if mark is None:
            unused.append(key)
            del tensors[key]
        else:
            parts[mark][key.removeprefix(mark)] = tensors.pop(key)
    if unused:
        log.info("Attune: %s has %d tensors that are not used: %s, …", source, len(unused), ", ".join(unused[:3]))
    vision, text = {_renamed(key): value for key, value in parts[VISION].items()}, parts[TEXT]
    vision_config = _vision_config({key: tuple(value.shape) for key, value in vision.items()}, source)
    text_config = _text_config({key: tuple(value.shape) for key, value in text.items()}, source)

    def build_vision() -> nn.Module:
        from transformers import BlipVisionConfig, BlipVisionModel

        return BlipVisionModel(BlipVisionConfig(**vision_config))

    def build_text() -> nn.Module:
        from transformers import BlipTextConfig
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        return BlipTextModel(BlipTextConfig(**text_config), add_pooling_layer=False)

    common = {"library": "transformers", "described_by": "tensor shapes", "dtype": dtype}
    return nn.ModuleDict(
        {
            "vision": assemble(build_vision, vision, source, **common),
            "text": assemble(build_text, text, source, **common),
            "head": linear_head(parts[HEAD], source),
        }
    )


def _renamed(key: str) -> str:
    for pattern, name in _RENAMED:
        key = re.sub(pattern, name, key)
    return key


def _vision_config(shapes: Shapes, source: str) -> dict[str, Any]:
    patch = _shape(shapes, "embeddings.patch_embedding.weight", 4, source)
    places = _shape(shapes, "embeddings.position_embedding", 3, source)[1]
    hidden = _shape(shapes, "encoder.layers.0.mlp.fc1.weight", 2, source)[0]
    return {
        "hidden_size": patch[0],
        "intermediate_size": hidden,
        "num_hidden_layers": _count(shapes, r"encoder\.layers\.(\d+)\."),
        "num_attention_heads": _heads(patch[0], source),
        "patch_size": patch[-1],
        "image_size": round((places - 1) ** 0.5) * patch[-1],
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
    }


def _text_config(shapes: Shapes, source: str) -> dict[str, Any]:
    words, width = _shape(shapes, "embeddings.word_embeddings.weight", 2, source)
    return {
        "vocab_size": words,
        "hidden_size": width,
        "encoder_hidden_size": _shape(shapes, "encoder.layer.0.crossattention.self.key.weight", 2, source)[1],
        "intermediate_size": _shape(shapes, "encoder.layer.0.intermediate.dense.weight", 2, source)[0],
        "num_hidden_layers": _count(shapes, r"encoder\.layer\.(\d+)\."),
        "num_attention_heads": _heads(width, source),
        "max_position_embeddings": _shape(shapes, "embeddings.position_embeddings.weight", 2, source)[0],
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "is_decoder": True,
        # Never looked up; the library warns of numbers that lie outside of the vocabulary.
        "bos_token_id": words - 2,
        "sep_token_id": words - 1,
        "eos_token_id": words - 1,
    }


def _shape(shapes: Shapes, key: str, dimensions: int, source: str) -> tuple[int, ...]:
    shape = shapes.get(key)
    if shape is None or len(shape) != dimensions:
        found = f"has the shape {list(shape)}" if shape is not None else "is missing"
        raise RewardError(
            f"{source} looks like ImageReward, but its tensor for {key}, of {dimensions} dimensions, {found}. The file "
            "is damaged; get ImageReward.pt from THUDM/ImageReward on the Hugging Face Hub again."
        )
    return shape


def _count(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for key in shapes if (match := re.match(pattern, key))})


def _heads(width: int, source: str) -> int:
    if width % HEAD_WIDTH:
        raise RewardError(
            f"{source}: a network of width {width} has no heads of {HEAD_WIDTH}, as those of ImageReward. "
            "Choose another file."
        )
    return width // HEAD_WIDTH


def find_vocabulary(path: Path, folders: Sequence[Path] = ()) -> Path:
    """The word list of bert-base-uncased: in a folder of that name among reward models, beside the file, or in the
    cache that programs of the Hugging Face Hub share. Nothing is downloaded.

    Args:
        path: the ImageReward file.
        folders: other folders of reward models.

    Raises:
        RewardError: there is none; says which file to get, where, and where to put it.
    """
    places = [folder / VOCABULARY_FOLDER for folder in (path.parent, *folders)]
    found = [place / name for place in places for name in VOCABULARY_FILES] + [path.parent / VOCABULARY_FILES[0]]
    for file in found:
        if file.is_file():
            return file
    cached = _cached_vocabulary()
    if cached is None:
        raise RewardError(
            f"{path.name} reads prompts with the word list of bert-base-uncased, which was not found. Get vocab.txt "
            f"(0.2 MB) from google-bert/bert-base-uncased on the Hugging Face Hub and put it into {places[0]}."
        )
    return cached


def _cached_vocabulary() -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    for project in ("google-bert/bert-base-uncased", "bert-base-uncased"):
        for name in VOCABULARY_FILES:
            file = try_to_load_from_cache(project, name)
            if isinstance(file, str) and Path(file).is_file():
                return Path(file)
    return None


def load_tokenizer(vocabulary: Path, words: int, source: str) -> Any:
    """The tokenizer of bert-base-uncased with BLIP's two words added, from a vocab.txt or a tokenizer.json.

    Args:
        vocabulary: the file.
        words: rows of the network's word table, the two added ones included.
        source: ImageReward file for messages.

    Raises:
        RewardError: the file cannot be read, or has not as many words as the network.
    """
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    try:
        if vocabulary.suffix == ".json":
            tokenizer = Tokenizer.from_file(str(vocabulary))
        else:
            tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        tokenizer.add_special_tokens(list(ADDED))
        pad = tokenizer.token_to_id("[PAD]")
        tokenizer.enable_truncation(TOKENS)
        tokenizer.enable_padding(length=TOKENS, pad_id=pad, pad_token="[PAD]")
    except Exception as error:  # the library raises plain exceptions of its own
        raise RewardError(
            f"{vocabulary} is no word list of bert-base-uncased ({error}). Get its vocab.txt from "
            "google-bert/bert-base-uncased on the Hugging Face Hub."
        ) from error
    if tokenizer.token_to_id(ADDED[-1]) != words - 1:
        raise RewardError(
            f"{vocabulary} has {tokenizer.get_vocab_size() - len(ADDED)} words, but {source} was trained with "
            f"{words - len(ADDED)}. Get vocab.txt from google-bert/bert-base-uncased on the Hugging Face Hub."
        )
    return tokenizer


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask, int64 [B, 35] each: [CLS] words [SEP] [PAD]…; longer prompts are cut.

    Half a character counts as the sign for an unknown one.
    """
    encoded = tokenizer.encode_batch([whole_characters(prompt) for prompt in prompts])
    return torch.tensor([row.ids for row in encoded]), torch.tensor([row.attention_mask for row in encoded])
