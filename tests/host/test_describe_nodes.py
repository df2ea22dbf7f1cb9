"""Preference Embedding (VLM) in the real host: words and states from choices, kept, cancelled, refused; a template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attune.nodes.preferences.embedding import unpack
from attune.nodes.preferences.pictures import to_image
from attune.tests.host.choices import light_and_dark, put_choices, store_of
from attune.tests.host.graphs import finished, node, shown_error
from attune.tests.host.test_choose_images import asked
from attune.tests.hosting import HostServer
from attune.tests.tiny_chat_vlms import write_tiny_idefics, write_tiny_qwen
from attune.tests.tiny_vlm import write_tiny_vlm
from attune.training.vlm_profile import SeenPair, load_profiler

MODEL, TOKENS = "tiny_qwen", 6
TEMPLATE = Path(__file__).resolve().parents[2] / "workflows" / "describe_my_taste.json"


@pytest.fixture(scope="module", autouse=True)
def model(host: HostServer) -> Path:
    write_tiny_idefics(host.models_dir / "rewards" / "tiny_idefics")
    write_tiny_vlm(host.models_dir / "rewards" / "base_vlm")
    return write_tiny_qwen(host.models_dir / "rewards" / MODEL)


def graph_of(name: str, **changes: Any) -> dict[str, Any]:
    widgets = {
        "model_folder": MODEL, "pairs": 4, "max_new_tokens": TOKENS, "precision": "auto", "device": "default",
        "least_stars": 1, "if_fewer": "stop with an error",
    }  # fmt: skip
    return {
        "profile": node("AttunePreferenceProfile", profile="my taste", new_name=name),
        "describe": node("AttuneDescribePreference", profile=["profile", 0], **(widgets | changes)),
        "words": node("PreviewAny", source=["describe", 1]),
        "told": node("PreviewAny", source=["describe", 2]),
    }


def run(host: HostServer, graph: dict[str, Any]) -> dict[str, Any]:
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    return record["outputs"]


def kept_under(host: HostServer, key: str) -> dict[str, bytes]:
    store = store_of(host)
    with store.store.reading() as connection:
        rows = connection.execute(
            "SELECT encoder, content FROM embeddings JOIN profiles ON profiles.id = profile WHERE key = ?", (key,)
        ).fetchall()
    store.store.close()
    return dict(rows)


def test_words_and_states_are_the_models_own_and_kept(host: HostServer, model: Path):
    shown = light_and_dark(5)
    profile = put_choices(host, "described", shown)
    outputs = run(host, graph_of("described"))
    profiler = load_profiler(model)
    pairs = [
        SeenPair(prompt, to_image(light), to_image(dark)) for light, dark, prompt in reversed(shown[1:])
    ]  # fmt: skip
    expected = profiler.describe(pairs, max_new_tokens=TOKENS)
    assert outputs["words"]["text"] == [expected.profile] and expected.profile
    assert outputs["told"]["text"][0].startswith(f"The taste of described, from 4 pairs: {MODEL} wrote {TOKENS} tokens")
    (kept,) = kept_under(host, profile.key).values()
    embedding = unpack(kept)
    assert torch.allclose(embedding.tokens, expected.tokens, atol=1e-5)
    assert (embedding.encoder_id, embedding.text) == (profiler.encoder_id, expected.profile)

    host.free()
    again = run(host, graph_of("described"))
    assert again["words"]["text"] == [expected.profile]
    assert "as tiny_qwen wrote it before" in again["told"]["text"][0]

    put_choices(host, "described", light_and_dark(1, seed=9))
    newer = run(host, graph_of("described"))
    assert f"wrote {TOKENS} tokens" in newer["told"]["text"][0], "a new choice is looked at"


def test_another_model_is_another_encoder(host: HostServer):
    profile = put_choices(host, "described twice", light_and_dark(4))
    run(host, graph_of("described twice"))
    run(host, graph_of("described twice", model_folder="tiny_idefics"))
    run(host, graph_of("described twice", precision="bf16"))
    embeddings = [unpack(content) for content in kept_under(host, profile.key).values()]
    assert len({each.encoder_id for each in embeddings}) == 3
    assert {tuple(each.tokens.shape) for each in embeddings} == {(3, 64)}


def test_cancel_while_it_writes(host: HostServer):
    write_tiny_qwen(host.models_dir / "rewards" / "slow_qwen", layers=32)
    profile = put_choices(host, "described cancelled", light_and_dark(4))
    interrupted: list[dict[str, Any]] = []

    def cancel(event: dict[str, Any]) -> None:
        if not interrupted and event.get("type") == "progress" and event.get("node") == "describe":
            interrupted.append(event)
            host.interrupt()

    with pytest.raises(RuntimeError):
        host.run(graph_of("described cancelled", model_folder="slow_qwen", max_new_tokens=1500), on_event=cancel)
    assert interrupted
    assert kept_under(host, profile.key) == {}
    assert run(host, graph_of("described cancelled"))["words"]["text"][0]


def test_with_too_few_choices_it_stops_or_leaves_out_or_is_nobodys(host: HostServer):
    put_choices(host, "described beginner", light_and_dark(3))
    place, words = shown_error(host, graph_of("described beginner"))
    assert place == "describe" and "holds 3 pairs" in words and "4 are needed" in words
    assert run(host, graph_of("described beginner", pairs=3))["words"]["text"][0]
    assert "words" not in run(host, graph_of("described beginner", if_fewer="leave out the rest"))
    outputs = run(host, graph_of("described beginner", if_fewer="nobody's taste"))
    assert outputs["words"]["text"] == [""] and "4 are needed" in outputs["told"]["text"][0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_folder": "base_vlm"}, "has no chat template"),
        ({"max_new_tokens": 4096}, "can read 2048 tokens"),
    ],
)
def test_what_cannot_be_used_says_why(host: HostServer, changes: dict[str, Any], says: str):
    put_choices(host, "described refused", light_and_dark(4))
    where, words = shown_error(host, graph_of("described refused", **changes))
    assert where == "describe" and says in words


def test_a_model_that_is_gone_is_refused_before_anything_runs(host: HostServer):
    errors = host.post("/prompt", {"prompt": graph_of("described refused", model_folder="gone")})["node_errors"]
    assert "There is no model folder 'gone'" in str(errors["describe"]["errors"])
    offered = host.object_info()["AttuneDescribePreference"]["input"]["required"]["model_folder"][1]["options"]
    assert MODEL in offered


def test_the_template_asks_first_and_describes_then(host: HostServer):
    short = {
        "AttunePreferenceProfile.new_name": "described template", "KSampler.steps": 3,
        "AttuneDescribePreference.model_folder": MODEL, "AttuneDescribePreference.max_new_tokens": TOKENS,
    }  # fmt: skip
    first = host.run(TEMPLATE, short)
    (page,) = first.ui("AttuneChooseImages", "attune_choose")
    assert page["waiting"] == 6 and "4 are needed" in first.ui("AttuneDescribePreference", "text")[0]
    for question in asked(host, page):
        body = {"profile": page["profile"], "question": question["key"], "choice": question["pictures"][0]["hash"]}
        host.post("/attune/preferences/decide", body)
    second = host.run(TEMPLATE, short)
    told = second.ui("AttuneDescribePreference", "text")[0]
    assert told.startswith(f"The taste of described template, from 4 pairs: {MODEL} wrote {TOKENS} tokens")
    assert len(host.images(second)) > len(host.images(first)), "the pairs are shown, too"
