//! The text of a label selector: lexer and parser, after `k8s.io/apimachinery/pkg/labels/selector.go`.

use super::{ParseError, Requirement};
use crate::field::{Path, invalid};
use crate::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    Closed,
    Open,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Identifier,
}

/// Special symbols, longest first, and the two words that are operators where one is expected.
const SYMBOLS: [(&str, Token); 9] = [
    ("==", Token::DoubleEquals),
    ("!=", Token::NotEquals),
    ("=", Token::Equals),
    ("!", Token::Not),
    (">", Token::Greater),
    ("<", Token::Less),
    ("(", Token::Open),
    (")", Token::Closed),
    (",", Token::Comma),
];

/// What may stand between key and value, as error texts list it.
const BINARY_OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// Cuts `text` into tokens; the last one is always [`Token::End`].
fn scan(text: &str) -> Vec<(Token, &str)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if rest.is_empty() {
            tokens.push((Token::End, ""));
            return tokens;
        }
        let (token, length) = match SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            Some((symbol, token)) => (*token, symbol.len()),
            None => word(rest),
        };
        tokens.push((token, &rest[..length]));
        rest = &rest[length..];
    }
}

fn word(rest: &str) -> (Token, usize) {
    let end = |c: char| " \t\r\n=!(),><".contains(c);
    let length = rest.find(end).unwrap_or(rest.len());
    let token = match &rest[..length] {
        "in" => Token::In,
        "notin" => Token::NotIn,
        _ => Token::Identifier,
    };
    (token, length)
}

/// Tokens and how many of them were read.
struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, ParseError> {
    Parser { tokens: scan(text), position: 0 }.selector()
}

fn found(literal: &str, expected: &str) -> ParseError {
    ParseError(format!("found '{literal}', expected: {expected}"))
}

impl<'a> Parser<'a> {
    /// The next token where an operator may stand; the end repeats for ever.
    fn peek_operator(&self) -> (Token, &'a str) {
        self.tokens.get(self.position).copied().unwrap_or((Token::End, ""))
    }

    /// The next token where a key or value may stand: `in` and `notin` are names there.
    fn peek(&self) -> (Token, &'a str) {
        match self.peek_operator() {
            (Token::In | Token::NotIn, literal) => (Token::Identifier, literal),
            other => other,
        }
    }

    fn next(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, ParseError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement();
                    requirements
                        .push(requirement.map_err(|e| ParseError(format!("unable to parse requirement: {e}")))?);
                    match self.next() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Identifier | Token::Not, _) => {}
                            (_, literal) => return Err(found(literal, "identifier after ','")),
                        },
                        (_, literal) => return Err(found(literal, "',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, literal) => return Err(found(literal, "!, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, ParseError> {
        let negated = self.peek().0 == Token::Not;
        if negated {
            self.position += 1;
        }
        let key = match self.next() {
            (Token::Identifier, literal) => literal.to_owned(),
            (_, literal) => return Err(found(literal, "identifier")),
        };
        let problems = names::is_qualified_name(&key);
        if !problems.is_empty() {
            // Upstream prints a path that does not exist here as `<nil>`.
            return Err(ParseError(invalid(&Path::new("<nil>"), key, &problems.join("; ")).to_string()));
        }
        if negated {
            return Ok(Requirement::DoesNotExist(key));
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(Requirement::Exists(key));
        }
        let (operator, literal) = self.peek_operator();
        self.position += 1;
        match operator {
            Token::In => Requirement::In(key, self.values()?),
            Token::NotIn => Requirement::NotIn(key, self.values()?),
            Token::Equals | Token::DoubleEquals => Requirement::Equals(key, self.exact_value()?),
            Token::NotEquals => Requirement::NotEquals(key, self.exact_value()?),
            Token::Greater => Requirement::GreaterThan(key, self.integer()?),
            Token::Less => Requirement::LessThan(key, self.integer()?),
            _ => return Err(found(literal, BINARY_OPERATORS)),
        }
        .validated()
    }

    /// `(a,b)`; empty places between commas are the empty value.
    fn values(&mut self) -> Result<Vec<String>, ParseError> {
        match self.next() {
            (Token::Open, _) => {}
            (_, literal) => return Err(ParseError(format!("found '{literal}' expected: '('"))),
        }
        if !matches!(self.peek().0, Token::Identifier | Token::Comma | Token::Closed) {
            return Err(found(self.peek().1, "',', ')' or identifier"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.list_value()?);
            match self.next() {
                (Token::Comma, _) => {}
                (Token::Closed, _) => break,
                (_, literal) => return Err(found(literal, "',' or ')'")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }

    fn list_value(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            (Token::Identifier, literal) => {
                self.position += 1;
                Ok(literal.to_owned())
            }
            (Token::Comma | Token::Closed, _) => Ok(String::new()),
            (_, literal) => Err(found(literal, "',', or identifier")),
        }
    }

    /// The value after `=`, which may be empty.
    fn exact_value(&mut self) -> Result<String, ParseError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Identifier, literal) => Ok(literal.to_owned()),
            (_, literal) => Err(found(literal, "identifier")),
        }
    }

    fn integer(&mut self) -> Result<i64, ParseError> {
        let value = self.exact_value()?;
        value.parse().map_err(|_| {
            let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
            ParseError(invalid(&Path::new("values").index(0), value, detail).to_string())
        })
    }
}
