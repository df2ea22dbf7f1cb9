"""A/B Test in the real host: pictures and votes outlive runs and restarts, nothing gives the sides away."""

from __future__ import annotations

import json
import math
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest

from attune.tests.host.graphs import base_graph, finished, node, shown_error, with_changes, write_checkpoint
from attune.tests.hosting import HostServer

PROMPTS = "a cat\na rose"


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host: HostServer) -> None:
    write_checkpoint(host)


def ab_graph(**changes: Any) -> dict[str, Any]:
    """The same network twice, once with FreeU's patches: another model whose weights are the same."""
    graph = base_graph()
    graph["b"] = node("FreeU", model=["ckpt", 0], b1=1.4, b2=1.6, s1=0.3, s2=0.1)
    widgets = {
        "prompts": PROMPTS, "negative": "", "first_seed": 5, "images_per_prompt": 2, "steps": 2, "cfg": 1.0,
        "sampler_name": "euler", "scheduler": "normal", "voter": "person", "least_margin": 0.0, "name_a": "base",
        "name_b": "free", "side_seed": 0,
    }  # fmt: skip
    graph["ab"] = node(
        "AttuneABTest", model_a=["ckpt", 0], model_b=["b", 0], clip=["ckpt", 1], vae=["ckpt", 2], latent=["latent", 0],
        reward=["reward", 0], **(widgets | changes),
    )  # fmt: skip
    graph["report"] = node("PreviewAny", source=["ab", 2])
    graph["votes"] = node("PreviewAny", source=["ab", 3])
    graph["rate"] = node("PreviewAny", source=["ab", 1])
    graph["grid"] = node("PreviewImage", images=["ab", 0])
    return graph


def outcome(host: HostServer, graph: dict[str, Any]) -> dict[str, Any]:
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    outputs = record["outputs"]
    text = {name: outputs[name]["text"][0] for name in ("report", "votes", "rate")}
    return {
        "report": json.loads(text["report"]), "votes": json.loads(text["votes"]), "rate": float(text["rate"]),
        "test": outputs["ab"]["attune_ab"][0]["test"], "text": outputs["ab"]["text"][0], "record": record,
    }  # fmt: skip


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        call()
    return caught.value.code, caught.value.read().decode()


def vote(host: HostServer, test: str, pair: str, side: str | None) -> None:
    host.post("/attune/ab/vote", {"test": test, "pair": pair, "side": side})


def ran(record: dict[str, Any]) -> bool:
    """Whether the test's node was executed, and not found in the host's cache."""
    return not any(kind == "execution_cached" and "ab" in data["nodes"] for kind, data in record["status"]["messages"])


def test_without_a_person_it_hands_on_what_stands(host: HostServer):
    found = outcome(host, ab_graph(first_seed=100))
    assert math.isnan(found["rate"])
    assert found["report"]["missing"] == 4 and found["report"]["win_rate"] is None
    assert [entry["choice"] for entry in found["votes"]] == [None] * 4
    assert found["text"] == "4 of 4 votes are missing."
    assert not ran(finished(host, ab_graph(first_seed=100))), "nothing has changed"


def test_votes_survive_more_seeds_other_sides_and_a_restart(host: HostServer):
    found = outcome(host, ab_graph())
    test = found["test"]
    shown = host.get(f"/attune/ab/test/{test}")
    assert "base" not in json.dumps(shown) and "free" not in json.dumps(shown)
    assert host.get(f"/attune/ab/result/{test}")["pairs"] == []
    for pair in shown["pairs"]:
        for side in ("left", "right"):
            assert host.request(f"/attune/ab/picture/{pair[side]}").startswith(b"\x89PNG")
    keys = [pair["key"] for pair in shown["pairs"]]
    vote(host, test, keys[0], "left")
    vote(host, test, keys[1], "tie")
    vote(host, test, keys[2], "right")
    vote(host, test, keys[2], None)

    again = outcome(host, ab_graph())
    assert ran(again["record"]) and again["test"] == test
    assert (again["report"]["votes"], again["report"]["ties"], again["report"]["missing"]) == (2, 1, 2)
    assert again["rate"] in (0.25, 0.75)
    choices = {(entry["prompt"], entry["seed"]): entry["choice"] for entry in again["votes"]}
    assert sorted(map(str, choices.values())).count("None") == 2
    decided = host.get(f"/attune/ab/result/{test}")["pairs"]
    assert {(pair["prompt"], pair["seed"]): pair["choice"] for pair in decided} == {
        key: choice for key, choice in choices.items() if choice
    }

    more = outcome(host, ab_graph(images_per_prompt=3, side_seed=9))
    assert more["test"] != test and more["report"]["votes"] == 2 and more["report"]["missing"] == 4
    swapped = with_changes(ab_graph(), "ab", model_a=["b", 0], model_b=["ckpt", 0])
    assert outcome(host, swapped)["rate"] == pytest.approx(1 - again["rate"])

    host.stop()
    host.start()
    kept = {pair["key"]: pair["choice"] for pair in host.get(f"/attune/ab/test/{test}")["pairs"]}
    assert [kept[key] for key in keys] == ["left", "tie", None, None]
    assert outcome(host, ab_graph())["rate"] == again["rate"]

    host.post("/attune/ab/forget", {"test": test})
    assert outcome(host, ab_graph())["report"]["votes"] == 0


def test_pictures_are_drawn_once_where_weights_alone_make_them(host: HostServer):
    graph = ab_graph(first_seed=40)
    graph["other"] = node(
        "CheckpointLoaderSimple", ckpt_name=write_checkpoint(host, "ab_other.safetensors", seed=9).name
    )
    graph["ab"]["inputs"]["model_b"] = ["other", 0]
    outcome(host, graph)
    folder = host.user_dir / "attune" / "ab" / "pictures"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    written = {file.name: file.stat().st_ctime_ns for file in folder.iterdir()}
    host.free()
    outcome(host, with_changes(graph, "ab", side_seed=3))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert set(written) == {file.name for file in folder.iterdir()}


def test_a_reward_votes_at_once(host: HostServer):
    graph = ab_graph(voter="reward")
    found = outcome(host, graph)
    report = found["report"]
    assert report["missing"] == 0 and report["votes"] == 4 and report["interval_kind"] == "always valid"
    assert found["rate"] == pytest.approx((report["b"] + report["ties"] / 2) / 4)
    assert "of 4 votes" in found["text"]
    assert outcome(host, with_changes(graph, "ab", least_margin=1000.0))["report"]["ties"] == 4
    result = host.get(f"/attune/ab/result/{found['test']}")
    assert len(result["pairs"]) == 4 and result["standing"]["names"] == ["base", "free"]
    code, words = refused(
        lambda: vote(host, found["test"], host.get(f"/attune/ab/test/{found['test']}")["pairs"][0]["key"], "left")
    )
    assert code == 400 and "a reward votes" in words


def test_a_gate_keeps_pictures_out(host: HostServer):
    """A threshold of 0 lets nothing pass."""
    graph = ab_graph(voter="reward", first_seed=60)
    graph["gate"] = node(
        "AttuneSafetyGate", reward=["reward", 0], threshold=0.0, action="blur", floor_from_calibration=False,
        blocked_score=-1000.0,
    )  # fmt: skip
    graph["ab"]["inputs"]["reward"] = ["gate", 1]
    found = outcome(host, graph)
    assert found["report"]["blurred"] == 4 and found["report"]["votes"] == 0 and math.isnan(found["rate"])
    assert host.get(f"/attune/ab/test/{found['test']}")["pairs"] == []


def test_requests_that_are_refused(host: HostServer):
    found = outcome(host, ab_graph())
    test = found["test"]
    key = host.get(f"/attune/ab/test/{test}")["pairs"][0]["key"]
    assert refused(lambda: host.get("/attune/ab/test/" + "0" * 32))[0] == 404
    assert refused(lambda: host.get("/attune/ab/result/..%2f..%2fattune"))[0] == 404
    assert refused(lambda: host.request("/attune/ab/picture/..%2f..%2f..%2fattune.sqlite3"))[0] == 404
    assert refused(lambda: host.request(f"/attune/ab/picture/{test}"))[0] == 404
    assert refused(lambda: vote(host, test, "0" * 32, "left"))[0] == 404
    code, words = refused(lambda: vote(host, test, key, "up"))
    assert code == 400 and "'up' is no side" in words
    for body in ({}, [], {"test": test, "pair": key, "side": 3}):
        code, words = refused(lambda body=body: host.post("/attune/ab/vote", body))
        assert code == 400 and "test, pair, side" in json.loads(words)["error"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": "\n"}, "There are no prompts"),
        ({"model_b": ["ckpt", 0]}, "draw the same pictures"),
        ({"least_margin": 1.0, "voter": "reward", "reward": None}, "The reward is to vote, but none is connected"),
    ],
)
def test_mistakes_are_explained(host: HostServer, changes: dict[str, Any], words: str):
    graph = with_changes(ab_graph(), "ab", **changes)
    graph["ab"]["inputs"] = {name: value for name, value in graph["ab"]["inputs"].items() if value is not None}
    at, message = shown_error(host, graph)
    assert at == "ab" and words in message
