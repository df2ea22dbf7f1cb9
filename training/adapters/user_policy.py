"""A denoiser with a user adapter, as the trainer and the sampler want it: every row may be another user's.

Whose row it is, the row's conditioning says: `Personal` carries the network's own conditioning and the user's tokens.
Rows with a plain conditioning, and the unconditional half of guidance, are computed without adapter. So

    ε = ε(∅) + guidance·(ε(text, user) − ε(∅))

leans on the user as it does on the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..diffusion import DiffusionProcess
from ..interfaces import Denoiser, Prompt, TrainingError
from .lora import LoraConfig, Policy
from .user_attention import UserAdapter, UserAdapterConfig

ROLE = "user"


@dataclass(frozen=True)
class Personal:
    """A conditioning for one user.

    Attributes:
        positive: the denoiser's own conditioning.
        tokens: the user's embedding [k, d], with gradients or without; None: nobody's.
    """

    positive: Any
    tokens: torch.Tensor | None


def personal(prompt: Prompt, tokens: torch.Tensor | None) -> Prompt:
    """The prompt, for a user."""
    return replace(prompt, positive=Personal(prompt.positive, tokens))


class UserPolicy:
    """A denoiser with a user adapter attached; a context manager, and a `Denoiser` and `Trainable` itself.

    Args:
        denoiser: what to adapt; a `Policy` inside its `with` block too, whose LoRA then belongs to the reference.
        adapter: an adapter, or the configuration of a fresh one.
        strength: s of the branch.

    Attributes:
        roles: the one trained role; `role(None)` is the reference.
    """

    roles = (ROLE,)

    def __init__(self, denoiser: Denoiser, adapter: UserAdapter | UserAdapterConfig, *, strength: float = 1.0) -> None:
        self.denoiser, self.strength = denoiser, strength
        fresh = isinstance(adapter, UserAdapterConfig)
        self.adapter = UserAdapter.fresh(denoiser.module, adapter) if fresh else adapter
        self.adapter.to(denoiser.device)
        self._stack: ExitStack | None = None
        self._reference = False

    @property
    def config(self) -> UserAdapterConfig:
        return self.adapter.config

    def __enter__(self) -> UserPolicy:
        with ExitStack() as stack:
            stack.enter_context(self.adapter.attached(self.denoiser.module))
            for parameter in self.denoiser.module.parameters():
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self._stack = None

    # ---- as a denoiser ----

    def __call__(
        self, x: torch.Tensor, sigma: torch.Tensor, cond: Sequence[Any], *, guidance: float = 1.0
    ) -> torch.Tensor:
        """Predict x0 of rows whose conditionings may be `Personal`; see `interfaces.Denoiser`."""
        if self._stack is None:
            raise TrainingError("The user adapter is not attached: use the policy inside its `with` block.")
        plain = [row.positive if isinstance(row, Personal) else row for row in cond]
        shown = self._shown(cond)
        if shown is None:
            # By the denoiser's own way of guidance: another size of batch would round otherwise.
            with self.adapter.resting():
                return self.denoiser(x, sigma, plain, guidance=guidance)
        with self.adapter.acting(*shown, self.strength):
            found = self.denoiser(x, sigma, plain)
        if guidance == 1.0:
            return found
        without = self.denoiser(x, sigma, [self.denoiser.unconditional] * len(x))
        return without + guidance * (found - without)

    def _shown(self, cond: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Tokens [B, k, d] and which rows have a user, None for all; None where nobody is shown.

        An embedding of zero is nobody's, unless it is being learned.
        """
        if self._reference or self.strength == 0:
            return None
        tokens = [row.tokens if isinstance(row, Personal) else None for row in cond]
        tokens = [None if own is None or not (own.requires_grad or own.any()) else own for own in tokens]
        known = [own for own in tokens if own is not None]
        if not known:
            return None
        shapes = {tuple(own.shape) for own in known}
        if len(shapes) > 1:
            raise TrainingError(f"The users' embeddings differ in shape: {sorted(shapes)}. Make them with one encoder.")
        nobody = torch.zeros_like(known[0])
        rows = torch.stack([nobody if own is None else own for own in tokens]).to(self.device)
        return rows, None if len(known) == len(tokens) else torch.tensor([own is not None for own in tokens])

    @property
    def process(self) -> DiffusionProcess:
        return self.denoiser.process

    @property
    def module(self) -> nn.Module:
        return self.denoiser.module

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    @property
    def unconditional(self) -> Any:
        return self.denoiser.unconditional

    # ---- as something to train ----

    @contextmanager
    def role(self, name: str | None) -> Iterator[UserPolicy]:
        """Let the adapter act, or not (None, the reference), inside a `with` block."""
        if name not in (ROLE, None):
            raise TrainingError(f"There is no role {name!r}. A user adapter has {ROLE}.")
        previous, self._reference = self._reference, name is None
        try:
            yield self
        finally:
            self._reference = previous

    def as_now(self) -> Callable[[], AbstractContextManager[None]]:
        """What puts the users of this moment back for a while; see `Policy.as_now`."""
        return self.adapter.as_now()

    def training_mode(self, on: bool) -> None:
        """Nothing: the branch has no dropout of its own."""

    def named_parameters(self, role: str = ROLE) -> dict[str, nn.Parameter]:
        return self.adapter.named_parameters()

    def parameters(self, role: str = ROLE) -> list[nn.Parameter]:
        return list(self.named_parameters(role).values())

    def tensors(self, role: str = ROLE) -> dict[str, torch.Tensor]:
        return self.adapter.tensors()

    def load_tensors(self, tensors: Mapping[str, torch.Tensor], role: str = ROLE) -> None:
        self.adapter.load_tensors(tensors)

    def identity(self) -> dict[str, Any]:
        return {"layers": len(self.adapter.weights), "noise process": self.process.identity()}

    def base_fingerprint(self) -> str:
        """See `Policy.base_fingerprint`; the adapter is not part of the network."""
        return Policy(self.denoiser, LoraConfig()).base_fingerprint()
