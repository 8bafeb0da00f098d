"""Train the embedded model: `python -m dreamtime.toybox.train --work FOLDER [--output FOLDER]`.

Stages, each checkpointed in the work folder and resumed where it stopped: draw the pictures, train the VAE and a tiny one for
its latents (`tiny_vae`), let the text encoder read captions (`reading`), then train it with the UNet (`denoiser`). A GPU draws
the pictures itself and keeps them in its memory. The result is written in the layout of a diffusers `StableDiffusionPipeline`,
fp16, with a sheet of samples.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Generator, Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from dreamtime.cameras import angles_from_position, orbit
from dreamtime.priors.camera_embedding import CameraEmbedding, poses_of
from dreamtime.priors.folders import CAMERA_EMBEDDING, TINY_VAE
from dreamtime.prompts import VIEWS, views_of, with_view
from dreamtime.toybox import WEIGHTS, models
from dreamtime.toybox.card import write_card
from dreamtime.toybox.denoiser import LESSONS, PAIRS_AS_OFTEN, Denoiser, teach_reading, teach_sides, train_denoiser
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.known import Known, write_known
from dreamtime.toybox.pictures import RESOLUTION, contact_sheet, draw_pictures
from dreamtime.toybox.reading import Reading
from dreamtime.toybox.symmetry import one_sided
from dreamtime.toybox.tiny_vae import BATCH as TINY_VAE_BATCH
from dreamtime.toybox.tiny_vae import train_tiny_vae
from dreamtime.toybox.training import (
    DEVICES,
    Training,
    forget_origin,
    gradient_difference,
    initial_vae,
    kept,
    kept_latents,
    loop,
    mixed_precision,
    plain_attention,
    seeded_initialisation,
    to_input,
)
from dreamtime.toybox.world import COLORS, SPLIT, Thing, kinds_named
from dreamtime.types import Cameras

log = logging.getLogger(__name__)

SIDES = 2  # of an object are drawn, alike in all but the azimuth
KL_WEIGHT = 3e-4  # per latent element, against the mean absolute error per pixel


def pictures(work: Path, count: int, seed: int, device: torch.device) -> tuple[UInt8[Tensor, "B H W 3"], list[str], Cameras]:
    """The training set, wordings of its objects, and its cameras; drawn by the device, each object from `SIDES` azimuths.

    Raises ValueError if the work folder is another one's.
    """
    captions = work / "captions.txt"

    def make() -> dict[str, Tensor]:
        drawn = draw_pictures(count, Generator().manual_seed(seed), device=device, sides=SIDES)
        captions.write_text("\n".join(drawn.captions))
        where = {"camera_to_world": drawn.cameras.camera_to_world, "fov_y": drawn.cameras.fov_y}
        return {"images": drawn.images, **where}

    made_as = {"pictures": str(count), "seed": str(seed), "held out": SPLIT, "sides": str(SIDES)}
    made = kept(work / "pictures.safetensors", made_as, make, device)
    cameras = Cameras(made["camera_to_world"], made["fov_y"], RESOLUTION, RESOLUTION)
    return made["images"], captions.read_text().split("\n"), cameras


def mirrored(cameras: Cameras) -> Cameras:
    """Cameras that see an object with a left and a right alike as these do in a mirror."""
    elevation, azimuth, distance = angles_from_position(cameras.positions)
    return orbit(elevation, -azimuth, distance, cameras.fov_y, cameras.height, cameras.width)


def add_nothing(layer: CLIPEncoderLayer) -> None:
    """Let a transformer's layer begin by passing on what it gets: to one that has learnt without it nothing changes."""
    for last in (layer.self_attn.out_proj, layer.mlp.fc2):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


def initial_denoiser(start: Path | None, kinds: Sequence[str] = tuple(KINDS)) -> nn.ModuleDict:
    """An untrained UNet and text encoder, or those of the pipeline in `start`; words and layers that it had not begin anew.

    The UNet's embedding of cameras takes the place of one of classes, which is added to the timestep's in the same way.
    Heads for reading captions of these kinds always begin anew.
    """
    tokenizer = models.build_tokenizer()
    unet, text_encoder = models.build_unet(), models.build_text_encoder(tokenizer)
    cameras = CameraEmbedding(unet.time_embedding.linear_2.out_features, text_width=models.WIDTH)
    if start:
        old = UNet2DConditionModel.from_pretrained(start, subfolder="unet", torch_dtype=torch.float32, local_files_only=True)
        unet.load_state_dict(old.state_dict())
        if (start / CAMERA_EMBEDDING).is_dir():
            learnt = CameraEmbedding.from_pretrained(
                start, subfolder=CAMERA_EMBEDDING, torch_dtype=torch.float32, local_files_only=True
            )
            # One that did not read the text anew yet begins to.
            cameras.load_state_dict({**cameras.state_dict(), **learnt.state_dict()})
        reader = CLIPTextModel.from_pretrained(start, subfolder="text_encoder", dtype=torch.float32, local_files_only=True)
        known = CLIPTokenizer.from_pretrained(start, subfolder="tokenizer", local_files_only=True).get_vocab()
        words = {token: row for token, row in tokenizer.get_vocab().items() if token in known}
        embedding = text_encoder.get_input_embeddings()
        with torch.no_grad():
            embedding.weight[list(words.values())] = reader.get_input_embeddings().weight[[known[token] for token in words]]
        reader.set_input_embeddings(embedding)
        layers = [module for module in text_encoder.modules() if isinstance(module, CLIPEncoderLayer)]
        for layer in layers[reader.config.num_hidden_layers :]:
            add_nothing(layer)
        text_encoder.load_state_dict({**text_encoder.state_dict(), **reader.state_dict()})
    unet.class_embedding = cameras
    return nn.ModuleDict({"unet": unet, "text_encoder": text_encoder, "reading": Reading(kinds)})


def denoiser_to_train(
    start: Path | None, kinds: Sequence[str], seed: int, device: torch.device, compiled: bool
) -> nn.ModuleDict:
    """The same, laid out on its device for training."""
    with seeded_initialisation(seed):
        live = initial_denoiser(start, kinds).to(device)
    live.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in the stub
    plain_attention(live)
    if compiled:
        live["unet"].compile()
    return live


def train_vae(
    images: UInt8[Tensor, "B H W 3"], work: Path, training: Training, start: Path | None, device: torch.device
) -> AutoencoderKL:
    """The VAE after its steps on mean absolute error, edges and a light pull towards a unit Gaussian."""
    steps, batch, seed = training.vae_steps, training.vae_batch, training.seed
    with seeded_initialisation(seed):
        vae = initial_vae(start).to(device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, weight_decay=0.0)
    generator = Generator().manual_seed(seed)

    def loss_of_step() -> Tensor:
        x = to_input(images[torch.randint(len(images), (batch,), generator=generator)], device)
        with mixed_precision(device):
            posterior = vae.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        divergence = posterior.kl().float().mean() / noise[0].numel()
        return (decoded - x).abs().mean() + gradient_difference(decoded, x) + KL_WEIGHT * divergence

    loop("vae", steps, work, {"vae": vae}, optimizer, 1e-3, generator, loss_of_step, lambda: None)
    return vae.eval().requires_grad_(False)


def tiny_vae_beside(
    vae: AutoencoderKL,
    images: UInt8[Tensor, "N H W 3"],
    latents: Float[Tensor, "N C h w"],
    work: Path,
    training: Training,
    start: Path | None,
    device: torch.device,
) -> AutoencoderTiny:
    """A tiny VAE for this one's latents: trained from nothing, or the one in `start` where it is asked for no steps."""
    if training.tiny_vae_steps:
        return train_tiny_vae(vae, images, latents, work, training.tiny_vae_steps, training.seed + 3, device)
    tiny_vae = AutoencoderTiny.from_pretrained(start, subfolder=TINY_VAE, torch_dtype=torch.float32, local_files_only=True)
    forget_origin(tiny_vae)
    return tiny_vae


def export(vae: AutoencoderKL, tiny_vae: AutoencoderTiny, unet: Any, text_encoder: nn.Module, folder: Path) -> None:
    """Write the pipeline, and beside it the tiny VAE and the embedding of cameras: fp16, in files under 10 MB each."""
    cameras, unet.class_embedding = unet.class_embedding, None
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        unet=unet.half(),
        text_encoder=text_encoder.half(),
        tokenizer=models.build_tokenizer(),
        scheduler=models.build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True, max_shard_size="9MB")
    cameras.half().save_pretrained(folder / CAMERA_EMBEDDING, safe_serialization=True)
    tiny_vae.half().save_pretrained(folder / TINY_VAE, safe_serialization=True)
    loaded_in_single_precision(folder / "text_encoder" / "config.json")


def loaded_in_single_precision(config: Path) -> None:
    """Let transformers load a model of that configuration in fp32, whatever its weights are kept in.

    It would follow the weights, diffusers does not, and a pipeline of both would stop at their first product.
    """
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "dtype": "float32"}, indent=2) + "\n")


def sheet_prompts(kinds: Sequence[str]) -> list[str]:
    """Objects of these kinds from their four views, colours in turn, every kind equally often: what the sample sheet shows."""
    colors, rounds = list(COLORS), max(1, 28 // len(kinds))
    things = [Thing(kind, colors[3 * index % len(colors)]) for index, kind in enumerate(list(kinds) * rounds)]
    return [with_view(thing.caption, view) for thing in things for view in VIEWS]


def sample_sheet(folder: Path, path: Path, kinds: Sequence[str], guidance_scale: float = 5.0, seed: int = 0) -> None:
    """One sample per prompt of the sheet, by the library's own pipeline with 30 DDIM steps."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    prompts, images = sheet_prompts(kinds), []
    for start in range(0, len(prompts), 20):
        part = prompts[start : start + 20]
        generators = [Generator().manual_seed(seed + start + row) for row in range(len(part))]
        out = pipeline(
            part,
            num_inference_steps=30,
            guidance_scale=guidance_scale,
            generator=generators,
            output_type="pt",
            height=64,
            width=64,
        )
        images.append(out.images.permute(0, 2, 3, 1))
    Image.fromarray(contact_sheet(torch.cat(images), 12).numpy()).save(path)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the embedded diffusion model on the procedural toybox world.")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for pictures, checkpoints and logs; resumes what it finds"
    )
    parser.add_argument(
        "--output", type=Path, default=WEIGHTS, help="where the pipeline is written (default: the package's own)"
    )
    parser.add_argument("--start", type=Path, help="a pipeline of an earlier training to begin from (default: random weights)")
    parser.add_argument(
        "--objects", choices=("all", "solids"), default="all", help="train on all pictures, or on those of one solid alone"
    )
    parser.add_argument(
        "--pictures", type=int, default=40_000, help="training pictures, two of each object (default %(default)s)"
    )
    parser.add_argument("--vae-steps", type=int, default=4000, help="batches of 16 (default %(default)s)")
    parser.add_argument(
        "--tiny-vae-steps",
        type=int,
        default=5000,
        help=f"batches of {TINY_VAE_BATCH} (default %(default)s); 0 keeps the one in --start, which takes --vae-steps 0",
    )
    parser.add_argument(
        "--reading-steps",
        type=int,
        default=0,
        help="batches of captions without pictures, which the text encoder learns to read first (default %(default)s: none)",
    )
    parser.add_argument(
        "--lesson-steps",
        type=int,
        default=0,
        help="UNet steps of each of the lessons on azimuths that come first; 300 teach them (default %(default)s: none)",
    )
    every = range(1, len(LESSONS) + 1)
    told = f"which of the {len(LESSONS)}, in which order, each once (default: all)"
    parser.add_argument("--lessons", type=int, nargs="+", choices=every, metavar="N", help=told)
    parser.add_argument("--steps", type=int, default=20_000, help="UNet steps (default %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="pictures per UNet step (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, help="the highest (default: 1e-3, or 5e-4 with --start)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="compile the UNet first, which needs a C++ compiler")
    parser.add_argument("--device", choices=DEVICES, default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    if arguments.pictures % SIDES:
        parser.error(f"--pictures: pictures come in pairs, expected an even number, got {arguments.pictures}")
    if arguments.lessons and not arguments.lesson_steps:
        parser.error("--lessons: which lessons are given counts for nothing without --lesson-steps")
    lessons = tuple(arguments.lessons or every)
    if len(set(lessons)) < len(lessons):
        parser.error(f"--lessons: each is given once, got {' '.join(map(str, lessons))}")
    if not arguments.tiny_vae_steps:
        if not arguments.start or arguments.vae_steps:
            parser.error("--tiny-vae-steps: 0 keeps the tiny VAE of an earlier training, which takes --start and --vae-steps 0")
        if not (arguments.start / TINY_VAE).is_dir():
            parser.error(f"--tiny-vae-steps: there is none to keep in {arguments.start}, expected at least 1 step")
    logging.basicConfig(level=logging.INFO)
    work, start, device = arguments.work, arguments.start, torch.device(arguments.device)
    work.mkdir(parents=True, exist_ok=True)

    began = start.name if start else ""
    training = Training(
        pictures=arguments.pictures,
        vae_steps=arguments.vae_steps,
        vae_batch=16,
        tiny_vae_steps=arguments.tiny_vae_steps,
        tiny_vae_batch=TINY_VAE_BATCH,
        reading_steps=arguments.reading_steps,
        lessons=lessons,
        lesson_steps=arguments.lesson_steps,
        steps=arguments.steps,
        batch=arguments.batch,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate or (5e-4 if start else 1e-3),
        start=began,
    )
    images, worded, cameras = pictures(work, training.pictures, training.seed, device)
    vae = train_vae(images, work, training, start, device)
    latents = torch.cat(
        [
            kept_latents(vae, images, work / "latents.safetensors", device),
            kept_latents(vae, images.flip(2), work / "mirrored.safetensors", device),
        ]
    )
    in_the_mirror = mirrored(cameras)
    worded, views = worded * 2, views_of(cameras) + views_of(in_the_mirror)
    poses = torch.cat([poses_of(cameras), poses_of(in_the_mirror)])
    if training.vae_steps or not start:
        # Dividing by the standard deviation gives latents of unit variance, as the noise schedule assumes.
        vae.register_to_config(scaling_factor=round(1 / latents.float().std().item(), 5))
    scaled = latents.float().mul_(vae.config.scaling_factor).half()
    tiny_vae = tiny_vae_beside(vae, images, scaled[: len(images)], work, training, start, device)
    kinds = list(KINDS if arguments.objects == "all" else SOLIDS)
    rows = [row for row in range(len(scaled)) if row < len(images) or not one_sided(worded[row])]
    if arguments.objects == "solids":
        rows = [row for row in rows if len(named := kinds_named(worded[row])) == 1 and named[0] in SOLIDS]
    # Of pairs there are many more than of things alone: they are shown more often.
    rows += [row for row in rows if len(kinds_named(worded[row])) > 1] * (PAIRS_AS_OFTEN - 1)
    live = denoiser_to_train(start, kinds, training.seed + 1, device, arguments.compile)
    learner = Denoiser(live, models.build_tokenizer(), models.build_scheduler(), scaled, worded, views, poses)
    learner = learner.with_pictures(rows)
    teach_reading(learner, work, training)
    given = teach_sides(learner, work, training) if training.lesson_steps else ()
    unet, text_encoder = train_denoiser(learner, work, training)
    parts = {"VAE": vae, "tiny VAE": tiny_vae, "UNet": unet, "text encoder": text_encoder}
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    export(vae, tiny_vae, unet, text_encoder, arguments.output)
    sample_sheet(arguments.output, arguments.output / "samples.png", kinds)
    write_known(arguments.output, Known(tuple(kinds), tuple(COLORS), pairs=arguments.objects == "all"))
    write_card(arguments.output, work, training, parameters, kinds, len(rows), given)


if __name__ == "__main__":
    main()
