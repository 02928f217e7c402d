//! Keeps freed memory from staying with the process: the bound that a user gave is of the whole.

/// Larger blocks (chunks of large files) go back to the system when freed. What a request of the
/// kernel takes, a mebibyte at most, is used again.
const MMAP_BYTES_MIN: libc::c_int = 1280 << 10;
/// So much of what is free at an arena's end stays with it: drafts and answers come and go by megabytes,
/// and each page that was given back is filled with zeros before it comes again.
const KEPT_BYTES: libc::c_int = 16 << 20;
/// Each arena keeps what its threads have freed, so there are few.
const ARENAS_MAX: libc::c_int = 2;

/// Sets up the C library's allocator. Called before any thread starts.
///
/// By its defaults it raises the first bound to 32 MiB as it goes, and makes eight arenas a core:
/// random access to a file of 10 GiB then took 819 MB where 512 were allowed.
#[expect(unsafe_code, reason = "mallopt has no safe form; the library only reads three numbers")]
pub fn give_back() {
    // SAFETY: no other thread runs yet, and each parameter takes any positive number
    // (mallopt(3)).
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_BYTES_MIN);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
}
