//! What a writer's directory should hold, and looking at what it holds.

use super::operation::{Operation, bytes_of};
use super::rng::Rng;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Clone, Debug)]
pub enum Content {
    Directory,
    Symlink(String),
    File(Vec<u8>),
}

/// The number of the writer's directory itself.
pub const ROOT: u64 = 0;

/// A node as an fsync makes it durable.
#[derive(Clone)]
pub struct Synced {
    number: u64,
    node: Option<Node>,
    /// From the top: the directories above it, and itself, each with its name.
    way: Vec<(u64, String, Node)>,
    /// All its names, and the entries of a directory.
    names: Vec<(u64, String)>,
    entries: Vec<(String, u64)>,
}

#[derive(Clone, Debug)]
struct Node {
    content: Content,
    permissions: u32,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// Of the content and the xattrs, while it is known.
    hash: Cell<Option<u64>>,
}

/// One entry as the system calls show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    kind: char,
    permissions: u32,
    size: u64,
    hash: u64,
    /// The number of names it has.
    links: u64,
}

/// Everything below a directory, by path.
pub type Seen = BTreeMap<String, Shown>;

#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Paths and the nodes they lead to.
    entries: BTreeMap<String, u64>,
    nodes: HashMap<u64, Node>,
    last_node: u64,
}

fn hash_of(content: &[u8], xattrs: &BTreeMap<String, Vec<u8>>) -> u64 {
    let mut hash = xxh3_64(content);
    for (name, value) in xattrs {
        hash = hash.rotate_left(9) ^ xxh3_64(name.as_bytes()) ^ xxh3_64(value);
    }
    hash
}

/// The directory and the name of a path.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Model {
    /// The number of what a path leads to.
    pub fn number(&self, path: &str) -> u64 {
        if path.is_empty() { ROOT } else { self.entries[path] }
    }

    fn names(&self, number: u64) -> Vec<(u64, String)> {
        let paths = self.entries.iter().filter(|(_, other)| **other == number);
        paths.map(|(path, _)| (self.number(split(path).0), split(path).1.to_string())).collect()
    }

    fn entries_of(&self, directory: u64) -> Vec<(String, u64)> {
        let inside = self.entries.iter().filter(|(path, _)| self.number(split(path).0) == directory);
        inside.map(|(path, number)| (split(path).1.to_string(), *number)).collect()
    }

    fn is_there(&self, number: u64) -> bool {
        number == ROOT || self.nodes.contains_key(&number)
    }

    fn path_of(&self, number: u64) -> Option<String> {
        match number {
            ROOT => Some(String::new()),
            _ => self.entries.iter().find(|(_, other)| **other == number).map(|(path, _)| path.clone()),
        }
    }

    /// What an fsync of a node makes durable; `None` if it has no name.
    pub fn synced(&self, number: u64) -> Option<Synced> {
        let path = self.path_of(number)?;
        let mut way = Vec::new();
        let ends = path.match_indices('/').map(|(at, _)| at).chain((!path.is_empty()).then_some(path.len()));
        for end in ends {
            let above = &path[..end];
            let number = self.number(above);
            way.push((number, split(above).1.to_string(), self.nodes[&number].clone()));
        }
        let node = self.nodes.get(&number).cloned();
        Some(Synced { number, node, way, names: self.names(number), entries: self.entries_of(number) })
    }

    /// Lays what an fsync made durable over a state before it; false if that cannot be, because the fsync
    /// would have made more durable than the node itself.
    pub fn lay(&mut self, synced: &Synced) -> bool {
        if self.is_there(synced.number) {
            let is_same = self.names(synced.number) == synced.names && self.entries_of(synced.number) == synced.entries;
            if let (true, Some(node)) = (is_same, &synced.node) {
                self.nodes.insert(synced.number, node.clone());
            }
            return is_same;
        }
        if synced.names.len() != 1 || !synced.entries.is_empty() {
            return false;
        }
        let mut path = String::new();
        for (number, name, node) in &synced.way {
            match self.path_of(*number) {
                Some(known) => path = known,
                None => {
                    path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                    if self.entries.insert(path.clone(), *number).is_some() {
                        return false;
                    }
                    self.nodes.insert(*number, node.clone());
                    self.last_node = self.last_node.max(*number);
                }
            }
        }
        true
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn node(&self, path: &str) -> &Node {
        &self.nodes[&self.entries[path]]
    }

    fn node_mut(&mut self, path: &str) -> &mut Node {
        let node = self.nodes.get_mut(&self.entries[path]).expect("every entry has its node");
        node.hash.set(None);
        node
    }

    fn bytes_mut(&mut self, path: &str) -> &mut Vec<u8> {
        match &mut self.node_mut(path).content {
            Content::File(bytes) => bytes,
            other => panic!("{path} is {other:?}"),
        }
    }

    pub fn size(&self, path: &str) -> u64 {
        match &self.node(path).content {
            Content::File(bytes) => bytes.len() as u64,
            _ => 0,
        }
    }

    pub fn is_same(&self, a: &str, b: &str) -> bool {
        a == b || self.entries.contains_key(b) && self.entries[a] == self.entries[b]
    }

    pub fn any(&self, rng: &mut Rng, is_wanted: impl Fn(&Content) -> bool) -> Option<String> {
        let all: Vec<&String> = self
            .entries
            .iter()
            .filter(|(_, node)| is_wanted(&self.nodes[node].content))
            .map(|(path, _)| path)
            .collect();
        if all.is_empty() { None } else { Some(rng.pick(&all).clone()) }
    }

    pub fn any_path(&self, rng: &mut Rng) -> Option<String> {
        self.any(rng, |_| true)
    }

    pub fn any_empty_directory(&self, rng: &mut Rng) -> Option<String> {
        let path = self.any(rng, |content| matches!(content, Content::Directory))?;
        let start = format!("{path}/");
        let is_empty = !self.entries.keys().any(|other| other.starts_with(&start));
        is_empty.then_some(path)
    }

    /// A path that nothing has, in a directory that exists.
    pub fn new_path(&self, rng: &mut Rng) -> Option<String> {
        let parent =
            if rng.percent(50) { self.any(rng, |content| matches!(content, Content::Directory)) } else { None };
        let name = format!("{}{}", if rng.percent(10) { "a somewhat longer name " } else { "n" }, rng.below(100));
        let path = parent.map_or(name.clone(), |parent| format!("{parent}/{name}"));
        (!self.entries.contains_key(&path) && path.matches('/').count() < 4).then_some(path)
    }

    fn add(&mut self, path: &str, permissions: u32, content: Content) {
        self.last_node += 1;
        let node = Node { content, permissions, xattrs: BTreeMap::new(), hash: Cell::new(None) };
        self.nodes.insert(self.last_node, node);
        self.entries.insert(path.to_string(), self.last_node);
    }

    fn remove(&mut self, path: &str) {
        let node = self.entries.remove(path).expect("it is there");
        self.forget_unnamed(node);
    }

    fn forget_unnamed(&mut self, node: u64) {
        if !self.entries.values().any(|other| *other == node) {
            self.nodes.remove(&node);
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if self.entries.contains_key(to) {
            self.remove(to);
        }
        let start = format!("{from}/");
        let moved: Vec<String> =
            self.entries.keys().filter(|path| *path == from || path.starts_with(&start)).cloned().collect();
        for path in moved {
            let node = self.entries.remove(&path).expect("listed above");
            self.entries.insert(format!("{to}{}", &path[from.len()..]), node);
        }
    }

    pub fn apply(&mut self, operation: &Operation) {
        use Operation::*;
        match operation {
            // Tests run with a umask of 022 or 077, and the modes they draw are those of the owner first.
            Create { path, mode } => self.add(path, mode & !umask(), Content::File(Vec::new())),
            MakeDirectory(path) => self.add(path, 0o777 & !umask(), Content::Directory),
            Symlink { target, path } => self.add(path, 0o777, Content::Symlink(target.clone())),
            Link { from, to } => {
                let node = self.entries[from];
                self.entries.insert(to.clone(), node);
            }
            Write { path, offset, len, seed } => {
                let (start, data) = (*offset as usize, bytes_of(*seed, *len));
                let bytes = self.bytes_mut(path);
                let end = start + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(&data);
            }
            Truncate { path, len } => self.bytes_mut(path).resize(*len as usize, 0),
            Punch { path, offset, len } => {
                let bytes = self.bytes_mut(path);
                let end = bytes.len().min((offset + len) as usize);
                bytes[(*offset as usize).min(end)..end].fill(0);
            }
            Copy { from, to, len } => {
                let data = match &self.node(from).content {
                    Content::File(bytes) => bytes[..*len as usize].to_vec(),
                    other => panic!("{from} is {other:?}"),
                };
                let bytes = self.bytes_mut(to);
                if bytes.len() < data.len() {
                    bytes.resize(data.len(), 0);
                }
                bytes[..data.len()].copy_from_slice(&data);
            }
            Rename { from, to } => self.rename(from, to),
            Remove(path) | RemoveDirectory(path) => self.remove(path),
            Mode { path, mode } => self.node_mut(path).permissions = *mode,
            Xattr { path, name, len, seed } => {
                self.node_mut(path).xattrs.insert(name.clone(), bytes_of(*seed, *len));
            }
        }
    }

    fn shown(&self, node: u64, links: u64) -> Shown {
        let Node { content, permissions, xattrs, hash } = &self.nodes[&node];
        let (kind, bytes) = match content {
            Content::Directory => ('d', &[][..]),
            Content::Symlink(target) => ('l', target.as_bytes()),
            Content::File(bytes) => ('f', &bytes[..]),
        };
        let known = hash.get().unwrap_or_else(|| hash_of(bytes, xattrs));
        hash.set(Some(known));
        let size = if kind == 'd' { 0 } else { bytes.len() as u64 };
        Shown { kind, permissions: *permissions, size, hash: known, links: if kind == 'd' { 0 } else { links } }
    }

    /// How the directory should look.
    pub fn seen(&self) -> Seen {
        let mut links: HashMap<u64, u64> = HashMap::new();
        for node in self.entries.values() {
            *links.entry(*node).or_default() += 1;
        }
        self.entries.iter().map(|(path, node)| (path.clone(), self.shown(*node, links[node]))).collect()
    }

    /// Whether the directory looks so; cheap where it does not.
    pub fn matches(&self, seen: &Seen) -> bool {
        self.entries.len() == seen.len() && self.entries.keys().eq(seen.keys()) && self.seen() == *seen
    }
}

fn umask() -> u32 {
    static UMASK: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        line.and_then(|umask| u32::from_str_radix(umask.trim(), 8).ok()).unwrap_or(0o022)
    })
}

/// Everything below a directory of a mount.
pub fn look(root: &Path) -> io::Result<Seen> {
    let mut seen = Seen::new();
    look_in(root, "", &mut seen)?;
    Ok(seen)
}

fn xattrs_of(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names)?;
    let mut xattrs = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8_lossy(name).into_owned();
        let mut value = vec![0; 8192];
        let len = rustix::fs::lgetxattr(path, name.as_str(), &mut value)?;
        value.truncate(len);
        xattrs.insert(name, value);
    }
    Ok(xattrs)
}

fn look_in(root: &Path, relative: &str, seen: &mut Seen) -> io::Result<()> {
    for entry in fs::read_dir(root.join(relative))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let relative = if relative.is_empty() { name } else { format!("{relative}/{name}") };
        let path = root.join(&relative);
        let metadata = fs::symlink_metadata(&path)?;
        let (kind, bytes) = if metadata.is_dir() {
            ('d', Vec::new())
        } else if metadata.is_symlink() {
            ('l', fs::read_link(&path)?.as_os_str().as_encoded_bytes().to_vec())
        } else {
            ('f', fs::read(&path)?)
        };
        let hash = hash_of(&bytes, &xattrs_of(&path)?);
        let (size, links) = if kind == 'd' { (0, 0) } else { (metadata.size(), metadata.nlink()) };
        let permissions = metadata.permissions().mode() & 0o7777;
        seen.insert(relative.clone(), Shown { kind, permissions, size, hash, links });
        if kind == 'd' {
            look_in(root, &relative, seen)?;
        }
    }
    Ok(())
}
