//! What contradicts itself among the peers that are known, and keys that changed, a sentence each. It decides nothing.

use std::time::Duration;

use crate::core::group::{Conflict, KeyChange, Status};
use crate::core::replicator;
use crate::model::WallTime;

/// A key change needs attention for this long.
pub(super) const LATELY: Duration = Duration::from_secs(7 * 86_400);

/// Candidates for groups that contradict what is pinned.
pub(super) fn of_groups(group: &Status) -> Vec<String> {
    group.conflicts.iter().flat_map(sentences).collect()
}

/// Groups that mail waits for and whose key the user has to choose.
pub(super) fn of_candidates(status: &Status) -> Vec<String> {
    let sentence = |(group, keys): (
        &crate::model::GroupName,
        &std::collections::BTreeSet<crate::model::Fingerprint>,
    )| {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        match keys.as_slice() {
            [] => format!(
                "mail waits for the group {group}, whose key is not pinned, and nobody who is on knows one: \
                 add a card of somebody there (`roost contacts add CARD`)"
            ),
            keys => format!(
                "mail waits for the group {group}, whose key is not pinned; candidates: {}; compare with somebody of the group, then \
                 `roost contacts add --group {group} --key FINGERPRINT`, or move that card from Requests to INBOX",
                keys.join(", ")
            ),
        }
    };
    status.candidates.iter().map(sentence).collect()
}

fn sentences(conflict: &Conflict) -> Vec<String> {
    let mut sentences = Vec::new();
    if !conflict.others.is_empty() {
        let others: Vec<String> = conflict.others.iter().map(ToString::to_string).collect();
        let (group, pinned) = (&conflict.group, conflict.pinned);
        let others = others.join(", ");
        sentences.push(format!("there are other candidates for group {group}: pinned {pinned}, seen {others}"));
    }
    if !conflict.forked_versions.is_empty() {
        let versions: Vec<String> = conflict.forked_versions.iter().map(ToString::to_string).collect();
        let group = &conflict.group;
        let versions = versions.join(", ");
        sentences.push(format!("the key of group {group} signed two different descriptors of version {versions}"));
    }
    sentences
}

/// Members' keys that changed not long ago.
pub(super) fn of_keys(group: &Status, now: WallTime) -> Vec<String> {
    group.key_changes.iter().filter(|change| change.at + LATELY > now).map(changed).collect()
}

fn changed(change: &KeyChange) -> String {
    let KeyChange { address, gd_version, from, to, .. } = change;
    format!("{address} has another key since version {gd_version} of its group: {} instead of {}", to.1, from.1)
}

/// Members that signed msglists that contradict each other, and did not go on in a new epoch since.
pub(super) fn of_lists(replicator: &replicator::Status) -> Vec<String> {
    let forked = replicator.owners.iter().filter(|owner| !owner.forked_at.is_empty());
    forked
        .map(|owner| {
            let at = owner.forked_at.join(", ");
            format!(
                "{} signed two msglists that contradict each other at {at}; nothing is deleted for it",
                owner.address
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fingerprint, PeerId};

    #[test]
    fn r11_candidates_forks_and_changed_keys_are_told_with_both_keys() {
        let (pinned, other) = (Fingerprint::new([1; 20]), Fingerprint::new([2; 20]));
        let conflict =
            Conflict { group: "acme".parse().unwrap(), pinned, others: [other].into(), forked_versions: [6].into() };
        let told = sentences(&conflict);
        assert!(told[0].contains(&pinned.to_string()) && told[0].contains(&other.to_string()), "{told:?}");
        assert!(told[1].contains("version 6"), "{told:?}");
        let (from, to) = ((PeerId::new([1; 32]), pinned), (PeerId::new([2; 32]), other));
        let change = KeyChange { address: "bob@acme".parse().unwrap(), gd_version: 7, at: WallTime(0), from, to };
        let told = changed(&change);
        assert!(told.contains("bob@acme") && told.contains(&other.to_string()), "{told}");
    }
}
