//! What a change takes along where devices met (rules A3 to A6 of the merge): the directories and
//! files that are one row, those that stand beside it, and a file's siblings.
//!
//! As all operations, each looks first at everything it needs, and then changes everything.

use super::super::dir::Entry;
use super::super::load::Miss;
use super::super::tree::Tree;
use super::super::{FsError, Inner, Stop};
use super::io::expect_local;
use crate::types::{
    AttrChange, Company, EntryId, FileId, Ino, Kind, Name, NodeRecord, Op, Part, PlaceId,
    Timestamp, Twin,
};

/// A directory in which something is to change.
#[derive(Clone)]
pub struct Home {
    /// Which of the directories that are one here gets what is new.
    pub file: FileId,
    /// Directories that are removed and visible, the outermost first: used, they are placed again.
    revivals: Vec<Revival>,
}

/// A removed and visible entry that is to be placed where it stands.
#[derive(Clone)]
struct Revival {
    ino: Ino,
    part: Part,
    parent: Ino,
    home: FileId,
    /// What bears the name there.
    shown: Entry,
}

/// What goes along when a name is freed.
pub struct Leaving {
    home: Home,
    /// Files beside it, which are placed under the names that they show.
    beside: Vec<Entry>,
    /// Siblings of a file whose last name goes: they become files of their own.
    siblings: Vec<Adoption>,
}

/// A sibling that becomes a file of its own, under the name that it shows.
pub struct Adoption {
    ino: Ino,
    /// The node that bears its file's name.
    main: Ino,
    parent: Ino,
    home: Home,
    shown: Entry,
}

/// Looks at a directory in which something is to change.
pub fn home(tree: &mut Tree, dir: Ino) -> Result<Home, Stop> {
    let file = home_of(tree, dir)?;
    let mut revivals = Vec::new();
    let mut at = dir;
    while at != Ino::ROOT {
        let rec = &tree.dir(at)?.rec;
        let parent = rec.parent;
        if let Some(part) = rec.company.as_ref().and_then(|company| home_part(company)).cloned()
            && let Some((_, name)) = &part.removed
        {
            let name = name.clone();
            revivals.extend(revival(tree, at, part, (parent, &name))?);
        }
        at = parent;
    }
    revivals.reverse();
    Ok(Home { file, revivals })
}

fn home_of(tree: &mut Tree, dir: Ino) -> Result<FileId, Stop> {
    let rec = &tree.dir(dir)?.rec;
    let part = rec.company.as_ref().and_then(|company| home_part(company));
    let file = part.map(|part| FileId(part.entry.0)).or(rec.file);
    file.ok_or(Stop::Fail(FsError::NotFound))
}

/// Of the directories that are one here, the first that is not removed, or the first.
fn home_part(company: &Company) -> Option<&Part> {
    company.parts.iter().find(|part| part.removed.is_none()).or(company.parts.first())
}

fn revival(
    tree: &mut Tree,
    ino: Ino,
    part: Part,
    (parent, name): (Ino, &Name),
) -> Result<Option<Revival>, Stop> {
    let home = home_of(tree, parent)?;
    let Some(shown) = tree.entry(parent, name.as_bytes())? else { return Ok(None) };
    Ok(Some(Revival { ino, part, parent, home, shown }))
}

/// A removed name of a file that shows all the same.
pub struct Kept {
    leaving: Leaving,
    revival: Revival,
}

/// Looks at a file that gets one more name: a removed name that shows all the same is placed again,
/// lest the new one take its place.
pub fn kept(tree: &mut Tree, ino: Ino) -> Result<Option<Kept>, Stop> {
    let company = tree.node(ino)?.rec.company.clone();
    let part = company.and_then(|company| company.parts.into_iter().next());
    let Some(part) = part else { return Ok(None) };
    let Some((parent, name)) = part.removed.clone() else { return Ok(None) };
    let Some(revival) = revival(tree, ino, part, (parent, &name))? else { return Ok(None) };
    let leaving = leaving(tree, parent, &revival.shown.clone(), false)?;
    Ok(Some(Kept { leaving, revival }))
}

impl Kept {
    /// Places it again. It then no longer is the first to bear its name, so one that is its twin
    /// there would show instead.
    pub fn apply(&self, tree: &mut Tree, now: Timestamp) {
        self.leaving.settle(tree, self.revival.parent, &self.revival.shown, now);
        self.revival.apply(tree);
        drop_twins(tree, self.revival.ino, Some(self.revival.part.entry));
    }
}

impl Home {
    /// Places again what has to be.
    pub fn enter(&self, tree: &mut Tree) -> FileId {
        for revival in &self.revivals {
            revival.apply(tree);
        }
        self.file
    }
}

impl Revival {
    fn apply(&self, tree: &mut Tree) {
        let name = self.shown.name.clone();
        let entry = self.part.entry;
        let place = PlaceId(tree.emit(Op::Place { entry, parent: self.home, name }));
        if self.shown.id == entry {
            set_place(tree, self.parent, &self.shown, place);
        }
        change_company(tree, self.ino, |company| {
            for part in company.parts.iter_mut().filter(|part| part.entry == entry) {
                (part.place, part.removed) = (place, None);
            }
            if let [only] = &company.parts[..]
                && only.removed.is_none()
            {
                company.parts.clear();
            }
        });
    }
}

/// Looks at what goes along when `entry` leaves its name, `is_removed` or for another.
pub fn leaving(
    tree: &mut Tree,
    parent: Ino,
    entry: &Entry,
    is_removed: bool,
) -> Result<Leaving, Stop> {
    let home = home(tree, parent)?;
    let mut leaving = Leaving { home, beside: Vec::new(), siblings: Vec::new() };
    let rec = &tree.node(entry.ino)?.rec;
    let Some(company) = rec.company.clone() else { return Ok(leaving) };
    let is_last = is_removed && rec.kind == Kind::Regular && rec.nlink == 1;
    for (_, name) in company.beside.iter().filter(|(of, _)| *of == entry.id) {
        let Some(other) = tree.entry(parent, name.as_bytes())? else { continue };
        tree.node(other.ino)?;
        leaving.beside.push(other);
    }
    for (_, ino) in company.siblings.iter().filter(|_| is_last) {
        leaving.siblings.extend(adoption(tree, *ino)?);
    }
    Ok(leaving)
}

impl Leaving {
    /// Settles everything that stays behind.
    pub fn settle(&self, tree: &mut Tree, parent: Ino, entry: &Entry, now: Timestamp) {
        let home = self.home.enter(tree);
        for other in &self.beside {
            let name = other.name.clone();
            let place = PlaceId(tree.emit(Op::Place { entry: other.id, parent: home, name }));
            set_place(tree, parent, other, place);
            drop_twins(tree, other.ino, Some(other.id));
        }
        for sibling in &self.siblings {
            sibling.apply(tree, false, now);
        }
        let has_company = tree.peek(entry.ino).is_some_and(|node| node.rec.company.is_some());
        if has_company {
            let id = entry.id;
            change_company(tree, entry.ino, |company| company.beside.retain(|(of, _)| *of != id));
        }
    }
}

/// Removes the files that are one row with a name of this one, or with any of its names: what is
/// done to the row is done to them.
pub fn drop_twins(tree: &mut Tree, ino: Ino, of: Option<EntryId>) {
    let Some(company) = tree.peek(ino).and_then(|node| node.rec.company.as_ref()) else { return };
    let is_dropped = |twin: &Twin| of.is_none_or(|of| twin.of == of);
    let twins: Vec<Twin> = company.twins.iter().filter(|twin| is_dropped(twin)).cloned().collect();
    if twins.is_empty() {
        return;
    }
    for twin in &twins {
        let (entry, seen_place) = (twin.entry, twin.place);
        tree.emit(Op::Unlink { entry, seen_place, seen_heads: twin.heads.clone() });
    }
    change_company(tree, ino, |company| company.twins.retain(|twin| !is_dropped(twin)));
}

/// A name is gone, and what stood by it: the next round takes that away.
pub fn forget(tree: &mut Tree, ino: Ino, gone: EntryId) {
    if tree.peek(ino).is_some_and(|node| node.rec.company.is_some()) {
        change_company(tree, ino, |company| company.forget(gone));
    }
}

/// The other directories that are one row with `entry`.
pub fn other_parts(rec: &NodeRecord, entry: EntryId) -> Vec<Part> {
    let parts = rec.company.iter().flat_map(|company| &company.parts);
    parts.filter(|part| part.entry != entry).cloned().collect()
}

/// All parts of a directory now stand where this op put each.
pub fn moved_parts(tree: &mut Tree, ino: Ino, places: &[(EntryId, PlaceId)]) {
    let has_parts = |company: &Company| !company.parts.is_empty();
    let company = tree.peek(ino).and_then(|node| node.rec.company.as_deref());
    if !company.is_some_and(has_parts) {
        return;
    }
    change_company(tree, ino, |company| {
        for part in &mut company.parts {
            if let Some((_, place)) = places.iter().find(|(entry, _)| *entry == part.entry) {
                (part.place, part.removed) = (*place, None);
            }
        }
        if company.parts.len() == 1 {
            company.parts.clear();
        }
    });
}

/// A file that is to be changed now is no longer a sibling, nor one row with other files. The last
/// look before changes are made: waits while none may be.
pub fn own(inner: &Inner, tree: &mut Tree, ino: Ino, now: Timestamp) -> Result<(), Stop> {
    if tree.pending.held {
        return Err(Miss::Room.into());
    }
    if tree.node(ino)?.rec.company.is_none() {
        return Ok(());
    }
    let adoption = adoption(tree, ino)?;
    inner.take_op_room(tree)?;
    match adoption {
        Some(adoption) => adoption.apply(tree, true, now),
        None => drop_twins(tree, ino, None),
    }
    Ok(())
}

/// Looks at a node that is to be changed; a sibling then has to become a file of its own.
pub fn adoption(tree: &mut Tree, ino: Ino) -> Result<Option<Adoption>, Stop> {
    let rec = &tree.node(ino)?.rec;
    let (file, parent) = (rec.file, rec.parent);
    let Some(sibling) = rec.company.as_ref().and_then(|company| company.sibling.clone()) else {
        return Ok(None);
    };
    if rec.nlink == 0 {
        return Ok(None);
    }
    expect_local(tree, ino)?;
    let main = expect_local(tree, sibling.of)?;
    if main.rec.file != file {
        // An editor's save has moved the name to another node; the next round says to which.
        return Err(Miss::Room.into());
    }
    let shown = tree.existing(parent, sibling.name.as_bytes())?;
    let home = home(tree, parent)?;
    Ok(Some(Adoption { ino, main: sibling.of, parent, home, shown }))
}

impl Adoption {
    /// Makes it a file of its own; with `resolve`, its file no longer has that head.
    pub fn apply(&self, tree: &mut Tree, resolve: bool, now: Timestamp) {
        let parent = self.home.enter(tree);
        self.leave_file(tree, resolve);
        let rec = tree.change(self.ino).rec.clone();
        let (mode, uid, gid) = (rec.mode, rec.uid, rec.gid);
        let name = self.shown.name.clone();
        let kind = Kind::Regular;
        let id = tree.emit(Op::Make { parent, name: name.clone(), kind, mode, uid, gid });
        let file = FileId(id);
        for (key, value) in rec.xattrs {
            let change = AttrChange::Xattr(key, Some(value));
            tree.emit(Op::Attr { file, change });
        }
        let node = tree.change(self.ino);
        node.rec.file = Some(file);
        node.rec.head = None;
        node.rec.company = None;
        node.rec.ctime = now;
        let body = node.body.as_mut().expect("adoption has looked for it");
        body.changed = true;
        body.rebase = true;
        body.keep_version = true;
        body.head_is_interim = false;
        let hash = tree.hash(name.as_bytes());
        tree.take_entry(self.parent, hash, self.shown.id);
        let entry = Entry { id: EntryId(id), place: PlaceId(id), ..self.shown.clone() };
        tree.put_entry(self.parent, hash, entry);
    }

    /// Removes the sibling: a person has decided for what its file shows.
    pub fn remove(&self, tree: &mut Tree, now: Timestamp) {
        self.home.enter(tree);
        self.leave_file(tree, true);
        let node = tree.change(self.ino);
        (node.rec.file, node.rec.head, node.rec.company) = (None, None, None);
        node.rec.nlink = 0;
        node.rec.ctime = now;
        let hash = tree.hash(self.shown.name.as_bytes());
        tree.take_entry(self.parent, hash, self.shown.id);
        tree.live_nodes = tree.live_nodes.saturating_sub(1);
    }

    fn leave_file(&self, tree: &mut Tree, resolve: bool) {
        let head = tree.peek(self.ino).and_then(|node| node.rec.head);
        let ino = self.ino;
        change_company(tree, self.main, |company| {
            company.siblings.retain(|(_, other)| *other != ino);
        });
        if resolve {
            // The file's own content is written again, over both heads (A6).
            let main = tree.change(self.main);
            main.resolved.extend(head);
            let body = main.body.as_mut().expect("adoption has looked for it");
            body.changed = true;
            body.keep_version = true;
            drop_twins(tree, self.main, None);
        }
    }
}

fn set_place(tree: &mut Tree, parent: Ino, entry: &Entry, place: PlaceId) {
    let hash = tree.hash(entry.name.as_bytes());
    tree.put_entry(parent, hash, Entry { place, ..entry.clone() });
}

fn change_company(tree: &mut Tree, ino: Ino, change: impl FnOnce(&mut Company)) {
    let rec = &mut tree.change(ino).rec;
    let Some(mut company) = rec.company.take() else { return };
    change(&mut company);
    rec.company = Some(company).filter(|company| !company.is_alone());
}
