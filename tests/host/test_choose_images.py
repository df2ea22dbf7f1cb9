"""Choose Images in the real host: asks, goes on, remembers; its rules; and the template from choosing to a LoRA."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from attune.tests.host.choices import light_and_dark, put_questions, store_of
from attune.tests.host.graphs import base_graph, finished, node, report_of, shown_error, with_changes, write_checkpoint
from attune.tests.hosting import HostServer

TEMPLATE = Path(__file__).resolve().parents[2] / "workflows" / "train_on_my_choices.json"


@pytest.fixture(scope="module", autouse=True)
def checkpoint(host: HostServer) -> Path:
    return write_checkpoint(host)


def choose_graph(name: str, **widgets: Any) -> dict[str, Any]:
    """Two prompts, four pictures each; what was chosen is shown, and reported."""
    graph = base_graph()
    graph["latent"]["inputs"]["batch_size"] = 4
    words = {"mode": "pairs", "if_not_chosen": "leave out", "wait_seconds": 0.0, "prompts": ["prompts", 1]}
    graph |= {
        "prompts": node(
            "AttunePromptLines", text="a cat\na rose", remove_duplicates=True, shuffle_seed=0, limit=0, repeat=1
        ),
        "positive": node("CLIPTextEncode", clip=["ckpt", 1], text=["prompts", 1]),
        "negative": node("CLIPTextEncode", clip=["ckpt", 1], text=""),
        "sample": node(
            "KSampler", model=["ckpt", 0], positive=["positive", 0], negative=["negative", 0],
            latent_image=["latent", 0], seed=5, steps=2, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["ckpt", 2]),
        "profile": node("AttunePreferenceProfile", profile="my taste", new_name=name),
        "choose": node("AttuneChooseImages", profile=["profile", 0], images=["decode", 0], latents=["sample", 0],
                       seeds=5, **(words | widgets)),
        "chosen": node("PreviewImage", images=["choose", 0]),
        "rejected": node("PreviewImage", images=["choose", 1]),
        "again": node("VAEDecode", samples=["choose", 2], vae=["ckpt", 2]),
        "again_shown": node("PreviewImage", images=["again", 0]),
        "chosen_prompts": node("PreviewAny", source=["choose", 4]),
        "chosen_seeds": node("PreviewAny", source=["choose", 5]),
        "report": node("PreviewAny", source=["choose", 6]),
        "rejected_prompts": node("PreviewAny", source=["choose", 7]),
        "rejected_seeds": node("PreviewAny", source=["choose", 8]),
    }  # fmt: skip
    return graph


def outcome(host: HostServer, graph: dict[str, Any]) -> dict[str, Any]:
    record = finished(host, graph)
    assert record["status"]["status_str"] == "success", record["status"]
    told = record["status"]["messages"]
    cached = {name for kind, data in told if kind == "execution_cached" for name in data["nodes"]}
    outputs = record["outputs"]
    own = {} if "choose" in cached else outputs["choose"]
    page, text = (own.get(name, [None])[0] for name in ("attune_choose", "text"))
    return {"page": page, "text": text, "cached": cached, "outputs": outputs}


def pictures(host: HostServer, found: dict[str, Any], name: str) -> list[Any]:
    files = [host.output_path(image) for image in found["outputs"].get(name, {}).get("images", [])]
    return [host.pixels(file) for file in files]


def decide(host: HostServer, page: dict[str, Any], question: str, choice: str) -> None:
    host.post("/attune/preferences/decide", {"profile": page["profile"], "question": question, "choice": choice})


def asked(host: HostServer, page: dict[str, Any]) -> list[dict[str, Any]]:
    body = {"profile": page["profile"], "questions": page["questions"]}
    return host.post("/attune/preferences/questions", body)["questions"]


def test_a_run_asks_and_the_next_one_hands_on_what_was_chosen(host: HostServer):
    graph = choose_graph("picker")
    first = outcome(host, graph)
    assert first["text"] == "0 of 4 questions answered. 4 waiting for you."
    blocked = {"chosen", "rejected", "again_shown", "chosen_prompts", "rejected_prompts", "rejected_seeds"}
    assert blocked & first["outputs"].keys() == set(), "nothing yet"
    questions = asked(host, first["page"])
    assert [question["prompt"] for question in questions] == ["a cat", "a cat", "a rose", "a rose"]
    assert {picture["seed"] for question in questions for picture in question["pictures"]} == {"5"}
    assert "choose" in outcome(host, graph)["cached"], "asking changes nothing"

    hashes = [[picture["hash"] for picture in question["pictures"]] for question in questions]
    decide(host, first["page"], questions[0]["key"], hashes[0][1])
    decide(host, first["page"], questions[2]["key"], hashes[2][0])
    decide(host, first["page"], questions[3]["key"], "tie")
    second = outcome(host, graph)
    assert second["text"] == "3 of 4 questions answered. 1 waiting for you."
    assert "sample" in second["cached"] and "choose" not in second["cached"]
    assert second["page"]["questions"] == first["page"]["questions"], "the same pictures, the same questions"
    chosen, rejected, again = (pictures(host, second, name) for name in ("chosen", "rejected", "again_shown"))
    assert (len(chosen), len(rejected)) == (2, 2)
    shown = [host.request(f"/attune/preferences/picture/{name}") for name in (hashes[0][1], hashes[2][0])]
    assert all(content.startswith(b"\x89PNG") for content in shown)
    for one, other in zip(chosen, again, strict=True):
        assert abs(one - other).max() <= 1 / 255, "the latents are those of the chosen pictures"
    assert second["outputs"]["chosen_seeds"]["text"] == ["5", "5"]
    assert second["outputs"]["chosen_prompts"]["text"] == ["a cat", "a rose"]
    assert second["outputs"]["rejected_seeds"]["text"] == ["5", "5"]
    assert second["outputs"]["rejected_prompts"]["text"] == ["a cat", "a rose"]
    assert second["outputs"]["report"]["text"] == [second["text"]], "where workflows from before look for it"

    other_mode = outcome(host, choose_graph("picker", mode="best of each prompt"))
    assert other_mode["page"]["waiting"] == 2, "another question, another answer"

    host.stop()
    host.start()
    assert outcome(host, graph)["text"] == second["text"], "choices outlive the host"


def test_rules_decide_for_a_run_and_remember_nothing(host: HostServer):
    first = outcome(host, choose_graph("rules", if_not_chosen="first"))
    assert first["text"].endswith("4 waiting for you, 4 answered by rule for this run.")
    assert len(pictures(host, first, "chosen")) == 4
    graph = choose_graph("rules", if_not_chosen="best by reward", reward=["reward", 0])
    best = outcome(host, graph)
    chosen, rejected = (pictures(host, best, name) for name in ("chosen", "rejected"))
    assert all(one.mean() >= other.mean() for one, other in zip(chosen, rejected, strict=True)), "the brighter ones"
    summary = next(p for p in host.get("/attune/preferences/profiles")["profiles"] if p["name"] == "rules")
    assert (summary["choices"], summary["revision"], summary["waiting"]) == (0, 0, 4)


def test_a_run_may_wait_for_a_person(host: HostServer):
    graph = choose_graph("patient", mode="best of each prompt", if_not_chosen="wait", wait_seconds=120.0)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(outcome(host, graph)))
    thread.start()
    deadline = time.monotonic() + 120
    waiting: list[dict[str, Any]] = []
    while len(waiting) < 2 and time.monotonic() < deadline:
        profiles = {entry["name"]: entry["key"] for entry in host.get("/attune/preferences/profiles")["profiles"]}
        if "patient" in profiles:
            waiting = host.get(f"/attune/preferences/waiting?profile={profiles['patient']}")["questions"]
        time.sleep(0.2)
    for question in waiting:
        decide(host, {"profile": profiles["patient"]}, question["key"], question["pictures"][2]["hash"])
    thread.join(120)
    assert found[0]["text"] == "2 of 2 questions answered."
    assert len(pictures(host, found[0], "chosen")) == 2 and len(pictures(host, found[0], "rejected")) == 6
    over = outcome(host, choose_graph("impatient", if_not_chosen="wait", wait_seconds=0.5))
    assert over["text"] == "0 of 4 questions answered. 4 waiting for you."


def test_it_waits_again_where_nobody_has_answered(host: HostServer):
    graph = choose_graph("late", mode="best of each prompt", if_not_chosen="wait", wait_seconds=0.5)
    first = outcome(host, graph)
    second = outcome(host, graph)
    assert "sample" in second["cached"] and "choose" not in second["cached"], "the same pictures, another wait"
    for question in asked(host, first["page"]):
        decide(host, first["page"], question["key"], "tie")
    assert outcome(host, graph)["text"] == "2 of 2 questions answered."
    assert "choose" in outcome(host, graph)["cached"], "there is nothing to wait for"


def test_what_is_lost_is_asked_again_by_the_next_run(host: HostServer):
    graph = choose_graph("forgotten", mode="best of each prompt")
    first = outcome(host, graph)
    before = asked(host, first["page"])
    put_questions(host, "forgotten", light_and_dark(1, size=16), most_waiting=1)
    assert asked(host, first["page"]) == [], "too many others waited; the page has just been told"
    again = outcome(host, graph)
    assert "sample" in again["cached"] and "choose" not in again["cached"]
    assert [question["key"] for question in asked(host, again["page"])] == [question["key"] for question in before]
    assert "choose" in outcome(host, graph)["cached"], "they are there"

    name = before[0]["pictures"][0]["hash"]
    (file,) = (host.user_dir / "attune" / "pictures").rglob(f"{name}.png")
    file.unlink()
    with pytest.raises(HTTPError, match="404"):
        host.request(f"/attune/preferences/picture/{name}?small=1")
    assert "choose" not in outcome(host, graph)["cached"]
    assert host.request(f"/attune/preferences/picture/{name}?small=1").startswith(b"\xff\xd8"), "it is there again"

    put_questions(host, "forgotten", light_and_dark(1, size=16, seed=1), most_waiting=1)
    with pytest.raises(HTTPError, match="404"):
        decide(host, first["page"], before[0]["key"], "tie")
    assert "choose" not in outcome(host, graph)["cached"], "Press Run, it is asked again: so it was told"


@pytest.mark.needs_system("posix", "a process can be killed in the middle of anything")
def test_a_host_killed_while_two_pages_choose_keeps_all_that_it_confirmed(launch_host: Callable[..., HostServer]):
    server = launch_host()
    questions = [asked.question for asked in put_questions(server, "killed", light_and_dark(200, size=16))]
    key = server.get("/attune/preferences/profiles")["profiles"][0]["key"]
    confirmed: list[dict[str, str]] = [{}, {}]

    def choose(page: int) -> None:
        for question in questions[page::2]:
            body = {"profile": key, "question": question.key, "choice": question.hashes[page]}
            try:
                server.post("/attune/preferences/decide", body)
            except OSError:  # it is gone
                return
            confirmed[page][question.key] = question.hashes[page]

    pages = [threading.Thread(target=choose, args=(page,)) for page in range(2)]
    for page in pages:
        page.start()
    deadline = time.monotonic() + 60
    while min(map(len, confirmed)) < 10 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(server.process.pid, signal.SIGKILL)
    for page in pages:
        page.join(60)
    told = confirmed[0] | confirmed[1]
    assert 20 <= len(told) < len(questions), "it was killed on the way"
    server.stop()
    server.start()

    store = store_of(server)
    kept = {asked.question.key: asked.decision.answer.chosen for asked in store.answered(key, most=500)}
    store.store.close()
    assert told.items() <= kept.items()
    assert len(kept) <= len(told) + 2, "and at most what either page was sending"
    (summary,) = server.get("/attune/preferences/profiles")["profiles"]
    assert summary["choices"] == summary["revision"] == len(kept) and summary["waiting"] == 200 - len(kept)
    choose(0)
    choose(1)
    assert server.get("/attune/preferences/profiles")["profiles"][0]["choices"] == 200
    server.stop()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"if_not_chosen": "best by reward"}, "The reward is to choose, but none is connected"),
        ({"prompts": "a\nb\nc"}, "8 pictures in 2 batches, but 3 prompts"),
        ({"latents": ["latent", 0]}, "8 pictures but 4 latents"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(host: HostServer, changes, said):
    found = shown_error(host, with_changes(choose_graph("refused"), "choose", **changes))
    assert found[0] == "choose" and said in found[1]


def test_the_template_from_choosing_to_a_lora(host: HostServer):
    """First run: asks, trains nothing, no error. A person chooses. Second run: trains on the choices."""
    short = {"AttunePreferenceProfile.new_name": "template", "KSampler.steps": 3, "AttuneTrainLora.steps": 2}
    first = host.run(TEMPLATE, short)
    (page,) = first.ui("AttuneChooseImages", "attune_choose")
    assert page["waiting"] == 12 and "holds no choices yet" in first.ui("AttunePairsFromProfile", "text")[0]
    assert first.nodes("AttuneTrainLora")[0] not in first.outputs
    before = host.images(first)
    for question in asked(host, page):
        decide(host, page, question["key"], question["pictures"][0]["hash"])
    second = host.run(TEMPLATE, short)
    assert second.ui("AttunePairsFromProfile", "text") == ["36 pairs of 12 prompts from 12 choices of template."]
    report = report_of(second)
    assert (report["status"], report["method"]) == ("finished", "diffusion-dpo")
    assert len(host.images(second)) > len(before), "the pairs, the curves, before and after"
