//! Trailing slashes (SEC-20).

use http::{Method, Request};

/// What becomes of a path that ends in a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slash {
    /// The path is as it should be.
    Keep,
    /// Matched as if the slash were absent.
    Rewrite(String),
    /// 308 to this path and query. It begins with exactly one slash and names no host.
    Redirect(String),
    /// `//evil` must never become a redirect to another host.
    NotFound,
}

/// Decides on a path. GET and HEAD are redirected, except under `/v1`, whose clients do not follow redirects.
pub fn decide(safe_method: bool, path: &str, query: Option<&str>) -> Slash {
    if path.starts_with("//") {
        return Slash::NotFound;
    }
    if path == "/" || !path.ends_with('/') {
        return Slash::Keep;
    }
    let bare = path.trim_end_matches('/').to_owned();
    if bare.is_empty() {
        return Slash::NotFound;
    }
    let under_v1 = bare == "/v1" || bare.starts_with("/v1/");
    if !safe_method || under_v1 {
        return Slash::Rewrite(bare);
    }
    Slash::Redirect(match query {
        Some(query) => format!("{bare}?{query}"),
        None => bare,
    })
}

/// Decides on the path of a request, and rewrites it where the slash counts as absent. Where there is nothing, a redirect would
/// only lead to a 404.
pub fn settle<B>(request: &mut Request<B>, is_registered: bool) -> Slash {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let (path, query) = (request.uri().path(), request.uri().query());
    match decide(safe, path, query) {
        Slash::Redirect(_) if !is_registered => Slash::Keep,
        Slash::Rewrite(bare) => {
            let target = query.map_or_else(|| bare.clone(), |query| format!("{bare}?{query}"));
            if let Ok(uri) = target.parse() {
                *request.uri_mut() = uri;
            }
            Slash::Rewrite(bare)
        }
        slash => slash,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_stay_on_this_host_and_apis_are_rewritten() {
        use Slash::{Keep, NotFound, Redirect, Rewrite};
        for (safe, path, query, want) in [
            (true, "/", None, Keep),
            (true, "/health", None, Keep),
            (true, "/health/", None, Redirect("/health".into())),
            (true, "/health///", Some("a=b"), Redirect("/health?a=b".into())),
            (true, "//evil.example/", None, NotFound),
            (true, "/v1/models/", None, Rewrite("/v1/models".into())),
            (false, "/api/v1/admin/rules/", Some("x"), Rewrite("/api/v1/admin/rules".into())),
        ] {
            assert_eq!(decide(safe, path, query), want, "{path}");
        }
    }
}
