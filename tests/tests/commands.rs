//! What commands say to people: names for ids, what was probably meant, and the cause and not its consequence.

use crate::http::Client;
use crate::stores;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Output, Stdio};
use systemprompt_tests::Server;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The command must end with this code and say all of this.
fn ends(server: &Server, words: &[&str], code: i32, parts: &[&str]) {
    let output = server.run(words).unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {told}");
    for part in parts {
        assert!(told.contains(part), "{words:?} does not say `{part}`: {told}");
    }
}

async fn hello(server: &Server, token: &str, trace: &str) {
    let body =
        json!({"model": "claude-demo", "max_tokens": 16, "messages": [{"role": "user", "content": "Hi"}]});
    let headers = [("x-api-key", token), ("x-trace-id", trace)];
    assert_eq!(Client::new(server).post("/v1/messages", &headers, &body).await.status, 200);
}

#[tokio::test]
async fn a_trace_id_that_two_people_used_is_explained_apart() {
    let server = stores::sqlite().start().unwrap();
    let trace = "0123456789abcdef-shared";
    hello(&server, server.admin_token(), trace).await;
    hello(&server, server.user_token(), trace).await;
    let explained = || -> Value {
        serde_json::from_str(&server.succeed(&["explain", trace, "--output", "json"]).unwrap()).unwrap()
    };
    // The closing records come a moment after the answers.
    let is_closed = |found: &Value| {
        let entries = found["entries"].as_array().unwrap().iter();
        entries.filter(|entry| entry["kind"] == "inference.closed").count() == 2
    };
    let mut found = explained();
    for _ in 0..100 {
        if is_closed(&found) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        found = explained();
    }
    let actors = found["actors"].as_array().unwrap();
    assert_eq!(actors.iter().map(|a| a["name"].as_str().unwrap()).collect::<Vec<_>>(), ["ada", "bob"]);
    assert!(found["decision"].is_null(), "two people have no one decision");
    for actor in actors {
        assert_eq!(actor["decision"]["user_id"], actor["id"]);
        for entry in found["entries"].as_array().unwrap() {
            let is_own = actor["entries"].as_array().unwrap().contains(&entry["id"]);
            assert_eq!(is_own, entry["record"]["actor"]["id"] == actor["id"], "{entry}");
        }
    }
    ends(&server, &["explain", trace], 0, &["2 actors used the trace id", "== user ada", "== user bob"]);
    let only = server.succeed(&["explain", trace, "--actor", "bob"]).unwrap();
    assert!(!only.contains("=="), "{only}");
}

#[tokio::test]
async fn names_are_taken_for_ids_and_strangers_are_told() {
    let server = stores::sqlite().start().unwrap();
    hello(&server, server.user_token(), "0123456789abcdef-bob").await;
    let page = server.succeed(&["audit", "query", "--actor", "bob", "--output", "json"]).unwrap();
    let page: Value = serde_json::from_str(&page).unwrap();
    assert!(!page["items"].as_array().unwrap().is_empty());
    server.succeed(&["audit", "query", "--actor", "system"]).unwrap();
    server.succeed(&["audit", "query", "--kind", "inference.*"]).unwrap();
    let tail = server.succeed(&["audit", "tail", "--limit", "2", "--actor", "bob"]).unwrap();
    assert_eq!(tail.lines().count(), 2, "{tail}");
    for (words, code, parts) in [
        (
            &["audit", "query", "--actor", "bobb"][..],
            5,
            &["there is no user `bobb`", "did you mean `bob`?"][..],
        ),
        (
            &["audit", "query", "--kind", "tool.openned"],
            2,
            &["no kind `tool.openned`", "did you mean `tool.opened`?"],
        ),
        (&["audit", "query", "--kind", "foo"], 2, &["there is no kind `foo`"]),
        (&["admin", "users", "show", "bbo"], 5, &["did you mean `bob`?"]),
        (&["admin", "users", "show", "zacharias"], 5, &["systemprompt admin users list"]),
        (&["can", "bob", "mcp_tool:demo/crm_lookup"], 0, &["may use", "mcp_server:demo"]),
        (
            &["can", "bob", "mcp_tool:systemprompt-admin/users"],
            3,
            &["may not use", "mcp_server:systemprompt-admin"],
        ),
        (&["can", "bob", "mcp_tool:nowhere/users"], 5, &["nothing of this name is registered"]),
    ] {
        ends(&server, words, code, parts);
    }
}

#[tokio::test]
async fn revoking_twice_is_told_as_such() {
    let server = stores::sqlite().start().unwrap();
    let made =
        server.succeed(&["admin", "api-keys", "create", "bob", "--name", "x", "--output", "json"]).unwrap();
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made["id"].as_str().unwrap();
    server.succeed(&["admin", "api-keys", "revoke", id, "--yes"]).unwrap();
    ends(&server, &["admin", "api-keys", "revoke", id, "--yes"], 6, &["was revoked already, at 20"]);
    ends(
        &server,
        &["admin", "api-keys", "revoke", "key_none", "--yes"],
        5,
        &["there is no API key `key_none`"],
    );
}

#[tokio::test]
async fn a_secret_that_cannot_be_guarded_is_not_taken() {
    let server = stores::sqlite().start().unwrap();
    let set = |value: &str| {
        let mut child = Command::new(systemprompt_tests::server::binary().unwrap())
            .arg("--data-dir")
            .arg(server.data_dir())
            .args(["admin", "secrets", "set", "weather"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    for value in ["short12", "abababababab"] {
        let refused = set(value);
        assert_eq!(refused.status.code(), Some(7), "{}", said(&refused));
        assert!(said(&refused).contains("cannot be told from ordinary text"), "{}", said(&refused));
        assert!(server.secret("weather").is_err(), "nothing was written");
    }
    assert!(set("long enough, 12 signs").status.success());

    // One that was put into the file by hand is named by doctor, and the log names it too.
    let file = server.data_dir().join("profiles/default/secrets.json");
    let mut secrets: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    secrets["tiny"] = "abc".into();
    std::fs::write(&file, secrets.to_string()).unwrap();
    ends(&server, &["doctor"], 0, &["WARN", "`tiny`"]);
    let server = server.restart().unwrap();
    let log = server.log();
    let line = log.lines().rev().find(|line| line.contains("cannot be guarded")).unwrap();
    assert!(line.contains("tiny") && !line.contains("[REDACTED]"), "{line}");
}

#[tokio::test]
async fn settings_fit_into_a_line_and_a_broken_profile_is_the_cause_that_demo_tells() {
    let server = stores::sqlite().start().unwrap();
    let shown = server.succeed(&["config", "show", "--origin"]).unwrap();
    for line in shown.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let routes = shown.lines().find(|line| line.starts_with("gateway.routes")).unwrap();
    assert!(routes.contains(" demo ") && routes.contains("profiles/default/profile.yaml:"), "{routes}");
    let whole = server.succeed(&["config", "show", "--origin", "--output", "json"]).unwrap();
    assert!(whole.contains("claude-demo*"), "machines get all of it");

    let profile = server.data_dir().join("profiles/default/profile.yaml");
    let text = std::fs::read_to_string(&profile).unwrap();
    std::fs::write(&profile, text.replace("mode: rules", "mode: ruls")).unwrap();
    ends(&server, &["demo"], 7, &["profile.yaml:", "did you mean `rules`?"]);
}

#[tokio::test]
async fn a_copied_folder_does_not_act_on_the_server_of_the_original() {
    let server = stores::sqlite().start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    assert!(Command::new("cp").arg("-R").arg(server.data_dir()).arg(&copy).status().unwrap().success());
    let run = |words: &[&str], event: &str| {
        let mut child = Command::new(systemprompt_tests::server::binary().unwrap())
            .arg("--data-dir")
            .arg(&copy)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(event.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    server.succeed(&["admin", "users", "list"]).unwrap();
    let refused = run(&["admin", "users", "list"], "");
    assert_eq!(refused.status.code(), Some(6), "{}", said(&refused));
    for part in ["is a copy", server.url(), "--offline", "--url"] {
        assert!(said(&refused).contains(part), "{}", said(&refused));
    }
    let named = run(&["--url", server.url(), "admin", "users", "list"], "");
    assert!(named.status.success(), "{}", said(&named));

    // What a hook tells is stored, or not, and blocks nothing.
    let told = json!({"hook_event_name": "Stop", "session_id": "s-1"}).to_string();
    for (url, event, code) in
        [(server.url(), told.as_str(), 0), (server.url(), "{", 1), ("http://127.0.0.1:9", &told, 1)]
    {
        let done = run(&["--url", url, "hook", "track"], event);
        assert_eq!(done.status.code(), Some(code), "{}", said(&done));
        assert!(code == 0 || !done.stderr.is_empty());
    }

    // A hook that gets no decision blocks, in the form of its event.
    for (event, member) in [("Stop", "/decision"), ("PreToolUse", "/hookSpecificOutput/permissionDecision")] {
        for url in [None, Some("http://127.0.0.1:9")] {
            let words: Vec<&str> =
                url.map(|url| ["--url", url]).into_iter().flatten().chain(["hook", "govern"]).collect();
            let blocked = run(&words, &json!({"hook_event_name": event, "tool_name": "Bash"}).to_string());
            assert_eq!(blocked.status.code(), Some(2), "{}", said(&blocked));
            let printed: Value = serde_json::from_slice(&blocked.stdout).unwrap();
            let wanted = if event == "Stop" { "block" } else { "deny" };
            assert_eq!(printed.pointer(member).unwrap(), wanted, "{printed}");
            assert_eq!(printed.as_object().unwrap().len(), if event == "Stop" { 2 } else { 1 }, "{printed}");
        }
    }
}

#[tokio::test]
async fn a_client_without_a_redirect_uri_is_told_how_a_service_is_made() {
    let server = stores::sqlite().start().unwrap();
    let make = ["admin", "clients", "create", "ci-bot", "--scope", "user"];
    ends(
        &server,
        &make,
        7,
        &["redirect_uris", "for a service: --grant client_credentials", "--redirect-uri"],
    );
    let service =
        ["admin", "clients", "create", "ci-bot", "--scope", "user", "--grant", "client_credentials"];
    assert!(server.succeed(&service).unwrap().starts_with("sps_"));
}

#[tokio::test]
async fn roles_are_added_and_taken_one_by_one_and_what_they_were_is_told() {
    let server = stores::sqlite().start().unwrap();
    let update = |change: &[&'static str]| [&["admin", "users", "update", "bob"][..], change].concat();
    let add = update(&["--add-role", "auditor", "--add-role", "user"]);
    ends(&server, &add, 0, &["roles of bob: user before, auditor user now"]);
    ends(&server, &update(&["--remove-role", "auditor"]), 0, &["auditor user before, user now"]);
    ends(&server, &update(&["--remove-role", "auditor"]), 5, &["has no role `auditor`", "it has: user"]);
    ends(&server, &update(&["--role", "auditor", "--add-role", "admin"]), 2, &["--add-role"]);
    ends(&server, &update(&["--role", "admin"]), 0, &["roles of bob: user before, admin now"]);
}
