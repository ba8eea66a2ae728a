//! One person's machine: nothing but the commands.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use roost::store::home::Home;
use serde_json::Value;

use super::{Network, ROOST, Side};

/// One person's machine.
pub(crate) struct Machine {
    home: PathBuf,
    peer: Option<Child>,
    namespace: Option<String>,
}

impl Machine {
    /// One whose home will be `dir/NAME`.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        Self { home: dir.join(name), peer: None, namespace: None }
    }

    /// Runs a command with `--json`; it must succeed.
    pub(crate) fn roost(&self, args: &[&str], input: &str) -> Value {
        self.try_roost(args, input).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Runs a command with `--json`; or what it said when it failed.
    pub(crate) fn try_roost(&self, args: &[&str], input: &str) -> Result<Value, String> {
        let mut command = Command::new(ROOST);
        command.args(args).arg("--json").arg("--home").arg(&self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads no input may have ended before this.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let done = child.wait_with_output().unwrap();
        let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if !done.status.success() {
            return Err(format!("{args:?}: {out}\n{said}"));
        }
        serde_json::from_str(out.lines().last().unwrap_or_default()).map_err(|e| format!("{args:?}: {e}: {out}"))
    }

    /// `roost init` with ports that no machine of `taken` has: one whose peer runs in another network namespace is not seen there.
    pub(crate) fn init_apart(&self, address: &str, taken: &mut BTreeSet<String>) {
        loop {
            self.roost(&["init", address], "");
            let config = fs::read_to_string(self.home.join("config.toml")).unwrap();
            let ports = config.lines().filter_map(|line| Some(line.split_once("_port = ")?.1.to_owned()));
            let ports: BTreeSet<String> = ports.collect();
            assert!(ports.len() >= 4, "{config}");
            if taken.is_disjoint(&ports) {
                return taken.extend(ports);
            }
            fs::remove_dir_all(&self.home).unwrap();
        }
    }

    /// There is no network on a machine that builds: the peer tells others its loopback address.
    pub(crate) fn reachable_on_loopback(&self) {
        self.reachable_at("127.0.0.1");
    }

    fn reachable_at(&self, host: &str) {
        let path = self.home.join("config.toml");
        let config = fs::read_to_string(&path).unwrap();
        assert!(config.contains("announce = []"), "{config}");
        let config = config.replace("announce = []", &format!("announce = [\"{host}\"]"));
        fs::write(&path, config.replace("listen = \"0.0.0.0\"", &format!("listen = \"{host}\""))).unwrap();
    }

    /// It is on one side of a network.
    pub(crate) fn on(&mut self, network: &Network, side: Side) {
        self.namespace = Some(network.namespace(side));
        self.reachable_at(&side.host());
    }

    /// Its home.
    pub(crate) fn home(&self) -> Home {
        Home::at(&self.home)
    }

    /// Starts the peer, as `roost up &` does: it may not listen yet.
    pub(crate) fn start(&mut self) {
        let log = fs::File::create(self.home.join("log")).unwrap();
        let mut command = Command::new(if self.namespace.is_some() { "ip" } else { ROOST });
        if let Some(namespace) = &self.namespace {
            // It becomes the peer: the process is the same.
            command.args(["netns", "exec", namespace, ROOST]);
        }
        command
            .arg("up")
            .arg("--home")
            .arg(&self.home)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.peer = Some(command.spawn().unwrap());
    }

    /// Tells the peer to stop, as Ctrl-C does.
    pub(crate) fn stop(&self) {
        let pid = i32::try_from(self.peer.as_ref().unwrap().id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT).unwrap();
    }

    /// What `roost inbox` lists.
    pub(crate) fn inbox(&self) -> Vec<Value> {
        self.roost(&["inbox"], "")["messages"].as_array().unwrap().clone()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(peer) = &mut self.peer {
            let _ = peer.kill();
            let _ = peer.wait();
        }
    }
}
