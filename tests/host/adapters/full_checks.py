"""Whole weights in the host's own networks: trained there, and read by its stock loader."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.sd
import comfy.utils
import folder_paths
import torch
from cases import cases, draw, host_prediction, levels
from compare import close, raises

from attune.nodes.host.applied_loras import parents_of
from attune.nodes.host.sampling import apply_lora
from attune.nodes.host.session import training_session
from attune.training.adapters import LoraConfig, LoraMetadata, LoraParent, Policy, load_lora, save_lora, weights_id
from attune.training.interfaces import AttuneError

FULL = LoraConfig(kind="full", targets=("everything",))


def moved(policy: Policy, by: float = 0.1) -> None:
    """Every difference becomes noise of a share of the size that its layer's weights have."""
    with torch.no_grad():
        for seed, (name, parameter) in enumerate(policy.named_parameters().items()):
            base = policy.module.get_submodule(name.rpartition(".")[0]).weight
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            parameter.copy_(by * float(base.float().std()) * noise)


def unmatched(tensors: dict[str, Any], model: Any) -> tuple[list[str], int]:
    """What the host's loader says of keys that it does not know, and how many patches it makes."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        found = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model.model, {}))
    finally:
        logging.getLogger().removeHandler(handler)
    return [text for text in told if "not loaded" in text], len(model.clone().add_patches(found))


def check_whole_weights_do_in_the_host_what_they_did_in_training() -> None:
    """In every architecture and on every layer, biases too: by the host's own loader, from a file."""
    folder = Path(folder_paths.get_temp_directory()) / "attune_full"
    for name, (model, conditionings, negative, shape) in cases().items():
        network = model.model.diffusion_model
        x = draw(shape, count=1)
        with torch.inference_mode(), training_session(model) as denoiser:
            # Only now: another case may have left the host with a patched copy of these weights.
            tree = [(path, id(part)) for path, part in network.named_modules()]
            weights = {key: value.clone() for key, value in network.state_dict().items()}
            denoiser.set_unconditional(negative)
            sigma, prompts = levels(denoiser, 1), [denoiser.prompt("", conditionings[0]).positive]
            with torch.no_grad():
                before = denoiser(x, sigma, prompts, guidance=2.0)
            with Policy(denoiser, FULL) as policy:
                with torch.no_grad():
                    assert torch.equal(policy(x, sigma, prompts, guidance=2.0), before), name
                moved(policy)
                predicted = policy(x, sigma, prompts, guidance=2.0)
                predicted.square().mean().backward()
                assert any(float(p.grad.abs().max()) > 0 for p in policy.parameters() if p.grad is not None), name
                tensors, rename, predicted = policy.tensors(), denoiser.lora_keys(), predicted.detach()
                with torch.no_grad(), policy.role(None):
                    assert torch.equal(policy(x, sigma, prompts, guidance=2.0), before), name
        assert tree == [(path, id(part)) for path, part in network.named_modules()], name
        assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items()), name

        path = folder / "whole.safetensors"
        save_lora(path, tensors, metadata=LoraMetadata(title="whole"), rename=rename)
        stored = comfy.utils.load_torch_file(str(path), safe_load=True)
        assert any(key.endswith(".diff_b") for key in stored), name
        told, patches = unmatched(stored, model)
        assert (told, patches) == ([], len(tensors)), (name, told[:3], patches, len(tensors))
        with torch.inference_mode():
            patched, _ = comfy.sd.load_lora_for_models(model, None, stored, 1.0, 0)
        after = host_prediction(patched, x, sigma, conditionings[0], negative, 2.0)
        assert float((predicted - before).abs().max()) > 1e-2 * float(before.std()), name
        close(after, predicted, 2e-3)
        # And the host puts the model's own weights back, for whoever comes next.
        close(host_prediction(model, x, sigma, conditionings[0], negative, 2.0), before)
        (parent,) = parents_of(apply_lora(model, load_lora(path)[0], strength=0.5), folder)
        assert parent == LoraParent(weights_id(stored), "attune_full/whole.safetensors", 0.5), name


def check_whole_weights_for_another_architecture_are_refused() -> None:
    model = cases()["sdxl (eps, pooled)"][0]
    foreign = {"lora_unet_no_such_layer.diff": torch.ones(2, 2), "lora_unet_no_such_layer.diff_b": torch.ones(2)}
    raises(AttuneError, "1 of 1 layers of this LoRA have no counterpart", apply_lora, model, foreign)
