//! `roost init`: makes a home with keys, config, ports and an app password, and says what to type into a mail program.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::actors::identity::Identity;
use crate::clock::system_wall;
use crate::config::{Config, set_ports};
use crate::console::login::ConsoleToken;
use crate::model::Address;
use crate::net::ports::free_port;
use crate::store::files::write_durable;
use crate::store::home::Home;

/// What a new home is, and the one time that its password is shown.
#[derive(Debug, Serialize)]
pub struct Made {
    /// `true`.
    pub ok: bool,
    /// Whose home it is.
    pub address: Address,
    /// Where it is.
    pub home: String,
    /// Who the peer is.
    pub peer_id: String,
    /// Fingerprint of its OpenPGP certificate.
    pub fingerprint: String,
    /// Where SMTP submission will listen.
    pub smtp: String,
    /// Where IMAP will listen.
    pub imap: String,
    /// The login for mail programs.
    pub login: String,
    /// The app password: shown once, kept only as Argon2id.
    pub password: String,
}

/// Makes the home at `path` for `config.address`. Ports that are 0 are chosen now and kept.
///
/// # Errors
/// When there is a home already, the disk fails, or no port is free.
pub fn make(path: &Path, mut config: Config) -> Result<Made> {
    let home = Home::at(path);
    if home.is_initialised() {
        let other = Config::load(&home.config_file()).map(|c| c.address.to_string()).unwrap_or_default();
        bail!("{} is the home of {other} already; choose another folder with --home", path.display());
    }
    home.create()?;
    let _lock = home.lock()?;
    resolve_ports(&mut config)?;
    let password = Identity::create(&home, &config.address, system_wall())?;
    let identity = Identity::load(&home)?;
    ConsoleToken::of(&home)?;
    // Last: a home without its config is not one yet, and init can be run again.
    write_durable(&home.config_file(), config.to_commented_toml().as_bytes(), 0o600)?;
    Ok(Made {
        ok: true,
        address: config.address.clone(),
        home: path.display().to_string(),
        peer_id: identity.peer_id().to_string(),
        fingerprint: identity.openpgp.fingerprint().to_string(),
        smtp: format!("127.0.0.1:{}", config.mail.smtp_port),
        imap: format!("127.0.0.1:{}", config.mail.imap_port),
        login: config.address.to_string(),
        password: password.expose().to_owned(),
    })
}

/// Chooses the ports that are 0 and keeps them in the home's config.toml, comments and all.
///
/// # Errors
/// When no port is free or the file cannot be written.
pub fn settle_ports(home: &Home, config: &mut Config) -> Result<()> {
    let before = ports(config);
    resolve_ports(config)?;
    if before == ports(config) {
        return Ok(());
    }
    let path = home.config_file();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = set_ports(&path, &text, &ports(config))?;
    write_durable(&path, text.as_bytes(), 0o600)?;
    Ok(())
}

fn ports(config: &Config) -> [(&'static str, &'static str, u16); 5] {
    [
        ("mail", "smtp_port", config.mail.smtp_port),
        ("mail", "imap_port", config.mail.imap_port),
        ("net", "https_port", config.net.https_port),
        ("net", "libp2p_port", config.net.libp2p_port),
        ("console", "console_port", config.console.console_port),
    ]
}

fn resolve_ports(config: &mut Config) -> Result<()> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let listen = config.net.listen;
    let mut taken: Vec<u16> = ports(config).iter().map(|(_, _, port)| *port).collect();
    let wanted = [
        (&mut config.mail.smtp_port, loopback),
        (&mut config.mail.imap_port, loopback),
        (&mut config.net.https_port, listen),
        (&mut config.net.libp2p_port, listen),
        (&mut config.console.console_port, loopback),
    ];
    for (port, listen) in wanted {
        if *port == 0 {
            *port = free_port(listen, &taken)?;
            taken.push(*port);
        }
    }
    Ok(())
}

/// `roost init ADDRESS`.
///
/// # Errors
/// As [`make`].
pub fn run(path: &Path, address: Address) -> Result<Made> {
    make(path, Config::new(address))
}

impl Made {
    /// What a person is told.
    pub fn story(&self) -> String {
        format!(
            "This is the home of {address} now: {home}\n\n\
             Type into your mail program (both without TLS: they listen on this machine only):\n\
             \x20 incoming  IMAP  {imap}\n\
             \x20 outgoing  SMTP  {smtp}\n\
             \x20 login           {login}   (or {login_full} for programs that download everything, such as mbsync)\n\
             \x20 password        {password}   (shown this once; `roost init --new-password` makes another)\n\n\
             Next: roost up --home {home}\n\
             Then `roost console --home {home}` prints the address of this peer's web page.\n",
            address = self.address,
            home = self.home,
            imap = self.imap,
            smtp = self.smtp,
            login = self.login,
            login_full = format_args!("{}+full", self.address.name()),
            password = self.password,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_makes_a_home_once() {
        let dir = tempfile::tempdir().unwrap();
        let made = run(dir.path(), "alice@acme".parse().unwrap()).unwrap();
        let config = Config::load(&dir.path().join("config.toml")).unwrap();
        assert!(config.mail.smtp_port > 0 && config.net.libp2p_port > 0);
        assert!(made.story().contains(&made.password));
        let again = run(dir.path(), "bob@acme".parse().unwrap()).unwrap_err().to_string();
        assert!(again.contains("alice@acme"), "{again}");
    }
}
