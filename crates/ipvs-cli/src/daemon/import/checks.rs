//! The health checks of a `keepalived.conf`.

use std::net::IpAddr;
use std::time::Duration;

use ipvs_config::check::{
    Check, CheckKind, Dns, Exec, Expected, Http, RECORDS, Smtp, Timing, Tls, Udp, is_pattern,
};

use super::Import;
use super::blocks::Item;

/// The checkers that there are checks of ours for.
pub(super) const CHECKERS: [&str; 7] =
    ["TCP_CHECK", "HTTP_GET", "SSL_GET", "SMTP_CHECK", "DNS_CHECK", "UDP_CHECK", "MISC_CHECK"];

/// What is the same for all checks of a virtual or real server, unless a checker says otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    delay_loop: Option<Duration>,
    delay_before_retry: Option<Duration>,
    connect_timeout: Option<Duration>,
    retry: Option<u32>,
    virtualhost: Option<String>,
}

impl Defaults {
    /// Takes an option that it is about; `None` if it is about something else.
    pub(super) fn take(&mut self, item: &Item) -> Option<Result<(), String>> {
        let words = item.rest();
        let time = |place: &mut Option<Duration>| {
            *place = Some(timer(&words)?);
            Ok(())
        };
        Some(match item.name() {
            "delay_loop" => time(&mut self.delay_loop),
            "delay_before_retry" => time(&mut self.delay_before_retry),
            "connect_timeout" => time(&mut self.connect_timeout),
            "retry" | "nb_get_retry" => match words[..] {
                [count] => count.parse().map_err(|_bad| "no number".to_owned()).map(|count| {
                    self.retry = Some(count);
                }),
                _ => Err("one number".into()),
            },
            "virtualhost" => match words[..] {
                [name] => {
                    self.virtualhost = Some(name.to_owned());
                    Ok(())
                }
                _ => Err("one name".into()),
            },
            "warmup" => Err("checks begin at once".into()),
            _ => return None,
        })
    }

    fn timing(&self, checker: &str) -> Timing {
        let interval = self.delay_loop.unwrap_or(Duration::from_mins(1));
        let (retry, pause) = match checker {
            "DNS_CHECK" => (3, interval),
            "MISC_CHECK" => (0, Duration::from_secs(1)),
            "HTTP_GET" | "SSL_GET" => (1, Duration::from_secs(3)),
            _ => (1, Duration::from_secs(1)),
        };
        let retry_interval = self.delay_before_retry.unwrap_or(pause);
        Timing {
            interval: interval.max(LEAST),
            retry_interval: retry_interval.max(LEAST),
            timeout: self.connect_timeout.unwrap_or(Duration::from_secs(5)),
            rise: 1,
            fall: self.retry.unwrap_or(retry).saturating_add(1),
            ..Timing::default()
        }
    }
}

/// No check of ours is made more often.
const LEAST: Duration = Duration::from_millis(100);

/// A time in seconds, with a point or without.
fn timer(words: &[&str]) -> Result<Duration, String> {
    let [word] = words else { return Err("one time in seconds".into()) };
    match word.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => {
            let time = Duration::from_secs_f64(seconds);
            // As exactly as a file of ours can say it.
            Ok(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(0)))
        }
        _ => Err("no time in seconds".into()),
    }
}

/// The checks that a checker of a real server at `port` stands for.
pub(super) fn checks(
    import: &mut Import,
    item: &Item,
    of: &Defaults,
    port: Option<u16>,
) -> Vec<Check> {
    let mut reader = Checker {
        defaults: of.clone(),
        check: Check {
            kind: CheckKind::Tcp,
            address: None,
            port,
            source: None,
            mark: 0,
            timing: Timing::default(),
        },
        timeout: None,
        urls: Vec::new(),
        has_sni: false,
    };
    let name = item.name();
    reader.check.kind = match name {
        "SMTP_CHECK" => CheckKind::Smtp(Smtp { helo: "localhost".into() }),
        "DNS_CHECK" => CheckKind::Dns(Dns {
            name: ".".into(),
            record: "SOA".into(),
            rcode: "NOERROR".into(),
            answer: None,
        }),
        "UDP_CHECK" => {
            CheckKind::Udp(Udp { payload: Vec::new(), require_reply: false, reply: None })
        }
        "MISC_CHECK" => CheckKind::Exec(Exec {
            command: Vec::new(),
            user: "nobody".into(),
            group: "nogroup".into(),
            dynamic: false,
        }),
        _ => CheckKind::Tcp,
    };
    for item in item.block.iter().flatten() {
        if item.name() == "url" {
            let url = Checker::url(import, item, name == "SSL_GET");
            reader.urls.push(url);
        } else if let Err(why) = reader.take(item) {
            import.leave_out(&item.place, format!("{}: {why}", item.words.join(" ")));
        }
    }
    if let CheckKind::Exec(Exec { command, .. }) = &reader.check.kind
        && command.is_empty()
    {
        import.leave_out(&item.place, "MISC_CHECK: a program by its whole path is missing");
        return Vec::new();
    }
    reader.finish(name)
}

/// A checker that is being read.
#[derive(Debug)]
struct Checker {
    defaults: Defaults,
    check: Check,
    /// Of a program.
    timeout: Option<Duration>,
    urls: Vec<Http>,
    has_sni: bool,
}

impl Checker {
    fn finish(self, name: &str) -> Vec<Check> {
        let Self { defaults, check, timeout, urls, has_sni } = self;
        let mut timing = defaults.timing(name);
        if name == "MISC_CHECK" {
            timing.timeout = timeout.unwrap_or(timing.interval);
        }
        let host = defaults.virtualhost;
        if !matches!(name, "HTTP_GET" | "SSL_GET") {
            return vec![Check { timing, ..check }];
        }
        let checks = urls.into_iter().map(|mut url| {
            url.host = url.host.or_else(|| host.clone());
            if let Some(tls) = url.tls.as_mut().filter(|_| has_sni) {
                tls.sni.clone_from(&url.host);
            }
            Check { kind: CheckKind::Http(url), timing: timing.clone(), ..check.clone() }
        });
        checks.collect()
    }

    fn take(&mut self, item: &Item) -> Result<(), String> {
        if let Some(taken) = self.defaults.take(item) {
            return taken;
        }
        let words = item.rest();
        let address = |word: &str| word.parse::<IpAddr>().map_err(|_bad| "no address".to_owned());
        match (item.name(), &words[..], &mut self.check.kind) {
            ("connect_ip", [word], _) => self.check.address = Some(address(word)?),
            ("bindto", [word], _) => self.check.source = Some(address(word)?),
            ("connect_port", [word], _) => {
                self.check.port = Some(word.parse().map_err(|_bad| "no port")?);
            }
            ("fwmark", [word], _) => {
                self.check.mark = word.parse().map_err(|_bad| "no firewall mark")?;
            }
            // All failures are counted, and the last is shown.
            ("log_all_failures" | "fast_recovery", _, _) => {}
            ("enable_sni", [], _) => self.has_sni = true,
            ("helo_name", [name], CheckKind::Smtp(smtp)) => (*name).clone_into(&mut smtp.helo),
            ("type", [record], CheckKind::Dns(dns)) => {
                if !RECORDS.contains(record) {
                    return Err("no type of record that can be asked for".into());
                }
                (*record).clone_into(&mut dns.record);
            }
            ("name", [name], CheckKind::Dns(dns)) => (*name).clone_into(&mut dns.name),
            ("payload", words, CheckKind::Udp(udp)) => {
                udp.payload = hex(words)?.into_iter().map(|(octet, _)| octet).collect();
            }
            ("require_reply", words, CheckKind::Udp(udp)) => {
                udp.require_reply = true;
                let octets = hex(words)?;
                udp.reply = Some(octets).filter(|it| !it.is_empty()).map(Expected::Octets);
            }
            ("misc_path", words, CheckKind::Exec(exec)) => {
                let words = words.iter().flat_map(|word| word.split_whitespace());
                exec.command = words.map(str::to_owned).collect();
                if !exec.command.first().is_some_and(|path| path.starts_with('/')) {
                    exec.command.clear();
                    return Err("a program by its whole path".into());
                }
            }
            ("misc_timeout", words, CheckKind::Exec(_)) => self.timeout = Some(timer(words)?),
            ("misc_dynamic", [], CheckKind::Exec(exec)) => exec.dynamic = true,
            ("user", [user, group @ ..], CheckKind::Exec(exec)) => {
                (*user).clone_into(&mut exec.user);
                exec.group = group.first().unwrap_or(user).to_string();
            }
            ("alpha" | "inhibit_on_failure", ..) => {
                return Err("only of a whole virtual server".into());
            }
            _ => return Err("this is not known here".into()),
        }
        Ok(())
    }

    fn url(import: &mut Import, item: &Item, within_tls: bool) -> Http {
        let mut http = Http {
            method: "GET".into(),
            path: "/".into(),
            host: None,
            status: vec![(200, 299)],
            body: None,
            tls: within_tls.then_some(Tls { sni: None, verify: false, ca_file: None }),
        };
        for item in item.block.iter().flatten() {
            let words = item.rest();
            let taken = match (item.name(), &words[..]) {
                ("path", [path]) => {
                    (*path).clone_into(&mut http.path);
                    Ok(())
                }
                ("status_code", [_, ..]) => statuses(&words).map(|all| http.status = all),
                ("virtualhost", [name]) => {
                    http.host = Some((*name).to_owned());
                    Ok(())
                }
                ("regex", [pattern]) => {
                    is_pattern(pattern).map(|()| http.body = Some((*pattern).to_owned()))
                }
                ("digest", _) => Err("no digest is made: `body` searches for a text".into()),
                _ => Err("this is not known here".to_owned()),
            };
            if let Err(why) = taken {
                import.leave_out(&item.place, format!("{}: {why}", item.words.join(" ")));
            }
        }
        http
    }
}

fn statuses(words: &[&str]) -> Result<Vec<(u16, u16)>, String> {
    let one = |word: &&str| {
        let (from, to) = word.split_once('-').unwrap_or((word, word));
        let range = (from.parse().ok()?, to.parse().ok()?);
        (100..=range.1).contains(&range.0).then_some(range)
    };
    words.iter().map(one).collect::<Option<_>>().ok_or_else(|| "no status of HTTP".into())
}

/// Octets, and the bits of each that count: pairs of digits, of which the last of a word may be
/// one alone.
fn hex(words: &[&str]) -> Result<Vec<(u8, u8)>, String> {
    let digit = |digit: char| match digit {
        'x' | 'X' => Some((0, 0)),
        digit => Some((u8::try_from(digit.to_digit(16)?).ok()?, 0xf)),
    };
    let octet = |pair: &[char]| {
        let (first, second) = match *pair {
            [high, low] => (digit(high)?, digit(low)?),
            [low] => ((0, 0xf), digit(low)?),
            _ => return None,
        };
        Some((first.0 << 4 | second.0, first.1 << 4 | second.1))
    };
    let words = words.iter().flat_map(|word| word.split_whitespace());
    let octets = words.flat_map(|word| {
        let digits: Vec<char> = word.chars().collect();
        digits.chunks(2).map(octet).collect::<Vec<_>>()
    });
    octets.collect::<Option<_>>().ok_or_else(|| "no hexadecimal digits".into())
}
