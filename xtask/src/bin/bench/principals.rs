//! Users for the load, made with the product's own commands.

use crate::product::Product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Tokens of `count` users with the role user.
pub fn tokens(product: &Product, count: usize) -> Result<Vec<String>> {
    (0..count).map(|number| token(product, &format!("bench-{number}"))).collect()
}

fn token(product: &Product, name: &str) -> Result<String> {
    let email = format!("{name}@example.com");
    let create = ["--output", "json", "admin", "users", "create", name, "--email", &email, "--role", "user"];
    run(product, &create)?;
    let answer = run(product, &["--output", "json", "admin", "token", "issue", "--user", name])?;
    let token = answer.get("token").and_then(Value::as_str);
    token.map(str::to_owned).context("`admin token issue` gave no token")
}

fn run(product: &Product, words: &[&str]) -> Result<Value> {
    let output = product.server.run(words)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`systemprompt {}` failed:\n{errors}", words.join(" "));
    serde_json::from_slice(&output.stdout).with_context(|| format!("`{}` printed no JSON", words.join(" ")))
}
