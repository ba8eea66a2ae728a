//! DHT requests and responses on libp2p streams: whole messages, bounded before they are read. Decoding verifies every
//! signature here, on the connection's task; nothing is ever stored here.

use std::io;

use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use libp2p::{StreamProtocol, request_response};

use super::tap;
use crate::wire::WireError;
use crate::wire::dht::{REQUEST_MAX, RESPONSE_MAX, Request, Response};

/// The codec of `/roost/dht/1`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DhtCodec;

fn bad(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads to the end, but never more than one byte past `limit`: decoding then says that it is too large.
async fn read_whole<T: AsyncRead + Unpin + Send>(stream: &mut T, limit: usize) -> io::Result<Vec<u8>> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    stream.take(most).read_to_end(&mut bytes).await?;
    tap::saw(&bytes);
    Ok(bytes)
}

impl request_response::Codec for DhtCodec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        Request::decode(&read_whole(stream, REQUEST_MAX).await?).map_err(bad)
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, stream: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        Response::decode(&read_whole(stream, RESPONSE_MAX).await?).map_err(bad)
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, stream: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&request.encode()).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, stream: &mut T, response: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        stream.write_all(&response.encode()).await
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;
    use libp2p::request_response::Codec as _;

    use super::*;
    use crate::model::Digest;
    use crate::wire::dht::{Answer, DHT_PROTOCOL, List, Op};

    const PROTOCOL: StreamProtocol = StreamProtocol::new(DHT_PROTOCOL);

    #[test]
    fn messages_cross_a_stream() {
        let list = List { key: Digest::new([1; 32]), values: true, have: vec![], unless: None };
        let request = Request { ops: vec![Op::List(list)] };
        let mut stream = Cursor::new(Vec::new());
        block_on(DhtCodec.write_request(&PROTOCOL, &mut stream, request.clone())).unwrap();
        stream.set_position(0);
        assert_eq!(block_on(DhtCodec.read_request(&PROTOCOL, &mut stream)).unwrap(), request);
        let response = Response { answers: vec![Answer::Missing] };
        let mut stream = Cursor::new(Vec::new());
        block_on(DhtCodec.write_response(&PROTOCOL, &mut stream, response.clone())).unwrap();
        stream.set_position(0);
        assert_eq!(block_on(DhtCodec.read_response(&PROTOCOL, &mut stream)).unwrap(), response);
    }

    #[test]
    fn a_message_over_the_bound_is_refused_without_reading_on() {
        let mut stream = Cursor::new(vec![1; RESPONSE_MAX * 2]);
        assert!(block_on(DhtCodec.read_response(&PROTOCOL, &mut stream)).is_err());
        assert_eq!(usize::try_from(stream.position()).unwrap(), RESPONSE_MAX + 1);
        let mut stream = Cursor::new(vec![1; REQUEST_MAX * 2]);
        assert!(block_on(DhtCodec.read_request(&PROTOCOL, &mut stream)).is_err());
        assert_eq!(usize::try_from(stream.position()).unwrap(), REQUEST_MAX + 1);
    }
}
