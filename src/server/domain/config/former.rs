//! `[[job]]` of earlier configurations, as the command to type instead.
//!
//! Invariant: jobs are created by people and kept in the database; a configuration never starts one.

use toml::{Table, Value};

/// The error for a configuration with `[[job]]`, if this is one.
pub(super) fn error_for(text: &str) -> Option<String> {
    let table: Table = text.parse().ok()?;
    let jobs = table.get("job")?;
    let jobs = match jobs {
        Value::Array(jobs) => jobs.as_slice(),
        one => std::slice::from_ref(one),
    };
    let commands: Vec<String> = jobs.iter().filter_map(Value::as_table).map(command).collect();
    Some(format!(
        "[[job]] is no longer configuration, because nothing is imaged unless a person starts it. \
         Delete it, and when the terminals should be imaged, type:\n  {}",
        commands.join("\n  ")
    ))
}

/// `flashmob job create …` for one of them.
fn command(job: &Table) -> String {
    let text = |key: &str| job.get(key).and_then(Value::as_str);
    let mut words = vec!["flashmob job create".to_string(), text("image").unwrap_or("IMAGE").to_string()];
    match job.get("terminals") {
        Some(Value::Array(all)) => words.extend(all.iter().filter_map(Value::as_str).map(str::to_string)),
        _ => words.push("all".into()),
    }
    words.extend(choices(job));
    for also in job.get("also").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| also.get(key).and_then(Value::as_str).unwrap_or_default();
        let how = match partitions(also.get("partitions")) {
            Some(list) => format!(":{list}"),
            None if of("layout") == "keep" => ":keep".into(),
            None => String::new(),
        };
        words.push(format!("--also {}", quoted(&format!("{}{how}={}", of("image"), of("disk")))));
    }
    words.join(" ")
}

/// Numbers of partitions as an option has them.
fn partitions(value: Option<&Value>) -> Option<String> {
    let numbers: Vec<String> = value?.as_array()?.iter().map(ToString::to_string).collect();
    Some(numbers.join(","))
}

fn choices(job: &Table) -> Vec<String> {
    let mut words = Vec::new();
    for (key, usual) in
        [("disk", "internal"), ("layout", "whole-disk"), ("compare", "auto"), ("after", "reboot")]
    {
        if let Some(value) = job.get(key).and_then(Value::as_str).filter(|value| *value != usual) {
            words.push(format!("--{key} {}", quoted(value)));
        }
    }
    if let Some(list) = partitions(job.get("partitions")) {
        words.push(format!("--partitions {list}"));
    }
    words
}

/// For a shell, where it needs that.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:@/+".contains(c);
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_in_the_configuration_is_answered_with_the_command_to_type() {
        let text = "[[job]]\nname='lab'\nimage='debian'\nterminals='all'\n\
            [[job]]\nname='two'\nimage='win@2'\nterminals=['52:54:00:12:34:56', 'uuid:x']\n\
            disk='bus=nvme largest'\npartitions=[1, 3]\ncompare='full'\n\
            [[job.also]]\nimage='data'\ndisk='bus=ata'\n\
            [[job.also]]\nimage='home'\ndisk='bus=usb'\nlayout='keep'\n\
            [[job.also]]\nimage='swap'\ndisk='wwn=1'\npartitions=[2, 5]\n";
        let error = error_for(text).expect("an error");
        assert!(error.contains("\n  flashmob job create debian all\n"), "{error}");
        assert!(
            error.ends_with(
                "flashmob job create win@2 52:54:00:12:34:56 uuid:x --disk 'bus=nvme largest' --compare full \
                 --partitions 1,3 --also data=bus=ata --also home:keep=bus=usb --also swap:2,5=wwn=1"
            ),
            "{error}"
        );
        assert_eq!(error_for("compress = 'auto'\n"), None);
    }
}
