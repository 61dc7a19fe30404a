//! Devices as people and programs name them (`lspci -n`, `lsusb`, modalias lines), and the aliases of drivers
//! that fit them.
//!
//! Invariant: pure. What a text does not say of a device is unknown; a driver that is chosen by what is
//! unknown is not claimed to fit.

/// The bus of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bus {
    Pci,
    Usb,
}

/// The fields of `pci:v…d…sv…sd…bc…sc…i…` and `usb:v…p…d…dc…dsc…dp…ic…isc…ip…in…`.
const PCI_FIELDS: &[&str] = &["v", "d", "sv", "sd", "bc", "sc", "i"];
const USB_FIELDS: &[&str] = &["v", "p", "d", "dc", "dsc", "dp", "ic", "isc", "ip", "in"];

impl Bus {
    fn fields(self) -> &'static [&'static str] {
        match self {
            Bus::Pci => PCI_FIELDS,
            Bus::Usb => USB_FIELDS,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Bus::Pci => "pci",
            Bus::Usb => "usb",
        }
    }

    /// Numbers of the class fields, which a driver may be chosen by without vendor and product.
    fn is_class(self, field: usize) -> bool {
        match self {
            Bus::Pci => field == 4 || field == 5,
            Bus::Usb => matches!(field, 3 | 4 | 6 | 7 | 8),
        }
    }
}

/// A device or a driver's pattern: each field's text, `None` where any value fits or it is not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fields {
    bus: Bus,
    values: Vec<Option<String>>,
}

impl Fields {
    /// A modalias, or a line of `modules.alias`.
    pub(crate) fn parse(alias: &str) -> Option<Self> {
        let (word, mut rest) = alias.split_once(':')?;
        let bus = [Bus::Pci, Bus::Usb].into_iter().find(|bus| bus.word() == word)?;
        let mut values = Vec::new();
        for (n, field) in bus.fields().iter().enumerate() {
            // A pattern may end early with `*`.
            if rest.is_empty() || rest == "*" {
                values.push(None);
                continue;
            }
            rest = rest.strip_prefix(field)?;
            let end = match bus.fields().get(n + 1) {
                Some(next) => rest.find(next).unwrap_or(rest.len()),
                None => rest.len(),
            };
            let value = rest[..end].trim_end_matches('*');
            let any =
                value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
            values.push((!any).then(|| value.to_string()));
            rest = &rest[end..];
        }
        Some(Fields { bus, values })
    }

    /// A device of which only vendor and product are known, and perhaps its PCI class.
    fn of_id(bus: Bus, id: (&str, &str), class: Option<&str>) -> Self {
        let width = if bus == Bus::Pci { 8 } else { 4 };
        let padded = |text: &str| Some(format!("{:0>width$}", text.to_ascii_uppercase()));
        let mut values = vec![None; bus.fields().len()];
        (values[0], values[1]) = (padded(id.0), padded(id.1));
        if let (Bus::Pci, Some(class)) = (bus, class) {
            let class = class.to_ascii_uppercase();
            (values[4], values[5]) = (Some(class[..2].into()), Some(class[2..].into()));
        }
        Fields { bus, values }
    }

    /// Does a driver with the pattern `self` serve `device`?
    pub(crate) fn fits(&self, device: &Fields) -> bool {
        let is_named = self.values.iter().take(2).all(Option::is_some);
        let of_one = |n: usize, pattern: &Option<String>, value: &Option<String>| match (pattern, value) {
            (None, _) => true,
            (Some(pattern), Some(value)) => pattern == value,
            // The subsystem, the interface and the class only say more of a device that is named.
            (Some(_), None) => n > 1 && (is_named || !self.bus.is_class(n)),
        };
        let by_class_only = self.values.iter().take(2).all(Option::is_none);
        let pairs = || self.values.iter().zip(&device.values).enumerate();
        // A pattern without any value is one for every device.
        self.bus == device.bus
            && self.values.iter().any(Option::is_some)
            && pairs().all(|(n, (pattern, value))| of_one(n, pattern, value))
            && (!by_class_only || pairs().any(|(n, (pattern, _))| self.bus.is_class(n) && pattern.is_some()))
    }

    /// What flashmob needs to reach: a network card, a disk controller or a USB host; `None` if it cannot be
    /// told.
    pub(crate) fn is_wanted(&self) -> Option<bool> {
        match self.bus {
            Bus::Usb => None,
            Bus::Pci => {
                let (base, sub) = (self.values[4].as_deref()?, self.values[5].as_deref()?);
                Some(matches!((base, sub), ("01" | "02", _) | ("0C", "03")) && (base, sub) != ("02", "80"))
            }
        }
    }

    /// `pci 8086:15f3`
    pub(crate) fn title(&self) -> String {
        let part = |n: usize| {
            let value = self.values[n].as_deref().unwrap_or("????");
            value[value.len().saturating_sub(4)..].to_ascii_lowercase()
        };
        format!("{} {}:{}", self.bus.word(), part(0), part(1))
    }
}

/// The devices that `text` names: modalias lines, lines of `lspci -n` or `lspci -nn`, of `lsusb`, `usb:V:P`,
/// `pci:V:D`, or `V:D`, which is looked up on both buses.
pub(crate) fn in_text(text: &str) -> Vec<Fields> {
    let mut found: Vec<Fields> = text.lines().flat_map(in_line).collect();
    found.sort();
    found.dedup();
    found
}

fn in_line(line: &str) -> Vec<Fields> {
    let line = line.trim().trim_matches(['"', ',']);
    let modalias: Vec<Fields> = line.split(['"', ' ', '=']).filter_map(Fields::parse).collect();
    if !modalias.is_empty() {
        return modalias;
    }
    let words: Vec<&str> = line.split([' ', '\t', '[', ']', ',']).filter(|word| !word.is_empty()).collect();
    // lspci's lines begin with the slot.
    let is_slot = |word: &&&str| word.contains('.') && word.contains(':');
    let from_lspci = words.first().is_some_and(|word| is_slot(&word));
    let class = words.iter().skip(1).map(|word| word.trim_end_matches(':')).find(|word| is_hex(word));
    let mut found = Vec::new();
    for word in words {
        let (bus, id) = match word.split_once(':') {
            Some(("pci", id)) => (Some(Bus::Pci), id),
            Some(("usb", id)) => (Some(Bus::Usb), id),
            _ if from_lspci => (Some(Bus::Pci), word),
            _ if line.starts_with("Bus ") => (Some(Bus::Usb), word),
            _ => (None, word),
        };
        let Some(id) = id.split_once(':').filter(|(vendor, product)| is_hex(vendor) && is_hex(product))
        else {
            continue;
        };
        let class = class.filter(|_| from_lspci);
        let buses = bus.map_or(vec![Bus::Pci, Bus::Usb], |bus| vec![bus]);
        found.extend(buses.into_iter().map(|bus| Fields::of_id(bus, id, class)));
    }
    found
}

/// Four hexadecimal digits.
fn is_hex(word: &str) -> bool {
    word.len() == 4 && word.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Fields {
        let mut all = in_text(text);
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all.remove(0)
    }

    fn fits(pattern: &str, device: &str) -> bool {
        Fields::parse(pattern).expect("a pattern").fits(&one(device))
    }

    const I225: &str = "pci:v00008086d000015F3sv*sd*bc*sc*i*";
    const AHCI: &str = "pci:v*d*sv*sd*bc01sc06i01*";

    #[test]
    fn devices_are_read_from_what_people_have() {
        for text in [
            "pci:v00008086d000015F3sv00001043sd000087D2bc02sc00i00",
            "03:00.0 0200: 8086:15f3 (rev 03)",
            "0000:03:00.0 Ethernet controller [0200]: Intel Corporation I225-V [8086:15f3] (rev 03)",
            "pci:8086:15F3",
        ] {
            assert_eq!(one(text).title(), "pci 8086:15f3");
            assert!(fits(I225, text), "{text}");
            assert!(!fits(I225, &text.replace("15f3", "15f4").replace("15F3", "15F4")), "{text}");
        }
        assert_eq!(one("Bus 002 Device 003: ID 0bda:8153 Realtek RTL8153").title(), "usb 0bda:8153");
        assert_eq!(in_text("0bda:8153\n\nnothing here\n").len(), 2);
    }

    #[test]
    fn a_driver_for_a_class_fits_only_where_the_class_is_known() {
        assert!(fits(AHCI, "00:17.0 0106: 8086:a352 (rev 10)"));
        assert!(!fits(AHCI, "00:17.0 0104: 8086:a352 (rev 10)"));
        assert!(!fits(AHCI, "pci:8086:a352"));
        let usb = "usb:v0BDAp8153d3100dc00dsc00dp00icFFiscFFip00in00";
        assert!(fits("usb:v0BDAp8153d*dc*dsc*dp*icFFiscFFip00in*", usb));
        assert!(!fits("usb:v0BDAp8153d*dc*dsc*dp*ic02isc06ip00in*", usb));
        // Vendor and product name the device, whatever class it says.
        let ax88179 = "usb:v0B95p1790d*dc*dsc*dp*icFFiscFFip00in*";
        assert!(fits(ax88179, "usb:0b95:1790") && !fits(ax88179, "usb:0b95:1791"));
        assert!(!fits("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "usb:0b95:1790"), "a class that is not known");
    }

    #[test]
    fn network_and_disk_controllers_are_wanted_and_screens_are_not() {
        let wanted = |class: &str| one(&format!("00:02.0 {class}: 8086:3e92")).is_wanted();
        assert_eq!([wanted("0200"), wanted("0104"), wanted("0c03")], [Some(true); 3]);
        assert_eq!([wanted("0300"), wanted("0280"), wanted("0c05")], [Some(false); 3]);
        assert_eq!(one("usb:0bda:8153").is_wanted(), None);
    }
}
