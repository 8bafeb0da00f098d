"""From a picture on the command line: what is told, what is written, and what is refused in one line."""

import json
from pathlib import Path

import pytest
from PIL import Image
from stand_in import photograph, write_stand_in

from dreamtime.cli import main
from dreamtime.elevation import height_in_words

SMALL = ["--steps", "2", "--views", "1", "--resolution", "16", "--representation", "feature-grid", "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module", autouse=True)
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A small model wherever the embedded one is asked for."""
    folder = tmp_path_factory.mktemp("models")
    write_stand_in(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMTIME_MODEL_DIR", str(folder))
        yield


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return photograph(tmp_path / "ball.png")


def settings_in(root: Path) -> dict:
    (folder,) = root.iterdir()
    return json.loads((folder / "settings.json").read_text())


def test_the_picture_itself_is_never_overwritten(picture: Path, capsys: pytest.CaptureFixture) -> None:
    before = picture.read_bytes()
    assert main(["image", str(picture), "--show-input", str(picture), *SMALL]) == 2
    assert "would overwrite the picture itself" in capsys.readouterr().err
    assert picture.read_bytes() == before


@pytest.mark.parametrize("kept", ["picture", "shown"])
def test_nor_does_an_objs_texture_take_its_place(
    kept: str, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    taken, output = tmp_path / "duck-texture.png", tmp_path / "duck.obj"
    photograph(taken)
    before = taken.read_bytes()
    options = [str(taken)] if kept == "picture" else [str(picture), "--show-input", str(taken)]
    assert main(["image", *options, "-o", str(output), *SMALL]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert taken.read_bytes() == before


def test_what_no_run_could_have_is_said_before_the_picture_is_looked_at(picture: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["image", str(picture), "--prompt", "a cat", "--text-prior", "toybox-zero123", *SMALL]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_picture_becomes_a_model(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output, shown = tmp_path / "ball.glb", tmp_path / "shown.png"
    options = ["-o", str(output), "--runs", str(tmp_path / "runs"), "--show-input", str(shown), "--foreground-ratio", "0.5"]
    assert main(["image", str(picture), *options, *SMALL]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(output)
    assert output.read_bytes()[:4] == b"glTF"
    assert "Background removed by its colours at the border." in err
    settings = settings_in(tmp_path / "runs")
    assert (settings["task"], settings["elevation"], settings["prompt"]) == ("image", 20, "")
    with Image.open(shown) as seen:
        left, top, right, bottom = seen.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
        assert seen.mode == "RGBA"
        assert max(right - left, bottom - top) == pytest.approx(0.5 * seen.width, abs=2)


def test_the_elevation_is_estimated_when_asked_for_and_told(
    picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["image", str(picture), "--elevation", "auto", "--runs", str(tmp_path / "runs"), "--json", *SMALL]) == 0
    out, err = capsys.readouterr()
    (told,) = [line for line in err.splitlines() if line.startswith("The picture seems to be taken from about")]
    found = settings_in(tmp_path / "runs")["elevation"]
    caveat = "it is an estimate: give --elevation if you know better."
    assert told.endswith(f"taken from about {height_in_words(round(found, 0))}; {caveat}")
    assert found in (-10, 0, 10, 20, 30, 40, 50)
    assert json.loads(out)["steps"] == 2


def test_an_elevation_in_degrees_is_taken_as_it_is(picture: Path, tmp_path: Path) -> None:
    assert main(["image", str(picture), "--elevation", "-7.5", "--runs", str(tmp_path / "runs"), *SMALL]) == 0
    assert settings_in(tmp_path / "runs")["elevation"] == -7.5


def test_every_regularizer_and_the_resolution_on_the_way_can_be_chosen(picture: Path, tmp_path: Path) -> None:
    weights = {"opacity": 1.0, "orientation": 2.0, "entropy": 0.5, "normal_smoothness": 3.0, "normal_smoothness_3d": 4.0}
    options = [word for name, weight in weights.items() for word in (f"--{name.replace('_', '-')}", str(weight))]
    options += ["--runs", str(tmp_path / "runs"), *SMALL, "--resolution", "32", "--doublings", "1"]
    assert main(["image", str(picture), *options]) == 0
    settings = settings_in(tmp_path / "runs")
    assert {name: settings[name] for name in weights} == weights
    assert (settings["resolution"], settings["doublings"]) == (32, 1)


def test_a_prompt_beside_the_picture_has_a_reader(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--prompt", "a red dragon", "--text-prior", "toybox", "--text-weight", "0.5"]
    assert main(["image", str(picture), *words, "--runs", str(tmp_path / "runs"), *SMALL]) == 0
    settings = settings_in(tmp_path / "runs")
    assert (settings["prompt"], settings["text_prior"], settings["text_weight"]) == ("a red dragon", "toybox", 0.5)
    out, err = capsys.readouterr()
    assert out.strip().endswith("a-red-dragon.glb")
    assert 'never seen "dragon"' in err


def test_a_prompt_that_nobody_reads_is_told(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--prompt", "a red dragon", "--text-prior", ""]
    assert main(["image", str(picture), *words, "--runs", str(tmp_path / "runs"), *SMALL]) == 0
    assert settings_in(tmp_path / "runs")["text_prior"] == ""
    err = capsys.readouterr().err.splitlines()
    assert "Nobody reads the prompt: beside a picture it needs a text prior, and none is chosen." in err
    assert not any("never seen" in line for line in err)


def test_a_run_from_a_picture_goes_on_without_it(picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["image", str(picture), "--runs", str(tmp_path / "runs"), *SMALL]) == 0
    picture.unlink()
    (folder,) = (tmp_path / "runs").iterdir()
    assert main(["resume", folder.name, "--runs", str(tmp_path / "runs"), "--quiet"]) == 0
    assert capsys.readouterr().out.strip().endswith("model.glb")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{missing}"], "no file 'missing.png'"),
        (["{text}"], "holds text, whatever its name says"),
        (["{empty}"], "is empty"),
        (["{tiny}"], "at least 16 pixels per side"),
        (["{flat}"], "Nothing in the picture stands out"),
        (["{good}", "--elevation", "high"], "expected auto or degrees, got 'high'"),
        (["{good}", "--elevation", "95"], "elevation must lie between -89 and 89"),
        (["{good}", "--foreground-ratio", "0"], "foreground ratio must be from 0.3 to 1"),
        (["{good}", "--remove-background", "maybe"], "invalid choice: 'maybe'"),
        (["{good}", "--prior", "toybox"], "reads text: from a picture choose one of"),
        (["{good}", "--prior", "no such model"], "'no such model' is no file, no folder"),
        (["{good}", "--objective", "vsd"], "learns in a UNet that reads text"),
        (["{good}", "--preset", "best"], "Unknown preset 'best'"),
        (["{good}", "--entropy", "-1"], "The entropy must lie between 0 and 1000000, got -1"),
        (["{good}", "--doublings", "5"], "The number of doublings must lie between 0 and 4, got 5"),
        (["{good}", "--resolution", "64", "--doublings", "4"], "The resolution of the first steps must lie between 8 and 1024"),
        (["{good}", "--text-weight", "9"], "The option --text-weight is about who reads a --prompt, and there is none"),
        (["{good}", "--text-prior", "nonsense"], "The option --text-prior is about who reads a --prompt"),
        (["{good}", "--show-input", "shown.jpg"], "must end in .png"),
        (["{good}", "-o", "ball.png"], "must end in one of .glb"),
    ],
)
def test_every_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "flat.png")
    photograph(tmp_path / "good.png", 64)
    places = {name: f"{name}.png" for name in ("missing", "text", "empty", "tiny", "flat", "good")}
    try:
        code = main(["image", *(argument.format(**places) for argument in arguments)])
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    told = [line for line in err.splitlines() if not line.startswith("Background removed")]
    assert len(told) == 1
    assert words in told[0]
    assert not (tmp_path / "runs").exists()
