//! How lists are read: a page at a time, by a key that does not move.

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// Key of the last item that was read; empty for the beginning.
    pub after: &'a str,
    /// Most items of it.
    pub limit: i64,
}

impl<'a> Page<'a> {
    /// The first `limit` items.
    pub fn first(limit: i64) -> Self {
        Self { after: "", limit }
    }

    /// At most `limit` items behind `after`, and one more, which tells that there are others.
    pub fn with_next(after: &'a str, limit: i64) -> Self {
        Self { after, limit: limit + 1 }
    }
}
