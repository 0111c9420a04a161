"""Two WebSocket libraries, on both ends of ktrix, in the clear and with TLS; then a thousand tunnels over a
reload and the death of a worker.

    talk.py KTRIX
"""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from client import expect_echo, opened

HERE = Path(__file__).parent
N_TUNNELS = int(os.environ.get("KTRIX_TUNNELS", "1000"))

CONFIG = """
workers: 2
pid: {dir}/ktrix.pid
listen:
  - 127.0.0.1:{plain}
  - {{address: "127.0.0.1:{secured}", tls: {{certificates: {{certificate: {dir}/c.pem, key: {dir}/c.key}}}}}}
log: {{access: {{file: {dir}/access.log, format: json}}, error: {dir}/error.log}}
upstreams:
  python: {{servers: ["127.0.0.1:{python}"], connections: 2000}}
  node: {{servers: ["127.0.0.1:{node}"]}}
sites:
  - routes:
      - {{path: /python, headers: {{upgrade: websocket}}, upstream: python}}
      - {{path: /node, headers: {{upgrade: websocket}}, upstream: node}}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def server(*command):
    process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def workers(master):
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [int(pid) for pid in children if "worker" in Path(f"/proc/{pid}/comm").read_text()]


def wait(what, look):
    until = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < until, f"waited for {what}"
        time.sleep(0.02)
    return found


def listens(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


async def survive(url, master):
    before = wait("both workers", lambda: len(found := workers(master)) == 2 and found)
    sockets = await asyncio.gather(*(opened(url) for _ in range(N_TUNNELS)))
    echo = lambda text: asyncio.gather(*(expect_echo(one, text) for one in sockets))
    await echo("before")
    os.kill(master, signal.SIGHUP)
    new = wait("the new workers", lambda: len(found := set(workers(master)) - set(before)) == 2 and found)
    await echo("after a reload")
    os.kill(min(new), signal.SIGKILL)
    wait("another worker", lambda: min(new) not in workers(master))
    await echo("after the death of a worker")
    assert set(before) <= set(workers(master)), "the old workers have the tunnels"
    await asyncio.gather(*(one.close() for one in sockets))
    wait("the end of the old workers", lambda: not set(before) & set(workers(master)))
    print(f"{N_TUNNELS} tunnels outlived a reload and a worker")


def main(ktrix):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    processes = []
    with tempfile.TemporaryDirectory(prefix="ktrix-websocket.") as dir:
        try:
            python, python_port = server(sys.executable, "server.py")
            processes.append(python)
            node, node_port = server("node", "server.mjs")
            processes.append(node)
            request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            request += ["-keyout", f"{dir}/c.key", "-out", f"{dir}/c.pem", "-subj", "/CN=localhost"]
            request += ["-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
            subprocess.run(request, check=True, capture_output=True)
            plain, secured = free_port(), free_port()
            ports = {"plain": plain, "secured": secured, "python": python_port, "node": node_port}
            config = Path(dir, "ktrix.yaml")
            config.write_text(CONFIG.format(dir=dir, **ports))
            master = subprocess.Popen([ktrix, str(config)])
            processes.append(master)
            wait("ktrix to listen", lambda: listens(plain) and listens(secured))
            urls = [f"{scheme}://127.0.0.1:{port}/{name}" for name in ("python", "node")
                    for scheme, port in (("ws", plain), ("wss", secured))]
            subprocess.run([sys.executable, "client.py", *urls], cwd=HERE, check=True, timeout=300)
            subprocess.run(["node", "client.mjs", *urls], cwd=HERE, check=True, timeout=300)
            asyncio.run(survive(urls[0], master.pid))
            log = Path(dir, "access.log").read_text()
            assert log.count('"verdict":"tunnel"') >= 12, log
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(30)


if __name__ == "__main__":
    main(sys.argv[1])
