//! `roost doctor`: what is wrong with a home, and what to do. It changes nothing, except that `--rebuild-index` removes the
//! index of a stopped peer.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::args::DoctorArgs;
use super::control::{Control, ControlError};
use super::output::Shown;
use crate::clock::system_wall;
use crate::config::Config;
use crate::console::protocol::{Check, Request};
use crate::model::WallTime;
use crate::store::home::{Home, HomeError};
use crate::store::index::Index;

/// Before this the clock is certainly wrong: 2025-01-01.
const EARLIEST: WallTime = WallTime(1_735_689_600_000);

/// Does what was asked.
pub(super) fn run(home: &Path, args: &DoctorArgs) -> anyhow::Result<Shown> {
    let home = Home::at(home).initialised()?;
    if args.rebuild_index {
        return rebuild_index(&home);
    }
    let checks = checks(&home)?;
    let well = checks.iter().all(|check| check.ok);
    let line = |c: &Check| format!("{} {}: {}\n", if c.ok { "ok  " } else { "BAD " }, c.check, c.what);
    let text: String = checks.iter().map(line).collect();
    let shown = Shown::of(&json!({ "checks": checks }), text)?;
    Ok(if well { shown } else { shown.failed() })
}

fn rebuild_index(home: &Home) -> anyhow::Result<Shown> {
    let lock = home.lock()?;
    Index::discard(&home.index_dir())?;
    drop(lock);
    let text = "the index is gone; the next `roost up` rebuilds it from the journal and the files";
    Shown::of(&json!({ "index": "discarded" }), text)
}

fn checks(home: &Home) -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![clock(system_wall()), rights(home)];
    let config = Config::load(&home.config_file());
    checks.push(match &config {
        Ok(config) => well("config", format!("{} of {}", home.config_file().display(), config.address)),
        Err(e) => bad("config", e.to_string()),
    });
    match Control::of(home.root()).ask::<Vec<Check>>(&Request::Doctor) {
        Ok(running) => checks.extend(running),
        Err(ControlError::NoPeer { .. }) => checks.extend(stopped(home, config.ok().as_ref())),
        Err(e) => checks.push(bad("peer", e.to_string())),
    }
    Ok(checks)
}

/// What can only be checked while no peer runs.
fn stopped(home: &Home, config: Option<&Config>) -> Vec<Check> {
    let mut checks = vec![match home.lock() {
        Ok(_) => well("peer", "none runs on this home".to_owned()),
        Err(HomeError::InUse { pid, .. }) => {
            bad("peer", format!("pid {pid} holds the home but does not answer; look at its output, then stop it"))
        }
        Err(e) => bad("peer", e.to_string()),
    }];
    if let Some(config) = config {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        checks.push(port("SMTP port", loopback, config.mail.smtp_port));
        checks.push(port("IMAP port", loopback, config.mail.imap_port));
        checks.push(port("HTTPS port", config.net.listen, config.net.https_port));
        checks.push(port("libp2p port", config.net.listen, config.net.libp2p_port));
        if config.console.enabled {
            checks.push(port("console port", loopback, config.console.console_port));
        }
    }
    checks
}

fn port(what: &str, listen: IpAddr, port: u16) -> Check {
    if port == 0 {
        return well(what, "chosen at the first start".to_owned());
    }
    match TcpListener::bind((listen, port)) {
        Ok(_) => well(what, format!("{port} is free")),
        Err(e) => {
            bad(what, format!("{port} cannot be listened on ({e}); stop what uses it, or change it in config.toml"))
        }
    }
}

fn clock(now: WallTime) -> Check {
    if now < EARLIEST {
        bad("clock", "it is before 2025, and mail expires by it; set it (`timedatectl set-ntp true`)".to_owned())
    } else {
        well("clock", format!("{} s since 1970, UTC", now.as_secs()))
    }
}

/// Whether nobody else can read what is the user's own.
fn rights(home: &Home) -> Check {
    let mut open = Vec::new();
    let mut look = |path: &Path| {
        if fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0) {
            open.push(path.display().to_string());
        }
    };
    look(home.root());
    look(&home.identity_dir());
    look(&home.control_socket());
    for entry in fs::read_dir(home.identity_dir()).into_iter().flatten().flatten() {
        look(&entry.path());
    }
    if open.is_empty() {
        well("rights", "only you can read keys and mail".to_owned())
    } else {
        bad("rights", format!("others may read {}; run: chmod -R go= {}", open.join(", "), home.root().display()))
    }
}

fn well(check: &str, what: String) -> Check {
    Check { check: check.to_owned(), ok: true, what, reach: None }
}

fn bad(check: &str, what: String) -> Check {
    Check { check: check.to_owned(), ok: false, what, reach: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::files::write_durable;

    fn home(dir: &Path) -> Home {
        let home = Home::at(dir.join("home"));
        home.create().unwrap();
        let config = Config::new("alice@acme".parse().unwrap());
        write_durable(&home.config_file(), config.to_commented_toml().as_bytes(), 0o600).unwrap();
        home
    }

    #[test]
    fn a_fresh_home_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        let checks = checks(&home).unwrap();
        assert!(checks.iter().all(|c| c.ok), "{checks:?}");
        assert_eq!(checks.len(), 9);
    }

    #[test]
    fn keys_that_others_may_read_and_a_taken_port_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        fs::set_permissions(home.identity_dir(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(rights(&home).what.contains("identity; run: chmod"));
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let number = taken.local_addr().unwrap().port();
        assert!(!port("x", IpAddr::V4(Ipv4Addr::LOCALHOST), number).ok);
        assert!(!clock(WallTime(5)).ok);
    }

    #[test]
    fn the_index_is_removed_only_while_nobody_holds_the_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = home(dir.path());
        fs::create_dir(home.index_dir()).unwrap();
        let lock = home.lock().unwrap();
        assert!(rebuild_index(&home).unwrap_err().to_string().contains("in use by the peer"));
        assert!(home.index_dir().exists());
        drop(lock);
        rebuild_index(&home).unwrap();
        assert!(!home.index_dir().exists());
    }
}
