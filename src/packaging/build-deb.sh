#!/bin/sh
# Builds the Debian package; its path is the last line of the output.
#
#   src/packaging/build-deb.sh                 builds the programs, too; needs cargo-deb (cargo install cargo-deb)
#   src/packaging/build-deb.sh --from FOLDER   takes the tools from there (target/debug, for a test)
set -eu
cd "$(dirname "$0")/../.."

folder=target/release
how=
if [ "${1:-}" = --from ]; then
    folder=$2
    how=--fast
else
    cargo build --release --locked -p flashmob -p flashmob-mkimage -p flashmob-initramfs
    cargo build --profile agent --locked -p flashmob --target x86_64-unknown-linux-musl \
        --no-default-features --features agent --bin flashmob-agent
fi

# What the package has beside programs: manual pages, completions, and a configuration that does nothing yet,
# because the one with every key names machines that this lab may not have.
stage=target/packaging
rm -rf "$stage"
mkdir -p "$stage/bin"
for program in flashmob flashmob-mkimage flashmob-initramfs; do
    cp "$folder/$program" "$stage/bin/"
    "$stage/bin/$program" manual "$stage"
done
cp target/x86_64-unknown-linux-musl/agent/flashmob-agent "$stage/bin/"
find "$stage/man" -name '*.1' -exec gzip -9n {} +
"$stage/bin/flashmob" serve --print-sample-config >"$stage/sample.toml"
sed 's/^\([^#]\)/#\1/' "$stage/sample.toml" >"$stage/config.toml"

# shellcheck disable=SC2086
cargo deb --quiet $how --no-build --locked -p flashmob --output "$stage/" >/dev/null
ls "$stage"/*.deb
