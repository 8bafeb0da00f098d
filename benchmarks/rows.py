"""Tables of measured runs that grow row by row: a run that is there is not repeated, and an interruption loses none."""

import csv
import hashlib
import multiprocessing
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from dreamtime.checkpoints import write_atomically
from dreamtime.evaluation.grid import become_worker

Row = dict[str, str]
HERE = Path(__file__).resolve().parent


def measured_on() -> str:
    """The date, the class of machine, and on a line of its own the command, for the head of a table."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    machine = (
        f"{datetime.now(timezone.utc).date()}, {platform.machine()}, {os.cpu_count()} CPU cores, {gpu},"
        f" Python {platform.python_version()}, torch {torch.__version__}."
    )
    command = made_by(sys.argv)
    return f"{machine}\nMade by `{command}`." if command else machine


def made_by(words: Sequence[str]) -> str:
    """The command of a benchmark, from how its process was started; empty for any other process."""
    script = Path(words[0])
    if script.suffix != ".py" or script.resolve().parent != HERE:
        return ""
    return shlex.join(["python", "-m", f"{HERE.name}.{script.stem}", *map(as_the_project_sees_it, words[1:])])


def as_the_project_sees_it(word: str) -> str:
    """A word of a command, as it is unless it is a path: within the project from its root on, elsewhere nothing but PATH."""
    option, equals, value = word.rpartition("=")
    path = Path(value)
    if not path.is_absolute() and ".." not in path.parts:
        return word
    path = Path(os.path.abspath(path))
    inside = path.is_relative_to(HERE.parent)
    return option + equals + (path.relative_to(HERE.parent).as_posix() if inside else "PATH")


def digest_of(model: Path) -> str:
    """Eight digits that change with a model's weights: a row belongs to the model that it was measured with."""
    whole = hashlib.sha256()
    for file in sorted(model.rglob("*.safetensors")):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:8]


def rows_of(path: Path) -> list[Row]:
    """The rows of a table; none where there is no such file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, fields: Sequence[str], rows: Sequence[Row]) -> None:
    """The whole table, in the place of the one that is there; cells that a row does not have are empty."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def of_model(rows: Sequence[Row], model: str) -> tuple[list[Row], str]:
    """The rows that were measured with that model, and a line that names it and says how many others are left out."""
    measured = [row for row in rows if row.get("model") == model]
    left_out = len(rows) - len(measured)
    return measured, f"Model {model}." + (f" Rows of other models that are left out: {left_out}." if left_out else "")


def completed(
    path: Path, fields: Sequence[str], jobs: Iterable[tuple[Row, Callable[..., Row], tuple[Any, ...]]], workers: int
) -> list[Row]:
    """All rows after the jobs that had none yet; a job is what its row begins with, and a function that measures the rest.

    So many at a time, each in a process of its own with one thread.
    """
    rows = rows_of(path)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=become_worker) as pool:
        new = [job for job in jobs if not any(job[0].items() <= row.items() for row in rows)]
        running = {pool.submit(measure, *arguments): key for key, measure, arguments in new}
        for finished in as_completed(running):
            rows.append({**running[finished], **finished.result()})
            print(rows[-1], flush=True)
            write_rows(path, fields, rows)
    return rows
