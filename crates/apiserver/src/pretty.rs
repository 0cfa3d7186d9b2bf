//! JSON indented for people (`isPrettyPrint` in `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`): to those who ask
//! with `?pretty=true`, and to browsers, curl and Wget.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http_body::{Body as _, Frame};

use crate::query::Query;
use crate::respond::ApiResponse;

/// What programs that people sit at call themselves.
const AGENTS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Whether what is at `path` is indented for everyone (`WriteRawJSON`).
pub(crate) fn is_always(path: &str) -> bool {
    matches!(path, "" | "/" | "/version" | "/version/")
}

/// Whether answers to a request are for people to read.
pub(crate) fn is_wanted(query: Option<&str>, headers: &HeaderMap) -> bool {
    if let Some(asked) = query.filter(|q| q.contains("pretty")).and_then(|q| said(&Query::parse(Some(q)))) {
        return asked;
    }
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or("");
    AGENTS.iter().any(|known| agent.starts_with(known))
}

/// What the query says about it, in the words of Go's `ParseBool`.
fn said(query: &Query) -> Option<bool> {
    query.get("pretty").map(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

/// The answer, indented if it is JSON. Streams without an end and compressed answers stay as they are.
pub(crate) fn respond(response: ApiResponse) -> ApiResponse {
    let headers = response.headers();
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let has_end = response.body().size_hint().exact().is_some();
    if !is_json || !has_end || headers.contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    ApiResponse::from_parts(parts, Body::new(Indented { body, indent: Indent::default(), has_ended: false }))
}

/// A body that is indented as it goes out.
struct Indented {
    body: Body,
    indent: Indent,
    has_ended: bool,
}

impl http_body::Body for Indented {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            if self.has_ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let text = self.indent.part(&data);
                    return Poll::Ready(Some(Ok(Frame::data(text.into()))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.has_ended = true,
            }
        }
    }

    /// At least what is indented.
    fn size_hint(&self) -> http_body::SizeHint {
        let mut hint = http_body::SizeHint::new();
        hint.set_lower(self.body.size_hint().lower());
        hint
    }
}

/// Where in a JSON text the indenting is, between one part of it and the next.
#[derive(Default)]
struct Indent {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// An object or a list has been opened, and it may be empty.
    is_open: bool,
}

impl Indent {
    /// The next part with two spaces for each level, as Go's `MarshalIndent`.
    fn part(&mut self, part: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(part.len() + part.len() / 2);
        for byte in part {
            self.byte(*byte, &mut out);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            out.push(byte);
            (self.in_string, self.is_escaped) = match byte {
                _ if self.is_escaped => (true, false),
                b'\\' => (true, true),
                other => (other != b'"', false),
            };
            return;
        }
        if byte.is_ascii_whitespace() {
            return;
        }
        let ends = matches!(byte, b'}' | b']');
        if ends {
            self.depth = self.depth.saturating_sub(1);
        }
        if self.is_open != ends {
            self.line(out);
        }
        self.is_open = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b'{' | b'[' => self.depth += 1,
            b'"' => self.in_string = true,
            b':' => out.push(b' '),
            b',' => self.line(out),
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * self.depth));
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::respond;

    #[test]
    fn people_get_it_indented_and_programs_when_they_ask() {
        let cases = [
            ("", "curl/8.5.0", true),
            ("watch=0&pretty=false", "curl/8.5.0", false),
            ("pretty=1", "kubectl/v1.33.1", true),
            ("pretty=maybe", "curl/8.5.0", false),
            ("pretty=", "Mozilla/5.0 (X11)", true),
            ("labelSelector=pretty", "kubectl/v1.33.1", false),
            ("", "Go-http-client/2.0", false),
        ];
        for (query, agent, expected) in cases {
            let headers = [(USER_AGENT, HeaderValue::from_static(agent))].into_iter().collect();
            assert_eq!(is_wanted(Some(query), &headers), expected, "{query} {agent}");
        }
    }

    fn indented(value: &Value, part: usize) -> String {
        let (mut indent, text) = (Indent::default(), value.to_string());
        let parts = text.as_bytes().chunks(part).flat_map(|part| indent.part(part)).collect();
        String::from_utf8(parts).unwrap()
    }

    #[test]
    fn what_is_empty_stays_on_its_line_and_strings_stay_as_they_are() {
        let value = json!({"a": {}, "b": [], "c": "{\"x\": [1, 2]}\\", "d": [{"e": null}, -1.5, [[]]]});
        for size in 1..9 {
            assert_eq!(indented(&value, size), serde_json::to_string_pretty(&value).unwrap(), "{size}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_json_is_indented_as_by_the_library(text in "[a-z{}\\[\\],:\"\\\\ é]{0,12}", part in 1usize..20) {
            let value = json!({text.clone(): [text.clone(), {"in": [true, {}, text]}]});
            proptest::prop_assert_eq!(indented(&value, part), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[tokio::test]
    async fn only_json_with_an_end_is_indented() {
        let answer = respond(respond::json(StatusCode::OK, &json!({"a": 1})));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "{\n  \"a\": 1\n}");
        let answer = respond(respond::text(StatusCode::OK, "{\"a\":1}"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "{\"a\":1}");
    }
}
