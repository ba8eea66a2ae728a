//! Files of `cluster-config/`: many peers on one machine. A file names groups, their policy, and who has whose card.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ConfigError, Console, Mail, Net, Quota, Rate, read};
use crate::model::{Address, GroupName, LocalName, Policy};

/// A file of `cluster-config/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Groups, in the order in which they are made.
    #[serde(rename = "group")]
    pub groups: Vec<ClusterGroup>,
    /// Who exchanges cards with whom.
    #[serde(default)]
    pub contacts: Vec<ClusterContacts>,
    /// `[mail]` of every peer.
    #[serde(default)]
    pub mail: Mail,
    /// `[net]` of every peer; on one machine private addresses are dialled, whatever stands here.
    #[serde(default)]
    pub net: Net,
    /// `[quota]` of every peer.
    #[serde(default)]
    pub quota: Quota,
    /// `[console]` of every peer.
    #[serde(default)]
    pub console: Console,
    /// `[net] upload_limit` of single peers, in the place of that of every peer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub upload_limits: BTreeMap<Address, Rate>,
}

/// One group of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterGroup {
    /// Its name.
    pub name: GroupName,
    /// Its members; the first founds it and invites the others.
    pub members: Vec<LocalName>,
    /// How members' mail is kept.
    #[serde(default, deserialize_with = "crate::model::policy::strict")]
    pub replication: Policy,
}

/// `peer` and each of `with` have each other's card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterContacts {
    /// One side.
    pub peer: Address,
    /// The other sides.
    pub with: Vec<Address>,
}

impl Cluster {
    /// Reads and checks a cluster file.
    ///
    /// # Errors
    /// [`ConfigError`] with the file and what is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bad = |why: String| ConfigError::Content { path: path.to_owned(), why };
        let cluster: Cluster = toml::from_str(&read(path)?).map_err(|e| bad(e.to_string()))?;
        cluster.check().map_err(bad)
    }

    /// Reads a cluster from text, for files that are built in.
    ///
    /// # Errors
    /// [`ConfigError::Content`], naming the file `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let bad = |why: String| ConfigError::Content { path: name.into(), why };
        let cluster: Cluster = toml::from_str(text).map_err(|e| bad(e.to_string()))?;
        cluster.check().map_err(bad)
    }

    fn check(self) -> Result<Self, String> {
        let peers: Vec<Address> = self.peers().map(|(address, _)| address).collect();
        for (i, address) in peers.iter().enumerate() {
            if peers[..i].iter().any(|other| other.name() == address.name()) {
                return Err(format!("two peers are called {}: their homes would be the same folder", address.name()));
            }
        }
        for group in &self.groups {
            group.replication.clone().check().map_err(|e| format!("group {}: {e}", group.name))?;
            if group.members.is_empty() {
                return Err(format!("group {} has no members", group.name));
            }
        }
        if let Some(address) = self.upload_limits.keys().find(|address| !peers.contains(address)) {
            return Err(format!("upload_limits names {address}, which is no peer of this file"));
        }
        for contact in self.contacts.iter().flat_map(|c| c.with.iter().chain([&c.peer])) {
            if !peers.contains(contact) {
                return Err(format!("contacts name {contact}, which is no peer of this file"));
            }
        }
        Ok(self)
    }

    /// Every peer, founders first in their group, with whether it founds it.
    pub fn peers(&self) -> impl Iterator<Item = (Address, bool)> + '_ {
        self.groups.iter().flat_map(|group| {
            let founder = group.members.first();
            let address = |name: &LocalName| Address::new(name.clone(), group.name.clone());
            group.members.iter().map(move |name| (address(name), Some(name) == founder))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_cluster_files_are_right() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config");
        let six = Cluster::load(&dir.join("team-of-six.toml")).unwrap();
        assert_eq!(six.peers().count(), 7);
        assert_eq!(six.contacts.iter().map(|c| c.with.len()).sum::<usize>(), 6);
        let three = Cluster::load(&dir.join("team-of-three.toml")).unwrap();
        assert_eq!(three.groups[0].replication.copies, 2);
        Cluster::load(&dir.join("demo.toml")).unwrap();
    }

    #[test]
    fn a_contact_that_is_no_peer_is_named() {
        let text = "[[group]]\nname = \"a\"\nmembers = [\"x\"]\n[[contacts]]\npeer = \"x@a\"\nwith = [\"y@b\"]\n";
        assert!(Cluster::parse("t", text).unwrap_err().to_string().contains("y@b"));
    }

    #[test]
    fn single_peers_have_upload_limits_of_their_own() {
        let group = "[[group]]\nname = \"a\"\nmembers = [\"x\", \"y\"]\n";
        let limited = |who: &str| Cluster::parse("t", &format!("{group}[upload_limits]\n\"{who}\" = \"20 Mbit/s\"\n"));
        let cluster = limited("y@a").unwrap();
        assert_eq!(cluster.upload_limits.get(&"y@a".parse().unwrap()), Some(&Rate(Some(2_500_000))));
        assert_eq!(Cluster::parse("t", &toml::to_string(&cluster).unwrap()).unwrap(), cluster);
        assert!(limited("z@a").unwrap_err().to_string().contains("z@a"));
    }

    #[test]
    fn a_slip_in_a_policy_is_named() {
        let group = "[[group]]\nname = \"a\"\nmembers = [\"x\"]\n";
        for slip in ["[group.replication]\ncopys = 4\n", "[group.replication.fragments]\nk = 1\nn = 2\nm = 3\n"] {
            let error = Cluster::parse("t", &format!("{group}{slip}")).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
        let cluster = Cluster::parse("t", &format!("{group}[group.replication]\ncopies = 4\n")).unwrap();
        assert_eq!(cluster.groups[0].replication, Policy { copies: 4, ..Policy::default() });
    }
}
