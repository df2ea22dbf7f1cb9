"""CLIP-type rewards: how well a picture and its prompt agree.

score = cos(image features, text features), from a network of transformers or of open_clip.

| step        | clip-hf                                         | clip-open_clip                     |
| ----------- | ----------------------------------------------- | ---------------------------------- |
| network     | transformers.CLIPModel(CLIPConfig)               | open_clip.CLIP(**config)           |
| text tokens | CLIP BPE, 77, padded with the end token 49407    | CLIP BPE, 77, padded with 0        |
| picture     | short side bicubic to the network's size, centre crop, (x − mean) / std          | the same |

References:
    Radford et al. 2021, "Learning transferable visual models from natural language supervision".
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from ...training.interfaces import RewardContext, RewardError
from .pictures import fit_square, to_rgb

Kind = Literal["clip-hf", "clip-open_clip"]
KINDS: tuple[str, ...] = get_args(Kind)

CONTEXT = 77
START_TOKEN, END_TOKEN = 49406, 49407
IMAGES_AT_ONCE = 32
TEXTS_KEPT = 1024
TOKEN_TABLE, TOKEN_ROWS = "token_embedding.weight", "token_rows"

log = logging.getLogger("attune")


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


def build_network(header: ClipHeader, tensors: Mapping[str, torch.Tensor], source: str) -> nn.Module:
    """The network with its weights, frozen, in float32, in eval mode, on the CPU.

    The host runs nodes in inference mode; weights made there could not be differentiated through later, so the network
    is built outside of it. torch's global random state is left as it was.

    Raises:
        RewardError: the library is not installed, refuses the configuration, or the weights do not fit it.
    """
    library = "transformers" if header.kind == "clip-hf" else "open_clip"
    try:
        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            network = _hf_network(header.config) if header.kind == "clip-hf" else _open_clip_network(header.config)
            own = network.state_dict()
            # Older libraries saved buffers of token positions that newer ones compute.
            given = {key: value for key, value in tensors.items() if not key.endswith("position_ids") or key in own}
            _check_weights(own, given, source)
            network.load_state_dict({key: value.to(own[key].dtype) for key, value in given.items()})
    except ImportError as error:
        raise RewardError(
            f"{source} needs the Python package of {library}, which cannot be imported ({error}). "
            "Install the requirements.txt of this node pack with the host's Python, then restart."
        ) from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RewardError(f"{source}: {library} refuses the network configuration in its header: {error}.") from error
    return network.float().eval().requires_grad_(False)


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
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise RewardError(
            f"{source}: its '{TOKEN_ROWS}' do not fit its token table ({error}). Get the file again."
        ) from error
    table = part.new_zeros(size, part.shape[1])
    table[rows] = part
    return tensors | {TOKEN_TABLE: table}


def _hf_network(config: Mapping[str, Any]) -> nn.Module:
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig.from_dict(dict(config)))


def _open_clip_network(config: Mapping[str, Any]) -> nn.Module:
    import open_clip

    return open_clip.CLIP(**config)


def _check_weights(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], source: str) -> None:
    faults = {
        "missing": sorted(own.keys() - given.keys()),
        "unexpected": sorted(given.keys() - own.keys()),
        "of another shape": sorted(k for k in own.keys() & given.keys() if own[k].shape != given[k].shape),
    }
    if any(faults.values()):
        detail = "; ".join(
            f"{len(keys)} {fault} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
            for fault, keys in faults.items()
            if keys
        )
        raise RewardError(
            f"{source}: the weights do not fit the network that its header describes: {detail}. "
            "The file is damaged or was saved with another configuration; get it again."
        )


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer(context_length=CONTEXT)


def tokenize(texts: Sequence[str], kind: Kind) -> torch.Tensor:
    """CLIP tokens, int64 [B, 77]. Longer texts are cut; the end token stays."""
    padding = END_TOKEN if kind == "clip-hf" else 0
    rows = []
    for text in texts:
        tokens = _tokenizer().encode(text)
        if len(tokens) > CONTEXT - 2:
            log.info("Attune: a prompt of %d tokens is scored by its first %d.", len(tokens), CONTEXT - 2)
        row = [START_TOKEN, *tokens[: CONTEXT - 2], END_TOKEN]
        rows.append(row + [padding] * (CONTEXT - len(row)))
    return torch.tensor(rows)


class ClipReward:
    """Cosine similarity of picture and prompt, −1 … 1. Differentiable in the picture.

    Args:
        header: see `ClipHeader`.
        network: as `build_network` makes it.
        reward_id: identity of the weights.
        device: where to compute.
        dtype: the network's arithmetic; scores are always float32.

    Attributes:
        place: called before every forward pass, returns the device that the network is on. The host's nodes set it to
            their memory management; by default the network stays on `device`.
        patchers: what the host manages this network by, its model patcher; empty outside the host.
        uses_prompt: True, so an empty prompt is a mistake.
    """

    differentiable = True
    higher_is_better = True
    uses_prompt = True

    def __init__(
        self,
        header: ClipHeader,
        network: nn.Module,
        *,
        reward_id: str,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.header = header
        self.name = header.name
        self.reward_id = reward_id
        self.dtype = dtype
        with torch.inference_mode(False):
            self.network = network.to(device, dtype)
        self.place: Callable[[], torch.device] = lambda: device
        self.patchers: tuple[object, ...] = ()
        self._texts: OrderedDict[str, torch.Tensor] = OrderedDict()

    def __call__(
        self, images: torch.Tensor, prompts: Sequence[str], context: RewardContext | None = None
    ) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] and B prompts → cosines float32 [B], on the images' device.

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
            scores = [(self._image_features(image.to(device)) * text).sum(1) for image, text in parts]
            return torch.cat(scores).to(images.device)

    @torch.no_grad()
    def image_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, c] in [0, 1] → unit vectors float32 [B, D] on the images' device, without gradients.

        Frozen features for measuring how different pictures are.

        Raises:
            RewardError: the images are no pictures (see `to_rgb`).
        """
        images, device = to_rgb(images), self.place()
        parts = [self._image_features(image.to(device)) for image in images.split(IMAGES_AT_ONCE)]
        return torch.cat(parts).to(images.device)

    def _image_features(self, images: torch.Tensor) -> torch.Tensor:
        """[B, h, w, 3] → unit vectors float32 [B, D]."""
        header = self.header
        pixels = fit_square(images.movedim(-1, 1), header.image_size)  # (B, 3, size, size)
        mean, std = (pixels.new_tensor(values).reshape(3, 1, 1) for values in (header.mean, header.std))
        pixels = ((pixels - mean) / std).to(self.dtype)
        if header.kind == "clip-hf":
            features = _tensor(self.network.get_image_features(pixel_values=pixels))
        else:
            features = self.network.encode_image(pixels)
        return F.normalize(features.float(), dim=-1)

    def _text_features(self, prompts: Sequence[str], device: torch.device) -> torch.Tensor:
        """Unit vectors float32 [B, D]; every text is encoded once and remembered."""
        wanted = list(dict.fromkeys(prompts))
        found = {text: self._texts[text] for text in wanted if text in self._texts}
        missing = [text for text in wanted if text not in found]
        # Remembered vectors may later take part in a graph, which tensors made in inference mode cannot.
        with torch.inference_mode(False), torch.no_grad():
            for start in range(0, len(missing), IMAGES_AT_ONCE):
                part = missing[start : start + IMAGES_AT_ONCE]
                tokens = tokenize(part, self.header.kind).to(device)
                if self.header.kind == "clip-hf":
                    features = _tensor(self.network.get_text_features(input_ids=tokens))
                else:
                    features = self.network.encode_text(tokens)
                found |= zip(part, F.normalize(features.float(), dim=-1).cpu().unbind(0), strict=True)
            for text in wanted:
                self._texts[text] = found[text]
                self._texts.move_to_end(text)
            while len(self._texts) > TEXTS_KEPT:
                self._texts.popitem(last=False)
            return torch.stack([found[text] for text in prompts]).to(device)


def _tensor(features: Any) -> torch.Tensor:
    """transformers 5 returns an output object where 4 returned the tensor."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
