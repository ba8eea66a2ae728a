//! Letters that do not compress, and random numbers that a test can tell.

use roost::model::Address;

/// Letters of a body line.
const LINE: usize = 76;

/// Random numbers from a seed.
pub(crate) struct Random(blake3::OutputReader);

impl Random {
    /// From a new seed, which is printed so that a failure can be told.
    pub(crate) fn new() -> Self {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).unwrap();
        eprintln!("random seed {}", hex::encode(seed));
        Self(blake3::Hasher::new().update(&seed).finalize_xof())
    }

    /// Bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes) % limit
    }
}

/// A clear mail with everything that submission would add.
#[derive(Clone)]
pub(crate) struct Letter {
    /// Its Message-ID, angle brackets included.
    pub(crate) id: String,
    /// All of it.
    pub(crate) bytes: Vec<u8>,
}

impl Letter {
    /// A letter of about `size` bytes.
    pub(crate) fn new(from: &Address, to: &Address, size: usize) -> Self {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).unwrap();
        let id = format!("<{}@{}>", hex::encode(seed), from.group());
        let mut bytes = format!(
            "From: {from}\r\nTo: {to}\r\nSubject: A letter of {size} bytes\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\
             Message-ID: {id}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"
        )
        .into_bytes();
        let mut random = blake3::Hasher::new().update(&seed).finalize_xof();
        let mut line = [0; LINE];
        while bytes.len() < size {
            random.fill(&mut line);
            bytes.extend(line.iter().map(|b| b'0' + b % 64).map(|b| if b == b'.' { b'/' } else { b }));
            bytes.extend_from_slice(b"\r\n");
        }
        // A dot alone on a line is what SMTP has to hide.
        bytes.extend_from_slice(b".\r\n..and a dot more\r\n");
        Self { id, bytes }
    }
}
