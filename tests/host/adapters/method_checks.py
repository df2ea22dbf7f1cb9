"""Every method on every architecture: one update, a file, the stock loader, another picture."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import folder_paths
import torch
import world
from architectures import ARCHITECTURES, Architecture
from cases import draw, host_prediction
from compare import close
from decoder_checks import small_kl_vae

import nodes
from attune.nodes.host.decoder import HostDecoder
from attune.nodes.host.in_place import in_place_allowed
from attune.nodes.host.session import training_session
from attune.nodes.rewards.statistics import StatisticReward
from attune.training.adapters import LoraConfig, LoraMetadata, Policy, save_lora
from attune.training.adapters.user_attention import (
    UserAdapterConfig,
    UserAdapterMetadata,
    load_user_adapter,
    save_user_adapter,
)
from attune.training.adapters.user_policy import Personal, UserPolicy
from attune.training.checkpointing import checkpointing
from attune.training.objectives.dag import DAGObjective
from attune.training.objectives.dag_config import DAGConfig
from attune.training.objectives.ddpo import DDPOConfig, DDPOObjective
from attune.training.objectives.diff_instruct import DiffInstructObjective
from attune.training.objectives.diff_instruct_config import DiffInstructConfig
from attune.training.objectives.diffusion_dpo import DiffusionDPOConfig, DiffusionDPOObjective, Pair
from attune.training.objectives.personal_dpo import PersonalDPOConfig, PersonalDPOObjective, PersonalPair
from attune.training.objectives.refl import ReFLConfig, ReFLObjective
from attune.training.objectives.supervised import SupervisedConfig, SupervisedObjective
from attune.training.preference.set_encoder import SetEncoder, SetEncoderConfig
from attune.training.trained import parted
from attune.training.trainer import TrainerConfig, train

TRAINER = TrainerConfig(steps=1, learning_rate=0.05, sample_every=0, warmup_steps=0)


@dataclass
class Bed:
    """What objectives are made of."""

    prompts: list[Any]
    decoder: Any
    shape: tuple[int, int, int]

    @property
    def practice(self) -> dict[str, Any]:
        return {"latent_shape": self.shape}

    def with_reward(self, kind: Any, config: Any, statistic: str = "JPEG size") -> Any:
        return kind(
            self.prompts, StatisticReward(statistic, "as high as possible"), self.decoder, config, **self.practice
        )


ONE = {"prompts_per_update": 1, "images_per_prompt": 2, "steps": 2}
METHODS: dict[str, Callable[[Bed], Any]] = {
    "supervised": lambda bed: SupervisedObjective(
        list(draw(bed.shape, count=1)), bed.prompts[:1], SupervisedConfig(batch=1, caption_dropout=0)
    ),
    "ddpo": lambda bed: bed.with_reward(
        DDPOObjective, DDPOConfig(**ONE, guidance=2.0, transitions=1, updates_per_rollout=1, minimum=2)
    ),
    "dag-db": lambda bed: bed.with_reward(
        DAGObjective, DAGConfig("DB", **ONE, guidance=1.0, transitions=1, flow_channels=(16,), anneal_updates=0)
    ),
    "dag-kl": lambda bed: bed.with_reward(
        DAGObjective, DAGConfig("KL", **ONE, guidance=1.0, transitions=1, flow_channels=(16,), anneal_updates=0)
    ),
    "diffusion-dpo": lambda bed: DiffusionDPOObjective(
        [Pair(*draw(bed.shape, count=2), bed.prompts[0])], DiffusionDPOConfig(batch=1, caption_dropout=0)
    ),
    "refl": lambda bed: bed.with_reward(
        ReFLObjective,
        ReFLConfig(
            "refl", prompts_per_update=1, images_per_prompt=1, steps=2, stop_from=1, stop_to=1, guidance=1.0, weight=1.0
        ),
        "brightness",
    ),
    "draft": lambda bed: bed.with_reward(
        ReFLObjective,
        ReFLConfig("draft", prompts_per_update=1, images_per_prompt=1, steps=2, last_steps=2, guidance=1.0),
        "brightness",
    ),
    "diff-instruct": lambda bed: bed.with_reward(
        DiffInstructObjective, DiffInstructConfig(**ONE, guidance=2.0, reward_weight=1.0), "brightness"
    ),
}


@contextmanager
def warnings() -> Iterator[list[str]]:
    """What the host warns of meanwhile: it names every key of a LoRA file that it has no place for."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(handler)


def _every_method_on(name: str) -> None:
    architecture = ARCHITECTURES[name]
    model = architecture.load()
    assert type(model.model.model_config).__name__ == architecture.family
    made = [world.random_conditioning(s, architecture.context, tokens=12, pooled=architecture.pooled) for s in (1, 2)]
    files = _trained(architecture, model, made)
    x, sigma = draw(architecture.shape, count=1, seed=5), model.get_model_object("model_sampling").sigmas[[500]].clone()
    plain = host_prediction(model, x, sigma, made[0], made[1], 1.0)
    for method, (file, layers, expected) in files.items():
        with torch.inference_mode(), warnings() as told:
            patched = nodes.LoraLoaderModelOnly().load_lora_model_only(model, file, 1.0)[0]
        assert not told, (name, method, told[:3])
        assert len(patched.patches) == layers, (name, method, len(patched.patches), layers)
        found = host_prediction(patched, x, sigma, made[0], made[1], 1.0)
        assert float((found - plain).abs().max()) > 1e-4, (name, method, "changes nothing")
        if expected is not None:
            close(found, expected, 1e-3)
    with torch.inference_mode():
        model.detach()


def _trained(architecture: Architecture, model: Any, made: list[Any]) -> dict[str, tuple[str, int, Any]]:
    """method → name of its LoRA file, adapted layers, and what the network then predicts."""
    vae = small_kl_vae(architecture.shape[0])
    decoder = HostDecoder(vae, model)
    x, files = draw(architecture.shape, count=1, seed=5), {}
    with torch.inference_mode(), training_session(model, companions=[vae.patcher]) as denoiser:
        assert denoiser.process.prediction == architecture.prediction
        bed = _bed(denoiser, decoder, made, architecture)
        sigma = denoiser.process.sigmas[[500]]
        for method, build in METHODS.items():
            files[method] = _one_update(denoiser, build(bed), bed, f"{architecture.family}-{method}", x, sigma)
    with torch.inference_mode(), training_session(model, precision="nf4") as denoiser:
        bed = _bed(denoiser, decoder, made, architecture)
        objective = METHODS["supervised"](bed)
        file = f"{architecture.family}-stored"
        # On the host's whole weights the picture is another one than on the rounded ones.
        files["stored"] = (*_one_update(denoiser, objective, bed, file, x, sigma, sparing=True)[:2], None)
    return files


def _bed(denoiser: Any, decoder: Any, made: list[Any], architecture: Architecture) -> Bed:
    denoiser.set_unconditional(made[1])
    return Bed([denoiser.prompt("a cat", made[0])], decoder, architecture.shape)


def _one_update(
    denoiser: Any, objective: Any, bed: Bed, name: str, x: Any, sigma: Any, *, sparing: bool = False
) -> tuple[str, int, Any]:
    roles = getattr(objective, "roles", ("policy",))
    with Policy(denoiser, LoraConfig(rank=2), roles=roles) as policy:
        blocks = checkpointing(denoiser.module, state=policy.as_now, again=lambda: in_place_allowed(denoiser.module))
        with blocks if sparing else nullcontext():
            result = train(policy, objective, TRAINER)
        assert result.status == "finished"
        assert torch.isfinite(torch.tensor(result.history[0]["loss"])), name
        file = Path(folder_paths.get_folder_paths("loras")[0]) / f"{name}.safetensors"
        save_lora(file, result.tensors, metadata=LoraMetadata(name), rename=denoiser.lora_keys())
        with torch.no_grad():
            return file.name, len(policy.paths), policy(x, sigma, [bed.prompts[0].positive]).clone()


# ---- a user adapter ----

FEATURES = 6
ENCODER = SetEncoderConfig(features=FEATURES, tokens=2, width=8, hidden=16, layers=1, heads=2)


def _personal_dpo_on(name: str) -> None:
    """Two updates of Personal DPO with an encoder that learns along, with and without gradient checkpointing; the file,
    read again and attached to the same network, predicts what was trained."""
    architecture = ARCHITECTURES[name]
    model = architecture.load()
    made = [world.random_conditioning(s, architecture.context, tokens=12, pooled=architecture.pooled) for s in (1, 2)]
    with torch.inference_mode(), training_session(model) as denoiser:
        bed = _bed(denoiser, None, made, architecture)
        plain, files = {}, {}
        for sparing in (False, True):
            torch.manual_seed(3)
            encoder = SetEncoder(ENCODER, "features").eval()
            with UserPolicy(denoiser, UserAdapterConfig(tokens=2, width=8)) as policy:
                again = {"state": policy.as_now, "again": lambda: in_place_allowed(denoiser.module)}
                with checkpointing(denoiser.module, **again) if sparing else nullcontext():
                    result = train(policy, _personal(bed, encoder), replace(TRAINER, steps=2))
                files[sparing] = _reloaded(denoiser, policy, encoder, bed, result, f"{architecture.family}-{sparing}")
                plain[sparing] = policy(*_place(denoiser, bed), [bed.prompts[0].positive]).detach()
        assert torch.equal(plain[True], plain[False]), "without a person it is the base model"
        close(files[True], files[False], 1e-3)
        assert float((files[False] - plain[False]).abs().max()) > 1e-4, (name, "changes nothing")
    with torch.inference_mode():
        model.detach()


def _personal(bed: Bed, encoder: SetEncoder) -> PersonalDPOObjective:
    features = draw((3, FEATURES), count=4)
    pairs = [
        PersonalPair(*draw(bed.shape, count=2, seed=10 + number), bed.prompts[0], person=str(number // 2),
                     features=features[number])
        for number in range(4)
    ]  # fmt: skip
    config = PersonalDPOConfig(batch=2, chunk=2, beta=100.0, caption_dropout=0, encoder_learning_rate=0.01)
    return PersonalDPOObjective(pairs, config, encoder=encoder)


def _place(denoiser: Any, bed: Bed) -> tuple[Any, Any]:
    return draw(bed.shape, count=1, seed=5), denoiser.process.sigmas[[500]]


@torch.no_grad()
def _reloaded(
    denoiser: Any, policy: UserPolicy, encoder: SetEncoder, bed: Bed, result: Any, name: str
) -> torch.Tensor:  # fmt: skip
    """What a person's picture is predicted to be by the saved adapter; as by the trained one, but for 16 bits."""
    assert result.status == "finished" and torch.isfinite(torch.tensor(result.history[-1]["loss"])), name
    tensors, along = parted(result.tensors)
    assert along.keys() == dict(encoder.named_parameters()).keys(), "the encoder was trained along"
    file = Path(folder_paths.get_folder_paths("loras")[0]) / f"{name}-user.safetensors"
    save_user_adapter(file, tensors, policy.config, UserAdapterMetadata(encoder.encoder_id))
    cond = [Personal(bed.prompts[0].positive, encoder(draw((2, 3, FEATURES), count=1, seed=7))[0])]
    expected = policy(*_place(denoiser, bed), cond)
    found, metadata = load_user_adapter(file)
    assert metadata.encoder_id == encoder.encoder_id
    policy.load_tensors(found.tensors())
    again = policy(*_place(denoiser, bed), cond).clone()
    close(again, expected, 1e-2)
    return again


def check_personal_dpo_on_sd15() -> None:
    _personal_dpo_on("sd15")


def check_personal_dpo_on_sd21() -> None:
    _personal_dpo_on("sd21")


def check_personal_dpo_on_sdxl() -> None:
    _personal_dpo_on("sdxl")


def check_personal_dpo_on_sd3() -> None:
    _personal_dpo_on("sd3")


# ---- every method ----


def check_every_method_on_sd15() -> None:
    _every_method_on("sd15")


def check_every_method_on_sd21() -> None:
    _every_method_on("sd21")


def check_every_method_on_sdxl() -> None:
    _every_method_on("sdxl")


def check_every_method_on_sd3() -> None:
    _every_method_on("sd3")


def check_every_method_on_flux() -> None:
    _every_method_on("flux")
