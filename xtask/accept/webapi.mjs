// oauth4webapi over everything that it knows: discovery, registration, code and PKCE, refresh and replay, the device grant, token
// exchange, introspection, revocation. It checks each answer by itself; here it is asked what came of it.

import { authorize, ensure, finish, given, issuer, oauth, refused, step } from "./harness.mjs";
import { invited } from "./passkeys.mjs";
import { CALLBACK } from "./protocol.mjs";

const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";
const ACCESS = "urn:ietf:params:oauth:token-type:access_token";

const http = { [oauth.allowInsecureRequests]: true };
const walter = await invited("walter");
let server;
let client;
let auth;
let tokens;

async function register(metadata, token) {
  const options = { ...http, initialAccessToken: token };
  const answer = await oauth.dynamicClientRegistrationRequest(server, metadata, options);
  return oauth.processDynamicClientRegistrationResponse(answer);
}

async function refresh(token, extra = {}) {
  const answer = await oauth.refreshTokenGrantRequest(server, client, auth, token, { ...http, additionalParameters: extra });
  return oauth.processRefreshTokenResponse(server, client, answer);
}

async function seen(token) {
  const answer = await oauth.introspectionRequest(server, client, auth, token, http);
  return oauth.processIntrospectionResponse(server, client, answer);
}

await step("oauth4webapi: discovery, both documents", async () => {
  for (const algorithm of ["oidc", "oauth2"]) {
    const answer = await oauth.discoveryRequest(new URL(issuer), { ...http, algorithm });
    server = await oauth.processDiscoveryResponse(new URL(issuer), answer);
    ensure(server.code_challenge_methods_supported.join() === "S256", `${server.code_challenge_methods_supported}`);
  }
});

await step("oauth4webapi: registration", async () => {
  client = await register({ client_name: "webapi", redirect_uris: [CALLBACK], grant_types: ["authorization_code", "refresh_token"] });
  auth = oauth.ClientSecretPost(client.client_secret);
  ensure(client.client_secret_expires_at === 0 && client.registration_access_token, "no management token");
});

await step("oauth4webapi: code, PKCE, nonce and max_age", async () => {
  const [verifier, state, nonce] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState(), oauth.generateRandomNonce()];
  const url = new URL(server.authorization_endpoint);
  url.search = new URLSearchParams({
    client_id: client.client_id,
    redirect_uri: CALLBACK,
    response_type: "code",
    scope: "openid offline_access user",
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
    max_age: "600",
    state,
    nonce,
  });
  const back = oauth.validateAuthResponse(server, client, await authorize(walter, url), state);
  const answer = await oauth.authorizationCodeGrantRequest(server, client, auth, back, CALLBACK, verifier, http);
  tokens = await oauth.processAuthorizationCodeResponse(server, client, answer, { expectedNonce: nonce, maxAge: 600, requireIdToken: true });
  const info = await oauth.userInfoRequest(server, client, tokens.access_token, http);
  await oauth.processUserInfoResponse(server, client, oauth.getValidatedIdTokenClaims(tokens).sub, info);
  // The same code again, after its use.
  const again = await oauth.authorizationCodeGrantRequest(server, client, auth, back, CALLBACK, verifier, http);
  await refused(() => oauth.processAuthorizationCodeResponse(server, client, again, { expectedNonce: nonce }), "invalid_grant");
  ensure(!(await seen(tokens.access_token)).active, "the token outlived a second use of its code");
});

await step("oauth4webapi: refresh narrows, and a replay ends the family", async () => {
  tokens = await code("user mcp");
  ensure(!tokens.id_token, "an ID token that nobody asked for");
  const narrow = await refresh(tokens.refresh_token, { scope: "user" });
  ensure(narrow.scope === "user", narrow.scope);
  const wide = await refresh(narrow.refresh_token);
  ensure(wide.scope.split(" ").sort().join(" ") === "mcp user", wide.scope);
  ensure((await seen(wide.access_token)).active, "the new token is not active");
  await refused(() => refresh(tokens.refresh_token), "invalid_grant");
  for (const token of [wide.access_token, wide.refresh_token]) ensure(!(await seen(token)).active, "the family lives on");
});

await step("oauth4webapi: introspection tells a client of its own tokens alone, and revocation ends one", async () => {
  const demo = { client_id: given.client_id };
  const proof = oauth.ClientSecretBasic(given.client_secret);
  const answer = await oauth.clientCredentialsGrantRequest(server, demo, proof, { scope: "user" }, http);
  const { access_token } = await oauth.processClientCredentialsResponse(server, demo, answer);
  const own = await oauth.introspectionRequest(server, demo, proof, access_token, http);
  const told = await oauth.processIntrospectionResponse(server, demo, own);
  ensure(told.active && told.client_id === given.client_id && told.scope === "user", JSON.stringify(told));
  ensure(JSON.stringify(await seen(access_token)) === '{"active":false}', "another client is told");
  await oauth.processRevocationResponse(await oauth.revocationRequest(server, demo, proof, access_token, http));
  const after = await oauth.introspectionRequest(server, demo, proof, access_token, http);
  ensure(!(await oauth.processIntrospectionResponse(server, demo, after)).active, "still active");
});

await step("oauth4webapi: the device grant, refused by the person and allowed", async () => {
  const device = await register({ client_name: "lamp", token_endpoint_auth_method: "none", grant_types: [DEVICE] });
  const none = oauth.None();
  for (const decision of ["deny", "allow"]) {
    const begun = await oauth.processDeviceAuthorizationResponse(
      server,
      device,
      await oauth.deviceAuthorizationRequest(server, device, none, { scope: "user" }, http),
    );
    await walter.page.goto(begun.verification_uri_complete);
    await walter.page.locator(`button[value=${decision}]`).click();
    await walter.page.waitForURL(/done=/);
    const ask = async () => oauth.processDeviceCodeResponse(server, device, await oauth.deviceCodeGrantRequest(server, device, none, begun.device_code, http));
    if (decision === "deny") await refused(ask, "access_denied");
    else {
      const answer = await ask();
      ensure(answer.scope === "user" && !answer.refresh_token, JSON.stringify(Object.keys(answer)));
      await refused(ask, "invalid_grant");
    }
  }
});

await step("oauth4webapi: token exchange, once more and with less", async () => {
  const made = await register({ client_name: "swap", grant_types: [EXCHANGE], scope: "user mcp" }, given.admin_token);
  const proof = oauth.ClientSecretBasic(made.client_secret);
  const fresh = await code("user mcp");
  const exchange = async (subject, scope) => {
    const answer = await oauth.genericTokenEndpointRequest(server, made, proof, EXCHANGE, { subject_token: subject, subject_token_type: ACCESS, scope }, http);
    return oauth.processGenericTokenEndpointResponse(server, made, answer);
  };
  const answer = await exchange(fresh.access_token, "mcp");
  ensure(answer.scope === "mcp" && answer.issued_token_type === ACCESS && !answer.refresh_token, JSON.stringify(answer));
  await refused(() => exchange(fresh.access_token, "hook:govern"), "invalid_scope");
  await oauth.processRevocationResponse(await oauth.revocationRequest(server, client, auth, fresh.refresh_token, http));
  await refused(() => exchange(fresh.access_token, "mcp"), "invalid_grant");
});

/** Tokens of the person for this client. */
async function code(scope) {
  const verifier = oauth.generateRandomCodeVerifier();
  const url = new URL(server.authorization_endpoint);
  url.search = new URLSearchParams({
    client_id: client.client_id,
    redirect_uri: CALLBACK,
    response_type: "code",
    scope,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
  });
  const back = oauth.validateAuthResponse(server, client, await authorize(walter, url), oauth.expectNoState);
  const answer = await oauth.authorizationCodeGrantRequest(server, client, auth, back, CALLBACK, verifier, http);
  return oauth.processAuthorizationCodeResponse(server, client, answer);
}

await finish();
