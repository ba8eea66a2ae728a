//! The client of a running peer's control socket: one request, progress lines, one answer. It never starts a peer.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::progress::Progress;
use crate::console::protocol::{Answer, LINE_MAX, Request};
use crate::store::home::Home;

/// Longest silence of a peer that works on a request: it sends progress lines more often.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a command waits for a peer that may have just been started: `roost up &` and the command after it.
const STARTING: Duration = Duration::from_secs(2);
/// The same while somebody holds the home's lock: a peer reads its journal before it listens.
const STARTING_LOCKED: Duration = Duration::from_secs(10);
/// How often it is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// Longest path of a socket, bytes: what Linux allows.
const SOCKET_PATH_MAX: usize = 107;

/// Why a peer did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("no peer is running on {home}; start it with `roost up --home {home}`", home = home.display())]
    NoPeer {
        /// The home.
        home: PathBuf,
    },
    /// The path of the home is too long for a socket.
    #[error("the path {} is too long for a socket: {SOCKET_PATH_MAX} bytes at most; choose a home with a shorter path", path.display())]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the peer on {home} does not answer: {source}; its log or terminal says more", home = home.display())]
    Broken {
        /// The home.
        home: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// An answer that is none.
    #[error("the peer on {home} answers with what this command does not understand: {why}; are both of the same version?", home = home.display())]
    Protocol {
        /// The home.
        home: PathBuf,
        /// What the decoder says.
        why: String,
    },
    /// The peer says no.
    #[error("{why}")]
    Refused {
        /// What happened, why, and what to do next.
        why: String,
    },
}

/// Asks the peer of one home.
#[derive(Debug, Clone)]
pub struct Control {
    home: Home,
    silence: Duration,
    /// Whether a peer that does not listen yet is waited for.
    patient: bool,
}

impl Control {
    /// Of the peer on `home`; nothing is opened yet.
    pub fn of(home: &Path) -> Self {
        Self { home: Home::at(home), silence: SILENCE, patient: true }
    }

    /// The same, but when nobody listens it says so at once instead of waiting for a peer that may be starting.
    pub fn at_once(self) -> Self {
        Self { patient: false, ..self }
    }

    /// The same, giving up after `silence` without a line.
    pub fn giving_up_after(self, silence: Duration) -> Self {
        Self { silence, ..self }
    }

    /// Asks, and shows progress on a terminal.
    ///
    /// # Errors
    /// [`ControlError`]: no peer runs, the connection broke, or the peer says no.
    pub fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ControlError> {
        let mut bar = None;
        self.ask_telling(request, &mut |text, percent| {
            bar.get_or_insert_with(|| Progress::start(text)).at(text, percent);
        })
    }

    /// Asks, and tells progress.
    ///
    /// # Errors
    /// [`ControlError`]: no peer runs, the connection broke, or the peer says no.
    pub fn ask_telling<T: DeserializeOwned>(
        &self,
        request: &Request,
        progress: &mut dyn FnMut(&str, Option<u8>),
    ) -> Result<T, ControlError> {
        let home = self.home.root();
        let broken = |source| ControlError::Broken { home: home.to_owned(), source };
        let protocol = |why: String| ControlError::Protocol { home: home.to_owned(), why };
        let mut stream = self.connect()?;
        let mut line = serde_json::to_vec(request).map_err(|e| protocol(e.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(broken)?;
        let mut reader = BufReader::new(stream);
        loop {
            line.clear();
            let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
            let read = reader.by_ref().take(limit).read_until(b'\n', &mut line).map_err(broken)?;
            if read == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            match serde_json::from_slice(&line).map_err(|e| protocol(e.to_string()))? {
                Answer::Progress { text, percent } => progress(&text, percent),
                Answer::Done { value } => return serde_json::from_value(value).map_err(|e| protocol(e.to_string())),
                Answer::Failed { why } => return Err(ControlError::Refused { why }),
            }
        }
    }

    fn connect(&self) -> Result<UnixStream, ControlError> {
        let home = self.home.root().to_owned();
        let path = self.home.control_socket();
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ControlError::PathTooLong { path });
        }
        let start = Instant::now();
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                    let waited = start.elapsed();
                    let goes_on = waited < STARTING || waited < STARTING_LOCKED && self.home.is_locked();
                    if !self.patient || !self.home.is_initialised() || !goes_on {
                        return Err(ControlError::NoPeer { home });
                    }
                    std::thread::sleep(TRY_AGAIN);
                }
                Err(source) => return Err(ControlError::Broken { home, source }),
            }
        };
        let timed = stream.set_read_timeout(Some(self.silence)).and(stream.set_write_timeout(Some(self.silence)));
        timed.map_err(|source| ControlError::Broken { home, source })?;
        Ok(stream)
    }

    /// Waits for a peer as a question does, and asks nothing.
    ///
    /// # Errors
    /// [`ControlError`]: no peer runs.
    pub fn reach(&self) -> Result<(), ControlError> {
        self.connect().map(drop)
    }

    /// Whether a peer answers at this moment.
    pub fn is_answered(&self) -> bool {
        self.clone().at_once().reach().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::protocol::Line;
    use std::os::unix::net::UnixListener;

    /// A peer that answers the next request with these lines.
    fn peer(home: &Path, lines: &'static str) -> std::thread::JoinHandle<String> {
        let listener = UnixListener::bind(home.join("control.sock")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
            stream.write_all(lines.as_bytes()).unwrap();
            asked
        })
    }

    #[test]
    fn progress_is_told_and_the_answer_is_typed() {
        let dir = tempfile::tempdir().unwrap();
        let served = peer(
            dir.path(),
            "{\"line\":\"progress\",\"text\":\"half\",\"percent\":50}\n{\"line\":\"done\",\"value\":{\"line\":\"roost-card:x\"}}\n",
        );
        let mut told = Vec::new();
        let mut tell = |text: &str, percent| told.push((text.to_owned(), percent));
        let line: Line = Control::of(dir.path()).ask_telling(&Request::Card, &mut tell).unwrap();
        assert_eq!(line.line, "roost-card:x");
        assert_eq!(told, [("half".to_owned(), Some(50))]);
        assert_eq!(served.join().unwrap(), "{\"ask\":\"card\"}\n");
    }

    #[test]
    fn a_refusal_is_the_peers_own_words_and_silence_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let served = peer(dir.path(), "{\"line\":\"failed\",\"why\":\"no such UID; try 1\"}\n");
        let control = Control::of(dir.path());
        assert_eq!(control.ask::<Line>(&Request::Card).unwrap_err().to_string(), "no such UID; try 1");
        served.join().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let served = peer(dir.path(), "");
        let error = Control::of(dir.path()).ask::<Line>(&Request::Card).unwrap_err();
        assert!(matches!(error, ControlError::Broken { .. }), "{error}");
        served.join().unwrap();
    }

    /// A folder that a peer may be started on.
    fn initialised() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(Home::at(dir.path()).config_file(), "").unwrap();
        assert!(Home::at(dir.path()).is_initialised());
        dir
    }

    /// A peer that listens after `start` and answers one question.
    fn peer_after(home: &Path, start: Duration) -> std::thread::JoinHandle<()> {
        let home = home.to_owned();
        std::thread::spawn(move || {
            std::thread::sleep(start);
            peer(&home, "{\"line\":\"done\",\"value\":{\"line\":\"roost-card:x\"}}\n").join().unwrap();
        })
    }

    #[test]
    fn a_command_right_after_the_start_of_a_peer_waits_until_it_listens() {
        let dir = initialised();
        let control = Control::of(dir.path());
        assert!(!control.is_answered());
        let served = peer_after(dir.path(), Duration::from_millis(300));
        assert_eq!(control.ask::<Line>(&Request::Card).unwrap().line, "roost-card:x");
        served.join().unwrap();
    }

    #[test]
    fn while_the_home_is_locked_a_command_waits_longer() {
        let dir = initialised();
        let lock = Home::at(dir.path()).lock().unwrap();
        let control = Control::of(dir.path());
        assert!(!control.is_answered());
        let served = peer_after(dir.path(), STARTING + Duration::from_millis(500));
        assert_eq!(control.ask::<Line>(&Request::Card).unwrap().line, "roost-card:x");
        served.join().unwrap();
        drop(lock);
        let error = control.ask::<Line>(&Request::Card).unwrap_err();
        assert!(matches!(error, ControlError::NoPeer { .. }), "{error}");
    }

    #[test]
    fn without_a_peer_it_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = Control::of(dir.path()).ask::<Line>(&Request::Card).unwrap_err().to_string();
        let home = dir.path().display();
        assert_eq!(error, format!("no peer is running on {home}; start it with `roost up --home {home}`"));
        // Nobody listens any more on a socket that is still there.
        drop(UnixListener::bind(dir.path().join("control.sock")).unwrap());
        assert!(!Control::of(dir.path()).is_answered());
        let long = dir.path().join("x".repeat(120));
        assert!(Control::of(&long).ask::<Line>(&Request::Card).unwrap_err().to_string().contains("too long"));
    }
}
