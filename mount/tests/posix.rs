//! What programs rely on, through a real kernel.

mod kit;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::Path;

use kit::Mount;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags,
    SeekFrom as S, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).expect("the system's")
}

fn noise(len: usize) -> Vec<u8> {
    use rand::{Rng, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::SmallRng::seed_from_u64(len as u64).fill_bytes(&mut bytes);
    bytes
}

/// Runs a test on a fresh mount, and once more on what it left after a new mount.
fn on_mount(work: impl FnOnce(&Path), after: impl FnOnce(&Path)) {
    let Some(mount) = Mount::new() else { return };
    work(&mount.point());
    mount.restart()();
    after(&mount.point());
}

#[test]
fn rename_can_refuse_to_replace_and_can_exchange() {
    let check = |dir: &Path| {
        let (a, b) = (dir.join("a"), dir.join("b"));
        assert_eq!(fs::read(&a).expect("a"), b"b");
        assert_eq!(fs::read(&b).expect("b"), b"a");
    };
    on_mount(
        |dir| {
            let (a, b) = (dir.join("a"), dir.join("b"));
            fs::write(&a, b"a").expect("writes");
            fs::write(&b, b"b").expect("writes");
            let rename = |flags| rustix::fs::renameat_with(CWD, &a, CWD, &b, flags);
            assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
            rename(RenameFlags::EXCHANGE).expect("exchanges");
            check(dir);
        },
        check,
    );
}

#[test]
fn an_unlinked_file_lives_until_its_last_close() {
    on_mount(
        |dir| {
            let path = dir.join("gone");
            let mut file = File::create_new(&path).expect("creates");
            file.write_all(&noise(300_000)).expect("writes");
            fs::remove_file(&path).expect("removes");
            assert_eq!(file.metadata().expect("stats").nlink(), 0);
            file.write_all_at(b"still here", 100_000).expect("writes");
            file.sync_all().expect("syncs");
            let mut part = [0; 10];
            file.read_exact_at(&mut part, 100_000).ok();
            // The handle was opened for writing alone.
            assert!(!path.exists());
        },
        |dir| assert!(!dir.join("gone").exists()),
    );
}

#[test]
fn appends_of_two_handles_never_overwrite_each_other() {
    let check = |dir: &Path| {
        let text = fs::read_to_string(dir.join("log")).expect("reads");
        assert_eq!(text.lines().count(), 200);
        assert_eq!(text.lines().filter(|line| *line == "one").count(), 100);
    };
    on_mount(
        |dir| {
            let open = || {
                let mut options = OpenOptions::new();
                options.append(true).create(true).open(dir.join("log")).expect("opens")
            };
            let (mut one, mut two) = (open(), open());
            for _ in 0..100 {
                one.write_all(b"one\n").expect("writes");
                two.write_all(b"two\n").expect("writes");
            }
            check(dir);
        },
        check,
    );
}

#[test]
fn a_write_that_asks_not_to_append_goes_where_it_says() {
    on_mount(
        |dir| {
            let path = dir.join("log");
            fs::write(&path, b"12345678").expect("writes");
            let file = OpenOptions::new().read(true).append(true).open(&path).expect("opens");
            let no_append = rustix::io::ReadWriteFlags::from_bits_retain(0x20);
            match rustix::io::pwritev2(&file, &[io::IoSlice::new(b"xy")], 2, no_append) {
                Ok(count) => assert_eq!(count, 2),
                Err(Errno::OPNOTSUPP) => {
                    eprintln!("not tried: this kernel has no RWF_NOAPPEND");
                    return fs::write(&path, b"12xy5678").expect("writes");
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(file.metadata().expect("stats").len(), 8);
        },
        |dir| assert_eq!(fs::read(dir.join("log")).expect("reads"), b"12xy5678"),
    );
}

#[test]
fn a_write_without_privilege_clears_set_id_bits_and_stat_shows_it_at_once() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mode = |path: &Path| fs::metadata(path).expect("stats").mode() & 0o7777;
    on_mount(
        |dir| {
            let direct = i32::try_from(OFlags::DIRECT.bits()).expect("a flag");
            for (name, flags) in [("buffered", 0), ("direct", direct)] {
                let path = dir.join(name);
                fs::write(&path, noise(8192)).expect("writes");
                fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).expect("sets");
                assert_eq!(mode(&path), 0o6755);
                let mut options = OpenOptions::new();
                let file = options.write(true).custom_flags(flags).open(&path).expect("opens");
                let without_privilege = || {
                    let mut sets = capabilities(None).expect("has some");
                    sets.effective.remove(CapabilitySet::FSETID);
                    set_capabilities(None, sets).expect("gives one up");
                    file.write_all_at(&noise(4096), 0).expect("writes");
                };
                std::thread::scope(|scope| scope.spawn(without_privilege).join()).expect("ends");
                assert_eq!(mode(&path), 0o755, "{name}");
            }
        },
        |dir| assert_eq!((mode(&dir.join("buffered")), mode(&dir.join("direct"))), (0o755, 0o755)),
    );
}

#[test]
fn holes_are_punched_found_and_cost_nothing() {
    let check = |dir: &Path| {
        let file = File::open(dir.join("sparse")).expect("opens");
        let meta = file.metadata().expect("stats");
        assert_eq!(meta.len(), 5 << 40);
        assert!(meta.blocks() < 4096, "{} blocks", meta.blocks());
        let seek = |from| rustix::fs::seek(&file, from);
        assert_eq!(seek(S::Data(0)), Ok(4 << 40));
        assert_eq!(seek(S::Hole(4 << 40)), Ok((4 << 40) + (256 << 10)));
        assert_eq!(seek(S::Data((4 << 40) + (256 << 10))), Ok((4 << 40) + (512 << 10)));
        assert_eq!(seek(S::Data((4 << 40) + (2 << 20))), Err(Errno::NXIO));
        let mut bytes = vec![1; 4096];
        file.read_exact_at(&mut bytes, (4 << 40) + (256 << 10)).expect("reads");
        assert_eq!(bytes, [0; 4096]);
    };
    on_mount(
        |dir| {
            let file = File::create_new(dir.join("sparse")).expect("creates");
            file.set_len(5 << 40).expect("extends");
            file.write_all_at(&noise(1 << 20), 4 << 40).expect("writes");
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let at = (4 << 40) + (256 << 10);
            rustix::fs::fallocate(&file, punch, at, 256 << 10).expect("punches");
            let zero = FallocateFlags::ZERO_RANGE;
            rustix::fs::fallocate(&file, zero, at, 4096).expect("zeroes");
            file.sync_all().expect("syncs");
            drop(file);
            check(dir);
        },
        check,
    );
}

#[test]
fn fallocate_extends_or_keeps_the_length() {
    on_mount(
        |dir| {
            let file = File::create_new(dir.join("f")).expect("creates");
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 10_000).expect("allocates");
            assert_eq!(file.metadata().expect("stats").len(), 10_000);
            let keep = FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, keep, 0, 1 << 20).expect("allocates");
            assert_eq!(file.metadata().expect("stats").len(), 10_000);
            let insert = FallocateFlags::INSERT_RANGE;
            let refused = rustix::fs::fallocate(&file, insert, 0, 4096);
            assert_eq!(refused, Err(Errno::OPNOTSUPP));
        },
        |dir| assert_eq!(fs::read(dir.join("f")).expect("reads"), [0; 10_000]),
    );
}

#[test]
fn every_allocation_is_a_change_of_the_file_as_on_ext4() {
    use std::os::unix::fs::MetadataExt;
    let keep = FallocateFlags::KEEP_SIZE;
    let kinds = [
        FallocateFlags::empty(),
        keep,
        keep | FallocateFlags::PUNCH_HOLE,
        keep | FallocateFlags::ZERO_RANGE,
    ];
    on_mount(
        move |dir| {
            let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
            for (index, kind) in kinds.into_iter().enumerate() {
                let path = dir.join(index.to_string());
                fs::write(&path, vec![7; 10_000]).expect("writes");
                let file = File::options().write(true).open(&path).expect("opens");
                file.set_modified(old).expect("sets");
                // Beyond the end, where no byte changes, but for the first.
                let offset = if index == 0 { 0 } else { 20_000 };
                rustix::fs::fallocate(&file, kind, offset, 4096).expect("allocates");
                let meta = file.metadata().expect("stats");
                assert_eq!(meta.len(), 10_000);
                assert!(meta.mtime() > 1 && meta.ctime() > 1, "kind {index}");
            }
        },
        |dir| {
            for index in 0..4 {
                assert!(fs::metadata(dir.join(index.to_string())).expect("stats").mtime() > 1);
            }
        },
    );
}

#[test]
fn an_attribute_cannot_be_created_and_replaced_at_once() {
    on_mount(
        |dir| {
            let path = dir.join("f");
            File::create_new(&path).expect("creates");
            let both = XattrFlags::CREATE | XattrFlags::REPLACE;
            let set = |flags| rustix::fs::setxattr(&path, "user.a", b"1", flags);
            assert_eq!(set(both), Err(Errno::NODATA));
            set(XattrFlags::empty()).expect("sets");
            assert_eq!(set(both), Err(Errno::EXIST));
        },
        |_| (),
    );
}

#[test]
fn copy_file_range_copies_a_large_file_without_storing_it_twice() {
    let Some(mount) = Mount::new() else { return };
    let dir = mount.point();
    let bytes = noise(8 << 20);
    fs::write(dir.join("from"), &bytes).expect("writes");
    File::open(dir.join("from")).expect("opens").sync_all().expect("syncs");
    let (from, to) = (
        File::open(dir.join("from")).expect("opens"),
        File::create_new(dir.join("to")).expect("creates"),
    );
    let mut left = bytes.len();
    while left > 0 {
        left -= rustix::fs::copy_file_range(&from, None, &to, None, left).expect("copies");
    }
    to.sync_all().expect("syncs");
    drop((from, to));
    assert!(fs::read(dir.join("to")).expect("reads") == bytes);
    let segments = mount.base().join("state/point/segments");
    let stored: u64 = fs::read_dir(segments)
        .expect("lists")
        .map(|entry| entry.expect("an entry").metadata().expect("stats").len())
        .sum();
    assert!(stored < 9 << 20, "{stored} bytes are stored");
    mount.restart()();
    assert!(fs::read(dir.join("to")).expect("reads") == bytes);
}

#[test]
fn names_are_any_255_bytes() {
    let names = [vec![0xff; 255], b"\x01\n\\ \xc3".to_vec(), "日本".as_bytes().to_vec()];
    let check = |dir: &Path| {
        let mut listed: Vec<Vec<u8>> = fs::read_dir(dir)
            .expect("lists")
            .map(|entry| entry.expect("an entry").file_name().as_bytes().to_vec())
            .collect();
        listed.sort();
        let mut expected = names.to_vec();
        expected.sort();
        assert_eq!(listed, expected);
    };
    on_mount(
        |dir| {
            for name in &names {
                fs::write(dir.join(OsStr::from_bytes(name)), name).expect("creates");
            }
            let long = File::create(dir.join(OsStr::from_bytes(&[b'x'; 256])));
            assert_eq!(errno(&long.expect_err("too long")), Errno::NAMETOOLONG);
            check(dir);
        },
        check,
    );
}

#[test]
fn times_are_kept_to_the_nanosecond_also_before_1970() {
    let check = |dir: &Path| {
        let meta = fs::metadata(dir.join("old")).expect("stats");
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (-2, 500_000_001));
        assert_eq!((meta.atime(), meta.atime_nsec()), (4_000_000_000, 999_999_999));
    };
    on_mount(
        |dir| {
            fs::write(dir.join("old"), b"x").expect("creates");
            let times = Timestamps {
                last_access: Timespec { tv_sec: 4_000_000_000, tv_nsec: 999_999_999 },
                last_modification: Timespec { tv_sec: -2, tv_nsec: 500_000_001 },
            };
            let path = dir.join("old");
            rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).expect("sets");
            check(dir);
        },
        check,
    );
}

#[test]
fn special_files_links_and_modes_come_back_as_they_were_made() {
    let check = |dir: &Path| {
        let kind = |name: &str| fs::symlink_metadata(dir.join(name)).expect("stats").file_type();
        assert!(kind("fifo").is_fifo());
        assert!(kind("socket").is_socket());
        assert_eq!(fs::read_link(dir.join("link")).expect("reads"), Path::new("to/nowhere"));
        let (one, two) = (fs::metadata(dir.join("one")), fs::metadata(dir.join("two")));
        let (one, two) = (one.expect("stats"), two.expect("stats"));
        assert_eq!((one.ino(), one.nlink(), one.mode() & 0o7777), (two.ino(), 2, 0o4751));
    };
    on_mount(
        |dir| {
            let make = |name: &str, kind| {
                rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::from_raw_mode(0o600), 0)
            };
            make("fifo", FileType::Fifo).expect("makes");
            make("socket", FileType::Socket).expect("makes");
            symlink("to/nowhere", dir.join("link")).expect("links");
            fs::write(dir.join("one"), b"x").expect("creates");
            fs::hard_link(dir.join("one"), dir.join("two")).expect("links");
            let mode = fs::Permissions::from_mode(0o4751);
            fs::set_permissions(dir.join("one"), mode).expect("sets");
            check(dir);
        },
        check,
    );
}

#[test]
fn extended_attributes_and_acls_are_kept() {
    let acl = {
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, perm, id) in [
            (1u16, 6u16, u32::MAX),
            (2, 7, 1234),
            (4, 4, u32::MAX),
            (16, 7, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            acl.extend(tag.to_le_bytes());
            acl.extend(perm.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        acl
    };
    let get = |path: &Path, name: &str| {
        let mut value = vec![0; 70_000];
        let len =
            rustix::fs::getxattr(path, name, &mut value).map_err(|error| (name.to_owned(), error));
        value.truncate(len.expect("is there"));
        value
    };
    let check = |dir: &Path| {
        let path = dir.join("f");
        assert_eq!(get(&path, "user.large"), noise(65_536));
        assert_eq!(get(&path, "system.posix_acl_access"), acl);
        assert_eq!(fs::metadata(&path).expect("stats").mode() & 0o777, 0o670);
    };
    on_mount(
        |dir| {
            let path = dir.join("f");
            fs::write(&path, b"x").expect("creates");
            let set =
                |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
            set("user.large", &noise(65_536), XattrFlags::CREATE).expect("sets");
            let again = set("user.large", b"", XattrFlags::CREATE);
            assert_eq!(again, Err(Errno::EXIST));
            let missing = set("user.no", b"", XattrFlags::REPLACE);
            assert_eq!(missing, Err(Errno::NODATA));
            set("system.posix_acl_access", &acl, XattrFlags::empty()).expect("sets");
            check(dir);
        },
        check,
    );
}

/// Runs `work` as a user without privilege, in these groups beside their own.
fn as_user<R: Send>(groups: &[u32], work: impl FnOnce() -> R + Send) -> R {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let groups: Vec<Gid> = groups.iter().map(|id| Gid::from_raw(*id)).collect();
    let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
    let as_they = move || {
        set_thread_groups(&groups).expect("root may");
        set_thread_res_gid(gid, gid, gid).expect("root may");
        set_thread_res_uid(uid, uid, uid).expect("root may");
        work()
    };
    std::thread::scope(|scope| scope.spawn(as_they).join()).expect("ends")
}

/// A user for tests.
const USER: u32 = 54_321;

#[test]
fn an_acl_set_from_outside_the_group_clears_the_set_group_id_bit() {
    const GROUP: u32 = 1234;
    let Some(mount) = Mount::new() else { return };
    mount.remount_for_all();
    let acl: Vec<u8> = {
        let rows = [(1u16, 6u16, u32::MAX), (2, 7, 99), (4, 4, u32::MAX), (16, 7, u32::MAX)];
        let row = |(tag, perm, id): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let rows = rows.into_iter().chain([(32, 0, u32::MAX)]).flat_map(row);
        2u32.to_le_bytes().into_iter().chain(rows).collect()
    };
    for (groups, expected) in [(&[][..], 0), (&[GROUP][..], 0o2000)] {
        let path = mount.point().join(format!("f{}", groups.len()));
        fs::write(&path, b"x").expect("writes");
        std::os::unix::fs::chown(&path, Some(USER), Some(GROUP)).expect("owns");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o2755)).expect("sets");
        let set =
            || rustix::fs::setxattr(&path, "system.posix_acl_access", &acl, XattrFlags::empty());
        as_user(groups, set).expect("sets");
        assert_eq!(fs::metadata(&path).expect("stats").mode() & 0o7777, expected | 0o670);
    }
}

/// Changes the first file, perhaps by the second.
type Change<'a> = &'a (dyn Fn(&File, &File) -> rustix::io::Result<usize> + Sync);

#[test]
fn an_ordinary_user_who_allocates_or_copies_clears_set_id_bits() {
    let Some(mount) = Mount::new() else { return };
    mount.remount_for_all();
    let source = mount.point().join("source");
    fs::write(&source, noise(100_000)).expect("writes");
    let keep = FallocateFlags::KEEP_SIZE;
    let allocate = |flags| {
        move |file: &File, _: &File| rustix::fs::fallocate(file, flags, 0, 4096).map(|()| 4096)
    };
    let copy =
        |to: &File, from: &File| rustix::fs::copy_file_range(from, Some(&mut 0), to, None, 70_000);
    let changes: [(&str, Change); 4] = [
        ("allocate", &allocate(FallocateFlags::empty())),
        ("punch", &allocate(FallocateFlags::PUNCH_HOLE | keep)),
        ("zero", &allocate(FallocateFlags::ZERO_RANGE)),
        ("copy", &copy),
    ];
    for (name, change) in changes {
        // Without the group's right to execute, the bit stays for those of the group.
        let cases = [(0o6755, USER, 0o755), (0o6745, USER, 0o2745), (0o6745, 99, 0o745)];
        for (index, (before, group, after)) in cases.into_iter().enumerate() {
            let path = mount.point().join(format!("{name}{index}"));
            fs::write(&path, noise(8192)).expect("writes");
            std::os::unix::fs::chown(&path, Some(USER), Some(group)).expect("owns");
            fs::set_permissions(&path, fs::Permissions::from_mode(before)).expect("sets");
            let work = || {
                let to = OpenOptions::new().write(true).open(&path).expect("opens");
                change(&to, &File::open(&source).expect("opens"))
            };
            as_user(&[], work).expect("changes");
            let found = fs::metadata(&path).expect("stats").mode() & 0o7777;
            assert_eq!(found, after, "{name}: {found:o}");
        }
    }
}

#[test]
fn attributes_for_administrators_are_listed_to_them_alone() {
    let Some(mount) = Mount::new() else { return };
    mount.remount_for_all();
    let path = mount.point().join("f");
    fs::write(&path, b"x").expect("writes");
    for name in ["user.a", "trusted.b"] {
        rustix::fs::setxattr(&path, name, b"x", XattrFlags::empty()).expect("sets");
    }
    let list = || {
        let mut names = vec![0; 1000];
        let len = rustix::fs::listxattr(&path, &mut names).expect("lists");
        names.truncate(len);
        names
    };
    assert_eq!(list(), b"trusted.b\0user.a\0");
    assert_eq!(as_user(&[], list), b"user.a\0");
}

#[test]
fn locks_hold_between_open_files() {
    on_mount(
        |dir| {
            let path = dir.join("locked");
            fs::write(&path, b"x").expect("creates");
            let (one, two) = (File::open(&path).expect("opens"), File::open(&path).expect("opens"));
            rustix::fs::flock(&one, FlockOperation::LockExclusive).expect("locks");
            let refused = rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive);
            assert_eq!(refused, Err(Errno::WOULDBLOCK));
            drop(one);
            rustix::fs::flock(&two, FlockOperation::NonBlockingLockExclusive).expect("locks");
        },
        |_| {},
    );
}

#[test]
fn direct_and_synchronous_writes_are_taken() {
    on_mount(
        |dir| {
            for flags in [OFlags::DIRECT, OFlags::SYNC, OFlags::DSYNC] {
                let mut file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .custom_flags(i32::try_from(flags.bits()).expect("a flag"))
                    .open(dir.join("f"))
                    .expect("opens");
                let bytes = noise(8192);
                file.write_all(&bytes).expect("writes");
                file.seek(SeekFrom::Start(0)).expect("seeks");
                let mut found = Vec::new();
                file.read_to_end(&mut found).expect("reads");
                assert!(found == bytes);
            }
        },
        |dir| assert!(fs::read(dir.join("f")).expect("reads") == noise(8192)),
    );
}

#[test]
fn the_reserved_name_cannot_be_made_and_is_never_listed() {
    on_mount(
        |dir| {
            let made = File::create(dir.join(".tidefs"));
            assert_eq!(errno(&made.expect_err("reserved")), Errno::ACCESS);
            assert!(!dir.join(".tidefs").exists());
            fs::create_dir(dir.join("below")).expect("creates");
            File::create(dir.join("below/.tidefs")).expect("only at the root");
        },
        |dir| assert_eq!(fs::read_dir(dir).expect("lists").count(), 1),
    );
}

#[test]
fn inode_numbers_and_birth_survive_a_new_mount() {
    let Some(mount) = Mount::new() else { return };
    let dir = mount.point();
    for i in 0..50 {
        fs::create_dir(dir.join(format!("d{i}"))).expect("creates");
        fs::write(dir.join(format!("d{i}/f")), [i; 100]).expect("creates");
    }
    let inos = || -> Vec<u64> {
        (0..50).map(|i| fs::metadata(dir.join(format!("d{i}/f"))).expect("stats").ino()).collect()
    };
    let before = inos();
    mount.restart()();
    assert_eq!(inos(), before);
}

#[test]
fn df_tells_of_the_disk_below() {
    let Some(mount) = Mount::new() else { return };
    let (ours, below) = (
        rustix::fs::statvfs(mount.point()).expect("stats"),
        rustix::fs::statvfs(mount.base()).expect("stats"),
    );
    assert_eq!(ours.f_blocks * ours.f_frsize, below.f_blocks * below.f_frsize);
    let used = |stat: &rustix::fs::StatVfs| (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
    assert!(used(&ours).abs_diff(used(&below)) < 1 << 30, "{} of {}", used(&ours), used(&below));
    let (free, limit) = (ours.f_bavail * ours.f_frsize, below.f_bavail * below.f_frsize);
    assert!(free <= limit && limit - free < 1 << 30, "{free} of {limit}");
}
