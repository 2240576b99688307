"""Stock OAuth and OpenID Connect clients against the authorization server: Authlib, idpyoidc, requests-oauthlib (cases A8 to A10),
the Rust crate openidconnect (A11); and passkeys: soft-webauthn (A16), webauthn's verifier over what a browser sent (A17)."""

import json
import logging
import os
import secrets
import subprocess
import time
import urllib.parse

import requests
import webauthn
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc6749.errors import MismatchingStateException
from idpyoidc.client.rp_handler import RPHandler
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError, InvalidGrantError
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session as RequestsSession
from soft_webauthn import SoftWebauthnDevice
from webauthn.helpers.exceptions import InvalidAuthenticationResponse, InvalidRegistrationResponse

from person import Person, decoded, invited
from steps import Steps, refused, setting

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

# It warns of each content type that it then reads all the same.
logging.getLogger("idpyoidc").setLevel(logging.ERROR)

CALLBACK = "https://app.example/cb"
GONE = '{"active":false}'

given = setting()
url = given["url"]
step = Steps("identity (PyPI)")
metadata = requests.get(f"{url}/.well-known/oauth-authorization-server", timeout=10).json()
authorization, token_endpoint = metadata["authorization_endpoint"], metadata["token_endpoint"]
admin = {"authorization": f"Bearer {given['admin_token']}"}


def client(**members):
    """A confidential client that an administrator makes."""
    answer = requests.post(f"{url}/api/v1/admin/clients", json=members, headers=admin, timeout=10)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    return made["client_id"], made["client_secret"]


def introspect(token, auth):
    return requests.post(metadata["introspection_endpoint"], data={"token": token}, auth=auth, timeout=10).text


with step("somebody follows an invitation and has a passkey"):
    paula = invited(url, given["admin_token"], "paula")
    me = paula.http.get(f"{url}/api/v1/core/users/me", timeout=10).json()
    assert (me["username"], me["roles"]) == ("paula", ["user"]), me

with step("clients are made by an administrator"):
    client_id, client_secret = client(
        client_name="nightly",
        grant_types=["client_credentials"],
        scope="service user",
        token_endpoint_auth_method="client_secret_basic",
    )
    web = {"redirect_uris": [CALLBACK], "grant_types": ["authorization_code", "refresh_token"]}
    scope = {"scope": "openid profile email offline_access user"}
    authlib = client(client_name="authlib", **web, **scope)
    renewing = client(client_name="requests-oauthlib", **web, **scope)

with step("A8 Authlib: code and PKCE, the issuer, and a state of another request"):
    session = OAuth2Session(*authlib, redirect_uri=CALLBACK, scope="openid email user", code_challenge_method="S256")
    verifier = secrets.token_urlsafe(48)
    address, state = session.create_authorization_url(authorization, code_verifier=verifier)
    back = paula.authorize(address)
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["iss"] == [url], back
    refused(
        MismatchingStateException,
        lambda: session.fetch_token(token_endpoint, authorization_response=back, code_verifier=verifier, state="other"),
    )
    token = session.fetch_token(token_endpoint, authorization_response=back, code_verifier=verifier, state=state)
    assert set(token["scope"].split()) == {"openid", "email", "user"} and token["expires_in"] == 3600, token
    info = session.get(metadata["userinfo_endpoint"]).json()
    assert info["email"] == "paula@example.com" and info["sub"], info
    renewed = session.refresh_token(token_endpoint, refresh_token=token["refresh_token"])
    assert renewed["refresh_token"] != token["refresh_token"], "not rotated"

for method in ("client_secret_basic", "client_secret_post"):
    with step(f"A8 Authlib: client credentials by {method}, introspection, revocation"):
        session = OAuth2Session(client_id, client_secret, token_endpoint_auth_method=method, scope="service")
        token = session.fetch_token(token_endpoint, grant_type="client_credentials")
        assert token["token_type"] == "Bearer" and token["scope"] == "service", token
        assert "refresh_token" not in token, token
        seen = session.introspect_token(metadata["introspection_endpoint"], token=token["access_token"]).json()
        assert seen["active"] is True and seen["client_id"] == client_id, seen
        session.revoke_token(metadata["revocation_endpoint"], token=token["access_token"])
        seen = session.introspect_token(metadata["introspection_endpoint"], token=token["access_token"])
        assert seen.text == GONE, seen.text

with step("A9 idpyoidc: registration, code and PKCE, userinfo, sign-out by the client"):
    service = "idpyoidc.client.oidc."
    services = {
        "discovery": {"class": f"{service}provider_info_discovery.ProviderInfoDiscovery"},
        "registration": {"class": f"{service}registration.Registration"},
        "authorization": {"class": f"{service}authorization.Authorization"},
        "accesstoken": {"class": f"{service}access_token.AccessToken"},
        "userinfo": {"class": f"{service}userinfo.UserInfo"},
        "end_session": {"class": f"{service}end_session.EndSession"},
    }
    pkce = {
        "function": "idpyoidc.client.oauth2.add_on.pkce.add_support",
        "kwargs": {"code_challenge_length": 64, "code_challenge_method": "S256"},
    }
    settings = {
        "issuer": url,
        "client_name": "idpyoidc",
        "client_type": "oidc",
        "redirect_uris": [CALLBACK],
        "preference": {"response_types_supported": ["code"]},
        "services": services,
        "add_ons": {"pkce": pkce},
    }
    # Without this it writes keys, which nothing here uses, into the folder that it runs in.
    keys = {"key_defs": [{"type": "EC", "crv": "P-256", "use": ["sig"]}]}
    handler = RPHandler(base_url="https://app.example", client_configs={"here": settings}, key_conf=keys)
    party = handler.init_client("here")
    issuer = party.do_provider_info()
    # It takes the scope that a registration answers with (RFC 7591 section 3.2.1) for one word, and knows none but this.
    party.do_client_registration(
        request_args={"scope": "openid", "post_logout_redirect_uris": ["https://app.example/bye"]}
    )
    handler.issuer2rp[issuer] = party
    back = paula.authorize(party.init_authorization())
    done = handler.finalize(issuer, dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back).query)))
    assert "error" not in done, done
    assert done["userinfo"]["sub"] == done["id_token"]["sub"] and done["id_token"]["nonce"], done
    leaving = handler.logout(done["state"])["url"]
    # The browser whose session it is has signed out at once; the next asks nobody either, and both go back to the client.
    answer = paula.http.get(leaving, allow_redirects=False, timeout=10)
    assert answer.status_code == 303, f"{answer.status_code} {answer.text[:300]}"
    assert answer.headers["location"].startswith("https://app.example/bye?state="), answer.headers
    me = paula.http.get(f"{url}/api/v1/core/users/me", timeout=10)
    assert me.status_code == 401, me.status_code

with step("whoever was signed out by a client signs in with the passkey again"):
    done = paula.ceremony("auth", {})
    assert done.status_code == 200, done.text

with step("A10 requests-oauthlib: PKCE, and one live refresh token after three renewals by itself"):
    kept = []
    extra = {"client_id": renewing[0], "client_secret": renewing[1]}
    session = RequestsSession(
        renewing[0],
        redirect_uri=CALLBACK,
        scope=["openid", "offline_access", "user"],
        pkce="S256",
        auto_refresh_url=token_endpoint,
        auto_refresh_kwargs=extra,
        token_updater=kept.append,
    )
    address, _ = session.authorization_url(authorization)
    kept.append(session.fetch_token(token_endpoint, authorization_response=paula.authorize(address), client_secret=renewing[1]))
    for _ in range(3):
        # The library renews what it takes for expired before it makes a request.
        session.token = {**kept[-1], "expires_in": -1, "expires_at": time.time() - 1}
        assert session.get(metadata["userinfo_endpoint"]).json()["sub"], "no userinfo"
    family = [token["refresh_token"] for token in kept]
    assert len(set(family)) == 4, "not rotated each time"
    live = [introspect(token, renewing) for token in family]
    assert [text == GONE for text in live] == [True, True, True, False], live

with step("A10 requests-oauthlib: what is used again ends the family"):
    refused(InvalidGrantError, lambda: session.refresh_token(token_endpoint, refresh_token=family[0], **extra))
    assert introspect(family[-1], renewing) == GONE, "the last one is still live"

with step("A11 openidconnect: nonce, max_age, prompt=login and at_hash"):
    words = [given["party"], url, *client(client_name="openidconnect", **web, **scope), CALLBACK]
    party = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    asked = party.stdout.readline().removeprefix("Open ").strip()
    # A sign-in is known by its second: one that comes in a later one than the request is later.
    time.sleep(1.1)
    rest, faults = party.communicate(paula.authorize(asked) if asked else "", timeout=60)
    assert party.returncode == 0 and "signed in paula@example.com" in rest, faults

with step("A10 requests-oauthlib: client credentials, and a wrong secret"):
    session = RequestsSession(client=BackendApplicationClient(client_id=client_id))
    token = session.fetch_token(token_endpoint, auth=HTTPBasicAuth(client_id, client_secret), scope=["user"])
    assert token["scope"] == ["user"], token
    wrong = HTTPBasicAuth(client_id, secrets.token_urlsafe(32))
    refused(
        InvalidClientError,
        lambda: RequestsSession(client=BackendApplicationClient(client_id=client_id)).fetch_token(
            token_endpoint, auth=wrong, scope=["user"]
        ),
    )

with step("a scope is needed, and only words that are known"):
    for word, error in ((None, "invalid_scope"), ("user owner", "invalid_scope"), ("hook:govern", "invalid_scope")):
        form = {"grant_type": "client_credentials"}
        if word:
            form["scope"] = word
        answer = requests.post(token_endpoint, data=form, auth=(client_id, client_secret), timeout=10)
        assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text
        assert answer.headers["cache-control"] == "no-store", answer.headers

# ---- Passkeys of other makers. ----

with step("A16 soft-webauthn: no passkey of a device that does not verify its user"):
    answer = requests.post(
        f"{url}/api/v1/admin/setup-link", json={"email": "soft@example.com", "roles": ["user"]}, headers=admin, timeout=10
    )
    token = answer.json()["setup_url"].split("#token=")[1]
    done = Person(url, SoftWebauthnDevice()).register(token, "soft")
    assert done.status_code == 400, f"{done.status_code} {done.text}"

lenient = given["lenient"]


def proof(person):
    """What an ID token says about how this person signed in: its acr and amr."""
    register = f"{lenient['url']}/api/v1/core/oauth/register"
    made = requests.post(register, json={"client_name": "proof", "redirect_uris": [CALLBACK]}, timeout=10).json()
    own = requests.get(f"{lenient['url']}/.well-known/openid-configuration", timeout=10).json()
    session = OAuth2Session(
        made["client_id"], made["client_secret"], redirect_uri=CALLBACK, scope="openid", code_challenge_method="S256"
    )
    verifier = secrets.token_urlsafe(48)
    address, _ = session.create_authorization_url(own["authorization_endpoint"], code_verifier=verifier)
    back = person.authorize(address)
    token = session.fetch_token(own["token_endpoint"], authorization_response=back, code_verifier=verifier)
    claims = json.loads(decoded(token["id_token"].split(".")[1]))
    return claims["acr"], claims["amr"]


with step("A16 soft-webauthn: where verification is preferred, a device without it registers, and proves nothing by itself"):
    soft = invited(lenient["url"], lenient["admin_token"], "soft", SoftWebauthnDevice())
    assert proof(soft) == ("0", ["hwk"]), proof(soft)
    password = secrets.token_urlsafe(24)
    answer = soft.http.put(
        f"{lenient['url']}/api/v1/core/users/me/password",
        json={"new": password},
        headers={"origin": lenient["url"]},
        timeout=10,
    )
    assert answer.status_code == 204, f"{answer.status_code} {answer.text}"

with step("A16 soft-webauthn: with a password it is half of a sign-in, and acr is pwd after both"):
    soft.http.cookies.clear()
    done = soft.ceremony("auth", {"email": "soft@example.com"})
    assert done.status_code == 200 and "access_token" not in soft.http.cookies, done.text
    half = done.json()["redirect"]
    assert soft.second(half, f"{password}x").status_code == 401, "another password"
    answer = soft.second(half, password)
    assert answer.status_code == 303, f"{answer.status_code} {answer.text[:300]}"
    assert proof(soft) == ("pwd", ["hwk", "pwd"]), proof(soft)
    assert soft.second(half, password, csrf="x").status_code == 403, "a step is taken once, from its own page"

with step("A17 webauthn: its verifier takes what the browser sent, and no other origin"):
    with open(given["ceremonies"], encoding="utf-8") as file:
        ceremonies = json.load(file)
    names = [ceremony["kind"] for ceremony in ceremonies]
    assert {"register", "auth"} <= set(names), names
    keys = {}
    for ceremony in ceremonies:
        common = {
            "credential": ceremony["credential"],
            "expected_challenge": decoded(ceremony["challenge"]),
            "expected_rp_id": "localhost",
            "require_user_verification": True,
        }
        known = ceremony["credential"]["id"]
        if ceremony["kind"] == "auth":
            check = webauthn.verify_authentication_response
            common |= {"credential_public_key": keys[known], "credential_current_sign_count": 0}
            fault = InvalidAuthenticationResponse
        else:
            check, fault = webauthn.verify_registration_response, InvalidRegistrationResponse
        verified = check(**common, expected_origin=url)
        if ceremony["kind"] != "auth":
            keys[known] = verified.credential_public_key
        refused(fault, lambda: check(**common, expected_origin=url.replace("localhost", "localhost.example")))

step.finish()
