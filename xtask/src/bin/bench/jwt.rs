//! `bench jwt`: verifying tokens in process on one thread, anew and from memory, beside the bare check of their signatures; and
//! what 10,000 verified tokens weigh.

use crate::machine;
use crate::options::Options;
use crate::report::{Report, finished, median};
use crate::tokens::{House, SESSIONS, Signed};
use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use std::hint::black_box;
use std::time::{Duration, Instant};
use systemprompt_security::auth::AuthMode;
use systemprompt_security::jwt::Surface;
use systemprompt_security::keys::PublicKey;

pub fn bench(options: &Options) -> Result<()> {
    let mut report = Report::new(
        "jwt",
        "Tokens",
        &machine::describe(&std::env::temp_dir())?,
        &format!(
            "In process on one thread. *Bare* is the signature check of the cryptography library alone over the same bytes; *anew* is \
             `Verifier::verify` with all its steps; *known* is `AuthValidationService::authenticate` of a request whose token was \
             verified before, over {SESSIONS} different ones in turn, with revocation and session asked. Median of the runs. Memory \
             is the growth of the process while {SESSIONS} different tokens become known."
        ),
        "anew at most 1.3 × bare; known at most 2 µs; 10,000 entries at most 16 MiB.",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir_in(xtask::process::target())?;
    let house = runtime.block_on(House::open(folder.path()))?;
    let mut rows = Vec::new();
    for signed in runtime.block_on(house.one_of_each())? {
        rows.push(finished(measure(&house, &signed, options)?));
    }
    report.table(&["algorithm", "bare µs", "anew µs", "anew / bare"], &rows);
    let (micros, mebibytes) = runtime.block_on(known(&house, options))?;
    report.table(
        &["known µs", "memory of 10,000"],
        &[vec![format!("{micros:.2}"), format!("{mebibytes:.1} MiB")]],
    );
    report.publish(options)
}

fn measure(house: &House, signed: &Signed, options: &Options) -> Result<Vec<String>> {
    let (mut bare, mut anew) = (Vec::new(), Vec::new());
    let (input, signature) = signed.token.rsplit_once('.').context("a token")?;
    let signature = Signed::decode(signature)?;
    ensure!(check(signed, input.as_bytes(), &signature), "the bare check of {} fails", signed.algorithm);
    ensure!(house.verifier.verify(&signed.token, signed.surface).is_ok(), "{} is refused", signed.algorithm);
    for _ in 0..options.runs_or(3) {
        bare.push(micros(options, || {
            black_box(check(signed, input.as_bytes(), &signature));
        }));
        anew.push(micros(options, || drop(black_box(house.verifier.verify(&signed.token, signed.surface)))));
    }
    let (bare, anew) = (median(bare), median(anew));
    Ok(vec![
        signed.algorithm.to_owned(),
        format!("{bare:.2}"),
        format!("{anew:.2}"),
        format!("{:.2}", anew / bare),
    ])
}

/// The signature alone.
fn check(signed: &Signed, input: &[u8], signature: &[u8]) -> bool {
    match &signed.public {
        Some(PublicKey::Rsa { n, e }) => {
            PublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, input, signature).is_ok()
        }
        Some(PublicKey::P256 { x, y }) => {
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(input, signature).is_ok()
        }
        Some(PublicKey::Ed25519 { x }) => {
            UnparsedPublicKey::new(&ED25519, x).verify(input, signature).is_ok()
        }
        // The derived key is not given out; any other one of its length costs the same.
        None => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
            hmac::sign(&key, input).as_ref().len() == signature.len()
        }
    }
}

fn micros(options: &Options, mut once: impl FnMut()) -> f64 {
    let (time, start) = (options.run.min(Duration::from_secs(3)) / 3, Instant::now());
    let mut count = 0_u32;
    while start.elapsed() < time {
        for _ in 0..64 {
            once();
        }
        count += 64;
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

async fn known(house: &House, options: &Options) -> Result<(f64, f64)> {
    let requests = house.requests().await?;
    let service = house.service();
    let before = machine::memory(std::process::id())?.0;
    for headers in &requests {
        service.authenticate(headers, Surface::Api, AuthMode::Required).await?;
    }
    let after = machine::memory(std::process::id())?.0;
    let mut times = Vec::new();
    for _ in 0..options.runs_or(3) {
        let start = Instant::now();
        for _ in 0..20 {
            for headers in &requests {
                black_box(service.authenticate(headers, Surface::Api, AuthMode::Required).await?);
            }
        }
        times.push(start.elapsed().as_secs_f64() * 1e6 / (20 * requests.len()) as f64);
    }
    Ok((median(times), after.saturating_sub(before) as f64 / 1024.0))
}
