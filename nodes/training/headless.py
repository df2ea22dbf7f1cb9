"""Carries out a job file without a page, alone or as one of several processes.

    python scripts/module.py attune.nodes.training.headless JOB.json --comfyui PATH [--cpu] [--set NODE.WIDGET=VALUE]

`run.py train JOB.json` does this, under `accelerate launch` where several processes are asked for. The host plays the
graph; only the training node and what it depends on run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ...training.interfaces import AttuneError
from ...training.share import launched_share
from .job_file import read_job


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="run.py train", description="Carries out a job file of the node Train LoRA.")
    found.add_argument("job", type=Path, help="job.json of a run's folder")
    found.add_argument("--comfyui", type=Path, required=True, help="folder of ComfyUI")
    found.add_argument("--base", type=Path, help="folder of models, input, user, … (default: ComfyUI's own)")
    found.add_argument("--cpu", action="store_true", help="do not use a GPU")
    found.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NODE.WIDGET=VALUE",
        help="set a widget anew, e.g. AttuneTrainLora.steps=200; may be given several times",
    )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a job file; the exit code is 0 where it was done, 130 where it was stopped."""
    options = parser().parse_args(arguments)
    try:
        job = read_job(options.job, dict(_setting(text) for text in options.set))
        # Before the host looks for a GPU: the launcher's choice for this process becomes the present one.
        share = launched_share(cpu=options.cpu)
        from ..host.library import Host

        host = Host(options.comfyui, options.base, cpu=options.cpu, say=_say if share.main else lambda line: None)
        return host.run(job["graph"], job["node"])
    except AttuneError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _say(line: str) -> None:
    print(line, flush=True)


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise AttuneError(f"--set {text}: write it as NODE.WIDGET=VALUE, for example AttuneTrainLora.steps=200.")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
