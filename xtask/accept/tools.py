"""The PyPI `mcp` client, old (1.x) or new (2.x), on the demo server's tools."""

import base64
import contextlib
import importlib.metadata
import json
import urllib.error
import urllib.parse
import urllib.request

import anyio
from steps import Steps, setting

given = setting()
version = importlib.metadata.version("mcp")
is_new = int(version.split(".")[0]) >= 2
step = Steps(f"mcp {version}")
URL = given["url"] + "/api/v1/mcp/demo/mcp"
TOOLS = {"crm_lookup", "echo_environment", "leak_secret", "slow_report", "delete_customer"}
seen = []


@contextlib.asynccontextmanager
async def connected(token, mode=None):
    """A session with the demo server. The new client probes for the newest protocol first and falls back."""
    headers = {"Authorization": f"Bearer {token}"}
    if is_new:
        import httpx2
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client

        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            async with Client(streamable_http_client(URL, http_client=http), **({"mode": mode} if mode else {})) as client:
                yield client
    else:
        import httpx
        from mcp import ClientSession
        from mcp.client.streamable_http import streamable_http_client

        async with httpx.AsyncClient(headers=headers, timeout=30) as http:
            async with streamable_http_client(URL, http_client=http) as (read, write, _):
                async with ClientSession(read, write) as session:
                    await session.initialize()
                    yield session


async def call(client, name, arguments=None):
    result = await client.call_tool(name, arguments or {})
    text = result.model_dump_json(by_alias=True)
    seen.append(text)
    is_error = result.is_error if is_new else result.isError
    return is_error, " ".join(part.text for part in result.content if part.type == "text"), json.loads(text)


def forms(value):
    raw = value.encode()
    found = {"plain": value, "hex": raw.hex(), "HEX": raw.hex().upper(), "percent": urllib.parse.quote(value, safe="")}
    found["every byte percent"] = "".join(f"%{byte:02X}" for byte in raw)
    for shift in range(3):
        # The part of the encoding that does not depend on what stands before and after the value.
        start, end = (0, 2, 3)[shift], None if (len(raw) + shift) % 3 == 0 else -1
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            text = encode(b"\0" * shift + raw).decode().rstrip("=")
            found[f"{name} {shift}"] = text[start:end]
    return {name: text for name, text in found.items() if len(text) >= 8}


def hidden_everywhere(text):
    for name, form in forms(given["canary"]).items():
        assert form not in text, f"the secret shows as {name}"


async def steps(client):
    with step("tools/list"):
        listed = await client.list_tools()
        names = {tool.name for tool in listed.tools}
        assert names >= TOOLS, names

    with step("crm_lookup uses the secret and answers"):
        is_error, text, _ = await call(client, "crm_lookup", {"customer_id": "c-1001"})
        assert not is_error and "c-1001" in text, text

    with step("echo_environment: what the child declared, and the value's name in its place"):
        is_error, text, _ = await call(client, "echo_environment")
        assert not is_error and "SYSTEMPROMPT_CUSTOM_SECRETS" in text and "[redacted:demo_crm_token]" in text, text
        for name in ("SYSTEMPROMPT_SECRET_", "ANTHROPIC_API_KEY", "JWT_SECRET", "DATABASE_URL", "CARGO", "USER="):
            assert name not in text, f"{name} in the child's environment: {text}"

    for encoding in ("plain", "base64", "hex", "url"):
        with step(f"leak_secret as {encoding} does not show it"):
            await call(client, "leak_secret", {"encoding": encoding})
            hidden_everywhere(seen[-1])

    with step("delete_customer is denied, with the policy and the decision"):
        is_error, text, whole = await call(client, "delete_customer", {"customer_id": "c-1001"})
        decision = whole["_meta"]["io.systemprompt/decision"]
        assert is_error and decision["policy"] == "tool_blocklist" and decision["id"], whole
        assert "tool_blocklist" in text or "blocked" in text or "denied" in text.lower(), text

    with step("a secret in arguments is refused"):
        token = "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
        is_error, text, whole = await call(client, "crm_lookup", {"customer_id": token})
        assert is_error and token not in json.dumps(whole), whole

    with step("an unknown tool is an error and not a crash"):
        with contextlib.suppress(Exception):
            is_error, _, whole = await call(client, "no_such_tool")
            assert is_error, whole
        is_error, text, _ = await call(client, "crm_lookup", {"customer_id": "c-1002"})
        assert not is_error, text

    if not is_new:
        with step("ping"):
            await client.send_ping()


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "accept", "version": "1"}},
}


def status_of(headers):
    accepted = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    request = urllib.request.Request(URL, method="POST", data=json.dumps(INITIALIZE).encode(), headers=accepted | headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


async def main():
    async with connected(given["user_token"]) as client:
        await steps(client)

    if is_new:
        with step("the handshake of older protocols, asked for by name"):
            async with connected(given["user_token"], mode="legacy") as client:
                is_error, text, _ = await call(client, "crm_lookup", {"customer_id": "c-1001"})
                assert not is_error and "c-1001" in text, text

    with step("an administrator is denied delete_customer too"):
        async with connected(given["admin_token"]) as client:
            is_error, _, whole = await call(client, "delete_customer", {"customer_id": "c-1001"})
            assert is_error and whole["_meta"]["io.systemprompt/decision"]["policy"] == "tool_blocklist", whole

    with step("ten calls at once"):
        async with connected(given["user_token"]) as client, anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(call, client, "crm_lookup", {"customer_id": "c-1001"})

    with step("without a credential: 401 with a challenge"):
        for headers in ({}, {"authorization": "Bearer wrong"}):
            status, answer = status_of(headers)
            challenge = answer.get("www-authenticate", "")
            assert status == 401 and challenge.startswith("Bearer"), (status, challenge)

    with step("the secret showed nowhere"):
        assert seen
        hidden_everywhere("\n".join(seen))


try:
    anyio.run(main)
except Exception as error:  # noqa: BLE001 - a session that breaks is a failed step
    with step("the session holds"):
        raise error
step.finish()
