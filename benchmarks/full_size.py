"""Dry runs at full size: the true architectures with random weights, through every preset and method, in half precision.

    python -m benchmarks.full_size [--models stable-diffusion-1.5 ...] [--presets draft ... prolificdreamer ...] [--steps 20]

A method is taken at the size of `standard`. Views are as large as at the end of a run. No weights are
needed: what is measured is whether a step fits, how long its parts take, and whether all numbers stay finite.
Writes `full_size.md` beside this file. It needs CUDA, and says so where there is none; `--rehearse` runs the same code on a CPU
with the models shrunk a thousandfold, which proves the script and nothing else.
"""

import argparse
import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.clock import Clock, now
from dreamtime import beforehand, image_to_3d, presets, text_to_3d
from dreamtime.assembly import Dream
from dreamtime.generation import NonFiniteStep
from dreamtime.methods import METHODS
from dreamtime.preprocess import Reference
from dreamtime.presets import Settings
from dreamtime.priors import skeletons
from dreamtime.priors.architectures import PUBLISHED, Configuration
from dreamtime.priors.deepfloyd import DeepFloydPrior
from dreamtime.priors.rectified_flow import RectifiedFlowPrior
from dreamtime.types import DiffusionPrior, Renderer
from dreamtime.ui.server import disc

HERE = Path(__file__).parent
MODELS = ("stable-diffusion-1.5", "stable-diffusion-2.1-base", "deepfloyd-if-xl", "zero123-xl")
NAMES = (*presets.PRESETS["gpu"], *(name for name in METHODS if name != "dreamtime"))  # that one is the preset standard
PARTS = ("render", "encode", "denoise")
WARM_UP = 3  # steps that are not counted: kernels are chosen and memory is laid out


# -- models


def filled(module: nn.Module, device: torch.device, generator: Generator) -> nn.Module:
    """A skeleton with flesh: weights of unit gain, norms that scale by one, biases of zero."""
    if any(True for _ in module.buffers()):
        raise ValueError(f"A {type(module).__name__} has buffers, which chance cannot fill.")
    module.to_empty(device=device)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.data.fill_(float(name.endswith("weight")))
    return module


def built(configuration: Configuration, device: torch.device, dtype: torch.dtype) -> tuple[DiffusionPrior, tuple[int, int]]:
    """A model of random weights, and the tokens and width of its condition."""
    generator = Generator(device).manual_seed(0)
    prior, shape = skeletons.prior_of(configuration, dtype), skeletons.condition_shape(configuration)
    for part in vars(prior).values():
        if isinstance(part, nn.Module):
            filled(part, device, generator)
    return prior, shape


# -- measuring


def watch_module(module: nn.Module, name: str, clock: Clock) -> None:
    """Count what a module takes as that part of a step; a copy of it, such as VSD's second predictor, counts alike."""
    began = [0.0]

    def before(*_: Any) -> None:
        began[0] = now()

    def after(*_: Any) -> None:
        clock.spent[name] += now() - began[0]

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def watch_prior(prior: Any, clock: Clock) -> None:
    """Count its encoder, where it has one, and its denoiser."""
    if not isinstance(prior, DeepFloydPrior):  # which looks at pixels
        watch_module(prior.vae.model.encoder, "encode", clock)
    watch_module(prior.transformer if isinstance(prior, RectifiedFlowPrior) else prior.unet, "denoise", clock)


@dataclass(frozen=True)
class Measured:
    """Milliseconds of a mean step by part, gigabytes at the peak, and whether all losses and gradients were finite."""

    parts: dict[str, float]
    step: float
    gigabytes: float
    finite: str


def peak_gigabytes() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else float("nan")


def dream_of(settings: Settings, prior: DiffusionPrior, shape: tuple[int, int], dtype: torch.dtype, clock: Clock) -> Dream:
    """A run around that prior whose conditions, from texts or a picture, are chance."""
    device = torch.device(settings.device)
    chance = Generator(device).manual_seed(1)

    def drawn(count: int) -> Tensor:
        return torch.randn(count, *shape, generator=chance, device=device, dtype=dtype)

    def watch(render: Renderer) -> Renderer:
        return clock.timed("render", render)

    if settings.task == "image":
        unseen, seen = drawn(1), drawn(1)
        reference = disc()
        return image_to_3d.compose(
            settings,
            prior,
            lambda cameras: (unseen.expand(len(cameras), -1, -1), seen.expand(len(cameras), -1, -1)),
            Reference(reference.image.to(device), reference.mask.to(device)),
            None,
            watch,
        )
    return text_to_3d.compose(settings, prior, lambda prompts: drawn(len(prompts)), watch)


def measure(configuration: Configuration, settings: Settings, steps: int, dtype: torch.dtype) -> Measured:
    """So many steps of a run, after a few that are not counted."""
    device, clock = torch.device(settings.device), Clock()
    if torch.cuda.is_available():
        gc.collect()  # the model before this one
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    prior, shape = built(configuration, device, dtype)
    watch_prior(prior, clock)
    dream = dream_of(settings, prior, shape, dtype, clock)
    began, finite = now(), "yes"
    try:
        for index, _ in enumerate(dream.steps(0), start=1):
            if index == WARM_UP:
                clock.spent.clear()
                began = now()
            if index == WARM_UP + steps:
                break
    except NonFiniteStep as problem:
        finite = f"no: {problem}"
    whole = (now() - began) / steps
    parts = {name: clock.spent[name] / steps for name in PARTS}
    return Measured({**parts, "backward and Adam": whole - sum(parts.values())}, whole, peak_gigabytes(), finite)


def row(model: str, preset: str, measured: Measured, foretold: str) -> str:
    milliseconds = [f"{value:.1f}" for value in (*measured.parts.values(), measured.step)]
    return f"| {model} | {preset} | {' | '.join(milliseconds)} | {measured.gigabytes:.1f} | {foretold} | {measured.finite} |"


HEAD = [
    "| model | preset | render | encode | denoise | backward and Adam | whole step, ms | peak, GB | foretold, GB | finite |",
    "|---" * 10 + "|",
]


def foretold(settings: Settings) -> str:
    """Gigabytes that `beforehand.memory_of` expects, the encoders of texts or pictures left out: none is loaded here."""
    needed = beforehand.memory_of(settings)
    return f"{(sum(needed.values()) - needed['text encoders']) / 2**30:.1f}"


def settings_of(model: str, name: str, device: str) -> Settings | None:
    """A model's preset of that name, or a method's at the size of `standard`; None for a method that it cannot serve."""
    if model in image_to_3d.PRIORS:
        if name in METHODS:
            return None
        return replace(image_to_3d.image_preset(name, device, model), doublings=0, early_views=())
    size, method = ("standard", name) if name in METHODS else (name, "dreamtime")
    return presets.preset(size, device, model, method, prompt="a red cube")


def rows(models: list[str], names: list[str], steps: int) -> Iterator[str]:
    """The table, line by line as it comes."""
    yield from HEAD
    for model in models:
        for name in names:
            if (settings := settings_of(model, name, "cuda")) is None:
                continue
            try:
                yield row(model, name, measure(PUBLISHED[model], settings, steps, torch.float16), foretold(settings))
            except torch.OutOfMemoryError:
                yield f"| {model} | {name} |{' – |' * 6} {foretold(settings)} | does not fit |"


# -- rehearsal


def shrunk(configuration: Configuration) -> Configuration:
    """The same architecture with layers of a few channels and pictures of a few pixels."""
    unet: dict[str, Any] = {**configuration["unet"], "norm_num_groups": 4, "layers_per_block": 1}
    unet |= {"block_out_channels": (8, 8, 16, 16), "attention_head_dim": 4, "cross_attention_dim": 32, "sample_size": 8}
    if "encoder_hid_dim" in unet:
        unet |= {"encoder_hid_dim": 16, "addition_embed_type_num_heads": 4, "attention_head_dim": 8}
        unet["block_out_channels"] = (16, 16, 16, 32)
    vae = {**configuration.get("vae", {}), "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4}
    return {**configuration, "unet": unet, **({"vae": vae} if "vae" in configuration else {})}


def rehearsal(models: list[str], names: list[str], steps: int) -> Iterator[str]:
    """The table of the shrunk models on a CPU: its numbers mean nothing."""
    yield from HEAD
    for model in models:
        for name in names:
            if settings := settings_of(model, name, "cpu"):
                small = replace(settings, resolution=16, samples_per_ray=16, views=1, representation="feature-grid")
                yield row(model, name, measure(shrunk(PUBLISHED[model]), small, steps, torch.float32), "–")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="NAME")
    parser.add_argument("--presets", nargs="+", default=NAMES, choices=NAMES, metavar="NAME", help="presets and methods")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rehearse", action="store_true", help="shrunk models on the CPU, to try the script itself")
    arguments = parser.parse_args()
    if arguments.rehearse:
        for line in rehearsal(arguments.models, arguments.presets, arguments.steps):
            print(line, flush=True)
        return
    if not torch.cuda.is_available():
        print("There is no CUDA device here, so nothing was measured: the full-size dry runs need one.")
        return
    date, card = datetime.now(timezone.utc).date(), torch.cuda.get_device_name()
    lines = ["# Full size", "", f"{date}, {card}, torch {torch.__version__}, half precision, random weights,"]
    lines += [f"mean of {arguments.steps} steps after {WARM_UP}.", ""]
    for line in rows(arguments.models, arguments.presets, arguments.steps):
        print(line, flush=True)
        lines.append(line)
        (HERE / "full_size.md").write_text("\n".join(lines) + "\n", encoding="utf-8")  # what is measured is kept


if __name__ == "__main__":
    main()
