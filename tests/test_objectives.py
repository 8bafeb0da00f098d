"""Names to objectives: each follows its text, and what makes no sense is refused with the reason."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from fakes import GaussianPrior
from test_distillation import gradient_of

from dreamtime import distillation, objectives
from dreamtime.assembly import asking_of
from dreamtime.cameras import turntable
from dreamtime.distillation import noise_variance
from dreamtime.objectives import GUIDANCES, OBJECTIVES, Asking
from dreamtime.presets import preset
from dreamtime.prompts import FLAWS

PRIOR = GaussianPrior(mean=torch.full((3, 8, 8), 0.2), deviation=0.5)
MEAN = torch.full((2, 8, 8, 3), (1 + 0.2) / 2)  # the image x = 2 image - 1 at the prior's mean


class Embed:
    """Shifts the Gaussian's mean by 0.3 for a cube, -0.2 for a flaw and -0.5 for "round"; remembers what was asked."""

    def __init__(self, **others: float) -> None:
        self.shifts = {"cube": 0.3, "blurry": -0.2, "round": -0.5, **others}
        self.asked: list[str] = []

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        self.asked += prompts
        totals = [sum(shift for word, shift in self.shifts.items() if word in prompt) for prompt in prompts]
        return torch.tensor(totals, dtype=torch.float32)[:, None, None]


def asking(embed: Embed, negative_prompt: str = "", guidance: str = "classifier-free", scale: float = 5.0) -> Asking:
    return Asking(PRIOR, embed, "a red cube", negative_prompt, guidance, scale, noise_variance)


@pytest.mark.parametrize("name", OBJECTIVES.keys() - {"vsd"})
@pytest.mark.parametrize("t", [300, 700])
def test_every_objective_pulls_an_average_picture_towards_its_text(name: str, t: int) -> None:
    gradient = gradient_of(OBJECTIVES[name](asking(Embed())), MEAN.repeat(50, 1, 1, 1), t, progress=0.9)
    assert gradient.mean() < 0, "x must grow, and descent goes against the gradient"


def test_asd_shifts_from_the_range_that_a_run_may_visit_not_from_what_its_schedule_does() -> None:
    """At one fixed t it would otherwise be CSD."""
    fixed = preset("draft", "cpu", prompt="a cat", objective="asd", schedule="fixed", fixed_t=600)
    assert asking_of(fixed, PRIOR, Embed()).t_min == 20
    assert asking_of(replace(fixed, t_min=100), PRIOR, Embed()).t_min == 100


@pytest.mark.parametrize("guidance", GUIDANCES)
def test_every_guidance_pulls_towards_the_text(guidance: str) -> None:
    objective = OBJECTIVES["sds"](asking(Embed(), guidance=guidance))
    assert gradient_of(objective, MEAN.repeat(50, 1, 1, 1), 500).mean() < 0


@pytest.mark.parametrize("guidance", GUIDANCES.keys() - {"classifier-free"})
def test_at_a_scale_of_1_a_guidance_changes_nothing_where_the_table_says_so(guidance: str, generator) -> None:
    """Perp-Neg still has texts between two views there."""
    z_t, cameras, embed = torch.randn(3, 3, 8, 8, generator=generator(0)), turntable(3, 8), Embed(side=0.1, back=0.2)
    chosen, plain = (asking(embed, "", each, 1.0).guided(z_t, 500, cameras) for each in (guidance, "classifier-free"))
    assert torch.allclose(chosen, plain, atol=1e-5) == (guidance in objectives.IDLE_AT_SCALE_1)


def test_ism_finds_its_noise_without_any_text() -> None:
    """At a guidance scale of 1 the negative prompt is nowhere in eps_hat; nor is it in the inversion."""
    with_it, without = (gradient_of(OBJECTIVES["ism"](asking(Embed(), each, scale=1.0)), MEAN, 500) for each in ("round", ""))
    torch.testing.assert_close(with_it, without)


@pytest.mark.parametrize("name", OBJECTIVES.keys() - {"vsd"})
def test_a_negative_prompt_reaches_every_objective(name: str) -> None:
    embed = Embed()
    with_it, without = (
        gradient_of(OBJECTIVES[name](asking(embed, negative)), MEAN, 500, progress=0.4) for negative in ("round", "")
    )
    assert "round" in embed.asked
    assert (with_it.mean() < without.mean()).item(), "away from what is lower than nothing is up"


@pytest.mark.parametrize("name", OBJECTIVES.keys() - {"vsd"})
@pytest.mark.parametrize("guidance", GUIDANCES)
def test_no_objective_keeps_the_text_encoder(name: str, guidance: str) -> None:
    embed = Embed()
    gone = weakref.ref(embed)
    objective = OBJECTIVES[name](asking(embed, "round", guidance))
    del embed
    gc.collect()
    assert gone() is None
    gradient_of(objective, MEAN, 500)


def test_noise_free_distillation_has_words_of_its_own_for_flaws() -> None:
    embed = Embed()
    OBJECTIVES["nfsd"](asking(embed))
    assert FLAWS in embed.asked


def test_the_bridge_is_sds_until_its_last_stage() -> None:
    sds, bridge = (OBJECTIVES[name](asking(Embed())) for name in ("sds", "bridge"))
    assert torch.equal(gradient_of(sds, MEAN, 500, progress=0.7), gradient_of(bridge, MEAN, 500, progress=0.7))
    assert not torch.equal(gradient_of(sds, MEAN, 500, progress=0.9), gradient_of(bridge, MEAN, 500, progress=0.9))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_an_image_residual_makes_it_sds_between_images(scale: float) -> None:
    asked = replace(asking(Embed(), scale=1.0), image_residual=scale)
    plain = distillation.score_distillation_in_images(PRIOR, asked.guided, noise_variance, scale)
    assert torch.equal(gradient_of(OBJECTIVES["sds"](asked), MEAN, 500), gradient_of(plain, MEAN, 500))


@pytest.mark.parametrize("objective", OBJECTIVES.keys() - {"sds"})
def test_only_sds_is_taken_between_images(objective: str) -> None:
    with pytest.raises(ValueError, match=f"with the objective '{objective}' it must be 0, got 30"):
        objectives.check(objective, "classifier-free", 7.5, "sds", image_residual=30.0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_defaults_suit_every_objective(objective: str) -> None:
    objectives.check(objective, "classifier-free", 7.5, "sds")


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        (("csd", "perp-neg", 7.5, "sds"), "'csd' combines the prior's answers in its own way"),
        (("nfsd", "rescaled", 7.5, "sds"), "'nfsd' combines the prior's answers in its own way"),
        (("nfsd", "rescaled", 1.0, "sds"), "'nfsd' combines the prior's answers in its own way"),
        (
            ("sds", "rescaled", 1.0, "sds"),
            "The guidance 'rescaled' has no effect at a guidance scale of 1: choose a larger one",
        ),
        (("sdi", "rescaled", 1.0, "sds"), "The guidance 'rescaled' has no effect at a guidance scale of 1"),
        (("sdi", "classifier-free", 7.5, "fantasia3d"), "'sdi' brings its own w\\(t\\).*got 'fantasia3d'"),
        (("csd", "classifier-free", 1.0, "sds"), "it needs a guidance scale above 1, got 1"),
        (("csd", "classifier-free", 0.5, "sds"), "it needs a guidance scale above 1, got 0.5"),
        (("bridge", "classifier-free", 0.0, "sds"), "scale of 0 nobody would look at the prompt"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(choice: tuple[str, str, float, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        objectives.check(*choice)


def test_what_learns_needs_the_weights_in_place() -> None:
    with pytest.raises(ValueError, match="memory 'lowest' takes apart"):
        objectives.check("vsd", "classifier-free", 7.5, "sds", "lowest")
    objectives.check("vsd", "classifier-free", 7.5, "sds", "low")
