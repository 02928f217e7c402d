//! What devices are called.
//!
//! A name is an attribute of the root directory, in a namespace that no user sees. So it is signed,
//! replicated and merged like every other attribute, and the newest counts on all devices alike.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::DeviceId;
use super::limits::DEVICE_NAME_BYTES_MAX;

/// Extended attributes whose names begin so are tidefs's own.
pub const RESERVED_ATTRS: &[u8] = b"tidefs.";
const DEVICE_ATTRS: &[u8] = b"tidefs.device.";

/// A device's name: 1 to 64 bytes, no `/`, no control character, no white space around it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceName(String);

/// Why a text cannot name a device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} cannot name a device: give 1 to {DEVICE_NAME_BYTES_MAX} bytes without `/` and control \
     characters, and no space at either end"
)]
pub struct DeviceNameError(String);

impl DeviceName {
    /// Checks and keeps `text`.
    ///
    /// # Errors
    /// [`DeviceNameError`] says what a name may be.
    pub fn new(text: &str) -> Result<Self, DeviceNameError> {
        let fits = (1..=DEVICE_NAME_BYTES_MAX).contains(&text.len());
        let plain = text.trim() == text && !text.chars().any(|c| c == '/' || c.is_control());
        if fits && plain { Ok(Self(text.into())) } else { Err(DeviceNameError(text.into())) }
    }

    /// The name that comes nearest to `text`, as a machine's own may be anything.
    pub fn nearest(text: &str) -> Self {
        let kept = text.chars().filter(|c| *c != '/' && !c.is_control()).collect::<String>();
        let mut end = kept.len().min(DEVICE_NAME_BYTES_MAX);
        while !kept.is_char_boundary(end) {
            end -= 1;
        }
        Self::new(kept[..end].trim()).unwrap_or_else(|_| Self("device".into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceName {
    type Error = DeviceNameError;

    fn try_from(text: String) -> Result<Self, DeviceNameError> {
        Self::new(&text)
    }
}

impl From<DeviceName> for String {
    fn from(name: DeviceName) -> Self {
        name.0
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The extended attribute of the root that holds a device's name.
pub fn device_attr(device: &DeviceId) -> Vec<u8> {
    [DEVICE_ATTRS, device.to_string().as_bytes()].concat()
}

/// The names of the devices that have one, members or not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceNames(BTreeMap<DeviceId, DeviceName>);

impl DeviceNames {
    /// From the root's extended attributes. What no device or no name can be is passed over: on
    /// every device alike.
    pub fn from_attrs<'a>(attrs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let name = |(key, value): (&[u8], &[u8])| {
            let digits = std::str::from_utf8(key.strip_prefix(DEVICE_ATTRS)?).ok()?;
            let device = DeviceId::from_hex(digits).filter(|device| device_attr(device) == key)?;
            let name = DeviceName::new(std::str::from_utf8(value).ok()?).ok()?;
            Some((device, name))
        };
        Self(attrs.into_iter().filter_map(name).collect())
    }

    /// A device's name as it was given.
    pub fn get(&self, device: &DeviceId) -> Option<&DeviceName> {
        self.0.get(device)
    }

    /// What a device is called where it must not be taken for another: its name, with the first
    /// digits of its id where another bears it too, or these digits alone.
    pub fn label(&self, device: &DeviceId) -> String {
        let digits = &device.to_string()[..8];
        let Some(name) = self.0.get(device) else { return digits.to_owned() };
        let is_shared = self.0.values().filter(|other| *other == name).count() > 1;
        if is_shared { format!("{name} {digits}") } else { name.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_one_plain_line() {
        for good in ["ada-laptop", "Büro 2", "日本", &"x".repeat(64)] {
            assert_eq!(DeviceName::new(good).expect("good").as_str(), good);
        }
        for bad in ["", "a/b", "a\0", "a\nb", " a", "a ", "\u{85}", &"x".repeat(65)] {
            assert!(DeviceName::new(bad).is_err(), "{bad:?}");
            DeviceName::new(DeviceName::nearest(bad).as_str()).expect("the nearest is good");
        }
        assert_eq!(DeviceName::nearest(&"ü".repeat(40)).as_str(), "ü".repeat(32));
    }

    #[test]
    fn two_devices_of_one_name_are_told_apart_and_one_without_has_digits() {
        let attrs = [(1, "laptop"), (2, "laptop"), (3, "phone"), (4, "not/a name")];
        let attrs = attrs.map(|(id, name)| (device_attr(&DeviceId([id; 32])), name.as_bytes()));
        let names = DeviceNames::from_attrs(attrs.iter().map(|(key, value)| (&key[..], *value)));
        let labels = [1, 2, 3, 4, 5].map(|id| names.label(&DeviceId([id; 32])));
        let expected = ["laptop 01010101", "laptop 02020202", "phone", "04040404", "05050505"];
        assert_eq!(labels, expected);
    }

    #[test]
    fn attributes_that_name_no_device_are_passed_over() {
        let attrs = [
            (&b"tidefs.device."[..], &b"a"[..]),
            (b"tidefs.device.01", b"a"),
            (b"user.device", b"a"),
        ];
        assert_eq!(DeviceNames::from_attrs(attrs), DeviceNames::default());
    }
}
