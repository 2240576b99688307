//! Pictures of clients: fetched once with the document, kept and served by us, so that no page loads anything from elsewhere.

use super::take_budget;
use crate::error::OauthResult;
use crate::models::cimd::Logo;
use crate::models::clients::{ClientKind, OAuthClient};
use crate::state::{OAuthState, Settings};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use systemprompt_net::Wanted;
use url::Url;

/// Beginnings of the formats that are served, by their media type.
const FORMATS: [(&str, &[u8]); 3] =
    [("image/png", b"\x89PNG\r\n\x1a\n"), ("image/jpeg", b"\xff\xd8\xff"), ("image/webp", b"RIFF")];

/// The picture at `uri`, if it is one. Without it the client is shown by its first letter. At the `host` of the document it belongs
/// to the fetch of that; elsewhere it takes a place of its own.
pub(super) async fn fetch(state: &OAuthState, host: &str, uri: &str) -> Option<Logo> {
    let url = Url::parse(uri).ok().filter(|url| url.scheme() == "https")?;
    if url.host_str()? != host {
        take_budget(state, url.host_str()?).await.ok()?;
    }
    let fetched = state.egress.document(uri, Wanted::LOGO).await;
    let fetched =
        fetched.inspect_err(|error| tracing::info!(%error, "a client's logo was not fetched")).ok()?;
    let media_type = format_of(&fetched.body)?;
    Some(Logo { media_type: media_type.to_owned(), bytes: fetched.body.to_vec() })
}

/// The format that the bytes have, whatever the host called them.
fn format_of(bytes: &[u8]) -> Option<&'static str> {
    let (media_type, _) = FORMATS.into_iter().find(|(_, start)| bytes.starts_with(start))?;
    let is_whole = media_type != "image/webp" || bytes.get(8..12) == Some(b"WEBP");
    is_whole.then_some(media_type)
}

/// Where pages find the picture of a client, if we have one.
pub fn address(settings: &Settings, client: &OAuthClient) -> Option<String> {
    let has_one = client.kind == ClientKind::MetadataDocument && client.logo_uri.is_some();
    let id = utf8_percent_encode(client.client_id.as_str(), NON_ALPHANUMERIC);
    has_one.then(|| settings.endpoint(&format!("/logo?client_id={id}")))
}

/// The kept picture of a client.
///
/// # Errors
/// When it cannot be read.
pub async fn find(state: &OAuthState, client_id: &str) -> OauthResult<Option<Logo>> {
    Ok(state.clients.document_logo(client_id).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logo_is_what_its_bytes_are() {
        assert_eq!(format_of(b"\x89PNG\r\n\x1a\nrest"), Some("image/png"));
        assert_eq!(format_of(b"\xff\xd8\xff\xe0"), Some("image/jpeg"));
        assert_eq!(format_of(b"RIFF\0\0\0\0WEBPVP8 "), Some("image/webp"));
        for other in [&b"<svg xmlns="[..], b"RIFF\0\0\0\0WAVE", b"GIF89a", b""] {
            assert_eq!(format_of(other), None);
        }
    }
}
