"""What happens when Generate is pressed and the prior that was chosen is not to be had."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import torch

from dreamtime import presets
from dreamtime.image_to_3d import image_preset
from dreamtime.preprocess import Reference
from dreamtime.priors.folders import ModelUnavailable
from dreamtime.runs import Run
from dreamtime.ui import running
from dreamtime.ui.driver import PriorUnavailable
from dreamtime.ui.server import Pace, Server
from dreamtime.ui.stage import Stage

LARGE = presets.preset("draft", "cpu", "stable-diffusion-1.5", prompt="a red cube", seed=7)
EMBEDDED = presets.preset("draft", "cpu", prompt="a red cube", seed=7)


class Page:
    """A tab whose runs are only noted down, and what it warns of."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> None:
        self.server, self.failure = Server(root, 24.0, Pace()), failure
        self.watched: list[str] = []
        self.warnings: list[str] = []
        # Components take seconds to make, and nobody asks these for anything.
        self.stage, self.banner = Stage.__new__(Stage), gr.HTML.__new__(gr.HTML)
        monkeypatch.setattr(running, "watch", self.watch)
        monkeypatch.setattr(gr, "Warning", lambda message, **options: self.warnings.append(message))

    def watch(self, stage: Stage, server: Server, run: Run) -> Iterator[dict[Any, Any]]:
        self.watched.append(run.settings.prior)
        yield {"run id": run.id}
        if self.failure and run.settings.prior != "toybox":
            raise self.failure

    def start(self, settings: presets.Settings, instead: presets.Settings = EMBEDDED, *pictures: Any) -> dict[Any, Any]:
        """All updates, the later ones over the earlier."""
        said: dict[Any, Any] = {}
        for updates in running.start(self.stage, self.banner, self.server, settings, instead, *pictures):
            said |= updates
        return said


def created(root: Path, settings: presets.Settings, reference: None) -> Run:
    """A run of which nothing is written, where the large prior is out of reach."""
    if settings.prior != "toybox":
        raise ModelUnavailable(settings.prior, "could not be had from any of its <mirrors>")
    return Run(root / ("0" * 32), settings)


def test_a_prior_that_is_out_of_reach_gives_way_to_the_embedded_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.runs, "create_run", created)
    page = Page(tmp_path, monkeypatch)
    said = page.start(LARGE)
    assert page.watched == ["toybox"]
    assert "instead of stable-diffusion-1.5: &#x27;stable-diffusion-1.5&#x27; could not be had" in said[page.banner]
    (warning,) = page.warnings
    assert warning.endswith("its &lt;mirrors&gt;. The embedded model runs instead.")
    assert len(said["run id"]) == 32


def test_so_does_one_whose_weights_turn_out_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.runs, "create_run", lambda root, settings, reference: Run(root / ("0" * 32), settings))
    page = Page(tmp_path, monkeypatch, PriorUnavailable("<b>'owner/model' is damaged.</b>"))
    said = page.start(LARGE)
    assert page.watched == ["stable-diffusion-1.5", "toybox"]
    assert "<b>&#x27;owner" not in said[page.banner]
    assert page.warnings[0].startswith("&lt;b&gt;")


@pytest.mark.parametrize("error", [ValueError("The disk is full."), RuntimeError("odd")])
def test_other_errors_stay_errors(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.runs, "create_run", lambda root, settings, reference: Run(root / ("0" * 32), settings))
    page = Page(tmp_path, monkeypatch, error)
    with pytest.raises(type(error)):
        page.start(LARGE)
    assert page.watched == ["stable-diffusion-1.5"]
    assert page.warnings == []


def test_a_run_that_is_taken_up_again_says_in_the_banner_what_it_uses(tmp_path: Path) -> None:
    both = image_preset("draft", "cpu", prompt="a red cube", text_prior="toybox")
    elsewhere = replace(LARGE, prior=str(tmp_path / "folder" / "<mine>"))
    for settings, words in ((LARGE, "stable-diffusion-1.5"), (both, "toybox-zero123 with toybox"), (elsewhere, "&lt;mine&gt;")):
        said = running.in_use_by(Run(tmp_path / ("0" * 32), settings))
        assert f"<b>{words}</b>" in said
        assert str(tmp_path) not in said


def test_the_embedded_prior_has_nothing_to_give_way_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(root: Path, settings: presets.Settings, reference: None) -> Run:
        raise ModelUnavailable("toybox", "is damaged")

    monkeypatch.setattr(running.runs, "create_run", unavailable)
    with pytest.raises(ModelUnavailable):
        Page(tmp_path, monkeypatch).start(EMBEDDED)


def test_what_runs_instead_is_shown_the_picture_in_its_own_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, Reference]] = []

    def made(root: Path, settings: presets.Settings, reference: Reference) -> Run:
        shown.append((settings.prior, reference))
        return created(root, settings, None)

    monkeypatch.setattr(running.runs, "create_run", made)
    large, small = (Reference(torch.ones(4, 4, 3), torch.full((4, 4, 1), fill), ()) for fill in (0.85, 0.75))
    Page(tmp_path, monkeypatch).start(LARGE, EMBEDDED, large, small)
    assert shown == [("stable-diffusion-1.5", large), ("toybox", small)]


def test_a_text_prior_that_is_out_of_reach_gives_way_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(root: Path, settings: presets.Settings, reference: None) -> Run:
        if settings.text_prior != "toybox":
            raise ModelUnavailable(settings.text_prior, "could not be had")
        return Run(root / ("0" * 32), settings)

    monkeypatch.setattr(running.runs, "create_run", made)
    page = Page(tmp_path, monkeypatch)
    asked = image_preset("draft", "cpu", prompt="a red cube", text_prior="stable-diffusion-1.5")
    said = page.start(asked, replace(asked, text_prior="toybox"))
    assert page.watched == ["toybox-zero123"]
    assert "instead of toybox-zero123 and stable-diffusion-1.5: &#x27;stable-diffusion-1.5&#x27; could" in said[page.banner]
