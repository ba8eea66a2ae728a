//! What can happen in the world at a moment. It only names; the world does it.

use std::collections::BTreeSet;

use roost::model::Policy;

use super::dht::DhtOp;
use super::members::Step;
use super::network::{Answer, CallRef, Request};
use super::peer::Tell;
use super::users::UserAct;

/// Something that happens at a moment.
#[derive(Debug)]
pub(crate) enum Happening {
    Arrives {
        to: usize,
        from: CallRef,
        request: Request,
    },
    Answered {
        to: CallRef,
        answer: Answer,
    },
    Told {
        p: usize,
        life: u64,
        tell: Tell,
    },
    DiskDone {
        p: usize,
        life: u64,
        op: u64,
    },
    Durable {
        p: usize,
        life: u64,
    },
    Wake {
        p: usize,
        life: u64,
    },
    DhtDo {
        p: usize,
        life: u64,
        op: DhtOp,
    },
    Starts(usize),
    Side(usize, u8),
    /// Ways between peers are cut, and mended.
    Cut(BTreeSet<(usize, usize)>),
    Mend(BTreeSet<(usize, usize)>),
    /// The disk of a member dies, and with it those of as many others as its safe(f) says may go, or of so many more.
    DisksDie(usize, usize),
    LooksAtSafety {
        p: usize,
        life: u64,
    },
    /// A peer is stopped in order.
    Stops(usize),
    /// A clock is set, by so many milliseconds.
    Jumps(usize, i64),
    /// A heartbeat tells how a clock stands.
    ComparesClock {
        p: usize,
        life: u64,
    },
    /// A bit flips on the disk of a peer.
    Rots(usize),
    Image(usize),
    Restore(usize),
    View,
    /// The group's policy is changed.
    Policy(Box<Policy>),
    /// Somebody comes or goes.
    Group(Step),
    User(UserAct),
}
