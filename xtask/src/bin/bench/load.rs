//! The load generator: N keep-alive connections on one thread, each sending its next request as soon as it has read the
//! whole answer to the last (closed loop). It counts what was not as expected and keeps latencies in a histogram. A workload
//! may have a certain number of requests, and may take the answers for the next one.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::response::Parts;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};

/// What is sent, and what answer is right.
pub trait Workload {
    /// The request with this number; every number is asked for once.
    fn request(&self, number: u64) -> Request<Full<Bytes>>;

    fn is_expected(&self, number: u64, parts: &Parts) -> bool;

    /// The number behind the last request, with which the run ends; none for as many as the time allows.
    fn end(&self) -> Option<u64> {
        None
    }

    /// Whether [`Self::take`] is given the bodies. Without it they are read and dropped.
    fn wants_bodies(&self) -> bool {
        false
    }

    /// Takes a whole answer that was expected, and says whether it holds what it must.
    fn take(&self, _number: u64, _parts: &Parts, _body: &[u8]) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub address: SocketAddr,
    pub connections: usize,
    pub warm_up: Duration,
    /// At most so long, if the workload ends.
    pub run: Duration,
    /// The number of the first request, so that runs on one server never repeat one.
    pub first: u64,
}

/// What one run gave. `sent` counts the warm-up too; all else is of the measured time.
#[derive(Debug)]
pub struct Outcome {
    pub sent: u64,
    pub measured: u64,
    pub unexpected: u64,
    pub errors: u64,
    pub elapsed: Duration,
    /// Whole answers, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Until the first bytes of the body, in nanoseconds.
    pub first_byte: Histogram<u64>,
}

impl Outcome {
    pub fn new() -> Result<Self> {
        let histogram = || Histogram::new_with_bounds(1_000, 60_000_000_000, 3);
        Ok(Self {
            sent: 0,
            measured: 0,
            unexpected: 0,
            errors: 0,
            elapsed: Duration::ZERO,
            latency: histogram()?,
            first_byte: histogram()?,
        })
    }

    pub fn rate(&self) -> f64 {
        self.measured as f64 / self.elapsed.as_secs_f64()
    }

    /// A percentile of the whole answers in milliseconds.
    pub fn millis(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1e6
    }

    pub fn first_byte_millis(&self, percentile: f64) -> f64 {
        self.first_byte.value_at_percentile(percentile) as f64 / 1e6
    }

    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.sent += other.sent;
        self.measured += other.measured;
        self.unexpected += other.unexpected;
        self.errors += other.errors;
        self.latency.add(&other.latency)?;
        self.first_byte.add(&other.first_byte)?;
        Ok(())
    }
}

/// Runs the plan on this thread. `read` is called when the warm-up is over and when the measured time is, for readings of
/// CPU time.
pub fn run<T: 'static>(
    plan: &Plan,
    workload: Rc<dyn Workload>,
    read: impl Fn() -> T + 'static,
) -> Result<(Outcome, T, T)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(*plan, workload, read))
}

async fn drive<T: 'static>(
    plan: Plan,
    workload: Rc<dyn Workload>,
    read: impl Fn() -> T + 'static,
) -> Result<(Outcome, T, T)> {
    let begin = Instant::now() + plan.warm_up;
    let end = begin + plan.run;
    let read = Rc::new(read);
    let next = Rc::new(Cell::new(plan.first));
    let mut connections = JoinSet::new();
    for _ in 0..plan.connections {
        connections.spawn_local(connection(plan.address, Rc::clone(&workload), Rc::clone(&next), begin, end));
    }
    let before = tokio::task::spawn_local(reading(begin, Rc::clone(&read)));
    let after = tokio::task::spawn_local(reading(end, Rc::clone(&read)));
    let mut total = Outcome::new()?;
    while let Some(result) = connections.join_next().await {
        total.add(&result??)?;
    }
    let done = Instant::now();
    if done >= end {
        total.elapsed = plan.run;
        return Ok((total, before.await?, after.await?));
    }
    // The workload had an end, and came to it.
    let last = read();
    after.abort();
    ensure!(done > begin, "the requests were all sent in the warm-up");
    total.elapsed = done - begin;
    Ok((total, before.await?, last))
}

async fn reading<T>(at: Instant, read: Rc<impl Fn() -> T>) -> T {
    tokio::time::sleep_until(at.into()).await;
    read()
}

/// One connection until `end`. After an error it connects anew.
async fn connection(
    address: SocketAddr,
    workload: Rc<dyn Workload>,
    next: Rc<Cell<u64>>,
    begin: Instant,
    end: Instant,
) -> Result<Outcome> {
    let mut outcome = Outcome::new()?;
    let mut sender = connect(address).await?;
    let mut kept = Vec::new();
    loop {
        let start = Instant::now();
        let number = next.get();
        if start >= end || workload.end().is_some_and(|last| number >= last) {
            return Ok(outcome);
        }
        next.set(number + 1);
        outcome.sent += 1;
        let body = workload.wants_bodies().then_some(&mut kept);
        let answer = exchange(&mut sender, workload.request(number), start, body).await;
        let done = Instant::now();
        let Ok((parts, first_byte)) = answer else {
            outcome.errors += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
            sender = connect(address).await?;
            continue;
        };
        let is_right = workload.is_expected(number, &parts) && workload.take(number, &parts, &kept);
        outcome.unexpected += u64::from(!is_right);
        if start >= begin && done <= end {
            outcome.measured += 1;
            outcome.latency.saturating_record(nanos(done - start));
            outcome.first_byte.saturating_record(nanos(first_byte));
        }
    }
}

/// One request on a connection of its own, with its whole answer.
pub fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<(Parts, Vec<u8>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let mut body = Vec::new();
        let mut sender = connect(address).await?;
        let (parts, _) = exchange(&mut sender, request, Instant::now(), Some(&mut body)).await?;
        Ok((parts, body))
    })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    start: Instant,
    mut kept: Option<&mut Vec<u8>>,
) -> Result<(Parts, Duration)> {
    sender.ready().await?;
    let (parts, mut body) = Response::into_parts(sender.send_request(request).await?);
    let mut first = None;
    if let Some(kept) = &mut kept {
        kept.clear();
    }
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        first.get_or_insert_with(|| start.elapsed());
        if let (Some(kept), Some(data)) = (&mut kept, frame.data_ref()) {
            kept.extend_from_slice(data);
        }
    }
    Ok((parts, first.unwrap_or_else(|| start.elapsed())))
}
