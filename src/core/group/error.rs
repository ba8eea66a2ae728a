//! Why the group's brain says no. Each message says what happened, why, and what to do next; none names a secret.

use crate::model::{Address, Fingerprint, GroupName, LocalName, PolicyError, Span};

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// A peer founds only the group of its own address.
    #[error("{address} can create only the group {}; to create {asked}, run `roost init NAME@{asked}` in another home", address.group())]
    OtherGroup {
        /// This peer.
        address: Address,
        /// What was asked for.
        asked: GroupName,
    },
    /// There is a group already.
    #[error(
        "this peer is in the group {group} already; `roost group status` shows it, `roost group leave` takes this peer out of it"
    )]
    HasGroup {
        /// Its group.
        group: GroupName,
    },
    /// There is no group yet.
    #[error(
        "this peer has no group yet; create or join a group first (`roost group create {group}` or `roost group join CODE`)"
    )]
    NoGroup {
        /// The group of its address.
        group: GroupName,
    },
    /// Only who holds the group key may do it.
    #[error("{address} does not hold the key of the group; ask {holders}")]
    NotKeyHolder {
        /// This peer.
        address: Address,
        /// Who does, separated by commas.
        holders: String,
    },
    /// The name is a member's.
    #[error("{address} is a member already; invite another name")]
    NameTaken {
        /// Whose name it is.
        address: Address,
    },
    /// As many members as there may be.
    #[error(
        "the group has {members} members, the most there may be; take out one that is gone (`roost group remove ADDRESS`), or found another group"
    )]
    Full {
        /// How many there are.
        members: usize,
    },
    /// As many invites as there may be.
    #[error("{open} invites are not over yet; wait until one is")]
    TooManyInvites {
        /// How many there are.
        open: usize,
    },
    /// Something that waits for the group key is under way.
    #[error("{waiting} changes of the group wait already; try again in a minute")]
    Busy {
        /// How many.
        waiting: usize,
    },
    /// The gd names this peer as a holder, and the key has not come.
    #[error(
        "the group key has not come to this peer yet; it is fetched as soon as one of its other holders is up: {holders}"
    )]
    KeyNotHere {
        /// The other holders, separated by commas.
        holders: String,
    },
    /// Nobody of this address is a member.
    #[error("{address} is no member; `roost group status` lists them")]
    NoSuchMember {
        /// Who.
        address: Address,
    },
    /// A holder does not remove itself: the key must be somebody's.
    #[error("{address} is this peer; to leave the group, use `roost group leave`")]
    RemoveSelf {
        /// This peer.
        address: Address,
    },
    /// Nobody is left who could act for the group.
    #[error(
        "{address} is the last that holds the group key, and without it nobody could be admitted or removed any more; hand it to a member first: `roost group grant ADDRESS`"
    )]
    LastHolder {
        /// This peer.
        address: Address,
    },
    /// There is nobody to leave to.
    #[error("{address} is the only member of its group: there is nobody to leave it to; to end it, stop this peer")]
    OnlyMember {
        /// This peer.
        address: Address,
    },
    /// No holder of the key did it.
    #[error("no holder of the group key wrote it down: {why}; try again when one of them is up")]
    LeaveRefused {
        /// What the last one said.
        why: String,
    },
    /// A member's certificate is not here, so nothing can be sealed to it.
    #[error("the certificate of {address} is not here yet; try again in a minute")]
    NoCertificate {
        /// Whose.
        address: Address,
    },
    /// An invite is to be good for no time, or for too long.
    #[error("an invite can be good for up to {longest}, not for {asked}; name another time")]
    Validity {
        /// What was asked for.
        asked: Span,
        /// The bound.
        longest: Span,
    },
    /// No open invite has this name.
    #[error("there is no open invite for the name {name}; ask for a new one")]
    NoInvite {
        /// The name.
        name: LocalName,
    },
    /// The invite is over.
    #[error("the invite for {name} has expired; ask for a new one")]
    Expired {
        /// The name.
        name: LocalName,
    },
    /// Another peer used the invite.
    #[error("the invite for {name} was used by another peer; ask for a new one")]
    Used {
        /// The name.
        name: LocalName,
    },
    /// The invite is for somebody else.
    #[error(
        "this invite is for {invited}, and this peer is {address}; use an invite for that name, or `roost init {invited}` in another home"
    )]
    OtherName {
        /// Who is invited.
        invited: Address,
        /// This peer.
        address: Address,
    },
    /// The HMAC is not one under the invite's secret, or the descriptor is not the caller's.
    #[error(
        "the proof of the join does not fit the invite for {name}; copy the whole invite again, or ask for a new one"
    )]
    Proof {
        /// The name.
        name: LocalName,
    },
    /// No peer of the invite admitted this one.
    #[error(
        "no member of {group} could be asked: {tried}; check that one of them is running and can be reached, then join again"
    )]
    Unreachable {
        /// The group.
        group: GroupName,
        /// Each member that was tried, where, and what happened.
        tried: String,
    },
    /// A member refused.
    #[error("the group {group} refuses: {why}")]
    JoinRefused {
        /// The group.
        group: GroupName,
        /// Its words.
        why: String,
    },
    /// Another key is pinned.
    #[error(
        "another key is pinned for the group {group}: pinned {pinned}, offered {offered}; compare both with somebody of {group} on another way; if the pinned one is wrong, remove the contacts of {group} first"
    )]
    PinConflict {
        /// The group.
        group: GroupName,
        /// The pinned key.
        pinned: Fingerprint,
        /// The other one.
        offered: Fingerprint,
    },
    /// The policy is none.
    #[error(transparent)]
    Policy(PolicyError),
    /// The group is too small for the policy.
    #[error("a group of {members} is too small for {asked}, which needs {needed}; {would_do}")]
    TooSmall {
        /// How many members there are.
        members: usize,
        /// What was asked for.
        asked: String,
        /// Members that it needs.
        needed: usize,
        /// What it could be instead.
        would_do: String,
    },
    /// The group key did not sign.
    #[error("the group key cannot sign: {why}; see `roost doctor`")]
    Signing {
        /// What the shell says.
        why: String,
    },
    /// The recovery code did not do it.
    #[error("the group is not taken over: {why}")]
    Recovery {
        /// What the shell says.
        why: String,
    },
    /// Only members may.
    #[error("{caller} is no member of {group}; it joins by an invite that a member makes (`roost group invite`)")]
    NotMember {
        /// Who asked.
        caller: String,
        /// The group.
        group: GroupName,
        /// The gd version by which it was judged.
        gd_version: u64,
    },
    /// As many contacts or pinned groups as there may be.
    #[error("{known} {what} are known, and there is no room for more; remove one first")]
    TooManyContacts {
        /// How many.
        known: usize,
        /// "contacts" or "groups".
        what: &'static str,
    },
    /// Not a contact.
    #[error("{address} is no contact; `roost contacts` lists them")]
    NoContact {
        /// Who.
        address: Address,
    },
    /// The own descriptor could not be signed, so nobody could find this peer.
    #[error(
        "this peer cannot describe itself: {why}; check the addresses under [net] in config.toml, then start it again"
    )]
    Descriptor {
        /// What the shell says.
        why: String,
    },
}
