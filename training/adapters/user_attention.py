"""The user adapter: a second, decoupled attention beside every attention to the text. It attends to a user's tokens.

    out = to_out(attn(Q, K, V) + s·attn(Q, K', V')),   K' = u·W'_k,  V' = u·W'_v

| symbol     | here               | what                                                              |
| ---------- | ------------------ | ----------------------------------------------------------------- |
| u          | `tokens` [B, k, d] | the user's embedding, one per row of the batch                    |
| W'_k, W'_v | `user_k`, `user_v` | trained, [inner, d] each, without bias; everything else is frozen |
| s          | `strength`         | 1 while training                                                  |

The queries are those of the network as it is, LoRAs included, and what is added passes the network's own output
projection. It works by hooks on two layers of each site (see `attention_sites`), so other hooks, LoRAs in the weights
and replaced attention functions keep working. LoRA *layers* (peft's) must be in place before the hooks are.

Exact no-ops: where the strength is 0, or no row has a user, the network's own tensors go through untouched. Among rows
with users, one without keeps its values, and since the branch has no bias, tokens of zero add zero.

References:
    Ye et al. 2023, "IP-Adapter", eq. 3-5: decoupled cross-attention, started from the text's projections.
    Dang et al. 2025, "Personalized Preference Fine-tuning of Diffusion Models" (PPD): the same for a user's embedding.

Differences from the papers:
    - values may start at zero ("off") instead of the text's: the adapter then begins as an exact no-op, so that a
      preference loss begins at the reference it measures against;
    - rows without a user are left out exactly, instead of showing the branch an embedding of zero;
    - joint attention (Stable Diffusion 3): the branch reads the picture's queries and is added to the picture's stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoint import read_tensors, write_atomically
from ..interfaces import TrainingError
from .attention_sites import Site, attention_sites

Start = Literal["off", "text"]
HEADER = "attune.user_adapter"
KEY, VALUE = "user_k.weight", "user_v.weight"


@dataclass(frozen=True)
class UserAdapterConfig:
    """What an adapter looks like.

    Attributes:
        tokens: how many a user has, k ≥ 1. width: of each, d ≥ 1.
        start: "off": keys from the text's, values zero; "text": both from the text's, as in IP-Adapter.
        seed: of the random projection that takes tokens to the text's width, where the two differ.
    """

    tokens: int = 4
    width: int = 128
    start: Start = "off"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("tokens", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise TrainingError(f"A user adapter: {name} must be a whole number of at least 1, not {value!r}.")
        if self.start not in get_args(Start):
            raise TrainingError(f"A user adapter starts as one of {', '.join(get_args(Start))}; not {self.start!r}.")


class Acting(NamedTuple):
    """Whom the adapter attends to: tokens [B, k, d], which rows have a user, bool [B] or None for all, and s."""

    tokens: torch.Tensor
    present: torch.Tensor | None
    strength: float


class UserAdapter:
    """The trained matrices, and the hooks that let them act.

    Args:
        config: see `UserAdapterConfig`.
        weights: site path → (W'_k, W'_v), each [inner, d].
    """

    def __init__(self, config: UserAdapterConfig, weights: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.config = config
        self.weights = {path: tuple(nn.Parameter(part) for part in both) for path, both in weights.items()}
        self._acting: Acting | None = None
        self._queries: dict[str, torch.Tensor] = {}

    @classmethod
    def fresh(cls, module: nn.Module, config: UserAdapterConfig) -> UserAdapter:
        """A new adapter for a network.

        Raises:
            TrainingError: the network has no site.
        """
        with torch.inference_mode(False), torch.no_grad():
            return cls(config, {site.path: _start(site, config) for site in attention_sites(module)})

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> UserAdapter:
        """Move the matrices, in place."""
        for both in self.weights.values():
            for parameter in both:
                parameter.data = parameter.data.to(device, dtype)
        return self

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """`<site path>.user_k.weight` and `.user_v.weight`."""
        return {
            f"{path}.{ending}": part
            for path, both in self.weights.items()
            for ending, part in zip((KEY, VALUE), both, strict=True)
        }

    # ---- acting ----

    @contextmanager
    def attached(self, module: nn.Module) -> Iterator[UserAdapter]:
        """Let the adapter act on a network inside a `with` block; a network can carry several adapters.

        Raises:
            TrainingError: the network's sites are not those of the adapter.
        """
        sites = attention_sites(module)
        self.check_fits(sites)
        handles = []
        try:
            for site in sites:
                handles.append(site.query.register_forward_hook(partial(self._remember, site)))
                handles.append(site.output.register_forward_pre_hook(partial(self._add, site)))
            yield self
        finally:
            for handle in handles:
                handle.remove()
            self._queries.clear()

    def check_fits(self, sites: Sequence[Site]) -> None:
        """
        Raises:
            TrainingError: the paths or the widths of the sites differ from the adapter's.
        """
        wanted = {path: both[0].shape[0] for path, both in self.weights.items()}
        found = {site.path: site.inner for site in sites}
        if wanted != found:
            missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
            width = [path for path in wanted if path in found and wanted[path] != found[path]]
            told = [f"{len(names)} {what} ({names[0]}{', …' if len(names) > 1 else ''})"
                    for what, names in (("not in this model", missing), ("not in the adapter", extra),
                                        ("of another width", width)) if names]  # fmt: skip
            raise TrainingError(
                f"This user adapter was trained for another architecture: of its {len(wanted)} layers and the model's "
                f"{len(found)}, {'; '.join(told)}. Choose the adapter that was trained for this model."
            )

    @contextmanager
    def acting(
        self, tokens: torch.Tensor, present: torch.Tensor | None = None, strength: float = 1.0
    ) -> Iterator[UserAdapter]:
        """Attend to these users inside a `with` block; outside of one the network is as without adapter.

        Args:
            tokens: [B, k, d], or [1, k, d] for all rows; differentiable.
            present: bool [B] (or [1]): rows that have a user; the others, such as the negative rows of guidance,
                are computed as without adapter. None: all have.
            strength: s; 0 is an exact no-op.

        Raises:
            TrainingError: the tokens are not of the adapter's shape.
        """
        expected = (self.config.tokens, self.config.width)
        if tokens.ndim != 3 or tuple(tokens.shape[1:]) != expected:
            raise TrainingError(
                f"The user embedding is {list(tokens.shape)}, but this adapter reads {list(expected)} per user. Make "
                "it with the encoder that the adapter was trained with."
            )
        now = Acting(tokens, present, strength) if strength != 0 and (present is None or present.any()) else None
        with self._as(now):
            yield self

    def resting(self) -> AbstractContextManager[None]:
        """Attend to nobody inside a `with` block, whoever is attended to around it."""
        return self._as(None)

    def as_now(self) -> Callable[[], AbstractContextManager[None]]:
        """What puts the users of this moment back for a while: for whoever computes again."""
        return partial(self._as, self._acting)

    @contextmanager
    def _as(self, acting: Acting | None) -> Iterator[None]:
        previous, self._acting = self._acting, acting
        try:
            yield
        finally:
            self._acting = previous
            self._queries.clear()

    def _remember(self, site: Site, layer: nn.Module, arguments: tuple, output: torch.Tensor) -> None:
        if self._acting is not None:
            self._queries[site.path] = output[..., : site.inner]

    def _add(self, site: Site, layer: nn.Module, arguments: tuple) -> tuple | None:
        if self._acting is None:
            return None
        if site.path not in self._queries:
            raise TrainingError(
                f"{site.path} attends by other layers than those it has (fused projections, for example), which a user "
                "adapter cannot follow. Turn the other change of this model off."
            )
        attended, *rest = arguments
        added = self._branch(site, self._queries.pop(site.path), attended)
        present = self._acting.present
        changed = attended + self._acting.strength * added
        if present is not None:
            changed = torch.where(present.to(attended.device)[:, None, None], changed, attended)
        return changed, *rest

    def _branch(self, site: Site, queries: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """attn(Q, K', V') of queries [B, N, inner]; [B, N, inner], like what the site has attended to."""
        tokens, rows = self._acting.tokens, len(queries)
        if len(tokens) not in (1, rows):
            raise TrainingError(f"There are embeddings of {len(tokens)} users for {rows} pictures; give one for each.")
        key, value = (F.linear(tokens.to(queries), weight.to(queries)) for weight in self.weights[site.path])
        parts = [
            part.expand(rows, -1, -1).unflatten(2, (site.heads, -1)).transpose(1, 2) for part in (queries, key, value)
        ]
        if site.norm is not None:
            parts[0] = site.norm(parts[0])
        found = F.scaled_dot_product_attention(*(part.to(queries.dtype) for part in parts))
        return found.transpose(1, 2).flatten(2).to(attended.dtype)

    # ---- weights ----

    def tensors(self) -> dict[str, torch.Tensor]:
        """A copy on the CPU."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.named_parameters().items()}

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`.

        Raises:
            TrainingError: names or shapes differ; nothing has been changed then.
        """
        named = self.named_parameters()
        wrong = sorted(named.keys() ^ tensors.keys())
        wrong += [name for name in named.keys() & tensors.keys() if named[name].shape != tensors[name].shape]
        if wrong:
            raise TrainingError(
                f"This user adapter was trained for another architecture or width: {len(wrong)} of its layers do not "
                f"fit ({wrong[0]}{', …' if len(wrong) > 1 else ''}). Choose the adapter that belongs to this model."
            )
        with torch.no_grad():
            for name, value in named.items():
                value.copy_(tensors[name])


def _start(site: Site, config: UserAdapterConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """(W'_k, W'_v) of a fresh adapter.

    Where tokens have another width than the text, W' = W·P with a random P [context, d] of orthonormal columns or rows,
    so that keys of tokens have the size of keys of text.
    """
    key, value = site.text_weights()
    if config.width != site.context:
        digest = hashlib.sha256(f"{config.seed}/user/{site.path}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
        tall = (max(site.context, config.width), min(site.context, config.width))
        basis = torch.linalg.qr(torch.randn(tall, generator=generator))[0]  # (long, short), orthonormal columns
        projection = basis if site.context > config.width else basis.T
        key, value = key @ projection, value @ projection
    return key, torch.zeros_like(value) if config.start == "off" else value


# ---- files ----


@dataclass(frozen=True)
class UserAdapterMetadata:
    """What an adapter's file says about itself.

    Attributes:
        encoder_id: identity of the encoder whose embeddings it reads; others are refused.
        base_hash: identity of the weights it was trained on.
        title: shown to people. method: how it was trained. details: anything else, JSON values.
    """

    encoder_id: str
    base_hash: str = ""
    title: str = ""
    method: str = ""
    details: Mapping[str, Any] | None = None


def save_user_adapter(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    config: UserAdapterConfig,
    metadata: UserAdapterMetadata,
    *,
    rename: Callable[[str], str] = lambda name: name,
    dtype: torch.dtype | None = torch.float16,
) -> None:
    """Write an adapter, whole or not at all.

    Args:
        path: ends in .safetensors.
        tensors: as `UserAdapter.tensors` gives them.
        rename: from a network's own layer names to those in files, the host's layout.
        dtype: of the stored weights; None keeps theirs.

    Raises:
        TrainingError: another ending, nothing to save, or a tensor that is not finite.
        CheckpointError: the folder cannot be written or the disk is full; nothing is left behind.
    """
    if Path(path).suffix != ".safetensors":
        raise TrainingError(f"A user adapter's file must end in .safetensors, not {Path(path).name!r}.")
    if not tensors:
        raise TrainingError("There is nothing to save: the user adapter has no layers.")
    broken = [name for name, value in tensors.items() if not torch.isfinite(value).all()]
    if broken:
        raise TrainingError(f"The user adapter is not saved: {broken[0]} holds values that are not finite.")
    stored = {rename(name): value if dtype is None else value.to(dtype) for name, value in tensors.items()}
    if len(stored) != len(tensors):
        raise TrainingError("Two layers of the user adapter would be saved under one name.")
    header = asdict(config) | asdict(metadata) | {"layers": len(tensors) // 2}
    write_atomically(path, stored, {HEADER: json.dumps(header), "modelspec.title": metadata.title})


def load_user_adapter(path: Path) -> tuple[UserAdapter, UserAdapterMetadata]:
    """Read an adapter whose layers are named as in the host; see `renamed` for other networks.

    Raises:
        CheckpointError: missing or unreadable.
        TrainingError: a safetensors file that holds no user adapter, or half of one.
    """
    tensors, header = read_tensors(path)
    name = Path(path).name
    try:
        document = json.loads(header[HEADER])
        config = UserAdapterConfig(**{field: document[field] for field in UserAdapterConfig.__dataclass_fields__})
        metadata = UserAdapterMetadata(**{field: document[field] for field in UserAdapterMetadata.__dataclass_fields__})
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{name} holds no user adapter ({error!r}). Choose another file.") from error
    paths = [key.removesuffix(f".{KEY}") for key in tensors if key.endswith(f".{KEY}")]
    whole = {f"{path}.{ending}" for path in paths for ending in (KEY, VALUE)} == tensors.keys()
    if not paths or not whole or any(part.ndim != 2 or part.shape[1] != config.width for part in tensors.values()):
        raise TrainingError(f"{name} is damaged: its layers are not those of a user adapter. Get the file again.")
    weights = {path: tuple(tensors[f"{path}.{ending}"].float() for ending in (KEY, VALUE)) for path in paths}
    return UserAdapter(config, weights), metadata


def renamed(adapter: UserAdapter, module: nn.Module, rename: Callable[[str], str]) -> UserAdapter:
    """The adapter of a file for a network whose layers are called otherwise.

    Args:
        rename: as for `save_user_adapter`.
    """
    names = {rename(site.path): site.path for site in attention_sites(module)}
    return UserAdapter(
        adapter.config, {names.get(path, path): tuple(p.data for p in both) for path, both in adapter.weights.items()}
    )
