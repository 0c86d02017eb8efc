//! Whether segments lie where nothing else does: nothing is written to a segment, and no room given back, before that is known.
//!
//! It is looked at piece by piece after a store was opened, since that takes longer the more is stored. Whoever wants to write before
//! it is over looks at the rest.

use super::{Descriptor, LogStore};
use crate::error::{Error, Result};
use crate::meta::{Meta, Table};

/// How far looking has come.
#[derive(Default)]
pub(super) struct Places {
    /// Where it goes on in the table of segments.
    cursor: Vec<u8>,
    /// Physical segments, and whose they are.
    seen: Vec<(u32, u64)>,
    is_over: bool,
    /// What is wrong, if anything is.
    damage: Option<(String, String)>,
}

/// The segments from a key on, and what the descriptor of each says.
pub(super) fn descriptors<'a>(
    meta: &'a Meta,
    from: &[u8],
) -> Result<impl Iterator<Item = Result<(u64, Result<Descriptor>)>> + use<'a>> {
    Ok(meta.range(Table::Segment, from, &[u8::MAX; 9])?.map(|pair| {
        let (key, value) = pair?;
        let id = <[u8; 8]>::try_from(key.as_slice())
            .map_err(|_| Error::corrupt("a segment's descriptor", "its key has the wrong length"))?;
        Ok((u64::from_be_bytes(id), crate::meta::decode(Table::Segment, &key, &value)))
    }))
}

impl LogStore {
    /// Looks at some more segments; whether all have been looked at. An error if two lie at one place, or one where nothing
    /// may, now and whenever it is asked again.
    pub fn check_places(&self, meta: &Meta, most: usize) -> Result<bool> {
        let mut places = self.places.lock();
        if let Some((object, problem)) = &places.damage {
            return Err(Error::corrupt(object.clone(), problem.clone()));
        }
        if places.is_over {
            return Ok(true);
        }
        let looked = self.look_at_places(meta, &mut places, most);
        if let Err(Error::Corrupt { object, problem }) = &looked {
            places.damage = Some((object.clone(), problem.clone()));
        }
        looked?;
        Ok(places.is_over)
    }

    /// Whether all have been looked at, and are well.
    pub fn knows_places(&self) -> bool {
        self.places.lock().is_over
    }

    pub(super) fn check_all_places(&self, meta: &Meta) -> Result<()> {
        self.check_places(meta, usize::MAX).map(|_| ())
    }

    fn look_at_places(&self, meta: &Meta, places: &mut Places, most: usize) -> Result<()> {
        if places.cursor.is_empty() && !self.volume.is_taken(meta, 0)? {
            return Err(Error::corrupt("the map of room of volume 0", "it says that the room of the label is free"));
        }
        let mut looked = 0;
        for found in descriptors(meta, &places.cursor)?.take(most) {
            let (id, descriptor) = found?;
            looked += 1;
            // One that cannot be read is not written to either.
            if let Ok(members) = descriptor.and_then(|descriptor| descriptor.checked_members(id)) {
                let psegs = members.iter().flat_map(|member| member.psegs.iter().copied());
                for pseg in psegs.clone() {
                    if pseg == 0 || !self.volume.is_taken(meta, pseg)? {
                        let whose = if pseg == 0 { "is that of the label" } else { "is free by the map of room" };
                        return Err(Error::corrupt(format!("segment {id}"), format!("its room at {pseg} {whose}")));
                    }
                }
                places.seen.extend(psegs.map(|pseg| (pseg, id)));
            }
            // Whatever fails, a segment is done as a whole or looked at again.
            places.cursor = [&id.to_be_bytes()[..], &[0]].concat();
        }
        if looked == most {
            return Ok(());
        }
        places.seen.sort_unstable();
        // One that was given up meanwhile has its room no more.
        let is_there = |id: u64| meta.contains(Table::Segment, &id.to_be_bytes());
        for pair in places.seen.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
            if is_there(pair[0].1)? && is_there(pair[1].1)? {
                let problem = format!("its room at {} is that of segment {} as well", pair[0].0, pair[0].1);
                return Err(Error::corrupt(format!("segment {}", pair[1].1), problem));
            }
        }
        (places.is_over, places.seen) = (true, Vec::new());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::logstore::Codec;
    use crate::media::{MediaDir, TestDir};
    use crate::meta::Kv;
    use std::sync::Arc;

    #[test]
    fn nothing_is_written_before_all_was_looked_at() {
        let dir = TestDir::new();
        let kv = Kv::create(dir.open("meta.redb", true).unwrap(), None).unwrap();
        let mut meta = Meta::new(&kv).unwrap();
        let store = Id::random();
        LogStore::create(&dir, &mut meta, store).unwrap();
        let open = |meta: &Meta| LogStore::open(Arc::new(dir.clone()), meta, store, Codec::None, 1 << 16).unwrap();
        let log = open(&meta);
        log.reserve(&mut meta, 400).unwrap();
        log.freeze(&mut meta).unwrap();
        let all: Vec<_> = log.descriptors(&meta).unwrap().map(|found| found.unwrap()).collect();
        assert!(all.len() > 2, "{}", all.len());
        let log = open(&meta);
        let in_steps = |log: &LogStore, meta: &Meta| {
            (0..=all.len() + 1).map(|_| log.check_places(meta, 1)).find(|looked| !matches!(looked, Ok(false))).unwrap()
        };
        assert!(in_steps(&log, &meta).unwrap());
        log.reserve(&mut meta, 200).unwrap();
        let (last, first) = (all[all.len() - 1].0, all[0].1.as_ref().unwrap());
        meta.put(Table::Segment, &(last + 1).to_be_bytes(), first);
        let log = open(&meta);
        for looked in [in_steps(&log, &meta).map(|_| ()), log.reserve(&mut meta, 1), log.check_all_places(&meta)] {
            assert!(matches!(looked, Err(Error::Corrupt { .. })), "{looked:?}");
        }
        // Whoever writes first looks at the rest.
        let log = open(&meta);
        assert!(!log.check_places(&meta, 1).unwrap());
        assert!(matches!(log.reserve(&mut meta, 1), Err(Error::Corrupt { .. })));
    }
}
