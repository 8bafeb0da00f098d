"""Tables of measured runs that grow row by row: a run that is there is not repeated, and an interruption loses none."""

import csv
import hashlib
import multiprocessing
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from dreamtime.evaluation.grid import become_worker

Row = dict[str, str]


def measured_on() -> str:
    """The date and the class of machine, for the head of a table."""
    return (
        f"{datetime.now(timezone.utc).date()}, {platform.machine()}, {os.cpu_count()} CPU cores, no GPU,"
        f" Python {platform.python_version()}, torch {torch.__version__}."
    )


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
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(rows)
    return rows
