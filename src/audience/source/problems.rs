//! Problems of rows, of which only the first are reported one by one.

use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};

/// How many problems are reported one by one.
const MAX_REPORTED: usize = 20;

/// The problems of one or several sources. Problems beyond the first twenty are only counted.
#[derive(Debug, Default)]
pub struct Problems {
    reported: Vec<Diagnostic>,
    counted: usize,
}

impl Problems {
    /// Adds a problem.
    pub fn add(&mut self, problem: Diagnostic) {
        if self.reported.len() < MAX_REPORTED {
            self.reported.push(problem);
        } else {
            self.counted += 1;
        }
    }

    /// Adds all of `other`.
    pub fn append(&mut self, other: Problems) {
        other.reported.into_iter().for_each(|problem| self.add(problem));
        self.counted += other.counted;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.reported.is_empty()
    }

    /// An error with all problems, unless there are none.
    pub fn into_result(mut self) -> Result<(), Diagnostics> {
        if self.counted > 0 {
            let message = format!("{} more problems of this kind are not listed", self.counted);
            self.reported.push(Diagnostic::error(Code::MoreErrors, message));
        }
        if self.reported.is_empty() { Ok(()) } else { Err(Diagnostics(self.reported)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_beyond_the_maximum_are_counted() {
        let several = |number: usize| {
            let mut problems = Problems::default();
            (0..number).for_each(|_| problems.add(Diagnostic::error(Code::EmptyFile, "x")));
            problems
        };
        assert!(several(0).into_result().is_ok());
        assert_eq!(several(20).into_result().unwrap_err().0.len(), 20);
        let mut both = several(15);
        both.append(several(25));
        let reported = both.into_result().unwrap_err().0;
        assert_eq!(reported.len(), 21);
        assert_eq!(reported[20].message, "20 more problems of this kind are not listed");
    }
}
