"""The training nodes: sockets and widgets for what this folder and `training/` do."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...training.adapters import Kind, LoraConfig
from ...training.interfaces import AttuneError
from ...training.memory import MemorySettings
from ...training.objectives.ddpo import DDPOConfig
from ...training.objectives.supervised import SupervisedConfig
from ...training.trainer import TrainerConfig
from ..drawing import to_tensor
from ..host import server
from ..host.examples import STYLE, offer_pictures
from ..host.folders import run_folder
from ..host.progress import EVENT, workflow_id
from ..host.sampling import sampler_names
from ..host.schema import AttuneNode
from . import (
    nodes_ab,
    nodes_dag,
    nodes_dpo,
    nodes_multi_round,
    nodes_one_step,
    nodes_personal,
    nodes_refl,
    run_schemas,
    schemas,
)
from .live import LIVE
from .plans import PreviewSettings, prompt_lines
from .records import pause_of
from .widgets import RUN_EXISTS, evaluation_interval, lora_config, single, supervised_plan, trained_shape

CATEGORY = "Attune/training"
Objective = io.Custom("ATTUNE_OBJECTIVE")
LoraSettings = io.Custom("ATTUNE_LORA_SETTINGS")
LoraModel = io.Custom("LORA_MODEL")
LossMap = io.Custom("LOSS_MAP")


def inputs(node: type[AttuneNode], slots: list[schemas.Slot]) -> list[Any]:
    """The host's inputs of a table in `schemas`."""
    return [node.input(getattr(io, kind, None) or io.Custom(kind), id, **words) for kind, id, words in slots]


class AttuneLoraSettings(AttuneNode):
    """Shape of the LoRA to be trained."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneLoraSettings",
            display_name="LoRA Settings",
            category=CATEGORY,
            description="How large the trained LoRA is and which layers it changes. Without this node Train LoRA uses "
            "the same defaults.",
            search_aliases=["rank", "network dim", "alpha", "target modules", "up blocks", "block weights"],
            inputs=inputs(cls, schemas.LORA_SETTINGS),
            outputs=[
                cls.output(LoraSettings, id="lora_settings", display_name="lora_settings", tooltip="For Train LoRA.")
            ],
        )

    @classmethod
    def execute(
        cls, rank: int, alpha: float, dropout: float, part: str = LoraConfig.part, **targets: bool
    ) -> io.NodeOutput:
        return io.NodeOutput(lora_config(rank, alpha, dropout, targets, part))


class AttuneSupervisedObjective(AttuneNode):
    """Learn the look of pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneSupervisedObjective",
            display_name="Supervised Objective",
            category=CATEGORY,
            description="Teaches a style or a subject from pictures with captions.",
            search_aliases=["dataset", "style lora", "fine-tune", "dreambooth", "captions"],
            is_input_list=True,
            inputs=inputs(cls, schemas.SUPERVISED_OBJECTIVE),
            outputs=[cls.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(
        cls, images: list[torch.Tensor], clip: list, vae: list, captions: list[str], **lists: list
    ) -> io.NodeOutput:
        widget = {name: single(values, name) for name, values in lists.items()}
        config = SupervisedConfig(
            batch=widget["batch_size"],
            caption_dropout=widget["caption_dropout"],
            min_snr_gamma=widget["min_snr_gamma"],
        )
        plan = supervised_plan(
            images,
            captions,
            single(clip, "clip"),
            single(vae, "vae"),
            trigger=widget["trigger"],
            resolution=widget["resolution"],
            preview_prompts=widget["preview_prompts"],
            preview=PreviewSettings(widget["preview_steps"], widget["preview_cfg"]),
            config=config,
        )
        return io.NodeOutput(plan)


class AttuneDDPOObjective(AttuneNode):
    """Raise a reward by reinforcement learning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneDDPOObjective",
            display_name="DDPO Objective",
            category=CATEGORY,
            description="Teaches the model to make pictures that a reward likes, by trying and comparing. Works with "
            "any reward. The baseline among the alignment methods.",
            search_aliases=["reinforcement learning", "rlhf", "policy gradient", "align", "ppo"],
            inputs=inputs(cls, schemas.DDPO_OBJECTIVE),
            outputs=[cls.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(
        cls, clip: Any, vae: Any, latent: dict, reward: Any, prompts: str, negative: str, held_out_reward: Any = None,
        **knobs: Any,
    ) -> io.NodeOutput:  # fmt: skip
        from .plan_rewards import DDPOPlan, reward_plan

        config = DDPOConfig(
            prompts_per_update=knobs["prompts_per_update"],
            images_per_prompt=knobs["images_per_prompt"],
            steps=knobs["sampler_steps"],
            guidance=knobs["cfg"],
            transitions=min(knobs["trained_steps"], knobs["sampler_steps"]),
            updates_per_rollout=knobs["updates_per_round"],
            chunk=knobs["chunk"],
            clip_range=knobs["clip_range"],
            step_weights=knobs["step_weights"],
        )
        plan = reward_plan(
            DDPOPlan, clip, vae, latent, reward, held_out_reward, prompts=prompts, negative=negative, config=config
        )
        return io.NodeOutput(plan)


class AttuneTrainLora(AttuneNode):
    """Train a LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneTrainLora",
            display_name="Train LoRA",
            category=CATEGORY,
            description="Trains a LoRA with the connected objective, shows progress live, and saves it to "
            "models/loras/attune. Cancel keeps the work; the same run name goes on from there.",
            search_aliases=["finetune", "lora training", "alignment", "trainer"],
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo, io.Hidden.prompt],
            inputs=inputs(cls, run_schemas.TRAIN_LORA),
            outputs=[
                cls.output(io.Model, id="model_out", display_name="model", tooltip="The model with the LoRA applied; "
                          "as it came in where a user adapter was trained."),
                cls.output(LoraModel, id="lora", display_name="lora", tooltip="For start_lora of another Train LoRA, "
                           "and the host's Load LoRA Model and Save LoRA Weights. Nothing of a user adapter, which "
                           "goes into Apply Preference."),
                cls.output(LossMap, id="loss_map", display_name="loss_map", tooltip="For the host's Plot Loss Graph."),
                cls.output(io.Image, id="report_image", display_name="report_image", tooltip="The curves."),
                cls.output(io.String, id="lora_name", display_name="lora_name", tooltip="The saved file, as Load LoRA "
                           "lists it, or Apply Preference a user adapter."),
                cls.output(io.String, id="report", display_name="report", tooltip="Everything about the run as JSON."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, run_name: str | None = None, **_: Any) -> str:
        """Another one after "Stop and save", so that Run goes on instead of taking the paused result from the cache."""
        try:
            return pause_of(run_folder(run_name.strip())) if run_name else ""
        except AttuneError:
            return ""  # `execute` says what is wrong with the name

    @classmethod
    def execute(
        cls, model: Any, objective: Any, run_name: str, if_run_exists: str, lora_settings: Any = None,
        job_file_only: bool = False, trains: Kind = LoraConfig.kind, start_lora: Any = None, **knobs: Any,
    ) -> io.NodeOutput:  # fmt: skip
        from .products import what_instead
        from .rounds import goes_on, start_of
        from .run import run_training
        from .run_records import TrainingRequest, export_job

        if job_file_only:
            told = export_job(cls.hidden.prompt, cls.hidden.unique_id, run_name.strip())
            blocked = ExecutionBlocker(None)  # without words: it is no error that nodes behind have nothing to do
            shown = {"workflow": workflow_id(cls.hidden.extra_pnginfo), "run": run_name.strip(), "text": told}
            return io.NodeOutput(*[blocked] * 5, told, ui={"text": [told], "attune_job": [json.dumps(shown)]})
        words = {field.name: knobs.pop(field.name) for field in fields(MemorySettings) if field.name in knobs}
        knobs["evaluate_every"] = evaluation_interval(objective, knobs["steps"], knobs.get("evaluate_every", 0))
        trainer = TrainerConfig(
            seed=knobs.pop("training_seed"),
            sample_every=knobs.pop("preview_every"),
            checkpoint_seconds=knobs.pop("save_state_seconds"),
            **getattr(objective, "trainer", {}),
            **knobs,
        )
        name, asked = run_name.strip(), if_run_exists == RUN_EXISTS[0]
        request = TrainingRequest(
            model, objective, trained_shape(lora_settings, trains), trainer, name, anew=not asked,
            resume=goes_on(objective, run_folder(name), trainer.steps, asked=asked), node_id=cls.hidden.unique_id,
            workflow_id=workflow_id(cls.hidden.extra_pnginfo), graph=cls.hidden.prompt, memory=MemorySettings(**words),
            start=start_of(objective, start_lora),
        )  # fmt: skip
        outcome = run_training(request)
        chart, text = to_tensor(outcome.chart), json.dumps(outcome.report)
        shown = json.dumps({**outcome.report, "live": outcome.live})
        file = outcome.lora_name or ExecutionBlocker(None)  # without words: a round without a LoRA is no error
        lora = outcome.tensors
        if lora is None:
            lora = ExecutionBlocker(what_instead(outcome.lora_name)) if outcome.lora_name else file
        return io.NodeOutput(
            outcome.model, lora, {"loss": outcome.losses}, chart, file, text,
            ui={"attune_report": [shown]},
        )  # fmt: skip


class AttuneCompareAB(AttuneNode):
    """Two models side by side."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="AttuneCompareAB",
            display_name="Compare A/B",
            category=CATEGORY,
            description="Samples two models with the same prompts and seeds, scores every picture and draws them "
            "before over after.",
            search_aliases=["before after", "side by side", "evaluate", "win rate"],
            is_output_node=True,
            inputs=inputs(cls, run_schemas.compare_ab(*sampler_names())),
            outputs=[
                cls.output(io.Image, id="grid", display_name="grid", tooltip="Before over after, with scores."),
                cls.output(io.String, id="metrics", display_name="metrics", tooltip="All figures as JSON."),
                cls.output(io.Image, id="images_a", display_name="images_a", tooltip="Pictures of model A, prompt by "
                           "prompt."),
                cls.output(io.Image, id="images_b", display_name="images_b", tooltip="Pictures of model B, prompt by "
                           "prompt."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model_a: Any, model_b: Any, clip: Any, vae: Any, latent: dict, reward: Any, prompts: str, negative: str,
        first_seed: int, images_per_prompt: int, steps: int, cfg: float, sampler_name: str, scheduler: str,
        held_out_reward: Any = None,
    ) -> io.NodeOutput:  # fmt: skip
        from .compare import SamplingSettings, compare

        found = compare(
            model_a, model_b, clip, vae, latent,
            prompts=prompt_lines(prompts), negative=negative, reward=reward, held_out=held_out_reward,
            first_seed=first_seed, seeds_per_prompt=images_per_prompt,
            settings=SamplingSettings(steps, cfg, sampler_name, scheduler),
        )  # fmt: skip
        text = json.dumps(found.figures)
        return io.NodeOutput(
            to_tensor(found.grid), text, found.before.images, found.after.images, ui={"attune_metrics": [text]}
        )


def _add_routes() -> None:
    """What the live view asks for. Without a server there is nothing to add.

    GET /attune/training/state: what every training node showed last.
    POST /attune/training/stop {node, workflow, run}: end that run after its present update and hand on what it has;
        404 if no such run is at work.
    """
    routes = server.routes()
    if routes is None:
        return
    from aiohttp import web

    @routes.get("/attune/training/state")
    async def state(request: web.Request) -> web.Response:
        return web.json_response({"runs": LIVE.snapshot()})

    @routes.post("/attune/training/stop")
    async def stop(request: web.Request) -> web.Response:
        try:
            asked = await request.json()
            identity = {name: str(asked[name]) for name in ("node", "workflow", "run")}
        except (ValueError, LookupError, TypeError, RecursionError):
            return web.json_response({"error": "Send a JSON object with node, workflow and run."}, status=400)
        if not LIVE.ask_to_stop(identity):
            return web.json_response({"error": f"No run {identity['run']!r} of that node is at work."}, status=404)
        server.tell(EVENT, identity | {"kind": "stopping"})
        return web.json_response({"stopping": True})


_add_routes()
offer_pictures(STYLE)

NODES: list[type[io.ComfyNode]] = [
    AttuneLoraSettings,
    AttuneSupervisedObjective,
    AttuneDDPOObjective,
    AttuneTrainLora,
    AttuneCompareAB,
    *nodes_ab.NODES,
    *nodes_dag.NODES,
    *nodes_dpo.NODES,
    *nodes_personal.NODES,
    *nodes_refl.NODES,
    *nodes_one_step.NODES,
    *nodes_multi_round.NODES,
]
