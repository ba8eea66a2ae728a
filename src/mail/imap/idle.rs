//! IDLE (RFC 2177): tells what changes while the mail program only listens. Never ends by itself but for the idle timeout.

use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::{Connection, Outcome};
use super::input::Line;
use super::respond::Status;
use super::server::stopped;
use super::{End, MailStore};

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
            tokio::select! {
                line = self.input.line(1024, patience) => {
                    return match line? {
                        Line::Whole(line) if line.trim_ascii().eq_ignore_ascii_case(b"DONE") => Ok(Status::ok("done")),
                        Line::Whole(_) | Line::TooLong(_) => Ok(Status::bad("IDLE ends with DONE")),
                    };
                }
                changed = changes.changed() => {
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
