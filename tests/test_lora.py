"""VSD's second predictor on a tiny UNet: the prior's weights twice in use and once in memory, and learning in one place."""

from pathlib import Path

import pytest
import torch
from fakes import GaussianPrior
from test_distillation import no_text, rendering_of
from test_generation import Canvas
from tiny_models import tiny_if_pipeline, tiny_pipeline
from torch import Generator

from dreamtime import timesteps
from dreamtime.cameras import turntable
from dreamtime.checkpoints import load_checkpoint, save_checkpoint
from dreamtime.diffusion import add_noise
from dreamtime.distillation import SecondPredictor, classifier_free, variational_score_distillation
from dreamtime.generation import optimise
from dreamtime.priors import deepfloyd, stable_diffusion
from dreamtime.priors.lora import LoraPredictor, lora_predictor, same_weights
from dreamtime.types import Cameras

CAMERAS = turntable(2, 16)
WIDTH = 64  # of the tiny text embedding


def condition(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    texts = torch.randn(2, 5, WIDTH, generator=Generator().manual_seed(7))
    return texts[0].expand(len(cameras), -1, -1), texts[1].expand(len(cameras), -1, -1)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def folder(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    tiny_pipeline(request.param).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def deepfloyd_folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("deepfloyd")
    tiny_if_pipeline(path)
    return path


@pytest.fixture
def prior(folder: Path) -> stable_diffusion.StableDiffusionPrior:
    return stable_diffusion.load_prior(folder, torch.device("cpu"), torch.float32)


def second_of(prior: stable_diffusion.StableDiffusionPrior, seed: int = 0) -> LoraPredictor:
    return lora_predictor(prior, condition, Generator().manual_seed(seed))


def latents(seed: int = 0, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=Generator().manual_seed(seed))


def test_it_starts_as_the_prior_under_the_prompt(prior) -> None:
    second = second_of(prior)
    assert isinstance(second, SecondPredictor)
    for t in (0, 500, 999):
        expected = prior.predict_noise(latents(), t, condition(CAMERAS)[1])
        assert torch.equal(second.predict_noise(latents(), t, CAMERAS), expected)


def test_the_priors_weights_are_in_memory_once(prior) -> None:
    second = second_of(prior)
    weights = {parameter.data_ptr() for parameter in prior.unet.parameters()}
    assert {p.data_ptr() for p in second.unet.parameters()} == weights | {p.data_ptr() for p in second.weights.parameters()}
    assert weights.isdisjoint({p.data_ptr() for p in second.weights.parameters()})


def test_a_second_module_on_the_same_weights_can_be_rebuilt_alone(prior) -> None:
    again = same_weights(prior.unet)
    again.conv_in = torch.nn.Identity()
    assert isinstance(prior.unet.conv_in, torch.nn.Conv2d)
    assert again.conv_out.weight is prior.unet.conv_out.weight


def train(second: LoraPredictor, steps: int = 6) -> list[float]:
    """The losses of steps that all ask the same question."""
    optimizer, images, losses = torch.optim.Adam([second.group(1e-2)]), 0.3 * latents(3), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = second.loss(images, CAMERAS, Generator().manual_seed(1))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("seed", range(3))
def test_its_loss_is_how_badly_it_finds_the_noise_at_a_random_t(prior, seed: int) -> None:
    """1/2 ||eps_phi(z_t; t) - eps||^2 / B, and untrained eps_phi is the prior under the prompt."""
    images, drawn = 0.3 * latents(3), Generator().manual_seed(seed)
    t = int(torch.randint(1000, (), generator=drawn))
    noise = torch.randn(images.shape, generator=drawn)
    z_t = add_noise(images, noise, prior.alphas_cumprod, t)
    expected = (prior.predict_noise(z_t, t, condition(CAMERAS)[1]) - noise).square().sum() / 4
    torch.testing.assert_close(second_of(prior).loss(images, CAMERAS, Generator().manual_seed(seed)), expected)


def test_it_learns_at_timesteps_of_the_whole_range(prior, monkeypatch: pytest.MonkeyPatch) -> None:
    times = list[int]()

    def denoise(self: LoraPredictor, z_t: torch.Tensor, t: int, cameras: Cameras) -> torch.Tensor:
        times.append(t)
        return z_t

    monkeypatch.setattr(LoraPredictor, "denoise", denoise)
    second, draw = second_of(prior), Generator().manual_seed(0)
    for _ in range(500):
        second.loss(latents(), CAMERAS, draw)
    assert min(times) < 20
    assert max(times) > 980
    assert sum(times) / len(times) == pytest.approx(499.5, abs=40), "three standard deviations of a uniform mean"


def test_it_learns_its_images_and_leaves_the_prior_as_it_was(prior) -> None:
    second = second_of(prior)
    before = {name: parameter.clone() for name, parameter in prior.unet.named_parameters()}
    answer = prior.predict_noise(latents(), 500, condition(CAMERAS)[1])
    losses = train(second)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.97 * losses[0]
    assert all(torch.equal(parameter, before[name]) for name, parameter in prior.unet.named_parameters())
    assert all(p.grad is None and not p.requires_grad for p in prior.unet.parameters())
    assert torch.equal(prior.predict_noise(latents(), 500, condition(CAMERAS)[1]), answer)
    assert not torch.allclose(second.predict_noise(latents(), 500, CAMERAS), answer, atol=1e-3)


def test_once_trained_it_looks_at_the_camera(prior) -> None:
    second = second_of(prior)
    train(second)
    front, back = second.predict_noise(latents(0, 1).expand(2, -1, -1, -1), 500, turntable(2, 16))
    assert not torch.allclose(front, back, atol=1e-4)


def test_the_loss_reaches_the_lora_alone_and_the_distillation_the_scene_alone(prior) -> None:
    """Of the two terms in VSD's sum each has its own parameters."""
    second = second_of(prior)
    objective = variational_score_distillation(prior, classifier_free(prior, condition, 7.5), second)

    def gradients(chance: Generator, term) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
        image = torch.full((2, 16, 16, 3), 0.4, requires_grad=True)
        second.weights.zero_grad()
        term(image, chance).backward()
        return image.grad, [parameter.grad for parameter in second.weights.parameters()]

    def whole(image: torch.Tensor, chance: Generator) -> torch.Tensor:
        return objective(rendering_of(image), CAMERAS, 500, 0.5, chance)

    def lora_alone(image: torch.Tensor, chance: Generator) -> torch.Tensor:
        torch.randn(2, 4, 8, 8, generator=chance)  # the noise of the distillation
        return second.loss(prior.encode(image).detach(), CAMERAS, chance)

    scene, lora = gradients(Generator().manual_seed(0), whole)
    scene_alone, lora_again = gradients(Generator().manual_seed(0), lora_alone)
    assert scene is not None
    assert scene.abs().max() > 0
    assert scene_alone is None
    assert sum(g is not None and g.abs().max() > 0 for g in lora) > 10
    for one, other in zip(lora, lora_again, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.equal(one, other)


def test_only_what_learns_is_kept(prior) -> None:
    state = second_of(prior).weights.state_dict()
    assert {name.split("/")[-2].rstrip("0123456789") for name in state} <= {"default", "class_embedding", ""}
    assert all("lora_" in name or "class_embedding" in name for name in state)


def test_same_seed_same_adapters(prior) -> None:
    one, same, other = (second_of(prior, seed).weights.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


STEPS = 4


def vsd_run(prior, seed: int = 0):
    """A canvas and its LoRA under one optimiser with two groups, as a run has them."""
    canvas, chance = Canvas(), Generator().manual_seed(seed)
    second = lora_predictor(prior, condition, chance)
    optimizer = torch.optim.Adam([{"params": canvas.parameters(), "lr": 0.05}, second.group()], eps=0.1)
    objective = variational_score_distillation(prior, classifier_free(prior, condition, 7.5), second)

    def cameras(progress: float, generator: Generator) -> Cameras:
        return turntable(1, 4)

    table = timesteps.time_prioritized(prior.alphas_cumprod, STEPS)

    def steps(done: int):
        return optimise(cameras, canvas.render, table, objective, {}, optimizer, STEPS, chance, done)

    return {"canvas": canvas, "lora": second.weights}, optimizer, chance, steps


def test_a_resumed_run_is_bit_for_bit_the_run_that_never_stopped(prior, tmp_path: Path) -> None:
    whole, _, _, steps = vsd_run(prior)
    for _ in steps(0):
        pass
    halved, optimizer, chance, steps = vsd_run(prior)
    for step in steps(0):
        if step.index == 2:
            break
    save_checkpoint(tmp_path / "half.safetensors", halved, {"optimizer": optimizer}, chance, {})
    resumed, optimizer, chance, steps = vsd_run(prior, seed=99)
    load_checkpoint(tmp_path / "half.safetensors", resumed, {"optimizer": optimizer}, chance)
    for _ in steps(2):
        pass
    for name, module in whole.items():
        expected, found = module.state_dict(), resumed[name].state_dict()
        assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert not torch.equal(whole["canvas"].pixels, halved["canvas"].pixels)


def test_the_rate_of_the_lora_is_its_own(prior) -> None:
    _, optimizer, _, _ = vsd_run(prior)
    assert [(group["lr"], group["eps"]) for group in optimizer.param_groups] == [(0.05, 0.1), (1e-4, 1e-8)]


def test_in_half_precision_the_adapters_stay_in_single(folder: Path) -> None:
    prior = stable_diffusion.load_prior(folder, torch.device("cpu"), torch.bfloat16)
    second = second_of(prior)
    assert {parameter.dtype for parameter in second.weights.parameters()} == {torch.float32}
    loss = second.loss(latents(), CAMERAS, Generator().manual_seed(0))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in second.weights.parameters() if p.grad is not None)


def test_it_adapts_deepfloyd_too(deepfloyd_folder: Path) -> None:
    prior = deepfloyd.load_prior(deepfloyd_folder, torch.device("cpu"), torch.float32)
    text = torch.randn(1, 5, 24, generator=Generator().manual_seed(7))
    second = lora_predictor(prior, lambda cameras: (text.expand(2, -1, -1), text.expand(2, -1, -1)), Generator())
    z_t = torch.randn(2, 3, 8, 8, generator=Generator().manual_seed(0))
    expected = prior.predict_noise(z_t, 500, text.expand(2, -1, -1))
    assert torch.equal(second.predict_noise(z_t, 500, CAMERAS), expected)
    second.loss(z_t, CAMERAS, Generator().manual_seed(0)).backward()
    assert any("add_k_proj" in name and p.grad.abs().max() > 0 for name, p in second.weights.items() if "lora_B" in name)


def test_other_priors_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="DeepFloyd IF, got a GaussianPrior"):
        lora_predictor(GaussianPrior(torch.zeros(3, 8, 8)), no_text, Generator())
