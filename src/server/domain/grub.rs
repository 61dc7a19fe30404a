//! Scripts for signed GRUB under Secure Boot (`/boot/grub`), with the same steps as `ipxe`.
//!
//! `flashmob-initramfs build --secure-boot debian` writes the `grub.cfg` that asks for them. It sources the
//! answer, so that its functions `flashmob_imaged` and `flashmob_disk` and its device `$root` are there, and
//! asks again when the script has set `again`.
//!
//! Invariant: pure; every word that comes from outside is reduced to characters that GRUB does not interpret
//! between quotes. A script never boots a disk that is half written.

use crate::boot::start;
use crate::server::domain::ipxe::{Caller, plain, wrapped};
use crate::server::domain::step::Step;

/// Tells `grub.cfg` that the server answered. Everything after it is obeyed, and nothing else is done.
const ANSWERED: &str = "set answered=yes\n";

pub(crate) fn script(caller: &Caller, step: &Step) -> String {
    let told = match step {
        Step::Agent { what, ticket, arguments } => agent(caller, what, ticket.as_deref(), arguments),
        Step::Disk(root_path) => disk(root_path.as_deref()),
        Step::Hold { error, advice } => hold(error, advice),
        Step::Queue { why } => {
            format!("echo \"flashmob: this terminal waits, {}\"\n{}", plain(why), again(15))
        }
    };
    format!("{ANSWERED}{told}")
}

/// Lets a GRUB that speaks TFTP ask at once again, with the ticket `proof` behind its UUID: `grub.cfg` makes
/// the next question with the variable `uuid`.
pub(crate) fn prove(caller: &Caller, proof: &str) -> String {
    let uuid = caller.identity.uuid.map(|uuid| uuid.to_string()).unwrap_or_default();
    format!("{ANSWERED}set uuid={}\nset again=yes\n", quoted(&format!("{uuid}&proof={proof}")))
}

fn again(seconds: u32) -> String {
    format!("sleep {seconds}\nset again=yes\n")
}

/// Kernel and initramfs come from where GRUB's own configuration came from.
fn agent(caller: &Caller, what: &str, ticket: Option<&str>, arguments: &str) -> String {
    let ticket = ticket.map(|ticket| format!("flashmob.ticket={ticket}"));
    let words = [format!("flashmob.server=http://{}", caller.host)].into_iter().chain(ticket);
    let words = words.chain(arguments.split_whitespace().map(str::to_string));
    let words: String = words.map(|word| format!(" {}", quoted(&word))).collect();
    format!(
        "echo \"flashmob: {what}\"\n\
         if linux /vmlinuz{words}; then\n  if initrd /initramfs.img; then boot; fi\nfi\n\
         echo \"flashmob: the agent did not start. Trying again in 15 seconds.\"\n{again}",
        what = plain(what),
        again = again(15),
    )
}

fn disk(root_path: Option<&str>) -> String {
    let named = root_path.and_then(|path| path.strip_prefix(start::PREFIX));
    match named.and_then(|path| path.split_once(':')) {
        Some((partition, loader)) => format!(
            "echo \"flashmob: nothing to do, booting from the disk that was imaged\"\n\
             flashmob_imaged {} {}\n",
            quoted(partition),
            quoted(loader)
        ),
        // Signed GRUB cannot make the firmware go on with its next entry: after its exit the firmware shows
        // its menu.
        None => "echo \"flashmob: nothing to do, booting from this machine's disk\"\nflashmob_disk\n".into(),
    }
}

fn hold(error: &str, advice: &str) -> String {
    let rule = "-".repeat(60);
    let mut script = format!(
        "echo\necho \"{rule}\"\necho \"flashmob: this terminal was not imaged, its disk cannot boot\"\n"
    );
    for line in [error, advice].iter().flat_map(|text| wrapped(text)) {
        script += &format!("echo \"{line}\"\n");
    }
    script += &format!("echo \"{rule}\"\n{}", again(60));
    script
}

/// One word that GRUB takes as it is. Nothing is special between its single quotes.
fn quoted(word: &str) -> String {
    let word: String = word.chars().filter(|c| *c != '\'' && !c.is_control()).collect();
    format!("'{word}'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::domain::identity::Identity;
    use crate::server::domain::ipxe::Platform;

    fn script_of(step: &Step) -> String {
        let identity = Identity::new(&["52:54:00:00:00:01"], None);
        let caller = Caller { host: "10.0.0.1:6969".into(), identity, platform: Platform::Efi };
        script(&caller, step)
    }

    #[test]
    fn the_agent_gets_kernel_initrd_and_the_servers_address() {
        let arguments = "console=ttyS0 a;b|c".into();
        let script =
            script_of(&Step::Agent { what: "debian@1".into(), ticket: Some("0f".into()), arguments });
        assert!(script.contains(
            "if linux /vmlinuz 'flashmob.server=http://10.0.0.1:6969' 'flashmob.ticket=0f' 'console=ttyS0' \
             'a;b|c'; then\n  if initrd /initramfs.img; then boot; fi\nfi\n"
        ));
        // Where it did not start it asks again, and does not go on to the disk.
        assert!(script.ends_with("sleep 15\nset again=yes\n") && !script.contains("flashmob_"), "{script}");
    }

    #[test]
    fn the_imaged_disk_is_started_by_its_identity_and_any_other_only_where_it_is_the_only_one() {
        let path = Some("flashmob:1234abcd-01:/EFI/debian/shimx64.efi".to_string());
        assert!(
            script_of(&Step::Disk(path))
                .ends_with("\nflashmob_imaged '1234abcd-01' '/EFI/debian/shimx64.efi'\n")
        );
        assert!(script_of(&Step::Disk(None)).ends_with("\nflashmob_disk\n"));
    }

    #[test]
    fn a_held_or_waiting_terminal_says_why_asks_again_and_starts_nothing() {
        let hold = Step::Hold { error: "writing sda failed".into(), advice: "Replace the disk.".into() };
        for (step, why) in [
            (hold, "echo \"writing sda failed\"\necho \"Replace the disk.\"\n"),
            (Step::Queue { why: "3 are before it".into() }, "this terminal waits, 3 are before it\""),
        ] {
            let script = script_of(&step);
            assert!(script.contains(why) && script.ends_with("set again=yes\n"), "{script}");
            assert!(!script.contains("boot\n") && !script.contains("flashmob_"), "{script}");
        }
    }

    #[test]
    fn a_grub_that_has_not_proved_its_address_only_asks_again() {
        let identity = Identity::new(&["52:54:00:00:00:01"], Some("4c4c4544-0042-3510-8052-b4c04f4d4e31"));
        let caller = Caller { host: "10.0.0.1:6969".into(), identity, platform: Platform::Efi };
        assert_eq!(
            prove(&caller, "0f"),
            "set answered=yes\nset uuid='4c4c4544-0042-3510-8052-b4c04f4d4e31&proof=0f'\nset again=yes\n"
        );
    }

    #[test]
    fn nothing_from_outside_is_a_command() {
        let nasty = "a$root \"; reboot\nreboot' `b` \\ {c} #d ä \u{1b}[31m | e";
        let steps = [
            Step::Hold { error: nasty.into(), advice: nasty.into() },
            Step::Queue { why: nasty.into() },
            Step::Agent { what: nasty.into(), ticket: None, arguments: nasty.into() },
        ];
        for line in
            steps.iter().flat_map(|step| script_of(step).lines().map(str::to_string).collect::<Vec<_>>())
        {
            let first = line.trim().split(' ').next().unwrap_or_default();
            assert!(["echo", "sleep", "set", "if", "fi"].contains(&first), "{line}");
            if let Some(text) = line.strip_prefix("echo \"") {
                let text = text.strip_suffix('"').expect("a closed quote");
                assert!(!text.contains(['$', '"', '\\', '`', '\u{1b}']), "{line}");
            }
            assert_eq!(line.matches('\'').count() % 2, 0, "{line}");
        }
    }
}
