//! A member that asks whether it can be reached is dialled back, at the addresses that it signed itself and at no other. It
//! never does that for a stranger, never often, and never over a connection that is there already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::model::group::{Member, PeerDescriptor};
use crate::model::{MonoTime, PeerId};
use crate::net::peer_api::ApiError;
use crate::net::reach::dial_all;
use crate::net::tls::TlsIdentity;
use crate::seal::record::{PgpSigned, verify_descriptor};
use crate::wire::http::{ReachAnswer, ReachPost};

/// Between two tests for one member: a person who runs `roost doctor` again is served, a port scan is not.
const APART: Duration = Duration::from_secs(3);
/// Members that are dialled back at once.
const AT_ONCE: usize = 4;
/// When one more is asked to come again.
const RETRY: Duration = Duration::from_secs(5);

/// Dials members back.
#[derive(Debug)]
pub struct DialBack {
    tls: TlsIdentity,
    own_machine: bool,
    last: Mutex<BTreeMap<PeerId, MonoTime>>,
    room: Arc<Semaphore>,
}

impl DialBack {
    /// Nobody was dialled back yet; `tls` is this peer's own side. Whether members on this very machine are dialled too.
    pub fn new(tls: TlsIdentity, own_machine: bool) -> Self {
        Self { tls, own_machine, last: Mutex::default(), room: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Dials the member that asks, as the gd names it.
    ///
    /// # Errors
    /// [`ApiError::BadRequest`] when the descriptor is not its own; [`ApiError::TooMany`] when it asked just now;
    /// [`ApiError::Unavailable`] while others are dialled.
    pub async fn answer(&self, clock: &Clock, member: &Member, post: ReachPost) -> Result<ReachAnswer, ApiError> {
        self.come(clock.now().mono, member.peer_id)?;
        let busy = |_| ApiError::Unavailable {
            why: "this peer tests other members just now; ask again in a few seconds".to_owned(),
            retry_after: RETRY,
        };
        let _one = self.room.clone().try_acquire_owned().map_err(busy)?;
        let verified = tokio::task::spawn_blocking(move || verify_descriptor(&post.descriptor)).await;
        let stopping = |_| ApiError::Unavailable { why: "this peer is stopping".to_owned(), retry_after: RETRY };
        let verified = verified.map_err(stopping)?.map_err(|e| ApiError::BadRequest { why: e.to_string() })?;
        let descriptor = own_descriptor(verified, member)?;
        // A member's private addresses may be dialled, here as everywhere.
        let addrs = dial_all(&self.tls, member.peer_id, &descriptor.addrs, self.own_machine).await;
        Ok(ReachAnswer { addrs })
    }

    fn come(&self, now: MonoTime, member: PeerId) -> Result<(), ApiError> {
        // A number is replaced in one step, so a panic elsewhere leaves a good one.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, at| now.since(*at) < APART);
        if last.contains_key(&member) {
            let why = format!("a member is dialled back once in {} s; ask again then", APART.as_secs());
            return Err(ApiError::TooMany { why, retry_after: APART });
        }
        last.insert(member, now);
        Ok(())
    }
}

/// The descriptor, if it is `member`'s own and signed by the key that the gd names.
fn own_descriptor(verified: PgpSigned<PeerDescriptor>, member: &Member) -> Result<PeerDescriptor, ApiError> {
    let signer = verified.signer().fingerprint();
    let descriptor = verified.into_value();
    if signer == member.fingerprint && descriptor.peer_id == member.peer_id && descriptor.address == member.address {
        return Ok(descriptor);
    }
    let why = "a member is dialled back only at the addresses of its own signed peer descriptor; this one is another's";
    Err(ApiError::BadRequest { why: why.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WallTime;
    use crate::model::group::PeerAddr;
    use crate::seal::SecretIdentity;
    use crate::seal::record::sign_descriptor;
    use crate::wire::PeerKey;
    use serde_bytes::ByteBuf;
    use tokio::net::TcpListener;

    const NOW: WallTime = WallTime(1_790_000_000_000);

    fn identity(name: &str) -> SecretIdentity {
        SecretIdentity::generate(&format!("{name}@acme").parse().unwrap(), NOW).unwrap()
    }

    fn member(name: &str, who: &SecretIdentity, key: u8) -> Member {
        Member {
            address: format!("{name}@acme").parse().unwrap(),
            peer_id: PeerId::new([key; 32]),
            fingerprint: who.certificate().fingerprint(),
        }
    }

    fn post(member: &Member, who: &SecretIdentity, addr: PeerAddr) -> ReachPost {
        let descriptor = PeerDescriptor {
            address: member.address.clone(),
            peer_id: member.peer_id,
            addrs: vec![addr],
            certificate: who.certificate().as_bytes().to_vec(),
            sequence: 0,
        };
        ReachPost { descriptor: ByteBuf::from(sign_descriptor(descriptor, who, NOW).unwrap().as_bytes().to_vec()) }
    }

    fn dial_back() -> DialBack {
        DialBack::new(TlsIdentity::new(&PeerKey::from_seed(&[1; 32])).unwrap(), true)
    }

    #[tokio::test]
    async fn a_member_is_dialled_at_what_it_signed_and_not_again_at_once() {
        let (bob, clock) = (identity("bob"), Clock::system());
        let named = member("bob", &bob, 2);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: 1, libp2p: port };
        let dial_back = dial_back();
        let told = dial_back.answer(&clock, &named, post(&named, &bob, addr.clone())).await.unwrap();
        assert_eq!(told.addrs.len(), 1);
        assert!(told.addrs[0].https.why.is_some() && told.addrs[0].libp2p.why.is_some(), "{told:?}");
        let again = dial_back.answer(&clock, &named, post(&named, &bob, addr)).await;
        assert!(matches!(again, Err(ApiError::TooMany { .. })), "{again:?}");
    }

    #[tokio::test]
    async fn nothing_is_dialled_for_a_descriptor_that_is_not_the_members_own_or_is_forged() {
        let (bob, eve, clock) = (identity("bob"), identity("bob"), Clock::system());
        let (named, other) = (member("bob", &bob, 2), member("bob", &bob, 3));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: port, libp2p: port };
        let by_another_key = post(&member("bob", &eve, 2), &eve, addr.clone());
        let of_another_peer = post(&other, &bob, addr);
        let noise = ReachPost { descriptor: ByteBuf::from(vec![1; 100]) };
        for bad in [by_another_key, of_another_peer, noise] {
            let refused = dial_back().answer(&clock, &named, bad).await;
            assert!(matches!(refused, Err(ApiError::BadRequest { .. })), "{refused:?}");
        }
        let nobody = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await;
        assert!(nobody.is_err(), "nothing was dialled");
    }
}
