"""State to disk and back: one safetensors file per checkpoint, written atomically, holding no pickle.

A checkpoint is a set of named modules and optimisers, the generator that drives the chance, and a few words of text.
"""

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Generator, Tensor, nn

DIGEST = "digest"  # the word that holds it


class CorruptCheckpoint(ValueError):
    """A checkpoint file that cannot be read, or that belongs to something else."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there: readers see the old file or the new, never half."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write(temporary)
        replace_patiently(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace_patiently(source: Path, target: Path) -> None:
    """Move a file over another; Windows refuses that while somebody reads the other one, so wait for them, up to a second."""
    for _ in range(20):
        try:
            os.replace(source, target)
        except PermissionError:
            time.sleep(0.05)
        else:
            return
    os.replace(source, target)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's running state as flat names, `<parameter index>.<quantity>`; its hyper-parameters are code, not state."""
    return {
        f"{index}.{quantity}": value
        for index, state in optimizer.state_dict()["state"].items()
        for quantity, value in state.items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, quantity = name.split(".", 1)
        # Copied, since what is read may be the file itself, which some systems let nobody replace while it is in use.
        state.setdefault(int(index), {})[quantity] = (value.reshape(()) if quantity == "step" else value).clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def digest(text: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all words, names and bytes: a disk that returns another byte than it was given is found out."""
    found = hashlib.sha256()
    for key, words in sorted(text.items()):
        found.update(f"{key}={words}\0".encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generator: Generator,
    text: Mapping[str, str],
) -> None:
    """Everything needed to go on exactly as if nothing had happened, in one file."""
    tensors = {"generator": generator.get_state()}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        tensors |= {f"{name}/{key}": value for key, value in optimizer_tensors(optimizer).items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    words = {**text, DIGEST: digest(text, tensors)}
    # Written by Python, whose errors say what the file system refused.
    write_atomically(path, lambda temporary: temporary.write_bytes(save(tensors, metadata=words)))


def checkpoint_text(path: Path) -> dict[str, str]:
    """The words in a checkpoint, without a look at its tensors; raises `CorruptCheckpoint`."""
    with opened(path) as (_, text):
        return {key: words for key, words in text.items() if key != DIGEST}


def read_checkpoint(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The words and tensors of a checkpoint, as they were written; raises `CorruptCheckpoint`."""
    with opened(path) as (file, text):
        tensors = {key: file.get_tensor(key) for key in file.keys()}
    if text.pop(DIGEST) != digest(text, tensors):
        raise CorruptCheckpoint(f"The checkpoint {path.name} is damaged: it holds other bytes than were written.")
    return text, tensors


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """A checkpoint's file and words; raises `CorruptCheckpoint` for what is none."""
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            if DIGEST not in text:
                raise CorruptCheckpoint(f"The file {path.name} is no checkpoint of this program.")
            yield file, text
    except (SafetensorError, OSError) as error:
        raise CorruptCheckpoint(f"The checkpoint {path.name} cannot be read: {error}.") from error


def load_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generator: Generator,
) -> dict[str, str]:
    """Restore what `save_checkpoint` wrote into freshly built parts and return its text.

    Raises `CorruptCheckpoint` when the file is damaged or its tensors are of another run's shape.
    """
    text, tensors = read_checkpoint(path)

    def under(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}

    try:
        for name, module in modules.items():
            module.load_state_dict(under(name))
        for name, optimizer in optimizers.items():
            load_optimizer_tensors(optimizer, under(name))
        generator.set_state(tensors["generator"])
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise CorruptCheckpoint(f"The checkpoint {path.name} does not fit these settings.") from error
    return text
