//! Who shares a workspace, as its store tells a process that does not serve it.

use std::path::Path;
use std::sync::Arc;

use super::EngineError;
use super::merger::Merger;
use super::workspace::Workspace;
use crate::chunk::{Sealer, WorkspaceSecret};
use crate::env::Env;
use crate::keys::DeviceKey;
use crate::store::Store;
use crate::types::{DeviceId, NameHasher, Role};

/// The members of the workspace in `dir` with their roles, and which of them this device is.
/// Another process may be serving it.
///
/// # Errors
/// [`EngineError::Missing`], or the store's.
pub fn members(dir: &Path, env: &Env) -> Result<Vec<(DeviceId, Role, bool)>, EngineError> {
    let settings = Workspace::settings(dir, env)?;
    let secret = Workspace::secret(dir, env)?;
    let own = DeviceKey::from_seed(&*Workspace::device_seed(dir, env)?).device();
    let secret = WorkspaceSecret(secret.0);
    let sealer = Sealer::new(settings.encryption.then_some(&secret), settings.compression);
    let hasher = NameHasher::derive(&secret.0);
    let store = Store::look(dir, env)?;
    let merger = Merger::open(store, Arc::new(sealer), hasher, 0)?;
    let roles = merger.roles().into_iter();
    Ok(roles.map(|(device, role)| (device, role, device == own)).collect())
}
