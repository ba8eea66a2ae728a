//! Two networks with a router between them, for partitions that are real: packets from one side to the other vanish. Namespaces of
//! the Linux kernel, which only root may make; it changes nothing of the machine's own network.

use std::fs::File;
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, setns};

use crate::cli::compose::random_name;

/// What a side may send to the other, when rates are limited, and how that is said to people.
const RATE: (&str, &str) = ("4mbit", "4 Mbit/s");

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

/// Two sides and the router.
#[derive(Debug)]
pub(super) struct Network {
    name: String,
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
    /// A network that is whole.
    ///
    /// # Errors
    /// Why none can be made here.
    pub(super) fn new() -> anyhow::Result<Self> {
        let network = Self { name: format!("roost-{}", &random_name()?[..6]) };
        let router = network.router();
        run("ip", &format!("netns add {router}"))?;
        run("ip", &format!("-n {router} link set lo up"))?;
        for side in [Side::East, Side::West] {
            let (ns, n) = (network.namespace(side), side.number());
            run("ip", &format!("netns add {ns}"))?;
            run("ip", &format!("link add out netns {ns} type veth peer name side{n} netns {router}"))?;
            run("ip", &format!("-n {router} addr add 10.98.{n}.1/24 dev side{n}"))?;
            run("ip", &format!("-n {router} link set side{n} up"))?;
            run("ip", &format!("-n {ns} addr add {}/24 dev out", side.host()))?;
            run("ip", &format!("-n {ns} link set lo up"))?;
            run("ip", &format!("-n {ns} link set out up"))?;
            run("ip", &format!("-n {ns} route add default via 10.98.{n}.1"))?;
        }
        network.forwards(true)?;
        Ok(network)
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
    let path = format!("/run/netns/{namespace}");
    let namespace = File::open(&path).with_context(|| path.clone())?;
    let thread = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        Ok::<T, nix::Error>(work())
    });
    match thread.join() {
        Ok(done) => done.with_context(|| format!("{path} cannot be entered")),
        Err(_) => bail!("the work in {path} broke off"),
    }
}
