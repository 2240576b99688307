//! What a call costs (GW-90 to GW-94): integer micro-USD, rates per million tokens, summed in 128 bits and rounded up once.
//! Nothing is free by accident: a model that the catalog does not know costs the floor.

mod catalog;
#[cfg(test)]
mod tests;

pub use catalog::{Catalog, CatalogError, Limits, Model, Price};

use serde::Deserialize;

/// Micro-USD.
pub type MicroUsd = i64;

/// Token counts of one call, in disjoint classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
}

impl Usage {
    /// What the model read; decides the context tier.
    pub fn context(&self) -> u64 {
        [self.cache_read, self.cache_write_5m, self.cache_write_1h]
            .iter()
            .fold(self.input, |sum, part| sum.saturating_add(*part))
    }
}

/// Micro-USD per million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Rates {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
}

/// What a model costs that nobody priced (GW-94).
pub const FLOOR: Rates = Rates {
    input: 5_000_000,
    output: 25_000_000,
    cache_read: 500_000,
    cache_write_5m: 6_250_000,
    cache_write_1h: 10_000_000,
};

const PER: u128 = 1_000_000;

impl Rates {
    /// The cost of `usage`, rounded up to a whole micro-USD.
    ///
    /// ```
    /// use systemprompt_gateway::pricing::{FLOOR, Usage};
    /// let usage = Usage { input: 1, output: 1, ..Usage::default() };
    /// assert_eq!(FLOOR.cost(&usage), 30);
    /// ```
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        let sum: u128 = [
            (self.input, usage.input),
            (self.output, usage.output),
            (self.cache_read, usage.cache_read),
            (self.cache_write_5m, usage.cache_write_5m),
            (self.cache_write_1h, usage.cache_write_1h),
        ]
        .iter()
        .map(|(rate, tokens)| u128::from(*rate) * u128::from(*tokens))
        .fold(0, u128::saturating_add);
        MicroUsd::try_from(sum.div_ceil(PER)).unwrap_or(MicroUsd::MAX)
    }
}

/// Where a price came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriceSource {
    Catalog,
    /// The model has no price; [`FLOOR`] was taken.
    Floor,
}

impl PriceSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Floor => "floor",
        }
    }
}

/// The price of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub cost: MicroUsd,
    pub rates: Rates,
    /// Model and day from which the price counts, `claude-demo@2026-01-01`; absent at the floor.
    pub price_id: Option<String>,
    pub source: PriceSource,
}

impl Catalog {
    /// Prices `usage` of a call to `upstream`, which the client asked for as `requested`, on the day `day` (`YYYY-MM-DD`).
    pub fn quote(&self, upstream: &str, requested: &str, day: &str, usage: &Usage) -> Quote {
        let model = self.get(upstream).or_else(|| self.get(requested));
        match model.and_then(|model| model.price_on(day).map(|price| (model, price))) {
            Some((model, price)) => {
                let rates = price.rates(usage.context());
                let price_id = Some(format!("{}@{}", model.id, price.effective_from));
                Quote { cost: rates.cost(usage), rates, price_id, source: PriceSource::Catalog }
            }
            None => {
                Quote { cost: FLOOR.cost(usage), rates: FLOOR, price_id: None, source: PriceSource::Floor }
            }
        }
    }
}
