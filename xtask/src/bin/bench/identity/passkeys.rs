//! Passkeys: the server's work for a sign-in, and what waiting ceremonies and live sessions weigh.

use super::flows::Flow;
use super::measure::{Figures, Length};
use super::plane::Plane;
use super::{CONNECTIONS, Tables};
use crate::machine;
use crate::options::Options;
use crate::report::finished;
use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};

#[path = "../../../../../crates/domain/oauth/src/services/webauthn/tests/authenticator.rs"]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the soft authenticator of the tests, which ends them when it cannot go on"
)]
mod authenticator;

use authenticator::SoftAuthenticator;

/// Open ceremonies and live sessions that are weighed.
const MANY: usize = 10_000;

pub fn sign_ins(plane: &Plane, options: &Options, tables: &mut Tables) -> Result<()> {
    let site = &plane.side.site;
    let mut device = SoftAuthenticator::new(&format!("http://{}", site.host));
    let browsers = site.browsers()?;
    // The session alone: the ceremony has a flow cookie of its own.
    let session = browsers.first().and_then(|cookies| cookies.split("; ").next()).context("a browser")?;
    site.ceremony("link", Some(session), |options| device.create(options))?;
    let mut sign_in = || site.ceremony("auth", None, |options| device.get(options));
    for _ in 0..20 {
        sign_in()?;
    }
    let (before, began, mut signed_in) = ((plane.side.cpu)(), Instant::now(), 0_u32);
    while began.elapsed() < options.run.max(Duration::from_secs(3)) {
        sign_in()?;
        signed_in += 1;
    }
    let (elapsed, after) = (began.elapsed(), (plane.side.cpu)());
    let millis = |used: Duration| used.as_secs_f64() * 1e3 / f64::from(signed_in);
    tables.passkeys.push(finished(vec![
        plane.engine.name().to_owned(),
        signed_in.to_string(),
        format!("{:.2}", millis(elapsed)),
        format!("{:.2}", millis(after.0.saturating_sub(before.0))),
        format!("{:.2}", millis(after.1.saturating_sub(before.1))),
    ]));
    Ok(())
}

/// Memory that open ceremonies and sessions add to a server that has answered before.
pub fn memory(plane: &Plane, options: &Options, tables: &mut Tables) -> Result<()> {
    let site = &plane.side.site;
    let kinds: [(&str, &dyn Fn() -> Flow); 2] =
        [("open ceremonies", &|| site.ceremony_starts()), ("live sessions", &|| site.client_credentials(""))];
    for (what, flow) in kinds {
        let before = machine::memory(plane.product.server.pid())?.0;
        let length = Length { warm_up: Duration::ZERO, ..Length::short(options) };
        Figures::default().run(&plane.side, CONNECTIONS, &length, flow().limited(MANY))?;
        std::thread::sleep(Duration::from_secs(3));
        let after = machine::memory(plane.product.server.pid())?.0;
        tables.memory.push(finished(vec![
            plane.engine.name().to_owned(),
            format!("{MANY} {what}"),
            format!("{:.1} MiB", before as f64 / 1024.0),
            format!("{:+.1} MiB", (after as f64 - before as f64) / 1024.0),
        ]));
    }
    Ok(())
}

/// The sign-in page with everything that it loads: bytes, files, and how many are of another origin.
pub fn page(plane: &Plane, tables: &mut Tables) -> Result<()> {
    let site = &plane.side.site;
    let page = site.read("/login")?;
    let (mut bytes, mut files, mut foreign) = (page.len(), 1, 0);
    for attribute in ["src=\"", "rel=\"stylesheet\" href=\"", "rel=\"icon\" href=\""] {
        for (_, rest) in
            page.match_indices(attribute).filter_map(|(at, _)| page.split_at_checked(at + attribute.len()))
        {
            let address = rest.split('"').next().unwrap_or_default();
            if address.starts_with('/') && !address.starts_with("//") {
                bytes += site.read(address)?.len();
                files += 1;
            } else if !address.starts_with("data:") {
                foreign += 1;
            }
        }
    }
    ensure!(files > 1, "the page loads nothing");
    tables.notes.push(format!(
        "{}: the sign-in page has {:.1} KB in {files} files with all that it loads, uncompressed, {foreign} of another origin.",
        plane.engine.name(),
        bytes as f64 / 1000.0
    ));
    Ok(())
}
