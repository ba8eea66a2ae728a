//! Short mails, which the fetch brain asks of their owner alone: one request, checked by what the ns says.

use bytes::Bytes;
use roost::core::fetch::{Input, Order, RequestId, Run, SourceFailure};
use roost::fragment::Layout;
use roost::model::{Encoding, MailId, Part};

use super::fetch_shell::expected;
use super::network::{Answer, Pending, Request};
use super::peer::Tell;
use super::sabotage::Saboteur;
use super::world::World;

/// What stands for the bytes of a short mail: its name, and whether they are the right ones.
fn short_bytes(h: MailId, good: bool) -> Bytes {
    format!("{h} {good}").into_bytes().into()
}

/// What [`short_bytes`] made.
pub(crate) fn read_short(bytes: &[u8]) -> (MailId, bool) {
    let text = String::from_utf8_lossy(bytes);
    let read = text.split_once(' ').and_then(|(h, good)| Some((h.parse().ok()?, good.parse().ok()?)));
    read.expect("short_bytes made it")
}

impl World {
    /// Asks an owner for all of a short mail.
    pub(crate) fn get_short(&mut self, p: usize, order: Order, request: RequestId) {
        self.check_asked(p, order.h, order.owner);
        let layout = Layout::new(order.length, Encoding::Whole).expect("every order has a layout");
        let blocks = expected(&layout, &Run::Whole { stripes: 0..layout.stripes() });
        let to = self.index(&order.owner);
        self.call(p, to, Request::Part(order.h, Part::Whole, blocks), Pending::FetchShort { order, request });
    }

    /// It came, or did not.
    pub(crate) fn short_came(&mut self, p: usize, order: &Order, request: RequestId, answer: Answer) {
        let h = order.h;
        let result = match answer {
            Answer::Blocks(blocks) => {
                let good = blocks.iter().all(|(_, _, good)| *good);
                if good || self.is(Saboteur::SkipsVerification) {
                    Ok(short_bytes(h, good))
                } else {
                    Err(SourceFailure::Lied("its bytes are not those that were announced".to_owned()))
                }
            }
            other => Err(self.none_of(p, other, h, order.owner)),
        };
        self.hand(p, Tell::Fetch(Input::Short { h, request, result }));
    }
}
