"""Objectives by name: which texts each asks the prior about, and how the answers are guided."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from dreamtime import classifier_score, distillation, inversion
from dreamtime.distillation import SecondPredictor, Weighting
from dreamtime.priors.hub import known
from dreamtime.prompts import FLAWS, Embed, blended_text, flawed_text, plain_text, view_condition, words_alone
from dreamtime.types import Condition, DecodingPrior, DiffusionPrior, NoisePredictor, Objective, Tell, TellingPrior


@runtime_checkable
class Question(Protocol):
    """What every objective needs to know: whom to ask, under which condition, and how loudly."""

    @property
    def prior(self) -> DiffusionPrior: ...

    @property
    def condition(self) -> Condition: ...

    @property
    def bare_condition(self) -> Condition: ...

    @property
    def guided(self) -> NoisePredictor: ...

    @property
    def guidance_scale(self) -> float: ...

    @property
    def weighting(self) -> Weighting: ...

    @property
    def t_min(self) -> int: ...

    @property
    def image_residual(self) -> float: ...


@dataclass(frozen=True)
class Asking:
    """Whom an objective asks, about which words, and how loudly."""

    prior: DiffusionPrior
    embed: Embed
    prompt: str
    negative_prompt: str
    guidance: str  # a name of GUIDANCES
    guidance_scale: float
    weighting: Weighting
    second: SecondPredictor | None = None  # VSD's
    t_min: int = 20  # the lower end of the run's range of timesteps
    image_residual: float = 0.0  # scale of SDS between images; 0: between latents

    @property
    def tell(self) -> Tell:
        """What the prior is told of a camera besides the words."""
        return self.prior.tell if isinstance(self.prior, TellingPrior) else words_alone

    @property
    def condition(self) -> Condition:
        """What is not wanted, and what is."""
        return view_condition(self.embed, self.prompt, self.negative_prompt, self.tell)

    @property
    def bare_condition(self) -> Condition:
        """Nothing, and what is wanted."""
        return view_condition(self.embed, self.prompt, tell=self.tell)

    @property
    def guided(self) -> NoisePredictor:
        """eps_hat."""
        return GUIDANCES[self.guidance](self)


def classifier_free(asking: Asking) -> NoisePredictor:
    return distillation.classifier_free(asking.prior, asking.condition, asking.guidance_scale)


def rescaled(asking: Asking) -> NoisePredictor:
    return distillation.rescaled(asking.prior, asking.condition, asking.guidance_scale)


def perp_neg(asking: Asking) -> NoisePredictor:
    blend = blended_text(asking.embed, asking.prompt, asking.negative_prompt, asking.tell)
    return distillation.perp_neg(asking.prior, blend, asking.guidance_scale)


GUIDANCES: dict[str, Callable[[Asking], NoisePredictor]] = {
    "classifier-free": classifier_free,
    "rescaled": rescaled,
    "perp-neg": perp_neg,
}


def sds(asking: Question) -> Objective:
    if asking.image_residual == 0:
        return distillation.score_distillation(asking.prior, asking.guided, asking.weighting)
    assert isinstance(asking.prior, DecodingPrior)
    return distillation.score_distillation_in_images(asking.prior, asking.guided, asking.weighting, asking.image_residual)


def sjc(asking: Question) -> Objective:
    return distillation.score_jacobian_chaining(asking.prior, asking.guided)


def vsd(asking: Asking) -> Objective:
    assert asking.second is not None
    return distillation.variational_score_distillation(asking.prior, asking.guided, asking.second, asking.weighting)


def csd(asking: Asking) -> Objective:
    undesired = plain_text(asking.embed, asking.negative_prompt, asking.tell) if asking.negative_prompt else None
    return classifier_score.classifier_score_distillation(
        asking.prior, asking.bare_condition, asking.guidance_scale, asking.weighting, undesired
    )


def nfsd(asking: Asking) -> Objective:
    undesired = plain_text(asking.embed, asking.negative_prompt or FLAWS, asking.tell)
    return classifier_score.noise_free_score_distillation(
        asking.prior, asking.bare_condition, undesired, asking.guidance_scale, asking.weighting
    )


def asd(asking: Question) -> Objective:
    return distillation.asynchronous_score_distillation(
        asking.prior, asking.condition, asking.guided, asking.weighting, t_min=asking.t_min
    )


def sdi(asking: Question) -> Objective:
    return inversion.score_distillation_via_inversion(asking.prior, asking.condition, asking.guided, asking.guidance_scale)


def ism(asking: Question) -> Objective:
    return inversion.interval_score_matching(asking.prior, asking.bare_condition, asking.guided)


def bridge(asking: Asking) -> Objective:
    source = flawed_text(asking.embed, asking.prompt, asking.tell)
    last = classifier_score.bridge(asking.prior, asking.condition, source, asking.guidance_scale, asking.weighting)
    return classifier_score.in_stages(sds(asking), last)


OBJECTIVES: dict[str, Callable[[Any], Objective]] = {
    "sds": sds,
    "vsd": vsd,
    "sjc": sjc,
    "csd": csd,
    "nfsd": nfsd,
    "asd": asd,
    "sdi": sdi,
    "ism": ism,
    "bridge": bridge,
}

WITHOUT_TEXTS = ("sds", "sjc", "asd", "sdi", "ism")
"""Objectives that take any `Question`: a prior that was shown a picture can be asked them."""

IDLE_AT_SCALE_1 = ("rescaled",)
"""Guidances that have no effect at a guidance scale of 1: what nothing has inflated keeps its spread."""

UNGUIDED = ("csd", "nfsd")
"""Objectives that combine the prior's answers themselves: no guidance is left to choose."""

NEGATIVE_ALONE = ("csd", "nfsd", "sdi")
"""Objectives that ask about the negative prompt by itself, whatever the guidance scale."""

SELF_WEIGHTED = ("sjc", "sdi", "ism")
"""Objectives whose w(t) is part of their definition."""


def answers_at_once(objective: str, guidance: str, guidance_scale: float, negative_prompt: str) -> int:
    """How many answers about one image an objective asks of the prior together."""
    if objective in ("sds", "sjc") and guidance == "classifier-free" and guidance_scale == 1:
        return 1  # without guidance the other branch is not asked
    if objective == "nfsd" or (objective == "csd" and negative_prompt):
        return 3  # nothing, the prompt, and what is undesired
    return 4 if guidance == "perp-neg" else 2  # with two views that the camera does not have


def check(
    objective: str,
    guidance: str,
    guidance_scale: float,
    weighting: str,
    memory: str = "normal",
    negative_prompt: str = "",
    image_residual: float = 0.0,
) -> None:
    """Raise ValueError, with the reason, on a combination that makes no sense."""
    if guidance_scale == 0:
        raise ValueError("With a guidance scale of 0 nobody would look at the prompt or the picture: 1 is no guidance.")
    if negative_prompt and guidance_scale == 1 and objective not in NEGATIVE_ALONE and guidance != "perp-neg":
        raise ValueError("A negative prompt has no effect at a guidance scale of 1: choose a larger one, or leave it out.")
    if objective in UNGUIDED and guidance != "classifier-free":
        raise ValueError(
            f"The objective {objective!r} combines the prior's answers in its own way: leave the guidance at"
            f" 'classifier-free', got {guidance!r}."
        )
    if guidance in IDLE_AT_SCALE_1 and guidance_scale == 1:
        raise ValueError(
            f"The guidance {guidance!r} has no effect at a guidance scale of 1: choose a larger one, or leave the guidance at"
            " 'classifier-free'."
        )
    if objective in SELF_WEIGHTED and weighting != "sds":
        raise ValueError(f"The objective {objective!r} brings its own w(t): leave the weighting at 'sds', got {weighting!r}.")
    if objective == "csd" and guidance_scale <= 1:
        raise ValueError(
            "The objective 'csd' is (guidance scale - 1) times the pull of the text: it needs a guidance scale above 1, got"
            f" {guidance_scale:g}."
        )
    if image_residual > 0 and objective != "sds":
        raise ValueError(
            f"An image residual is SDS between images: with the objective {objective!r} it must be 0, got {image_residual:g}."
        )
    if objective == "vsd" and memory == "lowest":
        raise ValueError("The objective 'vsd' learns in the prior's UNet, which memory 'lowest' takes apart: choose 'low'.")


def check_prior(objective: str, prior: str) -> None:
    """Raise ValueError, with the reason, on an objective that a prior from the table of models cannot serve."""
    model = known(prior)
    if objective == "vsd" and model is not None and not model.layout.learns:
        raise ValueError(
            f"The objective 'vsd' learns in a UNet like that of Stable Diffusion 1 or 2 or of DeepFloyd IF, and {prior!r} has"
            " none: choose another prior or another objective."
        )
