//! The tree that the merge room itself makes of all batches that a device has, folded from scratch.

use std::collections::{BTreeMap, HashMap};

use rand::RngExt;
use rand::rngs::StdRng;

use tidefs::chunk::{Sealer, WorkspaceSecret};
use tidefs::codec::{decode_batch, decode_ops};
use tidefs::engine::Workspace;
use tidefs::engine::sync::Replica as _;
use tidefs::env::Env;
use tidefs::merge::{Key, Policy, RowKind, list};
use tidefs::types::{
    Batch, ConflictResolution, Content, DeviceId, FileId, Hlc, Op, OpId, Role, VersionId,
};

use super::devices::Device;
use super::replica::{Replica, Signed};

/// What a row is: a directory, or a file and its content where an op tells it.
#[derive(PartialEq, Eq, Debug)]
pub enum Shown {
    Directory,
    File(Option<String>),
}

pub type Tree = BTreeMap<String, Shown>;

/// What the merge room makes of it, in a random causal order.
pub fn tree_from_scratch(
    device: &Device,
    conflicts: ConflictResolution,
    random: &mut StdRng,
) -> Tree {
    let journals = journals(device);
    let numbers: HashMap<DeviceId, u16> =
        journals.iter().zip(0..).map(|(batches, number)| (batches[0].journal, number)).collect();
    let mut replica = Replica::new(vec![(0, Role::Admin)]);
    let mut at: Vec<usize> = vec![0; journals.len()];
    let mut heard: Vec<BTreeMap<u16, u64>> = vec![BTreeMap::new(); journals.len()];
    let mut last: Vec<u64> = vec![0; journals.len()];
    let mut contents = HashMap::new();
    let sealer = sealer(device);
    loop {
        let due: Vec<usize> = (0..journals.len())
            .filter(|number| {
                journals[*number].get(at[*number]).is_some_and(|batch| {
                    let mut past = batch.frontier_delta.iter();
                    past.all(|(of, seq)| last[usize::from(numbers[of])] >= *seq)
                })
            })
            .collect();
        if due.is_empty() {
            break;
        }
        let number = due[random.random_range(0..due.len())];
        let batch = &journals[number][at[number]];
        at[number] += 1;
        last[number] = batch.seq + u64::from(batch.count) - 1;
        heard[number].extend(batch.frontier_delta.iter().map(|(of, seq)| (numbers[of], *seq)));
        let context = [&batch.journal.0[..], &batch.seq.to_le_bytes()].concat();
        let plain =
            sealer.open_record(&context, (batch.epoch, &batch.sealed_ops), 1 << 24).expect("opens");
        let ops = decode_ops(&plain, |device| Some(numbers.get(device).copied().unwrap_or(999)));
        for (op, offset) in ops.expect("decodes").into_iter().zip(0..) {
            let id = OpId::new(u16::try_from(number).expect("few"), batch.seq + offset);
            let key = Key { hlc: Hlc(batch.hlc.0 + offset), device: batch.journal };
            if let Op::Write { content: Content::Inline(bytes), .. } = &op {
                contents.insert(VersionId(id), String::from_utf8_lossy(bytes).into_owned());
            }
            replica.deliver(&Signed { id, key, frontier: heard[number].clone(), op });
        }
    }
    assert!(at.iter().zip(&journals).all(|(at, batches)| *at == batches.len()), "all were due");
    let mut tree = Tree::new();
    walk(device, &replica, conflicts, (String::new(), vec![FileId::ROOT]), &contents, &mut tree);
    tree
}

fn walk(
    device: &Device,
    replica: &Replica,
    conflicts: ConflictResolution,
    (path, directories): (String, Vec<FileId>),
    contents: &HashMap<VersionId, String>,
    tree: &mut Tree,
) {
    let names = device.fs.replica().device_names().expect("reads");
    let policy = Policy { keeps_both: conflicts.shows_siblings(), is_caseless: false };
    let label = |device: &DeviceId| names.label(device);
    let Ok(rows) = list(&replica.state, &directories, policy, &label);
    for row in rows {
        let name = String::from_utf8_lossy(row.name.as_bytes()).into_owned();
        let below = if path.is_empty() { name } else { format!("{path}/{name}") };
        if row.kind == RowKind::Directory {
            let inside = row.entries.iter().map(|entry| FileId(entry.0)).collect();
            walk(device, replica, conflicts, (below.clone(), inside), contents, tree);
            tree.insert(below, Shown::Directory);
        } else {
            let content = row.head.and_then(|head| contents.get(&head).cloned());
            tree.insert(below, Shown::File(content));
        }
    }
}

/// Of each journal that has any, all batches; the founder's first.
pub fn journals(device: &Device) -> Vec<Vec<Batch>> {
    let replica = device.fs.replica();
    let founder = replica.founder();
    let mut journals = Vec::new();
    for (journal, last) in replica.frontier() {
        let mut batches: Vec<Batch> = Vec::new();
        let mut after = 0;
        while after < last {
            for bytes in replica.batches(&journal, after, 1 << 20).expect("are read") {
                let batch = decode_batch(&bytes).expect("decodes");
                after = batch.seq + u64::from(batch.count) - 1;
                batches.push(batch);
            }
        }
        journals.push(batches);
    }
    journals.sort_by_key(|batches| batches[0].journal != founder);
    journals
}

/// What opens all that a device can open.
pub fn sealer(device: &Device) -> Sealer {
    let secret = Workspace::secret(&device.dir, &Env::real()).expect("is read");
    let settings = Workspace::settings(&device.dir, &Env::real()).expect("is read");
    let secret = WorkspaceSecret(secret.0);
    let sealer = Sealer::new(settings.encryption.then_some(&secret), true);
    for epoch in device.fs.replica().own_epochs() {
        sealer.add_epoch(epoch.epoch.number, &WorkspaceSecret(epoch.secret.0));
    }
    sealer
}
