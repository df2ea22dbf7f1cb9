"""Preference Profile and Pairs from Profile in the real host, the page's routes, and job files that name a profile."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attune.tests.host.choices import light_and_dark, put_choices, put_questions, store_of
from attune.tests.host.graphs import (
    base_graph,
    finished,
    node,
    report_of,
    shown_error,
    train_node,
    with_changes,
    write_checkpoint,
)
from attune.tests.host.test_headless import job_file, without_page
from attune.tests.hosting import HostServer


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host: HostServer) -> Path:
    return write_checkpoint(host)


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        call()
    return caught.value.code, json.loads(caught.value.read())["error"]


def act(host: HostServer, action: str, **body: Any) -> dict[str, Any]:
    return host.post(f"/attune/preferences/{action}", body)


def profile_graph(name: str, run: str, **pairs: Any) -> dict[str, Any]:
    """A profile's choices through Diffusion-DPO to a LoRA."""
    graph = base_graph()
    widgets = {
        "most_pairs": 0, "least_stars": 1, "caption": "", "least_pairs": 8, "if_fewer": "stop with an error",
    }  # fmt: skip
    graph |= {
        "profile": node("AttunePreferenceProfile", profile="my taste", new_name=name),
        "pairs": node("AttunePairsFromProfile", profile=["profile", 0], **(widgets | pairs)),
        "sheet": node("PreviewImage", images=["pairs", 3]),
        "objective": node(
            "AttuneDiffusionDPOObjective", chosen=["pairs", 0], rejected=["pairs", 1], captions=["pairs", 2],
            clip=["ckpt", 1], vae=["ckpt", 2], resolution=64, pairs_per_update=3, beta=500.0, held_out=0.3,
            caption_dropout=0.1, chunk=2, held_out_levels=2, preview_prompts="", preview_steps=2, preview_cfg=1.0,
        ),
        "train": train_node(run),
    }  # fmt: skip
    return graph


def ran(record: dict[str, Any]) -> set[str]:
    """The nodes that were executed, and not found in the host's cache."""
    cached = {
        name for kind, data in record["status"]["messages"] if kind == "execution_cached" for name in data["nodes"]
    }
    return set(record["prompt"][2]) - cached


# ---- nodes ----


def test_an_empty_profile_says_what_to_do_or_lets_the_rest_run(host: HostServer):
    graph = profile_graph("empty", "never")
    name, words = shown_error(host, graph)
    assert name == "pairs" and "'empty' holds no choices yet" in words and "Choose Images" in words
    record = finished(host, with_changes(graph, "pairs", if_fewer="leave out the rest"))
    assert record["status"]["status_str"] == "success"
    assert "holds no choices yet" in record["outputs"]["pairs"]["text"][0]
    assert "train" not in record["outputs"] and "sheet" not in record["outputs"]
    assert "profile" not in ran(record), "it was made by the run before, which is no change"


def test_choices_become_a_lora_and_train_again_exactly_when_they_change(host: HostServer):
    profile = put_choices(host, "light", light_and_dark(10))
    graph = profile_graph("light", "light run")
    result = host.run(graph)
    assert result.ui("AttunePreferenceProfile", "text") == ["light: 10 choices."]
    assert result.ui("AttunePairsFromProfile", "text") == ["10 pairs of 10 prompts from 10 choices of light."]
    report = report_of(result)
    assert (report["status"], report["method"], report["steps"]) == ("finished", "diffusion-dpo", 2)
    assert min(host.pixels(host.images(result)[0]).shape[:2]) > 200

    assert not ran(finished(host, graph)) & {"profile", "pairs", "objective", "train"}, "nothing has changed"
    store = store_of(host)
    newest = store.answered(profile.key, most=1)[0]
    store.store.close()
    act(host, "rename", profile=profile.key, name="Light")
    assert "train" not in ran(finished(host, graph)), "another name is no other taste"
    act(host, "decide", profile=profile.key, question=newest.question.key, choice="tie")
    changed = with_changes(graph, "train", run_name="light again")
    record = finished(host, changed)
    assert {"profile", "pairs", "objective", "train"} <= ran(record)
    assert record["outputs"]["pairs"]["text"] == ["9 pairs of 9 prompts from 10 choices of Light. Left out: 1 tie."]


def test_a_name_that_is_gone_is_named(host: HostServer):
    graph = with_changes(profile_graph("", "never"), "profile", profile="somebody", new_name="")
    name, words = shown_error(host, graph)
    assert name == "profile" and "no profile 'somebody' any more" in words
    graph["profile"]["inputs"]["new_name"] = "x" * 61
    assert "up to 60 are allowed" in shown_error(host, graph)[1]


def test_a_job_names_the_profile_by_its_key(host: HostServer):
    """Carried out without a page after the profile was renamed."""
    profile = put_choices(host, "before", light_and_dark(9, seed=1))
    graph = profile_graph("before", "profile job")
    assert report_of(host.run(graph))["status"] == "finished"
    job = json.loads(job_file(host, "profile job").read_text(encoding="utf-8"))
    assert job["graph"]["profile"]["inputs"] == {"profile": profile.key, "new_name": ""}
    assert "before" not in json.dumps(job["graph"])
    act(host, "rename", profile=profile.key, name="after")
    said = without_page(host, job_file(host, "profile job"), "AttuneTrainLora.run_name=carried out")
    assert "carried out" in said
    assert json.loads((job_file(host, "carried out")).read_text(encoding="utf-8"))["run"] == "carried out"
    act(host, "delete", profile=profile.key)
    gone = without_page(host, job_file(host, "profile job"), "AttuneTrainLora.run_name=gone", fails=True)
    assert f"key {profile.key} is not on this computer" in gone


# ---- routes ----


def test_the_page_chooses_changes_and_takes_back(host: HostServer):
    (asked,) = put_questions(host, "page", light_and_dark(1, size=600, seed=2))
    profile = next(entry for entry in host.get("/attune/preferences/profiles")["profiles"] if entry["name"] == "page")
    assert (profile["choices"], profile["waiting"], profile["revision"]) == (0, 1, 0)
    shown = host.get(f"/attune/preferences/waiting?profile={profile['key']}&limit=5")
    (question,) = shown["questions"]
    assert question["key"] == asked.question.key and question["open"]
    first, second = (picture["hash"] for picture in question["pictures"])
    whole = Image.open(BytesIO(host.request(f"/attune/preferences/picture/{first}")))
    assert whole.format == "PNG" and np.array_equal(np.asarray(whole), light_and_dark(1, size=600, seed=2)[0][0])
    small = Image.open(BytesIO(host.request(f"/attune/preferences/picture/{first}?small=1")))
    assert small.format == "JPEG" and small.size == (512, 512)

    send = {"profile": profile["key"], "question": question["key"]}
    done = act(host, "decide", **send, choice=second)
    assert done["question"]["decision"]["choice"] == second and done["profile"]["waiting"] == 0
    assert act(host, "decide", **send, choice=second) == done
    assert act(host, "decide", **send, choice=first)["profile"]["revision"] == 2
    assert act(host, "undo", profile=profile["key"])["question"]["decision"]["choice"] == second
    again = act(host, "questions", profile=profile["key"], questions=[question["key"], "f" * 64])
    assert again["questions"][0]["decision"]["choice"] == second and again["missing"] == ["f" * 64]
    made = act(host, "create", name="fresh")["profile"]
    assert act(host, "rename", profile=made["key"], name="fresher")["profile"]["name"] == "fresher"

    gone = act(host, "delete", profile=profile["key"])
    assert gone["deleted"] and gone["clean"]
    assert refused(lambda: host.request(f"/attune/preferences/picture/{first}"))[0] == 404
    assert refused(lambda: act(host, "decide", **send, choice=first))[0] == 404


def test_what_may_not_be_sent(host: HostServer):
    before = host.get("/attune/preferences/profiles")
    address = "/attune/preferences"
    for path, body, code, words in [
        ("decide", {"profile": "x"}, 400, "32 hex digits"),
        ("decide", [], 400, "JSON object"),
        ("decide", {"profile": "0" * 32, "question": "f" * 64, "choice": "tie"}, 404, "not there any more"),
        ("destroy", {}, 400, "cannot 'destroy'"),
        ("create", {"name": "\ud800"}, 400, "half of a character"),
        ("rename", {"profile": "0" * 32, "name": "x", "more": 1}, 400, "'more' is not understood"),
    ]:
        code_said, said = refused(lambda path=path, body=body: host.post(f"{address}/{path}", body))
        assert (code_said, words in said) == (code, True), said
    for path in ("picture/..%2f..%2fattune.sqlite3", "picture/" + "0" * 64, f"waiting?profile={'0' * 32}"):
        assert refused(lambda path=path: host.request(f"{address}/{path}"))[0] == 404
    assert refused(lambda: host.get(f"{address}/waiting?profile=x"))[0] == 400
    assert host.get("/attune/preferences/profiles") == before
