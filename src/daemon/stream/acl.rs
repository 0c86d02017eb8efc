//! Access lists as text, as acl(5) has them in their short form: `user::rwx,user:1000:r-x,…`, and as Linux stores them.

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// With numbers for users and groups; nothing for what is no list.
pub fn to_text(stored: &[u8]) -> Option<String> {
    let (version, rest) = stored.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let entry = |entry: &[u8]| {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let who = match tag {
            USER_OBJ => "user:".to_string(),
            USER => format!("user:{id}"),
            GROUP_OBJ => "group:".to_string(),
            GROUP => format!("group:{id}"),
            MASK => "mask:".to_string(),
            OTHER => "other:".to_string(),
            _ => return None,
        };
        let may = |bit, letter| if permissions & bit != 0 { letter } else { '-' };
        Some(format!("{who}:{}{}{}", may(4, 'r'), may(2, 'w'), may(1, 'x')))
    };
    let entries: Option<Vec<String>> = rest.chunks_exact(8).map(entry).collect();
    Some(entries?.join(","))
}

/// A list as Linux stores it; the entry that makes no sense otherwise, or whose user or group nobody knows here.
pub fn of_text(text: &str) -> Result<Vec<u8>, String> {
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for entry in text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty() && !entry.starts_with('#')) {
        let wrong = || format!("the entry {entry:?} of its access list makes no sense here");
        // A fourth part, as star writes it, is the number of the name in the second.
        let parts: Vec<&str> = entry.split(':').collect();
        let [what, name, permissions, number @ ..] = parts.as_slice() else { return Err(wrong()) };
        let id = |file| match (name.parse(), number.first().map(|number| number.parse())) {
            (Ok(id), _) => Some(id),
            (Err(_), Some(Ok(id))) => named(file, name).or(Some(id)),
            (Err(_), _) => named(file, name),
        };
        let (tag, id) = match (*what, name.is_empty()) {
            ("user" | "u", true) => (USER_OBJ, Some(NO_ID)),
            ("user" | "u", false) => (USER, id("/etc/passwd")),
            ("group" | "g", true) => (GROUP_OBJ, Some(NO_ID)),
            ("group" | "g", false) => (GROUP, id("/etc/group")),
            ("mask" | "m", true) => (MASK, Some(NO_ID)),
            ("other" | "o", true) => (OTHER, Some(NO_ID)),
            _ => return Err(wrong()),
        };
        let bit = |letter| match letter {
            'r' => Ok(4),
            'w' => Ok(2),
            'x' => Ok(1),
            '-' => Ok(0),
            _ => Err(wrong()),
        };
        let mut bits = 0;
        for letter in permissions.chars() {
            bits |= bit(letter)?;
        }
        entries.push((tag, id.ok_or_else(wrong)?, bits));
    }
    // In the order in which the kernel wants them.
    entries.sort_unstable();
    let stored = entries.iter().flat_map(|(tag, id, permissions)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    Ok(VERSION.to_le_bytes().into_iter().chain(stored).collect())
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
