"""What the page says in HTML of its own: header, status, live view, result, footer. Text from people is escaped here."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dreamtime.runs import Frame, Result, Run
from dreamtime.timesteps import Timetable, stage_of
from dreamtime.ui.theme import FAVICON

SHOWN_SETTINGS = ("schedule", "steps", "seed", "guidance_scale", "representation", "views", "resolution")


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


def header(prior: str, device: str) -> str:
    """The name, what it is, and which prior and device are in use."""
    chips = f'<span class="dt-chip">prior <b>{escape(prior)}</b></span><span class="dt-chip">device <b>{escape(device)}</b></span>'
    return (
        f'<header class="dt-header">{FAVICON.read_text()}<div><h1>DreamTime</h1><p>Text to 3D by time-prioritized'
        f' score distillation</p></div><div class="dt-chips" role="status" aria-label="In use">{chips}</div></header>'
    )


def data_uri(image: UInt8[Tensor, "H W 3"]) -> str:
    """A small picture inside the page: no file, no second request, no flicker."""
    buffer = io.BytesIO()
    Image.fromarray(image.numpy()).save(buffer, "JPEG", quality=90, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture(words: str, image: UInt8[Tensor, "H W 3"] | None = None, caption: str = "") -> str:
    """A square with a picture that the words describe; without one, the words alone."""
    if image is None:
        return f'<figure class="dt-picture dt-empty"><p>{escape(words)}</p></figure>'
    img = f'<img decoding="sync" src="{data_uri(image)}" alt="{escape(words)}">'
    return f'<figure class="dt-picture">{img}<figcaption>{escape(caption)}</figcaption></figure>'


def stage_gradient(table: Timetable, m: float, s: float) -> str:
    """The three stages as stretches of the progress bar, as CSS; one colour for a schedule that draws its t."""
    if table.random:
        return "var(--dt-coarse)"
    stages = [stage_of(t, m, s) for t in table.low.tolist()]
    stops = [(stage, 100 * stages.index(stage) / len(stages)) for stage in dict.fromkeys(stages)]
    ends = [start for _, start in stops[1:]] + [100.0]
    pieces = (f"var(--dt-{stage}) {start:.1f}% {end:.1f}%" for (stage, start), end in zip(stops, ends, strict=True))
    return f"linear-gradient(90deg, {', '.join(pieces)})"


def status(headline: str, details: Sequence[str] = (), share: float | None = None, colors: str = "var(--dt-coarse)", busy: bool = False) -> str:
    """One line and one bar: what happens, and how far it is. Without a share the bar only shows that something happens."""
    percent = 0 if share is None else 100 * share
    state = f'aria-valuenow="{percent:.0f}"' if share is not None else ""
    kind = "dt-idle" if share is None and not busy else "dt-busy" if share is None else ""
    items = "".join(f"<span>{item}</span>" for item in details)
    return (
        f'<section class="dt-status"><p><b role="status">{headline}</b>{items}</p>'
        f'<div class="dt-progress {kind}" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax="100" {state}'
        f' style="--dt-stages:{colors}"><i style="clip-path:inset(0 {100 - percent:.2f}% 0 0 round 99px)"></i></div></section>'
    )


def optimising(frame: Frame, table: Timetable, m: float, s: float, stopping: bool) -> str:
    """The status while steps are taken."""
    stage = stage_of(frame.t, m, s)
    details = (
        f"step {frame.step:,} of {frame.steps:,}",
        f"t = {frame.t}",
        f'<em class="dt-tag dt-{stage}">{stage}</em>',
        f'<span class="dt-times">{clock(frame.seconds)} · about {clock(frame.remaining)} left</span>',
    )
    return status("Stopping…" if stopping else "Optimising", details, frame.step / frame.steps, stage_gradient(table, m, s))


def definition_list(values: Mapping[str, Any]) -> str:
    """Names and values as a grid."""
    return "".join(f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{spelled(value)}</dd></div>" for name, value in values.items())


def spelled(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\N{THIN SPACE}")
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))


def result(run: Run, made: Result) -> str:
    """Statistics of the mesh, the settings that made it, what to know about it, and the link that shows it again."""
    settings = {name: value for name, value in vars(run.settings).items() if name in SHOWN_SETTINGS}
    notes = "".join(f"<li>{escape(note)}</li>" for note in made.notes)
    return (
        f'<section class="dt-result"><h3>“{escape(run.settings.prompt)}”</h3>'
        f'{f"<ul>{notes}</ul>" if notes else ""}'
        f"<h4>Mesh</h4><dl>{definition_list(made.statistics)}</dl><h4>Settings</h4><dl>{definition_list(settings)}</dl>"
        f'<p><a href="?run={run.id}">Link to this result</a></p></section>'
    )


SCHEDULES_EXPLAINED = (
    '<p class="dt-lead">Every step asks the diffusion model about one noise level t. Large t decides the coarse shape, middle t the'
    " content, small t the detail. A schedule decides how many steps each of them gets.</p>"
)


def shares_table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """How many of the steps each stage gets, by schedule, as a table with bars."""
    head = "".join(f'<th scope="col">{stage}</th>' for stage in ("coarse", "content", "detail"))
    body = ""
    for number, (name, shares) in enumerate(rows.items(), start=1):
        cells = "".join(f'<td><i class="dt-bar dt-{stage}" style="width:{100 * share:.0f}%"></i>{share:.0%}</td>' for stage, share in shares.items())
        body += f'<tr><th scope="row"><i class="dt-key dt-c{number}"></i>{escape(name)}</th>{cells}</tr>'
    return f'<table class="dt-shares"><caption>Share of the steps by stage</caption><tr><td></td>{head}</tr>{body}</table>'


def hint(sentence: str) -> str:
    """What is wrong with a choice, in the place of what it would have shown."""
    return f'<p class="dt-hint" role="alert">{escape(sentence)}</p>'


def footer(hours: float) -> str:
    """What it is, on which terms, after whom, and what is kept."""
    return (
        '<footer class="dt-footer"><div><h2>About</h2><p>DreamTime turns a sentence into a textured 3D model by optimising a small'
        " radiance field until a 2D diffusion model likes it from every side. The timestep falls along a schedule that spends the"
        " steps where they matter. Everything runs on this machine with an embedded model; larger models can be chosen"
        " under Advanced.</p></div><div><h2>After</h2><p>Huang, Wang, Shi, Tang, Qi, Zhang: <cite>DreamTime: An Improved Optimization"
        " Strategy for Diffusion-Guided 3D Generation</cite>, ICLR 2024, arXiv 2306.12422. Poole, Jain, Barron, Mildenhall:"
        " <cite>DreamFusion: Text-to-3D using 2D Diffusion</cite>, ICLR 2023, arXiv 2209.14988.</p></div><div><h2>Terms and privacy</h2>"
        "<p>Code, embedded weights and pictures: Apache-2.0; other priors have licences of their own. Your prompt, settings and"
        f" results stay on this server under an unguessable id for {hours:g} hours, then they are deleted. Your browser remembers the id of"
        " your last run. Nothing is sent anywhere else, and nothing is counted.</p></div></footer>"
    )
