"""A real Chromium on the real server of the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from attune.scripts import browser as chromium
from attune.scripts.environment import Environment
from attune.tests.hosting import HostServer

ROOT = Path(__file__).resolve().parents[2]
VIEWPORT = {"width": 1600, "height": 1000}
READY_MILLISECONDS = 60_000


@pytest.fixture(scope="session")
def host(launch_host: Callable[..., HostServer]) -> HostServer:
    """A server of their own: pages show what ran before, and other tests run the same templates without a page."""
    return launch_host("--preview-method", "latent2rgb")


@pytest.fixture(scope="session")
def browser(python: str, comfyui: Path) -> Iterator[Browser]:
    """Headless Chromium; its absence is a failure, never a skip."""
    executable = chromium.find(Environment(Path(python), comfyui, own=True))
    if executable is None:
        pytest.fail("There is no Chromium. `python run.py test` installs one; or set ATTUNE_CHROMIUM to one.")
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=str(executable), args=list(chromium.FLAGS))
        yield instance
        instance.close()


@pytest.fixture(params=["classic nodes", "Nodes 2.0"])
def renderer(host: HostServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """Both of the host's ways to draw nodes. To be asked for before `page`, which opens with what is set."""
    host.post("/api/settings", {"Comfy.VueNodes.Enabled": request.param == "Nodes 2.0"})
    yield request.param
    host.post("/api/settings", {"Comfy.VueNodes.Enabled": False})


@pytest.fixture
def page_errors() -> list[str]:
    """Uncaught JavaScript errors of the page, for the test to judge."""
    return []


@pytest.fixture
def page(host: HostServer, browser: Browser, page_errors: list[str], request: pytest.FixtureRequest) -> Iterator[Page]:
    """The host's page, ready to use, in a fresh profile, with the first-visit tutorial behind it.

    A screenshot is kept in `.host/screenshots/` under the test's name, at its end, passed or failed.
    """
    host.post("/api/settings", {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False})
    context = browser.new_context(viewport=VIEWPORT, locale="en-US")
    tab = context.new_page()
    tab.on("pageerror", lambda error: page_errors.append(str(error)))
    tab.goto(host.url, timeout=READY_MILLISECONDS)
    tab.wait_for_function("window.app?.graph && window.app?.extensionManager", timeout=READY_MILLISECONDS)
    yield tab
    pictures = ROOT / ".host" / "screenshots"
    pictures.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=pictures / f"{request.node.name}.png")
    context.close()
