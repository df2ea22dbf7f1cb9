"""`accelerate launch`, ending without a traceback of its own where it was told to end, or where a process says why.

    python scripts/module.py attune.training.launch --num_processes 2 … scripts/module.py attune.MODULE …

Its options are accelerate's.
"""

from __future__ import annotations

import os
import sys

# What its processes are given to save their work when it is told to end; the launcher's own 30 s cut large states off.
SECONDS_TO_SAVE = 600


def main() -> int:
    """Launch what the command line says; 128 + the signal that ended it, or what the first process to fail gave."""
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_SAVE))
    from accelerate.commands.launch import main as launch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        launch()
    except SignalException as ended:
        return 128 + ended.sigval
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        if code < 0:  # by a signal from outside, of which it could say nothing itself
            raise
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
