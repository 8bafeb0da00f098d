"""The tables, a summary in JSON and Markdown, pictures of both, and one HTML page that holds everything."""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from dreamtime.checkpoints import write_atomically
from dreamtime.evaluation import TARGETS, charts, tables
from dreamtime.evaluation.cells import read_portrait, sheet
from dreamtime.evaluation.grid import folder_of, nothing
from dreamtime.evaluation.prompt_sets import truth_of
from dreamtime.evaluation.scorers import Scorer
from dreamtime.evaluation.summary import MEASURES, SCORES, shown, summarised
from dreamtime.evaluation.views import Portrait
from dreamtime.presets import Settings

THUMBNAIL = 72  # pixels
ONE_SEED = "Diversity needs two seeds."
PARTS = 3  # of a report, beside what is judged: the tables, the charts, the page


@dataclass(frozen=True)
class Report:
    """Where everything lies."""

    page: Path
    results: Path
    curves: Path
    summary: Path


def strict(value: Any) -> Any:
    """The same with null for what JSON cannot say: infinite, or no number."""
    if isinstance(value, Mapping):
        return {key: strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def data_uri(image: Image.Image, kind: str = "webp") -> str:
    """A picture as part of a page."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=80)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnails(portrait: Portrait) -> str:
    """Every second view in colour and textureless, in one row."""
    row = sheet([torch.cat([portrait.color[::2], portrait.bare[::2]])])
    side = row.height
    return data_uri(row.resize((row.width * THUMBNAIL // side, THUMBNAIL), Image.Resampling.LANCZOS))


# -- words


def in_common(cell: Settings) -> str:
    """What all runs share, in one line."""
    looks = f"{cell.views} views of {cell.resolution} pixels per step"
    return f"{cell.prior} on {cell.device}, {cell.asked}, guidance {cell.guidance_scale:g}, {looks}, {cell.representation}"


def ratio_sentence(ratio: Mapping[str, Any]) -> str:
    """One comparison of steps as a sentence."""
    score, n = SCORES[ratio["score"]], ratio["steps"]
    reached = f"what {ratio['reference']} reaches in {n} steps ({score} {ratio['target']:.3f})"
    if not math.isfinite(ratio["value"]):
        least = f"; lower end of the 95 % interval {ratio['low']:.2f}" if math.isfinite(ratio["low"]) else ""
        return f"{ratio['schedule']} does not come to {reached}{least}."
    high = f"{ratio['high']:.2f}" if math.isfinite(ratio["high"]) else "never"
    interval = f"; 95 % interval {ratio['low']:.2f} to {high}" if math.isfinite(ratio["low"]) else ""
    return f"{ratio['schedule']} needs {ratio['value']:.2f} times as many steps for {reached}{interval}."


def never_sentence(found: Mapping[str, Any], quality: str) -> str:
    """Which of two schedules does not come to a quality, or that neither does; empty where both do."""
    both = [(found[who], found[f"{who}_steps"], found[f"{who}_within"]) for who in ("schedule", "reference")]
    never, reached = ([each for each in both if math.isfinite(each[1]) is finite] for finite in (False, True))
    if not never:
        return ""
    if not reached:
        (one, _, within), (other, _, longest) = never
        return f"Neither {one} within {within} steps nor {other} within {longest} reaches {quality}."
    (slow, _, within), (fast, step, _) = *never, *reached
    return f"{slow} never reaches {quality} within {within} steps; {fast} does at {step:.0f}."


def speedup_sentence(found: Mapping[str, Any]) -> str:
    """How much sooner one schedule comes to a quality than another, as a sentence."""
    quality = f"{SCORES[found['score']]} {found['target']:.3f}" + (", the most that both end with" if found["most"] else "")
    if never := never_sentence(found, quality):
        return never
    steps = f"{found['schedule_steps']:.0f} steps against {found['reference_steps']:.0f}"
    high = f"{found['high']:.2f}" if math.isfinite(found["high"]) else "never"
    interval = f"; 95 % interval {found['low']:.2f} to {high}" if math.isfinite(found["low"]) else ""
    return (
        f"{found['schedule']} needs {found['value']:.2f} times as many steps as {found['reference']} to {quality} ({steps})"
        f"{interval}."
    )


def sentences_of(summary: Mapping[str, Any]) -> list[str]:
    """What is said of steps and quality."""
    return [*map(ratio_sentence, summary["ratios"]), *map(speedup_sentence, summary["speedups"])]


def label_of(name: str, summary: Mapping[str, Any]) -> str:
    """A measure as people read it; of a retrieval, among how many captions."""
    count = summary["candidates"].get(name)
    return f"{MEASURES[name].label}, among {count} captions" if count else MEASURES[name].label


def table_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column titles, and a row per measure: its value for every schedule and length, and for the truth."""
    rows, truth = summary["rows"], summary["truth"]
    titles = ["", *(f"{row['schedule']}, {row['steps']}" for row in rows), *(["the truth"] if truth else [])]
    lines = []
    for name, measure in MEASURES.items():
        if not any(name in row["measures"] for row in rows):
            continue
        cells = [interval_text(name, row["measures"].get(name)) for row in rows]
        cells += [shown(measure, truth[name]) if name in truth else ""] if truth else []
        lines.append([label_of(name, summary), *cells])
    return titles, lines


def interval_text(name: str, found: Mapping[str, float] | None, signed: bool = False) -> str:
    """A mean with its interval, if there is one."""
    if found is None:
        return ""
    if not math.isfinite(found["low"]):
        return shown(MEASURES[name], found["value"], signed)
    value, low, high = (shown(MEASURES[name], found[key], signed) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def difference_rows(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """How much more the reference schedule has of each measure than another at equal steps."""
    versus = summary["versus"]
    titles = ["", *(f"{row['reference']} less {row['schedule']}, {row['steps']}" for row in versus)]
    names = [name for name in MEASURES if any(name in row["measures"] for row in versus)]
    return titles, [
        [label_of(name, summary), *(interval_text(name, row["measures"].get(name), signed=True) for row in versus)]
        for name in names
    ]


def group_rows(summary: Mapping[str, Any], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The main measures by sort of prompt."""
    names = [name for name in names if any(name in row["measures"] for row in summary["groups"])]
    titles = ["prompts", "schedule, steps", *(label_of(name, summary) for name in names)]
    lines = []
    for row in summary["groups"]:
        values = [shown(MEASURES[n], row["measures"][n]) if n in row["measures"] else "" for n in names]
        lines.append([f"{row['group']} ({row['prompts']})", f"{row['schedule']}, {row['steps']}", *values])
    return titles, lines


GROUP_MEASURES = ("r_color", "r_geometry", "iou", "iou_scaled", "color", "kind_right", "color_right", "no_janus")


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown_summary(summary: Mapping[str, Any]) -> str:
    """The summary for a README: means with 95 % intervals, sorts of prompts, steps."""
    parts = [markdown(*table_rows(summary)), markdown(*group_rows(summary, GROUP_MEASURES))]
    sentences = sentences_of(summary) + ([ONE_SEED] if summary["seeds"] == 1 else [])
    return "\n".join([*parts, *(f"* {sentence}" for sentence in sentences), ""])


# -- the page


def gallery(root: Path, cells: Sequence[Settings], results: pd.DataFrame) -> list[dict[str, Any]]:
    """Per prompt the truth and the first seed of every schedule and length, with their numbers."""
    found = []
    first = [(cell, row) for cell, (_, row) in zip(cells, results.iterrows(), strict=True) if cell.seed == 0]
    for prompt in dict.fromkeys(cell.prompt for cell in cells):
        what = truth_of(prompt)
        strips = [{"title": "the truth", "image": thumbnails(tables.kept_truth(root, what)), "text": ""}] if what else []
        for cell, row in first:
            if cell.prompt == prompt:
                folder = folder_of(root, cell)
                image = "" if row.failure else thumbnails(read_portrait(folder))
                names = [name for name in ("iou", "color", "r_color", "r_geometry") if name in row and pd.notna(row[name])]
                text = row.failure or ", ".join(f"{MEASURES[name].label} {shown(MEASURES[name], row[name])}" for name in names)
                strips.append({"title": f"{cell.schedule}, {cell.steps}", "image": image, "text": text})
        found.append({"prompt": prompt, "strips": strips})
    return found


def page(
    root: Path,
    cells: Sequence[Settings],
    results: pd.DataFrame,
    summary: Mapping[str, Any],
    pictures: Mapping[str, Path],
    made: Mapping[str, str],
) -> str:
    """One HTML page without any reference to other files."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html").render(
        made=made,
        settings=in_common(cells[0]),
        lacks=ONE_SEED if summary["seeds"] == 1 else "",
        counts={"prompts": results.prompt.nunique(), "seeds": results.seed.nunique(), "runs": len(results)},
        ratios=sentences_of(summary),
        tables={
            "Means over the prompts, with 95 % intervals": table_rows(summary),
            "Differences at equal steps, with 95 % intervals": difference_rows(summary) if summary["versus"] else None,
            "By sort of prompt": group_rows(summary, GROUP_MEASURES),
        },
        pictures={name: data_uri(Image.open(path), "png") for name, path in pictures.items()},
        gallery=gallery(root, cells, results),
        failures=[dict(row) for _, row in results[results.failure != ""].iterrows()],
    )


def parts_of(cells: Sequence[Settings]) -> int:
    """How many times `write_report` says that something is done."""
    return len(cells) + sum(truth_of(prompt) is not None for prompt in {cell.prompt for cell in cells}) + PARTS


def judge(root: Path, cells: Sequence[Settings], scorer: Scorer, done: Callable[[], object]) -> None:
    """Do beforehand, one by one, what takes its time: show the scorer every result, and draw every true object."""
    for cell in cells:
        tables.kept_features(folder_of(root, cell), scorer)
        done()
    for prompt in dict.fromkeys(cell.prompt for cell in cells):
        if what := truth_of(prompt):
            tables.kept_truth(root, what)
            done()


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A table as CSV, in the place of the one that is there."""
    write_atomically(path, lambda temporary: table.to_csv(temporary, index=False))


def write_report(
    root: Path,
    cells: Sequence[Settings],
    scorer: Scorer,
    made: Mapping[str, str],
    targets: Sequence[float] = TARGETS,
    done: Callable[[], object] = nothing,
) -> Report:
    """Judge the finished cells and write down everything; `made` are words about how it came about, for the page.

    Of each run it is told after how many steps it comes to each of the targets, values of IoU. `done` is called after each of
    the `parts_of` the work.
    """
    prompts = list(dict.fromkeys(cell.prompt for cell in cells))
    judge(root, cells, scorer, done)
    texts = tables.texts_of(prompts, scorer)
    results = tables.results_table(root, cells, scorer, texts, made)
    curves = tables.curves_table(root, cells, scorer, texts)
    diversity = tables.diversity_table(root, cells, scorer)
    truth = tables.truth_table(texts, scorer, partial(tables.kept_truth, root))
    results = tables.with_steps_to(results, curves, targets)
    summary = {**summarised(results, curves, diversity, truth, targets), "candidates": tables.candidates(prompts)}
    summary["seeds"] = results.seed.nunique()
    report = Report(root / "report.html", root / "results.csv", root / "curves.csv", root / "summary.json")
    write_table(report.results, results)
    write_table(report.curves, curves)
    if summary["seeds"] > 1:
        write_table(root / "diversity.csv", diversity)
    else:
        (root / "diversity.csv").unlink(missing_ok=True)
    told = json.dumps(strict({**made, "scorer": scorer.name, "prompts": prompts, **summary}), indent=1)
    write_atomically(report.summary, lambda path: path.write_text(told, encoding="utf-8"))
    write_atomically(root / "summary.md", lambda path: path.write_text(markdown_summary(summary), encoding="utf-8"))
    done()
    pictures = charts.write_figures(root / "plots", results, curves, summary)
    done()
    text = page(root, cells, results, summary, pictures, made)
    # A file's name need not be text, and the page tells it.
    write_atomically(report.page, lambda path: path.write_text(text, encoding="utf-8", errors="backslashreplace"))
    done()
    return report
