"""Refine Prompt's language model in the host's memory: loaded once, let go of when the host is told to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch

from attune.nodes.host import folders, managed
from attune.nodes.refinement import nodes_prompt
from attune.nodes.refinement.draft import Draft
from attune.nodes.refinement.language_models import load_language_model
from attune.nodes.refinement.records import Feedback, Picture, Round, Schedule, SessionState
from attune.scripts.environment import fetch_language_model
from attune.tests import tiny_llm
from attune.training import digests
from attune.training.interfaces import AttuneError


def draft(comment: str) -> Draft:
    """Before the second round of a session, of whose first round a person has said that."""
    said = Feedback(comment, liked=(0,))
    first = Round(
        "1" * 32, None, 1, 0, "a cat on a red background", "", {}, Schedule("linear", 4, 1.0, (1,)), None,
        (Picture("0" * 64, 1),), said, 1.0, "", "", 0,
    )  # fmt: skip
    return Draft.of(SessionState("2" * 32, "cats", 1, 0, first.prompt, "", (first,)))


def refined(model: str, comment: str = "make the background blue", back_end: str = nodes_prompt.LOCAL) -> Any:
    with torch.inference_mode():
        return nodes_prompt.AttuneRefinePrompt.execute(draft(comment), back_end, model, external="a dog").args


@contextmanager
def counted() -> Iterator[list[str]]:
    """Inside, names of the models that are really loaded; none is kept from before."""
    loads: list[str] = []

    def load(path: Path, **options: Any) -> Any:
        loads.append(path.name)
        return load_language_model(path, **options)

    nodes_prompt._MODEL.release()
    nodes_prompt.load_language_model = load
    try:
        yield loads
    finally:
        nodes_prompt.load_language_model = load_language_model
        nodes_prompt._MODEL.release()


def models() -> Path:
    folders.register_folders()
    found = Path(folder_paths.models_dir) / folders.LANGUAGE_MODELS
    found.mkdir(parents=True, exist_ok=True)
    return found


def check_a_language_model_is_loaded_once_and_a_changed_file_anew() -> None:
    """The real SmolLM2, from its GGUF file."""
    file = models() / "smol.gguf"
    shutil.copyfile(fetch_language_model(Path(sys.executable)), file)
    with counted() as loads:
        first = refined(file.name)
        assert loads == [file.name] and "cat" in first[1]
        (patcher,) = [found for found in comfy.model_management.loaded_models() if _is_kept(found)]
        assert patcher.loaded_size() >= patcher.model_size() > 100 << 20
        del patcher
        assert refined(file.name)[1] == first[1]
        refined(file.name, comment="no people, please")
        assert loads == [file.name], "the second and the third round loaded it again"
        # Bytes behind the last weight change the file, and nothing that is read of it.
        with open(file, "ab") as opened:
            opened.write(bytes(64))
        assert refined(file.name)[1] == first[1]
        assert loads == [file.name] * 2
    assert not any(_is_kept(found) for found in comfy.model_management.loaded_models())


def _is_kept(patcher: Any) -> bool:
    return any("Llama" in type(part).__name__ for part in patcher.model.modules())


def check_a_language_model_is_let_go_of_when_its_memory_is_wanted() -> None:
    tiny_llm.llama(models() / "tiny one")
    tiny_llm.llama(models() / "tiny two", seed=1)
    with counted() as loads:
        refined("tiny one")
        assert held() > 0
        comfy.model_management.unload_all_models()
        assert held() == 0, "a person had the host unload its models"
        refined("tiny one")
        refined("tiny one")
        refined("tiny two")
        refined("tiny two", comment="")
        assert loads == ["tiny one", "tiny one", "tiny two"]
        refined("tiny two", back_end=nodes_prompt.RULES)
        assert held() == 0
        refined("tiny two")
        refined("tiny two", back_end=nodes_prompt.EXTERNAL)
        assert held() == 0 and loads[3:] == ["tiny two"]


def held() -> int:
    """Bytes of the weights that the node keeps."""
    kept = nodes_prompt._MODEL._kept
    parameters = () if kept is None else kept[0].model.parameters()
    return sum(parameter.nbytes for parameter in parameters if parameter.device.type != "meta")


def check_a_node_that_needs_memory_moves_a_language_model_away_without_losing_it() -> None:
    """On a graphics card, where it computes elsewhere than it is moved to; that it does so is pretended."""
    tiny_llm.llama(models() / "tiny")
    running = managed.running
    with counted() as loads:
        refined("tiny")
        _, kept = nodes_prompt._MODEL._kept
        managed.running = lambda: ("a run", "5")
        try:
            kept.patcher.offload_device = torch.device("meta")
            nodes_prompt._MODEL._moved_away(kept.patcher, True)
            kept.patcher.offload_device = torch.device("cpu")
            with torch.inference_mode():
                kept.patcher.detach(unpatch_all=False)
            assert held() > 0, "the host was about to load it anew"
            refined("tiny")
            assert loads == ["tiny"]
            comfy.model_management.unload_all_models()
            assert held() == 0, "on a CPU moving it away would free nothing"
            refined("tiny")
            assert loads == ["tiny"] * 2
        finally:
            managed.running = running


def check_cancel_ends_the_reading_of_a_large_language_model() -> None:
    """Both when the host asks whether it has changed, and when the node reads it."""
    file = models() / "large.gguf"
    with open(file, "wb") as opened:
        opened.truncate(3 * digests._BLOCK)
    management = comfy.model_management
    management.interrupt_current_processing(True)
    try:
        raised = _raised(lambda: nodes_prompt.AttuneRefinePrompt.fingerprint_inputs(nodes_prompt.LOCAL, file.name))
        assert isinstance(raised, AttuneError) and "Stopped" in str(raised)
        assert management.processing_interrupted(), "the host must still hear of it"
        raised = _raised(lambda: refined(file.name))
        assert isinstance(raised, management.InterruptProcessingException)
    finally:
        management.interrupt_current_processing(False)


def _raised(function: Any) -> BaseException | None:
    try:
        function()
    except BaseException as error:  # the host's interrupt is no Exception
        return error
    return None
