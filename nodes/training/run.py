"""One training run as a node plays it: host session, adapter, objective, memory check, training, files, report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ...training.adapters import Policy, precision_of, weights_id
from ...training.interfaces import LatentDecoder, Objective, Prompt, TrainingError
from ...training.memory import CHOICES
from ...training.presentable import presentable
from ...training.rollout import play
from ...training.run_lock import check_free
from ...training.share import Share, launched_share
from ...training.trainer import half_type, train
from .fitting import Fit, begun_precision, blocks_of, fitting
from .plans import ObjectivePlan
from .products import Product
from .records import reward_record, saved_step
from .rounds import without_training
from .run_records import FollowerRecords, RunRecords, TrainingOutcome, TrainingRequest, words_of


def run_training(request: TrainingRequest) -> TrainingOutcome:
    """Train, save and report; see the module.

    Raises:
        AttuneError: bad input, too little memory, another run of this name, or training that broke off.
        BaseException: the host's interrupt, after state and LoRA have been saved.
    """
    from ..host.decoder import HostDecoder
    from ..host.folders import run_folder
    from ..host.hashing import base_hash, vae_hash
    from ..host.session import training_session

    plan, model = request.plan, request.model
    check_models = getattr(plan, "check_models", None)
    if check_models:
        check_models(model, request.start)
    given = without_training(request)
    if given is not None:
        return given
    folder, share = run_folder(request.run_name), launched_share(cpu=model.load_device.type == "cpu")
    check_free(folder, share)
    _check_steps(request, folder)
    decoder = HostDecoder(plan.vae, model)
    identity = {"base_hash": base_hash(model), "data_hash": plan.data_hash(), **reward_record(plan)}
    fixed = {
        # The trainer's own fingerprint would not do: where memory is short the host adds LoRAs on the fly and leaves
        # the weights as they are, so that it would differ between sessions. This one sees both parts in either case.
        "base model": identity["base_hash"],
        "text encoder": plan.text_encoder,
        "VAE": vae_hash(plan.vae),
        "data": identity["data_hash"],
        # What is best is what it says, and what its gate blocks is left out.
        "held-out reward": getattr(getattr(plan, "held_out", None), "reward_id", ""),
        **({} if request.start is None else {"start LoRA": weights_id(request.start)}),
        **getattr(plan, "fixed", {}),
    }
    run = (RunRecords if share.main else FollowerRecords)(request, folder, identity)
    loaded = plan.load(decoder, run.callbacks.on_phase)
    shape = plan.latent_shape(model, loaded)
    fit: Fit | None = None
    for precision in _precisions(request, folder, run.product):
        with training_session(
            model, companions=_companions(plan), shape=(plan.batch, *shape), precision=precision
        ) as denoiser:
            denoiser.set_unconditional(plan.negative.conditioning)
            objective = plan.build(denoiser, decoder, loaded, shape, run.callbacks.on_phase)
            with run.product.policy(denoiser, objective) as policy:
                run.product.begin(policy)
                run.about = dict(getattr(objective, "about", {}))
                run.prediction = denoiser.process.prediction
                factor = int(plan.vae.spacial_compression_decode())
                run.resolution = (factor * shape[-1], factor * shape[-2])
                requests = objective.sample_requests()
                fit = _fit(request, policy, objective, shape, requests[0], folder, share, earlier=fit)
                if fit.problem:
                    continue
                run.fit = fit
                run.begin(fit.needed)
                sampler = preview_sampler(decoder, objective, shape, plan, request.trainer.seed)
                try:
                    with blocks_of(policy) if fit.checkpointing else nullcontext():
                        result = train(
                            policy,
                            objective,
                            request.trainer,
                            callbacks=run.callbacks,
                            run_folder=folder,
                            resume=request.resume,
                            sampler=sampler if share.main else None,
                            share=share,
                            identity=fixed,
                            knob=memory_knob(plan),
                            begun=request.start is not None,
                        )
                except BaseException as error:
                    run.broke_off(policy, error)
                    raise
                break
    else:
        raise TrainingError(fit.problem)
    if result.status == "stopped" and not run.callbacks.ended_by_button:
        problem = run.save_stopped(result)
        run.callbacks.raise_if_cancelled()
        raise TrainingError(problem or "Training was stopped; its state and the LoRA so far are saved.")
    try:
        return run.finish(result)
    except Exception as error:
        run.keep_record("failed")
        run.callbacks.end("failed", file="", message=f"Training is done and its state is saved, but: {words_of(error)}")
        raise


def memory_knob(plan: ObjectivePlan) -> str:
    """What to lower where memory is short, in the widgets' words; nothing where the batch cannot be smaller."""
    return plan.batch_knob if plan.batch > 1 else ""


def _check_steps(request: TrainingRequest, folder: Path) -> None:
    """
    Raises:
        TrainingError: the run to be resumed has gone further than is asked for; what it did cannot be taken back.
    """
    done, asked = saved_step(folder), request.trainer.steps
    if request.resume and done > asked:
        raise TrainingError(
            f"The run {request.run_name!r} has done {done} updates already, and {asked} are asked for. Set steps to at "
            f"least {done}, choose another run name, or set if_run_exists to start fresh."
        )


def _rewards(plan: ObjectivePlan) -> tuple[Any, Any]:
    """What the plan optimises and what it holds out; None where it has none."""
    return getattr(plan, "reward", None), getattr(plan, "held_out", None)


def _companions(plan: ObjectivePlan) -> list[Any]:
    """The host's patchers of what should stay in memory beside the network: the VAE, and networks of rewards."""
    patchers = (patcher for reward in _rewards(plan) for patcher in getattr(reward, "patchers", ()))
    return [plan.vae.patcher, *patchers]


def _precisions(request: TrainingRequest, folder: Path, product: Product) -> tuple[str, ...]:
    """What to try for the base weights, one after the other.

    Raises:
        TrainingError: few bits are asked for, and what is trained begins with the weights as they are.
    """
    from ..host.session import saves_memory

    if not product.precisions:
        if request.memory.base_precision not in (CHOICES[0], "auto"):
            raise TrainingError(
                f"A {product.noun} begins with the model's own weights, which {request.memory.base_precision} would "
                "round. Set base_precision to as loaded; gradient_checkpointing and a smaller chunk save memory too."
            )
        return ("",)
    undecided = request.memory.base_precision == "auto"
    begun = begun_precision(folder) if undecided and request.resume else None
    return request.memory.precisions(saves=saves_memory(request.model), begun=begun)


def _fit(
    request: TrainingRequest,
    policy: Policy,
    objective: Objective,
    shape: Sequence[int],
    prompt: Prompt,
    folder: Path,
    share: Share,
    *,
    earlier: Fit | None,
) -> Fit:
    """How a step fits into memory, if one is left to do."""
    if request.resume and saved_step(folder) >= request.trainer.steps:
        return Fit(precision_of(policy.module))
    pictures, own = (getattr(objective, name, None) for name in ("picture_memory", "own_memory"))
    return fitting(
        policy,
        request.memory,
        shape,
        prompt.positive,
        policy.denoiser.free_memory,
        batch=request.plan.batch,
        guidance=request.plan.training_guidance,
        autocast=half_type(request.trainer.precision, policy.device),
        average=request.trainer.ema > 0,
        knob=memory_knob(request.plan),
        earlier=earlier,
        agree=share.any,
        pictures=lambda: pictures(policy.device) if pictures else None,
        own=own() if own else 0,
        passes=getattr(request.plan, "passes", 1),
    )


def preview_sampler(
    decoder: LatentDecoder,
    objective: Objective,
    shape: Sequence[int],
    plan: ObjectivePlan,
    seed: int,
):
    """A function that samples the objective's fixed prompts with fixed noise: policy → images [B, h, w, 3].

    An objective with a `preview` of its own decides what is shown.

    Equal prompts, which are for different people, have equal noise. What the safety gate of one of the plan's rewards
    calls unsafe is blurred: the pictures are shown and kept.
    """

    def sample(policy: Policy) -> torch.Tensor:
        # Asked for each time: what makes a person's embedding may be trained too.
        asked = objective.sample_requests()
        texts = list(dict.fromkeys(request.text for request in asked))
        noise = torch.randn(len(texts), *shape, generator=torch.Generator().manual_seed(seed))
        noise = noise[[texts.index(request.text) for request in asked]].to(policy.device)
        own = getattr(objective, "preview", None)
        latents = own(noise, asked) if own else sampled(policy, noise, asked)
        return presentable(decoder.decode(latents).float().cpu(), _rewards(plan))

    def sampled(policy: Policy, noise: torch.Tensor, asked: Sequence[Prompt]) -> torch.Tensor:
        return play(
            policy,
            policy.process,
            noise,
            [request.positive for request in asked],
            steps=plan.preview.steps,
            guidance=plan.preview.guidance,
            generator=torch.Generator().manual_seed(seed),
            eta=0.0,
        ).pictures

    return sample
