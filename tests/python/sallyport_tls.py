"""The clients of `sallyport_client.py` and `sallyport_websocket.py` within TLS, by Python's `ssl`.

Invariant: no byte of theirs leaves outside of TLS.
"""

import ssl

import sallyport_client as sp
from sallyport_websocket import WebSocketClient

SERVER_NAME = "gateway.test"


class Tls:
    """To be derived from before the client whose bytes it carries."""

    def __init__(self, address, gateway_key, *, authority, version, **options):
        context = ssl.create_default_context(cafile=authority)
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=SERVER_NAME)
        self.is_secure = self.told_end = False
        self.plain = b""
        super().__init__(address, gateway_key, **options)

    def handshake(self):
        if not self.is_secure:
            try:
                self.tls.do_handshake()
                self.is_secure = True
            except ssl.SSLWantReadError:
                pass
        return self.is_secure

    def to_socket(self, data):
        self.plain += super().to_socket(data)
        # A call takes no more than one record.
        while self.handshake() and self.plain:
            self.plain = self.plain[self.tls.write(self.plain):]
        return self.outgoing.read()

    def from_socket(self, data):
        self.incoming.write(data)
        found = b""
        if self.handshake():
            try:
                while piece := self.tls.read(65_536):
                    found += piece
                self.told_end = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self.told_end = True
        return super().from_socket(found)


class TlsClient(Tls, sp.Client):
    """Frames within TLS."""


class TlsWebSocketClient(Tls, WebSocketClient):
    """WebSocket within TLS, as of a page on https."""
