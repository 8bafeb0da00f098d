"""How much a request may carry, and that nothing else about it changes."""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from serving import Served
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreamtime.ui.bodies import MOST, BoundsBodies
from dreamtime.ui.fetching import MAX_BYTES

BOUND = 100
SENTENCE = "A request may have at most 14 MB, and this one has more: a picture may have 10."


class Sender:
    """Somebody who sends a body in pieces, and what they are told."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.taken, self.told = pieces, 0, list[Message]()

    async def receive(self) -> Message:
        if self.taken == len(self.pieces):
            await asyncio.Event().wait()  # for the answer
        self.taken += 1
        return {"type": "http.request", "body": self.pieces[self.taken - 1], "more_body": self.taken < len(self.pieces)}

    async def send(self, message: Message) -> None:
        self.told.append(message)

    @property
    def answer(self) -> tuple[int, bytes]:
        """Status and body, which came once and to its end."""
        start, *rest = self.told
        assert [message["type"] for message in self.told] == ["http.response.start", *["http.response.body"] * len(rest)]
        assert not rest[-1].get("more_body", False)
        return start["status"], b"".join(message["body"] for message in rest)


def asked(app: ASGIApp, sender: Sender, most: int = BOUND, **headers: str) -> Sender:
    """After such a request."""
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope: Scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": named}
    asyncio.run(BoundsBodies(app, most)(scope, sender.receive, sender.send))
    return sender


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


async def careless(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that has an answer whatever becomes of the body."""
    try:
        await echo(scope, receive, send)
    except Exception:
        await PlainTextResponse("There was an error parsing the body", 400)(scope, receive, send)


async def unasked(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("It was to hear nothing of this.")


def refused(sender: Sender) -> bool:
    status, body = sender.answer
    return (status, json.loads(body)) == (413, {"detail": SENTENCE.replace("14", "0")})


def test_what_says_that_it_is_too_long_is_refused_unread() -> None:
    for length in (str(BOUND + 1), "9" * 5000):
        sender = asked(unasked, Sender(bytes(BOUND + 1)), **{"content-length": length})
        assert refused(sender)
        assert sender.taken == 0


@pytest.mark.parametrize("app", [echo, careless])
@pytest.mark.parametrize("headers", [{}, {"content-length": "5"}, {"content-length": "many"}], ids=str)
def test_what_does_not_say_so_is_read_up_to_the_bound(app: ASGIApp, headers: dict[str, str]) -> None:
    sender = asked(app, Sender(*[bytes(30)] * 1000), **headers)
    assert refused(sender)
    assert sender.taken == 4, "the first piece that is too much is the last one that is taken"


@pytest.mark.parametrize("pieces", [[bytes(BOUND)], [b"a" * 60, b"b" * 40], [b""]], ids=len)
def test_what_fits_arrives_as_it_was_sent(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    assert asked(echo, Sender(*pieces), **{"content-length": str(len(body))}).answer == (200, body)


def test_answers_go_out_as_they_come() -> None:
    sender, seen = Sender(b"go"), list[int]()

    def counting() -> Iterator[str]:
        for _ in range(3):
            seen.append(len(sender.told))
            yield "word"

    asked(StreamingResponse(counting()), sender)
    assert sender.answer == (200, b"word" * 3)
    assert seen == [1, 2, 3], "the start and every word before the next one was made"


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] == "http.request":
            await send({"type": "http.response.body", "body": b".", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    assert asked(hasty, Sender(*[bytes(30)] * 1000)).answer == (200, b"...")


def test_a_mistake_of_the_apps_own_is_no_matter_of_size() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asked(broken, Sender(b"short"))


@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
def test_other_conversations_are_left_alone(kind: str) -> None:
    heard = list[Any]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        heard.extend([scope, receive, send])

    sender = Sender(bytes(BOUND + 1))
    scope: Scope = {"type": kind, "headers": [(b"content-length", b"1000")]}
    whole: list[Any] = [scope, sender.receive, sender.send]
    asyncio.run(BoundsBodies(app, BOUND)(*whole))
    assert heard == whole


def in_pieces(body: bytes) -> Iterator[bytes]:
    """Sent so, a body does not say how long it is."""
    for start in range(0, len(body), 2**16):
        yield body[start : start + 2**16]


@pytest.mark.parametrize("sent", [bytes, in_pieces], ids=["declared", "in pieces"])
def test_a_server_takes_a_picture_inside_its_address_and_no_more(app: Served, sent: Callable[[bytes], Any]) -> None:
    """As large as it may be, in base64; whether it is a picture is another matter."""
    inside = f"data:image/png;base64,{base64.b64encode(bytes(MAX_BYTES)).decode()}"
    body = json.dumps({"data": [{"url": inside, "meta": {"_type": "gradio.FileData"}}, None, "auto"]}).encode()
    assert len(body) < MOST
    asking: dict[str, Any] = {"headers": {"Content-Type": "application/json"}, "trust_env": False, "timeout": 60}
    place = f"{app.url}gradio_api/call/preprocess"
    assert "event_id" in httpx.post(place, content=sent(body), **asking).json()
    refusal = httpx.post(place, content=sent(body.ljust(MOST + 1)), **asking)
    assert (refusal.status_code, refusal.json()) == (413, {"detail": SENTENCE})
