"""Pictures by address, fetched from a server on this machine that is taken for a public host."""

import asyncio
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import safehttpx
from gradio.route_utils import API_PREFIX
from stand_in import photograph

from dreamtime.preprocess import BadPicture
from dreamtime.ui import fetching
from dreamtime.ui.fetching import MAX_BYTES, fetched, name_in, public_address
from dreamtime.ui.pictures import picture_box


def handler_of(public: "Public") -> type[BaseHTTPRequestHandler]:
    """What answers for it, without a word on stderr."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            public.asked.append((self.headers["Host"], self.path))
            public.answer(self)

        def log_message(self, *words: Any) -> None:
            pass

    return Handler


class Public:
    """A server, what it has been asked for under which host, and how much of an endless answer was taken from it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.sent = 0
        self.url = ""
        self.files: dict[str, bytes] = {}

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0]
        if path.startswith("/to/"):
            handler.send_response(302)
            handler.send_header("Location", path.removeprefix("/to/"))
            handler.end_headers()
        elif path == "/around":
            handler.send_response(302)
            handler.send_header("Location", "/around")
            handler.end_headers()
        elif path == "/endless.png":
            handler.send_response(200)
            handler.end_headers()
            try:
                while self.sent < 10 * MAX_BYTES:
                    self.sent += handler.wfile.write(bytes(2**16))
            except OSError:
                pass
        else:
            body = self.files.get(path)
            handler.send_response(404 if body is None else 200)
            if path.endswith(".gz.png"):
                handler.send_header("Content-Encoding", "gzip")
            handler.end_headers()
            handler.wfile.write(body or b"")


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Public]:
    public = Public()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(public))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    public.url = f"http://pictures.example:{server.server_port}"

    async def validated(host: str) -> str:
        if not host.endswith(("pictures.example", "xn--mnchen-3ya.example")):
            raise ValueError(f"Hostname {host} failed validation")
        return "127.0.0.1"

    monkeypatch.setattr(fetching, "public_address", validated)
    yield public
    server.shutdown()
    server.server_close()


def test_a_picture_comes_as_it_was_sent(public: Public) -> None:
    public.files["/ball.png"] = bytes(range(256)) * 100
    assert asyncio.run(fetched(f"{public.url}/ball.png?size=2")) == public.files["/ball.png"]
    assert public.asked == [(public.url.removeprefix("http://"), "/ball.png?size=2")]


def test_a_host_is_asked_by_its_name_in_ascii_and_its_port(public: Public) -> None:
    public.files["/ball.png"] = b"a ball"
    port = public.url.rpartition(":")[2]
    asyncio.run(fetched(f"http://münchen.example:{port}/ball.png"))
    assert public.asked == [(f"xn--mnchen-3ya.example:{port}", "/ball.png")]


def test_a_picture_may_have_as_many_bytes_as_an_upload_and_not_one_more(public: Public) -> None:
    public.files |= {"/most.png": bytes(MAX_BYTES), "/more.png": bytes(MAX_BYTES + 1)}
    assert len(asyncio.run(fetched(f"{public.url}/most.png"))) == MAX_BYTES
    with pytest.raises(BadPicture, match="at most 10 MB"):
        asyncio.run(fetched(f"{public.url}/more.png"))


def test_what_has_no_end_is_left_at_the_bound(public: Public) -> None:
    with pytest.raises(BadPicture, match="at most 10 MB"):
        asyncio.run(fetched(f"{public.url}/endless.png"))
    assert public.sent < 3 * MAX_BYTES, "the buffers between the two hold something, too"


def test_what_is_compressed_stays_so(public: Public) -> None:
    public.files["/bomb.gz.png"] = gzip.compress(bytes(4 * MAX_BYTES))
    assert asyncio.run(fetched(f"{public.url}/bomb.gz.png")) == public.files["/bomb.gz.png"]


def test_who_is_too_slow_is_left(public: Public, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_SECONDS", 0.2)
    ended = threading.Event()
    monkeypatch.setattr(public, "answer", lambda handler: ended.wait(20))
    try:
        with pytest.raises(BadPicture, match=r"more than 0\.2 seconds"):
            asyncio.run(fetched(f"{public.url}/ball.png"))
    finally:
        ended.set()


def test_where_an_address_points_to_is_followed_by_name(public: Public) -> None:
    public.files["/ball.png"] = b"a ball"
    other = public.url.replace("pictures", "other.pictures")
    assert asyncio.run(fetched(f"{public.url}/to/{other}/to//ball.png")) == b"a ball"
    names = [host.partition(":")[0] for host, _ in public.asked]
    assert names == ["pictures.example", "other.pictures.example", "other.pictures.example"]


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/nothing.png", "answers with status 404"),
        ("/around", "points elsewhere more than 5 times"),
        ("/to/http://127.0.0.1:1/ball.png", "must be that of a public host"),
        ("/to/http://elsewhere.example/ball.png", "must be that of a public host"),
        ("/to/ftp://pictures.example/ball.png", "must be that of a public host"),
    ],
)
def test_what_leads_to_no_picture_is_one_sentence(public: Public, path: str, sentence: str) -> None:
    with pytest.raises(BadPicture, match=sentence):
        asyncio.run(fetched(public.url + path))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/ball.png",
        "http://localhost/",
        "http://",
        "http://[",
        "http://10.0.0.1/a.png",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
    ],
)
def test_no_address_of_this_network_is_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nowhere(host: str) -> list[str]:
        return []

    monkeypatch.setattr(safehttpx, "async_resolve_hostname_google", nowhere)
    with pytest.raises(BadPicture, match="must be that of a public host"):
        asyncio.run(fetched(url))


@pytest.mark.parametrize("host", ["100.100.100.200", "100.64.0.1", "2002:7f00:1::", "fec0::1"])
def test_what_only_seems_public_is_none(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def itself(host: str) -> str:
        return host

    monkeypatch.setattr(safehttpx, "async_validate_url", itself)
    with pytest.raises(ValueError, match="is not a public one"):
        asyncio.run(public_address(host))
    assert asyncio.run(public_address("8.8.8.8")) == "8.8.8.8"
    assert asyncio.run(public_address("2606:4700:4700::1111")) == "2606:4700:4700::1111"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://a.b/c/ball.png?d=e/f", "ball.png"),
        ("http://a.b", "picture"),
        ("http://a.b/c/", "c"),
        ("http://a.b/..", "picture"),
    ],
)
def test_the_file_is_called_as_its_address_ends(url: str, name: str) -> None:
    assert name_in(url) == name


def test_the_box_of_a_picture_fetches_and_keeps_it_among_the_uploads(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    public.files["/ball.png"] = photograph(tmp_path / "ball.png").read_bytes()
    public.files["/more.png"] = bytes(MAX_BYTES + 1)
    box = picture_box(visible=False)
    path = asyncio.run(box.async_move_resource_to_block_cache(f"{public.url}/ball.png"))
    assert Path(path).read_bytes() == public.files["/ball.png"]
    assert Path(path).is_relative_to(tmp_path / "uploads")
    assert box.temp_files == {path}, "so that it is swept away with them"
    for nowhere in ("http://[", "http://a]b/", f"http://127.0.0.1{API_PREFIX}/file={tmp_path / 'uploads'}/%00"):
        with pytest.raises(gr.Error, match="must be that of a public host"):
            asyncio.run(box.async_move_resource_to_block_cache(nowhere))
    with pytest.raises(gr.Error, match="at most 10 MB") as told:
        asyncio.run(box.async_move_resource_to_block_cache(f"{public.url}/more.png"))
    assert not told.value.print_exception
