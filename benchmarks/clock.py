"""Where a step's milliseconds go: a clock per named part, right on a GPU, too, which works on while Python goes on."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch


def now() -> float:
    """Milliseconds, when the device has done all it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return 1000 * time.perf_counter()


class Clock:
    """Milliseconds per named part, each from an idle device to an idle device."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = now()
            result = function(*arguments)
            self.spent[name] += now() - started
            return result

        return call
