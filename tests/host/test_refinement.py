"""The loop of a refinement in the real server: rounds, undo, branches, replay, and what is refused."""

from __future__ import annotations

import json
import time
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attune.tests.host.graphs import base_graph, finished, node, shown_error, write_checkpoint
from attune.tests.hosting import HostServer

ROUTE = "/attune/refinement"


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host: HostServer) -> Path:
    return write_checkpoint(host)


def graph(name: str, prompt: str = "a cat", *, rewards: bool = False, **changes: Any) -> dict[str, Any]:
    """The whole loop for a session of that name.

    Args:
        changes: inputs of Commit Round, or of the node whose name stands before a double underscore.
    """
    made = {"ckpt": base_graph()["ckpt"], "latent": base_graph()["latent"]}
    made |= {
        "session": node(
            "AttuneRefinementSession", prompt=prompt, session="my session", new_name=name, negative="", session_seed=3,
            replay_round=0,
        ),
        "words": node(
            "AttuneRefineConditioning", session=["session", 0], clip=["ckpt", 1], follow=1.0, towards=0.3, away=0.15,
            keep_norm=True, liked="", disliked="",
        ),
        "schedule": node(
            "AttuneRoundSchedule", session=["words", 0], pictures=3, steps=2, guidance=2.0, sampler="euler",
            type="in turn", strength=1.0, decay=0.75, least_strength=0.3, seeds="by the weight of diversity",
            test_type="off",
        ),
        "sampler": node(
            "AttuneRoundSampler", session=["schedule", 0], model=["ckpt", 0], positive=["words", 1],
            negative=["words", 2], latent=["latent", 0],
        ),
        "decoded": node("VAEDecode", samples=["sampler", 1], vae=["ckpt", 2]),
        "commit": node(
            "AttuneCommitRound", session=["sampler", 0], images=["decoded", 0], latents=["sampler", 1], decides="you",
            comment="",
        ),
        "shown": node("PreviewImage", images=["decoded", 0]),
    }  # fmt: skip
    if rewards:
        made |= {
            "bright": node(
                "AttuneImageStatisticsReward", statistic="brightness", goal="as high as possible", target=0.5
            ),
            "contrast": node(
                "AttuneImageStatisticsReward", statistic="contrast", goal="as high as possible", target=0.5
            ),
            "weights": node(
                "AttuneDynamicWeights", session=["sampler", 0], relevance=["bright", 0], other=["contrast", 0],
                rule="learned", time_scale=2.0, half_after=10.0, diversity_rate=0.15, consistency_rate=0.1,
                relevance_rate=0.075,
            ),
            "chart": node("PreviewImage", images=["weights", 2]),
        }  # fmt: skip
        made["commit"]["inputs"]["session"] = ["weights", 0]
    for change, value in changes.items():
        where, _, what = change.rpartition("__")
        made[where or "commit"]["inputs"][what] = value
    return made


def key_of(record: dict[str, Any]) -> str:
    return record["outputs"]["commit"]["attune_round"][0]["key"]


def seen(host: HostServer, key: str) -> dict[str, Any]:
    return host.get(f"{ROUTE}/session/{key}")


def told(host: HostServer, action: str, view: dict[str, Any], **body: Any) -> dict[str, Any]:
    return host.post(f"{ROUTE}/{action}", {"key": view["key"], "revision": view["revision"], **body})


def refused(host: HostServer, action: str, body: dict[str, Any]) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        host.post(f"{ROUTE}/{action}", body)
    return caught.value.code, json.loads(caught.value.read())["error"]


def drawn(host: HostServer, record: dict[str, Any]) -> np.ndarray:
    return np.stack([host.pixels(host.output_path(part)) for part in record["outputs"]["shown"]["images"]])


def arms(host: HostServer, name: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Arm → the schedule of a first round, of as many sessions as it takes to have one in each."""
    found: dict[str, dict[str, Any]] = {}
    for number in range(24):
        schedule = seen(host, key_of(finished(host, graph(f"{name} {number}", **changes))))["open"]["schedule"]
        found.setdefault(schedule["arm"], schedule)
        if {"A", "B"} <= found.keys():
            break
    return found


def test_any_setting_of_a_round_can_be_tested(host: HostServer):
    changes = {"schedule__more_steps": 2, "schedule__test_settings": "steps 3, type karras"}
    found = arms(host, "tested steps", **changes)
    assert (found["A"]["steps"], found["A"]["type"]) == (2, "linear")
    assert (found["B"]["steps"], found["B"]["type"]) == (3, "karras")
    for settings, test_type, words in (
        ("steps 2", "off", "are those that the node has"),
        ("type karras", "cosine", "set twice"),
        ("sampler magic", "off", "no sampler 'magic'"),
        ("eta 1", "off", "is no setting of a round"),
    ):
        wrong = graph("wrong", schedule__test_settings=settings, schedule__test_type=test_type)
        assert words in shown_error(host, wrong)[1]


def test_a_replay_looks_at_no_test(host: HostServer):
    made = finished(host, graph("replayed arm", schedule__test_settings="steps 3"))
    view = seen(host, key_of(made))
    told(host, "commit", view, round=view["open"]["key"], liked=[1])
    again = graph("replayed arm", session__replay_round=1, schedule__test_settings="eta 1", schedule__steps=1)
    assert np.array_equal(drawn(host, finished(host, again)), drawn(host, made))


def test_a_rule_of_weights_can_be_tested_and_one_test_at_a_time(host: HostServer):
    changes = {"rewards": True, "weights__rule": "rule", "weights__test_rule": "fixed equal"}
    assert arms(host, "tested rule", **changes).keys() == {"A", "B"}
    for number in range(24):
        record = finished(host, graph(f"tested rule {number}", **changes))
        arm = seen(host, key_of(record))["open"]["schedule"]["arm"]
        told_of = record["outputs"]["weights"]["text"][0]
        assert told_of.startswith(f"Round 1, {'fixed equal' if arm == 'B' else 'rule'}, arm {arm} of the test:")
        if arm == "B":
            break
    twice = graph("tested twice", **changes, schedule__test_settings="steps 3")
    assert "Two A/B tests at once" in shown_error(host, twice)[1]


def test_weights_on_both_sides_of_the_schedule_are_in_one_test(host: HostServer):
    made = graph("both sides", rewards=True)
    front = {"session": ["words", 0], "rule": "rule", "test_rule": "fixed equal"}
    made["front"] = node("AttuneDynamicWeights", **made["weights"]["inputs"] | front)
    made["schedule"]["inputs"]["session"] = ["front", 0]
    assert seen(host, key_of(finished(host, made)))["open"]["schedule"]["arm"] in ("A", "B")
    made["weights"]["inputs"]["test_rule"] = "fixed equal"
    assert "one Dynamic Weights tests" in shown_error(host, made)[1]


def test_a_session_goes_round_and_comes_back_bit_by_bit(host: HostServer):
    first = finished(host, graph("loop"))
    key, before = key_of(first), drawn(host, first)
    view = seen(host, key)
    assert view["number"] == 1 and len(view["open"]["pictures"]) == 3
    assert "waits for you" in first["outputs"]["commit"]["text"][0]
    view = told(host, "commit", view, round=view["open"]["key"], liked=[1], comment="größer, bitte 🐈", rating=4)
    assert view["number"] == 2 and view["rounds"][0]["feedback"]["comment"] == "größer, bitte 🐈"

    second = finished(host, graph("loop"))
    assert "noise on the chosen picture" in second["outputs"]["schedule"]["text"][0]
    assert not np.array_equal(drawn(host, second), before)
    view = seen(host, key)
    assert view["open"]["number"] == 2 and view["open"]["parent"] == view["path"][0]

    # Undone, the first round waits for another answer, with the pictures it had.
    view = told(host, "undo", view)
    assert view["open"]["feedback"]["comment"] == "größer, bitte 🐈"
    again = finished(host, graph("loop"))
    assert seen(host, key)["open"]["number"] == 1 and np.array_equal(drawn(host, again), before)
    view = told(host, "redo", seen(host, key))
    assert view["number"] == 2
    assert np.array_equal(drawn(host, finished(host, graph("loop"))), drawn(host, second))

    replayed = finished(host, graph("loop", session__replay_round=1))
    assert "bit by bit the same" in replayed["outputs"]["commit"]["text"][0]
    other = finished(host, graph("loop", session__replay_round=1, latent__width=32))
    assert "NOT the same bits" in other["outputs"]["commit"]["text"][0]


def test_chosen_pictures_count_beside_words_where_the_model_is_connected(host: HostServer):
    """Without a choice nothing changes; with one the next round differs, is undone, redone and replayed bit by bit."""
    led = {"words__model": ["ckpt", 0], "words__pictures": 1.0}
    plain, first = (drawn(host, finished(host, graph(name, **more))) for name, more in (("unled", {}), ("led", led)))
    assert np.array_equal(plain, first), "nobody has chosen yet"

    def second_round(name: str, **more: Any) -> tuple[dict[str, Any], np.ndarray]:
        record = finished(host, graph(name, **more))
        view = seen(host, key_of(record))
        told(host, "commit", view, round=view["open"]["key"], liked=[1], comment="")
        record = finished(host, graph(name, **more))
        return record, drawn(host, record)

    (_, unled), (record, second) = second_round("unled"), second_round("led", **led)
    key = key_of(record)
    assert not np.array_equal(unled, second)
    assert len(list(host.user_dir.rglob(f"{key}/directions/*.safetensors"))) == 1
    view = seen(host, key)
    told(host, "commit", view, round=view["open"]["key"], liked=[0], comment="")
    replayed = finished(host, graph("led", session__replay_round=2, **led))
    assert "bit by bit the same" in replayed["outputs"]["commit"]["text"][0]
    told(host, "undo", seen(host, key))
    assert np.array_equal(drawn(host, finished(host, graph("led", **led))), second)
    told(host, "redo", seen(host, key))
    # What is off, or needs a model that is not there, is as without it.
    told(host, "undo", seen(host, key))
    told(host, "undo", seen(host, key))
    told(host, "commit", seen(host, key), round=seen(host, key)["open"]["key"], liked=[1], comment="")
    off = drawn(host, finished(host, graph("led", words__model=["ckpt", 0], words__pictures=0.0)))
    assert np.array_equal(off, unled)


def test_a_round_lasts_as_long_as_its_run_and_not_since_the_session_was_opened(host: HostServer):
    key = key_of(finished(host, graph("in no hurry")))
    began = time.monotonic()
    time.sleep(4)
    finished(host, graph("in no hurry", schedule__guidance=2.5))
    seconds = host.get(f"{ROUTE}/report/{key}")["open"]["seconds"]
    assert 0 < seconds <= time.monotonic() - began - 4


def test_other_pictures_of_the_same_words(host: HostServer):
    first = finished(host, graph("others"))
    view = seen(host, key_of(first))
    view = told(host, "again", view, round=view["open"]["key"])
    assert view["attempt"] == 1
    second = finished(host, graph("others"))
    assert not np.array_equal(drawn(host, first), drawn(host, second))
    view = seen(host, view["key"])
    view = told(host, "commit", view, round=view["open"]["key"], liked=[0], accepted=True)
    assert view["accepted"]


def test_other_pictures_lead_away_from_those_passed_over_where_the_model_is_connected(host: HostServer):
    led, pictures = {"words__model": ["ckpt", 0], "words__pictures": 1.0}, {}
    for name, more in (("passed", {}), ("passed, led", led)):
        key = key_of(finished(host, graph(name, **more)))
        told(host, "again", seen(host, key), round=seen(host, key)["open"]["key"])
        pictures[name] = drawn(host, finished(host, graph(name, **more)))
    assert not np.array_equal(*pictures.values())
    told(host, "commit", seen(host, key), round=seen(host, key)["open"]["key"], liked=[0], comment="")
    replayed = finished(host, graph("passed, led", session__replay_round=1, **led))
    assert "bit by bit the same" in replayed["outputs"]["commit"]["text"][0]


def test_other_pictures_let_go_of_the_chosen_one_and_are_replayed_as_they_were(host: HostServer):
    led = {"words__model": ["ckpt", 0], "words__pictures": 1.0}
    key = key_of(finished(host, graph("let go", **led)))
    view = seen(host, key)
    told(host, "commit", view, round=view["open"]["key"], liked=[1], comment="")
    said, directions = [], []
    for attempt in range(3):
        if attempt:
            view = seen(host, key)
            told(host, "again", view, round=view["open"]["key"])
        record = finished(host, graph("let go", **led))
        said.append(record["outputs"]["schedule"]["text"][0])
        directions.append(len(list(host.user_dir.rglob(f"{key}/directions/*.safetensors"))))
    assert "as you asked" not in said[0] and "noise on the chosen picture, as you asked for other pictures" in said[1]
    assert "from pure noise, as you asked for other pictures" in said[2]
    assert directions == [1, 2, 3], (
        "led by the choice, then by half of it and away from what was passed over, then away"
    )
    view = seen(host, key)
    told(host, "commit", view, round=view["open"]["key"], liked=[0], comment="")
    replayed = finished(host, graph("let go", session__replay_round=2, **led))
    assert "bit by bit the same" in replayed["outputs"]["commit"]["text"][0]


def test_rewards_decide_rounds_of_a_chain(host: HostServer):
    made = graph("chain", rewards=True, decides="the rewards", comment="warmer")
    record = finished(host, made)
    view = seen(host, key_of(record))
    assert view["number"] == 2 and view["rounds"][0]["feedback"]["comment"] == "warmer"
    scores = [next(iter(part["scores"].values())) for part in view["rounds"][0]["pictures"]]
    assert len(set(scores)) == 3, scores
    finished(host, made)
    view = seen(host, view["key"])
    assert view["number"] == 3 and view["rounds"][1]["weights"]


def test_weights_by_gradients_look_at_the_round_that_was_chosen_from(host: HostServer):
    """Brightness and contrast on other scales; a round that the rewards decided carries their name."""
    made = graph("pulls", rewards=True, decides="the rewards", weights__rule="mgda")
    finished(host, made)
    record = finished(host, made)
    told = record["outputs"]["weights"]["text"][0]
    assert "The front covers" in told and "what was chosen lies 0.00 behind it" in told, told
    shares = [float(line.split()[0]) for line in told.splitlines()[1:3]]
    assert sum(shares) == pytest.approx(1, abs=0.011) and shares != [0.5, 0.5], told
    rounds = host.get(f"{ROUTE}/report/{key_of(record)}")["rounds"]
    assert [past["feedback"]["rater"] for past in rounds] == ["the rewards"] * 2


def test_several_sessions_do_not_disturb_each_other(host: HostServer):
    one, other = (finished(host, graph(name, prompt)) for name, prompt in (("one", "a cat"), ("other", "a rose")))
    first, second = seen(host, key_of(one)), seen(host, key_of(other))
    told(host, "commit", first, round=first["open"]["key"], liked=[0])
    assert seen(host, second["key"]) == second


def test_what_cannot_be_is_refused_and_changes_nothing(host: HostServer):
    record = finished(host, graph("refused"))
    view = seen(host, key_of(record))
    good = {"key": view["key"], "revision": view["revision"], "round": view["open"]["key"]}
    for action, body, code, words in (
        ("commit", good | {"revision": view["revision"] + 7}, 409, "session"),
        ("commit", good | {"liked": [9]}, 400, "no picture 10"),
        ("commit", good | {"liked": [0], "disliked": [0]}, 400, "both liked and disliked"),
        ("commit", good | {"comment": "x" * 300_000}, 400, "letters"),
        ("commit", good | {"comment": 7}, 400, "must be a text"),
        ("commit", good | {"system": "ignore all"}, 400, "does not take"),
        ("explode", good, 400, "A session can be told"),
        ("undo", {"key": "0" * 32, "revision": 0}, 404, "not there any more"),
        ("undo", {"key": "../../etc", "revision": 0}, 400, "by its key"),
    ):
        found = refused(host, action, body)
        assert found[0] == code and words in found[1], (action, found)
    assert seen(host, view["key"]) == view
    picture = view["open"]["pictures"][0]["hash"]
    assert host.request(f"{ROUTE}/picture/{view['key']}/{picture}").startswith(b"\x89PNG")
    for name in ("0" * 64, "..%2F..%2Fattune.sqlite3"):
        with pytest.raises(urllib.error.HTTPError) as missing:
            host.request(f"{ROUTE}/picture/{view['key']}/{name}")
        assert missing.value.code == 404
    where, words = shown_error(host, graph("refused", decides="the rewards"))
    assert where == "commit" and "none is weighed" in words


def repeated(name: str, rounds: int = 3, **changes: Any) -> dict[str, Any]:
    made = graph(name, rewards=True, **{"decides": "the rewards", "comment": "warmer"} | changes)
    made["repeat"] = node("AttuneRepeatRounds", session=["commit", 0], rounds=rounds)
    return made


def test_rounds_are_repeated_in_one_run_and_no_two_are_the_same(host: HostServer):
    record = finished(host, repeated("repeated"))
    view = seen(host, key_of(record))
    assert view["number"] == 4 and len(view["path"]) == 3
    rounds = view["rounds"]
    assert [found["number"] for found in rounds] == [1, 2, 3]
    hashes = [part["hash"] for found in rounds for part in found["pictures"]]
    assert len(set(hashes)) == 9, "two rounds made the same pictures"
    assert all(found["feedback"]["comment"] == "warmer" and found["weights"] for found in rounds)
    assert [found["parent"] for found in rounds] == [None, *(found["key"] for found in rounds[:2])]

    # As with a run per round.
    chain = repeated("one by one", 1)
    for _ in range(3):
        record = finished(host, chain)
    alone = seen(host, key_of(record))
    assert [part["hash"] for found in alone["rounds"] for part in found["pictures"]] == hashes

    # Another run goes on.
    finished(host, repeated("repeated", 2))
    assert seen(host, view["key"])["number"] == 6


def test_an_accepted_session_is_not_repeated(host: HostServer):
    view = seen(host, key_of(finished(host, repeated("accepted", 2))))
    view = told(host, "accept", view, round=view["path"][-1], position=0)
    where, words = shown_error(host, repeated("accepted", 3))
    assert where == "session" and "accepted is accepted: round 2 has what was meant" in words
    assert seen(host, view["key"])["path"] == view["path"], "nothing was made"
    # One round more on purpose takes nothing back.
    view = seen(host, key_of(finished(host, repeated("accepted", 1))))
    assert view["number"] == 4 and view["accepted"]


def test_a_simulated_person_ends_the_rounds_when_it_sees_what_it_means(host: HostServer):
    """Or after all rounds: what pictures of random weights show is not known beforehand."""
    made = repeated("person", 4, decides="the connected answer")
    made["judge"] = node(
        "AttuneLoadReward", reward_name="attune_demo_judge.safetensors", device="default", precision="fp32"
    )
    made["person"] = node(
        "AttuneSimulatedPerson", session=["weights", 0], images=["decoded", 0], judge=["judge", 0], concept="cat",
        style="flat", background="blue", noise=0.01, blunder=0.0, silence=0.0, person_seed=1,
    )  # fmt: skip
    made["commit"]["inputs"]["answer"] = ["person", 0]
    view = seen(host, key_of(finished(host, made)))
    said = [found["feedback"] for found in view["rounds"]]
    assert 1 <= len(said) <= 4 and all(found["liked"] for found in said)
    assert all(found["accepted"] == (not found["comment"]) for found in said)
    assert not any(found["accepted"] for found in said[:-1]), "it went on after it had accepted"
    assert len(said) == 4 or said[-1]["accepted"]


def test_cancel_keeps_the_rounds_that_are_done(host: HostServer):
    made = repeated("cancelled", 40)
    host.post("/prompt", {"prompt": made})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        sessions = {found["name"]: found for found in host.get(f"{ROUTE}/sessions")["sessions"]}
        if sessions.get("cancelled", {"rounds": 0})["rounds"] >= 2:
            break
        time.sleep(0.2)
    host.request("/interrupt", {})
    while host.get("/queue")["queue_running"]:
        time.sleep(0.2)
    view = seen(host, sessions["cancelled"]["key"])
    assert 2 <= len(view["path"]) < 40
    assert all(found["feedback"]["liked"] for found in view["rounds"])
    record = finished(host, repeated("cancelled", 1))
    assert len(seen(host, key_of(record))["path"]) == len(view["path"]) + 1


def test_wires_that_make_no_round_are_named_in_the_page(host: HostServer):
    made = repeated("wires", 2)
    made["repeat"]["inputs"]["session"] = ["weights", 0]
    where, words = shown_error(host, made)
    assert where == "repeat" and "Connect the session of Commit Round" in words
    where, words = shown_error(host, repeated("wires", 2, decides="the connected answer"))
    assert where == "commit" and "No answer is connected" in words
    # A round that waits for a person is not repeated, and nothing is wrong with it.
    assert "waits for you" in finished(host, repeated("wires", 3, decides="you"))["outputs"]["commit"]["text"][0]
