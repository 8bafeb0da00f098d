"""How the embedded model's UNet and text encoder learn: v-prediction (Salimans & Ho 2022) on captions and told cameras.

First come lessons on azimuths, which are not learnt otherwise, then all pictures.
"""

import copy
import logging
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from transformers import CLIPTokenizer

from dreamtime.prompts import View, with_view
from dreamtime.toybox.card import Training
from dreamtime.toybox.kinds import KINDS
from dreamtime.toybox.training import (
    TURNED_FROM,
    TURNED_SHARE,
    follow,
    loop,
    perhaps_turned,
    stratified_timesteps,
    velocity_to,
)
from dreamtime.toybox.world import Thing, kinds_named

log = logging.getLogger(__name__)

CAPTION_DROPOUT = 0.12  # the share of captions replaced by "", which trains the unconditional branch
CAMERA_DROPOUT = 0.15  # the share of pictures of whose camera nothing is told beyond the caption's view
VIEW_DROPOUT = 0.4  # the share of captions without their view, which leaves the azimuth to what is told of the camera
LESSONS = ((("cube",), 1e-3), ((), 5e-4), (("car", "airplane"), 1e-3), ((), 5e-4))  # kinds (none: all with sides), rates
LESSON_TURNED_SHARE = 0.6  # as TURNED_SHARE, in lessons
DISTRACTION = 0.1  # the share of captions that get a meaningless word, so that unknown words do no harm


# -- words


def distracted(caption: str, generator: Generator) -> str:
    """The caption with a word of random letters put in front of one of its words."""
    words = caption.split(" ")
    letters = torch.randint(26, (int(torch.randint(3, 9, (), generator=generator)),), generator=generator)
    place = int(torch.randint(len(words), (), generator=generator))
    return " ".join([*words[:place], "".join(chr(ord("a") + letter) for letter in letters.tolist()), *words[place:]])


def caption_of(words: str, view: View, generator: Generator) -> str:
    """What is told of a picture in words: an object from a view; at times without it, with a meaningless word, or nothing."""
    if torch.rand((), generator=generator) < CAPTION_DROPOUT:
        return ""
    viewless = torch.rand((), generator=generator) < VIEW_DROPOUT
    caption = words if viewless else with_view(words, view)
    return distracted(caption, generator) if torch.rand((), generator=generator) < DISTRACTION else caption


# -- sides


def other_side(rows: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The rows of pictures of the same objects from another azimuth: pictures come in pairs."""
    return rows ^ 1


@lru_cache(maxsize=len(KINDS))
def is_round(kind: str) -> bool:
    """Whether a kind looks the same from every azimuth."""
    points = 0.6 * torch.randn(4000, 3, generator=Generator().manual_seed(0))
    (x, y, z), thing = points.unbind(-1), Thing(kind, "red")
    turned = torch.stack([math.cos(1) * x - math.sin(1) * y, math.sin(1) * x + math.cos(1) * y, z], dim=-1)
    same = (thing.distance(points) - thing.distance(turned)).abs() < 1e-3
    return bool(same.all() and ((thing.albedo(points) - thing.albedo(turned)).abs() < 1e-3).float().mean() > 0.99)


def shows_sides(caption: str, kinds: tuple[str, ...]) -> bool:
    """Whether what the caption names is of these kinds alone; of no kinds: whether anything of it is not round."""
    named = kinds_named(caption)
    return set(named) <= set(kinds) if kinds else not all(map(is_round, named))


# -- the network


@dataclass(frozen=True)
class Teaching:
    """A UNet with its text encoder, and the N pictures they learn from: latents of unit variance, words, views, cameras.

    The pictures come in pairs of one object, side by side (`other_side`).
    """

    live: nn.ModuleDict
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    latents: Float[Tensor, "N C h w"]
    worded: list[str]
    views: list[View]
    poses: Float[Tensor, "N P"]

    def with_pictures(self, rows: list[int]) -> "Teaching":
        """The same with some of the pictures alone."""
        worded, views = ([told[row] for row in rows] for told in (self.worded, self.views))
        return replace(self, latents=self.latents[rows], worded=worded, views=views, poses=self.poses[rows])

    def loss(
        self, t: Int[Tensor, " B"], told: Bool[Tensor, " B"], turned_share: float, generator: Generator
    ) -> Float[Tensor, ""]:
        """Mean squared error of v on random pictures at those t, of whose cameras the network is told or not."""
        rows, device = torch.randint(len(self.latents), (len(t),), generator=generator), self.latents.device
        x, other = (
            self.latents[which].float().contiguous(memory_format=torch.channels_last) for which in (rows, other_side(rows))
        )
        captions = [caption_of(self.worded[row], self.views[row], generator) for row in rows.tolist()]
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noise = torch.randn(x.shape, generator=generator).to(x)
        shown, t = perhaps_turned(x, other, t, told, generator, turned_share), t.to(device)
        z_t, poses = self.scheduler.add_noise(shown, noise, t), (told[:, None] * self.poses[rows]).to(device)
        text = self.live["unet"].class_embedding.reread(self.live["text_encoder"](tokens.to(device))[0], poses)
        with torch.autocast(device.type, torch.bfloat16):
            velocity = self.live["unet"](z_t, t, text, class_labels=poses).sample
        meant = velocity_to(x, z_t, self.scheduler.alphas_cumprod.to(device), t)
        return nn.functional.mse_loss(velocity.float(), meant)

    def optimizer(self, rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.live.parameters(), lr=rate, weight_decay=1e-3, betas=(0.9, 0.99))


def teach_sides(teaching: Teaching, work: Path, training: Training) -> None:
    """Lessons that make the network listen to azimuths: of a few kinds, then of all that are not round, twice.

    From all kinds at once 15,000 steps taught it none of them. Cubes alone teach it theirs in 200, and other kinds follow.
    """
    generator, timesteps = Generator().manual_seed(training.seed + 2), teaching.scheduler.config.num_train_timesteps
    for number, (kinds, rate) in enumerate(LESSONS, 1):
        rows = [row for row, words in enumerate(teaching.worded) if shows_sides(words, kinds)]
        if not rows:
            log.info("no pictures for lesson %d", number)
            continue
        sided = teaching.with_pictures(rows)

        def loss_of_step(sided: Teaching = sided) -> Tensor:
            t = TURNED_FROM + stratified_timesteps(training.batch, timesteps - TURNED_FROM, generator)
            return sided.loss(t, torch.ones(len(t), dtype=torch.bool), LESSON_TURNED_SHARE, generator)

        modules, optimizer = {"live": teaching.live}, teaching.optimizer(rate)
        loop(f"lesson-{number}", training.lesson_steps, work, modules, optimizer, rate, generator, loss_of_step, lambda: None)


def train_denoiser(teaching: Teaching, work: Path, training: Training) -> tuple[nn.Module, nn.Module]:
    """EMA weights of the UNet, its embedding of cameras within, and of the text encoder after their steps of v-prediction."""
    live, rate, timesteps = teaching.live, training.learning_rate, teaching.scheduler.config.num_train_timesteps
    average, generator = copy.deepcopy(live).requires_grad_(False), Generator().manual_seed(training.seed + 1)

    def loss_of_step() -> Tensor:
        t = stratified_timesteps(training.batch, timesteps, generator)
        told = torch.rand(len(t), generator=generator) >= CAMERA_DROPOUT
        return teaching.loss(t, told, TURNED_SHARE, generator)

    modules, optimizer = {"live": live, "average": average}, teaching.optimizer(rate)
    loop("denoiser", training.steps, work, modules, optimizer, rate, generator, loss_of_step, lambda: follow(average, live))
    return average["unet"], average["text_encoder"]
