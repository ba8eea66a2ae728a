//! `roost cluster …` on the command line. It hands over to the cluster and shows the answer.

use std::path::Path;

use serde_json::json;

use super::{ClusterDir, ClusterPeer, ClusterStatus, RunState};
use crate::cli::args::ClusterCommand;
use crate::cli::output::{self, Shown, WrongUse};
use crate::cli::progress::Report;
use crate::config::cluster::Cluster;
use crate::model::Address;

/// Does what was asked of the cluster in `dir`.
pub(in crate::cli) fn run(dir: Option<&Path>, command: &ClusterCommand) -> anyhow::Result<Shown> {
    let missing = || WrongUse { why: "a cluster needs a folder of its own; name it with --home DIR".to_owned() };
    let dir = dir.ok_or_else(missing)?;
    // Read before the folder is made: a wrong file should leave nothing behind.
    let file = match command {
        ClusterCommand::Up { file } => Some(Cluster::load(file)?),
        _ => None,
    };
    let program = std::env::current_exe()?;
    let report = Report::to_people();
    let cluster = match file {
        Some(_) => ClusterDir::make(dir, &program, report)?,
        None => ClusterDir::at(dir, &program, report)?,
    };
    let find = |names: &[String]| names.iter().map(|name| cluster.find(name)).collect::<anyhow::Result<Vec<Address>>>();
    match (command, file) {
        (ClusterCommand::Up { .. }, Some(file)) => shown(&cluster.up(&file)?),
        (ClusterCommand::Up { .. } | ClusterCommand::Status, _) => shown(&cluster.status()?),
        (ClusterCommand::Kill(args), _) => ended("killed", &cluster.kill(&find(&args.peers)?)?),
        (ClusterCommand::Stop(args), _) => ended("stopped", &cluster.stop(&find(&args.peers)?)?),
        (ClusterCommand::Start(args), _) => shown(&cluster.start(&find(&args.peers)?)?),
        (ClusterCommand::Down, _) => ended("stopped", &cluster.down()?),
    }
}

fn ended(how: &str, peers: &[Address]) -> anyhow::Result<Shown> {
    let names: Vec<String> = peers.iter().map(Address::to_string).collect();
    let text = if names.is_empty() { "none of them ran".to_owned() } else { format!("{how}: {}", names.join(", ")) };
    Shown::of(&json!({ how: peers }), text)
}

fn shown(status: &ClusterStatus) -> anyhow::Result<Shown> {
    Shown::of(status, text(status))
}

fn text(status: &ClusterStatus) -> String {
    let row = |peer: &ClusterPeer| {
        let state = match peer.state {
            RunState::Running => format!("running, pid {}", peer.pid.unwrap_or_default()),
            RunState::Stopped => "stopped".to_owned(),
            RunState::Dead => "dead".to_owned(),
        };
        vec![peer.address.to_string(), peer.smtp.clone(), peer.imap.clone(), peer.password.clone(), state]
    };
    let rows: Vec<Vec<String>> = status.peers.iter().map(row).collect();
    format!(
        "{}\nLogins are the addresses; homes are {}/NAME.\n",
        output::table(&["ADDRESS", "SMTP", "IMAP", "PASSWORD", "STATE"], &rows),
        status.home.display()
    )
}

/// What `demo --keep` prints of a cluster that goes on.
pub(in crate::cli) fn logins(status: &ClusterStatus) -> String {
    let consoles = status.peers.iter().filter_map(|peer| Some((&peer.address, peer.console.as_ref()?)));
    let consoles = consoles.map(|(address, console)| format!("console of {address}: http://{console}\n"));
    let link = format!("`roost console --home {}/NAME` prints a link that opens it.\n", status.home.display());
    text(status) + &consoles.collect::<String>() + &link
}
