//! Man pages and completions, made of what the help is made of.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{adm, daemon, demo, exec, proc, sysctl};

/// The section of administrators' commands.
const SECTION: &str = "8";

/// A command that reads its arguments itself, as what it stands in for does.
struct Own {
    /// Its page.
    page: &'static str,
    /// What it is called behind `ipvs`.
    name: &'static str,
    about: &'static str,
    help: fn() -> String,
}

const OWN: [Own; 4] = [
    Own {
        page: "ipvsadm",
        name: "adm",
        about: "Configure and list virtual services, as ipvsadm does",
        help: || adm::HELP.to_owned(),
    },
    Own {
        page: "ipvs-sysctl",
        name: "sysctl",
        about: "Read and change the settings of net.ipv4.vs",
        help: || sysctl::HELP.to_owned(),
    },
    Own {
        page: "ipvs-proc",
        name: "proc",
        about: "Show what a kernel shows in /proc/net",
        help: proc::help,
    },
    Own {
        page: "ipvs-exec",
        name: "exec",
        about: "Run an unmodified program with this director as its IPVS",
        help: || exec::HELP.to_owned(),
    },
];

/// The whole command line.
fn command() -> Command {
    let own = OWN.iter().map(|own| {
        let rest = Arg::new("ARGUMENTS").num_args(0..).allow_hyphen_values(true);
        let rest = rest.value_hint(ValueHint::Other).help("See its own --help");
        Command::new(own.name).about(own.about).arg(rest)
    });
    daemon::command()
        .about("A director: Linux's IP Virtual Server, by eBPF or in user space")
        .subcommand(demo::command().name("demo"))
        .subcommands(own)
}

/// Prints the completions for a shell.
pub(crate) fn complete(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "ipvs", &mut script);
    out.write_all(&script)
}

/// Writes all pages to a folder.
pub(crate) fn write_pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut command = command().disable_help_subcommand(true);
    command.build();
    write_page(folder, &command)?;
    for own in &OWN {
        fs::write(page(folder, own.page), verbatim(own))?;
    }
    for script in ["ipvsadm-save", "ipvsadm-restore"] {
        fs::write(page(folder, script), ".so man8/ipvsadm.8\n")?;
    }
    Ok(())
}

fn page(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.{SECTION}"))
}

/// The page of a command and those of its subcommands.
fn write_page(folder: &Path, command: &Command) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let mut text = Vec::new();
    let title = name.to_uppercase();
    Man::new(command.clone()).title(title).section(SECTION).render(&mut text)?;
    fs::write(page(folder, &name), text)?;
    let is_own = |name: &str| OWN.iter().any(|own| own.name == name);
    command
        .get_subcommands()
        .filter(|sub| !is_own(sub.get_name()))
        .try_for_each(|sub| write_page(folder, sub))
}

/// A page that is its command's help, line by line.
fn verbatim(own: &Own) -> String {
    let Own { page, about, help, .. } = own;
    let title = page.to_uppercase();
    let lines: Vec<String> = help().lines().map(escaped).collect();
    format!(
        ".TH {} {SECTION}\n.SH NAME\n{} \\- {}\n.SH DESCRIPTION\n.nf\n{}\n.fi\n",
        escaped(&title),
        escaped(page),
        escaped(about),
        lines.join("\n")
    )
}

/// A line that roff takes as it is.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        write_pages(folder.path()).unwrap();
        let read = |name: &str| fs::read_to_string(page(folder.path(), name)).unwrap();
        let commands = command();
        for sub in commands.get_subcommands() {
            let name = match sub.get_name() {
                "adm" => "ipvsadm".to_owned(),
                name => format!("ipvs-{name}"),
            };
            assert!(read(&name).contains(".TH "), "{name}");
            assert!(read(&name).contains(" 8"), "{name}");
        }
        assert!(read("ipvs").contains("takeover"));
        assert!(read("ipvs-mark-add").contains("\\-\\-"));
        assert!(read("ipvsadm").contains("\n  ipvsadm \\-Z [virtual\\-service]\n"));
        assert_eq!(read("ipvsadm-save"), ".so man8/ipvsadm.8\n");
    }

    #[test]
    fn every_shell_has_completions_of_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            complete(shell, &mut script).unwrap();
            let script = String::from_utf8(script).unwrap();
            for word in ["daemon", "takeover", "adm", "--metrics"] {
                let word = if shell == Shell::Fish { word.trim_start_matches('-') } else { word };
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
