"""DDIM inversion where its path is known: straight under a one-image prior, a scaling under a Gaussian one."""

import math

import pytest
import torch
from fakes import FiniteSetPrior, GaussianPrior, stable_diffusion_alphas_cumprod
from test_distillation import Recording, gradient_of, no_text, shifted_by, some_cameras

from dreamtime import inversion
from dreamtime.distillation import classifier_free

ABAR = stable_diffusion_alphas_cumprod()
TARGET = torch.full((3, 8, 8), -0.5)
ONE_IMAGE = FiniteSetPrior(TARGET[None])
IMAGE = torch.full((2, 8, 8, 3), 0.7)


def levels(t: int) -> tuple[float, float]:
    return math.sqrt(ABAR[t].item()), math.sqrt(1 - ABAR[t].item())


@pytest.mark.parametrize("stride", [1000, 200, 37])
def test_under_a_one_image_prior_the_path_is_straight(stride: int, generator) -> None:
    """The noise (x - alpha_0 mu) / sigma_0 never changes on the way, so steps of any length lead to the same place."""
    x = torch.randn(2, 3, 8, 8, generator=generator(0))
    predict = classifier_free(ONE_IMAGE, no_text, 1.0)
    (alpha_0, sigma_0), (alpha, sigma) = levels(0), levels(700)
    expected = alpha * TARGET + sigma * (x - alpha_0 * TARGET) / sigma_0
    z_t = inversion.invert(predict, x, ABAR, 700, stride, some_cameras(2))
    torch.testing.assert_close(z_t, expected, rtol=1e-3, atol=1e-3)


def test_under_a_gaussian_prior_short_steps_follow_the_flow(generator) -> None:
    """The flow keeps z_t's place among the deviations: (z_t - alpha mu) / sqrt(alpha^2 s^2 + sigma^2) is constant."""
    prior = GaussianPrior(mean=TARGET, deviation=0.5)
    x = torch.randn(2, 3, 8, 8, generator=generator(0))
    z_t = inversion.invert(classifier_free(prior, no_text, 1.0), x, ABAR, 600, 2, some_cameras(2))

    def place(z: torch.Tensor, t: int) -> torch.Tensor:
        alpha, sigma = levels(t)
        return (z - alpha * TARGET) / math.sqrt(alpha**2 * 0.25 + sigma**2)

    torch.testing.assert_close(place(z_t, 600), place(x, 0), rtol=0.02, atol=0.02)


def test_to_no_noise_is_no_way() -> None:
    x = torch.full((2, 3, 8, 8), 0.4)
    assert torch.equal(inversion.invert(classifier_free(ONE_IMAGE, no_text, 1.0), x, ABAR, 0, 100, some_cameras(2)), x)


@pytest.mark.parametrize("t", [250, 600, 980])
def test_sdi_leads_straight_to_the_only_image_there_is(t: int) -> None:
    guided = classifier_free(ONE_IMAGE, no_text, 7.5)
    gradient = gradient_of(inversion.score_distillation_via_inversion(ONE_IMAGE, no_text, guided), IMAGE, t)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 2 * 0.7 - 1 + 0.5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [7.5, 2.0])
def test_sdi_inverts_under_the_text_times_minus_its_scale(scale: float) -> None:
    """Guided by -s, a Gaussian prior's mean is moved by -s times the text's shift: the flow keeps z's place in that."""
    prior = Recording(GaussianPrior(mean=TARGET, deviation=0.5))
    guided = classifier_free(prior, shifted_by(0.3), scale)
    objective = inversion.score_distillation_via_inversion(prior, shifted_by(0.3), guided, guidance_scale=scale, stride=2)
    gradient_of(objective, IMAGE, 600)

    def place(z: torch.Tensor, t: int) -> torch.Tensor:
        alpha, sigma = levels(t)
        return (z - alpha * (TARGET - scale * 0.3)) / math.sqrt(alpha**2 * 0.25 + sigma**2)

    (first, begun), (last, ended) = prior.asked[0], prior.asked[-1]
    assert (begun, ended) == (0, 600)
    torch.testing.assert_close(place(last[:2], 600), place(first[:2], 0), rtol=0.02, atol=0.02)


def test_chance_hardly_decides_where_inversion_leads() -> None:
    """All chance is in z_0, whose noise is faint; the same chance leads to the same gradient."""
    prior = GaussianPrior(mean=TARGET)
    objective = inversion.score_distillation_via_inversion(prior, shifted_by(0.3), classifier_free(prior, shifted_by(0.3), 7.5))
    one, same, other = (gradient_of(objective, IMAGE, 500, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert (one - other).abs().max() < 0.2 * one.abs().mean()


@pytest.mark.parametrize("t", [200, 600])
def test_inversion_of_a_faintly_noised_image_finds_noise_of_full_strength(t: int) -> None:
    """Under a prior of one image, which takes all of the difference for noise, kappa is the noise that z_0 was given."""
    asked = Recording(ONE_IMAGE)
    image = (1 + TARGET.permute(1, 2, 0)).div(2).expand(2, -1, -1, -1)
    guided = classifier_free(asked, no_text, 7.5)
    gradient_of(inversion.score_distillation_via_inversion(asked, no_text, guided), image, t)
    z_t = asked.asked[-1][0][:2]
    alpha, sigma = levels(t)
    kappa = (z_t - alpha * TARGET) / sigma
    drawn = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(kappa, drawn, rtol=1e-3, atol=1e-3)


def test_ism_is_zero_where_the_path_is_straight_and_the_text_says_nothing() -> None:
    guided = classifier_free(ONE_IMAGE, no_text, 7.5)
    gradient = gradient_of(inversion.interval_score_matching(ONE_IMAGE, no_text, guided), IMAGE, 600)
    assert gradient.abs().max() < 1e-2


@pytest.mark.parametrize("t", [100, 500, 900])
def test_ism_over_no_interval_is_the_pull_of_the_text(t: int) -> None:
    """sigma / alpha s (eps_c - eps_u) = -s sigma^2 shift / (alpha^2 d^2 + sigma^2)."""
    prior = GaussianPrior(mean=TARGET, deviation=0.5)
    guided = classifier_free(prior, shifted_by(0.3), 7.5)
    objective = inversion.interval_score_matching(prior, shifted_by(0.3), guided, interval=0)
    abar = ABAR[t].item()
    gradient = gradient_of(objective, IMAGE, t)
    expected = -7.5 * (1 - abar) * 0.3 / (abar * 0.25 + 1 - abar)
    torch.testing.assert_close(gradient, torch.full_like(gradient, expected), rtol=1e-3, atol=1e-4)


def test_what_they_cost() -> None:
    """Images seen at t = 500, of a batch of two: SDI's five guided steps, ISM's four bare ones, and a guided answer each."""
    prior = Recording(GaussianPrior(mean=TARGET))
    guided = classifier_free(prior, no_text, 7.5)
    gradient_of(inversion.score_distillation_via_inversion(prior, no_text, guided), IMAGE, 500)
    assert [(len(z), t) for z, t in prior.asked] == [*((4, t) for t in (0, 100, 200, 300, 400)), (4, 500)]
    prior.asked.clear()
    gradient_of(inversion.interval_score_matching(prior, no_text, guided), IMAGE, 500)
    assert [(len(z), t) for z, t in prior.asked] == [(2, 0), (2, 200), (2, 400), (2, 450), (4, 500)]
