//! What travels between processes of this machine, as the kernel counts it: the payload bytes of every TCP connection, asked for
//! over the socket diagnosis of Linux (sock_diag(7)). It sees no content, and needs no rights.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, bail};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// Length of a netlink message's header.
const HEADER: usize = 16;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NLMSG_DONE`, `NLMSG_ERROR`.
const DONE: u16 = 3;
const ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `TCP_ESTABLISHED` as a bit.
const ESTABLISHED: u32 = 1 << 1;
/// `INET_DIAG_INFO`.
const INFO: u16 = 2;
/// Where `inet_diag_msg` has its inode, and where it ends.
const INODE_AT: usize = 68;
const ATTRIBUTES_AT: usize = 72;
/// Where `tcp_info` has `tcpi_bytes_acked` and `tcpi_bytes_received`.
const ACKED_AT: usize = 120;
const RECEIVED_AT: usize = 128;
/// Bytes of one answer.
const ANSWER: usize = 256 * 1024;

/// One end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    inode: u32,
    /// Ports, here and there.
    ports: (u16, u16),
    /// Bytes that the other end has acknowledged.
    sent: u64,
    /// Bytes that came.
    received: u64,
}

/// Bytes that went one way and the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::cli::bench) struct Moved {
    /// From the one that is watched.
    pub(in crate::cli::bench) sent: u64,
    /// To it.
    pub(in crate::cli::bench) received: u64,
}

/// Counts what travels between one process and others, also over connections that come and go, if it looks often enough.
#[derive(Debug)]
pub(in crate::cli::bench) struct Meter {
    of: u32,
    others: Vec<u32>,
    /// What each connection had at the last look.
    last: BTreeMap<u32, (u64, u64)>,
    moved: BTreeMap<u32, Moved>,
}

impl Meter {
    /// Counts from now on what process `of` and each of the `others` send each other.
    pub(in crate::cli::bench) fn start(of: u32, others: &[u32]) -> anyhow::Result<Self> {
        let mut meter = Self { of, others: others.to_vec(), last: BTreeMap::new(), moved: BTreeMap::new() };
        meter.look()?;
        meter.moved.clear();
        Ok(meter)
    }

    /// Adds what travelled since the last look. A connection that ended in between took its last bytes with it.
    pub(in crate::cli::bench) fn look(&mut self) -> anyhow::Result<()> {
        let ends = ends()?;
        let whose: BTreeMap<u32, u32> =
            self.others.iter().flat_map(|pid| sockets_of(*pid).into_iter().map(move |inode| (inode, *pid))).collect();
        let mine = sockets_of(self.of);
        let by_ports: BTreeMap<(u16, u16), u32> =
            ends.iter().filter_map(|end| Some((end.ports, *whose.get(&end.inode)?))).collect();
        let mut now = BTreeMap::new();
        for end in ends.iter().filter(|end| mine.contains(&end.inode)) {
            let Some(pid) = by_ports.get(&(end.ports.1, end.ports.0)) else { continue };
            let (sent, received) = self.last.get(&end.inode).copied().unwrap_or_default();
            let moved = self.moved.entry(*pid).or_default();
            moved.sent += end.sent.saturating_sub(sent);
            moved.received += end.received.saturating_sub(received);
            now.insert(end.inode, (end.sent, end.received));
        }
        self.last = now;
        Ok(())
    }

    /// What travelled between the process and this other one.
    pub(in crate::cli::bench) fn moved(&self, other: u32) -> Moved {
        self.moved.get(&other).copied().unwrap_or_default()
    }
}

/// The inodes of a process's sockets; none when it is gone.
fn sockets_of(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    entries.filter_map(inode).collect()
}

/// Every TCP connection over IPv4 on this machine that stands: the peers of a bench speak on 127.0.0.1.
fn ends() -> anyhow::Result<Vec<End>> {
    let cannot = "the kernel does not tell what its connections carried (sock_diag)";
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
        .context(cannot)?;
    sendto(socket.as_raw_fd(), &request(), &NetlinkAddr::new(0, 0), MsgFlags::empty()).context(cannot)?;
    let (mut ends, mut answer) = (Vec::new(), vec![0; ANSWER]);
    loop {
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).context(cannot)?;
        let mut rest = answer.get(..length).unwrap_or_default();
        while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
            let length = usize::try_from(length)?;
            match kind {
                DONE => return Ok(ends),
                ERROR => bail!("{cannot}"),
                _ => ends.extend(rest.get(HEADER..length).and_then(end_of)),
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn request() -> Vec<u8> {
    let (family, protocol) = (2, 6);
    let mut body = vec![family, protocol, 1 << (INFO - 1), 0];
    body.extend(ESTABLISHED.to_ne_bytes());
    body.resize(body.len() + 48, 0);
    let length = u32::try_from(HEADER + body.len()).unwrap_or_default();
    let mut all = length.to_ne_bytes().to_vec();
    all.extend(BY_FAMILY.to_ne_bytes());
    all.extend(DUMP.to_ne_bytes());
    all.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    all.extend(body);
    all
}

fn end_of(message: &[u8]) -> Option<End> {
    let port = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let (inode, ports) = (u32_at(message, INODE_AT)?, (port(4)?, port(6)?));
    let mut rest = message.get(ATTRIBUTES_AT..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        if kind == INFO {
            let (sent, received) = (u64_at(rest, 4 + ACKED_AT)?, u64_at(rest, 4 + RECEIVED_AT)?);
            return Some(End { inode, ports, sent, received });
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn bytes_between_two_ends_are_counted_as_the_kernel_does() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut here, _) = listener.accept().unwrap();
        let ports = (listener.local_addr().unwrap().port(), there.local_addr().unwrap().port());
        let seen = || ends().unwrap().into_iter().find(|end| end.ports == ports).unwrap();
        let before = seen();
        here.write_all(&[1; 5000]).unwrap();
        let mut got = [0; 5000];
        there.read_exact(&mut got).unwrap();
        there.write_all(&[2; 70]).unwrap();
        here.read_exact(&mut got[..70]).unwrap();
        // An acknowledgement may be on its way still.
        let sent = (0..1000).map(|_| seen().sent - before.sent).find(|sent| *sent >= 5000);
        assert_eq!((sent, seen().received - before.received), (Some(5000), 70));
        assert!(sockets_of(std::process::id()).contains(&before.inode));
    }
}
