//! Which commands are allowed when (RFC 3501 section 3), as a state machine. Never reads or writes anything.
//!
//! ```text
//!                     Login                  Select
//!  NotAuthenticated ────────▶ Authenticated ────────▶ Selected ──┐ Select
//!         │                        │  ▲                  │  ▲ └───┘
//!         │                        │  └──── Unselect ────┘
//!         └──────── Logout ────────┴──────── Logout ──────▶ Logout
//! ```
//!
//! IDLE is no state of its own: it is one command that lasts until DONE, in Authenticated or Selected.

use imap_types::command::CommandBody;

use super::command::Request;
use super::selected::Selected;
use crate::core::postbox::access::View;

/// Where a session is.
#[derive(Debug)]
pub(crate) enum State {
    /// Entered when the connection begins; left by a login.
    NotAuthenticated,
    /// Entered by a login, or when a mailbox is closed; left when one is selected.
    Authenticated(View),
    /// Entered by SELECT or EXAMINE; left by CLOSE, UNSELECT or a SELECT that fails.
    Selected(View, Box<Selected>),
    /// Entered by LOGOUT; never left.
    Logout,
}

/// What a command does to the state.
#[derive(Debug)]
pub(crate) enum Transition {
    /// A login succeeded.
    Login(View),
    /// A mailbox was opened.
    Select(Box<Selected>),
    /// The mailbox was closed.
    Unselect,
    /// The mail program leaves.
    Logout,
}

impl State {
    /// The state after `transition`; one that does not fit changes nothing.
    pub(crate) fn apply(self, transition: Transition) -> State {
        match (self, transition) {
            (_, Transition::Logout) => State::Logout,
            (State::NotAuthenticated, Transition::Login(view)) => State::Authenticated(view),
            (State::Authenticated(view) | State::Selected(view, _), Transition::Select(mailbox)) => {
                State::Selected(view, mailbox)
            }
            (State::Selected(view, _), Transition::Unselect) => State::Authenticated(view),
            (state, Transition::Login(_) | Transition::Select(_) | Transition::Unselect) => state,
        }
    }
    /// The view of the login.
    pub(crate) fn view(&self) -> Option<View> {
        match self {
            State::Authenticated(view) | State::Selected(view, _) => Some(*view),
            State::NotAuthenticated | State::Logout => None,
        }
    }
    /// The open mailbox.
    pub(crate) fn selected(&self) -> Option<&Selected> {
        match self {
            State::Selected(_, selected) => Some(selected),
            _ => None,
        }
    }
    /// The open mailbox.
    pub(crate) fn selected_mut(&mut self) -> Option<&mut Selected> {
        match self {
            State::Selected(_, selected) => Some(selected),
            _ => None,
        }
    }
    /// Whether `request` is allowed now.
    ///
    /// # Errors
    /// What the mail program has to do first.
    pub(crate) fn allows(&self, request: &Request) -> Result<(), &'static str> {
        match (needs(request), self) {
            (Needs::Nothing, _)
            | (Needs::Stranger, State::NotAuthenticated)
            | (Needs::Login, State::Authenticated(_) | State::Selected(..))
            | (Needs::Mailbox, State::Selected(..)) => Ok(()),
            (Needs::Stranger, _) => Err("logged in already"),
            (_, State::NotAuthenticated) => Err("log in first"),
            (Needs::Mailbox, State::Authenticated(_)) => Err("select a mailbox first"),
            (_, State::Logout) => Err("logged out"),
        }
    }
}

enum Needs {
    Nothing,
    Stranger,
    Login,
    Mailbox,
}

fn needs(request: &Request) -> Needs {
    let Request::Codec(body) = request else {
        return Needs::Login;
    };
    match body.as_ref() {
        CommandBody::Capability | CommandBody::Noop | CommandBody::Logout | CommandBody::Id { .. } => Needs::Nothing,
        CommandBody::Login { .. } | CommandBody::Authenticate { .. } => Needs::Stranger,
        CommandBody::Check
        | CommandBody::Close
        | CommandBody::Unselect
        | CommandBody::Expunge
        | CommandBody::ExpungeUid { .. }
        | CommandBody::Search { .. }
        | CommandBody::Fetch { .. }
        | CommandBody::Store { .. }
        | CommandBody::Copy { .. }
        | CommandBody::Move { .. } => Needs::Mailbox,
        _ => Needs::Login,
    }
}
