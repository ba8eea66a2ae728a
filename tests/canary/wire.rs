//! What passed between the peers: every byte that was recorded before TLS encrypted it, as requests and answers of HTTP/1.1 and as
//! messages of the DHT. It understands enough of them to say which bytes ought to be sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use roost::model::dht::DhtKey;
use roost::model::{Address, Digest, Part};
use roost::net::tap::{self, Flow};
use roost::wire;
use roost::wire::dht::{Answer, Entry, Op, Request, Response};
use roost::wire::http::{GivenPart, PartsAnswer};
use roost::wire::notify::Notice;

use crate::sealed::{begins_sealed, is_sealed};

/// All that was recorded.
#[derive(Default)]
pub(crate) struct Recording {
    flows: BTreeMap<Flow, Vec<u8>>,
    dht: Vec<Vec<u8>>,
}

/// One request or answer.
struct Http {
    head: String,
    body: Vec<u8>,
}

impl Http {
    /// The value of a field.
    fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value.trim()))
    }
    /// A word of the first line.
    fn word(&self, number: usize) -> &str {
        self.head.split([' ', '\r']).nth(number).unwrap_or_default()
    }
}

/// All that ought to be sealed, and how often each kind was seen.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    /// What is not: the kind, and how it begins.
    pub(crate) not: Vec<String>,
    /// How many of each kind are.
    pub(crate) are: BTreeMap<&'static str, usize>,
}

impl Sealed {
    fn see(&mut self, kind: &'static str, good: bool, bytes: &[u8]) {
        if good {
            *self.are.entry(kind).or_default() += 1;
        } else {
            self.not.push(format!("{kind} begins with {:02x?}", &bytes[..bytes.len().min(16)]));
        }
    }
}

impl Recording {
    /// Records from here on.
    pub(crate) fn start() -> Arc<Mutex<Self>> {
        let recording = Arc::new(Mutex::new(Self::default()));
        let recorder = recording.clone();
        assert!(
            tap::install(Box::new(move |flow, bytes| recorder.lock().unwrap().add(flow, bytes))),
            "the first recorder"
        );
        recording
    }

    fn add(&mut self, flow: Flow, bytes: &[u8]) {
        match flow {
            Flow::Dht => self.dht.push(bytes.to_vec()),
            of_http => self.flows.entry(of_http).or_default().extend_from_slice(bytes),
        }
    }

    /// Every flow and every message.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.flows.values().chain(&self.dht).map(Vec::as_slice)
    }

    /// What of it ought to be sealed: mails, first fragments, ns and nr, over HTTPS and in the DHT, for these `addresses`.
    pub(crate) fn sealed(&self, addresses: &[Address]) -> Sealed {
        let mut sealed = Sealed::default();
        for (flow, requests) in &self.flows {
            let Flow::Requests(number) = flow else { continue };
            let requests = messages(requests);
            let answers = self.flows.get(&Flow::Answers(*number)).map(|bytes| messages(bytes)).unwrap_or_default();
            for (n, request) in requests.iter().enumerate() {
                self::exchanged(request, answers.get(n), &mut sealed);
            }
        }
        let under = |key: fn(Address) -> DhtKey| addresses.iter().map(|a| key(a.clone()).hash()).collect();
        let (ns, nr): (BTreeSet<Digest>, BTreeSet<Digest>) = (under(DhtKey::Ns), under(DhtKey::Nr));
        for entry in self.dht.iter().flat_map(|message| entries(message)) {
            let key = entry.terms().key;
            for (kind, keys) in [("ns in the DHT", &ns), ("nr in the DHT", &nr)] {
                if keys.contains(&key) {
                    sealed.see(kind, is_sealed(entry.value()), entry.value());
                }
            }
        }
        sealed
    }
}

/// Looks at one request and its answer.
fn exchanged(request: &Http, answer: Option<&Http>, sealed: &mut Sealed) {
    let path: Vec<&str> = request.word(1).split('?').next().unwrap_or_default().split('/').skip(1).collect();
    if request.word(0) == "POST" && path == ["notify"] {
        for notice in wire::decode::<Vec<Notice>>(&request.body).unwrap_or_else(|e| panic!("{}: {e}", request.head)) {
            match notice {
                Notice::Ns { sealed: ns, .. } => sealed.see("ns by HTTPS", is_sealed(&ns), &ns),
                Notice::Nr { sealed: nr, .. } => sealed.see("nr by HTTPS", is_sealed(&nr), &nr),
                Notice::Tombstone(_) | Notice::Hello => {}
            }
        }
    }
    let Some(answer) = answer.filter(|answer| answer.word(1).starts_with('2') && !answer.body.is_empty()) else {
        return;
    };
    if request.word(0) == "POST" && path == ["outbox", "parts"] {
        return given(answer, sealed);
    }
    let from_its_begin = answer.field("content-range").is_none_or(|range| range.starts_with("bytes 0-"));
    let kind = match path[..] {
        ["outbox", h] if h.len() == 40 => "a mail",
        ["outbox", _, "fragments", _, "0"] => "a first fragment",
        _ => return,
    };
    if from_its_begin {
        sealed.see(kind, begins_sealed(&answer.body), &answer.body);
    }
}

/// Looks at short parts of several mails that came in one answer.
fn given(answer: &Http, sealed: &mut Sealed) {
    let length = answer.field("content-length").map(|length| length.parse().unwrap());
    if length.is_some_and(|length: usize| answer.body.len() < length) {
        // The last answer of a connection may be cut.
        return;
    }
    let given = wire::decode::<PartsAnswer>(&answer.body).unwrap_or_else(|e| panic!("{}: {e}", answer.head));
    for GivenPart { part, bytes, .. } in given.parts {
        match part {
            Part::Whole => sealed.see("a mail", is_sealed(&bytes), &bytes),
            Part::Fragment { i: 0, .. } => sealed.see("a first fragment", begins_sealed(&bytes), &bytes),
            Part::Fragment { .. } => {}
        }
    }
}

/// The entries in a message of the DHT, which is a request or an answer and does not say which.
fn entries(message: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    for op in Request::decode(message).map(|request| request.ops).unwrap_or_default() {
        if let Op::Put(entry) = op {
            found.push(entry);
        }
    }
    for answer in Response::decode(message).map(|response| response.answers).unwrap_or_default() {
        match answer {
            Answer::Listing(listing) => found.extend(listing.entries),
            Answer::Fetched { entries, .. } => found.extend(entries),
            _ => {}
        }
    }
    found
}

/// The requests or answers that follow each other in one direction of a connection; the last may be cut.
fn messages(mut bytes: &[u8]) -> Vec<Http> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head of letters");
        assert!(head.contains("HTTP/1.1"), "not in step: {head}");
        let mut message = Http { head, body: Vec::new() };
        bytes = &bytes[end + 4..];
        if message.field("transfer-encoding").is_some() {
            bytes = unchunked(bytes, &mut message.body);
        } else {
            let length: usize = message.field("content-length").map_or(0, |length| length.parse().unwrap());
            let (body, rest) = bytes.split_at(length.min(bytes.len()));
            message.body.extend_from_slice(body);
            bytes = rest;
        }
        all.push(message);
    }
    all
}

/// Takes a chunked body (RFC 9112, section 7.1) off; gives what follows it.
fn unchunked<'a>(mut bytes: &'a [u8], body: &mut Vec<u8>) -> &'a [u8] {
    while let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let chunk = &bytes[end + 2..];
        body.extend_from_slice(&chunk[..length.min(chunk.len())]);
        bytes = chunk.get(length + 2..).unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use roost::model::MailId;

    use super::*;

    fn notify(notices: &[Notice]) -> Vec<u8> {
        let body = wire::encode(&notices);
        let head = format!("POST /notify HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.into_bytes(), body].concat()
    }

    #[test]
    fn what_is_not_sealed_is_seen_in_requests_and_in_answers() {
        let h = "ab".repeat(20);
        let (good, bad) = (&[0xc1, 1, 0, 0xd2, 1, 2][..], &[0xc8, 2, 1, 0][..]);
        let to: Address = "alice@acme".parse().unwrap();
        let mut recording = Recording::default();
        for (number, mail) in [(0, good), (1, bad)] {
            let requests = [
                notify(&[
                    Notice::Hello,
                    Notice::Ns { to: to.clone(), sealed: mail.to_vec().into() },
                    Notice::Nr { to: to.clone(), sealed: mail.to_vec().into() },
                ]),
                format!("GET /outbox/{h} HTTP/1.1\r\nRange: bytes=0-9\r\n\r\n").into_bytes(),
                format!("GET /outbox/{h}/fragments/3/0 HTTP/1.1\r\n\r\nGET /outbox/{h} HTTP/1.1\r\n\r\n").into_bytes(),
            ];
            let length = mail.len();
            let answers = [
                b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n"
                    .to_vec(),
                format!("Content-Range: bytes 0-9/70\r\n\r\n{length:x}\r\n").into_bytes(),
                mail.to_vec(),
                format!("\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes(),
                mail.to_vec(),
                b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-13/70\r\nContent-Length: 5\r\n\r\nlater"
                    .to_vec(),
            ];
            // In pieces that end anywhere.
            requests.concat().chunks(7).for_each(|piece| recording.add(Flow::Requests(number), piece));
            answers.concat().chunks(5).for_each(|piece| recording.add(Flow::Answers(number), piece));
        }
        let sealed = recording.sealed(&[]);
        let kinds = ["a first fragment", "a mail", "nr by HTTPS", "ns by HTTPS"];
        assert_eq!(sealed.are, kinds.into_iter().map(|kind| (kind, 1)).collect());
        assert_eq!(sealed.not.len(), 4, "{:?}", sealed.not);
        for kind in kinds {
            assert!(sealed.not.iter().any(|not| not.starts_with(kind)), "{kind}");
        }
    }

    #[test]
    fn what_is_not_sealed_is_seen_in_parts_that_come_together() {
        let (good, bad) = (&[0xc1, 1, 0, 0xd2, 1, 2][..], &[0xc8, 2, 1, 0][..]);
        let part = |i, bytes: &[u8]| GivenPart {
            h: MailId::new([7; 20]),
            part: i,
            manifest: serde_bytes::ByteBuf::new(),
            bytes: bytes.to_vec().into(),
        };
        let of_each = [Part::Whole, Part::Fragment { k: 2, i: 0 }, Part::Fragment { k: 2, i: 1 }];
        let parts = of_each.into_iter().flat_map(|i| [part(i, good), part(i, bad)]).collect();
        let body = wire::encode(&PartsAnswer { parts, gone: Vec::new() });
        let mut recording = Recording::default();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        recording.add(Flow::Requests(0), &b"POST /outbox/parts HTTP/1.1\r\n\r\n".repeat(2));
        recording.add(Flow::Answers(0), &[head.as_bytes(), &body, head.as_bytes(), &body[..body.len() / 2]].concat());
        let sealed = recording.sealed(&[]);
        assert_eq!(sealed.are, BTreeMap::from([("a first fragment", 1), ("a mail", 1)]));
        assert_eq!(sealed.not.len(), 2, "{:?}", sealed.not);
    }

    #[test]
    fn what_is_not_sealed_is_seen_in_the_dht() {
        let (to, key) = ("rita@readers".parse::<Address>().unwrap(), wire::PeerKey::from_seed(&[4; 32]));
        let secret = roost::model::Secret::new([2; 32]);
        let expiry = roost::model::WallTime(u64::MAX / 4);
        let mut recording = Recording::default();
        for (under, value) in
            [(DhtKey::Ns(to.clone()), &b"\xc1\x01\x00\xd2\x01\x02"[..]), (DhtKey::Nr(to.clone()), b"clear")]
        {
            let entry = Entry::publish(&key, under.hash(), bytes::Bytes::from_static(value), &secret, expiry);
            recording.add(Flow::Dht, &Request { ops: vec![Op::Put(entry.clone())] }.encode());
            let fetched = Answer::Fetched { entries: vec![entry], tombstones: Vec::new() };
            recording.add(Flow::Dht, &Response { answers: vec![fetched] }.encode());
        }
        let sealed = recording.sealed(&[to]);
        assert_eq!(sealed.are, BTreeMap::from([("ns in the DHT", 2)]));
        assert_eq!(sealed.not.len(), 2, "{:?}", sealed.not);
    }
}
