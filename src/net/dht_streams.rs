//! Which libp2p streams carry `/roost/dht/1`: opens one to a peer that is to be asked, dialling it where need be, and hands
//! over those that others open. It never reads or writes them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, DialError, FromSwarm, NetworkBehaviour,
    NotifyHandler, PeerAddresses, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, Stream, StreamProtocol};

use crate::wire::dht::DHT_PROTOCOL;

const PROTOCOL: StreamProtocol = StreamProtocol::new(DHT_PROTOCOL);

/// What becomes of streams.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// A stream that was asked for.
    Opened(Stream),
    /// It cannot be had.
    NotOpened,
    /// A stream that the peer opened.
    Taken(Stream),
}

/// Asks a connection for a stream.
#[derive(Debug)]
pub(super) struct Open;

/// The streams' part of the swarm.
#[derive(Debug, Default)]
pub(super) struct Streams {
    addresses: PeerAddresses,
    /// Newest last: an older one may have died without a word.
    connections: BTreeMap<PeerId, Vec<ConnectionId>>,
    /// To whom a stream is wanted, who is not connected yet.
    dialled: BTreeSet<PeerId>,
    /// Which connection was asked for a stream and has not answered, and whether it was made for that.
    opening: BTreeMap<PeerId, (ConnectionId, bool)>,
    out: VecDeque<ToSwarm<(PeerId, StreamEvent), Open>>,
}

impl Streams {
    /// Opens a stream to `peer`; an event tells what came of it. One at a time for each peer.
    pub(super) fn open(&mut self, peer: PeerId) {
        if let Some(connection) = self.connections.get(&peer).and_then(|connections| connections.last()) {
            self.open_on(peer, *connection, false);
        } else if self.dialled.insert(peer) {
            self.out.push_back(ToSwarm::Dial { opts: DialOpts::peer_id(peer).build() });
        }
    }

    fn open_on(&mut self, peer: PeerId, connection: ConnectionId, made_for_it: bool) {
        self.opening.insert(peer, (connection, made_for_it));
        let handler = NotifyHandler::One(connection);
        self.out.push_back(ToSwarm::NotifyHandler { peer_id: peer, handler, event: Open });
    }

    fn tell(&mut self, peer: PeerId, event: StreamEvent) {
        self.out.push_back(ToSwarm::GenerateEvent((peer, event)));
    }

    fn connected(&mut self, peer: PeerId, connection: ConnectionId) {
        self.connections.entry(peer).or_default().push(connection);
        if self.dialled.remove(&peer) {
            self.open_on(peer, connection, true);
        }
    }

    fn closed(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(connections) = self.connections.get_mut(&peer) {
            connections.retain(|held| *held != connection);
            if connections.is_empty() {
                self.connections.remove(&peer);
            }
        }
        match self.opening.get(&peer) {
            // It had died already when it was asked.
            Some((asked, false)) if *asked == connection => {
                self.opening.remove(&peer);
                self.open(peer);
            }
            Some((asked, true)) if *asked == connection => {
                self.opening.remove(&peer);
                self.tell(peer, StreamEvent::NotOpened);
            }
            _ => {}
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = (PeerId, StreamEvent);

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map(|peer| self.addresses.get(&peer).collect()).unwrap_or_default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.addresses.on_swarm_event(&event);
        match event {
            FromSwarm::ConnectionEstablished(made) => self.connected(made.peer_id, made.connection_id),
            FromSwarm::ConnectionClosed(closed) => self.closed(closed.peer_id, closed.connection_id),
            FromSwarm::DialFailure(failure) => {
                // Another dial is under way, and tells.
                let other = matches!(failure.error, DialError::DialPeerConditionFalse(_));
                if let Some(peer) = failure.peer_id.filter(|_| !other)
                    && self.dialled.remove(&peer)
                {
                    self.tell(peer, StreamEvent::NotOpened);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            StreamEvent::Taken(_) => self.tell(peer, event),
            StreamEvent::Opened(_) | StreamEvent::NotOpened => {
                if self.opening.get(&peer).is_some_and(|(asked, _)| *asked == connection) {
                    self.opening.remove(&peer);
                    self.tell(peer, event);
                }
            }
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The swarm polls again after everything that may have put something here.
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Handler {
    out: VecDeque<ConnectionHandlerEvent<ReadyUpgrade<StreamProtocol>, (), StreamEvent>>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = StreamEvent;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn on_behaviour_event(&mut self, Open: Open) {
        let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
        self.out.push_back(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>) {
        let event = match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                StreamEvent::Taken(protocol)
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, .. }) => {
                StreamEvent::Opened(protocol)
            }
            ConnectionEvent::DialUpgradeError(_) => StreamEvent::NotOpened,
            _ => return,
        };
        self.out.push_back(ConnectionHandlerEvent::NotifyBehaviour(event));
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        self.out.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
