"""Sampling in proportion to a reward: the DAG-DB and DAG-KL objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ...training.objectives.dag_config import DAGConfig, Variant
from ..host.schema import AttuneNode
from . import dag_schemas

if TYPE_CHECKING:
    from .plan_dag import DAGPlan

CATEGORY = "Attune/training"
Objective = io.Custom("ATTUNE_OBJECTIVE")


def _schema(node: type[AttuneNode], slots: list[Any], *, node_id: str, display_name: str, words: str) -> io.Schema:
    return node.schema(
        node_id=node_id,
        display_name=display_name,
        category=CATEGORY,
        description=f"Teaches the model to make pictures as often as a reward likes them, instead of the best one over "
        f"and over: more reward, and variety stays. Works with any reward. {words}",
        search_aliases=["gflownet", "gflownets", "diffusion alignment", "diversity", "align", "rlhf"],
        inputs=[node.input(getattr(io, kind, None) or io.Custom(kind), id, **more) for kind, id, more in slots],
        outputs=[node.output(Objective, id="objective", display_name="objective", tooltip="For Train LoRA.")],
    )


def _plan(
    variant: Variant, clip: Any, vae: Any, latent: Any, reward: Any, held_out: Any, prompts: str, negative: str,
    knobs: dict[str, Any],
) -> DAGPlan:  # fmt: skip
    from .plan_dag import DAGPlan
    from .plan_rewards import reward_plan

    named = {"sampler_steps": "steps", "cfg": "guidance", "trained_steps": "transitions",
             "updates_per_round": "updates_per_rollout"}  # fmt: skip
    knobs["trained_steps"] = min(knobs["trained_steps"], knobs["sampler_steps"])
    config = DAGConfig(variant=variant, **{named.get(name, name): value for name, value in knobs.items()})
    return reward_plan(DAGPlan, clip, vae, latent, reward, held_out, prompts=prompts, negative=negative, config=config)


class AttuneDAGDBObjective(AttuneNode):
    """DAG by detailed balance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        words = "The variant with one simple loss; DAG-KL usually learns faster."
        slots = dag_schemas.DAG_DB_OBJECTIVE
        return _schema(cls, slots, node_id="AttuneDAGDBObjective", display_name="DAG-DB Objective", words=words)

    @classmethod
    def execute(
        cls, clip: Any, vae: Any, latent: dict, reward: Any, prompts: str, negative: str, held_out_reward: Any = None,
        **knobs: Any,
    ) -> io.NodeOutput:  # fmt: skip
        return io.NodeOutput(_plan("DB", clip, vae, latent, reward, held_out_reward, prompts, negative, knobs))


class AttuneDAGKLObjective(AttuneNode):
    """DAG by policy gradients of the balance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        words = "The variant to start with; every sampler step is judged on its own."
        slots = dag_schemas.DAG_KL_OBJECTIVE
        return _schema(cls, slots, node_id="AttuneDAGKLObjective", display_name="DAG-KL Objective", words=words)

    @classmethod
    def execute(
        cls, clip: Any, vae: Any, latent: dict, reward: Any, prompts: str, negative: str, held_out_reward: Any = None,
        **knobs: Any,
    ) -> io.NodeOutput:  # fmt: skip
        return io.NodeOutput(_plan("KL", clip, vae, latent, reward, held_out_reward, prompts, negative, knobs))


NODES: list[type[io.ComfyNode]] = [AttuneDAGDBObjective, AttuneDAGKLObjective]
