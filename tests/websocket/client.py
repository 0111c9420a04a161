"""A client of the library `websockets`, at each of the URLs."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

LARGE = 16 << 20


def opened(url):
    context = None
    if url.startswith("wss:"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return connect(url, ssl=context, max_size=None, proxy=None, open_timeout=60)


async def expect_echo(socket, message):
    await socket.send(message)
    assert await socket.recv() == message, f"{len(message)} bytes came back otherwise"


async def talk(url):
    async with opened(url) as socket:
        await expect_echo(socket, "hello")
        await expect_echo(socket, os.urandom(100_000))
        await expect_echo(socket, os.urandom(LARGE))
        await socket.send(["one ", "two ", "three"])
        assert await socket.recv() == "one two three"
        pong = await socket.ping("still there")
        await asyncio.wait_for(pong, 60)
        await socket.send("close 4002")
        try:
            await socket.recv()
            raise AssertionError("the server was to close")
        except ConnectionClosed as end:
            assert (end.rcvd.code, end.rcvd.reason) == (4002, "as told")
    async with opened(url) as socket:
        await socket.close(4001, "enough")
    async with opened(url) as socket:
        code = ""
        while code != "4001":
            await socket.send("code of the last close")
            code = await socket.recv()


async def main():
    for url in sys.argv[1:]:
        await talk(url)
        print(f"websockets: {url}")


if __name__ == "__main__":
    asyncio.run(main())
