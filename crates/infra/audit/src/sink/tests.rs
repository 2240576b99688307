use super::*;
use crate::{Draft, EntryKind, Ledger, Unit, testing};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use systemprompt_database::testing::{TestDb, databases};
use systemprompt_models::SystemClock;
use systemprompt_net::egress::{Class, client};

const LONG: Duration = Duration::from_secs(30);

async fn write(ledger: &Ledger, from: u64, to: u64) {
    for number in from..to {
        let kind = if number.is_multiple_of(2) { EntryKind::ConfigReload } else { EntryKind::AdminBanAdded };
        let mut unit = Unit::new();
        unit.record(Draft::system(kind, "ok").with("number", number));
        ledger.append(unit).await.unwrap();
    }
}

fn sink(target: SinkTarget, kind: Option<&str>) -> Sinks {
    let filter = Filter { kind: kind.map(str::to_owned), ..Filter::default() };
    Sinks::new(vec![Sink { name: "out".into(), format: Format::Jsonl, filter, target }])
}

/// Runs sinks until they have everything; returns what they said on the way.
async fn run(sinks: &Sinks, ledger: &Ledger) -> Vec<String> {
    let (tasks, clock) = (Tasks::default(), Arc::new(SystemClock) as Arc<dyn Clock>);
    sinks.run(&ledger.reader(), "test", &Hub::default(), &clock, &tasks);
    let mut errors = Vec::new();
    let done = tokio::time::timeout(LONG, async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let lag = sinks.lags(clock.now()).remove(0);
            if let Some(error) = lag.last_error
                && errors.last() != Some(&error)
            {
                errors.push(error);
            }
            let stored = ledger.reader().sink_lag("out", "test", clock.now()).await.unwrap();
            if stored.records == 0 && stored.last_error.is_none() {
                return;
            }
        }
    });
    done.await.unwrap();
    tasks.drain(Duration::from_secs(5)).await;
    errors
}

fn numbers(text: &str) -> Vec<u64> {
    let number = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let record = line["record"].to_string();
        assert_eq!(line["hash"], crate::leaf_hash(&record), "byte for byte");
        line["record"]["detail"]["number"].as_u64().unwrap()
    };
    text.lines().map(number).collect()
}

async fn stores() -> [TestDb; 2] {
    databases(&testing::migrations()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_sink_goes_on_where_it_was_and_cuts_a_torn_line() {
    for db in stores().await {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let ledger = testing::ledger(&db, &[]).await;
        let sinks = || sink(SinkTarget::File(path.clone()), Some("config.*"));
        write(&ledger, 0, 7).await;
        run(&sinks(), &ledger).await;
        assert_eq!(numbers(&std::fs::read_to_string(&path).unwrap()), [0, 2, 4, 6]);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"record\":{\"act").unwrap();
        write(&ledger, 7, 12).await;
        let behind = ledger.reader().sink_lag("out", "test", i64::MAX).await.unwrap();
        assert!(behind.records == 5 && behind.seconds > 0, "{behind:?}");
        run(&sinks(), &ledger).await;
        assert_eq!(numbers(&std::fs::read_to_string(&path).unwrap()), [0, 2, 4, 6, 8, 10]);
    }
}

/// An endpoint that answers with these statuses, then with 200; returns its address and what it took.
fn endpoint(mut statuses: Vec<u16>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/ingest", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&taken);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            loop {
                let (mut length, mut line) = (0, String::new());
                while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if length == 0 || reader.read_exact(&mut body).is_err() {
                    break;
                }
                let status = if statuses.is_empty() { 200 } else { statuses.remove(0) };
                if status == 200 {
                    own.lock().unwrap().push(String::from_utf8(body).unwrap());
                }
                let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
                if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (url, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_gets_everything_once_it_takes_it() {
    let [db, _postgres] = stores().await;
    let ledger = testing::ledger(&db, &[]).await;
    write(&ledger, 0, 620).await;
    let (url, taken) = endpoint(vec![500, 503]);
    let sinks = sink(SinkTarget::Http { url, egress: client(Class::Operator).unwrap() }, None);
    let errors = run(&sinks, &ledger).await;
    assert!(errors.iter().any(|error| error.contains("answered 500")), "{errors:?}");
    let batches = taken.lock().unwrap().clone();
    assert_eq!(batches.iter().map(|batch| batch.lines().count()).collect::<Vec<_>>(), [500, 120]);
    assert_eq!(numbers(&batches.concat()), (0..620).collect::<Vec<_>>());
    // Nothing is sent again by the next start.
    run(&sinks, &ledger).await;
    assert_eq!(taken.lock().unwrap().len(), 2);
}
