"""PyPI `joserfc` verifies tokens of the server from its published keys."""

import importlib.metadata
import json
import urllib.request

from joserfc import jwt
from joserfc.jwk import KeySet
from steps import Steps, setting

given = setting()
step = Steps(f"joserfc {importlib.metadata.version('joserfc')} ({given['phase']})")


def published():
    with urllib.request.urlopen(given["url"] + "/.well-known/jwks.json", timeout=10) as answer:
        return json.load(answer)


with step("the published set holds public members alone"):
    for key in published()["keys"]:
        assert set(key) <= {"alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"}, set(key)
        assert key["use"] == "sig"

for token in given["tokens"]:
    with step(f"{token['name']} verifies"):
        keys = KeySet.import_key_set(published())
        read = jwt.decode(token["token"], keys, algorithms=[token["alg"]])
        assert read.header["typ"] == "at+jwt" and read.header["alg"] == token["alg"], read.header
        claims = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": given["issuer"]}, aud={"essential": True, "value": "api"}
        )
        claims.validate(read.claims)
    with step(f"{token['name']} counts at the server"):
        request = urllib.request.Request(given["url"] + "/v1/models", headers={"Authorization": f"Bearer {token['token']}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
    with step(f"{token['name']} with one bit changed does not verify"):
        head, body, signature = token["token"].split(".")
        flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
        try:
            jwt.decode(f"{head}.{body}.{flipped}", KeySet.import_key_set(published()), algorithms=[token["alg"]])
        except Exception as error:
            assert "signature" in type(error).__name__.lower(), error
        else:
            raise AssertionError("it verifies")

step.finish()
