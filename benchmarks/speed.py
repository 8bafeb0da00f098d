"""From a cold command to the GLB: wall seconds and peak memory per preset, the app's first page and first preview, and where a
step's milliseconds go.

    python -m benchmarks.speed

Writes `speed.md` beside this file. Run it on an otherwise idle machine; its class and the date are part of the result. It asks
POSIX for the peak memory, and a Chromium on the path to press the page's button.
"""

import argparse
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from unittest.mock import patch

import torch
from gradio_client import Client
from playwright.sync_api import Browser, sync_playwright

from benchmarks.clock import Clock
from benchmarks.rows import measured_on
from dreamtime import assembly, presets, text_to_3d
from dreamtime.priors.stable_diffusion import StableDiffusionPrior

HERE = Path(__file__).parent
WARM_UP = 25  # seconds after the first page in which the app loads its model and measures its pace
PREVIEW = 4  # the place of the preview among the outputs of /text_to_3d
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class TimedPrior:
    """A prior that notes how long it is asked for."""

    def __init__(self, prior: StableDiffusionPrior, clock: Clock) -> None:
        self.alphas_cumprod = prior.alphas_cumprod
        self.decode = clock.timed("decode", prior.decode)
        self.encode = clock.timed("encode", prior.encode)
        self.predict_noise = clock.timed("UNet", prior.predict_noise)
        self.tell = prior.tell


def step_breakdown(preset: str, steps: int = 30) -> dict[str, float]:
    """Mean milliseconds of a step's parts over the last two thirds of `steps` steps."""
    settings = presets.preset(preset, "cpu", prompt="a red cube")
    clock = Clock()
    loaded = assembly.load_prior(settings.source, "cpu", settings.options)
    assert isinstance(loaded, StableDiffusionPrior)
    prior = TimedPrior(loaded, clock)
    dream = text_to_3d.compose(settings, prior, assembly.load_embed(settings), lambda render: clock.timed("render", render))
    total = 0.0
    with patch.object(torch.Tensor, "backward", clock.timed("backward", torch.Tensor.backward)):
        for index, _ in enumerate(dream.steps(0)):
            if index == steps // 3:
                clock.spent.clear()
                started = time.perf_counter()
            if index == steps:
                total = 1000 * (time.perf_counter() - started)
                break
    count = steps - steps // 3
    parts = {name: clock.spent[name] / count for name in ("render", "encode", "UNet", "decode", "backward")}
    return {**parts, "Adam and the rest": total / count - sum(parts.values()), "whole step": total / count}


def cold_command(preset: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MB of `python -m dreamtime text` in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dreamtime", "text", "a red cube", "--preset", preset, "--device", "cpu", "--quiet"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        subprocess.run(
            [*command, "--runs", folder, "-o", f"{folder}/cube.glb"], check=True, capture_output=True, cwd=HERE.parent
        )
        wall = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1024


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def called(client: Client, seed: int) -> tuple[float, float]:
    """Seconds from a call of `/text_to_3d` to the run id, and to the first preview; the run is stopped then."""
    started, accepted = time.perf_counter(), 0.0
    job = client.submit(prompt="a red cube", preset="standard", seed=seed, api_name="/text_to_3d")
    run_id = ""
    for update in job:
        if not run_id:
            run_id, accepted = update[0], time.perf_counter() - started
        if isinstance(update[PREVIEW], str):  # not what an update leaves as it is
            break
    previewed = time.perf_counter() - started
    client.predict(run_id=run_id, api_name="/stop")
    job.result()
    return accepted, previewed


def clicked(browser: Browser, url: str) -> float:
    """Seconds from pressing Generate on a fresh page to the first live picture on the screen; the run is stopped then."""
    page = browser.new_page()
    page.goto(url)
    page.get_by_label("Prompt", exact=True).fill("a red cube")
    button = page.get_by_role("button", name="Generate", exact=True)
    started = time.perf_counter()
    button.click()
    page.locator(".dt-picture img:visible").first.wait_for()
    seconds = time.perf_counter() - started
    page.get_by_role("button", name="Stop").click()
    page.locator(".dt-status b:visible", has_text="Stopped").wait_for()
    page.close()
    return seconds


def app_seconds(repeats: int) -> tuple[float, dict[str, tuple[float, ...]]]:
    """Seconds from `python app.py` to the first page; then, once it is warm, what calls and clicks have to wait for."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as folder:
        chosen = {"GRADIO_SERVER_PORT": str(port), "DREAMTIME_RUNS": folder, "HF_HUB_OFFLINE": "1"}
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=HERE.parent,
            env=os.environ | chosen,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )
        try:
            while not answers(url):
                time.sleep(0.05)
            first_page = time.perf_counter() - started
            time.sleep(WARM_UP)
            client = Client(url, verbose=False)
            accepted, previewed = zip(*(called(client, seed) for seed in range(repeats)), strict=True)
            waits = {"a call is accepted": accepted, "it brings its first preview": previewed}
            if CHROMIUM:
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
                    waits["a click brings it to the page"] = tuple(clicked(browser, url) for _ in range(repeats))
                    browser.close()
        finally:
            process.terminate()
            process.wait(timeout=30)
    return first_page, waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    lines = [
        "# Speed",
        "",
        measured_on(),
        f'Cold command `python -m dreamtime text "a red cube" --preset P -o cube.glb`, median of {arguments.repeats}:',
        "",
        "| preset | steps | wall, s | CPU, s | peak memory, MB |",
        "|---|---|---|---|---|",
    ]
    for preset in ("draft", "standard"):
        walls, cpus, peaks = zip(*(cold_command(preset) for _ in range(arguments.repeats)), strict=True)
        steps = presets.preset(preset, "cpu", prompt="a red cube").steps
        lines.append(
            f"| {preset} | {steps} | {statistics.median(walls):.1f} | {statistics.median(cpus):.1f} | {max(peaks):.0f} |"
        )
    page, waits = app_seconds(arguments.repeats)
    lines += [
        "",
        f"First page {page:.1f} s after `python app.py`, one measurement. In the warm app (standard, medians of"
        f" {arguments.repeats}) {', '.join(f'{what} after {statistics.median(each):.2f} s' for what, each in waits.items())}.",
        "",
        "Milliseconds of one step:",
        "",
    ]
    breakdowns = {preset: step_breakdown(preset) for preset in ("draft", "standard")}
    parts = next(iter(breakdowns.values()))
    lines += ["| preset | " + " | ".join(parts) + " |", "|---" * (1 + len(parts)) + "|"]
    lines += [
        f"| {preset} | " + " | ".join(f"{ms:.1f}" for ms in parts.values()) + " |" for preset, parts in breakdowns.items()
    ]
    (HERE / "speed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
