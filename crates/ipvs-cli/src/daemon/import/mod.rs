//! `ipvs import`: what other programs are configured with, as a file of ours.

mod blocks;
mod checks;
mod keepalived;
mod saved;

use std::collections::HashSet;
use std::fmt::Display;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ipvs_config::health::Health;
use ipvs_config::{Service, Wanted};
use ipvs_core::dest::{DestKey, DestSpec};
use ipvs_core::service::ServiceKey;

#[derive(Debug, Args)]
pub(in crate::daemon) struct Options {
    /// What the file is
    #[arg(value_enum)]
    format: Format,
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines of `ipvsadm-save` or `ipvsadm -S`
    IpvsadmSave,
    /// Virtual servers of keepalived
    #[value(name = "keepalived.conf")]
    KeepalivedConf,
}

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    file: String,
    line: usize,
}

/// What was found, and what cannot be carried over.
#[derive(Debug, Default)]
struct Import {
    wanted: Wanted,
    /// Of each service.
    places: Vec<Place>,
    left_out: Vec<String>,
}

impl Import {
    fn leave_out(&mut self, place: &Place, what: impl Display) {
        self.left_out.push(format!("{}:{}: {what}", place.file, place.line));
    }

    fn add_service(&mut self, place: &Place, service: Service) {
        if self.wanted.services.iter().any(|other| other.key == service.key) {
            return self.leave_out(place, "this service is there already");
        }
        self.wanted.services.push(service);
        self.places.push(place.clone());
    }

    fn add_dest(&mut self, place: &Place, key: &ServiceKey, dest: (DestKey, DestSpec)) {
        match self.wanted.services.iter_mut().find(|service| service.key == *key) {
            None => self.leave_out(place, "there is no such service above"),
            Some(service) if service.dests.iter().any(|(other, _)| *other == dest.0) => {
                self.leave_out(place, "the service has this destination already");
            }
            Some(service) => service.dests.push(dest),
        }
    }

    /// Has the destinations of a service checked; why not, if there is nothing to check.
    fn add_health(
        &mut self,
        key: &ServiceKey,
        mut health: Health,
        sorry: Option<(DestKey, DestSpec)>,
    ) -> Result<(), &'static str> {
        let Some(service) = self.wanted.services.iter_mut().find(|it| it.key == *key) else {
            return Ok(());
        };
        let mut seen = HashSet::new();
        health.by_dest.retain(|(dest, _)| seen.insert(*dest));
        if health.is_none() {
            let says_nothing = sorry.is_none() && health.quorum == 0;
            return if says_nothing {
                Ok(())
            } else {
                Err("a quorum needs checks, of which there are none")
            };
        }
        if let [(_, first), rest @ ..] = &health.by_dest[..]
            && rest.iter().all(|(_, checks)| checks == first)
        {
            health.checks.clone_from(first);
            health.by_dest.clear();
        }
        // As keepalived does.
        health.hysteresis = health.hysteresis.min(health.quorum.max(1) - 1);
        service.health = Health { sorry_server: sorry, ..health };
        Ok(())
    }

    /// The text of our file, without the services that it cannot say.
    fn text(&mut self) -> String {
        let services = std::mem::take(&mut self.wanted.services);
        for (service, place) in services.into_iter().zip(std::mem::take(&mut self.places)) {
            let alone = Wanted { services: vec![service], ..Wanted::default() };
            match ipvs_config::read("file", &ipvs_config::export(&alone)) {
                Ok(again) if again == alone => self.wanted.services.extend(alone.services),
                Ok(_) => self.leave_out(&place, "a configuration file cannot say this service"),
                Err(error) => self.leave_out(&place, format!("this service: {}", error.message)),
            }
        }
        ipvs_config::export(&self.wanted)
    }
}

/// Prints the file; whether something was left out.
pub(in crate::daemon) fn run(options: &Options) -> Result<bool, String> {
    let name = options.file.display().to_string();
    let mut import = match options.format {
        Format::IpvsadmSave => saved::import(&name, &read(&options.file)?),
        Format::KeepalivedConf => keepalived::import(&options.file, &read(&options.file)?),
    };
    let text = import.text();
    let mut stderr = io::stderr().lock();
    for what in &import.left_out {
        let _unheard = writeln!(stderr, "{what}");
    }
    if !import.left_out.is_empty() {
        let _unheard = writeln!(stderr, "ipvs import: left out: {}", import.left_out.len());
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(!import.left_out.is_empty()),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().read_to_string(&mut text).map(|_| ())
    } else {
        fs::read_to_string(path).map(|read| text = read)
    };
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text)
}
