//! Links between real swarms in memory, and peers that do with their streams what they should not.

use std::future::Future;

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::SwarmEvent as Libp2pEvent;
use libp2p::{PeerId as Libp2pPeer, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{FLYING_MAX, STREAMS_MAX};
use crate::model::group::PeerAddr;
use crate::model::{Digest, PeerId};
use crate::net::dht_codec::{Frame, read_frame, write_frame};
use crate::net::dht_streams::StreamEvent;
use crate::net::identity::keypair;
use crate::net::swarm::{self, Command, Running, SwarmConfig, SwarmEvent};
use crate::net::swarm_build::{BehaviourEvent, build};
use crate::net::swarm_gate::DialRule;
use crate::wire::PeerKey;
use crate::wire::dht::{Answer, List, Op, REQUEST_MAX, RESPONSE_MAX, Request, Response};

/// Longer than any test needs, on a machine with other work.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("not seen: {what}"),
    }
}

fn key(n: u16) -> PeerKey {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    PeerKey::from_seed(&seed)
}

fn request(n: u8) -> Request {
    let key = Digest::new([n; 32]);
    Request { ops: vec![Op::List(List { key, values: false, have: Vec::new(), unless: None })] }
}

fn response() -> Response {
    Response { answers: vec![Answer::Missing] }
}

async fn started(port: u16) -> Running {
    swarm::start(SwarmConfig::memory(port), &key(port)).await.unwrap()
}

/// Tells `running` where the peer on `port` is.
async fn know(running: &Running, port: u16) {
    let addr = PeerAddr { host: "memory".to_owned(), https: 0, libp2p: port };
    running.commands.send(Command::Peers(vec![(key(port).peer_id(), vec![addr])])).await.unwrap();
}

async fn send(running: &Running, id: u64, to: u16) {
    let peer = key(to).peer_id();
    running.commands.send(Command::Send { id, peer, request: request(1) }).await.unwrap();
}

/// What comes of the next request that ends.
async fn answered(running: &mut Running) -> (u64, Option<Response>) {
    let answer = async {
        loop {
            if let Some(SwarmEvent::Answered { id, response }) = running.events.recv().await {
                return (id, response);
            }
        }
    };
    soon("a request ends", answer).await
}

/// A peer that answers every request, and tells who asked.
fn serving(mut running: Running) -> (mpsc::Receiver<PeerId>, JoinHandle<()>) {
    let (tell, told) = mpsc::channel(1024);
    let task = tokio::spawn(async move {
        while let Some(event) = running.events.recv().await {
            if let SwarmEvent::Request { channel, from, .. } = event {
                let _ = tell.try_send(from);
                running.commands.send(Command::Respond { channel, response: response() }).await.unwrap();
            }
        }
    });
    (told, task)
}

/// A peer that does with its streams what a test wants.
struct Rogue {
    streams: mpsc::Receiver<StreamEvent>,
    open: mpsc::Sender<Libp2pPeer>,
}

impl Rogue {
    fn new(port: u16, knows: u16) -> Self {
        let keys = keypair(&key(port)).unwrap();
        let mut swarm = build(&SwarmConfig::memory(port), &keys, DialRule::new(true)).unwrap();
        swarm.listen_on(format!("/memory/{port}").parse().unwrap()).unwrap();
        let other = keypair(&key(knows)).unwrap().public().to_peer_id();
        swarm.add_peer_address(other, format!("/memory/{knows}").parse().unwrap());
        let (tell, streams) = mpsc::channel(64);
        let (open, mut wanted) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    peer = wanted.recv() => match peer {
                        Some(peer) => swarm.behaviour_mut().dht.open(peer),
                        None => return,
                    },
                    event = swarm.select_next_some() => {
                        if let Libp2pEvent::Behaviour(BehaviourEvent::Dht((_, event))) = event {
                            tell.send(event).await.unwrap();
                        }
                    }
                }
            }
        });
        Self { streams, open }
    }

    async fn opened(&mut self, to: u16) -> Stream {
        let peer = keypair(&key(to)).unwrap().public().to_peer_id();
        self.open.send(peer).await.unwrap();
        match soon("a stream opens", self.streams.recv()).await {
            Some(StreamEvent::Opened(stream)) => stream,
            other => panic!("{other:?}"),
        }
    }

    async fn taken(&mut self) -> Stream {
        match soon("a stream is opened", self.streams.recv()).await {
            Some(StreamEvent::Taken(stream)) => stream,
            other => panic!("{other:?}"),
        }
    }
}

async fn ask(stream: &mut Stream, number: u32) {
    write_frame(stream, &Frame { number, body: request(1).encode() }, PATIENCE).await.unwrap();
}

async fn next(stream: &mut Stream) -> Option<Frame> {
    soon("the other side answers or ends", read_frame(stream, RESPONSE_MAX, PATIENCE)).await.unwrap_or(None)
}

#[tokio::test]
async fn many_requests_cross_one_stream() {
    let (mut asker, mut rogue) = (started(101).await, Rogue::new(102, 101));
    know(&asker, 102).await;
    for id in 0..3 {
        send(&asker, id, 102).await;
    }
    let mut stream = rogue.taken().await;
    let mut frames = Vec::new();
    for _ in 0..3 {
        frames.push(next(&mut stream).await.unwrap());
    }
    // Answered in another order than asked.
    for frame in frames.iter().rev() {
        assert_eq!(Request::decode(&frame.body).unwrap(), request(1));
        let answer = Frame { number: frame.number, body: response().encode() };
        write_frame(&mut stream, &answer, PATIENCE).await.unwrap();
    }
    for id in [2, 1, 0] {
        assert_eq!(answered(&mut asker).await, (id, Some(response())));
    }
    send(&asker, 9, 102).await;
    let frame = next(&mut stream).await.unwrap();
    write_frame(&mut stream, &Frame { number: frame.number, body: Vec::new() }, PATIENCE).await.unwrap();
    assert_eq!(answered(&mut asker).await, (9, None), "an empty body says that there is no answer");
    assert!(rogue.streams.try_recv().is_err(), "it was one stream");
}

#[tokio::test]
async fn what_is_no_request_ends_its_stream_and_nothing_else() {
    let (asked, mut rogue) = (started(111).await, Rogue::new(112, 111));
    let (mut told, _task) = serving(asked);
    let mut good = rogue.opened(111).await;
    let mut oversize = rogue.opened(111).await;
    let length = u32::try_from(REQUEST_MAX + 1).unwrap();
    oversize.write_all(&length.to_be_bytes()).await.unwrap();
    oversize.write_all(&[0; 4]).await.unwrap();
    oversize.flush().await.unwrap();
    assert_eq!(next(&mut oversize).await, None, "before a byte of its body came");
    let mut garbage = rogue.opened(111).await;
    write_frame(&mut garbage, &Frame { number: 1, body: vec![0xff; 50] }, PATIENCE).await.unwrap();
    assert_eq!(next(&mut garbage).await, None);
    ask(&mut good, 5).await;
    assert_eq!(next(&mut good).await, Some(Frame { number: 5, body: response().encode() }));
    assert_eq!(told.recv().await, Some(key(112).peer_id()), "only what was a request reached the brain");
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_peer_that_opens_many_streams_keeps_the_newest_few() {
    let (asked, mut rogue) = (started(121).await, Rogue::new(122, 121));
    let (_told, _task) = serving(asked);
    let mut streams = Vec::new();
    for number in 0..10 {
        let mut stream = rogue.opened(121).await;
        ask(&mut stream, number).await;
        assert_eq!(next(&mut stream).await.map(|frame| frame.number), Some(number));
        streams.push(stream);
    }
    for stream in streams.iter_mut().take(10 - STREAMS_MAX) {
        assert_eq!(next(stream).await, None);
    }
    for stream in streams.iter_mut().skip(10 - STREAMS_MAX) {
        ask(stream, 77).await;
        assert_eq!(next(stream).await.map(|frame| frame.number), Some(77));
    }
}

#[tokio::test]
async fn a_peer_that_does_not_wait_for_answers_is_not_read_on() {
    let (mut asked, mut rogue) = (started(131).await, Rogue::new(132, 131));
    let mut stream = rogue.opened(131).await;
    let more = u32::try_from(FLYING_MAX).unwrap() + 3;
    for number in 0..more {
        ask(&mut stream, number).await;
    }
    let mut channels = Vec::new();
    let mut request = async || match soon("a request comes", asked.events.recv()).await {
        Some(SwarmEvent::Request { channel, .. }) => Some(channel),
        _ => None,
    };
    while channels.len() < FLYING_MAX {
        channels.extend(request().await);
    }
    let beyond = tokio::time::timeout(std::time::Duration::from_millis(300), request()).await;
    assert!(!matches!(beyond, Ok(Some(_))), "as many await their answers as may");
    for channel in channels {
        asked.commands.send(Command::Respond { channel, response: response() }).await.unwrap();
    }
    for _ in 0..FLYING_MAX {
        assert!(next(&mut stream).await.is_some());
    }
    let (_told, _task) = serving(asked);
    for _ in 0..3 {
        assert!(next(&mut stream).await.is_some(), "then the others are served");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_answers_is_given_up_and_asked_again_on_another_stream() {
    let (mut asker, mut rogue) = (started(141).await, Rogue::new(142, 141));
    know(&asker, 142).await;
    for id in 0..20 {
        send(&asker, id, 142).await;
    }
    let mut silent = rogue.taken().await;
    let mut ended = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let (id, response) = answered(&mut asker).await;
        assert_eq!(response, None);
        ended.insert(id);
    }
    assert_eq!(ended.len(), 20, "each once, those that had not been sent too");
    while next(&mut silent).await.is_some() {}
    send(&asker, 30, 142).await;
    let mut stream = rogue.taken().await;
    let frame = next(&mut stream).await.unwrap();
    let answer = Frame { number: frame.number, body: response().encode() };
    write_frame(&mut stream, &answer, PATIENCE).await.unwrap();
    assert_eq!(answered(&mut asker).await, (30, Some(response())));
}

#[tokio::test]
async fn answers_that_are_none_end_the_link() {
    let (mut asker, mut rogue) = (started(151).await, Rogue::new(152, 151));
    know(&asker, 152).await;
    let length = u32::try_from(RESPONSE_MAX + 1).unwrap().to_be_bytes();
    let garbage = [0, 0, 0, 2, 0, 0, 0, 0, 0xff, 0xff];
    let unasked = [0, 0, 0, 0, 0, 0, 0, 9];
    for (id, bytes) in [&length[..], &garbage, &unasked].into_iter().enumerate() {
        send(&asker, u64::try_from(id).unwrap(), 152).await;
        let mut stream = rogue.taken().await;
        assert!(next(&mut stream).await.is_some());
        stream.write_all(bytes).await.unwrap();
        stream.write_all(&[0; 8][..8_usize.saturating_sub(bytes.len())]).await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(answered(&mut asker).await, (u64::try_from(id).unwrap(), None));
        let mut rest = Vec::new();
        let _ = soon("the link ends", stream.read_to_end(&mut rest)).await;
    }
}

/// On TCP: libp2p's memory keeps a port for ever.
#[tokio::test]
async fn requests_reach_a_peer_that_was_restarted() {
    let tcp = |port| SwarmConfig::tcp(std::net::Ipv4Addr::LOCALHOST.into(), port, true);
    let mut asker = swarm::start(tcp(0), &key(161)).await.unwrap();
    let mut port = 0;
    for round in 0..3 {
        let again = async {
            loop {
                match swarm::start(tcp(port), &key(162)).await {
                    Ok(running) => return running,
                    // The one before has not ended yet.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        };
        let running = soon("the port is free", again).await;
        port = running.port;
        let addr = PeerAddr { host: "127.0.0.1".to_owned(), https: 0, libp2p: port };
        asker.commands.send(Command::Peers(vec![(key(162).peer_id(), vec![addr])])).await.unwrap();
        let (_told, task) = serving(running);
        for id in 0..3 {
            send(&asker, round * 10 + id, 162).await;
            assert_eq!(answered(&mut asker).await, (round * 10 + id, Some(response())));
        }
        // Its events are dropped, so the swarm ends.
        task.abort();
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_no_answer() {
    let mut asker = started(171).await;
    know(&asker, 172).await;
    send(&asker, 1, 172).await;
    assert_eq!(answered(&mut asker).await, (1, None));
    send(&asker, 2, 172).await;
    assert_eq!(answered(&mut asker).await, (2, None));
}
