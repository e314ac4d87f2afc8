"""The client of `sallyport_client.py` over WebSocket, by the sans-I/O core of the library `websockets`.

Invariant: no frame leaves before the gateway has upgraded; each is one binary message.
"""

from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

import sallyport_client as sp

SUBPROTOCOL = "sallyport.1"


def frames(data):
    """The frames that lie one after the other in these bytes."""
    while data:
        length = int.from_bytes(data[:3], "little")
        yield data[:length]
        data = data[length:]


class WebSocketClient(sp.Client):
    """Speaks frames in binary messages."""

    def __init__(self, address, gateway_key, **options):
        host, port = address
        uri = parse_uri(f"ws://{host}:{port}/")
        # Compression is off: the gateway offers none, and asks for none.
        self.protocol = ClientProtocol(uri, subprotocols=[SUBPROTOCOL])
        self.protocol.send_request(self.protocol.connect())
        self.held = b""
        self.pongs = []
        super().__init__(address, gateway_key, **options)

    def to_socket(self, data):
        self.held += data
        if self.protocol.state is State.OPEN:
            for frame in frames(self.held):
                self.protocol.send_binary(frame)
            self.held = b""
        return b"".join(self.protocol.data_to_send())

    @property
    def close_code(self):
        """The code that the gateway closed with, or None."""
        return self.protocol.close_rcvd and self.protocol.close_rcvd.code

    def from_socket(self, data):
        self.protocol.receive_data(data)
        found = b""
        for event in self.protocol.events_received():
            if getattr(event, "opcode", None) is Opcode.BINARY:
                assert int.from_bytes(event.data[:3], "little") == len(event.data), "a frame a message"
                found += event.data
            elif getattr(event, "opcode", None) is Opcode.PONG:
                self.pongs.append(event.data)
        if self.protocol.handshake_exc is not None:
            raise self.protocol.handshake_exc
        if self.protocol.parser_exc is not None:
            raise self.protocol.parser_exc
        return found
