//! The terminal's agent carries no server. `cargo deny` holds licences, sources and doubled crates
//! (`deny.toml`).

use std::process::Command;

#[test]
fn the_terminals_agent_carries_no_server() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "-p",
            "flashmob",
            "--no-default-features",
            "--features",
            "agent",
            "-e",
            "normal",
        ])
        .args(["--prefix", "none", "--target", "x86_64-unknown-linux-musl"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("tokio v"), "the tree was read");
    for unwanted in
        ["axum", "rusqlite", "libsqlite3-sys", "openssl", "indicatif", "clap_mangen", "sd-notify", "utoipa"]
    {
        assert!(
            !tree.lines().any(|l| l.starts_with(&format!("{unwanted} v"))),
            "{unwanted} is in the agent's tree"
        );
    }
}
