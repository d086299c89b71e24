"""A REST server in a process of its own: pages of records made beforehand, each answered after a given latency.

    python server.py FOLDER LATENCY_MS

It prints its port. Parsing requests is as cheap as can be, for the machine's cores are the contenders'.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

EMPTY = b'{"data":[]}'


async def serve(folder: Path, latency: float) -> None:
    pages = {int(path.stem): path.read_bytes() for path in folder.glob("*.json")}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                page = int(parse_qs(urlsplit(head.split(" ", 2)[1]).query).get("page", ["1"])[0])
                await asyncio.sleep(latency)
                body = pages.get(page, EMPTY)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2]) / 1000))
