//! Header blocks: names and values, compressed with zlib. One compressor and one decompressor live as long as the
//! session, both begin with a dictionary the protocol gives (draft-mbelshe-httpbis-spdy-00, 2.6.10).

use std::sync::LazyLock;

use bytes::{Buf, BufMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::frame::Error;

/// The most bytes a header block may unfold to.
const MAX_BLOCK_BYTES: usize = 64 << 10;

/// Words of the dictionary, each preceded by its length.
const WORDS: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// What follows them.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,\
publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::new();
    for word in WORDS {
        put_text(&mut dictionary, word);
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

/// The headers of a stream; names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// The value of `name`, given in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn unfold(mut block: &[u8]) -> Result<Headers, Error> {
        let count = block.try_get_u32().map_err(|_| Error::Headers)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = get_text(&mut block)?.to_ascii_lowercase();
            headers.push((name, get_text(&mut block)?));
        }
        Ok(Headers(headers))
    }

    fn fold(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(u32::try_from(self.0.len()).expect("we send a handful"));
        for (name, value) in &self.0 {
            put_text(&mut block, name);
            put_text(&mut block, value);
        }
        block
    }
}

fn get_text(block: &mut &[u8]) -> Result<String, Error> {
    let length = block.try_get_u32().map_err(|_| Error::Headers)? as usize;
    let (text, rest) = block.split_at_checked(length).ok_or(Error::Headers)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Error::Headers)
}

fn put_text(block: &mut Vec<u8>, text: &str) {
    block.put_u32(u32::try_from(text.len()).expect("no header of ours has 4 GiB"));
    block.extend_from_slice(text.as_bytes());
}

/// Unfolds every header block of one direction, in order.
pub(super) struct Decompressor(Decompress);

impl Decompressor {
    pub(super) fn new() -> Decompressor {
        Decompressor(Decompress::new(true))
    }

    pub(super) fn headers(&mut self, mut compressed: &[u8]) -> Result<Headers, Error> {
        let mut block = Vec::with_capacity(1024);
        loop {
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let result = self.0.decompress_vec(compressed, &mut block, FlushDecompress::Sync);
            let consumed = (self.0.total_in() - before_in) as usize;
            compressed = compressed.get(consumed..).ok_or(Error::Headers)?;
            match result {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| Error::Headers)?;
                    continue;
                }
                Err(_) => return Err(Error::Headers),
            }
            if block.len() > MAX_BLOCK_BYTES {
                return Err(Error::TooLarge);
            }
            let full = block.len() == block.capacity();
            let progressed = consumed > 0 || self.0.total_out() > before_out;
            if full {
                block.reserve(block.len());
            } else if compressed.is_empty() || !progressed {
                break;
            }
        }
        Headers::unfold(&block)
    }
}

/// Folds every header block of one direction, in order.
pub(super) struct Compressor(Compress);

impl Compressor {
    pub(super) fn new() -> Compressor {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&DICTIONARY).expect("a new compressor takes any dictionary");
        Compressor(compress)
    }

    pub(super) fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let plain = headers.fold();
        // Deflate never grows its input by more than a few bytes in each block; a sync flush adds some.
        let mut compressed = Vec::with_capacity(plain.len() + plain.len() / 100 + 64);
        let mut rest = plain.as_slice();
        loop {
            let before = self.0.total_in();
            let flushed = self.0.compress_vec(rest, &mut compressed, FlushCompress::Sync);
            rest = &rest[(self.0.total_in() - before) as usize..];
            let done = rest.is_empty() && compressed.len() < compressed.capacity();
            if done || flushed.is_err() {
                return compressed;
            }
            compressed.reserve(64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dictionary_is_the_protocols() {
        let (mut a, mut b) = (1_u32, 0_u32);
        for byte in DICTIONARY.iter() {
            a = (a + u32::from(*byte)) % 65_521;
            b = (b + a) % 65_521;
        }
        assert_eq!((DICTIONARY.len(), (b << 16) | a), (1423, 0xe3c6_a7c2), "its Adler-32 is what zlib streams name");
    }

    #[test]
    fn blocks_are_folded_and_unfolded_in_order() {
        let (mut compressor, mut decompressor) = (Compressor::new(), Decompressor::new());
        for size in [0, 1, 10, 3000, 50_000] {
            let text = "x".repeat(size);
            let headers = Headers(vec![("streamtype".into(), "stdin".into()), ("port".into(), text)]);
            assert_eq!(decompressor.headers(&compressor.block(&headers)), Ok(headers), "{size}");
        }
    }

    #[test]
    fn bombs_and_nonsense_are_refused() {
        let bomb = Headers(vec![("a".into(), "x".repeat(MAX_BLOCK_BYTES * 10))]);
        let folded = Compressor::new().block(&bomb);
        assert!(folded.len() < 10_000);
        assert_eq!(Decompressor::new().headers(&folded), Err(Error::TooLarge));
        assert_eq!(Decompressor::new().headers(b"nonsense"), Err(Error::Headers));
        assert_eq!(Decompressor::new().headers(b""), Err(Error::Headers));
        let mut short = Vec::new();
        short.put_u32(u32::MAX);
        assert_eq!(Headers::unfold(&short), Err(Error::Headers), "more headers announced than there are");
    }
}
