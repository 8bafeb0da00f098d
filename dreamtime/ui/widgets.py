"""Which widget stands for which field of `Settings`, and the way from what people chose to settings.

Gradio enforces bounds and menus in the browser, and hardly any for callers of the API: `settings_of` checks everything.
"""

import math
import re
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product, starmap
from typing import Any, TypeVar

import gradio as gr
from gradio.component_meta import ComponentMeta

from dreamtime import objectives, presets
from dreamtime.methods import METHODS
from dreamtime.presets import RANGES, Settings, one_of, within
from dreamtime.prompts import MAX_PROMPT_CHARACTERS, check_characters, checked_prompt

PRESET_NAMES = tuple(presets.PRESETS["cpu"])
AUTOMATIC = "auto"
"""The prior that is chosen until somebody chooses another: the best within reach."""

PRIOR_NAMES = (AUTOMATIC, *presets.PRIORS)
Start = TypeVar("Start")
DRAWN_SEEDS = 2**31  # as many as the page draws from: short to read, and more than enough
EXACT = 2**53 - 1  # the largest whole number that a browser does not round


class WithoutStub(ComponentMeta):  # type: ignore[misc]  # Gradio's classes are untyped here
    """Gradio's metaclass writes a stub file beside the source of every component; this one leaves the source folder alone."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> "WithoutStub":
        return ABCMeta.__new__(cls, name, bases, attributes)


class SentText(gr.Textbox, metaclass=WithoutStub):  # type: ignore[misc]
    """A text box that hands on what a program sent, whatever it is; Gradio's own would make text of a number or a list."""

    is_template = True  # for the browser, it is a text box

    def preprocess(self, payload: Any) -> Any:
        return payload


def whole(what: str, value: Any) -> int:
    """The number as an integer; raises ValueError when it is none."""
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"The {what} must be a whole number, got {str(value)[:40]}.")
    return number


def timestep(what: str, value: Any) -> int:
    """A whole number, or one as typed: an empty number field would show 0, so optional ones are text fields."""
    return whole(what, int(value) if isinstance(value, str) and re.fullmatch(r"\s*\d{1,6}\s*", value) else value)


def real(what: str, value: Any) -> float:
    """The number as a float; raises ValueError when it is none or not finite."""
    number = value if not isinstance(value, bool) and isinstance(value, int | float) else math.nan
    if not abs(number) <= sys.float_info.max:  # a whole number may be larger than any float
        raise ValueError(f"The {what} must be a finite number, got {str(value)[:40]}.")
    return float(number)


def timestep_list(what: str, value: Any) -> tuple[int, ...]:
    """Comma-separated timesteps, as typed."""
    parts = str(value).split(",")
    if len(parts) > 1000 or not all(re.fullmatch(r"\s*\d{1,6}\s*", part) for part in parts):
        raise ValueError(f"The {what} must be up to 1000 whole numbers with commas between, such as 980, 500, 20.")
    return tuple(int(part) for part in parts)


def short_text(what: str, value: Any) -> str:
    """Text of at most a prompt's length."""
    if not isinstance(value, str) or len(value) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"The {what} must be text of up to {MAX_PROMPT_CHARACTERS} characters.")
    check_characters(what, text := " ".join(value.split()))
    return text


@dataclass(frozen=True)
class Knob:
    """One choice beyond prompt, preset, prior and seed: its words, its bounds, and how its value is read."""

    label: str
    info: str
    read: Callable[[str, Any], Any]
    low: int | float = -math.inf
    high: int | float = math.inf
    names: tuple[str, ...] = ()

    def checked(self, value: Any) -> Any:
        """The value as `Settings` wants it; raises ValueError."""
        what = self.label.lower()
        if self.names:
            return one_of(what, str(value), self.names)
        read = self.read(what, value)
        if not isinstance(read, str | tuple):
            within(what, read, self.low, self.high)
        return read

    @property
    def documentation(self) -> str:
        """What it is and what it may be, in one line for programs."""
        names = f": {', '.join(self.names)}" if self.names else ""
        bounds = f", {self.low} to {self.high}" if math.isfinite(self.high) else ""
        return f"{self.info}{names or bounds}."

    def widget(self, value: Any, **options: Any) -> gr.components.Component:
        """The component that stands for it on the page."""
        words = {"label": self.label, "info": self.info, **options}
        if self.names:
            return gr.Dropdown(list(self.names), value=value, **words)
        if self.read in (whole, real):
            bounds = {"minimum": self.low, "maximum": self.high, "step": 1 if self.read is whole else 0.01}
            return gr.Number(value, precision=0 if self.read is whole else None, **bounds, **words)
        placeholder = "automatic" if self.read is timestep else "980, 500, 20" if self.read is timestep_list else None
        return gr.Textbox(spelled(value), max_lines=2, max_length=MAX_PROMPT_CHARACTERS, placeholder=placeholder, **words)

    def parameter(self, value: Any = None) -> gr.components.Component:
        """The component that stands for it in the API; it does not round or bound: `checked` refuses."""
        hidden: dict[str, Any] = {"value": value, "label": self.label, "visible": False}
        if self.names:
            return gr.Dropdown(list(self.names), **hidden)
        return gr.Number(**hidden) if self.read in (whole, real, timestep) else SentText(**hidden)


def spelled(value: Any) -> Any:
    """A value as its widget shows it."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


OFFERED = RANGES | {"steps": (1, 50_000), "views": (1, 16), "resolution": (16, 256)}
"""What a server lets its visitors ask for: less than whoever owns the machine may, by its command line."""

SCHEDULING: dict[str, Knob] = {
    "schedule": Knob("Schedule", "How t goes over the run", short_text, names=tuple(presets.SCHEDULES)),
    "steps": Knob("Steps", "Optimisation steps: more is finer", whole, *OFFERED["steps"]),
    "m": Knob("m", "Centre of the prior weight", real, *RANGES["m"]),
    "s": Knob("s", "Width of the prior weight", real, *RANGES["s"]),
    "t_min": Knob("t min", "Smallest timestep", timestep, 0, 999),
    "t_max": Knob("t max", "Largest timestep", timestep, 0, 999),
    "fixed_t": Knob("Fixed t", "Timestep of the schedule “fixed”", whole, 0, 999),
    "table": Knob("Custom table", "Falling or rising timesteps of the schedule “custom”, commas between", timestep_list),
}

GUIDING: dict[str, Knob] = {
    "objective": Knob("Objective", "What the prior's answer is held against", short_text, names=tuple(objectives.OBJECTIVES)),
    "guidance": Knob("Guidance", "How text and no text are combined", short_text, names=tuple(objectives.GUIDANCES)),
    "guidance_scale": Knob("Guidance scale", "Pull of the prompt; 1 is none", real, *RANGES["guidance_scale"]),
    "weighting": Knob("Weighting", "w(t) of the gradient", short_text, names=tuple(presets.WEIGHTINGS)),
    "negative_prompt": Knob("Negative prompt", "What to steer away from", short_text),
    "image_residual": Knob(
        "Image residual",
        "Weight of SDS between images, for models with a tiny VAE; 0 is between latents",
        real,
        *RANGES["image_residual"],
    ),
}

RENDERING: dict[str, Knob] = {
    "representation": Knob("Representation", "What is optimised", short_text, names=tuple(presets.REPRESENTATIONS)),
    "background": Knob("Background", "What lies behind it meanwhile", short_text, names=tuple(presets.BACKGROUNDS)),
    "views": Knob("Views", "Images per step", whole, *OFFERED["views"]),
    "albedo_share": Knob("Albedo share", "Share of steps without light", real, *RANGES["albedo_share"]),
    "textureless_share": Knob("Textureless share", "Share of steps in white", real, *RANGES["textureless_share"]),
    "light_spread": Knob("Light spread", "From the camera, scene units", real, *RANGES["light_spread"]),
    "ambient": Knob("Ambient light", "Its mean share of the light", real, *RANGES["ambient"]),
}

LOADING: dict[str, Knob] = {
    "memory": Knob("Memory", "How sparing the prior is", short_text, names=presets.MEMORIES),
    "attention": Knob("Attention", "Fused is quick; sliced is for GPUs without it", short_text, names=presets.ATTENTIONS),
    "precision": Knob("Precision", "Of the prior on a GPU; bf16 overflows less", short_text, names=presets.PRECISIONS),
}

METHOD: dict[str, Knob] = {
    "method": Knob("Method", "Whose schedule, objective and numbers to start from", short_text, names=tuple(METHODS))
}
"""No setting but the start of them all: what other knobs say wins."""

KNOBS: dict[str, Knob] = SCHEDULING | GUIDING | RENDERING | LOADING | METHOD


def kept_elsewhere(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that mean the same with every prior: they are kept where another one has to stand in."""
    alike = ("method", *SCHEDULING, "objective", "guidance", "negative_prompt")
    return {name: value for name, value in knobs.items() if name in alike and name != "steps"}


@lru_cache(maxsize=1)
def automatic_prior() -> tuple[str, str]:
    """What `auto` means on this machine, and why; found out once, since the network may be asked."""
    return presets.resolve_prior(AUTOMATIC, presets.resolve_device("auto"))


def resolved(prior: str) -> str:
    """The prior of that name in the menu."""
    return automatic_prior()[0] if prior == AUTOMATIC else prior


def turned(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Those that say something: an empty widget, or what a program leaves out, leaves the preset's value."""
    return {name: value for name, value in choices.items() if value is not None and value != ""}


def checked_choices(choices: Mapping[str, Any], knobs: Mapping[str, Knob] = KNOBS) -> dict[str, Any]:
    """The knobs that were turned, as settings."""
    return {name: knobs[name].checked(value) for name, value in turned(choices).items()}


def check_effect(schedule: str, choices: Mapping[str, Any]) -> None:
    """Raise ValueError if a program sent what would change nothing; a page sends all that its widgets hold."""
    presets.check_effect(schedule, turned(choices))


def settings_of(prompt: Any, preset: Any, prior: Any, seed: Any, choices: Mapping[str, Any]) -> Settings:
    """What was chosen, as settings; raises ValueError with one clear sentence. A prior is a name of the menu, never a path."""
    one_of("preset", str(preset), PRESET_NAMES)
    one_of("prior", str(prior), PRIOR_NAMES)
    changes = checked_choices(choices)
    return presets.preset(preset, prior=resolved(prior), prompt=checked_prompt(prompt), seed=whole("seed", seed), **changes)


def seed_shown(settings: Settings) -> Any:
    """A run's seed for the page; one that a browser would round, as no page draws it, leaves what stands there."""
    return settings.seed if settings.seed <= EXACT else gr.skip()


def values_of(settings: Settings, knobs: Iterable[str]) -> dict[str, Any]:
    """What widgets show for the settings of a run, by name."""
    return {name: spelled(getattr(settings, name)) for name in knobs if name not in METHOD}


def nearest_start(settings: Settings, starts: Mapping[Start, Callable[..., Settings]], knobs: Iterable[str]) -> Start:
    """The start from which those knobs make a run's settings again; of several, the one that leaves least to turn.

    A run folder holds settings and not what they were started from. The device is that of whoever asks.
    """
    chosen = {name: getattr(settings, name) for name in knobs if name not in METHOD}

    def differing(made: Settings) -> int:
        return sum(value != getattr(settings, name) for name, value in vars(made).items() if name != "device")

    def distance(start: Start) -> tuple[int, int]:
        try:
            return differing(starts[start](**chosen)), differing(starts[start]())
        except ValueError:  # a method that this prior cannot serve
            return len(vars(settings)), 0

    return min(starts, key=distance)


def start_of(settings: Settings) -> tuple[str, str]:
    """The preset and the method that a run from a prompt was most likely started from."""
    starts = {
        (name, method): partial(presets.preset, name, prior=settings.prior, method=method)
        for method in METHODS
        for name in PRESET_NAMES
    }
    return nearest_start(settings, starts, KNOBS)


def preset_values(preset: str, prior: str, method: str = "dreamtime") -> dict[str, Any]:
    """What the widgets show for a preset, by name."""
    values = {**vars(presets.preset(preset, prior=resolved(prior), method=method)), "method": method}
    return {name: spelled(values[name]) for name in KNOBS}


def start_word(*start: str) -> str:
    """A start's names in a word, which a hidden widget holds: that the knobs stand as this start sets them."""
    return "|".join(start)


def followed(
    values: Mapping[str, Any], stood_for: str, start: tuple[str, ...], values_of_start: Callable[..., Mapping[str, Any]]
) -> dict[str, Any]:
    """The knobs under a start that was chosen a moment ago, before the page could set them: those left alone follow it."""
    if stood_for == start_word(*start):
        return dict(values)
    before, after = values_of_start(*stood_for.split("|")), values_of_start(*start)
    return {name: after[name] if value == before[name] else value for name, value in values.items()}


def residual_followed(knobs: Mapping[str, Any], preset: str, prior: str) -> dict[str, Any]:
    """The knobs with an objective that was chosen a moment ago: an image residual that was left alone goes with SDS.

    So does the guidance scale beside it.
    """
    objective, method = knobs["objective"], knobs["method"] or "dreamtime"
    usual = preset_values(preset, prior, method)
    if objective in (None, "", "sds") or knobs["image_residual"] != usual["image_residual"] or not usual["image_residual"]:
        return dict(knobs)
    left = knobs["guidance_scale"] == usual["guidance_scale"]
    scale = suited_to(preset, prior, method, objective)[0] if left else knobs["guidance_scale"]
    return {**knobs, "image_residual": 0.0, "guidance_scale": scale}


def suited_to(
    preset: str,
    prior: str,
    method: str,
    objective: str,
    guidance: str = "classifier-free",
    image_residual: Any = None,
    negative_prompt: str = "",
) -> tuple[float, float]:
    """The guidance scale and the image residual that a preset gives to an objective, or to one with those changes.

    Raises ValueError where the prior cannot serve it.
    """
    chosen: dict[str, Any] = {} if image_residual is None else {"image_residual": float(image_residual)}
    # Large priors keep their scale. Where words have no effect at it, whoever starts the run is told, and so is whoever has
    # chosen a guidance for an objective that takes none.
    chosen |= {"objective": objective, "negative_prompt": negative_prompt if resolved(prior) == "toybox" else ""}
    chosen["guidance"] = "classifier-free" if objective in objectives.UNGUIDED else guidance
    made = presets.preset(preset, prior=resolved(prior), method=method, **chosen)
    return made.guidance_scale, made.image_residual


def guidance_followed(
    preset: str,
    prior: str,
    method: str,
    objective: str,
    guidance: str,
    image_residual: Any,
    negative_prompt: str,
    scale: Any,
) -> Any:
    """The guidance scale beside a guidance, an image residual or a negative prompt just chosen.

    One that was left alone goes with them.
    """

    def suited(chosen: str, residual: Any, words: str) -> float:
        return suited_to(preset, prior, method, objective, chosen, residual, words)[0]

    choices = product(objectives.GUIDANCES, (None, 0.0), ("", "something"))
    return suited(guidance, image_residual, negative_prompt) if scale in starmap(suited, choices) else scale
