"""What of a run's folder can be fetched: results and pictures, and neither settings nor checkpoint.

Gradio serves whole folders. A run's settings name the folders of this machine that its prior and its ingredients lie in.
"""

import os
import re
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FETCHED = re.compile(r"/file[=/](.+)", re.DOTALL)
"""How the address of a file ends, by Gradio's routes."""


def is_private(address: str, root: Path) -> bool:
    """Whether the path of a URL asks for something in the folder of all runs that is no result and no picture."""
    if not (asked := FETCHED.search(address)):
        return False
    try:
        path = Path(os.path.realpath(asked[1]))
        parts = path.relative_to(os.path.realpath(root)).parts
    except ValueError:  # it lies elsewhere, or is no path at all
        return False
    return not ((len(parts) == 3 and parts[1] == "results") or (len(parts) == 2 and path.suffix == ".png"))


class ServesResultsAlone:
    """ASGI middleware: nothing else of a run is there for anybody who asks by HTTP."""

    def __init__(self, app: ASGIApp, root: Path) -> None:
        self.app, self.root = app, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_private(scope["path"], self.root):
            await PlainTextResponse("Not found.", 404)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
