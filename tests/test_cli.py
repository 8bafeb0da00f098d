"""The command line as people and programs meet it: results on stdout, one line per mistake, exit code 2."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trimesh
from tiny_models import tiny_pipeline

import dreamtime
from dreamtime import beforehand, cli, presets, runs
from dreamtime.cli import main
from dreamtime.priors import hub

SMALL = ["--steps", "3", "--views", "1", "--resolution", "16", "--representation", "feature-grid", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    """Presets whose models are coarse: what they cost is not what these tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        for table in presets.PRESETS.values():
            for name, settings in table.items():
                patch.setitem(table, name, replace(settings, mesh_resolution=32, faces=500, texture_size=64))
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline("epsilon").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def finished(model: str, tmp_path_factory) -> tuple[Path, Path]:
    """A runs folder with one finished run, and where its GLB was copied."""
    root = tmp_path_factory.mktemp("runs")
    output = root / "cube.glb"
    assert main(["text", "a red cube", "-o", str(output), "--runs", str(root / "runs"), "--prior", model, *SMALL]) == 0
    return root / "runs", output


def test_text_writes_the_model(finished) -> None:
    assert finished[1].read_bytes()[:4] == b"glTF"


def test_paths_go_to_stdout_and_words_to_stderr(model, tmp_path, capsys) -> None:
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", model, *SMALL]) == 0
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_file()
    assert out.strip().endswith("a-red-cube.glb")
    assert "Run " in err


def test_words_that_the_embedded_model_has_never_seen_are_told_and_run_all_the_same(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(beforehand, "unknown_words", lambda prompt: ["dragon"])
    assert main(["text", "a dragon", "--runs", str(tmp_path), *SMALL]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "never seen" in line]
    assert len(said) == 1
    assert '"dragon"' in said[0]
    assert "cube" in said[0]
    assert "red" in said[0]


def test_other_priors_get_no_advice(model, tmp_path, capsys) -> None:
    assert main(["text", "a dragon", "--runs", str(tmp_path), "--prior", model, *SMALL]) == 0
    assert "never seen" not in capsys.readouterr().err


def test_waiting_threads_soon_sleep_unless_somebody_wants_otherwise() -> None:
    """OpenMP reads its policy as torch loads, so it must stand before: any import of the package runs the package first."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    told = f"import os, sys, dreamtime; print(*map(os.environ.get, {names}), 'torch' in sys.modules)"
    plain = {name: value for name, value in os.environ.items() if name not in names}
    active, patient = {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}
    for changed, policy in (({}, "PASSIVE 1000"), (active, "ACTIVE None"), (patient, "PASSIVE 7")):
        done = subprocess.run([sys.executable, "-c", told], env=plain | changed, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [*policy.split(), "False"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_of_a_step_still_delivers(number, model, tmp_path, monkeypatch, capsys) -> None:
    """Long before the first checkpoint: the step is finished, saved and made a mesh of, and the run can go on."""
    t_of, steps = presets.Timetable.__call__, [*SMALL]
    steps[1] = "6"

    def interrupted(self, i, generator):
        if i == 2:
            signal.raise_signal(number)
        return t_of(self, i, generator)

    monkeypatch.setattr(presets.Timetable, "__call__", interrupted)
    root = tmp_path / "my runs"
    before = signal.getsignal(number)
    assert main(["text", "a red cube", "--runs", str(root), "--prior", model, *steps]) == 0
    assert signal.getsignal(number) is before
    out, err = capsys.readouterr()
    assert Path(out.strip()).is_file()
    assert "Stopping" in err
    (run,) = root.iterdir()
    assert runs.steps_done(runs.open_run(root, run.name)) == 2
    assert shlex.split(err.partition("go on with: ")[2])[-3:] == [run.name, "--runs", str(root)]


def test_an_interrupt_before_the_first_step_just_ends(model, tmp_path, monkeypatch, capsys) -> None:
    """There is nothing to make a mesh of, and loading a large model takes minutes."""

    def interrupted(settings: presets.Settings) -> None:
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on loading")

    monkeypatch.setattr(runs, "text_to_3d", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background are without
    try:
        assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", model, *SMALL]) == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    err = capsys.readouterr().err
    assert "Stopping" not in err
    assert err.endswith("interrupted.\n")
    (folder,) = tmp_path.iterdir()
    assert not runs.goes_on(runs.open_run(tmp_path, folder.name))


def test_a_run_can_be_stopped_as_soon_as_its_id_is_told(model, tmp_path, monkeypatch, capsys) -> None:
    def told(settings: presets.Settings, run: runs.Run) -> None:
        assert main(["stop", run.id, "--runs", str(tmp_path)]) == 0

    monkeypatch.setattr(cli, "tell", told)
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", model, *SMALL]) == 0
    (folder,) = tmp_path.iterdir()
    assert runs.steps_done(runs.open_run(tmp_path, folder.name)) == 1
    assert main(["stop", folder.name, "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("dreamtime: Nobody works on this run: there is nothing to stop.\n")


def interrupting(run: runs.Run) -> runs.Result:
    """Somebody presses Ctrl-C while the mesh is made."""
    raise KeyboardInterrupt


def test_an_interrupt_while_the_mesh_is_made_says_how_to_go_on(model, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(runs, "deliver", interrupting)
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", model, *SMALL]) == 130
    (run,) = tmp_path.iterdir()
    said = capsys.readouterr().err
    assert f"resume {run.name}" in said
    assert said.endswith("interrupted.\n")


def test_a_run_whose_checkpoint_is_gone_begins_anew_and_says_so(model, tmp_path, capsys) -> None:
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", model, *SMALL]) == 0
    (run,) = tmp_path.iterdir()
    (run / "checkpoint.safetensors").unlink()
    assert main(["resume", run.name, "--runs", str(tmp_path)]) == 0
    assert "begins anew" in capsys.readouterr().err


def test_signed_distances_stop_resume_and_deliver(model, tmp_path, monkeypatch, capsys) -> None:
    arguments = ["--runs", str(tmp_path), "--prior", model, *SMALL, "--representation", "neus"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "deliver", interrupting)
        assert main(["text", "a red cube", *arguments]) == 130
    (run,) = tmp_path.iterdir()
    capsys.readouterr()
    assert main(["resume", run.name, "--runs", str(tmp_path), "-o", str(tmp_path / "cube.glb"), "--quiet"]) == 0
    assert trimesh.load(tmp_path / "cube.glb").extents.max() > 0.5
    assert json.loads((run / "settings.json").read_text())["representation"] == "neus"


def test_a_representation_for_gpus_is_named_as_such_on_a_cpu() -> None:
    plain = presets.preset("draft", "cpu", prompt="a red cube")
    assert beforehand.advice(plain) == ()
    assert "made for GPUs" in beforehand.advice(replace(plain, representation="hash-grid"))[0]


def test_the_version_is_told(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"dreamtime {dreamtime.__version__}\n"


def test_a_reader_that_has_had_enough_is_no_mistake() -> None:
    words = "python -m dreamtime schedule --name uniform --steps 50000".split()
    with subprocess.Popen([sys.executable, *words[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_an_answer_that_nobody_reads_is_one_line_and_no_success() -> None:
    """Small enough for a buffer, it would meet the closed pipe when the program ends, with a traceback."""
    told = "import sys; from dreamtime import cli; cli.COMMANDS['stop'] = lambda arguments: print('done')"
    command = [sys.executable, "-c", f"{told}; sys.exit(cli.main(['stop', '0' * 32]))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == "dreamtime: nobody read the answer to its end.\n"
        assert process.wait() == 2


def test_the_command_line_pays_for_no_pictures(model, tmp_path, monkeypatch) -> None:
    work, asked = runs.work, list[dict[str, bool]]()

    def spied(run: runs.Run, **options: bool):
        asked.append(options)
        return work(run, **options)

    monkeypatch.setattr(runs, "work", spied)
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", model, *SMALL]) == 0
    assert asked == [{"pictures": False}]


def test_what_the_system_says_comes_without_its_number() -> None:
    assert cli.in_words(OSError(28, "No space left on device")) == "No space left on device."
    assert cli.in_words(FileNotFoundError(2, "No such file", "x")) == "No such file: 'x'."
    assert cli.in_words(ValueError("Mine.")) == "Mine."


@pytest.mark.no_cuda
def test_the_automatic_prior_is_told_with_its_reason_and_memory_only_for_gpus(tmp_path, capsys) -> None:
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", "auto", *SMALL]) == 0
    said = capsys.readouterr().err
    assert "The prior is toybox: there is no GPU, so the embedded model is used." in said
    assert "GB" not in said


def test_the_memory_of_a_run_is_told_before_it(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(beforehand, "memory_foretold", lambda settings: f"about {settings.views} GB")
    assert main(["text", "a red cube", "--runs", str(tmp_path), *SMALL]) == 0
    assert "It needs about 1 GB." in capsys.readouterr().err


def test_a_method_decides_what_is_not_asked_for(tmp_path, capsys) -> None:
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--method", "hifa", "--seed", "3", *SMALL]) == 0
    (folder,) = tmp_path.iterdir()
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["schedule"], settings["steps"], settings["seed"]) == ("hifa", 3, 3)


def test_presets_are_listed_with_their_sources(capsys) -> None:
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    for told in ("prolificdreamer  prolificdreamer   vsd        7.5", "arXiv 2305.18766", "configs/sjc.yaml", "guidance scale"):
        assert told in out
    need = [int(size) for size in re.findall(r"On a GPU it needs about (\d+) GB of GPU memory", out)]
    assert len(need) == 5
    assert max(need) == need[2] > 10, "ProlificDreamer's pictures are four times as wide"
    assert main(["presets", "--prior", "toybox"]) == 0
    assert "25000" not in capsys.readouterr().out


def test_presets_need_no_weights_so_a_hub_id_may_be_any(capsys) -> None:
    assert main(["presets", "dreamfusion", "--prior", "owner/model"]) == 0
    out = capsys.readouterr().out
    assert "owner/model" in out
    assert "On a GPU" not in out, "nobody here knows its parts, and the Hub is not asked"


def test_one_preset_in_full(capsys) -> None:
    assert main(["presets", "sjc", "--preset", "draft"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "t max                 970" in lines
    assert "steps                 3000" in lines
    assert any(line.startswith("SJC: Wang et al.") for line in lines)


def test_presets_as_json_are_settings(capsys) -> None:
    assert main(["presets", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["dreamtime", "dreamfusion", "prolificdreamer", "hifa", "sjc"]
    for name, one in told.items():
        assert presets.settings_from_dict({"prompt": "a cat", **one["settings"]}).objective == one["settings"]["objective"]
        assert main(["presets", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == one


@pytest.mark.parametrize("objective", ["csd", "asd", "vsd"])
def test_the_objective_is_a_choice_of_its_own(objective: str, tmp_path, model, capsys) -> None:
    options = ["--objective", objective, "--guidance-scale", "5", "--schedule", "linear"]
    assert main(["text", "a red cube", "--runs", str(tmp_path), "--prior", model, *options, *SMALL]) == 0
    (folder,) = tmp_path.iterdir()
    settings = json.loads((folder / "settings.json").read_text())
    assert (settings["objective"], settings["schedule"], settings["guidance_scale"]) == (objective, "linear", 5)


def test_json_for_machines(finished, capsys) -> None:
    run_id = next(path.name for path in finished[0].iterdir())
    assert main(["resume", run_id, "--runs", str(finished[0]), "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["run_id"] == run_id
    assert result["steps"] == 3
    assert result["statistics"]["watertight"]
    assert Path(result["files"]["stl"]).is_file()


def test_obj_comes_with_its_material_and_texture(model, tmp_path, capsys) -> None:
    """`cube.png` may well be the picture that somebody works from."""
    output = tmp_path / "cube.obj"
    (tmp_path / "cube.png").write_text("mine")
    assert main(["text", "a red cube", "-o", str(output), "--runs", str(tmp_path / "runs"), "--prior", model, *SMALL]) == 0
    material = next(line.split()[1] for line in output.read_text().splitlines() if line.startswith("mtllib"))
    texture = next(line.split()[1] for line in (tmp_path / material).read_text().splitlines() if line.startswith("map_Kd"))
    assert (tmp_path / texture).read_bytes()[:4] == b"\x89PNG"
    assert (material, texture) == ("cube.mtl", "cube-texture.png"), "another one beside it keeps its own"
    assert (tmp_path / "cube.png").read_text() == "mine"
    assert capsys.readouterr().out.split() == [str(output), str(tmp_path / material), str(tmp_path / texture)]


def test_what_an_obj_refers_to_has_no_blanks_in_its_name(tmp_path) -> None:
    """Readers split the lines of an OBJ at them."""
    (tmp_path / "model.obj").write_text("mtllib model.mtl\no model\n")
    (tmp_path / "model.mtl").write_text("newmtl albedo\nmap_Kd model.png\n")
    (tmp_path / "model.png").write_bytes(b"png")
    told = cli.copy_obj(tmp_path / "model.obj", tmp_path / "my  red\tduck.obj")
    assert told == {
        name: str(tmp_path / f"my-red-duck{end}") for name, end in (("material", ".mtl"), ("texture", "-texture.png"))
    }
    assert (tmp_path / "my  red\tduck.obj").read_text() == "mtllib my-red-duck.mtl\no model\n"
    assert (tmp_path / "my-red-duck.mtl").read_text() == "newmtl albedo\nmap_Kd my-red-duck-texture.png\n"
    assert (tmp_path / "my-red-duck-texture.png").read_bytes() == b"png"


def test_schedule_as_json_has_n_timesteps(capsys) -> None:
    assert main(["schedule", "--name", "time-prioritized", "--steps", "600"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert [table["t"][i - 1] for i in (1, 6, 30, 60, 150, 300, 450, 540, 570, 594, 600)] == [
        925, 854, 767, 720, 642, 556, 470, 394, 349, 264, 20,
    ]  # fmt: skip


def test_schedule_options_reach_it(capsys) -> None:
    options = ["--m", "300", "--s", "200", "--steps", "1000", "--t-min", "20", "--t-max", "980", "--betas", "scaled_linear"]
    assert main(["schedule", *options, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 1000
    assert rows[-1] == {"i": "1000", "t": "20"}


def test_schedule_as_png_goes_where_standard_output_goes(tmp_path) -> None:
    command = [sys.executable, "-m", "dreamtime", "schedule", "--steps", "20", "--format", "png"]
    environment = {**os.environ, "PYTHONPATH": str(Path(dreamtime.__file__).parents[1])}
    assert subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, env=environment).stdout[:4] == b"\x89PNG"
    assert not list(tmp_path.iterdir())


def test_schedule_as_png(tmp_path, capsys) -> None:
    target = tmp_path / "schedule.png"
    assert main(["schedule", "--name", "uniform", "--steps", "50", "--format", "png", "-o", str(target)]) == 0
    assert target.read_bytes()[:4] == b"\x89PNG"
    assert capsys.readouterr().out.strip() == str(target)


def test_a_random_schedule_repeats_with_its_seed(capsys) -> None:
    tables = []
    for seed in ("1", "1", "2"):
        assert main(["schedule", "--name", "uniform", "--steps", "20", "--seed", seed]) == 0
        tables.append(json.loads(capsys.readouterr().out)["t"])
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["text", ""], "prompt is empty"),
        (["text", "x" * 500], "up to 400 characters, got 500"),
        (["text", "a red cube", "--steps", "0"], "between 1 and 1,000,000 steps, got 0"),
        (["text", "a red cube", "--steps", "1000000000"], "got 1,000,000,000"),
        (["text", "a red cube", "--steps", "many"], "invalid int value"),
        (["text", "a red cube", "--preset", "best"], "Unknown preset 'best'"),
        (["text", "a cat", "--objective", "magic"], "Unknown objective 'magic'"),
        (["text", "a cat", "--objective", "csd", "--guidance-scale", "1"], "it needs a guidance scale above 1, got 1"),
        (["text", "a cat", "--objective", "csd", "--guidance", "perp-neg"], "in its own way"),
        (["text", "a cat", "--method", "magic"], "Unknown method 'magic'"),
        (["text", "a cat", "--method", "prolificdreamer", "--prior", "stable-diffusion-xl"], "'vsd' learns in a UNet"),
        (["presets", "magic"], "Unknown method 'magic'"),
        (["presets", "--prior", "nope"], "'nope' is no file, no folder, no Hub id like 'owner/model' and none of toybox"),
        (["presets", "--prior", "toybox-zero123"], "'toybox-zero123' is shown a picture and reads no text"),
        (["presets", "--prior", "."], "'.' is no model in the layout of diffusers"),
        (["text", "a red cube", "--prior", "toybox-zero123"], "is shown a picture and reads no text"),
        (["text", "a red cube", "--lora", "nope.safetensors"], "'nope.safetensors' is no file, no folder and no Hub id"),
        (["text", "a red cube", "--embedding", "nope.safetensors"], "with a textual inversion"),
        (["text", "a red cube", "--schedule", "cosine"], "Unknown schedule 'cosine'"),
        (["text", "a red cube", "--schedule", "custom"], "A custom schedule needs a table"),
        (["text", "a red cube", "--s", "0"], "positive number"),
        (["text", "a red cube", "--t-min", "980", "--t-max", "20"], "t_min = 980, t_max = 20"),
        (["text", "a red cube", "--t-max", "5000"], "t_max < 1000"),
        (["text", "a red cube", "--prior", "no such model"], "'no such model' is no file, no folder"),
        (["text", "a red cube", "--device", "tpu"], "Unknown device 'tpu'"),
        (["text", "a red cube", "-o", "cube.png"], "must end in one of .glb"),
        (["text", "a red cube", "-o", "/no/such/folder/cube.glb"], "folder must exist"),
        (["resume", "../../etc/passwd"], "32 hexadecimal digits"),
        (["resume", "0" * 32, "--runs", "elsewhere"], "looked for in 'elsewhere'; --runs names another folder"),
        (["stop", "0" * 32], "no run with this id"),
        (["schedule", "--name", "nothing"], "Unknown schedule 'nothing'"),
        (["schedule", "--steps", "0"], "got 0"),
        (["schedule", "--betas", "cosine"], "Unknown betas"),
        (["schedule", "--name", "custom"], "A custom schedule needs a table"),
        (["schedule", "--name", "custom", "--format", "png"], "A custom schedule needs a table"),
        (["schedule", "--name", "custom", "--table", "900,20,500"], "only fall or only rise"),
        (["schedule", "--name", "custom", "--table", "a,b"], "expected whole numbers with commas between, got 'a,b'"),
        (["schedule", "--name", "uniform", "--m", "300"], "The schedule 'uniform' has no --m: it takes --t-min, --t-max."),
        (["schedule", "--name", "uniform", "--seed", "-1"], "seed must lie between 0 and"),
        (["text", "a cat", "--schedule", "linear", "--table", "900,20"], "The schedule 'linear' has no --table: it takes"),
        (["text", "a cat", "--fixed-t", "300"], "The schedule 'time-prioritized' has no --fixed-t"),
        (["text", "a cat", "--lora-scale", "0.5"], "--lora-scale is the strength of a --lora, and there is none"),
        (["text", "a cat", "--image-residual", "-1"], "The image residual must lie between 0 and"),
        (["text", "a cat", "--image-residual", "5", "--objective", "ism"], "with the objective 'ism' it must be 0, got 5"),
        (["text", "a cat", "--guidance-scale", "0"], "With a guidance scale of 0 nobody would look at the prompt"),
        (["text", "a cat", "--guidance-scale", "1", "--negative-prompt", "a dog"], "A negative prompt has no effect"),
        (["text", "a cat", "--guidance-scale", "1", "--guidance", "rescaled"], "The guidance 'rescaled' has no effect"),
        (["schedule", "--name", "fixed", "--t-min", "30"], "The schedule 'fixed' has no --t-min: it takes --fixed-t."),
        (["schedule", "--format", "png", "-o", "schedule.txt"], "The output must end in .png, got 'schedule.txt'"),
        (["dance"], "invalid choice"),
        ([], "required"),
    ],
)
def test_every_mistake_is_one_line_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_model_folder_that_is_none_is_one_line(tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["text", "a cat", "--prior", str(tmp_path / "empty"), "--runs", str(tmp_path / "runs")]) == 2
    assert "empty' is no " in capsys.readouterr().err


def test_a_corrupt_checkpoint_is_one_line(finished, tmp_path, capsys) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished[0], root)
    folder = next(root.iterdir())
    (folder / "checkpoint.safetensors").write_bytes(b"nonsense")
    assert main(["resume", folder.name, "--runs", str(root), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "cannot be read" in err
    assert "Traceback" not in err


def test_what_nobody_foresaw_is_one_line_too(monkeypatch, capsys) -> None:
    def fails(*arguments: object) -> None:
        raise AssertionError("odd")

    monkeypatch.setitem(cli.COMMANDS, "presets", fails)
    assert main(["presets"]) == 1
    assert capsys.readouterr().err == "dreamtime: something unexpected went wrong (AssertionError: odd).\n"


def test_a_model_that_cannot_be_copied_is_not_lost(tmp_path: Path) -> None:
    (made := tmp_path / "made.glb").write_bytes(b"glTF")
    result = runs.Result(1, {"glb": made}, {}, ())
    cli.copy_result(result, made)
    assert made.read_bytes() == b"glTF", "its own place is no other"
    with pytest.raises(ValueError, match=r"The model lies in .*made\.glb'; it could not be copied to .*: No such file"):
        cli.copy_result(result, tmp_path / "gone" / "copy.glb")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_and_every_option_says_what_it_is_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    told = capsys.readouterr().out
    _, description, *_ = told.split("\n\n")
    assert description[0].isupper()
    assert description.strip().endswith(".")
    (subparsers,) = [action for action in cli.build_parser()._actions if action.dest == "command"]
    for action in subparsers.choices[name]._actions:
        assert action.help, f"{name} {action.option_strings or action.dest}"


def test_from_which_mirror_a_model_is_taken_is_told_where_progress_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    capsys.readouterr()
    hub.say_where("stable-diffusion-1.5", "somewhere/else")
    assert capsys.readouterr().err == "The model stable-diffusion-1.5 is taken from somewhere/else.\n"


@pytest.mark.posix
def test_names_need_not_be_of_any_encoding(finished, tmp_path, capsys) -> None:
    """As files from an older disk are; what is printed of them is escaped."""
    root, _ = finished
    (run,) = root.iterdir()
    output = tmp_path / os.fsdecode(b"caf\xe9.obj")
    assert main(["resume", run.name, "--runs", str(root), "-o", str(output), "--quiet"]) == 0
    assert output.exists()
    assert (tmp_path / os.fsdecode(b"caf\xe9.mtl")).name.encode(errors="surrogateescape") in output.read_bytes()
    capsys.readouterr()


@pytest.mark.posix
@pytest.mark.parametrize("closed", ["1>&-", "2>&-"])
def test_a_closed_stream_costs_no_run(finished, tmp_path, closed: str) -> None:
    root, _ = finished
    (run,) = root.iterdir()
    command = [sys.executable, "-m", "dreamtime", "resume", run.name, "--runs", str(root), "-o", str(tmp_path / "cube.glb")]
    assert subprocess.run(["sh", "-c", f"{shlex.join(command)} {closed}"], capture_output=True).returncode == 0
    assert (tmp_path / "cube.glb").exists()


@pytest.mark.parametrize("objective", ["sds", "csd"])
def test_more_steps_than_any_float_are_refused(objective: str, tmp_path, capsys) -> None:
    steps = "1" + 400 * "0"
    assert main(["text", "a red cube", "--objective", objective, "--steps", steps, "--runs", str(tmp_path)]) == 2
    assert "A run has between 1 and 1,000,000 steps" in capsys.readouterr().err
