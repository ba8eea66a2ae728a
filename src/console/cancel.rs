//! Takes a mail back for the command line and the web page, and says for each receiver what that came to. It never decides
//! what an answer is; it only asks again until it is known, or the time is over.

use std::time::Duration;

use super::protocol::Cancelled;
use crate::actors::peer::Peer;
use crate::actors::shell::Stopped;
use crate::core::outbox::{CancelAnswer, CancelTarget, Input, OutboxRefusal, Reply};
use crate::model::{MailId, SubmissionId};

/// How often is asked again while something is uncertain.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for that.
const WAIT_MAX: Duration = Duration::from_secs(600);

/// Which mail is meant by the hex digits of a submission id or of a sealed mail's name.
fn target(text: &str) -> Result<CancelTarget, String> {
    let text = text.trim();
    let submission = text.parse::<SubmissionId>().map(CancelTarget::Submission).ok();
    let found = submission.or_else(|| text.parse::<MailId>().map(CancelTarget::Mail).ok());
    found.ok_or_else(|| {
        let shown: String = text.chars().take(60).collect();
        format!("{shown:?} names no mail: give the 32 digits of a submission or the 40 of a sealed mail, as `roost outbox` shows them")
    })
}

/// Takes the mail back that `which` names. Asked again, it says how things stand.
///
/// # Errors
/// A sentence: there is no such mail, or the peer stops.
pub(super) async fn cancel(peer: &Peer, which: &str, wait_s: u64) -> Result<Cancelled, String> {
    let target = target(which)?;
    let until = tokio::time::Instant::now() + Duration::from_secs(wait_s).min(WAIT_MAX);
    loop {
        let asked = peer.outbox.ask(move |token| Input::Cancel { token, target }).await;
        let (submission, receivers) = match asked.map_err(|e: Stopped| e.to_string())? {
            Reply::Cancel(submission, receivers) => (submission, receivers),
            Reply::Refused(OutboxRefusal::NoMail) => return Err(format!("{} ({which})", OutboxRefusal::NoMail)),
            other => return Err(format!("an unexpected answer: {other:?}")),
        };
        let known = receivers.iter().all(|(_, answer)| *answer != CancelAnswer::Uncertain);
        if known || tokio::time::Instant::now() >= until {
            return Ok(Cancelled { submission, receivers: receivers.into_iter().collect() });
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_named_by_its_submission_or_by_its_sealed_form() {
        let submission = SubmissionId::new([3; 16]);
        let h = MailId::new([4; 20]);
        assert_eq!(target(&format!(" {submission}\n")), Ok(CancelTarget::Submission(submission)));
        assert_eq!(target(&h.to_string()), Ok(CancelTarget::Mail(h)));
        assert!(target("12").unwrap_err().contains("roost outbox"));
    }
}
