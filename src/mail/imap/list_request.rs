//! LIST in its basic and extended form (RFC 3501, 5258, 5819, 6154), read from the command. Never answers it.

use super::cursor::Cursor;

/// Most patterns of one LIST.
const PATTERNS_MAX: usize = 16;

/// Data of a mailbox that STATUS tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusItem {
    /// `MESSAGES`
    Messages,
    /// `RECENT`
    Recent,
    /// `UIDNEXT`
    UidNext,
    /// `UIDVALIDITY`
    UidValidity,
    /// `UNSEEN`
    Unseen,
}

impl StatusItem {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "MESSAGES" => Self::Messages,
            "RECENT" => Self::Recent,
            "UIDNEXT" => Self::UidNext,
            "UIDVALIDITY" => Self::UidValidity,
            "UNSEEN" => Self::Unseen,
            _ => return None,
        })
    }
}

/// What a LIST or LSUB asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ListRequest {
    /// It was LSUB.
    pub(crate) lsub: bool,
    /// What stands before the patterns.
    pub(crate) reference: Vec<u8>,
    /// Patterns with `*` and `%`.
    pub(crate) patterns: Vec<Vec<u8>>,
    /// Only subscribed mailboxes.
    pub(crate) only_subscribed: bool,
    /// Only those with a special use.
    pub(crate) only_special: bool,
    /// Also names of which only something below matches the selection.
    pub(crate) recursive: bool,
    /// Tell which are subscribed.
    pub(crate) return_subscribed: bool,
    /// Tell these of each.
    pub(crate) status: Vec<StatusItem>,
}

/// Reads what follows `LIST` or `LSUB`; nothing when it is neither's grammar.
pub(crate) fn parse(cursor: &mut Cursor<'_>, lsub: bool) -> Option<ListRequest> {
    let mut request = ListRequest { lsub, only_subscribed: lsub, ..ListRequest::default() };
    cursor.space()?;
    if !lsub && cursor.sees(b'(') {
        for option in cursor.list(Cursor::word)? {
            match option.as_str() {
                "SUBSCRIBED" => request.only_subscribed = true,
                "SPECIAL-USE" => request.only_special = true,
                "RECURSIVEMATCH" => request.recursive = true,
                "REMOTE" => {}
                _ => return None,
            }
        }
        // RFC 5258 section 3.1: RECURSIVEMATCH alone selects nothing.
        if request.recursive && !request.only_subscribed && !request.only_special {
            return None;
        }
        request.return_subscribed = request.only_subscribed;
        cursor.space()?;
    }
    request.reference = cursor.astring(false)?;
    cursor.space()?;
    request.patterns = match !lsub && cursor.sees(b'(') {
        true => cursor.list(|c| c.astring(true)).filter(|list| (1..=PATTERNS_MAX).contains(&list.len()))?,
        false => vec![cursor.astring(true)?],
    };
    if !lsub && cursor.sees(b' ') {
        cursor.space()?;
        (cursor.word()? == "RETURN").then_some(())?;
        cursor.space()?;
        returns(cursor, &mut request)?;
    }
    cursor.at_end().then_some(request)
}

fn returns(cursor: &mut Cursor<'_>, request: &mut ListRequest) -> Option<()> {
    cursor.list(|cursor| {
        match cursor.word()?.as_str() {
            "SUBSCRIBED" => request.return_subscribed = true,
            // Both are told always.
            "CHILDREN" | "SPECIAL-USE" => {}
            "STATUS" => {
                cursor.space()?;
                request.status = cursor.list(|c| StatusItem::named(&c.word()?))?;
            }
            _ => return None,
        }
        Some(())
    })?;
    Some(())
}

/// Whether `name` matches `pattern`: `*` is any text, `%` any text without `/` (RFC 3501 section 6.3.8).
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Which beginnings of the pattern match the name so far.
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    skip_wildcards(&pattern, &mut states);
    for c in name {
        let mut next = vec![false; pattern.len() + 1];
        for (i, p) in pattern.iter().enumerate().filter(|(i, _)| states[*i]) {
            match p {
                '*' => next[i] = true,
                '%' => next[i] |= c != '/',
                p if *p == c => next[i + 1] = true,
                _ => {}
            }
        }
        skip_wildcards(&pattern, &mut next);
        states = next;
    }
    states[pattern.len()]
}

/// A wildcard may stand for nothing.
fn skip_wildcards(pattern: &[char], states: &mut [bool]) {
    for (i, p) in pattern.iter().enumerate() {
        if states[i] && matches!(p, '*' | '%') {
            states[i + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<ListRequest> {
        parse(&mut Cursor::new(text.as_bytes()), false)
    }

    #[test]
    fn rfc3501_list_wildcards() {
        for (pattern, name, expected) in [
            ("*", "a/b/c", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("a*c", "a/b/c", true),
            ("%/%", "a/b", true),
            ("INBOX", "INBOX", true),
            ("", "a", false),
            ("*%*%*%*%*x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn rfc5258_extended_list_is_read() {
        let list =
            read(" (SUBSCRIBED) \"\" (\"INBOX\" \"a/%\") RETURN (CHILDREN SPECIAL-USE STATUS (MESSAGES UNSEEN))\r\n");
        let list = list.unwrap();
        assert!(list.only_subscribed && list.return_subscribed);
        assert_eq!(list.patterns, [b"INBOX".to_vec(), b"a/%".to_vec()]);
        assert_eq!(list.status, [StatusItem::Messages, StatusItem::Unseen]);
        assert_eq!(read(" \"\" %\r\n").unwrap().patterns, [b"%".to_vec()]);
        for bad in ["", " \"\"", " (RECURSIVEMATCH) \"\" *", " \"\" * RETURN (X)", " \"\" * x", " \"\" ()"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
