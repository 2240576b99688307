// What the cases of `accept identity` share: named steps, a browser with a virtual authenticator, and somebody who says yes to
// everything that is asked for.

import { mkdirSync } from "node:fs";
import { pathToFileURL } from "node:url";

export const given = JSON.parse(process.env.ACCEPT);
const load = (name) => import(pathToFileURL(given.modules[name]).href);
export const [oidc, oauth, jose, playwright] = await Promise.all(
  ["openid-client", "oauth4webapi", "jose", "playwright-core"].map(load),
);
const { chromium } = playwright.default ?? playwright;

let [passed, failed] = [0, 0];

export async function step(name, check) {
  try {
    await check();
    passed += 1;
    console.log(`ok    identity: ${name}`);
  } catch (error) {
    failed += 1;
    const cause = error.cause ? `\n      ${JSON.stringify(error.cause)?.slice(0, 400)}` : "";
    console.log(`FAIL  identity: ${name}\n      ${error.name}: ${error.message}${cause}\n      ${error.stack?.split("\n")[1]?.trim()}`);
  }
}

export function ensure(holds, text) {
  if (!holds) throw new Error(text);
}

export async function refused(call, code) {
  const error = await call().then(
    () => null,
    (error) => error,
  );
  ensure(error, `not refused, ${code} was wanted`);
  const found = error.error ?? error.cause?.error ?? error.code;
  ensure(found === code, `${found} instead of ${code}: ${error.message}`);
}

export const issuer = given.url;
export const at = (path) => `${issuer}${path}`;
export const insecure = { execute: [oidc.allowInsecureRequests] };

// ---- The browser. ----

export const browser = await chromium.launch({ executablePath: given.chromium, args: ["--no-sandbox"] });
export const violations = [];

/** What servers sent to begin ceremonies, by their id, and the ceremonies that came to their end in a browser. */
const challenges = new Map();
const begun = [];
const ended = [];

/** The ceremonies that ended: what was asked, which may be read later than the answer, and what was answered. */
export async function ceremonies() {
  await Promise.all(begun);
  return ended.map(({ id, ...ceremony }) => ({ ...ceremony, challenge: challenges.get(id) }));
}

function keep(answer) {
  const [, kind, part] = answer.url().match(/\/webauthn\/(register|auth|link)\/(start|finish)$/) ?? [];
  if (!part || answer.status() !== 200) return;
  if (part === "start") {
    const note = ({ challenge_id, options }) => challenge_id && challenges.set(challenge_id, options.publicKey.challenge);
    begun.push(answer.json().then(note, () => {}));
  } else {
    const { challenge_id, credential } = answer.request().postDataJSON();
    ended.push({ kind, id: challenge_id, credential });
  }
}

export async function person(options = {}) {
  const context = await browser.newContext(options);
  await context.addInitScript(() =>
    document.addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI }) =>
      console.error(`Content Security Policy event: ${effectiveDirective} ${blockedURI}`),
    ),
  );
  const page = await context.newPage();
  page.on("console", (message) => {
    if (/Content Security Policy|Trusted/.test(message.text())) violations.push(message.text());
  });
  const session = await context.newCDPSession(page);
  await session.send("WebAuthn.enable");
  const added = await session.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      ctap2Version: "ctap2_1",
      transport: "internal",
      hasResidentKey: true,
      hasUserVerification: true,
      isUserVerified: true,
      automaticPresenceSimulation: true,
    },
  });
  page.on("response", keep);
  return { context, page, session, authenticator: added.authenticatorId };
}

const shots = given.shots;
mkdirSync(shots, { recursive: true });

export async function shoot(page, name) {
  const looks = [
    ["light", "light", 900],
    ["dark", "dark", 900],
    ["phone", "light", 360],
  ];
  for (const [look, colorScheme, width] of looks) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize({ width, height: 900 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    ensure(!wide, `${name} is wider than ${width} pixels`);
    await page.screenshot({ path: `${shots}/${name}-${look}.png`, fullPage: true });
  }
  await page.emulateMedia({ colorScheme: null });
  await page.setViewportSize({ width: 900, height: 900 });
}

/** The headers of a signed-in browser, for requests without it. */
export async function cookies(who) {
  const all = await who.context.cookies(issuer);
  return all.map((cookie) => `${cookie.name}=${cookie.value}`).join("; ");
}

/** Follows an authorization request as the signed-in person, saying yes to everything; the URL at the client. */
export async function authorize(who, url) {
  const headers = { cookie: await cookies(who), "accept-language": "en" };
  let next = url.href ?? url;
  for (let hop = 0; hop < 8; hop += 1) {
    if (!next.startsWith(issuer)) return new URL(next);
    const answer = await fetch(next, { headers, redirect: "manual" });
    for (const cookie of answer.headers.getSetCookie()) {
      const [pair] = cookie.split(";");
      if (pair.startsWith("sp_flow=")) headers.cookie = `${headers.cookie.replace(/(; )?sp_flow=[^;]*/, "")}; ${pair}`;
    }
    if (answer.status === 303) {
      next = new URL(answer.headers.get("location"), issuer).href;
      continue;
    }
    const text = await answer.text();
    ensure(answer.status === 200 && text.includes('name="decision"'), `${answer.status} at ${next}: ${text.slice(0, 400)}`);
    const form = new URLSearchParams();
    for (const [, name, value] of text.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]*)">/g)) form.append(name, value);
    for (const [, name] of text.matchAll(/name="(scope_[^"]+)"/g)) form.append(name, "1");
    form.append("decision", "allow");
    const decided = await fetch(at("/api/v1/core/oauth/consent"), {
      method: "POST",
      headers: { ...headers, origin: issuer, "content-type": "application/x-www-form-urlencoded" },
      body: form,
      redirect: "manual",
    });
    ensure(decided.status === 303, `consent answered ${decided.status}: ${(await decided.text()).slice(0, 300)}`);
    next = new URL(decided.headers.get("location"), issuer).href;
  }
  throw new Error("the request went round in circles");
}

/** Closes the browser, and says how many steps came out as they must. */
export async function finish() {
  await browser.close();
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed || !passed ? 1 : 0);
}
