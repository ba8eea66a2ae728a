//! `roost group`: found, invite, join, policy, grant, remove, leave, recover, status. The peer decides; this asks it and shows the
//! answer.

use std::path::Path;

use serde_json::json;

use super::args::{GroupCommand, PolicyArgs};
use super::control::Control;
use super::output::{self, Shown};
use super::{join, qr};
use crate::console::protocol::{Founded, GroupChanged, GroupStatus, Line, MemberStatus, Request};
use crate::model::policy::KOfN;
use crate::model::{GroupName, LocalName, Mode, Policy, Span};

/// Does what was asked of the group of the peer on `home`.
pub(super) fn run(home: &Path, command: &GroupCommand) -> anyhow::Result<Shown> {
    let control = Control::of(home);
    match command {
        GroupCommand::Create { name, policy } => create(&control, name, policy),
        GroupCommand::Invite { name, valid } => invite(&control, name, *valid),
        GroupCommand::Join { code } => join::run(home, code),
        GroupCommand::Policy(set) => policy(&control, set),
        GroupCommand::Grant { address } => changed(&control, &Request::GroupGrant { address: address.clone() }),
        GroupCommand::Remove { address } => changed(&control, &Request::GroupRemove { address: address.clone() }),
        GroupCommand::Leave { now, stay } => changed(&control, &Request::GroupLeave { now: *now, stay: *stay }),
        GroupCommand::Recover { code } => changed(&control, &Request::GroupRecover { code: code.clone() }),
        GroupCommand::RecoveryCode => {
            let line: Line = control.ask(&Request::GroupRecoveryCode)?;
            Shown::of(&json!({ "recovery_code": line.line }), line.line)
        }
        GroupCommand::Status => {
            let group: GroupStatus = control.ask(&Request::GroupStatus)?;
            Shown::of(&group, text(&group))
        }
    }
}

fn create(control: &Control, name: &GroupName, set: &PolicyArgs) -> anyhow::Result<Shown> {
    let policy = set.over(Policy::default()).check()?;
    let founded: Founded = control.ask(&Request::GroupCreate { group: name.clone(), policy })?;
    let mut text = text(&founded.group);
    text.push_str(&format!(
        "\nRecovery code (shown once; whoever has it can act for the group; write it down and keep it off this machine):\n\n  {}\n\n\
         Next: `roost group invite --as NAME` for each member.\n",
        founded.recovery_code
    ));
    Shown::of(&founded, text)
}

fn invite(control: &Control, name: &LocalName, valid: Span) -> anyhow::Result<Shown> {
    let line: Line = control.ask(&Request::GroupInvite { name: name.clone(), valid: Some(valid) })?;
    output::note(&format!("For {name}, good once and for {valid}. On the new machine: roost group join CODE"));
    Shown::of(&json!({ "invite": line.line, "name": name }), qr::with_code(&line.line))
}

fn changed(control: &Control, request: &Request) -> anyhow::Result<Shown> {
    let changed: GroupChanged = control.ask(request)?;
    Shown::of(&changed, changed_text(&changed))
}

fn changed_text(changed: &GroupChanged) -> String {
    let mut out = text(&changed.group);
    for note in &changed.notes {
        out.push_str(&format!("\n{note}\n"));
    }
    if let Some(code) = &changed.recovery_code {
        out.push_str(&format!(
            "\nNew recovery code (whoever has it can act for the group; write it down and keep it off this machine):\n\n  {code}\n"
        ));
    }
    out
}

fn policy(control: &Control, set: &PolicyArgs) -> anyhow::Result<Shown> {
    let now: GroupStatus = control.ask(&Request::GroupStatus)?;
    if set.is_empty() {
        return Shown::of(&json!({ "policy": now.policy }), policy_text(&now.policy));
    }
    let policy = set.over(now.policy.clone()).check()?;
    let is_alike = is_kept_alike(&now.policy, &policy);
    let group: GroupStatus = control.ask(&Request::GroupPolicy { policy })?;
    let waits = if is_alike { String::new() } else { waits_text(&group) };
    Shown::of(&group, text(&group) + &waits)
}

/// Whether mail is kept alike under both: then nothing moves.
fn is_kept_alike(one: &Policy, other: &Policy) -> bool {
    let kept = |p: &Policy| (p.mode, p.copies, p.fragments, p.whole_below);
    kept(one) == kept(other)
}

/// For whom a change of the policy waits: members that are away, and not lost, are to hold their parts first.
fn waits_text(group: &GroupStatus) -> String {
    let away: Vec<String> = group.members.iter().filter(|m| !m.up && !m.lost).map(|m| m.address.to_string()).collect();
    if away.is_empty() {
        return String::new();
    }
    format!(
        "\nMail that waits already moves to this policy as members confirm their parts of it. It waits for {}: until they are \
         back, or replaced as lost, what was held stays held too (`roost status` shows it).\n",
        away.join(", ")
    )
}

/// What one look at a policy tells.
pub(super) fn policy_text(policy: &Policy) -> String {
    let KOfN { k, n } = policy.fragments;
    let kept = match policy.mode {
        Mode::Full => format!("full: {} whole copies, the owner not counted", policy.copies),
        Mode::Fragments => format!(
            "fragments: any {k} of {n} rebuild a mail, the owner not counted; mails below {} as {} whole copies",
            policy.whole_below, policy.copies
        ),
    };
    format!("{kept}\nlost after {}, mails up to {}, kept {}\n", policy.lost_after, policy.max_mail, policy.life)
}

/// A group for people.
pub(super) fn text(group: &GroupStatus) -> String {
    let mut out = format!("group {}, version {}\n", group.group, group.version);
    if let Some(key) = &group.key {
        out.push_str(&format!("key {key}\n"));
    }
    out.push_str(&policy_text(&group.policy));
    if let Some(master) = &group.acting_master {
        out.push_str(&format!("acting master {master}\n"));
    }
    if let Some(why) = &group.degraded {
        out.push_str(&format!("degraded: {why}\n"));
    }
    for conflict in &group.conflicts {
        out.push_str(&format!("conflict: {conflict}\n"));
    }
    let rows: Vec<Vec<String>> = group.members.iter().map(|m| vec![m.address.to_string(), state(m)]).collect();
    out.push('\n');
    out.push_str(&output::table(&["MEMBER", "STATE"], &rows));
    if !group.invited.is_empty() {
        let names: Vec<&str> = group.invited.iter().map(LocalName::as_str).collect();
        out.push_str(&format!("\ninvited, not joined yet: {}\n", names.join(", ")));
    }
    out
}

fn state(member: &MemberStatus) -> String {
    let silent = member.silent_s.filter(|s| *s > 0).map(std::time::Duration::from_secs);
    let silent = silent.map(|s| format!(", silent for {}", output::seconds(s))).unwrap_or_default();
    let state = match (member.lost, member.up) {
        (true, _) => format!("lost{silent}"),
        (false, true) => "up".to_owned(),
        (false, false) => format!("does not answer{silent}"),
    };
    let holds = if member.key_holder { ", holds the group key" } else { "" };
    let leaves = if member.leaving { ", leaving" } else { "" };
    format!("{state}{leaves}{holds}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PeerId;

    #[test]
    fn a_group_is_shown_with_who_is_missing() {
        let member = |address: &str, up, lost, silent_s| MemberStatus {
            address: address.parse().unwrap(),
            peer_id: PeerId::new([1; 32]),
            up,
            silent_s,
            lost,
            key_holder: address.starts_with("alice"),
            leaving: false,
        };
        let group = GroupStatus {
            group: "acme".parse().unwrap(),
            version: 4,
            key: Some("AB CD".to_owned()),
            policy: Policy::default(),
            acting_master: Some("alice@acme".parse().unwrap()),
            degraded: Some("3 members of 6 are needed".to_owned()),
            conflicts: vec!["there are other candidates for group acme".to_owned()],
            role: "member".to_owned(),
            members: vec![
                member("alice@acme", true, false, None),
                member("bob@acme", false, false, Some(7)),
                member("carol@acme", false, true, Some(7200)),
            ],
            invited: vec!["dave".parse().unwrap()],
        };
        let text = text(&group);
        assert!(text.contains("conflict: there are other candidates"), "{text}");
        assert!(text.contains("any 3 of 5 rebuild a mail") && text.contains("degraded: 3 members"), "{text}");
        assert!(text.contains("alice@acme  up, holds the group key\n"), "{text}");
        let waits = waits_text(&group);
        assert!(waits.contains("It waits for bob@acme: until") && !waits.contains("carol"), "{waits}");
        let changed =
            GroupChanged { group, recovery_code: Some("roost-recovery:x".to_owned()), notes: vec!["so".to_owned()] };
        let told = changed_text(&changed);
        assert!(told.contains("\nso\n") && told.contains("  roost-recovery:x\n"), "{told}");
        assert!(text.contains("bob@acme    does not answer, silent for 7.00 s\n"), "{text}");
        assert!(text.contains("carol@acme  lost, silent for 2 h\n") && text.contains("not joined yet: dave"), "{text}");
    }
}
