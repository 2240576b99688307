// Passkeys in a browser (A13) and what people do with several of them: what is refused and on record, a second passkey, and
// coming back in with a recovery code.

import { at, browser, cookies, ensure, given, issuer, person, shoot, step } from "./harness.mjs";

const admin = { authorization: `Bearer ${given.admin_token}`, "content-type": "application/json" };

async function asAdmin(path, body) {
  const answer = await fetch(at(path), { method: body ? "POST" : "GET", headers: admin, body: body && JSON.stringify(body) });
  ensure(answer.ok, `${path} answered ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

/** Somebody new, who follows a link that an administrator made and registers a passkey. */
export async function invited(username) {
  const { setup_url } = await asAdmin("/api/v1/admin/setup-link", { email: `${username}@example.com`, roles: ["user"] });
  const who = await person();
  await who.page.goto(setup_url);
  await who.page.locator("#username").fill(username);
  await who.page.locator("form[data-ceremony=register] button").click();
  await who.page.waitForURL((url) => !url.pathname.startsWith("/webauthn/link"));
  return who;
}

/** What the ledger's newest entries of a kind say. */
async function entries(kind) {
  return (await asAdmin(`/api/v1/admin/audit?kind=${kind}&limit=50`)).items;
}

/** How many of the newest entries of a kind have a reason. */
const told = async (kind, reason) => (await entries(kind)).filter((entry) => entry.reason === reason).length;

/** The pages' own program does ceremonies as they should be; here one is done as somebody else would. */
const ceremony = (page, asked) =>
  page.evaluate(async ({ verification, twice, finishElsewhere }) => {
    const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0)).buffer;
    const text = (buffer) =>
      btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
    const post = async (part, body) => {
      const answer = await fetch(`/api/v1/core/oauth/webauthn/auth/${part}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      return { status: answer.status, body: await answer.json() };
    };
    const begun = (await post("start", {})).body;
    const key = begun.options.publicKey;
    key.challenge = bytes(key.challenge);
    if (verification) key.userVerification = verification;
    const shown = await navigator.credentials.get({ publicKey: key });
    const { response } = shown;
    const credential = {
      id: shown.id,
      rawId: text(shown.rawId),
      type: shown.type,
      response: {
        authenticatorData: text(response.authenticatorData),
        clientDataJSON: text(response.clientDataJSON),
        signature: text(response.signature),
        userHandle: text(response.userHandle),
      },
      clientExtensionResults: {},
    };
    const finish = { challenge_id: begun.challenge_id, credential };
    if (finishElsewhere) return { finish };
    const first = await post("finish", finish);
    return { first, second: twice && (await post("finish", finish)) };
  }, asked);

const is = (answer, status, error) =>
  ensure(answer.status === status && answer.body.error === error, `${answer.status} ${JSON.stringify(answer.body)}`);

/** A page that lies open longer than its challenge counts: the browser's clock is put forward. */
export async function renewal() {
  await step("passkeys are offered anew before the challenge of an open page ends", async () => {
    const olga = await invited("olga");
    const { session, page, context, authenticator: authenticatorId } = olga;
    const { credentials } = await session.send("WebAuthn.getCredentials", { authenticatorId });
    await session.send("WebAuthn.clearCredentials", { authenticatorId });
    await context.clearCookies();
    const begun = [];
    page.on("response", async (answer) => {
      if (!answer.url().endsWith("/webauthn/auth/start")) return;
      const { challenge_id } = await answer.json();
      begun.push({ id: challenge_id, ...answer.request().postDataJSON() });
    });
    const count = async (wanted) => {
      for (let wait = 0; wait < 50 && begun.length < wanted; wait += 1) await new Promise((done) => setTimeout(done, 100));
      ensure(begun.length === wanted, `${begun.length} ceremonies instead of ${wanted}`);
    };
    await page.clock.install();
    await page.goto(at("/login"));
    await count(1);
    ensure(begun[0].mediation === "conditional", JSON.stringify(begun));
    await page.clock.fastForward(239_000);
    await new Promise((done) => setTimeout(done, 300));
    await count(1);
    await page.clock.fastForward(2_000);
    await count(2);
    ensure(begun[1].id !== begun[0].id && begun[1].mediation === "conditional", JSON.stringify(begun));
    ensure(await page.locator("[data-fault]").isHidden(), "the ended ceremony is told as a fault");
    // The one that is offered now signs in.
    for (const credential of credentials) await session.send("WebAuthn.addCredential", { authenticatorId, credential });
    await page.clock.fastForward(241_000);
    await page.waitForURL(at("/login?done"));
    ensure(begun.length === 3, `${begun.length} ceremonies`);
    await context.close();
  });
}

/** Runs the cases; `ada` is signed in as the first administrator. */
export async function passkeys(ada) {
  await renewal();
  let mallory;
  await step("A13 a passkey that did not verify its user signs nobody in", async () => {
    mallory = await invited("mallory");
    const before = await told("oauth.signin_failed", "not_verified");
    await mallory.session.send("WebAuthn.setUserVerified", { authenticatorId: mallory.authenticator, isUserVerified: false });
    is((await ceremony(mallory.page, { verification: "discouraged" })).first, 401, "invalid_credential");
    await mallory.session.send("WebAuthn.setUserVerified", { authenticatorId: mallory.authenticator, isUserVerified: true });
    ensure((await told("oauth.signin_failed", "not_verified")) === before + 1, "not on record");
  });

  await step("A13 a ceremony ends once", async () => {
    const before = await told("oauth.signin_failed", "ceremony_not_open");
    const { first, second } = await ceremony(mallory.page, { twice: true });
    ensure(first.status === 200, `${first.status} ${JSON.stringify(first.body)}`);
    is(second, 400, "invalid_request");
    ensure((await told("oauth.signin_failed", "ceremony_not_open")) === before + 1, "not on record");
  });

  await step("A13 a ceremony ends in the browser where it began", async () => {
    const before = await told("oauth.signin_failed", "ceremony_not_open");
    const { finish } = await ceremony(mallory.page, { finishElsewhere: true });
    const other = await browser.newContext();
    const page = await other.newPage();
    await page.goto(at("/login"));
    const answer = await page.evaluate(async (body) => {
      const answer = await fetch("/api/v1/core/oauth/webauthn/auth/finish", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      return { status: answer.status, body: await answer.json() };
    }, finish);
    is(answer, 400, "invalid_request");
    ensure((await told("oauth.signin_failed", "ceremony_not_open")) === before + 1, "not on record");
    await other.close();
  });

  await step("A13 the last passkey stays", async () => {
    const headers = { cookie: await cookies(mallory), origin: issuer };
    const listed = await (await fetch(at("/api/v1/core/users/me/passkeys"), { headers })).json();
    ensure(listed.items.length === 1, JSON.stringify(listed));
    const answer = await fetch(at(`/api/v1/core/users/me/passkeys/${listed.items[0].id}`), { method: "DELETE", headers });
    ensure(answer.status === 409, `${answer.status} ${await answer.text()}`);
    ensure((await told("oauth.webauthn.removed", "last_way_to_sign_in")) > 0, "not on record");
  });

  await step("A13 a counter that is put back takes the passkey out of use", async () => {
    const { session, authenticator: authenticatorId } = mallory;
    const { credentials } = await session.send("WebAuthn.getCredentials", { authenticatorId });
    const [credential] = credentials;
    ensure(credential.signCount > 1, `counter ${credential.signCount}`);
    await session.send("WebAuthn.removeCredential", { authenticatorId, credentialId: credential.credentialId });
    await session.send("WebAuthn.addCredential", { authenticatorId, credential: { ...credential, signCount: 0 } });
    is((await ceremony(mallory.page, {})).first, 401, "invalid_credential");
    ensure((await entries("oauth.webauthn.counter")).some((entry) => entry.outcome === "denied"), "not on record");
    // And it stays out of use, whatever it counts now.
    is((await ceremony(mallory.page, {})).first, 401, "invalid_credential");
    await mallory.context.close();
  });

  await step("a second passkey is added, signs in, and the first can go", async () => {
    const { session, page } = ada;
    const headers = { cookie: await cookies(ada), origin: issuer };
    const list = async () => (await (await fetch(at("/api/v1/core/users/me/passkeys"), { headers })).json()).items;
    const [first] = await list();
    // The same authenticator holds one passkey an account: another device takes its place.
    await session.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId: ada.authenticator });
    const options = { protocol: "ctap2", ctap2Version: "ctap2_1", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true };
    ada.authenticator = (await session.send("WebAuthn.addVirtualAuthenticator", { options })).authenticatorId;
    await page.goto(at("/webauthn/link"));
    await shoot(page, "link");
    await page.locator("#name").fill("the other key");
    await page.locator("form[data-ceremony=link] button").click();
    await page.waitForURL((url) => url.pathname !== "/webauthn/link");
    const both = await list();
    ensure(both.length === 2 && both.some((key) => key.name === "the other key"), JSON.stringify(both));
    const { first: signedIn } = await ceremony(page, {});
    ensure(signedIn.status === 200, JSON.stringify(signedIn));
    headers.cookie = await cookies(ada);
    const gone = await fetch(at(`/api/v1/core/users/me/passkeys/${first.id}`), { method: "DELETE", headers });
    ensure(gone.status === 204, `${gone.status} ${await gone.text()}`);
    ensure((await list()).length === 1, "the first is still there");
  });

  await step("a recovery code lets its owner back in, once, and puts everybody else out", async () => {
    const rita = await invited("rita");
    const headers = { cookie: await cookies(rita), origin: issuer };
    const made = await fetch(at("/api/v1/core/users/me/recovery-codes"), { method: "POST", headers });
    const { codes } = await made.json();
    ensure(codes?.length === 10 && codes.every((code) => /^[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){3}$/.test(code)), `${made.status} ${Object.keys(codes ?? {}).length} codes`);
    const found = await person();
    const enter = async () => {
      await found.page.goto(at("/login?recovery"));
      await found.page.locator("#code").fill(codes[0].toLowerCase());
      await found.page.locator("form[action='/login'] button").click();
    };
    await enter();
    await found.page.waitForURL((url) => url.pathname === "/webauthn/link");
    await found.page.locator("form[data-ceremony=link] button").click();
    await found.page.waitForURL((url) => url.pathname !== "/webauthn/link");
    const me = async (who) => fetch(at("/api/v1/core/users/me"), { headers: { cookie: await cookies(who) } });
    const back = await me(found);
    ensure(back.status === 200 && (await back.json()).username === "rita", `${back.status}`);
    ensure((await me(rita)).status === 401, "the lost browser is still signed in");
    await enter();
    await found.page.locator("[role=alert]").waitFor();
    ensure(new URL(found.page.url()).pathname === "/login", `a used code leads to ${found.page.url()}`);
    await Promise.all([rita.context.close(), found.context.close()]);
  });
}
