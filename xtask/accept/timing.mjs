// A25: whether a mail or a client is there can be told neither from the form of an answer nor from the time it takes.

import { at, ensure, given, issuer } from "./harness.mjs";

const median = (times) => [...times].sort((a, b) => a - b)[times.length >> 1];

// Asks for each kind in turn, so that whatever else the computer does falls on both. The medians are for the report, where they lie
// within 5 % on a quiet computer; what is far apart fails anywhere.
async function alike(rounds, kinds) {
  const times = kinds.map(() => []);
  const shapes = kinds.map(() => new Set());
  for (let round = -20; round < rounds; round += 1) {
    // Who comes first would find colder caches.
    const order = round % 2 === 0 ? [0, 1] : [1, 0];
    for (const kind of order) {
      const began = performance.now();
      const answer = await kinds[kind](Math.max(round, 0));
      const body = await answer.json();
      const took = performance.now() - began;
      if (round < 0) continue;
      times[kind].push(took);
      shapes[kind].add(JSON.stringify([answer.status, shape(body)]));
    }
  }
  const told = shapes.map((seen) => [...seen].sort().join("\n"));
  ensure(told[0] === told[1], `shapes differ:\n${told[0]}\n---\n${told[1]}`);
  const [one, other] = times.map(median);
  const apart = Math.abs(one - other) / Math.max(one, other);
  console.log(`  medians ${one.toFixed(2)} ms and ${other.toFixed(2)} ms, ${(apart * 100).toFixed(1)} % apart`);
  ensure(apart < 0.25, `the medians are ${(apart * 100).toFixed(1)} % apart`);
}

// Names and types of an answer; of lists what their first item is.
function shape(value) {
  if (Array.isArray(value)) return value.slice(0, 1).map(shape);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.keys(value).sort().map((name) => [name, shape(value[name])]));
  }
  return typeof value;
}

export async function mails(known) {
  const start = (email) =>
    fetch(at("/api/v1/core/oauth/webauthn/auth/start"), {
      method: "POST",
      headers: { "content-type": "application/json", origin: new URL(issuer).origin },
      body: JSON.stringify({ email }),
    });
  await alike(1000, [() => start(known), (n) => start(`nobody-${n}@example.com`)]);
}

// Few enough for each client and for this network that nothing is refused unseen (ID-95).
export async function secrets() {
  const headers = { authorization: `Bearer ${given.admin_token}`, "content-type": "application/json" };
  for (let n = 0; n < 12; n += 1) {
    const body = JSON.stringify({ client_id: `timed-${n}`, client_name: "timed", grant_types: ["client_credentials"], scope: "user" });
    const made = await fetch(at("/api/v1/core/oauth/clients"), { method: "POST", headers, body });
    ensure(made.status === 201, await made.text());
  }
  const ask = (id) =>
    fetch(at("/api/v1/core/oauth/token"), {
      method: "POST",
      headers: {
        authorization: `Basic ${btoa(`${id}:sps_${"A".repeat(43)}`)}`,
        "content-type": "application/x-www-form-urlencoded",
      },
      body: "grant_type=client_credentials&scope=user",
    });
  let count = 0;
  const next = () => (count = (count + 1) % 12);
  await alike(100, [() => ask(`timed-${next()}`), () => ask(`there-is-no-${next()}`)]);
}
