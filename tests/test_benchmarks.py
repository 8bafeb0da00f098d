"""The tables that benchmarks keep: no row is lost, none of another model is taken for one of this."""

import csv
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tiny_models import tiny_pipeline

from benchmarks import (
    clock,
    exact_prior,
    headline,
    objectives,
    reading,
    rows,
    ruler,
    schedules,
    text_to_3d,
    tiny_vae,
    verdicts,
)
from dreamtime import assembly, presets
from dreamtime.cli import build_parser
from dreamtime.evaluation.geometry import score
from dreamtime.presets import Settings
from dreamtime.toybox import WEIGHTS
from dreamtime.toybox.world import Thing, held_out, object_of, twin

OLD = {"iou": "0.1000", "iou_scaled": "0.1000", "color": "99.00", "seconds": "9.0", "budget": "b", "guidance_scale": "9"}


def test_an_interruption_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, first = tmp_path / "table.csv", [{"prompt": "a cat", "iou": "0.5"}]
    rows.write_rows(path, ("prompt", "iou"), first)

    def interrupted(writer: Any, rows: list[rows.Row]) -> None:
        writer.writerow(rows[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(csv.DictWriter, "writerows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.write_rows(path, ("prompt", "iou"), [{"prompt": "a dog", "iou": "0.6"}, *first])
    assert rows.rows_of(path) == first
    assert list(tmp_path.iterdir()) == [path]


def test_rows_from_before_the_model_was_noted_stay(tmp_path: Path):
    path = tmp_path / "table.csv"
    rows.write_rows(path, ("prompt", "iou"), [{"prompt": "a cat", "iou": "0.5"}])
    rows.write_rows(path, ("prompt", "model", "iou"), rows.rows_of(path))
    assert rows.rows_of(path) == [{"prompt": "a cat", "model": "", "iou": "0.5"}]


def test_rows_are_of_one_model_and_the_others_are_counted():
    table = [{"model": "new", "iou": "1"}, {"model": "old", "iou": "2"}, {"iou": "3"}, {"model": "", "iou": "4"}]
    assert rows.of_model(table, "new") == (table[:1], "Model new. Rows of other models that are left out: 3.")
    assert rows.of_model(table[:1], "new") == (table[:1], "Model new.")


def test_the_summary_of_twelve_prompts_is_of_one_model():
    keys = [{"prompt": thing.caption, "schedule": name} for thing in text_to_3d.THINGS for name in text_to_3d.SCHEDULES]
    new = [{**OLD, **key, "model": "new", "iou": "0.9000", "color": "2.00"} for key in keys]
    text = text_to_3d.summary([*({**OLD, **key, "model": "old"} for key in keys), *new], "new")
    assert "Model new. Rows of other models that are left out: 24." in text
    assert "| uniform | 12 | 0.900 | 0.900 | 2.0 | 9.0 |" in text


def test_the_summary_of_objectives_is_of_one_model_and_begins_with_the_start():
    thing = Thing("cube", "red")
    keys = [{"prompt": thing.caption, "variant": name, "seed": "0"} for name in objectives.VARIANTS]
    same = {"likest": "cube", "steps": "7"}
    new = [{**OLD, **same, **key, "model": "new", "iou": "0.9000"} for key in keys]
    others = [{**new[0], "budget": "another"}, *({**OLD, **same, **key} for key in keys)]
    text = objectives.summary([*others, *new], "new", [thing], "b")
    assert f"Model new. Rows of other models that are left out: {len(keys)}." in text
    table = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[0] for line in table] == [f"| {name}" for name in objectives.VARIANTS]
    assert table[0].startswith("| the start | 9 | 7 | 1 | 0.900")


def test_the_summary_of_exact_priors_is_of_one_model():
    key = {"prompt": exact_prior.PROMPTS[0], "asked": "the truth", "between": "images", "preset": "draft"}
    text = exact_prior.summary([{**OLD, **key}, {**OLD, **key, "model": "new", "iou_scaled": "0.9000"}], "new")
    assert "Model new. Rows of other models that are left out: 1." in text
    assert "| the truth | images | draft | 0.90 | nan |" in text


ROOT = Path(rows.__file__).resolve().parent.parent
OUTSIDE = Path(ROOT.anchor) / "somewhere" / "else"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], ""),
        (["--repeats", "3"], " --repeats 3"),
        (["--model", "owner/model", "--output", "benchmarks/told"], " --model owner/model --output benchmarks/told"),
        (["--output", str(ROOT / "benchmarks" / "told")], " --output benchmarks/told"),
        (["--work", str(OUTSIDE)], " --work PATH"),
        ([f"--work={OUTSIDE}", "--seeds=2"], " --work=PATH --seeds=2"),
        (["--work", os.path.join("..", "..", "..", "elsewhere")], " --work PATH"),
    ],
)
def test_a_table_says_by_which_command_it_was_made_and_nothing_of_this_machine(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    script = ROOT / "benchmarks" / "speed.py"
    assert rows.made_by([str(script), *words]) == f"python -m benchmarks.speed{told}"
    assert rows.made_by([str(OUTSIDE / "speed.py"), *words]) == ""
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    machine, made = rows.measured_on().splitlines()
    assert machine.endswith(f"torch {torch.__version__}.")
    assert made == f"Made by `python -m benchmarks.speed{told}`."


@pytest.mark.parametrize(
    ("present", "told"), [(True, "CPU cores, NVIDIA Imagined, Python"), (False, "CPU cores, no GPU, Python")]
)
def test_a_table_names_the_gpu(present: bool, told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: present)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Imagined")
    assert told in rows.measured_on()


@pytest.mark.parametrize("benchmark", [verdicts, headline])
def test_runs_that_are_kept_are_made_on_a_cpu_unless_somebody_asks(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str]] = []
    monkeypatch.setattr(benchmark, "dreamtime", lambda words: asked.append(words) or 2)
    for more in ([], ["--device", "cuda"]):
        monkeypatch.setattr(sys, "argv", ["", "--work", str(tmp_path), *more])
        assert benchmark.main() == 2
    devices = [build_parser().parse_args(words).device for words in asked]
    assert devices == ["cpu", "cuda"]


def test_what_was_not_made_is_not_kept_from_before(tmp_path: Path):
    made, kept = tmp_path / "made.csv", tmp_path / "kept.csv"
    made.write_text("new")
    kept.write_text("old")
    verdicts.keep(made, kept)
    assert kept.read_text() == "new"
    made.unlink()
    verdicts.keep(made, kept)
    assert not kept.exists()
    verdicts.keep(made, kept)


@pytest.mark.parametrize("benchmark", [text_to_3d, objectives, exact_prior])
def test_a_row_says_of_which_model_it_is(benchmark: Any):
    assert "model" in benchmark.FIELDS


def test_the_start_is_the_ball_that_every_run_begins_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "model")

    def small(preset: str, thing: Thing, variant: str, seed: int, steps: int) -> Settings:
        sizes = {"views": 1, "resolution": 16, "samples_per_ray": 16, "mesh_resolution": 24, "texture_size": 64}
        return Settings(thing.caption, prior=str(tmp_path / "model"), seed=seed, steps=steps, **sizes)

    meshes = []

    def likest(mesh: Any, color: str) -> str:
        meshes.append(mesh)
        return "sphere"

    monkeypatch.setattr(objectives, "recipe", small)
    monkeypatch.setattr(objectives, "likest_solid", likest)
    ball = Thing("sphere", "red")
    row = objectives.one_run("draft", ball, objectives.START, 0, 250, 0, tmp_path / "strip.png")
    assert (row["steps"], row["passes_taken"], row["guidance_scale"], row["likest"]) == ("0", "0", "none", "sphere")
    assert score(meshes[0], ball).iou_scaled > 0.8
    assert row["iou"] == f"{score(meshes[0], ball).iou:.4f}"
    assert (tmp_path / "strip.png").is_file()


def test_a_clock_adds_up_what_each_part_takes(monkeypatch: pytest.MonkeyPatch):
    time = iter([0.0, 3.0, 10.0, 14.0])
    monkeypatch.setattr(clock, "now", lambda: next(time))
    watch = clock.Clock()
    double = watch.timed("double", lambda x: 2 * x)
    assert (double(1), double(2)) == (2, 4)
    assert watch.spent == {"double": 7.0}


def test_every_objective_made_a_cube_of_a_red_cube_by_the_table_that_is_kept():
    """At equally many steps, with the weights that ship: whoever trains them anew measures this anew."""
    table = rows.rows_of(objectives.HERE / "objectives-equal-steps.csv")
    measured, _ = rows.of_model([row for row in table if row["prompt"] == "a red cube"], rows.digest_of(WEIGHTS))
    likest = {row["variant"]: row["likest"] for row in measured}
    assert likest == dict.fromkeys(objectives.VARIANTS, "cube") | {objectives.START: "sphere"}


def test_a_linear_reading_finds_what_states_hold_and_nothing_else(generator) -> None:
    answer = torch.randint(4, (400,), generator=generator(0))
    held = torch.eye(4)[answer] @ torch.randn(4, 6, generator=generator(1))
    assert reading.read_right(held + 0.01 * torch.randn(400, 6, generator=generator(2)), answer, 300) > 0.99
    assert reading.read_right(torch.randn(400, 6, generator=generator(3)), answer, 300) < 0.5


def test_the_headline_is_read_off_the_prompts_and_seeds_that_both_have() -> None:
    """Twice as many steps of the slower schedule come to the quality that the faster one ends with, after 1.6 times as many."""

    def curves(schedule: str, steps: int, seeds: int, ends: float) -> pd.DataFrame:
        points = [(step, ends * step / steps) for step in range(25, steps + 1, 25)]
        return pd.DataFrame(
            [(prompt, schedule, steps, seed, step, iou) for prompt in "ab" for seed in range(seeds) for step, iou in points],
            columns=["prompt", "schedule", "steps", "seed", "step", "iou"],
        )

    short = pd.concat([curves("time-prioritized", 125, 2, 0.8), curves("uniform", 125, 2, 0.5)])
    said = headline.compared(short, curves("uniform", 250, 1, 1.0))
    assert said[:2] == ["Prompts: 2; seeds of each: 1.", "time-prioritized ends with an IoU of 0.800 after 125 steps."]
    (headline_itself,) = [sentence for sentence in said if "for what time-prioritized reaches" in sentence]
    assert headline_itself.startswith("uniform needs 1.60 times as many steps")


def test_the_tiny_vae_is_held_against_the_picture_and_against_the_vae():
    rows_told = [row.split(" | ") for row in tiny_vae.measured(8, seed=7).splitlines()[-2:]]
    (_, vae, *_), (_, tiny, to_vae, between, _) = rows_told
    assert [row[0] for row in rows_told] == ["| VAE", "| tiny VAE"]
    assert float(vae) > float(tiny) > 28
    assert min(float(to_vae), float(between)) > 28
    assert rows_told[0][2:4] == ["", ""], "it is no distance from itself"


def test_the_ruler_asks_about_different_objects_and_counts_only_what_was_asked():
    prompts = ruler.prompts_of_world(30, seed=1)
    assert len(set(prompts)) == 30
    objects = [object_of(prompt) for prompt in ruler.prompts_of_world(300, seed=1)]
    assert not [what for what in objects if twin(what) != what and twin(what) in objects], "which nobody could tell apart"
    assert prompts == ruler.prompts_of_world(30, seed=1) != ruler.prompts_of_world(30, seed=2)
    asked = {"kind_right": [1.0, 0.0], "color_right": [1.0, 1.0], "r_color": [0.25, 1.0], "relation_right": [float("nan"), 1.0]}
    row = ruler.row_of("all", pd.DataFrame(asked))
    assert row == "| all | 2 | 50.0 % of 2 | 100.0 % of 2 |  | 100.0 % of 1 | 62.5 % of 2 |  |"


def test_a_scene_is_held_to_the_truth_with_the_presets_own_terms():
    settings = presets.preset("draft", "cpu", prompt="a red cube", steps=2, views=1, representation="neus")
    scene = exact_prior.supervised(settings, Thing("cube", "red"), "images")
    start = assembly.build_scene(settings, torch.device("cpu"), torch.Generator().manual_seed(settings.seed))
    moved = [
        not torch.equal(a, b) for a, b in zip(scene.representation.parameters(), start.representation.parameters(), strict=True)
    ]
    assert any(moved)


def test_what_presets_are_looked_at_with_is_not_held_out() -> None:
    shown = [*text_to_3d.THINGS, *objectives.THINGS, *schedules.THINGS]
    assert [thing.caption for thing in shown if held_out(thing) or held_out(twin(thing))] == []


def test_the_summary_of_schedules_is_of_pairs_alike_in_all_but_the_timesteps() -> None:
    table = []
    for variant, seed, (number, thing) in product(schedules.VARIANTS, "01", enumerate(schedules.THINGS)):
        for schedule, more in (("uniform", 0.0), ("time-prioritized", 0.02)):
            key = {"prompt": thing.caption, "variant": variant, "schedule": schedule, "preset": "draft", "seed": seed}
            iou = 0.5 + 0.1 * number + more + 0.01 * int(seed)
            table.append({**key, "model": "new", "iou": f"{iou}", "iou_scaled": f"{iou}", "color": "3", "seconds": "1"})
    table.append({**table[0], "model": "old", "iou": "0"})
    text = schedules.summary(table, "new", "draft")
    assert "6 objects of the training set, 2 seeds each" in text
    line = "| 0.755 | 0.775 | +0.020 (+0.020 to +0.020) | +0.020 (+0.020 to +0.020) | +0.0 (+0.0 to +0.0) |"
    assert text.count(line) == len(schedules.VARIANTS)


def test_a_prior_that_is_told_no_camera_is_the_same_but_for_that(tmp_path: Path) -> None:
    untold = assembly.load_prior(str(schedules.without_cameras(tmp_path)), "cpu")
    told = assembly.load_prior("toybox", "cpu")
    assert (untold.knows_cameras, told.knows_cameras) == (False, True)
    z_t, text = torch.ones(1, 4, 16, 16), torch.ones(1, 77, 64)
    torch.testing.assert_close(untold.predict_noise(z_t, 500, text), told.predict_noise(z_t, 500, text))
