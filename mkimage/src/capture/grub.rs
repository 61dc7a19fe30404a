//! The first menu entry of a GRUB configuration, as far as it can be read without running it.
//!
//! Invariant: the result stands in the file literally. An entry with variables, several initrds or a device
//! before the path gives no result, because it would be a guess.

/// A kernel that GRUB would start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Path on the filesystem that GRUB calls its root at that point.
    pub kernel: String,
    /// Path of the initrd.
    pub initrd: Option<String>,
    /// Everything after the kernel's path.
    pub cmdline: String,
}

/// Reads `grub.cfg`; an error says why the first entry cannot be used.
pub(super) fn first_entry(config: &str) -> Result<Entry, String> {
    let mut inside = false;
    let (mut kernel, mut initrd) = (None, None);
    for line in config.lines() {
        let words = words(line);
        let Some(command) = words.first().map(String::as_str) else { continue };
        match command {
            "menuentry" if inside => break,
            "menuentry" => inside = true,
            "linux" | "linux16" | "linuxefi" if inside && kernel.is_none() => {
                let path = words.get(1).ok_or("its linux line has no path")?;
                kernel = Some((literal(path)?, words[2..].join(" ")));
            }
            "initrd" | "initrd16" | "initrdefi" if inside && initrd.is_none() => match &words[1..] {
                [one] => initrd = Some(literal(one)?),
                more => return Err(format!("it has {} initrds", more.len())),
            },
            "}" if inside && kernel.is_some() => break,
            _ => {}
        }
    }
    let (kernel, cmdline) = kernel.ok_or("its first entry starts no Linux kernel")?;
    if cmdline.contains('$') {
        return Err(format!("its command line has variables: {cmdline}"));
    }
    Ok(Entry { kernel, initrd, cmdline })
}

fn literal(path: &str) -> Result<String, String> {
    if path.starts_with('/') && !path.contains('$') {
        Ok(path.to_string())
    } else {
        Err(format!("the path {path} is not one that can be read off"))
    }
}

/// Words of a line with its quotes taken away, up to a comment.
fn words(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(characters.next()),
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, _) if c.is_whitespace() => found.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = r#"
set default="0"
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
fi
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1234' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1234
	echo	'Loading Linux 6.1.0-18-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-18-amd64 root=UUID=1234 ro  quiet # a comment
	initrd	/boot/initrd.img-6.1.0-18-amd64
}
menuentry 'other' {
	linux /other
}
"#;

    #[test]
    fn the_first_entry_of_debian_is_read() {
        let entry = first_entry(DEBIAN).expect("an entry");
        assert_eq!(entry.kernel, "/boot/vmlinuz-6.1.0-18-amd64");
        assert_eq!(entry.initrd.as_deref(), Some("/boot/initrd.img-6.1.0-18-amd64"));
        assert_eq!(entry.cmdline, "root=UUID=1234 ro quiet");
    }

    #[test]
    fn what_would_have_to_be_guessed_is_not_understood() {
        for config in [
            "",
            "linux /vmlinuz root=/dev/sda1",
            "menuentry a {\n chainloader /EFI/Microsoft/Boot/bootmgfw.efi\n}\nmenuentry b {\n linux /k\n}",
            "menuentry a {\n linux $root/vmlinuz\n}",
            "menuentry a {\n linux (hd0,gpt2)/vmlinuz\n}",
            "menuentry a {\n linux /vmlinuz root=$dev\n}",
            "menuentry a {\n linux /vmlinuz\n initrd /ucode.img /initrd.img\n}",
            "menuentry a {\n linux\n}",
        ] {
            assert!(first_entry(config).is_err(), "{config}");
        }
    }

    #[test]
    fn quotes_are_taken_away() {
        assert_eq!(words(r#"a 'b c' "d \"e" f\ g # h"#), ["a", "b c", "d \"e", "f g"]);
        assert_eq!(words("linux /k x#y ''"), ["linux", "/k", "x#y", ""]);
    }
}
