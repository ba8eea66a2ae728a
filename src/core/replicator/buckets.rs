//! Digests of what a member holds for an owner, in 256 buckets, so that both can compare it in one small message. It never
//! tells what differs inside a bucket.

use crate::model::{MailId, Part};

/// Buckets: one for each first byte of h.
pub const BUCKETS: usize = 256;
/// Bytes of a bucket's digest: a mistake in 2^64, and then only until the next word on any part of that bucket.
pub const BUCKET_BYTES: usize = 8;

/// The digests, bucket after bucket, of a set of parts in any order. An empty bucket is all zeros.
pub fn bucket_digests(held: impl IntoIterator<Item = (MailId, Part)>) -> Vec<u8> {
    let mut digests = vec![0; BUCKETS * BUCKET_BYTES];
    for (h, part) in held {
        let mut hasher = blake3::Hasher::new_derive_key("roost 1 holdings bucket");
        hasher.update(h.as_bytes());
        hasher.update(&match part {
            Part::Whole => [0, 0, 0],
            Part::Fragment { k, i } => [1, k, i],
        });
        let start = usize::from(h.as_bytes()[0]) * BUCKET_BYTES;
        let bucket = &mut digests[start..start + BUCKET_BYTES];
        for (byte, new) in bucket.iter_mut().zip(hasher.finalize().as_bytes()) {
            *byte ^= new;
        }
    }
    digests
}

/// The buckets in which two sets of digests differ; all of them when one is no such set.
pub fn differing(mine: &[u8], theirs: &[u8]) -> Vec<u8> {
    let fits = mine.len() == BUCKETS * BUCKET_BYTES && theirs.len() == mine.len();
    let differs = |b: &u8| {
        let start = usize::from(*b) * BUCKET_BYTES;
        !fits || mine[start..start + BUCKET_BYTES] != theirs[start..start + BUCKET_BYTES]
    };
    (0..=u8::MAX).filter(differs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bucket_of_what_differs_differs() {
        let (a, b) = ((MailId::new([7; 20]), Part::Whole), (MailId::new([9; 20]), Part::Fragment { k: 3, i: 1 }));
        let both = bucket_digests([a, b]);
        assert_eq!(differing(&both, &bucket_digests([b, a])), Vec::<u8>::new());
        assert_eq!(differing(&both, &bucket_digests([a])), vec![9]);
        assert_eq!(differing(&both, &bucket_digests([a, (b.0, Part::Fragment { k: 3, i: 2 })])), vec![9]);
        assert_eq!(differing(&both, &[]).len(), 256);
    }
}
