"""A person for clients of PyPI: soft-webauthn's authenticator signs in, and every page is answered as a browser would."""

import base64
import html
import re
import urllib.parse

import requests
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.utils import sha256
from soft_webauthn import SoftWebauthnDevice

USER_VERIFIED = 0x04
FLAGS = 32
REDIRECTS = 10


def encoded(data):
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Verifying(SoftWebauthnDevice):
    """soft-webauthn's device never says that it verified its user; this one does."""

    def create(self, options, origin):
        made = super().create(options, origin)
        attestation = cbor.decode(made["response"]["attestationObject"])
        attestation["authData"] = flagged(attestation["authData"])
        made["response"]["attestationObject"] = cbor.encode(attestation)
        return made

    def get(self, options, origin):
        shown = super().get(options, origin)
        answer = shown["response"]
        answer["authenticatorData"] = flagged(answer["authenticatorData"])
        signed = answer["authenticatorData"] + sha256(answer["clientDataJSON"])
        answer["signature"] = self.private_key.sign(signed, ec.ECDSA(hashes.SHA256()))
        return shown


def flagged(data):
    return data[:FLAGS] + bytes([data[FLAGS] | USER_VERIFIED]) + data[FLAGS + 1 :]


class Person:
    """A browser's cookies and one authenticator."""

    def __init__(self, url, device=None):
        self.url = url
        self.device = device or Verifying()
        self.http = requests.Session()
        self.http.headers["accept-language"] = "en"

    def post(self, path, body):
        return self.http.post(f"{self.url}{path}", json=body, headers={"origin": self.url}, timeout=10)

    def ceremony(self, name, start, finish=None):
        """A passkey ceremony to its end; the answer of its end."""
        base = f"/api/v1/core/oauth/webauthn/{name}"
        begun = self.post(f"{base}/start", start)
        assert begun.status_code == 200, begun.text
        options = begun.json()["options"]
        key = options["publicKey"]
        key["challenge"] = decoded(key["challenge"])
        if name == "auth":
            shown = self.device.get(options, self.url)
        else:
            key["user"]["id"] = decoded(key["user"]["id"])
            key["attestation"] = "none"
            shown = self.device.create(options, self.url)
        response = {name: encoded(value) for name, value in shown["response"].items() if value is not None}
        credential = {
            "id": encoded(shown["rawId"]),
            "rawId": encoded(shown["rawId"]),
            "type": "public-key",
            "response": response,
        }
        body = {"challenge_id": begun.json()["challenge_id"], "credential": credential}
        return self.post(f"{base}/finish", {**body, **(finish or {})})

    def register(self, token, username):
        """Follows a set-up link whose token this is."""
        start = {"username": username, "email": f"{username}@example.com", "token": token}
        return self.ceremony("register", start, {"token": token})

    def second(self, page, password, csrf=None):
        """The second half of a sign-in, at the page that the first led to; the answer to it."""
        text = self.http.get(f"{self.url}{page}", timeout=10).text
        hidden = {name: html.unescape(value) for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', text)}
        form = {**hidden, **({"csrf": csrf} if csrf else {}), "password": password}
        return self.http.post(
            f"{self.url}/login", data=form, headers={"origin": self.url}, allow_redirects=False, timeout=10
        )

    def allow_device(self, address):
        """Opens the complete address that a device shows, and allows it."""
        page = self.http.get(address, timeout=10)
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
        assert page.status_code == 200 and hidden, f"{page.status_code} {page.text[:400]}"
        form = [(name, html.unescape(value)) for name, value in hidden] + [("decision", "allow")]
        form += [(name, "1") for name in re.findall(r'name="(scope_[^"]+)"', page.text)]
        done = self.http.post(
            f"{self.url}/device", data=form, headers={"origin": self.url}, allow_redirects=False, timeout=10
        )
        assert done.headers.get("location") == "/device?done=allowed", f"{done.status_code} {done.text[:400]}"

    def authorize(self, url):
        """Follows an authorization request, saying yes to everything; the address at the client."""
        for _ in range(REDIRECTS):
            if not url.startswith(self.url):
                return url
            answer = self.http.get(url, allow_redirects=False, timeout=10)
            if answer.status_code == 303:
                url = urllib.parse.urljoin(self.url, answer.headers["location"])
                continue
            waiting = re.search(r'data-ceremony="auth" data-request="([^"]+)"', answer.text)
            if waiting:
                done = self.ceremony("auth", {"request": waiting.group(1)})
                assert done.status_code == 200, done.text
                url = urllib.parse.urljoin(self.url, done.json()["redirect"])
                continue
            assert answer.status_code == 200 and 'name="decision"' in answer.text, f"{answer.status_code} {answer.text[:400]}"
            hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', answer.text)
            form = [(name, html.unescape(value)) for name, value in hidden]
            form += [(name, "1") for name in re.findall(r'name="(scope_[^"]+)"', answer.text)]
            form.append(("decision", "allow"))
            decided = self.http.post(
                f"{self.url}/api/v1/core/oauth/consent",
                data=form,
                headers={"origin": self.url},
                allow_redirects=False,
                timeout=10,
            )
            assert decided.status_code == 303, f"{decided.status_code} {decided.text[:400]}"
            url = urllib.parse.urljoin(self.url, decided.headers["location"])
        raise AssertionError("the request went round in circles")


def invited(url, admin_token, username, device=None):
    """Somebody new, who follows a link that an administrator made."""
    answer = requests.post(
        f"{url}/api/v1/admin/setup-link",
        json={"email": f"{username}@example.com", "roles": ["user"]},
        headers={"authorization": f"Bearer {admin_token}"},
        timeout=10,
    )
    assert answer.status_code == 201, answer.text
    person = Person(url, device)
    done = person.register(answer.json()["setup_url"].split("#token=")[1], username)
    assert done.status_code == 200, done.text
    return person
