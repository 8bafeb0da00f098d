"""The whole training, made tiny: what it writes is a pipeline that the library loads, and stopping changes nothing."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import Generator
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from dreamtime.cameras import sample_cameras
from dreamtime.priors.camera_embedding import NUMBERS, CameraEmbedding
from dreamtime.priors.folders import CAMERA_EMBEDDING, TINY_VAE
from dreamtime.prompts import VIEWS
from dreamtime.toybox import models, train, training
from dreamtime.toybox.denoiser import Denoiser
from dreamtime.toybox.kinds import KINDS, SOLIDS
from dreamtime.toybox.known import Known, read_known
from dreamtime.toybox.pictures import WORLD_CAMERAS, render
from dreamtime.toybox.symmetry import one_sided
from dreamtime.toybox.training import seeded_initialisation
from dreamtime.toybox.world import (
    COLORS,
    Object,
    kinds_named,
    random_caption,
    random_object,
    vocabulary,
)
from dreamtime.types import Cameras, Light

CPU = torch.device("cpu")

NO_SAMPLES: Callable[..., None] = lambda *_: None  # noqa: E731 (a stand-in)


def run(folder: Path, output: Path, *more: str, lessons: str = "--lesson-steps 2 --lessons 2 7") -> None:
    few = f"--pictures 64 --vae-steps 2 --tiny-vae-steps 2 --reading-steps 2 {lessons} --steps 2".split()
    train.main(["--work", str(folder), "--output", str(output), *few, "--seed", "3", "--device", "cpu", *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that a training of two steps per stage wrote, beside its work folder `work`."""
    folder = tmp_path_factory.mktemp("toybox")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "sample_sheet", NO_SAMPLES)
        run(folder / "work", folder / "out")
    return folder / "out"


def test_the_library_loads_what_was_written_and_generates(trained: Path):
    pipeline = StableDiffusionPipeline.from_pretrained(trained, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)

    def sample(seed: int) -> torch.Tensor:
        prompt, draw = "a red cube, front view", Generator().manual_seed(seed)
        return pipeline(prompt, num_inference_steps=2, guidance_scale=3.0, generator=draw, output_type="pt").images

    first = sample(0)
    assert first.shape == (1, 3, 64, 64)
    assert first.isfinite().all()
    assert torch.equal(first, sample(0))
    assert not torch.equal(first, sample(1))
    assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)} == {torch.float32}
    assert pipeline.unet.config.sample_size == 16
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_what_was_written_is_small_plain_and_half_precision(trained: Path):
    files = [path for path in trained.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md", ".png", ".csv"}
    assert max(path.stat().st_size for path in files) < 10_000_000
    for part in ("unet", "vae", "text_encoder", CAMERA_EMBEDDING, TINY_VAE):
        shards = list((trained / part).glob("*.safetensors"))
        assert {x.dtype for shard in shards for x in load_file(shard).values() if x.is_floating_point()} == {torch.float16}


def test_latents_are_scaled_to_unit_variance(trained: Path):
    vae = StableDiffusionPipeline.from_pretrained(trained, local_files_only=True).vae
    images = load_file(trained.parent / "work" / "pictures.safetensors")["images"]
    x = torch.cat([images, images.flip(2)]).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        scaled = vae.encode(x).latent_dist.mean * vae.config.scaling_factor
    assert math.isclose(scaled.std().item(), 1, rel_tol=0.01)


def test_stopping_and_resuming_gives_the_same_weights(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save = training.save_checkpoint

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        if arguments[-1] == {"step": "1"}:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "sample_sheet", NO_SAMPLES)
    monkeypatch.setattr(training, "save_checkpoint", save_and_stop)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 1)
    stages = [path.stem for path in (trained.parent / "work").glob("*.safetensors") if (path.with_suffix(".csv")).exists()]
    assert {"vae", "tiny-vae", "reading", "lesson-2", "denoiser"} <= set(stages)
    for _ in stages:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "work", tmp_path / "out")
    run(tmp_path / "work", tmp_path / "out")
    weights = [path.relative_to(trained) for path in trained.rglob("*.safetensors")]
    assert len(weights) >= 3
    for path in weights:
        whole, resumed = load_file(trained / path), load_file(tmp_path / "out" / path)
        assert whole.keys() == resumed.keys()
        for name, value in whole.items():
            assert torch.equal(value, resumed[name]), name
    assert json.loads((trained / "vae/config.json").read_text()) == json.loads((tmp_path / "out/vae/config.json").read_text())


def test_a_sample_sheet_has_a_row_per_twelve_prompts(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "sheet_prompts", lambda kinds: ["a red cube, front view", "a blue torus, back view"])
    train.sample_sheet(trained, tmp_path / "samples.png", [])
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.size == (768, 64)
        assert sheet.getpixel((767, 0)) == (255, 255, 255)


@pytest.mark.parametrize("kinds", [list(KINDS), list(SOLIDS)])
def test_the_sheet_asks_for_every_kind_from_every_view(kinds: list[str]):
    prompts = train.sheet_prompts(kinds)
    assert len(prompts) == len(set(prompts))
    assert 80 < len(prompts) <= 112
    assert all(sum(f" {kind}, {view} view" in prompt for prompt in prompts) >= 1 for kind in kinds for view in VIEWS)


def embedding_in(folder: Path) -> CameraEmbedding:
    embedding: CameraEmbedding = CameraEmbedding.from_pretrained(folder, subfolder=CAMERA_EMBEDDING, torch_dtype=torch.float32)
    return embedding


def begun_from(folder: Path) -> tuple[set[str], set[str]]:
    """The weights that a training begun from a pipeline shares with it, and all of the UNet's names."""
    old = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    with seeded_initialisation(5):
        begun = train.initial_denoiser(folder).state_dict()
    weights = {f"unet.{name}": value for name, value in old.unet.state_dict().items()}
    weights |= {f"text_encoder.{name}": value for name, value in old.text_encoder.state_dict().items()}
    weights |= {f"unet.class_embedding.{name}": value for name, value in embedding_in(folder).state_dict().items()}
    return {name for name, value in weights.items() if torch.equal(begun[name], value.float())}, weights.keys()


def test_a_training_can_begin_from_an_earlier_one_of_the_same_words(trained: Path):
    same, names = begun_from(trained)
    assert same == names


def test_from_one_that_did_not_read_the_words_anew_all_else_is_kept(trained: Path, tmp_path: Path):
    assert embedding_in(trained).config.text_width == models.WIDTH
    assert embedding_in(trained).reworded.weight.abs().max() > 0
    shutil.copytree(trained, tmp_path / "older")
    older, width = CameraEmbedding(embedding_in(trained).config.width), models.WIDTH
    older.load_state_dict(
        {name: value for name, value in embedding_in(trained).state_dict().items() if name in older.state_dict()}
    )
    older.save_pretrained(tmp_path / "older" / CAMERA_EMBEDDING)
    same, names = begun_from(tmp_path / "older")
    assert same == names
    begun = train.initial_denoiser(tmp_path / "older")["unet"].class_embedding
    text, poses = torch.ones(1, 2, width), torch.ones(1, NUMBERS)
    assert torch.equal(begun.reread(text, poses), text)


def test_from_one_of_fewer_words_only_the_new_ones_begin_anew(trained: Path, monkeypatch: pytest.MonkeyPatch):
    words = models.vocabulary()
    monkeypatch.setattr(models, "vocabulary", lambda: [*words, "dragon"])
    same, names = begun_from(trained)
    assert names - same == {name for name in names if "token_embedding" in name}
    old = StableDiffusionPipeline.from_pretrained(trained, local_files_only=True)
    text, tokenizer = "a red cube next to a blue cone, side view", models.build_tokenizer()
    begun = train.initial_denoiser(trained)["text_encoder"]
    with torch.no_grad():
        embedded, as_before = (
            encoder(reader(text, padding="max_length", return_tensors="pt").input_ids)[0]
            for encoder, reader in ((begun, tokenizer), (old.text_encoder, old.tokenizer))
        )
    assert len(tokenizer.tokenize("dragon")) == 1
    assert torch.equal(embedded, as_before)


def test_from_one_of_fewer_layers_the_text_reads_as_before_and_the_new_ones_can_learn(
    trained: Path, monkeypatch: pytest.MonkeyPatch
):
    old = StableDiffusionPipeline.from_pretrained(trained, local_files_only=True)
    build, layers = models.build_text_encoder, old.text_encoder.config.num_hidden_layers

    def deeper(tokenizer: CLIPTokenizer) -> CLIPTextModel:
        config = build(tokenizer).config
        config.num_hidden_layers = layers + 2
        return CLIPTextModel(config)

    monkeypatch.setattr(models, "build_text_encoder", deeper)
    begun = train.initial_denoiser(trained)["text_encoder"]
    tokens = old.tokenizer("a red cube next to a blue cone", padding="max_length", return_tensors="pt").input_ids
    embedded = begun(tokens)[0]
    with torch.no_grad():
        assert torch.equal(embedded, old.text_encoder(tokens)[0])
    (embedded * torch.randn(embedded.shape, generator=Generator().manual_seed(0))).sum().backward()
    learning = [layer for layer in begun.modules() if isinstance(layer, CLIPEncoderLayer)]
    assert len(learning) == layers + 2
    for layer in learning:
        assert min(last.weight.grad.abs().max() for last in (layer.mlp.fc2, layer.self_attn.out_proj)) > 1e-3


def test_a_training_on_solids_sees_them_alone_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shown: list[str] = []
    train_denoiser = train.train_denoiser

    def spy(learner: Denoiser, *others: Any):
        poses = learner.poses
        assert len(learner.latents) == len(learner.worded) == len(learner.views) == len(poses)
        # Both sides of an object stay next to one another: in all but the azimuth their poses are the same.
        torch.testing.assert_close(poses[::2, 8:], poses[1::2, 8:], atol=1e-4, rtol=0)
        assert (poses[::2, :8] - poses[1::2, :8]).abs().amax(1).min() > 1e-3
        shown.extend(learner.worded)
        return train_denoiser(learner, *others)

    monkeypatch.setattr(train, "sample_sheet", NO_SAMPLES)
    monkeypatch.setattr(train, "train_denoiser", spy)
    run(tmp_path / "work", tmp_path / "out", "--objects", "solids", lessons="--lesson-steps 2 --lessons 1 2 7")
    assert 10 < len(shown) < 80
    assert all(len(kinds_named(caption)) == 1 and kinds_named(caption)[0] in SOLIDS for caption in shown)
    assert read_known(tmp_path / "out") == Known(tuple(SOLIDS), tuple(COLORS), pairs=False)
    told = "then lessons 1, 2 on azimuths (`denoiser.LESSONS`), 2 steps each, then"  # no pairs
    assert told in (tmp_path / "out/README.md").read_text()


def test_lessons_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "sample_sheet", NO_SAMPLES)
    run(tmp_path / "work", tmp_path / "out", "--vae-steps", "0", lessons="")
    assert not list((tmp_path / "work").glob("lesson-*"))
    assert "lessons" not in (tmp_path / "out/README.md").read_text()


def test_other_pictures_are_not_mistaken_for_these(tmp_path: Path):
    first, captions, cameras = train.pictures(tmp_path, 4, 0, CPU)
    again, _, same = train.pictures(tmp_path, 4, 0, CPU)
    assert torch.equal(first, again)
    assert torch.equal(cameras.camera_to_world, same.camera_to_world)
    assert torch.equal(cameras.fov_y, same.fov_y)
    assert len(captions) == len(cameras) == 4
    with pytest.raises(ValueError, match="choose another folder"):
        train.pictures(tmp_path, 4, 1, CPU)


def test_pictures_come_in_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train.main(["--work", str(tmp_path / "work"), "--pictures", "63"])
    assert "an even number, got 63" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("--lessons 7", "without --lesson-steps"), ("--lesson-steps 2 --lessons 7 8 7", "each is given once, got 7 8 7")],
)
def test_lessons_that_make_no_sense_are_refused(asked: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train.main(["--work", str(tmp_path / "work"), *asked.split()])
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], "takes --start and --vae-steps 0"),
        (["--start", "{trained}", "--vae-steps", "5"], "takes --start and --vae-steps 0"),
        (["--start", "{older}", "--vae-steps", "0"], "there is none to keep in"),
    ],
)
def test_a_tiny_vae_is_kept_where_there_is_one_for_the_same_latents(
    more: list[str], expected: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    older = shutil.copytree(trained, tmp_path / "older", ignore=shutil.ignore_patterns(TINY_VAE))
    filled = [word.format(trained=trained, older=older) for word in more]
    with pytest.raises(SystemExit):
        train.main(["--work", str(tmp_path / "work"), "--tiny-vae-steps", "0", *filled])
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_a_training_of_no_steps_writes_what_it_began_with(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "sample_sheet", NO_SAMPLES)
    none = "--vae-steps 0 --tiny-vae-steps 0 --reading-steps 0 --steps 0".split()
    run(tmp_path / "work", tmp_path / "out", "--start", str(trained), *none, lessons="")
    for path in (path.relative_to(trained) for path in trained.rglob("*.safetensors")):
        before, after = load_file(trained / path), load_file(tmp_path / "out" / path)
        assert all(torch.equal(value, after[name]) for name, value in before.items()), path
    vae = "vae/config.json"
    assert json.loads((trained / vae).read_text()) == json.loads((tmp_path / "out" / vae).read_text())
    card = " ".join((tmp_path / "out" / "README.md").read_text().split())
    assert "The VAE is the one it began with. The tiny VAE is the one it began with. UNet: no steps on all pictures." in card


def test_a_mirror_shows_the_picture_from_the_other_side(generator: Callable[[int], Generator]):
    """The world is left as it is and the cameras are moved: most objects have a left and a right alike."""
    draw = generator(4)
    objects = [what for what in (random_object(draw) for _ in range(60)) if not one_sided(what.caption)]
    cameras = sample_cameras(len(objects), 24, WORLD_CAMERAS, draw)
    white, flat = torch.ones(1, 3), torch.ones(1)

    def seen(what: Object, camera: Cameras) -> torch.Tensor:
        return render([what], camera, Light(camera.positions, flat), white)[0][0]

    apart = [
        (seen(what, cameras[row : row + 1]) - seen(what, train.mirrored(cameras[row : row + 1])).flip(1)).abs()
        for row, what in enumerate(objects)
    ]
    assert len(objects) > 40
    assert (torch.stack(apart) > 0.05).float().mean() < 2e-3


def test_the_gradient_difference_sees_slopes_and_no_offset():
    ramp = 0.3 * torch.arange(5.0) + 0.1 * torch.arange(4.0)[:, None]
    a = torch.rand(2, 3, 4, 5, generator=Generator().manual_seed(0))
    assert math.isclose(training.gradient_difference(a + ramp, a).item(), 0.4, rel_tol=1e-5)
    assert training.gradient_difference(a + 0.7, a) < 1e-6


def test_every_word_of_a_caption_is_one_token(generator: Callable[[int], Generator]):
    tokenizer, draw = models.build_tokenizer(), generator(0)
    words = {word for _ in range(300) for word in random_caption(random_object(draw), draw).split()}
    pieces = {word: tuple(tokenizer.tokenize(word)) for word in {*words, *vocabulary()} if word.isalpha()}
    assert pieces == {word: (f"{word}</w>",) for word in pieces}


def test_unknown_words_fall_apart_into_known_letters():
    tokenizer = models.build_tokenizer()
    tokens = tokenizer.tokenize("zyx, Red!")
    assert tokenizer.unk_token_id not in tokenizer("zyx", add_special_tokens=False).input_ids
    assert tokens[-2:] == ["red</w>", "!</w>"]
    assert "".join(tokens).replace("</w>", "") == "zyx,red!"


def test_captions_are_cut_to_the_models_length():
    tokens = models.build_tokenizer()("cube " * 200, padding="max_length", truncation=True).input_ids
    assert len(tokens) == 77


def test_a_training_that_goes_on_may_leave_the_vae_as_it_was(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(train, "sample_sheet", NO_SAMPLES)
    run(tmp_path / "work", tmp_path / "out", "--start", str(trained), "--vae-steps", "0")
    before, after = (
        AutoencoderKL.from_pretrained(folder, subfolder="vae", local_files_only=True).state_dict()
        for folder in (trained, tmp_path / "out")
    )
    assert all(torch.equal(before[name], weights) for name, weights in after.items())
    assert "The VAE is the one it began with." in (tmp_path / "out" / "README.md").read_text()
    assert not (tmp_path / "out" / "vae-loss.csv").exists()
