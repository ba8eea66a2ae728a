//! `roost console`: the address of a running peer's web page, with the token that opens it. It starts nothing.

use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::control::Control;
use super::output::Shown;
use crate::console::login::ConsoleToken;
use crate::console::protocol::{PeerStatus, Request};
use crate::store::home::Home;

/// `roost console`.
///
/// # Errors
/// When no peer runs on the home, or its page is switched off.
pub(super) fn run(home: &Path) -> anyhow::Result<Shown> {
    let home = Home::at(home).initialised()?;
    let status: PeerStatus = Control::of(home.root()).ask(&Request::Status)?;
    let Some(console) = status.ports.console else {
        bail!("this peer has no web page: set `enabled = true` under [console] in config.toml and start it again");
    };
    let token = ConsoleToken::of(&home)?;
    let url = format!("http://{console}/login?token={}", token.expose());
    let text =
        format!("{url}\n\nOpen it on this machine. Whoever has the link can see and cancel what this peer sends.");
    Shown::of(&json!({ "console": console, "url": url }), text)
}
