//! How commands answer: with `--json` one object on one line, the last of standard output; else text for people. It decides
//! nothing, and no byte of a mail reaches a terminal as a control sequence through it.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;
use serde_json::{Map, Value};

/// The command was used wrongly in a way that the command line's grammar cannot see: exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(super) struct WrongUse {
    /// What is wrong, and what to type instead.
    pub(super) why: String,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shown {
    object: Map<String, Value>,
    text: String,
    done: bool,
}

impl Shown {
    /// `value`, which must serialise as an object, and the same for people.
    pub(super) fn of<T: Serialize>(value: &T, text: impl Into<String>) -> anyhow::Result<Self> {
        match serde_json::to_value(value)? {
            Value::Object(object) => Ok(Self { object, text: text.into(), done: true }),
            other => anyhow::bail!("the answer is no JSON object: {other}"),
        }
    }

    /// A list, as the member `name` of the object, and the same for people.
    pub(super) fn list<T: Serialize>(name: &str, list: &[T], text: impl Into<String>) -> anyhow::Result<Self> {
        Self::of(&Map::from_iter([(name.to_owned(), serde_json::to_value(list)?)]), text)
    }

    /// The same, but the command failed: `ok` is false, and the exit code 1.
    pub(super) fn failed(self) -> Self {
        Self { done: false, ..self }
    }

    /// Prints it; gives the exit code.
    pub(super) fn print(self, json: bool) -> u8 {
        let Self { mut object, text, done } = self;
        if json {
            object.insert("ok".to_owned(), Value::Bool(done));
            print_line(&Value::Object(object).to_string());
        } else if !text.is_empty() {
            print_line(text.trim_end_matches('\n'));
        }
        u8::from(!done)
    }
}

/// Prints why a command failed; gives the exit code.
pub(super) fn print_error(error: &anyhow::Error, json: bool) -> u8 {
    let why = format!("{error:#}");
    note(&format!("roost: {why}"));
    if json {
        print_line(&serde_json::json!({ "ok": false, "error": why }).to_string());
    }
    if error.is::<WrongUse>() { 2 } else { 1 }
}

/// A line on standard output. Whoever closed it wants no more of it.
fn print_line(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A line on standard error, for people.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person sees what is printed on standard output.
pub(super) fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Text from a mail as a terminal may see it: without control characters, so that it can neither move the cursor nor
/// change colours or the title.
pub(super) fn plain(text: &str) -> String {
    let hidden = |c: char| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c);
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// Text from a mail on one line.
pub(super) fn one_line(text: &str) -> String {
    plain(text).replace(['\n', '\t'], " ")
}

/// Columns, as wide as they need to be; the last one is not padded.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(&mut head.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    out
}

/// Bytes as people read them: `8.0 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, per)| bytes >= *per) {
        Some((unit, per)) => format!("{}.{} {unit}", bytes / per, bytes % per * 10 / per),
        None => format!("{bytes} B"),
    }
}

/// A moment's day, in UTC: `2026-11-21`.
pub(super) fn day(at: crate::model::WallTime) -> String {
    let at = mail_parser::DateTime::from_timestamp(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
    format!("{:04}-{:02}-{:02}", at.year, at.month, at.day)
}

/// Seconds as people read them: `0.42 s`, `3 min`.
pub(super) fn seconds(span: std::time::Duration) -> String {
    match span.as_secs() {
        0..=9 => format!("{:.2} s", span.as_secs_f64()),
        10..=119 => format!("{} s", span.as_secs()),
        120..=7199 => format!("{} min", span.as_secs() / 60),
        more => format!("{} h", more / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mail_brings_cannot_drive_a_terminal() {
        assert_eq!(plain("a\x1b[31mb\r\n\tc\u{202e}d"), "a\u{fffd}[31mb\u{fffd}\n\tc\u{fffd}d");
        assert_eq!(one_line("a\n\tb"), "a  b");
    }

    #[test]
    fn tables_are_aligned_and_have_no_trailing_space() {
        let rows = [vec!["1".to_owned(), "alice".to_owned()], vec!["100".to_owned(), String::new()]];
        assert_eq!(table(&["UID", "FROM"], &rows), "UID  FROM\n1    alice\n100\n");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(size(8 << 20), "8.0 MiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(17), "17 B");
        assert_eq!(seconds(std::time::Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(std::time::Duration::from_secs(200)), "3 min");
    }

    #[test]
    fn a_list_is_a_member_of_the_object() {
        let shown = Shown::list("messages", &[1, 2], "").unwrap();
        assert_eq!(Value::Object(shown.object), serde_json::json!({ "messages": [1, 2] }));
        assert!(Shown::of(&3, "").is_err());
    }
}
