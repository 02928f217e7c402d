//! Parts as they come: verified, in order, opened.

use std::sync::Arc;

use super::{SnapshotError, context};
use crate::chunk::Sealer;
use crate::codec::{decode_page, decode_part, encode_unsigned_part, part_hash};
use crate::keys::is_signed_by;
use crate::types::limits::SNAPSHOT_PAGE_BYTES_HARD_MAX;
use crate::types::{DeviceId, SnapshotPage, WorkspaceId};

/// Takes in the parts of one snapshot.
pub struct Hearing {
    sealer: Arc<Sealer>,
    teller: DeviceId,
    workspace: WorkspaceId,
    next: u32,
    previous: [u8; 32],
    is_over: bool,
}

impl Hearing {
    /// Of this workspace, told by this device, which is trusted to tell it.
    pub fn new(sealer: Arc<Sealer>, teller: DeviceId, workspace: WorkspaceId) -> Self {
        Self { sealer, teller, workspace, next: 0, previous: [0; 32], is_over: false }
    }

    /// The device that tells it.
    pub fn teller(&self) -> DeviceId {
        self.teller
    }

    /// What an encoded part holds, and whether it is the last. Nothing of it is looked at before the
    /// signature is.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with it.
    pub fn hear(&mut self, encoded: &[u8]) -> Result<(SnapshotPage, bool), SnapshotError> {
        let part = decode_part(encoded)?;
        if !is_signed_by(&self.teller, &encode_unsigned_part(&part), &part.signature) {
            return Err(SnapshotError::Signature(part.index));
        }
        if part.workspace != self.workspace {
            return Err(SnapshotError::Workspace);
        }
        if part.index != self.next || part.previous != self.previous || self.is_over {
            return Err(SnapshotError::Order { expected: self.next, found: part.index });
        }
        let context = context(part.index);
        let plain =
            self.sealer.open_record(&context, (0, &part.sealed), SNAPSHOT_PAGE_BYTES_HARD_MAX)?;
        let page = decode_page(&plain)?;
        if matches!(page, SnapshotPage::Head(_)) != (part.index == 0) {
            let why = "is not where it belongs";
            return Err(SnapshotError::Row { what: "head", id: u64::from(part.index), why });
        }
        self.next += 1;
        self.previous = part_hash(encoded);
        self.is_over = part.is_last;
        Ok((page, part.is_last))
    }
}
