"""A port in front of a server that speaks TLS or is slow, or whose server says one thing and hangs up."""

from __future__ import annotations

import asyncio
import ssl
import threading


class Relay:
    """A port in front of a server, with TLS or late replies, or whose server says one thing and hangs up."""

    def __init__(
        self,
        target: int | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        delay_s: float = 0.0,
        says: bytes = b"",
    ) -> None:
        self._target, self._tls, self._delay_s, self._says = target, tls, delay_s, says
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        server = self._loop.run_until_complete(serving)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._target is None:
                await reader.read(10_000)
                writer.write(self._says)
                await writer.drain()
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer, self._delay_s))
        except OSError:
            pass
        finally:
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float = 0.0) -> None:
    while part := await reader.read(65_536):
        await asyncio.sleep(delay_s)
        writer.write(part)
        await writer.drain()
    writer.close()
