//! What people would see, told with real peers on this machine: one scenario a file, in the words of the design.

#[cfg(test)]
mod altered_blocks;
#[cfg(test)]
mod audits;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bench_lookup;
#[cfg(test)]
mod bench_outbox;
#[cfg(test)]
mod bench_receive;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod candidates;
#[cfg(test)]
mod cluster_again;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod consent;
#[cfg(test)]
mod console;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod drill;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod every_choice;
#[cfg(test)]
mod false_lists;
#[cfg(test)]
mod from_scripts;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod gone_mail;
#[cfg(test)]
mod group_life;
#[cfg(test)]
mod group_switched_off;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile_parts;
#[cfg(test)]
mod impossible_policies;
#[cfg(test)]
mod index_deleted;
#[cfg(test)]
mod joined_since;
#[cfg(test)]
mod killed_after_yes;
#[cfg(test)]
mod leaving_without_spare;
#[cfg(test)]
mod little_memory;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod mailing;
#[cfg(test)]
mod master_killed;
#[cfg(test)]
mod member_lost;
#[cfg(test)]
mod member_reads;
#[cfg(test)]
mod notice_bombs;
#[cfg(test)]
mod outsider_reads;
#[cfg(test)]
mod partition;
#[cfg(test)]
mod policy_changed;
#[cfg(test)]
mod private_addresses;
#[cfg(test)]
mod quota;
#[cfg(test)]
mod reach;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod replication_bench;
#[cfg(test)]
mod restored_after_total_loss;
#[cfg(test)]
mod restored_owner;
#[cfg(test)]
mod signed_changes;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod stores_full;
#[cfg(test)]
mod taken_back;
#[cfg(test)]
mod too_many_killed;
