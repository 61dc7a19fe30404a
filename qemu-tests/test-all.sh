#!/usr/bin/env bash
# All tests: installs their Debian packages (as root), then checks format, lints and the licences,
# and runs the unit, simulation, interoperability, loop device, namespace and QEMU tests. Ends with the
# runners' own summary lines; anything that fails makes it exit non-zero.
set -euo pipefail
cd "$(dirname "$0")/.."
./qemu-tests/setup.sh
export CARGO_TERM_COLOR=never

# Licences, sources and doubled crates (deny.toml). A debug build of the tool is ready in half the time.
command -v cargo-deny >/dev/null || cargo install --quiet --locked --debug --version 0.20.2 cargo-deny

cargo deny --workspace check licenses bans sources
cargo fmt --all --check
cargo clippy --quiet --workspace --all-targets --locked -- -D warnings
# Each program alone, as it is built for a terminal and for a server without the other.
for only in agent server; do
    cargo check --quiet --locked -p flashmob --no-default-features --features "$only"
done
# One run names all failures: the QEMU tests run after a failure of the others too.
failed=0
cargo test --locked --workspace --exclude qemu-tests --no-fail-fast || failed=1
# The virtual lab boots machines of 512 MB under software emulation: two cores carry few at a time.
cargo test --locked -p qemu-tests --no-fail-fast -- --test-threads 2 || failed=1
exit "$failed"
