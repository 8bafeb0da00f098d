"""What the trainings of the toybox's models share: the loop and its log, weights to begin from, and what is made beforehand."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from diffusers.models.attention_processor import AttnProcessor
from jaxtyping import Float, Int, UInt8
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from dreamtime.checkpoints import digest, load_checkpoint, save_checkpoint, write_atomically
from dreamtime.toybox import models

log = logging.getLogger(__name__)

DEVICES = ("cpu", "cuda")
CHECKPOINT_EVERY = 250  # steps
EMA_DECAY = 0.999
HIDING_FROM = 350  # the least t at which noise may hide another picture: below, it hides little of an outline


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training run was asked to do."""

    pictures: int
    vae_steps: int
    vae_batch: int
    tiny_vae_steps: int
    tiny_vae_batch: int
    reading_steps: int  # of captions alone
    lessons: tuple[int, ...]  # which, counted from 1
    lesson_steps: int  # of each
    steps: int
    batch: int
    seed: int
    learning_rate: float  # the highest of the UNet and the text encoder
    start: str = ""  # the pipeline whose weights it began from; empty: random weights


# -- weights to begin from


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Libraries initialise weights from torch's global generator: seed it here, and leave it outside as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def forget_origin(module: AutoencoderKL | AutoencoderTiny | UNet2DConditionModel) -> None:
    """Take the folder that a module was loaded from out of its configuration: what is written names no path."""
    module._internal_dict = FrozenDict({key: value for key, value in module.config.items() if key != "_name_or_path"})


def initial_vae(start: Path | None) -> AutoencoderKL:
    """An untrained VAE, or the one of the pipeline in `start`."""
    if not start:
        return models.build_vae()
    vae = AutoencoderKL.from_pretrained(start, subfolder="vae", torch_dtype=torch.float32, local_files_only=True)
    forget_origin(vae)
    return vae


def plain_attention(modules: nn.Module) -> None:
    """Let networks on a CPU attend step by step: the fused way is slow to differentiate there.

    A UNet's whole step takes 1.3 times as long with it, that of the small vision transformer of `train_zero123` 1.8 times.
    """
    for module in modules.modules():
        if isinstance(module, UNet2DConditionModel) and module.device.type == "cpu":
            module.set_attn_processor(AttnProcessor())
        elif isinstance(module, PreTrainedModel) and module.device.type == "cpu":
            module.set_attn_implementation("eager")


# -- the loop


def precision_of_products(device: torch.device) -> torch.dtype:
    """bfloat16 where that is faster; on a CPU without AVX-512 it is several times slower than float32."""
    fast = device.type != "cpu" or "AVX512" in torch.backends.cpu.get_cpu_capability()
    return torch.bfloat16 if fast else torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """Products in bfloat16 where that is faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision_of_products(device) == torch.bfloat16)


def warm_stable_decay(step: int, steps: int, warmup: int = 200, decay_share: float = 0.3) -> float:
    """Learning-rate factor: a linear rise, a plateau, and a linear fall to zero over the last `decay_share` of the steps."""
    return min(1.0, step / warmup, (steps - step) / (decay_share * steps))


def stratified_timesteps(batch: int, timesteps: int, generator: Generator) -> Int[Tensor, " B"]:
    """One t per sample, each uniform in its own part of [0, timesteps): every batch covers the whole range."""
    t = ((torch.arange(batch) + torch.rand(batch, generator=generator)) * (timesteps / batch)).long()
    return t.clamp(max=timesteps - 1)  # the last sum may round up to `batch`


def gradient_difference(a: Float[Tensor, "B C H W"], b: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
    """Mean absolute difference of the images' finite differences: it keeps edges crisp."""
    d = a - b
    return d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()


def v_from_x0(
    z_t: Float[Tensor, "B C h w"], x0: Float[Tensor, "B C h w"], alphas_cumprod: Float[Tensor, " T"], t: Int[Tensor, " B"]
) -> Float[Tensor, "B C h w"]:
    """v = (alpha z_t - x0) / sigma, whatever z_t was made of; alpha eps - sigma x0 where it was made of x0. A t per picture."""
    alpha, sigma = (level.sqrt()[:, None, None, None] for level in (alphas_cumprod[t], 1 - alphas_cumprod[t]))
    return (alpha * z_t - x0) / sigma


def perhaps_another(
    x: Float[Tensor, "B C h w"],
    other: Float[Tensor, "B C h w"],
    t: Int[Tensor, " B"],
    chance: Float[Tensor, " B"],
    generator: Generator,
) -> Float[Tensor, "B C h w"]:
    """What the noise is added to: x or, at high t and with that chance, another picture.

    The chance is to be 0 where nothing is told. Noise still shows the object and the side that it hides, so a network that is
    always shown the right ones has little need of what it is told; a rendering that is to be distilled shows a wrong one, or
    none. One that has learnt to doubt what it sees needs no guidance to follow what it is told.
    """
    swapped = (t >= HIDING_FROM) & (torch.rand(len(x), generator=generator) < chance)
    return torch.where(swapped.to(x.device)[:, None, None, None], other, x)


@torch.no_grad()
def follow(average: nn.Module, live: nn.Module) -> None:
    """Move the parameters of an exponential moving average (EMA) on by a step."""
    torch._foreach_lerp_(list(average.parameters()), list(live.parameters()), 1 - EMA_DECAY)


class Log:
    """Losses appended to a CSV file, averaged over the steps between two rows."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.values = path, list[float]()
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        # A run that stopped after its last checkpoint wrote rows that will be written again.
        kept = [row for row in rows if int(row.split(",")[0]) <= step]
        path.write_text("\n".join(["step,loss", *kept, ""]))

    def add(self, step: int, loss: float, last: bool) -> None:
        self.values.append(loss)
        if len(self.values) == 50 or last:
            with self.path.open("a") as file:
                file.write(f"{step},{sum(self.values) / len(self.values):.5f}\n")
            self.values.clear()


def loop(
    name: str,
    steps: int,
    work: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.AdamW,
    learning_rate: float,
    generator: Generator,
    loss_of_step: Callable[[], Tensor],
    after_step: Callable[[], None],
) -> None:
    """The training loop of every stage: resume, step, log, checkpoint. Of no steps nothing is resumed either."""
    if not steps:
        return
    path = work / f"{name}.safetensors"
    done = int(load_checkpoint(path, modules, {"optimizer": optimizer}, generator)["step"]) if path.exists() else 0
    record = Log(work / f"{name}.csv", done)
    for step in tqdm(range(done + 1, steps + 1), desc=name, initial=done, total=steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * warm_stable_decay(step, steps)
        loss = loss_of_step()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
        optimizer.step()
        after_step()
        record.add(step, loss.item(), last=step == steps)
        if step % CHECKPOINT_EVERY == 0 or step == steps:
            save_checkpoint(path, modules, {"optimizer": optimizer}, generator, {"step": str(step)})


# -- pictures, and what is made of them once


def to_input(images: UInt8[Tensor, "B H W 3"], device: torch.device) -> Float[Tensor, "B 3 H W"]:
    """Bytes to [-1, 1], channels first."""
    return (images.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def kept(path: Path, made_as: dict[str, str], make: Callable[[], dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Tensors that a CPU makes once, to be kept in the work folder; a GPU makes them anew whenever a training goes on.

    How they were made is noted beside them; raises ValueError if they are to be made otherwise.
    """
    note = path.with_suffix(".json")
    if note.exists() and (found := json.loads(note.read_text())) != made_as:
        raise ValueError(
            f"The work folder {path.parent} holds a {path.stem} made as {found}, not as {made_as}: choose another folder."
        )
    if device.type == "cpu" and path.exists() and note.exists():
        return load_file(path)
    log.info("making %s", path.stem)
    tensors = make()
    if device.type == "cpu":
        write_atomically(path, lambda temporary: save_file(tensors, temporary))
    write_atomically(note, lambda temporary: temporary.write_text(json.dumps(made_as)))
    return tensors


@torch.no_grad()
def latents_of(vae: AutoencoderKL, images: UInt8[Tensor, "B H W 3"], device: torch.device) -> Float[Tensor, "B C h w"]:
    """Means of the encoded images, unscaled."""
    return torch.cat(
        [vae.encode(to_input(chunk, device)).latent_dist.mean.half() for chunk in tqdm(images.split(128), desc="encode")]
    )


def kept_latents(
    vae: AutoencoderKL, images: UInt8[Tensor, "B H W 3"], path: Path, device: torch.device
) -> Float[Tensor, "B C h w"]:
    """The latents of a training set, kept as above; raises ValueError if those of the folder are another VAE's."""
    made_as = {"vae": digest({}, {name: tensor.cpu() for name, tensor in vae.state_dict().items()})}
    return kept(path, made_as, lambda: {"latents": latents_of(vae, images, device).contiguous()}, device)["latents"]
