"""Distillation gradients against priors whose answer is known in closed form, and against one another."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from fakes import FiniteSetPrior, GaussianPrior, stable_diffusion_alphas_cumprod
from torch import Generator

from dreamtime import distillation
from dreamtime.distillation import classifier_free
from dreamtime.types import Cameras, Objective, Rendering, ViewBlend


def rendering_of(image: torch.Tensor) -> Rendering:
    one = torch.ones(*image.shape[:3], 1)
    return Rendering(image, one, one, torch.zeros_like(image))


def some_cameras(count: int) -> Cameras:
    return Cameras(torch.eye(4).repeat(count, 1, 1), torch.ones(count), 8, 8)


def shifted_by(shift: float) -> Callable[[Cameras], tuple[torch.Tensor, torch.Tensor]]:
    """A condition under which the Gaussian prior's mean lies `shift` higher than under none."""
    return lambda cameras: (torch.zeros(len(cameras), 1, 1), torch.full((len(cameras), 1, 1), shift))


no_text = shifted_by(0.0)


def gradient_of(objective: Objective, image: torch.Tensor, t: int, seed: int = 0, progress: float = 0.5) -> torch.Tensor:
    """With respect to x = 2 image - 1, per image, channels first."""
    image = image.clone().requires_grad_()
    count = len(image)
    objective(rendering_of(image), some_cameras(count), t, progress, Generator().manual_seed(seed)).backward()
    return image.grad.permute(0, 3, 1, 2) * count / 2


def gaussian(deviation: float = 0.5) -> GaussianPrior:
    return GaussianPrior(mean=torch.full((3, 8, 8), 0.2), deviation=deviation)


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
    assert distillation.noise_to_signal(abar, t) == pytest.approx(math.sqrt(1 / abar[t].item() - 1))


@pytest.mark.parametrize("t", [100, 500, 900])
def test_expected_gradient_of_a_gaussian_prior(t: int) -> None:
    """E[w (eps_hat - eps)] = w alpha sigma (x - mu) / (alpha^2 s^2 + sigma^2), from averaging 4000 draws."""
    prior = gaussian()
    objective = distillation.score_distillation(prior, classifier_free(prior, no_text, 1.0))
    gradient = gradient_of(objective, torch.full((4000, 8, 8, 3), 0.9), t, seed=5)
    abar = prior.alphas_cumprod[t].item()
    alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
    x = 2 * 0.9 - 1
    expected = sigma**2 * alpha * sigma * (x - 0.2) / (abar * 0.25 + sigma**2)
    assert gradient.mean().item() == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_guidance_extrapolates_from_the_unconditional_mean() -> None:
    """The condition shifts the Gaussian's mean by 0.3; at scale s the gradient pulls towards mu + s 0.3."""
    prior = GaussianPrior(mean=torch.zeros(3, 8, 8), deviation=0.5)
    objective = distillation.score_distillation(prior, classifier_free(prior, shifted_by(0.3), 3.0))
    assert abs(gradient_of(objective, torch.full((4000, 8, 8, 3), 0.5 * (1 + 3 * 0.3)), 500).mean().item()) < 1e-3


def test_descent_reaches_an_image_of_a_finite_set(generator) -> None:
    """With the exact posterior mean of two images as denoiser, a falling t leads onto one of them."""
    targets = torch.stack([torch.full((3, 4, 4), -0.8), torch.full((3, 4, 4), 0.8)])
    prior = FiniteSetPrior(targets)
    image = torch.full((1, 4, 4, 3), 0.55, requires_grad=True)
    objective = distillation.score_distillation(prior, classifier_free(prior, no_text, 1.0), distillation.unweighted)
    optimizer, chance = torch.optim.Adam([image], lr=0.03), generator(0)
    for t in range(900, 20, -4):
        optimizer.zero_grad()
        objective(rendering_of(image), some_cameras(1), t, 0.0, chance).backward()
        optimizer.step()
    x = (2 * image.detach() - 1).permute(0, 3, 1, 2)
    assert (targets - x).abs().amax(dim=(1, 2, 3)).min() < 0.1


def test_no_gradient_reaches_the_prior(generator) -> None:
    prior = GaussianPrior(mean=torch.zeros(3, 8, 8).requires_grad_(), deviation=0.5)
    objective = distillation.score_distillation(prior, classifier_free(prior, no_text, 2.0))
    assert gradient_of(objective, torch.full((2, 8, 8, 3), 0.4), 300).abs().min() > 0
    assert prior.mean.grad is None


def test_same_generator_same_loss(generator) -> None:
    prior = gaussian()
    objective = distillation.score_distillation(prior, classifier_free(prior, no_text, 2.0))
    image = rendering_of(torch.full((2, 8, 8, 3), 0.4))
    losses = [objective(image, some_cameras(2), 300, 0.5, generator(9)).item() for _ in range(2)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("t", [20, 300, 500])
@pytest.mark.parametrize("weighting", [distillation.noise_variance, distillation.fantasia3d])
def test_sds_between_images_is_sds_where_encoding_is_linear(t: int, weighting: distillation.Weighting) -> None:
    """For x = 2 I - 1 the squares between images are a quarter of those between latents, short of black and white."""
    prior = gaussian(deviation=0.1)
    guided = classifier_free(prior, shifted_by(0.3), 2.0)
    shown, hidden = (
        gradient_of(objective, torch.full((2, 8, 8, 3), 0.6), t)
        for objective in (
            distillation.score_distillation_in_images(prior, guided, weighting, scale=4.0),
            distillation.score_distillation(prior, guided, weighting),
        )
    )
    assert hidden.abs().max() > 0
    torch.testing.assert_close(shown, hidden, rtol=1e-3, atol=1e-6)


def test_between_images_nothing_passes_through_the_encoder(generator) -> None:
    @dataclass(frozen=True)
    class Watched(GaussianPrior):
        graphs: list[bool] = field(default_factory=list)

        def encode(self, images: torch.Tensor) -> torch.Tensor:
            x = super().encode(images)
            self.graphs.append(x.requires_grad)
            return x

    prior = Watched(mean=torch.zeros(3, 8, 8))
    objective = distillation.score_distillation_in_images(prior, classifier_free(prior, no_text, 1.0))
    assert gradient_of(objective, torch.full((1, 8, 8, 3), 0.9), 300).mean() > 0
    assert prior.graphs == [False]


def test_the_image_residual_is_half_the_squares_per_image(generator) -> None:
    image, meant = torch.rand(2, 3, 6, 6, 3, generator=generator(0)).unbind(0)
    image.requires_grad_()
    loss = distillation.image_residual(image, meant)
    loss.backward()
    assert loss.item() == pytest.approx((image - meant).square().sum().item() / 6)
    torch.testing.assert_close(image.grad, (image.detach() - meant) / 3)


@pytest.mark.parametrize("side", [8, 16, 64])
def test_the_image_residual_does_not_grow_with_the_rendering(generator, side: int) -> None:
    """It is taken at the prior's own size, where a larger rendering counts by the means of its blocks."""
    meant = torch.full((1, 16, 16, 3), 0.25)
    assert distillation.image_residual(torch.full((1, side, side, 3), 0.5), meant).item() == pytest.approx(0.5 * 768 / 16)
    fine = torch.rand(1, 32, 32, 3, generator=generator(0))
    blocks = fine.view(1, 16, 2, 16, 2, 3).mean(dim=(2, 4))
    coarse = distillation.image_residual(blocks, meant).item()
    assert distillation.image_residual(fine, meant).item() == pytest.approx(coarse, rel=0.25)
    assert distillation.image_residual(fine[:, ::2, ::2], meant).item() > 1.5 * coarse


@pytest.mark.parametrize("t", [20, 500, 980])
def test_score_jacobian_chaining_is_unweighted_sds(t: int) -> None:
    """Two derivations, one gradient: (x - D) / s and eps_hat - eps, on the same noise."""
    prior = gaussian()
    guided = classifier_free(prior, shifted_by(0.3), 4.0)
    chained, distilled = (
        gradient_of(objective, torch.full((2, 8, 8, 3), 0.7), t)
        for objective in (
            distillation.score_jacobian_chaining(prior, guided),
            distillation.score_distillation(prior, guided, distillation.unweighted),
        )
    )
    torch.testing.assert_close(chained, distilled, rtol=1e-4, atol=1e-5)


@dataclass
class Second:
    """A second predictor that answers by a function of z_t and t; nothing in it learns."""

    answer: Callable[[torch.Tensor, int, Cameras], torch.Tensor]

    def predict_noise(self, z_t: torch.Tensor, t: int, cameras: Cameras) -> torch.Tensor:
        return self.answer(z_t, t, cameras)

    def loss(self, x: torch.Tensor, cameras: Cameras, generator: Generator) -> torch.Tensor:
        assert not x.requires_grad
        return torch.zeros(())


def test_vsd_is_zero_when_the_control_is_the_prior() -> None:
    prior = gaussian()
    guided = classifier_free(prior, shifted_by(0.3), 7.5)
    objective = distillation.variational_score_distillation(prior, guided, Second(guided))
    assert gradient_of(objective, torch.full((2, 8, 8, 3), 0.7), 500).abs().max() == 0


def test_vsd_is_sds_when_the_control_is_the_noise() -> None:
    prior = gaussian()
    image = torch.full((2, 8, 8, 3), 0.7)
    x = 2 * 0.7 - 1

    def the_noise(z_t: torch.Tensor, t: int, cameras: Cameras) -> torch.Tensor:
        abar = prior.alphas_cumprod[t].item()
        return (z_t - math.sqrt(abar) * x) / math.sqrt(1 - abar)

    guided = classifier_free(prior, shifted_by(0.3), 7.5)
    variational = distillation.variational_score_distillation(prior, guided, Second(the_noise))
    torch.testing.assert_close(
        gradient_of(variational, image, 500),
        gradient_of(distillation.score_distillation(prior, guided), image, 500),
        rtol=1e-4,
        atol=1e-5,
    )


@dataclass
class Recording:
    """A prior that notes every question."""

    prior: GaussianPrior
    asked: list[tuple[torch.Tensor, int]] = field(default_factory=list)

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        return self.prior.alphas_cumprod

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return self.prior.encode(images)

    def predict_noise(self, z_t: torch.Tensor, t: int, condition: torch.Tensor) -> torch.Tensor:
        self.asked.append((z_t, t))
        return self.prior.predict_noise(z_t, t, condition)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("t", [20, 400, 700, 980])
def test_asd_asks_again_a_little_later_about_the_same_noise(t: int, seed: int) -> None:
    prior = Recording(gaussian())
    objective = distillation.asynchronous_score_distillation(prior, no_text, classifier_free(prior, no_text, 7.5))
    gradient_of(objective, torch.full((2, 8, 8, 3), 0.7), t, seed)
    (second, later), (first, now) = sorted(prior.asked, key=lambda question: len(question[0]))
    assert now == t
    drawn = Generator().manual_seed(seed)
    torch.randn(2, 3, 8, 8, generator=drawn)  # the noise
    assert later == min(t + int(0.1 * (t - 20) * torch.rand((), generator=drawn).item()), 999)
    assert t < 400 or later > t or seed != 0

    def noise(z: torch.Tensor, s: int) -> torch.Tensor:
        abar = prior.alphas_cumprod[s].item()
        return (z - math.sqrt(abar) * (2 * 0.7 - 1)) / math.sqrt(1 - abar)

    torch.testing.assert_close(noise(first[:2], now), noise(second, later), rtol=1e-3, atol=1e-4)


def test_asd_without_shift_or_guidance_is_zero_and_guided_it_is_the_pull_of_the_text() -> None:
    prior = gaussian()
    image = torch.full((2, 8, 8, 3), 0.7)
    for scale in (1.0, 5.0):
        guided = classifier_free(prior, shifted_by(0.3), scale)
        objective = distillation.asynchronous_score_distillation(prior, shifted_by(0.3), guided, shift=0.0)
        abar = prior.alphas_cumprod[500].item()
        alpha, sigma = math.sqrt(abar), math.sqrt(1 - abar)
        expected = -(scale - 1) * sigma**2 * sigma * alpha * 0.3 / (abar * 0.25 + sigma**2)
        gradient = gradient_of(objective, image, 500)
        torch.testing.assert_close(gradient, torch.full_like(gradient, expected), rtol=1e-4, atol=1e-6)


def test_rescaled_guidance_has_the_spread_between_both(generator) -> None:
    prior = gaussian()
    z_t, cameras = torch.randn(2, 3, 8, 8, generator=generator(3)), some_cameras(2)
    plain, conditional = (classifier_free(prior, shifted_by(0.3), s)(z_t, 500, cameras) for s in (9.0, 1.0))
    spread = distillation.rescaled(prior, shifted_by(0.3), 9.0, rescale=0.5)(z_t, 500, cameras).std(dim=(1, 2, 3))
    torch.testing.assert_close(spread, (plain.std(dim=(1, 2, 3)) + conditional.std(dim=(1, 2, 3))) / 2)


def test_without_guidance_only_the_wanted_text_is_asked() -> None:
    """And the answer is what guidance comes to as its scale goes to 1."""
    z_t, cameras = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8), some_cameras(2)
    asked = {}
    for scale in (1.0, 1.0 + 1e-6):
        prior = Recording(gaussian())
        asked[scale] = classifier_free(prior, shifted_by(0.3), scale)(z_t, 500, cameras), [len(z) for z, _ in prior.asked]
    (plain, rows), (guided, twice) = asked.values()
    assert (rows, twice) == ([2], [4])
    torch.testing.assert_close(plain, guided, rtol=1e-4, atol=1e-5)


def test_perp_neg_asks_all_its_texts_in_one_pass() -> None:
    """Shifts of a Gaussian's mean all point the same way, so nothing is perpendicular and plain guidance remains."""
    prior = Recording(gaussian())

    def blend(cameras: Cameras) -> ViewBlend:
        rows = len(cameras)
        positive, negatives = torch.full((rows, 1, 1), 0.3), torch.tensor([0.1, -0.2]).view(1, 2, 1, 1).expand(rows, -1, -1, -1)
        return ViewBlend(torch.zeros(rows, 1, 1), positive, negatives, torch.full((rows, 2), -1.5))

    z_t = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    guided = distillation.perp_neg(prior, blend, 4.0)(z_t, 500, some_cameras(2))
    assert [len(z) for z, _ in prior.asked] == [8]
    expected = classifier_free(prior.prior, shifted_by(0.3), 4.0)(z_t, 500, some_cameras(2))
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5)


@dataclass(frozen=True)
class ColorPrior(GaussianPrior):
    """A Gaussian prior whose texts move each channel's mean for itself, so that they point in different directions."""

    def predict_noise(self, z_t: torch.Tensor, t: int, condition: torch.Tensor) -> torch.Tensor:
        abar = self.alphas_cumprod[t].item()
        mean = self.mean + condition[:, 0, :, None, None]
        return math.sqrt(1 - abar) * (z_t - math.sqrt(abar) * mean) / (abar * self.deviation**2 + 1 - abar)


def test_perp_neg_takes_each_view_by_its_own_weight(generator) -> None:
    """The closed form: what a Gaussian's mean is moved by, less what is perpendicular to it of each unwanted view's."""
    prior, z_t = ColorPrior(torch.zeros(3, 8, 8)), torch.randn(2, 3, 8, 8, generator=generator(1))
    positive = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    negatives = torch.tensor([[[1.0, 1, 0], [0, 0, 2]], [[0, 2, 0], [3, 1, 1]]])
    weights = torch.tensor([[-0.5, -1.5], [-2.0, 0.0]])

    def blend(cameras: Cameras) -> ViewBlend:
        return ViewBlend(torch.zeros(2, 1, 3), positive[:, None], negatives[:, :, None], weights)

    shift = positive.clone()
    shift[0] += -0.5 * torch.tensor([0.0, 1, 0]) - 1.5 * torch.tensor([0.0, 0, 2])
    shift[1] += -2.0 * torch.tensor([0.0, 1, -1])
    found = distillation.perp_neg(prior, blend, 4.0)(z_t, 500, some_cameras(2))
    expected = prior.predict_noise(z_t, 500, 4.0 * shift[:, None])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
