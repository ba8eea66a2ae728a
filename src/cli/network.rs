//! Two networks side by side: with a router between them, for partitions that are real, or on one wire that is counted. Namespaces
//! of the Linux kernel, which only root may make; it changes nothing of the machine's own network.

use std::fs::File;
use std::process::Command;
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};

use crate::cli::compose::random_name;

/// What a side may send to the other, when rates are limited, and how that is said to people.
const RATE: (&str, &str) = ("4mbit", "4 Mbit/s");

/// The wire's own device on each side.
const WIRE: &str = "out";

/// A side of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// 10.98.1.2.
    East,
    /// 10.98.2.2.
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
    pub(super) fn host(self) -> std::net::IpAddr {
        [10, 98, self.number(), 2].into()
    }
}

/// Two sides and what is between them.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
}

/// What went over the wire, seen from one side: bytes of whole frames, and how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// Bytes that came.
    pub(super) rx_bytes: u64,
    /// Frames that came.
    pub(super) rx_packets: u64,
    /// Bytes that went.
    pub(super) tx_bytes: u64,
    /// Frames that went.
    pub(super) tx_packets: u64,
}

impl Carried {
    /// What was carried since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            rx_bytes: self.rx_bytes.saturating_sub(before.rx_bytes),
            rx_packets: self.rx_packets.saturating_sub(before.rx_packets),
            tx_bytes: self.tx_bytes.saturating_sub(before.tx_bytes),
            tx_packets: self.tx_packets.saturating_sub(before.tx_packets),
        }
    }

    /// Frames that went out of any device, to this machine itself or away, out of the kernel's table of devices.
    fn sent(devices: &str) -> Option<u64> {
        let names = devices.lines().filter_map(|line| line.trim_start().split_once(':')).map(|(name, _)| name);
        let mut sent = names.filter_map(|name| Self::parse(devices, name)).map(|carried| carried.tx_packets).peekable();
        sent.peek()?;
        Some(sent.sum())
    }

    /// Out of the kernel's table of devices.
    fn parse(devices: &str, device: &str) -> Option<Self> {
        let line = devices.lines().find_map(|line| line.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
        let numbers: Vec<u64> = line.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let at = |at: usize| numbers.get(at).copied();
        Some(Self { rx_bytes: at(0)?, rx_packets: at(1)?, tx_bytes: at(8)?, tx_packets: at(9)? })
    }
}

fn run(program: &str, args: &str) -> anyhow::Result<()> {
    let done =
        Command::new(program).args(args.split(' ')).output().with_context(|| format!("{program} is not here"))?;
    if !done.status.success() {
        bail!("{program} {args}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

impl Network {
    /// A name for a network that is not made yet, so that it can be removed whatever comes of [`Network::make`].
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub(super) fn planned() -> anyhow::Result<Self> {
        Ok(Self { name: format!("roost-{}", &random_name()?[..6]) })
    }

    /// Makes it, whole, with a router between the sides.
    ///
    /// # Errors
    /// Why none can be made here.
    pub(super) fn make(&self) -> anyhow::Result<()> {
        let router = self.router();
        run("ip", &format!("netns add {router}"))?;
        run("ip", &format!("-n {router} link set lo up"))?;
        for side in [Side::East, Side::West] {
            let (ns, n) = (self.namespace(side), side.number());
            run("ip", &format!("netns add {ns}"))?;
            run("ip", &format!("link add out netns {ns} type veth peer name side{n} netns {router}"))?;
            run("ip", &format!("-n {router} addr add 10.98.{n}.1/24 dev side{n}"))?;
            run("ip", &format!("-n {router} link set side{n} up"))?;
            run("ip", &format!("-n {ns} addr add {}/24 dev out", side.host()))?;
            run("ip", &format!("-n {ns} link set lo up"))?;
            run("ip", &format!("-n {ns} link set out up"))?;
            run("ip", &format!("-n {ns} route add default via 10.98.{n}.1"))?;
        }
        self.forwards(true)
    }

    /// Two sides on one wire, without a router. Frames are as long as on an Ethernet: the kernel joins none to longer ones, so
    /// that what it counts is what a network would carry.
    ///
    /// # Errors
    /// Why none can be made here.
    pub(super) fn wire() -> anyhow::Result<Self> {
        let network = Self::planned()?;
        let [east, west] = [Side::East, Side::West].map(|side| network.namespace(side));
        run("ip", &format!("netns add {east}"))?;
        run("ip", &format!("netns add {west}"))?;
        run("ip", &format!("link add {WIRE} netns {east} type veth peer name {WIRE} netns {west}"))?;
        for side in [Side::East, Side::West] {
            let ns = network.namespace(side);
            run("ip", &format!("-n {ns} link set {WIRE} mtu 1500 gso_max_segs 1"))?;
            run("ip", &format!("-n {ns} addr add {}/16 dev {WIRE}", side.host()))?;
            run("ip", &format!("-n {ns} link set lo up"))?;
            run("ip", &format!("-n {ns} link set {WIRE} up"))?;
        }
        Ok(network)
    }

    /// What came to a side and went from it until now, over the wire between the sides.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn carried(&self, side: Side) -> anyhow::Result<Carried> {
        let devices = inside(&self.namespace(side), || std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        Carried::parse(&devices, WIRE).context("the kernel does not tell what the wire carried")
    }

    /// Frames that those of both sides sent until now, to each other and to themselves.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn sent_packets(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for side in [Side::East, Side::West] {
            let devices = inside(&self.namespace(side), || std::fs::read_to_string("/proc/thread-self/net/dev"))??;
            sum += Carried::sent(&devices).context("the kernel does not tell what was sent")?;
        }
        Ok(sum)
    }

    fn router(&self) -> String {
        format!("{}-r", self.name)
    }

    /// The namespace of a side.
    pub(super) fn namespace(&self, side: Side) -> String {
        format!("{}-{}", self.name, side.number())
    }

    fn forwards(&self, on: bool) -> anyhow::Result<()> {
        let router = self.router();
        let number = u8::from(on);
        inside(&router, move || std::fs::write("/proc/sys/net/ipv4/ip_forward", format!("{number}\n")))?
            .context("the router cannot be told what to forward")
    }

    /// Nothing comes from one side to the other any more, and nobody is told.
    pub(super) fn cut(&self) -> anyhow::Result<()> {
        self.forwards(false)
    }

    /// It does again.
    pub(super) fn heal(&self) -> anyhow::Result<()> {
        self.forwards(true)
    }

    /// Limits what goes from each side to the other; gives the rate in words.
    pub(super) fn limit(&self) -> anyhow::Result<&'static str> {
        let (rate, words) = RATE;
        for n in [Side::East, Side::West].map(Side::number) {
            let router = self.router();
            run(
                "tc",
                &format!("-n {router} qdisc add dev side{n} root handle 1: tbf rate {rate} burst 32kb latency 400ms"),
            )?;
        }
        Ok(words)
    }

    /// Lets packets be late and get lost, once rates are limited; why not, where the kernel cannot.
    pub(super) fn lose(&self) -> anyhow::Result<()> {
        for n in [Side::East, Side::West].map(Side::number) {
            let router = self.router();
            run("tc", &format!("-n {router} qdisc add dev side{n} parent 1:1 handle 10: netem delay 30ms loss 1%"))?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Network {
    /// Removes it, once nobody is in it.
    pub(super) fn remove(&self) {
        for namespace in [self.namespace(Side::East), self.namespace(Side::West), self.router()] {
            // One that was not made cannot be removed.
            let _ = run("ip", &format!("netns del {namespace}"));
        }
    }
}

/// Does something in a network: in a thread of its own, which alone goes there.
pub(super) fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    joined(thread_in(Some(namespace), work)?)
}

/// Begins something in a network, or in this machine's own: in a thread of its own.
pub(super) fn thread_in<T: Send + 'static>(
    namespace: Option<&str>,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<anyhow::Result<T>>> {
    let path = namespace.map(|namespace| format!("/run/netns/{namespace}"));
    let file = path.as_ref().map(|path| File::open(path).with_context(|| path.clone())).transpose()?;
    Ok(std::thread::spawn(move || {
        if let (Some(file), Some(path)) = (file, path) {
            setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| format!("{path} cannot be entered"))?;
        }
        Ok(work())
    }))
}

/// What came of it.
pub(super) fn joined<T>(thread: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    match thread.join() {
        Ok(done) => done,
        Err(_) => bail!("the work in a network broke off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_carried_is_read_from_the_kernels_table() {
        let devices = "Inter-|   Receive                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes packets\n\
                       \x20   lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n   out: 100 2 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n";
        let before = Carried { rx_bytes: 90, ..Carried::default() };
        let seen = Carried::parse(devices, "out").unwrap().since(before);
        assert_eq!(seen, Carried { rx_bytes: 10, rx_packets: 2, tx_bytes: 70, tx_packets: 1 });
        assert_eq!(Carried::parse(devices, "ou"), None);
        assert_eq!(Carried::sent(devices), Some(10));
        assert_eq!(Carried::sent("no table"), None);
    }
}
