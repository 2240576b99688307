"""Runs the examples of docs/identity.md from top to bottom in one shell, as they stand there. What the page asks a person to open
is opened; what it asks to be pasted is pasted."""

import functools
import http.server
import json
import os
import pathlib
import re
import ssl
import subprocess
import tempfile
import threading

from person import invited
from steps import Steps, setting

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
HEADING = re.compile(r"^#{2,3} (.*)$", re.M)

given = setting()
BINARIES = pathlib.Path(given["party"]).parent
step = Steps("identity (page)")
page = pathlib.Path(__file__).parents[2].joinpath("docs/identity.md").read_text(encoding="utf-8")


def examples():
    """Each with the heading that it stands under, to be run in turn."""
    for number, block in enumerate(BLOCK.finditer(page), 1):
        above = [heading for heading in HEADING.finditer(page) if heading.start() < block.start()]
        yield f"{number} {above[-1].group(1) if above else 'the beginning'}", block.group(1)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def serve(folder):
    """An https address that serves a folder."""
    certificates = pathlib.Path(given["certificates"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://localhost:{server.server_port}"


class Shell:
    """A shell that ends at the first command that fails."""

    def __init__(self, folder, reader):
        self.reader = reader
        receive, self.channel = os.pipe()
        script = f'while IFS= read -r -d "" -u {receive} BLOCK; do eval "$BLOCK"; echo @@; done'
        self.process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": f"{BINARIES}:{os.environ['PATH']}", "HOME_PAGE": serve(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[receive],
        )
        os.close(receive)

    def run(self, block):
        assert self.process.poll() is None, "an example before this one failed"
        os.write(self.channel, block.encode() + b"\0")
        said = []
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line == "@@":
                return said
            said.append(line)
            word, _, address = line.partition(" ")
            if word == "Open":
                self.process.stdin.write(f"{self.reader.authorize(address)}\n")
                self.process.stdin.flush()
            elif word == "Allow":
                self.reader.allow_device(address)
        raise AssertionError(f"ended with {self.process.wait()} after {' | '.join(said[-3:])[:600]}")


with tempfile.TemporaryDirectory() as folder:
    up = {
        "api_url": given["url"],
        "demo": {name: given[name] for name in ("client_id", "client_secret", "admin_token")},
    }
    pathlib.Path(folder, "up.json").write_text(json.dumps(up), encoding="utf-8")
    reader = invited(given["url"], given["admin_token"], "reader")
    shell = Shell(folder, reader)
    blocks = list(examples())
    for name, block in blocks:
        with step(name):
            shell.run(block)
    with step("every kind of client has its example"):
        text = "\n".join(block for _, block in blocks)
        for kind in (
            "grant_type=client_credentials",
            "client_assertion=",
            "grant_type=authorization_code",
            "grant_type=refresh_token",
            "device_authorization",
            "$HOME_PAGE/client.json",
            "subject_token=",
            "/introspect",
            "/revoke",
        ):
            assert kind in text, f"no example of {kind}"
    os.close(shell.channel)
    shell.process.stdin.close()
    shell.process.wait(timeout=10)

step.finish()
