//! Bodies of held parts for the routes: whole copies, fragments from their files, and fragments made on the fly from a whole
//! mail. It never decides who may have them, and never holds more than a few blocks.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use crate::core::replicator::KnownMail;
use crate::fragment::stream::FragmentReader;
use crate::fragment::{Codec, FragmentError, Layout};
use crate::model::{Encoding, MailId, Part};
use crate::net::body_source::{BodySource, ChunkStream};
use crate::net::peer_api::ApiError;
use crate::store::home::Home;
use crate::store::listing::later_manifests;
use crate::store::manifests::{self, covers, find, is_of};
use crate::wire::http::FragmentList;

/// Blocks that are made in one step on the blocking pool: 512 KiB.
const BLOCKS_A_STEP: u64 = 8;

/// Which fragments a holder of these parts lists. A whole copy is fragment 0 of those of which any 1 is the mail.
pub fn fragment_list<'a>(parts: impl IntoIterator<Item = &'a Part>) -> FragmentList {
    let of = |part: &Part| match part {
        Part::Whole => (1, 0),
        Part::Fragment { k, i } => (*k, *i),
    };
    FragmentList { fragments: parts.into_iter().map(of).collect() }
}

fn not_here(what: String) -> ApiError {
    ApiError::NotFound { what }
}
fn unreadable(what: &str, error: &io::Error) -> ApiError {
    if error.kind() == io::ErrorKind::NotFound {
        return not_here(what.to_owned());
    }
    tracing::warn!(%what, %error, "a held part cannot be read");
    let why = format!("{what} cannot be read now.");
    ApiError::Unavailable { why, retry_after: std::time::Duration::from_secs(60) }
}

async fn open(path: PathBuf, what: &str) -> Result<BodySource, ApiError> {
    BodySource::open(path).await.map_err(|e| unreadable(what, &e))
}

/// A mirrored mail, if this peer has it whole.
///
/// # Errors
/// [`ApiError`] when it has not, or cannot read it.
pub async fn mirrored_whole(home: &Home, h: &MailId, mail: &KnownMail) -> Result<BodySource, ApiError> {
    if !mail.parts.contains(&Part::Whole) {
        return Err(not_here(format!("A whole copy of mail {h}")));
    }
    open(home.mirror_part(&mail.address, h, Part::Whole), "The whole copy").await
}

/// The manifest of a mirrored mail.
///
/// # Errors
/// [`ApiError`] when this peer holds nothing of the mail, or cannot read it.
pub async fn mirrored_manifest(
    home: &Home,
    h: &MailId,
    mail: &KnownMail,
    k: Option<u8>,
) -> Result<BodySource, ApiError> {
    if mail.parts.is_empty() {
        return Err(not_here(format!("The manifest of mail {h}")));
    }
    let of_now = |part: &Part| *part == Part::Whole || covers(mail.encoding, *part);
    // What is held says which is of use; what is kept in two encodings is on its way to the later one.
    let k = match (k, mail.parts.iter().find(|part| of_now(part)), mail.parts.first()) {
        (Some(k), ..) => Some(k),
        (None, None, Some(Part::Fragment { k, .. })) => Some(*k),
        _ => None,
    };
    let path = manifest_path(home.mirror_manifest(&mail.address, h), mail.encoding, k).await;
    open(path, "The manifest").await
}

/// The manifest of an own mail.
///
/// # Errors
/// [`ApiError`] when it cannot be read.
pub async fn own_manifest(home: &Home, h: &MailId, encoding: Encoding, k: Option<u8>) -> Result<BodySource, ApiError> {
    let path = manifest_path(home.outbox_manifest(h), encoding, k).await;
    BodySource::open_with(move || manifests::open(&path)).await.map_err(|e| unreadable("The manifest", &e))
}

async fn manifest_path(first: PathBuf, encoding: Encoding, k: Option<u8>) -> PathBuf {
    let looked = first.clone();
    tokio::task::spawn_blocking(move || manifest_at(looked, encoding, k)).await.unwrap_or(first)
}

/// Which of a mail's manifests is served: that of the encoding of now, unless blocks of another k are asked for. Reads folders, so it runs
/// on the blocking pool.
pub fn manifest_at(first: PathBuf, encoding: Encoding, k: Option<u8>) -> PathBuf {
    let k = k.or_else(|| u8::try_from(encoding.needed()).ok()).unwrap_or(1);
    // Most mails have one, and nothing has to be read to know which.
    if later_manifests(&first).is_ok_and(|later| later.is_empty()) {
        return first;
    }
    let exact = find(&first, |manifest| manifest.encoding == encoding && is_of(encoding, k));
    let found = exact.or_else(|| find(&first, |manifest| is_of(manifest.encoding, k)));
    found.map_or(first, |(path, _)| path)
}

/// A fragment of a mirrored mail: from its file, or made from the whole copy.
///
/// # Errors
/// [`ApiError`] when this peer has neither, or cannot read it.
pub async fn mirrored_fragment(
    home: &Home,
    codec: &Codec,
    h: &MailId,
    mail: &KnownMail,
    (k, i): (u8, u8),
) -> Result<BodySource, ApiError> {
    let part = Part::Fragment { k, i };
    if mail.parts.contains(&part) {
        return open(home.mirror_part(&mail.address, h, part), "The fragment").await;
    }
    if !mail.parts.contains(&Part::Whole) {
        return Err(not_here(format!("Fragment {i} (any {k}) of mail {h}")));
    }
    let whole = home.mirror_part(&mail.address, h, Part::Whole);
    fragment_of_whole(whole, mail.length, mail.encoding, (k, i), codec).await
}

/// Fragment (k, i) of the sealed mail in `whole`, made block by block as it is read. How an owner serves its fragments. The data
/// fragments, which are the mail itself, also of another k than that of `encoding`: whoever began to pull by an older manifest goes on.
///
/// # Errors
/// [`ApiError`] when the encoding has no such fragment, or the file cannot be opened.
pub async fn fragment_of_whole(
    whole: PathBuf,
    length: u64,
    encoding: Encoding,
    (k, i): (u8, u8),
    codec: &Codec,
) -> Result<BodySource, ApiError> {
    let layout = Layout::new(length, encoding).ok().filter(|layout| layout.k() == k && i < layout.n());
    let data = || Layout::new(length, Encoding::Fragments { k, n: k }).ok().filter(|layout| i < layout.k());
    let Some(layout) = layout.or_else(data) else { return Err(not_here(format!("Fragment {i} (any {k})"))) };
    let codec = codec.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let file = File::open(whole).map_err(|e| unreadable("The whole copy", &e))?;
        FragmentReader::new(file, layout, i, &codec).map_err(|_| not_here(format!("Fragment {i} (any {k})")))
    });
    let stopping = || ApiError::Unavailable {
        why: "This peer is stopping.".to_owned(),
        retry_after: std::time::Duration::from_secs(10),
    };
    let reader = opened.await.map_err(|_| stopping())??;
    Ok(BodySource::stream(layout.fragment_len(), move |range| fragment_chunks(reader, layout, range)))
}

/// The bytes of `range` of a fragment, a few blocks at a time; the next are made when these were taken.
fn fragment_chunks(reader: FragmentReader<File>, layout: Layout, range: Range<u64>) -> ChunkStream {
    let stripes = layout.stripes_in_fragment_range(range.clone());
    stream::unfold(Some((reader, stripes)), move |state| {
        let range = range.clone();
        async move {
            let (mut reader, stripes) = state.filter(|(_, stripes)| !stripes.is_empty())?;
            let now = stripes.start..stripes.end.min(stripes.start + BLOCKS_A_STEP);
            let rest = now.end..stripes.end;
            let made = tokio::task::spawn_blocking(move || {
                let bytes = some_blocks(&mut reader, &layout, now, &range);
                (reader, bytes)
            });
            match made.await {
                Ok((reader, Ok(bytes))) => Some((Ok(bytes), Some((reader, rest)))),
                Ok((_, Err(error))) => Some((Err(io::Error::other(error)), None)),
                Err(error) => Some((Err(io::Error::other(error)), None)),
            }
        }
    })
    .boxed()
}

/// The blocks of some stripes, cut to `range`.
fn some_blocks(
    reader: &mut FragmentReader<File>,
    layout: &Layout,
    stripes: Range<u64>,
    range: &Range<u64>,
) -> Result<Bytes, FragmentError> {
    let mut bytes = Vec::new();
    for stripe in stripes {
        let at = layout.block_range_in_fragment(stripe);
        let block = reader.block(stripe)?;
        let cut = |offset: u64| usize::try_from(offset.clamp(at.start, at.end) - at.start).unwrap_or(0);
        bytes.extend_from_slice(block.get(cut(range.start)..cut(range.end)).unwrap_or_default());
    }
    Ok(Bytes::from(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[actix::test]
    async fn a_fragment_made_from_the_whole_is_the_same_in_every_range() {
        let length: u64 = 3 * 65_536 * 11 + 777;
        let mail: Vec<u8> = (0..length).map(|x| u8::try_from((x * 7 + x / 251) % 256).unwrap()).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&mail).unwrap();
        let (codec, encoding) = (Codec::default(), Encoding::Fragments { k: 3, n: 5 });
        for i in [0, 4] {
            let layout = Layout::new(length, encoding).unwrap();
            let mut reader = FragmentReader::new(io::Cursor::new(&mail), layout, i, &codec).unwrap();
            let all: Vec<u8> = reader.blocks(0..layout.stripes()).flat_map(Result::unwrap).collect();
            let len = layout.fragment_len();
            for range in [0..len, 0..1, 65_535..65_537, len - 1..len, 70_000..700_000, 5..5] {
                let path = file.path().to_owned();
                let source = fragment_of_whole(path, length, encoding, (3, i), &codec).await.unwrap();
                assert_eq!(source.len(), len);
                let chunks: Vec<_> = source.into_chunks(range.clone(), 1 << 16).collect().await;
                let got: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect();
                let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
                assert_eq!(got, &all[start..end], "{i} {range:?}");
            }
        }
        let of_another = fragment_of_whole(file.path().to_owned(), length, encoding, (2, 1), &codec).await.unwrap();
        let chunks: Vec<_> = of_another.into_chunks(0..65_536, 1 << 16).collect().await;
        let got: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect();
        assert_eq!(got, &mail[65_536..131_072], "its second block by stripes of two");
        for strange in [(3, 5), (2, 2), (0, 0), (200, 1)] {
            let path = file.path().to_owned();
            assert!(fragment_of_whole(path, length, encoding, strange, &codec).await.is_err());
        }
    }

    #[test]
    fn a_whole_copy_is_listed_as_the_one_fragment_that_is_enough() {
        let list = fragment_list(&[Part::Whole, Part::Fragment { k: 3, i: 4 }]);
        assert_eq!(list.fragments, [(1, 0), (3, 4)]);
    }
}
