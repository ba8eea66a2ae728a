//! The letters of a drill: each is made anew, to the byte, from its number, so that none needs to be kept to be compared.

use std::fmt::Write as _;

use super::events::MailNo;
use crate::cli::compose;
use crate::model::{Address, WallTime};

/// Lengths of letters, bytes, in turn: small ones are kept whole, large ones as fragments.
const LENGTHS: [usize; 6] = [700, 6_000, 90_000, 2_000, 30_000, 200_000];
/// Bytes of hex on a line.
const LINE: usize = 35;

/// The letters of one drill.
#[derive(Debug, Clone)]
pub(super) struct Letters {
    tag: String,
    date: WallTime,
}

impl Letters {
    /// Letters that nobody can take for those of another drill: `tag` is in each.
    pub(super) fn new(tag: &str, date: WallTime) -> Self {
        Self { tag: tag.to_owned(), date }
    }

    /// What every subject begins with.
    pub(super) fn subject_start(&self) -> String {
        format!("drill {}", self.tag)
    }

    /// What the Message-ID of one letter has before the group.
    pub(super) fn id(&self, mail: MailNo) -> String {
        format!("drill-{}-{mail}", self.tag)
    }

    /// What stands in clear in each letter of one pair, and nowhere else.
    pub(super) fn clear_mark(&self, from: &Address, to: &Address) -> String {
        format!("in clear {} from {from} to {to}", self.tag)
    }

    /// What stands in clear in every letter.
    pub(super) fn any_clear_mark(&self) -> String {
        format!("in clear {} from ", self.tag)
    }

    /// The letter.
    pub(super) fn write(&self, mail: MailNo, from: &Address, to: &Address) -> Vec<u8> {
        let id = self.id(mail);
        let mut text = format!(
            "From: {from}\r\nTo: {to}\r\nSubject: {} {mail}\r\nDate: {}\r\nMessage-ID: <{id}@{}>\r\nMIME-Version: 1.0\r\n\
             Content-Type: text/plain\r\n\r\n{}\r\n",
            self.subject_start(),
            compose::date(self.date),
            from.group(),
            self.clear_mark(from, to)
        );
        let at = usize::try_from(mail).unwrap_or_default() % LENGTHS.len();
        let mut random = vec![0; LENGTHS.get(at).copied().unwrap_or_default() / 2];
        blake3::Hasher::new().update(id.as_bytes()).finalize_xof().fill(&mut random);
        for line in random.chunks(LINE) {
            // A string takes whatever is written to it.
            let _ = write!(text, "{}\r\n", hex::encode(line));
        }
        text.into_bytes()
    }

    /// Which letter a header with this subject is of.
    pub(super) fn number(&self, text: &str) -> Option<MailNo> {
        let (_, rest) = text.split_once(&format!("{} ", self.subject_start()))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Which letter a text names by its Message-ID, as a notice does that it failed.
    pub(super) fn named_in(&self, text: &str) -> Option<MailNo> {
        let (_, rest) = text.split_once(&format!("drill-{}-", self.tag))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_the_same_each_time_and_tells_its_number() {
        let letters = Letters::new("ab12", WallTime(1_700_000_000_000));
        let (alice, bob) = ("alice@acme".parse().unwrap(), "bob@acme".parse().unwrap());
        let all: Vec<Vec<u8>> = (0..6).map(|mail| letters.write(mail, &alice, &bob)).collect();
        for (letter, mail) in all.iter().zip(0..) {
            assert_eq!(*letter, letters.write(mail, &alice, &bob));
            let text = String::from_utf8(letter.clone()).unwrap();
            assert_eq!(letters.number(&text), Some(mail));
            assert!(text.lines().all(|line| line.len() < 100) && text.ends_with("\r\n") && !text.contains("\n."));
            assert!(text.contains(&letters.clear_mark(&alice, &bob)));
        }
        assert!(all[5].len() > 200_000 && all[0].len() < 1_500);
        let others = Letters::new("cd34", WallTime(0));
        assert_eq!(others.number(&String::from_utf8_lossy(&all[1])), None);
        let notice = "Subject: Not delivered to bob@acme\r\n\r\nOriginal-Message-ID: <drill-ab12-17@acme>\r\n";
        assert_eq!((letters.named_in(notice), others.named_in(notice)), (Some(17), None));
    }
}
