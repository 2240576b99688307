//! The benchmarks: `cargo xtask bench NAME` builds this in release mode, beside the product, and runs it.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool prints")]

mod authz;
mod decide;
mod edge;
mod govern;
mod growth;
mod identity;
mod jwt;
mod ledger;
mod load;
mod machine;
mod messages;
mod options;
mod plane_memory;
mod principals;
mod product;
mod reads;
mod replay;
mod report;
mod rules;
mod scan;
mod start;
mod tokens;
mod upstream;

use options::Options;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask bench [--dist] NAME [--seconds N] [--runs N] [--connections N,N] [--engine sqlite|postgres|both] [--dry]

  govern     POST /api/v1/hooks/govern over HTTP with a durable ledger
  messages   POST /v1/messages beside the bare upstream and a bare pass-through proxy
  authz      the rule resolver in process
  decide     one decision in process, with and without its record
  authz-reload  a node's rules read again and swapped while it decides
  authz-list    decisions on a list of a thousand entities
  ledger     Ledger::commit in process
  scan       the secret scan in process
  scan-history  a conversation that is sent again
  jwt        verifying tokens in process, anew and known
  security-memory  the security plane's memory, idle, filled and after its entries have ended
  start      time until ready, idle memory
  replay     a million recorded decisions against a draft of rules
  ledger-verify  an export of a million records, offline
  edge       the edge's layers beside a bare handler, with and without 100,000 bans
  reads      queries and proofs over a ledger of a million records
  growth     decisions a second after a million rows and with 100,000 rules
  identity   the authorization server's endpoints, beside oidc-provider and with a million tokens

--dist measures the package's build instead of the release build; --dry leaves docs/benchmarks.md alone.";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match name.as_str() {
        // The servers beside the product run as processes of their own, so that each one's CPU time is its own.
        "serve-upstream" => upstream::serve(),
        "serve-proxy" => upstream::proxy(rest),
        "serve-bare" => upstream::bare(),
        _ => Options::parse(rest).and_then(|options| match name.as_str() {
            "govern" => govern::bench(&options),
            "messages" => messages::bench(&options),
            "authz" => authz::bench(&options),
            "authz-reload" => rules::reload(&options),
            "authz-list" => rules::list(&options),
            "ledger" => ledger::bench(&options),
            "jwt" => jwt::bench(&options),
            "security-memory" => plane_memory::bench(&options),
            "start" => start::bench(&options),
            "replay" => replay::bench_replay(&options),
            "ledger-verify" => replay::bench_verify(&options),
            "edge" => edge::bench(&options),
            "decide" => decide::bench(&options),
            "growth" => growth::bench(&options),
            "identity" => identity::bench(&options),
            "reads" => reads::bench(&options),
            "scan" => scan::scan(&options),
            "scan-history" => scan::history(&options),
            _ => {
                println!("{USAGE}");
                Ok(())
            }
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
