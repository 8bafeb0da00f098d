"""State to disk and back: one safetensors file per checkpoint, written atomically, holding no pickle.

A checkpoint is a set of named modules and optimisers, the generator that drives the chance, and a few words of text.
"""

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Generator, Tensor, nn


class CorruptCheckpoint(ValueError):
    """A checkpoint file that cannot be read, or that belongs to something else."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there: readers see the old file or the new, never half."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        state.setdefault(int(index), {})[quantity] = value.reshape(()) if quantity == "step" else value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


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
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=dict(text)))


def checkpoint_text(path: Path) -> dict[str, str]:
    """The words in a checkpoint, without its tensors; raises `CorruptCheckpoint`."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
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
    try:
        with safe_open(path, framework="pt") as file:
            text = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (SafetensorError, OSError) as error:
        raise CorruptCheckpoint(f"The checkpoint {path.name} cannot be read: {error}.") from error

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
