//! What a file says of a check: what is asked, and what is to be answered.

use toml::Spanned;

use crate::check::{
    Agent, Certificate, CheckKind, Dns, Exec, Expected, Grpc, Http, RCODES, RECORDS, Smtp, Tls,
    Udp, is_pattern,
};
use crate::file::{self, NumberOrText};
use crate::read::{Read, choice, wrong};

/// The longest payload: what one datagram may have.
const LONGEST: usize = 1400;

/// The check of this type.
pub(crate) fn kind(name: &str, given: &Spanned<file::Check>) -> Read<CheckKind> {
    let it = given.get_ref();
    let is_set = |given: &Option<Spanned<bool>>| given.as_ref().is_some_and(|it| *it.get_ref());
    Ok(match name {
        "tcp" => CheckKind::Tcp,
        "tls" => {
            let days = it.days.as_ref().map_or(0, |days| *days.get_ref());
            CheckKind::Tls(Certificate { tls: tls(it)?, days })
        }
        "dns" => CheckKind::Dns(dns(it)?),
        "udp" => CheckKind::Udp(udp(it)?),
        "smtp" => CheckKind::Smtp(smtp(it)?),
        "grpc" => {
            let service = it.service.as_ref().map_or("", |it| it.get_ref());
            if let Some(given) = it.service.as_ref().filter(|_| service.len() > 127) {
                return wrong(given, "the name of a service has at most 127 octets");
            }
            let tls = if is_set(&it.tls) { Some(tls(it)?) } else { None };
            if let (None, Some(given)) = (&tls, it.sni.as_ref().or(it.ca_file.as_ref())) {
                return wrong(given, "this needs `tls = true`");
            }
            if let (None, Some(given)) = (&tls, &it.verify) {
                return wrong(given, "this needs `tls = true`");
            }
            CheckKind::Grpc(Grpc { service: service.to_owned(), tls })
        }
        "agent" => {
            if it.port.is_none() {
                return wrong(given, "an agent needs a port: it is not at the service's");
            }
            CheckKind::Agent(Agent { send: it.send.as_ref().map(|text| text.get_ref().clone()) })
        }
        "exec" => CheckKind::Exec(exec(given, is_set(&it.dynamic))?),
        name => CheckKind::Http(http(it, name == "https")?),
    })
}

fn http(it: &file::Check, within_tls: bool) -> Read<Http> {
    let mut method = "GET".to_owned();
    if let Some(given) = &it.method {
        method.clone_from(given.get_ref());
        if http::Method::from_bytes(method.as_bytes()).is_err() {
            return wrong(given, format!("`{method}` is no method of HTTP"));
        }
    }
    let mut path = "/".to_owned();
    if let Some(given) = &it.path {
        path.clone_from(given.get_ref());
        if !path.starts_with('/') || path.parse::<http::Uri>().is_err() {
            return wrong(given, "a path begins with / and has no spaces");
        }
    }
    if let Some(host) = &it.host
        && (host.get_ref().is_empty() || host.get_ref().parse::<http::uri::Authority>().is_err())
    {
        return wrong(host, format!("`{}` is no name of a host", host.get_ref()));
    }
    let status = match &it.status {
        None => vec![Http::STATUS],
        Some(list) if list.get_ref().is_empty() => {
            return wrong(list, "a status is missing: no answer would be right");
        }
        Some(list) => list.get_ref().iter().map(statuses).collect::<Read<_>>()?,
    };
    let body = it.body.as_ref().map(pattern).transpose()?;
    let host = it.host.as_ref().map(|host| host.get_ref().clone());
    let tls = within_tls.then(|| tls(it)).transpose()?;
    Ok(Http { method, path, host, status, body, tls })
}

fn tls(it: &file::Check) -> Read<Tls> {
    let sni = it.sni.as_ref().map(|name| name.get_ref().clone());
    if let Some(given) = it.sni.as_ref()
        && (given.get_ref().is_empty() || given.get_ref().contains([' ', '/', ':']))
    {
        return wrong(given, format!("`{}` is no name of a host", given.get_ref()));
    }
    let verify = it.verify.as_ref().is_none_or(|given| *given.get_ref());
    if let Some(given) = it.ca_file.as_ref() {
        if !verify {
            return wrong(given, "with `verify = false` nobody has to have signed anything");
        }
        if !given.get_ref().starts_with('/') {
            return wrong(given, "this is no path from the root on");
        }
    }
    let ca_file = it.ca_file.as_ref().map(|path| path.get_ref().into());
    Ok(Tls { sni, verify, ca_file })
}

/// A regular expression.
fn pattern(given: &Spanned<String>) -> Read<String> {
    let text = given.get_ref();
    match is_pattern(text) {
        Ok(()) => Ok(text.clone()),
        Err(why) => wrong(given, why),
    }
}

/// A status, or `FROM-TO`.
fn statuses(given: &Spanned<NumberOrText>) -> Read<(u16, u16)> {
    let text = given.get_ref().text();
    let (from, to) = text.split_once('-').unwrap_or((&text, &text));
    let number = |text: &str| text.parse().ok().filter(|number| (100..=999).contains(number));
    match (number(from), number(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => wrong(given, format!("`{text}` is no status of HTTP: one as 204, or two as 200-299")),
    }
}

fn dns(it: &file::Check) -> Read<Dns> {
    let name = it.name.as_ref().map_or(".", |name| name.get_ref());
    let is_label = |label: &str| !label.is_empty() && label.len() <= 63;
    let is_name = name == "." || name.strip_suffix('.').unwrap_or(name).split('.').all(is_label);
    if let Some(given) = it.name.as_ref().filter(|_| {
        !is_name || name.len() > 253 || !name.bytes().all(|octet| octet.is_ascii_graphic())
    }) {
        return wrong(given, format!("`{name}` is no name of DNS"));
    }
    let record = match &it.record {
        None => "SOA",
        Some(given) => choice("type of record", given, &RECORDS.map(|name| (name, name)))?,
    };
    let rcode = match &it.rcode {
        None => "NOERROR",
        Some(given) => choice("response code", given, &RCODES.map(|(name, _)| (name, name)))?,
    };
    let answer = it.answer.as_ref().map(|answer| answer.get_ref().clone());
    Ok(Dns { name: name.to_owned(), record: record.to_owned(), rcode: rcode.to_owned(), answer })
}

fn udp(it: &file::Check) -> Read<Udp> {
    let payload = match (&it.payload, &it.payload_hex) {
        (Some(_), Some(given)) => return wrong(given, "there is a payload already"),
        (Some(text), None) => text.get_ref().clone().into_bytes(),
        (None, Some(given)) => {
            let octets = octets(given)?;
            if octets.iter().any(|(_, mask)| *mask != 0xff) {
                return wrong(given, "a payload has no x");
            }
            octets.into_iter().map(|(octet, _)| octet).collect()
        }
        (None, None) => Vec::new(),
    };
    if let Some(given) =
        it.payload.as_ref().or(it.payload_hex.as_ref()).filter(|_| payload.len() > LONGEST)
    {
        return wrong(given, format!("a payload has at most {LONGEST} octets"));
    }
    let reply = match (&it.reply, &it.reply_hex) {
        (Some(_), Some(given)) => return wrong(given, "there is a reply already"),
        (Some(given), None) => Some(Expected::Pattern(pattern(given)?)),
        (None, Some(given)) => Some(Expected::Octets(octets(given)?)),
        (None, None) => None,
    };
    let require_reply = it.require_reply.as_ref().is_none_or(|given| *given.get_ref());
    Ok(Udp { payload, require_reply, reply })
}

/// Octets in hexadecimal digits, with spaces or without; of a digit `x` nothing counts.
fn octets(given: &Spanned<String>) -> Read<Vec<(u8, u8)>> {
    let digits: Vec<char> = given.get_ref().chars().filter(|it| !it.is_whitespace()).collect();
    let digit = |digit: char| match digit {
        'x' | 'X' => Some((0, 0)),
        digit => Some((u8::try_from(digit.to_digit(16)?).ok()?, 0xf)),
    };
    let pair = |pair: &[char]| match *pair {
        [high, low] => {
            let ((high, high_mask), (low, low_mask)) = (digit(high)?, digit(low)?);
            Some((high << 4 | low, high_mask << 4 | low_mask))
        }
        _ => None,
    };
    match digits.chunks(2).map(pair).collect::<Option<Vec<_>>>() {
        Some(octets) => Ok(octets),
        None => wrong(given, "these are no octets of two hexadecimal digits each"),
    }
}

fn smtp(it: &file::Check) -> Read<Smtp> {
    let helo = it.helo.as_ref().map_or("localhost", |name| name.get_ref());
    if let Some(given) = it.helo.as_ref().filter(|_| {
        helo.is_empty() || helo.len() > 255 || !helo.bytes().all(|octet| octet.is_ascii_graphic())
    }) {
        return wrong(given, format!("`{helo}` is no name of a host"));
    }
    Ok(Smtp { helo: helo.to_owned() })
}

fn exec(given: &Spanned<file::Check>, dynamic: bool) -> Read<Exec> {
    let it = given.get_ref();
    let Some(command) = &it.command else {
        return wrong(given, "a check of type `exec` needs a command");
    };
    if !command.get_ref().first().is_some_and(|path| path.starts_with('/')) {
        return wrong(command, "a command begins with the path of a program, from the root on");
    }
    if command.get_ref().iter().any(|word| word.contains('\0')) {
        return wrong(command, "a command has no NUL");
    }
    let name = |given: &Option<Spanned<String>>, default: &str| match given {
        None => Ok(default.to_owned()),
        Some(given) => {
            let name = given.get_ref();
            let is_name = |octet: u8| octet.is_ascii_alphanumeric() || b"_-.$".contains(&octet);
            if name.is_empty() || name.starts_with('-') || !name.bytes().all(is_name) {
                return wrong(given, format!("`{name}` is no name of a user or group"));
            }
            Ok(name.clone())
        }
    };
    let (user, group) = (name(&it.user, "nobody")?, name(&it.group, "nogroup")?);
    Ok(Exec { command: command.get_ref().clone(), user, group, dynamic })
}
