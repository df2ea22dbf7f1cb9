"""Base weights in few bits, and checkpointed gradients, in the host's own networks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import comfy.model_management
import comfy.ops
import comfy.quant_ops
import comfy.sd
import torch
import world
from cases import DEMO, cases, draw, host_prediction, levels, random_lora, session
from compare import close

from attune.nodes.host.in_place import in_place_allowed
from attune.nodes.host.layer_weights import effective_weights
from attune.nodes.host.lora_keys import lora_keys
from attune.nodes.host.session import training_session
from attune.training.adapters import LoraConfig, Policy, precision_of, quantised
from attune.training.checkpointing import checkpointing
from attune.training.memory import activation_bytes, module_bytes

CPU = torch.device("cpu")


def architectures() -> dict[str, Any]:
    """Those of `cases()` that differ in more than their noise process."""
    return {name: case for name, case in cases().items() if not name.startswith("demo as")}


def check_stored_weights_train_in_every_architecture() -> None:
    for name, (model, conditionings, negative, shape) in architectures().items():
        x = draw(shape, count=1)
        network = model.model.diffusion_model
        tree = [(path, id(part)) for path, part in network.named_modules()]
        weights = {key: value.clone() for key, value in network.state_dict().items()}
        whole, size = None, 0
        for precision in ("", "int8", "nf4") if name == "sd15 (eps)" else ("", "nf4"):
            with torch.inference_mode(), training_session(model, precision=precision) as denoiser:
                denoiser.set_unconditional(negative)
                prompts, sigma = [denoiser.prompt("", conditionings[0]).positive], levels(denoiser, 1)
                assert precision_of(denoiser.module) == precision
                with torch.no_grad():
                    predicted = denoiser(x, sigma, prompts)
                if not precision:
                    whole, size = predicted, module_bytes(denoiser.module)
                    continue
                error = float((predicted - whole).norm() / whole.norm())
                assert 1e-6 < error < {"int8": 0.05, "nf4": 0.6}[precision], (name, precision, error)
                assert module_bytes(denoiser.module) < 0.9 * size, (name, precision)
                with Policy(denoiser, LoraConfig(rank=2, targets=("everything",))) as policy:
                    policy(x, sigma, prompts).square().mean().backward()
                    moved = [float(p.grad.abs().max()) for p in policy.parameters() if p.grad is not None]
                    assert max(moved) > 0, (name, precision)
        assert tree == [(path, id(part)) for path, part in network.named_modules()], name
        assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items()), name


def check_weights_of_a_model_that_was_moved_away_are_the_patched_ones() -> None:
    """Where memory is short the host adds LoRAs on the fly; the quantised copies must hold them too."""
    model, _, _ = world.load_checkpoint(DEMO)
    with torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(model, None, random_lora(model, lora_keys(model)), 0.7, 0)
        comfy.model_management.load_models_gpu([patched])
    network = patched.model.diffusion_model
    layers = {p: m for p, m in network.named_modules() if hasattr(m, "weight_function") and p.endswith(("to_q", "2"))}
    expected = {path: layer.weight.detach().clone() for path, layer in layers.items()}
    with torch.inference_mode():
        patched.partially_unload(CPU, patched.model_size())
    functions = [layer for layer in layers.values() if layer.weight_function]
    assert len(functions) > 3
    for path, layer in layers.items():
        close(effective_weights(layer, CPU).weight, expected[path], 1e-5)
    assert any(not torch.equal(layer.weight, expected[path]) for path, layer in layers.items())
    # And in use: the quantised network follows the patched one, not the bare one.
    x, sigma = draw((16, 8, 8), count=1), patched.get_model_object("model_sampling").sigmas[[600]].clone()
    conditioning, negative = cases()["demo (v)"][1][0], cases()["demo (v)"][2]
    with torch.inference_mode():
        patched.detach()
    aim = host_prediction(patched, x, sigma, conditioning, negative, 1.0)
    bare = host_prediction(model, x, sigma, conditioning, negative, 1.0)
    patched.offload_device = torch.device("cpu", 0)  # another name, so that there is somewhere to wait
    with torch.inference_mode(), training_session(patched, precision="int8") as denoiser:
        assert patched.loaded_size() < 0.1 * patched.model_size()
        found = denoiser(x, sigma, [denoiser.prompt("", conditioning).positive])
    assert patched.loaded_size() < 0.1 * patched.model_size()
    assert float((found - aim).norm()) < 0.1 * float((bare - aim).norm())
    close(host_prediction(patched, x, sigma, conditioning, negative, 1.0), aim, 1e-5)


def _eight_bit_layers() -> dict[str, tuple[Any, Any]]:
    """Linear layers of the host's 8-bit kinds, and what each multiplies by."""
    eight = torch.float8_e4m3fn
    raw = torch.randn(64, 48, generator=torch.Generator().manual_seed(0)).to(eight)
    scale = torch.tensor(0.37)
    with torch.inference_mode():
        plain = comfy.ops.manual_cast.Linear(48, 64, dtype=eight)
        plain.weight = torch.nn.Parameter(raw.clone(), requires_grad=False)
        plain.bias = torch.nn.Parameter(torch.ones(64), requires_grad=False)
        scaled = comfy.ops.scaled_fp8_ops(override_dtype=eight).Linear(48, 64)
        scaled.weight = torch.nn.Parameter(raw.clone(), requires_grad=False)
        scaled.scale_weight = torch.nn.Parameter(scale.clone(), requires_grad=False)
        scaled.bias = torch.nn.Parameter(torch.ones(64), requires_grad=False)
        mixed = comfy.ops.mixed_precision_ops({}, torch.float32).Linear(48, 64)
        layout = {"scale": scale.clone(), "orig_dtype": torch.float32, "block_size": None}
        tensor = comfy.quant_ops.QuantizedTensor(raw.clone(), "TensorCoreFP8Layout", layout)
        mixed.weight = torch.nn.Parameter(tensor, requires_grad=False)
        mixed.bias = torch.nn.Parameter(torch.ones(64), requires_grad=False)
    return {
        "plain": (plain, raw.float()),
        "scaled": (scaled, raw.float() * scale),
        "mixed": (mixed, raw.float() * scale),
    }


def check_weights_of_8_bits_are_read_with_their_scales() -> None:
    x = torch.randn(3, 48, generator=torch.Generator().manual_seed(1))
    for kind, (layer, expected) in _eight_bit_layers().items():
        weights = effective_weights(layer, CPU)
        close(weights.weight, expected, 1e-5)
        with torch.inference_mode():
            layer.comfy_cast_weights = True
            close(torch.nn.functional.linear(x, weights.weight, weights.bias), layer(x), 1e-4)
        network = torch.nn.Sequential(layer)
        with quantised(network, "nf4", device=CPU, read=effective_weights) as paths:
            assert paths == ["0"], kind
            error = (network[0].weight - expected).norm() / expected.norm()
            assert 0.01 < float(error) < 0.2, (kind, float(error))


def blocks(denoiser: Any, policy: Policy) -> Any:
    return checkpointing(denoiser.module, state=policy.as_now, again=lambda: in_place_allowed(denoiser.module))


def check_checkpointed_gradients_are_equal_in_every_architecture() -> None:
    """To the last bit, in networks that overwrite their residuals too; and a step keeps less."""
    for name, case in architectures().items():
        with session(name) as (denoiser, prompts, shape):
            x, sigma = draw(shape), levels(denoiser)
            with Policy(denoiser, LoraConfig(rank=2, targets=("everything",), dropout=0.2)) as policy:
                for index, parameter in enumerate(policy.parameters()):
                    parameter.data = 0.05 * draw(tuple(parameter.shape), count=1, seed=index)[0]
                found, kept = [], []
                for on in (False, True):
                    policy.training_mode(True)
                    for parameter in policy.parameters():
                        parameter.grad = None
                    torch.manual_seed(3)
                    with blocks(denoiser, policy) if on else nullcontext():
                        kept.append(activation_bytes(policy, shape, prompts[0], batch=2))
                        torch.manual_seed(4)
                        policy(x, sigma, prompts, guidance=2.0).square().mean().backward()
                    found.append({n: p.grad for n, p in policy.named_parameters().items()})
                for parameter, gradient in found[0].items():
                    other = found[1][parameter]
                    same = gradient is other is None or torch.equal(gradient, other)
                    assert same, (name, parameter, float((gradient - other).abs().max()))
                assert kept[1] < kept[0], (name, kept)
        assert case[0].model.diffusion_model.training is False
