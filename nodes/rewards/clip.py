"""CLIP-type rewards: how well a picture and its prompt agree.

score = cos(image features, text features), from a network of transformers or of open_clip; PickScore multiplies it by
exp(logit_scale), which the network has learned.

| step        | clip-hf                                         | clip-open_clip                     |
| ----------- | ----------------------------------------------- | ---------------------------------- |
| network     | transformers.CLIPModel(CLIPConfig)               | open_clip.CLIP(**config)           |
| text tokens | `clip_tokens`, padded with the end token 49407   | `clip_tokens`, padded with 0       |
| picture     | `preprocessing.Preprocessing`; files that describe themselves: `pictures.fit_square`  | the same |

References:
    Radford et al. 2021, "Learning transferable visual models from natural language supervision".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from ...training.interfaces import RewardContext, RewardError
from ...training.vlm_reward import KIND as VLM
from .clip_tokens import END_TOKEN, Tokens, tokenize
from .networks import NetworkReward, assemble, in_arithmetic, tensor_of
from .pictures import to_rgb
from .preprocessing import Preprocessing

Kind = Literal["clip-hf", "clip-open_clip"]
KINDS: tuple[str, ...] = get_args(Kind)

IMAGES_AT_ONCE = 32
TEXTS_KEPT = 1024
TOKEN_TABLE, TOKEN_ROWS = "token_embedding.weight", "token_rows"


@dataclass(frozen=True)
class ClipHeader:
    """What a reward file says about itself.

    Attributes:
        kind: which library built the network, and so the key layout of the weights.
        name: what people call the reward.
        image_size: edge of the square picture the network sees, in pixels.
        mean, std: normalisation of the three channels.
        config: the library's own configuration of the network.
    """

    kind: Kind
    name: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    config: Mapping[str, Any]

    @classmethod
    def read(cls, header: object, source: str) -> ClipHeader:
        """Check a parsed header at the door. Fields that are not ours (a recipe, test figures) are left alone.

        Raises:
            RewardError: unknown kind, a field is missing or of the wrong form; names `source` and the field.
        """
        if not isinstance(header, Mapping):
            raise RewardError(f"{source}: the header 'attune.reward' is not a JSON object. Save the file again.")
        kind = header.get("kind")
        if kind == VLM:
            raise RewardError(
                f"{source} is a trained reward of a vision-language model. Load VLM Reward loads this, together with "
                "the model that it was trained on."
            )
        if kind not in KINDS:
            raise RewardError(
                f"{source} holds a reward of the kind {kind!r}, which this version cannot load. "
                f"It can load: {', '.join(KINDS)}."
            )
        try:
            mean, std = (tuple(float(value) for value in header[key]) for key in ("mean", "std"))
            found = cls(kind, str(header["name"]), int(header["image_size"]), mean, std, dict(header["config"]))
        except KeyError as error:
            raise RewardError(f"{source}: the header 'attune.reward' lacks {error}. Save the file again.") from error
        except (TypeError, ValueError) as error:
            raise RewardError(f"{source}: the header 'attune.reward' is malformed ({error}). Save it again.") from error
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or found.image_size < 1:
            raise RewardError(
                f"{source}: the header needs 3 means, 3 deviations above 0 and an image size above 0, not "
                f"mean={list(mean)}, std={list(std)}, image_size={found.image_size}. Save the file again."
            )
        return found


def build_network(
    header: ClipHeader,
    tensors: dict[str, torch.Tensor],
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    described_by: str = "header",
) -> nn.Module:
    """The network with its weights, frozen, in eval mode, on the CPU; see `networks.assemble`.

    Args:
        header: which library's network, and its configuration.
        tensors: weights by the library's own keys; emptied.
        source: file name for messages.
        dtype: arithmetic of the network.
        described_by: what the configuration was read from, for messages.

    Raises:
        RewardError: the library is not installed, refuses the configuration, or the weights do not fit it.
    """
    transformers = header.kind == "clip-hf"

    def build() -> nn.Module:
        return _hf_network(header.config) if transformers else _open_clip_network(header.config)

    library = "transformers" if transformers else "open_clip"
    return assemble(build, tensors, source, library=library, described_by=described_by, dtype=dtype)


def whole_token_table(tensors: Mapping[str, torch.Tensor], header: ClipHeader, source: str) -> dict[str, torch.Tensor]:
    """The weights with a full token table, where the file holds only the rows its vocabulary uses.

    Such a file has a tensor `token_rows` int64 [R] that numbers the rows of `token_embedding.weight` [R, D]; all others
    are zero. It keeps a small reward with the standard tokenizer small.

    Raises:
        RewardError: the rows do not fit the table.
    """
    tensors = dict(tensors)
    rows = tensors.pop(TOKEN_ROWS, None)
    if rows is None:
        return tensors
    part = tensors.get(TOKEN_TABLE)
    try:
        size = int(header.config["text_cfg"]["vocab_size"])
        if part.ndim != 2 or rows.shape != part.shape[:1] or not 0 <= int(rows.min()) <= int(rows.max()) < size:
            raise ValueError(f"rows {tuple(rows.shape)}, table {tuple(part.shape)}, vocabulary {size}")
        table = part.new_zeros(size, part.shape[1])
        table[rows] = part
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RewardError(
            f"{source}: its '{TOKEN_ROWS}' do not fit its token table ({error}). Get the file again."
        ) from error
    return tensors | {TOKEN_TABLE: table}


def _hf_network(config: Mapping[str, Any]) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig.from_dict(dict(config)))


def _open_clip_network(config: Mapping[str, Any]) -> nn.Module:
    import open_clip

    return open_clip.CLIP(**config)


@contextmanager
def _one_product_per_layer(network: nn.Module) -> Iterator[None]:
    """While gradients are off anyway: let the weights ask for them.

    torch multiplies a transposed input, as open_clip's attention has it, with a frozen weight by one product per
    sample, and with any other weight by one product in all, which is a third faster.
    """
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


class ClipReward(NetworkReward):
    """Cosine similarity of picture and prompt, −1 … 1. Differentiable in the picture.

    Args:
        header: see `ClipHeader`.
        network: as `build_network` makes it.
        reward_id: identity of the weights and of how they are used.
        device: where to compute.
        dtype: the network's arithmetic; scores are always float32.
        prepare: how pictures are brought to the network; by default as the header says.
        with_logit_scale: multiply the cosine by the network's exp(logit_scale).
        tokens: whose way of reading prompts.
        features_id: identity of the features, whatever arithmetic they are computed in.

    Attributes:
        uses_prompt: True, so an empty prompt is a mistake.
        place, patchers: see `NetworkReward`.
    """

    uses_prompt = True

    def __init__(
        self,
        header: ClipHeader,
        network: nn.Module,
        *,
        reward_id: str,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        prepare: Preprocessing | None = None,
        with_logit_scale: bool = False,
        tokens: Tokens = "open_clip",
        features_id: str = "",
    ) -> None:
        with torch.inference_mode(False):
            network = in_arithmetic(network, dtype)
        super().__init__(header.name, network, reward_id=reward_id, device=device)
        self.header = header
        self.dtype = dtype
        self.prepare = prepare or Preprocessing(header.image_size, "attune", header.mean, header.std)
        self.with_logit_scale = with_logit_scale
        self.tokens = tokens
        self.features_id = features_id
        self._texts: OrderedDict[str, torch.Tensor] = OrderedDict()

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
        texts = self._text_features(prompts, device)
        parts = zip(images.split(IMAGES_AT_ONCE), texts.split(IMAGES_AT_ONCE), strict=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            cosines = torch.cat([(self._image_features(image.to(device)) * text).sum(1) for image, text in parts])
            scale = self.network.logit_scale.float().exp() if self.with_logit_scale else 1.0
            return (cosines * scale).to(images.device)

    def image_features(self, images: torch.Tensor, *, with_gradients: bool = False) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1], B ≥ 0 → unit vectors float32 [B, D] on the images' device.

        Features for measuring how different pictures are.

        Args:
            with_gradients: let gradients through to the images, where they are on.

        Raises:
            RewardError: the images are no pictures (see `to_rgb`).
        """
        with torch.set_grad_enabled(with_gradients and torch.is_grad_enabled()):
            images = to_rgb(images)
            if len(images) == 0:
                return images.new_zeros(0, self._width)
            device = self.place()
            parts = [self._image_features(image.to(device)) for image in images.split(IMAGES_AT_ONCE)]
            return torch.cat(parts).to(images.device)

    def text_features(self, prompts: Sequence[str]) -> torch.Tensor:
        """B prompts → unit vectors float32 [B, D], without gradients, on the CPU."""
        if not prompts:
            return torch.zeros(0, self._width)
        return self._text_features(prompts, self.place()).cpu()

    def similarities(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and P prompts → the score of every image with every prompt, float32 [B, P].

        One pass of the network per image, not one per pair. Differentiable in the images.
        """
        return self.feature_similarities(self.image_features(images, with_gradients=images.requires_grad), prompts)

    def feature_similarities(self, features: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """`similarities` of images with these `image_features` [B, D]."""
        texts = self._text_features(prompts, features.device)
        scale = self.network.logit_scale.float().exp().to(features.device) if self.with_logit_scale else 1.0
        return features @ texts.T * scale

    @property
    def _width(self) -> int:
        """How many image features there are."""
        if self.header.kind == "clip-hf":
            return int(self.network.projection_dim)
        return int(self.header.config["embed_dim"])

    def _image_features(self, images: torch.Tensor) -> torch.Tensor:
        """[B, h, w, 3] → unit vectors float32 [B, D]."""
        self.between()
        pixels = self.prepare(images).to(self.dtype)
        if self.header.kind == "clip-hf":
            features = tensor_of(self.network.get_image_features(pixel_values=pixels))
        else:
            features = self.network.encode_image(pixels)
        return F.normalize(features.float(), dim=-1)

    def _text_features(self, prompts: Sequence[str], device: torch.device) -> torch.Tensor:
        """Unit vectors float32 [B, D]; every text is encoded once and remembered."""
        wanted = list(dict.fromkeys(prompts))
        found = {text: self._texts[text] for text in wanted if text in self._texts}
        missing = [text for text in wanted if text not in found]
        # Remembered vectors may later take part in a graph, which tensors made in inference mode cannot.
        quick = _one_product_per_layer(self.network) if missing else nullcontext()
        with torch.inference_mode(False), torch.no_grad(), quick:
            for start in range(0, len(missing), IMAGES_AT_ONCE):
                part = missing[start : start + IMAGES_AT_ONCE]
                padding = END_TOKEN if self.header.kind == "clip-hf" else 0
                tokens = tokenize(part, tokens=self.tokens, padding=padding).to(device)
                if self.header.kind == "clip-hf":
                    features = tensor_of(self.network.get_text_features(input_ids=tokens))
                else:
                    features = self.network.encode_text(tokens)
                found |= zip(part, F.normalize(features.float(), dim=-1).cpu().unbind(0), strict=True)
            for text in wanted:
                self._texts[text] = found[text]
                self._texts.move_to_end(text)
            while len(self._texts) > TEXTS_KEPT:
                self._texts.popitem(last=False)
            return torch.stack([found[text] for text in prompts]).to(device)
