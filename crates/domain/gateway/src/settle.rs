//! What a call used and what it costs, once it has ended (GW-53, GW-95).

use crate::pricing::{Catalog, PriceSource, Usage};
use crate::protocol::Operation;
use crate::stream_tap::Observed;
use systemprompt_models::Millis;
use systemprompt_models::clock::iso8601;

/// How a call ended, as `ai_requests.outcome` has it (GW-100).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The provider answered with an error, or not at all.
    UpstreamError,
    /// The answer broke off.
    UpstreamBroken,
    ClientAborted,
    /// The process ended before the call did.
    Expired,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError => "upstream_error",
            Self::UpstreamBroken => "upstream_broken",
            Self::ClientAborted => "client_aborted",
            Self::Expired => "expired",
        }
    }

    /// The outcome of the closing record (AUD-6).
    pub fn entry(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::UpstreamError | Self::UpstreamBroken => "error",
            Self::ClientAborted => "cancelled",
            Self::Expired => "interrupted",
        }
    }
}

/// Where the figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageSource {
    Upstream,
    Estimated,
}

impl UsageSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Estimated => "estimated",
        }
    }
}

/// The bill of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    pub usage: Usage,
    pub source: UsageSource,
    pub cost_micro: i64,
    pub price_id: Option<String>,
    pub price_source: Option<PriceSource>,
}

/// What is known of an ended call.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub operation: Operation,
    pub outcome: Outcome,
    pub observed: &'a Observed,
    /// Whether the provider may have worked on it: sent, and neither refused nor answered with an error.
    pub charged: bool,
    pub body_bytes: usize,
    pub model_upstream: &'a str,
    pub model_requested: &'a str,
    pub now: Millis,
}

/// Bytes that are taken for a token where nobody counted.
const BYTES_A_TOKEN: u64 = 3;
/// Characters of an answer that are taken for a token.
const CHARACTERS_A_TOKEN: u64 = 4;

pub fn settle(facts: &Facts<'_>, catalog: &Catalog) -> Settlement {
    let Facts { operation, outcome, observed, charged, .. } = *facts;
    let told = observed.input_known && (observed.output_known || operation == Operation::CountTokens);
    let mut usage = observed.usage;
    let whole = outcome == Outcome::Ok && observed.complete && told;
    let source = if whole || !charged { UsageSource::Upstream } else { UsageSource::Estimated };
    if source == UsageSource::Estimated {
        if !observed.input_known {
            usage.input = (facts.body_bytes as u64).div_ceil(BYTES_A_TOKEN);
        }
        if operation == Operation::Messages {
            usage.output = usage.output.max(observed.characters.div_ceil(CHARACTERS_A_TOKEN));
        }
    }
    if operation == Operation::CountTokens {
        // Counting is free.
        return Settlement { usage, source, cost_micro: 0, price_id: None, price_source: None };
    }
    let day = iso8601(facts.now);
    let day = day.get(..10).unwrap_or_default();
    let quote = catalog.quote(facts.model_upstream, facts.model_requested, day, &usage);
    Settlement {
        usage,
        source,
        cost_micro: quote.cost,
        price_id: quote.price_id,
        price_source: Some(quote.source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(outcome: Outcome, operation: Operation, charged: bool, observed: &Observed) -> Settlement {
        let facts = Facts {
            operation,
            outcome,
            observed,
            charged,
            body_bytes: 301,
            model_upstream: "claude-demo",
            model_requested: "fast",
            now: 1_795_315_038_000,
        };
        settle(&facts, &Catalog::built_in().unwrap())
    }

    fn told(complete: bool) -> Observed {
        Observed {
            usage: Usage { input: 100, output: 10, ..Usage::default() },
            input_known: true,
            output_known: true,
            characters: 90,
            complete,
            ..Observed::default()
        }
    }

    #[test]
    fn figures_of_a_whole_answer_are_the_providers() {
        let bill = settled(Outcome::Ok, Operation::Messages, true, &told(true));
        assert_eq!((bill.source, bill.usage.output, bill.cost_micro), (UsageSource::Upstream, 10, 150));
        assert_eq!(bill.price_id.as_deref(), Some("claude-demo@2026-01-01"));
    }

    #[test]
    fn a_broken_answer_costs_what_was_seen_of_it() {
        for outcome in [Outcome::ClientAborted, Outcome::UpstreamBroken] {
            let bill = settled(outcome, Operation::Messages, true, &told(false));
            assert_eq!((bill.source, bill.usage.input, bill.usage.output), (UsageSource::Estimated, 100, 23));
            let nothing = settled(outcome, Operation::Messages, true, &Observed::default());
            assert_eq!((nothing.usage.input, nothing.usage.output, nothing.cost_micro), (101, 0, 101));
        }
    }

    #[test]
    fn errors_and_counting_cost_nothing() {
        let bill = settled(Outcome::UpstreamError, Operation::Messages, false, &Observed::default());
        assert_eq!((bill.cost_micro, bill.usage, bill.source), (0, Usage::default(), UsageSource::Upstream));
        let count = Observed { output_known: false, ..told(true) };
        let bill = settled(Outcome::Ok, Operation::CountTokens, true, &count);
        assert_eq!((bill.cost_micro, bill.usage.input, bill.source), (0, 100, UsageSource::Upstream));
    }
}
