//! The planes, and how a case is run on each.

use ipvs_plane::bpf::AttachMode;

use crate::bpf_subject::{self, Bpf};
use crate::case::Recorded;
use crate::compare::Difference;
use crate::core_subject::CoreSubject;
use crate::host::Host;
use crate::namespace_subject::NamespaceSubject;
use crate::replay::replay;
use crate::report::Outcome;
use crate::subject::{Subject, Trouble};
use crate::user_subject::{self, User};

/// What is held against the recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plane {
    /// The core alone, in this process.
    Core,
    /// The plane of user space, in network namespaces.
    User,
    /// The plane of eBPF, in network namespaces, attached as it chooses: with TC.
    Bpf,
    /// The same, attached with XDP.
    Xdp,
    /// The same, behind the host's firewall.
    Netfilter,
}

impl Plane {
    /// Its name, as typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::User => "user",
            Self::Bpf => "bpf",
            Self::Xdp => "xdp",
            Self::Netfilter => "netfilter",
        }
    }

    /// Makes this process ready for the plane. To be called before threads start.
    pub fn prepare(self) -> anyhow::Result<()> {
        match self {
            Self::Bpf | Self::Xdp | Self::Netfilter if ipvs_lab::can_make_namespaces() => {
                bpf_subject::prepare()
            }
            Self::User if !ipvs_lab::can_make_namespaces() => Ok(ipvs_lab::enter_user_namespace()?),
            _ => Ok(()),
        }
    }

    /// Why no director of this plane can be started here, if so.
    pub fn is_missing(self) -> Option<String> {
        if self == Self::Netfilter && !has_nft() {
            return Some("nft is not installed, and recorded rulesets cannot be loaded".to_owned());
        }
        match self.subject() {
            Err(Trouble::Unsupported(reason)) => Some(reason),
            Ok(_) | Err(Trouble::Broken(_)) => None,
        }
    }

    /// A director of this plane, laid out as in the recordings.
    fn subject(self) -> Result<Box<dyn Subject>, Trouble> {
        match self {
            Self::Core => Ok(Box::new(CoreSubject::new()?)),
            Self::User => Ok(Box::new(NamespaceSubject::new(&user_subject::host(), User::start)?)),
            Self::Bpf | Self::Xdp | Self::Netfilter => {
                let mode = match self {
                    Self::Xdp => AttachMode::Xdp,
                    Self::Netfilter => AttachMode::Netfilter,
                    _ => AttachMode::Auto,
                };
                Ok(Box::new(NamespaceSubject::new(&Host::std_1(), || Bpf::start(mode))?))
            }
        }
    }
}

/// Whether a shell would find the program.
fn has_nft() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("nft").is_file())
}

/// Replays one case on a fresh director.
pub fn run_case(recorded: &Recorded, plane: Plane) -> Outcome {
    let replayed = plane.subject().and_then(|mut subject| replay(recorded, &mut *subject));
    match replayed {
        Ok(differences) if differences.is_empty() => Outcome::Passed,
        Ok(differences) => Outcome::Failed(differences),
        Err(Trouble::Unsupported(reason)) => Outcome::Skipped(reason),
        Err(Trouble::Broken(error)) => Outcome::Failed(vec![Difference {
            place: "the replay broke off".into(),
            lines: vec![format!("{error:#}")],
        }]),
    }
}
