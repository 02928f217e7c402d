//! Where a file stands, from the root on, told from the store alone.

use std::collections::HashMap;

use crate::store::{Store, StoreError};
use crate::types::{FileId, Ino, Kind, Name};

/// Directories above a file. A damaged store may hold a circle.
const DEPTH_MAX: usize = 4096;
/// Directories whose path is remembered.
const KNOWN_MAX: usize = 4096;
/// Names looked at in one go.
const PAGE_NAMES: usize = 1024;

/// Finds paths. What it has found stays true as long as the tree is not changed.
pub struct Paths {
    store: Store,
    directories: HashMap<Ino, String>,
}

impl Paths {
    /// Over what `store` has.
    pub fn new(store: Store) -> Self {
        Self { store, directories: HashMap::new() }
    }

    /// Where a file stands; of several names, one. What has no name is called by its number.
    ///
    /// # Errors
    /// The store's.
    pub fn of_file(&mut self, file: FileId) -> Result<String, StoreError> {
        let found = self.of_node(self.store.face(file)?)?;
        Ok(found.unwrap_or_else(|| format!("file {}, which has no name now", file.packed())))
    }

    /// Where a node stands; `None` if it has no name. A file that no other device has heard of is
    /// looked for among all names.
    ///
    /// # Errors
    /// The store's.
    pub fn of_node(&mut self, ino: Ino) -> Result<Option<String>, StoreError> {
        let Some(record) = self.store.node(ino)? else { return Ok(None) };
        if let Some(sibling) = record.company.as_ref().and_then(|company| company.sibling.as_ref())
        {
            return self.below(record.parent, &sibling.name);
        }
        if record.kind == Kind::Directory {
            return self.of_directory(ino);
        }
        if let Some(inode) = record.file.map(|file| self.store.merged_inode(file)).transpose()? {
            for entry in inode.map(|inode| inode.entries).unwrap_or_default() {
                let place = self.store.merged_entry(entry)?.and_then(|entry| entry.place);
                let Some(place) = place else { continue };
                let parent = self.store.face(place.parent)?;
                if let Some(name) = self.name_in(parent, ino)? {
                    return self.below(parent, &name);
                }
            }
        }
        match self.store.name_of(ino)? {
            Some((parent, name)) => self.below(parent, &name),
            None => Ok(None),
        }
    }

    /// A name in a directory, as a path.
    ///
    /// # Errors
    /// The store's.
    pub fn below(&mut self, directory: Ino, name: &Name) -> Result<Option<String>, StoreError> {
        let above = self.of_directory(directory)?;
        Ok(above.map(
            |above| if above.is_empty() { name.to_string() } else { format!("{above}/{name}") },
        ))
    }

    fn of_directory(&mut self, ino: Ino) -> Result<Option<String>, StoreError> {
        let (mut at, mut names) = (ino, Vec::new());
        while at != Ino::ROOT && !self.directories.contains_key(&at) {
            let parent = self.store.node(at)?.map(|node| node.parent);
            let name = parent.map(|parent| self.name_in(parent, at)).transpose()?.flatten();
            let (Some(parent), Some(name)) = (parent, name) else { return Ok(None) };
            names.push(name.to_string());
            if names.len() > DEPTH_MAX {
                return Ok(None);
            }
            at = parent;
        }
        names.extend(self.directories.get(&at).filter(|path| !path.is_empty()).cloned());
        names.reverse();
        let path = names.join("/");
        if self.directories.len() < KNOWN_MAX {
            self.directories.insert(ino, path.clone());
        }
        Ok(Some(path))
    }

    fn name_in(&self, directory: Ino, ino: Ino) -> Result<Option<Name>, StoreError> {
        let mut after = None;
        loop {
            let page = self.store.entries_page(directory, after, PAGE_NAMES)?;
            let Some(last) = page.last() else { return Ok(None) };
            after = Some(last.hash);
            if let Some(found) = page.into_iter().find(|entry| entry.ino == ino) {
                return Ok(Some(found.name));
            }
        }
    }
}
