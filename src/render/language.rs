//! What expressions can do: the part of minijinja's language whose cost is limited by its fuel.
//!
//! Each step consumes fuel, and so does each byte and list element that a step creates. Two things are not covered.
//! The sum of lists is evaluated only when it is needed, so thirty doublings cost thirty steps and then gigabytes. And
//! lists that contain the same list several times are compared and printed as if each were a copy. So expressions are
//! checked when they are compiled:
//!
//! * a list contains texts and numbers, but no lists; it can be searched, iterated and joined, but not added or
//!   repeated;
//! * there are no mappings, macros, includes, recursive loops, and no function but `range`;
//! * the row, the variables and the campaign can only be accessed by name, never as a whole.
//!
//! The syntax alone decides what can be a list: a name can be one if it is set to one anywhere.

use std::collections::BTreeSet;

use minijinja::machinery::{Span, ast, parse};
use minijinja::value::ValueKind;

use super::environment::CompileError;

/// The maximum length of the text of one field, in bytes. The longest message has 600 characters.
pub(super) const MAX_SOURCE_LEN: usize = 8 * 1024;

/// The maximum number of elements of a list that are not all fixed texts and numbers.
const MAX_PARTS: usize = 100;

/// Names that can only be accessed by their members.
const CONTAINERS: [&str; 3] = ["recipient", "vars", "campaign"];

/// Filters that return a text, a number or a boolean.
const TO_SINGLE: [&str; 24] = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "max",
    "min",
    "replace",
    "round",
    "string",
    "title",
    "trim",
    "upper",
    "urlencode",
];

/// Filters that return a list of texts or numbers.
const TO_LIST: [&str; 7] = ["lines", "list", "reject", "select", "sort", "split", "unique"];

/// The kind of value of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A text, a number, a boolean, or undefined.
    Single,
    /// It may be a list.
    List,
}

impl Kind {
    fn or(self, other: Kind) -> Kind {
        if self == Kind::List { self } else { other }
    }
}

/// Rejects a text whose expressions use more of the language.
pub(super) fn check(source: &str) -> Result<(), CompileError> {
    if source.len() > MAX_SOURCE_LEN {
        let message =
            format!("it has {} bytes; a text with expressions can have at most {MAX_SOURCE_LEN}", source.len());
        return Err(CompileError { message, line: None });
    }
    // The engine reports syntax errors.
    let Ok(ast::Stmt::Template(template)) = parse(source, "", Default::default()) else { return Ok(()) };
    let mut checker = Checker { lists: BTreeSet::new(), bound: BTreeSet::new(), refused: None };
    loop {
        let known = (checker.lists.len(), checker.bound.len());
        checker.refused = None;
        checker.statements(&template.children);
        if known == (checker.lists.len(), checker.bound.len()) {
            break;
        }
    }
    match checker.refused {
        None => Ok(()),
        Some((message, span)) => {
            let line = Some(usize::from(span.start_line)).filter(|_| source.trim_end().contains('\n'));
            Err(CompileError { message, line })
        }
    }
}

struct Checker<'a> {
    /// The names that may be a list.
    lists: BTreeSet<&'a str>,
    /// The names that the text itself sets.
    bound: BTreeSet<&'a str>,
    /// The first thing that is not allowed.
    refused: Option<(String, Span)>,
}

impl<'a> Checker<'a> {
    fn refuse(&mut self, span: Span, message: impl Into<String>) {
        self.refused.get_or_insert_with(|| (message.into(), span));
    }

    fn statements(&mut self, statements: &[ast::Stmt<'a>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &ast::Stmt<'a>) {
        match statement {
            ast::Stmt::EmitRaw(_) => {}
            ast::Stmt::EmitExpr(emit) => _ = self.expression(&emit.expr),
            ast::Stmt::IfCond(condition) => {
                self.expression(&condition.expr);
                self.statements(&condition.true_body);
                self.statements(&condition.false_body);
            }
            ast::Stmt::ForLoop(each) => {
                if each.recursive {
                    self.refuse(each.span(), "loops cannot be recursive");
                }
                self.expression(&each.iter);
                self.bind(&each.target, Kind::Single);
                each.filter_expr.iter().for_each(|filter| _ = self.expression(filter));
                self.statements(&each.body);
                self.statements(&each.else_body);
            }
            ast::Stmt::Set(set) => {
                let kind = self.expression(&set.expr);
                self.bind(&set.target, kind);
            }
            ast::Stmt::SetBlock(set) => {
                set.filter.iter().for_each(|filter| _ = self.expression(filter));
                // A filter may make a list of the text.
                self.bind(&set.target, if set.filter.is_some() { Kind::List } else { Kind::Single });
                self.statements(&set.body);
            }
            ast::Stmt::WithBlock(with) => {
                for (target, value) in &with.assignments {
                    let kind = self.expression(value);
                    self.bind(target, kind);
                }
                self.statements(&with.body);
            }
            ast::Stmt::FilterBlock(block) => {
                self.expression(&block.filter);
                self.statements(&block.body);
            }
            ast::Stmt::Template(template) => self.statements(&template.children),
            ast::Stmt::AutoEscape(block) => {
                self.refuse(block.span(), "`autoescape` is not available: nothing is escaped")
            }
            ast::Stmt::Do(call) => self.refuse(call.span(), "`do` is not available"),
            // Blocks, imports, includes, macros, calls: whatever the engine is built with.
            _ => {
                self.refuse(Span::default(), "only `if`, `for`, `set`, `with` and `filter` are available in `{% … %}`")
            }
        }
    }

    fn bind(&mut self, target: &ast::Expr<'a>, kind: Kind) {
        match target {
            ast::Expr::Var(name) => {
                self.bound.insert(name.id);
                if kind == Kind::List {
                    self.lists.insert(name.id);
                }
            }
            other => self.refuse(other.span(), "only a single name can be assigned"),
        }
    }

    fn expression(&mut self, expression: &ast::Expr<'a>) -> Kind {
        match expression {
            ast::Expr::Var(name) => {
                if CONTAINERS.contains(&name.id) && !self.bound.contains(name.id) {
                    let message = format!("`{0}` cannot be used as a whole; use `{0}.NAME`", name.id);
                    self.refuse(name.span(), message);
                }
                if self.lists.contains(name.id) { Kind::List } else { Kind::Single }
            }
            ast::Expr::Const(constant) => self.constant(constant),
            ast::Expr::Slice(slice) => {
                let kind = self.expression(&slice.expr);
                for bound in slice.start.iter().chain(&slice.stop).chain(&slice.step) {
                    self.expression(bound);
                }
                kind
            }
            ast::Expr::UnaryOp(operation) => {
                self.expression(&operation.expr);
                Kind::Single
            }
            ast::Expr::BinOp(operation) => {
                let (left, right) = (self.expression(&operation.left), self.expression(&operation.right));
                match operation.op {
                    ast::BinOpKind::ScAnd | ast::BinOpKind::ScOr => left.or(right),
                    ast::BinOpKind::Add | ast::BinOpKind::Mul if left.or(right) == Kind::List => {
                        self.refuse(operation.span(), "lists cannot be added or repeated");
                        Kind::Single
                    }
                    _ => Kind::Single,
                }
            }
            ast::Expr::Compare(comparison) => {
                self.expression(&comparison.expr);
                comparison.ops.iter().for_each(|operation| _ = self.expression(&operation.expr));
                Kind::Single
            }
            ast::Expr::IfExpr(condition) => {
                self.expression(&condition.test_expr);
                let kind = self.expression(&condition.true_expr);
                condition.false_expr.as_ref().map_or(kind, |other| kind.or(self.expression(other)))
            }
            ast::Expr::Filter(filter) => self.filter(filter),
            ast::Expr::Test(test) => {
                self.expression(&test.expr);
                self.arguments(&test.args);
                Kind::Single
            }
            ast::Expr::GetAttr(attribute) => {
                self.inside(&attribute.expr);
                Kind::Single
            }
            ast::Expr::GetItem(item) => {
                self.inside(&item.expr);
                self.expression(&item.subscript_expr);
                Kind::Single
            }
            ast::Expr::Call(call) => self.call(call),
            ast::Expr::List(list) => self.list(list.span(), &list.items),
            ast::Expr::Tuple(tuple) => self.list(tuple.span(), &tuple.items),
            ast::Expr::Map(map) => {
                self.refuse(map.span(), "mappings are not available in expressions");
                Kind::Single
            }
        }
    }

    /// The object of a member access can be a row.
    fn inside(&mut self, expression: &ast::Expr<'a>) {
        if !matches!(expression, ast::Expr::Var(_)) {
            self.expression(expression);
        }
    }

    fn constant(&mut self, constant: &ast::Spanned<ast::Const>) -> Kind {
        let is_single =
            |kind: ValueKind| !matches!(kind, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::Plain);
        let value = &constant.value;
        if is_single(value.kind()) {
            return Kind::Single;
        }
        if value.kind() == ValueKind::Map {
            self.refuse(constant.span(), "mappings are not available in expressions");
        } else if value.try_iter().is_ok_and(|mut items| items.any(|item| !is_single(item.kind()))) {
            self.refuse(constant.span(), "a list can contain texts and numbers, but no lists");
        }
        Kind::List
    }

    fn list(&mut self, span: Span, items: &[ast::Expr<'a>]) -> Kind {
        let fixed = items.iter().all(|item| matches!(item, ast::Expr::Const(_)));
        if !fixed && items.len() > MAX_PARTS {
            self.refuse(span, format!("a list can have at most {MAX_PARTS} elements, unless all of them are fixed"));
        }
        for item in items {
            if self.expression(item) == Kind::List {
                self.refuse(item.span(), "a list can contain texts and numbers, but no lists");
            }
        }
        Kind::List
    }

    fn filter(&mut self, filter: &ast::Spanned<ast::Filter<'a>>) -> Kind {
        let subject = filter.expr.as_ref().map_or(Kind::Single, |subject| self.expression(subject));
        let arguments = self.arguments(&filter.args);
        let name = filter.name;
        match name {
            "default" | "d" => subject.or(arguments),
            // Text stays text.
            "reverse" => subject,
            "sum" if !filter.args.is_empty() => {
                self.refuse(filter.span(), "`sum` takes nothing in parentheses");
                Kind::Single
            }
            "sum" => Kind::Single,
            "map" => {
                let by = match filter.args.first() {
                    Some(ast::CallArg::Pos(ast::Expr::Const(by))) => by.value.as_str().map(str::to_owned),
                    _ => None,
                };
                if !by.is_some_and(|by| TO_SINGLE.contains(&&*by)) || arguments == Kind::List {
                    self.refuse(filter.span(), "`map` takes the name of a filter that makes a text or a number");
                }
                Kind::List
            }
            _ if TO_LIST.contains(&name) => Kind::List,
            _ if TO_SINGLE.contains(&name) => Kind::Single,
            _ => {
                self.refuse(filter.span(), format!("unknown filter `{name}`"));
                Kind::Single
            }
        }
    }

    fn call(&mut self, call: &ast::Spanned<ast::Call<'a>>) -> Kind {
        self.arguments(&call.args);
        match &call.expr {
            ast::Expr::Var(name) if name.id == "range" => Kind::List,
            ast::Expr::Var(name) => {
                self.refuse(call.span(), format!("unknown function `{}`", name.id));
                Kind::Single
            }
            _ => {
                self.refuse(call.span(), "methods are not available; use a filter, such as `| upper`");
                Kind::Single
            }
        }
    }

    /// Whether one of the arguments may be a list.
    fn arguments(&mut self, arguments: &[ast::CallArg<'a>]) -> Kind {
        arguments.iter().fold(Kind::Single, |kind, argument| match argument {
            ast::CallArg::Pos(value) | ast::CallArg::Kwarg(_, value) => kind.or(self.expression(value)),
            ast::CallArg::PosSplat(value) | ast::CallArg::KwargSplat(value) => {
                self.refuse(value.span(), "arguments cannot be unpacked from a list");
                Kind::List
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_allowed() {
        for source in [
            "{{ recipient.first_name | default('there') }}",
            "{{ recipient['First name'] | title }}",
            "{% if recipient.city in ['Pune', 'Delhi'] %}near{% else %}far{% endif %}",
            "{{ [recipient.title, recipient.name] | select | join(' ') }}",
            "{{ recipient.tags | split(',') | map('trim') | sort | first }}",
            "{% for tag in recipient.tags | split(',') %}{{ loop.index }}:{{ tag }} {% endfor %}",
            "{% set greeting = 'Hi' if vars.short else 'Hello' %}{{ greeting ~ ' ' + recipient.name }}",
            "{{ vars.percent + 1 }} {{ '%.2f' | format(vars.price * 1.18) }} {{ -vars.n ** 2 }}",
            "{{ (vars.price | float * 100) | round | int }} {{ campaign.edition }} {{ coupon }}",
            "{% with name = recipient.name %}{{ name[0:5] | upper }}{% endwith %}",
            "{% filter upper %}{{ recipient.name }}{% endfilter %}",
            "{{ 'vip' in (recipient.tags | default('') | split(',')) and recipient.name is defined }}",
            "{# a note #}{{ recipient.name | reverse }}{{ range(3) | join('-') }}{{ [1, 2] | sum }}",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
    }

    #[test]
    fn what_the_fuel_does_not_bound_is_refused() {
        let added = "lists cannot be added or repeated";
        let nested = "but no lists";
        for (source, words) in [
            ("{{ [1] + [2] }}", added),
            ("{{ 3 * [1] }}", added),
            ("{% set a = [1] %}{% set b = a %}{{ b + b }}", added),
            // The name is set to a list only later in the text, but earlier in a loop.
            ("{% for i in range(9) %}{{ a + a }}{% set a = b %}{% set b = range(2) %}{% endfor %}", added),
            ("{% with a = recipient.x | split(',') %}{{ a + a }}{% endwith %}", added),
            ("{{ (recipient.x | default([1])) + [1] }}", added),
            ("{{ ([1] if vars.a else 'x') * 2 }}", added),
            ("{{ ([1] and [2]) + 'x' }}", added),
            ("{{ [1, 2][0:1] + 'x' }}", added),
            ("{% set a | list %}x{% endset %}{{ a + a }}", added),
            ("{{ [[1]] }}", nested),
            ("{% set a = [vars.x] %}{{ [a, a] }}", nested),
            ("{{ (1, (2, 3)) | join }}", nested),
            ("{{ recipient.x | batch(2) }}", "unknown filter"),
            ("{{ recipient.x | split(',') | map('split', ';') }}", "`map` takes"),
            ("{{ recipient.x | split(',') | map(attribute='x') }}", "`map` takes"),
            ("{{ ['a'] | sum(start='') }}", "`sum` takes nothing"),
            ("{{ {'a': 1} }}", "mappings are not available"),
            ("{{ {'a': vars.x} }}", "mappings are not available"),
            ("{{ dict(a=1) }}", "unknown function"),
            ("{% set n = namespace(x=1) %}", "unknown function"),
            ("{% set n.x = 1 %}", "only a single name"),
            ("{% for a, b in ['xy'] %}{% endfor %}", "only a single name"),
            ("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursive"),
            ("{% macro m(x) %}{{ x }}{% endmacro %}", "only `if`"),
            ("{% include 'x' %}", "only `if`"),
            ("{% do range(1) %}", "`do` is not available"),
            ("{{ 'a'.upper() }}", "methods are not available"),
            ("{{ recipient }}", "as a whole"),
            ("{% for c in vars %}{% endfor %}", "as a whole"),
            ("{{ '%s' | format(*range(9)) }}", "unpacked"),
        ] {
            let message = check(source).unwrap_err().message;
            assert!(message.contains(words), "{source}: {message}");
        }
        let parts = ["vars.x"; MAX_PARTS + 1].join(", ");
        assert!(check(&format!("{{{{ [{parts}] | join }}}}")).is_err());
        assert!(check(&" ".repeat(MAX_SOURCE_LEN + 1)).is_err());
    }

    #[test]
    fn the_line_is_reported_in_a_text_of_several_lines() {
        let error = check("one\n{{ [1] + [2] }}\n").unwrap_err();
        assert_eq!(error.line, Some(2));
    }
}
