//! The least that a plan can cost: read the rows, parse the numbers, hash each row. It has no templates, coupons
//! or ledger, and stores only the people it has seen.
//!
//! ```sh
//! target/dist/examples/bare people.csv suppressed.csv
//! ```

#![allow(clippy::print_stdout, reason = "a program of its own for benches/compare.py, which reads this")]

use std::collections::HashSet;

use sendform::domain::phone::PhoneReader;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (people, suppressed) = (arguments.next().expect("people.csv"), arguments.next().expect("suppressed.csv"));
    let reader = PhoneReader::new(Some("IN")).expect("a region");
    let mut seen = HashSet::new();
    let mut rows = csv::ReaderBuilder::new().from_path(suppressed).expect("the file");
    let mut row = csv::ByteRecord::new();
    while rows.read_byte_record(&mut row).expect("a row") {
        if let Ok(address) = reader.read(std::str::from_utf8(&row[0]).expect("text")) {
            seen.insert(address.identity());
        }
    }
    let mut rows = csv::ReaderBuilder::new().from_path(people).expect("the file");
    let mut hasher = blake3::Hasher::new();
    let (mut kept, mut total) = (0_u64, 0_u64);
    while rows.read_byte_record(&mut row).expect("a row") {
        total += 1;
        let Ok(address) = reader.read(std::str::from_utf8(&row[1]).expect("text")) else { continue };
        if seen.insert(address.identity()) {
            kept += 1;
            let mut of_row = blake3::Hasher::new();
            for cell in &row {
                of_row.update(cell);
            }
            hasher.update(of_row.finalize().as_bytes());
        }
    }
    println!("{kept} of {total} {}", hasher.finalize().to_hex());
}
