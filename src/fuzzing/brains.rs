//! The target for the journal: files of any bytes, and events of any kind given to the brains that replay them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::records::owner;
use super::sealed::READER;
use crate::core::Brain;
use crate::core::group::{Group, Me};
use crate::core::outbox::{Notify, Outbox};
use crate::core::postbox::{Postbox, Settings};
use crate::core::replicator::{self, Replicator};
use crate::model::group::{Member, Roster};
use crate::model::{ByteSize, Now, Policy};
use crate::store::journal::{Record, fuzzed};
use crate::wire::laws::door;
use crate::wire::{decode, encode};

/// Journals: a file as it comes, records that are written, damaged and read, and events of each brain.
pub fn journal(data: &[u8]) {
    let Some((which, rest)) = door(data, 3) else { return };
    match which {
        0 => drop(whole_records(rest)),
        1 => damaged(rest),
        _ => replayed(rest),
    }
}

/// The records of a file, if it is a journal. What is cut off its end leaves a journal with the same records.
fn whole_records(bytes: &[u8]) -> Option<Vec<Record>> {
    let (good, records) = fuzzed::read(bytes)?;
    let whole = &bytes[..usize::try_from(good).unwrap()];
    let again = fuzzed::read(whole).unwrap();
    assert!(again == (good, records.clone()), "what is whole reads otherwise without its torn tail");
    Some(records)
}

/// Records, each a brain's and behind its length; two bytes say which byte of the file is damaged and how.
fn damaged(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<3>() else { return };
    let records = records(rest);
    let written = fuzzed::written(&records, usize::from(head[0] % 4) + 1);
    assert!(whole_records(&written).as_ref() == Some(&records), "a journal is not read as it was written");
    let at = usize::from(u16::from_le_bytes([head[1], head[2]])) % (written.len() + 1);
    let cut = whole_records(&written[..at]);
    assert!(cut.is_none_or(|found| records.starts_with(&found)), "a journal cut at {at} is no beginning of itself");
    let mut flipped = written;
    if let Some(byte) = flipped.get_mut(at) {
        *byte ^= head[0] | 1;
    }
    // A bit that flipped is found, or it lies in what is cut off; a record that was never written is never read.
    let found = whole_records(&flipped);
    assert!(found.is_none_or(|found| records.starts_with(&found)), "a damaged journal is no beginning of itself");
}

const BRAINS: [&str; 4] = [Outbox::NAME, Postbox::NAME, Replicator::NAME, Group::NAME];

/// A byte for the brain, two for the length, the event.
fn records(mut rest: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([head[1], head[2]])).min(after.len());
        let (event, after) = after.split_at(length);
        records.push(Record::new(BRAINS[usize::from(head[0] % 4)], event.to_vec()));
        rest = after;
    }
    records
}

/// Gives a brain what of the events decodes, and lets it show and hand out its state.
fn replay_into<B: Brain>(mut brain: B, mut again: B, records: &[Record]) {
    for record in records.iter().filter(|record| record.brain == B::NAME) {
        if let Ok(event) = decode::<B::Event>(&record.event) {
            let encoded = encode(&event);
            assert!(decode::<B::Event>(&encoded).is_ok_and(|event| encode(&event) == encoded), "an event is not kept");
            brain.replay(event);
        }
    }
    brain.observe(Now::default());
    brain.live_bytes();
    // What a compaction writes is read by the next start.
    for event in brain.snapshot() {
        again.replay(decode(&encode(&event)).unwrap());
    }
}

fn replayed(data: &[u8]) {
    let records = records(data);
    let address: crate::model::Address = "rita@readers".parse().unwrap();
    let member = Member { address: address.clone(), peer_id: owner().peer_id(), fingerprint: READER.fingerprint() };
    let roster = Arc::new(Roster {
        me: member.clone(),
        group: address.group().clone(),
        gd_version: 1,
        policy: Policy::default(),
        members: vec![member.clone()],
        lost: BTreeSet::new(),
        leaving: BTreeSet::new(),
        silent: BTreeSet::new(),
    });
    let outbox = || Outbox::new(Arc::new(owner()), Arc::clone(&roster), Notify::default());
    replay_into(outbox(), outbox(), &records);
    let postbox = || Postbox::new(Settings::new(address.clone()));
    replay_into(postbox(), postbox(), &records);
    let replicator = || Replicator::new(replicator::Config { quota: ByteSize::gib(1), seed: 1 });
    replay_into(replicator(), replicator(), &records);
    let certificate = Arc::new(READER.certificate().as_bytes().to_vec());
    let group = || {
        let (member, certificate) = (member.clone(), Arc::clone(&certificate));
        Group::new(Me { member, certificate, addrs: Vec::new(), key: Arc::new(owner()) })
    };
    replay_into(group(), group(), &records);
}
