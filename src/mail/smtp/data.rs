//! The text after DATA: finds its end and takes the stuffed dots out (RFC 5321 section 4.5.2). Never holds a byte back
//! that it could give out, and never takes anything but CRLF for the end of a line.
//!
//! ```text
//!  Line ──'.'──▶ Dot ──CR──▶ DotCr ──LF──▶ End
//!   ▲ │other      │other       │other
//!   │ └──▶ Text ◀─┴────────────┘
//!   └─LF── Cr ◀─CR─┘
//! ```

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a line; at the start of the text.
    Line,
    /// Inside a line.
    Text,
    /// After a CR that is not given out yet.
    Cr,
    /// After a dot at the start of a line.
    Dot,
    /// After that dot and a CR.
    DotCr,
    /// After CRLF.CRLF: nothing more is taken.
    End,
}

/// Takes the text of a mail apart.
#[derive(Debug)]
pub struct DataReader {
    state: State,
    bare: bool,
}

impl Default for DataReader {
    fn default() -> Self {
        Self::new()
    }
}

impl DataReader {
    /// At the start of the text.
    pub fn new() -> Self {
        Self { state: State::Line, bare: false }
    }

    /// Whether the end was seen.
    pub fn is_over(&self) -> bool {
        self.state == State::End
    }

    /// Whether a CR without LF or an LF without CR was seen. Servers that take either for the end of a line would find
    /// another end of the text, and commands in a mail.
    pub fn has_bare_line_break(&self) -> bool {
        self.bare
    }

    /// Takes bytes, appends the mail's bytes to `out`, and tells how many were taken: all, unless the end was among them.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while let Some(&byte) = input.get(at).filter(|_| self.state != State::End) {
            if self.state == State::Text {
                let rest = &input[at..];
                let plain = rest.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(rest.len());
                out.extend_from_slice(&rest[..plain]);
                at += plain;
                if plain > 0 {
                    continue;
                }
            }
            at += 1;
            self.step(byte, out);
        }
        at
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match (self.state, byte) {
            (State::DotCr, b'\n') => State::End,
            (State::Cr, b'\n') => {
                out.extend_from_slice(b"\r\n");
                State::Line
            }
            (State::Line, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::Cr | State::DotCr, other) => {
                self.bare = true;
                out.push(b'\r');
                self.inside(other, out)
            }
            (_, other) => self.inside(other, out),
        };
    }

    fn inside(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match byte {
            b'\r' => State::Cr,
            other => {
                self.bare |= other == b'\n';
                out.push(other);
                State::Text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn read(input: &[u8], chunk: usize) -> (Vec<u8>, usize, bool, bool) {
        let (mut reader, mut out, mut taken) = (DataReader::new(), Vec::new(), 0);
        for piece in input.chunks(chunk.max(1)) {
            let n = reader.feed(piece, &mut out);
            taken += n;
            if n < piece.len() {
                break;
            }
        }
        (out, taken, reader.is_over(), reader.has_bare_line_break())
    }

    #[test]
    fn rfc5321_dots_are_taken_out_and_the_end_is_found() {
        assert_eq!(read(b"a\r\n..b\r\n.c\r\n.\r\nNOOP\r\n", 100), (b"a\r\n.b\r\nc\r\n".to_vec(), 15, true, false));
        assert_eq!(read(b".\r\n", 1), (vec![], 3, true, false));
        assert_eq!(read(b"a.\r\n", 1), (b"a.\r\n".to_vec(), 4, false, false));
    }

    #[test]
    fn rfc5321_only_crlf_dot_crlf_ends_the_text() {
        for smuggled in
            ["a\n.\n", "a\r\n.\n", "a\n.\r\n", "a\r.\r\n", "a\r\n.\rx", "a\r.\r", "a\r\r\n", "\n", "\0\n.\r\n"]
        {
            let input = format!("{smuggled}MAIL FROM:<a@b>\r\n.\r\n");
            let (_, taken, over, bare) = read(input.as_bytes(), 3);
            assert_eq!((taken, over, bare), (input.len(), true, true), "{smuggled:?}");
        }
    }

    fn stuffed(mail: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in mail.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(b".") {
                out.push(b'.');
            }
            out.extend_from_slice(line);
        }
        out.extend_from_slice(b".\r\n");
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn rfc5321_what_was_stuffed_comes_out_to_the_byte(
            lines in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>().prop_filter("no line break", |b| !matches!(b, b'\r' | b'\n')), 0..8),
                prop::collection::vec(proptest::prelude::Just(b'.'), 0..4),
            ], 0..20),
            chunk in 1_usize..20,
        ) {
            let mail: Vec<u8> = lines.iter().flat_map(|l| [l.as_slice(), b"\r\n"].concat()).collect();
            let input = stuffed(&mail);
            prop_assert_eq!(read(&input, chunk), (mail, input.len(), true, false));
        }

        #[test]
        fn rfc5321_chunks_do_not_matter(
            input in prop::collection::vec(prop_oneof![
                proptest::prelude::Just(b'\r'), proptest::prelude::Just(b'\n'), proptest::prelude::Just(b'.'), any::<u8>()
            ], 0..60),
            chunk in 1_usize..20,
        ) {
            let whole = read(&input, input.len());
            prop_assert_eq!(read(&input, chunk), whole.clone());
            prop_assert!(whole.1 <= input.len());
        }
    }
}
