"""Stock OAuth clients of PyPI against the authorization server: Authlib and requests-oauthlib (cases A8 and A10).

People are signed in by the browser's script; here clients act for themselves, look at tokens and end them."""

import secrets

import requests
from authlib.integrations.requests_client import OAuth2Session
from requests_oauthlib import OAuth2Session as RequestsSession
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError
from requests.auth import HTTPBasicAuth

from steps import Steps, refused, setting

import os

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

given = setting()
url = given["url"]
step = Steps("identity (PyPI)")
metadata = requests.get(f"{url}/.well-known/oauth-authorization-server", timeout=10).json()
admin = {"authorization": f"Bearer {given['admin_token']}"}


def client():
    """A confidential client that acts for itself."""
    body = {
        "client_name": "nightly",
        "grant_types": ["client_credentials"],
        "scope": "service user",
        "token_endpoint_auth_method": "client_secret_basic",
    }
    answer = requests.post(f"{url}/api/v1/admin/clients", json=body, headers=admin, timeout=10)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    return made["client_id"], made["client_secret"]


with step("a client is made by an administrator"):
    client_id, client_secret = client()

for method in ("client_secret_basic", "client_secret_post"):
    with step(f"A8 Authlib: client credentials by {method}, introspection, revocation"):
        session = OAuth2Session(client_id, client_secret, token_endpoint_auth_method=method, scope="service")
        token = session.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
        assert token["token_type"] == "Bearer" and token["scope"] == "service", token
        assert "refresh_token" not in token, token
        seen = session.introspect_token(metadata["introspection_endpoint"], token=token["access_token"]).json()
        assert seen["active"] is True and seen["client_id"] == client_id, seen
        session.revoke_token(metadata["revocation_endpoint"], token=token["access_token"])
        seen = session.introspect_token(metadata["introspection_endpoint"], token=token["access_token"])
        assert seen.text == '{"active":false}', seen.text

with step("A10 requests-oauthlib: client credentials, and a wrong secret"):
    session = RequestsSession(client=BackendApplicationClient(client_id=client_id))
    token = session.fetch_token(metadata["token_endpoint"], auth=HTTPBasicAuth(client_id, client_secret), scope=["user"])
    assert token["scope"] == ["user"], token
    wrong = HTTPBasicAuth(client_id, secrets.token_urlsafe(32))
    refused(
        InvalidClientError,
        lambda: RequestsSession(client=BackendApplicationClient(client_id=client_id)).fetch_token(
            metadata["token_endpoint"], auth=wrong, scope=["user"]
        ),
    )

with step("a scope is needed, and only words that are known"):
    for scope, error in ((None, "invalid_scope"), ("user owner", "invalid_scope"), ("hook:govern", "invalid_scope")):
        form = {"grant_type": "client_credentials"}
        if scope:
            form["scope"] = scope
        answer = requests.post(metadata["token_endpoint"], data=form, auth=(client_id, client_secret), timeout=10)
        assert (answer.status_code, answer.json()["error"]) == (400, error), answer.text
        assert answer.headers["cache-control"] == "no-store", answer.headers

step.finish()
