"""The demo model's networks, built from diffusers and transformers, and their key layout in a host checkpoint.

The networks are exactly those the host builds for a Stable Diffusion checkpoint, only smaller:
    U-Net          diffusers UNet2DConditionModel    = the host's UNetModel       (`model.diffusion_model.`)
    text encoder   transformers CLIPTextModel        = the host's CLIP text tower (`cond_stage_model.transformer.`)
    autoencoder    diffusers AutoencoderTiny         = the host's TAESD           (`first_stage_model.`)
so that a model trained here loads through the host's stock checkpoint loader.
"""

from __future__ import annotations

import re
from functools import lru_cache

import torch
from torch import nn

LATENT_CHANNELS = 16
LATENT_SIZE = 8
WIDTH = 64
MULTIPLIERS = (1, 2, 3)
HEAD_WIDTH = 32
CONTEXT = 128
TEXT_LAYERS = 2
TEXT_HEADS = 4
TOKENS = 77
VOCABULARY = 49408
START_TOKEN, END_TOKEN = 49406, 49407


def build_unet() -> nn.Module:
    """The denoiser: v-prediction, latents [B, 16, 8, 8], context [B, 77, 128], timesteps 0…999."""
    from diffusers import UNet2DConditionModel

    widths = tuple(WIDTH * m for m in MULTIPLIERS)
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        cross_attention_dim=CONTEXT,
        attention_head_dim=tuple(width // HEAD_WIDTH for width in widths),  # diffusers' name for the number of heads
        norm_num_groups=32,
    )


def build_text_encoder() -> nn.Module:
    """The text tower; its `last_hidden_state` is the conditioning, as behind the host's CLIPTextEncode."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=CONTEXT,
            intermediate_size=4 * CONTEXT,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=TEXT_HEADS,
            max_position_embeddings=TOKENS,
            hidden_act="quick_gelu",
            bos_token_id=START_TOKEN,
            eos_token_id=END_TOKEN,
            pad_token_id=END_TOKEN,
        )
    )


def build_autoencoder() -> nn.Module:
    """The TAESD layout with 16 latent channels: images in [0, 1] to latents and back."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(latent_channels=LATENT_CHANNELS)


@lru_cache(maxsize=1)
def _clip_tokenizer():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=TOKENS)


def tokenize(texts: list[str]) -> torch.Tensor:
    """CLIP tokens, int64 [B, 77], padded with the end token as the host pads for Stable Diffusion 1."""
    encode = _clip_tokenizer().encode
    rows = []
    for text in texts:
        tokens = encode(text)[: TOKENS - 2]
        rows.append([START_TOKEN, *tokens] + [END_TOKEN] * (TOKENS - 1 - len(tokens)))
    return torch.tensor(rows)


def used_tokens(texts: list[str]) -> torch.Tensor:
    """The tokens that any of `texts` uses, ascending, int64 [R]."""
    return torch.unique(tokenize(texts))


def keep_token_rows(table: torch.Tensor, texts: list[str]) -> None:
    """Zero every row of a token table that none of `texts` uses, so that it compresses away in the file's archive."""
    mask = torch.zeros(len(table), 1)
    mask[used_tokens(texts)] = 1
    with torch.no_grad():
        table.mul_(mask)


# ---- key layouts -----------------------------------------------------------------------------------------------------

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet_key_to_host(key: str, *, layers_per_block: int = 1, levels: int = len(MULTIPLIERS)) -> str:
    """Translate one diffusers U-Net key to the original Stable Diffusion layout that the host reads."""
    for ours, theirs in _OUTER.items():
        if key.startswith(ours + "."):
            return theirs + key[len(ours) :]
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", key)
    if match:
        side, level, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if side == "down":
            block = 1 + level * (layers_per_block + 1) + (layers_per_block if kind == "downsamplers" else layer)
            prefix, slot = f"input_blocks.{block}", {"resnets": 0, "attentions": 1, "downsamplers": 0}[kind]
        else:
            block = level * (layers_per_block + 1) + (layers_per_block if kind == "upsamplers" else layer)
            prefix, slot = f"output_blocks.{block}", {"resnets": 0, "attentions": 1, "upsamplers": 2}[kind]
        rest = _resnet_rest(rest) if kind == "resnets" else rest
        rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        return f"{prefix}.{slot}.{rest}"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", key)
    if match:
        if match[1] == "resnets":
            return f"middle_block.{2 * int(match[2])}.{_resnet_rest(match[3])}"
        return f"middle_block.1.{match[3]}"
    raise KeyError(f"No place in the Stable Diffusion layout for {key!r}")


def _resnet_rest(rest: str) -> str:
    name, _, leaf = rest.partition(".")
    return f"{_RESNET[name]}.{leaf}"


def autoencoder_key_to_host(key: str) -> str:
    """Translate one AutoencoderTiny key to the TAESD layout of the host's VAE slot."""
    side, _, number, rest = key.split(".", 3)
    # The host's decoder counts the input clamp as layer 0; diffusers does it outside the list.
    index = int(number) + (1 if side == "decoder" else 0)
    return f"taesd_{side}.{index}.{rest}"


def host_checkpoint(
    unet: nn.Module, text: nn.Module, autoencoder: nn.Module, *, dtype: torch.dtype = torch.float16
) -> dict[str, torch.Tensor]:
    """All weights in the host's checkpoint layout."""
    tensors = {f"model.diffusion_model.{unet_key_to_host(k)}": v for k, v in unet.state_dict().items()}
    for key, value in text.state_dict().items():
        key = key if key.startswith("text_model.") else f"text_model.{key}"
        tensors[f"cond_stage_model.transformer.{key}"] = value
    for key, value in autoencoder.state_dict().items():
        tensors[f"first_stage_model.{autoencoder_key_to_host(key)}"] = value
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in tensors.items()}


def load_host_checkpoint(tensors: dict[str, torch.Tensor]) -> tuple[nn.Module, nn.Module, nn.Module]:
    """The inverse of `host_checkpoint`: (U-Net, text encoder, autoencoder) in float32, in eval mode.

    Raises:
        KeyError: the checkpoint lacks a key of these networks.
    """
    unet, text, autoencoder = build_unet(), build_text_encoder(), build_autoencoder()
    unet.load_state_dict(
        {k: tensors[f"model.diffusion_model.{unet_key_to_host(k)}"].float() for k in unet.state_dict()}
    )
    text.load_state_dict(
        {
            k: tensors["cond_stage_model.transformer." + (k if k.startswith("text_model.") else f"text_model.{k}")].to(
                v.dtype
            )
            for k, v in text.state_dict().items()
        }
    )
    autoencoder.load_state_dict(
        {k: tensors[f"first_stage_model.{autoencoder_key_to_host(k)}"].float() for k in autoencoder.state_dict()}
    )
    return unet.eval(), text.eval(), autoencoder.eval()
