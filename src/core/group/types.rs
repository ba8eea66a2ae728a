//! What the group's brain is told, asks for, makes durable and answers. It only names; nothing is decided here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::conflicts::KeyChange;
use super::error::GroupError;
use super::unpinned::Candidates;
use crate::core::Token;
use crate::model::card::{Card, CardPeer, Invite};
use crate::model::group::{
    GroupDescriptor, Heartbeat, HeartbeatAnswer, Member, PeerAddr, PeerDescriptor, Roster, View,
};
use crate::model::{Address, Fingerprint, GroupName, LocalName, PeerId, Policy, Secret, WallTime};
use crate::wire::{PeerKey, Signed};

/// This peer, given at construction.
#[derive(Debug, Clone)]
pub struct Me {
    /// Address, PeerId and fingerprint.
    pub member: Member,
    /// The minimal OpenPGP certificate, binary.
    pub certificate: Arc<Vec<u8>>,
    /// Where this peer can be reached.
    pub addrs: Vec<PeerAddr>,
    /// Signs views.
    pub key: Arc<PeerKey>,
}

/// A gd whose signature by `key` has been checked, with the bytes that prove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedGd {
    /// What it says.
    pub gd: GroupDescriptor,
    /// The group key that signed it.
    pub key: Fingerprint,
    /// As it was signed.
    pub signed: ByteBuf,
}

/// A peer descriptor whose signature by `fingerprint` has been checked, with the bytes that prove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedDescriptor {
    /// What it says.
    pub descriptor: PeerDescriptor,
    /// The OpenPGP key that signed it: that of the certificate in it.
    pub fingerprint: Fingerprint,
    /// As it was signed.
    pub signed: ByteBuf,
}

/// The group's secret key as one line. Printed once by `roost group create`, never stored, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(pub Zeroizing<String>);

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

/// A group key that has just been made, and the gd that it signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// Version 1.
    pub gd: SignedGd,
    /// For the founder to keep somewhere safe.
    pub recovery: RecoveryCode,
}

/// A heartbeat after its signatures were checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// As it came, without its gd and descriptors.
    pub plain: Heartbeat,
    /// The gd it carried.
    pub gd: Option<SignedGd>,
    /// The peer descriptors it carried.
    pub descriptors: Vec<SignedDescriptor>,
}

/// An answer to a heartbeat after its signatures were checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BeatAnswer {
    /// As it came, without its view, gd and descriptors.
    pub plain: HeartbeatAnswer,
    /// The view it carried.
    pub view: Option<Signed<View>>,
    /// The gd it carried.
    pub gd: Option<SignedGd>,
    /// The peer descriptors it carried.
    pub descriptors: Vec<SignedDescriptor>,
}

/// Why a call to another peer brought nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallFailed {
    /// It did not answer.
    Unreachable {
        /// What the connection says.
        why: String,
    },
    /// It answered no.
    Refused {
        /// Its words.
        why: String,
        /// Refused for membership: the gd version by which it judged.
        gd_version: Option<u64>,
    },
    /// It answered something that does not hold.
    Bad {
        /// What does not.
        why: String,
    },
}

/// What a look for a group's gd brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GdFound {
    /// Every candidate whose signature fits the certificate in it, whoever made it. At most 16.
    pub candidates: Vec<SignedGd>,
    /// What was tried in vain, for people.
    pub why: Option<String>,
}

/// What a look for one peer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerFound {
    /// Its signed descriptor.
    Descriptor(Box<SignedDescriptor>),
    /// Only its certificate, checked against the fingerprint asked for.
    Certificate(Vec<u8>),
    /// Nothing.
    Nothing,
}

/// What lies in the DHT for a day and is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The own group's gd.
    Gd,
    /// The own peer descriptor.
    Descriptor,
}

/// What the brain is told.
#[derive(Debug)]
pub enum Input {
    /// The first input: what was durable has been replayed.
    Started,
    /// The own descriptor, signed as asked, or why not.
    DescriptorSigned(Result<SignedDescriptor, String>),
    /// `roost group create`.
    CreateGroup {
        /// Whom to answer.
        token: Token,
        /// Which group: must be that of this peer's address.
        group: GroupName,
        /// How members' mail is kept.
        policy: Policy,
    },
    /// The group key was made and signed its first gd, or why not.
    GroupCreated(Result<NewGroup, String>),
    /// `roost group invite --as NAME`.
    Invite {
        /// Whom to answer.
        token: Token,
        /// The name that is invited.
        name: LocalName,
        /// 32 random bytes.
        secret: Secret,
    },
    /// `roost group join CODE`.
    Join {
        /// Whom to answer.
        token: Token,
        /// The code.
        invite: Invite,
    },
    /// What a peer of the invite answered.
    JoinAnswered {
        /// Who.
        peer: PeerId,
        /// The signed gd, or why not.
        result: Result<SignedGd, CallFailed>,
    },
    /// `POST /group/join`.
    AdmitJoin {
        /// Whom to answer.
        token: Token,
        /// Who calls, proven by TLS.
        caller: PeerId,
        /// Who wants to join.
        descriptor: Box<SignedDescriptor>,
        /// The HMAC under the invite's secret.
        proof: Vec<u8>,
    },
    /// The gd asked for was signed, or why not.
    GdSigned(Result<SignedGd, String>),
    /// `roost group policy`.
    SetPolicy {
        /// Whom to answer.
        token: Token,
        /// The new one.
        policy: Policy,
    },
    /// `POST /group/heartbeat`.
    Heartbeat {
        /// Whom to answer.
        token: Token,
        /// Who calls, proven by TLS.
        caller: PeerId,
        /// What it says.
        beat: Box<Beat>,
    },
    /// What a heartbeat brought.
    HeartbeatAnswered {
        /// Who was called.
        peer: PeerId,
        /// As it was asked for.
        errand: Errand,
        /// The answer, or why there is none.
        result: Result<Box<BeatAnswer>, CallFailed>,
    },
    /// `roost card`.
    MakeCard {
        /// Whom to answer.
        token: Token,
    },
    /// `roost contacts add CARD`.
    AddContact {
        /// Whom to answer.
        token: Token,
        /// The card.
        card: Card,
    },
    /// `roost contacts add --group NAME --key FINGERPRINT`, and a request that was accepted.
    Pin {
        /// Whom to answer.
        token: Token,
        /// The group.
        group: GroupName,
        /// Its key.
        key: Fingerprint,
    },
    /// `roost contacts remove ADDRESS`.
    RemoveContact {
        /// Whom to answer.
        token: Token,
        /// Who.
        address: Address,
    },
    /// Mail waits for somebody of this group; told again while it does. Ignored when its key is pinned.
    Wanted {
        /// The group.
        group: GroupName,
    },
    /// What a look for a group's gd brought.
    GdFetched {
        /// Which group.
        group: GroupName,
        /// What was found.
        found: GdFound,
    },
    /// A mail of `group` is about to be pulled: answer once it is known where its members are.
    Find {
        /// Whom to answer.
        token: Token,
        /// The sender's group.
        group: GroupName,
    },
    /// Somebody names a member of `group` that its gd does not: look for a newer one, and answer when that ended.
    Freshen {
        /// Whom to answer.
        token: Token,
        /// The pinned group.
        group: GroupName,
    },
    /// A dial to `peer` failed: read its descriptor again.
    LookAgain {
        /// Whom to answer.
        token: Token,
        /// Who cannot be reached.
        peer: PeerId,
    },
    /// What a look for a peer brought.
    PeerFetched {
        /// Who was looked for.
        peer: PeerId,
        /// What was found.
        found: PeerFound,
    },
    /// A put into the DHT ended.
    Published {
        /// What was put.
        entry: Entry,
        /// Whether it lies there.
        ok: bool,
    },
}

/// Why a heartbeat is sent; comes back with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errand {
    /// One of the regular ones: without an answer it counts as missed.
    pub regular: bool,
    /// It carried the caller's own descriptor.
    pub introduced: bool,
}

/// What the brain asks its shell to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sign the own descriptor with the OpenPGP key; answer [`Input::DescriptorSigned`].
    SignDescriptor(PeerDescriptor),
    /// Make the group key (or take the one an interrupted attempt left), keep it in `keys/`, put its certificate into this
    /// gd and sign it; answer [`Input::GroupCreated`].
    CreateGroup(GroupDescriptor),
    /// Sign with the group key; answer [`Input::GdSigned`].
    SignGd(GroupDescriptor),
    /// `POST /group/join` with the own descriptor and this proof; answer [`Input::JoinAnswered`].
    AskJoin {
        /// Whom to ask.
        peer: PeerId,
        /// The key that must have signed the answer.
        key: Fingerprint,
        /// The own signed descriptor.
        descriptor: ByteBuf,
        /// The HMAC under the invite's secret.
        proof: Vec<u8>,
    },
    /// `POST /group/heartbeat`; answer [`Input::HeartbeatAnswered`].
    SendHeartbeat {
        /// To whom.
        peer: PeerId,
        /// What.
        heartbeat: Heartbeat,
        /// Comes back with the answer.
        errand: Errand,
    },
    /// `POST /notify` with a hello. No answer is needed.
    SayHello {
        /// To whom.
        peer: PeerId,
    },
    /// `GET /group` from these peers, and the DHT; answer [`Input::GdFetched`].
    FetchGd {
        /// Which group.
        group: GroupName,
        /// Whom to ask. May be empty.
        ask: Vec<PeerId>,
    },
    /// The DHT's newest descriptor of this peer; if there is none and a certificate is wanted, `GET /pubkey/{address}` from
    /// these peers. Answer [`Input::PeerFetched`].
    FetchPeer {
        /// Who is looked for.
        member: Member,
        /// Whom to ask for the certificate. Empty when it is not wanted.
        ask: Vec<PeerId>,
    },
    /// Put the signed gd into the DHT; answer [`Input::Published`].
    PublishGd {
        /// Whose.
        group: GroupName,
        /// The signed gd.
        signed: ByteBuf,
        /// When the entry expires.
        expiry: WallTime,
    },
    /// Put the own signed descriptor into the DHT; answer [`Input::Published`].
    PublishDescriptor {
        /// Whose.
        address: Address,
        /// The signed descriptor.
        signed: ByteBuf,
        /// When the entry expires.
        expiry: WallTime,
    },
    /// Who is who and where has changed.
    Publish(Box<Picture>),
}

/// What becomes durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A group's key is the trust root of its names from now on.
    Pinned {
        /// The group.
        group: GroupName,
        /// Its key.
        key: Fingerprint,
        /// When; not written down by earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<WallTime>,
    },
    /// The group is not known any more.
    Unpinned {
        /// The group.
        group: GroupName,
    },
    /// A newer gd of a pinned group.
    Gd(SignedGd),
    /// Somebody else's key signed a gd of a pinned group.
    Rival {
        /// The group.
        group: GroupName,
        /// That key.
        key: Fingerprint,
    },
    /// The pinned key signed two different gds of one version.
    ForkedGd {
        /// The group.
        group: GroupName,
        /// The version.
        version: u64,
    },
    /// A member's key is another since the next gd.
    KeyChanged(KeyChange),
    /// An invite was handed out.
    Invited {
        /// For this name.
        name: LocalName,
        /// Its secret; only on the disk of the member that invites.
        secret: Secret,
        /// When it ends.
        expiry: WallTime,
    },
    /// An invite was used.
    Admitted {
        /// For this name.
        name: LocalName,
        /// By whom; only this peer may repeat its join.
        by: PeerId,
    },
    /// Where members were when this peer joined.
    Hints {
        /// As the invite names them.
        peers: Vec<CardPeer>,
    },
    /// A contact was added.
    Contact {
        /// Who.
        address: Address,
        /// Members of its group that its card names.
        peers: Vec<CardPeer>,
    },
    /// A contact was removed.
    NoContact {
        /// Who.
        address: Address,
    },
    /// A newer descriptor, of this peer or one that a pinned group's gd names.
    Descriptor(SignedDescriptor),
    /// A certificate whose descriptor could not be had.
    Certificate {
        /// Whose.
        peer: PeerId,
        /// The certificate.
        certificate: ByteBuf,
    },
    /// A newer view of the own group, signed.
    View(ByteBuf),
}

/// What requests are answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The group exists.
    Created {
        /// The group's key.
        key: Fingerprint,
        /// Print it once.
        recovery: RecoveryCode,
    },
    /// Hand this to whoever is invited.
    Invite(Invite),
    /// This peer is a member.
    Joined {
        /// Version of the gd that names it.
        gd_version: u64,
        /// How many members there are.
        members: usize,
    },
    /// The signed gd that names the caller.
    Admitted(ByteBuf),
    /// The policy is in the gd of this version.
    PolicySet {
        /// The version.
        gd_version: u64,
    },
    /// The answer to a heartbeat.
    Heartbeat(HeartbeatAnswer),
    /// The own contact card.
    Card(Card),
    /// The group is pinned and the contact kept.
    ContactAdded {
        /// The newest gd of the group, if it could be had already.
        gd_version: Option<u64>,
        /// Whether the contact's certificate is here: mail can be sealed to it at once.
        certificate: bool,
        /// What could not be had yet and why; it is tried again.
        note: Option<String>,
    },
    /// The contact is gone.
    ContactRemoved {
        /// It was the last of its group, which is not pinned any more.
        unpinned: bool,
    },
    /// Where the group's members are is known, or could not be learned in time.
    Found,
    /// The look for a newer gd ended.
    Freshened {
        /// Whether the one known now is the newest that can be had; else nobody answered.
        fresh: bool,
    },
    /// Where the peer is, if that is newer than what was known; else empty.
    Addrs(Vec<PeerAddr>),
    /// No, and why.
    Refused(GroupError),
}

/// Who is who and where: what the other brains and shells need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// The own group.
    pub roster: Arc<Roster>,
    /// Pinned groups, the own one among them.
    pub groups: BTreeMap<GroupName, PinnedGroup>,
    /// Whose cards were added.
    pub contacts: BTreeSet<Address>,
    /// Every peer that may be dialled anywhere: members of pinned groups, and those that a card or invite in use names.
    pub peers: BTreeMap<PeerId, Located>,
    /// Groups that mail waits for and whose key is not pinned, with the keys that say they are theirs.
    pub candidates: Candidates,
    /// This peer's clock is off its members'.
    pub clock_off: bool,
    /// It is off, or was not compared yet since the start: nothing may expire here.
    pub clock_doubtful: bool,
}

/// A group whose key is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedGroup {
    /// The pinned key.
    pub key: Fingerprint,
    /// The newest gd that it signed.
    pub gd: Option<Arc<GroupDescriptor>>,
    /// That gd as it was signed.
    pub signed_gd: Arc<Vec<u8>>,
}

/// A known peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its address; a card or invite names some peers only by PeerId.
    pub address: Option<Address>,
    /// Where it was last known to be.
    pub addrs: Vec<PeerAddr>,
    /// Its certificate, checked.
    pub certificate: Option<Arc<Vec<u8>>>,
}
