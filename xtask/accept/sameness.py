"""Whether strangers learn who is there (A25): the answers about a mail or a client that exists and one that does not have the same
shape. How long they took is told and not judged: a busy machine would decide."""

import base64
import collections
import secrets
import statistics
import time

import requests

from person import invited
from steps import Steps, setting

MAILS = 1000
CLIENTS = 10
# Below what ends further tries for one client, and all of them together for one address.
TRIES = 14

given = setting()
url = given["url"]
step = Steps("identity (sameness)")
http = requests.Session()


def shape(value):
    """What an answer looks like: names, and the kinds and lengths of what stands behind them."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return (type(value).__name__, len(value)) if isinstance(value, str) else type(value).__name__


def headers(answer):
    return sorted(name.lower() for name in answer.headers)


def compared(name, wanted, one, other, count):
    """Asks in turns, so that whatever else happens on this machine happens to both."""
    took = ([], [])
    seen = (collections.Counter(), collections.Counter())
    for number in range(count):
        for side, ask in enumerate((one, other)):
            begun = time.perf_counter()
            answer = ask(number)
            took[side].append(time.perf_counter() - begun)
            seen[side][answer.status_code, repr(shape(answer.json())), repr(headers(answer))] += 1
    assert seen[0] == seen[1] and set(status for status, _, _ in seen[0]) == {wanted}, seen
    one, other = (statistics.median(side) * 1000 for side in took)
    print(f"      {name}: medians {one:.3f} and {other:.3f} ms, {abs(one - other) / max(one, other):.1%} apart")


def start(mail):
    body = {"email": mail}
    return http.post(f"{url}/api/v1/core/oauth/webauthn/auth/start", json=body, headers={"origin": url}, timeout=10)


def introspect(client, secret):
    basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
    address = f"{url}/api/v1/core/oauth/introspect"
    return http.post(address, data={"token": "x"}, headers={"authorization": f"Basic {basic}"}, timeout=10)


invited(url, given["admin_token"], "known")

# A browser that has been here before: its first visit is given a cookie.
start("known@example.com")

with step("A25 a mail that nobody has is answered as one that somebody has"):
    compared(
        "a mail that somebody has, and one that nobody has",
        200,
        lambda _: start("known@example.com"),
        lambda number: start(f"nobo{number % 10}@example.com"),
        MAILS,
    )

with step("A25 a client that nobody knows is answered as one with another secret"):
    known = []
    for _ in range(CLIENTS):
        answer = http.post(
            f"{url}/api/v1/admin/clients",
            json={"client_name": "same", "grant_types": ["client_credentials"], "scope": "user"},
            headers={"authorization": f"Bearer {given['admin_token']}"},
            timeout=10,
        )
        known.append(answer.json()["client_id"])
    unknown = [f"client_{secrets.token_hex(16)}" for _ in range(CLIENTS)]
    wrong = f"sps_{secrets.token_urlsafe(32)}"
    compared(
        "a client with another secret, and one that nobody knows",
        401,
        lambda number: introspect(known[number % CLIENTS], wrong),
        lambda number: introspect(unknown[number % CLIENTS], wrong),
        CLIENTS * TRIES,
    )

step.finish()
