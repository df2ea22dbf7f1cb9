"""Calibrate, combine and keep in the real host: values through stock nodes, errors, the store, what is run again."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attune.nodes.rewards.scoring import significant
from attune.nodes.rewards.statistics import StatisticReward
from attune.tests.host.graphs import node, shown_error

COUNT = 10
PICTURES = 255 * np.linspace(0.15, 0.85, COUNT)


@pytest.fixture(scope="module")
def pictures(host) -> torch.Tensor:
    """Ten noisy pictures of 32×32, dark and light, in the host's input folder "attune_combine": [10, 32, 32, 3]."""
    folder = host.input_dir / "attune_combine"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    found = {}
    for index, light in enumerate(PICTURES):
        pixels = (light + rng.normal(size=(32, 32, 3)) * (3 + 7 * ((index * 7) % COUNT))).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02d}.png")
        found[f"{index:02d}.png"] = pixels
    # The host's node reads a folder in the order that the system lists it.
    return torch.from_numpy(np.stack([found[name] for name in os.listdir(folder)])).float() / 255


def statistic(name: str, goal: str = "as high as possible") -> dict[str, Any]:
    return node("AttuneImageStatisticsReward", statistic=name, goal=goal, target=0.5)


def calibrate(reward: str, name: str = "default", images: str | None = "pictures") -> dict[str, Any]:
    linked = {"images": [images, 0]} if images else {}
    return node("AttuneCalibrateReward", reward=[reward, 0], prompt="a cat", reference_name=name, **linked)


def combine(*rewards: str, **changes: Any) -> dict[str, Any]:
    widgets = {"mode": "weighted sum", "scale": "z-scores", "level": 0.0, "level_unit": "standard deviations",
               "penalty": 10.0} | {f"weight_{letter}": 1.0 for letter in "abcd"}  # fmt: skip
    linked = {f"reward_{letter}": [name, 0] for letter, name in zip("abcd", rewards, strict=False)}
    return node("AttuneCombineRewards", **linked, **(widgets | changes))


def keep(reward: str, **changes: Any) -> dict[str, Any]:
    widgets = {"prompt": "", "mode": "best k", "k": 3, "threshold": 0.0, "threshold_unit": "raw score",
               "hand_over": "one batch"}  # fmt: skip
    return node("AttuneRankAndKeepBest", images=["pictures", 0], reward=[reward, 0], **(widgets | changes))


def base() -> dict[str, Any]:
    return {
        "pictures": node("LoadImageDataSetFromFolder", folder="attune_combine"),
        "light": statistic("brightness"),
        "sharp": statistic("contrast"),
    }


def show(graph: dict[str, Any], **slots: list[Any]) -> dict[str, Any]:
    return graph | {name: node("PreviewAny", source=slot) for name, slot in slots.items()}


def scores_of(name: str, images: torch.Tensor) -> torch.Tensor:
    return StatisticReward(name)(images, [""] * len(images)).double()


def z_of(name: str, images: torch.Tensor) -> torch.Tensor:
    scores = scores_of(name, images)
    return (scores - scores.mean()) / scores.std()


def shown_numbers(result: Any, name: str) -> list[float]:
    return [float(text) for text in result.outputs[name]["text"]]


def score(reward: list[Any]) -> dict[str, Any]:
    return node("AttuneScoreImages", images=["pictures", 0], reward=reward, prompt="a cat")


DEMO = node("AttuneLoadReward", reward_name="attune_demo_reward.safetensors", device="default", precision="fp32")
SAME = {
    "demo": DEMO,
    "same": node(
        "AttuneDialogueReward", encoder=["demo", 0], kind="consistency", temperature=0.07, contrast_prompts=""
    ),
}


# ---- calibrate and combine ----


def test_a_combination_of_two_calibrated_rewards(host, pictures):
    graph = base() | {"a": calibrate("light"), "b": calibrate("sharp")}
    graph |= {"mix": combine("a", "b", weight_a=3.0), "score": score(["mix", 0])}
    graph |= {"chart": node("PreviewImage", images=["a", 1])}
    result = host.run(show(graph, formula=["mix", 1], scores=["score", 0], report=["a", 2]))
    expected = 0.75 * z_of("brightness", pictures) + 0.25 * z_of("contrast", pictures)
    assert shown_numbers(result, "scores") == pytest.approx(expected.tolist(), abs=1e-4)
    formula = "0.75·z(Brightness (high)) + 0.25·z(Contrast (high))"
    assert result.outputs["formula"]["text"] == [formula] == result.outputs["mix"]["text"]
    assert "calibrated on 10 images as 'default'" in result.outputs["report"]["text"][0]
    assert "Few images" in result.outputs["a"]["text"][0]
    assert host.pixels(host.output_path(result.outputs["chart"]["images"][0])).shape[1] >= 700


def test_constrained_and_minimum_through_the_nodes(host, pictures):
    graph = base() | {"a": calibrate("light"), "b": calibrate("sharp")}
    graph |= {
        "lowest": combine("a", "b", mode="minimum"),
        "held": combine("a", "b", mode="constrained", level=60.0, level_unit="percentile"),
        "one": score(["lowest", 0]),
        "two": score(["held", 0]),
    }
    result = host.run(show(graph, lows=["one", 0], helds=["two", 0]))
    light, sharp = z_of("brightness", pictures), z_of("contrast", pictures)
    assert shown_numbers(result, "lows") == pytest.approx(torch.minimum(light, sharp).tolist(), abs=1e-4)
    expected = light - 10 * (torch.quantile(sharp, 0.6) - sharp).clamp_min(0)
    assert shown_numbers(result, "helds") == pytest.approx(expected.tolist(), abs=1e-3)


def test_what_was_measured_is_kept_for_later_runs(host, pictures):
    host.run(base() | {"a": calibrate("light", "mine")})
    with closing(sqlite3.connect(host.user_dir / "attune" / "attune.sqlite3")) as store:
        rows = store.execute("SELECT reward_id, count, mean FROM calibrations WHERE name = 'mine'").fetchall()
    assert [row[:2] for row in rows] == [(StatisticReward("brightness").reward_id, COUNT)]
    assert rows[0][2] == pytest.approx(scores_of("brightness", pictures).mean().item(), abs=1e-6)
    host.free()
    graph = base() | {"a": calibrate("light", "mine", images=None), "score": score(["a", 0])}
    graph |= {"mix": combine("a", "a"), "mixed": score(["mix", 0])}
    result = host.run(show(graph, scores=["score", 0], zs=["mixed", 0]))
    assert "(loaded)" in result.outputs["a"]["text"][0]
    assert shown_numbers(result, "scores") == pytest.approx(scores_of("brightness", pictures).tolist(), abs=1e-4)
    assert shown_numbers(result, "zs") == pytest.approx(z_of("brightness", pictures).tolist(), abs=1e-4)


def executed(host, graph: dict[str, Any]) -> set[str]:
    """The nodes that were run, not taken from the host's cache."""
    seen = []
    host.run(graph, on_event=lambda event: seen.append(event))
    return {event["node"] for event in seen if event.get("type") == "executing" and event.get("node")}


def test_a_calibration_is_measured_once_and_loaded_again_when_it_changed(host, pictures):
    measuring = base() | {"a": calibrate("light", "again")}
    assert "a" in executed(host, measuring)
    assert "a" not in executed(host, measuring), "its own writing is no change"
    loading = base() | {"b": calibrate("light", "again", images=None)}
    assert "b" in executed(host, loading)
    assert "b" not in executed(host, loading)
    executed(host, base() | {"c": calibrate("light", "other")})
    executed(host, loading)
    assert "b" not in executed(host, loading)
    fewer = {"some": node("ImageFromBatch", image=["whole", 0], batch_index=0, length=8)}
    fewer |= {"whole": node("EmptyImage", width=8, height=8, batch_size=9, color=0x808080)}
    both = {"mixed": node("ImageBatch", image1=["some", 0], image2=["light_one", 0])}
    both |= {"light_one": node("EmptyImage", width=8, height=8, batch_size=1, color=0xFFFFFF)}
    both |= {"light": statistic("brightness"), "d": calibrate("light", "again", images="mixed")}
    executed(host, loading | both | fewer)
    assert "b" in executed(host, loading), "the stored figures are others now"
    assert "b" not in executed(host, loading)


def test_the_second_run_of_a_network_reward_is_served_from_the_cache(host, pictures):
    """The host logs when it places a network; scores that are remembered, in memory or on disk, place none."""
    graph = {
        "pictures": node("LoadImageDataSetFromFolder", folder="attune_combine"),
        "demo": DEMO,
        "sharp": statistic("contrast"),
        "a": calibrate("demo"),
        "b": calibrate("sharp"),
    }
    graph |= {"mix": combine("a", "b"), "score": score(["mix", 0])}

    def run() -> tuple[list[float], int]:
        host.free()
        before = host.log().count("Requested to load ModuleDict")
        result = host.run(show(graph, scores=["score", 0]))
        return shown_numbers(result, "scores"), host.log().count("Requested to load ModuleDict") - before

    first, placed = run()
    assert placed == 1
    assert run() == (first, 0)
    with closing(sqlite3.connect(host.user_dir / "attune" / "attune.sqlite3")) as store:
        (rows,) = store.execute("SELECT COUNT(*) FROM scores").fetchone()
    assert rows >= COUNT


# ---- keep ----


def test_the_best_come_with_all_that_belongs_to_them(host, pictures):
    """Empty latents stand for those of a sampler; what counts is which numbers and sizes come out."""
    graph = base() | {
        "latent": node("EmptyLatentImage", width=64, height=32, batch_size=COUNT),
        "best": keep(
            "light", latent=["latent", 0], seed_list=["seed", 0], prompt="\n".join(f"p{i}" for i in range(10))
        ),
        "seed": node("PrimitiveInt", value=77),
        "one": node("LatentFromBatch", samples=["best", 1], batch_index=1, length=1),
        "save": node("PreviewImage", images=["best", 0]),
    }
    graph = show(
        graph, prompts=["best", 3], seeds=["best", 4], scores=["best", 5], indices=["best", 6], text=["best", 7]
    )
    graph["one_shown"] = node("PreviewAny", source=["one", 0])
    result = host.run(graph)
    light = scores_of("brightness", pictures)
    order = light.argsort(descending=True)[:3].tolist()
    assert shown_numbers(result, "indices") == order
    assert shown_numbers(result, "scores") == pytest.approx(light[order].tolist(), abs=1e-4)
    assert result.outputs["prompts"]["text"] == [f"p{index}" for index in order]
    assert result.outputs["seeds"]["text"] == ["77"] * 3
    assert result.outputs["text"]["text"][0].startswith("**Kept 3 of 10**: the best 3 by Brightness (high)")
    shown = [host.pixels(host.output_path(entry)) for entry in result.outputs["save"]["images"]]
    assert len(shown) == 3
    for pixels, index in zip(shown, order, strict=True):
        assert pixels == pytest.approx(pictures[index].numpy(), abs=1 / 255)
    assert f"[{order[1]}]" in result.outputs["one_shown"]["text"][0].replace('"', "")


def test_one_by_one_pairs_each_image_with_its_own(host, pictures):
    graph = base() | {
        "best": keep("light", hand_over="one by one", mask=["mask", 0]),
        "mask": node("SolidMask", value=1.0, width=32, height=32),
        "size": node("GetImageSize", image=["best", 0]),
    }
    result = host.run(show(graph, count=["size", 2], index=["best", 6]))
    assert result.outputs["count"]["text"] == ["1", "1", "1"]


def test_non_dominated_and_threshold_through_the_node(host, pictures):
    light, sharp = scores_of("brightness", pictures), scores_of("contrast", pictures)
    graph = base() | {
        "front": keep("light", reward_2=["sharp", 0], mode="non-dominated"),
        "a": calibrate("light"),
        "good": keep("a", mode="threshold", threshold=0.2, threshold_unit="standard deviations"),
    }
    result = host.run(show(graph, front_shown=["front", 6], good_shown=["good", 6]))
    points = list(zip(light.tolist(), sharp.tolist(), strict=True))
    free = {i for i, p in enumerate(points) if not any(q[0] >= p[0] and q[1] >= p[1] and q != p for q in points)}
    assert [int(v) for v in shown_numbers(result, "front_shown")] == sorted(free, key=lambda i: -light[i])
    z = z_of("brightness", pictures)
    assert [int(v) for v in shown_numbers(result, "good_shown")] == [i for i in z.argsort(descending=True).tolist()
                                                                      if z[i] >= 0.2]  # fmt: skip


def test_consistency_is_calibrated_combined_and_kept_by_with_its_earlier_rounds(host, pictures):
    """All three nodes see the same rounds as Score Images, and other rounds give other scores."""
    rounds = {
        "earlier": node("EmptyImage", width=32, height=32, batch_size=1, color=0xE0C0A0),
        "others": node("EmptyImage", width=32, height=32, batch_size=1, color=0x101828),
    }
    graph = base() | rounds | SAME | {
        "a": calibrate("same", "rounds"),
        "b": calibrate("light", "rounds"),
        "mix": combine("a", "b"),
        "best": keep("same", k=COUNT),
        "best_mix": keep("mix", k=COUNT),
        "score": score(["same", 0]),
    }  # fmt: skip
    for name in ("a", "best", "best_mix", "score"):
        graph[name]["inputs"]["previous"] = ["earlier", 0]
    graph["away"] = keep("same", k=COUNT)
    graph["away"]["inputs"]["previous"] = ["others", 0]
    result = host.run(show(graph, scores=["score", 0], best_shown=["best", 5], indices=["best", 6],
                           mixed=["best_mix", 5], away_shown=["away", 5], text=["a", 2]))  # fmt: skip
    scores = torch.tensor(shown_numbers(result, "scores"), dtype=torch.float64)
    assert scores.std() > 0
    ordered = scores.sort(descending=True)
    assert shown_numbers(result, "best_shown") == pytest.approx(ordered.values.tolist(), abs=1e-6)
    assert [int(number) for number in shown_numbers(result, "indices")] == ordered.indices.tolist()
    assert shown_numbers(result, "away_shown") != pytest.approx(ordered.values.tolist(), abs=1e-3)
    assert f"mean {significant(scores.mean().item())}" in result.outputs["text"]["text"][0]
    z = (scores - scores.mean()) / scores.std()
    mixed = ((z + z_of("brightness", pictures)) / 2).sort(descending=True).values
    assert shown_numbers(result, "mixed") == pytest.approx(mixed.tolist(), abs=1e-3)


# ---- errors ----

FEW = {"few": node("EmptyImage", width=8, height=8, batch_size=3, color=0)}
ALIKE = {"few": node("EmptyImage", width=8, height=8, batch_size=9, color=0)}
LATENTS = {"latent": node("EmptyLatentImage", width=64, height=64, batch_size=4)}
NEXT = {"upscale": node("LatentUpscaleBy", samples=["best", 1], upscale_method="bilinear", scale_by=2.0)}


@pytest.mark.parametrize(
    ("graph", "place", "says"),
    [
        ({**FEW, "a": calibrate("light", "x", "few")}, "a", "3 images are too few to calibrate with: at least 8"),
        ({**ALIKE, "a": calibrate("light", "x", "few")}, "a", "All 9 images have the score"),
        ({"a": calibrate("light", "nowhere", None)}, "a", "no stored calibration named 'nowhere'"),
        ({"a": calibrate("light", "  ")}, "a", "needs one reference_name"),
        ({**SAME, "a": calibrate("same", "x")}, "a", "nothing is connected to previous"),
        ({"mix": combine("light", "sharp")}, "mix", "Brightness (high) has no calibration"),
        ({"mix": combine("light", "sharp", mode="product", scale="raw scores")}, "mix", "Set scale to 'z-scores'"),
        ({"mix": combine("light", "sharp", weight_a=0.0, weight_b=0.0)}, "mix", "All weights are 0"),
        ({**LATENTS, "best": keep("light", latent=["latent", 0])}, "best", "4 latents for 10 images"),
        ({"best": keep("light", prompt="a\nb")}, "best", "2 prompts for 10 images"),
        ({"best": keep("light", mode="threshold", threshold=2.0)}, "best", "The best one has 0.8"),
        ({"best": keep("light", mode="non-dominated")}, "best", "Connect reward_2"),
        ({"best": keep("light", mode="threshold", threshold_unit="percentile")}, "best", "has no calibration, which"),
    ],
)  # fmt: skip
def test_mistakes_are_clear_errors(host, pictures, graph, place, says):
    name, words = shown_error(host, base() | graph)
    assert name == place
    assert says in words
    assert "Traceback" not in words


def test_an_output_with_nothing_to_carry_says_what_to_connect(host, pictures):
    graph = base() | {"best": keep("light")} | NEXT
    graph["save"] = node("SaveLatent", samples=["upscale", 0], filename_prefix="attune")
    # The host tells the page, and leaves it out of its record.
    with pytest.raises(RuntimeError) as caught:
        host.run(graph)
    message = json.dumps(caught.value.details) + str(caught.value)
    assert "no latents to hand on: nothing is connected to its latent" in message


def test_the_nodes_describe_themselves(host):
    info = host.object_info()
    kept = info["AttuneRankAndKeepBest"]
    assert kept["output"] == ["IMAGE", "LATENT", "MASK", "STRING", "INT", "FLOAT", "INT", "STRING"]
    assert kept["output_is_list"] == [True] * 7 + [False]
    assert list(info["AttuneCombineRewards"]["input"]["optional"]) == ["reward_c", "reward_d"]
    assert "images" in info["AttuneCalibrateReward"]["input"]["optional"]
    assert json.dumps(info["AttuneCalibrateReward"])
    for name in ("AttuneCalibrateReward", "AttuneRankAndKeepBest"):
        assert list(info[name]["input"]["optional"])[-1] == "previous", "inputs are appended, or saved links move"
    for letter in "abcd":
        tooltip = info["AttuneCombineRewards"]["input"]["required"][f"weight_{letter}"][1]["tooltip"]
        assert "'minimum' and 'constrained' it only matters whether it is 0" in tooltip
