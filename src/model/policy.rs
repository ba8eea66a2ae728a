//! The replication policy of a group, and what follows from it for one mail: its encoding and its parts.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::size::ByteSize;
use super::time::Span;

/// Most members a group may have (DESIGN.md section 4), and so the largest n.
pub const MEMBERS_MAX: u8 = 100;
/// Longest life of a mail (DESIGN.md section 6).
pub const LIFE_MAX: Span = Span::days(30);

/// Whether members hold whole copies or fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every holder has the whole sealed mail.
    Full,
    /// Every holder has one of n fragments; any k rebuild the mail.
    Fragments,
}

/// k of n: any `k` of `n` fragments rebuild a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KOfN {
    /// Fragments that a reader needs.
    pub k: u8,
    /// Fragments that the members hold, one each, the owner not counted.
    pub n: u8,
}

/// Why a policy is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// k = 0, k > n, or n above 100.
    #[error("fragments = {{ k = {k}, n = {n} }} is impossible: 1 <= k <= n <= 100 must hold")]
    KOfN {
        /// k as given.
        k: u8,
        /// n as given.
        n: u8,
    },
    /// No copies, or more than 100.
    #[error("copies = {copies} is impossible: from 1 to 100")]
    Copies {
        /// As given.
        copies: u8,
    },
    /// Whole copies of small mails survive fewer losses than the fragments of large ones.
    #[error("copies = {copies} survives less than fragments {k} of {n}: set copies to at least {least}")]
    CopiesBelowFragments {
        /// As given.
        copies: u8,
        /// k as given.
        k: u8,
        /// n as given.
        n: u8,
        /// The least that fits, n - k + 1.
        least: u8,
    },
    /// A life of zero or above 30 days.
    #[error("life = \"{life}\" is impossible: at most 30 d, and more than 0")]
    Life {
        /// As given.
        life: Span,
    },
}

/// How a group keeps its members' mail (DESIGN.md section 6). Read from a gd, it may have keys of later versions, which are
/// ignored; what a person writes is read by [`strict`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// `"full"` or `"fragments"`.
    pub mode: Mode,
    /// Any k of n members, the owner not counted, rebuild a mail.
    pub fragments: KOfN,
    /// Whole copies at members, the owner not counted: for mode full, and for mails below `whole_below`.
    pub copies: u8,
    /// Sealed mails smaller than this are kept whole.
    pub whole_below: ByteSize,
    /// A member silent this long is replaced.
    pub lost_after: Span,
    /// Largest clear mail that is taken.
    pub max_mail: ByteSize,
    /// A mail's validity; its ns lives as long.
    pub life: Span,
}

/// Reads a policy that a person wrote: a key that is none is an error, as it is mostly a slip. For `deserialize_with`.
///
/// # Errors
/// What the deserializer says, and unknown keys.
pub fn strict<'de, D: Deserializer<'de>>(from: D) -> Result<Policy, D::Error> {
    StrictPolicy::deserialize(from)
}

/// [`KOfN`] without unknown keys.
#[derive(Deserialize)]
#[serde(remote = "KOfN", deny_unknown_fields)]
struct StrictKOfN {
    k: u8,
    n: u8,
}

/// [`Policy`] without unknown keys.
#[derive(Deserialize)]
#[serde(remote = "Policy", deny_unknown_fields, default = "Policy::default")]
struct StrictPolicy {
    mode: Mode,
    #[serde(deserialize_with = "StrictKOfN::deserialize")]
    fragments: KOfN,
    copies: u8,
    whole_below: ByteSize,
    lost_after: Span,
    max_mail: ByteSize,
    life: Span,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Fragments,
            fragments: KOfN { k: 3, n: 5 },
            copies: 3,
            whole_below: ByteSize::kib(64),
            lost_after: Span::hours(1),
            max_mail: ByteSize::gib(1),
            life: Span::days(7),
        }
    }
}

impl Policy {
    /// The policy, if it can be kept by a group that is large enough.
    ///
    /// # Errors
    /// [`PolicyError`] names the field that is impossible.
    pub fn check(self) -> Result<Self, PolicyError> {
        let KOfN { k, n } = self.fragments;
        if k == 0 || k > n || n > MEMBERS_MAX {
            return Err(PolicyError::KOfN { k, n });
        }
        if self.copies == 0 || self.copies > MEMBERS_MAX {
            return Err(PolicyError::Copies { copies: self.copies });
        }
        let least = n - k + 1;
        if self.mode == Mode::Fragments && self.copies < least {
            return Err(PolicyError::CopiesBelowFragments { copies: self.copies, k, n, least });
        }
        if self.life > LIFE_MAX || self.life.0.is_zero() {
            return Err(PolicyError::Life { life: self.life });
        }
        Ok(self)
    }
    /// Largest sealed mail that is taken of anybody, bytes: `max_mail`, and what sealing adds to it. That is far less than this
    /// slack of a sixty-fourth and 1 MiB: tags of chunks, and a key packet for each of 100 receivers.
    pub fn max_sealed(&self) -> u64 {
        let clear = self.max_mail.bytes();
        clear.saturating_add(clear / 64).saturating_add(1024 * 1024)
    }
    /// Members besides an owner that the policy needs.
    pub fn others_needed(&self) -> u8 {
        match self.mode {
            Mode::Full => self.copies,
            Mode::Fragments => self.fragments.n.max(self.copies),
        }
    }
    /// How a sealed mail of `length` bytes is kept in a group with `others` members besides its owner.
    ///
    /// A group too small for its policy keeps whole copies at every other member. Fragments of which one is enough are copies.
    pub fn encoding_for(&self, length: u64, others: usize) -> Encoding {
        let small_group = others < usize::from(self.others_needed());
        // With k = 1 every fragment is the mail itself; `copies` is at least n then.
        let is_copy = self.fragments.k == 1;
        if self.mode == Mode::Full || small_group || is_copy || length < self.whole_below.bytes() {
            Encoding::Whole
        } else {
            Encoding::Fragments { k: self.fragments.k, n: self.fragments.n }
        }
    }
    /// How many members hold a mail kept whole, in a group with `others` members besides its owner.
    pub fn whole_copies(&self, others: usize) -> usize {
        let small_group = others < usize::from(self.others_needed());
        if small_group { others } else { usize::from(self.copies).min(others) }
    }
}

/// How one mail is kept. Fixed in its msglist entry; a policy change makes a new one for the same h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// Whole copies.
    Whole,
    /// Fragments, any `k` of `n`.
    Fragments {
        /// Fragments that a reader needs.
        k: u8,
        /// Fragments in all.
        n: u8,
    },
}

impl Encoding {
    /// Distinct parts that a reader needs.
    pub fn needed(&self) -> usize {
        match self {
            Encoding::Whole => 1,
            Encoding::Fragments { k, .. } => usize::from(*k),
        }
    }
}

/// What one member holds of a mail: all of it, or fragment (k, i).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The whole sealed mail.
    Whole,
    /// Fragment `i` of those of which any `k` rebuild the mail. Independent of n: the code's rows do not depend on it.
    Fragment {
        /// Fragments that a reader needs.
        k: u8,
        /// Which one, from 0. Below k it is a piece of the mail itself.
        i: u8,
    },
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Whole => f.write_str("whole"),
            Part::Fragment { k, i } => write!(f, "fragment {i} (any {k})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_is_possible() {
        assert_eq!(Policy::default().check().unwrap().fragments, KOfN { k: 3, n: 5 });
    }

    #[test]
    fn impossible_policies_are_refused() {
        let with = |k, n| Policy { fragments: KOfN { k, n }, copies: 100, ..Policy::default() }.check();
        assert!(with(0, 5).is_err() && with(6, 5).is_err() && with(3, 101).is_err() && with(1, 1).is_ok());
        assert!(Policy { copies: 2, ..Policy::default() }.check().is_err());
        assert!(Policy { life: Span::days(31), ..Policy::default() }.check().is_err());
    }

    #[test]
    fn a_group_too_small_for_its_policy_keeps_every_mail_whole_everywhere() {
        let p = Policy::default();
        assert_eq!(p.encoding_for(1 << 20, 4), Encoding::Whole);
        assert_eq!(p.whole_copies(4), 4);
        assert_eq!(p.encoding_for(1 << 20, 5), Encoding::Fragments { k: 3, n: 5 });
        assert_eq!(p.encoding_for(100, 5), Encoding::Whole);
        let one = Policy { fragments: KOfN { k: 1, n: 3 }, ..p.clone() }.check().unwrap();
        assert_eq!((one.encoding_for(1 << 20, 5), one.whole_copies(5)), (Encoding::Whole, 3), "one of n is a copy");
        assert_eq!(p.whole_copies(5), 3);
    }
}
