//! Address fields as ENVELOPE shows them (RFC 5322 section 3.4): groups kept, encoded words untouched. Never decodes a name
//! and never drops an address because it is malformed.

/// Most addresses that are read from one field.
const ADDRESSES_MAX: usize = 10_000;
/// Deepest comment inside comments.
const COMMENTS_MAX: usize = 32;

/// One entry of an address list of ENVELOPE (RFC 3501 section 7.4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A mailbox.
    Mailbox {
        /// Display name, or the comment after the address.
        name: Option<Vec<u8>>,
        /// Source route.
        route: Option<Vec<u8>>,
        /// What stands before the `@`.
        local: Vec<u8>,
        /// What stands after it; empty when there is none.
        host: Vec<u8>,
    },
    /// Begin of a group, with its name.
    GroupBegin(Vec<u8>),
    /// End of a group.
    GroupEnd,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// An atom, a dot among them.
    Word(Vec<u8>),
    /// A quoted string, without its quotes.
    Quoted(Vec<u8>),
    /// A domain literal, with its brackets.
    Literal(Vec<u8>),
    /// A comment, without its parentheses.
    Comment(Vec<u8>),
    /// One of `<>@,;:`.
    Special(u8),
}

/// A token, and whether white space stands before it.
type Spaced = (bool, Token);

/// The addresses in the value of a field.
pub(crate) fn parse(value: &[u8]) -> Vec<Entry> {
    let mut parser = Parser::default();
    for spaced in tokens(value) {
        if parser.entries.len() >= ADDRESSES_MAX {
            break;
        }
        parser.take(spaced);
    }
    parser.finish();
    if parser.in_group {
        parser.entries.push(Entry::GroupEnd);
    }
    parser.entries
}

#[derive(Debug, Default)]
struct Parser {
    entries: Vec<Entry>,
    in_group: bool,
    /// Before `<`, or the whole address when there is none.
    phrase: Vec<Spaced>,
    /// Between `<` and `>`.
    angle: Option<Vec<Spaced>>,
    angle_open: bool,
    comment: Option<Vec<u8>>,
}

impl Parser {
    fn take(&mut self, (space, token): Spaced) {
        match token {
            Token::Comment(text) => self.comment = Some(text),
            Token::Special(b'<') if self.angle.is_none() => {
                self.angle = Some(Vec::new());
                self.angle_open = true;
            }
            Token::Special(b'>') => self.angle_open = false,
            token if self.angle_open => {
                if let Some(angle) = &mut self.angle {
                    angle.push((space, token));
                }
            }
            Token::Special(b':') if !self.in_group && self.angle.is_none() => {
                let name = text(&std::mem::take(&mut self.phrase));
                self.comment = None;
                self.entries.push(Entry::GroupBegin(name));
                self.in_group = true;
            }
            Token::Special(b',') => self.finish(),
            Token::Special(b';') => {
                self.finish();
                if std::mem::take(&mut self.in_group) {
                    self.entries.push(Entry::GroupEnd);
                }
            }
            token => self.phrase.push((space, token)),
        }
    }

    /// Closes the address that is open, if one is.
    fn finish(&mut self) {
        let phrase = std::mem::take(&mut self.phrase);
        let comment = self.comment.take();
        self.angle_open = false;
        let (name, address) = match self.angle.take() {
            Some(angle) => ((!phrase.is_empty()).then(|| text(&phrase)).or(comment), angle),
            None if phrase.is_empty() => return,
            None => (comment, phrase),
        };
        let (route, address) = split_route(&address);
        let at = address.iter().rposition(|(_, t)| *t == Token::Special(b'@'));
        let (local, host) = match at {
            Some(at) => (joined(&address[..at]), joined(&address[at + 1..])),
            None => (text(address), Vec::new()),
        };
        self.entries.push(Entry::Mailbox { name, route, local, host });
    }
}

/// `@one,@two:rest` as (`@one,@two`, `rest`).
fn split_route(address: &[Spaced]) -> (Option<Vec<u8>>, &[Spaced]) {
    match address.iter().position(|(_, t)| *t == Token::Special(b':')) {
        Some(at) if matches!(address.first(), Some((_, Token::Special(b'@')))) => {
            (Some(joined(&address[..at])), &address[at + 1..])
        }
        _ => (None, address),
    }
}

fn bytes(token: &Token) -> &[u8] {
    match token {
        Token::Word(text) | Token::Quoted(text) | Token::Literal(text) | Token::Comment(text) => text,
        Token::Special(byte) => std::slice::from_ref(byte),
    }
}

/// Tokens as a display name: one space where white space was.
fn text(tokens: &[Spaced]) -> Vec<u8> {
    let mut out = Vec::new();
    for (space, token) in tokens {
        if *space && !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(bytes(token));
    }
    out
}

/// Tokens without the white space between them.
fn joined(tokens: &[Spaced]) -> Vec<u8> {
    tokens.iter().flat_map(|(_, token)| bytes(token)).copied().collect()
}

fn tokens(value: &[u8]) -> Vec<Spaced> {
    let mut out = Vec::new();
    let (mut at, mut space) = (0, false);
    while let Some(&byte) = value.get(at) {
        let token = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                space = true;
                at += 1;
                continue;
            }
            b'"' => Token::Quoted(enclosed(value, &mut at, b'"')),
            b'(' => Token::Comment(comment(value, &mut at)),
            b'[' => {
                let inner = enclosed(value, &mut at, b']');
                Token::Literal([b"[", &inner[..], b"]"].concat())
            }
            b'<' | b'>' | b'@' | b',' | b';' | b':' => {
                at += 1;
                Token::Special(byte)
            }
            _ => {
                let special = |b: &u8| b" \t\r\n\"([<>@,;:".contains(b);
                let len = value[at..].iter().position(special).unwrap_or(value.len() - at).max(1);
                at += len;
                Token::Word(value[at - len..at].to_vec())
            }
        };
        out.push((space, token));
        space = false;
    }
    out
}

/// What stands between the byte at `at` and `close`, backslashes taken away; `at` is moved behind it.
fn enclosed(value: &[u8], at: &mut usize, close: u8) -> Vec<u8> {
    let mut out = Vec::new();
    *at += 1;
    while let Some(&byte) = value.get(*at) {
        *at += 1;
        match byte {
            b'\\' => {
                out.extend(value.get(*at));
                *at += 1;
            }
            byte if byte == close => break,
            b'\r' | b'\n' => {}
            byte => out.push(byte),
        }
    }
    *at = (*at).min(value.len());
    out
}

/// A comment that begins at `at`, the comments in it as they stand; `at` is moved behind it.
fn comment(value: &[u8], at: &mut usize) -> Vec<u8> {
    let (mut out, mut depth) = (Vec::new(), 0usize);
    while let Some(&byte) = value.get(*at) {
        *at += 1;
        match byte {
            b'(' if depth < COMMENTS_MAX => depth += 1,
            b')' => depth -= 1,
            b'\\' => {
                out.extend(value.get(*at));
                *at = (*at + 1).min(value.len());
                continue;
            }
            b'\r' | b'\n' => continue,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if byte != b'(' || depth > 1 {
            out.push(byte);
        }
    }
    out.trim_ascii().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(name: Option<&str>, local: &str, host: &str) -> Entry {
        let name = name.map(|n| n.as_bytes().to_vec());
        Entry::Mailbox { name, route: None, local: local.into(), host: host.into() }
    }

    #[test]
    fn rfc3501_envelope_addresses_of_all_forms() {
        let value = b"\"Bob \\\"B\\\" Lee\" <bob@acme>, carol@acme (Carol (C) Doe),\r\n =?utf-8?q?D=C3=A4?= E. <dave @ acme>, <erin@[127.0.0.1]>,, plain";
        assert_eq!(
            parse(value),
            [
                mailbox(Some("Bob \"B\" Lee"), "bob", "acme"),
                mailbox(Some("Carol (C) Doe"), "carol", "acme"),
                mailbox(Some("=?utf-8?q?D=C3=A4?= E."), "dave", "acme"),
                mailbox(None, "erin", "[127.0.0.1]"),
                mailbox(None, "plain", ""),
            ]
        );
    }

    #[test]
    fn rfc3501_envelope_groups_and_routes() {
        assert_eq!(
            parse(b"A team: ann@acme, Bob <bob@acme>; cc@acme"),
            [
                Entry::GroupBegin(b"A team".to_vec()),
                mailbox(None, "ann", "acme"),
                mailbox(Some("Bob"), "bob", "acme"),
                Entry::GroupEnd,
                mailbox(None, "cc", "acme"),
            ]
        );
        assert_eq!(parse(b"undisclosed-recipients:;").len(), 2);
        assert_eq!(
            parse(b"open: a@b"),
            [Entry::GroupBegin(b"open".to_vec()), mailbox(None, "a", "b"), Entry::GroupEnd]
        );
        let Entry::Mailbox { route, local, .. } = &parse(b"<@one,@two:joe@three>")[0] else { panic!("a mailbox") };
        assert_eq!((route.as_deref(), &local[..]), (Some(&b"@one,@two"[..]), &b"joe"[..]));
    }

    #[test]
    fn nonsense_is_read_to_its_end() {
        for value in [&b"\"open"[..], b"(((", b"<", b"\\", b"\"\\", b"(\\", b"[", b">>@@,;;:", b"(a)) b", b""] {
            parse(value);
        }
    }
}
