"""Networks from a library's code and a file's weights, and what all rewards with a network have in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from ...training.interfaces import RewardError

# Older libraries saved what newer ones compute.
_COMPUTED = ("position_ids", "attn_mask")
HEAD_LAYERS = (0, 2, 4, 6, 7)


class NetworkReward:
    """What every reward with a network has. Subclasses score.

    Args:
        name: what people call it.
        network: frozen, in eval mode, already in its arithmetic.
        reward_id: identity of weights and settings.
        device: where to compute.

    Attributes:
        place: called before every forward pass, returns the device that the network is on. The host's nodes set it to
            their memory management; by default the network stays on `device`.
        between: called before every few pictures; what it raises ends the scoring (the host's Cancel).
        patchers: what the host manages this network by, its model patcher; empty outside the host.
    """

    differentiable = True
    higher_is_better = True

    def __init__(self, name: str, network: nn.Module, *, reward_id: str, device: torch.device) -> None:
        self.name = name
        self.reward_id = reward_id
        with torch.inference_mode(False):
            self.network = network.to(device)
        self.place: Callable[[], torch.device] = lambda: device
        self.between: Callable[[], None] = lambda: None
        self.patchers: tuple[object, ...] = ()


def assemble(
    build: Callable[[], nn.Module],
    tensors: dict[str, torch.Tensor],
    source: str,
    *,
    library: str,
    described_by: str,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The network with its weights, frozen, in eval mode, on the CPU.

    The library builds it without memory for its parameters; then every tensor is copied in once, in its final
    precision, and taken out of `tensors`. The host runs nodes in inference mode; weights made there could not be
    differentiated through later, so this happens outside of it. torch's global random state is left as it was.

    Args:
        build: makes the library's network.
        tensors: the file's weights by the network's own keys; emptied.
        source: file name for messages.
        library: package that `build` needs.
        described_by: what says how the network is made, "header" for instance; for messages.
        dtype: arithmetic of the network.

    Raises:
        RewardError: the library is not installed, refuses the configuration, or the weights do not fit.
    """
    try:
        from accelerate import init_empty_weights

        with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            with init_empty_weights(include_buffers=False):
                network = build()
            own = network.state_dict()
            for key in [key for key in tensors if key.rpartition(".")[2] in _COMPUTED and key not in own]:
                del tensors[key]
            check_weights(own, tensors, source, described_by)
            weights = {key: _copy(tensors.pop(key), own[key], dtype, f"{source}: the tensor {key}") for key in own}
            network.load_state_dict(weights, assign=True)
            return in_arithmetic(network, dtype).eval().requires_grad_(False)
    except ImportError as error:
        raise RewardError(
            f"{source} needs the Python package of {library}, which cannot be imported ({error}). "
            "Install the requirements.txt of this node pack with the host's Python, then restart."
        ) from error
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise RewardError(
            f"{source}: {library} refuses the network configuration in its {described_by}: {error}."
        ) from error


def _copy(tensor: torch.Tensor, own: torch.Tensor, dtype: torch.dtype, what: str) -> torch.Tensor:
    """A copy of its own: the file may change or vanish while the network lives. Single numbers stay in 32 bits.

    Raises:
        RewardError: the tensor, called `what`, holds no plain numbers of the kind that the network has.
    """
    plain = tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_complex())
    if not plain or tensor.is_floating_point() != own.is_floating_point():
        kind = "without values" if tensor.is_meta else "sparse" if tensor.layout is not torch.strided else tensor.dtype
        raise RewardError(
            f"{what} is {kind}; plain {'fractions' if own.is_floating_point() else 'whole numbers'} are needed there. "
            "Choose a file with the weights in 32 or 16 bit floating point."
        )
    if own.is_floating_point():
        return tensor.detach().to(dtype if own.ndim else torch.float32, copy=True).contiguous()
    return tensor.detach().to(own.dtype, copy=True).contiguous()


def in_arithmetic(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network in `dtype`, but for single numbers: CLIP's log of 100 in 16 bits would be that of 98.9."""
    single = [(parameter, parameter.data) for parameter in network.parameters() if parameter.ndim == 0]
    network.to(dtype)
    for parameter, value in single:
        parameter.data = value
    return network


def check_weights(
    own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], source: str, described_by: str
) -> None:
    """Compare keys and shapes of a network with those of a file.

    Raises:
        RewardError: they differ; the message counts and names what is missing, too much or of another shape.
    """
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
            f"{source}: the weights do not fit the network that its {described_by} describes: {detail}. "
            "The file is damaged or was saved with another configuration; get it again."
        )


def linear_head(tensors: dict[str, torch.Tensor], source: str) -> nn.Sequential:
    """The head of ImageReward and of the LAION aesthetic predictor: five linear layers without activations.

    Between them lay dropouts, which do nothing in use: what is left is one affine map, kept as its five factors so that
    the arithmetic is the original's.

    Args:
        tensors: `layers.{0, 2, 4, 6, 7}.{weight, bias}`; emptied.
        source: file name for messages.

    Returns:
        [B, D] → [B, 1], float32.

    Raises:
        RewardError: layers are missing, too many, or do not fit each other.
    """
    widths = [tuple(tensors.get(f"layers.{layer}.weight", torch.empty(0)).shape) for layer in HEAD_LAYERS]
    absent = [layer for layer, width in zip(HEAD_LAYERS, widths, strict=True) if len(width) != 2]
    if absent:
        raise RewardError(
            f"{source}: the head lacks the matrix layers.{absent[0]}.weight. A head of this kind has the layers "
            f"{', '.join(map(str, HEAD_LAYERS))}; the file is damaged or holds another predictor. Get it again."
        )
    chained = all(before[0] == after[1] for before, after in pairwise(widths))
    if not chained or widths[-1][0] != 1:
        raise RewardError(
            f"{source}: the layers of the head do not fit each other or do not end in one number ({widths}). "
            "Get the file again."
        )

    def build() -> nn.Module:
        pairs = zip(HEAD_LAYERS, widths, strict=True)
        layers = OrderedDict((str(layer), nn.Linear(width[1], width[0])) for layer, width in pairs)
        return nn.ModuleDict({"layers": nn.Sequential(layers)})

    return assemble(build, tensors, source, library="torch", described_by="head")["layers"]


def tensor_of(features: Any) -> torch.Tensor:
    """transformers 5 returns an output object where 4 returned the tensor."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
