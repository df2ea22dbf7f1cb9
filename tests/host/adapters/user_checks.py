"""The user adapter on the host's models: what Apply Preference samples with is what was trained, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sampler_helpers
import comfy.samplers
import folder_paths
import torch
import world
from cases import cases, demo, draw, host_prediction, random_lora, session
from compare import close, raises

from attune.nodes.host.prompt_rows import positive_rows
from attune.nodes.host.sampling import apply_lora
from attune.nodes.host.session import training_session
from attune.nodes.host.user_adapter import with_user
from attune.training.adapters.user_attention import (
    UserAdapter,
    UserAdapterConfig,
    UserAdapterMetadata,
    load_user_adapter,
    save_user_adapter,
)
from attune.training.adapters.user_policy import Personal, UserPolicy
from attune.training.interfaces import TrainingError

CASES = (
    "demo (v)", "demo as eps", "demo as shifted flow", "sd15 (eps)", "sd21 (v)", "sdxl (eps, pooled)", "sd3 (flow)"
)  # fmt: skip
CONFIG = UserAdapterConfig(tokens=2, width=8, start="text")
WHOLE = {"start_percent": 0.0, "end_percent": 1.0}


def tokens(seed: int) -> Any:
    return torch.randn(CONFIG.tokens, CONFIG.width, generator=torch.Generator().manual_seed(seed))


def adapter_of(model: Any) -> UserAdapter:
    with torch.inference_mode(False):
        return UserAdapter.fresh(model.model.diffusion_model, CONFIG)


def predicted(model: Any, name: str, *, percent: float = 0.3, cfg: float = 2.0) -> Any:
    """What the host predicts for a case's first prompt, at this part of sampling."""
    _, conditionings, negative, shape = cases()[name]
    sigma = torch.tensor([float(model.get_model_object("model_sampling").percent_to_sigma(percent))])
    return host_prediction(model, draw(shape, count=1, seed=5), sigma, conditionings[0], negative, cfg)


def check_user_is_sampled_with_as_it_was_trained() -> None:
    for name in CASES:
        model = cases()[name][0]
        adapter, own = adapter_of(model), tokens(1)
        for cfg in (1.0, 2.5):
            found = predicted(with_user(model, adapter, [(own, 1.0)], strength=0.7, **WHOLE), name, cfg=cfg)
            with session(name) as (denoiser, prompts, shape):
                sigma = torch.tensor([float(model.get_model_object("model_sampling").percent_to_sigma(0.3))])
                with UserPolicy(denoiser, adapter, strength=0.7) as policy, torch.no_grad():
                    x = draw(shape, count=1, seed=5)
                    expected = policy(x, sigma, [Personal(prompts[0], own)], guidance=cfg)
                    plain = denoiser(x, sigma, prompts[:1], guidance=cfg)
            close(found, expected, 2e-4)
            assert float((expected - plain).abs().max()) > 1e-3 * float(plain.std()), (name, "changes nothing")


def check_user_of_no_strength_changes_no_bit() -> None:
    for name in CASES:
        model = cases()[name][0]
        adapter, plain = adapter_of(model), predicted(cases()[name][0], name)
        nobody = torch.zeros(CONFIG.tokens, CONFIG.width)
        for users, words in (
            ([(tokens(1), 1.0)], {"strength": 0.0, **WHOLE}),
            ([(nobody, 1.0)], {"strength": 1.0, **WHOLE}),
            ([(tokens(1), 0.0)], {"strength": 1.0, **WHOLE}),
            ([(tokens(1), 1.0)], {"strength": 1.0, "start_percent": 0.4, "end_percent": 0.4}),
            ([(tokens(1), 1.0)], {"strength": 1.0, "start_percent": 0.4, "end_percent": 1.0}),
            ([(tokens(1), 1.0)], {"strength": 1.0, "start_percent": 0.0, "end_percent": 0.2}),
        ):
            found = predicted(with_user(model, adapter, users, **words), name)
            assert torch.equal(found, plain), (name, words)
        inside = with_user(model, adapter, [(tokens(1), 1.0)], strength=1.0, start_percent=0.2, end_percent=0.4)
        assert not torch.equal(predicted(inside, name), plain), name
        assert torch.equal(predicted(model, name), plain), "the model itself is as it was"
        assert not any(part._forward_pre_hooks or part._forward_hooks for part in model.model.diffusion_model.modules())


def check_tastes_side_by_side_add_up() -> None:
    for name in ("demo (v)", "sd3 (flow)"):
        model = cases()[name][0]
        adapter = adapter_of(model)

        def of(*users: tuple[Any, float], name: str = name, model: Any = model, adapter: Any = adapter) -> Any:
            return predicted(with_user(model, adapter, list(users), strength=1.0, **WHOLE), name, cfg=1.0)

        plain, one, two = predicted(model, name, cfg=1.0), of((tokens(1), 1.0)), of((tokens(2), 1.0))
        close(of((tokens(1), 0.5), (tokens(2), -0.25)), plain + 0.5 * (one - plain) - 0.25 * (two - plain), 1e-4)
        close(of((tokens(1), 2.0)), plain + 2 * (one - plain), 1e-4)


def check_user_stacks_with_loras_and_with_another_user() -> None:
    name = "demo (v)"
    model = cases()[name][0]
    with torch.inference_mode(), training_session(model) as denoiser:
        keys = denoiser.lora_keys()
    with torch.inference_mode():
        tuned = apply_lora(model, random_lora(model, keys))
    adapter, other = adapter_of(model), adapter_of(model)
    both = with_user(tuned, adapter, [(tokens(1), 1.0)], strength=1.0, **WHOLE)
    with torch.inference_mode():
        other_way = apply_lora(
            with_user(model, adapter, [(tokens(1), 1.0)], strength=1.0, **WHOLE), random_lora(model, keys)
        )
    parts = [predicted(found, name) for found in (model, tuned, both, other_way)]
    assert not torch.equal(parts[1], parts[2]) and not torch.equal(parts[0], parts[1])
    close(parts[3], parts[2], 1e-5)
    twice = with_user(both, other, [(tokens(2), 1.0)], strength=0.5, **WHOLE)
    again = with_user(both, other, [(tokens(2), 1.0)], strength=0.0, **WHOLE)
    assert not torch.equal(predicted(twice, name), parts[2]) and torch.equal(predicted(again, name), parts[2])


def check_user_adapter_survives_its_file_and_knows_its_model() -> None:
    path = Path(folder_paths.models_dir) / "user_adapters" / "fresh.safetensors"
    for name in ("demo (v)", "sd15 (eps)", "sdxl (eps, pooled)", "sd3 (flow)"):
        model = cases()[name][0]
        adapter = adapter_of(model)
        save_user_adapter(path, adapter.tensors(), CONFIG, UserAdapterMetadata("set-encoder:0"), dtype=None)
        loaded, metadata = load_user_adapter(path)
        assert metadata.encoder_id == "set-encoder:0"
        users = [(tokens(1), 1.0)]
        first, second = (
            predicted(with_user(model, part, users, strength=1.0, **WHOLE), name) for part in (adapter, loaded)
        )
        assert torch.equal(first, second), name
    raises(TrainingError, "another architecture", with_user, demo()["model"], loaded, users, strength=0.0, **WHOLE)
    raises(TrainingError, "no attention over its text", with_user, world.small_flux(), loaded, users, strength=1.0,
           **WHOLE)  # fmt: skip


def check_only_positive_rows_have_a_user() -> None:
    known = frozenset("p")
    for kinds, names, positive, expected in (
        ([0, 1], "pn", known, [True, True, False, False]),
        ([2, 1, 0], "pmn", known, [True, True, False, False, False, False]),  # as DualCFG numbers them
        ([0], "n", known, [False, False]),  # as SAG asks for the negative prompt alone
        ([0, 1], "pn", None, [True, True, False, False]),
        ([], "", None, [True, True]),
    ):
        options = {"cond_or_uncond": kinds, "uuids": list(names)}
        assert positive_rows(options, len(expected), positive).tolist() == expected, (kinds, names)


def check_user_under_other_guiders() -> None:
    """Only the positive prompt of DualCFG and of PerpNeg has a user: their predictions, put together from parts."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG
    from comfy_extras.nodes_perpneg import Guider_PerpNeg, perp_neg

    name = "demo (v)"
    model = cases()[name][0]
    patched = with_user(model, adapter_of(model), [(tokens(1), 1.0)], strength=1.0, **WHOLE)
    _, (one, other, _), negative, shape = cases()[name]
    x, sigma = draw(shape, count=1, seed=5), torch.tensor([3.0])

    def alone(of: Any, cond: Any) -> Any:
        return host_prediction(of, x, sigma, cond, negative, 1.0)

    personal, middle, away = alone(patched, one), alone(model, other), alone(model, negative)
    assert not torch.equal(personal, alone(model, one))
    dual = guided(Guider_DualCFG(patched), x, sigma, conds=(one, other, negative), cfg=(2.0, 1.5))
    close(dual, away + 1.5 * (middle - away) + 2.0 * (personal - middle), 1e-4)
    perp = guided(Guider_PerpNeg(patched), x, sigma, conds=(one, other, negative), cfg=(2.0, 1.0))
    close(perp, perp_neg(x, personal, middle, away, 1.0, 2.0), 1e-4)


def guided(guider: Any, x: Any, sigma: Any, *, conds: tuple[Any, ...], cfg: tuple[float, ...]) -> Any:
    """What a guider of the host predicts of x, its prompts encoded as for a picture of this size."""
    guider.set_conds(*conds)
    guider.set_cfg(*cfg)
    patched = guider.model_patcher
    guider.inner_model = patched.model
    with torch.inference_mode():
        guider.model_options = comfy.model_patcher.create_model_options_clone(patched.model_options)
        comfy.sampler_helpers.prepare_model_patcher(patched, {}, guider.model_options)
        blank = torch.zeros_like(x)
        encoded = {key: list(value) for key, value in guider.original_conds.items()}
        guider.conds = comfy.samplers.process_conds(patched.model, blank, encoded, x.device, latent_image=blank, seed=0)
        patched.pre_run()
        try:
            return guider(x, sigma, model_options=guider.model_options, seed=0)
        finally:
            patched.cleanup()


def check_areas_leave_the_negative_prompt_without_a_user() -> None:
    """A prompt whose area is the whole picture is that prompt: also where the host copies its entry to the others."""
    model, (one, _, _), negative, shape = cases()["demo (v)"]
    patched = with_user(model, adapter_of(model), [(tokens(1), 1.0)], strength=1.0, **WHOLE)
    x, sigma = draw(shape, count=1, seed=5), torch.tensor([3.0])

    def whole(conditioning: Any) -> Any:
        return [[tokens_of, more | {"area": (*shape[1:], 0, 0)}] for tokens_of, more in conditioning]

    def of(positive: Any, avoided: Any) -> Any:
        return guided(comfy.samplers.CFGGuider(patched), x, sigma, conds=(positive, avoided), cfg=(4.0,))

    plain = of(one, negative)
    for conds in ((whole(one), negative), (one, whole(negative)), (whole(one), whole(negative))):
        close(of(*conds), plain, 1e-4)


def check_every_call_of_a_blend_has_its_control() -> None:
    """A U-Net takes ControlNet's residuals out of their lists; a blend calls it more than once."""
    name = "demo (v)"
    model = cases()[name][0]
    adapter, (conditioning, *_) = adapter_of(model), cases()[name][1]
    x, sigma = draw(cases()[name][3], count=1, seed=5), torch.tensor([3.0])
    context = conditioning[0][0]

    def of(*users: tuple[Any, float]) -> Any:
        patched = with_user(model, adapter, list(users), strength=1.0, **WHOLE)
        options = {"wrappers": patched.wrappers, "cond_or_uncond": [0], "uuids": []}
        control = {"middle": [torch.full((1, 1, 1, 1), 5.0)], "input": [], "output": []}
        with torch.inference_mode():
            return model.model.apply_model(
                x, sigma, c_crossattn=context, control=control, transformer_options=options
            ).clone()

    plain, personal = of(), of((tokens(1), 1.0))
    close(of((tokens(1), 2.0)), plain + 2 * (personal - plain), 1e-4)
    close(of((tokens(1), 0.5), (tokens(2), 0.5)), (personal + of((tokens(2), 1.0))) / 2, 1e-4)
