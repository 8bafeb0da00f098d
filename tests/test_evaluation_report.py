"""Summary, charts and page of an evaluation whose numbers are known."""

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from pretended_evaluation import PROMPTS, fails, plan, pretend
from tiny_scorer import write_tiny_scorer

from dreamtime.evaluation import grid, summary, tables
from dreamtime.evaluation.report import (
    Report,
    nothing,
    parts_of,
    ratio_sentence,
    speedup_sentence,
    strict,
    write_report,
    write_table,
)
from dreamtime.evaluation.scorers import load_scorer
from dreamtime.evaluation.views import RESOLUTION, VIEWS, Portrait
from dreamtime.presets import Settings

TARGETS = (0.15, 0.3)
MADE = {"made by": "python -m dreamtime evaluate --prompts 'a & b'", "on": "2026-11-20"}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Report:
    root = tmp_path_factory.mktemp("evaluation")
    for cell in plan():
        pretend(cell, grid.folder_of(root, cell))
    scorer = load_scorer(str(write_tiny_scorer(tmp_path_factory.mktemp("scorer"))))
    return write_report(root, plan(), scorer, MADE, TARGETS)


@pytest.fixture(scope="module")
def told(written: Report) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(written.summary.read_text(), parse_constant=refuse)


def test_the_means_are_over_prompts_and_their_seeds(told: dict):
    found = {(row["schedule"], row["steps"]): row for row in told["rows"]}
    assert list(found) == [("uniform", 2), ("uniform", 4), ("time-prioritized", 2), ("time-prioritized", 4)]
    # Of the two cubes the red one fails with one of its two seeds; free text has no truth and does not count.
    assert found["uniform", 4]["measures"]["iou"]["value"] == pytest.approx((0.2 + 0.0 + 0.2 + 0.2) / 4)
    assert found["time-prioritized", 4]["measures"]["iou"]["value"] == pytest.approx(0.4)
    assert (found["uniform", 4]["runs"], found["uniform", 4]["failed"]) == (6, 1)
    assert found["uniform", 4]["measures"]["iou"]["low"] <= 0.1 + 1e-9
    assert found["time-prioritized", 2]["measures"]["seconds"]["value"] == 1.5


def test_schedules_are_compared_prompt_by_prompt(told: dict):
    (row,) = [row for row in told["versus"] if row["steps"] == 4]
    assert (row["reference"], row["schedule"]) == ("time-prioritized", "uniform")
    assert row["measures"]["iou"]["value"] == pytest.approx(0.4 - 0.15)
    # From prompt to prompt 0.4 - 0.1 and 0.4 - 0.2.
    assert row["measures"]["iou"]["low"] == pytest.approx(0.2)
    assert row["measures"]["iou"]["high"] == pytest.approx(0.3)


def test_sorts_of_prompts_are_told_apart(told: dict):
    groups = {(row["group"], row["schedule"], row["steps"]): row for row in told["groups"]}
    assert {group for group, _, _ in groups} == {"solids", "free text"}
    assert groups["solids", "uniform", 4]["prompts"] == 2
    assert "iou" not in groups["free text", "uniform", 4]["measures"]


def test_steps_to_quality_are_those_of_the_curves(told: dict):
    """IoU rises by 0.1 a step under the reference, and on average over the cubes by 0.0375 under the other."""
    ratios = {row["steps"]: row for row in told["ratios"] if row["score"] == "iou"}
    assert ratios[2]["target"] == pytest.approx(0.2)
    # Within four steps the other one comes to 0.15 at most.
    assert ratios[2]["value"] is None
    assert ratios[4]["value"] is None


def climbing(steps_of_uniform: int) -> pd.DataFrame:
    """Curves of two prompts: IoU climbs by 0.04 for 10 steps under the reference, by 0.01 for so many under the other."""
    return pd.DataFrame(
        {"prompt": prompt, "schedule": schedule, "steps": steps, "seed": 0, "step": step, "iou": quality * step}
        for prompt in ("a", "b")
        for schedule, steps, quality in (("time-prioritized", 10, 0.04), ("uniform", steps_of_uniform, 0.01))
        for step in range(1, steps + 1)
    )


def test_a_slower_schedule_that_gets_there_has_its_ratio():
    (ratio,) = summary.ratios(climbing(40), "iou")
    assert ratio["value"] == ratio["low"] == ratio["high"] == pytest.approx(4)
    assert ratio_sentence(ratio) == (
        "uniform needs 4.00 times as many steps for what time-prioritized reaches in 10 steps (IoU 0.400);"
        " 95 % interval 4.00 to 4.00."
    )


def test_the_same_quality_is_told_of_both_with_the_steps_of_each():
    """One climbs to 0.4, the other to 0.28: that both end with."""
    table = climbing(28)
    some, most = summary.speedups(table, "iou", (0.2,))
    assert (some["target"], some["schedule_steps"], some["reference_steps"]) == pytest.approx((0.2, 20, 5))
    assert (most["target"], most["schedule_steps"], most["reference_steps"]) == pytest.approx((0.28, 28, 7))
    assert [row["value"] for row in (some, most)] == pytest.approx([4, 4])
    assert speedup_sentence(some) == (
        "uniform needs 4.00 times as many steps as time-prioritized to IoU 0.200 (20 steps against 5);"
        " 95 % interval 4.00 to 4.00."
    )
    assert "to IoU 0.280, the most that both end with (28 steps against 7)" in speedup_sentence(most)
    assert summary.speedups(table[table.schedule == "uniform"], "iou", (0.2,)) == []


def test_a_target_that_one_schedule_alone_reaches_is_told():
    """One climbs to 0.4 within 10 steps, the other to 0.28 within 28."""
    one, neither, _ = summary.speedups(climbing(28), "iou", (0.35, 0.5))
    assert (one["value"], one["schedule_steps"]) == (math.inf, math.inf)
    assert one["reference_steps"] == pytest.approx(8.75)
    assert speedup_sentence(one) == "uniform never reaches IoU 0.350 within 28 steps; time-prioritized does at 9."
    assert (neither["value"], neither["schedule_steps"], neither["reference_steps"]) == (math.inf,) * 3
    assert speedup_sentence(neither) == "Neither uniform within 28 steps nor time-prioritized within 10 reaches IoU 0.500."
    json.dumps(strict([one, neither]), allow_nan=False)


def test_a_target_that_the_reference_alone_misses_is_told():
    table = climbing(60)  # to 0.6 against 0.4
    (found, _) = summary.speedups(table, "iou", (0.5,))
    assert found["value"] == 0
    assert speedup_sentence(found) == "time-prioritized never reaches IoU 0.500 within 10 steps; uniform does at 50."


def test_of_each_run_it_is_told_when_it_came_to_a_quality(written: Report):
    results = pd.read_csv(written.results)
    curves = pd.read_csv(written.curves).dropna(subset=["iou"])
    wanted = [f"steps_to_iou_{target:g}" for target in TARGETS]
    assert set(wanted) <= set(results)
    known = results[results.prompt.isin(curves.prompt)]
    best = curves.groupby(["prompt", "schedule", "steps", "seed"]).iou.max()
    for _, row in known.iterrows():
        reached = best.get((row.prompt, row.schedule, row.steps, row.seed), 0.0)
        assert list(row[wanted].notna()) == [reached >= target for target in TARGETS]
    assert known[wanted].notna().any().all()
    assert results[~results.prompt.isin(curves.prompt)][wanted].isna().all(axis=None)


@pytest.mark.parametrize(
    ("value", "low", "high", "words"),
    [
        (math.inf, math.inf, math.inf, "uniform does not come to what time-prioritized reaches in 10 steps (IoU 0.400)."),
        (math.inf, 3.0, math.inf, "(IoU 0.400); lower end of the 95 % interval 3.00."),
        (2.5, 2.0, math.inf, "needs 2.50 times as many steps"),
        (2.5, 2.0, math.inf, "95 % interval 2.00 to never."),
    ],
)
def test_what_is_not_reached_is_said_in_words(value: float, low: float, high: float, words: str):
    ratio = {"score": "iou", "reference": "time-prioritized", "steps": 10, "target": 0.4, "schedule": "uniform"}
    assert words in ratio_sentence({**ratio, "value": value, "low": low, "high": high})


def test_what_json_cannot_say_is_null():
    assert strict({"a": [math.inf, -math.inf, math.nan, 1.5], "b": (1, "x")}) == {"a": [None, None, None, 1.5], "b": [1, "x"]}


def test_the_tables_are_tidy(written: Report):
    with written.results.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(plan())
    assert len({(row["prompt"], row["schedule"], row["steps"], row["seed"]) for row in rows}) == len(rows)
    assert sum(row["failure"] != "" for row in rows) == sum(map(fails, plan()))


def test_a_report_that_is_interrupted_leaves_the_last_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "results.csv"
    write_table(path, pd.DataFrame({"iou": [0.5]}))
    before = path.read_bytes()

    def half(table: pd.DataFrame, target: Path, index: bool) -> None:
        target.write_bytes(b"io")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(KeyboardInterrupt):
        write_table(path, pd.DataFrame({"iou": [0.6]}))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_every_part_of_a_report_is_told_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture = torch.full((VIEWS, RESOLUTION, RESOLUTION, 3), 0.5)
    monkeypatch.setattr(tables, "portrait_of_truth", lambda what: Portrait(picture, picture))  # which takes its time
    planned = [cell for cell in plan(seeds=1) if (cell.schedule, cell.steps) == ("uniform", 2)]
    for cell in planned:
        pretend(cell, grid.folder_of(tmp_path, cell))
    told = list[str]()
    report_of(tmp_path, planned, lambda: told.append("done"))
    assert len(told) == parts_of(planned) == 3 + 2 + 3  # two cubes have a truth


def test_diversity_needs_two_seeds(written: Report, tmp_path: Path):
    assert (written.page.parent / "diversity.csv").is_file()
    for path in (written.page, written.page.parent / "summary.md"):
        assert "Diversity needs two seeds." not in path.read_text(encoding="utf-8")
    planned = [cell for cell in plan(seeds=1) if cell.prompt == PROMPTS[2]]
    for cell in planned:
        pretend(cell, grid.folder_of(tmp_path, cell))
    (tmp_path / "diversity.csv").write_text("of more seeds, before")
    report = report_of(tmp_path, planned)
    assert not (tmp_path / "diversity.csv").exists()
    for path in (report.page, tmp_path / "summary.md"):
        assert path.read_text(encoding="utf-8").count("Diversity needs two seeds.") == 1


def report_of(root: Path, planned: list[Settings], done: Callable[[], object] = nothing) -> Report:
    return write_report(root, planned, load_scorer(str(write_tiny_scorer(root / "scorer"))), MADE, TARGETS, done)


def test_the_page_holds_everything_and_asks_for_nothing(written: Report):
    page = written.page.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert "url(" not in page
    assert "<script" not in page
    # Four charts; per prompt and schedule and length one strip of the first seed; two truths.
    assert len(sources) == 4 + len(PROMPTS) * 4 + 2
    assert "a corgi on the &lt;moon&gt;" in page
    assert "<moon>" not in page
    assert "It &lt;diverged&gt;." in page
    assert "--prompts &#39;a &amp; b&#39;" in page


def test_charts_are_pictures(written: Report):
    charts = sorted((written.page.parent / "plots").glob("*.png"))
    assert [path.stem for path in charts] == ["curves", "measures", "prompts", "steps"]
    for path in charts:
        with Image.open(path) as picture:
            assert len(picture.convert("L").resize((64, 64)).getcolors()) > 4


def test_the_summary_in_markdown_is_a_table(written: Report):
    text = (written.page.parent / "summary.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    first = lines[: next(k for k, line in enumerate(lines) if line.startswith("| prompts"))]
    assert len({line.count("|") for line in first}) == 1
    assert "| IoU | 0.075 (" in text


def test_it_says_among_how_many_captions_was_looked(written: Report, told: dict):
    """The red and the blue cube are one shape."""
    assert told["candidates"] == {"r_color": 3, "r_geometry": 2, "r_geometry_prompts": 3}
    for path in (written.page, written.page.parent / "summary.md"):
        text = path.read_text(encoding="utf-8")
        assert "R-Precision, colour, among 3 captions" in text
        assert "R-Precision, geometry, among 2 captions" in text


def test_one_schedule_and_free_text_alone_make_a_report(tmp_path: Path):
    cells = [cell for cell in plan(seeds=1) if cell.prompt == PROMPTS[2] and cell.schedule == "uniform"]
    for cell in cells:
        pretend(cell, grid.folder_of(tmp_path, cell))
    scorer = load_scorer(str(write_tiny_scorer(tmp_path / "scorer")))
    made = write_report(tmp_path, cells, scorer, {"made by": "python -m dreamtime evaluate --prompts caf\udce9.txt"})
    assert r"caf\udce9.txt" in made.page.read_text(encoding="utf-8"), "a file's name need not be text"
    told = json.loads(made.summary.read_text())
    assert told["versus"] == []
    assert told["truth"] == {}
    assert "iou" not in told["rows"][0]["measures"]
    assert made.page.is_file()


@pytest.mark.parametrize("prompt", PROMPTS)
def test_one_prompt_alone_says_nothing_of_others(tmp_path: Path, prompt: str):
    """No interval over prompts, and no retrieval among one caption."""
    cells = [cell for cell in plan() if cell.prompt == prompt]
    for cell in cells:
        pretend(cell, grid.folder_of(tmp_path, cell))
    report = write_report(tmp_path, cells, load_scorer(str(write_tiny_scorer(tmp_path))), MADE)
    told = json.loads(report.summary.read_text())
    for row in told["rows"]:
        assert not {"r_color", "r_geometry"} & row["measures"].keys()
        assert row["measures"]["seconds"] == {"value": 1.5, "low": None, "high": None}
    assert all(ratio["score"] == "iou" and ratio["low"] is ratio["high"] is None for ratio in told["ratios"])
    assert "processor seconds | 1.0 | 1.0" in (tmp_path / "summary.md").read_text()
