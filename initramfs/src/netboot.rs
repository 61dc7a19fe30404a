//! iPXE's script and programs, which start the kernel over the network.
//!
//! Invariant: plain text made here, and Debian's programs as they are. The server answers `/boot/ipxe`;
//! `localboot` starts the disk.

use std::path::Path;

use anyhow::{Context, Result};

use crate::whole;

/// The static iPXE script, which asks the server that answered DHCP for this machine's boot script.
pub(crate) fn ipxe_script(server: Option<&str>) -> String {
    let server = server.map_or("http://${next-server}:6969", |url| url.trim_end_matches('/'));
    format!(
        "#!ipxe\n\
         # Asks flashmob's server what this terminal should start: the agent or its own disk.\n\
         isset ${{ip}} || dhcp ||\n\
         set tries:int32 0\n\
         :ask\n\
         chain --replace {server}/boot/ipxe?mac=${{mac}}&uuid=${{uuid}}&platform=${{platform}} ||\n\
         inc tries\n\
         echo flashmob: {server} did not answer (try ${{tries}} of 5)\n\
         iseq ${{tries}} 5 && goto disk ||\n\
         sleep 4\n\
         goto ask\n\
         :disk\n\
         echo flashmob: the firmware goes on with its next boot entry\n\
         exit 1\n"
    )
}

/// Copies Debian's iPXE programs for the TFTP server; says which are not there.
pub(crate) fn copy_ipxe(out: &Path) -> Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    for name in ["undionly.kpxe", "snponly.efi"] {
        let source = Path::new("/usr/lib/ipxe").join(name);
        if !source.is_file() {
            missing.push(name);
            continue;
        }
        let target = out.join(name);
        let program = std::fs::read(&source).with_context(|| format!("reading {}", source.display()))?;
        whole::write(&target, &program)?;
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ipxe_script_asks_the_server_that_dhcp_named_or_the_one_given() {
        let script = ipxe_script(None);
        assert!(script.starts_with("#!ipxe\n"));
        assert!(
            script.contains(
                "http://${next-server}:6969/boot/ipxe?mac=${mac}&uuid=${uuid}&platform=${platform}"
            )
        );
        assert!(ipxe_script(Some("http://lab:7000/")).contains("chain --replace http://lab:7000/boot/ipxe?"));
    }
}
