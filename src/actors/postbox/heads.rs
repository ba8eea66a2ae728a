//! The heads that were written or read last, in memory: a mail that comes is shown, opened and read within a moment. It never has one
//! that was not on the disk; one whose mail was removed stays until others push it out, and nobody asks for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::Head;
use crate::core::postbox::access::MessageKey;

/// Heads that are kept.
const HEADS_MAX: usize = 256;
/// Largest header block of a head that is kept, bytes; larger ones are read again each time.
const HEAD_KEPT_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Kept {
    by_key: BTreeMap<MessageKey, Arc<Head>>,
    order: VecDeque<MessageKey>,
}

/// Where they are kept. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(Arc<Mutex<Kept>>);

impl Heads {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What is in there is on the disk, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One, if it is here.
    pub(super) fn get(&self, key: MessageKey) -> Option<Arc<Head>> {
        self.kept().by_key.get(&key).cloned()
    }

    /// Remembers one that is on the disk, in the place of the oldest.
    pub(super) fn keep(&self, key: MessageKey, head: &Arc<Head>) {
        if head.header_block.len() > HEAD_KEPT_MAX {
            return;
        }
        let mut kept = self.kept();
        if kept.by_key.insert(key, head.clone()).is_none() {
            kept.order.push_back(key);
        }
        while kept.order.len() > HEADS_MAX {
            if let Some(oldest) = kept.order.pop_front() {
                kept.by_key.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mime::split::split;

    #[test]
    fn the_newest_are_kept_and_long_ones_are_not() {
        let heads = Heads::default();
        let head = |text: &str| Arc::new(Head::from(split(text.as_bytes())));
        for key in 0..300 {
            heads.keep(MessageKey(key), &head("Subject: x\r\n\r\n"));
            heads.keep(MessageKey(key), &head("Subject: y\r\n\r\n"));
        }
        let kept: Vec<u64> = (0..300).filter(|key| heads.get(MessageKey(*key)).is_some()).collect();
        assert_eq!(kept, (44..300).collect::<Vec<_>>());
        assert_eq!(heads.get(MessageKey(299)).unwrap().header_block, b"Subject: y\r\n\r\n");
        let long = Head { header_block: vec![b'x'; HEAD_KEPT_MAX + 1], structure: head("").structure.clone() };
        heads.keep(MessageKey(300), &Arc::new(long));
        assert!(heads.get(MessageKey(300)).is_none());
    }
}
