//! Who holds the group key: the gd names them, and whoever it names without having the key fetches it from one that has it,
//! sealed to its own certificate. It never hands the key to a peer that the gd does not name.

use super::answers::Reply;
use super::changes::{Change, Wish};
use super::contacts::ASKED_MAX;
use super::error::GroupError;
use super::events::Event;
use super::types::{Action, SignedGd};
use super::{Group, backoff};
use crate::core::Token;
use crate::model::{Address, Fingerprint, MonoTime, Now, PeerId};

/// Fetching the group key.
#[derive(Debug, Default)]
pub(super) struct Seeking {
    due: MonoTime,
    under_way: bool,
    fails: u32,
}

impl Group {
    pub(super) fn no_group(&self) -> GroupError {
        GroupError::NoGroup { group: self.group().clone() }
    }

    /// The gd that this peer may change, or why it may not.
    pub(super) fn changeable(&self) -> Result<&SignedGd, GroupError> {
        let own = self.home().ok_or_else(|| self.no_group())?;
        let address = &self.me.member.address;
        let others = own.gd.key_holders.iter().filter(|holder| *holder != address);
        let holders = others.map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !own.gd.key_holders.contains(address) {
            return Err(GroupError::NotKeyHolder { address: address.clone(), holders });
        }
        if !self.has_key() {
            return Err(GroupError::KeyNotHere { holders });
        }
        Ok(own)
    }

    /// Whether the group's key is on this disk.
    pub(super) fn has_key(&self) -> bool {
        let Some(pin) = self.pins.get(self.group()) else { return false };
        match self.held_key {
            Some(key) => key == pin.key,
            // Journals of before the key could be handed on: only its founder ever had it.
            None => {
                let first = pin.gd.as_ref().and_then(|held| held.gd.members.first());
                pin.retired().is_empty() && first.is_some_and(|member| self.is_me(&member.peer_id))
            }
        }
    }

    /// Whether the gd names this peer as a holder of a key that is not here.
    fn lacks_key(&self) -> bool {
        let named = self.home().is_some_and(|own| own.gd.key_holders.contains(&self.me.member.address));
        named && !self.has_key() && !self.other_holders().is_empty()
    }

    /// The other members that the gd names as holders.
    pub(super) fn other_holders(&self) -> Vec<PeerId> {
        let Some(own) = self.home() else { return Vec::new() };
        let holders = own.gd.members.iter().filter(|m| own.gd.key_holders.contains(&m.address));
        holders.map(|m| m.peer_id).filter(|peer| !self.is_me(peer)).collect()
    }

    /// `roost group grant`.
    pub(super) fn grant(&mut self, now: Now, token: Token, address: Address) {
        let checked = self.changeable().and_then(|own| {
            own.gd.member_at(&address).ok_or_else(|| GroupError::NoSuchMember { address: address.clone() })?;
            Ok((own.gd.key_holders.contains(&address), own.gd.version))
        });
        match checked {
            Err(error) => self.refuse(token, error),
            Ok((true, gd_version)) => self.out.reply(token, Reply::Changed { gd_version, recovery: None }),
            Ok((false, _)) => self.change(now, Change::new(token, Wish::Grant(address))),
        }
    }

    /// `POST /group/key`: whom the gd names gets the key.
    pub(super) fn ask_key(&mut self, token: Token, caller: PeerId) {
        let answer = self.changeable().and_then(|own| {
            let member = own.gd.member(&caller).filter(|m| own.gd.key_holders.contains(&m.address));
            let (caller, group, gd_version) = (caller.to_string(), self.group().clone(), own.gd.version);
            let member = member.ok_or(GroupError::NotMember { caller, group, gd_version })?;
            let certificate = self.certificate_of(member).map(<[u8]>::to_vec);
            let to = certificate.ok_or_else(|| GroupError::NoCertificate { address: member.address.clone() })?;
            Ok(Reply::HandKey { key: own.key, to })
        });
        match answer {
            Err(error) => self.refuse(token, error),
            // The gd that names the caller may not be durable yet.
            Ok(reply) => self.out.commit(Vec::new(), vec![crate::core::Effect::Reply(token, reply)]),
        }
    }

    /// When the key is asked for next.
    pub(super) fn next_seek(&self) -> Option<MonoTime> {
        (!self.seeking.under_way && self.lacks_key()).then_some(self.seeking.due)
    }

    /// Asks the other holders for the key, if the gd says that this peer is to hold it.
    pub(super) fn seek_key(&mut self, now: Now) {
        let Some(key) = self.pins.get(self.group()).map(|pin| pin.key) else { return };
        if self.next_seek().is_some_and(|due| due <= now.mono) {
            self.seeking.under_way = true;
            let holders = self.other_holders();
            let turn = usize::try_from(self.seeking.fails).unwrap_or_default() * ASKED_MAX % holders.len().max(1);
            let ask = holders.iter().cycle().skip(turn).take(holders.len().min(ASKED_MAX)).copied().collect();
            self.out.act(Action::FetchKey { group: self.group().clone(), key, ask });
        }
    }

    /// A gd brought another key, or another holder to ask.
    pub(super) fn seek_again(&mut self, now: Now) {
        self.seeking.due = now.mono;
        self.seeking.fails = 0;
    }

    pub(super) fn key_fetched(&mut self, now: Now, result: Result<Fingerprint, String>) {
        self.seeking.under_way = false;
        match result {
            Ok(key) if self.pins.get(self.group()).is_some_and(|pin| pin.key == key) => {
                self.seeking.fails = 0;
                let group = self.group().clone();
                let forget = Action::ForgetKeys { group: group.clone(), but: key };
                self.record(vec![Event::HoldsKey { group, key }], vec![crate::core::Effect::Act(forget)]);
                self.redo_overtaken(now);
            }
            // The key changed meanwhile: at once again. Else whoever has it is off.
            Ok(_) => self.seeking.due = now.mono,
            Err(_) => {
                self.seeking.fails = self.seeking.fails.saturating_add(1);
                self.seeking.due = now.mono + backoff(self.seeking.fails);
            }
        }
    }
}
