"""How long other clients wait during a flood of handshakes.

    flood.py KTRIX

A client asks for a stored kilobyte again and again, over a plain connection that it keeps, while 2,000 others begin
a handshake and stop, and while 2,000 others shake hands in full with an RSA key of 2,048 bits. It prints the times
of the answers for ktrix, and for nginx and HAProxy where they are installed: one worker each, on CPU 0, with the
clients on the last CPU. ktrix has room for all of them at once (`limits.handshakes`): its default would end half.
KTRIX should be a release build, on a quiet machine.
"""

import http.server
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

FLOOD = 2_000
BODY = b"x" * 1024
CPUS = sorted(os.sched_getaffinity(0))


def free_ports(n):
    sockets = [socket.socket() for _ in range(n)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    return [sock.getsockname()[1] for sock in sockets]


def origin():
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.send_header("Cache-Control", "max-age=600")
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def peers(folder, ktrix, origin_port):
    """The name of each, its command, and its ports without and with TLS."""
    files = f"{folder}/certificate.pem", f"{folder}/key.pem"
    clear, secured = free_ports(2)
    write(f"{folder}/ktrix.yaml", f"""
workers: 1
pid: off
listen:
  - 127.0.0.1:{clear}
  - {{address: "127.0.0.1:{secured}", tls: {{certificates: {{certificate: {files[0]}, key: {files[1]}}}}}}}
limits: {{handshakes: 4096}}
log: {{access: off, error: {folder}/ktrix.log}}
cache: {folder}/cache
upstream: 127.0.0.1:{origin_port}
""")
    yield "ktrix", [ktrix, f"{folder}/ktrix.yaml"], clear, secured
    if shutil.which("nginx"):
        clear, secured = free_ports(2)
        os.mkdir(f"{folder}/nginx")
        write(f"{folder}/nginx/x", BODY.decode())
        write(f"{folder}/nginx.conf", f"""
daemon off; worker_processes 1; user root; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
worker_rlimit_nofile 20000;
events {{ worker_connections 10000; }}
http {{
    access_log off; keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{clear} backlog=4096; listen 127.0.0.1:{secured} ssl backlog=4096;
        ssl_certificate {files[0]}; ssl_certificate_key {files[1]}; root {folder}/nginx;
    }}
}}
""")
        yield "nginx", ["nginx", "-c", f"{folder}/nginx.conf"], clear, secured
    if shutil.which("haproxy"):
        clear, secured = free_ports(2)
        write(f"{folder}/x", BODY.decode())
        write(f"{folder}/both.pem", "".join(open(name).read() for name in files))
        write(f"{folder}/haproxy.cfg", f"""
global
    nbthread 1
    maxconn 5000
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend f
    bind 127.0.0.1:{clear} backlog 4096
    bind 127.0.0.1:{secured} ssl crt {folder}/both.pem backlog 4096
    http-request return status 200 content-type text/plain file {folder}/x
""")
        yield "haproxy", ["haproxy", "-db", "-f", f"{folder}/haproxy.cfg"], clear, secured


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


class Asking:
    """Asks in a thread until it is told to stop, and keeps the times of the answers."""

    def __init__(self, port):
        self.times = []
        self.is_over = False
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask()
        self.times.clear()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def ask(self):
        began = time.perf_counter()
        self.sock.sendall(b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got = b""
        while b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < len(BODY):
            got += self.sock.recv(65536)
        self.times.append(time.perf_counter() - began)

    def run(self):
        while not self.is_over:
            self.ask()
            time.sleep(0.001)

    def end(self):
        self.is_over = True
        self.thread.join()
        times = sorted(self.times)
        at = lambda share: times[min(len(times) - 1, int(share * len(times)))] * 1e3
        return f"p50 {at(.5):6.2f} ms, p99 {at(.99):7.2f} ms, longest {times[-1] * 1e3:7.2f} ms, {len(times)} requests"


def hello():
    context = ssl.create_default_context()
    sent = ssl.MemoryBIO()
    begun = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    try:
        begun.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return sent.read()


def begin_and_stop(port):
    first = hello()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(FLOOD)]
    for sock in sockets:
        sock.sendall(first)
    # All have been answered.
    for sock in sockets:
        sock.settimeout(60)
        try:
            sock.recv(1)
        except ConnectionResetError:
            pass
    return sockets


def shake_hands(port):
    words = ["nice", "-n", "19", "h2load", "--h1", "-n", str(FLOOD), "-c", str(FLOOD), f"https://localhost:{port}/x"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return next((line for line in said.splitlines() if line.startswith("requests:")), said)


def measure(name, command, clear, secured):
    server = subprocess.Popen(
        command, preexec_fn=lambda: os.sched_setaffinity(0, CPUS[:1]),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", clear)).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < until, f"{name} does not listen"
                time.sleep(0.05)
        for what, flood in [
            ("no flood", lambda: time.sleep(2)),
            ("half handshakes", lambda: begin_and_stop(secured)),
            ("full handshakes", lambda: shake_hands(secured)),
        ]:
            asking = Asking(clear)
            try:
                done = flood()
            finally:
                said = asking.end()
            note = f"; {done}" if isinstance(done, str) and " 0 failed" not in done else ""
            print(f"{name:8} {what:16} {said}{note}", flush=True)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def main():
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (min(20_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    os.sched_setaffinity(0, CPUS[-1:])
    folder = tempfile.mkdtemp(prefix="ktrix-flood.")
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=localhost",
             "-keyout", f"{folder}/key.pem", "-out", f"{folder}/certificate.pem"],
            check=True, capture_output=True,
        )
        for peer in peers(folder, os.path.abspath(sys.argv[1]), origin()):
            measure(*peer)
    finally:
        shutil.rmtree(folder)


main()
