//! The line number of each row.
//!
//! The CSV library counts only `\n`, and gives a row the line at which the row before it ended. So rows of files
//! with `\r\n` are one line off, blank lines count towards the next row, and a single `\r` does not count.
//! Here `\n`, `\r` and `\r\n` each end a line, as in editors.

/// Counts the lines of a file, row by row.
#[derive(Debug)]
pub(super) struct Lines {
    /// The line of the next byte, from 1.
    line: u64,
    /// Whether the last byte was a `\r`: a `\n` that follows belongs to it.
    after_return: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { line: 1, after_return: false }
    }
}

impl Lines {
    /// The line of the next row, and the row without blank lines before it and without the end of its
    /// line. `bytes` is all that was read for it.
    pub(super) fn row<'a>(&mut self, mut bytes: &'a [u8]) -> (u64, &'a [u8]) {
        while let [first @ (b'\n' | b'\r'), rest @ ..] = bytes {
            if *first == b'\r' || !self.after_return {
                self.line += 1;
            }
            self.after_return = *first == b'\r';
            bytes = rest;
        }
        let line = self.line;
        match bytes {
            [row @ .., end @ (b'\n' | b'\r')] => {
                self.line += 1;
                self.after_return = *end == b'\r';
                (line, row)
            }
            row => {
                self.after_return = false;
                (line, row)
            }
        }
    }

    /// Adds the line breaks inside the cells of the last row.
    pub(super) fn breaks_in_cells(&mut self, breaks: u64) {
        self.line += breaks;
    }
}

/// The number of line breaks in a text.
pub(super) fn breaks(text: &[u8]) -> u64 {
    let mut count = 0;
    let mut after_return = false;
    for byte in text {
        if *byte == b'\r' || (*byte == b'\n' && !after_return) {
            count += 1;
        }
        after_return = *byte == b'\r';
    }
    count
}
