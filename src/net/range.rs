//! One byte range as RFC 9110 section 14 has it: read from a request, resolved against a length, printed for an answer. No IO.

use std::ops::Range;

/// A single range of a `Range` header, before the length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `bytes=a-b`, both ends included.
    FromTo(u64, u64),
    /// `bytes=a-`.
    From(u64),
    /// `bytes=-n`: the last n bytes.
    Last(u64),
}

impl ByteRange {
    /// The range that a `Range` header asks for; `None` when it must be ignored: another unit, malformed, or several ranges
    /// (section 14.2 lets a server ignore the header; the answer is then the whole).
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, set) = header.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        match (first.is_empty(), last.is_empty()) {
            (true, true) => None,
            (true, false) => Some(Self::Last(number(last)?)),
            (false, true) => Some(Self::From(number(first)?)),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }
    /// The bytes it means of `len`; `None` when there are none (416).
    pub fn resolve(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::FromTo(first, last) => first..last.saturating_add(1).min(len),
            Self::From(first) => first..len,
            Self::Last(n) => len.saturating_sub(n)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits only: `u64::from_str` would also take a plus sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The `Range` header for `range`, which is not empty.
pub fn range_header(range: &Range<u64>) -> String {
    format!("bytes={}-{}", range.start, range.end.saturating_sub(1))
}

/// The `Content-Range` header of a 206.
pub fn content_range(range: &Range<u64>, len: u64) -> String {
    format!("bytes {}-{}/{len}", range.start, range.end.saturating_sub(1))
}

/// The `Content-Range` header of a 416.
pub fn content_range_none(len: u64) -> String {
    format!("bytes */{len}")
}

/// What a 206's `Content-Range` says: the range, and the length of the whole.
pub fn parse_content_range(header: &str) -> Option<(Range<u64>, u64)> {
    let (range, len) = header.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, len) = (number(first)?, number(last)?, number(len)?);
    (first <= last && last < len).then(|| (first..last + 1, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9110_range_single_ranges_resolve() {
        let of = |header: &str, len| ByteRange::parse(header).map(|r| r.resolve(len));
        assert_eq!(of("bytes=0-499", 10_000), Some(Some(0..500)));
        assert_eq!(of("bytes=9500-", 10_000), Some(Some(9500..10_000)));
        assert_eq!(of("bytes=-500", 10_000), Some(Some(9500..10_000)));
        assert_eq!(of("bytes=-50000", 10_000), Some(Some(0..10_000)));
        assert_eq!(of("Bytes=0-0", 1), Some(Some(0..1)));
        assert_eq!(of("bytes=5-18446744073709551615", 10), Some(Some(5..10)));
    }

    #[test]
    fn rfc9110_range_unsatisfiable_ones_are_told_from_malformed_ones() {
        for unsatisfiable in ["bytes=10-", "bytes=10-12", "bytes=-0"] {
            assert_eq!(ByteRange::parse(unsatisfiable).map(|r| r.resolve(10)), Some(None), "{unsatisfiable}");
        }
        assert_eq!(ByteRange::parse("bytes=0-").and_then(|r| r.resolve(0)), None);
        for ignored in [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0--1",
        ] {
            assert_eq!(ByteRange::parse(ignored), None, "{ignored}");
        }
        assert_eq!(ByteRange::parse("bytes=99999999999999999999-"), None);
    }

    #[test]
    fn rfc9110_content_range_reads_as_it_prints() {
        assert_eq!(range_header(&(5..10)), "bytes=5-9");
        assert_eq!(parse_content_range(&content_range(&(5..10), 20)), Some((5..10, 20)));
        for bad in [
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes */10",
            "bytes 0-1/*",
            "0-1/2",
            "bytes 0-18446744073709551615/18446744073709551615",
        ] {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
    }
}
