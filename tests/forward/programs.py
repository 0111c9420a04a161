"""Programs that are set to the forward proxy, with servers on this machine.

    programs.py KTRIX

Each program must do its work through the proxy and by it alone: the servers count the requests that come from
another address than that of the proxy. What can be cached is asked of the server once.
"""

import contextlib
import functools
import hashlib
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
import zipfile

N_RESOURCES = 50


class Server:
    """A server of the files of a folder, with TLS if a certificate is given."""

    def __init__(self, folder, certificate=None):
        seen = self.seen = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_request(self, code="-", size="-"):
                seen.append((self.path, self.headers.get("Via")))

            def log_message(self, *_):
                pass

        handler = functools.partial(Handler, directory=folder)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.port = self.server.server_address[1]

    def count(self, part):
        return sum(part in path for path, _ in self.seen)

    def passed_the_proxy(self):
        return bool(self.seen) and all(via for _, via in self.seen)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed ({done.returncode}): {done.stdout}{done.stderr}")
    return done.stdout


@contextlib.contextmanager
def ktrix(binary, folder, ports):
    port = free_port()
    with open(f"{folder}/ktrix.yaml", "w", encoding="ascii") as out:
        out.write(f"""
workers: 2
pid: off
listen: {{address: "127.0.0.1:{port}", mode: forward}}
forward: {{deny: off, ports: {ports}, connect-ports: {ports}}}
log: {{access: {folder}/access.log, error: {folder}/error.log}}
cache: {{path: {folder}/cache, rules: {{ttl-min: 1h}}}}
""")
    process = subprocess.Popen([binary, f"{folder}/ktrix.yaml"])
    try:
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            if process.poll() is not None:
                sys.exit("ktrix did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def of_curl(proxy, plain, secured, folder):
    for url in [f"http://127.0.0.1:{plain.port}/page/1.js", f"http://localhost:{plain.port}/page/1.js"]:
        assert run("curl", "-sSf", "-x", proxy, "--noproxy", "", url) == "loaded += 1\n"
    url = f"https://127.0.0.1:{secured.port}/page/1.js"
    text = run("curl", "-sSf", "-x", proxy, "--noproxy", "", "--cacert", f"{folder}/certificate.pem", url)
    assert text == "loaded += 1\n"
    assert secured.seen == [("/page/1.js", None)], "nothing in a tunnel is changed"


def of_git(proxy, plain, folder):
    bare, author = f"{folder}/files/site.git", ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    run("git", "init", "-q", f"{folder}/work")
    for n in range(3):
        with open(f"{folder}/work/{n}", "w", encoding="ascii") as out:
            out.write(str(n) * 1000)
    run("git", "-C", f"{folder}/work", "add", ".")
    run("git", "-C", f"{folder}/work", *author, "commit", "-qm", "begin")
    run("git", "clone", "-q", "--bare", f"{folder}/work", bare)
    run("git", "-C", bare, "update-server-info")
    environment = {**os.environ, "no_proxy": "", "NO_PROXY": ""}
    for n in range(2):
        url = f"http://127.0.0.1:{plain.port}/site.git"
        run("git", "-c", f"http.proxy={proxy}", "clone", "-q", url, f"{folder}/clone{n}", env=environment)
        assert sorted(os.listdir(f"{folder}/clone{n}")) == [".git", "0", "1", "2"]
    n_objects = len([path for path, _ in plain.seen if "/objects/" in path and "/info/" not in path])
    n_different = len({path for path, _ in plain.seen if "/objects/" in path and "/info/" not in path})
    assert n_objects == n_different, "the second clone is from the cache"


def of_pip(proxy, plain, folder):
    os.makedirs(f"{folder}/files/simple/sample")
    name = "sample-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/files/simple/sample/{name}", "w") as wheel:
        wheel.writestr("sample.py", "answer = 42\n")
        info = "sample-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    with open(f"{folder}/files/simple/sample/index.html", "w", encoding="ascii") as out:
        out.write(f'<!DOCTYPE html><a href="{name}">{name}</a>\n')
    run(sys.executable, "-m", "venv", f"{folder}/venv")
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    for n in range(2):
        run(f"{folder}/venv/bin/pip", "--isolated", "download", "--quiet", "--no-deps", "--no-cache-dir",
            "--disable-pip-version-check", "--proxy", proxy, "--trusted-host", "127.0.0.1",
            "--index-url", f"http://127.0.0.1:{plain.port}/simple", "--dest", f"{folder}/got{n}", "sample",
            env=environment)
        assert os.listdir(f"{folder}/got{n}") == [name]
    assert plain.count(name) == 1, "the second download is from the cache"


def of_apt(proxy, plain, folder):
    os.makedirs(f"{folder}/files/deb")
    text = "Package: sample\nVersion: 1\nArchitecture: all\nFilename: ./sample.deb\nSize: 0\n"
    with open(f"{folder}/files/deb/Packages", "w", encoding="ascii") as out:
        out.write(f"{text}SHA256: {hashlib.sha256(b'').hexdigest()}\nDescription: a sample\n\n")
    with open(f"{folder}/sources.list", "w", encoding="ascii") as out:
        out.write(f"deb [trusted=yes] http://127.0.0.1:{plain.port}/deb ./\n")
    state, cache = f"{folder}/apt/state", f"{folder}/apt/cache"
    os.makedirs(f"{state}/lists/partial")
    os.makedirs(f"{cache}/archives/partial")
    options = [f"Acquire::http::Proxy={proxy}", f"Dir::Etc::sourcelist={folder}/sources.list",
               "Dir::Etc::sourceparts=-", f"Dir::State={state}", f"Dir::Cache={cache}",
               f"Dir::State::status={os.devnull}", "APT::Sandbox::User=root", "APT::Update::Error-Mode=any"]
    options = [part for option in options for part in ("-o", option)]
    run("apt-get", *options, "update")
    assert "sample" in run("apt-cache", *options, "show", "sample")


def of_chromium(proxy, plain, folder):
    def visit(profile):
        dom = run("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                  "--disable-background-networking", "--disable-component-update", "--disable-sync",
                  f"--user-data-dir={folder}/{profile}", f"--proxy-server={proxy}",
                  "--proxy-bypass-list=<-loopback>", "--virtual-time-budget=20000", "--dump-dom",
                  f"http://127.0.0.1:{plain.port}/page/index.html")
        assert f"all {N_RESOURCES}" in dom, dom

    visit("first")
    before = plain.count("/page/")
    visit("second")
    assert plain.count("/page/") == before, "the second visit is from the cache"


def main():
    folder = tempfile.mkdtemp(prefix="ktrix-forward.")
    try:
        os.makedirs(f"{folder}/files/page")
        for n in range(N_RESOURCES):
            with open(f"{folder}/files/page/{n}.js", "w", encoding="ascii") as out:
                out.write("loaded += 1\n")
        with open(f"{folder}/files/page/index.html", "w", encoding="ascii") as out:
            scripts = "".join(f'<script src="{n}.js"></script>' for n in range(N_RESOURCES))
            out.write("<!DOCTYPE html><link rel=icon href=data:,><script>loaded = 0</script>" + scripts
                      + "<script>document.write('all ' + loaded)</script>\n")
        files = f"{folder}/certificate.pem", f"{folder}/key.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "30",
            "-out", files[0], "-keyout", files[1])
        plain, secured = Server(f"{folder}/files"), Server(f"{folder}/files", files)
        with ktrix(sys.argv[1], folder, [plain.port, secured.port]) as proxy:
            of_curl(proxy, plain, secured, folder)
            print("curl: well")
            programs = [of_git, of_pip, of_apt, of_chromium]
            for program in programs:
                name = program.__name__.removeprefix("of_").replace("apt", "apt-get").replace("pip", "python3")
                if shutil.which(name) is None:
                    sys.exit(f"{name} is missing")
                program(proxy, plain, folder)
                print(f"{program.__name__.removeprefix('of_')}: well")
        assert plain.passed_the_proxy(), [path for path, via in plain.seen if not via]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
