//! Joining a group by invite, on the side of the peer that joins. The invite's secret never travels, only an HMAC under it.

use std::collections::VecDeque;

use super::Group;
use super::answers::Reply;
use super::error::GroupError;
use super::events::Event;
use super::membership::in_words;
use super::types::{Action, CallFailed, SignedGd};
use crate::core::{Effect, Token};
use crate::model::card::{CARD_PEERS_MAX, CardPeer, Invite};
use crate::model::{Address, Now, PeerId};
use crate::seal::join_proof;

/// A join under way.
#[derive(Debug)]
pub(super) struct Joining {
    token: Token,
    invite: Invite,
    /// Not asked yet.
    waiting: VecDeque<CardPeer>,
    /// Being asked.
    asked: Option<CardPeer>,
    /// Who was asked in vain: where, and what happened.
    tried: Vec<String>,
    /// What the first that refused said.
    refused: Option<String>,
}

impl Joining {
    /// The peers that are or were asked, and where they are by the invite.
    pub(super) fn peers(&self) -> impl Iterator<Item = &CardPeer> {
        self.invite.peers.iter().take(CARD_PEERS_MAX)
    }
}

fn places(peer: &CardPeer) -> String {
    let at: Vec<String> = peer.addrs.iter().map(|a| format!("{}:{}", a.host, a.https)).collect();
    if at.is_empty() { peer.peer_id.to_string() } else { at.join(", ") }
}

impl Group {
    pub(super) fn join(&mut self, now: Now, token: Token, invite: Invite) {
        match self.may_join(now, &invite) {
            Err(error) => self.refuse(token, error),
            Ok(Some(reply)) => self.out.reply(token, reply),
            Ok(None) => {
                // What the invite says of where they are becomes durable with the gd that names this peer, and not before.
                let waiting: VecDeque<CardPeer> = invite.peers.iter().take(CARD_PEERS_MAX).cloned().collect();
                self.joining = Some(Joining { token, invite, waiting, asked: None, tried: Vec::new(), refused: None });
                // The connector dials only whom the picture names, so it comes first.
                self.publish_picture();
                self.ask_next();
            }
        }
    }

    /// The answer if this peer is a member already; nothing if it may ask.
    fn may_join(&self, now: Now, invite: &Invite) -> Result<Option<Reply>, GroupError> {
        let address = self.me.member.address.clone();
        let invited = Address::new(invite.name.clone(), invite.group.clone());
        if invited != address {
            return Err(GroupError::OtherName { invited, address });
        }
        if let Some(pin) = self.pins.get(&invite.group) {
            if pin.key != invite.group_key {
                let (group, pinned, offered) = (invite.group.clone(), pin.key, invite.group_key);
                return Err(GroupError::PinConflict { group, pinned, offered });
            }
            if let Some(own) = self.home() {
                let (gd_version, members) = (own.gd.version, own.gd.members.len());
                return Ok(Some(Reply::Joined { gd_version, members }));
            }
        }
        if invite.expiry <= now.wall {
            return Err(GroupError::Expired { name: invite.name.clone() });
        }
        if self.joining.is_some() || self.creating.is_some() {
            return Err(GroupError::Busy { waiting: 1 });
        }
        Ok(None)
    }

    /// Asks the next peer of the invite, as soon as the own descriptor is signed; with none left the join has failed.
    pub(super) fn ask_next(&mut self) {
        if let (None, Some(why)) = (&self.own, &self.undescribed) {
            let why = why.clone();
            if let Some(failed) = self.joining.take() {
                self.dirty = true;
                self.refuse(failed.token, GroupError::Descriptor { why });
            }
            return;
        }
        let me = &self.me.member;
        let (Some(joining), Some(own)) = (&mut self.joining, &self.own) else {
            return;
        };
        if let Some(next) = joining.waiting.pop_front() {
            let key = joining.invite.group_key;
            let proof = join_proof(&joining.invite.secret, &me.peer_id, &me.fingerprint, &key);
            let (peer, descriptor) = (next.peer_id, own.signed.clone());
            joining.asked = Some(next);
            return self.out.act(Action::AskJoin { peer, key, descriptor, proof: proof.to_vec() });
        }
        if let Some(failed) = self.joining.take() {
            // The picture names the peers of its invite no more.
            self.dirty = true;
            let group = failed.invite.group;
            let error = match failed.refused {
                Some(why) => GroupError::JoinRefused { group, why },
                None => GroupError::Unreachable { group, tried: failed.tried.join("; ") },
            };
            self.refuse(failed.token, error);
        }
    }

    pub(super) fn join_answered(&mut self, now: Now, peer: PeerId, result: Result<SignedGd, CallFailed>) {
        let me = self.me.member.clone();
        let Some(joining) = &mut self.joining else {
            return;
        };
        if joining.asked.as_ref().is_none_or(|asked| asked.peer_id != peer) {
            return;
        }
        let at = joining.asked.take().map(|asked| places(&asked)).unwrap_or_default();
        let names_me = |signed: &SignedGd| {
            signed.key == joining.invite.group_key
                && signed.gd.group == joining.invite.group
                && signed.gd.member(&me.peer_id) == Some(&me)
        };
        match result {
            Ok(signed) if names_me(&signed) && super::membership::plausible(&signed.gd) => {
                return self.joined(now, signed);
            }
            Ok(_) => joining.tried.push(format!("{at}: the answer does not name this peer under the invite's key")),
            Err(CallFailed::Refused { why, .. }) => {
                joining.refused.get_or_insert(why);
            }
            Err(failed) => joining.tried.push(format!("{at}: {}", in_words(&failed))),
        }
        self.ask_next();
    }

    fn joined(&mut self, now: Now, signed: SignedGd) {
        let Some(joining) = self.joining.take() else {
            return;
        };
        let reply = Reply::Joined { gd_version: signed.gd.version, members: signed.gd.members.len() };
        let (group, key) = (signed.gd.group.clone(), signed.key);
        let mut peers = joining.invite.peers;
        peers.truncate(CARD_PEERS_MAX);
        let events = vec![Event::Hints { peers }, Event::Pinned { group, key, at: Some(now.wall) }, Event::Gd(signed)];
        self.record(events, vec![Effect::Reply(joining.token, reply)]);
        self.founded_or_joined(now);
        self.introduce(now);
    }
}
