#!/usr/bin/env python3
"""The peers of an installed ktrix: an origin, and clients that count.

    peers.py origin PORT            answers every GET, and /count with the number of them
    peers.py get URL [FIELD]        prints the body, or the value of a field
    peers.py wait URL               until it answers with 200, at most 30 s
    peers.py load URL STOP          8 connections ask until the file STOP is there; prints the number of answers,
                                    and fails if one is missing or is not 200
"""

import http.client
import http.server
import os
import sys
import threading
import time
import urllib.parse


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0

    def do_GET(self):
        if self.path == "/count":
            body = str(Origin.count).encode()
            lifetime = "no-store"
        else:
            Origin.count += 1
            body = b"hello from the origin\n"
            lifetime = "max-age=3600"
        self.send_response(200)
        self.send_header("Cache-Control", lifetime)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def connection(url):
    parts = urllib.parse.urlsplit(url)
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=20), parts.path or "/"


def ask(client, path):
    client.request("GET", path)
    response = client.getresponse()
    return response, response.read()


def wait(url):
    until = time.monotonic() + 30
    while True:
        try:
            client, path = connection(url)
            response, _ = ask(client, path)
            if response.status == 200:
                return
            why = f"status {response.status}"
        except OSError as error:
            why = error
        if time.monotonic() > until:
            sys.exit(f"{url}: {why}")
        time.sleep(0.05)


class Load:
    def __init__(self, url, stop):
        self.url, self.stop = url, stop
        self.lock = threading.Lock()
        self.answers = 0
        self.faults = []

    def client(self):
        client, path = connection(self.url)
        while not os.path.exists(self.stop):
            try:
                response, body = self.once(client, path)
                ok = response.status == 200 and body
                fault = None if ok else f"status {response.status}"
                if response.getheader("Connection") == "close":
                    client.close()
            except (OSError, http.client.HTTPException) as error:
                fault = repr(error)
                client.close()
            with self.lock:
                if fault:
                    self.faults.append(fault)
                else:
                    self.answers += 1
            time.sleep(0.002)

    def once(self, client, path):
        """A server may close an idle connection: RFC 9112 section 9.3.1 has the client ask again."""
        fresh = client.sock is None
        try:
            return ask(client, path)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if fresh:
                raise
            client.close()
            return ask(client, path)

    def run(self):
        threads = [threading.Thread(target=self.client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(self.answers)
        if self.faults:
            sys.exit(f"{len(self.faults)} requests failed: {self.faults[:5]}")


def main():
    what, argument, *more = sys.argv[1:]
    if what == "origin":
        server = http.server.ThreadingHTTPServer(("127.0.0.1", int(argument)), Origin)
        server.serve_forever()
    elif what == "get":
        client, path = connection(argument)
        response, body = ask(client, path)
        print(response.getheader(more[0], "") if more else body.decode(), end="")
    elif what == "wait":
        wait(argument)
    else:
        Load(argument, more[0]).run()


main()
