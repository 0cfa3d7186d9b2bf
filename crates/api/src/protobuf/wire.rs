//! The wire format of protobuf: keys, varints and lengths (<https://protobuf.dev/programming-guides/encoding/>).

use super::Problem;

const CUT_SHORT: Problem = "unexpected EOF";
const WRONG_WIRE_TYPE: Problem = "wrong wireType";

/// A value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    /// Integers and booleans.
    Varint(u64),
    /// Strings, bytes, messages, packed lists.
    Bytes(&'a [u8]),
    /// Numbers of a fixed size, which no message here has.
    Fixed,
}

impl<'a> Wire<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Problem> {
        if let Wire::Bytes(bytes) = self { Ok(bytes) } else { Err(WRONG_WIRE_TYPE) }
    }

    pub(super) fn text(self) -> Result<&'a str, Problem> {
        std::str::from_utf8(self.bytes()?).map_err(|_| "string field contains invalid UTF-8")
    }

    pub(super) fn varint(self) -> Result<u64, Problem> {
        if let Wire::Varint(value) = self { Ok(value) } else { Err(WRONG_WIRE_TYPE) }
    }

    /// About how many bytes the value takes.
    pub(super) fn len(self) -> usize {
        if let Wire::Bytes(bytes) = self { bytes.len() } else { 1 }
    }
}

/// Reads field after field of one message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field: its number and value. Groups, which nobody has written for long, are an error.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Problem> {
        if self.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0).ok_or("illegal tag")?;
        let wire = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT_SHORT)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return Err("illegal wireType"),
        };
        Ok(Some((number, wire)))
    }

    /// Seven bits a byte, the lowest first; the last of at most ten bytes has its highest bit clear.
    pub(super) fn varint(&mut self) -> Result<u64, Problem> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("integer overflow")
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_one_by_one() {
        let mut reader =
            Reader::new(&[0x08, 0x96, 0x01, 0x12, 2, b'o', b'k', 0x1d, 0, 0, 0, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reader.next(), Ok(Some((1, Wire::Varint(150)))));
        assert_eq!(reader.next(), Ok(Some((2, Wire::Bytes(b"ok")))));
        assert_eq!(reader.next(), Ok(Some((3, Wire::Fixed))));
        assert_eq!(reader.next(), Ok(Some((4, Wire::Fixed))));
        assert_eq!(reader.next(), Ok(None));
    }

    #[test]
    fn broken_fields_are_told() {
        let cases: [(&str, &[u8], Problem); 7] = [
            ("a key without a value", &[0x08], CUT_SHORT),
            ("a key cut short", &[0x88], CUT_SHORT),
            ("a length beyond the end", &[0x12, 3, b'o', b'k'], CUT_SHORT),
            ("a length beyond everything", &[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], CUT_SHORT),
            (
                "eleven bytes of varint",
                &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
                "integer overflow",
            ),
            ("field 0", &[0x00, 1], "illegal tag"),
            ("a group", &[0x0b], "illegal wireType"),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).next(), Err(expected), "{name}");
        }
    }
}
