"""What a program that waits for one answer gets, and what it costs."""

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from dreamtime import presets, runs
from dreamtime.runs import Frame, Run
from dreamtime.ui import answers


def test_a_client_that_waits_pays_for_no_pictures(monkeypatch, tmp_path: Path) -> None:
    asked, told, delivered = list[bool](), list[tuple[int, int]](), list[Run]()

    def drive(run: Run, pictures: bool = True) -> Iterator[Frame]:
        asked.append(pictures)
        yield Frame(1, 2, 500, 1.0, 1.0, 1.0, None, None)

    monkeypatch.setattr(answers, "drive", drive)
    monkeypatch.setattr(answers, "described", lambda run, request: {"run_id": run.id})
    monkeypatch.setattr(runs, "deliver", delivered.append)
    run = Run(tmp_path / ("0" * 32), presets.preset("draft", "cpu", prompt="a red cube"))
    monkeypatch.setattr(gr.Progress, "__call__", lambda self, done, **words: told.append(done))
    assert answers.waited_for(run, gr.Request(), gr.Progress()) == {"run_id": run.id}
    assert (asked, told, delivered) == ([False], [(1, 2)], [run])
