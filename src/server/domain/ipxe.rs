//! Scripts for iPXE: boot the agent, go on to the disk, or wait (`/boot/ipxe`).
//!
//! Invariant: pure; every word that comes from outside is reduced to characters that iPXE does not interpret.
//! A script never leaves a terminal at a prompt, and never boots a disk that is half written.

use crate::server::domain::identity::Identity;

/// The firmware below iPXE (`${platform}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Platform {
    /// `pcbios`, and machines that do not say.
    #[default]
    Bios,
    /// `efi`.
    Efi,
}

impl Platform {
    pub(crate) fn from_word(word: &str) -> Self {
        if word.eq_ignore_ascii_case("efi") { Platform::Efi } else { Platform::Bios }
    }

    fn word(self) -> &'static str {
        match self {
            Platform::Bios => "pcbios",
            Platform::Efi => "efi",
        }
    }
}

/// The terminal that asks, and under which address it reaches us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `host:port` as the terminal wrote it.
    pub host: String,
    /// Its MACs and UUID.
    pub identity: Identity,
    pub platform: Platform,
}

impl Caller {
    /// The same question again.
    fn again(&self) -> String {
        let mac = self.identity.macs.first().map(ToString::to_string).unwrap_or_default();
        let uuid = self.identity.uuid.map(|uuid| uuid.to_string()).unwrap_or_default();
        format!("http://{}/boot/ipxe?mac={mac}&uuid={uuid}&platform={}", self.host, self.platform.word())
    }
}

/// For a caller that does not name itself: come again with MAC, UUID and platform. `netX` is the interface
/// that was opened last, which is the one this script came through.
pub(crate) fn introduce(host: &str) -> String {
    format!(
        "#!ipxe\n\
         chain --replace http://{host}/boot/ipxe?mac=${{netX/mac}}&uuid=${{uuid}}&platform=${{platform}} || \
         exit 1\n"
    )
}

/// Boot the agent, with a ticket that lets it speak. `initrd=` repeats the file's name because under UEFI the
/// kernel looks for it by that name.
pub fn agent(caller: &Caller, what: &str, ticket: Option<&str>, arguments: &str) -> String {
    let host = &caller.host;
    let ticket = ticket.map(|ticket| format!("flashmob.ticket={ticket}"));
    let arguments = Some(arguments.trim()).filter(|arguments| !arguments.is_empty());
    let arguments: String =
        ticket.as_deref().into_iter().chain(arguments).map(|one| format!(" {one}")).collect();
    format!(
        "#!ipxe\n\
         echo flashmob: {what}\n\
         kernel http://{host}/boot/vmlinuz initrd=initramfs.img flashmob.server=http://{host}{arguments} || \
         goto failed\n\
         initrd http://{host}/boot/initramfs.img || goto failed\n\
         boot || goto failed\n\
         :failed\n\
         echo flashmob: the agent did not start. Trying again in 15 seconds.\n\
         sleep 15\n\
         chain --replace {again} || goto failed\n",
        what = plain(what),
        again = caller.again(),
    )
}

/// On to the imaged disk: a small GRUB looks for it by `root_path` (see `boot::start`), because iPXE itself
/// knows disks only by their number, which a stick may have. A terminal that was never imaged goes back to
/// its firmware, whose boot order and passwords are its administrator's. So does one whose disk is not found.
pub fn disk(caller: &Caller, root_path: Option<&str>) -> String {
    let Some(root_path) = root_path else {
        return "#!ipxe\necho flashmob: nothing to do, the firmware goes on with its next boot entry\nexit \
            1\n"
        .into();
    };
    let program = match caller.platform {
        Platform::Bios => "localboot.0",
        Platform::Efi => "localboot.efi",
    };
    format!(
        "#!ipxe\n\
         echo flashmob: nothing to do, booting from the disk that was imaged\n\
         set netX/root-path {root_path} || exit 1\n\
         chain http://{host}/boot/{program} || exit 1\n\
         exit 1\n",
        host = caller.host
    )
}

/// The disk holds half a system: show why, and ask again until a person has decided.
pub fn hold(caller: &Caller, error: &str, advice: &str) -> String {
    // Without `--` a text that begins with a dash is an option that `echo` does not know, and ends the
    // script.
    let rule = "-".repeat(60);
    let mut script = String::from("#!ipxe\necho\n");
    script += &format!("echo -- {rule}\n");
    script += "echo -- flashmob: this terminal was not imaged, its disk cannot boot\n";
    for line in [error, advice].iter().flat_map(|text| wrapped(text)) {
        script += &format!("echo -- {line}\n");
    }
    script += &format!("echo -- {rule}\n");
    script += ":again\nsleep 60\n";
    script += &format!("chain --replace {} || goto again\n", caller.again());
    script
}

/// Its turn comes later: show why, and ask again soon.
pub(crate) fn queue(caller: &Caller, why: &str) -> String {
    let again = caller.again();
    let why = plain(why);
    format!(
        "#!ipxe\n:again\necho -- flashmob: this terminal waits, {why}\nsleep 15\n\
         chain --replace {again} || goto again\n"
    )
}

/// Lines of at most 76 columns, of harmless characters, at most eight.
pub(crate) fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in plain(text).split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= 76 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.chars().take(76).collect()),
        }
    }
    lines.truncate(8);
    lines
}

/// iPXE and GRUB interpret `${…}`, quotes, backslashes, `|`, `&`, `;` and `#`; all are removed.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || " .,:/@_()+=-%".contains(c) { c } else { ' ' })
        .collect()
}

/// The `Host` header, if it needs no escaping in a script.
pub(crate) fn usable_host(text: &str) -> Option<&str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    (!text.is_empty() && text.len() <= 255 && text.chars().all(fits)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(platform: Platform) -> Caller {
        let identity = Identity::new(&["52:54:00:00:00:01"], Some("4c4c4544-0042-3510-8052-b4c04f4d4e31"));
        Caller { host: "10.0.0.1:6969".into(), identity, platform }
    }

    #[test]
    fn the_agent_gets_kernel_initrd_and_the_servers_address() {
        let script = agent(&caller(Platform::Efi), "debian@1", Some("0f"), "console=ttyS0");
        assert!(script.starts_with("#!ipxe\n"));
        assert!(script.contains(
            "kernel http://10.0.0.1:6969/boot/vmlinuz initrd=initramfs.img \
             flashmob.server=http://10.0.0.1:6969 flashmob.ticket=0f console=ttyS0 || goto failed\n\
             initrd http://10.0.0.1:6969/boot/initramfs.img || goto failed\nboot "
        ));
    }

    #[test]
    fn each_firmware_gets_to_the_disk_that_was_imaged_and_else_back_to_itself() {
        for (platform, program) in [(Platform::Bios, "localboot.0"), (Platform::Efi, "localboot.efi")] {
            assert!(disk(&caller(platform), Some("flashmob:1234abcd-01")).ends_with(&format!(
                "\nset netX/root-path flashmob:1234abcd-01 || exit 1\n\
                 chain http://10.0.0.1:6969/boot/{program} || exit 1\nexit 1\n"
            )));
            let script = disk(&caller(platform), None);
            assert!(script.ends_with("\nexit 1\n") && !script.contains("chain"), "{script}");
        }
        assert_eq!(Platform::from_word("efi"), Platform::Efi);
        assert_eq!(Platform::from_word("pcbios"), Platform::Bios);
    }

    #[test]
    fn a_held_terminal_sees_why_and_asks_again_by_itself() {
        let script = hold(&caller(Platform::Bios), "writing sda failed", "Replace the disk, then retry.");
        assert!(script.contains("echo -- writing sda failed\necho -- Replace the disk, then retry.\n"));
        assert!(script.contains(
            "sleep 60\nchain --replace \
            http://10.0.0.1:6969/boot/ipxe?mac=52:54:00:00:00:01\
            &uuid=4c4c4544-0042-3510-8052-b4c04f4d4e31&platform=pcbios || goto again\n"
        ));
        assert!(!script.contains("sanboot") && !script.contains("localboot") && !script.contains("exit"));
    }

    #[test]
    fn nothing_from_outside_is_a_command() {
        let nasty = "a${net0/ip} || shell\nshell && \"b\" ; #c \\ ä \u{1b}[31m";
        for script in
            [hold(&caller(Platform::Bios), nasty, nasty), agent(&caller(Platform::Bios), nasty, None, "")]
        {
            for line in script.lines().skip(1) {
                let first = line.split(' ').next().unwrap_or_default();
                let known = ["echo", "sleep", "chain", "kernel", "initrd", "boot", ":again", ":failed"];
                assert!(known.contains(&first), "{line}");
                if first == "echo" {
                    assert!(!line.contains(['$', '|', '&', '"', ';', '#', '\\', '\u{1b}']), "{line}");
                }
            }
        }
    }

    #[test]
    fn no_text_is_taken_for_an_option_of_echo() {
        let caller = caller(Platform::Bios);
        let dashes = "--bad -n text";
        for script in [hold(&caller, dashes, dashes), agent(&caller, dashes, None, ""), disk(&caller, None)] {
            for said in script.lines().filter_map(|line| line.strip_prefix("echo ")) {
                assert!(said.starts_with("-- ") || !said.starts_with('-'), "{said}");
            }
        }
    }

    #[test]
    fn a_strange_host_header_is_not_used() {
        for good in ["10.0.0.1:6969", "[fd00::1]:6969", "server.lab"] {
            assert_eq!(usable_host(good), Some(good));
        }
        for bad in ["", "a b", "a\nshell", "a/${x}", "a?b"] {
            assert_eq!(usable_host(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_does_not_say_who_it_is_is_asked() {
        let script = introduce("10.0.0.1:6969");
        assert!(script.contains("mac=${netX/mac}&uuid=${uuid}&platform=${platform}"));
    }
}
