//! The clock: is it kept by NTP?

use super::finding::Finding;
use crate::io::sys;

const CHECK: &str = "clock";

/// Whether something keeps it in step, or why that is not known.
pub(super) type Facts = Result<bool, String>;

pub(super) fn facts() -> Facts {
    sys::clock_is_synchronised().map_err(|e| e.to_string())
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let advice = "Jobs open and close by this clock: 'apt install systemd-timesyncd', or chrony in a LAN.";
    vec![match facts {
        Ok(true) => Finding::ok(CHECK, "it is synchronised"),
        Ok(false) => Finding::warning(CHECK, "nothing synchronises the clock", advice),
        Err(why) => {
            Finding::warning(CHECK, format!("the kernel does not tell about its clock: {why}"), advice)
        }
    }]
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_clock_that_nothing_keeps_is_a_warning() {
        assert_eq!(findings(&Ok(true))[0].level, Level::Ok);
        assert_eq!(findings(&Ok(false))[0].level, Level::Warning);
        assert!(facts().is_ok(), "every user may read the clock's state");
    }
}
