"""The command as people meet it: a grid that runs and resumes, its page on stdout, one line per mistake and exit code 2."""

import json
import os
import shlex
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from pretended_evaluation import pretend
from tiny_models import tiny_pipeline
from tiny_scorer import write_tiny_scorer

from dreamtime import beforehand
from dreamtime.cli import build_parser, main
from dreamtime.evaluation import cells, command, grid, report

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
    monkeypatch.setattr(cells, "measure", pretend)
    out = str(tmp_path / "out")
    assert main(["evaluate", "--prompts", prompts, "--out", out, "--steps", "2", "--scorer", scorer, "--preset", "draft"]) == 0
    told = capsys.readouterr().err
    assert "8/8" in told
    assert "run 4 of 4" in told


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
    )


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
