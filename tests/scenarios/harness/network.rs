//! Two networks with a router between them, for partitions that are real: packets from one side to the other vanish. Namespaces
//! of the Linux kernel, which only root may make; they go with the test.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

static MADE: AtomicUsize = AtomicUsize::new(0);

fn ip(args: &str) -> Result<(), String> {
    let done = Command::new("ip").args(args.split(' ')).output().map_err(|e| format!("ip: {e}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(format!("ip {args}: {}", said.trim())) }
}

/// A side of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// 10.99.1.2.
    East,
    /// 10.99.2.2.
    West,
}

impl Side {
    fn number(self) -> u8 {
        match self {
            Side::East => 1,
            Side::West => 2,
        }
    }

    /// The address of everybody on this side.
    pub(crate) fn host(self) -> String {
        format!("10.99.{}.2", self.number())
    }
}

/// Two sides and the router.
pub(crate) struct Network(String);

impl Network {
    /// A network that is whole; or why none can be made here.
    pub(crate) fn new() -> Result<Self, String> {
        let network = Self(format!("roost{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
        let router = network.router();
        ip(&format!("netns add {router}"))?;
        ip(&format!("-n {router} link set lo up"))?;
        for side in [Side::East, Side::West] {
            let (ns, n) = (network.namespace(side), side.number());
            ip(&format!("netns add {ns}"))?;
            ip(&format!("link add out netns {ns} type veth peer name side{n} netns {router}"))?;
            ip(&format!("-n {router} addr add 10.99.{n}.1/24 dev side{n}"))?;
            ip(&format!("-n {router} link set side{n} up"))?;
            ip(&format!("-n {ns} addr add {}/24 dev out", side.host()))?;
            ip(&format!("-n {ns} link set lo up"))?;
            ip(&format!("-n {ns} link set out up"))?;
            ip(&format!("-n {ns} route add default via 10.99.{n}.1"))?;
        }
        network.forwards(true)?;
        Ok(network)
    }

    fn router(&self) -> String {
        format!("{}-r", self.0)
    }

    /// The namespace of a side.
    pub(crate) fn namespace(&self, side: Side) -> String {
        format!("{}-{}", self.0, side.number())
    }

    fn forwards(&self, on: bool) -> Result<(), String> {
        let write = format!("echo {} > /proc/sys/net/ipv4/ip_forward", u8::from(on));
        let router = self.router();
        let done = Command::new("ip").args(["netns", "exec", &router, "sh", "-c", &write]).status();
        match done {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("the router cannot be told what to forward: {other:?}")),
        }
    }

    /// Nothing comes from one side to the other any more, and nobody is told.
    pub(crate) fn cut(&self) {
        self.forwards(false).unwrap();
    }

    /// It does again.
    pub(crate) fn heal(&self) {
        self.forwards(true).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in [self.namespace(Side::East), self.namespace(Side::West), self.router()] {
            // One that was not made cannot be removed.
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}
