//! IDLE (RFC 2177): tells what changes while the mail program only listens. Never ends by itself but for the idle timeout.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Outcome};
use super::input::Line;
use super::respond::Status;
use super::server::stopped;
use super::{End, MailStore};

/// Messages of an open mailbox that may be looked through each millisecond while the mail program listens: with 100 000 it is
/// told once a second what changed.
const MESSAGES_A_MS: u64 = 100;

impl<S: MailStore, R: AsyncRead + Unpin + Send, W: AsyncWrite + Unpin + Send> Connection<S, R, W> {
    /// IDLE, until DONE.
    pub(super) async fn idle(&mut self) -> Outcome {
        self.output.line("+ idling");
        let mut changes = self.changes.clone();
        let mut stop = self.shared.stop.clone();
        let patience = self.shared.config.idle_timeout;
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            self.sync(true).await?;
            self.output.flush().await?;
            let messages = self.state.selected().map_or(0, |selected| u64::from(selected.exists()));
            let next_look = tokio::time::Instant::now() + Duration::from_millis(messages / MESSAGES_A_MS);
            let changed = async {
                tokio::time::sleep_until(next_look).await;
                changes.changed().await
            };
            tokio::select! {
                line = self.input.line(1024, patience) => {
                    return match line? {
                        Line::Whole(line) if line.trim_ascii().eq_ignore_ascii_case(b"DONE") => Ok(Status::ok("done")),
                        Line::Whole(_) | Line::TooLong(_) => Ok(Status::bad("IDLE ends with DONE")),
                    };
                }
                changed = changed => {
                    if changed.is_err() {
                        return Err(End::Bye { text: "the server is going down" });
                    }
                }
                () = stopped(&mut stop) => return Err(End::Bye { text: "the server is going down" }),
                () = tokio::time::sleep_until(deadline) => return Err(End::Bye { text: "nothing was heard for too long" }),
            }
        }
    }
}
