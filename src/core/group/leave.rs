//! Leaving: a member asks a holder of the group key to write down that it is on its way out, and at last that it is gone. It
//! never removes itself: whoever holds the key afterwards must be there to do it.

use super::answers::Reply;
use super::changes::{Change, Wish};
use super::error::GroupError;
use super::events::Event;
use super::types::{Action, SignedGd};
use super::{CallFailed, Group};
use crate::core::{Effect, Token};
use crate::model::group::LeaveStage;
use crate::model::{Now, PeerId};

/// A step of leaving that a holder was asked for.
#[derive(Debug)]
pub(super) struct Leaving {
    token: Token,
    stage: LeaveStage,
}

impl Group {
    /// `roost group leave`.
    pub(super) fn leave(&mut self, token: Token, stage: LeaveStage) {
        let address = self.me.member.address.clone();
        let error = match self.home() {
            None => Some(self.no_group()),
            Some(own) if own.gd.members.len() == 1 => Some(GroupError::OnlyMember { address }),
            Some(_) if self.other_holders().is_empty() => Some(GroupError::LastHolder { address }),
            Some(_) if self.leaving.is_some() => Some(GroupError::Busy { waiting: 1 }),
            Some(_) => None,
        };
        if let Some(error) = error {
            return self.refuse(token, error);
        }
        self.leaving = Some(Leaving { token, stage });
        let ask = self.other_holders();
        self.out.act(Action::AskLeave { stage, ask });
    }

    pub(super) fn leave_answered(&mut self, now: Now, result: Result<Box<SignedGd>, CallFailed>) {
        let Some(Leaving { token, stage }) = self.leaving.take() else { return };
        match result {
            Err(failed) => {
                let why = super::membership::in_words(&failed).to_owned();
                self.refuse(token, GroupError::LeaveRefused { why });
            }
            Ok(signed) => {
                self.offer_gd(now, *signed);
                let gd_version = self.own_version();
                let gone = stage == LeaveStage::Go && self.home().is_none();
                let events = if gone { vec![Event::Left { gd_version }] } else { Vec::new() };
                self.record(events, vec![Effect::Reply(token, Reply::Changed { gd_version, recovery: None })]);
            }
        }
    }

    /// `POST /group/leave`: only about the caller itself.
    pub(super) fn admit_leave(&mut self, now: Now, token: Token, caller: PeerId, stage: LeaveStage) {
        let wish = self.changeable().and_then(|own| {
            let (version, group) = (own.gd.version, self.group().clone());
            let no_member = || GroupError::NotMember { caller: caller.to_string(), group, gd_version: version };
            let member = own.gd.member(&caller).ok_or_else(no_member)?;
            let is_leaving = own.gd.leaving.contains(&member.address);
            let (address, signed) = (member.address.clone(), own.signed.clone());
            Ok(match stage {
                LeaveStage::Begin if is_leaving => Err(signed),
                LeaveStage::Begin => Ok(Wish::Leaving(address)),
                LeaveStage::Stay if !is_leaving => Err(signed),
                LeaveStage::Stay => Ok(Wish::Stay(address)),
                LeaveStage::Go => Ok(Wish::Remove(member.clone())),
            })
        });
        match wish {
            Err(error) => self.refuse(token, error),
            Ok(Err(as_it_is)) => self.out.commit(Vec::new(), vec![Effect::Reply(token, Reply::Admitted(as_it_is))]),
            Ok(Ok(wish)) => self.change(now, Change { by_peer: true, ..Change::new(token, wish) }),
        }
    }

    /// Whether `theirs` is another gd than this peer's newest.
    pub(super) fn is_another(&self, theirs: Option<crate::model::Digest>) -> bool {
        theirs.is_some_and(|theirs| self.own_digest() != Some(theirs))
    }
}
