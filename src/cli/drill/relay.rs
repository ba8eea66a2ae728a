//! A relay of TCP connections: into another network, or through bad weather, where bytes take their time and connections break. It
//! reads nothing of what it carries.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::network::inside;

/// Bytes that are carried at a time.
const CHUNK: usize = 16 << 10;
/// Most connections at a time: more are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// How often a relay that was told to end looks.
const LOOK: Duration = Duration::from_millis(50);

/// What the way is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weather {
    /// How long each chunk takes.
    pub(super) delay: Duration,
    /// One chunk of so many is lost, and its connection with it, as TCP gives up; none when 0.
    pub(super) lost_one_of: usize,
}

/// Weather that comes and goes; fair at first. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Sky {
    weather: Weather,
    is_bad: Arc<AtomicBool>,
}

impl Sky {
    /// As if nothing was between, for ever.
    pub(super) fn fair() -> Self {
        Self::of(Weather { delay: Duration::ZERO, lost_one_of: 0 })
    }
    /// That of `weather`, once it is bad.
    pub(super) fn of(weather: Weather) -> Self {
        Self { weather, is_bad: Arc::default() }
    }
    /// From now on it is, or is not.
    pub(super) fn is_bad(&self, bad: bool) {
        self.is_bad.store(bad, Ordering::SeqCst);
    }
    /// The weather now, if it is bad.
    fn now(&self) -> Option<Weather> {
        self.is_bad.load(Ordering::SeqCst).then_some(self.weather)
    }
}

/// A relay; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    ends: Arc<AtomicBool>,
}

/// Where the other end is.
#[derive(Debug, Clone)]
struct Way {
    to: SocketAddr,
    namespace: Option<String>,
    sky: Sky,
    open: Arc<AtomicUsize>,
    carried: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
}

impl Relay {
    /// From `at` to `to`, which is in `namespace` if there is one.
    ///
    /// # Errors
    /// When nobody can listen there.
    pub(super) fn start(at: SocketAddr, to: SocketAddr, namespace: Option<String>, sky: Sky) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(at).with_context(|| format!("a relay cannot listen on {at}"))?;
        listener.set_nonblocking(true)?;
        let ends = Arc::new(AtomicBool::new(false));
        let way = Way { to, namespace, sky, open: Arc::default(), carried: Arc::default(), ends: ends.clone() };
        std::thread::spawn(move || way.accept(&listener));
        Ok(Self { ends })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
    }
}

impl Way {
    fn accept(&self, listener: &TcpListener) {
        while !self.ends.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((stream, _)) if self.open.load(Ordering::SeqCst) < CONNECTIONS_MAX => {
                    let way = self.clone();
                    way.open.fetch_add(1, Ordering::SeqCst);
                    std::thread::spawn(move || {
                        // A connection that breaks is what its two ends see.
                        let _ = way.carry(stream);
                        way.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
                Ok(_) => {}
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn carry(&self, from: TcpStream) -> anyhow::Result<()> {
        let target = self.to;
        let to = match &self.namespace {
            Some(namespace) => inside(namespace, move || TcpStream::connect(target))??,
            None => TcpStream::connect(target)?,
        };
        from.set_nonblocking(false)?;
        from.set_nodelay(true)?;
        to.set_nodelay(true)?;
        let (back_from, back_to) = (to.try_clone()?, from.try_clone()?);
        let way = self.clone();
        let back = std::thread::spawn(move || way.pump(back_from, back_to));
        self.pump(from, to);
        // It has told its ends by closing them.
        let _ = back.join();
        Ok(())
    }

    /// Carries one direction until it ends.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut chunk = vec![0; CHUNK];
        // So that a relay that ends does not leave threads that wait for ever.
        let _ = from.set_read_timeout(Some(Duration::from_secs(1)));
        while !self.ends.load(Ordering::SeqCst) {
            let read = match from.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            if let Some(weather) = self.sky.now() {
                std::thread::sleep(weather.delay);
                let carried = self.carried.fetch_add(1, Ordering::SeqCst) + 1;
                if carried.checked_rem(weather.lost_one_of) == Some(0) {
                    let _ = from.shutdown(Shutdown::Both);
                    break;
                }
            }
            if to.write_all(&chunk[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut chunk = [0; 100];
                    while let Ok(read) = stream.read(&mut chunk) {
                        if read == 0 || stream.write_all(&chunk[..read]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        at
    }

    fn free() -> SocketAddr {
        TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn bytes_come_back_through_a_relay_and_in_bad_weather_connections_break() {
        let (echo, at) = (echo(), free());
        let _relay = Relay::start(at, echo, None, Sky::fair()).unwrap();
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");

        let at = free();
        let weather = Weather { delay: Duration::from_millis(1), lost_one_of: 1 };
        let sky = Sky::of(weather);
        sky.is_bad(true);
        let _bad = Relay::start(at, echo, None, sky).unwrap();
        let mut stream = TcpStream::connect(at).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut all = Vec::new();
        // Broken or ended, but nothing came.
        let _ = stream.read_to_end(&mut all);
        assert!(all.is_empty());
    }
}
