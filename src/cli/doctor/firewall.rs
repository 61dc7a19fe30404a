//! The firewall: does it let terminals in?

use std::process::Command;

use super::finding::Finding;

const CHECK: &str = "firewall";
const PORTS: &str = "6969/tcp (all but the swarm), 6881/tcp (swarm), 5353/udp (mDNS); with DHCP and TFTP \
    here also 67, 69 and 4011/udp";

pub(super) enum Facts {
    /// The rules, as `nft` lists them.
    Rules(String),
    /// Why they are not known.
    Unknown(String),
}

pub(super) fn facts() -> Facts {
    match Command::new("nft").args(["list", "ruleset"]).output() {
        Ok(output) if output.status.success() => {
            Facts::Rules(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Facts::Unknown(String::from_utf8_lossy(&output.stderr).trim().to_string()),
        Err(error) => Facts::Unknown(format!("nft cannot be started ({error})")),
    }
}

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let open = format!("Terminals need {PORTS}.");
    vec![match facts {
        Facts::Unknown(why) => Finding::warning(
            CHECK,
            format!("its rules are not known: {why}"),
            format!("{open} Check that they are open."),
        ),
        Facts::Rules(rules) if !filters_input(rules) => {
            Finding::ok(CHECK, "nothing filters incoming packets")
        }
        Facts::Rules(rules) if rules.contains("6969") && rules.contains("6881") => {
            Finding::ok(CHECK, "incoming packets are filtered, and rules name 6969 and 6881")
        }
        Facts::Rules(_) => Finding::warning(
            CHECK,
            "incoming packets are dropped or rejected, and no rule names 6969 and 6881",
            open,
        ),
    }]
}

/// Is there a chain for incoming packets that refuses any?
fn filters_input(rules: &str) -> bool {
    let mut chains = rules.split("chain ").skip(1);
    chains.any(|chain| {
        chain.contains("hook input")
            && ["policy drop", "\t\tdrop", " drop", " reject"].iter().any(|word| chain.contains(word))
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn a_chain_that_drops_what_terminals_send_is_a_warning() {
        let level = |rules: &str| findings(&Facts::Rules(rules.into()))[0].level;
        assert_eq!(level(""), Level::Ok);
        let open =
            "table inet f {\n\tchain in {\n\t\ttype filter hook input priority 0; policy accept;\n\t}\n}";
        assert_eq!(level(open), Level::Ok);
        let closed = open.replace("policy accept", "policy drop");
        assert_eq!(level(&closed), Level::Warning);
        let let_in = closed.replace("drop;", "drop;\n\t\ttcp dport { 6881, 6969 } accept");
        assert_eq!(level(&let_in), Level::Ok);
        let unknown = findings(&Facts::Unknown("no root".into()));
        assert_eq!(unknown[0].level, Level::Warning);
        assert!(unknown[0].advice.contains("6881/tcp"), "the ports are named in any case");
    }
}
