//! The device's key, the chain that a journal is, and secrets sealed for one device.
//!
//! The room owns signing and verifying. It refuses to know where keys and batches are kept.

mod chain;
mod wrap;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

pub use chain::{Chain, ChainError};
pub use wrap::{Opener, wrap};

use crate::types::DeviceId;

/// A device's secret key. Its public half is the device's id.
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// The key made of 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Whose key it is.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

/// Did `device` sign `message`?
pub fn is_signed_by(device: &DeviceId, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&device.0)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_message_and_device_alone() {
        let (ada, bob) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]));
        let signature = ada.sign(b"ops");
        assert!(is_signed_by(&ada.device(), b"ops", &signature));
        assert!(!is_signed_by(&ada.device(), b"oops", &signature));
        assert!(!is_signed_by(&bob.device(), b"ops", &signature));
        assert!(!is_signed_by(&DeviceId([0xff; 32]), b"ops", &signature));
    }
}
