//! The files of the helpers, as people install them.

use std::fs;
use std::path::Path;
use std::process::Command;

use flashmob::layout::blank;

use super::{SCRIPT, succeeds};

#[test]
fn the_program_writes_a_package_that_debian_takes_and_files_for_windows() {
    let folder = tempfile::tempdir().unwrap();
    let helper = |folder: &Path| {
        Command::new(env!("CARGO_BIN_EXE_flashmob")).arg("helper").arg(folder).output().unwrap()
    };
    let said = succeeds(&helper(folder.path()));
    assert_eq!(helper(folder.path()).status.code(), Some(3), "nothing is written over");
    if said.contains("no dpkg-deb") {
        eprintln!("SKIPPED: there is no dpkg-deb");
        return;
    }
    let package = folder.path().join("flashmob-helper.deb");
    let list = Command::new("dpkg-deb").arg("--contents").arg(&package).output().unwrap();
    let list = succeeds(&list);
    for line in [
        "-rwxr-xr-x root/root",
        "./usr/lib/flashmob/first-start",
        "flashmob-booted.service",
        "first-start.d/",
    ] {
        assert!(list.contains(line), "{list}");
    }
    let field = Command::new("dpkg-deb").arg("--field").arg(&package).arg("Version").output().unwrap();
    assert_eq!(succeeds(&field).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn windows_finds_its_helper_where_it_looks_and_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let written = Command::new(env!("CARGO_BIN_EXE_flashmob")).arg("helper").arg(folder.path()).output();
    succeeds(&written.unwrap());
    let windows = folder.path().join("windows");
    let text = |file: &str| fs::read_to_string(windows.join(file)).unwrap();
    let script = text("flashmob-first-start.ps1");
    assert!(script.contains("Get-Partition -DiskNumber $windows.DiskNumber"), "only the ESP of its own disk");
    assert!(!script.contains("mountvol"), "mountvol /S takes the disk that the loader came from");
    assert!(script.contains(&format!("'{}'", blank::MARK)), "capture finds the blank by this line");
    let [folder, inside, file] = blank::PATH;
    assert!(
        script.contains(&format!("$env:{folder} '{inside}'")) && script.contains(&format!("$state '{file}'"))
    );
    for file in ["flashmob-first-start.ps1", "SetupComplete.cmd", "unattend-snippet.xml"] {
        assert!(text(file).is_ascii(), "Windows PowerShell reads {file} in the machine's own code page");
        assert_eq!(text(file).matches('\n').count(), text(file).matches("\r\n").count(), "{file}");
    }
    // Windows runs %WINDIR%\Setup\Scripts\SetupComplete.cmd; docs/identity.md puts the script beside it.
    let script = r"\Setup\Scripts\flashmob-first-start.ps1";
    assert!(text("SetupComplete.cmd").contains(&format!("\"%WINDIR%{script}\" -Register")));
    // The snippet in an answer file, as an XML parser reads it.
    let answers = "<unattend xmlns=\"urn:schemas-microsoft-com:unattend\">SNIPPET</unattend>";
    let answers = answers.replace("SNIPPET", &text("unattend-snippet.xml"));
    let look = "import sys, xml.etree.ElementTree as tree\n\
                of = tree.fromstring(sys.argv[1])\n\
                name = '{urn:schemas-microsoft-com:unattend}'\n\
                settings = of.find(name + 'settings')\n\
                component = settings.find(name + 'component')\n\
                command = component.find(name + 'RunSynchronous/' + name + 'RunSynchronousCommand')\n\
                action = '{http://schemas.microsoft.com/WMIConfig/2002/State}action'\n\
                print(settings.get('pass'), component.get('name'), component.get('processorArchitecture'))\n\
                print(command.get(action), command.find(name + 'Order').text)\n\
                print(command.find(name + 'Path').text)";
    let said = succeeds(&Command::new("/usr/bin/python3").args(["-c", look, &answers]).output().unwrap());
    let [settings, command, path] = &said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_eq!([*settings, *command], ["specialize Microsoft-Windows-Deployment amd64", "add 1"]);
    assert!(path.ends_with(&format!("-File C:\\Windows{script} -Register")), "{path}");
    assert!(path.len() <= 259, "Windows cuts longer commands");
}

#[test]
fn windows_has_its_name_before_that_is_remembered_and_before_any_script_runs() {
    let script = SCRIPT.replace("linux/first-start", "windows/flashmob-first-start.ps1");
    let script = fs::read_to_string(script).unwrap();
    let one = |text: &str| {
        assert_eq!(script.matches(text).count(), 1, "{text}");
        script.find(text).unwrap()
    };
    let rename = one("Rename-Computer");
    assert!(one("-notin $env:COMPUTERNAME") < rename && one("(Add-RenameTry $own.ticket) -gt 3") < rename);
    assert!(rename < one("Set-Done 'named'") && one("Set-Done 'named'") < one("& powershell.exe"));
    // A function's value is all that its commands say.
    let functions = script.split("\nfunction ").skip(1).map(|rest| rest.split("\n}\n").next().unwrap());
    for line in functions.flat_map(str::lines).filter(|line| line.contains("& ") && line.contains(".exe")) {
        assert!(line.contains("| Out-Null") || line.contains("| Out-Host"), "{line}");
    }
    // Something that is no file is not obeyed, and does not end the task either: the file may come later.
    let without = script.split("if (-not $own.ticket) {\n").last().expect("there");
    let without = without.split("\n}").next().expect("a block");
    assert!(without.trim_end().ends_with("exit 0") && !without.contains("Remove-NextStart"), "{without}");
}

#[test]
fn the_shell_scripts_have_no_fault_that_shellcheck_knows() {
    let folder = Path::new(SCRIPT).parent().unwrap();
    let files = ["first-start", "DEBIAN/postinst", "DEBIAN/prerm"].map(|file| folder.join(file));
    match Command::new("shellcheck").args(files).output() {
        Err(_) => eprintln!("SKIPPED: there is no shellcheck"),
        Ok(output) => drop(succeeds(&output)),
    }
}
