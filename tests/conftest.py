"""What every test shares: no network, seeded chance, few threads, and the only place that skips."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from nerfacc_on_cpu import COMPILER
from serving import Served, served
from torch import Generator

torch.set_num_threads(min(2, os.cpu_count() or 1))

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CUDA = torch.cuda.is_available()


def finds_nerfacc_kernels() -> bool:
    """Whether nerfacc's CUDA kernels are there or can be compiled."""
    from dreamtime.renderers import has_nerfacc_kernels

    return has_nerfacc_kernels()


def finds_validator() -> bool:
    """Whether Node is there and knows the Khronos validator, which is on npm as `gltf-validator`."""
    node = shutil.which("node")
    return bool(node) and subprocess.run([node, "-e", "require.resolve('gltf-validator')"], capture_output=True).returncode == 0


REQUIREMENTS: dict[str, tuple[bool, str]] = {
    "cuda": (CUDA, "there is no CUDA device"),
    "no_cuda": (not CUDA, "there is a CUDA device"),
    "nerfacc_cuda": (CUDA and finds_nerfacc_kernels(), "there is no CUDA device or no compiled nerfacc"),
    "compiler": (bool(COMPILER), "there is no C++ compiler"),
    "tinycudann": (CUDA and find_spec("tinycudann") is not None, "there is no CUDA device or no tinycudann"),
    "posix": (os.name == "posix", "asks whether a process is there, as only POSIX can tell"),
    "linux": (Path("/proc/self/status").exists(), "asks how much memory a process has held, as Linux tells it"),
    "gltf_validator": (finds_validator(), "Node does not find the package gltf-validator"),
    "browser": (CHROMIUM is not None, "there is no Chromium on the path"),
}
"""Marker to whether this machine has what it needs, and the reason to give when not."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, (present, reason) in REQUIREMENTS.items():
            if not present and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def is_local(host: object) -> bool:
    return host in (None, "", "localhost", "::1", "0.0.0.0") or str(host).startswith("127.")


@pytest.fixture(autouse=True, scope="session")
def offline() -> Iterator[None]:
    """Nothing but this machine answers: whoever needs the network at run time fails here as it would on a train."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def local_connect(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and not is_local(address[0]):
            raise ConnectionRefusedError(f"The tests are offline, but {address[0]} was asked for.")
        connect(self, address)

    def local_resolve(host: str | None, *args: object, **kwargs: object) -> list[tuple]:
        if not is_local(host):
            raise socket.gaierror(f"The tests are offline, but {host} was asked for.")
        return resolve(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local_connect)
        patch.setattr(socket, "getaddrinfo", local_resolve)
        yield


@pytest.fixture
def generator() -> Callable[[int], Generator]:
    """Makes a fresh generator from a seed: `generator(7)`."""
    return lambda seed=0: Generator().manual_seed(seed)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """An empty folder for one run."""
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's executable, for tests marked `browser`."""
    assert CHROMIUM is not None
    return CHROMIUM


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The whole app in a process of its own, for the tests of its page and its API."""
    with served(tmp_path_factory.mktemp("app")) as server:
        yield server
