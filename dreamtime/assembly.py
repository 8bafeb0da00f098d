"""From settings to the parts of a run: its schedule, its prior, its scene, and what the one asks of the other."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Generator, nn

from dreamtime import regularizers
from dreamtime.cameras import CameraRange
from dreamtime.objectives import SELF_WEIGHTED, Asking
from dreamtime.presets import REPRESENTATIONS, SHAPING, WEIGHTINGS, Settings, lowest_timestep_of, timetable
from dreamtime.priors import loading
from dreamtime.priors.options import PLAIN, Options
from dreamtime.prompts import FLAWS, FLAWS_OF_SDS, VIEWS, Embed, checked_prompt, with_view
from dreamtime.renderers import OccupancyGrid, VolumeRenderer, preview, sampler_of, training_renderer
from dreamtime.representations import WHITE, Background, EnvironmentMap, NeRF, NeuS, parameter_groups, random_color, random_grey
from dreamtime.shading import sample_light
from dreamtime.timesteps import Timetable
from dreamtime.types import (
    Cameras,
    DiffusionPrior,
    Light,
    Regularizer,
    Renderer,
    Rendering,
    Representation,
    Shading,
    Step,
    SurfaceRepresentation,
)


def timetable_of(settings: Settings, alphas_cumprod: torch.Tensor | None = None) -> Timetable:
    """The whole schedule of a run, from its prior's noise levels; they are read if they are not at hand.

    Raises ValueError where the objective has no meaning at one of its timesteps.
    """
    options = {key: getattr(settings, key) for key in SHAPING}
    levels = alphas_cumprod_of(settings.source) if alphas_cumprod is None else alphas_cumprod
    table = timetable(settings.schedule, levels, settings.steps, **options)
    last = int(table.high.max())
    divides = settings.objective in SELF_WEIGHTED or settings.image_residual > 0
    if divides and levels[last] == 0:
        between = " between images" if settings.image_residual > 0 else ""
        raise ValueError(
            f"The objective {settings.objective!r}{between} divides by the share of signal, of which {settings.prior!r} leaves"
            f" none at t = {last}: choose a smaller t_max."
        )
    return table


# -- the prior, loaded


def dtype_of(device: str, options: Options) -> torch.dtype:
    """The prior's precision: half or bfloat16 on CUDA, single elsewhere."""
    if device != "cuda":
        return torch.float32
    return torch.bfloat16 if options.precision == "bf16" else torch.float16


BUILDING = threading.Lock()
"""Held while modules are loaded or built: while transformers loads a model it patches `torch.nn.Module` for all threads.

Also while diffusers is imported: two threads that ask its lazy module for names at once may find it half there.
"""


@lru_cache(maxsize=2)
def alphas_cumprod_of(source: str) -> torch.Tensor:
    """The prior's noise levels, read without its weights."""
    with BUILDING:
        return loading.load_alphas_cumprod(source)


KEPT: dict[tuple[str, str, Options], DiffusionPrior] = {}
"""The priors of the latest run, for the next one; by what they were loaded from, where and how."""


def make_room(settings: Settings) -> None:
    """Forget the priors of earlier runs that this one does not need, and all where memory is scarce, before it loads any."""
    priors = (settings.source, settings.text_prior) if settings.memory == "normal" else ()
    for key in KEPT.keys() - {(source, settings.device, settings.options) for source in priors}:
        del KEPT[key]
    torch.cuda.empty_cache()


def load_prior(source: str, device: str, options: Options = PLAIN) -> DiffusionPrior:
    """The prior, kept for the next run."""
    key = (source, device, options)
    if key not in KEPT:
        KEPT[key] = loading.load_prior(source, torch.device(device), dtype_of(device, options), options)
    return KEPT[key]


def load_embed(settings: Settings) -> Embed:
    """What embeds a run's texts: those that are known beforehand are embedded here, and the text encoder is let go."""
    device, dtype = torch.device(settings.device), dtype_of(settings.device, settings.options)
    views = [with_view(checked_prompt(settings.prompt), view) for view in VIEWS]
    return loading.Remembered(
        lambda: loading.load_text_encoder(settings.source, device, dtype, settings.options),
        ["", settings.negative_prompt, FLAWS, *views, *(f"{view}, {FLAWS_OF_SDS}" for view in views)],
    )


# -- the scene, and what shapes it


@dataclass(frozen=True)
class Scene:
    """What is optimised, and how it is looked at."""

    representation: NeRF | NeuS
    modules: Mapping[str, nn.Module]  # everything a checkpoint holds
    parameters: list[dict[str, Any]]  # groups for the optimiser
    render: Renderer
    preview: Callable[[Cameras], Rendering]


@dataclass(frozen=True)
class Dream:
    """A run's parts, ready to go."""

    scene: Scene
    timetable: Timetable
    optimizer: torch.optim.Optimizer
    generator: Generator
    steps: Callable[[int], Iterator[Step]]  # from the number of steps already done


def build_scene(settings: Settings, device: torch.device, generator: Generator) -> Scene:
    """The untouched scene of a run, its start drawn from the generator."""
    representation = REPRESENTATIONS[settings.representation](generator, device)
    occupancy = OccupancyGrid(step=2 / settings.samples_per_ray).to(device)
    modules: dict[str, nn.Module] = {"representation": representation, "occupancy": occupancy}
    backgrounds: dict[str, Background] = {"color": random_color, "white": WHITE}
    background = backgrounds.get(settings.background, random_grey)
    if settings.background == "environment":
        modules["background"] = background = EnvironmentMap(generator).to(device)

    def light(cameras: Cameras, generator: Generator) -> Light:
        low, high = max(settings.ambient - 0.15, 0), min(settings.ambient + 0.15, 1)
        return sample_light(cameras, generator, settings.light_spread, (low, high))

    shadings: dict[Shading, float] = {
        "albedo": settings.albedo_share,
        "textureless": settings.textureless_share,
        "lambertian": 1 - (settings.albedo_share + settings.textureless_share),
    }
    volume = VolumeRenderer(representation, sampler_of(occupancy))
    render = training_renderer(volume, occupancy, shadings, background, light)
    groups = parameter_groups(nn.ModuleDict(modules), settings.learning_rate)
    seen: Shading = "albedo" if settings.task == "image" else "lambertian"  # a picture's colours hold its light
    return Scene(representation, modules, groups, render, preview(volume, seen))


def adam(settings: Settings, scene: Scene) -> torch.optim.Adam:
    """What steps a run's parameters. Fused: on a CPU a tenth of the time that the plain steps over the grids take."""
    return torch.optim.Adam(scene.parameters, betas=(0.9, 0.99), eps=settings.adam_epsilon, fused=True)


def camera_range(settings: Settings) -> CameraRange:
    """Where a run's random cameras stand."""
    return CameraRange(
        elevation=in_radians(settings.camera_elevation),
        overhead_share=settings.overhead_share,
        distance=settings.distance,
        fov_y=in_radians(settings.field_of_view),
    )


def in_radians(degrees: tuple[float, float]) -> tuple[float, float]:
    """Both ends of a range."""
    return math.radians(degrees[0]), math.radians(degrees[1])


def weighted(regularizer: Regularizer, weight: float) -> Regularizer:
    """The regularizer times a constant."""
    return lambda rendering, progress: weight * regularizer(rendering, progress)


def regularizers_of(settings: Settings, representation: Representation) -> dict[str, Regularizer]:
    """Those with a weight above zero."""
    terms: dict[str, tuple[Regularizer, float]] = {
        "opacity": (regularizers.opacity, settings.opacity),
        "orientation": (regularizers.orientation, settings.orientation),
        "entropy": (regularizers.entropy, settings.entropy),
        "distortion": (regularizers.distortion, settings.distortion),
        "normal smoothness": (regularizers.normal_smoothness, settings.normal_smoothness),
    }
    if isinstance(representation, SurfaceRepresentation):
        terms["eikonal"] = (regularizers.eikonal(representation.distance), settings.eikonal)
    return {name: weighted(term, weight) for name, (term, weight) in terms.items() if weight > 0}


def asking_of(settings: Settings, prior: DiffusionPrior, embed: Embed) -> Asking:
    """What an objective is made from."""
    return Asking(
        prior,
        embed,
        checked_prompt(settings.prompt),
        settings.negative_prompt,
        settings.guidance,
        settings.guidance_scale,
        WEIGHTINGS[settings.weighting],
        t_min=lowest_timestep_of(settings, len(prior.alphas_cumprod)),
        image_residual=settings.image_residual,
    )
