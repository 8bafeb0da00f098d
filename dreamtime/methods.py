"""Published methods as settings: what each changes in a preset, and where that is written.

What makes a method (`changes`) holds with every prior. Its numbers (`published`) are those of the preset `standard` with a
large prior; `draft` and `high` take as large a share of its steps as of their own. The embedded prior on a CPU keeps the
numbers of the presets: the published ones are for models a hundred times its size. Guidance scales belong to objectives and
priors, see `presets.OBJECTIVE_CHANGES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """A method by what it changes, its sources, and what is not as published."""

    title: str
    source: str
    differs: str
    changes: Mapping[str, Any]  # with every prior
    published: Mapping[str, Any] = field(default_factory=dict)  # with large priors


# threestudio, configs/dreamfusion-sd.yaml: albedo alone for 2000 of 10 000 steps, then for a quarter of them; half of the
# others are textureless (models/materials/diffuse_with_point_light_material.py). Here every step draws, with those shares.
DREAMFUSION: dict[str, Any] = {
    "steps": 10_000,
    "views": 1,
    "resolution": 64,
    "learning_rate": 0.01,
    "adam_epsilon": 1e-15,
    "representation": "hash-grid",
    "background": "environment",
    "albedo_share": 0.4,
    "textureless_share": 0.3,
    "opacity": 1.0,
    "orientation": 10.0,
}

UNSHADED: dict[str, Any] = {"albedo_share": 1.0, "textureless_share": 0.0, "orientation": 0.0}

METHODS: dict[str, Method] = {
    "dreamtime": Method(
        "DreamTime",
        "Huang et al., DreamTime, ICLR 2024, arXiv 2306.12422: Eq. 5 and 8, m = 500, s = 125",
        "The schedule is the paper's; all else is the preset's own.",
        {"schedule": "time-prioritized", "m": 500.0, "s": 125.0, "objective": "sds"},
    ),
    "dreamfusion": Method(
        "DreamFusion",
        "Poole et al., DreamFusion, ICLR 2023, arXiv 2209.14988: Eq. 3, section 3 and appendix A.2; numbers of threestudio's"
        " configs/dreamfusion-sd.yaml, since Imagen and the paper's 15 000 steps on four TPUs are not to be had",
        "The orientation weight stays at 10, where theirs rises to 1000; albedo, textureless and shaded views are drawn in"
        " their overall shares from the first step on.",
        {"schedule": "uniform", "objective": "sds", "weighting": "sds"},
        DREAMFUSION,
    ),
    "prolificdreamer": Method(
        "ProlificDreamer",
        "Wang et al., ProlificDreamer, NeurIPS 2023, arXiv 2305.16213: Eq. 9 and 10, Algorithm 1, guidance scale 7.5, t from"
        " [0.02, 0.98] T for 5000 of 25 000 steps, then from [0.02, 0.5] T; numbers of threestudio's"
        " configs/prolificdreamer.yaml",
        "It is the first of its three stages, with one particle; views are 256 pixels wide as threestudio's, the paper's 512.",
        {"schedule": "prolificdreamer", "objective": "vsd", "weighting": "sds"},
        {
            **DREAMFUSION,
            **UNSHADED,
            "steps": 25_000,
            "resolution": 256,
            "opacity": 10.0,
            "second_learning_rate": 1e-4,
        },
    ),
    "hifa": Method(
        "HiFA",
        "Zhu et al., HiFA, ICLR 2024, arXiv 2305.18766: t falls with the square root of the progress from 0.98 T to 0.3 T;"
        " numbers of threestudio's configs/hifa.yaml",
        "Its z-variance loss and its kernel smoothing of the samples along a ray are left out; its loss on decoded images takes"
        " the place of that on latents with the embedded prior, and is left out with large ones (see image_residual).",
        {"schedule": "hifa", "objective": "sds", "weighting": "sds"},
        DREAMFUSION,
    ),
    "sjc": Method(
        "SJC",
        "Wang et al., Score Jacobian Chaining, CVPR 2023, arXiv 2212.00774: Perturb-and-Average Scoring; numbers of"
        " threestudio's configs/sjc.yaml",
        "The grid holds albedo and is encoded, where theirs holds latents; it has nested levels and learns at 0.02, theirs is"
        " one of 100 cells and learns at 0.05; the opacity term stands for their emptiness loss.",
        {"schedule": "uniform", "objective": "sjc"},
        {
            **DREAMFUSION,
            **UNSHADED,
            "t_min": 10,
            "t_max": 970,
            "representation": "feature-grid",
            "learning_rate": 0.02,
        },
    ),
}
"""The default, which changes nothing in a preset, comes first."""

IN_ALL = (
    "In all of them the scene, the cameras and the falling learning rate are this project's; its hash grid has 8 levels up to"
    " 128 cells, where threestudio's has 16 up to 4096. With the embedded prior a method keeps its schedule and objective, and"
    " the preset its numbers and a guidance scale that suits that prior."
)
