//! Two people make a group as they would on two machines, with nothing but the commands, and mail each other from scripts.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{ROOST, wait_for};

/// One person's machine.
struct Machine {
    home: PathBuf,
    peer: Option<Child>,
}

impl Machine {
    fn new(dir: &TempDir, name: &str) -> Self {
        Self { home: dir.path().join(name), peer: None }
    }

    /// Runs a command with `--json`; it must succeed.
    fn roost(&self, args: &[&str], input: &str) -> Value {
        let mut command = Command::new(ROOST);
        command.args(args).arg("--json").arg("--home").arg(&self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that reads no input may have ended before this.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let done = child.wait_with_output().unwrap();
        let (out, said) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{args:?}: {out}\n{said}");
        serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{args:?}: {e}: {out}"))
    }

    /// There is no network on a machine that builds: the peer tells others its loopback address.
    fn reachable_on_loopback(&self) {
        let path = self.home.join("config.toml");
        let config = fs::read_to_string(&path).unwrap();
        assert!(config.contains("announce = []"), "{config}");
        let config = config.replace("announce = []", "announce = [\"127.0.0.1\"]");
        fs::write(&path, config.replace("listen = \"0.0.0.0\"", "listen = \"127.0.0.1\"")).unwrap();
    }

    /// Starts the peer, as `roost up &` does: it may not listen yet.
    fn start(&mut self) {
        let log = fs::File::create(self.home.join("log")).unwrap();
        let mut command = Command::new(ROOST);
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
    fn stop(&self) {
        let pid = i32::try_from(self.peer.as_ref().unwrap().id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGINT).unwrap();
    }

    fn inbox(&self) -> Vec<Value> {
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

fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn two_people_make_a_group_by_invite_and_mail_each_other_from_scripts() {
    let dir = tempfile::tempdir().unwrap();
    let (mut alice, mut bob) = (Machine::new(&dir, "alice"), Machine::new(&dir, "bob"));
    alice.roost(&["init", "alice@acme"], "");
    alice.reachable_on_loopback();
    alice.start();
    // Right after it, as in the README: the command waits until the peer listens.
    let founded = alice.roost(&["group", "create", "acme", "--mode", "full", "--copies", "1"], "");
    assert!(founded["recovery_code"].as_str().is_some_and(|code| !code.is_empty()));
    let invite = alice.roost(&["group", "invite", "--as", "bob"], "")["invite"].as_str().unwrap().to_owned();
    bob.roost(&["init", "bob@acme"], "");
    bob.reachable_on_loopback();
    let joined = bob.roost(&["group", "join", &invite], "");
    assert_eq!((&joined["stopped_again"], &joined["group"]["group"]), (&true.into(), &"acme".into()));
    bob.start();
    assert_eq!(bob.roost(&["group", "status"], "")["members"].as_array().unwrap().len(), 2);

    // Long enough to be read in many chunks, some of which end between a CR and its LF.
    let attached = dir.path().join("plan.pdf");
    fs::write(&attached, vec![7; 3 << 20]).unwrap();
    let sent = alice.roost(
        &["send", "--to", "bob@acme", "--subject", "Grüße", "--attach", path_text(&attached), "--wait-safe", "0"],
        "See you\nat nine.\n",
    );
    assert_eq!(sent["ok"], true);
    let message = wait_for("the mail is in bob's inbox", || bob.inbox().into_iter().next());
    let (uid, out) = (message["uid"].to_string(), dir.path().join("got.eml"));
    bob.roost(&["read", &uid, "-o", path_text(&out)], "");
    let got = fs::read_to_string(&out).unwrap();
    assert!(got.contains("From: alice@acme\r\n") && got.contains("See you\r\nat nine.\r\n"), "{got}");
    wait_for("alice's outbox is empty", || {
        alice.roost(&["outbox"], "")["mails"].as_array().unwrap().is_empty().then_some(())
    });
    assert_eq!(bob.inbox()[0]["body"], "here");

    let imap = bob.roost(&["status"], "")["ports"]["imap"].as_str().unwrap().to_owned();
    let mut program = BufReader::new(TcpStream::connect(imap).unwrap());
    program.get_ref().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut said = String::new();
    program.read_line(&mut said).unwrap();
    assert!(said.starts_with("* OK"), "{said}");
    bob.stop();
    program.read_to_string(&mut said).unwrap();
    assert!(said.contains("* BYE"), "a mail program is told that the peer stops: {said}");
}
