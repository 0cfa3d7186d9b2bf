//! What Go's decoder says of a text that is not JSON: the first character that does not fit, and what was looked for
//! (`encoding/json/scanner.go`). Asked only when a text has been refused.

/// What is wrong with `bytes` in Go's words; those of `error` for JSON that Go does not mind.
pub fn go_error(bytes: &[u8], error: &serde_json::Error) -> String {
    Scanner { bytes, at: 0 }.document().err().unwrap_or_else(|| error.to_string())
}

/// What Go calls the type of the value a JSON text begins with.
pub fn go_type(bytes: &[u8]) -> &'static str {
    match bytes.trim_ascii_start().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "number",
    }
}

/// The deepest nesting Go reads.
const MAX_DEPTH: usize = 10_000;

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Values are left on a stack of closing brackets, not on the call's: texts may be nested deeply.
    fn document(&mut self) -> Result<(), String> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.blank();
            let opened = match self.peek()? {
                b'{' => Some(b'}'),
                b'[' => Some(b']'),
                _ => None,
            };
            let mut is_complete = true;
            match opened {
                None => self.scalar()?,
                Some(end) => {
                    self.at += 1;
                    self.blank();
                    if self.peek()? == end {
                        self.at += 1;
                    } else {
                        open.push(end);
                        is_complete = false;
                    }
                }
            }
            if open.len() > MAX_DEPTH {
                return Err("exceeded max depth".to_owned());
            }
            if is_complete && self.is_over(&mut open)? {
                return Ok(());
            }
            if open.last() == Some(&b'}') {
                self.key()?;
            }
        }
    }

    /// What follows a value: brackets that close, and then a comma or the end of the text.
    fn is_over(&mut self, open: &mut Vec<u8>) -> Result<bool, String> {
        loop {
            self.blank();
            let Some(end) = open.last().copied() else { return self.end().map(|()| true) };
            match (self.peek()?, end) {
                (b',', _) => {
                    self.at += 1;
                    return Ok(false);
                }
                (found, _) if found == end => {
                    self.at += 1;
                    open.pop();
                }
                (_, b'}') => return Err(self.unexpected("after object key:value pair")),
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn end(&self) -> Result<(), String> {
        if self.at < self.bytes.len() { Err(self.unexpected("after top-level value")) } else { Ok(()) }
    }

    fn key(&mut self) -> Result<(), String> {
        self.blank();
        if self.peek()? != b'"' {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        self.string()?;
        self.blank();
        if self.peek()? != b':' {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), String> {
        match self.peek()? {
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes() {
            if self.peek()? != expected {
                let context = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(self.unexpected(&context));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return Err(self.unexpected("in \\u hexadecimal character escape"));
                                }
                            }
                        }
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                        _ => return Err(self.unexpected("in string escape code")),
                    }
                }
                0..0x20 => return Err(self.unexpected("in string literal")),
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        self.at += usize::from(self.peek()? == b'-');
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek()?, b'+' | b'-'));
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.unexpected(context));
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn blank(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, String> {
        self.bytes.get(self.at).copied().ok_or_else(|| "unexpected end of JSON input".to_owned())
    }

    fn unexpected(&self, context: &str) -> String {
        // As `quoteChar` does, a byte is shown as the character of its number.
        let found = match self.bytes.get(self.at).copied().unwrap_or_default() {
            b'\'' => r"\'".to_owned(),
            b'"' => "\"".to_owned(),
            b'\\' => r"\\".to_owned(),
            b'\t' => r"\t".to_owned(),
            b'\n' => r"\n".to_owned(),
            b'\r' => r"\r".to_owned(),
            control @ (0..0x20 | 0x7f) => format!(r"\x{control:02x}"),
            control @ 0x80..0xa0 => format!(r"\u{control:04x}"),
            byte => char::from(byte).to_string(),
        };
        format!("invalid character '{found}' {context}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_told_in_gos_words() {
        let cases = [
            ("", "unexpected end of JSON input"),
            (" {", "unexpected end of JSON input"),
            (r#"{"a""#, "unexpected end of JSON input"),
            (r#"{"a"}"#, "invalid character '}' after object key"),
            (r#"{"a":}"#, "invalid character '}' looking for beginning of value"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            (r#"{"a":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
            ("kind: Pod", "invalid character 'k' looking for beginning of value"),
            ("\0", r"invalid character '\x00' looking for beginning of value"),
            ("[01]", "invalid character '1' after array element"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1e+x", "invalid character 'x' in exponent of numeric literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u00g0""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("\"\n\"", r"invalid character '\n' in string literal"),
            ("é", "invalid character 'Ã' looking for beginning of value"),
            ("]", "invalid character ']' looking for beginning of value"),
        ];
        for (text, expected) in cases {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(go_error(text.as_bytes(), &error), expected, "{text}");
        }
    }

    #[test]
    fn what_go_reads_is_refused_in_our_words() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let error = serde_json::from_str::<serde_json::Value>(&deep).unwrap_err();
        assert!(go_error(deep.as_bytes(), &error).starts_with("recursion limit exceeded"));
        let bottomless = "[".repeat(MAX_DEPTH + 2);
        assert_eq!(go_error(bottomless.as_bytes(), &error), "exceeded max depth");
    }
}
