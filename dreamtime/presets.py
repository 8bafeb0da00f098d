"""What can be chosen, by the names people use, and how a choice becomes a running optimisation.

`PRIORS`, `SCHEDULES`, `WEIGHTINGS`, `OBJECTIVES`, `GUIDANCES`, `REPRESENTATIONS`, `BACKGROUNDS`, `PRESETS` and `METHODS` are
the only tables of names: menus, API and command line read them here.
"""

import inspect
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Generator, nn

from dreamtime import distillation, objectives, regularizers, timesteps
from dreamtime.cameras import CameraRange, sample_cameras
from dreamtime.generation import optimise
from dreamtime.methods import METHODS
from dreamtime.objectives import GUIDANCES, OBJECTIVES, Asking
from dreamtime.priors.hub import MODELS, automatic
from dreamtime.priors.options import ATTENTIONS as ATTENTIONS
from dreamtime.priors.options import MEMORIES as MEMORIES
from dreamtime.priors.options import PLAIN, Options
from dreamtime.prompts import FLAWS, FLAWS_OF_SDS, VIEWS, Embed, checked_prompt, with_view
from dreamtime.references import growing
from dreamtime.renderers import OccupancyGrid, VolumeRenderer, preview, sampler_of, training_renderer
from dreamtime.representations import (
    WHITE,
    Background,
    EnvironmentMap,
    NeRF,
    feature_grid_nerf,
    frequency_nerf,
    hash_grid_nerf,
    parameter_groups,
    random_color,
    random_grey,
)
from dreamtime.shading import sample_light
from dreamtime.timesteps import Timetable
from dreamtime.toybox.known import read_known, unknown_words
from dreamtime.types import Cameras, DiffusionPrior, Light, Regularizer, Renderer, Rendering, Shading, Step

log = logging.getLogger(__name__)

PRIORS: dict[str, str] = {name: model.places[0] for name, model in MODELS.items() if model.reads == "text"}
"""The models that read text, and where each is looked for first; `priors.hub` knows the other places."""

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

REPRESENTATIONS: dict[str, Callable[[Generator, torch.device], NeRF]] = {
    "feature-grid": feature_grid_nerf,
    "hash-grid": hash_grid_nerf,
    "mlp": frequency_nerf,
}

BACKGROUNDS = ("grey", "color", "environment", "white")

TASKS = ("text", "image")

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


def check_image(settings: "Settings") -> None:
    """Raise ValueError on what makes no sense for a run from a picture."""
    if settings.objective not in objectives.WITHOUT_TEXTS or settings.guidance != "classifier-free":
        raise ValueError(
            f"From a picture the objective is one of {', '.join(objectives.WITHOUT_TEXTS)} with classifier-free guidance, got"
            f" {settings.objective!r} with {settings.guidance!r}: the others compare texts."
        )
    if settings.background != "white" or settings.albedo_share != 1:
        raise ValueError(
            "A run from a picture has a white background and an albedo share of 1: its colours hold its light; got"
            f" {settings.background!r} and {settings.albedo_share:g}."
        )
    if settings.text_prior and not settings.prompt:
        raise ValueError("A text prior beside the picture needs a prompt to read, got an empty one.")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run. Nothing rewrites it; nonsense raises ValueError when it is made."""

    prompt: str  # may be empty where there is a picture
    task: str = "text"  # one of TASKS: what the run starts from
    elevation: float = 0.0  # degrees above the horizon, from which the picture of task `image` was taken
    negative_prompt: str = ""
    prior: str = "toybox"  # a name of PRIORS, a Hub id, a folder, or a .safetensors file
    memory: str = "normal"  # one of MEMORIES: how sparing the prior is
    attention: str = "fused"  # one of ATTENTIONS
    lora: str = ""  # a .safetensors file, or a folder or Hub id with one; merged into the prior
    lora_scale: float = 1.0
    embedding: str = ""  # a textual inversion, likewise
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

    objective: str = "sds"  # a name of OBJECTIVES
    guidance: str = "classifier-free"  # a name of GUIDANCES
    guidance_scale: float = EMBEDDED_GUIDANCE_SCALE  # 1 is none
    weighting: str = "sds"  # a name of WEIGHTINGS: w(t) of the gradient
    second_learning_rate: float = 1e-4  # of VSD's second predictor, at the first step
    learning_rate: float = 0.02  # of a grid at the first step (a network is slower); it falls linearly to a twentieth
    adam_epsilon: float = 0.1  # gradients fainter than this move a parameter in proportion, not at full pace
    views: int = 4  # images per step
    resolution: int = 64  # pixels, of each image
    doublings: int = 0  # how often the resolution doubles on the way there, in equal parts of the run
    distance: tuple[float, float] = (1.5, 2.0)  # scene units, of the cameras
    field_of_view: tuple[float, float] = (40.0, 70.0)  # degrees
    samples_per_ray: int = 48  # intervals through the scene's ball, before empty space is skipped

    representation: str = "feature-grid"  # a name of REPRESENTATIONS
    background: str = "grey"  # one of BACKGROUNDS
    albedo_share: float = 0.1  # of the steps rendered without light
    textureless_share: float = 0.0  # of the steps rendered white
    light_spread: float = 0.8  # scene units around the camera
    ambient: float = 0.45  # mean ambient share of the light

    rgb: float = 0.0  # weights of the picture's terms: its colours
    mask: float = 0.0  # its outline
    text_prior: str = ""  # a prior of PRIORS that reads the prompt beside the picture
    text_weight: float = 1.0  # of its objective

    opacity: float = 0.0  # weights of the regularizers: empties space that is not needed
    orientation: float = 0.0
    entropy: float = 0.0
    distortion: float = 0.0
    normal_smoothness: float = 0.0
    normal_smoothness_3d: float = 0.0

    mesh_resolution: int = 96  # cells along each side of the extraction grid
    faces: int = 8000  # at most, after decimation
    texture_size: int = 512  # texels along each side

    def __post_init__(self) -> None:
        one_of("task", self.task, TASKS)
        if self.task == "text" or self.prompt:
            checked_prompt(self.prompt)
        if self.task == "image":
            check_image(self)
        within("elevation", self.elevation, -89, 89)
        one_of("memory setting", self.memory, MEMORIES)
        one_of("attention", self.attention, ATTENTIONS)
        within("LoRA scale", self.lora_scale, -10, 10)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("objective", self.objective, OBJECTIVES)
        one_of("guidance", self.guidance, GUIDANCES)
        one_of("weighting", self.weighting, WEIGHTINGS)
        one_of("representation", self.representation, REPRESENTATIONS)
        one_of("background", self.background, BACKGROUNDS)
        timesteps.checked_steps(self.steps)
        timesteps.prior_weight(1, self.m, self.s)
        if self.t_min is not None and self.t_max is not None and not 0 <= self.t_min < self.t_max:
            raise ValueError(f"The timestep range needs 0 <= t_min < t_max, got t_min = {self.t_min}, t_max = {self.t_max}.")
        within("seed", self.seed, 0, 2**63 - 1)
        within("guidance scale", self.guidance_scale, 0, 1000)
        objectives.check(self.objective, self.guidance, self.guidance_scale, self.weighting, self.memory)
        objectives.check_prior(self.objective, self.prior)
        within("learning rate", self.learning_rate, 1e-6, 1)
        within("learning rate of the second predictor", self.second_learning_rate, 0, 1)
        within("Adam epsilon", self.adam_epsilon, 0, 1e6)
        within("number of views", self.views, 1, 64)
        within("resolution", self.resolution, 16, 1024)
        within("number of samples per ray", self.samples_per_ray, 8, 1024)
        within("mesh resolution", self.mesh_resolution, 16, 512)
        within("number of faces", self.faces, 100, 2_000_000)
        within("texture size", self.texture_size, 64, 4096)
        for share in ("albedo_share", "textureless_share", "ambient"):
            within(share.replace("_", " "), getattr(self, share), 0, 1)
        within("number of doublings", self.doublings, 0, 4)
        within("resolution of the first steps", self.resolution >> self.doublings, 8, 1024)
        for name, (low, high), least, most in (
            ("distance", self.distance, 1.0, 20.0),
            ("field of view", self.field_of_view, 5.0, 120.0),
        ):
            if not least <= low <= high <= most:
                raise ValueError(f"The {name} needs {least:g} <= low <= high <= {most:g}, got {low:g} to {high:g}.")
        terms = ("rgb", "mask", "text_weight", "normal_smoothness", "normal_smoothness_3d")
        for weight in (*terms, "opacity", "orientation", "entropy", "distortion", "light_spread"):
            within(weight.replace("_", " "), getattr(self, weight), 0, 1e6)
        within("sum of the albedo and textureless shares", self.albedo_share + self.textureless_share, 0, 1)

    @property
    def source(self) -> str:
        """What `priors.hub` looks for."""
        return self.prior

    @property
    def options(self) -> Options:
        """How the prior is loaded."""
        return Options(self.memory, self.attention, self.lora, self.lora_scale, self.embedding)  # type: ignore[arg-type]


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """Plain values, for JSON."""
    return asdict(settings)


def settings_from_dict(values: Mapping[str, Any]) -> Settings:
    """The inverse of `settings_to_dict`; raises ValueError or TypeError on anything else."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in dict(values).items()}
    return Settings(**plain)


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

OBJECTIVE_CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "vsd": {"guidance_scale": 5.0, "second_learning_rate": 0.01},
    },
    "gpu": {name: {"guidance_scale": 7.5} for name in ("vsd", "nfsd", "asd", "sdi", "ism")},
}
"""What an objective changes in every preset: with the embedded prior as measured, with a large one as its paper has it."""


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


def resolve_prior(name: str, device: str) -> tuple[str, str]:
    """`auto` as the best model within reach, and why that one; any other name as it is."""
    return automatic(device) if name == "auto" else (name, "it was asked for")


def numbers_of(method: str, size: str, preset: str) -> dict[str, Any]:
    """What a method changes in a preset for that size of prior; its steps in proportion to the preset's."""
    chosen = METHODS[one_of("method", method, METHODS)]
    numbers = {**chosen.changes, **(chosen.published if size == "gpu" else {})}
    if "steps" in numbers:
        numbers["steps"] = numbers["steps"] * PRESETS[size][preset].steps // PRESETS[size]["standard"].steps
    return numbers


def preset(name: str, device: str = "auto", prior: str = "toybox", method: str = "dreamtime", **changes: Any) -> Settings:
    """The preset of that name for a device, a prior and a method, with some settings changed; `prompt` is always among them.

    The presets for GPUs are made for large priors, so they apply to any prior but the embedded one. An objective, whether the
    method's or among the changes, brings its own guidance scale. Whatever is among the changes wins. Raises ValueError.
    """
    device = resolve_device(device)
    prior, _ = resolve_prior(prior, device)
    size = "cpu" if prior == "toybox" else "gpu"
    table = PRESETS[size]
    start = table[one_of("preset", name, table)]
    numbers = numbers_of(method, size, name)
    own = MODELS[prior].guidance_scale if prior in MODELS else None
    guided = {} if own is None else {"guidance_scale": own}
    guided |= OBJECTIVE_CHANGES[size].get(changes.get("objective", numbers["objective"]), {})
    return replace(start, **{"prior": prior, "device": device, **numbers, **guided, **changes})


def describe(settings: Settings) -> str:
    """One line for people: what runs, where, how long."""
    return (
        f"{settings.prior} on {settings.device}, {settings.schedule} schedule, {settings.steps} steps of {settings.views}"
        f" views at {settings.resolution} px, guidance {settings.guidance_scale:g}, seed {settings.seed}"
    )


def advice(settings: Settings) -> tuple[str, ...]:
    """What to know before such a run: which words of its prompt the embedded model has never seen, and which it has."""
    unknown = unknown_words(settings.prompt) if "toybox" in (settings.prior, settings.text_prior) else []
    if not unknown:
        return ()
    words, known = ", ".join(f'"{word}"' for word in unknown), read_known()
    return (
        f"The embedded model has never seen {words}, so expect a guess. It knows these things: {', '.join(known.kinds)};"
        f" in these colours: {', '.join(known.colors)}. For free text choose a Stable Diffusion prior.",
    )


# -- from settings to the parts of a run


def timetable(name: str, alphas_cumprod: torch.Tensor, steps: int, **options: Any) -> Timetable:
    """The schedule of that name; it receives those of the options that it has parameters for."""
    schedule = SCHEDULES[one_of("schedule", name, SCHEDULES)]
    known = inspect.signature(schedule).parameters
    return schedule(alphas_cumprod, steps, **{key: value for key, value in options.items() if key in known})


def timetable_of(settings: Settings, alphas_cumprod: torch.Tensor | None = None) -> Timetable:
    """The whole schedule of a run, from its prior's noise levels; they are read if they are not at hand."""
    options = {key: getattr(settings, key) for key in ("t_min", "t_max", "m", "s", "fixed_t", "table")}
    levels = alphas_cumprod_of(settings.source) if alphas_cumprod is None else alphas_cumprod
    return timetable(settings.schedule, levels, settings.steps, **options)


def dtype_of(device: str) -> torch.dtype:
    """The prior's precision: half on CUDA, single elsewhere."""
    return torch.float16 if device == "cuda" else torch.float32


BUILDING = threading.Lock()
"""Held while modules are loaded or built: while transformers loads a model it patches `torch.nn.Module` for all threads.

Also while diffusers is imported: two threads that ask its lazy module for names at once may find it half there.
"""


@lru_cache(maxsize=2)
def alphas_cumprod_of(source: str) -> torch.Tensor:
    """The prior's noise levels, read without its weights."""
    from dreamtime.priors import loading  # diffusers takes seconds to import: only when a prior is needed

    with BUILDING:
        return loading.load_alphas_cumprod(source)


@lru_cache(maxsize=1)
def load_prior(source: str, device: str, options: Options = PLAIN) -> DiffusionPrior:
    """The prior, kept for the next run."""
    from dreamtime.priors import loading

    return loading.load_prior(source, torch.device(device), dtype_of(device), options)


def load_embed(settings: Settings) -> Embed:
    """What embeds a run's texts: those that are known beforehand are embedded here, and the text encoder is let go."""
    from dreamtime.priors import loading

    if settings.memory != "normal":
        load_prior.cache_clear()  # an earlier run's denoiser and a text encoder need not fit side by side
    device, dtype = torch.device(settings.device), dtype_of(settings.device)
    views = [with_view(checked_prompt(settings.prompt), view) for view in VIEWS]
    return loading.Remembered(
        lambda: loading.load_text_encoder(settings.source, device, dtype, settings.options),
        ["", settings.negative_prompt, FLAWS, *views, *(f"{view}, {FLAWS_OF_SDS}" for view in views)],
    )


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
        "lambertian": 1 - settings.albedo_share - settings.textureless_share,
    }
    volume = VolumeRenderer(representation, sampler_of(occupancy))
    render = training_renderer(volume, occupancy, shadings, background, light)
    groups = parameter_groups(nn.ModuleDict(modules), settings.learning_rate)
    seen: Shading = "albedo" if settings.task == "image" else "lambertian"  # a picture's colours hold its light
    return Scene(representation, modules, groups, render, preview(volume, seen))


def camera_range(settings: Settings) -> CameraRange:
    """Where a run's random cameras stand."""
    low, high = settings.field_of_view
    return CameraRange(distance=settings.distance, fov_y=(math.radians(low), math.radians(high)))


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
        "normal smoothness": (regularizers.normal_smoothness, settings.normal_smoothness),
    }
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
    )


def with_second_predictor(scene: Scene, asking: Asking, learning_rate: float, generator: Generator) -> tuple[Scene, Asking]:
    """The scene and the asking, joined by VSD's LoRA: optimised and checkpointed with the one, asked by the other."""
    from dreamtime.priors import lora

    second = lora.lora_predictor(asking.prior, asking.condition, generator)
    modules, parameters = {**scene.modules, "lora": second.weights}, [*scene.parameters, second.group(learning_rate)]
    return replace(scene, modules=modules, parameters=parameters), replace(asking, second=second)


def memory_of(settings: Settings) -> dict[str, int]:
    """Bytes that a run is expected to take, by what takes them, found without allocating any. Raises `ModelUnavailable`.

    The text encoders are gone before anything else comes. Libraries keep about a gigabyte of a GPU for themselves.
    """
    from dreamtime.priors import memory

    dtype, learns = dtype_of(settings.device), settings.objective == "vsd"
    views = settings.views + (settings.task == "image")  # the picture's own comes first
    need = memory.need_of(settings.source, dtype, views, settings.resolution, settings.options, learns)
    scene = REPRESENTATIONS[settings.representation](Generator(), torch.device("meta"))
    samples = settings.views * settings.resolution**2 * settings.samples_per_ray // 4  # visible, before the scene has a surface
    return {
        "text encoders": need.text_encoders,
        "prior": need.weights,
        "a step of the prior": need.step,
        "scene": 4 * memory.bytes_of(scene),  # its gradient and Adam's two means are as large
        "rendering": memory.rendering_bytes(scene, samples),
    }


def memory_in_words(settings: Settings) -> str:
    """One line for people, before a run on a GPU. Raises `ModelUnavailable`."""
    gigabytes = {name: size / 2**30 for name, size in memory_of(settings).items()}
    first = gigabytes["text encoders"]
    peak = 1 + max(first, sum(gigabytes.values()) - first)
    parts = ", ".join(f"{name} {size:.1f}" for name, size in gigabytes.items())
    return f"about {peak:.0f} GB of GPU memory at the peak ({parts}, libraries 1; the text encoders are gone by then)"


def memory_foretold(settings: Settings) -> str:
    """The same, or nothing where there is no GPU or no telling: a failing estimate stops no run."""
    if settings.device == "cpu":
        return ""
    try:
        return memory_in_words(settings)
    except Exception:
        log.warning("the memory of a run could not be estimated", exc_info=True)
        return ""


def compose(
    settings: Settings,
    prior: DiffusionPrior,
    embed: Embed,
    watch: Callable[[Renderer], Renderer] = lambda render: render,
) -> Dream:
    """A run's parts around a given prior and its text encoder; `watch` may wrap the renderer, to time it say."""
    generator = Generator().manual_seed(settings.seed)
    scene = build_scene(settings, torch.device(settings.device), generator)
    table = timetable_of(settings, prior.alphas_cumprod)
    asking = asking_of(settings, prior, embed)
    if settings.objective == "vsd":
        scene, asking = with_second_predictor(scene, asking, settings.second_learning_rate, generator)
    optimizer = torch.optim.Adam(scene.parameters, betas=(0.9, 0.99), eps=settings.adam_epsilon)
    objective = OBJECTIVES[settings.objective](asking)

    def views(progress: float, generator: Generator) -> Cameras:
        size = growing(settings.resolution, settings.doublings, progress)
        return sample_cameras(settings.views, size, camera_range(settings), generator)

    def steps(done: int) -> Iterator[Step]:
        terms = regularizers_of(settings)
        return optimise(views, watch(scene.render), table, objective, terms, optimizer, settings.steps, generator, done)

    return Dream(scene, table, optimizer, generator, steps)


def text_to_3d(settings: Settings) -> Dream:
    """A run from a prompt: embed the prompt, load the prior, build the scene. Raises `ModelUnavailable`."""
    with BUILDING:
        embed = load_embed(settings)  # first, so that a large text encoder is gone before the denoiser comes
        return compose(settings, load_prior(settings.source, settings.device, settings.options), embed)
