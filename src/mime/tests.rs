//! What the splitter promises, over hand-made and random mails. Uses no file and no network.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::split::{DEPTH_MAX, HEADER_MAX, PART_HEADER_MAX, PARTS_MAX, Split, Splitter, split};
use super::{Section, ns_headers_len, section};
use crate::model::structure::{Extent, Kind, Node, Structure};
use crate::wire::cbor;

fn children(node: &Node) -> &[Node] {
    match &node.kind {
        Kind::Multipart(children) => children,
        Kind::Message { inner, .. } => std::slice::from_ref(inner),
        Kind::Leaf => &[],
    }
}

/// Every entity tiles into header and body, and the entities inside lie in order within the body.
fn check_node(node: &Node, mail: &[u8]) {
    assert_eq!(node.header.end, node.body.start);
    assert!(node.header.start <= node.header.end && node.body.start <= node.body.end);
    assert_eq!(node.lines, cut(mail, node.body).iter().filter(|b| **b == b'\n').count() as u64);
    let mut at = node.body.start;
    for child in children(node) {
        assert!(at <= child.header.start && child.body.end <= node.body.end, "{node:?}");
        at = child.body.end;
        check_node(child, mail);
    }
    if let Kind::Message { header_block, inner } = &node.kind {
        assert_eq!(inner.header.start, node.body.start);
        assert_eq!(inner.body.end, node.body.end);
        assert!(cut(mail, inner.header).starts_with(header_block));
        assert!(header_block.len() as u64 == inner.header.len() || header_block.len() <= PART_HEADER_MAX);
    }
}

fn check(mail: &[u8]) -> Split {
    let found = split(mail);
    let root = &found.structure.root;
    assert_eq!((root.header.start, root.body.end), (0, mail.len() as u64));
    assert_eq!(found.structure.size, mail.len() as u64);
    assert!(cut(mail, root.header).starts_with(&found.header_block));
    if found.header_is_whole() {
        assert_eq!([found.header_block.as_slice(), cut(mail, root.body)].concat(), mail);
    }
    check_node(root, mail);
    found
}

fn cut(mail: &[u8], extent: Extent) -> &[u8] {
    &mail[usize::try_from(extent.start).unwrap()..usize::try_from(extent.end).unwrap()]
}

fn in_chunks(mail: &[u8], sizes: &[usize]) -> Split {
    let mut splitter = Splitter::new();
    let mut rest = mail;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((*size).clamp(1, rest.len()));
        splitter.feed(chunk);
        rest = after;
    }
    assert_eq!(splitter.size(), mail.len() as u64);
    splitter.finish()
}

fn get<'a>(mail: &'a [u8], structure: &Structure, name: &str) -> Option<&'a str> {
    let extent = section::resolve(structure, &name.parse().unwrap())?;
    Some(std::str::from_utf8(cut(mail, extent)).unwrap())
}

const NESTED: &[u8] = b"Subject: all\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble\r\n--b\r\n\r\nplain\r\n\
--b \t\r\nContent-Type: multipart/alternative; boundary=bb\r\nContent-ID: <x>\r\n\r\n--bb\r\nContent-Type: text/html\r\n\r\n\
<p>\r\n--bb--\r\ninner epilogue\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/mixed; boundary=\"b b\"\r\n\
\r\n--b b\r\nA: b\r\n\r\none\r\n\r\n--b b\r\n\r\n--b--\r\nepilogue\r\n--b\r\nnot a part\r\n";

#[test]
fn rfc3501_sections_of_a_nested_mail() {
    let found = check(NESTED);
    let s = &found.structure;
    let at = |name: &str| get(NESTED, s, name);
    assert_eq!(at("").unwrap().as_bytes(), NESTED);
    assert_eq!(at("HEADER"), Some("Subject: all\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n"));
    assert!(at("TEXT").unwrap().starts_with("preamble") && at("text").unwrap().ends_with("not a part\r\n"));
    assert_eq!(at("1"), Some("plain"));
    assert_eq!(at("1.MIME"), Some("\r\n"));
    assert_eq!(at("1.1"), None);
    assert_eq!(at("1.HEADER"), None);
    assert_eq!(at("2.MIME"), Some("Content-Type: multipart/alternative; boundary=bb\r\nContent-ID: <x>\r\n\r\n"));
    assert_eq!(at("2.1"), Some("<p>"));
    assert_eq!(at("2.2"), None);
    assert_eq!(at("3.HEADER"), Some("Subject: inner\r\nContent-Type: multipart/mixed; boundary=\"b b\"\r\n\r\n"));
    assert_eq!(at("3.MIME"), Some("Content-Type: message/rfc822\r\n\r\n"));
    assert_eq!(at("3.1"), Some("one\r\n"));
    assert_eq!(at("3.1.MIME"), Some("A: b\r\n\r\n"));
    assert_eq!(at("3.2"), Some(""));
    assert!(at("3").unwrap().starts_with("Subject: inner") && at("3.TEXT").unwrap().starts_with("--b b"));
    assert_eq!(at("4"), None);
    let known = |name: &str| section::known_header(s, &found.header_block, &name.parse().unwrap());
    assert_eq!(known("HEADER").map(<[u8]>::len), at("HEADER").map(str::len));
    assert_eq!(known("3.HEADER"), at("3.HEADER").map(str::as_bytes));
    assert_eq!(known("1.HEADER"), None);
}

#[test]
fn rfc3501_part_one_of_a_mail_without_parts_is_its_body() {
    let mail = b"Subject: x\r\n\r\nbody\r\n";
    let s = check(mail).structure;
    assert_eq!(get(mail, &s, "1"), Some("body\r\n"));
    assert_eq!(get(mail, &s, "1.MIME"), Some("Subject: x\r\n\r\n"));
    assert_eq!((get(mail, &s, "1.1"), get(mail, &s, "2"), get(mail, &s, "1.TEXT")), (None, None, None));
    let forwarded = b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nin\r\n";
    let s = check(forwarded).structure;
    assert_eq!(get(forwarded, &s, "1.HEADER"), Some("Subject: in\r\n\r\n"));
    assert_eq!(get(forwarded, &s, "1.1"), Some("in\r\n"));
}

#[test]
fn sections_that_are_none_are_refused() {
    for bad in ["MIME", "0", "1.0", "1.", ".1", "+1", "HEADER.1", "1.MIME.2", "x", "99999999999"] {
        assert!(bad.parse::<Section>().is_err(), "{bad}");
    }
    assert!(vec!["1"; 1000].join(".").parse::<Section>().is_err());
}

#[test]
fn rfc2046_a_missing_final_boundary_ends_the_part_with_the_mail() {
    let mail = b"Content-Type: multipart/mixed; boundary=b\n\n--b\nA: b\n\none\n--b\n\ntwo\n";
    let s = check(mail).structure;
    assert_eq!((get(mail, &s, "1"), get(mail, &s, "2")), (Some("one"), Some("two\n")));
    let no_line_end = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--";
    let s = check(no_line_end).structure;
    assert_eq!((get(no_line_end, &s, "1"), get(no_line_end, &s, "2")), (Some("one"), None));
}

#[test]
fn rfc2046_a_boundary_is_not_the_beginning_of_a_longer_one() {
    let mail =
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--bb\r\n--b-\r\n--b---\r\n --b\r\n--b--\r\n";
    let s = check(mail).structure;
    assert_eq!(get(mail, &s, "1"), Some("--bb\r\n--b-\r\n--b---\r\n --b"));
}

#[test]
fn rfc2046_an_outer_boundary_ends_what_is_open_inside() {
    let mail =
        b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n\
--i\r\n--o\r\nContent-Type: message/rfc822\r\n\r\n--o\r\nNo: blank line\r\n--o--\r\n";
    let s = check(mail).structure;
    assert_eq!(get(mail, &s, "1.1"), Some(""));
    assert_eq!((get(mail, &s, "2"), get(mail, &s, "2.HEADER")), (Some(""), Some("")));
    assert_eq!((get(mail, &s, "3.MIME"), get(mail, &s, "3")), (Some("No: blank line"), Some("")));
}

#[test]
fn rfc2046_a_digest_holds_mails() {
    let mail = b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: in\r\n\r\nx\r\n--b--\r\n";
    assert_eq!(get(mail, &check(mail).structure, "1.HEADER"), Some("Subject: in\r\n\r\n"));
}

#[test]
fn mails_without_header_body_or_blank_line_have_a_structure() {
    for (mail, header) in [
        (&b""[..], 0),
        (b"\r\n", 2),
        (b"\n", 1),
        (b"\r", 1),
        (b"Subject: x", 10),
        (b"no colon\r\nat all\r\n", 18),
        (b"\r\nbody", 2),
        (b"a\0b\xff: c\r\n\r\n\0\xff", 11),
        (b"A: b\r\n \r\nC: d\r\n\r\nx", 17),
    ] {
        let root = check(mail).structure.root;
        assert_eq!((root.header.len(), root.kind), (header, Kind::Leaf), "{}", mail.escape_ascii());
    }
}

#[test]
fn a_multipart_without_any_part_or_usable_boundary_is_a_leaf() {
    for kind in [
        "multipart/mixed",
        "multipart/mixed; boundary=",
        "multipart/mixed; boundary=\"\"",
        "multipart/mixed; boundary=x",
    ] {
        let mail = format!("Content-Type: {kind}\r\n\r\nbody\r\n----\r\n");
        assert_eq!(check(mail.as_bytes()).structure.root.kind, Kind::Leaf, "{kind}");
    }
    let long = format!("Content-Type: multipart/mixed; boundary={0}\n\n--{0}\n\nx\n", "b".repeat(300));
    assert_eq!(check(long.as_bytes()).structure.root.kind, Kind::Leaf);
}

#[test]
fn long_lines_are_content_and_never_a_boundary() {
    let mut mail = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n".to_vec();
    let before = mail.len();
    mail.extend_from_slice(&vec![b'x'; 10_000]);
    mail.extend_from_slice(format!("\r\n--b{}\r\n--b--\r\n", " ".repeat(10_000)).as_bytes());
    let found = check(&mail);
    for sizes in [&[1][..], &[1023, 1, 7], &[4096]] {
        assert_eq!(in_chunks(&mail, sizes), found);
    }
    assert_eq!(children(&found.structure.root)[0].body.len(), (mail.len() - before - 9) as u64);
}

#[test]
fn nesting_stops_at_its_bound_and_still_travels() {
    let mut mail = Vec::new();
    for i in 0..100 {
        mail.extend_from_slice(format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n").as_bytes());
    }
    let mails = b"Content-Type: message/rfc822\r\n\r\n".repeat(100);
    for mail in [mail, mails] {
        let found = check(&mail);
        let (mut node, mut depth) = (&found.structure.root, 1);
        while let Some(child) = children(node).first() {
            (node, depth) = (child, depth + 1);
        }
        assert_eq!(depth, DEPTH_MAX);
        let encoded = cbor::encode(&found.structure);
        assert_eq!(cbor::decode::<Structure>(&encoded).unwrap(), found.structure);
        assert_eq!(
            ns_headers_len(&found.structure, &found.header_block),
            (encoded.len() + found.header_block.len()) as u64
        );
    }
}

#[test]
fn the_last_part_that_is_counted_has_the_rest() {
    let mut mail = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    mail.extend_from_slice(&b"--b\r\n\r\nx\r\n".repeat(PARTS_MAX + 5));
    mail.extend_from_slice(b"--b--\r\nepilogue\r\n");
    let found = check(&mail);
    let parts = children(&found.structure.root);
    assert_eq!(parts.len(), PARTS_MAX - 1);
    assert!(cut(&mail, parts[PARTS_MAX - 2].body).ends_with(b"--b\r\n\r\nx"));
    assert_eq!(in_chunks(&mail, &[3]), found);
}

#[test]
fn a_header_block_is_kept_up_to_its_bound_and_counted_whole() {
    let mut mail = b"A: b\r\n".repeat(20_000);
    mail.extend_from_slice(b"\r\nbody");
    let found = check(&mail);
    assert_eq!(found.header_block.len(), HEADER_MAX);
    assert_eq!(found.structure.root.header.len(), 120_002);
    assert!(!found.header_is_whole() && ns_headers_len(&found.structure, &found.header_block) > 120_002);
}

/// Pieces of mail, so that random mails have structure.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = |t: &'static str| Just(t.as_bytes().to_vec());
    prop_oneof![
        4 => prop_oneof![text("\r\n"), text("\n"), text("\r"), text("\r\n\r\n"), text(" "), text("\t"), text("--"), text("\0")],
        3 => prop_oneof![text("--b\r\n"), text("--b--\r\n"), text("--bb\r\n"), text("--bb--\r\n"), text("--b \t\n"), text("--c"), text("--c--")],
        3 => prop_oneof![
            text("Content-Type: multipart/mixed; boundary=b\r\n"),
            text("Content-Type: multipart/mixed;\r\n boundary=\"bb\"\r\n\r\n--bb\r\n"),
            text("Content-Type: multipart/digest; boundary=c\r\n\r\n--c\r\n"),
            text("Content-Type: message/rfc822\r\n\r\n"),
            text("Content-Type: multipart/mixed; boundary=\"b--\"\n\n--b--\n"),
        ],
        2 => prop_oneof![text("Subject: x\r\n"), text("Content-Transfer-Encoding: base64\r\n"), text("no colon"), text("body\r\n")],
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (0_usize..1100).prop_map(|n| vec![b'x'; n]),
    ]
}

fn mail_like() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(piece(), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn chunks_do_not_matter_for_mail_like_bytes(mail in mail_like(), sizes in prop::collection::vec(1_usize..40, 1..10)) {
        let found = check(&mail);
        prop_assert_eq!(in_chunks(&mail, &sizes), found.clone());
        prop_assert_eq!(in_chunks(&mail, &[1]), found.clone());
        prop_assert_eq!(cbor::decode::<Structure>(&cbor::encode(&found.structure)).unwrap(), found.structure);
    }

    #[test]
    fn chunks_do_not_matter_for_arbitrary_bytes(mail in prop::collection::vec(any::<u8>(), 0..600), size in 1_usize..50) {
        prop_assert_eq!(in_chunks(&mail, &[size]), check(&mail));
    }

    #[test]
    fn every_part_is_found_under_its_number(mail in mail_like()) {
        let s = check(&mail).structure;
        for (i, child) in children(&s.root).iter().enumerate().filter(|_| matches!(s.root.kind, Kind::Multipart(_))) {
            let name = format!("{}", i + 1).parse().unwrap();
            prop_assert_eq!(section::resolve(&s, &name), Some(child.body));
        }
        prop_assert!(section::resolve(&s, &"2.9.9.9".parse().unwrap()).is_none_or(|e| e.end <= s.size));
    }

    #[test]
    fn header_helpers_keep_every_other_byte(block in mail_like()) {
        use super::header;
        prop_assert_eq!(header::remove_fields(&block, &["Absent"]), block.clone());
        let mut at = 0;
        for field in header::fields(&block) {
            prop_assert_eq!(field.range.start, at);
            at = field.range.end;
        }
        let replaced = header::replace_field(&block, "Subject", "y");
        let without = |block: &[u8]| header::fields(block).filter(|f| !f.is("Subject")).map(|f| f.unfolded()).collect::<Vec<_>>();
        prop_assert_eq!(header::first(&replaced, "Subject").unwrap().text(), "y");
        prop_assert_eq!(without(&replaced), without(&block));
    }
}
