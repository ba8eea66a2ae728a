//! Which stores of a peer have no room on the disk, for status, metrics and doctor. It changes nothing and frees nothing.

use super::protocol::FullStore;
use crate::actors::peer::Peer;
use crate::store::room;

/// The stores without room now.
pub(super) async fn stores(peer: &Peer) -> Vec<FullStore> {
    let journal_has_room = peer.journal.has_room().await;
    let root = peer.home.root().to_owned();
    let found = tokio::task::spawn_blocking(move || room::full(&root)).await.unwrap_or_default();
    let store = |full: room::Full| FullStore { store: full.store.to_owned(), what: full.what };
    let mut full: Vec<FullStore> = found.into_iter().map(store).collect();
    if !journal_has_room && !full.iter().any(|one| one.store == "journal") {
        let what = "the disk is full: the journal waits for room; free some space, and the peer goes on by itself";
        full.push(FullStore { store: "journal".to_owned(), what: what.to_owned() });
    }
    full
}
