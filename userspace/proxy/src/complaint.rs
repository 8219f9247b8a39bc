//! What the operator must change: one sentence each, with the place it is about.
//!
//! A complaint says what was found, what was expected and what to do. It never contains a secret: it
//! may end in a journal that many can read.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use strsim::damerau_levenshtein;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// An option of the command line, such as `--listen`.
    CommandLine(&'static str),
    /// A line of the configuration file, counted from one.
    Line {
        /// The file, as the operator named it.
        file: Arc<Path>,
        /// The line, counted from one.
        line: usize,
    },
    /// A place in a file whose lines are long, or have several statements.
    Position {
        /// The file, as the operator named it.
        file: Arc<Path>,
        /// The line, counted from one.
        line: usize,
        /// The column, counted from one.
        column: usize,
    },
    /// A file without lines.
    File(Arc<Path>),
    /// Nowhere in particular: the host, or the settings as a whole.
    Host,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(option) => f.write_str(option),
            Self::Line { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Position { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Host => f.write_str("mtproxy"),
        }
    }
}

/// A value together with where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub place: Place,
}

/// One thing that the operator must change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    place: Place,
    message: String,
}

impl Complaint {
    /// A complaint about what stands at `place`.
    #[must_use]
    pub fn at(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }

    /// A complaint about the host or the deployment as a whole.
    #[must_use]
    pub fn about_host(message: impl Into<String>) -> Self {
        Self::at(Place::Host, message)
    }

    /// The sentence, without its place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything that was found wrong at once, so that one run shows all there is to mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// Adds one more.
    pub fn push(&mut self, complaint: Complaint) {
        self.0.push(complaint);
    }

    /// Puts those about the same file in the order of its lines.
    pub fn sort_by_line(&mut self) {
        self.0.sort_by_key(|complaint| match complaint.place {
            Place::Line { line, .. } | Place::Position { line, .. } => line,
            Place::CommandLine(_) | Place::File(_) | Place::Host => 0,
        });
    }

    /// The value of `result`, or `None` after noting its complaint.
    pub fn note<T>(&mut self, result: Result<T, Complaint>) -> Option<T> {
        result.map_err(|complaint| self.push(complaint)).ok()
    }

    /// `value` if there is nothing to complain about.
    ///
    /// # Errors
    /// These complaints, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Complaint> for Complaints {
    fn from(complaint: Complaint) -> Self {
        Self(vec![complaint])
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|complaint| writeln!(f, "error: {complaint}"))
    }
}

/// The word of `known` that the operator probably meant by `written`.
#[must_use]
pub fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    // One slip in three letters is still a typo; more is another word.
    let tolerance = (written.chars().count() / 3).max(1);
    let distance = |word: &&str| damerau_levenshtein(&written.to_ascii_lowercase(), word);
    known.iter().copied().min_by_key(distance).filter(|word| distance(word) <= tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_or_a_swap_finds_the_word_and_another_word_finds_nothing() {
        let known = ["listen", "workers", "metrics"];
        for (written, meant) in
            [("lisen", Some("listen")), ("wrokers", Some("workers")), ("METRICS", Some("metrics"))]
        {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("x", &[]), None);
    }

    #[test]
    fn complaints_name_their_place_one_a_line() {
        let file: Arc<Path> = Path::new("mtproxy.toml").into();
        let mut all = Complaints::from(Complaint::at(Place::Line { file, line: 7 }, "found a; expected b"));
        all.push(Complaint::at(Place::CommandLine("--workers"), "found c"));
        let file: Arc<Path> = Path::new("proxy.conf").into();
        all.push(Complaint::at(Place::Position { file: file.clone(), line: 7, column: 9 }, "found d"));
        all.push(Complaint::at(Place::File(file), "found e"));
        assert_eq!(
            all.to_string(),
            "error: mtproxy.toml:7: found a; expected b\nerror: --workers: found c\n\
            error: proxy.conf:7:9: found d\nerror: proxy.conf: found e\n"
        );
        assert!(all.or(()).is_err());
        assert_eq!(Complaints::default().or(1), Ok(1));
    }
}
