//! `roost verify`: proves later who wrote a kept mail. The peer checks; this shows what came of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::args::VerifyArgs;
use super::control::Control;
use super::output::Shown;
use crate::console::protocol::{Request, Verified};

/// Checks the mail that was named.
pub(super) fn run(home: &Path, args: &VerifyArgs) -> anyhow::Result<Shown> {
    let uid: Option<u32> = args.what.parse().ok();
    let file = match uid {
        Some(_) => None,
        None => {
            Some(fs::canonicalize(&args.what).with_context(|| format!("{} is neither a UID nor a file", args.what))?)
        }
    };
    let export = args.export.as_ref().map(|folder| absolute(folder)).transpose()?;
    let request = Request::Verify { mailbox: args.mailbox.clone(), uid, file, export };
    let verified: Verified = Control::of(home).ask(&request)?;
    let shown = Shown::of(&verified, text(&verified))?;
    Ok(if verified.proof.same && verified.named_by_group != Some(false) { shown } else { shown.failed() })
}

fn absolute(folder: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(folder)?)
}

fn text(verified: &Verified) -> String {
    let proof = &verified.proof;
    let who = proof.from.as_ref().map_or_else(|| "somebody without an address".to_owned(), ToString::to_string);
    let at = i64::try_from(proof.signed_at.as_secs()).unwrap_or(i64::MAX);
    let at = mail_parser::DateTime::from_timestamp(at).to_rfc822();
    let mut out = format!("signed by  {who}\nkey        {}\nwhen       {at}\n", proof.fingerprint);
    if let Some(group) = &verified.group_key {
        out.push_str(&format!("group key  {group}\n"));
    }
    out.push_str(match verified.named_by_group {
        Some(true) => "the sender's group names this key\n",
        Some(false) => "the sender's group names another key today: ask on another way whether it was changed\n",
        None => "the sender's group is not pinned here, so only the key is proven\n",
    });
    out.push_str(if proof.same {
        "the mail is, to the byte, what was signed\n"
    } else {
        "the mail is NOT what was signed: it was changed after it came\n"
    });
    for file in &proof.exported {
        out.push_str(&format!("written    {}\n", file.display()));
    }
    out
}
