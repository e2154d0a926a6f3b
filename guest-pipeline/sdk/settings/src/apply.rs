//! Applying a compiled schema to settings.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::SchemaError;
use crate::compile::{Compiled, Keyword, Node, NodeId};
use crate::report::{Path, Report, Step};
use crate::value::{children, shorten, shown};

/// Steps of one check: a node at a value is one, or as many as its lists and patterns are long.
/// Some ten nanoseconds each, so a second or two in all, which only a schema made for it needs: the
/// largest settings of the built-in pipelines take 30,000.
pub(crate) const MAX_STEPS: usize = 100_000_000;

/// Verdicts that are remembered, in units of 8 values that were looked at. Each takes up to 64
/// bytes, so all of them 64 MiB.
const MAX_REMEMBERED: usize = 1 << 20;

/// How deep nodes are applied within nodes. Each takes some KiB of stack at most. Values are nested
/// 128 deep at most, and take one or two nodes each.
const MAX_DEPTH: usize = 300;

/// Forms of a value whose reasons are told when it fits none, and such reasons in one check.
const MAX_FORMS: usize = 6;
const MAX_REASONS: usize = 64;

/// Longest list of reasons, in characters.
const MAX_WHY: usize = 600;

/// The values directly in one that some keyword has looked at. Empty where no keyword asks.
#[derive(Debug, Clone, Default)]
struct Seen(Vec<bool>);

impl Seen {
    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(one, other)| *one |= other);
    }

    fn mark(&mut self, index: usize) {
        self.0.get_mut(index).into_iter().for_each(|seen| *seen = true);
    }

    fn has(&self, index: usize) -> bool {
        self.0.get(index).copied().unwrap_or(false)
    }
}

/// The verdict of a node about a value.
enum Verdict {
    /// Not known yet.
    Open,
    Refused,
    Fits(Seen),
}

/// What a check is about at one place of the settings.
#[derive(Clone, Copy)]
struct Place<'a> {
    value: &'a Value,
    path: &'a Path<'a>,
    depth: usize,
}

impl<'a> Place<'a> {
    fn to<'b>(&self, value: &'b Value, path: &'b Path<'b>) -> Place<'b> {
        Place { value, path, depth: self.depth }
    }
}

/// One check under way.
pub(crate) struct Check<'s> {
    schema: &'s Compiled,
    /// Of shared nodes, by the place of the value.
    verdicts: HashMap<(NodeId, *const Value), Verdict>,
    remembered: usize,
    steps: usize,
    reasons: usize,
}

type Outcome = Result<Option<Seen>, SchemaError>;

impl<'s> Check<'s> {
    pub(crate) fn new(schema: &'s Compiled) -> Self {
        Self { schema, verdicts: HashMap::new(), remembered: 0, steps: 0, reasons: MAX_REASONS }
    }

    /// The violations of the settings; `None` if they fit.
    pub(crate) fn run(mut self, settings: &Value) -> Result<Option<String>, SchemaError> {
        let mut report = Report::new();
        let place = Place { value: settings, path: &Path::ROOT, depth: 0 };
        let fits = self.apply(0, place, &mut report)?.is_some();
        Ok((!fits).then(|| report.text()))
    }

    /// Steps that were taken.
    #[cfg(test)]
    pub(crate) fn steps_for(mut self, settings: &Value) -> usize {
        let place = Place { value: settings, path: &Path::ROOT, depth: 0 };
        self.apply(0, place, &mut Report::new()).unwrap();
        self.steps
    }

    /// What the node has looked at in the value; `None` if the value does not fit. Reports why, as
    /// far as the report takes more.
    fn apply(&mut self, id: NodeId, place: Place<'_>, report: &mut Report) -> Outcome {
        self.spend(1)?;
        if place.depth > MAX_DEPTH {
            let path = place.path;
            return Err(SchemaError(format!("it goes deeper than {MAX_DEPTH} schemas at {path}")));
        }
        let place = Place { depth: place.depth + 1, ..place };
        let Some(node) = self.schema.node(id) else { return Ok(None) };
        if !node.shared {
            return self.keywords(node, place, report);
        }
        let key = (id, std::ptr::from_ref(place.value));
        match self.verdicts.get(&key) {
            None => {}
            Some(Verdict::Open) => {
                return Err(SchemaError(format!("a reference leads to itself at {}", place.path)));
            }
            Some(Verdict::Fits(seen)) => return Ok(Some(seen.clone())),
            Some(Verdict::Refused) if report.is_full() => return Ok(None),
            // Looking again finds at least one violation, so the report is full some time.
            Some(Verdict::Refused) => {}
        }
        self.remember(key, Verdict::Open)?;
        let seen = self.keywords(node, place, report)?;
        self.remember(key, seen.clone().map_or(Verdict::Refused, Verdict::Fits))?;
        Ok(seen)
    }

    fn remember(
        &mut self,
        key: (NodeId, *const Value),
        verdict: Verdict,
    ) -> Result<(), SchemaError> {
        self.remembered += match &verdict {
            Verdict::Open => 1,
            Verdict::Refused => 0,
            Verdict::Fits(seen) => seen.0.len() / 8,
        };
        if self.remembered > MAX_REMEMBERED {
            return Err(SchemaError("its references lead to too many values".into()));
        }
        self.verdicts.insert(key, verdict);
        Ok(())
    }

    fn keywords(&mut self, node: &'s Node, place: Place<'_>, report: &mut Report) -> Outcome {
        let size = if self.schema.tracks { children(place.value) } else { 0 };
        self.spend(size)?;
        let mut seen = Seen(vec![false; size]);
        let mut fits = true;
        for keyword in &node.keywords {
            fits &= match keyword {
                Keyword::Assert(assertion) => {
                    self.spend(assertion.cost(place.value))?;
                    assertion.takes(place.value, place.path, report)
                }
                Keyword::Reference(_)
                | Keyword::AllOf(_)
                | Keyword::AnyOf(_)
                | Keyword::OneOf(_)
                | Keyword::Not(_)
                | Keyword::If { .. } => self.combined(keyword, place, &mut seen, report)?,
                _ => match place.value {
                    Value::Object(fields) => {
                        self.fields(keyword, fields, place, &mut seen, report)?
                    }
                    Value::Array(items) => self.items(keyword, items, place, &mut seen, report)?,
                    _ => true,
                },
            };
            if !fits && report.is_full() {
                return Ok(None);
            }
        }
        Ok(fits.then_some(seen))
    }

    /// Keywords that apply nodes to the same value.
    fn combined(
        &mut self,
        keyword: &'s Keyword,
        place: Place<'_>,
        seen: &mut Seen,
        report: &mut Report,
    ) -> Result<bool, SchemaError> {
        let mut fits = true;
        match keyword {
            Keyword::Reference(node) => fits = self.within(*node, place, seen, report)?,
            Keyword::AllOf(nodes) => {
                for node in nodes {
                    fits &= self.within(*node, place, seen, report)?;
                }
            }
            Keyword::AnyOf(nodes) | Keyword::OneOf(nodes) => {
                let mut fitting = 0;
                for node in nodes {
                    let fits = self.within(*node, place, seen, &mut Report::none())?;
                    fitting += usize::from(fits);
                }
                let most = if matches!(keyword, Keyword::OneOf(_)) { 1 } else { usize::MAX };
                if fitting == 0 {
                    let why = self.reasons(nodes, place, report)?;
                    report.add(place.path, || format!("fits none of its forms ({why})"));
                } else if fitting > most {
                    let value = place.value;
                    let words = || format!("{} fits {fitting} forms and may fit one", shown(value));
                    report.add(place.path, words);
                }
                fits = fitting > 0 && fitting <= most;
            }
            Keyword::Not(node) => {
                fits = self.apply(*node, place, &mut Report::none())?.is_none();
                if !fits {
                    report.add(place.path, || {
                        format!("{} is what it may not be", shown(place.value))
                    });
                }
            }
            Keyword::If { condition, then, otherwise } => {
                let holds = self.within(*condition, place, seen, &mut Report::none())?;
                if let Some(node) = if holds { then } else { otherwise } {
                    fits = self.within(*node, place, seen, report)?;
                }
            }
            _ => {}
        }
        Ok(fits)
    }

    /// Applies a node to the same value; what it has looked at counts as looked at here.
    fn within(
        &mut self,
        node: NodeId,
        place: Place<'_>,
        seen: &mut Seen,
        report: &mut Report,
    ) -> Result<bool, SchemaError> {
        let inner = self.apply(node, place, report)?;
        inner.iter().for_each(|inner| seen.add(inner));
        Ok(inner.is_some())
    }

    /// The first violation of each form that a value could have had.
    fn reasons(
        &mut self,
        nodes: &[NodeId],
        place: Place<'_>,
        report: &Report,
    ) -> Result<String, SchemaError> {
        let mut why = Vec::new();
        for node in nodes.iter().take(MAX_FORMS) {
            if report.is_full() || self.reasons == 0 {
                break;
            }
            self.reasons -= 1;
            let mut one = Report::one();
            self.apply(*node, place, &mut one)?;
            why.extend(one.found());
        }
        if why.len() < nodes.len() {
            why.push("...".into());
        }
        Ok(shorten(&why.join("; "), MAX_WHY))
    }

    fn fields(
        &mut self,
        keyword: &'s Keyword,
        fields: &Map<String, Value>,
        place: Place<'_>,
        seen: &mut Seen,
        report: &mut Report,
    ) -> Result<bool, SchemaError> {
        let mut fits = true;
        match keyword {
            Keyword::Dependent(name, node) if fields.contains_key(name) => {
                fits = self.within(*node, place, seen, report)?;
            }
            Keyword::Properties { named, matching, rest } => {
                for (index, (name, value)) in fields.iter().enumerate() {
                    self.spend(1)?;
                    let path = place.path.to(Step::Field(name));
                    let field = place.to(value, &path);
                    let mut known = false;
                    if let Some(node) = named.get(name) {
                        known = true;
                        fits &= self.apply(*node, field, report)?.is_some();
                    }
                    for (pattern, node) in matching {
                        self.spend(pattern.cost(name))?;
                        if pattern.fits(name) {
                            known = true;
                            fits &= self.apply(*node, field, report)?.is_some();
                        }
                    }
                    if let Some(node) = rest.filter(|_| !known) {
                        known = true;
                        fits &= self.other(node, field, "there is no such setting", report)?;
                    }
                    if known {
                        seen.mark(index);
                    }
                }
            }
            Keyword::PropertyNames(node) => {
                for name in fields.keys() {
                    let path = place.path.to(Step::Name(name));
                    let value = Value::String(name.clone());
                    // Verdicts go by places, and this one is gone after the call.
                    let verdicts = std::mem::take(&mut self.verdicts);
                    let taken = self.apply(*node, place.to(&value, &path), report);
                    self.verdicts = verdicts;
                    fits &= taken?.is_some();
                }
            }
            Keyword::UnevaluatedProperties(node) => {
                for (index, (name, value)) in fields.iter().enumerate() {
                    if !seen.has(index) {
                        let path = place.path.to(Step::Field(name));
                        let field = place.to(value, &path);
                        fits &= self.other(*node, field, "there is no such setting", report)?;
                        seen.mark(index);
                    }
                }
            }
            _ => {}
        }
        Ok(fits)
    }

    fn items(
        &mut self,
        keyword: &'s Keyword,
        items: &[Value],
        place: Place<'_>,
        seen: &mut Seen,
        report: &mut Report,
    ) -> Result<bool, SchemaError> {
        let mut fits = true;
        match keyword {
            Keyword::Items { first, rest } => {
                for (index, item) in items.iter().enumerate() {
                    let path = place.path.to(Step::Item(index));
                    let item = place.to(item, &path);
                    fits &= match (first.get(index), rest) {
                        (Some(node), _) => self.apply(*node, item, report)?.is_some(),
                        (None, Some(node)) => self.other(*node, item, "is one too many", report)?,
                        (None, None) => break,
                    };
                    seen.mark(index);
                }
            }
            Keyword::Contains { node, least, most } => {
                let mut fitting = 0;
                for (index, item) in items.iter().enumerate() {
                    let path = place.path.to(Step::Item(index));
                    let item = place.to(item, &path);
                    if self.apply(*node, item, &mut Report::none())?.is_some() {
                        fitting += 1;
                        seen.mark(index);
                    }
                }
                fits = (*least..=*most).contains(&fitting);
                if !fits {
                    let most = Some(most).filter(|most| **most < usize::MAX);
                    let most = most.map(|most| format!(" and at most {most}")).unwrap_or_default();
                    let words = "items are of the kind of which";
                    let needed = || format!("{fitting} {words} at least {least}{most} are needed");
                    report.add(place.path, needed);
                }
            }
            Keyword::UnevaluatedItems(node) => {
                for (index, item) in items.iter().enumerate() {
                    if !seen.has(index) {
                        let path = place.path.to(Step::Item(index));
                        fits &=
                            self.other(*node, place.to(item, &path), "is one too many", report)?;
                        seen.mark(index);
                    }
                }
            }
            _ => {}
        }
        Ok(fits)
    }

    /// Applies the node for what no other is about; says it in `words` where nothing may be.
    fn other(
        &mut self,
        node: NodeId,
        place: Place<'_>,
        words: &str,
        report: &mut Report,
    ) -> Result<bool, SchemaError> {
        if self.schema.is_never(node) {
            report.add(place.path, || words.into());
            return Ok(false);
        }
        Ok(self.apply(node, place, report)?.is_some())
    }

    fn spend(&mut self, steps: usize) -> Result<(), SchemaError> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS {
            let message = "holding the settings against it takes more than 100 million steps";
            return Err(SchemaError(message.into()));
        }
        Ok(())
    }
}
