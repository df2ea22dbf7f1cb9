"""The set encoder: a few choices of a person → a few tokens that say what they like.

Each choice is a triple of features of a CLIP-type encoder: of the prompt, of the preferred and of the rejected picture.
A transformer without positions reads the set, and k learned query tokens collect the answer: the order of the choices
does not matter, their number is free.

    u = SetEncoder({(t_i, f⁺_i, f⁻_i)}) ∈ R^{k×d}

Tokens are measured from the average person and in one scale for all of them (`settle`), not normalised one by one: few
or contradictory choices give short ones, which is how the encoder says that it is not sure, and the adapter then does
little. The last entry of each token is a constant: what all people like has a place of its own to be learned in.

It is trained on its own, before any picture is drawn (`encoder_training`): tokens must tell which of two other pictures
the same person prefers. Ours; the known recipe reads a large vision-language model's hidden states instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint import read_tensors, write_atomically
from ..digests import file_digest
from ..interfaces import TrainingError

HEADER = "attune.set_encoder"


def features_id(file: Path) -> str:
    """Identity of the features of a CLIP-type model: that of its file."""
    return f"clip:{file_digest(file)[:16]}"


@runtime_checkable
class PairFeatures(Protocol):
    """A CLIP-type encoder.

    Attributes:
        features_id: identity of its weights; width: of its vectors, F.
    """

    features_id: str
    width: int

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, h, w, 3] in [0, 1] → unit vectors [B, F]."""
        ...

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """B texts → unit vectors [B, F]."""
        ...


@dataclass(frozen=True)
class SetEncoderConfig:
    """The encoder's shape.

    Attributes:
        features: width of the features, F.
        tokens, width: of an embedding, k and d.
        hidden, layers, heads: of the transformer.
    """

    features: int = 128
    tokens: int = 4
    width: int = 128
    hidden: int = 128
    layers: int = 2
    heads: int = 4

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            lowest = 2 if name == "width" else 1
            if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
                raise TrainingError(
                    f"The set encoder: {name} must be a whole number of at least {lowest}, not {value!r}."
                )
        if self.hidden % self.heads:
            raise TrainingError(f"The set encoder: {self.heads} heads do not divide the width {self.hidden}.")


class SetEncoder(nn.Module):
    """See the module's text.

    Args:
        config: its shape.
        features_id: of the encoder whose features it reads.

    Attributes:
        centre, deviation [F]: of pictures' features, by which they are standardised.
        average [k, d − 1], spread []: of people's tokens before they are standardised.
    """

    def __init__(self, config: SetEncoderConfig, features_id: str) -> None:
        super().__init__()
        self.config, self.features_id = config, features_id
        hidden = config.hidden
        self.register_buffer("centre", torch.zeros(config.features))
        self.register_buffer("deviation", torch.ones(config.features))
        self.register_buffer("average", torch.zeros(config.tokens, config.width - 1))
        self.register_buffer("spread", torch.ones(()))
        self.read = nn.Linear(4 * config.features, hidden)
        self.queries = nn.Parameter(torch.randn(config.tokens, hidden) / hidden**0.5)
        layer = nn.TransformerEncoderLayer(
            hidden, config.heads, 2 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(hidden)
        self.write = nn.Linear(hidden, config.width - 1)

    def standardise(self, pictures: torch.Tensor) -> torch.Tensor:
        """Features [..., F] in deviations from the middle of the pictures it was trained on."""
        return (pictures - self.centre) / self.deviation

    def get_used_to(self, pictures: torch.Tensor) -> None:
        """Measure in deviations of these features [N, F] from now on."""
        self.centre.copy_(pictures.mean(0))
        self.deviation.copy_(pictures.std(0).clamp_min(1e-6))

    def forward(self, choices: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings of B people.

        Args:
            choices: features of (prompt, preferred, rejected), [B, n, 3, F]; n ≥ 1.
            known: bool [B, n], False where a row has fewer choices; at least one is True in each. None: all.

        Returns:
            u, [B, k, d].

        Raises:
            TrainingError: the shape is another.
        """
        if choices.ndim != 4 or tuple(choices.shape[2:]) != (3, self.config.features) or choices.shape[1] == 0:
            raise TrainingError(
                f"Choices are read as [people, choices, 3, {self.config.features}] with at least one choice, not "
                f"{list(choices.shape)}. Use features of the encoder that this set encoder was trained with."
            )
        prompt, preferred, rejected = choices.unbind(2)
        preferred, rejected = self.standardise(preferred), self.standardise(rejected)
        # Unit vectors' entries are of the size 1/√F.
        prompt = prompt * self.config.features**0.5
        rows = self.read(torch.cat([prompt, preferred, rejected, preferred - rejected], -1))  # (B, n, hidden)
        queries = self.queries.expand(len(rows), -1, -1)
        unknown = None
        if known is not None:
            unknown = torch.cat([torch.zeros(queries.shape[:2], dtype=torch.bool, device=known.device), ~known], 1)
        found = self.transformer(torch.cat([queries, rows], 1), src_key_padding_mask=unknown)
        told = (self.write(self.norm(found[:, : self.config.tokens])) - self.average) / self.spread
        return torch.cat([told, torch.ones_like(told[..., :1])], -1)

    def settle(self, tokens: torch.Tensor) -> None:
        """Measure from now on from the middle of these people's tokens [N, k, d], in units of their mean length."""
        told = tokens[..., :-1]
        average = told.mean(0)
        spread = (told - average).square().sum(-1).mean().sqrt().clamp_min(1e-6)
        self.average.add_(self.spread * average)
        self.spread.mul_(spread)

    @property
    def encoder_id(self) -> str:
        """Identity of the embeddings: changes with any weight, and with the features that are read."""
        digest = hashlib.sha256(json.dumps([asdict(self.config), self.features_id]).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().data)
        return f"set-encoder:{digest.hexdigest()[:16]}"


class Taste(nn.Module):
    """What tokens say about pictures: the linear utility they stand for. Only training and figures need it.

    utility(u, f) = w(u)·f / √F, with w(u) linear in all of the user's tokens, their constant entries included.
    """

    def __init__(self, config: SetEncoderConfig) -> None:
        super().__init__()
        self.weights = nn.Linear(config.tokens * config.width, config.features, bias=False)

    def forward(self, tokens: torch.Tensor, pictures: torch.Tensor) -> torch.Tensor:
        """Tokens [B, k, d] and standardised features [B, m, F] → utilities [B, m]."""
        return (pictures @ self.weights(tokens.flatten(1))[..., None]).squeeze(-1) / pictures.shape[-1] ** 0.5

    def follow(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Mean the same by tokens after `SetEncoder.settle` as before; both are [N, k, d] of the same people."""
        told_before, told_after = before[..., :-1].flatten(1), after[..., :-1].flatten(1)
        scale = (told_before[0] - told_before[1]).norm() / (told_after[0] - told_after[1]).norm()
        average = (told_before - scale * told_after).mean(0).unflatten(0, (before.shape[1], -1))  # (k, d − 1)
        weights = self.weights.weight.unflatten(1, (before.shape[1], -1))  # (F, k, d)
        with torch.no_grad():
            weights[..., -1] += (weights[..., :-1] * average).sum(-1)
            weights[..., :-1] *= scale


def preference_prediction_loss(utilities: torch.Tensor) -> torch.Tensor:
    """−log σ(utility of the chosen − utility of the rejected), Bradley-Terry; utilities [..., 2] → [...]."""
    return -F.logsigmoid(utilities[..., 0] - utilities[..., 1])


def save_set_encoder(path: Path, encoder: SetEncoder, details: dict[str, object] | None = None) -> None:
    """Write it, whole or not at all; in float32, so that its identity and its embeddings stay the same."""
    header = {"config": asdict(encoder.config), "features_id": encoder.features_id, "encoder_id": encoder.encoder_id}
    write_atomically(path, encoder.state_dict(), {HEADER: json.dumps(header | {"details": details or {}})})


def load_set_encoder(path: Path) -> SetEncoder:
    """Read it, frozen, in eval mode.

    Raises:
        CheckpointError: missing or unreadable.
        TrainingError: no set encoder, or not the one that its header names.
    """
    tensors, metadata = read_tensors(path)
    name = Path(path).name
    try:
        header = json.loads(metadata[HEADER])
        with torch.inference_mode(False), torch.random.fork_rng([]):
            encoder = SetEncoder(SetEncoderConfig(**header["config"]), str(header["features_id"]))
            encoder.load_state_dict({key: value.float() for key, value in tensors.items()})
        wanted = header["encoder_id"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError(f"{name} holds no set encoder ({error}). Choose another file.") from error
    if encoder.encoder_id != wanted:
        raise TrainingError(f"{name} is damaged: its weights are not those that its header names. Get the file again.")
    return encoder.eval().requires_grad_(False)
