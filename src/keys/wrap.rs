//! A secret, sealed for one device: HPKE (RFC 9180) to the device's own key, in its X25519 form.

use ed25519_dalek::VerifyingKey;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open};
use zeroize::Zeroizing;

use super::DeviceKey;
use crate::types::{DeviceId, WrappedSecret};

const INFO: &[u8] = b"tidefs 2026-11 epoch secret";
const KEY_BYTES: usize = 32;

/// Opens what was sealed for one device.
#[derive(Clone)]
pub struct Opener(Zeroizing<[u8; KEY_BYTES]>);

impl DeviceKey {
    /// What opens secrets that were sealed for this device.
    pub fn opener(&self) -> Opener {
        Opener(Zeroizing::new(self.0.to_scalar_bytes()))
    }
}

/// Seals `secret` for a device, bound to `context`; `drawn` are fresh random bytes. `None` if no
/// device can have this id.
pub fn wrap(
    secret: &[u8; 32],
    to: &DeviceId,
    context: &[u8],
    drawn: &[u8; 32],
) -> Option<WrappedSecret> {
    let key = VerifyingKey::from_bytes(&to.0).ok()?.to_montgomery().to_bytes();
    let key = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&key).ok()?;
    let mut random = Drawn(drawn);
    let (front, sealed) = hpke::single_shot_seal_with_rng::<
        ChaCha20Poly1305,
        HkdfSha256,
        X25519HkdfSha256,
    >(&OpModeS::Base, &key, INFO, secret, context, &mut random)
    .ok()?;
    WrappedSecret::from_bytes(&[&front.to_bytes()[..], &sealed].concat())
}

/// Bytes that were drawn before: as many as the one ephemeral key takes.
struct Drawn<'a>(&'a [u8]);

impl TryRng for Drawn<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        let (taken, rest) =
            self.0.split_at_checked(out.len()).expect("an ephemeral key is drawn from 32 bytes");
        out.copy_from_slice(taken);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Drawn<'_> {}

impl Opener {
    /// Back from [`wrap`]; `None` if it was sealed for another device, or for another context.
    pub fn unwrap(&self, wrapped: &WrappedSecret, context: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let bytes = wrapped.to_bytes();
        let (front, sealed) = bytes.split_at(KEY_BYTES);
        let front = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(front).ok()?;
        let key = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&self.0[..]).ok()?;
        let opened = single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &key,
            &front,
            INFO,
            sealed,
            context,
        );
        let opened = Zeroizing::new(opened.ok()?);
        Some(Zeroizing::new(<[u8; 32]>::try_from(&opened[..]).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_for_a_device_opens_there_and_in_its_context_alone() {
        let (ada, bob) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]));
        let secret = [9; 32];
        let wrapped = wrap(&secret, &bob.device(), b"epoch 1", &[3; 32]).expect("is sealed");
        let again = wrap(&secret, &bob.device(), b"epoch 1", &[4; 32]).expect("is sealed");
        assert_ne!(wrapped, again);
        assert_eq!(bob.opener().unwrap(&wrapped, b"epoch 1").as_deref(), Some(&secret));
        assert!(bob.opener().unwrap(&wrapped, b"epoch 2").is_none());
        assert!(ada.opener().unwrap(&wrapped, b"epoch 1").is_none());
        // A point of small order, with which every shared secret would be the same.
        let mut small = [0; 32];
        small[0] = 1;
        assert!(wrap(&secret, &DeviceId(small), b"epoch 1", &[3; 32]).is_none());
    }
}
