//! What a workspace holds, told without its lock.

use std::path::Path;

use serde::Serialize;

use super::{EngineError, Workspace};
use crate::env::Env;
use crate::store::{Counts, Store};

/// A workspace at a glance, as of its last commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// Are chunks and ops encrypted?
    pub encryption: bool,
    /// Are chunks compressed where that helps?
    pub compression: bool,
    /// What it holds.
    #[serde(flatten)]
    pub counts: Counts,
    /// While it is being filled from another device: how many names have come.
    pub loading_names: Option<u64>,
    /// Journals of which only the end is here: what came before is still being fetched.
    pub journals_cut: u64,
    /// Files that were changed on devices apart, and that nobody has settled since.
    pub conflicts: u64,
    /// How they are shown.
    pub conflict_resolution: String,
    /// Free on the disk below, in bytes.
    pub disk_free_bytes: u64,
    /// Size of the disk below, in bytes.
    pub disk_total_bytes: u64,
}

/// The status of the workspace in `dir`, which may be mounted meanwhile. Reads the database's keys.
///
/// # Errors
/// [`EngineError::Missing`], or the store's.
pub fn status(dir: &Path, env: &Env) -> Result<Status, EngineError> {
    let settings = Workspace::settings(dir, env)?;
    let store = Store::look(dir, env)?;
    let space = store.free_space()?;
    let counts = store.counts()?;
    // The root has no name of a user's.
    let counts = Counts { files: counts.files.saturating_sub(1), ..counts };
    Ok(Status {
        name: settings.name,
        id: settings.workspace.to_string(),
        encryption: settings.encryption,
        compression: settings.compression,
        counts,
        loading_names: store.loading()?,
        journals_cut: store.bases()?.len() as u64,
        conflicts: store.conflicts()?,
        conflict_resolution: store.conflicts_shown()?.to_string(),
        disk_free_bytes: space.available_bytes,
        disk_total_bytes: space.total_bytes,
    })
}
