//! The mails of one run, as files that are ready to be submitted, and what tells whether a mail that was read is one of them, to
//! the byte. It makes them before the clock runs and submits nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::args::Kind;
use super::made::{Language, Made};
use crate::cli::demo::letter;
use crate::mime::header;
use crate::model::Address;

/// Header fields that submission puts on top of a mail without them.
const ADDED: [&str; 2] = ["Date", "Message-ID"];

/// What mails there are to be.
pub(in crate::cli::bench) enum Source<'a> {
    /// Made ones, with an attachment of this kind and length.
    Made {
        /// What it is made of.
        kind: Kind,
        /// Its length.
        size: u64,
    },
    /// Those of a folder.
    Folder(&'a Path),
}

/// The mails of one run.
#[derive(Debug, Default)]
pub(in crate::cli::bench) struct Mails {
    /// As they are submitted, in order.
    pub(in crate::cli::bench) files: Vec<PathBuf>,
    /// Bytes of all.
    pub(in crate::cli::bench) bytes: u64,
    /// What is still to be read.
    pub(in crate::cli::bench) due: Due,
}

impl Mails {
    /// Writes at most `n` mails from `from` to `to` into `folder`, which is made.
    ///
    /// # Errors
    /// When there are none, or files cannot be read or written.
    pub(in crate::cli::bench) fn prepare(
        source: &Source<'_>,
        n: u32,
        people: (&Address, &Address),
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let (from, to) = people;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let mut mails = Self::default();
        match source {
            Source::Made { kind, size } => {
                let language = Language::new();
                for number in 0..n {
                    let mail = Made { kind: *kind, size: *size, number, from, to }.write(&language);
                    mails.add(folder, &mail)?;
                }
            }
            Source::Folder(own) => {
                for path in eml_files(own, n)? {
                    mails.add(folder, &letter::own(&path, from, to)?)?;
                }
            }
        }
        Ok(mails)
    }

    fn add(&mut self, folder: &Path, mail: &[u8]) -> anyhow::Result<()> {
        let path = folder.join(format!("{:06}.eml", self.files.len()));
        fs::write(&path, mail).with_context(|| path.display().to_string())?;
        self.files.push(path);
        self.bytes = self.bytes.saturating_add(u64::try_from(mail.len())?);
        self.due.add(mail);
        Ok(())
    }
}

/// The first `n` mails of a folder by their names.
fn eml_files(folder: &Path, n: u32) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("eml")));
    paths.sort();
    paths.truncate(usize::try_from(n)?);
    if paths.is_empty() {
        bail!("{} has no mails: files whose names end in .eml", folder.display());
    }
    Ok(paths)
}

/// Mails that were submitted and not read yet, by what they are to the byte.
#[derive(Debug, Default, Clone)]
pub(in crate::cli::bench) struct Due {
    left: BTreeMap<[u8; 32], u32>,
}

impl Due {
    fn add(&mut self, mail: &[u8]) {
        *self.left.entry(digest(mail)).or_default() += 1;
    }

    /// Takes a mail that was read off; gives whether it was one of them. Submission may have put a Date and a Message-ID on top,
    /// where the mail had none.
    pub(in crate::cli::bench) fn take(&mut self, got: &[u8]) -> bool {
        let mut rest = got;
        for _ in 0..=ADDED.len() {
            if self.take_exact(rest) {
                return true;
            }
            let Some(first) = header::fields(rest).next() else { return false };
            let added = ADDED.iter().any(|name| first.is(name) && header::count(rest, name) == 1);
            let Some(below) = rest.strip_prefix(first.raw).filter(|_| added) else { return false };
            rest = below;
        }
        false
    }

    fn take_exact(&mut self, mail: &[u8]) -> bool {
        match self.left.get_mut(&digest(mail)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }
}

fn digest(mail: &[u8]) -> [u8; 32] {
    *blake3::hash(mail).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_counts_once_and_to_the_byte() {
        let mut due = Due::default();
        due.add(b"From: a@b\r\n\r\nbody\r\n");
        assert!(!due.take(b"From: a@b\r\n\r\nbodY\r\n") && !due.take(b"X: y\r\nFrom: a@b\r\n\r\nbody\r\n"));
        assert!(due.take(b"From: a@b\r\n\r\nbody\r\n"));
        assert!(!due.take(b"From: a@b\r\n\r\nbody\r\n"));
    }

    #[test]
    fn what_submission_had_to_add_is_no_difference() {
        let mut due = Due::default();
        due.add(b"From: a@b\r\n\r\nbody\r\n");
        due.add(b"Date: x\r\nFrom: a@b\r\n\r\nbody\r\n");
        assert!(due.take(b"Message-ID: <1@b>\r\nDate: y\r\nFrom: a@b\r\n\r\nbody\r\n"));
        assert!(!due.take(b"Date: y\r\nDate: x\r\nFrom: a@b\r\n\r\nbody\r\n"));
        assert!(due.take(b"Message-ID: <1@b>\r\nDate: x\r\nFrom: a@b\r\n\r\nbody\r\n"));
    }

    #[test]
    fn of_a_folder_the_first_mails_are_taken_and_only_their_people_change() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in
            [("b.eml", "From: x@y\nTo: z@y\nX: 1\n\nb\n"), ("a.eml", "From: x@y\n\na\n"), ("c.txt", "c")]
        {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let (from, to) = ("sam@acme".parse().unwrap(), "rita@readers".parse().unwrap());
        let prepare =
            |n| Mails::prepare(&Source::Folder(dir.path()), n, (&from, &to), &dir.path().join("out")).unwrap();
        assert_eq!(prepare(1).files.len(), 1);
        let mails = prepare(10);
        let second = fs::read_to_string(&mails.files[1]).unwrap();
        assert_eq!(second, "From: sam@acme\r\nTo: rita@readers\r\nX: 1\r\n\r\nb\r\n");
        assert!(mails.files.len() == 2 && mails.due.clone().take(second.as_bytes()));
        let empty = Mails::prepare(&Source::Folder(&dir.path().join("none")), 1, (&from, &to), &dir.path().join("o"));
        assert!(empty.unwrap_err().to_string().contains("cannot be read"));
    }
}
