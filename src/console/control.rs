//! The control socket's server: one request a connection, answered from the brains' own status. It decides nothing.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::answers;
use super::protocol::{Answer, LINE_MAX, Request};
use crate::actors::peer::Peer;

/// Commands that are served at a time.
const CONNECTIONS_MAX: usize = 32;
/// Progress lines that wait for a slow terminal; more are dropped, the end never is.
const PROGRESS_MAX: usize = 16;
/// How long a command may take to write its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Tells a command how far it is. Never waits.
#[derive(Debug, Clone)]
pub struct Progress(mpsc::Sender<Answer>);

impl Progress {
    /// Tells; a line that finds no room is dropped.
    pub fn tell(&self, text: impl Into<String>, percent: Option<u8>) {
        let _ = self.0.try_send(Answer::Progress { text: text.into(), percent });
    }
}

/// Listens on `path`, mode 0600; what an earlier run left there is replaced. The home's lock says that nobody else listens.
///
/// # Errors
/// What the operating system says.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves commands until the peer stops; `stop` is told when a command asks for that.
pub async fn serve(listener: UnixListener, peer: Arc<Peer>, stop: watch::Sender<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (peer, stop) = (peer.clone(), stop.clone());
                tokio::spawn(async move {
                    if let Err(error) = command(stream, &peer, &stop).await {
                        tracing::debug!(%error, "a command went away");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn command(stream: UnixStream, peer: &Arc<Peer>, stop: &watch::Sender<bool>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
    let mut reader = BufReader::new(reader.take(limit));
    tokio::time::timeout(REQUEST_TIMEOUT, reader.read_line(&mut line)).await??;
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) => request,
        Err(e) => {
            let why = format!("this peer does not understand the command ({e}); use a roost of the same version");
            return write(&mut writer, &Answer::Failed { why }).await;
        }
    };
    let stops = request == Request::Stop;
    let (sender, mut progress) = mpsc::channel(PROGRESS_MAX);
    let answer = answers::answer(peer, request, Progress(sender));
    tokio::pin!(answer);
    let end = loop {
        tokio::select! {
            end = &mut answer => break end,
            Some(line) = progress.recv() => write(&mut writer, &line).await?,
        }
    };
    let end = match end {
        Ok(value) => Answer::Done { value },
        Err(why) => Answer::Failed { why },
    };
    write(&mut writer, &end).await?;
    if stops {
        // The receiver is the peer's main task; it is gone only when the peer stops already.
        let _ = stop.send(true);
    }
    Ok(())
}

async fn write(writer: &mut (impl tokio::io::AsyncWrite + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer).map_err(io::Error::other)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
