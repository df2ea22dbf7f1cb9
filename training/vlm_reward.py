"""A vision-language model that scores pictures: a scalar head in place of its language head.

    r(image, prompt) = w · h_last + b

| symbol | here                                                                                                  |
| ------ | ----------------------------------------------------------------------------------------------------- |
| h_last | last hidden state [D] at the last token that is no padding, of the wording below with picture and prompt |
| w, b   | the head: `Linear(D, 1)` in float32, whatever the network computes in                                    |

The network stays frozen, in 32, 16 or 4 bits; LoRA adapters on its linear layers and the head are what is trained (see
`preference_reward`). Untrained, w is random: the scores mean nothing.

Wording (fixed; a file says which version it was trained with). Where the processor has a chat template, one user turn
with the picture and the text, and the template's beginning of an answer; else the processor's image token, a blank, the
text.

References:
    Scalar head on a language model, trained on comparisons: Ouyang et al. 2022, "Training language models to follow
    instructions with human feedback", section 3.5. 4-bit base with LoRA: Dettmers et al. 2023, "QLoRA". A VLM in this
    role: the authors' OMR. The wording and the file format are ours.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import nn

from .adapters.lora import LoraConfig, Policy
from .characters import whole_characters
from .checkpoint import CheckpointError, read_tensors, write_atomically
from .interfaces import RewardError, TrainingError
from .vlm_base import VlmBase

HEADER = "attune.reward"
KIND = "vlm"
WORDING_VERSION = 1
WORDING = "Prompt: {prompt}\nHow well does the image show what the prompt asks for, and how good is the image?"
ROLE = "reward"
Layers = Literal["language", "language and vision"]
LAYERS: tuple[str, ...] = get_args(Layers)

Picture = torch.Tensor | Image.Image


def to_picture(image: Picture) -> Image.Image:
    """[h, w, c] in [0, 1], c = 1, 3 or 4, as an 8-bit RGB picture; transparency is laid over white.

    Raises:
        RewardError: another shape, or values that are not finite.
    """
    if isinstance(image, Image.Image):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise RewardError(
            f"A picture must have the shape [height, width, channels] with 1, 3 or 4 channels, not {list(image.shape)}."
        )
    if not image.isfinite().all():
        raise RewardError(
            "A picture holds values that are not finite numbers (NaN or infinite): its maker diverged. Lower the "
            "learning rate or check the node that made it."
        )
    pixels = image.detach().to("cpu", torch.float32).clamp(0, 1)
    if pixels.shape[-1] == 4:
        pixels = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
    pixels = (pixels.expand(-1, -1, 3) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.contiguous().numpy())


class VlmScorer(nn.Module):
    """The network with its scalar head.

    Not differentiable in the pictures: the models' processors resize, cut and normalise 8-bit pictures outside of
    torch.

    Args:
        base: the loaded model; its body becomes part of this module.
        device: where the body is, and the head goes.
        seed: of the head, w ~ N(0, 1/(D + 1)), b = 0 (Stiennon et al. 2020's initialisation).
    """

    def __init__(self, base: VlmBase, *, device: torch.device | str = "cpu", seed: int = 0) -> None:
        super().__init__()
        self.base = base
        self.body = base.body
        digest = hashlib.sha256(f"{seed}/head".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
        # Ordinary tensors, also where the caller is in inference mode: the head will be trained.
        with torch.inference_mode(False), torch.no_grad():
            self.head = nn.Linear(base.hidden_size, 1, device="meta").to_empty(device=device)
            start = torch.empty(1, base.hidden_size)
            self.head.weight.copy_(start.normal_(0, 1 / math.sqrt(base.hidden_size + 1), generator=generator))
            self.head.bias.zero_()
        # A comparison cancels it: what reaches it as a gradient is rounding, and AdamW would blow that up.
        self.head.bias.requires_grad_(False)
        self.eval()
        self._checkpointing = False

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def text(self, prompt: str) -> str:
        """The wording around a prompt, as the processor takes it; half a character is the sign for an unknown one."""
        processor = self.base.processor
        mark = str(getattr(processor, "image_token", None) or "<image>")
        # A prompt that holds the mark of a picture would announce one that is not there.
        words = WORDING.format(prompt=" ".join(whole_characters(prompt).replace(mark, " ").split()))
        if not getattr(processor, "chat_template", None):
            return f"{mark} {words}"
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": words}]}]
        return processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)

    def encode(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> dict[str, torch.Tensor]:
        """The network's inputs, on the CPU: B pictures of any sizes and B prompts, padded on the right.

        Raises:
            RewardError: the counts differ, a picture has an unusable shape, or the processor refuses them.
        """
        if len(pictures) != len(prompts):
            raise RewardError(f"{len(pictures)} pictures but {len(prompts)} prompts; give one prompt per picture.")
        images = [to_picture(picture) for picture in pictures]
        texts = [self.text(prompt) for prompt in prompts]
        try:
            # One list per text: some processors take a flat list for the pictures of one text.
            found = self.base.processor(
                text=texts, images=[[image] for image in images], padding=True, return_tensors="pt"
            )
        except (TypeError, ValueError, KeyError, RuntimeError) as error:
            raise RewardError(
                f"The processor of {self.base.name} refuses a picture with a prompt ({error}). Check the processor "
                "files of the model, or choose another model."
            ) from error
        return dict(found)

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Inputs as `encode` makes them → scores float32 [B].

        Raises:
            RewardError: the model does not keep one hidden state per token.
        """
        device = self.device
        placed = {
            name: value.to(device, self.base.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor)
        }
        hidden = self._hidden(placed)  # (B, L, D)
        mask = placed["attention_mask"]  # (B, L)
        if hidden.shape[:2] != mask.shape:
            raise RewardError(
                f"{self.base.name} makes {hidden.shape[1]} states of {mask.shape[1]} tokens, so the last one cannot be "
                "told. Choose another model, or update transformers."
            )
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        state = hidden[torch.arange(len(hidden), device=device), last].float()  # (B, D)
        with torch.autocast(device.type, enabled=False):
            return self.head(state).squeeze(1)

    def _hidden(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if getattr(self.body, "lm_head", None) is None:
            found = self.body(**inputs, use_cache=False)
            return found.last_hidden_state
        # A model whose library class cannot be had without its language head.
        return self.body(**inputs, use_cache=False, output_hidden_states=True).hidden_states[-1]

    def checkpointing(self, on: bool) -> None:
        """Compute layers twice instead of keeping what they compute between forward and backward pass.

        The library acts on it in training mode only, which would also switch on the network's dropout: so the mode is
        set on the layers themselves, and what is inside of them stays as it is.

        Raises:
            RewardError: this model cannot.
        """
        if on == self._checkpointing:
            return
        if not getattr(self.body, "supports_gradient_checkpointing", False):
            raise RewardError(f"{self.base.name} cannot save memory this way. Switch save_memory off.")
        # Newer versions of the library have another name for it.
        word = "activation" if hasattr(self.body, "activation_checkpointing_enable") else "gradient"
        if on:
            getattr(self.body, f"{word}_checkpointing_enable")({"use_reentrant": False})
        else:
            getattr(self.body, f"{word}_checkpointing_disable")()
        for layer in self.body.modules():
            if hasattr(layer, "gradient_checkpointing"):
                layer.training = on
        self._checkpointing = on


@dataclass
class _Part:
    """What `Policy` asks of a denoiser when it attaches adapters."""

    module: nn.Module
    scorer: VlmScorer
    process: None = None

    @property
    def device(self) -> torch.device:
        return self.scorer.device


class RewardAdapters:
    """LoRA adapters on the frozen network and its scalar head: what is trained, saved and loaded.

    An `interfaces.Trainable`. Attached as long as the scorer lives.

    Args:
        scorer: without adapters.
        config: shape of the adapters; its `targets` are not looked at.
        layers: every linear layer of the language model, or of the whole network.

    Raises:
        TrainingError: the network has no such layer.
    """

    roles = (ROLE,)

    def __init__(self, scorer: VlmScorer, config: LoraConfig, *, layers: Layers = "language") -> None:
        if layers not in LAYERS:
            raise TrainingError(f"layers must be one of {', '.join(LAYERS)}; not {layers!r}.")
        self.scorer, self.layers = scorer, layers
        self.config = LoraConfig(config.rank, config.alpha, config.dropout, ("everything",), config.seed)
        module = scorer.base.language_model if layers == "language" else scorer.body
        self._policy = Policy(_Part(module, scorer), self.config, roles=self.roles)
        self._policy.__enter__()
        # peft freezes what it wraps and nothing else.
        own = {id(p) for p in self._policy.parameters(ROLE)}
        with torch.inference_mode(False):
            for parameter in scorer.body.parameters():
                if id(parameter) not in own:
                    parameter.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.scorer.device

    def named_parameters(self, role: str = ROLE) -> dict[str, nn.Parameter]:
        return self._policy.named_parameters(role) | {"head.weight": self.scorer.head.weight}

    def tensors(self, role: str = ROLE) -> dict[str, torch.Tensor]:
        """With "head.bias", which is saved and not trained."""
        named = self.named_parameters(role) | {"head.bias": self.scorer.head.bias}
        return {name: value.detach().to("cpu", copy=True) for name, value in named.items()}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor], role: str = ROLE) -> None:
        """Without a "head.bias" it stays as it is.

        Raises:
            TrainingError: keys are missing, unexpected or of another shape; nothing has been changed then.
        """
        head = self.scorer.head
        ours = {"weight": tensors.get("head.weight"), "bias": tensors.get("head.bias", head.bias.detach())}
        for name, value in ours.items():
            wanted = tuple(getattr(head, name).shape)
            if value is None or tuple(value.shape) != wanted:
                shape = "missing" if value is None else tuple(value.shape)
                raise TrainingError(f"The scalar head does not fit this model: its {name} is {shape}, not {wanted}.")
        self._policy.load_tensors({key: v for key, v in tensors.items() if not key.startswith("head.")}, role)
        with torch.no_grad():
            head.weight.copy_(ours["weight"])
            head.bias.copy_(ours["bias"])

    def training_mode(self, on: bool) -> None:
        self._policy.training_mode(on)

    def identity(self) -> dict[str, Any]:
        base = self.scorer.base
        return {"layers": self.layers, "wording": WORDING_VERSION, "weights": base.precision}

    def base_fingerprint(self) -> str:
        return self.scorer.base.digest


@dataclass(frozen=True)
class TrainedReward:
    """What a file of a trained reward holds: adapters and head, never the base weights.

    Attributes:
        name: what people call it.
        base: name of the model folder; base_digest: of its content.
        rank, alpha: of the adapters; layers: which carry one.
        wording: version of the wording.
        metrics: figures of the training.
        tensors: as `RewardAdapters.tensors`.
    """

    name: str
    base: str
    base_digest: str
    rank: int
    alpha: float
    layers: Layers
    tensors: Mapping[str, torch.Tensor] = field(repr=False)
    wording: int = WORDING_VERSION
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, adapters: RewardAdapters, name: str, metrics: Mapping[str, Any] | None = None) -> TrainedReward:
        """What the adapters hold now."""
        base, config = adapters.scorer.base, adapters.config
        return cls(name, base.name, base.digest, config.rank, config.alpha, adapters.layers, adapters.tensors(),
                   metrics=dict(metrics or {}))  # fmt: skip

    @property
    def digest(self) -> str:
        """Of everything that decides a score, besides the base; 64 hex digits."""
        digest = hashlib.sha256(repr((self.rank, self.alpha, self.layers, self.wording)).encode())
        for name in sorted(self.tensors):
            digest.update(name.encode())
            digest.update(self.tensors[name].float().contiguous().numpy().tobytes())
        return digest.hexdigest()


def save_trained(path: Path, trained: TrainedReward) -> None:
    """Write one safetensors file: tensors, and the rest as JSON in its header under "attune.reward".

    Raises:
        CheckpointError: the file cannot be written; nothing half is left.
    """
    header = {key: value for key, value in asdict(trained).items() if key != "tensors"}
    write_atomically(path, trained.tensors, {HEADER: json.dumps({"kind": KIND, **header})})


def is_trained(path: Path) -> bool:
    """Whether the header of a safetensors file says that it holds a trained reward; reads the header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "null"))
    except (SafetensorError, OSError, ValueError):
        return False
    return isinstance(header, dict) and header.get("kind") == KIND


def load_trained(path: Path) -> TrainedReward:
    """
    Raises:
        RewardError: the file is missing, damaged, or holds no trained reward of a vision-language model.
    """
    path = Path(path)
    try:
        tensors, metadata = read_tensors(path)
    except CheckpointError as error:
        raise RewardError(str(error)) from error
    try:
        header = json.loads(metadata.get(HEADER, "null"))
        kind = header["kind"] if header else None
        if kind != KIND:
            what = f"a reward of the kind {kind!r}: use Load Reward Model" if kind else "no trained reward"
            raise RewardError(f"{path.name} holds {what}. Choose a file that Train Reward Model has saved.")
        found = TrainedReward(
            str(header["name"]), str(header["base"]), str(header["base_digest"]), int(header["rank"]),
            float(header["alpha"]), header["layers"], tensors, int(header["wording"]), dict(header["metrics"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RewardError(f"{path.name}: its header is damaged ({error}). Train or get the file again.") from error
    ranks = {value.shape[0] for name, value in tensors.items() if name.endswith(".lora_down.weight") and value.ndim}
    if ranks != {found.rank}:
        # Before adapters of that rank are made: a header may ask for any amount of memory.
        raise RewardError(
            f"{path.name}: its header is damaged (it says rank {found.rank}, its tensors have "
            f"{', '.join(map(str, sorted(ranks))) or 'none'}). Train or get the file again."
        )
    if found.wording != WORDING_VERSION:
        raise RewardError(
            f"{path.name} was trained with wording {found.wording}; this version asks with wording {WORDING_VERSION}. "
            "Train it again, or use the version of the pack that made it."
        )
    return found


def apply_trained(scorer: VlmScorer, trained: TrainedReward) -> RewardAdapters:
    """Put a trained reward on the model that it was trained on.

    Raises:
        RewardError: the model is another one, or the tensors do not fit it.
    """
    base = scorer.base
    if base.digest != trained.base_digest:
        raise RewardError(
            f"The reward {trained.name!r} was trained on the model folder {trained.base!r} with the content "
            f"{trained.base_digest[:8]}…; {base.name!r} has the content {base.digest[:8]}…. Choose that folder, or "
            "train the reward on this one."
        )
    try:
        adapters = RewardAdapters(scorer, LoraConfig(trained.rank, trained.alpha), layers=trained.layers)
        adapters.load_tensors(trained.tensors)
    except TrainingError as error:
        raise RewardError(f"The reward {trained.name!r} does not fit {base.name!r}: {error}") from error
    return adapters
