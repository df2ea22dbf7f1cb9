"""Training without a graph: `python run.py train JOB`, or `python scripts/module.py attune.training JOB` by hand."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from .interfaces import AttuneError

# Job → the module whose `main(argv)` runs it, and what it does.
JOBS = {
    "demo-model": (".demo.recipe", "build the demo data, train the demo checkpoint and both demo rewards"),
    "demo-quality": (".demo.quality", "measure the demo checkpoint, and draw the model card's contact sheets"),
    "demo-user": (
        ".demo.train_user",
        "draw pictures, simulate people who choose, train the demo's set encoder and user adapter",
    ),
    "demo-one-step": (".demo.train_one_step", "make the demo's one-step LoRA by Diff-Instruct*"),
    "simulate-choices": (".preference.simulate", "let simulated people choose between pictures of yours"),
    "reward-model": (".preference_job", "train a reward model (QLoRA) on preference pairs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job; its own options follow its name.

    Raises:
        SystemExit: the job's name is unknown (the message lists those that exist).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    listing = "\n".join(f"  {name:16} {what}" for name, (_, what) in JOBS.items())
    parser = argparse.ArgumentParser(
        prog="run.py train",
        description="Training without a graph.",
        epilog=f"jobs:\n{listing}\n\nOptions of a job: run.py train JOB --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", help="the name of a job")
    arguments = parser.parse_args(words[:1])
    if arguments.job not in JOBS:
        parser.error(f"there is no job {arguments.job!r}; there are: {', '.join(JOBS)}")
    module, _ = JOBS[arguments.job]
    try:
        return int(importlib.import_module(module, __package__).main(words[1:]) or 0)
    except AttuneError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
