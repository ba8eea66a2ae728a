//! A mail that is gone is answered with 410 and its owner's signed tombstone, by the owner and by members, at every route that
//! names it.

use std::sync::Arc;

use futures::future::BoxFuture;
use roost::actors::identity::Identity;
use roost::model::group::PeerAddr;
use roost::model::msglist::{Ending, Tombstone};
use roost::model::{MailId, PeerId};
use roost::net::https_client::{ClientBounds, PeerClient};
use roost::net::locate::{Locate, Located};
use roost::net::peer_answer::NetError;
use roost::net::tls::TlsIdentity;
use roost::wire::{PeerKey, Signed};

use crate::harness::{Team, wait_for};

/// Knows where one peer is.
struct At(PeerAddr);

impl Locate for At {
    fn locate(&self, _: PeerId) -> BoxFuture<'_, Located> {
        Box::pin(async { Located { addrs: vec![self.0.clone()], private: true } })
    }
    fn locate_again(&self, peer: PeerId) -> BoxFuture<'_, Located> {
        self.locate(peer)
    }
}

/// What each route answers to a stranger who knows h.
async fn answers(client: &PeerClient, peer: PeerId, h: &MailId) -> Vec<NetError> {
    vec![
        client.get_sealed(peer, h, None).await.unwrap_err(),
        client.get_sealed(peer, h, Some(0..10)).await.unwrap_err(),
        client.get_manifest(peer, h, 1 << 20).await.unwrap_err(),
        client.get_fragments(peer, h).await.unwrap_err(),
        client.get_fragment(peer, h, (3, 1), None).await.unwrap_err(),
        client.get_fragment(peer, h, (1, 0), Some(0..10)).await.unwrap_err(),
    ]
}

#[test]
fn a_mail_that_is_gone_is_answered_with_its_tombstone_by_owner_and_members_at_every_route() {
    let team = Team::of_three();
    let letter = team.letter("alice", "bob", 200_000);
    let mail = team.submit("alice", &["bob"], letter);
    let h = team.wait_until_safe(&mail, 1).h;
    let mut bob = team.reader("bob");
    bob.reads_every_byte_of(&mail);
    wait_for("it is received", || team.waiting("alice").is_empty().then_some(()));
    let held = |name: &str| team.home(name).mirrored_parts(&team.address("alice")).unwrap().iter().any(|p| p.0 == h);
    wait_for("the members drop it", || (!held("bob") && !held("carol")).then_some(()));

    let alice = Identity::load(&team.home("alice")).unwrap().peer_id();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for name in ["alice", "bob", "carol"] {
        let peer = Identity::load(&team.home(name)).unwrap().peer_id();
        let https = team.https_port(name);
        let at = At(PeerAddr { host: "127.0.0.1".to_owned(), https, libp2p: 0 });
        let stranger = TlsIdentity::new(&PeerKey::from_seed(&[77; 32])).unwrap();
        let told = runtime.block_on(async {
            let client = PeerClient::new(stranger, Arc::new(at), ClientBounds::default());
            answers(&client, peer, &h).await
        });
        for (route, answer) in told.into_iter().enumerate() {
            let NetError::Gone { tombstone, .. } = answer else { panic!("{name}, route {route}: {answer:?}") };
            let tombstone = Signed::<Tombstone>::verify(&tombstone).unwrap();
            assert_eq!((tombstone.owner, tombstone.h, tombstone.ending), (alice, h, Ending::Received), "{name}");
        }
    }
}
