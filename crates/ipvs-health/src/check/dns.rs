//! A question to a name server by UDP, and whether its answer is the right one.

use std::net::SocketAddr;
use std::str::FromStr as _;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use ipvs_config::check::{Check, Dns, RCODES};

use super::{Failure, connect};

/// Octets of a datagram.
const LONGEST: usize = 4096;

pub(super) async fn check(check: &Check, dns: &Dns, at: SocketAddr) -> Result<(), Failure> {
    let unmade = |error: &dyn std::fmt::Display| Failure::Unmade(format!("{}: {error}", dns.name));
    let mut name = Name::from_ascii(&dns.name).map_err(|error| unmade(&error))?;
    // With a point at its end or without.
    name.set_fqdn(true);
    let kind = RecordType::from_str(&dns.record).map_err(|error| unmade(&error))?;
    let mut request = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    request.metadata.recursion_desired = true;
    request.add_query(Query::query(name, kind));
    let octets = request.to_vec().map_err(|error| unmade(&error))?;
    let socket = connect::udp(check, at).await?;
    let lost = |error: std::io::Error| Failure::of_io(&error);
    socket.send(&octets).await.map_err(lost)?;
    let mut answer = [0; LONGEST];
    loop {
        let len = socket.recv(&mut answer).await.map_err(lost)?;
        let octets = answer.get(..len).unwrap_or_default();
        let Ok(answer) = Message::from_vec(octets) else {
            return Err(Failure::Wrong(format!("{len} octets that are no message of DNS")));
        };
        // What answers an earlier question is none of this one.
        if answer.metadata.id == request.metadata.id
            && answer.metadata.message_type == MessageType::Response
            && answer.queries == request.queries
        {
            return judge(&answer, dns, kind);
        }
    }
}

fn judge(answer: &Message, dns: &Dns, kind: RecordType) -> Result<(), Failure> {
    let code = u16::from(answer.metadata.response_code);
    let said = RCODES.iter().find(|(_, number)| *number == code).map(|(name, _)| *name);
    if said != Some(dns.rcode.as_str()) {
        let said = said.map_or_else(|| format!("response code {code}"), str::to_owned);
        return Err(Failure::Wrong(said));
    }
    let Some(expected) = &dns.answer else { return Ok(()) };
    let records = answer.answers.iter().filter(|record| record.record_type() == kind);
    let said: Vec<String> = records.map(|record| record.data.to_string()).collect();
    let trimmed = |text: &str| text.trim_end_matches('.').trim_matches('"').to_owned();
    if said.iter().any(|record| trimmed(record) == trimmed(expected)) {
        return Ok(());
    }
    let said = if said.is_empty() { "no such record".to_owned() } else { said.join(", ") };
    Err(Failure::Wrong(format!("{said}, not {expected}")))
}
