//! Connections: bytes in, lines and text to the session, replies out. Never understands a command itself.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use zeroize::{Zeroize, Zeroizing};

use super::reply::Reply;
use super::session::{LINE_MAX, Session};
use super::{SmtpConfig, Submit};

/// Bytes that are read at a time, and replies that are held back at most while pipelined commands are answered.
const BUFFER: usize = 64 * 1024;
/// Bytes of one line that are thrown away before the connection is closed.
const OVERLONG_MAX: usize = 1024 * 1024;
/// Pause after an accept that failed, for want of file descriptors for instance.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Serves `listener` until `stop` says true or its sender is gone; then lets connections end within their grace.
pub async fn serve<P: Submit>(listener: TcpListener, port: P, config: SmtpConfig, mut stop: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(config.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "SMTP cannot accept a connection");
                sleep(std::time::Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            // As much as fits at once: nobody waits for a connection that is refused.
            if let Err(error) = stream.try_write(b"421 4.3.2 too many connections; try again\r\n") {
                tracing::debug!(%error, "a refused SMTP connection went away");
            }
            continue;
        };
        let (port, config, stop) = (port.clone(), config.clone(), stop.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "SMTP connection without TCP_NODELAY");
            }
            if let Err(error) = serve_connection(stream, port, config, stop).await {
                tracing::debug!(%error, "SMTP connection ended");
            }
        });
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(config.grace, ended).await.is_err() {
        tracing::warn!("SMTP connections were cut; mails that were not answered are not accepted");
    }
}

/// Serves one connection, whatever carries it.
///
/// # Errors
/// What reading or writing says; `TimedOut` when the mail program was silent too long.
pub async fn serve_connection<P, T>(
    stream: T,
    port: P,
    config: SmtpConfig,
    stop: watch::Receiver<bool>,
) -> io::Result<()>
where
    P: Submit,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let idle = config.idle;
    let session = Session::new(port, config);
    let mut connection = Connection { stream, idle, stop, input: Vec::new(), output: Vec::new(), overlong: None };
    connection.run(session).await
}

/// What a wait for input brought.
enum Came {
    Bytes,
    End,
    Stop,
}

struct Connection<T> {
    stream: T,
    idle: std::time::Duration,
    stop: watch::Receiver<bool>,
    /// Bytes that came and are not taken yet; at most [`BUFFER`] and a line.
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of a line that is too long was thrown away so far.
    overlong: Option<usize>,
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection<T> {
    async fn run<P: Submit>(&mut self, mut session: Session<P>) -> io::Result<()> {
        self.say(&session.greeting()).await?;
        while !session.is_closed() {
            if session.takes_data() && !self.input.is_empty() {
                let (taken, reply) = session.data(&self.input).await;
                self.taken(taken);
                if let Some(reply) = reply {
                    self.say(&reply).await?;
                }
            } else if let Some(reply) = self.answer_line(&mut session).await {
                self.say(&reply).await?;
            } else {
                match self.fill(session.takes_data()).await? {
                    Came::Bytes => {}
                    Came::End => return Ok(()),
                    Came::Stop => {
                        self.say(&Reply::new(421, "4.3.2", "this peer is stopping; try again later")).await?;
                        break;
                    }
                }
            }
        }
        self.flush().await?;
        timeout(self.idle, self.stream.shutdown()).await?
    }

    /// Answers the next line, if a whole one is here.
    async fn answer_line<P: Submit>(&mut self, session: &mut Session<P>) -> Option<Reply> {
        if session.takes_data() {
            return None;
        }
        let Some(end) = self.input.iter().position(|b| *b == b'\n').map(|at| at + 1) else {
            if self.input.len() > LINE_MAX || self.overlong.is_some() {
                let thrown = self.overlong.unwrap_or(0) + self.input.len();
                self.taken(self.input.len());
                self.overlong = Some(thrown);
                if thrown > OVERLONG_MAX {
                    let reply = Reply::new(421, "4.7.0", "the line does not end");
                    session.close();
                    return Some(reply);
                }
            }
            return None;
        };
        // It may be a password.
        let line = Zeroizing::new(self.input[..end].to_vec());
        self.taken(end);
        if self.overlong.take().is_some() || line.len() > LINE_MAX {
            return Some(session.overlong_line());
        }
        Some(session.line(&line).await)
    }

    fn taken(&mut self, bytes: usize) {
        let bytes = bytes.min(self.input.len());
        self.input[..bytes].zeroize();
        self.input.drain(..bytes);
    }

    async fn say(&mut self, reply: &Reply) -> io::Result<()> {
        reply.encode(&mut self.output);
        if self.output.len() >= BUFFER { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            timeout(self.idle, self.stream.write_all(&self.output)).await??;
            self.output.clear();
        }
        timeout(self.idle, self.stream.flush()).await?
    }

    /// Waits for input. A mail that is coming in is not interrupted by a stop.
    async fn fill(&mut self, in_mail: bool) -> io::Result<Came> {
        self.flush().await?;
        self.input.reserve(BUFFER);
        let limit = u64::try_from(BUFFER).unwrap_or(u64::MAX);
        let mut reader = (&mut self.stream).take(limit);
        let read = timeout(self.idle, reader.read_buf(&mut self.input));
        let stopped = async {
            if in_mail {
                std::future::pending::<()>().await;
            }
            if self.stop.wait_for(|stopped| *stopped).await.is_err() {
                tracing::debug!("nobody is left who could stop the SMTP server: it stops");
            }
        };
        tokio::select! {
            read = read => match read {
                Ok(read) => Ok(if read? == 0 { Came::End } else { Came::Bytes }),
                Err(_) => {
                    let mut bye = Vec::new();
                    Reply::new(421, "4.4.2", "nothing was said for too long").encode(&mut bye);
                    timeout(self.idle, self.stream.write_all(&bye)).await??;
                    Err(io::ErrorKind::TimedOut.into())
                }
            },
            () = stopped => Ok(Came::Stop),
        }
    }
}
