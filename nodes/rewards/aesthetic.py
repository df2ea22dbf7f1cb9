"""LAION's aesthetic predictor: how much people like a picture, whatever it shows.

score = five linear layers of the unit vector of image features of OpenAI's CLIP ViT-L/14. About 1 … 10, mostly 4.5 … 7.

The predictor's own file holds the layers only. The CLIP is a second file: the whole model or its picture half, in the
layout of transformers (`vision_model.…` and `visual_projection.weight`) or of open_clip (`visual.…`).

Reference:
    Schuhmann 2022, "improved-aesthetic-predictor" (sac+logos+ava1-l14-linearMSE).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ...training.interfaces import RewardContext, RewardError
from .files import read_file, read_shapes
from .layouts import Layout, PictureTower, Shapes, detect, picture_tower, ratio, transformers_vision_config
from .networks import NetworkReward, assemble
from .pictures import to_rgb
from .preprocessing import Preprocessing

IMAGES_AT_ONCE = 32
FULL_WIDTH = 768
_HALF = ("vision_model.", "visual_projection.", "visual.")


class AestheticReward(NetworkReward):
    """How much people like a picture. Differentiable; needs no prompt.

    Args:
        name: what people call it.
        encode: pixels [B, 3, size, size] → image features [B, D] by the network under "clip".
        network: ModuleDict of "clip" and "head".
        prepare: how pictures are brought to the network.
        reward_id: identity of both files.
        device: where to compute.
        dtype: arithmetic of the CLIP; the head and scores are float32.
    """

    uses_prompt = False

    def __init__(
        self,
        name: str,
        encode: Callable[[nn.Module, torch.Tensor], torch.Tensor],
        network: nn.ModuleDict,
        prepare: Preprocessing,
        *,
        reward_id: str,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(name, network, reward_id=reward_id, device=device)
        self.encode = encode
        self.prepare = prepare
        self.dtype = dtype

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1]; prompts are not looked at → scores float32 [B], on the images' device.

        Raises:
            RewardError: the images are no pictures (see `to_rgb`).
        """
        images = to_rgb(images)
        if len(images) == 0:
            return images.new_zeros(0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            return self._over(images, lambda features: self.network["head"](features).flatten())

    def image_features(self, images: torch.Tensor, *, with_gradients: bool = False) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1], B ≥ 0 → unit vectors float32 [B, D] on the images' device; see `ClipReward`.

        Raises:
            RewardError: the images are no pictures (see `to_rgb`).
        """
        images = to_rgb(images)
        if len(images) == 0:
            return images.new_zeros(0, self.network["head"][0].in_features)
        with torch.set_grad_enabled(with_gradients and torch.is_grad_enabled()):
            return self._over(images, lambda features: features)

    def _over(self, images: torch.Tensor, last: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        device = self.place()
        found = []
        for part in images.split(IMAGES_AT_ONCE):
            self.between()
            features = self.encode(self.network["clip"], self.prepare(part.to(device)).to(self.dtype))
            found.append(last(F.normalize(features.float(), dim=-1)))
        return torch.cat(found).to(images.device)


def find_clip(candidates: Iterable[Path], width: int, predictor: Path) -> Path:
    """The first file that holds the CLIP of a predictor; of safetensors files only the headers are read, others never.

    Args:
        candidates: model files, in the order of preference.
        width: how many image features the predictor takes; 768 must be those of a ViT-L/14 for pictures of 224².
        predictor: for the message.

    Raises:
        RewardError: there is none; says which file to get, where, and where to put it.
    """
    for path in candidates:
        if fits(read_shapes(path), width):
            return path
    raise RewardError(
        f"{predictor.name} scores the image features of OpenAI's CLIP ViT-L/14, and no file with them was found. Get "
        "model.safetensors (1.7 GB) from openai/clip-vit-large-patch14 on the Hugging Face Hub and put it as "
        f"clip-vit-large-patch14.safetensors into models/clip_vision or {predictor.parent}, or choose a file under "
        "clip_name."
    )


def fits(shapes: Shapes, width: int) -> bool:
    """Whether tensors of these shapes give a predictor its `width` image features."""
    layout = detect(shapes)
    if layout not in ("transformers", "open_clip"):
        return False
    try:
        picture = picture_tower(shapes, layout, "")
    except RewardError:
        return False
    if picture.projection != width:
        return False
    return width != FULL_WIDTH or (picture.size, picture.patch, picture.image_size) == ("ViT-L", 14, 224)


def load_clip(path: Path, width: int, dtype: torch.dtype) -> tuple[Layout, PictureTower, nn.Module]:
    """The picture half of a CLIP file: its layout, its measures and the network, as `networks.assemble` makes it.

    Args:
        path: the file; a whole CLIP is read in part.
        width: how many image features the predictor takes.
        dtype: arithmetic of the network.

    Raises:
        RewardError: the file cannot be read or holds no CLIP that fits.
    """
    file = read_file(path, keep=lambda key: key.startswith(_HALF))
    layout = detect(file.shapes)
    if not fits(file.shapes, width) or layout is None:
        raise RewardError(
            f"{path.name} does not hold a CLIP picture network with {width} image features, as the aesthetic predictor "
            "needs it. Choose the file of OpenAI's ViT-L/14 (openai/clip-vit-large-patch14) under clip_name."
        )
    picture = picture_tower(file.shapes, layout, path.name)
    tensors = dict(file.tensors)
    if layout == "open_clip":
        tensors = {key.removeprefix("visual."): tensor for key, tensor in tensors.items()}
    library = "transformers" if layout == "transformers" else "open_clip"
    network = assemble(
        lambda: _picture_network(layout, picture),
        tensors,
        path.name,
        library=library,
        described_by="tensor shapes",
        dtype=dtype,
    )
    return layout, picture, network


def _picture_network(layout: Layout, picture: PictureTower) -> nn.Module:
    if layout == "transformers":
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        return CLIPVisionModelWithProjection(CLIPVisionConfig(**transformers_vision_config(picture, "quick_gelu")))
    from open_clip.transformer import QuickGELU, VisionTransformer

    return VisionTransformer(
        image_size=picture.image_size,
        patch_size=picture.patch,
        width=picture.width,
        layers=picture.layers,
        heads=picture.heads,
        mlp_ratio=ratio(picture),
        output_dim=picture.projection,
        act_layer=QuickGELU,
    )


def encoder_of(layout: Layout) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """How that library's picture network is asked: pixels → image features [B, D]."""
    if layout == "transformers":
        return lambda network, pixels: network(pixel_values=pixels).image_embeds
    return lambda network, pixels: network(pixels)
