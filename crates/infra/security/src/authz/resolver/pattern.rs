//! Patterns over ids: `*` stands for any text.

/// Whether `id` fits a pattern whose `*` stand for any text.
pub fn pattern_matches(pattern: &str, id: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == id };
    let Some(mut id) = id.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match id.find(part) {
            Some(at) => id = id.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    id.ends_with(tail)
}
