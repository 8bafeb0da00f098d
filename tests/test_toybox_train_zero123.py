"""The training of the embedded Zero-1-to-3, made tiny: what it writes is what the prior reads."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from dreamtime.priors import zero123
from dreamtime.references import reference_camera
from dreamtime.toybox import WEIGHTS, models, train_zero123
from dreamtime.toybox.novel_views import FIELD_OF_VIEW
from dreamtime.toybox.training import v_from_x0
from dreamtime.toybox.world import Thing


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("zero123")
    sizes = ["--objects", "3", "--steps", "2", "--batch", "2", "--device", "cpu"]
    train_zero123.main(["--work", str(work), "--output", str(work / "out"), *sizes])
    return work


def test_the_prior_reads_what_the_training_writes(trained: Path):
    cpu = torch.device("cpu")
    prior = zero123.load_prior(trained / "out", cpu, torch.float32)
    look = zero123.load_image_encoder(trained / "out", cpu, torch.float32)
    camera = reference_camera(0.3, 1.9, FIELD_OF_VIEW, 64)
    negative, positive = look(torch.ones(64, 64, 3), camera)(camera)
    assert prior.vae.resolution == 64
    assert not negative.any()
    assert torch.isfinite(prior.predict_noise(torch.zeros(1, 4, 16, 16), 500, positive)).all()


def test_no_file_is_larger_than_ten_megabytes(trained: Path):
    sizes = {path.name: path.stat().st_size for path in (trained / "out").rglob("*") if path.is_file()}
    assert max(sizes.values()) < 10e6
    assert {"README.md", "zero123-loss.csv", "model_index.json"} <= sizes.keys()


def test_the_unet_begins_as_the_text_models_and_blind_to_the_reference():
    start = UNet2DConditionModel.from_pretrained(WEIGHTS, subfolder="unet", torch_dtype=torch.float32, local_files_only=True)
    unet = train_zero123.build_unet(start).eval()
    draw = torch.Generator().manual_seed(0)
    z, reference = torch.randn(2, 1, 4, 16, 16, generator=draw)
    token = torch.randn(1, 1, 64, generator=draw)
    told, shown = start.eval()(z, 300, token).sample, unet(torch.cat([z, reference], dim=1), 300, token).sample
    torch.testing.assert_close(shown, told)


def test_noise_hides_the_object_from_elsewhere_or_another_one(trained: Path, monkeypatch: pytest.MonkeyPatch):
    """Latents say which object (tens) and which of its views (ones) they are of."""
    exchanges: list[tuple[torch.Tensor, ...]] = []

    def spy(x: torch.Tensor, other: torch.Tensor, t: torch.Tensor, chance: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
        exchanges.append((x[:, 0, 0, 0], other[:, 0, 0, 0], t, chance))
        return x + 100

    def aim(z_t: torch.Tensor, x: torch.Tensor, alphas_cumprod: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        aims.append(x[:, 0, 0, 0])
        return v_from_x0(z_t, x, alphas_cumprod, t)

    aims: list[torch.Tensor] = []
    monkeypatch.setattr(train_zero123, "perhaps_another", spy)
    monkeypatch.setattr(train_zero123, "v_from_x0", aim)
    known = train_zero123.views(trained, 3, 2000, torch.device("cpu"))
    numbers = 10 * torch.arange(3.0)[:, None] + torch.arange(4.0)
    latents = numbers[:, :, None, None, None].expand(-1, -1, 4, 16, 16) / 5
    parts, draw = train_zero123.initial_parts(trained / "out"), torch.Generator().manual_seed(0)
    learner = train_zero123.Learner(parts, models.build_scheduler(), known, latents, 5.0)
    learner.loss(torch.full((200,), 900), draw, 0.2, 0.3)
    (x, turned, t, first), (exchanged, strange, _, second) = exchanges
    torch.testing.assert_close(exchanged, x + 100)
    assert torch.equal(aims[0], x), "whatever the noise hides, the answer is the view that was asked for"
    assert (t == 900).all()
    x, turned, strange = x.round(), turned.round(), strange.round()
    assert torch.equal(x // 10, turned // 10)
    assert (x % 10 != turned % 10).all()
    assert (x // 10 != strange // 10).float().mean() == pytest.approx(2 / 3, abs=0.1)
    told = first > 0
    assert told.float().mean() == pytest.approx(0.9, abs=0.06)
    assert torch.equal(told, second > 0)
    assert (first[told].unique().tolist(), second[told].unique().tolist()) == (pytest.approx([0.2]), pytest.approx([0.3]))


def test_another_training_set_in_the_folder_is_refused(trained: Path):
    with pytest.raises(ValueError, match="choose another folder"):
        train_zero123.views(trained, 4, 2000, torch.device("cpu"))


def test_a_training_can_go_on_from_an_earlier_one(trained: Path):
    parts = train_zero123.initial_parts(trained / "out")
    unet = UNet2DConditionModel.from_pretrained(trained / "out", subfolder="unet", torch_dtype=torch.float32)
    assert parts["unet"].config.in_channels == 8
    for name, weights in unet.state_dict().items():
        torch.testing.assert_close(parts["unet"].state_dict()[name], weights, rtol=0, atol=0)
    kept = load_file(trained / "out" / train_zero123.PROJECTION / "diffusion_pytorch_model.safetensors")
    assert torch.equal(parts["projection"].weight, kept["projection.weight"])


def test_the_card_counts_the_steps_of_all_trainings(trained: Path, tmp_path: Path):
    curve = train_zero123.curve_of(trained / "out" / train_zero123.CURVE)
    assert [step for step, _ in curve] == [2]
    assert train_zero123.curve_of(WEIGHTS / train_zero123.CURVE) == ()
    earlier = ((2600, 0.5), *((2600 + step, loss) for step, loss in curve))
    training = train_zero123.Training(3, 2, 4, 0, earlier=earlier)
    train_zero123.write_card(tmp_path, trained, training, {"UNet": 1})
    assert "went on from the weights of 2,602 steps" in (tmp_path / "README.md").read_text()
    assert train_zero123.curve_of(tmp_path / train_zero123.CURVE) == (*training.earlier, (2604, curve[0][1]))


def test_the_card_tells_what_noise_hid_and_is_silent_where_it_hid_nothing(trained: Path, tmp_path: Path):
    plain = train_zero123.Training(3, 2, 4, 0)
    train_zero123.write_card(tmp_path, trained, plain, {"UNet": 1})
    assert "hides the object from elsewhere" not in (tmp_path / "README.md").read_text()
    assert "share" not in (tmp_path / "README.md").read_text()
    train_zero123.write_card(tmp_path, trained, replace(plain, turned_share=0.15, stranger_share=0.35), {"UNet": 1})
    card = (tmp_path / "README.md").read_text()
    assert "hides the object from elsewhere (15%) or another one\n  (35%)" in card
    assert "--turned-share 0.15 --stranger-share 0.35`" in card


def test_the_card_tells_of_lessons(trained: Path, tmp_path: Path):
    train_zero123.write_card(tmp_path, trained, train_zero123.Training(3, 2, 4, 0, lessons=(2, 1), lesson_steps=7), {"UNet": 1})
    card = (tmp_path / "README.md").read_text()
    assert "lessons on azimuths (2 1 of `train_zero123.LESSONS`, 7 steps each)" in card
    assert "--lesson-steps 7 --lessons 2 1`" in card


def test_lessons_come_in_order_and_show_their_kinds_alone(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known = train_zero123.views(trained, 3, 2000, torch.device("cpu"))
    objects = [Thing("cube", "red"), Thing("chair", "blue"), Thing("sphere", "green")]
    shown: list[tuple[list[str], float, float]] = []

    def loss(
        self: train_zero123.Learner, t: torch.Tensor, draw: torch.Generator, turned_share: float, stranger_share: float
    ) -> torch.Tensor:
        assert (t >= 350).all()
        assert len(self.latents) == len(self.known.images) == len(self.known.viewpoints.azimuth)
        shown.append(([what.caption for what in self.known.objects], turned_share, stranger_share))
        return self.live["projection"].weight.square().sum()

    monkeypatch.setattr(train_zero123.Learner, "loss", loss)
    parts = train_zero123.initial_parts(trained / "out")
    before = parts["projection"].weight.detach().clone()
    latents = torch.zeros(3, 4, 4, 16, 16)
    learner = train_zero123.Learner(parts, models.build_scheduler(), replace(known, objects=objects), latents, 1.0)
    training = train_zero123.Training(3, 0, 4, 0, lessons=(4, 2, 1, 3), lesson_steps=2)
    train_zero123.teach_azimuths(learner, tmp_path, training)
    chair, cube, sided = ["a blue chair"], ["a red cube"], ["a red cube", "a blue chair"]
    assert [names for names, *_ in shown] == [chair, chair, cube, cube, sided, sided], "cars and airplanes there are none"
    assert {(turned, strange) for _, turned, strange in shown} == {(0.6, 0.1)}
    assert not torch.equal(parts["projection"].weight, before)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["lesson-1.csv", "lesson-3.csv", "lesson-4.csv"]


def test_other_lessons_than_a_folder_has_had_are_refused(trained: Path, tmp_path: Path):
    plain, taught = (train_zero123.Training(3, 2, 2, 0, lessons=lessons, lesson_steps=len(lessons)) for lessons in ((), (1,)))
    train_zero123.check_lessons(trained, plain)
    with pytest.raises(ValueError, match=r"with 0 lessons .* not with 1 lessons .* choose another one"):
        train_zero123.check_lessons(trained, taught)
    train_zero123.check_lessons(tmp_path, taught)
    (tmp_path / "lesson-1.safetensors").touch()
    train_zero123.check_lessons(tmp_path, taught)
    with pytest.raises(ValueError, match="with 1 lessons"):
        train_zero123.check_lessons(tmp_path, plain)


def test_lessons_without_steps_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for arguments in (["--lessons", "1"], ["--lesson-steps", "-5"]):
        with pytest.raises(SystemExit):
            train_zero123.main(["--work", str(tmp_path), *arguments])
        assert "lessons take at least 1 step each" in capsys.readouterr().err


def test_the_objects_of_a_training_set_come_again_with_its_seed(trained: Path):
    drawn = train_zero123.draw_novel_views(3, torch.Generator().manual_seed(2000))
    known = train_zero123.views(trained, 3, 2000, torch.device("cpu"))
    assert known.objects == drawn.objects
    assert torch.equal(known.images, drawn.images)
    part = known.of([2, 0])
    assert part.objects == [known.objects[2], known.objects[0]]
    assert torch.equal(part.images[1], known.images[0])
    assert torch.equal(part.viewpoints.azimuth, known.viewpoints.azimuth[[2, 0]])


def test_a_share_above_one_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train_zero123.main(["--work", str(tmp_path), "--turned-share", "15"])
    assert "expected a share from 0 to 1, got 15" in capsys.readouterr().err
