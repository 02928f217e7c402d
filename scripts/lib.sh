# Shared by the scripts here: installing what is missing, mounting a fresh workspace, cleaning up.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TIDEFS=${TIDEFS:-$ROOT/target/release/tidefs}
TOOLS=$ROOT/target/tools
# Set by temp_dir, fresh_mount and work_in; each is removed at exit.
TMP='' STATE='' MNT='' WORK=''
# For `tidefs mount`, as -o options.
MOUNT_OPTIONS=(allow_other)
# Processes that this script started and has not yet seen the end of.
STARTED=()
# Functions to call first at exit.
AT_EXIT=()

# usage: prints the comment at the top of the calling script.
usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
}

# usage_error TEXT: says what was wrong with the arguments, and how they are.
usage_error() {
    echo "$(basename "$0"): $1" >&2
    usage >&2
    exit 2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need COMMAND PACKAGE: installs a Debian package unless the command is there.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    install_package "$2"
}

install_package() {
    echo "installing $1" >&2
    as_root apt-get install -y -qq "$1" >/dev/null 2>&1 ||
        { as_root apt-get update -qq && as_root apt-get install -y -qq "$1" >/dev/null; }
}

# need_crate NAME VERSION: installs a program from the registry of crates into target/tools.
need_crate() {
    need cc build-essential
    grep -qsF "\"$1 $2 " "$TOOLS/.crates2.json" && [ -x "$TOOLS/bin/$1" ] && return
    echo "installing $1 $2" >&2
    cargo install --quiet --locked --force --root "$TOOLS" "$1@$2"
}

# build: the program `tidefs`, in release form, unless $TIDEFS names another.
build() {
    [ "$TIDEFS" = "$ROOT/target/release/tidefs" ] || return 0
    need cc build-essential
    cargo build --quiet --release --manifest-path "$ROOT/Cargo.toml" -p tidefs-mount
}

can_mount() {
    [ -w /dev/fuse ]
}

# temp_dir: makes TMP, which others may enter and which goes at exit.
temp_dir() {
    [ -n "$TMP" ] && return
    TMP=$(mktemp -d "${TMPDIR:-/tmp}/tidefs-XXXXXXXX")
    chmod 755 "$TMP"
    trap clean_up EXIT
}

# work_in [DIR]: makes WORK, an empty directory in DIR, or in a workspace mounted for this run.
work_in() {
    temp_dir
    if [ -n "${1:-}" ]; then
        [ -d "$1" ] || usage_error "$1 is no directory"
        WORK=$(mktemp -d "$(realpath "$1")/tidefs-suite-XXXXXXXX")
    else
        fresh_mount
        WORK=$MNT/work
        mkdir "$WORK"
    fi
    chmod 755 "$WORK"
}

# fresh_mount: makes STATE and MNT and mounts a new workspace there.
fresh_mount() {
    can_mount || { echo "/dev/fuse is not open to this user: name a directory" >&2; exit 2; }
    build
    temp_dir
    STATE=$TMP/state MNT=$TMP/mnt
    mount_again
}

mount_again() {
    local option options=()
    for option in "${MOUNT_OPTIONS[@]}"; do options+=(-o "$option"); done
    "$TIDEFS" --state "$STATE" mount "$MNT" --workspace test "${options[@]}" >/dev/null
}

unmount() {
    "$TIDEFS" --state "$STATE" umount "$MNT"
}

# verify: the workspace, which must not be mounted, is whole.
verify() {
    "$TIDEFS" --state "$STATE" verify test >"$TMP/verify" 2>&1 || { cat "$TMP/verify"; return 1; }
}

clean_up() {
    local status=$? pid hook
    trap - EXIT
    set +e
    for hook in "${AT_EXIT[@]}"; do "$hook"; done
    for pid in "${STARTED[@]}"; do kill "$pid" 2>/dev/null; done
    [ ${#STARTED[@]} = 0 ] || wait "${STARTED[@]}" 2>/dev/null
    if [ -n "$WORK" ] && [ -z "$MNT" ]; then rm -rf --one-file-system "$WORK"; fi
    if [ -n "$MNT" ] && mountpoint -q "$MNT"; then
        unmount >/dev/null 2>&1 || "$TIDEFS" --state "$STATE" umount --lazy "$MNT" >/dev/null 2>&1 ||
            echo "$MNT is still mounted" >&2
    fi
    if [ $status != 0 ] && [ -n "${KEEP:-}" ]; then
        echo "kept: $TMP" >&2
    elif [ -n "$TMP" ] && ! mountpoint -q "$MNT" 2>/dev/null; then
        rm -rf --one-file-system "$TMP"
    fi
    exit $status
}
