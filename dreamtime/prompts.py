"""View-dependent text: which words say where the camera stands (DreamFusion, section 3.2)."""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dreamtime.cameras import angles_from_position
from dreamtime.types import Cameras, Condition

View = Literal["front", "side", "back", "overhead"]
VIEWS: tuple[View, ...] = get_args(View)

MAX_PROMPT_CHARACTERS = 400


def view_of(elevation: float, azimuth: float) -> View:
    """The view at these angles in radians: overhead above 60 degrees, else by azimuth in quarters centred on the axes."""
    if elevation > math.radians(60):
        return "overhead"
    turn = abs(math.remainder(azimuth, 2 * math.pi))
    if turn <= math.pi / 4:
        return "front"
    return "back" if turn >= 3 * math.pi / 4 else "side"


def views_of(cameras: Cameras) -> list[View]:
    """The view of each camera around the origin."""
    elevation, azimuth, _ = angles_from_position(cameras.positions)
    return [view_of(e, a) for e, a in zip(elevation.tolist(), azimuth.tolist(), strict=True)]


def with_view(prompt: str, view: View) -> str:
    """The prompt as the prior is asked it: "a red cube, front view"."""
    return f"{prompt}, {view} view"


def checked_prompt(prompt: object) -> str:
    """The prompt without surrounding blanks; raises ValueError on what is no text, empty or too long."""
    if not isinstance(prompt, str):
        raise ValueError(f"The prompt must be text, got {type(prompt).__name__}.")
    text = " ".join(prompt.split())
    if not text:
        raise ValueError('The prompt is empty: describe one object, for example "a red cube".')
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"The prompt may have up to {MAX_PROMPT_CHARACTERS} characters, got {len(text)}.")
    return text


def view_condition(embed: Callable[[list[str]], Float[Tensor, "P L D"]], prompt: str, negative_prompt: str = "") -> Condition:
    """The prior's conditions by view, embedded once: afterwards the text encoder behind `embed` may be released."""
    embedded = embed([negative_prompt, *(with_view(prompt, view) for view in VIEWS)])
    negative, positive = embedded[0], dict(zip(VIEWS, embedded[1:], strict=True))

    def condition(cameras: Cameras) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"]]:
        return negative.expand(len(cameras), -1, -1), torch.stack([positive[view] for view in views_of(cameras)])

    return condition
