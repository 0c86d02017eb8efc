//! What the kernel tells of threads in /proc.

/// The fields of a thread's `stat` from its state, the third, on, each a blank from the next. A process has the number of its
/// first thread. `None` where there is none.
pub fn stat(thread: u32) -> Option<String> {
    let mut stat = std::fs::read(format!("/proc/{thread}/stat")).ok()?;
    // The name in brackets may have blanks, and bytes of any kind.
    let after_name = stat.iter().rposition(|&byte| byte == b')')? + 2;
    String::from_utf8(stat.split_off(after_name.min(stat.len()))).ok()
}
