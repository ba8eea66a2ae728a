//! `config.toml` of a home: typed, every field with a documented default. It never guesses: an unknown key is an error with its line.

pub mod cluster;
mod macros;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::{Address, ByteSize, Span};
use macros::section;

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the disk said.
        source: std::io::Error,
    },
    /// The file is not TOML of the expected shape.
    #[error("{path} cannot be used; correct it and start again (cluster-config/reference.toml lists every key)\n{why}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with the line.
        why: String,
    },
}

/// A section of the config that can describe itself.
pub trait Section {
    /// Its fields, in order.
    fn fields() -> Vec<FieldDoc>;
}

/// One field as the reference shows it.
#[derive(Debug)]
pub struct FieldDoc {
    name: &'static str,
    lines: Vec<String>,
    default: Option<String>,
}

impl FieldDoc {
    fn new<T: Serialize>(name: &'static str, lines: &[&str], default: &T) -> Self {
        let default = toml::Value::try_from(default).ok().map(|v| v.to_string());
        Self { name, lines: lines.iter().map(|l| l.trim().to_owned()).collect(), default }
    }
    fn print(&self, out: &mut String) {
        for line in &self.lines {
            out.push_str(&format!("# {line}\n"));
        }
        match &self.default {
            Some(value) => out.push_str(&format!("{} = {value}\n", self.name)),
            None => out.push_str(&format!("# {} =\n", self.name)),
        }
    }
}

/// How a send notification travels first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notify {
    /// To the reader's own peer; into the DHT only when that is not to be reached.
    DirectFirst,
    /// Always into the DHT, as in the papers.
    Dht,
}

/// When the body of a mail is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// When it is opened.
    OnOpen,
    /// As soon as its ns is here.
    Eager,
}

section! {
    /// What concerns this peer's own mail.
    Mail {
        /// Where SMTP submission listens. Port 0 is resolved at the first start and kept here.
        smtp_port: u16 = 0;
        /// Where IMAP listens. Port 0 is resolved at the first start and kept here.
        imap_port: u16 = 0;
        /// "direct-first": a send notification goes to the reader's own peer, and into the DHT when that is off; "dht": into the DHT, and to that peer only when it has said nothing for a day.
        notify: Notify = Notify::DirectFirst;
        /// "on-open": a body is pulled when it is opened; "eager": as soon as it is announced.
        pull: Pull = Pull::OnOpen;
        /// How often the DHT is asked for notifications (5 s with notify = "dht").
        poll: Span = Span::secs(60);
        /// The 250 waits until this many more members could be lost, at most 60 s; 0 does not wait.
        safe_before_yes: u8 = 0;
        /// How often each member is to show one random block of what it says it holds for this peer.
        audit_every: Span = Span::hours(1);
        /// Whether the peer files a copy in Sent; most mail programs do that themselves.
        file_sent: bool = false;
    }
}

section! {
    /// How this peer reaches and is reached by others.
    Net {
        /// Address that the HTTPS routes and libp2p listen on.
        listen: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        /// Names or addresses at which others reach this peer; without one, those of its network interfaces that are not loopback.
        announce: Vec<String> = Vec::new();
        /// Port of the HTTPS routes. Port 0 is resolved at the first start and kept here. Open it in the firewall.
        https_port: u16 = 0;
        /// Port of libp2p over TCP. Port 0 is resolved at the first start and kept here. Open it in the firewall.
        libp2p_port: u16 = 0;
        /// Dial private addresses of strangers too: for tests, benches and clusters on one machine.
        dial_private: bool = false;
        /// Most that this peer sends of mail, for example "20 Mbit/s"; "" does not limit.
        upload_limit: Rate = Rate(None);
    }
}

section! {
    /// What this peer lets others keep on its disk.
    Quota {
        /// Most bytes of sealed mail that each other member may keep here.
        per_member: ByteSize = ByteSize::gib(20);
        /// How often each part that is kept here for others is read again and checked.
        scrub_every: Span = Span::days(7);
    }
}

section! {
    /// The web page of this peer, on this machine only.
    Console {
        /// Whether there is one.
        enabled: bool = true;
        /// Where it listens. Port 0 is resolved at the first start and kept here.
        console_port: u16 = 0;
        /// Whether everybody on this machine may read /metrics; otherwise it takes the token in identity/console.token.
        open_metrics: bool = false;
    }
}

/// A rate as people write it: `"20 Mbit/s"`; `""` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(
    /// Bytes a second.
    pub Option<u64>,
);

/// Bits a second of each unit.
const RATE_UNITS: [(&str, u64); 3] = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1000)];

impl TryFrom<String> for Rate {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Rate(None));
        }
        let bad = || format!("{text:?} is no rate; write for example \"20 Mbit/s\"");
        let split = |(unit, bits): &(&str, u64)| text.strip_suffix(unit).map(|number| (number, *bits));
        let (number, bits) = RATE_UNITS.iter().find_map(split).ok_or_else(bad)?;
        let number: u64 = number.trim().parse().map_err(|_| bad())?;
        number.checked_mul(bits).filter(|rate| *rate > 0).map(|rate| Rate(Some(rate / 8))).ok_or_else(bad)
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        let Some(bytes) = rate.0 else { return String::new() };
        let bits = bytes * 8;
        let (unit, per) = RATE_UNITS.iter().find(|(_, per)| bits.is_multiple_of(*per)).unwrap_or(&("kbit/s", 1000));
        format!("{} {unit}", bits / per)
    }
}

/// `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose home this is.
    pub address: Address,
    /// See [`Mail`].
    #[serde(default)]
    pub mail: Mail,
    /// See [`Net`].
    #[serde(default)]
    pub net: Net,
    /// See [`Quota`].
    #[serde(default)]
    pub quota: Quota,
    /// See [`Console`].
    #[serde(default)]
    pub console: Console,
}

impl Config {
    /// The defaults for `address`.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            mail: Mail::default(),
            net: Net::default(),
            quota: Quota::default(),
            console: Console::default(),
        }
    }
    /// Reads a home's config.
    ///
    /// # Errors
    /// [`ConfigError`] with the file, and the line that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        toml::from_str(&text).map_err(|e| ConfigError::Content { path: path.to_owned(), why: e.to_string() })
    }
    /// The config as a file with every field and its documentation.
    pub fn to_commented_toml(&self) -> String {
        let mut out = format!(
            "# Roost peer; every key is documented in cluster-config/reference.toml\naddress = \"{}\"\n",
            self.address
        );
        let Self { mail, net, quota, console, .. } = self;
        let body = toml::to_string(&TomlBody { mail, net, quota, console });
        out.push('\n');
        out.push_str(&body.unwrap_or_default());
        out
    }
}

#[derive(Serialize)]
struct TomlBody<'a> {
    mail: &'a Mail,
    net: &'a Net,
    quota: &'a Quota,
    console: &'a Console,
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

/// Sets integer keys of sections in a config file's text and leaves all else, comments too, as it is.
///
/// # Errors
/// [`ConfigError::Content`] when the text is not TOML, or what has the name of a section is none.
pub fn set_ports(path: &Path, text: &str, ports: &[(&str, &str, u16)]) -> Result<String, ConfigError> {
    let bad = |why: String| ConfigError::Content { path: path.to_owned(), why };
    let mut document: toml_edit::DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| bad(e.to_string()))?;
    for (section, key, port) in ports {
        // A section that an older config lacks.
        let found = document.entry(section).or_insert(toml_edit::Item::Table(toml_edit::Table::new()));
        let table =
            found.as_table_like_mut().ok_or_else(|| bad(format!("{section} is no section; write [{section}]")))?;
        let mut value = toml_edit::Value::from(i64::from(*port));
        if let Some(before) = table.get(key).and_then(toml_edit::Item::as_value) {
            // The comment behind it.
            *value.decor_mut() = before.decor().clone();
        }
        table.insert(key, toml_edit::Item::Value(value));
    }
    Ok(document.to_string())
}

/// Where `key` of a section stands in a config file, for people: the key, the file, and the line if there is one.
pub fn place_of(path: &Path, section: &str, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let (mut here, head) = (false, format!("[{section}]"));
    let is_it = |line: &str| line.split_once('=').is_some_and(|(name, _)| name.trim() == key);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with('[') {
            here = line.trim_start().starts_with(&head);
        } else if here && is_it(line) {
            return format!("{key} in {}, line {number}", path.display());
        }
    }
    format!("{key} under {head} in {}", path.display())
}

/// `cluster-config/reference.toml`: every key of a home's config and of a cluster file, with its default and what it does.
pub fn reference() -> String {
    let mut out = String::from(
        "# Every key of a home's config.toml, with its default. Generated; a test keeps it equal to the code.\n\n\
         # Whose home this is. Required.\naddress = \"alice@acme\"\n",
    );
    let mut print = |name: &str, fields: Vec<FieldDoc>| {
        out.push_str(&format!("\n[{name}]\n"));
        for field in fields {
            field.print(&mut out);
        }
    };
    print("mail", Mail::fields());
    print("net", Net::fields());
    print("quota", Quota::fields());
    print("console", Console::fields());
    out.push_str(
        "\n# A cluster file has [mail], [net], [quota] and [console] as above for all its peers, and one [[group]] each with name, members\n\
         # and [group.replication]; [[contacts]] with peer and with; [upload_limits] with \"bob@acme\" = \"20 Mbit/s\" for single\n\
         # peers. The policy of a group and its defaults:\n#\n\
         # [group.replication]\n",
    );
    for line in toml::to_string(&crate::model::Policy::default()).unwrap_or_default().lines() {
        let line = format!("# {}", line.replace("[fragments]", "[group.replication.fragments]"));
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_reference_is_the_generated_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster-config/reference.toml");
        if std::env::var_os("ROOST_BLESS").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(committed, reference(), "run: ROOST_BLESS=1 cargo test --lib config");
    }

    #[test]
    fn the_reference_is_the_default_config() {
        let config: Config = toml::from_str(&reference()).unwrap();
        assert_eq!(config, Config::new("alice@acme".parse().unwrap()));
        assert_eq!(toml::from_str::<Config>(&config.to_commented_toml()).unwrap(), config);
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "address = \"a@b\"\n[mail]\nsmpt_port = 25\n").unwrap();
        let why = Config::load(&path).unwrap_err().to_string();
        assert!(why.contains("smpt_port") && why.contains("line 3"), "{why}");
    }

    #[test]
    fn the_place_of_a_key_is_its_line_in_its_own_section() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(
            &path,
            "address = \"a@b\"\n[net]\n# smtp_port = 1\nsmtp_port = 2\n[mail] # mine\n smtp_port=3\n",
        )
        .unwrap();
        assert_eq!(place_of(&path, "mail", "smtp_port"), format!("smtp_port in {}, line 6", path.display()));
        let none = place_of(&path, "mail", "imap_port");
        assert_eq!(none, format!("imap_port under [mail] in {}", path.display()));
    }

    #[test]
    fn rates_read_as_they_print() {
        let rate = Rate::try_from("20 Mbit/s".to_owned()).unwrap();
        assert_eq!(rate.0, Some(2_500_000));
        assert_eq!(String::from(rate), "20 Mbit/s");
        assert!(Rate::try_from("20 MB".to_owned()).is_err() && Rate::try_from("0 Mbit/s".to_owned()).is_err());
        assert_eq!(Rate::try_from(String::new()).unwrap(), Rate(None));
        assert!(Rate::try_from("20 Mbit/sMbit/s".to_owned()).is_err());
    }

    #[test]
    fn ports_are_set_and_comments_stay() {
        let text = "# mine\naddress = \"a@b\"\n[mail]\nsmtp_port = 0 # here\n";
        let new = set_ports(Path::new("x"), text, &[("mail", "smtp_port", 2525), ("net", "https_port", 7001)]).unwrap();
        assert!(new.contains("# mine") && new.contains("smtp_port = 2525 # here"), "{new}");
        assert_eq!(toml::from_str::<Config>(&new).unwrap().net.https_port, 7001);
        let new = set_ports(Path::new("x"), text, &[("console", "console_port", 9000)]).unwrap();
        assert!(new.contains("\n[console]\nconsole_port = 9000"), "{new}");
    }

    #[test]
    fn ports_are_set_in_sections_however_they_are_written_and_in_nothing_else() {
        let set = |text: &str| set_ports(Path::new("x"), text, &[("mail", "smtp_port", 2525)]);
        for text in ["mail.poll = \"1 s\"\n", "mail = { smtp_port = 1, poll = \"1 s\" }\n", "[mail]\npoll = \"1 s\"\n"]
        {
            let new = set(text).unwrap();
            let config: Config = toml::from_str(&format!("address = \"a@b\"\n{new}")).unwrap();
            assert_eq!((config.mail.smtp_port, config.mail.poll), (2525, Span::secs(1)), "{new}");
        }
        for text in ["mail = 3\n", "mail = []\n", "[[mail]]\n"] {
            let why = set(text).unwrap_err().to_string();
            assert!(why.contains("mail is no section"), "{why}");
        }
    }
}
