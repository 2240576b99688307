"""The PyPI `mcp` client's own OAuth against a protected tool server (A19): from the 401 by the resource's metadata to the
authorization server, registered there or named by its metadata document, to a tool's result."""

import http.server
import json
import pathlib
import ssl
import threading
import urllib.parse

import anyio
import httpx2
import requests
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from person import invited
from steps import Steps, setting

CALLBACK = "http://127.0.0.1:3030/callback"

given = setting()
url = given["url"]
resource = f"{url}/api/v1/mcp/demo/mcp"
step = Steps("identity (mcp)")


class Kept:
    """What the client keeps: tokens, and the client that it is."""

    def __init__(self):
        self.tokens = None
        self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class Documents(http.server.BaseHTTPRequestHandler):
    """One metadata document under https."""

    document = b""
    asked = 0

    def do_GET(self):
        type(self).asked += 1
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.document)))
        self.end_headers()
        self.wfile.write(self.document)

    def log_message(self, *_):
        pass


def documents():
    """A server of documents under the certificate that our server was told to trust; its address."""
    folder = pathlib.Path(given["certificates"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Documents)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://localhost:{server.server_port}"


def metadata():
    return OAuthClientMetadata(
        client_name="mcp client",
        redirect_uris=[CALLBACK],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        token_endpoint_auth_method="none",
        application_type="native",
    )


async def lookup(who, document=None):
    """A tool's result through a client that signs in by itself; with what it kept, and the requests that it made."""
    kept, made, answers = Kept(), [], []

    async def redirect(address):
        made.append(address)
        answers.append(await anyio.to_thread.run_sync(who.authorize, address))

    async def callback():
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(answers[-1]).query))
        assert answers[-1].startswith(CALLBACK), answers[-1]
        return AuthorizationCodeResult(code=query["code"], state=query["state"], iss=query["iss"])

    provider = OAuthClientProvider(
        server_url=resource,
        client_metadata=metadata(),
        storage=kept,
        redirect_handler=redirect,
        callback_handler=callback,
        client_metadata_url=document,
    )
    async with httpx2.AsyncClient(auth=provider, timeout=30) as client:
        async with Client(streamable_http_client(resource, http_client=client)) as session:
            result = await session.call_tool("crm_lookup", {"customer_id": "c-1001"})
    return result, kept, [dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(address).query)) for address in made]


def token_is_for_the_tools_alone(token):
    """The token opens what it was asked for, and no other door."""
    headers = {"authorization": f"Bearer {token}"}
    answer = requests.get(f"{url}/api/v1/core/users/me", headers=headers, timeout=10)
    assert answer.status_code == 401, f"{answer.status_code} at the API"


mia = invited(url, given["admin_token"], "mia")

with step("A19 without a token the tools say where tokens come from"):
    ask = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    accept = {"accept": "application/json, text/event-stream"}
    answer = requests.post(resource, json=ask, headers=accept, timeout=10)
    assert answer.status_code == 401, answer.status_code
    named = f"{url}/.well-known/oauth-protected-resource/api/v1/mcp/demo/mcp"
    assert f'resource_metadata="{named}"' in answer.headers["www-authenticate"], answer.headers
    document = requests.get(named, timeout=10).json()
    assert document["resource"] == resource and document["authorization_servers"] == [url], document

with step("A19 mcp: registers itself, signs somebody in, and calls a tool"):
    result, kept, made = anyio.run(lookup, mia)
    assert not result.is_error and "c-1001" in result.content[0].text, result
    assert kept.client.client_id.startswith("client_") and kept.tokens.refresh_token, kept.client.client_id
    assert made[0]["resource"] == resource, made
    token_is_for_the_tools_alone(kept.tokens.access_token)

with step("A19 mcp: is named by its metadata document, signs somebody in, and calls a tool"):
    home = documents()
    name = f"{home}/client.json"
    stated = json.loads(metadata().model_dump_json(exclude_none=True))
    Documents.document = json.dumps({**stated, "client_id": name}).encode()
    result, kept, made = anyio.run(lookup, mia, name)
    assert not result.is_error and "c-1001" in result.content[0].text, result
    assert made[0]["client_id"] == name and Documents.asked == 1, (made, Documents.asked)
    token_is_for_the_tools_alone(kept.tokens.access_token)

step.finish()
