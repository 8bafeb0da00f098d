"""How much a request may carry: what a picture needs that comes inside its address, and not more.

Gradio bounds the files of an upload; any other body it reads to its end, and holds it whole, before anybody looks at it.
"""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreamtime.ui.fetching import MAX_BYTES

MOST = 4 * MAX_BYTES // 3 + 2**20
"""Bytes of a request: a picture written in base64, and what is said beside it."""


def declared(scope: Scope) -> int:
    """How long a request says that its body is; 0 where it does not say."""
    length = Headers(scope=scope).get("content-length", "")
    return int(length[:20]) if length.isdecimal() else 0


class BoundsBodies:
    """ASGI middleware: whoever sends more than `most` bytes in a request is told so, and the app that they have left."""

    def __init__(self, app: ASGIApp, most: int = MOST) -> None:
        self.app, self.most = app, most
        told = f"A request may have at most {most // 2**20} MB, and this one has more: a picture may have {MAX_BYTES // 2**20}."
        self.refusal = JSONResponse({"detail": told}, 413)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif declared(scope) > self.most:
            await self.refusal(scope, receive, send)
        else:
            await self.counting(scope, receive, send)

    async def counting(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The app's answer, as long as the body that comes stays within the bound."""
        left, begun = self.most, False

        async def counted() -> Message:
            nonlocal left
            message = await receive() if left >= 0 else {"type": "http.disconnect"}
            left -= len(message.get("body", b""))
            return message if left >= 0 else {"type": "http.disconnect"}

        async def answered(message: Message) -> None:
            nonlocal begun
            if left >= 0 or begun:  # else nobody is told what the app makes of a body without an end
                begun = True
                await send(message)

        try:
            await self.app(scope, counted, answered)
        except Exception:
            # What an app makes of a body that was cut off is no fault of its own, and 413 is the answer; all else is raised.
            if left >= 0 or begun:
                raise
        if left < 0 and not begun:
            await self.refusal(scope, receive, send)
