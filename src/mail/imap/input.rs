//! Lines and literals from the mail program, read within bounds. Never interprets a command.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::End;

/// Longest command, its literals included, bytes.
pub(crate) const COMMAND_MAX: usize = 64 * 1024;
/// Longest literal of a command, except the message of APPEND, bytes.
pub(crate) const LITERAL_MAX: u64 = 8 * 1024;
/// Longest literal that is read only to be thrown away; a longer one ends the connection.
pub(crate) const DISCARD_MAX: u64 = 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;
/// What is kept of a line beyond the bound: enough for its tag.
const BEGINNING_BYTES: usize = 80;

/// A literal announced at the end of a line (RFC 3501 section 4.3, RFC 7888, RFC 3516).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Its length in bytes.
    pub(crate) len: u64,
    /// The mail program waits for `+`.
    pub(crate) waits: bool,
    /// Where its announcement begins in the line.
    pub(crate) at: usize,
}

/// The literal that `line` (with its line break) announces, if it does.
pub(crate) fn announced(line: &[u8]) -> Option<Announced> {
    let inner = line.strip_suffix(b"\r\n")?.strip_suffix(b"}")?;
    let open = inner.iter().rposition(|b| *b == b'{')?;
    let number = &inner[open + 1..];
    let (digits, waits) = match number.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (number, true),
    };
    let fits = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    let len = std::str::from_utf8(digits).ok().filter(|_| fits)?.parse().ok()?;
    let at = if inner[..open].ends_with(b"~") { open - 1 } else { open };
    Some(Announced { len, waits, at })
}

/// One line, or that it was too long.
#[derive(Debug)]
pub(crate) enum Line {
    /// A line that ends in CRLF.
    Whole(Zeroizing<Vec<u8>>),
    /// The beginning of a line beyond the bound; the rest was thrown away.
    TooLong(Zeroizing<Vec<u8>>),
}

/// Reads lines and literals.
#[derive(Debug)]
pub(crate) struct Input<R> {
    reader: BufReader<R>,
    /// The line so far; kept here so that a wait for a line may be given up and taken up again.
    partial: Zeroizing<Vec<u8>>,
    overlong: bool,
}

impl<R: AsyncRead + Unpin + Send> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        let reader = BufReader::with_capacity(BUFFER_BYTES, reader);
        Self { reader, partial: Zeroizing::default(), overlong: false }
    }

    /// The next line of at most `limit` bytes. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// [`End`] when the connection ends, or nothing came for `patience`.
    pub(crate) async fn line(&mut self, limit: usize, patience: Duration) -> Result<Line, End> {
        loop {
            let bytes = match timeout(patience, self.reader.fill_buf()).await {
                Ok(bytes) => bytes?,
                Err(_) => return Err(End::Bye { text: "nothing was heard for too long" }),
            };
            if bytes.is_empty() {
                return Err(End::Closed);
            }
            let end = bytes.iter().position(|b| *b == b'\n');
            let taken = end.map_or(bytes.len(), |at| at + 1);
            if !self.overlong && self.partial.len() + taken > limit {
                self.overlong = true;
                self.partial.extend_from_slice(&bytes[..taken.min(BEGINNING_BYTES)]);
                self.partial.truncate(BEGINNING_BYTES);
            } else if !self.overlong {
                self.partial.extend_from_slice(&bytes[..taken]);
            }
            self.reader.consume(taken);
            if end.is_some() {
                let line = std::mem::take(&mut self.partial);
                if std::mem::take(&mut self.overlong) {
                    return Ok(Line::TooLong(line));
                }
                return Ok(Line::Whole(with_crlf(line)));
            }
        }
    }

    /// At most `max` bytes more into `into`; at least one.
    ///
    /// # Errors
    /// [`End`] when the connection ends, or nothing came for `patience`.
    pub(crate) async fn some(&mut self, into: &mut Vec<u8>, max: u64, patience: Duration) -> Result<u64, End> {
        let mut limited = (&mut self.reader).take(max);
        let read = match timeout(patience, limited.read_buf(into)).await {
            Ok(read) => read?,
            Err(_) => return Err(End::Bye { text: "nothing was heard for too long" }),
        };
        match u64::try_from(read) {
            Ok(0) | Err(_) => Err(End::Closed),
            Ok(read) => Ok(read),
        }
    }

    /// Throws `len` bytes away.
    ///
    /// # Errors
    /// [`End`] when the connection ends, or nothing came for `patience`.
    pub(crate) async fn discard(&mut self, len: u64, patience: Duration) -> Result<(), End> {
        let mut left = len;
        let mut waste = Vec::with_capacity(BUFFER_BYTES);
        while left > 0 {
            waste.clear();
            left -= self.some(&mut waste, left.min(64 * 1024), patience).await?;
        }
        Ok(())
    }

    /// Returns when the mail program has closed its side; waits for ever while it has not, or while unread bytes are here.
    pub(crate) async fn closed(&mut self) {
        if self.reader.buffer().is_empty() && matches!(self.reader.fill_buf().await, Ok([]) | Err(_)) {
            return;
        }
        std::future::pending().await
    }
}

/// A line that ends in CRLF, also when it came with LF alone.
fn with_crlf(mut line: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if !line.ends_with(b"\r\n") {
        line.pop();
        line.extend_from_slice(b"\r\n");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7888_literals_are_announced_at_the_end_of_a_line() {
        let sync = announced(b"a LOGIN {5}\r\n").unwrap();
        assert_eq!(sync, Announced { len: 5, waits: true, at: 8 });
        assert_eq!(announced(b"a APPEND x ~{7+}\r\n").unwrap(), Announced { len: 7, waits: false, at: 11 });
        for none in [&b"a NOOP\r\n"[..], b"{x}\r\n", b"{}\r\n", b"{+}\r\n", b"{5\r\n", b"{99999999999999999999}\r\n"] {
            assert_eq!(announced(none), None);
        }
    }

    #[tokio::test]
    async fn a_line_beyond_the_bound_is_thrown_away_and_the_next_is_read() {
        let bytes = [vec![b'x'; 200], b"\r\na NOOP\n".to_vec()].concat();
        let mut input = Input::new(&bytes[..]);
        let patience = Duration::from_secs(1);
        assert!(matches!(input.line(100, patience).await, Ok(Line::TooLong(begin)) if begin.len() == 80));
        let Ok(Line::Whole(line)) = input.line(100, patience).await else { panic!("a line") };
        assert_eq!(&line[..], b"a NOOP\r\n");
        assert!(matches!(input.line(100, patience).await, Err(End::Closed)));
    }
}
