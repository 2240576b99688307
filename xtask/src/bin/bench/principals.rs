//! Users for the load, made with the product's own commands.

use crate::product::Product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

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

/// The folder of the services' files below a data folder.
pub fn services(folder: &Path) -> Result<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if folder.ends_with("services") {
            return Ok(folder);
        }
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    anyhow::bail!("no services folder below {}", folder.display())
}
