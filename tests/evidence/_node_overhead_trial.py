"""One trial of node-overhead, in a process of its own: prints {"ratios", "node", "bare"} as its last line."""

from __future__ import annotations

import importlib.util
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 5
CHECKPOINT, LORA = "attune_demo.safetensors", "one_step.safetensors"


def host_world() -> Any:
    """The module that starts the host as a library."""
    spec = importlib.util.spec_from_file_location("host_world", ROOT / "tests" / "host" / "adapters" / "world.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(settings: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """The demo model with a one-step LoRA of random weights by the stock loaders, a prompt, and the latents' size."""
    world = host_world()
    base = Path(settings["base"])
    for folder in ("checkpoints", "loras"):
        (base / "models" / folder).mkdir(parents=True)
    shutil.copy(ROOT / "workflows" / "demo" / CHECKPOINT, base / "models" / "checkpoints")
    world.enter(Path(settings["comfyui"]), base)
    import torch

    import nodes
    from attune.nodes.host import demo_model
    from attune.nodes.host.lora_keys import lora_keys
    from attune.training.adapters import LoraMetadata, save_lora

    demo_model.register()
    torch.set_flush_denormal(True)
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    model, clip, _ = world.load_checkpoint(CHECKPOINT)
    torch.manual_seed(settings["seed"])
    keys, tensors = lora_keys(model), {}
    for path in keys:
        shape = model.model.diffusion_model.get_submodule(path).weight.shape
        tensors[f"{path}.lora_down.weight"] = torch.randn(8, *shape[1:]) / 100
        tensors[f"{path}.lora_up.weight"] = torch.randn(shape[0], 8, *[1] * (len(shape) - 2)) / 100
        tensors[f"{path}.alpha"] = torch.tensor(8.0)
    metadata = LoraMetadata(title="random", settings={"objective": {"init_timestep": 799}})
    save_lora(base / "models" / "loras" / LORA, tensors, metadata=metadata, rename=keys)
    with torch.inference_mode():
        (model,) = nodes.LoraLoaderModelOnly().load_lora_model_only(model, LORA, 1.0)
    prompt = world.encode(clip, "a cat, flat style")
    return model, prompt, {"samples": torch.zeros(settings["pictures"], 16, 8, 8)}


def both_sides(model: Any, prompt: Any, latent: dict[str, Any]) -> dict[str, Callable[[int], Any]]:
    """The node as the host executes it, and the network alone on what the node gave it.

    Raises:
        RuntimeError: the node calls the network more than once, or the network alone computes something else.
    """
    import torch

    from attune.nodes.sampling.nodes_one_step import OneStepSampler

    network, calls = model.model.diffusion_model, []

    def node(seed: int) -> Any:
        return OneStepSampler.execute(model, prompt, latent, seed, 1, 0)

    hook = network.register_forward_hook(
        lambda _, arguments, keywords, output: calls.append((arguments, keywords, output.clone())), with_kwargs=True
    )
    text = node(0).ui["text"][0]
    hook.remove()
    if len(calls) != 1 or "timestep 799" not in text:
        raise RuntimeError(f"{len(calls)} calls of the network: {text}")
    arguments, keywords, expected = calls[0]
    if not torch.equal(network(*arguments, **keywords), expected):
        raise RuntimeError("The network alone computes something else than inside the node.")
    return {"node": node, "bare": lambda _: network(*arguments, **keywords)}


def timed(function: Callable[[int], Any], seed: int) -> float:
    began = time.perf_counter()
    function(seed)
    return time.perf_counter() - began


def main() -> None:
    settings = json.loads(sys.argv[1])
    model, prompt, latent = prepare(settings)
    import torch

    ratios, seconds = [], {"node": [], "bare": []}
    with torch.inference_mode():
        sides = both_sides(model, prompt, latent)
        for pair in range(WARM_UP + settings["pairs"]):
            order = list(sides) if pair % 2 else list(sides)[::-1]
            found = {name: timed(sides[name], pair) for name in order}
            if pair >= WARM_UP:
                ratios.append(found["node"] / found["bare"])
                for name, value in found.items():
                    seconds[name].append(value)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(json.dumps({"ratio": statistics.median(ratios), **medians}))


if __name__ == "__main__":
    main()
