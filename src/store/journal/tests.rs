//! Tests of the journal: prefixes, damage, order, crash points of a compaction, a failing disk.

use std::io;
use std::sync::atomic::AtomicU8;

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::writer::{Append, COMPANY, Command, LogFile, WhenFull, Writer, gather};
use super::*;

/// A journal as version 1 wrote it.
const FIXTURE_V1: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1/journal/00000001.log"));
/// The same records as version 2 writes them: two appends, so two batches.
const FIXTURE_V2: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v2/journal/00000001.log"));

fn record(brain: &str, event: impl AsRef<[u8]>) -> Record {
    Record::new(brain, event.as_ref().to_vec())
}

fn replayed(dir: &Path) -> Result<Vec<Record>, JournalError> {
    let (_journal, replay) = Journal::open(dir)?;
    replay.collect()
}

/// The bytes of a journal file with these batches, and where each ends.
fn file_of_batches<'a>(batches: impl IntoIterator<Item = &'a [Record]>) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = record::HEADER.to_vec();
    let end_of = |records: &[Record]| {
        let mut frames = Vec::new();
        for record in records {
            record.write_to(&mut frames).unwrap();
        }
        bytes.extend(batch::batch(&frames, u64::try_from(bytes.len()).unwrap()));
        bytes.len()
    };
    let ends = batches.into_iter().map(end_of).collect();
    (bytes, ends)
}

/// The bytes of a journal file with these records, a batch each, and where each ends.
fn file_of(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
    file_of_batches(records.chunks(1))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_appended_is_replayed_in_order_and_can_be_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<_> = (0..100u8).map(|i| record(if i % 3 == 0 { "outbox" } else { "postbox" }, [i; 5])).collect();
    for part in all.chunks(30) {
        let (journal, replay) = Journal::open(dir.path()).unwrap();
        drop(replay);
        journal.append(part.to_vec()).unwrap().wait().unwrap();
    }
    assert_eq!(replayed(dir.path()).unwrap(), all);
    assert_eq!(names(dir.path()), ["00000001.log"]);
}

#[test]
fn dropping_the_journal_waits_for_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let _unwaited: Vec<_> = (0..50u8).map(|i| journal.append(vec![record("outbox", [i])]).unwrap()).collect();
    drop(journal);
    assert_eq!(replayed(dir.path()).unwrap().len(), 50);
}

fn fixture_records() -> [Record; 3] {
    [record("outbox", [0xa1, 0x61, 0x61, 0x01]), record("postbox", []), record("outbox", [0xff; 300])]
}

#[test]
fn a_journal_of_version_1_opens_and_is_written_anew_with_batches() {
    let dir = tempfile::tempdir().unwrap();
    // With a torn tail, as version 1 may have left it.
    fs::write(dir.path().join("00000001.log"), [FIXTURE_V1, &[9; 5]].concat()).unwrap();
    let (journal, replay) = Journal::open(dir.path()).unwrap();
    assert_eq!(replay.collect::<Result<Vec<_>, _>>().unwrap(), fixture_records());
    assert_eq!(names(dir.path()), ["00000002.log"]);
    journal.append(vec![record("outbox", "more")]).unwrap().wait().unwrap();
    drop(journal);
    let expected = [fixture_records().to_vec(), vec![record("outbox", "more")]].concat();
    assert_eq!(replayed(dir.path()).unwrap(), expected);
    assert_eq!(names(dir.path()), ["00000002.log"], "once is enough");
    let written = fs::read(dir.path().join("00000002.log")).unwrap();
    assert_eq!(written, file_of_batches([&expected[..3], &expected[3..]]).0);
}

#[test]
fn a_journal_of_version_2_opens_and_is_what_this_build_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000001.log");
    fs::write(&path, FIXTURE_V2).unwrap();
    assert_eq!(replayed(dir.path()).unwrap(), fixture_records());
    assert_eq!(fs::read(&path).unwrap(), FIXTURE_V2);
    // A change of the format needs a new version and a new fixture.
    assert_eq!(file_of_batches([&fixture_records()[..2], &fixture_records()[2..]]).0, FIXTURE_V2);
}

#[test]
fn damage_in_a_journal_of_version_1_is_refused_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000001.log");
    let mut bytes = FIXTURE_V1.to_vec();
    bytes[record::HEADER.len() + 12] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = replayed(dir.path()).unwrap_err().to_string();
    assert!(error.contains("a whole record follows it"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_newer_journal_or_record_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000001.log");
    for at in [record::HEADER.len() - 1, 0] {
        let mut bytes = FIXTURE_V2.to_vec();
        bytes[at] += 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(replayed(dir.path()), Err(JournalError::NoJournal { .. })));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
    // A whole record of version 2.
    let body = [2, 1, b'x'];
    let length = 3u32.to_le_bytes();
    let sum = crc32c::crc32c(&[&length[..], &body[..]].concat()).to_le_bytes();
    let frame = [&length[..], &sum[..], &body[..]].concat();
    let bytes = [&record::HEADER[..], &batch::batch(&frame, 9)[..]].concat();
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(replayed(dir.path()), Err(JournalError::Unreadable { offset: 25, .. })));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_journal_shorter_than_its_header_is_refused_since_no_crash_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    for length in 0..record::HEADER.len() {
        fs::write(dir.path().join("00000001.log"), &FIXTURE_V2[..length]).unwrap();
        let error = replayed(dir.path()).unwrap_err().to_string();
        assert!(error.contains("roost init --restore"), "{error}");
    }
}

#[test]
fn damage_names_file_offset_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000001.log");
    let (mut bytes, ends) = file_of(&[record("a", "one"), record("b", "two"), record("c", "three")]);
    bytes[ends[0] + 28] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = replayed(dir.path()).unwrap_err().to_string();
    for part in [
        path.to_str().unwrap(),
        &format!("at byte {}", ends[0]),
        &format!("what was written after it follows at byte {}", ends[1]),
        &format!("truncate -s {}", ends[0]),
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
    // Doing what it says helps.
    fs::write(&path, &bytes[..ends[0]]).unwrap();
    assert_eq!(replayed(dir.path()).unwrap(), [record("a", "one")]);
}

#[test]
fn a_tail_of_zeros_or_garbage_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000001.log");
    let all = [record("a", "one"), record("b", "two")];
    let (good, _) = file_of(&all);
    for tail in [vec![0; 5000], vec![0; 3], vec![0xff; 100], vec![1, 0, 0, 0]] {
        fs::write(&path, [good.clone(), tail].concat()).unwrap();
        assert_eq!(replayed(dir.path()).unwrap(), all);
        assert_eq!(fs::read(&path).unwrap(), good);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_truncation_replays_to_a_prefix(
        events in prop::collection::vec((prop::sample::select(vec!["outbox", "x"]), prop::collection::vec(any::<u8>(), 0..40)), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = events.into_iter().map(|(brain, event)| Record::new(brain, event)).collect();
        let (bytes, ends) = file_of(&all);
        let cut = record::HEADER.len() + cut.index(bytes.len() - record::HEADER.len() + 1);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000001.log"), &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        let (journal, replay) = Journal::open(dir.path()).unwrap();
        let found: Vec<_> = replay.collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(&found[..], &all[..whole]);
        // And it goes on from there.
        journal.append(vec![record("x", "more")]).unwrap().wait().unwrap();
        drop(journal);
        prop_assert_eq!(replayed(dir.path()).unwrap().len(), whole + 1);
    }

    #[test]
    fn a_last_batch_is_cut_off_whichever_of_its_pages_the_disk_wrote(
        batches in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5), 1..5),
        page in 1usize..150,
        lost in prop::collection::vec(any::<bool>(), 1..12),
        length in any::<prop::sample::Index>(),
        stale in any::<u8>(),
    ) {
        let batches: Vec<Vec<_>> =
            batches.into_iter().map(|b| b.into_iter().map(|event| Record::new("outbox", event)).collect()).collect();
        let (mut bytes, ends) = file_of_batches(batches.iter().map(Vec::as_slice));
        // Some pages of the last write are what was there before: zeros, or bytes of a file that is gone.
        let start = ends.get(ends.len().wrapping_sub(2)).copied().unwrap_or(record::HEADER.len());
        let whole = bytes.clone();
        for (page, _) in bytes[start..].chunks_mut(page).zip(lost.iter().cycle()).filter(|(_, lost)| **lost) {
            page.fill(stale);
        }
        // And the file may be shorter.
        bytes.truncate(start + length.index(bytes.len() - start + 1));
        let kept = if bytes == whole { batches.len() } else { batches.len() - 1 };
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000001.log"), &bytes).unwrap();
        prop_assert_eq!(replayed(dir.path()).unwrap(), batches[..kept].concat());
        prop_assert_eq!(fs::read(dir.path().join("00000001.log")).unwrap(), whole[..if kept == batches.len() { whole.len() } else { start }].to_vec());
    }

    #[test]
    fn a_flipped_bit_is_refused_or_in_the_last_record_cut(
        events in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 2..8),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let all: Vec<_> = events.into_iter().map(|event| Record::new("outbox", event)).collect();
        let (mut bytes, ends) = file_of(&all);
        let at = record::HEADER.len() + at.index(bytes.len() - record::HEADER.len());
        bytes[at] ^= 1 << bit;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("00000001.log"), &bytes).unwrap();
        let last = ends.len() - 1;
        let opened = replayed(dir.path());
        if at < ends[last - 1] {
            prop_assert!(matches!(opened, Err(JournalError::Damaged { .. })), "{:?}", opened);
        } else {
            prop_assert_eq!(&opened.unwrap()[..], &all[..last]);
        }
    }
}

#[test]
fn compaction_replaces_one_brains_records_and_keeps_the_others_and_what_comes_after() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let old: Vec<_> = (0..20u8).flat_map(|i| [record("outbox", [i]), record("postbox", [i])]).collect();
    let answers = [
        journal.append(old).unwrap(),
        journal.compact("outbox", vec![record("outbox", "live")]).unwrap(),
        journal.append(vec![record("outbox", "later"), record("postbox", "later")]).unwrap(),
    ];
    answers.into_iter().for_each(|answer| answer.wait().unwrap());
    let live_bytes = journal.bytes_of("outbox").total;
    assert!(journal.bytes_of("outbox").since_compaction < live_bytes);
    drop(journal);
    assert_eq!(names(dir.path()), ["00000002.log"]);
    let found = replayed(dir.path()).unwrap();
    let of = |brain: &str| found.iter().filter(|r| r.brain == brain).map(|r| r.event.clone()).collect::<Vec<_>>();
    assert_eq!(of("outbox"), [b"live".to_vec(), b"later".to_vec()]);
    assert_eq!(of("postbox").len(), 21);
    assert_eq!(of("postbox").last().unwrap(), b"later");
    let (journal, _) = Journal::open(dir.path()).unwrap();
    assert_eq!(journal.bytes_of("outbox").total, live_bytes);
}

#[test]
fn a_live_state_with_another_brains_record_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    assert!(journal.compact("outbox", vec![record("postbox", "x")]).is_err());
}

#[test]
fn a_crash_at_any_point_of_a_compaction_loses_nothing() {
    let old = file_of(&[record("a", "1"), record("a", "2")]).0;
    let new = file_of(&[record("a", "12")]).0;
    let open_with = |files: &[(&str, &[u8])]| {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
        let found: Vec<_> = replayed(dir.path()).unwrap().into_iter().map(|r| r.event).collect();
        (found, names(dir.path()))
    };
    let before = (vec![b"1".to_vec(), b"2".to_vec()], vec!["00000001.log".to_owned()]);
    let after = (vec![b"12".to_vec()], vec!["00000002.log".to_owned()]);
    // While the new file is written; when it is complete; when it has its name; when the old one is gone.
    for length in 0..=new.len() {
        assert_eq!(open_with(&[("00000001.log", &old), (".77-1.tmp", &new[..length])]), before);
    }
    assert_eq!(open_with(&[("00000001.log", &old), ("00000002.log", &new)]), after);
    assert_eq!(open_with(&[("00000002.log", &new)]), after);
}

#[test]
fn a_damaged_newer_file_leaves_the_older_one_for_a_rescue() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("00000001.log"), FIXTURE_V1).unwrap();
    fs::write(dir.path().join("00000002.log"), b"ROOST").unwrap();
    replayed(dir.path()).unwrap_err();
    assert_eq!(names(dir.path()), ["00000001.log", "00000002.log"]);
}

#[test]
fn files_with_other_names_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["1.log", "+0000009.log", "README", "00000009.log.copy"] {
        fs::write(dir.path().join(name), "mine").unwrap();
    }
    assert_eq!(replayed(dir.path()).unwrap(), []);
    assert_eq!(names(dir.path()).len(), 5);
}

#[test]
fn bounds_are_refused_before_anything_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    for bad in [record("", "x"), record(&"n".repeat(65), "x"), record(&"n".repeat(300), "x")] {
        assert!(matches!(journal.append(vec![bad]), Err(JournalError::BadRecord { .. })));
    }
    assert!(matches!(
        journal.append(vec![record("a", vec![0; RECORD_BYTES_MAX])]),
        Err(JournalError::BadRecord { .. })
    ));
    let large = record("a", vec![0; RECORD_BYTES_MAX - 3]);
    assert!(journal.append(vec![large.clone(), large.clone(), large]).is_err());
    drop(journal);
    assert_eq!(replayed(dir.path()).unwrap(), []);
}

#[test]
fn a_record_never_prints_its_event() {
    assert_eq!(format!("{:?}", record("outbox", "secret")), "Record(outbox, 6 bytes)");
}

/// What the disk does next: works, has no room for a write, or fails at a write or an fsync.
const WORKS: u8 = 0;
const NO_ROOM: u8 = 1;
const WRITE_FAILS: u8 = 2;
const SYNC_FAILS: u8 = 3;

/// A file in memory whose disk may fail. `NO_ROOM` leaves half of the write behind.
#[derive(Clone, Default)]
struct TestFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    syncs: Arc<AtomicU64>,
    disk: Arc<AtomicU8>,
    /// When the disk is full, how many writes find it so before there is room again.
    full_writes: Arc<AtomicU64>,
}

impl LogFile for TestFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.bytes.lock().unwrap();
        match self.disk.load(Ordering::SeqCst) {
            NO_ROOM => {
                file.extend_from_slice(&bytes[..bytes.len() / 2]);
                if self.full_writes.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.disk.store(WORKS, Ordering::SeqCst);
                }
                Err(io::ErrorKind::StorageFull.into())
            }
            WRITE_FAILS => Err(io::Error::from_raw_os_error(5)),
            _ => {
                file.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
    fn sync(&mut self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.disk.load(Ordering::SeqCst) == SYNC_FAILS { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().truncate(usize::try_from(length).unwrap());
        Ok(())
    }
    fn set_aside(&mut self, _: u64, _: u64) -> io::Result<()> {
        if self.disk.load(Ordering::SeqCst) == NO_ROOM { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl TestFile {
    fn fails(&self, how: u8) {
        self.disk.store(how, Ordering::SeqCst);
        self.full_writes.store(1, Ordering::SeqCst);
    }
    fn len(&self) -> u64 {
        u64::try_from(self.bytes.lock().unwrap().len()).unwrap()
    }
    fn writer(&self, dir: &Path) -> Writer {
        self.bytes.lock().unwrap().extend(record::HEADER);
        let shared = Arc::new(Shared::default());
        Writer { dir: dir.to_path_buf(), number: 1, file: Box::new(self.clone()), good: self.len(), aside: 0, shared }
    }
}

fn append_of(event: &str, when_full: WhenFull) -> (Append, Durable) {
    let (done, answer) = oneshot::channel();
    let mut frames = Vec::new();
    let bytes = record("a", event).write_to(&mut frames).unwrap();
    let by_brain = vec![("a".to_owned(), bytes)];
    (Append { frames, by_brain, when_full, at_leisure: false, done }, Durable { answer })
}

#[test]
fn what_nobody_waits_for_waits_for_company_and_what_somebody_waits_for_does_not() {
    let ages = Duration::from_secs(600);
    let (queue, waiting) = channel();
    let append = |event: &str, at_leisure| Append { at_leisure, ..append_of(event, WhenFull::Wait).0 };
    // It comes later, and is waited for; then nothing is waited for any more.
    let (later, urgent) = (queue.clone(), append("2", false));
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        later.send(Command::Append(urgent)).unwrap();
    });
    assert_eq!(gather(append("1", true), &waiting, ages).0.len(), 2);
    thread.join().unwrap();
    // Nobody comes, and somebody waits.
    assert_eq!(gather(append("3", false), &waiting, ages).0.len(), 1);
    // So many have company enough.
    (1..COMPANY).for_each(|_| queue.send(Command::Append(append("4", true))).unwrap());
    assert_eq!(gather(append("4", true), &waiting, ages).0.len(), COMPANY);
    // Nobody comes within the time.
    assert_eq!(gather(append("5", true), &waiting, Duration::from_millis(1)).0.len(), 1);
}

#[test]
fn all_that_is_queued_goes_into_one_sync_and_is_answered_in_order() {
    let file = TestFile::default();
    let writer = file.writer(Path::new("/nowhere"));
    let (queue, waiting) = channel();
    let mut answers = Vec::new();
    for i in 0..100 {
        let (append, answer) = append_of(&i.to_string(), WhenFull::Refuse);
        writer.shared.queued_bytes.fetch_add(append.charge(), Ordering::SeqCst);
        queue.send(Command::Append(append)).unwrap();
        answers.push(answer);
    }
    drop(queue);
    let shared = writer.shared.clone();
    writer.run(&waiting);
    assert_eq!(file.syncs.load(Ordering::SeqCst), 1);
    answers.into_iter().for_each(|answer| answer.wait().unwrap());
    assert_eq!(shared.queued_bytes.load(Ordering::SeqCst), 0);
    let expected: Vec<_> = (0..100).map(|i| record("a", i.to_string())).collect();
    assert_eq!(*file.bytes.lock().unwrap(), file_of_batches([&expected[..]]).0);
}

#[tokio::test]
async fn appends_are_on_the_disk_in_the_order_of_the_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path()).unwrap();
    let answers = (0..200u32).map(|i| journal.append(vec![record("a", i.to_le_bytes())]).unwrap());
    futures::future::try_join_all(answers.collect::<Vec<_>>()).await.unwrap();
    // An append without records is a barrier: it ends after all before it, and writes nothing.
    let length = fs::metadata(dir.path().join("00000001.log")).unwrap().len();
    journal.append(Vec::new()).unwrap().await.unwrap();
    assert_eq!(fs::metadata(dir.path().join("00000001.log")).unwrap().len(), length);
    drop(journal);
    let order: Vec<_> = replayed(dir.path()).unwrap().into_iter().map(|r| r.event).collect();
    assert_eq!(order, (0..200u32).map(|i| i.to_le_bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_refuses_an_append_and_leaves_nothing_of_it() {
    let file = TestFile::default();
    let mut writer = file.writer(Path::new("/nowhere"));
    let mut write = |event| {
        let (append, answer) = append_of(event, WhenFull::Refuse);
        writer.shared.queued_bytes.fetch_add(append.charge(), Ordering::SeqCst);
        writer.write(vec![append]);
        answer.wait()
    };
    write("before").unwrap();
    file.fails(NO_ROOM);
    let error = write("none of this").unwrap_err();
    assert!(error.is_disk_full() && error.to_string().contains("free some space"), "{error}");
    write("after").unwrap();
    let expected = file_of(&[record("a", "before"), record("a", "after")]).0;
    assert_eq!(*file.bytes.lock().unwrap(), expected);
}

#[test]
fn on_a_full_disk_a_brains_append_waits_and_only_the_others_are_refused() {
    let file = TestFile::default();
    let mut writer = file.writer(Path::new("/nowhere"));
    let (waits, waits_answer) = append_of("waits", WhenFull::Wait);
    let (refused, refused_answer) = append_of("refused", WhenFull::Refuse);
    writer.shared.queued_bytes.store(waits.charge() + refused.charge(), Ordering::SeqCst);
    file.fails(NO_ROOM);
    writer.write(vec![waits, refused]);
    waits_answer.wait().unwrap();
    assert!(refused_answer.wait().unwrap_err().is_disk_full());
    assert_eq!(*file.bytes.lock().unwrap(), file_of(&[record("a", "waits")]).0);
    assert!(!writer.shared.waiting_for_room.load(Ordering::SeqCst));
}

#[test]
fn however_long_the_disk_is_full_a_brains_append_is_never_too_much() {
    let file = TestFile::default();
    let shared = Arc::new(Shared::default());
    file.bytes.lock().unwrap().extend(record::HEADER);
    let (dir, good) = (PathBuf::from("/nowhere"), file.len());
    file.fails(NO_ROOM);
    file.full_writes.store(2, Ordering::SeqCst);
    let writer = Writer { dir, number: 1, file: Box::new(file.clone()), good, aside: 0, shared: shared.clone() };
    let journal = Journal::start(writer, shared).unwrap();
    let large = || vec![record("outbox", vec![1; 2 * 1024 * 1024])];
    let waiting: Vec<_> = (0..40).map(|_| journal.append_waiting(large()).unwrap()).collect();
    let barrier = journal.append_waiting(Vec::new()).unwrap();
    assert!(matches!(journal.append(large()), Err(JournalError::Busy { .. })), "what need not be taken is refused");
    waiting.into_iter().for_each(|answer| answer.wait().unwrap());
    barrier.wait().unwrap();
}

#[tokio::test]
async fn a_journal_says_that_it_is_short_of_room_before_a_write_fails_and_when_there_is_some_again() {
    let file = TestFile::default();
    file.fails(NO_ROOM);
    let writer = file.writer(Path::new("/nowhere"));
    let shared = writer.shared.clone();
    let journal = Journal::start(writer, shared).unwrap();
    let barrier = journal.append(Vec::new()).unwrap();
    barrier.await.unwrap();
    assert!(!journal.has_room().await);
    assert!(!journal.is_waiting_for_room(), "nothing was written, so nothing waits");
    file.fails(WORKS);
    assert!(journal.has_room().await);
    journal.append(vec![record("a", "taken")]).unwrap().await.unwrap();
}

#[test]
fn a_journal_that_closes_does_not_wait_for_room() {
    let file = TestFile::default();
    let mut writer = file.writer(Path::new("/nowhere"));
    writer.shared.closing.store(true, Ordering::SeqCst);
    let (append, answer) = append_of("waits", WhenFull::Wait);
    writer.shared.queued_bytes.store(append.charge(), Ordering::SeqCst);
    file.fails(NO_ROOM);
    writer.write(vec![append]);
    assert!(answer.wait().unwrap_err().is_disk_full());
}

#[test]
fn after_a_failed_write_or_fsync_nothing_is_acknowledged_any_more() {
    for how in [WRITE_FAILS, SYNC_FAILS] {
        let file = TestFile::default();
        let mut writer = file.writer(Path::new("/nowhere"));
        let mut write = |event| {
            let (append, answer) = append_of(event, WhenFull::Wait);
            writer.shared.queued_bytes.fetch_add(append.charge(), Ordering::SeqCst);
            writer.write(vec![append]);
            answer.wait()
        };
        write("before").unwrap();
        file.fails(how);
        let error = write("lost").unwrap_err();
        assert!(matches!(error, JournalError::Poisoned { .. }), "{error}");
        file.fails(WORKS);
        let length = file.len();
        assert_eq!(write("later"), Err(error.clone()));
        assert_eq!(file.len(), length);
        assert_eq!(writer.shared.health(), Err(error));
    }
}

#[test]
fn a_pinned_journal_is_of_one_moment_whatever_is_appended_or_compacted_then() {
    let dir = tempfile::tempdir().unwrap();
    let (pin, second) = (dir.path().join("pin"), dir.path().join("second"));
    let (journal, _) = Journal::open(&dir.path().join("journal")).unwrap();
    let unwaited = journal.append(vec![record("outbox", "1"), record("postbox", "2")]).unwrap();
    let good = journal.pin(&pin).unwrap();
    drop(unwaited);
    journal.append(vec![record("outbox", "3")]).unwrap().wait().unwrap();
    journal.compact("outbox", vec![record("outbox", "live")]).unwrap().wait().unwrap();
    let read = |path: &Path, good| Journal::read_pinned(path, good).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(read(&pin, good), [record("outbox", "1"), record("postbox", "2")]);
    let good = journal.pin(&second).unwrap();
    assert_eq!(read(&second, good), [record("postbox", "2"), record("outbox", "live")]);
    assert!(journal.pin(&second).is_err(), "a name that is taken is not written to");
    assert_eq!(read(&second, good), [record("postbox", "2"), record("outbox", "live")]);
}
