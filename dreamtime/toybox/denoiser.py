"""How the embedded model's UNet and text encoder learn: v-prediction (Salimans & Ho 2022) on captions and told cameras.

First may come exercises in reading captions, without pictures, and lessons on azimuths, which are not learnt otherwise; then
all pictures, and reading beside them.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from transformers import CLIPTokenizer

from dreamtime.priors.camera_embedding import AZIMUTH
from dreamtime.prompts import View, with_view
from dreamtime.toybox.symmetry import has_sides, neighbours
from dreamtime.toybox.training import (
    HIDING_FROM,
    Training,
    follow,
    loop,
    mixed_precision,
    perhaps_another,
    stratified_timesteps,
    v_from_x0,
)
from dreamtime.toybox.world import kinds_named

log = logging.getLogger(__name__)

PAIRS_AS_OFTEN = 3  # how many times as often as anything else a pair is shown
CAPTION_DROPOUT = 0.12  # the share of captions replaced by "", which trains the unconditional branch
CAMERA_DROPOUT = 0.4  # the share of pictures of whose camera nothing is told beyond the caption's view
VIEW_DROPOUT = 0.4  # the share of captions without their view where the camera is told, which leaves the azimuth to it
UNTOLD_VIEW_DROPOUT = 0.15  # as that, where it is not told
DISTRACTION = 0.1  # the share of captions that get a meaningless word, so that unknown words do no harm
TURNED_SHARE = 0.15  # of the noisy pictures whose camera is told hide the object from elsewhere
STRANGER_SHARE = 0.35  # of the same hide another object
UNTOLD_TURNED_SHARE = 0.3  # of those where the caption alone tells from which side hide the object from elsewhere
LESSON_TURNED_SHARE = 0.6  # as TURNED_SHARE, in lessons
LESSON_STRANGER_SHARE = 0.1
LATIN = range(ord("a"), ord("z") + 1)
SCRIPTS = (range(0x3B1, 0x3C9), range(0x430, 0x450), range(0x905, 0x939), range(0x4E00, 0x9FA0), range(0x1F300, 0x1F600))
"""Letters of Greek, Russian and Hindi, Chinese characters, emoji: the tokenizer makes bytes of all that is not a known word."""
READING_WEIGHT = 0.02  # of the reading exercises beside the mean square error of v
READING_RATE = 1e-3  # the highest learning rate of the exercises before the pictures
ALIKE = 100  # pictures to choose a stranger from, before the most similar backgrounds


def alone(*kinds: str) -> Callable[[str], bool]:
    """Whether a caption names none but these kinds."""
    return lambda caption: set(kinds_named(caption)) <= set(kinds)


LESSONS = (
    (alone("cube"), 1e-3),
    (has_sides, 5e-4),
    (alone("car", "airplane"), 1e-3),
    (has_sides, 5e-4),
    (alone("chair", "sofa"), 1e-3),
    (has_sides, 1e-3),
    (neighbours, 1e-3),
    (alone("house", "robot", "airplane"), 1e-3),
)
"""Which captions, and the highest learning rate: a quarter of a turn, half of one, front from back, left from right, and front
from back of what shows it least."""


# -- words


def meaningless_word(generator: Generator) -> str:
    """Three to eight random letters, half of the words of Latin ones, else of one of `SCRIPTS`."""
    script = SCRIPTS[int(torch.randint(len(SCRIPTS), (), generator=generator))]
    letters = LATIN if torch.rand((), generator=generator) < 0.5 else script
    length = int(torch.randint(3, 9, (), generator=generator))
    return "".join(
        chr(letter) for letter in torch.randint(letters.start, letters.stop, (length,), generator=generator).tolist()
    )


def distracted(caption: str, generator: Generator) -> str:
    """The caption with a meaningless word put in front of one of its words."""
    words = caption.split(" ")
    place = int(torch.randint(len(words), (), generator=generator))
    return " ".join([*words[:place], meaningless_word(generator), *words[place:]])


def caption_of(words: str, view: View | None, generator: Generator) -> str:
    """What is told of a picture in words: an object, from a view if given; at times with a meaningless word, or nothing."""
    if torch.rand((), generator=generator) < CAPTION_DROPOUT:
        return ""
    caption = with_view(words, view) if view else words
    return distracted(caption, generator) if torch.rand((), generator=generator) < DISTRACTION else caption


# -- sides


def other_side(rows: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """The rows of pictures of the same objects from another azimuth: pictures come in pairs."""
    return rows ^ 1


# -- the network


@dataclass(frozen=True)
class Denoiser:
    """A UNet, its text encoder with the heads it reads with, and the N pictures they learn from, with words, views, cameras.

    Latents are of unit variance. The pictures come in pairs of one object, side by side (`other_side`).
    """

    live: nn.ModuleDict
    tokenizer: CLIPTokenizer
    scheduler: DDIMScheduler
    latents: Float[Tensor, "N C h w"]
    worded: list[str]
    views: list[View]
    poses: Float[Tensor, "N P"]

    def __post_init__(self) -> None:
        here, there = self.poses[::2], self.poses[1::2]
        if len(here) != len(there) or (here - there)[:, AZIMUTH:].abs().max() > 1e-3:
            raise ValueError("Pictures must come in pairs that differ in the azimuth alone, and some are not.")

    def with_pictures(self, rows: list[int]) -> "Denoiser":
        """The same with some of the pictures alone."""
        worded, views = [self.worded[row] for row in rows], [self.views[row] for row in rows]
        return replace(self, latents=self.latents[rows], worded=worded, views=views, poses=self.poses[rows])

    @cached_property
    def by_background(self) -> Int[Tensor, " N"]:
        """The rows in the order of their backgrounds' shades: of what their corners differ in most."""
        corners = self.latents[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].float().mean(-1).cpu()
        _, _, directions = torch.linalg.svd((corners - corners.mean(0))[:5000], full_matrices=False)
        return (corners @ directions[0]).argsort()

    @cached_property
    def rank(self) -> Int[Tensor, " N"]:
        """Where each row stands in that order."""
        return self.by_background.argsort()

    def tells_sides(self, row: int, view: View | None, caption: str) -> bool:
        """Whether that caption of a picture, with that view in it, tells it from the one of the object's other side."""
        return bool(caption) and view is not None and self.views[row ^ 1] != view  # as in `other_side`

    def strangers(self, rows: Int[Tensor, " B"], generator: Generator) -> Int[Tensor, " B"]:
        """Other pictures before backgrounds much alike, so that these tell nothing of an exchange."""
        further = torch.randint(1, min(ALIKE, len(self.rank)), (len(rows),), generator=generator)
        return self.by_background[(self.rank[rows] + further) % len(self.rank)]

    def loss(
        self,
        t: Int[Tensor, " B"],
        told: Bool[Tensor, " B"],
        generator: Generator,
        turned_share: float = 0.0,
        stranger_share: float = 0.0,
        untold_turned_share: float = 0.0,
    ) -> Float[Tensor, ""]:
        """Mean squared error of v on random pictures at those t, told of their cameras or not; some noise hides another one.

        The first two shares are of those whose camera is told, the last of those where the caption alone tells the side.
        """
        rows, device = torch.randint(len(self.latents), (len(t),), generator=generator), self.latents.device
        x, turned, strange = (
            self.latents[which].float().contiguous(memory_format=torch.channels_last)
            for which in (rows, other_side(rows), self.strangers(rows, generator))
        )
        viewless = torch.rand(len(t), generator=generator) < torch.where(told, VIEW_DROPOUT, UNTOLD_VIEW_DROPOUT)
        named = [None if silent else self.views[row] for row, silent in zip(rows.tolist(), viewless.tolist(), strict=True)]
        captions = [caption_of(self.worded[row], view, generator) for row, view in zip(rows.tolist(), named, strict=True)]
        sides = torch.tensor([self.tells_sides(*each) for each in zip(rows.tolist(), named, captions, strict=True)])
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        noise = torch.randn(x.shape, generator=generator).to(x)
        chance = torch.where(told, turned_share, untold_turned_share * sides)
        shown = perhaps_another(x, turned, t, chance, generator)
        shown = perhaps_another(shown, strange, t, stranger_share * told, generator)
        t, poses = t.to(device), (told[:, None] * self.poses[rows]).to(device)
        z_t = self.scheduler.add_noise(shown, noise, t)
        unet: Any = self.live["unet"]
        text = unet.class_embedding.reread(self.live["text_encoder"](tokens.to(device))[0], poses)
        with mixed_precision(device):
            velocity = unet(z_t, t, text, class_labels=poses).sample
        v = v_from_x0(z_t, x, self.scheduler.alphas_cumprod.to(device), t)
        return nn.functional.mse_loss(velocity.float(), v)

    def reading_loss(self, count: int, generator: Generator, before: nn.Module | None = None) -> Float[Tensor, ""]:
        """The text encoder's reading exercises: so many new captions, read much as `before` did where that is given."""
        reading: Any = self.live["reading"]
        loss: Float[Tensor, ""] = reading.loss(self.live["text_encoder"], self.tokenizer, count, generator, before)
        return loss

    def optimizer(self, rate: float) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.live.parameters(), lr=rate, weight_decay=1e-3, betas=(0.9, 0.99))


def teach_reading(learner: Denoiser, work: Path, training: Training) -> None:
    """Reading exercises before any pictures.

    A text encoder that has learnt from pictures already is held to what it said before, up to the end of each caption, which
    the UNet understands, and finds room for the rest beside that.
    """
    generator, live = Generator().manual_seed(training.seed + 4), learner.live
    before = copy.deepcopy(live["text_encoder"]).requires_grad_(False) if training.start else None

    def loss_of_step() -> Tensor:
        return learner.reading_loss(training.batch, generator, before)

    optimizer = learner.optimizer(READING_RATE)
    loop(
        "reading", training.reading_steps, work, {"live": live}, optimizer, READING_RATE, generator, loss_of_step, lambda: None
    )


def teach_sides(learner: Denoiser, work: Path, training: Training) -> tuple[int, ...]:
    """The lessons asked for, which make the network listen to azimuths; returns those that there were pictures for.

    From all kinds at once 15,000 steps taught it none of them. Cubes alone teach it theirs in 200, and other kinds follow.
    """
    generator, timesteps = Generator().manual_seed(training.seed + 2), learner.scheduler.config.num_train_timesteps
    given = list[int]()
    for number in training.lessons:
        shows, rate = LESSONS[number - 1]
        if not (rows := [row for row, caption in enumerate(learner.worded) if shows(caption)]):
            log.info("no pictures for lesson %d", number)
            continue
        part = learner.with_pictures(rows)

        def loss_of_step(part: Denoiser = part) -> Tensor:
            t = HIDING_FROM + stratified_timesteps(training.batch, timesteps - HIDING_FROM, generator)
            told = torch.ones(len(t), dtype=torch.bool)
            return part.loss(t, told, generator, LESSON_TURNED_SHARE, LESSON_STRANGER_SHARE)

        modules, optimizer = {"live": learner.live}, learner.optimizer(rate)
        loop(f"lesson-{number}", training.lesson_steps, work, modules, optimizer, rate, generator, loss_of_step, lambda: None)
        given.append(number)
    return tuple(given)


def train_denoiser(learner: Denoiser, work: Path, training: Training) -> tuple[nn.Module, nn.Module]:
    """EMA weights of the UNet, its embedding of cameras within, and of the text encoder after their steps of v-prediction.

    The text encoder does its reading exercises beside them.
    """
    live, rate, timesteps = learner.live, training.learning_rate, learner.scheduler.config.num_train_timesteps
    average, generator = copy.deepcopy(live).requires_grad_(False), Generator().manual_seed(training.seed + 1)

    def loss_of_step() -> Tensor:
        t = stratified_timesteps(training.batch, timesteps, generator)
        told = torch.rand(len(t), generator=generator) >= CAMERA_DROPOUT
        seen = learner.loss(t, told, generator, TURNED_SHARE, STRANGER_SHARE, UNTOLD_TURNED_SHARE)
        return seen + READING_WEIGHT * learner.reading_loss(training.batch, generator)

    modules, optimizer = {"live": live, "average": average}, learner.optimizer(rate)
    loop("denoiser", training.steps, work, modules, optimizer, rate, generator, loss_of_step, lambda: follow(average, live))
    return average["unet"], average["text_encoder"]
