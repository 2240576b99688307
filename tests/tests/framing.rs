//! Requests whose end could be told in two ways, as bytes on a socket: each is refused, and nothing that stands behind is read.

use crate::stores;
use std::time::Duration;
use systemprompt_tests::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Everything that the server answers until it ends the connection; nothing when it keeps it open.
async fn exchange(server: &Server, bytes: &str) -> Option<String> {
    let address = server.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // What was left unread makes the end a reset; the answer is there before it.
    let to_end = async { while matches!(stream.read_buf(&mut answer).await, Ok(n) if n > 0) {} };
    tokio::time::timeout(Duration::from_secs(8), to_end).await.ok()?;
    Some(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn a_request_that_ends_in_two_ways_is_refused_and_its_connection_ends() {
    const SMUGGLED: &str = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let server = stores::sqlite().start().unwrap();
    let chunks = format!("0\r\n\r\n{SMUGGLED}");
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
    ] {
        let request = format!("POST /v1/messages HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{chunks}");
        for before in ["", SMUGGLED] {
            let answer = exchange(&server, &format!("{before}{request}")).await;
            let answer = answer.unwrap_or_else(|| panic!("the connection stays open: {fields:?}"));
            assert!(answer.contains("HTTP/1.1 400 "), "{fields:?}: {answer}");
            let answered = answer.matches("{\"status\":\"ok\"}").count();
            assert!(
                answered <= usize::from(!before.is_empty()),
                "{fields:?}: what stood behind was read: {answer}"
            );
        }
    }
    let plain = "POST /health/live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let last = SMUGGLED.replace("Host:", "Connection: close\r\nHost:");
    let answer = exchange(&server, &format!("{plain}{last}")).await.unwrap();
    assert!(answer.contains("HTTP/1.1 405 ") && answer.contains("HTTP/1.1 200 "), "{answer}");
}
