"""A Chromium for the browser tests: the system's, else from apt where that is allowed, else Playwright's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .environment import LOGS, OFFLINE_ADVICE, Environment
from .terminal import SetupError, run_quietly, say

SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Without a GPU, without a sandbox (containers), and without Chromium's own calls to the network.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_PLAYWRIGHT_PATH = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


def find(environment: Environment) -> Path | None:
    """The Chromium that is there, or None."""
    chosen = os.environ.get("ATTUNE_CHROMIUM")
    if chosen:
        if not Path(chosen).is_file():
            raise SetupError(f"ATTUNE_CHROMIUM is {chosen}, but there is no such file. Unset it or correct it.")
        return Path(chosen)
    for name in SYSTEM_NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    asked = subprocess.run([environment.python, "-c", _PLAYWRIGHT_PATH], capture_output=True, text=True, check=False)
    path = Path(asked.stdout.strip() or ".")
    return path if asked.returncode == 0 and path.is_file() else None


def prepare(environment: Environment) -> Path:
    """Find or install a Chromium. Needs the package playwright in the environment.

    Raises:
        SetupError: none could be had; the message says what was tried.
    """
    browser = find(environment)
    if browser is None and sys.platform == "linux" and os.geteuid() == 0 and shutil.which("apt-get"):
        try:
            apt = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            log = LOGS / "apt.log"
            run_quietly("Updating apt's lists", ["apt-get", "update"], log=log, advice="", variables=apt)
            command = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
            run_quietly("Installing Chromium by apt", command, log=log, advice="", variables=apt)
        except SetupError as error:
            say(f"{error}\nTrying Playwright's own Chromium instead.")
        browser = find(environment)
    if browser is None:
        command = [environment.python, "-m", "playwright", "install", "chromium"]
        advice = f"Install Chromium or Chrome by hand, or set ATTUNE_CHROMIUM to one. {OFFLINE_ADVICE}"
        log = LOGS / "playwright.log"
        what = "Downloading Playwright's Chromium"
        run_quietly(what, command, log=log, advice=advice, variables=environment.variables())
        browser = find(environment)
    if browser is None:
        raise SetupError("No Chromium was found after installing one. Set ATTUNE_CHROMIUM to a Chromium or Chrome.")
    return browser
