"""Train the embedded Zero-1-to-3: `python -m dreamtime.toybox.train_zero123 --work FOLDER [--output FOLDER]`.

From one picture of an object and a relative pose to its picture from there (Liu et al. 2023), in the same layout as the large
ones: a UNet of eight channels, a CLIP image encoder, and a linear map of [image embedding, pose] to the one token that the
UNet attends to. VAE and UNet begin as the embedded text model's. Each stage is kept in the work folder and resumed where it
stopped: draw the views, encode them, give the lessons on azimuths, train. A GPU draws and encodes them anew and keeps them in
its memory.
"""

import argparse
import copy
import csv
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from dreamtime.checkpoints import write_atomically
from dreamtime.toybox import WEIGHTS, ZERO123, models
from dreamtime.toybox.denoiser import LESSON_STRANGER_SHARE, LESSON_TURNED_SHARE, alone
from dreamtime.toybox.muon import muon
from dreamtime.toybox.novel_views import VIEWS_OF_EACH, NovelViews, Viewpoints, draw_novel_views, random_objects
from dreamtime.toybox.pictures import RESOLUTION
from dreamtime.toybox.symmetry import has_sides
from dreamtime.toybox.training import (
    DEVICES,
    EMA_DECAY,
    HIDING_FROM,
    follow,
    forget_origin,
    initial_vae,
    kept,
    kept_latents,
    loop,
    mixed_precision,
    perhaps_another,
    plain_attention,
    seeded_initialisation,
    stratified_timesteps,
    to_input,
    v_from_x0,
)
from dreamtime.toybox.world import SPLIT

log = logging.getLogger(__name__)

DROPOUT = 0.1  # the share of references that are left out, picture and pose: it trains the unconditional branch
PROJECTION = "cc_projection"  # the part's name in the original's diffusers layout
CURVE = "zero123-loss.csv"
RATE = 1e-3  # the highest learning rate
LESSONS = (alone("cube"), alone("car", "airplane"), has_sides, alone("chair", "sofa"))
"""Which captions: a quarter of a turn, half of one, all that differ from side to side, front from back."""


Curve = tuple[tuple[int, float], ...]
"""Steps, counted over all trainings since the text model, and losses."""


@dataclass(frozen=True)
class Training:
    """What a training was asked to do."""

    objects: int
    steps: int
    batch: int
    seed: int
    turned_share: float = 0.0  # of the noisy pictures, where there is a reference, hide the object from elsewhere
    stranger_share: float = 0.0  # of them hide another object
    earlier: Curve = ()  # of the training that it went on from
    lessons: tuple[int, ...] = ()  # which, counted from 1
    lesson_steps: int = 0  # of each


def views(work: Path, count: int, seed: int, device: torch.device) -> NovelViews:
    """The training set, drawn by the device; raises ValueError if the work folder is another one's."""

    def make() -> dict[str, Tensor]:
        drawn = draw_novel_views(count, Generator().manual_seed(seed), device)
        return {"images": drawn.images, **vars(drawn.viewpoints)}

    places = kept(work / "views.safetensors", {"objects": str(count), "seed": str(seed), "held out": SPLIT}, make, device)
    return NovelViews(places.pop("images"), Viewpoints(**places), random_objects(count, Generator().manual_seed(seed)))


# -- the model


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """Patches of eight pixels, four transformer layers, 64 dimensions out."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=RESOLUTION,
            patch_size=8,
            projection_dim=models.WIDTH,
        )
    )


def initial_parts(start: Path) -> nn.ModuleDict:
    """UNet, image encoder and projection of an earlier Zero-1-to-3, or new ones around the UNet of a text model."""
    unet = UNet2DConditionModel.from_pretrained(start, subfolder="unet", torch_dtype=torch.float32, local_files_only=True)
    if not (start / PROJECTION).is_dir():
        new = {"unet": build_unet(unet), "image_encoder": build_image_encoder()}
        return nn.ModuleDict({**new, "projection": nn.Linear(models.WIDTH + 4, models.WIDTH)})
    forget_origin(unet)
    encoder = CLIPVisionModelWithProjection.from_pretrained(
        start, subfolder="image_encoder", dtype=torch.float32, local_files_only=True
    )
    projection = nn.Linear(models.WIDTH + 4, models.WIDTH)
    tensors = load_file(start / PROJECTION / "diffusion_pytorch_model.safetensors")
    projection.load_state_dict({name.removeprefix("projection."): x for name, x in tensors.items()})
    return nn.ModuleDict({"unet": unet, "image_encoder": encoder, "projection": projection})


def curve_of(path: Path) -> Curve:
    """A training's loss curve; empty where there is none, as of a text model."""
    if not path.exists():
        return ()
    with path.open(newline="") as file:
        return tuple((int(row["step"]), float(row["loss"])) for row in csv.DictReader(file))


def build_unet(start: UNet2DConditionModel) -> UNet2DConditionModel:
    """The text model's UNet with room for the reference's latent, which it ignores at first."""
    unet = UNet2DConditionModel.from_config({**start.config, "in_channels": 8})
    forget_origin(unet)
    weights = start.state_dict()
    weights["conv_in.weight"] = torch.cat([weights["conv_in.weight"], torch.zeros_like(weights["conv_in.weight"])], dim=1)
    unet.load_state_dict(weights)
    return unet


def relative_poses(
    viewpoints: Viewpoints, rows: Int[Tensor, " B"], seen: Int[Tensor, " B"], wanted: Int[Tensor, " B"]
) -> Float[Tensor, "B 4"]:
    """Of those objects' wanted views against the seen ones; as `priors.zero123.relative_pose` has it of cameras."""
    polar = viewpoints.elevation[rows, seen] - viewpoints.elevation[rows, wanted]
    azimuth = viewpoints.azimuth[rows, wanted] - viewpoints.azimuth[rows, seen]
    nearer = viewpoints.distance[rows, wanted] - viewpoints.distance[rows, seen]
    return torch.stack([polar, azimuth.sin(), azimuth.cos(), nearer], dim=-1)


@dataclass(frozen=True)
class Learner:
    """UNet, image encoder and projection, and what they learn from: N objects from K places each, latents as encoded."""

    live: nn.ModuleDict
    scheduler: DDIMScheduler
    known: NovelViews
    latents: Float[Tensor, "N K C h w"]
    scaling: float  # makes their variance 1

    def with_objects(self, rows: list[int]) -> "Learner":
        """The same with some of the objects alone."""
        return replace(self, known=self.known.of(rows), latents=self.latents[rows])

    def loss(self, t: Int[Tensor, " B"], generator: Generator, turned_share: float, stranger_share: float) -> Float[Tensor, ""]:
        """Mean squared error of v on random pairs at those t; some noise hides the object from elsewhere, or another one."""
        batch, device = len(t), self.latents.device
        rows, strangers = torch.randint(len(self.latents), (2, batch), generator=generator)
        seen, wanted = torch.randint(VIEWS_OF_EACH, (2, batch), generator=generator)
        other = (wanted + torch.randint(1, VIEWS_OF_EACH, (batch,), generator=generator)) % VIEWS_OF_EACH
        x, turned, strange = (
            self.latents[of, view].float() * self.scaling for of, view in ((rows, wanted), (rows, other), (strangers, other))
        )
        told = torch.rand(batch, generator=generator) >= DROPOUT
        shown = perhaps_another(x, turned, t, turned_share * told, generator)
        shown = perhaps_another(shown, strange, t, stranger_share * told, generator)
        noise = torch.randn(x.shape, generator=generator).to(x)
        pose = relative_poses(self.known.viewpoints, rows, seen, wanted).to(device)
        kept = told[:, None, None, None].float().to(device)
        with mixed_precision(device):
            embedding = self.live["image_encoder"](to_input(self.known.images[rows, seen], device)).image_embeds
        token = self.live["projection"](torch.cat([embedding.float(), pose], dim=-1))[:, None] * kept[:, :, 0]
        t = t.to(device)
        z_t = self.scheduler.add_noise(shown, noise, t)
        both = torch.cat([z_t, self.latents[rows, seen].float() * kept], dim=1)
        with mixed_precision(device):
            velocity = self.live["unet"](both.contiguous(memory_format=torch.channels_last), t, token).sample
        v = v_from_x0(z_t, x, self.scheduler.alphas_cumprod.to(device), t)
        return F.mse_loss(velocity.float(), v)


def check_lessons(work: Path, training: Training) -> None:
    """Note in the work folder which lessons its training has; raises ValueError where one is there that has others."""
    asked, note = f"{len(training.lessons)} lessons {training.lessons} of {training.lesson_steps} steps", work / "lessons.txt"
    begun = any(work.glob("lesson-*.safetensors")) or (work / "zero123.safetensors").exists()
    found = note.read_text() if note.exists() else "no lessons"
    if begun and found != asked and (note.exists() or training.lessons):
        raise ValueError(f"The work folder {work} holds a training with {found}, not with {asked}: choose another one.")
    write_atomically(note, lambda path: path.write_text(asked))


def teach_azimuths(learner: Learner, work: Path, training: Training) -> None:
    """The lessons asked for, which make the network turn what it sees: 8,600 steps on all kinds at once had not taught it.

    At high t alone, where noise hides the object from elsewhere more often than not: what is told has to be heeded.
    """
    generator, timesteps = Generator().manual_seed(training.seed + 1), learner.scheduler.config.num_train_timesteps
    for number in training.lessons:
        rows = [row for row, what in enumerate(learner.known.objects) if LESSONS[number - 1](what.caption)]
        if not rows:
            log.info("no objects for lesson %d", number)
            continue
        part = learner.with_objects(rows)

        def loss_of_step(part: Learner = part) -> Tensor:
            t = HIDING_FROM + stratified_timesteps(training.batch, timesteps - HIDING_FROM, generator)
            return part.loss(t, generator, LESSON_TURNED_SHARE, LESSON_STRANGER_SHARE)

        modules, optimizer = {"live": learner.live}, muon(learner.live, RATE)
        loop(f"lesson-{number}", training.lesson_steps, work, modules, optimizer, RATE, generator, loss_of_step, lambda: None)


def train(
    known: NovelViews,
    latents: Float[Tensor, "N K C h w"],
    start: Path,
    scaling: float,
    work: Path,
    training: Training,
    compiled: bool = False,
) -> nn.ModuleDict:
    """EMA weights of the UNet, the image encoder and the projection after their steps of v-prediction."""
    scheduler, device = models.build_scheduler(), latents.device
    with seeded_initialisation(training.seed):
        live = initial_parts(start).to(device)
    plain_attention(live)
    live.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in the stub
    if compiled:
        live["unet"].compile()
    learner, generator = Learner(live, scheduler, known, latents, scaling), Generator().manual_seed(training.seed)
    check_lessons(work, training)
    teach_azimuths(learner, work, training)
    average, optimizer = copy.deepcopy(live).requires_grad_(False), muon(live, RATE)

    def loss_of_step() -> Tensor:
        t = stratified_timesteps(training.batch, scheduler.config.num_train_timesteps, generator)
        return learner.loss(t, generator, training.turned_share, training.stranger_share)

    modules = {"live": live, "average": average}
    loop("zero123", training.steps, work, modules, optimizer, RATE, generator, loss_of_step, lambda: follow(average, live))
    return average


# -- the result


def export(vae: AutoencoderKL, parts: nn.ModuleDict, folder: Path) -> None:
    """Write the original's diffusers layout: VAE and UNet in fp16, files under 10 MB each."""
    folder.mkdir(parents=True, exist_ok=True)
    modules: dict[str, Any] = {"vae": vae, "unet": parts["unet"], "image_encoder": parts["image_encoder"]}
    for name, module in modules.items():
        module.half().save_pretrained(folder / name, max_shard_size="9MB")
    models.build_scheduler().save_pretrained(folder / "scheduler")
    half = [0.5, 0.5, 0.5]
    processor = CLIPImageProcessor(size={"shortest_edge": RESOLUTION}, crop_size=RESOLUTION, image_mean=half, image_std=half)
    processor.save_pretrained(folder / "feature_extractor")
    projection = folder / PROJECTION
    projection.mkdir(exist_ok=True)
    tensors = {f"projection.{name}": x.contiguous() for name, x in parts["projection"].state_dict().items()}
    save_file(tensors, projection / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    described = {"_class_name": "CCProjection", "in_channel": models.WIDTH + 4, "out_channel": models.WIDTH}
    (projection / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    index = {
        "_class_name": "Zero1to3StableDiffusionPipeline",
        PROJECTION: ["pipeline_zero1to3", "CCProjection"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def write_card(folder: Path, work: Path, training: Training, parameters: dict[str, int]) -> None:
    """README.md with data, steps, losses and limits, and beside it the loss curve, which goes on from the earlier one."""
    before = training.earlier[-1][0] if training.earlier else 0
    latest = [(before + step, loss) for step, loss in curve_of(work / "zero123.csv")]
    with (folder / CURVE).open("w", newline="") as file:
        csv.writer(file).writerows([("step", "loss"), *training.earlier, *latest])
    final = latest[-1][1]
    began = f" It went on from the weights of {before:,} steps." if before else ""
    start = " --start EARLIER" if training.earlier else ""
    sizes = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parameters.items())
    lessons = asked = ""
    if training.lessons:
        numbers = " ".join(map(str, training.lessons))
        lessons = f"""
  Before them came lessons on azimuths ({numbers} of `train_zero123.LESSONS`, {training.lesson_steps} steps each): at t of
  {HIDING_FROM} and more the noise hides another side in {LESSON_TURNED_SHARE:.0%}, another object in
  {LESSON_STRANGER_SHARE:.0%}."""
        asked = f"\n  --lesson-steps {training.lesson_steps} --lessons {numbers}"
    turned, strange = training.turned_share, training.stranger_share
    hidden = exchanged = ""
    if turned or strange:
        hidden = f"""
  Where t is {HIDING_FROM} or more, the noise of some hides the object from elsewhere ({turned:.0%}) or another one
  ({strange:.0%}), so that reference and pose have to be heeded (`training.perhaps_another`)."""
        exchanged = f" --turned-share {turned:g} --stranger-share {strange:g}"
    folder.joinpath("README.md").write_text(f"""---
license: apache-2.0
library_name: diffusers
pipeline_tag: image-to-3d
---

# The toybox Zero-1-to-3

From one picture of a small coloured object before white, and a relative pose, to its picture from there: the layout of the
diffusers conversions of Zero-1-to-3 (Liu et al. 2023), small enough for a CPU.

* **Data.** {training.objects:,} objects of the toybox that are not held out, each from {VIEWS_OF_EACH} random places:
  elevation -10 to 45 degrees (a fifth from 45 to 80), any azimuth, distance 1.6 to 2.2, field of view 49.1 degrees, lit from
  the camera.
* **Parts.** {sizes}. The VAE is the text model's, and the UNet began as the text model's.
* **Training.** {training.steps:,} steps of {training.batch} pairs, v-prediction, Muon at 1e-3 (AdamW for what is no matrix)
  with warm-up, plateau and linear decay, EMA {EMA_DECAY}; a tenth without the reference.{hidden}{lessons}{began}
  Final loss {final:.4f}; curve: `{CURVE}`.
* **Made again by** `python -m dreamtime.toybox.train_zero123 --work FOLDER --objects {training.objects}
  --steps {training.steps} --batch {training.batch} --seed {training.seed}{exchanged}{asked}{start}`; it resumes where it
  stopped.

## Limits

It knows the toybox and nothing else: of a photograph it keeps colours and rough proportions at best.
""")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train the embedded Zero-1-to-3 on the procedural toybox world.")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for views, checkpoints and logs; resumes what it finds"
    )
    parser.add_argument("--output", type=Path, default=ZERO123, help="where the model is written (default: the package's own)")
    parser.add_argument(
        "--start",
        type=Path,
        default=WEIGHTS,
        help="a text model or an earlier Zero-1-to-3 to begin from (default: the embedded text model)",
    )
    parser.add_argument("--objects", type=int, default=12_000, help="training objects (default %(default)s)")
    every = range(1, len(LESSONS) + 1)
    words = "steps of each of the lessons on azimuths that come first; 300 teach them (default %(default)s: none)"
    parser.add_argument("--lesson-steps", type=int, default=0, help=words)
    words = f"which of the {len(LESSONS)}, in which order (default: all)"
    parser.add_argument("--lessons", type=int, nargs="+", choices=every, metavar="N", help=words)
    parser.add_argument("--steps", type=int, default=8000, help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="pairs per step (default %(default)s)")
    for name, of in (("turned", "the object from elsewhere"), ("stranger", "another object")):
        words = f"share of the noisy pictures at high t that hide {of} (default %(default)s)"
        parser.add_argument(f"--{name}-share", type=float, default=0.0, help=words)
    parser.add_argument("--seed", type=int, default=2000, help="not the text model's (default %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile the UNet first, which needs a C++ compiler")
    parser.add_argument("--device", choices=DEVICES, default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    work, start, device = arguments.work, arguments.start, torch.device(arguments.device)
    work.mkdir(parents=True, exist_ok=True)
    if arguments.lesson_steps < 0 or (arguments.lessons and not arguments.lesson_steps):
        parser.error(f"--lesson-steps: lessons take at least 1 step each, got {arguments.lesson_steps}")
    for share in (arguments.turned_share, arguments.stranger_share):
        if not 0 <= share <= 1:
            parser.error(f"--turned-share, --stranger-share: expected a share from 0 to 1, got {share:g}")
    training = Training(
        arguments.objects,
        arguments.steps,
        arguments.batch,
        arguments.seed,
        arguments.turned_share,
        arguments.stranger_share,
        curve_of(start / CURVE),
        tuple(dict.fromkeys(arguments.lessons or every)) if arguments.lesson_steps else (),
        arguments.lesson_steps,
    )
    vae = initial_vae(start).to(device).eval().requires_grad_(False)
    known = views(work, training.objects, training.seed, device)
    flat = kept_latents(vae, known.images.flatten(0, 1), work / "view-latents.safetensors", device)
    latents = flat.unflatten(0, known.images.shape[:2])
    parts = train(known, latents, start, vae.config.scaling_factor, work, training, arguments.compile)
    sizes = {name.replace("_", " "): sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    export(vae, parts, arguments.output)
    write_card(arguments.output, work, training, sizes)


if __name__ == "__main__":
    main()
