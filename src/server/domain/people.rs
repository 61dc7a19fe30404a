//! People who may act from their own desks, each by a token.
//!
//! Invariant: pure; a token is shown once and kept as a hash. Names are unique, because the audit names
//! people by them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lab::Change;
use super::tickets::{equal, hash_of};
use crate::api::Refusal;
use crate::image_id::is_plain_name;
use crate::units::Sha256;

/// Most tokens at once.
const MOST: usize = 1000;

/// What a person may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Actions on the terminals of this room.
    Teacher { room: String },
}

impl Role {
    /// From the words of a command or a row.
    pub(crate) fn read(role: &str, room: Option<String>) -> Result<Role, Refusal> {
        let refuse = |error: &str, advice: &str| Refusal { error: error.into(), advice: advice.into() };
        match (role, room.map(|room| room.trim().to_string()).filter(|room| !room.is_empty())) {
            ("admin", None) => Ok(Role::Admin),
            ("admin", Some(_)) => {
                Err(refuse("an administrator's token is for all rooms", "Leave --room out."))
            }
            ("teacher", Some(room)) if room.len() <= 100 => Ok(Role::Teacher { room }),
            ("teacher", _) => Err(refuse("a teacher's token is for one room", "Name it: --room 101")),
            _ => Err(refuse("there is no such role", "A role is admin or teacher.")),
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Teacher { .. } => "teacher",
        }
    }

    pub(crate) fn room(&self) -> Option<&str> {
        match self {
            Role::Admin => None,
            Role::Teacher { room } => Some(room),
        }
    }
}

/// One token, and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub name: String,
    pub role: Role,
    pub hash: Sha256,
    pub created: Duration,
}

/// The name in what the audit and jobs say of a person's act: 'NAME at ADDRESS'. Programs on the server
/// itself have none.
pub(crate) fn name_in(by: &str) -> Option<&str> {
    by.rsplit_once(" at ").map(|(name, _)| name)
}

/// All tokens.
#[derive(Debug, Clone, Default)]
pub struct People(BTreeMap<String, Person>);

impl People {
    /// As they were stored.
    pub fn restore(stored: Vec<Person>) -> People {
        People(stored.into_iter().map(|person| (person.name.clone(), person)).collect())
    }

    /// Who has this token? The time it takes does not tell how much of it is right.
    pub fn of(&self, token: &str) -> Option<&Person> {
        let hash = hash_of(token);
        self.0.values().fold(None, |found, person| match equal(&person.hash.0, &hash.0) {
            true => Some(person),
            false => found,
        })
    }

    /// Who has this name?
    pub(crate) fn named(&self, name: &str) -> Option<&Person> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Person> {
        self.0.values()
    }

    /// Makes a token valid. Without a name it gets one by its role.
    pub fn create(
        &mut self,
        now: Duration,
        name: Option<&str>,
        role: Role,
        token: &str,
    ) -> Result<(Person, Change), Refusal> {
        if self.0.len() >= MOST {
            let advice = "Revoke those that nobody uses: 'flashmob token list' shows them.";
            return Err(Refusal { error: format!("there are {MOST} tokens"), advice: advice.into() });
        }
        let name = match name {
            Some(name) if self.0.contains_key(name) => {
                let advice = format!("Choose another name, or revoke it: flashmob token revoke {name}");
                return Err(Refusal { error: format!("there is a token '{name}'"), advice });
            }
            Some(name) if !is_plain_name(name) || name.len() > 100 => {
                let advice = "A name has letters, digits, '.', '_' and '-'.";
                return Err(Refusal { error: format!("'{name}' is no name"), advice: advice.into() });
            }
            Some(name) => name.to_string(),
            None => self.free_name(&role),
        };
        let person = Person { name, role, hash: hash_of(token), created: now };
        self.0.insert(person.name.clone(), person.clone());
        Ok((person.clone(), Change::Person(Box::new(person))))
    }

    fn free_name(&self, role: &Role) -> String {
        let room: String =
            role.room().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
        let base = match room.is_empty() {
            true => role.word().to_string(),
            false => format!("{}-{room}", role.word()),
        };
        let names = std::iter::once(base.clone()).chain((2..).map(|n| format!("{base}-{n}")));
        names.into_iter().find(|name| !self.0.contains_key(name)).unwrap_or(base)
    }

    /// Makes a token invalid.
    pub fn revoke(&mut self, name: &str) -> Result<Change, Refusal> {
        let gone = self.0.remove(name).map(|person| Change::Revoke(person.name));
        gone.ok_or_else(|| Refusal {
            error: format!("there is no token '{name}'"),
            advice: "'flashmob token list' shows them.".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::lab::at;

    #[test]
    fn a_token_works_until_it_is_revoked_and_its_name_is_given_once() {
        let mut people = People::default();
        let teacher = Role::read("teacher", Some("1 01".into())).expect("a role");
        let (first, _) = people.create(at(1), None, teacher.clone(), "one").expect("made");
        let (second, _) = people.create(at(1), None, teacher, "two").expect("made");
        assert_eq!((first.name.as_str(), second.name.as_str()), ("teacher-101", "teacher-101-2"));
        assert_eq!(people.of("two"), Some(&second));
        assert!(people.of("").is_none() && people.of("tw").is_none());
        assert!(people.create(at(1), Some("teacher-101"), Role::Admin, "x").is_err());
        assert!(people.create(at(1), Some("a b"), Role::Admin, "x").is_err());
        people.revoke("teacher-101-2").expect("there");
        assert!(people.of("two").is_none() && people.of("one").is_some());
        assert!(people.revoke("teacher-101-2").is_err());
    }

    #[test]
    fn a_teacher_has_one_room_and_an_administrator_none() {
        assert!(Role::read("teacher", None).is_err() && Role::read("teacher", Some(" ".into())).is_err());
        assert!(Role::read("admin", Some("101".into())).is_err() && Role::read("root", None).is_err());
        assert_eq!(Role::read("admin", None), Ok(Role::Admin));
    }
}
