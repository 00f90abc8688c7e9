//! How deeply a YAML text is nested, found out before the YAML library reads it.
//!
//! For every token the library's scanner looks at each open `[` and `{` again, so 2 MB of them keep it
//! busy for minutes, and only then does it say that they are too many. This scanner follows the same
//! rules (which characters start a token where, indentation, quotes, block scalars, comments), but
//! only counts. It takes linear time and never fails: what is no YAML is left to the library.

/// The most collections that may be open inside one another. A campaign needs eight.
pub(super) const MAX_DEPTH: usize = 48;

/// The most of them that may be written in `[…]` or `{…}`.
pub(super) const MAX_FLOW_DEPTH: usize = 16;

/// The most lines that may start with `%`: the library compares each with all before it.
const MAX_DIRECTIVES: usize = 16;

/// Where a text is nested too deeply, as a byte offset, or has too many directives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// More collections inside one another than [`MAX_DEPTH`] or [`MAX_FLOW_DEPTH`].
    TooDeep(usize),
    /// More directives than any file has.
    Directives(usize),
}

/// Finds the first place where a text is nested more deeply than a manifest can be.
pub(super) fn check(text: &str) -> Result<(), Problem> {
    let mut scanner = Scanner::new(text);
    while scanner.token() {
        if scanner.flow > MAX_FLOW_DEPTH || scanner.flow + scanner.indents.len() > MAX_DEPTH {
            return Err(Problem::TooDeep(scanner.at));
        }
        if scanner.directives > MAX_DIRECTIVES {
            return Err(Problem::Directives(scanner.at));
        }
    }
    Ok(())
}

struct Scanner<'a> {
    text: &'a str,
    /// The offset of the next character.
    at: usize,
    line: usize,
    /// In characters, from 0.
    column: usize,
    /// How many `[` and `{` are open.
    flow: usize,
    /// The column of the innermost block collection; -1 outside all of them.
    indent: isize,
    /// Those around it.
    indents: Vec<isize>,
    /// Whether a key may start here.
    key_allowed: bool,
    /// The line and column of what becomes a key if `:` follows on the same line, outside `[…]` and `{…}`.
    key: Option<(usize, usize)>,
    directives: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            line: 0,
            column: 0,
            flow: 0,
            indent: -1,
            indents: Vec::new(),
            key_allowed: true,
            key: None,
            directives: 0,
        }
    }

    fn peek(&self) -> Option<char> {
        let byte = *self.text.as_bytes().get(self.at)?;
        if byte.is_ascii() { Some(char::from(byte)) } else { self.text[self.at..].chars().next() }
    }

    /// The character after the next one, where the next one is ASCII.
    fn second(&self) -> Option<char> {
        let byte = *self.text.as_bytes().get(self.at + 1)?;
        if byte.is_ascii() { Some(char::from(byte)) } else { self.text.get(self.at + 1..)?.chars().next() }
    }

    fn advance(&mut self) {
        let Some(character) = self.peek() else { return };
        self.at += character.len_utf8();
        if is_break(character) {
            // A carriage return and a line feed are one break.
            if character == '\r' && self.peek() == Some('\n') {
                self.at += 1;
            }
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
    }

    fn skip_while(&mut self, holds: impl Fn(char) -> bool) {
        while self.peek().is_some_and(&holds) {
            self.advance();
        }
    }

    fn skip_line(&mut self) {
        self.skip_while(|character| !is_break(character));
    }

    /// Whether `---` or `...` stands here, in the first column.
    fn at_document_mark(&self) -> bool {
        let rest = &self.text.as_bytes()[self.at..];
        self.column == 0
            && (rest.starts_with(b"---") || rest.starts_with(b"..."))
            && self.text[self.at + 3..].chars().next().is_none_or(is_blank_or_break)
    }

    /// Reads one token. Whether there was one.
    fn token(&mut self) -> bool {
        loop {
            match self.peek() {
                Some(' ') => self.advance(),
                Some('\t') if self.flow > 0 || !self.key_allowed => self.advance(),
                Some('#') => self.skip_line(),
                Some('\u{feff}') if self.column == 0 => self.advance(),
                Some(character) if is_break(character) => {
                    self.advance();
                    if self.flow == 0 {
                        self.key_allowed = true;
                    }
                }
                _ => break,
            }
        }
        let Some(character) = self.peek() else { return false };
        if self.flow == 0 {
            self.close_blocks(isize::try_from(self.column).unwrap_or(isize::MAX));
        }
        if self.column == 0 && character == '%' {
            self.directives += 1;
            self.close_blocks(-1);
            self.skip_line();
            return true;
        }
        if self.at_document_mark() {
            self.close_blocks(-1);
            self.key_allowed = false;
            (0..3).for_each(|_| self.advance());
            return true;
        }
        let blank_follows = self.second().is_none_or(is_blank_or_break);
        match character {
            '[' | '{' => {
                self.start_key();
                self.flow += 1;
                self.key_allowed = true;
                self.advance();
            }
            ']' | '}' => {
                self.flow = self.flow.saturating_sub(1);
                self.key_allowed = false;
                self.advance();
            }
            ',' => {
                self.key_allowed = true;
                self.advance();
            }
            '-' if blank_follows => {
                self.open_block(self.column);
                self.no_key();
                self.key_allowed = true;
                self.advance();
            }
            '?' if self.flow > 0 || blank_follows => {
                self.open_block(self.column);
                self.no_key();
                self.key_allowed = self.flow == 0;
                self.advance();
            }
            ':' if self.flow > 0 || blank_follows => self.value(),
            '*' | '&' => {
                self.start_key();
                self.advance();
                self.skip_while(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-'));
            }
            '!' => {
                self.start_key();
                self.skip_while(|character| !is_blank_or_break(character) && character != ',');
            }
            '|' | '>' if self.flow == 0 => self.block_scalar(),
            '\'' | '"' => {
                self.start_key();
                self.quoted(character);
            }
            _ => {
                self.start_key();
                self.plain();
            }
        }
        true
    }

    /// Remembers that a key may start here.
    fn start_key(&mut self) {
        if self.flow == 0 {
            if self.key_allowed {
                self.key = Some((self.line, self.column));
            }
            self.key_allowed = false;
        }
    }

    fn no_key(&mut self) {
        if self.flow == 0 {
            self.key = None;
        }
    }

    fn value(&mut self) {
        if self.flow == 0 {
            match self.key.take() {
                Some((line, column)) if line == self.line => {
                    self.open_block(column);
                    self.key_allowed = false;
                }
                _ => {
                    self.open_block(self.column);
                    self.key_allowed = true;
                }
            }
        }
        self.advance();
    }

    fn open_block(&mut self, column: usize) {
        let column = isize::try_from(column).unwrap_or(isize::MAX);
        if self.flow == 0 && self.indent < column {
            self.indents.push(self.indent);
            self.indent = column;
        }
    }

    fn close_blocks(&mut self, column: isize) {
        while self.indent > column {
            match self.indents.pop() {
                Some(outer) => self.indent = outer,
                None => return,
            }
        }
    }

    fn quoted(&mut self, quote: char) {
        self.advance();
        while let Some(character) = self.peek() {
            self.advance();
            if character == '\\' && quote == '"' {
                self.advance();
            } else if character == quote {
                if quote == '\'' && self.peek() == Some('\'') {
                    self.advance();
                } else {
                    return;
                }
            }
        }
    }

    fn plain(&mut self) {
        loop {
            if self.at_document_mark() || self.peek() == Some('#') {
                return;
            }
            let start = self.at;
            while let Some(character) = self.peek().filter(|character| !is_blank_or_break(*character)) {
                let ends = character == ':' && self.second().is_none_or(is_blank_or_break)
                    || self.flow > 0 && matches!(character, ',' | '[' | ']' | '{' | '}');
                // The first character is never one that ends a scalar, except in what is no YAML.
                if ends && self.at > start {
                    return;
                }
                if ends {
                    self.advance();
                    return;
                }
                self.advance();
            }
            let line = self.line;
            self.skip_while(is_blank_or_break);
            if self.line > line {
                self.key_allowed = true;
            }
            let Some(next) = self.peek() else { return };
            if self.flow == 0 && isize::try_from(self.column).unwrap_or(isize::MAX) <= self.indent {
                return;
            }
            let ends = next == ':' && self.second().is_none_or(is_blank_or_break)
                || self.flow > 0 && matches!(next, ',' | '[' | ']' | '{' | '}');
            if ends {
                return;
            }
        }
    }

    fn block_scalar(&mut self) {
        self.no_key();
        self.key_allowed = true;
        let mut explicit = None;
        self.advance();
        while let Some(character @ ('+' | '-' | '1'..='9')) = self.peek() {
            explicit = character.to_digit(10).and_then(|digit| isize::try_from(digit).ok()).or(explicit);
            self.advance();
        }
        self.skip_line();
        self.advance();
        let wanted = match explicit {
            Some(more) => self.indent.max(0) + more,
            None => self.deepest_blank_line().max(self.indent + 1).max(1),
        };
        let wanted = usize::try_from(wanted).unwrap_or(0);
        while self.peek().is_some() {
            while self.column < wanted && self.peek() == Some(' ') {
                self.advance();
            }
            match self.peek() {
                Some(character) if is_break(character) => self.advance(),
                Some(_) if self.column == wanted => {
                    self.skip_line();
                    self.advance();
                }
                _ => return,
            }
        }
    }

    /// The indentation of the first line that is not blank, or of a blank line before it if that is deeper.
    fn deepest_blank_line(&self) -> isize {
        let mut deepest = 0;
        let mut column = 0;
        for character in self.text[self.at..].chars() {
            if character == ' ' {
                column += 1;
            } else {
                deepest = deepest.max(column);
                if !is_break(character) {
                    return deepest;
                }
                column = 0;
            }
        }
        deepest.max(column)
    }
}

/// The line breaks of YAML 1.1, which the library follows.
fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank_or_break(character: char) -> bool {
    matches!(character, ' ' | '\t') || is_break(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_yaml::Value;

    use super::*;

    /// How deeply this scanner finds a text to be nested.
    fn counted(text: &str) -> usize {
        let mut scanner = Scanner::new(text);
        let mut deepest = 0;
        while scanner.token() {
            deepest = deepest.max(scanner.flow + scanner.indents.len());
        }
        deepest
    }

    /// How deeply a value is nested.
    fn depth(value: &Value) -> usize {
        match value {
            Value::Sequence(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Mapping(map) => 1 + map.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0),
            Value::Tagged(tagged) => depth(&tagged.value),
            _ => 0,
        }
    }

    #[test]
    fn only_what_opens_a_collection_counts() {
        for (text, deep) in [
            ("a: [b, {c: d}]\n", 3),
            ("a: \"[[[[\"\nb: '[[''[['\nc: x [[[ y\nd: z\n  [[[\n# [[[\n", 1),
            ("a: |\n  [[[\n  {{{\nb:\n- c: >-\n\n    [[\n   [\n  d: [e]\n", 4),
            ("- - - x\n", 3),
            ("? a\n: [b]\n", 2),
            ("[a: 'it', b's, \"]\", [c]]\n", 2),
            ("a:\n  b:\n    c: d\n  e: f\n", 3),
            ("{\"a\": {\"b\": \"}\"}, \"c\": [1]}\n", 2),
        ] {
            assert_eq!(counted(text), deep, "{text}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_is_found_at_once() {
        for text in ["[".repeat(4 << 20), "a: [\n".to_owned() + &"[\n".repeat(1 << 20), "- ".repeat(1 << 20)] {
            assert!(matches!(check(&text), Err(Problem::TooDeep(at)) if at < 200), "{}", &text[..20]);
        }
        assert!(matches!(check(&"%TAG !a! b\n".repeat(100)), Err(Problem::Directives(_))));
        // A quoted text and a comment that only look like it.
        let text = format!("a: \"{0}\"\nb: |\n  {0}\n# {0}\n", "[".repeat(1000));
        assert_eq!(check(&text), Ok(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        /// Whatever the library makes a value of, it is nested no more deeply than this scanner says.
        /// Two collections may share one opening: `a:` with `-` in the same column, and `[a: b]`.
        #[test]
        fn no_collection_is_overlooked(text in "([\\[\\]{},:?&*!|>'\"#%ab \n-]|: |- |\n  |\n    |'|\"| \\[|\\{a: ){0,24}") {
            if let Ok(value) = serde_yaml::from_str::<Value>(&text) {
                prop_assert!(depth(&value) <= 2 * counted(&text), "{text:?}: {value:?}");
            }
        }
    }
}
