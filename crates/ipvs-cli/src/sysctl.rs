//! `ipvs sysctl`: the settings of `net.ipv4.vs` over the director's socket, with
//! the arguments, output, messages and exit statuses of `sysctl`.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};

use ipvs_core::sysctl::PREFIX;
use ipvs_netlink::client::Transport;
use ipvs_netlink::{Client, ClientError, Errno};

use crate::adm::{Session, Unreachable, system_text};

pub(crate) const HELP: &str = "Usage: ipvs sysctl [-w] [-a] [-n | -N] [-e] [-q] [NAME[=VALUE]...]
Reads and changes the director's settings, named as in /proc/sys/net/ipv4/vs, with or
without net.ipv4.vs. in front; without a name shows all.
  -w, --write    every argument is a change
  -a, --all      show all
  -n, --values   show values only
  -N, --names    show names only
  -e, --ignore   say nothing of unknown names
  -q, --quiet    say nothing of what was changed
";

/// How the program is called.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one for each option")]
struct Options {
    all: bool,
    write: bool,
    values: bool,
    names: bool,
    ignore: bool,
    quiet: bool,
}

/// Runs `sysctl` with these arguments, the first of which is the name that it
/// gives itself in messages; returns the exit status.
pub fn run<T: Transport>(
    args: &[OsString],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> u8 {
    // If nobody reads what was to be said, the status says it too.
    execute(args, stdout, stderr, connect).unwrap_or(1)
}

fn execute<T: Transport>(
    args: &[OsString],
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
    connect: impl FnOnce() -> Result<Session<T>, Unreachable>,
) -> io::Result<u8> {
    let mut args = args.iter().map(|arg| arg.to_string_lossy());
    let program = args.next().unwrap_or_default().into_owned();
    let mut options = Options::default();
    let mut words = Vec::new();
    for arg in args {
        match arg.as_ref() {
            "-h" | "--help" => {
                stdout.write_all(HELP.as_bytes())?;
                return Ok(0);
            }
            "--all" => options.all = true,
            "--write" => options.write = true,
            "--values" => options.values = true,
            "--names" => options.names = true,
            "--ignore" => options.ignore = true,
            "--quiet" => options.quiet = true,
            long if long.starts_with("--") => {
                writeln!(stderr, "{program}: unrecognized option '{long}'\n{HELP}")?;
                return Ok(1);
            }
            short if short.starts_with('-') && short.len() > 1 => {
                for letter in short.chars().skip(1) {
                    match letter {
                        'a' | 'A' | 'X' => options.all = true,
                        'w' => options.write = true,
                        'n' => options.values = true,
                        'N' => options.names = true,
                        'e' => options.ignore = true,
                        'q' => options.quiet = true,
                        _ => {
                            writeln!(stderr, "{program}: invalid option -- '{letter}'\n{HELP}")?;
                            return Ok(1);
                        }
                    }
                }
            }
            word => words.push(word.to_owned()),
        }
    }
    let mut session = match connect() {
        Ok(session) => session,
        Err(Unreachable { cause, advice }) => {
            writeln!(stderr, "{program}: {}\n{advice}", system_text(&cause))?;
            return Ok(1);
        }
    };
    let mut task = Task { client: session.client(), options, program, stdout, stderr };
    if options.all || words.is_empty() {
        return task.show_all();
    }
    let mut status = 0;
    for word in &words {
        status = task.word(word)?.max(status);
    }
    Ok(status)
}

/// What is done with a director, word by word.
struct Task<'a, T> {
    client: &'a mut Client<T>,
    options: Options,
    program: String,
    stdout: &'a mut dyn Write,
    stderr: &'a mut dyn Write,
}

impl<T: Transport> Task<'_, T> {
    fn show_all(&mut self) -> io::Result<u8> {
        match self.client.settings() {
            Ok(settings) => {
                for (name, value) in settings {
                    self.show(&name, &value)?;
                }
                Ok(0)
            }
            Err(error) => {
                writeln!(self.stderr, "{}: {}", self.program, system_text(&error))?;
                Ok(1)
            }
        }
    }

    fn show(&mut self, name: &str, value: &dyn fmt::Display) -> io::Result<()> {
        match self.options {
            Options { names: true, .. } => writeln!(self.stdout, "{PREFIX}{name}"),
            Options { values: true, .. } => writeln!(self.stdout, "{value}"),
            _ => writeln!(self.stdout, "{PREFIX}{name} = {value}"),
        }
    }

    /// Shows or changes what one argument names.
    fn word(&mut self, word: &str) -> io::Result<u8> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let name = short(name);
        match value {
            Some(value) => match self.client.set_setting(&name, value) {
                Ok(()) if self.options.quiet => Ok(0),
                Ok(()) => self.show(&name, &value).and(Ok(0)),
                Err(error) => self.refused(&name, &error, true),
            },
            None if self.options.write => {
                let program = &self.program;
                writeln!(self.stderr, "{program}: \"{word}\" must be of the form name=value")?;
                Ok(1)
            }
            None => match self.client.setting(&name) {
                Ok(value) => self.show(&name, &value).and(Ok(0)),
                Err(error) => self.refused(&name, &error, false),
            },
        }
    }

    fn refused(&mut self, name: &str, error: &ClientError, writing: bool) -> io::Result<u8> {
        let (program, text) = (&self.program, system_text(error));
        if matches!(error, ClientError::Refused(Errno::NOENT)) {
            if self.options.ignore {
                return Ok(0);
            }
            writeln!(self.stderr, "{program}: cannot stat /proc/sys/net/ipv4/vs/{name}: {text}")?;
        } else if writing {
            writeln!(self.stderr, "{program}: setting key \"{PREFIX}{name}\": {text}")?;
        } else {
            writeln!(self.stderr, "{program}: reading key \"{PREFIX}{name}\": {text}")?;
        }
        Ok(1)
    }
}

/// A setting's name without its directory, which may be written with dots or slashes.
fn short(name: &str) -> String {
    let dotted = if name.starts_with("net/") { name.replace('/', ".") } else { name.to_owned() };
    dotted.strip_prefix(PREFIX).unwrap_or(&dotted).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipvs_core::command::Command;
    use ipvs_core::service::ServiceKey;
    use ipvs_core::settings::Settings;
    use ipvs_core::snapshot::{ConnStatus, Control, DestStatus, Refused, ServiceStatus, Timeouts};
    use ipvs_core::sysctl::{self, SysctlError};
    use ipvs_netlink::client::LocalTransport;

    /// A director that has settings and nothing else.
    struct Bare(Settings);

    impl Control for Bare {
        fn apply(&mut self, _: &[Command]) -> Result<(), Refused> {
            Ok(())
        }
        fn services(&mut self, _: &mut dyn FnMut(ServiceStatus)) {}
        fn service(&mut self, _: &ServiceKey) -> Option<ServiceStatus> {
            None
        }
        fn dests(&mut self, _: &ServiceKey, _: &mut dyn FnMut(DestStatus)) -> bool {
            false
        }
        fn connections(&mut self, _: &mut dyn FnMut(ConnStatus)) {}
        fn timeouts(&mut self) -> Timeouts {
            Timeouts { tcp: 1, tcp_fin: 2, udp: 3 }
        }
        fn sysctls(&mut self, each: &mut dyn FnMut(&'static str, sysctl::Value)) {
            for it in &sysctl::ALL {
                each(it.name, it.get(&self.0));
            }
        }
        fn set_sysctl(&mut self, name: &str, text: &str) -> Result<(), SysctlError> {
            sysctl::find(name).ok_or(SysctlError::Unknown)?.set(&mut self.0, text)
        }
        fn table_size(&self) -> u32 {
            4096
        }
    }

    #[track_caller]
    fn said(director: &mut Bare, line: &str) -> (u8, String, String) {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(&args, &mut out, &mut err, || {
            Session::open(LocalTransport::new(director))
                .map_err(|cause| Unreachable { cause, advice: String::new() })
        });
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn director() -> Bare {
        Bare(Settings::DEFAULT)
    }

    #[test]
    fn without_a_name_every_setting_is_shown_in_order() {
        let (status, out, _) = said(&mut director(), "ipvs-sysctl");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!((status, lines.len()), (0, sysctl::ALL.len()));
        assert_eq!(lines[0], "net.ipv4.vs.am_droprate = 10");
        assert!(lines.contains(&"net.ipv4.vs.sync_threshold = 3\t50"));
        assert_eq!(said(&mut director(), "sysctl -a").1, out);
    }

    #[test]
    fn several_are_read_and_changed_at_once_and_each_refusal_is_told() {
        let mut director = director();
        let line = "sysctl -w drop_entry=3 net.ipv4.vs.secure_tcp=7 nosuch=1 sloppy_tcp=0x1";
        let (status, out, err) = said(&mut director, line);
        assert_eq!(status, 1);
        assert_eq!(out, "net.ipv4.vs.drop_entry = 3\nnet.ipv4.vs.sloppy_tcp = 0x1\n");
        assert_eq!(
            err,
            "sysctl: setting key \"net.ipv4.vs.secure_tcp\": Invalid argument\n\
             sysctl: cannot stat /proc/sys/net/ipv4/vs/nosuch: No such file or directory\n"
        );
        let (_, out, _) = said(&mut director, "sysctl -n drop_entry net/ipv4/vs/sloppy_tcp");
        assert_eq!(out, "3\n1\n");
        assert_eq!(director.0.secure_tcp, 0);
    }

    #[test]
    fn what_was_not_asked_for_is_not_said() {
        let mut director = director();
        let nothing = (0, String::new(), String::new());
        assert_eq!(said(&mut director, "sysctl -q drop_entry=1"), nothing);
        assert_eq!(said(&mut director, "sysctl -e nosuch"), nothing);
        let (status, _, err) = said(&mut director, "sysctl -w drop_entry");
        assert_eq!(status, 1);
        assert_eq!(err, "sysctl: \"drop_entry\" must be of the form name=value\n");
    }
}
