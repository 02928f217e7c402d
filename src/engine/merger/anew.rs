//! A fold anew: other Cuts stand than before, so ops that were folded are void, or void ones stand.
//!
//! Everything that is here is judged again, in causal order. Of the tree, only the files on which
//! an op bears that is judged otherwise than before are folded again, from their first op on: so
//! memory grows with what the Cuts change and not with the tree.

use std::collections::{BTreeSet, HashMap};

use super::folding::{Folding, Taken, made_bits, made_of_bits};
use super::history::{History, Past, last_seq};
use super::records::Failing;
use super::{MergeError, Merger};
use crate::merge::{Delivered, Made, Membership, Verdict, fold, judge, pass_over, unfold};
use crate::store::Store;
use crate::types::merged::{Key, Stamp};
use crate::types::{EntryId, FileId, Hlc, Op, OpId};

/// What judging everything again has found.
struct Judged<'a> {
    merger: &'a Merger,
    members: &'a Membership,
    /// What was void before, and what is now, with what it would have made.
    before: HashMap<OpId, u8>,
    voids: HashMap<OpId, u8>,
    /// What ops have made that no round before has folded.
    news: HashMap<OpId, Made>,
    /// The files of names that ops have made which were void, or not there.
    links: HashMap<OpId, FileId>,
    /// Files on which an op bears that counts and did not, or the other way round.
    files: BTreeSet<FileId>,
    changes: Vec<(OpId, Option<u8>)>,
    failing: Failing,
}

impl Folding<'_> {
    /// Folds anew, if other Cuts stand than before this round. A device that was filled from a
    /// snapshot has to wait until all journals are here from their beginnings: until then, what Cuts
    /// void of what the snapshot stood for shows there.
    pub(super) fn fold_anew_if_needed(&mut self) -> Result<(), MergeError> {
        let are_others = self.known.members.cuts() != self.merger.known.members.cuts();
        if !are_others && !self.known.is_anew_due {
            return Ok(());
        }
        let can_be_now = self.merger.store.bases()?.is_empty();
        if self.known.is_anew_due == can_be_now {
            self.known.is_anew_due = !can_be_now;
            self.commit.merged.anew_due = Some(!can_be_now);
        }
        if !can_be_now {
            return Ok(());
        }
        let number = self.known.folds_anew + 1;
        tracing::info!("who is a member has changed: the tree is folded anew, the {number}. time");
        self.known.folds_anew = number;
        self.commit.merged.folds_anew = Some(number);
        self.is_anew = true;
        self.start_again()?;
        let fresh = std::mem::take(&mut self.commit.batches);
        let done = self.fold_anew(&fresh);
        self.commit.batches = fresh;
        done
    }

    fn fold_anew(&mut self, fresh: &[(u16, u64, Vec<u8>)]) -> Result<(), MergeError> {
        let store = self.merger.store.clone();
        let (voids, files) = self.judge_all(&store, fresh)?;
        unfold(&mut self.state, &files)?;
        let mut entries: BTreeSet<EntryId> = BTreeSet::new();
        let numbers = self.known.numbers.clone();
        let mut history = History::new(&store, fresh, &numbers);
        while let Some(past) = history.next()? {
            let is_news = self.is_news(&past);
            if !is_news && files.is_empty() {
                continue;
            }
            let last = last_seq(&past.batch);
            for (id, key, op) in self.stamped(&past)? {
                let stamp = Stamp { id, key, frontier: &past.frontier };
                if voids.contains_key(&id) {
                    if is_news {
                        pass_over(&mut self.state);
                    }
                } else if is_news || bears_on(id, &op, &files, &entries) {
                    if matches!(op, Op::Make { .. } | Op::Link { .. }) {
                        entries.insert(EntryId(id));
                    }
                    fold(&mut self.state, &stamp, &op)?;
                    self.keep(&stamp, op)?;
                }
            }
            if is_news {
                self.known.folded.insert(past.number, last);
                self.commit.merged.folded.push((past.number, last));
            }
        }
        self.state.set_arrivals(self.known.folded.values().sum());
        self.state.touch_changed();
        self.set_voids(voids);
        Ok(())
    }

    /// Judges all that is here by who is a member now.
    fn judge_all(
        &mut self,
        store: &Store,
        fresh: &[(u16, u64, Vec<u8>)],
    ) -> Result<(HashMap<OpId, u8>, BTreeSet<FileId>), MergeError> {
        let members = self.known.members.clone();
        let numbers = self.known.numbers.clone();
        let mut judged = Judged {
            merger: self.merger,
            members: &members,
            before: store.voids()?.into_iter().collect(),
            voids: HashMap::new(),
            news: HashMap::new(),
            links: HashMap::new(),
            files: BTreeSet::new(),
            changes: Vec::new(),
            failing: Failing::default(),
        };
        let mut history = History::new(store, fresh, &numbers);
        while let Some(past) = history.next()? {
            let is_news = self.is_news(&past);
            for (id, key, op) in self.stamped(&past)? {
                judged.op(&Stamp { id, key, frontier: &past.frontier }, &op, is_news)?;
            }
        }
        let Judged { voids, files, changes, failing, .. } = judged;
        failing.into_result()?;
        self.commit.merged.voids = changes;
        Ok((voids, files))
    }

    /// Has no round before this one folded it?
    fn is_news(&self, past: &Past) -> bool {
        let folded = self.merger.known.folded.get(&past.number);
        folded.is_none_or(|folded| past.batch.seq > *folded)
    }

    fn stamped(&mut self, past: &Past) -> Result<Taken, MergeError> {
        let batch = &past.batch;
        let ops = self.ops_of(batch)?.into_iter().zip(0_u64..);
        Ok(ops
            .map(|(op, offset)| {
                let key = Key { hlc: Hlc(batch.hlc.0 + offset), device: batch.journal };
                (OpId::new(past.number, batch.seq + offset), key, op)
            })
            .collect())
    }
}

/// Does an op that stands bear on one of these files, or on one of their names?
fn bears_on(id: OpId, op: &Op, files: &BTreeSet<FileId>, entries: &BTreeSet<EntryId>) -> bool {
    match op {
        Op::Make { .. } => files.contains(&FileId(id)),
        Op::Link { file, .. } | Op::Write { file, .. } | Op::Attr { file, .. } => {
            files.contains(file)
        }
        Op::Place { entry, .. } | Op::Unlink { entry, .. } => entries.contains(entry),
        Op::Found { .. } => files.contains(&FileId::ROOT),
        Op::Ack | Op::Role { .. } | Op::Cut { .. } | Op::Epoch { .. } => false,
    }
}

impl Judged<'_> {
    fn op(&mut self, stamp: &Stamp<'_>, op: &Op, is_news: bool) -> Result<(), MergeError> {
        let id = stamp.id;
        let verdict = judge(self.members, self, stamp, op);
        let made = Made::by(op);
        let (is_void, was_void) = (verdict != Verdict::Stands, self.before.contains_key(&id));
        if let (Op::Link { file, .. }, true) = (op, is_news || was_void) {
            self.links.insert(id, *file);
        }
        if is_news {
            self.news.extend(made.map(|made| (id, made)));
        }
        let bits = made.map_or(0, made_bits);
        if is_void {
            self.voids.insert(id, bits);
        }
        if is_news {
            self.changes.extend(is_void.then_some((id, Some(bits))));
        } else if is_void != was_void {
            tracing::info!("op {id:?}, which was folded before, now is: {verdict:?}");
            self.changes.push((id, is_void.then_some(bits)));
            let file = self.file_of(id, op)?;
            self.files.extend(file);
        }
        Ok(())
    }

    /// The file or directory on which an op bears.
    fn file_of(&self, id: OpId, op: &Op) -> Result<Option<FileId>, MergeError> {
        Ok(match op {
            Op::Make { .. } => Some(FileId(id)),
            Op::Link { file, .. } | Op::Write { file, .. } | Op::Attr { file, .. } => Some(*file),
            Op::Place { entry, .. } | Op::Unlink { entry, .. } => {
                let kept = self.merger.store.merged_entry(*entry)?.map(|entry| entry.inode);
                kept.or_else(|| self.links.get(&entry.0).copied()).or(Some(FileId(entry.0)))
            }
            Op::Found { .. } | Op::Ack | Op::Role { .. } | Op::Cut { .. } | Op::Epoch { .. } => {
                None
            }
        })
    }
}

impl Delivered for Judged<'_> {
    fn made(&self, op: OpId) -> Option<Made> {
        if let Some(made) = self.news.get(&op) {
            return Some(*made);
        }
        if let Some(bits) = self.before.get(&op) {
            return made_of_bits(*bits);
        }
        let entry = self.failing.get(self.merger.store.merged_entry(EntryId(op))).flatten()?;
        Some(Made { is_directory: entry.is_directory, is_inode: entry.inode.0 == op })
    }

    fn is_void(&self, op: OpId) -> bool {
        self.voids.contains_key(&op)
    }

    fn reach(&self, _: OpId) -> Option<Key> {
        None
    }
}
