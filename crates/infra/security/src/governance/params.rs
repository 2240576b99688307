//! Reading the `params` of a policy strictly: an unknown key is refused with the name that was probably meant.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why the parameters of a policy were refused.
#[derive(Debug, thiserror::Error)]
pub enum ParamError {
    #[error("unknown parameter `{name}`{}; allowed: {}", hint(.suggestion.as_deref()), list(.allowed))]
    Unknown { name: String, suggestion: Option<String>, allowed: Vec<String> },
    #[error("{0}")]
    Type(#[from] serde_json::Error),
    /// A value that the policy cannot take, and where it stands below `params`.
    #[error("{}: {message}", .keys.join("."))]
    Value { keys: Vec<String>, message: String },
}

impl ParamError {
    pub fn value<const N: usize>(keys: [&str; N], message: impl ToString) -> Self {
        Self::Value { keys: keys.map(str::to_owned).to_vec(), message: message.to_string() }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// `, did you mean ...`, for the end of a message.
pub(super) fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |s| format!(", did you mean `{s}`?"))
}

/// Parameters of type `T`, whose keys are `allowed`; null means all defaults.
pub(super) fn read<T: DeserializeOwned + Default>(params: &Value, allowed: &[&str]) -> Result<T, ParamError> {
    if params.is_null() {
        return Ok(T::default());
    }
    if let Some(object) = params.as_object()
        && let Some(name) = object.keys().find(|k| !allowed.contains(&k.as_str()))
    {
        return Err(ParamError::Unknown {
            name: name.clone(),
            suggestion: closest(name, allowed.iter().copied()),
            allowed: allowed.iter().map(|a| (*a).to_owned()).collect(),
        });
    }
    Ok(serde_json::from_value(params.clone())?)
}

/// The one of `known` that `name` was probably meant to be: at most a third of its letters differ.
pub(super) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let folded = |s: &str| s.to_lowercase().replace('-', "_");
    let name = folded(name);
    known
        .map(|k| (distance(&name, &folded(k)), k))
        .min()
        .filter(|(d, k)| *d <= k.chars().count().div_ceil(3))
        .map(|(_, k)| k.to_owned())
}

/// Edits (insert, delete, replace) that turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for ((y, pair), j) in b.iter().zip(row.windows(2)).zip(0usize..) {
            let (diagonal, above) = (pair.first(), pair.last());
            let left = next.get(j).map_or(usize::MAX, |l| l + 1);
            let replaced = diagonal.map_or(usize::MAX, |d| d + usize::from(x != *y));
            next.push(left.min(replaced).min(above.map_or(usize::MAX, |v| v + 1)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_far_ones_are_not() {
        for (name, want) in [
            ("admin_only_prefix", Some("admin_only_prefixes")),
            ("allow-tools", Some("allow_tools")),
            ("tokns", Some("tokens")),
            ("colour", None),
        ] {
            let known = ["admin_only_prefixes", "allow_tools", "tokens"];
            assert_eq!(closest(name, known.into_iter()).as_deref(), want, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
