"""What the UNet and the text encoder are told of a picture, which pictures a lesson shows, and what they hide in noise."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Generator, nn

from dreamtime.cameras import turntable
from dreamtime.priors.camera_embedding import CameraEmbedding, poses_of
from dreamtime.toybox import models, teaching
from dreamtime.toybox.card import Training
from dreamtime.toybox.teaching import Teaching
from dreamtime.toybox.world import Pair, Thing

ROUND = {"sphere", "cylinder", "cone", "torus", "capsule", "egg"}


def test_a_distraction_is_one_more_word_of_letters(generator: Callable[[int], Generator]):
    draw, caption = generator(0), "a red cube, front view"
    places = set()
    for _ in range(60):
        words = teaching.distracted(caption, draw).split(" ")
        (place,) = [i for i, word in enumerate(words) if word not in caption.split(" ")]
        assert " ".join(words[:place] + words[place + 1 :]) == caption
        assert words[place].isalpha()
        assert words[place].islower()
        assert 3 <= len(words[place]) <= 8
        places.add(place)
    assert places == {0, 1, 2, 3, 4}


def test_captions_leave_out_the_view_or_everything_as_often_as_said(generator: Callable[[int], Generator]):
    draw = generator(1)
    captions = [teaching.caption_of("a red cube", "side", draw) for _ in range(4000)]
    told = [caption for caption in captions if caption]
    viewless = [caption for caption in told if "side" not in caption]
    assert captions.count("") / len(captions) == pytest.approx(teaching.CAPTION_DROPOUT, abs=0.02)
    assert len(viewless) / len(told) == pytest.approx(teaching.VIEW_DROPOUT, abs=0.03)
    assert {"a red cube", "a red cube, side view"} < set(told)


def test_a_lesson_shows_its_kinds_alone_or_all_that_have_sides():
    cube, ball, car = (Thing(kind, "red").caption for kind in ("cube", "sphere", "car"))
    pair = Pair(Thing("cube", "red"), "on top of", Thing("sphere", "blue")).caption
    assert [teaching.shows_sides(words, ("cube",)) for words in (cube, ball, car, pair)] == [True, False, False, False]
    assert [teaching.shows_sides(words, ()) for words in (cube, ball, car, pair)] == [True, False, True, True]
    assert all(map(teaching.is_round, ROUND))
    assert not any(map(teaching.is_round, ("cube", "pyramid", "car", "mug", "robot", "house")))


class Faint(nn.Module):
    """In a UNet's place: it answers its input times a factor, 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = CameraEmbedding(8, text_width=models.WIDTH)
        self.factor = nn.Parameter(torch.zeros(()))

    def forward(self, z_t: torch.Tensor, *_: torch.Tensor, **__: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(sample=self.factor * z_t)


@pytest.fixture
def numbered() -> Teaching:
    """A network, and forty pictures of which each is its own number."""
    live = nn.ModuleDict({"unet": Faint(), "text_encoder": models.build_text_encoder(models.build_tokenizer())})
    latents = torch.arange(40)[:, None, None, None].expand(-1, 4, 16, 16).half()
    worded = ["a red cube", "a box"] * 8 + ["a blue ball"] * 12 + ["a green car"] * 12
    tokenizer, scheduler = models.build_tokenizer(), models.build_scheduler()
    return Teaching(live, tokenizer, scheduler, latents, worded, ["side"] * 40, poses_of(turntable(40, 8)))


Asked = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """The number of each picture asked for and of its other side, t, whether the camera is told, and the share turned."""
    seen: Asked = []

    def spy(
        x: torch.Tensor, other: torch.Tensor, t: torch.Tensor, told: torch.Tensor, draw: Generator, share: float
    ) -> torch.Tensor:
        seen.append((x[:, 0, 0, 0], other[:, 0, 0, 0], t, told, share))
        return x

    monkeypatch.setattr(teaching, "perhaps_turned", spy)
    return seen


def test_a_training_knows_the_other_side_of_each_picture(numbered: Teaching, asked: Asked, tmp_path: Path):
    teaching.train_denoiser(numbered, tmp_path, Training(40, 0, 16, 0, 2, 600, 0))
    x, other, t, told = (torch.cat(part) for part in list(zip(*asked, strict=True))[:4])
    assert len(x.unique()) == 40
    assert torch.equal(other, x + 1 - 2 * (x % 2))
    assert t.min() < 20
    assert t.max() > 980
    assert told.float().mean().item() == pytest.approx(1 - teaching.CAMERA_DROPOUT, abs=0.04)
    assert {share for *_, share in asked} == {teaching.TURNED_SHARE}


def test_lessons_tell_every_camera_and_start_with_what_is_easy(
    numbered: Teaching, asked: Asked, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    before = [parameter.clone() for parameter in numbered.live.parameters()]
    teaching.teach_sides(numbered, tmp_path, Training(40, 0, 16, 2, 0, 600, 0))
    shown = [set(x.int().tolist()) for x, *_ in asked[::2]]
    cubes, cars = set(range(16)), set(range(28, 40))
    assert shown == [cubes, cubes | cars, cars, cubes | cars]
    for _, _, t, told, share in asked:
        assert told.all()
        assert t.min() >= teaching.TURNED_FROM
        assert share == teaching.LESSON_TURNED_SHARE
    assert any(not torch.equal(*both) for both in zip(before, numbered.live.parameters(), strict=True))


def test_a_lesson_without_pictures_falls_away(numbered: Teaching, asked: Asked, tmp_path: Path):
    balls = numbered.with_pictures(list(range(16, 28)))
    teaching.teach_sides(balls, tmp_path, Training(12, 0, 16, 2, 0, 8, 0))
    assert not asked
    assert not list(tmp_path.iterdir())


def test_the_loss_is_that_of_the_velocity(numbered: Teaching):
    """A network that answers 0 errs by v itself: at t = 0 that is the noise, of variance 1, at t = T the picture, here 0."""
    black, told = replace(numbered, latents=0 * numbered.latents), torch.zeros(64, dtype=torch.bool)
    for t, expected in ((0, 1.0), (999, 0.0)):
        loss = black.loss(torch.full((64,), t), told, 0.0, Generator().manual_seed(0))
        assert loss.item() == pytest.approx(expected, abs=0.02)
