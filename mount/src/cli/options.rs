//! `-o` options, as `mount(8)` and `sshfs` have them, and being called by `mount(8)`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tidefs::types::ConflictResolution;
use tidefs::types::limits::{
    CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CONCURRENT_OPS_MAX, REQUEST_CHUNKS_MAX,
};
use tidefs_mount::session::MountOptions;
use tidefs_mount::share::ShareOptions;

/// Handed to the kernel as they are.
const KERNEL: &[&str] = &[
    "dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime", "noatime", "dirsync", "sync",
    "async",
];
/// For `mount(8)` and `fstab(5)` alone, or always so.
const IGNORED: &[&str] = &[
    "defaults",
    "default_permissions",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "group",
    "owner",
    "nofail",
    "_netdev",
    "relatime",
    "strictatime",
    "lazytime",
    "nodiratime",
    "diratime",
];
/// Likewise, with a value; the later ones are those that `/proc/mounts` shows, which `mount(8)` hands
/// back with `remount`.
const IGNORED_PAIRS: &[&str] =
    &["subtype", "comment", "uid", "gid", "user_id", "group_id", "max_read", "blksize"];
const NAMES: &[&str] = &["mount.tidefs", "mount.fuse.tidefs"];

/// What `-o` says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// For the kernel.
    pub mount: MountOptions,
    /// `remount`: change the flags of a mount that is there.
    pub remount: bool,
    /// `workspace=`.
    pub workspace: Option<String>,
    /// `state=`.
    pub state: Option<PathBuf>,
    /// `max_memory_mb=`.
    pub max_memory_mb: Option<u64>,
    /// `chunk_size=`, in bytes.
    pub chunk_bytes_max: Option<usize>,
    /// `conflict_resolution=`.
    pub conflict_resolution: Option<ConflictResolution>,
    /// `listen=`, `relay=` and `lan`.
    pub share: ShareOptions,
    /// `no_encryption`.
    pub no_encryption: bool,
    /// `no_compression`.
    pub no_compression: bool,
}

/// Reads `-o` options, separated by commas.
///
/// # Errors
/// An unknown option, by name.
pub fn parse(given: &[String]) -> anyhow::Result<Options> {
    let mut options = Options::default();
    for option in given.iter().flat_map(|list| list.split(',')).filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("fsname", name)) => name.clone_into(&mut options.mount.fsname),
            Some(("workspace", name)) => options.workspace = Some(name.to_owned()),
            Some(("state", dir)) => options.state = Some(dir.into()),
            Some(("max_memory_mb", mib)) => {
                let mib = mib.parse().with_context(|| format!("max_memory_mb={mib}"))?;
                options.max_memory_mb = Some(mib);
            }
            Some(("chunk_size", size)) => options.chunk_bytes_max = Some(chunk_size(size)?),
            Some((key @ "max_concurrent_ops", count)) => {
                options.share.max_concurrent_ops = Some(within(key, count, CONCURRENT_OPS_MAX)?);
            }
            Some((key @ "batch_size", count)) => {
                options.share.batch_size = Some(within(key, count, REQUEST_CHUNKS_MAX)?);
            }
            Some(("conflict_resolution", way)) => {
                let way = way.parse().map_err(anyhow::Error::msg)?;
                options.conflict_resolution = Some(way);
            }
            Some(("listen", socket)) => {
                let socket = socket.parse().with_context(|| format!("listen={socket}"))?;
                options.share.listen.push(socket);
            }
            Some(("relay", url)) => options.share.relays.push(url.to_owned()),
            Some((key, _)) if IGNORED_PAIRS.contains(&key) => {}
            _ if option.starts_with("x-") => {}
            _ => set_flag(&mut options, option)?,
        }
    }
    Ok(options)
}

/// A count from 1 up to `max`.
fn within(key: &str, count: &str, max: usize) -> anyhow::Result<usize> {
    match count.parse() {
        Ok(count) if (1..=max).contains(&count) => Ok(count),
        _ => bail!("{key}={count}: give a number from 1 to {max}"),
    }
}

/// Bytes, or with K, KiB, M or MiB behind.
fn chunk_size(size: &str) -> anyhow::Result<usize> {
    let number = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_bytes = match &size[number.len()..] {
        "" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        _ => 0,
    };
    let bytes = number.parse().ok().and_then(|number: usize| number.checked_mul(unit_bytes));
    match bytes {
        Some(bytes) if (CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&bytes) => Ok(bytes),
        _ => bail!(
            "chunk_size={size}: give {} KiB to {} MiB, as 1M or 262144",
            CHUNK_BYTES_MIN >> 10,
            CHUNK_BYTES_MAX >> 20
        ),
    }
}

fn set_flag(options: &mut Options, option: &str) -> anyhow::Result<()> {
    match option {
        "allow_other" => options.mount.allow_other = true,
        "lan" => options.share.lan_discovery = true,
        "ro" => options.mount.read_only = true,
        "rw" => options.mount.read_only = false,
        "remount" => options.remount = true,
        "writeback" => options.mount.writeback = true,
        "no_open" => options.mount.no_open = true,
        "no_encryption" => options.no_encryption = true,
        "no_compression" => options.no_compression = true,
        _ if KERNEL.contains(&option) => options.mount.options.push(option.to_owned()),
        _ if IGNORED.contains(&option) => {}
        _ => bail!(
            "unknown option `-o {option}`; known: allow_other, ro, rw, remount, fsname=, workspace=, state=, \
             max_memory_mb=, chunk_size=, max_concurrent_ops=, batch_size=, conflict_resolution=, no_encryption, no_compression, listen=, relay=, lan, {}, {}",
            KERNEL.join(", "),
            IGNORED.join(", ")
        ),
    }
    Ok(())
}

/// The command line in our own form, if `mount(8)` calls us as `mount.tidefs NAME DIR [-sfnv]
/// [-o OPTIONS]`, or `mount.fuse3(8)`, for the type `fuse.tidefs`, as `tidefs NAME DIR -o OPTIONS`.
pub fn as_mount_helper(arguments: Vec<OsString>) -> Option<anyhow::Result<Vec<OsString>>> {
    let name = Path::new(arguments.first()?).file_name()?.to_str()?;
    let by_mount_fuse = arguments.get(3).is_some_and(|argument| argument == "-o")
        && !arguments[1..3]
            .iter()
            .any(|a| super::is_command(a) || a.as_encoded_bytes().first() == Some(&b'-'));
    let is_root = rustix::process::geteuid().is_root();
    (NAMES.contains(&name) || by_mount_fuse).then(|| helper_arguments(arguments, is_root))
}

/// Set-id bits and devices work unless options say otherwise, as for every filesystem that
/// `mount(8)` mounts for root: it does not hand `suid` and `dev` on, being the default.
fn helper_arguments(arguments: Vec<OsString>, is_root: bool) -> anyhow::Result<Vec<OsString>> {
    let mut rest = arguments.into_iter().skip(1);
    let (Some(name), Some(dir)) = (rest.next(), rest.next()) else {
        bail!("usage: mount.tidefs WORKSPACE DIR [-o OPTIONS]");
    };
    let mut ours: Vec<OsString> = vec!["tidefs".into(), "mount".into(), dir];
    let mut named = false;
    let mut defaults = if is_root { vec!["suid", "dev"] } else { Vec::new() };
    while let Some(argument) = rest.next() {
        if argument == "-o" {
            let list = rest.next().context("-o wants options behind it")?;
            for option in list.to_string_lossy().split(',') {
                named |= option.starts_with("workspace=");
                defaults.retain(|default| option.strip_prefix("no") != Some(default));
            }
            ours.extend(["-o".into(), list]);
        }
    }
    if !defaults.is_empty() {
        ours.extend(["-o".into(), defaults.join(",").into()]);
    }
    if !named {
        ours.extend(["--workspace".into(), name]);
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_may_come_in_one_list_or_several() {
        let given = ["allow_other,noatime".to_owned(), "ro,max_memory_mb=64,x-systemd.a=b".into()];
        let options = parse(&given).expect("known");
        assert!(options.mount.allow_other && options.mount.read_only);
        assert_eq!(options.mount.options, ["noatime"]);
        assert_eq!(options.max_memory_mb, Some(64));
    }

    #[test]
    fn what_is_beyond_its_bound_is_refused_with_the_bound() {
        let given = "chunk_size=1M,max_concurrent_ops=3,batch_size=7".to_owned();
        let options = parse(&[given]).expect("in range");
        assert_eq!(options.chunk_bytes_max, Some(1 << 20));
        assert_eq!(options.share.max_concurrent_ops, Some(3));
        assert_eq!(options.share.batch_size, Some(7));
        for (bad, bound) in [
            ("chunk_size=8M", "4 MiB"),
            ("chunk_size=1K", "256 KiB"),
            ("chunk_size=1T", "256 KiB"),
            ("chunk_size=99999999999999999999M", "256 KiB"),
            ("max_concurrent_ops=0", "256"),
            ("batch_size=x", "256"),
        ] {
            let error = parse(&[bad.to_owned()]).expect_err(bad).to_string();
            assert!(error.contains(bad) && error.contains(bound), "{error}");
        }
    }

    #[test]
    fn an_unknown_option_is_named() {
        let error = parse(&["allow_otter".to_owned()]).expect_err("unknown");
        assert!(error.to_string().contains("allow_otter"));
    }

    #[test]
    fn a_line_of_fstab_becomes_our_command() {
        let line = ["/sbin/mount.tidefs", "work", "/home/ada/work", "-n", "-o", "rw,allow_other"];
        let line = || line.iter().map(OsString::from).collect::<Vec<_>>();
        let ours = helper_arguments(line(), false).expect("complete");
        let expected =
            ["tidefs", "mount", "/home/ada/work", "-o", "rw,allow_other", "--workspace", "work"];
        assert_eq!(ours, expected.map(OsString::from));
        assert!(as_mount_helper(line()).is_some(), "by that name");
        assert!(as_mount_helper(vec!["tidefs".into(), "mount".into()]).is_none());
    }

    #[test]
    fn what_root_mounts_through_fstab_has_devices_and_set_id_bits_unless_told_otherwise() {
        let words = |options: &str| {
            let line = ["mount.tidefs", "work", "/work", "-o", options].map(OsString::from);
            let ours = helper_arguments(line.to_vec(), true).expect("complete");
            ours.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert!(words("rw").contains(&"suid,dev".to_owned()));
        assert!(words("rw,nosuid").contains(&"dev".to_owned()));
        assert_eq!(words("nodev,nosuid").iter().filter(|word| *word == "-o").count(), 1);
    }

    #[test]
    fn a_remount_gets_back_what_proc_mounts_shows() {
        let shown = "remount,ro,nosuid,nodev,relatime,user_id=0,group_id=0,default_permissions";
        let options = parse(&[shown.to_owned()]).expect("known");
        assert!(options.remount && options.mount.read_only);
        assert_eq!(options.mount.options, ["nosuid", "nodev"]);
    }

    #[test]
    fn the_helper_of_fuse_types_is_known_from_our_own_commands() {
        let by_mount_fuse = ["tidefs", "work", "/mnt", "-o", "rw"].map(OsString::from);
        assert!(as_mount_helper(by_mount_fuse.to_vec()).is_some());
        let by_hand = ["tidefs", "mount", "/mnt", "-o", "ro"].map(OsString::from);
        assert!(as_mount_helper(by_hand.to_vec()).is_none());
        let with_state = ["tidefs", "--state", "/s", "-o", "ro"].map(OsString::from);
        assert!(as_mount_helper(with_state.to_vec()).is_none());
    }
}
