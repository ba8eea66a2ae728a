//! A cursor over a command, for the extensions that the codec cannot express. Never panics on any input.

/// Reads a command from left to right; every method gives nothing when what it reads is not there.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }
    /// Whether nothing but the line break is left.
    pub(crate) fn at_end(&self) -> bool {
        matches!(self.rest, b"" | b"\r\n")
    }
    /// Takes exactly these bytes.
    pub(crate) fn byte(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == byte).then(|| self.rest = rest)
    }
    /// Whether this byte comes next.
    pub(crate) fn sees(&self, byte: u8) -> bool {
        self.rest.first() == Some(&byte)
    }
    /// One space.
    pub(crate) fn space(&mut self) -> Option<()> {
        self.byte(b' ')
    }
    /// Bytes up to one that `stop` names; at least one.
    fn run(&mut self, stop: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|b| stop(*b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!taken.is_empty()).then_some(taken)
    }
    /// A word of atom characters, in upper case.
    pub(crate) fn word(&mut self) -> Option<String> {
        let taken = self.run(|b| b.is_ascii_control() || b" (){%*\"]".contains(&b))?;
        Some(std::str::from_utf8(taken).ok()?.to_ascii_uppercase())
    }
    /// The tag of the command.
    pub(crate) fn tag(&mut self) -> Option<String> {
        let taken = self.run(|b| !b.is_ascii_graphic() || b"(){%*\"\\+".contains(&b))?;
        Some(std::str::from_utf8(taken).ok()?.to_owned())
    }
    /// An astring, or with `wildcards` a list-mailbox.
    pub(crate) fn astring(&mut self, wildcards: bool) -> Option<Vec<u8>> {
        if self.sees(b'"') {
            return self.quoted();
        }
        if self.sees(b'{') {
            return self.literal();
        }
        let stop = |b: u8| {
            let special = if wildcards { b"(){\"\\ ".contains(&b) } else { b"(){%*\"\\ ".contains(&b) };
            b.is_ascii_control() || special
        };
        self.run(stop).map(<[u8]>::to_vec)
    }
    fn quoted(&mut self) -> Option<Vec<u8>> {
        self.byte(b'"')?;
        let mut out = Vec::new();
        loop {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(out),
                b'\r' | b'\n' | 0 => return None,
                b'\\' => {
                    let (escaped, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    if !b"\"\\".contains(escaped) {
                        return None;
                    }
                    out.push(*escaped);
                }
                byte => out.push(*byte),
            }
        }
    }
    fn literal(&mut self) -> Option<Vec<u8>> {
        self.byte(b'{')?;
        let digits = self.run(|b| !b.is_ascii_digit())?;
        let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        let _ = self.byte(b'+');
        self.byte(b'}')?;
        self.byte(b'\r')?;
        self.byte(b'\n')?;
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken.to_vec())
    }
    /// `(` items with a space between them `)`; the list may be empty.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.byte(b'(')?;
        let mut items = Vec::new();
        while !self.sees(b')') {
            if !items.is_empty() {
                self.space()?;
            }
            items.push(item(self)?);
        }
        self.byte(b')')?;
        Some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_forms_are_read() {
        let mut cursor = Cursor::new(b"atom \"q\\\"x\" {3}\r\na b (X (Y) Z)\r\n");
        assert_eq!(cursor.astring(false).unwrap(), b"atom");
        cursor.space().unwrap();
        assert_eq!(cursor.astring(false).unwrap(), b"q\"x");
        cursor.space().unwrap();
        assert_eq!(cursor.astring(false).unwrap(), b"a b");
        cursor.space().unwrap();
        assert_eq!(cursor.list(Cursor::word), None);
        assert_eq!(Cursor::new(b"\"open").astring(false), None);
        assert_eq!(Cursor::new(b"{9}\r\nshort").astring(false), None);
        assert_eq!(Cursor::new(b"()").list(Cursor::word).unwrap(), Vec::<String>::new());
    }
}
