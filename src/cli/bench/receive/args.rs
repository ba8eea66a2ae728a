//! What can be typed after `roost bench receive`. It does nothing.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::bench::args::PlotArgs;

/// `roost bench receive`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  roost bench receive --plots plots\n  roost bench receive --n 200 --kind text --size 10K --connections 1,4\n  \
                  roost bench receive --group alone,3-of-5 --notify direct-first,dht --json\n  \
                  roost bench receive --eml corpus --beside conventional.jsonl --plots plots\n  \
                  roost bench receive --latency --notify direct-first,dht\n\n\
                  Real peers as processes, new ones for each row: a sender, alone in its group or with five members, and a reader in\n\
                  another group whose peer pulls at once. Mails go in by SMTP and are read over IMAP as they come; every byte is\n\
                  compared. The clock runs from the first byte submitted to the last body read."
)]
pub(in crate::cli) struct ReceiveArgs {
    /// How many mails [default: 1000; 20 with --latency]
    #[arg(long, visible_alias = "count", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(in crate::cli) n: Option<u32>,
    /// What the attachments are made of [default: text,binary]
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    pub(in crate::cli) kind: Vec<Kind>,
    /// Lengths of the attachments [default: 1K,10K,100K,1M]
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', value_parser = size)]
    pub(in crate::cli) size: Vec<u64>,
    /// Sends the mails of this folder instead (*.eml, in the order of their names, at most --n of them): From and To become the
    /// peers', Bcc goes and line ends become CRLF, as a mail program would see to; all else stays to the byte. One --kind and one --size beside it only name the row
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) eml: Option<PathBuf>,
    /// SMTP connections that submit at the same time; a row each
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [4], value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(in crate::cli) connections: Vec<u32>,
    /// Where the sender is: alone, or in a group of six that keeps mails as any 3 of 5 fragments; a row each
    #[arg(long, value_name = "GROUP,…", value_delimiter = ',', default_values = ["alone"])]
    pub(in crate::cli) group: Vec<GroupArg>,
    /// How readers are told of mail; a row each
    #[arg(long, value_name = "HOW,…", value_delimiter = ',', default_values = ["direct-first"])]
    pub(in crate::cli) notify: Vec<NotifyArg>,
    /// When the reader's mail program opens: mails as they come, which its peer has pulled, or all once every one is safe(2); a row each
    #[arg(long, value_name = "WHEN,…", value_delimiter = ',', default_values = ["at-once"])]
    pub(in crate::cli) open: Vec<OpenArg>,
    /// How often each row is measured, in turns; the table shows medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(in crate::cli) runs: u32,
    /// Measures single mails instead, on idle peers: from submission to the stub in the reader's IDLE, and to the body over IMAP
    #[arg(long)]
    pub(in crate::cli) latency: bool,
    /// Counts traffic by the sockets of the processes even where a network namespace can be made
    #[arg(long)]
    pub(in crate::cli) no_namespace: bool,
    /// A conventional system's figures for the same, a JSON object a line; they become lines in the plots and ratios in the table
    #[arg(long, value_name = "FILE.jsonl")]
    pub(in crate::cli) beside: Option<PathBuf>,
    /// Where plots go.
    #[command(flatten)]
    pub(in crate::cli) plots: PlotArgs,
}

/// What an attachment is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum Kind {
    /// Words, as people write them, quoted-printable
    Text,
    /// Bytes that do not compress, base64
    Binary,
    /// What a folder of mails holds
    #[value(skip)]
    Eml,
}

impl Kind {
    /// As it is typed.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Binary => "binary",
            Kind::Eml => "eml",
        }
    }
}

/// Where the sender is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
pub(in crate::cli) enum GroupArg {
    /// Alone: nobody mirrors its mail
    #[serde(rename = "alone")]
    Alone,
    /// With five members: any 3 of 5 fragments, small mails whole as the policy says
    #[value(name = "3-of-5")]
    #[serde(rename = "3-of-5")]
    ThreeOfFive,
}

impl GroupArg {
    /// As it is typed.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            GroupArg::Alone => "alone",
            GroupArg::ThreeOfFive => "3-of-5",
        }
    }

    /// Members besides the sender.
    pub(in crate::cli) fn others(self) -> u8 {
        match self {
            GroupArg::Alone => 0,
            GroupArg::ThreeOfFive => 5,
        }
    }
}

/// How readers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum NotifyArg {
    /// The reader's own peer, and the DHT when that is off
    DirectFirst,
    /// The DHT alone, as in the papers
    Dht,
}

impl NotifyArg {
    /// As it is typed.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            NotifyArg::DirectFirst => "direct-first",
            NotifyArg::Dht => "dht",
        }
    }
}

/// When mails are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli) enum OpenArg {
    /// As they come; the peer pulls them at once. One that is received needs no members any more
    AtOnce,
    /// Once every mail is safe(2); the peer pulls each when it is opened. With members only
    WhenSafe,
}

impl OpenArg {
    /// As it is typed.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            OpenArg::AtOnce => "at-once",
            OpenArg::WhenSafe => "when-safe",
        }
    }
}

impl ReceiveArgs {
    /// What the rows' attachments are: each kind in each size, or what the folder holds.
    pub(in crate::cli) fn attachments(&self) -> Vec<(Kind, Option<u64>)> {
        if self.eml.is_some() {
            let kind = if let [kind] = self.kind.as_slice() { *kind } else { Kind::Eml };
            let size = if let [size] = self.size.as_slice() { Some(*size) } else { None };
            return vec![(kind, size)];
        }
        if self.latency && self.kind.is_empty() && self.size.is_empty() {
            return vec![(Kind::Binary, Some(10 << 10))];
        }
        let kinds = if self.kind.is_empty() { vec![Kind::Text, Kind::Binary] } else { self.kind.clone() };
        let sizes = if self.size.is_empty() { vec![1 << 10, 10 << 10, 100 << 10, 1 << 20] } else { self.size.clone() };
        kinds.iter().flat_map(|kind| sizes.iter().map(|size| (*kind, Some(*size)))).collect()
    }
}

/// `10K`: with K or M for 1024 and its square, as the paper has it.
pub(in crate::cli) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let per: u64 = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KIB" => 1 << 10,
        "M" | "MIB" => 1 << 20,
        _ => 0,
    };
    let number: Option<u64> = text.strip_suffix(unit).and_then(|digits| digits.parse().ok());
    match number.and_then(|number| number.checked_mul(per)) {
        Some(size @ 1..=0x1000_0000) => Ok(size),
        _ => Err("write a size from 1 to 256M, for example 1K, 10K, 100K or 1M".to_owned()),
    }
}

/// A size as the paper writes it.
pub(in crate::cli) fn short(size: u64) -> String {
    match size {
        _ if size >= 1 << 20 && size.is_multiple_of(1 << 20) => format!("{}M", size >> 20),
        _ if size >= 1 << 10 && size.is_multiple_of(1 << 10) => format!("{}K", size >> 10),
        _ => size.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_in_the_paper() {
        for (text, bytes) in [("1K", 1024), ("10k", 10_240), ("1M", 1 << 20), ("700", 700), ("4 KiB", 0)] {
            assert_eq!(size(text).unwrap_or(0), bytes, "{text}");
        }
        assert!(size("0").is_err() && size("1G").is_err() && size("K").is_err() && size("257M").is_err());
        assert_eq!([1024, 102_400, 1 << 20, 1500].map(short), ["1K", "100K", "1M", "1500"]);
    }
}
