"""A run from a picture: each step shows the scene as the picture does and from somewhere new (Zero-1-to-3, section 3.3).

The reference view is held to the picture's colours and outline; the novel views are distilled from a prior that has seen the
picture, its timesteps from the run's schedule, and from a second one that reads the prompt, if the run has both.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamtime import distillation, references, regularizers
from dreamtime.assembly import (
    BUILDING,
    Dream,
    Scene,
    adam,
    asking_of,
    build_scene,
    camera_range,
    dtype_of,
    load_embed,
    load_prior,
    make_room,
    regularizers_of,
    timetable_of,
    weighted,
)
from dreamtime.distillation import Weighting
from dreamtime.elevation import Estimate, estimate_elevation, from_above
from dreamtime.generation import optimise
from dreamtime.objectives import OBJECTIVES
from dreamtime.preprocess import Reference
from dreamtime.presets import PRESETS, RANGES, WEIGHTINGS, Settings, lowest_timestep_of, one_of, preset, resolve_device
from dreamtime.priors import loading
from dreamtime.priors.hub import MODELS, on_this_disk, places_of
from dreamtime.priors.room import out_of_memory
from dreamtime.renderers import inwards
from dreamtime.toybox.novel_views import FIELD_OF_VIEW
from dreamtime.types import (
    Cameras,
    Condition,
    DiffusionPrior,
    NoisePredictor,
    Objective,
    Regularizer,
    Renderer,
    Rendering,
    Step,
)
from dreamtime.volume_rendering import normals_by_differences

PRIORS: dict[str, str] = {name: model.places[0] for name, model in MODELS.items() if model.layout.reads == "image"}
"""The models that are shown a picture, and where each is looked for first."""

EMBEDDED = "toybox-zero123"
REFERENCE_SIDE = 256  # pixels that a picture's object keeps; each model resizes it to its own
ELEVATION = 20.0  # degrees, where nobody says: people photograph small things from a little above
ESTIMATE_GUIDANCE = 1.5  # low, so that the views keep to the pose they are asked for

# What a run from a picture changes in a preset. The picture's own light is in its colours, so nothing else shades the scene.
SHOWN: dict[str, Any] = {
    "task": "image",
    "background": "white",
    "albedo_share": 1.0,
    "guidance_scale": 3.0,
    "image_residual": 0.0,
    "opacity": 0.0,
}
CHANGES: dict[str, dict[str, Any]] = {
    "cpu": {
        **SHOWN,
        "prior": EMBEDDED,
        "distance": (1.9, 1.9),
        "field_of_view": (math.degrees(FIELD_OF_VIEW),) * 2,  # the embedded model's, and Zero-1-to-3's own
        "rgb": 500.0,
        "mask": 500.0,
    },
    # threestudio's zero123.yaml: weights, lens, cameras and views; its distillation weight of 0.1 divides all others here.
    "gpu": {
        **SHOWN,
        "steps": 600,
        "views": 2,
        "early_views": (12, 4),
        "resolution": 256,
        "doublings": 2,
        "camera_elevation": (-10.0, 80.0),
        "overhead_share": 0.0,
        "distance": (3.8, 3.8),
        "field_of_view": (20.0, 20.0),
        "rgb": 5000.0,
        "mask": 500.0,
        "text_weight": 0.025,  # Magic123's: 1 beside 40, and as here guidance scales of 100 and about 5
        "normal_smoothness": 20.0,  # 80 over 4: theirs is of normals from 0 to 1, whose squared differences are a quarter
        "normal_smoothness_3d": 80.0,
        "orientation": 10.0,
        "opacity": 1.0,
        "entropy": 0.7,  # theirs is in nats
    },
}
SHARE_OF_STEPS = {"draft": 0.5, "standard": 1.0, "high": 2.0}  # of those above, with a large prior


def not_here(prior: str) -> str:
    """Why the embedded prior of that name cannot be asked, in one sentence; empty if its weights are on this disk."""
    here = any(on_this_disk(place) for place in places_of(prior))
    return "" if here else f"The model {prior!r} is not in this installation: its weights are missing."


def foreground_ratio(prior: str) -> float:
    """How much of the picture's side an object is to fill, as the model was taught."""
    return 0.75 if prior == EMBEDDED else 0.85


def image_preset(name: str, device: str = "auto", prior: str = EMBEDDED, **changes: Any) -> Settings:
    """The preset of that name for a run from a picture, with some settings changed. Raises ValueError."""
    if prior in MODELS and prior not in PRIORS:
        raise ValueError(f"The prior {prior!r} reads text: from a picture choose one of {', '.join(PRIORS)}.")
    device = resolve_device(device)
    size = "cpu" if prior == EMBEDDED else "gpu"
    own = CHANGES[size]
    start = PRESETS[size][one_of("preset", name, PRESETS[size])]
    steps = {"steps": int(SHARE_OF_STEPS[name] * own["steps"])} if "steps" in own else {}
    fixed = {"prompt": "", "elevation": ELEVATION, "prior": prior, "device": device}
    made = {**own, **steps, **fixed, **changes}
    if "doublings" in changes and "early_views" not in changes:
        made["early_views"] = views_before(changes["doublings"], own.get("early_views", ()))
    return replace(start, **made)


def views_before(doublings: int, usual: tuple[int, ...]) -> tuple[int, ...]:
    """A preset's views before each doubling where there are to be more or fewer: those of the same resolutions.

    Where it begins smaller than usual, as many as usual at first.
    """
    more = min(max(doublings, 0), RANGES["doublings"][1])  # what is beyond is refused in a moment
    return (*usual[:1] * int(more), *usual)[len(usual) :]


@dataclass(frozen=True)
class Showing:
    """Whom an objective asks, shown which picture, and how loudly: what `objectives.Asking` is for texts."""

    prior: DiffusionPrior
    condition: Condition
    guidance_scale: float
    weighting: Weighting
    t_min: int  # the lower end of the run's range of timesteps
    image_residual: float = 0.0  # its differences are those of latents

    @property
    def bare_condition(self) -> Condition:
        """Nothing, and the picture: there is nothing negative."""
        return self.condition

    @property
    def guided(self) -> NoisePredictor:
        """eps_hat."""
        return distillation.classifier_free(self.prior, self.condition, self.guidance_scale)


def both(first: Objective, second: Objective, weight: float) -> Objective:
    """The first plus `weight` times the second: two priors guide one scene (Magic123, Eq. 4)."""

    def loss(rendering: Rendering, cameras: Cameras, t: int, progress: float, generator: Generator) -> Float[Tensor, ""]:
        one, other = (each(rendering, cameras, t, progress, generator) for each in (first, second))
        return one + weight * other

    return loss


def stand_of(settings: Settings) -> tuple[float, float]:
    """Distance and field of view of the picture's camera, in scene units and radians: the middle of the run's."""
    return sum(settings.distance) / 2, math.radians(sum(settings.field_of_view) / 2)


def reference_camera_of(settings: Settings) -> Callable[[int], Cameras]:
    """The picture's camera at any resolution, in front of the object."""
    return lambda size: references.reference_camera(math.radians(settings.elevation), *stand_of(settings), size)


def terms_of(settings: Settings, scene: Scene, reference: Reference) -> dict[str, Regularizer]:
    """The picture's terms, then the regularizers, those with a weight above zero."""
    terms = {
        "rgb": (references.rgb_fidelity(reference.image), settings.rgb),
        "mask": (references.mask_fidelity(reference.mask), settings.mask),
        "3D normal smoothness": (
            regularizers.normal_smoothness_3d(lambda points: normals_by_differences(inwards(scene.representation), points)),
            settings.normal_smoothness_3d,
        ),
    }
    own = {name: weighted(term, weight) for name, (term, weight) in terms.items() if weight > 0}
    return own | regularizers_of(settings, scene.representation)


def compose(
    settings: Settings,
    prior: DiffusionPrior,
    condition: Condition,
    reference: Reference,
    told: Objective | None,
    watch: Callable[[Renderer], Renderer] = lambda render: render,
) -> Dream:
    """A run's parts around a prior that has seen the picture; `told` is the objective of the prior that reads the prompt.

    `watch` may wrap the renderer, to time it say.
    """
    generator = Generator().manual_seed(settings.seed)
    scene = build_scene(settings, torch.device(settings.device), generator)
    table = timetable_of(settings, prior.alphas_cumprod)
    t_min = lowest_timestep_of(settings, len(prior.alphas_cumprod))
    showing = Showing(prior, condition, settings.guidance_scale, WEIGHTINGS[settings.weighting], t_min)
    objective = OBJECTIVES[settings.objective](showing)
    if told is not None:
        objective = both(objective, told, settings.text_weight)
    objective = references.of_novel_views(objective)
    optimizer = adam(settings, scene)
    terms = terms_of(settings, scene, reference)
    cameras = references.with_reference(
        reference_camera_of(settings),
        camera_range(settings),
        lambda progress: references.growing(settings.views_by_part, settings.resolution, progress),
    )

    def steps(done: int) -> Iterator[Step]:
        return optimise(cameras, watch(scene.render), table, objective, terms, optimizer, settings.steps, generator, done)

    return Dream(scene, table, optimizer, generator, steps)


def told_by(settings: Settings) -> Objective:
    """The objective of the prior that reads the prompt: SDS between latents, as strongly guided as it is without a picture."""
    usual = preset("standard", settings.device, settings.text_prior, prompt=settings.prompt, image_residual=0.0)
    second = replace(settings, task="text", prior=settings.text_prior, guidance_scale=usual.guidance_scale)
    embed = load_embed(second)
    prior = load_prior(second.source, second.device, second.options)
    return OBJECTIVES["sds"](asking_of(second, prior, embed))


def image_to_3d(settings: Settings, reference: Reference) -> Dream:
    """A run from a picture: look at it, load the prior, build the scene. Raises `ModelUnavailable`."""
    with BUILDING:
        make_room(settings)
        told = told_by(settings) if settings.text_prior else None
        device, dtype = torch.device(settings.device), dtype_of(settings.device, settings.options)
        look = loading.load_image_encoder(settings.source, device, dtype, settings.options)
        condition = look(reference.image, reference_camera_of(settings)(settings.resolution))
        del look  # a large image encoder is gone before the denoiser comes
        prior = load_prior(settings.source, settings.device, settings.options)
        return compose(settings, prior, condition, reference, told)


def estimated_elevation(settings: Settings, reference: Reference) -> Estimate:
    """From how high a picture was taken, as the run's own prior sees it; whatever `settings` say of it is not looked at.

    Raises `ModelUnavailable`, and ValueError where memory does not suffice.
    """
    try:
        return seen_from(settings, reference)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ValueError("Out of memory while the elevation was estimated: give it, or choose a smaller prior.") from error


def seen_from(settings: Settings, reference: Reference) -> Estimate:
    """The estimate itself; what torch raises passes through."""

    def camera(elevation: float) -> Cameras:
        return reference_camera_of(replace(settings, elevation=math.degrees(elevation)))(settings.resolution)

    with BUILDING:
        make_room(settings)
        device, dtype = torch.device(settings.device), dtype_of(settings.device, settings.options)
        look = loading.load_image_encoder(settings.source, device, dtype, settings.options)
        prior = load_prior(settings.source, settings.device, settings.options)
    with torch.no_grad():
        channels, height, width = prior.encode(reference.image[None].to(device))[0].shape
        return estimate_elevation(
            prior,
            lambda elevation: look(reference.image, camera(elevation)),
            from_above(settings.resolution, *stand_of(settings)),
            (channels, height, width),
            ESTIMATE_GUIDANCE,
        )
