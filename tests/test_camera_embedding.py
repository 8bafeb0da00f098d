"""Cameras told as numbers: what a pose says, that silence changes nothing, and that a folder's embedding is heard."""

import math
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_pipeline
from torch import Generator

from dreamtime.cameras import orbit, turntable
from dreamtime.objectives import Asking
from dreamtime.priors import loading, lora
from dreamtime.priors.camera_embedding import NUMBERS, CameraEmbedding, magnification, poses_of
from dreamtime.priors.folders import CAMERA_EMBEDDING
from dreamtime.priors.stable_diffusion import StableDiffusionPrior
from dreamtime.types import Cameras, TellingPrior

CPU, FLOAT = torch.device("cpu"), torch.float32
CAMERAS = turntable(3, 16)
PROMPTS = ["", "a red cube, front view", "a blue ball, side view"]


def camera(elevation: float, azimuth: float, distance: float, fov_y: float) -> Cameras:
    """One camera; angles in radians."""
    return orbit(*(torch.tensor([value]) for value in (elevation, azimuth, distance, fov_y)), 8, 8)


def trained(width: int, text_width: int = 0) -> CameraEmbedding:
    """An embedding that says something."""
    embedding = CameraEmbedding(width, text_width=text_width)
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=Generator().manual_seed(1)))
    return embedding


@pytest.fixture(scope="module", params=["the text as it is", "the text read anew"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline with an embedding of cameras beside it."""
    path = tmp_path_factory.mktemp("told")
    pipeline = tiny_pipeline("v_prediction")
    pipeline.save_pretrained(path)
    text_width = pipeline.unet.config.cross_attention_dim if request.param == "the text read anew" else 0
    trained(pipeline.unet.time_embedding.linear_2.out_features, text_width).save_pretrained(path / CAMERA_EMBEDDING)
    return path


@pytest.fixture(scope="module")
def prior(folder: Path) -> StableDiffusionPrior:
    loaded = loading.load_prior(folder, CPU, FLOAT)
    assert isinstance(loaded, StableDiffusionPrior)
    return loaded


@pytest.fixture(scope="module")
def embedded(folder: Path) -> torch.Tensor:
    return loading.load_text_encoder(folder, CPU, FLOAT)(PROMPTS)


def noisy(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=Generator().manual_seed(seed))


@given(st.floats(-0.2, 1.5), st.floats(-4, 4), st.floats(1.3, 2.5), st.floats(0.6, 1.3))
def test_a_pose_is_never_silence_and_knows_no_full_turn(elevation: float, azimuth: float, distance: float, fov_y: float):
    pose = poses_of(camera(elevation, azimuth, distance, fov_y))
    assert pose.shape == (1, NUMBERS)
    assert pose.norm() > 1
    torch.testing.assert_close(pose, poses_of(camera(elevation, azimuth + 2 * math.pi, distance, fov_y)), atol=1e-4, rtol=0)


def test_near_with_a_wide_lens_is_far_with_a_long_one():
    near, far = camera(0.3, 1.0, 1.0, 2 * math.atan(0.5)), camera(0.3, 1.0, 2.0, 2 * math.atan(0.25))
    torch.testing.assert_close(poses_of(near), poses_of(far), atol=1e-5, rtol=0)
    assert magnification(torch.tensor([2.0]), torch.tensor([2 * math.atan(0.25)])).item() == pytest.approx(2)


@pytest.mark.parametrize("moved", [(0.5, 1.0, 1.8, 0.9), (0.3, 1.1, 1.8, 0.9), (0.3, -1.0, 1.8, 0.9), (0.3, 1.0, 2.0, 0.9)])
def test_every_other_camera_is_another_pose(moved: tuple[float, float, float, float]):
    assert (poses_of(camera(0.3, 1.0, 1.8, 0.9)) - poses_of(camera(*moved))).abs().max() > 0.05


def test_silence_adds_nothing_and_a_new_embedding_says_nothing():
    assert not trained(24)(torch.zeros(2, NUMBERS)).any()
    assert trained(24)(poses_of(CAMERAS)).abs().min() > 0
    assert not CameraEmbedding(24)(poses_of(CAMERAS)).any()


def test_a_text_reads_the_same_where_nothing_is_told_or_nothing_was_learnt():
    text = torch.randn(3, 7, 12, generator=Generator().manual_seed(2))
    assert torch.equal(trained(24, 12).reread(text, torch.zeros(3, NUMBERS)), text)
    assert torch.equal(CameraEmbedding(24, text_width=12).reread(text, poses_of(CAMERAS)), text)
    assert torch.equal(trained(24).reread(text, poses_of(CAMERAS)), text)


def test_a_token_reads_as_the_formula_says():
    """e + R (silu(W e + P p) - silu(W e)), with W and R that keep the first number and P that takes the first of the pose."""
    embedding = CameraEmbedding(8, text_width=2)
    with torch.no_grad():
        for layer in (embedding.word, embedding.pose, embedding.reworded):
            layer.weight.zero_()[0, 0] = 1.0
        embedding.word.bias.zero_()
    text, poses = torch.tensor([[[0.5, 7.0]]]), torch.nn.functional.pad(torch.tensor([[-2.0]]), (0, NUMBERS - 1))
    silu = lambda x: x / (1 + math.exp(-x))  # noqa: E731 (a formula)
    expected = torch.tensor([[[0.5 + silu(0.5 - 2.0) - silu(0.5), 7.0]]])
    torch.testing.assert_close(embedding.reread(text, poses), expected)


def test_each_token_reads_otherwise_from_each_camera_and_by_itself():
    text = torch.randn(1, 7, 12, generator=Generator().manual_seed(2)).expand(3, -1, -1)
    embedding = trained(24, 12)
    added = embedding.reread(text, poses_of(CAMERAS)) - text
    assert (added[0] - added[1]).abs().amin(-1).max() > 1e-3
    assert (added[:, 0] - added[:, 1]).abs().max() > 1e-3  # not a mere shift by the pose, which is the timestep's side
    torch.testing.assert_close(embedding.reread(text[:, 2:3], poses_of(CAMERAS)) - text[:, 2:3], added[:, 2:3])


def test_what_is_told_is_understood(prior: StableDiffusionPrior, embedded: torch.Tensor):
    assert isinstance(prior, TellingPrior)
    tokens, poses = prior.understood(prior.tell(embedded, CAMERAS))
    assert torch.equal(tokens, prior.unet.class_embedding.reread(embedded, poses_of(CAMERAS)))
    assert torch.equal(tokens, embedded) == (prior.unet.class_embedding.config.text_width == 0)
    assert torch.equal(poses, poses_of(CAMERAS))


def test_untold_it_is_the_pipelines_own_network(folder: Path, prior: StableDiffusionPrior, embedded: torch.Tensor):
    plain = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True).unet
    assert plain.class_embedding is None
    with torch.no_grad():
        v = plain(noisy(), 400, embedded).sample
    abar = prior.alphas_cumprod[400]
    expected = abar.sqrt() * v + (1 - abar).sqrt() * noisy()
    torch.testing.assert_close(prior.predict_noise(noisy(), 400, embedded), expected.float(), atol=1e-5, rtol=1e-5)


def test_each_picture_is_told_its_own_camera(prior: StableDiffusionPrior, embedded: torch.Tensor):
    same, words = noisy()[:1].expand(3, -1, -1, -1), embedded[1:2].expand(3, -1, -1)
    together = prior.predict_noise(same, 400, prior.tell(words, CAMERAS))
    assert (together[0] - together[1]).abs().max() > 1e-3
    for row in range(3):
        alone = prior.predict_noise(same[:1], 400, prior.tell(words[:1], CAMERAS[row : row + 1]))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def asking_of(prior: StableDiffusionPrior, embedded: torch.Tensor, guidance: str = "classifier-free") -> Asking:
    known = dict(zip(PROMPTS, embedded, strict=True))

    def embed(prompts: list[str]) -> torch.Tensor:
        return torch.stack([known.get(prompt, embedded[1]) for prompt in prompts])

    return Asking(prior, embed, "a red cube", "", guidance, 3.0, lambda alpha, sigma: 1.0)


@pytest.mark.parametrize("guidance", ["classifier-free", "rescaled", "perp-neg"])
def test_every_guidance_tells_the_camera_to_both_sides(
    prior: StableDiffusionPrior, embedded: torch.Tensor, guidance: str, monkeypatch: pytest.MonkeyPatch
):
    heard: list[torch.Tensor] = []
    predict = StableDiffusionPrior.predict_noise

    def listen(self: StableDiffusionPrior, z: torch.Tensor, t: int, condition: torch.Tensor) -> torch.Tensor:
        heard.append(condition)
        return predict(self, z, t, condition)

    monkeypatch.setattr(StableDiffusionPrior, "predict_noise", listen)
    answer = asking_of(prior, embedded, guidance).guided(noisy(), 400, CAMERAS)
    assert answer.isfinite().all()
    (condition,) = heard
    _, poses = prior.understood(condition)
    torch.testing.assert_close(poses, poses_of(CAMERAS).repeat(len(poses) // 3, 1), atol=1e-6, rtol=0)


def test_a_second_predictor_starts_as_a_prior_that_is_told_the_camera(prior: StableDiffusionPrior, embedded: torch.Tensor):
    condition = asking_of(prior, embedded).condition
    second = lora.lora_predictor(prior, condition, Generator().manual_seed(0))
    expected = prior.predict_noise(noisy(), 400, condition(CAMERAS)[1])
    assert torch.equal(second.predict_noise(noisy(), 400, CAMERAS), expected)
    assert not torch.equal(expected, prior.predict_noise(noisy(), 400, condition(CAMERAS)[1][:, :-1]))


def test_a_folder_without_one_is_told_nothing(tmp_path: Path):
    tiny_pipeline("v_prediction").save_pretrained(tmp_path)
    prior = loading.load_prior(tmp_path, CPU, FLOAT)
    words = loading.load_text_encoder(tmp_path, CPU, FLOAT)(PROMPTS)
    assert isinstance(prior, StableDiffusionPrior)
    assert prior.tell(words, CAMERAS) is words
