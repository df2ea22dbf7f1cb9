"""Public reward models with random weights, each in the layout of its real file, and their scores by the libraries.

The scores are computed with none of the pack's code: the libraries' networks, or the formulas of the papers on the
tensors by the names they have in the file.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
START, END = 49406, 49407

# Small, with two heads in the picture network and one in the text network by the rule of 64 numbers per head.
TINY = {"edge": 32, "patch": 8, "vision": 128, "text": 64, "layers": 2, "projection": 32}
VIT_L = {"edge": 224, "patch": 14, "vision": 1024, "text": 768, "layers": 24, "projection": 768}


def shake(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights far from their initial values, so that every one of them matters; one block of noise, repeated."""
    noise = torch.randn(1 << 18, generator=torch.Generator().manual_seed(seed))
    for index, (name, parameter) in enumerate(network.named_parameters()):
        repeats = -(-parameter.numel() // len(noise))
        values = noise.roll(977 * index).repeat(repeats)[: parameter.numel()].reshape(parameter.shape)
        if name.endswith("logit_scale"):
            continue
        if parameter.ndim < 2:
            parameter.data = 0.1 * values + (1 if "weight" in name and "embedding" not in name else 0)
        else:
            fan = parameter[0].numel()
            parameter.data = values * (0.5 if "embedding" in name else 2 * fan**-0.5)
    return network.eval()


def transformers_clip(activation: str, *, size: dict[str, int] = TINY, seed: int = 0) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    text = {
        "hidden_size": size["text"], "intermediate_size": 4 * size["text"], "hidden_act": activation,
        "num_hidden_layers": min(size["layers"], 12), "num_attention_heads": size["text"] // 64,
        "bos_token_id": START, "eos_token_id": END, "pad_token_id": END,
    }  # fmt: skip
    vision = {
        "hidden_size": size["vision"], "intermediate_size": 4 * size["vision"], "num_hidden_layers": size["layers"],
        "num_attention_heads": size["vision"] // 64, "image_size": size["edge"], "patch_size": size["patch"],
        "hidden_act": activation,
    }  # fmt: skip
    config = {"text_config": text, "vision_config": vision, "projection_dim": size["projection"]}
    with torch.device("meta"):
        network = CLIPModel(CLIPConfig.from_dict(config))
    network = network.to_empty(device="cpu")
    for part in network.modules():
        for name, buffer in part.named_buffers(recurse=False):
            part._buffers[name] = torch.arange(buffer.shape[-1]).expand(buffer.shape)
    network.logit_scale.data.fill_(4.6)
    return shake(network, seed)


def open_clip_clip(quick_gelu: bool, *, seed: int = 0) -> nn.Module:
    import open_clip

    vision = {"image_size": TINY["edge"], "layers": 2, "width": TINY["vision"], "patch_size": TINY["patch"]}
    text = {"context_length": 77, "vocab_size": 49408, "width": TINY["text"], "heads": 1, "layers": 2}
    network = open_clip.CLIP(TINY["projection"], vision, text, quick_gelu=quick_gelu)
    network.logit_scale.data.fill_(4.6)
    return shake(network, seed)


def to_open_clip(network: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a transformers CLIP under open_clip's names."""
    found = {}
    for key, value in network.state_dict().items():
        key = key.replace("vision_model.", "visual.").replace("text_model.", "").replace("encoder.", "transformer.")
        for old, new in (
            (".layers.", ".resblocks."), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("fc1", "c_fc"),
            ("fc2", "c_proj"), ("self_attn.out_proj", "attn.out_proj"), ("pre_layrnorm", "ln_pre"),
            ("post_layernorm", "ln_post"), ("final_layer_norm", "ln_final"), ("embeddings.class_", "class_"),
            ("embeddings.patch_embedding", "conv1"), ("embeddings.position_embedding.weight", "positional_embedding"),
            ("embeddings.token_embedding", "token_embedding"), ("text_projection.weight", "text_projection"),
            ("visual_projection.weight", "visual.proj"),
        ):  # fmt: skip
            key = key.replace(old, new)
        found[key] = value.T.contiguous() if key in ("visual.proj", "text_projection") else value
    for key in [key for key in found if "self_attn.q_proj" in key]:
        parts = [found.pop(key.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        kind = key.rpartition(".")[2]
        found[key.replace(f"self_attn.q_proj.{kind}", f"attn.in_proj_{kind}")] = torch.cat(parts)
    return found


def crop(picture: np.ndarray, edge: int, *, low: bool = False) -> torch.Tensor:
    """A picture as CLIP's libraries prepare it, by torchvision, or by transformers (`low`)."""
    from torchvision import transforms

    image = Image.fromarray(picture)
    short = transforms.Resize(edge, transforms.InterpolationMode.BICUBIC)(image)
    if low:
        left, top = (short.width - edge) // 2, (short.height - edge) // 2
        square = short.crop((left, top, left + edge, top + edge))
    else:
        square = transforms.CenterCrop(edge)(short)
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])(square)[None]


def pad(picture: np.ndarray, edge: int) -> torch.Tensor:
    """A picture as HPS prepares it, by torchvision."""
    import torchvision.transforms.functional as TF

    pixels = TF.to_tensor(Image.fromarray(picture))
    scale = edge / max(pixels.shape[1:])
    shape = [round(side * scale) for side in pixels.shape[1:]]
    if shape != list(pixels.shape[1:]):
        pixels = TF.resize(pixels, shape, TF.InterpolationMode.BICUBIC, antialias=True)
    down, across = edge - shape[0], edge - shape[1]
    pixels = TF.pad(pixels, [across // 2, down // 2, across - across // 2, down - down // 2], fill=0)
    return TF.normalize(pixels, MEAN, STD)[None]


@lru_cache(maxsize=1)
def transformers_tokenizer() -> Any:
    """PickScore's: transformers' own class, from files of the vocabulary as its project has them."""
    import open_clip.tokenizer as table
    from transformers import CLIPTokenizerFast

    with gzip.open(table.default_bpe(), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(table.bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        content = json.dumps({word: index for index, word in enumerate(words)})
        Path(folder, "vocab.json").write_text(content, encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        return CLIPTokenizerFast.from_pretrained(folder)


def clip_tokens(prompt: str, *, by: str = "open_clip", padding: int = 0) -> torch.Tensor:
    """int64 [1, 77], by open_clip's or by transformers' own call."""
    import open_clip

    if by == "open_clip":
        tokens = open_clip.tokenize([prompt])
    else:
        call = transformers_tokenizer()
        tokens = call([prompt], padding="max_length", max_length=77, truncation=True, return_tensors="pt")["input_ids"]
    return tokens.masked_fill(torch.arange(77) > int(tokens.argmax()), padding) if by == "open_clip" else tokens


def cosine(network: nn.Module, pixels: torch.Tensor, prompt: str, *, by: str = "open_clip") -> float:
    """By the network's own forward pass, with the tokens of the library `by`."""
    with torch.no_grad():
        if hasattr(network, "encode_image"):
            tokens = clip_tokens(prompt, by=by)
            return F.cosine_similarity(network.encode_image(pixels), network.encode_text(tokens)).item()
        output = network(input_ids=clip_tokens(prompt, by=by, padding=END), pixel_values=pixels)
        return (output.logits_per_image.flatten() / network.logit_scale.exp()).item()


# ---- aesthetic ----


def head(width: int, prefix: str = "", seed: int = 3) -> dict[str, torch.Tensor]:
    """Five linear layers by their names in the file."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [width, 1024, 128, 64, 16, 1]
    found = {}
    for layer, before, after in zip((0, 2, 4, 6, 7), sizes[:-1], sizes[1:], strict=True):
        found[f"{prefix}layers.{layer}.weight"] = torch.randn(after, before, generator=generator) * before**-0.5
        found[f"{prefix}layers.{layer}.bias"] = torch.randn(after, generator=generator)
    return found


def through_head(features: torch.Tensor, weights: dict[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
    for layer in (0, 2, 4, 6, 7):
        name = f"{prefix}layers.{layer}"
        features = F.linear(features, weights[f"{name}.weight"], weights[f"{name}.bias"])
    return features


def image_features(network: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = network.get_image_features(pixel_values=pixels)
    return F.normalize(found if isinstance(found, torch.Tensor) else found.pooler_output, dim=-1)


# ---- ImageReward ----

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "an", "owl", "cafe", "red", "##s", "on", "!", ",")


def write_vocabulary(folder: Path, count: int = len(WORDS)) -> Path:
    """A word list in the form of bert-base-uncased."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [*WORDS, *(f"word{index}" for index in range(count - len(WORDS)))]
    file = folder / "vocab.txt"
    file.write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return file


def blip(*, vision: int = 128, text: int = 64, layers: Sequence[int] = (2, 2), edge: int = 32, words: int = len(WORDS)):
    """Random weights by the names of ImageReward.pt, with what the real file has besides."""
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(1 << 18, generator=generator)
    found: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int, scale: float | None = None, around: float = 0.0) -> None:
        count = int(np.prod(shape))
        values = noise.roll(len(found) * 977).repeat(-(-count // len(noise)))[:count].reshape(shape)
        scale = scale if scale is not None else shape[-1] ** -0.5 if len(shape) > 1 else 0.1
        found[name] = values * scale + around

    def linear(name: str, after: int, before: int) -> None:
        add(f"{name}.weight", after, before)
        add(f"{name}.bias", after)

    def norm(name: str, width: int) -> None:
        add(f"{name}.weight", width, around=1.0)
        add(f"{name}.bias", width)

    eyes, words_ = "blip.visual_encoder", "blip.text_encoder"
    add(f"{eyes}.cls_token", 1, 1, vision, scale=0.5)
    add(f"{eyes}.pos_embed", 1, (edge // 16) ** 2 + 1, vision, scale=0.5)
    add(f"{eyes}.patch_embed.proj.weight", vision, 3, 16, 16, scale=0.03)
    add(f"{eyes}.patch_embed.proj.bias", vision)
    for index in range(layers[0]):
        block = f"{eyes}.blocks.{index}"
        norm(f"{block}.norm1", vision)
        linear(f"{block}.attn.qkv", 3 * vision, vision)
        linear(f"{block}.attn.proj", vision, vision)
        norm(f"{block}.norm2", vision)
        linear(f"{block}.mlp.fc1", 4 * vision, vision)
        linear(f"{block}.mlp.fc2", vision, 4 * vision)
    norm(f"{eyes}.norm", vision)
    add(f"{words_}.embeddings.word_embeddings.weight", words + 2, text, scale=0.5)
    add(f"{words_}.embeddings.position_embeddings.weight", 512, text, scale=0.5)
    norm(f"{words_}.embeddings.LayerNorm", text)
    for index in range(layers[1]):
        block = f"{words_}.encoder.layer.{index}"
        for attention, before in (("attention", text), ("crossattention", vision)):
            linear(f"{block}.{attention}.self.query", text, text)
            linear(f"{block}.{attention}.self.key", text, before)
            linear(f"{block}.{attention}.self.value", text, before)
            linear(f"{block}.{attention}.output.dense", text, text)
            norm(f"{block}.{attention}.output.LayerNorm", text)
        linear(f"{block}.intermediate.dense", 4 * text, text)
        linear(f"{block}.output.dense", text, 4 * text)
        norm(f"{block}.output.LayerNorm", text)
    found |= head(text, "mlp.")
    found[f"{words_}.embeddings.position_ids"] = torch.arange(512)[None]
    found["blip.vision_proj.weight"] = torch.zeros(256, vision)
    found["blip.text_proj.bias"] = torch.zeros(256)
    return found


def blip_score(weights: dict[str, torch.Tensor], pixels: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor):
    """ImageReward by the formulas of ViT and BERT, on the names of the file."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, seen: torch.Tensor | None = None) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (-1, 64)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).flatten(2)

    eyes, words = "blip.visual_encoder", "blip.text_encoder"
    patches = F.conv2d(
        pixels, weights[f"{eyes}.patch_embed.proj.weight"], weights[f"{eyes}.patch_embed.proj.bias"], stride=16
    )
    x = torch.cat([weights[f"{eyes}.cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).mT], 1)
    x = x + weights[f"{eyes}.pos_embed"]
    for index in range(sum(key.endswith("attn.qkv.bias") for key in weights)):
        block = f"{eyes}.blocks.{index}"
        x = x + linear(
            f"{block}.attn.proj", attend(*linear(f"{block}.attn.qkv", norm(f"{block}.norm1", x, 1e-6)).chunk(3, -1))
        )
        x = x + linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x, 1e-6))))
    seen = norm(f"{eyes}.norm", x, 1e-6)

    y = weights[f"{words}.embeddings.word_embeddings.weight"][tokens]
    y = norm(
        f"{words}.embeddings.LayerNorm",
        y + weights[f"{words}.embeddings.position_embeddings.weight"][: y.shape[1]],
        1e-12,
    )
    visible = mask.bool()[:, None, None, :]
    for index in range(sum(key.endswith("crossattention.self.query.bias") for key in weights)):
        block = f"{words}.encoder.layer.{index}"
        for name, other, allowed in (("attention", None, visible), ("crossattention", seen, None)):
            part, source = f"{block}.{name}", y if other is None else other
            q, k, v = (
                linear(f"{part}.self.query", y),
                linear(f"{part}.self.key", source),
                linear(f"{part}.self.value", source),
            )
            y = norm(f"{part}.output.LayerNorm", linear(f"{part}.output.dense", attend(q, k, v, allowed)) + y, 1e-12)
        z = linear(f"{block}.output.dense", F.gelu(linear(f"{block}.intermediate.dense", y)))
        y = norm(f"{block}.output.LayerNorm", z + y, 1e-12)
    return (through_head(y[:, 0], weights, "mlp.").flatten() - 0.16717363) / 1.03333950


def bert_tokens(vocabulary: Path, prompts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """By the tokenizer that ImageReward's own program uses."""
    from transformers import BertTokenizer

    tokenizer = BertTokenizer(str(vocabulary))
    tokenizer.add_special_tokens({"bos_token": "[DEC]", "additional_special_tokens": ["[ENC]"]})
    found = tokenizer(list(prompts), padding="max_length", truncation=True, max_length=35, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


def save(path: Path, tensors: dict[str, torch.Tensor], **around: Any) -> Path:
    """By the ending: safetensors, or a torch file; `around` puts the tensors under "state_dict" beside other values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    else:
        torch.save({"state_dict": tensors, **around} if around else tensors, path)
    return path
