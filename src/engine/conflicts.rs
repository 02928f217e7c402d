//! What devices have changed apart and nobody has settled, told without the workspace's lock.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::paths::Paths;
use super::replica::device_names;
use super::{EngineError, Workspace};
use crate::env::Env;
use crate::store::Store;
use crate::types::merged::{Inode, Version};
use crate::types::{DeviceNames, FileId, Ino, VersionId};

/// Names looked at in one go.
const PAGE_NAMES: usize = 1024;

/// A file that was changed on devices apart, or files that were made there under one name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Conflict {
    /// Where the file stands that bears the name, from the root on.
    pub path: String,
    /// What is to be decided between, the newest content first.
    pub versions: Vec<ConflictVersion>,
    /// Other files that were given the same name, and where they stand.
    pub beside: Vec<String>,
}

/// One of the contents of such a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConflictVersion {
    /// The device that wrote it.
    pub device: String,
    /// When it was committed, in microseconds since 1970.
    pub written_unix_us: u64,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// Where it can be read; none while siblings are hidden.
    pub path: Option<String>,
}

/// The conflicts of the workspace in `dir`, which may be mounted meanwhile. Their number is what
/// bounds the answer.
///
/// # Errors
/// [`EngineError::Missing`], or the store's.
pub fn conflicts(dir: &Path, env: &Env) -> Result<Vec<Conflict>, EngineError> {
    Workspace::settings(dir, env)?;
    let store = Store::look(dir, env)?;
    let names = device_names(&store)?;
    let paths = Paths::new(store.clone());
    let mut looking = Looking { store, names, paths, found: BTreeMap::new() };
    for (file, inode) in looking.store.conflicted()? {
        looking.file(file, &inode)?;
    }
    for directory in looking.store.crowded()? {
        looking.directory(directory)?;
    }
    Ok(looking.found.into_values().collect())
}

struct Looking {
    store: Store,
    names: DeviceNames,
    paths: Paths,
    found: BTreeMap<String, Conflict>,
}

impl Looking {
    /// A file with several heads, if they differ.
    fn file(&mut self, file: FileId, inode: &Inode) -> Result<(), EngineError> {
        let ino = self.store.face(file)?;
        let node = self.store.node(ino)?;
        let siblings = node.and_then(|node| node.company).map_or_else(Vec::new, |it| it.siblings);
        let path = self.paths.of_file(file)?;
        let mut shown = Vec::new();
        for (_, sibling) in siblings {
            let head = self.store.node(sibling)?.and_then(|node| node.head);
            shown.extend(head.map(|head| (head, sibling)));
        }
        let mut heads: Vec<(VersionId, Version)> = Vec::new();
        for id in &inode.heads {
            heads.extend(self.store.merged_version(file, *id)?.map(|version| (*id, version)));
        }
        heads.sort_by_key(|(_, version)| std::cmp::Reverse(version.key));
        let mut contents = Vec::new();
        heads.retain(|(_, version)| {
            let is_new = !contents.contains(&version.content);
            contents.push(version.content);
            is_new
        });
        if heads.len() < 2 {
            return Ok(());
        }
        let mut versions = Vec::with_capacity(heads.len());
        for (index, (id, version)) in heads.into_iter().enumerate() {
            let sibling = shown.iter().find(|(head, _)| *head == id).map(|(_, ino)| *ino);
            let path = match sibling {
                Some(sibling) => self.paths.of_node(sibling)?,
                None => (index == 0).then(|| path.clone()),
            };
            versions.push(ConflictVersion {
                device: self.names.label(&version.key.device),
                written_unix_us: version.key.hlc.0,
                size_bytes: self.store.version(file, id)?.map_or(0, |record| record.size_bytes),
                path,
            });
        }
        self.at(path).versions = versions;
        Ok(())
    }

    /// The files of a directory that stand beside another of their name.
    fn directory(&mut self, directory: Ino) -> Result<(), EngineError> {
        let mut after = None;
        loop {
            let page = self.store.entries_page(directory, after, PAGE_NAMES)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.hash);
            for entry in page {
                let node = self.store.node(entry.ino)?;
                let company = node.and_then(|node| node.company).unwrap_or_default();
                let beside = company.beside.into_iter().filter(|(of, _)| *of == entry.entry);
                let names: Vec<_> = beside.map(|(_, name)| name).collect();
                if !names.is_empty() {
                    let path = self.paths.below(directory, &entry.name)?.unwrap_or_default();
                    let mut beside = Vec::with_capacity(names.len());
                    for name in names {
                        beside.extend(self.paths.below(directory, &name)?);
                    }
                    self.at(path).beside = beside;
                }
            }
        }
    }

    fn at(&mut self, path: String) -> &mut Conflict {
        let new = Conflict { path: path.clone(), versions: Vec::new(), beside: Vec::new() };
        self.found.entry(path).or_insert(new)
    }
}
