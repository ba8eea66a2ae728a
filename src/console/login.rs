//! The token that opens the web page, and what follows from it. Whoever can read the home has it; nothing of it prints but by
//! `roost console`.

use std::fmt;

use zeroize::Zeroizing;

use crate::net::console_server::PageRequest;
use crate::store::files::{FILE_MODE, FileError, read_bounded, write_durable};
use crate::store::home::Home;

/// Its file in `identity/`: one line, so that Prometheus can be pointed at it (`credentials_file`).
const TOKEN_FILE: &str = "console.token";
/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;
/// Largest file that is read, bytes.
const FILE_MAX: u64 = 1024;
/// How long a browser keeps its login, seconds: 30 days.
const COOKIE_S: u32 = 30 * 24 * 60 * 60;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its file cannot be read or written.
    #[error("the console's token cannot be used: {0}")]
    File(#[from] FileError),
    /// Its file holds something else.
    #[error("identity/{TOKEN_FILE} holds no token; remove it, and the next start makes another")]
    Content,
    /// The machine has no randomness.
    #[error("the operating system gives no randomness: {why}")]
    Random {
        /// What it says.
        why: String,
    },
}

/// The token of a home.
pub struct ConsoleToken(Zeroizing<String>);

impl fmt::Debug for ConsoleToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleToken(…)")
    }
}

impl ConsoleToken {
    /// The home's token; a home without one gets one, mode 0600. Blocks.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn of(home: &Home) -> Result<Self, TokenError> {
        let path = home.identity_file(TOKEN_FILE);
        let bytes = match read_bounded(&path, FILE_MAX) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(e) if e.is_not_found() => {
                let mut random = Zeroizing::new([0; TOKEN_BYTES]);
                getrandom::fill(random.as_mut()).map_err(|e| TokenError::Random { why: e.to_string() })?;
                let text = Zeroizing::new(hex::encode(&random[..]).into_bytes());
                write_durable(&path, &text, FILE_MODE)?;
                text
            }
            Err(e) => return Err(e.into()),
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| TokenError::Content)?.trim();
        let is_token = text.len() == TOKEN_BYTES * 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if is_token { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(TokenError::Content) }
    }

    /// The token, for the one command that prints it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is the token; takes as long for every wrong one.
    pub(super) fn is(&self, text: &str) -> bool {
        // `blake3::Hash` compares in constant time.
        blake3::hash(text.trim().as_bytes()) == blake3::hash(self.0.as_bytes())
    }

    /// Something that only who has the token can know, another one for each purpose.
    fn derived(&self, purpose: &str) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(blake3::derive_key(purpose, self.0.as_bytes())))
    }

    fn is_derived(&self, purpose: &str, text: &str) -> bool {
        blake3::hash(text.as_bytes()) == blake3::hash(self.derived(purpose).as_bytes())
    }

    /// `Set-Cookie` of a browser that showed the token at the port: browsers keep cookies of all ports of a host together.
    pub(super) fn cookie(&self, port: u16) -> String {
        let value = self.derived(COOKIE);
        format!("{}={}; Max-Age={COOKIE_S}; Path=/; HttpOnly; SameSite=Strict", cookie_name(port), *value)
    }

    /// What every form carries, so that no other site can make one.
    pub(super) fn form(&self) -> Zeroizing<String> {
        self.derived(FORM)
    }

    /// Whether a request comes from who showed the token: by cookie or by `Authorization: Bearer`.
    pub(super) fn may(&self, request: &PageRequest, port: u16) -> bool {
        let cookie = request.cookie(&cookie_name(port)).is_some_and(|cookie| self.is_derived(COOKIE, cookie));
        cookie || request.bearer.as_deref().is_some_and(|bearer| self.is(bearer))
    }

    /// Whether a POST may change something: its sender may, it carries what our forms carry, and no other site sent it.
    pub(super) fn may_change(&self, request: &PageRequest, port: u16) -> bool {
        let form = request.field("form").is_some_and(|form| self.is_derived(FORM, form));
        request.is_post && request.is_from_own_page && form && self.may(request, port)
    }
}

/// Purposes of what is derived.
const COOKIE: &str = "roost 2026-11 console cookie";
const FORM: &str = "roost 2026-11 console form";

fn cookie_name(port: u16) -> String {
    format!("roost-{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn post(token: &ConsoleToken) -> PageRequest {
        let cookie = token.cookie(80);
        let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
        PageRequest {
            is_post: true,
            form: vec![("form".to_owned(), token.form().to_string())],
            cookies: vec![(name.to_owned(), value.to_owned())],
            is_from_own_page: true,
            ..PageRequest::default()
        }
    }

    #[test]
    fn a_home_has_one_token_that_is_its_users_own_and_does_not_print() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let token = ConsoleToken::of(&home).unwrap();
        assert_eq!(ConsoleToken::of(&home).unwrap().expose(), token.expose());
        assert!(token.is(token.expose()) && !token.is("") && !token.is(&token.expose()[1..]));
        assert!(!format!("{token:?}").contains(token.expose()));
        let path = home.identity_file(TOKEN_FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(matches!(ConsoleToken::of(&home), Err(TokenError::Content)));
    }

    #[test]
    fn a_change_needs_cookie_form_and_the_own_page() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let token = ConsoleToken::of(&home).unwrap();
        let good = post(&token);
        assert!(token.may_change(&good, 80) && token.may(&good, 80));
        assert!(!token.may(&good, 81), "the cookie of another port");
        let without: [(&str, PageRequest); 4] = [
            ("another site's", PageRequest { is_from_own_page: false, ..good.clone() }),
            ("no form", PageRequest { form: Vec::new(), ..good.clone() }),
            ("no cookie", PageRequest { cookies: Vec::new(), ..good.clone() }),
            ("a GET", PageRequest { is_post: false, ..good }),
        ];
        for (what, request) in without {
            assert!(!token.may_change(&request, 80), "{what}");
        }
        let bearer = PageRequest { bearer: Some(token.expose().to_owned()), ..PageRequest::default() };
        assert!(token.may(&bearer, 80) && !token.may_change(&bearer, 80));
    }
}
