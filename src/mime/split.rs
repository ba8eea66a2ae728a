//! The push parser that makes a mail's [`Structure`] in one pass. Never buffers a body, never fails, never reads a clock.
//!
//! It works by lines (LF ends a line, a CR before it belongs to the line break) and keeps a stack of the entities that are
//! open. A line that begins with two hyphens is compared with the boundaries of all open multiparts, the innermost first;
//! after the boundary it may have two more hyphens and then only white space. The line break before such a line belongs to
//! it. An empty line ends a header block, nothing else does.
//!
//! ```text
//!             empty line, leaf          delimiter or end of the mail
//!   Header ─────────────────────▶ Body ─────────────────────────────▶ closed
//!     ▲  │  empty line, multipart or message/rfc822      ▲
//!     │  └──────────────▶ Body, with entities inside ────┘
//!     └── delimiter: a new part ──────┘
//! ```
//!
//! Every bound is a count of bytes or entities of the mail itself, so both sides meet it at the same byte; what lies beyond
//! is a part without structure.

use super::param::{self, Entity};
use crate::model::structure::{Extent, Kind, Node, SPLITTER_VERSION, Structure};

/// Most entities inside each other, the mail itself included. Its CBOR must stay within the decoder's bound.
pub const DEPTH_MAX: usize = 32;
/// Most entities in a mail, the mail itself included.
pub const PARTS_MAX: usize = 1000;
/// Bytes that are kept of the mail's own header block: above what an ns can carry.
pub const HEADER_MAX: usize = 64 * 1024;
/// Bytes that are kept of the header block of each entity inside.
pub const PART_HEADER_MAX: usize = 16 * 1024;
/// Bytes that are kept of all header blocks inside together: bounds the memory of a structure.
pub const PART_HEADERS_MAX: usize = 1024 * 1024;
/// A longer line is no delimiter. A boundary has at most [`param::BOUNDARY_MAX`] bytes; the rest is white space.
const DELIMITER_LINE_MAX: usize = 1024;

/// What a [`Splitter`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The mail's structure.
    pub structure: Structure,
    /// The mail's header block, its empty line included; cut at [`HEADER_MAX`].
    pub header_block: Vec<u8>,
}

impl Split {
    /// Whether [`Split::header_block`] is the whole header block.
    pub fn header_is_whole(&self) -> bool {
        u64::try_from(self.header_block.len()).is_ok_and(|kept| kept == self.structure.root.header.len())
    }
}

/// The structure of a mail that is in memory.
pub fn split(mail: &[u8]) -> Split {
    let mut splitter = Splitter::new();
    splitter.feed(mail);
    splitter.finish()
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    /// Entered when the entity begins; left at its first empty line.
    Header,
    /// Entered after the empty line; left when the entity is closed.
    Body,
    /// A multipart whose last delimiter was seen: entered there, left when the entity is closed.
    Epilogue,
}

/// An entity whose end is not known yet.
#[derive(Debug)]
struct Open {
    state: State,
    start: u64,
    /// End of the header block; `start` until then.
    body: u64,
    /// Line breaks of the mail before the body.
    lines_before: u64,
    /// Bytes of the header block, as far as they are kept.
    header: Vec<u8>,
    header_cap: usize,
    digest: bool,
    entity: Entity,
    children: Vec<Node>,
    /// For a message: the mail inside and its header block.
    inner: Option<(Node, Vec<u8>)>,
}

impl Open {
    fn new(start: u64, header_cap: usize, digest: bool) -> Self {
        Self {
            state: State::Header,
            start,
            body: start,
            lines_before: 0,
            header: Vec::new(),
            header_cap,
            digest,
            entity: Entity::default(),
            children: Vec::new(),
            inner: None,
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.state == State::Header {
            let room = self.header_cap.saturating_sub(self.header.len());
            self.header.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The finished entity and its header block. `lines` are the line breaks of the mail before `end`.
    fn close(mut self, end: u64, lines: u64) -> (Node, Vec<u8>) {
        if self.state == State::Header {
            (self.body, self.lines_before) = (end, lines);
            self.header.truncate(usize::try_from(end - self.start).unwrap_or(usize::MAX));
            self.entity = param::entity(&self.header, self.digest);
        }
        let kind = match self.inner {
            Some((inner, header_block)) => Kind::Message { header_block, inner: Box::new(inner) },
            None if self.children.is_empty() => Kind::Leaf,
            None => Kind::Multipart(self.children),
        };
        let node = Node {
            header: Extent { start: self.start, end: self.body },
            body: Extent { start: self.body, end },
            lines: lines.saturating_sub(self.lines_before),
            fields: self.entity.fields,
            kind,
        };
        (node, self.header)
    }
}

/// A line without its line break, or that it is longer than a delimiter can be.
enum Line<'a> {
    Short(&'a [u8]),
    Long,
}

/// Splits a mail that arrives in chunks of any size.
#[derive(Debug)]
pub struct Splitter {
    /// Entities that are open, the mail itself first. Never empty.
    stack: Vec<Open>,
    parts: usize,
    /// Bytes of part headers that may still be kept.
    budget: usize,
    /// Line breaks before the current line.
    lines: u64,
    /// Where the current line starts.
    line_start: u64,
    /// Bytes of the current line that came with earlier chunks.
    line_len: u64,
    /// The first of those bytes.
    carry: Vec<u8>,
    /// The last of those bytes.
    last: u8,
    /// Bytes of the line break before the current line.
    line_break: u64,
}

impl Default for Splitter {
    fn default() -> Self {
        Self::new()
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

impl Splitter {
    /// A splitter that has seen nothing.
    pub fn new() -> Self {
        Self {
            stack: vec![Open::new(0, HEADER_MAX, false)],
            parts: 1,
            budget: PART_HEADERS_MAX,
            lines: 0,
            line_start: 0,
            line_len: 0,
            carry: Vec::new(),
            last: 0,
            line_break: 0,
        }
    }

    /// Takes the next bytes of the mail.
    pub fn feed(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some(at) = rest.iter().position(|b| *b == b'\n') {
            let (line, after) = rest.split_at(at + 1);
            self.end_line(line);
            rest = after;
        }
        if let Some(last) = rest.last() {
            self.last = *last;
            self.keep(rest);
            self.carry_on(rest);
        }
    }

    /// How many bytes were fed.
    pub fn size(&self) -> u64 {
        self.line_start + self.line_len
    }

    /// Whether the mail's own header block has ended.
    pub fn header_is_over(&self) -> bool {
        self.stack[0].state != State::Header
    }

    /// The mail ends here.
    pub fn finish(mut self) -> Split {
        if self.line_len > 0 {
            let carry = std::mem::take(&mut self.carry);
            let line = if self.line_len <= length(&carry) { Line::Short(&carry) } else { Line::Long };
            let (start, end) = (self.line_start, self.size());
            self.line(&line, start, end, 0);
            (self.line_start, self.line_len) = (end, 0);
        }
        let size = self.size();
        while self.stack.len() > 1 {
            self.close_top(size, self.lines);
        }
        // The stack holds the mail itself from beginning to end.
        let root = self.stack.pop().unwrap_or_else(|| Open::new(0, 0, false));
        let (root, header_block) = root.close(size, self.lines);
        Split { structure: Structure { version: SPLITTER_VERSION, size, root }, header_block }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(top) = self.stack.last_mut() {
            top.keep(bytes);
        }
    }

    fn carry_on(&mut self, bytes: &[u8]) {
        // Two more than a delimiter may have: the line break is cut off later.
        let room = (DELIMITER_LINE_MAX + 2).saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.line_len += length(bytes);
    }

    /// Takes the rest of a line, its LF included.
    fn end_line(&mut self, rest: &[u8]) {
        self.keep(rest);
        let before_lf = match rest.len() {
            1 if self.line_len == 0 => 0,
            1 => self.last,
            n => rest[n - 2],
        };
        let eol = if before_lf == b'\r' { 2 } else { 1 };
        let (start, end) = (self.line_start, self.size() + length(rest));
        let content = usize::try_from(end - start - eol).unwrap_or(usize::MAX);
        if content > DELIMITER_LINE_MAX {
            self.line(&Line::Long, start, end, eol);
        } else {
            if self.line_len == 0 {
                self.line(&Line::Short(&rest[..content]), start, end, eol);
            } else {
                self.carry_on(rest);
                let carry = std::mem::take(&mut self.carry);
                self.line(&Line::Short(&carry[..content]), start, end, eol);
                self.carry = carry;
            }
        }
        self.carry.clear();
        self.lines += 1;
        (self.line_start, self.line_len, self.line_break) = (end, 0, eol);
    }

    /// One line, from `start` to `end`, of which the last `eol` bytes are its line break.
    fn line(&mut self, line: &Line<'_>, start: u64, end: u64, eol: u64) {
        let Line::Short(content) = line else { return };
        if let Some((level, last)) = self.delimiter(content) {
            self.close_above(level, start);
            let parent = &mut self.stack[level];
            if last {
                parent.state = State::Epilogue;
            } else {
                let digest = parent.entity.fields.subtype == "digest";
                self.open(end, digest);
            }
        } else if content.is_empty() && eol > 0 && self.stack.last().is_some_and(|top| top.state == State::Header) {
            self.end_header(end);
        }
    }

    /// Which open multipart this line is a delimiter of, and whether it is its last one.
    fn delimiter(&self, line: &[u8]) -> Option<(usize, bool)> {
        let rest = line.strip_prefix(b"--")?;
        let blank = |bytes: &[u8]| bytes.iter().all(|b| matches!(b, b' ' | b'\t'));
        self.stack.iter().enumerate().rev().filter(|(_, open)| open.state == State::Body).find_map(|(level, open)| {
            let after = rest.strip_prefix(open.entity.boundary.as_deref()?)?;
            if blank(after) {
                // With no entity left, the rest of the mail belongs to the last one.
                (self.parts < PARTS_MAX).then_some((level, false))
            } else {
                after.strip_prefix(b"--").is_some_and(blank).then_some((level, true))
            }
        })
    }

    fn open(&mut self, start: u64, digest: bool) {
        self.parts += 1;
        self.stack.push(Open::new(start, self.budget.min(PART_HEADER_MAX), digest));
    }

    /// The header block of the top ends at `end`, the empty line included.
    fn end_header(&mut self, end: u64) {
        let (depth, lines) = (self.stack.len(), self.lines + 1);
        let Some(top) = self.stack.last_mut() else { return };
        top.state = State::Body;
        (top.body, top.lines_before) = (end, lines);
        top.entity = param::entity(&top.header, top.digest);
        if depth > 1 {
            self.budget = self.budget.saturating_sub(top.header.len());
        }
        if depth >= DEPTH_MAX {
            top.entity.boundary = None;
        } else if top.entity.is_message() && self.parts < PARTS_MAX {
            self.open(end, false);
        }
    }

    /// Closes what is above `level` before the delimiter line that starts at `line_start`, whose line break before it is
    /// its own, unless an entity began only after that line break.
    fn close_above(&mut self, level: usize, line_start: u64) {
        let (mut end, mut lines) = (line_start.saturating_sub(self.line_break), self.lines.saturating_sub(1));
        while self.stack.len() > level + 1 {
            let begun =
                self.stack.last().map_or(0, |top| if top.state == State::Header { top.start } else { top.body });
            if begun >= line_start {
                (end, lines) = (line_start, self.lines);
            }
            self.close_top(end, lines);
        }
    }

    fn close_top(&mut self, end: u64, lines: u64) {
        let Some(top) = self.stack.pop() else { return };
        let unpaid = top.state == State::Header;
        let closed = top.close(end, lines);
        if unpaid {
            self.budget = self.budget.saturating_sub(closed.1.len());
        }
        let Some(parent) = self.stack.last_mut() else { return };
        if parent.entity.is_message() {
            parent.inner = Some(closed);
        } else {
            parent.children.push(closed.0);
        }
    }
}
