"""A run from a prompt: every view of the scene is distilled from a prior that reads what it shows."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Generator

from dreamtime.assembly import (
    BUILDING,
    Dream,
    Scene,
    adam,
    asking_of,
    build_scene,
    camera_range,
    load_embed,
    load_prior,
    make_room,
    regularizers_of,
    timetable_of,
)
from dreamtime.cameras import sample_cameras
from dreamtime.generation import optimise
from dreamtime.objectives import OBJECTIVES, Asking
from dreamtime.presets import Settings
from dreamtime.prompts import Embed
from dreamtime.references import growing
from dreamtime.types import Cameras, DiffusionPrior, Renderer, Step


def with_second_predictor(scene: Scene, asking: Asking, learning_rate: float, generator: Generator) -> tuple[Scene, Asking]:
    """The scene and the asking, joined by VSD's LoRA: optimised and checkpointed with the one, asked by the other."""
    from dreamtime.priors import lora

    second = lora.lora_predictor(asking.prior, asking.condition, generator)
    modules, parameters = {**scene.modules, "lora": second.weights}, [*scene.parameters, second.group(learning_rate)]
    return replace(scene, modules=modules, parameters=parameters), replace(asking, second=second)


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
    optimizer = adam(settings, scene)
    objective = OBJECTIVES[settings.objective](asking)

    def views(progress: float, generator: Generator) -> Cameras:
        count, size = growing(settings.views_by_part, settings.resolution, progress)
        return sample_cameras(count, size, camera_range(settings), generator)

    def steps(done: int) -> Iterator[Step]:
        terms = regularizers_of(settings, scene.representation)
        return optimise(views, watch(scene.render), table, objective, terms, optimizer, settings.steps, generator, done)

    return Dream(scene, table, optimizer, generator, steps)


def text_to_3d(settings: Settings) -> Dream:
    """A run from a prompt: embed the prompt, load the prior, build the scene. Raises `ModelUnavailable`."""
    with BUILDING:
        make_room(settings)
        embed = load_embed(settings)  # first, so that a large text encoder is gone before the denoiser comes
        return compose(settings, load_prior(settings.source, settings.device, settings.options), embed)
