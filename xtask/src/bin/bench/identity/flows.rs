//! What is asked of an authorization server, as workloads: each request with its credentials, and what is kept of the answers for
//! the next one.

use super::seed::{self, PASSWORD, PEOPLE};
use crate::load::{self, Workload};
use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{COOKIE, ETAG, LOCATION, SET_COOKIE};
use http_body_util::Full;
use hyper::Request;
use hyper::http::request::Builder;
use hyper::http::response::Parts;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const SCOPE: &str = "openid%20offline_access%20user";

/// An authorization server: where it is, and how it calls its endpoints.
#[derive(Clone, Debug)]
pub struct Site {
    pub address: SocketAddr,
    /// Authority of its external URL.
    pub host: Arc<str>,
    pub token: &'static str,
    pub introspect: &'static str,
    pub jwks: &'static str,
    /// `Authorization` of the clients that ask for their own tokens.
    pub clients: Arc<[String]>,
}

const CEREMONIES: &str = "/api/v1/core/oauth/webauthn";

pub const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A code, and whose it is (from 1).
pub struct Code {
    person: usize,
    code: String,
}

/// What a code or a refresh token was exchanged for.
pub struct Tokens {
    person: usize,
    access: String,
    refresh: String,
}

/// What the answers of a run are collected in.
pub type Collected<T> = Rc<RefCell<Vec<T>>>;

type Take = dyn Fn(u64, &Parts, &[u8]) -> bool;

/// One kind of request.
pub struct Flow {
    status: u16,
    end: Option<u64>,
    wants_bodies: bool,
    request: Box<dyn Fn(u64) -> Request<Full<Bytes>>>,
    take: Box<Take>,
}

impl Flow {
    fn new(status: u16, request: impl Fn(u64) -> Request<Full<Bytes>> + 'static) -> Self {
        let take = Box::new(|_: u64, _: &Parts, _: &[u8]| true);
        Self { status, end: None, wants_bodies: false, request: Box::new(request), take }
    }

    /// So many requests, and no more.
    pub fn limited(self, requests: usize) -> Self {
        Self { end: Some(requests as u64), ..self }
    }

    fn taking(self, take: impl Fn(u64, &Parts, &[u8]) -> bool + 'static) -> Self {
        Self { wants_bodies: true, take: Box::new(take), ..self }
    }
}

impl Workload for Flow {
    fn request(&self, number: u64) -> Request<Full<Bytes>> {
        (self.request)(number)
    }

    fn is_expected(&self, _number: u64, parts: &Parts) -> bool {
        parts.status.as_u16() == self.status
    }

    fn end(&self) -> Option<u64> {
        self.end
    }

    fn wants_bodies(&self) -> bool {
        self.wants_bodies
    }

    fn take(&self, number: u64, parts: &Parts, body: &[u8]) -> bool {
        (self.take)(number, parts, body)
    }
}

impl Site {
    /// Tokens of the clients themselves, each in turn. `more` follows in the form.
    pub fn client_credentials(&self, more: &str) -> Flow {
        let site = self.clone();
        let body = Bytes::from(format!("grant_type=client_credentials&scope=user{more}"));
        Flow::new(200, move |number| {
            form(site.post(site.token).header("authorization", nth(&site.clients, number)), body.clone())
        })
    }

    /// A token of the first client, whose header must name `algorithm` unless it is opaque.
    pub fn one_token(&self, more: &str, algorithm: Option<&str>) -> Result<String> {
        let (parts, body) = load::ask(self.address, self.client_credentials(more).request(0))?;
        ensure!(parts.status == 200, "{}: {}", parts.status, String::from_utf8_lossy(&body));
        let token = text(&serde_json::from_slice(&body)?, "access_token").context("an access token")?;
        if let Some(algorithm) = algorithm {
            let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap_or_default())?;
            let header: Value = serde_json::from_slice(&header)?;
            ensure!(text(&header, "alg").as_deref() == Some(algorithm), "{algorithm} was wanted: {header}");
        }
        Ok(token)
    }

    /// Introspection of tokens by the clients that they were issued to, again and again.
    pub fn introspect(&self, of: Vec<(String, String)>) -> Flow {
        let site = self.clone();
        let request = move |number| {
            let (client, token) = of.get(number as usize % of.len().max(1)).map_or(("", ""), |(c, t)| (c, t));
            let body = format!("token={token}").into();
            form(site.post(site.introspect).header("authorization", client), body)
        };
        Flow::new(200, request).taking(|_, _, body| body.starts_with(b"{\"active\":true"))
    }

    /// A public document; with its tag the answer is that it is the same.
    pub fn document(&self, path: &'static str, tag: Option<String>) -> Flow {
        let site = self.clone();
        Flow::new(if tag.is_some() { 304 } else { 200 }, move |_| {
            let request = site.get(path);
            let request = match &tag {
                Some(tag) => request.header("if-none-match", tag),
                None => request,
            };
            whole(request, Bytes::new())
        })
    }

    /// The tag of a document.
    pub fn tag(&self, path: &'static str) -> Result<String> {
        let (parts, _) = load::ask(self.address, self.document(path, None).request(0))?;
        let tag = parts.headers.get(ETAG).with_context(|| format!("{path} has no ETag"))?;
        Ok(tag.to_str()?.to_owned())
    }

    /// The sign-in page, as a browser holds it.
    pub fn sign_in_page(&self) -> Result<SignInPage> {
        let (parts, body) = load::ask(self.address, whole(self.get("/login"), Bytes::new()))?;
        ensure!(parts.status == 200, "GET /login: {}", parts.status);
        let page = String::from_utf8(body)?;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").context("the form's csrf")?;
        let csrf = rest.split('"').next().unwrap_or_default().to_owned();
        Ok(SignInPage { csrf, flow: cookie(&parts, "sp_flow").context("the flow cookie")? })
    }

    /// A page or a file as text.
    pub fn read(&self, path: &str) -> Result<String> {
        let (parts, body) = load::ask(self.address, whole(self.get(path), Bytes::new()))?;
        ensure!(parts.status == 200, "GET {path}: {}", parts.status);
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// One ceremony of a passkey, in a browser that may be signed in.
    pub fn ceremony(
        &self,
        name: &str,
        browser: Option<&str>,
        answer: impl FnOnce(&Value) -> Value,
    ) -> Result<()> {
        let (parts, begun) = self.step(name, "start", browser, &json!({}))?;
        let flow = cookie(&parts, "sp_flow").context("the flow cookie")?;
        let cookies = browser.map_or_else(|| flow.clone(), |browser| format!("{browser}; {flow}"));
        let credential = answer(begun.get("options").context("options")?);
        let body = json!({"challenge_id": begun.get("challenge_id"), "credential": credential});
        self.step(name, "finish", Some(&cookies), &body).map(drop)
    }

    fn step(&self, name: &str, step: &str, cookies: Option<&str>, body: &Value) -> Result<(Parts, Value)> {
        let request = self.json(&format!("{CEREMONIES}/{name}/{step}"));
        let request = match cookies {
            Some(cookies) => request.header(COOKIE, cookies),
            None => request,
        };
        let (parts, body) = load::ask(self.address, whole(request, body.to_string().into()))?;
        ensure!(parts.status == 200, "{name}/{step}: {} {}", parts.status, String::from_utf8_lossy(&body));
        Ok((parts, serde_json::from_slice(&body)?))
    }

    /// Beginnings of sign-ins by passkey that nobody finishes.
    pub fn ceremony_starts(&self) -> Flow {
        let site = self.clone();
        Flow::new(200, move |_| whole(site.json(&format!("{CEREMONIES}/auth/start")), "{}".into()))
    }

    fn json(&self, path: &str) -> Builder {
        let origin = format!("http://{}", self.host);
        self.post(path).header("content-type", "application/json").header("origin", origin)
    }

    /// Sign-ins with a password, of each person in turn.
    pub fn sign_ins(&self, page: &SignInPage) -> Flow {
        let (site, page) = (self.clone(), page.clone());
        let origin = format!("http://{}", self.host);
        let password = PASSWORD.replace(' ', "+");
        let request = move |number| {
            let name = seed::person(person_of(number));
            let body = format!("username={name}&password={password}&csrf={}", page.csrf).into();
            form(site.post("/login").header(COOKIE, &page.flow).header("origin", &origin), body)
        };
        Flow::new(303, request).taking(|_, parts, _| cookie(parts, "access_token").is_some())
    }

    /// Signs every person in; their cookies.
    pub fn browsers(&self) -> Result<Arc<[String]>> {
        let page = self.sign_in_page()?;
        let sign_ins = self.sign_ins(&page);
        let one = |number| {
            let (parts, body) = load::ask(self.address, sign_ins.request(number))?;
            let session = cookie(&parts, "access_token");
            let session = session
                .with_context(|| format!("sign-in: {} {}", parts.status, String::from_utf8_lossy(&body)))?;
            anyhow::Ok(format!("{session}; {}", page.flow))
        };
        (0..PEOPLE as u64).map(one).collect()
    }

    /// Authorizations by people who are signed in and have consented before.
    pub fn authorize(&self, browsers: Arc<[String]>, codes: &Collected<Code>) -> Flow {
        let (site, codes) = (self.clone(), Rc::clone(codes));
        let request = move |number| {
            let person = person_of(number);
            let uri = encoded(&seed::redirect_uri(person));
            let path = format!(
                "/api/v1/core/oauth/authorize?response_type=code&client_id={}&redirect_uri={uri}&scope={SCOPE}&state={number}\
                 &code_challenge={CHALLENGE}&code_challenge_method=S256",
                seed::app(person)
            );
            whole(site.get(&path).header(COOKIE, nth(&browsers, number)), Bytes::new())
        };
        Flow::new(303, request).taking(move |number, parts, _| {
            let person = person_of(number);
            let location = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok());
            let query =
                location.and_then(|uri| uri.strip_prefix(&format!("{}?", seed::redirect_uri(person))));
            let code = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("code=")));
            code.map(|code| codes.borrow_mut().push(Code { person, code: code.to_owned() })).is_some()
        })
    }

    /// Exchanges of codes, each once.
    pub fn exchange(&self, apps: Arc<[String]>, codes: Vec<Code>, tokens: &Collected<Tokens>) -> Flow {
        let people: Vec<usize> = codes.iter().map(|code| code.person).collect();
        let body = move |number: u64| {
            let Some(Code { person, code }) = codes.get(number as usize) else { return String::new() };
            let uri = encoded(&seed::redirect_uri(*person));
            format!("grant_type=authorization_code&code={code}&redirect_uri={uri}&code_verifier={VERIFIER}")
        };
        self.tokens(apps, people, body, tokens)
    }

    /// Uses of refresh tokens, each once.
    pub fn refresh(&self, apps: Arc<[String]>, used: Vec<Tokens>, tokens: &Collected<Tokens>) -> Flow {
        let people: Vec<usize> = used.iter().map(|tokens| tokens.person).collect();
        let body = move |number: u64| {
            let refresh = used.get(number as usize).map_or("", |tokens| &tokens.refresh);
            format!("grant_type=refresh_token&refresh_token={refresh}")
        };
        self.tokens(apps, people, body, tokens)
    }

    fn tokens(
        &self,
        apps: Arc<[String]>,
        people: Vec<usize>,
        body: impl Fn(u64) -> String + 'static,
        tokens: &Collected<Tokens>,
    ) -> Flow {
        let (site, tokens, items) = (self.clone(), Rc::clone(tokens), people.len());
        let people = Rc::new(people);
        let person = {
            let people = Rc::clone(&people);
            move |number: u64| people.get(number as usize).copied().unwrap_or(1)
        };
        let person_then = person.clone();
        let request = move |number| {
            let client = nth(&apps, person(number) as u64 - 1);
            form(site.post(site.token).header("authorization", client), body(number).into())
        };
        let flow = Flow::new(200, request).limited(items);
        flow.taking(move |number, _, body| {
            let Ok(answer) = serde_json::from_slice::<Value>(body) else { return false };
            let (access, refresh) = (text(&answer, "access_token"), text(&answer, "refresh_token"));
            let (Some(access), Some(refresh), Some(_)) = (access, refresh, text(&answer, "id_token")) else {
                return false;
            };
            tokens.borrow_mut().push(Tokens { person: person_then(number), access, refresh });
            true
        })
    }

    fn get(&self, path: &str) -> Builder {
        Request::get(path).header("host", &*self.host)
    }

    fn post(&self, path: &str) -> Builder {
        Request::post(path).header("host", &*self.host)
    }
}

impl Tokens {
    /// The client's credentials and the access token.
    pub fn known_to(self, apps: &[String]) -> (String, String) {
        (nth(apps, self.person as u64 - 1).to_owned(), self.access)
    }
}

/// What a sign-in form carries.
#[derive(Clone, Debug)]
pub struct SignInPage {
    csrf: String,
    flow: String,
}

fn person_of(number: u64) -> usize {
    number as usize % PEOPLE + 1
}

fn nth(list: &[String], number: u64) -> &str {
    list.get(number as usize % list.len().max(1)).map_or("", String::as_str)
}

fn form(request: Builder, body: Bytes) -> Request<Full<Bytes>> {
    whole(request.header("content-type", "application/x-www-form-urlencoded"), body)
}

fn whole(request: Builder, body: Bytes) -> Request<Full<Bytes>> {
    request.body(Full::new(body)).unwrap_or_else(|error| unreachable!("a fixed request: {error}"))
}

/// A cookie that an answer sets, as it is sent back.
fn cookie(parts: &Parts, name: &str) -> Option<String> {
    let set = parts.headers.get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = set.filter_map(|text| text.split(';').next());
    pairs.rfind(|pair| pair.split('=').next() == Some(name)).map(str::to_owned)
}

/// An address as a parameter.
fn encoded(uri: &str) -> String {
    uri.replace(':', "%3A").replace('/', "%2F")
}

fn text(object: &Value, member: &str) -> Option<String> {
    object.get(member).and_then(Value::as_str).map(str::to_owned)
}
