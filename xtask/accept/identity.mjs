// Stock clients of npm and a browser with a virtual authenticator against the authorization server: the first administrator by
// the set-up link, passkeys, consent, codes, refresh, device grant, client assertions. Each case is named after its number.

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { at, authorize, browser, ceremonies, cookies, ensure, finish, given, issuer, jose, oauth, oidc, person, refused, shoot, step, violations } from "./harness.mjs";
import { passkeys } from "./passkeys.mjs";
import { mails, secrets } from "./timing.mjs";
import { CALLBACK, at as clientsAt, protocol, publicOnly } from "./protocol.mjs";

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

/** Makes a key old enough to sign: verifiers know it from the published set, and nobody here waits for ten minutes. */
function age(kid) {
  const change = "UPDATE signing_keys SET created_at = created_at - 700000 WHERE kid =";
  if (given.database.startsWith("postgres:")) {
    execFileSync("psql", ["--quiet", "--no-psqlrc", "--command", `${change} '${kid}'`, given.database]);
    return;
  }
  const script = `import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=10); c.execute('${change} ?', (sys.argv[2],)); c.commit()`;
  execFileSync("python3", ["-c", script, given.database.replace(/^sqlite:(\/\/)?/, ""), kid]);
}

const ours = {
  issuer,
  scope: "openid profile email offline_access user",
  email: "root@example.com",
  authorize: (url) => authorize(ada, url),
  // The passkey answers without a button.
  async signIn() {
    await ada.page.goto(at("/login"));
    await ada.page.waitForURL((url) => url.search.includes("done"), { timeout: 5000 });
  },
  async allowDevice(begun) {
    await ada.page.goto(begun.verification_uri);
    await shoot(ada.page, "device");
    await ada.page.goto(begun.verification_uri_complete);
    await shoot(ada.page, "device-confirm");
    await ada.page.locator("button[value=allow]").click();
    await ada.page.waitForURL(/done=allowed/, { timeout: 5000 }).catch(async () => {
      throw new Error(`at ${ada.page.url()}: ${await ada.page.locator("body").innerText()}`);
    });
  },
  ours: {
    signedIn(answer) {
      const claims = answer.claims();
      ensure(claims.amr.includes("user"), `amr ${claims.amr}`);
      ensure(["phr", "phrh"].includes(claims.acr), `acr ${claims.acr}`);
      ensure(answer.refresh_token.startsWith("rt_"), "the form of a refresh token");
    },
    begun: ({ user_code }) => ensure(/^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$/.test(user_code), user_code),
    async rotation({ published, verified, again, keys }) {
      const headers = { authorization: `Bearer ${given.admin_token}`, "content-type": "application/json" };
      const post = (path, body) => fetch(at(path), { method: "POST", headers, body: JSON.stringify(body) });
      const made = await post("/api/v1/admin/keys", { algorithm: "RS256" });
      const { kid } = await made.json();
      ensure(made.ok && kid, `${made.status}`);
      const keysNow = async () => (await fetch(at("/.well-known/jwks.json"))).json();
      const now = await keysNow();
      publicOnly(now);
      ensure(now.keys.some((key) => key.kid === kid) && now.keys.length === published.keys.length + 1, "not published before it signs");
      await verified();
      ensure((await post("/api/v1/admin/keys/rotate", { algorithm: "RS256" })).status === 409, "a key signs that nobody knows yet");
      age(kid);
      const deadline = Date.now() + 15_000;
      while (!(await post("/api/v1/admin/keys/rotate", { algorithm: "RS256" })).ok) {
        ensure(Date.now() < deadline, "the key is not rotated in");
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
      publicOnly(await keysNow());
      await verified();
      const next = await again();
      for (const token of [next.id_token, next.access_token]) {
        ensure(jose.decodeProtectedHeader(token).kid === kid, "the old key still signs");
        await jose.jwtVerify(token, keys, { issuer });
      }
    },
  },
};

for (const [name, check] of protocol(ours)) await step(name, check);
const { config } = ours;
const { registered, request, tokens } = clientsAt(ours);

await step("A12 the browser shows the consent, goes back with a code, and there are tokens", async () => {
  const shown = await registered({ client_name: "Shown", grant_types: ["authorization_code"] });
  const { verifier, url } = await request(shown, { state: "shown" });
  await ada.page.route(`${CALLBACK}**`, (route) => route.fulfill({ body: "back" }));
  await ada.page.goto(url.href);
  ensure((await ada.page.locator("h1").textContent()).includes("Shown"), "the page does not say who asks");
  await ada.page.locator("button[value=allow]").click();
  await ada.page.waitForURL((to) => to.href.startsWith(`${CALLBACK}?`), { timeout: 5000 });
  const back = new URL(ada.page.url());
  const answer = await oidc.authorizationCodeGrant(shown, back, { pkceCodeVerifier: verifier, expectedState: "shown", idTokenExpected: true });
  const { amr } = answer.claims();
  ensure(answer.access_token && amr.includes("user"), `amr ${amr}`);
});

await step("A2 a thousand authorisations with verifiers of the library's own", async () => {
  let refusedOnes = 0;
  for (let i = 0; i < 1000; i += 1) {
    const verifier = oauth.generateRandomCodeVerifier();
    const url = new URL(config.serverMetadata().authorization_endpoint);
    url.search = new URLSearchParams({
      client_id: config.clientMetadata().client_id,
      redirect_uri: CALLBACK,
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
  for (const token of [start, one, two, next].map((answer) => answer.access_token)) {
    const seen = JSON.stringify(await oidc.tokenIntrospection(config, token));
    ensure(seen === '{"active":false}', `the family lives on: ${seen}`);
  }
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
  // What a page may not do is heard of.
  await ada.page.goto(at("/login?switch"));
  await ada.page.evaluate(() => document.body.append(Object.assign(new Image(), { src: "https://elsewhere.example/x.png" })));
  const heard = () => violations.some((text) => text.includes("event: img-src"));
  for (let tries = 0; !heard() && tries < 50; tries += 1) await ada.page.waitForTimeout(100);
  ensure(heard(), `no event of a foreign image: ${violations}`);
  violations.length = 0;
  const sizes = [];
  const page = await ada.context.newPage();
  page.on("response", async (answer) => {
    const url = answer.url();
    ensure(url.startsWith(issuer), `a foreign request: ${url}`);
    sizes.push((await answer.body().catch(() => Buffer.alloc(0))).length);
  });
  await page.goto(at("/login?switch"), { waitUntil: "networkidle" });
  const all = sizes.reduce((sum, size) => sum + size, 0);
  ensure(all <= 30 * 1024, `the sign-in page has ${all} bytes`);
});

await step("A25 a mail that is there and one that is not are answered alike", () => mails("root@example.com"));
await step("A25 wrong secrets of clients that are there and of others, too", secrets);

writeFileSync(given.ceremonies, JSON.stringify(await ceremonies()));
await finish();
