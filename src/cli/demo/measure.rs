//! What a mail costs on disk, counted file by file in the homes. It never opens one.

use std::fs;
use std::path::Path;

use crate::model::MailId;

/// Bytes of all files of the mail h in `folder` and below.
pub(super) fn bytes_of(folder: &Path, h: &MailId) -> u64 {
    let name = h.to_string();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_of(&entry.path(), h),
        Ok(_) if entry.file_name().to_string_lossy().starts_with(&name) => {
            entry.metadata().map_or(0, |meta| meta.len())
        }
        _ => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_that_mail_count() {
        let dir = tempfile::tempdir().unwrap();
        let h = MailId::new([0xab; 20]);
        let shard = dir.path().join("bob@acme/ab");
        fs::create_dir_all(&shard).unwrap();
        for (name, size) in [(h.to_string(), 5), (format!("{h}.3.1"), 7), (format!("{h}.manifest"), 2), ("x".into(), 9)]
        {
            fs::write(shard.join(name), vec![0; size]).unwrap();
        }
        assert_eq!(bytes_of(dir.path(), &h), 14);
        assert_eq!(bytes_of(&dir.path().join("none"), &h), 0);
    }
}
