//! `roost cancel`: takes a mail back, and shows for each receiver what that came to. The peer knows; this asks it.

use std::path::Path;

use super::args::CancelArgs;
use super::control::Control;
use super::output::Shown;
use crate::console::protocol::{Cancelled, Request};
use crate::core::outbox::CancelAnswer;
use crate::model::Address;

/// Takes back what was named.
pub(super) fn run(home: &Path, args: &CancelArgs) -> anyhow::Result<Shown> {
    let request = Request::Cancel { which: args.which.clone(), wait_s: args.wait };
    let cancelled: Cancelled = Control::of(home).ask(&request)?;
    Shown::of(&cancelled, text(&cancelled))
}

fn text(cancelled: &Cancelled) -> String {
    let sentence = |answer: &CancelAnswer| match answer {
        CancelAnswer::Cancelled => "it cannot be read any more",
        CancelAnswer::TooLate => "the reader has it",
        CancelAnswer::Uncertain => "not known yet; ask again with the same command",
    };
    let line =
        |(address, answer): (&Address, &CancelAnswer)| format!("{address}: {}, {}\n", answer.word(), sentence(answer));
    cancelled.receivers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_receiver_is_answered_for_in_the_words_of_the_json() {
        let receivers = [
            ("bob@acme".parse().unwrap(), CancelAnswer::TooLate),
            ("rita@readers".parse().unwrap(), CancelAnswer::Uncertain),
        ];
        let cancelled = Cancelled { submission: crate::model::SubmissionId::new([1; 16]), receivers: receivers.into() };
        let text = text(&cancelled);
        assert!(text.starts_with("bob@acme: too late, the reader has it\nrita@readers: uncertain, "), "{text}");
        let json = serde_json::to_string(&cancelled).unwrap();
        assert!(json.contains(r#""bob@acme":"too late","rita@readers":"uncertain""#), "{json}");
    }
}
