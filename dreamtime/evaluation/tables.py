"""From the cells' files and a scorer to tidy tables: one row per cell, one row per glance, one row per set of seeds."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreamtime.checkpoints import write_atomically
from dreamtime.evaluation.alignment import overlaps
from dreamtime.evaluation.cells import (
    CELL,
    Cost,
    EvaluationError,
    damaged,
    glance_steps,
    intact,
    read_curve,
    read_portrait,
    read_solid,
    write_portrait,
)
from dreamtime.evaluation.convergence import first_step_at
from dreamtime.evaluation.geometry import Score, Soundness
from dreamtime.evaluation.grid import folder_of, name_of
from dreamtime.evaluation.prompt_sets import group_of, truth_of
from dreamtime.evaluation.retrieval import arc_of, cosine_distance, is_janus, mean_pairwise, retrieved
from dreamtime.evaluation.scorers import Scorer
from dreamtime.evaluation.views import PREVIEWS, Portrait, portrait_of_truth
from dreamtime.presets import Settings
from dreamtime.prompts import View, with_view
from dreamtime.toybox.meanings import Attribute, Description, answers, questions, uncolored
from dreamtime.toybox.world import Object, Thing

AROUND: tuple[View, ...] = ("front", "side", "back")
FAILED = {"iou": 0.0, "iou_scaled": 0.0}
"""What a run is worth that diverged or left nothing to see, where there is a truth to hold it against."""
COLUMNS = (
    *(*CELL, "prior", "preset", "weights", "scorer", "group", "failure"),
    *(field.name for kind in (Soundness, Score) for field in fields(kind)),
    *("r_color", "r_geometry", "r_geometry_prompts"),
    *("kind_right", "color_right", "accent_right", "relation_right"),
    *("front_views", "front_arc", "no_janus"),
    *(*(field.name for field in fields(Cost)), "peak_mb"),
)
"""Of the results, in this order whatever the prompts are: the cell, what made it, how it ended, what was measured, its cost."""


# -- what a scorer says


@dataclass(frozen=True)
class Features:
    """A cell's pictures as a scorer sees them: unit vectors."""

    color: Float[Tensor, "V D"]
    bare: Float[Tensor, "V D"]
    curve: Float[Tensor, "K D"]  # of all views of all glances


def features_of(portrait: Portrait, curve: Float[Tensor, "K H W 3"], scorer: Scorer) -> Features:
    return Features(*map(scorer.images, (portrait.color, portrait.bare, curve)))


def kept_features(folder: Path, scorer: Scorer) -> Features | None:
    """Those of a cell, computed once per scorer and kept beside its pictures; None where a run has left no mesh.

    Raises `EvaluationError`.
    """
    path = folder / f"features-{scorer.fingerprint}.safetensors"
    if not (folder / "solid.safetensors").is_file():
        return None
    with suppress(OSError, SafetensorError, TypeError):  # not made yet, or damaged: then they are made anew
        return Features(**load_file(path))
    glances = read_curve(folder)
    curve = torch.cat([glance.views for glance in glances]) if glances else torch.zeros(0, 1, 1, 3)
    features = features_of(read_portrait(folder), curve, scorer)
    tensors = {"color": features.color, "bare": features.bare, "curve": features.curve}
    write_atomically(path, lambda temporary: save_file(tensors, temporary))
    return features


@dataclass(frozen=True)
class Texts:
    """The prompts of an evaluation, and every text that a scorer is asked about on their account."""

    prompts: tuple[str, ...]
    vectors: Mapping[str, Float[Tensor, " D"]]

    def matrix(self, texts: Sequence[str]) -> Float[Tensor, "P D"]:
        return torch.stack([self.vectors[text] for text in texts])

    def retrieval(self, pictures: Float[Tensor, "B D"], text: str, among: Sequence[str]) -> Float[Tensor, " B"]:
        """1 for each picture that finds its text among all the different ones, else 0."""
        different = list(dict.fromkeys(among))
        truth = torch.full((len(pictures),), different.index(text))
        return retrieved(pictures @ self.matrix(different).T, truth).double()


def geometry_text(prompt: str) -> str:
    """What a textureless picture can be expected to show: of the toybox's objects their shape without colours."""
    what = truth_of(prompt)
    return uncolored(what) if what else prompt


def candidates(prompts: Sequence[str]) -> dict[str, int]:
    """Among how many captions a run's own is looked for: all of them, or the different ones that are left without colours."""
    shapes = len({geometry_text(prompt) for prompt in prompts})
    return {"r_color": len(prompts), "r_geometry": shapes, "r_geometry_prompts": len(prompts) if shapes > 1 else 1}


def retrievals(prompts: Sequence[str]) -> list[str]:
    """What can be asked of a run: its caption among others, its shape among others, its caption by its shape alone."""
    return [name for name, choices in candidates(prompts).items() if choices > 1]


def questions_of(prompt: str) -> dict[Attribute, list[str]]:
    """What can be asked of a result besides its prompt; nothing of free text."""
    what = truth_of(prompt)
    return questions(Description(what)) if what else {}


def has_front(prompt: str) -> bool:
    """Whether front, side and back should differ: free text has the benefit of the doubt."""
    what = truth_of(prompt)
    return what is None or (isinstance(what, Thing) and what.what.front)


def wanted_texts(prompts: Sequence[str]) -> list[str]:
    """All texts that `judged` asks about, each once."""
    wanted = dict.fromkeys(prompts)
    for prompt in prompts:
        wanted |= dict.fromkeys([geometry_text(prompt), *(with_view(prompt, view) for view in AROUND)])
        wanted |= dict.fromkeys(caption for options in questions_of(prompt).values() for caption in options)
    return list(wanted)


def texts_of(prompts: Sequence[str], scorer: Scorer) -> Texts:
    """These prompts and all that is asked on their account, embedded once."""
    wanted = wanted_texts(prompts)
    return Texts(tuple(prompts), dict(zip(wanted, scorer.texts(wanted), strict=True)))


def judged(features: Features, prompt: str, texts: Texts) -> dict[str, float]:
    """R-Precision in colour and of the geometry, what of the prompt is right, and whether there is more than one face.

    Colour is looked for among all prompts, geometry among the fewer that differ without their colours (`candidates`), and among
    all of them as they stand, as DreamFusion does: there, prompts of one shape cannot be told apart.
    An attribute is right when the prompt is nearer than every prompt that differs in it alone, on average over the views.
    Where there is one prompt alone, or one shape, there is nothing to retrieve it from.
    """
    shapes = [geometry_text(each) for each in texts.prompts]
    said = {
        "r_color": texts.retrieval(features.color, prompt, texts.prompts).mean().item(),
        "r_geometry": texts.retrieval(features.bare, geometry_text(prompt), shapes).mean().item(),
        "r_geometry_prompts": texts.retrieval(features.bare, prompt, texts.prompts).mean().item(),
    }
    said = {name: said[name] for name in retrievals(texts.prompts)}
    if what := truth_of(prompt):
        found = answers(features.color.mean(dim=0), Description(what), texts.vectors)
        said |= {f"{attribute}_right": float(right) for attribute, right in found.items()}
    if has_front(prompt):
        around = texts.matrix([with_view(prompt, view) for view in AROUND])
        front = (features.color @ around.T).argmax(dim=1) == 0
        said |= {"front_views": float(front.sum()), "front_arc": arc_of(front), "no_janus": float(not is_janus(front))}
    return said


# -- the tables


def result_of(folder: Path) -> dict[str, Any]:
    """What `cells.measure` wrote of a run's failure, measures and cost; raises `EvaluationError`."""
    with intact(folder):
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        measures, cost = ({**result[name]} for name in ("measures", "cost"))
        return {"failure": result["failure"] or "", "measures": measures, "cost": cost}


def cell_columns(cell: Settings) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in CELL}


def results_table(root: Path, cells: Sequence[Settings], scorer: Scorer, texts: Texts, made: Mapping[str, str]) -> pd.DataFrame:
    """One row per cell: everything measured, NaN where it cannot be. A failed run misses every caption and overlaps nothing.

    `made` may say of which preset the cells are, and the digest of the weights.
    """
    rows = []
    makers = {"scorer": scorer.name, **{name: made[name] for name in ("preset", "weights") if name in made}}
    for cell in cells:
        folder = folder_of(root, cell)
        result, features = result_of(folder), kept_features(folder, scorer)
        if features is None and not result["failure"]:
            raise damaged(folder)
        row = {**cell_columns(cell), "prior": cell.prior, **makers}
        row |= {"group": group_of(cell.prompt), "failure": result["failure"]}
        if features is None:
            wrong = [f"{attribute}_right" for attribute in questions_of(cell.prompt)]
            missed = FAILED if truth_of(cell.prompt) else {}
            row |= missed | dict.fromkeys(wrong + retrievals(texts.prompts), 0.0)
        else:
            row |= result["measures"] | judged(features, cell.prompt, texts)
        rows.append(row | result["cost"])
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def kept_truth(root: Path, what: Object) -> Portrait:
    """The true object's pictures, which take their time: ray-traced once for an evaluation and kept beside its cells."""
    folder = root / "truths" / name_of(what.caption)
    with suppress(EvaluationError):  # not made yet, or damaged: then they are made anew
        return read_portrait(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_portrait(folder, portrait_of_truth(what))
    return read_portrait(folder)


def truth_table(texts: Texts, scorer: Scorer, portray: Callable[[Object], Portrait] = portrait_of_truth) -> pd.DataFrame:
    """What the scorer says of the true objects: as much as a result can reach on this ruler. Empty for free text."""
    rows = []
    for prompt in texts.prompts:
        what = truth_of(prompt)
        if what:
            features = features_of(portray(what), torch.zeros(0, 1, 1, 3), scorer)
            rows.append({"prompt": prompt, "group": group_of(prompt), **judged(features, prompt, texts)})
    return pd.DataFrame(rows)


def curves_table(root: Path, cells: Sequence[Settings], scorer: Scorer, texts: Texts) -> pd.DataFrame:
    """One row per glance: the overlap with the truth, and the share of views that retrieve the prompt; 0 for a failed run.

    NaN for what cannot be asked, as in `judged`.
    """
    rows = []
    for cell in cells:
        folder = folder_of(root, cell)
        features, glances = kept_features(folder, scorer), {glance.step: glance.iou for glance in read_curve(folder)}
        steps = sorted(glance_steps(cell.steps))
        if features and (list(glances) != steps or len(features.curve) != PREVIEWS * len(steps)):
            raise damaged(folder)
        views = features.curve.split(PREVIEWS) if features else [None] * len(steps)
        for step, seen in zip(steps, views, strict=True):
            found = math.nan if len(texts.prompts) == 1 else 0.0
            if seen is not None and len(texts.prompts) > 1:
                found = texts.retrieval(seen, cell.prompt, texts.prompts).mean().item()
            iou = glances[step] if features else 0.0 if truth_of(cell.prompt) else math.nan
            rows.append({**cell_columns(cell), "step": step, "iou": iou, "r_precision": found})
    return pd.DataFrame(rows)


def column_of(target: float) -> str:
    """Where it stands when a run came to that IoU."""
    return f"steps_to_iou_{target:g}"


def with_steps_to(results: pd.DataFrame, curves: pd.DataFrame, targets: Sequence[float]) -> pd.DataFrame:
    """The results with the first step at which each run comes to each IoU, NaN where it does not or has no truth."""
    known = curves.dropna(subset=["iou"])
    if known.empty or not targets:
        return results.assign(**{column_of(target): math.nan for target in targets})
    rows = []
    for cell, run in known.groupby(list(CELL), sort=False):
        steps, scores = torch.tensor(run.step.to_numpy(dtype=int)), torch.tensor(run.iou.to_numpy(dtype=float))
        wanted = torch.tensor(list(targets), dtype=scores.dtype)
        first = first_step_at(steps, scores.expand(len(wanted), -1), wanted)
        found = {column_of(target): step for target, step in zip(targets, first.tolist(), strict=True)}
        rows.append({**dict(zip(CELL, cell, strict=True)), **found})
    return results.merge(pd.DataFrame(rows).replace(math.inf, math.nan), on=list(CELL), how="left")


def diversity_table(root: Path, cells: Sequence[Settings], scorer: Scorer) -> pd.DataFrame:
    """One row per prompt, schedule and steps: how far apart its seeds are, to the scorer's eye and as shapes (1 - IoU)."""
    rows = []
    keys = dict.fromkeys((cell.prompt, cell.schedule, cell.steps) for cell in cells)
    for key in keys:
        folders = [folder_of(root, cell) for cell in cells if (cell.prompt, cell.schedule, cell.steps) == key]
        seen = [features for folder in folders if (features := kept_features(folder, scorer))]
        solids = [read_solid(folder) for folder in folders if (folder / "solid.safetensors").is_file()]
        seen_distance = mean_pairwise(cosine_distance, [features.color.mean(dim=0) for features in seen])
        shape_distance = mean_pairwise(lambda a, b: 1 - overlaps(a, b).max().item(), solids)
        row = dict(zip(("prompt", "schedule", "steps"), key, strict=True))
        rows.append({**row, "seen_diversity": seen_distance, "shape_diversity": shape_distance})
    return pd.DataFrame(rows)
