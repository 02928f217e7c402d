use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::codec::encode_batch;
use crate::types::{Batch, ChunkId, DeviceId, JoinRequest, Refusal, Welcome, WorkspaceId};

/// Journals alone.
struct Journals(BTreeMap<DeviceId, Vec<Vec<u8>>>);

impl Replica for Journals {
    fn workspace(&self) -> WorkspaceId {
        WorkspaceId([0; 16])
    }
    fn device(&self) -> DeviceId {
        DeviceId([0; 32])
    }
    fn is_member(&self, _: &DeviceId) -> bool {
        true
    }
    fn members(&self) -> Vec<DeviceId> {
        self.0.keys().copied().collect()
    }
    fn frontier(&self) -> Frontier {
        self.0.iter().map(|(device, journal)| (*device, journal.len() as u64)).collect()
    }
    fn batches(&self, of: &DeviceId, after: u64, max: usize) -> Result<Vec<Vec<u8>>, ReplicaError> {
        let (mut total, mut found) = (0, Vec::new());
        let after = usize::try_from(after).expect("small");
        for bytes in self.0[of].iter().skip(after) {
            total += bytes.len();
            if total > max && !found.is_empty() {
                break;
            }
            found.push(bytes.clone());
        }
        Ok(found)
    }
    fn deliver(
        &self,
        _: &DeviceId,
        _: Vec<Vec<u8>>,
        _: Vec<(ChunkId, Vec<u8>)>,
    ) -> Result<(), ReplicaError> {
        Ok(())
    }
    fn read_chunk(&self, _: &ChunkId) -> Result<Option<Vec<u8>>, ReplicaError> {
        Ok(None)
    }
    fn store_chunks(&self, _: Vec<(ChunkId, Vec<u8>)>) -> Result<(), ReplicaError> {
        Ok(())
    }
    fn missing_chunks(&self, _: usize, _: &HashSet<ChunkId>) -> Vec<ChunkId> {
        Vec::new()
    }
    fn admit(&self, _: &DeviceId, _: &JoinRequest) -> Result<Welcome, ReplicaError> {
        Err(ReplicaError::NotAdmitted(Refusal::Failed))
    }
}

fn batch(journal: u8, seq: u64, hlc: u64, ops_bytes: usize) -> Vec<u8> {
    encode_batch(&Batch {
        journal: DeviceId([journal; 32]),
        seq,
        count: 1,
        hlc: Hlc(hlc),
        epoch: 0,
        previous: [0; 32],
        frontier_delta: Vec::new(),
        sealed_ops: vec![0; ops_bytes],
        signature: [0; 64],
    })
}

/// Takes all there is, frame by frame; returns the clocks in the order sent, and the frames' sizes.
fn all(journals: &Journals) -> (Vec<u64>, Vec<usize>) {
    let mut known: Frontier = journals.0.keys().map(|device| (*device, 0)).collect();
    let (mut clocks, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let end = journals.frontier();
        let lacking =
            known.iter().filter(|(d, seq)| end[*d] > **seq).map(|(d, seq)| (*d, *seq)).collect();
        if Frontier::is_empty(&lacking) {
            return (clocks, sizes);
        }
        let (batches, upto) = collect(journals, &lacking).expect("reads");
        assert!(!batches.is_empty(), "each frame brings it further");
        sizes.push(batches.iter().map(|batch| batch.0.len()).sum());
        clocks.extend(batches.iter().map(|b| batch_span(&b.0).expect("a batch").hlc.0));
        known.extend(upto);
    }
}

#[test]
fn journals_are_interleaved_by_clock_however_unequal_their_windows() {
    // The second journal's batches are large, so its window ends early each time.
    let small = (1..=400).map(|seq| batch(1, seq, seq * 10, 100)).collect();
    let large = (1..=20).map(|seq| batch(2, seq, seq * 190 + 5, 300 << 10)).collect();
    let journals =
        Journals(BTreeMap::from([(DeviceId([1; 32]), small), (DeviceId([2; 32]), large)]));
    let (clocks, sizes) = all(&journals);
    assert_eq!(clocks.len(), 420);
    assert!(clocks.is_sorted(), "causes before effects");
    assert!(sizes.iter().all(|bytes| *bytes <= PUSH_BYTES), "{sizes:?}");
}

#[test]
fn a_batch_larger_than_a_frame_should_be_goes_alone() {
    let journal = vec![batch(1, 1, 1, 10), batch(1, 2, 2, 3 << 20), batch(1, 3, 3, 10)];
    let journals = Journals(BTreeMap::from([(DeviceId([1; 32]), journal)]));
    let (clocks, sizes) = all(&journals);
    assert_eq!(clocks, vec![1, 2, 3]);
    assert!(sizes.len() >= 2 && sizes.iter().any(|bytes| *bytes > 3 << 20), "{sizes:?}");
}
