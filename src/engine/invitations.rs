//! Invitations that this device has made: a file each, under the digest of its token.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::EngineError;
use crate::env::Env;
use crate::types::{DeviceId, Refusal, Role, Token};

const DIR: &str = "invitations";

#[derive(Serialize, Deserialize)]
struct Invitation {
    role: Role,
    expires_unix_s: u64,
    /// Who has used it, in hexadecimal digits.
    used_by: Option<String>,
}

/// The invitations of a workspace whose state is in one directory.
pub struct Invitations {
    dir: PathBuf,
    env: Env,
}

impl Invitations {
    /// Of the workspace in `dir`.
    pub fn of(dir: &Path, env: &Env) -> Self {
        Self { dir: dir.join(DIR), env: env.clone() }
    }

    /// Draws a token and notes what it is good for. Durable on return.
    ///
    /// # Errors
    /// The disk's.
    pub fn add(&self, role: Role, expires_unix_s: u64) -> Result<Token, EngineError> {
        let mut token = Token([0; 16]);
        self.env.random.fill(&mut token.0);
        let on_disk = |source| EngineError::Disk { path: self.dir.clone(), source };
        self.env.disk.create_dir_all(&self.dir).map_err(on_disk)?;
        self.put(&token, &Invitation { role, expires_unix_s, used_by: None })?;
        Ok(token)
    }

    /// The role that a token gives to `joiner`, which it is now used by.
    ///
    /// # Errors
    /// The refusal, inside; the disk's.
    pub fn redeem(
        &self,
        token: &Token,
        joiner: &DeviceId,
    ) -> Result<Result<Role, Refusal>, EngineError> {
        let path = self.path(token);
        let Ok(bytes) = self.env.disk.read(&path) else {
            return Ok(Err(Refusal::UnknownInvitation));
        };
        let mut invitation: Invitation = serde_json::from_slice(&bytes)
            .map_err(|error| EngineError::Damaged { path, why: error.to_string() })?;
        match &invitation.used_by {
            Some(user) if *user == joiner.to_string() => return Ok(Ok(invitation.role)),
            Some(_) => return Ok(Err(Refusal::UsedInvitation)),
            None => {}
        }
        let now = u64::try_from(self.env.clock.now().secs).unwrap_or(0);
        if now >= invitation.expires_unix_s {
            return Ok(Err(Refusal::ExpiredInvitation));
        }
        invitation.used_by = Some(joiner.to_string());
        self.put(token, &invitation)?;
        Ok(Ok(invitation.role))
    }

    fn path(&self, token: &Token) -> PathBuf {
        self.dir.join(token.digest())
    }

    fn put(&self, token: &Token, invitation: &Invitation) -> Result<(), EngineError> {
        let path = self.path(token);
        let bytes = serde_json::to_vec(invitation)
            .map_err(|error| EngineError::Damaged { path: path.clone(), why: error.to_string() })?;
        self.env.disk.write(&path, &bytes).map_err(|source| EngineError::Disk { path, source })
    }
}
