//! The endpoints one by one: client credentials, the code flow, the public documents, and what health says meanwhile.

use super::flows::{Code, Collected, DISCOVERY, Flow, Tokens};
use super::measure::{Figures, Length, by_turns, runs, while_busy};
use super::peer::Peer;
use super::plane::Plane;
use super::{CONNECTIONS, Tables};
use crate::options::Options;
use crate::report::finished;
use anyhow::{Result, ensure};
use std::sync::Arc;
use std::time::Duration;

/// The look-up copy of the ledger follows the writer.
const SETTLE: Duration = Duration::from_secs(10);

/// Tokens of clients themselves, alone and beside the peer; each is a session and a record.
pub fn client_credentials(
    plane: &Plane,
    algorithm: &str,
    options: &Options,
    peer: &Peer,
    tables: &mut Tables,
) -> Result<()> {
    let engine = plane.engine;
    let resource = Peer::resource(algorithm);
    peer.side.site.one_token(&resource, Some(algorithm))?;
    plane.side.site.one_token("", Some(algorithm))?;
    let (before, stored) = (plane.issued()?, plane.product.stored()?);
    let site = &plane.side.site;
    let own = || Ok(site.client_credentials(""));
    let mut sent = 0;
    for connections in options.connections_or(&[CONNECTIONS, 1]) {
        let length = if connections == 1 { Length::short(options) } else { Length::whole(options) };
        let figures = runs(&plane.side, connections, &length, own)?;
        sent += figures.sent;
        tables.credentials.push(finished(figures.row(engine, algorithm, connections)));
    }
    let others = || Ok(peer.side.site.client_credentials(&resource));
    sent +=
        beside(plane, peer, &format!("client credentials, {algorithm}"), options, (&own, &others), tables)?;
    let after = plane.issued()?;
    let written = (after.0 - before.0, after.1 - before.1);
    ensure!(written == (sent, sent), "{sent} requests, but {written:?} sessions and records");
    std::thread::sleep(SETTLE);
    let now = plane.product.stored()?;
    let each = |now: u64, before: u64| format!("{:.0}", now.saturating_sub(before) as f64 / sent as f64);
    tables.disk.push(finished(vec![
        engine.name().to_owned(),
        algorithm.to_owned(),
        sent.to_string(),
        each(now.0, stored.0),
        each(now.1, stored.1),
    ]));
    Ok(())
}

/// From the authorization to the introspection of what came of it.
pub fn code(plane: &Plane, options: &Options, peer: &Peer, tables: &mut Tables) -> Result<()> {
    let browsers = plane.side.site.browsers()?;
    let whole = Length::whole(options);
    let mut chain = Chain::default();
    for _ in 0..whole.runs {
        chain.run(plane, &browsers, CONNECTIONS, &whole, None)?;
    }
    let rows = [
        ("authorize", &chain.authorize),
        ("exchange", &chain.exchange),
        ("refresh", &chain.refresh),
        ("introspection", &chain.introspection),
    ];
    for (name, figures) in rows {
        tables.code.push(finished(figures.row(plane.engine, name, CONNECTIONS)));
    }
    let (own, others) = (chain.known, peer.tokens()?);
    let own = || Ok(plane.side.site.introspect(own.clone()));
    let others = || Ok(peer.side.site.introspect(others.clone()));
    beside(plane, peer, "introspection", options, (&own, &others), tables)?;
    Ok(())
}

/// The steps of the code flow, each with what the one before gave.
#[derive(Default)]
pub struct Chain {
    pub authorize: Figures,
    pub exchange: Figures,
    pub refresh: Figures,
    pub introspection: Figures,
    /// The access tokens of the last run with the credentials of their clients.
    known: Vec<(String, String)>,
}

impl Chain {
    /// One run of each step; of so many codes, or of as many as the time allows.
    pub fn run(
        &mut self,
        plane: &Plane,
        browsers: &Arc<[String]>,
        connections: usize,
        length: &Length,
        codes: Option<usize>,
    ) -> Result<()> {
        let (side, site) = (&plane.side, &plane.side.site);
        let (given, first, second): (Collected<Code>, Collected<Tokens>, Collected<Tokens>) =
            Default::default();
        let limited = |flow: Flow| match codes {
            Some(codes) => flow.limited(codes),
            None => flow,
        };
        let authorize = limited(site.authorize(Arc::clone(browsers), &given));
        self.authorize.run(side, connections, length, authorize)?;
        let exchange = site.exchange(Arc::clone(&plane.apps), given.take(), &first);
        self.exchange.run(side, connections, length, exchange)?;
        let refresh = site.refresh(Arc::clone(&plane.apps), first.take(), &second);
        self.refresh.run(side, connections, length, refresh)?;
        self.known = second.take().into_iter().map(|tokens| tokens.known_to(&plane.apps)).collect();
        let introspection = limited(site.introspect(self.known.clone()));
        self.introspection.run(side, connections, length, introspection)
    }
}

/// What everybody reads, whole and when it is known.
pub fn documents(plane: &Plane, options: &Options, peer: &Peer, tables: &mut Tables) -> Result<()> {
    let site = &plane.side.site;
    let other = &peer.side.site;
    for (name, path, others) in [("discovery", DISCOVERY, DISCOVERY), ("JWKS", site.jwks, other.jwks)] {
        let tag = site.tag(path)?;
        for (what, tag) in [(name.to_owned(), None), (format!("{name}, 304"), Some(tag))] {
            let flow = || Ok(site.document(path, tag.clone()));
            let figures = runs(&plane.side, CONNECTIONS, &Length::short(options), flow)?;
            tables.documents.push(finished(figures.row(plane.engine, &what, CONNECTIONS)));
        }
        let own = || Ok(site.document(path, None));
        let others = || Ok(other.document(others, None));
        beside(plane, peer, name, options, (&own, &others), tables)?;
    }
    Ok(())
}

/// A request that waits for nothing, while clients ask for tokens and while people sign in with passwords.
pub fn health(plane: &Plane, options: &Options, tables: &mut Tables) -> Result<()> {
    let (side, site) = (&plane.side, &plane.side.site);
    let length = Length::short(options);
    let page = site.sign_in_page()?;
    let flow = || site.document("/health", None);
    let (mut idle, mut tokens, mut passwords) = (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..length.runs {
        idle.run(side, 1, &length, flow())?;
        let own = site.clone();
        while_busy(&mut tokens, (side, flow()), &length, CONNECTIONS, move || own.client_credentials(""))?;
        let (own, page) = (site.clone(), page.clone());
        while_busy(&mut passwords, (side, flow()), &length, CONNECTIONS / 8, move || own.sign_ins(&page))?;
    }
    let meanwhile = [
        ("nothing".to_owned(), &idle),
        (format!("{CONNECTIONS} clients ask for tokens"), &tokens),
        (format!("{} people sign in with passwords", CONNECTIONS / 8), &passwords),
    ];
    for (name, figures) in meanwhile {
        tables.health.push(finished(vec![
            plane.engine.name().to_owned(),
            "`GET /health`".to_owned(),
            name,
            format!("{:.3}", figures.p50()),
            format!("{:.3}", figures.p99()),
            format!("{:+.3}", figures.p50() - idle.p50()),
            format!("{:.2}", figures.p99() / idle.p99()),
        ]));
    }
    Ok(())
}

type Make<'a> = &'a dyn Fn() -> Result<Flow>;

/// The same of both servers, by turns. Returns how many requests ours had.
fn beside(
    plane: &Plane,
    peer: &Peer,
    what: &str,
    options: &Options,
    (own, others): (Make<'_>, Make<'_>),
    tables: &mut Tables,
) -> Result<u64> {
    let sides = [(&plane.side, own), (&peer.side, others)];
    let [ours, theirs] = by_turns(sides, CONNECTIONS, &Length::short(options))?;
    tables.peer.push(finished(vec![
        plane.engine.name().to_owned(),
        what.to_owned(),
        format!("{:.0}", ours.rate()),
        format!("{:.0}", theirs.rate()),
        format!("{:.1}", ours.rate() / theirs.rate()),
        format!("{:.2}", ours.p99()),
        format!("{:.2}", theirs.p99()),
        format!("{:.0}", ours.server()),
        format!("{:.0}", theirs.server()),
    ]));
    Ok(ours.sent)
}
