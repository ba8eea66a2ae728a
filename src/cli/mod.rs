//! The command line: what is typed becomes a question to a running peer or work on this machine, and an answer for people or
//! programs. It never does a peer's work itself.

mod args;
mod backup;
mod bench;
mod cancel;
pub mod cluster;
mod compose;
mod console;
mod contacts;
pub mod control;
pub mod demo;
mod doctor;
mod drill;
mod group;
pub mod init;
mod join;
mod mail;
mod network;
mod outbox;
mod output;
mod process;
pub mod progress;
mod qr;
mod requests;
mod status;
pub mod up;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use serde_json::json;

use crate::actors::identity::Identity;
use crate::config::Config;
use crate::store::home::Home;
use args::{Cli, Command, InitArgs, UpArgs};
use output::Shown;

/// The folder of a home when none is named, in the user's own.
const HOME_DEFAULT: &str = ".roost";

/// Does what was typed; gives the exit code: 0 done, 1 failed, 2 wrong use.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let code = match run(&cli) {
        Ok(shown) => shown.print(cli.json),
        Err(error) => output::print_error(&error, cli.json),
    };
    ExitCode::from(code)
}

fn run(cli: &Cli) -> anyhow::Result<Shown> {
    let home = || home(cli.home.as_deref());
    match &cli.command {
        Command::Demo(args) => demo::run(cli.home.as_deref(), args),
        Command::Cluster(command) => cluster::commands::run(cli.home.as_deref(), command),
        Command::Up(args) => up(&home()?, args),
        Command::Init(args) => init(&home()?, args),
        Command::Group(command) => group::run(&home()?, command),
        Command::Send(args) => mail::send(&home()?, args),
        Command::Inbox(args) => mail::inbox(&home()?, args),
        Command::Read(args) => mail::read(&home()?, args, cli.json),
        Command::Outbox(args) => outbox::run(&home()?, args),
        Command::Cancel(args) => cancel::run(&home()?, args),
        Command::Requests => requests::list(&home()?),
        Command::Accept(args) => requests::accept(&home()?, args),
        Command::Refuse(args) => requests::refuse(&home()?, args),
        Command::Verify(args) => verify::run(&home()?, args),
        Command::Card => contacts::card(&home()?),
        Command::Contacts(command) => contacts::run(&home()?, command),
        Command::Status => status::run(&home()?),
        Command::Doctor(args) => doctor::run(&home()?, args),
        Command::Console => console::run(&home()?),
        Command::Bench(command) => bench::run(command),
        Command::Drill(args) => drill::run(cli.home.as_deref(), args),
        Command::Backup(args) => backup::run(&home()?, args),
    }
}

/// The home that was named, or the default one.
fn home(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    match (named, std::env::home_dir()) {
        (Some(named), _) => Ok(named.to_owned()),
        (None, Some(user)) => Ok(user.join(HOME_DEFAULT)),
        (None, None) => bail!("this user has no home folder; name one with --home DIR"),
    }
}

fn init(home: &Path, args: &InitArgs) -> anyhow::Result<Shown> {
    if let Some(file) = &args.restore {
        return backup::restore(home, file, args.address.as_ref());
    }
    if let Some(address) = &args.address
        && !args.new_password
    {
        let made = init::run(home, address.clone())?;
        return Shown::of(&made, made.story());
    }
    let home = Home::at(home).initialised()?;
    let config = Config::load(&home.config_file())?;
    if args.address.as_ref().is_some_and(|address| *address != config.address) {
        bail!("{} is the home of {}; name the right one with --home", home.root().display(), config.address);
    }
    // A running peer keeps the old hash in memory, so the new password would not be the one that it takes.
    let _lock = home.lock().context("the password can be replaced only while the peer is stopped")?;
    let password = Identity::new_password(&home)?;
    let text = format!("The new password of {} (shown this once): {}", config.address, password.expose());
    Shown::of(&json!({ "address": config.address, "password": password.expose() }), text)
}

fn up(home: &Path, args: &UpArgs) -> anyhow::Result<Shown> {
    if args.detached {
        process::close_inherited();
    }
    up::run(home, args.detached)?;
    Shown::of(&json!({}), "this peer has stopped")
}
