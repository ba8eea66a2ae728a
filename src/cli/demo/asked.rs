//! What was asked of a demo, checked before any peer is made. It starts nothing and leaves nothing behind.

use std::path::Path;

use anyhow::Context as _;

use super::letter;
use crate::cli::args::DemoArgs;
use crate::cli::output::{self, WrongUse};
use crate::config::cluster::Cluster;
use crate::model::{Address, ByteSize, Mode, Policy};

/// Base64 in a mail: lines of 78 bytes for 57 bytes of a file each.
const BASE64: (u64, u64) = (57, 78);
/// What a letter is besides its attachment, at most, bytes.
const LETTER: u64 = 1024;

/// Checks what was asked; gives the mail of the user's own, when there is one, as it will be submitted.
pub(super) fn check(args: &DemoArgs, file: &Cluster) -> anyhow::Result<Option<Vec<u8>>> {
    let group = file.groups.first().context("the demo has no group")?;
    let sender = group.members.first().context("the demo's group is empty")?;
    let sender = Address::new(sender.clone(), group.name.clone());
    let reader = file.peers().map(|(address, _)| address).last().context("the demo has no reader")?;
    let holders = holders(&group.replication, group.members.len().saturating_sub(1));
    if let Some(count) = args.kill.filter(|count| usize::from(*count) > holders) {
        return wrong(format!("--kill {count}: at most {holders} members hold the mail"));
    }
    let max = group.replication.max_mail;
    match &args.mail {
        Some(path) => own(path, (&sender, &reader), max).map(Some),
        None if submitted(args.size) > max.bytes() => {
            wrong(format!("--size {}: as an attachment it is larger than the largest mail, {max}", args.size))
        }
        None => Ok(None),
    }
}

fn wrong<T>(why: String) -> anyhow::Result<T> {
    Err(WrongUse { why }.into())
}

/// Members that can hold a mail, out of `others` besides its sender.
fn holders(policy: &Policy, others: usize) -> usize {
    let copies = policy.whole_copies(others);
    match policy.mode {
        Mode::Full => copies,
        Mode::Fragments => usize::from(policy.fragments.n).min(others).max(copies),
    }
}

/// Length of the mail with an attachment of `size`.
fn submitted(size: ByteSize) -> u64 {
    let (of_file, of_mail) = BASE64;
    size.bytes().div_ceil(of_file).saturating_mul(of_mail).saturating_add(LETTER)
}

fn own(path: &Path, (sender, reader): (&Address, &Address), max: ByteSize) -> anyhow::Result<Vec<u8>> {
    let large = |length: u64| {
        let (shown, length) = (path.display(), output::size(length));
        wrong(format!("--mail {shown}: its {length} are more than the largest mail, {max}"))
    };
    // Looked at first, so that a huge file is not read.
    let length = std::fs::metadata(path).map_or(0, |meta| meta.len());
    if length > max.bytes() {
        return large(length);
    }
    let mail = letter::own(path, sender, reader).or_else(|e| wrong(format!("--mail: {e:#}")))?;
    let length = u64::try_from(mail.len()).unwrap_or(u64::MAX);
    if length > max.bytes() { large(length) } else { Ok(mail) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::ModeArg;

    fn file(mode: ModeArg) -> Cluster {
        let mut file = Cluster::parse("demo.toml", super::super::CLUSTER).unwrap();
        file.groups[0].replication.mode = mode.into();
        file
    }

    fn asked(size: u64) -> DemoArgs {
        DemoArgs { mode: ModeArg::Fragments, size: ByteSize(size), kill: None, mail: None, keep: false }
    }

    fn refused(args: &DemoArgs, file: &Cluster) -> String {
        let error = check(args, file).unwrap_err();
        assert!(error.is::<WrongUse>(), "{error:#}");
        error.to_string()
    }

    #[test]
    fn no_more_members_can_be_killed_than_hold_the_mail() {
        let kill = |kill| DemoArgs { kill: Some(kill), ..asked(9) };
        assert!(check(&kill(5), &file(ModeArg::Fragments)).unwrap().is_none());
        assert!(refused(&kill(6), &file(ModeArg::Fragments)).starts_with("--kill 6: at most 5 members"));
        check(&kill(3), &file(ModeArg::Full)).unwrap();
        refused(&kill(4), &file(ModeArg::Full));
    }

    #[test]
    fn an_attachment_that_makes_too_large_a_mail_is_refused() {
        let mut file = file(ModeArg::Fragments);
        file.groups[0].replication.max_mail = ByteSize::mib(1);
        assert!(refused(&asked(1 << 20), &file).contains("larger than the largest mail"));
        refused(&asked(u64::MAX), &file);
        check(&asked(700 << 10), &file).unwrap();
        // The letter that is really made is never longer than what was reckoned.
        let dir = tempfile::tempdir().unwrap();
        let (alice, rita) = ("alice@acme".parse().unwrap(), "rita@readers".parse().unwrap());
        let made = letter::made(dir.path(), &alice, &rita, ByteSize(100_000)).unwrap();
        assert!(u64::try_from(made.len()).unwrap() <= submitted(ByteSize(100_000)));
    }

    #[test]
    fn ones_own_mail_is_read_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.eml");
        let args = DemoArgs { mail: Some(path.clone()), ..asked(9) };
        let mut file = file(ModeArg::Fragments);
        assert!(refused(&args, &file).contains("own.eml cannot be read"));
        std::fs::write(&path, "Subject: x\n\nhere").unwrap();
        let mail = check(&args, &file).unwrap().unwrap();
        assert!(mail.ends_with(b"\r\n\r\nhere\r\n"));
        file.groups[0].replication.max_mail = ByteSize(10);
        assert!(refused(&args, &file).contains("own.eml"));
    }
}
