//! One member more than the policy tolerates is lost: the reader is told so, and nothing is lost for good.

use crate::harness::Team;

#[test]
fn with_one_member_too_many_killed_the_stub_stays_and_opens_after_one_is_back() {
    let team = Team::of_six();
    let letter = team.letter("alice", "rita", 2_000_000);
    let mail = team.submit("alice", &["rita"], letter);
    let sealed = team.wait_until_safe(&mail, 2);
    let mut reader = team.reader("rita");
    let uid = reader.sees(&mail);
    let size = reader.imap.fetch_items(uid, "RFC822.SIZE FLAGS").unwrap();
    assert!(size.contains(&format!("RFC822.SIZE {}", mail.letter.bytes.len())), "{size}");
    let holders: Vec<&str> = sealed.holders.keys().map(|holder| holder.name().as_str()).collect();
    team.kill(&["alice", holders[0], holders[1], holders[2]]);

    let refused = reader.imap.fetch(uid, "", &mut |_, _| {}).unwrap_err();
    assert!(refused.is_unavailable(), "{refused}");
    // The connection goes on, and the stub is what it was.
    assert_eq!(reader.uids_of(&mail), [uid]);
    assert_eq!(reader.imap.fetch_items(uid, "RFC822.SIZE FLAGS").unwrap(), size);
    let header = reader.imap.fetch(uid, "HEADER", &mut |_, _| {}).unwrap();
    assert!(mail.letter.bytes.starts_with(&header) && header.ends_with(b"\r\n\r\n"));

    team.start(&[holders[1]]);
    // The reader's peer may still back off from the one that was away: every new open asks all again.
    let got = crate::harness::wait_for("the mail opens", || match reader.imap.fetch(uid, "", &mut |_, _| {}) {
        Ok(got) => Some(got),
        Err(e) if e.is_unavailable() => None,
        Err(e) => panic!("{e}"),
    });
    assert!(got == mail.letter.bytes, "{} bytes came", got.len());
}
