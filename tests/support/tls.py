"""A server with the key of tests/golden/tls, without sockets: for tests of what clients set up."""

from __future__ import annotations

import ssl
from pathlib import Path

TLS = Path(__file__).parent.parent / "golden" / "tls"


def handshake(
    client: ssl.SSLContext, *, need_certificate: bool = True, name: str = "zk1.example.com"
) -> str:
    """Shake hands with a server that has the key of tests/golden/tls; returns the version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.pem")
    context.load_verify_locations(TLS / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED if need_certificate else ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            version = end.version()
            ends.remove(end)
    assert version is not None
    return version
