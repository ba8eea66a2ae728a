//! A group is cut in two, each half goes on under a master of its own, and after it is healed there is one master, every mail
//! came once, and what was held too often is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use roost::model::{Address, MailId, Part};
use serde_json::{Value, json};

use crate::harness::{Machine, Network, Side, bytes_in, wait_for};

const SIX: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "frank"];
const EAST: [&str; 3] = ["alice", "bob", "carol"];

struct Halves {
    machines: BTreeMap<&'static str, Machine>,
    network: Network,
    dir: tempfile::TempDir,
}

impl Halves {
    /// alice, bob and carol on one side, dave, erin and frank on the other; any 2 of 3 fragments.
    fn of(network: Network) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut machines, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for name in SIX {
            let mut machine = Machine::new(dir.path(), name);
            machine.init_apart(&format!("{name}@acme"), &mut taken);
            machine.on(&network, if EAST.contains(&name) { Side::East } else { Side::West });
            machine.start();
            if name == "alice" {
                let policy = "--mode fragments --k 2 --n 3 --copies 2 --whole-below 1KiB --lost-after 6s";
                let create: Vec<&str> = ["group", "create", "acme"].into_iter().chain(policy.split(' ')).collect();
                machine.roost(&create, "");
            }
            machines.insert(name, machine);
        }
        let halves = Self { machines, network, dir };
        for name in &SIX[1..] {
            let invite = halves.at("alice").roost(&["group", "invite", "--as", name], "");
            let invite = invite["invite"].as_str().unwrap();
            wait_for("it listens", || halves.at(name).try_roost(&["status"], "").ok());
            halves.at(name).roost(&["group", "join", invite], "");
        }
        halves
    }

    fn at(&self, name: &str) -> &Machine {
        &self.machines[name]
    }

    fn group(&self, name: &str) -> Value {
        self.at(name).roost(&["status"], "")["brains"]["group"].clone()
    }

    /// Whose view `name` has, and whom that calls lost.
    fn view(&self, name: &str) -> (String, BTreeSet<String>) {
        let group = self.group(name);
        let members = group["members"].as_array().unwrap().iter();
        let lost = members.filter(|m| m["lost"] == true).map(|m| m["address"].as_str().unwrap().to_owned());
        (group["view_by"].as_str().unwrap_or_default().to_owned(), lost.collect())
    }

    fn wait_for_view(&self, of: &[&str], by: &str, lost: &[&str]) {
        let expected = (format!("{by}@acme"), lost.iter().map(|name| format!("{name}@acme")).collect());
        for name in of {
            wait_for("there is one master, who says who is lost", || (self.view(name) == expected).then_some(()));
        }
    }

    /// Sends a mail of a subject and a text that nobody else has.
    fn send(&self, from: &str, to: &str) -> Sent {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).unwrap();
        let mut random = vec![0; 40_000];
        blake3::Hasher::new().update(&seed).finalize_xof().fill(&mut random);
        let text: String = random.chunks(30).map(|line| hex::encode(line) + "\n").collect();
        let subject = hex::encode(seed);
        self.at(from).roost(&["send", "--to", &format!("{to}@acme"), "--subject", &subject], &text);
        Sent { to: to.to_owned(), subject, text }
    }

    /// How often a mail is in its receiver's inbox.
    fn uids_of(&self, mail: &Sent) -> Vec<String> {
        let inbox = self.at(&mail.to).inbox();
        inbox.iter().filter(|line| line["subject"] == mail.subject).map(|line| line["uid"].to_string()).collect()
    }

    /// Its receiver opens a mail, and has it once.
    fn reads(&self, mail: &Sent) {
        let uid = wait_for("the mail is in the inbox", || self.uids_of(mail).into_iter().next());
        let out = self.dir.path().join("got.eml");
        let read = ["read", &uid, "-o", out.to_str().unwrap()];
        wait_for("it can be read", || self.at(&mail.to).try_roost(&read, "").ok());
        let got = fs::read_to_string(&out).unwrap().replace("\r\n", "\n");
        assert!(got.contains(&mail.text), "{} got another text", mail.to);
        fs::remove_file(&out).unwrap();
        assert_eq!(self.uids_of(mail).len(), 1, "once");
    }

    /// Who has which part of the mails of `owner` on the disk.
    fn parts(&self, owner: &str) -> BTreeMap<MailId, Vec<(&'static str, Part)>> {
        let address: Address = format!("{owner}@acme").parse().unwrap();
        let mut parts: BTreeMap<MailId, Vec<_>> = BTreeMap::new();
        for name in SIX {
            for (h, part) in self.at(name).home().mirrored_parts(&address).unwrap() {
                parts.entry(h).or_default().push((name, part));
            }
        }
        parts
    }

    /// Each of `mails` mails of `owner` is held as three fragments, each once, and its owner counts one member that may go.
    fn is_as_placed(&self, owner: &str, mails: usize) -> bool {
        let once = |held: &Vec<(&str, Part)>| {
            let parts: BTreeSet<Part> = held.iter().map(|(_, part)| *part).collect();
            held.len() == 3 && parts == (0..3).map(|i| Part::Fragment { k: 2, i }).collect()
        };
        let lines = self.at(owner).roost(&["outbox"], "")["mails"].as_array().unwrap().clone();
        let parts = self.parts(owner);
        let safe = lines.iter().all(|line| line["sealed"][0]["safe"] == 1);
        (lines.len(), parts.len()) == (mails, mails) && safe && parts.values().all(once)
    }

    /// Bytes that the journals have taken, which is all that the replication writes besides parts.
    fn written(&self) -> u64 {
        let bytes = |name: &&str| bytes_in(&self.at(name).home().journal_dir());
        SIX.iter().map(bytes).sum()
    }
}

struct Sent {
    to: String,
    subject: String,
    text: String,
}

#[test]
fn after_a_partition_there_is_one_master_every_mail_came_once_and_surplus_parts_are_gone() {
    let network = match Network::new() {
        Ok(network) => network,
        Err(why) => return eprintln!("skipped, no network can be made here: {why}"),
    };
    let halves = Halves::of(network);
    let (east, west) = SIX.split_at(3);
    halves.wait_for_view(&SIX, "alice", &[]);
    let mut mails: Vec<Sent> = (0..6).map(|_| halves.send("alice", "dave")).collect();
    wait_for("they are held as placed", || halves.is_as_placed("alice", 6).then_some(()));
    let before = halves.parts("alice");

    halves.network.cut();
    let cut = tokio::time::Instant::now();
    halves.wait_for_view(east, "alice", west);
    halves.wait_for_view(west, "dave", east);
    eprintln!("each half has a master of its own {:.1} s after the cut", cut.elapsed().as_secs_f32());
    // On both sides, to the same side and to the other.
    for (from, to) in [("alice", "bob"), ("carol", "erin"), ("dave", "frank"), ("erin", "carol")] {
        mails.push(halves.send(from, to));
    }
    let (to_bob, to_frank) = (&mails[6], &mails[8]);
    halves.reads(to_bob);
    halves.reads(to_frank);
    let taken_over = wait_for("each half has made what it lacked anew", || {
        let now = halves.parts("alice");
        let mails = before.keys().map(|h| now.get(h).map_or(0, Vec::len)).collect::<Vec<_>>();
        mails.iter().any(|parts| *parts > 3).then(|| mails.iter().sum::<usize>())
    });
    eprintln!("{taken_over} parts of 6 mails are held on both sides together, 18 are needed");

    halves.network.heal();
    let healed = tokio::time::Instant::now();
    halves.wait_for_view(&SIX, "alice", &[]);
    eprintln!("one master {:.1} s after it was healed", healed.elapsed().as_secs_f32());
    wait_for("nothing is held too often or too little", || halves.is_as_placed("alice", 6).then_some(()));
    eprintln!("each part once {:.1} s after it was healed", healed.elapsed().as_secs_f32());
    for mail in &mails {
        if mail.subject == to_bob.subject || mail.subject == to_frank.subject {
            assert_eq!(halves.uids_of(mail).len(), 1, "once");
        } else {
            halves.reads(mail);
        }
    }
    for name in SIX {
        wait_for("every outbox is empty", || {
            (halves.at(name).roost(&["outbox"], "")["mails"] == json!([])).then_some(())
        });
        wait_for("the members hold nothing any more", || halves.parts(name).is_empty().then_some(()));
    }
    let mut last = (0, 0);
    wait_for("the group rests", || {
        std::thread::sleep(std::time::Duration::from_secs(1));
        let written = halves.written();
        last = if written == last.0 { (written, last.1 + 1) } else { (written, 0) };
        (last.1 >= 5).then_some(())
    });
}
