//! The postbox's neighbours in its tests: they know whom they are told, and remember what they were asked.

use std::collections::BTreeSet;
use std::sync::Mutex;

use futures::future::BoxFuture;

use crate::actors::postbox::Neighbours;
use crate::model::{Address, Fingerprint, GroupName, SubmissionId};

/// Only alice of acme is known, by her group's gd; what was cancelled or pinned is remembered.
#[derive(Default)]
pub(super) struct Others {
    pub(super) contacts: Mutex<BTreeSet<Address>>,
    pub(super) cancelled: Mutex<Vec<SubmissionId>>,
    pub(super) pinned: Mutex<Vec<GroupName>>,
}

impl Neighbours for Others {
    fn is_known_sender(&self, from: &Address, _: Fingerprint) -> bool {
        self.contacts.lock().unwrap().contains(from)
    }
    fn cancel(&self, submission: SubmissionId) -> BoxFuture<'static, ()> {
        self.cancelled.lock().unwrap().push(submission);
        Box::pin(async {})
    }
    fn pin(&self, _: &Address, group: &GroupName, _: Fingerprint) -> BoxFuture<'static, ()> {
        self.pinned.lock().unwrap().push(group.clone());
        Box::pin(async {})
    }
    fn freshen(&self, _: &GroupName) -> BoxFuture<'static, bool> {
        Box::pin(async { false })
    }
    fn find(&self, _: &GroupName) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
    fn pin_candidate(&self, group: &GroupName, _: Fingerprint) -> BoxFuture<'static, ()> {
        self.pinned.lock().unwrap().push(group.clone());
        Box::pin(async {})
    }
}
