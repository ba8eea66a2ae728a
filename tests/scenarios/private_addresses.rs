//! A stranger who says that he lives at a private address is not dialled there: nobody is led to scan its own network.

use std::fs;
use std::net::TcpListener;

use roost::console::protocol::{Judged, Request};
use roost::core::postbox::Verdict;
use roost::core::postbox::io::Requests;

use crate::harness::{Team, wait_for};

/// A private address at which nobody but the test listens.
const ELSEWHERE: &str = "127.66.0.1";

/// The ports of a peer at the other address.
struct Listeners(Vec<TcpListener>);

impl Listeners {
    fn at_the_ports_of(team: &Team, name: &str) -> Self {
        let net = roost::config::Config::load(&team.home(name).config_file()).unwrap().net;
        let listen = |port: u16| {
            let listener = TcpListener::bind((ELSEWHERE, port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        Self([net.https_port, net.libp2p_port].map(listen).into())
    }

    fn somebody_came(&self) -> bool {
        self.0.iter().any(|listener| listener.accept().is_ok())
    }
}

#[test]
fn a_stranger_whose_descriptor_names_a_private_address_is_not_dialled_before_he_is_accepted() {
    let team = Team::of_two_groups();
    let path = team.home("rita").config_file();
    team.configure("rita", "net", "dial_private = false");
    assert!(fs::read_to_string(path).unwrap().contains("dial_private = false"));
    let _: serde_json::Value = team.ask("rita", &Request::ContactRemove { address: team.address("dave") });
    // What is left of dave in rita's memory goes. From now on his descriptor says that he is elsewhere.
    team.kill(&["rita"]);
    let listeners = Listeners::at_the_ports_of(&team, "dave");
    team.configure("dave", "net", &format!("announce = [\"{ELSEWHERE}\"]"));
    team.start(&["rita"]);
    wait_for("rita's share of the DHT has what dave put there", || {
        let dht = team.status("rita").brains["dht"].clone();
        (dht["peers"].as_u64()? >= 1 && dht["entries"].as_u64()? >= 4).then_some(())
    });
    let mail = team.submit("dave", &["rita"], team.letter("dave", "rita", 30_000));
    wait_for("dave asks for consent", || {
        let requests: Requests = team.ask("rita", &Request::Requests);
        (requests.waiting.len() == 1).then_some(())
    });
    team.rests(&["rita", "dave"]);
    assert!(!listeners.somebody_came(), "rita's peer dialled a private address of a stranger");

    // That rita's peer knows that address is seen once he is no stranger any more.
    let _: Judged = team.ask("rita", &Request::Judge { who: "dave@acme".to_owned(), verdict: Verdict::Granted });
    team.reader("rita").sees(&mail);
    let mut rita = team.reader("rita");
    wait_for("somebody comes to the address of a contact", || {
        // Nobody answers there.
        let _ = rita.opens(&mail);
        listeners.somebody_came().then_some(())
    });
}
