//! Short mails, which the fetch brain asks of their owner alone: one request, checked by what the ns says.

use std::path::PathBuf;

use roost::core::fetch::{Input, Order, RequestId, Run, SourceFailure};
use roost::fragment::Layout;
use roost::model::{Encoding, Part};

use super::fetch_shell::{expected, gone_or};
use super::network::{Answer, Pending, Request};
use super::peer::Tell;
use super::sabotage::Saboteur;
use super::world::World;

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
                let good = blocks.iter().all(|(_, _, good)| *good) || self.is(Saboteur::SkipsVerification);
                let disk = &mut self.peers[p].disk;
                disk.fetched_k.insert(h, 1);
                disk.fetched.insert(h, blocks.into_iter().map(|(s, i, good)| ((s, i), good)).collect());
                if good {
                    Ok(PathBuf::from(h.to_string()))
                } else {
                    disk.fetched.remove(&h);
                    Err(SourceFailure::Lied("its bytes are not those that were announced".to_owned()))
                }
            }
            other => Err(gone_or(other, h, order.owner)),
        };
        self.hand(p, Tell::Fetch(Input::Short { h, request, result }));
    }
}
