// What every authorization server should do (cases A1, A3, A6, A7), written once: it runs against ours, where each case must come
// out as it must, and against a peer, where what comes out otherwise is told by name.

import { createHash } from "node:crypto";
import { ensure, insecure, jose, oauth, oidc } from "./harness.mjs";

export const CALLBACK = "https://app.example/cb";
const BYE = "https://app.example/bye";
const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";
const GONE = '{"active":false}';

/** Clients of openid-client at a server, for somebody who says yes to everything. */
export function at(server) {
  const registered = (metadata, auth) =>
    oidc.dynamicClientRegistration(new URL(server.issuer), { redirect_uris: [CALLBACK], ...server.registration, ...metadata }, auth, insecure);

  async function request(config, extra = {}) {
    const verifier = oidc.randomPKCECodeVerifier();
    const parameters = {
      redirect_uri: CALLBACK,
      scope: server.scope,
      prompt: server.prompt,
      code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
      ...extra,
    };
    for (const name of Object.keys(parameters)) if (parameters[name] === undefined) delete parameters[name];
    return { verifier, url: oidc.buildAuthorizationUrl(config, parameters) };
  }

  /** The address at which the person comes back, and what the library makes of it, or of another. */
  async function answered(config, extra = {}) {
    const { verifier, url } = await request(config, extra);
    const back = await server.authorize(url);
    const exchange = (address = back, expected = {}) =>
      oidc.authorizationCodeGrant(config, address, {
        pkceCodeVerifier: verifier,
        expectedState: extra.state,
        expectedNonce: extra.nonce,
        idTokenExpected: true,
        ...expected,
      });
    return { back, exchange };
  }

  const tokens = async (config, extra = {}) => (await answered(config, extra)).exchange();

  /** A code with what its exchange needs, through oauth4webapi. */
  async function code(config) {
    const { verifier, url } = await request(config, { state: "s" });
    const metadata = config.serverMetadata();
    const client = { client_id: config.clientMetadata().client_id };
    const back = oauth.validateAuthResponse(metadata, client, await server.authorize(url), "s");
    const auth = oauth.ClientSecretBasic(config.clientMetadata().client_secret);
    const exchange = async () => {
      const options = { [oauth.allowInsecureRequests]: true };
      const answer = await oauth.authorizationCodeGrantRequest(metadata, client, auth, back, CALLBACK, verifier, options);
      return oauth.processAuthorizationCodeResponse(metadata, client, answer, { expectedNonce: oauth.expectNoNonce });
    };
    return { exchange };
  }

  return { registered, request, answered, tokens, code };
}

/** What a library itself refuses, by what it says. */
async function faulty(call, says) {
  const error = await call().then(
    () => null,
    (error) => error,
  );
  const said = `${error?.message} ${error?.cause?.message ?? ""}`;
  ensure(error && says.test(said), `the library says ${error ? said : "nothing"}, not ${says}`);
}

/** What `at_hash` must be of an access token: the left half of its digest, of the kind that signed the ID token. */
function hashOf(accessToken, idToken) {
  const { alg } = jose.decodeProtectedHeader(idToken);
  const digest = createHash(alg === "EdDSA" ? "sha512" : `sha${alg.slice(2)}`).update(accessToken).digest();
  return digest.subarray(0, digest.length / 2).toString("base64url");
}

export function publicOnly(keys) {
  ensure(keys.keys.length > 0 && !/"(d|p|q|dp|dq|qi|oth|k)":/.test(JSON.stringify(keys)), "a private member");
}

const renewing = { grant_types: ["authorization_code", "refresh_token"] };

/** The cases, in their order: each a name and what must hold. */
export function protocol(server) {
  const { registered, answered, tokens, code } = at(server);
  const ours = server.ours ?? {};
  let [config, first] = [];
  return [
    ["A1 discovery and registration", async () => {
      config = await registered({ client_name: "openid-client", ...renewing });
      ensure(config.serverMetadata().issuer === server.issuer, "issuer");
      ensure(config.clientMetadata().client_secret, "no secret");
      server.config = config;
    }],
    ["A1 code, PKCE, nonce, state and at_hash", async () => {
      first = await tokens(config, { state: oidc.randomState(), nonce: oidc.randomNonce() });
      ensure(first.refresh_token && first.token_type === "bearer", "tokens");
      ours.signedIn?.(first);
    }],
    ["A1 the library checks `iss`, nonce and signature, and `at_hash` is of this token", async () => {
      const strict = await registered({ client_name: "strict", ...renewing });
      oidc.enableNonRepudiationChecks(strict);
      ensure(strict.serverMetadata().authorization_response_iss_parameter_supported === true, "`iss` is not announced");
      const { back, exchange } = await answered(strict, { state: oidc.randomState(), nonce: oidc.randomNonce() });
      ensure(back.searchParams.get("iss") === server.issuer, `iss ${back.searchParams.get("iss")}`);
      const other = new URL(back);
      other.searchParams.set("iss", "https://other.example");
      await faulty(() => exchange(other), /unexpected "iss"/);
      other.searchParams.delete("iss");
      await faulty(() => exchange(other), /"iss" \(issuer\) missing/);
      const answer = await exchange();
      const { at_hash: hash, nonce } = answer.claims();
      ensure(hash === hashOf(answer.access_token, answer.id_token), `at_hash ${hash}`);
      ensure(nonce, "no nonce");
      const second = await answered(strict, { state: oidc.randomState(), nonce: oidc.randomNonce() });
      await faulty(() => second.exchange(second.back, { expectedNonce: nonce }), /unexpected ID Token "nonce"/);
    }],
    ["A1 without a state", async () => {
      const { back, exchange } = await answered(config);
      ensure(!back.searchParams.has("state"), `a state that nobody sent: ${back.searchParams.get("state")}`);
      await exchange();
    }],
    ["A1 userinfo and refresh", async () => {
      const claims = first.claims();
      const info = await oidc.fetchUserInfo(config, first.access_token, claims.sub);
      ensure(info.email === server.email, JSON.stringify(info));
      const next = await oidc.refreshTokenGrant(config, first.refresh_token);
      ensure(next.refresh_token !== first.refresh_token, "the refresh token was not rotated");
      ensure(next.claims()?.auth_time === claims.auth_time, "auth_time changed");
    }],
    ["A1 tokens are seen, ended, and not seen any more", async () => {
      const own = await tokens(config);
      const seen = await oidc.tokenIntrospection(config, own.access_token);
      ensure(seen.active && seen.scope.includes("openid"), JSON.stringify(seen));
      await oidc.tokenRevocation(config, own.refresh_token);
      for (const token of [own.refresh_token, own.access_token]) {
        const after = JSON.stringify(await oidc.tokenIntrospection(config, token));
        ensure(after === GONE, `after revocation ${after}`);
      }
    }],
    ["A1 sign-out by the client goes back to it", async () => {
      const leaving = await registered({ client_name: "leaving", ...renewing, post_logout_redirect_uris: [BYE] });
      const answer = await tokens(leaving);
      const url = oidc.buildEndSessionUrl(leaving, { id_token_hint: answer.id_token, post_logout_redirect_uri: BYE, state: "s1" });
      const gone = await fetch(url, { redirect: "manual" });
      ensure(gone.status === 303 && gone.headers.get("location") === `${BYE}?state=s1`, `somebody signed out is answered ${gone.status}`);
      url.searchParams.set("post_logout_redirect_uri", `${BYE}?x=1`);
      const wrong = await fetch(url, { redirect: "manual" });
      ensure(wrong.status === 400 && !wrong.headers.get("location"), `another address is answered ${wrong.status}`);
      // The hint ends the session that it names, cookie or not.
      await server.signIn?.();
    }],
    ["A3 a code that is used again is refused, and its token is dead", async () => {
      const { exchange } = await code(config);
      const { access_token: token } = await exchange();
      ensure((await oidc.tokenIntrospection(config, token)).active, "not live before");
      const error = await exchange().then(
        () => null,
        (error) => error.error,
      );
      ensure(error === "invalid_grant", `${error}`);
      const seen = JSON.stringify(await oidc.tokenIntrospection(config, token));
      ensure(seen === GONE, seen);
    }],
    ["A3 one of 32 exchanges of a code wins, and then all is dead", async () => {
      const { exchange } = await code(config);
      const all = await Promise.allSettled(Array.from({ length: 32 }, exchange));
      const won = all.filter((one) => one.status === "fulfilled");
      const errors = all.filter((one) => one.status === "rejected").map((one) => one.reason.error);
      ensure(won.length === 1, `${won.length} won`);
      ensure(errors.length === 31 && errors.every((error) => error === "invalid_grant"), `${errors}`);
      const seen = await oidc.tokenIntrospection(config, won[0].value.access_token);
      ensure(JSON.stringify(seen) === GONE, JSON.stringify(seen));
    }],
    ["A6 a device signs in, and is told to slow down", async () => {
      const metadata = { client_name: "device", token_endpoint_auth_method: "none", redirect_uris: [], response_types: [], grant_types: [DEVICE, "refresh_token"] };
      const device = await registered(metadata, oidc.None());
      const begun = await oidc.initiateDeviceAuthorization(device, { scope: server.scope });
      ours.begun?.(begun);
      const poll = () =>
        fetch(device.serverMetadata().token_endpoint, {
          method: "POST",
          body: new URLSearchParams({ grant_type: DEVICE, device_code: begun.device_code, client_id: device.clientMetadata().client_id }),
        }).then((answer) => answer.json());
      const [early, earlier] = [await poll(), await poll()];
      await server.allowDevice(begun);
      const interval = earlier.error === "slow_down" ? 11 : 1;
      const bounded = { signal: AbortSignal.timeout(60_000) };
      const answer = await oidc.pollDeviceAuthorizationGrant(device, { ...begun, interval }, undefined, bounded);
      ensure(answer.access_token && answer.id_token, "no tokens");
      ensure(early.error === "authorization_pending" && earlier.error === "slow_down", `${early.error}, then ${earlier.error}`);
    }],
    ["A7 jose verifies access and ID tokens from the published keys", async () => {
      const keys = jose.createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri), { cooldownDuration: 0 });
      const answer = await tokens(config);
      const id = config.clientMetadata().client_id;
      const verified = () =>
        Promise.all([
          jose.jwtVerify(answer.id_token, keys, { issuer: server.issuer, audience: id }),
          jose.jwtVerify(answer.access_token, keys, { issuer: server.issuer, typ: "at+jwt" }),
        ]);
      const [, access] = await verified();
      ensure(access.payload.client_id === id, "client_id");
      const published = await (await fetch(config.serverMetadata().jwks_uri)).json();
      publicOnly(published);
      await ours.rotation?.({ published, verified, again: () => tokens(config), keys });
    }],
  ];
}
