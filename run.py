#!/usr/bin/env python3
"""Everything one does with this repository, on a bare machine, in one command each.

    python run.py demo                    the main job: align the demo model with a reward, and show before and after
    python run.py test                    every test: style, unit, real host, real browser
    python run.py serve                   ComfyUI with the pack, in your browser
    python run.py evidence NAME           measure one claim (--quick: smaller; --table: the README's table)
    python run.py train JOB               training without a page: a job file of Train LoRA, or reward-model, …

Each sets up what is missing (see scripts/environment.py) and says so. `--comfyui PATH` uses the ComfyUI you have.
Standard library only; Python 3.10 or newer, which some systems call `python3`. One check of `test` needs Node.js.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 — older ones must be told so, not shown a traceback
    sys.exit(f"run.py needs Python 3.10 or newer; this is {sys.version.split()[0]}.")

from scripts import browser, environment
from scripts.environment import HOST, ROOT, Environment
from scripts.server import Server, WorkflowError, WorkflowResult, free_port, has_gpu
from scripts.terminal import STARTED, SetupError, clear, interactive, say, status, table

MAIN_JOB = ROOT / "workflows" / "align_with_reward.json"
# Our own host's folders for demo and serve: what the demo trains is in the list of LoRAs when one looks at it.
OWN_BASE = HOST / "base"
TEST_FOLDERS = ("unit", "host", "browser")
MOST_TEST_PROCESSES = 4  # each may start a host of its own, which takes about 2 GB
MAPPED = ROOT / "scripts" / "module.py"
# As training/__main__.py lists them, which needs what is only there after setting up.
JOBS = {
    "demo-model": "build the demo data, train the demo checkpoint and both demo rewards",
    "demo-quality": "measure the demo checkpoint, and draw the model card's contact sheets",
    "demo-user": "draw pictures, simulate people who choose, train the demo's set encoder and user adapter",
    "demo-one-step": "make the demo's one-step LoRA by Diff-Instruct*",
    "simulate-choices": "let simulated people choose between pictures of yours",
    "reward-model": "train a reward model (QLoRA) on preference pairs",
}
# What single claims need besides; the others need nothing that the pack does not.
CLAIM_PACKAGES = {
    "qlora-reward": (*environment.DATA_PACKAGES, *environment.OPTIONAL_PACKAGES),
    "ocr-reward": environment.OPTIONAL_PACKAGES,
    "qlora-memory": environment.OPTIONAL_PACKAGES,
    "llm-refiner": environment.OPTIONAL_PACKAGES,
    **dict.fromkeys(("refine-intent", "refine-rounds", "refine-ablation", "refine-keeps"), environment.DATA_PACKAGES),
}
NODE_ADVICE = (
    "The JavaScript tests need Node.js 18 or newer, and there is no `node` on the PATH. Install it (from nodejs.org, "
    "or by apt-get install nodejs, brew install node, winget install OpenJS.NodeJS), then run the same command again."
)


def main() -> int:
    for stream in (sys.stdout, sys.stderr):
        # Windows gives a redirected output a code page that lacks the table's lines.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    arguments, rest = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return COMMANDS[arguments.command](arguments, rest)
    except (SetupError, WorkflowError) as error:
        clear()
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        clear()
        print("\nStopped.", file=sys.stderr)
        return 130


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--comfyui", type=Path, metavar="PATH", help="use the ComfyUI in this folder, and its Python")
    # Only where a host is started on what the machine has: tests, evidence and jobs compute on the CPU anyway.
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--cpu", action="store_true", help="do not use a GPU even if there is one")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="demo | test | serve | evidence | train")
    commands.add_parser("demo", parents=[common, device], help="the main job, end to end")
    commands.add_parser("test", parents=[common], help="every test; further arguments go to pytest")
    serve = commands.add_parser(
        "serve", parents=[common, device], help="the host with the pack; further arguments go to it"
    )
    serve.add_argument("--port", type=int, default=8188)
    evidence = commands.add_parser("evidence", parents=[common], help="measure a claim")
    evidence.add_argument("name", nargs="?", help="a script in tests/evidence")
    evidence.add_argument("--quick", action="store_true", help="a smaller run of the same script")
    evidence.add_argument("--table", action="store_true", help="write the recorded results into README.md")
    # Without its own --help, so that `train JOB --help` reaches the job.
    train = commands.add_parser(
        "train",
        parents=[common],
        add_help=False,
        help="train without a graph; further arguments go to the job",
        epilog="`run.py train JOB --help` shows the options of a job.",
    )
    jobs = "; ".join(f"{name}: {what}" for name, what in JOBS.items())
    jobs += ". A file NAME.json: a job file that Train LoRA wrote, played by ComfyUI without its page"
    train.add_argument("job", metavar="JOB", help=jobs)
    train.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help="of a job file: share every batch by N processes, one per graphics card (accelerate launch)",
    )  # fmt: skip
    if words and words[0] == "train" and all(word in {"-h", "--help"} for word in words[1:]):
        train.print_help()
        sys.exit(0 if words[1:] else 2)
    arguments, rest = parser.parse_known_args(words)
    if rest and arguments.command in {"demo", "evidence"}:
        parser.error(f"{arguments.command} does not know: {' '.join(rest)}")
    return arguments, rest


def demo(arguments: argparse.Namespace, _rest: list[str]) -> int:
    """The main job, from the demo checkpoint to a before/after picture."""
    here = environment.prepare(arguments.comfyui)
    began = time.monotonic()
    with started(Server(here, OWN_BASE, force_cpu=arguments.cpu)) as server:
        say(f"Running {MAIN_JOB.relative_to(ROOT)} by comfy-cli")
        # The run's name is fixed in the template; what an earlier demo left must neither be resumed nor be shown again.
        fresh = {"AttuneTrainLora.if_run_exists": "start fresh"}
        result = server.run(MAIN_JOB, fresh, on_event=EventPrinter())
        say(f"Done: {result.seconds:.0f} s, with the host's start {time.monotonic() - began:.0f} s")
        print(f"\n{summary(result)}\n")
        for what, path in artefacts(server, result):
            print(f"{what}: {path}")
    return 0


@contextmanager
def started(server: Server) -> Iterator[Server]:
    """The host while it runs: its start is shown, its end is certain."""
    say("Starting the host …")
    server.start(lambda seconds: status(f"Starting the host … {seconds:.0f} s"))
    try:
        say(f"The host answers at {server.url}")
        yield server
    finally:
        server.stop()


class EventPrinter:
    """Turns comfy-cli's events into one line per node, with live progress on a terminal."""

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}
        self.spoken = 0.0

    def __call__(self, event: dict) -> None:
        kind = event.get("type")
        if kind == "executing":
            self.titles[event["node"]] = event.get("title") or event.get("class_type") or event["node"]
            say(self.titles[event["node"]])
            self.spoken = time.monotonic()
        elif kind == "progress":
            line = f"{self.titles.get(event['node'], '')}: {event['completed']} of {event['total']}"
            if interactive():
                status(line)
            elif time.monotonic() - self.spoken > 15:
                say(line)
                self.spoken = time.monotonic()


def summary(result: WorkflowResult) -> str:
    """The comparison node's figures as a table; every number is read from the run."""
    metrics = json.loads(result.ui("AttuneCompareAB", "attune_metrics")[0])
    rows = [
        [label, f"{metrics[f'{key}_before']:.4f}", f"{metrics[f'{key}_after']:.4f}", change(metrics, key)]
        for label, key in (
            ("Reward (trained for)", "reward"),
            ("Held-out reward", "held_out"),
            ("Diversity", "diversity"),
        )
        if metrics.get(f"{key}_before") is not None
    ]
    lines = [table(rows, header=["Same seeds and prompts", "before", "after", "change"])]
    for report in result.nodes("AttuneTrainLora"):
        for text in result.outputs.get(report, {}).get("attune_report", []):
            training = json.loads(text)
            if "seconds" in training:
                lines.append(f"Training took {training['seconds']:.0f} s.")
    lines.append(f"The whole workflow took {result.seconds:.0f} s.")
    return "\n".join(lines)


def change(metrics: dict, key: str) -> str:
    return f"{metrics[f'{key}_after'] - metrics[f'{key}_before']:+.4f}"


def artefacts(server: Server, result: WorkflowResult) -> list[tuple[str, Path]]:
    """The before/after picture, and the LoRA."""
    compared = set(result.nodes("AttuneCompareAB"))
    found = []
    for node, entry in result.prompt.items():
        fed_by = {value[0] for value in entry["inputs"].values() if isinstance(value, list)}
        images = result.outputs.get(node, {}).get("images", [])
        if images and (fed_by & compared or node in compared):
            found.append(("Before and after", server.output_path(images[0])))
    loras = sorted((server.folder / "models" / "loras" / "attune").glob("*.safetensors"), key=os.path.getmtime)
    if loras:
        found.append(("The LoRA", loras[-1]))
    return found


def test(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Style, JavaScript, and all of pytest; the exit code is 0 only if everything passed."""
    here = environment.prepare(arguments.comfyui, extras=(*environment.TEST_PACKAGES, *environment.OPTIONAL_PACKAGES))
    chromium = browser.prepare(here)
    environment.fetch_language_model(here.python)
    variables = here.variables() | {"ATTUNE_CHROMIUM": str(chromium)}
    say(f"Testing with {here.comfyui} and {chromium}")
    python = here.python
    verdicts: list[list[str]] = []
    HOST.mkdir(exist_ok=True)

    def check(name: str, command: Sequence[str | os.PathLike[str]]) -> None:
        say(name)
        began = time.monotonic()
        # Not in the repository: Python would put it on sys.path, where its folder `nodes` hides the host's module.
        code = subprocess.run(command, env=variables, cwd=HOST, check=False).returncode
        verdicts.append([name, "passed" if code == 0 else "FAILED", f"{time.monotonic() - began:.0f} s"])

    check("ruff check", [python, "-m", "ruff", "check", ROOT])
    check("ruff format", [python, "-m", "ruff", "format", "--check", ROOT])
    scripts = sorted((ROOT / "tests").rglob("*.test.js")) + sorted((ROOT / "tests").rglob("*.test.mjs"))
    node = shutil.which("node")
    if scripts and node:
        check("JavaScript", [node, "--test", *scripts])
    elif scripts:
        verdicts.append(["JavaScript", "FAILED", "no Node.js"])
    folders = [ROOT / "tests" / name for name in TEST_FOLDERS]
    selected = [word for word in rest if not word.startswith("-") and (ROOT / word.split("::")[0]).exists()]
    paths = [ROOT / word for word in selected] or [folder for folder in folders if folder.is_dir()]
    options = [word for word in rest if word not in selected]
    # All of it at once: a process per core, each with files of its own, so that what a file has set up is set up once.
    cores = os.cpu_count() or 1
    processes = min(MOST_TEST_PROCESSES, cores)
    together = [] if selected else ["-n", str(processes), "--dist", "loadfile"]
    if together:
        # Threads of several processes on the same cores wait for each other, and a host crawls.
        variables.setdefault("OMP_NUM_THREADS", str(cores // processes))
    check("pytest", [python, "-m", "pytest", "--durations=15", "-p", "no:cacheprovider", *together, *options, *paths])
    print(f"\n{table(verdicts, header=['Check', 'result', 'time'])}")
    if scripts and not node:
        print(f"\n{NODE_ADVICE}")
    failed = any(verdict[1] == "FAILED" for verdict in verdicts)
    say(f"{'FAILED' if failed else 'Everything passed'} in {time.monotonic() - STARTED:.0f} s")
    return int(failed)


def serve(arguments: argparse.Namespace, rest: list[str]) -> int:
    """The host until Ctrl-C."""
    here = environment.prepare(arguments.comfyui)
    base = OWN_BASE if here.own else None
    with started(Server(here, base, port=arguments.port, arguments=rest, force_cpu=arguments.cpu)) as server:
        say(f"Open {server.url}   (templates: Workflow → Browse Templates → ComfyUI-Attune)")
        say(f"Its log: {server.log_file}   Ctrl-C ends it.")
        if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(server.url)
        assert server.process is not None
        code = server.process.wait()
        raise SetupError(f"The host ended by itself with code {code}; its log is {server.log_file}.")


def evidence(arguments: argparse.Namespace, _rest: list[str]) -> int:
    """One claim, or the table of all."""
    if not arguments.table and arguments.name is None:
        raise SetupError(f"Which claim? There are: {', '.join(claims())}.")
    if arguments.name is not None and arguments.name.replace("_", "-") not in claims():
        raise SetupError(f"There is no claim {arguments.name!r}. There are: {', '.join(claims())}.")
    packages = CLAIM_PACKAGES.get((arguments.name or "").replace("_", "-"), ())
    here = environment.prepare(arguments.comfyui, extras=packages)
    if (arguments.name or "").replace("_", "-") == "llm-refiner":
        environment.fetch_language_model(here.python)
    words = [arguments.name] if arguments.name else []
    words += [flag for flag in ("--quick", "--table") if getattr(arguments, flag[2:])]
    return run_module(here, "attune.tests.evidence.runner", words)


def claims() -> list[str]:
    helpers = {"__init__", "plots", "record", "runner"}
    names = (file.stem for file in (ROOT / "tests" / "evidence").glob("*.py"))
    return sorted(name.replace("_", "-") for name in names if name not in helpers and not name.startswith("_"))


def train(arguments: argparse.Namespace, rest: list[str]) -> int:
    """A training job without a graph, or a job file."""
    if arguments.job.endswith(".json"):
        return train_job_file(arguments, rest)
    if arguments.processes != 1:
        raise SetupError("--processes is for job files (NAME.json); this job runs in one process.")
    # The demo's jobs draw its data: one to learn from it, the other to compare with it.
    draws = arguments.job.startswith("demo-")
    here = environment.prepare(arguments.comfyui, extras=environment.DATA_PACKAGES if draws else ())
    return run_module(here, "attune.training", [arguments.job, *rest])


def train_job_file(arguments: argparse.Namespace, rest: list[str]) -> int:
    """The graph of a job file, played by the host without its page, in as many processes as asked for."""
    if arguments.processes < 1:
        raise SetupError(f"--processes must be at least 1, not {arguments.processes}.")
    job = Path(arguments.job).resolve()
    here = environment.prepare(arguments.comfyui)
    base = OWN_BASE if here.own else None
    environment.link_pack((base or here.comfyui) / "custom_nodes")
    cpu = "--cpu" in rest or not has_gpu(here)
    words = [str(job), "--comfyui", str(here.comfyui), *(["--base", str(base)] if base else []), *rest]
    words += ["--cpu"] if cpu and "--cpu" not in rest else []
    launcher = []
    if arguments.processes > 1:
        launcher = [MAPPED, "attune.training.launch", "--num_processes", str(arguments.processes)]
        # Its option --cpu would start a single process; what the processes compute on, they are told themselves.
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--multi_gpu"]
        launcher += ["--main_process_port", str(free_port())]  # two jobs on one machine must not meet
    command = [here.python, *launcher, MAPPED, "attune.nodes.training.headless", *words]
    return wait_for(subprocess.Popen([str(word) for word in command], env=here.variables()))


def wait_for(process: subprocess.Popen) -> int:
    """Its exit code, after it has saved its work where this command is told to end; told twice, it ends at once.

    Ctrl-C reaches it by itself. To end this command alone (SIGTERM) would leave it at work with nobody to stop it.

    Raises:
        SystemExit: this command was told to end, and the process has.
    """
    ending: SystemExit | None = None
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            continue
        except SystemExit as told:
            ending = told
            # On Windows nothing asks a process to end: this would kill it, with what it has not saved.
            if os.name == "posix":
                process.terminate()
    if ending is not None:
        raise ending
    return code


def run_module(here: Environment, module: str, words: Sequence[str]) -> int:
    command = [here.python, MAPPED, module, *words]
    return subprocess.run(command, env=here.variables(), check=False).returncode


COMMANDS = {"demo": demo, "test": test, "serve": serve, "evidence": evidence, "train": train}

if __name__ == "__main__":
    sys.exit(main())
