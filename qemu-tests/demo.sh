#!/usr/bin/env bash
# The demonstration: installs its Debian packages (as root), builds everything, and images three virtual
# terminals. The build stays under target/. Options go to the program, see ./qemu-tests/demo.sh --help.
set -euo pipefail
cd "$(dirname "$0")/.."
./qemu-tests/setup.sh
# All packages at once, so that they share one build of each dependency.
cargo build --quiet --release --locked --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/release/demo" "$@"
