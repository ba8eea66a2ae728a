//! Frames of `/roost/dht/1` on a libp2p stream: length, number, body, bounded before they are read. It never looks into a
//! body, and nothing is ever stored here.
//!
//! ```text
//!   length: u32, big-endian   number: u32, big-endian   body: CBOR
//! ```
//!
//! A request has the number that its answer will have. An empty body says that there will be no answer.

use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::tap;

/// Bytes of length and number.
const HEAD: usize = 8;

/// A message with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) number: u32,
    pub(super) body: Vec<u8>,
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads a frame; none at the end of the stream. Its beginning may take for ever, the rest must come `within`. Memory is taken
/// for bytes that came, not for those that the length promises.
pub(super) async fn read_frame<T: AsyncRead + Unpin>(
    stream: &mut T,
    limit: usize,
    within: Duration,
) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD];
    if stream.read(head.split_at_mut(1).0).await? == 0 {
        return Ok(None);
    }
    let body = tokio::time::timeout(within, async {
        stream.read_exact(head.split_at_mut(1).1).await?;
        read_body(stream, &head, limit).await
    });
    body.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Some)
}

async fn read_body<T: AsyncRead + Unpin>(stream: &mut T, head: &[u8; HEAD], limit: usize) -> io::Result<Frame> {
    let [l0, l1, l2, l3, n0, n1, n2, n3] = *head;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if usize::try_from(length).map_or(true, |length| length > limit) {
        return Err(bad(format!("a DHT message of {length} bytes, at most {limit} are read")));
    }
    let mut body = Vec::new();
    stream.take(length.into()).read_to_end(&mut body).await?;
    if body.len() != usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    tap::saw(tap::Flow::Dht, &body);
    Ok(Frame { number: u32::from_be_bytes([n0, n1, n2, n3]), body })
}

/// Writes a frame; it is on its way when this returns.
pub(super) async fn write_frame<T: AsyncWrite + Unpin>(
    stream: &mut T,
    frame: &Frame,
    within: Duration,
) -> io::Result<()> {
    let length = u32::try_from(frame.body.len()).map_err(|_| bad("a DHT message over 4 GiB".to_owned()))?;
    // In one piece, so that a small message is one packet.
    let mut bytes = Vec::with_capacity(HEAD + frame.body.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(frame.number.to_be_bytes());
    bytes.extend(&frame.body);
    let written = tokio::time::timeout(within, async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    });
    written.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::io::Cursor;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    async fn read(bytes: Vec<u8>) -> io::Result<Option<Frame>> {
        read_frame(&mut Cursor::new(bytes), 100, WITHIN).await
    }

    #[tokio::test]
    async fn frames_cross_a_stream() {
        let frames = [Frame { number: 7, body: vec![1; 100] }, Frame { number: u32::MAX, body: Vec::new() }];
        let mut stream = Cursor::new(Vec::new());
        for frame in &frames {
            write_frame(&mut stream, frame, WITHIN).await.unwrap();
        }
        stream.set_position(0);
        for frame in frames {
            assert_eq!(read_frame(&mut stream, 100, WITHIN).await.unwrap(), Some(frame));
        }
        assert_eq!(read_frame(&mut stream, 100, WITHIN).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_over_the_bound_is_refused_before_its_body_is_read() {
        let mut bytes = 101_u32.to_be_bytes().to_vec();
        bytes.extend([0; 4 + 101]);
        let mut stream = Cursor::new(bytes);
        assert!(read_frame(&mut stream, 100, WITHIN).await.is_err());
        assert_eq!(stream.position(), 8);
    }

    #[tokio::test]
    async fn a_frame_that_ends_early_is_an_error() {
        assert!(read(vec![0, 0]).await.is_err());
        assert!(read(vec![0, 0, 0, 5, 0, 0, 0, 1, 9]).await.is_err());
    }

    /// Brings some bytes, then nothing more.
    struct Begun(Cursor<Vec<u8>>);

    impl AsyncRead for Begun {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            match Pin::new(&mut self.0).poll_read(cx, buf) {
                Poll::Ready(Ok(0)) => Poll::Pending,
                polled => polled,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_may_begin_whenever_it_likes_but_must_then_come_in_time() {
        let mut silent = Begun(Cursor::new(Vec::new()));
        let waiting = tokio::time::timeout(WITHIN * 100, read_frame(&mut silent, 100, WITHIN)).await;
        assert!(waiting.is_err(), "nothing came, and nothing is wrong");
        let mut begun = Begun(Cursor::new(vec![0, 0, 0]));
        let error = read_frame(&mut begun, 100, WITHIN).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
