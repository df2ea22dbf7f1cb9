"""Preference Reward in the real host: choices by the page's routes, then ranking, training, the best question first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attune.tests.host.choices import light_and_dark, put_questions
from attune.tests.host.graphs import ddpo_graph, finished, node, shown_error, with_changes, write_checkpoint
from attune.tests.host.test_choose_images import asked, choose_graph, outcome
from attune.tests.hosting import HostServer

TEMPLATE = Path(__file__).resolve().parents[2] / "workflows" / "rank_by_my_taste.json"


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host: HostServer) -> Path:
    return write_checkpoint(host)


def prefer_dark(host: HostServer, name: str, count: int) -> str:
    """Choose the darker of so many pairs, as the page does; the profile's key."""
    questions = put_questions(host, name, light_and_dark(count))
    key = next(entry["key"] for entry in host.get("/attune/preferences/profiles")["profiles"] if entry["name"] == name)
    for found in questions:
        body = {"profile": key, "question": found.question.key, "choice": found.question.hashes[1]}
        host.post("/attune/preferences/decide", body)
    return key


def with_taste(graph: dict[str, Any], name: str, **widgets: Any) -> dict[str, Any]:
    """The graph and a Preference Reward "taste" in it."""
    words = {"most_choices": 500, "least_stars": 1, "if_fewer": "stop with an error"}
    return graph | {
        "profile": node("AttunePreferenceProfile", profile="my taste", new_name=name),
        "eyes": node(
            "AttuneLoadReward", reward_name="attune_demo_reward.safetensors", device="default", precision="fp32"
        ),
        "taste": node(
            "AttunePreferenceReward", profile=["profile", 0], encoder=["eyes", 0], **(words | widgets)
        ),
    }  # fmt: skip


def ranking_graph(name: str, **widgets: Any) -> dict[str, Any]:
    """White, grey and black, ranked."""
    graph = {
        "white": node("EmptyImage", width=64, height=64, batch_size=1, color=0xEEEEEE),
        "black": node("EmptyImage", width=64, height=64, batch_size=1, color=0x151515),
        "both": node("ImageBatch", image1=["white", 0], image2=["black", 0]),
        "score": node("AttuneScoreImages", images=["both", 0], reward=["taste", 0], prompt=""),
        "scores": node("PreviewAny", source=["score", 0]),
        "keep": node(
            "AttuneRankAndKeepBest", images=["both", 0], reward=["taste", 0], prompt="", mode="best k", k=1,
            threshold=0.0, threshold_unit="raw score", hand_over="one batch",
        ),
        "kept": node("PreviewImage", images=["keep", 0]),
    }  # fmt: skip
    return with_taste(graph, name, **widgets)


def test_pictures_are_ranked_by_what_was_chosen(host: HostServer):
    key = prefer_dark(host, "dark", 8)
    graph = ranking_graph("dark")
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    white, black = (float(text) for text in record["outputs"]["scores"]["text"])
    assert black > white
    kept = [host.pixels(host.output_path(image)) for image in record["outputs"]["kept"]["images"]]
    assert len(kept) == 1 and kept[0].mean() < 0.2
    told = record["outputs"]["taste"]["text"][0]
    assert told.startswith("Learned from 8 choices of dark, seen through") and "of 8 cases" in told

    host.post("/attune/preferences/undo", {"profile": key})
    again = finished(host, graph)
    assert "from 7 choices" in again["outputs"]["taste"]["text"][0], "a choice taken back is learned from no more"


def test_a_model_is_trained_on_it(host: HostServer):
    prefer_dark(host, "trainer", 6)
    graph = with_taste(ddpo_graph("taste_run"), "trainer")
    record = finished(host, with_changes(graph, "objective", reward=["taste", 0]))
    assert record["status"]["status_str"] == "success", record["status"]
    assert '"finished"' in record["outputs"]["train"]["attune_report"][0]


def test_with_too_few_choices_it_stops_or_leaves_out_or_has_no_opinion(host: HostServer):
    prefer_dark(host, "beginner", 3)
    place, words = shown_error(host, ranking_graph("beginner"))
    assert place == "taste" and "holds 3 choices" in words and "4 are needed" in words
    record = finished(host, ranking_graph("beginner", if_fewer="leave out the rest"))
    assert record["status"]["status_str"] == "success" and "scores" not in record["outputs"]
    record = finished(host, ranking_graph("beginner", if_fewer="score all alike"))
    assert [float(text) for text in record["outputs"]["scores"]["text"]] == [0, 0]


def test_choose_images_asks_what_tells_most_first(host: HostServer):
    plain = outcome(host, choose_graph("curious", mode="all pairs"))
    graph = with_taste(choose_graph("curious", mode="all pairs"), "curious", if_fewer="score all alike")
    informed = outcome(
        host, with_changes(graph, "choose", reward=["taste", 0], order="most informative first")
    )  # fmt: skip
    before, after = plain["page"]["questions"], informed["page"]["questions"]
    assert sorted(before) == sorted(after) and before != after
    assert len(asked(host, informed["page"])) == 12
    failed = with_changes(graph, "choose", reward=["reward", 0], order="most informative first")
    assert "Only a Preference Reward" in shown_error(host, failed)[1]


def scores_of(result: Any) -> list[float]:
    """Of every picture that Score Images has shown."""
    (gallery,) = result.ui("AttuneScoreImages", "attune_gallery")
    return [image["scores"][0] for image in gallery["images"]]


def test_the_template_asks_first_and_ranks_then(host: HostServer):
    short = {"AttunePreferenceProfile.new_name": "ranker", "KSampler.steps": 3}
    first = host.run(TEMPLATE, short)
    (page,) = first.ui("AttuneChooseImages", "attune_choose")
    assert page["waiting"] == 12 and "holds 0 choices" in first.ui("AttunePreferenceReward", "text")[0]
    ids = [question["id"] for question in asked(host, page)]
    assert len(ids) == 12 and ids != sorted(ids), "not as they come"
    assert set(scores_of(first)) == {0}, "nothing is known of a taste yet"
    for question in asked(host, page):
        body = {"profile": page["profile"], "question": question["key"], "choice": question["pictures"][0]["hash"]}
        host.post("/attune/preferences/decide", body)
    second = host.run(TEMPLATE, short)
    assert "Learned from 12 choices of ranker" in second.ui("AttunePreferenceReward", "text")[0]
    assert len(set(scores_of(second))) > 8, "now there is an opinion"
    assert len(host.images(second)) >= 5, "the ranking and the four best"
