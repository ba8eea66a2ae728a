//! The sealed ns of mails that were sealed a moment ago, at hand for their first announcement. Their files are the truth; every later
//! announcement reads those.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_bytes::ByteBuf;

use crate::model::{Address, MailId};

/// Most bytes of them: 2 000 mails' with short headers. What comes beyond is read from its file.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Sealed ns by mail and receiver, and their bytes.
#[derive(Debug, Default)]
struct Kept {
    bytes: usize,
    notices: BTreeMap<(MailId, Address), ByteBuf>,
}

/// Where they are kept.
#[derive(Debug, Default)]
pub(super) struct FreshNotices(Mutex<Kept>);

impl FreshNotices {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // At worst its count is too high after a panic elsewhere, and fewer are kept.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Remembers one that is durable, if there is room.
    pub(super) fn put(&self, h: MailId, receiver: Address, sealed: ByteBuf) {
        let kept = &mut *self.kept();
        if kept.bytes + sealed.len() <= BYTES_MAX {
            kept.bytes += sealed.len();
            let before = kept.notices.insert((h, receiver), sealed);
            kept.bytes -= before.map_or(0, |before| before.len());
        }
    }
    /// Takes one, if it is there: it is announced once from memory.
    pub(super) fn take(&self, h: MailId, receiver: &Address) -> Option<ByteBuf> {
        let kept = &mut *self.kept();
        let taken = kept.notices.remove(&(h, receiver.clone()))?;
        kept.bytes -= taken.len();
        Some(taken)
    }
    /// Forgets what was not announced of a mail that is over.
    pub(super) fn forget(&self, h: MailId) {
        let Kept { bytes, notices } = &mut *self.kept();
        notices.retain(|(mail, _), sealed| {
            let stays = *mail != h;
            *bytes -= if stays { 0 } else { sealed.len() };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once_and_no_more_are_kept_than_there_is_room_for() {
        let (fresh, rita) = (FreshNotices::default(), "rita@readers".parse::<Address>().unwrap());
        let h = |x| MailId::new([x; 20]);
        fresh.put(h(1), rita.clone(), ByteBuf::from(vec![1; 10]));
        assert_eq!(fresh.take(h(1), &rita).unwrap().len(), 10);
        assert!(fresh.take(h(1), &rita).is_none());
        fresh.put(h(2), rita.clone(), ByteBuf::from(vec![2; BYTES_MAX]));
        fresh.put(h(3), rita.clone(), ByteBuf::from(vec![3; 1]));
        assert!(fresh.take(h(3), &rita).is_none(), "no room");
        fresh.forget(h(2));
        fresh.put(h(3), rita.clone(), ByteBuf::from(vec![3; 1]));
        fresh.put(h(3), rita.clone(), ByteBuf::from(vec![3; BYTES_MAX - 1]));
        assert_eq!(fresh.kept().bytes, BYTES_MAX - 1);
    }
}
