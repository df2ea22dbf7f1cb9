"""A training session builds on what the user applied, and leaves nothing behind."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.sd
import torch
import world
from cases import DEMO, cases, draw, host_prediction, random_lora, session
from compare import close, raises

from attune.nodes.host.hashing import base_hash
from attune.nodes.host.lora_keys import lora_keys
from attune.nodes.host.session import training_session
from attune.training.adapters.lora import LoraConfig, Policy
from attune.training.memory import activation_bytes


def check_applied_lora_is_part_of_the_base() -> None:
    model, conditionings, negative, shape = cases()["demo (v)"]
    x, sigma = draw(shape, count=1), model.get_model_object("model_sampling").sigmas[[600]].clone()
    plain = host_prediction(model, x, sigma, conditionings[0], negative, 3.0)
    bare = {key: value.clone() for key, value in model.model.state_dict().items()}
    with torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(model, None, random_lora(model, lora_keys(model)), 0.7, 0)
    expected = host_prediction(patched, x, sigma, conditionings[0], negative, 3.0)
    assert float((plain - expected).abs().max()) > 1e-3
    assert base_hash(patched) != base_hash(model)
    with torch.inference_mode(), training_session(patched) as denoiser:
        denoiser.set_unconditional(negative)
        prompt = denoiser.prompt("", conditionings[0]).positive
        close(denoiser(x, sigma, [prompt], guidance=3.0), expected)
        with Policy(denoiser, LoraConfig(rank=2)) as policy:
            close(policy(x, sigma, [prompt], guidance=3.0), expected)
            policy(x, sigma, [prompt]).square().mean().backward()
            assert max(float(p.grad.abs().max()) for p in policy.parameters()) > 0
    close(host_prediction(patched, x, sigma, conditionings[0], negative, 3.0), expected, 1e-6)
    close(host_prediction(model, x, sigma, conditionings[0], negative, 3.0), plain, 1e-6)
    assert all(torch.equal(value, bare[key]) for key, value in model.model.state_dict().items())


def check_everything_is_as_before() -> None:
    _, conditionings, negative, shape = cases()["demo (v)"]
    model, _, vae = world.load_checkpoint(DEMO)
    x, sigma = draw(shape, count=1), torch.tensor([2.0])
    before = host_prediction(model, x, sigma, conditionings[0], negative, 3.0)

    def state() -> dict[str, Any]:
        trees = {"model": model.model, "vae": vae.first_stage_model}
        # Of the host's list only our two, and not its order: it loads several models as a set, in the order of their
        # addresses, and drops the models of earlier checks whenever garbage is collected.
        listed = [id(patcher) for patcher in comfy.model_management.loaded_models()]
        return {
            "modules": [(t, n, id(m), sorted(vars(m))) for t, tree in trees.items() for n, m in tree.named_modules()],
            "flags": [(n, p.requires_grad) for tree in trees.values() for n, p in tree.named_parameters()],
            "patches": (dict(model.patches), dict(model.object_patches), repr(model.model_options)),
            "loaded": [(patcher.loaded_size(), listed.count(id(patcher))) for patcher in (model, vae.patcher)],
            "current": model.model.current_patcher,
        }

    with torch.inference_mode():
        comfy.model_management.load_models_gpu([model, vae.patcher])
    for interrupted in (False, True):
        stood = state()
        assert all(size > 0 and times == 1 for size, times in stood["loaded"]), stood["loaded"]
        weights = {k: v.clone() for tree in (model.model, vae.first_stage_model) for k, v in tree.state_dict().items()}
        memory = {n: p.data_ptr() for n, p in model.model.named_parameters()}
        try:
            with (
                torch.inference_mode(),
                training_session(model, companions=[vae.patcher], shape=(1, *shape)) as denoiser,
            ):
                prompt = denoiser.prompt("", conditionings[0]).positive
                with Policy(denoiser, LoraConfig(rank=2, targets=("everything",))) as policy:
                    optimizer = torch.optim.SGD(policy.parameters(), lr=1.0)
                    policy(x, sigma, [prompt]).square().mean().backward()
                    optimizer.step()
                    if interrupted:
                        comfy.model_management.interrupt_current_processing(True)
                        policy(x, sigma, [prompt])
                        raise AssertionError("the host's interrupt did not reach the forward pass")
        except comfy.model_management.InterruptProcessingException:
            assert interrupted
        assert not torch.is_inference_mode_enabled()
        now = state()
        for key in stood:
            assert now[key] == stood[key], key
        for tree in (model.model, vae.first_stage_model):
            for key, value in tree.state_dict().items():
                assert torch.equal(value, weights[key]), key
        # Not even a copy was made: the weights lie where the host put them.
        assert memory == {n: p.data_ptr() for n, p in model.model.named_parameters()}
        assert torch.equal(host_prediction(model, x, sigma, conditionings[0], negative, 3.0), before)
        raises(Exception, "session of this model has ended", denoiser, x, sigma, [prompt])


def check_memory_of_a_step_is_measured() -> None:
    for name in ("demo (v)", "flux (flow), uneven prompts"):
        with session(name) as (denoiser, prompts, shape):
            assert denoiser.free_memory() > 0
            with Policy(denoiser, LoraConfig(rank=2)) as policy:
                one, two = (activation_bytes(policy, shape, prompts[0], batch=count) for count in (1, 2))
                layers = len(policy.paths)
            # Every adapted layer keeps its input at least.
            assert one > 4 * 16 * layers * 32, (name, one)
            assert 1.2 * one < two < 2.2 * one, (name, one, two)
