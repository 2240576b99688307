//! A product with the clients and people of the measurements.

use super::flows::Site;
use super::measure::Side;
use super::seed;
use crate::machine;
use crate::options::Engine;
use crate::product::Product;
use anyhow::{Context, Result};
use std::rc::Rc;
use std::sync::Arc;

/// A seeded product that runs.
pub struct Plane {
    pub engine: Engine,
    pub product: Product,
    pub side: Side,
    /// `Authorization` of the clients that people have consented to, by person.
    pub apps: Arc<[String]>,
}

impl Plane {
    /// Signs access tokens with `algorithm`; passwords are on.
    pub fn start(engine: Engine, algorithm: &str) -> Result<Self> {
        let settings = [
            ("SYSTEMPROMPT__SECURITY__SIGNING_ALGORITHM", algorithm),
            ("SYSTEMPROMPT__SECURITY__IDENTITY__PASSWORD__ENABLED", "true"),
        ];
        let product = Product::start(engine, &settings)?;
        let rows = seed::plane(&product.server.secret("oauth_at_rest_pepper")?)?;
        Self::seed(engine, product, &rows)
    }

    /// The same with these rows more.
    pub fn seeded(self, rows: &[String]) -> Result<Self> {
        Self::seed(self.engine, self.product, rows)
    }

    fn seed(engine: Engine, product: Product, rows: &[String]) -> Result<Self> {
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        Self::of(engine, product.seeded(&rows)?)
    }

    fn of(engine: Engine, product: Product) -> Result<Self> {
        let address = product.address()?;
        let (_, host) = product.server.url().split_once("://").context("a URL")?;
        let site = Site {
            address,
            host: host.into(),
            token: "/api/v1/core/oauth/token",
            introspect: "/api/v1/core/oauth/introspect",
            jwks: crate::edge::PATH,
            clients: seed::credentials(seed::client, seed::CLIENTS),
        };
        let side = Side { site, cpu: Rc::new(product.cpu_reader()) };
        Ok(Self { engine, product, side, apps: seed::credentials(seed::app, seed::PEOPLE) })
    }

    /// Rows of sessions, and records of issued tokens.
    pub fn issued(&self) -> Result<(u64, u64)> {
        let records = self.product.count("ledger_entries WHERE kind = 'oauth.token'")?;
        Ok((self.product.count("user_sessions")?, records))
    }

    /// Stops the server, verifies its ledger, and tells what it weighed.
    pub fn end(self) -> Result<String> {
        let (resident, peak) = machine::memory(self.product.server.pid())?;
        let entries = self.product.count("ledger_entries")?;
        self.product.verify()?;
        Ok(format!(
            "{}: `audit verify` passed over {entries} records; memory after the load {} MB, peak {} MB.",
            self.engine.name(),
            resident / 1024,
            peak / 1024
        ))
    }
}
