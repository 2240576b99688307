// npm `jose` verifies tokens of the server from its published keys.

import { pathToFileURL } from "node:url";

const given = JSON.parse(process.env.ACCEPT);
const { createRemoteJWKSet, jwtVerify } = await import(pathToFileURL(given.jose).href);
let [passed, failed] = [0, 0];

async function step(name, check) {
  try {
    await check();
    passed += 1;
    console.log(`ok    jose (${given.phase}): ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  jose (${given.phase}): ${name}\n      ${error.name}: ${error.message}`);
  }
}

function ensure(holds, text) {
  if (!holds) throw new Error(text);
}

const keys = createRemoteJWKSet(new URL(given.url + "/.well-known/jwks.json"));
const wanted = { issuer: given.issuer, audience: "api", typ: "at+jwt" };
for (const { name, token, alg } of given.tokens) {
  await step(`${name} verifies`, async () => {
    const { protectedHeader, payload } = await jwtVerify(token, keys, { ...wanted, algorithms: [alg] });
    ensure(protectedHeader.alg === alg, protectedHeader.alg);
    ensure(payload.scope === "user", payload.scope);
  });
  await step(`${name} is not for another audience`, async () => {
    const error = await jwtVerify(token, keys, { ...wanted, audience: "bridge" }).then(
      () => null,
      (error) => error,
    );
    ensure(error?.code === "ERR_JWT_CLAIM_VALIDATION_FAILED", String(error));
  });
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
