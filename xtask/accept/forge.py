"""PyPI `jwcrypto` forges tokens with the server's own keys, and some without; each must be 401, for a reason of its own."""

import base64
import http.client
import importlib.metadata
import json
import re
import time
import urllib.parse

from jwcrypto import jwk, jws
from steps import Steps, setting

given = setting()
step = Steps(f"jwcrypto {importlib.metadata.version('jwcrypto')}")
server = urllib.parse.urlsplit(given["url"])
with open(given["keys"], encoding="utf-8") as file:
    KEYS = {key["kid"]: jwk.JWK(**key) for key in json.load(file)["keys"]}
KID = given["kid"]
PRIVATE = KEYS[KID]
causes = {}


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes):
    now = int(time.time())
    made = dict(given["claims"], iat=now, nbf=now, exp=now + 600, jti=f"jti_forged_{len(causes)}")
    made.update(changes)
    return made


def signed(payload, key=PRIVATE, **header):
    text = payload if isinstance(payload, str) else json.dumps(payload)
    protected = {"typ": "at+jwt", "alg": "RS256", "kid": KID, **header}
    token = jws.JWS(text.encode())
    token.allowed_algs = [protected["alg"]]
    token.add_signature(key, alg=None, protected=json.dumps(protected))
    return token.serialize(compact=True)


def ask(token):
    connection = http.client.HTTPConnection(server.hostname, server.port, timeout=10)
    connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    answer.read()
    return answer


def cause():
    time.sleep(0.05)
    with open(given["log"], encoding="utf-8", errors="replace") as log:
        lines = [line for line in log if "a credential was refused" in line]
    plain = re.sub(r"\x1b\[[0-9;]*m", "", lines[-1])
    return plain[plain.index("cause") :].split(" kid")[0].strip()


with step("a token as the server signs it counts"):
    assert ask(signed(claims())).status == 200

act = {"sub": "a"}
for _ in range(5):
    act = {"sub": "a", "act": act}
doubled = json.dumps(claims()).replace("{", '{"sub": "usr_somebody", ', 1)
pem = PRIVATE.export_to_pem()
body = b64(json.dumps(claims()).encode())
FORGED = {
    "none": f"{b64(json.dumps({'typ': 'at+jwt', 'alg': 'none', 'kid': KID}).encode())}.{body}.AAAA",
    "HS256 with the public key": signed(claims(), jwk.JWK(kty="oct", k=b64(pem)), alg="HS256"),
    "an ID token's typ": signed(claims(), typ="JWT"),
    "a key in the header": signed(claims(), jwk=PRIVATE.export_public(as_dict=True)),
    "an unknown kid": signed(claims(), kid="another"),
    "another key under this kid": signed(claims(), jwk.JWK.generate(kty="RSA", size=2048)),
    "another audience": signed(claims(aud=["bridge"])),
    "another issuer": signed(claims(iss="https://elsewhere.test")),
    "an actor chain of six": signed(claims(act=act)),
    "a claim twice": signed(doubled),
    "one that has expired": signed(claims(iat=5, nbf=5, exp=9)),
    "a scope beyond its type": signed(claims(scope="admin user")),
}
for name, token in FORGED.items():
    with step(f"{name} is 401"):
        answer = ask(token)
        assert answer.status == 401, answer.status
        assert 'error="invalid_token"' in (answer.headers["www-authenticate"] or ""), answer.headers
        causes[name] = cause()

with step(f"{len(FORGED)} forgeries have {len(FORGED)} causes"):
    assert len(set(causes.values())) == len(FORGED), causes

step.finish()
