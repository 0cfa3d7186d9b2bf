//! Requests and responses as bytes: what is refused before it is looked at, and how much of an answer fits.

use hickory_proto::ProtoError;
use hickory_proto::op::Metadata;
use hickory_proto::op::{Edns, EmitAndCount, Message, MessageType, OpCode, Query, ResponseCode, emit_message_parts};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_proto::serialize::binary::BinEncoder;

/// The largest datagram we send and ask for: it fits into one packet everywhere (DNS flag day 2020).
pub const PAYLOAD_MAX: u16 = 1232;
/// What a datagram may carry to a client that says nothing (RFC 1035).
const PAYLOAD_MIN: u16 = 512;
/// The fixed part of every message.
const HEADER_BYTES: usize = 12;
/// An OPT record without options.
const OPT_BYTES: u16 = 11;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream of messages, each with its length before it.
    Tcp,
}

/// A request that can be answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was sent.
    pub message: Message,
    /// Its only question.
    pub query: Query,
}

/// Reads a request. The error is the answer to one that cannot be read or is not served: nothing for what is no request
/// at all.
pub fn read(bytes: &[u8]) -> Result<Request, Option<Box<Message>>> {
    let Ok(message) = Message::from_vec(bytes) else {
        let is_query = bytes.len() >= HEADER_BYTES && bytes[2] & 0x80 == 0;
        let id = u16::from_be_bytes([*bytes.first().ok_or(None)?, *bytes.get(1).ok_or(None)?]);
        return Err(is_query.then(|| Box::new(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))));
    };
    if message.metadata.message_type != MessageType::Query {
        return Err(None);
    }
    if message.metadata.op_code != OpCode::Query {
        return Err(Some(Box::new(failure(&message, ResponseCode::NotImp))));
    }
    let [query] = message.queries.as_slice() else {
        return Err(Some(Box::new(failure(&message, ResponseCode::FormErr))));
    };
    if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(Some(Box::new(failure(&message, ResponseCode::BADVERS))));
    }
    let transfer = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR);
    if transfer || query.query_class != DNSClass::IN {
        return Err(Some(Box::new(failure(&message, ResponseCode::Refused))));
    }
    Ok(Request { query: query.clone(), message })
}

/// A response to `request` without records.
pub fn failure(request: &Message, code: ResponseCode) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.metadata.response_code = code;
    response.queries.clone_from(&request.queries);
    // Who speaks EDNS is answered in it (RFC 6891, 6.1.1).
    response.edns = request.edns.as_ref().map(|edns| own_edns(edns.flags().dnssec_ok));
    response
}

/// What we say about ourselves.
pub fn own_edns(dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_MAX).set_version(0).set_dnssec_ok(dnssec_ok);
    edns
}

/// The bytes of `response` for a client that sent `request`: as many records as fit, with the truncation bit where an
/// answer is not whole, so that the client asks again over TCP. Clients that cannot have some addresses at least.
pub fn write(response: &Message, request: Option<&Message>, transport: Transport) -> Option<Vec<u8>> {
    let limit = match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => {
            let told = request.and_then(|r| r.edns.as_ref()).map_or(PAYLOAD_MIN, Edns::max_payload);
            told.clamp(PAYLOAD_MIN, PAYLOAD_MAX)
        }
    };
    encode(response, limit).inspect_err(|error| tracing::debug!(%error, "an answer that cannot be written")).ok()
}

fn encode(message: &Message, limit: u16) -> Result<Vec<u8>, ProtoError> {
    let mut bytes = Vec::with_capacity(usize::from(PAYLOAD_MIN));
    let opt = message.edns.clone().map(|mut edns| {
        edns.set_rcode_high(message.metadata.response_code.high());
        Record::from(&edns)
    });
    {
        let mut encoder = BinEncoder::new(&mut bytes);
        // Room for the record about the message itself is kept to the end.
        encoder.set_max_size(if opt.is_some() { limit - OPT_BYTES } else { limit });
        emit_message_parts(
            &message.metadata,
            &mut message.queries.iter(),
            &mut message.answers.iter(),
            &mut message.authorities.iter(),
            &mut Rest { additionals: &message.additionals, opt, limit },
            None,
            None,
            &mut encoder,
        )?;
    }
    Ok(bytes)
}

/// What comes last: additional records, which may be left out without a word, and the OPT record, which may not.
struct Rest<'a> {
    additionals: &'a [Record],
    opt: Option<Record>,
    limit: u16,
}

impl EmitAndCount for Rest<'_> {
    fn emit(&mut self, encoder: &mut BinEncoder<'_>) -> Result<usize, ProtoError> {
        let mut count = match encoder.emit_all(self.additionals.iter()) {
            Ok(count) | Err(ProtoError::NotAllRecordsWritten { count, .. }) => count,
            Err(error) => return Err(error),
        };
        encoder.set_max_size(self.limit);
        count += encoder.emit_all(self.opt.iter())?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::A;
    use hickory_proto::rr::{Name, RData};

    use super::*;

    fn request(change: impl FnOnce(&mut Message)) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("web.shop.svc.cluster.local.").unwrap(), RecordType::A));
        change(&mut message);
        message
    }

    fn edns(payload: u16) -> Edns {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        edns
    }

    #[test]
    fn what_cannot_be_answered_is_refused_by_name() {
        type Change = fn(&mut Message);
        let table: [(&str, Change, Option<ResponseCode>); 7] = [
            ("a notification", |m| m.metadata.op_code = OpCode::Notify, Some(ResponseCode::NotImp)),
            ("no question", |m| m.queries.clear(), Some(ResponseCode::FormErr)),
            ("two questions", |m| m.queries.push(m.queries[0].clone()), Some(ResponseCode::FormErr)),
            ("a transfer", |m| m.queries[0].query_type = RecordType::AXFR, Some(ResponseCode::Refused)),
            ("another class", |m| m.queries[0].query_class = DNSClass::CH, Some(ResponseCode::Refused)),
            (
                "EDNS of tomorrow",
                |m| {
                    m.edns = Some({
                        let mut e = edns(512);
                        e.set_version(1);
                        e
                    })
                },
                Some(ResponseCode::BADVERS),
            ),
            ("an answer", |m| m.metadata.message_type = MessageType::Response, None),
        ];
        for (sentence, change, expected) in table {
            let bytes = request(change).to_vec().unwrap();
            let refused = read(&bytes).expect_err(sentence);
            assert_eq!(refused.as_ref().map(|m| m.metadata.response_code), expected, "{sentence}");
            let Some(refused) = refused else { continue };
            let bytes = write(&refused, None, Transport::Udp).unwrap();
            assert_eq!(Message::from_vec(&bytes).unwrap().metadata.id, 7, "{sentence}");
        }
        assert!(read(&[]).unwrap_err().is_none());
        assert!(read(&[1, 2, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap_err().is_none(), "a broken answer");
        let broken = read(&[1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap_err().unwrap();
        assert_eq!((broken.metadata.id, broken.metadata.response_code), (0x0102, ResponseCode::FormErr));
    }

    #[test]
    fn as_much_is_sent_as_the_client_takes() {
        let table = [
            ("no EDNS", None, Transport::Udp, 512, true),
            ("a small buffer", Some(100), Transport::Udp, 512, true),
            ("a large buffer", Some(4096), Transport::Udp, 1232, true),
            ("a stream", Some(512), Transport::Tcp, 65_535, false),
        ];
        for (sentence, payload, transport, limit, truncated) in table {
            let request = request(|m| m.edns = payload.map(edns));
            let mut response = failure(&request, ResponseCode::NoError);
            let name = request.queries[0].name.clone();
            for i in 0..100u8 {
                response.add_answer(Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 244, 0, i))));
            }
            let bytes = write(&response, Some(&request), transport).unwrap();
            let read = Message::from_vec(&bytes).unwrap();
            assert!(bytes.len() <= limit && (!truncated || bytes.len() > limit - 32), "{sentence}: {}", bytes.len());
            assert_eq!(read.metadata.truncation, truncated, "{sentence}");
            assert_eq!(read.edns.is_some(), payload.is_some(), "{sentence}");
        }
    }

    #[test]
    fn additional_records_are_left_out_without_a_word() {
        let request = request(|_| {});
        let mut response = failure(&request, ResponseCode::NoError);
        let name = request.queries[0].name.clone();
        response.add_answer(Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 244, 0, 1))));
        for i in 0..100u8 {
            response.add_additional(Record::from_rdata(name.clone(), 5, RData::A(A::new(10, 244, 0, i))));
        }
        let read = Message::from_vec(&write(&response, Some(&request), Transport::Udp).unwrap()).unwrap();
        assert!(!read.metadata.truncation && !read.additionals.is_empty() && read.answers.len() == 1);
    }
}
