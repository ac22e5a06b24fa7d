//! Calico's label selectors (SEL-1 to SEL-9).
//!
//! Owns: [`Selector`], its grammar, and what it says of labels. Parsed once, where a resource is decoded: one that does
//! not parse keeps its last good form there. Never: knows which resources have labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while, take_while_m_n, take_while1};
use nom::character::complete::char;
use nom::combinator::{map, not, opt, value};
use nom::multi::separated_list1;
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

/// How deep parentheses may be nested: what is read is walked by recursion.
const MAX_DEPTH: usize = 64;
/// Longest label name, in characters (SEL-1).
const MAX_LABEL: usize = 512;
/// Longest selector, in bytes: far more than any that people write.
const MAX_TEXT: usize = 65_536;

/// A selector, as written and as understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Selector {
    text: String,
    expression: Expression,
}

/// What a selector asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expression {
    /// `all()`, `global()`, or nothing at all.
    All,
    /// No labels whatever: a selector that could not be understood (SEL-8).
    Nothing,
    /// `has(label)`.
    Has(String),
    /// The label is there and its value passes.
    Value(String, Test),
    /// `!`.
    Not(Box<Expression>),
    /// `&&` between them.
    And(Vec<Expression>),
    /// `||` between them.
    Or(Vec<Expression>),
}

/// What the value of a label is held against, byte by byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Test {
    /// `==`.
    Is(String),
    /// `contains`.
    Contains(String),
    /// `starts with`.
    StartsWith(String),
    /// `ends with`.
    EndsWith(String),
    /// `in`.
    In(BTreeSet<String>),
}

/// A text that is no selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SelectorError {
    at: usize,
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a selector (such as has(rack) && zone == 'a') from character {} on", self.at)
    }
}

impl std::error::Error for SelectorError {}

impl Selector {
    /// Reads a selector; a blank one is `all()` (SEL-1).
    ///
    /// # Errors
    /// The text does not follow SEL-1 to SEL-6, or is nested deeper than 64 parentheses.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        let at = |rest: &str| SelectorError { at: text.chars().count() - rest.chars().count() + 1 };
        if text.len() > MAX_TEXT {
            return Err(at(text));
        }
        let body = text.trim_matches([' ', '\t']);
        if body.is_empty() {
            return Ok(Selector { text: text.to_owned(), expression: Expression::All });
        }
        match or(text, 0) {
            Ok(("", expression)) => Ok(Selector { text: text.to_owned(), expression }),
            Ok((rest, _)) => Err(at(rest)),
            Err(nom::Err::Error(error) | nom::Err::Failure(error)) => Err(at(error.input)),
            Err(nom::Err::Incomplete(_)) => Err(at("")),
        }
    }

    /// The selector that matches nothing, in place of a text that does not parse and never did (SEL-8). It keeps the
    /// text, so that it is not taken for an absent one where it is written down and read again.
    pub fn nothing(text: &str) -> Selector {
        let text = if text.is_empty() { "!" } else { text };
        Selector { text: text.to_owned(), expression: Expression::Nothing }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it asks for.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// Whether something with these labels is meant (SEL-7).
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.expression.matches(labels)
    }
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Expression::All => true,
            Expression::Nothing => false,
            Expression::Has(label) => labels.contains_key(label),
            Expression::Value(label, test) => labels.get(label).is_some_and(|value| test.passes(value)),
            Expression::Not(inner) => !inner.matches(labels),
            Expression::And(all) => all.iter().all(|inner| inner.matches(labels)),
            Expression::Or(any) => any.iter().any(|inner| inner.matches(labels)),
        }
    }
}

impl Test {
    fn passes(&self, value: &str) -> bool {
        match self {
            Test::Is(wanted) => value == wanted,
            Test::Contains(part) => value.contains(part.as_str()),
            Test::StartsWith(part) => value.starts_with(part.as_str()),
            Test::EndsWith(part) => value.ends_with(part.as_str()),
            Test::In(values) => values.contains(value),
        }
    }
}

/// What a parser of a part gives back.
type Parsed<'a, T> = IResult<&'a str, T>;

/// Blanks and tabs; a line break is none (SEL-2).
fn blank(text: &str) -> Parsed<'_, &str> {
    take_while(|c| c == ' ' || c == '\t').parse(text)
}

fn is_label(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_./-".contains(c)
}

/// One alternative, or several with `||` between them.
fn or(text: &str, depth: usize) -> Parsed<'_, Expression> {
    let (mut rest, first) = and(text, depth)?;
    let mut all = vec![first];
    while let Ok((after, _)) = preceded(blank, tag::<_, _, nom::error::Error<&str>>("||")).parse(rest) {
        let (after, next) = and(after, depth)?;
        all.push(next);
        rest = after;
    }
    let (rest, _) = blank(rest)?;
    Ok((rest, one_of(all, Expression::Or)))
}

fn and(text: &str, depth: usize) -> Parsed<'_, Expression> {
    let (mut rest, first) = term(text, depth)?;
    let mut all = vec![first];
    while let Ok((after, _)) = preceded(blank, tag::<_, _, nom::error::Error<&str>>("&&")).parse(rest) {
        let (after, next) = term(after, depth)?;
        all.push(next);
        rest = after;
    }
    Ok((rest, one_of(all, Expression::And)))
}

/// The only one by itself, or all of them together.
fn one_of(mut all: Vec<Expression>, several: fn(Vec<Expression>) -> Expression) -> Expression {
    match (all.len(), all.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            all.extend(last);
            several(all)
        }
    }
}

/// A primary with any number of `!` before it; two of them cancel out.
fn term(text: &str, depth: usize) -> Parsed<'_, Expression> {
    let (mut rest, _) = blank(text)?;
    let mut negated = false;
    while let Some(after) = rest.strip_prefix('!') {
        negated = !negated;
        (rest, _) = blank(after)?;
    }
    let (rest, primary) = primary(rest, depth)?;
    Ok((rest, if negated { Expression::Not(Box::new(primary)) } else { primary }))
}

fn primary(text: &str, depth: usize) -> Parsed<'_, Expression> {
    if let Some(inner) = text.strip_prefix('(') {
        if depth >= MAX_DEPTH {
            return Err(nom::Err::Failure(nom::error::Error::new(text, nom::error::ErrorKind::TooLarge)));
        }
        let (rest, expression) = or(inner, depth + 1)?;
        let (rest, _) = char(')').parse(rest)?;
        return Ok((rest, expression));
    }
    let nothing_inside = |name| terminated(tag(name), (blank, char(')')));
    alt((
        value(Expression::All, nothing_inside("all(")),
        value(Expression::All, nothing_inside("global(")),
        map(delimited(tag("has("), preceded(blank, label), (blank, char(')'))), Expression::Has),
        comparison,
    ))
    .parse(text)
}

fn label(text: &str) -> Parsed<'_, String> {
    let (rest, name) =
        terminated(take_while_m_n(1, MAX_LABEL, is_label), not(take_while1(is_label))).parse(text)?;
    Ok((rest, name.to_owned()))
}

/// A label with an operator after it; nowhere else are the operators' words anything but labels (SEL-5).
fn comparison(text: &str) -> Parsed<'_, Expression> {
    let (rest, name) = terminated(label, blank).parse(text)?;
    let (rest, (negated, test)) = alt((
        map(preceded(tag("=="), text_after), |text| (false, Test::Is(text))),
        map(preceded(tag("!="), text_after), |text| (true, Test::Is(text))),
        map(preceded(word("contains"), text_after), |text| (false, Test::Contains(text))),
        map(preceded((tag("starts"), blank, word("with")), text_after), |text| {
            (false, Test::StartsWith(text))
        }),
        map(preceded((tag("ends"), blank, word("with")), text_after), |text| (false, Test::EndsWith(text))),
        map(preceded((tag("not"), blank, word("in")), set), |values| (true, Test::In(values))),
        map(preceded(word("in"), set), |values| (false, Test::In(values))),
    ))
    .parse(rest)?;
    let comparison = Expression::Value(name, test);
    Ok((rest, if negated { Expression::Not(Box::new(comparison)) } else { comparison }))
}

/// A word that does not go on (SEL-4).
fn word<'a>(
    name: &'static str,
) -> impl Parser<&'a str, Output = &'a str, Error = nom::error::Error<&'a str>> {
    terminated(tag(name), not(take_while1(is_label)))
}

/// A string; the other kind of quote may stand in it, and there are no escapes (SEL-3).
fn quoted(text: &str) -> Parsed<'_, String> {
    let (rest, inside) = alt((
        delimited(char('"'), take_till(|c| c == '"'), char('"')),
        delimited(char('\''), take_till(|c| c == '\''), char('\'')),
    ))
    .parse(text)?;
    Ok((rest, inside.to_owned()))
}

fn text_after(text: &str) -> Parsed<'_, String> {
    preceded(blank, quoted).parse(text)
}

fn set(text: &str) -> Parsed<'_, BTreeSet<String>> {
    let comma = || (blank, char(','), blank);
    let (rest, values) = delimited(
        (blank, char('{'), blank),
        opt(terminated(separated_list1(comma(), quoted), opt((blank, char(','))))),
        (blank, char('}')),
    )
    .parse(text)?;
    Ok((rest, values.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn says(text: &str, of: &[(&str, &str)]) -> bool {
        Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).matches(&labels(of))
    }

    #[test]
    fn what_calicos_own_vectors_accept_is_accepted_and_says_the_same() {
        for text in [
            "",
            "  \t",
            "all()",
            "all( )",
            "global(\t)",
            "a != \"a\"",
            "!has(a)",
            "a not in {\"x\"}",
            "a notin{}",
        ] {
            assert!(says(text, &[]), "{text:?} of no labels");
        }
        for text in [
            "a contains \"ab\"",
            "a contains ''",
            "!!has(a)",
            "has( a )",
            "!(has(b) || !has(a))",
            "a in {'x', \"bab\",}",
            "a in{\"bab\"}",
            "a starts with 'ba' && a ends\twith 'b'",
            "a startswith 'b'&&a endswith'ab'",
            "a=='bab'",
            "! a == 'x'",
            "has(b) && has(a) || has(a)",
        ] {
            assert!(says(text, &[("a", "bab")]), "{text:?} of a=bab");
        }
        for text in
            ["a in {}", "a == 'ba'", "!has(a)", "has(a) && !a contains 'a'", "has(a) && (has(b) || has(c))"]
        {
            assert!(!says(text, &[("a", "bab")]), "{text:?} of a=bab");
        }
    }

    #[test]
    fn an_absent_label_passes_negative_tests_only_and_an_empty_value_is_one() {
        let absent = ["k != 'v'", "k not in {'v'}", "!has(k)", "!(k == '')"];
        let present =
            ["k == ''", "k contains ''", "k starts with ''", "k ends with ''", "k in {''}", "has(k)"];
        for text in absent {
            assert!(says(text, &[]), "{text}");
        }
        for text in present {
            assert!(!says(text, &[]), "{text} without label");
            assert!(says(text, &[("k", "")]), "{text} with an empty value");
        }
    }

    #[test]
    fn words_of_operators_are_labels_where_a_label_stands_and_quotes_hold_each_other() {
        assert!(says("in == 'x' && not == 'y'", &[("in", "x"), ("not", "y")]));
        assert!(says("contains contains 'b'", &[("contains", "abc")]));
        assert!(says("has(all)", &[("all", "")]));
        assert!(says("all == 'x'", &[("all", "x")]));
        assert!(says("a == \"it's\" && b == '\"'", &[("a", "it's"), ("b", "\"")]));
        assert!(says("kubernetes.io/os == 'linux'", &[("kubernetes.io/os", "linux")]));
    }

    #[test]
    fn not_binds_before_and_and_and_before_or() {
        assert!(says("!a == 'x' && has(b)", &[("b", "")]));
        assert!(says("has(a) || has(b) && has(c)", &[("a", "")]));
        assert!(!says("(has(a) || has(b)) && has(c)", &[("a", "")]));
    }

    #[test]
    fn what_calicos_own_vectors_reject_is_an_error_that_says_where() {
        for text in [
            "b == b",
            "b",
            "!",
            "foo in \"\"",
            "(a == \"foo\"",
            "has(foo) &&",
            "a b",
            "%",
            "()",
            "'a' == a",
            "a == 'x",
            "a = 'x'",
            "has(a) & has(b)",
            "has(a) | has(b)",
            "has (a)",
            "all ()",
            "has()",
            "a inx {'b'}",
            "a == 'x'\n",
            "a == 'x' b",
            "a in {,}",
            "a in {'b' 'c'}",
            "a in ['b']",
            "a containsx 'b'",
            "|| has(a)",
            "has(a) ||",
            "(has(a)))",
            "a == 'x' ! has(b)",
            "\u{a0}has(a)",
        ] {
            assert!(Selector::parse(text).is_err(), "{text:?}");
        }
        let long = "a".repeat(513);
        assert!(Selector::parse(&format!("has({long})")).is_err());
        assert!(Selector::parse(&format!("has({})", &long[1..])).is_ok());
        let why = Selector::parse("has(a) && b = 'x'").unwrap_err().to_string();
        assert!(why.ends_with("from character 13 on"), "{why}");
        assert!(!Selector::nothing("b").matches(&BTreeMap::new()));
    }

    #[test]
    fn nesting_has_a_bound_and_a_chain_of_negations_needs_none() {
        let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
        assert!(Selector::parse(&nested(MAX_DEPTH)).is_ok());
        assert!(Selector::parse(&nested(MAX_DEPTH + 1)).is_err());
        assert!(Selector::parse(&nested(20_000)).is_err());
        assert!(says(&format!("{}has(a)", "!".repeat(20_000)), &[("a", "")]));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-c!&|(){}'\", =\tinoths]{0,40}") {
            let _ = Selector::parse(&text);
        }
    }
}
