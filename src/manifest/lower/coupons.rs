//! Coupons: one code, a pool of codes, or generated codes.

use std::collections::BTreeSet;

use super::{Coupons, Lowering, at, character, csv, types};
use crate::coupons;
use crate::domain::campaign::{CouponSpec, PoolSpec};
use crate::domain::coupon::{self, CouponCode};
use crate::domain::diagnostic::{Code, Diagnostic};
use crate::domain::input::PoolInput;
use crate::manifest::source::Pointer;

impl Lowering<'_> {
    pub(super) fn coupons(&mut self, coupons: &types::Coupons) -> Option<Coupons> {
        let root = at(&["coupons"]);
        match coupons {
            types::Coupons::Code(code) => match CouponCode::new(code) {
                Ok(code) => {
                    if !code.is_plain() {
                        self.report(&root.join("code"), plain_warning());
                    }
                    Some((CouponSpec::Code(code), None))
                }
                Err(error) => {
                    self.error(&root.join("code"), Code::InvalidCoupon, error.to_string(), "");
                    None
                }
            },
            types::Coupons::Pool(pool) => {
                let at = root.join("pool").join("csv");
                let file = self.data_file(&at, &pool.csv)?;
                let input =
                    PoolInput { source: csv(file, pool.delimiter, pool.multiline), column: pool.column.clone() };
                if let Err(problem) = coupons::pool::open(&input) {
                    self.file_problem(&at, problem);
                }
                let spec = PoolSpec {
                    csv: pool.csv.clone(),
                    column: pool.column.clone(),
                    delimiter: character(pool.delimiter),
                    multiline: pool.multiline,
                };
                Some((CouponSpec::Pool(spec), Some(input)))
            }
            types::Coupons::Generate(generate) => {
                self.generate(&root.join("generate"), generate).map(|spec| (spec, None))
            }
        }
    }

    fn generate(&mut self, at: &Pointer, generate: &types::Generate) -> Option<CouponSpec> {
        let alphabet: BTreeSet<char> = generate.alphabet.chars().collect();
        let total = generate.prefix.chars().count() + usize::from(generate.length);
        let before = self.errors();
        if alphabet.len() != generate.alphabet.chars().count() {
            self.error(
                &at.join("alphabet"),
                Code::InvalidCoupon,
                "the alphabet contains a character twice",
                "some codes would be likelier than others",
            );
        } else if alphabet.len() < 2 {
            self.error(&at.join("alphabet"), Code::InvalidCoupon, "the alphabet needs at least two characters", "");
        }
        if let Err(error) =
            coupon::check(&format!("{}{}", generate.prefix, generate.alphabet.chars().next().unwrap_or('A')))
        {
            self.error(&at.join("prefix"), Code::InvalidCoupon, error.to_string(), "");
        } else if total > coupon::MAX_CHARACTERS {
            self.error(
                &at.join("length"),
                Code::InvalidCoupon,
                format!("prefix and length together give codes of {total} characters; WhatsApp allows at most 15"),
                "shorten one of them",
            );
        }
        if generate.alphabet.chars().any(coupon::is_invisible) {
            self.error(
                &at.join("alphabet"),
                Code::InvalidCoupon,
                "the alphabet holds white space or an invisible character",
                "",
            );
        }
        if self.errors() > before {
            return None;
        }
        if !generate.prefix.chars().chain(generate.alphabet.chars()).all(|character| character.is_ascii_alphanumeric())
        {
            self.report(at, plain_warning());
        }
        Some(CouponSpec::Generate {
            prefix: generate.prefix.clone(),
            alphabet: generate.alphabet.clone(),
            length: usize::from(generate.length),
        })
    }
}

fn plain_warning() -> Diagnostic {
    Diagnostic::warning(Code::CouponCharacters, "this code has characters other than letters and digits")
        .hint("Meta states no character set; some clients refuse others, so send one to yourself first")
}
