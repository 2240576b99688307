"use strict";
// What the pages need a program for: the passkey ceremonies. Everything else works without.
(() => {
  const BASE = "/api/v1/core/oauth/webauthn/";
  const bytes = (text) => {
    const plain = atob(text.replace(/-/g, "+").replace(/_/g, "/"));
    return Uint8Array.from(plain, (c) => c.charCodeAt(0)).buffer;
  };
  const text = (buffer) => {
    let plain = "";
    for (const byte of new Uint8Array(buffer)) plain += String.fromCharCode(byte);
    return btoa(plain).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  };
  const named = (list) => (list || []).map((entry) => ({ ...entry, id: bytes(entry.id) }));

  const token = new URLSearchParams(location.hash.slice(1)).get("token") || undefined;
  // The address bar, the history and whoever looks over the shoulder need it no longer.
  if (token) history.replaceState(null, "", location.pathname + location.search);

  const post = async (path, body) => {
    const answer = await fetch(BASE + path, {
      method: "POST",
      credentials: "same-origin",
      headers: { "content-type": "application/json", accept: "application/json" },
      body: JSON.stringify(body),
    });
    const read = await answer.json().catch(() => ({}));
    if (!answer.ok) throw Object.assign(new Error(read.error || "server_error"), { status: answer.status });
    return read;
  };

  const create = async (options) => {
    const key = options.publicKey;
    key.challenge = bytes(key.challenge);
    key.user.id = bytes(key.user.id);
    key.excludeCredentials = named(key.excludeCredentials);
    const made = await navigator.credentials.create({ publicKey: key });
    const { response } = made;
    return {
      id: made.id,
      rawId: text(made.rawId),
      type: made.type,
      response: {
        attestationObject: text(response.attestationObject),
        clientDataJSON: text(response.clientDataJSON),
        transports: response.getTransports ? response.getTransports() : [],
      },
      clientExtensionResults: {},
    };
  };

  const get = async (options, extra) => {
    const key = options.publicKey;
    key.challenge = bytes(key.challenge);
    key.allowCredentials = named(key.allowCredentials);
    const shown = await navigator.credentials.get({ publicKey: key, ...extra });
    const { response } = shown;
    return {
      id: shown.id,
      rawId: text(shown.rawId),
      type: shown.type,
      response: {
        authenticatorData: text(response.authenticatorData),
        clientDataJSON: text(response.clientDataJSON),
        signature: text(response.signature),
        userHandle: response.userHandle ? text(response.userHandle) : null,
      },
      clientExtensionResults: {},
    };
  };

  const alertBox = document.querySelector("[data-fault]");
  const again = document.querySelector("[data-again]");
  const say = (words) => {
    if (again) again.hidden = true;
    if (!alertBox) return;
    alertBox.textContent = words || "";
    alertBox.hidden = !words;
  };
  const tell = (form, error) => {
    const words = form.dataset;
    if (error.name === "NotAllowedError" || error.name === "AbortError") say(words.cancelled);
    else if (error.message === "login_required") {
      say(words.stale || words.failed);
      if (again) again.hidden = false;
    } else if (error.status === 429) say(words.throttled);
    else if (error.status === 409 || error.name === "InvalidStateError") say(words.taken || words.failed);
    else if (error.message === "invalid_grant" || error.message === "expired_token") say(words.invalid || words.failed);
    else say(words.failed);
  };

  const value = (form, name) => (form.elements[name] ? form.elements[name].value.trim() : "") || undefined;
  const pending = { abort: null, begun: null };

  const ceremonies = {
    async auth(form) {
      if (pending.abort) pending.abort.abort();
      const begun = await post("auth/start", { email: value(form, "email"), request: form.dataset.request || undefined });
      const credential = await get(begun.options, {});
      return post("auth/finish", { challenge_id: begun.challenge_id, credential });
    },
    async register(form) {
      const begun = await post("register/start", {
        username: value(form, "username"),
        email: value(form, "email"),
        full_name: value(form, "full_name"),
        request: form.dataset.request || undefined,
        token,
      });
      const credential = await create(begun.options);
      return post("register/finish", { challenge_id: begun.challenge_id, credential, token });
    },
    async link(form) {
      const begun = pending.begun || (await post("link/start", { token }));
      pending.begun = null;
      const credential = await create(begun.options);
      return post("link/finish", { challenge_id: begun.challenge_id, credential, token, name: value(form, "name") });
    },
  };

  for (const form of document.querySelectorAll("form[data-ceremony]")) {
    // Without this program the button would only write what was typed into the address.
    form.querySelector("button").disabled = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button");
      button.disabled = true;
      say("");
      try {
        location.assign((await ceremonies[form.dataset.ceremony](form)).redirect);
      } catch (error) {
        tell(form, error);
      } finally {
        button.disabled = false;
      }
    });
  }

  // A set-up link: its token says whether somebody registers or adds a passkey.
  const link = document.querySelector("form[data-ceremony=link]");
  if (link && token) {
    post("link/start", { token }).then(
      (begun) => {
        if (!begun.purpose) {
          pending.begun = begun;
          return;
        }
        document.querySelector("[data-part=link]").hidden = true;
        document.querySelector("[data-part=register]").hidden = false;
        document.querySelector("[data-admin]").hidden = begun.purpose !== "bootstrap";
        const mail = document.getElementById("email");
        if (begun.email) {
          mail.value = begun.email;
          mail.readOnly = true;
        }
        document.getElementById("username").focus();
      },
      (error) => tell(link, error),
    );
  }

  // Passkeys that the browser offers in the mail field.
  const auth = document.querySelector("form[data-ceremony=auth]");
  const offers = window.PublicKeyCredential && PublicKeyCredential.isConditionalMediationAvailable;
  // A challenge is good for five minutes, a page may stand open for longer.
  const CHALLENGE_GOOD = 240000;
  const offer = async () => {
    const begun = await post("auth/start", { mediation: "conditional", request: auth.dataset.request || undefined });
    const abort = new AbortController();
    pending.abort = abort;
    const renew = () => {
      if (abort.signal.aborted) return;
      if (document.hidden) {
        document.addEventListener("visibilitychange", renew, { once: true });
        return;
      }
      abort.abort();
      offer().catch(failed);
    };
    const timer = setTimeout(renew, CHALLENGE_GOOD);
    const credential = await get(begun.options, { mediation: "conditional", signal: abort.signal });
    clearTimeout(timer);
    const done = await post("auth/finish", { challenge_id: begun.challenge_id, credential });
    location.assign(done.redirect);
  };
  const failed = (error) => {
    if (error.name !== "AbortError" && error.name !== "NotAllowedError") tell(auth, error);
  };
  if (auth && offers) {
    PublicKeyCredential.isConditionalMediationAvailable()
      .then((is) => (is ? offer() : undefined))
      .catch(failed);
  }
})();
