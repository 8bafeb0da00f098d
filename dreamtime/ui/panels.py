"""What the page says in HTML of its own: header, status, live view, result, footer. Text from people is escaped here."""

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dreamtime.beforehand import advice
from dreamtime.preprocess import Reference, on_checkerboard
from dreamtime.presets import Settings
from dreamtime.runs import Frame, Result, Run, without_paths
from dreamtime.timesteps import Timetable, stage_of
from dreamtime.ui.theme import FOOTER, LOGO

SHOWN_STATISTICS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "vertices": ("vertices", "{:,}".format),
    "faces": ("faces", "{:,}".format),
    "components": ("parts", "{:,}".format),
    "watertight": ("watertight", lambda closed: "yes" if closed else "no"),
    "area": ("surface", "{:.3g} units²".format),
    "volume": ("volume", "{:.3g} units³".format),
    "optimisation_seconds": ("optimising took", "{:.1f} s".format),
    "extraction_seconds": ("the mesh took", "{:.1f} s".format),
    "glb_bytes": ("GLB size", lambda size: f"{size / 1000:,.0f} kB"),
}
SHOWN_SETTINGS = ("seed", "prior", "schedule", "guidance_scale", "representation", "views", "resolution")
SHOWN_OF_PICTURES = ("elevation", "rgb", "mask")


def clock(seconds: float) -> str:
    """Seconds as 0:07 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def spoken(seconds: float) -> str:
    """Seconds as people say an estimate: 8 s, 50 s, 3 min, 1.5 h."""
    if seconds < 10:
        return f"{max(round(seconds), 1)} s"
    if seconds < 100:
        return f"{5 * round(seconds / 5)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def chip(what: str, name: str) -> str:
    return f'<span class="dt-chip">{what} <b>{escape(name)}</b></span>'


def header(prior: str, device: str, why: str = "") -> str:
    """The name, what it is, and which prior and device are in use, and why."""
    words = "<div><h1>DreamTime</h1><p>Text and pictures to 3D by time-prioritized score distillation</p></div>"
    brand = f'<div class="dt-brand">{LOGO.read_text(encoding="utf-8")}{words}</div>'
    reason = f'<span class="dt-why">{escape(why)}</span>' if why else ""
    in_use = f"{chip('prior', prior)}{chip('device', device)}{reason}"
    chips = f'<div class="dt-chips" role="status" aria-label="In use">{in_use}</div>'
    return f'<header class="dt-header">{brand}{chips}</header>'


def img(image: Image.Image, words: str) -> str:
    """A small picture inside the page, described by the words: no file, no second request, no flicker."""
    buffer = io.BytesIO()
    image.save(buffer, "WebP", quality=90, method=0)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f'<img decoding="sync" src="data:image/webp;base64,{encoded}" alt="{escape(words)}"/>'


def title_of(settings: Settings) -> str:
    """What a run is about, in its own words or ours."""
    return f"“{settings.prompt}”" if settings.prompt else "The object in the picture"


def picture(words: str, image: UInt8[Tensor, "H W C"] | None = None, caption: str = "") -> str:
    """A square with a picture that the words describe; without one, the words alone."""
    if image is None:
        return f'<figure class="dt-picture dt-empty"><p>{escape(words)}</p></figure>'
    drawn = img(Image.fromarray(image.numpy()), words)
    return f'<figure class="dt-picture">{drawn}<figcaption>{escape(caption)}</figcaption></figure>'


def picture_file(words: str, path: Path, caption: str) -> str:
    """The same for a picture in a file."""
    with Image.open(path) as image:
        return picture(words, torch.from_numpy(np.array(image.convert("RGBA"))), caption)


def processed(reference: Reference, words: str = "The object alone, as the model is shown it") -> str:
    """The object of a picture on a checkerboard, and what was done to get there."""
    notes = "; ".join(map(escape, reference.notes)) or "nothing had to be done"
    return (
        f'<figure class="dt-picture dt-processed">{img(on_checkerboard(reference), words)}'
        f'<figcaption>what the model sees</figcaption></figure><p class="dt-notes" role="status">{notes}</p>'
    )


def showcase(pictures: Mapping[str, Path]) -> str:
    """Results to look at before the first run, by prompt; pressing one asks for the same."""
    tiles = ""
    for prompt, path in pictures.items():
        with Image.open(path) as image:
            tiles += f'<button type="button" class="dt-tile">{img(image, "")}<span>{escape(prompt)}</span></button>'
    note = "Made here from these words. Choose one, or write your own, and press Generate."
    columns = f"--dt-columns:{math.ceil(len(pictures) / 2)}"
    return f'<figure class="dt-showcase"><div style="{columns}">{tiles}</div><figcaption>{note}</figcaption></figure>'


def stage_gradient(table: Timetable, m: float, s: float) -> str:
    """The three stages as stretches of the progress bar, as CSS; one colour for a schedule that draws its t."""
    if table.random:
        return "var(--dt-coarse)"
    stages = [stage_of(t, m, s) for t in table.low.tolist()]
    stops = [(stage, 100 * stages.index(stage) / len(stages)) for stage in dict.fromkeys(stages)]
    ends = [start for _, start in stops[1:]] + [100.0]
    pieces = (f"var(--dt-{stage}) {start:.1f}% {end:.1f}%" for (stage, start), end in zip(stops, ends, strict=True))
    return f"linear-gradient(90deg, {', '.join(pieces)})"


def progress_bar(share: float | None, colors: str, busy: bool) -> str:
    """How far it is; without a share only that something happens, or nothing at all."""
    percent = 100 * (share or 0)
    kind, now = ("", f'aria-valuenow="{percent:.0f}"') if share is not None else ("dt-busy" if busy else "dt-idle", "")
    bounds = f'role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" {now}'
    bar = f'<i style="clip-path:inset(0 {100 - percent:.2f}% 0 0 round 99px)"></i>'
    return f'<div class="dt-progress {kind}" {bounds} style="--dt-stages:{colors}">{bar}</div>'


def status(
    headline: str, details: Sequence[str] = (), share: float | None = None, colors: str = "var(--dt-coarse)", busy: bool = False
) -> str:
    """One line and one bar: what happens, and how far it is."""
    items = "".join(f"<span>{item}</span>" for item in details)
    line = f'<p><b role="status">{headline}</b>{items}</p>'
    return f'<section class="dt-status">{line}{progress_bar(share, colors, busy)}</section>'


def optimising(frame: Frame, stage: str, colors: str, stopping: bool) -> str:
    """The status while steps are taken."""
    details = (
        f"step {frame.step:,} of {frame.steps:,}",
        f"t = {frame.t}",
        f'<em class="dt-tag dt-{stage}">{stage}</em>',
        f'<span class="dt-times">{clock(frame.seconds)} · about {clock(frame.remaining)} left, then the mesh</span>',
    )
    return status("Stopping…" if stopping else "Optimising", details, frame.step / frame.steps, colors)


def definition_list(values: Mapping[str, str]) -> str:
    """Names and values as a grid."""
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values.items())


def result(run: Run, made: Result) -> str:
    """Statistics of the mesh, the settings that made it, what to know about it, and the link that shows it again."""
    chosen = without_paths(run.settings)
    names = (*SHOWN_SETTINGS, *(SHOWN_OF_PICTURES if run.settings.task == "image" else ()))
    settings = {name.replace("_", " "): f"{chosen[name]}" for name in names}
    measured = {words: spell(made.statistics[name]) for name, (words, spell) in SHOWN_STATISTICS.items()}
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*advice(run.settings), *made.notes))
    return (
        f'<section class="dt-result"><h3>{escape(title_of(run.settings))}</h3>'
        f"{f'<ul>{notes}</ul>' if notes else ''}"
        f"<h4>Mesh</h4><dl>{definition_list(measured)}</dl><h4>Settings</h4><dl>{definition_list(settings)}</dl>"
        f'<p><a href="?run={run.id}">Link to this result</a></p></section>'
    )


SCHEDULES_EXPLAINED = (
    '<p class="dt-lead">Every step asks the diffusion model about one noise level t. Large t decides the coarse shape, middle t'
    " the content, small t the detail. A schedule decides how many steps each of them gets.</p>"
)


def shares_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """How many of the steps each stage gets, by schedule, as a table with bars."""
    head = "".join(f'<th scope="col">{stage}</th>' for stage in ("coarse", "content", "detail"))
    body = ""
    for number, (name, shares) in enumerate(rows.items(), start=1):
        cells = "".join(
            f'<td><i class="dt-bar dt-{stage}" style="width:{100 * share:.0f}%"></i>{share:.0%}</td>'
            for stage, share in shares.items()
        )
        body += f'<tr><th scope="row"><i class="dt-key dt-c{number}"></i>{escape(name)}</th>{cells}</tr>'
    return f'<table class="dt-shares"><caption>Share of the steps by stage</caption><tr><td></td>{head}</tr>{body}</table>'


def hint(sentence: str) -> str:
    """What is wrong with a choice, in the place of what it would have shown."""
    return f'<p class="dt-hint" role="alert">{escape(sentence)}</p>'


def footer(hours: float) -> str:
    """What it is, after whom, on which terms, and what is kept; infinitely many hours are for ever."""
    until = f" until nobody has touched them for {hours:g} hours, then they are deleted" if hours < math.inf else ""
    return FOOTER.read_text(encoding="utf-8").format(until=until)
