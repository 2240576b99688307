// Servers and suites of others: the MCP conformance release's `authorization` command (A18), `oidc-provider` as the issuer of
// somebody else's tokens, and the same `oidc-provider` under the cases that ours passes (A20).

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { at, authorize, cookies, ensure, finish, given, insecure, issuer, jose, oidc, refused, step } from "./harness.mjs";
import { invited } from "./passkeys.mjs";
import { Peer } from "./peer.mjs";
import { at as clientsAt, protocol } from "./protocol.mjs";

const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS = "urn:ietf:params:oauth:token-type:access_token";
const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";

const admin = { authorization: `Bearer ${given.admin_token}`, "content-type": "application/json" };

async function client(members) {
  const answer = await fetch(at("/api/v1/admin/clients"), { method: "POST", headers: admin, body: JSON.stringify(members) });
  ensure(answer.status === 201, `${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

const peter = await invited("peter");

await step("A18 the conformance suite's authorization scenarios, in Chromium", async () => {
  const { client_id } = await client({
    client_name: "conformance",
    token_endpoint_auth_method: "none",
    application_type: "native",
    redirect_uris: ["http://127.0.0.1:3000/callback"],
    grant_types: ["authorization_code"],
    scope: "user mcp",
  });
  const results = mkdtempSync(join(tmpdir(), "conformance-"));
  const words = ["authorization", "--url", issuer, "--client-id", client_id, "--port", `${given.callback_port}`, "--output-dir", results];
  const suite = spawn(process.execPath, [given.modules["@modelcontextprotocol/conformance"], ...words]);
  let said = "";
  let opened;
  suite.stdout.on("data", (text) => {
    said += text;
    const [link] = said.match(/^http\S+\/authorize\?\S+$/m) ?? [];
    if (link && !opened) opened = sign(link);
  });
  suite.stderr.on("data", (text) => (said += text));
  const sign = async (link) => {
    await peter.page.goto(link);
    await peter.page.locator("button[value=allow]").click();
    await peter.page.waitForURL(/127\.0\.0\.1:\d+\/callback\?code=/);
  };
  const ended = new Promise((resolve) => suite.on("close", resolve));
  const timeout = setTimeout(() => suite.kill(), 60_000);
  const exit = await ended;
  clearTimeout(timeout);
  ensure(opened, `no page was asked for: ${said.slice(-600)}`);
  await opened;
  ensure(exit === 0, `ended with ${exit}: ${said.slice(-1200)}`);
  const checks = readdirSync(results, { recursive: true })
    .filter((name) => name.endsWith("checks.json"))
    .flatMap((name) => JSON.parse(readFileSync(join(results, name), "utf8")));
  const wanted = ["authorization-server-metadata", "authorization-server-metadata-cimd", "authorization-code-grant"];
  for (const id of wanted) ensure(checks.some((check) => check.id === id && check.status === "SUCCESS"), `${id} did not succeed`);
  const bad = checks.filter((check) => check.status !== "SUCCESS");
  ensure(bad.length === 0, bad.map((check) => `${check.id}: ${check.status} ${check.errorMessage}`).join("; "));
});

// ---- Tokens of another issuer. ----

const peer = await Peer.start(given.peer_port);
let exchanging;
let actor;

const exchanged = (token, type, extra) =>
  oidc.genericGrantRequest(exchanging, EXCHANGE, { subject_token: token, subject_token_type: type, scope: "user", ...extra });

await step("A20 oidc-provider: its discovery and its keys are read", async () => {
  const config = await oidc.discovery(new URL(peer.issuer), "x", undefined, undefined, insecure);
  ensure(config.serverMetadata().jwks_uri === `${peer.issuer}/jwks`, config.serverMetadata().jwks_uri);
});

await step("A20 oidc-provider: an ID token of its account becomes a token of ours, which says who acts", async () => {
  const made = await client({ client_name: "exchanger", grant_types: [EXCHANGE], scope: "user mcp" });
  actor = made.client_id;
  exchanging = await oidc.discovery(new URL(issuer), made.client_id, made.client_secret, undefined, insecure);
  const asked = peer.asked("/jwks");
  const answer = await exchanged(await peer.idToken("peter"), ID_TOKEN);
  ensure(answer.issued_token_type === ACCESS && !answer.refresh_token, JSON.stringify(answer));
  ensure(peer.asked("/jwks") === asked + 1, "its keys were not asked for");
  const claims = jose.decodeJwt(answer.access_token);
  const me = await (await fetch(at("/api/v1/core/users/me"), { headers: { cookie: await cookies(peter) } })).json();
  ensure(claims.sub === me.id && claims.act.client_id === actor && claims.scope === "user", JSON.stringify(claims));
  const opened = await fetch(at("/api/v1/core/users/me"), { headers: { authorization: `Bearer ${answer.access_token}` } });
  ensure(opened.status === 200, `${opened.status}`);
});

await step("A20 oidc-provider: a signed access token counts once", async () => {
  const token = await peer.accessToken("peter");
  ensure(jose.decodeProtectedHeader(token).typ === "at+jwt", "no signed access token");
  await exchanged(token, ACCESS);
  await refused(() => exchanged(token, ACCESS), "invalid_grant");
});

await step("A20 oidc-provider: nobody without a verified mail, and no token for somebody else", async () => {
  await refused(async () => exchanged(await peer.idToken("unverified"), ID_TOKEN), "invalid_grant");
  await refused(async () => exchanged(await peer.idToken("peter", "other-app"), ID_TOKEN), "invalid_grant");
  const token = await peer.idToken("peter");
  const [head, body, signature] = token.split(".");
  const changed = Buffer.from(JSON.stringify({ ...jose.decodeJwt(token), sub: "root" })).toString("base64url");
  ensure(changed !== body, "nothing was changed");
  await refused(() => exchanged([head, changed, signature].join("."), ID_TOKEN), "invalid_grant");
  await refused(async () => exchanged(await peer.idToken("peter"), ID_TOKEN, { scope: "admin" }), "invalid_scope");
});

await step("A20 a look-alike of the issuer is nobody", async () => {
  const twin = await Peer.start(given.twin_port);
  await refused(async () => exchanged(await twin.idToken("peter"), ID_TOKEN), "invalid_grant");
  ensure(twin.asked("/jwks") === 0, "its keys were asked for");
  await twin.stop();
});

await step("A26 openid-client: a person's own token is exchanged, and ends with the session", async () => {
  const { registered, tokens } = clientsAt({
    issuer,
    scope: "openid user mcp",
    authorize: (url) => authorize(peter, url),
  });
  const app = await registered({ client_name: "front", grant_types: ["authorization_code"] });
  const own = await tokens(app);
  const answer = await exchanged(own.access_token, ACCESS);
  const claims = jose.decodeJwt(answer.access_token);
  ensure(claims.act.client_id === actor && claims.exp <= jose.decodeJwt(own.access_token).exp, JSON.stringify(claims));
  await oidc.tokenRevocation(app, own.access_token);
  await refused(() => exchanged(own.access_token, ACCESS), "invalid_grant");
});

// ---- The same cases at the peer. ----

await step("A20 the cases A1, A3, A6 and A7 at oidc-provider; what comes out otherwise is told", async () => {
  const server = {
    issuer: peer.issuer,
    scope: "openid email offline_access",
    email: "peter@example.com",
    prompt: "consent",
    authorize: (url) => peer.authorize(url, "peter"),
    allowDevice: (begun) => peer.allowDevice(begun, "peter"),
  };
  let same = 0;
  for (const [name, check] of protocol(server)) {
    const error = await Promise.resolve(check()).then(() => null, (error) => error);
    if (error) console.log(`      oidc-provider differs: ${name}: ${error.message.slice(0, 200)}`);
    else same += 1;
  }
  // What cannot even register or hand out a code was not compared.
  ensure(server.config && same >= 4, `only ${same} cases ran through`);
  console.log(`      oidc-provider does the same in ${same} cases`);
});

await peer.stop();
await finish();
