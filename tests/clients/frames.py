"""Speaks HTTP/2 to ktrix by the libraries of others.

    frames.py PORT PATH FILE

Python's h2 asks for PATH on many streams and compares each answer with FILE. Then hyperframe writes random
frames, as they are and damaged, on many connections: ktrix may answer and close as it likes, and must serve the
next client. The seed is printed, and a number behind FILE sets it.
"""

import random
import socket
import sys
import time

import h2.config
import h2.connection
import h2.events
import h2.settings
from hpack import Encoder
from hyperframe import frame

PORT, PATH, FILE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
SEED = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 32)
STREAMS = 100
CONNECTIONS = 300
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = [(":method", "GET"), (":scheme", "http"), (":authority", "localhost"), (":path", PATH)]


def connect():
    sock = socket.create_connection(("127.0.0.1", PORT), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(n_streams):
    """All answers of one connection must be the file."""
    with open(FILE, "rb") as file:
        expected = file.read()
    sock = connect()
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    bodies = {}
    for _ in range(n_streams):
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, FIELDS, end_stream=True)
        bodies[stream] = bytearray()
    sock.sendall(client.data_to_send())
    n_left = n_streams
    while n_left:
        data = sock.recv(65536)
        assert data, "ktrix closed the connection"
        for event in client.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                assert dict(event.headers)[b":status"] == b"200", event
            elif isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] += event.data
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                assert bytes(bodies.pop(event.stream_id)) == expected, event
                n_left -= 1
            else:
                bad = (h2.events.StreamReset, h2.events.ConnectionTerminated)
                assert not isinstance(event, bad), event
        sock.sendall(client.data_to_send())
    sock.close()


def some_frame(rng, encoder):
    stream = rng.choice([0, 1, 1, 3, 5, 2, rng.randrange(1 << 31)])
    kind = rng.randrange(11)
    if kind == 0:
        made = frame.DataFrame(stream or 1, rng.randbytes(rng.choice([0, 1, 100, 16384])))
    elif kind in (1, 2, 3):
        fields = list(FIELDS)
        if rng.random() < 0.5:
            rng.shuffle(fields)
        if rng.random() < 0.5:
            fields.append((rng.choice(["a", "A", "te", "connection", "", ":x", "cookie"]), "x" * rng.randrange(2000)))
        made = frame.HeadersFrame(stream or 1, encoder.encode(fields))
        made.flags.add("END_HEADERS") if rng.random() < 0.8 else None
        made.flags.add("END_STREAM") if rng.random() < 0.8 else None
    elif kind == 4:
        made = frame.PriorityFrame(stream or 1, depends_on=rng.choice([0, 1, stream]), stream_weight=3)
    elif kind == 5:
        made = frame.RstStreamFrame(stream or 1, rng.randrange(16))
    elif kind == 6:
        settings = {rng.randrange(1, 10): rng.choice([0, 1, 65535, (1 << 31) - 1, (1 << 32) - 1])}
        made = frame.SettingsFrame(0, settings)
    elif kind == 7:
        made = frame.PingFrame(0, rng.randbytes(8))
    elif kind == 8:
        made = frame.GoAwayFrame(0, rng.randrange(8), rng.randrange(16), rng.randbytes(rng.randrange(20)))
    elif kind == 9:
        made = frame.WindowUpdateFrame(stream, rng.choice([1, 65535, (1 << 31) - 1]))
    else:
        made = frame.ContinuationFrame(stream or 1, encoder.encode([("a", "b")]))
        made.flags.add("END_HEADERS") if rng.random() < 0.5 else None
    sent = bytearray(made.serialize())
    if rng.random() < 0.3:
        for _ in range(rng.randrange(1, 4)):
            sent[rng.randrange(len(sent))] = rng.randrange(256)
    return bytes(sent)


def disturb(seed):
    """Random frames; ktrix must end the connection, or go on, within the patience of the socket."""
    rng = random.Random(seed)
    encoder = Encoder()
    sock = connect()
    try:
        sock.sendall(PREFACE + frame.SettingsFrame(0).serialize())
        for _ in range(rng.randrange(1, 40)):
            sock.sendall(some_frame(rng, encoder))
        sock.shutdown(socket.SHUT_WR)
        until = time.monotonic() + 20
        while sock.recv(65536):
            assert time.monotonic() < until, f"the connection does not end, seed {seed}"
    except TimeoutError:
        raise SystemExit(f"the connection hangs, seed {seed}")
    except OSError:
        # ktrix has ended the connection.
        pass
    finally:
        sock.close()


ask(1)
ask(STREAMS)
for n in range(CONNECTIONS):
    disturb(SEED + n)
    if n % 50 == 49:
        ask(1)
print(f"{STREAMS} streams, {CONNECTIONS} connections of random frames (seed {SEED})")
