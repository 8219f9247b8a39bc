//! One table of the configuration file, read key by key.
//!
//! The keys that a reader asks for are the keys that exist: whatever else stands in the table is a
//! complaint that names the nearest of them. Values are never quoted in complaints about their type,
//! because any of them may be a secret put in the wrong place.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::complaint::{Complaint, Complaints, Place, Placed, nearest};

/// Every key that a file may have, as `section.key`, and the line where this file has it.
pub(super) type KeyLines = BTreeMap<String, Option<usize>>;

/// What reading one file brings to light besides its values.
pub(super) struct Reading {
    file: Arc<Path>,
    /// Where each line but the first begins, so that a long list does not cost a walk for each element.
    line_starts: Vec<usize>,
    complaints: RefCell<Complaints>,
    keys: RefCell<KeyLines>,
}

impl Reading {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let line_starts = text.match_indices('\n').map(|(end, _)| end + 1).collect();
        Self { file: file.into(), line_starts, complaints: RefCell::default(), keys: RefCell::default() }
    }

    pub(super) fn complain(&self, offset: usize, message: impl Into<String>) {
        self.complaints.borrow_mut().push(Complaint::at(self.place(offset), message));
    }

    pub(super) fn finish(self) -> (Complaints, KeyLines) {
        // Keys are read in our order, and mended in the file's.
        let mut complaints = self.complaints.into_inner();
        complaints.sort_by_line();
        (complaints, self.keys.into_inner())
    }

    fn place(&self, offset: usize) -> Place {
        Place::Line { file: self.file.clone(), line: self.line(offset) }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.line_starts.partition_point(|&start| start <= offset)
    }
}

/// One table, and the keys asked for so far.
pub(super) struct Section<'a> {
    reading: &'a Reading,
    /// Empty at the top of the file, otherwise the name with a dot.
    prefix: String,
    table: &'a DeTable<'a>,
    offset: usize,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn top(reading: &'a Reading, table: &'a DeTable<'a>) -> Self {
        Self { reading, prefix: String::new(), table, offset: 0, known: Vec::new() }
    }

    /// The value of `key`, if the file has it and `read` accepts it.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let found = self.find(key)?;
        self.accept(key, found, read)
    }

    /// The elements of the list `key`.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<Placed<T>>> {
        let found = self.find(key)?;
        self.accept_list(key, found, read)
    }

    /// The table `[key]`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        let found = self.find(key)?;
        self.enter(key, found)
    }

    /// The tables `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Option<Vec<Self>> {
        let found = self.find(key)?;
        let Some(tables) = found.get_ref().as_array() else {
            let message = format!(
                "{}{key}: found {}; expected tables headed [[{key}]]",
                self.prefix,
                kind(found.get_ref())
            );
            self.reading.complain(found.span().start, message);
            return None;
        };
        Some(tables.iter().filter_map(|table| self.enter(key, table)).collect())
    }

    /// The lists of a table whose keys are not known beforehand.
    pub(super) fn lists_by_name<T>(
        self,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Vec<(Placed<String>, Vec<Placed<T>>)> {
        let name_of = |key: &Spanned<_>| -> Placed<String> {
            let key: &Spanned<std::borrow::Cow<'_, str>> = key;
            Placed { value: key.get_ref().clone().into_owned(), place: self.reading.place(key.span().start) }
        };
        let lists = self
            .table
            .iter()
            .filter_map(|(key, found)| Some((name_of(key), self.accept_list(key.get_ref(), found, &read)?)));
        lists.collect()
    }

    /// Complains that a key without which the table says nothing is missing.
    pub(super) fn complain_of_missing(&self, key: &str, example: &str) {
        if !self.table.contains_key(key) {
            let name = self.prefix.trim_end_matches('.');
            self.reading.complain(
                self.offset,
                format!("found [[{name}]] without {key}; expected a line such as {example}"),
            );
        }
    }

    /// Complains about something that was read from this table.
    pub(super) fn complain<T>(&self, about: &Placed<T>, message: impl Into<String>) {
        let message = message.into();
        self.reading.complaints.borrow_mut().push(Complaint::at(about.place.clone(), message));
    }

    /// Complains of every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys().filter(|key| !self.known.contains(&key.get_ref().as_ref())) {
            let written = key.get_ref();
            let hint = match nearest(written, &self.known) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("expected one of {}", self.known.join(", ")),
            };
            self.reading.complain(
                key.span().start,
                format!("found the unknown key {:?}; {hint}", format!("{}{written}", self.prefix)),
            );
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        let found = self.table.get_key_value(key);
        let line = found.map(|(name, _)| self.reading.line(name.span().start));
        let mut keys = self.reading.keys.borrow_mut();
        let known_line = keys.entry(format!("{}{key}", self.prefix)).or_default();
        *known_line = known_line.or(line);
        found.map(|(_, value)| value)
    }

    fn accept<T>(
        &self,
        key: &str,
        found: &Spanned<DeValue<'_>>,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Placed<T>> {
        let offset = found.span().start;
        match read(found.get_ref()) {
            Ok(value) => Some(Placed { value, place: self.reading.place(offset) }),
            Err(message) => {
                self.reading.complain(offset, format!("{}{key}: {message}", self.prefix));
                None
            }
        }
    }

    fn accept_list<T>(
        &self,
        key: &str,
        found: &Spanned<DeValue<'_>>,
        read: impl Fn(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Vec<Placed<T>>> {
        let elements = match found.get_ref() {
            DeValue::Array(elements) if elements.is_empty() => {
                Err("found an empty list; expected at least one element".to_owned())
            }
            DeValue::Array(elements) => Ok(elements),
            other => Err(format!("found {}; expected a list in brackets", kind(other))),
        };
        match elements {
            Ok(elements) => {
                Some(elements.iter().filter_map(|element| self.accept(key, element, &read)).collect())
            }
            Err(message) => {
                self.reading.complain(found.span().start, format!("{}{key}: {message}", self.prefix));
                None
            }
        }
    }

    fn enter(&self, key: &str, found: &'a Spanned<DeValue<'a>>) -> Option<Self> {
        let offset = found.span().start;
        let Some(table) = found.get_ref().as_table() else {
            let message = format!(
                "{}{key}: found {}; expected a table headed [{key}]",
                self.prefix,
                kind(found.get_ref())
            );
            self.reading.complain(offset, message);
            return None;
        };
        Some(Self {
            reading: self.reading,
            prefix: format!("{}{key}.", self.prefix),
            table,
            offset,
            known: Vec::new(),
        })
    }
}

/// Reads a text.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        other => Err(format!("found {}; expected a text in quotation marks", kind(other))),
    }
}

/// Reads a text in a form of its own.
pub(super) fn text_as<T, E: ToString>(
    parse: impl Fn(&str) -> Result<T, E>,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| text(value).and_then(|text| parse(&text).map_err(|error| error.to_string()))
}

/// Reads a yes or no.
pub(super) fn yes_or_no(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(yes) => Ok(*yes),
        other => Err(format!("found {}; expected true or false, without quotation marks", kind(other))),
    }
}

/// Reads a whole number of `unit` within `range`.
pub(super) fn number<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
    unit: &str,
) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    let expected = format!(
        "expected {} to {}{}{unit}",
        range.start(),
        range.end(),
        if unit.is_empty() { "" } else { " " }
    );
    move |value| match value {
        DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok())
            .ok_or_else(|| format!("found {integer}; {expected}")),
        other => Err(format!("found {}; {expected}", kind(other))),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
