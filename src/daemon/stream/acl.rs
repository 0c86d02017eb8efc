//! Access lists as text, as acl(5) has them in their short form: `user::rwx,user:1000:r-x,…`.

use crate::tree::{ACCESS_LIST, Acl, AclEntry, AclTag, DEFAULT_LIST, NO_ID};

/// The records that have lists, each with the xattr in which Linux has that.
pub const RECORDS: [(&[u8], &[u8]); 2] = [(b"SCHILY.acl.access", ACCESS_LIST), (b"SCHILY.acl.default", DEFAULT_LIST)];

/// With numbers for users and groups; nothing for what is no list.
pub fn to_text(stored: &[u8]) -> Option<String> {
    let entry = |entry: &AclEntry| {
        let AclEntry { tag, permissions, id } = *entry;
        let who = match tag {
            AclTag::UserObj => "user:".to_string(),
            AclTag::User => format!("user:{id}"),
            AclTag::GroupObj => "group:".to_string(),
            AclTag::Group => format!("group:{id}"),
            AclTag::Mask => "mask:".to_string(),
            AclTag::Other => "other:".to_string(),
        };
        let may = |bit, letter| if permissions & bit != 0 { letter } else { '-' };
        format!("{who}:{}{}{}", may(4, 'r'), may(2, 'w'), may(1, 'x'))
    };
    let list = Acl::decode(stored).ok()?;
    Some(list.entries().iter().map(entry).collect::<Vec<String>>().join(","))
}

/// A list as Linux stores it; the entry that makes no sense otherwise, or whose user or group nobody knows here.
pub fn of_text(text: &str) -> Result<Vec<u8>, String> {
    let mut entries = Vec::new();
    for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty() && !entry.starts_with('#')) {
        let wrong = || format!("the entry {entry:?} of its access list makes no sense here");
        // A fourth part, as star writes it, is the number of the name in the second.
        let parts: Vec<&str> = entry.split(':').collect();
        let [what, name, letters, number @ ..] = parts.as_slice() else { return Err(wrong()) };
        let id = |file| match (name.parse(), number.first().map(|number| number.parse())) {
            (Ok(id), _) => Some(id),
            (Err(_), Some(Ok(id))) => named(file, name).or(Some(id)),
            (Err(_), _) => named(file, name),
        };
        let (tag, id) = match (*what, name.is_empty()) {
            ("user" | "u", true) => (AclTag::UserObj, Some(NO_ID)),
            ("user" | "u", false) => (AclTag::User, id("/etc/passwd")),
            ("group" | "g", true) => (AclTag::GroupObj, Some(NO_ID)),
            ("group" | "g", false) => (AclTag::Group, id("/etc/group")),
            ("mask" | "m", true) => (AclTag::Mask, Some(NO_ID)),
            ("other" | "o", true) => (AclTag::Other, Some(NO_ID)),
            _ => return Err(wrong()),
        };
        let bit = |letter| match letter {
            'r' => Ok(4),
            'w' => Ok(2),
            'x' => Ok(1),
            '-' => Ok(0),
            _ => Err(wrong()),
        };
        let mut permissions = 0;
        for letter in letters.chars() {
            permissions |= bit(letter)?;
        }
        entries.push(AclEntry { tag, permissions, id: id.ok_or_else(wrong)? });
    }
    Ok(Acl::of(entries).encode())
}

/// The number of a user or group, by the system's file of them.
fn named(file: &str, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split(':');
        (words.next()? == name).then(|| words.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_back_as_they_were() {
        let text = "user::rwx,user:1000:r-x,group::r-x,group:7:---,mask::rwx,other::r--";
        let stored = of_text(text).unwrap();
        assert_eq!(stored.len(), 4 + 6 * 8);
        assert_eq!(to_text(&stored).unwrap(), text);
        assert_eq!(of_text("other::r--\ngroup::r-x\nuser:root:rw-\nuser::rwx\nmask::rwx\n").unwrap()[12..14], [2, 0]);
        assert_eq!(of_text("user:nobody-here:rwx:77,user::r--").unwrap()[16..20], 77u32.to_le_bytes());
        for wrong in ["user", "user::rwz", "user:nobody-here:rwx", "x::r--"] {
            assert!(of_text(wrong).is_err(), "{wrong}");
        }
    }
}
