"""DreamTime's app: `python app.py` serves the page, its API and its MCP server; what a Space runs."""

import os

# Threads that wait must sleep: spinning ones slow each other down many times over once two runs share a processor.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import spaces  # noqa: F401 - before anything that could touch CUDA

from dreamtime.ui.app import launch

if __name__ == "__main__":
    launch()
