// A25: whether a mail or a client is there can be told neither from the form of an answer nor from the time it takes. curl asks and
// takes the times, over one kept connection for each address; openssl's client compares the heads byte by byte, behind TLS, as they
// leave a deployment.

import { execFile, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createServer } from "node:tls";
import { promisify } from "node:util";
import { at, ensure, given, issuer } from "./harness.mjs";

const MEASURED = 1000;
// How often that many are measured: the medians are of all of them. What stands out is measured again, for the server does it each time,
// and the computer once.
const ROUNDS = 3;
const TRIES = 2;
// Asked first on each connection, and not counted: they find cold caches, and refusals that are recorded one by one (ID-111).
const WARMING = 20;
const APART = 0.05;
const CURL = /^(\d{3}) (\d) ([\d.]+) ([\d.]+)$/;

const median = (times) => [...times].sort((a, b) => a - b)[times.length >> 1];

function shuffled(items) {
  const all = [...items];
  for (let last = all.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [all[last], all[other]] = [all[other], all[last]];
  }
  return all;
}

// Names and types of an answer; of lists what their first item is.
function shape(value) {
  if (Array.isArray(value)) return value.slice(0, 1).map(shape);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.keys(value).sort().map((name) => [name, shape(value[name])]));
  }
  return typeof value;
}

/** Asks all of it in one process of curl, from one address: status, time from the request to the answer's first byte, body. */
async function curl(requests, from) {
  const quoted = (text) => JSON.stringify(text);
  const sections = requests.map(({ path, headers, body }) =>
    [
      `url = ${quoted(at(path))}`,
      ...Object.entries(headers).map(([name, value]) => `header = ${quoted(`${name}: ${value}`)}`),
      `data-raw = ${quoted(body)}`,
      `interface = ${quoted(from)}`,
      "ipv4",
      "silent",
      "show-error",
      "max-time = 20",
      `write-out = "\\n%{http_code} %{num_connects} %{time_pretransfer} %{time_starttransfer}\\n"`,
    ].join("\n"),
  );
  const running = promisify(execFile)("curl", ["--config", "-"], { maxBuffer: 1 << 28 });
  running.child.stdin.end(sections.join("\nnext\n"));
  const lines = (await running).stdout.split("\n");
  const answers = [];
  let connections = 0;
  lines.forEach((line, number) => {
    const [, status, connects, before, after] = line.match(CURL) ?? [];
    if (!status) return;
    connections += Number(connects);
    answers.push({ status: Number(status), took: (after - before) * 1000, body: JSON.parse(lines[number - 1]) });
  });
  ensure(answers.length === requests.length, `${answers.length} answers to ${requests.length} requests`);
  ensure(connections === 1, `${connections} connections`);
  return answers;
}

// Addresses of this computer that nobody asked from yet.
let host = 1;

/** Times and shapes of two kinds of requests, each of them made by its number, in random order. So many of them go out from one address. */
async function measure(kinds, perAddress) {
  const times = kinds.map(() => []);
  const shapes = kinds.map(() => new Set());
  let asked = 0;
  for (let left = ROUNDS * 2 * MEASURED; left > 0; left -= perAddress) {
    const order = shuffled(Array.from({ length: perAddress }, (_, n) => n % 2));
    const all = [...Array.from({ length: WARMING }, (_, n) => n % 2), ...order];
    host += 1;
    const answers = await curl(all.map((kind) => kinds[kind]((asked += 1))), `127.0.0.${host}`);
    answers.forEach(({ status, took, body }, number) => {
      shapes[all[number]].add(JSON.stringify([status, shape(body)]));
      if (number >= WARMING) times[all[number]].push(took);
    });
  }
  const told = shapes.map((seen) => [...seen].sort().join("\n"));
  ensure(told[0] === told[1], `shapes differ:\n${told[0]}\n---\n${told[1]}`);
  return times;
}

async function alike(kinds, perAddress = 2 * MEASURED) {
  const reports = [];
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const times = await measure(kinds, perAddress);
    const [one, other] = times.map(median);
    const apart = Math.abs(one - other) / Math.max(one, other);
    const of = times.map((all) => all.length).join(" and ");
    reports.push(`medians ${one.toFixed(3)} ms (there) and ${other.toFixed(3)} ms (not there), ${(apart * 100).toFixed(1)} % apart, of ${of}`);
    console.log(`      ${reports.at(-1)}`);
    if (apart < APART) return;
  }
  throw new Error(reports.join("; "));
}

// ---- What openssl's client sees. ----

/** The server behind TLS, as a proxy before it would have it; ends with the call. */
async function behindTls(call) {
  const file = (name) => readFileSync(join(given.certificates, name));
  const { hostname, port } = new URL(issuer);
  const server = createServer({ cert: file("cert.pem"), key: file("key.pem") }, (socket) => {
    const upstream = connect(Number(port), hostname);
    for (const [one, other] of [[socket, upstream], [upstream, socket]]) one.pipe(other).on("error", () => one.destroy());
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await call(server.address().port);
  } finally {
    server.close();
  }
}

/** Heads and bodies of the answers to requests that are written one behind the other. */
async function client(port, requests) {
  const words = ["s_client", "-quiet", "-verify_return_error", "-CAfile", join(given.certificates, "root.pem"), "-servername", "localhost", "-connect", `127.0.0.1:${port}`];
  const openssl = spawn("openssl", words, { stdio: ["pipe", "pipe", "ignore"] });
  const host = new URL(issuer).host;
  requests.forEach(({ path, headers, body }, number) => {
    const end = number + 1 === requests.length ? { connection: "close" } : {};
    const all = { host, ...headers, ...end, "content-length": Buffer.byteLength(body) };
    const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
    openssl.stdin.write(`POST ${path} HTTP/1.1\r\n${head.join("")}\r\n${body}`);
  });
  const deadline = setTimeout(() => openssl.kill(), 30_000);
  let rest = "";
  for await (const part of openssl.stdout) rest += part.toString("latin1");
  clearTimeout(deadline);
  const answers = [];
  while (rest) {
    const [head] = rest.split("\r\n\r\n", 1);
    const length = Number(head.match(/^content-length: (\d+)$/im)?.[1] ?? Number.NaN);
    ensure(Number.isInteger(length), `no length in ${head.slice(0, 300)}`);
    answers.push({ head, body: rest.slice(head.length + 4, head.length + 4 + length) });
    rest = rest.slice(head.length + 4 + length);
  }
  ensure(answers.length === requests.length, `${answers.length} answers to ${requests.length} requests`);
  return answers;
}

/** What of a head may differ from one answer to the next stands for itself. */
function faceless(head, named) {
  return head
    .split("\r\n")
    .map((line) => {
      const [name] = line.split(":", 1);
      if (name === "set-cookie") return line.replace(/=[^;]*/, "=…");
      return ["date", "x-trace-id", "x-challenge-id", ...named].includes(name) ? `${name}: …` : line;
    })
    .filter((line) => line !== "connection: close")
    .join("\n");
}

async function sameHeads(kinds, named = []) {
  const order = shuffled(Array.from({ length: 100 }, (_, n) => n % 2));
  const answers = await behindTls((port) => client(port, order.map((kind, n) => kinds[kind](n))));
  const heads = kinds.map(() => new Set());
  answers.forEach(({ head, body }, n) => heads[order[n]].add(`${faceless(head, named)}\n${JSON.stringify(shape(JSON.parse(body)))}`));
  const [one, other] = heads.map((seen) => [...seen].sort().join("\n\n"));
  ensure(one === other, `heads differ:\n${one}\n---\n${other}`);
  ensure(heads[0].size === 1, `heads of one kind differ:\n${one}`);
}

// ---- The cases. ----

/** Changes the database itself: nobody here waits for a thousand people. */
function change(statements) {
  if (given.database.startsWith("postgres:")) {
    execFileSync("psql", ["--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--single-transaction", given.database], { input: statements.join(";\n") });
    return;
  }
  const script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=30); c.executescript('BEGIN;' + sys.stdin.read() + ';COMMIT;')";
  execFileSync("python3", ["-c", script, given.database.replace(/^sqlite:(\/\/)?/, "")], { input: statements.join(";\n") });
}

const known = (n) => `timed-${n % MEASURED}@example.com`;

/** A thousand people with a passkey each, after the picture of one who is there. */
function people(model) {
  change(
    Array.from({ length: MEASURED }, (_, n) => {
      const id = `00000000-0000-7000-8000-${String(n).padStart(12, "0")}`;
      const credential = Buffer.from(`timed ${n}`.padEnd(32, ".")).toString("base64url");
      return [
        `INSERT INTO users (id, kind, username, username_key, email, email_key, email_verified, status, created_at, updated_at, version)
         SELECT '${id}', kind, 'timed-${n}', 'timed-${n}', '${known(n)}', '${known(n)}', email_verified, status, created_at, updated_at, 1
         FROM users WHERE email_key = '${model}'`,
        `INSERT INTO user_roles (user_id, role) VALUES ('${id}', 'user')`,
        `INSERT INTO webauthn_credentials (credential_id, user_id, passkey, counter, backup_eligible, backup_state, aaguid, transports, name, status, created_at)
         SELECT '${credential}', '${id}', passkey, counter, backup_eligible, backup_state, aaguid, transports, name, status, created_at
         FROM webauthn_credentials WHERE status = 'active' AND user_id = (SELECT id FROM users WHERE email_key = '${model}') LIMIT 1`,
      ];
    }).flat(),
  );
}

export async function mails(model) {
  people(model);
  const start = (email) => ({
    path: "/api/v1/core/oauth/webauthn/auth/start",
    headers: { "content-type": "application/json", origin: new URL(issuer).origin },
    body: JSON.stringify({ email }),
  });
  // As long as the others, and new each time.
  const kinds = [(n) => start(known(n)), (n) => start(`nobody${n}@example.com`)];
  await alike(kinds);
  // Somebody has one passkey or more of one kind or another, so the length tells nothing.
  await sameHeads(kinds, ["content-length"]);
}

const CLIENTS = 12;

// Few from each address and for each client, so that nothing is refused unseen (ID-95).
export async function secrets() {
  const headers = { authorization: `Bearer ${given.admin_token}`, "content-type": "application/json" };
  for (let n = 0; n < CLIENTS; n += 1) {
    const body = JSON.stringify({ client_id: `timed-${n}`, client_name: "timed", grant_types: ["client_credentials"], scope: "user" });
    const made = await fetch(at("/api/v1/core/oauth/clients"), { method: "POST", headers, body });
    ensure(made.status === 201, await made.text());
  }
  const ask = (id) => ({
    path: "/api/v1/core/oauth/token",
    headers: {
      authorization: `Basic ${btoa(`${id}:sps_${"A".repeat(43)}`)}`,
      "content-type": "application/x-www-form-urlencoded",
    },
    body: "grant_type=client_credentials&scope=user",
  });
  const kinds = [(n) => ask(`timed-${n % CLIENTS}`), (n) => ask(`other-${n % CLIENTS}`)];
  await alike(kinds, 100);
  await sameHeads(kinds);
}
