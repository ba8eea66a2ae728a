//! What the group's brain is told and asks for. It only names; nothing is decided here.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::answers::Picture;
use crate::core::Token;
use crate::model::card::{Card, Invite};
use crate::model::group::{
    GroupDescriptor, Heartbeat, HeartbeatAnswer, LeaveStage, Member, PeerAddr, PeerDescriptor, View,
};
use crate::model::{Address, Fingerprint, GroupName, LocalName, PeerId, Policy, Secret, Span, WallTime};
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
    /// The keys before that one, the oldest first: each signed the next, as was checked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineage: Vec<Fingerprint>,
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

/// The group's secret key as one line. Shown to the holder that makes the key or asks for it, never stored, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryCode(pub Zeroizing<String>);

impl fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

/// The key before a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldKey {
    /// It is in `keys/`.
    Held(Fingerprint),
    /// It is in a recovery code, which must be that of this key.
    Recovery {
        /// The code.
        code: RecoveryCode,
        /// The key.
        key: Fingerprint,
    },
}

/// A group key that has just been made, and the gd that it signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGroup {
    /// Version 1, or the first of a key that replaces another.
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
        /// How long it is good.
        valid: Span,
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
    /// `roost group remove`.
    Remove {
        /// Whom to answer.
        token: Token,
        /// Who.
        address: Address,
    },
    /// `roost group grant`.
    Grant {
        /// Whom to answer.
        token: Token,
        /// Who.
        address: Address,
    },
    /// `roost group recover`.
    Recover {
        /// Whom to answer.
        token: Token,
        /// The group's key.
        code: RecoveryCode,
    },
    /// A new group key was made, the old one signed it, and it signed the gd asked for; or why not.
    KeyRotated(Result<NewGroup, String>),
    /// `POST /group/key`.
    AskKey {
        /// Whom to answer.
        token: Token,
        /// Who calls, proven by TLS.
        caller: PeerId,
    },
    /// The group key came from another holder and is durable, or why not.
    KeyFetched(Result<Fingerprint, String>),
    /// `roost group leave`, step by step.
    Leave {
        /// Whom to answer.
        token: Token,
        /// Which step.
        stage: LeaveStage,
    },
    /// What the holders of the key said to it: the gd since, or why not.
    LeaveAnswered(Result<Box<SignedGd>, CallFailed>),
    /// `POST /group/leave`.
    AdmitLeave {
        /// Whom to answer.
        token: Token,
        /// Who calls, proven by TLS.
        caller: PeerId,
        /// Which step.
        stage: LeaveStage,
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
    /// Somebody names a member or a key of `group` that its gd does not: look for a newer one, and answer when that ended.
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
    /// Sign with this group key; answer [`Input::GdSigned`].
    SignGd {
        /// What to sign.
        gd: GroupDescriptor,
        /// With which key.
        key: Fingerprint,
    },
    /// Make a new group key, durable, have the old one sign for it, put both into this gd and sign it with the new one; answer
    /// [`Input::KeyRotated`].
    RotateKey {
        /// What to sign.
        gd: GroupDescriptor,
        /// What it replaces.
        old: OldKey,
    },
    /// `POST /group/key` to these peers in turn, and keep what fits; answer [`Input::KeyFetched`].
    FetchKey {
        /// Whose key.
        group: GroupName,
        /// Which.
        key: Fingerprint,
        /// Whom to ask.
        ask: Vec<PeerId>,
    },
    /// Remove every other key of this group from `keys/`. No answer is needed.
    ForgetKeys {
        /// Whose keys.
        group: GroupName,
        /// The one that stays.
        but: Fingerprint,
    },
    /// `POST /group/leave` to these peers in turn until one does it; answer [`Input::LeaveAnswered`].
    AskLeave {
        /// Which step.
        stage: LeaveStage,
        /// Whom to ask.
        ask: Vec<PeerId>,
    },
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
