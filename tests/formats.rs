//! What earlier versions wrote opens: one file for each kind of record under `tests/fixtures/v1` to `v3`. Each is opened, and written
//! again as it was: a field that is renamed, dropped or read as something else shows here. A file is never changed; a new form
//! of a record gets a new folder.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::io::{self, Read};
    use std::path::PathBuf;

    use roost::actors::postbox::Head;
    use roost::actors::spool::{Envelope, read_mail};
    use roost::core::{Brain, group, outbox, postbox, replicator};
    use roost::fragment::{MailName, check_manifest};
    use roost::mime::split::{Split, split as split_mail};
    use roost::model::group::{GroupDescriptor, Member, PeerAddr, PeerDescriptor};
    use roost::model::manifest::Manifest;
    use roost::model::msglist::EntryBody;
    use roost::model::notification::{Nr, Ns, Outcome, Refusal};
    use roost::model::{Address, Digest, Fingerprint, MailId, Policy, Secret, SubmissionId, WallTime};
    use roost::seal::{
        SecretIdentity, decrypt_nr, decrypt_ns, open_mail, signed_message, verify_descriptor, verify_gd, verify_signed,
    };
    use roost::store::{Home, manifests, spool_file};
    use roost::wire::msglist::{Page, encode_entry};
    use roost::wire::{PeerKey, Signed, decode, encode};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    const MAIL: &str = "From: Alice <alice@acme>\r\nTo: bob@acme\r\nMessage-ID: <1@acme>\r\nSubject: a fixture\r\n\
                        MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\
                        Content-Type: image/png; name=x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--\r\n";

    fn fixture(name: &str) -> Vec<u8> {
        fixture_of("v1", name)
    }

    fn fixture_of(version: &str, name: &str) -> Vec<u8> {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version).join(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Opens a record, and writes it again.
    fn reopened<T: Serialize + DeserializeOwned>(what: &str, bytes: &[u8]) -> T {
        let value: T = decode(bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(encode(&value) == bytes, "{what} is written otherwise than it was");
        value
    }

    /// The records of a file that has several: each behind its length.
    fn records(name: &str) -> Vec<Vec<u8>> {
        let bytes = fixture(name);
        let mut rest = &bytes[..];
        let mut all = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let (record, after) = after.split_at(usize::try_from(u32::from_le_bytes(*length)).unwrap());
            all.push(record.to_vec());
            rest = after;
        }
        all
    }

    /// Opens every event of a brain; gives the names of their kinds.
    fn kinds<B: Brain>() -> BTreeSet<String>
    where
        B::Event: Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let kind = |bytes: &Vec<u8>| {
            let event = reopened::<B::Event>(&format!("an event of {}", B::NAME), bytes);
            format!("{event:?}").split([' ', '(', '{']).next().unwrap().to_owned()
        };
        records(&format!("events/{}", B::NAME)).iter().map(kind).collect()
    }

    #[test]
    fn events_of_version_1_of_each_brain() {
        let counts = [
            kinds::<outbox::Outbox>().len(),
            kinds::<postbox::Postbox>().len(),
            kinds::<replicator::Replicator>().len(),
            kinds::<group::Group>().len(),
        ];
        // Kinds that were there when the files were made.
        assert_eq!(counts, [18, 24, 12, 13]);
    }

    #[test]
    fn a_manifest_of_version_1() {
        let bytes = fixture("manifest");
        let manifest = Signed::<Manifest>::verify(&bytes).unwrap();
        check_manifest(&manifest, &MailName::of(&manifest)).unwrap();
        assert_eq!(owner().sign(manifest.into_value()).as_bytes(), bytes);
    }

    #[test]
    fn a_msglist_page_of_version_1() {
        let page: Page = reopened("msglist page", &fixture("msglist-page"));
        let run = page.runs[0].verify(&owner().peer_id(), None).unwrap();
        assert_eq!(run.entries.len(), 2);
        assert!(matches!(run.entries[0].0.body, EntryBody::Mail(_)));
        assert!(matches!(run.entries[1].0.body, EntryBody::Tombstone(_)));
        for (entry, bytes) in run.entries {
            assert_eq!(encode_entry(&entry), bytes);
        }
    }

    #[test]
    fn a_gd_and_a_peer_descriptor_of_version_1() {
        let key = SecretIdentity::from_bytes(&fixture("group.key")).unwrap();
        let gd = verify_gd(&fixture("gd"), &key.fingerprint()).unwrap();
        assert_eq!(gd.into_value(), group_descriptor(&key, &reader()));
        let d = verify_descriptor(&fixture("d")).unwrap();
        assert_eq!(d.into_value(), peer_descriptor(&reader()));
    }

    #[test]
    fn an_ns_and_an_nr_of_version_1() {
        let ns = decrypt_ns(&fixture("ns"), &reader()).unwrap().verify(sender().certificate()).unwrap();
        assert_eq!(ns, send_notification());
        let nr = decrypt_nr(&fixture("nr"), &sender()).unwrap().verify(reader().certificate()).unwrap();
        assert_eq!(nr, receive_notification());
    }

    #[test]
    fn an_envelope_of_the_spool_and_a_head_of_a_mailbox_of_version_1() {
        assert_eq!(reopened::<Envelope>("envelope", &fixture("envelope")), envelope());
        assert_eq!(reopened::<Head>("head", &fixture("head")), head());
    }

    #[test]
    fn a_mail_of_the_spool_of_version_1_and_2() {
        let home = tempfile::tempdir().unwrap();
        let home = Home::at(home.path());
        home.create().unwrap();
        let (earlier, later) = (SubmissionId::new([1; 16]), SubmissionId::new([2; 16]));
        fs::write(home.spool_mail_of_version_1(&earlier), MAIL).unwrap();
        fs::write(home.spool_envelope_of_version_1(&earlier), fixture("envelope")).unwrap();
        fs::write(home.spool_file(&later), fixture_of("v2", "spool.mail")).unwrap();
        for submission in [earlier, later] {
            assert_eq!(spooled_mail(&home, &submission), MAIL);
            let bytes = spool_file::read_envelope(&home, &submission, 1 << 20).unwrap();
            assert_eq!(reopened::<Envelope>("spool", &bytes), envelope());
        }
        assert_eq!(home.spooled().unwrap(), [earlier, later].into());
        let mut written = MAIL.as_bytes().to_vec();
        spool_file::write_envelope(&mut written, &encode(&envelope())).unwrap();
        assert!(written == fixture_of("v2", "spool.mail"), "it is written otherwise than it was");
    }

    fn spooled_mail(home: &Home, submission: &SubmissionId) -> String {
        let mut mail = String::new();
        read_mail(home, &sender(), submission).unwrap().read_to_string(&mut mail).unwrap();
        mail
    }

    #[test]
    fn a_mail_that_the_spool_keeps_sealed_and_its_signature_of_version_3() {
        let home = tempfile::tempdir().unwrap();
        let home = Home::at(home.path());
        home.create().unwrap();
        let submission = SubmissionId::new([3; 16]);
        let (kept, sealed) = (fixture_of("v3", "spool.mail"), fixture_of("v3", "spool.sealed"));
        fs::write(home.spool_file(&submission), &kept).unwrap();
        fs::write(home.spool_sealed(&submission), &sealed).unwrap();
        assert_eq!(spooled_mail(&home, &submission), MAIL);
        let bytes = spool_file::read_envelope(&home, &submission, 1 << 20).unwrap();
        assert_eq!(reopened::<Envelope>("spool", &bytes), envelope());
        assert_eq!(home.spooled().unwrap(), [submission].into());
        let mut written = Vec::new();
        spool_file::write_envelope_of_sealed(&mut written, &encode(&envelope())).unwrap();
        assert!(written == kept, "it is written otherwise than it was");
        let (sender, mut clear) = (sender(), Vec::new());
        let opened = open_mail(&sealed[..], &reader(), sender.certificate(), 1000, &mut clear).unwrap();
        assert_eq!((clear, opened.signature), (MAIL.as_bytes().to_vec(), fixture_of("v3", "mail.signature")));
        for message in [
            Box::new(signed_message(&fixture_of("v3", "mail.signature"), MAIL.as_bytes(), opened.length).unwrap()),
            // As a mail was kept before.
            Box::new(&fixture_of("v2", "mail.signed")[..]) as Box<dyn Read + Send + Sync>,
        ] {
            assert_eq!(verify_signed(message, sender.certificate(), 1000, io::sink()).unwrap().length, opened.length);
        }
    }

    #[test]
    fn an_own_manifest_and_the_notifications_beside_it_of_version_1_and_behind_it_of_version_2() {
        let home = tempfile::tempdir().unwrap();
        let home = Home::at(home.path());
        home.create().unwrap();
        let (alone, both) = (fixture("manifest"), fixture_of("v2", "own.manifest"));
        let h = Signed::<Manifest>::verify(&alone).unwrap().h;
        let first = home.outbox_manifest(&h);
        fs::create_dir_all(first.parent().unwrap()).unwrap();
        let found = || manifests::find(&first, |_| true).unwrap().1.as_bytes().to_vec();
        fs::write(&first, &alone).unwrap();
        fs::write(home.outbox_notices_of_version_1(&h), b"beside").unwrap();
        assert_eq!((found(), manifests::notices(&home, &h, 100).unwrap()), (alone.clone(), b"beside".to_vec()));
        fs::remove_file(home.outbox_notices_of_version_1(&h)).unwrap();
        assert!(manifests::notices(&home, &h, 1 << 20).is_err());
        fs::write(&first, &both).unwrap();
        assert_eq!(found(), alone);
        let notices = manifests::notices(&home, &h, 1 << 20).unwrap();
        assert_eq!(reopened::<ciborium::Value>("sealed ns", &notices).as_array().map(Vec::len), Some(1));
        assert!(manifests::with_notices(&alone, &notices).unwrap() == both, "it is written otherwise than it was");
    }

    fn owner() -> PeerKey {
        PeerKey::from_seed(&[7; 32])
    }
    fn reader() -> SecretIdentity {
        SecretIdentity::from_bytes(&fixture("reader.key")).unwrap()
    }
    fn sender() -> SecretIdentity {
        SecretIdentity::from_bytes(&fixture("sender.key")).unwrap()
    }
    fn at() -> WallTime {
        WallTime(1_700_000_000_000)
    }
    fn split() -> Split {
        split_mail(MAIL.as_bytes())
    }
    fn send_notification() -> Ns {
        let Split { header_block, structure } = split();
        Ns {
            submission: SubmissionId::new([1; 16]),
            h: MailId::new([2; 20]),
            length: 4096,
            digest: Digest::new([3; 32]),
            to: "rita@readers".parse().unwrap(),
            from: "alice@acme".parse().unwrap(),
            from_fingerprint: sender().fingerprint(),
            owner: owner().peer_id(),
            group: "acme".parse().unwrap(),
            group_key: Fingerprint::new([4; 20]),
            expiry: WallTime(at().0 + 604_800_000),
            header_block,
            structure,
            secret: Secret::new([5; 32]),
        }
    }
    fn receive_notification() -> Nr {
        Nr {
            submission: SubmissionId::new([1; 16]),
            h: MailId::new([2; 20]),
            reader: "rita@readers".parse().unwrap(),
            to: "alice@acme".parse().unwrap(),
            outcome: Outcome::Refused(Refusal::Unread),
            at: at(),
        }
    }
    fn envelope() -> Envelope {
        let Split { header_block, structure } = split();
        let receivers = vec![("bob@acme".parse().unwrap(), false), ("rita@readers".parse().unwrap(), true)];
        Envelope { receivers, at: at(), message_id: Some("<1@acme>".to_owned()), header_block, structure }
    }
    fn head() -> Head {
        let Split { header_block, structure } = split();
        Head { header_block, structure }
    }
    fn peer_descriptor(me: &SecretIdentity) -> PeerDescriptor {
        PeerDescriptor {
            address: "rita@readers".parse().unwrap(),
            peer_id: owner().peer_id(),
            addrs: vec![PeerAddr { host: "192.0.2.1".to_owned(), https: 20_001, libp2p: 20_002 }],
            certificate: me.certificate().as_bytes().to_vec(),
            sequence: 9,
        }
    }
    fn group_descriptor(key: &SecretIdentity, me: &SecretIdentity) -> GroupDescriptor {
        let address: Address = "rita@readers".parse().unwrap();
        let member = Member { address: address.clone(), peer_id: owner().peer_id(), fingerprint: me.fingerprint() };
        GroupDescriptor {
            group: "readers".parse().unwrap(),
            version: 3,
            members: vec![member],
            policy: Policy::default(),
            key_holders: BTreeSet::from([address]),
            min_protocol: 1,
            group_certificate: key.certificate().as_bytes().to_vec(),
            at: at(),
            handovers: Vec::new(),
            built_on: Vec::new(),
            leaving: BTreeSet::new(),
        }
    }
}
