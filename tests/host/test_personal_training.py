"""Personal DPO through the real server: a user adapter is trained, saved, resumed, stopped, and used."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from attune.tests.host.choices import light_and_dark, put_choices
from attune.tests.host.graphs import (
    base_graph,
    finished,
    live,
    node,
    report_of,
    shown_error,
    train_node,
    wait_for,
    with_changes,
    write_checkpoint,
)
from attune.tests.host.test_headless import job_file, without_page
from attune.tests.hosting import HostServer
from attune.training.adapters.user_attention import load_user_adapter
from attune.training.preference.set_encoder import (
    SetEncoder,
    SetEncoderConfig,
    features_id,
    load_set_encoder,
    save_set_encoder,
)

REWARD = Path(__file__).resolve().parents[2] / "workflows" / "demo" / "attune_demo_reward.safetensors"
ENCODER, OTHER = "personal_encoder.safetensors", "personal_other_encoder.safetensors"
NEW = "train a new one along"
FILE = "attune_people/choices.jsonl"


@pytest.fixture(scope="module", autouse=True)
def files(host: HostServer) -> None:
    """A checkpoint and two encoders of random weights, one of them of other features."""
    write_checkpoint(host)
    torch.manual_seed(4)
    for name, features in ((ENCODER, features_id(REWARD)), (OTHER, "clip:of another file")):
        encoder = SetEncoder(SetEncoderConfig(tokens=2, width=8, hidden=32), features).eval()
        save_set_encoder(host.models_dir / "user_adapters" / name, encoder)


def personal_graph(run_name: str, *, steps: int = 2, **train: Any) -> dict[str, Any]:
    """Six simulated people's choices, one of them held out."""
    graph = base_graph()
    del graph["reward"], graph["judge"], graph["latent"]
    graph |= {
        "people": node("AttunePersonalPairsFromFile", file=FILE, most_pairs=6, most_people=6),
        "eyes": node(
            "AttuneLoadReward", reward_name=REWARD.name, device="default", precision="fp32", preprocessing="auto",
            logit_scale="auto",
        ),
        "objective": node(
            "AttunePersonalDPOObjective", pairs=["people", 0], clip=["ckpt", 1], vae=["ckpt", 2], features=["eyes", 0],
            encoder=ENCODER, support_pairs=3, resolution=64, pairs_per_update=4, beta=20.0, held_out_people=0.2,
            noise_from=0.5, user_dropout=0.0, caption_dropout=0.1, chunk=2, held_out_levels=2,
            encoder_learning_rate=0.01, new_tokens=2, new_width=8, preview_prompts="", preview_steps=2, preview_cfg=1.5,
        ),
        "train": train_node(run_name, steps=steps, **({"evaluate_every": 1} | train)),
    }  # fmt: skip
    return graph


def adapters(host: HostServer) -> Path:
    return host.models_dir / "user_adapters"


def adapter_file(host: HostServer, name: str) -> Path:
    return adapters(host) / Path(name.replace("\\", "/"))


def encoder_beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}_encoder.safetensors")


def same_tensors(one: Path, two: Path) -> bool:
    first, second = load_file(one), load_file(two)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def trained(host: HostServer) -> dict[str, Any]:
    """One finished run, made once: its report."""
    return report_of(host.run(personal_graph("personal run")))


# ---- a finished run --------------------------------------------------------------------------------------------------


def test_the_report_says_whom_the_run_was_about(trained):
    assert (trained["status"], trained["method"], trained["product"]) == ("finished", "personal-dpo", "user adapter")
    assert {"loss", "accuracy", "margin", "held_out_accuracy", "held_out_margin"} <= trained["metrics"].keys()
    about = trained["about"]
    assert about["people"] == 5 and about["held_out_people"] == 1
    assert about["pairs"] + about["pairs_without"] == 30 and about["support_pairs"] == 3
    assert about["held_out_pairs"] + about["held_out_pairs_without"] == 3
    assert "Learned from 5 people" in trained["live"]["note"] and "Memory: about" in trained["live"]["note"]
    assert trained["memory"]["activations"] > 0, "a step is measured with a person in it"
    assert trained["live"]["first_curves"][0] == "held_out_accuracy"


def test_the_file_is_a_user_adapter_of_the_chosen_encoder(host, trained):
    path = adapter_file(host, trained["lora_name"])
    assert path.parent == adapters(host) / "attune" and path.name == "personal run_001.safetensors"
    adapter, metadata = load_user_adapter(path)
    assert metadata.encoder_id == load_set_encoder(adapters(host) / ENCODER).encoder_id
    assert metadata.base_hash == trained["base_hash"] and metadata.method == "personal-dpo"
    assert metadata.details["updates"] == 2 and metadata.details["data_hash"] == trained["data_hash"]
    moved = max(value.abs().max().item() for name, value in adapter.tensors().items() if ".user_v." in name)
    assert moved > 0, "values begin at 0"
    assert not encoder_beside(path).exists(), "a chosen encoder stays where it is"
    assert str(host.folder) not in json.dumps(metadata.details)


def test_apply_preference_lists_it_and_it_changes_pictures(host, trained):
    listed = host.object_info()["AttuneApplyPreference"]["input"]["required"]["adapter"]
    assert trained["lora_name"] in str(listed)
    put_choices(host, "for the new adapter", light_and_dark(6))
    graph = base_graph() | {
        "eyes": personal_graph("")["eyes"],
        "profile": node("AttunePreferenceProfile", profile="my taste", new_name="for the new adapter"),
        "taste": node("AttunePreferenceEmbedding", profile=["profile", 0], features=["eyes", 0], encoder=ENCODER),
        "personal": node("AttuneApplyPreference", model=["ckpt", 0], preference=["taste", 0], strength=3.0,
                         adapter=trained["lora_name"], start_percent=0.0, end_percent=1.0),
        "text": node("CLIPTextEncode", clip=["ckpt", 1], text="a cat"),
    }  # fmt: skip
    known = host.object_info()["AttunePreferenceEmbedding"]["input"]["required"]
    graph["taste"]["inputs"] |= {
        name: entry[1]["default"] for name, entry in known.items()
        if name not in graph["taste"]["inputs"] and len(entry) > 1 and "default" in entry[1]
    }  # fmt: skip
    for name, model in (("plain", "ckpt"), ("leaning", "personal")):
        graph |= {
            f"sample_{name}": node(
                "KSampler", model=[model, 0], positive=["text", 0], negative=["text", 0], latent_image=["latent", 0],
                seed=5, steps=3, cfg=1.5, sampler_name="euler", scheduler="normal", denoise=1.0,
            ),
            f"decode_{name}": node("VAEDecode", samples=[f"sample_{name}", 0], vae=["ckpt", 2]),
            f"save_{name}": node("SaveImage", images=[f"decode_{name}", 0], filename_prefix=f"attune_{name}"),
        }  # fmt: skip
    result = host.run(graph)
    plain, leaning = (
        host.pixels(host.output_path(result.outputs[f"save_{name}"]["images"][0])) for name in ("plain", "leaning")
    )
    assert abs(plain - leaning).max() > 1 / 255


def test_a_finished_run_is_loaded_and_more_steps_go_on_exactly(host, trained):
    before = sorted(adapters(host).rglob("*"))
    host.free()
    again = report_of(host.run(personal_graph("personal run")))
    assert again["lora_name"] == trained["lora_name"] and sorted(adapters(host).rglob("*")) == before
    longer = report_of(host.run(personal_graph("personal run", steps=4)))
    whole = report_of(host.run(personal_graph("personal whole run", steps=4)))
    assert longer["lora_name"] != trained["lora_name"]
    assert same_tensors(adapter_file(host, longer["lora_name"]), adapter_file(host, whole["lora_name"]))


def test_another_encoder_is_another_run(host, trained):
    other = SetEncoder(SetEncoderConfig(tokens=2, width=8, hidden=32), features_id(REWARD)).eval()
    save_set_encoder(adapters(host) / "personal_third_encoder.safetensors", other)
    graph = with_changes(
        personal_graph("personal run", steps=4), "objective", encoder="personal_third_encoder.safetensors"
    )
    name, words = shown_error(host, graph)
    assert name == "train" and "cannot be resumed" in words and "set encoder" in words


def test_nodes_behind_the_lora_output_do_not_run(host, trained):
    """The host shows the reason in the page; the chart is drawn all the same."""
    graph = personal_graph("personal run", steps=4) | {
        "loader": node("LoraModelLoader", model=["ckpt", 0], lora=["train", 1], strength_model=1.0),
        "show": node("PreviewImage", images=["train", 3]),
    }
    graph |= {
        "text": node("CLIPTextEncode", clip=["ckpt", 1], text="a cat"),
        "latent": base_graph()["latent"],
        "sample": node(
            "KSampler", model=["loader", 0], positive=["text", 0], negative=["text", 0], latent_image=["latent", 0],
            seed=5, steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="attune_never"),
    }  # fmt: skip
    record = finished(host, graph)
    assert record["outputs"]["show"]["images"] and "save" not in record["outputs"]
    assert not list(host.output_dir.glob("attune_never*"))


# ---- an encoder that is trained along --------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [{"keep": "best"}, {"ema": 0.9}, {}])
def test_a_new_encoder_is_saved_beside_and_belongs_to_the_adapter(host, keep):
    run = f"new encoder {' '.join(keep) or 'last'}"
    graph = with_changes(personal_graph(run, steps=3, **keep), "objective", encoder=NEW)
    path = adapter_file(host, report_of(host.run(graph))["lora_name"])
    encoder = load_set_encoder(encoder_beside(path))
    adapter, metadata = load_user_adapter(path)
    assert metadata.encoder_id == encoder.encoder_id and encoder.features_id == features_id(REWARD)
    assert (adapter.config.tokens, adapter.config.width) == (encoder.config.tokens, encoder.config.width) == (2, 8)
    listed = str(host.object_info()["AttunePersonalDPOObjective"]["input"]["required"]["encoder"])
    assert encoder_beside(path).name in listed
    # The same graph once more: a run works on a copy, and finds the pair of files again.
    host.free()
    assert adapter_file(host, report_of(host.run(graph))["lora_name"]) == path


def test_a_new_encoder_goes_on_exactly_where_it_was(host):
    paths = []
    for run, parts in (("along in two", (2, 4)), ("along in one", (4,))):
        for steps in parts:
            host.free()
            graph = with_changes(personal_graph(run, steps=steps), "objective", encoder=NEW)
            report = report_of(host.run(graph))
        paths.append(adapter_file(host, report["lora_name"]))
    assert same_tensors(*paths) and same_tensors(*map(encoder_beside, paths))


# ---- Cancel, stop and save, a job file -------------------------------------------------------------------------------


def test_cancel_keeps_adapter_and_encoder_and_the_run_goes_on(host):
    graph = with_changes(personal_graph("personal cancelled", steps=1000), "objective", encoder=NEW)
    results: list[BaseException] = []

    def start() -> None:
        try:
            host.run(graph)
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    wait_for(host, "personal cancelled", lambda state: state["step"] >= 2)
    host.interrupt()
    thread.join(120)
    assert results, "Cancel ends the prompt"
    state = wait_for(host, "personal cancelled", lambda state: state["status"] != "running")
    assert state["status"] == "stopped" and state["message"].startswith("User adapter so far: attune")
    path = adapter_file(host, state["file"])
    assert path.stem == "personal cancelled_stopped_001"
    assert load_user_adapter(path)[1].encoder_id == load_set_encoder(encoder_beside(path)).encoder_id
    done = load_user_adapter(path)[1].details["updates"]
    changed = with_changes(graph, "train", steps=done + 1)
    report = report_of(host.run(changed))
    assert report["status"] == "finished" and report["steps"] == done + 1


def test_stop_and_save_hands_on_what_there_is(host):
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(host.run(personal_graph("personal paused", steps=1000))))
    thread.start()
    wait_for(host, "personal paused", lambda state: state["step"] >= 2)
    state = live(host, "personal paused")
    host.post("/attune/training/stop", {name: state[name] for name in ("node", "workflow", "run")})
    thread.join(120)
    report = report_of(results[0])
    assert report["status"] == "stopped early"
    assert adapter_file(host, report["lora_name"]).stem == "personal paused_stopped_001"


def test_a_job_file_without_a_page_gives_the_same_adapter(host, trained):
    said = without_page(
        host, job_file(host, "personal whole run"), "AttuneTrainLora.run_name=personal job", "AttuneTrainLora.steps=2"
    )
    assert "update 2/2" in said and "finished" in said
    one, two = adapter_file(host, trained["lora_name"]), adapters(host) / "attune" / "personal job_001.safetensors"
    first, second = load_file(one), load_file(two)
    assert first.keys() == second.keys()
    for name, value in first.items():
        # In half precision, and another process may round sums otherwise.
        torch.testing.assert_close(second[name].float(), value.float(), rtol=0, atol=2e-3)


# ---- where the choices come from -------------------------------------------------------------------------------------


def people_from_profiles(host: HostServer, *names: str) -> dict[str, Any]:
    graph: dict[str, Any] = {}
    for number, name in enumerate(names, 1):
        put_choices(host, name, light_and_dark(6, seed=number))
        graph[f"profile {number}"] = node("AttunePreferenceProfile", profile="my taste", new_name=name)
    sockets = ["profile", "profile_2", "profile_3", "profile_4"][: len(names)]
    links = {socket: [f"profile {number}", 0] for number, socket in enumerate(sockets, 1)}
    graph["people"] = node("AttunePersonalPairs", **links, most_pairs=0, least_stars=1, caption="")
    return graph


def test_choices_of_several_profiles_and_of_a_file_are_one_set(host):
    graph = people_from_profiles(host, "first of several", "second of several")
    graph["file"] = node("AttunePersonalPairsFromFile", file=FILE, most_pairs=5, most_people=3, more=["people", 0])
    result = host.run(graph)
    (words,) = result.ui("AttunePersonalPairsFromFile", "text")
    assert "of 5 people" in words and "first of several" not in words


def test_one_profile_on_two_sockets_is_one_person(host):
    graph = people_from_profiles(host, "twice", "twice")
    (words,) = host.run(graph).ui("AttunePersonalPairs", "text")
    assert "of 1 person" in words


def test_a_run_on_profiles_has_no_name_of_them_in_its_file(host):
    graph = people_from_profiles(host, "Ada", "Grace", "Edsger")
    graph |= {key: value for key, value in personal_graph("personal profiles").items() if key != "people"}
    report = report_of(host.run(graph))
    with safe_open(adapter_file(host, report["lora_name"]), "pt") as file:
        header = json.dumps(file.metadata())
    assert not any(name in header or name in json.dumps(report) for name in ("Ada", "Grace", "Edsger"))


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "where", "words"),
    [
        (("objective", {"encoder": OTHER}), "objective", "trained with features of another file"),
        (("objective", {"encoder": "gone.safetensors"}), "objective", "is not in"),
        (("objective", {"encoder": "../escape.safetensors"}), "objective", "is not in"),
        (("objective", {"encoder": NEW, "encoder_learning_rate": 0.0}), "objective", "above 0"),
        (("people", {"file": "../user/attune.jsonl"}), "people", "is no file inside the folder 'input'"),
        (("people", {"file": "attune_people/gone.jsonl"}), "people", "There is no file"),
        (("people", {"file": "attune_people/pictures.jsonl"}), "people", "line 1 is not"),
        (("people", {"most_pairs": 1}), "objective", "Collect more choices per person"),
        (("train", {"base_precision": "nf4", "gradient_checkpointing": "auto"}), "train", "as loaded"),
        (("objective", {"held_out_people": 0.0}), "train", "best cannot be kept"),
    ],
)
def test_bad_input_is_said_in_words(host, change, where, words):
    name, changes = change
    graph = personal_graph("personal bad input")
    if "held_out_people" in changes:
        graph = with_changes(graph, "train", keep="best")
    found, said = shown_error(host, with_changes(graph, name, **changes))
    assert found == where and words in said, (found, said)
    assert not list((adapters(host) / "attune").glob("personal bad input*"))


def test_a_reward_without_features_is_refused(host):
    graph = personal_graph("personal blind")
    graph["eyes"] = node("AttuneImageStatisticsReward", statistic="warmth", goal="as high as possible", target=0.5)
    found, said = shown_error(host, graph)
    assert found == "objective" and "no features of pictures and texts" in said


def test_pictures_that_do_not_fit_are_named(host):
    folder = host.input_dir / "odd_people"
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(8):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
        Image.new("RGB", (64, 32), (0, number, 0)).save(folder / f"{number}_flat.png")
        rows.append({"prompt": "a cat", "chosen": f"{number}.png", "rejected": f"{number}_flat.png", "person": "p"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    graph = with_changes(personal_graph("personal odd"), "people", file="odd_people/pairs.jsonl")
    found, said = shown_error(host, graph)
    assert found == "people" and "same size" in said
    rows[0]["chosen"] = "../../secret.png"
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found, said = shown_error(host, graph)
    assert found == "people" and "leads out of" in said
