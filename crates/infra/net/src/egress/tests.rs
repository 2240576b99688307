use super::*;
use crate::testing::Stub;
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

fn untrusted(names: Arc<Stub>, hosts: HostRules) -> Egress {
    client_resolving(Class::Untrusted, Policy::default(), hosts, names).unwrap()
}

/// A listener that counts who connects, and answers nobody.
async fn counting() -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    (address, count)
}

#[tokio::test]
async fn case_31_what_a_name_leads_to_is_checked_and_nobody_refused_is_connected_to() {
    let (own, connected) = counting().await;
    let special = [
        "0.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "fc00::1",
        "fe80::1",
        "ff02::1",
    ];
    for address in special {
        let egress = untrusted(Stub::of(&[("evil.test", &[&[address]])]), HostRules::default());
        let error = egress.fetch(&format!("https://evil.test:{}/", own.port()), 64).await.unwrap_err();
        assert!(
            matches!(&error, EgressError::AddressNotAllowed { host } if host == "evil.test"),
            "{address}: {error}"
        );
    }
    // One bad answer among good ones, and a name that changes its answer.
    let both = untrusted(Stub::of(&[("both.test", &[&["8.8.8.8", "127.0.0.1"]])]), HostRules::default());
    let error = both.fetch(&format!("https://both.test:{}/", own.port()), 64).await.unwrap_err();
    assert!(matches!(error, EgressError::AddressNotAllowed { .. }), "{error}");
    let turns = Stub::of(&[("turns.test", &[&["192.0.2.1"], &["127.0.0.1"]])]);
    let turning = untrusted(turns, HostRules::default());
    for _ in 0..2 {
        let error = turning.fetch(&format!("https://turns.test:{}/", own.port()), 64).await.unwrap_err();
        assert!(matches!(error, EgressError::AddressNotAllowed { .. }), "{error}");
    }
    let unknown = untrusted(Stub::of(&[]), HostRules::default());
    let error = unknown.fetch("https://none.test/", 64).await.unwrap_err();
    assert!(matches!(error, EgressError::Unresolved { .. }), "{error}");
    for (url, scheme) in [
        ("https://2130706433/", false),
        ("https://0x7f000001/", false),
        ("https://0177.0.0.1/", false),
        ("https://127.1/", false),
        ("https://127.0.0.1/", false),
        ("https://[::1]/", false),
        ("https://user:secret@evil.test/", false),
        ("https://evil.test:22/", false),
        ("http://evil.test/", true),
        ("ftp://evil.test/", true),
    ] {
        let error = unknown.fetch(url, 64).await.unwrap_err();
        assert_eq!(matches!(error, EgressError::SchemeNotAllowed(..)), scheme, "{url}: {error}");
        assert!(error.is_before_send(), "{url}: {error}");
    }
    assert_eq!(connected.load(std::sync::atomic::Ordering::SeqCst), 0);
}

type Check = fn(&EgressError) -> bool;

#[tokio::test]
async fn case_31_answers_that_no_use_wants_are_refused() {
    let loopback = HostRules::default().with_loopback();
    let egress = untrusted(Stub::of(&[("localhost", &[&["127.0.0.1"]])]), loopback);
    let url = |a: SocketAddr| format!("http://localhost:{}/doc?token=x", a.port());
    let rows: [(&'static str, Check); 7] = [
        ("HTTP/1.1 302 Found\r\nlocation: http://localhost/\r\ncontent-length: 0\r\n\r\n", |e| {
            matches!(e, EgressError::Redirect(302))
        }),
        ("HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok", |e| matches!(e, EgressError::Status(201))),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", |e| matches!(e, EgressError::Status(304))),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n123456789", |e| {
            matches!(e, EgressError::TooLarge { limit: 8 })
        }),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n12345678\r\n1\r\n9\r\n0\r\n\r\n", |e| {
            matches!(e, EgressError::TooLarge { limit: 8 })
        }),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\u{1f}bmb", |e| {
            matches!(e, EgressError::Encoded)
        }),
        ("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n1234", |e| matches!(e, EgressError::Transport(_))),
    ];
    for (answer, check) in rows {
        let error = egress.fetch(&url(serving(answer).await), 8).await.unwrap_err();
        assert!(check(&error), "{answer:?}: {error:?}");
        assert!(!format!("{error:?}{error}").contains("token"), "{error:?}");
    }
    let exact = serving("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12345678").await;
    assert_eq!(egress.fetch(&url(exact), 8).await.unwrap(), "12345678");
}

#[tokio::test]
async fn case_31_a_slow_drip_ends_with_the_whole_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test's own server")]
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let _ = socket.read(&mut request).await;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let egress =
        untrusted(Stub::of(&[("localhost", &[&["127.0.0.1"]])]), HostRules::default().with_loopback());
    let begun = Instant::now();
    let error = egress.fetch(&format!("http://localhost:{}/", address.port()), 4096).await.unwrap_err();
    assert!(matches!(error, EgressError::Timeout), "{error:?}");
    let took = begun.elapsed();
    assert!(took >= UNTRUSTED_TOTAL && took < UNTRUSTED_TOTAL + Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn the_operators_lists_close_and_open_hosts() {
    let pattern = |text: &str| text.parse::<HostPattern>().unwrap();
    let rules = HostRules::new(
        vec![pattern("*.example.com")],
        vec![pattern("bad.example.com")],
        vec!["vault.internal".parse().unwrap()],
    );
    let class = |class| client_under(class, Policy::default(), rules.clone()).unwrap();
    for (of, url, open) in [
        (Class::Untrusted, "https://docs.example.com/", true),
        (Class::Untrusted, "https://bad.example.com/", false),
        (Class::Untrusted, "https://elsewhere.test/", false),
        (Class::Operator, "https://elsewhere.test/", true),
        (Class::Operator, "https://bad.example.com/", false),
    ] {
        let found = class(of).check(url);
        assert_eq!(found.is_ok(), open, "{of:?} {url}");
        if let Err(error) = found {
            assert!(matches!(error, EgressError::HostNotAllowed { .. }), "{error}");
        }
    }
    // A private host that the operator named is tried; another one is not.
    let names =
        Stub::of(&[("vault.internal", &[&["10.255.255.1"]]), ("other.internal", &[&["10.255.255.1"]])]);
    let egress = client_resolving(Class::Operator, Policy::default(), rules, names).unwrap();
    let tried = egress.fetch("https://other.internal/", 8).await.unwrap_err();
    assert!(matches!(tried, EgressError::AddressNotAllowed { .. }), "{tried}");
    let tried =
        tokio::time::timeout(Duration::from_millis(300), egress.fetch("https://vault.internal/", 8)).await;
    assert!(!matches!(tried, Ok(Err(EgressError::AddressNotAllowed { .. }))), "{tried:?}");
}

#[test]
fn an_answer_is_fresh_for_as_long_as_it_says() {
    let date = Some("Sun, 22 Nov 2026 16:00:00 GMT");
    let seconds = |n| Some(Duration::from_secs(n));
    for (control, age, expires, want) in [
        (None, None, None, None),
        (Some("max-age=60"), None, None, seconds(60)),
        (Some("public, Max-Age=\"60\""), Some("10"), None, seconds(50)),
        (Some("max-age=60"), Some("90"), None, seconds(0)),
        (Some("s-maxage=5, max-age=60"), None, None, seconds(5)),
        (Some("max-age=60, s-maxage=5"), None, None, seconds(5)),
        (Some("max-age=60, no-store"), None, None, seconds(0)),
        (Some("no-cache"), None, None, seconds(0)),
        (Some("max-age=60"), None, Some("Sun, 22 Nov 2026 17:00:00 GMT"), seconds(60)),
        (None, None, Some("Sun, 22 Nov 2026 17:00:00 GMT"), seconds(3600)),
        (None, None, Some("0"), seconds(0)),
        (Some("max-age=x"), None, None, None),
    ] {
        assert_eq!(freshness(control, age, expires, date), want, "{control:?} {age:?} {expires:?}");
    }
}

#[test]
fn media_types_are_compared_without_their_parameters() {
    for (media, text, want) in [
        (Media::Json, Some("application/json"), true),
        (Media::Json, Some("Application/JSON; charset=utf-8"), true),
        (Media::Json, Some("application/jwk-set+json"), true),
        (Media::Json, Some("application/+json"), false),
        (Media::Json, Some("text/json"), false),
        (Media::Json, Some("application/jsonx"), false),
        (Media::Json, None, false),
        (Media::Picture, Some("image/png"), true),
        (Media::Picture, Some("image/svg+xml"), false),
        (Media::Any, None, true),
    ] {
        assert_eq!(media.takes(text), want, "{media:?} {text:?}");
    }
}
