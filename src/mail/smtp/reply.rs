//! Replies: a code, an enhanced code (RFC 3463) and text. They never carry bytes of a mail or a password.

use super::{AuthError, ReceiverError, SubmitError};

/// Longest text of a reply line: with code and line break it stays below the 512 of RFC 5321 section 4.5.3.1.5.
const TEXT_MAX: usize = 480;

/// What a command is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The enhanced code; greetings, EHLO and 3xx have none.
    pub enhanced: Option<&'static str>,
    /// One or more lines.
    pub lines: Vec<String>,
}

impl Reply {
    /// A reply of one line.
    pub fn new(code: u16, enhanced: &'static str, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced), lines: vec![text.into()] }
    }
    /// A reply without enhanced code.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self { code, enhanced: None, lines: vec![text.into()] }
    }
    /// Whether the connection ends with it.
    pub fn closes(&self) -> bool {
        matches!(self.code, 221 | 421)
    }
    /// Its bytes. What is not printable ASCII becomes `?`, and long lines are cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let last = self.lines.len().saturating_sub(1);
        for (i, line) in self.lines.iter().enumerate() {
            let dash = if i == last { ' ' } else { '-' };
            let enhanced = self.enhanced.map(|e| format!("{e} ")).unwrap_or_default();
            let text = line.chars().take(TEXT_MAX).map(|c| if matches!(c, ' '..='~') { c } else { '?' });
            out.extend(format!("{}{dash}{enhanced}", self.code).into_bytes());
            out.extend(text.collect::<String>().into_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl From<&AuthError> for Reply {
    fn from(error: &AuthError) -> Reply {
        let (code, enhanced) = match error {
            AuthError::Refused => (535, "5.7.8"),
            AuthError::Busy { .. } => (454, "4.7.0"),
        };
        Reply::new(code, enhanced, error.to_string())
    }
}

impl From<&ReceiverError> for Reply {
    fn from(error: &ReceiverError) -> Reply {
        let (code, enhanced) = match error {
            ReceiverError::Unknown { .. } => (550, "5.1.1"),
            ReceiverError::Outside { .. } => (550, "5.1.2"),
            ReceiverError::Busy { .. } => (451, "4.4.0"),
        };
        Reply::new(code, enhanced, error.to_string())
    }
}

impl From<&SubmitError> for Reply {
    fn from(error: &SubmitError) -> Reply {
        let (code, enhanced) = match error {
            SubmitError::TooLarge { .. } | SubmitError::HeadersTooLarge { .. } => (552, "5.3.4"),
            SubmitError::DiskFull => (452, "4.3.1"),
            SubmitError::FromMismatch { .. } | SubmitError::NoMember { .. } => (550, "5.7.1"),
            SubmitError::Receiver { source } => return source.into(),
            SubmitError::BareLineBreak => (550, "5.6.11"),
            SubmitError::Busy { .. } => (451, "4.3.2"),
            SubmitError::Internal { .. } => (451, "4.3.0"),
        };
        Reply::new(code, enhanced, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc5321_a_reply_is_printable_lines_of_bounded_length() {
        let mut out = Vec::new();
        Reply::new(550, "5.1.1", format!("a\r\n250 b\u{e4}{}", "x".repeat(600))).encode(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("550 5.1.1 a??250 b?xxx") && text.ends_with("x\r\n") && text.len() <= 512);
        let mut out = Vec::new();
        Reply { code: 250, enhanced: None, lines: vec!["a".into(), "b".into()] }.encode(&mut out);
        assert_eq!(out, b"250-a\r\n250 b\r\n");
    }
}
