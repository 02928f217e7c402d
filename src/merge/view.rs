//! The view: which names a listing shows (V1 to V7). Underneath nothing is lost or renamed.

use std::collections::{BTreeSet, HashMap};

use super::liveness::{is_visible, visible_children};
use super::names::{Deciding, Names};
use super::state::{Records, State};
use crate::types::merged::{Entry, Inode};
use crate::types::{ContentHash, DeviceId, EntryId, FileId, Name, VersionId};

/// What becomes of a file with several heads, and of names that differ in case alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The heads beside the newest have names of their own; otherwise they are kept, and hidden.
    pub keeps_both: bool,
    /// Names that differ in case or Unicode form collide.
    pub is_caseless: bool,
}

/// What a row of a listing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowKind {
    /// One directory, or several of one name.
    Directory,
    /// A file, with its twins.
    File,
    /// A head beside its file.
    Sibling,
}

/// One name in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// What it is.
    pub kind: RowKind,
    /// A directory: all that are one here; a file: its entry, then its twins. The first placed first.
    pub entries: Vec<EntryId>,
    /// The name in the shared tree.
    pub raw_name: Name,
    /// The name shown: the same, or one beside it.
    pub name: Name,
    /// What it stands for.
    pub inode: FileId,
    /// The version shown; `None` for directories and for files never written.
    pub head: Option<VersionId>,
    /// A file's other heads, newest first, one for each content.
    pub siblings: Vec<VersionId>,
}

impl Row {
    fn new(kind: RowKind, group: &[(EntryId, Entry)]) -> Self {
        let (_, first) = &group[0];
        let name = first.place().name.clone();
        Self {
            kind,
            entries: group.iter().map(|(id, _)| *id).collect(),
            raw_name: name.clone(),
            name,
            inode: first.inode,
            head: None,
            siblings: Vec::new(),
        }
    }
}

type Group = Vec<(EntryId, Entry)>;

/// Lists directories that are one, giving out the real names and then those beside them.
/// `label` says what a device is called in a name.
///
/// # Errors
/// If a record cannot be read.
pub fn list<R: Records>(
    state: &State<R>,
    directories: &[FileId],
    policy: Policy,
    label: &dyn Fn(&DeviceId) -> String,
) -> Result<Vec<Row>, R::Error> {
    let mut inside = visible_children(state, directories)?;
    inside.sort_by_key(|(_, entry)| entry.place().key);
    let mut names = Names::new(policy.is_caseless);
    let mut rows = Vec::new();
    let mut beside: Vec<(Deciding, Row)> = Vec::new();
    for (group, row) in real_rows(state, inside)? {
        if policy.keeps_both {
            beside.extend(sibling_rows(state, &row)?);
        }
        if names.claim(&row.raw_name) {
            rows.push(row);
        } else {
            let place = group[0].1.place();
            beside.push((Deciding { key: place.key, op: place.op.0 }, row));
        }
    }
    beside.sort_by(|(a, one), (b, other)| {
        a.key.cmp(&b.key).then_with(|| one.raw_name.cmp(&other.raw_name))
    });
    for (by, mut row) in beside {
        let keeps_extension = row.kind != RowKind::Directory;
        row.name = names.beside(&row.raw_name, keeps_extension, by, &label(&by.key.device));
        rows.push(row);
    }
    Ok(rows)
}

/// The row of one name, if at most one thing bears it and nothing stands beside it; `None` if only
/// the whole listing tells.
///
/// # Errors
/// If a record cannot be read.
pub fn list_name<R: Records>(
    state: &State<R>,
    directories: &[FileId],
    name: &Name,
    policy: Policy,
) -> Result<Option<Option<Row>>, R::Error> {
    let mut inside = Vec::new();
    for directory in directories {
        for id in state.named(*directory, name)? {
            if is_visible(state, id)? {
                inside.extend(state.entry(id)?.map(|entry| (id, entry)));
            }
        }
    }
    inside.sort_by_key(|(_, entry)| entry.place().key);
    let mut rows: Vec<Row> = real_rows(state, inside)?.into_iter().map(|(_, row)| row).collect();
    let beside = policy.keeps_both && rows.iter().any(|row| !row.siblings.is_empty());
    Ok((rows.len() <= 1 && !beside && !policy.is_caseless).then(|| rows.pop()))
}

/// The rows that bear real names, directories first (V2), each the first placed first.
fn real_rows<R: Records>(
    state: &State<R>,
    inside: Vec<(EntryId, Entry)>,
) -> Result<Vec<(Group, Row)>, R::Error> {
    let (directories, files): (Group, Group) =
        inside.into_iter().partition(|(_, entry)| entry.is_directory);
    let mut rows = Vec::new();
    for group in grouped(directories, |entry| Ok(entry.place().name.clone()))? {
        let row = Row::new(RowKind::Directory, &group);
        rows.push((group, row));
    }
    let same = |entry: &Entry| Ok((entry.place().name.clone(), contents(state, entry.inode)?));
    for group in grouped(files, same)? {
        let mut row = Row::new(RowKind::File, &group);
        let mut heads = faces(state, row.inode)?.into_iter();
        row.head = heads.next();
        row.siblings = heads.collect();
        rows.push((group, row));
    }
    Ok(rows)
}

/// Groups what has the same `key`, in the order of each group's first.
fn grouped<K: Eq + std::hash::Hash, E>(
    entries: Group,
    key: impl Fn(&Entry) -> Result<K, E>,
) -> Result<Vec<Group>, E> {
    let mut groups: Vec<Group> = Vec::new();
    let mut numbers: HashMap<K, usize> = HashMap::new();
    for (id, entry) in entries {
        let number = *numbers.entry(key(&entry)?).or_insert(groups.len());
        if number == groups.len() {
            groups.push(Vec::new());
        }
        groups[number].push((id, entry));
    }
    Ok(groups)
}

/// The heads worth showing: the newest of each content, newest first.
///
/// # Errors
/// If a record cannot be read.
pub fn faces<R: Records>(state: &State<R>, file: FileId) -> Result<Vec<VersionId>, R::Error> {
    let inode = state.inode(file)?.unwrap_or_default();
    let mut heads = Vec::new();
    for id in &inode.heads {
        heads.extend(state.version(file, *id)?.map(|version| (version, *id)));
    }
    heads.sort_by_key(|(version, _)| std::cmp::Reverse(version.key));
    let mut seen = BTreeSet::new();
    heads.retain(|(version, _)| seen.insert(version.content));
    Ok(heads.into_iter().map(|(_, id)| id).collect())
}

/// What a file holds, whatever of it is shown; one never written is empty.
fn contents<R: Records>(state: &State<R>, file: FileId) -> Result<BTreeSet<ContentHash>, R::Error> {
    let Inode { heads, special, .. } = state.inode(file)?.unwrap_or_default();
    let mut contents: BTreeSet<ContentHash> = special.into_iter().collect();
    for id in heads {
        contents.extend(state.version(file, id)?.map(|version| version.content));
    }
    if contents.is_empty() {
        contents.insert(ContentHash::empty());
    }
    Ok(contents)
}

/// Each sibling of a file, with what decides its name.
fn sibling_rows<R: Records>(
    state: &State<R>,
    file: &Row,
) -> Result<Vec<(Deciding, Row)>, R::Error> {
    let mut rows = Vec::new();
    for head in &file.siblings {
        let Some(version) = state.version(file.inode, *head)? else { continue };
        let row =
            Row { kind: RowKind::Sibling, head: Some(*head), siblings: Vec::new(), ..file.clone() };
        rows.push((Deciding { key: version.key, op: head.0 }, row));
    }
    Ok(rows)
}
