//! Which form of an answer a client prefers (SEC-21, RFC 9110 section 12.5.1): quality values count, and of several ranges that
//! fit a form the most specific one. What is negotiated today is the form of a refusal; a page of the site would offer Markdown
//! beside HTML.

use http::HeaderValue;

/// A form that an answer can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// JSON, also as a problem document.
    Json,
    Html,
}

impl Form {
    fn media_types(self) -> &'static [&'static str] {
        match self {
            Self::Json => &["application/json", "application/problem+json"],
            Self::Html => &["text/html", "application/xhtml+xml"],
        }
    }
}

/// Most ranges of a header that are read.
const MAX_RANGES: usize = 64;

/// The form among `offers` that `accept` prefers; the earlier one of two that are equal. Without a header anything is as good.
/// None where nothing offered is acceptable.
pub fn preferred(accept: Option<&HeaderValue>, offers: &[Form]) -> Option<Form> {
    let Some(accept) = accept.and_then(|value| value.to_str().ok()) else { return offers.first().copied() };
    let ranges: Vec<(String, u16)> = accept.split(',').take(MAX_RANGES).filter_map(range).collect();
    let mut best: Option<(Form, u16)> = None;
    for form in offers {
        let quality = form.media_types().iter().map(|kind| quality(kind, &ranges)).max().unwrap_or_default();
        if quality > best.map_or(0, |(_, quality)| quality) {
            best = Some((*form, quality));
        }
    }
    best.map(|(form, _)| form)
}

/// A media range and its quality in thousandths.
fn range(entry: &str) -> Option<(String, u16)> {
    let mut parts = entry.split(';').map(str::trim);
    let kind = parts.next().filter(|kind| kind.contains('/'))?.to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let quality = match weight {
        None => 1000,
        Some(text) => (text.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q))? * 1000.0).round() as u16,
    };
    Some((kind, quality))
}

fn quality(kind: &str, ranges: &[(String, u16)]) -> u16 {
    let of = |wanted: &str| ranges.iter().find(|(range, _)| range == wanted).map(|(_, quality)| *quality);
    let group = kind.split('/').next().map(|group| format!("{group}/*"));
    of(kind).or_else(|| of(&group?)).or_else(|| of("*/*")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_with_the_highest_quality_is_chosen_and_none_where_none_is_wanted() {
        use Form::{Html, Json};
        for (accept, want) in [
            (None, Some(Json)),
            (Some("*/*"), Some(Json)),
            (Some("application/json"), Some(Json)),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Some(Html)),
            (Some("application/json, text/html;q=0.5"), Some(Json)),
            (Some("application/problem+json;q=0.3, text/html;q=0.5"), Some(Html)),
            (Some("text/*"), Some(Html)),
            (Some("TEXT/HTML; charset=utf-8 ;Q=0.4"), Some(Html)),
            (Some("text/html;q=0, */*;q=0.1"), Some(Json)),
            (Some("application/*;q=0, */*"), Some(Html)),
            (Some("text/html;q=0"), None),
            (Some("image/png"), None),
            (Some("text/html;q=2"), None),
            (Some("html"), None),
        ] {
            let header = accept.map(HeaderValue::from_static);
            assert_eq!(preferred(header.as_ref(), &[Json, Html]), want, "{accept:?}");
        }
    }
}
