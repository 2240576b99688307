//! A data folder as a thing of its own: one process serves it, a copy of it is another one, and what reads it may come beside.

use crate::http::Client;
use crate::stores;
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Output;
use systemprompt_tests::Options;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The server is stopped in its tracks, so that only the lock can tell of it.
#[tokio::test]
async fn a_folder_is_served_once_even_when_its_server_says_nothing() {
    let mut server = stores::sqlite().start().unwrap();
    server.signal(Signal::SIGSTOP).unwrap();
    for words in
        [&["serve", "--port", "0"][..], &["up", "--port", "0"], &["admin", "--offline", "users", "list"]]
    {
        let second = server.run(words).unwrap();
        assert_eq!(second.status.code(), Some(6), "{words:?}: {}", said(&second));
        let told = said(&second);
        assert!(told.contains(&server.pid().to_string()) && told.contains("systemprompt.db"), "{told}");
    }
    server.signal(Signal::SIGCONT).unwrap();
    server.kill().unwrap();
    let server = server.restart().unwrap();
    assert_eq!(Client::new(&server).get("/health", &[]).await.status, 200, "a kill leaves no lock behind");
}

#[tokio::test]
async fn commands_that_read_work_beside_the_server() {
    let server = stores::sqlite().start().unwrap();
    for words in [&["audit", "verify"][..], &["audit", "--offline", "verify"], &["doctor"], &["db", "status"]]
    {
        server.succeed(words).unwrap();
    }
    let served = server.succeed(&["audit", "query", "--limit", "1", "--output", "json"]).unwrap();
    let served: serde_json::Value = serde_json::from_str(&served).unwrap();
    server.succeed(&["explain", served["items"][0]["id"].as_str().unwrap()]).unwrap();
}

#[tokio::test]
async fn a_copied_folder_works_on_its_own_database_beside_the_first() {
    let server = stores::sqlite().start().unwrap();
    let parent = tempfile::tempdir().unwrap();
    let copy = parent.path().join("copy");
    copy_folder(server.data_dir(), &copy);
    let second = Options::demo().unwrap().data_dir(&copy).start().unwrap();
    assert_ne!(server.url(), second.url());
    second.succeed(&["admin", "users", "create", "carol", "--role", "user"]).unwrap();
    let unknown = server.run(&["admin", "users", "get", "carol"]).unwrap();
    assert_eq!(unknown.status.code(), Some(5), "{}", said(&unknown));
    second.succeed(&["admin", "users", "get", "carol"]).unwrap();
    for server in [&server, &second] {
        server.succeed(&["audit", "verify"]).unwrap();
    }
}

/// Folders of earlier versions name the database by its whole path; they go on working, and a copy of one is refused.
#[tokio::test]
async fn an_absolute_address_goes_on_working_and_is_guarded_by_the_same_lock() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("elsewhere.db");
    let url = format!("sqlite:{}", database.display());
    let first = Options::demo().unwrap().secret("database_url", &url).start().unwrap();
    assert!(database.is_file());
    let second = Options::demo().unwrap().secret("database_url", &url).start().unwrap_err().to_string();
    assert!(second.contains("exit status: 6"), "{second}");
    assert_eq!(Client::new(&first).get("/health", &[]).await.status, 200);
}

#[tokio::test]
async fn doctor_notices_a_tail_that_was_cut_off() {
    for options in stores::engines().await {
        let mut server = options.start().unwrap();
        assert!(server.terminate().unwrap().success());
        server.healthy().unwrap();
        let db = stores::open(&server).await;
        stores::change(
            &db,
            "DELETE FROM ledger_entries WHERE seq > (SELECT MAX(seq) - 2 FROM ledger_entries)",
        )
        .await;
        db.close().await;
        let found = server.run(&["doctor"]).unwrap();
        assert_eq!(found.status.code(), Some(1), "{}", said(&found));
        assert!(said(&found).contains("tail_missing"), "{}", said(&found));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
