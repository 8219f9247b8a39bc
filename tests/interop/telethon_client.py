"""A client that we did not write: Telethon's own MTProxy connections through our proxy.

    telethon_client.py ADDR:PORT... -- SECRET...

Each of Telethon's three MTProxy connection classes connects to each address with each secret that it can
use, in both the plain and the media variant of a data centre. Every connection asks for a resPQ with
Telethon's own sender, checks that the answer carries the nonce of the question, and then has the test data
centre echo a packet of 20 kB (the command is described in tests/support/command.rs).

One line per connection on standard output; exit code 0 if all are good. All run at once, because Telethon
waits two seconds after each connect.
"""

import asyncio
import itertools
import logging
import os
import struct
import sys

from telethon.network import MTProtoPlainSender
from telethon.network.connection import (
    ConnectionTcpMTProxyAbridged,
    ConnectionTcpMTProxyIntermediate,
    ConnectionTcpMTProxyRandomizedIntermediate,
)
from telethon.tl.functions import ReqPqMultiRequest
from telethon.tl.types import ResPQ

CONNECTIONS = [
    ConnectionTcpMTProxyAbridged,
    ConnectionTcpMTProxyIntermediate,
    ConnectionTcpMTProxyRandomizedIntermediate,
]
DC_IDS = [2, -2]
TIMEOUT_SECONDS = 30
ECHO_BYTES = 20_000


class Loggers(dict):
    """Telethon asks for a logger by module name."""

    def __missing__(self, name):
        return logging.getLogger(name)


async def converse(connection_class, host, port, secret, dc_id):
    # Telethon wants the address of the data centre, too, and does not use it behind a proxy.
    connection = connection_class(
        "192.0.2.1", 443, dc_id, loggers=Loggers(), proxy=(host, port, secret)
    )
    await connection.connect(timeout=TIMEOUT_SECONDS)
    try:
        nonce = int.from_bytes(os.urandom(16), "big", signed=True)
        sender = MTProtoPlainSender(connection, loggers=Loggers())
        answer = await sender.send(ReqPqMultiRequest(nonce))
        if not isinstance(answer, ResPQ) or answer.nonce != nonce:
            raise ValueError(f"found {answer}; expected a resPQ with nonce {nonce}")

        payload = os.urandom(ECHO_BYTES)
        question = b"mtptests" + struct.pack("<IQ", 1, len(payload)) + payload
        await connection.send(question)
        echo = await connection.recv()
        # The padded transport may leave up to twelve bytes of padding on the packet.
        if echo[: len(question)] != question or len(echo) > len(question) + 12:
            raise ValueError(f"found another packet of {len(echo)} bytes; expected the echo")
    finally:
        await connection.disconnect()


async def attempt(connection_class, proxy, secret, dc_id):
    kind = "dd" if secret.startswith("dd") else "plain"
    name = f"{connection_class.__name__} {proxy} {kind} dc {dc_id}"
    host, _, port = proxy.rpartition(":")
    try:
        await asyncio.wait_for(
            converse(connection_class, host.strip("[]"), int(port), secret, dc_id), TIMEOUT_SECONDS
        )
    except Exception as error:  # whatever it is, it is this line's result
        print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"ok {name}", flush=True)
    return True


def can_use(connection_class, secret):
    return (
        not secret.startswith("dd")
        or connection_class is ConnectionTcpMTProxyRandomizedIntermediate
    )


async def main():
    separator = sys.argv.index("--")
    proxies, secrets = sys.argv[1:separator], sys.argv[separator + 1 :]
    cases = itertools.product(CONNECTIONS, proxies, secrets, DC_IDS)
    results = await asyncio.gather(
        *(
            attempt(connection_class, proxy, secret, dc_id)
            for connection_class, proxy, secret, dc_id in cases
            if can_use(connection_class, secret)
        )
    )
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
