"""Run a module of the pack without the host: `python scripts/module.py attune.training demo-model`.

The repository folder *is* the package `attune`, whatever it is called on disk. It must never be on `sys.path`, because
its folder `nodes` would hide the host's module of that name; so the name is mapped by hand. Also works under
`accelerate launch scripts/module.py attune.training …`.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def map_package(root: Path = ROOT) -> ModuleType:
    """Make `import attune` find the repository folder; returns the package. Takes the folder off `sys.path`."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != root]
    if "attune" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "attune", root / "__init__.py", submodule_search_locations=[str(root)]
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{root / '__init__.py'} cannot be loaded; is this the whole repository?")
        package = importlib.util.module_from_spec(spec)
        sys.modules["attune"] = package
        spec.loader.exec_module(package)
    return sys.modules["attune"]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python scripts/module.py attune.MODULE [arguments]")
    # The script's own folder, which Python put first, would let `import host` find the wrong file.
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT / "scripts"]
    map_package()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
