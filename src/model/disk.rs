//! What the operating system means when it has no room, and what helps then. It never does IO.

use std::io::{Error, ErrorKind};

/// Whether `error` means that there is no room: ENOSPC, EDQUOT or EFBIG.
pub fn is_disk_full(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// What a person is to do after a read or a write failed, in words.
pub fn what_helps(error: &Error) -> &'static str {
    if is_disk_full(error) { "the disk is full: free some space" } else { "check the disk" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_want_of_room_is_helped_by_room() {
        for full in [28, 122, 27] {
            assert!(what_helps(&Error::from_raw_os_error(full)).contains("free some space"), "{full}");
        }
        assert_eq!(what_helps(&Error::from_raw_os_error(5)), "check the disk");
    }
}
