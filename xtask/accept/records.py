"""A ledger of more than a thousand records: PyPI `rfc8785` makes the canonical form of each again."""

import hashlib
import http.client
import importlib.metadata
import json
import random
import subprocess
import urllib.parse

import rfc8785
from steps import Steps, setting

given = setting()
step = Steps(f"rfc8785 {importlib.metadata.version('rfc8785')}")
CALLS = 1000
#: What records of a busy ledger hold beside plain text: escapes, accents, other scripts, signs outside the basic plane.
NAMES = ["Bash", "Read", "Überweisung", "検索", "tool\u200bname", 'quo"te', "back\\slash", "emoji-😀", "e\u0301", "\u2028line"]


def fill():
    """Calls whose names and ids are as odd as callers make them; one in ten is refused."""
    random.seed(8785)
    address = urllib.parse.urlsplit(given["url"])
    server = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    for number in range(CALLS):
        name = random.choice(NAMES)
        call = {
            "hook_event_name": "PreToolUse",
            "session_id": f"s-{number % 7}",
            "tool_name": "mcp__crm__delete_customer" if number % 10 == 0 else f"{name}-{number}",
            "tool_input": {"n": number, "text": random.choice(NAMES) * (number % 5)},
            "tool_use_id": f"toolu_{number:06}",
        }
        headers = {"Authorization": f"Bearer {given['user_token']}", "Content-Type": "application/json"}
        server.request("POST", "/api/v1/hooks/govern?plugin_id=demo", json.dumps(call), headers)
        answer = server.getresponse()
        answer.read()
        assert answer.status == 200, answer.status


def export():
    command = [given["program"], "--data-dir", given["data_dir"], "audit", "export"]
    return subprocess.run(command, check=True, capture_output=True, timeout=120).stdout


with step(f"case 1: {CALLS} calls and more are canonical records, byte for byte, and hash as RFC 6962 leaves"):
    fill()
    records = 0
    for line in export().rstrip(b"\n").split(b"\n"):
        entry = json.loads(line)
        if "record" not in entry:
            continue
        # The bytes as they stand in the line, and not as this script would write them.
        text = line[len(b'{"record":') : line.rindex(b',"hash":"')].decode()
        assert rfc8785.dumps(json.loads(text)) == text.encode(), text
        assert hashlib.sha256(b"\x00" + text.encode()).hexdigest() == entry["hash"], text
        records += 1
    assert records >= CALLS, f"{records} records"
    print(f"      {records} records agree")

step.finish()
