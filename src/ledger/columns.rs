//! Columns of statements that are read or written by position, because a lookup by name costs too much there.

/// Declares the columns of a statement once: `LIST` is their names for the statement, and each constant is the
/// position of a column in it. So the two cannot drift apart.
macro_rules! columns {
    ($(#[$doc:meta])* $module:ident: $first:ident = $first_sql:literal $(, $name:ident = $sql:literal)* $(,)?) => {
        $(#[$doc])*
        #[allow(dead_code, reason = "some statements read a column in one place alone")]
        mod $module {
            pub(super) const LIST: &str = concat!($first_sql $(, ", ", $sql)*);

            #[allow(clippy::upper_case_acronyms, non_camel_case_types, reason = "named like the constants")]
            enum Position { $first $(, $name)* }

            pub(super) const $first: usize = Position::$first as usize;
            $(pub(super) const $name: usize = Position::$name as usize;)*
        }
    };
}

pub(super) use columns;

#[cfg(test)]
mod tests {
    columns!(example: RUN = "run", SEND_KEY = "send_key", HAS_ID = "message_id IS NOT NULL");

    #[test]
    fn a_position_is_that_of_the_name_in_the_list() {
        assert_eq!(example::LIST, "run, send_key, message_id IS NOT NULL");
        assert_eq!((example::RUN, example::SEND_KEY, example::HAS_ID), (0, 1, 2));
    }
}
