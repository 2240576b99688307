//! Text that was made from another text, with the way back: where in the original a piece of it came from.

use std::ops::Range;

/// A piece of a [`Mapped`] text, from `at` to the next piece.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: usize,
    from: usize,
    /// Length in the original if the piece stands for all of it; none if it was copied byte by byte.
    whole: Option<usize>,
}

/// A rewritten text.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapped {
    pub(super) text: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Mapped {
    /// `text`, which as a whole stands for `from` of the original.
    pub(super) fn whole(text: Vec<u8>, from: Range<usize>) -> Self {
        Self { text, pieces: vec![Piece { at: 0, from: from.start, whole: Some(from.len()) }] }
    }

    /// Whether it stands as a whole for a range of the original.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece { whole: Some(_), .. }])
    }

    /// Adds bytes that stand unchanged at `from` of the original.
    pub(super) fn copy(&mut self, bytes: &[u8], from: usize) {
        if !bytes.is_empty() {
            self.pieces.push(Piece { at: self.text.len(), from, whole: None });
            self.text.extend_from_slice(bytes);
        }
    }

    /// Adds what `from` of the original was rewritten to.
    pub(super) fn replace(&mut self, bytes: &[u8], from: Range<usize>) {
        if !bytes.is_empty() {
            self.pieces.push(Piece { at: self.text.len(), from: from.start, whole: Some(from.len()) });
            self.text.extend_from_slice(bytes);
        }
    }

    /// The range of the original that `range` of this text came from.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        let start = self.piece(range.start).map_or(0, |p| match p.whole {
            Some(_) => p.from,
            None => p.from + (range.start - p.at),
        });
        let last = range.end.saturating_sub(1).max(range.start);
        let end = self.piece(last).map_or(start, |p| match p.whole {
            Some(len) => p.from + len,
            None => p.from + (last - p.at) + 1,
        });
        start..end.max(start)
    }

    fn piece(&self, at: usize) -> Option<&Piece> {
        let after = self.pieces.partition_point(|p| p.at <= at);
        after.checked_sub(1).and_then(|i| self.pieces.get(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_the_new_text_leads_back_to_the_old_one() {
        // "ab\u0043de" became "abCde".
        let mut mapped = Mapped::default();
        mapped.copy(b"ab", 0);
        mapped.replace(b"C", 2..8);
        mapped.copy(b"de", 8);
        for (range, want) in
            [(0..5, 0..10), (1..3, 1..8), (2..3, 2..8), (2..4, 2..9), (3..5, 8..10), (0..2, 0..2)]
        {
            assert_eq!(mapped.origin(range.clone()), want, "{range:?}");
        }
        assert_eq!(Mapped::whole(b"xyz".to_vec(), 7..20).origin(1..2), 7..20);
    }
}
