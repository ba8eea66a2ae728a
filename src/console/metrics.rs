//! `/metrics`: what the brains show of themselves as Prometheus reads it, made anew for each scrape. Between scrapes it costs
//! nothing. Names end in their unit; counters count from the start of the process.

use std::collections::BTreeMap;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use super::seen::Seen;

/// `Content-Type` of what [`text`] gives.
pub(super) const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of one series.
type Labels = Vec<(String, String)>;

/// Registers one metric after the other.
struct Scrape(Registry);

impl Scrape {
    fn gauge(&mut self, name: &str, help: &str, value: impl TryInto<i64>) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        self.0.register(name, help, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, value: f64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    /// `name` gets `_total` behind it.
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn gauges<V: TryInto<i64>>(&mut self, name: &str, help: &str, label: &str, series: Vec<(String, V)>) {
        let family = Family::<Labels, Gauge>::default();
        for (value, count) in series {
            family.get_or_create(&vec![(label.to_owned(), value)]).set(count.try_into().unwrap_or(i64::MAX));
        }
        self.0.register(name, help, family);
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, series: Vec<(String, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (value, count) in series {
            family.get_or_create(&vec![(label.to_owned(), value)]).inc_by(count);
        }
        self.0.register(name, help, family);
    }
}

/// What a scrape gets.
pub(super) fn text(seen: &Seen) -> String {
    let mut scrape = Scrape(Registry::with_prefix("roost"));
    peer(&mut scrape, seen);
    outbox(&mut scrape, seen);
    mirror(&mut scrape, seen);
    group(&mut scrape, seen);
    fetch(&mut scrape, seen);
    postbox(&mut scrape, seen);
    dht(&mut scrape, seen);
    let mut text = String::new();
    match encode(&mut text, &scrape.0) {
        Ok(()) => text,
        Err(error) => format!("# the metrics cannot be written: {error}\n# EOF\n"),
    }
}

fn peer(scrape: &mut Scrape, seen: &Seen) {
    let build = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    scrape.0.register("build", "What this peer runs", Info::new(build));
    let started = std::time::Duration::from_millis(seen.started.0).as_secs_f64();
    scrape.seconds("start_time_seconds", "When this peer started, since 1970", started);
    scrape.gauge("attention_sentences", "Things that need attention: see roost status", seen.attention.len());
    let help = "Bytes of mails, parts and manifests that were served to others";
    scrape.counter("served_bytes", help, seen.served_bytes);
    scrape.gauge("journal_bytes", "Bytes of the journal's records", seen.journal_bytes);
    scrape.gauge("journal_failed", "1 when the journal takes nothing any more", i64::from(seen.journal_failed));
    let is_full = i64::from(!seen.disk_full.is_empty());
    scrape.gauge("disk_full", "1 while a store of this peer has no room on the disk", is_full);
    let full = seen.disk_full.iter().map(|full| (full.store.clone(), 1)).collect();
    scrape.gauges("disk_full_store", "1 for each store that has no room on the disk", "store", full);
    scrape.gauge("index_rebuilt", "1 when the index was rebuilt at this start", i64::from(seen.index_rebuilt));
}

fn outbox(scrape: &mut Scrape, seen: &Seen) {
    let outbox = &seen.outbox;
    scrape.gauge("outbox_waiting_submissions", "Submissions that wait", outbox.waiting);
    scrape.gauge("outbox_mails", "Sealed mails that are not freed", outbox.mails);
    let by_safe = outbox.by_safe.iter().map(|(safe, mails)| (safe.to_string(), *mails)).collect();
    scrape.gauges("outbox_safe_mails", "Sealed mails by how many more members can be lost", "safe", by_safe);
    scrape.gauge("outbox_unsafe_mails", "Sealed mails that only this peer can give", outbox.unsafe_mails);
    scrape.gauge("outbox_missing_mails", "Sealed mails that this disk has lost", outbox.missing_mails);
    let ended = outbox.ended.iter().map(|(ending, mails)| (format!("{ending:?}").to_lowercase(), *mails)).collect();
    scrape.gauges("outbox_tombstones", "Own mails that are gone and still listed, by why", "ending", ended);
    let missed = outbox.audits_missed.iter().map(|(member, n)| (member.to_string(), *n)).collect();
    let help = "Audits in which a member could not show a block that it had confirmed";
    scrape.counters("outbox_audits_missed", help, "member", missed);
    scrape.gauge("own_bytes", "Bytes of own sealed mail on disk", seen.own_bytes);
}

fn mirror(scrape: &mut Scrape, seen: &Seen) {
    let owners = &seen.replicator.owners;
    let bytes = owners.iter().map(|owner| (owner.address.to_string(), owner.bytes)).collect();
    let parts = owners.iter().map(|owner| (owner.address.to_string(), owner.parts)).collect();
    let wanted = owners.iter().map(|owner| (owner.address.to_string(), owner.wanted)).collect();
    scrape.gauge("mirror_bytes", "Bytes of other members' mail on disk", seen.mirror_bytes);
    scrape.gauges("mirror_owner_bytes", "Bytes held for a member", "owner", bytes);
    scrape.gauges("mirror_owner_parts", "Parts held for a member", "owner", parts);
    scrape.gauges("mirror_owner_wanted_parts", "Parts that are to be pulled", "owner", wanted);
    scrape.gauge("mirror_degraded_mails", "Mails whose parts have no spare member", seen.replicator.degraded);
    scrape.gauge("mirror_pulls", "Parts that are being pulled", seen.replicator.under_way);
    let conflicts: usize = owners.iter().map(|owner| owner.conflicts.len()).sum();
    scrape.gauge("mirror_conflicts", "Members' lists that contradict themselves", conflicts);
}

fn group(scrape: &mut Scrape, seen: &Seen) {
    let group = &seen.group;
    let others = || group.members.iter().filter(|m| m.peer_id != group.peer_id);
    scrape.gauge("group_members", "Members, this peer counted", group.members.len());
    let up = others().filter(|m| m.up.unwrap_or(!m.lost)).count();
    scrape.gauge("group_up_members", "Other members that answer", up);
    let series = others().map(|m| (m.address.to_string(), i64::from(m.up.unwrap_or(!m.lost)))).collect();
    scrape.gauges("member_up", "1 when a member answers", "member", series);
    let series = others().map(|m| (m.address.to_string(), i64::from(m.lost))).collect();
    scrape.gauges("member_lost", "1 when the acting master calls a member lost", "member", series);
    scrape.gauge("group_degraded", "1 when the group is too small for its policy", i64::from(seen.degraded));
    scrape.gauge("group_conflicts", "Groups with several candidates", group.conflicts.len());
    scrape.seconds("clock_offset_seconds", "This clock against the members' median", offset_s(group.clock_offset_ms));
    scrape.gauge("clock_off", "1 when this clock is so wrong that nothing expires", i64::from(group.clock_off));
}

fn offset_s(ms: i64) -> f64 {
    let s = std::time::Duration::from_millis(ms.unsigned_abs()).as_secs_f64();
    if ms < 0 { -s } else { s }
}

fn fetch(scrape: &mut Scrape, seen: &Seen) {
    let fetch = &seen.fetch;
    scrape.gauge("fetch_pulls", "Mails that are being pulled", fetch.under_way.len());
    scrape.gauge("fetch_waiting_pulls", "Pulls that wait for others", fetch.waiting);
    scrape.counter("fetch_whole_pulls", "Pulls that ended with the mail", fetch.totals.whole);
    scrape.counter("fetch_failed_pulls", "Pulls that ended without the mail", fetch.totals.failed);
    scrape.counter("fetch_bytes", "Verified bytes that were pulled", fetch.totals.bytes);
    let liars: BTreeMap<String, u64> = fetch.liars.iter().map(|(id, times)| (seen.name(id), *times)).collect();
    let help = "Wrong blocks that a peer served";
    scrape.counters("fetch_bad_blocks", help, "peer", liars.into_iter().collect());
}

fn postbox(scrape: &mut Scrape, seen: &Seen) {
    let postbox = &seen.postbox;
    scrape.gauge("postbox_messages", "Messages in all mailboxes, copies counted once", postbox.messages);
    scrape.gauge("postbox_stubs", "Messages whose body is not here", postbox.stubs);
    scrape.gauge("postbox_requests", "First mails that wait for consent", postbox.requests);
    scrape.gauge("postbox_open_answers", "nr that no sender took yet", postbox.nr_open);
    scrape.gauge("postbox_damaged_messages", "Messages whose files are missing on this disk", postbox.damaged);
    scrape.counter("postbox_mismatches", "Mails that did not fit their ns", postbox.mismatches);
}

fn dht(scrape: &mut Scrape, seen: &Seen) {
    let dht = &seen.dht;
    scrape.gauge("dht_peers", "Peers that are connected", dht.peers);
    scrape.gauge("dht_keys", "Keys in this peer's share", dht.keys);
    scrape.gauge("dht_entries", "Entries in this peer's share", dht.entries);
    scrape.gauge("dht_tombstones", "Deletions in this peer's share", dht.tombstones);
    scrape.gauge("dht_bytes", "Bytes of this peer's share", dht.bytes);
    scrape.counter("dht_served", "Operations answered for others", dht.served);
    scrape.counter("dht_requests", "Requests sent to others", dht.requests);
    scrape.counter("dht_look_ups", "Look-ups of the closest peers", dht.look_ups);
    scrape.counter("dht_carried", "Entries put again for others", dht.carried);
    let refused = dht.refused.iter().map(|(why, times)| (why.clone(), *times)).collect();
    scrape.counters("dht_refused", "Operations refused to others, by why", "why", refused);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The names that a scrape has, each family with at least one series.
    fn names() -> BTreeSet<String> {
        let text = text(&Seen::for_tests());
        assert!(text.ends_with("# EOF\n"), "{text}");
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        text.lines().filter(|line| !line.starts_with('#')).map(name).collect()
    }

    #[test]
    fn every_name_begins_with_roost_and_counters_say_that_they_count() {
        let names = names();
        assert!(names.len() > 40, "{names:?}");
        assert!(names.iter().all(|name| name.starts_with("roost_")), "{names:?}");
        for name in ["roost_build_info", "roost_outbox_unsafe_mails", "roost_fetch_bad_blocks_total", "roost_own_bytes"]
        {
            assert!(names.contains(name), "{name}: {names:?}");
        }
    }

    #[test]
    fn ops_names_only_metrics_that_are_exported() {
        let names = names();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("ops");
        let mut found = 0;
        let mut wrong = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            for word in words.filter(|word| word.starts_with("roost_")) {
                found += 1;
                if !names.contains(word) {
                    wrong.push(format!("{}: {word}", entry.path().display()));
                }
            }
        }
        assert!(wrong.is_empty(), "these are not exported: {wrong:#?}");
        assert!(found > 10, "ops/ names {found} metrics");
    }

    #[test]
    fn what_a_stranger_calls_itself_stays_inside_of_its_label() {
        let mut scrape = Scrape(Registry::with_prefix("roost"));
        scrape.counters("x", "x", "peer", vec![("a\"} 1\nevil".to_owned(), 2)]);
        let mut text = String::new();
        encode(&mut text, &scrape.0).unwrap();
        assert!(text.contains("roost_x_total{peer=\"a\\\"} 1\\nevil\"} 2\n"), "{text}");
    }
}
