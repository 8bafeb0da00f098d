"""What can be chosen, by the names people use: the tables, the settings of a run, and the presets to start from.

`PRIORS`, `SCHEDULES`, `WEIGHTINGS`, `OBJECTIVES`, `GUIDANCES`, `REPRESENTATIONS`, `BACKGROUNDS`, `PRESETS` and `METHODS` are
the only tables of names: menus, API and command line read them here.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from torch import Generator

from dreamtime import distillation, objectives, timesteps
from dreamtime.methods import METHODS
from dreamtime.objectives import GUIDANCES, OBJECTIVES
from dreamtime.priors.hub import MODELS, automatic, known
from dreamtime.priors.options import ATTENTIONS as ATTENTIONS
from dreamtime.priors.options import MEMORIES as MEMORIES
from dreamtime.priors.options import PRECISIONS as PRECISIONS
from dreamtime.priors.options import Options
from dreamtime.prompts import MAX_PROMPT_CHARACTERS, check_characters, checked_prompt
from dreamtime.representations import NeRF, NeuS, feature_grid_nerf, feature_grid_neus, frequency_nerf, hash_grid_nerf
from dreamtime.timesteps import Timetable

PRIORS: dict[str, str] = {name: model.places[0] for name, model in MODELS.items() if model.layout.reads == "text"}
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
LOWEST_SHARES = {"truncated-linear": timesteps.TRUNCATED_LINEAR_LOWEST_SHARE, "hifa": timesteps.HIFA_LOWEST_SHARE}
"""Of T: where those schedules end that do not go as far as the others."""

SHAPING = ("t_min", "t_max", "m", "s", "fixed_t", "table")
"""The settings that shape a schedule; each has those of them that it takes (`schedule_options`)."""

WEIGHTINGS: dict[str, distillation.Weighting] = {
    "sds": distillation.noise_variance,
    "uniform": distillation.unweighted,
    "fantasia3d": distillation.fantasia3d,
}

REPRESENTATIONS: dict[str, Callable[[Generator, torch.device], NeRF | NeuS]] = {
    "feature-grid": feature_grid_nerf,
    "hash-grid": hash_grid_nerf,
    "mlp": frequency_nerf,
    "neus": feature_grid_neus,
}

BACKGROUNDS = ("grey", "color", "environment", "white")

TASKS = ("text", "image")

RANGES: dict[str, tuple[float | int, float | int]] = {
    "seed": (0, 2**63 - 1),
    "elevation": (-89, 89),
    "steps": (1, timesteps.MAX_STEPS),
    "m": (-int(timesteps.WIDEST), int(timesteps.WIDEST)),
    "s": (0, int(timesteps.WIDEST)),  # but not 0 itself
    "lora_scale": (-10, 10),
    "guidance_scale": (0, 1000),
    "image_residual": (0, 10_000),
    "learning_rate": (1e-6, 1),
    "second_learning_rate": (0, 1),
    "adam_epsilon": (0, 1e6),
    "views": (1, 64),
    "resolution": (16, 1024),
    "samples_per_ray": (8, 1024),
    "mesh_resolution": (16, 512),
    "faces": (100, 2_000_000),
    "texture_size": (64, 4096),
    "doublings": (0, 4),
    **dict.fromkeys(("albedo_share", "textureless_share", "ambient", "overhead_share"), (0, 1)),
    **dict.fromkeys(("rgb", "mask", "text_weight", "light_spread", "opacity", "orientation", "entropy"), (0, 1_000_000)),
    **dict.fromkeys(("distortion", "normal_smoothness", "normal_smoothness_3d", "eikonal"), (0, 1_000_000)),
}
"""The least and the most that a number among the settings may be: page, API and command line have their bounds from here."""

REGULARIZERS = {
    "opacity": "emptying space that is not needed",
    "orientation": "turning what is seen towards the camera",
    "entropy": "making each pixel all object or none",
    "normal_smoothness": "smoothing normals in the image",
    "normal_smoothness_3d": "smoothing normals in space",
}
"""What those regularizers do whose weights people may choose beside a picture."""

CALLED = {
    "lora_scale": "LoRA scale",
    "second_learning_rate": "learning rate of the second predictor",
    "adam_epsilon": "Adam epsilon",
    "views": "number of views",
    "samples_per_ray": "number of samples per ray",
    "faces": "number of faces",
    "doublings": "number of doublings",
}
"""How a sentence names those of them whose field says too little."""

SCHEDULE_STEPS = 600
"""Of a schedule that is looked at for its own sake, where nobody says how many."""

EMBEDDED_GUIDANCE_SCALE = 1.0  # none: told the camera, it has learnt to heed what it is told whatever it sees
STEERED_GUIDANCE_SCALE = 2.0  # the same with a negative prompt or rescaling, which count for nothing without guidance
GUIDANCE_SCALE = 100.0  # DreamFusion's with Stable Diffusion (PAPER section 3)


def one_of(what: str, name: str, table: Any) -> str:
    """The name, if the table has it; the error lists what there is."""
    if name not in table:
        raise ValueError(f"Unknown {what} {str(name)[:60]!r}: choose one of {', '.join(table)}.")
    return name


def within(what: str, value: float | int, low: float | int, high: float | int) -> None:
    if not low <= value <= high:
        raise ValueError(f"The {what} must lie between {spoken(low)} and {spoken(high)}, got {spoken(value)}.")


def spoken(number: float | int) -> str:
    """A number in a sentence: a whole one in full, but for very long ones."""
    if isinstance(number, float):
        return f"{number:g}"
    return str(number) if abs(number) < 10**30 else f"a number of {len(str(abs(number)))} digits"


def check_words(settings: "Settings") -> None:
    """Raise ValueError on a prompt or a negative prompt that is none."""
    if settings.task == "text" or settings.prompt:
        checked_prompt(settings.prompt)
    check_characters("negative prompt", settings.negative_prompt)
    within("length of the negative prompt", len(settings.negative_prompt), 0, MAX_PROMPT_CHARACTERS)


def check_image(settings: "Settings") -> None:
    """Raise ValueError on what makes no sense for a run from a picture."""
    if settings.objective not in objectives.WITHOUT_TEXTS:
        why = "vsd learns in a UNet that reads text" if settings.objective == "vsd" else "the others compare texts"
        raise ValueError(
            f"From a picture the objective is one of {', '.join(objectives.WITHOUT_TEXTS)}, got {settings.objective!r}: {why}."
        )
    if settings.guidance != "classifier-free":
        raise ValueError(
            f"From a picture the guidance is classifier-free, got {settings.guidance!r}: Perp-Neg compares texts, and"
            " rescaling is for the large scales of text models."
        )
    if settings.background != "white" or settings.albedo_share != 1:
        raise ValueError(
            "A run from a picture has a white background and an albedo share of 1: its colours hold its light; got"
            f" {settings.background!r} and {settings.albedo_share:g}."
        )
    if settings.image_residual > 0:
        raise ValueError(
            "A run from a picture compares latents: its image residual must be 0, got"
            f" {settings.image_residual:g} (between images the novel views outvote the picture)."
        )
    if settings.text_prior and not settings.prompt:
        raise ValueError("A text prior beside the picture needs a prompt to read, got an empty one.")


def check_choices(settings: "Settings") -> None:
    """Raise ValueError on a name that its table has not."""
    one_of("memory setting", settings.memory, MEMORIES)
    one_of("attention", settings.attention, ATTENTIONS)
    one_of("precision", settings.precision, PRECISIONS)
    one_of("schedule", settings.schedule, SCHEDULES)
    one_of("objective", settings.objective, OBJECTIVES)
    one_of("guidance", settings.guidance, GUIDANCES)
    one_of("weighting", settings.weighting, WEIGHTINGS)
    one_of("representation", settings.representation, REPRESENTATIONS)
    one_of("background", settings.background, BACKGROUNDS)


def check_schedule(settings: "Settings") -> None:
    """Raise ValueError on a schedule that no run could follow, as far as that can be told without a prior."""
    timesteps.checked_steps(settings.steps)
    timesteps.prior_weight(1, settings.m, settings.s)
    if settings.schedule == "custom":
        timesteps.checked_table(settings.table)
    low, high = settings.t_min, settings.t_max
    if low is not None and high is not None and not 0 <= low < high:
        raise ValueError(f"The timestep range needs 0 <= t_min < t_max, got t_min = {low}, t_max = {high}.")


def check_ranges(settings: "Settings") -> None:
    """Raise ValueError on a number out of its range."""
    for name, bounds in RANGES.items():
        within(CALLED.get(name, name.replace("_", " ")), getattr(settings, name), *bounds)
    within("sum of the albedo and textureless shares", settings.albedo_share + settings.textureless_share, 0, 1)


def check_cameras(settings: "Settings") -> None:
    """Raise ValueError on cameras that see nothing, and on pictures that are too small or not as many as doublings."""
    for views in settings.early_views:
        within("number of early views", views, *RANGES["views"])
    if len(settings.early_views) not in (0, settings.doublings):
        raise ValueError(
            f"There is one number of early views per doubling, {settings.doublings}, or none: got {settings.early_views}."
        )
    within("resolution of the first steps", settings.resolution >> settings.doublings, 8, 1024)
    for name, (low, high), least, most in (
        ("camera elevation", settings.camera_elevation, -89.0, 89.0),
        ("distance", settings.distance, 1.0, 20.0),
        ("field of view", settings.field_of_view, 5.0, 120.0),
    ):
        if not least <= low <= high <= most:
            raise ValueError(f"The {name} needs {least:g} <= low <= high <= {most:g}, got {low:g} to {high:g}.")


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
    precision: str = "fp16"  # one of PRECISIONS: the prior's on a GPU; on a CPU it is single
    lora: str = ""  # a .safetensors file, or a folder or Hub id with one; merged into the prior
    lora_scale: float = 1.0
    embedding: str = ""  # a textual inversion, likewise
    device: str = "cpu"
    seed: int = 0

    schedule: str = "time-prioritized"  # a name of SCHEDULES
    steps: int = 125  # N
    m: float = 500.0  # centre of W_p, timesteps
    s: float = 125.0  # width of W_p, timesteps
    t_min: int | None = None  # None: the schedule's own
    t_max: int | None = None
    fixed_t: int = 500  # of the schedule `fixed`
    table: tuple[int, ...] = ()  # of the schedule `custom`, which needs one

    objective: str = "sds"  # a name of OBJECTIVES
    guidance: str = "classifier-free"  # a name of GUIDANCES
    guidance_scale: float = EMBEDDED_GUIDANCE_SCALE  # 1 is none
    weighting: str = "sds"  # a name of WEIGHTINGS: w(t) of the gradient
    image_residual: float = 0.0  # scale of the objective `sds` between images, its prior's answer decoded; 0: between latents
    second_learning_rate: float = 1e-4  # of VSD's second predictor, at the first step
    learning_rate: float = 0.05  # of a grid at the first step (a network is slower); it falls linearly to a twentieth
    adam_epsilon: float = 0.1  # gradients fainter than this move a parameter in proportion, not at full pace
    views: int = 6  # images per step
    resolution: int = 64  # pixels, of each image
    doublings: int = 0  # how often the resolution doubles on the way there, in equal parts of the run
    early_views: tuple[int, ...] = ()  # images per step before each doubling; as many as `views` where none are given
    camera_elevation: tuple[float, float] = (-10.0, 45.0)  # degrees above the horizon, of most cameras
    overhead_share: float = 0.15  # of the cameras look from 45 to 85 degrees above
    distance: tuple[float, float] = (1.5, 2.0)  # scene units, of the cameras
    field_of_view: tuple[float, float] = (40.0, 70.0)  # degrees
    samples_per_ray: int = 40  # intervals through the scene's ball, before empty space is skipped

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
    eikonal: float = 30.0  # of scenes of signed distances (`neus`); others have no such term

    mesh_resolution: int = 96  # cells along each side of the extraction grid
    faces: int = 8000  # at most, after decimation
    texture_size: int = 512  # texels along each side

    def __post_init__(self) -> None:
        one_of("task", self.task, TASKS)
        check_words(self)
        if self.task == "image":
            check_image(self)
        check_choices(self)
        check_schedule(self)
        check_ranges(self)
        check_cameras(self)
        objectives.check(
            self.objective,
            self.guidance,
            self.guidance_scale,
            self.weighting,
            self.memory,
            self.negative_prompt,
            self.image_residual,
        )
        objectives.check_prior(self.objective, self.prior)

    @property
    def views_by_part(self) -> tuple[int, ...]:
        """Images per step, one entry per resolution that the run goes through."""
        return (*(self.early_views or (self.views,) * self.doublings), self.views)

    @property
    def asked(self) -> str:
        """The objective in words, with what it compares."""
        return f"{self.objective} between images" if self.image_residual > 0 else self.objective

    @property
    def source(self) -> str:
        """What `priors.hub` looks for."""
        return self.prior

    @property
    def options(self) -> Options:
        """How the prior is loaded."""
        return Options(
            self.memory,  # type: ignore[arg-type]
            self.attention,  # type: ignore[arg-type]
            self.lora,
            self.lora_scale,
            self.embedding,
            self.precision,  # type: ignore[arg-type]
            decodes=self.image_residual > 0,
        )


def settings_to_dict(settings: Settings) -> dict[str, Any]:
    """Plain values, for JSON."""
    return asdict(settings)


def settings_from_dict(values: Mapping[str, Any]) -> Settings:
    """The inverse of `settings_to_dict`; raises ValueError or TypeError on anything else."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in dict(values).items()}
    for field in fields(Settings):
        if field.name in plain and not is_a(plain[field.name], field.type):
            raise ValueError(f"The setting {field.name!r} cannot be {plain[field.name]!r}.")
    return Settings(**plain)


def is_a(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type; whole numbers are numbers, and truth values are none."""
    inner = get_args(kind)
    if get_origin(kind) is Literal:
        return value in inner
    if get_origin(kind) in (Union, UnionType):
        return any(is_a(value, each) for each in inner)
    if get_origin(kind) is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis and isinstance(value, tuple) else inner
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(is_a, value, kinds))
    return type(value) in (int, float) if kind is float else type(value) is kind


# -- presets: what draft, standard and high mean on a CPU with the embedded prior, and on a GPU with a large one

BETWEEN_LATENTS: dict[str, Any] = {"image_residual": 0.0, "guidance_scale": 1.5, "distance": (1.5, 2.0)}
"""With the embedded prior, what suits a difference that passes through the encoder: a little guidance, from nearer.

All objectives but SDS have that, and SDS when it is asked for with an image residual of 0.
"""

# A step of six views costs little more than one of four: half of it is spent on beginning the many small sums of the UNet.
# So few large steps reach in three fifths of the time what twice as many smaller ones do.
# SDS between images makes truer colours and squarer cubes than between latents (docs/experiments.md).
STANDARD = Settings("a red cube", opacity=35.0, image_residual=30.0, distance=(1.8, 2.2))
DRAFT = replace(STANDARD, steps=60, learning_rate=0.06, samples_per_ray=32, faces=4000)
HIGH = replace(STANDARD, steps=600, views=8, learning_rate=0.02, samples_per_ray=64, mesh_resolution=128, texture_size=1024)

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
    image_residual=0.0,
    distance=(1.5, 2.0),
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
        "vsd": {"second_learning_rate": 0.01},
        **{name: {"opacity": 100.0} for name in ("csd", "nfsd", "asd", "sdi", "ism")},  # or shapes swell
    },
    "gpu": {name: {"guidance_scale": 7.5} for name in ("vsd", "nfsd", "asd", "sdi", "ism")},
}
"""What an objective changes in every preset: with the embedded prior as measured, with a large one as its paper has it."""


GENTLE = ("vsd", "csd", "nfsd", "asd", "sdi", "ism")
GENTLE_PATH = 2.4
"""Objectives without the noise that SDS leaves in its gradient pull on without end: a cube grows a crown.

With the embedded prior their learning rate times the steps comes to this path at most, where SDS has 3.6 to 12; at half of it
a cube stays nearer to the ball it began as.
"""


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
    method's or among the changes, brings its own guidance scale or learning rate; a negative prompt, or a guidance that has no
    effect at a scale of 1, brings some. Whatever is among the changes wins. Raises ValueError.
    """
    device = resolve_device(device)
    prior, _ = resolve_prior(prior, device)
    size = "cpu" if prior == "toybox" else "gpu"
    table = PRESETS[size]
    start = table[one_of("preset", name, table)]
    numbers = numbers_of(method, size, name)
    model = known(prior)
    suited = {"guidance_scale": model.guidance_scale} if model and model.guidance_scale is not None else {}
    objective = changes.get("objective", numbers["objective"])
    suited |= OBJECTIVE_CHANGES[size].get(objective, {})
    if size == "cpu" and (objective != "sds" or changes.get("image_residual") == 0):
        suited |= BETWEEN_LATENTS
    steered = changes.get("negative_prompt") or changes.get("guidance") in objectives.IDLE_AT_SCALE_1
    if size == "cpu" and steered and suited.get("guidance_scale", start.guidance_scale) == 1:
        suited["guidance_scale"] = STEERED_GUIDANCE_SCALE
    if size == "cpu" and objective in GENTLE:
        steps = min(max(changes.get("steps", start.steps), 1), timesteps.MAX_STEPS)  # what is beyond is refused in a moment
        suited["learning_rate"] = min(start.learning_rate, GENTLE_PATH / steps)
    return replace(start, **{"prior": prior, "device": device, **numbers, **suited, **changes})


def timetable(name: str, alphas_cumprod: torch.Tensor, steps: int, **options: Any) -> Timetable:
    """The schedule of that name; it receives those of the options that it has parameters for."""
    one_of("schedule", name, SCHEDULES)
    taken = schedule_options(name)
    return SCHEDULES[name](alphas_cumprod, steps, **{key: value for key, value in options.items() if key in taken})


def schedule_options(name: str) -> tuple[str, ...]:
    """The options that shape the schedule of that name, such as m and s."""
    return tuple(inspect.signature(SCHEDULES[name]).parameters)[2:]


def lowest_timestep_of(settings: Settings, T: int) -> int:
    """Where the range of a run's timesteps begins; of a schedule that has none, where that of others usually does."""
    return timesteps.lowest_timestep(T, settings.t_min, LOWEST_SHARES.get(settings.schedule, timesteps.LOWEST_SHARE))


def check_effect(schedule: str, given: Collection[str], spelled: Callable[[str], str] = str) -> None:
    """Raise ValueError if one of the settings that somebody gave does not shape that schedule; `spelled` writes their names."""
    taken = [name for name in schedule_options(one_of("schedule", schedule, SCHEDULES)) if name in SHAPING]
    if idle := set(given) & set(SHAPING) - set(taken):
        takes = ", ".join(map(spelled, taken))
        raise ValueError(f"The schedule {schedule!r} has no {spelled(min(idle))}: it takes {takes}.")
