//! The exchange of AUTH PLAIN (RFC 4616) and AUTH LOGIN. Never checks a password itself, never prints one.

use std::fmt;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

/// Base64 as mail programs send it, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A login and its password, to be checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `alice` or `alice@acme`.
    pub login: String,
    /// Wiped when dropped.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("login", &self.login).field("password", &"…").finish()
    }
}

/// Why an exchange ends without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The mail program sent `*`.
    #[error("the login was cancelled by the mail program")]
    Cancelled,
    /// Not Base64, or not of the mechanism's form.
    #[error("the login is not in the form of its mechanism; check the mail program's settings")]
    Malformed,
}

/// Which mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// All in one response.
    Plain,
    /// Login and password one after the other.
    Login,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this challenge, Base64 already, and feed the answer.
    Challenge(&'static str),
    /// The exchange is over.
    Check(Credentials),
}

/// An exchange under way.
pub struct Exchange {
    mechanism: Mechanism,
    login: Option<String>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

fn text(line: &[u8]) -> Result<Zeroizing<String>, ExchangeError> {
    if line == b"*" {
        return Err(ExchangeError::Cancelled);
    }
    let bytes = Zeroizing::new(BASE64.decode(line).map_err(|_| ExchangeError::Malformed)?);
    std::str::from_utf8(&bytes).map(|t| Zeroizing::new(t.to_owned())).map_err(|_| ExchangeError::Malformed)
}

/// Reads the one response of PLAIN: identity to act as, login and password with NUL between them.
///
/// # Errors
/// [`ExchangeError`] when it has another form, or asks to act as somebody else than the login.
pub fn decode_plain(line: &[u8]) -> Result<Credentials, ExchangeError> {
    let text = text(line)?;
    let mut pieces = text.split('\0');
    match (pieces.next(), pieces.next(), pieces.next(), pieces.next()) {
        (Some(acts_as), Some(login), Some(password), None)
            if !login.is_empty() && (acts_as.is_empty() || acts_as.eq_ignore_ascii_case(login)) =>
        {
            Ok(Credentials { login: login.to_owned(), password: Zeroizing::new(password.to_owned()) })
        }
        _ => Err(ExchangeError::Malformed),
    }
}

impl Exchange {
    /// Begins, with the initial response if there is one; `=` stands for an empty one.
    ///
    /// # Errors
    /// [`ExchangeError`] when the initial response is wrong.
    pub fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Result<(Exchange, Next), ExchangeError> {
        let mut exchange = Exchange { mechanism, login: None };
        let next = match (initial, mechanism) {
            (Some(b"="), _) => exchange.answer(b"")?,
            (Some(response), _) => exchange.answer(response)?,
            (None, Mechanism::Plain) => Next::Challenge(""),
            // "Username:"
            (None, Mechanism::Login) => Next::Challenge("VXNlcm5hbWU6"),
        };
        Ok((exchange, next))
    }

    /// Takes the mail program's next line.
    ///
    /// # Errors
    /// [`ExchangeError`] when it is wrong.
    pub fn answer(&mut self, line: &[u8]) -> Result<Next, ExchangeError> {
        match (self.mechanism, self.login.take()) {
            (Mechanism::Plain, _) => decode_plain(line).map(Next::Check),
            (Mechanism::Login, None) => {
                self.login = Some(text(line)?.as_str().to_owned());
                // "Password:"
                Ok(Next::Challenge("UGFzc3dvcmQ6"))
            }
            (Mechanism::Login, Some(login)) => Ok(Next::Check(Credentials { login, password: text(line)? })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4616_plain_is_read_with_or_without_an_identity() {
        for line in ["\0alice\0secret", "alice\0alice\0secret"] {
            let c = decode_plain(BASE64.encode(line).as_bytes()).unwrap();
            assert_eq!((c.login.as_str(), c.password.as_str()), ("alice", "secret"));
            assert!(!format!("{c:?}").contains("secret"));
        }
        for bad in ["", "alice\0secret", "\0\0secret", "bob\0alice\0secret", "\0a\0b\0c"] {
            assert_eq!(decode_plain(BASE64.encode(bad).as_bytes()), Err(ExchangeError::Malformed), "{bad:?}");
        }
        assert_eq!(decode_plain(b"!!"), Err(ExchangeError::Malformed));
        assert_eq!(decode_plain(b"*"), Err(ExchangeError::Cancelled));
    }

    #[test]
    fn rfc4954_login_asks_for_name_and_password() {
        let (mut exchange, first) = Exchange::begin(Mechanism::Login, None).unwrap();
        assert_eq!(first, Next::Challenge("VXNlcm5hbWU6"));
        assert_eq!(exchange.answer(b"YWxpY2U=").unwrap(), Next::Challenge("UGFzc3dvcmQ6"));
        let Next::Check(c) = exchange.answer(b"c2VjcmV0").unwrap() else { panic!("no credentials") };
        assert_eq!((c.login.as_str(), c.password.as_str()), ("alice", "secret"));
        assert!(matches!(
            Exchange::begin(Mechanism::Login, Some(b"YWxpY2U")),
            Ok((_, Next::Challenge("UGFzc3dvcmQ6")))
        ));
    }
}
