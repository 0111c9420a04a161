"""A server of the library `websockets`: it gives messages back, and closes as it is told to."""

import asyncio

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def answer(socket):
    try:
        async for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                await socket.close(int(message[6:]), "as told")
            elif message == "code of the last close":
                await socket.send(str(answer.last_code))
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    answer.last_code = socket.close_code


answer.last_code = 0


async def main():
    async with serve(answer, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
