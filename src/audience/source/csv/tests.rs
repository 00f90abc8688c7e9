use proptest::prelude::*;

use super::*;

/// A file with this content, in a directory that goes with it.
fn file(content: impl AsRef<[u8]>) -> (tempfile::TempDir, InputFile) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("people.csv");
    std::fs::write(&path, content).unwrap();
    let file = InputFile::below(directory.path(), path).unwrap();
    (directory, file)
}

/// The lines and cells of all rows, or the code and line of the first error.
type Rows = Vec<(u64, Vec<String>)>;
fn read(content: impl AsRef<[u8]>, multiline: bool) -> Result<Rows, (&'static str, Option<u64>)> {
    let (_directory, path) = file(content);
    let code_and_line = |problem: Diagnostic| (problem.code.as_str(), problem.position().1);
    let mut source = open(&path, multiline).map_err(code_and_line)?;
    rows_of(&mut source).map_err(code_and_line)
}

fn open(path: &InputFile, multiline: bool) -> Result<CsvSource, Diagnostic> {
    CsvSource::open(&CsvInput { path: path.clone(), delimiter: b',', multiline })
}

fn rows_of(source: &mut CsvSource) -> Result<Rows, Diagnostic> {
    let mut rows = Vec::new();
    let mut row = Row::new(Arc::clone(source.columns()));
    while let Some(location) = source.next(&mut row)? {
        rows.push((location.line().unwrap(), row.cells().map(str::to_owned).collect()));
    }
    Ok(rows)
}

fn lines(content: &str) -> Vec<u64> {
    read(content, true).unwrap().into_iter().map(|(line, _)| line).collect()
}

#[test]
fn the_number_of_rows_is_estimated_from_the_first_and_before_or_after_reading_some() {
    let (_directory, path) = file(format!("mobile,first_name\n{}", "9876543210,Asha\n".repeat(20_000)));
    let mut source = open(&path, false).unwrap();
    let estimate = source.size_hint();
    assert!((21_000..21_500).contains(&estimate), "{estimate}");
    assert_eq!(rows_of(&mut source).unwrap().len(), 20_000);
    assert_eq!(source.size_hint(), estimate);
    std::fs::write(&*path, "mobile").unwrap();
    assert_eq!(open(&path, false).unwrap().size_hint(), 0);
}

#[test]
fn rows_are_numbered_as_an_editor_numbers_lines() {
    for end in ["\n", "\r\n", "\r"] {
        let with = |text: &str| lines(&text.replace('\n', end));
        assert_eq!(with("a,b\n1,2\n3,4\n"), [2, 3], "{end:?}");
        assert_eq!(with("a,b\n1,2\n3,4"), [2, 3], "{end:?}");
        assert_eq!(with("\n\na,b\n\n1,2\n\n\n3,4\n\n"), [5, 8], "{end:?}");
        assert_eq!(with("a,b\n\"1\n1\n1\",2\n\n3,\"\n\"\n5,6\n"), [2, 6, 8], "{end:?}");
        assert_eq!(with("\u{feff}\"a\na\",b\n1,2\n"), [3], "{end:?}");
    }
    // Files that were put together from others.
    assert_eq!(lines("a,b\r\n1,2\n3,4\r5,6\r\n\n7,8\n"), [2, 3, 4, 6]);
    assert_eq!(read("a,b\r\n1,2\r\n3\r\n", false), Err(("csv-ragged", Some(3))));
    assert_eq!(read(b"a,b\r\n1,2\r\n\xff,3\r\n", false), Err(("csv-not-utf8", Some(3))));
}

/// Rows and quotes on both sides of the boundary between two pieces of the file.
#[test]
fn rows_keep_their_lines_across_the_pieces_in_which_a_file_is_read() {
    let row = format!("\"{}\",\"b\r\nb\"\r\n", "x".repeat(990));
    let rows = read(format!("a,b\r\n{}", row.repeat(500)), true).unwrap();
    assert_eq!(rows.len(), 500);
    assert!(
        rows.iter()
            .enumerate()
            .all(|(position, (line, cells))| *line == 2 + 2 * position as u64 && cells[1] == "b\r\nb")
    );
}

#[test]
fn a_quote_that_is_not_closed_is_reported_where_it_opens() {
    assert_eq!(read("a,b\n1,2\n3,\"4\n5,6\n7,8\n", false), Err(("csv-open-quote", Some(3))));
    assert_eq!(read("a,b\n1,2\n3,\"4\n5,6\n7,8\n", true), Err(("csv-open-quote", Some(3))));
    assert_eq!(read("a,b\n\"1\n1\",\"", true), Err(("csv-open-quote", Some(3))));
    assert_eq!(read("\"a,b\n1,2\n", false), Err(("csv-open-quote", Some(1))));
    assert_eq!(read("a,b\n1,\"", true), Err(("csv-open-quote", Some(2))));
}

#[test]
fn a_line_break_in_a_cell_needs_multiline() {
    let text = "a,b\n1,\"x\n3,y\"\n5,6\n";
    assert_eq!(read(text, false), Err(("csv-line-break", Some(2))));
    assert_eq!(read("\"a\na\",b\n", false), Err(("csv-line-break", Some(1))));
    let (_directory, path) = file(text);
    let mut source = open(&path, true).unwrap();
    assert_eq!(rows_of(&mut source).unwrap().len(), 2);
    assert_eq!(source.whole_rows, WholeRows { cells: 1, first_line: 2 });
    let warnings: Vec<String> = source.warnings().into_iter().map(|warning| warning.message).collect();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("1 cell of") && warnings[0].ends_with("the first in line 2"), "{warnings:?}");
}

#[test]
fn an_address_of_two_lines_is_no_row() {
    let (_directory, path) = file("a,b,c\n1,\"Hill Road, 5\nMumbai\",2\n3,\"x\n\",4\n");
    let mut source = open(&path, true).unwrap();
    assert_eq!(rows_of(&mut source).unwrap().len(), 2);
    assert!(source.warnings().is_empty());
}

#[test]
fn quotes_are_taken_as_they_are_written() {
    let cells = |text: &str| read(format!("a,b\n{text}\n"), false).map(|rows| rows[0].1.clone());
    assert_eq!(cells("1,5\" screen"), Ok(vec!["1".into(), "5\" screen".into()]));
    assert_eq!(cells("1,5\""), Ok(vec!["1".into(), "5\"".into()]));
    assert_eq!(cells("\"1\",\"say \"\"hi\"\", then\" "), Ok(vec!["1".into(), "say \"hi\", then".into()]));
    assert_eq!(cells("\"\",\"\""), Ok(vec![String::new(), String::new()]));
    for broken in ["1,\"a\"b", "\"1\"2,3", "1,\"a \\\" b\"", "1,\"a\" \"b\"", "1,\"\"\"\"x"] {
        assert_eq!(cells(broken), Err(("csv-text-after-quote", Some(2))), "{broken}");
    }
}

#[test]
fn a_row_without_end_is_not_read_to_its_end() {
    let endless = format!("a,b\n1,\"{}", "x\n".repeat(MAX_ROW_BYTES));
    assert_eq!(read(&endless, true), Err(("csv-row-too-long", Some(2))));
    assert_eq!(read("\0".repeat(2 * MAX_ROW_BYTES), false), Err(("csv-row-too-long", Some(1))));
}

#[test]
fn a_first_row_with_a_number_is_no_header() {
    for name in ["9876543210", "tel:+91 98765 43210", "whatsapp 919876543210", "+91-98765-43210", "१२३४५६७८९०"]
    {
        assert_eq!(read(format!("{name},b\n1,2\n"), false), Err(("csv-no-header", Some(1))), "{name}");
    }
    assert!(read("phone 1,2024-25\n1,2\n", false).is_ok());
}

#[test]
fn columns_are_listed_only_if_they_look_like_names() {
    let hint = |header: &str| {
        let (_directory, path) = file(header);
        open(&path, false).unwrap().no_column("nothing").hint.unwrap()
    };
    assert_eq!(hint("Mobile No.,first_name,नाम"), "columns: `Mobile No.`, `first_name`, `नाम`");
    for foreign in [
        "root:x:0:0:root:/root:/bin/bash",
        "-----BEGIN PRIVATE KEY-----",
        "PATH=/usr/bin,x",
        "x,\u{1b}[31m",
        "a@b.example",
    ] {
        assert_eq!(hint(foreign), "the first row must contain the column names", "{foreign:?}");
    }
}

/// Whether a cell that was read as `cell` may stand in a file as `raw`: as it is, or in quotes with each
/// quote twice, white space after them.
fn writes(raw: &str, cell: &str) -> bool {
    let quoted = |end: usize| format!("\"{}\"{}", cell[..end].replace('"', "\"\""), &cell[end..]);
    let blanks = cell.len() - cell.trim_end_matches([' ', '\t']).len();
    let as_it_is = raw == cell && !cell.starts_with('"');
    as_it_is || (0..=blanks).any(|blanks| raw == quoted(cell.len() - blanks))
}

/// Whether the cells that the CSV library reads are what stands in the row, by writing them again.
fn row_is_exact(raw: &str, cells: &[&str]) -> bool {
    match cells {
        [] => raw.is_empty(),
        [last] => writes(raw, last),
        [first, rest @ ..] => {
            raw.match_indices(',').any(|(at, _)| writes(&raw[..at], first) && row_is_exact(&raw[at + 1..], rest))
        }
    }
}

/// The line of a byte, by counting the ends of lines before it.
fn line_of(text: &str, at: usize) -> u64 {
    text[..at].replace("\r\n", "\n").replace('\r', "\n").matches('\n').count() as u64 + 1
}

/// What the CSV library reads, and for each row where it starts and whether it is exact.
fn by_the_library(text: &str) -> Vec<(usize, Vec<String>, bool)> {
    let mut reader = ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
    let mut rows = Vec::new();
    let mut record = StringRecord::new();
    loop {
        let from = usize::try_from(reader.position().byte()).unwrap();
        if !reader.read_record(&mut record).unwrap() {
            return rows;
        }
        let raw = &text[from..usize::try_from(reader.position().byte()).unwrap()];
        let start = from + raw.len() - raw.trim_start_matches(['\r', '\n']).len();
        let row = &text[start..from + raw.len()];
        // The end of the line is not part of the row, unless it belongs to a cell that is never closed.
        let ends: [&str; 2] = [row, row.strip_suffix(['\r', '\n']).unwrap_or(row)];
        let cells: Vec<&str> = record.iter().collect();
        let exact = row_is_exact(ends[1], &cells);
        rows.push((start, cells.iter().map(|cell| (*cell).to_owned()).collect(), exact));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// A file is refused exactly if the cells that the CSV library reads are not what stands there, or one
    /// of them holds a line break. Rows keep the lines that they start on.
    #[test]
    fn a_file_is_read_exactly_or_refused(
        body in "(a|b|\"|\"|\"\"|,|,|\n|\n|\r\n|\r| |\t|\"a\"|\"b,\"){0,24}",
        multiline in any::<bool>(),
    ) {
        // Another number of cells is another error, so each row has those that it has.
        let rows = by_the_library(&body);
        let exact = rows.iter().all(|(_, _, exact)| *exact);
        let broken = rows.iter().any(|(_, cells, _)| cells.iter().any(|cell| cell.contains(['\n', '\r'])));
        let accepted = exact && (multiline || !broken);
        let read = read_flexibly(&body, multiline);
        prop_assert_eq!(read.is_ok(), accepted, "{:?}: {:?}", body, read);
        if let Ok(read) = read {
            let expected: Vec<(u64, Vec<String>)> = rows
                .iter()
                .map(|(start, cells, _)| (line_of(&body, *start), cells.iter().map(|cell| cell.trim().to_owned()).collect()))
                .collect();
            prop_assert_eq!(read, expected);
        }
    }
}

/// Reads rows of any number of cells, the first one too.
fn read_flexibly(text: &str, multiline: bool) -> Result<Rows, &'static str> {
    let (_directory, file) = file(text);
    let tap = Tap::new(file.open(MAX_DATA_BYTES).unwrap().into_file());
    let reader = ReaderBuilder::new().flexible(true).has_headers(false).buffer_capacity(7).from_reader(tap);
    let mut source = CsvSource {
        file,
        columns: Arc::default(),
        reader,
        record: StringRecord::new(),
        lines: Lines::default(),
        delimiter: b',',
        multiline,
        broken: false,
        whole_rows: WholeRows::default(),
    };
    rows_of(&mut source).map_err(|problem| problem.code.as_str())
}
