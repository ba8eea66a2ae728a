//! Processor time that a process has used, as the kernel counts it. It starts nothing and stops nothing.

use std::fs;

/// What the kernel counts in, a second: the same on every Linux, whatever its clock (proc(5), `USER_HZ`).
const TICKS: f64 = 100.0;

/// Seconds of processor time of a process until now, its own and the kernel's for it; nothing once it is gone.
pub(super) fn seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in brackets, and may hold anything; user and kernel time are the 14th and 15th.
    let mut after_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || after_name.next()?.parse::<u32>().ok();
    Some((f64::from(ticks()?) + f64::from(ticks()?)) / TICKS)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_used_time_and_nobody_none() {
        assert!(super::seconds(std::process::id()).is_some_and(|s| (0.0..1e6).contains(&s)));
        assert_eq!(super::seconds(u32::MAX), None);
    }
}
