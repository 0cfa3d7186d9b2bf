//! The addresses in a page, found while it passes by.
//!
//! A tokenizer that knows tags, quotes, comments and what of a page is text for scripts and the like, and looks at those
//! attributes of those elements that hold an address. Everything else goes on byte by byte as it came; only an address is
//! held until it is whole, and no longer one than [`ADDRESS_MAX`]. Compare `rewriteHTML` in
//! `k8s.io/apimachinery/pkg/util/proxy`, which writes every tag anew.

use std::mem::take;

/// Which attributes of which elements hold addresses (`atomsToAttrs`).
const ADDRESSES: [(&str, &[&str]); 25] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements within which there is no markup but their own end.
const RAW: [&str; 9] = ["iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"];
/// Longer than the name of any element or attribute that matters.
const NAME_MAX: usize = 11;
/// An address that is longer stays what it is: most such are pictures written out.
const ADDRESS_MAX: usize = 8 * 1024;

/// Where in a page the next byte stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// Behind `<`.
    Open,
    /// Behind `<!`, and so many dashes.
    Declaration(u8),
    /// In a comment, behind so many dashes.
    Comment(u8),
    /// In something that ends with the next `>`.
    Bogus,
    /// In a tag's name.
    Name,
    /// Between attributes.
    Between,
    /// In an attribute's name.
    Attribute,
    /// Behind an attribute's name and a space.
    Named,
    /// Behind `=`.
    Equals,
    /// In a value that ends with this quote, or where there is none with a space.
    Value(Option<u8>),
    /// In an element without markup, so far into what ends it.
    Raw(usize),
}

/// A page on its way.
#[derive(Debug, Default)]
pub(super) struct Page {
    state: State,
    is_end_tag: bool,
    /// Of the tag, and of the element without markup.
    name: Vec<u8>,
    attribute: Vec<u8>,
    /// The value read so far, if it may be an address.
    address: Option<Vec<u8>>,
}

impl Page {
    /// Passes on what has come, each address as `through` has it.
    pub(super) fn push(&mut self, piece: &[u8], through: impl Fn(&str) -> Option<String>, out: &mut Vec<u8>) {
        let mut rest = piece;
        while let [byte, behind @ ..] = rest {
            match self.state {
                State::Text => rest = self.text(rest, out),
                State::Equals if !byte.is_ascii_whitespace() && !b"\"'>".contains(byte) => {
                    self.begin_value();
                    self.state = State::Value(None);
                }
                State::Value(quote) if !ends(*byte, quote) => {
                    self.value(*byte, out);
                    rest = behind;
                }
                _ => {
                    self.end_value(&through, out);
                    self.state = self.next(*byte);
                    out.push(*byte);
                    rest = behind;
                }
            }
        }
    }

    /// Passes on what is no markup, and what begins one; what comes behind that is the answer.
    fn text<'a>(&mut self, piece: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let open = piece.iter().position(|byte| *byte == b'<');
        if open.is_some() {
            self.state = State::Open;
        }
        let (passed, rest) = piece.split_at(open.map_or(piece.len(), |at| at + 1));
        out.extend_from_slice(passed);
        rest
    }

    /// Passes on what was held, where a page ends in the middle of an address.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend(self.address.take().into_iter().flatten());
    }

    fn value(&mut self, byte: u8, out: &mut Vec<u8>) {
        let Some(held) = &mut self.address else { return out.push(byte) };
        held.push(byte);
        if held.len() > ADDRESS_MAX {
            self.finish(out);
        }
    }

    fn end_value(&mut self, through: impl Fn(&str) -> Option<String>, out: &mut Vec<u8>) {
        let Some(held) = self.address.take() else { return };
        let other = std::str::from_utf8(&held).ok().and_then(through);
        out.extend(other.map_or(held, String::into_bytes));
    }

    /// What follows on `byte`, which ends the value where one is being read.
    fn next(&mut self, byte: u8) -> State {
        let is_space = byte.is_ascii_whitespace();
        match (self.state, byte) {
            (State::Open, b'!') => State::Declaration(0),
            (State::Open, b'?') => State::Bogus,
            (State::Open, b'/') if !self.is_end_tag => {
                self.is_end_tag = true;
                State::Open
            }
            (State::Open, _) if byte.is_ascii_alphabetic() => {
                self.name = vec![byte.to_ascii_lowercase()];
                State::Name
            }
            // `</>` is nothing, `</5` a comment; `<5` and `<<` are text.
            (State::Open, _) => match (take(&mut self.is_end_tag), byte) {
                (false, b'<') => State::Open,
                (false, _) | (true, b'>') => State::Text,
                (true, _) => State::Bogus,
            },
            (State::Declaration(0), b'-') => State::Declaration(1),
            (State::Declaration(1), b'-') => State::Comment(2),
            (State::Declaration(_) | State::Bogus, b'>') => State::Text,
            (State::Declaration(_) | State::Bogus, _) => State::Bogus,
            (State::Comment(2..), b'>') => State::Text,
            (State::Comment(dashes), b'-') => State::Comment(dashes.saturating_add(1)),
            (State::Comment(_), _) => State::Comment(0),
            (State::Raw(matched), _) => self.raw(matched, byte),
            (_, b'>') => self.end_tag(),
            (State::Name, b'/') => State::Between,
            (State::Name, _) if is_space => State::Between,
            (State::Name, _) => {
                grow(&mut self.name, byte);
                State::Name
            }
            (State::Attribute | State::Named, b'=') => State::Equals,
            (State::Attribute, _) if is_space => State::Named,
            (State::Attribute | State::Named | State::Between, b'/') => State::Between,
            (State::Named | State::Between, _) if is_space => self.state,
            (State::Attribute, _) => {
                grow(&mut self.attribute, byte);
                State::Attribute
            }
            (State::Named | State::Between, _) => {
                self.attribute = vec![byte.to_ascii_lowercase()];
                State::Attribute
            }
            (State::Equals, _) if is_space => State::Equals,
            (State::Equals, b'"' | b'\'') => {
                self.begin_value();
                State::Value(Some(byte))
            }
            // An unquoted value has been begun before.
            (State::Equals | State::Value(_) | State::Text, _) => State::Between,
        }
    }

    fn begin_value(&mut self) {
        let of_element = ADDRESSES.iter().find(|(name, _)| name.as_bytes() == self.name);
        let mut attributes = of_element.into_iter().flat_map(|(_, attributes)| *attributes);
        let matters = !self.is_end_tag && attributes.any(|name| name.as_bytes() == self.attribute);
        self.address = matters.then(Vec::new);
    }

    fn end_tag(&mut self) -> State {
        let is_raw = RAW.iter().any(|name| name.as_bytes() == self.name);
        if take(&mut self.is_end_tag) || !is_raw { State::Text } else { State::Raw(0) }
    }

    /// In an element without markup: `</`, its name, and the end of a name end it.
    fn raw(&mut self, matched: usize, byte: u8) -> State {
        let is_next = match matched {
            0 => byte == b'<',
            1 => byte == b'/',
            _ => self.name.get(matched - 2).is_some_and(|next| *next == byte.to_ascii_lowercase()),
        };
        let is_whole = matched == self.name.len() + 2 && self.name != b"plaintext";
        match byte {
            b'>' if is_whole => State::Text,
            _ if is_whole && (byte == b'/' || byte.is_ascii_whitespace()) => {
                self.is_end_tag = true;
                State::Between
            }
            _ if is_next => State::Raw(matched + 1),
            b'<' => State::Raw(1),
            _ => State::Raw(0),
        }
    }
}

/// Whether the byte comes behind a value rather than in it.
fn ends(byte: u8, quote: Option<u8>) -> bool {
    quote.map_or(byte.is_ascii_whitespace() || byte == b'>', |quote| byte == quote)
}

/// Keeps names as far as they may matter.
fn grow(name: &mut Vec<u8>, byte: u8) {
    if name.len() < NAME_MAX {
        name.push(byte.to_ascii_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::connect::links::tests::links;

    /// The page told in pieces of this length.
    fn told(page: &[u8], piece: usize) -> Vec<u8> {
        let (mut told, mut out) = (Page::default(), Vec::new());
        page.chunks(piece).for_each(|piece| told.push(piece, |address| links().through(address), &mut out));
        told.finish(&mut out);
        out
    }

    #[test]
    fn addresses_in_a_page_lead_through_the_proxy() {
        let far = format!("<a href=\"/{}\">", "x".repeat(ADDRESS_MAX));
        for (page, expected) in [
            ("<a href=\"/x?a&amp;b\">/x</a>", "<a href=\"/p/proxy/x?a&amp;b\">/x</a>"),
            ("<A\nid=1 HREF = '/x'>", "<A\nid=1 HREF = '/p/proxy/x'>"),
            ("<a href=/x>", "<a href=/p/proxy/x>"),
            ("<link rel=icon href=/x/>", "<link rel=icon href=/p/proxy/x/>"),
            ("<img alt='>' src='/x' usemap=\"#m\"/>", "<img alt='>' src='/p/proxy/x' usemap=\"#m\"/>"),
            ("<img href=/x a/src='/x'>", "<img href=/x a/src='/p/proxy/x'>"),
            ("<abbr href=/x><aa href=/x><a hrefs=/x>", "<abbr href=/x><aa href=/x><a hrefs=/x>"),
            ("</a href=/x><!a href=/x><?a href=/x>", "</a href=/x><!a href=/x><?a href=/x>"),
            ("<!-- > <a href=/x> -- --><q cite=/x>", "<!-- > <a href=/x> -- --><q cite=/p/proxy/x>"),
            ("<!--><q cite=/x>", "<!--><q cite=/p/proxy/x>"),
            ("1 <2 << <q cite=/x> </5 <a href=/x>", "1 <2 << <q cite=/p/proxy/x> </5 <a href=/x>"),
            (
                "<script src=/x>'<a href=/x></scrip>'</Script ><a href=/x>",
                "<script src=/p/proxy/x>'<a href=/x></scrip>'</Script ><a href=/p/proxy/x>",
            ),
            ("<style><a href=/x></style><a href=/x>", "<style><a href=/x></style><a href=/p/proxy/x>"),
            ("<title><<</title><a href=/x>", "<title><<</title><a href=/p/proxy/x>"),
            ("<plaintext></plaintext><a href=/x>", "<plaintext></plaintext><a href=/x>"),
            ("<a href=/x", "<a href=/x"),
            ("<a href><a href=><a href=\"\"><a href= /x>", "<a href><a href=><a href=\"\"><a href= /p/proxy/x>"),
            ("<a =/x href=/x>", "<a =/x href=/p/proxy/x>"),
            ("<a href=\"http://10.0.0.1/x\"><a href=\"http://b/x\">", "<a href=\"/p/proxy/x\"><a href=\"http://b/x\">"),
            (&far, &far),
        ] {
            for piece in [1, 2, 3, 7, page.len()] {
                assert_eq!(String::from_utf8(told(page.as_bytes(), piece)).unwrap(), expected, "{piece} of {page}");
            }
        }
    }

    proptest! {
        /// Whatever comes, however it is cut: the same goes on, and nothing but addresses is changed.
        #[test]
        fn pages_may_be_cut_anywhere(page in "[<>/!\\-a \"'=xhref\\n]{0,80}", piece in 1_usize..9) {
            let whole = told(page.as_bytes(), usize::MAX);
            prop_assert_eq!(&told(page.as_bytes(), piece), &whole);
            let back = String::from_utf8(whole).unwrap().replace("/p/proxy", "");
            prop_assert_eq!(back, page);
        }
    }
}
