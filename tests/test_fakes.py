"""The fakes keep the protocols and say what they promise."""

import math

import torch
from fakes import FiniteSetPrior, GaussianPrior, SolidSphere

from dreamtime.types import DiffusionPrior, Representation


def test_the_fakes_keep_the_protocols():
    assert isinstance(GaussianPrior(torch.zeros(3, 4, 4)), DiffusionPrior)
    assert isinstance(FiniteSetPrior(torch.zeros(2, 3, 4, 4)), DiffusionPrior)
    assert isinstance(SolidSphere(), Representation)


def test_the_gaussian_prior_is_the_regression_of_the_noise_on_z(generator):
    """The best predictor has a residual uncorrelated with z_t, and the variance that Gaussian conditioning leaves."""
    draw = generator(0)
    prior = GaussianPrior(torch.full((1, 1, 1), 0.3), deviation=0.7)
    x = 0.3 + 0.7 * torch.randn(200_000, 1, 1, 1, generator=draw, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    abar = prior.alphas_cumprod[500].item()
    z = math.sqrt(abar) * x + math.sqrt(1 - abar) * noise
    residual = noise - prior.predict_noise(z, 500, torch.zeros(1, 1, 1))
    assert abs(residual.mean()) < 5e-3
    assert abs((residual * z).mean()) < 5e-3
    assert abs(residual.var() - abar * 0.49 / (abar * 0.49 + 1 - abar)) < 5e-3


def test_the_condition_shifts_the_gaussian_mean():
    prior = GaussianPrior(torch.zeros(1, 1, 1))
    alpha = prior.alphas_cumprod[300].sqrt().item()
    at_the_shifted_mean = torch.full((1, 1, 1, 1), 2 * alpha)
    assert prior.predict_noise(at_the_shifted_mean, 300, torch.full((1, 1, 1), 2.0)).abs().max() < 1e-6


def test_the_finite_set_prior_finds_the_nearest_image_when_there_is_little_noise(generator):
    images = torch.randn(3, 3, 4, 4, generator=generator(0))
    prior = FiniteSetPrior(images)
    noise = torch.randn(3, 3, 4, 4, generator=generator(1))
    abar = prior.alphas_cumprod[10].item()
    z = math.sqrt(abar) * images + math.sqrt(1 - abar) * noise
    torch.testing.assert_close(prior.predict_noise(z, 10, torch.zeros(3, 1, 1)), noise, atol=1e-4, rtol=0)


def test_the_finite_set_prior_is_the_posterior_mean_by_brute_force():
    prior = FiniteSetPrior(torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1))
    abar = prior.alphas_cumprod[700].item()
    alpha, variance, z = math.sqrt(abar), 1 - abar, 0.4
    likelihoods = [math.exp(-((z - alpha * x) ** 2) / (2 * variance)) for x in (-1.0, 2.0)]
    x0 = (-1.0 * likelihoods[0] + 2.0 * likelihoods[1]) / sum(likelihoods)
    predicted = prior.predict_noise(torch.full((1, 1, 1, 1), z), 700, torch.zeros(1, 1, 1)).item()
    assert math.isclose(predicted, (z - alpha * x0) / math.sqrt(variance), rel_tol=1e-5)


def test_the_fakes_encode_differentiably_to_one_range():
    images = torch.rand(2, 4, 4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    latents = GaussianPrior(torch.zeros(3, 4, 4)).encode(images)
    assert latents.shape == (2, 3, 4, 4)
    assert torch.equal(latents[1, 2], 2 * images[1, :, :, 2] - 1)
    latents.sum().backward()
    assert torch.equal(images.grad, torch.full_like(images, 2.0))


def test_the_solid_sphere_has_the_optical_depth_it_names():
    sphere = SolidSphere()
    x = torch.linspace(-2, 2, 40_001)
    densities = sphere.density(torch.stack([x, torch.zeros_like(x), torch.zeros_like(x)], dim=-1))
    assert math.isclose(torch.trapezoid(densities, x).item(), sphere.central_optical_depth(), rel_tol=1e-4)
    assert [parameter.numel() for parameter in sphere.parameters()] == [1]
