//! What people say of terminals, applied to the lab: imported tables, single edits, acceptance, export.
//!
//! Invariant: labels are unique among all terminals and those that the configuration names, and seats in
//! their room. A table is applied whole or, after one mistake, not at all.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Change, Lab, MAX_TERMINALS, Terminal, cards, some_of};
use crate::api::{Imported, Refusal};
use crate::server::domain::config::{Config, Register};
use crate::server::domain::identity::{Identity, Mac, TerminalKey, same_uuid};
use crate::server::domain::registry::table::{self, Entry, Mistake, Row};
use crate::server::domain::registry::{Column, Edit, natural};

/// Terminals as they will be, by id, each with the line that says so.
type After = BTreeMap<String, (u64, Terminal)>;

impl Lab {
    /// A terminal's label: the one that a person gave it here, else the configuration's.
    pub fn label<'a>(&'a self, config: &'a Config, terminal: &'a Terminal) -> Option<&'a str> {
        let own = terminal.place.label.as_deref();
        own.or_else(|| config.label(&self.named(&terminal.identity, Some(&terminal.id))))
    }

    /// How people recognise the terminal that calls itself `id`: its label with that name, or the name alone.
    pub fn title(&self, config: &Config, id: &str) -> String {
        match self.get(id).and_then(|terminal| self.label(config, terminal)) {
            Some(label) => format!("{label} ({id})"),
            None => id.to_string(),
        }
    }

    /// Applies a table: a known terminal is described anew, an unknown one is created, never heard. Both are
    /// accepted, because a person has listed them.
    pub fn import(
        &mut self,
        entries: &[Entry],
        config: &Config,
    ) -> Result<(Imported, Vec<Change>), Vec<Mistake>> {
        let (mut after, mut mistakes): (After, _) = (BTreeMap::new(), Vec::new());
        let mut created: HashMap<TerminalKey, Vec<(u64, Identity)>> = HashMap::new();
        let mut counts = Imported::default();
        for entry in entries {
            let terminal = match self.meant_by(entry, config).and_then(|known| match known {
                Some(known) => again(entry, known, &after),
                None => self.created_by(entry, &mut created, &after),
            }) {
                Ok(terminal) => terminal,
                Err(mistake) => {
                    mistakes.push(mistake);
                    continue;
                }
            };
            match self.get(&terminal.id) {
                None => counts.created += 1,
                Some(before) if *before == terminal => counts.unchanged += 1,
                Some(_) => counts.updated += 1,
            }
            after.insert(terminal.id.clone(), (entry.line, terminal));
        }
        mistakes.extend(self.clashes(&after, config));
        if self.terminals.len() + counts.created > MAX_TERMINALS {
            let line = entries.last().map_or(1, |entry| entry.line);
            let why = format!("with these terminals there are more than {MAX_TERMINALS}");
            mistakes.push(Mistake { line, column: None, why });
        }
        if mistakes.is_empty() {
            let mut changes = self.put(after);
            changes.extend(self.take_claims(entries.iter().filter_map(|entry| entry.mac)));
            return Ok((counts, changes));
        }
        mistakes.sort_by_key(|mistake| mistake.line);
        Err(mistakes)
    }

    /// A person describes terminals, and so accepts them: all of them or, after one mistake, none.
    pub(crate) fn describe(
        &mut self,
        edits: &[(String, Edit)],
        config: &Config,
    ) -> Result<Vec<Change>, Refusal> {
        let advice = "'flashmob terminal list' shows the labels and places that are given.";
        let refuse = |why| Refusal { error: why, advice: advice.into() };
        let mut after = After::new();
        for (id, edit) in edits {
            edit.check().map_err(|(column, why)| refuse(format!("{}: {why}", column.name())))?;
            let Some(before) = self.get(id) else { continue };
            let terminal = Terminal { place: before.place.with(edit), accepted: true, ..before.clone() };
            after.insert(id.clone(), (0, terminal));
        }
        match self.clashes(&after, config).into_iter().next() {
            Some(mistake) => Err(refuse(mistake.why)),
            None => Ok(self.put(after)),
        }
    }

    /// A terminal is one of the lab's.
    pub fn accept(&mut self, id: &str) -> Option<Change> {
        let terminal = self.terminals.get_mut(id).filter(|terminal| !terminal.accepted)?;
        terminal.accepted = true;
        Some(Change::Terminal(Box::new(terminal.clone())))
    }

    /// Has no person had to do with this terminal, and has it no work? Where terminals register themselves,
    /// that it is accepted says nothing.
    pub(crate) fn is_strange(&self, id: &str, register: Register) -> bool {
        self.get(id).is_some_and(|terminal| {
            let accepted = terminal.accepted && register == Register::Ask;
            let works = terminal.last.is_some() || self.jobs.is_wanted(id);
            !accepted && !works && terminal.place.is_empty()
        })
    }

    /// All accepted terminals as a table that [`Lab::import`] takes, with `new` the others too.
    pub fn export(&self, config: &Config, new: bool) -> Result<String, csv::Error> {
        let mut rows: Vec<Row<'_>> =
            self.iter().filter(|t| t.accepted || new).map(|t| self.row(config, t)).collect();
        rows.sort_by(|a, b| {
            let text = |word: Option<&str>| word.unwrap_or_default().to_string();
            natural(&text(a.place.room.as_deref()), &text(b.place.room.as_deref()))
                .then_with(|| natural(&text(a.label), &text(b.label)))
                .then_with(|| (a.mac, a.uuid).cmp(&(b.mac, b.uuid)))
        });
        table::write(rows.into_iter())
    }

    /// The terminal named as briefly as possible: by a MAC of its own, or by a shared one and its UUID.
    fn row<'a>(&'a self, config: &'a Config, terminal: &'a Terminal) -> Row<'a> {
        let macs = &terminal.own_macs;
        let means_it = |mac: &Mac| self.fitting(&TerminalKey::Mac(*mac))[..] == [terminal];
        let own = macs.iter().find(|mac| means_it(mac));
        Row {
            mac: own.or(macs.first()).copied(),
            uuid: terminal.identity.uuid.filter(|_| own.is_none()),
            label: self.label(config, terminal),
            place: &terminal.place,
        }
    }

    /// The known terminal that a line names. One that only claims the MAC is not meant, unless the line has
    /// the label of a registered one: so a person lists its second card.
    fn meant_by(&self, entry: &Entry, config: &Config) -> Result<Option<&Terminal>, Mistake> {
        let label = entry.edit.label.as_deref().filter(|label| !label.is_empty());
        let claims = entry.mac.map(|mac| self.all_with(&TerminalKey::Mac(mac))).unwrap_or_default();
        let is_owned = claims.iter().any(|t| entry.mac.is_some_and(|mac| t.own_macs.contains(&mac)));
        let differs = |t: &Terminal| entry.uuid.zip(t.identity.uuid).is_some_and(|(a, b)| !same_uuid(a, b));
        let claims = claims.into_iter().filter(|t| t.accepted && !is_owned && !differs(t));
        let same = claims.filter(|t| label.is_some() && self.label(config, t) == label);
        if let Some(confirmed) = same.min_by(|a, b| a.id.cmp(&b.id)) {
            return Ok(Some(confirmed));
        }
        let (by_mac, by_uuid) = (entry.mac.map(TerminalKey::Mac), entry.uuid.map(TerminalKey::Uuid));
        let (column, fitting) = match (by_mac, by_uuid) {
            (Some(mac), None) => (Column::Mac, self.fitting(&mac)),
            (None, uuid) => (Column::Uuid, uuid.map(|uuid| self.fitting(&uuid)).unwrap_or_default()),
            // A new laptop at a dock is one of those that nobody has accepted.
            (Some(mac), Some(uuid)) => {
                (Column::Mac, both(entry, self.all_known_by(&mac), self.all_known_by(&uuid)))
            }
        };
        let ids: Vec<&str> = fitting.iter().map(|t| t.id.as_str()).collect();
        match (fitting[..].len(), column) {
            (0 | 1, _) => Ok(fitting.first().copied()),
            (n, Column::Uuid) => {
                let why = format!("{n} terminals share this UUID ({}); name them by mac", some_of(&ids));
                Err(Mistake::new(entry.line, Column::Uuid, why))
            }
            (n, _) => {
                let why = format!(
                    "{n} terminals have used this adapter ({}); name the one that is meant by an adapter of \
                     its own, or in the column uuid as well; 'flashmob terminal forget' removes those that \
                     are not of this lab",
                    some_of(&ids)
                );
                Err(Mistake::new(entry.line, Column::Mac, why))
            }
        }
    }

    /// The terminal that a line creates. Lines that could mean one machine are refused.
    fn created_by(
        &self,
        entry: &Entry,
        created: &mut HashMap<TerminalKey, Vec<(u64, Identity)>>,
        after: &After,
    ) -> Result<Terminal, Mistake> {
        let who = Identity { macs: entry.mac.into_iter().collect(), uuid: entry.uuid };
        let (column, key) = match (entry.mac, entry.uuid) {
            (Some(mac), _) => (Column::Mac, TerminalKey::Mac(mac)),
            (None, uuid) => (Column::Uuid, TerminalKey::Uuid(uuid.unwrap_or_default())),
        };
        let same = created.entry(key).or_default();
        let twin = same.iter().find(|(_, other)| match (other.uuid, who.uuid) {
            (Some(a), Some(b)) => same_uuid(a, b),
            _ => true,
        });
        if let Some((line, _)) = twin {
            return Err(Mistake::new(entry.line, column, format!("{key} is on line {line} already")));
        }
        same.push((entry.line, who.clone()));
        let id = self.new_id(&who, |id| after.contains_key(id));
        let id = id.ok_or_else(|| Mistake::new(entry.line, column, "it names no machine"))?;
        Ok(Terminal::registered(id, who).with(entry))
    }

    /// Labels and seats that would be given twice.
    fn clashes(&self, after: &After, config: &Config) -> Vec<Mistake> {
        let (mut labels, mut seats) = (HashMap::new(), HashMap::new());
        let mut mistakes = Vec::new();
        let stay = self.terminals.values().filter(|t| !after.contains_key(&t.id)).map(|t| (0, false, t));
        // The ones that stay come first, so that the line that repeats their label is the mistake.
        let mut change: Vec<_> = after.values().map(|(line, terminal)| (*line, true, terminal)).collect();
        change.sort_by_key(|(line, ..)| *line);
        for (line, changed, terminal) in stay.chain(change) {
            let place = &terminal.place;
            let label = place.label.as_deref().map(|label| labels.insert(label, (line, terminal)));
            if let (true, Some(Some(other))) = (changed, label) {
                let why = format!("the label '{}' belongs to {}", text(&place.label), owner(other));
                mistakes.push(Mistake::new(line, Column::Label, why));
            }
            let seat = place.seat.as_deref().map(|seat| seats.insert((&place.room, seat), (line, terminal)));
            if let (true, Some(Some(other))) = (changed, seat) {
                let room = place.room.as_deref().map(|room| format!(" of room {room}")).unwrap_or_default();
                let why = format!("seat '{}'{room} belongs to {}", text(&place.seat), owner(other));
                mistakes.push(Mistake::new(line, Column::Seat, why));
            }
        }
        for (line, terminal) in after.values() {
            let label = terminal.place.label.as_deref();
            let others = config.terminals.iter().filter(|(key, _)| !key.matches(&terminal.certain()));
            if let Some((key, note)) = others.into_iter().find(|(_, note)| Some(note.label.as_str()) == label)
            {
                let why = format!("the configuration gives the label '{}' to {key}", note.label);
                mistakes.push(Mistake::new(*line, Column::Label, why));
            }
        }
        mistakes
    }

    /// People have listed these MACs: nobody else claims them any more.
    fn take_claims(&mut self, listed: impl Iterator<Item = Mac>) -> Vec<Change> {
        let mut changed = BTreeMap::<String, Terminal>::new();
        for mac in listed {
            for claimant in self.all_with(&TerminalKey::Mac(mac)) {
                if !claimant.own_macs.contains(&mac) {
                    let after = changed.entry(claimant.id.clone()).or_insert_with(|| claimant.clone());
                    after.identity.macs.retain(|claimed| *claimed != mac);
                }
            }
        }
        self.put(changed.into_iter().map(|(id, terminal)| (id, (0, terminal))).collect())
    }

    /// Puts terminals in, and returns what changes.
    fn put(&mut self, after: After) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, (_, terminal)) in after {
            let before = self.terminals.get(&id);
            if before == Some(&terminal) {
                continue;
            }
            self.namesakes.note(&id, before.map(|t| &t.identity), &terminal.identity);
            changes.push(Change::Terminal(Box::new(terminal.clone())));
            self.terminals.insert(id, terminal);
        }
        changes
    }
}

/// The known terminal as the line describes it.
fn again(entry: &Entry, known: &Terminal, after: &After) -> Result<Terminal, Mistake> {
    if let Some((line, _)) = after.get(&known.id) {
        let column = if entry.mac.is_some() { Column::Mac } else { Column::Uuid };
        let why = format!("this is the terminal {} of line {line}", known.id);
        return Err(Mistake::new(entry.line, column, why));
    }
    let mut terminal = known.clone().with(entry);
    if known.heard.is_none() {
        // Nobody but the file says which machine it is.
        let mut macs = terminal.identity.macs.into_iter().collect::<BTreeSet<_>>();
        macs.extend(entry.mac);
        terminal.identity =
            Identity { macs: macs.into_iter().collect(), uuid: entry.uuid.or(terminal.identity.uuid) };
    } else if !known.accepted && entry.uuid.is_some() {
        terminal.identity.uuid = entry.uuid;
    }
    if let Some(mac) = entry.mac.filter(|mac| !terminal.own_macs.contains(mac)) {
        terminal.own_macs.push(mac);
        terminal.identity = cards::with_own(terminal.identity, &terminal.own_macs);
    }
    Ok(terminal)
}

/// The terminals that a MAC and a UUID mean together: with this UUID if one has it, else one of which no UUID
/// is known, else one that was listed by this UUID alone.
fn both<'a>(entry: &Entry, by_mac: Vec<&'a Terminal>, by_uuid: Vec<&'a Terminal>) -> Vec<&'a Terminal> {
    let agrees = |t: &&Terminal| Some(same_uuid(t.identity.uuid?, entry.uuid?));
    let certain: Vec<_> = by_mac.iter().copied().filter(|t| agrees(t) == Some(true)).collect();
    if !certain.is_empty() {
        return certain;
    }
    let possible: Vec<_> = by_mac.into_iter().filter(|t| agrees(t).is_none()).collect();
    match possible.is_empty() {
        true => by_uuid.into_iter().filter(|t| t.heard.is_none() && t.identity.macs.is_empty()).collect(),
        false => possible,
    }
}

fn text(word: &Option<String>) -> &str {
    word.as_deref().unwrap_or_default()
}

fn owner((line, terminal): (u64, &Terminal)) -> String {
    match line {
        0 => terminal.id.clone(),
        line => format!("{} on line {line}", terminal.id),
    }
}
