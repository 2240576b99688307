//! Pages: what all of them show, in which language, and the two files that they load (ID-106 to ID-108).

pub mod texts;

use crate::error::OauthError;
use crate::state::Settings;
use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use std::sync::LazyLock;
use systemprompt_models::Millis;
use systemprompt_models::clock::iso8601;
pub use texts::Texts;
use url::Url;

/// Where the files of the pages stand.
pub const ASSETS: &str = "/api/v1/core/oauth/assets/";

/// A file that pages load. Its name holds a digest of it, so that it may be kept for ever.
#[derive(Debug)]
pub struct Asset {
    pub name: String,
    pub media_type: &'static str,
    pub bytes: &'static [u8],
}

impl Asset {
    fn new(stem: &str, ending: &str, media_type: &'static str, bytes: &'static [u8]) -> Self {
        let digest = hex::encode(digest(&SHA256, bytes));
        let name = format!("{stem}.{}.{ending}", digest.get(..12).unwrap_or_default());
        Self { name, media_type, bytes }
    }

    fn href(&self) -> String {
        format!("{ASSETS}{}", self.name)
    }
}

static FILES: LazyLock<[Asset; 3]> = LazyLock::new(|| {
    [
        Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("../../assets/style.css")),
        Asset::new(
            "script",
            "js",
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/script.js"),
        ),
        Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
    ]
});

/// The file of this name.
pub fn asset(name: &str) -> Option<&'static Asset> {
    FILES.iter().find(|asset| asset.name == name)
}

/// What every page shows.
#[derive(Clone, Debug)]
pub struct Frame {
    pub t: &'static Texts,
    /// The language, where the request asked for it: forms and redirects hand it on.
    pub ui_locales: Option<&'static str>,
    /// Name of the installation.
    pub site: String,
    /// Host that the person should see in the address bar.
    pub host: String,
    pub style: String,
    pub script: String,
    pub icon: String,
}

impl Frame {
    /// `ui_locales` is the parameter of an authorization request, `accept_language` the header.
    pub fn new(settings: &Settings, ui_locales: Option<&str>, accept_language: Option<&str>) -> Self {
        let [style, script, icon] = &*FILES;
        Self {
            t: texts::preferred(ui_locales, accept_language),
            ui_locales: texts::asked(ui_locales).map(|texts| texts.lang),
            site: settings.display_name.clone(),
            host: host_of(&settings.external_url),
            style: style.href(),
            script: script.href(),
            icon: icon.href(),
        }
    }
}

fn host_of(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).to_owned()
}

/// A rendered page with what its headers depend on.
#[derive(Clone, Debug)]
pub struct Page {
    pub html: String,
    /// Where a form of the page may lead after our own answer: browsers apply `form-action` to redirects too.
    pub form_target: Option<String>,
    /// Of the one inline script of a `form_post` page.
    pub nonce: Option<String>,
}

impl Page {
    /// # Errors
    /// When the template cannot be rendered, which is an error of ours.
    pub fn render(template: &impl Template) -> Result<Self, OauthError> {
        let html = template.render().map_err(|error| OauthError::Impossible(format!("a page: {error}")))?;
        Ok(Self { html, form_target: None, nonce: None })
    }

    /// With a form whose answer redirects to `uri`.
    pub fn leading_to(mut self, uri: &str) -> Self {
        self.form_target = form_source(uri);
        self
    }

    /// The `Content-Security-Policy` of the page.
    pub fn policy(&self) -> String {
        let nonce = self.nonce.as_deref().map(|nonce| format!(" 'nonce-{nonce}'")).unwrap_or_default();
        let target = self.form_target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
        format!(
            "default-src 'none'; script-src 'self'{nonce}; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; form-action 'self'{target}"
        )
    }
}

/// What `form-action` must name for a redirect to `uri`: its origin, or its scheme where it has none. A URI that was registered
/// has no character that ends the directive.
fn form_source(uri: &str) -> Option<String> {
    let url = Url::parse(uri).ok()?;
    let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b));
    let source = match (url.scheme(), url.host_str()) {
        ("http" | "https", Some(host)) => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{host}{port}", url.scheme())
        }
        (scheme, _) => format!("{scheme}:"),
    };
    is_plain(&source.replace("://", ":")).then_some(source)
}

/// A time as people read it, to the minute.
pub fn moment(at: Millis) -> String {
    let text = iso8601(at);
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{day} {} UTC", time.get(..5).unwrap_or_default())
}

/// Where somebody came from, as people read it: an address alone is no network.
pub fn place(prefix: &str) -> String {
    prefix.strip_suffix("/32").unwrap_or(prefix).to_owned()
}

/// The first letter of a name, for the circle before it.
pub fn initial(name: &str) -> String {
    name.chars()
        .find(|c| c.is_alphanumeric())
        .map_or_else(|| "?".to_owned(), |c| c.to_uppercase().to_string())
}

/// A page that says that something went wrong.
#[derive(Template)]
#[template(path = "error.html")]
pub struct ErrorPage {
    pub frame: Frame,
    pub title: String,
    pub message: String,
    pub code: String,
    pub trace_id: String,
}

/// A page that sends itself on to a client (OAuth 2.0 Form Post Response Mode).
#[derive(Template)]
#[template(path = "form_post.html")]
pub struct FormPostPage {
    pub frame: Frame,
    pub target: String,
    pub fields: Vec<(&'static str, String)>,
    pub nonce: String,
}

/// A page that says one thing.
#[derive(Template)]
#[template(path = "message.html")]
pub struct MessagePage {
    pub frame: Frame,
    pub title: String,
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_small_and_named_by_their_content() {
        for file in &*FILES {
            assert!(file.bytes.len() <= 12 * 1024, "{} has {} bytes", file.name, file.bytes.len());
            assert!(asset(&file.name).is_some());
        }
        assert!(asset("style.css").is_none());
    }

    #[test]
    fn the_policy_names_where_a_form_leads_and_nothing_else() {
        for (uri, want) in [
            ("https://app.example/cb?x=1;script-src *", "form-action 'self' https://app.example"),
            ("http://127.0.0.1:3000/cb", "form-action 'self' http://127.0.0.1:3000"),
            ("http://[::1]:9/cb", "form-action 'self' http://[::1]:9"),
            ("com.example.app:/cb", "form-action 'self' com.example.app:"),
        ] {
            let page = Page { html: String::new(), form_target: None, nonce: None }.leading_to(uri);
            assert!(page.policy().ends_with(want), "{}", page.policy());
        }
    }
}
