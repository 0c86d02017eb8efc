//! Handing notifications to the kernel.

use super::Outcome;
use crate::error::Errno;
use crate::fuse::REQUEST_BYTES;
use crate::fuse::connection::Connection;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use std::io;

const FORGET: u32 = 2;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// A message is the notification as the kernel takes it.
pub(super) fn tell(device: BorrowedFd<'_>, message: &[u8]) -> Outcome {
    loop {
        match rustix::io::write(device, message) {
            Err(Errno::INTR) => {}
            result => return (result.map(|_| ()), 0),
        }
    }
}

/// Waits for the end of the daemon, and then ends the connection: a notification may be waiting for what the daemon had taken,
/// through a ring as well. Where that is not to be had, it refuses what was left unread.
pub(super) fn watch(
    socket: BorrowedFd<'static>,
    device: BorrowedFd<'static>,
    connection: Option<Connection>,
) -> io::Result<()> {
    let refuse = move || {
        loop {
            // No event but the end of the other side is asked for.
            match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::empty())], None) {
                Err(Errno::INTR) | Ok(0) => {}
                Ok(_) => break,
                Err(_) => return,
            }
        }
        if !connection.is_some_and(|connection| connection.abort(device)) {
            refuse_all(device);
        }
    };
    crate::fuse::thread::begin("watch", refuse).map(|_| ())
}

fn refuse_all(device: BorrowedFd<'_>) {
    // Smaller ones the kernel does not take.
    let mut request = vec![0; REQUEST_BYTES as usize + (64 << 10)];
    loop {
        let count = match rustix::io::read(device, &mut *request) {
            Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => continue,
            // The connection has ended.
            Err(_) => return,
            Ok(count) => count,
        };
        if let Some(refusal) = refusal(&request[..count]) {
            // Whoever waited may be gone.
            let _is_refused = rustix::io::write(device, &refusal);
        }
    }
}

/// The answer to a request whose daemon is gone; none to one that expects none.
fn refusal(request: &[u8]) -> Option<[u8; 16]> {
    let operation = u32::from_ne_bytes(*request.get(4..)?.first_chunk()?);
    let unique: [u8; 8] = *request.get(8..)?.first_chunk()?;
    if [FORGET, INTERRUPT, BATCH_FORGET].contains(&operation) {
        return None;
    }
    let mut answer = [0; 16];
    answer[..4].copy_from_slice(&16u32.to_ne_bytes());
    answer[4..8].copy_from_slice(&(-Errno::NOTCONN.raw_os_error()).to_ne_bytes());
    answer[8..].copy_from_slice(&unique);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_refused_by_their_number_and_forgets_are_not_answered() {
        let request =
            |operation: u32| [&40u32.to_ne_bytes()[..], &operation.to_ne_bytes(), &77u64.to_ne_bytes()].concat();
        let answer = refusal(&request(15)).unwrap();
        assert_eq!(answer[8..], 77u64.to_ne_bytes());
        assert_eq!(i32::from_ne_bytes(*answer[4..].first_chunk().unwrap()), -Errno::NOTCONN.raw_os_error());
        for operation in [FORGET, INTERRUPT, BATCH_FORGET] {
            assert_eq!(refusal(&request(operation)), None);
        }
        assert_eq!(refusal(b"short"), None);
    }
}
