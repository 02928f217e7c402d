//! POSIX meaning.
