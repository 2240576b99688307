//! Sinks through the whole server: a file, an endpoint, and a syslog server behind TLS.

use crate::http::Client;
use crate::stores;
use serde_json::{Value, json};
use std::io::{BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// `openssl s_server`, which prints what it is sent.
struct Syslog {
    child: Child,
    port: u16,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Syslog {
    fn start(folder: &Path) -> Option<Self> {
        let (key, cert) = (folder.join("key.pem"), folder.join("cert.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&cert)
            .output()
            .ok()?;
        made.status.success().then_some(())?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-key"])
            .arg(&key)
            .arg("-cert")
            .arg(&cert)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (text, stdout) = (Arc::new(Mutex::new(Vec::new())), child.stdout.take()?);
        let own = Arc::clone(&text);
        std::thread::spawn(move || {
            let (mut reader, mut piece) = (BufReader::new(stdout), [0; 4096]);
            while let Ok(read) = reader.read(&mut piece) {
                if read == 0 {
                    return;
                }
                own.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        });
        Some(Self { child, port, text })
    }

    /// The messages that are whole, taken apart by their lengths.
    fn messages(&self) -> Vec<String> {
        let bytes = self.text.lock().unwrap().clone();
        let (mut rest, mut messages) = (bytes.as_slice(), Vec::new());
        while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
            let length: usize = std::str::from_utf8(&rest[..space]).unwrap().parse().unwrap();
            let Some(message) = rest.get(space + 1..space + 1 + length) else { break };
            messages.push(String::from_utf8(message.to_vec()).unwrap());
            rest = &rest[space + 1 + length..];
        }
        messages
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_go_to_a_file_and_by_syslog_over_tls_and_lag_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(syslog) = Syslog::start(folder.path()) else {
        eprintln!("openssl is not installed");
        return;
    };
    let file = folder.path().join("denied.jsonl");
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let sinks = json!([
        {"name": "file", "type": "file", "path": file, "filter": {"kinds": ["governance.decision"], "outcome": "deny"}},
        {"name": "soc", "type": "syslog", "url": format!("tls://localhost:{}", syslog.port), "format": "ocsf",
         "tls": {"ca": folder.path().join("cert.pem")}},
        {"name": "gone", "type": "http", "url": format!("http://{dead}/ingest")},
    ]);
    let mut server = stores::sqlite().env("SYSTEMPROMPT__AUDIT__SINKS", &sinks.to_string()).start().unwrap();
    let (client, bob) = (Client::new(&server), format!("Bearer {}", server.user_token()));
    for tool in ["Read", "delete_customer", "drop_table"] {
        let event = json!({"hook_event_name": "PreToolUse", "session_id": "s-1", "tool_name": tool, "tool_input": {}});
        client.post("/api/v1/hooks/govern?plugin_id=demo", &[("authorization", &bob)], &event).await;
    }
    let lines = || std::fs::read_to_string(&file).unwrap_or_default();
    wait_until("two denials in the file", || lines().lines().count() == 2);
    for line in lines().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["record"]["outcome"], "deny", "{line}");
    }
    let is_denial = |message: &String| {
        message.contains(" governance.decision - \u{feff}") && message.starts_with("<108>1 ")
    };
    wait_until("two denials by syslog", || syslog.messages().iter().filter(|m| is_denial(m)).count() == 2);
    for message in syslog.messages() {
        let (head, event) = message.split_once('\u{feff}').unwrap();
        assert!(head.contains(" systemprompt - "), "{head}");
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["metadata"]["version"], "1.6.0", "{event}");
    }
    let ada = format!("Bearer {}", server.admin_token());
    let metrics = client.get("/metrics", &[("authorization", &ada)]).await.body;
    assert!(metrics.contains("ledger_sink_lag_seconds{sink=\"gone\"}"), "{metrics}");
    wait_until("the doctor tells of the endpoint", || {
        let printed = server.healthy().unwrap();
        printed.contains("gone lacks") && printed.contains("no connection could be made")
    });
    server.terminate().unwrap();
    let said = String::from_utf8(server.run(&["validate"]).unwrap().stdout).unwrap();
    assert!(said.contains("valid"), "{said}");
}
