"""What of a run's folder can be fetched: results and pictures, and neither settings nor checkpoint.

Gradio serves whole folders. A run's settings name the folders of this machine that its prior and its ingredients lie in.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FETCHED = re.compile(r"/gradio_api/file[=/](.+)", re.DOTALL)
"""How the address of a file ends, by Gradio's routes."""

RUN_ID = re.compile(r"[0-9a-f]{32}")


def is_private(address: str, root: Path, public: Sequence[Path] = ()) -> bool:
    """Whether the path of a URL asks for something in the folder of all runs that is no result and no picture of a run.

    The folders that are `public` may lie in it, too.
    """
    if not (asked := FETCHED.search(address)):
        return False
    try:
        path = Path(os.path.realpath(os.path.abspath(asked[1])))  # as Gradio does: ".." by name, then links
    except ValueError:  # no path at all
        return False
    within, *others = (Path(os.path.realpath(folder)) for folder in (root, *public))
    if not path.is_relative_to(within) or any(map(path.is_relative_to, others)):
        return False
    run_id, *inside = path.relative_to(within).parts or ("",)
    served = (len(inside) == 2 and inside[0] == "results") or (len(inside) == 1 and path.suffix == ".png")
    return not (served and RUN_ID.fullmatch(run_id))


class ServesResultsAlone:
    """ASGI middleware: nothing else of a run is there for anybody who asks by HTTP."""

    def __init__(self, app: ASGIApp, root: Path, public: Sequence[Path]) -> None:
        self.app, self.root, self.public = app, root, public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_private(scope["path"], self.root, self.public):
            await PlainTextResponse("Not found.", 404)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
