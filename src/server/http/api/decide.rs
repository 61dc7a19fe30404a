//! Carries out a person's decision for the terminals that the person names.
//!
//! Invariant: a decision is taken only from a person who may act on all of the terminals (`access`). A target
//! that fits none is refused before anything changes. Each terminal that changed is in the audit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::access::Caller;
use super::named;
use super::reply::{Error, conflict, keep};
use crate::api::{Decided, Refusal};
use crate::server::app::App;
use crate::server::domain::config::Config;
use crate::server::domain::jobs::Each;
use crate::server::domain::lab::{Change, Lab};
use crate::server::domain::targets::{self, Meant, TargetExpr};
use crate::sync;
use crate::tracker::Topology;

/// Reasons that a refusal shows.
const SHOWN: usize = 3;

/// The terminals of a decision, as a person names them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whom<'a> {
    /// One terminal, by any of its names.
    One(&'a str),
    /// Targets, as of a job.
    Targets(&'a [String]),
}

impl Whom<'_> {
    fn meant(self, lab: &Lab, config: &Config, shape: &Topology) -> Result<Meant, Error> {
        match self {
            Whom::One(typed) => Ok(Meant::each([named::meant(lab, config, typed)?.id.as_str()])),
            Whom::Targets(texts) => {
                let words = targets::words(texts).map_err(conflict)?;
                for word in &words {
                    // A name has the same answer here as where it stands in the address.
                    if let TargetExpr::One(name) = word {
                        named::meant(lab, config, name)?;
                    }
                }
                targets::meant(lab, config, shape, &words).map_err(conflict)
            }
        }
    }

    /// The words as they were typed, the first ones of many.
    fn typed(self) -> String {
        match self {
            Whom::One(typed) => typed.into(),
            Whom::Targets(texts) => targets::shortened(texts).join(" "),
        }
    }
}

/// What becomes of a terminal.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    pub(super) unchanged: bool,
    pub(super) result: String,
    pub(super) advice: String,
}

impl Said {
    pub(super) fn new(result: impl Into<String>) -> Said {
        Said { result: result.into(), ..Said::default() }
    }
}

/// The refusal with the terminal's label, because people type labels and rooms. The
/// advice keeps the name in calls where the label is more than one word of a command.
pub(super) fn by_label(lab: &Lab, config: &Config, id: &str, refusal: Refusal) -> Refusal {
    let Some(label) = lab.get(id).and_then(|terminal| lab.label(config, terminal)) else { return refusal };
    let Refusal { error, advice } = refusal;
    let one_word = !label.contains(char::is_whitespace);
    let advice = if one_word { advice.replace(id, label) } else { advice };
    Refusal { error: error.replace(id, label), advice }
}

/// The answers for each terminal, with labels in the refusals.
pub(super) fn each_by_label<T>(lab: &Lab, config: &Config, each: Each<T>) -> Each<T> {
    let one = |(id, answer): (String, Result<T, Refusal>)| {
        let answer = answer.map_err(|refusal| by_label(lab, config, &id, refusal));
        (id, answer)
    };
    each.into_iter().map(one).collect()
}

/// Refuses callers that may not act on all of these terminals.
pub(super) fn may_act(
    app: &App,
    caller: &Caller,
    lab: &Lab,
    ids: &[String],
    what: &str,
) -> Result<(), Error> {
    for terminal in ids.iter().filter_map(|id| lab.get(id)) {
        caller.over(app, terminal.place.room.as_deref(), what, &terminal.id)?;
    }
    Ok(())
}

/// Takes the decision `what`, with `detail` for the audit. `carry_out` may refuse it for some of the
/// terminals; if it does so for each, the decision is refused.
pub(super) async fn decide(
    app: &App,
    caller: &Caller,
    whom: Whom<'_>,
    (what, detail): (&str, &str),
    carry_out: impl FnOnce(&mut Lab, &Meant) -> Result<(Each<Said>, Vec<Change>), Refusal>,
) -> Result<Vec<Decided>, Error> {
    caller.somebody(app, what, &whom.typed())?;
    let (config, shape) = (app.config(), Arc::clone(&sync::read(&app.topology)));
    let (decided, saved) = {
        let mut lab = sync::lock(&app.lab);
        let meant = whom.meant(&lab, &config, &shape)?;
        may_act(app, caller, &lab, &meant.ids, what)?;
        // A terminal that is forgotten has no label afterwards.
        let label = |id: &String| lab.get(id).and_then(|t| lab.label(&config, t)).map(str::to_owned);
        let before: Vec<Option<String>> = meant.ids.iter().map(label).collect();
        let (each, mut changes) = carry_out(&mut lab, &meant).map_err(|refusal| {
            let label = |refusal, id: &String| by_label(&lab, &config, id, refusal);
            conflict(meant.ids.iter().fold(refusal, label))
        })?;
        let each = each_by_label(&lab, &config, each);
        if let Some(refusal) = refused_for_all(each.iter().map(|(_, answer)| answer.as_ref().err())) {
            // Silent attempts may have ended meanwhile.
            drop(app.store.save(changes));
            return Err(conflict(refusal));
        }
        let detail = match meant.ids.as_slice() {
            [_] => detail.to_string(),
            _ => format!("{detail} ({})", whom.typed()).trim_start().to_string(),
        };
        let changed = each.iter().filter(|(_, answer)| matches!(answer, Ok(said) if !said.unchanged));
        let changed: Vec<&str> = changed.map(|(id, _)| id.as_str()).collect();
        let labels = meant.ids.iter().zip(&before);
        let labels: BTreeMap<_, _> =
            labels.filter_map(|(id, label)| Some((id.as_str(), label.as_deref()?))).collect();
        changes.extend(changed.iter().map(|id| {
            let parts = [labels.get(id).copied().unwrap_or_default(), detail.trim()];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            caller.audit(app, what, id, &parts.join(", "))
        }));
        match changed.as_slice() {
            [id] => {
                log::info!(terminal = *id; "{} decides for {}: {what}", caller.name(), lab.title(&config, id))
            }
            some => log::info!("{} decides for {} terminals: {what} {detail}", caller.name(), some.len()),
        }
        let labels = meant.ids.iter().zip(before);
        let labels = labels.map(|(id, before)| match lab.get(id) {
            Some(terminal) => lab.label(&config, terminal).map(str::to_owned),
            None => before,
        });
        let decided = each.into_iter().zip(labels).map(|((id, answer), label)| decided(id, label, answer));
        (decided.collect(), app.store.save(changes))
    };
    keep(saved).await?;
    Ok(decided)
}

/// The answer for one terminal.
pub(super) fn decided(terminal: String, label: Option<String>, answer: Result<Said, Refusal>) -> Decided {
    match answer {
        Ok(Said { unchanged, result, advice }) => {
            Decided { terminal, label, changed: !unchanged, result, advice }
        }
        Err(Refusal { error, advice }) => Decided { terminal, label, changed: false, result: error, advice },
    }
}

/// The refusal of a decision that was refused for each terminal or job. `None` if it was carried out for one.
pub(super) fn refused_for_all<'a>(answers: impl Iterator<Item = Option<&'a Refusal>>) -> Option<Refusal> {
    let refusals: Vec<&Refusal> = answers.collect::<Option<_>>()?;
    let (first, _) = refusals.split_first()?;
    let errors = refusals.iter().take(SHOWN).map(|refusal| refusal.error.as_str());
    let mut error = errors.collect::<Vec<_>>().join("; ");
    if refusals.len() > SHOWN {
        error += &format!("; and so on for {} more", refusals.len() - SHOWN);
    }
    Some(Refusal { error, advice: first.advice.clone() })
}
