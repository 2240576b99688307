//! Signs claims with a key of a key file, by the product's own signer: `sign FILE`, with `{"kid", "typ", "claims"}` on standard
//! input and the token on standard output. For acceptance runs, since no route gives such tokens out.

#![expect(clippy::print_stdout, reason = "a command line tool prints")]

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::path::Path;
use systemprompt_security::keys::file;

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("sign FILE")?;
    let asked: Value = serde_json::from_reader(std::io::stdin())?;
    let keys = file::load(Path::new(&path))?;
    let key = keys
        .iter()
        .find(|key| asked.get("kid").and_then(Value::as_str) == Some(key.kid()))
        .context("the file has no such key")?;
    let header = json!({"typ": asked.get("typ"), "alg": key.algorithm().as_str(), "kid": key.kid()});
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let input = format!("{}.{}", encoded(&header), encoded(asked.get("claims").context("no claims")?));
    println!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes())?));
    Ok(())
}
