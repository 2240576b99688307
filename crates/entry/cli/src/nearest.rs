//! What was probably meant by a misspelt name: the nearest three.

/// The sentence that suggests the nearest of `known`, if one is near enough.
pub fn suggestion<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let folded = found.to_lowercase();
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&folded, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= (found.chars().count() / 2).clamp(1, 4))
        .collect();
    near.sort_unstable();
    near.dedup();
    let names: Vec<String> = near.into_iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_three_are_suggested_and_strangers_are_not() {
        let known = ["bob", "rob", "bert", "bobby", "alice", "bo"];
        assert_eq!(suggestion("bobb", known).unwrap(), "did you mean `bob`, `bobby`, `bo`?");
        assert_eq!(suggestion("xyzzy", known), None);
    }
}
