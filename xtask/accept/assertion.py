"""Assertions on the internal socket, signed by PyPI `jwcrypto`, for the tools of npm's `server-everything`."""

import base64
import hashlib
import http.client
import importlib.metadata
import json
import socket
import time
import urllib.parse

from jwcrypto import jwk, jws
from steps import Steps, setting

given = setting()
step = Steps(f"server-everything, jwcrypto {importlib.metadata.version('jwcrypto')}")
with open(given["keys"], encoding="utf-8") as file:
    KEY = next(jwk.JWK(**key) for key in json.load(file)["keys"] if key["kid"] == given["kid"])
PATH = "/api/v1/mcp/everything/mcp"
LIST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}})
count = 0


class Internal(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(given["socket"])


def ask(connection, body, **more):
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    headers.update({name.replace("_", "-"): value for name, value in more.items()})
    connection.request("POST", PATH, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def inside(body, **more):
    return ask(Internal("localhost"), body, **more)


def assertion(body, **changes):
    global count
    count += 1
    now = int(time.time())
    bind = base64.urlsafe_b64encode(hashlib.sha256(body.encode()).digest()).rstrip(b"=").decode()
    claims = dict(
        given["claims"], aud="mcp:everything", jti=f"jti_accept_{count}", iat=now, exp=now + 30, bind=bind
    )
    claims.update(changes)
    token = jws.JWS(json.dumps(claims).encode())
    header = {"typ": "mcp-proxy+jwt", "alg": "EdDSA", "kid": given["kid"]}
    token.add_signature(KEY, alg=None, protected=json.dumps(header))
    return "Bearer " + token.serialize(compact=True)


with step("an assertion lists the child's tools"):
    first = assertion(LIST)
    status, body = inside(LIST, x_mcp_proxy_auth=first)
    assert status == 200 and '"echo"' in body, (status, body[:300])

with step("an assertion calls a tool of the child"):
    call = {"name": "echo", "arguments": {"message": "hello"}}
    text = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
    status, body = inside(text, x_mcp_proxy_auth=assertion(text))
    assert status == 200 and "hello" in body and '"isError":true' not in body, (status, body[:300])

old = int(time.time()) - 31
for name, shown, body in [
    ("replayed", first, LIST),
    ("for another server", assertion(LIST, aud="mcp:demo"), LIST),
    ("older than 30 seconds", assertion(LIST, iat=old, exp=old + 30), LIST),
    ("with another body", assertion(LIST), LIST.replace('"id": 1', '"id": 9')),
]:
    with step(f"an assertion {name} is 401"):
        status, answer = inside(body, x_mcp_proxy_auth=shown)
        assert status == 401, (status, answer[:300])

with step("a call without an assertion is 401"):
    assert inside(LIST)[0] == 401

with step("from outside a good assertion is as none"):
    server = urllib.parse.urlsplit(given["url"])
    outside = http.client.HTTPConnection(server.hostname, server.port, timeout=30)
    status, _ = ask(outside, LIST, x_mcp_proxy_auth=assertion(LIST))
    assert status == 401, status

step.finish()
