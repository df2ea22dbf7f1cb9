"""Runs every function called `check_…` of the modules `*_checks.py` in the real host: `driver.py COMFYUI BASE REPORT`.

REPORT becomes a JSON object: name → "" or the traceback of its failure. Further arguments choose checks by name.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from pathlib import Path

import world


def main() -> None:
    comfyui, base, report = (Path(argument) for argument in sys.argv[1:4])
    chosen = sys.argv[4:]
    world.enter(comfyui, base)
    import torch

    # Two threads that share busy cores wait for each other most of the time.
    torch.set_num_threads(1)
    results: dict[str, str] = {}
    for file in sorted(Path(__file__).parent.glob("*_checks.py")):
        module = importlib.import_module(file.stem)
        for name, check in list(vars(module).items()):
            if not name.startswith("check_") or (chosen and name not in chosen):
                continue
            started = time.monotonic()
            try:
                check()
            except Exception:
                results[name] = traceback.format_exc()
            else:
                results[name] = ""
            print(f"{name}: {time.monotonic() - started:.1f} s {results[name][-2000:]}", flush=True)
    report.write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
