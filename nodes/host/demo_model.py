"""Teaches the host the shape of the demo model, so that its stock loader, text encoder, sampler and VAE nodes run it.

The shapes are those of `training/demo/networks.py`. Nothing else matches this entry: it asks for 16 latent channels,
64 model channels and a context of 128.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from ...training.demo import networks

NAME = "AttuneDemo"
# The host divides a latent by this before decoding: the denoiser's latents have unit variance, the autoencoder's 1/1.5.
LATENT_SCALE = 1.5
# Mean colour of the patch that each latent channel paints, and of the mean patch, in [-1, 1]: the linear (PCA) basis
# of `training.demo.train_model.fit_latents`. Channels left out paint detail, not colour.
LATENT_COLOURS = {0: (-0.1805, -0.1431, -0.0994), 1: (0.1343, -0.0230, -0.2107), 2: (0.1110, -0.2047, 0.0931)}
MEAN_COLOUR = (0.3217, 0.0689, -0.0479)


def register() -> None:
    """Append the demo model to the host's list of known models, once. Being last, it matches if nothing else does."""
    import comfy.supported_models

    if all(model.__name__ != NAME for model in comfy.supported_models.models):
        comfy.supported_models.models.append(demo_model())


def _text_encoder() -> tuple[type, type]:
    from comfy import sd1_clip

    configuration = {
        "hidden_size": networks.CONTEXT,
        "intermediate_size": 4 * networks.CONTEXT,
        "num_hidden_layers": networks.TEXT_LAYERS,
        "num_attention_heads": networks.TEXT_HEADS,
        "max_position_embeddings": networks.TOKENS,
        "vocab_size": networks.VOCABULARY,
        "hidden_act": "quick_gelu",
        "eos_token_id": networks.END_TOKEN,
    }

    class DemoClip(sd1_clip.SDClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006 (the host's signature)
            super().__init__(
                device=device,
                dtype=dtype,
                textmodel_json_config=dict(configuration),
                return_projected_pooled=False,
                model_options=model_options,
            )

    class DemoTextEncoder(sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):  # noqa: B006 (the host's signature)
            super().__init__(device=device, dtype=dtype, model_options=model_options, clip_model=DemoClip)

    class DemoTokenizer(sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data={}):  # noqa: B006 (the host's signature)
            super().__init__(
                embedding_directory=embedding_directory,
                embedding_size=networks.CONTEXT,
                tokenizer_data=tokenizer_data,
            )

    class DemoTokenizers(sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data={}):  # noqa: B006 (the host's signature)
            super().__init__(
                embedding_directory=embedding_directory, tokenizer_data=tokenizer_data, tokenizer=DemoTokenizer
            )

    return DemoTokenizers, DemoTextEncoder


def demo_model() -> type:
    """The host's description of the demo model: a `comfy.supported_models_base.BASE`."""
    from comfy import latent_formats, model_base, supported_models, supported_models_base

    class DemoLatents(latent_formats.LatentFormat):
        scale_factor = LATENT_SCALE
        latent_channels = networks.LATENT_CHANNELS
        latent_rgb_factors: ClassVar = [
            LATENT_COLOURS.get(channel, (0.0, 0.0, 0.0)) for channel in range(latent_channels)
        ]
        latent_rgb_factors_bias = MEAN_COLOUR

    class AttuneDemo(supported_models.SD15):
        unet_config: ClassVar = {
            **supported_models.SD15.unet_config,
            "in_channels": networks.LATENT_CHANNELS,
            "model_channels": networks.WIDTH,
            "context_dim": networks.CONTEXT,
        }
        unet_extra_config: ClassVar = {"num_heads": -1, "num_head_channels": networks.HEAD_WIDTH}
        latent_format = DemoLatents

        def model_type(self, state_dict, prefix=""):
            return model_base.ModelType.V_PREDICTION

        def inpaint_model(self):
            # The host takes more than four input channels for an inpainting model.
            return False

        def process_vae_state_dict(self, state_dict):
            if "taesd_decoder.1.weight" in state_dict:
                state_dict.setdefault("vae_scale", torch.tensor(1.0))
                state_dict.setdefault("vae_shift", torch.tensor(0.0))
            return state_dict

        def clip_target(self, state_dict={}):  # noqa: B006 (the host's signature)
            return supported_models_base.ClipTarget(*_text_encoder())

    AttuneDemo.__name__ = NAME
    return AttuneDemo
