//! What a change is called, and by which name what it was done to went.

use std::collections::{BTreeMap, HashMap};

use crate::types::{AttrChange, DeviceId, DeviceNames, EntryId, FileId, Kind, Name, Op, OpId};

/// Names that are remembered. Beyond, they are forgotten, and what is done to them later is told
/// without one.
const NAMES_MAX: usize = 1 << 20;
/// Directories above a file; a circle ends there.
const DEPTH_MAX: usize = 4096;

/// What was done, to what.
pub(super) struct Said {
    pub action: &'static str,
    pub path: Option<String>,
    pub from: Option<String>,
    pub detail: String,
    pub file: Option<FileId>,
}

/// Follows names through the journals.
pub(super) struct Wording {
    names: DeviceNames,
    devices: BTreeMap<u16, DeviceId>,
    places: HashMap<EntryId, (FileId, Name)>,
    /// Of files that have had several names: those that they have, and what each stands for.
    names_of: HashMap<FileId, Vec<EntryId>>,
    links: HashMap<EntryId, FileId>,
}

impl Wording {
    pub fn new(names: DeviceNames, devices: BTreeMap<u16, DeviceId>) -> Self {
        let (places, names_of, links) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { names, devices, places, names_of, links }
    }

    /// Puts an op into words; `None` if it changes nothing that anybody sees. What is void does
    /// not move names.
    pub fn say(&mut self, id: OpId, op: &Op, void: bool) -> Option<Said> {
        let said = |action, path, detail: String, file| {
            Some(Said { action, path, from: None, detail, file })
        };
        match op {
            Op::Found { settings, .. } => said("found", None, settings.name.clone(), None),
            Op::Make { parent, name, kind, .. } => {
                self.put(EntryId(id), *parent, name, void);
                let path = self.below(*parent, name);
                said("make", Some(path), kind_name(kind).into(), Some(FileId(id)))
            }
            Op::Link { parent, name, file } => {
                let to = self.path_of(*file).unwrap_or_else(unknown);
                self.put(EntryId(id), *parent, name, void);
                if !void {
                    self.links.insert(EntryId(id), *file);
                    let first = || vec![EntryId(file.0)];
                    self.names_of.entry(*file).or_insert_with(first).push(EntryId(id));
                }
                said("link", Some(self.below(*parent, name)), format!("to {to}"), Some(*file))
            }
            Op::Write { file, size_bytes, interim, .. } => {
                let unfinished = if *interim { ", still being written" } else { "" };
                let detail = format!("{size_bytes} bytes{unfinished}");
                said("write", self.path_of(*file), detail, Some(*file))
            }
            Op::Place { entry, parent, name } => {
                let from = self.path_at(*entry).unwrap_or_else(unknown);
                let to = self.below(*parent, name);
                self.put(*entry, *parent, name, void);
                let (path, from, file) = (Some(to), Some(from), Some(self.file_of(*entry)));
                Some(Said { action: "move", path, from, detail: String::new(), file })
            }
            Op::Unlink { entry, .. } => {
                let (path, file) = (self.path_at(*entry), self.file_of(*entry));
                if !void {
                    self.unlinked(*entry);
                }
                said("remove", path, String::new(), Some(file))
            }
            Op::Attr { file, change } => Some(self.attr(*file, change)),
            Op::Ack => None,
            Op::Role { journal, role } => {
                let detail = format!("{} is {}", self.device(*journal), role.name());
                said("role", None, detail, None)
            }
            Op::Epoch { number, .. } => said("key", None, format!("epoch {number} begins"), None),
            Op::Cut { last, .. } => {
                let whose = self.device(last.journal());
                said("revoke", None, format!("{whose}, after its change {}", last.seq()), None)
            }
        }
    }

    fn attr(&self, file: FileId, change: &AttrChange) -> Said {
        let device = match change {
            AttrChange::Xattr(key, Some(value)) if file == FileId::ROOT => {
                let attrs = [(key.as_slice(), value.as_slice())];
                let named = DeviceNames::from_attrs(attrs);
                let device = self.devices.values().find(|device| named.get(device).is_some());
                device.map(|device| format!("{device} is called {}", named.label(device)))
            }
            _ => None,
        };
        if let Some(detail) = device {
            return Said { action: "name", path: None, from: None, detail, file: None };
        }
        let detail = match change {
            AttrChange::Mode(mode) => format!("mode {mode:o}"),
            AttrChange::Uid(uid) => format!("owner {uid}"),
            AttrChange::Gid(gid) => format!("group {gid}"),
            AttrChange::Mtime(mtime) => format!("modification time {}", mtime.secs),
            AttrChange::Xattr(key, value) => {
                let key = String::from_utf8_lossy(key);
                value.as_ref().map_or_else(
                    || format!("{key} removed"),
                    |value| format!("{key}, {} bytes", value.len()),
                )
            }
        };
        let (path, from) = (self.path_of(file), None);
        Said { action: "attribute", path, from, detail, file: Some(file) }
    }

    fn put(&mut self, entry: EntryId, parent: FileId, name: &Name, void: bool) {
        if void {
            return;
        }
        if self.places.len() >= NAMES_MAX {
            self.places.clear();
            self.names_of.clear();
            self.links.clear();
        }
        self.places.insert(entry, (parent, name.clone()));
    }

    /// A file is called by its first name as long as it has that, and then by another.
    fn unlinked(&mut self, entry: EntryId) {
        let file = self.file_of(entry);
        if let Some(names) = self.names_of.get_mut(&file).filter(|names| names.len() > 1) {
            names.retain(|name| *name != entry);
        }
    }

    fn file_of(&self, entry: EntryId) -> FileId {
        self.links.get(&entry).copied().unwrap_or(FileId(entry.0))
    }

    fn path_of(&self, file: FileId) -> Option<String> {
        if file == FileId::ROOT {
            return Some("/".into());
        }
        let name = self.names_of.get(&file).and_then(|names| names.first()).copied();
        self.path_at(name.unwrap_or(EntryId(file.0)))
    }

    fn path_at(&self, entry: EntryId) -> Option<String> {
        let (parent, name) = self.places.get(&entry)?;
        Some(self.below(*parent, name))
    }

    fn below(&self, mut parent: FileId, name: &Name) -> String {
        let mut names = vec![name.to_string()];
        while parent != FileId::ROOT {
            let Some((above, name)) = self.places.get(&EntryId(parent.0)) else {
                names.push(unknown());
                break;
            };
            if names.len() > DEPTH_MAX {
                break;
            }
            names.push(name.to_string());
            parent = *above;
        }
        names.reverse();
        names.join("/")
    }

    fn device(&self, journal: u16) -> String {
        self.devices.get(&journal).map_or_else(unknown, |device| self.names.label(device))
    }
}

fn unknown() -> String {
    "(unknown)".into()
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Regular => "file",
        Kind::Directory => "directory",
        Kind::Symlink(_) => "symbolic link",
        Kind::Fifo => "FIFO",
        Kind::Socket => "socket",
        Kind::CharDevice(_) => "character device",
        Kind::BlockDevice(_) => "block device",
    }
}
