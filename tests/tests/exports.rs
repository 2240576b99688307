//! What leaves the ledger: exports that verify elsewhere, a tail that loses nothing, readers and those who are none, the key that
//! signs and its rotation, a policy that is tried before it counts.

use crate::http::Client;
use crate::stores::{self, count, open};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use systemprompt_tests::{Options, Server};

fn expect(server: &Server, words: &[&str], code: i32, says: &str) -> String {
    let output = server.run(words).unwrap();
    told(&output, words, code, says)
}

fn told(output: &Output, words: &[&str], code: i32, says: &str) -> String {
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
    assert!(text.contains(says), "{words:?} should say `{says}`: {text}");
    text
}

/// The binary in an empty folder, without profile, database or server.
fn elsewhere(folder: &Path, words: &[&str], code: i32, says: &str) {
    let output = Options::demo().unwrap().run(&folder.join("nothing"), words).unwrap();
    told(&output, words, code, says);
}

fn vkey(server: &Server) -> String {
    let report: Value =
        serde_json::from_str(&server.succeed(&["audit", "verify", "--output", "json"]).unwrap()).unwrap();
    report["report"]["signed"][0]["vkey"].as_str().unwrap().to_owned()
}

async fn govern(client: &Client, token: &str, tool: &str) -> u16 {
    let event =
        json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": tool, "tool_input": {}});
    client.post("/api/v1/hooks/govern?plugin_id=demo", &[("authorization", token)], &event).await.status
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test(flavor = "multi_thread")]
async fn case_11_an_export_is_verified_in_an_empty_folder_by_its_key_alone() {
    for options in stores::engines().await {
        let mut server = options.start().unwrap();
        let client = Client::new(&server);
        let bob = bearer(server.user_token());
        for tool in ["Read", "Write", "delete_everything"] {
            govern(&client, &bob, tool).await;
        }
        let away = tempfile::tempdir().unwrap();
        let path = |name: &str| away.path().join(name).to_str().unwrap().to_owned();
        let (all, own, table) = (path("ledger.jsonl"), path("own.jsonl"), path("ledger.csv"));
        server.succeed(&["audit", "export", "--out", &all]).unwrap();
        server
            .succeed(&[
                "audit",
                "export",
                "--kind",
                "governance.decision",
                "--outcome",
                "deny",
                "--out",
                &own,
            ])
            .unwrap();
        server.succeed(&["audit", "export", "--format", "csv", "--out", &table]).unwrap();
        assert!(std::fs::read_to_string(&table).unwrap().starts_with("stream,seq,id,at,"));
        let vkey = vkey(&server);
        expect(&server, &["audit", "export", "--stream", "ghost"], 5, "no stream");
        expect(&server, &["audit", "export", "--format", "cef"], 2, "jsonl, ocsf, csv");
        server.terminate().unwrap();

        let other = stores::sqlite().start().unwrap();
        let name = vkey.split('+').next().unwrap();
        let stranger = self::vkey(&other);
        elsewhere(away.path(), &["audit", "verify", "--export", &all, "--key", &vkey], 0, "a trusted key");
        elsewhere(
            away.path(),
            &["audit", "verify", "--export", &own, "--key", &vkey],
            0,
            "intact: 1 records",
        );
        elsewhere(
            away.path(),
            &["audit", "verify", "--export", &own, "--key", &vkey],
            0,
            "a selection: proves what is in it, not that nothing was left out",
        );
        elsewhere(
            away.path(),
            &["audit", "verify", "--export", &all, "--key", &stranger],
            7,
            "no trusted key",
        );
        elsewhere(away.path(), &["audit", "verify", "--export", &all], 7, "no trusted key");
        elsewhere(
            away.path(),
            &["audit", "verify", "--export", &all, "--structure-only"],
            0,
            "consistent, origin not proven",
        );
        elsewhere(
            away.path(),
            &["audit", "verify", "--export", &path("none"), "--key", &vkey],
            1,
            "cannot be verified",
        );
        elsewhere(
            away.path(),
            &["audit", "verify", "--export", &all, "--key", &vkey, "--stream", "ghost"],
            5,
            "no stream",
        );
        // A key of the same name and another number.
        let wrong = format!("{name}+{}", stranger.split_once('+').unwrap().1);
        elsewhere(away.path(), &["audit", "verify", "--export", &all, "--key", &wrong], 2, "verifier key");
        // On a stopped server the database is read.
        let again = path("again.jsonl");
        expect(&server, &["audit", "export", "--out", &again], 0, "reading the database");
        elsewhere(away.path(), &["audit", "verify", "--export", &again, "--key", &vkey], 0, "a trusted key");
        expect(&server, &["audit", "query", "--kind", "system.*", "--output", "ndjson"], 0, "system.start");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn case_5_openssl_verifies_the_signature_of_a_checkpoint() {
    let server = stores::sqlite().start().unwrap();
    let note = server.succeed(&["audit", "checkpoint"]).unwrap();
    let (text, signature) = note.trim_end().split_once("\n\n").unwrap();
    let decode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    };
    let signature = decode(signature.rsplit_once(' ').unwrap().1);
    let public = decode(vkey(&server).splitn(3, '+').nth(2).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("note.txt", format!("{text}\n").as_bytes());
    write("sig.bin", &signature[4..]);
    // SubjectPublicKeyInfo of Ed25519 (RFC 8410).
    write(
        "pub.der",
        &[&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &public[1..]].concat(),
    );
    let verify = || {
        let words = [
            "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", "pub.der", "-in",
            "note.txt", "-sigfile", "sig.bin",
        ];
        Command::new("openssl").args(words).current_dir(folder.path()).output()
    };
    let Ok(output) = verify() else {
        eprintln!("openssl is not installed");
        return;
    };
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("Signature Verified Successfully"),
        "{output:?}"
    );
    write("note.txt", format!("{text}!\n").as_bytes());
    assert!(!verify().unwrap().status.success());
}

/// Reads frames until `enough` says so, or nothing comes for a while.
async fn frames(
    server: &Server,
    token: &str,
    path: &str,
    last: Option<&str>,
    mut enough: impl FnMut(&str, &str) -> bool,
) -> u16 {
    #[expect(clippy::disallowed_methods, reason = "the test's own client")]
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut request = http.get(format!("{}{path}", server.url())).header("authorization", token);
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut answer = request.send().await.unwrap();
    let (status, mut text) = (answer.status().as_u16(), String::new());
    while let Ok(Ok(Some(chunk))) =
        tokio::time::timeout(std::time::Duration::from_secs(20), answer.chunk()).await
    {
        text.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some((frame, rest)) = text.split_once("\n\n") {
            let line =
                |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let (id, data) = (line("id: ").to_owned(), line("data: ").to_owned());
            text = rest.to_owned();
            if !id.is_empty() && enough(&id, &data) {
                return status;
            }
        }
    }
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn case_15_a_tail_that_breaks_off_goes_on_with_none_missing_and_none_twice() {
    const CALLS: usize = 10_000;
    let server = stores::sqlite().without_limits().start().unwrap();
    let (ada, bob) = (bearer(server.admin_token()), bearer(server.user_token()));
    let stream = {
        let checkpoint: Value = serde_json::from_str(
            &server.succeed(&["audit", "query", "--limit", "1", "--output", "json"]).unwrap(),
        )
        .unwrap();
        checkpoint["items"][0]["stream"].as_str().unwrap().to_owned()
    };
    let calls = async {
        let client = Client::new(&server);
        let mut set = tokio::task::JoinSet::new();
        for worker in 0..32 {
            let (client, bob) = (client.clone(), bob.clone());
            set.spawn(async move {
                for _ in (worker..CALLS).step_by(32) {
                    assert_eq!(govern(&client, &bob, "Read").await, 200);
                }
            });
        }
        set.join_all().await;
    };
    let read = async {
        let path = "/api/v1/admin/audit/tail?kind=governance.decision";
        let (mut seen, mut last, mut twice) = (BTreeSet::new(), format!("{stream}:0"), 0);
        let mut breaks = 0;
        while seen.len() < CALLS && breaks < 200 {
            let mut here = 0;
            let resume = last.clone();
            let status = frames(&server, &ada, path, Some(&resume), |id, data| {
                let entry: Value = serde_json::from_str(data).unwrap();
                assert_eq!(format!("{}:{}", entry["stream"].as_str().unwrap(), entry["seq"]), id);
                twice += usize::from(!seen.insert(entry["seq"].as_i64().unwrap()));
                id.clone_into(&mut last);
                here += 1;
                // The connection is dropped after some hundred entries.
                here >= 700 || seen.len() >= CALLS
            })
            .await;
            assert_eq!(status, 200);
            breaks += 1;
        }
        (seen, twice, breaks)
    };
    let ((), (seen, twice, breaks)) = tokio::join!(calls, read);
    assert_eq!((seen.len(), twice), (CALLS, 0), "after {breaks} connections");
    assert!(breaks > 10, "{breaks}");
    let db = open(&server).await;
    assert_eq!(
        count(&db, "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'governance.decision'").await,
        CALLS as i64
    );
    db.close().await;

    // And the same records, replayed with a draft that denies the server's tools to nobody: nothing flips.
    let folder = tempfile::tempdir().unwrap();
    let draft = folder.path().join("draft.yaml");
    std::fs::write(
        &draft,
        "rules:\n  - entity_type: plugin\n    entity_id: demo\n    access: deny\n    roles: [user]\n",
    )
    .unwrap();
    let draft = draft.to_str().unwrap();
    let words = ["policy", "replay", "--draft", draft, "--output", "json"];
    let report: Value = serde_json::from_str(&server.succeed(&words).unwrap()).unwrap();
    assert_eq!(report["decisions"], CALLS, "{report}");
    assert_eq!(report["newly_denied"]["count"], CALLS, "{report}");
    expect(&server, &["policy", "replay", "--draft", draft, "--fail-on-flip"], 7, "allow -> deny: 10000");
    let none = folder.path().join("none.yaml");
    std::fs::write(&none, "rules: []\n").unwrap();
    expect(
        &server,
        &["policy", "replay", "--draft", none.to_str().unwrap(), "--fail-on-flip"],
        0,
        "10000 unchanged",
    );
    std::fs::write(&none, "rule: []\n").unwrap();
    expect(&server, &["policy", "replay", "--draft", none.to_str().unwrap()], 7, "did you mean `rules`");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_read_by_administrators_and_auditors_and_by_others_only_where_it_is_their_own() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let client = Client::new(&server);
        let (ada, bob) = (bearer(server.admin_token()), bearer(server.user_token()));
        let as_ada = async |method: Method, path: &str, body: &Value| {
            client.send(method, path, &[("authorization", &ada)], Some(body)).await.unwrap()
        };
        let new = json!({"username": "eve", "email": "eve@example.com", "roles": ["user", "auditor"]});
        let eve = as_ada(Method::POST, "/api/v1/admin/users", &new).await;
        assert_eq!(eve.status, 201, "{}", eve.body);
        let key = as_ada(Method::POST, "/api/v1/admin/api-keys", &json!({"user": "eve", "name": "audit"}))
            .await
            .json();
        let eve = bearer(key["key"].as_str().unwrap());
        govern(&client, &bob, "Read").await;
        let id = as_ada(Method::GET, "/api/v1/admin/audit?kind=governance.decision&limit=1", &Value::Null)
            .await
            .json();
        let id = id["items"][0]["id"].as_str().unwrap().to_owned();
        let stream = as_ada(Method::GET, "/api/v1/admin/audit/streams", &Value::Null).await.json();
        let stream = stream["items"][0]["stream"].as_str().unwrap().to_owned();

        let reads = [
            "/api/v1/admin/audit".to_owned(),
            "/api/v1/admin/audit/streams".to_owned(),
            "/api/v1/admin/audit/checkpoints".to_owned(),
            format!("/api/v1/admin/audit/{id}"),
            format!("/api/v1/admin/audit/{id}/proof"),
            format!("/api/v1/admin/audit/streams/{stream}/consistency?from=1&to=1"),
        ];
        for path in &reads {
            let as_eve = client.get(path, &[("authorization", &eve)]).await;
            assert_eq!(as_eve.status, 200, "{path}: {}", as_eve.body);
            let as_bob = client.get(path, &[("authorization", &bob)]).await;
            assert_eq!((as_bob.status, as_bob.json()["code"].as_str()), (403, Some("denied")), "{path}");
            assert_eq!(client.get(path, &[]).await.status, 401, "{path}");
        }
        for (path, body) in [
            ("/api/v1/admin/audit/verify", json!({})),
            ("/api/v1/admin/audit/exports", json!({"format": "jsonl"})),
        ] {
            assert_eq!(client.post(path, &[("authorization", &eve)], &body).await.status, 200, "{path}");
            assert_eq!(client.post(path, &[("authorization", &bob)], &body).await.status, 403, "{path}");
        }
        let rotated =
            client.post("/api/v1/admin/keys/ledger/rotate", &[("authorization", &eve)], &json!({})).await;
        assert_eq!(rotated.status, 403, "an auditor changes nothing");
        // Whoever wants to keep a note may have it.
        let note = client.get(&format!("/api/v1/admin/audit/streams/{stream}/checkpoint"), &[]).await;
        assert_eq!(
            (note.status, note.header("content-type")),
            (200, "text/plain; charset=utf-8"),
            "{}",
            note.body
        );

        // One's own decisions, and nobody else's.
        let whole = format!("{stream}:0");
        let (mut own, mut all) = (0, 0);
        let path = "/api/v1/stream/decisions";
        frames(&server, &bob, path, Some(&whole), |_, data| {
            own += 1;
            assert!(data.contains("governance.decision") || data.contains("authz.decision"), "{data}");
            true
        })
        .await;
        frames(&server, &eve, path, Some(&whole), |_, _| {
            all += 1;
            all >= own
        })
        .await;
        assert!(own > 0 && all >= own);
        let trace = client.get(&format!("/api/v1/admin/audit/{id}"), &[("authorization", &ada)]).await.json();
        assert_eq!(trace["decision"]["user_id"], trace["record"]["actor"]["id"], "{trace}");
        let trace = trace["record"]["trace_id"].as_str().unwrap();
        let explained = client.get(&format!("/api/v1/explain/{trace}"), &[("authorization", &bob)]).await;
        assert_eq!(explained.status, 200, "{}", explained.body);

        for bad in ["kind=tool.opend", "subject=x", "order=up", "since=now", "who=me"] {
            let answer = client.get(&format!("/api/v1/admin/audit?{bad}"), &[("authorization", &ada)]).await;
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (400, Some("invalid_filter")),
                "{bad}"
            );
        }
        let both = "/api/v1/admin/audit?kind=governance.decision&kind=system.*&limit=500";
        let both = client.get(both, &[("authorization", &ada)]).await.json();
        let kinds: BTreeSet<String> = both["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["kind"].as_str().unwrap().to_owned())
            .collect();
        assert!(kinds.contains("governance.decision") && kinds.contains("system.start"), "{kinds:?}");
        assert!(
            kinds.iter().all(|kind| kind == "governance.decision" || kind.starts_with("system.")),
            "{kinds:?}"
        );

        // Reading is recorded, repeats of the same within a minute once.
        let reads = "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'admin.audit.read'";
        let db = open(&server).await;
        let before = count(&db, reads).await;
        for _ in 0..5 {
            client.get("/api/v1/admin/audit?outcome=deny", &[("authorization", &eve)]).await;
        }
        assert_eq!(count(&db, reads).await, before + 1);
        assert_eq!(
            count(&db, "SELECT COUNT(*) FROM ledger_entries WHERE kind = 'admin.audit.export'").await,
            1
        );
        db.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_when_its_reader_is_no_auditor_any_more() {
    let server = stores::sqlite().start().unwrap();
    let client = Client::new(&server);
    let (ada, bob) = (bearer(server.admin_token()), bearer(server.user_token()));
    let new = json!({"username": "eve", "email": "eve@example.com", "roles": ["user", "auditor"]});
    let made = client.post("/api/v1/admin/users", &[("authorization", &ada)], &new).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let new = json!({"user": "eve", "name": "audit"});
    let key = client.post("/api/v1/admin/api-keys", &[("authorization", &ada)], &new).await.json();
    let eve = bearer(key["key"].as_str().unwrap());
    for path in ["/api/v1/admin/audit/tail", "/api/v1/stream/decisions"] {
        server.succeed(&["admin", "users", "update", "eve", "--role", "user", "--role", "auditor"]).unwrap();
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let read = frames(&server, &eve, path, None, |_, _| {
            seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            false
        });
        let act = async {
            while seen.load(std::sync::atomic::Ordering::Relaxed) == 0 {
                govern(&client, &bob, "Read").await;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
            server.succeed(&["admin", "users", "update", "eve", "--role", "user"]).unwrap();
            // What was sent before may still be on its way.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            let before = seen.load(std::sync::atomic::Ordering::Relaxed);
            govern(&client, &bob, "Read").await;
            (before, std::time::Instant::now())
        };
        let (status, (before, since)) = tokio::join!(read, act);
        assert_eq!((status, seen.load(std::sync::atomic::Ordering::Relaxed)), (200, before), "{path}");
        assert!(since.elapsed() < std::time::Duration::from_secs(5), "{path}: {:?}", since.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nul_is_refused_wherever_it_is_asked_for_and_a_cursor_outside_its_filter() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let client = Client::new(&server);
        let (ada, bob) = (bearer(server.admin_token()), bearer(server.user_token()));
        let refused = async |path: &str, code: &str| {
            let answer = client.get(path, &[("authorization", &ada)]).await;
            assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some(code)), "{path}");
        };
        for path in [
            "/api/v1/admin/audit?actor=%00",
            "/api/v1/admin/audit?stream=%00",
            "/api/v1/admin/audit?trace_id=%00",
            "/api/v1/admin/audit/checkpoints?stream=%00",
            "/api/v1/explain/a?actor=%00",
        ] {
            refused(path, "invalid_filter").await;
        }
        let case =
            json!({"name": "c", "principal": {"user": "\0"}, "entity": "plugin:demo", "expect": "allow"});
        for (path, body) in [
            ("/api/v1/admin/audit/erasures", json!({"subject_user": "a\0b", "reason": "asked"})),
            ("/api/v1/admin/rules/simulate", json!({"cases": [case]})),
        ] {
            let answer = client.post(path, &[("authorization", &ada)], &body).await;
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (400, Some("invalid_request")),
                "{path}"
            );
        }

        // A call with such a name is denied on record; content may hold anything.
        let db = open(&server).await;
        let denied = "SELECT COUNT(*) FROM governance_decisions WHERE decision = 'deny'";
        let event = |tool: &str, text: &str| {
            json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": tool,
                "tool_input": {"file_path": text}})
        };
        let mut count_before = count(&db, denied).await;
        for (plugin, tool) in [("demo", "a\0b"), ("de%00mo", "Read")] {
            let path = format!("/api/v1/hooks/govern?plugin_id={plugin}");
            let answer = client.post(&path, &[("authorization", &bob)], &event(tool, "x")).await;
            assert_eq!(answer.header("x-systemprompt-decision"), "deny", "{plugin}: {}", answer.body);
            assert!(!answer.body.contains("internal"), "{plugin}: {}", answer.body);
            let now = count(&db, denied).await;
            assert_eq!(now, count_before + 1, "{plugin}");
            count_before = now;
        }
        let path = "/api/v1/hooks/govern?plugin_id=demo";
        let answer = client.post(path, &[("authorization", &bob)], &event("Read", "a\0b")).await;
        assert_eq!(answer.header("x-systemprompt-decision"), "allow", "{}", answer.body);
        let path = "/api/v1/hooks/track?plugin_id=d%00";
        let answer = client.post(path, &[("authorization", &bob)], &event("a\0b", "x")).await;
        assert_eq!(answer.header("x-systemprompt-recorded"), "true", "{}", answer.body);
        db.close().await;

        let page = client.get("/api/v1/admin/audit?limit=1", &[("authorization", &ada)]).await.json();
        let next = page["next"].as_str().unwrap();
        let more = format!("/api/v1/admin/audit?limit=2&cursor={next}");
        assert_eq!(client.get(&more, &[("authorization", &ada)]).await.status, 200);
        for other in ["actor=system", "order=asc"] {
            refused(&format!("{more}&{other}"), "invalid_cursor").await;
        }
        expect(&server, &["audit", "query", "--kind", "foo"], 2, "there is no kind `foo`");
        expect(&server, &["audit", "verify", "--since", "1h"], 0, "intact");
        expect(&server, &["audit", "verify", "--explain"], 0, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledgers_key_is_rotated_and_old_and_new_key_verify_everything() {
    for options in stores::engines().await {
        let server = options.start().unwrap();
        let old = vkey(&server);
        let said = expect(&server, &["admin", "keys", "rotate", "--ledger"], 0, "checkpoints are signed by");
        let new = vkey(&server);
        assert!(new != old && said.contains(&new), "{said}");
        expect(&server, &["audit", "verify", "--key", &old], 0, "a trusted key");
        expect(&server, &["audit", "verify", "--key", &new], 0, "a trusted key");
        let mut server = server;
        server.terminate().unwrap();
        let mut server = server.restart().unwrap();
        assert_eq!(vkey(&server), new);
        server.healthy().unwrap();
        server.terminate().unwrap();
        expect(&server, &["audit", "verify", "--key", &old], 0, "a trusted key");
    }
}

/// A command that signs with a key of openssl.
fn signer(folder: &Path) -> Option<String> {
    let key = folder.join("key.pem");
    let made =
        Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&key).output().ok()?;
    made.status.success().then_some(())?;
    let script = folder.join("signer.sh");
    let key = key.display();
    std::fs::write(
        &script,
        format!(
            "case \"$1\" in\n\
             public-key) openssl pkey -in {key} -pubout -outform DER | tail -c 32 | base64 ;;\n\
             sign) f=$(mktemp); cat > \"$f\"; openssl pkeyutl -sign -rawin -inkey {key} -in \"$f\" | base64 -w0; rm -f \"$f\" ;;\n\
             esac\n"
        ),
    )
    .unwrap();
    Some(format!("exec:sh {}", script.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_signs_the_checkpoints_in_place_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let Some(command) = signer(folder.path()) else {
        eprintln!("openssl is not installed");
        return;
    };
    let setting = "SYSTEMPROMPT__AUDIT__SIGNING_KEY_PATH";
    let mut server = stores::sqlite().env(setting, &command).start().unwrap();
    expect(&server, &["audit", "verify"], 0, "a trusted key");
    let key = vkey(&server);
    expect(&server, &["admin", "keys", "rotate", "--ledger"], 6, "cannot be rotated");
    server.terminate().unwrap();
    assert!(!server.data_dir().join("keys/ledger.ed25519").exists());
    expect(&server, &["audit", "verify", "--key", &key], 0, "a trusted key");
    // Another key than signed before is refused.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = signer(elsewhere.path()).unwrap();
    let again =
        stores::sqlite().env(setting, &other).data_dir(server.data_dir()).start().unwrap_err().to_string();
    assert!(again.contains("is not the one that signed this ledger"), "{again}");
    let broken = stores::sqlite().env(setting, "exec:false").start().unwrap_err().to_string();
    assert!(broken.contains("the signing command"), "{broken}");
}

/// PKCS#8 of the Ed25519 key with this seed (RFC 8410).
fn pkcs8(seed: u8) -> Vec<u8> {
    let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    [head.as_slice(), &[seed; 32]].concat()
}

#[test]
fn a_checkpoint_key_that_is_the_manifest_key_or_a_key_of_tokens_is_refused() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let ledger_key = |seed| String::from_utf8(pkcs8(seed)).unwrap();
    let with = |seed| stores::sqlite().file("keys/ledger.ed25519", &ledger_key(seed));
    let refused = |options: Options| options.start().unwrap_err().to_string();
    let manifest = refused(with(7).secret("manifest_signing_secret_seed", &STANDARD.encode([7; 32])));
    assert!(manifest.contains("is also the manifest key"), "{manifest}");
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(pkcs8(9)));
    let tokens =
        with(9).file("keys/signing.json", &pem).env("SYSTEMPROMPT__SECURITY__SIGNING_ALGORITHM", "EdDSA");
    let tokens = refused(tokens);
    assert!(tokens.contains("is also the key of tokens"), "{tokens}");
    with(7).start().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_are_tried_against_the_rules_in_force_and_against_a_draft() {
    let server = stores::sqlite().start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = file(
        "cases.yaml",
        "cases:\n\
         - {name: bob uses the demo server, principal: {user: bob}, entity: 'mcp_server:demo', expect: allow}\n\
         - {name: nobody knows this, principal: {roles: [user]}, entity: 'mcp_server:ghost', expect: deny, reason: unknown_entity}\n",
    );
    let said = expect(&server, &["policy", "test", &cases], 0, "2 passed, 0 failed");
    assert!(said.contains("warning: mcp_server:ghost is not registered"), "{said}");
    let draft = file(
        "draft.yaml",
        "rules:\n  - {entity_type: mcp_server, entity_id: demo, access: deny, roles: [user]}\n",
    );
    let said = expect(&server, &["policy", "test", &cases, "--draft", &draft], 7, "1 passed, 1 failed");
    assert!(said.contains("bob uses the demo server") && said.contains("it is deny, not allow"), "{said}");
    assert!(!said.contains("mcp_server:demo is not registered"), "{said}");
    let adrift = file(
        "adrift.yaml",
        "rules:\n  - {entity_type: mcp_server, entity_id: none, access: deny, users: [bob, nobody]}\n",
    );
    let said = expect(&server, &["policy", "replay", "--draft", &adrift], 0, " unchanged");
    for warning in [
        "warning: mcp_server:none is not registered",
        "warning: `bob` names a user, but rules name users by id: usr_",
        "warning: there is no user `nobody`",
    ] {
        assert!(said.contains(warning), "{warning}: {said}");
    }
    let wrong = file(
        "wrong.yaml",
        "cases:\n- {name: x, principal: {user: nobody}, entity: 'mcp_server:demo', expect: allow}\n",
    );
    expect(&server, &["policy", "test", &wrong], 7, "there is no such user");
    let bad =
        file("bad.yaml", "cases:\n- {name: x, principal: {}, entity: 'mcp_server:demo', expect: perhaps}\n");
    expect(&server, &["policy", "test", &bad], 7, "allowed: allow, deny");
    expect(&server, &["can", "role:user", "mcp_server:ghost"], 5, "may not use");
}
