//! Rows as the audience reads them and expressions see them, whatever kind of source they come from.

use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;

/// The columns of a source, by position and by name.
#[derive(Debug, Default)]
pub struct Columns {
    names: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Columns {
    /// Columns with these names, in this order. A column without a name can only be reached by its position.
    /// `Err` holds the positions of the first two columns with the same name.
    pub fn new(names: Vec<String>) -> Result<Self, (usize, usize)> {
        let mut positions = HashMap::with_capacity(names.len());
        for (position, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if let Some(first) = positions.insert(name.clone(), position) {
                return Err((first, position));
            }
        }
        Ok(Self { names, positions })
    }

    /// The position of a column.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// The names, in the order of the source.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

/// One row of a source. All cells are texts and lie in one piece of memory.
#[derive(Debug, Default, Clone)]
pub struct Row {
    columns: Arc<Columns>,
    text: String,
    /// Where each cell ends in `text`.
    ends: Vec<u32>,
}

impl Row {
    /// A row without cells. [`Row::push`] adds them in the order of the columns.
    pub fn new(columns: Arc<Columns>) -> Self {
        Self { columns, text: String::new(), ends: Vec::new() }
    }

    /// A row without cells that has room for as many bytes as `other` holds, and a few more.
    pub fn with_room_of(other: &Row) -> Self {
        Self {
            columns: Arc::clone(&other.columns),
            text: String::with_capacity(other.text.len() + 8),
            ends: Vec::with_capacity(other.columns.names.len()),
        }
    }

    /// Removes all cells and keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Adds the next cell.
    ///
    /// # Panics
    /// If the row has more than 4 GB.
    pub fn push(&mut self, cell: &str) {
        self.text.push_str(cell);
        self.ends.push(u32::try_from(self.text.len()).expect("a row has less than 4 GB"));
    }

    /// Replaces all cells by those that lie one behind the other in `text` and end at `ends`.
    ///
    /// # Panics
    /// If the row has more than 4 GB.
    pub fn fill(&mut self, text: &str, ends: impl Iterator<Item = usize>) {
        self.clear();
        self.text.push_str(text);
        self.ends.extend(ends.map(|end| u32::try_from(end).expect("a row has less than 4 GB")));
    }

    /// The columns.
    pub fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// The cell at a position; empty if there is none.
    pub fn cell(&self, position: usize) -> &str {
        let Some(end) = self.ends.get(position) else { return "" };
        let start = position.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start as usize..*end as usize).unwrap_or_default()
    }

    /// All cells, in the order of the columns.
    pub fn cells(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|position| self.cell(position))
    }

    /// The cell of a column; `None` if it is empty or there is no such column.
    pub fn get(&self, column: &str) -> Option<&str> {
        let cell = self.cell(self.columns.position(column)?);
        if cell.is_empty() { None } else { Some(cell) }
    }
}

/// Where a row is in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowLocation {
    /// A line of a file, from 1.
    Line(u64),
}

impl RowLocation {
    /// The line, if the source is a file.
    pub fn line(self) -> Option<u64> {
        match self {
            RowLocation::Line(line) => Some(line),
        }
    }
}

impl fmt::Display for RowLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowLocation::Line(line) => write!(f, "{line}"),
        }
    }
}

/// Which row of which source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowOrigin {
    /// The position of the source in the audience, from 0.
    pub source: usize,
    /// Where the row is in the source.
    pub location: RowLocation,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Result<Columns, (usize, usize)> {
        Columns::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_cell_is_found_by_its_column_and_an_empty_one_counts_as_absent() {
        let mut row = Row::new(Arc::new(columns(&["name", "city", "", "note"]).unwrap()));
        row.fill("AshaéX", [4, 4, 6, 7].into_iter());
        assert_eq!(
            ["name", "city", "note", "", "other"].map(|name| row.get(name)),
            [Some("Asha"), None, Some("X"), None, None]
        );
        assert_eq!([0, 1, 2, 3, 4].map(|position| row.cell(position)), ["Asha", "", "é", "X", ""]);
        let mut again = Row::with_room_of(&row);
        ["a", "b", "", "c"].iter().for_each(|cell| again.push(cell));
        assert_eq!([0, 1, 2, 3].map(|position| again.cell(position)), ["a", "b", "", "c"]);
        again.clear();
        assert_eq!(again.cell(0), "");
    }

    #[test]
    fn two_columns_with_one_name_are_refused_and_columns_without_a_name_are_not() {
        assert_eq!(columns(&["a", "b", "a"]).unwrap_err(), (0, 2));
        assert!(columns(&["", "a", ""]).is_ok());
    }
}
