use super::lines::MAX_GARBAGE;
use super::*;
use crate::wire::raw::raw;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};

/// The child's side of a connection.
struct Child {
    lines: BufReader<ReadHalf<DuplexStream>>,
    output: WriteHalf<DuplexStream>,
}

fn connected(limit: usize) -> (Connection, Child) {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let (input, output) = tokio::io::split(ours);
    let connection = Connection::open("fixture", (input, output), limit, Scanner::new(), &Tasks::default());
    let (lines, output) = tokio::io::split(theirs);
    (connection, Child { lines: BufReader::new(lines), output })
}

impl Child {
    async fn hears(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn says(&mut self, text: &str) {
        self.output.write_all(format!("{text}\n").as_bytes()).await.unwrap();
    }
}

fn options() -> CallOptions {
    CallOptions::within(Duration::from_secs(5))
}

#[tokio::test]
async fn answers_find_their_calls_in_any_order_and_keep_their_bytes() {
    let (connection, mut child) = connected(4096);
    let params = raw("{\"name\":\"x\",\n\"n\":1.0}".to_owned());
    let first = connection.call("tools/call", RawObject::read(&params), options());
    let second = connection.call("tools/list", None, options());
    let script = async {
        let (a, b) = (child.hears().await, child.hears().await);
        assert_eq!((a["method"].as_str(), b["method"].as_str()), (Some("tools/call"), Some("tools/list")));
        assert_eq!(a["params"]["n"].to_string(), "1.0");
        child
            .says(&format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{{\"code\":-5, \"message\":\"no\"}}}}",
                b["id"]
            ))
            .await;
        child.says(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{\"a\" : 1.50}}}}", a["id"])).await;
    };
    let (first, second, ()) = tokio::join!(first, second, script);
    assert!(matches!(first, Ok(Answer::Result(r)) if r.get() == "{\"a\" : 1.50}"));
    assert!(matches!(second, Ok(Answer::Error(e)) if e.get() == "{\"code\":-5, \"message\":\"no\"}"));
}

#[tokio::test]
async fn a_cancelled_call_ends_at_once_and_the_child_is_told() {
    let (connection, mut child) = connected(4096);
    let cancel = CancellationToken::new();
    let call = connection.call("tools/call", None, CallOptions { cancel: cancel.clone(), ..options() });
    let script = async {
        let call = child.hears().await;
        cancel.cancel();
        let told = child.hears().await;
        assert_eq!(told["method"], "notifications/cancelled");
        assert_eq!(told["params"]["requestId"], call["id"]);
        child.says(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{{}}}}", call["id"])).await;
    };
    let (outcome, ()) = tokio::join!(call, script);
    assert_eq!(outcome.unwrap_err(), StdioError::Cancelled);
    assert!(!connection.is_closed(), "a late answer harms nobody");
}

#[tokio::test(start_paused = true)]
async fn progress_extends_the_deadline_up_to_the_maximum() {
    let (connection, mut child) = connected(4096);
    let (progress, mut seen) = mpsc::channel(16);
    let limits = CallOptions {
        timeout: Duration::from_secs(2),
        max: Duration::from_secs(5),
        progress: Some(progress),
        cancel: CancellationToken::new(),
    };
    let params = raw("{\"_meta\":{\"progressToken\":\"theirs\",\"k\":1}}".to_owned());
    let call = connection.call("tools/call", RawObject::read(&params), limits);
    let script = async {
        let call = child.hears().await;
        assert_eq!(call["params"]["_meta"], serde_json::json!({"progressToken": call["id"], "k": 1}));
        for step in 0..8 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            child.says(&format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{},\"progress\":{step}}}}}", call["id"])).await;
        }
    };
    let started = Instant::now();
    let (outcome, ()) = tokio::join!(async { (call.await, started.elapsed()) }, script);
    assert_eq!(outcome.0.unwrap_err(), StdioError::Timeout);
    assert_eq!(outcome.1.as_secs(), 5);
    let mut steps = 0;
    while seen.try_recv().is_ok() {
        steps += 1;
    }
    assert!((4..=5).contains(&steps), "{steps}");
}

#[tokio::test]
async fn a_child_that_ends_fails_every_call_and_later_ones() {
    let (connection, child) = connected(4096);
    let call = connection.call("tools/call", None, options());
    let (outcome, ()) = tokio::join!(call, async move { drop(child) });
    assert_eq!(outcome.unwrap_err(), StdioError::Closed);
    assert_eq!(connection.closed().await, CloseReason::Ended);
    assert_eq!(connection.call("ping", None, options()).await.unwrap_err(), StdioError::Closed);
}

#[tokio::test]
async fn a_line_beyond_the_limit_fails_its_call_and_closes() {
    let (connection, mut child) = connected(512);
    let call = connection.call("tools/call", None, options());
    let other = connection.call("tools/call", None, options());
    let script = async {
        let id = child.hears().await["id"].clone();
        child.says(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":\"{}\"}}", "x".repeat(600))).await;
    };
    let (first, second, ()) = tokio::join!(call, other, script);
    assert_eq!(first.unwrap_err(), StdioError::TooLarge);
    assert_eq!(second.unwrap_err(), StdioError::Closed);
    assert_eq!(connection.closed().await, CloseReason::LineTooLong);
}

#[tokio::test]
async fn text_on_standard_output_is_skipped_until_it_is_too_much() {
    let (connection, mut child) = connected(512);
    let call = connection.call("tools/call", None, options());
    let script = async {
        let id = child.hears().await["id"].clone();
        for line in ["Server started", "", "{\"id\":", "{\"jsonrpc\":\"2.0\"}", "[1]"] {
            child.says(line).await;
        }
        child.says(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":1}}")).await;
    };
    let (outcome, ()) = tokio::join!(call, script);
    assert!(matches!(outcome, Ok(Answer::Result(r)) if r.get() == "1"));
    for _ in 0..MAX_GARBAGE {
        child.says("noise").await;
    }
    assert_eq!(connection.closed().await, CloseReason::NotJsonRpc);
}

#[tokio::test]
async fn a_child_may_ask_for_a_sign_of_life_and_nothing_else() {
    let (connection, mut child) = connected(512);
    child.says("{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}").await;
    assert_eq!(child.hears().await, serde_json::json!({"jsonrpc": "2.0", "id": "p", "result": {}}));
    child.says("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"sampling/createMessage\",\"params\":{}}").await;
    assert_eq!(child.hears().await["error"]["code"], -32601);
    child.says("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}").await;
    child.says("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\"}").await;
    child.hears().await;
    assert!(connection.take_list_changed() && !connection.take_list_changed());
}

#[tokio::test]
async fn unanswered_calls_are_bounded() {
    let (connection, mut child) = connected(512);
    let calls: Vec<_> = (0..MAX_PENDING)
        .map(|_| connection.register(None, Arc::new(Notify::new())).map(|(call, _)| call).unwrap())
        .collect();
    assert_eq!(connection.call("ping", None, options()).await.unwrap_err(), StdioError::Busy);
    drop(calls);
    let (outcome, ()) = tokio::join!(connection.call("ping", None, options()), async {
        let id = child.hears().await["id"].clone();
        child.says(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}")).await;
    });
    assert!(outcome.is_ok());
}
