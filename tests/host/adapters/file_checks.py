"""LoRA keys, folders and identities."""

from __future__ import annotations

import logging
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.model_management
import comfy.sd
import folder_paths
import torch
import world
from cases import DEMO, cases, demo, random_lora
from compare import raises

from attune.nodes.host import folders
from attune.nodes.host.applied_loras import parents_of
from attune.nodes.host.hashing import base_hash, text_encoder_hash, vae_hash
from attune.nodes.host.lora_keys import lora_keys
from attune.nodes.host.sampling import apply_lora
from attune.training.adapters import LoraMetadata, LoraParent, save_lora, weights_id
from attune.training.interfaces import AttuneError


def check_lora_keys_are_all_matched() -> None:
    expected = {
        "demo (v)": ("input_blocks.1.1.proj_in", "lora_unet_down_blocks_0_attentions_0_proj_in"),
        "sd15 (eps)": (
            "middle_block.1.transformer_blocks.0.attn2.to_out.0",
            "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0",
        ),
        "sdxl (eps, pooled)": (
            "input_blocks.4.1.transformer_blocks.1.attn1.to_q",
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q",
        ),
        "sd3 (flow)": ("joint_blocks.0.x_block.attn.qkv", "lora_unet_joint_blocks_0_x_block_attn_qkv"),
        "qwen image (flow), one frame": (
            "transformer_blocks.1.attn.add_q_proj",
            "lora_unet_transformer_blocks_1_attn_add_q_proj",
        ),
        "flux (flow), uneven prompts": ("double_blocks.1.img_attn.qkv", "lora_unet_double_blocks_1_img_attn_qkv"),
    }
    for name, (path, key) in expected.items():
        model = cases()[name][0]
        keys = lora_keys(model)
        assert keys[path] == key, keys[path]
        assert len(set(keys.values())) == len(keys)
        layers = [n for n, m in model.model.diffusion_model.named_modules() if getattr(m, "in_features", 0)]
        assert set(layers) <= set(keys), set(layers) - set(keys)
        records: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record, seen=records: seen.append(record.getMessage())
        logging.getLogger().addHandler(handler)
        tensors = comfy.lora_convert.convert_lora(random_lora(model, keys))
        matched = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model.model, {}))
        logging.getLogger().removeHandler(handler)
        assert not [text for text in records if "not loaded" in text], records[:3]
        assert set(matched) == {f"diffusion_model.{p}.weight" for p in keys}
        assert len(model.clone().add_patches(matched)) == len(keys)


def check_a_lora_for_another_architecture_is_refused() -> None:
    model, other = demo()["model"], cases()["sdxl (eps, pooled)"][0]
    ours, foreign = random_lora(model, lora_keys(model)), random_lora(other, lora_keys(other))
    raises(AttuneError, "it was trained for another architecture", apply_lora, model, foreign)
    raises(AttuneError, "it was trained for another architecture", apply_lora, model, ours | foreign)
    raises(AttuneError, "0 of 0 layers", apply_lora, model, {})
    assert len(apply_lora(model, ours).patches) == len(lora_keys(model))
    assert not model.patches


def check_loras_on_a_model_are_recognised() -> None:
    """By their weights: one of a file, whatever it is called by now, one of no file, and both strengths."""
    model, folder = demo()["model"], Path(folder_paths.get_temp_directory()) / "attune_parents"
    keys = lora_keys(model)
    ours, foreign = random_lora(model, keys), {key: 2 * value for key, value in random_lora(model, keys).items()}
    plain = {name.replace("lora_unet_", "", 1): value for name, value in ours.items()}
    save_lora(folder / "old.safetensors", plain, metadata=LoraMetadata(title="old"))
    (folder / "old.safetensors").rename(folder / "new.safetensors")
    assert parents_of(model, folder) == []
    (parent,) = parents_of(apply_lora(model, ours, strength=0.5), folder)
    assert parent == LoraParent(weights_id(ours), "attune_parents/new.safetensors", 0.5)
    (unnamed,) = parents_of(apply_lora(model, foreign, strength=2.0), folder)
    assert unnamed == LoraParent(weights_id(foreign), "", 2.0)
    both = apply_lora(apply_lora(model, foreign), ours, strength=0.25)
    assert [(p.name, p.strength) for p in parents_of(both, folder)] == [("attune_parents/new.safetensors", 0.25)]


def check_folders_hold_their_files() -> None:
    folders.register_folders()
    folders.register_folders()
    paths, extensions = folder_paths.folder_names_and_paths["rewards"]
    assert len(paths) == len(set(paths))
    assert str(folders.DEMO_FOLDER) in paths
    assert extensions == {".safetensors", ".pt", ".pth", ".bin"}
    assert str(folders.DEMO_FOLDER) in folder_paths.get_folder_paths("checkpoints")
    assert folder_paths.get_folder_paths("loras")[-1] == str(folders.DEMO_LORAS)
    assert folders.DEMO_FOLDER == world.ROOT / "workflows" / "demo"
    rewards = Path(folder_paths.models_dir) / "rewards"
    for file in ("scorer.safetensors", "notes.txt"):
        (rewards / file).write_text("")
    assert "scorer.safetensors" in folder_paths.get_filename_list("rewards")
    assert "notes.txt" not in folder_paths.get_filename_list("rewards")

    home = folders.lora_folder()
    assert home == Path(folder_paths.models_dir) / "loras" / "attune"
    hostile = ("../../etc/passwd", "/tmp/x", "..\\..\\x", "a/b", "C:\\x", "con", "nul.txt", ".hidden", "x" * 300)
    for name in (*hostile, "Wärme 2", "暖" * 100):
        written, run = folders.lora_output_path(name), folders.run_folder(name)
        for path, parent in ((written, home), (run, folders.user_folder() / "runs")):
            assert path.resolve().parent == parent.resolve(), path
            assert not path.name.startswith("."), path
            # Room for what is put before and behind it while it is written.
            assert len(f".{path.stem}.safetensors.1234567.partial".encode()) <= 255, path
            assert path.stem.lower() not in {"con", "nul"}, path
    assert folders.lora_output_path("Wärme 2").name == "Wärme 2_001.safetensors"
    for name in ("///", "..", "", " . "):
        raises(AttuneError, "cannot be a file name", folders.run_folder, name)
        raises(AttuneError, "cannot be a file name", folders.lora_output_path, name)
    assert folders.user_folder() == Path(folder_paths.get_user_directory()) / "attune"

    home.mkdir(parents=True, exist_ok=True)
    first = folders.lora_output_path("warm")
    first.write_text("mine")
    second = folders.lora_output_path("warm")
    assert (first.name, second.name) == ("warm_001.safetensors", "warm_002.safetensors")
    assert folders.lora_name(first) in folder_paths.get_filename_list("loras")
    assert Path(folder_paths.get_full_path("loras", folders.lora_name(first))) == first


def check_hashes_identify() -> None:
    whole = base_hash(demo()["model"])
    checkpoints = Path(folder_paths.models_dir) / "checkpoints"
    world.save_demo_checkpoint(checkpoints / "half.safetensors", torch.float16)
    half = world.load_checkpoint("half.safetensors")[0]
    with torch.inference_mode():
        asleep = base_hash(half)
        comfy.model_management.load_models_gpu([half])
        assert base_hash(half) == asleep
        as_half = half.model.diffusion_model.half()
        assert next(as_half.parameters()).dtype == torch.float16
        assert base_hash(half) == asleep
    assert len(asleep) == 16
    assert whole != asleep  # rounded weights are other weights


def check_the_base_hash_does_not_see_how_the_host_applies_loras() -> None:
    """Merged into the weights, or added on the fly where memory is short."""
    model = demo()["model"]
    with torch.inference_mode():
        patched, _ = comfy.sd.load_lora_for_models(model, None, random_lora(model, lora_keys(model)), 0.7, 0)
        hashes, merged = [], []
        for room in (1e32, 1):
            patched.detach()
            patched.load(patched.load_device, lowvram_model_memory=room)
            hashes.append(base_hash(patched))
            merged.append(len(patched.backup))
        patched.detach()
    assert merged[0] > merged[1], merged
    assert hashes[0] == hashes[1] != base_hash(model)


def check_text_encoder_and_vae_are_identified() -> None:
    _, clip, vae = world.load_checkpoint(DEMO)
    encoder_hash, decoder_hash = text_encoder_hash(clip), vae_hash(vae)

    # Loaded again, and with other rubbish where the file says nothing and the host leaves memory as it was.
    _, again, vae_again = world.load_checkpoint(DEMO)
    with torch.inference_mode():
        again.cond_stage_model.clip_l.transformer.text_projection.weight.fill_(torch.nan)
    assert text_encoder_hash(again) == encoder_hash
    assert vae_hash(vae_again) == decoder_hash
    world.encode(again, "a cat")
    with torch.inference_mode():
        vae_again.encode(torch.rand(1, 64, 64, 3))
    assert text_encoder_hash(again) == encoder_hash
    assert vae_hash(vae_again) == decoder_hash

    skipping = clip.clone()
    skipping.clip_layer(-2)
    styled = clip.clone()
    name = next(name for name in clip.patcher.model_state_dict() if name.endswith("q_proj.weight"))
    styled.add_patches({name: (torch.ones(128, 128),)}, 0.5)
    with torch.inference_mode():
        for tensor in (
            again.cond_stage_model.clip_l.transformer.text_model.embeddings.token_embedding.weight,
            next(vae_again.first_stage_model.taesd_encoder.parameters()),
        ):
            tensor.mul_(1.5)
    others = [text_encoder_hash(one) for one in (skipping, styled, again)]
    assert len({encoder_hash, *others}) == 4, others
    assert vae_hash(vae_again) != decoder_hash
