"""LoRA files: what goes in comes out, other tools can read it, and nothing half-written stays behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from attune.tests.small_unets import disturb, inputs, tiny_denoiser
from attune.training.adapters import (
    LoraConfig,
    LoraMetadata,
    LoraParent,
    Policy,
    load_lora,
    lora_file_tensors,
    module_tensors,
    save_lora,
    weights_id,
)
from attune.training.checkpoint import CheckpointError
from attune.training.interfaces import AttuneError, TrainingError

METADATA = LoraMetadata(title="Blue mushrooms")
pytestmark = pytest.mark.usefixtures("one_thread")


def trained(config: LoraConfig, **network: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A LoRA that matters, and what its policy predicts."""
    with Policy(tiny_denoiser(**network), config) as policy, torch.no_grad():
        disturb(policy)
        return policy.tensors(), policy(*inputs())


@pytest.mark.parametrize("targets", [("cross-attention", "self-attention"), ("convolution", "projection")])
def test_saved_and_loaded_it_predicts_the_same_to_the_last_bit(tmp_path: Path, targets: tuple[str, ...]) -> None:
    config = LoraConfig(rank=4, alpha=2.0, targets=targets)
    tensors, expected = trained(config)
    save_lora(tmp_path / "a.safetensors", tensors, metadata=METADATA)
    stored, _ = load_lora(tmp_path / "a.safetensors")
    with Policy(tiny_denoiser(), LoraConfig(rank=4, alpha=2.0, targets=targets, seed=77)) as policy, torch.no_grad():
        assert not torch.allclose(policy(*inputs()), expected, atol=1e-3)
        policy.load_tensors(module_tensors(stored, policy.paths))
        assert torch.equal(policy(*inputs()), expected)


def test_keys_are_kohyas_or_as_renamed(tmp_path: Path) -> None:
    tensors, _ = trained(LoraConfig(rank=2))
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0"
    plain = lora_file_tensors(tensors)
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
    assert {f"{key}.lora_down.weight", f"{key}.lora_up.weight", f"{key}.alpha"} <= set(plain)
    assert len(plain) == len(tensors)

    rename = {path: "lora_transformer_first"}
    save_lora(tmp_path / "a.safetensors", tensors, metadata=METADATA, rename=rename)
    stored, _ = load_lora(tmp_path / "a.safetensors")
    assert "lora_transformer_first.lora_up.weight" in stored
    assert f"{key}.lora_up.weight" not in stored
    paths = [name.removesuffix(".alpha") for name in tensors if name.endswith(".alpha")]
    back = module_tensors(stored, paths, rename=rename)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)

    with pytest.raises(TrainingError, match="would both be saved as 'same'"):
        lora_file_tensors(tensors, rename=dict.fromkeys(paths, "same"))
    with pytest.raises(TrainingError, match=r"'a\.weight' is not a LoRA tensor"):
        lora_file_tensors({"a.weight": torch.zeros(1)})


def test_the_header_says_what_it_is(tmp_path: Path) -> None:
    tensors, _ = trained(LoraConfig(rank=2, alpha=3.0))
    metadata = LoraMetadata(
        title="Blue mushrooms",
        architecture="stable-diffusion-v1/lora",
        method="ddpo",
        base_model="demo",
        base_hash="abc",
        data_hash="def",
        parents=[LoraParent("0123456789abcdef", "attune/older_001.safetensors", 0.5)],
        prediction="eps",
        resolution=(64, 48),
        steps=12,
        metrics={"reward": 0.25},
        version="0.1.0",
        run="mushrooms",
        settings={"training": {"steps": 12}},
    )
    save_lora(tmp_path / "a.safetensors", tensors, metadata=metadata)
    stored, header = load_lora(tmp_path / "a.safetensors")
    assert header.pop("modelspec.date").startswith("20")
    assert json.loads(header.pop("attune.metrics")) == {"reward": 0.25}
    assert json.loads(header.pop("attune.settings")) == {"training": {"steps": 12}}
    parent = {"weights_id": "0123456789abcdef", "name": "attune/older_001.safetensors", "strength": 0.5}
    assert json.loads(header.pop("attune.parents")) == [parent]
    assert header.pop("attune.weights_id") == weights_id(stored)
    assert header == {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": "Blue mushrooms",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.resolution": "64x48",
        "modelspec.prediction_type": "epsilon",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_alpha": "3.0",
        "ss_output_name": "Blue mushrooms",
        "ss_sd_model_name": "demo",
        "ss_base_model_version": "stable-diffusion-v1",
        "ss_steps": "12",
        "attune.method": "ddpo",
        "attune.base_hash": "abc",
        "attune.data_hash": "def",
        "attune.run": "mushrooms",
        "attune.version": "0.1.0",
    }
    save_lora(tmp_path / "b.safetensors", tensors, metadata=METADATA)
    assert not [name for name, value in load_lora(tmp_path / "b.safetensors")[1].items() if not value]


def test_the_identity_of_weights_follows_them_and_not_their_names() -> None:
    tensors, _ = trained(LoraConfig(rank=2))
    renamed = {f"other.{name}": value for name, value in reversed(tensors.items())}
    assert weights_id(renamed) == weights_id(tensors)
    assert len(weights_id(tensors)) == 16
    changed = {name: value * (1.01 if "lora_up" in name else 1) for name, value in tensors.items()}
    assert weights_id(changed) != weights_id(tensors)
    assert weights_id({name: value.bfloat16() for name, value in tensors.items()}) != weights_id(tensors)
    assert weights_id({}) == ""


def test_weights_may_be_stored_in_half_precision(tmp_path: Path) -> None:
    tensors, _ = trained(LoraConfig(rank=2))
    save_lora(tmp_path / "a.safetensors", tensors, metadata=METADATA, dtype=torch.float16)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_another_alpha_in_the_file_keeps_its_strength() -> None:
    tensors, expected = trained(LoraConfig(rank=4, alpha=4.0))
    with Policy(tiny_denoiser(), LoraConfig(rank=4, alpha=16.0)) as policy, torch.no_grad():
        policy.load_tensors(tensors)
        torch.testing.assert_close(policy(*inputs()), expected)
        assert float(next(value for name, value in policy.tensors().items() if name.endswith(".alpha"))) == 16.0


@pytest.mark.parametrize(
    ("config", "network", "told"),
    [
        (LoraConfig(rank=2), {}, "of another shape"),
        (LoraConfig(rank=4), {"channels": (16, 64)}, "of another shape"),
        (LoraConfig(rank=4, targets=("feed-forward",)), {}, "missing.*not in this network"),
        (LoraConfig(rank=4, targets=("cross-attention",)), {}, "missing"),
        (LoraConfig(rank=4, targets=("everything",)), {}, "not in this network"),
    ],
)
def test_a_lora_for_something_else_is_refused_and_changes_nothing(
    config: LoraConfig, network: dict[str, Any], told: str
) -> None:
    foreign, _ = trained(config, **network)
    with Policy(tiny_denoiser(), LoraConfig(rank=4)) as policy:
        disturb(policy)
        before = policy.tensors()
        with pytest.raises(TrainingError, match=f"trained for another architecture.*{told}"):
            policy.load_tensors(foreign)
        assert all(torch.equal(value, before[name]) for name, value in policy.tensors().items())


def test_files_that_are_no_lora_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_lora(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not a tensor in sight")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_lora(tmp_path / "text.safetensors")
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(TrainingError, match="holds no LoRA layers"):
        load_lora(tmp_path / "weights.safetensors")


def test_ruined_or_empty_loras_are_not_saved(tmp_path: Path) -> None:
    tensors, _ = trained(LoraConfig(rank=2))
    name = next(iter(tensors))
    ruined = tensors | {name: torch.full_like(tensors[name], float("nan"))}
    with pytest.raises(TrainingError, match="not finite"):
        save_lora(tmp_path / "a.safetensors", ruined, metadata=METADATA)
    with pytest.raises(TrainingError, match="no layers"):
        save_lora(tmp_path / "a.safetensors", {}, metadata=METADATA)
    with pytest.raises(TrainingError, match=r"must end in \.safetensors, not 'a\.pt'"):
        save_lora(tmp_path / "a.pt", tensors, metadata=METADATA)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_exist_is_a_clear_error(tmp_path: Path) -> None:
    tensors, _ = trained(LoraConfig(rank=2))
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    with pytest.raises(AttuneError, match="Check that the folder is writable and the disk has room"):
        save_lora(blocker / "a.safetensors", tensors, metadata=METADATA)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


FULL_DISK = """
import importlib.util, resource, signal, sys
from pathlib import Path

root, folder = Path(sys.argv[1]), Path(sys.argv[2])
spec = importlib.util.spec_from_file_location(
    "attune", root / "__init__.py", submodule_search_locations=[str(root)]
)
sys.modules["attune"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["attune"])

import torch
from attune.training.adapters import LoraMetadata, load_lora, save_lora
from attune.training.interfaces import AttuneError

tensors = {"a.lora_down.weight": torch.ones(64, 64), "a.lora_up.weight": torch.ones(64, 64)}
save_lora(folder / "old.safetensors", tensors, metadata=LoraMetadata("old"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for name in ("old", "new"):
    try:
        save_lora(folder / f"{name}.safetensors", {k: 2 * v for k, v in tensors.items()}, metadata=LoraMetadata(name))
    except AttuneError as error:
        print("REFUSED", error)
stored, _ = load_lora(folder / "old.safetensors")
print("OLD IS", stored["lora_unet_a.lora_up.weight"].unique().tolist())
"""


@pytest.mark.needs_system("posix", "Windows has no file size limit to fill a disk with")
def test_a_full_disk_leaves_the_old_file_or_none(tmp_path: Path, repository: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(repository), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("REFUSED Could not write") == 2, run.stdout
    assert "the disk has room" in run.stdout
    assert "OLD IS [1.0]" in run.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.safetensors"]
