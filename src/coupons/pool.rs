//! A pool of codes, in the order of its source.
//!
//! [`Pool::mark_taken`] marks the codes that recipients already have, and [`Pool::take`] takes the rest in
//! order, so that a resumed campaign gives everybody the code that the plan assigned to them.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::codes::CodeTable;
use crate::audience::source::problems::Problems;
use crate::audience::source::{self, RowSource};
use crate::domain::coupon::{self, CouponCode};
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::domain::input::PoolInput;
use crate::domain::row::{Row, RowLocation};
use crate::util::human::count;

/// Opens the source of a pool and finds the column of the codes.
pub fn open(spec: &PoolInput) -> Result<(Box<dyn RowSource>, usize), Diagnostic> {
    let source = source::open(&spec.source)?;
    let column = match &spec.column {
        Some(name) => source.require(name)?,
        None if source.columns().names().len() == 1 => 0,
        None => {
            let problem = Diagnostic::error(Code::NoSuchColumn, format!("`{}` has several columns", spec.source))
                .hint("set `column:` to the column that contains the codes");
            return Err(source.locate(problem, Some(RowLocation::Line(1))));
        }
    };
    Ok((source, column))
}

/// Warnings about a pool that can be used.
fn warnings(spec: &PoolInput, pool: &Pool, source: &dyn RowSource, lines: &[RowLocation]) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    let twins = pool.codes.case_twins();
    if twins.codes > 0 {
        let location = lines.get(twins.first).copied();
        let verb = if twins.codes == 1 { "differs" } else { "differ" };
        let first = location.map(|location| format!(", the first in line {location}")).unwrap_or_default();
        let message =
            format!("{} of `{}` {verb} from another code only in case{first}", count(twins.codes, "code"), spec.source);
        let problem = Diagnostic::warning(Code::PoolCodesDifferByCase, message)
            .hint("a customer who types such a code in another case uses the code of somebody else");
        warnings.push(source.locate(problem, location));
    }
    warnings.extend(source.warnings());
    warnings
}

/// A pool that another thread is reading. It can be dropped without waiting.
#[derive(Debug)]
pub struct PendingPool(JoinHandle<Result<Pool, Diagnostics>>);

impl PendingPool {
    /// Begins to read a pool on a thread of its own.
    pub fn start(spec: &PoolInput) -> Self {
        let spec = spec.clone();
        Self(std::thread::spawn(move || Pool::load(&spec)))
    }

    /// Waits until the pool is read.
    pub fn wait(self) -> Result<Pool, Diagnostics> {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Codes, and which of them are taken.
#[derive(Debug, Default)]
pub struct Pool {
    codes: CodeTable,
    /// A bit for each.
    taken: Vec<u64>,
    next: usize,
    /// The position after the code that was marked last.
    after_marked: usize,
    warnings: Vec<Diagnostic>,
}

impl Pool {
    /// Reads the codes. The error contains the problems of all rows, and never a code.
    pub fn load(spec: &PoolInput) -> Result<Self, Diagnostics> {
        let (mut source, column) = open(spec)?;
        let mut pool = Pool::default();
        pool.codes.reserve(source.size_hint());
        let mut locations = Vec::new();
        let mut problems = Problems::default();
        let mut row = Row::new(Arc::clone(source.columns()));
        loop {
            let location = match source.next(&mut row) {
                Ok(Some(location)) => location,
                Ok(None) => break,
                Err(problem) => {
                    problems.add(problem);
                    continue;
                }
            };
            let code = row.cell(column);
            let problem = match coupon::check(code) {
                Ok(()) => match pool.push_checked(code) {
                    Ok(()) => {
                        locations.push(location);
                        continue;
                    }
                    Err(first) => Diagnostic::error(
                        Code::PoolDuplicateCode,
                        format!("this code is the same as the one in line {}", locations[first]),
                    )
                    .hint("each code is for one recipient: remove one of the two"),
                },
                Err(error) => Diagnostic::error(Code::InvalidCoupon, error.to_string()),
            };
            problems.add(source.locate(problem, Some(location)));
        }
        problems.into_result()?;
        pool.warnings = warnings(spec, &pool, &*source, &locations);
        Ok(pool)
    }

    /// Adds a code at the end. `Err` holds the position, from 0, of the same code.
    pub fn push(&mut self, code: &CouponCode) -> Result<(), usize> {
        self.push_checked(code.expose())
    }

    fn push_checked(&mut self, code: &str) -> Result<(), usize> {
        self.codes.insert(code)?;
        self.taken.resize(self.codes.len().div_ceil(64), 0);
        Ok(())
    }

    /// Warnings about the source of the codes.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// The number of codes, taken or not.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether the pool has no codes.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Marks a code as taken. Ignores a code that is not in the pool, because the file has changed since.
    pub fn mark_taken(&mut self, code: &str) {
        // Codes are recorded in the order in which they were taken, so it is usually the next one.
        let follows = self.after_marked < self.len() && self.codes.at(self.after_marked) == code;
        if let Some(position) = if follows { Some(self.after_marked) } else { self.codes.position(code) } {
            self.taken[position / 64] |= 1 << (position % 64);
            self.after_marked = position + 1;
        }
    }

    /// The number of codes that are not taken.
    pub fn free(&self) -> usize {
        self.len() - self.taken.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }

    /// The next free code, without taking it.
    pub fn peek(&mut self) -> Option<&str> {
        while self.next < self.len() && self.taken[self.next / 64] & (1 << (self.next % 64)) != 0 {
            self.next += 1;
        }
        (self.next < self.len()).then(|| self.codes.at(self.next))
    }

    /// Takes the code that [`Pool::peek`] returned.
    pub fn take(&mut self) {
        if self.next < self.len() {
            self.taken[self.next / 64] |= 1 << (self.next % 64);
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> CouponCode {
        CouponCode::new(text).unwrap()
    }

    #[test]
    fn codes_are_taken_in_order_and_taken_ones_are_skipped() {
        let mut pool = Pool::default();
        for text in ["A1", "B2", "C3", "D4"] {
            pool.push(&code(text)).unwrap();
        }
        assert_eq!(pool.push(&code("B2")), Err(1));
        pool.mark_taken("B2");
        pool.mark_taken("not here");
        assert_eq!(pool.free(), 3);
        assert_eq!(pool.peek(), Some("A1"));
        assert_eq!(pool.peek(), Some("A1"));
        pool.take();
        assert_eq!(pool.peek(), Some("C3"));
        pool.take();
        pool.take();
        assert_eq!(pool.peek(), Some("D4").filter(|_| false));
    }

    #[test]
    fn a_pool_of_many_finds_each_code() {
        let mut pool = Pool::default();
        for number in 0..10_000 {
            pool.push(&code(&format!("C{number}"))).unwrap();
        }
        for number in (0..10_000).step_by(3) {
            pool.mark_taken(&format!("C{number}"));
        }
        assert_eq!(pool.free(), 10_000 - 3_334);
        assert_eq!(pool.peek(), Some("C1"));
    }

    #[test]
    fn codes_are_marked_in_any_order() {
        let codes: Vec<String> = (0..10).map(|number| format!("C{number}")).collect();
        for marked in [&[2, 3, 4][..], &[4, 3, 2], &[3, 3, 2, 4], &[9, 2, 3, 9, 4]] {
            let mut pool = Pool::default();
            codes.iter().for_each(|text| pool.push(&code(text)).unwrap());
            marked.iter().for_each(|position| pool.mark_taken(&codes[*position]));
            let mut left = Vec::new();
            while let Some(code) = pool.peek().map(str::to_owned) {
                left.push(code);
                pool.take();
            }
            let expected: Vec<&String> = (0..10).filter(|at| !marked.contains(at)).map(|at| &codes[at]).collect();
            assert_eq!(left.iter().collect::<Vec<_>>(), expected, "{marked:?}");
        }
    }
}
