//! `SoftPasskey` of the crate webauthn-authenticator-rs at the passkey endpoints (case A15): `softpasskey URL ADMIN_TOKEN`. It plays the
//! pages' part too: requests, cookies, and what the endpoints of one's own account say. For acceptance runs.

#![expect(clippy::print_stdout, reason = "a command line tool prints")]

use anyhow::{Context, Result, bail, ensure};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use webauthn_authenticator_rs::WebauthnAuthenticator as _;
use webauthn_authenticator_rs::prelude::Url;
use webauthn_authenticator_rs::softpasskey::SoftPasskey;

const MAIL: &str = "SoftPasskey@example.com";
const PASSKEYS: &str = "/api/v1/core/users/me/passkeys";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [url, admin_token] = words.as_slice() else { bail!("softpasskey URL ADMIN_TOKEN") };
    let mut passed = 0;
    let failed = match run(url, admin_token, &mut passed).await {
        Ok(()) => 0,
        Err((step, error)) => {
            println!("FAIL  identity: A15 SoftPasskey: {step}\n      {error:#}");
            1
        }
    };
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The steps; each goes on where the one before ended.
async fn run(url: &str, admin_token: &str, passed: &mut u64) -> Result<(), (&'static str, anyhow::Error)> {
    let mut done = |step: &'static str, outcome: Result<()>| match outcome {
        Ok(()) => {
            println!("ok    identity: A15 SoftPasskey: {step}");
            *passed += 1;
            Ok(())
        }
        Err(error) => Err((step, error)),
    };
    let browser = Browser::new(url).map_err(|error| ("begins", error))?;
    // It says that it verified its user, as the installation requires.
    let (mut first, mut second) = (SoftPasskey::new(true), SoftPasskey::new(true));
    let mut person = Person { browser };
    done("registers with `resident_key: preferred`", person.registers(&mut first, admin_token).await)?;
    done("signs in by mail", person.signs_in(&mut first).await)?;
    done("a second one is added", person.adds(&mut second).await)?;
    done("the second signs in by the same mail", person.signs_in(&mut second).await)?;
    done("the first is deleted, and what it began ends", person.deletes_first(&mut first).await)?;
    done("the second is alone, and stays", person.keeps_last(&mut first, &mut second).await)
}

/// A browser: its cookies, at one origin.
struct Browser {
    http: reqwest::Client,
    origin: Url,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn new(url: &str) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a client under test, not the product")]
        let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Ok(Self { http: builder.build()?, origin: Url::parse(url)?, cookies: BTreeMap::new() })
    }

    /// Status and JSON of an answer; a cookie that it sets is kept.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        token: Option<&str>,
    ) -> Result<(StatusCode, Value)> {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self
            .http
            .request(method, self.origin.join(path)?)
            .header(header::ORIGIN, self.origin.origin().ascii_serialization())
            .header(header::COOKIE, cookies.join("; "));
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await?;
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let (name, rest) = cookie.to_str()?.split_once('=').context("a cookie without a value")?;
            let value = rest.split(';').next().unwrap_or_default();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let (status, body) = (answer.status(), answer.bytes().await?);
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// What is asked for and must succeed.
    async fn get(&mut self, path: &str) -> Result<Value> {
        let (status, body) = self.ask(Method::GET, path, None, None).await?;
        ensure!(status == StatusCode::OK, "{path} answered {status} {body}");
        Ok(body)
    }

    /// One end of a ceremony, as `auth/start`.
    async fn ceremony(&mut self, part: &str, body: Value) -> Result<(StatusCode, Value)> {
        let path = format!("/api/v1/core/oauth/webauthn/{part}");
        self.ask(Method::POST, &path, Some(&body), None).await
    }
}

/// A ceremony that has begun: its id, and what `navigator.credentials` would be told.
struct Begun {
    challenge_id: Value,
    options: Value,
}

impl Begun {
    fn of((status, body): (StatusCode, Value)) -> Result<Self> {
        ensure!(status == StatusCode::OK, "the ceremony answered {status} {body}");
        let member = |name: &str| body.get(name).cloned().with_context(|| format!("no {name}"));
        Ok(Self { challenge_id: member("challenge_id")?, options: member("options")? })
    }

    fn public_key(&self, pointer: &str) -> Value {
        self.options.pointer(&format!("/publicKey{pointer}")).cloned().unwrap_or_default()
    }

    /// The ids that a list of the options names.
    fn ids(&self, pointer: &str) -> Vec<String> {
        let list = self.public_key(pointer);
        let id = |item: &Value| item.get("id").and_then(Value::as_str).map(str::to_owned);
        list.as_array().into_iter().flatten().filter_map(id).collect()
    }

    fn finish(&self, credential: &impl serde::Serialize) -> Value {
        json!({"challenge_id": self.challenge_id, "credential": credential})
    }
}

struct Person {
    browser: Browser,
}

impl Person {
    /// By the link of an invitation, as the page at `/webauthn/link` does it.
    async fn registers(&mut self, device: &mut SoftPasskey, admin_token: &str) -> Result<()> {
        let invitation = json!({"email": MAIL, "roles": ["user"]});
        let (status, made) = self
            .browser
            .ask(Method::POST, "/api/v1/admin/setup-link", Some(&invitation), Some(admin_token))
            .await?;
        ensure!(status == StatusCode::CREATED, "the invitation answered {status} {made}");
        let link = made.get("setup_url").and_then(Value::as_str).context("no link")?;
        let token = link.split_once("#token=").context("no token in the link")?.1;
        let who = json!({"username": "SoftPasskey", "email": MAIL, "token": token});
        let begun = Begun::of(self.browser.ceremony("register/start", who).await?)?;
        is_preferred(&begun)?;
        let credential = device
            .do_registration(self.browser.origin.clone(), serde_json::from_value(begun.options.clone())?)
            .map_err(|error| anyhow::anyhow!("the library refused: {error:?}"))?;
        let mut end = begun.finish(&credential);
        if let Some(members) = end.as_object_mut() {
            members.insert("token".to_owned(), token.into());
        }
        let (status, body) = self.browser.ceremony("register/finish", end).await?;
        ensure!(status == StatusCode::OK, "the end answered {status} {body}");
        self.is_signed_in().await?;
        ensure!(self.passkeys().await?.len() == 1, "another number of passkeys");
        Ok(())
    }

    /// In a browser that nobody is signed in with, from the mail on.
    async fn signs_in(&mut self, device: &mut SoftPasskey) -> Result<()> {
        self.browser.cookies.clear();
        let (begun, credential) = self.shown(device).await?;
        ensure!(begun.public_key("/userVerification") == "required", "{}", begun.options);
        let (status, body) = self.browser.ceremony("auth/finish", begun.finish(&credential)).await?;
        ensure!(status == StatusCode::OK, "the end answered {status} {body}");
        self.is_signed_in().await
    }

    /// A sign-in by mail as far as the authenticator's answer.
    async fn shown(
        &mut self,
        device: &mut SoftPasskey,
    ) -> Result<(Begun, webauthn_authenticator_rs::prelude::PublicKeyCredential)> {
        let begun = Begun::of(self.browser.ceremony("auth/start", json!({"email": MAIL})).await?)?;
        let credential = device
            .do_authentication(self.browser.origin.clone(), serde_json::from_value(begun.options.clone())?)
            .map_err(|error| anyhow::anyhow!("the library refused: {error:?}"))?;
        Ok((begun, credential))
    }

    async fn adds(&mut self, device: &mut SoftPasskey) -> Result<()> {
        let known = self.passkeys().await?;
        let begun = Begun::of(self.browser.ceremony("link/start", json!({})).await?)?;
        is_preferred(&begun)?;
        ensure!(begun.ids("/excludeCredentials") == known, "the first one is not excluded");
        let credential = device
            .do_registration(self.browser.origin.clone(), serde_json::from_value(begun.options.clone())?)
            .map_err(|error| anyhow::anyhow!("the library refused: {error:?}"))?;
        let (status, body) = self.browser.ceremony("link/finish", begun.finish(&credential)).await?;
        ensure!(status == StatusCode::OK, "the end answered {status} {body}");
        ensure!(self.passkeys().await?.len() == 2, "another number of passkeys");
        Ok(())
    }

    /// The second is signed in with. The first has answered a challenge just before it goes.
    async fn deletes_first(&mut self, first: &mut SoftPasskey) -> Result<()> {
        let (begun, credential) = self.shown(first).await?;
        let before = self.passkeys().await?;
        let path = format!("{PASSKEYS}/{}", credential.id);
        let (status, body) = self.browser.ask(Method::DELETE, &path, None, None).await?;
        ensure!(status == StatusCode::NO_CONTENT, "the deletion answered {status} {body}");
        let after = self.passkeys().await?;
        ensure!(before.len() == 2 && after.len() == 1 && !after.contains(&credential.id), "{after:?}");
        let (status, body) = self.browser.ceremony("auth/finish", begun.finish(&credential)).await?;
        let error = body.get("error").and_then(Value::as_str);
        ensure!(
            (status, error) == (StatusCode::UNAUTHORIZED, Some("invalid_credential")),
            "the deleted one is answered {status} {body}"
        );
        Ok(())
    }

    async fn keeps_last(&mut self, first: &mut SoftPasskey, second: &mut SoftPasskey) -> Result<()> {
        ensure!(self.shown(first).await.is_err(), "a mail still asks for the deleted one");
        self.signs_in(second).await?;
        let last = self.passkeys().await?;
        let path = format!("{PASSKEYS}/{}", last.first().context("no passkey")?);
        let (status, body) = self.browser.ask(Method::DELETE, &path, None, None).await?;
        ensure!(status == StatusCode::CONFLICT, "the deletion of the last answered {status} {body}");
        self.signs_in(second).await
    }

    async fn is_signed_in(&mut self) -> Result<()> {
        let me = self.browser.get("/api/v1/core/users/me").await?;
        ensure!(me.get("username").and_then(Value::as_str) == Some("SoftPasskey"), "{me}");
        Ok(())
    }

    /// Ids of one's own passkeys.
    async fn passkeys(&mut self) -> Result<Vec<String>> {
        let listed = self.browser.get(PASSKEYS).await?;
        let items = listed.get("items").and_then(Value::as_array).context("no list")?;
        let id = |item: &Value| item.get("id").and_then(Value::as_str).map(str::to_owned);
        Ok(items.iter().filter_map(id).collect())
    }
}

/// What the case is about: a passkey that can be found without a name is wished for, and one that cannot is taken.
fn is_preferred(begun: &Begun) -> Result<()> {
    let wished = begun.public_key("/authenticatorSelection/residentKey");
    let needed = begun.public_key("/authenticatorSelection/requireResidentKey");
    ensure!(wished == "preferred" && needed == false, "residentKey {wished}, requireResidentKey {needed}");
    Ok(())
}
