//! The static token file: lines `token,user,uid,"group,group"`
//! (`k8s.io/apiserver/pkg/authentication/token/tokenfile`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::digest;
use crate::error::Error;
use crate::user::User;

/// Users by the digest of their token.
pub(super) struct StaticTokens(HashMap<[u8; 32], Arc<User>>);

impl StaticTokens {
    /// Reads the file, if there is one.
    pub(super) fn read(file: Option<&Path>) -> Result<StaticTokens, Error> {
        let mut tokens = HashMap::new();
        let Some(path) = file else { return Ok(StaticTokens(tokens)) };
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        for (number, line) in text.lines().enumerate() {
            let wrong = |reason| Error::TokenFile { path: path.to_owned(), line: number + 1, reason };
            if let Some((token, user)) = parse_line(line).map_err(wrong)? {
                tokens.insert(digest(&token), Arc::new(user));
            }
        }
        Ok(StaticTokens(tokens))
    }

    pub(super) fn find(&self, token: &str) -> Option<Arc<User>> {
        self.0.get(&digest(token)).cloned()
    }
}

/// One line; empty lines and comments are skipped.
fn parse_line(line: &str) -> Result<Option<(String, User)>, &'static str> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let fields = csv_fields(line)?;
    let [token, name, uid, rest @ ..] = fields.as_slice() else {
        return Err("at least three columns are needed: token,user,uid");
    };
    if token.is_empty() {
        return Err("the token is empty");
    }
    let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim).filter(|g| !g.is_empty());
    let mut user = User::new(name, groups);
    user.uid = Some(uid.clone()).filter(|u| !u.is_empty());
    Ok(Some((token.clone(), user)))
}

fn csv_fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim_end().chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            ' ' if !quoted && field.is_empty() => {}
            c => field.push(c),
        }
    }
    if quoted { Err("a quote is not closed") } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_file_lines_are_read_as_upstream_does() {
        let (token, user) = parse_line(r#"t0k,alice,7,"dev,ops""#).unwrap().unwrap();
        assert_eq!((token.as_str(), user.name.as_str(), user.uid.as_deref()), ("t0k", "alice", Some("7")));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(parse_line("t,bob,").unwrap().unwrap().1.groups, ["system:authenticated"]);
        assert!(parse_line("# comment").unwrap().is_none());
        for bad in ["t,bob", ",bob,1", r#"t,bob,1,"open"#] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }
}
