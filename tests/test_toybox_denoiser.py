"""What the UNet and the text encoder are told of a picture, and which pictures a lesson shows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, nn

from dreamtime.cameras import CameraRange, sample_cameras, turntable
from dreamtime.priors.camera_embedding import CameraEmbedding, poses_of
from dreamtime.prompts import View
from dreamtime.toybox import denoiser, models
from dreamtime.toybox.denoiser import Denoiser
from dreamtime.toybox.reading import Reading
from dreamtime.toybox.training import HIDING_FROM, Training


def test_a_distraction_is_one_more_word_often_of_another_script(generator: Callable[[int], Generator]):
    draw, caption = generator(0), "a red cube, front view"
    places, latin, tokenizer = set(), list[bool](), models.build_tokenizer()
    for _ in range(200):
        distracted = denoiser.distracted(caption, draw)
        words = distracted.split(" ")
        (place,) = [i for i, word in enumerate(words) if word not in caption.split(" ")]
        assert " ".join(words[:place] + words[place + 1 :]) == caption
        assert 3 <= len(words[place]) <= 8
        latin.append(words[place].isascii())
        assert not latin[-1] or (words[place].isalpha() and words[place].islower())
        places.add(place)
        assert len(tokenizer(distracted).input_ids) < models.MAX_TOKENS
    assert places == {0, 1, 2, 3, 4}
    assert 0.4 < sum(latin) / len(latin) < 0.6


def test_captions_tell_the_view_they_are_given_or_leave_out_everything(generator: Callable[[int], Generator]):
    draw = generator(1)
    captions = [denoiser.caption_of("a red cube", "side", draw) for _ in range(4000)]
    told = [caption for caption in captions if caption]
    assert captions.count("") / len(captions) == pytest.approx(denoiser.CAPTION_DROPOUT, abs=0.02)
    assert all("side" in caption for caption in told)
    assert "a red cube, side view" in told
    assert "a red cube" in {denoiser.caption_of("a red cube", None, draw) for _ in range(20)}


class Faint(nn.Module):
    """In a UNet's place: it answers its input times a factor, 0 at first, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = CameraEmbedding(8, text_width=models.WIDTH)
        nn.init.normal_(self.class_embedding.reworded.weight, generator=Generator().manual_seed(0))
        self.factor = nn.Parameter(torch.zeros(()))
        self.heard: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, z_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, class_labels: torch.Tensor) -> SimpleNamespace:
        self.heard.append((text, class_labels))
        return SimpleNamespace(sample=self.factor * z_t)


AROUND = poses_of(turntable(40, 8))


@pytest.fixture
def numbered() -> Denoiser:
    """A network, and forty pictures of which each is its own number."""
    tokenizer, scheduler = models.build_tokenizer(), models.build_scheduler()
    live = nn.ModuleDict({"unet": Faint(), "text_encoder": models.build_text_encoder(tokenizer), "reading": Reading()})
    latents = torch.arange(40)[:, None, None, None].expand(-1, 4, 16, 16).half()
    worded = ["a red cube", "a box"] * 8 + ["a blue ball"] * 12 + ["a green car"] * 12
    return Denoiser(live, tokenizer, scheduler, latents, worded, ["side"] * 40, AROUND)


def plan(**asked: Any) -> Training:
    none = dict.fromkeys(("vae_steps", "tiny_vae_steps", "reading_steps", "lesson_steps", "steps", "seed"), 0)
    known = {**none, "pictures": 40, "vae_batch": 16, "tiny_vae_batch": 32, "batch": 600}
    every = tuple(range(1, len(denoiser.LESSONS) + 1))
    return Training(**{"lessons": every, **known, **asked}, learning_rate=1e-3)


Asked = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Of both exchanges: the number of each picture and of the other one, t, and the chance of each."""
    seen: Asked = []

    def spy(x: torch.Tensor, other: torch.Tensor, t: torch.Tensor, chance: torch.Tensor, draw: Generator) -> torch.Tensor:
        seen.append((x[:, 0, 0, 0], other[:, 0, 0, 0], t, chance))
        return x

    monkeypatch.setattr(denoiser, "perhaps_another", spy)
    return seen


def test_pictures_that_are_no_pairs_are_refused(numbered: Denoiser):
    with pytest.raises(ValueError, match="in pairs"):
        numbered.with_pictures(list(range(39)))
    with pytest.raises(ValueError, match="in pairs"):
        replace(numbered, poses=poses_of(sample_cameras(40, 8, CameraRange(), Generator().manual_seed(0))))


def test_a_training_knows_the_other_side_of_each_picture(numbered: Denoiser, asked: Asked, tmp_path: Path):
    denoiser.train_denoiser(numbered, tmp_path, plan(steps=2))
    x, other, t, chance = (torch.cat(part) for part in zip(*asked[::2], strict=True))
    assert len(x.unique()) == 40
    assert torch.equal(other, x + 1 - 2 * (x % 2))
    assert t.min() < 20
    assert t.max() > 980
    strange = torch.cat([each[-1] for each in asked[1::2]])
    told = strange > 0
    assert told.float().mean().item() == pytest.approx(1 - denoiser.CAMERA_DROPOUT, abs=0.04)
    assert strange[told].unique().tolist() == pytest.approx([denoiser.STRANGER_SHARE])
    assert chance[told].unique().tolist() == pytest.approx([denoiser.TURNED_SHARE])
    assert not chance[~told].any(), "all are seen from the side: no caption tells one from the other"


def test_reading_is_taught_to_the_text_encoder_alone_and_goes_on_beside_the_pictures(numbered: Denoiser, tmp_path: Path):
    def now() -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in numbered.live.state_dict().items()}

    begun = now()
    denoiser.teach_reading(numbered, tmp_path, plan(reading_steps=2, batch=4))
    taught = now()
    changed = {name.split(".")[0] for name, value in taught.items() if not torch.equal(value, begun[name])}
    assert changed == {"text_encoder", "reading"}
    assert not any(parameter.grad is not None for parameter in numbered.live["unet"].parameters())
    denoiser.train_denoiser(numbered, tmp_path, plan(steps=2, batch=8))
    assert not torch.equal(now()["reading.names.weight"], taught["reading.names.weight"])


def test_where_no_camera_is_told_noise_turns_what_the_caption_tells_the_side_of(numbered: Denoiser, asked: Asked):
    """One of every two pairs is seen from the front and from behind, the other from the side twice."""
    views: list[View] = ["front", "back", "side", "side"]
    pairs = replace(numbered, views=views * 10)
    with torch.no_grad():
        pairs.loss(torch.full((1500,), 500), torch.zeros(1500, dtype=torch.bool), Generator().manual_seed(0), 0.7, 0.4, 0.3)
    (x, _, _, turned), (_, _, _, strange) = asked
    assert not strange.any()
    apart = x % 4 < 2
    assert not turned[~apart].any()
    assert turned.unique().tolist() == pytest.approx([0, 0.3])
    told = (1 - denoiser.CAPTION_DROPOUT) * (1 - denoiser.UNTOLD_VIEW_DROPOUT)
    assert (turned[apart] > 0).float().mean().item() == pytest.approx(told, abs=0.05)


def test_captions_leave_the_view_out_as_often_as_said(numbered: Denoiser, monkeypatch: pytest.MonkeyPatch):
    seen: list[View | None] = []

    def spy(words: str, view: View | None, draw: Generator) -> str:
        seen.append(view)
        return words

    monkeypatch.setattr(denoiser, "caption_of", spy)
    for told, expected in ((True, denoiser.VIEW_DROPOUT), (False, denoiser.UNTOLD_VIEW_DROPOUT)):
        seen.clear()
        with torch.no_grad():
            numbered.loss(torch.full((1500,), 500), torch.full((1500,), told), Generator().manual_seed(0))
        assert set(seen) == {"side", None}
        assert seen.count(None) / len(seen) == pytest.approx(expected, abs=0.04)


def test_lessons_tell_every_camera_and_start_with_what_is_easy(numbered: Denoiser, asked: Asked, tmp_path: Path):
    before = {name: parameter.clone() for name, parameter in numbered.live.named_parameters()}
    given = denoiser.teach_sides(numbered, tmp_path, plan(lesson_steps=2, batch=200))
    assert given == (1, 2, 3, 4, 6), "there are no chairs, no pairs and no houses"
    shown = [set(x.int().tolist()) for x, *_ in asked[::4]]
    cubes, cars = set(range(16)), set(range(28, 40))
    assert shown == [cubes, cubes | cars, cars, cubes | cars, cubes | cars]
    assert all(t.min() >= HIDING_FROM for _, _, t, _ in asked)
    turned, strange = (torch.cat([chance for *_, chance in asked[which::2]]).unique().tolist() for which in (0, 1))
    assert turned == pytest.approx([denoiser.LESSON_TURNED_SHARE])
    assert strange == pytest.approx([denoiser.LESSON_STRANGER_SHARE])
    assert not torch.equal(before["unet.factor"], numbered.live["unet"].factor)


def test_lessons_can_be_chosen(numbered: Denoiser, asked: Asked, tmp_path: Path):
    assert denoiser.teach_sides(numbered, tmp_path, plan(lesson_steps=2, lessons=(3, 1), batch=200)) == (3, 1)
    assert [set(x.int().tolist()) for x, *_ in asked[::4]] == [set(range(28, 40)), set(range(16))]


def test_a_lesson_without_pictures_falls_away(numbered: Denoiser, asked: Asked, tmp_path: Path):
    balls = numbered.with_pictures(list(range(16, 28)))
    assert denoiser.teach_sides(balls, tmp_path, plan(lesson_steps=2)) == ()
    assert not asked
    assert not list(tmp_path.iterdir())


def test_the_network_is_asked_for_the_picture_where_the_noise_hides_the_other_side(numbered: Denoiser):
    """Pictures of 0 beside pictures of 2, all turned: v = alpha (alpha y + sigma eps) / sigma - x / sigma, y the other one's.

    A network that answers 0 errs by its mean square, alpha^2 + ((2 alpha^2)^2 + 2^2) / (2 sigma^2).
    """
    pairs = replace(numbered, latents=2 * (numbered.latents % 2))
    t, told = torch.full((400,), 500), torch.ones(400, dtype=torch.bool)
    abar = numbered.scheduler.alphas_cumprod[500].item()
    turned = abar + (4 * abar**2 + 4) / (2 * (1 - abar))
    straight = abar + 2 * (1 - abar)  # v = alpha eps - sigma x
    for share, expected in ((1.0, turned), (0.0, straight)):
        loss = pairs.loss(t, told, Generator().manual_seed(0), turned_share=share).item()
        assert loss == pytest.approx(expected, rel=0.06)


def test_the_network_hears_of_the_cameras_it_is_told_and_of_no_others(numbered: Denoiser, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(denoiser, "caption_of", lambda words, view, draw: words)
    told = torch.arange(60) % 2 == 0
    numbered.loss(torch.full((60,), 500), told, Generator().manual_seed(0), 0.5, 0.3)
    ((text, poses),) = numbered.live["unet"].heard
    assert not poses[~told].any()
    assert all((AROUND == pose).all(1).any() for pose in poses[told])
    tokens = numbered.tokenizer(sorted(set(numbered.worded)), padding="max_length", return_tensors="pt").input_ids
    plain = numbered.live["text_encoder"](tokens)[0]
    apart = (text[:, None] - plain).abs().amax((2, 3)).amin(1)
    assert apart[~told].max() < 1e-3
    assert apart[told].min() > 0.1  # read from there, the words say something else


def test_a_stranger_stands_before_a_like_background(numbered: Denoiser, generator: Callable[[int], Generator]):
    draw = generator(0)
    shade = torch.rand(400, generator=draw)
    latents = torch.randn(400, 4, 16, 16, generator=draw)
    latents[:, :, [0, 0, -1, -1], [0, -1, 0, -1]] = (shade[:, None] * torch.tensor([1.0, -2.0, 0.5, 0.0]))[..., None]
    many = replace(numbered, latents=latents, worded=["a box"] * 400, views=["side"] * 400, poses=poses_of(turntable(400, 8)))
    rows = torch.randint(400, (2000,), generator=draw)
    others = many.strangers(rows, draw)
    assert not (others == rows).any()
    apart = (shade[others] - shade[rows]).abs()
    assert apart.quantile(0.7) < 0.27  # a quarter of all are near enough; at the end of the scale one begins anew
    assert len(others.unique()) > 350
