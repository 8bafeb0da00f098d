"""Pictures given by their address: fetched in bounded memory and time, from public hosts alone.

Gradio would read whatever an address sends to its end before anybody could look at it: what it bounds are uploads. The hosts
are checked as it does, by `safehttpx`, and then for what that lets through: no address of this machine or of the networks
around it is asked.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin, urlparse

import httpx
import safehttpx
from gradio.processing_utils import PUBLIC_HOSTNAME_WHITELIST
from gradio_client.utils import strip_invalid_filename_characters

from dreamtime.preprocess import BadPicture

MAX_BYTES = 10 * 2**20  # of a picture, however it comes
MAX_SECONDS = 30.0  # until its last byte
MAX_REDIRECTS = 5


def check_bytes(count: int) -> None:
    """Raise BadPicture on more bytes than a picture may have."""
    if count > MAX_BYTES:
        raise BadPicture(f"A picture may have at most {MAX_BYTES // 2**20} MB, and this one has more.")


def name_in(url: str) -> str:
    """What the file at an address is called."""
    name = Path(urlparse(url).path).name
    return "picture" if name in ("", "..") else strip_invalid_filename_characters(name)


async def public_address(host: str) -> str:
    """Where a host lies, if that is for everybody to ask; raises ValueError for any other host.

    Not so are the networks of carriers and clouds (100.64.0.0/10), where these keep what they know of their machines, those of
    a site, and addresses of IPv6 that stand for one of IPv4, which may be anywhere.
    """
    address = ipaddress.ip_address(await safehttpx.async_validate_url(host))
    hidden = isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address.sixtofour is not None)
    if hidden or not address.is_global:
        raise ValueError(f"The host {host} is not a public one.")
    return str(address)


class Verified(httpx.AsyncHTTPTransport):
    """Asks that one address, under the name and the port of the request; safehttpx's own leaves out the port, and Punycode."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions = {**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")}
        request.url = request.url.copy_with(host=self.address)
        return await super().handle_async_request(request)


@asynccontextmanager
async def answer_of(url: str) -> AsyncIterator[httpx.Response]:
    """The answer of a public host, its body not yet read; raises ValueError for any other host."""
    host = httpx.URL(url).raw_host.decode("ascii")  # as it is asked by: looked up by another spelling it may be another one
    if not host:
        raise ValueError("An address has a host.")
    trusted = safehttpx.matches_domain_whitelist(host, PUBLIC_HOSTNAME_WHITELIST)
    transport = None if trusted else Verified(await public_address(host))
    # What is compressed may be of any size when it is not: a picture has no need of it.
    headers = {"Accept-Encoding": "identity"}
    async with (
        httpx.AsyncClient(transport=transport, headers=headers, timeout=None) as client,
        client.stream("GET", url, follow_redirects=False) as answer,
    ):
        yield answer


async def body_of(answer: httpx.Response) -> bytes:
    """The bytes of an answer as they were sent, up to the bound; raises BadPicture beyond it, or when there is no picture."""
    if answer.status_code != 200:
        raise BadPicture(f"The picture's address answers with status {answer.status_code} and no picture.")
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk
        check_bytes(len(body))
    return bytes(body)


async def followed(url: str) -> bytes:
    """What lies at an address, or where it points to; every host on the way is checked."""
    for _ in range(1 + MAX_REDIRECTS):
        async with answer_of(url) as answer:
            if not answer.has_redirect_location:
                return await body_of(answer)
            url = urljoin(url, answer.headers["Location"])
    raise BadPicture(f"The picture's address points elsewhere more than {MAX_REDIRECTS} times.")


async def fetched(url: str) -> bytes:
    """The picture at an address; raises BadPicture with one clear sentence."""
    try:
        return await asyncio.wait_for(followed(url), MAX_SECONDS)
    except BadPicture:
        raise
    except asyncio.TimeoutError as error:  # in Python 3.10 it is not the built-in one
        raise BadPicture(f"The picture's address took more than {MAX_SECONDS:g} seconds.") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise BadPicture("The picture's address cannot be fetched: it must be that of a public host that answers.") from error
