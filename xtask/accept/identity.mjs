// Stock clients of npm and a browser with a virtual authenticator against the authorization server: the first administrator by
// the set-up link, passkeys, consent, codes, refresh, device grant, client assertions. Each case is named after its number.

import { writeFileSync } from "node:fs";
import { at, authorize, browser, ceremonies, cookies, ensure, finish, given, insecure, issuer, jose, oauth, oidc, person, refused, shoot, step, violations } from "./harness.mjs";
import { passkeys } from "./passkeys.mjs";

const ada = await person();

await step("A12 the set-up link makes the first administrator", async () => {
  await ada.page.goto(given.setup_url);
  await ada.page.locator("form[data-ceremony=register]").waitFor();
  await ada.page.getByLabel(/user name/i).waitFor();
  await shoot(ada.page, "setup");
  await ada.page.locator("#username").fill("root");
  await ada.page.locator("form[data-ceremony=register] #email").fill("root@example.com");
  await ada.page.locator("form[data-ceremony=register] button").click();
  await ada.page.waitForURL((url) => !url.pathname.startsWith("/webauthn/link"));
  const me = await fetch(at("/api/v1/core/users/me"), { headers: { cookie: await cookies(ada) } });
  const body = await me.json();
  ensure(me.status === 200 && body.roles.includes("admin"), JSON.stringify(body));
});

await step("A12 the set-up link is good for one use", async () => {
  const other = await person();
  await other.page.goto(given.setup_url);
  await other.page.waitForTimeout(500);
  const shown = await other.page.locator("[data-fault]:visible").count();
  ensure(shown === 1, "a used link says nothing");
  await other.context.close();
});

await step("A12 whoever signs out signs in again with conditional UI", async () => {
  await ada.page.goto(at("/api/v1/core/oauth/logout"));
  await shoot(ada.page, "logout");
  await ada.page.locator("button[value=logout]").click();
  await ada.page.waitForLoadState();
  const gone = await fetch(at("/api/v1/core/users/me"), { headers: { cookie: await cookies(ada) } });
  ensure(gone.status === 401, `signed out, and ${gone.status}`);
  const stranger = await browser.newContext();
  const plain = await stranger.newPage();
  await plain.goto(at("/login"));
  await shoot(plain, "login");
  await stranger.close();
  // The page asks by itself, and the passkey answers without a button.
  const asked = ada.page.waitForRequest((request) => request.url().endsWith("/webauthn/auth/start"));
  await ada.page.goto(at("/login"));
  ensure((await asked).postDataJSON().mediation === "conditional", "the page did not ask by itself");
  await ada.page.waitForURL((url) => url.search.includes("done"), { timeout: 5000 });
  const back = await fetch(at("/api/v1/core/users/me"), { headers: { cookie: await cookies(ada) } });
  ensure(back.status === 200, `signed in, and ${back.status}`);
});

// ---- openid-client ----

const callback = "https://app.example/cb";

async function registered(metadata, auth) {
  return oidc.dynamicClientRegistration(new URL(issuer), { redirect_uris: [callback], ...metadata }, auth, insecure);
}

async function request(config, extra = {}) {
  const verifier = oidc.randomPKCECodeVerifier();
  const parameters = {
    redirect_uri: callback,
    scope: "openid profile email offline_access user",
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    ...extra,
  };
  return { verifier, url: oidc.buildAuthorizationUrl(config, parameters) };
}

async function tokens(config, extra = {}) {
  const { verifier, url } = await request(config, extra);
  const back = await authorize(ada, url);
  return oidc.authorizationCodeGrant(config, back, {
    pkceCodeVerifier: verifier,
    expectedState: extra.state,
    expectedNonce: extra.nonce,
    idTokenExpected: true,
  });
}

let config;
await step("A1 discovery and registration", async () => {
  config = await registered({ client_name: "openid-client", grant_types: ["authorization_code", "refresh_token"] });
  ensure(config.serverMetadata().issuer === issuer, "issuer");
  ensure(config.clientMetadata().client_secret.startsWith("sps_"), "a secret");
});

let first;
await step("A1 code, PKCE, nonce, state and at_hash", async () => {
  first = await tokens(config, { state: oidc.randomState(), nonce: oidc.randomNonce() });
  const claims = first.claims();
  ensure(claims.amr.includes("user"), `amr ${claims.amr}`);
  ensure(["phr", "phrh"].includes(claims.acr), `acr ${claims.acr}`);
  ensure(first.refresh_token.startsWith("rt_") && first.token_type === "bearer", "tokens");
});

await step("A1 without a state", async () => {
  await tokens(config);
});

await step("A1 userinfo and refresh", async () => {
  const claims = first.claims();
  const info = await oidc.fetchUserInfo(config, first.access_token, claims.sub);
  ensure(info.preferred_username === "root" && info.email === "root@example.com", JSON.stringify(info));
  const next = await oidc.refreshTokenGrant(config, first.refresh_token);
  ensure(next.refresh_token !== first.refresh_token && next.claims().auth_time === claims.auth_time, "rotated");
  first = next;
});

await step("A1 tokens are seen, ended, and not seen any more", async () => {
  const own = await tokens(config);
  const seen = await oidc.tokenIntrospection(config, own.access_token);
  ensure(seen.active && seen.scope.includes("user"), JSON.stringify(seen));
  await oidc.tokenRevocation(config, own.refresh_token);
  for (const token of [own.access_token, own.refresh_token]) {
    ensure(JSON.stringify(await oidc.tokenIntrospection(config, token)) === '{"active":false}', "still active");
  }
});

await step("A1 sign-out by the client goes back to it", async () => {
  const leaving = await registered({
    client_name: "leaving",
    grant_types: ["authorization_code", "refresh_token"],
    post_logout_redirect_uris: ["https://app.example/bye"],
  });
  const other = await person();
  const answer = await tokens(leaving);
  const url = oidc.buildEndSessionUrl(leaving, {
    id_token_hint: answer.id_token,
    post_logout_redirect_uri: "https://app.example/bye",
    state: "s1",
  });
  // Somebody who is not signed in is sent back at once.
  const gone = await fetch(url, { redirect: "manual" });
  ensure(gone.status === 303 && gone.headers.get("location") === "https://app.example/bye?state=s1", `${gone.status}`);
  url.searchParams.set("post_logout_redirect_uri", "https://app.example/bye?x=1");
  const wrong = await fetch(url, { redirect: "manual" });
  ensure(wrong.status === 400 && !wrong.headers.get("location"), `${wrong.status}`);
  await other.context.close();
});

await step("A2 a thousand authorisations with verifiers of the library's own", async () => {
  let refusedOnes = 0;
  for (let i = 0; i < 1000; i += 1) {
    const verifier = oauth.generateRandomCodeVerifier();
    const url = new URL(config.serverMetadata().authorization_endpoint);
    url.search = new URLSearchParams({
      client_id: config.clientMetadata().client_id,
      redirect_uri: callback,
      response_type: "code",
      scope: "openid user",
      code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
      code_challenge_method: "S256",
    });
    const back = await authorize(ada, url);
    if (!back.searchParams.get("code")) refusedOnes += 1;
  }
  ensure(refusedOnes === 0, `${refusedOnes} of 1000 were refused`);
});

/** A code with what its exchange needs, through oauth4webapi. */
async function code() {
  const { verifier, url } = await request(config, { state: "s" });
  const server = config.serverMetadata();
  const client = { client_id: config.clientMetadata().client_id };
  const back = oauth.validateAuthResponse(server, client, await authorize(ada, url), "s");
  const auth = oauth.ClientSecretBasic(config.clientMetadata().client_secret);
  const exchange = async () => {
    const options = { [oauth.allowInsecureRequests]: true };
    const answer = await oauth.authorizationCodeGrantRequest(server, client, auth, back, callback, verifier, options);
    return oauth.processAuthorizationCodeResponse(server, client, answer, { expectedNonce: oauth.expectNoNonce });
  };
  return { server, client, auth, exchange };
}

await step("A3 one of 32 exchanges of a code wins, and then all is dead", async () => {
  const { exchange } = await code();
  const all = await Promise.allSettled(Array.from({ length: 32 }, exchange));
  const won = all.filter((one) => one.status === "fulfilled");
  const errors = all.filter((one) => one.status === "rejected").map((one) => one.reason.error);
  ensure(won.length === 1, `${won.length} won`);
  ensure(errors.length === 31 && errors.every((error) => error === "invalid_grant"), `${errors}`);
  const seen = await oidc.tokenIntrospection(config, won[0].value.access_token);
  ensure(JSON.stringify(seen) === '{"active":false}', JSON.stringify(seen));
});

await step("A4 a lost answer gets the same child, a reuse ends the family", async () => {
  const start = await tokens(config);
  const [one, two] = [
    await oidc.refreshTokenGrant(config, start.refresh_token),
    await oidc.refreshTokenGrant(config, start.refresh_token),
  ];
  ensure(one.refresh_token === two.refresh_token, "another child");
  const next = await oidc.refreshTokenGrant(config, one.refresh_token);
  await refused(() => oidc.refreshTokenGrant(config, start.refresh_token), "invalid_grant");
  await refused(() => oidc.refreshTokenGrant(config, next.refresh_token), "invalid_grant");
});

for (const alg of ["ES256", "EdDSA"]) {
  await step(`A5 private_key_jwt with ${alg}, and its assertion only once`, async () => {
    const pair = await jose.generateKeyPair(alg, { extractable: true });
    const jwk = { ...(await jose.exportJWK(pair.publicKey)), kid: "k1", alg, use: "sig" };
    const auth = oidc.PrivateKeyJwt({ key: pair.privateKey, kid: "k1" });
    const signed = await registered(
      { client_name: alg, token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [jwk] }, grant_types: ["authorization_code", "refresh_token"] },
      auth,
    );
    const { verifier, url } = await request(signed);
    const back = await authorize(ada, url);
    await oidc.authorizationCodeGrant(signed, back, { pkceCodeVerifier: verifier, idTokenExpected: true });
    const id = signed.clientMetadata().client_id;
    const now = Math.floor(Date.now() / 1000);
    const assertion = await new jose.SignJWT({ jti: crypto.randomUUID() })
      .setProtectedHeader({ alg, kid: "k1" })
      .setIssuer(id).setSubject(id).setAudience(issuer).setIssuedAt(now).setExpirationTime(now + 60)
      .sign(pair.privateKey);
    const show = () =>
      fetch(signed.serverMetadata().introspection_endpoint, {
        method: "POST",
        body: new URLSearchParams({
          token: "x",
          client_assertion: assertion,
          client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        }),
      });
    const [firstUse, secondUse] = [await show(), await show()];
    ensure(firstUse.status === 200, `first ${firstUse.status} ${await firstUse.text()}`);
    ensure(secondUse.status === 401 && (await secondUse.json()).error === "invalid_client", `second ${secondUse.status}`);
  });
}

await step("A6 a device signs in, and is told to slow down", async () => {
  const device = await registered({
    client_name: "device",
    token_endpoint_auth_method: "none",
    redirect_uris: [],
    response_types: [],
    grant_types: ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
  }, oidc.None());
  const begun = await oidc.initiateDeviceAuthorization(device, { scope: "openid user" });
  ensure(/^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$/.test(begun.user_code), begun.user_code);
  const poll = () =>
    fetch(device.serverMetadata().token_endpoint, {
      method: "POST",
      body: new URLSearchParams({
        grant_type: "urn:ietf:params:oauth:grant-type:device_code",
        device_code: begun.device_code,
        client_id: device.clientMetadata().client_id,
      }),
    }).then((answer) => answer.json());
  const [early, earlier] = [await poll(), await poll()];
  ensure(early.error === "authorization_pending" && earlier.error === "slow_down", JSON.stringify([early, earlier]));
  await ada.page.goto(begun.verification_uri);
  await shoot(ada.page, "device");
  await ada.page.goto(begun.verification_uri_complete);
  await shoot(ada.page, "device-confirm");
  await ada.page.locator("button[value=allow]").click();
  await ada.page.waitForURL(/done=allowed/, { timeout: 5000 }).catch(async () => {
    throw new Error(`at ${ada.page.url()}: ${await ada.page.locator("body").innerText()}`);
  });
  const bounded = { signal: AbortSignal.timeout(60_000) };
  const answer = await oidc.pollDeviceAuthorizationGrant(device, { ...begun, interval: 11 }, undefined, bounded);
  ensure(answer.access_token && answer.id_token, "tokens");
});

await step("A7 jose verifies access and ID tokens from the published keys", async () => {
  const keys = jose.createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri));
  const answer = await tokens(config);
  const access = await jose.jwtVerify(answer.access_token, keys, { issuer, typ: "at+jwt" });
  ensure(access.payload.client_id === config.clientMetadata().client_id && access.payload.session_id.startsWith("sess_"), "claims");
  await jose.jwtVerify(answer.id_token, keys, { issuer, audience: config.clientMetadata().client_id });
  const published = await (await fetch(config.serverMetadata().jwks_uri)).json();
  ensure(!/"(d|p|q|dp|dq|qi|k)":/.test(JSON.stringify(published)), "a private member");
});

await step("A14 a name is text, whatever it says", async () => {
  const named = await registered({
    client_name: '<img src=x onerror="document.title=1">',
    token_endpoint_auth_method: "none",
    redirect_uris: ["http://127.0.0.1/cb"],
    application_type: "native",
    grant_types: ["authorization_code"],
  }, oidc.None());
  const { url } = await request(named, { redirect_uri: "http://127.0.0.1:3999/cb", scope: "openid user mcp" });
  await ada.page.goto(url.href);
  await ada.page.locator("button[value=allow]").waitFor();
  await shoot(ada.page, "consent");
  ensure((await ada.page.locator("h1 img, .client img").count()) === 0, "an element");
  ensure((await ada.page.locator("h1").textContent()).includes("<img src=x"), "not shown as text");
  await refused(() => registered({ client_name: "a\u202eb" }), "invalid_client_metadata");
  await ada.page.route("http://127.0.0.1:3999/**", (route) => route.fulfill({ body: "back" }));
  await ada.page.locator("button[value=allow]").click();
  await ada.page.waitForURL(/127\.0\.0\.1:3999\/cb\?code=ac_/, { timeout: 5000 });
});

await passkeys(ada);

await step("pages of errors and of coming back in", async () => {
  await ada.page.goto(at("/api/v1/core/oauth/authorize?client_id=nobody"));
  await shoot(ada.page, "error");
  await ada.page.goto(at("/login?recovery"));
  await shoot(ada.page, "recovery");
});

await step("no page broke its own policy, and none is heavy", async () => {
  ensure(violations.length === 0, violations.join("\n"));
  const sizes = [];
  const page = await ada.context.newPage();
  page.on("response", async (answer) => {
    const url = answer.url();
    ensure(url.startsWith(issuer), `a foreign request: ${url}`);
    sizes.push((await answer.body().catch(() => Buffer.alloc(0))).length);
  });
  await page.goto(at("/login"), { waitUntil: "networkidle" });
  const all = sizes.reduce((sum, size) => sum + size, 0);
  ensure(all <= 30 * 1024, `the sign-in page has ${all} bytes`);
});

writeFileSync(given.ceremonies, JSON.stringify(ceremonies));
await finish();
