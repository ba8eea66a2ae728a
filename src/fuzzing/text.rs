//! Targets for what people write and hand each other as text: config, cluster files, cards, invites, names.

use std::path::Path;

use crate::config::cluster::Cluster;
use crate::config::{Config, Rate, set_ports};
use crate::core::postbox::access::MailboxName;
use crate::mime::Section;
use crate::model::card::{Card, Invite};
use crate::model::msglist::Cursor;
use crate::model::{Address, ByteSize, Digest, GroupName, LocalName, MailId, PeerId, Span};
use crate::wire::code::{self, Code};
use crate::wire::laws::{door, reads_as_it_prints};
use crate::wire::{decode, encode};

/// `config.toml`: what is read is written as what reads as it again, and ports are set without changing anything else.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(config) = toml::from_str::<Config>(text) else { return };
    let written = config.to_commented_toml();
    assert_eq!(toml::from_str::<Config>(&written).unwrap(), config, "{written}");
    let ports = [("mail", "smtp_port", 2525), ("net", "https_port", 7001), ("console", "console_port", 9000)];
    let Ok(set) = set_ports(Path::new("config.toml"), text, &ports) else {
        // An array of a section's values in their order is read as that section.
        let table: toml::Table = toml::from_str(text).unwrap();
        return assert!(ports.iter().any(|(section, ..)| table.get(*section).is_some_and(|s| !s.is_table())), "{text}");
    };
    let mut expected = config;
    (expected.mail.smtp_port, expected.net.https_port, expected.console.console_port) = (2525, 7001, 9000);
    assert_eq!(toml::from_str::<Config>(&set).unwrap(), expected, "{set}");
}

/// A cluster file: what is read is written as what reads as it again.
pub fn cluster_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(cluster) = Cluster::parse("cluster.toml", text) else { return };
    let written = toml::to_string(&cluster).unwrap();
    assert_eq!(Cluster::parse("written", &written).unwrap(), cluster, "{written}");
    assert!(cluster.peers().count() >= cluster.groups.len());
}

/// Contact cards and invites: as lines, and as the records in lines whose check is right.
pub fn cards(data: &[u8]) {
    let Some((which, rest)) = door(data, 3) else { return };
    match which {
        0 => {
            let Ok(line) = std::str::from_utf8(rest) else { return };
            let (card, invite) = (code::from_line::<Card>(line), code::from_line::<Invite>(line));
            assert!(card.is_err() || invite.is_err(), "a card is no invite");
            let _: (Option<()>, Option<()>) = (card.ok().map(|c| is_a_line(&c)), invite.ok().map(|i| is_a_line(&i)));
        }
        1 => drop(decode::<Card>(rest).map(|card| is_a_line(&card))),
        _ => drop(decode::<Invite>(rest).map(|invite| is_a_line(&invite))),
    }
}

/// The line of a record is read as that record, but for addresses and peers that a line has no room for.
fn is_a_line<T: Code + PartialEq + std::fmt::Debug>(value: &T) {
    let line = code::to_line(value);
    assert!(line.len() <= code::CODE_MAX, "{line}");
    // Base64 of the record and of its check.
    let whole = T::PREFIX.len() + ((encode(value).len() + 4) * 4).div_ceil(3);
    let (mut again, mut value) = (code::from_line::<T>(&line).unwrap(), value.clone());
    let (read, written) = (std::mem::take(again.peers()), std::mem::take(value.peers()));
    assert_eq!(again, value, "{line}");
    assert_eq!(read == written, whole <= code::CODE_MAX, "{line}");
    for (read, written) in read.iter().zip(&written) {
        assert_eq!(read.peer_id, written.peer_id, "{line}");
        assert!(read.addrs.iter().all(|addr| written.addrs.contains(addr)), "{line}");
    }
}

/// Everything that has a printed form: what is read prints as what reads as it again.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(address) = reads_as_it_prints::<Address>(text) {
        assert_eq!(Address::new(address.name().clone(), address.group().clone()), address);
    }
    reads_as_it_prints::<LocalName>(text);
    reads_as_it_prints::<GroupName>(text);
    reads_as_it_prints::<PeerId>(text);
    reads_as_it_prints::<MailId>(text);
    reads_as_it_prints::<Digest>(text);
    reads_as_it_prints::<ByteSize>(text);
    reads_as_it_prints::<Span>(text);
    reads_as_it_prints::<Cursor>(text);
    if let Ok(rate) = Rate::try_from(text.to_owned()) {
        assert_eq!(Rate::try_from(String::from(rate)), Ok(rate), "{text:?}");
    }
    if let Ok(name) = MailboxName::new(text) {
        assert_eq!(MailboxName::new(name.as_str()).unwrap(), name, "{text:?}");
    }
    if let Ok(section) = text.parse::<Section>() {
        assert!(section.part.iter().all(|number| *number > 0), "{section:?}");
    }
}
