// Every page that the other cases do not come by, in a real browser: registering, both halves of a sign-in, news of an account, and
// an answer that is passed on by form. Run against an installation that takes passkeys without user verification and passwords.

import { createServer } from "node:http";
import { at, browser, ensure, finish, insecure, issuer, oidc, person, shoot, step, violations } from "./harness.mjs";

const PASSWORD = "purple-otter-sings";

/** A browser whose authenticator cannot tell who uses it. */
async function unverified(options = {}) {
  const who = await person(options);
  await who.session.send("WebAuthn.removeVirtualAuthenticator", { authenticatorId: who.authenticator });
  const { authenticatorId } = await who.session.send("WebAuthn.addVirtualAuthenticator", {
    options: {
      protocol: "ctap2",
      ctap2Version: "ctap2_1",
      transport: "usb",
      hasResidentKey: false,
      hasUserVerification: false,
      automaticPresenceSimulation: true,
    },
  });
  return { ...who, authenticator: authenticatorId };
}

/** Waits for an address; what the page says instead is the reason. */
async function reaches(page, address) {
  await page.waitForURL(address, { timeout: 5000 }).catch(async () => {
    throw new Error(`at ${page.url()}: ${await page.locator("main").innerText()}`);
  });
}

const nora = await unverified({ locale: "en-GB" });

await step("somebody registers, sets the other half of their sign-in, and comes to a page that says so", async () => {
  await nora.page.goto(at("/login?register"));
  await shoot(nora.page, "register");
  await nora.page.fill("#username", "nora");
  await nora.page.fill("#email", "nora@example.com");
  await nora.page.fill("#full_name", "Nora Example");
  await nora.page.locator("form[data-ceremony=register] button").click();
  await reaches(nora.page, /\/login\/password/);
  await shoot(nora.page, "first-password");
  await nora.page.fill("#new", "passwordpassword");
  await nora.page.keyboard.press("Enter");
  await nora.page.locator("[role=alert]:visible").waitFor();
  ensure((await nora.page.locator("#new").inputValue()) === "", "the password is shown again");
  await nora.page.fill("#new", PASSWORD);
  await nora.page.keyboard.press("Enter");
  await reaches(nora.page, /\/login\?done/);
  await shoot(nora.page, "done");
});

await step("what is next is there: recovery codes, the documents, signing out", async () => {
  await nora.page.goto(at("/"));
  ensure((await nora.page.locator(".person").innerText()).includes("Nora Example"), "the root does not say who is signed in");
  await shoot(nora.page, "home");
  const text = await (await fetch(at(await nora.page.locator("a[href$='identity.md']").getAttribute("href")))).text();
  ensure(text.startsWith("# Identity"), text.slice(0, 80));
  await nora.page.goto(at("/login"));
  await nora.page.locator("form.offer button").click();
  await nora.page.locator(".codes li").first().waitFor();
  ensure((await nora.page.locator(".codes li").count()) === 10, "no ten codes");
  await shoot(nora.page, "recovery-codes");
  await nora.page.locator("a.button").click();
  ensure((await nora.page.locator("form.offer").innerText()).includes("10"), "the codes are not counted");
  await nora.page.locator("a[href$='/logout']").click();
  ensure((await nora.page.locator(".person").innerText()).includes("nora@example.com"), "nobody knows who signs out");
});

await step("whoever adds a passkey too late is told to sign in, and how", async () => {
  const who = await person({ locale: "en-GB" });
  await who.page.goto(at("/webauthn/link"));
  await who.page.locator("form[data-ceremony=link] button").click();
  await who.page.locator("[data-again] a").click();
  await reaches(who.page, /\/login\?again/);
  await who.page.locator("[role=alert]:visible").waitFor();
  await shoot(who.page, "login-again");
  await who.context.close();
});

await step("the form of the sign-in page takes the password", async () => {
  const context = await browser.newContext({ locale: "en-GB" });
  const page = await context.newPage();
  await page.goto(at("/login"));
  await shoot(page, "login-password");
  await page.fill("#username", "nora");
  await page.fill("#password", `${PASSWORD}x`);
  await page.keyboard.press("Enter");
  await page.locator("[role=alert]:visible").waitFor();
  ensure((await page.locator("#password").inputValue()) === "", "the password is shown again");
  await shoot(page, "login-fault");
  await page.fill("#username", "nora");
  await page.fill("#password", PASSWORD);
  await page.keyboard.press("Enter");
  await reaches(page, /\/login\?done/);
  await page.locator(".notices li").first().waitFor();
  await shoot(page, "done-news");
  // Put away without a program.
  const plain = await browser.newContext({ locale: "de-DE", javaScriptEnabled: false });
  await plain.addCookies(await context.cookies(issuer));
  const read = await plain.newPage();
  await read.goto(at("/login?done"));
  const count = await read.locator(".notices li").count();
  await read.locator(".notices button").first().click();
  await reaches(read, /\/login\?done/);
  ensure((await read.locator(".notices li").count()) === count - 1, "the notice is still there");
  await Promise.all([plain.close(), context.close()]);
});

await step("a passkey that does not verify its user leads to the password", async () => {
  await nora.context.clearCookies();
  await nora.page.goto(at("/login"));
  await nora.page.fill("#email", "nora@example.com");
  await nora.page.locator("form[data-ceremony=auth] button").click().catch(() => {});
  await reaches(nora.page, /\/login\?step=/);
  await shoot(nora.page, "second");
  await nora.page.fill("#password", PASSWORD);
  await nora.page.keyboard.press("Enter");
  await reaches(nora.page, /\/login\?done/);
});

/** A client's own callback, which tells what it was sent. */
async function callback() {
  const got = {};
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part) => (body += part));
    request.on("end", () => {
      if (request.method === "POST") got.form = new URLSearchParams(body);
      if (request.method === "POST") got.referer = request.headers.referer;
      response.end("<!doctype html><title>back</title>back");
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { got, server, uri: `http://127.0.0.1:${server.address().port}/cb` };
}

await step("an answer is passed on by form, by itself and by its button", async () => {
  const { got, server, uri } = await callback();
  const made = await oidc.dynamicClientRegistration(
    new URL(issuer),
    { client_name: "Form reader", redirect_uris: [uri], application_type: "native", token_endpoint_auth_method: "client_secret_basic" },
    undefined,
    insecure,
  );
  for (const javaScriptEnabled of [true, false]) {
    const context = await browser.newContext({ javaScriptEnabled, locale: "en-GB", storageState: await nora.context.storageState() });
    const page = await context.newPage();
    page.on("console", (message) => {
      if (/Content Security Policy|Trusted/.test(message.text())) violations.push(message.text());
    });
    const challenge = await oidc.calculatePKCECodeChallenge(oidc.randomPKCECodeVerifier());
    const url = oidc.buildAuthorizationUrl(made, {
      redirect_uri: uri,
      scope: "openid user",
      response_mode: "form_post",
      state: "a b+c&d=\"e",
      prompt: "consent",
      code_challenge: challenge,
      code_challenge_method: "S256",
    });
    await page.goto(url.href);
    await page.locator("button[value=allow]").click();
    if (!javaScriptEnabled) {
      await page.locator("#answer button").waitFor();
      await shoot(page, "form-post");
      await page.locator("#answer button").click();
    }
    await reaches(page, uri);
    ensure(/^ac_/.test(got.form.get("code")) && got.form.get("state") === "a b+c&d=\"e", `${got.form}`);
    ensure(got.form.get("iss") === issuer, `iss ${got.form.get("iss")}`);
    ensure(!got.referer, `a referrer: ${got.referer}`);
    delete got.form;
    await context.close();
  }
  server.close();
});

await step("the pages are there in German, in a narrow window", async () => {
  const who = await person({ locale: "de-DE" });
  for (const [path, name] of [["/login?register", "register"], ["/login", "login"], ["/login?recovery", "recovery"]]) {
    await who.page.goto(at(path));
    ensure((await who.page.locator("html").getAttribute("lang")) === "de", path);
    await shoot(who.page, `${name}-german`);
  }
  for (const done of ["allowed", "denied"]) {
    await nora.page.goto(at(`/device?done=${done}`));
    await shoot(nora.page, `device-${done}`);
  }
});

await step("every control of a page can be reached and is named", async () => {
  for (const path of ["/", "/login", "/login?switch", "/login?register", "/login?recovery", "/device"]) {
    await nora.page.goto(at(path));
    const bare = await nora.page.evaluate(() =>
      [...document.querySelectorAll("input:not([type=hidden]), button, a")]
        .filter((control) => !(control.labels?.length || control.textContent.trim() || control.getAttribute("aria-label")))
        .map((control) => control.outerHTML),
    );
    ensure(bare.length === 0, `${path}: ${bare}`);
    ensure((await nora.page.locator("h1").count()) === 1, `${path} has no heading of its own`);
  }
  ensure(violations.length === 0, violations.join("\n"));
});

await finish();
