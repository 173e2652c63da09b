"""JupyterLab on a folder, as a learner's browser finds it."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
WAIT = 180  # seconds, at most, for anything: a busy machine is slow, not wrong


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """JupyterLab serves `folder`; yields its address. options: of its command line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *(f"--port={port}", "--ip=127.0.0.1", "--IdentityProvider.token="),
            f"--ServerApp.root_dir={folder}",
            *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_DATA_DIR": str(folder / "data"),  # what is trusted, too
            "COURSE_ARTIFACTS": str(folder),
        },
    )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + WAIT
    try:
        while True:
            assert process.poll() is None, "JupyterLab has ended"
            assert time.monotonic() < end, f"JupyterLab does not answer within {WAIT} s"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/api", timeout=WAIT).read()
                break
            time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()
