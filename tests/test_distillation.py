"""The distillation gradient against priors whose answer is known in closed form."""

import math

import pytest
import torch
from fakes import FiniteSetPrior, GaussianPrior, stable_diffusion_alphas_cumprod

from dreamtime import distillation
from dreamtime.types import Cameras, Rendering


def rendering_of(image: torch.Tensor) -> Rendering:
    one = torch.ones(*image.shape[:3], 1)
    return Rendering(image, one, one, torch.zeros_like(image))


def some_cameras(count: int) -> Cameras:
    return Cameras(torch.eye(4).repeat(count, 1, 1), torch.ones(count), 8, 8)


def no_text(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(len(cameras), 1, 1), torch.zeros(len(cameras), 1, 1)


def test_injected_gradient_is_exact(generator) -> None:
    x = torch.randn(3, 4, 8, 8, generator=generator(0), requires_grad=True)
    gradient = torch.randn(3, 4, 8, 8, generator=generator(1))
    distillation.inject_gradient(x, gradient).backward()
    torch.testing.assert_close(x.grad, gradient / 3)


def test_sds_control_is_the_noise_and_equal_prediction_moves_nothing(generator) -> None:
    noise = torch.randn(1, 4, 4, 4, generator=generator(0))
    assert distillation.distillation_gradient(noise, noise, 0.7).abs().max() == 0
    torch.testing.assert_close(distillation.distillation_gradient(2 * noise, noise, 0.5), noise / 2)


@pytest.mark.parametrize("t", [50, 500, 900])
def test_weightings(t: int) -> None:
    abar = stable_diffusion_alphas_cumprod()
    assert distillation.noise_variance(abar, t) == pytest.approx(1 - abar[t].item())
    assert distillation.unweighted(abar, t) == 1
    assert distillation.fantasia3d(abar, t) == pytest.approx(math.sqrt(abar[t].item()) * (1 - abar[t].item()))


@pytest.mark.parametrize("t", [100, 500, 900])
def test_expected_gradient_of_a_gaussian_prior(t: int, generator) -> None:
    """E[w (eps_hat - eps)] = w alpha sigma (x - mu) / (alpha^2 s^2 + sigma^2), from averaging 4000 draws."""
    prior = GaussianPrior(mean=torch.full((3, 8, 8), 0.2), deviation=0.5)
    image = torch.full((4000, 8, 8, 3), 0.9, requires_grad=True)
    objective = distillation.score_distillation(prior, no_text, guidance_scale=1.0)
    objective(rendering_of(image), some_cameras(4000), t, generator(5)).backward()
    abar = prior.alphas_cumprod[t].item()
    alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
    x = 2 * 0.9 - 1
    expected = sigma**2 * alpha * sigma * (x - 0.2) / (abar * 0.25 + sigma**2)
    # Through x = 2 image - 1, and per image of the batch.
    assert image.grad.sum(0).mean().item() == pytest.approx(2 * expected, rel=0.02, abs=2e-4)


def test_guidance_extrapolates_from_the_unconditional_mean(generator) -> None:
    """The condition shifts the Gaussian's mean by 0.3; at scale s the gradient pulls towards mu + s 0.3."""
    prior = GaussianPrior(mean=torch.zeros(3, 8, 8), deviation=0.5)

    def towards(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(cameras), 1, 1), torch.full((len(cameras), 1, 1), 0.3)

    image = torch.full((4000, 8, 8, 3), 0.5 * (1 + 3 * 0.3), requires_grad=True)
    distillation.score_distillation(prior, towards, guidance_scale=3.0)(
        rendering_of(image), some_cameras(4000), 500, generator(1)
    ).backward()
    assert abs(image.grad.sum(0).mean().item()) < 2e-3


def test_descent_reaches_an_image_of_a_finite_set(generator) -> None:
    """With the exact posterior mean of two images as denoiser, a falling t leads onto one of them."""
    targets = torch.stack([torch.full((3, 4, 4), -0.8), torch.full((3, 4, 4), 0.8)])
    prior = FiniteSetPrior(targets)
    image = torch.full((1, 4, 4, 3), 0.55, requires_grad=True)
    objective = distillation.score_distillation(prior, no_text, 1.0, distillation.unweighted)
    optimizer, chance = torch.optim.Adam([image], lr=0.03), generator(0)
    for t in range(900, 20, -4):
        optimizer.zero_grad()
        objective(rendering_of(image), some_cameras(1), t, chance).backward()
        optimizer.step()
    x = (2 * image.detach() - 1).permute(0, 3, 1, 2)
    assert (targets - x).abs().amax(dim=(1, 2, 3)).min() < 0.1


def test_no_gradient_reaches_the_prior(generator) -> None:
    prior = GaussianPrior(mean=torch.zeros(3, 8, 8).requires_grad_(), deviation=0.5)
    image = torch.full((2, 8, 8, 3), 0.4, requires_grad=True)
    distillation.score_distillation(prior, no_text, 2.0)(rendering_of(image), some_cameras(2), 300, generator(0)).backward()
    assert prior.mean.grad is None
    assert image.grad is not None


def test_same_generator_same_loss(generator) -> None:
    prior = GaussianPrior(mean=torch.zeros(3, 8, 8))
    objective = distillation.score_distillation(prior, no_text, 2.0)
    losses = [
        objective(rendering_of(torch.full((2, 8, 8, 3), 0.4)), some_cameras(2), 300, generator(9)).item() for _ in range(2)
    ]
    assert losses[0] == losses[1]
