//! Why members do not take parts of this peer's mails, and what can be done about it, in words. It decides nothing.

use crate::core::outbox::PartsRefused;
use crate::model::holding::HoldingRefusal;

/// The reason in a few words.
pub(super) fn in_short(why: HoldingRefusal) -> &'static str {
    match why {
        HoldingRefusal::Quota => "the quota for your mails is used up there",
        HoldingRefusal::DiskFull => "its disk is full",
        HoldingRefusal::BadBlocks => "what it got does not fit the msglist",
    }
}

/// The whole sentence, with what to do next.
pub(super) fn sentence(refused: &PartsRefused) -> String {
    let next = match refused.why {
        HoldingRefusal::Quota => "raise `[quota] per_member` in its config, or wait until more of your mails are read",
        HoldingRefusal::DiskFull => "make room there; it tries again by itself",
        HoldingRefusal::BadBlocks => "have both disks looked at, and send the mail again",
    };
    format!(
        "{} does not keep its part of {} of your mail(s), which are less safe for it: {}. To help: {next}",
        refused.member,
        refused.mails,
        in_short(refused.why)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_the_member_the_reason_and_the_next_step() {
        for why in [HoldingRefusal::Quota, HoldingRefusal::DiskFull, HoldingRefusal::BadBlocks] {
            let said = sentence(&PartsRefused { member: "bob@acme".parse().unwrap(), why, mails: 3 });
            assert!(
                said.contains("bob@acme") && said.contains("3 of your mail") && said.contains("To help: "),
                "{said}"
            );
            assert!(said.contains(in_short(why)), "{said}");
        }
    }
}
