//! Looks for texts in a body that is here: decodes its text parts and compares without case. Never reads more of a part than
//! its bound, and never pulls a body.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use tokio::task::spawn_blocking;

use super::Head;
use crate::model::structure::{Kind, Node, Structure};

/// Bytes of one part that are searched.
const PART_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of all parts of a body that are searched.
const BODY_MAX: u64 = 16 * 1024 * 1024;

/// Which of `texts` (in lower case) are in the text parts of the body at `path`. Works off the runtime's threads.
///
/// # Errors
/// When the body cannot be read.
pub(super) async fn find(path: PathBuf, head: Arc<Head>, texts: Vec<String>) -> io::Result<Vec<bool>> {
    let work = move || scan(&path, &head.structure, &texts);
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn scan(path: &Path, structure: &Structure, texts: &[String]) -> io::Result<Vec<bool>> {
    let mut found: Vec<bool> = texts.iter().map(String::is_empty).collect();
    let mut file = File::open(path)?;
    let mut left = BODY_MAX;
    let mut nodes = vec![&structure.root];
    while let Some(node) = nodes.pop() {
        match &node.kind {
            Kind::Multipart(children) => nodes.extend(children.iter().rev()),
            Kind::Message { inner, .. } => nodes.push(inner),
            Kind::Leaf if node.fields.media_type == "text" && left > 0 => {
                let len = node.body.len().min(PART_MAX).min(left);
                left -= len;
                let mut bytes = Vec::new();
                file.seek(SeekFrom::Start(node.body.start))?;
                (&mut file).take(len).read_to_end(&mut bytes)?;
                let text = decoded(node, bytes).to_lowercase();
                for (found, wanted) in found.iter_mut().zip(texts) {
                    *found |= text.contains(wanted.as_str());
                }
            }
            Kind::Leaf => {}
        }
    }
    Ok(found)
}

/// The text of a part; what cannot be decoded is searched as it stands.
fn decoded(node: &Node, bytes: Vec<u8>) -> String {
    let bytes = match node.fields.encoding.as_str() {
        "base64" => base64_decode(&bytes).unwrap_or(bytes),
        "quoted-printable" => quoted_printable_decode(&bytes).unwrap_or(bytes),
        _ => bytes,
    };
    let charset = node.fields.params.iter().find(|(name, _)| name == "charset").map(|(_, value)| value.as_str());
    match charset.and_then(|charset| charset_decoder(charset.as_bytes())) {
        Some(decode) => decode(&bytes),
        None => String::from_utf8_lossy(&bytes).into_owned(),
    }
}
