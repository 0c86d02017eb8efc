//! Who may go through which directories. The kernel checks that on every way on which it goes itself; this is for ways that
//! lead into the middle of a tree.

use super::attributes::Attributes;
use super::inode::Inode;
use super::{acl, inode, is_root};
use crate::device::{InodeAt, InodeNo, State};
use crate::error::{Errno, Error, Result};

/// Directories that are looked at for somebody: no path has more.
const WAY_MAX: usize = 2048;

/// Search permission, in each of the three classes.
const SEARCH: u32 = 1;

/// Somebody who asks for something.
pub struct Asker<'a> {
    pub uid: u32,
    /// Whether a group is one of those that the asker is in.
    pub is_in: &'a dyn Fn(u32) -> bool,
}

impl Asker<'_> {
    /// Whether an inode's mode and list let the asker search it; see acl(5).
    fn may_search(&self, state: &State, at: InodeAt, found: &Inode) -> Result<bool> {
        let of_class = |shift: u32| found.permissions() >> shift & SEARCH != 0;
        if self.uid == found.uid {
            return Ok(of_class(6));
        }
        if let Some(list) = acl::load(state, at, acl::ACCESS_LIST)? {
            return Ok(list.lets_search(found.gid, self));
        }
        Ok(if (self.is_in)(found.gid) { of_class(3) } else { of_class(0) })
    }
}

impl Attributes<'_> {
    /// Whether a live inode has an access list, which then says more than its mode.
    pub fn has_access_list(self, number: InodeNo) -> Result<bool> {
        let look = self.tree.device.look()?;
        Ok(acl::load(&look, number.live(), acl::ACCESS_LIST)?.is_some())
    }

    /// EACCES unless the asker may search each directory above one, as they were at a moment.
    pub fn check_way(self, at: InodeAt, asker: &Asker<'_>) -> Result<()> {
        let look = self.tree.device.look()?;
        look.moments().check(at)?;
        if asker.uid == 0 {
            return Ok(());
        }
        let mut at = at;
        let mut found = inode::load(&look, at)?;
        let mut left = WAY_MAX;
        while !is_root(at.inode) {
            // One that never ends, as in a damaged tree, or that takes others' time.
            if left == 0 {
                return Err(Error::Posix(Errno::ACCESS));
            }
            left -= 1;
            at.inode = found.parent;
            found = inode::load(&look, at)?;
            if !asker.may_search(&look, at, &found)? {
                return Err(Error::Posix(Errno::ACCESS));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logstore::Codec;
    use crate::media::TestDir;
    use crate::tree::{Caller, Change, CreateOptions, Kind, New, ROOT, SetXattr, Tree};
    use std::sync::Arc;

    #[test]
    fn every_directory_above_has_to_let_the_asker_through() {
        let options =
            CreateOptions { track_bytes: 16 << 10, codec: Codec::None, uid: 0, gid: 0, mode: 0o755, hash_seed: 1 };
        let dir = Arc::new(TestDir::new());
        Tree::create(dir.clone(), &options).unwrap();
        let tree = Tree::open(dir).unwrap();
        let mut parent = ROOT;
        let mut made = Vec::new();
        for name in [b"a", b"b", b"c"] {
            let new = New { kind: Kind::Directory, permissions: 0o755, rdev: 0, target: b"" };
            parent = tree.names().make(Caller { uid: 1000, gid: 100, umask: 0 }, parent, name, new).unwrap().0;
            made.push(parent);
        }
        let may = |uid, groups: &'static [u32]| {
            let asker = Asker { uid, is_in: &|group| groups.contains(&group) };
            match tree.attributes().check_way(made[2].live(), &asker) {
                Ok(()) => true,
                Err(Error::Posix(Errno::ACCESS)) => false,
                Err(error) => panic!("{error}"),
            }
        };
        let set =
            |mode| tree.attributes().change(made[1], Change { permissions: Some(mode), ..Change::default() }).unwrap();
        assert!(may(1, &[]) && may(0, &[]) && may(1000, &[]));
        for (mode, owner, member, other) in [
            (0o700, true, false, false),
            (0o710, true, true, false),
            (0o701, true, false, true),
            (0o070, false, true, false),
            (0o666, false, false, false),
        ] {
            set(mode);
            assert_eq!((may(1000, &[100]), may(1, &[100]), may(1, &[1])), (owner, member, other), "{mode:o}");
            assert!(may(0, &[]));
        }
        // User 7 and group 8 may; the owner's group and others may not, and all named ones only as far as the mask lets them.
        let list = |mask: u16| {
            let mut list = 2u32.to_le_bytes().to_vec();
            for (tag, permissions, id) in [
                (1u16, 7u16, u32::MAX),
                (2, 1, 7),
                (4, 0, u32::MAX),
                (8, 1, 8),
                (16, mask, u32::MAX),
                (32, 0, u32::MAX),
            ] {
                list.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
            }
            list
        };
        for (mask, named) in [(7, true), (6, false)] {
            tree.attributes().set_xattr(made[1], acl::ACCESS_LIST, &list(mask), SetXattr::default()).unwrap();
            assert_eq!((may(7, &[]), may(1, &[8]), may(1, &[100, 8])), (named, named, named), "{mask}");
            assert!(!may(1, &[100]) && !may(1, &[]) && may(1000, &[]));
        }
        // The directory itself is left to whoever enters it.
        set(0o755);
        tree.attributes().change(made[2], Change { permissions: Some(0), ..Change::default() }).unwrap();
        assert!(may(7, &[]));
    }
}
