//! From the position of a decoder's error to the path of the field it is about.

/// How many bytes the decoder had read when it failed.
pub(super) fn consumed(bytes: &[u8], error: &serde_json::Error) -> usize {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => {
            let mut newlines = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n');
            newlines.nth(line - 2).map_or(0, |(i, _)| i + 1)
        }
    };
    (line_start + error.column()).min(bytes.len())
}

/// One open object or list.
enum Frame {
    Object { key: String, key_next: bool },
    List { index: usize },
}

/// The path of the value that begins last within the first `consumed` bytes of JSON text: `spec.ports[0].port`.
pub(super) fn path(bytes: &[u8], consumed: usize) -> String {
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at < consumed.min(bytes.len()) {
        let next = match bytes[at] {
            b'"' => string_end(bytes, at),
            _ => at + 1,
        };
        match (bytes[at], frames.last_mut()) {
            (b'{', _) => frames.push(Frame::Object { key: String::new(), key_next: true }),
            (b'[', _) => frames.push(Frame::List { index: 0 }),
            (b'}' | b']', _) => drop(frames.pop()),
            (b'"', Some(Frame::Object { key, key_next: true })) => {
                *key = serde_json::from_slice(&bytes[at..next]).unwrap_or_default();
            }
            (b':', Some(Frame::Object { key_next, .. })) => *key_next = false,
            (b',', Some(Frame::Object { key_next, .. })) => *key_next = true,
            (b',', Some(Frame::List { index })) => *index += 1,
            _ => {}
        }
        at = next;
    }
    render(&frames, bytes.get(at.wrapping_sub(1)))
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

fn render(frames: &[Frame], last: Option<&u8>) -> String {
    // A bracket that has just been opened is the value itself, not yet one of its members.
    let just_opened = matches!(last, Some(b'{' | b'['));
    let frames = if just_opened { &frames[..frames.len().saturating_sub(1)] } else { frames };
    let mut path = String::new();
    for frame in frames {
        match frame {
            Frame::Object { key, .. } if key.is_empty() => {}
            Frame::Object { key, .. } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Frame::List { index } => path.push_str(&format!("[{index}]")),
        }
    }
    path
}
