//! LOGIN and AUTHENTICATE (RFC 3501 section 6.2, RFC 4616, RFC 4959). Never logs or keeps a password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use imap_types::auth::AuthMechanism;
use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

use super::connection::{Connection, Outcome};
use super::input::Line;
use super::respond::Status;
use super::session::Transition;
use super::{AuthError, End, MailStore};
use crate::core::postbox::access::View;
use crate::model::Address;

/// What a login adds to the name for the second view.
const FULL: &str = "+full";

/// The view that `login` names at the peer of `address`: `alice` or `alice@acme` shows stubs, `alice+full` or
/// `alice+full@acme` only what is here. Nothing when it is no name of this peer.
pub fn login_view(address: &Address, login: &str) -> Option<View> {
    let login = login.trim().to_ascii_lowercase();
    let whole = address.to_string();
    let name = whole.split_once('@').map_or(whole.as_str(), |(name, _)| name).to_owned();
    let (local, group) = match login.split_once('@') {
        Some((local, group)) => (local.to_owned(), Some(group.to_owned())),
        None => (login, None),
    };
    if group.is_some_and(|group| whole != format!("{name}@{group}")) {
        return None;
    }
    match local.strip_suffix(FULL) {
        _ if local == name => Some(View::Stubs),
        Some(base) if base == name => Some(View::Full),
        _ => None,
    }
}

type Secret = Zeroizing<Vec<u8>>;

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// Checks a login; too many failed ones end the connection.
    pub(super) async fn login(&mut self, login: &[u8], password: &[u8]) -> Outcome {
        let result = match (std::str::from_utf8(login), std::str::from_utf8(password)) {
            (Ok(login), Ok(password)) => self.shared.store.authenticate(login, password).await,
            _ => Err(AuthError::Refused),
        };
        match result {
            Ok(view) => {
                self.apply(Transition::Login(view));
                Ok(Status::ok("logged in").with(format!("CAPABILITY {}", self.capabilities())))
            }
            Err(error @ AuthError::Unavailable { .. }) => Ok(Status::no("UNAVAILABLE", error.to_string())),
            Err(error @ AuthError::Refused) => {
                self.failed_logins += 1;
                tokio::time::sleep(self.shared.config.auth_pause).await;
                if self.failed_logins >= self.shared.config.auth_attempts {
                    return Err(End::Bye { text: "too many failed logins" });
                }
                Ok(Status::no("AUTHENTICATIONFAILED", error.to_string()))
            }
        }
    }

    /// AUTHENTICATE with one of the two mechanisms.
    pub(super) async fn authenticate(&mut self, mechanism: &AuthMechanism<'_>, initial: Option<&[u8]>) -> Outcome {
        let initial = initial.map(|bytes| Zeroizing::new(bytes.to_vec()));
        match mechanism {
            AuthMechanism::Plain => {
                let Some(answer) = self.answer(initial, "").await? else { return Ok(cancelled()) };
                let mut fields = answer.splitn(3, |b| *b == 0);
                let (Some(as_whom), Some(login), Some(password)) = (fields.next(), fields.next(), fields.next()) else {
                    return Ok(Status::bad("PLAIN is: another name or nothing, NUL, name, NUL, password"));
                };
                if !as_whom.is_empty() && as_whom != login {
                    return Ok(Status::no("AUTHORIZATIONFAILED", "nobody may read another's mail"));
                }
                self.login(login, password).await
            }
            AuthMechanism::Login => {
                let Some(login) = self.answer(initial, "VXNlcm5hbWU6").await? else { return Ok(cancelled()) };
                let Some(password) = self.answer(None, "UGFzc3dvcmQ6").await? else { return Ok(cancelled()) };
                self.login(&login, &password).await
            }
            _ => Ok(Status::no("CANNOT", "this mechanism is not offered; use PLAIN or LOGIN")),
        }
    }

    /// What was given already, or the mail program's answer to `challenge`; nothing when it cancels or answers nonsense.
    async fn answer(&mut self, given: Option<Secret>, challenge: &str) -> Result<Option<Secret>, End> {
        if given.is_some() {
            return Ok(given);
        }
        self.output.line(&format!("+ {challenge}"));
        self.output.flush().await?;
        let patience = self.patience();
        match self.input.line(4096, patience).await? {
            Line::Whole(line) => Ok(STANDARD.decode(line.trim_ascii()).ok().map(Zeroizing::new)),
            Line::TooLong(_) => Ok(None),
        }
    }
}

fn cancelled() -> Status {
    Status::bad("the login was cancelled, or its answer is no base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_names_its_view() {
        let alice: Address = "alice@acme".parse().unwrap();
        for (login, view) in [
            ("alice", Some(View::Stubs)),
            ("Alice@ACME", Some(View::Stubs)),
            ("alice+full", Some(View::Full)),
            ("alice+full@acme", Some(View::Full)),
            ("bob", None),
            ("alice@other", None),
            ("alice+other", None),
            ("alice@acme@x", None),
            ("", None),
            ("+full", None),
        ] {
            assert_eq!(login_view(&alice, login), view, "{login}");
        }
    }
}
