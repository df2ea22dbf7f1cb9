"""Models of the public architectures at reduced depth, with random weights in the host's own key layout.

Unlike the small models of `world`, the host finds out for itself what they are, as it does with a downloaded file: so
their widths are the real ones where it knows a model by its width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import comfy.ldm.flux.model
import comfy.ldm.modules.diffusionmodules.mmdit
import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.ops
import comfy.sd
import comfy.supported_models
import torch

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
}
SD15 = UNET | {
    "num_res_blocks": [1, 1],
    "channel_mult": (1, 1),
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "context_dim": 768,
    "num_heads": 8,
}
# All of its blocks: the host looks into the last one to tell a v model from an eps model.
SD21 = UNET | {
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 1, 1, 1),
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": 1024,
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
}
# The depths of its small relative Vega; the host knows the family by them.
SDXL = UNET | {
    "num_res_blocks": [2, 2, 2],
    "channel_mult": (1, 1, 1),
    "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "transformer_depth_middle": 2,
    "context_dim": 2048,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
    "num_head_channels": 64,
    "use_linear_in_transformer": True,
}
SD3 = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "depth": 2,
    "input_size": None,
    "adm_in_channels": 2048,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}},
    "num_patches": 36,
    "pos_embed_max_size": 6,
    "pos_embed_scaling_factor": None,
}
# Heads of 8 instead of 128; see `NarrowFlux`.
FLUX = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 192,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [2, 2, 4],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}


class NarrowFlux(comfy.supported_models.Flux):
    """What the host's Flux is but for its width, which the host takes for granted where it tells the heads' axes."""

    unet_config: ClassVar = comfy.supported_models.Flux.unet_config | {"hidden_size": FLUX["hidden_size"]}
    unet_extra_config: ClassVar = {"axes_dim": FLUX["axes_dim"]}


comfy.supported_models.models.insert(0, NarrowFlux)


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    Attributes:
        family: the host's name of it.
        prediction: "eps", "v" or "flow".
        network: the host's class; configuration: its arguments.
        context, pooled: widths of a conditioning; pooled None = it has no such part.
        shape: of one latent.
    """

    family: str
    prediction: str
    network: Any
    configuration: dict[str, Any]
    context: int
    pooled: int | None
    shape: tuple[int, int, int]

    def load(self) -> Any:
        """A MODEL, as the host's Load Diffusion Model makes it of a file with these weights."""
        with torch.inference_mode():
            network = self.network(
                **self.configuration, device="cpu", dtype=torch.float32, operations=comfy.ops.disable_weight_init
            )
            generator = torch.Generator().manual_seed(7)
            for weight in network.state_dict().values():
                # The host leaves new weights uninitialised: it means to overwrite them.
                bound = 1.0 / max(1, weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.3
                weight.uniform_(-bound, bound, generator=generator)
            model = comfy.sd.load_diffusion_model_state_dict(network.state_dict())
        assert model is not None, f"the host does not know {self.family}"
        return model


_UNET = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel
_MMDIT = comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper
ARCHITECTURES = {
    "sd15": Architecture("SD15", "eps", _UNET, SD15, 768, None, (4, 8, 8)),
    "sd21": Architecture("SD20", "v", _UNET, SD21, 1024, None, (4, 8, 8)),
    "sdxl": Architecture("Segmind_Vega", "eps", _UNET, SDXL, 2048, 1280, (4, 8, 8)),
    "sd3": Architecture("SD3", "flow", _MMDIT, SD3, 4096, 2048, (16, 8, 8)),
    "flux": Architecture("NarrowFlux", "flow", comfy.ldm.flux.model.Flux, FLUX, 4096, 768, (16, 8, 8)),
}
