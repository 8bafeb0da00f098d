"""DreamTime's app: `python app.py` serves the page, its API and its MCP server; what a Space runs."""

import os
import sys
import urllib.request

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
if (proxies := urllib.request.getproxies_environment()) and proxies.get("no") != "*":
    # Gradio asks its own page whether it is there, whatever proxy leads out of here.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, (proxies.get("no"), "127.0.0.1", "localhost")))
if port := os.environ.get("GRADIO_SERVER_PORT"):
    os.environ.setdefault("GRADIO_NUM_PORTS", "1")  # this one or none
    if not (port.isdecimal() and 0 < int(port) < 65536):
        sys.exit(f"dreamtime: GRADIO_SERVER_PORT must be a number from 1 to 65535, got {port!r}.")

import spaces  # noqa: F401 - before anything that could touch CUDA

from dreamtime.ui.app import launch

if __name__ == "__main__":
    launch()
