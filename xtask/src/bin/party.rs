//! A relying party of the `openidconnect` crate: `party ISSUER CLIENT_ID CLIENT_SECRET REDIRECT_URI`. It prints `Open ADDRESS` for
//! what a person is to open, and reads the address at which the browser ended. For acceptance runs (case A11).

#![expect(clippy::print_stdout, reason = "a command line tool prints")]

use anyhow::{Context, Result, bail, ensure};
use openidconnect::core::{CoreAuthPrompt, CoreAuthenticationFlow, CoreClient, CoreProviderMetadata};
use openidconnect::{
    AccessTokenHash, AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest,
    HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, RedirectUrl, Scope,
    TokenResponse as _,
};
use std::io::BufRead as _;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The library brings no client of its own here: requests go through the one TLS stack of this repository.
struct Http(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = reqwest::Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, reqwest::Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer = self.0.execute(request.try_into()?).await?;
            let mut response = HttpResponse::new(Vec::new());
            *response.status_mut() = answer.status();
            response.headers_mut().clone_from(answer.headers());
            *response.body_mut() = answer.bytes().await?.to_vec();
            Ok(response)
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [issuer, id, secret, redirect] = words.as_slice() else {
        bail!("party ISSUER CLIENT_ID CLIENT_SECRET REDIRECT_URI")
    };
    #[expect(clippy::disallowed_methods, reason = "a client under test, not the product")]
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let http = Http(builder.build()?);
    let metadata = CoreProviderMetadata::discover_async(IssuerUrl::new(issuer.clone())?, &http).await?;
    let client = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(id.clone()),
        Some(ClientSecret::new(secret.clone())),
    )
    .set_redirect_uri(RedirectUrl::new(redirect.clone())?);
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let asked_at = seconds()?;
    let (address, state, nonce) = client
        .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
        .add_scope(Scope::new("email".to_owned()))
        .add_prompt(CoreAuthPrompt::Login)
        .set_max_age(Duration::from_mins(5))
        .set_pkce_challenge(challenge)
        .url();
    println!("Open {address}");
    let mut back = String::new();
    std::io::stdin().lock().read_line(&mut back)?;
    let back = openidconnect::url::Url::parse(back.trim())?;
    let value =
        |name: &str| back.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    ensure!(value("state").as_ref() == Some(state.secret()), "the state is another one");
    ensure!(value("iss").as_ref() == Some(issuer), "the issuer is another one");
    let code = AuthorizationCode::new(value("code").context("no code")?);
    let answer = client.exchange_code(code)?.set_pkce_verifier(verifier).request_async(&http).await?;
    let id_token = answer.id_token().context("no ID token")?;
    let verifier = client.id_token_verifier();
    let claims = id_token.claims(&verifier, &nonce)?;
    ensure!(id_token.claims(&verifier, &Nonce::new_random()).is_err(), "any nonce counts");
    let auth_time = claims.auth_time().context("no auth_time")?.timestamp();
    ensure!(auth_time > asked_at, "signed in at {auth_time}, not after it was asked for at {asked_at}");
    ensure!(claims.email().is_none(), "the mail belongs to userinfo");
    let hash = AccessTokenHash::from_token(
        answer.access_token(),
        id_token.signing_alg()?,
        id_token.signing_key(&verifier)?,
    )?;
    ensure!(claims.access_token_hash() == Some(&hash), "at_hash is of another token");
    let info: openidconnect::core::CoreUserInfoClaims = client
        .user_info(answer.access_token().clone(), Some(claims.subject().clone()))?
        .request_async(&http)
        .await?;
    println!("signed in {}", info.email().context("no mail")?.as_str());
    Ok(())
}

fn seconds() -> Result<i64> {
    #[expect(clippy::disallowed_methods, reason = "a client under test has the machine's clock")]
    let now = SystemTime::now();
    Ok(i64::try_from(now.duration_since(UNIX_EPOCH)?.as_secs())?)
}
