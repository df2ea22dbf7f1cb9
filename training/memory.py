"""Memory pre-flight: what a training step will need, measured on small batches, and advice if that is too much."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .adapters.lora import Policy
from .adapters.quantised import PRECISIONS
from .checkpointing import outer_hooks, watched_blocks
from .interfaces import TrainingError

if TYPE_CHECKING:
    from .picture_memory import PictureMemory

_PER_PARAMETER = 3  # gradient and AdamW's two moments
ANY_KNOB = "the number of pictures at a time (batch_size or chunk)"
_SMALLER_NETWORK = "a smaller or quantised checkpoint, or a lower LoRA rank"
_LOW_RANK = "low rank instead of full (the setting trains)"
_FEWER_WEIGHTS = f"{_LOW_RANK}, fewer target layers, or a smaller checkpoint"
HEADROOM = 1.15  # temporary results of single layers and the allocator's rounding


CHOICES = ("as loaded", "auto", *PRECISIONS)
CHECKPOINTING = ("auto", "on", "off")


@dataclass(frozen=True)
class MemorySettings:
    """What may be done to make a step fit.

    Attributes:
        base_precision: of the base weights while training: "as loaded", "nf4", "int8", or "auto": NF4 where nothing
            else makes a step fit. Another precision is another run: it cannot be resumed.
        gradient_checkpointing: "on", "off", or "auto": where a step does not fit without. Exact, slower by about a
            third.

    Raises:
        TrainingError: a word that is not one of these.
    """

    base_precision: str = "as loaded"
    gradient_checkpointing: str = "auto"

    def __post_init__(self) -> None:
        for name, allowed in (("base_precision", CHOICES), ("gradient_checkpointing", CHECKPOINTING)):
            if getattr(self, name) not in allowed:
                raise TrainingError(f"{name} must be one of {', '.join(allowed)}; not {getattr(self, name)!r}.")

    def precisions(self, *, saves: bool, begun: str | None = None) -> tuple[str, ...]:
        """What to try for the base weights, in this order; "" = as loaded.

        Args:
            saves: whether a smaller precision saves memory, which it does where the originals can wait elsewhere.
            begun: precision of the run that is resumed, which must stay; None if there is none.
        """
        if self.base_precision != "auto":
            return ("" if self.base_precision == CHOICES[0] else self.base_precision,)
        if begun is not None:
            return (begun,)
        return ("", "nf4") if saves else ("",)

    def checkpoints(self, *, possible: bool) -> tuple[bool, ...]:
        """Whether to checkpoint gradients, to be tried in this order; `possible`: the network has blocks for it."""
        if self.gradient_checkpointing != "auto":
            return (self.gradient_checkpointing == "on",)
        return (False, True) if possible else (False,)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training step needs on the device.

    Attributes:
        parameters: base network and adapters.
        optimizer: gradients and AdamW's moments of all roles, and the running average of the first one.
        activations: what the backward pass of one batch needs, with headroom.
        pictures: what decoding and scoring need besides.
        smallest: what a step on a single picture needs; 0 = not known.
        gradients: whether gradients pass through decoder and reward.
        own: what the method keeps besides: its rollouts, a network of its own.
        full: whether whole weights are trained.
    """

    parameters: int
    optimizer: int
    activations: int
    pictures: int = 0
    smallest: int = 0
    gradients: bool = False
    own: int = 0
    full: bool = False

    @property
    def step(self) -> int:
        """What comes and goes with every step."""
        return self.activations + self.pictures

    @property
    def total(self) -> int:
        return self.parameters + self.optimizer + self.own + self.step


def module_bytes(module: nn.Module, device: torch.device | None = None) -> int:
    """Bytes of all parameters and buffers, each storage once; only those on `device` if it is given."""
    storages = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if device is None or tensor.device == device:
            storages[tensor.untyped_storage().data_ptr(), tensor.device] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def activation_bytes(
    policy: Policy,
    shape: Sequence[int],
    cond: Any,
    *,
    batch: int = 1,
    guidance: float = 1.0,
    autocast: torch.dtype | None = None,
) -> int:
    """Bytes that autograd keeps for one forward pass, measured in one; parameters and buffers do not count.

    With gradient checkpointing: the inputs of all blocks, and all of the largest block, which computes again alone.

    Args:
        policy: attached.
        shape: of a latent, [C, H, W].
        cond: conditioning of a sample.
        batch: samples in the pass.
        guidance: other than 1 doubles the evaluation.
        autocast: 16-bit type of mixed precision, None for off.
    """
    resident = {t.untyped_storage().data_ptr() for t in (*policy.module.parameters(), *policy.module.buffers())}
    kept, blocks = Kept(resident), []
    middle = policy.process.sigmas[len(policy.process.sigmas) // 2]
    generator = torch.Generator().manual_seed(0)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(policy.device.type, autocast or torch.bfloat16, enabled=autocast is not None),
        kept.counting(),
        watched_blocks(lambda: _one_block(resident, blocks)),
    ):
        x = torch.randn(batch, *shape, generator=generator).to(policy.device)
        policy(x, middle.float().expand(batch).to(policy.device), [cond] * batch, guidance=guidance)
    return kept.bytes + max(blocks, default=0)


class Kept:
    """Counts the storages that autograd keeps, each once, and holds them: a freed one could give away its address.

    Args:
        resident: addresses of storages that do not count. Parameters never do.
    """

    def __init__(self, resident: Collection[int] = ()) -> None:
        self._resident, self._sizes, self._held = resident, {}, []

    @property
    def bytes(self) -> int:
        return sum(self._sizes.values())

    @contextmanager
    def counting(self) -> Iterator[None]:
        pack, unpack = outer_hooks()

        def count(tensor: torch.Tensor) -> Any:
            storage = tensor.untyped_storage()
            weight = isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)
            # The tensor itself holds the graph that holds it: neither would ever be freed.
            tensor = tensor.detach()
            if not weight and storage.data_ptr() not in self._resident:
                self._sizes[storage.data_ptr()] = storage.nbytes()
                self._held.append(tensor)
            return pack(tensor)

        with torch.autograd.graph.saved_tensors_hooks(count, unpack):
            yield


@contextmanager
def _one_block(resident: set[int], blocks: list[int]) -> Iterator[None]:
    """What one checkpointed block will keep while it computes again, added to `blocks`."""
    kept = Kept(resident)
    with kept.counting():
        yield
    blocks.append(kept.bytes)


def estimate(
    policy: Policy,
    shape: Sequence[int],
    cond: Any,
    *,
    batch: int,
    guidance: float = 1.0,
    autocast: torch.dtype | None = None,
    average: bool = False,
    knob: str = ANY_KNOB,
    pictures: PictureMemory | None = None,
    own: int = 0,
    passes: int = 1,
) -> MemoryEstimate:
    """What one training step will need.

    Args:
        policy: attached; all its roles are trained.
        shape: of a latent, [C, H, W]; cond: any conditioning of the size used.
        batch: samples per backward pass.
        guidance, autocast: as training will use them.
        average: whether a running average of the first role is kept.
        knob: as in `ways_out`.
        pictures: what decoder and reward need, for methods that make pictures.
        own: bytes that the method keeps besides.
        passes: of the network whose activations are kept at the same time.

    Raises:
        TrainingError: the memory runs out while measuring; says what to change.
    """
    trained = [sum(p.numel() * p.element_size() for p in policy.parameters(role)) for role in policy.roles]
    full = getattr(policy.config, "kind", "") == "full"
    # Two passes, because what does not grow with the batch (mixed precision's copies of weights) must count once.
    measured = []
    for count in range(1, min(batch, 2) + 1):
        told = f"Two pictures at a time do not fit into memory. {ways_out(knob)}"
        if count == 1:
            told = f"Not even one picture fits into memory. Use smaller pictures, {_smaller(full)}."
        with telling(told):
            measured.append(activation_bytes(policy, shape, cond, batch=count, guidance=guidance, autocast=autocast))
    one, growth = passes * measured[0], passes * (measured[-1] - measured[0])
    smallest, activations = int(one * HEADROOM), int((one + (batch - 1) * growth) * HEADROOM)
    return MemoryEstimate(
        parameters=module_bytes(policy.module),
        optimizer=_PER_PARAMETER * sum(trained) + (trained[0] if average else 0),
        activations=activations,
        pictures=pictures.beside(activations, batch) if pictures else 0,
        smallest=smallest + (pictures.beside(smallest, 1) if pictures else 0),
        gradients=bool(pictures and pictures.gradients),
        own=own,
        full=full,
    )


def shortfall(needed: MemoryEstimate, free: int, *, resident: int = 0) -> int:
    """Bytes that are missing for a step, as in `advice`; 0 or less when it will fit."""
    return needed.total - resident - free


def advice(
    needed: MemoryEstimate, free: int, *, resident: int = 0, knob: str = "", could_checkpoint: bool = False
) -> str | None:
    """What to change when a step will not fit; None when it will.

    Args:
        needed: from `estimate`.
        free: free bytes on the device.
        resident: bytes of `needed.parameters` that are there already.
        knob: as in `ways_out`.
        could_checkpoint: whether gradient checkpointing is possible and switched off.
    """
    missing = shortfall(needed, free, resident=resident)
    if missing <= 0:
        return None
    parts = f"weights {_size(needed.parameters)}, optimizer {_size(needed.optimizer)}, step {_size(needed.activations)}"
    parts += f", decoding and scoring {_size(needed.pictures)}" if needed.pictures else ""
    parts += f", rollouts and the method's own network {_size(needed.own)}" if needed.own else ""
    room = free + resident - needed.parameters - needed.optimizer - needed.own
    if room <= 0:
        hint = f"Even an empty step does not fit: use {_smaller(needed.full)}."
    elif needed.smallest > room:
        hint = f"Even one picture at a time needs {_size(needed.smallest)} for a step: use smaller pictures"
        # Decoding is checkpointed, picture by picture, as it is.
        hint += ", or the DDPO or DAG objective, which need no gradients there." if needed.gradients else "."
    else:
        hint = f"Make a step about {needed.step / room:.1f} times smaller: {_ways(knob)}."
    others = ["set gradient_checkpointing to auto"] if could_checkpoint else []
    others += [f"use {_LOW_RANK}"] if needed.full else []
    if room > 0 and others:
        hint += f" Or {', or '.join(others)}."
    return f"Training needs about {_size(needed.total)} ({parts}), {_size(missing)} more than there is. {hint}"


def peak_memory(device: torch.device) -> int:
    """Most bytes in use at a time: on a GPU by torch since the last reset, else by the process since it began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return _peak_on_windows()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _peak_on_windows() -> int:
    try:
        import psutil
    except ImportError:
        return 0
    return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))


def ran_out(error: BaseException) -> bool:
    """Whether torch found no memory: on a GPU, where the host's own name for it means the same class, or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def ways_out(knob: str) -> str:
    """What to change when memory ran out, as a sentence.

    Args:
        knob: what to lower for a smaller batch, by the name that the reader sees; "" = the batch cannot be smaller.
    """
    ways = _ways(knob)
    return f"{ways[0].upper()}{ways[1:]}."


def _smaller(full: bool) -> str:
    """What to use where the network and what is trained are too large."""
    return _FEWER_WEIGHTS if full else _SMALLER_NETWORK


def _ways(knob: str) -> str:
    return f"lower {knob}, or use smaller pictures" if knob else "use smaller pictures"


@contextmanager
def telling(message: str) -> Iterator[None]:
    """
    Raises:
        TrainingError: memory ran out within; in these words.
    """
    try:
        yield
    except Exception as error:
        if not ran_out(error):
            raise
        raise TrainingError(message) from error


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
