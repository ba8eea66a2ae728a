//! `roost group join`: on a new machine it makes the home first, and runs the peer for as long as the join takes. It never
//! leaves a peer running that it started.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use nix::sys::signal::Signal;
use serde_json::json;

use super::cluster::surroundings::StartedWith;
use super::control::Control;
use super::output::{self, Shown};
use super::process::{self, ProcessId};
use super::{group, init};
use crate::config::Config;
use crate::console::protocol::{Check, GroupStatus, Ports, Request};
use crate::model::Address;
use crate::model::card::Invite;
use crate::store::home::Home;
use crate::wire::code;

/// Longest start of a peer.
const START: Duration = Duration::from_secs(60);
/// Longest clean stop of a peer.
const STOP: Duration = Duration::from_secs(30);

/// Joins by the invite `line` with the peer on `home`.
pub(super) fn run(home: &Path, line: &str) -> anyhow::Result<Shown> {
    let invite: Invite = code::from_line(line)?;
    let address = Address::new(invite.name, invite.group);
    let path = Home::at(home);
    let made = if path.is_initialised() {
        let own = Config::load(&path.config_file())?.address;
        if own != address {
            bail!(
                "the invite is for {address}, and {} is the home of {own}; use another home with --home, or ask for an invite for {own}",
                home.display()
            );
        }
        None
    } else {
        let made = init::make(home, Config::new(address))?;
        output::note(&made.story());
        Some(made)
    };
    let control = Control::of(home);
    let running = if control.is_answered() { None } else { Some(Running::start(home)?) };
    let group: GroupStatus = control.ask(&Request::GroupJoin { code: line.to_owned() })?;
    let mut text = group::text(&group);
    let reach = reach(&control);
    let ran_for_it = running.is_some();
    if let Some(running) = running {
        running.stop()?;
        text.push_str(&format!(
            "\nThe peer ran for the join only and is stopped. Next: roost up --home {}\n",
            home.display()
        ));
    }
    Shown::of(&json!({ "group": group, "initialised": made, "stopped_again": ran_for_it, "reach": reach }), text)
}

/// What members found when they dialled this peer; said loudly when none of them got through. A join that is done stays done.
fn reach(control: &Control) -> Vec<Check> {
    let checks: Vec<Check> = control.ask(&Request::Reach).unwrap_or_else(|error| {
        output::note(&format!("whether members can reach this peer was not tested: {error}; run: roost doctor"));
        Vec::new()
    });
    if let Some(warning) = warning(&checks) {
        output::note(&warning);
    }
    checks
}

fn warning(checks: &[Check]) -> Option<String> {
    let tested: Vec<&Check> = checks.iter().filter(|check| check.reach.is_some()).collect();
    if checks.is_empty() || tested.iter().any(|check| check.ok) {
        return None;
    }
    if tested.is_empty() {
        let whys = checks.iter().map(|check| format!("  {}: {}\n", check.check, check.what)).collect::<String>();
        let text =
            "NOTE: whether members can reach this peer was not tested: while they cannot, what it sends stays unsafe.";
        return Some(format!("{text}\n{whys}Run `roost doctor` once others are on line.\n"));
    }
    let found: Vec<String> = tested.iter().map(|check| format!("  {}: {}\n", check.check, check.what)).collect();
    Some(format!(
        "WARNING: no member can reach this peer: none can mirror what it sends, which stays unsafe, or hand it mail directly.\n{}Then run: roost doctor\n",
        found.concat()
    ))
}

/// A peer that runs for a while; when it is dropped without a clean stop it is ended.
struct Running {
    home: PathBuf,
    pid: ProcessId,
}

impl Running {
    fn start(home: &Path) -> anyhow::Result<Self> {
        let home = std::fs::canonicalize(home)?;
        let pid = process::spawn_peer(&std::env::current_exe()?, &home, &StartedWith::default())?;
        let running = Self { home, pid };
        let control = Control::of(&running.home).at_once();
        let answers = || control.ask::<Ports>(&Request::Ports).is_ok();
        let mut answered = false;
        process::wait_until(START, || {
            answered = answers();
            answered || process::is_gone(pid, &running.home)
        });
        if !answered {
            bail!("the peer on {} did not start:\n{}", running.home.display(), process::log_tail(&running.home));
        }
        Ok(running)
    }

    fn stop(self) -> anyhow::Result<()> {
        let _: serde_json::Value = Control::of(&self.home).ask(&Request::Stop)?;
        if !process::wait_gone(self.pid, &self.home, STOP) {
            bail!(
                "the peer on {} joined, but did not stop within {} s; it is ended now",
                self.home.display(),
                STOP.as_secs()
            );
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its disk is made for this; a refused join leaves nothing to save.
        if let Ok(true) = process::signal(self.pid, &self.home, Signal::SIGTERM)
            && !process::wait_gone(self.pid, &self.home, STOP)
        {
            let _ = process::kill_peer(self.pid, &self.home);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::protocol::ReachShown;
    use crate::model::{Address, Fingerprint, Secret, WallTime};

    #[test]
    fn an_invite_for_somebody_else_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        init::make(dir.path(), Config::new("bob@acme".parse().unwrap())).unwrap();
        let invite = Invite {
            group: "acme".parse().unwrap(),
            name: "dave".parse().unwrap(),
            group_key: Fingerprint::new([1; 20]),
            peers: Vec::new(),
            secret: Secret::new([2; 32]),
            expiry: WallTime(0),
        };
        let error = run(dir.path(), &code::to_line(&invite)).unwrap_err().to_string();
        assert!(error.contains("dave@acme") && error.contains("home of bob@acme"), "{error}");
        let empty = dir.path().join("none");
        assert!(run(&empty, "roost-card:x").unwrap_err().to_string().contains("this is no invite"));
        assert!(!empty.exists());
    }

    #[test]
    fn a_join_says_when_nobody_tested_whether_this_peer_can_be_reached() {
        let check = |ok, reach| Check { check: "reached by bob@acme".to_owned(), ok, what: "why".to_owned(), reach };
        let bob = "bob@acme".parse().unwrap();
        let reached = |reached| Some(ReachShown { member: Address::clone(&bob), reached, ports: Vec::new() });
        assert_eq!(warning(&[]), None, "why it was not asked for was said already");
        assert_eq!(warning(&[check(false, None), check(true, reached(true))]), None);
        let untested = warning(&[check(true, None), check(false, None)]).unwrap();
        assert!(untested.contains("not tested") && untested.contains("roost doctor"), "{untested}");
        let closed = warning(&[check(false, reached(false)), check(true, None)]).unwrap();
        assert!(closed.contains("WARNING: no member can reach this peer"), "{closed}");
    }
}
