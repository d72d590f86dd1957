//! The settings of `net.ipv4.vs` by name: what each may be, and its text as it
//! is written and read (Linux 6.1).

use core::fmt;

use crate::settings::Settings;

/// What `sysctl` puts in front of each name.
pub const PREFIX: &str = "net.ipv4.vs.";

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Sysctl {
    /// Name, as the file in `/proc/sys/net/ipv4/vs` has it.
    pub name: &'static str,
    kind: Kind,
}

impl PartialEq for Sysctl {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Sysctl {}

/// Where a setting stands in the record.
type Field = fn(&mut Settings) -> &mut u32;

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// An int between these two.
    Int(Field, i32, i32),
    /// An int that is a power of two.
    PowerOfTwo(Field),
    /// An unsigned long, low half first.
    Long(fn(&mut Settings) -> &mut [u32; 2]),
    /// Two ints, the first of which is below the second unless that is 0.
    Threshold,
}

/// A value as it is read. Of the pair of `sync_threshold` the second may be left out of
/// what is written: then it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// One number.
    One(i128),
    /// Two numbers, with a tab between them.
    Two(i32, i32),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(number) => write!(f, "{number}"),
            Self::Two(first, second) => write!(f, "{first}\t{second}"),
        }
    }
}

/// Why a setting was not changed. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    /// There is no setting of this name (`ENOENT`).
    #[error("no such setting")]
    Unknown,
    /// The text is no value that it may have (`EINVAL`).
    #[error("invalid argument")]
    Invalid,
    /// The data plane could not be changed (`EIO`); the daemon's log says why.
    #[error("the data plane refused the change")]
    Plane,
}

const fn any(name: &'static str, field: Field) -> Sysctl {
    within(name, field, i32::MIN, i32::MAX)
}

const fn within(name: &'static str, field: Field, min: i32, max: i32) -> Sysctl {
    Sysctl { name, kind: Kind::Int(field, min, max) }
}

/// Every setting, sorted by name.
pub const ALL: [Sysctl; 29] = [
    any("am_droprate", |it| &mut it.am_droprate),
    any("amemthresh", |it| &mut it.amemthresh),
    any("backup_only", |it| &mut it.backup_only),
    any("cache_bypass", |it| &mut it.cache_bypass),
    any("conn_reuse_mode", |it| &mut it.conn_reuse_mode),
    any("conntrack", |it| &mut it.conntrack),
    within("drop_entry", |it| &mut it.drop_entry, 0, 3),
    within("drop_packet", |it| &mut it.drop_packet, 0, 3),
    any("expire_nodest_conn", |it| &mut it.expire_nodest_conn),
    any("expire_quiescent_template", |it| &mut it.expire_quiescent_template),
    any("ignore_tunneled", |it| &mut it.ignore_tunneled),
    any("lblc_expiration", |it| &mut it.lblc_expiration),
    any("lblcr_expiration", |it| &mut it.lblcr_expiration),
    any("nat_icmp_send", |it| &mut it.nat_icmp_send),
    any("pmtu_disc", |it| &mut it.pmtu_disc),
    any("run_estimation", |it| &mut it.run_estimation),
    any("schedule_icmp", |it| &mut it.schedule_icmp),
    within("secure_tcp", |it| &mut it.secure_tcp, 0, 3),
    any("sloppy_sctp", |it| &mut it.sloppy_sctp),
    any("sloppy_tcp", |it| &mut it.sloppy_tcp),
    any("snat_reroute", |it| &mut it.snat_reroute),
    any("sync_persist_mode", |it| &mut it.sync_persist_mode),
    Sysctl { name: "sync_ports", kind: Kind::PowerOfTwo(|it| &mut it.sync_ports) },
    Sysctl { name: "sync_qlen_max", kind: Kind::Long(|it| &mut it.sync_qlen_max) },
    any("sync_refresh_period", |it| &mut it.sync_refresh_period),
    within("sync_retries", |it| &mut it.sync_retries, 0, 3),
    any("sync_sock_size", |it| &mut it.sync_sock_size),
    Sysctl { name: "sync_threshold", kind: Kind::Threshold },
    within("sync_version", |it| &mut it.sync_version, 0, 1),
];

/// The setting of this name, with or without [`PREFIX`].
pub fn find(name: &str) -> Option<&'static Sysctl> {
    static TABLE: [Sysctl; ALL.len()] = ALL;
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    TABLE.iter().find(|it| it.name == name)
}

impl Sysctl {
    /// Its present value.
    pub fn get(&self, settings: &Settings) -> Value {
        let mut settings = *settings;
        match self.kind {
            Kind::Int(field, ..) | Kind::PowerOfTwo(field) => {
                Value::One(signed(*field(&mut settings)).into())
            }
            Kind::Long(field) => {
                let [low, high] = *field(&mut settings);
                Value::One((i128::from(high) << 32) | i128::from(low))
            }
            Kind::Threshold => {
                let [threshold, period] = settings.sync_threshold.map(signed);
                Value::Two(threshold, period)
            }
        }
    }

    /// Sets it to what `text` says, as a write to its file would.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), SysctlError> {
        self.put(settings, self.read(text)?)
    }

    /// The value that `text` says; whether it may be had is not looked at.
    pub fn read(&self, text: &str) -> Result<Value, SysctlError> {
        let mut words = text.split_ascii_whitespace();
        let first = number(words.next().ok_or(SysctlError::Invalid)?)?;
        match (self.kind, words.next()) {
            (Kind::Threshold, Some(second)) => Ok(Value::Two(int(first)?, int(number(second)?)?)),
            _ => Ok(Value::One(first)),
        }
    }

    /// Sets it to a value.
    pub fn put(&self, settings: &mut Settings, value: Value) -> Result<(), SysctlError> {
        let (first, second) = match value {
            Value::One(first) => (first, None),
            Value::Two(first, second) => (first.into(), Some(second)),
        };
        match self.kind {
            Kind::Int(field, min, max) => {
                let value = int(first)?;
                if !(min..=max).contains(&value) {
                    return Err(SysctlError::Invalid);
                }
                *field(settings) = value.cast_unsigned();
            }
            Kind::PowerOfTwo(field) => {
                let value = int(first)?;
                if value < 1 || !value.cast_unsigned().is_power_of_two() {
                    return Err(SysctlError::Invalid);
                }
                *field(settings) = value.cast_unsigned();
            }
            Kind::Long(field) => {
                let value = u64::try_from(first).or(Err(SysctlError::Invalid))?;
                #[expect(clippy::cast_possible_truncation, reason = "split into two halves")]
                let halves = [value as u32, (value >> 32) as u32];
                *field(settings) = halves;
            }
            Kind::Threshold => {
                let threshold = int(first)?;
                let period = second.unwrap_or_else(|| signed(settings.sync_threshold[1]));
                if threshold < 0 || period < 0 || (period != 0 && threshold >= period) {
                    return Err(SysctlError::Invalid);
                }
                settings.sync_threshold = [threshold, period].map(i32::cast_unsigned);
            }
        }
        Ok(())
    }
}

/// The int that is kept as the bits of `word`.
const fn signed(word: u32) -> i32 {
    word.cast_signed()
}

fn int(number: i128) -> Result<i32, SysctlError> {
    i32::try_from(number).or(Err(SysctlError::Invalid))
}

/// A number in decimal, in octal behind `0`, or in hexadecimal behind `0x`.
fn number(word: &str) -> Result<i128, SysctlError> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (digits.get(2..).unwrap_or(""), 16),
        [b'0', _, ..] => (digits.get(1..).unwrap_or(""), 8),
        _ => (digits, 10),
    };
    // What `from_str_radix` takes and the kernel does not.
    if digits.starts_with(['+', '-']) {
        return Err(SysctlError::Invalid);
    }
    let value = u64::from_str_radix(digits, radix).or(Err(SysctlError::Invalid))?;
    Ok(i128::from(value) * sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of `name` after `text` was written to it.
    #[track_caller]
    fn written(name: &str, text: &str) -> Result<Value, SysctlError> {
        let mut settings = Settings::DEFAULT;
        let sysctl = find(name).unwrap();
        let before = settings;
        let result = sysctl.set(&mut settings, text);
        if result.is_err() {
            assert_eq!(settings, before, "{name}={text:?} was refused and changed something");
        }
        result.map(|()| sysctl.get(&settings))
    }

    #[test]
    fn the_table_is_sorted_and_every_name_has_its_own_field() {
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
        for (place, changed) in ALL.iter().enumerate() {
            let mut settings = Settings::DEFAULT;
            // 2 is a value that each may have; 1 and 0 where it is the default or too large.
            let texts = ["2", "1", "0", "2 9"];
            let text = texts.iter().find(|text| {
                settings = Settings::DEFAULT;
                changed.set(&mut settings, text).is_ok() && settings != Settings::DEFAULT
            });
            assert!(text.is_some(), "{} cannot be changed", changed.name);
            for (other, sysctl) in ALL.iter().enumerate() {
                let differs = sysctl.get(&settings) != sysctl.get(&Settings::DEFAULT);
                assert_eq!(differs, other == place, "{} and {}", changed.name, sysctl.name);
            }
        }
    }

    #[test]
    fn numbers_are_read_in_three_notations_with_blanks_around() {
        for (text, value) in [("16", 16), (" 0x10\n", 16), ("020", 16), ("-5", -5), ("0", 0)] {
            assert_eq!(written("conn_reuse_mode", text), Ok(Value::One(value)), "{text:?}");
        }
        assert_eq!(written("conn_reuse_mode", "1 x"), Ok(Value::One(1)), "only one is read");
        assert_eq!(written("conn_reuse_mode", "-0x2"), Ok(Value::One(-2)));
        for text in ["", " ", "abc", "1x", "08", "0x", "--1", "+1", "-", "0x-1", "2147483648"] {
            assert_eq!(written("conn_reuse_mode", text), Err(SysctlError::Invalid), "{text:?}");
        }
    }

    #[test]
    fn ranges_are_those_of_the_kernel() {
        for (name, text) in [
            ("drop_entry", "4"),
            ("drop_entry", "-1"),
            ("drop_packet", "4"),
            ("secure_tcp", "7"),
            ("sync_version", "2"),
            ("sync_retries", "4"),
            ("sync_ports", "0"),
            ("sync_ports", "3"),
            ("sync_ports", "-1"),
            ("sync_qlen_max", "-1"),
            ("sync_refresh_period", "4294967295"),
        ] {
            assert_eq!(written(name, text), Err(SysctlError::Invalid), "{name}={text}");
        }
        for (name, text, value) in [
            ("drop_entry", "3", 3),
            ("sync_ports", "128", 128),
            ("sync_qlen_max", "18446744073709551615", i128::from(u64::MAX)),
            ("sync_sock_size", "-1", -1),
            ("lblc_expiration", "-1", -1),
            ("schedule_icmp", "2147483647", 2_147_483_647),
        ] {
            assert_eq!(written(name, text), Ok(Value::One(value)), "{name}={text}");
        }
    }

    #[test]
    fn a_threshold_is_a_pair_and_checked_as_one() {
        let written = |text| written("sync_threshold", text);
        assert_eq!(written("2 3"), Ok(Value::Two(2, 3)));
        assert_eq!(written("7"), Ok(Value::Two(7, 50)), "the period stays");
        assert_eq!(written("60"), Err(SysctlError::Invalid));
        assert_eq!(written("5 0"), Ok(Value::Two(5, 0)));
        assert_eq!(written("1 2 3"), Ok(Value::Two(1, 2)));
        for text in ["5 3", "3 3", "-1 3", "1 -3", "a b", "1 x"] {
            assert_eq!(written(text), Err(SysctlError::Invalid), "{text}");
        }
    }

    #[test]
    fn names_are_known_with_and_without_their_directory() {
        assert!(find("net.ipv4.vs.sloppy_tcp").is_some() && find("sloppy_tcp").is_some());
        assert!(find("nosuch").is_none() && find("net.ipv4.ip_forward").is_none());
    }
}
