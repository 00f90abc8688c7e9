//! A pool of codes, in the order of its file.
//!
//! What was given away is marked, and [`Pool::take`] hands out the rest in order, so that a resumed
//! campaign gives everybody the code that the plan gave them.

use std::panic::resume_unwind;
use std::thread::JoinHandle;

use csv::StringRecord;

use super::codes::CodeTable;
use crate::audience::source::csv::{Table, rows_about};
use crate::audience::whole_rows_warning;
use crate::domain::coupon::CouponCode;
use crate::domain::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::util::fs::InputFile;
use crate::util::human::count;

/// How many broken rows are reported one by one; the rest are counted.
const MOST_TOLD: usize = 20;

/// Where a pool is read from.
#[derive(Debug, Clone)]
pub struct PoolSpec {
    /// The CSV file.
    pub path: InputFile,
    /// The byte between two cells.
    pub delimiter: u8,
    /// Whether cells may hold line breaks.
    pub multiline: bool,
    /// The column of the codes; not needed for a file of one column.
    pub column: Option<String>,
}

impl PoolSpec {
    /// Opens the file and finds the column.
    pub fn open(&self) -> Result<(Table, usize), Diagnostic> {
        let table = Table::open(&self.path, self.delimiter, self.multiline)?;
        let column = match &self.column {
            Some(name) => table.require(name)?,
            None if table.columns().names().len() == 1 => 0,
            None => {
                return Err(Diagnostic::error(
                    Code::NoSuchColumn,
                    format!("`{}` has several columns, and none is named", self.path.display()),
                )
                .hint("name the column of the codes with `column:`")
                .in_file(&self.path, Some(1), None));
            }
        };
        Ok((table, column))
    }

    /// Begins to read the codes, on a thread of their own.
    pub fn load_ahead(&self) -> PoolAhead {
        let spec = self.clone();
        PoolAhead(std::thread::spawn(move || spec.load()))
    }

    /// Reads the codes. Every broken row is told; a code is never shown.
    pub fn load(&self) -> Result<Pool, Diagnostics> {
        let (mut table, column) = self.open()?;
        let mut pool = Pool::default();
        pool.codes.reserve(rows_about(&self.path));
        let mut lines = Vec::new();
        let mut told = Vec::new();
        let mut untold = 0_usize;
        let mut tell = |problem: Diagnostic| {
            if told.len() < MOST_TOLD {
                told.push(problem);
            } else {
                untold += 1;
            }
        };
        let mut record = StringRecord::new();
        loop {
            let line = match table.next(&mut record) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(problem) => {
                    tell(problem);
                    continue;
                }
            };
            let code = record.get(column).unwrap_or_default();
            let problem = match crate::domain::coupon::check(code) {
                Ok(()) => match pool.push_checked(code) {
                    Ok(()) => {
                        lines.push(u32::try_from(line).unwrap_or(u32::MAX));
                        continue;
                    }
                    Err(first) => Diagnostic::error(
                        Code::PoolDuplicateCode,
                        format!("this code stands in line {} already", lines[first]),
                    )
                    .hint("each code goes to one recipient: remove one of the two"),
                },
                Err(error) => Diagnostic::error(Code::InvalidCoupon, error.to_string()),
            };
            tell(problem.in_file(&self.path, Some(line), None));
        }
        if untold > 0 {
            told.push(Diagnostic::error(Code::MoreErrors, format!("and {untold} more of these")));
        }
        if !told.is_empty() {
            return Err(Diagnostics(told));
        }
        pool.warnings = self.warnings(&pool, &table, &lines);
        Ok(pool)
    }

    /// What is worth a look in a pool that can be used.
    fn warnings(&self, pool: &Pool, table: &Table, lines: &[u32]) -> Vec<Diagnostic> {
        let mut warnings = Vec::new();
        let twins = pool.codes.case_twins();
        if twins.codes > 0 {
            let line = lines.get(twins.first).map(|line| u64::from(*line));
            let verb = if twins.codes == 1 { "differs" } else { "differ" };
            warnings.push(
                Diagnostic::warning(
                    Code::PoolCodesDifferByCase,
                    format!(
                        "{} of `{}` {verb} from another by case alone, the first in line {}",
                        count(twins.codes, "code"),
                        self.path.display(),
                        line.unwrap_or_default()
                    ),
                )
                .hint("whoever types such a code in another case uses somebody else's")
                .in_file(&self.path, line, None),
            );
        }
        let whole = table.whole_rows();
        if whole.cells > 0 {
            warnings.push(whole_rows_warning(&self.path, whole));
        }
        warnings
    }
}

/// A pool that is being read. Who has no more use for it drops it, and need not wait.
#[derive(Debug)]
pub struct PoolAhead(JoinHandle<Result<Pool, Diagnostics>>);

impl PoolAhead {
    /// The pool, once it is read.
    pub fn pool(self) -> Result<Pool, Diagnostics> {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Codes and which of them are given away.
#[derive(Debug, Default)]
pub struct Pool {
    codes: CodeTable,
    /// A bit for each.
    taken: Vec<u64>,
    next: usize,
    /// The position behind the code that was marked last.
    after_marked: usize,
    warnings: Vec<Diagnostic>,
}

impl Pool {
    /// Adds a code at the end. `Err` holds the position, from 0, at which it stands already.
    pub fn push(&mut self, code: &CouponCode) -> Result<(), usize> {
        self.push_checked(code.expose())
    }

    fn push_checked(&mut self, code: &str) -> Result<(), usize> {
        self.codes.insert(code)?;
        self.taken.resize(self.codes.len().div_ceil(64), 0);
        Ok(())
    }

    /// What is worth a look in the file that the codes were read from.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// How many codes there are, given away or not.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Marks a code as given away. A code that is not in the file, because the file has changed
    /// since, is nothing to mark.
    pub fn mark_taken(&mut self, code: &str) {
        // Codes are recorded in the order in which they were given away: mostly the next one is meant.
        let follows = self.after_marked < self.len() && self.codes.at(self.after_marked) == code;
        if let Some(position) = if follows { Some(self.after_marked) } else { self.codes.position(code) } {
            self.taken[position / 64] |= 1 << (position % 64);
            self.after_marked = position + 1;
        }
    }

    /// How many codes can still be given away.
    pub fn free(&self) -> usize {
        self.len() - self.taken.iter().map(|word| word.count_ones() as usize).sum::<usize>()
    }

    /// The next free code, without giving it away.
    pub fn peek(&mut self) -> Option<&str> {
        while self.next < self.len() && self.taken[self.next / 64] & (1 << (self.next % 64)) != 0 {
            self.next += 1;
        }
        (self.next < self.len()).then(|| self.codes.at(self.next))
    }

    /// Gives the code away that [`Pool::peek`] showed.
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
    fn codes_leave_in_order_and_taken_ones_are_passed_over() {
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
