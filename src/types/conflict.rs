//! What becomes of a file that was changed on two devices apart.

use std::fmt;
use std::str::FromStr;

/// Which of a file's heads a device shows, and who decides between them. Each device has its own:
/// nothing is lost by any, and all devices keep every head until one supersedes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConflictResolution {
    /// The newest bears the name; the others are kept in history, and the next write supersedes
    /// them.
    #[default]
    LastWriteWins,
    /// The newest bears the name; the others stand beside it.
    KeepBoth,
    /// As [`ConflictResolution::KeepBoth`], and `tidefs status` counts them until a person has
    /// decided.
    Manual,
    /// Texts are merged where their changes do not touch; else as
    /// [`ConflictResolution::KeepBoth`].
    Merge,
}

impl ConflictResolution {
    /// All, in the order of their numbers in the store.
    pub const ALL: [Self; 4] = [Self::LastWriteWins, Self::KeepBoth, Self::Manual, Self::Merge];

    /// Do the other heads have names?
    pub fn shows_siblings(self) -> bool {
        self != Self::LastWriteWins
    }

    /// As configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::LastWriteWins => "LastWriteWins",
            Self::KeepBoth => "KeepBoth",
            Self::Manual => "Manual",
            Self::Merge => "Merge",
        }
    }
}

impl fmt::Display for ConflictResolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ConflictResolution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|way| way.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("{text} is none of LastWriteWins, KeepBoth, Manual, Merge"))
    }
}
