"""View-dependent text: which words say where the camera stands (DreamFusion, section 3.2; Perp-Neg)."""

import math
import unicodedata
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from dreamtime.cameras import angles_from_position
from dreamtime.types import Cameras, Condition, Tell, Text, ViewBlend

Embed = Callable[[list[str]], Float[Tensor, "P L D"]]
"""Prompts to embeddings; it is asked once, so that the text encoder behind it may be released."""

View = Literal["front", "side", "back", "overhead"]
VIEWS: tuple[View, ...] = get_args(View)

TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # Unicode's embeddings, overrides and isolates
MAX_PROMPT_CHARACTERS = 400

FLAWS = "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
"""What no picture should be: NFSD's negative prompt."""

FLAWS_OF_SDS = "oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
"""What pictures by score distillation tend to be: the source of SDS-Bridge."""


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


def check_characters(what: str, text: str) -> None:
    """Raise ValueError on characters that write nothing: controls, halves of one, and those that turn the line around."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in TURNING:
            raise ValueError(f"The {what} holds a character that writes nothing: U+{ord(character):04X}.")


def checked_prompt(prompt: object) -> str:
    """The prompt without surrounding blanks; raises ValueError on what is no text, empty or too long."""
    if not isinstance(prompt, str):
        raise ValueError(f"The prompt must be text, got {'nothing' if prompt is None else type(prompt).__name__}.")
    text = " ".join(prompt.split())
    check_characters("prompt", text)
    if all(unicodedata.category(character) == "Cf" for character in text):  # of no width
        raise ValueError('The prompt is empty: describe one object, for example "a red cube".')
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"The prompt may have up to {MAX_PROMPT_CHARACTERS} characters, got {len(text)}.")
    return text


def words_alone(embedded: Float[Tensor, "B L D"], cameras: Cameras) -> Float[Tensor, "B L D"]:
    """Nothing is told of a camera but what the words say."""
    return embedded


def plain_text(embed: Embed, words: str, tell: Tell = words_alone) -> Text:
    """The same words from everywhere."""
    embedded = embed([words])
    return lambda cameras: tell(embedded.expand(len(cameras), -1, -1), cameras)


def view_text(embed: Embed, words: Callable[[View], str], tell: Tell = words_alone) -> Text:
    """The words of each camera's view."""
    embedded = dict(zip(VIEWS, embed([words(view) for view in VIEWS]), strict=True))
    return lambda cameras: tell(torch.stack([embedded[view] for view in views_of(cameras)]), cameras)


def view_condition(embed: Embed, prompt: str, negative_prompt: str = "", tell: Tell = words_alone) -> Condition:
    """The negative prompt from everywhere, and the prompt with the words of each camera's view."""
    negative = plain_text(embed, negative_prompt, tell)
    positive = view_text(embed, lambda view: with_view(prompt, view), tell)
    return lambda cameras: (negative(cameras), positive(cameras))


def flawed_text(embed: Embed, prompt: str, tell: Tell = words_alone, flaws: str = FLAWS_OF_SDS) -> Text:
    """The prompt with the words of each camera's view and those for what went wrong."""
    return view_text(embed, lambda view: f"{with_view(prompt, view)}, {flaws}", tell)


def decay(a: float, b: float, c: float, r: float) -> float:
    """a exp(-b r) + c."""
    return a * math.exp(-b * r) + c


def blend_of(elevation: float, azimuth: float) -> tuple[dict[View, float], tuple[float, float]]:
    """The shares of the views in a camera's text, and the weights with which it is not the front and not the side.

    The shares change linearly from front to side and from side to back; the weights, in threestudio's constants for
    Perp-Neg, vanish at their view and hold the front, which priors prefer, off all the way round. Overhead is left alone.
    """
    if view_of(elevation, azimuth) == "overhead":
        return {"overhead": 1.0}, (0.0, 0.0)
    turn = abs(math.remainder(azimuth, 2 * math.pi)) / (math.pi / 2)  # 0 in front, 1 at the side, 2 behind
    if turn < 1:
        return {"front": 1 - turn, "side": turn}, (-decay(4.0, 0.5, -2.426, 1 - turn), -decay(4.0, 0.5, -2.426, turn))
    return {"side": 2 - turn, "back": turn - 1}, (-decay(1.0, 0.5, 0.967, 2 - turn), -decay(1.0, 0.5, -0.606, 2 - turn))


def blended_text(
    embed: Embed, prompt: str, negative_prompt: str = "", tell: Tell = words_alone
) -> Callable[[Cameras], ViewBlend]:
    """What `distillation.perp_neg` asks: embeddings between those of two views, and the front and the side to avoid."""
    negative = plain_text(embed, negative_prompt, tell)
    views = embed([with_view(prompt, view) for view in VIEWS])
    avoided = views[[VIEWS.index("front"), VIEWS.index("side")]]  # [2, L, D]

    def blend(cameras: Cameras) -> ViewBlend:
        elevation, azimuth, _ = angles_from_position(cameras.positions)
        blends = [blend_of(e, a) for e, a in zip(elevation.tolist(), azimuth.tolist(), strict=True)]
        shares = torch.tensor([[share.get(view, 0.0) for view in VIEWS] for share, _ in blends]).to(views)
        weights = torch.tensor([weights for _, weights in blends]).to(views)
        return ViewBlend(
            negative(cameras),
            tell(torch.einsum("bv,vld->bld", shares, views), cameras),
            torch.stack([tell(view.expand(len(cameras), -1, -1), cameras) for view in avoided], dim=1),
            weights,
        )

    return blend
