//! How this peer stands to its group, and what became of the group's key, a sentence each. It decides nothing.

use super::conflicts::LATELY;
use crate::core::group::{Overtaken, Role, Rotation, Status};
use crate::model::WallTime;

/// What a role is called.
pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Founder => "founder",
        Role::Member => "member",
        Role::Alone => "alone",
        Role::Left => "left",
        Role::Removed => "removed",
    }
}

/// What needs attention.
pub(super) fn of(group: &Status, now: WallTime) -> Vec<String> {
    let mut sentences = Vec::new();
    let name = group.address.group();
    let how = match group.role {
        Role::Removed => Some("was removed from"),
        Role::Left => Some("has left"),
        Role::Founder | Role::Member | Role::Alone => None,
    };
    if let Some(how) = how {
        sentences.push(format!(
            "this peer {how} the group {name}: its mailboxes stay, it sends nothing; `roost group join` with a new invite brings it back"
        ));
    }
    if group.key_holder && !group.key_here {
        let others = group.members.iter().filter(|m| m.key_holder && m.peer_id != group.peer_id);
        let others: Vec<String> = others.map(|m| m.address.to_string()).collect();
        let others = if others.is_empty() { "nobody else".to_owned() } else { others.join(", ") };
        sentences.push(format!("this peer is to hold the group key, and it has not come yet; it is asked of {others}"));
    }
    for member in group.members.iter().filter(|m| m.leaving) {
        sentences.push(format!("{} is leaving: others take over what it holds", member.address));
    }
    sentences.extend(group.rotations.iter().filter(|rotation| rotation.at + LATELY > now).map(replaced));
    sentences.extend(group.overtaken.iter().map(overtaken));
    sentences
}

fn replaced(rotation: &Rotation) -> String {
    let Rotation { group, from, to, gd_version, .. } = rotation;
    format!("the key of group {group} is {to} since version {gd_version}; the one before, {from}, signed it")
}

fn overtaken(overtaken: &Overtaken) -> String {
    let Overtaken { version, what, why } = overtaken;
    format!(
        "{what} (version {version}) was overtaken by another holder of the group key and could not be made again: {why}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fingerprint;

    #[test]
    fn r11_a_replaced_group_key_is_told_with_both_keys() {
        let (from, to) = (Fingerprint::new([1; 20]), Fingerprint::new([2; 20]));
        let told = replaced(&Rotation { group: "acme".parse().unwrap(), from, to, gd_version: 9, at: WallTime(0) });
        assert!(told.contains(&from.to_string()) && told.contains(&to.to_string()) && told.contains("version 9"));
        let lost = Overtaken { version: 8, what: "the admission of dave@acme".to_owned(), why: "full".to_owned() };
        assert!(overtaken(&lost).contains("the admission of dave@acme (version 8) was overtaken"));
    }
}
