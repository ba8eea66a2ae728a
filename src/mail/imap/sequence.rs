//! Sequence sets (RFC 3501 section 9) as ranges of numbers. Never lists the numbers of a range one by one.

use imap_types::sequence::{SeqOrUid, Sequence, SequenceSet};

use crate::core::postbox::access::Uid;

/// The numbers of a set, ascending and apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// The numbers of `set`, where `*` is `largest`. With `largest` zero (an empty mailbox) what names `*` is no number.
    pub(crate) fn new(set: &SequenceSet, largest: u32) -> Self {
        let number = |n: &SeqOrUid| match n {
            SeqOrUid::Value(n) => n.get(),
            SeqOrUid::Asterisk => largest,
        };
        let pair = |sequence: &Sequence| match sequence {
            Sequence::Single(n) => (number(n), number(n)),
            Sequence::Range(a, b) => (number(a).min(number(b)), number(a).max(number(b))),
        };
        let mut ranges: Vec<_> = set.0.as_ref().iter().map(pair).filter(|(low, _)| *low > 0).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self(merged)
    }
    /// Whether `n` is one of them.
    pub(crate) fn contains(&self, n: u32) -> bool {
        let at = self.0.partition_point(|(_, high)| *high < n);
        self.0.get(at).is_some_and(|(low, _)| *low <= n)
    }
    /// The largest of them; zero when there is none.
    pub(crate) fn last(&self) -> u32 {
        self.0.last().map_or(0, |(_, high)| *high)
    }
}

/// UIDs as a response code lists them, for example `3:5,9`; the order is kept (RFC 4315 section 3).
pub(crate) fn uid_set(uids: impl IntoIterator<Item = Uid>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for Uid(n) in uids {
        match runs.last_mut() {
            Some(run) if run.1.checked_add(1) == Some(n) => run.1 = n,
            _ => runs.push((n, n)),
        }
    }
    let text = |(a, b): &(u32, u32)| if a == b { a.to_string() } else { format!("{a}:{b}") };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str, largest: u32) -> Ranges {
        Ranges::new(&text.parse().unwrap(), largest)
    }

    #[test]
    fn rfc3501_sequence_sets_in_any_order_and_with_a_star() {
        assert_eq!(ranges("2,4:7,9,12:*", 15), Ranges(vec![(2, 2), (4, 7), (9, 9), (12, 15)]));
        assert_eq!(ranges("*:4,5:7", 10), Ranges(vec![(4, 10)]));
        // A range to the last message has it, also when it begins beyond.
        assert!(ranges("559:*", 10).contains(10));
        assert!(!ranges("559:*", 10).contains(9));
        assert!(!ranges("4294967295", 10).contains(10));
        assert_eq!(ranges("*", 0), Ranges(vec![]));
        assert_eq!(ranges("1:5", 3).last(), 5);
    }

    #[test]
    fn rfc4315_uid_sets_keep_their_order() {
        assert_eq!(uid_set([3, 4, 5, 9, 7, 8].map(Uid)), "3:5,9,7:8");
    }
}
