use super::*;
use crate::demo::Step;
use crate::providers::demo::DemoBody;
use futures_util::StreamExt as _;
use proptest::prelude::*;

const LIMITS: StreamLimits =
    StreamLimits { idle: Duration::from_mins(2), total: Duration::from_hours(1), ping: PING_INTERVAL };
const EVENTS: &str =
    "event: a\ndata: {\"type\":\"a\"}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

fn stream_of(chunks: &[(u64, &[u8])], broken: bool, encoding: Encoding, limits: StreamLimits) -> ReplyStream {
    let steps = chunks
        .iter()
        .map(|(pause, bytes)| Step {
            pause: Duration::from_millis(*pause),
            bytes: Bytes::copy_from_slice(bytes),
        })
        .collect();
    ReplyStream::new(
        UpstreamBody::Demo(DemoBody::new(steps, broken)),
        encoding,
        limits,
        Scanner::new(),
        &Tasks::default(),
    )
}

/// All that comes out, piece by piece, and the milliseconds that it took.
async fn drained(mut stream: ReplyStream) -> (Vec<Bytes>, u128) {
    let began = Instant::now();
    let mut pieces = Vec::new();
    while let Some(Ok(bytes)) = stream.next().await {
        pieces.push(bytes);
    }
    (pieces, began.elapsed().as_millis())
}

fn text(pieces: &[Bytes]) -> String {
    String::from_utf8(pieces.concat()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn whole_events_leave_at_once_and_byte_for_byte() {
    for cut in 0..EVENTS.len() {
        let (a, b) = EVENTS.as_bytes().split_at(cut);
        let (pieces, _) = drained(stream_of(&[(0, a), (5, b)], false, Encoding::Identity, LIMITS)).await;
        assert_eq!(text(&pieces), EVENTS);
        let first = pieces.iter().find(|piece| !piece.is_empty()).unwrap();
        assert!(first.ends_with(b"\n\n") || cut < 29, "cut at {cut}: {first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_blank_line_passes_as_it_is() {
    let (pieces, _) =
        drained(stream_of(&[(0, b"data: 1\n\ndata: 2")], false, Encoding::Identity, LIMITS)).await;
    assert_eq!(text(&pieces), "data: 1\n\ndata: 2");
}

#[tokio::test(start_paused = true)]
async fn a_silence_is_filled_with_pings_between_events() {
    let chunks: [(u64, &[u8]); 3] = [(0, b"data: 1\n\nda"), (40_000, b"ta: 2\n\n"), (14_000, b"data: 3\n\n")];
    let (pieces, took) = drained(stream_of(&chunks, false, Encoding::Identity, LIMITS)).await;
    let ping = std::str::from_utf8(PING).unwrap();
    assert_eq!(text(&pieces), format!("data: 1\n\n{ping}{ping}data: 2\n\ndata: 3\n\n"));
    assert_eq!(took, 54_000);
}

#[tokio::test(start_paused = true)]
async fn a_lost_upstream_ends_with_an_error_event_and_without_the_torn_one() {
    let (pieces, _) =
        drained(stream_of(&[(0, b"data: 1\n\ndata: {\"ty")], true, Encoding::Identity, LIMITS)).await;
    let expected = "data: 1\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"upstream connection lost\"}}\n\n";
    assert_eq!(text(&pieces), expected);
    assert!(!text(&pieces).contains("message_stop"));
}

#[tokio::test(start_paused = true)]
async fn silence_and_length_are_bounded() {
    let limits = StreamLimits { idle: Duration::from_secs(20), ..LIMITS };
    let (pieces, took) = drained(stream_of(
        &[(0, b"data: 1\n\n"), (60_000, b"data: 2\n\n")],
        false,
        Encoding::Identity,
        limits,
    ))
    .await;
    assert!(text(&pieces).ends_with("\"upstream silent\"}}\n\n"));
    assert_eq!(took, 20_000);
    let limits = StreamLimits { total: Duration::from_secs(25), ..LIMITS };
    let chunks: Vec<(u64, &[u8])> = (0..10).map(|_| (10_000, &b"data: 1\n\n"[..])).collect();
    let (pieces, took) = drained(stream_of(&chunks, false, Encoding::Identity, limits)).await;
    assert!(text(&pieces).contains("the time for this call is over"));
    assert_eq!(took, 25_000);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_gives_a_stream_thirty_seconds() {
    let tasks = Tasks::default();
    let steps = vec![Step { pause: Duration::from_secs(100), bytes: Bytes::from_static(b"data: 1\n\n") }];
    let stream = ReplyStream::new(
        UpstreamBody::Demo(DemoBody::new(steps, false)),
        Encoding::Identity,
        LIMITS,
        Scanner::new(),
        &tasks,
    );
    tasks.shutdown_token().cancel();
    let (pieces, took) = drained(stream).await;
    assert!(text(&pieces).contains("gateway shutting down"));
    assert_eq!(took, 30_000);
}

#[tokio::test(start_paused = true)]
async fn an_event_beyond_the_bound_passes_as_it_comes() {
    let part = vec![b'x'; MAX_HELD_BYTES / 2 + 1];
    let chunks: [(u64, &[u8]); 5] =
        [(0, b"data: "), (0, &part), (0, &part), (20_000, b"y\n\nda"), (0, b"ta: 2\n\n")];
    let (pieces, _) = drained(stream_of(&chunks, false, Encoding::Identity, LIMITS)).await;
    let expected = [b"data: ", &part[..], &part[..], b"y\n\ndata: 2\n\n"].concat();
    assert!(pieces.concat() == expected, "no ping inside the long event, nothing lost");
    assert_eq!(pieces.last().unwrap().as_ref(), b"ta: 2\n\n");
}

#[tokio::test(start_paused = true)]
async fn an_encoded_answer_passes_untouched_and_is_read_all_the_same() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(EVENTS.as_bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let (a, b) = packed.split_at(packed.len() / 2);
    for encoding in [Encoding::Gzip, Encoding::Other] {
        let mut stream = stream_of(&[(0, a), (50_000, b)], false, encoding, LIMITS);
        let mut out = Vec::new();
        for _ in 0..2 {
            out.extend_from_slice(&stream.next().await.unwrap().unwrap());
        }
        assert_eq!(out, packed);
        assert_eq!(stream.tap.observed().complete, encoding == Encoding::Gzip);
    }
    let (pieces, _) =
        drained(stream_of(&[(0, b"no gzip"), (0, b" at all")], false, Encoding::Gzip, LIMITS)).await;
    assert_eq!(text(&pieces), "no gzip at all");
}

proptest! {
    #[test]
    fn nothing_is_lost_or_reordered(
        bytes in proptest::collection::vec(prop::sample::select(b"data: x\n\n\r".to_vec()), 1..120),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<(u64, &[u8])> = cuts.windows(2).map(|pair| (0, &bytes[pair[0]..pair[1]])).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (pieces, _) = runtime.block_on(drained(stream_of(&chunks, false, Encoding::Identity, LIMITS)));
        prop_assert_eq!(pieces.concat(), bytes);
    }
}
