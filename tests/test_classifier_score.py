"""Differences of texts: what is left of SDS without its noise."""

import math

import pytest
import torch
from fakes import GaussianPrior
from test_distillation import gradient_of, shifted_by

from dreamtime import classifier_score
from dreamtime.distillation import classifier_free, score_distillation
from dreamtime.types import Cameras, Text

T, IMAGE = 500, torch.full((2, 8, 8, 3), 0.7)
PRIOR = GaussianPrior(mean=torch.full((3, 8, 8), 0.2), deviation=0.5)


def text(shift: float) -> Text:
    return lambda cameras: torch.full((len(cameras), 1, 1), shift)


def pull(shift: float, t: int = T) -> float:
    """w(t) (eps of the mean mu + shift less eps of the mean mu): -sigma^2 sigma alpha shift / (alpha^2 s^2 + sigma^2)."""
    abar = PRIOR.alphas_cumprod[t].item()
    return -(1 - abar) * math.sqrt(abar * (1 - abar)) * shift / (abar * 0.25 + 1 - abar)


def assert_everywhere(gradient: torch.Tensor, expected: float) -> None:
    torch.testing.assert_close(gradient, torch.full_like(gradient, expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 2.0, 7.5])
def test_csd_is_what_guidance_adds_to_sds(scale: float) -> None:
    guided, plain = (
        gradient_of(score_distillation(PRIOR, classifier_free(PRIOR, shifted_by(0.3), s)), IMAGE, T) for s in (scale, 1.0)
    )
    csd = gradient_of(classifier_score.classifier_score_distillation(PRIOR, shifted_by(0.3), scale), IMAGE, T)
    torch.testing.assert_close(csd, guided - plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("progress", "share"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (1.0, 1.0)])
def test_csd_turns_from_no_text_to_the_undesired_one(progress: float, share: float) -> None:
    objective = classifier_score.classifier_score_distillation(PRIOR, shifted_by(0.3), 2.0, undesired=text(-0.4))
    assert_everywhere(gradient_of(objective, IMAGE, T, progress=progress), pull(0.3 + share * 0.4))


@pytest.mark.parametrize("t", [200, T])
def test_nfsd_from_t_200_up_takes_the_flaws_away(t: int) -> None:
    objective = classifier_score.noise_free_score_distillation(PRIOR, shifted_by(0.3), text(-0.4), 7.5)
    assert_everywhere(gradient_of(objective, IMAGE, t), 7.5 * pull(0.3, t) + pull(0.4, t))


def test_nfsd_at_small_t_follows_the_unconditional_answer() -> None:
    """z_t less the condition's pull is eps_u itself, the only term left that depends on the noise."""
    t = 199
    objective = classifier_score.noise_free_score_distillation(PRIOR, shifted_by(0.3), text(-0.4), 7.5)

    def answer(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
        return shifted_by(0.0)(cameras)

    sds = gradient_of(score_distillation(PRIOR, classifier_free(PRIOR, answer, 1.0)), IMAGE, t)
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = 1 - PRIOR.alphas_cumprod[t].item()
    expected = sds + weight * noise + 7.5 * pull(0.3, t)
    torch.testing.assert_close(gradient_of(objective, IMAGE, t), expected, rtol=1e-4, atol=1e-5)


def test_the_bridge_leads_from_its_source_to_the_prompt_and_nowhere_when_they_are_one() -> None:
    assert_everywhere(gradient_of(classifier_score.bridge(PRIOR, shifted_by(0.3), text(-0.1), 40.0), IMAGE, T), 40 * pull(0.4))
    same = classifier_score.bridge(PRIOR, shifted_by(0.3), text(0.3), 40.0)
    assert gradient_of(same, IMAGE, T).abs().max() == 0


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.3), (0.8, 0.3), (0.81, -0.4), (1.0, -0.4)])
def test_the_last_stage_begins_after_four_fifths(progress: float, expected: float) -> None:
    first, last = (classifier_score.classifier_score_distillation(PRIOR, shifted_by(shift), 2.0) for shift in (0.3, -0.4))
    assert_everywhere(gradient_of(classifier_score.in_stages(first, last), IMAGE, T, progress=progress), pull(expected))
