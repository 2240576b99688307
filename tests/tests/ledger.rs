//! The ledger's tree from outside: checkpoints, proofs that are checked elsewhere, witnesses, an older database that is put back.

use crate::http::Client;
use crate::stores::{self, change, open};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use systemprompt_tests::{Options, Server};

fn json_of(server: &Server, words: &[&str]) -> Value {
    serde_json::from_str(&server.succeed(&[words, &["--output", "json"]].concat()).unwrap()).unwrap()
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn expect(server: &Server, words: &[&str], code: i32, says: &str) {
    let output = server.run(words).unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {told}");
    assert!(told.contains(says), "{words:?} does not say `{says}`: {told}");
}

fn keep(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn proofs_and_checkpoints_are_checked_away_from_the_server_on_both_engines() {
    let away = tempfile::tempdir().unwrap();
    for options in stores::engines().await {
        let witness = away.path().join("witness.notes");
        let _ = std::fs::remove_file(&witness);
        let profile = format!("[{{type: file, path: {}}}]", witness.display());
        let mut server = options.env("SYSTEMPROMPT__AUDIT__WITNESS", &profile).start().unwrap();
        let entry = json_of(&server, &["audit", "query", "--limit", "1"])["items"][0].clone();
        let proof = server.succeed(&["audit", "proof", entry["id"].as_str().unwrap()]).unwrap();
        let proof_file = keep(away.path(), "proof.json", &proof);
        let parsed: Value = serde_json::from_str(&proof).unwrap();
        assert_eq!(parsed["leaf_index"].as_u64().unwrap() + 1, entry["seq"].as_u64().unwrap());

        let report = json_of(&server, &["audit", "verify"]);
        let signed = &report["report"]["signed"][0];
        assert_eq!(signed["trusted"], true, "{report}");
        let vkey = signed["vkey"].as_str().unwrap().to_owned();
        let note = server.succeed(&["audit", "checkpoint"]).unwrap();
        assert!(note.contains(vkey.split('+').next().unwrap()), "{note}");
        let note_file = keep(away.path(), "kept.notes", &note);

        let other = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let changed = keep(away.path(), "changed.json", &proof.replace("\\\"v\\\":1", "\\\"v\\\":2"));
        let nothing = keep(away.path(), "nothing.json", "{}");
        let check = |file: &str, key: &str, code, says: &str| {
            expect(&server, &["audit", "verify", "--proof", file, "--key", key], code, says);
        };
        check(&proof_file, &vkey, 0, "intact: record");
        check(&proof_file, other, 7, "no signature of a trusted key");
        check(&changed, &vkey, 7, "not in the tree");
        check(&nothing, &vkey, 1, "holds no proof");
        expect(&server, &["audit", "verify", "--proof", &proof_file], 2, "--key");
        expect(&server, &["audit", "verify", "--explain"], 0, "What it cannot show");
        expect(&server, &["audit", "verify", "--stream", "ghost"], 5, "no stream");
        expect(&server, &["audit", "checkpoint", "--stream", "ghost"], 5, "no such stream");
        expect(&server, &["audit", "verify", "--checkpoint", &nothing], 1, "holds no checkpoints");
        let given = ["audit", "verify", "--key", vkey.as_str(), "--checkpoint", note_file.as_str()];
        expect(&server, &given, 0, "a trusted key");
        assert!(server.healthy().unwrap().contains("PASS  witnesses"));

        let size = signed["size"].as_u64().unwrap();
        let stream = signed["stream"].as_str().unwrap();
        let token = format!("Bearer {}", server.admin_token());
        let path = format!("/api/v1/admin/audit/streams/{stream}/consistency?from=1&to={size}");
        let answer = Client::new(&server).get(&path, &[("authorization", &token)]).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &body["to"]), (200, &json!(size)), "{body}");
        for (query, status) in [("from=0&to=1", 400), ("from=1", 400), ("from=1&to=99999999", 400)] {
            let path = format!("/api/v1/admin/audit/streams/{stream}/consistency?{query}");
            let answer = Client::new(&server).get(&path, &[("authorization", &token)]).await;
            assert_eq!(answer.status, status, "{query}: {}", answer.body);
        }
        let metrics = Client::new(&server).get("/metrics", &[("authorization", &token)]).await;
        assert!(metrics.body.contains("ledger_unwitnessed_seconds"), "{}", metrics.body);

        server.terminate().unwrap();
        assert!(std::fs::read_to_string(&witness).unwrap().contains(stream), "the witness has the last note");
        expect(&server, &given, 0, "a trusted key");
        expect(&server, &["audit", "checkpoint"], 0, stream);
        // Who rewrites the checkpoint's row, or takes the key away, is found out from here.
        let db = open(&server).await;
        change(&db, "DELETE FROM ledger_keys").await;
        db.close().await;
        expect(&server, &["audit", "verify"], 7, "key_missing");
        std::fs::remove_file(server.data_dir().join("keys/ledger.ed25519")).unwrap();
        expect(&server, &["audit", "verify"], 7, "key_unknown");
        expect(&server, &given, 7, "key_missing");
    }
}

/// The files of a stopped server's database, those of its log among them.
fn copy_database(from: &Path, to: &Path) {
    for name in ["systemprompt.db", "systemprompt.db-wal", "systemprompt.db-shm"] {
        let _ = std::fs::remove_file(to.join(name));
        let copied = std::fs::copy(from.join(name), to.join(name));
        assert!(copied.is_ok() || name != "systemprompt.db", "{copied:?}");
    }
    let _ = std::fs::remove_file(to.join("lookup.db"));
}

#[tokio::test]
async fn an_older_database_that_is_put_back_is_told_and_a_repair_goes_on_from_there() {
    let away = tempfile::tempdir().unwrap();
    let mut server = stores::sqlite().start().unwrap();
    server.terminate().unwrap();
    copy_database(server.data_dir(), away.path());
    let mut server = server.restart().unwrap();
    let kept = keep(away.path(), "kept.notes", &server.succeed(&["audit", "checkpoint"]).unwrap());
    server.terminate().unwrap();
    copy_database(away.path(), server.data_dir());

    expect(&server, &["audit", "verify"], 7, "rollback");
    let mut server = server.restart().unwrap();
    let health = Client::new(&server).get("/health/ready", &[]).await;
    assert_eq!(health.status, 503, "{}", health.body);
    assert!(server.log().contains("ledger_rollback"), "{}", server.log());
    // The credential that the command line holds is of a session that is lost, and no other can be recorded.
    for command in [&["audit", "query"][..], &["admin", "users", "list"]] {
        expect(&server, command, 4, "an older copy was put back");
        expect(&server, command, 4, "systemprompt audit verify --offline");
    }
    expect(&server, &["audit", "verify", "--offline"], 7, "rollback");
    expect(&server, &["audit", "repair", "--accept", "restored"], 6, "stop the server");
    server.terminate().unwrap();
    expect(&server, &["audit", "repair", "--accept", "restored from Monday's backup"], 0, "closed");
    let server = server.restart().unwrap();
    assert_eq!(Client::new(&server).get("/health/ready", &[]).await.status, 200, "{}", server.log());
    expect(&server, &["audit", "verify"], 0, "2 streams");
    let repair = json_of(&server, &["audit", "query", "--kind", "system.repair"]);
    assert_eq!(repair["items"][0]["seq"], 1, "{repair}");
    // Who kept a checkpoint of what was lost still sees that it is gone.
    expect(&server, &["audit", "verify", "--checkpoint", &kept], 7, "rollback");
}

#[tokio::test]
async fn a_start_without_the_key_that_signed_or_with_another_use_of_it_is_refused() {
    let mut server = stores::sqlite().start().unwrap();
    server.terminate().unwrap();
    let key = server.data_dir().join("keys/ledger.ed25519");
    let mode = std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let good = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let again = || Options::demo().unwrap().data_dir(server.data_dir()).start().unwrap_err().to_string();
    assert!(again().contains("is missing"), "{}", again());
    let other = stores::sqlite().start().unwrap();
    std::fs::copy(other.data_dir().join("keys/ledger.ed25519"), &key).unwrap();
    assert!(again().contains("is not the one that signed this ledger"), "{}", again());
    std::fs::write(&key, good).unwrap();
    Options::demo().unwrap().data_dir(server.data_dir()).start().unwrap();
}
