"""The command as people meet it: a grid that runs and resumes, its page on stdout, one line per mistake and exit code 2."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pretended_evaluation import pretend
from tiny_models import tiny_pipeline
from tiny_scorer import write_tiny_scorer
from torch import Generator

from dreamtime import beforehand
from dreamtime.checkpoints import checkpoint_text, save_checkpoint
from dreamtime.cli import build_parser, main
from dreamtime.evaluation import cells, command, grid, report, tables
from dreamtime.evaluation.prompt_sets import prompts_of
from dreamtime.evaluation.views import RESOLUTION, VIEWS, Portrait
from dreamtime.presets import Settings

SMALL = [
    "views=1",
    "resolution=16",
    "samples_per_ray=16",
    "mesh_resolution=24",
    "texture_size=64",
    "representation=feature-grid",
]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_scorer(tmp_path_factory.mktemp("scorer")))


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("a red cube\na blue cube\n")
    return str(path)


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads instead of processes, which start sooner and see what a test has replaced."""

    @contextmanager
    def threads(workers: int) -> Iterator[Executor]:
        with ThreadPoolExecutor(workers) as executor:
            yield executor

    monkeypatch.setattr(grid, "processes", threads)


def test_a_real_grid_runs_and_runs_only_once(
    prompts: str, scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "model")
    out = tmp_path / "out"
    options = ["--prompts", prompts, "--out", str(out), "--schedules", "uniform", "--steps", "2", "--device", "cpu", "--quiet"]
    options += ["--prior", str(tmp_path / "model"), "--scorer", scorer]
    options += [word for setting in SMALL for word in ("--set", setting)]
    assert main(["evaluate", *options]) == 0
    assert capsys.readouterr().out.strip() == str(out / "report.html")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["prompts"] == ["a red cube", "a blue cube"]
    assert summary["rows"][0]["runs"] == 2

    def never(*arguments: object) -> None:
        raise AssertionError("the run was done before")

    monkeypatch.setattr(cells, "measure", never)
    (out / "report.html").unlink()
    assert main(["evaluate", *options]) == 0
    assert (out / "report.html").is_file()
    # The command that the page gives makes the same results again.
    assert command.command_line(parsed(options)) in json.loads((out / "summary.json").read_text())["made by"]


def parsed(options: list[str]) -> object:
    return build_parser().parse_args(["evaluate", *options])


def test_the_command_line_it_tells_parses_to_the_same(prompts: str):
    options = ["--prompts", prompts, "--out", "DIR", "--steps", "10,20", "--schedules", "linear,hifa", "--seeds", "3"]
    options += ["--set", "guidance_scale=5", "--set", "objective=csd", "--preset", "draft", "--scorer", "clip-l14"]
    options += ["--targets", "0.25,0.5"]
    arguments = parsed(options)
    words = shlex.split(command.command_line(arguments))
    assert words[:4] == ["python", "-m", "dreamtime", "evaluate"]
    assert vars(parsed(words[4:])) == vars(arguments)


def test_progress_tells_the_time_that_is_left(
    prompts: str, scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    picture = torch.full((VIEWS, RESOLUTION, RESOLUTION, 3), 0.5)
    monkeypatch.setattr(tables, "portrait_of_truth", lambda what: Portrait(picture, picture))  # which takes its time
    monkeypatch.setattr(cells, "measure", pretend)
    out = str(tmp_path / "out")
    assert main(["evaluate", "--prompts", prompts, "--out", out, "--steps", "2", "--scorer", scorer, "--preset", "draft"]) == 0
    told = capsys.readouterr().err
    assert "8/8" in told
    assert "4 of 4 runs" in told
    parts = 4 + 2 + 3  # the runs, their two truths, and the tables, charts and page
    assert f"{parts}/{parts}" in told


def test_progress_is_of_steps_also_before_the_first_run_has_ended(
    prompts: str, scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    count, seen = grid.steps_done, threading.Event()

    def watched(root: Path, cell: Settings) -> int:
        if (done := count(root, cell)) == 3:
            seen.set()
        return done

    def halting(cell: Settings, folder: Path, asked_to_end: Callable[[], bool]) -> None:
        folder.mkdir()
        cells.note(folder, 3)
        assert seen.wait(60)
        shutil.rmtree(folder)
        pretend(cell, folder)

    monkeypatch.setattr(cells, "measure", halting)
    monkeypatch.setattr(grid, "steps_done", watched)
    monkeypatch.setattr(grid, "TICK", 0.01)
    monkeypatch.setattr(report, "write_report", lambda root, *others: SimpleNamespace(page=root / "report.html"))
    asked = ["evaluate", "--prompts", prompts, "--out", str(tmp_path / "out"), "--steps", "5", "--scorer", scorer]
    assert main([*asked, "--preset", "draft", "--workers", "1"]) == 0
    told = capsys.readouterr().err
    assert "3/20" in told
    assert "0 of 4 runs" in told


def test_a_run_that_goes_on_counts_from_where_it_was_kept(
    prompts: str, scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    planned = grid.plan(["a red cube"], ["uniform", "time-prioritized"], [5], 1, name="draft", device="cpu")
    grid.open_folder(out, planned[0])
    for cell in planned:
        grid.folder_of(out, cell).mkdir()
        save_checkpoint(grid.folder_of(out, cell) / cells.CHECKPOINT, {}, {}, Generator(), {"step": "3"})

    def started_over(cell: Settings, folder: Path, asked_to_end: Callable[[], bool]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        pretend(cell, folder)

    monkeypatch.setattr(cells, "measure", started_over)
    monkeypatch.setattr(report, "write_report", lambda root, *others: SimpleNamespace(page=root / "report.html"))
    asked = ["evaluate", "--prompts", prompts, "--out", str(out), "--steps", "5", "--scorer", scorer, "--preset", "draft"]
    assert main([*asked, "--device", "cpu"]) == 0
    assert "6/20" in capsys.readouterr().err


INTERRUPTED = "Interrupted: what is done is kept, and the same command goes on from there."


@pytest.mark.parametrize("stage", ["running", "judging"])
def test_who_interrupts_is_told_that_nothing_is_lost(
    stage: str,
    prompts: str,
    scorer: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cells, "measure", interrupted if stage == "running" else pretend)
    monkeypatch.setattr(report, "write_report", interrupted)
    asked = ["evaluate", "--prompts", prompts, "--out", str(tmp_path / "out"), "--steps", "2", "--scorer", scorer]
    assert main([*asked, "--preset", "draft", "--quiet"]) == 130
    assert capsys.readouterr().err == f"{INTERRUPTED}\ndreamtime: interrupted.\n"


PATIENT = """
import sys
from dreamtime.cli import main
from dreamtime.evaluation import grid

if __name__ == "__main__":
    grid.PATIENCE = 120.0
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.posix
def test_interrupted_workers_write_down_what_they_have(prompts: str, scorer: str, tmp_path: Path):
    """In real processes, long before the first look at a run."""
    tiny_pipeline("epsilon").save_pretrained(tmp_path / "model")
    script, out = tmp_path / "patient.py", tmp_path / "out"
    script.write_text(PATIENT)
    options = ["--prompts", prompts, "--out", str(out), "--schedules", "uniform", "--steps", "1000000", "--device", "cpu"]
    options += ["--prior", str(tmp_path / "model"), "--scorer", scorer, "--workers", "1"]
    options += [word for setting in SMALL for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(Path(grid.__file__).parents[2])}  # a script finds its own folder alone
    folder, deadline = grid.folder_of(out, first_cell(prompts)), time.monotonic() + 200
    words = [sys.executable, str(script), "evaluate", *options]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as working:
        try:
            while (before := cells.noted(folder)) < 2 and time.monotonic() < deadline:
                assert working.poll() is None
                time.sleep(0.1)
            assert before >= 2
            working.send_signal(signal.SIGINT)
            _, told = working.communicate(timeout=120)
        finally:
            working.kill()
    assert working.returncode == 130
    assert told.endswith(f"{INTERRUPTED}\ndreamtime: interrupted.\n")
    assert "%|" in told
    assert int(checkpoint_text(folder / cells.CHECKPOINT)["step"]) >= before


def first_cell(prompts: str) -> Settings:
    """Of the plan with a million steps."""
    return grid.plan(prompts_of(prompts), ["uniform"], [1_000_000], 1, name="draft", device="cpu")[0]


def test_the_command_line_tells_what_auto_came_to(prompts: str, scorer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On another machine it would come to something else."""
    monkeypatch.setattr(cells, "measure", pretend)
    monkeypatch.setattr(command, "resolve_prior", lambda name, device: ("toybox", "it is at hand"))
    monkeypatch.setattr(command, "resolve_device", lambda name: "cpu")
    written: list[dict[str, str]] = []

    def write_report(root: Path, planned: object, judge: object, made: dict[str, str], *others: object) -> SimpleNamespace:
        written.append(made)
        return SimpleNamespace(page=root / "report.html")

    monkeypatch.setattr(report, "write_report", write_report)
    asked = ["evaluate", "--prompts", prompts, "--out", str(tmp_path / "out"), "--steps", "2", "--scorer", scorer, "--quiet"]
    assert main([*asked, "--device", "auto", "--prior", "auto"]) == 0
    words = shlex.split(written[0]["made by"])
    assert words[words.index("--device") + 1] == "cpu"
    assert words[words.index("--prior") + 1] == "toybox"
    assert written[0]["preset"] == "standard"
    assert written[0]["weights"] == json.loads((tmp_path / "out" / "settings.json").read_text())["weights"]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and reports that take no time."""
    monkeypatch.setattr(cells, "measure", pretend)
    monkeypatch.setattr(report, "write_report", lambda root, *others: SimpleNamespace(page=root / "report.html"))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("guidance_scale=5", "guidance_scale", 5.0),
        ("views=8", "views", 8),
        ("t_max=900", "t_max", 900),
        ("objective=csd", "objective", "csd"),
        ("table=900,500,20", "table", (900, 500, 20)),
        ("distance=1.6,2.0", "distance", (1.6, 2.0)),
    ],
)
def test_settings_have_their_own_types(text: str, name: str, value: object):
    assert command.changed_setting(text) == (name, value)
    assert type(command.changed_setting(text)[1]) is type(value)
    assert command.changed_setting(f"{name}={command.as_typed(value)}") == (name, value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompts", "missing.txt"], "'missing.txt' cannot be read: expected a text file with a prompt per line"),
        (["--prompts", "empty.txt"], "empty.txt holds no prompt"),
        (["--prompts", "twice.txt"], "'a cat' stands on lines 1 and 2 of twice.txt"),
        (["--prompts", "toybox:heldout:5"], "between 10 and 40 prompts"),
        (["--schedules", "cosine"], "Unknown schedule 'cosine'"),
        (["--schedules", "uniform,uniform"], "asked for twice"),
        (["--steps", "ten"], "expected whole numbers with commas between, got 'ten'"),
        (["--steps", ""], "expected whole numbers with commas between, got ''"),
        (["--schedules", ","], "expected names with commas between, got nothing"),
        (["--steps", "0"], "got 0"),
        (["--seeds", "0"], "At least one seed"),
        (["--targets", "0.5,1"], "expected numbers between 0 and 1 with commas between, got '0.5,1'"),
        (["--targets", "half"], "expected numbers between 0 and 1 with commas between, got 'half'"),
        (["--workers", "0"], "got 0"),
        (["--workers", "1000"], "got 1000"),
        (["--preset", "best"], "Unknown preset 'best'"),
        (["--set", "colour=red"], "expected NAME=VALUE"),
        (["--set", "guidance_scale=-1.0"], "guidance scale must lie between"),
        (["--set", "views=many"], "expected a number for views, got 'many'"),
        (["--set", "distance=2"], "expected 2 numbers with commas between for distance, got '2'"),
        (["--set", "m=300", "--schedules", "uniform,linear"], "Of the schedules uniform, linear none has m"),
        (["--prompts", "toybox:heldout:12"], "got '12'"),
        (["--scorer", "no such"], "no folder here and no Hub id"),
        (["--out", "."], "no empty folder and none of an evaluation"),
        ([], "the following arguments are required"),
    ],
)
def test_every_mistake_is_one_line_and_exit_code_2(
    options: list[str],
    words: str,
    scorer: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    Path("twice.txt").write_text("a cat\na cat\n")
    Path("good.txt").write_text("a red cube\n")
    asked = ["--scorer", scorer, "--device", "cpu", *options]
    if options:
        asked = ["--prompts", "good.txt", "--out", "out", *asked]
    try:
        code = main(["evaluate", *asked])
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.usefixtures("pretended")
def test_what_the_embedded_model_has_never_seen_is_said_once(scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, out = tmp_path / "prompts.txt", str(tmp_path / "out")
    path.write_text("a red dragon\na red cube\na dragon quaffing odd purplish broths unto dawn\n")
    asked = ["evaluate", "--prompts", str(path), "--out", out, "--device", "cpu", "--quiet"]
    assert main([*asked, "--steps", "2", "--scorer", scorer]) == 0
    assert capsys.readouterr().err == (
        '2 of 3 prompts hold words that the embedded model has never seen ("dragon", "quaffing", "odd", "purplish", "broths",'
        f" ...): expect a guess there. {beforehand.what_it_knows()}\n"
        "2 of 3 prompts name no object of the toybox in full, its colours and nothing else: there is no IoU for them.\n"
    )


def known_before(*prompts: str, prior: str = "stable-diffusion-2.1-base", scorer: str = "toybox") -> list[str]:
    planned = grid.plan(prompts, ["uniform", "linear"], [2], 2, name="draft", device="cpu", prior=prior)
    return list(command.known_before(planned, scorer))


@pytest.mark.parametrize("prior", ["stable-diffusion-2.1-base", "toybox"])
def test_a_judge_that_cannot_read_a_prompt_is_said_to_be_worth_nothing_there(prior: str):
    told = [line for line in known_before("a red cube", "a corgi", prior=prior) if "R-Precision" in line]
    assert told == [
        '1 of 2 prompts holds words that the embedded scorer has never seen ("corgi"): its R-Precision means nothing there.'
        " Name another judge by --scorer, such as clip-l14."
    ]


@pytest.mark.parametrize("scorer", ["clip-l14", "openai/clip-vit-base-patch32"])
def test_a_judge_of_free_text_needs_no_warning(scorer: str):
    assert [line for line in known_before("a red cube", "a corgi", scorer=scorer) if "R-Precision" in line] == []


def test_prompts_without_a_truth_are_counted():
    (one,) = known_before("a red cube", "a robot", "a red cube on a blue ball")
    assert one.startswith("1 of 3 prompts names no object of the toybox in full")
    assert one.endswith("there is no IoU for it.")
    (two,) = known_before("a red cube", "a robot", "a red car on top of a blue house")
    assert two.startswith("2 of 3 prompts name no object of the toybox in full")


def test_prompts_that_look_the_same_are_named():
    assert known_before("a red ball", "a green robot", "a red sphere") == [
        '1 of 3 prompts looks the same as an earlier one ("a red sphere" as "a red ball"): R-Precision cannot tell such prompts'
        " apart."
    ]
    (several,) = known_before("a red ball", "a red sphere", "a photo of a red ball")
    assert several.startswith("2 of 3 prompts look the same")


def test_of_the_published_set_there_is_nothing_to_know_before():
    assert known_before(*prompts_of("toybox:heldout"), prior="toybox") == []


@pytest.mark.parametrize(("text", "told"), [("a red robot\na robot\n", True), ("a red robot\n", False)])
def test_what_was_known_before_stands_in_the_report(
    text: str, told: bool, scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cells, "measure", lambda cell, folder, asked_to_end: None)
    written: list[dict[str, str]] = []

    def write_report(root: Path, planned: object, judge: object, made: dict[str, str], *others: object) -> SimpleNamespace:
        written.append(made)
        return SimpleNamespace(page=root / "report.html")

    monkeypatch.setattr(report, "write_report", write_report)
    path = tmp_path / "prompts.txt"
    path.write_text(text)
    asked = ["evaluate", "--prompts", str(path), "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert main([*asked, "--steps", "2", "--scorer", scorer]) == 0
    assert written[0].get("known before", "") == capsys.readouterr().err.strip()
    assert ("known before" in written[0]) == told


@pytest.mark.usefixtures("pretended")
def test_the_memory_is_foretold(
    prompts: str, scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(beforehand, "memory_foretold", lambda settings: f"about {settings.resolution} GB")
    asked = ["evaluate", "--prompts", prompts, "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    assert main([*asked, "--steps", "2", "--scorer", scorer]) == 0
    assert capsys.readouterr().err == "Each run needs about 64 GB.\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prior", "no such"], "is no file, no folder, no Hub id"),
        (["--prior", "empty"], "'empty' is no model in the layout of diffusers"),
        (["--set", "lora=no such"], "with a LoRA"),
        (["--set", "embedding=no such"], "with a textual inversion"),
    ],
)
def test_a_missing_prior_is_found_before_there_is_a_folder(
    options: list[str],
    words: str,
    prompts: str,
    scorer: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    assert main(["evaluate", "--prompts", prompts, "--out", "out", "--scorer", scorer, "--device", "cpu", *options]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.usefixtures("pretended")
def test_a_folder_goes_on_with_a_step_count_that_changes_the_learning_rate(prompts: str, scorer: str, tmp_path: Path):
    asked = ["evaluate", "--prompts", prompts, "--out", str(tmp_path / "out"), "--device", "cpu", "--quiet"]
    asked += ["--scorer", scorer, "--set", "objective=csd"]
    assert main([*asked, "--steps", "200"]) == 0
    assert main([*asked, "--steps", "400"]) == 0


def test_a_folder_of_other_settings_is_one_line(
    prompts: str, scorer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cells, "measure", pretend)
    asked = ["evaluate", "--prompts", prompts, "--out", str(tmp_path / "out"), "--steps", "2", "--scorer", scorer, "--quiet"]
    assert main([*asked, "--preset", "draft"]) == 0
    capsys.readouterr()
    assert main([*asked, "--preset", "high"]) == 2
    told = capsys.readouterr().err
    assert "holds results of other settings" in told
    assert told.count("\n") == 1


def test_workers_are_bounded_by_the_cores_of_this_process():
    assert grid.cores() <= (os.cpu_count() or 1)
