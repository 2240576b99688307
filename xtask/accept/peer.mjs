// An `oidc-provider` on a port of its own, whose sign-in and consent say yes to everything.

import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { ensure, given, jose, oidc } from "./harness.mjs";
import { CALLBACK } from "./protocol.mjs";

// It tells of each setting that is for development alone, which all of them are here.
Object.assign(console, { warn() {}, info() {} });
const { default: Provider } = await import(pathToFileURL(given.modules["oidc-provider"]).href);

const SECRET = "a secret of nobody that matters, for tests alone";
const RESOURCE = "urn:example:tools";

/** A client that oidc-provider knows from its start. */
const app = (client_id) => ({
  client_id,
  client_secret: SECRET,
  redirect_uris: [CALLBACK],
  grant_types: ["authorization_code", "refresh_token"],
});

export class Peer {
  #provider;
  #server;
  #asked = new Map();
  #account = "";

  static async start(port) {
    const peer = new Peer();
    peer.issuer = `http://localhost:${port}`;
    const { privateKey } = await jose.generateKeyPair("RS256", { extractable: true });
    const key = { ...(await jose.exportJWK(privateKey)), alg: "RS256", use: "sig" };
    peer.#provider = new Provider(peer.issuer, peer.#configuration(key));
    peer.#server = createServer((request, response) => peer.#serve(request, response));
    await new Promise((resolve) => peer.#server.listen(port, "127.0.0.1", resolve));
    return peer;
  }

  #configuration(key) {
    return {
      clients: [app(given.peer_audience), app("other-app")],
      jwks: { keys: [key] },
      cookies: { keys: ["cookies of tests"] },
      conformIdTokenClaims: false,
      claims: { openid: ["sub"], email: ["email", "email_verified"] },
      scopes: ["openid", "email", "offline_access"],
      rotateRefreshToken: true,
      interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
      findAccount: (_, id) => ({
        accountId: id,
        claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: id !== "unverified" }),
      }),
      extraTokenClaims: (_, token) =>
        token.accountId && { email: `${token.accountId}@example.com`, email_verified: token.accountId !== "unverified" },
      features: {
        devInteractions: { enabled: false },
        registration: { enabled: true },
        introspection: { enabled: true },
        revocation: { enabled: true },
        deviceFlow: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: () => ({ scope: "use", audience: given.peer_audience, accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } } }),
        },
      },
    };
  }

  async #serve(request, response) {
    const path = new URL(request.url, this.issuer).pathname;
    this.#asked.set(path, this.asked(path) + 1);
    if (!path.startsWith("/interaction/")) {
      this.#provider.callback()(request, response);
      return;
    }
    try {
      const { prompt, params, grantId } = await this.#provider.interactionDetails(request, response);
      const result = prompt.name === "login" ? { login: { accountId: this.#account } } : { consent: { grantId: await this.#grant(prompt, params, grantId) } };
      await this.#provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
    } catch (error) {
      response.writeHead(500).end(error.message);
    }
  }

  async #grant(prompt, { client_id: clientId }, known) {
    const { Grant } = this.#provider;
    const grant = known ? await Grant.find(known) : new Grant({ accountId: this.#account, clientId });
    grant.addOIDCScope("openid email offline_access");
    for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(" "));
    return grant.save();
  }

  /** How often a path was asked for. */
  asked(path) {
    return this.#asked.get(path) ?? 0;
  }

  /** A browser at this server alone: its cookies, and where it ends. `form` fills what a page asks for. */
  async #browse(url, account, form = () => null) {
    this.#account = account;
    const kept = new Map();
    let next = { url: `${url}` };
    for (let hop = 0; hop < 15; hop += 1) {
      if (!next.url.startsWith(this.issuer)) return { url: new URL(next.url) };
      const headers = { cookie: [...kept].map(([name, value]) => `${name}=${value}`).join("; ") };
      const answer = await fetch(next.url, { ...next, headers, redirect: "manual" });
      for (const cookie of answer.headers.getSetCookie()) {
        const [name, value] = cookie.split(";")[0].split(/=(.*)/s);
        if (value) kept.set(name, value);
        else kept.delete(name);
      }
      if (answer.status >= 300 && answer.status < 400) {
        next = { url: new URL(answer.headers.get("location"), this.issuer).href };
        continue;
      }
      const text = await answer.text();
      const body = form(text);
      if (!body) return { url: new URL(next.url), status: answer.status, text };
      next = { url: next.url, method: "POST", body };
    }
    throw new Error("the request went round in circles");
  }

  /** The address at the client to which an account that allows everything is sent. */
  async authorize(url, account) {
    const end = await this.#browse(url, account);
    ensure(!end.text, `${end.status} at ${end.url}: ${end.text?.slice(0, 300)}`);
    return end.url;
  }

  async allowDevice(begun, account) {
    const hidden = (text) => [...text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)"/g)].map(([, name, value]) => [name, value]);
    const end = await this.#browse(begun.verification_uri_complete, account, (text) => {
      if (!text.includes("<form")) return null;
      const body = new URLSearchParams(hidden(text));
      if (!body.has("user_code")) body.set("user_code", begun.user_code);
      body.set("confirm", "yes");
      return body;
    });
    ensure(end.status === 200, `the device page ended with ${end.status}: ${end.text?.slice(0, 300)}`);
  }

  async #tokens(account, client, extra) {
    const config = await oidc.discovery(new URL(this.issuer), client, SECRET, undefined, { execute: [oidc.allowInsecureRequests] });
    const verifier = oidc.randomPKCECodeVerifier();
    const url = oidc.buildAuthorizationUrl(config, {
      redirect_uri: CALLBACK,
      scope: "openid email",
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      ...extra,
    });
    return oidc.authorizationCodeGrant(config, await this.authorize(url, account), { pkceCodeVerifier: verifier }, extra);
  }

  async idToken(account, client = given.peer_audience) {
    return (await this.#tokens(account, client)).id_token;
  }

  async accessToken(account) {
    return (await this.#tokens(account, given.peer_audience, { resource: RESOURCE, scope: "openid email use" })).access_token;
  }

  async stop() {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
