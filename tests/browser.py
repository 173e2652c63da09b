"""JupyterLab in headless Chromium, for the tests that drive it. No test itself.

Where no Chromium or Chrome is installed, modules that import this are skipped, and say so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
if BROWSER is None:
    pytest.skip("no Chromium or Chrome on this machine", allow_module_level=True)
WAIT = 180  # seconds, at most, for anything: a busy machine is slow, not wrong


def eventually(holds: Callable[[], Any], seconds: float = WAIT) -> Any:
    """What `holds` returns as soon as that is true, or, when the time is up, whatever it is."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := holds():
            return found
        time.sleep(0.1)
    return holds()


@contextlib.contextmanager
def serving(
    command: Sequence[str], settings: Path, env: Mapping[str, str], cwd: Path | None = None
) -> Iterator[str]:
    """The address of the JupyterLab that `command`, with arguments for a server added, starts.

    settings: a folder for what Jupyter and IPython keep, which is not this user's own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *command,
            *("--no-browser", "--allow-root", "--ServerApp.port_retries=0"),
            *(f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token="),
        ],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **env,
            "JUPYTER_CONFIG_DIR": str(settings / "config"),
            "JUPYTER_DATA_DIR": str(settings / "data"),
            "IPYTHONDIR": str(settings / "ipython"),
        },
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bytes | None:
        assert process.poll() is None, "JupyterLab has ended"
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{url}/api", timeout=WAIT).read()
        return None

    try:
        assert eventually(answers), f"JupyterLab does not answer within {WAIT} s"
        yield url
    finally:
        process.terminate()  # its kernels end with it
        process.wait()


@contextlib.contextmanager
def launched() -> Iterator[sync_api.Browser]:
    """A browser that remembers nothing."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def browsing(**options: Any) -> Iterator[sync_api.Page]:
    """A page of a browser that has just been opened."""
    with launched() as browser:
        context = browser.new_context(viewport={"width": 1300, "height": 1600}, **options)
        page = context.new_page()
        page.set_default_timeout(1000 * WAIT)
        yield page


def screenshot(page: sync_api.Page, name: str) -> None:
    """Keep a picture of the page where COURSE_SCREENSHOTS names a folder."""
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


class Notebook:
    """A notebook that is open in JupyterLab, as the person before it uses and sees it."""

    def __init__(self, page: sync_api.Page, cells: int) -> None:
        """cells: how many there are; those out of sight are drawn later."""
        self.page = page
        self.cells = page.locator(".jp-Notebook .jp-Cell")
        page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
        assert eventually(lambda: self.cells.count() == cells), (self.cells.count(), cells)
        assert not page.locator(".jp-Dialog").all_inner_texts()

    @property
    def active(self) -> sync_api.Locator:
        return self.page.locator(".jp-Notebook .jp-Cell.jp-mod-active")

    def with_code(self, text: str) -> sync_api.Locator:
        """Code cells in whose editor a line has that text."""
        line = self.page.locator(".cm-line", has_text=text)
        return self.page.locator(".jp-Notebook .jp-CodeCell", has=line)

    @property
    def waiting(self) -> sync_api.Locator:
        """The prompts of cells that run, or will."""
        return self.page.locator(".jp-InputPrompt", has_text="[*]")

    def code(self, cell: sync_api.Locator) -> str:
        """What the editor of a cell that is not folded has."""
        return "\n".join(cell.locator(".cm-line").all_text_contents())

    def outputs(self) -> list[str]:
        """What stands below each cell, in their order; an empty text where nothing does.

        JupyterLab draws what is far out of sight later, or not at all: it is there all the same.
        """
        text = "cells => cells.map(cell => cell.querySelector('.jp-OutputArea')?.textContent ?? '')"
        return self.cells.evaluate_all(text)

    def errors(self) -> list[str]:
        """The last line of each error."""
        found = self.page.locator(".jp-OutputArea-output", has_text="Traceback (most recent call")
        return [text.strip().splitlines()[-1] for text in found.all_text_contents()]

    def select(self, cell: sync_api.Locator) -> None:
        """Make a cell the active one, by a click beside it."""
        cell.locator(".jp-InputPrompt").first.click()

    def finish(self, seconds: float = WAIT) -> None:
        """Wait until the kernel has nothing to do."""
        sync_api.expect(self.waiting).to_have_count(0, timeout=1000 * seconds)
        self.page.wait_for_selector("text=Python 3 (ipykernel) | Idle")

    def run(self) -> str:
        """Run the active cell, and go on to the next; what is then seen below it."""
        ran = self.place()
        self.page.keyboard.press("Shift+Enter")
        assert eventually(lambda: self.place() != ran)
        self.finish()
        return self.outputs()[ran]

    def run_until(self, there: Callable[[], Any]) -> None:
        """Run cell after cell until something is there."""
        for _ in range(self.cells.count()):
            if there():
                return
            self.run()
        raise AssertionError("the notebook is at its end")

    def place(self) -> int:
        """The number of the active cell, from 0."""
        active = "cells => cells.findIndex(cell => cell.classList.contains('jp-mod-active'))"
        return self.cells.evaluate_all(active)

    def write(self, text: str) -> None:
        """Paste `text` in place of what the active code cell has, and leave its editor."""
        self.active.locator(".cm-content").click()
        self.page.evaluate("text => navigator.clipboard.writeText(text)", text)
        for key in ("Control+A", "Control+V", "Escape"):
            self.page.keyboard.press(key)

    def insert_below(self, text: str) -> None:
        """A new code cell below the active one, which it then is."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("b")
        self.write(text)

    def restart_and_run_all(self, seconds: float = WAIT) -> None:
        self.page.get_by_role("menuitem", name="Kernel", exact=True).click()
        self.page.get_by_role("menuitem", name="Restart Kernel and Run All Cells").click()
        self.page.locator(".jp-Dialog").get_by_role("button", name="Confirm").click()
        self.waiting.first.wait_for()
        self.finish(seconds)

    def save(self) -> None:
        """Save the tab in front, and see that it has nothing unsaved."""
        self.page.keyboard.press("Control+S")
        unsaved = self.page.locator(".lm-TabBar-tab.jp-mod-current.jp-mod-dirty")
        sync_api.expect(unsaved).to_have_count(0, timeout=1000 * WAIT)
