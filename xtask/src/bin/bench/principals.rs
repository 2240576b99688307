//! Users for the load, made through the product's own API.

use crate::product::Product;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// Tokens of `users` users with the role user, `sessions` of each, every one of a session of its own.
pub fn tokens(product: &Product, users: usize, sessions: usize) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    #[expect(clippy::disallowed_methods, reason = "the load generator's own client")]
    let http = reqwest::Client::builder().no_proxy().build()?;
    let admin = Admin { http, product };
    runtime.block_on(async {
        let mut tokens = Vec::new();
        for number in 0..users {
            let name = format!("bench-{number}");
            let user = json!({ "username": name, "email": format!("{name}@example.com"), "roles": ["user"] });
            admin.post("users", &user).await?;
            for _ in 0..sessions {
                let answer = admin.post("tokens", &json!({ "user": name, "ttl_s": 86_400 })).await?;
                let token = answer.get("token").and_then(Value::as_str);
                tokens.push(token.context("an answer with a token")?.to_owned());
            }
        }
        Ok(tokens)
    })
}

struct Admin<'a> {
    http: reqwest::Client,
    product: &'a Product,
}

impl Admin<'_> {
    async fn post(&self, what: &str, body: &Value) -> Result<Value> {
        let server = &self.product.server;
        let request = self.http.post(format!("{}/api/v1/admin/{what}", server.url()));
        let request = request.bearer_auth(server.admin_token()).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "POST {what}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }
}
