"""A real server for the tests of the page and its API: `python app.py` in a process of its own."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stand_in import write_stand_in

ROOT = Path(__file__).parent.parent
PATIENCE = 120  # seconds until the first page, on a machine that has other things to do


@dataclass(frozen=True)
class Served:
    """Where a server answers, and where it keeps its runs."""

    url: str
    runs: Path
    log: Path


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def served(folder: Path, as_shipped: bool = False) -> Iterator[Served]:
    """The app, started as a newcomer starts it, until the block ends.

    Unless it is to be as shipped, a small stand-in imagines the backs of things.
    """
    port, log, models = free_port(), folder / "server.log", folder / "models"
    models.mkdir()
    if not as_shipped:
        write_stand_in(models)
    chosen = {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "DREAMTIME_RUNS": str(folder / "runs"),
        "DREAMTIME_MODEL_DIR": str(models),
        "HF_HUB_OFFLINE": "1",
        **dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9"),  # where nobody is
        **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=os.environ | chosen, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        url = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + PATIENCE
        while not answers(url):
            assert process.poll() is None, f"The server ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"No page after {PATIENCE} s:\n{log.read_text()}"
            time.sleep(0.2)
        yield Served(url, folder / "runs", log)
    finally:
        process.terminate()
        process.wait(timeout=30)
