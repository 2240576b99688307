use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server that answers every request with `answer`.
async fn serving(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[test]
fn urls_are_admitted_by_class() {
    use Class::{Loopback, Operator, Untrusted};
    let cases = [
        (Untrusted, "https://example.com/x", true),
        (Untrusted, "https://example.com:8443/x", true),
        (Untrusted, "https://example.com:80/x", false),
        (Untrusted, "http://example.com/x", false),
        (Untrusted, "https://u:p@example.com/", false),
        (Untrusted, "https://10.0.0.1/", false),
        (Untrusted, "https://[::1]/", false),
        (Untrusted, "https://[::ffff:8.8.8.8]/", false),
        (Untrusted, "https://8.8.8.8/", true),
        (Untrusted, "https://134744072/", false),
        (Untrusted, "https://0x08080808/", false),
        (Untrusted, "https://010.8.8.8/", false),
        (Untrusted, "file:///etc/passwd", false),
        (Untrusted, "not a url", false),
        (Operator, "https://api.example.com/v1", true),
        (Operator, "http://api.example.com/v1", false),
        (Operator, "http://127.0.0.1:9/v1", true),
        (Operator, "http://localhost:9/v1", true),
        (Operator, "http://[::1]:9/v1", true),
        (Operator, "https://192.168.0.5/v1", false),
        (Operator, "https://169.254.169.254/latest", false),
        (Operator, "ftp://api.example.com/", false),
        (Loopback, "http://127.0.0.1:9/", true),
        (Loopback, "http://localhost:9/", true),
        (Loopback, "http://10.0.0.1/", false),
        (Loopback, "http://example.com/", false),
    ];
    for (class, url, admitted) in cases {
        assert_eq!(client(class).unwrap().check(url).is_ok(), admitted, "{class:?} {url}");
    }
}

#[test]
fn the_operator_opens_private_networks_and_plain_http_by_name() {
    let policy = Policy { allow_insecure: true, allow_private: vec!["192.168.0.0/16".parse().unwrap()] };
    let egress = client_with(Class::Operator, policy).unwrap();
    assert!(egress.check("http://192.168.0.5/v1").is_ok());
    assert!(egress.check("http://models.example.com/v1").is_ok());
    assert!(egress.check("https://10.0.0.1/v1").is_err());

    let wide = Policy { allow_private: vec!["0.0.0.0/0".parse().unwrap()], ..Policy::default() };
    let egress = client_with(Class::Operator, wide).unwrap();
    assert!(egress.check("https://10.0.0.1/v1").is_ok());
    assert!(egress.check("https://169.254.169.254/").is_err(), "metadata needs an entry of its own");
    let named = Policy { allow_private: vec!["169.254.169.254/32".parse().unwrap()], ..Policy::default() };
    assert!(client_with(Class::Operator, named).unwrap().check("https://169.254.169.254/").is_ok());
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_refused_before_anything_is_sent() {
    let address = serving("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let untrusted = client(Class::Untrusted).unwrap();
    let error = untrusted.fetch(&format!("https://localhost:{}/", address.port()), 64).await.unwrap_err();
    assert!(matches!(&error, EgressError::AddressNotAllowed { host } if host == "localhost"), "{error}");
    assert!(error.is_before_send());
}

#[tokio::test]
async fn answers_are_bounded_and_redirects_are_not_followed() {
    let egress = client(Class::Loopback).unwrap();
    let url = |a: SocketAddr| format!("http://localhost:{}/?token=x", a.port());
    let ok = url(serving("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await);
    assert_eq!(egress.fetch(&ok, 5).await.unwrap(), "hello");
    assert!(matches!(egress.fetch(&ok, 4).await, Err(EgressError::TooLarge { limit: 4 })));
    let moved = url(serving("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n").await);
    assert!(matches!(egress.fetch(&moved, 5).await, Err(EgressError::Redirect(302))));
    let missing = url(serving("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await);
    assert!(matches!(egress.fetch(&missing, 5).await, Err(EgressError::Status(404))));
}

#[tokio::test]
async fn a_connection_error_names_no_query() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let egress = client(Class::Operator).unwrap();
    let error = egress.fetch(&format!("http://{unused}/?token=s3cr3t"), 5).await.unwrap_err();
    assert!(matches!(error, EgressError::Connect(_)));
    assert!(!format!("{error:?}").contains("s3cr3t"), "{error:?}");
}
