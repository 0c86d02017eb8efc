//! Reading the xattrs of files outside the store, whose lengths nobody knows before.

use rustix::io::Errno;

/// More than any kernel gives.
const BYTES_MAX: usize = 1 << 20;

/// The names of which a list is made; none where there cannot be any.
pub(super) fn names(list: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<Vec<u8>>, Errno> {
    let list = match with_growing_buffer(list) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        list => list?,
    };
    let names = list.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// What is read once the buffer is long enough.
pub(super) fn with_growing_buffer(read: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < BYTES_MAX => buffer.resize(buffer.len() * 8, 0),
            Err(errno) => return Err(errno),
        }
    }
}
