//! What the kernel tells of threads in /proc.

use std::str::FromStr;

/// Numbers of fields of `stat`, as proc(5) counts them.
pub const STATE: usize = 3;
pub const USER_TICKS: usize = 14;
pub const SYSTEM_TICKS: usize = 15;
pub const PROCESSOR: usize = 39;
pub const POLICY: usize = 41;

/// A field of a thread's `stat`, from its state on. A process has the number of its first thread. `None` where there is none.
pub fn field<T: FromStr>(thread: u32, number: usize) -> Option<T> {
    stat(thread)?.trim_end().split(' ').nth(number.checked_sub(STATE)?)?.parse().ok()
}

/// The fields from the state on, each a blank from the next.
fn stat(thread: u32) -> Option<String> {
    let mut stat = std::fs::read(format!("/proc/{thread}/stat")).ok()?;
    // The name in brackets may have blanks, and bytes of any kind.
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 2;
    String::from_utf8(stat.split_off(after_name.min(stat.len()))).ok()
}
